"""`synapse.Int64`: integers that TypeScript takes as bigints."""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

LEAST: Final = -(1 << 63)
MOST: Final = (1 << 63) - 1


class Range:
    """Bounds, where msgspec is not there to check them."""

    __slots__ = ("ge", "le")

    def __init__(self, ge: int, le: int) -> None:
        self.ge = ge
        self.le = le


def _range() -> Any:
    try:
        from msgspec import Meta
    except Exception:
        # The codec that is chosen without it says so where it is broken.
        return Range(LEAST, MOST)
    return Meta(ge=LEAST, le=MOST)


_RANGE: Final = _range()

#: An `int` of 64 bits, from -2^63 to 2^63-1. In TypeScript it is a `bigint`, where a plain `int` is
#: a `number`, exact up to 2^53. For type checkers it is an `int`.
Int64: TypeAlias = Annotated[int, _RANGE]
