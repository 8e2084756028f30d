"""Functions that TypeScript calls.

    import synapse

    @synapse.handler
    def embed(text: str) -> list[float]:
        ...

`handler` registers a function, `Error` is the base of the failures a handler declares, and
`context` tells a handler about the call it answers. The module can be imported anywhere: without a
worker around it, handlers are plain functions.
"""

from synapse._context import Context, context
from synapse._declared import Error
from synapse._handlers import handler
from synapse._version import VERSION as __version__

__all__ = ["Context", "Error", "__version__", "context", "handler"]
