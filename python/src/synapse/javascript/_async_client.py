"""The client for asyncio: the blocking one, in threads of its own."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import EllipsisType, TracebackType
from typing import Any, TypeVar, overload

from synapse.javascript._client import Client, MessageHandler, ThreadStats, to_converter
from synapse.javascript._connection import Command

T = TypeVar("T")


class AsyncClient:
    """Runs JavaScript in Node, for asyncio.

        async with javascript.AsyncClient(threads=2) as js:
            await js.run("(m, p) => p.map((x) => x * 2)", [1, 2, 3])

    It takes the options of `Client` and starts with `async with`, or with the first command. A task
    that is cancelled, or times out, stops its JavaScript. Message handlers run on the event loop,
    and may be functions of either kind.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._client: Client | None = None
        self._starting: asyncio.Lock | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._is_closed = False

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """Node's process, when it was started."""
        return None if self._client is None else self._client.process

    @overload
    async def run(
        self,
        source: str,
        param: Any = None,
        message_handler: MessageHandler | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
    ) -> Any: ...

    @overload
    async def run(
        self,
        source: str,
        param: Any = None,
        message_handler: MessageHandler | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
        returns: type[T],
    ) -> T: ...

    async def run(
        self,
        source: str,
        param: Any = None,
        message_handler: MessageHandler | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
        returns: Any = Any,
    ) -> Any:
        """Run a function `(m, p) => …` and return its value; see `Client.run`."""
        convert = to_converter(returns)
        client = await self._started()
        calls = _Calls(message_handler, client.message_timeout)
        handler = None if message_handler is None else calls.call
        command = client.command(source, param, handler, timeout)
        return convert(await self._execute(client, command, calls))

    async def run_raw(
        self,
        source: str,
        json_param: str,
        message_handler: Callable[[str], Any] | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
    ) -> str:
        """Like `run`, with the texts of plain JSON on this side; see `Client.run_raw`."""
        client = await self._started()
        calls = _Calls(message_handler, client.message_timeout)
        handler = None if message_handler is None else calls.call
        command = client.raw_command(source, json_param, handler, timeout)
        return (await self._execute(client, command, calls)).decode()

    async def stats(self) -> list[ThreadStats]:
        """The figures of each thread; see `Client.stats`."""
        client = await self._started()
        return await asyncio.to_thread(client.stats)

    async def reset(self) -> None:
        """Give every thread a new runtime; see `Client.reset`."""
        client = await self._started()
        await asyncio.to_thread(client.reset)

    async def close(self) -> None:
        """End Node; a second call does nothing."""
        self._is_closed = True
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def __aenter__(self) -> AsyncClient:
        await self._started()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _started(self) -> Client:
        if self._client is not None:
            return self._client
        self._starting = self._starting or asyncio.Lock()
        async with self._starting:
            if self._client is None:
                client = await asyncio.to_thread(lambda: Client(**self._options))
                self._threads = ThreadPoolExecutor(client.threads, "synapse-javascript")
                self._client = client
                if self._is_closed:
                    await self.close()
        return self._client

    async def _execute(self, client: Client, command: Command, calls: _Calls) -> bytes:
        if self._is_closed or self._threads is None:
            # The client says that it is closed.
            return client.execute(command)
        future = self._threads.submit(client.execute, command)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            await _stop(future, client, command, calls)
            raise


async def _stop(future: Future[bytes], client: Client, command: Command, calls: _Calls) -> None:
    """Stop a command and wait for its end, which takes no longer than to end a thread."""
    if future.cancel():
        return
    calls.cancel()
    await asyncio.to_thread(command.cancel)
    client.wake()
    ended = asyncio.wrap_future(future)
    await asyncio.wait([ended])
    if not ended.cancelled():
        ended.exception()


class _Calls:
    """The calls of a message handler, on the loop of the command."""

    def __init__(self, handler: Callable[[Any], Any] | None, timeout: float | None) -> None:
        self._handler = handler
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._running: Future[Any] | None = None
        self._is_cancelled = False

    def call(self, message: Any) -> Any:
        running = asyncio.run_coroutine_threadsafe(self._call(message), self._loop)
        # Said first, looked at second: `cancel` does it the other way round.
        self._running = running
        if self._is_cancelled:
            running.cancel()
        wait([running], self._timeout)
        if not running.done():
            # Nobody waits for it any more.
            running.cancel()
            raise TimeoutError(f"the message handler did not answer within {self._timeout} s")
        return running.result()

    async def _call(self, message: Any) -> Any:
        assert self._handler is not None
        answer = self._handler(message)
        return await answer if inspect.isawaitable(answer) else answer

    def cancel(self) -> None:
        self._is_cancelled = True
        if self._running is not None:
            self._running.cancel()
