"""Arrow tables, in messages and in shared memory, in both directions."""

from __future__ import annotations

import datetime as dt
import io
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from test_memory import HIDDEN, SHARED, hiding
from wire import CHUNK, DIE, FREE, SUCCESS, Files, Got, Reference, Worker, shared

pyarrow = pytest.importorskip("pyarrow", reason="there are no wheels of pyarrow for this Python")

Start = Callable[..., Worker]
HEAD = b"\x80\x00"

SOURCE = """
import gc
import synapse
kept = []

@synapse.handler
def echo(value, /): return value
@synapse.handler
def kind(value, /): return type(value).__name__
@synapse.handler
def keep(value, /):
    kept.append(value)
    return value.num_rows
@synapse.handler
def look(): return kept[-1].column(0)[0].as_py()
@synapse.handler
def is_mutable():
    return [buffer.is_mutable for buffer in kept[-1].column(0).chunk(0).buffers() if buffer]
@synapse.handler
def keep_column():
    kept[:] = [kept[-1].column(0).to_numpy()]
@synapse.handler
def first(): return float(kept[-1][0])
@synapse.handler
def drop():
    kept.clear()
    gc.collect()
"""
TYPED = """
import pyarrow as pa

@synapse.handler
def table(table: pa.Table): return [type(table).__name__, table.num_rows]
@synapse.handler
def batch(batch: pa.RecordBatch): return [type(batch).__name__, batch.num_rows, batch.num_columns]
@synapse.handler
def reader(reader: pa.RecordBatchReader): return [each.num_rows for each in reader]
@synapse.handler
def as_batch(n: int): return pa.record_batch({"n": pa.array(range(n))})
@synapse.handler
def as_reader(n: int):
    batches = [pa.record_batch({"n": pa.array(range(n))}) for _ in range(3)]
    return {"read": pa.RecordBatchReader.from_batches(batches[0].schema, batches), "set": {1}}
@synapse.handler
def inside(n: int):
    table = pa.table({"n": pa.array(range(n))})
    return {"a": [table, {"b": table.slice(1, 2)}], "c": 1}
@synapse.handler
def scan(n: int, count: int):
    for index in range(count):
        yield pa.record_batch({"n": pa.array([index] * n)})
@synapse.handler
def scalar(): return {"rows": [pa.scalar(1)]}
@synapse.handler
def column(): return pa.chunked_array([[1]])
"""


@pytest.fixture
def files() -> Iterator[Files]:
    files = Files(3)
    yield files
    files.close()


@pytest.fixture(params=HIDDEN)
def any_worker(request: pytest.FixtureRequest, start: Start, files: Files) -> Worker:
    """A worker with each codec."""
    worker = start(
        SOURCE + TYPED,
        files=files,
        welcome={"sharedMemory": SHARED},
        launcher=hiding(*HIDDEN[request.param]),
    )
    assert worker.hello["codec"] == request.param
    return worker


def everything() -> Any:
    """A table with a column of most kinds, in two batches with other dictionaries."""
    when = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.timezone.utc)

    def batch(words: list[str]) -> Any:
        return pyarrow.record_batch(
            {
                "integer": pyarrow.array([1, None, 2**62]),
                "float": pyarrow.array([0.5, float("nan"), None], pyarrow.float32()),
                "text": pyarrow.array(["naïve", None, ""]),
                "word": pyarrow.array(words).dictionary_encode(),
                "list": pyarrow.array([[1, 2], [], None]),
                "struct": pyarrow.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": []}]),
                "when": pyarrow.array([when, None, when], pyarrow.timestamp("us", "UTC")),
                "null": pyarrow.nulls(3),
            }
        )

    return pyarrow.Table.from_batches([batch(["a", "b", "a"]), batch(["c", "c", "a"])])


def stream_of(table: Any) -> bytes:
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return sink.getvalue()


def numbers(n: int, first: float = 0) -> Any:
    return pyarrow.table({"n": pyarrow.array([first + index for index in range(n)])})


def in_message(table: Any) -> Any:
    return msgspec.msgpack.Ext(4, stream_of(table))


def in_memory(files: Files, table: Any) -> tuple[Any, Reference]:
    reference = files.put(stream_of(table))
    return shared(reference, HEAD), reference


def resolve(files: Files, got: Got) -> Any:
    """The payload, with tables in the place of what stands for them."""
    by_serial = {each.serial: each for each in got.references}

    def walk(value: Any) -> Any:
        if isinstance(value, msgspec.msgpack.Ext):
            data: Any = value.data
            if value.code == 3:
                assert data[4:] == HEAD
                data = files.read(by_serial[struct.unpack("<I", data[:4])[0]])
            else:
                assert value.code == 4
            return pyarrow.ipc.open_stream(data).read_all()
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return walk(got.payload)


def send(worker: Worker, method: str, value: Any, *references: Reference) -> Got:
    id = worker.request(method, value, references=references)
    got = worker.receive()
    assert got.id == id, got
    return got


def answer_of(worker: Worker, method: str, value: Any, *references: Reference) -> Got:
    """Like `send`, whatever is let go of meanwhile."""
    id = worker.request(method, value, references=references)
    while (got := worker.receive()).kind == FREE:
        pass
    assert got.id == id, got
    return got


def test_every_kind_of_column_comes_back_as_it_went(any_worker: Worker, files: Files) -> None:
    table = everything()
    got = send(any_worker, "echo", {"tables": [in_message(table), 1]})
    assert got.kind == SUCCESS, got
    answer = resolve(files, got)["tables"]
    assert answer[1] == 1
    assert answer[0].schema == table.schema
    assert answer[0].to_pylist().__repr__() == table.to_pylist().__repr__()
    assert answer[0].column("integer").num_chunks == 2


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_of_few_rows_and_columns(any_worker: Worker, files: Files, rows: int) -> None:
    for table in (numbers(rows), pyarrow.table({}), everything().slice(0, rows)):
        got = send(any_worker, "echo", in_message(table))
        assert resolve(files, got).equals(table)


def test_large_tables_lie_in_shared_memory(any_worker: Worker, files: Files) -> None:
    value, reference = in_memory(files, numbers(10_000))
    got = send(any_worker, "echo", {"in": value}, reference)
    assert got.kind == SUCCESS, got
    assert len(got.references) == 1
    assert resolve(files, got)["in"].equals(numbers(10_000))
    assert any_worker.freed() == reference.region


def test_a_table_lies_where_the_host_has_put_it_for_as_long_as_it_is_kept(
    any_worker: Worker, files: Files
) -> None:
    stream = stream_of(numbers(10_000, 7.0))
    value, reference = in_memory(files, numbers(10_000, 7.0))
    assert send(any_worker, "keep", value, reference).payload == 10_000
    assert any_worker.value("look") == 7.0
    at = stream.index(struct.pack("<2d", 7.0, 8.0))
    files.write(Reference(0, 0, 0, reference.offset + at, 8), struct.pack("<d", 42.5))
    assert any_worker.value("look") == 42.5
    assert any_worker.value("is_mutable") == [False]
    any_worker.value("keep_column")
    any_worker.ping()
    assert any_worker.value("first") == 42.5
    assert send(any_worker, "drop", None).kind == SUCCESS
    assert any_worker.freed() == reference.region


def test_annotations_are_what_arrives(any_worker: Worker, files: Files) -> None:
    two = pyarrow.concat_tables([numbers(2), numbers(3)])
    value, reference = in_memory(files, two)
    for sent, references in ((in_message(two), ()), (value, (reference,))):
        got = answer_of(any_worker, "table", {"table": sent}, *references)
        assert got.payload == ["Table", 5]
        got = answer_of(any_worker, "batch", {"batch": sent}, *references)
        assert got.payload == ["RecordBatch", 5, 1]
        got = answer_of(any_worker, "reader", {"reader": sent}, *references)
        assert got.payload == [2, 3]
    nothing = everything().slice(0, 0)
    got = answer_of(any_worker, "batch", {"batch": in_message(nothing)})
    assert got.payload == ["RecordBatch", 0, 8]
    got = answer_of(any_worker, "table", {"table": [1]})
    assert got.payload == {"path": "$.table", "issue": "Expected `table`, got `array`"}


@pytest.mark.parametrize("rows", [5, 5000])
def test_batches_and_readers_are_tables(any_worker: Worker, files: Files, rows: int) -> None:
    answer = resolve(files, send(any_worker, "as_batch", {"n": rows}))
    assert answer.column("n").to_pylist() == list(range(rows))
    # The set makes msgspec encode twice what can be read once.
    answer = resolve(files, send(any_worker, "as_reader", {"n": rows}))
    assert answer["read"].num_rows == 3 * rows
    got = send(any_worker, "inside", {"n": rows})
    answer = resolve(files, got)
    assert len(got.references) == (1 if rows == 5000 else 0)
    assert answer["a"][0].num_rows == rows
    assert answer["a"][1]["b"].column("n").to_pylist() == [1, 2]


def test_a_large_table_leaves_without_shared_memory(start: Start, files: Files) -> None:
    worker = start(SOURCE + TYPED)
    answer = resolve(files, send(worker, "as_batch", {"n": 100_000}))
    assert answer.column("n").to_pylist() == list(range(100_000))


@pytest.mark.parametrize("rows", [5, 5000])
def test_a_stream_of_batches(any_worker: Worker, files: Files, rows: int) -> None:
    any_worker.request("scan", {"n": rows, "count": 3}, stream=64)
    seen: list[int] = []
    while (got := any_worker.receive()).kind == CHUNK:
        seen += [table.column("n")[-1].as_py() for table in resolve(files, got)]
    assert (got.kind, seen) == (SUCCESS, [0, 1, 2])


def test_what_is_no_table_is_refused_with_its_place(any_worker: Worker) -> None:
    got = send(any_worker, "scalar", None)
    assert (got.kind, got.payload["path"]) == (DIE, "$.rows[0]")
    got = send(any_worker, "column", None)
    assert (got.kind, got.payload["path"]) == (DIE, "$")
    assert got.payload["issue"].endswith(": make a table of it, with pyarrow.table()")


def test_bytes_that_are_no_arrow_fail_their_call(any_worker: Worker, files: Files) -> None:
    stream = stream_of(everything())
    seed = random.Random(4)
    broken = [b"", b"\0" * 64, b"ARROW1\0\0" + stream, stream[:100], b"\xff" * 9, stream[:-300]]
    for _ in range(50):
        changed = bytearray(stream)
        for _ in range(5):
            changed[seed.randrange(len(changed))] = seed.randrange(256)
        broken.append(bytes(changed))
    for index, data in enumerate(broken):
        got = send(any_worker, "kind", msgspec.msgpack.Ext(4, data))
        if index < 6:
            assert (got.kind, got.meta["reason"]) == (DIE, "DecodeFailed"), (index, got)
            assert "not a stream of Arrow" in got.payload["issue"]
    reference = files.put(b"\0" * 64)
    got = send(any_worker, "kind", shared(reference, HEAD), reference)
    assert got.meta["reason"] == "DecodeFailed"
    assert any_worker.freed() == reference.region
    reference = files.put(stream)
    got = send(any_worker, "kind", shared(reference, b"\x80\x01\0\0\0\0"), reference)
    assert "unknown element type 128" in got.payload["issue"]
    any_worker.freed()
    any_worker.ping()


@pytest.mark.parametrize("codec", HIDDEN)
def test_without_pyarrow_the_message_says_what_to_do(
    start: Start, files: Files, codec: str
) -> None:
    launcher = hiding("pyarrow", *HIDDEN[codec])
    worker = start(SOURCE, files=files, welcome={"sharedMemory": SHARED}, launcher=launcher)
    value, reference = in_memory(files, numbers(10_000))
    for sent, references in ((in_message(numbers(1)), ()), (value, (reference,))):
        got = send(worker, "kind", sent, *references)
        assert got.meta["reason"] == "DecodeFailed"
        assert "add `pyarrow` to requirements.txt" in got.payload["issue"]
    assert worker.freed() == reference.region
    worker.ping()


def test_nothing_imports_pyarrow_before_a_table_arrives(start: Start) -> None:
    worker = start(
        SOURCE + "import sys\n@synapse.handler\ndef has(): return 'pyarrow' in sys.modules"
    )
    assert worker.value("echo", [1.5]) == [1.5]
    assert worker.value("has") is False
    assert send(worker, "kind", in_message(numbers(1))).payload == "Table"
    assert worker.value("has") is True
