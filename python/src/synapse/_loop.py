"""Asynchronous handlers: tasks on an asyncio loop, in the reading thread or in one of its own."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import selectors
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from synapse._calls import Call
from synapse._codec import DecodeIssue
from synapse._context import current_call
from synapse._follower import Follower, Pace
from synapse._frames import Outgoing

if TYPE_CHECKING:
    from synapse._worker import Worker


class _WatchedSelector(selectors.DefaultSelector):
    """Tells the follower when the loop is held up: it is waiting here whenever nothing keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.pace.busy = False
        try:
            return super().select(timeout)
        finally:
            self.pace.leave_reading()


class Loop(asyncio.SelectorEventLoop):
    """The event loop of a worker. Hooks use it before there are calls, and its pace is watched from
    then on.
    """

    def __init__(self) -> None:
        self.watched = _WatchedSelector()
        super().__init__(self.watched)


class TaskRunner:
    """Runs calls as tasks of one loop. Everything but `submit`, `cancel` and `cancel_all` happens
    in its thread.
    """

    def __init__(self, worker: Worker, pace: Pace, loop: Loop) -> None:
        self._worker = worker
        self._pace = pace
        self.loop = loop
        loop.watched.pace = pace
        self._thread: int | None = None
        self._flushing = False

    def start_thread(self) -> None:
        """Run the loop in a daemon thread, beside synchronous handlers."""
        # Answers that are ready do not wait for a handler that holds up the loop.
        Follower(self._pace, lambda _turn: self._worker.channel.flush()).start("synapse-flusher")
        threading.Thread(target=self.run, name="synapse-loop", daemon=True).start()

    def run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._thread = threading.get_ident()
        # A handler cannot stop the loop: SystemExit and KeyboardInterrupt in callbacks of its own
        # can.
        while True:
            try:
                self.loop.run_forever()
            except BaseException as error:
                self.loop.call_exception_handler(
                    {"message": "A callback left the loop", "exception": error}
                )

    def read_when_ready(self, fd: int, read: Callable[[], None]) -> None:
        self.loop.add_reader(fd, read)

    def submit(self, calls: Sequence[Call]) -> None:
        """Start calls, all of a batch with one wake-up."""
        if self._thread == threading.get_ident():
            self._start_all(calls)
        else:
            self.loop.call_soon_threadsafe(self._start_all, calls)

    def cancel(self, call: Call) -> None:
        if self._thread == threading.get_ident():
            self._cancel(call)
        else:
            self.loop.call_soon_threadsafe(self._cancel, call)

    def _cancel(self, call: Call) -> None:
        # Without a task it has not started, and looks at `cancelled` when it does; or it has ended.
        if call.task is not None and not call.answered:
            call.task.cancel()

    def _start_all(self, calls: Sequence[Call]) -> None:
        for call in calls:
            self._start(call)
        self._flush_soon()

    def _start(self, call: Call) -> None:
        worker = self._worker
        call.started = True
        if call.cancelled or (call.deadline is not None and time.monotonic() >= call.deadline):
            worker.end(call, worker.answers.interrupted(call.id))
            return
        try:
            arguments, named = call.handler.bind(call.payload)
        except DecodeIssue as issue:
            worker.end(call, worker.answers.decode_failed(call.id, issue))
            return
        except BaseException as error:
            worker.end(call, worker.answers.exception(call.id, error))
            return
        call.payload = None
        context = contextvars.copy_context()
        context.run(current_call.set, call)
        task = _make_task(self.loop, self._run(call, arguments, named), context)
        if not call.answered:
            call.task = task
            task.add_done_callback(functools.partial(self._end_unbegun, call))

    async def _run(
        self, call: Call, arguments: tuple[Any, ...], named: dict[str, Any] | None
    ) -> None:
        answers, handler = self._worker.answers, call.handler
        answer: Outgoing
        try:
            value = await handler.function(*arguments, **(named or {}))
            self._worker.leave_child(None)
        except asyncio.CancelledError as error:
            # Without a request to cancel it, something that the handler waited for was cancelled.
            if call.cancelled:
                answer = answers.interrupted(call.id)
            else:
                answer = answers.failure(call.id, handler, error)
        except BaseException as error:
            self._worker.leave_child(error)
            answer = answers.failure(call.id, handler, error)
        else:
            answer = answers.success(call.id, value)
        self._worker.end(call, answer)
        self._flush_soon()

    def _end_unbegun(self, call: Call, _task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step never runs its coroutine.
        if not call.answered:
            self._worker.end(call, self._worker.answers.interrupted(call.id))
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._worker.following:
            # Nobody would flush if the loop were held up before its next turn.
            self._worker.channel.flush()
        elif not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._worker.channel.flush()


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, context: contextvars.Context
) -> asyncio.Task[Any]:
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
    if sys.version_info >= (3, 11):
        return asyncio.Task(coroutine, loop=loop, context=context)
    return context.run(asyncio.Task, coroutine, loop=loop)
