"""From a `Request` frame to a call, or to the answer that refuses it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from synapse._answers import Answers
from synapse._calls import Call, make_call
from synapse._channel import Channel
from synapse._codec import Codec, DecodeIssue
from synapse._frames import ProtocolBroken
from synapse._handlers import Handler
from synapse._objects import Holding, Objects, Remote
from synapse._outgoing import OutStream
from synapse._progress import Progress

EVALUATE: Final = "$evaluate"
CODE_NOT_ALLOWED: Final = (
    "this worker runs no code that it is sent: set `evaluate: true` in the options of the layer"
)
_MAX_ROUTES: Final = 4096
_MAX_NEAREST: Final = 3
_MAX_NAMES: Final = 5
# Far longer than it takes.
_ENDING_SECONDS: Final = 1.0


class Requests:
    """Accepts requests into the table of open calls."""

    __slots__ = (
        "_answers",
        "_calls",
        "_channel",
        "_codec",
        "_handlers",
        "_objects",
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
        channel: Channel,
        objects: Objects,
    ) -> None:
        self._objects = objects
        self._handlers = handlers
        self._codec = codec
        self._answers = answers
        self._calls = calls
        self._channel = channel
        # Meta that says nothing but the method and how long it may take: mostly the same bytes.
        self._routes: dict[bytes, tuple[Handler, float | None]] = {}
        self.max_open_calls = 1
        # Where the host allows it.
        self.evaluate: Handler | None = None

    def accept(
        self, id: int, meta: bytes, payload: bytearray | memoryview, draining: bool
    ) -> Call | None:
        """The call, which is open from now on, or `None` where it has been refused.

        Raises:
            ProtocolBroken: The meta is not a request's, or the number belongs to a call that is
            open.
        """
        calls = self._calls
        if id in calls:
            self._await_end(id)
        route = self._routes.get(meta)
        if route is not None and not draining and len(calls) < self.max_open_calls:
            handler, seconds = route
            call = calls[id] = make_call(id, handler, payload)
            if seconds is not None:
                call.deadline = time.monotonic() + seconds
            return call
        accepted = self._accept_parsed(id, meta, payload, draining)
        if isinstance(accepted, Call):
            return accepted
        self._channel.post(accepted)
        return None

    @property
    def _is_full(self) -> bool:
        if len(self._calls) < self.max_open_calls:
            return False
        # Those that have been answered are about to be taken out.
        open_calls = sum(not call.answered for call in list(self._calls.values()))
        return open_calls >= self.max_open_calls

    def _await_end(self, id: int) -> None:
        """Let the thread that has just answered a call take it out: the host may use the number
        again at once.
        """
        until = time.monotonic() + _ENDING_SECONDS
        while (call := self._calls.get(id)) is not None:
            if not call.answered or time.monotonic() > until:
                raise ProtocolBroken(f"a second Request with the id {id} of an open call")
            time.sleep(0)

    def _accept_parsed(
        self, id: int, data: bytes, payload: bytearray | memoryview, draining: bool
    ) -> Call | bytes:
        answers = self._answers
        meta = self._parse(data)
        method = meta["method"]
        if draining:
            return answers.die(id, "Closed", None, rejected=True)
        # What a call in here waits for has to run.
        is_nested = meta.get("parent") in self._calls
        if self._is_full and not is_nested:
            return answers.die(id, "Overloaded", {"capacity": self.max_open_calls}, rejected=True)
        handler = self._find(id, method, meta)
        if not isinstance(handler, Handler):
            return handler
        granted = meta.get("stream")
        if handler.is_stream != (granted is not None):
            return answers.unsupported(id, _other_way(handler))
        if meta.get("hold"):
            if granted is not None:
                return answers.unsupported(id, f"`{method}` streams: a stream cannot be acquired")
            handler = Holding(self._objects, handler)
        call = make_call(id, handler, payload)
        deadline = meta.get("deadline")
        if deadline is not None:
            call.deadline = time.monotonic() + deadline / 1000
        if meta.keys() <= _ROUTED:
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[data] = (handler, None if deadline is None else deadline / 1000)
        else:
            self._add(call, meta, granted)
        if isinstance(handler, Remote):
            handler.begin()
        self._calls[id] = call
        return call

    def _find(self, id: int, method: str, meta: dict[str, Any]) -> Handler | bytes:
        target = meta.get("target")
        found: Handler | str | list[str] | None
        if target is not None:
            found = self._objects.find(target, method, get=meta.get("get", False))
        elif method == EVALUATE:
            found = self.evaluate or CODE_NOT_ALLOWED
        else:
            found = self._handlers.get(method) or self._nearest(method)
        if isinstance(found, Handler):
            return found
        if isinstance(found, str):
            return self._answers.unsupported(id, found)
        details = {"method": method, "nearest": found}
        return self._answers.die(id, "MethodNotFound", details, rejected=True)

    def _add(self, call: Call, meta: dict[str, Any], granted: int | None) -> None:
        """What few requests ask for."""
        extras = call.extend()
        extras.meta = meta
        extras.trace = meta.get("trace")
        extras.headers = meta.get("headers")
        extras.parent = self._calls.get(meta.get("parent", -1))
        size = self._answers.max_frame_size
        if granted is not None:
            extras.stream = OutStream(call.id, granted, size, self._channel.post)
            extras.stream.on_loop = call.handler.is_async
        if meta.get("progress"):
            extras.progress = progress = Progress(self._channel, self._codec, size, call)
            call.at_end(progress.close)
            if call.deadline is not None and meta.get("ceiling") is not None:
                # Both are counted from the arrival of the call: one reading of the clock.
                later = (meta["ceiling"] - meta["deadline"]) / 1000
                progress.extend(meta["deadline"] / 1000, call.deadline + later)

    def _parse(self, data: bytes) -> dict[str, Any]:
        try:
            meta = self._codec.decode(data)
        except DecodeIssue as error:
            raise ProtocolBroken(f"meta that does not decode: {error}") from None
        if not isinstance(meta, dict) or not isinstance(meta.get("method"), str):
            raise ProtocolBroken("a Request without a method")
        for key, kinds in FIELDS.items():
            if key in meta and meta[key] is None:
                del meta[key]
            value = meta.get(key)
            fits = isinstance(value, kinds) and isinstance(value, bool) == (kinds is bool)
            if value is not None and not fits:
                raise ProtocolBroken(f"a Request whose `{key}` is a {type(value).__name__}")
        if meta.get("stream", 1) < 1:
            raise ProtocolBroken("a Request for a stream of no items")
        headers = meta.get("headers", {})
        if not all(isinstance(each, str) for pair in headers.items() for each in pair):
            raise ProtocolBroken("a Request whose `headers` are not text")
        return meta

    def _nearest(self, method: str) -> list[str]:
        import difflib

        names = sorted(each for each in self._handlers if not each.startswith("$"))
        return difflib.get_close_matches(method, names, _MAX_NEAREST) or names[:_MAX_NAMES]


def _other_way(handler: Handler) -> str:
    if handler.is_stream:
        return f"`{handler.name}` streams its values: call it with `Synapse.stream`"
    return f"`{handler.name}` returns one value and does not stream: call it with `Synapse.call`"


_ROUTED: Final = frozenset(("method", "deadline"))
FIELDS: Final[dict[str, Any]] = {
    "deadline": (int, float),
    "trace": str,
    "headers": dict,
    "stream": int,
    "progress": bool,
    "ceiling": (int, float),
    "parent": int,
    "hold": bool,
    "target": int,
    "get": bool,
}
