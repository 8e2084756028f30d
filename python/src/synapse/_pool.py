"""Threads for synchronous handlers, where more than one may run at once."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

from synapse._calls import Call


class Pool:
    """Daemon threads over one queue, made when they are needed, up to a number; only threads that
    sleep are woken, one for each call.
    """

    __slots__ = ("_idle", "_ready", "_run", "_size", "_started", "_wake")

    def __init__(self, size: int, run: Callable[[Call], None]) -> None:
        self._run = run
        self._ready: deque[Call] = deque()
        # One entry for each thread that is about to sleep: a counter that is changed in one step.
        self._idle: deque[None] = deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._size = size
        self._started = 0

    def submit(self, calls: Sequence[Call]) -> None:
        """Queue calls. One thread at a time does so: the one that reads."""
        self._ready.extend(calls)
        for _ in calls:
            try:
                self._idle.pop()
            except IndexError:
                if self._started == self._size or not self._start():
                    return
            else:
                self._wake.put(None)

    def put_back(self, call: Call) -> None:
        """Queue a call again; only for a thread of the pool, which takes the next one then."""
        self._ready.append(call)

    def take_back(self, call: Call) -> None:
        """Take a call out of the queue; raises `ValueError` where a thread has."""
        self._ready.remove(call)

    def _start(self) -> bool:
        name = f"synapse-{self._started}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            # The system has no more: those that are there do the work.
            if self._started == 0:
                raise
            self._size = self._started
            return False
        self._started += 1
        return True

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
