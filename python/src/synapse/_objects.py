"""The objects that the host holds, and the calls of their methods."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from synapse._answers import Made
from synapse._binding import binder
from synapse._cancel import shielded
from synapse._declared import Error
from synapse._frames import SUCCESS, Outgoing
from synapse._handle import AnyMethod, Handle, NotHeld
from synapse._handlers import Handler, check_parameters, underlying

if TYPE_CHECKING:
    from concurrent.futures import Future

    from synapse._codec import Codec
    from synapse._loop import Loop

_MAX_ID: Final = 0xFFFFFFFF
_MAX_NEAREST: Final = 3
_KIND_AT: Final = 4


class Held:
    """An object in the table. `uses` and `is_released` are the table's to change."""

    __slots__ = ("close", "id", "is_released", "methods", "uses", "value")

    def __init__(self, id: int, handle: Handle[Any]) -> None:
        self.id = id
        self.value = handle.value
        self.close = handle.close
        self.methods: dict[tuple[str, bool], Method] = {}
        self.uses = 0
        self.is_released = False


class Remote(Handler):
    """A handler of one request, or of one object: the table is told when its calls begin and
    end.
    """

    __slots__ = ("objects",)

    def __init__(self, objects: Objects, function: Callable[..., Any], name: str) -> None:
        # Nothing can declare what a method raises, so all declared errors are.
        super().__init__(function, name, (Error,))
        self.objects = objects

    def begin(self) -> None:
        """A call was accepted."""

    def ended(self, answer: Outgoing) -> None:
        """The call was answered."""


class Method(Remote):
    """A method of an object, or the reading of an attribute."""

    __slots__ = ("_codec", "held")

    def __init__(self, objects: Objects, held: Held, name: str, codec: Codec, kind: Any) -> None:
        super().__init__(objects, functools.partial(_call, held, name), name)
        self.held = held
        self._codec = codec
        self.is_async = inspect.iscoroutinefunction(kind) or inspect.isasyncgenfunction(kind)
        self.is_stream = inspect.isgeneratorfunction(kind) or inspect.isasyncgenfunction(kind)
        # Annotations may run code of the module, which is not for the thread that reads.
        self.bind = self._bind_first

    def _bind_first(self, payload: Any) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
        method = getattr(self.held.value, self.name)
        check_parameters(method, self.name)
        self.bind = binder(method, self.name, self._codec)
        return self.bind(payload)

    def begin(self) -> None:
        self.objects.use(self.held)

    def ended(self, answer: Outgoing) -> None:
        self.objects.leave(self.held)


class Holding(Remote):
    """What a handler does for a request that wants to hold what it returns."""

    __slots__ = ("_inner", "_made")

    def __init__(self, objects: Objects, inner: Handler) -> None:
        function = self._run_async if inner.is_async else self._run
        super().__init__(objects, function, inner.name)
        self.raises, self.cancel = inner.raises, inner.cancel
        self.is_async, self.is_stream = inner.is_async, inner.is_stream
        self.bind = inner.bind
        self._inner = inner
        self._made: Held | None = None

    def _run(self, *arguments: Any, **named: Any) -> Any:
        return self._hold(self._inner.function(*arguments, **named))

    async def _run_async(self, *arguments: Any, **named: Any) -> Any:
        return self._hold(await self._inner.function(*arguments, **named))

    # What is in the table, and not known to be, would stay there.
    @shielded
    def _hold(self, value: Any) -> Any:
        if isinstance(value, Made):
            return value
        if not isinstance(value, Handle):
            kind = type(value).__qualname__
            return NotHeld(
                f"`{self.name}` returned `{kind}`, and only a synapse.Handle can be acquired: "
                f"call it with `Synapse.call`"
            )
        self._made = self.objects.add(value)
        made = type(value.value)
        return {"handle": self._made.id, "type": f"{made.__module__}.{made.__qualname__}"}

    def begin(self) -> None:
        if isinstance(self._inner, Remote):
            self._inner.begin()

    def ended(self, answer: Outgoing) -> None:
        if isinstance(self._inner, Remote):
            self._inner.ended(answer)
        head = answer if isinstance(answer, bytes) else answer[0]
        if self._made is not None and head[_KIND_AT] != SUCCESS:
            # The host has never heard of it.
            self.objects.release(self._made.id)


def _call(held: Held, name: str, /, *arguments: Any, **named: Any) -> Any:
    return getattr(held.value, name)(*arguments, **named)


class Objects:
    """The table. Whoever reads finds and releases; handlers add. What is released is closed by the
    threads that run handlers, once no call uses it.
    """

    def __init__(
        self,
        codec: Codec,
        event_loop: Callable[[], Loop],
        leave_child: Callable[[BaseException | None], None],
    ) -> None:
        self._codec = codec
        self._event_loop = event_loop
        self._leave_child = leave_child
        self._held: dict[int, Held] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        # Released, and to be closed by whoever comes first of those that may run code.
        self.due: deque[Held] = deque()
        # Where no thread runs synchronous handlers, methods run on the event loop.
        self.on_loop = False
        # Closing on the event loop.
        self._closing: set[Future[None]] = set()

    @property
    def count(self) -> int:
        return len(self._held)

    @property
    def is_empty(self) -> bool:
        return not (self._held or self.due or self._closing)

    def add(self, handle: Handle[Any]) -> Held:
        with self._lock:
            id = next(self._ids)
            while id > _MAX_ID or id in self._held:
                self._ids = itertools.count(1) if id > _MAX_ID else self._ids
                id = next(self._ids)
            held = self._held[id] = Held(id, handle)
        return held

    def use(self, held: Held) -> None:
        with self._lock:
            held.uses += 1

    def leave(self, held: Held) -> None:
        with self._lock:
            held.uses -= 1
            if held.is_released and held.uses == 0:
                self.due.append(held)

    def release(self, id: int) -> bool:
        """Let go of an object: it is due, now or when the last call that uses it has ended."""
        with self._lock:
            held = self._held.pop(id, None)
            if held is None:
                return False
            held.is_released = True
            if held.uses == 0:
                self.due.append(held)
            return True

    # Methods

    def find(self, id: int, name: str, *, get: bool) -> Method | str | list[str]:
        """The method, or why there is none: a text, or the names of those there are.

        Runs no code of the object's.
        """
        held = self._held.get(id)
        if held is None:
            return "the object was released"
        method = held.methods.get((name, get))
        if method is None:
            kind = None if name.startswith("_") else _kind(held.value, name, get)
            if kind is None and not get and not name.startswith("_") and _has(held.value, name):
                return f"`{name}` is an attribute and not a method: read it with `get`"
            if kind is None:
                return _nearest(held.value, name)
            method = _getter(self, held, name, self._codec) if get else None
            method = method or Method(self, held, name, self._codec, kind)
            if self.on_loop and not method.is_async:
                method.is_async = True
                if not method.is_stream:
                    method.function = _awaited(method.function)
            held.methods[name, get] = method
        return method

    # The end

    def close_due(self) -> None:
        """Close what is due, in a thread that runs code of the module."""
        while self.due:
            try:
                held = self.due.popleft()
            except IndexError:
                return
            self.dispose(held)

    def drop(self, handle: Handle[Any]) -> None:
        """Close what nobody holds."""
        self.dispose(Held(0, handle))

    def close_all(self, run: Callable[[Callable[[], Any]], Any]) -> None:
        """Close every object, as the worker ends; `run` runs a coroutine function."""
        for held in self._take_all():
            close = held.close
            if close is not None and _is_async(close):
                held.close = None
                run(functools.partial(self._close_async, close, held))
            else:
                self.dispose(held)
        for closing in list(self._closing):
            with contextlib.suppress(BaseException):
                closing.result()

    def _take_all(self) -> list[Held]:
        """What is due and what is held, out of reach of those that close what is due."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self.due.popleft())
        for id in list(self._held):
            with contextlib.suppress(KeyError):
                taken.append(self._held.pop(id))
        return taken

    def dispose(self, held: Held) -> None:
        close, held.close = held.close, None
        if close is not None and _is_async(close):
            self._start_closing(close, held)
            return
        if close is not None:
            self._close(close)
        _forget(held)

    def _close(self, close: Callable[[], Any]) -> None:
        error: BaseException | None = None
        try:
            contextvars.copy_context().run(close)
        except BaseException as raised:
            error = raised
        self._end_closing(error)

    def _start_closing(self, close: Callable[[], Any], held: Held) -> None:
        import asyncio

        run = self._close_async(close, held)
        closing = asyncio.run_coroutine_threadsafe(run, self._event_loop())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close_async(self, close: Callable[[], Any], held: Held) -> None:
        error: BaseException | None = None
        try:
            await close()
        except BaseException as raised:
            error = raised
        self._end_closing(error)
        _forget(held)

    def _end_closing(self, error: BaseException | None) -> None:
        self._leave_child(error)
        if error is not None:
            logging.getLogger("synapse").error("The `close` of a handle failed", exc_info=error)


def _forget(held: Held) -> None:
    # Its destructor runs here, if this was the last of it.
    held.methods.clear()
    held.value = None


def _is_async(close: Callable[[], Any]) -> bool:
    return inspect.iscoroutinefunction(underlying(close))


def _getter(objects: Objects, held: Held, name: str, codec: Codec) -> Method:
    method = Method(objects, held, name, codec, None)
    method.function = lambda: getattr(held.value, name)
    method.bind = lambda _payload: ((), None)
    return method


def _kind(value: Any, name: str, get: bool) -> Any:
    """The function behind a method, or what stands for an attribute, or `None`: there is none."""
    try:
        found = inspect.getattr_static(value, name)
    except AttributeError:
        if isinstance(value, AnyMethod):
            return found_later
        return found_later if get and _makes_attributes(type(value)) else None
    if get:
        return found_later
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    if callable(found):
        return underlying(found)
    # A property or the like, whose value may be a function.
    return found_later if hasattr(type(found), "__get__") else None


def _has(value: Any, name: str) -> bool:
    try:
        inspect.getattr_static(value, name)
    except AttributeError:
        return False
    return True


def found_later() -> None:
    """In place of a function that is known when it is called."""


def _makes_attributes(kind: type) -> bool:
    if hasattr(kind, "__getattr__"):
        return True
    return inspect.getattr_static(kind, "__getattribute__") is not object.__getattribute__


def _nearest(value: Any, name: str) -> list[str]:
    known: set[str] = set()
    for kind in type(value).__mro__:
        known.update(each for each in vars(kind) if not each.startswith("_"))
    with contextlib.suppress(Exception):
        own = object.__getattribute__(value, "__dict__")
        known.update(each for each in own if isinstance(each, str) and not each.startswith("_"))
    names = sorted(known)
    import difflib

    return difflib.get_close_matches(name, names, _MAX_NEAREST) or names[: _MAX_NEAREST + 2]


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    return run
