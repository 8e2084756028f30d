"""What JSockD and its Python client do, line by line, and what is better here.

Line                                                    Test
1 value, promise, no module                             test_jsockd_1_*
2 what an exception looks like                          test_jsockd_2_*
3 texts for what is no exception; usable after          test_jsockd_3_*
4 an endless loop is interrupted                        test_jsockd_4_*
5 sendMessage blocks; internal error; wrong id          test_jsockd_5_*
6 [better] an answer that does not come                 test_jsockd_6_*
7 globals, what is there, console                       test_jsockd_7_*
8 records of several lines, the prefix                  test_jsockd_8_*
9 what ends the server, and how                         test_jsockd_9_*
10 leak guard, idle threads                             test_jsockd_10_*
11 keys, signatures, one expression                     test_jsockd_11_*
12 run, run_raw, both handlers                          test_jsockd_12_*
13 JSockDJSException                                    test_jsockd_13_*
14 what goes wrong at the start                         test_jsockd_14_*
15 directory, sockets, ids, the first idle              test_jsockd_15_*
16 close                                                test_jsockd_16_*
17 no download                                          test_jsockd_17_*
18 [better] a handler that raises                       test_jsockd_18_*
19 [better] the client's time-out frees the thread      test_jsockd_19_*
20 [better] a server that is killed                     test_jsockd_20_*
21 [better] log records, other platforms, more values   test_jsockd_21_*, test_javascript_async.py
22 typed results, restart budget, silence               test_jsockd_22_*
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from synapse import javascript
from synapse.javascript import __main__ as command_line
from synapse.javascript import _connection, _find, _logs, _server
from synapse.javascript._client import RestartBudget
from synapse.javascript.jsockd import (
    Config,
    DefaultConfig,
    JSockDClient,
    JSockDClientError,
    JSockDJSException,
    init_jsockd_client,
    init_jsockd_client_via_auto_download,
)

PATIENCE = 30.0
Init = Callable[..., JSockDClient]


def quiet(**options: Any) -> Config:
    config = DefaultConfig()
    config.Logger = None
    config.NThreads = 1
    for name, value in options.items():
        setattr(config, name, value)
    return config


@pytest.fixture(scope="module")
def client() -> Iterator[JSockDClient]:
    # Longer than 250 ms, for what is not about the limit: the machine may be busy.
    client = init_jsockd_client_via_auto_download(quiet(MaxCommandRuntimeUs=10_000_000))
    yield client
    client.close()


@pytest.fixture
def init() -> Iterator[Init]:
    clients: list[JSockDClient] = []

    def init(**options: Any) -> JSockDClient:
        clients.append(init_jsockd_client(quiet(**options)))
        return clients[-1]

    yield init
    for made in clients:
        with contextlib.suppress(JSockDClientError):
            made.close()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """A server that does what its source says; its directories are made in `tmp_path`."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fake(source: str) -> str:
        path = tmp_path / "fake.mjs"
        path.write_text(f"const {{ endpoints }} = JSON.parse(process.argv[3])\n{source}")
        return str(path)

    return fake


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def inner(client: JSockDClient) -> javascript.Client:
    return client._client


def raw_texts(client: JSockDClient, query: str, param: str = "null") -> str:
    response = client.send_raw_command(query, param)
    assert response.Exception
    return response.ResultJson


def test_jsockd_1_a_value_an_awaited_promise_and_no_module(client: JSockDClient) -> None:
    assert client.run("(m, p) => p + 1", 99) == 100
    assert client.run("async (m, p) => { await null; return p + 1 }", 99) == 100
    assert client.run("(m) => typeof m") == "undefined"


def test_jsockd_1_the_module_is_loaded_once_and_is_the_first_parameter(
    init: Init, tmp_path: Path
) -> None:
    module = tmp_path / "module.mjs"
    module.write_text("export let count = 0\nexport const next = () => ++count\n")
    client = init(BytecodeModuleFile=str(module), MaxCommandRuntimeUs=10_000_000)
    assert [client.run("(m) => m.next()") for _ in range(3)] == [1, 2, 3]


def test_jsockd_2_an_exception_has_a_message_a_trace_and_texts(client: JSockDClient) -> None:
    with pytest.raises(JSockDJSException) as caught:
        client.run("(m, p) => { throw new Error('boom') }")
    result = json.loads(caught.value.result_json)
    assert result["errorMessage"] == "Error: boom"
    assert result["trace"][0] == {
        "functionName": "<anonymous>",
        "source": "<command>",
        "line": "1",
        "column": "19",
    }
    assert result["raw"].startswith("Error: boom\n    at ")
    assert result["pretty"].startswith("Error: boom\n    at ")


MAPPED = """
export function fail() { throw new RangeError("too far") }
//# sourceMappingURL=data:application/json;base64,"""


def source_map(source: str) -> str:
    # Line 2 of the module, from its first column on, is line 7, column 3 of the source.
    return json.dumps({"version": 3, "sources": [source], "names": [], "mappings": ";AAME"})


@pytest.mark.parametrize("is_given", [False, True])
def test_jsockd_2_stacks_are_mapped_by_source_maps(
    init: Init, tmp_path: Path, is_given: bool
) -> None:
    module, separate = tmp_path / "module.mjs", tmp_path / "module.mjs.map"
    source = source_map("original.ts")
    separate.write_text(source)
    plain = MAPPED.partition("//#")[0]
    module.write_text(plain if is_given else MAPPED + base64.b64encode(source.encode()).decode())
    client = init(
        BytecodeModuleFile=str(module),
        SourceMap=str(separate) if is_given else "",
        MaxCommandRuntimeUs=10_000_000,
    )
    result = json.loads(raw_texts(client, "(m) => m.fail()"))
    mapped = result["trace"][0]["mapped"]
    assert (mapped["line"], mapped["functionName"]) == ("7", "fail")
    assert mapped["source"].endswith("original.ts")
    assert result["trace"][0]["line"] == "2"
    assert "original.ts:7:" in result["pretty"]
    assert "module.mjs:2:" in result["raw"]


@pytest.mark.parametrize(
    ("query", "param", "text"),
    [
        ("(m, p) => {", "null", "error compiling command"),
        ("(m, p) => p", "{bad", "JSON input parse error"),
        ("(m, p) => undefined", "null", "unserializable return value"),
        ("(m, p) => () => 1", "null", "unserializable return value"),
        (
            "() => { const a = []; a.push(a); return a }",
            "null",
            "error attempting to JSON serialize return value",
        ),
        ("(m, p) => p.length", json.dumps("x" * (1024 * 1024)), "jsockd command was too long"),
    ],
)
def test_jsockd_3_what_is_no_exception_has_a_text_and_the_connection_stays_usable(
    client: JSockDClient, query: str, param: str, text: str
) -> None:
    assert json.loads(raw_texts(client, query, param)) == text
    assert client.run("(m, p) => p", 1) == 1


def test_jsockd_3_values_of_five_megabytes_are_fine(client: JSockDClient) -> None:
    assert client.run("(m, p) => 'x'.repeat(p)", 5_000_000) == "x" * 5_000_000


@pytest.mark.parametrize(("limit", "seconds"), [(0, 0.25), (50_000, 0.05)])
def test_jsockd_4_an_endless_loop_is_interrupted_and_the_next_command_works(
    init: Init, limit: int, seconds: float
) -> None:
    client = init(MaxCommandRuntimeUs=limit)
    begun = time.monotonic()
    result = json.loads(raw_texts(client, "() => { for (;;); }"))
    assert seconds <= time.monotonic() - begun < seconds + 2
    assert result["errorMessage"] == "InternalError: interrupted"
    # Its runtime is another one, whose start does not count.
    assert client.run("(m, p) => p + 1", 1) == 2


@pytest.mark.parametrize(
    "body",
    [
        "while (true) await null",
        "await new Promise(() => {})",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
        "try { for (;;); } finally { for (;;); }",
        "JSON.stringify({ toJSON() { for (;;); } })",
    ],
)
def test_jsockd_4_whatever_does_not_end_is_interrupted(init: Init, body: str) -> None:
    client = init(MaxCommandRuntimeUs=100_000)
    result = json.loads(raw_texts(client, f"async () => {{ {body} }}"))
    assert result["errorMessage"] == "InternalError: interrupted"


def test_jsockd_5_send_message_blocks_and_returns_the_answer_twice(client: JSockDClient) -> None:
    query = "(m, p) => [JSockD.sendMessage(p), JSockD.sendMessage({ a: [1] }, null, 2)]"
    got: list[str] = []

    def answer(message: str) -> str:
        got.append(message)
        return json.dumps(len(got))

    assert json.loads(client.run_raw(query, '"first"', answer)) == [1, 2]
    assert got == ['"first"', '{\n  "a": [\n    1\n  ]\n}']


def test_jsockd_5_an_internal_error_is_an_exception_of_the_command(client: JSockDClient) -> None:
    seen = "(m, p) => { try { JSockD.sendMessage(1) } catch (e) { return String(e) } }"

    def fail(message: Any) -> Any:
        raise KeyError(message)

    assert client.run(seen, None, fail).endswith(
        "Client indicated internal error in its message handler"
    )
    assert client.run("(m, p) => p", 1) == 1


def test_jsockd_5_an_answer_with_another_id_is_an_exception_of_the_command(
    client: JSockDClient,
) -> None:
    connection = inner(client)._server.connections[0]

    def answer_another(message: Any) -> Any:
        connection.send(_connection.ANSWER, 999_999, b"1", {"number": 1})

    with pytest.raises(JSockDJSException) as caught:
        client.run("(m, p) => JSockD.sendMessage(1)", None, answer_another)
    assert json.loads(caught.value.result_json)["errorMessage"].endswith(
        "Internal protocol error (no command id or mismatched command id)"
    )
    assert client.run("(m, p) => p", 1) == 1


def test_jsockd_5_a_message_without_a_command_is_an_exception(client: JSockDClient) -> None:
    client.run(
        "() => { setTimeout(() => { try { JSockD.sendMessage(1) }"
        " catch (e) { globalThis.said = e.message } }); return 1 }"
    )
    wait_until(lambda: client.run("() => globalThis.said ?? null") is not None)
    assert "no command id" in client.run("() => globalThis.said")


def test_jsockd_6_the_wait_for_an_answer_is_bounded() -> None:
    with javascript.Client(threads=1, message_timeout=0.1) as client:
        is_over = threading.Event()

        def answer_late(message: Any) -> Any:
            is_over.wait(PATIENCE)
            return "late"

        threading.Timer(0.5, is_over.set).start()
        with pytest.raises(javascript.JavaScriptError, match="no answer to a message within 100"):
            client.run("() => JSockD.sendMessage(1)", None, answer_late)
        # The late answer is nobody else's.
        assert client.run("() => JSockD.sendMessage(1)", None, lambda _: "mine") == "mine"


def test_jsockd_6_the_limit_does_not_count_while_the_client_has_the_word(init: Init) -> None:
    client = init(MaxCommandRuntimeUs=200_000)

    def answer(message: Any) -> Any:
        time.sleep(0.3)
        return message

    assert client.run("() => JSockD.sendMessage(1)", None, answer) == 1
    with pytest.raises(JSockDJSException) as caught:
        client.run("() => { JSockD.sendMessage(1); for (;;); }", None, answer)
    assert "interrupted" in caught.value.result_json


def test_jsockd_7_globals_persist_on_a_thread_and_go_with_its_runtime(
    client: JSockDClient,
) -> None:
    assert client.run("(m, p) => { globalThis.kept = p; return p }", 5) == 5
    assert client.run("() => globalThis.kept") == 5
    inner(client).reset()
    assert client.run("() => typeof globalThis.kept") == "undefined"


def test_jsockd_7_text_coders_and_web_streams_are_there(client: JSockDClient) -> None:
    query = """async (m, p) => {
        const bytes = new TextEncoder().encode(p)
        const stream = new ReadableStream({ start(c) { c.enqueue(bytes); c.close() } })
        let text = ""
        for await (const chunk of stream) text += new TextDecoder().decode(chunk)
        return text
    }"""
    assert client.run(query, "häh") == "häh"


def logged(init: Init, query: str, count: int, **options: Any) -> list[tuple[Any, str, str]]:
    records: list[tuple[Any, str, str]] = []
    client = init(Logger=lambda *record: records.append(record), **options)
    client.run(query)
    wait_until(lambda: len(records) >= count)
    return records


def test_jsockd_7_the_console_is_logged(init: Init) -> None:
    query = "() => { console.log('one', { two: 2 }); console.error('three'); return 1 }"
    records = logged(init, query, 2)
    assert [record[1:] for record in records] == [
        ("INFO", "<console.log>: one { two: 2 }"),
        ("ERROR", "<console.error>: three"),
    ]


def test_jsockd_8_a_record_has_its_time_its_level_and_all_its_lines(init: Init) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    records = logged(init, "() => { console.warn('a\\nb'); return 1 }", 1)
    when, level, text = records[0]
    assert before <= when <= datetime.now(timezone.utc) + timedelta(seconds=1)
    assert (level, text) == ("WARN", "<console.warn>: a\nb")


def test_jsockd_8_the_prefix_is_before_the_texts_of_the_server_alone(init: Init) -> None:
    query = "() => { console.log('mine'); setTimeout(() => process.exit(3)); return 1 }"
    records = logged(init, query, 2, LogPrefix="app: ")
    assert [record[1:] for record in records] == [
        ("INFO", "<console.log>: mine"),
        ("ERROR", "app: Error: the runtime left with exit code 3"),
    ]


def test_jsockd_9_a_closed_socket_ends_the_server_with_0_and_removes_its_sockets(
    init: Init,
) -> None:
    client = init(NThreads=2)
    process, connections = client.process, inner(client)._server.connections
    directory = socket_directory(client)
    assert len(os.listdir(directory)) == 2
    connections[1].close()
    assert process.wait(PATIENCE) == 0
    assert not os.path.exists(directory)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_jsockd_9_sigterm_ends_the_server_with_0_and_sigint_with_1(
    init: Init, number: signal.Signals, code: int
) -> None:
    client = init()
    directory = socket_directory(client)
    client.process.send_signal(number)
    assert client.process.wait(PATIENCE) == code
    assert not os.path.exists(directory)


def test_jsockd_9_the_server_ends_with_the_program_that_started_it() -> None:
    program = (
        "import os, signal\nfrom synapse import javascript\n"
        "client = javascript.Client(threads=1)\n"
        "address = client._server.connections[0]._socket.getpeername()\n"
        "print(client.process.pid, address, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(_server.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, timeout=PATIENCE
    )
    pid, address = done.stdout.decode().split()
    wait_until(lambda: is_gone(int(pid)))
    assert not os.path.exists(os.path.dirname(address))


def test_jsockd_10_a_runtime_that_keeps_more_and_more_is_replaced_and_no_command_is_lost(
    init: Init,
) -> None:
    client = init(MaxCommandRuntimeUs=10_000_000)
    query = "(m, p) => { (globalThis.kept ??= []).push(new Array(300).fill(p)); return p }"
    for number in range(5000):
        assert client.run(query, number) == number
        if number % 100 == 0 and inner(client).stats()[0].replaced > 0:
            break
    else:
        pytest.fail("it was not replaced")
    assert number > 400


def test_jsockd_10_a_runtime_that_keeps_nothing_stays(init: Init) -> None:
    client = init(MaxCommandRuntimeUs=10_000_000)
    for number in range(700):
        client.run("(m, p) => new Array(300).fill(p).length", number)
    assert inner(client).stats()[0].replaced == 0


def test_jsockd_10_idle_threads_but_the_first_give_up_their_runtime(init: Init) -> None:
    client = init(NThreads=2, MaxIdleTimeUs=50_000, MaxCommandRuntimeUs=10_000_000)
    both = threading.Barrier(2)

    def meet(message: Any) -> Any:
        both.wait(PATIENCE)

    query = "() => JSockD.sendMessage(1)"
    threads = [threading.Thread(target=client.run, args=(query, None, meet)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    wait_until(lambda: [s.running for s in inner(client).stats()] == [True, False])
    threads = [threading.Thread(target=client.run, args=(query, None, meet)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert [s.commands for s in inner(client).stats()] == [2, 2]


def test_jsockd_10_figures_are_told_while_runtimes_come_and_go() -> None:
    with javascript.Client(threads=2, idle_timeout=0.002) as client:
        both = threading.Barrier(2)
        run = partial(client.run, "() => JSockD.sendMessage(1)", None, lambda _: both.wait(30))
        for number in range(1, 11):
            threads = [threading.Thread(target=run) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            for _ in range(10):
                assert [stats.commands for stats in client.stats()] == [number, number]


def test_jsockd_10_a_runtime_is_replaced_after_so_many_commands_without_losing_one() -> None:
    with javascript.Client(threads=1, recycle_after=10) as client:
        assert [client.run("(m, p) => p", n) for n in range(300)] == list(range(300))
        wait_until(lambda: client.stats()[0].replaced > 0)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("signed")
    module = directory / "module.mjs"
    module.write_text('import { basename } from "node:path"\nexport const base = basename\n')
    public, private = javascript.generate_keys(directory / "key")
    other, _ = javascript.generate_keys(directory / "other")
    javascript.sign(module, directory / "signed.mjs", private)
    return {
        "module": module,
        "signed": directory / "signed.mjs",
        "public": public,
        "private": private,
        "other": other,
    }


def test_jsockd_11_keys_are_hexadecimal_and_the_private_one_is_private(
    signed: dict[str, Path],
) -> None:
    assert len(bytes.fromhex(signed["public"].read_text())) == 32
    assert len(bytes.fromhex(signed["private"].read_text())) == 64
    assert stat.S_IMODE(signed["private"].stat().st_mode) == 0o600


def test_jsockd_11_a_signed_module_runs(init: Init, signed: dict[str, Path]) -> None:
    assert signed["signed"].stat().st_size == signed["module"].stat().st_size + 128 + 64
    client = init(
        BytecodeModuleFile=str(signed["signed"]),
        BytecodeModulePublicKey=signed["public"].read_text(),
    )
    assert client.run("(m, p) => m.base(p)", "/a/b") == "b"


def test_jsockd_11_a_signed_module_runs_from_the_bytes_that_were_verified(
    signed: dict[str, Path], tmp_path: Path
) -> None:
    file, link = tmp_path / "file.mjs", tmp_path / "link.mjs"
    file.write_bytes(signed["signed"].read_bytes())
    link.symlink_to(file)
    key = signed["public"].read_text()
    with javascript.Client(threads=2, module=link, public_key=key) as client:
        assert client.run("(m, p) => m.base(p)", "/a/b") == "b"
        file.write_text("export const base = () => 'somebody else'\n")
        client.reset()
        assert client.run("(m, p) => m.base(p)", "/a/b") == "b"


def test_jsockd_11_a_private_key_is_private_where_there_was_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.privkey").touch(0o644)
    _, private = javascript.generate_keys(tmp_path / "key")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600


def damaged(file: bytes, how: str) -> bytes:
    if how == "changed":
        return b" " + file[1:]
    if how == "short":
        return file[:100]
    if how == "version":
        return file[:-192] + file[-192:].replace(b"module 1", b"module 2")
    return file


@pytest.mark.parametrize(
    ("how", "key", "why"),
    [
        ("changed", "public", "does not fit"),
        ("short", "public", "too short"),
        ("version", "public", "another version"),
        ("as it is", "other", "does not fit"),
        ("as it is", "", "give the public key"),
        ("unsigned", "public", "not signed"),
        ("as it is", "no key", "not 32 bytes in hexadecimal"),
    ],
)
def test_jsockd_11_what_the_signer_did_not_sign_does_not_start(
    init: Init, signed: dict[str, Path], tmp_path: Path, how: str, key: str, why: str
) -> None:
    module = tmp_path / "module.mjs"
    original = signed["module"].read_bytes() + b"//" + b" " * 200
    module.write_bytes(
        original if how == "unsigned" else damaged(signed["signed"].read_bytes(), how)
    )
    text = signed[key].read_text() if key in signed else key
    with pytest.raises(JSockDClientError, match=why):
        init(BytecodeModuleFile=str(module), BytecodeModulePublicKey=text)


def test_jsockd_11_a_signed_module_brings_all_its_code(
    init: Init, signed: dict[str, Path], tmp_path: Path
) -> None:
    module, out = tmp_path / "main.mjs", tmp_path / "out.mjs"
    (tmp_path / "other.mjs").write_text("export const value = 1\n")
    module.write_text('export { value } from "./other.mjs"\n')
    javascript.sign(module, out, signed["private"])
    with pytest.raises(JSockDClientError, match="not signed: bundle it"):
        init(
            BytecodeModuleFile=str(out),
            BytecodeModulePublicKey=signed["public"].read_text(),
        )


def test_jsockd_11_the_command_line_makes_keys_signs_and_evaluates(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    signed: dict[str, Path],
) -> None:
    prefix, out = str(tmp_path / "key"), str(tmp_path / "out.mjs")
    assert command_line.main(["keys", prefix]) == 0
    assert (
        command_line.main(["sign", str(signed["module"]), out, "--key", f"{prefix}.privkey"]) == 0
    )
    assert Path(out).stat().st_size == signed["signed"].stat().st_size
    assert command_line.main(["eval", "await Promise.resolve(6 * 7)"]) == 0
    assert capsys.readouterr().out == "42\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1,\n 2]\n"))
    assert command_line.main(["eval", "-"]) == 0
    assert capsys.readouterr().out == "[1, 2]\n"
    assert command_line.main(["eval", "nothing.here"]) == 1
    assert "ReferenceError: nothing is not defined" in capsys.readouterr().err
    assert command_line.main(["sign", "nothing.mjs", out, "--key", f"{prefix}.privkey"]) == 1
    assert "nothing.mjs" in capsys.readouterr().err


def test_jsockd_12_run_and_run_raw(client: JSockDClient) -> None:
    assert client.run("(_, n) => n + 1", 41) == 42
    assert client.run_raw("(_, n) => n + 1", "41").strip() == "42"
    assert client.run("(_, name) => 'Hello ' + name", "World") == "Hello World"
    assert client.send_command("(m, p) => p+1", 99).Result == 100
    response = client.send_command("(m, p) => p.foo()", 99)
    assert response.Exception and "errorMessage" in response.RawResponse.ResultJson
    assert client.send_raw_command("(m, p) => p+1", "99").ResultJson == "100"


FOO_BAR = "(m, p) => { JSockD.sendMessage('foo'); return JSockD.sendMessage('bar'); }"


def test_jsockd_12_the_config_has_the_defaults_of_the_client(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = DefaultConfig()
    assert config.Logger is not None
    config.Logger(None, "INFO", "started")
    assert capsys.readouterr().out == "[jsockd] started\n"
    config.Logger = None
    assert config == Config(
        NThreads=os.cpu_count() or 1,
        BytecodeModuleFile="",
        BytecodeModulePublicKey="",
        SourceMap="",
        MaxIdleTimeUs=0,
        MaxCommandRuntimeUs=0,
        TimeoutUs=15_000_000,
        SkipJSockDVersionCheck=False,
        Logger=None,
        MaxRestartsPerMinute=1,
        LogPrefix="",
    )


def test_jsockd_12_messages_arrive_in_order_typed_and_raw(client: JSockDClient) -> None:
    got: list[Any] = []

    def on_message(message: Any) -> Any:
        got.append(message)
        return f"ack-{len(got)}"

    assert client.run(FOO_BAR, 99, message_handler=on_message) == "ack-2"
    assert got == ["foo", "bar"]
    got.clear()
    raw = client.run_raw(FOO_BAR, "99", message_handler=lambda m: json.dumps(on_message(m)))
    assert (raw, got) == ('"ack-2"', ['"foo"', '"bar"'])
    got.clear()
    response = client.send_command_with_message_handler(FOO_BAR, 99, on_message)
    assert response.Result == "ack-2"


def test_jsockd_13_an_exception_has_its_result_json_and_the_client_stays_usable(
    client: JSockDClient,
) -> None:
    with pytest.raises(JSockDJSException) as caught:
        client.run("(m, p) => p.foo()", 99)
    assert json.loads(caught.value.result_json)["errorMessage"].startswith("TypeError: ")
    assert isinstance(caught.value, JSockDClientError)
    assert client.run("(m, p) => p", 1) == 1


def test_jsockd_14_no_threads_is_an_error_that_names_them() -> None:
    with pytest.raises(JSockDClientError, match="NThreads"):
        init_jsockd_client(quiet(NThreads=0))


READY = "process.stdout.write({line!r} + '\\n'); setInterval(() => {{}}, 1000)"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (READY.format(line="READY soon 1"), "malformed READY line: 'READY soon 1'"),
        (READY.format(line="READY 1"), "malformed READY line"),
        (READY.format(line="hello"), "malformed READY line: 'hello'"),
        (READY.format(line=f"READY 2 {_server.VERSION}"), r"ready count \(2\) exceeds .* \(1\)"),
        (
            READY.format(line="READY 1 9.9.9"),
            f"version mismatch: client '{_server.VERSION}', server '9.9.9'",
        ),
        ("console.error('no such thing'); process.exit(3)", "(?s)stdout closed.*no such thing"),
        ("setInterval(() => {}, 1000)", r"no READY line within 1\.0 s"),
        (READY.format(line=f"READY 1 {_server.VERSION}"), r"dial .*jsd_0\.sock"),
    ],
)
def test_jsockd_14_what_does_not_start_is_an_error_and_leaves_nothing(
    fake: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    error: str,
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    spawn = _server._spawn

    def note(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(spawn(*arguments))
        return started[-1]

    monkeypatch.setattr(_server, "_spawn", note)
    timeout = 1_000_000 if "within" in error else 15_000_000
    with pytest.raises(JSockDClientError, match=error):
        init_jsockd_client(quiet(TimeoutUs=timeout), fake(source))
    assert started[0].returncode is not None
    assert os.listdir(tmp_path) == ["fake.mjs"]


def test_jsockd_14_a_version_that_is_not_checked_may_be_another(
    fake: Callable[[str], str],
) -> None:
    server = fake(
        "import { createServer } from 'node:net'\n"
        "createServer((s) => s.on('close', () => process.exit(0)).resume()).listen(endpoints[0],"
        " () => process.stdout.write('READY 1 9.9.9\\n'))"
    )
    init_jsockd_client(quiet(SkipJSockDVersionCheck=True), server).close()


def socket_directory(client: JSockDClient) -> str:
    peer = inner(client)._server.connections[0]._socket.getpeername()
    return os.path.dirname(peer)


def test_jsockd_15_sockets_lie_in_a_private_directory_one_for_each_thread(init: Init) -> None:
    client = init(NThreads=3)
    directory = Path(socket_directory(client))
    assert directory.name.startswith("jsd_")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    sockets = sorted(directory.iterdir())
    assert [path.name for path in sockets] == ["jsd_0.sock", "jsd_1.sock", "jsd_2.sock"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}


def test_jsockd_15_the_first_idle_thread_is_taken_and_ids_count_from_1(
    init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = init(NThreads=3, MaxCommandRuntimeUs=10_000_000)
    ids: list[int] = []
    run = _connection.Connection.run

    def note(self: Any, id: int, command: Any) -> bytes:
        ids.append(id)
        return run(self, id, command)

    monkeypatch.setattr(_connection.Connection, "run", note)
    for number in range(4):
        client.run("(m, p) => p", number)
    nested = client.run("() => JSockD.sendMessage(1)", None, lambda _: client.run("() => 2"))
    assert nested == 2
    assert ids == [1, 2, 3, 4, 5, 6]
    assert [stats.commands for stats in inner(client).stats()] == [5, 1, 0]


def test_jsockd_16_close_ends_the_process_removes_the_directory_and_may_be_called_twice(
    init: Init,
) -> None:
    client = init()
    directory = socket_directory(client)
    client.close()
    client.close()
    assert client.process.returncode == 0
    assert not os.path.exists(directory)
    with pytest.raises(JSockDClientError, match="closed"):
        client.run("() => 1")


def test_jsockd_16_close_ends_the_commands_that_run(init: Init) -> None:
    client = init(MaxCommandRuntimeUs=60_000_000, TimeoutUs=60_000_000)
    failures: list[BaseException] = []
    is_running = threading.Event()

    def run() -> None:
        try:
            client.run(
                "() => { JSockD.sendMessage(1); for (;;); }", None, lambda _: is_running.set()
            )
        except JSockDClientError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert is_running.wait(PATIENCE)
    client.close()
    thread.join(PATIENCE)
    assert [str(error) for error in failures] == ["the client was closed"]


STUBBORN = """
import { createServer } from 'node:net'
process.on('SIGTERM', () => {})
createServer((s) => s.on('error', () => {}).resume()).listen(endpoints[0], () =>
  process.stdout.write('READY 1 VERSION\\n'))
setInterval(() => {}, 1000)
""".replace("VERSION", _server.VERSION)


def test_jsockd_16_a_server_that_ignores_sigterm_is_killed(fake: Callable[[str], str]) -> None:
    client = init_jsockd_client(quiet(), fake(STUBBORN))
    inner(client)._server._end.detach()
    connections, directory = inner(client)._server.connections, socket_directory(client)
    _server._end(os.getpid(), client.process, connections, directory, 0.2)
    assert client.process.returncode == -signal.SIGKILL
    assert not os.path.exists(directory)


def test_jsockd_16_close_raises_what_ended_the_client(init: Init) -> None:
    client = init(MaxRestartsPerMinute=0)
    client.process.kill()
    client.process.wait()
    with pytest.raises(JSockDClientError, match="exited unexpectedly with code -9"):
        client.run("() => 1")
    with pytest.raises(JSockDClientError, match="exited unexpectedly with code -9"):
        client.close()
    client.close()


def test_jsockd_17_nothing_is_downloaded_and_a_path_of_jsockd_is_not_used() -> None:
    for client in (
        init_jsockd_client_via_auto_download(quiet()),
        init_jsockd_client(quiet(), "/path/to/jsockd"),
    ):
        assert client.run("(_, n) => n + 1", 99) == 100
        client.close()


def test_jsockd_17_a_path_of_node_is_used(tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.symlink_to(_find.find_node(None, tmp_path))
    client = init_jsockd_client(quiet(), str(node))
    try:
        assert client.run("(m, p) => process.argv0", None) == str(node)
    finally:
        client.close()
    with pytest.raises(JSockDClientError, match="no executable file /nowhere/node"):
        init_jsockd_client(quiet(), "/nowhere/node")


def test_jsockd_17_without_node_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SYNAPSE_NODE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    server = tmp_path / "main.js"
    server.touch()
    monkeypatch.setenv("SYNAPSE_JAVASCRIPT_SERVER", str(server))
    with pytest.raises(JSockDClientError, match="npm install node"):
        init_jsockd_client(quiet())


def test_jsockd_18_a_handler_that_raises_fails_its_call_at_once_and_no_other(
    client: JSockDClient,
) -> None:
    def fail(message: Any) -> Any:
        raise LookupError("no such thing")

    begun = time.monotonic()
    with pytest.raises(JSockDClientError, match="message handler error: no such thing") as caught:
        client.run(FOO_BAR, 99, fail)
    assert time.monotonic() - begun < 5
    assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(JSockDClientError, match="message handler error"):
        client.run_raw(FOO_BAR, "99", lambda _: "no json")
    with pytest.raises(JSockDClientError, match="no message handler"):
        client.run(FOO_BAR, 99)
    assert client.run("(m, p) => p", 1) == 1


def test_jsockd_18_the_native_client_raises_what_the_handler_raised() -> None:
    def fail(message: Any) -> Any:
        raise LookupError("no such thing")

    with javascript.Client(threads=1) as client:
        with pytest.raises(LookupError, match="no such thing"):
            client.run(FOO_BAR, 99, fail)
        caught_there = "() => { try { JSockD.sendMessage(1) } catch { return 'caught' } }"
        assert client.run(caught_there, None, fail) == "caught"


@pytest.mark.parametrize("raised", [TimeoutError("handler"), javascript.NodeError("handler")])
def test_jsockd_18_whatever_a_handler_raises_is_the_handlers(raised: Exception) -> None:
    def fail(message: Any) -> Any:
        raise raised

    with javascript.Client(threads=1) as client:
        pid = client.process.pid
        with pytest.raises(type(raised), match="handler") as caught:
            client.run(FOO_BAR, 99, fail)
        assert caught.value is raised
        assert client.run("() => 1") == 1
        assert client.process.pid == pid


def test_jsockd_18_a_handler_that_is_interrupted_stops_its_command() -> None:
    def interrupt(message: Any) -> Any:
        raise KeyboardInterrupt

    with javascript.Client(threads=1) as client:
        with pytest.raises(KeyboardInterrupt):
            client.run("() => { JSockD.sendMessage(1); for (;;); }", None, interrupt)
        assert client.run("() => 1") == 1


def test_jsockd_19_the_time_out_of_the_client_frees_the_thread(init: Init) -> None:
    client = init(TimeoutUs=15_000_000, MaxCommandRuntimeUs=60_000_000)
    client._timeout = 0.3
    begun = time.monotonic()
    with pytest.raises(JSockDClientError, match=r"no answer within 0\.3 s"):
        client.run("() => { for (;;); }")
    assert time.monotonic() - begun < 5
    client._timeout = 15
    assert client.run("(m, p) => p", 1) == 1


def test_jsockd_20_a_killed_server_fails_the_calls_that_run_at_once_and_is_replaced(
    init: Init,
) -> None:
    client = init(MaxCommandRuntimeUs=60_000_000, TimeoutUs=60_000_000)
    first = client.process

    def kill(message: Any) -> Any:
        first.kill()

    begun = time.monotonic()
    with pytest.raises(JSockDClientError, match="exited unexpectedly with code -9"):
        client.run("() => { JSockD.sendMessage(1); for (;;); }", None, kill)
    assert time.monotonic() - begun < 10
    assert client.run("(m, p) => p", 1) == 1
    assert client.process.pid != first.pid


def test_jsockd_20_a_server_that_was_killed_meanwhile_is_replaced_unseen(init: Init) -> None:
    client = init(MaxCommandRuntimeUs=10_000_000)
    directory = socket_directory(client)
    client.process.kill()
    client.process.wait()
    assert client.run("(m, p) => p", 1) == 1
    assert not os.path.exists(directory)


def test_jsockd_21_records_after_the_first_have_nothing_put_before_them(init: Init) -> None:
    query = "() => { for (const t of ['a', 'b\\nc', 'd']) console.log(t); return 1 }"
    records = logged(init, query, 3)
    assert [text for _, _, text in records] == [
        "<console.log>: a",
        "<console.log>: b\nc",
        "<console.log>: d",
    ]


def test_jsockd_21_output_that_is_no_record_is_logged_too(init: Init) -> None:
    query = "() => { process.stdout.write('out'); process.stderr.write('err'); return 1 }"
    records = logged(init, query, 2)
    assert {text for _, _, text in records} == {"out", "err"}


def test_jsockd_21_a_logger_that_raises_does_not_stop_the_server(init: Init) -> None:
    def fail(*record: Any) -> None:
        raise RuntimeError

    client = init(Logger=fail, MaxCommandRuntimeUs=10_000_000)
    # More than a pipe holds: Node would wait for a reader.
    query = "() => { for (let i = 0; i < 200; i++) console.log('x'.repeat(1000)); return 1 }"
    assert client.run(query) == 1
    assert client.run("() => 2") == 2


def test_jsockd_21_where_there_are_no_unix_sockets_the_loopback_interface_is_used() -> None:
    with javascript.Client(threads=2, transport="tcp") as client:
        peers = [connection._socket.getpeername() for connection in client._server.connections]
        assert [host for host, _ in peers] == ["127.0.0.1"] * 2
        assert client.run("(m, p) => p", "tcp") == "tcp"
        # Without the token, a connection is closed and nothing else happens.
        with socket.create_connection(peers[0]) as stranger:
            stranger.sendall(_connection.make_frame(_connection.HELLO, 0, b"guess"))
            stranger.settimeout(PATIENCE)
            assert stranger.recv(1) == b""
        assert client.run("(m, p) => p", "still") == "still"


VALUES: list[Any] = [
    b"\x00\xff",
    2**53,
    -(2**60),
    float("inf"),
    datetime(2024, 2, 3, 4, 5, 6, 789000, tzinfo=timezone.utc),
    {"nested": [b"bytes", {"$synapse": "bytes", "value": 1}]},
    0.1 + 0.2,
    12345678901234567.0,
    "häh \U0001f40d \x00",
    {"__proto__": 1},
]


@pytest.mark.parametrize("value", VALUES)
def test_jsockd_21_values_beyond_json_come_back_as_they_went(value: Any) -> None:
    assert _shared().run("(m, p) => p", value) == value


_CLIENTS: list[javascript.Client] = []


def _shared() -> javascript.Client:
    if not _CLIENTS:
        _CLIENTS.append(javascript.Client(threads=1))
    return _CLIENTS[0]


@pytest.fixture(scope="module", autouse=True)
def close_shared() -> Iterator[None]:
    yield
    while _CLIENTS:
        _CLIENTS.pop().close()


def test_jsockd_21_values_beyond_json_have_their_types_in_javascript() -> None:
    types = "(m, p) => p.map((v) => typeof v === 'object' ? v.constructor.name : typeof v)"
    values = [b"x", 2**60, datetime.now(timezone.utc), float("nan"), 1]
    assert _shared().run(types, values) == ["Uint8Array", "bigint", "Date", "number", "number"]
    made = "() => [new Map([[1, new Set([2])]]), 3n, new Uint16Array([1]), -Infinity, undefined]"
    assert _shared().run(made) == [{1: [2]}, 3, b"\x01\x00", float("-inf"), None]
    assert _shared().run("() => {}") is None


@dataclass
class Point:
    x: int
    y: float


def test_jsockd_22_a_value_is_checked_and_converted_to_a_type() -> None:
    point = _shared().run("(m, p) => ({ x: p.x, y: 1.5 })", Point(1, 0), returns=Point)
    assert point == Point(1, 1.5)
    assert _shared().run("() => [1, 2]", returns=list[int]) == [1, 2]
    with pytest.raises(TypeError, match=r"\$\.x"):
        _shared().run("() => ({ x: 'one', y: 2 })", returns=Point)


def test_jsockd_22_restarts_are_granted_by_the_minute() -> None:
    now = [1000.0]
    budget = RestartBudget(2, lambda: now[0])
    assert [budget.take() for _ in range(3)] == [True, True, False]
    now[0] += 60
    assert [budget.take() for _ in range(3)] == [True, True, False]
    # What was not used is not saved up.
    now[0] += 3600
    assert [budget.take() for _ in range(3)] == [True, True, False]
    assert RestartBudget(0).take() is False


def test_jsockd_22_a_server_that_ends_too_often_is_not_restarted(init: Init) -> None:
    client = init(MaxRestartsPerMinute=1, MaxCommandRuntimeUs=10_000_000)
    client.process.kill()
    client.process.wait()
    assert client.run("() => 1") == 1
    client.process.kill()
    client.process.wait()
    for _ in range(2):
        with pytest.raises(JSockDClientError, match="max_restarts_per_minute is 1"):
            client.run("() => 1")


def test_jsockd_22_a_server_that_is_silent_is_replaced_within_ten_times_the_limit() -> None:
    with javascript.Client(threads=1, timeout=0.25) as client:
        stopped = client.process
        stopped.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(javascript.NodeUnresponsive, match=r"not answered for 2\.5 s"):
            client.run("() => 1")
        assert time.monotonic() - begun < 8
        assert stopped.wait(PATIENCE) == -signal.SIGKILL
        assert client.run("() => 1", timeout=10) == 1
        assert client.process.pid != stopped.pid


def test_records_go_to_logging_by_default(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", "synapse.javascript"):
        _logs.to_logging(_logs.LogRecord(None, "warn", "server", "careful 100%"))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [("WARNING", "careful 100%")]
