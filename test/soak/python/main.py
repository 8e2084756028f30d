"""Handlers of the soak: each says in the ledger's file that it ran, before it answers."""

import asyncio
import contextlib
import ctypes
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn

import synapse

LEDGER = os.open(os.environ["SYNAPSE_SOAK_LEDGER"], os.O_WRONLY | os.O_APPEND)
# Process ids come again.
WORKER = uuid.uuid4().hex

# How many handlers have begun and not ended, whatever ended them.
running = 0
_counting = threading.Lock()


def ran(token: int) -> None:
    """Say that a call ran: one write, so that lines of several workers do not mix."""
    os.write(LEDGER, b"%d\n" % token)


def doomed(kind: str) -> None:
    """Say what this worker is about to end of."""
    os.write(LEDGER, b"! %d %d %s\n" % (os.getpid(), time.time() * 1000, kind.encode()))


@contextlib.contextmanager
def counted(token: int) -> Iterator[None]:
    global running
    ran(token)
    with _counting:
        running += 1
    try:
        yield
    finally:
        with _counting:
            running -= 1


surveys = 0


@synapse.handler
async def survey(seconds: float):
    """Tell what is open in this worker; several at once reach all workers."""
    global surveys
    surveys += 1
    try:
        await asyncio.sleep(seconds)
        stats = synapse.stats()
        stats["calls"] -= surveys
        # All of them have looked before the first one ends.
        await asyncio.sleep(seconds)
        return {"pid": os.getpid(), "running": running, **stats}
    finally:
        surveys -= 1


@synapse.handler
async def stacks() -> str:
    """Tell what every thread and every task is doing."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [f"worker {os.getpid()}, running {running}, {synapse.stats()}"]
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident)}\n{''.join(traceback.format_stack(frame))}")
    parts.extend(repr(task) for task in asyncio.all_tasks())
    return "\n".join(parts)


# One value


@synapse.handler
def echo(token: int, value: object, seconds: float = 0.0, text: str = ""):
    with counted(token):
        if seconds:
            time.sleep(seconds)
        if text:
            print(text)
        return [token, value]


@synapse.handler
async def echo_async(token: int, value: object, seconds: float = 0.0, text: str = ""):
    with counted(token):
        if seconds:
            await asyncio.sleep(seconds)
        if text:
            print(text, file=sys.stderr)
        return [token, value]


remembered: dict[str, int] = {}


@synapse.handler
def remember(token: int, key: str):
    with counted(token):
        with _counting:
            remembered[key] = remembered.get(key, 0) + 1
            return {"token": token, "worker": WORKER, "count": remembered[key]}


@synapse.handler
def typed(token: int, n: int) -> int:
    with counted(token):
        return token + n


UNFIT = {
    "object": lambda: {"items": [1, object()]},
    "key": lambda: {(1, 2): "a"},
    "huge": lambda: [2**70],
    "surrogate": lambda: "\ud800",
    "large": lambda: "x" * (5 * 2**20),
    "text": lambda: "not a number",
}


@synapse.handler
def give(token: int, what: str):
    with counted(token):
        return UNFIT[what]()


# Failures


class Declined(synapse.Error):
    """It was not to be."""

    token: int


@synapse.handler(raises=[Declined])
def decline(token: int):
    with counted(token):
        raise Declined(token=token)


@synapse.handler(raises=[Declined])
async def decline_async(token: int):
    with counted(token):
        raise Declined(token=token)


def _fail(token: int, how: str) -> NoReturn:
    if how == "SystemExit":
        sys.exit(token)
    if how == "KeyboardInterrupt":
        raise KeyboardInterrupt(str(token))
    try:
        raise KeyError("cause")
    except KeyError as error:
        raise ValueError(str(token)) from error


@synapse.handler
def fail(token: int, how: str):
    with counted(token):
        _fail(token, how)


@synapse.handler
async def fail_async(token: int, how: str):
    with counted(token):
        await asyncio.sleep(0)
        _fail(token, how)


# Streams


@synapse.handler(raises=[Declined])
def count(token: int, to: int, fail_at: int = -1, how: str = "") -> Iterator[int]:
    with counted(token):
        for n in range(to):
            if n == fail_at:
                if how == "Declined":
                    raise Declined(token=token)
                _fail(token, how)
            yield token * 1000 + n


@synapse.handler(raises=[Declined])
async def count_async(token: int, to: int, fail_at: int = -1, how: str = "") -> AsyncIterator[int]:
    with counted(token):
        for n in range(to):
            if n == fail_at:
                if how == "Declined":
                    raise Declined(token=token)
                _fail(token, how)
            yield token * 1000 + n
            if n % 10 == 0:
                await asyncio.sleep(0)


@synapse.handler
async def tick(token: int, seconds: float) -> AsyncIterator[int]:
    with counted(token):
        n = 0
        while True:
            yield token * 1000 + n % 1000
            n += 1
            await asyncio.sleep(seconds)


@synapse.handler
def pieces(token: int, to: int, size: int) -> Iterator[bytes]:
    with counted(token):
        for n in range(to):
            yield b"%d" % (token * 1000 + n) + b"." * size


@synapse.handler
def total(token: int, numbers: Iterator[int]) -> int:
    with counted(token):
        return token * 1000 + sum(numbers)


@synapse.handler
async def total_async(token: int, numbers: AsyncIterator[int]) -> int:
    with counted(token):
        result = token * 1000
        async for n in numbers:
            result += n
        return result


@synapse.handler
def shifted(token: int, numbers: Iterator[int]) -> Iterator[int]:
    with counted(token):
        for n in numbers:
            yield token * 1000 + n


@synapse.handler
async def shifted_async(token: int, numbers: AsyncIterator[int]) -> AsyncIterator[int]:
    with counted(token):
        async for n in numbers:
            yield token * 1000 + n


# Host functions


@synapse.handler
async def name_of(token: int) -> str:
    with counted(token):
        return await synapse.host.call("nameOf", id=token)


@synapse.handler
def name_of_sync(token: int) -> str:
    with counted(token):
        return synapse.host.call_sync("nameOf", id=token)


@synapse.handler
async def names_of(token: int, ids: list[int]) -> list[str]:
    with counted(token):
        return await asyncio.gather(*(synapse.host.call("nameOf", id=id) for id in ids))


@synapse.handler
def names_of_threads(token: int, ids: list[int]) -> list[str]:
    names: dict[int, str] = {}
    failures: list[BaseException] = []

    def look_up(id: int) -> None:
        try:
            names[id] = synapse.host.call_sync("nameOf", id=id)
        except BaseException as failure:
            failures.append(failure)

    with counted(token):
        threads = [threading.Thread(target=look_up, args=(id,)) for id in ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for failure in failures:
            raise failure
        return [names[id] for id in ids]


@synapse.handler
async def ask(token: int, method: str):
    with counted(token):
        return await synapse.host.call(method, id=token)


@synapse.handler
def ask_sync(token: int, method: str):
    with counted(token):
        return synapse.host.call_sync(method, id=token)


@synapse.handler
async def host_items(token: int, take: int) -> list[int]:
    with counted(token):
        items: list[int] = []
        async with synapse.host.stream("ids", id=token) as stream:
            async for item in stream:
                items.append(item)
                if len(items) == take:
                    break
        return items


@synapse.handler
def host_items_sync(token: int, take: int) -> list[int]:
    with counted(token):
        items: list[int] = []
        with synapse.host.stream("ids", id=token) as stream:
            for item in stream:
                items.append(item)
                if len(items) == take:
                    break
        return items


@synapse.handler
def back(tokens: list[int]) -> list[int]:
    with counted(tokens[0]):
        if len(tokens) == 1:
            return tokens
        return [tokens[0], *synapse.host.call_sync("back", tokens=tokens[1:], method="back")]


@synapse.handler
async def back_async(tokens: list[int]) -> list[int]:
    with counted(tokens[0]):
        if len(tokens) == 1:
            return tokens
        return [tokens[0], *await synapse.host.call("back", tokens=tokens[1:], method="back_async")]


# Progress and waiting


@synapse.handler
def work(token: int, steps: int, seconds: float = 0.0) -> int:
    with counted(token):
        for n in range(steps):
            synapse.context().progress(token * 1000 + n)
            time.sleep(seconds)
            if synapse.context().cancelled:
                break
        return token


@synapse.handler
async def work_async(token: int, steps: int, seconds: float = 0.0) -> int:
    with counted(token):
        for n in range(steps):
            synapse.context().progress(token * 1000 + n)
            await asyncio.sleep(seconds)
        return token


@synapse.handler
async def wait_async(token: int):
    with counted(token):
        await asyncio.sleep(600)


@synapse.handler
def wait_cooperatively(token: int):
    with counted(token):
        while not synapse.context().cancelled:
            time.sleep(0.002)


@synapse.handler(cancel="interrupt")
def wait_interrupted(token: int):
    with counted(token):
        while True:
            sum(range(1000))


@synapse.handler(cancel="replace")
def wait_for_ever(token: int):
    doomed("replaced")
    with counted(token):
        time.sleep(600)


# Objects


class Session:
    def __init__(self, token: int) -> None:
        self.token = token
        self.said = 0

    def say(self, token: int, text: str) -> str:
        ran(token)
        self.said += 1
        return f"{self.token}: {text}"

    async def say_async(self, token: int, text: str) -> str:
        ran(token)
        self.said += 1
        await asyncio.sleep(0)
        return f"{self.token}: {text}"

    def words(self, token: int, to: int) -> Iterator[int]:
        ran(token)
        for n in range(to):
            yield token * 1000 + n

    def fork(self, token: int) -> synapse.Handle:
        ran(token)
        return synapse.Handle(Session(token))


@synapse.handler
def open_session(token: int) -> synapse.Handle:
    with counted(token):
        return synapse.Handle(Session(token))


# Faults from inside


def _segfault_in_a_thread() -> None:
    thread = threading.Thread(target=ctypes.string_at, args=(0,))
    thread.start()
    thread.join()


def _hoard() -> None:
    hoarded = []
    # More than the limit, in case it is not there.
    for _ in range(1500):
        hoarded.append(bytearray(os.urandom(1024)) * 1024)
        time.sleep(0.0005)


LETHAL = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "segfault-in-thread": _segfault_in_a_thread,
    "abort": os.abort,
    "close-channel": lambda: os.close(3),
    "garbage": lambda: os.write(3, os.urandom(64)),
    "print-on-channel": lambda: os.write(3, b"a print that went to the channel\n" * 4),
    # Both hold the interpreter: one waits, the other computes.
    "jam-sleep": lambda: ctypes.PyDLL(None).sleep(600),
    "jam-regex": lambda: re.match(r"(a+)+$", "a" * 64 + "b"),
    "hoard": _hoard,
}


@synapse.handler
def die(token: int, kind: str):
    doomed(kind)
    with counted(token):
        LETHAL[kind]()
        time.sleep(600)


def _fork(own_session: bool) -> None:
    if os.fork() == 0:
        if own_session:
            os.setsid()
        time.sleep(600)
        os._exit(0)


def _replace_me() -> None:
    doomed("leaves")
    synapse.replace_me("the soak wants it")


MILD = {
    "sys-exit-in-thread": lambda: threading.Thread(target=sys.exit, args=(3,)).start(),
    "fork": lambda: _fork(own_session=False),
    "fork-own-session": lambda: _fork(own_session=True),
    "program": lambda: subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]),
    "replace-me": _replace_me,
}


@synapse.handler
def misbehave(token: int, kind: str):
    with counted(token):
        MILD[kind]()
        return token
