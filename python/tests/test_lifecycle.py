from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import DIE, GO_AWAY, HELLO, INTERRUPTED, SHUTDOWN, SUCCESS, Worker, encode, frame, write

import synapse
from synapse import _hooks

Start = Callable[..., Worker]

# What happens is a line of a file, which outlives the worker.
PRELUDE = """
    import asyncio, os, sys, threading, time
    import synapse

    def note(what):
        with open("events", "a") as file:
            file.write(what + "\\n")
"""

SYNC = """
    @synapse.handler
    def main():
        return 1
"""
ASYNC = """
    @synapse.handler
    async def main():
        return 1
"""
# The modules that a hook may find itself in.
KINDS = {"sync": SYNC, "async": ASYNC, "mixed": SYNC + ASYNC.replace("main", "other")}
kinds = pytest.mark.parametrize("handlers", KINDS.values(), ids=KINDS.keys())
hooks = pytest.mark.parametrize("define", ["def", "async def"])
concurrencies = pytest.mark.parametrize("concurrency", [1, 2])


def events(directory: Path) -> list[str]:
    path = directory / "events"
    return path.read_text().splitlines() if path.exists() else []


def failure_of(worker: Worker) -> dict[str, Any]:
    hello = worker.receive()
    assert hello.kind == HELLO
    failure: dict[str, Any] = hello.payload["failure"]
    return failure


# Start


@kinds
@concurrencies
def test_hooks_of_the_start_run_in_order_before_hello(
    launch: Start, tmp_path: Path, handlers: str, concurrency: int
) -> None:
    write(
        tmp_path,
        PRELUDE
        + """
    @synapse.on_start
    def one(): note("one")

    @synapse.on_start
    async def two():
        await asyncio.sleep(0)
        note("two")

    @synapse.on_start
    def three(): note("three")

    note("loaded")
    """
        + handlers,
    )
    worker = launch()
    assert worker.receive().kind == HELLO
    assert events(tmp_path) == ["loaded", "one", "two", "three"]
    worker.send_welcome(concurrency=concurrency)
    assert worker.value("main") == 1


def test_a_hook_of_the_start_runs_on_the_main_thread(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    threads = []

    @synapse.on_start
    def load(): threads.append(threading.current_thread() is threading.main_thread())

    @synapse.handler
    def main(): return threads
    """
    )
    assert worker.value("main") == [True]


@kinds
@concurrencies
def test_what_a_hook_creates_on_the_loop_keeps_working(
    start: Start, handlers: str, concurrency: int
) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_start
    async def connect():
        global loop, asked, server
        loop = asyncio.get_running_loop()
        asked = asyncio.Queue()
        server = asyncio.create_task(serve())
        await asyncio.sleep(0)

    async def serve():
        while True:
            number, answer = await asked.get()
            answer.set_result(number + 1)

    @synapse.handler
    async def increment(number: int) -> int:
        assert asyncio.get_running_loop() is loop
        answer = loop.create_future()
        await asked.put((number, answer))
        return await answer
    """
        + handlers,
        welcome={"concurrency": concurrency},
    )
    assert [worker.value("increment", {"number": each}) for each in range(3)] == [1, 2, 3]


def test_a_loop_that_only_hooks_use_runs_beside_synchronous_handlers(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_start
    async def begin():
        global loop
        loop = asyncio.get_running_loop()

    @synapse.handler
    def main(): return asyncio.run_coroutine_threadsafe(double(4), loop).result()

    async def double(number): return number * 2
    """
    )
    assert worker.value("main") == 8


@hooks
@pytest.mark.parametrize("error", ["ValueError('no model')", "SystemExit(3)", "KeyboardInterrupt"])
def test_a_hook_that_raises_fails_the_start(
    launch: Start, tmp_path: Path, define: str, error: str
) -> None:
    path = write(
        tmp_path,
        PRELUDE
        + f"""
    @synapse.on_start
    {define} load():
        raise {error}

    @synapse.on_start
    def later(): note("later")

    @synapse.on_stop
    def unload(): note("stopped")
    """,
    )
    worker = launch()
    failure = failure_of(worker)
    assert failure["type"] == error.partition("(")[0]
    assert [(each["file"], each["function"]) for each in failure["frames"]] == [(str(path), "load")]
    assert worker.wait() == 1
    assert events(tmp_path) == []


def test_a_hook_may_register_handlers_and_hooks(start: Start, tmp_path: Path) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_start
    def load():
        @synapse.handler
        def late(number: int) -> int:
            return number

        @synapse.on_start
        def more(): note("more")
    """
    )
    assert worker.value("late", {"number": 5}) == 5
    assert events(tmp_path) == ["more"]


def test_what_a_hook_prints_and_logs_arrives(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    import logging

    @synapse.on_start
    def load():
        print("printed")
        logging.getLogger("model").warning("logged")
    """
        + SYNC
    )
    worker.value("main")
    assert [each["message"] for each in worker.logs] == ["logged"]
    assert worker.shut_down() == 0
    # As what the module prints while it is loaded does.
    assert worker.output()[0] == "printed\n"


# End


@kinds
@concurrencies
@pytest.mark.parametrize("by", ["shutdown", "signal"])
def test_hooks_of_the_end_run_in_reverse_order(
    start: Start, tmp_path: Path, handlers: str, concurrency: int, by: str
) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_stop
    def one(): note("one")

    @synapse.on_stop
    async def two():
        await asyncio.sleep(0)
        note("two")

    @synapse.on_stop
    def three(): note("three")
    """
        + handlers,
        welcome={"concurrency": concurrency},
    )
    assert worker.value("main") == 1
    if by == "shutdown":
        worker.send(frame(SHUTDOWN, 0, encode(10_000)))
    else:
        worker.process.terminate()
        assert worker.receive().kind == GO_AWAY
    assert worker.wait() == 0
    assert events(tmp_path) == ["three", "two", "one"]


def test_coroutine_functions_end_on_the_loop_that_they_started_on(
    start: Start, tmp_path: Path
) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_start
    async def begin():
        global loop
        loop = asyncio.get_running_loop()

    @synapse.on_stop
    async def end():
        note(str(asyncio.get_running_loop() is loop))
    """
        + SYNC
    )
    assert worker.shut_down(10_000) == 0
    assert events(tmp_path) == ["True"]


@pytest.mark.parametrize("by", ["shutdown", "signal"])
def test_hooks_of_the_end_run_after_the_calls(start: Start, tmp_path: Path, by: str) -> None:
    worker = start(
        PRELUDE
        + """
    go_on = threading.Event()

    @synapse.handler
    def main():
        note("called")
        go_on.wait()
        note("returned")

    @synapse.handler
    async def proceed(): go_on.set()

    @synapse.handler
    async def wait():
        while not os.path.exists("go on"):
            await asyncio.sleep(0.001)
        go_on.set()

    @synapse.on_stop
    def end(): note("end")
    """
    )
    worker.request("main")
    worker.request("wait")
    worker.ping()
    if by == "shutdown":
        worker.send(frame(SHUTDOWN, 0, encode(60_000)))
        worker.ping()
    else:
        worker.process.terminate()
        assert worker.receive().kind == GO_AWAY
    (tmp_path / "go on").touch()
    assert {worker.receive().kind, worker.receive().kind} == {SUCCESS}
    assert worker.wait() == 0
    assert events(tmp_path) == ["called", "returned", "end"]


@pytest.mark.parametrize("define", ["def", "async def"])
@pytest.mark.parametrize("gone", [False, True], ids=["host waits", "host is gone"])
def test_hooks_of_the_end_run_when_the_grace_is_over(
    start: Start, tmp_path: Path, define: str, gone: bool
) -> None:
    worker = start(
        PRELUDE
        + f"""
    @synapse.handler
    def stuck():
        note("called")
        threading.Event().wait()

    @synapse.handler
    async def waiting(): await asyncio.Event().wait()

    @synapse.on_stop
    {define} end(): note("end")
    """
    )
    waiting = worker.request("waiting")
    worker.request("stuck")
    worker.ping()
    # What a host does whose patience is over: it closes the channel at the end of the grace.
    worker.send(frame(SHUTDOWN, 0, encode(60_000 if gone else 0)))
    if gone:
        worker.ping()
        worker.socket.close()
    else:
        got = worker.receive()
        assert (got.kind, got.id) == (INTERRUPTED, waiting)
    assert worker.wait() == 0
    assert events(tmp_path) == ["called", "end"]


@hooks
@pytest.mark.parametrize("error", ["ValueError('v')", "SystemExit(3)", "KeyboardInterrupt"])
def test_a_hook_of_the_end_that_raises_is_logged_and_the_others_run(
    start: Start, tmp_path: Path, define: str, error: str
) -> None:
    worker = start(
        PRELUDE
        + f"""
    @synapse.on_stop
    def first(): note("first")

    @synapse.on_stop
    {define} broken(): raise {error}

    @synapse.on_stop
    async def last(): note("last")
    """
        + SYNC
    )
    worker.send(frame(SHUTDOWN, 0, encode(10_000)))
    log = worker.next_log()
    assert (log["logger"], log["level"]) == ("synapse", 40)
    assert "`broken` failed" in log["message"]
    assert log["exception"]["type"] == error.partition("(")[0]
    assert worker.wait() == 0
    assert events(tmp_path) == ["last", "first"]


@pytest.mark.parametrize(
    "hanging",
    [
        "def hang(): threading.Event().wait()",
        "async def hang(): await asyncio.Event().wait()",
        "async def hang(): threading.Event().wait()",
    ],
)
@kinds
def test_a_hook_of_the_end_that_hangs_does_not_hold_up_the_end(
    start: Start, hanging: str, handlers: str
) -> None:
    worker = start(PRELUDE + f"\n    @synapse.on_stop\n    {hanging}\n" + handlers)
    worker.send(frame(SHUTDOWN, 0, encode(0)))
    assert "`hang` did not end in time" in worker.next_log()["message"]
    assert worker.wait() == 0


def test_a_shutdown_ends_the_wait_for_hooks_that_a_signal_began(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_stop
    def hang():
        print("hanging")
        threading.Event().wait()
    """
        + SYNC
    )
    worker.process.send_signal(signal.SIGTERM)
    assert worker.receive().kind == GO_AWAY
    assert worker.next_log()["message"] == "hanging"
    assert worker.shut_down(0) == 0


def test_what_hooks_of_the_end_log_arrives(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_stop
    def end(): print("bye", end="")
    """
        + SYNC
    )
    worker.send(frame(SHUTDOWN, 0, encode(10_000)))
    assert worker.next_log()["message"] == "bye"


def test_no_hook_runs_when_the_host_is_gone(start: Start, tmp_path: Path) -> None:
    worker = start(PRELUDE + '\n    @synapse.on_stop\n    def end(): note("end")\n' + SYNC)
    assert worker.value("main") == 1
    worker.socket.close()
    assert worker.wait() == 75
    assert events(tmp_path) == []


def test_hooks_of_the_end_run_before_the_welcome_too(launch: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        PRELUDE
        + """
    @synapse.on_stop
    async def end(): note("async")

    @synapse.on_stop
    def other(): note("sync")
    """
        + SYNC,
    )
    worker = launch()
    assert worker.receive().kind == HELLO
    worker.process.terminate()
    assert worker.wait() == 0
    assert events(tmp_path) == ["sync", "async"]


def test_calls_that_come_while_hooks_run_are_refused(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    worker = start(PRELUDE + '\n    @synapse.on_stop\n    def end(): open("gate").read()\n' + SYNC)
    worker.send(frame(SHUTDOWN, 0, encode(60_000)))
    with open(tmp_path / "gate", "w"):
        got = worker.call("main")
    assert (got.kind, got.meta["reason"]) == (DIE, "Closed")
    assert worker.wait() == 0


# Decorating


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hooks, "starts", [])
    monkeypatch.setattr(_hooks, "stops", [])


@pytest.mark.usefixtures("unregistered")
@pytest.mark.parametrize("decorate", [synapse.on_start, synapse.on_stop])
def test_what_cannot_be_a_hook_is_refused(decorate: Callable[[Any], Any]) -> None:
    def needy(model: str) -> None: ...

    def generator() -> Any:
        yield

    with pytest.raises(TypeError, match=r"`.*needy`.*without arguments, and `model` has no def"):
        decorate(needy)
    with pytest.raises(TypeError, match="it is a generator"):
        decorate(generator)
    for wrong in (5, int):
        with pytest.raises(TypeError, match="decorates functions"):
            decorate(wrong)


@pytest.mark.usefixtures("unregistered")
def test_a_hook_stays_the_function_that_it_was() -> None:
    done = threading.Event()

    def hook(model: str = "small") -> None:
        done.set()

    assert synapse.on_start(hook) is hook
    assert synapse.on_stop(hook) is hook
    assert not done.is_set()
