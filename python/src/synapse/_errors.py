"""Exceptions as data: what a traceback shows, within limits, whatever the exception does when it is
looked at.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

_MAX_TEXT: Final = 8192
_MAX_NAME: Final = 256
_MAX_PATH: Final = 1024
_MAX_FRAMES: Final = 50
_MAX_WALKED_FRAMES: Final = 100_000
_MAX_DEPTH: Final = 8
_MAX_EXCEPTIONS: Final = 32
_MAX_NOTES: Final = 16

_RUNTIME: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep
_IMPORT_MACHINERY: Final = "<frozen importlib"

Described = dict[str, Any]


def describe(error: BaseException) -> Described:
    """The structured exception of the protocol for `error`. Never raises, and the result can always
    be encoded.
    """
    try:
        return _Description().of(error, 0)
    except BaseException:
        return {
            "type": _clip(type(error).__name__, _MAX_NAME),
            "module": "",
            "message": "<an exception that cannot be described>",
            "frames": [],
        }


class _Description:
    """One call of `describe`: how many exceptions it has met, and which."""

    __slots__ = ("_met",)

    def __init__(self) -> None:
        self._met: set[int] = set()

    def of(self, error: BaseException, depth: int) -> Described:
        self._met.add(id(error))
        kind = type(error)
        frames, omitted = _frames(error.__traceback__)
        result: Described = {
            "type": _text_of(lambda: kind.__qualname__, _MAX_NAME),
            "module": _text_of(lambda: str(kind.__module__), _MAX_NAME),
            "message": _text_of(lambda: str(error), _MAX_TEXT),
            "frames": frames,
        }
        if isinstance(error, SyntaxError):
            _add_source(error, frames)
        if omitted:
            result["framesOmitted"] = omitted
        notes = _quietly(lambda: error.__notes__, None)  # type: ignore[attr-defined]
        if isinstance(notes, (list, tuple)) and notes:
            result["notes"] = [_text_of(note.__str__, _MAX_TEXT) for note in notes[:_MAX_NOTES]]
        cause = error.__cause__
        if cause is not None:
            self._add(result, "cause", cause, depth)
        elif error.__context__ is not None and not error.__suppress_context__:
            self._add(result, "context", error.__context__, depth)
        self._add_members(result, error, depth)
        return result

    def _room(self, error: BaseException, depth: int) -> bool:
        return (
            depth < _MAX_DEPTH and len(self._met) < _MAX_EXCEPTIONS and id(error) not in self._met
        )

    def _add(self, result: Described, key: str, error: BaseException, depth: int) -> None:
        if self._room(error, depth):
            result[key] = self.of(error, depth + 1)

    def _add_members(self, result: Described, error: BaseException, depth: int) -> None:
        # Duck-typed: groups are built in from 3.11 on, and a backport makes them before.
        members = _quietly(lambda: error.exceptions, None)  # type: ignore[attr-defined]
        if not isinstance(members, tuple) or not all(isinstance(m, BaseException) for m in members):
            return
        described = []
        for member in members:
            if not self._room(member, depth):
                break
            described.append(self.of(member, depth + 1))
        result["exceptions"] = described
        if len(described) < len(members):
            result["exceptionsOmitted"] = len(members) - len(described)


def _frames(traceback: TracebackType | None) -> tuple[list[dict[str, Any]], int]:
    head: list[TracebackType] = []
    tail: list[TracebackType] = []
    half, shown = _MAX_FRAMES // 2, 0
    for _ in range(_MAX_WALKED_FRAMES):
        if traceback is None:
            break
        if not _is_machinery(traceback.tb_frame.f_code.co_filename):
            shown += 1
            if len(head) < half:
                head.append(traceback)
            else:
                tail.append(traceback)
                if len(tail) > half:
                    del tail[0]
        traceback = traceback.tb_next
    kept = head + tail
    return [_frame(entry) for entry in kept], shown - len(kept)


def _is_machinery(file: str) -> bool:
    return file.startswith((_RUNTIME, _IMPORT_MACHINERY))


def _frame(traceback: TracebackType) -> dict[str, Any]:
    frame = traceback.tb_frame
    code = frame.f_code
    line = traceback.tb_lineno or 0
    result = {
        "file": _clip(code.co_filename, _MAX_PATH),
        "line": line,
        "function": _clip(getattr(code, "co_qualname", code.co_name), _MAX_NAME),
    }
    source = _text_of(
        lambda: linecache.getline(code.co_filename, line, frame.f_globals).strip(), _MAX_NAME
    )
    if source:
        result["code"] = source
    return result


def _add_source(error: SyntaxError, frames: list[dict[str, Any]]) -> None:
    """The place of a syntax error is in the exception, not in its traceback."""
    file, line, text = error.filename, error.lineno, error.text
    if isinstance(file, str) and isinstance(line, int) and 0 <= line <= _MAX_LINE:
        frame = {"file": _clip(file, _MAX_PATH), "line": line, "function": "<module>"}
        if isinstance(text, str) and text.strip():
            frame["code"] = _clip(text.strip(), _MAX_NAME)
        frames.append(frame)


_MAX_LINE: Final = 2**31


def _quietly(get: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return get()
    except BaseException:
        return otherwise


def _text_of(get: Callable[[], Any], limit: int) -> str:
    try:
        text = get()
    except BaseException as failure:
        return f"<unprintable: {type(failure).__name__}>"
    return _clip(text, limit) if isinstance(text, str) else "<unprintable>"


def _clip(text: str, limit: int) -> str:
    # A subclass of str may do anything in its methods.
    text = str.__str__(text)
    clipped = text if len(text) <= limit else f"{text[:limit]}… (+{len(text) - limit})"
    try:
        clipped.encode()
    except UnicodeEncodeError:
        return clipped.encode("utf-8", "backslashreplace").decode()
    return clipped
