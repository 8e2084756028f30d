"""Where synchronous handlers run: the main thread, the threads of a pool, and those that wait for
the host.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

from synapse import _incoming
from synapse._binding import Arguments
from synapse._calls import Call
from synapse._cancel import Guard
from synapse._codec import DecodeIssue
from synapse._context import current_call
from synapse._faults import leave_faulty
from synapse._frames import Outgoing
from synapse._steps import Steps

if TYPE_CHECKING:
    from synapse._pool import Pool
    from synapse._worker import Worker


class Runner:
    """Runs synchronous calls, and knows which of them wait for a thread."""

    __slots__ = ("_context", "_steps", "_worker", "main_thread", "pool", "ready")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._steps = Steps(worker)
        # What a call may find in its context, whichever thread runs it.
        self._context = copy_context()
        # For the main thread, and added to by whoever reads and by itself alone.
        self.ready: deque[Call] = deque()
        self.main_thread: int | None = None
        self.pool: Pool | None = None

    def open(self, concurrency: int) -> None:
        """Let so many handlers run at once."""
        if concurrency == 1:
            self.main_thread = threading.get_ident()
            return
        from synapse._pool import Pool

        self.pool = Pool(concurrency, self._run_in_pool)

    @property
    def has_ready(self) -> bool:
        """Whether the main thread has something to do."""
        return bool(self.ready or self._worker.objects.due)

    def queue(self, call: Call) -> None:
        """Let the thread, or a thread, of synchronous handlers run a call; for whoever reads."""
        if self.pool is not None:
            self.pool.submit((call,))
        else:
            self.ready.append(call)

    def put_back(self, call: Call) -> None:
        """Let this thread turn to others before it goes on with a call."""
        waits = self._worker.waits
        if waits.put_back(call):
            return
        if self.pool is None:
            self._worker.read_arrived()
        queue = self.ready.append if self.pool is None else self.pool.put_back
        if call.parent is None:
            queue(call)
        else:
            waits.route(call, queue)

    def take_back(self, call: Call) -> bool:
        """Take a call out of the queue, unless it has been started."""
        try:
            if self.pool is not None:
                self.pool.take_back(call)
            else:
                self.ready.remove(call)
        except ValueError:
            return False
        return True

    def run_nested(self, call: Call) -> None:
        """Run a call in a thread that waits for the host."""
        self._context.copy().run(self.run, call)
        self._worker.channel.flush()

    def run_elsewhere(self, calls: list[Call]) -> None:
        """Run calls that this thread was to run, and does not."""
        if threading.get_ident() == self.main_thread:
            self.ready.extendleft(reversed(calls))
            return
        threading.Thread(
            target=self._worker.waits.run_all, args=(calls,), name="synapse-rest", daemon=True
        ).start()

    def _run_in_pool(self, call: Call) -> None:
        try:
            self.run(call)
            self._worker.channel.flush()
            if self._worker.objects.due:
                self._worker.objects.close_due()
        except BaseException:
            leave_faulty()

    def run(self, call: Call) -> None:
        """Run a synchronous handler to its answer, which leaves with the next flush."""
        if call.extras is not None:
            if call.extras.parent is not None:
                self._worker.waits.taken(call)
            if call.extras.stream is not None:
                self._steps.run(call)
                return
        bound = self.bind(call)
        if bound is None:
            return
        arguments, named = bound
        worker = self._worker
        answer: Outgoing
        try:
            context, function = copy_context(), call.handler.function
            context.run(_set_current, call)
            guard = None if call.extras is None else call.extras.guard
            if guard is not None:
                value = guard.call(context.run, function, *arguments, **(named or {}))
            elif named is None:
                value = context.run(function, *arguments)
            else:
                value = context.run(function, *arguments, **named)
        except BaseException as error:
            if worker.is_child:
                worker.leave_child(error)
            answer = worker.answers.failure(call.id, call.handler, error)
        else:
            if worker.is_child:
                worker.leave_child(None)
            answer = worker.answers.success(call.id, value)
        worker.end(call, worker.answers.interrupted(call.id) if call.cancelled else answer)

    def bind(self, call: Call) -> Arguments | None:
        """Start a call: its arguments, or `None` where it has been answered instead."""
        handler = call.handler
        if handler.cancel == "interrupt":
            call.extend().guard = Guard()
        call.started = True
        if call.cancelled:
            self._worker.canceller.refuse(call)
            return None
        if call.deadline is not None and time.monotonic() >= call.deadline:
            call.payload = None
            self._worker.end(call, self._worker.answers.interrupted(call.id))
            return None
        # A thread that has nothing to do may have the call, and must not have memory in it.
        payload, call.payload = call.payload, None
        try:
            arguments = handler.bind(payload)
        except DecodeIssue as issue:
            _incoming.take_arrived()
            self._worker.end(call, self._worker.answers.decode_failed(call.id, issue))
            return None
        except BaseException as error:
            _incoming.take_arrived()
            self._worker.end(call, self._worker.answers.exception(call.id, error))
            return None
        if _incoming.arrived:
            for stream in _incoming.take_arrived():
                stream.adopt(self._worker.link, call)
        return arguments


_set_current: Final = current_call.set
