"""The late follower: a thread that reads when the thread that reads is held up by a handler.

Handlers run on the reading thread, which saves a hand-off for every call. When one takes longer
than a few milliseconds, the follower takes over reading, so that cancels and pings are dealt with
whatever handlers do. It runs no user code.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

_TICK_SECONDS: Final = 0.005
_IDLE_TICKS: Final = 20


class Pace:
    """What the reading thread shows of itself: whether it is away from reading, and how often it
    came back.
    """

    __slots__ = ("asleep", "busy", "turn", "wake")

    def __init__(self) -> None:
        # Calls that came with the `Welcome` run before anything is read again.
        self.busy = True
        self.turn = 0
        self.asleep = False
        self.wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    def leave_reading(self) -> None:
        """The reading thread goes to work. The follower is told only when it sleeps, not for every
        call.
        """
        self.turn += 1
        self.busy = True
        if self.asleep:
            self.asleep = False
            self.wake.put(None)


class Follower:
    """Watches a `Pace`, and calls `follow` with the turn that has lasted too long."""

    __slots__ = ("_follow", "_on_idle", "_pace")

    def __init__(
        self,
        pace: Pace,
        follow: Callable[[int], None],
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._pace = pace
        self._follow = follow
        self._on_idle = on_idle

    def start(self, name: str) -> None:
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        pace = self._pace
        idle = 0
        while True:
            if idle >= _IDLE_TICKS:
                self._sleep()
                idle = 0
            seen = pace.turn
            time.sleep(_TICK_SECONDS)
            if pace.turn != seen:
                idle = 0
            elif not pace.busy:
                idle += 1
            else:
                idle = 0
                self._follow(seen)

    def _sleep(self) -> None:
        self._on_idle()
        pace = self._pace
        pace.asleep = True
        # The reading thread shows that it is busy before it looks whether we sleep.
        if not pace.busy:
            pace.wake.get()
        pace.asleep = False
