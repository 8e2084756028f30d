from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

import synapse
from synapse import _handlers


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    handlers: dict[str, Any] = {}
    monkeypatch.setattr(_handlers, "registry", handlers)
    return handlers


class PromptTooLong(synapse.Error):
    """The prompt does not fit.

    More about it.
    """

    limit: int
    unit: str = "tokens"
    seen: list[int] = []  # noqa: RUF012
    shared: ClassVar[int] = 5
    _private: int


class Plain(synapse.Error):
    pass


class Inherited(PromptTooLong):
    other: int = 1


# handler


def test_a_handler_stays_the_function_that_it_was(registry: dict[str, Any]) -> None:
    def f(x: int) -> int:
        return x + 1

    assert synapse.handler(f) is f
    assert synapse.handler(name="other")(f) is f
    assert f(1) == 2
    assert set(registry) == {"f", "other"}


def test_the_kind_of_a_handler_is_seen_through_wrappers(registry: dict[str, Any]) -> None:
    async def asynchronous() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    class Callable:
        async def __call__(self) -> None: ...

    synapse.handler(name="a")(functools.partial(asynchronous))
    synapse.handler(name="b")(functools.partial(generator))
    synapse.handler(name="c")(Callable())
    synapse.handler(name="d")(Callable().__call__)
    kinds = {name: (each.is_async, each.is_stream) for name, each in registry.items()}
    assert kinds == {"a": (True, False), "b": (False, True), "c": (True, False), "d": (True, False)}


@pytest.mark.parametrize("name", ["", "a b", "a\n", "\x00", "x" * 201, "a\u2028"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a handler"):
        synapse.handler(name=name)(lambda: None)


def test_names_that_begin_with_a_dollar_are_reserved() -> None:
    with pytest.raises(ValueError, match="begin with \\$ are reserved"):
        synapse.handler(name="$evaluate")(lambda: None)


def test_the_options_of_a_handler_are_checked(registry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`cancel` is one of 'cooperative', 'interrupt', 'rep"):
        synapse.handler(name="f", cancel="kill")(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="`stream` is True or False, not 1"):
        synapse.handler(name="f", stream=1)(lambda: None)  # type: ignore[call-overload]
    synapse.handler(name="f", cancel="interrupt", stream=True)(lambda: [])

    async def task() -> None: ...

    with pytest.raises(ValueError, match="cancelled as a task"):
        synapse.handler(cancel="interrupt")(task)
    assert (registry["f"].cancel, registry["f"].is_stream) == ("interrupt", True)


@pytest.mark.parametrize("name", ["a", "users.get", "Users/Get", "größe", "x" * 200])
def test_names_may_be_those_of_other_worlds(registry: dict[str, Any], name: str) -> None:
    synapse.handler(name=name)(lambda: None)
    assert name in registry


def test_a_function_without_a_name_is_given_one() -> None:
    with pytest.raises(ValueError, match="give the handler"):
        synapse.handler(lambda: None)


def test_what_is_no_function_is_refused() -> None:
    for wrong in (5, int, PromptTooLong):
        with pytest.raises(TypeError, match="decorates functions"):
            synapse.handler(wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="the name of a handler is text"):
        synapse.handler(name=5)(lambda: None)  # type: ignore[arg-type]


def test_raises_takes_declared_errors_only() -> None:
    with pytest.raises(TypeError, match=r"takes subclasses of synapse\.Error"):
        synapse.handler(raises=[ValueError])  # type: ignore[list-item]
        synapse.handler(raises=[ValueError], name="f")(lambda: None)  # type: ignore[list-item]


def test_raises_takes_one_error_alone(registry: dict[str, Any]) -> None:
    class Full(synapse.Error): ...

    synapse.handler(raises=Full, name="f")(lambda: None)
    assert registry["f"].raises == (Full,)
    for wrong in (ValueError, Full(), 5, None):
        with pytest.raises(TypeError, match=r"handler `g`: `raises` takes subclasses of synapse"):
            synapse.handler(raises=wrong, name="g")(lambda: None)  # type: ignore[call-overload]


def test_the_method_of_an_instance_is_a_function(registry: dict[str, Any]) -> None:
    class Other:
        def main(self, text: str) -> str:
            return text

        @staticmethod
        def free(text: str) -> str:
            return text

    @synapse.handler
    def inner(self: Any) -> Any:
        return self

    synapse.handler(Other().main)
    synapse.handler(Other.free)
    assert set(registry) == {"main", "free", "inner"}


def test_parameters_that_cannot_be_filled_are_refused() -> None:
    def rest(*args: int) -> None: ...

    def positional(a: int, b: int, /) -> None: ...

    with pytest.raises(TypeError, match=r"\*args cannot be filled"):
        synapse.handler(rest)
    with pytest.raises(TypeError, match="bound by name"):
        synapse.handler(positional)


def test_two_handlers_of_one_name_are_refused_with_both_places() -> None:
    synapse.handler(name="twice")(lambda: 1)
    with pytest.raises(ValueError, match=r"two handlers are called `twice`: .*py:\d+ and .*py:\d+"):
        synapse.handler(name="twice")(lambda: 2)


def test_a_module_that_is_loaded_again_replaces_its_handlers(registry: dict[str, Any]) -> None:
    source = "import synapse\n@synapse.handler\ndef again(): pass\n"
    code = compile(source, "again.py", "exec")
    exec(code, {})
    first = registry["again"]
    exec(code, {})
    assert registry["again"] is not first


# Error


def test_a_declared_error_has_its_fields() -> None:
    error = PromptTooLong(limit=3)
    assert (error.limit, error.unit, error.message) == (3, "tokens", "The prompt does not fit.")
    assert str(error) == "The prompt does not fit."
    assert PromptTooLong("No.", limit=3).message == "No."
    assert PromptTooLong(message="No.", limit=3).message == "No."
    assert Plain().message == "Plain"
    assert Inherited(limit=1, other=2).other == 2
    assert Inherited(limit=1).message == "Inherited"


def test_a_default_that_can_change_belongs_to_one_error() -> None:
    PromptTooLong(limit=1).seen.append(1)
    assert PromptTooLong(limit=1).seen == []


def test_the_constructor_of_a_declared_error_is_checked() -> None:
    with pytest.raises(TypeError, match=r"PromptTooLong\(\) misses `limit`"):
        PromptTooLong()
    with pytest.raises(TypeError, match="unknown field `limits`; it has `limit`, `unit`, `seen`"):
        PromptTooLong(limits=3)
    with pytest.raises(TypeError, match="takes fields by keyword, and its message as text"):
        PromptTooLong(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="two values for `message`"):
        PromptTooLong("a", message="b", limit=1)
    with pytest.raises(TypeError, match="it has none"):
        Plain(a=1)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("message", "give the text when raising it"),
        ("args", "give the field another one"),
        ("_tag", "name the class as the tag should be"),
    ],
)
def test_a_field_cannot_take_the_name_of_another_thing(name: str, remedy: str) -> None:
    with pytest.raises(TypeError, match=f"`Wrong.{name}`: a declared error cannot .*{remedy}"):
        type("Wrong", (synapse.Error,), {"__annotations__": {name: int}})


def test_a_declared_error_can_be_copied_and_pickled() -> None:
    for made in (pickle.loads(pickle.dumps(PromptTooLong("m", limit=3))), copy.copy(Plain("m"))):
        assert made.message == "m"
    assert pickle.loads(pickle.dumps(PromptTooLong("m", limit=3))).limit == 3


# The rest


def test_outside_of_a_handler_there_is_no_context() -> None:
    with pytest.raises(RuntimeError, match="outside of a handler"):
        synapse.context()

    async def asynchronous() -> None:
        synapse.context()

    with pytest.raises(RuntimeError):
        asyncio.run(asynchronous())


@pytest.mark.parametrize("name", synapse.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    public = getattr(synapse, name)
    if inspect.isfunction(public) or isinstance(public, type):
        assert public.__doc__
    if public is synapse.Context:
        members = [each for key, each in vars(public).items() if not key.startswith("_")]
        assert members and all(each.__doc__ for each in members)


@pytest.mark.parametrize(
    "function",
    [
        synapse.handler,
        synapse.context,
        synapse.Error,
        synapse.on_start,
        synapse.on_stop,
        synapse.background,
        synapse.replace_me,
        synapse.service,
        synapse.Handle,
        synapse.stats,
    ],
)
def test_the_examples_of_the_documentation_run(function: Any) -> None:
    import doctest

    finder = doctest.DocTestFinder(recurse=False)
    namespace = {"Error": synapse.Error, "synapse": synapse}
    (test,) = finder.find(function, globs=namespace)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0
