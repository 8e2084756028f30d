"""The regions of file 1 of the shared memory: the worker's own, for what it sends."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

#: Regions begin at multiples of it, and what they have of the file is one.
UNIT: Final = 65_536
#: The upper bits of a region's number are its file.
FILE_SHIFT: Final = 30
OWN_FILE: Final = 1

_MAX_REGIONS: Final = 1 << FILE_SHIFT
_ZEROS: Final = 1 << 20
# A worker that sends large values now and then does not have its memory made anew for each.
TRIM_SECONDS: Final = 3.0


class Region:
    """A part of the file. All but its place is the table's to change."""

    __slots__ = ("backed", "capacity", "held", "number", "sent", "solid", "start")

    def __init__(self, number: int, start: int, capacity: int) -> None:
        self.number = number
        self.start = start
        self.capacity = capacity
        # How much of it, from its start, the file may have memory for.
        self.backed = 0
        # How much of it the file does have memory for; whoever holds the region says so.
        self.solid = 0
        # References that the host has, and what holds on to the memory in this process.
        self.sent = 0
        self.held = 0

    @property
    def in_use(self) -> bool:
        return bool(self.sent or self.held)


class Regions:
    """Gives regions out, and counts who needs them.

    What a region is taken for holds it until it says otherwise with `let_go`, which finalizers may
    do wherever they run: what they say is dealt with by whoever uses the table next.
    """

    def __init__(self, fd: int, capacity: int, on_backed: Callable[[], None]) -> None:
        self._fd = fd
        self._capacity = capacity
        # The file has memory from now on, which somebody has to take back one day.
        self._on_backed = on_backed
        self._regions: dict[int, Region] = {}
        self._free: set[Region] = set()
        self._end = 0
        self._backed = 0
        self._last_used = time.monotonic()
        self._left: deque[Region] = deque()
        # A finalizer of the module may use the table wherever the collector finds it.
        self._lock = threading.RLock()

    @property
    def backed(self) -> int:
        """How much memory the file may have."""
        return self._backed

    def let_go(self, region: Region) -> None:
        """Hold on to a region no more; takes no lock."""
        self._left.append(region)

    def take(self, size: int) -> Region | None:
        """A region for so many bytes, more than none, which is held; `None` where there is no room.

        Nothing says that the file has memory for them: see `reserve`.
        """
        with self._lock:
            self._settle()
            needed = -(-size // UNIT) * UNIT
            region = self._fitting(needed)
            if region is None and len(self._free) == len(self._regions) and self._backed:
                # What is there is of the wrong sizes.
                self._trim()
                region = self._fitting(needed)
            if region is None:
                return None
            region.held += 1
            self._free.discard(region)
            self._last_used = time.monotonic()
            more = max(0, needed - region.backed)
            had, self._backed = self._backed, self._backed + more
            region.backed += more
        if not had:
            self._on_backed()
        return region

    def _fitting(self, needed: int) -> Region | None:
        room = self._capacity - self._backed
        best: Region | None = None
        for region in tuple(self._free):
            fits = region.capacity >= needed and needed - region.backed <= room
            if fits and (best is None or _badness(region) < _badness(best)):
                best = region
        if best is not None or needed > room or len(self._regions) == _MAX_REGIONS:
            return best
        number = OWN_FILE << FILE_SHIFT | len(self._regions)
        region = Region(number, self._end, max(UNIT, 1 << (needed - 1).bit_length()))
        self._end += region.capacity
        self._regions[number] = region
        self._free.add(region)
        return region

    def reserve(self, region: Region, size: int) -> None:
        """See to it that there is memory for what will be written through a mapping.

        Raises:
            OSError: There is none.
        """
        if region.solid >= size:
            return
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, region.start, size)
        else:
            for offset in range(0, size, _ZEROS):
                zeros = bytes(min(_ZEROS, size - offset))
                write(self._fd, memoryview(zeros), region.start + offset)
        region.solid = size

    def hold(self, number: int, start: int) -> Region | None:
        """Hold on to a region that the host speaks of; `None` where it has none of it."""
        with self._lock:
            region = self._regions.get(number)
            if region is None or region.start != start or not region.in_use:
                return None
            region.held += 1
            return region

    def hold_again(self, region: Region) -> None:
        """Hold on to a region once more; for who does so already."""
        with self._lock:
            region.held += 1

    def send(self, region: Region) -> None:
        """Let the host have what was held."""
        with self._lock:
            region.sent += 1
            region.held -= 1

    def free(self, number: int) -> bool:
        """The host needs one of its references no more; whether it had any."""
        with self._lock:
            region = self._regions.get(number)
            if region is None or not region.sent:
                return False
            region.sent -= 1
            self._look_at(region)
            self._settle()
            return True

    def _settle(self) -> None:
        while self._left:
            region = self._left.popleft()
            region.held -= 1
            self._look_at(region)

    def _look_at(self, region: Region) -> None:
        if not region.in_use:
            self._free.add(region)
            self._last_used = time.monotonic()

    def trim(self, idle_seconds: float = TRIM_SECONDS) -> None:
        """Give the memory back, where no region has been in use for so long."""
        with self._lock:
            self._settle()
            is_idle = time.monotonic() - self._last_used >= idle_seconds
            if self._backed and is_idle and len(self._free) == len(self._regions):
                self._trim()

    def _trim(self) -> None:
        os.ftruncate(self._fd, 0)
        for region in self._regions.values():
            region.backed = region.solid = 0
        self._backed = 0


def _badness(region: Region) -> tuple[int, int, int]:
    return region.capacity, -region.backed, region.number


def write(fd: int, data: memoryview, offset: int) -> None:
    """Write all of it.

    Raises:
        OSError: There is no room.
    """
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written
