from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import DIE, LOG, MAIN, SUCCESS, Worker, encode, frame, write

Start = Callable[..., Worker]


def logs_of(worker: Worker, method: str, value: Any = None) -> list[dict[str, Any]]:
    """The records of one call, all of which come before its answer."""
    worker.logs.clear()
    assert worker.call(method, value).kind in (SUCCESS, DIE)
    return list(worker.logs)


def short(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(each["level"], each["logger"], each["message"]) for each in records]


def test_what_is_printed_is_a_record_with_its_call_and_place(start: Start, tmp_path: Path) -> None:
    worker = start("""
        import sys
        import synapse

        @synapse.handler
        def main():
            print("one", 2)
            print("to stderr", file=sys.stderr)
    """)
    before = time.time() * 1000
    out, err = logs_of(worker, "main")
    assert before - 1 <= out.pop("time") <= err.pop("time") <= time.time() * 1000 + 1
    common = {"id": 1, "file": str(tmp_path / "main.py"), "exception": None}
    assert out == {"level": 20, "logger": "stdout", "message": "one 2", "line": 7, **common}
    assert err == {"level": 30, "logger": "stderr", "message": "to stderr", "line": 8, **common}


def test_lines_are_put_together_and_the_last_one_ends_with_the_call(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            print("a", end="")
            print("b", end="", flush=True)
            print("c\\n\\nd", end="")

        @synapse.handler
        async def asynchronous():
            print("e", end="")
    """)
    assert [each["message"] for each in logs_of(worker, "main")] == ["abc", "", "d"]
    assert [each["message"] for each in logs_of(worker, "asynchronous")] == ["e"]
    assert worker.logs[0]["id"] == 2


def test_lines_of_calls_that_run_at_once_do_not_mix(start: Start) -> None:
    worker = start("""
        import asyncio
        import synapse

        waiting = []

        @synapse.handler
        async def main(name: str):
            print(name, end=" ")
            event = asyncio.Event()
            waiting.append(event)
            if len(waiting) == 2:
                for each in waiting:
                    each.set()
            await event.wait()
            print(name)
    """)
    for name in ("x", "y"):
        worker.request("main", {"name": name})
    assert {worker.receive().id, worker.receive().id} == {1, 2}
    assert {(each["message"], each["id"]) for each in worker.logs} == {("x x", 1), ("y y", 2)}


def test_a_progress_bar_is_one_line(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            for i in range(1000):
                print(f"\\r{i}", end="")
            print("\\rdone")
    """)
    assert [each["message"] for each in logs_of(worker, "main")] == ["done"]


def test_printing_without_end_comes_in_pieces(start: Start) -> None:
    worker = start("""
        import sys
        import synapse

        @synapse.handler
        def main():
            for _ in range(50):
                sys.stdout.write("x" * 10_000)
    """)
    pieces = [len(each["message"]) for each in logs_of(worker, "main")]
    assert sum(pieces) == 500_000 and max(pieces) <= 65536


def test_text_that_is_not_unicode_is_printed_escaped(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            print("a\\ud800b é")
    """)
    assert logs_of(worker, "main")[0]["message"] == "a\\ud800b é"


def test_the_streams_behave_like_streams(start: Start) -> None:
    worker = start("""
        import contextlib
        import io
        import os
        import sys
        import synapse

        @synapse.handler
        def main():
            refused = None
            try:
                sys.stdout.write(b"bytes")
            except TypeError as error:
                refused = str(error)
            sys.stdout.close()
            sys.stdout.flush()
            sys.stdout.reconfigure(line_buffering=True)
            sys.stdout.writelines(["w", "\\n"])
            sys.stdout.buffer.write(b"raw bytes\\n")
            sys.stdout.buffer.flush()
            os.write(sys.stderr.fileno(), b"raw descriptor\\n")
            with contextlib.redirect_stdout(io.StringIO()) as captured:
                print("captured")
            return [
                sys.stdout.write("abc\\n"),
                sys.stdout.isatty(),
                sys.stdout.fileno(),
                sys.stdout.encoding,
                sys.stdout.errors,
                sys.stdout.closed,
                refused,
                captured.getvalue(),
            ]
    """)
    refused = "write() argument must be str, not bytes"
    expected = [4, False, 1, "utf-8", "backslashreplace", False, refused, "captured\n"]
    assert worker.value("main") == expected
    assert [each["message"] for each in worker.logs] == ["w", "abc"]
    worker.shut_down()
    assert worker.output() == ("raw bytes\n", "raw descriptor\n")


def test_logging_arrives_with_level_logger_place_and_exception(
    start: Start, tmp_path: Path
) -> None:
    worker = start("""
        import logging
        import synapse

        log = logging.getLogger("my.logger")

        @synapse.handler
        def main():
            log.debug("not wanted by default")
            log.info("an %s message", "info")
            try:
                1 / 0
            except ZeroDivisionError:
                log.exception("it failed")
            log.warning("%d", "does not fit")
            logging.getLogger().critical("root")
    """)
    records = logs_of(worker, "main")
    assert short(records) == [
        (20, "my.logger", "an info message"),
        (40, "my.logger", "it failed"),
        (30, "my.logger", "%d (TypeError while formatting)"),
        (50, "root", "root"),
    ]
    assert records[0]["id"] == 1 and records[0]["line"] == 10
    assert records[0]["file"] == str(tmp_path / "main.py")
    assert records[1]["exception"]["type"] == "ZeroDivisionError"


def test_the_level_that_a_module_sets_is_kept(start: Start) -> None:
    worker = start("""
        import logging
        import synapse

        logging.basicConfig(level=logging.DEBUG, format="%(message)s")

        @synapse.handler
        def main():
            logging.getLogger("x").debug("wanted")
    """)
    assert short(logs_of(worker, "main")) == [(10, "x", "wanted")]


def test_handlers_of_a_module_are_kept(start: Start, tmp_path: Path) -> None:
    worker = start("""
        import logging
        import synapse

        logging.basicConfig(filename="own.log", level=logging.WARNING)

        @synapse.handler
        def main():
            logging.info("less than wanted")
            logging.warning("both")
    """)
    assert short(logs_of(worker, "main")) == [(30, "root", "both")]
    worker.shut_down()
    assert "both" in (tmp_path / "own.log").read_text()


def test_warnings_are_records(start: Start) -> None:
    worker = start("""
        import warnings
        import synapse

        @synapse.handler
        def main():
            warnings.warn("careful")
    """)
    (record,) = logs_of(worker, "main")
    assert (record["level"], record["logger"]) == (30, "py.warnings")
    assert record["message"].startswith("UserWarning: careful")
    assert (record["file"].endswith("main.py"), record["line"]) == (True, 7)


def test_logging_while_a_record_is_made_does_not_recurse(start: Start) -> None:
    worker = start("""
        import logging
        import synapse

        class Loud:
            def __str__(self):
                logging.warning("again %s", self)
                print("printed meanwhile")
                return "loud"

        @synapse.handler
        def main():
            logging.warning("%s", Loud())
            return "lived"
    """)
    worker.logs.clear()
    assert worker.value("main") == "lived"
    assert ("root", "loud") in {(each["logger"], each["message"]) for each in worker.logs}


def test_records_of_the_import_come_after_hello(launch: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import logging
        import synapse

        logging.getLogger("early").warning("while importing")
        for number in range(1100):
            logging.getLogger("early").info("%d", number)

        @synapse.handler
        def main():
            return 1
        """,
    )
    worker = launch()
    worker.welcome()
    assert worker.value("main") == 1
    assert short(worker.logs[:1]) == [(30, "early", "while importing")]
    assert worker.logs[0]["id"] is None
    # What was held is bounded, and what was lost is counted with the record that comes after it.
    assert len(worker.logs) == 1000
    assert [each.get("dropped") for each in worker.logs[-2:]] == [None, 101]
    assert worker.logs[-1]["message"] == "998"


def test_what_is_printed_while_importing_is_seen_at_once_and_survives_a_crash(
    launch: Start, tmp_path: Path
) -> None:
    write(
        tmp_path,
        """
        import os
        import sys

        print("out \\ud800")
        print("err", file=sys.stderr)
        print("no end of line", end="")
        os._exit(3)
        """,
    )
    worker = launch()
    assert worker.wait() == 3
    assert worker.output() == ("out \\ud800\nno end of line", "err\n")


def test_a_crash_loses_no_line(start: Start) -> None:
    worker = start("""
        import os
        import signal
        import synapse

        @synapse.handler
        def main():
            for number in range(100):
                print(number)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    worker.request("main")
    messages = [worker.next_log()["message"] for _ in range(100)]
    assert messages == [str(number) for number in range(100)]
    assert worker.wait() == -9


def test_c_code_prints_line_by_line_and_loses_nothing_at_the_end(start: Start) -> None:
    worker = start("""
        import ctypes
        import os
        import synapse

        libc = ctypes.CDLL(None)

        @synapse.handler
        def crash():
            libc.printf(b"a line\\n")
            os._exit(5)

        @synapse.handler
        def part():
            libc.printf(b"part of a line")
    """)
    worker.call("part")
    assert worker.shut_down() == 0
    assert worker.output()[0] == "part of a line"


def test_c_code_loses_no_line_at_a_crash(start: Start) -> None:
    worker = start("""
        import ctypes
        import os
        import synapse

        @synapse.handler
        def main():
            ctypes.CDLL(None).printf(b"a line\\n")
            os._exit(5)
    """)
    worker.request("main")
    assert worker.wait() == 5
    assert worker.output()[0] == "a line\n"


def test_c_output_without_an_end_of_line_comes_when_the_worker_is_idle(start: Start) -> None:
    worker = start("""
        import ctypes
        import synapse

        @synapse.handler
        def main():
            ctypes.CDLL(None).printf(b"part of a line")
    """)
    worker.call("main")
    assert worker.process.stdout is not None
    assert worker.process.stdout.read(14) == b"part of a line"


def test_threads_print_without_mixing_their_lines(start: Start) -> None:
    worker = start("""
        import threading
        import synapse

        @synapse.handler
        def main():
            def run(name):
                for _ in range(100):
                    print(name, name, name)
            threads = [threading.Thread(target=run, args=(name,)) for name in "abcd"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    """)
    messages = [each["message"] for each in logs_of(worker, "main")]
    assert sorted(messages) == sorted(
        f"{name} {name} {name}" for name in "abcd" for _ in range(100)
    )


def test_a_forked_child_prints_to_the_descriptors(start: Start) -> None:
    worker = start("""
        import logging
        import os
        import synapse

        @synapse.handler
        def main():
            pid = os.fork()
            if pid == 0:
                print("from the child")
                logging.warning("logged by the child")
                os._exit(0)
            os.waitpid(pid, 0)
            print("from the parent")
    """)
    assert [each["message"] for each in logs_of(worker, "main")] == ["from the parent"]
    worker.shut_down()
    out, err = worker.output()
    assert out == "from the child\n"
    assert "logged by the child" in err


@pytest.mark.parametrize("kind", ["", "async "])
def test_a_background_task_prints_without_a_call(start: Start, kind: str) -> None:
    worker = start(f"""
        import threading
        import synapse

        go_on = threading.Event()
        ended = threading.Event()

        def later():
            go_on.wait(30)
            print("later")
            ended.set()

        @synapse.handler
        {kind}def main():
            threading.Thread(target=later, daemon=True).start()

        @synapse.handler
        {kind}def second():
            go_on.set()
            ended.wait(30)
    """)
    worker.call("main")
    (record,) = logs_of(worker, "second")
    assert (record["message"], record["id"]) == ("later", None)


def test_a_record_above_the_limit_is_dropped_and_counted(start: Start) -> None:
    worker = start(
        """
        import synapse

        @synapse.handler
        def main():
            print("x" * 3000)
            print("short")
        """,
        welcome={"maxFrameSize": 2000},
    )
    (record,) = logs_of(worker, "main")
    assert (record["message"], record["dropped"]) == ("short", 1)


def test_a_host_that_reads_late_gets_every_line(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        def main():
            for number in range(20_000):
                print(number, "x" * 20)
    """)
    worker.send(frame(1, 1, b"", encode({"method": "main"})))
    got = [worker.receive_any() for _ in range(20_001)]
    assert [each.kind for each in got] == [LOG] * 20_000 + [SUCCESS]
    assert not any("dropped" in each.payload for each in got[:-1])


def test_an_exception_that_ends_a_thread_is_one_record(start: Start) -> None:
    worker = start("""
        import sys
        import threading
        import synapse

        @synapse.handler
        def main(failing):
            thread = threading.Thread(target=fail if failing else sys.exit, name="mine")
            thread.start()
            thread.join()

        def fail():
            1 / 0

        @synapse.handler
        def own():
            threading.excepthook = lambda uncaught: print("own", uncaught.exc_type.__name__)
            main(True)
    """)
    records = logs_of(worker, "main", True)
    assert short(records) == [(40, "threading", "Exception in thread mine")]
    assert records[0]["exception"]["type"] == "ZeroDivisionError"
    assert records[0]["exception"]["frames"][-1]["function"] == "fail"
    worker.logs.clear()
    assert logs_of(worker, "main", False) == []
    assert short(logs_of(worker, "own")) == [(20, "stdout", "own ZeroDivisionError")]


def test_a_codec_that_does_not_work_is_told_once(start: Start, tmp_path: Path) -> None:
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        "import runpy, sys, types\n"
        "sys.modules['msgspec'] = types.ModuleType('msgspec')\n"
        f"runpy.run_path({str(MAIN)!r}, run_name='__main__')\n"
    )
    worker = start(
        """
        import typing
        import synapse

        @synapse.handler
        def main(a: typing.Annotated[int, "a number"]):
            return a
        """,
        launcher=[str(launcher)],
    )
    assert worker.value("main", {"a": 1}) == 1
    assert [(each["level"], each["logger"]) for each in worker.logs] == [(30, "synapse")]
    message = worker.logs[0]["message"]
    assert message.startswith("`msgspec` is installed and does not work (AttributeError: ")
    assert message.endswith("using the codec `msgpack`")
