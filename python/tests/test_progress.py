from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_calls import Gate
from wire import CHUNK, DIE, PROGRESS, REQUEST, SUCCESS, Worker

Start = Callable[..., Worker]

SOURCE = """
import asyncio, os, threading, time
import synapse

{beside}
@synapse.handler
{a}def steps(n: int):
    for each in range(n):
        synapse.context().progress({{"step": each}})
    return n

@synapse.handler
{a}def bad(value: str):
    try:
        synapse.context().progress({{"a": [object()]}} if value == "object" else bytes(200_000))
    except ValueError as error:
        return str(error)

@synapse.handler
{a}def uncaught():
    synapse.context().progress(object())

@synapse.handler
{a}def held():
    synapse.context().progress("begun")
    with open(os.environ["LET_GO"]):
        pass
    return "done"

@synapse.handler
{a}def deadlines():
    context = synapse.context()
    before = context.deadline
    time.sleep(0.02)
    context.progress(1)
    moved = context.deadline
    return [moved - before, context.remaining]

@synapse.handler
{a}def items():
    yield 1
    synapse.context().progress("between")
    yield 2

@synapse.handler
{a}def outlives():
    context = synapse.context()
    def go_on():
        for n in range(20_000):
            context.progress(n)
    thread = threading.Thread(target=go_on)
    thread.start()
    return "ended"
"""

KINDS: dict[str, tuple[str, str, dict[str, int]]] = {
    "main": ("", "", {}),
    "pool": ("", "", {"concurrency": 2}),
    "loop": ("async ", "", {}),
    "mixed": ("async ", "@synapse.handler\ndef beside(): pass\n", {}),
}


@pytest.fixture(params=KINDS)
def worker(request: pytest.FixtureRequest, start: Start, tmp_path: Path) -> Worker:
    a, beside, welcome = KINDS[request.param]
    gate = Gate(tmp_path)
    worker = start(
        SOURCE.format(a=a, beside=beside),
        welcome={"maxFrameSize": 100_000, **welcome},
        env=gate.env,
    )
    worker.gate = gate  # type: ignore[attr-defined]
    return worker


def test_progress_is_told_in_order_and_before_the_end(worker: Worker) -> None:
    id = worker.request("steps", {"n": 50}, progress=True)
    for n in range(50):
        got = worker.receive()
        assert (got.kind, got.id, got.payload) == (PROGRESS, id, {"step": n})
    assert worker.receive().kind == SUCCESS


def test_nobody_is_told_who_does_not_listen(worker: Worker) -> None:
    assert worker.value("steps", {"n": 50}) == 50
    assert worker.value("steps", {"n": 50}, progress=False) == 50


def test_progress_does_not_wait_for_the_handler(worker: Worker) -> None:
    id = worker.request("held", progress=True)
    got = worker.receive()
    assert (got.kind, got.id, got.payload) == (PROGRESS, id, "begun")
    worker.gate.open()  # type: ignore[attr-defined]
    assert worker.receive().payload == "done"


def test_a_value_that_cannot_be_sent_is_an_error_of_the_handler(worker: Worker) -> None:
    said = worker.value("bad", {"value": "object"}, progress=True)
    assert "$.a[0]" in said and "cannot carry a `object`" in said
    assert "100000" in worker.value("bad", {"value": "large"}, progress=True)
    got = worker.call("uncaught", progress=True)
    assert (got.kind, got.payload["type"]) == (DIE, "ValueError")
    # The place of the fault is in the handler.
    assert got.payload["frames"][-1]["function"] == "uncaught"


def test_each_report_gives_the_whole_time_anew(worker: Worker) -> None:
    id = worker.request("deadlines", progress=True, deadline=10_000, ceiling=60_000)
    assert worker.receive().kind == PROGRESS
    got = worker.receive()
    moved, remaining = got.payload
    assert got.id == id and moved >= 0.02 and 0 < remaining <= 10


def test_no_report_moves_the_deadline_beyond_its_ceiling(worker: Worker) -> None:
    worker.request("deadlines", progress=True, deadline=10_000, ceiling=10_001)
    worker.receive()
    moved, _ = worker.receive().payload
    assert 0 <= moved <= 0.001 + 1e-9


def test_without_a_ceiling_the_deadline_stays(worker: Worker) -> None:
    worker.request("deadlines", progress=True, deadline=10_000)
    worker.receive()
    assert worker.receive().payload[0] == 0


def test_streams_report_too(worker: Worker) -> None:
    id = worker.stream("items", progress=True)
    got = [worker.receive()]
    while got[-1].kind != SUCCESS:
        got.append(worker.receive())
    assert {each.id for each in got} == {id}
    assert [each.payload for each in got if each.kind == PROGRESS] == ["between"]
    assert [item for each in got if each.kind == CHUNK for item in each.payload] == [1, 2]


def test_nothing_is_told_after_the_end(worker: Worker) -> None:
    """A number that is used again belongs to another call."""
    for _ in range(20):
        worker.request("outlives", id=5, progress=True)
        while (got := worker.receive()).kind == PROGRESS:
            pass
        assert (got.kind, got.payload) == (SUCCESS, "ended")
        assert worker.call("steps", {"n": 3}).kind == SUCCESS


def test_a_report_from_a_thread_while_the_host_is_called(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            context = synapse.context()
            context.progress(1)
            value = synapse.host.call_sync("f")
            context.progress(2)
            return value
    """)
    worker.request("main", progress=True)
    assert worker.receive().payload == 1
    asked = worker.receive()
    assert asked.kind == REQUEST
    worker.answer(asked.id, "f")
    assert [worker.receive().payload, worker.receive().payload] == [2, "f"]


def test_a_forked_process_reports_to_nobody(start: Start) -> None:
    worker = start("""
        import os
        import synapse

        @synapse.handler
        def forks():
            pid = os.fork()
            if pid == 0:
                synapse.context().progress(1)
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """)
    assert worker.value("forks", progress=True) == 7


def test_what_has_reported_goes_with_its_end(start: Start) -> None:
    worker = start("""
        import gc
        import synapse

        gc.disable()

        @synapse.handler
        def report():
            synapse.context().progress(1)

        @synapse.handler
        def count():
            return sum(type(each).__name__ == "Call" for each in gc.get_objects())
    """)
    for _ in range(3):
        worker.request("report", progress=True)
        assert [worker.receive().payload, worker.receive().payload] == [1, None]
    assert worker.value("count") == 1
