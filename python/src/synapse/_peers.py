"""The connections of clients, each in the protocol that its first byte tells."""

from __future__ import annotations

import asyncio
import math
import os
import platform
import sys
from typing import Any, Final

from synapse import _handshake, _wire_p2p, _wire_p2p0
from synapse._codec import DecodeIssue
from synapse._endpoints import Node, to_node
from synapse._frames import (
    CANCEL,
    CHUNK,
    CREDIT,
    DEFAULT_MAX_FRAME_SIZE,
    DIE,
    FAIL,
    FIXED_SIZE,
    GO_AWAY,
    HELLO,
    INTERRUPTED,
    PING,
    PONG,
    PROTOCOL_VERSION,
    RECALL,
    RELEASE,
    REQUEST,
    SHUTDOWN,
    SUCCESS,
    WELCOME,
    Buffer,
    ProtocolBroken,
    make_frame,
)
from synapse._gateway import Gateway, Open
from synapse._handlers import Handler
from synapse._requests import FIELDS
from synapse._splitter import Splitter
from synapse._version import VERSION

# How long a client that says goodbye may keep a connection beyond its grace.
_LINGER_SECONDS: Final = 0.5
# How long a client of synapse-p2p may take to read its answer: it would keep its connection.
_READING_SECONDS: Final = 30.0
# Requests of synapse-p2p 0.0.x, whose own nodes take 4096 bytes.
_MAX_OLD_REQUEST: Final = 1024 * 1024
_MAX_U32: Final = 0xFFFFFFFF


class Arrival(asyncio.Protocol):
    """A connection: what comes goes to a peer of its protocol."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._peer: _Peer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def has_begun(self) -> bool:
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = self._gateway.settings
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(settings.handshake_seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._peer is not None and not self._peer.is_known:
            self._peer.too_slow()
        elif self._peer is None and self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            assert self._transport is not None
            self._peer = _peer_for(data[0], self._gateway, self._transport)
            if self._peer is None:
                self._transport.abort()
                return
            self._gateway.callers.add(self._peer)
            if self._gateway.paused:
                self._peer.pause(True)
        self._peer.received(data)

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.congested(True)

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer.congested(False)

    def eof_received(self) -> bool:
        return self._peer is not None and self._peer.ended()

    def connection_lost(self, _error: Exception | None) -> None:
        self._gateway.connections -= 1
        if self._timer is not None:
            self._timer.cancel()
        if self._peer is not None:
            self._peer.lost()


def _peer_for(first: int, gateway: Gateway, transport: asyncio.Transport) -> _Peer | None:
    protocols = gateway.settings.protocols
    if "synapse" in protocols and first == _handshake.MAGIC[0]:
        return Native(gateway, transport)
    if "p2p" in protocols and (first == 0 or "p2p-0" not in protocols):
        return P2P(gateway, transport)
    return P2P0(gateway, transport) if "p2p-0" in protocols else None


class _Peer:
    """What the protocols have in common. It is a `Caller`."""

    def __init__(self, gateway: Gateway, transport: asyncio.Transport) -> None:
        self.gateway = gateway
        self.codec = gateway.codec
        self.transport = transport
        ip, port, *_ = transport.get_extra_info("peername") or ("", 0)
        self.node: Node = to_node(ip, port)
        #: Whether it has said who it is, or what it wants.
        self.is_known = False
        self._paused = False
        self._congested = False

    def received(self, data: bytes) -> None:
        raise NotImplementedError

    def too_slow(self) -> None:
        self.transport.abort()

    def ended(self) -> bool:
        """It sends nothing more; whether it still reads."""
        return False

    def lost(self) -> None:
        self.gateway.gone(self)

    def pause(self, paused: bool) -> None:
        self._paused = paused
        self._read_or_not()

    def congested(self, congested: bool) -> None:
        # Whoever does not read its answers asks nothing more.
        self._congested = congested
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self.transport.is_closing():
            return
        if self._paused or self._congested:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def answered(self, call: Open, kind: int, meta: bytes, payload: Buffer) -> None:
        raise NotImplementedError

    def partial(self, call: Open, kind: int, payload: Buffer) -> None:
        """Calls of the old protocols have neither items nor progress."""

    def asked(self, call: Open, ask: int, meta: dict[str, Any], payload: Buffer) -> bool:
        return False

    def relay(self, kind: int, ask: int, payload: Buffer) -> None:
        """They are asked for nothing."""

    def leaving(self, payload: Buffer) -> None:
        """They have one call each, which is finished."""

    def close(self) -> None:
        self.transport.close()


class Native(_Peer):
    """A client that speaks the protocol of Synapse: greeting, proof, then frames."""

    def __init__(self, gateway: Gateway, transport: asyncio.Transport) -> None:
        super().__init__(gateway, transport)
        self.calls: dict[int, Open] = {}
        self._early = bytearray()
        self._nonces: tuple[bytes, bytes] | None = None
        self._splitter: Splitter | None = None
        self._welcomed = False
        self._max_frame_size = DEFAULT_MAX_FRAME_SIZE
        self._closing = False

    # The handshake

    def received(self, data: bytes) -> None:
        if self._splitter is not None:
            self._read_frames(data)
            return
        self._early += data
        if self._nonces is None and len(self._early) >= _handshake.GREETING_SIZE:
            self._greet(self._take(_handshake.GREETING_SIZE))
        if self._nonces is not None and self._splitter is None:
            self._check_proof()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._early[:size])
        del self._early[:size]
        return taken

    def _greet(self, data: bytes) -> None:
        greeting = _handshake.parse_greeting(data)
        if greeting is None:
            self.transport.abort()
            return
        version, nonce = greeting
        own = _handshake.make_nonce()
        if version != _handshake.VERSION:
            self.transport.write(_handshake.greeting(_handshake.OTHER_VERSION, own))
            self.transport.close()
            return
        token = self.gateway.settings.token
        byte = _handshake.OPEN if token is None else _handshake.TOKEN
        self.transport.write(_handshake.greeting(byte, own))
        self._nonces = (nonce, own)

    def _check_proof(self) -> None:
        token, nonces = self.gateway.settings.token, self._nonces
        assert nonces is not None
        if token is not None:
            if len(self._early) < _handshake.PROOF_SIZE:
                return
            proof = self._take(_handshake.PROOF_SIZE)
            if not _handshake.holds(proof, _handshake.client_proof(token, *nonces)):
                self.transport.write(_handshake.REFUSED)
                self.transport.close()
                return
            self.transport.write(b"\x01" + _handshake.server_proof(token, *nonces))
        self.is_known = True
        self._splitter = Splitter(self.gateway.settings.max_frame_size, self._on_large)
        self._send(HELLO, 0, self.codec.encode(self._hello()))
        early, self._early = bytes(self._early), bytearray()
        if early:
            self._read_frames(early)

    def _hello(self) -> dict[str, Any]:
        settings = self.gateway.settings
        return {
            "protocol": PROTOCOL_VERSION,
            "runtime": VERSION,
            "python": platform.python_version(),
            "implementation": sys.implementation.name,
            "pid": os.getpid(),
            "codec": self.codec.name,
            "methods": list(map(_described, settings.handlers.values())),
            "contract": None,
            "namespace": settings.namespace,
        }

    # Frames

    def _read_frames(self, data: bytes) -> None:
        assert self._splitter is not None
        if self.transport.is_closing():
            return
        try:
            for kind, id, meta, payload in self._splitter.feed(data):
                self._frame(kind, id, meta, payload)
        except (ProtocolBroken, DecodeIssue):
            self.transport.abort()

    def _frame(self, kind: int, id: int, meta: bytes, payload: bytearray | memoryview) -> None:
        gateway = self.gateway
        if not self._welcomed:
            if kind != WELCOME:
                raise ProtocolBroken("the first frame is no Welcome")
            self._welcome(payload)
        elif kind == REQUEST:
            self._request(id, meta, payload)
        elif kind in (SUCCESS, FAIL, DIE, INTERRUPTED, CHUNK):
            if not gateway.answer(self, kind, id, meta, payload):
                raise ProtocolBroken("more items than were granted")
        elif kind == CREDIT:
            items = self.codec.decode(payload)
            if type(items) is not int or not 0 < items <= _MAX_U32:
                raise ProtocolBroken("a Credit that grants nothing")
            if (call := self.calls.get(id)) is not None and call.streams:
                gateway.tell(call, CREDIT, payload)
        elif kind in (CANCEL, RECALL):
            if (call := self.calls.get(id)) is not None:
                gateway.tell(call, kind)
        elif kind == RELEASE:
            gateway.release(self, id)
        elif kind == PING:
            self._send(PONG, id)
        elif kind == SHUTDOWN:
            self._shut_down(self.codec.decode(payload))

    def _welcome(self, payload: Buffer) -> None:
        welcome = self.codec.decode(payload)
        if not isinstance(welcome, dict) or welcome.get("protocol") != PROTOCOL_VERSION:
            raise ProtocolBroken("a Welcome for another version of the protocol")
        size = welcome.get("maxFrameSize")
        if type(size) is not int or size < 1024:
            raise ProtocolBroken("a Welcome without the size of frames")
        self._max_frame_size = min(size, self.gateway.settings.max_frame_size)
        self._welcomed = True

    def _request(self, id: int, data: bytes, payload: Buffer) -> None:
        if id in self.calls:
            raise ProtocolBroken(f"a second Request with the id {id} of an open call")
        meta = _checked(self.codec.decode(data))
        gateway = self.gateway
        capacity = gateway.settings.max_open_calls
        if self._closing:
            self._send(DIE, id, *gateway.refusal("Closed", None))
        elif len(self.calls) >= capacity and meta.get("parent") not in self.calls:
            self._send(DIE, id, *gateway.refusal("Overloaded", {"capacity": capacity}))
        else:
            call = gateway.request(self, id, meta, payload)
            if isinstance(call, Open):
                self.calls[id] = call
            else:
                self._send(DIE, id, *call)

    def _on_large(self, kind: int, id: int, length: int) -> None:
        if kind != REQUEST or not self._welcomed:
            self.transport.abort()
            return
        details = {"size": length, "limit": self.gateway.settings.max_frame_size}
        self._send(DIE, id, *self.gateway.refusal("FrameTooLarge", details))

    def _send(self, kind: int, id: int, payload: Buffer = b"", meta: bytes = b"") -> None:
        if not self.transport.is_closing():
            self.transport.write(make_frame(kind, id, bytes(payload), meta))

    # The end

    def _shut_down(self, grace: Any) -> None:
        if type(grace) not in (int, float) or not 0 <= grace < math.inf:
            raise ProtocolBroken("a Shutdown without its grace")
        self._closing = True
        if not self.calls:
            self.transport.close()
            return
        loop = asyncio.get_running_loop()
        seconds = min(grace / 1000, 3600)
        loop.call_later(seconds, self._cancel_all)
        loop.call_later(seconds + _LINGER_SECONDS, self.transport.close)

    def _cancel_all(self) -> None:
        for call in self.calls.values():
            self.gateway.tell(call, CANCEL)

    def lost(self) -> None:
        for call in self.calls.values():
            self.gateway.give_up(call)
        self.calls.clear()
        super().lost()

    def leaving(self, payload: Buffer) -> None:
        if self._welcomed:
            self._send(GO_AWAY, 0, payload)

    # From the worker

    def answered(self, call: Open, kind: int, meta: bytes, payload: Buffer) -> None:
        del self.calls[call.id]
        length = FIXED_SIZE + len(meta) + len(payload)
        if length > self._max_frame_size:
            self._send(DIE, call.id, *self._too_large(length))
        else:
            self._send(kind, call.id, payload, meta)
        if self._closing and not self.calls:
            self.transport.close()

    def partial(self, call: Open, kind: int, payload: Buffer) -> None:
        length = FIXED_SIZE + len(payload)
        if kind == CHUNK and length > self._max_frame_size:
            del self.calls[call.id]
            self.gateway.give_up(call)
            self._send(DIE, call.id, *self._too_large(length))
        elif kind == CHUNK or not self._congested:
            self._send(kind, call.id, payload)

    def _too_large(self, size: int) -> tuple[bytes, bytes]:
        details = {"size": size, "limit": self._max_frame_size}
        return self.codec.encode(details), self.codec.encode({"reason": "FrameTooLarge"})

    def asked(self, call: Open, ask: int, meta: dict[str, Any], payload: Buffer) -> bool:
        self._send(REQUEST, ask, payload, self.codec.encode(meta))
        return True

    def relay(self, kind: int, ask: int, payload: Buffer) -> None:
        self._send(kind, ask, payload)


def _described(handler: Handler) -> dict[str, Any]:
    # How many of them run at once is for the server to see to: clients keep none of them back.
    return {"name": handler.name, "stream": handler.is_stream, "async": True}


def _checked(meta: Any) -> dict[str, Any]:
    """The meta of a request, of which nothing is left that a worker would end for."""
    if not isinstance(meta, dict) or not isinstance(meta.get("method"), str):
        raise ProtocolBroken("a Request without a method")
    checked: dict[str, Any] = {"method": meta["method"]}
    for key, kinds in (*FIELDS.items(), ("arguments", bool)):
        value = meta.get(key)
        if value is None:
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
            raise ProtocolBroken(f"a Request whose `{key}` is a {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ProtocolBroken(f"a Request whose `{key}` is {value}")
        checked[key] = value
    if not 0 < checked.get("stream", 1) <= _MAX_U32:
        raise ProtocolBroken("a Request for a stream of no items")
    headers = checked.get("headers", {})
    if not all(isinstance(each, str) for pair in headers.items() for each in pair):
        raise ProtocolBroken("a Request whose `headers` are not text")
    return checked


class _OldPeer(_Peer):
    """A client of synapse-p2p: one call, one answer, and the connection ends."""

    def __init__(self, gateway: Gateway, transport: asyncio.Transport) -> None:
        super().__init__(gateway, transport)
        self._call: Open | None = None
        self._reading: asyncio.TimerHandle | None = None

    def _make(self, endpoint: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        handler = self.gateway.settings.handlers.get(endpoint)
        if handler is None:
            self.unknown(endpoint)
            return
        if handler.is_stream:
            self.failed(f"`{endpoint}` streams its values, which this protocol cannot carry")
            return
        payload = self.codec.encode([args, kwargs])
        meta = {"method": endpoint, "arguments": True}
        call = self.gateway.request(self, 0, meta, payload)
        if isinstance(call, Open):
            self._call = call
            return
        details = self.codec.decode(call[0])
        self.failed(str(details.get("issue", details)))

    def answered(self, call: Open, kind: int, meta: bytes, payload: Buffer) -> None:
        self._call = None
        value = self.codec.decode(payload) if payload else None
        if kind == SUCCESS:
            self.succeeded(value)
        else:
            reason = self.codec.decode(meta).get("reason") if meta else None
            self.failed(_said(kind, reason, value))

    def lost(self) -> None:
        if self._call is not None:
            self.gateway.give_up(self._call)
        if self._reading is not None:
            self._reading.cancel()
        super().lost()

    def reply(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)
            self.transport.close()
            loop = asyncio.get_running_loop()
            self._reading = loop.call_later(_READING_SECONDS, self.transport.abort)

    def unknown(self, endpoint: str) -> None:
        raise NotImplementedError

    def succeeded(self, value: Any) -> None:
        raise NotImplementedError

    def failed(self, why: str) -> None:
        raise NotImplementedError


def _said(kind: int, reason: Any, value: Any) -> str:
    """A failure in a few words."""
    details = value if isinstance(value, dict) else {}
    if reason is None and "type" in details:
        return str(details.get("message", ""))
    if kind == FAIL:
        return str(details.get("message", value))
    if kind == INTERRUPTED:
        return "the call was interrupted"
    said = details.get("issue", details.get("detail"))
    return f"{reason}: {said}" if said is not None else str(reason)


class P2P0(_OldPeer):
    """A client of synapse-p2p 0.0.x."""

    def __init__(self, gateway: Gateway, transport: asyncio.Transport) -> None:
        super().__init__(gateway, transport)
        self._reader = _wire_p2p0.Reader(self.codec, _MAX_OLD_REQUEST)

    def received(self, data: bytes) -> None:
        if self.is_known:
            return
        try:
            request = self._reader.feed(data)
        except _wire_p2p0.Refused as refused:
            self.is_known = True
            self.reply(refused.answer)
            return
        if request is not None:
            self.is_known = True
            self._make(request.endpoint, request.args, {})

    def too_slow(self) -> None:
        self.reply(_wire_p2p0.bad_request("an incomplete request"))

    def ended(self) -> bool:
        if not self.is_known:
            self.too_slow()
        return self.transport.get_extra_info("ssl_object") is None

    def unknown(self, endpoint: str) -> None:
        self.reply(_wire_p2p0.BAD_REQUEST)

    def succeeded(self, value: Any) -> None:
        if isinstance(value, str):
            self.reply(value.encode())
        else:
            self.failed(f"the endpoint returned `{type(value).__name__}`, and answers are text")

    def failed(self, why: str) -> None:
        self.reply(_wire_p2p0.failed(why))


class P2P(_OldPeer):
    """A client of today's synapse-p2p."""

    def __init__(self, gateway: Gateway, transport: asyncio.Transport) -> None:
        super().__init__(gateway, transport)
        self._data = bytearray()
        self._id = ""

    def received(self, data: bytes) -> None:
        if self.is_known:
            return
        self._data += data
        try:
            payload = _wire_p2p.read_frame(self._data)
            if payload is None:
                return
            self.is_known = True
            request = _wire_p2p.read_request(self.codec, payload)
        except _wire_p2p.BadMessage as bad:
            self._refuse(str(bad))
            return
        self._id = request.id
        self._make(request.endpoint, request.args, request.kwargs)

    def _refuse(self, why: str) -> None:
        self.is_known = True
        self.reply(_wire_p2p.failure(self.codec, self._id, "bad_request", why))

    def too_slow(self) -> None:
        self._refuse("incomplete frame")

    def ended(self) -> bool:
        if not self.is_known:
            self.too_slow()
        return self.transport.get_extra_info("ssl_object") is None

    def unknown(self, endpoint: str) -> None:
        self._refuse(f"{_wire_p2p.UNREGISTERED}{endpoint}")

    def succeeded(self, value: Any) -> None:
        self.reply(_wire_p2p.answer(self.codec, self._id, value))

    def failed(self, why: str) -> None:
        self.reply(_wire_p2p.failure(self.codec, self._id, "internal_error", why))
