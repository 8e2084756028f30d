"""MessagePack in plain Python: what the runtime uses where no codec is installed.

It is strict about what it reads and knows the types of the wire only; `_encode.plain` makes those
of other values.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from struct import Struct
from struct import error as StructError
from typing import Any, Final

MAX_DEPTH: Final = 128
TIMESTAMP: Final = -1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_KEY_TYPES: Final = (str, int, float, bytes)


class Extension:
    """An extension on its way out. Not a tuple: codecs would take it for an array."""

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: bytes | bytearray | memoryview) -> None:
        self.code = code
        self.data = data


class Malformed(ValueError):
    """The bytes are not one MessagePack value of the kinds the protocol allows."""


_U16, _U32, _U64 = Struct(">H"), Struct(">I"), Struct(">Q")
_I8, _I16, _I32, _I64 = Struct(">b"), Struct(">h"), Struct(">i"), Struct(">q")
_F32, _F64 = Struct(">f"), Struct(">d")
_TIMESTAMP_96 = Struct(">Iq")


def to_timestamp(value: datetime) -> bytes:
    """The data of the timestamp extension for an aware datetime."""
    since = value - _EPOCH
    seconds, nanoseconds = since.days * 86400 + since.seconds, since.microseconds * 1000
    if 0 <= seconds < 1 << 34:
        packed = nanoseconds << 34 | seconds
        return _U32.pack(packed) if packed < 1 << 32 else _U64.pack(packed)
    return _TIMESTAMP_96.pack(nanoseconds, seconds)


def from_timestamp(data: bytes) -> datetime:
    """The instant in the data of a timestamp extension, in UTC, cut to microseconds.

    msgspec takes the nearest one: peers that send nanoseconds find either. Hosts send milliseconds.
    """
    if len(data) == 4:
        nanoseconds, seconds = 0, _U32.unpack(data)[0]
    elif len(data) == 8:
        packed = _U64.unpack(data)[0]
        nanoseconds, seconds = packed >> 34, packed & (1 << 34) - 1
    elif len(data) == 12:
        nanoseconds, seconds = _TIMESTAMP_96.unpack(data)
    else:
        raise Malformed(f"a timestamp of {len(data)} bytes")
    if nanoseconds > 999_999_999:
        raise Malformed("a timestamp with more than 999999999 nanoseconds")
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        raise Malformed("a timestamp out of the range of datetime") from None


def encode(value: Any) -> bytes:
    """Encode a value made of the types of the wire: see `_encode.plain`."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _encode(value: Any, out: bytearray) -> None:
    kind = type(value)
    if kind is str:
        data = value.encode()
        _head(out, len(data), 0xA0, 32, (0xD9, 0xDA, 0xDB))
        out += data
    elif kind is int:
        _encode_int(value, out)
    elif value is None:
        out.append(0xC0)
    elif kind is bool:
        out.append(0xC3 if value else 0xC2)
    elif kind is float:
        out.append(0xCB)
        out += _F64.pack(value)
    elif kind is dict:
        _head(out, len(value), 0x80, 16, (0, 0xDE, 0xDF))
        for key, item in value.items():
            _encode(key, out)
            _encode(item, out)
    elif kind is list:
        _head(out, len(value), 0x90, 16, (0, 0xDC, 0xDD))
        for item in value:
            _encode(item, out)
    elif kind is bytes:
        _head(out, len(value), 0, 0, (0xC4, 0xC5, 0xC6))
        out += value
    elif kind is Extension:
        _encode_extension(value, out)
    else:
        raise TypeError(f"not a type of the wire: {kind.__name__}")


def _head(out: bytearray, size: int, fix: int, fix_limit: int, codes: tuple[int, int, int]) -> None:
    if size < fix_limit:
        out.append(fix | size)
    elif size < 1 << 8 and codes[0]:
        out += bytes((codes[0], size))
    elif size < 1 << 16:
        out.append(codes[1])
        out += _U16.pack(size)
    else:
        out.append(codes[2])
        out += _U32.pack(size)


def _encode_int(value: int, out: bytearray) -> None:
    if -32 <= value < 128:
        out.append(value & 0xFF)
        return
    forms = _UNSIGNED if value >= 0 else _SIGNED
    for limit, code, form in forms:
        if value < limit if value >= 0 else value >= limit:
            out.append(code)
            out += form.pack(value)
            return
    raise OverflowError("an integer beyond 64 bits")


_UNSIGNED: Final = (
    (1 << 8, 0xCC, Struct(">B")),
    (1 << 16, 0xCD, _U16),
    (1 << 32, 0xCE, _U32),
    (1 << 64, 0xCF, _U64),
)
_SIGNED: Final = (
    (-(1 << 7), 0xD0, _I8),
    (-(1 << 15), 0xD1, _I16),
    (-(1 << 31), 0xD2, _I32),
    (-(1 << 63), 0xD3, _I64),
)
_FIXED_EXTENSIONS: Final = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}


def _encode_extension(value: Extension, out: bytearray) -> None:
    size = len(value.data)
    fixed = _FIXED_EXTENSIONS.get(size)
    if fixed is not None:
        out.append(fixed)
    else:
        _head(out, size, 0, 0, (0xC7, 0xC8, 0xC9))
    out += _I8.pack(value.code)
    out += value.data


def decode(
    data: bytes | bytearray | memoryview, extension: Callable[[int, memoryview], Any]
) -> Any:
    """Decode exactly one value.

    Args:
        data: The bytes.
        extension: Makes a value of an extension's code and data; the timestamp is dealt with here.

    Raises:
        Malformed: The bytes are not one value, or it is nested more than 128 levels deep.
    """
    view = memoryview(data).cast("B")
    decoder = _Decoder(view, extension)
    try:
        value = decoder.value(0)
    except (StructError, IndexError):
        raise Malformed("the data ends too early") from None
    if decoder.position != len(view):
        raise Malformed(f"{len(view) - decoder.position} bytes after the value")
    return value


class _Decoder:
    __slots__ = ("_extension", "_view", "position")

    def __init__(self, view: memoryview, extension: Callable[[int, memoryview], Any]) -> None:
        self._view = view
        self._extension = extension
        self.position = 0

    def value(self, depth: int) -> Any:
        code = self._view[self.position]
        self.position += 1
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code < 0x90:
            return self._map(code & 0x0F, depth)
        if code < 0xA0:
            return self._array(code & 0x0F, depth)
        if code < 0xC0:
            return self._text(code & 0x1F)
        return self._coded(code, depth)

    def _coded(self, code: int, depth: int) -> Any:
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        number = _NUMBERS.get(code)
        if number is not None:
            return self._number(number)
        if code in _SIZES:
            kind, form = _SIZES[code]
            size = self._number(form)
            if kind == "str":
                return self._text(size)
            if kind == "bin":
                return bytes(self._take(size))
            if kind == "array":
                return self._array(size, depth)
            if kind == "map":
                return self._map(size, depth)
            return self._extended(size)
        if code in _FIXED_SIZES:
            return self._extended(_FIXED_SIZES[code])
        raise Malformed(f"the byte 0x{code:02x} starts no value")

    def _number(self, form: Struct) -> Any:
        value = form.unpack_from(self._view, self.position)[0]
        self.position += form.size
        return value

    def _take(self, size: int) -> memoryview:
        end = self.position + size
        if end > len(self._view):
            raise Malformed("the data ends too early")
        taken = self._view[self.position : end]
        self.position = end
        return taken

    def _text(self, size: int) -> str:
        try:
            return str(self._take(size), "utf-8")
        except UnicodeDecodeError as error:
            raise Malformed(f"a string that is not UTF-8: {error.reason}") from None

    def _nested(self, size: int, depth: int, least: int) -> int:
        # Checked before anything is made: a header can promise four thousand million items in five
        # bytes.
        if size * least > len(self._view) - self.position:
            raise Malformed("the data ends too early")
        if depth >= MAX_DEPTH:
            raise Malformed(f"nested more than {MAX_DEPTH} levels deep")
        return depth + 1

    def _array(self, size: int, depth: int) -> list[Any]:
        inner = self._nested(size, depth, 1)
        return [self.value(inner) for _ in range(size)]

    def _map(self, size: int, depth: int) -> dict[Any, Any]:
        inner = self._nested(size, depth, 2)
        result = {}
        for _ in range(size):
            key = self.value(inner)
            if not isinstance(key, _KEY_TYPES):
                raise Malformed(f"a map key of type {type(key).__name__}")
            result[key] = self.value(inner)
        return result

    def _extended(self, size: int) -> Any:
        code = self._number(_I8)
        data = self._take(size)
        return from_timestamp(bytes(data)) if code == TIMESTAMP else self._extension(code, data)


_CONSTANTS: Final[dict[int, Any]] = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS: Final = {
    0xCA: _F32,
    0xCB: _F64,
    0xCC: Struct(">B"),
    0xCD: _U16,
    0xCE: _U32,
    0xCF: _U64,
    0xD0: _I8,
    0xD1: _I16,
    0xD2: _I32,
    0xD3: _I64,
}
_SIZES: Final = {
    0xC4: ("bin", Struct(">B")),
    0xC5: ("bin", _U16),
    0xC6: ("bin", _U32),
    0xC7: ("ext", Struct(">B")),
    0xC8: ("ext", _U16),
    0xC9: ("ext", _U32),
    0xD9: ("str", Struct(">B")),
    0xDA: ("str", _U16),
    0xDB: ("str", _U32),
    0xDC: ("array", _U16),
    0xDD: ("array", _U32),
    0xDE: ("map", _U16),
    0xDF: ("map", _U32),
}
_FIXED_SIZES: Final = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
