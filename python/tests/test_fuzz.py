"""Hosts that nobody should trust: whatever they send, a worker answers good calls or leaves with a
code that says why. And bytes that nobody meant: each codec of the runtime makes the same of them.

Stored cases come first, then the same seeds on every run, then new ones. With
`SYNAPSE_FUZZ_SECONDS`, as `npm run fuzz` sets it, it goes on for so long.
"""

from __future__ import annotations

import os
import random
import resource
import select
import struct
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import wire
from wire import Worker, encode, frame

from synapse import _codec
from synapse._codec import DecodeIssue

CASES = Path(__file__).resolve().parents[2] / "test" / "fuzz" / "cases"
SECONDS = float(os.environ.get("SYNAPSE_FUZZ_SECONDS", "0"))
FRESH = int(os.environ.get("SYNAPSE_FUZZ_SEED", str(time.time_ns() // 1000 % 2**31)))
LIMIT = int(os.environ.get("SYNAPSE_FUZZ_CASES", "0"))


def stored(prefix: str) -> Iterator[tuple[str, list[bytes]]]:
    """The cases whose files begin so: a name, and the bytes of each line."""
    for path in sorted(CASES.glob(f"{prefix}-*.hex")):
        lines = (line.partition("#")[0] for line in path.read_text().splitlines())
        yield path.name, [bytes.fromhex(line) for line in lines if line.strip()]


def seeds(count: int, share: float) -> Iterator[int]:
    """The seeds of a run: some that are always the same and as many new ones, or as many as fit."""
    if SECONDS:
        end, seed = time.monotonic() + SECONDS * share, FRESH
        while time.monotonic() < end and (not LIMIT or seed < FRESH + LIMIT):
            yield seed
            seed += 1
        print(f"{seed - FRESH} cases from the seed {FRESH} on")
    else:
        yield from range(1, 1 + count)
        yield from range(FRESH, FRESH + count)


# Bytes

_TOKENS = """
c0 c2 c3 00 01 7f e0 ff c1 a0 c400 90 80
cc80 cdffff ceffffffff cfffffffffffffffff d080 d18000 d280000000 d38000000000000000
cf0020000000000000 d3ffe0000000000000 ca3fc00000 ca7fc00001 cb7ff8000000000000
a161 a130 a2c3a9 a1ff a3eda080 d90161 da000161 db0000000161 a95f5f70726f746f5f5f
c40101 c5000101 c60000000101 91 92 93 9f dc0001 dd00000002 81 82 83 8f de0001 df00000002
d6ff00000001 d7ff0000000000000001 c70cff000000010000000000000001 d4ff00 d40501 d502ffff c70005
c70cff000000000000003afff44180 c70cff00000000ffffffff00000000 d7ff0000000700000001
c7070103010100000005 c70e010602010000000200000001 c706010101000000 c7030102007f
ddffffffff dfffffffff dbffffffff c6ffffffff c9ffffffff01
"""
TOKENS = [bytes.fromhex(token) for token in _TOKENS.split()]
EDGES = bytes.fromhex("00017f808f909fa0bfc1c7d4dddfe0ff")


def soup(rng: random.Random, most: int = 14) -> bytes:
    """Whole tokens of MessagePack in an order that nobody meant."""
    return b"".join(rng.choice(TOKENS) for _ in range(rng.randint(1, most)))


def mutated(rng: random.Random, data: bytes) -> bytes:
    """The same bytes with a few faults."""
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data)) if data else 0
        to = min(len(data), at + rng.randint(1, 8))
        data = rng.choice(
            (
                data[:at] + bytes((rng.choice(EDGES),)) + data[at + 1 :],
                data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :],
                data[:at] + data[to:],
                data[:to] + data[at:],
                data[:at] + soup(rng, 3) + data[at:],
                data[:at],
            )
        )
    return data


def value(rng: random.Random, depth: int = 4) -> Any:
    kind = rng.randrange(7 if depth == 0 else 10)
    if kind < 2:
        return rng.choice(
            (0, 1, -1, 127, 128, -33, 2**31, 2**32, 2**53, 2**63, 2**64 - 1, -(2**63))
        )
    if kind == 2:
        return rng.choice((None, True, False, 0.5, -0.0, float("inf"), 1e300))
    if kind == 3:
        return rng.choice(("", "a", "é", "漢字", "x" * 32, "y" * 300, "__proto__"))
    if kind == 4:
        return rng.randbytes(rng.choice((0, 1, 255, 256)))
    if kind == 5:
        return rng.random() * 10 ** rng.randrange(20)
    if kind == 6:
        return datetime.fromtimestamp(rng.randrange(2**34), timezone.utc)
    if kind == 7:
        return [value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 3, 17)))]
    keys = ("a", "b", "é", 1, -5, 2.5, True, b"x", "k" * 40)
    return {rng.choice(keys): value(rng, depth - 1) for _ in range(rng.randrange(5))}


# Codecs

CODECS = [_codec.choose(name) for name in ("python", "msgspec", "msgpack")]
REFUSED = object()


def read(codec: Any, data: bytes) -> Any:
    try:
        return codec.decode(bytearray(data))
    except DecodeIssue as issue:
        assert issue.issue
        return REFUSED


def same(one: Any, other: Any) -> bool:
    """Whether two decoded values are the same, arrays and what is not a number included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(key, its) and same(each, another)
            for (key, each), (its, another) in zip(one.items(), other.items(), strict=True)
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, datetime):
        # Of nanoseconds, msgspec rounds what the others cut.
        return abs(one - other) <= timedelta(microseconds=1)
    return repr(one) == repr(other)


def any_bytes(rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(60))
    data = soup(rng) if kind < 3 else CODECS[0].encode(value(rng))
    return data if kind % 2 else mutated(rng, data)


def agree(data: bytes) -> None:
    """What the strictest codec takes the others take for the same; they refuse in one way only."""
    strict, *others = (read(codec, data) for codec in CODECS)
    for codec, other in zip(CODECS[1:], others, strict=True):
        if strict is not REFUSED:
            assert other is not REFUSED, f"{codec.name} refuses {data.hex()}"
            assert same(other, strict), f"{codec.name} differs on {data.hex()}"
        elif codec.name == "msgpack":
            assert other is REFUSED, f"{codec.name} takes {data.hex()} for {other!r}"


def test_the_codecs_agree_on_stored_cases() -> None:
    for _, lines in stored("codec"):
        for data in lines:
            agree(data)


def test_the_codecs_agree_on_any_bytes(cases: Callable[[int], int]) -> None:
    for seed in seeds(cases(5_000), 0.1):
        rng = random.Random(seed)
        data = any_bytes(rng)
        try:
            agree(data)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data.hex()}") from error
    # Nothing was allocated for what was only announced.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_000_000


# Sessions

MODULE = """
    import asyncio
    import synapse

    class Thing:
        def method(self, n=1):
            return n
        def items(self):
            yield from range(100)
        attribute = 7

    @synapse.handler
    def echo(payload):
        return payload

    @synapse.handler
    def add(a: int, b: int = 2) -> int:
        return a + b

    @synapse.handler
    def tokens(n: int = 300):
        for i in range(min(n, 1000)):
            yield i

    @synapse.handler
    async def ticks():
        for i in range(300):
            await asyncio.sleep(0)
            yield i

    @synapse.handler
    async def later(payload):
        await asyncio.sleep(0.001)
        return payload

    @synapse.handler
    def asks(n: int = 1):
        return synapse.host.call_sync("nameOf", id=n)

    @synapse.handler
    async def listens():
        async with synapse.host.stream("ids") as ids:
            return [each async for each in ids]

    @synapse.handler
    def reads(rows: synapse.Stream[int]):
        return sum(rows)

    @synapse.handler
    def reports(n: int = 3):
        for i in range(min(n, 50)):
            synapse.context().progress(i)

    @synapse.handler
    def hold():
        return synapse.Handle(Thing())

    @synapse.handler
    def fails():
        raise ValueError("no")
"""
METHODS = ("echo", "add", "tokens", "ticks", "later", "asks", "listens", "reads", "reports")
METHODS += ("hold", "fails", "nope", "$evaluate")
KINDS = range(1, 20)
IDS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 2**32 - 1)
STREAM = bytes.fromhex("d60201000000")
PATIENCE = 20
# Far beyond what any session sends, and far below what its lengths announce.
MEMORY = 300_000_000


def request(id: int, method: str, payload: bytes = b"\x80", **meta: Any) -> bytes:
    return frame(wire.REQUEST, id, payload, encode({"method": method, **meta}))


def raw(kind: int, id: int, body: bytes, meta_size: int) -> bytes:
    return struct.pack("<IBBHI", 8 + len(body), kind, 0, min(meta_size, 0xFFFF), id) + body


def good() -> list[bytes]:
    """The frames of a session in which all is as it should be."""
    return [
        request(1, "echo", encode({"a": [1, 2.5, None]})),
        request(2, "tokens", stream=16, trace="00-" + "1" * 32 + "-" + "2" * 16 + "-01"),
        request(3, "ticks", stream=64),
        request(4, "asks", encode({"n": 3}), deadline=5000),
        request(5, "hold", hold=True),
        frame(wire.CREDIT, 2, encode(20)),
        request(6, "method", encode([4]), target=1),
        request(7, "reads", b"\x81\xa4rows" + STREAM),
        frame(wire.PING, 3),
        request(8, "reports", progress=True, deadline=1000, ceiling=9000, headers={"a": "b"}),
        frame(wire.CREDIT, 3, encode(64)),
        frame(wire.CANCEL, 3),
        frame(18, 2),
        request(
            9, "$evaluate", encode({"source": "a", "file": None, "line": 1, "bindings": {"a": 1}})
        ),
        request(10, "later", encode("x")),
        request(11, "listens"),
        request(12, "attribute", b"\xc0", target=1, get=True),
        request(13, "items", b"\x80", target=1, stream=4),
        frame(wire.CANCEL, 13),
        frame(wire.RELEASE, 1),
        request(14, "fails", parent=1),
        request(15, "add", encode({"a": "text"})),
        frame(wire.CANCEL, 2),
    ]


def generated(rng: random.Random) -> bytes:
    """A frame that is well-formed as a frame, and whose contents may be anything."""
    id = rng.choice(IDS)
    kind = rng.randrange(6)
    if kind == 0:
        return frame(rng.choice(KINDS), id)
    if kind == 1:
        keys = ("deadline", "ceiling", "trace", "headers", "stream", "progress", "parent")
        chosen = rng.sample((*keys, "hold", "target", "get", "other"), rng.randrange(4))
        numbers = (0, 1, 64, -1, 2**31, 2**63, 1e300, float("nan"), float("inf"))
        meta = {key: rng.choice((*numbers, True, None, "x", {}, {"a": 1})) for key in chosen}
        payload = CODECS[0].encode(value(rng, 2)) if rng.random() < 0.5 else soup(rng)
        return request(id, rng.choice(METHODS), payload, **meta)
    if kind == 2:
        credit = rng.choice((1, 64, 2**31, 2**64 - 1, 0, -1, 1.5, None, "x"))
        return frame(wire.CREDIT, id, encode(credit))
    if kind == 3:
        answer = rng.choice((wire.SUCCESS, wire.FAIL, wire.DIE, wire.INTERRUPTED, wire.CHUNK))
        return frame(answer, id, CODECS[0].encode(value(rng, 2)))
    if kind == 4:
        grace = rng.choice((0, 1, -1, 2**63, 1e300, float("nan"), None, "x"))
        return (
            frame(wire.SHUTDOWN, 0, encode(grace)) if rng.random() < 0.2 else frame(wire.PING, id)
        )
    body = soup(rng, 6)
    meta_size = len(body)
    return raw(rng.randrange(256), id, body + soup(rng), meta_size)


def mutate(rng: random.Random, frames: list[bytes]) -> None:
    at = rng.randrange(len(frames))
    chosen = frames[at]
    kind = rng.randrange(10)
    if kind == 0:
        frames.insert(rng.randrange(len(frames)), chosen)
    elif kind == 1 and len(frames) > 1:
        del frames[at]
    elif kind == 2:
        frames.insert(rng.randrange(len(frames)), frames.pop(at))
    elif kind == 3 and len(chosen) >= 12:
        frames[at] = chosen[:8] + struct.pack("<I", rng.choice(IDS)) + chosen[12:]
    elif kind == 4 and len(chosen) >= 12:
        frames[at] = chosen[:4] + bytes((rng.choice(KINDS),)) + chosen[5:]
    elif kind == 5 and len(chosen) >= 12:
        (length,) = struct.unpack_from("<I", chosen)
        lengths = (length + 1, max(0, length - 1), 0, 7, 8, 2**24, 2**24 + 1, 2**32 - 1)
        frames[at] = struct.pack("<I", rng.choice(lengths)) + chosen[4:]
    elif kind == 6 and len(chosen) >= 12:
        size = rng.choice((0, 1, min(len(chosen), 0xFFFF), 0xFFFF))
        frames[at] = chosen[:6] + struct.pack("<H", size) + chosen[8:]
    elif kind == 7 and len(chosen) >= 12:
        _, kind_, _, meta_size, id = struct.unpack_from("<IBBHI", chosen)
        body = mutated(rng, chosen[12:])
        frames[at] = raw(kind_, id, body, min(meta_size, len(body)))
    else:
        frames.insert(at, generated(rng))


def session(rng: random.Random) -> list[bytes]:
    """What a host writes after its `Welcome`: a good session with faults, or frames made up."""
    frames = good() if rng.random() < 0.6 else [generated(rng) for _ in range(rng.randint(1, 20))]
    for _ in range(rng.randrange(5)):
        mutate(rng, frames)
    if rng.random() < 0.02:
        frames.append(mutated(rng, frames[-1]))
    if rng.random() < 0.6:
        return frames
    data, writes = b"".join(frames), []
    while data:
        size = rng.choice((1, 3, 11, 12, 13, 100, 10_000))
        writes.append(data[:size])
        data = data[size:]
    return writes


def is_whole(data: bytes) -> bool:
    """Whether these bytes are frames to the end, or break the protocol before it."""
    while data:
        if len(data) < 4:
            return False
        (length,) = struct.unpack_from("<I", data)
        if length < 8 or length > 1 << 24:
            return True
        if len(data) < 12:
            return False
        if struct.unpack_from("<H", data, 6)[0] + 8 > length:
            return True
        if len(data) < 4 + length:
            return False
        data = data[4 + length :]
    return True


class Gone(Exception):
    """The worker closed its channel."""


class Host:
    """The host's end of one worker, which answers whatever it is asked."""

    def __init__(self, launch: Callable[..., Worker], **settings: Any) -> None:
        self.worker = launch()
        self.received = b""
        self.ends: dict[int, wire.Got] = {}
        self._owed = b""
        self._last = 0x7000_0000
        if settings:
            self.worker.welcome(evaluate=True, **settings)

    def write(self, data: bytes) -> None:
        """Write all of it, and read meanwhile: a worker may wait for that."""
        socket = self.worker.socket
        end = time.monotonic() + PATIENCE
        while data:
            assert time.monotonic() < end, "the worker does not read"
            readable, writable, _ = select.select([socket], [socket], [], 1)
            if readable:
                self.read()
            if writable:
                try:
                    data = data[socket.send(data[:65536]) :]
                except OSError as error:
                    raise Gone from error

    def read(self) -> None:
        """Take what has arrived; requests of the worker are to be answered with nothing."""
        try:
            data = self.worker.socket.recv(1 << 20)
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self.received += data
        got: list[wire.Got] = []
        while len(self.received) >= 12:
            length, kind, _, meta_size, id = struct.unpack_from("<IBBHI", self.received)
            assert 8 + meta_size <= length <= 1 << 24, "the worker writes no frames"
            if len(self.received) < 4 + length:
                break
            meta = self.received[12 : 12 + meta_size]
            payload = self.received[12 + meta_size : 4 + length]
            self.received = self.received[4 + length :]
            got.append(
                wire.Got(
                    kind, id, wire.decode(meta) if meta else None, payload and wire.decode(payload)
                )
            )
        # For later: what is being written may end within a frame.
        asked = (each.id for each in got if each.kind == wire.REQUEST)
        self._owed += b"".join(frame(wire.SUCCESS, id, b"\xc0") for id in asked)
        self.ends.update((each.id, each) for each in got if each.kind in wire.ENDS)

    def answers_a_good_call(self) -> bool:
        """It does, or says that it is leaving."""
        self._last += 1
        id = self._last
        self.ends.clear()
        self.write(request(id, "echo", encode({"still": id})))
        end = time.monotonic() + PATIENCE
        while id not in self.ends:
            assert time.monotonic() < end, "the worker does not answer any more"
            owed, self._owed = self._owed, b""
            self.write(owed)
            if select.select([self.worker.socket], [], [], 1)[0]:
                self.read()
        got = self.ends[id]
        if got.kind == wire.DIE and got.meta.get("reason") == "Closed":
            return False
        assert (got.kind, got.payload) == (wire.SUCCESS, {"still": id}), got
        return True

    def memory(self) -> int:
        """Bytes that the worker has taken at most."""
        status = Path(f"/proc/{self.worker.process.pid}/status")
        if not status.exists():
            return 0
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields.get("VmHWM", "0 kB").split()[0]) * 1024

    def leaves(self, codes: tuple[int, ...]) -> None:
        """It ends, by itself and with one of these codes."""
        end = time.monotonic() + PATIENCE
        process = self.worker.process
        while process.poll() is None:
            assert time.monotonic() < end, "the worker neither serves nor leaves"
            try:
                while select.select([self.worker.socket], [], [], 0.01)[0]:
                    self.read()
            except (Gone, OSError, ValueError):
                time.sleep(0.01)
        if process.returncode not in codes:
            raise AssertionError(
                f"the worker left with {process.returncode}: {self.worker.output()[1]}"
            )

    def takes(self, writes: list[bytes]) -> bool:
        """Send a session, and tell whether the worker goes on."""
        try:
            for data in writes:
                self.write(data)
            if not is_whole(b"".join(writes)) or not self.answers_a_good_call():
                self.worker.socket.close()
                self.leaves((0, 75, 76))
                return False
        except Gone:
            self.leaves((0, 75, 76))
            return False
        assert self.memory() < MEMORY, f"{self.memory()} bytes"
        return True


@pytest.fixture
def module(tmp_path: Path, launch: Callable[..., Worker]) -> Callable[..., Worker]:
    wire.write(tmp_path, MODULE)
    return launch


def test_a_worker_takes_stored_sessions(module: Callable[..., Worker]) -> None:
    for name, writes in stored("host"):
        host = Host(module)
        assert host.worker.receive().kind == wire.HELLO
        try:
            host.takes(writes)
        except AssertionError as error:
            raise AssertionError(name) from error
        host.worker.close()


def test_a_worker_takes_any_session(
    module: Callable[..., Worker], cases: Callable[[int], int]
) -> None:
    host: Host | None = None
    history: list[int] = []
    for seed in seeds(cases(12), 0.9):
        if host is None:
            # Handlers on the main thread, or in a pool of four.
            host, history = Host(module, concurrency=4 if seed % 3 == 0 else 1), []
        history.append(seed)
        try:
            goes_on = host.takes(session(random.Random(seed)))
        except Exception as error:
            raise AssertionError(f"seed {seed}, after {history[:-1]} on the same worker") from error
        if not goes_on:
            host.worker.close()
            host = None
