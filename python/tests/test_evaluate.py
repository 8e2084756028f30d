from __future__ import annotations

import linecache
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from test_lifecycle import ASYNC, KINDS, PRELUDE, SYNC, concurrencies, kinds
from wire import CANCEL, DIE, FAIL, INTERRUPTED, Got, Worker, frame

from synapse._evaluate import Evaluator

Start = Callable[..., Worker]
ALLOWED = {"evaluate": True}


def payload(source: str, file: str | None = None, line: int = 1, **bindings: Any) -> dict[str, Any]:
    return {"source": source, "file": file, "line": line, "bindings": bindings}


def evaluate(worker: Worker, source: str, **bindings: Any) -> Any:
    return worker.value("$evaluate", payload(source, **bindings))


def fail(worker: Worker, source: str, file: str | None = None, line: int = 1) -> dict[str, Any]:
    got = worker.call("$evaluate", payload(source, file, line))
    assert got.kind == DIE and got.meta is None, got
    described: dict[str, Any] = got.payload
    return described


@kinds
@concurrencies
def test_the_value_is_that_of_the_last_expression(
    start: Start, handlers: str, concurrency: int
) -> None:
    worker = start(PRELUDE + handlers, welcome={**ALLOWED, "concurrency": concurrency})
    assert evaluate(worker, "1 + 1") == 2
    assert evaluate(worker, "x = 5\ny = x * 2\ny") == 10
    assert evaluate(worker, "x = 5") is None
    assert evaluate(worker, "") is None
    assert evaluate(worker, "'text'") == "text"
    assert evaluate(worker, "'doc'\n1") == 1
    assert worker.value("main") == 1


def test_the_source_is_dedented(start: Start) -> None:
    worker = start(PRELUDE + SYNC, welcome=ALLOWED)
    source = """
        def double(x):

            return x * 2
        double(4)
    """
    assert evaluate(worker, source) == 8
    assert evaluate(worker, "   3") == 3


def test_bindings_the_module_and_synapse_are_in_reach(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    scale = 3
    x = "hidden by the binding"

    def multiply(number): return number * scale
    """
        + SYNC,
        welcome=ALLOWED,
    )
    assert evaluate(worker, "multiply(x)", x=4) == 12
    assert evaluate(worker, "[each for each in values if each > low]", values=[1, 5], low=2) == [5]
    assert evaluate(worker, "synapse.context().method") == "$evaluate"
    assert evaluate(worker, "import math\nmath.floor(x)", x=1.5) == 1


def test_names_do_not_stay(start: Start) -> None:
    worker = start(PRELUDE + "\n    scale = 3\n    seen = []\n" + SYNC, welcome=ALLOWED)
    evaluate(worker, "scale = 4\nother = 5\nseen.append(1)")
    assert evaluate(worker, "[scale, 'other' in globals(), seen]") == [3, False, [1]]


def test_code_runs_on_the_main_thread(start: Start) -> None:
    for handlers in KINDS.values():
        worker = start(PRELUDE + handlers, welcome=ALLOWED)
        source = "threading.current_thread() is threading.main_thread()"
        assert evaluate(worker, source) is True


def test_an_exception_names_the_file_and_line(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "app.ts"
    file.write_text("const a = 1\nrun`\n    x = 1\n\n    def f():\n        1 / 0\n    f()\n`\n")
    worker = start(PRELUDE + SYNC, welcome=ALLOWED)
    source = "\n    x = 1\n\n    def f():\n        1 / 0\n    f()\n"
    failure = fail(worker, source, str(file), 2)
    assert failure["type"] == "ZeroDivisionError"
    assert failure["frames"] == [
        {"file": str(file), "line": 7, "function": "<module>", "code": "f()"},
        {"file": str(file), "line": 6, "function": "f", "code": "1 / 0"},
    ]


@pytest.mark.parametrize(
    ("source", "line", "code"),
    [
        ("\n  x = 1\n  y = = 2\n", 12, "y = = 2"),
        ("x = 1\n\nreturn x", 12, None),
        ("x = 1\nawait x", 11, None),
        ("x = 1\n  y", 11, "y"),
    ],
)
def test_a_syntax_error_names_the_file_and_line(
    start: Start, source: str, line: int, code: str | None
) -> None:
    worker = start(PRELUDE + ASYNC, welcome=ALLOWED)
    failure = fail(worker, source, "/gone/app.ts", 10)
    assert failure["type"] in ("SyntaxError", "IndentationError")
    assert f"line {line}" in failure["message"]
    (place,) = failure["frames"]
    assert (place["file"], place["line"], place.get("code")) == ("/gone/app.ts", line, code)


def test_without_a_file_the_source_is_shown(start: Start) -> None:
    worker = start(PRELUDE + SYNC, welcome=ALLOWED)
    (place,) = fail(worker, "\n   x = {}\n   x['a']")["frames"]
    assert place["file"] == "<synapse.evaluate>"
    assert (place["line"], place["code"]) == (3, "x['a']")
    # Another one does not show the lines of the first.
    (place,) = fail(worker, "1\n2\nmissing")["frames"]
    assert place["file"].startswith("<synapse.evaluate")
    assert (place["line"], place["code"]) == (3, "missing")


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "ValueError('v')"])
def test_what_code_raises_fails_its_call_alone(start: Start, error: str) -> None:
    worker = start(PRELUDE + SYNC, welcome=ALLOWED)
    assert fail(worker, f"raise {error}")["type"] == error.partition("(")[0]
    assert worker.value("main") == 1


def test_a_declared_error_travels_as_a_value(start: Start) -> None:
    worker = start(
        PRELUDE + "\n    class Full(synapse.Error):\n        limit: int\n" + SYNC, welcome=ALLOWED
    )
    got = worker.call("$evaluate", payload("raise Full(limit=3)"))
    assert (got.kind, got.payload["_tag"], got.payload["limit"]) == (FAIL, "Full", 3)


def test_code_is_cancelled_as_a_call_is(start: Start) -> None:
    worker = start(PRELUDE + SYNC, welcome=ALLOWED)
    source = """
        print("running")
        while not synapse.context().cancelled:
            time.sleep(0.001)
    """
    id = worker.request("$evaluate", payload(source))
    assert worker.next_log()["message"] == "running"
    worker.send(frame(CANCEL, id))
    assert worker.receive().kind == INTERRUPTED


def test_a_value_that_cannot_be_carried_is_told(start: Start) -> None:
    worker = start(PRELUDE + SYNC, welcome=ALLOWED)
    got = worker.call("$evaluate", payload("object()"))
    assert (got.kind, got.meta["reason"]) == (DIE, "EncodeFailed")


def test_a_request_that_does_not_fit_is_told(start: Start) -> None:
    worker = start(PRELUDE + SYNC, welcome=ALLOWED)
    got = worker.call("$evaluate", {**payload("1"), "source": 5})
    assert (got.kind, got.meta["reason"], got.payload["path"]) == (DIE, "DecodeFailed", "$.source")


@kinds
@pytest.mark.parametrize("welcome", [{}, {"evaluate": False}], ids=["absent", "false"])
def test_where_the_host_does_not_allow_it_no_code_runs(
    start: Start, handlers: str, welcome: dict[str, Any]
) -> None:
    worker = start(PRELUDE + handlers, welcome=welcome)
    got: Got = worker.call("$evaluate", payload("open('evil', 'w')"))
    assert (got.kind, got.meta) == (DIE, {"reason": "Unsupported", "delivery": "rejected"})
    assert "`evaluate: true` in the options of the layer" in got.payload["detail"]
    assert worker.value("main") == 1


def test_hello_does_not_name_it(launch: Start, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import synapse\n")
    assert launch().receive().payload["methods"] == []


def test_the_sources_that_are_kept_are_bounded() -> None:
    evaluator = Evaluator(ModuleType("main"))
    before = len(linecache.cache)
    for number in range(1000):
        assert evaluator.evaluate(f"{number}", None, 1, {}) == number
    assert len(linecache.cache) - before <= 256
    with pytest.raises(SyntaxError):
        evaluator.evaluate("= 1", None, 1, {})
    for _ in range(1000):
        with pytest.raises(SyntaxError):
            evaluator.evaluate(f"= {_}", None, 1, {})
    assert len(linecache.cache) - before <= 256


def test_code_that_is_seen_again_is_the_same_code() -> None:
    evaluator = Evaluator(ModuleType("main"))
    first, again = (evaluator.evaluate("lambda: 1", "app.ts", 5, {}) for _ in range(2))
    assert first.__code__ is again.__code__
    other = evaluator.evaluate("lambda: 1", "app.ts", 6, {})
    assert other.__code__.co_firstlineno == 6


def test_a_large_source_is_run_and_not_kept() -> None:
    evaluator = Evaluator(ModuleType("module"))
    before = sum(len(entry[2]) for entry in linecache.cache.values() if len(entry) > 1)
    large = f"# {'large ' * 200_000}\n"
    for n in range(3):
        assert evaluator.evaluate(f"{large}{n}", None, 1, {}) == n
    assert sum(len(entry[2]) for entry in linecache.cache.values() if len(entry) > 1) == before
