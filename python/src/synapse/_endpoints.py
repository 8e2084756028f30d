"""Endpoints of a server: handlers that also take positional arguments, and may ask who calls."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, Final, NamedTuple

from synapse._binding import hints_of, takes_all
from synapse._codec import Codec
from synapse._context import current_call
from synapse._declared import Error
from synapse._handlers import Cancel, Handler, check_parameters
from synapse._wire_p2p0 import RemoteProcedureCall

_INJECTED: Final = ("rpc", "node")


class Node(NamedTuple):
    """Who calls an endpoint: what it is given as `node`."""

    identifier: str
    ip: str
    port: int


def to_node(ip: str, port: int) -> Node:
    return Node(hashlib.sha256(f"{ip}:{port}".encode()).hexdigest()[:8], ip, port)


class Misfit(Exception):
    """Arguments that an endpoint does not take."""


class Endpoint(Handler):
    """A function of a server. Its `rpc` and `node`, where it has such parameters, are filled in."""

    __slots__ = ("_shape", "_takes_all", "wants_caller")

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        raises: tuple[type[Error], ...],
        cancel: Cancel,
        stream: bool,
    ) -> None:
        super().__init__(function, name, raises, cancel, stream)
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        rest = any(each.kind is Parameter.VAR_KEYWORD for each in parameters)
        injected = [each for each in _INJECTED if rest or each in signature.parameters]
        own = [each for each in parameters if each.name not in _INJECTED]
        self.wants_caller = bool(injected)
        self._shape = _shaped(function, signature.replace(parameters=own))
        check_parameters(self._shape, name)
        self._takes_all = False
        if injected:
            self.function = _injecting(function, name, injected)

    def prepare(self, codec: Codec) -> None:
        from synapse._binding import binder

        self.bind = binder(self._shape, self.name, codec)
        own = list(inspect.signature(self._shape).parameters.values())
        hints = hints_of(self._shape, self.name)
        self._takes_all = len(own) == 1 and takes_all(own[0], hints.get(own[0].name, Any))

    def to_payload(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """The input that gives the function these arguments.

        Raises:
            Misfit: It does not take them.
        """
        try:
            bound = inspect.signature(self._shape).bind(*args, **kwargs)
        except TypeError as error:
            raise Misfit(str(error)) from None
        if self._takes_all:
            return next(iter(bound.arguments.values()), None)
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            parameter = bound.signature.parameters[name]
            named.update(value if parameter.kind is Parameter.VAR_KEYWORD else {name: value})
        return named


def _shaped(function: Callable[..., Any], signature: inspect.Signature) -> Callable[..., Any]:
    """A stand-in for a function, with other parameters; what it says of them stays."""

    @functools.wraps(function)
    def shape() -> None: ...

    shape.__signature__ = signature  # type: ignore[attr-defined]
    return shape


def _injecting(function: Callable[..., Any], name: str, injected: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **named: Any) -> Any:
        call = current_call.get()
        meta = (call.extras.meta if call is not None and call.extras is not None else None) or {}
        ip, port = meta.get("caller") or ("", 0)
        caller = {
            "rpc": RemoteProcedureCall(name, [*args, *named.values()]),
            "node": to_node(ip, port),
        }
        return function(*args, **{**named, **{each: caller[each] for each in injected}})

    return call
