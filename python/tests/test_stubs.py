"""A module that was made of a contract, and one that implements it, under this Python."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import Worker

FIXTURE = Path(__file__).parents[2] / "test" / "fixtures" / "contract"
CIRCLE = {"_tag": "Circle", "center": {"x": 1.0, "y": 2.0}, "radius": 2.0}
JOB = {"id": "0b2e4c5e-1111-4111-8111-0123456789ab", "class": "c", "l": 1, "it's": "it's"}


@pytest.mark.parametrize(
    ("method", "payload", "answer"),
    [
        ("embed", {"text": "abc", "model": "large"}, [3.0, 2.0]),
        ("paint-shape", {"shape": CIRCLE, "color": "none"}, "red"),
        ("paint-shape", {"shape": {"_tag": "Square"}, "color": 3}, 3),
        ("area", {"shape": {"_tag": "Square", "side": 3.0}}, 9.0),
        ("run", {"job": JOB, "class": True}, JOB),
        (
            "grow",
            {"tree": {"value": 2.0, "children": []}, "by": 2.0},
            {"value": 4.0, "children": []},
        ),
        ("echo", [1.0, {"a": [None]}], [[1.0, {"a": [None]}], 2]),
        ("rest", {"a": 1, "b": 2}, 3),
    ],
)
def test_what_implements_it_answers(
    implementation: Worker, method: str, payload: Any, answer: Any
) -> None:
    assert implementation.value(method, payload) == answer


@pytest.fixture
def implementation(start: Callable[..., Worker], tmp_path: Path) -> Worker:
    shutil.copy(FIXTURE / "contract.py", tmp_path)
    return start((FIXTURE / "main.py").read_text())
