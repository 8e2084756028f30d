from __future__ import annotations

import array
import collections
import collections.abc as abc
import dataclasses
import datetime as dt
import decimal
import enum
import typing
import uuid
from typing import Annotated, Any, Literal

import annotated_types
import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pydantic
import pytest
from contracts import given, taken

import synapse

INTEGER = {"kind": "integer"}
STRING = {"kind": "string"}
NULL = {"kind": "null"}
UNKNOWN = {"kind": "unknown"}
NUMBER = {"kind": "number"}
BYTES = {"kind": "bytes"}
BOOLEAN = {"kind": "boolean"}
INT64 = {"kind": "int64"}
TABLE = {"kind": "table"}


def a_list(items: Any, **more: Any) -> Any:
    return {"kind": "list", "items": items, **more}


def a_map(keys: Any, values: Any, **more: Any) -> Any:
    return {"kind": "map", "keys": keys, "values": values, **more}


def a_union(*members: Any) -> Any:
    return {"kind": "union", "members": list(members)}


def a_stream(items: Any) -> Any:
    return {"kind": "stream", "items": items}


def an_array(dtype: Any = None, dimensions: Any = None) -> Any:
    return {"kind": "ndarray", "dtype": dtype, "dimensions": dimensions}


def a_time(aware: Any) -> Any:
    return {"kind": "datetime", "aware": aware}


class Color(enum.Enum):
    RED = "red"


Shape = typing.TypeVar("Shape", bound=int)
Meta = msgspec.Meta

#: What is the same in both ways.
BOTH: list[tuple[Any, Any]] = [
    (Any, UNKNOWN),
    (object, UNKNOWN),
    (None, NULL),
    (bool, BOOLEAN),
    (int, INTEGER),
    (float, NUMBER),
    (str, STRING),
    (bytes, BYTES),
    (bytearray, BYTES),
    (memoryview, BYTES),
    (dt.datetime, a_time(None)),
    (dt.date, {"kind": "date"}),
    (dt.time, {"kind": "time"}),
    (dt.timedelta, {"kind": "duration"}),
    (decimal.Decimal, {"kind": "decimal"}),
    (uuid.UUID, {"kind": "uuid"}),
    (list, a_list(UNKNOWN)),
    (list[int], a_list(INTEGER)),
    (typing.List[int], a_list(INTEGER)),  # noqa: UP006
    (abc.Sequence[str], a_list(STRING)),
    (abc.Collection[str], a_list(STRING)),
    (tuple, a_list(UNKNOWN)),
    (typing.Tuple, a_list(UNKNOWN)),  # noqa: UP006
    (tuple[()], {"kind": "tuple", "items": []}),
    (tuple[int, ...], a_list(INTEGER)),
    (tuple[int, str], {"kind": "tuple", "items": [INTEGER, STRING]}),
    (set[int], a_list(INTEGER, unique=True)),
    (frozenset, a_list(UNKNOWN, unique=True)),
    (abc.Set[int], a_list(INTEGER, unique=True)),
    (dict, a_map(UNKNOWN, UNKNOWN)),
    (dict[str, int], a_map(STRING, INTEGER)),
    (abc.Mapping[int, Any], a_map(INTEGER, UNKNOWN)),
    (int | None, a_union(INTEGER, NULL)),
    (typing.Optional[int], a_union(INTEGER, NULL)),
    (typing.Union[int, typing.Union[str, None]], a_union(INTEGER, STRING, NULL)),  # noqa: UP007
    (list[int | str], a_list(a_union(INTEGER, STRING))),
    (Literal["a"], {"kind": "literal", "values": ["a"]}),
    (Literal["a", 1, True, None], {"kind": "literal", "values": ["a", 1, True, None]}),
    (Literal[2**60], {"kind": "literal", "values": [2**60]}),
    (Literal[None], NULL),
    (Shape, INTEGER),
    (typing.TypeVar("Any_"), UNKNOWN),
    (synapse.Int64, INT64),
    (list[synapse.Int64], a_list(INT64)),
    (synapse.Int64 | None, a_union(INT64, NULL)),
    (Annotated[int, "a note"], INTEGER),
    (Annotated[int, Meta(ge=0, lt=10)], {**INTEGER, "minimum": 0, "exclusiveMaximum": 10}),
    (Annotated[int, Meta(gt=0, le=10)], {**INTEGER, "exclusiveMinimum": 0, "maximum": 10}),
    (Annotated[int, Meta(multiple_of=5)], {**INTEGER, "multipleOf": 5}),
    (Annotated[float, Meta(ge=0.5)], {**NUMBER, "minimum": 0.5}),
    (Annotated[float, Meta(le=2.0**60)], {**NUMBER, "maximum": 2.0**60}),
    (Annotated[int, Meta(le=2**53 - 1)], {**INTEGER, "maximum": 2**53 - 1}),
    (Annotated[int, Meta(le=2**53)], {**INT64, "maximum": 2**53}),
    (Annotated[int, Meta(lt=2**53)], {**INTEGER, "exclusiveMaximum": 2**53}),
    (Annotated[int, Meta(gt=-(2**53))], {**INTEGER, "exclusiveMinimum": -(2**53)}),
    (Annotated[int, Meta(ge=-(2**53))], {**INT64, "minimum": -(2**53)}),
    (Annotated[int, Meta(ge=2**53)], {**INT64, "minimum": 2**53}),
    (Annotated[int, Meta(ge=0, le=2**63 - 1)], {**INT64, "minimum": 0}),
    (Annotated[str, Meta(min_length=1, max_length=5)], {**STRING, "minLength": 1, "maxLength": 5}),
    (Annotated[str, Meta(pattern="^a+$")], {**STRING, "pattern": "^a+$"}),
    (Annotated[bytes, Meta(max_length=5)], {**BYTES, "maxLength": 5}),
    (Annotated[list[int], Meta(min_length=1)], a_list(INTEGER, minLength=1)),
    (Annotated[list[int], Meta(min_length=0)], a_list(INTEGER)),
    (Annotated[dict[str, int], Meta(max_length=1)], a_map(STRING, INTEGER, maxLength=1)),
    (list[Annotated[str, Meta(max_length=3)]], a_list({**STRING, "maxLength": 3})),
    (
        Annotated[int | float | None, Meta(ge=0)],
        a_union({**INTEGER, "minimum": 0}, {**NUMBER, "minimum": 0}, NULL),
    ),
    (Annotated[dt.datetime, Meta(tz=True)], a_time(True)),
    (Annotated[dt.datetime, Meta(tz=False)], a_time(False)),
    (np.ndarray, an_array()),
    (npt.NDArray[np.float64], an_array("float64")),
    (npt.NDArray[np.bool_], an_array("bool")),
    (npt.NDArray[np.uint8], an_array("uint8")),
    (npt.NDArray[Any], an_array()),
    (npt.NDArray[np.floating[Any]], an_array()),
    (np.ndarray[Any, np.dtype[np.int32]], an_array("int32")),
    (np.ndarray[tuple[int, int], np.dtype[np.float32]], an_array("float32", 2)),
    (np.ndarray[tuple[int, ...], np.dtype[np.float32]], an_array("float32")),
    (np.bool_, BOOLEAN),
    (np.int8, {**INTEGER, "minimum": -128, "maximum": 127}),
    (np.uint32, {**INTEGER, "minimum": 0, "maximum": 2**32 - 1}),
    (np.int64, INT64),
    (np.uint64, {**INT64, "minimum": 0}),
    (np.float32, NUMBER),
    (np.float64, NUMBER),
    (pa.Table, TABLE),
    (pa.RecordBatch, TABLE),
    (pa.RecordBatchReader, TABLE),
]

TAKEN: list[tuple[Any, Any]] = [
    (synapse.Stream, a_stream(UNKNOWN)),
    (synapse.Stream[int], a_stream(INTEGER)),
    (abc.Iterator[str], a_stream(STRING)),
    (abc.AsyncIterator[str], a_stream(STRING)),
    (abc.AsyncIterable[str], a_stream(STRING)),
    (abc.Iterable[str], a_union(a_list(STRING), a_stream(STRING))),
    (dict[str, synapse.Stream[bytes]], a_map(STRING, a_stream(BYTES))),
    (typing.TypeVar("Either", int, str), UNKNOWN),
]


class Text(str):
    __slots__ = ()


class When(dt.datetime):
    pass


GIVEN: list[tuple[Any, Any]] = [
    (abc.Iterable[str], a_list(STRING)),
    (synapse.Handle, {"kind": "handle"}),
    (synapse.Handle[Color], {"kind": "handle"}),
    (typing.TypeVar("Either", int, str), a_union(INTEGER, STRING)),
    (typing.NoReturn, NULL),
    (array.array, an_array(None, 1)),
    (collections.deque[int], a_list(INTEGER)),
    (collections.OrderedDict[str, int], a_map(STRING, INTEGER)),
    (collections.defaultdict[str, list[int]], a_map(STRING, a_list(INTEGER))),
    (collections.Counter[str], a_map(STRING, INTEGER)),
    (abc.KeysView[str], a_list(STRING, unique=True)),
    (abc.ValuesView[str], a_list(STRING)),
    (Text, STRING),
    (When, a_time(None)),
    (np.str_, STRING),
    (Literal[Color.RED], {"kind": "literal", "values": ["red"]}),
    (abc.Awaitable[int], INTEGER),
    (abc.Coroutine[Any, Any, list[int]], a_list(INTEGER)),
    (pydantic.AwareDatetime, a_time(True)),
    (pydantic.NaiveDatetime, a_time(False)),
    (pydantic.PositiveInt, {**INTEGER, "exclusiveMinimum": 0}),
    (Annotated[int, pydantic.Field(ge=1, le=2**60)], {**INT64, "minimum": 1, "maximum": 2**60}),
    (Annotated[str, pydantic.Field(pattern="a")], {**STRING, "pattern": "a"}),
    (
        Annotated[str, pydantic.StringConstraints(min_length=2, pattern="b")],
        {**STRING, "minLength": 2, "pattern": "b"},
    ),
    (Annotated[int, annotated_types.Ge(3)], {**INTEGER, "minimum": 3}),
    (
        Annotated[int, annotated_types.Interval(gt=1, lt=3)],
        {**INTEGER, "exclusiveMinimum": 1, "exclusiveMaximum": 3},
    ),
    (Annotated[list[int], annotated_types.Len(2, 3)], a_list(INTEGER, minLength=2, maxLength=3)),
    (Annotated[dt.datetime, annotated_types.Timezone(...)], a_time(True)),
    (Annotated[dt.datetime, annotated_types.Timezone(None)], a_time(False)),
]


def shown(value: Any) -> str:
    return str(value)[:60] if not isinstance(value, dict) else ""


@pytest.mark.parametrize(("annotation", "expected"), BOTH + TAKEN, ids=shown)
def test_what_a_parameter_takes(annotation: Any, expected: Any) -> None:
    assert taken(annotation) == (expected, {})


@pytest.mark.parametrize(("annotation", "expected"), BOTH + GIVEN, ids=shown)
def test_what_a_handler_returns(annotation: Any, expected: Any) -> None:
    assert given(annotation) == (expected, {})


@dataclasses.dataclass
class Item:
    n: int


STREAMED: list[Any] = [
    abc.Iterator[int],
    abc.Iterable[int],
    abc.Generator[int, None, None],
    abc.AsyncIterator[int],
    abc.AsyncIterable[int],
    abc.AsyncGenerator[int, None],
    synapse.Stream[int],
    list[int],
    tuple[int, ...],
    set[int],
    abc.Sequence[int],
    abc.Awaitable[abc.AsyncIterator[int]],
    Annotated[list[int], "all of them"],
]


@pytest.mark.parametrize("annotation", STREAMED, ids=str)
def test_a_stream_returns_its_items(annotation: Any) -> None:
    assert given(annotation, stream=True) == (INTEGER, {})


def test_the_items_of_a_stream_may_be_anything() -> None:
    assert given(Any, stream=True)[0] == UNKNOWN
    assert given(list, stream=True)[0] == UNKNOWN
    assert given(abc.Iterator[Item], stream=True)[0] == {"kind": "ref", "name": "Item"}
    assert given(abc.Iterator[list[int]], stream=True)[0] == a_list(INTEGER)


class Opaque:
    pass


WITHOUT_A_TYPE: list[Any] = [
    abc.Callable[[int], str],
    Opaque,
    list[Opaque],
    type[int],
    complex,
    abc.Iterator[int],
    abc.AsyncIterator[int],
    synapse.Stream[int],
    npt.NDArray[np.complex128],
    npt.NDArray[np.float16],
    npt.NDArray[np.str_],
    typing.ForwardRef("Nowhere"),
    Literal[b"a"],
    np.complex64,
]


@pytest.mark.parametrize("annotation", WITHOUT_A_TYPE, ids=str)
def test_what_cannot_be_sent_is_unknown_and_a_problem(annotation: Any) -> None:
    described, _ = given(annotation, problems=1)
    assert described in (UNKNOWN, a_list(UNKNOWN))


def test_what_cannot_be_streamed_is_unknown_and_a_problem() -> None:
    for annotation in (int, Opaque, tuple[int, str]):
        assert given(annotation, problems=1, stream=True)[0] == UNKNOWN
