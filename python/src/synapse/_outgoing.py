"""The items of a stream on their way to the host, no more of them than it has asked for."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from synapse._frames import CHUNK, FIXED_SIZE, HEADER, Outgoing, Shipped, make_referring

if TYPE_CHECKING:
    import asyncio

    from synapse._calls import Call

#: The bytes of items that may be under way, unless it is one item alone.
STREAM_BYTES: Final = 1024 * 1024
# Items that are ready together leave together, up to this many bytes.
_CHUNK_BYTES: Final = 64 * 1024
_MAX_ARRAY_HEAD: Final = 5


class OutStream:
    """The stream that answers a call.

    One thread at a time makes items and puts them, while there is room; the one that reads adds
    the host's credit. Without room the maker parks: whoever makes room then sees to it that it
    goes on.
    """

    __slots__ = (
        "_bytes",
        "_chunk",
        "_chunk_limit",
        "_chunk_size",
        "_granted",
        "_held",
        "_id",
        "_lock",
        "_parked",
        "_post",
        "_sizes",
        "context",
        "count",
        "is_closing",
        "max_item",
        "on_loop",
        "source",
        "wake",
    )

    def __init__(
        self, id: int, granted: int, max_frame_size: int, post: Callable[[Outgoing], None]
    ) -> None:
        self._id = id
        self._granted = granted
        self._post = post
        self._lock = threading.Lock()
        # The sizes of items that the host has not credited, oldest first, and their sum.
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._chunk: list[bytes] = []
        self._chunk_size = 0
        self._chunk_limit = min(_CHUNK_BYTES, max_frame_size - FIXED_SIZE - _MAX_ARRAY_HEAD)
        # An item that is made, and for whose bytes there is no room.
        self._held: bytes | None = None
        self._parked = False
        self.max_item = max_frame_size - FIXED_SIZE - 1
        self.count = 0
        # Of whoever makes the items.
        self.source: Any = None
        self.on_loop = False
        self.is_closing = False
        self.context: contextvars.Context | None = None
        self.wake: asyncio.Future[None] | None = None

    @property
    def has_room(self) -> bool:
        return self._granted > 0 and self._held is None

    def put(self, item: bytes) -> None:
        """Send an item with the next `flush`, or as soon as its bytes fit. Only where there is
        room.
        """
        with self._lock:
            self._granted -= 1
            self.count += 1
            if self._fits(len(item) if type(item) is bytes else _size(item)):
                self._add(item)
            else:
                self._held = item

    def _fits(self, size: int) -> bool:
        return not self._sizes or self._bytes + size <= STREAM_BYTES

    def _add(self, item: bytes) -> None:
        if isinstance(item, Shipped):
            self._post_alone(item)
            return
        size = len(item)
        self._sizes.append(size)
        self._bytes += size
        if self._chunk and self._chunk_size + size > self._chunk_limit:
            self._post_chunk()
        self._chunk.append(item)
        self._chunk_size += size
        if self._chunk_size >= self._chunk_limit:
            self._post_chunk()

    def _post_alone(self, item: Shipped) -> None:
        """Queue an item that refers to shared memory, whose bytes count as well."""
        size = _size(item)
        self._sizes.append(size)
        self._bytes += size
        if self._chunk:
            self._post_chunk()
        self._post(make_referring(CHUNK, self._id, item, head=_array_head(1)))

    def _post_chunk(self) -> None:
        items, size = self._chunk, self._chunk_size
        head = _array_head(len(items))
        header = HEADER.pack(FIXED_SIZE + len(head) + size, CHUNK, 0, 0, self._id)
        if size >= _CHUNK_BYTES:
            self._post((header + head, *items))
        else:
            self._post(b"".join((header, head, *items)))
        # Posted first: whoever finds nothing to flush may post the end of the stream.
        self._chunk, self._chunk_size = [], 0

    def flush(self) -> None:
        """Queue the items that have been put as one frame."""
        if self._chunk:
            with self._lock:
                if self._chunk:
                    self._post_chunk()

    def credit(self, items: int) -> bool:
        """Take what the host grants; whether the one who makes items was parked and goes on."""
        with self._lock:
            self._granted += items
            for _ in range(min(items, len(self._sizes))):
                self._bytes -= self._sizes.popleft()
            if self._held is not None and self._fits(_size(self._held)):
                self._add(self._held)
                self._held = None
                if self._chunk:
                    self._post_chunk()
            return self.has_room and self._take_parked()

    def park(self, call: Call) -> bool:
        """Stop making items until there is room; `False` where there is by now, or the call has
        been cancelled.
        """
        with self._lock:
            self._parked = not self.has_room and not call.cancelled
            return self._parked

    def unpark(self) -> bool:
        """Whether the one who makes items was parked and goes on, because the call is cancelled."""
        with self._lock:
            return self._take_parked()

    def _take_parked(self) -> bool:
        parked, self._parked = self._parked, False
        return parked


def _size(item: bytes) -> int:
    return len(item) + (item.shipment.size if isinstance(item, Shipped) else 0)


def _array_head(length: int) -> bytes:
    if length < 16:
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")
