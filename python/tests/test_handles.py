from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_lifecycle import PRELUDE, events
from wire import (
    CANCEL,
    DIE,
    FAIL,
    INTERRUPTED,
    PING,
    PONG,
    RELEASE,
    SHUTDOWN,
    SUCCESS,
    Got,
    Worker,
    encode,
    frame,
)

import synapse

Start = Callable[..., Worker]

SESSION = """
    class Full(synapse.Error):
        limit: int

    class Session:
        kind = "session"

        def __init__(self, size):
            self.size = size
            self.said = []
            self.thread = threading.current_thread() is threading.main_thread()

        def say(self, text: str, times: int = 1) -> int:
            self.said += [text] * times
            return len(self.said)

        async def say_later(self, text: str) -> int:
            await asyncio.sleep(0)
            return self.say(text)

        def whole(self, payload):
            return payload

        def words(self):
            yield from self.said

        async def words_later(self):
            for word in self.said:
                yield word

        @property
        def loud(self):
            return [word.upper() for word in self.said]

        @staticmethod
        def double(number: int): return number * 2

        @classmethod
        def name(cls): return cls.__name__

        def fail(self): raise ValueError("v")

        def full(self): raise Full(limit=3)

        def fork(self, size: int): return synapse.Handle(Session(size), lambda: note("fork closed"))

        def is_on_main_thread(self):
            return threading.current_thread() is threading.main_thread()

        def method(self): return synapse.context().method

        def stats(self): return synapse.stats()

        def _private(self): return "private"

        def __del__(self): note(f"gone {self.size}")

    """

SYNC = """
    @synapse.handler
    def open_session(size: int = 1):
        session = Session(size)
        return synapse.Handle(session, close=lambda: note(f"closed {size}"))

    @synapse.handler
    def stats(): return synapse.stats()

    @synapse.handler
    def main(): return 1
"""
ASYNC = """
    @synapse.handler
    async def open_session(size: int = 1):
        session = Session(size)

        async def close():
            await asyncio.sleep(0)
            note(f"closed {size}")

        return synapse.Handle(session, close=close)

    @synapse.handler
    async def stats(): return synapse.stats()

    @synapse.handler
    async def main(): return 1
"""
MIXED = SYNC + "\n    @synapse.handler\n    async def other(): return 1\n"
HANDLERS = {"sync": SYNC, "async": ASYNC, "mixed": MIXED}


@pytest.fixture(params=[(kind, size) for kind in HANDLERS for size in (1, 2)], ids=str)
def worker(request: pytest.FixtureRequest, start: Start) -> Worker:
    kind, concurrency = request.param
    return start(PRELUDE + SESSION + HANDLERS[kind], welcome={"concurrency": concurrency})


def acquire(worker: Worker, method: str = "open_session", value: Any = None, **meta: Any) -> int:
    held = worker.value(method, value, hold=True, **meta)
    assert set(held) == {"handle", "type"} and 0 < held["handle"] < 2**32
    number: int = held["handle"]
    return number


def release(worker: Worker, handle: int) -> None:
    worker.send(frame(RELEASE, handle))


def refusal(got: Got) -> str:
    assert (got.kind, got.meta["reason"]) == (DIE, "Unsupported"), got
    detail: str = got.payload["detail"]
    return detail


def items(worker: Worker, method: str, handle: int) -> list[Any]:
    found, end = worker.items(worker.stream(method, None, target=handle))
    assert (end.kind, end.payload) == (SUCCESS, None)
    return found


def settle(worker: Worker, directory: Path, count: int) -> list[str]:
    """The events, once there are as many: whoever closes objects answers calls too."""
    while len(events(directory)) < count:
        worker.value("main")
    return events(directory)


def test_an_object_is_held_and_its_methods_are_called(worker: Worker) -> None:
    held = worker.value("open_session", {"size": 5}, hold=True)
    assert held["type"].endswith("main.Session") or held["type"] == "main.Session"
    handle = held["handle"]
    assert worker.value("say", {"text": "a"}, target=handle) == 1
    assert worker.value("say_later", {"text": "b"}, target=handle) == 2
    assert worker.value("say", {"text": "c", "times": 2}, target=handle) == 4
    assert worker.value("whole", {"x": [1]}, target=handle) == {"x": [1]}
    assert worker.value("double", {"number": 4}, target=handle) == 8
    assert worker.value("name", None, target=handle) == "Session"
    assert worker.value("method", None, target=handle) == "method"


def test_attributes_are_read(worker: Worker) -> None:
    handle = acquire(worker, value={"size": 5})
    worker.value("say", {"text": "a"}, target=handle)
    read = {
        name: worker.value(name, None, target=handle, get=True)
        for name in ("size", "kind", "loud", "said")
    }
    assert read == {"size": 5, "kind": "session", "loud": ["A"], "said": ["a"]}


def test_generators_stream(worker: Worker) -> None:
    handle = acquire(worker)
    for word in ("a", "b", "c"):
        worker.value("say", {"text": word}, target=handle)
    assert items(worker, "words", handle) == ["a", "b", "c"]
    assert items(worker, "words_later", handle) == ["a", "b", "c"]


def test_arguments_are_checked_as_those_of_handlers_are(worker: Worker) -> None:
    handle = acquire(worker)
    got = worker.call("say", {"text": 5}, target=handle)
    assert (got.kind, got.meta["reason"]) == (DIE, "DecodeFailed")
    assert got.payload == {"path": "$.text", "issue": "Expected `str`, got `int`"}
    got = worker.call("say_later", {}, target=handle)
    assert "missing the key `text`" in got.payload["issue"]


def test_what_methods_raise_crosses(worker: Worker) -> None:
    handle = acquire(worker)
    got = worker.call("fail", None, target=handle)
    assert (got.kind, got.payload["type"]) == (DIE, "ValueError")
    assert [each["function"].rpartition(".")[2] for each in got.payload["frames"]] == ["fail"]
    got = worker.call("full", None, target=handle)
    assert (got.kind, got.payload["_tag"], got.payload["limit"]) == (FAIL, "Full", 3)


@pytest.mark.parametrize("get", [True, False])
def test_there_are_no_private_names(worker: Worker, get: bool) -> None:
    handle = acquire(worker)
    for name in ("_private", "__init__", "__dict__", "missing"):
        got = worker.call(name, None, target=handle, get=get)
        assert (got.kind, got.meta["reason"]) == (DIE, "MethodNotFound")
        assert got.meta["delivery"] == "rejected"
        assert not any(each.startswith("_") for each in got.payload["nearest"])
    assert "say" in worker.call("sai", None, target=handle, get=get).payload["nearest"]


def test_what_is_no_method_is_not_called(worker: Worker) -> None:
    handle = acquire(worker)
    assert "read it with `get`" in refusal(worker.call("size", None, target=handle))
    # What cannot be carried is not read either.
    got = worker.call("say", None, target=handle, get=True)
    assert (got.kind, got.meta["reason"]) == (DIE, "EncodeFailed")


def test_streams_and_values_are_told_apart(worker: Worker) -> None:
    handle = acquire(worker)
    assert "Synapse.stream" in refusal(worker.call("words", None, target=handle))
    detail = refusal(worker.call("say", {"text": "a"}, target=handle, stream=64))
    assert "Synapse.call" in detail


def test_a_method_may_give_away_another_object(worker: Worker, tmp_path: Path) -> None:
    handle = acquire(worker, value={"size": 1})
    other = acquire(worker, "fork", {"size": 2}, target=handle)
    assert other != handle
    assert worker.value("size", None, target=other, get=True) == 2
    release(worker, handle)
    assert settle(worker, tmp_path, 2) == ["closed 1", "gone 1"]
    assert worker.value("size", None, target=other, get=True) == 2
    release(worker, other)
    assert settle(worker, tmp_path, 4)[2:] == ["fork closed", "gone 2"]


# Holding, and not


def test_a_handle_that_nobody_holds_is_closed(worker: Worker, tmp_path: Path) -> None:
    got = worker.call("open_session", {"size": 3})
    assert "Synapse.acquire" in refusal(got)
    assert "delivery" not in got.meta
    assert sorted(settle(worker, tmp_path, 2)) == ["closed 3", "gone 3"]
    assert worker.value("stats")["handles"] == 0


def test_what_is_no_handle_is_not_held(worker: Worker) -> None:
    got = worker.call("main", None, hold=True)
    assert "`main` returned `int`" in refusal(got)
    handle = acquire(worker)
    assert "`say` returned `int`" in refusal(
        worker.call("say", {"text": "a"}, target=handle, hold=True)
    )
    assert worker.value("stats")["handles"] == 1


def test_a_handler_that_fails_holds_nothing(worker: Worker) -> None:
    got = worker.call("open_session", {"size": "x"}, hold=True)
    assert got.meta["reason"] == "DecodeFailed"
    assert worker.call("nobody", None, hold=True).meta["reason"] == "MethodNotFound"
    assert worker.value("stats")["handles"] == 0


# Release


def test_a_released_object_is_closed_and_gone(worker: Worker, tmp_path: Path) -> None:
    handle = acquire(worker, value={"size": 4})
    assert worker.value("stats")["handles"] == 1
    worker.value("say", {"text": "a"}, target=handle)
    release(worker, handle)
    detail = refusal(got := worker.call("say", {"text": "a"}, target=handle))
    assert (detail, got.meta["delivery"]) == ("the object was released", "rejected")
    assert settle(worker, tmp_path, 2) == ["closed 4", "gone 4"]
    assert worker.value("stats")["handles"] == 0
    # A second time, and of one that never was.
    release(worker, handle)
    release(worker, 0xFFFFFFFF)
    assert worker.value("main") == 1


def test_many_objects_live_side_by_side(worker: Worker, tmp_path: Path) -> None:
    handles = [acquire(worker, value={"size": size}) for size in range(20)]
    assert len(set(handles)) == 20
    sizes = [worker.value("size", None, target=handle, get=True) for handle in handles]
    assert sizes == list(range(20))
    for handle in handles:
        release(worker, handle)
    assert sorted(settle(worker, tmp_path, 40)) == sorted(
        [f"closed {size}" for size in range(20)] + [f"gone {size}" for size in range(20)]
    )


@pytest.mark.parametrize("define", ["def", "async def"])
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("error", ["ValueError('v')", "SystemExit(3)", "KeyboardInterrupt"])
def test_a_close_that_fails_is_logged(
    start: Start, define: str, concurrency: int, error: str
) -> None:
    worker = start(
        PRELUDE
        + f"""
    @synapse.handler
    def open_it():
        {define} close(): raise {error}
        return synapse.Handle([], close)

    @synapse.handler
    def main(): return 1
    """,
        welcome={"concurrency": concurrency},
    )
    release(worker, acquire(worker, "open_it"))
    log = worker.next_log()
    assert (log["logger"], log["level"]) == ("synapse", 40)
    assert "`close` of a handle failed" in log["message"]
    assert log["exception"]["type"] == error.partition("(")[0]
    assert worker.value("main") == 1


SLOW = """
    go_on = threading.Event()

    class Slow:
        def wait(self):
            note("waiting")
            while not os.path.exists("go on"):
                time.sleep(0.001)
            return "done"

        async def wait_later(self):
            note("waiting")
            while not os.path.exists("go on"):
                await asyncio.sleep(0.001)
            return "done"

        def count(self):
            note("waiting")
            for number in range(1000):
                yield number

        def __del__(self): note("gone")

    @synapse.handler
    def open_slow(): return synapse.Handle(Slow(), lambda: note("closed"))
"""


@pytest.mark.parametrize("kind", list(HANDLERS))
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("method", ["wait", "wait_later"])
def test_a_call_keeps_its_object_until_it_ends(
    start: Start, tmp_path: Path, kind: str, concurrency: int, method: str
) -> None:
    opening = SLOW if kind != "async" else SLOW.replace("def open_slow", "async def open_slow")
    worker = start(
        PRELUDE + SESSION + opening + HANDLERS[kind], welcome={"concurrency": concurrency}
    )
    handle = acquire(worker, "open_slow")
    id = worker.request(method, None, target=handle)
    while not events(tmp_path):
        worker.send(frame(PING, 1))
        assert worker.receive().kind == PONG
    release(worker, handle)
    # Answered by the thread that reads, after what came before.
    got = worker.call(method, None, target=handle)
    assert refusal(got) == "the object was released"
    assert events(tmp_path) == ["waiting"]
    (tmp_path / "go on").touch()
    got = worker.receive()
    assert (got.kind, got.id, got.payload) == (SUCCESS, id, "done")
    assert settle(worker, tmp_path, 3) == ["waiting", "closed", "gone"]


def test_a_stream_that_is_cancelled_lets_go_of_its_object(start: Start, tmp_path: Path) -> None:
    worker = start(PRELUDE + SESSION + SLOW + MIXED)
    handle = acquire(worker, "open_slow")
    id = worker.stream("count", None, 2, target=handle)
    worker.take(id, 2)
    release(worker, handle)
    assert worker.value("main") == 1
    assert events(tmp_path) == ["waiting"]
    worker.send(frame(CANCEL, id))
    got = worker.receive()
    assert (got.kind, got.id) == (INTERRUPTED, id)
    assert settle(worker, tmp_path, 3) == ["waiting", "closed", "gone"]


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("define", ["def", "async def"])
def test_an_object_that_comes_too_late_is_closed(
    start: Start, tmp_path: Path, define: str, concurrency: int
) -> None:
    worker = start(
        PRELUDE
        + f"""
    @synapse.handler
    {define} open_late():
        context = synapse.context()
        print("opening")
        try:
            while not context.cancelled:
                {"await asyncio.sleep" if define == "async def" else "time.sleep"}(0.001)
        except BaseException:
            pass
        return synapse.Handle([], lambda: note("closed"))

    @synapse.handler
    {define} main(): return synapse.stats()["handles"]
    """,
        welcome={"concurrency": concurrency},
    )
    id = worker.request("open_late", None, hold=True)
    assert worker.next_log()["message"] == "opening"
    worker.send(frame(CANCEL, id))
    got = worker.receive()
    if got.kind == SUCCESS:
        # It listened to nobody, and was first: the host has it, and lets go of it.
        assert define == "async def"
        release(worker, got.payload["handle"])
    else:
        assert got.kind == INTERRUPTED
    assert settle(worker, tmp_path, 1) == ["closed"]
    assert worker.value("main") == 0


@pytest.mark.parametrize("concurrency", [1, 2])
def test_objects_are_closed_by_no_thread_that_reads(start: Start, concurrency: int) -> None:
    worker = start(
        PRELUDE
        + """
    on_main = []

    def close():
        on_main.append(threading.current_thread() is threading.main_thread())
        time.sleep(600)

    @synapse.handler
    def open_it(): return synapse.Handle([], close)
    """,
        welcome={"concurrency": concurrency},
    )
    release(worker, acquire(worker, "open_it"))
    # A close that does not end holds up no ping, and not the end.
    for _ in range(20):
        worker.send(frame(PING, 1))
        assert worker.receive().kind == PONG
    assert worker.shut_down(0) == 0


def test_plain_methods_run_where_plain_handlers_do(start: Start) -> None:
    for handlers in (SYNC, MIXED, ASYNC):
        worker = start(PRELUDE + SESSION + handlers)
        handle = acquire(worker)
        assert worker.value("is_on_main_thread", None, target=handle) is True


# The end


@pytest.mark.parametrize("kind", list(HANDLERS))
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("by", ["shutdown", "signal"])
def test_objects_are_closed_as_the_worker_ends_before_the_hooks(
    start: Start, tmp_path: Path, kind: str, concurrency: int, by: str
) -> None:
    worker = start(
        PRELUDE
        + SESSION
        + HANDLERS[kind]
        + """
    @synapse.on_stop
    def end(): note("end")
    """,
        welcome={"concurrency": concurrency},
    )
    for size in range(3):
        acquire(worker, value={"size": size})
    if by == "shutdown":
        worker.send(frame(SHUTDOWN, 0, encode(10_000)))
    else:
        worker.process.terminate()
    assert worker.wait() == 0
    said = events(tmp_path)
    closed = [f"closed {size}" for size in range(3)]
    assert [each for each in said if each.startswith("closed")] == closed
    assert said.index("end") > said.index("closed 2")


def test_a_close_in_a_module_without_a_loop_runs_at_the_end_too(
    start: Start, tmp_path: Path
) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.handler
    def open_it():
        async def close():
            await asyncio.sleep(0)
            note("closed")
        return synapse.Handle([], close)
    """
    )
    acquire(worker, "open_it")
    assert worker.shut_down(10_000) == 0
    assert events(tmp_path) == ["closed"]


# Objects of all kinds


def test_kinds_are_found_without_running_code_of_the_object(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    import functools

    class Odd:
        __slots__ = ("callback", "number")

        def __init__(self):
            self.callback = functools.partial(max, 3)
            self.number = 5

        def __getattr__(self, name):
            if name == "dynamic":
                return 7
            raise AttributeError(name)

        @property
        def property(self): return lambda: "called"

        later = functools.partialmethod(lambda self, number: number * 2, number=4)

    @synapse.handler
    def odd(): return synapse.Handle(Odd())

    @synapse.handler
    def module(): return synapse.Handle(os.path)

    @synapse.handler
    def numbers(): return synapse.Handle([3, 1, 2])
    """
    )
    odd = acquire(worker, "odd")
    assert worker.value("property", None, target=odd) == "called"
    assert worker.value("later", None, target=odd) == 8
    assert worker.value("number", None, target=odd, get=True) == 5
    assert worker.value("dynamic", None, target=odd, get=True) == 7
    got = worker.call("other", None, target=odd, get=True)
    assert (got.kind, got.payload["type"]) == (DIE, "AttributeError")
    module = acquire(worker, "module")
    assert worker.value("basename", "a/b", target=module) == "b"
    numbers = acquire(worker, "numbers")
    assert worker.value("append", 9, target=numbers) is None
    assert worker.value("copy", None, target=numbers) == [3, 1, 2, 9]


def test_a_method_that_cannot_be_filled_says_so(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    class Odd:
        def rest(self, *values): return values
        def unknown(self, value: "Nowhere"): return value

    @synapse.handler
    def odd(): return synapse.Handle(Odd())
    """
    )
    handle = acquire(worker, "odd")
    for name, why in (("rest", "*args cannot be filled"), ("unknown", "cannot be resolved")):
        for _ in range(2):
            got = worker.call(name, {}, target=handle)
            assert (got.kind, got.payload["type"]) == (DIE, "TypeError")
            assert why in got.payload["message"]


# In numbers


@pytest.mark.parametrize("concurrency", [1, 2])
def test_stats_say_what_goes_on(start: Start, concurrency: int) -> None:
    worker = start(
        PRELUDE
        + SESSION
        + SLOW
        + MIXED
        + """
    @synapse.background(seconds=60)
    def tick(): pass

    @synapse.background(seconds=60)
    async def tock(): pass
    """,
        welcome={"concurrency": concurrency},
    )
    nothing = {"streams": 0, "host_calls": 0, "handles": 0, "tasks": 2}
    assert worker.value("stats") == {"calls": 1, **nothing}
    handle = acquire(worker, "open_slow")
    stream = worker.stream("count", None, 2, target=handle)
    worker.take(stream, 2)
    assert worker.value("stats") == {**nothing, "calls": 2, "streams": 1, "handles": 1}
    worker.send(frame(CANCEL, stream))
    assert worker.receive().kind == INTERRUPTED
    assert worker.value("stats") == {**nothing, "calls": 1, "handles": 1}


def test_outside_of_a_worker_all_numbers_are_nothing() -> None:
    assert synapse.stats() == dict.fromkeys(
        ("calls", "streams", "host_calls", "handles", "tasks"), 0
    )


# The class


def test_a_handle_is_a_plain_object_in_tests() -> None:
    def close() -> None: ...

    handle = synapse.Handle([1], close)
    assert (handle.value, handle.close) == ([1], close)
    assert synapse.Handle(5).close is None
    assert repr(synapse.Handle(5)) == "synapse.Handle(5)"


def test_what_cannot_close_is_refused() -> None:
    def generator() -> Any:
        yield

    with pytest.raises(TypeError, match="`close` is a function, not 5"):
        synapse.Handle([], 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a generator"):
        synapse.Handle([], generator)


def test_an_interruption_loses_no_object(monkeypatch: pytest.MonkeyPatch) -> None:
    from synapse import _codec
    from synapse._cancel import Guard
    from synapse._handlers import Handler
    from synapse._objects import Holding, Objects

    objects = Objects(_codec.choose(), lambda: pytest.fail(), lambda _error: None)
    inner = Handler(lambda: synapse.Handle([]), "open")
    inner.bind = lambda _payload: ((), None)
    holding, guard, add = Holding(objects, inner), Guard(), objects.add

    def add_and_interrupt(handle: synapse.Handle[Any]) -> Any:
        held = add(handle)
        canceller = threading.Thread(target=guard.interrupt)
        canceller.start()
        canceller.join()
        return held

    monkeypatch.setattr(objects, "add", add_and_interrupt)
    with pytest.raises(synapse.Cancelled):
        guard.call(holding.function)
    assert objects.count == 1
    holding.ended(frame(INTERRUPTED, 1))
    assert objects.count == 0
