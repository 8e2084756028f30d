"""A shop. What its handlers take and give is said here, and TypeScript knows it: see python.gen.ts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

import synapse
from host import host
from msgspec import Meta

PRICES = {"tea": Decimal("4.50"), "cup": Decimal("12.00")}
STOCK = {"tea": 100, "cup": 2}


@dataclass
class Line:
    product: Literal["tea", "cup"]
    count: Annotated[int, Meta(ge=1, le=99)] = 1


@dataclass
class Pickup:
    shop: str
    kind: Literal["pickup"] = "pickup"


@dataclass
class Parcel:
    street: str
    express: bool = False
    kind: Literal["parcel"] = "parcel"


@dataclass
class Quote:
    total: Decimal
    currency: str
    notes: list[str]


class OutOfStock(synapse.Error):
    """There is not as much of it."""

    product: str
    left: int


@synapse.handler(raises=[OutOfStock])
async def quote(lines: list[Line], delivery: Pickup | Parcel, currency: str = "EUR") -> Quote:
    """What an order costs.

    The exchange rate is asked of TypeScript.
    """
    for line in lines:
        if line.count > STOCK[line.product]:
            raise OutOfStock(product=line.product, left=STOCK[line.product])
    notes = []
    total = sum((PRICES[line.product] * line.count for line in lines), Decimal(0))
    if isinstance(delivery, Parcel):
        total += 9 if delivery.express else 5
        notes.append(f"sent to {delivery.street}")
    rate = Decimal(1) if currency == "EUR" else await host.exchangeRate(currency=currency)
    return Quote(round(total * rate, 2), currency, notes)


@synapse.handler
async def track(order: int) -> AsyncIterator[Literal["packed", "sent", "there"]]:
    """Where an order is, as it goes on."""
    steps: list[Literal["packed", "sent", "there"]] = ["packed", "sent", "there"]
    for step in steps:
        await asyncio.sleep(0.01)
        yield step
