"""From annotations to the types of the contract."""

from __future__ import annotations

import array
import collections
import collections.abc as abc
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from synapse._annotations import of_class
from synapse._contract_limits import MAX_TEXT, Type, limited, limits_in, of_bits
from synapse._contract_places import Place, Places
from synapse._handle import Handle
from synapse._incoming import Stream

#: What arrives, or what is sent: a few classes are not the same in both.
Way = Literal["in", "out"]
#: What parameters of generics stand for.
Scope = Mapping[Any, Type]
#: A definition before it has its name: the class, or the like, and the way.
Key = tuple[Any, Way]

UNKNOWN: Final[Type] = {"kind": "unknown"}
_NULL: Final[Type] = {"kind": "null"}
_NOWHERE: Final[Scope] = types.MappingProxyType({})
#: The integers that can be carried.
LEAST, MOST = -(1 << 63), (1 << 64) - 1
_MAX_MESSAGE: Final = 500
#: A contract is not nested deeper than a value may be.
_MAX_DEPTH: Final = 32


#: Makes the definition of a class or of a named type.
Define = Callable[["Describer", Any, "Place | None", "Spot"], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Spot:
    """Where a type is met."""

    method: str
    path: str
    place: Place | None
    way: Way
    #: Whether pydantic decides what is taken.
    of_model: bool = False


class Describer:
    """Describes types, and keeps the definitions that they refer to and what it cannot describe."""

    def __init__(self, places: Places, define: Define) -> None:
        self._places = places
        self._define = define
        self.problems: list[dict[str, Any]] = []
        #: References in them name a `Key`.
        self.drafts: dict[Key, dict[str, Any]] = {}
        self._depth = 0

    def problem(self, spot: Spot, message: str) -> Type:
        """Say what cannot be described; the type that stands for it."""
        if len(message) > _MAX_MESSAGE:
            message = f"{message[:_MAX_MESSAGE]}..."
        problem: dict[str, Any] = {"method": spot.method, "path": spot.path, "message": message}
        if spot.place is not None:
            problem["place"] = spot.place
        if problem not in self.problems:
            self.problems.append(problem)
        return UNKNOWN

    def of(self, annotation: Any, spot: Spot, scope: Scope = _NOWHERE) -> Type:
        """The type of an annotation."""
        if self._depth == _MAX_DEPTH:
            return self.problem(
                spot, f"nested more than {_MAX_DEPTH} levels deep: give a part of it a name"
            )
        self._depth += 1
        try:
            return self._of(annotation, spot, scope)
        finally:
            self._depth -= 1

    def _of(self, annotation: Any, spot: Spot, scope: Scope) -> Type:
        if annotation is Any or annotation is object or annotation is inspect.Parameter.empty:
            return UNKNOWN
        if annotation is None or annotation is types.NoneType:
            return _NULL
        if isinstance(annotation, typing.TypeVar):
            return self._variable(annotation, spot, scope)
        if isinstance(annotation, typing.NewType):
            return self.refer(annotation, (), spot, scope)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if is_alias(origin or annotation):
            return self.refer(origin or annotation, arguments, spot, scope)
        if origin is typing.Annotated:
            return self._annotated(arguments[0], arguments[1:], spot, scope)
        if origin is typing.Literal:
            return self._literal(arguments, spot)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments, spot, scope)
        if _name(origin) in _QUALIFIERS:
            return self.of(arguments[0], spot, scope)
        if _name(annotation) in _SPECIAL and _module(annotation) in _TYPING:
            return _SPECIAL[_name(annotation)]
        kind = origin or annotation
        if kind is tuple and not arguments and not hasattr(annotation, "__args__"):
            return {"kind": "list", "items": UNKNOWN}
        if isinstance(kind, type):
            found = self._class(kind, arguments, spot, scope)
            if found is not None:
                return found
        return self.problem(spot, _advice(annotation, spot))

    # What is no class

    def _variable(self, variable: Any, spot: Spot, scope: Scope) -> Type:
        if variable in scope:
            return scope[variable]
        bound = variable.__bound__
        if bound is not None:
            return self.of(bound, spot, scope)
        if variable.__constraints__ and spot.way == "out":
            return self._union(variable.__constraints__, spot, scope)
        return UNKNOWN

    def _annotated(self, inner: Any, metadata: tuple[Any, ...], spot: Spot, scope: Scope) -> Type:
        replaced = self._replaced(metadata, spot, scope)
        if replaced is not None:
            return replaced
        limits = limits_in(metadata)
        # A named type with more constraints is no longer the named one.
        while limits and (isinstance(inner, typing.NewType) or is_alias(inner)):
            inner = getattr(inner, "__supertype__", None) or inner.__value__
        return limited(self.of(inner, spot, scope), limits)

    def _replaced(self, metadata: tuple[Any, ...], spot: Spot, scope: Scope) -> Type | None:
        """What a value becomes, or is made from, where pydantic is told how."""
        for each in metadata:
            name = type(each).__name__ if _module(type(each)).startswith("pydantic.") else ""
            if spot.way == "out" and name in ("PlainSerializer", "WrapSerializer"):
                returned = each.return_type
                if _name(returned) in ("PydanticUndefinedType",) or _is_undefined(returned):
                    return self.problem(
                        spot, "what its serializer returns is not said: give it `return_type`"
                    )
                return self.of(returned, spot, scope)
            if spot.way == "in" and name == "PlainValidator":
                taken = getattr(each, "json_schema_input_type", Any)
                return self.of(taken, spot, scope)
        return None

    def _literal(self, values: tuple[Any, ...], spot: Spot) -> Type:
        constants = []
        for value in values:
            known, constant = constant_of(value)
            if not known or (isinstance(value, enum.Enum) and spot.way == "in"):
                return self.problem(
                    spot,
                    f"`Literal[{value!r}]` cannot travel: use text, integers, booleans and None",
                )
            constants.append(constant)
        if constants == [None]:
            return _NULL
        return {"kind": "literal", "values": constants}

    def _union(self, members: tuple[Any, ...], spot: Spot, scope: Scope) -> Type:
        found: list[Type] = []
        for member in members:
            if _name(member) == "UnsetType" and _module(member).startswith("msgspec"):
                continue
            described = self.of(member, spot, scope)
            inner = described["members"] if described["kind"] == "union" else [described]
            found.extend(each for each in inner if each not in found)
        return found[0] if len(found) == 1 else {"kind": "union", "members": found}

    # Classes

    def _class(
        self, kind: Any, arguments: tuple[Any, ...], spot: Spot, scope: Scope
    ) -> Type | None:
        if kind in _SCALARS:
            return _SCALARS[kind]
        if issubclass(kind, enum.Enum) or is_structure(kind):
            return self.refer(kind, arguments, spot, scope)
        if kind is tuple:
            return self._tuple(arguments, spot, scope)
        if issubclass(kind, Handle) and spot.way == "out":
            return {"kind": "handle"}
        found = self._collection(kind, arguments, spot, scope)
        if found is not None:
            return found
        found = self._numpy(kind, arguments, spot, scope)
        if found is not None:
            return found
        if _is_table(kind):
            return {"kind": "table"}
        if _module(kind).startswith("pydantic.") and kind.__name__ in _PYDANTIC:
            return _PYDANTIC[kind.__name__]
        if spot.way == "out":
            return self._sent(kind)
        return _read_by_pydantic(kind) if spot.of_model else None

    def _sent(self, kind: type) -> Type | None:
        """What is sent as what it inherits from, and not received."""
        if kind is array.array:
            return {"kind": "ndarray", "dtype": None, "dimensions": 1}
        for base, described in _SCALARS.items():
            if issubclass(kind, base):
                return described
        if issubclass(kind, tuple):
            return {"kind": "list", "items": UNKNOWN}
        return None

    def _collection(
        self, kind: Any, arguments: tuple[Any, ...], spot: Spot, scope: Scope
    ) -> Type | None:
        lists, sets, maps = (_LISTS, _SETS, _MAPS) if spot.way == "in" else _SENT
        streams = issubclass(kind, Stream) or kind in _STREAMS
        if not streams and kind not in (*lists, *sets, *maps):
            return None
        if kind in maps:
            keys, values = (self.of(each, spot, scope) for each in _map_arguments(kind, arguments))
            return {"kind": "map", "keys": keys, "values": values}
        items = self.of(arguments[0], spot, scope) if arguments else UNKNOWN
        if streams and spot.way == "in":
            stream: Type = {"kind": "stream", "items": items}
            if kind is not abc.Iterable:
                return stream
            return {"kind": "union", "members": [{"kind": "list", "items": items}, stream]}
        if streams and kind is not abc.Iterable:
            return self.problem(
                spot,
                f"a `{_shown(kind)}` is sent item by item only: return a list, or make the handler "
                f"a generator or one with `@synapse.handler(stream=True)`",
            )
        listed: Type = {"kind": "list", "items": items}
        return {**listed, "unique": True} if kind in sets else listed

    def _tuple(self, arguments: tuple[Any, ...], spot: Spot, scope: Scope) -> Type:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"kind": "list", "items": self.of(arguments[0], spot, scope)}
        return {"kind": "tuple", "items": [self.of(each, spot, scope) for each in arguments]}

    def _numpy(
        self, kind: Any, arguments: tuple[Any, ...], spot: Spot, scope: Scope
    ) -> Type | None:
        numpy = sys.modules.get("numpy")
        if numpy is None or not issubclass(kind, (numpy.ndarray, numpy.generic)):
            return None
        if issubclass(kind, numpy.generic):
            return _numpy_scalar(numpy, kind, spot.way)
        if kind is not numpy.ndarray and spot.way == "in":
            return None
        shape, dtype = arguments if len(arguments) == 2 else (Any, Any)
        dimensions = None
        if typing.get_origin(shape) is tuple and Ellipsis not in typing.get_args(shape):
            dimensions = len(typing.get_args(shape))
        element = (*typing.get_args(dtype), Any)[0]
        if isinstance(element, typing.TypeVar):
            element = element.__bound__
        element = typing.get_origin(element) or element
        name = None
        if isinstance(element, type) and issubclass(element, numpy.generic):
            name = _element_name(numpy, element)
            if name is not None and name not in _ELEMENTS:
                return self.problem(
                    spot,
                    f"arrays of `{name}` cannot travel: convert them, to float64 for example, "
                    f"or to a list",
                )
        return {"kind": "ndarray", "dtype": name, "dimensions": dimensions}

    def refer(self, kind: Any, arguments: tuple[Any, ...], spot: Spot, scope: Scope) -> Type:
        """A reference to the definition of a class or of a named type, which is made when it is
        first met.
        """
        kind, arguments = generic(kind, arguments)
        key: Key = (kind, spot.way)
        if key not in self.drafts:
            # What it refers to may refer to it.
            self.drafts[key] = {}
            place = self._places.of_type(kind)
            depth, self._depth = self._depth, 0
            try:
                draft = self._define(self, kind, place, spot)
            except NameError as error:
                why = unresolved(f"an annotation of `{_shown(kind)}`", error)
                draft = {"kind": "alias", "type": self.problem(spot, why)}
            except Exception as error:
                why = f"`{_shown(kind)}` cannot be described: {type(error).__name__}: {error}"
                draft = {"kind": "alias", "type": self.problem(spot, why)}
            finally:
                self._depth = depth
            if place is not None:
                draft["place"] = place
            self.drafts[key] = draft
        result: Type = {"kind": "ref", "name": key}
        parameters = parameters_of(kind)
        if parameters:
            given = [*arguments, *map(_default_of, parameters[len(arguments) :])]
            result["arguments"] = [self.of(each, spot, scope) for each in given]
        return result


def generic(kind: Any, arguments: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """The generic that a class is made of, and with which arguments."""
    made = getattr(kind, "__pydantic_generic_metadata__", None)
    if isinstance(made, dict) and made.get("origin") is not None:
        return made["origin"], tuple(made["args"])
    return kind, arguments


def parameters_of(kind: Any) -> tuple[Any, ...]:
    """The parameters of a generic."""
    if is_alias(kind):
        return tuple(kind.__type_params__)
    made = getattr(kind, "__pydantic_generic_metadata__", None)
    if isinstance(made, dict):
        return tuple(made["parameters"])
    return tuple(getattr(kind, "__parameters__", ()))


def is_alias(kind: Any) -> bool:
    """Whether it is what a `type` statement makes."""
    return type(kind).__name__ == "TypeAliasType"


def is_structure(kind: Any) -> bool:
    """Whether it is a class with fields."""
    if any(
        hasattr(kind, mark)
        for mark in ("__dataclass_fields__", "__attrs_attrs__", "__struct_fields__", "__total__")
    ):
        return True
    return (issubclass(kind, tuple) and hasattr(kind, "_fields")) or is_model(kind)


def is_model(kind: Any) -> bool:
    """Whether it is a model of pydantic."""
    pydantic = sys.modules.get("pydantic")
    model = getattr(pydantic, "BaseModel", None)
    return model is not None and isinstance(kind, type) and issubclass(kind, model)


def constant_of(value: Any) -> tuple[bool, Any]:
    """Whether a value is a constant of the contract, and which."""
    if isinstance(value, enum.Enum):
        return constant_of(value.value)
    if value is None or isinstance(value, bool):
        return True, value
    if isinstance(value, float):
        return True, float(value)
    if isinstance(value, int):
        return LEAST <= value <= MOST, int(value)
    if isinstance(value, str):
        return len(value) <= MAX_TEXT, str.__str__(value)
    return False, None


def hints_for(kind: type, way: Way) -> tuple[dict[str, Any], dict[str, Exception]]:
    """The annotations of a class. What arrives is decoded by them, without the names of functions
    around it.
    """
    return of_class(kind, **({kind.__name__: kind} if way == "out" else {}))


def _default_of(variable: Any) -> Any:
    default = getattr(variable, "__default__", None)
    if default is not None and type(default).__name__ != "NoDefaultType":
        return default
    return getattr(variable, "__bound__", None) or Any


def unresolved(what: str, error: object) -> str:
    """What to say of an annotation whose names do not exist."""
    return (
        f"{what} cannot be resolved: {error}: name a type that the module has when it is loaded, "
        f"not one inside of a function or for type checkers only"
    )


def _name(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", None) or getattr(annotation, "_name", ""))


def _module(annotation: Any) -> str:
    return str(getattr(annotation, "__module__", ""))


def _is_undefined(value: Any) -> bool:
    return type(value).__name__ == "PydanticUndefinedType"


def _shown(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__.rpartition("<locals>.")[2]
    shown = str(annotation)
    return shown if len(shown) <= 120 else f"{shown[:120]}..."


def _advice(annotation: Any, spot: Spot) -> str:
    if isinstance(annotation, (typing.ForwardRef, str)):
        name = getattr(annotation, "__forward_arg__", annotation)
        return unresolved("its annotation", f"name '{name}' is not defined")
    if spot.way == "in":
        return f"`{_shown(annotation)}` is not a type that can arrive: use a dataclass, or `Any`"
    if hasattr(annotation, "__arrow_c_stream__"):
        return f"`{_shown(annotation)}` cannot be sent: make a table of it, with pyarrow.table()"
    return (
        f"`{_shown(annotation)}` cannot be sent as a value: return a dataclass, or what the "
        f"protocol carries, or a `synapse.Handle` of it"
    )


def _read_by_pydantic(kind: Any) -> Type | None:
    """What pydantic reads a class from that is known to it alone, such as a URL."""
    pydantic = sys.modules["pydantic"]
    try:
        schema = pydantic.TypeAdapter(kind).json_schema(mode="validation")
    except Exception:
        return None
    name = _OF_SCHEMAS.get(schema.get("type"))
    return None if name is None else {"kind": name}


_OF_SCHEMAS: Final = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
}


def _map_arguments(kind: Any, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    if kind is collections.Counter:
        return (arguments[0] if arguments else Any), int
    return (arguments[0], arguments[1]) if len(arguments) == 2 else (Any, Any)


def _numpy_scalar(numpy: Any, kind: Any, way: Way) -> Type | None:
    if issubclass(kind, numpy.bool_):
        return {"kind": "boolean"}
    if issubclass(kind, numpy.integer):
        try:
            info = numpy.iinfo(kind)
        except ValueError:
            # One that others inherit from.
            return {"kind": "int64"} if way == "out" else None
        return of_bits(int(info.min), int(info.max))
    if issubclass(kind, numpy.floating):
        return {"kind": "number"}
    if way == "in":
        return None
    if issubclass(kind, numpy.str_):
        return {"kind": "string"}
    return {"kind": "bytes"} if issubclass(kind, numpy.bytes_) else None


def _element_name(numpy: Any, kind: Any) -> str | None:
    if kind in (
        numpy.generic,
        numpy.number,
        numpy.integer,
        numpy.signedinteger,
        numpy.unsignedinteger,
        numpy.inexact,
        numpy.floating,
    ):
        return None
    try:
        name = str(numpy.dtype(kind).name)
    except TypeError:
        return kind.__name__  # type: ignore[no-any-return]
    return name


def _is_table(kind: Any) -> bool:
    library = sys.modules.get("pyarrow.lib")
    names = ("Table", "RecordBatch", "RecordBatchReader")
    return library is not None and any(kind is getattr(library, name, None) for name in names)


_TYPING: Final = frozenset({"typing", "typing_extensions"})
_QUALIFIERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})
_SPECIAL: Final[dict[str, Type]] = {
    "NoReturn": _NULL,
    "Never": _NULL,
    "LiteralString": {"kind": "string"},
}
_ELEMENTS: Final = frozenset(
    {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"}
    | {"float32", "float64"}
)
# Subclasses stand before their bases.
_SCALARS: Final[dict[Any, Type]] = {
    bool: {"kind": "boolean"},
    int: {"kind": "integer"},
    float: {"kind": "number"},
    str: {"kind": "string"},
    bytes: {"kind": "bytes"},
    bytearray: {"kind": "bytes"},
    memoryview: {"kind": "bytes"},
    dt.datetime: {"kind": "datetime", "aware": None},
    dt.date: {"kind": "date"},
    dt.time: {"kind": "time"},
    dt.timedelta: {"kind": "duration"},
    decimal.Decimal: {"kind": "decimal"},
    uuid.UUID: {"kind": "uuid"},
}
_PYDANTIC: Final[dict[str, Type]] = {
    "AwareDatetime": {"kind": "datetime", "aware": True},
    "NaiveDatetime": {"kind": "datetime", "aware": False},
    "PastDatetime": {"kind": "datetime", "aware": None},
    "FutureDatetime": {"kind": "datetime", "aware": None},
    "PastDate": {"kind": "date"},
    "FutureDate": {"kind": "date"},
    "EmailStr": {"kind": "string"},
}
_LISTS: Final = (list, abc.Sequence, abc.MutableSequence, abc.Collection)
_STREAMS: Final = (
    abc.Iterator,
    abc.Iterable,
    abc.Generator,
    abc.AsyncIterator,
    abc.AsyncIterable,
    abc.AsyncGenerator,
)
_SETS: Final = (set, frozenset, abc.Set, abc.MutableSet)
_MAPS: Final = (dict, abc.Mapping, abc.MutableMapping)
_SENT: Final[tuple[tuple[Callable[..., Any], ...], ...]] = (
    (*_LISTS, collections.deque, abc.ValuesView),
    (*_SETS, abc.KeysView),
    (*_MAPS, collections.OrderedDict, collections.defaultdict, collections.Counter),
)
