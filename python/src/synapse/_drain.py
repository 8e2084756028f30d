"""The end of a worker: what runs is finished, then the process leaves."""

from __future__ import annotations

import _thread
import threading
import time
from typing import TYPE_CHECKING, Final

from synapse import _life
from synapse._cancel import shielded
from synapse._frames import GO_AWAY, make_frame

if TYPE_CHECKING:
    from synapse._worker import Worker

# How long a worker that said `GoAway` goes on refusing what was on its way to it.
_LINGER_SECONDS: Final = 1.0
# How long tasks have to end after they were cancelled.
_CANCELLING_SECONDS: Final = 0.1
# How long what the module does at the end has, at least: the host waits a little longer than the
# grace before it uses force.
_STOPPING_SECONDS: Final = 0.2
# How long it has where no host has said.
_STOPPING_ALONE_SECONDS: Final = 5.0
# How long the last answers have to leave, at least.
_WRITING_SECONDS: Final = 1.0
# How long a worker lives whose host asked it to leave, and waits no longer.
_HURRYING_SECONDS: Final = 0.5


class Drain:
    """Knows whether the worker is leaving, and leaves when it may."""

    __slots__ = (
        "_deadline",
        "_finished",
        "_hurrying",
        "_leaving",
        "_shutting_down",
        "_worker",
        "begun",
    )

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._finished = threading.Condition()
        self._leaving = threading.Lock()
        self._shutting_down = False
        self._hurrying = False
        self._deadline = 0.0
        self.begun = False

    def finished(self) -> None:
        """The last open call has ended."""
        with self._finished:
            self._finished.notify_all()

    def _await_calls(self, seconds: float | None = None) -> None:
        """Wait until no call is open: the one that ended may not have been the last."""
        with self._finished:
            self._finished.wait_for(lambda: not self._worker.open_calls, seconds)

    def go_away(self) -> None:
        """Tell the host to send nothing more, finish what runs, and leave: without the host having
        asked.

        Runs in a thread of its own, and does not return.
        """
        with self._finished:
            if self.begun:
                return
            self._begin(b"")
        self._go_away()

    @shielded
    def replace(self, reason: str | None, *, done: bool = False) -> None:
        """Like `go_away`, from a thread that goes on. Does nothing when the worker is leaving.

        `done` tells that it has served its purpose, and is not one that fails soon after its start.
        """
        why: dict[str, object] = {} if reason is None else {"reason": reason}
        if done:
            why["done"] = True
        payload = self._worker.link.codec.encode(why) if why else b""
        with self._finished:
            if self.begun:
                return
            # First, since it can fail: a worker that has said it leaves has to.
            _thread.start_new_thread(self._go_away, ())
            self._begin(payload)
        self._worker.channel.flush()

    def _begin(self, payload: bytes) -> None:
        self.begun = True
        self._worker.channel.post(make_frame(GO_AWAY, 0, payload))

    def _go_away(self) -> None:
        self._worker.channel.flush()
        self._await_calls()
        time.sleep(_LINGER_SECONDS)
        # A request that was being accepted as this began is a call by now.
        self._await_calls()
        if not self._shutting_down:
            self._leave(_STOPPING_ALONE_SECONDS)

    def shut_down(self, grace: float) -> None:
        """Leave within `grace` seconds, as the host asked."""
        if self._shutting_down:
            return
        self._shutting_down = True
        self.begun = True
        # A longer one, or one without an end, no lock can wait for.
        grace = min(grace, threading.TIMEOUT_MAX)
        threading.Thread(
            target=self._shut_down, args=(grace,), name="synapse-shutdown", daemon=True
        ).start()

    def _shut_down(self, grace: float) -> None:
        worker = self._worker
        self._deadline = time.monotonic() + grace
        with self._finished:
            self._finished.wait_for(
                lambda: self._hurrying or not worker.open_calls, max(0.0, grace)
            )
        if worker.open_calls:
            worker.canceller.cancel_all()
            self._await_calls(_CANCELLING_SECONDS)
        left = 0.0 if self._hurrying else self._deadline - time.monotonic()
        self._leave(max(_STOPPING_SECONDS, left))

    def _leave(self, seconds: float) -> None:
        """Let the module end within that time, and leave."""
        worker = self._worker
        # Whatever is written from here on may wait for a host that does not read.
        _life.leave_within(seconds + _WRITING_SECONDS, 0)
        worker.lifecycle.stop(seconds)
        # A signal and the host may both have asked.
        with self._leaving:
            worker.end_output()
            worker.channel.finish(max(_WRITING_SECONDS, self._deadline - time.monotonic()))
            _life.end(0, orphaned=self._hurrying)

    def on_host_gone(self) -> None:
        """The end of the channel: expected when this worker is leaving and owes no answer.

        Returns where the host asked for the end, and the module has something to do at it.
        """
        if self._hurrying:
            return
        if self._shutting_down and self._worker.lifecycle.has_end:
            _life.leave_within(_HURRYING_SECONDS, _life.EXIT_HOST_GONE, orphaned=True)
            self._hurrying = True
            self.finished()
            return
        if self.begun and not self._worker.open_calls:
            _life.end(0, orphaned=True)
        _life.leave_orphaned()
