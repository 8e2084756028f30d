"""Contracts of functions, and which values they say fit."""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from synapse._codec import Codec, choose
from synapse._contract import describe
from synapse._handlers import Handler

HERE = str(Path(__file__).parent)
UTC = dt.timezone.utc

Contract = dict[str, Any]


def contract_of(*functions: Callable[..., Any], codec: Codec | None = None, **options: Any) -> Any:
    """The contract of functions as handlers, which are known by their names."""
    handlers = [Handler(each, each.__name__, **options) for each in functions]
    for each in handlers:
        each.prepare(codec or choose())
    return describe(handlers, HERE)


def without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items() if key != "place"}
    return [without_places(each) for each in value] if isinstance(value, list) else value


def taken(annotation: Any, *, problems: int = 0) -> tuple[Any, Any]:
    """The type of a parameter and the definitions, without places."""

    def f(value: Any, other: int) -> None: ...

    f.__annotations__["value"] = annotation
    contract = without_places(contract_of(f))
    assert len(contract["problems"]) == problems, contract["problems"]
    return contract["methods"]["f"]["payload"]["fields"][0]["type"], contract["definitions"]


def given(annotation: Any, *, problems: int = 0, **options: Any) -> tuple[Any, Any]:
    """The type of what is returned and the definitions, without places."""

    def f() -> Any: ...

    f.__annotations__["return"] = annotation
    contract = without_places(contract_of(f, **options))
    assert len(contract["problems"]) == problems, contract["problems"]
    return contract["methods"]["f"]["success"], contract["definitions"]


def fits(value: Any, kind: Any, definitions: Any) -> bool:
    """Whether a decoded value is of a type of a contract."""
    return _Fits(definitions).fits(value, kind)


class _Fits:
    def __init__(self, definitions: Any) -> None:
        self._definitions = definitions

    def fits(self, value: Any, kind: Any) -> bool:
        result: bool = getattr(self, kind["kind"])(value, kind)
        return result

    def unknown(self, value: Any, kind: Any) -> bool:
        return True

    def null(self, value: Any, kind: Any) -> bool:
        return value is None

    def boolean(self, value: Any, kind: Any) -> bool:
        return type(value) is bool

    def integer(self, value: Any, kind: Any) -> bool:
        return type(value) is int and abs(value) < 2**53 and _in_bounds(value, kind)

    def int64(self, value: Any, kind: Any) -> bool:
        return type(value) is int and -(2**63) <= value < 2**63 and _in_bounds(value, kind)

    def number(self, value: Any, kind: Any) -> bool:
        return type(value) in (int, float) and _in_bounds(value, kind)

    def string(self, value: Any, kind: Any) -> bool:
        if type(value) is not str or not _has_length(value, kind):
            return False
        return "pattern" not in kind or re.search(kind["pattern"], value) is not None

    def bytes(self, value: Any, kind: Any) -> bool:
        return type(value) is bytes and _has_length(value, kind)

    def datetime(self, value: Any, kind: Any) -> bool:
        if isinstance(value, dt.datetime):
            return kind["aware"] is not False
        return kind["aware"] is not True and _parses(dt.datetime.fromisoformat, value, "T")

    def date(self, value: Any, kind: Any) -> bool:
        return _parses(dt.date.fromisoformat, value)

    def time(self, value: Any, kind: Any) -> bool:
        return _parses(dt.time.fromisoformat, value, ":")

    def duration(self, value: Any, kind: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(r"P(\d+D)?(T\d+S)?", value) is not None

    def decimal(self, value: Any, kind: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value) is not None

    def uuid(self, value: Any, kind: Any) -> bool:
        return _parses(uuid.UUID, value)

    def literal(self, value: Any, kind: Any) -> bool:
        return any(type(each) is type(value) and each == value for each in kind["values"])

    def list(self, value: Any, kind: Any) -> bool:
        if type(value) is not list or not _has_length(value, kind):
            return False
        return all(self.fits(each, kind["items"]) for each in value)

    def tuple(self, value: Any, kind: Any) -> bool:
        items = kind["items"]
        if type(value) is not list or len(value) != len(items):
            return False
        return all(map(self.fits, value, items))

    def map(self, value: Any, kind: Any) -> bool:
        if type(value) is not dict or not _has_length(value, kind):
            return False
        return all(
            self.fits(key, kind["keys"]) and self.fits(each, kind["values"])
            for key, each in value.items()
        )

    def union(self, value: Any, kind: Any) -> bool:
        return any(self.fits(value, each) for each in kind["members"])

    def stream(self, value: Any, kind: Any) -> bool:
        return False

    def ref(self, value: Any, kind: Any) -> bool:
        definition = self._definitions[kind["name"]]
        names = definition.get("parameters", ())
        given = dict(zip(names, kind.get("arguments", ()), strict=True))
        result: bool = getattr(self, f"of_{definition['kind']}")(value, _filled(definition, given))
        return result

    def of_alias(self, value: Any, definition: Any) -> bool:
        return self.fits(value, definition["type"])

    def of_enum(self, value: Any, definition: Any) -> bool:
        return self.literal(value, {"values": [each["value"] for each in definition["members"]]})

    def of_record(self, value: Any, definition: Any) -> bool:
        fields = definition["fields"]
        least = sum(each["required"] for each in fields)
        if type(value) is not list or not least <= len(value) <= len(fields):
            return False
        return all(
            self.fits(each, field["type"]) for each, field in zip(value, fields, strict=False)
        )

    def of_struct(self, value: Any, definition: Any) -> bool:
        if type(value) is not dict:
            return False
        fields = {each["name"]: each for each in definition["fields"]}
        tag = definition.get("tag")
        if tag is not None:
            literal = {"kind": "literal", "values": [tag["value"]]}
            fields[tag["field"]] = {"type": literal, "required": True}
        if not definition.get("open") and not value.keys() <= fields.keys():
            return False
        return all(
            self.fits(value[name], each["type"]) if name in value else not each["required"]
            for name, each in fields.items()
        )


def _filled(value: Any, given: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_filled(each, given) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "parameter":
        return given[value["name"]]
    return {key: _filled(each, given) for key, each in value.items()}


def _in_bounds(value: Any, kind: Any) -> bool:
    return (
        value >= kind.get("minimum", -math.inf)
        and value > kind.get("exclusiveMinimum", -math.inf)
        and value <= kind.get("maximum", math.inf)
        and value < kind.get("exclusiveMaximum", math.inf)
        and ("multipleOf" not in kind or value % kind["multipleOf"] == 0)
    )


def _has_length(value: Any, kind: Any) -> bool:
    return bool(kind.get("minLength", 0) <= len(value) <= kind.get("maxLength", math.inf))


def _parses(parse: Callable[[str], Any], value: Any, having: str = "") -> bool:
    if not isinstance(value, str) or having not in value:
        return False
    try:
        parse(value)
    except ValueError:
        return False
    return True
