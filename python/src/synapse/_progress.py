"""Reports of progress: values that travel before the end of a call, and move its deadline."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from synapse._cancel import shielded
from synapse._encode import EncodeIssue
from synapse._frames import FIXED_SIZE, PROGRESS, make_frame

if TYPE_CHECKING:
    from synapse._calls import Call
    from synapse._channel import Channel
    from synapse._codec import Codec


class Progress:
    """What a call has to say of its progress, to a caller who listens."""

    __slots__ = (
        "_call",
        "_ceiling",
        "_channel",
        "_codec",
        "_limit",
        "_lock",
        "_open",
        "_pid",
        "_seconds",
    )

    def __init__(self, channel: Channel, codec: Codec, max_frame_size: int, call: Call) -> None:
        self._channel = channel
        self._codec = codec
        self._limit = max_frame_size
        self._call = call
        self._seconds: float | None = None
        self._ceiling = math.inf
        self._lock = threading.Lock()
        self._open = True
        self._pid = os.getpid()

    def extend(self, seconds: float, ceiling: float) -> None:
        """Let each report give that time anew, until `ceiling` at most."""
        self._seconds = seconds
        self._ceiling = ceiling

    @shielded
    def report(self, value: Any) -> None:
        """Send a value; does nothing once the call has ended."""
        # A forked process has no channel.
        if not self._open or os.getpid() != self._pid:
            return
        call = self._call
        try:
            payload = self._codec.encode(value)
        except EncodeIssue as issue:
            raise ValueError(f"progress that cannot be sent: {issue}") from None
        size = FIXED_SIZE + len(payload)
        if size > self._limit:
            raise ValueError(f"progress that cannot be sent: {size} bytes, above {self._limit}")
        # The host may use the number again as soon as the call has ended.
        with self._lock:
            if not self._open:
                return
            if self._seconds is not None:
                call.deadline = min(time.monotonic() + self._seconds, self._ceiling)
            self._channel.post(make_frame(PROGRESS, call.id, payload))
        self._channel.flush()

    def close(self) -> None:
        with self._lock:
            self._open = False
        self._call.extend().progress = None
