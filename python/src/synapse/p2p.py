"""The names of synapse-p2p, for programs that were written with it.

    from synapse.p2p import Server

`Server` is `synapse.Server`, which answers the two wires of synapse-p2p beside its own, without a
token: whoever can connect to this machine's loopback address can call it. New programs take
`synapse.Server`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from synapse._client import AsyncClient
from synapse._server import Server as _Server
from synapse._wire_p2p0 import RemoteProcedureCall

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ["Client", "RemoteProcedureCall", "Server"]


class Server(_Server):
    """`synapse.Server` with the wires of synapse-p2p, and no token unless one is given.

    The address and the port may be given by position, as 0.0.5 had them.
    """

    def __init__(
        self, address: str = "127.0.0.1", port: int | str | None = None, **options: Any
    ) -> None:
        options.setdefault("protocols", ("synapse", "p2p", "p2p-0"))
        options.setdefault("token", False)
        super().__init__(address=address, port=port, **options)

    def background(
        self, seconds: float | None = None, *, period: float | None = None
    ) -> Callable[[F], F]:
        """What `synapse.Server.background` does; 0.0.5 calls the interval `period`."""
        interval: Any = period if seconds is None else seconds
        return super().background(interval)


class Client(AsyncClient):
    """The client of today's nodes: `await Client(address, port).call(name, *args, **kwargs)`."""

    def __init__(self, address: str = "127.0.0.1", port: int = 9999, **options: Any) -> None:
        options.setdefault("protocol", "p2p")
        super().__init__(address, port, **options)
