"""Which MessagePack codec the process uses, behind one interface: msgspec, else msgpack, else the
runtime's own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, Protocol

from synapse import _arrays, _arrow, _msgpack
from synapse._convert import Converter, ConvertIssue, converter, dec_hook, split_path
from synapse._defaults import is_made_otherwise
from synapse._encode import EncodeIssue, Offer, plain, reduce
from synapse._frames import Buffer, Payload
from synapse._msgpack import MAX_DEPTH, Extension

Encode = Callable[[Any], bytes]
Decode = Callable[[Any], Any]
#: The extension that stands for a stream of the input.
STREAM: Final = 2
# Elements of an array from this size on are written from where they are.
_IN_PLACE: Final = 64 * 1024
_SERIAL_SIZE: Final = 4


class DecodeIssue(Exception):
    """A value that does not fit, and where."""

    def __init__(self, path: str, issue: str) -> None:
        super().__init__(f"{issue} (at {path})")
        self.path = path
        self.issue = issue


class Codec(Protocol):
    """What the rest of the runtime knows of a codec."""

    name: str

    def encode(self, value: Any) -> bytes:
        """Encode a value; raises `EncodeIssue`."""
        ...

    def offering(self, offer: Offer) -> Encode:
        """Like `encode`, and what is an array, or of no type of the wire, is offered first."""
        ...

    def decode(self, data: Buffer) -> Any:
        """Decode exactly one value; raises `DecodeIssue`."""
        ...

    def trying(self, offer: Offer) -> Encode:
        """What encodes most values as `offering` does, only faster; whatever it raises, `walking`
        knows better. Not for a `memoryview`.
        """
        ...

    def walking(self, offer: Offer) -> Encode:
        """What encodes what `trying` could not; raises `EncodeIssue`."""
        ...

    @property
    def trying_to_decode(self) -> Decode:
        """What decodes as `decode` does, only faster; whatever it raises, `decode` knows better."""
        ...

    def typed(self, annotation: Any) -> Decode:
        """A decoder that also checks and converts to a type; raises `TypeError` for a type it
        cannot make.
        """
        ...


def encode_parts(encode: Encode, value: Any) -> bytes | tuple[Buffer, ...]:
    """Like `encode`, with one copy less of large bytes, arrays and tables that are the whole value.

    What can still change is copied once: the answer may leave after the next handler has begun.
    """
    kind = type(value)
    if kind is bytes or kind is bytearray:
        if len(value) >= _IN_PLACE:
            return b"\xc6" + len(value).to_bytes(4, "big"), bytes(value)
    elif hasattr(value, "__array_interface__") and getattr(value, "nbytes", 0) >= _IN_PLACE:
        try:
            head, elements = _arrays.from_numpy(value)
        except (_arrays.ArrayIssue, AttributeError):
            return encode(value)
        size = len(head) + len(elements)
        return b"\xc9" + size.to_bytes(4, "big") + bytes((_arrays.EXTENSION,)) + head, bytes(
            elements
        )
    elif _arrow.is_tabular(value):
        stream = _arrow.to_stream(value)
        if len(stream) >= _IN_PLACE:
            head = len(stream).to_bytes(4, "big") + bytes((_arrow.EXTENSION,))
            return b"\xc9" + head, stream
        return encode(Extension(_arrow.EXTENSION, stream))
    return encode(value)


def to_extension(code: int, data: Any, payload: Any = None) -> Any:
    """The value of an extension that arrived, in a payload whose memory `data` is or which is
    named.
    """
    if payload is None:
        payload = getattr(data, "obj", None)
    if code == _arrays.SHARED:
        return _to_shared(data, payload)
    if type(payload) is Payload:
        # An array or a table that lies in it would hold all its claims.
        data = bytearray(data)
    if code == STREAM:
        from synapse._incoming import to_stream

        return to_stream(data)
    if code == _arrow.EXTENSION:
        return _arrow.to_table(data)
    if code != _arrays.EXTENSION:
        raise _msgpack.Malformed(f"an extension of the unknown type {code}")
    return _arrays.to_array(data)


def _to_shared(data: Any, payload: Any) -> Any:
    claims = payload.claims if type(payload) is Payload else {}
    claim = claims.get(int.from_bytes(data[:_SERIAL_SIZE], "little"))
    if claim is None or len(data) < _SERIAL_SIZE:
        raise _msgpack.Malformed("a value in shared memory that its message does not refer to")
    if len(data) == _SERIAL_SIZE:
        return claim.read()
    head = memoryview(data)[_SERIAL_SIZE:]
    if bytes(head) == _arrow.SHARED_HEAD:
        return _arrow.to_shared_table(claim)
    return _arrays.to_shared_array(head, claim)


class PlainCodec:
    """The codec in plain Python."""

    name = "python"

    def encode(self, value: Any) -> bytes:
        return _msgpack.encode(_plain(value))

    def offering(self, offer: Offer) -> Encode:
        return lambda value: _msgpack.encode(_plain(value, offer))

    def trying(self, offer: Offer) -> Encode:
        return self.offering(offer)

    def walking(self, offer: Offer) -> Encode:
        return self.offering(offer)

    @property
    def trying_to_decode(self) -> Decode:
        return self.decode

    def decode(self, data: Buffer) -> Any:
        try:
            return _msgpack.decode(data, to_extension)
        except ValueError as error:
            raise DecodeIssue("$", str(error)) from None

    def typed(self, annotation: Any) -> Decode:
        convert = converter(annotation)
        return lambda data: apply(convert, self.decode(data))


def apply(convert: Converter, value: Any, path: str = "$") -> Any:
    """Convert a decoded value, with the error of a codec."""
    try:
        return convert.convert(value, path)
    except ConvertIssue as error:
        raise DecodeIssue(error.path, error.issue) from None


def _plain(value: Any, offer: Offer | None = None) -> Any:
    try:
        return plain(value, offer=offer)
    except RecursionError:
        raise EncodeIssue(
            "$", f"nested more than {MAX_DEPTH} levels deep, or within itself"
        ) from None


class MsgpackCodec(PlainCodec):
    """The `msgpack` package, for what is plain already."""

    name = "msgpack"

    def __init__(self) -> None:
        import msgpack

        self._pack = msgpack.packb
        self._unpack = msgpack.unpackb
        self._ext_type = msgpack.ExtType
        self._timestamp = msgpack.Timestamp.from_bytes

    def encode(self, value: Any) -> bytes:
        packed: bytes = self._pack(_plain(value), default=self._default)
        return packed

    def offering(self, offer: Offer) -> Encode:
        pack, default = self._pack, self._default
        return lambda value: pack(_plain(value, offer), default=default)

    def _default(self, value: Any) -> Any:
        data = bytes(value.data)
        if value.code == _msgpack.TIMESTAMP:
            return self._timestamp(data)
        return self._ext_type(value.code, data)

    def decode(self, data: Buffer) -> Any:
        try:
            value = self._unpack(
                data,
                raw=False,
                strict_map_key=False,
                ext_hook=(
                    functools.partial(self._extension, payload=data)
                    if type(data) is Payload
                    else self._extension
                ),
                timestamp=3,
            )
            _check(value, 0)
        except Exception as error:
            raise DecodeIssue("$", _malformed(error)) from None
        return value

    @staticmethod
    def _extension(code: int, data: bytes, payload: Buffer | None = None) -> Any:
        return to_extension(code, bytearray(data), payload)


_KEY_TYPES: Final = (str, int, float, bytes)


def _check(value: Any, depth: int) -> None:
    """What the msgpack package does not look at: keys and nesting."""
    if isinstance(value, (list, dict)):
        if depth >= MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, _KEY_TYPES):
                    raise ValueError(f"a map key of type {type(key).__name__}")
            value = value.values()
        for item in value:
            _check(item, depth + 1)


def _malformed(error: Exception) -> str:
    return str(error) or f"not MessagePack: {type(error).__name__}"


class MsgspecCodec:
    """The `msgspec` package: the fastest by far, and it decodes straight into types.

    It does not look at keys and nesting beyond what it must; the host does.
    """

    name = "msgspec"

    def __init__(self) -> None:
        import msgspec

        self._msgspec = msgspec
        self._encode = msgspec.msgpack.Encoder(enc_hook=self._reduce).encode
        self._decode = msgspec.msgpack.Decoder(ext_hook=to_extension).decode

    def _reduce(self, value: Any) -> Any:
        if type(value) is not Extension:
            value = reduce(value)
        if type(value) is Extension:
            return self._msgspec.msgpack.Ext(value.code, bytes(value.data))
        return value

    def encode(self, value: Any) -> bytes:
        # msgspec takes the bytes of any memoryview, whatever its items are.
        if type(value) is memoryview:
            value = plain(value)
        try:
            return self._encode(value)
        except Exception:
            return self._encode_walked(value, None)

    def trying(self, offer: Offer) -> Encode:
        reduce = self._reduce
        encode: Encode = self._msgspec.msgpack.Encoder(
            enc_hook=lambda value: reduce(offer(value) or value)
        ).encode
        return encode

    def walking(self, offer: Offer) -> Encode:
        return lambda value: self._encode_walked(value, offer)

    @property
    def trying_to_decode(self) -> Decode:
        decode: Decode = self._decode
        return decode

    def offering(self, offer: Offer) -> Encode:
        encode_offered = self.trying(offer)

        def encode(value: Any) -> bytes:
            if type(value) is memoryview:
                value = plain(value)
            try:
                return encode_offered(value)
            except Exception:
                return self._encode_walked(value, offer)

        return encode

    def _encode_walked(self, value: Any, offer: Offer | None) -> bytes:
        # Walking the value finds where the fault is; a value that has none is in a form that
        # msgspec knows.
        walked = _plain(value, offer)
        try:
            return self._encode(walked)
        except Exception as error:
            raise EncodeIssue("$", str(error)) from None

    def decode(self, data: Buffer) -> Any:
        try:
            return self._decode(data)
        except (ValueError, RecursionError, OverflowError) as error:
            raise DecodeIssue("$", str(error)) from None

    def typed(self, annotation: Any) -> Decode:
        convert = converter(annotation)
        try:
            decode = self.decoder(annotation)
        except TypeError:
            return lambda data: apply(convert, self.decode(data))

        def typed(data: Any) -> Any:
            try:
                return decode(data)
            except (ValueError, RecursionError, OverflowError) as error:
                issue = self.issue(error)
            if type(data) is Payload:
                # msgspec takes no extension for bytes; walking the value does.
                return apply(convert, self.decode(data))
            # The items of a map have no names in msgspec's paths; walking the value gives them.
            if "[...]" in issue.path or "key" in issue.issue:
                apply(convert, self.decode(data))
            raise issue

        return typed

    def decoder(self, annotation: Any) -> Decode:
        """A decoder with msgspec's own errors; raises `TypeError` for a type that msgspec does not
        take, or makes without some of its values.
        """
        if is_made_otherwise(annotation):
            raise TypeError("a dataclass that would not be as it is written")
        try:
            decode: Decode = self._msgspec.msgpack.Decoder(
                annotation, dec_hook=dec_hook, ext_hook=to_extension
            ).decode
        except RecursionError:
            raise TypeError("a named type that is within itself") from None
        return decode

    @staticmethod
    def issue(error: Exception) -> DecodeIssue:
        return DecodeIssue(*split_path(str(error)))


def choose(name: str | None = None, broken: list[str] | None = None) -> Codec:
    """The best codec that works, or the one called `name`; what is installed and does not work is
    added to `broken`.
    """
    makers: dict[str, Callable[[], Codec]] = {
        "msgspec": MsgspecCodec,
        "msgpack": MsgpackCodec,
        "python": PlainCodec,
    }
    if name is not None:
        return makers[name]()
    for package, make in makers.items():
        try:
            codec = make()
            if codec.decode(codec.encode({"a": [1]})) == {"a": [1]}:
                return codec
            why = "it does not read what it wrote"
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == package:
                continue
            why = f"{type(error).__name__}: {error}"
        if broken is not None:
            broken.append(f"`{package}` is installed and does not work ({why})")
    raise AssertionError("the plain codec needs nothing")
