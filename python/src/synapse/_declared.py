"""Declared failures: exceptions that a caller handles as values."""

from __future__ import annotations

import copy
import inspect
from itertools import chain
from typing import Any, ClassVar

_OF_EXCEPTIONS = "every exception has an attribute of that name: give the field another one"
# Names that no field can have, and what to do instead.
_RESERVED = {
    "_tag": "the tag is the name of the class: name the class as the tag should be",
    "message": "every declared error has one already: leave the annotation out, and give the text "
    "when raising it",
    "args": _OF_EXCEPTIONS,
    "add_note": _OF_EXCEPTIONS,
    "with_traceback": _OF_EXCEPTIONS,
}


class _DefaultMessage:
    """The message of an error whose `__init__` calls no other, such as that of a dataclass."""

    def __get__(self, error: object, cls: type) -> str:
        return _default_message(cls)


class Error(Exception):
    """Base of the failures that a handler declares with `raises`.

    The annotations of a subclass are its fields and the name of the class is its tag: the caller
    receives an object with `_tag`, `message` and the fields. Fields are given by keyword and become
    attributes; a value in the class body is a default. A leading underscore keeps an annotation out
    of it.

    Args:
        message: What went wrong. Without it, the first line of the class's docstring, or else the
        class's name. fields: One value for each annotation that has no default.

    Raises:
        TypeError: A field is missing, or unknown.

    Example:
        >>> class PromptTooLong(Error):
        ...     "The prompt does not fit."
        ...     limit: int
        >>> PromptTooLong(limit=4096).message
        'The prompt does not fit.'
    """

    message: str = _DefaultMessage()  # type: ignore[assignment]
    _fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        annotated = _annotations(cls)
        for name in annotated:
            if name in _RESERVED:
                raise TypeError(
                    f"`{cls.__qualname__}.{name}`: a declared error cannot have this field, "
                    f"{_RESERVED[name]}"
                )
        own = [name for name in annotated if not name.startswith("_")]
        inherited = [base._fields for base in cls.__bases__ if issubclass(base, Error)]
        cls._fields = tuple(dict.fromkeys(chain(*inherited, own)))

    def __init__(self, message: str | None = None, /, **fields: Any) -> None:
        cls = type(self)
        if "message" in fields:
            if message is not None:
                raise TypeError(f"{cls.__qualname__}() got two values for `message`")
            message = fields.pop("message")
        if message is None:
            message = _default_message(cls)
        elif not isinstance(message, str):
            raise TypeError(
                f"{cls.__qualname__}() takes fields by keyword, and its message as text, "
                f"not `{type(message).__qualname__}`"
            )
        unknown = [name for name in fields if name not in cls._fields]
        if unknown:
            known = ", ".join(f"`{name}`" for name in cls._fields) or "none"
            raise TypeError(
                f"{cls.__qualname__}() got the unknown field `{unknown[0]}`; it has {known}"
            )
        missing = [name for name in cls._fields if name not in fields and not hasattr(cls, name)]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            raise TypeError(f"{cls.__qualname__}() misses {names}")
        super().__init__(message)
        self.message = message
        for name in cls._fields:
            # A default that can change belongs to one error, not to all.
            setattr(self, name, fields[name] if name in fields else copy.copy(getattr(cls, name)))

    def __str__(self) -> str:
        return str(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            type(self),
            self.message,
            {name: getattr(self, name) for name in self._fields if hasattr(self, name)},
        )


def _annotations(cls: type) -> list[str]:
    # From 3.14 on annotations are made on demand, and reading them may fail on names that do not
    # exist yet.
    names = inspect.get_annotations(cls) if "__annotations__" in cls.__dict__ else {}
    return [
        name
        for name, kind in names.items()
        if not any(each in str(kind) for each in ("ClassVar", "InitVar"))
    ]


def _rebuild(cls: type[Error], message: str, fields: dict[str, Any]) -> Error:
    if cls.__init__ is Error.__init__:
        return cls(message, **fields)
    # Another `__init__` takes what it likes.
    error = cls.__new__(cls, message)
    for name, value in (("message", message), *fields.items()):
        # Not that of the class, which may be frozen.
        object.__setattr__(error, name, value)
    return error


def _default_message(cls: type) -> str:
    doc = cls.__dict__.get("__doc__")
    if "__dataclass_fields__" in cls.__dict__ and str(doc).startswith(f"{cls.__name__}("):
        # Nobody wrote it: it is the signature.
        doc = None
    lines = doc.strip().splitlines() if isinstance(doc, str) else []
    return lines[0] if lines else cls.__qualname__


def to_fields(error: Error) -> dict[str, Any]:
    """What a declared error is on the wire.

    Raises:
        TypeError: It lacks a field.
    """
    for name in error._fields:
        if not hasattr(error, name):
            raise TypeError(
                f"`{type(error).__qualname__}` was made without its field `{name}`: "
                "its `__init__` does not set it"
            )
    return {
        "_tag": type(error).__name__,
        "message": error.message,
        **{name: getattr(error, name) for name in error._fields},
    }
