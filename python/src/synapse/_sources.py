"""The files of the user, imported as they are now."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from importlib import machinery
from typing import Any, Final

# Longer than the steps in which file systems count time.
_REST_SECONDS: Final = 2.5


class Loader(machinery.SourceFileLoader):
    """Keeps the byte code of a file only once the file has been at rest.

    Python takes byte code for that of a source with the same size and the same second of change:
    what was saved twice in a second would stay as it was the first time.
    """

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        try:
            is_at_rest = abs(time.time() - os.stat(self.path).st_mtime) > _REST_SECONDS
        except OSError:
            return
        if is_at_rest:
            super().set_data(path, data, _mode=_mode)


def watch_over(directory: str) -> None:
    """Have what lies in the directory, or below it, imported with `Loader`."""
    find = machinery.FileFinder.path_hook(
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (Loader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )
    within = os.path.join(os.path.realpath(directory), "")

    def hook(path: str) -> Any:
        real = os.path.join(os.path.realpath(path), "")
        # The environment may lie there; what is installed does not change.
        if not real.startswith(within) or "site-packages" in real:
            raise ImportError("not the user's")
        return find(path)

    hooks: list[Callable[[str], Any]] = sys.path_hooks
    hooks.insert(0, hook)
