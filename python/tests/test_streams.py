from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_calls import Gate
from wire import (
    CANCEL,
    CHUNK,
    DIE,
    FAIL,
    INTERRUPTED,
    PONG,
    SUCCESS,
    Worker,
    decode,
    encode,
    frame,
)

Start = Callable[..., Worker]

# A module of each kind: where generators run, and how they are written.
KINDS = {
    "main": ({}, "", "", ""),
    "pool": ({"concurrency": 3}, "", "", ""),
    "loop": ({}, "async ", "await ", ""),
    # The loop has a thread of its own.
    "mixed": ({}, "async ", "await ", "@synapse.handler\ndef other(): pass\n"),
}

MODULE = """
import asyncio, os, sys, time
import synapse

{more}
seen = []

class Odd(synapse.Error):
    n: int

@synapse.handler
{a}def count(n: int):
    for each in range(n):
        yield each

@synapse.handler
{a}def forever(size: int = 0):
    n = 0
    try:
        while True:
            yield bytes(size) if size else n
            n += 1
    finally:
        seen.append("closed")

@synapse.handler
{a}def slowly():
    while True:
        # Nothing asynchronous in any of them.
        time.sleep(0.001)
        yield 0

@synapse.handler(raises=Odd)
{a}def fails(how: str):
    yield 1
    yield 2
    if how == "declared":
        raise Odd(n=3)
    if how == "exit":
        sys.exit(4)
    if how == "item":
        yield {{"a": [1, object()]}}
    if how == "large":
        yield bytes(200_000)
    if how == "exception":
        raise ValueError("three")
    yield "never"

@synapse.handler
{a}def stubborn():
    try:
        while True:
            yield 1
    finally:
        yield 2

@synapse.handler
{a}def breaks_at_its_end():
    try:
        while True:
            yield 1
    finally:
        raise ValueError("at its end")

@synapse.handler
{a}def tell():
    told = list(seen)
    seen.clear()
    return told

@synapse.handler(stream=True)
{a}def returned(what: str):
    if what == "list":
        return [1, 2, 3]
    if what == "generator":
        return (n for n in range(3))
    if what == "asynchronous":
        async def numbers():
            for n in range(3):
                yield n
                await asyncio.sleep(0)
        return numbers()
    if what == "raises":
        raise ValueError("before the first")
    return 7
"""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def worker(kept: Any, kind: str) -> Iterator[Worker]:
    welcome, a, _, more = KINDS[kind]
    source = MODULE.format(a=a, more=more)
    with kept(source, {"maxFrameSize": 150_000, **welcome}) as worker:
        # What others have left.
        worker.value("tell")
        yield worker


def test_items_arrive_in_order_and_then_the_end(worker: Worker) -> None:
    for n in (0, 1, 64, 65, 1000):
        items, end = worker.items(worker.stream("count", {"n": n}))
        assert items == list(range(n))
        assert (end.kind, end.payload) == (SUCCESS, None)


def test_no_more_items_come_than_were_granted(worker: Worker) -> None:
    id = worker.stream("forever", granted=3)
    assert worker.take(id, 3) == [0, 1, 2]
    # It holds up nobody, and makes nothing more meanwhile.
    worker.ping()
    assert worker.value("tell") == []
    worker.credit(id, 1)
    worker.credit(id, 2)
    assert worker.take(id, 3) == [3, 4, 5]
    worker.ping()
    worker.cancel(id)
    assert worker.items(id)[1].kind == INTERRUPTED


def test_no_more_bytes_are_under_way_than_a_mebibyte(worker: Worker) -> None:
    size = 100_000
    item = len(encode(bytes(size)))
    id = worker.stream("forever", {"size": size}, granted=1000)
    fit = (1 << 20) // item
    assert len(worker.take(id, fit)) == fit
    worker.ping()
    # Two are acknowledged, so that two more fit.
    worker.credit(id, 2)
    assert len(worker.take(id, 2)) == 2
    worker.ping()
    worker.cancel(id)
    assert worker.items(id) == ([], worker_end(id))


def worker_end(id: int) -> object:
    return (INTERRUPTED, id, None, None)


def test_one_item_may_be_larger_than_all_that_may_be_under_way(start: Start, kind: str) -> None:
    welcome, a, _, more = KINDS[kind]
    worker = start(MODULE.format(a=a, more=more), welcome=welcome)
    id = worker.stream("forever", {"size": 3 << 20})
    for _ in range(3):
        assert [len(each) for each in worker.take(id, 1)] == [3 << 20]
        worker.ping()
        worker.credit(id, 1)
    worker.cancel(id)
    assert worker.items(id)[1].kind == INTERRUPTED


def test_a_cancel_closes_a_generator_that_waits_for_credit(worker: Worker) -> None:
    id = worker.stream("forever", granted=2)
    worker.take(id, 2)
    worker.cancel(id)
    assert worker.items(id) == ([], worker_end(id))
    assert worker.value("tell") == ["closed"]


def test_a_cancel_closes_a_generator_that_runs(worker: Worker) -> None:
    id = worker.stream("forever", granted=1_000_000_000)
    worker.receive()
    worker.cancel(id)
    _, end = worker.items(id, credit=False)
    assert end.kind == INTERRUPTED
    assert worker.value("tell") == ["closed"]


def test_a_cancel_that_comes_with_the_request_ends_the_stream_once(worker: Worker) -> None:
    meta = encode({"method": "forever", "stream": 4})
    for id in range(1, 101):
        worker.send(frame(1, id, encode({}), meta) + frame(CANCEL, id))
    ends = []
    while len(ends) < 100:
        got = worker.receive()
        if got.kind != CHUNK:
            assert got.kind == INTERRUPTED
            ends.append(got.id)
    assert sorted(ends) == list(range(1, 101))
    worker.ping()


def test_cancels_at_any_moment_leave_one_end_each(worker: Worker) -> None:
    ends = []
    for id in range(1, 301):
        worker.stream("count", {"n": 3 + id % 140}, id=id)
        for _ in range(id % 3):
            got = worker.receive()
            if got.kind == CHUNK:
                worker.credit(got.id, len(got.payload))
            else:
                ends.append(got)
        worker.cancel(id)
    while len(ends) < 300:
        got = worker.receive()
        if got.kind != CHUNK:
            ends.append(got)
    assert sorted(each.id for each in ends) == list(range(1, 301))
    assert {each.kind for each in ends} <= {SUCCESS, INTERRUPTED}
    worker.ping()


def test_a_failure_comes_after_the_items_before_it(worker: Worker) -> None:
    items, end = worker.items(worker.stream("fails", {"how": "declared"}))
    assert (items, end.kind) == ([1, 2], FAIL)
    assert end.payload == {"_tag": "Odd", "message": "Odd", "n": 3}
    items, end = worker.items(worker.stream("fails", {"how": "exception"}))
    assert (items, end.kind, end.payload["message"]) == ([1, 2], DIE, "three")
    assert [each["function"].rpartition(".")[2] for each in end.payload["frames"]] == ["fails"]
    items, end = worker.items(worker.stream("fails", {"how": "exit"}))
    assert (items, end.payload["type"]) == ([1, 2], "SystemExit")


def test_an_item_that_cannot_be_sent_ends_the_stream(worker: Worker) -> None:
    items, end = worker.items(worker.stream("fails", {"how": "item"}))
    assert (items, end.meta) == ([1, 2], {"reason": "EncodeFailed"})
    assert end.payload == {"path": "$[2].a[1]", "issue": "cannot carry a `object`"}
    items, end = worker.items(worker.stream("fails", {"how": "large"}))
    assert (items, end.meta) == ([1, 2], {"reason": "FrameTooLarge"})
    assert end.payload == {"size": 8 + 1 + 5 + 200_000, "limit": 150_000}


def test_chunks_fit_the_frames_that_the_host_takes(start: Start, kind: str) -> None:
    welcome, a, _, more = KINDS[kind]
    source = MODULE.format(a=a, more=more)
    worker = start(source, welcome={"maxFrameSize": 300, **welcome})
    id = worker.stream("forever", {"size": 100}, granted=10)
    assert len(worker.take(id, 10)) == 10
    worker.cancel(id)
    worker.items(id)


@pytest.mark.parametrize("name", ["stubborn", "breaks_at_its_end"])
def test_a_generator_that_does_not_end_well_is_interrupted_all_the_same(
    worker: Worker, name: str
) -> None:
    id = worker.stream(name, granted=2)
    worker.take(id, 2)
    worker.cancel(id)
    assert worker.items(id) == ([], worker_end(id))
    assert worker.items(worker.stream("count", {"n": 1}))[0] == [0]
    assert any("failed while it was closed" in log["message"] for log in worker.logs)


def test_a_cancel_after_the_end_is_ignored(worker: Worker) -> None:
    id = worker.stream("count", {"n": 1})
    worker.items(id)
    worker.cancel(id)
    worker.credit(id, 5)
    worker.ping()


def test_a_stream_whose_deadline_has_passed_does_not_start(worker: Worker) -> None:
    id = worker.stream("count", {"n": 3}, deadline=0)
    assert worker.items(id) == ([], worker_end(id))


def test_arguments_of_a_stream_are_checked(worker: Worker) -> None:
    items, end = worker.items(worker.stream("count", {"n": "x"}))
    assert (items, end.meta) == ([], {"reason": "DecodeFailed", "delivery": "rejected"})


def test_a_handler_may_return_what_it_streams(worker: Worker, kind: str) -> None:
    assert worker.items(worker.stream("returned", {"what": "list"}))[0] == [1, 2, 3]
    assert worker.items(worker.stream("returned", {"what": "generator"}))[0] == [0, 1, 2]
    assert worker.items(worker.stream("returned", {"what": "asynchronous"}))[0] == [0, 1, 2]
    _, end = worker.items(worker.stream("returned", {"what": "raises"}))
    assert end.payload["message"] == "before the first"
    _, end = worker.items(worker.stream("returned", {"what": "number"}))
    assert end.payload["message"].endswith("streams what it returns, and that is `int`")


def test_an_endless_stream_delays_no_other_call(worker: Worker) -> None:
    endless = worker.stream("forever", granted=1_000_000_000)
    worker.receive()
    ends = {}
    done = worker.request("tell")
    stream = worker.stream("count", {"n": 3}, granted=1)
    while len(ends) < 2:
        got = worker.receive()
        if got.id == stream and got.kind == CHUNK:
            worker.credit(stream, 1)
        elif got.id != endless:
            ends[got.id] = got.kind
    assert ends == {done: SUCCESS, stream: SUCCESS}
    worker.send(frame(12, 5))
    while (got := worker.receive()).kind == CHUNK:
        pass
    assert got.kind == PONG
    worker.cancel(endless)
    assert worker.items(endless, credit=False)[1].kind == INTERRUPTED


def test_a_slow_stream_delays_no_other_call(worker: Worker) -> None:
    """With room for years."""
    id = worker.stream("slowly", granted=1_000_000)
    worker.receive()
    other = worker.request("tell")
    worker.send(frame(12, 5))
    got = {}
    while len(got) < 2:
        each = worker.receive()
        if each.kind != CHUNK:
            got[each.id] = each.kind
    assert got == {other: SUCCESS, 5: PONG}
    worker.cancel(id)
    assert worker.items(id, credit=False)[1].kind == INTERRUPTED


def test_stalled_streams_delay_no_other_call(worker: Worker) -> None:
    stalled = [worker.stream("forever", granted=1) for _ in range(20)]
    for _ in stalled:
        assert worker.receive().kind == CHUNK
    assert worker.value("tell") == []
    assert worker.items(worker.stream("count", {"n": 200}))[0] == list(range(200))
    for id in stalled:
        worker.cancel(id)
    assert {worker.receive().kind for _ in stalled} == {INTERRUPTED}


def test_memory_stays_flat_where_nobody_consumes(start: Start, kind: str) -> None:
    welcome, a, _, more = KINDS[kind]
    worker = start(MODULE.format(a=a, more=more), welcome=welcome)
    before = rss(worker)
    ids = [worker.stream("forever", {"size": 60_000}, granted=100_000) for _ in range(4)]
    for _ in range(4 * 17):
        assert worker.receive().kind == CHUNK
    worker.ping()
    assert rss(worker) - before < 40 << 20
    for id in ids:
        worker.cancel(id)
    for _ in ids:
        assert worker.receive().kind == INTERRUPTED


def rss(worker: Worker) -> int:
    pages = Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def test_an_item_does_not_wait_for_the_next_one(start: Start, tmp_path: Path, kind: str) -> None:
    gate = Gate(tmp_path)
    welcome, a, _, more = KINDS[kind]
    worker = start(
        f"""
import os
import synapse
{more}
@synapse.handler
{a}def slow():
    for n in range(5):
        yield n
    # Nothing that is asynchronous: the loop stands still as well.
    with open(os.environ["BEGUN"], "w"):
        pass
    with open(os.environ["LET_GO"]):
        pass
    yield 5
""",
        welcome=welcome,
        env=gate.env,
    )
    id = worker.stream("slow")
    gate.wait()
    assert worker.take(id, 5) == [0, 1, 2, 3, 4]
    gate.open()
    assert worker.items(id)[0] == [5]


def test_what_is_ready_together_leaves_together(worker: Worker) -> None:
    worker.stream("count", {"n": 50_000}, granted=100_000)
    chunks = 0
    while (got := worker.receive()).kind == CHUNK:
        chunks += 1
    assert got.kind == SUCCESS
    assert chunks < 5_000


def test_all_steps_of_a_stream_see_one_context(start: Start, kind: str) -> None:
    welcome, a, _, more = KINDS[kind]
    worker = start(
        f"""
import contextvars
import synapse
{more}
steps = contextvars.ContextVar("steps", default=0)

@synapse.handler
{a}def main():
    for _ in range(4):
        steps.set(steps.get() + 1)
        yield [steps.get(), synapse.context().call_id]
""",
        welcome=welcome,
    )
    one, two = worker.stream("main", granted=1), worker.stream("main", granted=1)
    seen: dict[int, list[object]] = {one: [], two: []}
    ends = 0
    while ends < 2:
        got = worker.receive()
        if got.kind == CHUNK:
            seen[got.id] += got.payload
            worker.credit(got.id, 1)
        else:
            ends += 1
    assert seen == {id: [[n, id] for n in range(1, 5)] for id in (one, two)}


def test_an_asynchronous_generator_may_wait_at_its_end(start: Start) -> None:
    worker = start("""
        import asyncio
        import synapse

        seen = []

        @synapse.handler
        async def main():
            try:
                while True:
                    yield 1
                    await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0.01)
                seen.append("closed")

        @synapse.handler
        async def waits():
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                seen.append("closed")

        @synapse.handler
        async def tell():
            return len(seen)
    """)
    ended = 0
    for name in ("main", "waits"):
        for granted in (1, 64):
            id = worker.stream(name, granted=granted)
            worker.receive()
            # Told twice, it is closed once.
            worker.cancel(id)
            worker.cancel(id)
            assert worker.items(id, credit=False)[1].kind == INTERRUPTED
            ended += 1
            assert worker.value("tell") == ended


def test_a_generator_that_swallows_its_cancellation_is_closed(start: Start) -> None:
    worker = start("""
        import asyncio
        import synapse

        @synapse.handler
        async def main():
            while True:
                try:
                    yield 1
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    pass
    """)
    id = worker.stream("main")
    worker.take(id, 1)
    worker.cancel(id)
    assert worker.items(id) == ([], worker_end(id))


def test_many_streams_at_once(worker: Worker) -> None:
    ids = [worker.stream("count", {"n": 500}, granted=7) for _ in range(40)]
    seen: dict[int, list[int]] = {id: [] for id in ids}
    open_ids = set(ids)
    while open_ids:
        got = worker.receive()
        if got.kind == CHUNK:
            seen[got.id] += got.payload
            worker.credit(got.id, len(got.payload))
        else:
            assert got.kind == SUCCESS
            open_ids.remove(got.id)
    assert all(items == list(range(500)) for items in seen.values())


def test_a_shutdown_finishes_streams_or_closes_them(worker: Worker) -> None:
    id = worker.stream("count", {"n": 100}, granted=1)
    endless = worker.stream("forever", granted=1)
    ends = {}
    asked = False
    while len(ends) < 2:
        got = worker.receive()
        if got.kind != CHUNK:
            ends[got.id] = got.kind
            continue
        if got.id == id:
            worker.credit(id, 1)
        if not asked:
            asked = True
            worker.send(frame(15, 0, encode(300)))
    assert ends == {id: SUCCESS, endless: INTERRUPTED}
    assert worker.wait() == 0


@pytest.mark.parametrize("granted", [0, -1, "x", True, 1.5])
def test_a_stream_that_grants_nothing_breaks_the_protocol(start: Start, granted: object) -> None:
    worker = start(MODULE.format(a="", more=""))
    worker.request("count", {"n": 1}, stream=granted)
    assert worker.wait() == 76


def test_the_worker_reads_while_its_writes_wait(worker: Worker) -> None:
    """Nothing is taken for a while, with credit that would fill any buffer."""
    id = worker.stream("forever", {"size": 50_000}, granted=100_000)
    sent = threading.Event()

    def credit() -> None:
        for _ in range(100):
            worker.credit(id, 10)
        sent.set()

    threading.Thread(target=credit, daemon=True).start()
    assert sent.wait(20)
    worker.cancel(id)
    assert worker.items(id, credit=False)[1].kind == INTERRUPTED


def test_values_of_every_codec_are_streamed(codec: object) -> None:
    from synapse._answers import Answers
    from synapse._outgoing import OutStream

    frames: list[bytes] = []
    stream = OutStream(7, 100_000, 1 << 24, frames.append)  # type: ignore[arg-type]
    answers = Answers(codec)  # type: ignore[arg-type]
    for size in (3, 20, 70_000):
        values = [{"n": n} for n in range(size)]
        for index, value in enumerate(values):
            if not stream.has_room:
                stream.credit(1000)
            stream.put(answers.item(7, index, value, stream.max_item))
        stream.flush()
        got = [item for each in frames for item in decode(b"".join([each[12:]]))]
        assert got == values
        frames.clear()
        stream.credit(size)


def test_nothing_overtakes_items_that_another_thread_sends() -> None:
    from synapse._outgoing import OutStream

    sent: list[object] = []
    makers: list[threading.Thread] = []

    def end() -> None:
        # What the maker does at the end of its items.
        stream.flush()
        sent.append("end")

    def post(chunk: object) -> None:
        maker = threading.Thread(target=end)
        makers.append(maker)
        maker.start()
        maker.join(0.05)
        sent.append(chunk)

    stream = OutStream(7, 10, 1 << 20, post)
    stream.put(encode("item"))
    stream.flush()
    makers[0].join()
    assert sent == [frame(CHUNK, 7, encode(["item"])), "end"]


def test_what_made_a_stream_goes_with_its_end(start: Start) -> None:
    worker = start(
        """
        import gc, weakref
        import synapse

        gc.disable()
        alive = weakref.WeakSet()

        class Items:
            def __init__(self):
                alive.add(self)
                self.left = 3

            def __iter__(self):
                return self

            def __next__(self):
                if self.left == 0:
                    raise StopIteration
                self.left -= 1
                return self.left

        @synapse.handler(stream=True)
        def items():
            return Items()

        @synapse.handler(stream=True)
        async def later():
            return Items()

        @synapse.handler
        def count():
            return len(alive)
        """
    )
    for method in ("items", "later") * 3:
        assert worker.items(worker.stream(method))[0] == [2, 1, 0]
    id = worker.stream("items", granted=1)
    assert worker.take(id, 1) == [2]
    worker.cancel(id)
    assert worker.receive()[:2] == (INTERRUPTED, id)
    assert worker.value("count") == 0
