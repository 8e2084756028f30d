"""Functions that TypeScript calls.

    import synapse

    @synapse.handler
    def embed(text: str) -> list[float]:
        ...

`handler` registers a function, `Error` is the base of the failures a handler declares, and
`context` tells a handler about the call it answers. `host` calls functions of TypeScript, and a
`Stream` is what comes from there item by item. `service` makes an object whose methods are
handlers, `on_start` and `on_stop` are run at both ends of the life of a worker, and `background`
runs a function at intervals in between; `replace_me` asks for another worker. A `Handle` is an
object that TypeScript holds, a `Controller` the class of objects that it opens by name, `empty`
makes an array that is returned without a copy, and `stats` says in numbers what goes on. `Int64`
annotates an integer that TypeScript takes as a bigint. The module can be imported anywhere: without
a worker around it, decorated functions are plain functions.

A `Server` is a plain Python program whose endpoints are called over a network, by TypeScript and by
a `Client` or an `AsyncClient`.
"""

from typing import TYPE_CHECKING, Any

from synapse._background import background
from synapse._cancel import Cancelled
from synapse._context import Context, context
from synapse._controller import Controller
from synapse._declared import Error
from synapse._empty import empty
from synapse._failures import HostCallFailed, HostError
from synapse._handle import Handle
from synapse._handlers import handler
from synapse._hooks import on_start, on_stop
from synapse._host import host
from synapse._incoming import Stream
from synapse._integers import Int64
from synapse._replace import replace_me
from synapse._service import service
from synapse._stats import stats
from synapse._version import VERSION as __version__

if TYPE_CHECKING:
    from synapse._client import AsyncClient, Client, Peer
    from synapse._client_errors import CallFailed, CallTimedOut, ConnectFailed, ConnectionLost
    from synapse._server import Server
    from synapse._tls import TLS
    from synapse._wire_p2p0 import RemoteProcedureCall

__all__ = [
    "AsyncClient",
    "CallFailed",
    "CallTimedOut",
    "Cancelled",
    "Client",
    "ConnectFailed",
    "ConnectionLost",
    "Context",
    "Controller",
    "Error",
    "Handle",
    "HostCallFailed",
    "HostError",
    "Int64",
    "Peer",
    "RemoteProcedureCall",
    "Server",
    "Stream",
    "TLS",
    "__version__",
    "background",
    "context",
    "empty",
    "handler",
    "host",
    "on_start",
    "on_stop",
    "replace_me",
    "service",
    "stats",
]

# What most workers do not need, and takes long to import.
_LATER = {
    "AsyncClient": "_client",
    "CallFailed": "_client_errors",
    "CallTimedOut": "_client_errors",
    "Client": "_client",
    "ConnectFailed": "_client_errors",
    "ConnectionLost": "_client_errors",
    "Peer": "_client",
    "RemoteProcedureCall": "_wire_p2p0",
    "Server": "_server",
    "TLS": "_tls",
}


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module 'synapse' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"synapse.{module}"), name)
    globals()[name] = value
    return value
