"""A call that the host made, from its arrival to its one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from synapse._handlers import Handler


class Call:
    """An open call.

    `cancelled` is written by the thread that reads, `started` by the one that runs the handler;
    each writes its own before it looks at the other's, so that a call cancelled while it waits is
    answered by one of them.
    """

    __slots__ = (
        "answered",
        "cancelled",
        "deadline",
        "handler",
        "headers",
        "id",
        "payload",
        "started",
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
