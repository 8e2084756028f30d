"""One connection of a client to a server, in the protocol of Synapse."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

from synapse._client_errors import (
    CallFailed,
    ConnectFailed,
    ConnectionLost,
    to_failure,
)
from synapse._codec import Codec, DecodeIssue
from synapse._dialing import Wanted, dial
from synapse._encode import EncodeIssue
from synapse._frames import (
    CANCEL,
    CHUNK,
    CREDIT,
    DIE,
    FAIL,
    FIXED_SIZE,
    GO_AWAY,
    HELLO,
    INTERRUPTED,
    PING,
    PONG,
    PROTOCOL_VERSION,
    REQUEST,
    SHUTDOWN,
    SUCCESS,
    WELCOME,
    Buffer,
    Frame,
    ProtocolBroken,
    make_frame,
)
from synapse._splitter import Splitter

_READ_SIZE: Final = 64 * 1024
_WINDOW: Final = 64
_MAX_OPEN: Final = 1024
_MAX_ID: Final = 0xFFFFFFFF


class _Pending:
    """A call that is not answered: its items, and what waits for them or for its end."""

    __slots__ = ("answer", "chunks", "waiter")

    def __init__(self) -> None:
        self.answer: tuple[int, bytes, Buffer] | Exception | None = None
        self.chunks: deque[Buffer] = deque()
        self.waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self) -> None:
        """Wait for the next item, or the end."""
        if self.chunks or self.answer is not None:
            return
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter


class Connection:
    """Calls over one connection. Everything happens on the loop that opened it."""

    def __init__(
        self,
        codec: Codec,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        shown: str,
        max_frame_size: int,
    ) -> None:
        self._codec = codec
        self._reader = reader
        self._writer = writer
        self._shown = shown
        self._max_frame_size = max_frame_size
        self._splitter = Splitter(max_frame_size, self._on_large)
        self._early: deque[Frame] = deque()
        self._pending: dict[int, _Pending] = {}
        self._last = 0
        self._reading: asyncio.Task[None] | None = None
        self.is_open = True
        self.methods: dict[str, bool] = {}

    @classmethod
    async def open(
        cls, codec: Codec, wanted: Wanted, seconds: float, max_frame_size: int
    ) -> Connection:
        """Connect to a server, and let it say hello.

        Raises:
            ConnectFailed: There is none.
        """
        reader, writer, address = await dial(wanted, seconds)
        connection = cls(codec, reader, writer, str(address), max_frame_size)
        try:
            await asyncio.wait_for(connection._greet(), seconds)
        except BaseException as error:
            writer.transport.abort()
            if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
                why = f"{address} did not say hello within {seconds:g} s"
                raise ConnectFailed("timeout", why) from None
            if isinstance(error, (OSError, EOFError)) and not isinstance(error, ConnectFailed):
                why = f"{address} closed the connection before it said hello: {error}"
                raise ConnectFailed("tls" if wanted.tls is not None else "protocol", why) from error
            raise
        return connection

    async def _greet(self) -> None:
        while not self._early:
            data = await self._reader.read(_READ_SIZE)
            if not data:
                raise EOFError("the end of the stream")
            self._early.extend(self._frames(data))
        kind, _, _, payload = self._early.popleft()
        hello = self._map(payload) if kind == HELLO else None
        if hello is None or hello.get("protocol") != PROTOCOL_VERSION:
            raise ConnectFailed(
                "protocol", f"{self._shown} speaks another version: update whichever is older"
            )
        try:
            self.methods = {each["name"]: each["stream"] for each in hello.get("methods", ())}
        except (TypeError, KeyError):
            raise ConnectFailed("protocol", f"{self._shown} says hello wrongly") from None
        welcome = {
            "protocol": PROTOCOL_VERSION,
            "maxFrameSize": self._max_frame_size,
            "concurrency": 1,
            "maxOpenCalls": _MAX_OPEN,
            "evaluate": False,
        }
        self._send(WELCOME, 0, self._codec.encode(welcome))
        self._reading = asyncio.get_running_loop().create_task(self._read())

    def _frames(self, data: bytes) -> Iterator[Frame]:
        try:
            yield from self._splitter.feed(data)
        except ProtocolBroken as error:
            raise ConnectionLost(f"{self._shown} broke the protocol: {error}") from None

    async def _read(self) -> None:
        error: Exception = ConnectionLost(f"{self._shown} closed the connection")
        try:
            while self._early:
                self._frame(*self._early.popleft())
            while data := await self._reader.read(_READ_SIZE):
                for frame in self._frames(data):
                    self._frame(*frame)
        except ConnectionLost as lost:
            error = lost
        except (OSError, EOFError, DecodeIssue) as lost:
            error = ConnectionLost(f"the connection to {self._shown} broke: {lost}")
        finally:
            self._end(error)

    def _end(self, error: Exception) -> None:
        self.is_open = False
        self._writer.transport.abort()
        for each in self._pending.values():
            each.answer = each.answer or error
            each.wake()
        self._pending.clear()

    def _frame(self, kind: int, id: int, meta: bytes, payload: Buffer) -> None:
        if kind in (SUCCESS, FAIL, DIE, INTERRUPTED):
            pending = self._pending.pop(id, None)
            if pending is not None:
                pending.answer = (kind, meta, payload)
                pending.wake()
        elif kind == CHUNK:
            if (pending := self._pending.get(id)) is not None:
                pending.chunks.append(payload)
                pending.wake()
        elif kind == PING:
            self._send(PONG, id)
        elif kind == GO_AWAY:
            # What is open is finished, and the next call goes to another connection.
            self.is_open = False
        elif kind == REQUEST:
            details = {"detail": "this client has no functions that a server may call"}
            meta = self._codec.encode({"reason": "Unsupported", "delivery": "rejected"})
            self._send(DIE, id, self._codec.encode(details), meta)

    def _on_large(self, kind: int, id: int, length: int) -> None:
        pending = self._pending.pop(id, None)
        if pending is not None:
            pending.answer = CallFailed(
                "FrameTooLarge",
                f"an answer of {length} bytes, above {self._max_frame_size}: raise max_frame_size",
                {"size": length, "limit": self._max_frame_size},
            )
            pending.wake()
            if kind == CHUNK:
                self._send(CANCEL, id)

    def _send(self, kind: int, id: int, payload: bytes = b"", meta: bytes = b"") -> None:
        if not self._writer.is_closing():
            self._writer.write(make_frame(kind, id, payload, meta))

    def _begin(
        self, method: str, args: Any, kwargs: Any, meta: dict[str, Any]
    ) -> tuple[int, _Pending]:
        if not self.is_open:
            raise ConnectionLost(f"the connection to {self._shown} is closed")
        try:
            payload = self._codec.encode([args, kwargs])
            head = self._codec.encode({"method": method, "arguments": True, **meta})
        except EncodeIssue as issue:
            why = f"`{method}`: the arguments cannot be sent: {issue}"
            raise CallFailed("EncodeFailed", why) from None
        size = FIXED_SIZE + len(head) + len(payload)
        if size > self._max_frame_size:
            details = {"size": size, "limit": self._max_frame_size}
            why = f"`{method}`: {size} bytes, above {self._max_frame_size}"
            raise CallFailed("FrameTooLarge", why, details)
        id = self._last % _MAX_ID + 1
        while id in self._pending:
            id = id % _MAX_ID + 1
        self._last = id
        pending = self._pending[id] = _Pending()
        self._send(REQUEST, id, payload, head)
        return id, pending

    def _give_up(self, id: int) -> None:
        if self._pending.pop(id, None) is not None:
            self._send(CANCEL, id)

    async def call(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], meta: dict[str, Any]
    ) -> Any:
        id, pending = self._begin(method, args, kwargs, meta)
        try:
            await self._writer.drain()
            await pending.wait()
        except OSError as error:
            raise ConnectionLost(f"the connection to {self._shown} broke: {error}") from error
        finally:
            self._give_up(id)
        return self._result(method, pending)

    async def stream(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], meta: dict[str, Any]
    ) -> AsyncIterator[Any]:
        id, pending = self._begin(method, args, kwargs, {**meta, "stream": _WINDOW})
        try:
            while True:
                await pending.wait()
                while pending.chunks:
                    items = self._decoded(method, pending.chunks.popleft())
                    for item in items:
                        yield item
                    if pending.answer is None:
                        self._send(CREDIT, id, self._codec.encode(len(items)))
                if pending.answer is not None and not pending.chunks:
                    self._result(method, pending)
                    return
        finally:
            self._give_up(id)

    def _result(self, method: str, pending: _Pending) -> Any:
        answer = pending.answer
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        kind, meta, payload = answer
        value = self._decoded(method, payload) if payload else None
        if kind == SUCCESS:
            return value
        details = self._map(meta) if meta else {}
        if details is None:
            raise CallFailed("BadAnswer", f"`{method}`: the answer has a meta that is no map")
        reason = details.get("reason")
        what = {FAIL: "fail", INTERRUPTED: "interrupted"}.get(kind, "die")
        raise to_failure(method, what, reason, value)

    def _map(self, data: Buffer) -> dict[str, Any] | None:
        try:
            value = self._codec.decode(data)
        except DecodeIssue:
            return None
        return value if isinstance(value, dict) else None

    def _decoded(self, method: str, payload: Buffer) -> Any:
        try:
            return self._codec.decode(payload)
        except DecodeIssue as issue:
            why = f"`{method}`: the answer cannot be read: {issue}"
            raise CallFailed("DecodeFailed", why) from None

    async def close(self) -> None:
        """Say goodbye: open calls fail."""
        self.is_open = False
        self._send(SHUTDOWN, 0, self._codec.encode(0))
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
