"""From the values that handlers return to values of the wire: what is carried, as what, and where
it is refused.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import sys
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from synapse import _arrays, _arrow
from synapse._isoformat import format_duration
from synapse._msgpack import MAX_DEPTH, TIMESTAMP, Extension, to_timestamp

#: Makes an extension of a value that lies, or is put, where it need not be copied to; or nothing.
Offer = Callable[[Any], "Extension | None"]

_LEAST, _MOST = -(1 << 63), (1 << 64) - 1


class EncodeIssue(Exception):
    """A value that cannot be carried, and where it is."""

    def __init__(self, path: str, issue: str) -> None:
        super().__init__(f"{issue} (at {path})")
        self.path = path
        self.issue = issue


class Uncarried(TypeError):
    """There is no way to carry a value; the message says all."""


def reduce(value: Any) -> Any:
    """One step towards the wire, for a value that is none of its types; its parts may need more
    steps.

    Raises:
        Uncarried: There is no way to carry it.
    """
    kind = type(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _extension(*_arrays.from_numpy(value))
        if isinstance(value, numpy.generic):
            return _numpy_scalar(value)
    if isinstance(value, (array.array, memoryview)):
        return _extension(*_arrays.from_buffer(value))
    if _arrow.is_tabular(value):
        return Extension(_arrow.EXTENSION, _arrow.to_stream(value))
    if not isinstance(value, enum.Enum):
        for builtin, without_subclass in _BUILTINS:
            if isinstance(value, builtin):
                return without_subclass(value)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (collections.deque, type({}.keys()), type({}.values()))):
        return list(value)
    hint = ""
    if inspect.isawaitable(value):
        is_call = getattr(value, "__qualname__", None) == "Host.call"
        other = " In a function that is not async, use `synapse.host.call_sync`" if is_call else ""
        hint = f": was an `await` forgotten?{other}"
    elif inspect.isroutine(value):
        hint = ": was a call forgotten?"
    elif hasattr(kind, "__arrow_c_stream__"):
        hint = ": make a table of it, with pyarrow.table()"
    raise Uncarried(f"cannot carry a `{kind.__qualname__}`{hint}")


# The methods of the types themselves: a subclass may answer otherwise.
_BUILTINS: Final[tuple[tuple[type, Any], ...]] = (
    (str, lambda value: str.__getitem__(value, slice(None))),
    (int, int.__int__),
    (float, float.__float__),
    (bytes, lambda value: bytes.__getitem__(value, slice(None))),
)


def _extension(head: bytes, elements: memoryview) -> Extension:
    return Extension(_arrays.EXTENSION, head + elements)


def _numpy_scalar(value: Any) -> Any:
    plain = value.item()
    if type(plain) in (bool, int, float, str, bytes):
        return plain
    raise Uncarried(f"cannot carry a numpy `{value.dtype}`")


def plain(value: Any, path: str = "$", depth: int = 0, offer: Offer | None = None) -> Any:
    """The value in the types of the wire alone: None, bool, int, float, str, bytes, list, dict and
    `Extension`.

    Args:
        value: The value.
        path: Where it is.
        depth: In how many others it is.
        offer: Is asked first for everything that is not of those types.

    Raises:
        EncodeIssue: Something in it cannot be carried, or raises when it is looked at; the path
            says where it is.
    """
    try:
        return _plain(value, path, depth, offer)
    except (EncodeIssue, RecursionError):
        raise
    except (Uncarried, _arrays.ArrayIssue, _arrow.ArrowIssue) as error:
        raise EncodeIssue(path, str(error)) from None
    except Exception as error:
        raise EncodeIssue(path, why_not(value, error)) from error


def why_not(value: Any, error: BaseException) -> str:
    """What to say of a value that raised while it was looked at."""
    try:
        said = f": {error}"
    except Exception:
        said = ""
    return f"cannot carry a `{type(value).__qualname__}`: {type(error).__name__}{said}"


def _plain(value: Any, path: str, depth: int, offer: Offer | None) -> Any:
    kind = type(value)
    if value is None or kind is bool or kind is float or kind is bytes:
        return value
    if kind is str:
        return _text(value, path)
    if kind is int:
        if _LEAST <= value <= _MOST:
            return value
        raise EncodeIssue(path, "cannot carry an integer beyond 64 bits")
    if kind is Extension:
        return value
    if isinstance(value, dict):
        return _plain_map(value, path, _deeper(path, depth), offer)
    if isinstance(value, (list, tuple, set, frozenset)):
        inner = _deeper(path, depth)
        return [plain(item, f"{path}[{index}]", inner, offer) for index, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
            if hasattr(value, field.name)
        }
        return _plain_map(fields, path, _deeper(path, depth), offer)
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is not None and not isinstance(value, type):
        fields = {attribute.name: getattr(value, attribute.name) for attribute in attributes}
        return _plain_map(fields, path, _deeper(path, depth), offer)
    if hasattr(kind, "__struct_fields__"):
        return _plain_struct(value, path, _deeper(path, depth), offer)
    if isinstance(value, enum.Enum):
        return plain(value.value, path, depth, offer)
    if isinstance(value, memoryview) and value.format in ("B", "b", "c"):
        return value.tobytes()
    if kind is bytearray:
        return bytes(value)
    text = _as_text(value)
    if text is not None:
        return text
    offered = None if offer is None else offer(value)
    return offered or plain(reduce(value), path, depth, offer)


def _deeper(path: str, depth: int) -> int:
    if depth < MAX_DEPTH:
        return depth + 1
    shown = path if len(path) <= 200 else f"{path[:200]}..."
    raise EncodeIssue(shown, f"nested more than {MAX_DEPTH} levels deep, or within itself")


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EncodeIssue(path, "cannot carry a string with a lone surrogate") from None
    return value


def key_path(path: str, key: Any) -> str:
    """The path of an item of a map."""
    if isinstance(key, str) and key.isidentifier():
        return f"{path}.{key}"
    try:
        shown = repr(key)
    except Exception:
        shown = "?"
    return f"{path}[{shown[:80]}]"


def _plain_map(value: dict[Any, Any], path: str, depth: int, offer: Offer | None) -> dict[Any, Any]:
    result = {}
    for key, item in value.items():
        at = key_path(path, key)
        carried = key if type(key) is str else plain(key, at, depth)
        if not isinstance(carried, (str, int, float, bytes)):
            raise EncodeIssue(at, f"cannot carry a `{type(key).__qualname__}` as a key")
        if type(carried) is str:
            _text(carried, path)
        result[carried] = plain(item, at, depth, offer)
    return result


def _plain_struct(value: Any, path: str, depth: int, offer: Offer | None) -> Any:
    msgspec = sys.modules["msgspec"]
    config = value.__struct_config__
    names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
    items = [(encoded, getattr(value, name)) for name, encoded in names]
    if config.array_like:
        tagged = [] if config.tag is None else [config.tag]
        return plain([*tagged, *(item for _, item in items)], path, depth - 1, offer)
    if config.omit_defaults:
        # Which fields equal their defaults is msgspec's to say.
        return plain(
            msgspec.to_builtins(value, builtin_types=_WIRE_TYPES, enc_hook=reduce),
            path,
            depth - 1,
            offer,
        )
    fields = {} if config.tag is None else {config.tag_field: config.tag}
    fields.update((name, item) for name, item in items if item is not msgspec.UNSET)
    return _plain_map(fields, path, depth, offer)


_WIRE_TYPES: Final = (bytes, bytearray, memoryview, dt.datetime, dt.date, dt.time, dt.timedelta)


def _as_text(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return (
            value.isoformat()
            if value.utcoffset() is None
            else Extension(TIMESTAMP, to_timestamp(value))
        )
    if isinstance(value, (dt.date, dt.time)):
        text = value.isoformat()
        return f"{text[:-6]}Z" if text.endswith("+00:00") else text
    if isinstance(value, dt.timedelta):
        return format_duration(value)
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    return None
