"""What a contract says and what is taken by the binder are the same."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime as dt
import decimal
import enum
import typing
import uuid
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import attrs
import msgspec
import numpy as np
import pydantic
import pytest
import typing_extensions
from contracts import UTC, fits, taken
from hypothesis import given, settings
from hypothesis import strategies as st

import synapse
from synapse._binding import binder
from synapse._codec import Codec, DecodeIssue, choose

T = TypeVar("T")
Meta = msgspec.Meta


class Color(enum.Enum):
    RED = "red"
    TWO = 2


@dataclasses.dataclass
class Job:
    name: Annotated[str, Meta(min_length=1)]
    tries: int = 3
    done: bool = dataclasses.field(init=False)
    color: Color | None = None
    parent: Job | None = None

    def __post_init__(self) -> None:
        self.done = False


@dataclasses.dataclass(slots=True)
class Slotted:
    n: Annotated[int, Meta(ge=0)]
    more: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Box(Generic[T]):
    item: int
    more: list[int]


class Options(typing_extensions.TypedDict, total=False):
    name: typing_extensions.Required[str]
    size: int


class Point(typing.NamedTuple):
    x: int
    y: str = "a"


class Renamed(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    first_name: str
    nick_names: list[str] = []


class Flat(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    n: int
    text: str = "a"


class Circle(msgspec.Struct, tag_field="_tag", tag="circle"):
    radius: float


class Square(msgspec.Struct, tag_field="_tag", tag="square"):
    side: float


@attrs.define
class Made:
    n: int
    text: str = "a"


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    full_name: str = pydantic.Field(alias="fullName", max_length=3)
    ages: list[int] = []


class Cat(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    kind: Literal["dog"]


class Home(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")


UserId = NewType("UserId", int)

ANNOTATIONS: list[Any] = [
    None,
    bool,
    int,
    synapse.Int64,
    float,
    str,
    bytes,
    dt.datetime,
    dt.date,
    dt.time,
    dt.timedelta,
    decimal.Decimal,
    uuid.UUID,
    list,
    list[int],
    abc.Iterable[int],
    tuple[int, str],
    tuple[int, ...],
    set[int],
    dict,
    dict[str, int],
    dict[int, str],
    int | None,
    int | str,
    list[int] | dict[str, int],
    Literal["a", 1, None],
    Color,
    UserId,
    np.int8,
    np.uint64,
    np.float64,
    np.bool_,
    Annotated[int, Meta(gt=-1, lt=2)],
    Annotated[int, Meta(multiple_of=2)],
    Annotated[float, Meta(ge=1.5)],
    Annotated[str, Meta(pattern="^a")],
    Annotated[str, Meta(max_length=1)],
    Annotated[list[int], Meta(min_length=1)],
    Annotated[dt.datetime, Meta(tz=True)],
    Annotated[dt.datetime, Meta(tz=False)],
    list[Annotated[int, Meta(ge=1)]],
    Job,
    list[Job],
    Slotted,
    Box[int],
    Options,
    Point,
    Renamed,
    Flat,
    Circle | Square,
    Circle | None,
    Made,
    Strict,
    Home,
]

INSTANT = dt.datetime(2020, 1, 2, tzinfo=UTC)
#: Values as they arrive; each is tried as every type.
VALUES: list[Any] = [
    None,
    True,
    0,
    1,
    -1,
    3,
    200,
    2**53 - 1,
    0.5,
    2.5,
    "",
    "a",
    "abc",
    "red",
    b"",
    b"ab",
    INSTANT,
    "2020-01-02T03:04:05",
    "2020-01-02",
    "03:04:05",
    "PT3S",
    "1.50",
    "00000000-0000-0000-0000-000000000007",
    [],
    [1],
    [1, 2],
    [1, "a"],
    ["a", "b"],
    [None],
    {},
    {"a": 1},
    {"a": "b"},
    {1: "a"},
    {"name": "n"},
    {"name": ""},
    {"name": "n", "size": 1},
    {"name": "n", "size": "x"},
    {"name": "n", "tries": 1, "color": "red", "parent": {"name": "p", "color": 2}, "more": 1},
    {"name": "n", "color": "green"},
    {"name": "n", "parent": {"name": 1}},
    {"name": "n", "tries": None},
    {"n": 1},
    {"n": -1},
    {"n": 1, "text": "b", "more": [1]},
    {"item": 1, "more": [2]},
    {"item": 1},
    {"firstName": "f"},
    {"first_name": "f"},
    {"firstName": "f", "nickNames": ["a"]},
    {"firstName": "f", "nickNames": [1]},
    {"firstName": "f", "other": 1},
    {"_tag": "circle", "radius": 1},
    {"_tag": "square", "side": 1.5},
    {"_tag": "circle", "side": 1.5},
    {"_tag": "other"},
    {"fullName": "f"},
    {"fullName": "f", "ages": [1], "more": 1},
    {"fullName": "long"},
    {"full_name": "f"},
    {"fullName": "f", "ages": [1]},
    {"pet": {"kind": "cat", "lives": 9}},
    {"pet": {"kind": "dog"}},
    {"pet": {"kind": "cat"}},
    {"pet": {"kind": "fox"}},
]


def bind_of(annotation: Any, codec: Codec) -> Any:
    def f(value: Any, other: Any) -> None: ...

    f.__annotations__ = {"value": annotation}
    return binder(f, "f", codec)


def takes(bind: Any, codec: Codec, value: Any) -> bool:
    try:
        bind(codec.encode({"value": value, "other": 1}))
    except DecodeIssue:
        return False
    return True


#: What is taken beyond what a contract says: forms of numbers and ids that are no text.
GENEROUS: dict[Any, tuple[type, ...]] = {
    decimal.Decimal: (int, float),
    uuid.UUID: (bytes,),
}


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
def test_what_fits_the_contract_is_taken_and_nothing_else(codec: Codec, annotation: Any) -> None:
    kind, definitions = taken(annotation)
    bind = bind_of(annotation, codec)
    wrong = {}
    for value in VALUES:
        expected = fits(value, kind, definitions)
        if takes(bind, codec, value) != expected:
            generous = GENEROUS.get(annotation, ())
            if not (isinstance(value, generous) and not expected):
                wrong[repr(value)] = expected
    assert wrong == {}


def values_of(kind: Any, definitions: Any) -> st.SearchStrategy[Any]:
    """Values that a contract says are taken."""
    return _Values(definitions).of(kind)


class _Values:
    def __init__(self, definitions: Any, depth: int = 0) -> None:
        self._definitions = definitions
        self._depth = depth

    def of(self, kind: Any) -> st.SearchStrategy[Any]:
        name = kind["kind"]
        if name in _SIMPLE:
            return _SIMPLE[name]
        if name in ("integer", "int64", "number", "string", "bytes"):
            return _scalars(kind)
        if name == "datetime":
            aware = st.datetimes(timezones=st.just(UTC))
            naive = st.datetimes().map(dt.datetime.isoformat)
            return {True: aware, False: naive, None: aware | naive}[kind["aware"]]
        if name == "literal":
            return st.sampled_from(kind["values"])
        if name in ("list", "map"):
            least, most = kind.get("minLength", 0), kind.get("maxLength", 4)
            if name == "map":
                keys = _KEYS if kind["keys"]["kind"] == "unknown" else self.of(kind["keys"])
                values = self.of(kind["values"])
                return st.dictionaries(keys, values, min_size=least, max_size=most)
            return st.lists(self.of(kind["items"]), min_size=least, max_size=most)
        if name == "tuple":
            return st.tuples(*map(self.of, kind["items"])).map(list)
        if name == "union":
            members = [each for each in kind["members"] if each["kind"] != "stream"]
            return st.one_of(*map(self.of, members))
        return self._ref(kind)

    def _ref(self, kind: Any) -> st.SearchStrategy[Any]:
        definition = self._definitions[kind["name"]]
        inner = _Values(self._definitions, self._depth + 1)
        if definition["kind"] == "alias":
            return inner.of(definition["type"])
        if definition["kind"] == "enum":
            return st.sampled_from([each["value"] for each in definition["members"]])
        fields = definition["fields"]
        if definition["kind"] == "record":
            return st.tuples(*(inner.of(each["type"]) for each in fields)).map(list)
        required = {each["name"]: inner.of(each["type"]) for each in fields if each["required"]}
        optional = {}
        if self._depth < 2:
            optional = {
                each["name"]: inner.of(each["type"]) for each in fields if not each["required"]
            }
        tag = definition.get("tag")
        if tag is not None:
            required[tag["field"]] = st.just(tag["value"])
        return st.fixed_dictionaries(required, optional=optional)


def _scalars(kind: Any) -> st.SearchStrategy[Any]:
    name = kind["kind"]
    if name in ("string", "bytes"):
        sizes = {"min_size": kind.get("minLength", 0), "max_size": kind.get("maxLength", 9)}
        if "pattern" in kind:
            return st.from_regex(kind["pattern"])
        return st.binary(**sizes) if name == "bytes" else st.text(_CHARACTERS, **sizes)
    edge = 2**53 - 1 if name != "int64" else 2**63 - 1
    least = kind.get("minimum", kind.get("exclusiveMinimum", -edge - 1) + 1)
    most = kind.get("maximum", kind.get("exclusiveMaximum", edge + 1) - 1)
    if name == "number":
        return st.floats(least, most) | st.integers(int(least) + 1, int(most))
    step = kind.get("multipleOf", 1)
    return st.integers(least, most).filter(lambda value: value % step == 0)


_CHARACTERS = st.characters(exclude_categories=("Cs",))
_KEYS = st.text(_CHARACTERS, max_size=3) | st.integers(-9, 9)
_SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "unknown": st.none() | st.integers(-9, 9) | st.text(_CHARACTERS, max_size=3),
    "null": st.none(),
    "boolean": st.booleans(),
    "date": st.dates().map(dt.date.isoformat),
    "time": st.times().map(dt.time.isoformat),
    "duration": st.integers(0, 10**6).map("PT{}S".format),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False).map(str),
    "uuid": st.uuids().map(str),
}


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
@pytest.mark.parametrize("name", ["msgspec", "python"])
def test_every_value_of_the_contract_is_taken(
    name: str, annotation: Any, cases: abc.Callable[[int], int]
) -> None:
    codec = choose(name)
    kind, definitions = taken(annotation)
    bind = bind_of(annotation, codec)

    @settings(max_examples=cases(20), database=None)
    @given(values_of(kind, definitions))
    def check(value: Any) -> None:
        bind(codec.encode({"value": value, "other": 1}))

    check()
