from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wire import (
    CANCEL,
    CREDIT,
    DIE,
    FAIL,
    GO_AWAY,
    INTERRUPTED,
    PING,
    PONG,
    REQUEST,
    SHUTDOWN,
    SUCCESS,
    Worker,
    encode,
    frame,
)

Start = Callable[..., Worker]

ECHO = """
    import synapse

    @synapse.handler
    def main(payload):
        return payload

    @synapse.handler
    def add(a: int, b: int = 2) -> int:
        return a + b
"""

# A handler that stays until the test lets it go, and says when it has begun.
BLOCKING = """
    import os
    import synapse

    begun, let_go = os.environ["BEGUN"], os.environ["LET_GO"]

    def block():
        with open(begun, "w"):
            pass
        with open(let_go):
            pass

    @synapse.handler
    def blocked(result=None):
        block()
        return synapse.context().cancelled if result is None else result

    @synapse.handler
    def quick():
        return "quick"
"""


class Gate:
    """The two pipes of a blocking handler."""

    def __init__(self, directory: Path) -> None:
        import os

        self.begun, self.let_go = directory / "begun", directory / "let_go"
        os.mkfifo(self.begun)
        os.mkfifo(self.let_go)
        self.env = {"BEGUN": str(self.begun), "LET_GO": str(self.let_go)}

    def wait(self) -> None:
        self.begun.open().close()

    def open(self) -> None:
        self.let_go.open("w").close()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_a_call_returns_the_value_of_its_handler(start: Start) -> None:
    worker = start(ECHO)
    assert worker.value("main", {"a": [1, 2.5, None, b"b"]}) == {"a": [1, 2.5, None, b"b"]}
    assert worker.value("add", {"a": 1}) == 3
    assert worker.shut_down() == 0


def test_arguments_that_do_not_fit_are_rejected_before_the_handler_starts(start: Start) -> None:
    worker = start(ECHO)
    got = worker.call("add", {"a": 1, "b": "x"})
    assert got.kind == DIE
    assert got.meta == {"reason": "DecodeFailed", "delivery": "rejected"}
    assert got.payload == {"path": "$.b", "issue": "Expected `int`, got `str`"}


def test_a_payload_that_does_not_decode_costs_its_own_call_alone(start: Start) -> None:
    worker = start(ECHO)
    worker.send(frame(REQUEST, 1, b"\xc1", encode({"method": "main"})))
    assert worker.receive().meta["reason"] == "DecodeFailed"
    assert worker.value("main", 1, id=None) == 1


def test_an_unknown_method_is_rejected_with_the_nearest_names(start: Start) -> None:
    worker = start(ECHO)
    got = worker.call("mian")
    assert got.meta == {"reason": "MethodNotFound", "delivery": "rejected"}
    assert got.payload == {"method": "mian", "nearest": ["main"]}
    assert worker.call("zzz").payload["nearest"] == ["add", "main"]


def test_calls_of_one_read_are_all_answered(start: Start) -> None:
    worker = start(ECHO)
    meta = encode({"method": "main"})
    worker.send(b"".join(frame(REQUEST, id, encode(id), meta) for id in range(1, 501)))
    got = [worker.receive() for _ in range(500)]
    assert [(each.kind, each.id, each.payload) for each in got] == [
        (SUCCESS, id, id) for id in range(1, 501)
    ]


def test_frames_may_arrive_byte_by_byte(start: Start) -> None:
    worker = start(ECHO)
    for byte in frame(REQUEST, 9, encode({"a": 1}), encode({"method": "main"})):
        worker.send(bytes((byte,)))
    assert worker.receive().payload == {"a": 1}


def test_large_values_go_both_ways(start: Start) -> None:
    worker = start(ECHO)
    data = bytes(range(256)) * 4 * 1024
    assert worker.value("main", data) == data
    assert worker.value("main", {"data": data, "more": [data]}) == {"data": data, "more": [data]}


def test_an_exception_ends_its_call_with_a_traceback(start: Start, tmp_path: Path) -> None:
    worker = start("""
        import synapse

        def inner():
            return {}["missing"]

        @synapse.handler
        def main(payload):
            return inner()
    """)
    got = worker.call("main")
    assert (got.kind, got.meta) == (DIE, None)
    assert (got.payload["type"], got.payload["module"]) == ("KeyError", "builtins")
    assert got.payload["message"] == "'missing'"
    # The frames of the runtime are left out.
    assert [(each["function"], each["code"]) for each in got.payload["frames"]] == [
        ("main", "return inner()"),
        ("inner", 'return {}["missing"]'),
    ]
    assert got.payload["frames"][0]["file"] == str(tmp_path / "main.py")


@pytest.mark.parametrize("kind", ["", "async "])
@pytest.mark.parametrize(
    "error",
    ["SystemExit(5)", "KeyboardInterrupt()", "MemoryError()", "GeneratorExit()", "StopIteration()"],
)
def test_what_would_end_a_process_ends_a_call(start: Start, kind: str, error: str) -> None:
    worker = start(f"""
        import os
        import synapse

        @synapse.handler
        {kind}def main():
            raise {error}

        @synapse.handler
        {kind}def pid():
            return os.getpid()
    """)
    pid = worker.value("pid")
    got = worker.call("main")
    assert got.kind == DIE
    # A coroutine cannot raise StopIteration: Python makes a RuntimeError of it.
    assert got.payload["type"] in (error.split("(")[0], "RuntimeError")
    assert worker.value("pid") == pid


def test_endless_recursion_ends_a_call(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            return main()
    """)
    got = worker.call("main")
    assert got.payload["type"] == "RecursionError"
    assert len(got.payload["frames"]) == 50 and got.payload["framesOmitted"] > 100
    assert worker.call("main").payload["type"] == "RecursionError"


def test_a_declared_error_travels_with_its_fields(start: Start) -> None:
    worker = start("""
        import synapse

        class PromptTooLong(synapse.Error):
            "The prompt does not fit."
            limit: int
            unit: str = "tokens"

        class MuchTooLong(PromptTooLong):
            pass

        @synapse.handler(raises=[PromptTooLong])
        def sync(more=False):
            raise (MuchTooLong if more else PromptTooLong)(limit=3)

        @synapse.handler(raises=[PromptTooLong])
        async def asynchronous():
            raise PromptTooLong("No.", limit=4, unit="bytes")

        @synapse.handler
        def undeclared():
            raise PromptTooLong(limit=3)

        @synapse.handler(raises=[PromptTooLong])
        def uncarried():
            raise PromptTooLong(limit=object())
    """)
    expected = {
        "_tag": "PromptTooLong",
        "message": "The prompt does not fit.",
        "limit": 3,
        "unit": "tokens",
    }
    got = worker.call("sync", {})
    assert (got.kind, got.payload) == (FAIL, expected)
    assert worker.call("sync", True).payload["_tag"] == "MuchTooLong"
    got = worker.call("asynchronous")
    assert got.payload == {**expected, "message": "No.", "limit": 4, "unit": "bytes"}
    got = worker.call("undeclared")
    assert (got.kind, got.payload["type"]) == (DIE, "PromptTooLong")
    got = worker.call("uncarried")
    assert (got.meta["reason"], got.payload["path"]) == ("EncodeFailed", "$.limit")


def test_a_value_that_cannot_be_carried_costs_its_own_call_alone(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def sync():
            return {"items": [1, {"model": object()}]}

        @synapse.handler
        async def asynchronous():
            return 2 ** 70
    """)
    got = worker.call("sync")
    assert (got.kind, got.meta) == (DIE, {"reason": "EncodeFailed"})
    assert got.payload == {"path": "$.items[1].model", "issue": "cannot carry a `object`"}
    got = worker.call("asynchronous")
    assert got.payload == {"path": "$", "issue": "cannot carry an integer beyond 64 bits"}


def test_an_answer_above_the_limit_costs_its_own_call_alone(start: Start) -> None:
    worker = start(
        """
        import synapse

        class Big(synapse.Error):
            data: bytes

        @synapse.handler(raises=[Big])
        def main(size: int, fails: bool = False):
            if fails:
                raise Big(data=bytes(size))
            return bytes(size)
        """,
        welcome={"maxFrameSize": 100_000},
    )
    got = worker.call("main", {"size": 100_000})
    assert (got.kind, got.meta) == (DIE, {"reason": "FrameTooLarge"})
    assert got.payload == {"size": 8 + 5 + 100_000, "limit": 100_000}
    assert worker.call("main", {"size": 100_000, "fails": True}).meta["reason"] == "FrameTooLarge"
    # Exactly at the limit it goes.
    assert len(worker.value("main", {"size": 100_000 - 8 - 5})) == 100_000 - 13


def test_generators_are_told_in_hello_and_calls_of_the_other_kind_are_refused(
    launch: Start, tmp_path: Path
) -> None:
    from wire import write

    write(
        tmp_path,
        """
        import synapse

        @synapse.handler
        def numbers():
            yield 1

        @synapse.handler
        async def words():
            yield "a"

        @synapse.handler
        async def plain():
            return 1
        """,
    )
    worker = launch()
    hello = worker.welcome()
    assert hello["methods"] == [
        {"name": "numbers", "stream": True, "async": False},
        {"name": "words", "stream": True, "async": True},
        {"name": "plain", "stream": False, "async": True},
    ]
    for name in ("numbers", "words"):
        got = worker.call(name)
        assert got.meta == {"reason": "Unsupported", "delivery": "rejected"}
        detail = f"`{name}` streams its values: call it with `Synapse.stream`"
        assert got.payload == {"detail": detail}
    got = worker.call("plain", stream=64)
    assert got.meta == {"reason": "Unsupported", "delivery": "rejected"}
    assert "call it with `Synapse.call`" in got.payload["detail"]


def test_asynchronous_handlers_run_at_once(start: Start) -> None:
    worker = start("""
        import asyncio
        import synapse

        waiting = []

        @synapse.handler
        async def meet():
            event = asyncio.Event()
            waiting.append(event)
            if len(waiting) == 3:
                for each in waiting:
                    each.set()
            async with asyncio.timeout(30) if hasattr(asyncio, "timeout") else asyncio.Lock():
                await event.wait()
            return synapse.context().call_id
    """)
    ids = [worker.request("meet") for _ in range(3)]
    got = [worker.receive() for _ in ids]
    assert sorted(each.payload for each in got) == ids
    assert all(each.id == each.payload for each in got)


def test_sync_and_async_handlers_live_side_by_side(start: Start, gate: Gate) -> None:
    worker = start(
        BLOCKING
        + """
    @synapse.handler
    async def asynchronous():
        return "async"
    """,
        env=gate.env,
    )
    blocked = worker.request("blocked", "done")
    gate.wait()
    assert worker.value("asynchronous") == "async"
    gate.open()
    got = worker.receive()
    assert (got.id, got.payload) == (blocked, "done")


def test_a_blocked_handler_delays_neither_pings_nor_cancels(start: Start, gate: Gate) -> None:
    worker = start(BLOCKING, env=gate.env)
    blocked = worker.request("blocked")
    gate.wait()
    waiting = worker.request("quick")
    worker.ping()
    # It has not started, so that it can be answered at once.
    worker.cancel(waiting)
    got = worker.receive()
    assert (got.kind, got.id) == (INTERRUPTED, waiting)
    worker.cancel(blocked)
    worker.ping()
    gate.open()
    # It saw that it was cancelled; what it returned then is not wanted any more.
    got = worker.receive()
    assert (got.kind, got.id) == (INTERRUPTED, blocked)
    assert worker.value("quick") == "quick"
    worker.ping()


def test_a_loop_that_is_blocked_delays_neither_pings_nor_cancels(start: Start, gate: Gate) -> None:
    source = BLOCKING.replace("    def blocked", "    async def blocked")
    worker = start(source.replace("    def quick", "    async def quick"), env=gate.env)
    blocked = worker.request("blocked", "done")
    gate.wait()
    waiting = worker.request("quick")
    worker.ping()
    worker.cancel(waiting)
    worker.ping()
    gate.open()
    ends = {got.id: got.kind for got in (worker.receive(), worker.receive())}
    assert ends == {blocked: SUCCESS, waiting: INTERRUPTED}
    assert worker.value("quick") == "quick"


BUSY = """
    import os
    import synapse

    def spin(begun: str) -> None:
        # In one step, with all of it.
        os.rename(begun + ".new", begun)
        while not os.path.exists(begun + ".end"):
            sum(range(1000))

    @synapse.handler
    def sync(begun: str): spin(begun)

    @synapse.handler
    async def asynchronous(begun: str): spin(begun)

    @synapse.handler
    def stream(begun: str):
        yield spin(begun)
"""
ASYNCHRONOUS = BUSY.replace("    def sync", "    async def sync").replace(
    "    def stream", "    async def stream"
)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("source", [BUSY, ASYNCHRONOUS], ids=["sync and async", "async"])
@pytest.mark.parametrize("method", ["sync", "asynchronous", "stream"])
def test_pings_are_answered_while_python_computes(
    start: Start, tmp_path: Path, source: str, method: str, concurrency: int
) -> None:
    worker = start(source, welcome={"concurrency": concurrency})
    # As many as run at once, and one that waits.
    begun = [tmp_path / f"begun{n}" for n in range(concurrency + 1)]
    for path in begun:
        path.with_suffix(".new").touch()
        if method == "stream":
            worker.stream(method, {"begun": str(path)})
        else:
            worker.request(method, {"begun": str(path)})
    # Those of a loop take turns.
    at_once = 1 if method == "asynchronous" or source is ASYNCHRONOUS else concurrency
    while sum(path.exists() for path in begun) < at_once:
        time.sleep(0.001)
    for id in range(20):
        worker.ping(id)
    for path in begun:
        path.with_suffix(".end").touch()
    ends = 0
    while ends <= concurrency:
        ends += worker.receive().kind == SUCCESS


def test_answers_that_are_ready_do_not_wait_for_a_blocked_handler(start: Start, gate: Gate) -> None:
    worker = start(BLOCKING, env=gate.env)
    quick, blocked = encode({"method": "quick"}), encode({"method": "blocked"})
    worker.send(frame(REQUEST, 1, b"", quick) + frame(REQUEST, 2, encode("x"), blocked))
    assert worker.receive().id == 1
    gate.wait()
    gate.open()
    assert worker.receive().id == 2


@pytest.mark.parametrize("beside", ["", "@synapse.handler\n    def beside(): pass"])
def test_answers_that_are_ready_do_not_wait_for_a_blocked_loop(
    start: Start, gate: Gate, beside: str
) -> None:
    worker = start(
        f"""
    import asyncio, os
    import synapse

    @synapse.handler
    async def main(together):
        # All but the last end in the turn of the loop in which the last one blocks it.
        everyone.append(None)
        if len(everyone) == together:
            everyone.clear()
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, block)
            release.set()
            release.clear()
        else:
            await release.wait()

    def block():
        with open(os.environ["BEGUN"], "w"):
            pass
        with open(os.environ["LET_GO"]):
            pass

    @synapse.handler
    async def hold():
        block()

    everyone = []
    release = asyncio.Event()
    {beside}
        """,
        env=gate.env,
    )
    # From here on the follower may be the one that reads.
    held = worker.request("hold")
    gate.wait()
    worker.ping()
    gate.open()
    assert worker.receive().id == held
    for _ in range(3):
        ids = {worker.request("main", 3) for _ in range(3)}
        gate.wait()
        assert {worker.receive().id for _ in range(3)} == ids
        gate.open()


KINDS = {
    "on the loop": ("async ", "", 1),
    "on the main thread": ("", "", 1),
    "in threads": ("", "", 4),
    "on a loop in a thread": ("async ", "@synapse.handler\n    def beside(): pass", 1),
    "on a loop beside threads": ("async ", "@synapse.handler\n    def beside(): pass", 4),
}

REFUSING = """
    import os
    import synapse

    @synapse.handler
    {kind}def main():
        with open(os.environ["BEGUN"], "w"):
            pass
        with open(os.environ["LET_GO"]):
            pass

    @synapse.handler
    {kind}def many():
        yield 1

    {beside}
"""


@pytest.mark.parametrize(("kind", "beside", "concurrency"), KINDS.values(), ids=KINDS.keys())
def test_what_is_refused_is_refused_at_once(
    start: Start, gate: Gate, kind: str, beside: str, concurrency: int
) -> None:
    worker = start(
        REFUSING.format(kind=kind, beside=beside),
        env=gate.env,
        welcome={"concurrency": concurrency, "maxOpenCalls": 1},
    )
    assert worker.call("nobody").meta["reason"] == "MethodNotFound"
    assert worker.call("many").meta["reason"] == "Unsupported"
    # A thread might start it before it is cancelled.
    if concurrency == 1:
        worker.send(frame(REQUEST, 7, b"", encode({"method": "main"})) + frame(CANCEL, 7))
        assert worker.receive()[:2] == (INTERRUPTED, 7)
    running = worker.request("main")
    gate.wait()
    assert worker.call("main").meta["reason"] == "Overloaded"
    worker.send(frame(SHUTDOWN, 0, encode(30_000)))
    assert worker.call("main").meta["reason"] == "Closed"
    gate.open()
    assert worker.receive().id == running
    assert worker.wait() == 0


@pytest.mark.parametrize(("kind", "beside", "concurrency"), KINDS.values(), ids=KINDS.keys())
def test_what_comes_with_the_welcome_is_refused_at_once(
    launch: Start, tmp_path: Path, kind: str, beside: str, concurrency: int
) -> None:
    from wire import write

    write(tmp_path, REFUSING.format(kind=kind, beside=beside))
    worker = launch()
    worker.request("nobody")
    worker.receive()
    worker.send_welcome(concurrency=concurrency)
    assert worker.receive().meta["reason"] == "MethodNotFound"


def test_a_start_that_takes_long_is_not_overtaken(start: Start) -> None:
    worker = start("""
        import threading, time
        import synapse
        from synapse import _follower

        class SlowStart(threading.Thread):
            def start(self):
                super().start()
                if self.name == "synapse-follower":
                    time.sleep(0.1)

        _follower.threading = type("threading", (), {"Thread": SlowStart})

        @synapse.handler
        def main():
            return 1
    """)
    assert worker.value("main") == 1


def test_shutdown_waits_for_an_answer_that_is_being_written(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            return b"x" * 15_000_000
    """)
    worker.request("main")
    worker.send(frame(SHUTDOWN, 0, encode(30_000)))
    # It is still writing when it has nothing else to do.
    time.sleep(0.3)
    assert len(worker.receive().payload) == 15_000_000
    assert worker.wait() == 0


def test_a_slow_handler_hands_its_calls_over_many_times(start: Start, gate: Gate) -> None:
    worker = start(BLOCKING, env=gate.env)
    for _ in range(5):
        blocked = worker.request("blocked", "done")
        gate.wait()
        worker.ping()
        quick = [worker.request("quick") for _ in range(3)]
        gate.open()
        assert [worker.receive().id for _ in range(4)] == [blocked, *quick]


def test_with_concurrency_handlers_block_at_once(start: Start, gate: Gate) -> None:
    worker = start(
        """
        import threading
        import synapse

        barrier = threading.Barrier(3)

        @synapse.handler
        def meet():
            barrier.wait(30)
            return synapse.context().call_id, threading.current_thread() is threading.main_thread()
        """,
        welcome={"concurrency": 3},
    )
    for _ in range(3):
        ids = [worker.request("meet") for _ in range(3)]
        got = sorted(worker.receive().payload for _ in ids)
        assert got == [[id, False] for id in ids]
    worker.ping()


def test_one_handler_at_a_time_runs_on_the_main_thread(start: Start) -> None:
    worker = start("""
        import threading
        import synapse

        @synapse.handler
        def main():
            return threading.current_thread() is threading.main_thread()
    """)
    assert worker.value("main") is True


def test_an_asynchronous_handler_is_cancelled(start: Start) -> None:
    worker = start("""
        import asyncio
        import synapse

        ended = []

        @synapse.handler
        async def forever():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        @synapse.handler
        async def keeps():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return "kept"

        @synapse.handler
        async def seen():
            return ended
    """)
    forever = worker.request("forever")
    # Tasks take their first steps in order.
    assert worker.value("seen") == []
    worker.cancel(forever)
    got = worker.receive()
    assert (got.kind, got.id) == (INTERRUPTED, forever)
    assert worker.value("seen") == ["cancelled"]
    keeps = worker.request("keeps")
    worker.cancel(keeps)
    got = worker.receive()
    # Cancelled before or after its first step: one answer in any case.
    assert got.id == keeps and (got.kind == INTERRUPTED or got.payload == "kept")
    worker.ping()


@pytest.mark.parametrize("beside", ["", "@synapse.handler\ndef sync(): pass\n"])
def test_a_task_that_is_cancelled_before_its_first_step_is_answered(
    start: Start, beside: str
) -> None:
    worker = start(f"""
import asyncio
import synapse

@synapse.handler
async def main():
    await asyncio.Event().wait()

{beside}
""")
    meta = encode({"method": "main"})
    for id in range(1, 51):
        worker.send(frame(REQUEST, id, b"", meta) + frame(8, id))
    got = [worker.receive() for _ in range(50)]
    assert [(each.kind, each.id) for each in got] == [(INTERRUPTED, id) for id in range(1, 51)]
    worker.ping()


def test_an_inner_cancellation_is_an_exception_of_the_handler(start: Start) -> None:
    worker = start("""
        import asyncio
        import synapse

        @synapse.handler
        async def main():
            task = asyncio.ensure_future(asyncio.sleep(30))
            task.cancel()
            await task
    """)
    got = worker.call("main")
    assert (got.kind, got.payload["type"]) == (DIE, "CancelledError")


def test_a_cancel_for_a_call_that_has_ended_is_ignored(start: Start) -> None:
    worker = start(ECHO)
    assert worker.value("main", 1) == 1
    worker.cancel(1)
    worker.cancel(4000)
    worker.ping()


def test_frames_of_unknown_kinds_and_ids_are_ignored(start: Start) -> None:
    worker = start(ECHO)
    worker.send(frame(99, 5, b"\xc1") + frame(CREDIT, 9, encode(4)) + frame(PONG, 3))
    assert worker.value("main", 1) == 1


def test_an_id_may_be_used_again(start: Start) -> None:
    worker = start(ECHO)
    for value in range(3):
        worker.request("main", value, id=1)
        assert worker.receive().payload == value


def test_a_deadline_that_has_passed_interrupts_a_call_before_it_starts(
    start: Start, gate: Gate
) -> None:
    source = """
    ran = []

    @synapse.handler
    def note():
        ran.append(1)

    @synapse.handler
    async def anote():
        ran.append(1)

    @synapse.handler
    def seen():
        return ran
    """
    worker = start(BLOCKING + source, env=gate.env)
    assert worker.call("note", deadline=0).kind == INTERRUPTED
    assert worker.call("anote", deadline=0).kind == INTERRUPTED
    worker.request("blocked", "done")
    gate.wait()
    worker.request("note", deadline=0)
    gate.open()
    assert [worker.receive().kind for _ in range(2)] == [SUCCESS, INTERRUPTED]
    assert worker.value("seen") == []


def test_a_handler_sees_its_context(start: Start) -> None:
    worker = start("""
        import asyncio
        import threading
        import time
        import synapse

        def seen():
            context = synapse.context()
            left = None if context.deadline is None else context.deadline - time.monotonic()
            return {
                "method": context.method,
                "call_id": context.call_id,
                "cancelled": context.cancelled,
                "left": left is not None and 0 < left <= 60,
                "remaining": context.remaining is not None and 0 < context.remaining <= 60,
                "trace": context.trace,
                "headers": dict(context.headers),
            }

        @synapse.handler(name="some/name")
        def sync():
            return seen()

        @synapse.handler
        async def asynchronous():
            return [await asyncio.ensure_future(asyncio.to_thread(seen)), seen()]

        @synapse.handler
        def in_a_thread():
            def run():
                try:
                    synapse.context()
                except RuntimeError as error:
                    outcome.append(str(error))
            outcome = []
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            return outcome
    """)
    expected = {
        "method": "some/name",
        "call_id": 1,
        "cancelled": False,
        "left": True,
        "remaining": True,
        "trace": "00-abc",
        "headers": {"user": "me"},
    }
    meta = {"deadline": 60_000, "trace": "00-abc", "headers": {"user": "me"}}
    assert worker.value("some/name", **meta) == expected
    plain = {
        "call_id": 2,
        "method": "asynchronous",
        "left": False,
        "remaining": False,
        "trace": None,
        "headers": {},
        "cancelled": False,
    }
    assert worker.value("asynchronous") == [plain, plain]
    outside = "synapse.context() was called outside of a handler"
    assert worker.value("in_a_thread") == [outside]


@pytest.mark.parametrize("kind", ["", "async "])
def test_context_variables_of_one_call_do_not_reach_another(start: Start, kind: str) -> None:
    worker = start(f"""
        import contextvars
        import synapse

        variable = contextvars.ContextVar("variable", default="unset")

        @synapse.handler
        {kind}def main():
            before = variable.get()
            variable.set("set")
            return before
    """)
    assert [worker.value("main") for _ in range(3)] == ["unset"] * 3


def test_calls_beyond_the_limit_are_rejected(start: Start, gate: Gate) -> None:
    worker = start(BLOCKING, env=gate.env, welcome={"maxOpenCalls": 3})
    worker.request("blocked", "done")
    gate.wait()
    for _ in range(2):
        worker.request("quick")
    got = worker.call("quick")
    assert (got.kind, got.meta) == (DIE, {"reason": "Overloaded", "delivery": "rejected"})
    assert got.payload == {"capacity": 3}
    gate.open()
    assert [worker.receive().kind for _ in range(3)] == [SUCCESS] * 3
    assert worker.value("quick") == "quick"


def test_shutdown_lets_what_runs_finish_and_takes_nothing_new(start: Start, gate: Gate) -> None:
    from wire import SHUTDOWN

    worker = start(BLOCKING, env=gate.env)
    blocked = worker.request("blocked", "done")
    gate.wait()
    worker.send(frame(SHUTDOWN, 0, encode(60_000)))
    got = worker.call("quick")
    assert (got.kind, got.meta) == (DIE, {"reason": "Closed", "delivery": "rejected"})
    gate.open()
    got = worker.receive()
    assert (got.kind, got.id, got.payload) == (SUCCESS, blocked, "done")
    assert worker.wait() == 0


def test_shutdown_ends_what_does_not_finish(start: Start, gate: Gate) -> None:
    worker = start(
        BLOCKING
        + """
    import asyncio
    began = False

    @synapse.handler
    async def forever():
        global began
        began = True
        await asyncio.Event().wait()

    @synapse.handler
    async def has_begun():
        return began
    """,
        env=gate.env,
    )
    worker.request("blocked", "done", id=1000)
    gate.wait()
    forever = worker.request("forever")
    while not worker.value("has_begun"):
        pass
    assert worker.shut_down(grace_millis=0) == 0
    got = worker.receive()
    assert (got.kind, got.id) == (INTERRUPTED, forever)


def test_sigterm_says_go_away_and_finishes_what_runs(start: Start, gate: Gate) -> None:
    worker = start(BLOCKING, env=gate.env)
    worker.request("blocked", "done")
    gate.wait()
    worker.process.terminate()
    assert worker.receive().kind == GO_AWAY
    got = worker.call("quick")
    assert (got.meta["reason"], got.meta["delivery"]) == ("Closed", "rejected")
    gate.open()
    assert worker.receive().payload == "done"
    assert worker.shut_down() == 0


@pytest.mark.parametrize("kind", ["", "async "])
def test_sigterm_ends_an_idle_worker(start: Start, kind: str) -> None:
    worker = start(ECHO.replace("def ", f"{kind}def "))
    worker.process.terminate()
    assert worker.receive().kind == GO_AWAY
    assert worker.wait() == 0


def test_a_signal_that_reaches_another_thread_is_one(start: Start) -> None:
    worker = start(
        """
        import signal
        import threading
        import time
        import synapse

        @synapse.handler
        def main():
            # Until the main thread waits for the host.
            time.sleep(0.1)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        """,
        welcome={"concurrency": 2},
    )
    worker.request("main")
    assert {worker.receive().kind, worker.receive().kind} == {SUCCESS, GO_AWAY}
    assert worker.wait() == 0


def test_nothing_starts_before_welcome(launch: Start, tmp_path: Path) -> None:
    from wire import HELLO, write

    write(tmp_path, ECHO)
    worker = launch()
    worker.request("main", 1)
    worker.send(frame(PING, 5))
    assert worker.receive().kind == HELLO
    worker.socket.settimeout(0.05)
    with pytest.raises(socket.timeout):
        worker.receive()
    worker.socket.settimeout(30)
    worker.send_welcome()
    assert {worker.receive().kind, worker.receive().kind} == {SUCCESS, PONG}


BROKEN = {
    "a length of 0": bytes(12),
    "a length of 7": b"\x07" + bytes(11),
    "a length of four thousand million": b"\xff" * 12,
    "a length above the limit": (1 << 24).to_bytes(4, "little")[:3] + b"\x7f" + bytes(8),
    "a meta length beyond the frame": b"\x08\0\0\0\x01\0\xff\0" + bytes(4),
    "meta that does not decode": frame(REQUEST, 1, b"", b"\xc1"),
    "meta without a method": frame(REQUEST, 1, b"", encode({"a": 1})),
    "meta that is no map": frame(REQUEST, 1, b"", encode([1])),
    "meta with a deadline of text": frame(
        REQUEST, 1, b"", encode({"method": "a", "deadline": "1"})
    ),
    "a shutdown without its grace": frame(15, 0, b"\xc1"),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_host_that_breaks_the_protocol_is_left(start: Start, data: bytes) -> None:
    worker = start(ECHO)
    worker.send(data)
    assert worker.wait() == 76


def test_a_host_that_welcomes_with_another_version_is_left(launch: Start, tmp_path: Path) -> None:
    from wire import write

    write(tmp_path, ECHO)
    worker = launch()
    worker.receive()
    worker.send_welcome(protocol=2)
    assert worker.wait() == 76
    assert "another version" in worker.output()[1]


def test_a_second_request_with_an_open_id_breaks_the_protocol(start: Start, gate: Gate) -> None:
    worker = start(BLOCKING, env=gate.env)
    worker.request("blocked", "done", id=1)
    gate.wait()
    worker.request("quick", id=1)
    assert worker.wait() == 76


@pytest.mark.parametrize("codec", ["msgpack", "python"])
def test_a_worker_runs_without_msgspec(start: Start, tmp_path: Path, codec: str) -> None:
    from wire import MAIN

    hidden = ["msgspec"] if codec == "msgpack" else ["msgspec", "msgpack"]
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        f"import runpy, sys\nfor name in {hidden!r}: sys.modules[name] = None\n"
        f"runpy.run_path({str(MAIN)!r}, run_name='__main__')\n"
    )
    worker = start(ECHO, launcher=[str(launcher)])
    assert worker.value("main", {"a": [1, None, b"x"]}) == {"a": [1, None, b"x"]}
    assert worker.call("add", {"a": "x"}).payload["issue"] == "Expected `int`, got `str`"
    assert worker.call("add", {"a": 1}).payload == 3
    assert worker.shut_down() == 0


def test_threads_are_made_when_they_are_needed(start: Start) -> None:
    worker = start(
        """
        import threading
        import synapse

        @synapse.handler
        def main():
            return threading.active_count()

        @synapse.handler
        def together():
            return barrier.wait(20) >= 0

        barrier = threading.Barrier(8)
        """,
        welcome={"concurrency": 1000},
    )
    assert worker.value("main") < 10
    ids = {worker.request("together") for _ in range(8)}
    got = [worker.receive() for _ in range(8)]
    assert {each.id for each in got} == ids and all(each.payload is True for each in got)
    assert worker.value("main") < 30


def test_an_undeclared_error_says_how_to_declare_it(start: Start) -> None:
    worker = start("""
        import synapse

        class TooLong(synapse.Error):
            limit: int

        @synapse.handler
        def main():
            raise TooLong(limit=3)
    """)
    got = worker.call("main")
    assert (got.kind, got.payload["type"]) == (DIE, "TooLong")
    assert got.payload["notes"] == [
        "handler `main` does not declare `TooLong`: with raises=[TooLong] it travels as a value"
    ]


def test_when_no_name_is_near_a_few_are_shown(start: Start) -> None:
    worker = start("""
        import synapse

        for name in "gfedcba":
            synapse.handler(name=name * 8)(lambda: None)
    """)
    names = [name * 8 for name in "abcde"]
    assert worker.call("zzzzzzzz").payload == {"method": "zzzzzzzz", "nearest": names}
