"""The wire of today's synapse-p2p: a length and a map each way, and one call for a connection."""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, NamedTuple

from synapse._codec import Codec, DecodeIssue

MAX_FRAME: Final = 4 * 1024 * 1024
LENGTH: Final = Struct("!I")
_REQUEST: Final = frozenset(("type", "id", "endpoint", "args", "kwargs"))
_RESPONSE: Final = frozenset(("type", "id", "ok", "result", "error"))

UNREGISTERED: Final = "Unregistered endpoint called: "


class Call(NamedTuple):
    id: str
    endpoint: str
    args: list[Any]
    kwargs: dict[str, Any]


class BadMessage(Exception):
    """What arrived is no message of this wire, or another one than is expected."""


def frame(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload


def read_frame(data: bytes | bytearray, limit: int = MAX_FRAME) -> bytes | None:
    """The payload in what has arrived, once it is complete.

    Raises:
        BadMessage: It is larger than that.
    """
    if len(data) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack_from(data)
    if size > limit:
        raise BadMessage(f"frame too large: {size} > {limit}")
    end = LENGTH.size + size
    return bytes(data[LENGTH.size : end]) if len(data) >= end else None


def request(codec: Codec, call: Call) -> bytes:
    # In the order of the node's own messages.
    return frame(
        codec.encode(
            {
                "type": "request",
                "id": call.id,
                "endpoint": call.endpoint,
                "args": call.args,
                "kwargs": call.kwargs,
            }
        )
    )


def read_request(codec: Codec, payload: bytes) -> Call:
    """The call in a request.

    Raises:
        BadMessage: It is none.
    """
    message = _message(codec, payload)
    kind = message.get("type", "request")
    if kind == "response":
        raise BadMessage("expected request message")
    if kind != "request":
        raise BadMessage(f"unknown RPC message type: {kind}")
    _refuse_unknown(message, _REQUEST, "request")
    if "endpoint" not in message:
        raise BadMessage("'endpoint'")
    endpoint, args, kwargs = message["endpoint"], message.get("args", []), message.get("kwargs", {})
    if not (isinstance(endpoint, str) and isinstance(args, list) and isinstance(kwargs, dict)):
        raise BadMessage("`endpoint` is a text, `args` a list and `kwargs` a map")
    if not all(isinstance(key, str) for key in kwargs):
        raise BadMessage("the keys of `kwargs` are texts")
    return Call(str(message.get("id", "")), endpoint, args, kwargs)


def answer(codec: Codec, id: str, result: Any) -> bytes:
    return _response(codec, id, result=result)


def failure(codec: Codec, id: str, code: str, message: str) -> bytes:
    return _response(codec, id, error={"code": code, "message": message})


def _response(codec: Codec, id: str, result: Any = None, error: Any = None) -> bytes:
    return frame(
        codec.encode(
            {"id": id, "ok": error is None, "result": result, "error": error, "type": "response"}
        )
    )


def read_response(codec: Codec, payload: bytes, id: str) -> tuple[bool, Any, str, str]:
    """Whether it went well, the result, and the code and the message of the error.

    Raises:
        BadMessage: It is no response, or that to another request.
    """
    message = _message(codec, payload)
    if message.get("type") != "response":
        raise BadMessage("node returned a non-response message")
    _refuse_unknown(message, _RESPONSE, "response")
    ok, error = message.get("ok"), message.get("error")
    if not isinstance(ok, bool):
        raise BadMessage("a response that does not say whether it is `ok`")
    # What cannot be read has no id.
    if message.get("id") not in (id, ""):
        raise BadMessage(f"a response to another request: {message.get('id')!r}")
    if not isinstance(error, dict):
        error = {}
    code, text = error.get("code"), error.get("message")
    return (
        ok,
        message.get("result"),
        code if isinstance(code, str) else "",
        text if isinstance(text, str) else "RPC call failed",
    )


def _message(codec: Codec, payload: bytes) -> dict[str, Any]:
    try:
        message = codec.decode(payload)
    except DecodeIssue as issue:
        raise BadMessage(str(issue)) from None
    if not isinstance(message, dict):
        raise BadMessage("payload must be a map")
    return message


def _refuse_unknown(message: dict[str, Any], known: frozenset[str], what: str) -> None:
    unknown = sorted(map(str, message.keys() - known))
    if unknown:
        raise BadMessage(f"unknown {what} fields: {unknown}")
