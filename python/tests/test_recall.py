"""Calls that have not started are given back when the host asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import DIE, PING, PONG, REQUEST, SUCCESS, Worker, encode, frame

RECALL = 18

SOURCE = """
    import threading
    import time
    from pathlib import Path
    import synapse

    @synapse.handler
    def wait_for(path: str) -> str:
        Path(path + ".began").touch()
        while not Path(path).exists():
            time.sleep(0.002)
        return "waited"

    @synapse.handler
    def nap(seconds: float) -> None:
        time.sleep(seconds)

    @synapse.handler
    def ask(payload):
        return synapse.host.call_sync("f", payload)

    @synapse.handler
    def leave_waiting(payload):
        waits = threading.Thread(target=synapse.host.call_sync, args=("f", payload), daemon=True)
        waits.start()

    @synapse.handler
    def echo(payload):
        return payload

    @synapse.handler
    async def echo_async(payload):
        return payload
"""


def _until(path: Path) -> None:
    while not path.exists():
        pass


@pytest.mark.parametrize("concurrency", [1, 2])
def test_what_waits_comes_back_and_what_runs_goes_on(
    start: Callable[..., Worker], tmp_path: Path, concurrency: int
) -> None:
    worker = start(SOURCE, welcome={"concurrency": concurrency})
    gate = tmp_path / "gate"
    running = []
    for n in range(concurrency):
        running.append(worker.request("wait_for", {"path": str(gate) if n == 0 else f"{gate}{n}"}))
        _until(tmp_path / ("gate.began" if n == 0 else f"gate{n}.began"))
    waiting = [worker.request("echo", n) for n in range(3)]
    for id in (*running, *waiting):
        worker.send(frame(RECALL, id))
    for id in waiting:
        got = worker.receive()
        assert (got.kind, got.id) == (DIE, id)
        assert got.meta == {"reason": "Recalled", "delivery": "rejected"}
    # Its number is free again, and so is its place.
    assert worker.request("echo", "again", id=waiting[0]) == waiting[0]
    for n in range(concurrency):
        Path(str(gate) if n == 0 else f"{gate}{n}").touch()
    ends: dict[int, Any] = {}
    for _ in range(concurrency + 1):
        got = worker.receive()
        assert got.kind == SUCCESS
        ends[got.id] = got.payload
    assert ends == {**dict.fromkeys(running, "waited"), waiting[0]: "again"}


def test_nothing_comes_of_recalling_what_is_not_there_or_asynchronous(
    start: Callable[..., Worker],
) -> None:
    worker = start(SOURCE)
    worker.send(frame(RECALL, 77))
    id = worker.request("echo_async", 5)
    worker.send(frame(RECALL, id))
    got = worker.receive()
    assert (got.kind, got.id, got.payload) == (SUCCESS, id, 5)
    worker.send(frame(RECALL, id))
    assert worker.value("echo", 6) == 6


def _request(id: int, method: str, value: Any) -> bytes:
    return frame(REQUEST, id, encode(value), encode({"method": method}))


def _comes_back(worker: Worker, id: int) -> None:
    got = worker.receive()
    assert (got.kind, got.id) == (DIE, id), got
    assert got.meta["reason"] == "Recalled"


def test_what_is_asked_back_of_a_thread_with_nothing_else_to_do_runs(
    start: Callable[..., Worker],
) -> None:
    worker = start(SOURCE)
    assert worker.value("echo", 0) == 0
    worker.send(_request(11, "echo", 1) + _request(12, "echo", 2) + frame(RECALL, 12))
    assert [(got.kind, got.payload) for got in (worker.receive(), worker.receive())] == [
        (SUCCESS, 1),
        (SUCCESS, 2),
    ]


@pytest.mark.parametrize("reads", ["the main thread", "the follower", "a thread of the module"])
def test_what_was_asked_back_of_a_thread_with_nothing_to_do_comes_back_when_it_is_held_up(
    start: Callable[..., Worker], tmp_path: Path, reads: str
) -> None:
    worker = start(SOURCE)
    if reads == "the follower":
        # It goes on reading until something comes.
        assert worker.value("nap", {"seconds": 0.1}) is None
    elif reads == "a thread of the module":
        worker.request("leave_waiting", 1)
        assert {worker.receive().kind, worker.receive().kind} == {REQUEST, SUCCESS}
    gate = tmp_path / "gate"
    blocking = _request(11, "wait_for", {"path": str(gate)})
    worker.send(blocking + _request(12, "echo", 1) + frame(RECALL, 12))
    _comes_back(worker, 12)
    gate.touch()
    assert worker.receive().payload == "waited"


def test_what_was_asked_back_of_a_thread_with_nothing_to_do_comes_back_when_it_waits_for_the_host(
    start: Callable[..., Worker],
) -> None:
    worker = start(SOURCE)
    worker.send(_request(11, "ask", 1) + _request(12, "echo", 1) + frame(RECALL, 12))
    got = worker.receive()
    if got.kind == REQUEST:
        _comes_back(worker, 12)
    else:
        assert (got.kind, got.id, worker.receive().kind) == (DIE, 12, REQUEST)


def test_a_recall_is_of_the_call_that_had_the_number_then(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start(SOURCE)
    id = worker.request("echo", 0)
    assert worker.receive().payload == 0
    gate = tmp_path / "gate"
    blocking = _request(11, "wait_for", {"path": str(gate)})
    worker.send(frame(RECALL, id) + blocking + _request(id, "echo", 5))
    while not (tmp_path / "gate.began").exists():
        pass
    # Long enough for the follower, which would give it back.
    worker.send(frame(PING, 7))
    assert worker.receive().kind == PONG
    gate.touch()
    assert (worker.receive().payload, worker.receive().payload) == ("waited", 5)
