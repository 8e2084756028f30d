"""What Node prints, as records."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Final, TypeAlias

_MARK: Final = b"\x1e"


@dataclass(frozen=True)
class LogRecord:
    """One record; a message of several lines is one record."""

    #: When it was written; `None` for output that is no record.
    time: datetime | None
    #: `debug`, `info`, `warn` or `error`.
    level: str
    #: `server`, `stdout`, `stderr`, `uncaught`, or the method of the console, as `console.log`.
    source: str
    message: str
    #: Which thread it is from, counted from 0.
    thread: int | None = None


OnLog: TypeAlias = Callable[[LogRecord], None]

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_logger: Final = logging.getLogger("synapse.javascript")


def to_logging(record: LogRecord) -> None:
    """Pass a record on to the logger `synapse.javascript`."""
    _logger.log(
        _LEVELS.get(record.level, logging.INFO),
        record.message,
        extra={"source": record.source, "node_thread": record.thread},
    )


def read_logs(stream: IO[bytes], source: str, on_log: OnLog) -> None:
    """Read to the end. What a receiver raises does not stop it: Node would wait for a reader."""
    for line in stream:
        with contextlib.suppress(Exception):
            on_log(_to_record(line, source))


def _to_record(line: bytes, source: str) -> LogRecord:
    if line.startswith(_MARK):
        try:
            record = json.loads(line[1:])
            time = datetime.fromisoformat(record["time"].replace("Z", "+00:00"))
            return LogRecord(
                time, record["level"], record["source"], record["message"], record.get("thread")
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
    return LogRecord(None, "info", source, line.decode(errors="replace").rstrip("\r\n"))
