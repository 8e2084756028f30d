"""The processes that a worker started, and what they started: ended when the host is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Final, NamedTuple

# New processes may appear while others are ended; whoever outruns this many looks is let go.
_MAX_PASSES: Final = 16
_ENDED: Final = (b"Z", b"X")


class _Process(NamedTuple):
    pid: int
    parent: int
    group: int


def end(worker_id: str) -> bool:
    """Kill every descendant of this process, where the platform tells which they are. Never raises.

    A program that left the group and whose parent is gone is known by the `SYNAPSE_WORKER_ID` in
    its environment.
    """
    try:
        if not _sees_processes():
            return False
        _end_found(worker_id)
    except BaseException:
        return False
    return True


def end_group() -> None:
    """Kill the group that this process leads, and so itself. Never raises."""
    try:
        if sys.platform != "win32" and os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
    except BaseException:
        pass


def _sees_processes() -> bool:
    # `/proc` may be missing, or be that of another namespace with numbers of its own.
    try:
        return sys.platform == "linux" and os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _end_found(worker_id: str) -> None:
    mark = f"\0SYNAPSE_WORKER_ID={worker_id}\0".encode() if worker_id else None
    me = os.getpid()
    leads = os.getpgrp() == me
    ended: set[int] = set()
    for _ in range(_MAX_PASSES):
        found = _find(me, leads, mark) - ended
        if not found:
            return
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        ended |= found


def _find(me: int, leads: bool, mark: bytes | None) -> set[int]:
    others = [each for each in map(_process, os.listdir("/proc")) if each and each.pid != me]
    found = {each.pid for each in others if leads and each.group == me}
    found.update(each.pid for each in others if mark and _has(each.pid, mark))
    # Children that were started with an environment of their own.
    parents = {me, *found}
    while more := {each.pid for each in others if each.parent in parents} - found:
        found |= more
        parents = more
    return found


def _process(entry: str) -> _Process | None:
    if not entry.isdigit():
        return None
    # The name in parentheses may hold anything.
    fields = _read(f"/proc/{entry}/stat").rpartition(b")")[2].split(None, 3)
    if len(fields) < 4 or fields[0] in _ENDED:
        return None
    return _Process(int(entry), int(fields[1]), int(fields[2]))


def _has(pid: int, mark: bytes) -> bool:
    return mark in b"\0" + _read(f"/proc/{pid}/environ")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
