"""The C library's own output streams, which Python's do not share a buffer with."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

_IOLBF = 1


def _load() -> Any:
    if sys.platform == "win32":
        return None
    try:
        import ctypes

        return ctypes.CDLL(None)
    except Exception:
        return None


_libc = _load()


def line_buffer_stdout() -> None:
    """Let every line of `printf` leave at once, so that a crash does not take it along."""
    with contextlib.suppress(Exception):
        import ctypes

        _libc.setvbuf(_stream("stdout"), None, _IOLBF, ctypes.c_size_t(0))


def flush_all() -> None:
    """Write what C code has printed without ending the line.

    Other streams are left alone: one that somebody is reading is locked until there is something.
    """
    for name in ("stdout", "stderr"):
        with contextlib.suppress(Exception):
            _libc.fflush(_stream(name))


def _stream(name: str) -> Any:
    import ctypes

    return ctypes.c_void_p.in_dll(_libc, f"__{name}p" if sys.platform == "darwin" else name)
