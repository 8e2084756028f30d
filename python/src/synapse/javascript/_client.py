"""The blocking client: a server that is restarted within a budget, and who has which connection."""

from __future__ import annotations

import heapq
import itertools
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType, TracebackType
from typing import Any, Final, TypeVar, overload

from synapse._codec import DecodeIssue, apply
from synapse._convert import converter
from synapse._encode import EncodeIssue
from synapse.javascript import _server, _values
from synapse.javascript._connection import RESET, STATS, Command, Connection, Lost
from synapse.javascript._errors import (
    Closed,
    NodeError,
    NodeExited,
    NodeUnresponsive,
    RestartLimit,
)
from synapse.javascript._logs import OnLog, to_logging
from synapse.javascript._server import Server, ServerOptions, Transport

T = TypeVar("T")
Clock = Callable[[], float]
MessageHandler = Callable[[Any], Any]
RawMessageHandler = Callable[[str], str]
_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class ThreadStats:
    """The figures of one thread."""

    thread: int
    #: Whether it has a runtime: one that is idle may have none.
    running: bool
    commands: int
    #: Runtimes that were started in the place of another.
    replaced: int
    #: Seconds that JavaScript took for the last command.
    last_run: float
    #: Bytes of JavaScript's heap.
    heap_bytes: int
    #: Functions that are kept compiled.
    functions: int


class RestartBudget:
    """So many restarts a minute: a restart is granted while the restarts, less what was granted for
    the minutes since, are no more.
    """

    def __init__(self, max_per_minute: int, clock: Clock = time.monotonic) -> None:
        self.max_per_minute = max_per_minute
        self._clock = clock
        self._count = 0
        self._since = clock()

    def take(self) -> bool:
        """Whether there may be one more."""
        minutes = int((self._clock() - self._since) // 60)
        self._since += minutes * 60
        self._count = max(0, self._count - minutes * self.max_per_minute)
        if self._count + 1 > self.max_per_minute:
            return False
        if self._count == 0:
            self._since = self._clock()
        self._count += 1
        return True


class _Nesting(threading.local):
    """The commands of a thread that run in the message handlers of others."""

    depth = 0
    #: Until when the handler that runs is of use.
    until: float | None = None


class Client:
    """Runs JavaScript in Node; for any number of threads of Python.

        with javascript.Client(threads=2) as js:
            js.run("(m, p) => p.map((x) => x * 2)", [1, 2, 3])

    It starts when it is made. It is to be closed, by `with` or by `close`; one that is forgotten is
    closed when it is collected or when Python ends, and one whose Python is killed ends by itself.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        module: str | os.PathLike[str] | None = None,
        public_key: str | None = None,
        source_map: str | os.PathLike[str] | None = None,
        timeout: float | None = 30.0,
        message_timeout: float | None = 30.0,
        start_timeout: float = 30.0,
        stop_timeout: float = 5.0,
        idle_timeout: float = 0.0,
        recycle_after: int = 0,
        memory_limit_mib: int = 0,
        max_restarts_per_minute: int = 5,
        max_frame_size: int = 64 * _MIB,
        node: str | os.PathLike[str] | None = None,
        node_options: Sequence[str] = (),
        server: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        transport: Transport | None = None,
        check_version: bool = True,
        on_log: OnLog | None = None,
        log_prefix: str = "",
    ) -> None:
        """Start Node; times are in seconds.

        Args:
            threads: How many commands run at once; as many as the machine has processors by
                default. A thread gets its runtime when it is first needed.
            module: A JavaScript module that is loaded once in every thread, and that functions get
                as their first parameter.
            public_key: The key of the module's signer, in hexadecimal: the module must be one that
                `sign` made.
            source_map: The source map of the module, where the module does not name it itself.
            timeout: How long JavaScript may run in one command before it is stopped; `None` for
                ever. What a message handler takes does not count.
            message_timeout: How long a message handler may take before JavaScript goes on with an
                exception.
            start_timeout: How long Node and the module may take to start.
            stop_timeout: How long Node may take to end before it is killed.
            idle_timeout: After how long without a command a thread gives up its runtime, and its
                memory; the first thread keeps it. 0 for never.
            recycle_after: After how many commands a thread gets a new runtime; 0 for never.
            memory_limit_mib: How much heap a runtime may have, in MiB; 0 for what Node gives it.
            max_restarts_per_minute: How often Node is started again when it ends by itself.
            max_frame_size: How many bytes a command, a message or a value may have.
            node: Node's executable; by default that of the variable `SYNAPSE_NODE`, of the npm
                package `node`, or the one on the path.
            node_options: More options for Node.
            server: The server program, where it is not found by itself.
            env: Variables that are added to the environment of Node.
            cwd: The working directory of Node.
            transport: `unix` sockets, or `tcp` on the loopback interface where there are none.
            check_version: Whether the server must be of the version of this client.
            on_log: Gets each record of the log, in another thread. By default they go to the logger
                `synapse.javascript`.
            log_prefix: Is put before the messages of the server itself, not of JavaScript.

        Raises:
            ValueError: An option is no good.
            NodeNotFound: There is no Node, or no server.
            NodeStartFailed: Node or the module does not start.
        """
        count = (os.cpu_count() or 1) if threads is None else threads
        if not 1 <= count <= 256:
            raise ValueError(f"threads must be from 1 to 256, and is {count}")
        if public_key and not module:
            raise ValueError("public_key needs a module that is verified with it")
        self.timeout = timeout
        self.message_timeout = message_timeout
        self._options = ServerOptions(
            threads=count,
            module=module,
            public_key=public_key,
            source_map=source_map,
            node=node,
            node_options=tuple(node_options),
            server=server,
            env=env or {},
            cwd=cwd,
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            idle_timeout=idle_timeout,
            recycle_after=recycle_after,
            memory_limit_mib=memory_limit_mib,
            max_frame_size=max_frame_size,
            transport=transport or ("unix" if hasattr(socket, "AF_UNIX") else "tcp"),
            check_version=check_version,
            on_log=on_log or to_logging,
            log_prefix=log_prefix,
        )
        self._owner = os.getpid()
        self._budget = RestartBudget(max_restarts_per_minute)
        self._ids = itertools.count(1)
        self._changed = threading.Condition()
        self._exploring = threading.Lock()
        self._nesting = _Nesting()
        self._is_closed = False
        self._is_restarting = False
        self._last_exit = ""
        self._server = _server.start(self._options)

    @property
    def threads(self) -> int:
        """How many commands run at once."""
        return len(self._server.connections)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Node's process; another one after a restart."""
        return self._server.process

    @overload
    def run(
        self,
        source: str,
        param: Any = None,
        message_handler: MessageHandler | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
    ) -> Any: ...

    @overload
    def run(
        self,
        source: str,
        param: Any = None,
        message_handler: MessageHandler | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
        returns: type[T],
    ) -> T: ...

    def run(
        self,
        source: str,
        param: Any = None,
        message_handler: MessageHandler | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
        returns: Any = Any,
    ) -> Any:
        """Run a function `(m, p) => …` and return its value, awaited when it is a promise.

        Args:
            source: The source of the function. It is compiled once for each thread.
            param: The value of `p`: what JSON carries, and bytes, dates, large integers, NaN and
                infinities, dataclasses.
            message_handler: Gets what JavaScript passes to `JSockD.sendMessage`, which returns what
                the handler returns. It runs in this thread.
            timeout: Seconds that JavaScript may run; that of the client by default.
            returns: The type that the value is checked and converted to.

        Raises:
            JavaScriptError: JavaScript threw; `JavaScriptTimeout` when it ran for too long.
            TypeError: The parameter cannot be carried, or the value is not of the type `returns`.
            NodeExited: Node ended while it ran the command.
            RestartLimit: Node ended too often.
            Closed: The client is closed.
            Exception: What the message handler raised.
        """
        convert = to_converter(returns)
        return convert(self.execute(self.command(source, param, message_handler, timeout)))

    def run_raw(
        self,
        source: str,
        json_param: str,
        message_handler: RawMessageHandler | None = None,
        *,
        timeout: float | EllipsisType | None = ...,
    ) -> str:
        """Like `run`, with the texts of plain JSON on this side: of the parameter, the value, the
        messages and their answers.
        """
        return self.execute(self.raw_command(source, json_param, message_handler, timeout)).decode()

    def stats(self) -> list[ThreadStats]:
        """The figures of each thread. Waits for the commands that run."""
        return [_to_stats(json.loads(text)) for text in self._ask_all(STATS)]

    def reset(self) -> None:
        """Give every thread a new runtime, which knows nothing of what ran before. Waits for the
        commands that run.
        """
        self._ask_all(RESET)

    def close(self) -> None:
        """End Node. Commands that run fail with `Closed`; a second call does nothing."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._server.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def command(
        self,
        source: str,
        param: Any,
        handler: MessageHandler | None,
        timeout: float | EllipsisType | None,
    ) -> Command:
        """A command of `run`, which `execute` takes."""

        def handle(message: bytes) -> bytes:
            assert handler is not None
            return to_json(handler(_values.decode(message)), "the answer to a message")

        return Command(
            source,
            to_json(param, "the parameter"),
            "values",
            None if handler is None else handle,
            self.timeout if isinstance(timeout, EllipsisType) else timeout,
            self.message_timeout,
        )

    def raw_command(
        self,
        source: str,
        json_param: str,
        handler: RawMessageHandler | None,
        timeout: float | EllipsisType | None,
    ) -> Command:
        """A command of `run_raw`, which `execute` takes."""

        def handle(message: bytes) -> bytes:
            assert handler is not None
            answer = handler(message.decode())
            json.loads(answer)
            return answer.encode()

        return Command(
            source,
            json_param.encode(),
            "json",
            None if handler is None else handle,
            self.timeout if isinstance(timeout, EllipsisType) else timeout,
            self.message_timeout,
        )

    def execute(self, command: Command) -> bytes:
        """The JSON of a command's value."""
        nesting = self._nesting
        if nesting.depth >= self.threads:
            raise NodeError(
                "a message handler runs a command, and every thread waits for it: raise threads"
            )
        server, connection = self._acquire(command, nesting.until)
        outer, nesting.depth, nesting.until = nesting.until, nesting.depth + 1, None
        if command.message_limit is not None:
            command.handler = _bounded(command.handler, command.message_limit, nesting)
        try:
            return connection.run(self._next_id(), command)
        except Lost as lost:
            raise self._explain(server, lost) from None
        finally:
            nesting.depth, nesting.until = nesting.depth - 1, outer
            self._release(server, connection)

    def _next_id(self) -> int:
        return next(self._ids) & 0xFFFFFFFF

    def _acquire(
        self, command: Command | None = None, until: float | None = None
    ) -> tuple[Server, Connection]:
        """The first idle connection, of a server that lives; waits for it until a time."""
        if os.getpid() != self._owner:
            raise Closed("the client was made in another process: make one after the fork")
        with self._changed:
            while True:
                if self._is_closed:
                    raise Closed("the client is closed")
                if command is not None and command.is_cancelled:
                    raise Closed("the command was cancelled before it began")
                if self._is_restarting:
                    self._changed.wait()
                elif not self._server.is_alive():
                    self._restart()
                elif self._server.idle:
                    index = heapq.heappop(self._server.idle)
                    return self._server, self._server.connections[index]
                elif not self._changed.wait(None if until is None else until - time.monotonic()):
                    raise NodeUnresponsive("no thread was free while the message could be answered")

    def _release(self, server: Server, connection: Connection) -> None:
        with self._changed:
            heapq.heappush(server.idle, connection.index)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let commands that wait see that they were cancelled."""
        with self._changed:
            self._changed.notify_all()

    def _restart(self) -> None:
        """In place of the server that is gone; others wait meanwhile."""
        gone = self._server
        if not gone.is_lost:
            self._last_exit = _exit_text(gone.lose())
        if not self._budget.take():
            raise RestartLimit(
                f"{self._last_exit}; it was restarted as often as it may be"
                f" (max_restarts_per_minute is {self._budget.max_per_minute})"
            )
        self._is_restarting = True
        self._changed.release()
        try:
            started = _server.start(self._options)
        finally:
            self._changed.acquire()
            self._is_restarting = False
            self._changed.notify_all()
        self._server = started
        if self._is_closed:
            started.close()

    def _explain(self, server: Server, lost: Lost) -> Exception:
        """What to raise for a command whose server is gone."""
        if self._is_closed:
            return Closed("the client was closed")
        code = server.lose()
        if code is None:
            self._last_exit = f"Node was killed: {lost}"
            return NodeUnresponsive(self._last_exit)
        self._last_exit = _exit_text(code)
        return NodeExited(self._last_exit, code)

    def _ask_all(self, kind: int) -> list[bytes]:
        """Asks each thread when it is idle, holding those that were asked."""
        with self._exploring:
            held: list[tuple[Server, Connection]] = []
            answers: dict[int, bytes] = {}
            try:
                while True:
                    server, connection = self._acquire()
                    held.append((server, connection))
                    try:
                        answers[connection.index] = connection.ask(kind, self._next_id())
                    except Lost as lost:
                        raise self._explain(server, lost) from None
                    if len(answers) == len(server.connections):
                        return [answers[index] for index in sorted(answers)]
            finally:
                for server, connection in held:
                    self._release(server, connection)


def _bounded(
    handler: Callable[[bytes], bytes] | None, limit: float, nesting: _Nesting
) -> Callable[[bytes], bytes] | None:
    """The handler, whose own commands wait for a thread no longer than its answer is waited for."""
    if handler is None:
        return None

    def bounded(message: bytes) -> bytes:
        nesting.until = time.monotonic() + limit
        try:
            return handler(message)
        finally:
            nesting.until = None

    return bounded


def to_json(value: Any, what: str) -> bytes:
    """The JSON of a value; `what` it is, for the error."""
    try:
        return _values.encode(value)
    except EncodeIssue as issue:
        raise TypeError(f"{what}: {issue}") from None


def to_converter(returns: Any) -> Callable[[bytes], Any]:
    """From the JSON of a value to one of the type `returns`."""
    if returns is Any:
        return _values.decode
    convert = converter(returns)

    def to_value(text: bytes) -> Any:
        try:
            return apply(convert, _values.decode(text))
        except DecodeIssue as issue:
            raise TypeError(f"the value: {issue}") from None

    return to_value


def _exit_text(code: int | None) -> str:
    return f"Node exited unexpectedly with code {code}"


def _to_stats(stats: Mapping[str, Any]) -> ThreadStats:
    return ThreadStats(
        thread=stats["thread"],
        running=stats["running"],
        commands=stats["commands"],
        replaced=stats["replaced"],
        last_run=stats["lastRunNanos"] / 1e9,
        heap_bytes=stats["heapBytes"],
        functions=stats["functions"],
    )
