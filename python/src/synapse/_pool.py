"""Threads for synchronous handlers, where more than one may run at once."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from synapse._calls import Call

_RETRACTED: Final = None


class Pool:
    """A fixed number of daemon threads over one queue; only threads that sleep are woken, one for
    each call.
    """

    __slots__ = ("_idle", "_ready", "_run", "_wake")

    def __init__(self, size: int, run: Callable[[Call], None]) -> None:
        self._run = run
        self._ready: deque[Call] = deque()
        # One entry for each thread that is about to sleep: a counter that is changed in one step.
        self._idle: deque[None] = deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        for number in range(size):
            threading.Thread(target=self._work, name=f"synapse-{number}", daemon=True).start()

    def submit(self, calls: Sequence[Call]) -> None:
        self._ready.extend(calls)
        for _ in range(min(len(calls), len(self._idle))):
            try:
                self._idle.pop()
            except IndexError:
                return
            self._wake.put(None)

    def _work(self) -> None:
        ready, idle, run = self._ready, self._idle, self._run
        while True:
            try:
                call = ready.popleft()
            except IndexError:
                self._sleep(ready, idle)
                continue
            run(call)

    def _sleep(self, ready: deque[Call], idle: deque[None]) -> None:
        idle.append(None)
        # Announced first, looked at second; `submit` does it the other way round, so that one of
        # both sees the other.
        if ready:
            try:
                idle.pop()
            except IndexError:
                pass
            else:
                return
        self._wake.get()
