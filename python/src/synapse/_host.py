"""`synapse.host`: the functions of the host, called from Python."""

from __future__ import annotations

import collections.abc as abc
import inspect
import typing
from collections.abc import Callable
from typing import Any, Final, TypeVar

from synapse._calls import Call
from synapse._cancel import shielded
from synapse._context import current_call
from synapse._convert import converter
from synapse._encode import EncodeIssue
from synapse._failures import HostCallFailed
from synapse._incoming import Stream, in_event_loop
from synapse._link import WINDOW, Ask, Link, wait_async

S = TypeVar("S")
Decode = Callable[[Any], Any]

_NOTHING: Final = object()
_ASYNC_STREAMS: Final = (abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)
_STREAMS: Final = (*_ASYNC_STREAMS, abc.Iterator, abc.Iterable, abc.Generator, Stream)


class Host:
    """The functions that the TypeScript side lets Python call: `synapse.host` is the only one.

    They can be called wherever the code of a module runs once its worker serves: in handlers and
    the tasks and threads they start, in background functions and at the end of the worker. A call
    that is made inside a handler has its deadline, belongs to its trace, and is given up with it.

    What is sent is one value, or named ones: `host.call("add", {"a": 1})` is
    `host.call("add", a=1)`.

    Example:
        >>> import synapse
        >>> @synapse.handler
        ... async def greet(id: int) -> str:
        ...     return f"Hello {await synapse.host.call('user_name', id=id)}"
        >>> @synapse.handler
        ... def greet_all(ids: list[int]) -> list[str]:
        ...     return [synapse.host.call_sync("user_name", id=id) for id in ids]
    """

    __slots__ = ("_link",)

    def __init__(self) -> None:
        self._link: Link | None = None

    def attach(self, link: Link) -> None:
        self._link = link

    async def call(self, name: str, payload: Any = _NOTHING, /, **named: Any) -> Any:
        """Call a function of the host and return what it answers.

        Args:
            name: The name of the function.
            payload: What it is given. Or else:
            named: The same as an object, by keyword.

        Raises:
            HostError: A failure that the function declares.
            HostCallFailed: Anything else.
            TimeoutError: The deadline of the handler has passed.
        """
        link = self._open()
        return await _call(link, name, _value(payload, named), link.codec.decode)

    def call_sync(self, name: str, payload: Any = _NOTHING, /, **named: Any) -> Any:
        """Like `call`, from synchronous code: this thread waits for the answer.

        Raises:
            HostError: A failure that the function declares.
            HostCallFailed: Anything else.
            TimeoutError: The deadline of the handler has passed.
            Cancelled: The handler's call has been cancelled.
            RuntimeError: An event loop runs in this thread, which would stand still.
        """
        link = self._open()
        return _call_sync(link, name, _value(payload, named), link.codec.decode)

    def stream(self, name: str, payload: Any = _NOTHING, /, **named: Any) -> Stream[Any]:
        """Call a function of the host that streams. It begins when the first item is asked for.

        The stream raises what `call` would.
        """
        return _stream(self._open(), name, _value(payload, named))

    def typed(self, stub: type[S]) -> S:
        """An object whose methods are functions of the host, described by those of a class.

        What they answer is converted to the return annotations. `async def` methods are to be
        awaited, `def` methods block, and those that return an iterator stream, synchronous or
        asynchronous as annotated.

        Args:
            stub: A class, or a protocol; the bodies of its methods never run.

        Example:
            >>> import synapse
            >>> class Users:
            ...     async def user_name(self, id: int) -> str: ...
            >>> users = synapse.host.typed(Users)
        """
        functions = {
            name: _function(self._open, name, member)
            for name, member in inspect.getmembers(stub, inspect.isroutine)
            if not name.startswith("_")
        }
        typed: S = type(stub.__name__, (_Typed,), functions)()
        return typed

    def _open(self) -> Link:
        link = self._link
        if link is None or not link.is_open:
            raise RuntimeError(
                "host functions can be called once the module is imported and the functions of "
                "@synapse.on_start have returned: call them in handlers or @synapse.background"
            )
        if link.is_of_parent:
            raise RuntimeError("a forked process cannot call the host: that is for its parent")
        return link


#: The functions of the host.
host: Final = Host()


class _Typed:
    __slots__ = ()


def _value(payload: Any, named: dict[str, Any]) -> Any:
    if payload is _NOTHING:
        return named or None
    if named:
        raise TypeError("a host function takes one value or named ones, not both")
    return payload


def _ask(link: Link, name: str, value: Any, **meta: Any) -> tuple[str, dict[str, Any], bytes]:
    if not isinstance(name, str):
        raise TypeError(f"the name of a host function is text, not {name!r}")
    what = f"the host function `{name}`"
    try:
        payload = link.encode(value)
    except EncodeIssue as issue:
        why = f"{what}: what it is given cannot be sent: {issue}"
        raise HostCallFailed("EncodeFailed", why) from None
    return what, {"method": name, **meta}, payload


def _start(link: Link, name: str, value: Any) -> Ask:
    ask = Ask(*_ask(link, name, value), current_call.get())
    link.start(ask)
    return ask


async def _call(link: Link, name: str, value: Any, decode: Decode) -> Any:
    ask = _start(link, name, value)
    link.flush()
    try:
        await wait_async(ask)
    finally:
        _give_up(link, ask)
    return link.result(ask, decode)


@shielded
def _call_sync(link: Link, name: str, value: Any, decode: Decode) -> Any:
    if in_event_loop():
        raise RuntimeError(
            f"`{name}` cannot be waited for inside of a running event loop: "
            f"await synapse.host.call({name!r}, ...)"
        )
    ask = _start(link, name, value)
    link.flush()
    try:
        link.wait(ask)
    finally:
        _give_up(link, ask)
    return link.result(ask, decode)


def _give_up(link: Link, ask: Ask) -> None:
    if ask.answer is None:
        link.abandon(ask)
        link.flush()


@shielded
def _stream(link: Link, name: str, value: Any) -> Stream[Any]:
    call: Call | None = current_call.get()
    stream: Stream[Any] = Stream(*_ask(link, name, value, stream=WINDOW))
    stream.adopt(link, None if call is None or call.answered else call)
    return stream


# Stubs


def _function(open_link: Callable[[], Link], name: str, member: Any) -> Callable[..., Any]:
    function = inspect.unwrap(getattr(member, "__func__", member))
    signature = inspect.signature(function)
    returned = _hints(function).get("return", Any)
    decode = _Decoder(returned)

    def value(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return _arguments(signature, arguments, named)

    if _streams(returned):
        convert = converter((*typing.get_args(returned), Any)[0]).convert

        def stream(*arguments: Any, **named: Any) -> Stream[Any]:
            made = _stream(open_link(), name, value(arguments, named))
            made.convert_items(convert, "$")
            return made

        async def stream_later(*arguments: Any, **named: Any) -> Stream[Any]:
            return stream(*arguments, **named)

        return stream_later if inspect.iscoroutinefunction(function) else stream

    async def call(*arguments: Any, **named: Any) -> Any:
        link = open_link()
        return await _call(link, name, value(arguments, named), decode.with_codec(link))

    def call_sync(*arguments: Any, **named: Any) -> Any:
        link = open_link()
        return _call_sync(link, name, value(arguments, named), decode.with_codec(link))

    return call if inspect.iscoroutinefunction(function) else call_sync


class _Decoder:
    """Decodes to a type, once it is known with which codec."""

    __slots__ = ("_annotation", "_decode")

    def __init__(self, annotation: Any) -> None:
        # Refused where the stub is given, not where it is called.
        converter(annotation)
        self._annotation = annotation
        self._decode: Decode | None = None

    def with_codec(self, link: Link) -> Decode:
        if self._decode is None:
            self._decode = link.codec.typed(self._annotation)
        return self._decode


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"`{function.__qualname__}`: its annotations: {error}") from None


def _streams(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in _STREAMS


def _arguments(
    signature: inspect.Signature, arguments: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any] | None:
    bound = signature.bind(*arguments, **named).arguments
    given: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if name not in bound:
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            raise TypeError("host functions take their arguments by name: *args has none")
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(bound[name])
        else:
            given[name] = bound[name]
    return given or None
