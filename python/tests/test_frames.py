from __future__ import annotations

import random
from typing import Any

import pytest
import wire
from hypothesis import given
from hypothesis import strategies as st

from synapse import _frames
from synapse._frames import FrameReader, ProtocolBroken, make_frame

FRAMES = st.lists(
    st.tuples(
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=40),
        st.binary(max_size=300) | st.integers(0, 600_000).map(bytes),
    ),
    max_size=6,
)


def read_all(reader: FrameReader, data: bytes, sizes: Any) -> list[Any]:
    """Feed a reader in pieces and return what it makes of them."""
    got: list[Any] = []
    position = 0

    def receive(into: memoryview) -> int:
        nonlocal position
        piece = data[position : position + min(len(into), next(sizes))]
        into[: len(piece)] = piece
        position += len(piece)
        return len(piece)

    while (frames := reader.read(receive)) is not None:
        got += [(kind, id, meta, bytes(payload)) for kind, id, meta, payload in frames]
    return got


@given(FRAMES, st.integers())
def test_frames_come_out_however_they_were_cut(frames: list[Any], seed: int) -> None:
    data = b"".join(make_frame(kind, id, payload, meta) for kind, id, meta, payload in frames)
    pieces = random.Random(seed)
    sizes = iter(lambda: pieces.choice((1, 3, 11, 12, 100, 5000, 10**6)), 0)
    assert read_all(FrameReader(), data, sizes) == frames


def test_a_frame_is_written_as_the_protocol_says() -> None:
    assert make_frame(1, 7, b"pay", b"meta") == wire.frame(1, 7, b"pay", b"meta")


def test_payloads_are_memory_of_their_own() -> None:
    reader = FrameReader()
    data = iter([make_frame(1, 1, b"first"), make_frame(1, 2, b"other")])

    def receive(into: memoryview) -> int:
        piece = next(data)
        into[: len(piece)] = piece
        return len(piece)

    (first,) = reader.read(receive) or []
    reader.read(receive)
    assert first[3] == b"first"


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"\x07\0\0\0", "below 8"),
        (b"\xe9\x03\0\0", "above 1000"),
        (b"\x08\0\0\0\x01\0\x01\0\0\0\0\0", "beyond its frame"),
    ],
)
def test_a_header_beyond_the_limits_breaks_the_stream_at_once(header: bytes, why: str) -> None:
    def receive(into: memoryview) -> int:
        into[: len(header)] = header
        return len(header)

    with pytest.raises(ProtocolBroken, match=why):
        FrameReader(max_frame_size=1000).read(receive)


def test_the_numbers_of_the_kinds_are_those_of_the_protocol() -> None:
    for name in ("REQUEST", "SUCCESS", "FAIL", "DIE", "INTERRUPTED", "CHUNK", "CREDIT", "CANCEL"):
        assert getattr(_frames, name) == getattr(wire, name)
    for name in ("HELLO", "WELCOME", "LOG", "PING", "PONG", "GO_AWAY", "SHUTDOWN", "SETUP"):
        assert getattr(_frames, name) == getattr(wire, name)
