"""Which types hold dataclasses that msgspec would not make as they are written.

It leaves defaults on the class: instances that it decodes lack those attributes of their own, and
its encoder then leaves them out. And it wants the fields that `__init__` does not take.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any


def is_made_otherwise(annotation: Any) -> bool:
    """Whether such a dataclass is anywhere in the type."""
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
    if dataclasses.is_dataclass(kind) and _differs(kind):
        return True
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:
        return False
    return any(_search(hint, seen) for hint in hints.values())


def _differs(kind: type) -> bool:
    fields = dataclasses.fields(kind)
    if not all(field.init for field in fields):
        return True
    # With slots every attribute is the instance's own.
    return not hasattr(kind, "__slots__") and any(
        field.default is not dataclasses.MISSING for field in fields
    )
