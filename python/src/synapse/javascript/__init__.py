"""JavaScript that Python calls.

    from synapse import javascript

    with javascript.Client() as js:
        js.run("(m, p) => `Hello, ${p}!`", "world")

A `Client` starts Node and runs functions there, as many at once as it has threads; an
`AsyncClient` is the same for asyncio. The module works in any Python program: no worker of Synapse
is needed around it, only Node, and the npm package `effect-synapse`, which it is a part of.
`synapse.javascript.jsockd` has the names of JSockD's client.
"""

from synapse.javascript._async_client import AsyncClient
from synapse.javascript._client import Client, ThreadStats
from synapse.javascript._errors import (
    Closed,
    JavaScriptError,
    JavaScriptTimeout,
    NodeError,
    NodeExited,
    NodeNotFound,
    NodeStartFailed,
    NodeUnresponsive,
    Place,
    RestartLimit,
    TraceItem,
)
from synapse.javascript._logs import LogRecord
from synapse.javascript._signing import generate_keys, sign

__all__ = [
    "AsyncClient",
    "Client",
    "Closed",
    "JavaScriptError",
    "JavaScriptTimeout",
    "LogRecord",
    "NodeError",
    "NodeExited",
    "NodeNotFound",
    "NodeStartFailed",
    "NodeUnresponsive",
    "Place",
    "RestartLimit",
    "ThreadStats",
    "TraceItem",
    "generate_keys",
    "sign",
]
