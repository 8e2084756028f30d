"""`synapse.Server`: what a program that serves its functions promises, over its own protocol.

What it keeps of synapse-p2p 0.0.5 and where it does better:

| promise | test |
| --- | --- |
| 4a 1 | `test_p2p_4a_1_...` in `test_p2p.py` |
| 4a 2, 4a 3 | `test_p2p_4a_2_...`, `test_p2p_4a_3_...` there |
| 4a 4 | `test_p2p_4a_4_background_...` |
| 4a 5 | `test_p2p_4a_5_the_banner_...` |
| 4a 6 | `test_p2p_4a_6_ctrl_c_stops`, `..._gives_open_calls_their_grace` |
| 4b 7, 4b 8 | `test_p2p_4b_7_...` and `test_p2p_4b_8_...` in `test_p2p.py` |
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import itertools
import json
import os
import re
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from served import Certificates, Served, read_all

import synapse
from synapse import _discovery, _handshake

APP = """
    import asyncio
    import time
    import synapse
    from synapse import Server

    app = Server(namespace="test.service")

    class TooLarge(synapse.Error):
        limit: int

    @app.endpoint
    async def add(a: int, b: int = 10) -> int:
        return a + b

    @app.endpoint("echo")
    async def repeat(value):
        return value

    @app.endpoint
    def plain(n: int) -> int:
        return n * n

    @app.endpoint
    async def who(rpc, node):
        return [node.identifier, node.ip, node.port, rpc.endpoint, rpc.args]

    @app.endpoint
    async def anything(first, **rest):
        return [first, sorted(rest)]

    @app.endpoint
    async def fails():
        raise ValueError("no luck")

    @app.endpoint(raises=[TooLarge])
    async def refuses():
        raise TooLarge(limit=3)

    @app.endpoint
    async def count(to: int):
        for n in range(to):
            yield n

    state = []

    @app.endpoint
    async def forever():
        state.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            state.append("ended")

    @app.endpoint
    async def endless():
        try:
            while True:
                yield b"x" * 1000
        finally:
            state.append("closed")

    @app.endpoint
    async def seen():
        return state

    @app.endpoint
    async def headers():
        return dict(synapse.context().headers)

    @app.endpoint
    async def asks(name: str):
        return await synapse.host.call(name)

    app.run()
"""

Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server, whose files this process finds too."""
    monkeypatch.setenv("SYNAPSE_RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    servers: list[Served] = []

    def start(source: str = APP, **env: str) -> Served:
        servers.append(Served(tmp_path, source, **env))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("app"), APP)
    yield server
    server.close()


@pytest.fixture
def client(app: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[synapse.Client]:
    monkeypatch.setenv("SYNAPSE_RUNTIME_DIRECTORY", str(app.runtime))
    with synapse.Client(port=app.port) as client:
        yield client


def failure(call: Callable[[], Any]) -> synapse.CallFailed:
    with pytest.raises(synapse.CallFailed) as caught:
        call()
    return caught.value


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another process is about to do."""
    limit = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


# Calls


def test_arguments_are_given_by_position_and_by_name(client: synapse.Client) -> None:
    assert client.call("add", 1, 2) == 3
    assert client.call("add", 1, b=2) == 3
    assert client.call("add", a=5) == 15
    assert client.call("echo", {"a": [1, None, b"x"]}) == {"a": [1, None, b"x"]}
    assert client.call("echo", value="named") == "named"
    assert client.call("plain", 7) == 49
    assert client.call("anything", 1, b=2) == [1, ["b", "node", "rpc"]]


def test_an_endpoint_is_told_who_calls(client: synapse.Client) -> None:
    identifier, ip, port, endpoint, args = client.call("who")
    assert ip == "127.0.0.1" and 0 < port < 65536
    assert identifier == _node(ip, port)
    assert (endpoint, args) == ("who", [])


def _node(ip: str, port: int) -> str:
    import hashlib

    return hashlib.sha256(f"{ip}:{port}".encode()).hexdigest()[:8]


def test_what_goes_wrong_has_a_reason_and_the_server_lives(client: synapse.Client) -> None:
    missing = failure(lambda: client.call("ad", 1))
    assert missing.reason == "MethodNotFound" and "`add`" in str(missing)
    few = failure(lambda: client.call("add"))
    assert few.reason == "DecodeFailed" and "missing a required argument: 'a'" in str(few)
    many = failure(lambda: client.call("add", 1, 2, 3))
    assert many.reason == "DecodeFailed" and "too many positional arguments" in str(many)
    misfit = failure(lambda: client.call("add", "one"))
    assert misfit.reason == "DecodeFailed" and "$.a" in str(misfit)
    raised = failure(lambda: client.call("fails"))
    assert raised.reason == "Exception" and "ValueError: no luck" in str(raised)
    assert raised.details["frames"][-1]["function"] == "fails"
    declared = failure(lambda: client.call("refuses"))
    assert declared.reason == "HandlerFailed"
    assert declared.details["_tag"] == "TooLarge" and declared.details["limit"] == 3
    assert failure(lambda: client.call("echo", object())).reason == "EncodeFailed"
    assert failure(lambda: client.call("count", 1)).reason == "Unsupported"
    assert client.call("add", 1, 2) == 3


def test_streams_come_item_by_item_and_stop_when_nobody_reads(client: synapse.Client) -> None:
    assert list(client.stream("count", 300)) == list(range(300))
    before = client.call("seen").count("closed")
    for index, item in enumerate(client.stream("endless")):
        assert item == b"x" * 1000
        if index == 100:
            break
    eventually(lambda: client.call("seen").count("closed") == before + 1)


def test_a_call_that_takes_too_long_ends_on_both_sides(client: synapse.Client) -> None:
    before = client.call("seen").count("ended")
    with pytest.raises(synapse.CallTimedOut, match=r"`forever` did not end within 0\.2 s"):
        client.with_options(timeout=0.2).call("forever")
    eventually(lambda: client.call("seen").count("ended") == before + 1)


def test_calls_run_side_by_side_over_one_connection(app: Served, client: synapse.Client) -> None:
    async def main() -> list[int]:
        async with synapse.AsyncClient(port=app.port) as other:
            hanging = asyncio.ensure_future(other.call("forever"))
            found = await asyncio.gather(*(other.call("add", n, 1) for n in range(500)))
            hanging.cancel()
            return found

    assert asyncio.run(main()) == [n + 1 for n in range(500)]


def test_headers_travel(client: synapse.Client) -> None:
    assert client.with_options(headers={"user": "ada"}).call("headers") == {"user": "ada"}


def test_the_calls_of_a_client_that_goes_are_given_up(app: Served, client: synapse.Client) -> None:
    before = client.call("seen")
    other = synapse.Client(port=app.port)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            other.call("forever")
        except synapse.ConnectionLost as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    eventually(lambda: client.call("seen").count("begun") == before.count("begun") + 1)
    other.close()
    thread.join(20)
    assert len(errors) == 1
    eventually(lambda: client.call("seen").count("ended") == before.count("ended") + 1)


def test_a_client_without_host_functions_says_so(client: synapse.Client) -> None:
    assert "no functions that a server may call" in str(failure(lambda: client.call("asks", "x")))


def test_clients_do_not_get_in_each_others_way(app: Served, client: synapse.Client) -> None:
    with synapse.Client(port=app.port) as other:
        assert [other.call("add", 1, 1), client.call("add", 2, 2)] == [2, 4]
        assert client.call("who")[2] != other.call("who")[2]


# What is frames, and what is none


def greet(app: Served, sock: socket.socket) -> None:
    """Shake hands as the page of the protocol says it, and take the `Hello`."""
    token = (app.runtime / f"{app.process.pid}-{app.port}.token").read_text()
    nonce = os.urandom(32)
    sock.sendall(b"SYNAPSE\x01" + nonce)
    greeting = exactly(sock, 40)
    assert greeting[:8] == b"SYNAPSE\x01"
    sock.sendall(_handshake.client_proof(token, nonce, greeting[8:]))
    verdict = exactly(sock, 33)
    assert verdict == b"\x01" + _handshake.server_proof(token, nonce, greeting[8:])


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError(data)
        data += piece
    return data


@pytest.mark.parametrize(
    "bad",
    [
        b"\x00" * 12,
        b"\xff" * 12,
        # A Request before the Welcome.
        bytes.fromhex("080000000100000001000000"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_frame_closes_the_connection_and_nothing_else(
    app: Served, client: synapse.Client, bad: bytes
) -> None:
    with app.connected() as sock:
        greet(app, sock)
        sock.sendall(bad)
        read_until_closed(sock)
    assert client.call("add", 1, 2) == 3


def read_until_closed(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        read_all(sock)


BAD_METAS: list[Any] = [
    None,
    [],
    {"method": 1},
    {"method": "add", "stream": 0},
    {"method": "add", "stream": True},
    {"method": "add", "deadline": "soon"},
    {"method": "add", "deadline": float("nan")},
    {"method": "add", "headers": {"a": 1}},
    {"method": "add", "parent": "x"},
    {"method": "add", "arguments": 1},
]


@pytest.mark.parametrize("meta", BAD_METAS)
def test_a_request_that_is_none_does_not_end_the_server(
    app: Served, client: synapse.Client, meta: Any
) -> None:
    from wire import REQUEST, WELCOME, encode, frame

    with app.connected() as sock:
        greet(app, sock)
        sock.sendall(frame(WELCOME, 0, encode({"protocol": 1, "maxFrameSize": 1 << 20})))
        sock.sendall(frame(REQUEST, 1, encode({}), encode(meta)))
        read_until_closed(sock)
    assert client.call("add", 1, 2) == 3


def test_a_request_above_the_limit_fails_alone(serve: Serve) -> None:
    serve(
        """
        import synapse
        app = synapse.Server(namespace="n", max_frame_size=10_000)
        @app.endpoint
        async def size(data: bytes) -> int:
            return len(data)
        @app.endpoint
        async def make(size: int) -> bytes:
            return bytes(size)
        app.run()
        """
    )
    # The first call as well, which arrives with the Welcome.
    with synapse.Client(namespace="n") as client:
        assert failure(lambda: client.call("size", bytes(200_000))).reason == "FrameTooLarge"
        assert client.call("size", bytes(9000)) == 9000
        large = failure(lambda: client.call("size", bytes(1_000_000)))
        assert large.reason == "FrameTooLarge" and large.details["limit"] == 10_000
        assert failure(lambda: client.call("make", 20_000)).reason == "FrameTooLarge"
        assert client.call("size", b"x") == 1


def test_a_request_that_grows_as_it_is_written_anew_fails_alone(serve: Serve) -> None:
    from wire import REQUEST, WELCOME, encode, frame

    server = serve(
        """
        import synapse
        app = synapse.Server(max_frame_size=400_000, protocols=["synapse", "p2p"])
        @app.endpoint
        async def size(data) -> int:
            return len(data)
        app.run()
        """
    )
    # Half the precision that Python has: each of them is 9 bytes there.
    floats = b"\xdd" + struct.pack("!I", 70_000) + 70_000 * (b"\xca" + struct.pack("!f", 0.5))
    with server.connected() as sock, synapse.Client(port=server.port) as client:
        greet(server, sock)
        sock.sendall(frame(WELCOME, 0, encode({"protocol": 1, "maxFrameSize": 1 << 20})))
        meta = encode({"method": "size", "arguments": True})
        sock.sendall(frame(REQUEST, 1, b"\x92\x91" + floats + b"\x80", meta))
        assert client.call("size", "abc") == 3
        # What comes in the older protocol may be larger than the frames of this one.
        large = server.call_p2p(
            {"type": "request", "id": "1", "endpoint": "size", "args": [bytes(2_000_000)]}
        )
        assert not large["ok"] and "400000" in large["error"]["message"]
        assert client.call("size", "abcd") == 4


def test_an_answer_that_the_older_protocol_cannot_carry_fails_alone(serve: Serve) -> None:
    server = serve(
        """
        import synapse
        from synapse import _codec
        # As where neither msgspec nor msgpack is installed.
        _codec.choose = lambda *_: _codec.PlainCodec()
        app = synapse.Server(protocols=["synapse", "p2p"])
        @app.endpoint
        async def nested(levels: int):
            value = 1
            for _ in range(levels):
                value = [value]
            return value
        app.run()
        """
    )
    with synapse.Client(port=server.port) as client:
        for levels in range(125, 130):
            request = {"type": "request", "id": "1", "endpoint": "nested", "args": [levels]}
            assert server.call_p2p(request)["id"] == "1"
            assert client.call("nested", 0) == 1


def test_a_client_has_so_many_calls_open_and_no_more(serve: Serve) -> None:
    serve(
        """
        import asyncio, synapse
        app = synapse.Server(namespace="n", max_open_calls=2)
        @app.endpoint
        async def wait(seconds: float):
            await asyncio.sleep(seconds)
        app.run()
        """
    )

    async def main() -> list[str]:
        async with synapse.AsyncClient(namespace="n") as client:
            calls = [client.call("wait", 0.3) for _ in range(3)]
            found = await asyncio.gather(*calls, return_exceptions=True)
            return [getattr(each, "reason", "done") for each in found]

    assert sorted(asyncio.run(main())) == ["Overloaded", "done", "done"]


# Token and TLS


def test_without_the_token_nothing_runs(app: Served) -> None:
    for token, said in (("wrong", "refused the token"), (False, "asks for a token")):
        with (
            synapse.Client(port=app.port, token=token) as client,
            pytest.raises(synapse.ConnectFailed, match=said) as caught,
        ):
            client.call("add", 1, 2)
        assert caught.value.reason == "token"
    with app.connected() as sock:
        sock.sendall(b"SYNAPSE\x01" + bytes(32) + bytes(32))
        assert exactly(sock, 40)[:8] == b"SYNAPSE\x01"
        # Refused, and closed.
        assert read_all(sock) == bytes(33)


def test_the_line_end_of_a_file_is_none_of_the_token(serve: Serve) -> None:
    serve(SYNAPSE_TOKEN="secret\n")
    for token in (None, "secret"):
        with synapse.Client(namespace="test.service", token=token) as client:
            assert client.call("add", 1, 2) == 3


def test_the_token_is_for_this_user_alone(app: Served) -> None:
    path = Path(app.said(r"Token in (.*)"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(path.read_text()) >= 32


def test_an_impostor_learns_nothing_of_the_token() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received: list[bytes] = []

        def impostor() -> None:
            sock, _ = listener.accept()
            with sock:
                exactly(sock, 40)
                sock.sendall(b"SYNAPSE\x01" + bytes(32))
                received.append(exactly(sock, 32))
                sock.sendall(b"\x01" + bytes(32))

        thread = threading.Thread(target=impostor)
        thread.start()
        client = synapse.Client(port=listener.getsockname()[1], token="secret")
        with client, pytest.raises(synapse.ConnectFailed, match="does not know the token"):
            client.connect()
        thread.join(20)
        assert b"secret" not in received[0]


@pytest.mark.parametrize(
    ("hello", "answer", "error"),
    [
        (b"\xc1", None, synapse.ConnectFailed),
        ({"protocol": 1, "methods": [1]}, None, synapse.ConnectFailed),
        ({"protocol": 1, "methods": [{"a": 1}]}, None, synapse.ConnectFailed),
        ({"protocol": 1}, b"\xc1", synapse.CallFailed),
        ({"protocol": 1}, [1], synapse.CallFailed),
    ],
)
def test_what_a_server_says_wrongly_is_an_error_of_the_client(
    hello: Any, answer: Any, error: type[Exception]
) -> None:
    from wire import DIE, HELLO, encode, frame

    def encoded(value: Any) -> bytes:
        return value if isinstance(value, bytes) else encode(value)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def broken() -> None:
            sock, _ = listener.accept()
            with sock:
                exactly(sock, 40)
                sock.sendall(b"SYNAPSE\x00" + bytes(32) + frame(HELLO, 0, encoded(hello)))
                if answer is not None:
                    sock.recv(1)
                    sock.sendall(frame(DIE, 1, b"", encoded(answer)))
                read_until_closed(sock)

        thread = threading.Thread(target=broken)
        thread.start()
        with (
            synapse.Client(port=listener.getsockname()[1], token=False) as client,
            pytest.raises(error),
        ):
            client.call("add", 1, 2)
        thread.join(20)


def test_a_server_that_asks_for_no_token_is_not_the_one_it_is_for(serve: Serve) -> None:
    server = serve(
        """
        import synapse
        app = synapse.Server(token=False)
        @app.endpoint
        async def one():
            return 1
        app.run()
        """
    )
    with synapse.Client(port=server.port) as client:
        assert client.call("one") == 1
    with (
        synapse.Client(port=server.port, token="secret") as client,
        pytest.raises(synapse.ConnectFailed, match="asks for no token"),
    ):
        client.call("one")


def test_who_says_nothing_is_let_go_of(serve: Serve) -> None:
    server = serve(
        """
        import synapse
        app = synapse.Server(handshake_timeout=0.2)
        app.run()
        """
    )
    with server.connected() as silent, server.connected() as slow:
        slow.sendall(b"SYNA")
        for sock in (silent, slow):
            read_until_closed(sock)
    assert server.is_alive


def test_there_are_so_many_connections_and_no_more(serve: Serve) -> None:
    server = serve(
        """
        import synapse
        app = synapse.Server(max_connections=2, handshake_timeout=30)
        @app.endpoint
        async def one():
            return 1
        app.run()
        """
    )
    with synapse.Client(port=server.port) as client:
        assert client.call("one") == 1
        with server.connected() as silent:
            silent.sendall(b"S")
            with server.connected() as third:
                read_until_closed(third)
        assert client.call("one") == 1
    with synapse.Client(port=server.port) as client:
        assert client.call("one") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("address='0.0.0.0', token=False", "a server without a token"),
        ("address='0.0.0.0', protocols=['synapse', 'p2p']", "knows no token"),
        ("port=70000", "a port is a number"),
        ("port='x'", "a port is a number"),
        ("namespace=''", "a namespace is a text"),
        ("token=''", "a token is a text"),
        ("protocols=['http']", "`protocols` is a list"),
        ("concurrency=0", "`concurrency` is a whole number"),
        ("tls=synapse.TLS()", "a server needs a certificate"),
    ],
)
def test_options_that_cannot_be_are_refused(options: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        eval(f"synapse.Server({options})", {"synapse": synapse})


def test_endpoints_that_cannot_be_are_refused() -> None:
    app = synapse.Server()

    @app.endpoint
    async def one() -> None: ...

    with pytest.raises(ValueError, match="two endpoints are called `one`"):
        app.endpoint("one")(one)
    with pytest.raises(TypeError, match=r"\*args"):

        @app.endpoint
        async def two(*args: Any) -> None: ...

    with pytest.raises(TypeError, match="the interval is a number"):
        app.background("often")  # type: ignore[arg-type]


TLS_APP = """
    import synapse
    app = synapse.Server(
        namespace="safe", address="127.0.0.1",
        tls=synapse.TLS(certificate="server.pem", key="server.key"{ca}),{limits}
    )
    @app.endpoint
    async def one():
        return 1
    app.run()
"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def start_tls(
    serve: Serve, certificates: Certificates, directory: Path, ca: str = "", limits: str = ""
) -> Served:
    for name in ("server.pem", "server.key", "ca.pem"):
        (directory / name).write_bytes(Path(certificates.path(name)).read_bytes())
    return serve(TLS_APP.format(ca=ca, limits=limits))


def test_tls_is_for_clients_that_trust_the_server(
    serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    server = start_tls(serve, certificates, tmp_path)
    tls = synapse.TLS(ca=certificates.path("ca.pem"))
    with synapse.Client(namespace="safe", tls=tls) as client:
        assert client.call("one") == 1
    for options, said in (
        ({"namespace": "safe"}, "speaks TLS: give the client `tls`"),
        ({"port": server.port}, "wants TLS"),
        ({"port": server.port, "tls": synapse.TLS()}, "TLS failed"),
        (
            {"port": server.port, "tls": synapse.TLS(ca=tls.ca, server_name="example.org")},
            "TLS failed",
        ),
    ):
        client = synapse.Client(**options)  # type: ignore[arg-type]
        with client, pytest.raises(synapse.ConnectFailed, match=said):
            client.connect()
    import ssl

    old = tls.client_context()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with synapse.Client(port=server.port, tls=old) as client, pytest.raises(synapse.ConnectFailed):
        client.connect()
    assert server.is_alive


def test_connections_count_before_tls_has_begun(
    serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    limits = "max_connections=2, handshake_timeout=30"
    server = start_tls(serve, certificates, tmp_path, limits=limits)
    with server.connected() as first, server.connected() as second:
        with server.connected() as third:
            third.settimeout(5)
            read_until_closed(third)
        for each in (first, second):
            each.sendall(b"no TLS at all\n\n\n")
            read_until_closed(each)
    tls = synapse.TLS(ca=certificates.path("ca.pem"))
    with synapse.Client(namespace="safe", tls=tls) as client:
        assert client.call("one") == 1


def test_mutual_tls_is_for_clients_with_a_certificate(
    serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    start_tls(serve, certificates, tmp_path, ', ca="ca.pem"')
    path = certificates.path
    own = synapse.TLS(path("client.pem"), path("client.key"), ca=path("ca.pem"))
    with synapse.Client(namespace="safe", tls=own) as client:
        assert client.call("one") == 1
    without = synapse.TLS(ca=path("ca.pem"))
    client = synapse.Client(namespace="safe", tls=without)
    with client, pytest.raises(synapse.ConnectFailed) as caught:
        client.connect()
    assert caught.value.reason == "tls"


# Discovery


def test_servers_are_found_by_namespace_and_stale_ones_are_not(serve: Serve) -> None:
    source = """
        import os, synapse
        app = synapse.Server(namespace="{}")
        @app.endpoint
        async def pid():
            return os.getpid()
        app.run()
    """
    first = serve(source.format("one"))
    second = serve(source.format("two"))
    assert [each.pid for each in _discovery.servers(namespace="one")] == [first.process.pid]
    with synapse.Client(namespace="two") as client:
        assert client.call("pid") == second.process.pid
    # Killed, so that its files stay.
    first.close()
    assert any(path.name.startswith(f"{first.process.pid}-") for path in first.runtime.iterdir())
    client = synapse.Client(namespace="one")
    with client, pytest.raises(synapse.ConnectFailed, match="no server of the namespace 'one'"):
        client.call("pid")
    third = serve(source.format("one"))
    with synapse.Client(namespace="one") as client:
        assert client.call("pid") == third.process.pid
    names = {path.name.partition("-")[0] for path in third.runtime.iterdir()}
    assert str(first.process.pid) not in names
    third.interrupt()
    second.interrupt()
    assert list(third.runtime.iterdir()) == []


def test_the_directory_has_to_be_private(serve: Serve, tmp_path: Path) -> None:
    serve()
    os.chmod(tmp_path / "runtime", 0o755)
    client = synapse.Client(namespace="test.service")
    with client, pytest.raises(RuntimeError, match="mode 700"):
        client.connect()


def test_the_first_seed_that_answers_counts(app: Served, client: synapse.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with synapse.Client(seeds=[f"127.0.0.1:{closed}", f"127.0.0.1:{app.port}"]) as other:
        assert other.call("add", 1, 2) == 3
    other = synapse.Client(seeds=[f"127.0.0.1:{closed}"])
    with other, pytest.raises(synapse.ConnectFailed, match=f"connect to 127.0.0.1:{closed}"):
        other.connect()
    for wrong in ("", ":1", "host:x", "host:70000"):
        with pytest.raises(ValueError, match="is no address"):
            synapse.Client(seeds=[wrong])
    assert _discovery.to_address("example.org") == ("example.org", 9999)
    assert _discovery.to_address("[::1]:80") == ("::1", 80)
    assert _discovery.to_address("::1") == ("::1", 9999)


# The life of a server


def test_p2p_4a_4_background_runs_after_its_interval_and_again(serve: Serve) -> None:
    server = serve(
        """
        import time, synapse
        app = synapse.Server(namespace="n")
        runs = []
        begun = time.monotonic()
        @app.background(seconds=0.3)
        async def tick():
            runs.append(time.monotonic() - begun)
        @app.background(0.3)
        def tock():
            runs.append(time.monotonic() - begun)
        @app.endpoint("runs")
        async def get():
            return sorted(runs)
        app.run()
        """
    )
    with synapse.Client(port=server.port) as client:
        assert client.call("runs") == []
        eventually(lambda: len(client.call("runs")) >= 4)
        runs = client.call("runs")
    assert runs[0] >= 0.3 and runs[2] - runs[0] >= 0.25
    assert "- tick (0.3s)" in server.lines and "- tock (0.3s)" in server.lines


def test_p2p_4a_4_the_interval_begins_when_a_run_has_ended(serve: Serve) -> None:
    server = serve(
        """
        import asyncio, time, synapse
        app = synapse.Server(namespace="n")
        runs = []
        @app.background(seconds=0.1)
        async def tick():
            begun = time.monotonic()
            await asyncio.sleep(0.2)
            runs.append((begun, time.monotonic()))
        @app.endpoint("runs")
        async def get():
            return runs
        app.run()
        """
    )
    with synapse.Client(port=server.port) as client:
        eventually(lambda: len(client.call("runs")) >= 3)
        runs = client.call("runs")
    for (_, ended), (begun, _) in itertools.pairwise(runs):
        assert begun - ended >= 0.09


def test_p2p_4a_4_background_goes_on_after_an_exception(serve: Serve) -> None:
    server = serve(
        """
        import synapse
        app = synapse.Server()
        runs = 0
        @app.background(seconds=0.01)
        async def tick():
            global runs
            runs += 1
            print(f"run {runs}")
            raise RuntimeError("a bad run")
        app.run()
        """
    )
    server.said("run 20")
    assert server.interrupt() == 0
    assert "RuntimeError: a bad run" in server.errors()


def test_p2p_4a_5_the_banner_says_what_there_is(serve: Serve) -> None:
    server = serve(
        """
        from synapse import Server

        app = Server(namespace="cryptocurrencies.bitcoin", token=False)

        @app.background(seconds=5)
        async def do_stuff():
            print("I am doing stuff in the background")

        @app.endpoint("get_nodes")
        async def get_nodes(**kwargs):
            return f"Here are the nodes I know about..."

        @app.endpoint("broadcast_message")
        async def broadcast_message(message, **kwargs):
            return f"Sending your message to known nodes: {message}"

        app.run()
        """
    )
    server.said(r"- do_stuff \(5s\)")
    printed = "\n".join(line.rstrip() for line in server.lines)
    assert printed.startswith("███████╗██╗   ██╗███╗   ██╗ █████╗ ██████╗ ███████╗███████╗\n")
    assert f"⚡ synapse v{synapse.__version__}" in printed
    assert printed.endswith(
        f"""
Publishing endpoints to namespace cryptocurrencies.bitcoin

Listening on 127.0.0.1:{server.port}

Registered Endpoints:
- get_nodes
- broadcast_message

Background Tasks:
- do_stuff (5s)"""
    )


def test_p2p_4a_6_ctrl_c_stops(serve: Serve) -> None:
    server = serve()
    assert server.interrupt() == 0
    assert server.errors() == ""
    assert list(server.runtime.iterdir()) == []


def test_p2p_4a_6_ctrl_c_gives_open_calls_their_grace(serve: Serve) -> None:
    server = serve(
        """
        import asyncio, atexit, synapse
        app = synapse.Server(grace=10)
        go = None
        @app.endpoint
        async def slow():
            print("begun", flush=True)
            await asyncio.sleep(0.5)
            return "done" * 100_000
        @app.endpoint
        def plain():
            return 1
        @synapse.on_stop
        def stop():
            print("stopped", flush=True)
        atexit.register(lambda: print("left", flush=True))
        app.run()
        """
    )

    async def main() -> str:
        async with synapse.AsyncClient(port=server.port) as client:
            call = asyncio.ensure_future(client.call("slow"))
            await asyncio.get_running_loop().run_in_executor(None, server.said, "begun")
            server.process.send_signal(signal.SIGTERM)
            return await call

    assert asyncio.run(main()) == "done" * 100_000
    assert server.process.wait(20) == 0
    server.said("stopped")
    server.said("left")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_client_can_be_used_in_a_forked_process(client: synapse.Client) -> None:
    assert client.call("add", 1, 2) == 3
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        answer = client.call("add", 3, 4)
        # What it has of its parent's is not its to close.
        gc.collect()
        os._exit(answer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert client.call("add", 1, 2) == 3


def test_an_address_that_is_taken_is_said(tmp_path: Path) -> None:
    taken = os.strerror(errno.EADDRINUSE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        source = f"import synapse\nsynapse.Server(port={port}).run()\n"
        with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1:{port}: {taken}\n"):
            Served(tmp_path, source)


def test_a_client_connects_again_after_the_server_was_started_anew(serve: Serve) -> None:
    server = serve()
    with synapse.Client(namespace="test.service") as client:
        assert client.call("add", 1, 2) == 3
        server.interrupt()
        with pytest.raises((synapse.ConnectFailed, synapse.ConnectionLost)):
            client.call("add", 1, 2)
        serve()
        assert client.call("add", 1, 2) == 3


def test_a_handler_that_forks_leaves_the_server_alone(serve: Serve) -> None:
    server = serve(
        """
        import os, synapse
        app = synapse.Server()
        @app.endpoint
        def fork():
            child = os.fork()
            if child == 0:
                os._exit(7)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        app.run()
        """
    )
    with synapse.Client(port=server.port) as client:
        assert [client.call("fork"), client.call("fork")] == [7, 7]


def test_what_the_files_say_is_what_there_is(app: Served) -> None:
    path = app.runtime / f"{app.process.pid}-{app.port}.json"
    assert json.loads(path.read_text()) == {
        "version": 1,
        "namespace": "test.service",
        "pid": app.process.pid,
        "host": "127.0.0.1",
        "port": app.port,
        "token": str(path.with_suffix(".token")),
        "tls": False,
        "protocols": ["synapse"],
    }
