"""The handlers of a module: what `@synapse.handler` registers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeVar, get_args, overload

from synapse._codec import Codec
from synapse._declared import Error
from synapse._members import defer

F = TypeVar("F", bound=Callable[..., Any])
Cancel = Literal["cooperative", "interrupt", "replace"]

_MAX_NAME: Final = 200
_COROUTINE_FLAGS: Final = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE


class Handler:
    """A registered function: its name, its kind, and once prepared the way from a payload to its
    arguments.
    """

    __slots__ = ("bind", "cancel", "function", "is_async", "is_stream", "name", "place", "raises")

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        raises: tuple[type[Error], ...] = (),
        cancel: Cancel = "cooperative",
        stream: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self.raises = raises
        self.cancel = cancel
        self.place = place_of(function)
        code = underlying(function)
        self.is_async = inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code)
        is_generator = inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code)
        self.is_stream = stream or is_generator
        self.bind: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any] | None]]

    def prepare(self, codec: Codec) -> None:
        """Build the decoder of the arguments, when the names in annotations exist.

        Raises:
            TypeError: A parameter cannot be filled from a payload.
        """
        from synapse._binding import binder

        try:
            self.bind = binder(self.function, self.name, codec)
        except TypeError as error:
            raise TypeError(f"{error} ({self.place})") from error.__cause__


registry: Final[dict[str, Handler]] = {}


@overload
def handler(function: F, /) -> F: ...


@overload
def handler(
    *,
    name: str | None = None,
    raises: type[Error] | Iterable[type[Error]] = (),
    cancel: Cancel = "cooperative",
    stream: bool = False,
) -> Callable[[F], F]: ...


def handler(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    raises: type[Error] | Iterable[type[Error]] = (),
    cancel: Cancel = "cooperative",
    stream: bool = False,
) -> Any:
    """Let TypeScript call a function.

    Use it bare, or with options. The function itself is returned, so that it can be called and
    tested as ever. On a method, it needs `@synapse.service` on the class.

    What a call sends is decoded to the annotations and checked before the function runs. A single
    parameter that is not annotated, or whose type is a map (`dict`, `Mapping`, `Any`, a
    `TypedDict`, dataclass, msgspec `Struct` or pydantic model), receives all of it; so does a
    single positional-only parameter, whatever its type. Otherwise the keys of what was sent are
    bound to the parameters by name.

    The annotations, `raises` and the docstring are the contract of the handler too: code of
    TypeScript is compared with it, and generated from it.

    Args:
        function: The function, coroutine function or generator function.
        name: The name to call it by, instead of the function's own.
        raises: The declared error of the handler, or several. One that is raised travels as a
            value; any other exception travels as an exception with its traceback.
        cancel: What becomes of a synchronous handler whose caller has given up. `"cooperative"`: it
            looks at `synapse.context().cancelled`. `"interrupt"`: `synapse.Cancelled` is raised in
            it. `"replace"`: where it does not end soon, the worker is replaced.
        stream: Whether what the function returns, an iterable or an asynchronous iterator, is
            streamed item by item. Generator functions are streams by themselves.

    Raises:
        TypeError: It is not a function, or its parameters cannot be filled: `*args`, or several
        positional-only ones. ValueError: The name is not a name, or belongs to another handler
        already; or there is no such way to cancel it.

    Example:
        >>> import synapse
        >>> class Empty(synapse.Error):
        ...     "There are no values."
        >>> @synapse.handler(raises=[Empty])
        ... def mean(values: list[float]) -> float:
        ...     if not values:
        ...         raise Empty()
        ...     return sum(values) / len(values)
        >>> mean([1, 2, 3])
        2.0
    """
    if function is None:
        return lambda decorated: _register(decorated, name, raises, cancel, stream)
    return _register(function, name, raises, cancel, stream)


def _register(function: F, name: str | None, raises: Any, cancel: Cancel, stream: bool) -> F:
    of_class = isinstance(function, classmethod)
    if isinstance(function, type) or not (callable(function) or of_class):
        raise TypeError(f"synapse.handler decorates functions, not {function!r}")
    if name is None:
        name = getattr(unwrapped(function), "__name__", None)
    checked = checked_name(name, function)
    _check_options(checked, cancel, stream)
    errors = declared(raises, checked)

    def add(bound: Callable[..., Any], of: str = "") -> Handler:
        new = Handler(bound, checked, errors, cancel, stream)
        new.place += of
        check_parameters(bound, checked)
        if new.is_async and cancel == "interrupt":
            raise ValueError(
                f"handler `{checked}`: an asynchronous handler is cancelled as a task: "
                '`cancel="interrupt"` is for synchronous ones'
            )
        old = registry.get(checked)
        # A module that is loaded again registers the same functions from the same places.
        if old is not None and old.place != new.place:
            raise ValueError(f"two handlers are called `{checked}`: {old.place} and {new.place}")
        registry[checked] = new
        return new

    if not defer(function, "synapse.handler", add):
        add(function)
    return function


def declared(raises: Any, name: str | None) -> tuple[type[Error], ...]:
    alone = isinstance(raises, type) or not isinstance(raises, Iterable)
    errors = (raises,) if alone else tuple(raises)
    for each in errors:
        if not (isinstance(each, type) and issubclass(each, Error)):
            raise TypeError(
                f"handler `{name}`: `raises` takes subclasses of synapse.Error, not {each!r}"
            )
    return errors


def _check_options(name: str, cancel: object, stream: object) -> None:
    if cancel not in get_args(Cancel):
        raise ValueError(
            f"handler `{name}`: `cancel` is one of {', '.join(map(repr, get_args(Cancel)))}, "
            f"not {cancel!r}"
        )
    if not isinstance(stream, bool):
        raise TypeError(f"handler `{name}`: `stream` is True or False, not {stream!r}")


def checked_name(name: object, function: object) -> str:
    if name is None or name == "<lambda>":
        raise ValueError(f"give the handler {function!r} a name: @synapse.handler(name=...)")
    if not isinstance(name, str):
        raise TypeError(f"the name of a handler is text, not {name!r}")
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or any(map(str.isspace, name)):
        raise ValueError(
            f"{name[:_MAX_NAME]!r} cannot name a handler: "
            f"a name has 1 to {_MAX_NAME} printable characters and no spaces"
        )
    if name.startswith("$"):
        raise ValueError(f"{name!r} cannot name a handler: names that begin with $ are reserved")
    return name


def check_parameters(function: Callable[..., Any], name: str) -> None:
    """Whether the parameters of a handler can be filled.

    Raises:
        TypeError: They cannot.
    """
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        raise TypeError(f"handler `{name}`: *args cannot be filled, name the parameters")
    if inspect.Parameter.POSITIONAL_ONLY in kinds and len(kinds) > 1:
        raise TypeError(
            f"handler `{name}`: parameters are bound by name, and positional-only ones cannot be"
        )


def unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def underlying(function: Any) -> Any:
    """What decides whether a call gives a coroutine or a generator."""
    function = unwrapped(function)
    if inspect.isroutine(function):
        return function
    return type(function).__call__


def place_of(function: Any) -> str:
    code = getattr(inspect.unwrap(unwrapped(function)), "__code__", None)
    return (
        "an object without a place" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
    )
