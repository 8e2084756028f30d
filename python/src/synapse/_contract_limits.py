"""What the metadata of annotations says: bounds, lengths, patterns, time zones and descriptions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from synapse._integers import LEAST, MOST

Type = dict[str, Any]

#: Characters of a name, and of a text, that a host reads; it counts some of them as two.
MAX_NAME: Final = 1024 // 2
MAX_TEXT: Final = 65_536 // 2

_PACKAGES: Final = frozenset({"msgspec", "annotated_types", "pydantic", "pydantic_core", "synapse"})
_MOST_SAFE: Final = (1 << 53) - 1
_MOST_CARRIED: Final = (1 << 64) - 1
_BOUNDS: Final = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_LENGTHS: Final = {"min_length": "minLength", "max_length": "maxLength"}
_NUMBERS: Final = frozenset({"integer", "int64", "number"})
_SIZED: Final = frozenset({"string", "bytes", "list", "map"})


def doc_in(metadata: Iterable[Any]) -> str | None:
    """The description among the metadata of an annotation; the last one counts."""
    found = None
    for each in metadata:
        for name in ("description", "documentation"):
            said = getattr(each, name, None)
            if isinstance(said, str) and said.strip():
                found = said
    return found if found is None else cleaned(found)


def cleaned(doc: str) -> str:
    """A docstring without its indentation, and within what a host reads."""
    text = inspect.cleandoc(doc).strip()
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def limits_in(metadata: Iterable[Any]) -> dict[str, Any]:
    """The constraints among the metadata of an annotation, by their names in msgspec."""
    found: dict[str, Any] = {}
    for each in _flat(metadata):
        for name in (*_BOUNDS, *_LENGTHS):
            value = getattr(each, name, None)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[name] = value
        pattern = getattr(each, "pattern", None)
        if isinstance(pattern, re.Pattern):
            pattern = pattern.pattern
        # A longer one is checked where it is written.
        if isinstance(pattern, str) and len(pattern) <= MAX_NAME:
            found["pattern"] = pattern
        if hasattr(each, "tz"):
            aware = _aware(each)
            if aware is not None:
                found["aware"] = aware
    return found


def _aware(meta: Any) -> bool | None:
    if type(meta).__module__.partition(".")[0] == "msgspec":
        return meta.tz if isinstance(meta.tz, bool) else None
    # annotated_types.Timezone: none, any, or one of them.
    return meta.tz is not None


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for each in metadata:
        if type(each).__module__.partition(".")[0] not in _PACKAGES or isinstance(each, type):
            continue
        # A `pydantic.Field` has its constraints in a list.
        inner = getattr(each, "metadata", None)
        if isinstance(inner, (list, tuple)):
            yield from _flat(inner)
        else:
            yield each


def limited(described: Type, limits: dict[str, Any]) -> Type:
    """The type with those constraints that it can have."""
    kind = described["kind"]
    if not limits:
        return described
    if kind == "union":
        return {**described, "members": [limited(each, limits) for each in described["members"]]}
    result = dict(described)
    if kind in _NUMBERS:
        result.update((key, limits[name]) for name, key in _BOUNDS.items() if name in limits)
        return result if kind == "number" else _sized(result)
    if kind in _SIZED:
        result.update((key, limits[name]) for name, key in _LENGTHS.items() if name in limits)
        if result.get("minLength") == 0:
            del result["minLength"]
    if kind == "string" and "pattern" in limits:
        result["pattern"] = limits["pattern"]
    if kind == "datetime" and "aware" in limits:
        result["aware"] = limits["aware"]
    return result


def _sized(described: Type) -> Type:
    """An integer whose bounds are beyond those of a safe number has 64 bits."""
    beyond = (
        described.get("minimum", 0) < -_MOST_SAFE
        or described.get("exclusiveMinimum", 0) < -_MOST_SAFE - 1
        or described.get("maximum", 0) > _MOST_SAFE
        or described.get("exclusiveMaximum", 0) > _MOST_SAFE + 1
        or abs(described.get("minimum", 0)) > _MOST_SAFE
        or abs(described.get("maximum", 0)) > _MOST_SAFE
    )
    result = {**described, "kind": "int64"} if beyond else dict(described)
    # What follows from the kind, or from what can be carried at all, need not be said.
    if result.get("minimum", 0) <= LEAST:
        del result["minimum"]
    if result.get("maximum", 0) == MOST or result.get("maximum", 0) >= _MOST_CARRIED:
        del result["maximum"]
    if result.get("exclusiveMinimum", 0) < LEAST:
        del result["exclusiveMinimum"]
    if result.get("exclusiveMaximum", 0) > MOST:
        result.pop("exclusiveMaximum")
    return result


def of_bits(least: int, most: int) -> Type:
    """The integers of a fixed size."""
    return _sized({"kind": "integer", "minimum": least, "maximum": most})
