"""Scripts of the protocol `json-lines`: a call a line, partial results, a reply.

The numbers are the lines of what Bindings and ChatModel over python-shell do.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wire import (
    CANCEL,
    DIE,
    FAIL,
    GO_AWAY,
    INTERRUPTED,
    PROGRESS,
    RELEASE,
    SUCCESS,
    Got,
    Worker,
    frame,
    write,
)

# A router of that design, around a class `Controller`.
ROUTER = """
import json, os, sys, threading, time

class Base:
    def setProperty(self, params): setattr(self, params["name"], params["value"])
    def getProperty(self, params): return getattr(self, params["name"])
    def send(self, data): print("__STREAM__" + json.dumps(data), flush=True)

def handle(controller, message):
    method = getattr(controller, message["method"], None)
    if method is None:
        return {"error": "Unknown method: " + message["method"]}
    try:
        return {"result": method(message["params"])}
    except Exception as error:
        return {"error": str(error)}

def run(controller):
    for line in sys.stdin:
        reply = handle(controller, json.loads(line))
        try:
            text = json.dumps(reply)
        except TypeError as error:
            text = json.dumps({"error": str(error)})
        print(text, flush=True)
    with open("end", "a") as file:
        file.write("ended")
"""

CHAT = """
class Controller(Base):
    counter = 0

    def increment(self, params):
        self.counter += params.get("by", 1)
        return {"counter": self.counter}

    def echo(self, params): return params

    def stream(self, params):
        for part in range(params["parts"]):
            self.send([params["name"], part])
        return params["name"]

    def slow(self, params):
        time.sleep(params["seconds"])
        return "slow"

    def later(self, params):
        def late():
            time.sleep(0.05)
            self.send("late")
            print('{"result": "late"}', flush=True)
        threading.Thread(target=late).start()
        return "at once"

    def fail(self, params): raise ValueError("no")

    def unfit(self, params): return {1}

    def big(self, params): return 1 << 70

    def big_part(self, params):
        self.send(1 << 70)
        self.send(1)

    def pieces(self, params):
        json.dump({"result": {"a": [1, {"b": 2}]}}, sys.stdout)
        sys.stdout.write(chr(10))

    def raw(self, params):
        line = json.dumps({"result": chr(233)}, ensure_ascii=False)
        sys.stdout.buffer.write(line.encode() + bytes([10]))

    def say(self, params):
        exec(params["code"], {**globals(), "params": params})
        return "said"

    def exit(self, params): sys.exit(4)

    def _private(self, params): return "private"

run(Controller())
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def run(source: str = CHAT, **options: Any) -> Worker:
        write(tmp_path, ROUTER + textwrap.dedent(source), "index.py")
        worker = Worker(tmp_path, "index.py", protocol="json-lines", **options)
        workers.append(worker)
        worker.welcome()
        return worker

    yield run
    for worker in workers:
        worker.close()


@pytest.fixture
def chat(run: Callable[..., Worker]) -> Worker:
    return run()


def with_sent(worker: Worker, method: str, value: Any, **meta: Any) -> tuple[list[Any], Got]:
    worker.request(method, value, progress=True, **meta)
    sent = []
    while (got := worker.receive()).kind == PROGRESS:
        sent.append(got.payload)
    return sent, got


def open_it(worker: Worker, **properties: Any) -> int:
    handle: int = worker.value("Controller", properties, hold=True)["handle"]
    return handle


def logged(worker: Worker) -> list[str]:
    worker.ping()
    return [each["message"] for each in worker.logs]


def test_1_a_controller_has_its_properties_before_later_calls(chat: Worker) -> None:
    it = open_it(chat, model="something", counter=5)
    assert chat.value("getProperty", {"name": "model"}, target=it) == "something"
    assert chat.value("increment", {}, target=it) == {"counter": 6}


def test_2_properties_are_set_and_read(chat: Worker) -> None:
    assert chat.value("setProperty", {"name": "tokenizer", "value": 123}) is None
    assert chat.value("getProperty", {"name": "tokenizer"}) == 123


def test_3_any_name_is_a_method_and_state_persists(chat: Worker) -> None:
    assert chat.value("increment", {"by": 5}) == {"counter": 5}
    assert chat.value("increment", {"by": 5}) == {"counter": 10}
    value = {"text": "é\u2028\n", "list": [None, True, 1.5, -3], "map": {}}
    assert chat.value("echo", value) == value


def test_5_calls_are_answered_in_their_order(chat: Worker) -> None:
    ids = [chat.request("echo", index) for index in range(50)]
    got = [chat.receive() for _ in ids]
    assert [(each.id, each.payload) for each in got] == list(zip(ids, range(50), strict=True))


def test_5_a_call_is_sent_when_the_one_before_has_its_reply(run: Callable[..., Worker]) -> None:
    worker = run(
        """
        import queue

        lines = queue.Queue()

        def read():
            for line in sys.stdin:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read).start()
        while lines.get() is not None:
            # Long enough for the next one to come, if it did.
            time.sleep(0.05)
            print(json.dumps({"result": lines.qsize()}), flush=True)
        """
    )
    ids = [worker.request("echo", index) for index in range(4)]
    got = [worker.receive() for _ in ids]
    assert [(each.id, each.payload) for each in got] == [(id, 0) for id in ids]


def test_6_partial_results_come_in_order_before_the_result(chat: Worker) -> None:
    sent, end = with_sent(chat, "stream", {"parts": 500, "name": "a"})
    assert sent == [["a", part] for part in range(500)]
    assert (end.kind, end.payload) == (SUCCESS, "a")
    # Nobody listens.
    assert chat.value("stream", {"parts": 3, "name": "a"}) == "a"


def test_7_errors_are_failures_and_the_script_lives(chat: Worker) -> None:
    got = chat.call("nothing", {})
    assert (got.kind, got.payload) == (FAIL, "Unknown method: nothing")
    got = chat.call("fail", {})
    assert (got.kind, got.payload) == (FAIL, "no")
    assert chat.value("increment", {}) == {"counter": 1}


def test_9_what_is_no_json_is_an_error(chat: Worker) -> None:
    assert chat.call("unfit", {}).kind == FAIL
    got = chat.call("echo", b"bytes")
    assert (got.kind, got.meta["reason"]) == (DIE, "DecodeFailed")
    assert "JSON" in got.payload["issue"]
    assert chat.call("big", {}).meta["reason"] == "EncodeFailed"
    assert with_sent(chat, "big_part", {})[0] == [1]
    assert "partial result is dropped" in "".join(logged(chat))
    assert chat.value("increment", {}) == {"counter": 1}


def test_10_the_end_of_the_host_is_the_end_of_its_input(chat: Worker, tmp_path: Path) -> None:
    chat.value("increment", {})
    chat.request("slow", {"seconds": 0.1})
    chat.ping()
    assert chat.shut_down(5000) == 0
    assert (tmp_path / "end").read_text() == "ended"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("print('hello')", ["hello"]),
        ("print('loading', end='... ')", ["loading... "]),
        ("print('a', end=''); print('__STREAM', end='')", ["a__STREAM"]),
        ("print('{', end='')", ["{"]),
        ("print('{not json}')", ["{not json}"]),
        ("print(json.dumps({'result': 1, 'more': 2}))", ['{"result": 1, "more": 2}']),
        ("print('__STREAM__ not json')", ["__STREAM__ not json"]),
        ("print('{' + '[' * 10_000)", ["{" + "[" * 10_000]),
        ("print('two', 'lines', sep=chr(10))", ["two", "lines"]),
        ("print('x' * 30, end=''); print('{' * 3)", ["x" * 30 + "{" * 3]),
    ],
)
def test_12_what_is_no_line_of_the_protocol_is_a_record(
    chat: Worker, code: str, lines: list[str]
) -> None:
    assert chat.value("say", {"code": code}) == "said"
    assert chat.value("echo", 1) == 1
    messages = logged(chat)
    assert messages[: len(lines)] == lines or "".join(lines) == "".join(messages)
    assert {each["logger"] for each in chat.logs} == {"stdout"}


def test_12_the_log_names_the_call(chat: Worker) -> None:
    id = chat.request("say", {"code": "print('hello')"})
    chat.receive()
    chat.ping()
    assert [each["id"] for each in chat.logs] == [id]


def test_12_streams_belong_to_their_call(chat: Worker) -> None:
    ids = [chat.request("stream", {"parts": 20, "name": name}, progress=True) for name in "ab"]
    got = [chat.receive() for _ in range(42)]
    for id, name in zip(ids, "ab", strict=True):
        own = [each.payload for each in got if each.id == id]
        assert own == [*([name, part] for part in range(20)), name]


def test_12_what_comes_after_the_reply_is_of_no_call(chat: Worker) -> None:
    assert chat.value("later", {}) == "at once"
    assert with_sent(chat, "slow", {"seconds": 0})[1].payload == "slow"
    while len(chat.logs) < 2:
        chat.logs.append(chat.next_log())
    assert [each["message"] for each in chat.logs] == ['__STREAM__"late"', '{"result": "late"}']
    assert chat.value("increment", {}) == {"counter": 1}


def test_12_private_names_are_no_methods(chat: Worker) -> None:
    it = open_it(chat)
    assert chat.call("_private", {}).meta["reason"] == "MethodNotFound"
    assert chat.call("_private", {}, target=it).meta["reason"] == "MethodNotFound"
    assert chat.call("$any", {}).payload == "Unknown method: $any"


def test_12_the_end_of_the_script_is_that_of_its_calls(chat: Worker) -> None:
    chat.request("exit", {})
    with pytest.raises(EOFError):
        chat.receive()
    assert chat.wait() == 4


def test_replies_may_be_written_in_any_way(chat: Worker) -> None:
    assert chat.value("pieces", {}) == {"a": [1, {"b": 2}]}
    assert chat.value("raw", {}) == "é"


@pytest.mark.parametrize(
    "read", ["sys.stdin", "iter(sys.stdin.readline, '')", "sys.stdin.buffer", "inputs()"]
)
def test_calls_may_be_read_in_any_way(run: Callable[..., Worker], read: str) -> None:
    source = """
    import json, sys

    def inputs():
        while True:
            try:
                yield input("> ")
            except EOFError:
                return

    def answer(call):
        print("__STREAM__1")
        print(json.dumps({"result": json.loads(call)["params"]}))

    for call in READ:
        answer(call)
    """
    worker = run(source.replace("READ", read))
    assert [worker.value("echo", index) for index in range(3)] == [0, 1, 2]
    assert with_sent(worker, "echo", 3)[0] == [1]
    assert worker.shut_down(5000) == 0


def test_a_script_belongs_to_one_controller(chat: Worker) -> None:
    it = open_it(chat)
    got = chat.call("Controller", {}, hold=True)
    assert (got.kind, got.meta["reason"]) == (DIE, "Unsupported")
    assert "oneShot" in got.payload["detail"]
    chat.send(frame(RELEASE, it))
    # One that comes too early is for another worker.
    chat.request("Controller", {}, hold=True)
    assert chat.receive().kind == GO_AWAY
    got = chat.receive()
    assert (got.kind, got.meta) == (DIE, {"reason": "Closed", "delivery": "rejected"})


def test_a_property_that_the_script_refuses_is_its_error(run: Callable[..., Worker]) -> None:
    chat = run(
        CHAT.replace("counter = 0", "def setProperty(self, params): raise ValueError('not this')")
    )
    got = chat.call("Controller", {"a": 1}, hold=True)
    assert (got.kind, got.payload) == (FAIL, "not this")
    open_it(chat)


def test_a_call_that_is_given_up_keeps_the_next_one_waiting(chat: Worker) -> None:
    id = chat.request("slow", {"seconds": 0.2})
    chat.ping()
    chat.send(frame(CANCEL, id))
    next = chat.request("echo", 1)
    assert (chat.receive().kind, chat.receive().id) == (INTERRUPTED, next)
