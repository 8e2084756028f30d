from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime as dt
import decimal
import enum
import sys
import typing
import uuid
from typing import Any

import annotated_types
import msgspec
import numpy as np
import numpy.typing as npt
import pydantic
import pytest

from synapse._binding import binder
from synapse._codec import Codec, DecodeIssue, choose
from synapse._isoformat import parse_duration

if typing.TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]

UTC = dt.timezone.utc


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Number(enum.IntEnum):
    ONE = 1


class Mixed(enum.Enum):
    TEXT = "text"
    HALF = 0.5


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Counted:
    n: int
    double: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.double = 2 * self.n


@dataclasses.dataclass
class Due:
    at: typing.Annotated[dt.datetime, msgspec.Meta(tz=False)]
    done: bool = False


@dataclasses.dataclass
class Node:
    value: int
    next: Node | None = None


@dataclasses.dataclass
class Even:
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("n must be even")


class Options(typing.TypedDict, total=False):
    name: typing.Required[str] if hasattr(typing, "Required") else str  # type: ignore[valid-type]
    size: int


class Pair(typing.NamedTuple):
    a: int
    b: str = "b"


class Circle(msgspec.Struct, tag_field="_tag", tag="circle"):
    radius: float


class Square(msgspec.Struct, tag_field="_tag", tag="square"):
    side: float


class Model(pydantic.BaseModel):
    name: str
    sizes: list[int] = []


FITS: list[tuple[Any, Any, Any]] = [
    (Any, {"a": 1}, {"a": 1}),
    (None, None, None),
    (bool, True, True),
    (int, 5, 5),
    (float, 5, 5.0),
    (float, 1.5, 1.5),
    (str, "s", "s"),
    (bytes, b"b", b"b"),
    (bytearray, b"b", bytearray(b"b")),
    (memoryview, b"b", memoryview(b"b")),
    (list, [1], [1]),
    (list[int], [1, 2], [1, 2]),
    (abc.Sequence[int], [1], [1]),
    (abc.Iterable[int], [1], [1]),
    (tuple, [1], (1,)),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2], (1, 2)),
    (set[int], [1, 1], {1}),
    (frozenset[str], ["a"], frozenset({"a"})),
    (dict, {"a": 1}, {"a": 1}),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict[int, str], {1: "a"}, {1: "a"}),
    (abc.Mapping[str, float], {"a": 1}, {"a": 1.0}),
    (typing.Optional[int], None, None),
    (int | str, "a", "a"),
    (float | int, 3, 3),
    (list[int] | None, [1], [1]),
    (typing.Literal["a", 1], "a", "a"),
    (typing.Literal["a", 1], 1, 1),
    (Color, "blue", Color.BLUE),
    (Number, 1, Number.ONE),
    (Mixed, 0.5, Mixed.HALF),
    (Point, {"x": 1}, Point(1)),
    (Point, {"x": 1, "y": 2, "tags": ["t"], "more": 1}, Point(1, 2.0, ["t"])),
    (Node, {"value": 1, "next": {"value": 2}}, Node(1, Node(2))),
    (Options, {"name": "n"}, {"name": "n"}),
    (Pair, [1], Pair(1)),
    (Pair, [1, "x"], Pair(1, "x")),
    (Circle | Square, {"_tag": "square", "side": 2}, Square(2.0)),
    (list[Circle], [{"_tag": "circle", "radius": 1}], [Circle(1.0)]),
    (Model, {"name": "n", "sizes": [1]}, Model(name="n", sizes=[1])),
    (Model | None, None, None),
    (dt.datetime, dt.datetime(2020, 1, 1, tzinfo=UTC), dt.datetime(2020, 1, 1, tzinfo=UTC)),
    (dt.datetime, "2020-01-01T00:00:00", dt.datetime(2020, 1, 1)),
    (dt.datetime, "2020-01-01T00:00:00.5Z", dt.datetime(2020, 1, 1, 0, 0, 0, 500000, UTC)),
    (dt.date, "2020-01-02", dt.date(2020, 1, 2)),
    (dt.time, "01:02:03", dt.time(1, 2, 3)),
    (dt.timedelta, "PT1.5S", dt.timedelta(seconds=1.5)),
    (dt.timedelta, "P1DT2S", dt.timedelta(days=1, seconds=2)),
    (uuid.UUID, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
    (decimal.Decimal, "1.50", decimal.Decimal("1.50")),
    (decimal.Decimal, 3, decimal.Decimal(3)),
    (typing.Annotated[int, "note"], 3, 3),
    (typing.Annotated[int, msgspec.Meta(gt=0)], 3, 3),
    (typing.NewType("Id", int), 3, 3),
    (np.float32, 1.5, np.float32(1.5)),
    (np.int64, 3, np.int64(3)),
    (np.bool_, True, np.bool_(True)),
    (np.int8, -128, np.int8(-128)),
    (Due, {"at": "2020-01-01T00:00:00"}, Due(dt.datetime(2020, 1, 1))),
    (Counted, {"n": 2}, Counted(2)),
    (list[Counted], [{"n": 2, "double": 9}], [Counted(2)]),
]

FAILS: list[tuple[Any, Any, str, str]] = [
    (np.int8, 128, "$", "Expected `int` <= 127"),
    (np.uint8, -1, "$", "Expected `int` >= 0"),
    (int, "s", "$", "Expected `int`, got `str`"),
    (int, True, "$", "Expected `int`, got `bool`"),
    (int, 1.0, "$", "Expected `int`, got `float`"),
    (bool, 1, "$", "Expected `bool`, got `int`"),
    (float, "1", "$", "Expected `float`, got `str`"),
    (str, b"b", "$", "Expected `str`, got `bytes`"),
    (bytes, "s", "$", "Expected `bytes`, got `str`"),
    (None, 1, "$", "Expected `null`, got `int`"),
    (list[int], {"a": 1}, "$", "Expected `array`, got `object`"),
    (list[int], [1, "a"], "$[1]", "Expected `int`, got `str`"),
    (tuple[int, str], [1], "$", "Expected `array` of length 2, got 1"),
    (dict[str, int], {"a": "x"}, "$.a", "Expected `int`, got `str`"),
    (dict[str, list[int]], {"a b": ["x"]}, "$['a b'][0]", "Expected `int`, got `str`"),
    (typing.Optional[int], "x", "$", "Expected `int | null`, got `str`"),
    (int | str, 1.5, "$", "Expected `int | str`, got `float`"),
    (typing.Literal["a"], "b", "$", "Invalid enum value 'b'"),
    (Color, "green", "$", "Invalid enum value 'green'"),
    (Mixed, "half", "$", "Invalid enum value 'half'"),
    (Point, {}, "$", "Object missing required field `x`"),
    (Point, [1], "$", "Expected `object`, got `array`"),
    (Point, {"x": 1, "tags": [1]}, "$.tags[0]", "Expected `str`, got `int`"),
    (Node, {"value": 1, "next": {"value": "x"}}, "$.next.value", "Expected `int`, got `str`"),
    (Even, {"n": 3}, "$", "n must be even"),
    (Pair, ["x"], "$[0]", "Expected `int`, got `str`"),
    (list[Circle], [{"_tag": "circle"}], "$[0]", "Object missing required field `radius`"),
    (Model, {"name": 1}, "$.name", "Input should be a valid string"),
    (
        list[Model],
        [{"name": "n", "sizes": [1, "x"]}],
        "$[0].sizes[1]",
        "Input should be a valid integer, unable to parse string as an integer",
    ),
    (dt.datetime, 5, "$", "Expected `datetime`, got `int`"),
    (dt.timedelta, 1.5, "$", "Expected `duration`, got `float`"),
    (uuid.UUID, "x", "$", "Invalid UUID"),
    (npt.NDArray[np.float64], [1.0], "$", "Expected `ndarray[float64]`, got `array`"),
    (np.ndarray, 1, "$", "Expected `ndarray`, got `int`"),
]


@pytest.mark.parametrize(("kind", "sent", "arrived"), FITS, ids=lambda value: repr(value)[:40])
def test_what_fits_arrives_as_its_type(codec: Codec, kind: Any, sent: Any, arrived: Any) -> None:
    value = codec.typed(kind)(codec.encode(sent))
    assert value == arrived and type(value) is type(arrived)


@pytest.mark.parametrize(
    ("kind", "sent", "path", "issue"), FAILS, ids=lambda value: repr(value)[:40]
)
def test_what_does_not_fit_is_refused_with_its_path(
    codec: Codec, kind: Any, sent: Any, path: str, issue: str
) -> None:
    with pytest.raises(DecodeIssue) as raised:
        codec.typed(kind)(codec.encode(sent))
    assert (raised.value.path, raised.value.issue) == (path, issue)


def test_text_that_is_no_moment_is_refused(codec: Codec) -> None:
    for kind in (dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal):
        with pytest.raises(DecodeIssue, match="Invalid"):
            codec.typed(kind)(codec.encode("yesterday"))


def test_an_array_arrives_when_its_elements_are_those_of_the_annotation(codec: Codec) -> None:
    decode = codec.typed(npt.NDArray[np.float64])
    assert decode(codec.encode(np.arange(3.0))).tolist() == [0, 1, 2]
    with pytest.raises(DecodeIssue, match=r"Expected `ndarray\[float64\]`, got `ndarray\[int8\]`"):
        decode(codec.encode(np.arange(3, dtype="int8")))
    assert codec.typed(np.ndarray)(codec.encode(np.arange(3, dtype="int8"))).dtype == "int8"


@pytest.mark.parametrize("element", [np.uint8, np.unsignedinteger, Any])
def test_an_array_of_bytes_arrives_as_bytes(codec: Codec, element: Any) -> None:
    sent = bytes(range(3))
    found = codec.typed(npt.NDArray[element])(codec.encode(sent))
    assert (found.dtype, found.tolist(), found.flags.writeable) == ("uint8", [0, 1, 2], True)
    with pytest.raises(DecodeIssue, match=r"Expected `ndarray\[float64\]`, got `bytes`"):
        codec.typed(npt.NDArray[np.float64])(codec.encode(sent))


def test_durations_are_read_in_every_unit() -> None:
    expected = dt.timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5, microseconds=600000)
    assert parse_duration("P1W2DT3H4M5.6S") == expected
    assert parse_duration("-PT90S") == -dt.timedelta(seconds=90)
    for text in ("", "P", "PT", "1S", "P1S"):
        with pytest.raises(ValueError):
            parse_duration(text)


# From a payload to the arguments of a function.


def bind(codec: Codec, function: Any, *sent: Any) -> Any:
    """Call a function with what a payload binds to."""
    arguments, named = binder(function, "f", codec)(codec.encode(sent[0]) if sent else b"")
    return function(*arguments, **(named or {}))


def refusal(codec: Codec, function: Any, *sent: Any) -> tuple[str, str]:
    with pytest.raises(DecodeIssue) as raised:
        bind(codec, function, *sent)
    return raised.value.path, raised.value.issue


def test_a_single_parameter_without_a_type_takes_all(codec: Codec) -> None:
    def f(payload):  # type: ignore[no-untyped-def]
        return payload

    for value in ({"payload": 1}, [1], None, 5, {"other": 1}):
        assert bind(codec, f, value) == value
    assert bind(codec, f) is None


def test_a_single_parameter_whose_type_is_a_map_takes_all(codec: Codec) -> None:
    def as_dict(payload: dict[str, int]) -> Any:
        return payload

    def as_point(point: Point) -> Any:
        return point

    def as_model(model: Model | None) -> Any:
        return model

    def as_options(options: Options) -> Any:
        return options

    assert bind(codec, as_dict, {"payload": 1}) == {"payload": 1}
    assert bind(codec, as_point, {"x": 1}) == Point(1)
    assert bind(codec, as_model, {"name": "n"}) == Model(name="n")
    assert bind(codec, as_options, {"name": "n"}) == {"name": "n"}
    assert refusal(codec, as_dict, {"a": "x"}) == ("$.a", "Expected `int`, got `str`")
    assert refusal(codec, as_point, 3) == ("$", "Expected `object`, got `int`")


def test_a_single_positional_only_parameter_takes_all_whatever_its_type(codec: Codec) -> None:
    def f(text: str, /) -> str:
        return text

    assert bind(codec, f, "t") == "t"
    assert refusal(codec, f, {"text": "t"}) == ("$", "Expected `str`, got `object`")


def test_keys_are_bound_to_parameters_by_name(codec: Codec) -> None:
    def f(text: str, size: int = 3, *, loud: bool = False) -> Any:
        return text, size, loud

    assert bind(codec, f, {"text": "t"}) == ("t", 3, False)
    assert bind(codec, f, {"loud": True, "size": 1, "text": "t"}) == ("t", 1, True)


def test_a_single_parameter_of_another_type_is_bound_by_name(codec: Codec) -> None:
    def f(text: str) -> str:
        return text

    assert bind(codec, f, {"text": "t"}) == "t"
    hint = "expected an object with the key `text`, got `str`"
    assert refusal(codec, f, "t") == ("$", hint)
    assert refusal(codec, f) == ("$", hint.replace("`str`", "`null`"))
    assert refusal(codec, f, {}) == ("$.text", "missing the key `text`")
    unknown = "unknown key `txt`, did you mean `text`?"
    assert refusal(codec, f, {"txt": "t"}) == ("$.txt", unknown)
    assert refusal(codec, f, {"text": 1}) == ("$.text", "Expected `str`, got `int`")


def test_an_unknown_key_that_is_near_none_is_told_all(codec: Codec) -> None:
    def f(a: int, b: int) -> None: ...

    issue = "unknown key `zebra`, the handler takes `a`, `b`"
    assert refusal(codec, f, {"a": 1, "b": 2, "zebra": 3}) == ("$.zebra", issue)


def test_defaults_are_the_functions_own(codec: Codec) -> None:
    marker = object()

    def f(a: Any = marker, b: int = 1) -> Any:
        return a

    assert bind(codec, f, {}) is marker
    assert bind(codec, f, None) is marker
    assert bind(codec, f) is marker
    assert bind(codec, f, {"a": None}) is None


def test_no_parameters_take_nothing_or_an_empty_map(codec: Codec) -> None:
    def f() -> str:
        return "called"

    for sent in ((), (None,), ({},)):
        assert bind(codec, f, *sent) == "called"
    assert refusal(codec, f, {"a": 1}) == ("$.a", "the handler takes no arguments")
    assert refusal(codec, f, 0) == ("$", "Expected nothing or an empty `object`, got `int`")


def test_keyword_parameters_collect_the_rest(codec: Codec) -> None:
    def f(a: int, **rest: float) -> Any:
        return a, rest

    assert bind(codec, f, {"a": 1, "b": 2, "c": 0.5}) == (1, {"b": 2.0, "c": 0.5})
    assert refusal(codec, f, {"a": 1, "b": "x"}) == ("$.b", "Expected `float`, got `str`")
    assert refusal(codec, f, {1: 1, "a": 1}) == ("$[1]", "the keys of arguments are text")


def test_constraints_of_msgspec_hold(codec: Codec) -> None:
    def f(n: typing.Annotated[int, msgspec.Meta(gt=0)]) -> int:
        return n

    assert bind(codec, f, {"n": 1}) == 1
    assert refusal(codec, f, {"n": 0}) == ("$.n", "Expected `int` >= 1")


def test_callable_objects_and_partial_functions_bind_like_functions(codec: Codec) -> None:
    import functools

    class Adder:
        def __call__(self, a: int, b: int) -> int:
            return a + b

    assert bind(codec, Adder(), {"a": 1, "b": 2}) == 3
    assert bind(codec, functools.partial(Adder().__call__, b=5), {"a": 1}) == 6


def test_a_return_type_that_cannot_be_resolved_does_not_matter(codec: Codec) -> None:
    def f(a: int) -> Nothing:
        return a

    assert bind(codec, f, {"a": 1}) == 1


def test_an_annotation_that_cannot_be_resolved_is_refused_before_any_call() -> None:
    def f(a: Nothing) -> None: ...

    with pytest.raises(
        TypeError, match=r"handler `f`: its annotations cannot be resolved.*Nothing"
    ):
        binder(f, "f", choose())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no type statement")
def test_a_named_type_may_be_within_itself(codec: Codec) -> None:
    scope: dict[str, Any] = {}
    exec("type Tree = int | list[Tree]", scope)

    def whole(tree: Any, /) -> None: ...
    def named(tree: Any, other: int) -> None: ...

    for f in (whole, named):
        f.__annotations__["tree"] = scope["Tree"]
    bind = binder(whole, "f", codec)
    assert bind(codec.encode([1, [2, []]])) == (([1, [2, []]],), None)
    with pytest.raises(DecodeIssue):
        bind(codec.encode([1, ["a"]]))
    bind = binder(named, "f", codec)
    with pytest.raises(DecodeIssue):
        bind(codec.encode({"tree": [1, ["a"]], "other": 1}))


def test_a_type_that_cannot_arrive_is_refused_before_any_call(codec: Codec) -> None:
    class Thing: ...

    def f(thing: Thing, other: int) -> None: ...

    f.__annotations__["thing"] = Thing
    with pytest.raises(
        TypeError, match=r"handler `f`: parameter `thing`: .*is not a type that can"
    ):
        binder(f, "f", codec)


def test_malformed_bytes_are_a_decode_issue(codec: Codec) -> None:
    def f(a: int) -> None: ...

    with pytest.raises(DecodeIssue):
        binder(f, "f", codec)(b"\xc1")


@dataclasses.dataclass
class Limited:
    n: pydantic.PositiveInt
    inner: Limited | None = None


class LimitedModel(pydantic.BaseModel):
    n: pydantic.PositiveInt


UNCHECKED = [
    pydantic.PositiveInt,
    typing.Annotated[int, pydantic.Field(gt=5)],
    typing.Annotated[int, annotated_types.Lt(5)],
    typing.Annotated[str, pydantic.StringConstraints(min_length=1)],
    typing.Annotated[int, msgspec.Meta(gt=0), annotated_types.Lt(5)],
    list[pydantic.PositiveInt],
    typing.Optional[pydantic.PositiveInt],
    Limited,
    dict[str, Limited],
]


@pytest.mark.parametrize("kind", UNCHECKED, ids=range(len(UNCHECKED)))
@pytest.mark.parametrize("more", [False, True])
def test_constraints_that_nobody_would_check_are_refused_before_any_call(
    codec: Codec, kind: Any, more: bool
) -> None:
    def one(n: Any) -> None: ...

    def two(n: Any, other: int) -> None: ...

    function = two if more else one
    function.__annotations__["n"] = kind
    with pytest.raises(TypeError, match=r"parameter `n`: the constraint .* use msgspec\.Meta, or"):
        binder(function, "f", codec)


def test_constraints_in_models_and_of_msgspec_are_checked(codec: Codec) -> None:
    def f(
        model: LimitedModel,
        items: list[typing.Annotated[int, msgspec.Meta(lt=5)]],
        described: typing.Annotated[int, pydantic.Field(description="a number")],
    ) -> Any:
        return model.n, items, described

    sent = {"model": {"n": 1}, "items": [4], "described": 3}
    assert bind(codec, f, sent) == (1, [4], 3)
    assert refusal(codec, f, {**sent, "model": {"n": 0}})[0].startswith("$.model")
    assert refusal(codec, f, {**sent, "items": [4, 5]}) == ("$.items[1]", "Expected `int` <= 4")
