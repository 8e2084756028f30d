"""What goes wrong: with JavaScript's code, or with the program that runs it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where something is in a source; lines and columns start at 1."""

    function: str
    source: str
    line: int
    column: int


@dataclass(frozen=True)
class TraceItem(Place):
    """One function of a stack, the innermost first."""

    #: Where it was written, when a source map says so.
    mapped: Place | None = None


class JavaScriptError(Exception):
    """JavaScript threw, or its code, its parameter or its value were no good.

    Attributes:
        name: The name of the error's class, such as `TypeError`.
        message: Its message.
        kind: Who is to blame: `threw`, `compile`, `param`, `unserializable`, `serialize`, `limit`,
            `cancelled`, `answer` (the handler of messages), `memory`, `exit` or `start`.
        stack: The stack as text, where it was written if source maps say so.
        trace: The stack as data.
        properties: What else the error has, as far as JSON carries it; `None` for nothing.
        result_json: All of it, as JSON.
    """

    def __init__(self, result_json: str) -> None:
        info = json.loads(result_json)
        super().__init__(info["errorMessage"])
        self.result_json = result_json
        self.name: str = info["name"]
        self.message: str = info["message"]
        self.kind: str = info["kind"]
        self.stack: str = info["pretty"]
        self.trace: tuple[TraceItem, ...] = tuple(_to_item(item) for item in info["trace"])
        self.properties: Any = info.get("properties")

    def __reduce__(self) -> tuple[type[JavaScriptError], tuple[str]]:
        return type(self), (self.result_json,)


class JavaScriptTimeout(JavaScriptError, TimeoutError):
    """JavaScript ran for longer than it may, and was stopped."""


class NodeError(Exception):
    """The program that runs JavaScript does not, or is not spoken to as it should be."""


class NodeNotFound(NodeError):
    """There is no Node, or no server for it; the message says where it was looked for."""


class NodeStartFailed(NodeError):
    """Node or the module did not start; the message has what they said."""


class NodeExited(NodeError):
    """Node ended while it ran the call. Whether the call had an effect is not known."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        #: The exit code, or the negative number of the signal.
        self.exit_code = exit_code


class NodeUnresponsive(NodeError, TimeoutError):
    """Node did not answer in time; the call was stopped, or all of Node was."""


class RestartLimit(NodeError):
    """Node ended more often than it may be restarted."""


class Closed(NodeError):
    """The client is closed."""


def to_error(result_json: str) -> JavaScriptError:
    error = JavaScriptError(result_json)
    return JavaScriptTimeout(result_json) if error.kind == "limit" else error


def _to_item(item: dict[str, Any]) -> TraceItem:
    mapped = item.get("mapped")
    place = _to_place(item)
    return TraceItem(
        place.function,
        place.source,
        place.line,
        place.column,
        _to_place(mapped) if mapped is not None else None,
    )


def _to_place(item: dict[str, Any]) -> Place:
    return Place(item["functionName"], item["source"], int(item["line"]), int(item["column"]))
