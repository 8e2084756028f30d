"""Handlers that misbehave, each in its own way."""

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import synapse


@synapse.handler
def echo(payload):
    return payload


@synapse.handler
async def echo_async(payload):
    return payload


@synapse.handler
def pid() -> int:
    return os.getpid()


@synapse.handler
def stats():
    return synapse.stats()


def announce(path: str) -> None:
    """Tell the test, in a file, that something has begun."""
    Path(path + ".tmp").write_text(str(os.getpid()))
    os.rename(path + ".tmp", path)


# Death


def _bus_error() -> None:
    import mmap
    import tempfile

    with tempfile.TemporaryFile() as file:
        file.truncate(4096)
        memory = mmap.mmap(file.fileno(), 4096)
        file.truncate(0)
        memory[0]


def _overflow_the_stack() -> None:
    sys.setrecursionlimit(10**7)
    nested: list = []
    for _ in range(10**6):
        nested = [nested]
    repr(nested)


def _segfault_in_a_thread() -> None:
    thread = threading.Thread(target=ctypes.string_at, args=(0,))
    thread.start()
    thread.join()


def _leave_a_child_and_die() -> None:
    if os.fork() == 0:
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


def _print_with_c_and_die() -> None:
    libc = ctypes.CDLL(None)
    libc.printf(b"from printf\n")
    print("from print")
    os.kill(os.getpid(), signal.SIGKILL)


WAYS_TO_DIE = {
    "segfault": lambda: ctypes.string_at(0),
    "segfault-in-thread": _segfault_in_a_thread,
    "abort": os.abort,
    "bus": _bus_error,
    "fpe": lambda: signal.raise_signal(signal.SIGFPE),
    "fatal-error": lambda: ctypes.pythonapi.Py_FatalError(b"the end of the world"),
    "stack": _overflow_the_stack,
    "exit-3": lambda: os._exit(3),
    "exit-0": lambda: os._exit(0),
    "close-channel": lambda: os.close(3),
    "leave-child": _leave_a_child_and_die,
    "printf": _print_with_c_and_die,
    "stop": lambda: signal.raise_signal(signal.SIGSTOP),
    "print-on-channel": lambda: os.write(3, b"Hello from a debugging session\n" * 4),
}


@synapse.handler
def die(how: str):
    WAYS_TO_DIE[how]()
    time.sleep(600)


@synapse.handler
async def die_async(seconds: float = 0.0):
    await asyncio.sleep(seconds)
    os._exit(9)


@synapse.handler
def leave(how: str):
    if how == "sys.exit":
        sys.exit(5)
    raise KeyboardInterrupt


@synapse.handler
def with_child(own_session: bool) -> int:
    """Start a process that outlives the handler."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return subprocess.Popen(command, start_new_session=own_session).pid


@synapse.handler
def jam(path: str):
    """Run C code that holds the GIL for ever."""
    import collections
    import itertools

    announce(path)
    collections.deque(itertools.repeat(None, 10**15), maxlen=0)


# Stop


@synapse.handler
def stubborn(path: str):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    announce(path)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass


@synapse.handler
def stuck_at_the_end(how: str):
    """Make an ordinary exit of Python take for ever."""
    if how == "thread":
        threading.Thread(target=time.sleep, args=(600,)).start()
    if how == "atexit":
        import atexit

        atexit.register(time.sleep, 600)
    if how == "multiprocessing":
        import multiprocessing

        multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,)).start()


@synapse.handler
async def wait_async(path: str = ""):
    if path:
        announce(path)
    await asyncio.sleep(600)


@synapse.handler
async def sleep_async(seconds: float):
    await asyncio.sleep(seconds)
    return "slept"


@synapse.handler
def sleep(seconds: float = 600, path: str = ""):
    if path:
        announce(path)
    time.sleep(seconds)
    return "slept"


# Calls

entered: list[str] = []


@synapse.handler
def seen() -> list[str]:
    return entered


@synapse.handler
def add(a: int, b: int) -> int:
    entered.append("add")
    return a + b


class EvilStr(Exception):
    def __str__(self) -> str:
        raise SystemExit("gotcha")

    __repr__ = __str__


class EvilArgs(Exception):
    @property
    def args(self):
        raise KeyboardInterrupt


class NotText(Exception):
    def __str__(self) -> str:
        return 5


class NoModule(Exception):
    __module__ = None


def _raise(error: BaseException):
    raise error


def _chain(length: int) -> BaseException:
    error: BaseException = ValueError(0)
    for number in range(1, length):
        after = ValueError(number)
        after.__cause__ = error
        error = after
    return error


def _cycle() -> BaseException:
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    return a


def _recurse():
    return _recurse()


def _with_notes() -> BaseException:
    error = ValueError("with notes")
    error.__notes__ = ["first", object(), EvilStr()]
    return error


def _caused():
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("outer") from error


def _grouped() -> BaseException:
    if sys.version_info < (3, 11):
        return ValueError("no groups yet")
    group: Exception = ValueError(0)
    for _ in range(500):
        group = ExceptionGroup("deep", [group, ValueError(1)])
    return group


NASTY = [
    lambda: _raise(EvilStr(1)),
    lambda: _raise(EvilArgs("x")),
    lambda: _raise(NotText()),
    lambda: _raise(NoModule("m")),
    lambda: _raise(_cycle()),
    lambda: _raise(_chain(3000)),
    lambda: _raise(_with_notes()),
    lambda: _raise(_grouped()),
    lambda: _raise(ValueError("x" * 5_000_000)),
    lambda: _raise(ValueError("\ud800 alone")),
    lambda: _raise(ValueError(1 << 100_000)),
    lambda: _raise(ValueError(b"\xff", object(), {1: {2}})),
    lambda: _raise(KeyboardInterrupt()),
    lambda: _raise(GeneratorExit()),
    lambda: sys.exit(3),
    lambda: next(iter([])),
    lambda: open("/nowhere/at/all"),
    lambda: compile("a b", "f.py", "exec"),
    _recurse,
    _caused,
]


@synapse.handler
def nasty(which: int):
    NASTY[which]()


@synapse.handler
def how_many_nasty() -> int:
    return len(NASTY)


def _very_nested():
    value: list = []
    for _ in range(100_000):
        value = [value]
    return value


UNFIT = {
    "object": lambda: {"items": [1, object()]},
    "huge": lambda: [2**70],
    "surrogate": lambda: "\ud800",
    "nested": _very_nested,
    "large": lambda: "x" * (17 * 2**20),
    "proto": lambda: {"__proto__": {"polluted": True}, "constructor": {"prototype": {"polluted": True}}},
    "text": lambda: "not a number",
}


@synapse.handler
def give(what: str):
    return UNFIT[what]()


@synapse.handler(cancel="interrupt")
def compute_for_ever(path: str):
    announce(path)
    while True:
        sum(range(1000))


@synapse.handler(cancel="replace")
def blocked_for_ever(path: str):
    announce(path)
    time.sleep(600)


@synapse.handler
def count_then_die(path: str, until: int):
    """Leave a line per run, and die in all runs before the last."""
    with open(path, "a") as file:
        file.write("ran\n")
    runs = len(Path(path).read_text().splitlines())
    if runs < until:
        os._exit(9)
    return runs


# Host functions


@synapse.handler
async def ask(method: str, payload: object = None):
    try:
        return {"value": await synapse.host.call(method, payload)}
    except synapse.HostCallFailed as error:
        return {"reason": error.reason}


@synapse.handler
def ask_sync(method: str, payload: object = None):
    return synapse.host.call_sync(method, payload)


# Streams


@synapse.handler
def count(to: int, size: int = 0) -> Iterator[object]:
    try:
        for n in range(to):
            yield b"x" * size if size else n
    finally:
        entered.append("count closed")


@synapse.handler
async def count_async(to: int) -> AsyncIterator[int]:
    for n in range(to):
        yield n


@synapse.handler
def breaks(after: int, how: str) -> Iterator[int]:
    yield from range(after)
    if how == "raise":
        raise LookupError("no more")
    # What was yielded may still be on its way through the thread that writes.
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


@synapse.handler
def resident() -> int:
    """Return the worker's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@synapse.handler
def caught(numbers: Iterator[int]):
    read = []
    try:
        for n in numbers:
            read.append(n)
    except synapse.HostError as error:
        return {"read": read, "error": error.error}
    return {"read": read}


@synapse.handler
def total(numbers: Iterator[int]) -> int:
    return sum(numbers)


# Output


@synapse.handler
def flood(mebibytes: int, how: str):
    piece = b"x" * 65536
    for _ in range(mebibytes * 16):
        if how == "raw":
            os.write(1, piece)
        else:
            sys.stdout.write(piece.decode())
    return "flooded"


@synapse.handler
def log_much(records: int):
    for n in range(records):
        logging.getLogger("flood").warning("record %d", n)
    return "logged"


class Recursive(logging.Handler):
    """A handler that logs what it is given."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("again").warning("again: %s", record.getMessage()[:100])


@synapse.handler
def log_in_a_loop():
    handler = Recursive()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        logging.getLogger("first").warning("first")
    except RecursionError:
        return "recursion"
    finally:
        root.removeHandler(handler)
    return "logged"


# Resources


@synapse.handler
def allocate(mebibytes: int) -> int:
    return len(bytearray(mebibytes * 2**20))


@synapse.handler
def hoard(mebibytes: int):
    """Take memory, touch it and keep it."""
    hoarded = []
    for _ in range(mebibytes):
        hoarded.append(bytearray(os.urandom(1024)) * 1024)
    time.sleep(600)
    return len(hoarded)


@synapse.handler
def limit(name: str, soft: int):
    import resource

    number = getattr(resource, f"RLIMIT_{name}")
    before = resource.getrlimit(number)
    resource.setrlimit(number, (soft, before[1]))
    return before[0]


@synapse.handler
def burn():
    while True:
        pass


@synapse.handler
def open_files(how_many: int) -> int:
    files = []
    try:
        for _ in range(how_many):
            files.append(open("/dev/null"))
        return len(files)
    finally:
        for file in files:
            file.close()


@synapse.handler
def environment() -> dict[str, str]:
    return dict(os.environ)


@synapse.handler
def origin_of(module: str) -> str:
    import importlib

    return str(importlib.import_module(module).__file__)
