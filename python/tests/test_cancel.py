from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_calls import Gate
from wire import (
    CANCEL,
    CHUNK,
    DIE,
    ENDS,
    INTERRUPTED,
    PONG,
    REQUEST,
    SHUTDOWN,
    SUCCESS,
    Worker,
    encode,
    frame,
)

Start = Callable[..., Worker]

SOURCE = """
import contextlib, os, threading, time
import synapse

seen = []

def begun():
    with open(os.environ["BEGUN"], "w"):
        pass

@synapse.handler(cancel="interrupt")
def loop():
    try:
        begun()
        while True:
            pass
    finally:
        seen.append("finally")

@synapse.handler(cancel="interrupt")
def swallows():
    try:
        begun()
        while True:
            pass
    except synapse.Cancelled:
        seen.append("swallowed")
    for n in range(100):
        print("still here", n)
    return sum(range(200_000))

@synapse.handler(cancel="interrupt")
def wraps():
    try:
        begun()
        while True:
            pass
    except BaseException as error:
        raise ValueError("another") from error

@synapse.handler(cancel="interrupt")
def prints():
    begun()
    while True:
        print("x" * 100)

@synapse.handler(cancel="interrupt")
def asks():
    try:
        return synapse.host.call_sync("f")
    finally:
        # What is raised is raised once.
        for n in range(100_000):
            pass
        seen.append("asked")

@synapse.handler(cancel="interrupt")
def items():
    begun()
    try:
        n = 0
        while True:
            n += 1
            if n > 3:
                while True:
                    pass
            yield n
    finally:
        for n in range(100_000):
            pass
        seen.append("closed")

@synapse.handler
def cooperative():
    begun()
    context = synapse.context()
    while not context.cancelled:
        time.sleep(0.001)
    return "stopped by itself"

@synapse.handler
def tell():
    told = list(seen)
    seen.clear()
    return told
"""

KINDS: dict[str, dict[str, int]] = {"main": {}, "pool": {"concurrency": 3}}


@pytest.fixture(params=KINDS)
def concurrency(request: pytest.FixtureRequest) -> dict[str, int]:
    return KINDS[request.param]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.fixture
def worker(start: Start, concurrency: dict[str, int], gate: Gate) -> Worker:
    return start(SOURCE, welcome=concurrency, env=gate.env)


def test_a_handler_that_says_so_is_interrupted(worker: Worker, gate: Gate) -> None:
    for _ in range(5):
        id = worker.request("loop")
        gate.wait()
        worker.cancel(id)
        got = worker.receive()
        assert (got.kind, got.id) == (INTERRUPTED, id)
        assert worker.value("tell") == ["finally"]


def test_one_that_does_not_say_so_is_asked(worker: Worker, gate: Gate) -> None:
    id = worker.request("cooperative")
    gate.wait()
    worker.cancel(id)
    got = worker.receive()
    assert (got.kind, got.id) == (INTERRUPTED, id)


def test_one_that_swallows_it_is_just_not_interrupted(worker: Worker, gate: Gate) -> None:
    id = worker.request("swallows")
    gate.wait()
    worker.cancel(id)
    # The caller has given up all the same.
    assert (worker.receive().kind) == INTERRUPTED
    assert worker.value("tell") == ["swallowed"]
    assert id


def test_what_comes_of_an_interruption_is_one(worker: Worker, gate: Gate) -> None:
    worker.request("wraps", id=1)
    gate.wait()
    worker.cancel(1)
    assert worker.receive()[:2] == (INTERRUPTED, 1)


def test_one_that_prints_is_interrupted_between_its_lines(worker: Worker, gate: Gate) -> None:
    id = worker.request("prints")
    gate.wait()
    worker.cancel(id)
    assert worker.receive()[:2] == (INTERRUPTED, id)
    worker.ping()


def test_one_that_waits_for_the_host_is_interrupted_there(worker: Worker) -> None:
    for _ in range(5):
        id = worker.request("asks")
        asked = worker.asked("f")
        worker.cancel(id)
        got = {(each.kind, each.id) for each in (worker.receive(), worker.receive())}
        assert got == {(CANCEL, asked.id), (INTERRUPTED, id)}
        worker.answer(asked.id)
        assert worker.value("tell") == ["asked"]


def test_a_generator_is_interrupted_within_a_step(worker: Worker, gate: Gate) -> None:
    id = worker.stream("items")
    gate.wait()
    assert worker.take(id, 3) == [1, 2, 3]
    worker.cancel(id)
    assert worker.receive()[:2] == (INTERRUPTED, id)
    assert worker.value("tell") == ["closed"]


def test_a_generator_is_closed_between_its_steps(worker: Worker, gate: Gate) -> None:
    id = worker.stream("items", granted=2)
    gate.wait()
    worker.take(id, 2)
    worker.cancel(id)
    assert worker.receive()[:2] == (INTERRUPTED, id)
    assert worker.value("tell") == ["closed"]


def test_a_worker_replaced_at_cancel_is_told_in_hello(launch: Start, tmp_path: Path) -> None:
    from wire import write

    write(
        tmp_path,
        """
        import synapse

        @synapse.handler(cancel="replace")
        def main(): pass
        """,
    )
    worker = launch()
    assert worker.welcome()["methods"][0]["cancel"] == "replace"
    assert worker.value("main") is None


def test_what_has_not_started_at_the_end_of_the_grace_is_refused(start: Start, gate: Gate) -> None:
    worker = start(SOURCE, env=gate.env)
    running = worker.request("loop")
    gate.wait()
    waiting = [worker.request("tell") for _ in range(3)]
    stream = worker.stream("items")
    worker.send(frame(SHUTDOWN, 0, encode(50)))
    got = {}
    while len(got) < 5:
        each = worker.receive()
        got[each.id] = (each.kind, each.meta)
    refused = (DIE, {"reason": "Closed", "delivery": "rejected"})
    assert got == {
        running: (INTERRUPTED, None),
        **{id: refused for id in waiting},
        stream: refused,
    }
    assert worker.wait() == 0


@pytest.mark.parametrize("kind", ["", "async "])
def test_without_a_grace_it_is_refused_at_once(start: Start, kind: str) -> None:
    worker = start(f"""
        import synapse

        @synapse.handler
        {kind}def main():
            pass
    """)
    meta = encode({"method": "main"})
    requests = b"".join(frame(REQUEST, id, b"", meta) for id in range(1, 51))
    worker.send(requests + frame(SHUTDOWN, 0, encode(0)))
    got = [worker.receive() for _ in range(50)]
    assert sorted(each.id for each in got) == list(range(1, 51))
    for each in got:
        assert each.kind == SUCCESS or each.meta == {"reason": "Closed", "delivery": "rejected"}
    assert worker.wait() == 0


STRAY = """
import contextlib, logging, threading, time
import synapse

logger = logging.getLogger("stray")
# What is found out once, under a lock of that module.
logger.isEnabledFor(logging.WARNING)
lock = threading.Lock()

@synapse.handler(cancel="interrupt")
def spin(n: int):
    total = 0
    for each in range(n):
        total += each
    return total

@synapse.handler(cancel="interrupt")
def locked(n: int):
    for each in range(n // 10):
        with lock:
            each += 1

@synapse.handler(cancel="interrupt")
def prints(n: int):
    for each in range(n // 500):
        print("line", each)

@synapse.handler(cancel="interrupt")
def items(n: int):
    for each in range(n // 20):
        yield each

@synapse.handler(cancel="interrupt")
def swallows(n: int):
    try:
        for each in range(n):
            pass
    except synapse.Cancelled:
        pass
    return "swallowed"

@synapse.handler(cancel="interrupt")
def asks(n: int):
    return synapse.host.call_sync("f", n)

@synapse.handler(cancel="interrupt")
def reports(n: int):
    for each in range(n // 500):
        synapse.context().progress(each)

@synapse.handler(cancel="interrupt")
def logs(n: int):
    for each in range(n // 500):
        logger.warning("line %d", each)

@synapse.handler
def plain(n: int):
    for each in range(n // 4):
        pass
    return "plain"

@synapse.handler
def check():
    assert lock.acquire(timeout=5)
    lock.release()
    logger.warning("still heard")
    return threading.active_count()
"""

METHODS = ["spin", "locked", "prints", "items", "swallows", "asks", "reports", "logs", "plain"]


def test_an_interruption_never_strays(
    start: Start, concurrency: dict[str, int], cases: Callable[[int], int]
) -> None:
    """Thousands of cancels at random moments: each call has one end, no other call notices, and
    the threads that run them live on.
    """
    worker = start(STRAY, welcome=concurrency)
    count = cases(10_000)
    seed = random.randrange(1 << 30)
    random.seed(seed)
    open_calls: dict[int, str] = {}
    ends: dict[int, tuple[int, Any]] = {}
    lock = threading.Lock()
    room = threading.Semaphore(6)
    done = threading.Event()

    def read() -> None:
        while len(ends) < count:
            got = worker.receive()
            if got.kind == REQUEST:
                worker.answer(got.id, got.payload)
            elif got.kind == CHUNK:
                worker.credit(got.id, len(got.payload))
            elif got.kind in ENDS:
                with lock:
                    assert got.id not in ends
                    ends[got.id] = (got.kind, got)
                room.release()
        done.set()

    sending = threading.Lock()
    send = worker.send

    def send_whole(data: bytes) -> None:
        with sending:
            send(data)

    worker.send = send_whole  # type: ignore[method-assign]
    threading.Thread(target=read, daemon=True).start()
    for id in range(1, count + 1):
        # A bound for what never ends, not for how fast a machine is.
        assert room.acquire(timeout=60), seed
        method = random.choice(METHODS)
        open_calls[id] = method
        meta: dict[str, Any] = {"stream": 64} if method == "items" else {}
        if method == "reports":
            meta["progress"] = True
        worker.request(method, {"n": random.randrange(20_000)}, id=id, **meta)
        how = random.random()
        if how < 0.4:
            time.sleep(random.random() * 0.001)
        if how < 0.85:
            worker.cancel(random.randint(max(1, id - 2), id))
    assert done.wait(60), seed
    assert sorted(ends) == list(range(1, count + 1))
    for id, (kind, got) in ends.items():
        if kind not in (SUCCESS, INTERRUPTED):
            raise AssertionError((seed, open_calls[id], got))
    kinds = [kind for kind, _ in ends.values()]
    assert kinds.count(INTERRUPTED) > count / 10
    assert worker.value("check") >= 1
    assert worker.logs[-1]["message"] == "still heard"
    worker.send(frame(12, 99))
    assert worker.receive().kind == PONG
    assert not [log for log in worker.logs if log["level"] >= 40], (seed, worker.logs)
    assert worker.shut_down() == 0
