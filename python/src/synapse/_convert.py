"""From decoded values to the types that handlers ask for, checked.

msgspec does this while it decodes. What follows does the same where it is missing, takes over for
the types it does not know, and says where in a value the fault is.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import importlib
import re
import sys
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any, Final

from synapse import _arrow, _isoformat
from synapse._encode import key_path
from synapse._integers import Range


class ConvertIssue(Exception):
    """A value that does not fit its type, and where it is."""

    def __init__(self, path: str, issue: str) -> None:
        super().__init__(f"{issue} (at {path})")
        self.path = path
        self.issue = issue


@dataclasses.dataclass(frozen=True)
class Converter:
    """How values become one type: what it expects, in the words of the wire, and the conversion."""

    expects: str
    convert: Callable[[Any, str], Any]


def wire_name(value: Any) -> str:
    """What a decoded value is called in messages."""
    for kind, name in _WIRE_NAMES:
        if isinstance(value, kind):
            return name
    if _is_stream(value):
        return "stream"
    return "table" if _arrow.is_tabular(value) else type(value).__name__


_WIRE_NAMES: Final[tuple[tuple[type, str], ...]] = (
    (type(None), "null"),
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    (bytes, "bytes"),
    (list, "array"),
    (dict, "object"),
    (dt.datetime, "datetime"),
)


def _mismatch(expects: str, value: Any, path: str) -> ConvertIssue:
    return ConvertIssue(path, f"Expected `{expects}`, got `{wire_name(value)}`")


@functools.lru_cache(maxsize=1024)
def _cached(annotation: Any) -> Converter:
    return _make(annotation)


def converter(annotation: Any) -> Converter:
    """The converter of a type.

    Raises:
        TypeError: No value that arrives could be one.
    """
    try:
        hash(annotation)
    except TypeError:
        return _make(annotation)
    return _cached(annotation)


def _make(annotation: Any) -> Converter:
    if annotation in (Any, object):
        return Converter("any", lambda value, _path: value)
    if annotation is None or annotation is type(None):
        return _instance("null", type(None))
    if isinstance(annotation, typing.NewType):
        return converter(annotation.__supertype__)
    if isinstance(annotation, typing.TypeVar):
        return converter(annotation.__bound__ or Any)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if "TypeAliasType" in (type(annotation).__name__, type(origin).__name__):
        return _named(annotation, origin, arguments)
    if origin is typing.Annotated:
        if _has_constraints(arguments[1:]):
            return _validated(annotation)
        inner = converter(arguments[0])
        ranges = [each for each in arguments[1:] if isinstance(each, Range)]
        return _within(inner, ranges[0]) if ranges else inner
    if origin is typing.Literal:
        return _literal(arguments)
    if origin in (typing.Union, types.UnionType):
        return _union(arguments)
    if getattr(origin, "__name__", "") in ("Required", "NotRequired", "ReadOnly") or origin in (
        typing.Final,
        typing.ClassVar,
    ):
        return converter(arguments[0])
    kind = origin or annotation
    if isinstance(kind, type) and not isinstance(annotation, type(typing.Any)):
        found = _of_class(kind, annotation, arguments)
        if found is not None:
            return found
    name = getattr(annotation, "__qualname__", None) or str(annotation)
    raise TypeError(f"`{name}` is not a type that can arrive: use a dataclass, or `Any`")


# Named types that are being looked at, which may be within themselves.
_open: Final[set[Any]] = set()


def _named(annotation: Any, origin: Any, arguments: tuple[Any, ...]) -> Converter:
    def inner() -> Converter:
        return converter(origin.__value__[arguments] if arguments else annotation.__value__)

    if annotation in _open:
        return Converter(str(annotation), lambda value, path: inner().convert(value, path))
    _open.add(annotation)
    try:
        return inner()
    finally:
        _open.discard(annotation)


def _of_class(kind: type, annotation: Any, arguments: tuple[Any, ...]) -> Converter | None:
    if kind in _SCALARS:
        return _SCALARS[kind]
    if issubclass(kind, enum.Enum):
        return _enum(kind)
    if typing.is_typeddict(kind) or hasattr(kind, "__total__"):
        return _typed_dict(kind)
    if issubclass(kind, tuple):
        return _named_tuple(kind) if hasattr(kind, "_fields") else _tuple(arguments)
    if kind in _STREAMS or _is_stream(kind):
        return _stream(kind, arguments)
    if kind in _LISTS:
        return _sequence(arguments, list)
    if kind in _SETS:
        return _sequence(arguments, frozenset if kind is frozenset else set)
    if kind in _MAPS:
        return _map(arguments)
    if hasattr(kind, "__struct_fields__") or hasattr(kind, "__attrs_attrs__"):
        return _validated(annotation)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        return _pydantic(kind)
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is numpy.ndarray:
        return _ndarray(numpy, arguments)
    if numpy is not None and issubclass(kind, numpy.generic):
        return _numpy_scalar(kind, numpy)
    pyarrow = sys.modules.get("pyarrow.lib")
    if pyarrow is not None:
        return _tabular(kind, pyarrow)
    return None


_LISTS: Final = (list, abc.Sequence, abc.MutableSequence, abc.Collection)
_STREAMS: Final = (abc.Iterator, abc.Iterable, abc.AsyncIterator, abc.AsyncIterable)
_SETS: Final = (set, frozenset, abc.Set, abc.MutableSet)
_MAPS: Final = (dict, abc.Mapping, abc.MutableMapping)


def _instance(expects: str, kind: type, make: Callable[[Any], Any] | None = None) -> Converter:
    def convert(value: Any, path: str) -> Any:
        if type(value) is not kind:
            raise _mismatch(expects, value, path)
        return value if make is None else make(value)

    return Converter(expects, convert)


def _float(value: Any, path: str) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    raise _mismatch("float", value, path)


def _parsed(expects: str, kind: type, parse: Callable[[str], Any], *more: type) -> Converter:
    """A type that travels as text; values of the types in `more` are taken as they are."""

    def convert(value: Any, path: str) -> Any:
        if isinstance(value, more) and not isinstance(value, bool):
            return value if isinstance(value, kind) else parse(str(value))
        if type(value) is not str:
            raise _mismatch(expects, value, path)
        try:
            return parse(value)
        except (ValueError, ArithmeticError):
            raise ConvertIssue(path, f"Invalid {expects}") from None

    return Converter(expects, convert)


def _uuid(value: Any, path: str) -> uuid.UUID:
    if isinstance(value, bytes) and len(value) == 16:
        return uuid.UUID(bytes=value)
    if type(value) is not str:
        raise _mismatch("uuid", value, path)
    try:
        return uuid.UUID(value)
    except ValueError:
        raise ConvertIssue(path, "Invalid UUID") from None


_SCALARS: Final[dict[Any, Converter]] = {
    bool: _instance("bool", bool),
    int: _instance("int", int),
    float: Converter("float", _float),
    str: _instance("str", str),
    bytes: _instance("bytes", bytes),
    bytearray: _instance("bytes", bytes, bytearray),
    memoryview: _instance("bytes", bytes, memoryview),
    dt.datetime: _parsed("datetime", dt.datetime, _isoformat.parse_datetime, dt.datetime),
    dt.date: _parsed("date", dt.date, dt.date.fromisoformat),
    dt.time: _parsed("time", dt.time, _isoformat.parse_time),
    dt.timedelta: _parsed("duration", dt.timedelta, _isoformat.parse_duration),
    decimal.Decimal: _parsed("decimal", decimal.Decimal, decimal.Decimal, int, float),
    uuid.UUID: Converter("uuid", _uuid),
}


def _literal(choices: tuple[Any, ...]) -> Converter:
    def convert(value: Any, path: str) -> Any:
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return choice
        if type(value) not in {type(choice) for choice in choices}:
            raise _mismatch(expects, value, path)
        raise ConvertIssue(path, f"Invalid enum value {value!r}")

    expects = " | ".join(dict.fromkeys(wire_name(choice) for choice in choices))
    return Converter(expects, convert)


def _enum(kind: type[enum.Enum]) -> Converter:
    values = [member.value for member in kind]
    expects = " | ".join(dict.fromkeys(wire_name(value) for value in values))

    def convert(value: Any, path: str) -> Any:
        wire_value = tuple(value) if isinstance(value, list) else value
        for member in kind:
            if type(member.value) is type(wire_value) and member.value == wire_value:
                return member
        if (issubclass(kind, enum.Flag) and type(value) is int) or hasattr(kind, "_missing_"):
            try:
                return kind(wire_value) if not isinstance(value, bool) else _never()
            except (ValueError, TypeError):
                pass
        raise ConvertIssue(path, f"Invalid enum value {value!r}")

    return Converter(expects, convert)


def _never() -> typing.NoReturn:
    raise ValueError


# Members of a union that take a value before others would take it for something less exact.
_UNION_ORDER: Final = (
    "null",
    "bool",
    "int",
    "float",
    "datetime",
    "date",
    "time",
    "duration",
    "uuid",
    "decimal",
)


def _union(members: tuple[Any, ...]) -> Converter:
    converters = [converter(member) for member in members]
    expects = " | ".join(
        dict.fromkeys(each.expects for each in converters if each.expects != "null")
    )
    if any(each.expects == "null" for each in converters):
        expects += " | null"

    def rank(each: Converter) -> int:
        if each.expects in _UNION_ORDER:
            return _UNION_ORDER.index(each.expects)
        return len(_UNION_ORDER) + (each.expects == "str") + 2 * (each.expects == "any")

    ordered = sorted(converters, key=rank)

    def convert(value: Any, path: str) -> Any:
        inner: ConvertIssue | None = None
        for each in ordered:
            try:
                return each.convert(value, path)
            except ConvertIssue as error:
                # The value was of this member's kind, and something in it was wrong.
                if error.path != path or not error.issue.startswith("Expected"):
                    inner = inner or error
        raise inner or _mismatch(expects, value, path)

    return Converter(expects, convert)


def _sequence(arguments: tuple[Any, ...], make: Callable[[Any], Any]) -> Converter:
    item = converter(arguments[0]) if arguments else converter(Any)

    def convert(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _mismatch("array", value, path)
        items = [item.convert(each, f"{path}[{index}]") for index, each in enumerate(value)]
        if make is list:
            return items
        try:
            return make(items)
        except TypeError as error:
            raise ConvertIssue(path, str(error)) from None

    return Converter("array", convert)


def _is_stream(value: Any) -> bool:
    """Whether this is `synapse.Stream`, or one of them."""
    incoming = sys.modules.get("synapse._incoming")
    kind = value if isinstance(value, type) else type(value)
    return incoming is not None and issubclass(kind, incoming.Stream)


def _stream(kind: type, arguments: tuple[Any, ...]) -> Converter:
    """An argument that streams: a list will do where that can be iterated over as well."""
    item = converter(arguments[0]) if arguments else converter(Any)
    as_list = _sequence(arguments, list if kind is abc.Iterable else iter)
    takes_list = kind in (abc.Iterable, abc.Iterator)
    expects = "array" if takes_list else "stream"

    def convert(value: Any, path: str) -> Any:
        if _is_stream(value):
            if item.expects != "any":
                value.convert_items(item.convert, path)
            return value
        if takes_list:
            return as_list.convert(value, path)
        raise _mismatch(expects, value, path)

    return Converter(expects, convert)


def _tuple(arguments: tuple[Any, ...]) -> Converter:
    if not arguments and not isinstance(arguments, tuple):
        return _sequence((), tuple)
    if not arguments or arguments[-1] is Ellipsis:
        return _sequence(arguments[:1], tuple)
    items = [converter(argument) for argument in arguments]

    def convert(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _mismatch("array", value, path)
        if len(value) != len(items):
            raise ConvertIssue(path, f"Expected `array` of length {len(items)}, got {len(value)}")
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(item.convert(each, f"{path}[{index}]") for index, (item, each) in pairs)

    return Converter("array", convert)


def _map(arguments: tuple[Any, ...]) -> Converter:
    keys, items = (converter(each) for each in arguments) if arguments else (converter(Any),) * 2

    def convert(value: Any, path: str) -> Any:
        if type(value) is not dict:
            raise _mismatch("object", value, path)
        result = {}
        for key, item in value.items():
            at = key_path(path, key)
            result[keys.convert(key, at)] = items.convert(item, at)
        return result

    return Converter("object", convert)


class _Fields:
    """The fields of a class, looked at when the first value arrives: by then the names in its
    annotations exist.
    """

    def __init__(self, kind: type, required: abc.Collection[str], names: abc.Iterable[str]) -> None:
        self._kind = kind
        self._required = required
        self._names = tuple(names)

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self._kind, include_extras=True)

    @functools.cached_property
    def converters(self) -> dict[str, Converter]:
        return {name: converter(self.hints.get(name, Any)) for name in self._names}

    @functools.cached_property
    def required(self) -> abc.Collection[str]:
        return self._required

    def convert(self, value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise _mismatch("object", value, path)
        result = {}
        for name, each in self.converters.items():
            if name in value:
                result[name] = each.convert(value[name], f"{path}.{name}")
            elif name in self.required:
                raise ConvertIssue(path, f"Object missing required field `{name}`")
        return result


class _TypedDictFields(_Fields):
    @functools.cached_property
    def required(self) -> abc.Collection[str]:
        # Where annotations are text, the class has not seen what is said in them, only its `total`.
        required = set(self._required)
        for name, hint in self.hints.items():
            says = tuple(qualifiers(hint))
            if "Required" in says:
                required.add(name)
            elif "NotRequired" in says:
                required.discard(name)
        return required


def qualifiers(hint: Any) -> abc.Iterator[str]:
    """The names of what is around a type: `Annotated`, `Required` and their like."""
    while (origin := typing.get_origin(hint)) is not None:
        name = "Annotated" if origin is typing.Annotated else getattr(origin, "__name__", "")
        if name not in ("Annotated", "Required", "NotRequired", "ReadOnly"):
            return
        yield name
        hint = typing.get_args(hint)[0]


def _typed_dict(kind: Any) -> Converter:
    fields = _TypedDictFields(kind, kind.__required_keys__, kind.__annotations__)
    return Converter("object", fields.convert)


def _dataclass(kind: Any) -> Converter:
    settable = [field for field in dataclasses.fields(kind) if field.init]
    required = {
        field.name
        for field in settable
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    fields = _Fields(kind, required, [field.name for field in settable])

    def convert(value: Any, path: str) -> Any:
        values = fields.convert(value, path)
        try:
            return kind(**values)
        except (ValueError, TypeError) as error:
            raise ConvertIssue(path, str(error)) from None

    return Converter("object", convert)


def _named_tuple(kind: Any) -> Converter:
    names = kind._fields
    least = len(names) - len(kind._field_defaults)
    fields = _Fields(kind, (), names)

    def convert(value: Any, path: str) -> Any:
        if type(value) is not list:
            raise _mismatch("array", value, path)
        if not least <= len(value) <= len(names):
            wanted = len(names) if least == len(names) else f"{least} to {len(names)}"
            raise ConvertIssue(path, f"Expected `array` of length {wanted}, got {len(value)}")
        pairs = enumerate(zip(names, value, strict=False))
        converters = fields.converters
        return kind(*(converters[name].convert(each, f"{path}[{i}]") for i, (name, each) in pairs))

    return Converter("array", convert)


def _pydantic(kind: Any) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            return kind.model_validate(value)
        except ValueError as error:
            at, issue = path, str(error)
            errors = getattr(error, "errors", None)
            if errors is not None:
                first = errors(include_url=False, include_context=False)[0]
                for part in first["loc"]:
                    at = f"{at}[{part}]" if isinstance(part, int) else key_path(at, part)
                issue = first["msg"]
            raise ConvertIssue(at, issue) from None

    return Converter("object", convert)


def _ndarray(numpy: Any, arguments: tuple[Any, ...]) -> Converter:
    wanted = None
    for argument in typing.get_args(arguments[1]) if len(arguments) == 2 else ():
        # `numpy.floating[Any]` passes for a class under Python 3.10, and is none.
        argument = typing.get_origin(argument) or argument
        if isinstance(argument, type) and issubclass(argument, numpy.generic):
            wanted = argument
    name = "ndarray" if wanted is None else f"ndarray[{wanted.__name__}]"

    # What TypeScript has for an array of bytes is what it has for bytes.
    takes_bytes = wanted is None or issubclass(numpy.uint8, wanted)

    def convert(value: Any, path: str) -> Any:
        if takes_bytes and isinstance(value, (bytes, bytearray, memoryview)):
            return numpy.frombuffer(value, numpy.uint8).copy()
        if not isinstance(value, numpy.ndarray):
            raise _mismatch(name, value, path)
        if wanted is not None and not issubclass(value.dtype.type, wanted):
            raise ConvertIssue(path, f"Expected `{name}`, got `ndarray[{value.dtype.name}]`")
        return value

    return Converter(name, convert)


def _tabular(kind: Any, pyarrow: Any) -> Converter | None:
    if kind is pyarrow.Table:
        make = None
    elif kind is pyarrow.RecordBatch:
        make = _arrow.to_batch
    elif kind is pyarrow.RecordBatchReader:
        make = pyarrow.Table.to_reader
    else:
        return None

    def convert(value: Any, path: str) -> Any:
        if not isinstance(value, pyarrow.Table):
            raise _mismatch("table", value, path)
        try:
            return value if make is None else make(value)
        except _arrow.ArrowIssue as error:
            raise ConvertIssue(path, str(error)) from None

    return Converter("table", convert)


def _numpy_scalar(kind: Any, numpy: Any) -> Converter:
    scalars = ((numpy.bool_, bool), (numpy.integer, int), (numpy.floating, float))
    for base, python in scalars:
        if issubclass(kind, base) and (kind is not base or python is bool):
            inner = converter(python)
            if python is int:
                try:
                    info = numpy.iinfo(kind)
                except ValueError:
                    # One that others inherit from.
                    break
                inner = _within(inner, Range(int(info.min), int(info.max)))
            return _then(inner, kind)
    raise TypeError(f"`{kind.__qualname__}` is not a type that can arrive")


def _then(inner: Converter, make: Callable[[Any], Any]) -> Converter:
    return Converter(inner.expects, lambda value, path: make(inner.convert(value, path)))


def _within(inner: Converter, bounds: Range) -> Converter:
    def convert(value: Any, path: str) -> Any:
        result = inner.convert(value, path)
        if result < bounds.ge:
            raise ConvertIssue(path, f"Expected `int` >= {bounds.ge}")
        if result > bounds.le:
            raise ConvertIssue(path, f"Expected `int` <= {bounds.le}")
        return result

    return Converter(inner.expects, convert)


def _has_constraints(metadata: tuple[Any, ...]) -> bool:
    msgspec = sys.modules.get("msgspec")
    meta = getattr(msgspec, "Meta", ())
    return any(isinstance(each, meta) for each in metadata)


# Instants arrive as such; texts without a time zone are still to be read.
_AS_THEY_ARE: Final = (bytes, bytearray, memoryview)


def _validated(annotation: Any) -> Converter:
    """A type that only msgspec knows."""
    msgspec = importlib.import_module("msgspec")

    def convert(value: Any, path: str) -> Any:
        try:
            return msgspec.convert(value, annotation, dec_hook=dec_hook, builtin_types=_AS_THEY_ARE)
        except msgspec.ValidationError as error:
            inner, issue = split_path(str(error))
            raise ConvertIssue(path + inner[1:], issue) from None

    kind = typing.get_origin(annotation) or annotation
    if kind is typing.Annotated:
        return Converter(converter(typing.get_args(annotation)[0]).expects, convert)
    is_array = getattr(getattr(kind, "__struct_config__", None), "array_like", False)
    return Converter("array" if is_array else "object", convert)


_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")


def split_path(message: str) -> tuple[str, str]:
    """The path and the issue in a message of msgspec; the innermost part of the path comes first in
    it.
    """
    path = ""
    while (place := _PLACE.search(message)) is not None:
        path += place[1]
        message = message[: place.start()]
    return f"${path}", message


def dec_hook(annotation: Any, value: Any) -> Any:
    """What msgspec asks for the types it does not know."""
    try:
        return converter(annotation).convert(value, "$")
    except ConvertIssue as error:
        place = "" if error.path == "$" else f" - at `{error.path}`"
        raise ValueError(f"{error.issue}{place}") from None
