"""The contract of a module: what its handlers take, give and raise, as `Hello` carries it.

It is made of the annotations that the payloads of calls are bound by, and never keeps a worker from
starting: what it cannot describe stands as `unknown`, beside a problem that says what to do.
"""

from __future__ import annotations

import collections.abc as abc
import inspect
import math
import typing
from collections.abc import Iterable, Mapping
from inspect import Parameter
from typing import Any, Final

from synapse._annotations import resolved, routine_of, written
from synapse._binding import hints_of, takes_all
from synapse._contract_classes import MISSING, define, doc_of_hint, field
from synapse._contract_names import names_of, resolve
from synapse._contract_places import Places, doc_of_function
from synapse._contract_types import LEAST, MOST, UNKNOWN, Describer, Spot, unresolved
from synapse._declared import Error
from synapse._handlers import Handler
from synapse._incoming import Stream

_VERSION: Final = 1
_AWAITED: Final = ("Awaitable", "Coroutine", "Future", "Task")
_ITERATED: Final = (
    abc.Iterator,
    abc.Iterable,
    abc.Generator,
    abc.AsyncIterator,
    abc.AsyncIterable,
    abc.AsyncGenerator,
    abc.Sequence,
    abc.Collection,
    abc.Set,
    list,
    set,
    frozenset,
    Stream,
)


def describe(handlers: Iterable[Handler], directory: str) -> dict[str, Any]:
    """The contract of handlers.

    Args:
        handlers: Handlers that have been prepared.
        directory: The module's, which places are relative to.
    """
    contract = _Contract(directory)
    for handler in sorted(handlers, key=lambda each: each.name):
        contract.add(handler)
    return contract.finish()


class _Contract:
    def __init__(self, directory: str) -> None:
        self._places = Places(directory)
        self._describer = Describer(self._places, define)
        self._methods: dict[str, dict[str, Any]] = {}

    def add(self, handler: Handler) -> None:
        try:
            place = self._places.of_function(handler.function)
        except Exception:
            place = None
        method: dict[str, Any] = {}
        doc = _quietly(lambda: doc_of_function(handler.function))
        if doc is not None:
            method["doc"] = doc
        if place is not None:
            method["place"] = place
        into = Spot(handler.name, "payload", place, "in")
        back = Spot(handler.name, "return", place, "out")
        try:
            method["payload"] = self._payload(handler, into)
        except Exception as error:
            unknown = self._describer.problem(into, _failed(error))
            method["payload"] = {"kind": "whole", "type": unknown, "required": False}
        try:
            method["success"] = self._success(handler, back)
        except Exception as error:
            method["success"] = self._describer.problem(back, _failed(error))
        method["stream"] = handler.is_stream
        method["raises"] = self._raises(handler, back)
        self._methods[handler.name] = method

    def _payload(self, handler: Handler, spot: Spot) -> dict[str, Any]:
        parameters = list(inspect.signature(handler.function).parameters.values())
        if not parameters:
            return {"kind": "none"}
        hints = hints_of(handler.function, handler.name)
        first = parameters[0]
        if len(parameters) == 1 and takes_all(first, hints.get(first.name, Any)):
            described = self._describer.of(hints.get(first.name, Any), _at(spot, first))
            return {"kind": "whole", "type": described, "required": first.default is MISSING}
        fields: list[dict[str, Any]] = []
        payload: dict[str, Any] = {"kind": "fields", "fields": fields}
        for each in parameters:
            annotation = hints.get(each.name, Any)
            described = self._describer.of(annotation, _at(spot, each))
            if each.kind is Parameter.VAR_KEYWORD:
                payload["rest"] = described
                continue
            required = each.default is MISSING
            fields.append(
                field(each.name, described, required, each.default, doc_of_hint(annotation))
            )
        return payload

    def _success(self, handler: Handler, spot: Spot) -> dict[str, Any]:
        target = routine_of(handler.function)
        annotation = written(target).get("return", MISSING)
        if annotation is MISSING:
            return UNKNOWN
        try:
            found = resolved({"return": annotation}, target, target.__globals__)["return"]
        except Exception as error:
            return self._describer.problem(spot, unresolved("its return annotation", error))
        while getattr(typing.get_origin(found), "__name__", "") in _AWAITED:
            found = typing.get_args(found)[-1]
        if not handler.is_stream:
            return self._describer.of(found, spot)
        return self._item(found, spot)

    def _item(self, annotation: Any, spot: Spot) -> dict[str, Any]:
        """The type of the items of what is iterated over."""
        if typing.get_origin(annotation) is typing.Annotated:
            return self._item(typing.get_args(annotation)[0], spot)
        if annotation is Any or annotation is object:
            return UNKNOWN
        arguments = typing.get_args(annotation)
        kind = typing.get_origin(annotation) or annotation
        if kind is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return self._describer.of(arguments[0], spot)
        if kind in _ITERATED:
            return self._describer.of(arguments[0], spot) if arguments else UNKNOWN
        return self._describer.problem(
            spot,
            f"the items of `{annotation}` are not said: annotate the return as `Iterator[...]` or "
            f"`AsyncIterator[...]`",
        )

    def _raises(self, handler: Handler, spot: Spot) -> list[str]:
        for each in _with_subclasses(handler.raises):
            self._describer.refer(each, (), spot, {})
        return [each.__name__ for each in _with_subclasses(handler.raises)]

    def finish(self) -> dict[str, Any]:
        drafts = self._describer.drafts
        names = names_of(drafts)
        definitions: dict[str, Any] = {}
        for key in sorted(drafts, key=names.__getitem__):
            definition = resolve(drafts[key], names.__getitem__)
            known = definitions.setdefault(names[key], definition)
            if known != definition and definition["kind"] == "error":
                self._two_errors(key[0], known, definition)
        contract: dict[str, Any] = _carried(
            {
                "version": _VERSION,
                "methods": resolve(self._methods, names.__getitem__),
                "definitions": definitions,
                "problems": self._describer.problems,
            }
        )
        return contract

    def _two_errors(self, kind: type, known: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        if known["fields"] == other["fields"]:
            return
        method = next(
            name for name, each in self._methods.items() if kind.__name__ in each["raises"]
        )
        spot = Spot(method, f"raises {kind.__name__}", other.get("place"), "out")
        self._describer.problem(
            spot,
            f"two declared errors are called `{kind.__name__}`, and the name is their tag: rename "
            f"one of them",
        )


def _at(spot: Spot, parameter: Parameter) -> Spot:
    return Spot(spot.method, f"parameter {parameter.name}", spot.place, spot.way)


def _with_subclasses(kinds: Iterable[type[Error]]) -> list[type[Error]]:
    """Errors and those that are raised as one of them."""
    found = dict.fromkeys(kinds)
    waiting = list(found)
    while waiting:
        for each in waiting.pop().__subclasses__():
            if each not in found:
                found[each] = None
                waiting.append(each)
    return sorted(found, key=lambda each: (each.__name__, each.__module__))


def _failed(error: Exception) -> str:
    return f"it cannot be described: {type(error).__name__}: {error}"


def _quietly(get: Any) -> Any:
    try:
        return get()
    except Exception:
        return None


def _carried(value: Any) -> Any:
    """With every text as one that can be encoded, and every number."""
    if isinstance(value, dict):
        return {_carried(key): _carried(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_carried(each) for each in value]
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, int) and not LEAST <= value <= MOST:
        return _float(value)
    return value


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
