"""Values in shared memory, in both directions."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import wire
from wire import (
    CANCEL,
    CHUNK,
    CREDIT,
    DIE,
    FREE,
    INTERRUPTED,
    MAIN,
    PATIENCE,
    REQUEST,
    SUCCESS,
    Files,
    Got,
    Reference,
    Worker,
    array_head,
    encode,
    frame,
    shared,
)

numpy = pytest.importorskip("numpy")

Start = Callable[..., Worker]
THRESHOLD = 4096
SHARED = {"threshold": THRESHOLD, "capacity": 1 << 26}
F64, U8, I32 = 11, 3, 6

SOURCE = """
import gc, os, sys, threading
import synapse
kept = []

@synapse.handler
def echo(value): return value
@synapse.handler
async def echo_async(value): return value
@synapse.handler
def kind(value): return [type(value).__name__, len(value)]
@synapse.handler
def keep(value):
    kept.append(value)
    return float(value[0])
@synapse.handler
def look(): return float(kept[-1][0])
@synapse.handler
def look_at_first(): return int(kept[-1][0][0])
@synapse.handler
def give(): return kept[-1]
@synapse.handler
def change():
    kept[-1][0] += 1
    return float(kept[-1][0])
@synapse.handler
def drop(): kept.clear()
@synapse.handler
def drop_later():
    dropped = list(kept)
    kept.clear()
    go = threading.Event()
    def run():
        go.wait()
        dropped.clear()
    threading.Thread(target=run).start()
    threading.Timer(0.05, go.set).start()
@synapse.handler
def keep_part(value):
    kept.append(value["small"])
    return float(value["large"].sum())
@synapse.handler
def typed(data: bytes, other: bytes = b""): return len(data), len(other)
@synapse.handler
def fail(value): raise ValueError("no")
@synapse.handler
def part(value): return value[1:3]
@synapse.handler
def blocks(): gate.wait()
@synapse.handler
def ask(value): return synapse.host.call_sync("take", value)
@synapse.handler
def source(rows: synapse.Stream): return [float(row.sum()) for row in rows]
@synapse.handler
def threads(): return sorted(each.name for each in threading.enumerate())
@synapse.handler
def fork():
    pid = os.fork()
    if pid == 0:
        try:
            # Claims and regions die here, and are the parent's.
            kept.clear()
            made = synapse.empty(100_000)
            made[:] = 1
            del made
            gc.collect()
            for fd in (6, 7, 8):
                try:
                    os.fstat(fd)
                    os._exit(2)
                except OSError:
                    pass
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
@synapse.handler
def inherited():
    return [fd for fd in (6, 7, 8) if os.get_inheritable(fd)], os.environ.get("SYNAPSE_MEMORY")
"""
NUMPY = """
import numpy as np

@synapse.handler
def ones(n: int): return np.ones(n)
@synapse.handler
def inside(n: int): return {"a": [np.ones(n), {"b": np.arange(n, dtype="i4")}], "n": n}
@synapse.handler
def transposed(n: int): return np.arange(n * n, dtype="f8").reshape(n, n).T
@synapse.handler
def swapped(n: int): return np.arange(n, dtype=">f8")
@synapse.handler
def nothing(): return {"e": np.empty((0, 5)), "f": np.float32(2.5)}
@synapse.handler
def standard(n: int):
    import array
    return {"a": array.array("d", [0.5] * n)}
@synapse.handler
def data(n: int):
    return {"a": b"a" * n, "b": [bytearray(b"b" * n), b"small"], "c": {"d": {"e": b"deep" * n}}}
@synapse.handler
def text(n: int): return b"x" * n
@synapse.handler
def bad(n: int): return [np.ones(n), object()]
@synapse.handler
def made(n: int):
    result = synapse.empty((n, 2), "i4")
    result[:] = 7
    kept.append(result)
    return {"made": result}
@synapse.handler
def make_only(n: int):
    result = synapse.empty(n)
    return type(result.base).__name__
@synapse.handler
def items(n: int, count: int):
    for index in range(count):
        yield np.full(n, float(index))
@synapse.handler
async def items_async(n: int, count: int):
    for index in range(count):
        yield {"item": np.full(n, float(index))}
@synapse.handler
def bad_items(n: int):
    yield np.ones(n)
    yield [np.ones(n), object()]
@synapse.handler
def no_fallocate():
    def posix_fallocate(*_):
        raise OSError(28, "No space left on device")
    os.posix_fallocate = posix_fallocate
@synapse.handler
def no_pwrite():
    def pwrite(*_):
        raise OSError(28, "No space left on device")
    os.pwrite = pwrite
"""


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files(3)
    yield files
    files.close()


def hiding(*modules: str) -> list[str] | None:
    if not modules:
        return None
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({modules!r}));"
        f"sys.argv[0] = {str(MAIN)!r}; runpy.run_path({str(MAIN)!r}, run_name='__main__')"
    )
    return ["-c", code]


@pytest.fixture
def worker(start: Start, files: Files) -> Worker:
    return start(SOURCE + NUMPY, files=files, welcome={"sharedMemory": SHARED})


HIDDEN: dict[str, tuple[str, ...]] = {
    "msgspec": (),
    "msgpack": ("msgspec",),
    "python": ("msgspec", "msgpack"),
}


@pytest.fixture(params=HIDDEN)
def any_worker(request: pytest.FixtureRequest, start: Start, files: Files) -> Worker:
    """A worker with each codec."""
    worker = start(
        SOURCE + NUMPY,
        files=files,
        welcome={"sharedMemory": SHARED},
        launcher=hiding(*HIDDEN[request.param]),
    )
    assert worker.hello["codec"] == request.param
    return worker


def floats(n: int = 1000, first: float = 0) -> bytes:
    return struct.pack(f"<{n}d", *(first + index for index in range(n)))


def put_floats(files: Files, n: int = 1000, first: float = 0, file: int = 0) -> tuple[Any, Any]:
    reference = files.put(floats(n, first), file)
    return shared(reference, array_head(F64, n)), reference


def send(worker: Worker, method: str, value: Any, *references: Reference, **meta: Any) -> Got:
    id = worker.request(method, value, references=references, **meta)
    got = worker.receive()
    assert got.id == id, got
    return got


def value_of(worker: Worker, method: str, value: Any, *references: Reference) -> Any:
    got = send(worker, method, value, *references)
    assert got.kind == SUCCESS, got
    return got.payload


def resolve(files: Files, got: Got) -> Any:
    """The payload, with bytes and arrays in the place of what stands for them."""
    by_serial = {each.serial: each for each in got.references}
    assert len(by_serial) == len(got.references)

    def walk(value: Any) -> Any:
        if isinstance(value, msgspec.msgpack.Ext):
            assert value.code in (1, 3)
            if value.code == 3:
                reference = by_serial[struct.unpack("<I", value.data[:4])[0]]
                data, head = files.read(reference), bytes(value.data[4:])
                if not head:
                    return data
            else:
                head = bytes(value.data[: 2 + 4 * value.data[1]])
                data = bytes(value.data[len(head) :])
            kind = {F64: "<f8", U8: "u1", I32: "<i4"}[head[0]]
            shape = struct.unpack(f"<{head[1]}I", head[2:])
            return numpy.frombuffer(data, kind).reshape(shape)
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return walk(got.payload)


# What arrives


def test_an_array_lies_where_the_host_has_put_it(worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    assert value_of(worker, "keep", value, reference) == 0.0
    files.write(reference, struct.pack("<d", 42.5))
    assert worker.value("look") == 42.5
    assert worker.value("change") == 43.5
    assert files.read(reference)[:8] == struct.pack("<d", 43.5)


def test_arrays_and_bytes_arrive_with_every_codec(any_worker: Worker, files: Files) -> None:
    value, reference = put_floats(files, 5000)
    data = files.put(os.urandom(10_000))
    payload = {
        "a": value,
        "b": shared(data),
        "c": msgspec.msgpack.Ext(1, array_head(U8, 2) + b"hi"),
    }
    got = send(any_worker, "echo", payload, reference, data)
    assert got.kind == SUCCESS
    answer = resolve(files, got)
    assert answer["a"].tobytes() == floats(5000)
    assert answer["b"] == files.read(data)
    assert answer["c"].tobytes() == b"hi"
    assert sorted((any_worker.freed(), any_worker.freed())) == [reference.region, data.region]
    any_worker.quiet()


def test_bytes_arrive_where_bytes_are_declared(any_worker: Worker, files: Files) -> None:
    data, other = files.put(b"d" * 5000), files.put(b"o" * 70_000)
    payload = {"data": shared(data), "other": shared(other)}
    assert value_of(any_worker, "typed", payload, data, other) == [5000, 70_000]
    assert {any_worker.freed(), any_worker.freed()} == {data.region, other.region}
    got = send(any_worker, "typed", {"data": shared(data, array_head(U8, 5000))}, data)
    assert (got.kind, got.payload["path"]) == (DIE, "$.data")
    assert any_worker.freed() == data.region
    any_worker.quiet()


@pytest.mark.parametrize("codec", HIDDEN)
def test_without_numpy_arrays_are_those_of_the_standard_library(
    start: Start, files: Files, codec: str
) -> None:
    hidden = hiding("numpy", *HIDDEN[codec])
    worker = start(SOURCE, files=files, welcome={"sharedMemory": SHARED}, launcher=hidden)
    value, reference = put_floats(files)
    assert value_of(worker, "kind", value, reference) == ["array", 1000]
    assert worker.freed() == reference.region
    matrix = shared(reference, array_head(F64, 10, 100))
    assert value_of(worker, "kind", matrix, reference) == ["memoryview", 10]
    assert worker.freed() == reference.region
    got = send(worker, "echo", value, reference)
    assert resolve(files, got).tobytes() == floats()
    assert got.references[0].file == 1
    worker.freed()
    got = worker.call("drop")
    assert got.kind == SUCCESS


def test_empty_needs_numpy(start: Start, files: Files) -> None:
    source = "import synapse\n@synapse.handler\ndef made(): return synapse.empty(5)"
    worker = start(source, files=files, launcher=hiding("numpy"))
    got = worker.call("made")
    assert (got.payload["type"], got.kind) == ("ImportError", DIE)
    assert "numpy" in got.payload["message"]


def test_empty_arrays_and_bytes(any_worker: Worker, files: Files) -> None:
    reference = files.put(b"")
    value = [shared(reference, array_head(F64, 0, 3)), shared(reference)]
    got = send(any_worker, "echo", value, reference)
    array, data = resolve(files, got)
    assert (array.shape, data) == ((0, 3), b"")
    assert any_worker.freed() == reference.region
    got = any_worker.call("nothing")
    assert resolve(files, got)["e"].shape == (0, 5) and got.references == ()


def test_what_lies_askew_is_copied(worker: Worker, files: Files) -> None:
    reference = files.put(floats(), skip=3)
    got = send(worker, "echo", shared(reference, array_head(F64, 1000)), reference)
    assert resolve(files, got).tobytes() == floats()
    assert got.references[0].file == 1
    assert worker.freed() == reference.region


def test_a_region_is_used_again_with_more_in_it(worker: Worker, files: Files) -> None:
    small, reference = put_floats(files, 100)
    assert value_of(worker, "kind", small, reference) == ["ndarray", 100]
    assert worker.freed() == reference.region
    n = 100_000
    os.ftruncate(files.fileno(0), reference.start + 8 * n)
    larger = reference._replace(serial=1, length=8 * n)
    files.write(larger, floats(n, 5))
    got = send(worker, "echo", shared(larger, array_head(F64, n)), larger)
    assert resolve(files, got).tobytes() == floats(n, 5)


def test_many_regions_are_mapped(worker: Worker, files: Files) -> None:
    put = [put_floats(files, 600, index) for index in range(150)]
    for index, (value, reference) in enumerate(put):
        assert value_of(worker, "keep", value, reference) == float(index)
    assert worker.value("look") == 149.0
    assert worker.value("drop") is None
    assert {worker.freed() for _ in put} == {reference.region for _, reference in put}


# Free


def test_memory_is_free_once_nothing_needs_it(any_worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    assert value_of(any_worker, "keep", value, reference) == 0.0
    any_worker.quiet()
    assert any_worker.value("drop") is None
    assert any_worker.freed() == reference.region
    any_worker.quiet()


def test_memory_that_is_dropped_in_an_idle_worker_is_free_soon(
    worker: Worker, files: Files
) -> None:
    value, reference = put_floats(files)
    value_of(worker, "keep", value, reference)
    assert worker.value("drop_later") is None
    assert worker.freed() == reference.region


@pytest.mark.parametrize("method", ["fail", "missing", "typed"])
def test_a_call_that_fails_needs_no_memory(worker: Worker, files: Files, method: str) -> None:
    value, reference = put_floats(files)
    got = send(worker, method, value, reference)
    assert got.kind == DIE
    assert worker.freed() == reference.region
    worker.quiet()


def test_each_reference_is_free_once(worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    again = reference._replace(serial=5)
    got = send(worker, "kind", [value, shared(again)], reference, again)
    assert got.payload == ["list", 2]
    assert [worker.freed(), worker.freed()] == [reference.region] * 2
    worker.quiet()


def test_calls_that_do_not_start_need_no_memory(start: Start, files: Files) -> None:
    gate = "import threading\ngate = threading.Event()\n"
    worker = start(gate + SOURCE, files=files, welcome={"sharedMemory": SHARED})
    worker.request("blocks")
    value, reference = put_floats(files)
    id = worker.request("echo", value, references=[reference])
    worker.cancel(id)
    assert worker.receive().kind == INTERRUPTED
    assert worker.freed() == reference.region
    id = worker.request("echo", value, references=[reference])
    worker.send(frame(wire.RECALL))
    worker.send(frame(wire.RECALL, id))
    assert worker.receive().kind == DIE
    assert worker.freed() == reference.region
    # Frames for what is not there.
    worker.send(frame(CHUNK, 99, encode([value]), references=[reference]))
    assert worker.freed() == reference.region
    worker.send(frame(200, 99, encode([value]), references=[reference]))
    assert worker.freed() == reference.region
    worker.quiet()


def test_an_array_beside_it_holds_no_memory(any_worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    small = msgspec.msgpack.Ext(1, array_head(F64, 2) + floats(2))
    payload = {"large": value, "small": small}
    assert value_of(any_worker, "keep_part", payload, reference) == sum(range(1000))
    assert any_worker.freed() == reference.region


def test_calls_that_come_with_the_welcome_need_no_memory_later(
    launch: Start, files: Files, tmp_path: Any
) -> None:
    wire.write(tmp_path, SOURCE)
    worker = launch(files=files)
    assert worker.receive().kind == wire.HELLO
    value, reference = put_floats(files)
    settings = {"protocol": 1, "maxFrameSize": 1 << 24, "concurrency": 1, "maxOpenCalls": 10}
    welcome = frame(wire.WELCOME, 0, encode({**settings, "sharedMemory": SHARED}))
    meta = encode({"method": "kind"})
    worker.send(welcome + frame(REQUEST, 1, encode(value), meta, [reference]))
    assert worker.receive().payload == ["ndarray", 1000]
    assert worker.freed() == reference.region


def test_a_forked_child_says_nothing_of_the_memory(worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    value_of(worker, "keep", value, reference)
    assert worker.value("fork") == 0
    assert worker.value("look") == 0.0
    worker.quiet()
    worker.value("drop")
    assert worker.freed() == reference.region
    worker.quiet()


def test_programs_do_not_inherit_the_files(worker: Worker) -> None:
    assert worker.value("inherited") == [[], None]


# What is sent


def test_large_arrays_are_referred_to(any_worker: Worker, files: Files) -> None:
    got = any_worker.call("inside", {"n": 2000})
    assert len(got.references) == 2
    assert all(each.file == 1 and each.start % 65_536 == 0 for each in got.references)
    answer = resolve(files, got)
    assert answer["n"] == 2000
    assert answer["a"][0].tolist() == [1.0] * 2000
    assert answer["a"][1]["b"].tolist() == list(range(2000))


@pytest.mark.parametrize("method", ["ones", "transposed", "swapped", "standard", "text"])
def test_whatever_its_layout_an_array_arrives_as_it_is(
    any_worker: Worker, files: Files, method: str
) -> None:
    expected = {
        "ones": numpy.ones(900),
        "transposed": numpy.arange(900.0 * 900).reshape(900, 900).T,
        "swapped": numpy.arange(900.0),
        "standard": numpy.full(900, 0.5),
    }
    # The second time there is memory already.
    for _ in range(3):
        got = any_worker.call(method, {"n": 10_000 if method == "text" else 900})
        (reference,) = got.references
        answer = resolve(files, got)
        if method == "text":
            assert answer == b"x" * 10_000
        else:
            answer = answer["a"] if method == "standard" else answer
            assert answer.tolist() == expected[method].tolist()
        any_worker.free(reference)
    assert reference.region == 1 << 30


def test_large_byte_strings_are_referred_to(any_worker: Worker, files: Files) -> None:
    got = any_worker.call("data", {"n": 5000})
    assert [each.length for each in got.references] == [5000, 5000]
    assert resolve(files, got) == {
        "a": b"a" * 5000,
        "b": [b"b" * 5000, b"small"],
        "c": {"d": {"e": b"deep" * 5000}},
    }


def test_small_values_are_not(any_worker: Worker, files: Files) -> None:
    for method, n in (("ones", 500), ("inside", 500), ("data", 500), ("text", 4095)):
        got = any_worker.call(method, {"n": n})
        assert (got.kind, got.references) == (SUCCESS, ())
    assert files.size(1) == 0


def test_regions_are_used_again(worker: Worker, files: Files) -> None:
    first = worker.call("ones", {"n": 1000}).references[0]
    second = worker.call("ones", {"n": 1000}).references[0]
    assert first.region != second.region and first.serial != second.serial
    worker.free(first)
    third = worker.call("ones", {"n": 1000}).references[0]
    assert (third.region, third.start) == (first.region, first.start)
    # A Free for what is not in use.
    for _ in range(3):
        worker.free(second)
    for region in (0, 5, (1 << 30) + 77, 3 << 30):
        worker.send(frame(FREE, region))
    fourth = worker.call("ones", {"n": 1000}).references[0]
    fifth = worker.call("ones", {"n": 1000}).references[0]
    assert fourth.region == second.region
    assert fifth.region not in (first.region, second.region)
    assert resolve(files, worker.call("ones", {"n": 70_000})).tolist() == [1.0] * 70_000


def test_without_room_values_travel_in_their_message(start: Start, files: Files) -> None:
    welcome = {"sharedMemory": {"threshold": THRESHOLD, "capacity": 2 * 65_536}}
    worker = start(SOURCE + NUMPY, files=files, welcome=welcome)
    first = worker.call("ones", {"n": 1000}).references[0]
    assert len(worker.call("ones", {"n": 1000}).references) == 1
    for method in ("ones", "inside", "data", "transposed"):
        got = worker.call(method, {"n": 900})
        assert (got.kind, got.references) == (SUCCESS, ())
        assert resolve(files, got) is not None
    assert worker.value("make_only", {"n": 1000}) == "NoneType"
    worker.free(first)
    assert len(worker.call("ones", {"n": 1000}).references) == 1
    assert worker.call("ones", {"n": 10_000}).references == ()


def test_what_is_of_the_wrong_size_makes_room(start: Start, files: Files) -> None:
    welcome = {"sharedMemory": {"threshold": THRESHOLD, "capacity": 4 * 65_536}}
    worker = start(SOURCE + NUMPY, files=files, welcome=welcome)
    small = [worker.call("ones", {"n": 1000}).references[0] for _ in range(4)]
    assert worker.call("ones", {"n": 30_000}).references == ()
    for each in small:
        worker.free(each)
    got = worker.call("ones", {"n": 30_000})
    assert len(got.references) == 1
    assert resolve(files, got).tolist() == [1.0] * 30_000


def test_a_file_system_without_room(worker: Worker, files: Files) -> None:
    worker.value("no_fallocate")
    got = worker.call("transposed", {"n": 100})
    assert got.references == () and resolve(files, got)[0, 1] == 100.0
    assert worker.value("make_only", {"n": 1000}) == "NoneType"
    worker.value("no_pwrite")
    for method in ("ones", "data", "text", "standard"):
        got = worker.call(method, {"n": 5000})
        assert (got.kind, got.references) == (SUCCESS, ())
        assert resolve(files, got) is not None


def test_what_is_not_sent_after_all_is_given_back(worker: Worker) -> None:
    for _ in range(3):
        got = worker.call("bad", {"n": 1000})
        assert got.meta["reason"] == "EncodeFailed" and got.payload["path"] == "$[1]"
        assert got.references == ()
        items, end = worker.items(worker.stream("bad_items", {"n": 1000}))
        assert end.meta["reason"] == "EncodeFailed" and len(items) == 1
        worker.send(frame(FREE, 1 << 30))
    assert worker.call("ones", {"n": 1000}).references[0].region == 1 << 30


def test_an_answer_that_is_too_large_is_given_back(start: Start, files: Files) -> None:
    welcome = {"sharedMemory": SHARED, "maxFrameSize": 60}
    worker = start(SOURCE + NUMPY, files=files, welcome=welcome)
    got = worker.call("inside", {"n": 2000})
    assert got.kind == DIE
    assert worker.call("ones", {"n": 1000}).references[0].region == 1 << 30


# By reference


@pytest.mark.parametrize("method", ["echo", "echo_async"])
@pytest.mark.parametrize("file", [0, 2])
def test_what_was_given_is_referred_to(
    any_worker: Worker, files: Files, method: str, file: int
) -> None:
    value, reference = put_floats(files, file=file)
    any_worker.request(method, {"back": value}, references=[reference])
    got, free = any_worker.receive_any(), any_worker.receive_any()
    assert [each[1:] for each in got.references] == [reference[1:]]
    # Behind the answer.
    assert (got.kind, free.kind, free.id) == (SUCCESS, FREE, reference.region)
    any_worker.quiet()
    assert files.size(1) == 0


def test_a_part_of_what_was_given_is_referred_to(worker: Worker, files: Files) -> None:
    _, reference = put_floats(files, 6000)
    matrix = shared(reference, array_head(F64, 6, 1000))
    got = send(worker, "part", matrix, reference)
    assert [each[1:] for each in got.references] == [
        (reference.region, reference.start, reference.offset + 8000, 16_000)
    ]
    assert resolve(files, got).tobytes() == floats(6000)[8000:24_000]


def test_a_small_part_is_copied_but_of_the_file_that_stays(worker: Worker, files: Files) -> None:
    for file, referred in ((0, 0), (2, 1)):
        value, reference = put_floats(files, file=file)
        got = send(worker, "part", value, reference)
        assert len(got.references) == referred
        assert resolve(files, got).tolist() == [1.0, 2.0]
        worker.freed()


def test_what_was_referred_to_cannot_be_changed_any_more(worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    value_of(worker, "keep", value, reference)
    assert worker.value("change") == 1.0
    got = worker.call("give")
    assert [each[1:] for each in got.references] == [reference[1:]]
    for _ in range(2):
        got = worker.call("change")
        assert (got.kind, got.payload["type"]) == (DIE, "ValueError")
        assert "read-only" in got.payload["message"]
        # The same with what was made there.
        assert len(worker.call("made", {"n": 1000}).references) == 1


def test_an_array_that_was_made_there_is_not_copied(any_worker: Worker, files: Files) -> None:
    got = any_worker.call("made", {"n": 1000})
    (reference,) = got.references
    assert resolve(files, got)["made"].tolist() == [[7, 7]] * 1000
    files.write(reference, struct.pack("<i", 9))
    assert any_worker.value("look_at_first") == 9
    # It is in use here, and here.
    any_worker.free(reference)
    other = any_worker.call("ones", {"n": 1000}).references[0]
    assert other.region != reference.region
    any_worker.value("drop")
    third = any_worker.call("ones", {"n": 1000}).references[0]
    assert third.region == reference.region


def test_what_the_worker_has_sent_comes_back(worker: Worker, files: Files) -> None:
    sent = worker.call("ones", {"n": 1000}).references[0]
    back = sent._replace(serial=1)
    worker.request("keep", shared(back, array_head(F64, 1000)), references=[back])
    worker.free(sent)
    assert worker.receive().payload == 1.0
    # Nobody says Free for it, and it is in use.
    worker.quiet()
    assert worker.call("ones", {"n": 1000}).references[0].region != sent.region
    files.write(sent, struct.pack("<d", 3.5))
    assert worker.value("look") == 3.5
    worker.value("drop")
    assert worker.call("ones", {"n": 1000}).references[0].region == sent.region


# Streams and what Python asks


@pytest.mark.parametrize("method", ["items", "items_async"])
def test_large_items_wait_for_credit(any_worker: Worker, files: Files, method: str) -> None:
    n = 100_000
    id = any_worker.stream(method, {"n": n, "count": 4})
    got = any_worker.receive()
    seen = 0
    while got.kind == CHUNK:
        (reference,) = got.references
        (item,) = resolve(files, got)
        item = item["item"] if method == "items_async" else item
        assert item.tolist() == [float(seen)] * n
        seen += 1
        if seen < 4:
            # 800,000 bytes: with the next one it is over a MiB, which waits.
            any_worker.quiet()
        any_worker.free(reference)
        any_worker.credit(id, 1)
        got = any_worker.receive()
    assert (got.kind, seen) == (SUCCESS, 4)
    assert files.size(1) <= 2 << 20


def test_a_stream_that_is_given_up_gives_back(worker: Worker) -> None:
    id = worker.stream("items", {"n": 100_000, "count": 4})
    reference = worker.receive().references[0]
    worker.quiet()
    worker.cancel(id)
    assert worker.receive().kind == INTERRUPTED
    worker.free(reference)
    assert worker.call("ones", {"n": 100_000}).references[0].region == reference.region


def test_the_host_is_asked_with_large_values(any_worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    id = any_worker.request("ask", {"a": value, "b": b"z" * 5000}, references=[reference])
    asked = any_worker.asked("take")
    # Copied: only the value of a call refers to what was given.
    assert {each.file for each in asked.references} == {1}
    assert resolve(files, asked)["a"].tobytes() == floats()
    assert resolve(files, asked)["b"] == b"z" * 5000
    answer, of_answer = put_floats(files, 2000, 7)
    any_worker.send(frame(SUCCESS, asked.id, encode([answer]), references=[of_answer]))
    got = any_worker.receive()
    assert (got.kind, got.id) == (SUCCESS, id)
    assert [each[1:] for each in got.references] == [of_answer[1:]]
    assert resolve(files, got)[0].tobytes() == floats(2000, 7)
    assert {any_worker.freed(), any_worker.freed()} == {reference.region, of_answer.region}


def test_items_of_the_host_lie_in_memory(any_worker: Worker, files: Files) -> None:
    rows = msgspec.msgpack.Ext(2, (5).to_bytes(4, "little"))
    id = any_worker.request("source", {"rows": rows})
    asked = any_worker.asked()
    first, of_first = put_floats(files)
    second, of_second = put_floats(files, 1000, 1)
    items = encode([first, second])
    any_worker.send(frame(CHUNK, asked.id, items, references=[of_first, of_second]))
    any_worker.answer(asked.id)
    while (got := any_worker.receive()).id != id or got.kind != SUCCESS:
        assert got.kind in (CREDIT, CANCEL)
    assert got.payload == [499_500.0, 500_500.0]
    assert sorted((any_worker.freed(), any_worker.freed())) == [of_first.region, of_second.region]


# The end of it


def test_an_idle_worker_gives_its_memory_back(worker: Worker, files: Files) -> None:
    reference = worker.call("ones", {"n": 100_000}).references[0]
    assert files.size(1) >= 800_000
    worker.free(reference)
    end = time.monotonic() + PATIENCE
    while files.size(1):
        assert time.monotonic() < end, "the memory is kept"
        time.sleep(0.05)
    again = worker.call("transposed", {"n": 300})
    assert again.references[0][1:3] == reference[1:3]
    assert resolve(files, again)[0, 1] == 300.0


def test_memory_in_use_is_not_given_back(files: Files) -> None:
    from synapse._regions import Regions

    regions = Regions(files.fileno(1), 1 << 20, lambda: None)
    region = regions.take(100)
    assert region is not None
    regions.reserve(region, 100)
    regions.trim(0)
    assert files.size(1) > 0
    regions.send(region)
    regions.trim(0)
    assert files.size(1) > 0 and regions.backed == 65_536
    assert regions.free(region.number) and not regions.free(region.number)
    regions.trim(60)
    assert files.size(1) > 0
    regions.trim(0)
    assert files.size(1) == 0 and regions.backed == 0
    assert regions.take(100) is region


def test_regions_that_finalizers_leave_are_used_again(files: Files) -> None:
    from synapse._regions import Regions

    regions = Regions(files.fileno(1), 3 * 65_536, lambda: None)
    taken = [regions.take(65_536) for _ in range(3)]
    assert None not in taken and regions.take(1) is None
    regions.let_go(taken[1])  # type: ignore[arg-type]
    assert regions.take(1) is taken[1]
    assert regions.take(1) is None


# Without


def test_nothing_changes_without_files(start: Start) -> None:
    worker = start(SOURCE + NUMPY, welcome={"sharedMemory": SHARED})
    got = worker.call("ones", {"n": 10_000})
    assert (got.kind, got.references, got.payload.code) == (SUCCESS, (), 1)
    assert worker.value("make_only", {"n": 10_000}) == "NoneType"
    reference = Reference(1, 0, 0, 0, 8000)
    got = send(worker, "echo", shared(reference, array_head(F64, 1000)), reference)
    assert got.meta["reason"] == "DecodeFailed"
    assert worker.value("echo", 5) == 5


def test_nothing_changes_where_the_host_does_not_share(start: Start, files: Files) -> None:
    worker = start(SOURCE + NUMPY, files=files)
    got = worker.call("ones", {"n": 10_000})
    assert (got.kind, got.references, got.payload.code) == (SUCCESS, (), 1)
    assert "synapse-memory" not in worker.value("threads")
    value, reference = put_floats(files)
    got = send(worker, "echo", value, reference)
    assert got.meta["reason"] == "DecodeFailed"
    assert worker.freed() == reference.region


def test_two_files_are_enough(start: Start) -> None:
    files = Files(2)
    try:
        worker = start(SOURCE + NUMPY, files=files, welcome={"sharedMemory": SHARED})
        value, reference = put_floats(files)
        got = send(worker, "echo", value, reference)
        assert resolve(files, got).tobytes() == floats()
        assert worker.freed() == reference.region
        other = reference._replace(region=2 << 30, serial=7)
        got = send(worker, "echo", shared(other, array_head(F64, 1000)), other)
        assert got.meta["reason"] == "DecodeFailed"
    finally:
        files.close()


@pytest.mark.parametrize("said", ["1", "4", "yes"])
def test_a_number_of_files_that_is_none_is_refused(launch: Start, tmp_path: Any, said: str) -> None:
    wire.write(tmp_path, SOURCE)
    assert launch(env={"SYNAPSE_MEMORY": said}).wait() == 78


def test_files_that_are_not_there_are_refused(launch: Start, tmp_path: Any) -> None:
    wire.write(tmp_path, SOURCE)
    worker = launch(env={"SYNAPSE_MEMORY": "2"})
    assert worker.wait() == 78
    assert "shared memory" in worker.output()[1]


@pytest.mark.parametrize(
    "said", [5, {}, {"threshold": 1}, {"threshold": -1, "capacity": 5}, {"threshold": 1.5}]
)
def test_a_welcome_that_says_something_else_is_refused(
    start: Start, files: Files, said: Any
) -> None:
    worker = start(SOURCE, files=files, welcome={"sharedMemory": said})
    assert worker.wait() == 76


# Hosts that are broken


UNIT = 65_536
BAD: dict[str, Callable[[Reference], Reference]] = {
    "beyond its file": lambda r: r._replace(offset=r.offset + (1 << 20)),
    "too long": lambda r: r._replace(length=1 << 40),
    "far away": lambda r: r._replace(offset=(1 << 64) - 1, length=(1 << 64) - 1),
    "before its region": lambda r: r._replace(start=r.start + UNIT),
    "askew": lambda r: r._replace(start=r.start + 1, offset=r.offset + 1),
    "in no file": lambda r: r._replace(region=3 << 30),
    "in a region of the worker's": lambda r: r._replace(region=1 << 30),
    "shorter than its array": lambda r: r._replace(length=7992),
    "empty": lambda r: r._replace(length=0),
}


@pytest.mark.parametrize("what", BAD)
def test_a_reference_to_nowhere_fails_its_call(any_worker: Worker, files: Files, what: str) -> None:
    files.put(b"first")
    value, reference = put_floats(files)
    bad = BAD[what](reference)
    got = send(any_worker, "echo", {"a": value}, bad)
    assert (got.kind, got.meta["reason"]) == (DIE, "DecodeFailed"), got
    if bad.file != 1:
        assert any_worker.freed() == bad.region
    assert any_worker.value("echo", 5) == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        struct.pack("<I", 999),
        struct.pack("<I", 4000) + bytes((F64,)),
        struct.pack("<I", 4000) + bytes((F64, 33)),
        struct.pack("<I", 4000) + bytes((99, 0)),
        struct.pack("<I", 4000) + array_head(F64, 1000)[:-1],
        struct.pack("<I", 4000) + array_head(F64, 1000) + b"x",
        struct.pack("<I", 4000) + array_head(F64, 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack("<I", 4000) + array_head(F64, 1, 999),
    ],
)
def test_what_stands_for_a_value_and_does_not_fails_its_call(
    any_worker: Worker, files: Files, data: bytes
) -> None:
    reference = files.put(floats())._replace(serial=4000)
    got = send(any_worker, "echo", msgspec.msgpack.Ext(3, data), reference)
    assert (got.kind, got.meta["reason"]) == (DIE, "DecodeFailed"), got
    assert any_worker.freed() == reference.region
    got = any_worker.call("echo", msgspec.msgpack.Ext(3, data))
    assert (got.kind, got.meta["reason"]) == (DIE, "DecodeFailed"), got


def test_a_region_that_has_moved_fails_its_call(worker: Worker, files: Files) -> None:
    files.put(b"first")
    value, reference = put_floats(files)
    assert value_of(worker, "kind", value, reference) == ["ndarray", 1000]
    worker.freed()
    moved = reference._replace(start=0)
    got = send(worker, "echo", value, moved)
    assert got.meta["reason"] == "DecodeFailed"


def test_references_that_overlap_are_served(worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    other = reference._replace(serial=3, offset=reference.offset + 8, length=7992)
    payload = [value, shared(other, array_head(F64, 999)), value, shared(reference)]
    got = send(worker, "echo", payload, reference, other)
    first, second, third, data = resolve(files, got)
    assert first.tobytes() == third.tobytes() == data == floats()
    assert second.tobytes() == floats()[8:]
    assert {worker.freed(), worker.freed()} == {reference.region}
    worker.quiet()


@pytest.mark.parametrize("tail", [b"", b"\1", b"\1\0", b"\xff\xff", bytes(31) + b"\1\0"])
def test_a_frame_without_room_for_its_references_breaks_the_protocol(
    worker: Worker, tail: bytes
) -> None:
    worker.send(struct.pack("<IBBHI", 8 + len(tail), REQUEST, 1, 0, 5) + tail)
    assert worker.wait() == 76


def test_flags_that_mean_nothing_are_ignored(worker: Worker) -> None:
    meta, payload = encode({"method": "echo"}), encode(5)
    header = struct.pack("<IBBHI", 8 + len(meta) + len(payload), REQUEST, 0xFE, len(meta), 9)
    worker.send(header + meta + payload)
    assert worker.receive().payload == 5


def test_references_of_a_large_frame(worker: Worker, files: Files) -> None:
    value, reference = put_floats(files)
    payload = {"a": value, "filling": "x" * 400_000}
    got = send(worker, "echo", payload, reference)
    assert resolve(files, got)["a"].tobytes() == floats()
    assert worker.freed() == reference.region
