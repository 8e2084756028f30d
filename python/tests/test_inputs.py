from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from wire import CANCEL, CREDIT, DIE, FAIL, INTERRUPTED, SUCCESS, Got, Worker, frame

Start = Callable[..., Worker]

SOURCE = """
import asyncio, dataclasses, sys, typing
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
import synapse

@dataclasses.dataclass
class Row:
    id: int
    name: str = ""

@synapse.handler
def typed(rows: Iterator[Row], scale: int = 1):
    return [[type(row).__name__, row.id * scale] for row in rows]

@synapse.handler
def iterable(rows: Iterable[Row]):
    return [row.id for row in rows]

@synapse.handler
async def asynchronous(rows: AsyncIterator[Row]):
    return [row.id async for row in rows]

@synapse.handler
async def async_iterable(rows: AsyncIterable[int]):
    return [row async for row in rows]

@synapse.handler
def named(rows: synapse.Stream[Row]):
    with rows:
        return [row.id for row in rows]

@synapse.handler
def untyped(payload):
    return [type(payload["rows"]).__name__, list(payload["rows"])]

@synapse.handler
def all_of_it(rows: Iterator[int], /):
    return list(rows)

@synapse.handler
def echo(rows: Iterator[int]):
    for row in rows:
        yield row * 2

@synapse.handler
async def echo_async(rows: AsyncIterator[int]):
    async for row in rows:
        yield row * 2

@synapse.handler
def two(a: Iterator[int], b: Iterator[int]):
    return [x + y for x, y in zip(a, b)]

@synapse.handler
def first(rows: Iterator[int]):
    return next(rows)

@synapse.handler
def nothing(rows: Iterator[int]):
    return "nothing"

@synapse.handler
def wrong(rows: list[int]):
    return rows

kept = []

@synapse.handler
def keep(rows: Iterator[int]):
    kept.append(rows)
    return next(rows)

@synapse.handler
def use_kept():
    try:
        return next(kept[0])
    except synapse.HostCallFailed as error:
        return [error.reason, str(error)]

@synapse.handler
def catches(rows: Iterator[int]):
    try:
        return list(rows)
    except synapse.HostError as error:
        return [error.tag, error.error]
"""


def source(number: int) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(2, number.to_bytes(4, "little"))


@pytest.fixture(params=["msgspec", "msgpack", "python"])
def worker(request: pytest.FixtureRequest, kept: Callable[..., Any]) -> Iterator[Worker]:
    """A worker with each codec: the others are found where the better ones are not installed."""
    better = {"msgspec": [], "msgpack": ["msgspec"], "python": ["msgspec", "msgpack"]}
    launcher = None
    if better[request.param]:
        hidden = ", ".join(f"{name!r}: None" for name in better[request.param])
        from wire import MAIN

        code = (
            f"import sys, runpy; sys.modules.update({{{hidden}}});"
            f"sys.argv[0] = {str(MAIN)!r}; runpy.run_path({str(MAIN)!r}, run_name='__main__')"
        )
        launcher = ["-c", code]
    with kept(SOURCE, {}, launcher=launcher) as worker:
        assert worker.hello["codec"] == request.param
        yield worker


def feed(worker: Worker, *chunks: list[Any], end: int = SUCCESS, value: Any = None) -> Got:
    """Answer the request for a stream; returns that."""
    asked = worker.asked()
    for chunk in chunks:
        worker.chunk(asked.id, *chunk)
    worker.answer(asked.id, value, end)
    return asked


def end_of(worker: Worker) -> Got:
    """The next frame that ends a call of ours."""
    # A stream whose end has not been met is given up with the call.
    while (got := worker.receive()).kind in (CREDIT, CANCEL):
        pass
    return got


ROWS = [{"id": 1, "name": "a"}, {"id": 2}]


@pytest.mark.parametrize(
    ("method", "items", "result"),
    [
        ("typed", ROWS, [["Row", 1], ["Row", 2]]),
        ("iterable", ROWS, [1, 2]),
        ("asynchronous", ROWS, [1, 2]),
        ("async_iterable", [1, 2], [1, 2]),
        ("named", ROWS, [1, 2]),
        ("untyped", [1, "x"], ["Stream", [1, "x"]]),
    ],
)
def test_an_argument_streams(worker: Worker, method: str, items: list[Any], result: Any) -> None:
    id = worker.request(method, {"rows": source(9)})
    asked = feed(worker, items[:1], items[1:])
    assert asked.meta == {"source": 9, "stream": 64, "call": id}
    assert asked.payload is None
    got = end_of(worker)
    assert (got.kind, got.id, got.payload) == (SUCCESS, id, result)


def test_it_may_be_all_of_the_input(worker: Worker) -> None:
    worker.request("all_of_it", source(1))
    feed(worker, [1, 2, 3])
    assert end_of(worker).payload == [1, 2, 3]


def test_other_arguments_come_with_it(worker: Worker) -> None:
    worker.request("typed", {"scale": 10, "rows": source(1)})
    feed(worker, ROWS)
    assert end_of(worker).payload == [["Row", 10], ["Row", 20]]


def test_a_list_is_iterated_over_as_well(worker: Worker) -> None:
    assert worker.value("iterable", {"rows": ROWS}) == [1, 2]
    assert worker.value("typed", {"rows": ROWS}) == [["Row", 1], ["Row", 2]]
    got = worker.call("asynchronous", {"rows": ROWS})
    assert got.payload == {"path": "$.rows", "issue": "Expected `stream`, got `array`"}


def test_two_arguments_stream_at_once(worker: Worker) -> None:
    worker.request("two", {"a": source(1), "b": source(2)})
    first = worker.asked()
    worker.chunk(first.id, 1, 2)
    asked = worker.receive()
    while asked.kind == CREDIT:
        asked = worker.receive()
    assert {first.meta["source"], asked.meta["source"]} == {1, 2}
    worker.chunk(asked.id, 10, 20)
    worker.answer(first.id)
    worker.answer(asked.id)
    assert end_of(worker).payload == [11, 22]


@pytest.mark.parametrize("method", ["echo", "echo_async"])
def test_streams_go_both_ways(worker: Worker, method: str) -> None:
    id = worker.stream(method, {"rows": source(5)}, granted=4)
    asked = worker.asked()
    sent, granted, items = 0, 64, []
    while len(items) < 300:
        while granted and sent < 300:
            worker.chunk(asked.id, sent)
            sent, granted = sent + 1, granted - 1
        got = worker.receive()
        if got.kind == CREDIT:
            assert got.id == asked.id
            granted += got.payload
        else:
            items += got.payload
            worker.credit(id, len(got.payload))
    assert items == [n * 2 for n in range(300)]
    worker.answer(asked.id)
    assert end_of(worker).kind == SUCCESS


def test_an_item_that_does_not_fit_fails_the_call(worker: Worker) -> None:
    id = worker.request("typed", {"rows": source(1)})
    asked = worker.asked()
    worker.chunk(asked.id, {"id": 1}, {"id": "x"}, {"id": 3})
    seen = [worker.receive(), worker.receive()]
    kinds = {each.kind: each for each in seen if each.kind != CREDIT}
    while len(kinds) < 2:
        got = worker.receive()
        kinds[got.kind] = got
    assert kinds[CANCEL].id == asked.id
    assert (kinds[DIE].id, kinds[DIE].meta) == (id, {"reason": "DecodeFailed"})
    assert kinds[DIE].payload == {"path": "$.rows[1].id", "issue": "Expected `int`, got `str`"}


def test_the_place_of_an_item_begins_with_its_parameter(worker: Worker) -> None:
    worker.request("first", {"rows": source(1)})
    asked = worker.asked()
    worker.chunk(asked.id, "x")
    got = worker.receive()
    while got.kind in (CREDIT, CANCEL):
        got = worker.receive()
    assert got.payload == {"path": "$.rows[0]", "issue": "Expected `int`, got `str`"}


def test_a_stream_where_none_is_expected_is_refused(worker: Worker) -> None:
    got = worker.call("wrong", {"rows": source(1)})
    assert got.meta == {"reason": "DecodeFailed", "delivery": "rejected"}
    assert got.payload["path"] == "$.rows"
    assert "array" in got.payload["issue"]


def test_a_failure_of_the_stream_is_seen_by_the_handler(worker: Worker) -> None:
    failure = {"_tag": "Torn", "at": 3}
    worker.request("catches", {"rows": source(1)})
    feed(worker, [1], end=FAIL, value=failure)
    assert end_of(worker).payload == ["Torn", failure]
    worker.request("typed", {"rows": source(1)})
    feed(worker, end=FAIL, value=failure)
    got = end_of(worker)
    assert (got.kind, got.payload) == (FAIL, failure)


def test_what_is_not_consumed_is_cancelled_with_the_end_of_the_call(worker: Worker) -> None:
    id = worker.request("first", {"rows": source(1)})
    asked = worker.asked()
    worker.chunk(asked.id, 7, 8)
    frames = {}
    while len(frames) < 2:
        got = worker.receive()
        if got.kind != CREDIT:
            frames[got.kind] = got
    assert frames[CANCEL].id == asked.id
    assert (frames[SUCCESS].id, frames[SUCCESS].payload) == (id, 7)


def test_what_is_not_asked_for_is_not_requested(worker: Worker) -> None:
    assert worker.value("nothing", {"rows": source(1)}) == "nothing"


def test_a_stream_ends_with_its_call(worker: Worker) -> None:
    worker.request("keep", {"rows": source(1)})
    asked = worker.asked()
    worker.chunk(asked.id, 1, 2)
    frames = {}
    while len(frames) < 2:
        got = worker.receive()
        frames[got.kind] = got
    assert frames[SUCCESS].payload == 1
    reason, said = worker.value("use_kept")
    assert reason == "Closed" and "ended" in said


@pytest.mark.parametrize("method", ["typed", "asynchronous", "named"])
def test_a_cancelled_call_gives_up_its_streams(worker: Worker, method: str) -> None:
    id = worker.request(method, {"rows": source(1)})
    asked = worker.asked()
    worker.cancel(id)
    got = {(each.kind, each.id) for each in (worker.receive(), worker.receive())}
    assert got == {(CANCEL, asked.id), (INTERRUPTED, id)}


@pytest.mark.parametrize("method", ["echo", "echo_async"])
def test_a_cancelled_stream_gives_up_its_streams(worker: Worker, method: str) -> None:
    id = worker.stream(method, {"rows": source(1)}, granted=1)
    asked = worker.asked()
    worker.chunk(asked.id, 1, 2, 3)
    while worker.receive().kind == CREDIT:
        pass
    worker.cancel(id)
    frames = {}
    while len(frames) < 2:
        got = worker.receive()
        if got.kind != CREDIT:
            frames[got.kind] = got.id
    assert frames == {CANCEL: asked.id, INTERRUPTED: id}


def test_a_stream_whose_number_is_malformed_is_refused(worker: Worker) -> None:
    got = worker.call("untyped", {"rows": msgspec.msgpack.Ext(2, b"123")})
    assert got.meta == {"reason": "DecodeFailed", "delivery": "rejected"}


def test_a_stream_cannot_be_returned(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main(payload):
            return payload
    """)
    got = worker.call("main", {"rows": source(1)})
    assert got.meta == {"reason": "EncodeFailed"}
    assert got.payload == {"path": "$.rows", "issue": "cannot carry a `Stream`"}


@pytest.mark.parametrize("concurrency", [1, 2])
def test_threads_share_a_stream(start: Start, concurrency: int) -> None:
    worker = start(
        """
        import threading
        from collections.abc import Iterator
        import synapse

        @synapse.handler
        def main(rows: Iterator[int]):
            found = []
            threads = [threading.Thread(target=lambda: found.extend(rows)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return sorted(found)
        """,
        welcome={"concurrency": concurrency},
    )
    for _ in range(5):
        worker.request("main", {"rows": source(1)})
        feed(worker, *([n] for n in range(60)))
        assert end_of(worker).payload == list(range(60))


def test_tasks_share_a_stream(start: Start) -> None:
    worker = start("""
        import asyncio
        from collections.abc import AsyncIterator
        import synapse

        @synapse.handler
        async def main(rows: AsyncIterator[int]):
            async def read():
                return [row async for row in rows]
            return sorted(sum(await asyncio.gather(*(read() for _ in range(4))), []))
    """)
    worker.request("main", {"rows": source(1)})
    feed(worker, *([n] for n in range(60)))
    assert end_of(worker).payload == list(range(60))


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_stream_that_another_thread_closes_ends(start: Start, concurrency: int) -> None:
    worker = start(
        """
        import threading
        import synapse

        @synapse.handler
        def main(**streams: synapse.Stream[int]):
            found = []
            threads = [
                threading.Thread(target=found.extend, args=(each,)) for each in streams.values()
            ]
            for thread in threads:
                thread.start()
            synapse.host.call_sync("read")
            for each in streams.values():
                each.close()
            for thread in threads:
                thread.join()
            return found
        """,
        welcome={"concurrency": concurrency},
    )
    id = worker.request("main", {name: source(n) for n, name in enumerate("abcd", 1)})
    asked = [worker.asked() for _ in range(5)]
    worker.ping()
    worker.answer(next(each.id for each in asked if "method" in each.meta))
    cancelled = [worker.receive() for _ in range(4)]
    worker.send(b"".join(frame(INTERRUPTED, each.id) for each in cancelled))
    assert end_of(worker).id == id
