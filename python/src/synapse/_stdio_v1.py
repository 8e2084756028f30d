"""The protocol `stdio-v1` of a script: MessagePack behind its length, one call at a time.

Calls arrive on standard input and replies leave through `sys.stdout.buffer`, each a value in
MessagePack behind four bytes with its length, the least of them first. Nothing says which call a
reply is for: it is for the one that runs.
"""

from __future__ import annotations

import codecs
import io
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from synapse import _replace
from synapse._answers import Answers, Made
from synapse._codec import Codec, DecodeIssue
from synapse._frames import Outgoing
from synapse._handlers import Handler
from synapse._logs import LogStream, Output
from synapse._script import Stdin

_LENGTH: Final = 4
# Four bytes of text make a larger number than that: the least character of a text is the tab.
_MAX_REPLY: Final = 0x0900_0000 - 1
_SHOWN: Final = 60
_NIL: Final = b"\xc0"
_ERROR: Final = "[ERROR"
# How MessagePack says the key of a map that makes a reply an error.
_KEY: Final = b"error"


class Reply(NamedTuple):
    """A value in MessagePack."""

    payload: bytes


class Text(NamedTuple):
    """What is no reply, as it can be shown."""

    text: str


class Unframed(NamedTuple):
    """What is neither: where the next reply begins is not known any more."""

    data: bytes


class Splitter:
    """Finds replies in what a script writes, in whichever pieces it does."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: Any) -> list[Reply | Text | Unframed]:
        found: list[Reply | Text | Unframed] = []
        pending = self._pending
        if 0 < len(pending) < _LENGTH and _is_whole(data):
            # Else it would be taken for the beginning of a length.
            text = _text_of(pending)
            if text is not None:
                found.append(Text(text))
                pending.clear()
        pending += data
        while len(pending) >= _LENGTH:
            end = _LENGTH + int.from_bytes(pending[:_LENGTH], "little")
            if end <= _LENGTH + _MAX_REPLY:
                if len(pending) < end:
                    break
                found.append(Reply(bytes(pending[_LENGTH:end])))
            else:
                end = pending.find(b"\n") + 1 or len(pending)
                text = _text_of(pending[:end])
                if text is None:
                    found.append(Unframed(bytes(pending)))
                    pending.clear()
                    break
                found.append(Text(text))
            del pending[:end]
        return found


def _is_whole(data: Any) -> bool:
    return len(data) - _LENGTH == int.from_bytes(data[:_LENGTH], "little")


def _text_of(data: bytearray) -> str | None:
    try:
        # The last character may have been cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return None
    is_text = all(each.isprintable() or each.isspace() or each in "\a\b\x1b" for each in text)
    return text if is_text else None


class Replies(io.BufferedIOBase):
    """The binary standard output of a script."""

    def __init__(self, beneath: LogStream, write: Callable[[Any], None]) -> None:
        self._beneath = beneath
        self._write = write

    def write(self, data: Any, /) -> int:
        with memoryview(data) as view:
            self._write(view.cast("B") if view.nbytes else b"")
            return view.nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._beneath.fileno()

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        """Do nothing: whatever is complete has been sent."""

    def close(self) -> None:
        """Do nothing: whoever replies next needs the stream."""


class Adapter:
    """One call at a time, each with the next reply."""

    def __init__(self, codec: Codec) -> None:
        handler = Handler(self._call, "main", cancel="replace")
        handler.bind = lambda payload: ((payload,), None)
        self.handlers = {handler.name: handler}
        self._codec = codec
        self._splitter = Splitter()
        self._one_at_a_time = threading.Lock()
        self._stdin: Stdin
        self._stdout: LogStream
        self.is_waiting = False
        self._answer: Made | None = None
        # A call was answered by an error in the log, and its reply may still come.
        self._owed = False
        self._broken: str | None = None

    def attach(self, stdin: Stdin, output: Output) -> None:
        self._stdin, self._stdout = stdin, output.stdout
        output.stdout.bytes_to = Replies(output.stdout, self._written)
        output.stderr.tap = self._logged

    def _call(self, payload: Any) -> Made:
        changed = self._stdin.changed
        with self._one_at_a_time:
            with changed:
                # A script that waits for the next call does not reply to the last one any more.
                if self._owed:
                    self._stdin.await_reader(lambda: not self._owed or self._broken is not None)
                broken = self._broken
                self._owed = False
                self._answer = None
                self.is_waiting = broken is None
            if broken is not None:
                _ask_for_another(broken)
                return _broken(broken)
            # A script takes an empty message for the end.
            payload = payload or _NIL
            try:
                self._stdin.send(len(payload).to_bytes(_LENGTH, "little"), payload)
            except OSError as error:
                self._break(f"the script has closed its standard input: {error}")
            with changed:
                changed.wait_for(lambda: not self.is_waiting)
                assert self._answer is not None
                return self._answer

    def _written(self, data: Any) -> None:
        with self._stdin.changed:
            if self._broken is not None:
                return
            found = self._splitter.feed(data)
        for each in found:
            if isinstance(each, Reply):
                self._replied(each.payload)
            elif isinstance(each, Text):
                self._stdout.write(each.text)
            else:
                self._break(
                    "the script wrote something to sys.stdout.buffer that is not framed, "
                    f"and no text either: {each.data[:_SHOWN]!r}"
                )

    def _replied(self, payload: bytes) -> None:
        with self._stdin.changed:
            if self.is_waiting:
                self._settle(self._answer_of(payload))
                return
            owed, self._owed = self._owed, False
        if not owed:
            _logger().warning("A reply without a call is dropped: %d bytes", len(payload))

    def _answer_of(self, payload: bytes) -> Made:
        if _KEY in payload:
            try:
                value = self._codec.decode(payload)
            except DecodeIssue:
                # For the host to say, which finds the same.
                value = None
            if isinstance(value, dict) and _is_truthy(value.get("error")):
                error = value["error"]
                return Made(lambda answers, id: answers.failed(id, error))
        return Made(lambda answers, id: answers.encoded(id, payload))

    def _logged(self, text: str) -> bool:
        """Let a text on stderr that begins like an error be the end of the call that runs."""
        if text.startswith(_ERROR):
            with self._stdin.changed:
                if self.is_waiting:
                    self._owed = True
                    self._settle(Made(lambda answers, id: answers.failed(id, text.rstrip("\n"))))
        return False

    def _break(self, why: str) -> None:
        """Nobody knows what belongs to which call from here on: this worker is of no use."""
        with self._stdin.changed:
            if self._broken is not None:
                return
            self._broken = why
            if self.is_waiting:
                self._settle(_broken(why))
            self._stdin.changed.notify_all()
        _ask_for_another(why)

    def _settle(self, answer: Made) -> None:
        self._answer, self.is_waiting = answer, False
        self._stdin.changed.notify_all()


def _ask_for_another(why: str) -> None:
    try:
        _replace.replace_me(why)
    except RuntimeError:
        # It is starting: its first call will ask.
        _logger().error("%s", why)


def _broken(why: str) -> Made:
    def frame(answers: Answers, id: int) -> Outgoing:
        return answers.protocol_broken(id, why)

    return Made(frame)


def _is_truthy(value: Any) -> bool:
    """Whether JavaScript takes it for true: an empty list is."""
    if isinstance(value, (list, dict)):
        return True
    return bool(value) and value == value


def _logger() -> logging.Logger:
    return logging.getLogger("synapse")
