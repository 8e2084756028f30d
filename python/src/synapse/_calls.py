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


class Extras:
    """What few calls have."""

    __slots__ = (
        "closers",
        "guard",
        "headers",
        "meta",
        "parent",
        "progress",
        "seats",
        "stream",
        "trace",
    )

    def __init__(self) -> None:
        self.trace: str | None = None
        self.headers: dict[str, str] | None = None
        # All of what came with the request, where that is more than the method.
        self.meta: dict[str, Any] | None = None
        # The call whose handler waits for the host function that made this one.
        self.parent: Call | None = None
        self.stream: OutStream | None = None
        self.progress: Progress | None = None
        self.guard: Guard | None = None
        # What ends with the call.
        self.closers: dict[Callable[[], None], None] = {}
        # The threads that wait for the host on its behalf.
        self.seats: list[Seat] = []


class Call:
    """An open call, which `make_call` makes.

    `cancelled` is written by the thread that reads, `started` by the one that runs the handler;
    each writes its own before it looks at the other's, so that a call cancelled while it waits is
    answered by one of them.
    """

    __slots__ = (
        "answered",
        "cancelled",
        "deadline",
        "extras",
        "handler",
        "id",
        "payload",
        "started",
        "task",
    )

    id: int
    handler: Handler
    payload: Any
    cancelled: bool
    started: bool
    answered: bool
    deadline: float | None
    task: asyncio.Task[Any] | None
    extras: Extras | None

    @property
    def stream(self) -> OutStream | None:
        return None if self.extras is None else self.extras.stream

    @property
    def parent(self) -> Call | None:
        return None if self.extras is None else self.extras.parent

    @property
    def guard(self) -> Guard | None:
        return None if self.extras is None else self.extras.guard

    def extend(self) -> Extras:
        """The extras, which it has from now on."""
        if self.extras is None:
            # Made before: the collector may run where something is, and finalizers that come here.
            extras = Extras()
            with _extending:
                if self.extras is None:
                    self.extras = extras
        return self.extras

    def at_end(self, close: Callable[[], None]) -> None:
        """Let something end with the call: at once, where it has ended."""
        self.extend().closers[close] = None
        if self.answered:
            self.end()

    def forget(self, close: Callable[[], None]) -> None:
        """Let go of what has ended before the call."""
        if self.extras is not None:
            self.extras.closers.pop(close, None)

    def end(self) -> None:
        """End what ends with the call, each once."""
        extras = self.extras
        while extras is not None and extras.closers:
            try:
                close, _ = extras.closers.popitem()
            except KeyError:
                return
            close()


_extending: Final = threading.Lock()


def make_call(id: int, handler: Handler, payload: bytearray | memoryview) -> Call:
    """A call that has arrived. For every one of them, an `__init__` would take twice as long."""
    call = Call()
    call.id = id
    call.handler = handler
    call.payload = payload
    call.cancelled = call.started = call.answered = False
    call.deadline = call.task = call.extras = None
    return call
