from __future__ import annotations

import copy
import math
import os
import pickle
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wire import GO_AWAY, PATIENCE, SHUTDOWN, SUCCESS, Worker, encode, frame, write

import synapse
from synapse import _channel, _convert, _declared, _drain, _life, _logs

Start = Callable[..., Worker]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


@forks
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_child_that_was_forked_while_the_worker_leaves(
    start: Start, tmp_path: Path, number: str
) -> None:
    os.mkfifo(tmp_path / "leaving")
    worker = start(f"""
        import os, signal, time
        import synapse

        @synapse.handler
        def main():
            open("leaving").read()
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
                os._exit(0)
            # At once: it may not have returned from the fork.
            os.kill(pid, signal.{number})
            limit = time.monotonic() + 10
            while time.monotonic() < limit:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "it lives on"
    """)
    worker.request("main")
    with (tmp_path / "leaving").open("w"):
        os.kill(worker.process.pid, signal.SIGTERM)
        assert worker.receive().kind == GO_AWAY
    answer = worker.receive()
    assert (answer.kind, answer.payload) == (SUCCESS, -getattr(signal, number))


@forks
def test_a_child_keeps_the_signal_handlers_of_the_module(start: Start) -> None:
    worker = start("""
        import os, signal, time
        import synapse

        @synapse.handler
        def main():
            signal.signal(signal.SIGTERM, lambda *_: os._exit(42))
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
                os._exit(0)
            os.kill(pid, signal.SIGTERM)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """)
    assert worker.value("main") == 42


def test_a_stream_of_c_that_is_locked_does_not_hold_up_the_follower(start: Start) -> None:
    worker = start("""
        import ctypes, os, threading, time
        import synapse

        libc = ctypes.CDLL(None)
        libc.fdopen.restype = ctypes.c_void_p

        @synapse.handler
        def begin():
            read, _ = os.pipe()
            file = ctypes.c_void_p(libc.fdopen(read, b"r"))
            threading.Thread(target=libc.fgetc, args=(file,), daemon=True).start()

        @synapse.handler
        def slow():
            time.sleep(3)
    """)
    worker.value("begin")
    # The follower goes to sleep, and flushes before it does.
    time.sleep(0.5)
    worker.request("slow")
    time.sleep(0.1)
    worker.ping()


def test_what_c_printed_without_ending_the_line_is_let_go(start: Start) -> None:
    worker = start("""
        import ctypes, os
        import synapse

        libc = ctypes.CDLL(None)

        @synapse.handler
        def main():
            libc.printf(b"unended")
    """)
    worker.value("main")
    assert worker.process.stdout is not None
    assert os.read(worker.process.stdout.fileno(), 100) == b"unended"


def test_dataclasses_work_in_a_module_called_like_one_of_the_standard_library(
    launch: Start, tmp_path: Path
) -> None:
    write(
        tmp_path,
        """
        from __future__ import annotations
        import pickle, statistics, sys
        from dataclasses import dataclass
        from typing import ClassVar
        import synapse

        @dataclass
        class Point:
            x: int
            y: int = 2
            z: ClassVar[int] = 3

        @synapse.handler
        def main(point: Point):
            assert pickle.loads(pickle.dumps(point)) == point
            assert statistics.mean([1, 3]) == 2 and not hasattr(statistics, "Point")
            return [__name__, point]
        """,
        "statistics.py",
    )
    worker = launch("statistics")
    worker.welcome()
    assert worker.value("main", {"x": 1, "y": 2}) == ["_synapse_statistics", {"x": 1, "y": 2}]


def test_a_package_called_like_one_of_the_standard_library_imports_its_parts(
    launch: Start, tmp_path: Path
) -> None:
    source = "import synapse\nfrom .part import one\n@synapse.handler\ndef main(): return one\n"
    write(tmp_path, source, "statistics/__init__.py")
    write(tmp_path, "one = 1\n", "statistics/part.py")
    worker = launch("statistics")
    worker.welcome()
    assert worker.value("main") == 1


@pytest.mark.parametrize("future", ["", "from __future__ import annotations\n"])
def test_the_required_keys_of_a_typed_dict_are_known(
    monkeypatch: pytest.MonkeyPatch, future: str
) -> None:
    source = f"""{future}
try:
    from typing import Annotated, NotRequired, Required, TypedDict
except ImportError:
    from typing_extensions import Annotated, NotRequired, Required, TypedDict

class Base(TypedDict):
    a: int
    b: NotRequired[int]

class Part(Base, total=False):
    c: Required[int]
    d: int
    e: Annotated[Required[int], "noted"]
"""
    module = types.ModuleType("typed_dicts")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # Without the future imports of this file.
    exec(compile(source, "typed_dicts.py", "exec", dont_inherit=True), vars(module))
    names = vars(module)
    base, part = _convert.converter(names["Base"]), _convert.converter(names["Part"])
    assert base.convert({"a": 1}, "$") == {"a": 1}
    whole = {"a": 1, "c": 3, "e": 5}
    assert part.convert(whole, "$") == whole
    for name in whole:
        with pytest.raises(_convert.ConvertIssue, match=f"missing required field `{name}`"):
            part.convert({key: whole[key] for key in whole if key != name}, "$")


class Left(synapse.Error):
    left: int
    shared: str = "l"


class Right(synapse.Error):
    right: int = 2
    shared: str = "r"


class Both(Left, Right):
    own: int = 3


@dataclass
class Plain(synapse.Error):
    x: int
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen(synapse.Error):
    """It is frozen."""

    x: int = 1


@dataclass
class Mixed(Right):
    x: int


class WithInit(synapse.Error):
    """It has its own."""

    limit: int

    def __init__(self, limit: int) -> None:
        self.limit = limit


def test_an_error_of_two_errors_has_the_fields_of_both() -> None:
    error = Both("m", left=1)
    fields = {"left": 1, "shared": "l", "right": 2, "own": 3}
    assert _declared.to_fields(error) == {"_tag": "Both", "message": "m", **fields}


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (Plain(3, ["t"]), {"_tag": "Plain", "message": "Plain", "x": 3, "tags": ["t"]}),
        (Frozen(), {"_tag": "Frozen", "message": "It is frozen.", "x": 1}),
        (Mixed(4), {"_tag": "Mixed", "message": "Mixed", "right": 2, "shared": "r", "x": 4}),
        (WithInit(5), {"_tag": "WithInit", "message": "It has its own.", "limit": 5}),
    ],
    ids=lambda value: value["_tag"] if isinstance(value, dict) else "",
)
def test_an_error_with_another_init_has_a_message_and_fields(
    error: synapse.Error, fields: dict[str, Any]
) -> None:
    assert _declared.to_fields(error) == fields
    assert str(error) == fields["message"]
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert _declared.to_fields(copied) == fields
        assert type(copied) is type(error)


def test_a_field_that_another_init_leaves_out_is_told() -> None:
    @dataclass
    class Short(Left):
        x: int

    with pytest.raises(TypeError, match=r"`.*Short` was made without its field `left`"):
        _declared.to_fields(Short(1))


def test_a_dataclass_that_is_an_error_travels_as_a_value(start: Start) -> None:
    worker = start("""
        from dataclasses import dataclass
        import synapse

        @dataclass
        class TooLong(synapse.Error):
            limit: int

        @synapse.handler(raises=TooLong)
        def main():
            raise TooLong(3)
    """)
    got = worker.call("main")
    assert got.payload == {"_tag": "TooLong", "message": "TooLong", "limit": 3}


@pytest.mark.parametrize("grace", [math.inf, 1e300, 2**63])
def test_a_grace_without_end_waits_for_what_runs(start: Start, grace: float) -> None:
    worker = start("""
        import time
        import synapse

        @synapse.handler
        def main():
            time.sleep(0.3)
            return 1
    """)
    id = worker.request("main")
    worker.send(frame(SHUTDOWN, 0, encode(grace)))
    got = worker.receive()
    assert (got.kind, got.id) == (SUCCESS, id)
    assert worker.wait() == 0


class FakeWorker:
    """A worker whose table of calls the test fills."""

    def __init__(self) -> None:
        self.open_calls = 0
        self.done: list[str] = []
        self.lifecycle = SimpleNamespace(stop=lambda _seconds: self.done.append("stopped"))
        self.channel = SimpleNamespace(
            post=lambda _frame: self.done.append("told"),
            flush=lambda: None,
            finish=lambda _seconds: self.done.append("finished"),
        )

    def end_output(self) -> None:
        self.done.append("output")

    def cancel_all(self) -> None:
        self.done.append("cancelled")


def test_a_call_that_was_accepted_as_the_drain_began_is_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = FakeWorker()
    drain = _drain.Drain(worker)  # type: ignore[arg-type]
    lingering, go_on, left = threading.Event(), threading.Event(), threading.Event()

    def linger(_seconds: float) -> None:
        lingering.set()
        go_on.wait(10)

    def leave(_code: int, **_options: bool) -> None:
        worker.done.append(f"left with {worker.open_calls} open")
        left.set()

    monkeypatch.setattr(_drain, "time", SimpleNamespace(sleep=linger, monotonic=time.monotonic))
    monkeypatch.setattr(_life, "end", leave)
    monkeypatch.setattr(_life, "leave_within", lambda *_: None, raising=False)
    threading.Thread(target=drain.go_away, daemon=True).start()
    assert lingering.wait(10)
    worker.open_calls = 2
    go_on.set()
    assert not left.wait(0.2)
    worker.open_calls = 1
    drain.finished()
    assert not left.wait(0.2)
    worker.open_calls = 0
    drain.finished()
    assert left.wait(10)
    assert worker.done == ["told", "stopped", "output", "finished", "left with 0 open"]


@pytest.mark.parametrize("by", ["shutdown", "signal"])
def test_a_host_that_reads_nothing_does_not_hold_up_the_end(start: Start, by: str) -> None:
    worker = start("""
        import threading
        import synapse

        printed = threading.Semaphore(0)

        def unended():
            print("x" * 60_000, end="")
            printed.release()
            threading.Event().wait()

        @synapse.handler
        def main():
            for _ in range(100):
                threading.Thread(target=unended, daemon=True).start()
            for _ in range(100):
                printed.acquire()
    """)
    worker.value("main")
    if by == "signal":
        os.kill(worker.process.pid, signal.SIGTERM)
    else:
        worker.send(frame(SHUTDOWN, 0, encode(0)))
    assert worker.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "error",
    [
        "TimeoutError('late')",
        "ConnectionResetError(errno.ECONNRESET, 'of another')",
        "BlockingIOError()",
        "ValueError('v')",
        "SystemExit()",
        "KeyboardInterrupt()",
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_what_a_signal_handler_raises_does_not_end_the_worker(
    start: Start, error: str, kind: str
) -> None:
    worker = start(f"""
        import errno, signal
        import synapse

        def late(*_):
            raise {error}

        signal.signal(signal.SIGUSR1, late)

        @synapse.handler
        {kind} main():
            return 1
    """)
    assert worker.value("main") == 1
    # Until it waits again.
    time.sleep(0.3)
    os.kill(worker.process.pid, signal.SIGUSR1)
    record = worker.next_log()
    assert record["exception"]["type"] == error.partition("(")[0]
    if kind == "def":
        assert record["logger"] == "synapse"
    assert worker.value("main") == 1


@pytest.mark.parametrize("error", ["ValueError('v')", "KeyboardInterrupt()"])
def test_what_a_signal_handler_raises_after_a_slow_handler_does_not_end_the_worker(
    start: Start, error: str
) -> None:
    worker = start(f"""
        import signal, time
        import synapse

        def late(*_):
            raise {error}

        signal.signal(signal.SIGUSR1, late)

        @synapse.handler
        def main(seconds: float):
            # Another thread takes over reading, and has it still when this one waits again.
            time.sleep(seconds)
            return 1
    """)
    assert worker.value("main", {"seconds": 0.1}) == 1
    time.sleep(0.3)
    os.kill(worker.process.pid, signal.SIGUSR1)
    assert worker.next_log()["exception"]["type"] == error.partition("(")[0]
    assert worker.value("main", {"seconds": 0}) == 1


@pytest.mark.parametrize("end", ["end", "reset", "closed"])
def test_a_channel_that_broke_is_the_end_of_the_host(end: str) -> None:
    ours, theirs = socket.socketpair()
    channel = _channel.Channel(ours)
    if end == "closed":
        ours.close()
    elif end == "reset":
        ours.send(b"never read")
    theirs.close()

    def leave() -> None:
        raise EOFError

    channel.on_host_gone = leave
    with pytest.raises(EOFError):
        channel.read()
    ours.close()


def test_a_huge_line_without_an_end_is_cut_in_linear_time() -> None:
    def write(size: int) -> float:
        """Give the processor time that it takes."""
        sent: list[int] = []
        sender = SimpleNamespace(is_open=True, send=lambda _l, _n, text, _p: sent.append(len(text)))
        stream = _logs.LogStream(sender, sys.stdout, 20, "stdout", {})  # type: ignore[arg-type]
        text = "x" * size
        begun = time.process_time()
        stream.write(text)
        seconds = time.process_time() - begun
        assert sum(sent) + sum(len(each.text) for each in stream._partials.values()) == size
        assert max(sent) == 64 * 1024
        return seconds

    # Ten times as much takes a hundred times as long where the rest is copied for each piece.
    assert write(100_000_000) < 0.1 + 30 * write(10_000_000)


def test_print_works_wherever_it_is_called(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            for name in (None, 1, "logging.other"):
                exec("print('printed')", {"__name__": name})
    """)
    worker.value("main")
    assert [each["message"] for each in worker.logs] == ["printed"] * 3


def test_a_record_of_a_logger_with_any_name_is_sent(start: Start) -> None:
    worker = start("""
        import logging
        import synapse

        @synapse.handler
        def main():
            logging.getLogger("a\\\\udc80b").warning("one")
            record = logging.makeLogRecord({"name": None, "msg": "two", "levelno": 40})
            logging.getLogger().handle(record)
    """)
    worker.value("main")
    names = [(each["logger"], each["message"]) for each in worker.logs]
    assert names == [("a\\udc80b", "one"), ("None", "two")]
