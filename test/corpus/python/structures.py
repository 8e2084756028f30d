"""Dataclasses, typed dictionaries, named tuples, msgspec structs, unions, generics, recursion."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar, Union

import msgspec
import synapse
from typing_extensions import NotRequired

T = TypeVar("T")


class Priority(enum.IntEnum):
    """How soon."""

    LOW = 1
    HIGH = 2


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Size(enum.Enum):
    SMALL = 1
    LARGE = "large"


@dataclass
class Job:
    """A piece of work.

    It has a comment that ends here: */ and goes on.
    """

    id: int
    name: str
    priority: Priority = Priority.LOW
    retries: int = 3
    note: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What comes back only."""

    job: Job
    ok: bool = True
    lines: list[str] = field(default_factory=list)


class Address(TypedDict):
    street: str
    zip: Annotated[str, msgspec.Meta(pattern="^[0-9]{5}$", description="Five digits.")]


class Person(Address, total=False):
    name: str
    nick: NotRequired[str | None]


class Point(NamedTuple):
    """A place."""

    x: float
    y: float
    label: str = "here"


class Circle(msgspec.Struct, tag="circle"):
    radius: Annotated[float, msgspec.Meta(gt=0)]


class Square(msgspec.Struct, tag="square", forbid_unknown_fields=True):
    side: Annotated[float, msgspec.Meta(gt=0, le=1e6)]


Shape = Union[Circle, Square]


@dataclass
class Cat:
    lives: int
    kind: Literal["cat"] = "cat"


@dataclass
class Dog:
    tricks: list[str]
    kind: Literal["dog"] = "dog"


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: str


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    last_name: str = "unknown"


class Settings(msgspec.Struct, kw_only=True):
    level: Annotated[int, msgspec.Meta(ge=0, lt=10)] = 5
    ratio: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=20)] = "none"
    codes: Annotated[list[int], msgspec.Meta(min_length=1, max_length=5)] = msgspec.field(default_factory=lambda: [1])
    mode: Literal["fast", "slow"] = "fast"


@dataclass
class Page(Generic[T]):
    """One page of many."""

    items: list[T]
    next: int | None


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass
class Folder:
    name: str
    entries: list[Entry]


@dataclass
class File:
    name: str
    size: int


Entry = Union[Folder, File]


class Node(msgspec.Struct, Generic[T]):
    value: T
    next: Node[T] | None = None


UserId = NewType("UserId", str)
Meters = NewType("Meters", float)


@synapse.handler
def job(job: Job) -> Job:
    """Echo a job."""
    return job


@synapse.handler
def report(job: Job) -> Report:
    return Report(job)


@synapse.handler
def person(person: Person) -> Person:
    return person


@synapse.handler
def people(people: list[Person]) -> list[Person]:
    return people


@synapse.handler
def point(point: Point) -> Point:
    return point


@synapse.handler
def points(points: dict[str, Point]) -> dict[str, Point]:
    return points


@synapse.handler
def shape(shape: Shape) -> Shape:
    return shape


@synapse.handler
def shapes(shapes: list[Circle | Square]) -> list[Circle | Square]:
    return shapes


@synapse.handler
def pet(pets: list[Annotated[Union[Cat, Dog], "by kind"]]) -> list[Union[Cat, Dog]]:
    return pets


@synapse.handler
def pair(pair: Pair) -> Pair:
    return pair


@synapse.handler
def renamed(renamed: Renamed) -> Renamed:
    return renamed


@synapse.handler
def settings(settings: Settings) -> Settings:
    return settings


@synapse.handler
def page_of_jobs(page: Page[Job]) -> Page[Job]:
    return page


@synapse.handler
def page_of_numbers(page: Page[int]) -> Page[int]:
    return page


@synapse.handler
def tree(tree: Tree) -> Tree:
    return tree


@synapse.handler
def folder(folder: Folder) -> Folder:
    return folder


@synapse.handler
def chain(node: Node[int]) -> Node[int]:
    return node


@synapse.handler
def text_chain(nodes: list[Node[str]]) -> list[Node[str]]:
    return nodes


@synapse.handler
def color(color: Color) -> Color:
    return color


@synapse.handler
def size(sizes: list[Size]) -> list[Size]:
    return sizes


@synapse.handler
def priority(priority: Priority = Priority.HIGH) -> Priority:
    return priority


@synapse.handler
def choice(choice: Literal["a", "b", 3, True, None]) -> Literal["a", "b", 3, True, None]:
    return choice


@synapse.handler
def user_id(user: UserId, height: Meters) -> tuple[UserId, Meters]:
    return user, height


@synapse.handler
def maybe(a: int | None, b: str | None = None, c: float = 1.5) -> Maybe:
    """Optional against missing.

    `a` may be None and has to be there, `b` may be missing too, `c` has a default.
    """
    return {"a": a, "b": b, "c": c}


class Maybe(TypedDict):
    a: int | None
    b: str | None
    c: float
