"""Looking for the next call before going to sleep."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from synapse._polling import Polling


class Polled(Polling):
    """Counts how often it asks the system."""

    def __init__(self, fd: int, seconds: float) -> None:
        super().__init__(fd)
        self.begin(seconds)
        self.asked = 0
        poll = self._poll
        if poll is not None:
            self._poll = _Counted(self, poll)  # type: ignore[assignment]


class _Counted:
    def __init__(self, owner: Polled, poll: object) -> None:
        self.owner, self.inner = owner, poll

    def poll(self, timeout: int) -> list[tuple[int, int]]:
        self.owner.asked += 1
        found: list[tuple[int, int]] = self.inner.poll(timeout)  # type: ignore[attr-defined]
        return found


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


Pair = tuple[socket.socket, socket.socket]


def test_it_ends_when_something_can_be_read(pair: Pair) -> None:
    ours, theirs = pair
    polling = Polled(ours.fileno(), 3600)
    theirs.send(b"x")
    polling.look()
    assert polling.asked == 1


def test_it_ends_by_itself(pair: Pair) -> None:
    polling = Polled(pair[0].fileno(), 0.001)
    polling.look()
    assert polling.asked >= 1


def test_it_is_given_up_when_it_does_not_pay(pair: Pair) -> None:
    polling = Polled(pair[0].fileno(), 0.001)
    for _ in range(4):
        polling.look()
    asked = polling.asked
    polling.look()
    assert polling.asked == asked


def test_it_is_taken_up_again_when_it_would_have_paid(pair: Pair) -> None:
    ours, theirs = pair
    polling = Polled(ours.fileno(), 0.001)
    for _ in range(5):
        polling.look()
    time.sleep(0.01)
    polling.woke()
    asked = polling.asked
    polling.look()
    assert polling.asked == asked, "what came was too late to be seen"
    polling.seconds = 3600
    polling.woke()
    theirs.send(b"x")
    polling.look()
    assert polling.asked == asked + 1


def test_it_does_nothing_unless_it_is_wanted(pair: Pair) -> None:
    polling = Polling(pair[0].fileno())
    polling.look()
    polling.woke()
    polling.begin(0)
    polling.look()
    assert polling.seconds == 0
