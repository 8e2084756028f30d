"""A call that the host made, from its arrival to its one answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

    from synapse._cancel import Guard
    from synapse._handlers import Handler
    from synapse._outgoing import OutStream
    from synapse._progress import Progress
    from synapse._waits import Seat


class Call:
    """An open call.

    `cancelled` is written by the thread that reads, `started` by the one that runs the handler;
    each writes its own before it looks at the other's, so that a call cancelled while it waits is
    answered by one of them.
    """

    __slots__ = (
        "answered",
        "cancelled",
        "closers",
        "deadline",
        "guard",
        "handler",
        "headers",
        "id",
        "meta",
        "parent",
        "payload",
        "progress",
        "seats",
        "started",
        "stream",
        "task",
        "trace",
    )

    def __init__(self, id: int, handler: Handler, payload: bytearray | memoryview) -> None:
        self.id = id
        self.handler = handler
        self.payload: Any = payload
        self.cancelled = False
        self.started = False
        self.answered = False
        self.deadline: float | None = None
        self.trace: str | None = None
        self.headers: dict[str, str] | None = None
        self.task: asyncio.Task[Any] | None = None
        # All of what came with the request, where that is more than the method.
        self.meta: dict[str, Any] | None = None
        # The call whose handler waits for the host function that made this one.
        self.parent: Call | None = None
        self.stream: OutStream | None = None
        self.progress: Progress | None = None
        self.guard: Guard | None = None
        # What ends with the call.
        self.closers: dict[Callable[[], None], None] | None = None
        # The threads that wait for the host on its behalf.
        self.seats: list[Seat] | None = None

    def at_end(self, close: Callable[[], None]) -> None:
        """Let something end with the call: at once, where it has ended."""
        with _attaching:
            if self.closers is None:
                self.closers = {}
            self.closers[close] = None
        if self.answered:
            self.end()

    def forget(self, close: Callable[[], None]) -> None:
        """Let go of what has ended before the call."""
        if self.closers is not None:
            self.closers.pop(close, None)

    def end(self) -> None:
        """End what ends with the call, each once."""
        while self.closers:
            try:
                close, _ = self.closers.popitem()
            except KeyError:
                return
            close()


_attaching: Final = threading.Lock()
