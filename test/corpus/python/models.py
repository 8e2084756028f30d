"""Models of pydantic."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Generic, Literal, TypeVar, Union

import synapse
from pydantic import BaseModel, ConfigDict, Field, RootModel

T = TypeVar("T")


class Item(BaseModel):
    """Something in a cart."""

    sku: str = Field(pattern="^[A-Z]{2}[0-9]{3}$", description="Its number.")
    count: int = Field(default=1, ge=1, le=99)
    price: float = Field(gt=0)
    labels: list[str] = Field(default_factory=list, max_length=3)


class Cart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[Item]
    owner: str | None = None
    due: dt.date | None = None


class Card(BaseModel):
    method: Literal["card"]
    number: Annotated[str, Field(min_length=4, max_length=8)]


class Transfer(BaseModel):
    method: Literal["transfer"]
    iban: str


Payment = Annotated[Union[Card, Transfer], Field(discriminator="method")]


class Order(BaseModel):
    cart: Cart
    payment: Payment


class Box(BaseModel, Generic[T]):
    content: T
    weight: float = 0.0


class Category(BaseModel):
    name: str
    parents: list[Category] = []


@synapse.handler
def cart(cart: Cart) -> Cart:
    return cart


@synapse.handler
def order(order: Order) -> Order:
    return order


class Payments(RootModel[list[Payment]]):
    pass


@synapse.handler
def payments(payments: Payments) -> Payments:
    return payments


@synapse.handler
def box(box: Box[Item]) -> Box[Item]:
    return box


@synapse.handler
def category(category: Category) -> Category:
    return category
