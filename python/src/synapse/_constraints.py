"""Constraints that nobody would check: those of pydantic outside of its models."""

from __future__ import annotations

import sys
import typing
from typing import Any, Final

_PACKAGES: Final = frozenset({"pydantic", "pydantic_core", "annotated_types"})
# What a `pydantic.Field` may say here, because nothing follows from it.
_SAYING_NOTHING: Final = frozenset(
    {"annotation", "deprecated", "description", "examples", "json_schema_extra", "title"}
)
_FIELDS: Final = (
    "__dataclass_fields__",
    "__attrs_attrs__",
    "__struct_fields__",
    "__total__",
    "_fields",
)


def refuse_unchecked(annotation: Any) -> None:
    """Look through a type, and the fields of the types in it.

    Raises:
        TypeError: It carries constraints that would be ignored.
    """
    _look(annotation, set())


def _look(annotation: Any, seen: set[int]) -> None:
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        for each in arguments[1:]:
            _refuse(each)
        arguments = arguments[:1]
    elif origin is typing.Literal:
        return
    for each in arguments:
        _look(each, seen)
    # A new type, and a named one.
    for name in ("__supertype__", "__value__"):
        inner = getattr(origin or annotation, name, None)
        if inner is not None:
            _look(inner, seen)
    kind = origin or annotation
    if isinstance(kind, type) and any(hasattr(kind, mark) for mark in _FIELDS):
        for each in _hints(kind):
            _look(each, seen)


def _hints(kind: type) -> list[Any]:
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and issubclass(kind, getattr(pydantic, "BaseModel", ())):
        return []
    try:
        return list(typing.get_type_hints(kind, include_extras=True).values())
    except Exception:
        # Names that do not exist are for the first value to complain about.
        return []


def _refuse(constraint: Any) -> None:
    package = type(constraint).__module__.partition(".")[0]
    if package not in _PACKAGES:
        return
    said = getattr(constraint, "_attributes_set", None)
    if isinstance(said, dict) and not constraint.metadata and _SAYING_NOTHING.issuperset(said):
        return
    shown = repr(constraint)
    raise TypeError(
        f"the constraint `{shown if len(shown) <= 120 else type(constraint).__qualname__}` "
        f"would not be checked: use msgspec.Meta, or put it into a pydantic model"
    )
