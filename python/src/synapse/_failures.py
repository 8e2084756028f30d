"""What calls of host functions raise."""

from __future__ import annotations

import typing
from typing import Any, Final

from synapse._convert import ConvertIssue, converter
from synapse._declared import Error

_MAX_MESSAGE: Final = 8192


class HostError(Error):
    """A failure that a host function, or a stream from the host, declares.

    A subclass is raised where its name is the tag of the failure; its annotations are the fields it
    has then, as with `synapse.Error`. `tag` is the tag, or `None` where the failure has none, and
    `error` the failure as it came. One that leaves a handler goes back to the caller as it came.

    Example:
        >>> import synapse
        >>> class NotFound(synapse.HostError):
        ...     id: int
        >>> async def name_of(id: int) -> str:
        ...     try:
        ...         return await synapse.host.call("user_name", id=id)
        ...     except NotFound as error:
        ...         return f"user {error.id}"
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in ("tag", "error"):
            if name in cls._fields:
                raise TypeError(
                    f"`{cls.__qualname__}.{name}`: a host error cannot have this field, every one "
                    "has an attribute of that name: leave the annotation out, and find the field "
                    "in `error`"
                )

    def __init__(self, message: str | None = None, /, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.tag: str | None = type(self).__name__
        self.error: Any = None
        # As it came, for the way back.
        self._payload: bytes | None = None


class DeadlinePassed(TimeoutError):
    """The deadline of the call has passed while a host function was running: its caller has given
    up.
    """


class HostCallFailed(RuntimeError):
    """A host function did not answer, and not because of a failure that it declares.

    Args:
        reason: `MethodNotFound`, `DecodeFailed`, `EncodeFailed`, `FrameTooLarge`, `Overloaded`,
            `Unsupported`, `Closed`, `Interrupted`, or `Exception` for what it raised.
        message: What a person can read about it.
    """

    # Tracebacks say what a module imports it as.
    __module__ = "synapse"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


def to_host_error(payload: bytes, value: Any) -> HostError:
    """The exception for a failure that arrived, decoded."""
    fields = value if isinstance(value, dict) else {}
    tag, message = fields.get("_tag"), fields.get("message")
    if not isinstance(message, str):
        message = tag if isinstance(tag, str) else repr(value)[:_MAX_MESSAGE]
    error = _of_subclass(tag, message, fields) if isinstance(tag, str) else HostError(message)
    error.tag = tag if isinstance(tag, str) else None
    error.error = value
    error._payload = payload
    return error


def _of_subclass(tag: str, message: str, fields: dict[str, Any]) -> HostError:
    kind = _subclass(HostError, tag)
    if kind is None:
        return HostError(message)
    try:
        hints = typing.get_type_hints(kind)
        return kind(
            message,
            **{
                name: converter(hints.get(name, Any)).convert(fields[name], f"$.{name}")
                for name in kind._fields
                if name in fields
            },
        )
    except Exception as issue:
        error = HostError(message)
        why = issue if isinstance(issue, ConvertIssue) else f"{type(issue).__name__}: {issue}"
        # As `add_note` does, which is there from 3.11 on.
        error.__dict__["__notes__"] = [f"it is no `{kind.__qualname__}`: {why}"]
        return error


def _subclass(kind: type[HostError], tag: str) -> type[HostError] | None:
    """The class of that name that was defined last."""
    for each in reversed(kind.__subclasses__()):
        found = each if each.__name__ == tag else _subclass(each, tag)
        if found is not None:
            return found
    return None
