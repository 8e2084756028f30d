"""What goes on in a worker, in numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_counted: Final[dict[str, Callable[[], int]]] = {
    name: lambda: 0 for name in ("calls", "streams", "host_calls", "handles", "tasks")
}


def count(**counters: Callable[[], int]) -> None:
    """Tell where the numbers come from."""
    assert counters.keys() <= _counted.keys()
    _counted.update(counters)


def stats() -> dict[str, int]:
    """Return what goes on in this worker at the moment.

    `calls` are the open calls of the host, the one that asks included; `streams` those of them that
    stream; `host_calls` the open calls of host functions; `handles` the objects that the host
    holds; `tasks` the functions in the background. Outside of a worker, all are 0.

    Example:
        >>> import synapse
        >>> synapse.stats()
        {'calls': 0, 'streams': 0, 'host_calls': 0, 'handles': 0, 'tasks': 0}
    """
    return {name: counter() for name, counter in _counted.items()}
