"""`synapse.replace_me`: a worker that knows it is better replaced."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synapse._drain import Drain

# A host may take no frames above 4096 bytes, and a character may take four.
_MAX_REASON: Final = 1000

_drain: Drain | None = None
# A forked child is no worker.
_pid: Final = os.getpid()


def attach(drain: Drain) -> None:
    """The worker has said `Hello`: from now on it can be replaced."""
    global _drain
    _drain = drain


def replace_done(reason: str) -> None:
    """Ask for another worker in the place of this one, which has done what it was for."""
    if _drain is not None and os.getpid() == _pid:
        _drain.replace(reason, done=True)


def replace_me(reason: str | None = None) -> None:
    """Ask for another worker in the place of this one, which is no good any more: its GPU context
    is lost, say, or a native library has come into a state that it does not get out of.

    The host starts another worker and sends this one no more calls. What runs is finished, the
    handler that asks included; then the functions of `synapse.on_stop` run, and the process ends.
    It can be called from any thread: in handlers, hooks of the end, background functions and tasks.
    Once it has been called, or the worker leaves for another reason, further calls do nothing.

    Args:
        reason: Why, for the log of the host; more than 1000 characters are cut.

    Raises:
        RuntimeError: There is no worker, or it is not ready yet: the module is being imported, or
            its functions of `synapse.on_start` run. An exception there fails the start.
        TypeError: The reason is no text.

    Example:
        >>> import synapse
        >>> @synapse.handler
        ... def embed(text: str) -> list[float]:
        ...     try:
        ...         return model.encode(text)
        ...     except MemoryError:
        ...         synapse.replace_me("out of GPU memory")
        ...         raise
    """
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f"the reason of synapse.replace_me is a text, not {reason!r}")
    if _drain is None or os.getpid() != _pid:
        raise RuntimeError(
            "synapse.replace_me() is for a worker that serves: there is none here, "
            "or it is still starting, where an exception ends it"
        )
    if reason is not None:
        # Lone surrogates have no place in a frame.
        reason = reason[:_MAX_REASON].encode("utf-8", "replace").decode()
    _drain.replace(reason)
