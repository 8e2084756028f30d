"""A program with a protocol of its own, run as `__main__` in a worker: its standard streams and its
end.
"""

from __future__ import annotations

import _thread
import builtins
import importlib
import io
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol

from synapse import _hooks, _life
from synapse._context import current_call
from synapse._sources import Loader

if TYPE_CHECKING:
    from synapse._calls import Call
    from synapse._codec import Codec
    from synapse._handlers import Handler
    from synapse._logs import Output
    from synapse._worker import Worker

#: The modules that know a protocol, each with a class `Adapter`.
PROTOCOLS: Final = {"stdio-v1": "synapse._stdio_v1", "json-lines": "synapse._json_lines"}

_STDIN: Final = 0
# How long the answers that the script has given have to leave, once it has ended.
_ANSWERING_SECONDS: Final = 1.0
# How often it is looked whether the script waits at descriptor 0 by itself.
_LOOK_SECONDS: Final = 0.05
# `read`, in the numbers of the system calls of Linux.
_READ: Final = {"x86_64": "0", "aarch64": "63", "riscv64": "63"}
# As many bytes as Linux lets a pipe hold without asking.
_PIPE_SIZE: Final = 1 << 20


class Adapter(Protocol):
    """What is between the calls of a worker and the standard streams of a script."""

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What the host calls. They run in a thread beside the script's, one at a time."""
        ...

    @property
    def is_waiting(self) -> bool:
        """Whether a call has no answer by the script."""
        ...

    def attach(self, stdin: Stdin, output: Output) -> None:
        """Take hold of what the script writes, before it runs."""
        ...


class _Raw(io.FileIO):
    """Descriptor 0 as the script reads it."""

    def __init__(self, stdin: Stdin) -> None:
        super().__init__(_STDIN, "r", closefd=False)
        self._stdin = stdin

    def readinto(self, buffer: Any, /) -> Any:
        with self._stdin:
            return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> Any:
        with self._stdin:
            return super().read(-1 if size is None else size)

    def readall(self) -> Any:
        with self._stdin:
            return super().readall()


class Stdin:
    """The standard input of the script, and whether it waits there."""

    def __init__(self, on_first_read: Callable[[], None]) -> None:
        read, self._write = os.pipe()
        os.dup2(read, _STDIN)
        os.close(read)
        _enlarge(self._write)
        self._pid = os.getpid()
        self._on_first_read: Callable[[], None] | None = on_first_read
        #: Held to look at, or to change, what is between the script and the calls.
        self.changed = threading.Condition()
        # How many threads of the script wait for input in Python's streams.
        self._readers = 0
        self._call: Call | None = None
        sys.stdin = sys.__stdin__ = io.TextIOWrapper(  # type: ignore[misc]
            io.BufferedReader(_Raw(self)), encoding="utf-8", errors="strict"
        )
        if hasattr(os, "register_at_fork"):
            # A copy would keep the script from seeing the end.
            os.register_at_fork(after_in_child=self.close)

    def __enter__(self) -> None:
        if os.getpid() != self._pid:
            return
        self._begin()
        current_call.set(None)
        with self.changed:
            self._readers += 1
            self.changed.notify_all()

    def __exit__(self, *_error: object) -> None:
        if os.getpid() != self._pid:
            return
        with self.changed:
            self._readers -= 1
        # What it prints from here on is about this call.
        current_call.set(self._call)

    def _begin(self) -> None:
        with self.changed:
            begin, self._on_first_read = self._on_first_read, None
        if begin is not None:
            begin()

    def look(self) -> None:
        """Wait for the first read, also where it is none of Python's streams that reads."""
        while self._on_first_read is not None:
            if _is_read():
                self._begin()
            time.sleep(_LOOK_SECONDS)

    def await_reader(self, without: Callable[[], bool]) -> None:
        """Wait until the script waits for input, or `without` it; with `changed` held."""
        while not (self._readers or _is_read() or without()):
            self.changed.wait(_LOOK_SECONDS)

    def send(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Let the script read something on behalf of the call of this thread.

        Raises:
            OSError: The script has closed its standard input.
        """
        self._call = current_call.get()
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._write, rest) :]

    def close(self) -> None:
        """Let the script read the end."""
        write, self._write = self._write, -1
        if write != -1:
            os.close(write)


def _is_read() -> bool:
    """Whether a thread is in a call of the system that reads descriptor 0, where that is told."""
    if sys.platform != "linux":
        return False
    waiting = f"{_READ.get(os.uname().machine)} {_STDIN:#x} "
    try:
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/syscall") as file:
                if file.read().startswith(waiting):
                    return True
    except OSError:
        # A thread that has ended meanwhile: the next look may find out.
        return False
    return False


def _enlarge(pipe: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except (AttributeError, ImportError, OSError):
        return


class Script:
    """The script of a worker, which the main thread runs from beginning to end."""

    def __init__(self, protocol: str, file: str, codec: Codec, output: Output) -> None:
        self._file = file
        self._path = os.path.join(os.getcwd(), file)
        self._output = output
        self._worker: Worker | None = None
        self._is_stopping = False
        self._ended = threading.Event()
        self.adapter: Adapter = importlib.import_module(PROTOCOLS[protocol]).Adapter(codec)

    def run(self, worker: Worker, begin: Callable[[], None]) -> None:
        """Run the script. `begin` is called when it first waits for input: it has loaded what it
        needs, and is ready. From then on this does not return.

        Raises:
            BaseException: What the script raised before that.
            RuntimeError: It ended before that.
        """

        def on_first_read() -> None:
            self._worker = worker
            begin()

        stdin = Stdin(on_first_read)
        self.adapter.attach(stdin, self._output)
        _thread.start_new_thread(stdin.look, ())

        def stop() -> None:
            self._is_stopping = True
            stdin.close()
            self._ended.wait()

        _hooks.stops.append(_hooks.Hook(stop, f"end of {self._file}"))
        _life.on_terminate(self._terminate)
        error = self._execute()
        worker.leave_child(error)
        if self._worker is None:
            if error is not None:
                raise error
            raise RuntimeError(
                f"{self._file} has ended without reading its standard input: "
                "the protocol wants a loop that reads calls there"
            )
        _await_threads()
        self._end(worker, error)

    def _execute(self) -> BaseException | None:
        """Run the file as Python does, and return what it raised."""
        sys.argv = [self._path]
        module = ModuleType("__main__")
        # As in a script: what multiprocessing spawns finds the file by it.
        vars(module).update(__file__=self._path, __spec__=None, __builtins__=builtins)
        sys.modules["__main__"] = module
        try:
            code = Loader("__main__", self._path).get_code("__main__")
            assert code is not None
            exec(code, vars(module))
        except BaseException as error:
            own = error.__traceback__
            return error.with_traceback(own.tb_next if own is not None and own.tb_next else own)
        return None

    def _terminate(self) -> None:
        if self._worker is None:
            # Nobody knows this worker yet.
            _life.leave_at_once(128 + 15)
        self._worker.drain.go_away()

    def _end(self, worker: Worker, error: BaseException | None) -> None:
        """The script is over: so is the worker, and the call that has no answer."""
        self._ended.set()
        if self._is_stopping:
            # Another thread ends the process.
            threading.Event().wait()
        code = 0
        if isinstance(error, SystemExit):
            code = _exit_code(error)
        elif error is not None:
            code = 1
            traceback.print_exception(type(error), error, error.__traceback__, file=sys.__stderr__)
        until = time.monotonic() + _ANSWERING_SECONDS
        while worker.open_calls and not self.adapter.is_waiting and time.monotonic() < until:
            time.sleep(0.001)
        worker.end_output()
        worker.channel.finish(_ANSWERING_SECONDS)
        _life.end(code)


def _await_threads() -> None:
    """Wait for those that Python waits for at the end of a script."""
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.__stderr__, flush=True)
    return 1
