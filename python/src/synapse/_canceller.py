"""Calls that are not wanted any more."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from synapse._calls import Call

if TYPE_CHECKING:
    from synapse._worker import Worker


class Canceller:
    """Tells calls to stop, and answers those that have not started."""

    __slots__ = ("_is_closing", "_lock", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        # Reader and runner may both find out that a call is not to be started.
        self._lock = threading.Lock()
        self._is_closing = False

    def cancel(self, id: int) -> None:
        call = self._worker.calls.get(id)
        # Told twice, a handler could not clean up.
        if call is None or call.cancelled:
            self._worker.ignored += 1
            return
        call.cancelled = True
        if not call.started:
            if not call.handler.is_async:
                self.refuse(call)
            # Without a task yet, it looks at `cancelled` before it makes one.
        elif self._tell(call):
            assert call.stream is not None
            self._worker.go_on(call, call.stream)

    def _tell(self, call: Call) -> bool:
        """Tell a handler to stop; whether it is that of a stream which is to be queued again."""
        stream = call.stream
        self._worker.waits.wake(call)
        if call.handler.is_async or (stream is not None and stream.on_loop):
            if self._worker.tasks is not None:
                self._worker.tasks.cancel(call)
            return False
        guard = call.guard
        if guard is not None:
            guard.interrupt()
        return stream is not None and stream.unpark()

    def cancel_all(self) -> None:
        """Tell every open call to stop; those that have not started can be made elsewhere."""
        self._is_closing = True
        calls = [call for call in list(self._worker.calls.values()) if not call.cancelled]
        # First of all, so that none starts in the place of one that ends.
        for call in calls:
            call.cancelled = True
        parked = []
        for call in calls:
            if not call.started:
                self.refuse(call)
            elif self._tell(call):
                parked.append(call)
        if parked:
            # The main thread may be reading, and not to be woken.
            self._worker.runner.run_elsewhere(parked)

    def refuse(self, call: Call) -> None:
        """Answer a call that was cancelled before it started, whoever of reader and runner finds
        out first.
        """
        with self._lock:
            if not call.answered:
                # It may stay queued for a while, and nobody counts it any more.
                call.payload = None
                answers = self._worker.answers
                answer = answers.closed if self._is_closing else answers.interrupted
                self._worker.end(call, answer(call.id))
        self._worker.channel.flush()

    def recall(self, id: int) -> None:
        """Give a call back that has not started: the host has a better place for it."""
        worker = self._worker
        call = worker.calls.get(id)
        taken = call is not None and not call.started and not call.handler.is_async
        if call is None or not taken or not worker.runner.take_back(call):
            worker.ignored += 1
            return
        if call.parent is not None:
            worker.waits.taken(call)
        with self._lock:
            if not call.answered:
                worker.end(call, worker.answers.recalled(call.id))
