"""From a `Request` frame to a call, or to the answer that refuses it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from synapse._answers import Answers
from synapse._calls import Call
from synapse._codec import Codec, DecodeIssue
from synapse._frames import ProtocolBroken
from synapse._handlers import Handler

EVALUATE: Final = "$evaluate"
CODE_NOT_ALLOWED: Final = (
    "this worker runs no code that it is sent: set `evaluate: true` in the options of the layer"
)
_MAX_ROUTES: Final = 4096
_MAX_NEAREST: Final = 3
_MAX_NAMES: Final = 5


class Requests:
    """Accepts requests into the table of open calls."""

    __slots__ = (
        "_answers",
        "_calls",
        "_codec",
        "_handlers",
        "_routes",
        "evaluate",
        "max_open_calls",
    )

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        codec: Codec,
        answers: Answers,
        calls: dict[int, Call],
    ) -> None:
        self._handlers = handlers
        self._codec = codec
        self._answers = answers
        self._calls = calls
        # Meta that says nothing but the method: the same bytes each time.
        self._routes: dict[bytes, Handler] = {}
        self.max_open_calls = 1
        # Where the host allows it.
        self.evaluate: Handler | None = None

    def accept(
        self, id: int, meta: bytes, payload: bytearray | memoryview, draining: bool
    ) -> Call | bytes:
        """The call, which is open from now on, or the frame that refuses it.

        Raises:
            ProtocolBroken: The meta is not a request's, or the number belongs to a call that is
            open.
        """
        if id in self._calls:
            raise ProtocolBroken(f"a second Request with the id {id} of an open call")
        handler = self._routes.get(meta)
        if handler is not None and not draining and len(self._calls) < self.max_open_calls:
            call = self._calls[id] = Call(id, handler, payload)
            return call
        return self._accept_parsed(id, meta, payload, draining)

    def _accept_parsed(
        self, id: int, data: bytes, payload: bytearray | memoryview, draining: bool
    ) -> Call | bytes:
        answers = self._answers
        meta = self._parse(data)
        method = meta["method"]
        if draining:
            return answers.die(id, "Closed", None, rejected=True)
        if len(self._calls) >= self.max_open_calls:
            return answers.die(id, "Overloaded", {"capacity": self.max_open_calls}, rejected=True)
        handler = self.evaluate if method == EVALUATE else self._handlers.get(method)
        if handler is None and method == EVALUATE:
            return answers.die(id, "Unsupported", {"detail": CODE_NOT_ALLOWED}, rejected=True)
        if handler is None:
            details = {"method": method, "nearest": self._nearest(method)}
            return answers.die(id, "MethodNotFound", details, rejected=True)
        if handler.is_stream:
            issue = f"`{method}` is a generator: it streams, and this call wants one value"
            return answers.encode_failed(id, "$", issue, rejected=True)
        call = Call(id, handler, payload)
        deadline = meta.get("deadline")
        if deadline is not None:
            call.deadline = time.monotonic() + deadline / 1000
        call.trace = meta.get("trace")
        call.headers = meta.get("headers")
        if len(meta) == 1 and len(self._routes) < _MAX_ROUTES:
            self._routes[data] = handler
        self._calls[id] = call
        return call

    def _parse(self, data: bytes) -> dict[str, Any]:
        try:
            meta = self._codec.decode(data)
        except DecodeIssue as error:
            raise ProtocolBroken(f"meta that does not decode: {error}") from None
        if not isinstance(meta, dict) or not isinstance(meta.get("method"), str):
            raise ProtocolBroken("a Request without a method")
        for key, kinds in _FIELDS.items():
            if key in meta and meta[key] is None:
                del meta[key]
            value = meta.get(key)
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise ProtocolBroken(f"a Request whose `{key}` is a {type(value).__name__}")
        headers = meta.get("headers", {})
        if not all(isinstance(each, str) for pair in headers.items() for each in pair):
            raise ProtocolBroken("a Request whose `headers` are not text")
        return meta

    def _nearest(self, method: str) -> list[str]:
        import difflib

        names = sorted(self._handlers)
        return difflib.get_close_matches(method, names, _MAX_NEAREST) or names[:_MAX_NAMES]


_FIELDS: Final[dict[str, Any]] = {
    "deadline": (int, float),
    "trace": str,
    "headers": dict,
    "stream": int,
}
