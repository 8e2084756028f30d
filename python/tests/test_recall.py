"""Calls that have not started are given back when the host asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import DIE, REQUEST, SUCCESS, Worker, encode, frame

RECALL = 18

SOURCE = """
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


def _all_at_once(worker: Worker, *calls: tuple[str, Any], recalled: int) -> None:
    """Several requests with the ids 1 and up, and behind them a recall of one, in one write."""
    requests = [
        frame(REQUEST, id, encode(value), encode({"method": method}))
        for id, (method, value) in enumerate(calls, 1)
    ]
    worker.send(b"".join((*requests, frame(RECALL, recalled))))


def test_what_is_asked_back_of_a_thread_with_nothing_else_to_do_runs(
    start: Callable[..., Worker],
) -> None:
    worker = start(SOURCE)
    assert worker.value("echo", 0) == 0
    _all_at_once(worker, ("echo", 1), ("echo", 2), recalled=2)
    assert [(got.kind, got.payload) for got in (worker.receive(), worker.receive())] == [
        (SUCCESS, 1),
        (SUCCESS, 2),
    ]
    # What is over by now is another call's number.
    assert worker.request("echo", 3, id=2) == 2
    assert worker.receive().payload == 3


def test_what_was_asked_back_of_a_thread_with_nothing_to_do_comes_back_when_it_is_held_up(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start(SOURCE)
    gate = tmp_path / "gate"
    _all_at_once(worker, ("wait_for", {"path": str(gate)}), ("echo", 1), recalled=2)
    got = worker.receive()
    assert (got.kind, got.id, got.meta["reason"]) == (DIE, 2, "Recalled")
    gate.touch()
    assert worker.receive().payload == "waited"
