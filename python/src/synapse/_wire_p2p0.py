"""The wire of synapse-p2p 0.0.x: one map, the text of an answer, and the end of the connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from synapse import _codec
from synapse._codec import Codec, DecodeIssue

#: What a node says of a request that is none, or names no endpoint of its own.
BAD_REQUEST: Final = b"400"
#: Nodes read so many bytes, once.
MAX_REQUEST: Final = 4096
_FIELDS: Final = frozenset(("endpoint", "args"))


@dataclass
class RemoteProcedureCall:
    """A call of an endpoint, as it was made: what an endpoint is given as `rpc`.

    Example:
        >>> import synapse
        >>> synapse.RemoteProcedureCall(endpoint="sum", args=[1, 2]).encode().hex()
        '82a8656e64706f696e74a373756da461726773920102'
    """

    endpoint: str
    args: list[Any] = field(default_factory=list)

    def encode(self) -> bytes:
        """The bytes that a node of synapse-p2p 0.0.x takes."""
        return _codec.choose().encode({"endpoint": self.endpoint, "args": self.args})


class Refused(Exception):
    """A request that is none; what it holds is the answer."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self.answer = answer


class Reader:
    """Gathers a request, which says nowhere how long it is."""

    def __init__(self, codec: Codec, limit: int) -> None:
        self._codec = codec
        self._limit = limit
        self._data = bytearray()
        # Where the next value begins, and how many there still are.
        self._position = 0
        self._values = 1

    @property
    def is_empty(self) -> bool:
        return not self._data

    def feed(self, piece: bytes) -> RemoteProcedureCall | None:
        """The request, once it is complete.

        Raises:
            Refused: It is none.
        """
        self._data += piece
        self._scan()
        if self._values == 0 and len(self._data) > self._position:
            raise Refused(bad_request("more than one request: a connection has one"))
        if self._values == 0 and len(self._data) == self._position:
            return _to_call(self._codec, bytes(self._data))
        if max(len(self._data), self._position) > self._limit:
            raise Refused(bad_request(f"a request of more than {self._limit} bytes"))
        return None

    def _scan(self) -> None:
        data, position = self._data, self._position
        while self._values and position < len(data):
            size, values = _head(data, position)
            if size == 0:
                break
            position += size
            self._values += values - 1
        self._position = position


def _head(data: bytearray, position: int) -> tuple[int, int]:
    """How long the value that begins there is, without those in it, and how many are in it; 0 where
    that is not there yet.
    """
    code = data[position]
    if code < 0x80 or code >= 0xE0:
        return 1, 0
    if code < 0x90:
        return 1, 2 * (code & 0x0F)
    if code < 0xA0:
        return 1, code & 0x0F
    if code < 0xC0:
        return 1 + (code & 0x1F), 0
    if code in _FIXED:
        return _FIXED[code], 0
    if code not in _COUNTED:
        raise Refused(bad_request(f"the byte 0x{code:02x} starts no value"))
    width, extra, values = _COUNTED[code]
    start = position + 1
    if start + width > len(data):
        return 0, 0
    count = int.from_bytes(data[start : start + width], "big")
    return (1 + width, values * count) if values else (1 + width + extra + count, 0)


_FIXED: Final = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 1),
    **{0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9},
    **{0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18},
}
# By the first byte: how many bytes count, what is there beside what they count, and how many values
# each stands for, where these are values.
_COUNTED: Final = {
    **{0xC4: (1, 0, 0), 0xC5: (2, 0, 0), 0xC6: (4, 0, 0)},
    **{0xC7: (1, 1, 0), 0xC8: (2, 1, 0), 0xC9: (4, 1, 0)},
    **{0xD9: (1, 0, 0), 0xDA: (2, 0, 0), 0xDB: (4, 0, 0)},
    **{0xDC: (2, 0, 1), 0xDD: (4, 0, 1), 0xDE: (2, 0, 2), 0xDF: (4, 0, 2)},
}


def _to_call(codec: Codec, data: bytes) -> RemoteProcedureCall:
    try:
        request = codec.decode(data)
    except DecodeIssue as issue:
        raise Refused(bad_request(str(issue))) from None
    if not isinstance(request, dict) or request.keys() - _FIELDS:
        raise Refused(BAD_REQUEST)
    endpoint, args = request.get("endpoint"), request.get("args")
    if not isinstance(endpoint, str):
        raise Refused(BAD_REQUEST)
    if args is not None and not isinstance(args, list):
        raise Refused(bad_request("`args` is a list"))
    return RemoteProcedureCall(endpoint, args or [])


def bad_request(why: str) -> bytes:
    return f"400 {why}".encode("utf-8", "backslashreplace")


def failed(why: str) -> bytes:
    return f"500 {why}".encode("utf-8", "backslashreplace")
