"""What a module prints and logs, on its way to the host as `Log` frames."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple, TextIO

from synapse import _cstdio
from synapse._calls import Call
from synapse._channel import Channel
from synapse._codec import Codec
from synapse._context import current_call
from synapse._errors import describe
from synapse._frames import DEFAULT_MAX_FRAME_SIZE, LENGTH_SIZE, LOG, make_frame

_MAX_HELD: Final = 1000
_MAX_BACKLOG: Final = 4096
_MAX_MESSAGE: Final = 64 * 1024
_WARNED: Final = re.compile(r"(.+?):(\d+): (.*)", re.DOTALL)


class Place(NamedTuple):
    file: str | None
    line: int | None


_NOWHERE: Final = Place(None, None)


class LogSender:
    """Sends `Log` frames, from `open` on; records from before are held, up to a number."""

    __slots__ = ("_channel", "_codec", "_dropped", "_held", "is_closed", "max_frame_size")

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._channel: Channel | None = None
        self._held: deque[dict[str, Any]] = deque()
        self._dropped = 0
        self.is_closed = False
        self.max_frame_size = DEFAULT_MAX_FRAME_SIZE

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    def open(self, channel: Channel) -> None:
        """Begin to send, with what was held: the host has been told who speaks."""
        self._channel = channel
        while self._held:
            self._send(channel, self._held.popleft())

    def close(self) -> None:
        """Stop, in a forked child, which has no channel."""
        self._channel = None
        self._held.clear()
        self.is_closed = True

    def send(
        self,
        level: int,
        logger: str,
        message: str,
        place: Place = _NOWHERE,
        at: float | None = None,
        exception: dict[str, Any] | None = None,
    ) -> None:
        """Send a record. Never raises; where the host does not keep up, records are dropped and
        counted.
        """
        call = current_call.get()
        record = {
            "level": level,
            "logger": logger,
            "message": _sendable(message),
            "time": (time.time() if at is None else at) * 1000,
            "id": None if call is None or call.answered else call.id,
            "file": None if place.file is None else _sendable(place.file),
            "line": place.line,
            "exception": exception,
        }
        channel = self._channel
        if channel is None and len(self._held) < _MAX_HELD:
            self._held.append(record)
        elif channel is None or channel.backlog > _MAX_BACKLOG:
            self._dropped += 1
        else:
            self._send(channel, record)

    def _send(self, channel: Channel, record: dict[str, Any]) -> None:
        if self._dropped and not self._held:
            record["dropped"], self._dropped = self._dropped, 0
        with contextlib.suppress(Exception):
            frame = make_frame(LOG, 0, self._codec.encode(record))
            if len(frame) - LENGTH_SIZE <= self.max_frame_size:
                channel.send(frame)
            else:
                self._dropped += 1


def _sendable(text: str) -> str:
    text = (
        text
        if len(text) <= _MAX_MESSAGE
        else f"{text[:_MAX_MESSAGE]}… (+{len(text) - _MAX_MESSAGE})"
    )
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


class Partial(NamedTuple):
    """A line that is not ended, and where it began."""

    text: str
    place: Place


# By stream, thread and call, so that lines of calls that run at once do not mix.
PartialKey = tuple[str, int, "Call | None"]
Partials = dict[PartialKey, Partial]


class LogStream(io.TextIOBase):
    """A text stream whose lines are records.

    Until the sender is open, and in forked children, text goes to the descriptor beneath, which the
    host drains as well: there it is seen at once, and a crash loses none of it.
    """

    encoding = "utf-8"
    errors = "backslashreplace"
    newlines = None
    line_buffering = True
    mode = "w"

    def __init__(
        self, sender: LogSender, beneath: TextIO, level: int, name: str, partials: Partials
    ) -> None:
        self._sender = sender
        self._beneath = beneath
        self._level = level
        self._logger = name
        self._partials = partials
        self.name = f"<{name}>"
        #: Where bytes go, if not to the stream beneath.
        self.bytes_to: Any = None
        #: Sees text before it is a record, and says whether it keeps it.
        self.tap: Callable[[str], bool] | None = None

    @property
    def buffer(self) -> Any:
        """The binary stream beneath: what is written there reaches the host as plain output."""
        return self._beneath.buffer if self.bytes_to is None else self.bytes_to

    def detach(self) -> Any:
        return self.buffer

    def fileno(self) -> int:
        return self._beneath.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_options: Any) -> None:
        """Do nothing: encoding and buffering are fixed."""

    def close(self) -> None:
        """Do nothing: whoever prints next needs the stream."""

    def flush(self) -> None:
        self._beneath.flush()

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.tap is not None and self.tap(text):
            return len(text)
        if not self._sender.is_open:
            return self._beneath.write(text)
        key = (self._logger, threading.get_ident(), current_call.get())
        partial = self._partials.pop(key, None)
        place = _caller(sys._getframe(1)) if partial is None else partial.place
        *lines, rest = (text if partial is None else partial.text + text).split("\n")
        for line in lines:
            self._emit(line, place)
        # A progress bar writes over its line again and again: only what stands there at last
        # matters.
        rest = rest[rest.rfind("\r", 0, -1) + 1 :]
        start = 0
        while len(rest) - start > _MAX_MESSAGE:
            self._emit(rest[start : start + _MAX_MESSAGE], place)
            start += _MAX_MESSAGE
        if rest:
            self._partials[key] = Partial(rest[start:], place)
        return len(text)

    def _emit(self, line: str, place: Place) -> None:
        line = line[line.rfind("\r", 0, -1) + 1 :].rstrip("\r")
        for start in range(0, len(line) or 1, _MAX_MESSAGE):
            self._sender.send(self._level, self._logger, line[start : start + _MAX_MESSAGE], place)

    def end(self, key: PartialKey) -> None:
        """Send a line as it is."""
        partial = self._partials.pop(key, None)
        if partial is not None:
            token = current_call.set(key[2])
            try:
                self._emit(partial.text, partial.place)
            finally:
                current_call.reset(token)


def _caller(frame: FrameType | None) -> Place:
    # A handler of the logging module writes on behalf of who logs.
    while frame is not None and _is_of_logging(frame.f_globals):
        frame = frame.f_back
    return _NOWHERE if frame is None else Place(frame.f_code.co_filename, frame.f_lineno)


def _is_of_logging(names: dict[str, Any]) -> bool:
    # What `exec` runs has whatever names it was given.
    name = names.get("__name__")
    return isinstance(name, str) and name.startswith("logging")


class _NoLock:
    """In the place of the lock of a handler that needs none: an interruption of the code that logs
    could leave it locked.
    """

    def acquire(self) -> None: ...

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class LogHandler(logging.Handler):
    """The handler at the root of `logging`: it sends records instead of formatting them."""

    def __init__(self, sender: LogSender) -> None:
        super().__init__()
        self._sender = sender
        self._emitting = threading.local()

    def createLock(self) -> None:
        self.lock: Any = _NoLock()

    def emit(self, record: logging.LogRecord) -> None:
        # Describing an exception runs code of the user's, which may log.
        if getattr(self._emitting, "now", False):
            return
        self._emitting.now = True
        try:
            self._send(record)
        except Exception:
            pass
        finally:
            self._emitting.now = False

    def _send(self, record: logging.LogRecord) -> None:
        if self._sender.is_closed and sys.stderr is not None:
            sys.stderr.write(f"{record.levelname}:{record.name}:{self.format(record)}\n")
            return
        try:
            message = record.getMessage()
        except Exception as error:
            message = f"{record.msg!s} ({type(error).__name__} while formatting)"
        if record.stack_info:
            message = f"{message}\n{record.stack_info}"
        place = Place(record.pathname, record.lineno)
        # The warnings module logs from within itself, and its text begins with the place.
        warned = _WARNED.match(message) if record.name == "py.warnings" else None
        if warned is not None:
            place, message = Place(warned[1], int(warned[2])), warned[3].rstrip()
        raised = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        self._sender.send(
            record.levelno,
            _sendable(str(record.name)),
            message,
            place,
            record.created,
            None if raised is None else describe(raised),
        )


def _log_uncaught(uncaught: threading.ExceptHookArgs) -> None:
    """One record for an exception that ended a thread."""
    error = uncaught.exc_value
    if error is None or isinstance(error, SystemExit):
        return
    name = uncaught.thread.name if uncaught.thread is not None else "an unknown one"
    logging.getLogger("threading").error("Exception in thread %s", name, exc_info=error)


class Output:
    """The redirected output of the process."""

    __slots__ = ("_handler", "partials", "sender", "stderr", "stdout")

    def __init__(self, codec: Codec) -> None:
        self.sender = LogSender(codec)
        self.partials: Partials = {}
        self._handler = LogHandler(self.sender)
        self.stdout = self._redirected(sys.stdout, logging.INFO, "stdout")
        self.stderr = self._redirected(sys.stderr, logging.WARNING, "stderr")

    def _redirected(self, beneath: TextIO | None, level: int, name: str) -> LogStream:
        if beneath is None:
            beneath = open((sys.platform == "win32" and "nul") or "/dev/null", "w")  # noqa: SIM115
        with contextlib.suppress(Exception):
            beneath.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[attr-defined]
        return LogStream(self.sender, beneath, level, name, self.partials)

    def redirect(self) -> None:
        """Take over `sys.stdout`, `sys.stderr`, logging and warnings.

        logging gets its root handler from `adopt_logging`, after the module is imported:
        `logging.basicConfig` in the module does nothing where there is one already, and the level
        it sets is wanted. Until then the handler of last resort is ours.
        """
        sys.stdout, sys.stderr = self.stdout, self.stderr
        logging.lastResort = self._handler
        logging.root.setLevel(logging.INFO)
        logging.captureWarnings(True)
        threading.excepthook = _log_uncaught

    def adopt_logging(self) -> None:
        """Put our handler at the root, for those that would print records to stdout or stderr."""
        root = logging.root
        for handler in root.handlers[:]:
            ours = (self.stdout, self.stderr)
            if type(handler) is logging.StreamHandler and handler.stream in ours:
                root.removeHandler(handler)
        root.addHandler(self._handler)

    def end_call(self, call: Call) -> None:
        """Send what a call has printed without ending the line."""
        self._end([key for key in list(self.partials) if key[2] is call])

    def flush_c(self) -> None:
        """Let go of what C code printed without ending the line."""
        _cstdio.flush_all()

    def end_all(self) -> None:
        """Send every line that is not ended."""
        self._end(list(self.partials))

    def _end(self, keys: list[PartialKey]) -> None:
        for key in keys:
            (self.stdout if key[0] == "stdout" else self.stderr).end(key)
