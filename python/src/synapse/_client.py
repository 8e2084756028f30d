"""`synapse.Client` and `synapse.AsyncClient`: endpoints of a server, called from Python."""

from __future__ import annotations

import asyncio
import atexit
import os
import secrets
import ssl
import threading
import time
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, TypeVar

from synapse import _codec, _discovery, _wire_p2p, _wire_p2p0
from synapse._client_errors import CallFailed, CallTimedOut, ConnectionLost
from synapse._connection import Connection
from synapse._dialing import Wanted, dial, seeds_for
from synapse._encode import EncodeIssue
from synapse._frames import DEFAULT_MAX_FRAME_SIZE
from synapse._tls import TLS

T = TypeVar("T")
Protocol = Literal["synapse", "p2p", "p2p-0"]

_PROTOCOLS: Final = ("synapse", "p2p", "p2p-0")
_MAX_TEXT: Final = 64 * 1024 * 1024
_READ_SIZE: Final = 64 * 1024
# The clock of the server is another one.
_EARLY_SECONDS: Final = 0.1
_LEAVING_SECONDS: Final = 1.0


@dataclass
class Peer:
    """A node as another node of synapse-p2p describes it."""

    id: str
    address: str
    port: int
    swarm: str | None = None
    team: str | None = None
    name: str = ""
    kind: str = "node"
    capabilities: list[str] = field(default_factory=list)
    last_seen: float = 0.0


@dataclass(frozen=True)
class _How:
    """How calls are made."""

    timeout: float | None
    headers: Mapping[str, str] | None


class AsyncClient:
    """Calls the endpoints of a server, from asynchronous code.

    It connects with the first call, and again with the next one after the connection was lost.

    Args:
        host: Where the server is. port: Its port.
        namespace: Instead of them: a server of that namespace on this machine.
        seeds: Instead of them: addresses as `host[:port]`, of which the first one counts that
            answers. The port is 9999 where none is given.
        token: The server's token. Default: that of a server of this user on this machine, where
            there is one. `False`: none.
        tls: The certificates to trust, and the client's own. Default: no TLS.
        protocol: `"synapse"`; `"p2p"` for nodes of today's synapse-p2p, `"p2p-0"` for those of
            0.0.x.
        timeout: The seconds a call may take; `None`: without an end.
        connect_timeout: The seconds that connecting may take, with everything that belongs to it.
        max_frame_size: Bytes of the largest message in either direction.

    Raises:
        ValueError: An option cannot be what it is.

    Example:
        >>> import synapse
        >>> async def main() -> None:
        ...     async with synapse.AsyncClient(namespace="example") as client:
        ...         print(await client.call("add", 1, b=2))
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = _discovery.DEFAULT_PORT,
        *,
        namespace: str | None = None,
        seeds: Iterable[str] = (),
        token: str | Literal[False] | None = None,
        tls: TLS | ssl.SSLContext | None = None,
        protocol: Protocol = "synapse",
        timeout: float | None = 30.0,
        connect_timeout: float = 5.0,
        max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
    ) -> None:
        if protocol not in _PROTOCOLS:
            raise ValueError(f"`protocol` is one of {_PROTOCOLS}, not {protocol!r}")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"`timeout` is a number of seconds above 0, not {timeout!r}")
        if not connect_timeout > 0:
            raise ValueError(f"`connect_timeout` is a number above 0, not {connect_timeout!r}")
        addresses = tuple(map(_discovery.to_address, seeds))
        if namespace is not None and addresses:
            raise ValueError("a client has a `namespace` or `seeds`, not both")
        self._wanted = Wanted(host, port, namespace, addresses, token, tls, protocol)
        self._how = _How(timeout, None)
        self._connect_timeout = connect_timeout
        self._max_frame_size = max_frame_size
        self._codec = _codec.choose()
        self._shared = _Shared()

    @classmethod
    def from_peer(cls, peer: Peer, **options: Any) -> AsyncClient:
        """A client of a node that another one told of; `protocol` is `"p2p"` unless it is given.

        A node of this machine is tried at a loopback address first.
        """
        seeds = seeds_for(peer.address, peer.port)
        return cls(peer.address, peer.port, **{"protocol": "p2p", "seeds": seeds, **options})

    def with_options(
        self,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncClient:
        """The same client over the same connection, whose calls have another time, or headers.

        The endpoint finds those by name in `synapse.context().headers`.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._how = _How(
            self._how.timeout if timeout is None else timeout,
            self._how.headers if headers is None else dict(headers),
        )
        return other

    async def call(self, endpoint: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an endpoint and return its value.

        Raises:
            CallFailed: The server says that it failed. CallTimedOut: It took too long.
            ConnectFailed: There is no server. ConnectionLost: The connection was lost meanwhile.
        """
        timeout = self._how.timeout
        call = self._call(endpoint, args, kwargs)
        if timeout is None:
            return await call
        ends_at = time.monotonic() + timeout
        try:
            return await asyncio.wait_for(call, timeout)
        except (TimeoutError, asyncio.TimeoutError):
            pass
        except CallFailed as failure:
            # The server counts the time as well, and may be the first to see that it is over.
            if failure.reason != "Interrupted" or time.monotonic() < ends_at - _EARLY_SECONDS:
                raise
        raise CallTimedOut(f"`{endpoint}` did not end within {timeout:g} s")

    async def _call(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._wanted.protocol == "p2p-0":
            return await self._call_p2p0(endpoint, args, kwargs)
        if self._wanted.protocol == "p2p":
            return await self._call_p2p(endpoint, args, kwargs)
        connection = await self._connected()
        return await connection.call(endpoint, args, kwargs, self._meta())

    async def stream(self, endpoint: str, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Iterate over what an endpoint streams. Leaving the loop early ends the stream.

        `timeout` is for each item.

        Raises:
            CallFailed: The server says that it failed. CallTimedOut: An item took too long.
            ConnectFailed: There is no server. ConnectionLost: The connection was lost meanwhile.
        """
        if self._wanted.protocol != "synapse":
            why = f"the protocol {self._wanted.protocol!r} has no streams"
            raise CallFailed("Unsupported", why)
        connection = await self._connected()
        items = connection.stream(endpoint, args, kwargs, self._meta(deadline=False))
        timeout = self._how.timeout
        try:
            while True:
                try:
                    yield await asyncio.wait_for(items.__anext__(), timeout)
                except StopAsyncIteration:
                    return
                except (TimeoutError, asyncio.TimeoutError):
                    why = f"`{endpoint}` gave no item within {timeout:g} s"
                    raise CallTimedOut(why) from None
        finally:
            await items.aclose()  # type: ignore[attr-defined]

    def _meta(self, *, deadline: bool = True) -> dict[str, Any]:
        meta: dict[str, Any] = {}
        if deadline and self._how.timeout is not None:
            meta["deadline"] = self._how.timeout * 1000
        if self._how.headers:
            meta["headers"] = dict(self._how.headers)
        return meta

    async def connect(self) -> None:
        """Connect now, and not with the first call. Nodes of synapse-p2p have a connection for each
        call.

        Raises:
            ConnectFailed: There is no server.
        """
        if self._wanted.protocol == "synapse":
            await self._connected()

    async def _connected(self) -> Connection:
        shared = self._shared
        loop = asyncio.get_running_loop()
        if shared.lock is None or shared.loop is not loop:
            shared.lock, shared.loop, shared.connection = asyncio.Lock(), loop, None
        async with shared.lock:
            if shared.connection is None or not shared.connection.is_open:
                shared.connection = await Connection.open(
                    self._codec, self._wanted, self._connect_timeout, self._max_frame_size
                )
            return shared.connection

    async def close(self) -> None:
        """Close the connection: open calls fail. The server goes on."""
        connection, self._shared.connection = self._shared.connection, None
        if connection is not None:
            await connection.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def peers(self) -> list[Peer]:
        """The nodes that a node of synapse-p2p knows."""
        found = await self.call("_synapse.peers")
        try:
            known = Peer.__dataclass_fields__
            return [Peer(**{key: each[key] for key in each if key in known}) for each in found]
        except (TypeError, KeyError) as error:
            why = f"the node returned an invalid list of peers: {error}"
            raise CallFailed("DecodeFailed", why) from None

    # The wires of synapse-p2p, a connection for each call

    async def _call_p2p0(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if kwargs:
            why = f"`{endpoint}`: the protocol 'p2p-0' has arguments by position alone"
            raise CallFailed("EncodeFailed", why)
        call = _wire_p2p0.RemoteProcedureCall(endpoint, list(args))
        data = self._encoded(endpoint, call.encode)
        if len(data) > _wire_p2p0.MAX_REQUEST:
            details = {"size": len(data), "limit": _wire_p2p0.MAX_REQUEST}
            why = f"`{endpoint}`: {len(data)} bytes, and nodes of 'p2p-0' read 4096"
            raise CallFailed("FrameTooLarge", why, details)
        answer = await self._exchange(data, lambda data: None, _MAX_TEXT)
        if not answer:
            raise CallFailed(
                "NoAnswer",
                f"`{endpoint}`: the node closed the connection without an answer: the endpoint "
                "raised, or returned no text or an empty one",
            )
        if answer == _wire_p2p0.BAD_REQUEST:
            raise CallFailed("MethodNotFound", f"`{endpoint}`: the node has no such endpoint")
        return answer.decode("utf-8", "replace")

    async def _call_p2p(self, endpoint: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = _wire_p2p.Call(secrets.token_hex(8), endpoint, list(args), kwargs)
        data = self._encoded(endpoint, lambda: _wire_p2p.request(self._codec, call))
        if len(data) - _wire_p2p.LENGTH.size > _wire_p2p.MAX_FRAME:
            details = {"size": len(data), "limit": _wire_p2p.MAX_FRAME}
            why = f"`{endpoint}`: {len(data)} bytes, and nodes take {_wire_p2p.MAX_FRAME}"
            raise CallFailed("FrameTooLarge", why, details)
        try:
            answer = await self._exchange(data, _wire_p2p.read_frame, _wire_p2p.MAX_FRAME + 4)
            payload = _wire_p2p.read_frame(answer)
            if payload is None:
                raise ConnectionLost(f"`{endpoint}`: the node closed the connection early")
            ok, result, code, message = _wire_p2p.read_response(self._codec, payload, call.id)
        except _wire_p2p.BadMessage as bad:
            raise CallFailed("BadAnswer", f"`{endpoint}`: {bad}") from None
        if ok:
            return result
        raise _p2p_failure(endpoint, code, message)

    def _encoded(self, endpoint: str, encode: Any) -> bytes:
        try:
            return encode()  # type: ignore[no-any-return]
        except EncodeIssue as issue:
            why = f"`{endpoint}`: the arguments cannot be sent: {issue}"
            raise CallFailed("EncodeFailed", why) from None

    async def _exchange(self, data: bytes, whole: Any, limit: int) -> bytes:
        """Send a request, and read until `whole` finds an answer, or to the end."""
        reader, writer, address = await dial(self._wanted, self._connect_timeout)
        answer = bytearray()
        try:
            writer.write(data)
            while whole(answer) is None and len(answer) <= limit:
                piece = await reader.read(_READ_SIZE)
                if not piece:
                    break
                answer += piece
            if len(answer) > limit:
                why = f"an answer of more than {limit} bytes"
                raise CallFailed("FrameTooLarge", why, {"size": len(answer), "limit": limit})
        except OSError as error:
            if not answer:
                raise ConnectionLost(f"the connection to {address} broke: {error}") from error
        finally:
            writer.transport.abort()
        return bytes(answer)


class _Shared:
    """What the forms of one client have together."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.lock: asyncio.Lock | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        _all_shared.add(self)


_all_shared: Final[weakref.WeakSet[_Shared]] = weakref.WeakSet()
_of_parents: Final[list[object]] = []


def _leave_to_parent() -> None:
    """Keep in a forked process what is its parent's: to close it as nobody needs it any more would
    take it out of the poll that both processes share.
    """
    for shared in list(_all_shared):
        _of_parents.append((shared.loop, shared.connection))
        shared.connection = shared.lock = shared.loop = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _p2p_failure(endpoint: str, code: str, message: str) -> CallFailed:
    if message.startswith(_wire_p2p.UNREGISTERED):
        why = f"`{endpoint}`: the node has no such endpoint"
        return CallFailed("MethodNotFound", why, {"code": code, "message": message})
    reason = {"bad_request": "BadRequest", "internal_error": "Exception"}.get(code, code or "Error")
    details = {"code": code, "message": message}
    return CallFailed(reason, f"`{endpoint}`: {message}", details)


class Client:
    """Calls the endpoints of a server, from code that waits: what `AsyncClient` is, blocking.

    It can be used from several threads at once.

    Example:
        >>> import synapse
        >>> def main() -> None:
        ...     with synapse.Client(namespace="example") as client:
        ...         print(client.call("add", 1, b=2))
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = _discovery.DEFAULT_PORT,
        **options: Any,
    ) -> None:
        """Take what `AsyncClient` takes."""
        self._client = AsyncClient(host, port, **options)
        self._runner = _Runner()

    @classmethod
    def from_peer(cls, peer: Peer, **options: Any) -> Client:
        """What `AsyncClient.from_peer` makes, blocking."""
        seeds = seeds_for(peer.address, peer.port)
        return cls(peer.address, peer.port, **{"protocol": "p2p", "seeds": seeds, **options})

    def with_options(
        self,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Client:
        """The same client over the same connection, whose calls have another time, or headers."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._client = self._client.with_options(timeout=timeout, headers=headers)
        return other

    def call(self, endpoint: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an endpoint and return its value.

        Raises:
            CallFailed: The server says that it failed. CallTimedOut: It took too long.
            ConnectFailed: There is no server. ConnectionLost: The connection was lost meanwhile.
        """
        return self._runner.run(self._client.call(endpoint, *args, **kwargs))

    def stream(self, endpoint: str, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Iterate over what an endpoint streams. Leaving the loop early ends the stream.

        Raises:
            CallFailed: The server says that it failed. CallTimedOut: An item took too long.
            ConnectFailed: There is no server. ConnectionLost: The connection was lost meanwhile.
        """
        items = self._client.stream(endpoint, *args, **kwargs)
        try:
            while True:
                try:
                    yield self._runner.run(_next(items))
                except _Ended:
                    return
        finally:
            self._runner.run(items.aclose())  # type: ignore[attr-defined]

    def connect(self) -> None:
        """Connect now, and not with the first call.

        Raises:
            ConnectFailed: There is no server.
        """
        self._runner.run(self._client.connect())

    def peers(self) -> list[Peer]:
        """The nodes that a node of synapse-p2p knows."""
        return self._runner.run(self._client.peers())

    def close(self) -> None:
        """Close the connection: open calls fail. The server goes on."""
        self._runner.stop(self._client.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Ended(Exception):
    """The end of a stream: a coroutine cannot raise `StopAsyncIteration`."""


async def _next(items: AsyncIterator[Any]) -> Any:
    try:
        return await items.__anext__()
    except StopAsyncIteration:
        raise _Ended from None


class _Runner:
    """An event loop in a thread of its own, for code that waits."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._pid != os.getpid():
            # A forked process has no thread that would run the loop of its parent.
            self._forget()
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_forever, args=(self._loop,), name="synapse-client", daemon=True
                )
                self._thread.start()
                _runners.add(self)
            running = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return running.result()
        except BaseException:
            # Ctrl-C, say: nobody waits any more.
            running.cancel()
            raise

    def stop(self, close: Any) -> None:
        """Let go of the loop, once what there is has been closed; the next call makes another."""
        if self._loop is None or self._pid != os.getpid():
            return
        self.run(close())
        self.leave()

    def leave(self) -> None:
        """Let go of the loop."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_LEAVING_SECONDS)


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        loop.close()


_runners: Final[weakref.WeakSet[_Runner]] = weakref.WeakSet()


# A client that nobody has closed is no reason to complain as the program ends.
@atexit.register
def _leave_all() -> None:
    for runner in list(_runners):
        runner.leave()
