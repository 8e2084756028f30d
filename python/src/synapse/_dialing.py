"""From what a client is told of a server to an open stream of bytes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from synapse import _discovery, _handshake
from synapse._client_errors import ConnectFailed
from synapse._oserror import reason_of
from synapse._tls import TLS

_LOOPBACKS: Final = ("localhost", "127.0.0.1", "::1")


class Address(NamedTuple):
    """Where a server is, and the token that it was found with."""

    host: str
    port: int
    token: str | None
    tls: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Wanted(NamedTuple):
    """What a client is told of its server."""

    host: str
    port: int
    namespace: str | None
    seeds: tuple[tuple[str, int], ...]
    token: str | Literal[False] | None
    tls: TLS | ssl.SSLContext | None
    protocol: str

    def __str__(self) -> str:
        if self.namespace is not None:
            return f"the namespace {self.namespace!r}"
        return ", ".join(f"{host}:{port}" for host, port in self.seeds or ((self.host, self.port),))


def addresses(wanted: Wanted) -> Sequence[Address]:
    """Where to try, one after the other.

    Raises:
        ConnectFailed: No server was found.
    """
    given = wanted.token if isinstance(wanted.token, str) else None
    if wanted.namespace is not None:
        found = [
            each
            for each in _discovery.servers(namespace=wanted.namespace)
            if wanted.protocol in each.protocols
        ]
        if not found:
            raise ConnectFailed(
                "notFound",
                f"no server of the namespace {wanted.namespace!r} runs on this machine (looked in "
                f"{_discovery.directory()}): start one, or give a host and a port",
            )
        return [
            Address(
                each.host,
                each.port,
                given if wanted.token is not None else _discovery.read_token(each),
                each.tls,
            )
            for each in found
        ]
    return [
        Address(host, port, _token_of(wanted, host, port), False)
        for host, port in wanted.seeds or ((wanted.host, wanted.port),)
    ]


def seeds_for(address: str, port: int) -> tuple[str, ...]:
    """Where to try a node that says it has this address: one of this machine at a loopback address
    first, which firewalls let through. Of another one there is nothing to choose: none.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ()
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            # No machine binds to the address of another one.
            sock.bind((address, 0))
    except OSError:
        return ()
    if ip.version == 4:
        return (f"127.0.0.1:{port}", f"{address}:{port}")
    return (f"[::1]:{port}", f"[{address}]:{port}")


def _token_of(wanted: Wanted, host: str, port: int) -> str | None:
    """The token to use: one that was given, or that of a server of this user on this machine."""
    if wanted.token is not None:
        return wanted.token or None
    if host not in _LOOPBACKS or wanted.protocol != "synapse":
        return None
    found = _discovery.servers(port=port)
    return _discovery.read_token(found[0]) if found else None


async def dial(
    wanted: Wanted, seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Address]:
    """Connect to the first server that is there, and make sure that it is the right one.

    Raises:
        ConnectFailed: There is none.
    """
    failure: ConnectFailed | None = None
    for address in addresses(wanted):
        try:
            reader, writer = await asyncio.wait_for(_open(wanted, address), seconds)
            return reader, writer, address
        except ConnectFailed as error:
            failure = failure or error
        except (TimeoutError, asyncio.TimeoutError):
            failure = failure or ConnectFailed(
                "timeout", f"{address} did not answer within {seconds:g} s"
            )
    assert failure is not None
    raise failure


async def _open(
    wanted: Wanted, address: Address
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await _connect(wanted, address)
    if wanted.protocol != "synapse":
        return reader, writer
    try:
        await _shake_hands(reader, writer, address)
    except BaseException as error:
        writer.transport.abort()
        if isinstance(error, (OSError, EOFError)) and not isinstance(error, ConnectFailed):
            raise _no_greeting(wanted, address) from error
        raise
    return reader, writer


async def _connect(
    wanted: Wanted, address: Address
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    tls = wanted.tls
    if tls is None and address.tls:
        raise ConnectFailed("tls", f"{address} speaks TLS: give the client `tls`")
    context = tls.client_context() if isinstance(tls, TLS) else tls
    name = tls.server_name if isinstance(tls, TLS) else None
    try:
        return await asyncio.open_connection(
            address.host,
            address.port,
            ssl=context,
            server_hostname=None if context is None else name or address.host,
        )
    except ssl.SSLError as error:
        raise ConnectFailed("tls", f"{address}: TLS failed: {error}") from error
    except OSError as error:
        raise ConnectFailed(
            "unreachable", f"cannot connect to {address}: {reason_of(error)}"
        ) from error


def _no_greeting(wanted: Wanted, address: Address) -> ConnectFailed:
    # With TLS 1.3, a server refuses the certificate of a client that takes itself for connected.
    if wanted.tls is not None:
        why = f"{address} ended TLS: it may want a certificate of the client, or another one"
        return ConnectFailed("tls", why)
    why = f"{address} closed the connection without a greeting: it is no Synapse server, or "
    return ConnectFailed("protocol", f"{why}it wants TLS")


async def _shake_hands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: Address
) -> None:
    nonce = _handshake.make_nonce()
    writer.write(_handshake.greeting(_handshake.VERSION, nonce))
    greeting = _handshake.parse_greeting(await reader.readexactly(_handshake.GREETING_SIZE))
    if greeting is None:
        raise ConnectFailed("protocol", f"{address} is no Synapse server")
    byte, other = greeting
    if byte == _handshake.OTHER_VERSION or byte not in (_handshake.OPEN, _handshake.TOKEN):
        raise ConnectFailed(
            "protocol", f"{address} speaks another version: update whichever is older"
        )
    token = address.token
    if byte == _handshake.OPEN:
        if token is not None:
            raise ConnectFailed(
                "token", f"{address} asks for no token: it is not the server that the token is for"
            )
        return
    if token is None:
        raise ConnectFailed("token", f"{address} asks for a token: give the client `token`")
    writer.write(_handshake.client_proof(token, nonce, other))
    verdict = await reader.readexactly(_handshake.VERDICT_SIZE)
    if verdict[0] != 1:
        raise ConnectFailed("token", f"{address} refused the token")
    if not _handshake.holds(verdict[1:], _handshake.server_proof(token, nonce, other)):
        raise ConnectFailed(
            "token", f"{address} does not know the token: it is not the server that it is for"
        )
