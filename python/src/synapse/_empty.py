"""`synapse.empty`: arrays that are made where an answer refers to them."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

from synapse._cancel import shielded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse._sharing import Sharing

_sharing: Sharing | None = None


def attach(sharing: Sharing) -> None:
    """Make arrays in the shared memory of this worker from now on."""
    global _sharing
    _sharing = sharing


@shielded
def empty(shape: int | Sequence[int], dtype: Any = "float64") -> Any:
    """Return a numpy array whose elements are not set, for a large result that is written once.

    Where the worker shares memory with its host, the array lies there: a handler that returns it,
    or returns it as a part of its value, sends where it is and copies nothing. From then on the
    array cannot be written to. Elsewhere, where there is no room, and where the array is small, it
    is what `numpy.empty` makes.

    Args:
        shape: The lengths of its dimensions, or the length of its only one.
        dtype: The type of its elements, as numpy takes it.

    Raises:
        ImportError: numpy is not installed.

    Example:
        >>> import synapse
        >>> @synapse.handler
        ... def squares(count: int):
        ...     result = synapse.empty(count)
        ...     for index in range(count):
        ...         result[index] = index * index
        ...     return result
        >>> squares(4).tolist()
        [0.0, 1.0, 4.0, 9.0]
    """
    try:
        import numpy
    except ImportError as error:
        raise ImportError("synapse.empty makes numpy arrays, and numpy is not installed") from error
    kind = numpy.dtype(dtype)
    if _sharing is not None and not kind.hasobject:
        lengths = _lengths(shape)
        if min(lengths, default=1) > 0:
            memory = _sharing.make(math.prod(lengths) * kind.itemsize)
            if memory is not None:
                return numpy.ndarray(lengths, kind, memory)
    return numpy.empty(shape, kind)


def _lengths(shape: int | Sequence[int]) -> tuple[int, ...]:
    if hasattr(shape, "__index__"):
        return (operator.index(shape),)
    return tuple(map(operator.index, shape))
