"""Functions that run again and again beside the calls."""

from __future__ import annotations

import inspect
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from synapse._handlers import underlying
from synapse._hooks import check_function, check_parameters, name_of
from synapse._members import defer

if TYPE_CHECKING:
    import asyncio

F = TypeVar("F", bound=Callable[..., Any])
LeaveChild = Callable[["BaseException | None"], None]

# How long runs have to end as the worker leaves.
_ENDING_SECONDS: Final = 0.1
_DECORATOR: Final = "synapse.background"


class Repeated:
    """A registered function and its interval."""

    __slots__ = ("function", "is_async", "name", "seconds", "waits_first")

    def __init__(
        self,
        function: Callable[[], Any],
        name: str,
        seconds: float,
        *,
        waits_first: bool = False,
    ) -> None:
        self.function = function
        self.name = name
        self.seconds = seconds
        #: Whether the first run begins after the interval, and not at once.
        self.waits_first = waits_first
        self.is_async = inspect.iscoroutinefunction(underlying(function))


registry: Final[list[Repeated]] = []


def background(seconds: float) -> Callable[[F], F]:
    """Call a function at intervals, from the start of the worker to its end.

    The first run begins at once, each other one `seconds` after the end of the one before: a run
    never overlaps itself. A plain function runs in a thread of its own, a coroutine function as a
    task of the event loop. What a run raises is logged, and the next one comes as ever. When the
    worker leaves, tasks are cancelled, and no run begins in a thread.

    Args:
        seconds: The time between two runs, more than 0.

    Raises:
        TypeError: `seconds` is no number, or what is decorated is no function without parameters.
        ValueError: `seconds` is not more than 0, or has no end.

    Example:
        >>> import synapse
        >>> cache = {"a": 1}
        >>> @synapse.background(seconds=60)
        ... def clear() -> None:
        ...     cache.clear()
        >>> clear()
        >>> cache
        {}
    """
    interval = checked_interval(seconds)

    def decorate(function: F) -> F:
        check_function(function, _DECORATOR)

        def add(bound: Callable[..., Any], _where: str = "") -> Repeated:
            name = name_of(bound)
            check_parameters(bound, _DECORATOR, name)
            registry.append(Repeated(bound, name, interval))
            return registry[-1]

        if not defer(function, _DECORATOR, add):
            add(function)
        return function

    return decorate


def checked_interval(seconds: Any) -> float:
    if inspect.isroutine(seconds):
        raise TypeError(
            "@synapse.background(seconds=...): the interval is a number, and there is none: "
            "write @synapse.background(seconds=60)"
        )
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(
            f"@synapse.background(seconds=...): the interval is a number, not {seconds!r}"
        )
    if not 0 < seconds < math.inf:
        raise ValueError(
            f"@synapse.background(seconds=...): the interval is more than 0 and has an end, "
            f"not {seconds!r}"
        )
    # A longer one, no lock can wait for.
    return float(min(seconds, threading.TIMEOUT_MAX))


class Background:
    """The background functions of a worker while they run."""

    def __init__(self, functions: Sequence[Repeated]) -> None:
        self._functions = functions
        self._leave_child: LeaveChild = lambda _error: None
        self._stopping = threading.Event()
        self._ended: list[threading.Event] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def alive(self) -> int:
        return sum(not ended.is_set() for ended in self._ended)

    def start(self, loop: asyncio.AbstractEventLoop | None, leave_child: LeaveChild) -> None:
        self._loop = loop
        self._leave_child = leave_child
        for each in self._functions:
            ended = threading.Event()
            self._ended.append(ended)
            if each.is_async:
                assert loop is not None
                loop.call_soon_threadsafe(self._start_task, loop, each, ended)
            else:
                threading.Thread(
                    target=self._repeat,
                    args=(each, ended),
                    name=f"synapse-{each.name}",
                    daemon=True,
                ).start()

    def stop(self) -> None:
        """Let no run begin, cancel tasks, and give what runs a moment to end."""
        self._stopping.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel)
        limit = time.monotonic() + _ENDING_SECONDS
        for ended in self._ended:
            ended.wait(max(0.0, limit - time.monotonic()))

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _repeat(self, each: Repeated, ended: threading.Event) -> None:
        if each.waits_first:
            self._stopping.wait(each.seconds)
        while not self._stopping.is_set():
            try:
                each.function()
            except BaseException as error:
                self._failed(each, error)
            else:
                self._leave_child(None)
            self._stopping.wait(each.seconds)
        ended.set()

    def _start_task(
        self, loop: asyncio.AbstractEventLoop, each: Repeated, ended: threading.Event
    ) -> None:
        def go_on(task: asyncio.Task[None]) -> None:
            self._tasks.remove(task)
            if self._stopping.is_set():
                ended.set()
            else:
                # Whoever cancels all tasks of the loop does not mean the schedule.
                self._start_task(loop, each, ended)

        task = loop.create_task(self._repeat_async(each))
        self._tasks.append(task)
        task.add_done_callback(go_on)

    async def _repeat_async(self, each: Repeated) -> None:
        import asyncio

        if each.waits_first:
            await asyncio.sleep(each.seconds)
        while not self._stopping.is_set():
            try:
                await each.function()
                self._leave_child(None)
            except BaseException as error:
                if not (self._stopping.is_set() and isinstance(error, asyncio.CancelledError)):
                    self._failed(each, error)
            if not self._stopping.is_set():
                await asyncio.sleep(each.seconds)

    def _failed(self, each: Repeated, error: BaseException) -> None:
        self._leave_child(error)
        logging.getLogger("synapse.background").error("`%s` failed", each.name, exc_info=error)
