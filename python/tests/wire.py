"""The protocol as its page says it, written apart from the runtime: what the tests speak with."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import struct
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

REQUEST, SUCCESS, FAIL, DIE, INTERRUPTED = 1, 2, 3, 4, 5
CHUNK, CREDIT, CANCEL, HELLO, WELCOME = 6, 7, 8, 9, 10
LOG, PING, PONG, GO_AWAY, SHUTDOWN = 11, 12, 13, 14, 15
PROGRESS, RELEASE, RECALL, SETUP, FREE = 16, 17, 18, 19, 20

MAIN = Path(__file__).resolve().parents[1] / "src" / "synapse" / "__main__.py"
ENDS = (SUCCESS, FAIL, DIE, INTERRUPTED)
# Only reached when a promise is broken: no test waits for it.
PATIENCE = 30

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


class _Frame(NamedTuple):
    kind: int
    id: int
    meta: Any
    payload: Any


class Got(_Frame):
    """A frame, which is equal to the tuple of what every frame has."""

    references: tuple[Reference, ...] = ()


class Reference(NamedTuple):
    """Where a value lies in shared memory."""

    serial: int
    region: int
    start: int
    offset: int
    length: int

    @property
    def file(self) -> int:
        return self.region >> 30


def table(references: Iterable[Reference]) -> bytes:
    packed = [struct.pack("<IIQQQ", *each) for each in references]
    return b"".join(packed) + struct.pack("<H", len(packed))


def frame(
    kind: int,
    id: int = 0,
    payload: bytes = b"",
    meta: bytes = b"",
    references: Iterable[Reference] | None = None,
) -> bytes:
    flags = 0
    if references is not None:
        flags, payload = 1, payload + table(references)
    header = struct.pack("<IBBHI", 8 + len(meta) + len(payload), kind, flags, len(meta), id)
    return header + meta + payload


def array_head(element: int, *shape: int) -> bytes:
    return bytes((element, len(shape))) + b"".join(struct.pack("<I", each) for each in shape)


class Files:
    """The files of shared memory, and the host's regions in those that are its own."""

    UNIT = 65_536

    def __init__(self, count: int) -> None:
        directory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        open_file = functools.partial(tempfile.TemporaryFile, dir=directory, buffering=0)
        self.files = [open_file() for _ in range(count)]
        self._serials = itertools.count(1000)
        self._regions = [0] * count

    def fileno(self, file: int) -> int:
        return self.files[file].fileno()

    def size(self, file: int) -> int:
        return os.fstat(self.fileno(file)).st_size

    def put(self, data: bytes, file: int = 0, skip: int = 0) -> Reference:
        """Write into a region of its own, `skip` bytes after its start."""
        number, start = self._regions[file], self.size(file)
        self._regions[file] += 1
        os.ftruncate(self.fileno(file), start + -(-(skip + len(data)) // self.UNIT) * self.UNIT)
        os.pwrite(self.fileno(file), data, start + skip)
        return Reference(next(self._serials), file << 30 | number, start, start + skip, len(data))

    def write(self, reference: Reference, data: bytes, at: int = 0) -> None:
        assert os.pwrite(self.fileno(reference.file), data, reference.offset + at) == len(data)

    def read(self, reference: Reference) -> bytes:
        data = os.pread(self.fileno(reference.file), reference.length, reference.offset)
        assert len(data) == reference.length
        return data

    def close(self) -> None:
        for file in self.files:
            file.close()


def shared(reference: Reference, head: bytes = b"") -> msgspec.msgpack.Ext:
    """What stands for a value in shared memory."""
    return msgspec.msgpack.Ext(3, struct.pack("<I", reference.serial) + head)


class Worker:
    """A worker process and the host's end of its channel."""

    def __init__(
        self,
        directory: Path,
        entrypoint: str = "main",
        *,
        lifeline: bool = False,
        crashes: bool = False,
        launcher: list[str] | None = None,
        env: dict[str, str] | None = None,
        files: Files | None = None,
        protocol: str | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        fds = {3: theirs.fileno()}
        self.lifeline: int | None = None
        self.crashes: int | None = None
        opened = [theirs.detach()]
        fds[3] = opened[0]
        if lifeline:
            end, self.lifeline = os.pipe()
            opened.append(end)
            fds[4] = end
        if crashes:
            self.crashes, end = os.pipe()
            opened.append(end)
            fds[5] = end

        self.files = files
        if files is not None:
            env = {"SYNAPSE_MEMORY": str(len(files.files)), **(env or {})}
            for index in range(len(files.files)):
                fds[6 + index] = files.fileno(index)

        def arrange() -> None:
            high = {number: os.dup(fd) for number, fd in fds.items()}
            spare = {number: os.dup2(fd, 100 + number) for number, fd in high.items()}
            for number, fd in spare.items():
                os.dup2(fd, number, inheritable=True)
            # close_fds has no effect on what is kept below.
            for fd in (*high.values(), *spare.values()):
                if fd not in fds:
                    os.close(fd)

        command = [sys.executable, "-I", "-X", "utf8", "-u", "-X", "faulthandler"]
        self.process = subprocess.Popen(
            [
                *command,
                *(launcher or [str(MAIN)]),
                entrypoint,
                *(() if protocol is None else ("--protocol", protocol)),
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            pass_fds=tuple(fds),
            preexec_fn=arrange,
            start_new_session=True,
        )
        for fd in opened:
            os.close(fd)
        self.socket = ours
        self.socket.settimeout(PATIENCE)
        self.logs: list[dict[str, Any]] = []
        self.frees: list[int] = []
        self.hello: dict[str, Any] = {}
        self._id = 0
        self._calls: set[int] = set()
        self._asked: set[int] = set()

    # Frames

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self.socket.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def receive_any(self) -> Got:
        length, kind, flags, meta_size, id = struct.unpack("<IBBHI", self._exactly(12))
        rest = self._exactly(length - 8)
        meta, payload = rest[:meta_size], rest[meta_size:]
        if kind in ENDS:
            self._calls.discard(id)
        elif kind == REQUEST:
            self._asked.add(id)
        references: list[Reference] = []
        if flags & 1:
            (count,) = struct.unpack("<H", payload[-2:])
            start = len(payload) - 2 - 32 * count
            packed = struct.iter_unpack("<IIQQQ", payload[start:-2])
            references = [Reference(*each) for each in packed]
            payload = payload[:start]
        got = Got(
            kind,
            id,
            decode(meta) if meta else None,
            decode(payload) if payload else None,
        )
        got.references = tuple(references)
        return got

    def receive(self) -> Got:
        """The next frame that is neither a log nor a `Free`, which are kept."""
        while True:
            got = self.receive_any()
            if got.kind == LOG:
                self.logs.append(got.payload)
            elif got.kind == FREE:
                self.frees.append(got.id)
            else:
                return got

    def next_log(self) -> dict[str, Any]:
        got = self.receive_any()
        assert got.kind == LOG, got
        return got.payload

    # The connection

    def set_up(self, **setup: Any) -> None:
        """Send what a worker waits for that was started with `SYNAPSE_SETUP=1`."""
        self.send(frame(SETUP, 0, encode(setup)))

    def welcome(self, **settings: Any) -> dict[str, Any]:
        """Take the `Hello` and answer it."""
        hello = self.receive()
        assert hello.kind == HELLO
        self.hello = hello.payload
        self.send_welcome(**settings)
        return hello.payload

    def send_welcome(self, **settings: Any) -> None:
        values = {"protocol": 1, "maxFrameSize": 1 << 24, "concurrency": 1, "maxOpenCalls": 1024}
        self.send(frame(WELCOME, 0, encode({**values, **settings})))

    def request(
        self,
        method: str,
        value: Any = None,
        id: int | None = None,
        references: Iterable[Reference] | None = None,
        **meta: Any,
    ) -> int:
        if id is None:
            self._id = id = self._id + 1
        self._calls.add(id)
        data = encode({"method": method, **meta})
        self.send(frame(REQUEST, id, encode(value), data, references))
        return id

    def call(self, method: str, value: Any = None, **meta: Any) -> Got:
        id = self.request(method, value, **meta)
        got = self.receive()
        assert got.kind in ENDS and got.id == id, got
        return got

    def value(self, method: str, value: Any = None, **meta: Any) -> Any:
        got = self.call(method, value, **meta)
        assert got.kind == SUCCESS, got
        return got.payload

    def cancel(self, id: int) -> None:
        self.send(frame(CANCEL, id))

    def credit(self, id: int, items: int) -> None:
        self.send(frame(CREDIT, id, encode(items)))

    def stream(self, method: str, value: Any = None, granted: int = 64, **meta: Any) -> int:
        return self.request(method, value, stream=granted, **meta)

    def items(self, id: int, *, credit: bool = True) -> tuple[list[Any], Got]:
        """All items of a stream, and its end; credited as they come."""
        items: list[Any] = []
        while (got := self.receive()).kind == CHUNK:
            assert got.id == id and got.payload, got
            items += got.payload
            if credit:
                self.credit(id, len(got.payload))
        assert got.kind in ENDS and got.id == id, got
        return items, got

    def take(self, id: int, count: int) -> list[Any]:
        """So many items of a stream, which must come in chunks that end there."""
        items: list[Any] = []
        while len(items) < count:
            got = self.receive()
            assert (got.kind, got.id) == (CHUNK, id), got
            items += got.payload
        assert len(items) == count
        return items

    # Shared memory

    def free(self, reference: Reference) -> None:
        """Say that a reference of the worker's is needed no more."""
        self.send(frame(FREE, reference.region))

    def freed(self) -> int:
        """A region that the worker has said it needs no more, or says next."""
        while not self.frees:
            got = self.receive_any()
            assert got.kind in (FREE, LOG), got
            if got.kind == FREE:
                return got.id
        return self.frees.pop(0)

    def quiet(self) -> None:
        """The worker has said nothing more of memory."""
        self.ping()
        assert not self.frees

    # What the worker asks

    def asked(self, method: str | None = None) -> Got:
        """The next request of the worker."""
        got = self.receive()
        assert got.kind == REQUEST, got
        assert method is None or got.meta.get("method") == method, got
        return got

    def answer(
        self,
        id: int,
        value: Any = None,
        kind: int = SUCCESS,
        items: Iterable[Any] = (),
        **meta: Any,
    ) -> None:
        """Answer what was asked; with the last items of a stream in the same write, so that the
        worker, which has seen its end, credits none of them.
        """
        self._asked.discard(id)
        last = list(items)
        chunk = frame(CHUNK, id, encode(last)) if last else b""
        self.send(chunk + frame(kind, id, encode(value), encode(meta) if meta else b""))

    def chunk(self, id: int, *items: Any) -> None:
        self.send(frame(CHUNK, id, encode(items)))

    def ping(self, id: int = 77) -> None:
        self.send(frame(PING, id))
        got = self.receive()
        assert (got.kind, got.id) == (PONG, id), got

    def is_at_rest(self) -> bool:
        """Whether it is there, nothing is open on either side, and nothing more comes from it."""
        if self._calls or self._asked or self.process.poll() is not None:
            return False
        self.logs.clear()
        try:
            self.send(frame(PING, 78))
            got = self.receive_any()
        except OSError:
            return False
        return (got.kind, got.id) == (PONG, 78)

    def shut_down(self, grace_millis: int = 1000) -> int:
        self.send(frame(SHUTDOWN, 0, encode(grace_millis)))
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def output(self) -> tuple[str, str]:
        """What went to descriptors 1 and 2, after the end."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return out.decode(), err.decode()

    def close(self) -> None:
        self.socket.close()
        for fd in (self.lifeline, self.crashes):
            if fd is not None:
                os.close(fd)
        self.lifeline = self.crashes = None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


def write(directory: Path, source: str, name: str = "main.py") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source))
    return path
