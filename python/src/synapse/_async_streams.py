"""Asynchronous streams: each is one task, which waits where there is no room."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Final

from synapse._answers import ItemRefused
from synapse._calls import Call
from synapse._frames import Outgoing
from synapse._outgoing import OutStream
from synapse._steps import log_close, not_iterable

if TYPE_CHECKING:
    from synapse._loop import TaskRunner
    from synapse._worker import Worker

# A stream that never waits for anything lets others run after this long.
_TURN_SECONDS: Final = 0.01


async def stream_items(
    worker: Worker, tasks: TaskRunner, call: Call, make: Callable[[], Any]
) -> Outgoing:
    """Send the items of what a handler makes; returns the answer that ends the stream."""
    source: Any = None
    answer: Outgoing
    try:
        if call.cancelled:
            raise asyncio.CancelledError
        made = make()
        source = _asynchronous(await made if inspect.isawaitable(made) else made, call)
        answer = await _send(worker, tasks, call, source)
        worker.leave_child(None)
    except ItemRefused as refused:
        answer = refused.answer
    except asyncio.CancelledError as error:
        # Without a request to cancel it, something that the handler waited for was cancelled.
        answer = worker.answers.failure(call.id, call.handler, error)
    except BaseException as error:
        worker.leave_child(error)
        answer = worker.answers.failure(call.id, call.handler, error)
    if source is not None:
        stream = call.stream
        assert stream is not None
        stream.is_closing = True
        await _close(worker, call, source)
    return worker.answers.interrupted(call.id) if call.cancelled else answer


async def _send(worker: Worker, tasks: TaskRunner, call: Call, source: Any) -> Outgoing:
    stream = call.stream
    assert stream is not None
    item, now = worker.answers.item, time.monotonic
    turned = now()
    async for value in source:
        if worker.is_child:
            worker.leave_child(None)
        if call.cancelled:
            # Whether it has been told, and has not listened, or is about to be.
            raise asyncio.CancelledError
        stream.put(item(call.id, stream.count, value, stream.max_item))
        tasks.send_soon(stream)
        if not stream.has_room:
            await _room(worker, call, stream)
            turned = now()
        elif now() - turned > _TURN_SECONDS:
            await asyncio.sleep(0)
            turned = now()
    return worker.answers.success(call.id, None)


async def _room(worker: Worker, call: Call, stream: OutStream) -> None:
    while not stream.has_room:
        stream.flush()
        worker.channel.flush()
        stream.wake = asyncio.get_running_loop().create_future()
        if stream.park(call):
            await stream.wake
        elif call.cancelled:
            raise asyncio.CancelledError


async def _close(worker: Worker, call: Call, source: Any) -> None:
    error: BaseException | None = None
    try:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
    except BaseException as raised:
        error = raised
    worker.leave_child(error)
    if error is not None:
        log_close(call, error)


def _asynchronous(made: Any, call: Call) -> Any:
    if hasattr(made, "__aiter__"):
        return made.__aiter__()
    if hasattr(made, "__iter__"):
        return _iterated(made)
    raise not_iterable(made, call)


async def _iterated(made: Any) -> AsyncIterator[Any]:
    iterator = iter(made)
    try:
        for item in iterator:
            yield item
    finally:
        if hasattr(iterator, "close"):
            iterator.close()
