"""Servers as programs of their own, and nodes of synapse-p2p as their pages describe them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from wire import PATIENCE, write

SOURCE = Path(__file__).resolve().parents[1] / "src"

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


class Served:
    """A program that runs a `synapse.Server`."""

    def __init__(self, directory: Path, source: str, **env: str) -> None:
        self.directory = directory
        self.runtime = directory / "runtime"
        program = write(directory, source, "server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": str(SOURCE),
                "SYNAPSE_RUNTIME_DIRECTORY": str(self.runtime),
                "SYNAPSE_PORT": "0",
                **env,
            },
        )
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self.said(r"Listening on (.*)")
        self.port = int(self.address.rpartition(":")[2])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line.decode().rstrip("\n"))
                self._said.notify_all()
        with self._said:
            self.lines.append("<the end>")
            self._said.notify_all()

    def said(self, pattern: str) -> str:
        """The first group of a line, once it has been printed."""

        def find() -> re.Match[str] | None:
            return next(filter(None, (re.fullmatch(pattern, line) for line in self.lines)), None)

        with self._said:
            ended = lambda: self.lines and self.lines[-1] == "<the end>"  # noqa: E731
            assert self._said.wait_for(lambda: find() or ended(), PATIENCE), self.lines
            found = find()
        if found is None:
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read().decode())
        return found[1] if found.groups() else found[0]

    def interrupt(self) -> int:
        """Press Ctrl-C, and wait for the end."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    def errors(self) -> str:
        """What it has written to stderr, after the end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        if self.is_alive:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    # As clients of synapse-p2p do

    def exchange(self, *pieces: bytes, half_close: bool = False) -> bytes:
        """Send pieces one after the other, and read to the end."""
        with self.connected() as sock:
            for piece in pieces:
                sock.sendall(piece)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock

    def call_p2p(self, request: Any) -> Any:
        return unpack(self.exchange(framed(pack(request)))[4:])


def framed(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


class OldNode:
    """A node that takes one connection after the other: what came first is given to `answer`, whose
    bytes are the answer.
    """

    def __init__(self, answer: Callable[[bytes], bytes], host: str = "127.0.0.1") -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock:
                # As the nodes of 0.0.x do: once.
                data = sock.recv(4096)
                if data:
                    self.requests.append(data)
                    sock.sendall(self._answer(data))

    def close(self) -> None:
        self._listener.close()


class Certificates:
    """An authority, and certificates that it has signed."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self.directory = directory
        # Python 3.13 and later look at what a certificate may be used for.
        self._run(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca "
            "-addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem"
        )
        (directory / "names").write_text(
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nkeyUsage=critical,digitalSignature\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        for who in ("server", "client"):
            self._run(
                f"req -newkey rsa:2048 -nodes -subj /CN={who} -keyout {who}.key -out {who}.csr"
            )
            self._run(
                f"x509 -req -days 2 -in {who}.csr -CA ca.pem -CAkey ca.key -CAcreateserial "
                f"-extfile names -out {who}.pem"
            )

    def _run(self, command: str) -> None:
        subprocess.run(
            ["openssl", *command.split()], cwd=self.directory, check=True, capture_output=True
        )

    def path(self, name: str) -> str:
        return str(self.directory / name)
