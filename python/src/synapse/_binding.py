"""From the payload of a call to the arguments of its handler."""

from __future__ import annotations

import collections.abc as abc
import inspect
import sys
import types
import typing
from collections.abc import Callable
from inspect import Parameter
from typing import Any, Final

from synapse._annotations import resolved, routine_of, written
from synapse._codec import Codec, DecodeIssue, MsgspecCodec, apply
from synapse._constraints import refuse_unchecked
from synapse._convert import Converter, converter, wire_name
from synapse._encode import key_path
from synapse._frames import Payload

Arguments = tuple[tuple[Any, ...], "dict[str, Any] | None"]
Bind = Callable[[Any], Arguments]

_NIL: Final = b"\xc0"
_MAPS: Final = (dict, abc.Mapping, abc.MutableMapping)


def binder(function: Callable[..., Any], name: str, codec: Codec) -> Bind:
    """Build what makes positional and keyword arguments of a payload.

    Raises:
        TypeError: An annotation cannot be resolved, or names a type that cannot arrive.
    """
    parameters = list(inspect.signature(function).parameters.values())
    hints = hints_of(function, name)
    for parameter, annotation in hints.items():
        try:
            refuse_unchecked(annotation)
        except TypeError as error:
            raise TypeError(f"handler `{name}`: parameter `{parameter}`: {error}") from None
    try:
        if not parameters:
            return _bind_nothing(codec)
        first = parameters[0]
        if len(parameters) == 1 and takes_all(first, hints.get(first.name, Any)):
            return _bind_all(first, hints.get(first.name, Any), codec)
        return _bind_by_name(parameters, hints, codec)
    except _Unfit as error:
        raise TypeError(f"handler `{name}`: {error}") from None


class _Unfit(TypeError):
    pass


def hints_of(function: Any, name: str) -> dict[str, Any]:
    """The annotations of the parameters of a handler.

    Raises:
        TypeError: One cannot be resolved.
    """
    target = routine_of(function)
    annotations = {k: v for k, v in written(target).items() if k != "return"}
    if not annotations:
        return {}
    try:
        # The return type is not looked at: it may name what exists for type checkers only.
        return resolved(annotations, target, target.__globals__)
    except Exception as error:
        raise TypeError(f"handler `{name}`: its annotations cannot be resolved: {error}") from error


def takes_all(parameter: Parameter, annotation: Any) -> bool:
    """Whether the only parameter of a handler receives the payload as a whole."""
    if parameter.kind is Parameter.VAR_KEYWORD:
        return False
    if parameter.kind is Parameter.POSITIONAL_ONLY or parameter.annotation is Parameter.empty:
        return True
    return _is_map(annotation)


def _is_map(annotation: Any) -> bool:
    if annotation in (Any, object):
        return True
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _is_map(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        members = [each for each in typing.get_args(annotation) if each is not type(None)]
        return all(map(_is_map, members))
    kind = origin or annotation
    if kind in _MAPS or typing.is_typeddict(kind) or hasattr(kind, "__total__"):
        return True
    if any(hasattr(kind, mark) for mark in ("__dataclass_fields__", "__attrs_attrs__")):
        return True
    if hasattr(kind, "__struct_config__"):
        return not kind.__struct_config__.array_like
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def _bind_nothing(codec: Codec) -> Bind:
    def bind(payload: Any) -> Arguments:
        value = codec.decode(payload) if payload else None
        if value is not None and value != {}:
            got = _first_key(value) if isinstance(value, dict) else None
            raise got or DecodeIssue(
                "$", f"Expected nothing or an empty `object`, got `{wire_name(value)}`"
            )
        return (), None

    return bind


def _first_key(value: dict[Any, Any]) -> DecodeIssue:
    return DecodeIssue(key_path("$", next(iter(value))), "the handler takes no arguments")


def _bind_all(parameter: Parameter, annotation: Any, codec: Codec) -> Bind:
    untyped = annotation in (Any, object)
    decode = codec.decode if untyped else _typed(parameter, annotation, codec)
    by_keyword = parameter.name if parameter.kind is Parameter.KEYWORD_ONLY else None
    has_default = parameter.default is not Parameter.empty
    if untyped and by_keyword is None and not has_default:
        return _bind_any(codec)

    def bind(payload: Any) -> Arguments:
        if has_default and (not payload or payload == _NIL):
            return (), None
        value = decode(payload or _NIL)
        return ((value,), None) if by_keyword is None else ((), {by_keyword: value})

    return bind


def _bind_any(codec: Codec) -> Bind:
    """All of the payload, as it is: most handlers of few lines take that."""
    decode, try_decode = codec.decode, codec.trying_to_decode

    def bind(payload: Any) -> Arguments:
        try:
            return (try_decode(payload or _NIL),), None
        except Exception:
            return (decode(payload or _NIL),), None

    return bind


def _typed(parameter: Parameter, annotation: Any, codec: Codec) -> Callable[[Any], Any]:
    try:
        return codec.typed(annotation)
    except TypeError as error:
        raise _Unfit(f"parameter `{parameter.name}`: {error}") from None


def _bind_by_name(parameters: list[Parameter], hints: dict[str, Any], codec: Codec) -> Bind:
    named = [each for each in parameters if each.kind is not Parameter.VAR_KEYWORD]
    rest = next((each for each in parameters if each.kind is Parameter.VAR_KEYWORD), None)
    # Also where msgspec decodes: this refuses what cannot arrive, and explains what does not fit.
    converters: dict[str, Converter] = {}
    for each in parameters:
        try:
            converters[each.name] = converter(hints.get(each.name, Any))
        except TypeError as error:
            raise _Unfit(f"parameter `{each.name}`: {error}") from None
    slow = _slow_bind(named, rest, converters, codec)
    if rest is None and isinstance(codec, MsgspecCodec):
        return _fast_bind(named, hints, slow, codec) or slow
    return slow


def _slow_bind(
    named: list[Parameter],
    rest: Parameter | None,
    converters: dict[str, Converter],
    codec: Codec,
) -> Bind:
    names = [each.name for each in named]
    required = [each.name for each in named if each.default is Parameter.empty]
    shown = ", ".join(f"`{each}`" for each in required or names)
    keys = f"{'key' if len(required or names) == 1 else 'keys'} {shown}"

    def bind(payload: Any) -> Arguments:
        value = codec.decode(payload) if payload else None
        if value is None and not required:
            value = {}
        if not isinstance(value, dict):
            expected = f"expected an object with the {keys}" if names else "expected an object"
            raise DecodeIssue("$", f"{expected}, got `{wire_name(value)}`")
        if rest is None:
            unknown = next((key for key in value if key not in converters), None)
            if unknown is not None:
                raise DecodeIssue(key_path("$", unknown), _unknown(unknown, names))
        missing = next((key for key in required if key not in value), None)
        if missing is not None:
            raise DecodeIssue(f"$.{missing}", f"missing the key `{missing}`")
        arguments = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise DecodeIssue(key_path("$", key), "the keys of arguments are text")
            own = key if key in names or rest is None else rest.name
            path = key_path("$", key)
            arguments[key] = apply(converters[own], item, path)
        return (), arguments

    return bind


def _unknown(key: Any, names: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(str(key), names, 1)
    if near:
        return f"unknown key `{key}`, did you mean `{near[0]}`?"
    return f"unknown key `{key}`, the handler takes {', '.join(f'`{name}`' for name in names)}"


def _fast_bind(
    named: list[Parameter], hints: dict[str, Any], slow: Bind, codec: MsgspecCodec
) -> Bind | None:
    """Decode straight into a struct whose fields are the parameters; `slow` explains what does not
    fit.
    """
    import msgspec

    from synapse._incoming import Stream, arrived

    fields: list[Any] = []
    for each in named:
        kind = hints.get(each.name, Any)
        if each.default is Parameter.empty:
            fields.append((each.name, kind))
        else:
            fields.append((each.name, kind, msgspec.UNSET))
    try:
        struct = msgspec.defstruct(
            "Arguments", fields, forbid_unknown_fields=True, kw_only=True, gc=False
        )
        decode = codec.decoder(struct)
    except (TypeError, ValueError):
        return None
    astuple, unset = msgspec.structs.astuple, msgspec.UNSET
    names = [each.name for each in named]
    positional = all(
        each.default is Parameter.empty and each.kind is not Parameter.KEYWORD_ONLY
        for each in named
    )

    def bind(payload: Any) -> Arguments:
        try:
            values = astuple(decode(payload))
        except Exception as error:
            arguments = slow(payload)
            # The two agree on what fits, but for constraints that only msgspec knows.
            if not payload or payload == _NIL or type(payload) is Payload:
                return arguments
            raise codec.issue(error) from None
        if arrived:
            # msgspec tells nobody where a value stands.
            for name, value in zip(names, values, strict=True):
                if type(value) is Stream:
                    value.stands_at(key_path("$", name))
        if positional:
            return values, None
        pairs = zip(names, values, strict=True)
        return (), {key: value for key, value in pairs if value is not unset}

    return bind
