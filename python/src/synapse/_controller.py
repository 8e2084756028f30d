"""Classes whose instances TypeScript opens, to call methods and to set and read properties."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from synapse._annotations import of_class
from synapse._codec import DecodeIssue, apply
from synapse._context import Context, current_call
from synapse._convert import converter
from synapse._handle import Handle
from synapse._handlers import Handler, checked_name, registry
from synapse._incoming import ItemIssue

Send = Callable[[Any], None]


class Controller:
    """The base of a class that TypeScript opens with `Synapse.controller`.

    Every opening makes an instance of its own, without arguments, in one worker, sets the
    properties that came along, and keeps it until the caller ends it. Methods and properties are
    those whose names do not begin with an underscore. A method is called as a handler is: a single
    parameter without an annotation receives all that was sent, others are bound by name, and
    coroutine functions and generators are what they are in handlers. A property that the class
    annotates takes values of that type only; others take any.

    A method `close` that needs no arguments is called when the instance is let go of.

    The class is known by its name, or by the one that is given: `class Chat(synapse.Controller,
    name="chat")`. One with `name=None` is a base of others, and is not opened.

    Raises:
        TypeError: Its constructor needs arguments. ValueError: The name is not a name, or belongs
        to something else already; a subclass takes the place of a class of the same name.

    Example:
        >>> import synapse
        >>> class Counter(synapse.Controller):
        ...     counter: int = 0
        ...     def increment(self, by: int = 1) -> dict[str, int]:
        ...         self.counter += by
        ...         return {"counter": self.counter}
        >>> Counter().increment(by=5)
        {'counter': 5}
    """

    _stream_func: Send | None = None

    def __init_subclass__(cls, *, name: str | None = "") -> None:
        super().__init_subclass__()
        if name is not None:
            _register(cls, name or cls.__name__)

    def send(self, data: Any = None) -> None:
        """Give the caller of the running method a partial result, before its own.

        They arrive in order, all of them. Use it inside of a method, and of what that calls.

        Raises:
            ValueError: The value cannot be carried. RuntimeError: No method is running here.
        """
        if self._stream_func is not None:
            self._stream_func(data)
            return
        call = current_call.get()
        if call is None:
            raise RuntimeError(
                "send() was called outside of a method that TypeScript called; where there is no "
                "worker, as in a test, set_stream_func() says where to send to"
            )
        Context(call).progress(data)

    def set_stream_func(self, stream_func: Send | None) -> None:
        """Let `send` call a function instead; with `None`, what it called before."""
        if stream_func is not None and not callable(stream_func):
            raise TypeError(f"set_stream_func: expected a function, not {stream_func!r}")
        vars(self)["_stream_func"] = stream_func

    def setProperty(self, params: Mapping[str, Any]) -> None:
        """Set the property `params["name"]` to `params["value"]`; one that there is not is made.

        Raises:
            AttributeError: It is private, a method, or cannot be set. KeyError: There is no such
            key in `params`.
        """
        name = _checked(self, params["name"])
        setattr(self, name, _converted(type(self), name, params["value"]))

    def getProperty(self, params: Mapping[str, Any]) -> Any:
        """Return the property `params["name"]`.

        Raises:
            AttributeError: It is private, a method, or not there. KeyError: There is no such key in
            `params`.
        """
        name = _checked(self, params["name"])
        try:
            return getattr(self, name)
        except AttributeError:
            if hasattr(type(self), name):
                raise
            raise AttributeError(_missing(self, name)) from None


class Opener(Handler):
    """What makes the instances of a class, as the handler that `Synapse.controller` calls."""

    __slots__ = ("cls",)

    def __init__(self, cls: type[Controller], name: str) -> None:
        def open(properties: dict[str, Any] | None = None) -> Handle[Any]:
            return _open(cls, properties)

        open.__doc__ = cls.__doc__
        super().__init__(open, name)
        self.place = f"{cls.__module__}.{cls.__qualname__}"
        self.cls = cls


def _register(cls: type[Controller], name: str) -> None:
    checked_name(name, cls)
    _check_constructor(cls)
    new, old = Opener(cls, name), registry.get(name)
    replaces = isinstance(old, Opener) and (issubclass(cls, old.cls) or old.place == new.place)
    if old is not None and not replaces:
        raise ValueError(f"two handlers are called `{name}`: {old.place} and {new.place}")
    registry[name] = new


def _check_constructor(cls: type) -> None:
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in inspect.signature(cls).parameters.values():
        if each.default is inspect.Parameter.empty and each.kind not in optional:
            raise TypeError(
                f"controller `{cls.__qualname__}`: instances are made without arguments, and "
                f"`{each.name}` has no default: make it a property, which is set when it is opened"
            )


def _open(cls: type[Controller], properties: dict[str, Any] | None) -> Handle[Any]:
    instance = cls()
    for name, value in (properties or {}).items():
        instance.setProperty({"name": name, "value": value})
    return Handle(instance, _close_of(instance))


def _close_of(instance: Controller) -> Callable[[], Any] | None:
    close = getattr(instance, "close", None)
    if not inspect.ismethod(close) or inspect.isgeneratorfunction(close):
        return None
    try:
        inspect.signature(close).bind()
    except TypeError:
        return None
    return close


def _checked(instance: Controller, name: Any) -> str:
    kind = type(instance).__qualname__
    if not isinstance(name, str) or not name.isidentifier():
        raise AttributeError(f"{name!r} cannot name a property of `{kind}`")
    if name.startswith("_"):
        raise AttributeError(f"`{name}` of `{kind}` is private")
    if inspect.isroutine(inspect.getattr_static(type(instance), name, None)):
        raise AttributeError(f"`{name}` of `{kind}` is a method and not a property: call it")
    return name


def _converted(cls: type, name: str, value: Any) -> Any:
    hints = _hints(cls)
    if name not in hints:
        return value
    try:
        return apply(converter(hints[name]), value, f"$.{name}")
    except DecodeIssue as issue:
        raise ItemIssue(issue.path, issue.issue) from None


@functools.lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    return of_class(cls)[0]


def _missing(instance: Controller, name: str) -> str:
    names = [each for each in {*dir(type(instance)), *vars(instance)} if not each.startswith("_")]
    import difflib

    near = difflib.get_close_matches(name, names, 1)
    hint = f", did you mean `{near[0]}`?" if near else ""
    return f"`{type(instance).__qualname__}` has no property `{name}`{hint}"
