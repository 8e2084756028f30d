"""A worker that speaks the protocol by itself, so that it can break it.

It stands in the place of the runtime from the moment the module is imported. The calls `echo`, `pid` and `stats` it answers as they
should be; a call of `fault` breaks the protocol in the way that the variable `FAULT` names.
"""

import os
import socket
import struct
import sys
import time

from synapse import _codec
from synapse._frames import (
    CANCEL, CHUNK, CREDIT, DIE, HELLO, INTERRUPTED, LOG, PING, PONG, REQUEST, SHUTDOWN, SUCCESS, FrameReader, make_frame,
)  # fmt: skip

FAULT = os.environ.get("FAULT", "")
NOTHING = {"calls": 1, "streams": 0, "host_calls": 0, "handles": 0, "tasks": 0}

codec = _codec.choose(broken=[])
host = socket.socket(fileno=os.dup(3))
host.setblocking(True)
reader = FrameReader()


def frame(kind: int, id: int, value=..., meta=None) -> bytes:
    payload = b"" if value is ... else codec.encode(value)
    return make_frame(kind, id, payload, b"" if meta is None else codec.encode(meta))


def send(kind: int, id: int, value=..., meta=None) -> None:
    host.sendall(frame(kind, id, value, meta))


def header(length: int, kind: int, id: int, meta: int = 0) -> bytes:
    return struct.pack("<IBBHI", length, kind, 0, meta, id)


def hello(**changes) -> None:
    names = ("echo", "pid", "stats", "fault")
    methods = [{"name": name, "stream": False, "async": True} for name in names]
    methods.append({"name": "items", "stream": True, "async": True})
    send(
        HELLO,
        0,
        {
            "protocol": 1,
            "runtime": "0.1.0",
            "python": "3.12.0",
            "implementation": "raw",
            "pid": os.getpid(),
            "codec": "raw",
            "methods": methods,
            "contract": None,
            **changes,
        },
    )


def wait_for_the_end() -> None:
    while True:
        time.sleep(600)


def incoming():
    while True:
        frames = reader.read(host.recv_into)
        if frames is None:
            os._exit(75)
        yield from frames


inbox = incoming()


def serve() -> None:
    for kind, id, meta, payload in inbox:
        if kind == REQUEST:
            answer(id, codec.decode(meta), bytes(payload))
        elif kind == PING:
            send(PONG, id)
        elif kind == SHUTDOWN:
            os._exit(0)


def answer(id: int, meta, payload: bytes) -> None:
    method = meta["method"]
    if method == "echo":
        host.sendall(make_frame(SUCCESS, id, payload))
    elif method == "pid":
        send(SUCCESS, id, os.getpid())
    elif method == "stats":
        send(SUCCESS, id, NOTHING)
    else:
        FAULTS[FAULT](id)


# What comes after each of these is not read.
def garbage_frame(id: int) -> None:
    # Of the right length, with a meta that is none.
    host.sendall(header(8 + 4, DIE, id, 4) + b"\xc1\xc1\xc1\xc1")
    wait_for_the_end()


def http(id: int) -> None:
    host.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    wait_for_the_end()


def huge_length(id: int) -> None:
    host.sendall(header(0xFFFFFFFF, SUCCESS, id))
    wait_for_the_end()


def zero_length(id: int) -> None:
    host.sendall(header(0, SUCCESS, id))
    wait_for_the_end()


def trailing_control(id: int) -> None:
    record = {"level": 30, "logger": "a", "message": "b", "time": 0.0, "id": None, "file": None, "line": None}
    host.sendall(make_frame(LOG, 0, codec.encode({**record, "exception": None}) + b"\xc0"))
    wait_for_the_end()


def over_credit(id: int) -> None:
    piece = b"".join(make_frame(CHUNK, id, codec.encode(["x" * 100])) for _ in range(1000))
    try:
        for _ in range(200):
            host.sendall(piece)
    except OSError:
        pass
    wait_for_the_end()


# After these, it goes on as it should.
def trailing(id: int) -> None:
    host.sendall(make_frame(SUCCESS, id, codec.encode(1) + b"\xc0"))


def nesting(id: int) -> None:
    host.sendall(make_frame(SUCCESS, id, b"\x91" * 1_000_000 + b"\xc0"))


def array32(id: int) -> None:
    host.sendall(make_frame(SUCCESS, id, b"\xdd\xff\xff\xff\xff" + b"\xc0" * 10))


def empty_maps(id: int) -> None:
    count = 15 * 2**20
    host.sendall(make_frame(SUCCESS, id, b"\xdd" + struct.pack(">I", count) + b"\x80" * count))


def proto_key(id: int) -> None:
    polluting = {"polluted": True}
    send(SUCCESS, id, {"__proto__": polluting, "constructor": {"prototype": polluting}, "list": [{"__proto__": polluting}]})


def memory_lies(id: int) -> None:
    """Answer with what lies in shared memory where there is nothing, of more bytes than there are."""
    # The head of an array of 2**60 bytes, and where it is said to be.
    payload = b"\xc7\x0e\x03" + struct.pack("<IBB2I", 1, 3, 2, 1 << 30, 1 << 30)
    table = struct.pack("<IIQQQ", 1, 1 << 30, 0, 0, 1 << 60) + struct.pack("<H", 1)
    length = 8 + len(payload) + len(table)
    host.sendall(struct.pack("<IBBHI", length, SUCCESS, 1, 0, id) + payload + table)


def memory_shrinks(id: int) -> None:
    """Give the file of the worker a size of gigabytes, refer to all of it, and take it away."""
    os.ftruncate(7, 1 << 31)
    table = struct.pack("<IIQQQ", 1, 1 << 30, 0, 0, 1 << 29) + struct.pack("<H", 1)
    payload = b"\xd6\x03" + struct.pack("<I", 1)
    os.ftruncate(7, 1 << 20)
    length = 8 + len(payload) + len(table)
    host.sendall(struct.pack("<IBBHI", length, SUCCESS, 1, 0, id) + payload + table)


def memory_cut(id: int) -> None:
    """Say that there are more references than the frame has."""
    payload = b"\xd6\x03" + struct.pack("<I", 1)
    host.sendall(struct.pack("<IBBHI", 8 + len(payload) + 2, SUCCESS, 1, 0, id) + payload + struct.pack("<H", 9))
    wait_for_the_end()


def slow_drip(id: int) -> None:
    for byte in frame(SUCCESS, id, "x" * 20):
        host.sendall(bytes([byte]))
        time.sleep(0.05)


def duplicate_reply(id: int) -> None:
    for _ in range(3):
        send(SUCCESS, id, "first")
        send(SUCCESS, id, "second")
        send(DIE, id, {"type": "A", "module": "", "message": "", "frames": []})


def late_reply(id: int) -> None:
    """Answer long after the caller was told that its time is over."""
    for kind, other, _, _ in inbox:
        if kind == CANCEL and other == id:
            send(SUCCESS, id, "too late")
            send(INTERRUPTED, id)
            return


def never_reads(id: int) -> None:
    wait_for_the_end()


def pong_flood(id: int) -> None:
    host.sendall(frame(PONG, 7) * 300_000)
    send(SUCCESS, id, "done")


def unknown_flood(id: int) -> None:
    host.sendall((frame(200, 7, "what") + frame(SUCCESS, 4_000_000, "who") + frame(CREDIT, 5, 1) + frame(CANCEL, 6)) * 50_000)
    send(SUCCESS, id, "done")


def log_flood(id: int) -> None:
    record = {"level": 30, "logger": "flood", "message": "x" * 100, "time": 0.0, "id": id, "file": None, "line": None}
    one = frame(LOG, 0, {**record, "exception": None})
    for _ in range(200):
        host.sendall(one * 1000)
    send(SUCCESS, id, "done")


def callback_flood(id: int) -> None:
    """Ask for more than anybody may, and do not read the answers."""
    try:
        for number in range(1, 10_000_000):
            send(REQUEST, number, {}, {"method": "slow", "call": id})
    except OSError:
        pass
    wait_for_the_end()


FAULTS = {
    name.replace("_", "-"): function
    for name, function in list(globals().items())
    if callable(function) and getattr(function, "__module__", None) == __name__
}

if FAULT == "wrong-version":
    hello(protocol=99)
    wait_for_the_end()
sys.setswitchinterval(0.005)
hello()
serve()
