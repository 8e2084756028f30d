from __future__ import annotations

import collections.abc as abc
import dataclasses
import functools
import inspect
import math
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from contracts import HERE, contract_of
from wire import HELLO, MAIN, Worker, write

from synapse import _handlers
from synapse._codec import choose
from synapse._contract import describe
from synapse._handlers import Handler

if typing.TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]

Start = Callable[..., Worker]

INTEGER = {"kind": "integer"}
STRING = {"kind": "string"}
UNKNOWN = {"kind": "unknown"}


def method_of(function: Callable[..., Any], **options: Any) -> Any:
    contract = contract_of(function, **options)
    return contract["methods"][function.__name__]


def payload_of(function: Callable[..., Any]) -> Any:
    return method_of(function)["payload"]


# Payloads


@dataclasses.dataclass
class Job:
    n: int


def test_without_parameters_nothing_is_taken() -> None:
    def f() -> None: ...

    assert payload_of(f) == {"kind": "none"}


def test_a_single_parameter_that_takes_all_is_the_whole_payload() -> None:
    def untyped(payload): ...  # type: ignore[no-untyped-def]
    def anything(payload: Any) -> None: ...
    def positional(n: int, /) -> None: ...
    def job(job: Job) -> None: ...
    def options(options: dict[str, int] | None = None) -> None: ...

    def whole(type: Any, required: bool = True) -> Any:
        return {"kind": "whole", "type": type, "required": required}

    assert payload_of(untyped) == whole(UNKNOWN)
    assert payload_of(anything) == whole(UNKNOWN)
    assert payload_of(positional) == whole(INTEGER)
    assert payload_of(job) == whole({"kind": "ref", "name": "Job"})
    members = [{"kind": "map", "keys": STRING, "values": INTEGER}, {"kind": "null"}]
    assert payload_of(options) == whole({"kind": "union", "members": members}, required=False)


def test_other_parameters_are_taken_by_name() -> None:
    def one(n: int) -> None: ...
    def two(a: Annotated[str, msgspec.Meta(description="The first.")], *, b: int = 3) -> None: ...
    def untyped(a, b=None): ...  # type: ignore[no-untyped-def]
    def rest(n: int, **more: str) -> None: ...
    def only_rest(**more: Any) -> None: ...

    assert payload_of(one) == {
        "kind": "fields",
        "fields": [{"name": "n", "type": INTEGER, "required": True}],
    }
    assert payload_of(two)["fields"] == [
        {"name": "a", "type": STRING, "required": True, "doc": "The first."},
        {"name": "b", "type": INTEGER, "required": False, "default": 3},
    ]
    assert payload_of(untyped)["fields"] == [
        {"name": "a", "type": UNKNOWN, "required": True},
        {"name": "b", "type": UNKNOWN, "required": False, "default": None},
    ]
    assert payload_of(rest)["rest"] == STRING
    assert payload_of(only_rest) == {"kind": "fields", "fields": [], "rest": UNKNOWN}


def test_a_default_that_is_no_constant_is_left_out() -> None:
    def f(job: Job | None = Job(1), big: int = 2**70, many: abc.Sequence[int] = ()) -> None: ...  # noqa: B008

    assert [each.keys() for each in payload_of(f)["fields"]] == [{"name", "type", "required"}] * 3


# Functions of all kinds


class Service:
    def method(self, n: int) -> str:
        "Does it."
        return ""

    @classmethod
    def of_class(cls, n: int) -> str:
        return ""

    @staticmethod
    def static(n: int) -> str:
        return ""

    def __call__(self, n: int) -> str:
        return ""


def wrapper(function: Any) -> Any:
    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return wrapped


def plain(n: int, m: int = 2) -> str:
    "Does it."
    return ""


async def asynchronous(n: int) -> str:
    return ""


def test_functions_of_all_kinds_are_described() -> None:
    functions = {
        "method": Service().method,
        "of_class": Service.of_class,
        "static": Service.static,
        "object": Service(),
        "wrapped": wrapper(plain),
        "partial": functools.partial(plain, m=3),
        "positional": functools.partial(plain, 3),
        "wrapped_partial": functools.partial(wrapper(plain), m=4),
        "asynchronous": asynchronous,
    }
    handlers = [Handler(each, name) for name, each in functions.items()]
    for each in handlers:
        each.prepare(choose())
    contract = describe(handlers, HERE)
    assert contract["problems"] == []
    assert list(contract["methods"]) == sorted(functions)
    for name, method in contract["methods"].items():
        assert method["success"] == STRING
        first = method["payload"]["fields"][0]
        assert first["name"] == ("m" if name == "positional" else "n")
        assert first["type"] == INTEGER
        assert method["place"]["file"] == "test_contract.py"
    partial = contract["methods"]["partial"]["payload"]["fields"][1]
    assert (partial["name"], partial["required"], partial["default"]) == ("m", False, 3)
    for name in ("method", "wrapped", "partial"):
        assert contract["methods"][name]["doc"] == "Does it."


def test_the_place_is_that_of_the_def_below_its_decorators() -> None:
    @wrapper
    @functools.wraps(
        plain,
        assigned=("__name__",),
    )
    def decorated(n: int) -> None: ...

    del decorated.__wrapped__.__wrapped__
    lines = Path(__file__).read_text().splitlines()
    line = method_of(decorated)["place"]["line"]
    assert lines[line - 1].strip().startswith("def decorated")


def test_a_place_outside_of_the_directory_is_absolute(tmp_path: Path) -> None:
    handler = Handler(plain, "plain")
    handler.prepare(choose())
    place = describe([handler], str(tmp_path))["methods"]["plain"]["place"]
    assert place["file"] == str(Path(__file__).resolve())


def test_the_whole_docstring_is_told() -> None:
    def f() -> None:
        """Do it.

        Args:
            n: A number.
        """

    assert method_of(f)["doc"] == "Do it.\n\nArgs:\n    n: A number."
    assert "doc" not in method_of(asynchronous)


# Returns


def test_a_return_without_annotation_is_unknown_and_no_problem() -> None:
    def f(): ...  # type: ignore[no-untyped-def]

    contract = contract_of(f)
    assert contract["methods"]["f"]["success"] == UNKNOWN
    assert contract["problems"] == []


def test_a_return_for_type_checkers_only_is_a_problem() -> None:
    def f(n: int) -> Nothing: ...

    contract = contract_of(f)
    assert contract["methods"]["f"]["success"] == UNKNOWN
    (problem,) = contract["problems"]
    assert problem == {
        "method": "f",
        "path": "return",
        "message": "its return annotation cannot be resolved: name 'Nothing' is not defined: name "
        "a type that the module has when it is loaded, not one inside of a function or for type "
        "checkers only",
        "place": contract["methods"]["f"]["place"],
    }


def test_generators_are_streams_of_their_items() -> None:
    def sync() -> abc.Iterator[int]:
        yield 1

    async def asynchronous() -> abc.AsyncGenerator[int, None]:
        yield 1

    def untyped():  # type: ignore[no-untyped-def]
        yield 1

    for function in (sync, asynchronous):
        method = method_of(function)
        assert (method["success"], method["stream"]) == (INTEGER, True)
    assert method_of(untyped)["success"] == UNKNOWN
    assert method_of(plain)["stream"] is False


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


def test_whatever_an_annotation_is_it_is_a_problem_and_no_failure() -> None:
    def f() -> None: ...
    def deep() -> None: ...

    f.__annotations__["return"] = list[Hostile()]  # type: ignore[misc]
    nested: Any = int
    for _ in range(5000):
        nested = list[nested] | None
    deep.__annotations__["return"] = nested
    contract = contract_of(f, deep)
    assert [each["method"] for each in contract["problems"]] == ["deep", "f"]
    # It can be encoded all the same.
    for name in ("python", "msgspec"):
        choose(name).encode(contract)


def test_bounds_that_cannot_be_carried_are_floats() -> None:
    def f() -> Annotated[float, pydantic.Field(le=2**70, ge=-(10**400))]: ...

    contract = contract_of(f)
    success = {"kind": "number", "maximum": 2.0**70, "minimum": -math.inf}
    assert contract["methods"]["f"]["success"] == success

    def g(least: int = -(2**63), most: int = 2**64 - 1) -> None: ...

    assert [each["default"] for each in payload_of(g)["fields"]] == [-(2**63), 2**64 - 1]


def test_what_cannot_be_encoded_in_a_text_is_replaced() -> None:
    def f() -> None: ...

    f.__doc__ = "lone \ud800 surrogate"
    contract = contract_of(f)
    assert contract["methods"]["f"]["doc"] == "lone \\ud800 surrogate"
    choose("python").encode(contract)


def test_texts_are_within_what_a_host_reads() -> None:
    def f(
        text: Annotated[str, msgspec.Meta(pattern="a" * 2000, description="d" * 100_000)] = "x"
        * 70_000,
    ) -> None: ...

    f.__doc__ = "d" * 100_000
    contract = contract_of(f)
    (field,) = contract["methods"]["f"]["payload"]["fields"]
    assert field.keys() == {"name", "type", "required", "doc"}
    assert field["type"] == STRING
    for doc in (field["doc"], contract["methods"]["f"]["doc"]):
        assert 30_000 < len(doc) < 65_536 and doc.endswith("d…")


def test_the_contract_does_not_depend_on_the_order_of_handlers() -> None:
    def a(job: Job) -> None: ...
    def b() -> Job: ...

    assert contract_of(a, b) == contract_of(b, a)


# Workers

MODULE = """
    from __future__ import annotations

    import enum
    from dataclasses import dataclass
    from typing import TYPE_CHECKING

    import synapse

    if TYPE_CHECKING:
        from nowhere import Nothing

    @dataclass
    class Job:
        "Work."

        text: str
        count: int = 1

    class Full(synapse.Error):
        limit: int

    @synapse.service
    class Queue:
        @synapse.handler(raises=Full)
        def put(self, job: Job, big: synapse.Int64 = 0) -> list[Job]:
            "Put it."
            return [job]

    @synapse.handler
    def later() -> Nothing: ...
"""


def hello_of(worker: Worker) -> dict[str, Any]:
    got = worker.receive()
    assert got.kind == HELLO
    return got.payload


def launch_with_contract(directory: Path, **options: Any) -> Worker:
    return Worker(directory, "--contract", launcher=[str(MAIN), "main"], **options)


def test_a_worker_that_is_asked_tells_its_contract(tmp_path: Path) -> None:
    write(tmp_path, MODULE)
    worker = launch_with_contract(tmp_path)
    try:
        hello = hello_of(worker)
        contract = hello["contract"]
        assert contract["version"] == 1
        job = {"kind": "ref", "name": "Job"}

        def at(text: str) -> Any:
            lines = MODULE.splitlines()
            found = next(i for i, each in enumerate(lines, 1) if each.strip().startswith(text))
            return {"file": "main.py", "line": found}

        assert contract["methods"] == {
            "later": {
                "place": at("def later"),
                "payload": {"kind": "none"},
                "success": UNKNOWN,
                "stream": False,
                "raises": [],
            },
            "put": {
                "doc": "Put it.",
                "place": at("def put"),
                "payload": {
                    "kind": "fields",
                    "fields": [
                        {"name": "job", "type": job, "required": True},
                        {"name": "big", "type": {"kind": "int64"}, "required": False, "default": 0},
                    ],
                },
                "success": {"kind": "list", "items": job},
                "stream": False,
                "raises": ["Full"],
            },
        }
        assert contract["definitions"] == {
            "Full": {
                "kind": "error",
                "fields": [
                    {"name": "message", "type": STRING, "required": True},
                    {"name": "limit", "type": INTEGER, "required": True},
                ],
                "place": at("class Full"),
            },
            "Job": {
                "kind": "struct",
                "fields": [
                    {"name": "text", "type": STRING, "required": True},
                    {
                        "name": "count",
                        "type": INTEGER,
                        "required": False,
                        "default": 1,
                        "always": True,
                    },
                ],
                "open": True,
                "doc": "Work.",
                "place": at("class Job"),
            },
        }
        assert [each["path"] for each in contract["problems"]] == ["return"]
        worker.send_welcome()
        assert worker.value("put", {"job": {"text": "a"}}) == [{"text": "a", "count": 1}]
    finally:
        worker.close()


def test_a_worker_that_is_not_asked_tells_none(launch: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import sys
        import synapse

        @synapse.handler
        def loaded() -> list[str]:
            return [name for name in sys.modules if name.startswith("synapse._contract")]
        """,
    )
    worker = launch()
    assert hello_of(worker)["contract"] is None
    worker.send_welcome()
    assert worker.value("loaded") == []


def test_the_arguments_of_a_worker_are_checked(tmp_path: Path) -> None:
    for arguments in ([], ["main", "--other"], ["main", "--contract", "more"], ["--contract"]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", _RUN, str(MAIN.parents[1]), *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 78
        assert "name of a module" in done.stderr


_RUN = inspect.cleandoc(
    """
    import sys
    sys.path.insert(0, sys.argv[1])
    from synapse import _start
    _start._asked(sys.argv[2:])
    """
)

BARE = """
    import dataclasses
    import enum
    import sys
    import typing

    sys.modules["msgspec"] = None
    sys.path.insert(0, sys.argv[1])
    import synapse
    from synapse import _codec, _contract, _handlers

    class Color(enum.Enum):
        RED = "red"

    @dataclasses.dataclass
    class Job:
        n: synapse.Int64
        color: Color = Color.RED

    class Options(typing.TypedDict):
        n: int

    @synapse.handler
    def f(job: Job, options: Options, n: synapse.Int64 = 0) -> typing.Iterator[Job]:
        yield job

    codec = _codec.choose()
    assert codec.name in ("python", "msgpack"), codec.name
    for handler in _handlers.registry.values():
        handler.prepare(codec)
    contract = _contract.describe(_handlers.registry.values(), ".")
    assert contract["problems"] == [], contract
    assert contract["definitions"]["Job"]["fields"][0]["type"] == {"kind": "int64"}
    for name in ("msgspec", "pydantic", "numpy", "attr", "pyarrow"):
        assert sys.modules.get(name) is None, name
    (handler,) = _handlers.registry.values()
    def call(n):
        payload = {"job": {"n": n}, "options": {"n": 1}}
        return handler.bind(codec.encode(payload))
    call(2**63 - 1)
    try:
        call(2**63)
    except _codec.DecodeIssue as issue:
        assert str(issue) == "Expected `int` <= 9223372036854775807 (at $.job.n)", issue
    else:
        raise AssertionError
"""


def test_the_standard_library_is_enough() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", inspect.cleandoc(BARE), str(MAIN.parents[1])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_handlers, "registry", {})
