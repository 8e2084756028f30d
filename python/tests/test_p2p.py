"""The wires of synapse-p2p, on both sides.

| promise | test |
| --- | --- |
| 4a 1 | `test_p2p_4a_1_...` |
| 4a 2 | `test_p2p_4a_2_...` |
| 4a 3 | `test_p2p_4a_3_...` |
| 4a 4 to 6 | in `test_server.py` |
| 4b 7 | `test_p2p_4b_7_...` |
| 4b 8 | `test_p2p_4b_8_...` |
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import inspect
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import SOURCE, OldNode, Served, framed, pack, read_all, unpack

import synapse
from synapse import _client, _dialing, _wire_p2p0, p2p

APP = """
    from synapse.p2p import Server

    app = Server(namespace="cryptocurrencies.bitcoin", handshake_timeout=0.5)

    @app.endpoint("sum")
    async def add(a, b, **kwargs):
        return f"Result: {a + b}"

    @app.endpoint
    async def who(*, rpc, node):
        return f"{node.identifier} {node.ip} {node.port} {rpc.endpoint} {rpc.args}"

    @app.endpoint
    async def number():
        return 7

    @app.endpoint
    async def fails():
        raise ValueError("no luck")

    @app.endpoint
    async def size(text):
        return str(len(text))

    @app.endpoint
    async def named(a, *, b=2):
        return {"a": a, "b": b}

    @app.endpoint
    async def items():
        yield 1

    app.run()
"""

SUM = bytes.fromhex("82a8656e64706f696e74a373756da461726773920102")
SUM_4B = bytes.fromhex(
    "0000003085a474797065a772657175657374a26964a131a8656e64706f696e74a373756d"
    "a461726773920102a66b776172677380"
)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("p2p"), APP)
    yield server
    server.close()


def failure(call: Callable[[], Any]) -> synapse.CallFailed:
    with pytest.raises(synapse.CallFailed) as caught:
        call()
    return caught.value


# 4a, the server


def test_p2p_4a_1_an_endpoint_is_called_and_the_text_of_its_result_is_sent(app: Served) -> None:
    assert app.exchange(SUM) == b"Result: 3"
    with app.connected() as sock:
        ip, port = sock.getsockname()
        sock.sendall(pack({"endpoint": "who", "args": []}))
        identifier = hashlib.sha256(f"{ip}:{port}".encode()).hexdigest()[:8]
        assert read_all(sock).decode() == f"{identifier} {ip} {port} who []"


@pytest.mark.parametrize(
    "request_",
    [
        {"endpoint": "nope", "args": []},
        {"args": []},
        ["sum", [1, 2]],
        {"endpoint": "sum", "args": [1, 2], "more": 1},
        {"endpoint": 7, "args": []},
    ],
)
def test_p2p_4a_2_what_is_no_request_is_answered_400_and_the_server_lives(
    app: Served, request_: Any
) -> None:
    assert app.exchange(pack(request_)) == b"400"
    assert app.exchange(SUM) == b"Result: 3"


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ((b"\xc1\xc1\xc1",), b"400 the byte 0xc1 starts no value"),
        ((SUM + SUM,), b"400 more than one request: a connection has one"),
        ((pack({"endpoint": "sum"}),), b"500 missing a required argument: 'a'"),
        ((pack({"endpoint": "sum", "args": None}),), b"500 missing a required argument: 'a'"),
        ((pack({"endpoint": "sum", "args": 1}),), b"400 `args` is a list"),
        ((pack({"endpoint": "fails", "args": []}),), b"500 no luck"),
        (
            (pack({"endpoint": "number", "args": []}),),
            b"500 the endpoint returned `int`, and answers are text",
        ),
        ((pack({"endpoint": "items", "args": []}),), b"500 `items` streams its values"),
        ((SUM[:5],), b"400 an incomplete request"),
    ],
)
def test_p2p_4a_3_what_closed_without_a_word_has_an_answer(
    app: Served, pieces: tuple[bytes, ...], said: bytes
) -> None:
    assert app.exchange(*pieces).startswith(said)
    assert app.exchange(SUM) == b"Result: 3"


def test_p2p_4a_3_a_request_may_come_in_pieces_and_be_long(app: Served) -> None:
    assert app.exchange(*(SUM[n : n + 1] for n in range(len(SUM)))) == b"Result: 3"
    assert app.exchange(pack({"endpoint": "size", "args": ["x" * 100_000]})) == b"100000"
    assert app.exchange(SUM, half_close=True) == b"Result: 3"
    too_long = pack({"endpoint": "size", "args": ["x" * 2_000_000]})
    assert app.exchange(too_long[:100_000]).startswith(b"400 a request of more than")


def test_who_does_not_read_the_answer_keeps_no_connection(tmp_path: Path) -> None:
    source = """
        import synapse
        from synapse import _peers
        _peers._READING_SECONDS = 0.2
        app = synapse.Server(token=False, protocols=["p2p-0"], max_connections=1)
        @app.endpoint
        async def text(size: int):
            return "x" * size
        app.run()
    """
    app = Served(tmp_path, source)
    try:
        with app.connected() as sock:
            sock.sendall(pack({"endpoint": "text", "args": [12_000_000]}))
            limit = time.monotonic() + 20
            answer = b""
            while answer != b"xx":
                assert time.monotonic() < limit
                with contextlib.suppress(ConnectionError):
                    answer = app.exchange(pack({"endpoint": "text", "args": [2]}))
    finally:
        app.close()


def test_the_reader_finds_the_end_of_every_kind_of_value() -> None:
    from datetime import datetime, timezone

    from synapse import _codec

    codec = _codec.choose()
    values = [
        [None, True, False, 0, -1, 127, 128, 70_000, 1 << 40, -129, -70_000, -(1 << 40), 1.5],
        ["", "x" * 31, "x" * 300, "x" * 70_000, b"", b"x" * 300, b"x" * 70_000],
        [[1] * 20, [1] * 70_000, {str(n): n for n in range(20)}, {}, []],
        [datetime(2020, 1, 1, tzinfo=timezone.utc), {"a": {"b": [{}]}}],
    ]
    for args in values:
        data = codec.encode({"endpoint": "e", "args": args})
        reader = _wire_p2p0.Reader(codec, 1 << 20)
        for start in range(0, len(data) - 1, 997):
            assert reader.feed(data[start : min(start + 997, len(data) - 1)]) is None
        found = reader.feed(data[-1:])
        assert found is not None and found.args == args


def test_p2p_4a_1_a_server_is_made_as_in_0_0_5(tmp_path: Path) -> None:
    source = """
        from synapse.p2p import Server

        app = Server("127.0.0.1", "0")

        @app.background(period=5)
        async def tick(): ...

        @app.endpoint("sum")
        async def add(a, b, **kwargs):
            return f"Result: {a + b}"

        app.run()
    """
    server = Served(tmp_path, source)
    try:
        assert server.exchange(SUM) == b"Result: 3"
        server.said(r"- tick \(5s\)")
    finally:
        server.close()
    with pytest.raises(TypeError, match="interval is a number"):
        p2p.Server().background()


# 4a, the client


@pytest.fixture
def node() -> Iterator[Callable[..., OldNode]]:
    nodes: list[OldNode] = []

    def start(answer: Callable[[bytes], bytes], host: str = "127.0.0.1") -> OldNode:
        nodes.append(OldNode(answer, host))
        return nodes[-1]

    yield start
    for each in nodes:
        each.close()


def old_answer(data: bytes) -> bytes:
    """As a node of 0.0.5."""
    request = unpack(data)
    if not isinstance(request, dict) or request["endpoint"] not in ("sum", "fails"):
        return b"400"
    if request["endpoint"] == "fails":
        return b""
    return f"Result: {sum(request['args'])}".encode()


def test_p2p_4a_1_a_node_of_old_is_called(node: Callable[..., OldNode]) -> None:
    old = node(old_answer)
    with synapse.Client(port=old.port, protocol="p2p-0") as client:
        assert client.call("sum", 1, 2) == "Result: 3"
        assert old.requests == [SUM]
        # A second time, over a connection of its own.
        assert client.call("sum", 1, 5) == "Result: 6"


def test_p2p_4a_2_a_node_that_answers_400_has_no_such_endpoint(
    node: Callable[..., OldNode],
) -> None:
    with synapse.Client(port=node(old_answer).port, protocol="p2p-0") as client:
        assert failure(lambda: client.call("nope")).reason == "MethodNotFound"


def test_p2p_4a_3_a_node_that_says_nothing_is_a_failure(node: Callable[..., OldNode]) -> None:
    old = node(old_answer)
    with synapse.Client(port=old.port, protocol="p2p-0") as client:
        assert failure(lambda: client.call("fails")).reason == "NoAnswer"
        # What its node would not read is not sent.
        large = failure(lambda: client.call("sum", "x" * 5000))
        assert large.reason == "FrameTooLarge" and large.details["limit"] == 4096
        assert failure(lambda: client.call("sum", a=1)).reason == "EncodeFailed"
        assert failure(lambda: next(client.stream("sum"))).reason == "Unsupported"
        assert len(old.requests) == 1


def test_an_answer_without_an_end_is_not_read_to_it(
    node: Callable[..., OldNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_client, "_MAX_TEXT", 1000)
    with synapse.Client(port=node(lambda _: b"x" * 5000).port, protocol="p2p-0") as client:
        assert failure(lambda: client.call("sum")).reason == "FrameTooLarge"


def test_the_clients_of_old_call_a_server(app: Served) -> None:
    for protocol, expected in (("p2p-0", "Result: 3"), ("p2p", "Result: 3")):
        with synapse.Client(port=app.port, protocol=protocol) as client:
            assert client.call("sum", 1, 2) == expected
    with synapse.Client(port=app.port, token=False) as client:
        assert client.call("sum", 1, 2) == "Result: 3"


# 4b, the server


def error(answer: Any) -> tuple[str, str, str]:
    assert answer["ok"] is False and answer["type"] == "response" and answer["result"] is None
    return answer["id"], answer["error"]["code"], answer["error"]["message"]


def test_p2p_4b_7_a_call_is_answered(app: Served) -> None:
    assert unpack(app.exchange(SUM_4B)[4:]) == {
        "id": "1",
        "ok": True,
        "result": "Result: 3",
        "error": None,
        "type": "response",
    }
    # In pieces, and without a type.
    assert app.exchange(*(SUM_4B[n : n + 1] for n in range(len(SUM_4B))))[4:]
    named = {"id": "x", "endpoint": "named", "args": [], "kwargs": {"a": 1, "b": [2]}}
    assert app.call_p2p(named)["result"] == {"a": 1, "b": [2]}
    named = {"id": "x", "endpoint": "named", "args": [5]}
    assert app.call_p2p(named)["result"] == {"a": 5, "b": 2}


def test_p2p_4b_7_unknown_fields(app: Served) -> None:
    answer = app.call_p2p({"id": "1", "endpoint": "sum", "args": [], "zz": 1})
    assert error(answer) == ("", "bad_request", "unknown request fields: ['zz']")


def test_p2p_4b_7_unknown_endpoint(app: Served) -> None:
    answer = app.call_p2p({"id": "1", "endpoint": "x", "args": [], "kwargs": {}})
    assert error(answer) == ("1", "bad_request", "Unregistered endpoint called: x")


def test_p2p_4b_7_oversize(app: Served) -> None:
    answer = unpack(app.exchange((5242880).to_bytes(4, "big"))[4:])
    assert error(answer) == ("", "bad_request", "frame too large: 5242880 > 4194304")


@pytest.mark.parametrize("half_close", [True, False])
def test_p2p_4b_7_short(app: Served, half_close: bool) -> None:
    answer = unpack(app.exchange(SUM_4B[:20], half_close=half_close)[4:])
    assert error(answer) == ("", "bad_request", "incomplete frame")


def test_p2p_4b_7_a_response_sent_as_a_request(app: Served) -> None:
    answer = app.call_p2p({"id": "1", "ok": True, "result": 1, "error": None, "type": "response"})
    assert error(answer) == ("", "bad_request", "expected request message")


def test_p2p_4b_7_garbage(app: Served) -> None:
    for payload in (b"\xc1", b"", pack([1]), pack({"type": "other"}), pack({"endpoint": 1})):
        answer = unpack(app.exchange(framed(payload))[4:])
        assert error(answer)[1] == "bad_request"


def test_p2p_4b_7_what_an_endpoint_raises_and_arguments_that_do_not_fit(app: Served) -> None:
    answer = app.call_p2p({"id": "1", "endpoint": "fails"})
    assert error(answer) == ("1", "internal_error", "no luck")
    answer = app.call_p2p({"id": "1", "endpoint": "sum", "args": [1]})
    assert error(answer) == ("1", "internal_error", "missing a required argument: 'b'")
    assert app.is_alive and app.exchange(SUM_4B)


def test_p2p_4b_7_an_early_close_is_ignored(app: Served) -> None:
    for data in (b"", b"\x00", SUM_4B):
        with app.connected() as sock:
            sock.sendall(data)
    assert unpack(app.exchange(SUM_4B)[4:])["ok"]


# 4b, the client


def test_p2p_4b_8_the_client_has_the_defaults_and_the_forms_of_today() -> None:
    parameters = inspect.signature(synapse.AsyncClient).parameters
    assert parameters["port"].default == 9999
    assert parameters["timeout"].default == 30
    assert parameters["host"].default == "127.0.0.1"


def responding(response: dict[str, Any]) -> Callable[[bytes], bytes]:
    def answer(data: bytes) -> bytes:
        request = unpack(data[4:])
        return framed(pack({"type": "response", "error": None, **response, "id": request["id"]}))

    return answer


def test_p2p_4b_8_call_sends_the_frame_of_today(node: Callable[..., OldNode]) -> None:
    new = node(responding({"ok": True, "result": [1, None, b"x"]}))
    with synapse.Client(port=new.port, protocol="p2p") as client:
        assert client.call("sum", 1, 2, key="value") == [1, None, b"x"]
    (length, *_), request = new.requests[0][:4], unpack(new.requests[0][4:])
    assert length == 0 and len(new.requests[0]) == 4 + int.from_bytes(new.requests[0][:4], "big")
    assert {**request, "id": "1"} == {
        "type": "request",
        "id": "1",
        "endpoint": "sum",
        "args": [1, 2],
        "kwargs": {"key": "value"},
    }


def test_p2p_4b_8_peers_and_from_peer(node: Callable[..., OldNode]) -> None:
    other = node(responding({"ok": True, "result": "pong"}))
    peer = {
        "id": "a1",
        "address": "127.0.0.1",
        "port": other.port,
        "swarm": None,
        "team": "default",
        "name": "b",
        "kind": "node",
        "capabilities": ["x"],
        "last_seen": 1.5,
    }
    first = node(responding({"ok": True, "result": [peer]}))
    with synapse.Client(port=first.port, protocol="p2p") as client:
        peers = client.peers()
    assert [(each.id, each.port, each.capabilities) for each in peers] == [
        ("a1", other.port, ["x"])
    ]
    with synapse.Client.from_peer(peers[0]) as client:
        assert client.call("_synapse.ping") == "pong"

    async def main() -> Any:
        async with synapse.AsyncClient.from_peer(peers[0]) as client:
            return await client.call("_synapse.ping")

    assert asyncio.run(main()) == "pong"


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is no address of its own elsewhere")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_p2p_4b_8_a_node_of_this_machine_is_preferably_called_by_loopback(
    node: Callable[..., OldNode], host: str
) -> None:
    own = node(responding({"ok": True, "result": "pong"}), host)
    # Its node listens at the one address, and says the other one.
    peer = synapse.Peer("a1", "127.0.0.2", own.port)
    with synapse.Client.from_peer(peer) as client:
        assert client.call("_synapse.ping") == "pong"

    async def main() -> Any:
        async with synapse.AsyncClient.from_peer(peer) as client:
            return await client.call("_synapse.ping")

    assert asyncio.run(main()) == "pong"


def test_p2p_4b_8_a_node_of_another_machine_is_called_where_it_is() -> None:
    for address in ("192.0.2.1", "2001:db8::1", "node.example.org"):
        assert _dialing.seeds_for(address, 1) == ()
    assert _dialing.seeds_for("127.0.0.1", 1)[0] == "127.0.0.1:1"


def test_p2p_4b_8_the_client_has_its_name_and_form(node: Callable[..., OldNode]) -> None:
    new = node(responding({"ok": True, "result": "pong"}))

    async def main() -> Any:
        client = p2p.Client("127.0.0.1", new.port)
        return await client.call("_synapse.ping")

    assert asyncio.run(main()) == "pong"
    assert inspect.signature(p2p.Client).parameters["port"].default == 9999


def test_p2p_4b_8_errors_have_types(node: Callable[..., OldNode]) -> None:
    for said, reason in (
        ({"code": "bad_request", "message": "Unregistered endpoint called: x"}, "MethodNotFound"),
        ({"code": "bad_request", "message": "unknown request fields: ['zz']"}, "BadRequest"),
        ({"code": "internal_error", "message": "no luck"}, "Exception"),
    ):
        new = node(responding({"ok": False, "result": None, "error": said}))
        with synapse.Client(port=new.port, protocol="p2p") as client:
            error = failure(lambda client=client: client.call("x"))
        assert error.reason == reason and error.details["code"] == said["code"]
        # Programs that wait for what today's client raises go on.
        assert isinstance(error, RuntimeError)
    for bad in (b"", b"\x00\x00", framed(b"\xc1"), framed(pack({"type": "request"}))):
        new = node(lambda _, bad=bad: bad)
        client = synapse.Client(port=new.port, protocol="p2p")
        with client, pytest.raises((synapse.CallFailed, synapse.ConnectionLost)):
            client.call("x")


def test_p2p_4b_8_connecting_has_a_time_of_its_own() -> None:
    # Nobody accepts, and the backlog is full.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            client = synapse.Client(port=port, protocol="p2p", connect_timeout=0.3)
            with client, pytest.raises(synapse.ConnectFailed) as caught:
                client.call("x")
            assert caught.value.reason == "timeout"
        finally:
            for sock in waiting:
                sock.close()


def test_a_node_that_is_not_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for protocol in ("synapse", "p2p", "p2p-0"):
        with (
            synapse.Client(port=port, protocol=protocol) as client,
            pytest.raises(
                synapse.ConnectFailed,
                match=f"cannot connect to 127.0.0.1:{port}: {os.strerror(errno.ECONNREFUSED)}$",
            ) as caught,
        ):
            client.call("x")
        assert caught.value.reason == "unreachable"


def test_blocking_clients_are_used_by_several_threads(app: Served) -> None:
    found: list[str] = []
    with synapse.Client(port=app.port, token=False) as client:
        threads = [
            threading.Thread(target=lambda n=n: found.append(client.call("sum", n, 1)))
            for n in range(8)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(20)
    assert sorted(found) == sorted(f"Result: {n + 1}" for n in range(8))


# The document's own programs


def test_the_programs_of_the_document_run(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "from-synapse-p2p" / "python"
    server = Served(tmp_path, (example / "server.py").read_text())
    try:
        assert "Publishing endpoints to namespace cryptocurrencies.bitcoin" in server.lines
        source = (example / "client.py").read_text()
        assert source.count("9999") == 1
        done = subprocess.run(
            [sys.executable, "-c", source.replace("9999", str(server.port))],
            env={"PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        said = "Received: \nSending your message to known nodes: hello everyone\n"
        assert (done.stdout, done.stderr) == (said, "")
    finally:
        server.close()
