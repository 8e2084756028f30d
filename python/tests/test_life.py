from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from wire import MAIN, PATIENCE, Worker, encode, frame, write

Start = Callable[..., Worker]
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does this on Linux")

# What the process is doing when its host goes; each says so by a byte on the pipe.
STATES = {
    "idle": "return",
    "sleeping": "time.sleep(600)",
    "busy in Python": "while True: pass",
    "holding the lock of the interpreter in C": (
        "collections.deque(itertools.repeat(None, 10**12), maxlen=0)"
    ),
    "in C without that lock": "hashlib.pbkdf2_hmac('sha512', b'p', b's', 2**31 - 1)",
}

BUSY = """
    import collections, hashlib, itertools, os, time
    import synapse

    @synapse.handler
    def main():
        with open(os.environ["BEGUN"], "w"):
            pass
        {doing}
"""


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    path = tmp_path / "begun"
    os.mkfifo(path)
    return path


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def wait_gone(pid: int) -> bool:
    """Whether a process that is no child of ours ends; there is nothing to wait on but time."""
    limit = time.monotonic() + PATIENCE
    while is_alive(pid) and time.monotonic() < limit:
        time.sleep(0.005)
    return not is_alive(pid)


@linux
@pytest.mark.parametrize("doing", STATES.values(), ids=STATES.keys())
def test_the_worker_dies_when_the_lifeline_closes(start: Start, begun: Path, doing: str) -> None:
    worker = start(BUSY.format(doing=doing), lifeline=True, env={"BEGUN": str(begun)})
    worker.request("main")
    begun.open().close()
    assert worker.lifeline is not None
    os.close(worker.lifeline)
    worker.lifeline = None
    assert worker.wait() == -signal.SIGKILL


@linux
def test_the_children_of_a_worker_die_with_it(start: Start) -> None:
    worker = start(
        """
        import subprocess
        import synapse

        @synapse.handler
        def main():
            return subprocess.Popen(["sleep", "600"]).pid
        """,
        lifeline=True,
    )
    pid = worker.value("main")
    assert worker.lifeline is not None
    os.close(worker.lifeline)
    worker.lifeline = None
    assert worker.wait() == -signal.SIGKILL
    assert wait_gone(pid)


@linux
@pytest.mark.parametrize("doing", STATES.values(), ids=STATES.keys())
def test_the_worker_dies_with_its_parent(tmp_path: Path, begun: Path, doing: str) -> None:
    write(tmp_path, BUSY.format(doing=doing))
    # A host between us and the worker, whose channel stays open in this process when it is killed.
    host = textwrap.dedent(f"""
        import os, socket, subprocess, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import wire
        from pathlib import Path
        worker = wire.Worker(Path({str(tmp_path)!r}), env={{"BEGUN": {str(begun)!r},
            "SYNAPSE_PPID": str(os.getpid())}})
        worker.welcome()
        worker.request("main")
        print(worker.process.pid, flush=True)
        os.read(0, 1)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", host], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    begun.open().close()
    assert is_alive(pid)
    process.kill()
    process.communicate()
    assert wait_gone(pid)


@linux
def test_a_worker_with_another_parent_leaves(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "")
    # A process that lives, and is not the parent.
    worker = launch(env={"SYNAPSE_PPID": "1"})
    assert worker.wait() == 77


def test_a_worker_whose_host_died_before_it_began_leaves(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "")
    gone = subprocess.Popen(["true"])
    gone.wait()
    worker = launch(env={"SYNAPSE_PPID": str(gone.pid)}, launcher=[str(MAIN)])
    worker.socket.close()
    # Its channel has ended: at the check of the parent, or when it first uses it.
    assert worker.wait() in (75, 77)


def test_a_number_of_another_namespace_is_no_reason_to_leave(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "import synapse\n@synapse.handler\ndef main(): return 1\n")
    gone = subprocess.Popen(["true"])
    gone.wait()
    worker = launch(env={"SYNAPSE_PPID": str(gone.pid)})
    worker.welcome()
    assert worker.value("main") == 1


@pytest.mark.parametrize("kind", ["", "async "])
def test_the_end_of_the_channel_ends_the_worker(start: Start, kind: str) -> None:
    worker = start(f"import synapse\n@synapse.handler\n{kind}def main(): return 1\n")
    assert worker.value("main") == 1
    worker.socket.close()
    assert worker.wait() == 75


def test_the_end_of_the_channel_ends_a_worker_whose_handler_runs(start: Start, begun: Path) -> None:
    worker = start(BUSY.format(doing="time.sleep(600)"), env={"BEGUN": str(begun)})
    worker.request("main")
    begun.open().close()
    worker.socket.close()
    assert worker.wait() == 75


CHILDREN = """
    import multiprocessing, os, signal, subprocess, sys, time
    import synapse

    def daemon():
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write, str(os.getpid()).encode())
                os.close(write)
                time.sleep(600)
            os._exit(0)
        return int(os.read(read, 32))

    @synapse.handler
    def children():
        fork = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        fork.start()
        return [
            subprocess.Popen(["sleep", "600"]).pid,
            subprocess.Popen(["sleep", "600"], start_new_session=True).pid,
            subprocess.Popen(["sleep", "600"], start_new_session=True, env={}).pid,
            fork.pid,
            daemon(),
        ]

    @synapse.handler
    def main():
        with open(os.environ["BEGUN"], "w"):
            pass
        time.sleep(600)
"""


@linux
@pytest.mark.parametrize("doing", ["idle", "sleeping"])
def test_what_a_worker_started_dies_with_the_host(tmp_path: Path, begun: Path, doing: str) -> None:
    write(tmp_path, CHILDREN)
    host = textwrap.dedent(f"""
        import json, os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import wire
        from pathlib import Path
        worker = wire.Worker(Path({str(tmp_path)!r}), env={{"BEGUN": {str(begun)!r},
            "SYNAPSE_WORKER_ID": {str(tmp_path)!r}, "SYNAPSE_PPID": str(os.getpid()),
            "SYNAPSE_PDEATHSIG": "0"}})
        worker.welcome()
        pids = worker.value("children")
        if {doing!r} == "sleeping":
            worker.request("main")
        print(json.dumps([worker.process.pid, *pids]), flush=True)
        os.read(0, 1)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", host], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    try:
        if doing == "sleeping":
            begun.open().close()
        assert all(map(is_alive, pids))
        process.kill()
        process.communicate()
        assert [pid for pid in pids if not wait_gone(pid)] == []
    finally:
        kill_all(pids)


@linux
def test_a_host_with_threads_takes_the_group_along(tmp_path: Path) -> None:
    """The thread that started the worker ends first, and its process lets go of its files last."""
    write(tmp_path, CHILDREN)
    host = textwrap.dedent(f"""
        import json, os, sys, threading, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import wire
        from pathlib import Path
        worker = wire.Worker(Path({str(tmp_path)!r}), lifeline=True)
        worker.welcome()
        for _ in range(50):
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        print(json.dumps([worker.process.pid, *worker.value("children")]), flush=True)
        os.read(0, 1)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", host], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    worker, same_group, _, _, forked, _ = pids
    try:
        process.kill()
        process.communicate()
        assert [pid for pid in (worker, same_group, forked) if not wait_gone(pid)] == []
    finally:
        kill_all(pids)


@linux
def test_the_end_of_the_channel_ends_what_the_worker_started(start: Start, tmp_path: Path) -> None:
    worker = start(CHILDREN, env={"SYNAPSE_WORKER_ID": str(tmp_path)})
    bystander = subprocess.Popen(
        ["sleep", "600"], env={**os.environ, "SYNAPSE_WORKER_ID": f"{tmp_path}/2"}
    )
    pids = worker.value("children")
    try:
        worker.socket.close()
        assert worker.wait() == 75
        assert [pid for pid in pids if not wait_gone(pid)] == []
        assert bystander.poll() is None
    finally:
        kill_all(pids)
        bystander.kill()
        bystander.wait()


@linux
def test_a_forked_child_that_serves_on_leaves_alone(start: Start, tmp_path: Path) -> None:
    worker = start(
        """
        import os
        import synapse

        @synapse.handler
        def main():
            child = os.fork()
            if child:
                os.waitpid(child, 0)
            return 1
        """,
        env={"SYNAPSE_WORKER_ID": str(tmp_path)},
    )
    assert [worker.value("main") for _ in range(2)] == [1, 1]


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def files_of(pid: int) -> set[str]:
    files = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        # A program that has just started still closes some.
        with contextlib.suppress(FileNotFoundError):
            files.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return files


def test_forked_children_do_not_keep_the_channel_open(start: Start) -> None:
    worker = start(
        """
        import os
        import signal
        import subprocess
        import synapse

        @synapse.handler
        def main():
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.write(write, b"x")
                signal.pause()
            os.read(read, 1)
            return [pid, subprocess.Popen(["sleep", "600"], close_fds=False).pid]
        """,
        lifeline=True,
        crashes=True,
    )
    pids = worker.value("main")
    try:
        for pid in pids:
            open_files = files_of(pid)
            ours = {os.readlink(f"/proc/{worker.process.pid}/fd/{fd}") for fd in (3, 4, 5)}
            assert not open_files & ours
        worker.process.kill()
        worker.wait()
        with pytest.raises((EOFError, ConnectionError)):
            worker.receive()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


@linux
def test_a_crash_writes_the_stacks_to_descriptor_5(start: Start) -> None:
    worker = start(
        """
        import ctypes
        import synapse

        @synapse.handler
        def main():
            ctypes.string_at(0)
        """,
        crashes=True,
    )
    worker.request("main")
    assert worker.wait() == -signal.SIGSEGV
    assert worker.crashes is not None
    dump = os.read(worker.crashes, 65536).decode()
    assert "Segmentation fault" in dump and "main.py" in dump
    assert "Segmentation" not in worker.output()[1]


def test_sigint_does_nothing_and_is_not_inherited_as_ignored(start: Start) -> None:
    worker = start("""
        import signal
        import subprocess
        import sys
        import synapse

        @synapse.handler
        def main():
            code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            return run.stdout.strip()
    """)
    worker.process.send_signal(signal.SIGINT)
    assert worker.value("main") == "False"


@linux
def test_the_kernel_would_rather_end_a_worker_than_its_host(start: Start) -> None:
    worker = start("import synapse\n@synapse.handler\ndef main(): return 1\n")
    score = Path(f"/proc/{worker.process.pid}/oom_score_adj").read_text()
    assert int(score) >= 500


def test_functions_registered_at_exit_run(start: Start, tmp_path: Path) -> None:
    worker = start("""
        import atexit
        import synapse

        @atexit.register
        def note():
            open("note", "w").write("ran")

        @synapse.handler
        def main():
            return 1
    """)
    assert worker.shut_down() == 0
    assert (tmp_path / "note").read_text() == "ran"


@pytest.mark.parametrize(
    "stuck",
    [
        "atexit.register(time.sleep, 600)",
        "threading.Thread(target=time.sleep, args=(600,)).start()",
        "concurrent.futures.ThreadPoolExecutor().submit(time.sleep, 600)",
        "multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,)).start()",
    ],
)
def test_nothing_keeps_a_worker_from_leaving(start: Start, stuck: str) -> None:
    worker = start(f"""
        import atexit, concurrent.futures, multiprocessing, threading, time
        import synapse

        @synapse.handler
        def main():
            {stuck}
    """)
    worker.value("main")
    try:
        assert worker.shut_down() == 0
    finally:
        os.killpg(worker.process.pid, signal.SIGKILL) if is_group(worker.process.pid) else None


def is_group(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except OSError:
        return False
    return True


@linux
@pytest.mark.parametrize("kind", ["", "async "])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_idle_worker_uses_no_cpu(start: Start, kind: str, concurrency: int) -> None:
    worker = start(
        f"import synapse\n@synapse.handler\n{kind}def main(): return 1\n",
        welcome={"concurrency": concurrency},
    )
    assert worker.value("main") == 1

    def switches() -> int:
        """How often its threads went to sleep by themselves: nothing that is idle wakes up."""
        total = 0
        for task in Path(f"/proc/{worker.process.pid}/task").iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    limit = time.monotonic() + PATIENCE
    # Some time after the last call everything sleeps; from then on nothing moves.
    while time.monotonic() < limit:
        before = switches()
        time.sleep(0.2)
        if switches() == before:
            return
    raise AssertionError("the worker goes on waking up")


def test_a_worker_that_says_nothing_wrong_leaves_with_0(start: Start) -> None:
    worker = start("import synapse\n@synapse.handler\ndef main(): return 1\n")
    worker.send(frame(15, 0, encode(0)))
    assert worker.wait() == 0
    assert worker.output() == ("", "")


def test_output_of_threads_without_end_is_not_lost_at_the_end(start: Start) -> None:
    worker = start("""
        import threading
        import synapse

        @synapse.handler
        def main():
            thread = threading.Thread(target=print, args=("no end",), kwargs={"end": ""})
            thread.start()
            thread.join()
    """)
    worker.value("main")
    worker.send(frame(15, 0, encode(0)))
    assert worker.next_log()["message"] == "no end"
    assert worker.wait() == 0
