"""Streams from the host: the arguments that stream, and what host functions stream."""

from __future__ import annotations

import functools
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from synapse._cancel import Cancelled, shielded
from synapse._codec import DecodeIssue
from synapse._convert import ConvertIssue
from synapse._failures import HostCallFailed
from synapse._link import WINDOW, Ask, wait_async

if TYPE_CHECKING:
    from synapse._calls import Call
    from synapse._link import Link

T = TypeVar("T")
Convert = Callable[[Any, str], Any]

_BY_USER: Final = "it has been closed"
_BY_CALL: Final = "the call that it belongs to has ended"


class ItemIssue(DecodeIssue):
    """An item of an argument that does not fit, met by the handler that consumes the argument."""


class Stream(Generic[T]):
    """Items that the host sends as they are consumed: iterate over it, in either way.

    A handler receives one for each argument that streams, and `synapse.host.stream` returns one.
    As a context manager it is closed at the end of the block; the end of the call closes what is
    left. It can be gone through once.

    Example:
        >>> import synapse
        >>> @synapse.handler
        ... def total(rows: synapse.Stream[int]) -> int:
        ...     return sum(rows)
    """

    def __init__(self, what: str, meta: dict[str, Any], payload: bytes = b"") -> None:
        """Streams are made by the runtime."""
        self._what = what
        self._meta = meta
        self._payload = payload
        self._link: Link | None = None
        self._call: Call | None = None
        self._ask: Ask | None = None
        # Does not hold the stream: one that nobody goes on with is given up before its call ends.
        self._at_end: Callable[[], None] = functools.partial(_release, weakref.ref(self))
        self._convert: Convert | None = None
        self._path = "$"
        self._items: deque[Any] = deque()
        self._taking = threading.RLock()
        self._index = 0
        self._taken = 0
        self._ended = False
        self._closed: str | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else "closed" if self._closed else "open"
        return f"<synapse.Stream of {self._what}, {state}>"

    def adopt(self, link: Link, call: Call | None) -> None:
        self._link = link
        self._call = call
        if call is not None:
            call.at_end(self._at_end)

    def convert_items(self, convert: Convert, path: str) -> None:
        self._convert = convert
        self._path = path

    def stands_at(self, path: str) -> None:
        self._path = path

    # Consuming

    def __iter__(self) -> Iterator[T]:
        return self

    @shielded
    def __next__(self) -> T:
        if in_event_loop():
            raise RuntimeError(
                "a stream cannot be waited for inside of a running event loop: use `async for`"
            )
        # One thread at a time takes an item, and waits for it.
        with self._taking:
            while not self._items:
                ask = self._progress()
                if ask is None:
                    raise StopIteration
                if not self._items:
                    assert self._link is not None
                    self._link.wait(ask)
            call = self._call
            if call is not None and call.cancelled:
                raise Cancelled
            return self._take()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._items:
            ask = self._progress()
            if ask is None:
                raise StopAsyncIteration
            if not self._items:
                await wait_async(ask)
        return self._take()

    def _progress(self) -> Ask | None:
        """Fetch the items that have arrived; `None` at the end."""
        if self._closed == _BY_CALL:
            raise HostCallFailed("Closed", f"{self._what}: {_BY_CALL}")
        if self._ended or self._closed:
            return None
        link = self._link
        if link is None:
            raise RuntimeError(f"{self._what} belongs to no call: there is nothing to read from")
        if link.is_of_parent:
            raise RuntimeError(f"a forked process cannot read {self._what}: that is for its parent")
        ask = self._ask
        if ask is None:
            ask = Ask(self._what, self._meta, self._payload, self._call)
            link.start(ask)
            self._ask = ask
            link.flush()
        # Looked at first: what was sent before the end has arrived before it.
        answer = ask.answer
        if ask.chunks:
            self._unpack(ask.chunks.popleft())
        elif answer is not None:
            self._end()
            link.result(ask, link.codec.decode)
            return None
        return ask

    def _unpack(self, chunk: Any) -> None:
        assert self._link is not None
        try:
            items = self._link.codec.decode(chunk)
        except DecodeIssue as issue:
            raise self._misfit(issue.path, issue.issue) from None
        if not isinstance(items, list) or not items:
            raise self._misfit("$", "Expected an `array` of items")
        self._items.extend(items)

    def _take(self) -> T:
        item = self._items.popleft()
        index, self._index = self._index, self._index + 1
        self._taken += 1
        ask = self._ask
        if ask is not None and (
            self._taken * 2 >= WINDOW or not (self._items or ask.chunks or ask.answer)
        ):
            taken, self._taken = self._taken, 0
            assert self._link is not None
            self._link.credit(ask, taken)
            self._link.flush()
        if self._convert is None:
            result: T = item
            return result
        try:
            return self._convert(item, f"{self._path}[{index}]")  # type: ignore[no-any-return]
        except ConvertIssue as issue:
            raise self._misfit(issue.path, issue.issue) from None

    def _misfit(self, path: str, issue: str) -> Exception:
        """The error for what does not fit, after which nothing more is wanted."""
        self.close()
        if "source" in self._meta:
            return ItemIssue(path, issue)
        return HostCallFailed("DecodeFailed", f"{self._what}: {issue} (at {path})")

    def _end(self) -> None:
        self._ended = True
        if self._call is not None:
            self._call.forget(self._at_end)

    # Closing

    @shielded
    def close(self) -> None:
        """Take no more items: the host stops to send them."""
        if self._closed is None:
            self._stop(_BY_USER)
        if self._call is not None:
            self._call.forget(self._at_end)

    async def aclose(self) -> None:
        """Do what `close` does."""
        self.close()

    def release(self) -> None:
        """Take no more items: the call has ended."""
        if self._closed is None and not self._ended:
            self._stop(_BY_CALL)

    def _stop(self, why: str) -> None:
        self._closed = why
        self._items.clear()
        if self._ask is not None and self._link is not None:
            self._link.abandon(self._ask)
            self._link.flush()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            # What nobody can consume any more need not be sent.
            if self._closed is None and not self._ended:
                self.close()
        except Exception:
            # As the interpreter ends, modules are gone before objects are.
            return


def _release(held: weakref.ref[Stream[Any]]) -> None:
    stream = held()
    if stream is not None:
        stream.release()


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


# The streams in a payload, by the thread that decodes it.
arrived: Final[dict[int, list[Stream[Any]]]] = {}


def to_stream(data: Any) -> Stream[Any]:
    """The stream whose number arrived."""
    if len(data) != 4:
        raise ValueError(f"a stream with a number of {len(data)} bytes")
    source = int.from_bytes(data, "little")
    stream: Stream[Any] = Stream("a stream of the input", {"source": source, "stream": WINDOW})
    arrived.setdefault(threading.get_ident(), []).append(stream)
    return stream


def take_arrived() -> list[Stream[Any]]:
    return arrived.pop(threading.get_ident(), [])
