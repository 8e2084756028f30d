"""`synapse.Controller`: lines 1 to 9 and 12 of what Bindings and ChatModel do, on this side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_lifecycle import PRELUDE, events
from wire import (
    DIE,
    FAIL,
    PROGRESS,
    RELEASE,
    SUCCESS,
    Got,
    Worker,
    frame,
)

import synapse
from synapse import _handlers

Start = Callable[..., Worker]

CHAT = (
    PRELUDE
    + """
    class Full(synapse.Error):
        limit: int

    class Controller(synapse.Controller):
        model: str = "none"
        tokenizer: int | None = None
        counter = 0
        anything = None

        def getModelPath(self, params): return {"model": self.model}

        def getTokenizer(self, params): return {"tokenizer": self.tokenizer}

        def increment(self, params):
            self.counter += params.get("by", 1)
            return {"counter": self.counter}

        def reset(self, params):
            self.counter = 0
            return {"counter": 0}

        def add(self, a: int, b: int = 0) -> int: return a + b

        def testStream(self, params):
            for part in range(params.get("parts", 3)):
                self.send({"part": part})
            return {"done": True}

        async def later(self):
            await asyncio.sleep(0)
            self.send("later")
            return self.counter

        def words(self):
            yield from ("a", "b")

        def fail(self, params): raise ValueError("no")

        def full(self, params): raise Full(limit=3)

        def unfit(self, params): return object()

        def _private(self, params): return "private"

        @property
        def loud(self): return self.model.upper()

        def close(self): note("closed")

    class Other(synapse.Controller, name="second"):
        def whoami(self): return "other"

    class Base(synapse.Controller, name=None):
        pass
    """
)


@pytest.fixture
def chat(start: Start) -> Worker:
    return start(CHAT)


def open_it(worker: Worker, name: str = "Controller", **properties: Any) -> int:
    handle: int = worker.value(name, properties, hold=True)["handle"]
    return handle


def with_sent(worker: Worker, method: str, value: Any, **meta: Any) -> tuple[list[Any], Got]:
    """What a call sent before its end, and the end."""
    worker.request(method, value, progress=True, **meta)
    sent = []
    while (got := worker.receive()).kind == PROGRESS:
        sent.append(got.payload)
    return sent, got


def test_1_initial_properties_are_set_before_later_calls(chat: Worker) -> None:
    it = open_it(chat, model="something", anything=[1])
    assert chat.value("getModelPath", {}, target=it) == {"model": "something"}
    assert chat.value("getProperty", {"name": "anything"}, target=it) == [1]


def test_2_properties_are_set_and_read(chat: Worker) -> None:
    it = open_it(chat)
    assert chat.value("setProperty", {"name": "tokenizer", "value": 123}, target=it) is None
    assert chat.value("getTokenizer", {}, target=it) == {"tokenizer": 123}
    assert chat.value("getProperty", {"name": "tokenizer"}, target=it) == 123
    chat.value("setProperty", {"name": "made", "value": {"a": 1}}, target=it)
    assert chat.value("getProperty", {"name": "made"}, target=it) == {"a": 1}
    assert chat.value("getProperty", {"name": "loud"}, target=it) == "NONE"


def test_3_state_persists_between_calls_and_instances_are_independent(chat: Worker) -> None:
    one, two = open_it(chat), open_it(chat)
    assert chat.value("increment", {"by": 5}, target=one) == {"counter": 5}
    assert chat.value("increment", {"by": 5}, target=one) == {"counter": 10}
    assert chat.value("increment", {}, target=two) == {"counter": 1}
    assert chat.value("reset", {}, target=one) == {"counter": 0}
    assert chat.value("add", {"a": 2, "b": 3}, target=one) == 5


def test_6_what_is_sent_comes_in_order_before_the_result(chat: Worker) -> None:
    it = open_it(chat)
    sent, end = with_sent(chat, "testStream", {"parts": 500}, target=it)
    assert sent == [{"part": part} for part in range(500)]
    assert (end.kind, end.payload) == (SUCCESS, {"done": True})
    assert with_sent(chat, "later", None, target=it)[0] == ["later"]
    # Nobody listens.
    assert chat.value("testStream", {}, target=it) == {"done": True}


def test_7_unknown_methods_and_exceptions_are_answers(chat: Worker) -> None:
    it = open_it(chat)
    got = chat.call("incremen", {}, target=it)
    assert (got.kind, got.meta["reason"]) == (DIE, "MethodNotFound")
    assert "increment" in got.payload["nearest"]
    got = chat.call("fail", {}, target=it)
    assert (got.kind, got.payload["type"], got.payload["message"]) == (DIE, "ValueError", "no")
    got = chat.call("full", {}, target=it)
    assert (got.kind, got.payload["_tag"], got.payload["limit"]) == (FAIL, "Full", 3)
    assert chat.value("increment", {}, target=it) == {"counter": 1}


def test_8_the_base_offers_what_it_did() -> None:
    class Plain(synapse.Controller, name=None):
        def greet(self, params: dict[str, Any]) -> str:
            self.send("hello")
            return f"hello {params['name']}"

    plain = Plain()
    sent: list[Any] = []
    with pytest.raises(RuntimeError, match="set_stream_func"):
        plain.greet({"name": "Ada"})
    plain.set_stream_func(sent.append)
    assert plain.greet({"name": "Ada"}) == "hello Ada"
    assert sent == ["hello"]
    plain.setProperty({"name": "model", "value": "m"})
    assert plain.getProperty({"name": "model"}) == "m"
    other: Any = Plain()
    with pytest.raises(RuntimeError):
        other.send(1)
    with pytest.raises(TypeError, match="expected a function"):
        other.set_stream_func("print")


def test_9_a_result_that_cannot_be_carried_is_an_error(chat: Worker) -> None:
    it = open_it(chat)
    assert chat.call("unfit", {}, target=it).meta["reason"] == "EncodeFailed"
    assert chat.value("increment", {}, target=it) == {"counter": 1}


def test_12_private_names_are_neither_methods_nor_properties(chat: Worker) -> None:
    it = open_it(chat)
    assert chat.call("_private", {}, target=it).meta["reason"] == "MethodNotFound"
    for name, why in {"_x": "private", "increment": "method", "a b": "cannot name"}.items():
        for method in ("setProperty", "getProperty"):
            got = chat.call(method, {"name": name, "value": 1}, target=it)
            assert got.payload["type"] == "AttributeError"
            assert why in got.payload["message"]
    got = chat.call("getProperty", {"name": "modell"}, target=it)
    assert "did you mean `model`?" in got.payload["message"]


def test_a_property_takes_values_of_its_type(chat: Worker) -> None:
    it = open_it(chat)
    got = chat.call("setProperty", {"name": "model", "value": 1}, target=it)
    assert got.meta["reason"] == "DecodeFailed"
    assert got.payload["path"] == "$.model"
    assert chat.call("Controller", {"model": 1}, hold=True).meta["reason"] == "DecodeFailed"
    assert chat.call("setProperty", {"name": "loud", "value": "x"}, target=it).kind == DIE
    assert chat.value("getModelPath", {}, target=it) == {"model": "none"}


def test_generators_are_streams(chat: Worker) -> None:
    it = open_it(chat)
    items, end = chat.items(chat.stream("words", None, target=it))
    assert (items, end.kind) == (["a", "b"], SUCCESS)


def test_is_closed_when_it_is_let_go_of(chat: Worker, tmp_path: Path) -> None:
    it = open_it(chat)
    chat.send(frame(RELEASE, it))
    assert chat.call("increment", {}, target=it).meta["reason"] == "Unsupported"
    open_it(chat)
    assert chat.shut_down() == 0
    assert events(tmp_path) == ["closed", "closed"]


def test_is_known_by_its_name(chat: Worker) -> None:
    assert [each["name"] for each in chat.hello["methods"]] == ["Controller", "second"]
    assert chat.value("whoami", None, target=open_it(chat, "second")) == "other"
    got = chat.call("Controller", {})
    assert got.meta["reason"] == "Unsupported"


# Declaring


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    registered: dict[str, Any] = {}
    monkeypatch.setattr(_handlers, "registry", registered)
    monkeypatch.setattr("synapse._controller.registry", registered)
    yield registered


def test_a_subclass_takes_the_place_of_its_base(registry: dict[str, Any]) -> None:
    class Chat(synapse.Controller):
        pass

    base = Chat

    class Chat(base):  # type: ignore[no-redef,valid-type,misc]
        pass

    assert registry["Chat"].cls is Chat


def test_two_classes_of_one_name_are_refused(registry: dict[str, Any]) -> None:
    class One(synapse.Controller, name="chat"):
        pass

    with pytest.raises(ValueError, match="two handlers are called `chat`"):

        class Two(synapse.Controller, name="chat"):
            pass

    @synapse.handler
    def taken() -> None: ...

    with pytest.raises(ValueError, match="two handlers are called `taken`"):

        class Three(synapse.Controller, name="taken"):
            pass

    assert list(registry) == ["chat", "taken"]


@pytest.mark.parametrize("name", ["a b", "$x", "x" * 201])
def test_names_are_checked(registry: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a handler"):
        type("Odd", (synapse.Controller,), {}, name=name)


def test_a_constructor_has_to_do_without_arguments(registry: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="`model` has no default"):

        class Needy(synapse.Controller):
            def __init__(self, model: str) -> None: ...

    class Fine(synapse.Controller):
        def __init__(self, *rest: Any, model: str = "m", **more: Any) -> None: ...

    assert list(registry) == ["Fine"]
