"""Threads that wait for the host.

A thread that waits reads what arrives, unless another one does: then it sleeps, and is woken when
what it waits for is there, or when nobody reads any more. Of those that sleep, one is woken by each
thread that stops reading, and passes that on where it does not read itself.

A call that the host makes while it answers a call of ours is run by the thread that waits for that
answer: no other might be free.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from synapse._calls import Call
from synapse._cancel import Cancelled

if TYPE_CHECKING:
    from synapse._worker import Worker


class Pending(Protocol):
    """What a thread waits for."""

    waiters: set[Callable[[], None]]

    @property
    def ready(self) -> bool: ...


class Seat:
    """The place of one thread while it waits, for each of its waits that are nested."""

    __slots__ = ("_gate", "depth", "inbox", "is_free")

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self.depth = 0
        # Whether the thread waits, and runs nothing meanwhile.
        self.is_free = False
        # Calls for this thread to run.
        self.inbox: deque[Call] = deque()

    def wake(self) -> None:
        """End the sleep of the thread, or else its next one."""
        with contextlib.suppress(RuntimeError):
            self._gate.release()

    def sleep(self) -> None:
        self._gate.acquire()


class Waits:
    """Knows who waits, and who reads next."""

    __slots__ = ("_local", "_nested", "_nesting", "_reading", "_worker", "main_waits", "sleepers")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reading = worker.channel.reading
        self._local = threading.local()
        self.sleepers: deque[Seat] = deque()
        # A finalizer of the module may wait for the host wherever the collector finds it.
        self._nesting = threading.RLock()
        # Calls of host functions that are queued, because no thread waited for those functions.
        self._nested: set[Call] = set()
        # The main thread is about to read: it looks at who sleeps after it has taken this back.
        self.main_waits = False

    # Reading

    @property
    def is_wanted(self) -> bool:
        """Whether whoever reads should leave it to the main thread, which has calls to run."""
        return self.main_waits and self._worker.runner.has_ready

    def let_go(self) -> None:
        """Stop reading."""
        self._reading.release()
        if self.sleepers:
            self.pass_on()

    def pass_on(self) -> None:
        """See to it that somebody reads, as long as there are threads that wait."""
        if self.sleepers and not self.main_waits and not self._reading.locked():
            with contextlib.suppress(IndexError):
                self.sleepers.popleft().wake()

    def _take_reading(self, seat: Seat) -> bool:
        if not self.is_wanted and self._reading.acquire(blocking=False):
            return True
        # Said first, looked at second: whoever stops reading does it the other way round.
        self.sleepers.append(seat)
        return not self.is_wanted and self._reading.acquire(blocking=False)

    # Waiting

    def wait(self, pending: Pending, call: Call | None) -> None:
        """Wait, in any thread but that of an event loop, on behalf of `call`.

        Raises:
            Cancelled: The call has been cancelled.
            RuntimeError: This thread reads or writes, and a destructor that it runs waits.
        """
        if self._worker.channel.is_mine:
            raise RuntimeError(
                "this runs on the thread that reads what the host says or writes to it, as "
                "destructors may: it cannot wait for the host"
            )
        seat = self._seat()
        pending.waiters.add(seat.wake)
        self._sit(seat, call)
        try:
            while not pending.ready:
                if call is not None and call.cancelled:
                    raise Cancelled
                if seat.inbox:
                    self._run_next(seat)
                    # It may have waited for the same.
                    pending.waiters.add(seat.wake)
                else:
                    self._read_or_sleep(seat, pending, call)
        finally:
            pending.waiters.discard(seat.wake)
            self._leave(seat, call)

    def _seat(self) -> Seat:
        try:
            seat: Seat = self._local.seat
        except AttributeError:
            seat = self._local.seat = Seat()
        return seat

    def _sit(self, seat: Seat, call: Call | None) -> None:
        extras = None if call is None else call.extend()
        with self._nesting:
            seat.depth += 1
            if extras is not None:
                extras.seats.append(seat)
            self._set_free(seat)

    def _set_free(self, seat: Seat) -> None:
        """Let a thread that waits run calls, also those that no thread was free for."""
        seat.is_free = True
        if not self._nested:
            return
        for nested in list(self._nested):
            if _seat_of(nested) is seat and self._worker.runner.take_back(nested):
                self._nested.discard(nested)
                seat.inbox.append(nested)

    def _leave(self, seat: Seat, call: Call | None) -> None:
        with self._nesting:
            seat.depth -= 1
            seat.is_free = False
            if call is not None:
                call.extend().seats.remove(seat)
            left = self._empty(seat) if seat.depth == 0 else []
            if left and threading.get_ident() == self._worker.runner.main_thread:
                # Its handler goes on, and may wait again.
                self._nested.update(left)
                self._worker.runner.run_elsewhere(left)
                left = []
        self.pass_on()
        if left:
            self._worker.runner.run_elsewhere(left)

    def _empty(self, seat: Seat) -> list[Call]:
        """Give the calls of a thread that is not free to those that are; returns the rest."""
        left: list[Call] = []
        while seat.inbox:
            call = seat.inbox.popleft()
            other = _seat_of(call)
            if other is None:
                left.append(call)
            else:
                other.inbox.append(call)
                other.wake()
        return left

    def _run_next(self, seat: Seat) -> None:
        self.pass_on()
        with self._nesting:
            call = seat.inbox.popleft()
            # What it runs may wait for other threads.
            seat.is_free = False
            seat.inbox.extend(self._empty(seat))
        self._worker.runner.run_nested(call)
        with self._nesting:
            self._set_free(seat)
        if seat.inbox:
            # What is there may be a stream that never stops.
            self._worker.read_arrived()

    def _read_or_sleep(self, seat: Seat, pending: Pending, call: Call | None) -> None:
        worker = self._worker
        worker.pause()
        try:
            if self._take_reading(seat):
                try:
                    while not (
                        pending.ready
                        or seat.inbox
                        or self.is_wanted
                        or (call is not None and call.cancelled)
                    ):
                        worker.read()
                finally:
                    self.let_go()
            else:
                seat.sleep()
        finally:
            with contextlib.suppress(ValueError):
                self.sleepers.remove(seat)
            worker.unpause()

    def wake(self, call: Call) -> None:
        """Let the threads that wait on behalf of a call look at it."""
        if call.extras is not None:
            for seat in list(call.extras.seats):
                seat.wake()

    # Calls of host functions

    def route(self, call: Call, queue: Callable[[Call], None]) -> None:
        """Give a call to the thread that waits for the function that made it; or queue it."""
        with self._nesting:
            seat = _seat_of(call)
            if seat is None:
                self._nested.add(call)
                queue(call)
                return
            seat.inbox.append(call)
        seat.wake()

    def taken(self, call: Call) -> None:
        """A call is in no queue any more."""
        self._nested.discard(call)

    def put_back(self, call: Call) -> bool:
        """Let this thread go on with a call later, if it waits for the host."""
        seat = self._seat()
        if seat.depth == 0:
            return False
        seat.inbox.append(call)
        return True

    def run_all(self, calls: Sequence[Call]) -> None:
        """Run calls in this thread until none is left that can go on."""
        seat = self._seat()
        seat.depth += 1
        seat.inbox.extend(calls)
        while seat.inbox:
            self._worker.runner.run_nested(seat.inbox.popleft())
        seat.depth -= 1


def _seat_of(call: Call) -> Seat | None:
    """The free thread that waits for what made a call; one without other calls, if there is."""
    busier: Seat | None = None
    caller = call.parent
    while caller is not None:
        for seat in () if caller.extras is None else reversed(caller.extras.seats):
            if seat.is_free:
                if not seat.inbox:
                    return seat
                busier = busier or seat
        caller = caller.parent
    return busier
