"""Generators, input streams, declared errors, and names that TypeScript reserves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import synapse


@dataclass
class Token:
    text: str
    index: int


class NotFound(synapse.Error):
    """Nothing of that name."""

    name: str


class Busy(synapse.Error):
    seconds: float
    reasons: list[str]


@dataclass
class Schema:
    """A name that the module imports."""

    name: str


@dataclass
class Map:
    """A name that JavaScript has."""

    entries: dict[str, int]


@synapse.handler
def count(values: list[int]) -> Iterator[int]:
    """Stream integers."""
    yield from values


@synapse.handler
async def tokens(values: list[Token]) -> AsyncIterator[Token]:
    for value in values:
        yield value


@synapse.handler(stream=True)
def listed(values: list[str]) -> list[str]:
    return values


@synapse.handler
def total(values: Iterator[int], factor: int = 1) -> int:
    return factor * sum(values)


@synapse.handler
async def doubled(values: AsyncIterator[int]) -> AsyncIterator[int]:
    async for value in values:
        yield 2 * value


@synapse.handler(raises=[NotFound])
def find(name: str) -> None:
    raise NotFound(name=name)


@synapse.handler(raises=[NotFound, Busy])
def either_error(seconds: float, reasons: list[str]) -> None:
    raise Busy(seconds=seconds, reasons=reasons)


@synapse.handler(raises=[Busy])
def failing_stream(seconds: float, reasons: list[str]) -> Iterator[int]:
    yield 1
    raise Busy(seconds=seconds, reasons=reasons)


@synapse.handler
def schema(schema: Schema) -> Schema:
    return schema


@synapse.handler
def map(map: Map) -> Map:
    return map


@synapse.handler(name="delete")
def remove(default: bool) -> bool:
    return default


@synapse.handler(name="name-with.dots/and-dashes")
def odd(value: int) -> int:
    return value


@synapse.handler(name="größe")
def unicode(wert_größe: int) -> int:
    return wert_größe


@synapse.handler
def constructor(prototype: str) -> str:
    return prototype


@synapse.handler
def open_object() -> synapse.Handle:
    return synapse.Handle(object())
