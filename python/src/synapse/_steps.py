"""Synchronous streams: generators that are run a slice at a time, so that none of them holds the
thread it runs in.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from synapse._answers import ItemRefused
from synapse._calls import Call
from synapse._cancel import Cancelled
from synapse._context import current_call
from synapse._frames import Outgoing
from synapse._outgoing import OutStream

if TYPE_CHECKING:
    from synapse._worker import Worker

_SLICE_SECONDS: Final = 0.01
# An item that took longer to make leaves at once: the next one may take as long.
_SLOW_SECONDS: Final = 0.0001


class Steps:
    """Runs synchronous streams. A slice lasts until there is no room, or for some milliseconds;
    then the thread turns to others.
    """

    __slots__ = ("_worker",)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, call: Call) -> None:
        """Begin a stream, or go on with it."""
        stream = call.stream
        assert stream is not None
        if stream.source is None and not self._open(call, stream):
            return
        assert stream.context is not None
        self._worker.flusher.watch(stream)
        answer = stream.context.run(self._slice, call, stream)
        self._worker.flusher.leave(stream)
        if call.cancelled or answer is not None:
            self._end(call, stream, answer)
            return
        self._flush(stream)
        # Once it is parked, another thread may be at it.
        if stream.has_room or not stream.park(call):
            self._worker.runner.put_back(call)

    def _open(self, call: Call, stream: OutStream) -> bool:
        worker = self._worker
        bound = worker.runner.bind(call)
        if bound is None:
            return False
        context = stream.context = contextvars.copy_context()
        context.run(current_call.set, call)
        arguments, named = bound
        function = functools.partial(call.handler.function, *arguments, **(named or {}))
        try:
            made = context.run(_guarded(call), function)
            if hasattr(made, "__iter__") or not hasattr(made, "__aiter__"):
                stream.source = context.run(_iterator, made, call)
            if worker.is_child:
                worker.leave_child(None)
        except BaseException as error:
            worker.leave_child(error)
            failure = worker.answers.failure(call.id, call.handler, error)
            worker.end(call, worker.answers.interrupted(call.id) if call.cancelled else failure)
            return False
        if stream.source is None:
            worker.stream_on_loop(call, made)
            return False
        return True

    def _slice(self, call: Call, stream: OutStream) -> Outgoing | None:
        """Make items; returns the answer once there are no more."""
        worker, source, largest = self._worker, stream.source, stream.max_item
        guard = call.guard
        advance = next if guard is None else functools.partial(guard.call, next)
        item, now = worker.answers.item, time.monotonic
        before = now()
        until = before + _SLICE_SECONDS
        while not call.cancelled and stream.has_room and before < until:
            try:
                value = advance(source)
            except StopIteration:
                worker.leave_child(None)
                return worker.answers.success(call.id, None)
            except BaseException as error:
                worker.leave_child(error)
                return worker.answers.failure(call.id, call.handler, error)
            if worker.is_child:
                worker.leave_child(None)
            try:
                stream.put(item(call.id, stream.count, value, largest))
            except ItemRefused as refused:
                return refused.answer
            after = now()
            if after - before > _SLOW_SECONDS:
                self._flush(stream)
                after = now()
            before = after
        return None

    def _flush(self, stream: OutStream) -> None:
        stream.flush()
        self._worker.channel.flush()

    def _end(self, call: Call, stream: OutStream, answer: Outgoing | None) -> None:
        worker = self._worker
        assert stream.context is not None
        stream.context.run(self._close, call, stream.source)
        stream.flush()
        if call.cancelled or answer is None:
            answer = worker.answers.interrupted(call.id)
        worker.end(call, answer)

    def _close(self, call: Call, source: Any) -> None:
        error: BaseException | None = None
        try:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        except BaseException as raised:
            error = raised
        self._worker.leave_child(error)
        if error is not None and not isinstance(error, Cancelled):
            log_close(call, error)


def log_close(call: Call, error: BaseException) -> None:
    """Say what a stream raised as it was closed: its call has another end."""
    logging.getLogger("synapse").error(
        "The stream of `%s` failed while it was closed", call.handler.name, exc_info=error
    )


def _guarded(call: Call) -> Any:
    guard = call.guard
    return _call if guard is None else guard.call


def _call(function: Any) -> Any:
    return function()


def _iterator(made: Any, call: Call) -> Any:
    try:
        return iter(made)
    except TypeError:
        if hasattr(made, "__iter__"):
            raise
        raise not_iterable(made, call) from None


def not_iterable(made: Any, call: Call) -> TypeError:
    kind = type(made).__qualname__
    return TypeError(f"handler `{call.handler.name}` streams what it returns, and that is `{kind}`")
