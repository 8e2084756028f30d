"""Scripts of the protocol `stdio-v1`: a length, MessagePack, one call at a time, no handshake."""

from __future__ import annotations

import signal
import struct
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import (
    CANCEL,
    DIE,
    FAIL,
    GO_AWAY,
    HELLO,
    INTERRUPTED,
    REQUEST,
    SUCCESS,
    Got,
    Worker,
    frame,
    write,
)

from synapse._stdio_v1 import Reply, Splitter, Text, Unframed

# The loop of the template, around a function `answer`.
LOOP = """
import os, struct, sys, threading, time
import msgspec.msgpack as msgpack

def packed(value):
    payload = msgpack.encode(value)
    return struct.pack("<I", len(payload)) + payload

def send(value):
    sys.stdout.buffer.write(packed(value))
    sys.stdout.buffer.flush()

def receive():
    length = sys.stdin.buffer.read(4)
    if not length:
        return None
    return [msgpack.decode(sys.stdin.buffer.read(int.from_bytes(length, "little")))]

def serve(answer):
    while (call := receive()) is not None:
        result = answer(*call)
        if result is not ...:
            send(result)
"""


def packed(value: Any) -> bytes:
    payload = msgspec.msgpack.encode(value)
    return struct.pack("<I", len(payload)) + payload


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a script, and welcome it once it is ready."""
    workers: list[Worker] = []

    def run(source: str, *, greet: bool = True, name: str = "main.py", **options: Any) -> Worker:
        write(tmp_path, LOOP + textwrap.dedent(source), name)
        worker = Worker(tmp_path, name, protocol="stdio-v1", **options)
        workers.append(worker)
        if greet:
            worker.welcome()
        return worker

    yield run
    for worker in workers:
        worker.close()


ECHO = "serve(lambda value: value)"


class TestSplitter:
    @given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 50)))
    def test_finds_replies_in_whichever_pieces(self, written: list[bytes], cuts: list[int]) -> None:
        data = b"".join(struct.pack("<I", len(each)) + each for each in written)
        splitter, found, at = Splitter(), list[Any](), 0
        for cut in cuts:
            found += splitter.feed(data[at : at + cut])
            at += cut
        found += splitter.feed(data[at:])
        assert found == [Reply(each) for each in written]

    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40).map(Reply),
                st.text("ab\tc é", min_size=1).map("{}\n".format).map(Text),
            )
        )
    )
    def test_tells_replies_and_lines_apart(self, written: list[Reply | Text]) -> None:
        splitter, found = Splitter(), list[Any]()
        for each in written:
            found += splitter.feed(
                struct.pack("<I", len(each.payload)) + each.payload
                if isinstance(each, Reply)
                else each.text.encode()
            )
        # What is shorter than a length is told from one by what follows.
        found += splitter.feed(b"the end\n")
        assert found == [*written, Text("the end\n")]

    @given(st.lists(st.binary(max_size=30)))
    def test_takes_any_bytes(self, chunks: list[bytes]) -> None:
        splitter = Splitter()
        for chunk in chunks:
            splitter.feed(chunk)

    def test_short_text_before_a_whole_reply_is_no_part_of_it(self) -> None:
        splitter = Splitter()
        assert splitter.feed(b"a\n") == []
        assert splitter.feed(packed([1] * 20)) == [Text("a\n"), Reply(packed([1] * 20)[4:])]

    def test_what_is_no_text_and_no_reply_is_unframed(self) -> None:
        data = msgspec.msgpack.encode("empty payload received")
        assert Splitter().feed(data) == [Unframed(data)]

    def test_replies_of_many_pieces_take_linear_time(self) -> None:
        splitter, reply = Splitter(), packed(b"x" * (4 << 20))
        found: list[Any] = []
        for at in range(0, len(reply), 1000):
            found += splitter.feed(reply[at : at + 1000])
        assert found == [Reply(reply[4:])]


class TestStart:
    def test_is_ready_when_it_waits_for_its_first_call(self, run: Callable[..., Worker]) -> None:
        worker = run("print('loaded', flush=True)\n" + ECHO)
        assert [(each["name"], each["cancel"]) for each in worker.hello["methods"]] == [
            ("main", "replace")
        ]
        assert worker.value("main", {"a": 1}) == {"a": 1}

    @pytest.mark.parametrize(
        ("source", "kind", "message"),
        [
            ("import nowhere_to_be_found", "ModuleNotFoundError", "nowhere_to_be_found"),
            ("1 +", "SyntaxError", "invalid syntax"),
            ("sys.exit('no')", "SystemExit", "no"),
            ("print('done')", "RuntimeError", "without reading its standard input"),
        ],
    )
    def test_a_script_that_ends_before_fails_the_start(
        self, run: Callable[..., Worker], source: str, kind: str, message: str
    ) -> None:
        hello = run(source, greet=False).receive()
        assert hello.kind == HELLO
        failure = hello.payload["failure"]
        assert (failure["type"], message in failure["message"]) == (kind, True)

    def test_runs_as_a_script_does(self, run: Callable[..., Worker], tmp_path: Path) -> None:
        write(tmp_path, "value = 7", "beside.py")
        worker = run(
            """
            import beside
            def answer(_):
                main = sys.modules["__main__"]
                on_main = threading.current_thread() is threading.main_thread()
                return [__name__, __file__, sys.argv, main.beside.value, on_main, __spec__]
            serve(answer)
            """,
            name="my-script.py",
        )
        path = str(tmp_path / "my-script.py")
        assert worker.value("main") == ["__main__", path, [path], 7, True, None]

    def test_functions_of_the_script_run_in_processes(self, run: Callable[..., Worker]) -> None:
        worker = run(
            """
            import multiprocessing
            def double(n):
                return 2 * n
            if __name__ == "__main__":
                def answer(n):
                    context = multiprocessing.get_context("spawn")
                    with context.Pool(1) as pool:
                        return pool.map(double, [n])
                serve(answer)
            """
        )
        assert worker.value("main", 4) == [8]

    def test_another_protocol_is_refused(self, tmp_path: Path) -> None:
        worker = Worker(tmp_path, "main.py", protocol="stdio-v9")
        try:
            assert worker.wait() == 78
            assert "there is stdio-v1" in worker.output()[1]
        finally:
            worker.close()


class TestInput:
    @pytest.mark.parametrize(
        "read",
        [
            "sys.stdin.buffer.read(size)",
            "sys.__stdin__.buffer.read(size)",
            "sys.stdin.buffer.raw.read(size)",
            "sys.stdin.buffer.peek() and sys.stdin.buffer.read(size)",
        ],
    )
    def test_is_read_in_whichever_way(self, run: Callable[..., Worker], read: str) -> None:
        worker = run(
            f"""
            def receive():
                size = 4
                length = {read}
                size = int.from_bytes(length, "little")
                return [msgpack.decode({read})]
            serve(lambda value: value)
            """
        )
        assert worker.value("main", "one") == "one"
        assert worker.value("main", [2]) == [2]

    @pytest.mark.skipif(sys.platform != "linux", reason="it is not told who reads a descriptor")
    @pytest.mark.parametrize("read", ["os.read(0, size)", "own.read(size)"])
    def test_descriptor_0_is_where_it_comes_from(
        self, run: Callable[..., Worker], read: str
    ) -> None:
        worker = run(
            f"""
            own = open(0, "rb", buffering=0, closefd=False)
            def receive():
                size = 4
                size = int.from_bytes({read}, "little")
                return [msgpack.decode({read})]
            def answer(value):
                if value == "bad":
                    print("[ERROR]", file=sys.stderr)
                    return ...
                return value
            serve(answer)
            """
        )
        assert worker.value("main", "one") == "one"
        assert worker.call("main", "bad").kind == FAIL
        assert worker.value("main", "two") == "two"

    def test_closed_by_the_script_fails_the_call(self, run: Callable[..., Worker]) -> None:
        worker = run(
            """
            receive()
            send("first")
            os.close(0)
            threading.Event().wait()
            """
        )
        assert worker.value("main") == "first"
        worker.request("main", "second")
        got = worker.receive()
        while got.kind == GO_AWAY:
            got = worker.receive()
        assert (got.kind, got.meta["reason"]) == (DIE, "ProtocolError")


class TestReplies:
    @pytest.mark.parametrize(
        "value", [None, True, 0, 2**63, -1.5, "é", b"\x00\xff", [], {}, {"error": None}]
    )
    def test_any_value_comes_back(self, run: Callable[..., Worker], value: Any) -> None:
        assert run(ECHO).value("main", value) == value

    def test_nothing_is_sent_as_nothing(self, run: Callable[..., Worker]) -> None:
        worker = run(ECHO)
        worker.send(frame(REQUEST, 50, b"", msgspec.msgpack.encode({"method": "main"})))
        assert worker.receive() == (SUCCESS, 50, None, None)

    def test_a_large_one_comes_back(self, run: Callable[..., Worker]) -> None:
        worker = run(ECHO)
        text = "x" * 10_000_000
        assert worker.value("main", text) == text

    def test_pieces_are_one_reply(self, run: Callable[..., Worker]) -> None:
        worker = run(
            """
            def answer(value):
                for byte in packed(value):
                    sys.stdout.buffer.write(bytes([byte]))
                    sys.stdout.buffer.flush()
                return ...
            serve(answer)
            """
        )
        assert [worker.value("main", each) for each in ("one", {"two": 2})] == ["one", {"two": 2}]

    def test_one_that_nobody_waits_for_is_dropped(self, run: Callable[..., Worker]) -> None:
        worker = run(
            """
            def answer(value):
                sys.stdout.buffer.write(packed(value) + packed("again"))
                return ...
            serve(answer)
            """
        )
        assert [worker.value("main", each) for each in (1, 2, 3)] == [1, 2, 3]
        assert any("without a call is dropped" in each["message"] for each in worker.logs)

    @pytest.mark.parametrize("error", ["test_error", 1, ["a"], [], {"code": 3}])
    def test_with_an_error_fail_the_call(self, run: Callable[..., Worker], error: Any) -> None:
        worker = run(ECHO)
        got = worker.call("main", {"error": error, "more": 1})
        assert (got.kind, got.payload) == (FAIL, error)
        assert worker.value("main", "after") == "after"

    @pytest.mark.parametrize("error", [None, False, 0, "", float("nan")])
    def test_with_nothing_as_the_error_are_values(
        self, run: Callable[..., Worker], error: Any
    ) -> None:
        got = run(ECHO).call("main", {"error": error})
        assert got.kind == SUCCESS

    def test_unframed_fail_the_call_and_replace_the_worker(
        self, run: Callable[..., Worker]
    ) -> None:
        worker = run(
            """
            receive()
            sys.stdout.buffer.write(msgpack.encode("empty payload received"))
            """
        )
        id = worker.request("main")
        ends = {got.kind: got for got in (worker.receive(), worker.receive())}
        assert ends.keys() == {DIE, GO_AWAY}
        assert (ends[DIE].id, ends[DIE].meta) == (id, {"reason": "ProtocolError"})
        assert "empty payload" in ends[DIE].payload["detail"]
        assert "not framed" in ends[GO_AWAY].payload["reason"]

    def test_too_large_ones_fail_their_call(self, run: Callable[..., Worker]) -> None:
        worker = run("serve(lambda n: 'x' * n)", greet=False)
        worker.welcome(maxFrameSize=5000)
        assert worker.call("main", 6000).meta == {"reason": "FrameTooLarge"}
        assert worker.value("main", 3) == "xxx"


class TestOutput:
    def test_of_all_kinds_is_no_reply(self, run: Callable[..., Worker]) -> None:
        worker = run(
            """
            import ctypes, io, subprocess
            wrapped = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
            def answer(value):
                print("printed")
                sys.stdout.write("no end")
                os.write(1, b"written\\n")
                ctypes.CDLL(None).puts(b"from C")
                subprocess.run(["echo", "from a program"], stdin=subprocess.DEVNULL)
                sys.stdout.buffer.write(b"as bytes\\n")
                wrapped.write("wrapped é\\n")
                print("replaced", file=sys.__stdout__)
                return value
            serve(answer)
            """
        )
        assert [worker.value("main", each) for each in (1, 2)] == [1, 2]
        worker.ping()
        messages = [each["message"] for each in worker.logs]
        for text in ("printed", "no end", "as bytes", "wrapped é"):
            assert any(text in each for each in messages), (text, messages)
        assert {each["id"] for each in worker.logs} == {1, 2}
        worker.shut_down()
        out = worker.output()[0]
        assert all(out.count(text) == 2 for text in ("written", "from C", "from a program"))

    @pytest.mark.parametrize(
        "log",
        [
            "print('[ERROR] bad input', file=sys.stderr)",
            "sys.stderr.write('[ERROR] bad input')",
            "logging.basicConfig(format='[%(levelname)s] %(message)s'); logging.error('bad input')",
        ],
    )
    def test_an_error_on_stderr_fails_the_call_that_runs(
        self, run: Callable[..., Worker], log: str
    ) -> None:
        worker = run(
            f"""
import logging
def answer(value):
    if value != "bad":
        return value
    {log}
    return ...
serve(answer)
"""
        )
        first, second, third = (worker.request("main", each) for each in ("a", "bad", "c"))
        ends = [worker.receive() for _ in range(3)]
        assert [(end.id, end.kind) for end in ends] == [
            (first, SUCCESS),
            (second, FAIL),
            (third, SUCCESS),
        ]
        assert ends[1].payload == "[ERROR] bad input"
        assert ends[2].payload == "c"

    def test_the_reply_after_an_error_on_stderr_is_nobodys(
        self, run: Callable[..., Worker]
    ) -> None:
        worker = run(
            """
            def answer(value):
                print("[ERROR]", value, file=sys.stderr, flush=True)
                time.sleep(0.05)
                return "late"
            answers = iter([answer, answer, lambda value: value])
            serve(lambda value: next(answers)(value))
            """
        )
        ids = [worker.request("main", each) for each in (1, 2, 3)]
        ends = [worker.receive() for _ in ids]
        assert [(end.id, end.kind) for end in ends] == list(
            zip(ids, (FAIL, FAIL, SUCCESS), strict=True)
        )
        assert ends[2].payload == 3

    def test_an_error_on_stderr_between_calls_is_a_log(self, run: Callable[..., Worker]) -> None:
        worker = run("print('[ERROR] at start', file=sys.stderr)\n" + ECHO)
        assert worker.value("main", 1) == 1


class TestGivingUp:
    def test_a_call_holds_its_place_until_its_reply_has_come(
        self, run: Callable[..., Worker]
    ) -> None:
        worker = run("serve(lambda seconds: time.sleep(seconds) or seconds)")
        slow = worker.request("main", 0.3)
        worker.send(frame(CANCEL, slow))
        quick = worker.request("main", 0)
        ends = [worker.receive(), worker.receive()]
        assert [(end.id, end.kind) for end in ends] == [(slow, INTERRUPTED), (quick, SUCCESS)]
        assert ends[1].payload == 0

    def test_the_worker_answers_while_the_script_computes(
        self, run: Callable[..., Worker], tmp_path: Path
    ) -> None:
        worker = run("""
            def answer(path):
                while not os.path.exists(path):
                    sum(range(100_000))

            serve(answer)
        """)
        id = worker.request("main", str(tmp_path / "go"))
        worker.ping()
        (tmp_path / "go").touch()
        assert worker.receive().id == id


class TestEnd:
    def test_is_orderly_and_quick(self, run: Callable[..., Worker]) -> None:
        worker = run(ECHO + "\nprint('the loop is over')")
        assert worker.value("main", 1) == 1
        assert worker.shut_down(10_000) == 0
        with pytest.raises(EOFError):
            while True:
                got = worker.receive_any()
                worker.logs.append(got.payload)
        assert "the loop is over" in [each["message"] for each in worker.logs]

    def test_of_a_script_that_does_not_listen_comes_all_the_same(
        self, run: Callable[..., Worker]
    ) -> None:
        worker = run(
            """
            import signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            receive()
            send("ignoring")
            while True:
                time.sleep(1)
            """
        )
        assert worker.value("main") == "ignoring"
        worker.process.send_signal(signal.SIGTERM)
        assert worker.shut_down(100) == 0

    @pytest.mark.parametrize(
        ("source", "code", "stderr"),
        [
            ("raise ValueError('broken')", 1, "ValueError: broken"),
            ("sys.exit(3)", 3, ""),
            ("sys.exit('a reason')", 1, "a reason"),
            ("os._exit(4)", 4, ""),
            ("return_ = 1", 0, ""),
        ],
    )
    def test_in_the_middle_of_a_call_is_the_end_of_the_process(
        self, run: Callable[..., Worker], source: str, code: int, stderr: str
    ) -> None:
        worker = run(f"receive()\n{source}")
        worker.request("main")
        assert worker.wait() == code
        assert stderr in worker.output()[1]

    def test_comes_after_the_last_reply(self, run: Callable[..., Worker]) -> None:
        for _ in range(5):
            worker = run("send(receive()[0])\nsys.exit(5)")
            assert worker.value("main", "last") == "last"
            assert worker.wait() == 5

    def test_waits_for_threads_as_scripts_do(self, run: Callable[..., Worker]) -> None:
        worker = run("threading.Thread(target=serve, args=(lambda value: value,)).start()")
        assert [worker.value("main", each) for each in (1, 2)] == [1, 2]
        assert worker.shut_down() == 0

    def test_a_signal_lets_the_call_that_runs_end(self, run: Callable[..., Worker]) -> None:
        worker = run("serve(lambda seconds: print('on it') or time.sleep(seconds) or 'done')")
        id = worker.request("main", 0.2)
        assert worker.next_log()["message"] == "on it"
        worker.process.send_signal(signal.SIGTERM)
        ends: list[Got] = [worker.receive(), worker.receive()]
        assert [each.kind for each in ends] == [GO_AWAY, SUCCESS]
        assert (ends[1].id, ends[1].payload) == (id, "done")
        assert worker.wait() == 0

    def test_a_forked_child_is_no_worker(self, run: Callable[..., Worker]) -> None:
        worker = run(
            """
            def answer(value):
                child = os.fork()
                if child == 0:
                    sys.exit(9)
                return os.waitpid(child, 0)[1] >> 8
            serve(answer)
            """
        )
        assert [worker.value("main"), worker.value("main")] == [9, 9]
