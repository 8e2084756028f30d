"""What calls of a client raise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ConnectFailed(ConnectionError):
    """There is no connection to a server.

    Args:
        reason: `"unreachable"`, `"timeout"`, `"token"`, `"tls"`, `"protocol"`, or `"notFound"`
            where discovery found no server.
        message: What a person can read about it.
    """

    __module__ = "synapse"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self))


class ConnectionLost(ConnectionError):
    """The connection ended while a call was open: it may have run, in part or to its end."""

    __module__ = "synapse"


class CallTimedOut(TimeoutError):
    """A call had not ended within its time. The server has been told to stop it."""

    __module__ = "synapse"


class CallFailed(RuntimeError):
    """A server answered that a call failed.

    Args:
        reason: `Exception` for what the endpoint raised, `HandlerFailed` for an error that it
            declares, or `MethodNotFound`, `DecodeFailed`, `EncodeFailed`, `FrameTooLarge`,
            `Overloaded`, `Unsupported`, `Closed`, `Interrupted`, and of nodes of
            synapse-p2p `BadRequest`, `BadAnswer` and `NoAnswer`.
        message: What a person can read about it.
        details: What the server says of it: of an exception its `type`, `module`, `message` and
            `frames`, of a declared error its `_tag` and its fields.
    """

    __module__ = "synapse"

    def __init__(self, reason: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.details: Mapping[str, Any] = details if isinstance(details, dict) else {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, str(self), dict(self.details))


def to_failure(name: str, kind: str, reason: Any, value: Any) -> CallFailed:
    """The error in the answer to a call: what a `Fail` (`kind` is `"fail"`) or a `Die` carries."""
    details = value if isinstance(value, dict) else {}
    if kind == "fail":
        tag = details.get("_tag", "an error")
        return CallFailed(
            "HandlerFailed", f"`{name}` failed with {tag}: {details.get('message', value)}", value
        )
    if kind == "interrupted":
        return CallFailed("Interrupted", f"the call of `{name}` was interrupted")
    if not isinstance(reason, str):
        kind_of = details.get("type", "an exception")
        said = f"`{name}` raised {kind_of}: {details.get('message', '')}"
        return CallFailed("Exception", said, value)
    return CallFailed(reason, f"`{name}`: {_explained(reason, details)}", value)


def _explained(reason: str, details: dict[str, Any]) -> str:
    if reason == "MethodNotFound":
        near = ", ".join(f"`{each}`" for each in details.get("nearest") or ())
        return "the server has no such endpoint" + (f", it has {near}" if near else "")
    if "issue" in details:
        what = "the arguments do not fit" if reason == "DecodeFailed" else "it cannot be carried"
        return f"{what}: {details['issue']} (at {details.get('path', '$')})"
    if "detail" in details:
        return str(details["detail"])
    said = ", ".join(f"{key} {item}" for key, item in details.items())
    return f"{reason}{f' ({said})' if said else ''}"
