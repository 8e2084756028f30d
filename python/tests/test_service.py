from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_lifecycle import PRELUDE, concurrencies, events, failure_of
from wire import CANCEL, DIE, FAIL, INTERRUPTED, Worker, frame, write

import synapse
from synapse import _background, _handlers, _hooks, _members

Start = Callable[..., Worker]

MODEL = """
    @synapse.service
    class Model:
        def __init__(self):
            note("made")
            self.count = 0

        @synapse.handler
        def embed(self, text: str, scale: int = 1) -> list[int]:
            self.count += 1
            return [len(text) * scale]

        @synapse.handler(name="model.whole")
        async def whole(self, payload):
            await asyncio.sleep(0)
            return [payload, self.count]

        @synapse.handler
        def calls(self): return self.count
"""


# In a worker


@concurrencies
def test_the_methods_of_one_instance_are_handlers(
    start: Start, tmp_path: Path, concurrency: int
) -> None:
    worker = start(PRELUDE + MODEL, welcome={"concurrency": concurrency})
    assert worker.value("embed", {"text": "abc"}) == [3]
    assert worker.value("embed", {"text": "abc", "scale": 2}) == [6]
    assert worker.value("model.whole", {"self": 1}) == [{"self": 1}, 2]
    assert worker.value("calls") == 2
    assert events(tmp_path) == ["made"]


def test_hello_names_the_methods(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, PRELUDE + MODEL)
    assert launch().receive().payload["methods"] == [
        {"name": "embed", "stream": False, "async": False},
        {"name": "model.whole", "stream": False, "async": True},
        {"name": "calls", "stream": False, "async": False},
    ]


def test_arguments_are_checked_as_those_of_functions_are(start: Start) -> None:
    worker = start(PRELUDE + MODEL)
    issues = [
        worker.call("embed", value).payload["issue"]
        for value in ({"text": 5}, {}, {"text": "a", "self": 1})
    ]
    assert issues[0] == "Expected `str`, got `int`"
    assert "missing the key `text`" in issues[1]
    assert "unknown key `self`" in issues[2]


def test_methods_keep_the_options_of_handlers(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    class Empty(synapse.Error):
        left: int

    @synapse.service
    class Queue:
        @synapse.handler(name="queue.take", raises=[Empty])
        def take(self):
            raise Empty(left=0)
    """
    )
    got = worker.call("queue.take")
    assert (got.kind, got.payload["_tag"], got.payload["left"]) == (FAIL, "Empty", 0)


def test_instances_and_hooks_come_in_the_order_of_the_module(start: Start, tmp_path: Path) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.on_start
    def before(): note("before")

    @synapse.service
    class Model:
        def __init__(self): note("made")

        @synapse.on_start
        async def warm_up(self): note("warm " + type(self).__name__)

        @synapse.on_stop
        def close(self): note("close " + type(self).__name__)

        @synapse.handler
        def main(self): return 1

    @synapse.on_start
    def after(): note("after")

    @synapse.on_stop
    def end(): note("end")
    """
    )
    assert worker.value("main") == 1
    assert events(tmp_path) == ["before", "made", "warm Model", "after"]
    assert worker.shut_down(10_000) == 0
    assert events(tmp_path)[4:] == ["end", "close Model"]


@pytest.mark.parametrize("define", ["def", "async def"])
def test_a_method_runs_in_the_background(start: Start, define: str) -> None:
    worker = start(
        PRELUDE
        + f"""
    @synapse.service
    class Cache:
        runs = 0

        @synapse.background(seconds=0.001)
        {define} refresh(self):
            self.runs += 1
            print(self.runs)

        @synapse.handler
        def main(self): return self.runs > 0
    """
    )
    assert [worker.next_log()["message"] for _ in range(3)] == ["1", "2", "3"]
    assert worker.value("main") is True


def test_an_instance_that_cannot_be_made_fails_the_start(launch: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        PRELUDE
        + """
    @synapse.service
    class Model:
        def __init__(self):
            raise OSError("no weights")

        @synapse.on_stop
        def close(self): note("closed")
    """,
    )
    worker = launch()
    failure = failure_of(worker)
    assert (failure["type"], failure["message"]) == ("OSError", "no weights")
    assert [each["function"].rpartition(".")[2] for each in failure["frames"]] == ["__init__"]
    assert worker.wait() == 1
    assert events(tmp_path) == []


def test_a_method_of_a_class_that_is_no_service_fails_the_start(
    launch: Start, tmp_path: Path
) -> None:
    write(
        tmp_path,
        PRELUDE
        + """
    class Model:
        @synapse.handler
        def embed(self, text: str): return text
    """,
    )
    failure = failure_of(launch())
    assert failure["type"] == "TypeError"
    assert "@synapse.handler on `Model.embed`" in failure["message"]
    assert "decorate the class with @synapse.service" in failure["message"]


def test_handlers_of_bases_are_found(start: Start, tmp_path: Path) -> None:
    worker = start(
        PRELUDE
        + """
    class Base:
        @synapse.handler
        def inherited(self): return [type(self).__name__, "inherited"]

        @synapse.handler
        def overridden(self): return "base"

        @synapse.handler(name="renamed")
        def decorated(self): return "base"

        @synapse.handler
        def removed(self): return "base"

        @synapse.on_start
        def begin(self): note("base")

    class Between(Base):
        def overridden(self, number: int): return number

    @synapse.service
    class Sub(Between):
        removed = None

        @synapse.handler(name="anew")
        def decorated(self): return "sub"

        def begin(self):
            super().begin()
            note("sub")
    """
    )
    assert worker.value("inherited") == ["Sub", "inherited"]
    assert worker.value("overridden", {"number": 5}) == 5
    assert worker.value("anew") == "sub"
    for gone in ("renamed", "removed", "decorated"):
        got = worker.call(gone)
        assert (got.kind, got.meta["reason"]) == (DIE, "MethodNotFound")
    assert events(tmp_path) == ["base", "sub"]


def test_methods_without_self_are_handlers_too(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.service
    class Tools:
        scale = 3

        @synapse.handler
        @staticmethod
        def one(number: int): return number

        @staticmethod
        @synapse.handler
        def two(number: int): return number

        @synapse.handler
        @classmethod
        def three(cls, number: int): return number * cls.scale

        @classmethod
        @synapse.handler
        async def four(cls, number: int): return number * cls.scale
    """
    )
    called = [worker.value(name, {"number": 2}) for name in ("one", "two", "three", "four")]
    assert called == [2, 2, 6, 6]


def test_a_method_may_be_wrapped_and_annotated(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    import functools

    def twice(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs) * 2
        return wrapper

    @synapse.service
    class Tools:
        @twice
        @synapse.handler
        def outside(self: "Tools", number: int): return number

        @synapse.handler
        @twice
        def inside(self: "Tools", number: int): return number
    """
    )
    assert worker.value("outside", {"number": 2}) == 4
    assert worker.value("inside", {"number": 2}) == 4
    assert worker.call("inside", {"number": "2"}).payload["issue"] == "Expected `int`, got `str`"


def test_a_dataclass_with_slots_may_be_a_service(start: Start) -> None:
    worker = start(
        PRELUDE
        + """
    from dataclasses import dataclass, field

    @synapse.service
    @dataclass(slots=True)
    class Counter:
        counts: dict[str, int] = field(default_factory=dict)

        @synapse.handler
        def add(self, name: str):
            self.counts[name] = self.counts.get(name, 0) + 1
            return self.counts
    """
    )
    worker.value("add", {"name": "a"})
    assert worker.value("add", {"name": "a"}) == {"a": 2}


def test_an_asynchronous_method_is_cancelled(start: Start, tmp_path: Path) -> None:
    worker = start(
        PRELUDE
        + """
    @synapse.service
    class Waiter:
        @synapse.handler
        async def wait(self):
            print("waiting")
            try:
                await asyncio.Event().wait()
            finally:
                note("cancelled")
    """
    )
    id = worker.request("wait")
    assert worker.next_log()["message"] == "waiting"
    worker.send(frame(CANCEL, id))
    assert worker.receive().kind == INTERRUPTED
    assert events(tmp_path) == ["cancelled"]


def test_services_of_one_base_may_not_share_its_handlers(launch: Start, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        import synapse

        class Base:
            @synapse.handler
            def main(self): pass

        @synapse.service
        class One(Base): pass

        @synapse.service
        class Two(Base): pass
        """,
    )
    message = failure_of(launch())["message"]
    assert message == f"two handlers are called `main`: {path}:5 of One and {path}:5 of Two"


def test_a_module_that_is_loaded_again_is_no_conflict(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, PRELUDE + MODEL, "models.py")
    write(
        tmp_path,
        """
        import importlib
        import models
        importlib.reload(models)
        """,
    )
    worker = launch()
    assert "failure" not in worker.receive().payload
    worker.send_welcome()
    assert worker.value("embed", {"text": "a"}) == [1]
    assert worker.value("calls") == 1


# Decorating


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    handlers: dict[str, Any] = {}
    monkeypatch.setattr(_handlers, "registry", handlers)
    for module, name in (
        (_hooks, "starts"),
        (_hooks, "stops"),
        (_background, "registry"),
    ):
        monkeypatch.setattr(module, name, [])
    monkeypatch.setattr(_members, "members", known := [])
    monkeypatch.setattr("synapse._service.members", known)
    return handlers


def test_a_service_stays_the_class_that_it_was() -> None:
    class Model:
        @synapse.handler(name="embed")
        def method(self, text: str) -> int:
            return len(text)

        @synapse.on_start
        async def load(self) -> None: ...

    method = vars(Model)["method"]
    assert synapse.service(Model) is Model
    assert vars(Model)["method"] is method
    assert Model().method("abc") == 3


def test_what_cannot_be_a_service_is_refused() -> None:
    for wrong in (5, lambda: None):
        with pytest.raises(TypeError, match="decorates classes"):
            synapse.service(wrong)  # type: ignore[type-var]

    class Needy:
        def __init__(self, path: str, more: int = 1) -> None: ...

    with pytest.raises(TypeError, match=r"`.*Needy`.*without arguments, and `path` has no default"):
        synapse.service(Needy)


def test_a_member_that_something_hides_is_told() -> None:
    def unnamed(function: Any) -> Any:
        return lambda *args: function(*args)

    class Model:
        @unnamed
        @synapse.handler
        def embed(self, text: str) -> str:
            return text

    with pytest.raises(TypeError, match=r"`embed` is not found .* put that decorator above"):
        synapse.service(Model)


@pytest.mark.parametrize(
    "decorate", [synapse.handler, synapse.on_start, synapse.on_stop, synapse.background(seconds=1)]
)
def test_a_method_without_a_service_is_told_when_the_module_is_loaded(decorate: Any) -> None:
    class Model:
        @decorate
        def method(self) -> None: ...

    with pytest.raises(TypeError, match=r"Model\.method`: it is a method.*@synapse\.service"):
        _members.check_all_claimed()
    synapse.service(Model)
    _members.check_all_claimed()


def test_a_method_is_known_by_where_it_stands_not_by_its_parameters(
    registry: dict[str, Any],
) -> None:
    def declared(function: Any) -> Any:
        return synapse.handler(name=f"my.{function.__name__}")(function)

    class Model:
        @synapse.handler
        def one(this, text: str) -> str:
            return text

        @declared
        def two(self) -> None: ...

        @declared
        @functools.lru_cache  # noqa: B019
        def three(self) -> None: ...

        def build(self) -> Any:
            @synapse.handler
            def inner(self: int) -> int:
                return self

            return inner

    assert not registry
    Model().build()
    assert set(registry) == {"inner"}
    synapse.service(Model)
    assert set(registry) == {"inner", "one", "my.two", "my.three"}


def test_parentheses_without_options_change_nothing(start: Start) -> None:
    worker = start(
        """
        import synapse

        steps = []

        @synapse.service()
        class Model:
            @synapse.on_start()
            def load(self) -> None:
                steps.append("loaded")

            @synapse.handler()
            def seen(self) -> list:
                return steps
        """
    )
    assert worker.value("seen", {}) == ["loaded"]
