"""What a handler can know about the call it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from synapse._calls import Call

current_call: Final[ContextVar[Call | None]] = ContextVar("synapse_call", default=None)
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Context:
    """The call that a handler answers: `synapse.context()` returns it.

    It may be passed on to threads that a handler starts, and kept as long as they run.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def method(self) -> str:
        """The name under which the handler was called."""
        return self._call.handler.name

    @property
    def call_id(self) -> int:
        """The number of the call; the host may use it again once the call has ended."""
        return self._call.id

    @property
    def cancelled(self) -> bool:
        """Whether the caller has given up: a long handler looks at this now and then, and
        returns.
        """
        return self._call.cancelled

    @property
    def deadline(self) -> float | None:
        """When the caller gives up, in seconds on the clock of `time.monotonic`, or `None`.

        `progress` may move it.
        """
        return self._call.deadline

    @property
    def remaining(self) -> float | None:
        """The seconds left until the deadline, not below 0, or `None` where there is no
        deadline.
        """
        deadline = self._call.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def trace(self) -> str | None:
        """The W3C `traceparent` of the caller's span, or `None`."""
        extras = self._call.extras
        return None if extras is None else extras.trace

    @property
    def headers(self) -> Mapping[str, str]:
        """What the caller sent along, by name. It cannot be changed."""
        extras = self._call.extras
        headers = None if extras is None else extras.headers
        return _NO_HEADERS if headers is None else MappingProxyType(headers)

    def progress(self, value: Any = None) -> None:
        """Tell the caller how far the call is: any value that a handler could return.

        It arrives before the call ends. Where the caller allows it, the call has its whole time
        again from now on. Does nothing where nobody listens, and once the call has ended.

        Raises:
            ValueError: The value cannot be carried; the message says where the fault is.

        Example:
            >>> import synapse
            >>> @synapse.handler
            ... def train(epochs: int) -> int:
            ...     for epoch in range(epochs):
            ...         synapse.context().progress({"epoch": epoch})
            ...     return epochs
        """
        extras = self._call.extras
        if extras is not None and extras.progress is not None:
            extras.progress.report(value)

    def __repr__(self) -> str:
        return f"<synapse.Context of call {self.call_id} to {self.method!r}>"


def context() -> Context:
    """Return the context of the handler that is running.

    It follows the code of a handler into the tasks it creates and into `asyncio.to_thread`.

    Raises:
        RuntimeError: No handler is running here.

    Example:
        >>> import synapse
        >>> @synapse.handler
        ... def search(query: str) -> list[str]:
        ...     found = []
        ...     for part in range(1000):
        ...         if synapse.context().cancelled:
        ...             break
        ...         found.append(query)
        ...     return found
    """
    call = current_call.get()
    if call is None:
        raise RuntimeError("synapse.context() was called outside of a handler")
    return Context(call)
