"""Modules of the user are imported as they are, however quickly they change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wire import Worker

MAIN = """
import synapse
from parts import part
from helper import number

@synapse.handler
def numbers():
    return [MINE, number(), part.NUMBER]

MINE = {n}
"""


def write(directory: Path, n: int) -> None:
    (directory / "parts").mkdir(exist_ok=True)
    (directory / "parts" / "__init__.py").write_text("")
    (directory / "parts" / "part.py").write_text(f"NUMBER = {n}\n")
    (directory / "helper.py").write_text(f"def number(): return {n}\n")
    (directory / "main.py").write_text(MAIN.format(n=n))


def numbers(worker: Worker) -> list[int]:
    worker.welcome()
    found: list[int] = worker.value("numbers", {})
    return found


def test_a_change_within_a_second_is_seen(launch: Callable[..., Worker], tmp_path: Path) -> None:
    for n in range(1, 6):
        write(tmp_path, n)
        assert numbers(launch()) == [n, n, n]


@pytest.mark.parametrize("name", ["main", "helper", "parts/part"])
def test_byte_code_of_what_is_at_rest_is_kept(
    launch: Callable[..., Worker], tmp_path: Path, name: str
) -> None:
    write(tmp_path, 1)
    old = time.time() - 60
    os.utime(tmp_path / f"{name}.py", (old, old))
    assert numbers(launch()) == [1, 1, 1]
    source = tmp_path / f"{name}.py"
    kept = [path.name.partition(".")[0] for path in tmp_path.rglob("*.pyc")]
    assert kept == [source.stem]
