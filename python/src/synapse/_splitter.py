"""Frames out of the pieces in which a network delivers them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from synapse._frames import (
    FIXED_SIZE,
    HEADER,
    HEADER_SIZE,
    LENGTH_SIZE,
    REFERS,
    Frame,
    ProtocolBroken,
)


class Splitter:
    """Cuts a stream of bytes into frames.

    A frame above the limit is skipped: `on_large` is told its kind, its id and its length, in the
    place of the frame.
    """

    __slots__ = ("_data", "_limit", "_on_large", "_skip")

    def __init__(self, limit: int, on_large: Callable[[int, int, int], None]) -> None:
        self._limit = limit
        self._on_large = on_large
        self._data = bytearray()
        self._skip = 0

    def feed(self, piece: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that are complete now, which are all to be taken.

        Raises:
            ProtocolBroken: These are no frames, or frames of peers that share memory.
        """
        if self._skip:
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            piece = memoryview(piece)[skipped:]
        data = self._data
        data += piece
        start = 0
        while len(data) - start >= HEADER_SIZE:
            length, kind, flags, meta_size, id = HEADER.unpack_from(data, start)
            if length < FIXED_SIZE + meta_size:
                raise ProtocolBroken(f"a frame length of {length} with {meta_size} bytes of meta")
            if flags & REFERS:
                raise ProtocolBroken("a frame that refers to shared memory, and none is shared")
            after = start + LENGTH_SIZE + length
            if length > self._limit:
                self._on_large(kind, id, length)
                self._skip = max(0, after - len(data))
                start = min(after, len(data))
                continue
            if after > len(data):
                break
            payload_start = start + HEADER_SIZE + meta_size
            meta = bytes(data[start + HEADER_SIZE : payload_start])
            start = after
            yield kind, id, meta, data[payload_start:after]
        if start:
            del data[:start]
