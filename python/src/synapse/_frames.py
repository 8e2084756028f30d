"""Frames of the protocol: their kinds, how one is written and how a stream of bytes becomes
frames.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Protocol, TypeAlias

REQUEST: Final = 1
SUCCESS: Final = 2
FAIL: Final = 3
DIE: Final = 4
INTERRUPTED: Final = 5
CHUNK: Final = 6
CREDIT: Final = 7
CANCEL: Final = 8
HELLO: Final = 9
WELCOME: Final = 10
LOG: Final = 11
PING: Final = 12
PONG: Final = 13
GO_AWAY: Final = 14
SHUTDOWN: Final = 15
PROGRESS: Final = 16
RELEASE: Final = 17
RECALL: Final = 18
SETUP: Final = 19
FREE: Final = 20

PROTOCOL_VERSION: Final = 1
HEADER: Final = Struct("<IBBHI")
HEADER_SIZE: Final = HEADER.size
pack_header: Final = HEADER.pack
# The length field counts what follows it.
LENGTH_SIZE: Final = 4
FIXED_SIZE: Final = HEADER_SIZE - LENGTH_SIZE
#: In the flags: the frame ends with references to shared memory.
REFERS: Final = 1
#: Serial, region, where it begins in its file, where the value does, and the length of the value.
REFERENCE: Final = Struct("<IIQQQ")
COUNT: Final = Struct("<H")

DEFAULT_MAX_FRAME_SIZE: Final = 16 * 1024 * 1024
# A frame that does not fit gets memory of its own, which the values decoded from it may keep.
_BUFFER_SIZE: Final = 256 * 1024

Buffer: TypeAlias = "bytes | bytearray | memoryview"
#: What one write may consist of: a whole frame, or its pieces.
Outgoing: TypeAlias = "bytes | tuple[Buffer, ...]"


class ProtocolBroken(Exception):
    """The peer sent something after which the stream cannot be trusted."""


#: Kind, id, meta and payload. A plain tuple, since one is made for every call.
Frame: TypeAlias = "tuple[int, int, bytes, bytearray | memoryview]"


class Shipment(Protocol):
    """What one message refers to in shared memory, from its making until it leaves."""

    @property
    def table(self) -> bytes:
        """The references, as a frame ends with them."""
        ...

    @property
    def size(self) -> int:
        """How many bytes the references stand for."""
        ...

    def leave(self) -> None:
        """The frame is about to be written: from now on the other side has the memory."""
        ...


class Shipped(bytes):
    """An encoded value that refers to shared memory. What it does not get to send is given back."""

    shipment: Shipment


class Referring(tuple[bytes, ...]):
    """A frame that refers to shared memory."""

    shipment: Shipment


class Payload(bytearray):
    """A payload of which some values lie in shared memory. It holds the claims on them, by
    serial.
    """

    __slots__ = ("claims",)

    claims: dict[int, Any]


def make_frame(kind: int, id: int, payload: bytes = b"", meta: bytes = b"") -> bytes:
    length = FIXED_SIZE + len(meta) + len(payload)
    return HEADER.pack(length, kind, 0, len(meta), id) + meta + payload


def make_referring(
    kind: int, id: int, payload: Shipped, meta: bytes = b"", head: bytes = b""
) -> Referring:
    """A frame of a value that refers to shared memory, with `head` before the value."""
    table = payload.shipment.table
    length = FIXED_SIZE + len(meta) + len(head) + len(payload) + len(table)
    header = HEADER.pack(length, kind, REFERS, len(meta), id)
    frame = Referring((b"".join((header, meta, head, payload, table)),))
    frame.shipment = payload.shipment
    return frame


class FrameReader:
    """Turns what arrives into frames; every payload it hands out is memory that nobody else writes
    to.
    """

    __slots__ = (
        "_buffer",
        "_filled",
        "_large",
        "_large_filled",
        "_meta",
        "_view",
        "claim",
        "max_frame_size",
    )

    def __init__(self, max_frame_size: int = DEFAULT_MAX_FRAME_SIZE) -> None:
        self.max_frame_size = max_frame_size
        self._buffer = bytearray(_BUFFER_SIZE)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._large: bytearray | None = None
        self._large_filled = 0
        # That of the frame before.
        self._meta = b""
        # Makes a claim of each reference, in the order in which they arrive.
        self.claim: Callable[..., Any] = lambda *_: None

    def read(self, receive: Callable[[memoryview], int]) -> list[Frame] | None:
        """Read once and return the frames that are complete, or `None` at the end of the stream.

        Raises:
            ProtocolBroken: What arrived is not a sequence of frames within the limits.
        """
        if self._large is not None:
            return self._read_large(self._large, receive)
        received = receive(self._view[self._filled :])
        if received == 0:
            return None
        end = self._filled + received
        buffer, view, unpack = self._buffer, self._view, HEADER.unpack_from
        max_frame_size, meta = self.max_frame_size, self._meta
        frames: list[Frame] = []
        start, last_start = 0, end - HEADER_SIZE
        while start <= last_start:
            length, kind, flags, meta_size, id = unpack(buffer, start)
            after = start + length + LENGTH_SIZE
            meta_start = start + HEADER_SIZE
            payload_start = meta_start + meta_size
            if payload_start > after or length > max_frame_size:
                self._check(length, meta_size)
            if after > end:
                break
            # Mostly the same as before, and then no bytes are made of it.
            if len(meta) != meta_size or not buffer.startswith(meta, meta_start):
                meta = bytes(view[meta_start:payload_start])
            if flags and flags & REFERS:
                frames.append((kind, id, meta, self._claimed(view[payload_start:after])))
            else:
                frames.append((kind, id, meta, buffer[payload_start:after]))
            start = after
        self._meta = meta
        rest = end - start
        if not rest:
            self._filled = 0
            return frames
        if rest >= LENGTH_SIZE:
            length = int.from_bytes(view[start : start + LENGTH_SIZE], "little")
            self._check(length, 0)
            if length + LENGTH_SIZE > _BUFFER_SIZE:
                self._large = bytearray(length + LENGTH_SIZE)
                self._large[:rest] = view[start:end]
                self._large_filled = rest
                rest = 0
        if rest and start:
            buffer[:rest] = buffer[start:end]
        self._filled = rest
        return frames

    def _read_large(
        self, large: bytearray, receive: Callable[[memoryview], int]
    ) -> list[Frame] | None:
        view = memoryview(large)
        received = receive(view[self._large_filled :])
        if received == 0:
            return None
        self._large_filled += received
        if self._large_filled < len(large):
            return []
        self._large = None
        length, kind, flags, meta_size, id = HEADER.unpack_from(large, 0)
        self._check(length, meta_size)
        payload_start = HEADER_SIZE + meta_size
        meta, payload = bytes(view[HEADER_SIZE:payload_start]), view[payload_start:]
        return [(kind, id, meta, self._claimed(payload) if flags & REFERS else payload)]

    def _claimed(self, data: memoryview) -> Payload:
        """The payload without the references behind it, each of which is a claim from now on."""
        end = len(data) - COUNT.size
        count = COUNT.unpack_from(data, end)[0] if end >= 0 else 0
        start = end - count * REFERENCE.size
        if start < 0:
            raise ProtocolBroken("a frame that has no room for its references")
        payload = Payload(data[:start])
        references = REFERENCE.iter_unpack(data[start:end])
        payload.claims = {serial: self.claim(*rest) for serial, *rest in references}
        return payload

    def _check(self, length: int, meta_size: int) -> None:
        if length < FIXED_SIZE:
            raise ProtocolBroken(f"a frame length of {length} is below {FIXED_SIZE}")
        if length > self.max_frame_size:
            raise ProtocolBroken(f"a frame length of {length} is above {self.max_frame_size}")
        if FIXED_SIZE + meta_size > length:
            raise ProtocolBroken(f"a meta length of {meta_size} is beyond its frame")
