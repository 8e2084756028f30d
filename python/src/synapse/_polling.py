"""Waiting for the host without going to sleep, for as long as that pays.

Waking a thread that sleeps takes longer than most calls. A host that makes one call after another
sends the next one within some ten microseconds of an answer: looking for it that long costs less
than sleeping.
"""

from __future__ import annotations

import select
import time
from typing import Final

# So often in a row it may look in vain before it sleeps at once.
_PATIENCE: Final = 4


class Polling:
    """Looks whether a descriptor has something to read, again and again for a moment.

    It is given up when it does not pay, and taken up again when something arrives so soon after
    the thread went to sleep that it would have been seen.
    """

    __slots__ = ("_fd", "_misses", "_poll", "_slept_at", "seconds")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        #: How long to look. 0: not at all.
        self.seconds = 0.0
        self._misses = 0
        self._slept_at = 0.0
        self._poll: select.poll | None = None

    def begin(self, seconds: float) -> None:
        """Look for so long from now on, where the system can."""
        if seconds > 0 and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
            self.seconds = seconds

    def look(self) -> None:
        """Return when something can be read, or when it is time to sleep."""
        poll = self._poll
        if poll is None:
            return
        now = time.perf_counter
        if self._misses >= _PATIENCE:
            self._slept_at = now()
            return
        until = now() + self.seconds
        while not poll.poll(0):
            if now() >= until:
                self._misses += 1
                self._slept_at = 0.0
                return
        self._misses = 0
        self._slept_at = 0.0

    def woke(self) -> None:
        """Something has arrived."""
        if self._slept_at and time.perf_counter() - self._slept_at < self.seconds:
            self._misses = 0
