"""The worker: takes frames, runs handlers, and answers every call exactly once."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse import _empty, _frames, _stats
from synapse._answers import Answers
from synapse._calls import Call
from synapse._canceller import Canceller
from synapse._channel import BATCH_SECONDS, Channel, HostGone
from synapse._codec import Codec, DecodeIssue
from synapse._drain import Drain
from synapse._faults import leave_broken, leave_faulty
from synapse._flusher import Flusher
from synapse._follower import Follower, Pace
from synapse._frames import REQUEST, Buffer, Frame, Outgoing, ProtocolBroken, make_frame
from synapse._handlers import Handler
from synapse._host import host
from synapse._lifecycle import Lifecycle
from synapse._link import Link
from synapse._logs import Output
from synapse._memory import Memory
from synapse._objects import Objects, Remote
from synapse._requests import Requests
from synapse._runner import Runner
from synapse._waits import Waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from synapse._loop import Loop, TaskRunner
    from synapse._outgoing import OutStream


class Settings(NamedTuple):
    """What `Welcome` says."""

    max_frame_size: int
    concurrency: int
    max_open_calls: int
    evaluate: bool
    polling_seconds: float
    shared_memory: SharedMemory | None


class SharedMemory(NamedTuple):
    """How memory is shared: what is worth it, and how much the worker may take."""

    threshold: int
    capacity: int


class Worker:
    """One connection to the host, served until the process leaves.

    Whoever holds `channel.reading` handles frames. Synchronous handlers run on the main thread,
    which reads when it has nothing to run, or in a `Pool`; asynchronous ones in a `TaskRunner`,
    which is the main thread where no handler is synchronous. Threads that wait for the host take
    part in reading, see `Waits`.
    """

    def __init__(
        self,
        channel: Channel,
        codec: Codec,
        handlers: Mapping[str, Handler],
        output: Output,
        lifecycle: Lifecycle,
        memory: Memory,
    ) -> None:
        self.channel = channel
        self.memory = memory
        self.lifecycle = lifecycle
        lifecycle.leave_child = self.leave_child
        self.answers = Answers(codec)
        self.drain = Drain(self)
        self._codec = codec
        self.handlers = handlers
        self._output = output
        # Whether a handler forked: the system takes as long to tell as a short handler runs.
        self.is_child = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._become_child)
        self.calls: dict[int, Call] = {}
        # Asked back while the main thread had nothing to do: they are given back if it is held up
        # before it comes to them.
        self._recalled: deque[Call] = deque()
        self.objects = Objects(codec, self._event_loop, self.leave_child)
        lifecycle.objects = self.objects
        self.answers.drop = self.objects.drop
        self._requests = Requests(
            self.handlers, codec, self.answers, self.calls, channel, self.objects
        )
        self.runner = Runner(self)
        self.canceller = Canceller(self)
        self._making_tasks = threading.Lock()
        self._pace = Pace()
        self.following = False
        self.waits = Waits(self)
        self.link = Link(self, codec)
        self.flusher = Flusher(channel)
        self.tasks: TaskRunner | None = None
        self.ignored = 0

    @property
    def open_calls(self) -> int:
        return len(self.calls)

    @property
    def open_streams(self) -> int:
        """How many of the open calls are streams."""
        return sum(call.stream is not None for call in list(self.calls.values()))

    def count(self) -> None:
        """Let `synapse.stats()` speak of this worker."""
        _stats.count(
            calls=lambda: self.open_calls,
            streams=lambda: self.open_streams,
            host_calls=lambda: self.link.open_requests,
            handles=lambda: self.objects.count,
            tasks=lambda: self.lifecycle.tasks,
        )

    def _become_child(self) -> None:
        self.is_child = True

    def leave_child(self, error: BaseException | None) -> None:
        """End a process that a handler forked, where it comes out of the handler: calls, channel
        and answers are its parent's.
        """
        if not self.is_child:
            return
        code = error.code if isinstance(error, SystemExit) else None
        os._exit(code if isinstance(code, int) else 0 if error is None or code is None else 1)

    def serve(self, arrived: list[Frame]) -> None:
        """Answer the host until it is done with this worker; does not return.

        Args:
            arrived: Frames that have been read already.
        """
        self.channel.on_host_gone = self.drain.on_host_gone
        # Until what comes with the `Welcome` is dealt with: threads of the module may wait by then.
        self.channel.reading.acquire()
        try:
            early = self._await_welcome(arrived)
            if self.tasks is not None and not self._has_synchronous():
                self._serve_on_loop(self.tasks, early)
            else:
                self._serve_on_main(early)
        except ProtocolBroken as error:
            leave_broken(error)
        except HostGone:
            self.link.close()
            # Another thread ends the process.
            threading.Event().wait()
        except BaseException:
            leave_faulty()

    def _has_synchronous(self) -> bool:
        handlers = self.handlers.values()
        if not handlers or self._requests.evaluate is not None:
            return True
        return any(not handler.is_async for handler in handlers)

    def _await_welcome(self, arrived: list[Frame]) -> list[Frame]:
        """Wait for `Welcome` and return the frames that came with it: nothing starts before."""
        early: list[Frame] = []
        frames = arrived
        while True:
            for index, frame in enumerate(frames):
                if frame[0] == _frames.WELCOME:
                    self._start(self._to_settings(frame[3]))
                    early += frames[index + 1 :]
                    arrived.clear()
                    return early
                early.append(frame)
            frames = self.channel.read()

    def _to_settings(self, payload: Buffer) -> Settings:
        welcome = self._control(payload)
        if not isinstance(welcome, dict) or welcome.get("protocol") != _frames.PROTOCOL_VERSION:
            raise ProtocolBroken("a Welcome for another version of the protocol")
        keys = ("maxFrameSize", "concurrency", "maxOpenCalls")
        values: list[Any] = [welcome.get(key) for key in keys]
        if not all(type(value) is int and value > 0 for value in values):
            raise ProtocolBroken("a Welcome without its settings")
        size, concurrency, open_calls = values
        evaluate = welcome.get("evaluate")
        if evaluate is not None and not isinstance(evaluate, bool):
            raise ProtocolBroken("a Welcome whose `evaluate` is neither true nor false")
        polling = welcome.get("polling")
        if polling is not None and not (type(polling) is int and polling >= 0):
            raise ProtocolBroken("a Welcome whose `polling` is not a number of microseconds")
        shared = welcome.get("sharedMemory")
        return Settings(
            max_frame_size=size,
            concurrency=concurrency,
            max_open_calls=open_calls,
            evaluate=evaluate is True,
            polling_seconds=(polling or 0) / 1_000_000,
            shared_memory=None if shared is None else _to_shared_memory(shared),
        )

    def _control(self, payload: Buffer) -> Any:
        try:
            return self._codec.decode(payload)
        except DecodeIssue as error:
            raise ProtocolBroken(f"a control frame that does not decode: {error}") from None

    def _start(self, settings: Settings) -> None:
        self.channel.limit_frames(settings.max_frame_size)
        self.channel.polling.begin(settings.polling_seconds)
        self.answers.limit(settings.max_frame_size)
        if settings.shared_memory is not None:
            self._share_memory(*settings.shared_memory)
        self._output.sender.max_frame_size = settings.max_frame_size
        self._requests.max_open_calls = settings.max_open_calls
        if settings.evaluate:
            self._allow_code()
        synchronous = self._has_synchronous()
        self.objects.on_loop = not synchronous
        lifecycle = self.lifecycle
        if lifecycle.needs_loop or any(handler.is_async for handler in self.handlers.values()):
            self._make_tasks(in_thread=synchronous)
        if synchronous:
            self.runner.open(settings.concurrency)
        self.link.open(settings.max_open_calls)
        host.attach(self.link)
        lifecycle.begin()

    def _share_memory(self, threshold: int, capacity: int) -> None:
        regions = self.memory.open(capacity)
        if regions is None:
            return
        from synapse._sharing import Sharing

        sharing = Sharing(self.memory, regions, self._codec, threshold)
        self.answers.share(sharing)
        self.link.encode = sharing.encode
        _empty.attach(sharing)

    def _event_loop(self) -> Loop:
        return self._needed_tasks().loop

    def _needed_tasks(self) -> TaskRunner:
        """What runs coroutine functions, also in a module that has none itself."""
        with self._making_tasks:
            return self.tasks or self._make_tasks(in_thread=True)

    def _make_tasks(self, *, in_thread: bool) -> TaskRunner:
        from synapse._loop import TaskRunner

        pace = Pace() if in_thread else self._pace
        tasks = self.tasks = TaskRunner(self, pace, self.lifecycle.loop())
        if in_thread:
            tasks.start_thread()
        return tasks

    def _allow_code(self) -> None:
        from synapse._evaluate import Evaluator

        assert self.lifecycle.module is not None
        self._requests.evaluate = Evaluator(self.lifecycle.module).handler(self._codec)

    def _begin(self, early: list[Frame]) -> None:
        """Deal with what came with the `Welcome`, before another thread reads what comes next."""
        calls = self._handle(early)
        # Their payloads would hold memory for as long as the worker lives.
        early.clear()
        self.waits.let_go()
        self._submit(calls)
        self.channel.flush()
        Follower(self._pace, self._follow, self._output.flush_c).start("synapse-follower")

    def _serve_on_main(self, early: list[Frame]) -> None:
        channel, ready, pace, waits = self.channel, self.runner.ready, self._pace, self.waits
        self._begin(early)
        run, objects, now = self.runner.run, self.objects, time.perf_counter
        # In a pool, it is for its threads to close.
        due = objects.due if self.runner.pool is None else ()
        while True:
            if ready:
                flush_at = now() + BATCH_SECONDS
                # What reads may take calls back: looking and taking go together.
                while ready:
                    run(ready.popleft())
                    # What is ready together leaves in one write, unless the host waits for it by
                    # now.
                    if ready and (self.following or now() >= flush_at):
                        channel.flush()
                        flush_at = now() + BATCH_SECONDS
            channel.flush()
            if due:
                objects.close_due()
                continue
            waits.main_waits = True
            # Said first, looked at second: whoever reads adds to `ready` first and looks at
            # `main_waits` second.
            if not ready and not due:
                pace.busy = False
                channel.reading.wait()
                try:
                    if not ready and not due:
                        self._recalled.clear()
                        tasks = self._handle(channel.read() if self.calls else channel.read_next())
                        if tasks:
                            self._submit(tasks)
                finally:
                    waits.main_waits = False
                    pace.leave_reading()
                    channel.reading.release()
            waits.main_waits = False
            if waits.sleepers:
                waits.pass_on()

    def _serve_on_loop(self, tasks: TaskRunner, early: list[Frame]) -> None:
        self._begin(early)
        tasks.read_when_ready(self.channel.fileno(), self._read_on_loop)
        tasks.poll_with(self.channel.polling, lambda: not self.calls)
        tasks.run()

    def _read_on_loop(self) -> None:
        reading = self.channel.reading
        # When the follower has it, it also reads what made this happen.
        if not reading.acquire(blocking=False):
            return
        try:
            calls = self._handle(self.channel.read_arrived())
        except HostGone:
            self.link.close()
            self.lifecycle.loop().remove_reader(self.channel.fileno())
            return
        except ProtocolBroken as error:
            leave_broken(error)
        except BaseException:
            leave_faulty()
        finally:
            self.waits.let_go()
        self._submit(calls)
        # What was refused, without a task that would.
        self.channel.flush()

    def _follow(self, turn: int) -> None:
        channel, pace, waits = self.channel, self._pace, self.waits
        # Whoever reads may not be the one whose answers are ready.
        channel.flush()
        self._give_back()
        if not channel.reading.acquire(blocking=False):
            return
        self.following = True
        try:
            channel.flush()
            while pace.turn == turn and not waits.main_waits and not waits.sleepers:
                if not self.read():
                    return
        finally:
            self.following = False
            waits.let_go()

    def _give_back(self) -> None:
        """The main thread is held up: what was asked back need not wait for it."""
        if not self._recalled:
            return
        with contextlib.suppress(IndexError):
            while True:
                call = self._recalled.popleft()
                # Its number may be another's by now.
                if self.calls.get(call.id) is call:
                    self.canceller.recall(call.id)
        self.channel.flush()

    def read(self) -> bool:
        """Wait for frames and deal with them, in a thread that is not an event loop's and holds
        `reading`; `False` where there will be none.
        """
        return self._read_with(self.channel.read_within if self.drain.begun else self.channel.read)

    def read_arrived(self) -> None:
        """Deal with what has arrived, unless another thread reads."""
        self.channel.flush()
        if self.channel.reading.acquire(blocking=False):
            try:
                self._read_with(self.channel.read_arrived)
            finally:
                self.waits.let_go()

    def _read_with(self, read: Callable[[], list[Frame]]) -> bool:
        try:
            self._submit(self._handle(read()))
            self.channel.flush()
            return True
        except HostGone:
            self.link.close()
            return False
        except ProtocolBroken as error:
            leave_broken(error)
        except BaseException:
            leave_faulty()

    def _handle(self, frames: list[Frame]) -> list[Call]:
        """Deal with frames; returns the calls to submit as tasks.

        That is for the caller, because a task may take its first step at once, and no user code
        runs while reading is held.
        """
        tasks: list[Call] = []
        pool = self.runner.pool
        # With a pool, the other one is nobody's: the main thread runs what it finds there.
        ready: deque[Call] | list[Call] = self.runner.ready if pool is None else []
        accept, drain = self._requests.accept, self.drain
        for kind, id, meta, payload in frames:
            if kind == REQUEST:
                call = accept(id, meta, payload, drain.begun)
                if call is None:
                    continue
                if call.handler.is_async:
                    tasks.append(call)
                elif call.extras is None or call.extras.parent is None:
                    ready.append(call)
                else:
                    self.waits.route(call, self.runner.queue)
            elif kind <= _frames.CHUNK:
                self.link.answered(kind, id, meta, payload)
            elif kind == _frames.CREDIT:
                self._credit(id, payload)
            elif kind == _frames.CANCEL:
                self.canceller.cancel(id)
            elif kind == _frames.RECALL:
                if pool is not None:
                    # It can only be taken from where it has been put.
                    pool.submit(ready)
                    ready.clear()
                if pool is None and self.waits.main_waits:
                    # Whoever starves for a processor answers as late as one who is busy.
                    asked = self.calls.get(id)
                    if asked is not None:
                        self._recalled.append(asked)
                else:
                    self.canceller.recall(id)
            elif kind == _frames.RELEASE:
                self.ignored += not self.objects.release(id)
            elif kind == _frames.FREE:
                self.ignored += not self.memory.free(id)
            elif kind == _frames.PING:
                self.channel.send(make_frame(_frames.PONG, id))
            elif kind == _frames.SHUTDOWN:
                self._shut_down(payload)
            else:
                self.ignored += 1
        if pool is not None:
            pool.submit(ready)
            self.channel.flush()
        if self.objects.due:
            self._close_soon()
        return tasks

    def _close_soon(self) -> None:
        """Let objects be closed that were let go of, where handlers run; the main thread looks by
        itself.
        """
        close = self.objects.close_due
        if self.objects.on_loop:
            self._event_loop().call_soon_threadsafe(close)
        elif self.runner.pool is not None:
            threading.Thread(target=close, name="synapse-close", daemon=True).start()

    def _submit(self, calls: list[Call]) -> None:
        if calls:
            (self.tasks or self._needed_tasks()).submit(calls)

    def _shut_down(self, payload: Buffer) -> None:
        grace = self._control(payload)
        if type(grace) not in (int, float) or grace < 0:
            raise ProtocolBroken("a Shutdown without its grace")
        self.drain.shut_down(grace / 1000)
        if grace == 0:
            self.canceller.cancel_all()

    def _credit(self, id: int, payload: Buffer) -> None:
        items = self._control(payload)
        if type(items) is not int or items < 1:
            raise ProtocolBroken("a Credit that grants nothing")
        call = self.calls.get(id)
        stream = None if call is None else call.stream
        if call is None or stream is None:
            self.ignored += 1
        elif stream.credit(items):
            self.go_on(call, stream)

    def go_on(self, call: Call, stream: OutStream) -> None:
        """Let a stream that was parked go on; for whoever reads."""
        if stream.on_loop:
            assert self.tasks is not None
            self.tasks.wake(call)
        elif call.parent is not None:
            self.waits.route(call, self.runner.queue)
        else:
            self.runner.queue(call)

    def stream_on_loop(self, call: Call, made: AsyncIterable[Any]) -> None:
        """Let the event loop stream what a synchronous handler has returned."""
        stream = call.stream
        assert stream is not None
        stream.on_loop = True
        self._needed_tasks().stream(call, made)

    def flush_soon(self) -> None:
        """Write what is queued: at once, or with what else an event loop does in its turn."""
        if self.tasks is None or not self.tasks.flush_soon():
            self.channel.flush()

    def pause(self) -> None:
        """This thread, in a handler, is about to wait for the host."""
        if threading.get_ident() == self.runner.main_thread:
            self._pace.busy = False
            self._give_back()

    def unpause(self) -> None:
        if threading.get_ident() == self.runner.main_thread:
            self._pace.leave_reading()

    def end_output(self) -> None:
        """Send the lines that are not ended."""
        self._output.end_all()

    def end(self, call: Call, answer: Outgoing) -> None:
        """Close a call and queue its answer."""
        output = self._output
        if output.partials:
            output.end_call(call)
        call.answered = True
        # The task holds its context, and that the call.
        call.task = None
        extras = call.extras
        if extras is not None:
            if extras.stream is not None:
                extras.stream.source = extras.stream.context = None
            call.end()
        # In this order, so that where no call is open, none has an answer that is not queued.
        self.channel.post(answer)
        del self.calls[call.id]
        if isinstance(call.handler, Remote):
            self._end_remote(call.handler, answer)
        if self.drain.begun and not self.calls:
            self.drain.finished()

    def _end_remote(self, handler: Remote, answer: Outgoing) -> None:
        handler.ended(answer)
        # A thread of synchronous handlers looks by itself, and so does whoever reads.
        if handler.is_async and self.objects.due:
            self._event_loop().call_soon_threadsafe(self.objects.close_due)


def _to_shared_memory(said: Any) -> SharedMemory:
    values: list[Any] = (
        [said.get(key) for key in SharedMemory._fields] if isinstance(said, dict) else []
    )
    if not values or not all(type(value) is int and value >= 0 for value in values):
        raise ProtocolBroken("a Welcome whose `sharedMemory` is not what is shared and how much")
    # What is empty lies nowhere.
    return SharedMemory(max(1, values[0]), values[1])
