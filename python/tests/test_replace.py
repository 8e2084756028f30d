from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wire import DIE, GO_AWAY, HELLO, SUCCESS, Got, Worker, write

import synapse

Start = Callable[..., Worker]

MODULE = """
    import asyncio
    import gc
    import os
    import threading
    import synapse

    def ask(reason=None):
        synapse.replace_me(reason)
        return os.getpid()

    @synapse.handler
    def sync(reason=None):
        return ask(reason)

    @synapse.handler
    async def asynchronous(reason=None):
        return ask(reason)

    @synapse.handler
    def stream(reason=None):
        yield ask(reason)
        yield "on"

    @synapse.handler
    def thread(reason=None):
        results = []
        asking = threading.Thread(target=lambda: results.append(ask(reason)))
        asking.start()
        asking.join()
        return results[0]

    @synapse.handler(cancel="interrupt")
    def interruptible(reason=None):
        return ask(reason)

    class Asks:
        def __del__(self):
            ask()

    @synapse.handler
    def destructor(reason=None):
        object = Asks()
        object.itself = object
        del object
        gc.collect()
        return os.getpid()

    @synapse.handler
    def twice(reason=None):
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for each in threads: each.start()
        for each in threads: each.join()
        return ask()

    @synapse.handler
    def child():
        pid = os.fork()
        if pid == 0:
            try:
                synapse.replace_me()
            except RuntimeError:
                os._exit(7)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    @synapse.handler
    def quick():
        return "quick"

    @synapse.on_stop
    def stop():
        ask()
        open("stopped", "w").close()
"""
WAYS = ["sync", "asynchronous", "thread", "interruptible", "destructor", "twice"]


def gone_away(worker: Worker, count: int = 2) -> tuple[Got, list[Got]]:
    """The one GoAway among the next frames, and the others."""
    got = [worker.receive() for _ in range(count)]
    (goes,) = [each for each in got if each.kind == GO_AWAY]
    return goes, [each for each in got if each.kind != GO_AWAY]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_a_worker_that_asks_answers_and_leaves(
    start: Start, tmp_path: Path, way: str, concurrency: int
) -> None:
    worker = start(MODULE, welcome={"concurrency": concurrency})
    worker.request(way)
    goes, (answer,) = gone_away(worker)
    assert (goes.id, goes.meta, goes.payload) == (0, None, None)
    assert (answer.kind, answer.payload) == (SUCCESS, worker.process.pid)
    assert worker.wait() == 0
    with pytest.raises((EOFError, ConnectionError)):
        worker.receive()
    assert (tmp_path / "stopped").exists()


def test_a_module_of_asynchronous_handlers_can_ask(start: Start) -> None:
    worker = start("""
        import synapse

        @synapse.handler
        async def main():
            synapse.replace_me("no more")
            return 1
    """)
    worker.request("main")
    goes, (answer,) = gone_away(worker)
    assert (goes.payload, answer.payload) == ({"reason": "no more"}, 1)
    assert worker.wait() == 0


@pytest.mark.parametrize(
    ("reason", "told"),
    [("the GPU is lost", "the GPU is lost"), ("", ""), ("x" * 5000, "x" * 1000), ("\ud800", "?")],
)
def test_the_reason_is_told(start: Start, reason: str, told: str) -> None:
    worker = start(MODULE.replace("ask(reason)", f"ask({reason!r})"))
    worker.request("sync")
    goes, _ = gone_away(worker)
    assert goes.payload == {"reason": told}


def test_what_runs_is_finished_and_what_is_new_refused(start: Start, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "let_go")
    worker = start(
        MODULE
        + """
    @synapse.handler
    async def waits():
        synapse.replace_me()
        await asyncio.to_thread(lambda: open("let_go").close())
        return "done"
    """
    )
    waits = worker.request("waits")
    assert worker.receive().kind == GO_AWAY
    refused = worker.call("quick")
    assert (refused.kind, refused.meta) == (DIE, {"reason": "Closed", "delivery": "rejected"})
    worker.ping()
    (tmp_path / "let_go").write_text("")
    got = worker.receive()
    assert (got.id, got.payload) == (waits, "done")
    assert worker.wait() == 0


def test_a_stream_goes_on_to_its_end(start: Start) -> None:
    worker = start(MODULE)
    id = worker.stream("stream", granted=1)
    _, (first,) = gone_away(worker)
    assert first.payload == [worker.process.pid]
    worker.credit(id, 1)
    items, end = worker.items(id)
    assert (items, end.kind) == (["on"], SUCCESS)
    assert worker.wait() == 0


@pytest.mark.parametrize("kind", ["", "async "])
def test_a_background_function_can_ask(start: Start, kind: str) -> None:
    worker = start(f"""
        import synapse

        @synapse.background(seconds=0.01)
        {kind}def watch():
            synapse.replace_me("watched")

        @synapse.handler
        def main():
            return 1
    """)
    goes = worker.receive()
    assert (goes.kind, goes.payload) == (GO_AWAY, {"reason": "watched"})
    assert worker.wait() == 0


def test_a_thread_of_the_module_can_ask_before_the_welcome(launch: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        """
        import threading, time
        import synapse

        def ask():
            while True:
                try:
                    return synapse.replace_me()
                except RuntimeError:
                    time.sleep(0.01)

        threading.Thread(target=ask, daemon=True).start()
        """,
    )
    worker = launch()
    assert [worker.receive().kind, worker.receive().kind] == [HELLO, GO_AWAY]
    assert worker.wait() == 0


def test_shutdown_after_it_ends_the_worker_at_once(start: Start) -> None:
    worker = start(MODULE)
    worker.request("sync")
    gone_away(worker)
    assert worker.shut_down() == 0


def test_a_child_that_a_handler_forks_cannot_ask(start: Start) -> None:
    worker = start(MODULE)
    assert worker.value("child") == 7
    assert worker.value("quick") == "quick"


@pytest.mark.parametrize(
    "source",
    [
        "import synapse\nsynapse.replace_me()\n",
        "import synapse\n@synapse.on_start\ndef f(): synapse.replace_me()\n",
        "import synapse\n@synapse.on_start\nasync def f(): synapse.replace_me('why')\n",
    ],
    ids=["import", "hook", "asynchronous hook"],
)
def test_a_worker_that_is_starting_cannot_ask(launch: Start, tmp_path: Path, source: str) -> None:
    write(tmp_path, source)
    hello = launch().receive()
    failure = hello.payload["failure"]
    assert failure["type"] == "RuntimeError"
    assert "it is still starting, where an exception ends it" in failure["message"]


def test_outside_of_a_worker_nobody_can_ask() -> None:
    with pytest.raises(RuntimeError, match="for a worker that serves"):
        synapse.replace_me()
    with pytest.raises(TypeError, match="is a text, not 3"):
        synapse.replace_me(3)  # type: ignore[arg-type]


def test_another_program_cannot_ask() -> None:
    code = "import synapse; synapse.replace_me()"
    path = str(Path(synapse.__file__).parents[1])
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1 and "RuntimeError: synapse.replace_me()" in run.stderr
