"""Calls that have not started are given back when the host asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import DIE, SUCCESS, Worker, frame

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
