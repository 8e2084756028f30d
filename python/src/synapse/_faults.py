"""The end of a worker that cannot go on."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

from synapse import _life


def leave_faulty() -> NoReturn:
    """Leave with the traceback of the exception that is being handled: without its reader a worker
    would be a process that answers nothing.
    """
    traceback.print_exc(file=sys.__stderr__)
    _life.leave_at_once(1)


def leave_broken(error: BaseException) -> NoReturn:
    """Leave because of what the host has sent."""
    # Not through the channel: what the host makes of it is anyone's guess.
    if sys.__stderr__ is not None:
        print(f"synapse: the host broke the protocol: {error}", file=sys.__stderr__, flush=True)
    _life.leave_at_once(_life.EXIT_PROTOCOL_BROKEN)
