"""What a cancelled call raises in its handler, and how."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Cancelled(BaseException):
    """The caller has given up.

    It is raised where a synchronous handler waits for the host, and anywhere in one that is
    declared with `cancel="interrupt"`. It is not an `Exception`, so that code which handles those
    lets it pass: the handler ends, and what it has opened is closed on the way.

    Example:
        >>> import synapse
        >>> @synapse.handler(cancel="interrupt")
        ... def count(path: str) -> int:
        ...     with open(path) as lines:
        ...         return sum(1 for _ in lines)
    """


#: The guards of the threads that run handlers which can be interrupted.
guards: Final[dict[int, Guard]] = {}


class Guard:
    """Sees to it that an interruption reaches the code of a handler, and nothing else.

    One thread runs the code with `call`, any other may `interrupt` it. The exception is sent once,
    and only while the code runs; what has not arrived by its end is called back. Where the code
    calls the runtime, it waits: a frame that is half written would be the end of the connection.
    """

    __slots__ = ("_mutex", "_sent", "_shields", "_thread", "_wanted")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._thread: int | None = None
        self._shields = 0
        self._wanted = False
        self._sent = False

    def interrupt(self) -> None:
        """Raise `Cancelled` in the handler: now, or as soon as it runs code of its own."""
        with self._mutex:
            self._wanted = True
            self._send_if_open()

    def _send_if_open(self) -> None:
        if self._thread is not None and self._wanted and not self._sent and not self._shields:
            self._sent = True
            _raise_in(self._thread, Cancelled)

    def call(self, function: Callable[..., R], /, *arguments: Any, **named: Any) -> R:
        """Call a function of the handler, which may be interrupted meanwhile.

        Raises:
            Cancelled: It was, or would have been as soon as it began.
        """
        thread = threading.get_ident()
        outer = guards.get(thread)
        guards[thread] = self
        try:
            self._open(thread)
            result = function(*arguments, **named)
            self._close()
        except BaseException:
            # What is under way arrives before the end of `_close`, if it does: at most once.
            try:
                self._close()
            except Cancelled:
                self._close()
            raise
        finally:
            if outer is None:
                del guards[thread]
            else:
                guards[thread] = outer
        return result

    def _open(self, thread: int) -> None:
        with self._mutex:
            if not self._wanted or self._sent:
                self._thread = thread
                return
            self._sent = True
        raise Cancelled

    def _close(self) -> None:
        with self._mutex:
            thread, self._thread = self._thread, None
            if thread is not None and self._sent:
                _raise_in(thread, None)

    def shield(self) -> None:
        """Begin something that must not be interrupted; for the thread that runs the handler."""
        # What was sent by now has arrived as this function was entered.
        arrived = self._sent
        with self._mutex:
            if self._sent and not arrived and self._thread is not None:
                _raise_in(self._thread, None)
                self._sent = False
            self._shields += 1

    def unshield(self, cancelled: bool = False) -> None:
        with self._mutex:
            self._shields -= 1
            if cancelled:
                # It has been raised already, by what could not be interrupted.
                self._sent = True
            self._send_if_open()


def shielded(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the runtime that handlers call: an interruption waits for its end."""

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        guard = guards.get(threading.get_ident()) if guards else None
        if guard is None:
            return function(*arguments, **named)
        guard.shield()
        cancelled = False
        try:
            return function(*arguments, **named)
        except Cancelled:
            cancelled = True
            raise
        finally:
            guard.unshield(cancelled)

    return call


try:
    import ctypes

    _set_exception: Any = ctypes.pythonapi.PyThreadState_SetAsyncExc
    _c_thread: Any = ctypes.c_ulong
    _c_object: Any = ctypes.py_object
except (ImportError, AttributeError):
    # An interpreter without it: nobody is interrupted, as with `cancel="cooperative"`.
    _set_exception = None


def _raise_in(thread: int, exception: type[BaseException] | None) -> None:
    if _set_exception is not None:
        _set_exception(_c_thread(thread), None if exception is None else _c_object(exception))
