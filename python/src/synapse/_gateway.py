"""Between the connections of clients and the one worker that runs their calls.

The worker speaks with the gateway as it does with any host, over a socket of their own. The
gateway gives the calls of all clients numbers of its own, and passes payloads on as they are: what
belongs to whom is all that it knows. Everything here happens on its event loop, in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from synapse._codec import Codec, DecodeIssue
from synapse._encode import EncodeIssue
from synapse._endpoints import Endpoint, Misfit, Node
from synapse._frames import (
    CANCEL,
    CHUNK,
    CREDIT,
    DIE,
    FAIL,
    FIXED_SIZE,
    GO_AWAY,
    INTERRUPTED,
    PROGRESS,
    RELEASE,
    REQUEST,
    SHUTDOWN,
    SUCCESS,
    Buffer,
    make_frame,
)
from synapse._splitter import Splitter

#: Room for what the gateway adds to a request.
SLACK: Final = 128 * 1024
_ENDS: Final = (SUCCESS, FAIL, DIE, INTERRUPTED)
_MAX_ID: Final = 0xFFFFFFFF
_MAX_META: Final = 0xFFFF
_RETRY_SECONDS: Final = 1.0


class Settings(NamedTuple):
    """How clients are served."""

    codec: Codec
    handlers: Mapping[str, Endpoint]
    namespace: str | None
    token: str | None
    protocols: tuple[str, ...]
    tls: ssl.SSLContext | None
    max_frame_size: int
    max_open_calls: int
    max_connections: int
    handshake_seconds: float


class Caller(Protocol):
    """Who makes calls: a connection, in whatever protocol."""

    node: Node

    def answered(self, call: Open, kind: int, meta: bytes, payload: Buffer) -> None:
        """The end of a call."""
        ...

    def partial(self, call: Open, kind: int, payload: Buffer) -> None:
        """Items of its stream, or its progress."""
        ...

    def asked(self, call: Open, ask: int, meta: dict[str, Any], payload: Buffer) -> bool:
        """The handler of a call asks for something; whether that can be passed on."""
        ...

    def relay(self, kind: int, ask: int, payload: Buffer) -> None:
        """More about what the handler asked for: a credit, or that it is not wanted any more."""
        ...

    def pause(self, paused: bool) -> None:
        """Take no requests for now, or take them again."""
        ...

    def leaving(self, payload: Buffer) -> None:
        """The server takes nothing new."""
        ...

    def close(self) -> None:
        """Send what there is, and close."""
        ...


class Open:
    """A call of a client that the worker has not answered. `caller` is `None` once that is gone."""

    __slots__ = ("caller", "holds", "id", "number", "streams")

    def __init__(self, caller: Caller, id: int, number: int, holds: bool, streams: bool) -> None:
        self.caller: Caller | None = caller
        #: The client's number of it, and the gateway's.
        self.id = id
        self.number = number
        self.holds = holds
        self.streams = streams


class Asked:
    """Something that a handler asked its client for, and how many items that may still send."""

    __slots__ = ("caller", "granted")

    def __init__(self, caller: Caller, granted: int) -> None:
        self.caller = caller
        self.granted = granted


class Gateway:
    """Routes frames between clients and the worker."""

    def __init__(self, settings: Settings, worker: socket.socket) -> None:
        self.settings = settings
        self.codec = settings.codec
        self.callers: set[Caller] = set()
        #: Those as well that have said nothing yet.
        self.connections = 0
        self._calls: dict[int, Open] = {}
        self._asks: dict[int, Asked] = {}
        self._handles: dict[int, Caller] = {}
        self._last = 0
        self._worker = worker
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.new_event_loop()
        self._accepting: asyncio.Task[None] | None = None
        self._admitting: set[asyncio.Task[None]] = set()
        self._drained = threading.Event()
        self._stopping = False
        self.paused = False

    # Its life

    def start(self, listener: socket.socket) -> None:
        """Accept connections from now on, in a thread of its own."""
        started = threading.Event()
        threading.Thread(
            target=self._run, args=(listener, started), name="synapse-server", daemon=True
        ).start()
        started.wait()

    def _run(self, listener: socket.socket, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen(listener))
        started.set()
        self._loop.run_forever()

    async def _listen(self, listener: socket.socket) -> None:
        await self._loop.create_connection(lambda: _WorkerSide(self), sock=self._worker)
        listener.setblocking(False)
        self._accepting = self._loop.create_task(self._accept(listener))
        self._loop.set_exception_handler(_log_unexpected)

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    sock, _ = await self._loop.sock_accept(listener)
                except ConnectionAbortedError:
                    continue
                except OSError:
                    # Too many files are open, say.
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if self.connections >= self.settings.max_connections:
                    sock.close()
                    continue
                # Counted from here on: TLS has not begun yet.
                self.connections += 1
                admitting = self._loop.create_task(self._admit(sock))
                self._admitting.add(admitting)
                admitting.add_done_callback(self._admitting.discard)

    async def _admit(self, sock: socket.socket) -> None:
        from synapse._peers import Arrival

        tls, seconds = self.settings.tls, self.settings.handshake_seconds
        arrival = Arrival(self)
        try:
            await self._loop.connect_accepted_socket(
                lambda: arrival,
                sock,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else seconds,
            )
        except Exception:
            # What a peer does to its connection is the peer's affair.
            if not arrival.has_begun:
                self.connections -= 1

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()

    def stop(self, grace_seconds: float) -> None:
        """Accept nothing more, and let the worker finish and leave; from any thread."""
        self._loop.call_soon_threadsafe(self._stop, grace_seconds)

    def _stop(self, grace_seconds: float) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._stop_accepting()
        self._to_worker(SHUTDOWN, 0, self.codec.encode(round(grace_seconds * 1000)))

    def finish(self, seconds: float) -> None:
        """Wait until all that the worker has said is sent on, once it says nothing more."""
        self._drained.wait(seconds)

    def worker_ended(self) -> None:
        self._loop.create_task(self._close_all())

    async def _close_all(self) -> None:
        for caller in list(self.callers):
            caller.close()
        while self.callers:
            await asyncio.sleep(0.005)
        self._drained.set()

    # From the worker

    def connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def pause_all(self, paused: bool) -> None:
        """The worker takes no more for now."""
        self.paused = paused
        for caller in list(self.callers):
            caller.pause(paused)

    def from_worker(self, kind: int, id: int, meta: bytes, payload: Buffer) -> None:
        if kind in _ENDS:
            self._answered(kind, id, meta, payload)
        elif kind in (CHUNK, PROGRESS):
            call = self._calls.get(id)
            if call is not None and call.caller is not None:
                call.caller.partial(call, kind, payload)
        elif kind == REQUEST:
            self._asked(id, meta, payload)
        elif kind in (CREDIT, CANCEL):
            asked = self._asks.get(id)
            if asked is not None:
                if kind == CREDIT:
                    asked.granted += self.codec.decode(payload)
                asked.caller.relay(kind, id, payload)
        elif kind == GO_AWAY:
            self._leaving(payload)

    def _leaving(self, payload: Buffer) -> None:
        self._stop_accepting()
        for caller in list(self.callers):
            caller.leaving(payload)

    def _answered(self, kind: int, id: int, meta: bytes, payload: Buffer) -> None:
        call = self._calls.pop(id, None)
        if call is None:
            return
        caller = call.caller
        handle = self._handle_of(payload) if call.holds and kind == SUCCESS else None
        if handle is not None:
            if caller is None:
                self._to_worker(RELEASE, handle)
                return
            self._handles[handle] = caller
        if caller is None:
            return
        try:
            caller.answered(call, kind, meta, payload)
        except (DecodeIssue, EncodeIssue, UnicodeError) as issue:
            # Its own protocol cannot carry it: that is no reason to end those of others.
            why = {"path": "$", "issue": str(issue)}
            failure, reason = self.refusal("EncodeFailed", why)
            caller.answered(call, DIE, reason, failure)

    def _handle_of(self, payload: Buffer) -> int | None:
        held = self.codec.decode(payload)
        handle = held.get("handle") if isinstance(held, dict) else None
        return handle if isinstance(handle, int) else None

    def _asked(self, id: int, meta: bytes, payload: Buffer) -> None:
        said = self.codec.decode(meta)
        call = self._calls.get(said.get("call", 0))
        caller = None if call is None else call.caller
        if call is not None and caller is not None:
            self._asks[id] = Asked(caller, said.get("stream", 0))
            if caller.asked(call, id, {**said, "call": call.id}, payload):
                return
            del self._asks[id]
        detail = (
            "a server has a host inside of calls alone, and it is whoever made the call"
            if call is None
            else "the caller is gone, or its protocol knows no host functions"
        )
        self._to_worker(DIE, id, *self.refusal("Unsupported", {"detail": detail}))

    # From clients

    def request(
        self, caller: Caller, id: int, meta: dict[str, Any], payload: Buffer
    ) -> Open | tuple[bytes, bytes]:
        """Give a call to the worker; or else the payload and the meta of the `Die` that refuses
        it.
        """
        handler = None
        if "target" in meta:
            if self._handles.get(meta["target"]) is not caller:
                return self.refusal("Unsupported", {"detail": "the object has been released"})
        else:
            handler = self.settings.handlers.get(meta["method"])
        if meta.pop("arguments", None) and handler is not None:
            try:
                args, kwargs = _to_arguments(self.codec.decode(payload))
                payload = self.codec.encode(handler.to_payload(args, kwargs))
            except (Misfit, EncodeIssue, ValueError) as issue:
                return self.refusal("DecodeFailed", {"path": "$", "issue": str(issue)})
        if "parent" in meta and (parent := self._own(caller, meta["parent"])) is not None:
            meta["parent"] = parent.number
        else:
            meta.pop("parent", None)
        if handler is not None and handler.wants_caller:
            meta["caller"] = [caller.node.ip, caller.node.port]
        encoded = self.codec.encode(meta)
        if len(encoded) > _MAX_META:
            why = f"trace and headers take {len(encoded)} bytes, above {_MAX_META}"
            return self.refusal("EncodeFailed", {"path": "$", "issue": why})
        # Written anew it may have grown, and a worker ends with a frame above its limit.
        size, limit = FIXED_SIZE + len(encoded) + len(payload), self.settings.max_frame_size
        if size > limit + SLACK:
            return self.refusal("FrameTooLarge", {"size": size, "limit": limit})
        number = self._next()
        call = Open(caller, id, number, meta.get("hold") is True, "stream" in meta)
        self._calls[number] = call
        self._to_worker(REQUEST, number, payload, encoded)
        return call

    def _own(self, caller: Caller, id: int) -> Open | None:
        """The open call that a client calls so."""
        own: dict[int, Open] | None = getattr(caller, "calls", None)
        return None if own is None else own.get(id)

    def _next(self) -> int:
        number = self._last
        while True:
            number = 1 if number >= _MAX_ID else number + 1
            if number not in self._calls:
                self._last = number
                return number

    def tell(self, call: Open, kind: int, payload: Buffer = b"") -> None:
        """Say something about a call: a credit, or that it is not wanted any more."""
        self._to_worker(kind, call.number, payload)

    def give_up(self, call: Open) -> None:
        """Nobody waits for a call any more."""
        call.caller = None
        self.tell(call, CANCEL)

    def answer(self, caller: Caller, kind: int, ask: int, meta: bytes, payload: Buffer) -> bool:
        """What a client answers to a handler; whether it was to answer so."""
        asked = self._asks.get(ask)
        if asked is None or asked.caller is not caller:
            return True
        if kind == CHUNK:
            items = _array_length(payload)
            if not 0 < items <= asked.granted:
                return False
            asked.granted -= items
        else:
            del self._asks[ask]
        self._to_worker(kind, ask, payload, meta)
        return True

    def release(self, caller: Caller, handle: int) -> None:
        if self._handles.get(handle) is caller:
            del self._handles[handle]
            self._to_worker(RELEASE, handle)

    def gone(self, caller: Caller) -> None:
        """A client is: its calls are given up, and what it held is released."""
        self.callers.discard(caller)
        for handle in [each for each, owner in self._handles.items() if owner is caller]:
            self.release(caller, handle)
        for ask in [each for each, asked in self._asks.items() if asked.caller is caller]:
            del self._asks[ask]
            self._to_worker(DIE, ask, *self.refusal("Closed", None))

    def refusal(self, reason: str, details: Any) -> tuple[bytes, bytes]:
        """The payload and the meta of a `Die` for what has not begun."""
        meta = self.codec.encode({"reason": reason, "delivery": "rejected"})
        return self.codec.encode(details), meta

    def _to_worker(self, kind: int, id: int, payload: Buffer = b"", meta: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(make_frame(kind, id, bytes(payload), meta))


class _WorkerSide(asyncio.Protocol):
    """The gateway's end of the socket to the worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        # Frames of our own process: whatever their size.
        self._splitter = Splitter(_MAX_ID, lambda *_: None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._gateway.connected(transport)

    def data_received(self, data: bytes) -> None:
        for kind, id, meta, payload in self._splitter.feed(data):
            self._gateway.from_worker(kind, id, meta, payload)

    def pause_writing(self) -> None:
        self._gateway.pause_all(True)

    def resume_writing(self) -> None:
        self._gateway.pause_all(False)

    def eof_received(self) -> bool:
        # Closed with the process, and not before: to the worker it would be a host that is gone.
        self._gateway.worker_ended()
        return True


def _to_arguments(value: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(value, list) and len(value) == 2:
        args, kwargs = value
        if isinstance(args, list) and isinstance(kwargs, dict):
            return args, kwargs
    raise ValueError("arguments are a list of two: those by position, and a map of those by name")


def _array_length(payload: Buffer) -> int:
    first = payload[0] if len(payload) else 0
    if first & 0xF0 == 0x90:
        return first & 0x0F
    width = {0xDC: 2, 0xDD: 4}.get(first, 0)
    return int.from_bytes(payload[1 : 1 + width], "big") if width else 0


def _log_unexpected(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    # What a peer does to its connection is the peer's affair.
    if isinstance(error, (OSError, ssl.SSLError)):
        return
    logging.getLogger("synapse").error(
        "A connection failed: %s", context.get("message"), exc_info=error
    )


def close_in_child(*sockets: socket.socket) -> None:
    """In a forked child, close what is its parent's."""

    def close() -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                os.close(each.detach())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)
