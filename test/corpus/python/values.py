"""Scalars and collections, with their constraints."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import synapse
from msgspec import Meta


@synapse.handler
def nothing() -> None:
    """Take nothing, give nothing."""


@synapse.handler
def anything(value: Any, /) -> Any:
    return value


@synapse.handler
def untyped(value):
    return value


@synapse.handler
def flag(value: bool) -> bool:
    return value


@synapse.handler
def integer(value: int) -> int:
    return value


@synapse.handler
def bounded(value: Annotated[int, Meta(ge=-5, lt=100, multiple_of=5)]) -> Annotated[int, Meta(ge=-5, lt=100)]:
    return value


@synapse.handler
def int64(value: synapse.Int64) -> synapse.Int64:
    return value


@synapse.handler
def int64s(values: list[synapse.Int64]) -> list[synapse.Int64]:
    return values


@synapse.handler
def number(value: float) -> float:
    return value


@synapse.handler
def ratio(value: Annotated[float, Meta(ge=0, le=1)]) -> float:
    return value


@synapse.handler
def text(value: str) -> str:
    return value


@synapse.handler
def short_text(value: Annotated[str, Meta(min_length=2, max_length=4)]) -> str:
    return value


@synapse.handler
def code(value: Annotated[str, Meta(pattern="^[A-Z]{3}-[0-9]{2,4}$")]) -> str:
    return value


@synapse.handler
def data(value: bytes) -> bytes:
    return value


@synapse.handler
def short_data(value: Annotated[bytes, Meta(max_length=8)]) -> bytes:
    return value


@synapse.handler
def instant(value: Annotated[dt.datetime, Meta(tz=True)]) -> Annotated[dt.datetime, Meta(tz=True)]:
    return value


@synapse.handler
def naive(value: Annotated[dt.datetime, Meta(tz=False)]) -> Annotated[dt.datetime, Meta(tz=False)]:
    return value


@synapse.handler
def some_datetime(value: dt.datetime) -> dt.datetime:
    return value


@synapse.handler
def day(value: dt.date) -> dt.date:
    return value


@synapse.handler
def time_of_day(value: dt.time) -> dt.time:
    return value


@synapse.handler
def duration(value: dt.timedelta) -> dt.timedelta:
    return value


@synapse.handler
def amount(value: Decimal) -> Decimal:
    return value


@synapse.handler
def identity(value: uuid.UUID) -> uuid.UUID:
    return value


@synapse.handler
def numbers(values: Annotated[list[float], Meta(min_length=1, max_length=3)]) -> list[float]:
    return values


@synapse.handler
def names(values: set[str]) -> set[str]:
    return values


@synapse.handler
def triple(value: tuple[int, str, bool]) -> tuple[int, str, bool]:
    return value


@synapse.handler
def many(values: tuple[int, ...]) -> tuple[int, ...]:
    return values


@synapse.handler
def counts(value: dict[str, int]) -> dict[str, int]:
    return value


@synapse.handler
def by_number(value: dict[int, str]) -> dict[int, str]:
    return value


@synapse.handler
def nested(values: dict[str, list[tuple[int, float | None]]]) -> dict[str, list[tuple[int, float | None]]]:
    return values


@synapse.handler
def either(value: int | str | None) -> int | str | None:
    return value


@synapse.handler
def keywords(**values: int) -> dict[str, int]:
    return values


@synapse.handler
def some_keywords(first: str, **others: int) -> dict[str, int | str]:
    return {"first": first, **others}


@synapse.handler
def everything(
    text: str,
    count: int = 1,
    *,
    day: dt.date | None = None,
    raw: bytes = b"",
) -> Everything:
    return Everything(text, count, day, raw)


class Everything(msgspec.Struct):
    text: str
    count: int
    day: dt.date | None
    raw: bytes
