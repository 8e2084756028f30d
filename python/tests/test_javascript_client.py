"""The client beside what JSockD has: where Node is found, what code may do, what isolates it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synapse import javascript
from synapse.javascript import _find, _server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client() -> Iterator[javascript.Client]:
    with javascript.Client(threads=1) as client:
        yield client


def test_a_program_that_has_python_alone_is_told_how_to_get_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SYNAPSE_JAVASCRIPT_SERVER")
    monkeypatch.setattr(_find, "_NPM_PACKAGE", tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(javascript.NodeNotFound, match="npm install effect-synapse"):
        javascript.Client()


def test_the_server_is_found_in_an_installed_package_above_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SYNAPSE_JAVASCRIPT_SERVER")
    monkeypatch.setattr(_find, "_NPM_PACKAGE", tmp_path / "nowhere")
    server = tmp_path / _find._PACKAGE / _find._SERVER
    server.parent.mkdir(parents=True)
    server.touch()
    (tmp_path / "app").mkdir()
    monkeypatch.chdir(tmp_path / "app")
    assert _find.find_server() == server


def test_the_server_lies_in_the_npm_package_that_this_file_is_of() -> None:
    assert (_find._NPM_PACKAGE / "package.json").is_file()


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_server_and_a_node_that_are_named_must_be_there(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    named: dict[str, Any] = {"server": "/no/server.js", "node": "/no/node"}
    names = {"server": "SYNAPSE_JAVASCRIPT_SERVER", "node": "SYNAPSE_NODE"}
    for what, error in (("server", "no server at /no/server.js"), ("node", "/no/node")):
        with monkeypatch.context() as patch, pytest.raises(javascript.NodeNotFound, match=error):
            if way == "variable":
                patch.setenv(names[what], named[what])
                javascript.Client(threads=1)
            else:
                javascript.Client(threads=1, **{what: named[what]})


def test_a_node_that_is_too_old_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Says of itself that it is another version, before the server looks.
    preload = tmp_path / "old.cjs"
    preload.write_text(
        "const node = '18.0.0'\n"
        "Object.defineProperty(process, 'versions', { value: { ...process.versions, node } })\n"
    )
    with pytest.raises(
        javascript.NodeStartFailed, match=r"Node 18\.0\.0 .* is too old: 22\.19.*npm install node"
    ):
        javascript.Client(threads=1, node_options=["--require", str(preload)])


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (None, "cannot read the module"),
        ("export const = 1", "did not load: SyntaxError"),
        ("throw new Error('not today')", "did not load: Error: not today"),
        ("process.exit(4)", "did not load: .*exit code 4"),
    ],
)
def test_a_module_that_does_not_load_fails_the_start(
    tmp_path: Path, source: str | None, error: str
) -> None:
    module = tmp_path / "module.mjs"
    if source is not None:
        module.write_text(source)
    with pytest.raises(javascript.NodeStartFailed, match=error):
        javascript.Client(threads=1, module=module)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"threads": 0}, "threads must be from 1 to 256"),
        ({"threads": 257}, "threads"),
        ({"public_key": "00"}, "needs a module"),
    ],
)
def test_options_that_are_no_good_are_refused(options: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        javascript.Client(**options)


def test_more_threads_than_processors_start_without_a_word_of_warning() -> None:
    records: list[javascript.LogRecord] = []
    with javascript.Client(threads=20, on_log=records.append) as client:
        assert client.run("() => 1") == 1
    assert records == []


def test_functions_have_node_and_may_import(client: javascript.Client) -> None:
    query = "async (m, p) => (await import('node:path')).basename(p)"
    assert client.run(query, "/a/b.txt") == "b.txt"
    wait = "async (m, p) => { await new Promise((f) => setTimeout(f, 1)); return p }"
    assert client.run(wait, 1) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("process.exit(3)", "the runtime left with exit code 3"),
        ("const a = []; for (;;) a.push(new Array(1e6).fill(1))", "out of memory"),
    ],
)
def test_code_that_takes_its_runtime_along_fails_alone(body: str, error: str) -> None:
    with javascript.Client(threads=2, memory_limit_mib=64) as client:
        pid = client.process.pid
        both = threading.Barrier(2)
        beside: list[Any] = []

        def meet(message: Any) -> Any:
            both.wait(30)
            return message

        query = "() => JSockD.sendMessage(5)"
        thread = threading.Thread(target=lambda: beside.append(client.run(query, None, meet)))
        thread.start()
        both.wait(30)
        with pytest.raises(javascript.JavaScriptError, match=error):
            client.run(f"() => {{ {body} }}")
        thread.join(30)
        assert beside == [5]
        assert client.run("() => 1") == 1
        assert client.process.pid == pid


def test_what_a_command_leaves_behind_fails_alone_and_is_logged() -> None:
    records: list[javascript.LogRecord] = []
    with javascript.Client(threads=1, on_log=records.append) as client:
        client.run("() => { setTimeout(() => { throw new Error('stray') }) ; globalThis.x = 1 }")
        client.run(
            "async () => { Promise.reject(new Error('lost')); await new Promise(setImmediate) }"
        )
        assert client.run("() => globalThis.x") == 1
    texts = {(record.source, record.level, record.message.split("\n")[0]) for record in records}
    assert texts == {
        ("uncaught", "error", "Error: stray"),
        ("uncaught", "error", "Error: lost"),
    }


@pytest.mark.parametrize(
    "thrown",
    [
        "'text'",
        "null",
        "undefined",
        "Symbol('s')",
        "{ code: 1 }",
        "new Proxy({}, { get() { throw 1 }, getPrototypeOf() { throw 2 } })",
        "Object.defineProperty(new Error('e'), 'message', { get() { throw 3 } })",
        "Object.defineProperty(new Error('e'), 'stack', { get() { throw 4 } })",
    ],
)
def test_whatever_is_thrown_is_an_error(client: javascript.Client, thrown: str) -> None:
    with pytest.raises(javascript.JavaScriptError) as caught:
        client.run(f"() => {{ throw {thrown} }}")
    assert caught.value.kind == "threw"
    assert client.run("() => 1") == 1


def test_errors_can_be_pickled(client: javascript.Client) -> None:
    with pytest.raises(javascript.JavaScriptError) as caught:
        client.run("() => { throw new TypeError('no') }")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (javascript.JavaScriptError, "TypeError: no")
    assert again.trace == caught.value.trace
    assert again.trace[0].function == "<anonymous>"


def test_what_cannot_be_carried_is_a_type_error_that_says_where(client: javascript.Client) -> None:
    circular: list[Any] = []
    circular.append(circular)
    for value, where in (({"a": [object()]}, r"\$\.a\[0\]"), (circular, "within itself")):
        with pytest.raises(TypeError, match=where):
            client.run("(m, p) => p", value)


def test_a_handler_may_run_commands_as_long_as_a_thread_is_left(
    client: javascript.Client,
) -> None:
    query = "(m, p) => JSockD.sendMessage(p)"
    with pytest.raises(javascript.NodeError, match="raise threads"):
        client.run(query, 1, lambda _: client.run("() => 1"))
    with javascript.Client(threads=2, message_timeout=3) as two:
        assert two.run(query, 1, lambda n: two.run("(m, p) => p + 1", n)) == 2
        # Each waits for the thread of the other.
        both, ends = threading.Barrier(2), list[BaseException]()

        def nest(message: Any) -> Any:
            both.wait(30)
            return two.run("() => 1")

        def run() -> None:
            try:
                two.run(query, 1, nest)
            except (javascript.NodeError, javascript.JavaScriptError) as error:
                ends.append(error)

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert 1 <= len(ends) <= 2
        assert two.run("() => 1") == 1


def test_a_module_may_be_typescript(tmp_path: Path) -> None:
    (tmp_path / "module.ts").write_text("export const twice = (n: number): number => 2 * n\n")
    with javascript.Client(threads=1, module=tmp_path / "module.ts") as client:
        assert client.run("(m, p) => m.twice(p)", 4) == 8


def test_what_is_too_large_fails_alone() -> None:
    with javascript.Client(threads=1, max_frame_size=100_000) as client:
        with pytest.raises(javascript.NodeError, match="raise max_frame_size"):
            client.run("(m, p) => p", "x" * 100_000)
        with pytest.raises(javascript.JavaScriptError, match="the value is larger"):
            client.run("(m, p) => 'x'.repeat(p)", 100_000)
        with pytest.raises(javascript.JavaScriptError, match="the message is larger"):
            client.run("(m, p) => JSockD.sendMessage('x'.repeat(p))", 100_000, lambda m: m)
        with pytest.raises(javascript.NodeError, match="an answer of"):
            client.run("(m, p) => JSockD.sendMessage(1)", None, lambda m: "x" * 100_000)
        assert client.run("(m, p) => p", "x" * 90_000) == "x" * 90_000


def test_a_client_that_was_forked_is_not_used_and_its_owner_keeps_it() -> None:
    with javascript.Client(threads=1) as client:
        child = os.fork()
        if child == 0:
            try:
                client.run("() => 1")
            except javascript.Closed:
                client._server.close()
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert client.run("() => 1") == 1


def test_a_client_that_is_forgotten_ends_with_python() -> None:
    program = (
        "from synapse import javascript\nclient = javascript.Client(threads=1)\n"
        "print(client.process.pid, client._server.connections[0]._socket.getpeername())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(_server.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=env, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    pid, path = done.stdout.decode().split()
    assert not os.path.exists(os.path.dirname(path))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_the_environment_has_what_is_added_and_not_the_token() -> None:
    with javascript.Client(threads=1, env={"ADDED": "yes"}) as client:
        assert client.run("() => process.env.ADDED") == "yes"
        assert client.run("() => process.env.SYNAPSE_JAVASCRIPT_TOKEN") is None


def test_the_working_directory_is_that_of_node_and_of_the_module(tmp_path: Path) -> None:
    (tmp_path / "module.mjs").write_text("export const here = import.meta.dirname")
    with javascript.Client(threads=1, cwd=tmp_path, module="module.mjs") as client:
        assert client.run("(m) => [m.here, process.cwd()]") == [str(tmp_path)] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")
def test_an_answer_has_the_time_that_the_server_has_for_any() -> None:
    with javascript.Client(threads=1) as client:
        pid = client.process.pid

        def answer(_message: Any) -> str:
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(1.0, os.kill, (pid, signal.SIGCONT)).start()
            return "x" * 8_000_000

        assert len(client.run("(m, p) => JSockD.sendMessage(p)", 1, answer)) == 8_000_000
        assert client.process.pid == pid
