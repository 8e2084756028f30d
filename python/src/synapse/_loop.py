"""Asynchronous handlers: tasks on an asyncio loop, in the reading thread or in one of its own."""

from __future__ import annotations

import asyncio
import functools
import selectors
import sys
import threading
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from synapse._async_streams import stream_items
from synapse._calls import Call
from synapse._channel import BATCH_SECONDS
from synapse._context import current_call
from synapse._follower import Follower, Pace
from synapse._frames import Outgoing
from synapse._outgoing import OutStream
from synapse._polling import Polling

if TYPE_CHECKING:
    from synapse._worker import Worker


class _WatchedSelector(selectors.DefaultSelector):
    """Tells the follower when the loop is held up: it is waiting here whenever nothing keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace()
        self.polling: Polling | None = None
        self.is_idle: Callable[[], bool] = lambda: False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.pace.busy = False
        try:
            # With a timer or a callback there is something else to do.
            if timeout is None and self.polling is not None and self.is_idle():
                self.polling.look()
                events = super().select(timeout)
                self.polling.woke()
                return events
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
        # Whether a `TaskRunner` runs it, or is about to; and held by whoever does run it.
        self.is_served = False
        self.running = threading.Lock()
        # The first step of a task that is being made.
        self.step: tuple[Callable[[], Any], Context] | None = None
        self.keep_step: Any = self._keep_step
        self.ordinary_call_soon: Any = self.call_soon

    def _keep_step(self, step: Callable[[], Any], *, context: Context) -> None:
        self.step = step, context


class TaskRunner:
    """Runs calls as tasks of one loop. Everything but `submit`, `cancel` and `cancel_all` happens
    in its thread.
    """

    def __init__(self, worker: Worker, pace: Pace, loop: Loop) -> None:
        self._worker = worker
        self._pace = pace
        self.loop = loop
        loop.watched.pace = pace
        loop.is_served = True
        self._thread: int | None = None
        self._flushing = False
        # Those with items that wait for the next turn of the loop.
        self._streams: set[OutStream] = set()

    def start_thread(self) -> None:
        """Run the loop in a daemon thread, beside synchronous handlers."""
        # Answers that are ready do not wait for a handler that holds up the loop.
        Follower(self._pace, lambda _turn: self._worker.channel.flush()).start("synapse-flusher")
        threading.Thread(target=self.run, name="synapse-loop", daemon=True).start()

    def run(self) -> None:
        with self.loop.running:
            self._run_forever()

    def _run_forever(self) -> None:
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

    def poll_with(self, polling: Polling, is_idle: Callable[[], bool]) -> None:
        """Look for what can be read before going to sleep, while nothing runs."""
        self.loop.watched.polling, self.loop.watched.is_idle = polling, is_idle

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
        if call.task is None or call.answered:
            return
        # What is being closed has been told, and may wait for something at its end.
        stream = call.stream
        if stream is None or not stream.is_closing:
            call.task.cancel()

    def _start_all(self, calls: Sequence[Call]) -> None:
        worker, now = self._worker, time.perf_counter
        flush_at = now() + BATCH_SECONDS
        # What ends at once is sent here, and needs no turn of the loop for it.
        flushing, self._flushing = self._flushing, True
        try:
            for call in calls:
                self._start(call)
                if worker.following or now() >= flush_at:
                    worker.channel.flush()
                    flush_at = now() + BATCH_SECONDS
        finally:
            self._flushing = flushing
        for stream in list(self._streams):
            self._send(stream)
        worker.channel.flush()

    def _start(self, call: Call) -> None:
        bound = self._worker.runner.bind(call)
        if bound is not None:
            arguments, named = bound
            is_plain = call.extras is None or call.extras.stream is None
            run = (self._run if is_plain else self._run_stream)(call, arguments, named)
            self._make_task(call, run, copy_context())

    def _make_task(self, call: Call, run: Coroutine[Any, Any, None], context: Context) -> None:
        task = _begin_task(self.loop, run, context, call.handler.name)
        if not call.answered:
            call.task = task
            task.add_done_callback(functools.partial(self._end_unbegun, call))

    async def _run(
        self, call: Call, arguments: tuple[Any, ...], named: dict[str, Any] | None
    ) -> None:
        current_call.set(call)
        answers, handler = self._worker.answers, call.handler
        answer: Outgoing
        try:
            if named is None:
                value = await handler.function(*arguments)
            else:
                value = await handler.function(*arguments, **named)
            if self._worker.is_child:
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
        # What ends at once is sent by whoever starts it.
        if not self._flushing or self._worker.following:
            self._flush_soon()

    async def _run_stream(
        self, call: Call, arguments: tuple[Any, ...], named: dict[str, Any] | None
    ) -> None:
        current_call.set(call)
        await self._stream(
            call, functools.partial(call.handler.function, *arguments, **(named or {}))
        )

    async def _stream(self, call: Call, make: Callable[[], Any]) -> None:
        answer = await stream_items(self._worker, self, call, make)
        stream = call.stream
        assert stream is not None
        self._send(stream)
        self._worker.end(call, answer)
        self._flush_soon()

    def stream(self, call: Call, made: AsyncIterable[Any]) -> None:
        """Stream what a synchronous handler has returned."""
        self.loop.call_soon_threadsafe(self._start_stream, call, made)

    def _start_stream(self, call: Call, made: AsyncIterable[Any]) -> None:
        stream = call.stream
        assert stream is not None and stream.context is not None
        self._make_task(call, self._stream(call, lambda: made), stream.context)

    def wake(self, call: Call) -> None:
        """Let a stream that was parked go on."""
        if self._thread == threading.get_ident():
            self._wake(call)
        else:
            self.loop.call_soon_threadsafe(self._wake, call)

    def _wake(self, call: Call) -> None:
        stream = call.stream
        parked = None if stream is None else stream.wake
        if parked is not None and not parked.done():
            parked.set_result(None)

    def send_soon(self, stream: OutStream) -> None:
        """Send the items of a stream in the next turn of the loop, or when that is late."""
        if stream not in self._streams:
            self._streams.add(stream)
            self._worker.flusher.watch(stream)
            self._flush_in_turn()

    def _send(self, stream: OutStream) -> None:
        self._streams.discard(stream)
        self._worker.flusher.leave(stream)
        stream.flush()

    def _end_unbegun(self, call: Call, _task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step never runs its coroutine.
        if not call.answered:
            self._worker.end(call, self._worker.answers.interrupted(call.id))
            self._flush_soon()

    def _flush_soon(self) -> None:
        if self._worker.following:
            # Nobody would flush if the loop were held up before its next turn.
            self._worker.channel.flush()
        else:
            self._flush_in_turn()

    def _flush_in_turn(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for stream in list(self._streams):
            self._send(stream)
        self._worker.channel.flush()

    def flush_soon(self) -> bool:
        """Write what is queued in the next turn of the loop, if this thread runs it."""
        if self._thread != threading.get_ident():
            return False
        self._flush_soon()
        return True


def _begin_task(loop: Loop, coroutine: Any, context: Context, name: str) -> asyncio.Task[Any]:
    """Make a task and run it until it waits for the first time. Not within another task."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, name=name, context=context, eager_start=True)
    # A task asks its loop to run its first step soon. That is done here, and at once.
    loop.call_soon = loop.keep_step  # type: ignore[method-assign]
    try:
        if sys.version_info >= (3, 11):
            task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, name=name, context=context)
        else:
            task = context.run(asyncio.Task, coroutine, loop=loop, name=name)
    finally:
        loop.call_soon = loop.ordinary_call_soon  # type: ignore[method-assign]
    assert loop.step is not None
    step, its_context = loop.step
    loop.step = None
    its_context.run(step)
    return task
