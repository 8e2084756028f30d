"""Which servers there are on this machine: a file for each, in a directory of this user alone."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

DEFAULT_PORT: Final = 9999
_VERSION: Final = 1


class NotPrivate(RuntimeError):
    """The directory could be written to, or read, by others."""


@dataclass(frozen=True)
class Found:
    """A server as its file describes it. `token` is the path of the file that has it."""

    namespace: str | None
    pid: int
    host: str
    port: int
    token: str | None
    tls: bool
    protocols: tuple[str, ...]


def directory() -> Path:
    """Where the files are: `SYNAPSE_RUNTIME_DIRECTORY`, or a place that the system has for it."""
    given = os.environ.get("SYNAPSE_RUNTIME_DIRECTORY")
    if given:
        return Path(given)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "synapse"
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"synapse-{user}"


def _private_directory() -> Path:
    path = directory()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(path)
    return path


def _check_private(path: Path) -> None:
    if sys.platform == "win32":
        return
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NotPrivate(
            f"{path} has to be a directory of this user that nobody else may enter (mode 700): it "
            "tells the tokens of servers. Name another one with SYNAPSE_RUNTIME_DIRECTORY"
        )


def write_token(token: str, port: int) -> Path:
    """Write a token where this user alone can read it."""
    path = _private_directory() / f"{os.getpid()}-{port}.token"
    _write(path, token)
    return path


def publish(found: Found) -> Path:
    """Let clients find a server."""
    folder = _private_directory()
    _forget_stale(folder)
    path = folder / f"{found.pid}-{found.port}.json"
    beside = path.with_suffix(".new")
    _write(beside, json.dumps({"version": _VERSION, **asdict(found)}))
    os.replace(beside, path)
    return path


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def servers(*, namespace: str | None = None, port: int | None = None) -> list[Found]:
    """The servers that are there, of a namespace or at a port, the last one started first."""
    folder = directory()
    if not folder.is_dir():
        return []
    _check_private(folder)
    found = [
        (at, each)
        for at, each in map(_read, folder.glob("*.json"))
        if each is not None
        and (namespace is None or each.namespace == namespace)
        and (port is None or each.port == port)
        and _is_alive(each.pid)
    ]
    return [each for _, each in sorted(found, key=lambda pair: pair[0], reverse=True)]


def read_token(found: Found) -> str | None:
    """The token of a server, where it has one that this user may know."""
    if found.token is None:
        return None
    try:
        return Path(found.token).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _read(path: Path) -> tuple[float, Found | None]:
    try:
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        if said.pop("version") != _VERSION:
            return 0.0, None
        found = Found(**{**said, "protocols": tuple(said["protocols"])})
        return path.stat().st_mtime, found
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0.0, None


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        # There, signal 0 is no question: whoever connects finds out.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return isinstance(pid, int)
    return True


def _forget_stale(folder: Path) -> None:
    for path in folder.iterdir():
        pid, _, _ = path.name.partition("-")
        if pid.isdecimal() and not _is_alive(int(pid)):
            with contextlib.suppress(OSError):
                path.unlink()


def to_address(text: str) -> tuple[str, int]:
    """The host and the port of `host[:port]`.

    Raises:
        ValueError: It is no address.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):
        # Without a port, or an address of IPv6 that has colons of its own.
        host, port = text.strip(), str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no address: write host or host:port")
    return host, int(port)
