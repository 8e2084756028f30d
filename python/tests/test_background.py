from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_lifecycle import PRELUDE, SYNC, concurrencies, events, hooks, kinds
from wire import (
    HELLO,
    INTERRUPTED,
    PING,
    PONG,
    REQUEST,
    SHUTDOWN,
    WELCOME,
    Worker,
    encode,
    frame,
    write,
)

import synapse
from synapse import _background

Start = Callable[..., Worker]


def messages(worker: Worker, logger: str, count: int) -> list[dict[str, Any]]:
    """The next logs of a logger, as they come."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        log = worker.next_log()
        if log["logger"] == logger:
            found.append(log)
    return found


@kinds
@hooks
@concurrencies
def test_a_function_runs_again_and_again_beside_calls(
    start: Start, handlers: str, define: str, concurrency: int
) -> None:
    worker = start(
        PRELUDE
        + f"""
    @synapse.background(seconds=0.001)
    {define} tick(): print("tick")
    """
        + handlers,
        welcome={"concurrency": concurrency},
    )
    assert worker.value("main") == 1
    assert len(messages(worker, "stdout", 5)) == 5
    worker.send(frame(PING, 1))
    assert worker.receive().kind == PONG
    assert worker.shut_down() == 0


def test_nothing_runs_before_the_welcome(launch: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        PRELUDE
        + """
    @synapse.background(seconds=60)
    def tick(): note("sync")

    @synapse.background(seconds=60)
    async def tock(): print("async")
    """
        + SYNC,
    )
    worker = launch()
    assert worker.receive().kind == HELLO
    worker.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        worker.receive_any()
    assert events(tmp_path) == []
    worker.socket.settimeout(30)
    worker.send_welcome()
    assert worker.next_log()["message"] == "async"


@hooks
def test_a_run_never_overlaps_itself(start: Start, tmp_path: Path, define: str) -> None:
    wait = "await asyncio.sleep(0.005)" if define == "async def" else "time.sleep(0.005)"
    worker = start(
        PRELUDE
        + f"""
    running = 0

    @synapse.background(seconds=1e-9)
    {define} tick():
        global running
        running += 1
        print(running)
        {wait}
        running -= 1
    """
        + SYNC
    )
    assert {log["message"] for log in messages(worker, "stdout", 10)} == {"1"}


def test_a_plain_function_that_blocks_holds_up_nothing(start: Start, tmp_path: Path) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.background(seconds=60)
    def block():
        print("blocking")
        threading.Event().wait()

    @synapse.background(seconds=0.001)
    def tick(): print("tick")
    """
        + SYNC
    )
    said = {log["message"] for log in messages(worker, "stdout", 10)}
    assert said == {"blocking", "tick"}
    # A run that does not end does not hold up the end either.
    assert worker.shut_down(0) == 0


@kinds
@hooks
@pytest.mark.parametrize("error", ["ValueError('v')", "SystemExit(3)", "KeyboardInterrupt"])
def test_a_failure_is_logged_and_the_schedule_kept(
    start: Start, handlers: str, define: str, error: str
) -> None:
    worker = start(
        PRELUDE
        + f"""
    @synapse.background(seconds=0.001)
    {define} tick(): raise {error}
    """
        + handlers
    )
    for log in messages(worker, "synapse.background", 3):
        assert (log["level"], log["message"]) == (40, "`tick` failed")
        assert log["exception"]["type"] == error.partition("(")[0]
        assert log["exception"]["frames"][-1]["function"] == "tick"
    assert worker.value("main") == 1


def test_cancelling_all_tasks_does_not_end_the_schedule(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    runs = 0

    @synapse.background(seconds=0.001)
    async def tick():
        global runs
        runs += 1
        await asyncio.sleep(0)

    @synapse.handler
    async def main():
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        seen = runs
        while runs < seen + 3:
            await asyncio.sleep(0.001)
    """
    )
    assert worker.value("main") is None


@kinds
def test_tasks_are_cancelled_at_the_end_before_the_hooks(
    start: Start, tmp_path: Path, handlers: str
) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.background(seconds=60)
    async def listen():
        try:
            note("listening")
            await asyncio.Event().wait()
        finally:
            note("closed")

    @synapse.on_stop
    def end(): note("end")
    """
        + handlers
    )
    while not events(tmp_path):
        worker.value("main")
    assert worker.shut_down(10_000) == 0
    assert events(tmp_path) == ["listening", "closed", "end"]
    assert "failed" not in worker.output()[1]


def test_no_run_begins_once_the_worker_ends(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    worker = start(
        PRELUDE
        + """
    @synapse.background(seconds=1e-9)
    def tick():
        note("tick")

    @synapse.on_stop
    def end():
        note("end")
        open("gate").read()
    """
        + SYNC
    )
    worker.value("main")
    worker.send(frame(SHUTDOWN, 0, encode(60_000)))
    with open(tmp_path / "gate", "w"):
        seen = events(tmp_path)
    assert worker.wait() == 0
    assert seen[-1] == "end" and events(tmp_path) == seen


def test_the_background_runs_while_calls_are_finished(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    ticked = threading.Event()

    @synapse.background(seconds=0.001)
    def tick():
        if os.path.exists("leaving"):
            ticked.set()

    @synapse.handler
    def main():
        print("begun")
        ticked.wait()
    """
    )
    worker.request("main")
    assert worker.next_log()["message"] == "begun"
    worker.send(frame(SHUTDOWN, 0, encode(60_000)))
    got = worker.call("main")
    assert got.meta["reason"] == "Closed"
    (Path(f"/proc/{worker.process.pid}/cwd").resolve() / "leaving").touch()
    assert worker.receive().payload is None
    assert worker.wait() == 0


def test_a_child_forked_in_the_background_ends_where_the_function_does(
    start: Start, tmp_path: Path
) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.background(seconds=60)
    def tick():
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            note("waited")
            print("waited")
    """
        + SYNC
    )
    assert messages(worker, "stdout", 1)[0]["message"] == "waited"
    assert worker.value("main") == 1


# Decorating


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    registered: list[Any] = []
    monkeypatch.setattr(_background, "registry", registered)
    return registered


@pytest.mark.parametrize("seconds", [0, -1, 0.0, float("nan"), float("inf"), -float("inf")])
def test_an_interval_is_more_than_nothing_and_has_an_end(seconds: float) -> None:
    with pytest.raises(ValueError, match="the interval is more than 0"):
        synapse.background(seconds=seconds)


@pytest.mark.parametrize("seconds", [True, None, "5", 1j, lambda: None])
def test_an_interval_is_a_number(seconds: Any) -> None:
    with pytest.raises(TypeError, match=r"seconds=\.\.\.\): the interval is a number"):
        synapse.background(seconds)


@pytest.mark.parametrize("seconds", [1, 0.5, 1e-9, 10**400, 1e300])
def test_an_interval_may_be_short_or_long(registry: list[Any], seconds: float) -> None:
    def tick() -> int:
        return 5

    assert synapse.background(seconds=seconds)(tick) is tick
    assert tick() == 5
    assert len(registry) == 1


def test_what_cannot_run_by_itself_is_refused() -> None:
    def needy(model: str) -> None: ...

    async def generator() -> Any:
        yield

    with pytest.raises(TypeError, match=r"`.*needy`.*without arguments, and `model` has no def"):
        synapse.background(seconds=1)(needy)
    with pytest.raises(TypeError, match="it is a generator"):
        synapse.background(seconds=1)(generator)
    with pytest.raises(TypeError, match="decorates functions"):
        synapse.background(seconds=1)(5)  # type: ignore[type-var]


def test_what_came_with_the_welcome_comes_first(launch: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import time
        import synapse

        @synapse.background(seconds=1000)
        def ask():
            synapse.host.call_sync("f")

        # The call is on its way while these are begun.
        for _ in range(300):
            synapse.background(seconds=1000)(lambda: time.sleep(0.01))

        @synapse.handler
        def wait():
            while not synapse.context().cancelled:
                time.sleep(0.001)
        """,
    )
    worker = launch()
    assert worker.receive().kind == HELLO
    settings = {"protocol": 1, "maxFrameSize": 1 << 24, "concurrency": 1, "maxOpenCalls": 1024}
    request = frame(REQUEST, 1, b"", encode({"method": "wait"}))
    worker.send(frame(WELCOME, 0, encode(settings)) + request)
    worker.asked("f")
    worker.cancel(1)
    assert worker.receive()[:2] == (INTERRUPTED, 1)
