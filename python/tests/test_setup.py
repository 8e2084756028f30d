from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wire import FAIL, HELLO, PING, SETUP, Worker, encode, frame, write

Start = Callable[..., Worker]

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ANNOUNCED = {"SYNAPSE_SETUP": "1"}
MODULE = """
    import os
    import resource
    import synapse

    at_import = dict(os.environ)

    @synapse.handler
    def seen(name: str):
        return [at_import.get(name), os.environ.get(name)]

    @synapse.handler
    def limits():
        kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)
        return [list(resource.getrlimit(kind)) for kind in kinds]

    @synapse.handler
    def take(size: int):
        return len(bytearray(size))

    @synapse.handler
    def open_files():
        files = []
        try:
            while True:
                files.append(open(os.devnull))
        finally:
            for each in files:
                each.close()

    @synapse.handler
    def spin():
        while True:
            pass
"""


@pytest.fixture
def set_up(launch: Start, tmp_path: Path) -> Callable[..., Worker]:
    """Start a worker that is set up before it imports its module."""

    def set_up(**setup: Any) -> Worker:
        write(tmp_path, MODULE)
        worker = launch(env=ANNOUNCED)
        worker.set_up(**setup)
        return worker

    return set_up


def failure_of(worker: Worker) -> str:
    got = worker.receive()
    assert got.kind == HELLO
    message: str = got.payload["failure"]["message"]
    return message


def test_secrets_are_in_the_environment_before_the_module_is_imported(
    set_up: Callable[..., Worker],
) -> None:
    worker = set_up(env={"TOKEN": "hidden", "ÜNI": "cödé"})
    worker.welcome()
    assert worker.value("seen", {"name": "TOKEN"}) == ["hidden", "hidden"]
    assert worker.value("seen", {"name": "ÜNI"}) == ["cödé", "cödé"]
    assert worker.value("seen", {"name": "SYNAPSE_SETUP"}) == [None, None]


@linux
def test_secrets_are_not_in_what_the_system_shows(set_up: Callable[..., Worker]) -> None:
    worker = set_up(env={"TOKEN": "hidden-in-the-frame"})
    worker.welcome()
    for file in ("environ", "cmdline"):
        assert b"hidden-in-the-frame" not in Path(f"/proc/{worker.process.pid}/{file}").read_bytes()


def test_a_secret_that_no_environment_can_hold_fails_the_start(
    set_up: Callable[..., Worker],
) -> None:
    worker = set_up(env={"TOKEN": "hid\0den"})
    message = failure_of(worker)
    assert message == "the variable 'TOKEN' cannot be set: embedded null byte"
    assert worker.wait() == 1


def test_nothing_is_imported_before_the_setup(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, "open('imported', 'w').close()\n")
    worker = launch(env=ANNOUNCED)
    worker.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        worker.receive()
    assert not (tmp_path / "imported").exists()
    worker.socket.settimeout(30)
    worker.set_up()
    worker.welcome()
    assert (tmp_path / "imported").exists()


def test_a_setup_may_arrive_byte_by_byte(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, MODULE)
    worker = launch(env=ANNOUNCED)
    for byte in frame(SETUP, 0, encode({"env": {"TOKEN": "hidden"}})):
        worker.send(bytes([byte]))
    worker.welcome()
    assert worker.value("seen", {"name": "TOKEN"})[0] == "hidden"


def test_what_comes_with_the_setup_is_not_lost(launch: Start, tmp_path: Path) -> None:
    write(tmp_path, MODULE)
    worker = launch(env=ANNOUNCED)
    settings = {"protocol": 1, "maxFrameSize": 1 << 24, "concurrency": 1, "maxOpenCalls": 1024}
    worker.send(frame(SETUP, 0, encode({})) + frame(10, 0, encode(settings)))
    assert worker.receive().kind == HELLO
    assert worker.value("take", {"size": 3}) == 3


def test_without_an_announcement_nothing_is_waited_for(start: Start) -> None:
    worker = start(MODULE, env={"SYNAPSE_SETUP": "0"})
    assert worker.value("seen", {"name": "SYNAPSE_SETUP"}) == [None, None]


BROKEN = {
    "another frame": frame(PING, 1),
    "a Welcome": frame(10, 0, encode({"protocol": 1})),
    "text": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no payload": frame(SETUP),
    "a payload that does not decode": frame(SETUP, 0, b"\xc1"),
    "no map": frame(SETUP, 0, encode([])),
    "env that is no map": frame(SETUP, 0, encode({"env": []})),
    "env of numbers": frame(SETUP, 0, encode({"env": {"A": 1}})),
    "limits that are no map": frame(SETUP, 0, encode({"limits": 1})),
    "a limit that is none": frame(SETUP, 0, encode({"limits": {"openFiles": 0}})),
    "a limit of text": frame(SETUP, 0, encode({"limits": {"openFiles": "64"}})),
    "a limit that is true": frame(SETUP, 0, encode({"limits": {"openFiles": True}})),
    "a limit that nobody knows": frame(SETUP, 0, encode({"limits": {"threads": 1}})),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_host_that_sends_something_else_is_left(
    launch: Start, tmp_path: Path, data: bytes
) -> None:
    write(tmp_path, "open('imported', 'w').close()\n")
    worker = launch(env=ANNOUNCED)
    worker.send(data)
    assert worker.wait() == 76
    assert "the host broke the protocol" in worker.output()[1]
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("sent", [b"", b"\x20\0\0\0"])
def test_a_stream_that_ends_before_the_setup_ends_the_worker(
    launch: Start, tmp_path: Path, sent: bytes
) -> None:
    write(tmp_path, "open('imported', 'w').close()\n")
    worker = launch(env=ANNOUNCED)
    worker.send(sent)
    worker.socket.close()
    assert worker.wait() == 76
    assert not (tmp_path / "imported").exists()


def test_limits_are_those_of_the_process(set_up: Callable[..., Worker]) -> None:
    size = 4 << 30
    worker = set_up(limits={"addressSpace": size, "cpuSeconds": 60, "openFiles": 100})
    worker.welcome()
    assert worker.value("limits") == [[size, size], [60, 61], [100, 100]]


@linux
def test_memory_that_is_not_there_costs_its_own_call_alone(set_up: Callable[..., Worker]) -> None:
    worker = set_up(limits={"addressSpace": 1 << 30})
    worker.welcome()
    got = worker.call("take", {"size": 2 << 30})
    assert got.payload["type"] == "MemoryError" and got.kind != FAIL
    assert worker.value("take", {"size": 1 << 20}) == 1 << 20


def test_files_that_cannot_be_opened_cost_their_own_call_alone(
    set_up: Callable[..., Worker],
) -> None:
    worker = set_up(limits={"openFiles": 64})
    worker.welcome()
    got = worker.call("open_files")
    assert (got.payload["type"], "[Errno 24]" in got.payload["message"]) == ("OSError", True)
    assert worker.value("take", {"size": 1}) == 1


def test_time_that_is_used_up_ends_the_worker_by_its_own_signal(
    set_up: Callable[..., Worker],
) -> None:
    worker = set_up(limits={"cpuSeconds": 1})
    worker.welcome()
    worker.request("spin")
    assert worker.wait() == -signal.SIGXCPU


def test_a_limit_that_cannot_be_set_fails_the_start(set_up: Callable[..., Worker]) -> None:
    worker = set_up(limits={"openFiles": 1 << 60})
    assert failure_of(worker).startswith("limits.openFiles: a limit of 1152921504606846976 cannot")
    assert worker.wait() == 1


def test_a_control_group_that_cannot_be_joined_fails_the_start(
    set_up: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = set_up(limits={"cgroup": str(tmp_path / "nowhere")})
    assert failure_of(worker).startswith("limits.memoryMiB: the worker cannot join its control gro")


def test_a_control_group_is_joined_before_the_module_is_imported(
    launch: Start, tmp_path: Path
) -> None:
    # What stands for a group: its file takes whoever writes it.
    (tmp_path / "group").mkdir()
    source = """
        import synapse
        joined = open("group/cgroup.procs").read()

        @synapse.handler
        def main():
            return joined
    """
    write(tmp_path, source)
    worker = launch(env=ANNOUNCED)
    worker.set_up(limits={"cgroup": str(tmp_path / "group")})
    worker.welcome()
    assert worker.value("main") == "0"
