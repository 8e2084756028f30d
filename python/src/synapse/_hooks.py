"""What a module does when its worker starts and when it ends: `@synapse.on_start` and `on_stop`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

from synapse._handlers import underlying, unwrapped
from synapse._members import defer

F = TypeVar("F", bound=Callable[..., Any])


class Hook:
    """A function without arguments that the worker calls."""

    __slots__ = ("function", "is_async", "name")

    def __init__(self, function: Callable[[], Any], name: str) -> None:
        self.function = function
        self.name = name
        self.is_async = inspect.iscoroutinefunction(underlying(function))


starts: Final[list[Hook]] = []
stops: Final[list[Hook]] = []


@overload
def on_start(function: F, /) -> F: ...


@overload
def on_start() -> Callable[[F], F]: ...


def on_start(function: Any = None, /) -> Any:
    """Call a function when the worker starts: before it is ready, after the module is loaded.

    Hooks run one after another, in the order of their registration: plain functions on the main
    thread, coroutine functions on the event loop that asynchronous handlers run on later, so that
    what they create there keeps working. A hook that raises fails the start of the worker, as an
    error while importing does.

    Args:
        function: A function or coroutine function without parameters. It is returned unchanged.

    Raises:
        TypeError: It is not such a function.

    Example:
        >>> import synapse
        >>> model: list[str] = []
        >>> @synapse.on_start
        ... def load() -> None:
        ...     model.append("loaded")
    """
    if function is None:
        return on_start
    return _register(function, "synapse.on_start", starts)


@overload
def on_stop(function: F, /) -> F: ...


@overload
def on_stop() -> Callable[[F], F]: ...


def on_stop(function: Any = None, /) -> Any:
    """Call a function when the worker leaves in an orderly way.

    Hooks run one after another, the last registered first, after the calls have ended or their
    grace is over: plain functions in a thread of the runtime, which is not the main thread,
    coroutine functions on the event loop. They have what is left of the grace, and a fifth of a
    second at least; then the worker leaves, whatever they do. One that raises is logged, and the
    others still run. None runs where the worker did not start, crashed, or lost its host.

    Args:
        function: A function or coroutine function without parameters. It is returned unchanged.

    Raises:
        TypeError: It is not such a function.

    Example:
        >>> import synapse
        >>> model = ["loaded"]
        >>> @synapse.on_stop
        ... def unload() -> None:
        ...     model.clear()
    """
    if function is None:
        return on_stop
    return _register(function, "synapse.on_stop", stops)


def _register(function: F, decorator: str, hooks: list[Hook]) -> F:
    check_function(function, decorator)

    def add(bound: Callable[..., Any], _where: str = "") -> Hook:
        hook = Hook(bound, name_of(bound))
        check_parameters(bound, decorator, hook.name)
        hooks.append(hook)
        return hook

    if not defer(function, decorator, add):
        add(function)
    return function


def check_function(function: Any, decorator: str) -> None:
    if isinstance(function, type) or not (callable(function) or isinstance(function, classmethod)):
        raise TypeError(f"{decorator} decorates functions, not {function!r}")


def name_of(function: Any) -> str:
    plain = unwrapped(function)
    return str(getattr(plain, "__qualname__", None) or type(plain).__qualname__)


def check_parameters(function: Callable[..., Any], decorator: str, name: str) -> None:
    """A function that the runtime calls by itself has nothing to be given, and gives nothing."""
    code = underlying(function)
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise TypeError(f"@{decorator} on `{name}`: it is a generator, which would never run")
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in inspect.signature(function).parameters.values():
        if each.default is inspect.Parameter.empty and each.kind not in optional:
            raise TypeError(
                f"@{decorator} on `{name}`: it is called without arguments, "
                f"and `{each.name}` has no default"
            )
