"""Objects that a caller holds on to: what a handler returns to give one away."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from synapse._handlers import underlying

T = TypeVar("T")


class Handle(Generic[T]):
    """An object that stays in the worker, for the caller to call its methods.

    A handler that `Synapse.acquire` calls returns one. The object lives until the caller lets go of
    it, or the worker ends. Its methods whose names do not begin with an underscore can be called,
    and its attributes read, as handlers are: with what was sent bound to their parameters by name,
    plain ones where plain handlers run, coroutine functions on the event loop, and generators as
    streams.

    Args:
        value: The object.
        close: A function or coroutine function without arguments that is called when the object is
            let go of: the first where plain handlers run, the second on the event loop. What it
            raises is logged.

    Example:
        >>> import synapse
        >>> class Session:
        ...     def __init__(self) -> None:
        ...         self.said: list[str] = []
        ...     def say(self, text: str) -> int:
        ...         self.said.append(text)
        ...         return len(self.said)
        >>> @synapse.handler
        ... def open_session() -> synapse.Handle[Session]:
        ...     session = Session()
        ...     return synapse.Handle(session, close=session.said.clear)
        >>> open_session().value.say("hi")
        1
    """

    __slots__ = ("close", "value")

    def __init__(self, value: T, close: Callable[[], Any] | None = None) -> None:
        if close is not None:
            _check_close(close)
        self.value = value
        self.close = close

    def __repr__(self) -> str:
        return f"synapse.Handle({self.value!r})"


def _check_close(close: Any) -> None:
    if not callable(close):
        raise TypeError(f"synapse.Handle: `close` is a function, not {close!r}")
    if inspect.isgeneratorfunction(underlying(close)):
        raise TypeError("synapse.Handle: `close` is a generator, which would never run")


class NotHeld:
    """In place of what a handler returned that was to return a handle."""

    __slots__ = ("detail",)

    def __init__(self, detail: str) -> None:
        self.detail = detail


class AnyMethod:
    """The base of an object whose methods nobody can list: every public name is one."""

    __slots__ = ()
