"""One connection to a thread of the server: frames, and one command at a time."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from synapse._frames import Frame, FrameReader, ProtocolBroken, make_frame
from synapse.javascript._errors import NodeError, NodeUnresponsive, to_error

RUN: Final = 1
OK: Final = 2
EXCEPTION: Final = 3
MESSAGE: Final = 4
ANSWER: Final = 5
ANSWER_FAILED: Final = 6
CANCEL: Final = 7
HELLO: Final = 8
STATS: Final = 9
RESET: Final = 10
PING: Final = 11
PONG: Final = 12

#: Seconds within which a server that works ends a command that is cancelled.
GRACE: Final = 2.0
#: Seconds without a word after which the server is asked whether it is there.
_SILENCE: Final = 0.5
_SIZE: Final = struct.Struct("<I")


class Lost(Exception):
    """The server is gone, or not to be trusted any more."""


class _Late(Exception):
    """Nothing arrived in time."""


@dataclass
class Command:
    """What is run, and within which limits; seconds, and `None` for none."""

    source: str
    param: bytes
    #: Whether values are plain JSON (`json`), or with what JSON has no words for (`values`).
    format: str
    #: Takes the JSON of a message and returns that of the answer.
    handler: Callable[[bytes], bytes] | None
    #: For JavaScript's running.
    limit: float | None
    #: For the answer to a message.
    message_limit: float | None
    #: For all of it, as the client sees it.
    total: float | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._at: tuple[Connection, int] | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        """Stop it, from any thread: `run` ends with a `JavaScriptError` of the kind `cancelled`."""
        with self._lock:
            self.is_cancelled = True
            if self._at is not None:
                connection, id = self._at
                with contextlib.suppress(Lost):
                    connection.send(CANCEL, id)

    def begin(self, connection: Connection, id: int) -> bool:
        """Whether it is still wanted."""
        with self._lock:
            self._at = (connection, id)
            return not self.is_cancelled

    def end(self) -> None:
        with self._lock:
            self._at = None


class Connection:
    """Used by one thread at a time, but for `send`."""

    def __init__(self, connected: socket.socket, index: int, max_frame_size: int) -> None:
        self.index = index
        self._socket = connected
        # Some of a frame is its header and its meta.
        self._room = max_frame_size - 1024
        self._reader = FrameReader(max_frame_size)
        self._frames: deque[Frame] = deque()
        self._sending = threading.Lock()

    def close(self) -> None:
        """Wakes up whoever waits on it, too."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def is_open(self) -> bool:
        """Whether the other side is there; only for a connection at rest."""
        try:
            self._socket.setblocking(False)
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def send(
        self, kind: int, id: int, payload: bytes = b"", meta: dict[str, Any] | None = None
    ) -> None:
        frame = make_frame(kind, id, payload, json.dumps(meta).encode() if meta else b"")
        try:
            with self._sending:
                self._socket.sendall(frame)
        except OSError as error:
            raise Lost(str(error)) from None

    def ask(self, kind: int, id: int) -> bytes:
        """What is answered to a question that runs no JavaScript."""
        self._socket.settimeout(None)
        self.send(kind, id)
        got, answered, _, payload = self._receive_living(None, _patience(None))
        if got != OK or answered != id:
            raise Lost(f"a frame of the kind {got}, where {kind} was asked")
        return bytes(payload)

    def run(self, id: int, command: Command) -> bytes:
        """The JSON of the command's value.

        Raises:
            JavaScriptError: What it threw, or why it was stopped.
            NodeUnresponsive: It did not end in time, and was stopped.
            Lost: The server is gone.
            Exception: What the handler of messages raised.
        """
        source = command.source.encode()
        payload = b"".join((_SIZE.pack(len(source)), source, command.param))
        if len(payload) > self._room:
            raise NodeError(
                f"a command of {len(payload)} bytes, where at most {self._room} are taken:"
                " raise max_frame_size, or pass the path of a file"
            )
        end = None if command.total is None else time.monotonic() + command.total
        meta = {
            "format": command.format,
            "limit": to_millis(command.limit),
            "messageLimit": to_millis(command.message_limit),
        }
        try:
            self._socket.settimeout(None)
            self.send(RUN, id, payload, meta)
            if not command.begin(self, id):
                self.send(CANCEL, id)
            return self._follow(id, command, end)
        except _Late:
            self._abandon(id)
            raise NodeUnresponsive(
                f"no answer within {command.total} s: the call was stopped"
            ) from None
        except Exception:
            raise
        except BaseException:
            self._abandon(id)
            raise
        finally:
            command.end()

    def _follow(self, id: int, command: Command, end: float | None) -> bytes:
        failure: Exception | None = None
        patience = _patience(command.limit)
        while True:
            kind, answered, meta, payload = self._receive_living(end, patience)
            if answered != id:
                raise Lost(f"an answer to {answered}, where {id} was asked")
            if kind == OK:
                return bytes(payload)
            if kind == EXCEPTION:
                error = to_error(bytes(payload).decode())
                if failure is not None and error.kind == "answer":
                    raise failure
                raise error from failure
            if kind != MESSAGE:
                raise Lost(f"a frame of the unknown kind {kind}")
            number = json.loads(meta)
            # What is left of the time to receive is none to send in.
            self._socket.settimeout(patience)
            try:
                if command.handler is None:
                    raise NodeError("JavaScript sent a message, and there is no message_handler")
                answer = command.handler(bytes(payload))
                if len(answer) > self._room:
                    raise NodeError(f"an answer of {len(answer)} bytes: {self._room} fit")
            except Exception as error:
                failure = error
                self.send(ANSWER_FAILED, id, b"", number)
            else:
                failure = None
                self.send(ANSWER, id, answer, number)

    def _receive_living(self, end: float | None, patience: float) -> Frame:
        """The next frame, however long it takes, as long as the server answers pings."""
        while True:
            try:
                return self._receive(_earlier(end, time.monotonic() + _SILENCE))
            except _Late:
                if end is not None and time.monotonic() >= end:
                    raise
            self.send(PING, 0)
            try:
                frame = self._receive(_earlier(end, time.monotonic() + patience))
            except _Late:
                if end is not None and time.monotonic() >= end:
                    raise
                raise Lost(f"it has not answered for {_SILENCE + patience} s") from None
            if frame[0] != PONG:
                return frame

    def _abandon(self, id: int) -> None:
        """Stop the command and wait for its end, so that the next one finds the thread free."""
        self._socket.settimeout(GRACE)
        self.send(CANCEL, id)
        try:
            while True:
                kind, answered, *_ = self._receive(time.monotonic() + GRACE)
                if answered == id and kind in (OK, EXCEPTION):
                    return
        except _Late:
            raise Lost("it does not stop what it runs") from None

    def _receive(self, end: float | None) -> Frame:
        while not self._frames:
            left = None if end is None else max(0.001, end - time.monotonic())
            try:
                self._socket.settimeout(left)
                frames = self._reader.read(self._socket.recv_into)
            except TimeoutError:
                raise _Late from None
            except (OSError, ProtocolBroken) as error:
                raise Lost(str(error)) from None
            if frames is None:
                raise Lost("the connection is closed")
            self._frames.extend(frames)
        return self._frames.popleft()


def _patience(limit: float | None) -> float:
    """How long the server may take to answer a ping: all in all ten times what JavaScript may run,
    within reason.
    """
    return 10.0 if limit is None else min(10.0, max(2.0, 10 * limit - _SILENCE))


def to_millis(seconds: float | None) -> int:
    """Seconds as the server takes them: at least one millisecond, and 0 for no limit."""
    return 0 if seconds is None else max(1, round(seconds * 1000))


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
