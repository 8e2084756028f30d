"""Shared memory: the files that the host has given, what lies there of a message that arrived, and
how the host learns that it is needed no more.
"""

from __future__ import annotations

import contextlib
import os
import queue
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from synapse._msgpack import Malformed
from synapse._regions import FILE_SHIFT, OWN_FILE, TRIM_SECONDS, UNIT, Region, Regions

if TYPE_CHECKING:
    import mmap

    from synapse._channel import Channel

_VARIABLE: Final = "SYNAPSE_MEMORY"
#: The descriptor of file 0; the others follow.
FIRST_FD: Final = 6
_COUNTS: Final = {"": 0, "2": 2, "3": 3}
#: The file whose values are referred to whatever their size.
KEPT_FILE: Final = 2
# Each may take a descriptor.
_MAX_MAPPINGS: Final = 64
# How long a `Free` waits for something else that leaves.
_LATE_SECONDS: Final = 0.01


def claim_files() -> int:
    """How many files of shared memory there are. The module does not see what told so, and programs
    that it starts do not get them.

    Raises:
        ValueError: They are not there.
    """
    said = os.environ.pop(_VARIABLE, "")
    count = _COUNTS.get(said)
    if count is None:
        raise ValueError(f"{_VARIABLE} is {said!r}: there are 2 or 3 files of shared memory")
    for fd in range(FIRST_FD, FIRST_FD + count):
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        except OSError:
            is_file = False
        if not is_file:
            raise ValueError(f"descriptor {fd} is not a file of shared memory")
        os.set_inheritable(fd, False)
    return count


class Claim:
    """The right to a part of the memory. It ends with the last object that holds it."""

    __slots__ = ("_memory", "length", "number", "offset", "region", "start")

    def __init__(
        self,
        memory: Memory,
        number: int,
        start: int,
        offset: int,
        length: int,
        region: Region | None = None,
    ) -> None:
        self._memory = memory
        self.number = number
        self.start = start
        self.offset = offset
        self.length = length
        # Where it is the worker's own.
        self.region = region

    @property
    def file(self) -> int:
        return self.number >> FILE_SHIFT

    def is_of(self, memory: Memory) -> bool:
        return self._memory is memory

    def view(self) -> Any:
        """The memory, as an array of ctypes that holds the claim; for more than no bytes.

        Raises:
            Malformed: It is not there.
        """
        return self._memory.view(self)

    def read(self) -> bytes:
        """A copy of the bytes.

        Raises:
            Malformed: They are not there.
        """
        return self._memory.read(self)

    def __del__(self) -> None:
        # As the interpreter ends, modules are gone before objects are.
        with contextlib.suppress(Exception):
            self._memory.end(self)


class Memory:
    """The files of a worker, and how they are mapped."""

    def __init__(self, channel: Channel, count: int) -> None:
        self._freed: deque[int] = channel.freed
        self._count = count
        self._pid = os.getpid()
        self._keeper = Keeper(self, channel.flush)
        self._mappings: dict[int, tuple[int, mmap.mmap]] = {}
        # A finalizer of the module may decode something wherever the collector finds it.
        self._mapping = threading.RLock()
        self.regions: Regions | None = None
        # A message may arrive together with what opens it.
        self._is_claimed = False
        #: Whether anything has arrived that lies in the file whose values stay.
        self.has_kept = False
        if count:
            channel.claim_with(self.claim)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._close_in_child)

    def open(self, capacity: int) -> Regions | None:
        """Use it, with so many bytes for what the worker sends; `None` where there is none."""
        if not self._count:
            return None
        self.regions = Regions(FIRST_FD + OWN_FILE, capacity, self._keeper.watch)
        if self._is_claimed:
            self._keeper.start()
        return self.regions

    @property
    def is_of_parent(self) -> bool:
        """Whether this is a forked process, whose memory is its parent's to speak of."""
        return self._pid != os.getpid()

    def _close_in_child(self) -> None:
        self.regions = None
        for fd in range(FIRST_FD, FIRST_FD + self._count):
            with contextlib.suppress(OSError):
                os.close(fd)

    # Claims

    def claim(self, number: int, start: int, offset: int, length: int) -> Claim:
        """The claim of a reference that has arrived, which may turn out to be none."""
        region = None
        if number >> FILE_SHIFT != OWN_FILE:
            self._is_claimed = True
            self._keeper.start()
        elif self.regions is not None:
            # The host has one of its own until its `Free` arrives, behind this.
            region = self.regions.hold(number, start)
        return Claim(self, number, start, offset, length, region)

    def own(self, region: Region, length: int) -> Claim:
        """The claim of a region that the caller holds, and from now on the claim does."""
        return Claim(self, region.number, region.start, region.start, length, region)

    def end(self, claim: Claim) -> None:
        """Nothing needs the memory any more. Called by finalizers, on any thread and anywhere in
        it: takes no lock and writes nothing.
        """
        if self.is_of_parent:
            return
        if claim.file != OWN_FILE:
            self._freed.append(claim.number)
            self._keeper.wake()
        elif claim.region is not None and self.regions is not None:
            self.regions.let_go(claim.region)

    @property
    def has_freed(self) -> bool:
        """Whether the host is to hear of something."""
        return bool(self._freed)

    def free(self, number: int) -> bool:
        """The host needs one of its references to a region no more; whether it had any."""
        return self.regions is not None and self.regions.free(number)

    # What lies there

    def _check(self, claim: Claim) -> int:
        """The descriptor of the file in which a claim lies."""
        file, end = claim.file, claim.offset + claim.length
        if self.regions is None or file >= self._count:
            raise Malformed(f"a value in file {file} of shared memory, which is not there")
        fd = FIRST_FD + file
        if claim.start % UNIT or claim.offset < claim.start or end > os.fstat(fd).st_size:
            raise Malformed("a value in shared memory beyond its file or region")
        if file == OWN_FILE:
            region = claim.region
            if region is None or end > region.start + region.backed:
                raise Malformed("a value in shared memory that the worker has not sent")
        return fd

    def read(self, claim: Claim) -> bytes:
        fd = self._check(claim)
        read, parts = 0, []
        while read < claim.length:
            part = os.pread(fd, claim.length - read, claim.offset + read)
            if not part:
                raise Malformed("a value in shared memory beyond its file or region")
            parts.append(part)
            read += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def view(self, claim: Claim) -> Any:
        import ctypes

        fd = self._check(claim)
        end = claim.offset + claim.length
        try:
            mapping = self._mapped(fd, claim.number, claim.start, end - claim.start)
        except OSError as error:
            raise Malformed(f"shared memory cannot be mapped: {error}") from None
        # The length is a part of its type.
        view: Any = (ctypes.c_ubyte * claim.length).from_buffer(mapping, claim.offset - claim.start)
        view.claim = claim
        if claim.file == KEPT_FILE:
            self.has_kept = True
        return view

    def map_own(self, region: Region, size: int) -> mmap.mmap:
        """A region of the worker's, which has memory for so many bytes.

        Raises:
            OSError: It cannot be mapped.
        """
        return self._mapped(FIRST_FD + OWN_FILE, region.number, region.start, size)

    def _mapped(self, fd: int, number: int, start: int, needed: int) -> mmap.mmap:
        with self._mapping:
            # The one that was used last stands last.
            known = self._mappings.pop(number, None)
            if known is not None and known[0] != start:
                self._mappings[number] = known
                raise Malformed("a region of shared memory in another place than before")
            if known is None or len(known[1]) < needed:
                known = start, _map(fd, start, needed)
            self._mappings[number] = known
            if len(self._mappings) > _MAX_MAPPINGS:
                # What lies in it holds it.
                del self._mappings[next(iter(self._mappings))]
            return known[1]


def _map(fd: int, start: int, needed: int) -> mmap.mmap:
    import mmap

    # What a region is used for next may be a little larger.
    size = min(1 << (needed - 1).bit_length(), os.fstat(fd).st_size - start)
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, offset=start, trackfd=False)
    return mmap.mmap(fd, size, offset=start)


class Keeper:
    """A thread that sends what finalizers have left when nothing else is sent, and gives the memory
    of an idle worker back. It is started when there is something to look after.
    """

    __slots__ = ("_asleep", "_flush", "_memory", "_started", "_starting", "_wake")

    def __init__(self, memory: Memory, flush: Callable[[], None]) -> None:
        self._memory = memory
        self._flush = flush
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = False
        self._started = False
        self._starting = threading.Lock()

    def start(self) -> None:
        if self._started or self._memory.regions is None:
            return
        with self._starting:
            if not self._started:
                self._started = True
                # The system may have no more threads: then things wait for others that flush.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._run, name="synapse-memory", daemon=True).start()

    def watch(self) -> None:
        """From now on there is memory to give back."""
        self.start()
        self.wake()

    def wake(self) -> None:
        """Let it look; takes no lock that anybody holds."""
        if self._asleep:
            self._asleep = False
            self._wake.put(None)

    def _run(self) -> None:
        memory, regions = self._memory, self._memory.regions
        assert regions is not None
        while True:
            self._asleep = True
            # Said first, looked at second: whoever leaves something does it the other way round.
            if not memory.has_freed:
                with contextlib.suppress(queue.Empty):
                    self._wake.get(timeout=TRIM_SECONDS if regions.backed else None)
            self._asleep = False
            if memory.has_freed:
                # Most leave with what is sent anyway.
                time.sleep(_LATE_SECONDS)
                self._flush()
            with contextlib.suppress(OSError):
                regions.trim()
