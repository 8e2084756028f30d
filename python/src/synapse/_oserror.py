"""What the system says of an address that cannot be had."""

from __future__ import annotations

import os
import socket


def reason_of(error: OSError) -> str:
    """The reason alone: Python and asyncio put the address behind it, or in its place."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)
