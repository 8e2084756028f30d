"""The frames that end a call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from synapse import _frames
from synapse._codec import Codec, DecodeIssue, Encode, encode_parts
from synapse._declared import Error, to_fields
from synapse._encode import EncodeIssue, why_not
from synapse._errors import describe
from synapse._failures import DeadlinePassed, HostError
from synapse._frames import (
    DIE,
    FAIL,
    FIXED_SIZE,
    HEADER,
    INTERRUPTED,
    LENGTH_SIZE,
    SUCCESS,
    Outgoing,
    Shipped,
    make_frame,
    make_referring,
    pack_header,
)
from synapse._handle import Handle, NotHeld
from synapse._handlers import Handler
from synapse._incoming import ItemIssue

if TYPE_CHECKING:
    from synapse._sharing import Sharing

# Types of values that are never written in place, so that most answers skip the question.
_JOINED: Final = frozenset({dict, list, tuple, str, int, float, bool, type(None)})


class ItemRefused(Exception):
    """An item that cannot be sent, and the answer that ends its stream."""

    def __init__(self, answer: Outgoing) -> None:
        super().__init__()
        self.answer = answer


class Made:
    """What a handler of the runtime returns to give the answer itself."""

    __slots__ = ("frame",)

    def __init__(self, frame: Callable[[Answers, int], Outgoing]) -> None:
        self.frame = frame


class Answers:
    """Makes answers, none above the size that the host takes."""

    __slots__ = (
        "_encode",
        "_encode_item",
        "_encode_value",
        "_item_large_from",
        "_large_from",
        "_meta",
        "_open",
        "_sharing",
        "_try_value",
        "_walk_value",
        "drop",
        "max_frame_size",
    )

    def __init__(self, codec: Codec) -> None:
        self._encode: Encode = codec.encode
        self._encode_value: Encode = codec.encode
        self._try_value: Encode = codec.trying(lambda _value: None)
        self._walk_value: Encode = codec.walking(lambda _value: None)
        self._encode_item: Encode = codec.encode
        self._sharing: Sharing | None = None
        # What was put into shared memory by whoever encodes a value at the moment.
        self._open: dict[int, Any] = {}
        self._meta = functools.lru_cache(maxsize=32)(self._encode_meta)
        self.limit(_frames.DEFAULT_MAX_FRAME_SIZE)
        # Lets go of an object that nobody asked to hold.
        self.drop: Callable[[Handle[Any]], None] = lambda _handle: None

    def limit(self, max_frame_size: int) -> None:
        """Answer in frames of that size at most."""
        self.max_frame_size = max_frame_size
        # Above, there is more to ask than whether the answer has been encoded.
        self._large_from = max_frame_size
        self._item_large_from = max_frame_size - FIXED_SIZE - 1

    def share(self, sharing: Sharing) -> None:
        """Put what is large into shared memory; after `limit`."""
        self._sharing = sharing
        self._open = sharing.open
        self._encode_value = sharing.encode_value
        self._try_value = sharing.try_value
        self._walk_value = sharing.walk_value
        self._encode_item = sharing.encode_copied
        self._large_from = min(self._large_from, FIXED_SIZE + sharing.threshold - 1)
        self._item_large_from = min(self._item_large_from, sharing.threshold - 1)

    @property
    def sharing(self) -> Sharing | None:
        """What puts values into shared memory, where there is any."""
        return self._sharing

    def success(self, id: int, value: Any) -> Outgoing:
        try:
            if type(value) not in _JOINED:
                if issubclass(type(value), (Handle, NotHeld)):
                    return self._not_held(id, value)
                if type(value) is Made:
                    return value.frame(self, id)
                return self._framed(SUCCESS, id, self._in_parts(value))
            try:
                payload = self._try_value(value)
            except Exception:
                payload = self._walk_value(value)
            length = FIXED_SIZE + len(payload)
            if length > self._large_from or self._open:
                return self._framed(SUCCESS, id, self._complete(value, payload))
            return pack_header(length, SUCCESS, 0, 0, id) + payload
        except BaseException as error:
            return self._not_encoded(id, value, error, "$")

    def _in_parts(self, value: Any) -> bytes | tuple[Any, ...]:
        """An encoded value that may be large, or anything."""
        if self._sharing is not None:
            alone = self._sharing.alone_value(value)
            if alone is not None:
                return alone
        parts = encode_parts(self._encode_value, value)
        return self._complete(value, parts) if isinstance(parts, bytes) else parts

    def _complete(self, value: Any, payload: bytes) -> bytes:
        if self._sharing is None:
            return payload
        return self._sharing.complete(value, payload, self._encode_value)

    def _not_encoded(self, id: int, value: Any, error: BaseException, path: str) -> Outgoing:
        """The answer in place of a value, or an item, that cannot be carried."""
        if self._sharing is not None:
            self._sharing.drop()
        if isinstance(error, EncodeIssue):
            return self.encode_failed(id, f"{path}{error.path[1:]}", error.issue)
        if isinstance(error, Exception):
            return self.encode_failed(id, path, why_not(value, error))
        return self.exception(id, error)

    def item(self, id: int, index: int, value: Any, largest: int) -> bytes:
        """An item of a stream.

        Raises:
            ItemRefused: It cannot be carried, or is larger than that.
        """
        try:
            item = self._encode_item(value)
            if len(item) <= self._item_large_from and not self._open:
                return item
            if self._sharing is not None:
                item = self._sharing.complete(value, item, self._encode_item)
        except BaseException as error:
            raise ItemRefused(self._not_encoded(id, value, error, f"$[{index}]")) from None
        length = len(item) + (len(item.shipment.table) if isinstance(item, Shipped) else 0)
        if length > largest:
            size = self.max_frame_size + length - largest
            raise ItemRefused(self._too_large(id, size))
        return item

    def _not_held(self, id: int, value: Handle[Any] | NotHeld) -> bytes:
        if isinstance(value, NotHeld):
            detail = value.detail
        else:
            self.drop(value)
            detail = "it returned a synapse.Handle: call it with `Synapse.acquire`"
        return self.die(id, "Unsupported", {"detail": detail}, rejected=False)

    def failure(self, id: int, handler: Handler, error: BaseException) -> Outgoing:
        """What a handler raised: a declared error, or an exception."""
        try:
            # An exception may do anything in its methods, also when it is asked for its class.
            if isinstance(error, ItemIssue):
                return self.die(id, "DecodeFailed", _details(error), rejected=False)
            if isinstance(error, DeadlinePassed):
                return self.interrupted(id)
            if isinstance(error, HostError) and error._payload is not None:
                return self._framed(FAIL, id, error._payload)
            if not isinstance(error, Error):
                return self.exception(id, error)
            if not isinstance(error, handler.raises):
                return self._undeclared(id, handler, error)
            return self._framed(FAIL, id, self._encode(to_fields(error)))
        except EncodeIssue as issue:
            return self.encode_failed(id, issue.path, issue.issue)
        except BaseException:
            return self.exception(id, error)

    def _undeclared(self, id: int, handler: Handler, error: Error) -> Outgoing:
        described = describe(error)
        name = type(error).__name__
        note = (
            f"handler `{handler.name}` does not declare `{name}`: "
            f"with raises=[{name}] it travels as a value"
        )
        described["notes"] = [*described.get("notes", ()), note]
        return self._framed(DIE, id, self._encode(described))

    def exception(self, id: int, error: BaseException) -> Outgoing:
        """An exception; never raises, since the call would go without an answer."""
        try:
            return self._framed(DIE, id, self._encode(describe(error)))
        except BaseException as failure:
            described = {
                "type": ascii(type(error).__name__)[1:-1],
                "module": "builtins",
                "message": f"<not described: {ascii(type(failure).__name__)[1:-1]}>",
                "frames": [],
            }
            return self._framed(DIE, id, self._encode(described))

    def encoded(self, id: int, payload: bytes) -> Outgoing:
        """A value that has been encoded elsewhere."""
        return self._framed(SUCCESS, id, payload)

    def failed(self, id: int, error: Any) -> Outgoing:
        """A declared failure that is any value."""
        try:
            return self._framed(FAIL, id, self._encode(error))
        except EncodeIssue as issue:
            return self.encode_failed(id, issue.path, issue.issue)

    def protocol_broken(self, id: int, detail: str) -> bytes:
        return self.die(id, "ProtocolError", {"detail": _clean(detail)}, rejected=False)

    def interrupted(self, id: int) -> bytes:
        return make_frame(INTERRUPTED, id)

    def encode_failed(self, id: int, path: str, issue: str, *, rejected: bool = False) -> bytes:
        details = {"path": _clean(path), "issue": _clean(issue)}
        return self.die(id, "EncodeFailed", details, rejected=rejected)

    def decode_failed(self, id: int, issue: DecodeIssue) -> bytes:
        return self.die(id, "DecodeFailed", _details(issue), rejected=True)

    def unsupported(self, id: int, detail: str) -> bytes:
        return self.die(id, "Unsupported", {"detail": detail}, rejected=True)

    def closed(self, id: int) -> bytes:
        return self.die(id, "Closed", None, rejected=True)

    def recalled(self, id: int) -> bytes:
        return self.die(id, "Recalled", None, rejected=True)

    def die(self, id: int, reason: str, details: Any, *, rejected: bool) -> bytes:
        meta = self._meta(reason, rejected)
        return make_frame(DIE, id, self._encode(details), meta)

    def _encode_meta(self, reason: str, rejected: bool) -> bytes:
        meta = {"reason": reason}
        return self._encode({**meta, "delivery": "rejected"} if rejected else meta)

    def _framed(self, kind: int, id: int, payload: bytes | tuple[Any, ...]) -> Outgoing:
        if isinstance(payload, Shipped):
            frame = make_referring(kind, id, payload)
            length = len(frame[0]) - LENGTH_SIZE
            return self._too_large(id, length) if length > self.max_frame_size else frame
        parts = (payload,) if isinstance(payload, bytes) else payload
        length = FIXED_SIZE + sum(map(len, parts))
        if length > self.max_frame_size:
            return self._too_large(id, length)
        header = HEADER.pack(length, kind, 0, 0, id)
        return header + payload if isinstance(payload, bytes) else (header + parts[0], *parts[1:])

    def _too_large(self, id: int, size: int) -> bytes:
        limit = self.max_frame_size
        return self.die(id, "FrameTooLarge", {"size": size, "limit": limit}, rejected=False)


def _details(issue: DecodeIssue) -> dict[str, str]:
    return {"path": _clean(issue.path), "issue": _clean(issue.issue)}


def _clean(text: str) -> str:
    return text[:4096].encode("utf-8", "backslashreplace").decode()
