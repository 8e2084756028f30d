"""A thread that sends the items of a generator which makes the next one for too long."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import Final

from synapse._channel import Channel
from synapse._outgoing import OutStream

_TICK_SECONDS: Final = 0.005
_IDLE_TICKS: Final = 20


class Flusher:
    """Looks at the streams that are being made every few milliseconds, and sends what is there."""

    __slots__ = ("_asleep", "_channel", "_started", "_starting", "_streams", "_wake")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._streams: dict[OutStream, None] = {}
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._asleep = False
        self._started = False
        self._starting = threading.Lock()

    def watch(self, stream: OutStream) -> None:
        """From now on the maker of its items may be away for any time."""
        self._streams[stream] = None
        if self._asleep:
            self._asleep = False
            self._wake.put(None)
        elif not self._started:
            self._start()

    def leave(self, stream: OutStream) -> None:
        """Its items have been sent."""
        self._streams.pop(stream, None)

    def _start(self) -> None:
        with self._starting:
            if not self._started:
                self._started = True
                # The system may have no more threads: then items wait for those that follow.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._run, name="synapse-items", daemon=True).start()

    def _run(self) -> None:
        idle = 0
        while True:
            if idle >= _IDLE_TICKS:
                self._sleep()
                idle = 0
            time.sleep(_TICK_SECONDS)
            streams = list(self._streams)
            idle = 0 if streams else idle + 1
            for stream in streams:
                stream.flush()
            if streams:
                self._channel.flush()

    def _sleep(self) -> None:
        self._asleep = True
        # Said first, looked at second: whoever watches does it the other way round.
        if not self._streams:
            self._wake.get()
        self._asleep = False
