"""Every call is answered once, with the value as it was when its handler returned it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from wire import CANCEL, DIE, INTERRUPTED, PONG, REQUEST, SUCCESS, Worker, encode, frame

Start = Callable[..., Worker]

SHARED = """
    import synapse

    shared = bytearray(100_000)

    @synapse.handler
    def fill(value: int):
        shared[:] = bytes((value,)) * len(shared)
        return shared

    @synapse.handler
    def grow():
        shared.extend(b"x" * 1000)
        return len(shared)
"""

ODD = """
    import synapse

    def fail():
        raise SyntaxError("x", ("f.py", 2**70, 1, "text"))

    @synapse.handler
    def odd():
        fail()

    @synapse.handler
    async def odd_async():
        fail()

    @synapse.handler
    def hostile():
        class Hostile(Exception):
            def __getattribute__(self, name):
                raise SystemExit(name)
        raise Hostile

    @synapse.handler
    def quick():
        return "quick"
"""

FORKING = """
    import os
    import sys
    import synapse

    @synapse.handler
    def fork(path: str):
        pid = os.fork()
        if pid == 0:
            sys.exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @synapse.handler
    async def fork_async():
        pid = os.fork()
        if pid == 0:
            return "in the child"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @synapse.handler
    def note(path: str):
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\\n")
"""

WAITING = """
    import os
    import synapse

    @synapse.handler
    def block(begun: str, let_go: str):
        with open(begun, "w"):
            pass
        with open(let_go):
            pass

    @synapse.handler
    def take(payload):
        return len(payload)

    @synapse.handler
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
"""

CYCLES = """
    import gc
    import asyncio
    import synapse

    gc.disable()

    @synapse.handler
    async def step():
        await asyncio.sleep(0)

    @synapse.handler
    def count():
        gc.collect()
        return gc.get_count()[0]

    @synapse.handler
    def unreachable():
        return gc.collect()
"""


def together(worker: Worker, *calls: tuple[str, object]) -> list[object]:
    """Requests in one write, so that their answers leave in one write too."""
    frames = [
        frame(REQUEST, id, encode(value), encode({"method": method}))
        for id, (method, value) in enumerate(calls, 1)
    ]
    worker.send(b"".join(frames))
    got = sorted((worker.receive() for _ in calls), key=lambda each: each.id)
    assert [each.kind for each in got] == [SUCCESS] * len(calls)
    return [each.payload for each in got]


def test_what_a_handler_changes_after_it_returned_does_not_change_its_answer(start: Start) -> None:
    worker = start(SHARED)
    first, second, size, third = together(
        worker,
        ("fill", {"value": 1}),
        ("fill", {"value": 2}),
        ("grow", None),
        ("fill", {"value": 3}),
    )
    assert first == b"\x01" * 100_000
    assert second == b"\x02" * 100_000
    assert size == 101_000
    assert third == b"\x03" * 101_000


def test_what_a_handler_changes_in_an_array_does_not_change_its_answer(start: Start) -> None:
    pytest.importorskip("numpy", reason="arrays need numpy")
    worker = start(
        """
        import numpy
        import synapse

        shared = numpy.zeros(20_000)

        @synapse.handler
        def fill(value: float):
            shared[:] = value
            return shared
        """
    )
    answers = together(worker, ("fill", {"value": 1.0}), ("fill", {"value": 2.0}))
    assert [bytes(each.data[-8:]) for each in answers] == [  # type: ignore[attr-defined]
        b"\x00\x00\x00\x00\x00\x00\xf0\x3f",
        b"\x00\x00\x00\x00\x00\x00\x00\x40",
    ]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_an_exception_that_cannot_be_described_is_still_an_answer(
    start: Start, concurrency: int
) -> None:
    worker = start(ODD, welcome={"concurrency": concurrency})
    for method in ("odd", "odd_async", "hostile"):
        got = worker.call(method)
        assert (got.kind, got.meta) == (DIE, None)
        assert isinstance(got.payload["type"], str)
    assert worker.value("quick") == "quick"


def test_a_child_that_a_handler_forks_does_not_run_the_calls_that_wait(
    start: Start, tmp_path: Path
) -> None:
    worker = start(FORKING)
    path = str(tmp_path / "notes")
    code, _ = together(worker, ("fork", {"path": path}), ("note", {"path": path}))
    assert code == 3
    assert worker.value("fork_async") == 0
    assert Path(path).read_text().split() == [str(worker.process.pid)]


def test_calls_that_were_cancelled_while_they_waited_keep_no_memory(
    start: Start, tmp_path: Path
) -> None:
    worker = start(WAITING)
    before = worker.value("resident")
    begun, let_go = tmp_path / "begun", tmp_path / "let_go"
    os.mkfifo(let_go)
    blocked = worker.request("block", {"begun": str(begun), "let_go": str(let_go)})
    while not begun.exists():
        pass
    large, meta = encode(b"x" * 1_000_000), encode({"method": "take"})
    for id in range(1000, 1100):
        worker.send(frame(REQUEST, id, large, meta) + frame(CANCEL, id))
        got = worker.receive()
        assert (got.kind, got.id) == (INTERRUPTED, id)
    with open(f"/proc/{worker.process.pid}/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident - before < 50_000_000
    let_go.write_text("")
    assert worker.receive().id == blocked


def test_an_asynchronous_call_leaves_nothing_that_only_the_collector_frees(start: Start) -> None:
    worker = start(CYCLES)
    worker.value("step")
    worker.value("unreachable")
    for _ in range(200):
        worker.value("step")
    assert worker.value("unreachable") < 200


def test_pings_are_answered_by_a_worker_with_a_pool(start: Start) -> None:
    worker = start(ODD, welcome={"concurrency": 3})
    ids = [worker.request("quick") for _ in range(300)]
    worker.send(frame(12, 9999))
    got = [worker.receive() for _ in range(301)]
    assert sorted(each.id for each in got if each.kind == SUCCESS) == ids
    assert [each.id for each in got if each.kind == PONG] == [9999]


def test_a_dataclass_that_arrived_without_its_defaults_goes_back_with_them(start: Start) -> None:
    worker = start(
        """
        from dataclasses import dataclass, field
        from typing import Optional

        import synapse

        @dataclass
        class Inner:
            a: int = 1

        @dataclass
        class Point:
            x: int
            y: int = 2
            inner: Optional[list[Inner]] = None
            tags: list[str] = field(default_factory=list)

        @dataclass
        class Tree:
            children: "list[Tree]" = field(default_factory=list)
            name: str = "leaf"

        @synapse.handler
        def point(point: Point) -> Point:
            return point

        @synapse.handler
        def points(points: dict[str, list[Inner]]):
            return points

        @synapse.handler
        def tree(tree: Tree, depth: int = 0):
            return tree
        """
    )
    assert worker.value("point", {"x": 1}) == {"x": 1, "y": 2, "inner": None, "tags": []}
    assert worker.value("points", {"k": [{}]}) == {"k": [{"a": 1}]}
    leaf = {"children": [], "name": "leaf"}
    assert worker.value("tree", {"tree": {"children": [{}]}}) == {
        "children": [leaf],
        "name": "leaf",
    }
