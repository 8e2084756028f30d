"""The numbers of calls: one is free as soon as its call has been answered."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from wire import SUCCESS, Worker, encode

from synapse._answers import Answers
from synapse._calls import Call
from synapse._channel import Channel
from synapse._codec import choose
from synapse._frames import ProtocolBroken
from synapse._handlers import Handler
from synapse._requests import Requests


def main(payload: Any) -> Any:
    return payload


META = encode({"method": "main"})


@pytest.fixture
def calls() -> dict[int, Call]:
    return {}


@pytest.fixture
def requests(calls: dict[int, Call]) -> Requests:
    codec = choose()
    handler = Handler(main, "main")
    handler.prepare(codec)
    ours, _theirs = socket.socketpair()
    objects: Any = SimpleNamespace()
    requests = Requests({"main": handler}, codec, Answers(codec), calls, Channel(ours), objects)
    requests.max_open_calls = 8
    return requests


def test_a_number_is_waited_for_whose_call_has_been_answered_and_is_about_to_go(
    requests: Requests, calls: dict[int, Call]
) -> None:
    first = requests.accept(1, META, bytearray(b"\xc0"), False)
    assert first is not None
    first.answered = True

    def leave() -> None:
        time.sleep(0.02)
        del calls[1]

    leaving = threading.Thread(target=leave)
    leaving.start()
    second = requests.accept(1, META, bytearray(b"\xc0"), False)
    leaving.join()
    assert second is not None and calls == {1: second} and second is not first


def test_a_number_whose_call_is_open_breaks_the_protocol(
    requests: Requests, calls: dict[int, Call]
) -> None:
    assert requests.accept(1, META, bytearray(b"\xc0"), False) is not None
    with pytest.raises(ProtocolBroken, match="the id 1 of an open call"):
        requests.accept(1, META, bytearray(b"\xc0"), False)
    assert len(calls) == 1


def test_threads_that_answer_leave_their_numbers_to_whoever_asks_next(
    start: Callable[..., Worker],
) -> None:
    worker = start(
        """
        import synapse

        @synapse.handler
        def main(payload):
            return payload
        """,
        welcome={"concurrency": 4},
    )
    for id in range(1, 5):
        worker.request("main", 0, id=id)
    for n in range(2000):
        got = worker.receive()
        assert got.kind == SUCCESS
        # The answer may be here before its thread has gone on.
        worker.request("main", n, id=got.id)
