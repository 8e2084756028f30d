"""One life of the server: its process, its sockets, and the directory that they lie in."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal

from synapse._version import VERSION
from synapse.javascript._connection import HELLO, Connection, Lost, to_millis
from synapse.javascript._errors import NodeError, NodeStartFailed
from synapse.javascript._find import find_node, find_server
from synapse.javascript._logs import LogRecord, OnLog, read_logs

Transport = Literal["unix", "tcp"]
#: The longest path that a Unix socket may have everywhere, with room for the names in a directory.
_MAX_DIRECTORY: Final = 80
_MAX_SAID: Final = 50


@dataclass(frozen=True)
class ServerOptions:
    """How the server is started; times in seconds."""

    threads: int
    module: str | os.PathLike[str] | None
    public_key: str | None
    source_map: str | os.PathLike[str] | None
    node: str | os.PathLike[str] | None
    node_options: Sequence[str]
    server: str | os.PathLike[str] | None
    env: Mapping[str, str]
    cwd: str | os.PathLike[str] | None
    start_timeout: float
    stop_timeout: float
    idle_timeout: float
    recycle_after: int
    memory_limit_mib: int
    max_frame_size: int
    transport: Transport
    check_version: bool
    on_log: OnLog
    log_prefix: str


class Server:
    """A server that is ready, until it is closed or ends by itself."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        connections: list[Connection],
        directory: str | None,
        stop_timeout: float,
    ) -> None:
        self.process = process
        self.connections = connections
        #: The connections that nobody uses, by index.
        self.idle = list(range(len(connections)))
        self.is_lost = False
        self._end = weakref.finalize(
            self, _end, os.getpid(), process, connections, directory, stop_timeout
        )

    def is_alive(self) -> bool:
        """Whether it can be used, as far as can be seen without asking it."""
        return (
            not self.is_lost
            and self.process.poll() is None
            and (not self.idle or self.connections[self.idle[0]].is_open())
        )

    def lose(self) -> int | None:
        """It is not to be used any more; returns its exit code, if it ended by itself."""
        self.is_lost = True
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self.process.wait(0.5)
        if code is None:
            self.process.kill()
        self.close()
        return code

    def close(self) -> None:
        """End it: by closing its sockets, then by SIGTERM, then by SIGKILL."""
        self.is_lost = True
        self._end()


def start(options: ServerOptions) -> Server:
    """Start a server and connect to it.

    Raises:
        NodeNotFound: There is no Node, or no server.
        NodeStartFailed: It does not start, or is not what it should be.
    """
    server = find_server(options.server)
    node = find_node(options.node, server)
    directory = _make_directory() if options.transport == "unix" else None
    process: subprocess.Popen[bytes] | None = None
    connections: list[Connection] = []
    try:
        paths = [f"{directory}/jsd_{index}.sock" for index in range(options.threads)]
        token = secrets.token_hex(32)
        deadline = time.monotonic() + options.start_timeout
        process = _spawn(options, [os.fspath(node), os.fspath(server)], paths, directory, token)
        addresses = _wait_until_ready(process, options, paths, deadline)
        for index, address in enumerate(addresses):
            connected = _dial(address, deadline)
            connection = Connection(connected, index, options.max_frame_size)
            connections.append(connection)
            connection.send(HELLO, 0, token.encode())
    except BaseException as error:
        if process is not None:
            process.kill()
        _end(os.getpid(), process, connections, directory, options.stop_timeout)
        if isinstance(error, (OSError, Lost)):
            raise NodeStartFailed(f"{node} does not start: {error}") from error
        raise
    return Server(process, connections, directory, options.stop_timeout)


def _make_directory() -> str:
    """A directory that only this user can enter."""
    directory = tempfile.mkdtemp(prefix="jsd_")
    if len(directory) > _MAX_DIRECTORY and os.path.isdir("/tmp"):
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="jsd_", dir="/tmp")
    return directory


def _spawn(
    options: ServerOptions,
    command: list[str],
    paths: list[str],
    directory: str | None,
    token: str,
) -> subprocess.Popen[bytes]:
    given: dict[str, Any] = {
        "endpoints": paths if options.transport == "unix" else options.threads,
        "idle": to_millis(options.idle_timeout) if options.idle_timeout else 0,
        "recycleAfter": options.recycle_after,
        "memoryLimit": options.memory_limit_mib,
        "startTimeout": to_millis(options.start_timeout),
        "maxFrameSize": options.max_frame_size,
        "logPrefix": options.log_prefix,
    }
    if directory is not None:
        given["directory"] = directory
    for name, path in (("module", options.module), ("sourceMap", options.source_map)):
        if path:
            given[name] = os.fspath(Path(options.cwd or "", path).absolute())
    if options.public_key:
        given["publicKey"] = options.public_key
    node, server = command
    return subprocess.Popen(
        [node, "--expose-gc", *options.node_options, server, "serve", json.dumps(given)],
        # The server ends when it comes to the end of it.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=options.cwd,
        env={**os.environ, **options.env, "SYNAPSE_JAVASCRIPT_TOKEN": token},
        # What a terminal sends to interrupt this program is not for the server.
        start_new_session=True,
    )


class _Said:
    """The last of what the server said before it was ready."""

    def __init__(self, on_log: OnLog) -> None:
        self._on_log = on_log
        self._messages: list[str] = []
        self.is_kept = True

    def __call__(self, record: LogRecord) -> None:
        if self.is_kept:
            self._messages.append(record.message)
            del self._messages[:-_MAX_SAID]
        self._on_log(record)

    def __str__(self) -> str:
        return "".join(f"\n{message}" for message in self._messages)


def _wait_until_ready(
    process: subprocess.Popen[bytes], options: ServerOptions, paths: list[str], deadline: float
) -> list[str | int]:
    """Where it listens. What it prints is read from now on until its end."""
    assert process.stdout is not None and process.stderr is not None
    first: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    said = _Said(options.on_log)
    threading.Thread(
        target=_read_stdout, args=(process.stdout, first, options.on_log), daemon=True
    ).start()
    reader = threading.Thread(
        target=_read_to_end, args=(process.stderr, "stderr", said), daemon=True
    )
    reader.start()
    try:
        line = first.get(timeout=max(0.001, deadline - time.monotonic()))
        if line == b"":
            # It has ended: what it said last says why.
            reader.join(1)
            raise NodeStartFailed(f"stdout closed before the READY line:{said}")
    except queue.Empty:
        raise NodeStartFailed(
            f"timeout: no READY line within {options.start_timeout} s{said}"
        ) from None
    said.is_kept = False
    return _parse_ready(line.decode(errors="replace").rstrip("\r\n"), options, paths)


def _parse_ready(line: str, options: ServerOptions, paths: list[str]) -> list[str | int]:
    words = line.split(" ")
    numbers = [*words[1:2], *words[3:]]
    if len(words) < 3 or words[0] != "READY" or not all(word.isdecimal() for word in numbers):
        raise NodeStartFailed(f"malformed READY line: {line!r}")
    count, version = int(words[1]), words[2]
    if options.check_version and version != VERSION:
        raise NodeStartFailed(f"version mismatch: client {VERSION!r}, server {version!r}")
    if count > options.threads:
        raise NodeStartFailed(
            f"ready count ({count}) exceeds number of sockets specified ({options.threads})"
        )
    ports = [int(word) for word in words[3:]]
    if count < 1 or (options.transport == "tcp" and len(ports) != count):
        raise NodeStartFailed(f"malformed READY line: {line!r}")
    return [*ports] if options.transport == "tcp" else [*paths[:count]]


def _read_stdout(stream: IO[bytes], first: queue.SimpleQueue[bytes], on_log: OnLog) -> None:
    with stream:
        first.put(stream.readline())
        read_logs(stream, "stdout", on_log)


def _read_to_end(stream: IO[bytes], source: str, on_log: OnLog) -> None:
    with stream:
        read_logs(stream, source, on_log)


def _dial(address: str | int, deadline: float) -> socket.socket:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.settimeout(max(0.001, deadline - time.monotonic()))
        if isinstance(address, str):
            connected.connect(address)
        else:
            connected.connect(("127.0.0.1", address))
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        connected.close()
        raise NodeStartFailed(f"dial {address}: {error}") from error
    return connected


def _end(
    owner: int,
    process: subprocess.Popen[bytes] | None,
    connections: list[Connection],
    directory: str | None,
    stop_timeout: float,
) -> None:
    """End everything that is left, in whatever state it is."""
    # In a process that was forked from the owner, the server is another's.
    if os.getpid() != owner:
        return
    for connection in connections:
        connection.close()
    if process is not None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        _stop(process, stop_timeout)
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def _stop(process: subprocess.Popen[bytes], stop_timeout: float) -> None:
    for ask in (None, process.terminate, process.kill):
        if ask is not None:
            ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(min(0.5, stop_timeout) if ask is None else stop_timeout)
            return
    raise NodeError(f"the process {process.pid} does not end")
