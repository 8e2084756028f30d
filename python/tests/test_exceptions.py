from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse._errors import describe


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def throw(error: BaseException) -> None:
    raise error


class EvilStr(Exception):
    def __str__(self) -> str:
        raise SystemExit("gotcha")

    __repr__ = __str__


class EvilAttributes(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise KeyboardInterrupt

    @property
    def __notes__(self) -> Any:
        raise KeyboardInterrupt

    @property
    def exceptions(self) -> Any:
        raise KeyboardInterrupt


class NotText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]


class Weird(Exception):
    __module__ = None  # type: ignore[assignment]


class EvilText(str):
    def __len__(self) -> int:
        raise ValueError

    def encode(self, *_: Any) -> bytes:
        raise ValueError


def chain(length: int) -> BaseException:
    error: BaseException = ValueError(0)
    for number in range(1, length):
        after = ValueError(number)
        after.__cause__ = error
        error = after
    return error


def cycle() -> BaseException:
    a, b = ValueError("a"), ValueError("b")
    a.__cause__, b.__cause__ = b, a
    return a


def with_evil_notes() -> BaseException:
    error = ValueError("x")
    error.__notes__ = ["fine", object(), EvilText("n"), EvilStr()]  # type: ignore[attr-defined]
    return error


def deep(level: int = 0) -> Any:
    return deep(level + 1)


NASTY: dict[str, Callable[[], Any]] = {
    "a str that leaves": lambda: throw(EvilStr(1)),
    "attributes that interrupt": lambda: throw(EvilAttributes("x")),
    "a str that is no text": lambda: throw(NotText()),
    "a class without a module": lambda: throw(Weird("w")),
    "recursion": deep,
    "a cycle of causes": lambda: throw(cycle()),
    "a chain of thousands": lambda: throw(chain(3000)),
    "a message of millions": lambda: throw(ValueError("x" * 5_000_000)),
    "lone surrogates": lambda: throw(ValueError("\ud800 file")),
    "an integer of many bits": lambda: throw(ValueError(1 << 100_000)),
    "bytes and objects": lambda: throw(ValueError(b"\xff" * 10, object(), {1: {2}})),
    "notes that are no text": lambda: throw(with_evil_notes()),
    "a text that misbehaves": lambda: throw(ValueError(EvilText("evil"))),
    "an interrupt": lambda: throw(KeyboardInterrupt()),
    "an exit": lambda: sys.exit(3),
    "the end of an iterator": lambda: next(iter([])),
    "an error of the system": lambda: open("/nowhere/at/all"),
    "a syntax error": lambda: compile("a b", "f.py", "exec"),
    "a syntax error without a place": lambda: throw(SyntaxError("odd")),
    "a key": lambda: {}["k"],
    "no message": lambda: throw(ValueError()),
}
if sys.version_info >= (3, 11):

    def deep_group() -> None:
        group: Exception = ValueError(0)
        for _ in range(500):
            group = ExceptionGroup("d", [group])
        raise group

    NASTY["groups in groups"] = deep_group
    NASTY["a wide group"] = lambda: throw(ExceptionGroup("g", [ValueError(i) for i in range(100)]))


def check(described: Any, depth: int = 0) -> int:
    """That a structured exception is what the host decodes; returns how many there are in it."""
    allowed = {
        "type", "module", "message", "frames", "framesOmitted", "notes",
        "cause", "context", "exceptions", "exceptionsOmitted",
    }  # fmt: skip
    assert depth <= 8 and set(described) <= allowed
    assert all(isinstance(described[key], str) for key in ("type", "module", "message"))
    assert len(described["message"]) < 8300 and len(described["frames"]) <= 51
    for frame in described["frames"]:
        assert set(frame) <= {"file", "line", "function", "code"}
        assert isinstance(frame["line"], int)
    assert all(isinstance(note, str) for note in described.get("notes", []))
    inner = [described[key] for key in ("cause", "context") if key in described]
    return 1 + sum(check(each, depth + 1) for each in (*inner, *described.get("exceptions", [])))


@pytest.mark.parametrize("function", NASTY.values(), ids=NASTY.keys())
def test_any_exception_is_described_within_limits(function: Callable[[], Any]) -> None:
    described = describe(raised(function))
    assert check(described) <= 32
    msgspec.msgpack.encode(described)


def test_causes_contexts_and_notes_are_kept() -> None:
    def fails() -> None:
        try:
            try:
                _ = 1 / 0
            except ZeroDivisionError as error:
                raise ValueError("bad") from error
        except ValueError:
            raise RuntimeError("outer")  # noqa: B904

    error = raised(fails)
    error.__notes__ = ["while loading"]  # type: ignore[attr-defined]
    described = describe(error)
    assert described["notes"] == ["while loading"]
    assert described["context"]["message"] == "bad"
    assert described["context"]["cause"]["type"] == "ZeroDivisionError"
    assert "cause" not in described


def test_a_suppressed_context_is_left_out() -> None:
    def fails() -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError:
            raise ValueError("bad") from None

    described = describe(raised(fails))
    assert "context" not in described and "cause" not in described


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with 3.11")
def test_members_of_a_group_are_described() -> None:
    group = ExceptionGroup("several", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])])
    described = describe(raised(lambda: throw(group)))
    assert [each["message"] for each in described["exceptions"]] == ["a", "inner (1 sub-exception)"]
    assert described["exceptions"][1]["exceptions"][0]["type"] == "KeyError"


def test_the_first_and_last_frames_are_kept() -> None:
    described = describe(raised(deep))
    assert len(described["frames"]) == 50
    assert described["framesOmitted"] > 500
    assert described["frames"][0]["function"].startswith("raised")
    assert described["frames"][-1]["code"] == "return deep(level + 1)"


@given(st.text(), st.lists(st.text(), max_size=3))
def test_any_text_can_be_described(message: str, notes: list[str]) -> None:
    error = ValueError(message)
    error.__notes__ = notes  # type: ignore[attr-defined]
    msgspec.msgpack.encode(describe(error))
