"""What the worker asks of its host: requests from their way out to their one end."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from synapse._calls import Call
from synapse._codec import Codec, DecodeIssue, Encode
from synapse._failures import DeadlinePassed, HostCallFailed, to_host_error
from synapse._frames import (
    CANCEL,
    CHUNK,
    CREDIT,
    DIE,
    FAIL,
    FIXED_SIZE,
    INTERRUPTED,
    REQUEST,
    SUCCESS,
    Buffer,
    Payload,
    Shipped,
    make_frame,
    make_referring,
)

if TYPE_CHECKING:
    import asyncio

    from synapse._worker import Worker

#: Items that a stream from the host may send before any is taken.
WINDOW = 64
_MAX_ID = 0xFFFFFFFF
_MAX_META = 0xFFFF
_MAX_SHOWN = 200
# The clock of the host is another one.
_EARLY_SECONDS = 0.02


class Ask:
    """A request to the host.

    Whoever reads writes `answer` and `chunks` and calls the `waiters` then; whoever waits is one of
    them before it looks.
    """

    __slots__ = (
        "abandoned",
        "answer",
        "call",
        "chunks",
        "deadline",
        "id",
        "meta",
        "payload",
        "waiters",
        "what",
    )

    def __init__(self, what: str, meta: dict[str, Any], payload: bytes, call: Call | None) -> None:
        # For messages.
        self.what = what
        self.meta = meta
        self.payload = payload
        self.call = call
        self.deadline: float | None = None
        # 0 until it is sent.
        self.id = 0
        self.abandoned = False
        self.answer: tuple[int, bytes, Buffer] | None = None
        self.chunks: deque[Buffer] = deque()
        self.waiters: set[Callable[[], None]] = set()

    @property
    def ready(self) -> bool:
        return self.answer is not None or self.abandoned or bool(self.chunks)

    @property
    def is_stream(self) -> bool:
        return "stream" in self.meta

    def notify(self) -> None:
        for waiter in tuple(self.waiters):
            waiter()


class Link:
    """The requests that are open, and those that wait until fewer are."""

    def __init__(self, worker: Worker, codec: Codec) -> None:
        self.worker = worker
        self.codec = codec
        # What is asked with: where memory is shared, large values lie there.
        self.encode: Encode = codec.encode
        self.pid = os.getpid()
        self._asks: dict[int, Ask] = {}
        self._waiting: deque[Ask] = deque()
        # A stream that nobody holds any more is given up wherever the collector finds it.
        self._lock = threading.RLock()
        self._ids = itertools.count(1)
        self._max_open = 0
        self._is_closed = False

    def open(self, max_open: int) -> None:
        """Let requests be made, so many at once."""
        self._max_open = max_open

    @property
    def is_open(self) -> bool:
        return self._max_open > 0

    @property
    def is_of_parent(self) -> bool:
        """Whether this is a forked process, which has no host."""
        return self.pid != os.getpid()

    @property
    def open_requests(self) -> int:
        return len(self._asks) + len(self._waiting)

    def start(self, ask: Ask) -> None:
        """Send a request, or queue it; raises `TimeoutError` where its time is over."""
        call = ask.call
        if call is not None:
            ask.deadline = call.deadline
            if ask.deadline is not None and time.monotonic() >= ask.deadline:
                raise _timed_out(ask)
            if call.extras is not None and call.extras.trace is not None:
                ask.meta["trace"] = call.extras.trace
        # As it is sent there is less time left, which takes no more bytes.
        meta = len(self._meta(ask))
        if meta > _MAX_META:
            raise HostCallFailed("FrameTooLarge", f"{ask.what[:_MAX_SHOWN]}...: too long a name")
        size = FIXED_SIZE + meta + len(ask.payload)
        if isinstance(ask.payload, Shipped):
            size += len(ask.payload.shipment.table)
        limit = self.worker.answers.max_frame_size
        if size > limit:
            raise HostCallFailed("FrameTooLarge", f"{ask.what}: {size} bytes, above {limit}")
        with self._lock:
            if self._is_closed:
                ask.answer = self._closed()
            elif len(self._asks) < self._max_open or self._waits_in_vain(ask):
                # In the second case it is the host that says that there are too many.
                self._send(ask)
            else:
                self._waiting.append(ask)

    def _waits_in_vain(self, ask: Ask) -> bool:
        """Whether what is open may wait for this one: all of it is streams that are read and
        requests inside which calls run, and such a call or reader makes this one.
        """
        asks = list(self._asks.values())
        outer = {call.parent for call in list(self.worker.calls.values())} - {None}
        if any(each.abandoned or not (each.is_stream or each.call in outer) for each in asks):
            return False
        if ask.call is not None and ask.call.parent is not None:
            return True
        return any(each.is_stream and each.call is ask.call for each in asks)

    def _send(self, ask: Ask) -> None:
        id = next(self._ids)
        while id > _MAX_ID or id in self._asks:
            self._ids = itertools.count(1) if id > _MAX_ID else self._ids
            id = next(self._ids)
        ask.id = id
        self._asks[id] = ask
        payload, ask.payload = ask.payload, b""
        self.worker.channel.post(
            make_referring(REQUEST, id, payload, self._meta(ask))
            if isinstance(payload, Shipped)
            else make_frame(REQUEST, id, payload, self._meta(ask))
        )

    def _meta(self, ask: Ask) -> bytes:
        meta = ask.meta
        if ask.deadline is not None:
            left = (ask.deadline - time.monotonic()) * 1000
            meta["deadline"] = max(1, math.ceil(left))
        if ask.call is not None and not ask.call.answered:
            meta["call"] = ask.call.id
        else:
            meta.pop("call", None)
        return self.codec.encode(meta)

    def abandon(self, ask: Ask) -> None:
        """Tell the host that nobody waits any more; what it still answers is ignored."""
        if self.is_of_parent:
            return
        with self._lock:
            if ask.abandoned or ask.answer is not None:
                return
            ask.abandoned = True
            ask.chunks.clear()
            if ask.id:
                self.worker.channel.post(make_frame(CANCEL, ask.id))
            else:
                self._waiting.remove(ask)
        # It may be another one that waits.
        ask.notify()

    def credit(self, ask: Ask, items: int) -> None:
        """Let the host send more items."""
        if ask.answer is None and not ask.abandoned:
            frame = make_frame(CREDIT, ask.id, self.codec.encode(items))
            self.worker.channel.post(frame)

    def flush(self) -> None:
        """Let what was posted leave."""
        if not self.is_of_parent:
            self.worker.flush_soon()

    def wait(self, ask: Ask) -> None:
        """Wait for an answer or items, in a thread without an event loop."""
        call = ask.call
        self.worker.waits.wait(ask, None if call is None or call.answered else call)

    def answered(self, kind: int, id: int, meta: bytes, payload: Buffer) -> None:
        """Take what the host answers; for whoever reads."""
        ask = self._asks.get(id)
        if ask is None:
            self.worker.ignored += 1
            return
        if kind == CHUNK:
            if not ask.abandoned:
                ask.chunks.append(payload)
                ask.notify()
            return
        with self._lock:
            ask.answer = (kind, meta, payload)
            del self._asks[id]
            if self._waiting and len(self._asks) < self._max_open:
                self._send(self._waiting.popleft())
        ask.notify()

    def close(self) -> None:
        """End every request: the host answers no more."""
        with self._lock:
            self._is_closed = True
            asks = [*self._asks.values(), *self._waiting]
            self._asks.clear()
            self._waiting.clear()
            for ask in asks:
                ask.answer = self._closed()
        for ask in asks:
            ask.notify()

    def _closed(self) -> tuple[int, bytes, Buffer]:
        return DIE, self.codec.encode({"reason": "Closed"}), b""

    def result(self, ask: Ask, decode: Callable[[Any], Any]) -> Any:
        """The value that the host answered.

        Raises:
            HostError: A failure that the function declares.
            HostCallFailed: Anything else.
            TimeoutError: The deadline has passed.
        """
        assert ask.answer is not None
        kind, meta, payload = ask.answer
        try:
            if kind == SUCCESS:
                return decode(payload or b"\xc0")
            value = self.codec.decode(payload) if payload else None
            details = self.codec.decode(meta) if meta else {}
        except DecodeIssue as issue:
            why = f"{ask.what}: what it answered does not fit: {issue}"
            raise HostCallFailed("DecodeFailed", why) from None
        if kind == FAIL:
            # What it refers to is not for another message to refer to.
            forwarded = self.codec.encode(value) if type(payload) is Payload else bytes(payload)
            raise to_host_error(forwarded, value)
        if kind != INTERRUPTED:
            raise _failed(ask.what, details.get("reason"), value)
        if ask.deadline is not None and time.monotonic() >= ask.deadline - _EARLY_SECONDS:
            raise _timed_out(ask)
        raise HostCallFailed("Interrupted", f"{ask.what} was interrupted")


async def wait_async(ask: Ask) -> None:
    """Wait for an answer or items, in a task of any event loop."""
    import asyncio

    loop = asyncio.get_running_loop()
    thread = threading.get_ident()
    while not ask.ready:
        future = loop.create_future()
        waiter = functools.partial(_wake, loop, thread, future)
        ask.waiters.add(waiter)
        try:
            if not ask.ready:
                await future
        finally:
            ask.waiters.discard(waiter)


def _wake(loop: asyncio.AbstractEventLoop, thread: int, future: asyncio.Future[None]) -> None:
    if threading.get_ident() == thread:
        _set(future)
    else:
        # The loop may have ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_set, future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _timed_out(ask: Ask) -> TimeoutError:
    return DeadlinePassed(f"{ask.what}: the deadline of the call has passed")


def _failed(what: str, reason: Any, value: Any) -> HostCallFailed:
    details = value if isinstance(value, dict) else {}
    if not isinstance(reason, str):
        raised = f"{details.get('type', 'an exception')}: {details.get('message', '')}"
        return HostCallFailed("Exception", f"{what} raised {raised}")
    if reason == "MethodNotFound":
        near = ", ".join(f"`{name}`" for name in details.get("nearest") or ())
        hint = f"the host has no such function, it has {near}"
        return HostCallFailed(
            reason, f"{what}: {hint if near else 'the layer has no host functions: give it `host`'}"
        )
    if reason in _SAID and "issue" in details:
        issue, path = details["issue"], details.get("path", "$")
        return HostCallFailed(reason, f"{what}: {_SAID[reason]}: {issue} (at {path})")
    if reason == "Unsupported" and "detail" in details:
        return HostCallFailed(reason, f"{what}: {details['detail']}")
    said = ", ".join(f"{key} {item}" for key, item in details.items())
    return HostCallFailed(reason, f"{what}: {reason}{f' ({said})' if said else ''}")


_SAID: Final = {
    "DecodeFailed": "what it is given does not fit",
    "EncodeFailed": "what it gives cannot be carried",
}
