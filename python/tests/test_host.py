from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_calls import Gate
from wire import (
    CANCEL,
    CHUNK,
    CREDIT,
    DIE,
    FAIL,
    INTERRUPTED,
    REQUEST,
    SUCCESS,
    Got,
    Worker,
    encode,
    frame,
)

Start = Callable[..., Worker]

SYNC = """
import asyncio, os, threading, typing
import synapse
from synapse import host

class NotFound(synapse.HostError):
    id: int

class Own(synapse.Error):
    n: int

def described(error):
    return {
        "type": type(error).__name__,
        "message": str(error),
        "reason": getattr(error, "reason", None),
        "tag": getattr(error, "tag", None),
        "error": getattr(error, "error", None),
    }

@synapse.handler
def ask(name: str, value=None):
    return host.call_sync(name, value)

@synapse.handler
def tell_failure(name: str):
    try:
        return host.call_sync(name)
    except (Exception, synapse.Cancelled) as error:
        return described(error)

@synapse.handler
def total(name: str):
    return sum(host.stream(name))

@synapse.handler
def first(name: str):
    with host.stream(name) as items:
        for item in items:
            return item

@synapse.handler
def leaves_open(name: str):
    return next(host.stream(name))

@synapse.handler
def add(a: int, b: int):
    return a + b

@synapse.handler
def numbers(n: int):
    for each in range(n):
        yield host.call_sync("number", each)

@synapse.handler
def in_thread(name: str):
    results = []
    def work():
        results.append(host.call_sync(name))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads: each.start()
    for each in threads: each.join()
    return results
"""

ASYNC = """
import asyncio, os, threading, typing
import synapse
from synapse import host

class NotFound(synapse.HostError):
    id: int

class Own(synapse.Error):
    n: int

def described(error):
    return {
        "type": type(error).__name__,
        "message": str(error),
        "reason": getattr(error, "reason", None),
        "tag": getattr(error, "tag", None),
        "error": getattr(error, "error", None),
    }

@synapse.handler
async def ask(name: str, value=None):
    return await host.call(name, value)

@synapse.handler
async def tell_failure(name: str):
    try:
        return await host.call(name)
    except Exception as error:
        return described(error)

@synapse.handler
async def total(name: str):
    return sum([item async for item in host.stream(name)])

@synapse.handler
async def first(name: str):
    async with host.stream(name) as items:
        async for item in items:
            return item

@synapse.handler
async def leaves_open(name: str):
    return await anext(host.stream(name))

@synapse.handler
async def add(a: int, b: int):
    return a + b

@synapse.handler
async def numbers(n: int):
    for each in range(n):
        yield await host.call("number", each)

@synapse.handler
async def in_thread(name: str):
    return await asyncio.gather(*(asyncio.to_thread(host.call_sync, name) for _ in range(4)))
"""

BESIDE = """
@synapse.handler
def beside(): return "beside"
"""

KINDS: dict[str, tuple[str, dict[str, int]]] = {
    "main": (SYNC, {}),
    "pool": (SYNC, {"concurrency": 3}),
    "loop": (ASYNC, {}),
    "mixed": (ASYNC + BESIDE, {}),
    "mixed pool": (ASYNC + BESIDE, {"concurrency": 2}),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def worker(kept: Callable[..., Any], kind: str) -> Iterator[Worker]:
    source, welcome = KINDS[kind]
    with kept(source, welcome) as worker:
        yield worker


def test_a_host_function_is_called_within_a_handler(worker: Worker) -> None:
    id = worker.request("ask", {"name": "double", "value": {"n": [1]}})
    asked = worker.asked("double")
    assert asked.meta == {"method": "double", "call": id}
    assert asked.payload == {"n": [1]}
    worker.answer(asked.id, {"n": [2]})
    got = worker.receive()
    assert (got.kind, got.id, got.payload) == (SUCCESS, id, {"n": [2]})


def test_deadline_and_trace_are_passed_on(worker: Worker) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    worker.request("ask", {"name": "f"}, deadline=60_000, trace=trace)
    asked = worker.asked("f")
    assert asked.meta["trace"] == trace
    assert 0 < asked.meta["deadline"] <= 60_000
    worker.answer(asked.id)
    assert worker.receive().kind == SUCCESS


def test_a_declared_failure_is_an_exception_of_its_class(worker: Worker) -> None:
    worker.request("tell_failure", {"name": "f"})
    failure = {"_tag": "NotFound", "message": "no such user", "id": 7}
    worker.answer(worker.asked().id, failure, FAIL)
    assert worker.receive().payload == {
        "type": "NotFound",
        "message": "no such user",
        "reason": None,
        "tag": "NotFound",
        "error": failure,
    }
    # One that has no class, one that does not fit its class, and one that is no object.
    for failure in ({"_tag": "Other", "n": 1}, {"_tag": "NotFound", "id": "x"}, [1, "two"]):
        worker.request("tell_failure", {"name": "f"})
        worker.answer(worker.asked().id, failure, FAIL)
        got = worker.receive().payload
        assert (got["type"], got["error"]) == ("HostError", failure)


@pytest.mark.parametrize("failure", [{"_tag": "NotFound", "id": 1, "more": [2]}, "text", None])
def test_a_failure_that_leaves_the_handler_goes_back_as_it_came(
    worker: Worker, failure: Any
) -> None:
    worker.request("ask", {"name": "f"})
    worker.answer(worker.asked().id, failure, FAIL)
    got = worker.receive()
    assert (got.kind, got.payload) == (FAIL, failure)


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        ((DIE, {"reason": "MethodNotFound"}, {"method": "f", "nearest": ["g"]}), None, "`g`"),
        ((DIE, {"reason": "MethodNotFound"}, {"method": "f", "nearest": []}), None, "`host`"),
        ((DIE, {"reason": "DecodeFailed"}, {"path": "$.a", "issue": "no"}), None, "no (at $.a)"),
        ((DIE, {"reason": "Unsupported"}, {"detail": "a stream"}), None, "`f`: a stream"),
        ((DIE, {"reason": "Overloaded", "delivery": "rejected"}, {"capacity": 3}), None, "3"),
        ((DIE, {}, {"type": "TypeError", "message": "x is undefined"}), "Exception", "undefined"),
        ((INTERRUPTED, {}, None), "Interrupted", "interrupted"),
    ],
)
def test_everything_else_is_one_exception(
    worker: Worker, answer: tuple[int, dict[str, Any], Any], reason: str | None, says: str
) -> None:
    kind, meta, payload = answer
    worker.request("tell_failure", {"name": "f"})
    worker.answer(worker.asked().id, payload, kind, **meta)
    got = worker.receive().payload
    assert (got["type"], got["reason"]) == ("HostCallFailed", reason or meta["reason"])
    assert "`f`" in got["message"] and says in got["message"]


def test_an_answer_that_does_not_decode_fails_its_call_alone(worker: Worker) -> None:
    worker.request("tell_failure", {"name": "f"})
    worker.send(frame(SUCCESS, worker.asked().id, b"\xc1"))
    assert worker.receive().payload["reason"] == "DecodeFailed"
    worker.ping()


def test_what_cannot_be_sent_is_not(start: Start) -> None:
    worker = start(
        """
        import synapse

        @synapse.handler
        def main(large: bool):
            try:
                synapse.host.call_sync("f", a=[bytes(200_000) if large else object()])
            except synapse.HostCallFailed as error:
                return [error.reason, str(error)]
        """,
        welcome={"maxFrameSize": 100_000},
    )
    reason, said = worker.value("main", {"large": False})
    assert reason == "EncodeFailed" and "$.a[0]" in said
    assert worker.value("main", {"large": True})[0] == "FrameTooLarge"


def test_the_deadline_of_the_call_is_a_timeout(worker: Worker) -> None:
    worker.request("tell_failure", {"name": "f"}, deadline=1)
    got = worker.receive()
    if got.kind == REQUEST:
        # Interrupted by the host, when its time is over there.
        threading.Event().wait(0.05)
        worker.send(frame(INTERRUPTED, got.id))
        got = worker.receive()
        # A `TimeoutError`, as the next test sees.
        assert got.payload["type"] == "DeadlinePassed"
    else:
        # It was over before the call began.
        assert got.kind == INTERRUPTED or got.payload["type"] == "DeadlinePassed"


def test_a_deadline_that_passes_in_a_host_function_ends_the_call_as_one(
    start: Callable[..., Worker],
) -> None:
    worker = start(
        """
        import synapse

        @synapse.handler
        async def ask():
            return await synapse.host.call("f")

        @synapse.handler
        def catch():
            try:
                synapse.host.call_sync("f")
            except TimeoutError as error:
                return str(error)
        """
    )
    for method in ("ask", "catch"):
        id = worker.request(method, {}, deadline=100)
        asked = worker.asked("f")
        threading.Event().wait(0.12)
        worker.send(frame(INTERRUPTED, asked.id))
        got = worker.receive()
        if method == "ask":
            assert (got.kind, got.id) == (INTERRUPTED, id)
        else:
            assert got.kind == SUCCESS and "deadline" in got.payload


def test_a_cancelled_call_gives_up_what_it_asked_for(worker: Worker) -> None:
    id = worker.request("ask", {"name": "f"})
    asked = worker.asked("f")
    worker.cancel(id)
    got = {(each.kind, each.id) for each in (worker.receive(), worker.receive())}
    assert got == {(CANCEL, asked.id), (INTERRUPTED, id)}
    # The answer comes all the same, and its number is free from then on only.
    other = worker.request("ask", {"name": "g"})
    second = worker.asked("g")
    assert second.id != asked.id
    worker.answer(asked.id, "late")
    worker.answer(second.id, "in time")
    assert worker.receive().payload == "in time"
    assert other != id


def test_a_stream_is_consumed_with_credit(worker: Worker) -> None:
    worker.request("total", {"name": "numbers"})
    asked = worker.asked("numbers")
    assert asked.meta["stream"] == 64
    sent, granted = 0, 64
    while sent < 1000:
        count = min(granted, 1000 - sent, 10)
        worker.chunk(asked.id, *range(sent, sent + count))
        sent += count
        granted -= count
        while granted == 0 and sent < 1000:
            got = worker.receive()
            assert (got.kind, got.id) == (CREDIT, asked.id)
            granted += got.payload
    worker.answer(asked.id)
    got = worker.receive()
    while got.kind == CREDIT:
        granted += got.payload
        got = worker.receive()
    assert (got.kind, got.payload) == (SUCCESS, sum(range(1000)))
    assert granted <= 64


def test_what_was_consumed_is_owed_once_nothing_is_left(worker: Worker) -> None:
    worker.request("total", {"name": "f"})
    asked = worker.asked()
    for n in range(5):
        worker.chunk(asked.id, n)
        got = worker.receive()
        assert (got.kind, got.payload) == (CREDIT, 1)
    worker.answer(asked.id)
    assert worker.receive().payload == 10


def test_a_stream_that_fails_raises_after_its_items(worker: Worker) -> None:
    worker.request("total", {"name": "f"})
    asked = worker.asked()
    worker.chunk(asked.id, 1, 2)
    worker.answer(asked.id, {"_tag": "NotFound", "id": 3}, FAIL)
    got = worker.receive()
    while got.kind == CREDIT:
        got = worker.receive()
    assert (got.kind, got.payload) == (FAIL, {"_tag": "NotFound", "id": 3})


@pytest.mark.parametrize("name", ["first", "leaves_open"])
def test_a_stream_that_is_left_is_cancelled(worker: Worker, name: str) -> None:
    id = worker.request(name, {"name": "f"})
    asked = worker.asked("f")
    worker.chunk(asked.id, "one", "two")
    frames: dict[int, Got] = {}
    while SUCCESS not in frames or CANCEL not in frames:
        got = worker.receive()
        frames[got.kind] = got
    assert frames[CANCEL].id == asked.id
    assert (frames[SUCCESS].id, frames[SUCCESS].payload) == (id, "one")
    worker.chunk(asked.id, "three")
    worker.answer(asked.id, kind=INTERRUPTED)
    worker.ping()


def test_a_stream_of_a_cancelled_call_is_cancelled(worker: Worker) -> None:
    id = worker.request("total", {"name": "f"})
    asked = worker.asked("f")
    worker.cancel(id)
    got = {(each.kind, each.id) for each in (worker.receive(), worker.receive())}
    assert got == {(CANCEL, asked.id), (INTERRUPTED, id)}


def test_threads_of_a_handler_call_the_host_too(worker: Worker) -> None:
    id = worker.request("in_thread", {"name": "f"})
    asked = [worker.asked("f") for _ in range(4)]
    assert len({each.id for each in asked}) == 4
    for each in reversed(asked):
        worker.answer(each.id, each.id)
    got = worker.receive()
    assert (got.id, sorted(got.payload)) == (id, sorted(each.id for each in asked))


def test_a_function_of_the_host_calls_back(worker: Worker) -> None:
    """With one thread for all of it: the one that waits runs what it waits for."""
    id = worker.request("ask", {"name": "f"})
    asked = worker.asked("f")
    for n in range(3):
        assert worker.value("add", {"a": n, "b": 1}, parent=id) == n + 1
    inner = worker.request("ask", {"name": "g"}, parent=id)
    inner_asked = worker.asked("g")
    assert inner_asked.meta["call"] == inner
    assert worker.value("add", {"a": 1, "b": 1}, parent=inner) == 2
    items, end = worker.items(worker.stream("numbers", {"n": 0}, parent=inner))
    assert (items, end.kind) == ([], SUCCESS)
    # Also while another one of the same function waits.
    assert worker.value("add", {"a": 2, "b": 1}, parent=id) == 3
    worker.answer(inner_asked.id, "inner")
    assert worker.receive().payload == "inner"
    worker.answer(asked.id, "outer")
    assert worker.receive().payload == "outer"


def test_nested_calls_are_not_turned_away_where_there_are_many(start: Start) -> None:
    worker = start(SYNC, welcome={"maxOpenCalls": 1})
    id = worker.request("ask", {"name": "f"})
    asked = worker.asked("f")
    assert worker.value("add", {"a": 1, "b": 1}, parent=id) == 2
    assert worker.call("add", {"a": 1, "b": 1}).meta["reason"] == "Overloaded"
    worker.answer(asked.id, "done")
    assert worker.receive().payload == "done"


def test_a_stream_calls_back_for_each_item(worker: Worker) -> None:
    id = worker.stream("numbers", {"n": 100}, granted=3)
    items: list[int] = []
    while (got := worker.receive()).kind in (REQUEST, CHUNK):
        if got.kind == REQUEST:
            assert got.meta["call"] == id
            worker.answer(got.id, got.payload * 2)
        else:
            items += got.payload
            worker.credit(id, len(got.payload))
    assert (got.kind, items) == (SUCCESS, [n * 2 for n in range(100)])


def test_a_nested_stream_runs_while_its_caller_waits(worker: Worker) -> None:
    outer = worker.request("ask", {"name": "f"})
    asked = worker.asked("f")
    id = worker.stream("numbers", {"n": 40}, granted=2, parent=outer)
    items: list[int] = []
    while (got := worker.receive()).kind in (REQUEST, CHUNK):
        if got.kind == REQUEST:
            worker.answer(got.id, got.payload)
        else:
            items += got.payload
            worker.credit(id, len(got.payload))
    assert (got.kind, items) == (SUCCESS, list(range(40)))
    worker.answer(asked.id, "done")
    assert worker.receive().payload == "done"


def test_a_nested_call_that_came_before_the_wait_is_run_in_it(start: Start, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    worker = start(
        """
        import os
        import synapse

        @synapse.handler
        def main():
            with open(os.environ["BEGUN"], "w"):
                pass
            with open(os.environ["LET_GO"]):
                pass
            return synapse.host.call_sync("f")

        @synapse.handler
        def nested():
            return "nested"
        """,
        env=gate.env,
    )
    id = worker.request("main")
    gate.wait()
    nested = worker.request("nested", parent=id)
    worker.ping()
    gate.open()
    frames = [worker.receive(), worker.receive()]
    assert {each.kind for each in frames} == {REQUEST, SUCCESS}
    answered = next(each for each in frames if each.kind == SUCCESS)
    assert (answered.id, answered.payload) == (nested, "nested")
    worker.answer(next(each for each in frames if each.kind == REQUEST).id, "f")
    assert worker.receive().payload == "f"


def test_a_nested_call_that_comes_with_an_answer_is_run_in_the_next_wait(start: Start) -> None:
    worker = start(
        """
        import synapse

        @synapse.handler
        def main():
            return [synapse.host.call_sync(name) for name in "fgh"]

        @synapse.handler
        def nested():
            return "nested"
        """
    )
    id = worker.request("main")
    asked = worker.asked("f")
    for n, name in enumerate("gh", 100):
        nested = frame(REQUEST, n, encode(None), encode({"method": "nested", "parent": id}))
        worker.send(frame(SUCCESS, asked.id, encode(name)) + nested)
        frames = {each.kind: each for each in (worker.receive(), worker.receive())}
        assert (frames[SUCCESS].id, frames[SUCCESS].payload) == (n, "nested")
        asked = frames[REQUEST]
    worker.answer(asked.id, "end")
    assert worker.receive().payload == ["g", "h", "end"]


def test_a_nested_call_does_not_wait_for_a_thread_that_runs_another(start: Start) -> None:
    worker = start(
        """
        import asyncio, contextvars, os, threading
        import synapse

        def in_thread(function, *arguments):
            run = contextvars.copy_context().run
            thread = threading.Thread(target=run, args=(function, *arguments))
            thread.start()
            return thread

        @synapse.handler
        def main():
            in_thread(synapse.host.call_sync, "outer").join()

        @synapse.handler
        def middle():
            # Asked for in a task: no thread waits for it.
            def ask():
                asyncio.run(synapse.host.call("inner"))
                synapse.host.call_sync("last")
            in_thread(ask).join()

        @synapse.handler
        def leaf():
            return "leaf"
        """
    )
    id = worker.request("main")
    outer = worker.asked("outer")
    middle = worker.request("middle", parent=id)
    inner = worker.asked("inner")
    # Nobody is free to run it: the thread of `main` runs `middle`.
    leaf = worker.request("leaf", parent=middle)
    worker.ping()
    worker.answer(inner.id)
    frames = {each.kind: each for each in (worker.receive(), worker.receive())}
    assert (frames[SUCCESS].id, frames[SUCCESS].payload) == (leaf, "leaf")
    worker.answer(frames[REQUEST].id)
    assert worker.receive().id == middle
    worker.answer(outer.id)
    assert worker.receive().id == id


def test_a_nested_stream_goes_on_in_a_later_wait(start: Start, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    worker = start(
        """
        import os
        import synapse

        @synapse.handler
        def main():
            synapse.host.call_sync("f")
            with open(os.environ["BEGUN"], "w"):
                pass
            with open(os.environ["LET_GO"]):
                pass
            return synapse.host.call_sync("g")

        @synapse.handler
        def nested():
            yield from range(3)
        """,
        env=gate.env,
    )
    id = worker.request("main")
    asked = worker.asked("f")
    nested = worker.stream("nested", granted=1, parent=id)
    assert worker.take(nested, 1) == [0]
    worker.answer(asked.id)
    gate.wait()
    # It is queued, because nobody waits.
    worker.credit(nested, 3)
    worker.ping()
    gate.open()
    frames = [worker.receive() for _ in range(3)]
    assert {each.kind for each in frames} == {REQUEST, CHUNK, SUCCESS}
    assert next(each.payload for each in frames if each.kind == CHUNK) == [1, 2]
    worker.answer(next(each.id for each in frames if each.kind == REQUEST), "g")
    assert worker.receive().payload == "g"


def test_a_nested_call_whose_caller_waits_no_more_is_queued(worker: Worker) -> None:
    id = worker.request("ask", {"name": "f"})
    asked = worker.asked("f")
    nested = worker.stream("numbers", {"n": 3}, granted=1, parent=id)
    inner = worker.asked("number")
    # The function does not wait for what it has called.
    worker.answer(asked.id, "done")
    worker.answer(inner.id, 0)
    items: list[int] = []
    ends: dict[int, Any] = {}
    while len(ends) < 2:
        got = worker.receive()
        if got.kind == REQUEST:
            worker.answer(got.id, got.payload)
        elif got.kind == CHUNK:
            items += got.payload
            worker.credit(nested, 1)
        else:
            ends[got.id] = got.payload
    assert items == [0, 1, 2]
    assert ends == {id: "done", nested: None}


def test_more_requests_than_the_host_takes_wait_in_the_worker(start: Start) -> None:
    worker = start(
        ASYNC
        + """
@synapse.handler
async def many(n: int):
    return await asyncio.gather(*(host.call("f", each) for each in range(n)))
""",
        welcome={"maxOpenCalls": 5},
    )
    worker.request("many", {"n": 17})
    open_requests: list[Got] = []
    answered = 0
    while answered < 17:
        while len(open_requests) < min(5, 17 - answered):
            open_requests.append(worker.asked("f"))
        worker.ping()
        each = open_requests.pop()
        worker.answer(each.id, each.payload)
        answered += 1
    assert worker.receive().payload == list(range(17))


def test_what_the_open_requests_wait_for_does_not_wait_for_them(start: Start) -> None:
    worker = start(
        SYNC
        + """
@synapse.handler
def each():
    for item in host.stream("items"):
        host.call_sync("f", item)
""",
        welcome={"maxOpenCalls": 1},
    )
    outer = worker.request("ask", {"name": "f"})
    asked = worker.asked("f")
    worker.request("ask", {"name": "g"}, parent=outer)
    # The host has the last word.
    refused = worker.asked("g")
    worker.answer(refused.id, {"capacity": 1}, kind=DIE, reason="Overloaded")
    got = worker.receive()
    assert (got.kind, got.payload["type"]) == (DIE, "HostCallFailed")
    worker.answer(asked.id, "done")
    assert worker.receive().payload == "done"
    worker.request("each")
    items = worker.asked("items")
    worker.chunk(items.id, 1)
    assert worker.receive().kind == CREDIT
    worker.answer(worker.asked("f").id, 1)
    worker.answer(items.id)
    assert worker.receive().kind == SUCCESS


def test_what_waits_in_the_worker_is_given_up_there(start: Start) -> None:
    # One request may be open, and the call asks for two things.
    worker = start(
        """
        import asyncio, synapse
        from synapse import host

        @synapse.handler
        async def main():
            one = asyncio.ensure_future(host.call("f"))
            two = asyncio.ensure_future(host.call("g"))
            await asyncio.sleep(0)
            two.cancel()
            return await one
        """,
        welcome={"maxOpenCalls": 1},
    )
    worker.request("main")
    worker.answer(worker.asked("f").id, 1)
    assert worker.receive().payload == 1


def test_background_code_calls_the_host(start: Start) -> None:
    worker = start("""
        import synapse, threading

        @synapse.background(seconds=3600)
        def sync():
            synapse.host.call_sync("report", sum(synapse.host.stream("numbers")))

        @synapse.handler
        def main():
            return 1
    """)
    asked = worker.asked("numbers")
    assert "call" not in asked.meta
    worker.chunk(asked.id, 1, 2, 3)
    worker.answer(asked.id)
    while (got := worker.receive()).kind == CREDIT:
        pass
    assert (got.kind, got.meta, got.payload) == (REQUEST, {"method": "report"}, 6)
    # While it waits, calls are answered.
    assert worker.value("main") == 1
    worker.answer(got.id)
    assert worker.value("main") == 1


def test_tasks_that_outlive_their_call_belong_to_none(start: Start) -> None:
    worker = start("""
        import asyncio, synapse

        tasks = []

        async def later(event):
            await event.wait()
            await synapse.host.call("later")

        @synapse.handler
        async def main():
            event = asyncio.Event()
            tasks.append((asyncio.ensure_future(later(event)), event))

        @synapse.handler
        async def go():
            tasks[0][1].set()
    """)
    worker.value("main")
    worker.request("go")
    frames = {each.kind: each for each in (worker.receive(), worker.receive())}
    assert frames[REQUEST].meta == {"method": "later"}
    worker.answer(frames[REQUEST].id)
    worker.ping()


def test_the_host_cannot_be_called_before_it_has_welcomed_the_worker(start: Start) -> None:
    worker = start("""
        import synapse

        said = []

        def attempt():
            try:
                synapse.host.call_sync("f")
            except RuntimeError as error:
                said.append(str(error))

        attempt()

        @synapse.on_start
        def begin():
            attempt()

        @synapse.handler
        def main():
            return said
    """)
    said = worker.value("main")
    assert len(said) == 2 and all("once the module is imported" in each for each in said)


def test_a_loop_is_not_blocked(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        async def main(how: str):
            try:
                if how == "call":
                    synapse.host.call_sync("f")
                else:
                    next(synapse.host.stream("f"))
            except RuntimeError as error:
                return str(error)
    """)
    assert "await synapse.host.call('f', ...)" in worker.value("main", {"how": "call"})
    assert "async for" in worker.value("main", {"how": "stream"})


def test_a_forked_process_cannot_call_the_host(start: Start) -> None:
    worker = start("""
        import os, synapse

        @synapse.handler
        def main():
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    synapse.host.call_sync("f")
                except RuntimeError as error:
                    os.write(write, str(error).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            return os.read(read, 1000).decode()
    """)
    assert "forked" in worker.value("main")


def test_at_the_end_of_its_grace_who_waits_is_woken(start: Start, kind: str) -> None:
    source, welcome = KINDS[kind]
    worker = start(source, welcome=welcome)
    id = worker.request("ask", {"name": "f"})
    asked = worker.asked("f")
    worker.send(frame(15, 0, encode(50)))
    got = {(each.kind, each.id) for each in (worker.receive(), worker.receive())}
    assert got == {(CANCEL, asked.id), (INTERRUPTED, id)}
    assert worker.wait() == 0


def test_hooks_at_the_end_call_the_host(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.on_stop
        def end():
            synapse.host.call_sync("bye")

        @synapse.handler
        def main():
            pass
    """)
    worker.send(frame(15, 0, encode(5000)))
    worker.answer(worker.asked("bye").id)
    assert worker.wait() == 0


STUB = """
import dataclasses, typing
from collections.abc import AsyncIterator, Iterator
import synapse

@dataclasses.dataclass
class User:
    id: int
    name: str

class Users(typing.Protocol):
    async def find(self, id: int, /) -> User: ...
    def names(self, *, limit: int = 3) -> list[str]: ...
    def all(self) -> Iterator[User]: ...
    def all_async(self, n: int) -> AsyncIterator[User]: ...
    async def forget(self, id: int) -> None: ...

users = synapse.host.typed(Users)

@synapse.handler
async def find():
    user = await users.find(7)
    return [type(user).__name__, user.id]

@synapse.handler
def names():
    return users.names() + users.names(limit=1)

@synapse.handler
def all():
    return [user.name for user in users.all()]

@synapse.handler
async def all_async():
    return [user.name async for user in users.all_async(2)]

@synapse.handler
def failure():
    try:
        users.names()
    except synapse.HostCallFailed as error:
        return [error.reason, str(error)]
"""


def test_a_stub_gives_host_functions_their_types(start: Start) -> None:
    worker = start(STUB)
    worker.request("find")
    asked = worker.asked("find")
    assert asked.payload == {"id": 7}
    worker.answer(asked.id, {"id": 7, "name": "Ada"})
    assert worker.receive().payload == ["User", 7]
    worker.request("names")
    asked = worker.asked("names")
    assert asked.payload is None
    worker.answer(asked.id, ["a"])
    asked = worker.asked("names")
    assert asked.payload == {"limit": 1}
    worker.answer(asked.id, ["b"])
    assert worker.receive().payload == ["a", "b"]
    for name in ("all", "all_async"):
        worker.request(name)
        asked = worker.asked(name)
        worker.chunk(asked.id, {"id": 1, "name": "x"}, {"id": 2, "name": "y"})
        worker.answer(asked.id)
        while (got := worker.receive()).kind == CREDIT:
            pass
        assert got.payload == ["x", "y"]
    worker.request("failure")
    worker.answer(worker.asked("names").id, ["a", 2])
    reason, said = worker.receive().payload
    assert reason == "DecodeFailed" and "$[1]" in said


def test_a_stub_whose_types_cannot_arrive_is_refused() -> None:
    import synapse

    class Stub:
        def bad(self) -> Callable[[], None]: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match="not a type that can arrive"):
        synapse.host.typed(Stub)


ALONE = """
from synapse import _follower
_follower._TICK_SECONDS = 3600
"""

STRESS = """
import asyncio, random, threading
import synapse
from synapse import host

def work(depth):
    total = 0
    for _ in range(5):
        total += host.call_sync("f", depth)
    total += sum(host.stream("s"))
    return total
"""

STRESS_SYNC = """
@synapse.handler
def sync(depth: int):
    if depth % 3 == 0:
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(work(depth))) for _ in range(3)
        ]
        for each in threads: each.start()
        mine = work(depth)
        for each in threads: each.join()
        return mine + sum(results)
    return work(depth)

@synapse.handler
def items(n: int):
    for each in range(n):
        yield host.call_sync("f", each)
"""

STRESS_ASYNC = """
from concurrent.futures import ThreadPoolExecutor

# The default has too few threads for calls within calls.
executor = ThreadPoolExecutor(200)

@synapse.handler
async def mixed(depth: int):
    asyncio.get_running_loop().set_default_executor(executor)
    one, two, three = await asyncio.gather(
        host.call("f", depth), asyncio.to_thread(work, depth), host.call("f", depth)
    )
    return one + two + three

@synapse.handler
async def async_items(n: int):
    for each in range(n):
        yield await asyncio.to_thread(host.call_sync, "f", each)
"""

MODULES = {
    "sync": (STRESS + STRESS_SYNC, ["sync", "items"]),
    "async": (STRESS + STRESS_ASYNC, ["mixed", "async_items"]),
    "both": (STRESS + STRESS_SYNC + STRESS_ASYNC, ["sync", "items", "mixed", "async_items"]),
}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("alone", [False, True])
def test_no_wake_up_is_lost(
    start: Start, cases: Callable[[int], int], concurrency: int, module: str, alone: bool
) -> None:
    """Every kind of wait at once, from every thread, with nested calls in between; also without
    the thread that would read in the end.
    """
    source, names = MODULES[module]
    worker = start(ALONE + source if alone else source, welcome={"concurrency": concurrency})
    left = cases(150)
    running: dict[int, str] = {}
    nested: dict[int, int] = {}
    next_id = 0

    def begin(parent: int | None = None) -> int:
        nonlocal next_id
        next_id += 1
        name = names[next_id % len(names)]
        meta = {} if parent is None else {"parent": parent}
        if name.endswith("items"):
            worker.stream(name, {"n": 6}, id=next_id, granted=2, **meta)
        else:
            worker.request(name, {"depth": next_id}, id=next_id, **meta)
        running[next_id] = name
        return next_id

    for _ in range(8):
        begin()
    while running:
        got = worker.receive()
        if got.kind == REQUEST and got.meta["method"] == "f":
            caller = got.meta.get("call")
            if caller is not None and left > 0 and got.id % 7 == 0:
                left -= 1
                nested[begin(caller)] = got.id
            else:
                worker.answer(got.id, 1)
        elif got.kind == REQUEST:
            worker.chunk(got.id, 1, 2)
            worker.chunk(got.id, 3)
            worker.answer(got.id)
        elif got.kind == CHUNK:
            worker.credit(got.id, len(got.payload))
        elif got.kind in (SUCCESS, DIE, INTERRUPTED, FAIL):
            assert got.kind == SUCCESS, got
            del running[got.id]
            if got.id in nested:
                worker.answer(nested.pop(got.id), 1)
            elif left > 0:
                left -= 1
                begin()
    worker.ping()
    assert worker.shut_down() == 0


def test_no_request_is_larger_than_the_host_takes(start: Start) -> None:
    limit = 1024
    worker = start(
        """
        import synapse

        @synapse.handler
        def ask(name: str, size: int):
            try:
                return synapse.host.call_sync(name, b"x" * size)
            except synapse.HostCallFailed as error:
                return error.reason
        """,
        welcome={"maxFrameSize": limit},
    )
    sent = 0
    for size in range(limit - 100, limit):
        worker.request("ask", {"name": "f", "size": size}, deadline=60_000)
        length, kind, _, _, id = struct.unpack("<IBBHI", worker._exactly(12))
        worker._exactly(length - 8)
        if kind == REQUEST:
            assert length <= limit
            sent = length
            worker.answer(id)
            assert worker.receive().kind == SUCCESS
    assert sent == limit


def test_a_name_that_no_request_holds_is_refused(start: Start) -> None:
    worker = start(
        """
        import synapse

        @synapse.handler
        def ask():
            try:
                synapse.host.call_sync("f" * 70_000)
            except synapse.HostCallFailed as error:
                return error.reason, synapse.stats()["host_calls"]
        """
    )
    assert worker.value("ask") == ["FrameTooLarge", 0]


def test_streams_that_are_left_do_not_wait_for_the_end_of_the_call(start: Start) -> None:
    worker = start(
        """
        import synapse

        @synapse.handler
        def firsts(n: int):
            found = []
            for _ in range(n):
                for item in synapse.host.stream("items"):
                    found.append(item)
                    break
            return found
        """,
        welcome={"maxOpenCalls": 4},
    )
    worker.request("firsts", {"n": 20})
    for n in range(20):
        asked = worker.asked("items")
        worker.chunk(asked.id, n, "more")
        assert worker.receive()[:2] == (CANCEL, asked.id)
        worker.answer(asked.id, kind=INTERRUPTED)
    assert worker.receive().payload == list(range(20))


def test_a_forked_process_lives_without_the_streams_of_its_parent(start: Start) -> None:
    worker = start(
        """
        import os
        import synapse

        def in_child(stream):
            next(stream)
            try:
                next(stream)
            except RuntimeError as error:
                assert "a forked process cannot read" in str(error)
                stream.close()
                return 7

        @synapse.handler
        def forks():
            stream = synapse.host.stream("items")
            first = next(stream)
            pid = os.fork()
            if pid == 0:
                os._exit(in_child(stream) or 1)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            return [first, status, *stream]
        """
    )
    worker.request("forks")
    asked = worker.asked("items")
    # Of a stream that has ended nothing is credited, whoever takes it.
    worker.answer(asked.id, items=[1, 2])
    assert worker.receive().payload == [1, 7, 2]


def test_a_destructor_that_asks_the_host_stops_nothing(start: Callable[..., Worker]) -> None:
    worker = start(
        """
        import gc
        import synapse

        class Asking:
            def __init__(self):
                self.itself = self

            def __del__(self):
                try:
                    synapse.host.call_sync("f")
                except (RuntimeError, synapse.Cancelled):
                    pass

        @synapse.handler
        def main(payload):
            gc.set_threshold(5)
            Asking()
            return payload
        """
    )
    ids = {worker.request("main", n) for n in range(30)}
    while ids:
        got = worker.receive()
        if got.kind == REQUEST:
            worker.send(frame(SUCCESS, got.id, encode(None)))
        # One that runs where frames are read cannot wait for its answer.
        elif got.kind != CANCEL:
            assert got.kind == SUCCESS
            ids.remove(got.id)
