"""The life of a module in its worker: its start, what runs beside the calls, and its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from synapse import _background
from synapse._hooks import Hook, starts, stops

if TYPE_CHECKING:
    from synapse._loop import Loop
    from synapse._objects import Objects


class Lifecycle:
    """The hooks, the background functions and the event loop of a worker."""

    def __init__(self) -> None:
        self.module: ModuleType | None = None
        self._loop: Loop | None = None
        self._background = _background.Background(_background.registry)
        self._stopped: threading.Event | None = None
        self._stopping = threading.Lock()
        self._at = "What runs in the background"
        self.objects: Objects | None = None
        self.leave_child: Callable[[BaseException | None], None] = lambda _error: None

    @property
    def needs_loop(self) -> bool:
        if self._loop is not None:
            return True
        hooks = any(hook.is_async for hook in (*starts, *stops))
        return hooks or any(each.is_async for each in _background.registry)

    @property
    def has_end(self) -> bool:
        """Whether there is something to do before the worker leaves."""
        held = self.objects is not None and not self.objects.is_empty
        return held or bool(stops or _background.registry)

    @property
    def tasks(self) -> int:
        return self._background.alive

    def loop(self) -> Loop:
        """The one event loop, made when it is first needed."""
        if self._loop is None:
            from synapse._loop import Loop

            self._loop = Loop()
        return self._loop

    def start(self, module: ModuleType) -> None:
        """Run the hooks of a module that is loaded, before the worker is ready.

        Raises:
            BaseException: What one of them raised.
        """
        self.module = module
        # Hooks may register others.
        for hook in starts:
            if not hook.is_async:
                hook.function()
                continue
            error = self.loop().run_until_complete(_outcome(hook.function))
            if error is not None:
                raise error

    def begin(self) -> None:
        """Start the background functions, once the host has welcomed the worker."""
        self._background.start(self._loop, self.leave_child)

    def stop(self, seconds: float) -> None:
        """End the background functions and run the hooks, and wait for that for as long."""
        if not self.has_end:
            return
        with self._stopping:
            if self._stopped is None:
                self._stopped = threading.Event()
                threading.Thread(
                    target=self._stop, args=(self._stopped,), name="synapse-stop", daemon=True
                ).start()
        if not self._stopped.wait(seconds):
            _logger().warning("%s did not end in time: the worker leaves without it", self._at)

    def _stop(self, stopped: threading.Event) -> None:
        self._background.stop()
        if self.objects is not None:
            self._at = "The `close` of a handle"
            self.objects.close_all(lambda close: run_on(self.loop(), close))
        # Hooks may register others.
        while stops:
            self._run_stop(stops.pop())
        stopped.set()

    def _run_stop(self, hook: Hook) -> None:
        self._at = f"The hook `{hook.name}`"
        error: BaseException | None = None
        try:
            if hook.is_async:
                error = run_on(self.loop(), hook.function)
            else:
                hook.function()
        except BaseException as raised:
            error = raised
        self.leave_child(error)
        if error is not None:
            _logger().error("%s failed as the worker ended", self._at, exc_info=error)


def _logger() -> logging.Logger:
    return logging.getLogger("synapse")


async def _outcome(function: Callable[[], Any]) -> BaseException | None:
    # Caught here, so that it does not end the loop, and its traceback is the module's alone.
    try:
        await function()
    except BaseException as error:
        return error
    return None


def run_on(loop: Loop, function: Callable[[], Any]) -> BaseException | None:
    """Run a coroutine function on the loop from another thread; returns what it raised."""
    if not loop.is_served:
        # No handler needs it, or the host has not welcomed the worker yet.
        with loop.running:
            return loop.run_until_complete(_outcome(function))
    import asyncio

    return asyncio.run_coroutine_threadsafe(_outcome(function), loop).result()
