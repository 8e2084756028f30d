"""Which types hold dataclasses whose defaults msgspec leaves on the class: instances that it
decodes lack those attributes of their own, and its encoder then leaves them out.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any


def has_plain_defaults(annotation: Any) -> bool:
    """Whether a dataclass with such a default is anywhere in the type."""
    return _search(annotation, set())


def _search(annotation: Any, seen: set[int]) -> bool:
    if id(annotation) in seen:
        return False
    seen.add(id(annotation))
    if any(_search(argument, seen) for argument in typing.get_args(annotation)):
        return True
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return False
    if dataclasses.is_dataclass(kind) and _leaves_defaults(kind):
        return True
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:
        return False
    return any(_search(hint, seen) for hint in hints.values())


def _leaves_defaults(kind: type) -> bool:
    # With slots every attribute is the instance's own.
    return not hasattr(kind, "__slots__") and any(
        field.default is not dataclasses.MISSING for field in dataclasses.fields(kind)
    )
