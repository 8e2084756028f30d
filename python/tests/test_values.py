from __future__ import annotations

import array
import collections
import collections.abc as abc
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import math
import types
import typing
import uuid
from typing import Any

import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse import _arrays, _codec, _msgpack, host
from synapse._codec import DecodeIssue, encode_parts
from synapse._encode import EncodeIssue, plain

UTC = dt.timezone.utc


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: float = 1.5


class Pair(typing.NamedTuple):
    a: int
    b: str


class Shape(msgspec.Struct, tag_field="_tag", tag="shape"):
    sides: int
    color: Color = Color.RED


class Renamed(msgspec.Struct, rename="camel"):
    some_name: int


class Row(msgspec.Struct, array_like=True):
    a: int
    b: int


class Sparse(msgspec.Struct, omit_defaults=True):
    a: int = 1
    b: bytes = b""


class Model(pydantic.BaseModel):
    name: str
    when: dt.date


class Text(str):
    pass


class Whole(int):
    pass


# What a handler returns, and what a host without knowledge of Python finds on the wire.
CARRIED: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (0, 0),
    (-1, -1),
    (127, 127),
    (-33, -33),
    (2**31, 2**31),
    (2**53 + 1, 2**53 + 1),
    (2**64 - 1, 2**64 - 1),
    (-(2**63), -(2**63)),
    (1.5, 1.5),
    (-0.0, -0.0),
    (math.inf, math.inf),
    ("", ""),
    ("é😀", "é😀"),
    ("a" * 70000, "a" * 70000),
    (b"", b""),
    (b"\x00" * 300, b"\x00" * 300),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"ab"), b"ab"),
    ([], []),
    ([1, [2, []]], [1, [2, []]]),
    ((1, 2), [1, 2]),
    (frozenset({1}), [1]),
    ({"a": {"b": 1}}, {"a": {"b": 1}}),
    ({1: "a", "1": "b", 1.5: 2, b"k": 3}, {1: "a", "1": "b", 1.5: 2, b"k": 3}),
    (list(range(70000)), list(range(70000))),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(int, a=1), {"a": 1}),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (collections.deque([1]), [1]),
    ({"a": 1}.keys(), ["a"]),
    (Point(1), {"x": 1, "y": 1.5}),
    (Pair(1, "b"), [1, "b"]),
    (Shape(3), {"_tag": "shape", "sides": 3, "color": "red"}),
    (Renamed(1), {"someName": 1}),
    (Row(1, 2), [1, 2]),
    (Sparse(b=b"x"), {"b": b"x"}),
    (Model(name="n", when=dt.date(2020, 1, 2)), {"name": "n", "when": "2020-01-02"}),
    (Color.RED, "red"),
    (Level.HIGH, 3),
    ({Color.RED: 1}, {"red": 1}),
    (Text("t"), "t"),
    (Whole(5), 5),
    (dt.datetime(2020, 1, 2, 3, 4, 5), "2020-01-02T03:04:05"),
    (dt.datetime(2020, 1, 2, 3, 4, 5, 678, tzinfo=UTC),) * 2,
    (dt.datetime(1950, 1, 1, 0, 0, 0, 1, tzinfo=UTC),) * 2,
    (dt.datetime(1970, 1, 1, tzinfo=UTC),) * 2,
    (dt.datetime(9999, 12, 31, tzinfo=UTC),) * 2,
    (dt.date(2020, 1, 2), "2020-01-02"),
    (dt.time(1, 2, 3, 4), "01:02:03.000004"),
    (dt.time(1, 2, tzinfo=UTC), "01:02:00Z"),
    (dt.timedelta(), "P0D"),
    (dt.timedelta(days=1), "P1D"),
    (dt.timedelta(days=1, seconds=2, microseconds=500000), "P1DT2.5S"),
    (dt.timedelta(seconds=-90), "-PT90S"),
    (decimal.Decimal("1.50"), "1.50"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (np.float64(1.5), 1.5),
    (np.float32(1.5), 1.5),
    (np.int16(-4), -4),
    (np.bool_(True), True),
    ({np.int64(3): np.str_("x")}, {3: "x"}),
    (np.array([1, 2], "int16"), np.array([1, 2], "int16")),
    ({"a": [np.array([[1.5, 2], [3, 4]])]}, {"a": [np.array([[1.5, 2], [3, 4]])]}),
    (np.arange(6).reshape(2, 3)[:, ::2], np.arange(6).reshape(2, 3)[:, ::2]),
    (np.array([1, 2], ">i4"), np.array([1, 2], "<i4")),
    (np.array(3.0), np.array(3.0)),
    (np.zeros((0, 4), "float32"), np.zeros((0, 4), "float32")),
    (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(6.0).reshape(2, 3)),
    (np.zeros(20000), np.zeros(20000)),
    (array.array("d", [1.0, 2.0]), np.array([1.0, 2.0])),
    (memoryview(array.array("i", [1, 2])), np.array([1, 2], "int32")),
]

REFUSED: list[tuple[Any, str, str]] = [
    (object(), "$", "cannot carry a `object`"),
    ({"items": [0, 1, 2, {"model": object()}]}, "$.items[3].model", "cannot carry a `object`"),
    ({"a b": object()}, "$['a b']", "cannot carry a `object`"),
    ({1: object()}, "$[1]", "cannot carry a `object`"),
    (Point(object(), 2), "$.x", "cannot carry a `object`"),  # type: ignore[arg-type]
    ([2**64], "$[0]", "cannot carry an integer beyond 64 bits"),
    ([-(2**63) - 1], "$[0]", "cannot carry an integer beyond 64 bits"),
    ({"a": "\ud800"}, "$.a", "cannot carry a string with a lone surrogate"),
    ([1j], "$[0]", "cannot carry a `complex`"),
    (ValueError("x"), "$", "cannot carry a `ValueError`"),
    ((item for item in ()), "$", "cannot carry a `generator`"),
    (int, "$", "cannot carry a `type`"),
    (
        {"a": np.array([object()])},
        "$.a",
        "cannot carry a numpy array of `object`: convert it with .astype() or .tolist()",
    ),
    (
        np.zeros(2, "float16"),
        "$",
        "cannot carry a numpy array of `float16`: convert it with .astype() or .tolist()",
    ),
    (
        np.array(["2020"], "datetime64[D]"),
        "$",
        "cannot carry a numpy array of `datetime64[D]`: convert it with .astype() or .tolist()",
    ),
    ([np.complex64(1)], "$[0]", "cannot carry a numpy `complex64`"),
]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return (
            isinstance(left, np.ndarray)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and bool((left == right).all())
        )
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return math.copysign(1, left) == math.copysign(1, right) and left == right
    return bool(left == right)


@pytest.mark.parametrize(("value", "wire"), CARRIED, ids=lambda value: repr(value)[:40])
def test_a_value_is_carried_as_the_table_says(codec: _codec.Codec, value: Any, wire: Any) -> None:
    assert same(codec.decode(codec.encode(value)), wire)


@pytest.mark.parametrize(("value", "wire"), CARRIED, ids=lambda value: repr(value)[:40])
def test_the_codecs_write_what_the_others_read(value: Any, wire: Any) -> None:
    codecs = [_codec.choose(name) for name in ("msgspec", "msgpack", "python")]
    for writer in codecs:
        for reader in codecs:
            assert same(reader.decode(writer.encode(value)), wire), (writer.name, reader.name)


@pytest.mark.parametrize(("value", "wire"), CARRIED, ids=lambda value: repr(value)[:40])
def test_large_values_written_in_place_are_the_same(
    codec: _codec.Codec, value: Any, wire: Any
) -> None:
    parts = encode_parts(codec.encode, value)
    assert same(codec.decode(parts if isinstance(parts, bytes) else b"".join(parts)), wire)


@pytest.mark.parametrize(("value", "path", "issue"), REFUSED, ids=lambda value: repr(value)[:40])
def test_a_value_that_cannot_be_carried_is_refused_with_its_path(
    codec: _codec.Codec, value: Any, path: str, issue: str
) -> None:
    with pytest.raises(EncodeIssue) as raised:
        codec.encode(value)
    assert (raised.value.path, raised.value.issue) == (path, issue)


def test_nan_stays_a_number_that_is_none(codec: _codec.Codec) -> None:
    assert math.isnan(codec.decode(codec.encode(math.nan)))


def test_an_awaitable_is_refused_with_a_hint(codec: _codec.Codec) -> None:
    async def handler() -> None: ...

    coroutine = handler()
    with pytest.raises(EncodeIssue, match="was an `await` forgotten"):
        codec.encode([coroutine])
    coroutine.close()


def test_a_function_is_refused_with_a_hint(codec: _codec.Codec) -> None:
    with pytest.raises(EncodeIssue, match="was a call forgotten"):
        codec.encode([codec.encode])


def test_a_host_call_that_nobody_awaits_is_refused_with_a_hint(codec: _codec.Codec) -> None:
    coroutine = host.call("f")
    with pytest.raises(EncodeIssue, match=r"use `synapse\.host\.call_sync`"):
        codec.encode(coroutine)
    coroutine.close()


def test_a_cycle_is_refused(codec: _codec.Codec) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(EncodeIssue, match="nested more than 128 levels deep, or within itself"):
        codec.encode(cycle)


@pytest.mark.parametrize("key", [None, (1, 2)])
def test_keys_that_are_not_of_the_wire_are_refused(key: Any) -> None:
    with pytest.raises(EncodeIssue, match="as a key"):
        plain({"a": {key: 1}})


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", ["msgpack", "python"])
def test_nesting_goes_to_128_levels(name: str) -> None:
    codec = _codec.choose(name)
    assert codec.decode(codec.encode(nested(128))) == nested(128)
    with pytest.raises(EncodeIssue, match="128"):
        codec.encode(nested(129))
    with pytest.raises(DecodeIssue, match="128"):
        codec.decode(b"\x91" * 129 + b"\x01")


HOSTILE = {
    "nothing": b"",
    "trailing bytes": b"\x01\x02",
    "the byte that is never used": b"\xc1",
    "a short string": b"\xa5ab",
    "a short map": b"\x82\xa1a\x01",
    "a short integer": b"\xce\x00\x01",
    "an array of four thousand million": b"\xdd\xff\xff\xff\xff",
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff",
    "a string of four thousand million": b"\xdb\xff\xff\xff\xff",
    "bytes of four thousand million": b"\xc6\xff\xff\xff\xff",
    "an extension of four thousand million": b"\xc9\xff\xff\xff\xff\x05",
    "arrays of 65535 in each other": b"\xdd\x00\x00\xff\xff" * 4 + b"\x00" * 65600,
    "a string that is not UTF-8": b"\xa2\xff\xfe",
    "a surrogate in UTF-8": b"\xa3\xed\xa0\x80",
    "an overlong form": b"\xa2\xc0\x80",
    "a key that is not UTF-8": b"\x81\xa1\xff\x01",
    "a map as a key": b"\x81\x80\x01",
    "a million levels": b"\x91" * 1_000_000 + b"\x01",
    "maps in maps without end": b"\x81\xa1a" * 100_000 + b"\x01",
    "an unknown extension": b"\xd4\x05\x01",
    "an extension that libraries use for undefined": b"\xd4\x00\x00",
    "a timestamp of one byte": b"\xd4\xff\x00",
    "a timestamp with too many nanoseconds": b"\xc7\x0c\xff\xff\xff\xff\xff" + bytes(8),
    "a timestamp beyond all calendars": b"\xc7\x0c\xff" + bytes(4) + b"\x40" + bytes(7),
    "an array of an unknown type": b"\xd5\x01\x0c\x01",
    "an array without its shape": b"\xd5\x01\x01\x01",
    "an array with too few elements": b"\xc7\x07\x01\x0b\x01\x02\x00\x00\x00\x00",
    "an array of 33 dimensions": b"\xc7\x86\x01\x01\x21" + bytes(132),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_a_decode_issue(codec: _codec.Codec, data: bytes) -> None:
    with pytest.raises(DecodeIssue):
        codec.decode(data)


@pytest.mark.parametrize("name", ["msgpack", "python"])
@pytest.mark.parametrize("data", [b"\x81\xc0\x01", b"\x81\x91\x01\x01"])
def test_keys_of_other_kinds_are_a_decode_issue(name: str, data: bytes) -> None:
    with pytest.raises(DecodeIssue):
        _codec.choose(name).decode(data)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-5, 5), inner),
    max_leaves=20,
)


@given(VALUES)
def test_any_value_comes_back_from_any_codec(value: Any) -> None:
    encoded = [_codec.choose(name).encode(value) for name in ("msgspec", "msgpack", "python")]
    for data in encoded:
        for name in ("msgspec", "msgpack", "python"):
            assert _codec.choose(name).decode(data) == value


@given(st.binary(max_size=64))
def test_any_bytes_are_a_value_or_a_decode_issue(data: bytes) -> None:
    for name in ("msgspec", "msgpack", "python"):
        with contextlib.suppress(DecodeIssue):
            _codec.choose(name).decode(data)


DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 4), max_size=4),
    st.randoms(use_true_random=False),
)
def test_any_array_comes_back(dtype: str, shape: list[int], random: Any) -> None:
    count = math.prod(shape)
    flat = np.array([random.randrange(100) for _ in range(count)]).astype(dtype)
    value = flat.reshape(shape)
    codec = _codec.choose("msgspec")
    assert same(codec.decode(codec.encode(value)), value)


def test_an_array_that_arrives_can_be_written_to(codec: _codec.Codec) -> None:
    value = codec.decode(codec.encode(np.zeros(3)))
    value[0] = 1
    assert value.flags.aligned and value[0] == 1


@pytest.mark.parametrize(
    ("value", "arrived"),
    [
        (np.array([1.5, 2.0]), array.array("d", [1.5, 2.0])),
        (np.array([1, 2], "uint16"), array.array("H", [1, 2])),
        (np.array([[1, 2], [3, 4]], "int32"), [[1, 2], [3, 4]]),
        (np.array([True, False]), [True, False]),
        (np.array(7, "int8"), 7),
        (np.zeros((0, 3)), []),
    ],
)
def test_without_numpy_arrays_arrive_as_those_of_the_standard_library(
    monkeypatch: pytest.MonkeyPatch, value: Any, arrived: Any
) -> None:
    data = _arrays.from_numpy(value)
    monkeypatch.setattr(_arrays, "_numpy_module", None)
    result = _arrays.to_array(b"".join(data))
    assert (result.tolist() if isinstance(result, memoryview) else result) == arrived


def test_the_layout_of_an_array_is_that_of_the_protocol() -> None:
    data = _codec.choose("python").encode(np.array([[1, 2, 3]], "uint16"))
    body = bytes((5, 2)) + b"\x01\0\0\0\x03\0\0\0" + b"\x01\0\x02\0\x03\0"
    assert data == b"\xd8\x01" + body if len(body) == 16 else data.endswith(body)


def test_the_best_codec_that_is_there_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    assert _codec.choose().name == "msgspec"
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert _codec.choose().name == "msgpack"
    monkeypatch.setitem(sys.modules, "msgpack", None)
    assert _codec.choose().name == "python"


def test_integers_take_the_least_room() -> None:
    for value, size in [(127, 1), (128, 2), (256, 3), (65536, 5), (2**32, 9), (-32, 1), (-33, 2)]:
        assert len(_msgpack.encode(value)) == size == len(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("flaw", ["no attribute", "raises", "lies"])
def test_a_codec_that_does_not_work_is_passed_over_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, flaw: str
) -> None:
    import sys
    import types

    sources = {
        "no attribute": "",
        "raises": "raise RuntimeError('built for another interpreter')",
        "lies": "class msgpack:\n  class Encoder:\n    def __init__(self, **_): pass\n"
        "    def encode(self, _): return b''\n"
        "  class Decoder:\n    def __init__(self, **_): pass\n"
        "    def decode(self, _): return None\n",
    }
    (tmp_path / "msgspec.py").write_text(sources[flaw])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "msgspec")
    broken: list[str] = []
    assert _codec.choose(broken=broken).name == "msgpack"
    assert len(broken) == 1 and "`msgspec` is installed and does not work" in broken[0]
    monkeypatch.setitem(sys.modules, "msgpack", types.ModuleType("msgpack"))
    broken = []
    assert _codec.choose(broken=broken).name == "python"
    assert len(broken) == 2


class NotATime(dt.datetime):
    def utcoffset(self) -> Any:
        raise ValueError("NotATime does not support utcoffset")


class Evil:
    def __getattr__(self, name: str) -> Any:
        raise OSError(f"no {name} today")


class Lazy(abc.Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError("not loaded")

    def __iter__(self) -> Any:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class EvilText(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Unspeakable(dt.date):
    def isoformat(self) -> str:
        raise EvilText


@pytest.mark.parametrize(
    ("value", "path", "issue"),
    [
        (
            {"rows": [{"a": 1}, {"a": NotATime(2020, 1, 1)}]},
            "$.rows[1].a",
            "cannot carry a `NotATime`: ValueError: NotATime does not support utcoffset",
        ),
        (NotATime(2020, 1, 1), "$", "utcoffset"),
        ([Evil()], "$[0]", "cannot carry a `Evil`"),
        ({"b": Lazy()}, "$.b", "cannot carry a `Lazy`: KeyError: 'not loaded'"),
        ([Unspeakable(2020, 1, 1)], "$[0]", "cannot carry a `Unspeakable`: EvilText"),
        (
            {"m": np.ma.masked_array([1.0, 2.0], mask=[True, False])},
            "$.m",
            "a masked array: fill it first",
        ),
        (np.ma.masked_array(np.zeros(100_000), mask=True), "$", "a masked array: fill it first"),
        ([np.ma.masked], "$[0]", "a masked array: fill it first"),
    ],
    ids=range(8),
)
def test_a_value_that_raises_or_would_lose_a_part_is_refused_with_its_path(
    codec: _codec.Codec, value: Any, path: str, issue: str
) -> None:
    from synapse._answers import Answers

    answer = Answers(codec).success(1, value)
    assert isinstance(answer, bytes)
    meta_size = int.from_bytes(answer[6:8], "little")
    assert codec.decode(answer[12 : 12 + meta_size]) == {"reason": "EncodeFailed"}
    details = codec.decode(answer[12 + meta_size :])
    assert details["path"] == path
    assert issue in details["issue"]
