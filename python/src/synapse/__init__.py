"""Functions that TypeScript calls.

    import synapse

    @synapse.handler
    def embed(text: str) -> list[float]:
        ...

`handler` registers a function, `Error` is the base of the failures a handler declares, and
`context` tells a handler about the call it answers. `service` makes an object whose methods are
handlers, `on_start` and `on_stop` are run at both ends of the life of a worker, and `background`
runs a function at intervals in between. The module can be imported anywhere: without a worker
around it, decorated functions are plain functions.
"""

from synapse._background import background
from synapse._context import Context, context
from synapse._declared import Error
from synapse._handlers import handler
from synapse._hooks import on_start, on_stop
from synapse._service import service
from synapse._version import VERSION as __version__

__all__ = [
    "Context",
    "Error",
    "__version__",
    "background",
    "context",
    "handler",
    "on_start",
    "on_stop",
    "service",
]
