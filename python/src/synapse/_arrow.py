"""Arrow tables as extension 4 of the wire: streams of Arrow's IPC format. pyarrow is there where
the module has installed it, and is imported when the first table arrives.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from synapse._memory import Claim

EXTENSION: Final = 4
#: The head of a table in shared memory. No array has such an element type.
SHARED_HEAD: Final = b"\x80\x00"
_MAX_SIZE: Final = 0xFFFFFFFF
# What Arrow's buffers need to begin at multiples of.
_ALIGNMENT: Final = 8


class ArrowIssue(ValueError):
    """A table that cannot be carried, or bytes that are no table."""


_tabular: tuple[type, ...] = ()


def is_tabular(value: Any) -> bool:
    """Whether this is a table, a record batch or a reader of them, of pyarrow."""
    global _tabular
    if not _tabular:
        # Another thread may be in the middle of importing it.
        library = sys.modules.get("pyarrow.lib")
        if library is None or not hasattr(library, "RecordBatchReader"):
            return False
        _tabular = (library.Table, library.RecordBatch, library.RecordBatchReader)
    return isinstance(value, _tabular)


# A reader can be read once, and a value may be encoded more than once.
_read: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def complete(value: Any) -> Any:
    """What a reader gives, as a table; everything else as it is."""
    if not hasattr(value, "read_all"):
        return value
    table = _read.get(value)
    if table is None:
        table = _read[value] = value.read_all()
    return table


def size(table: Any) -> int:
    """How many bytes the stream of a table has."""
    sink = sys.modules["pyarrow"].MockOutputStream()
    _write(table, sink)
    counted: int = sink.size()
    return counted


def write_to(table: Any, memory: memoryview) -> None:
    """Write the stream of a table into memory of its size."""
    pyarrow = sys.modules["pyarrow"]
    _write(table, pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(memory)))


def to_stream(value: Any) -> memoryview:
    """The stream of what is tabular. Nobody changes it any more."""
    sink = sys.modules["pyarrow"].BufferOutputStream()
    _write(complete(value), sink)
    stream = memoryview(sink.getvalue())
    if len(stream) > _MAX_SIZE:
        raise ArrowIssue(f"cannot carry a table of {len(stream)} bytes in one message")
    return stream


def _write(table: Any, sink: Any) -> None:
    with sys.modules["pyarrow"].ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)


def to_table(stream: bytes | bytearray | memoryview) -> Any:
    """The table of a stream, whose columns lie in the memory of the stream.

    Raises:
        ArrowIssue: It is no stream, or pyarrow is not there.
    """
    pyarrow = _pyarrow()
    buffer = pyarrow.py_buffer(stream)
    if buffer.address % _ALIGNMENT:
        buffer = pyarrow.py_buffer(bytes(stream))
    try:
        table = pyarrow.ipc.open_stream(buffer).read_all()
        table.validate()
    except Exception as error:
        raise ArrowIssue(f"not a stream of Arrow: {error}") from None
    return table


def to_shared_table(claim: Claim) -> Any:
    """Like `to_table`, of a stream in shared memory: the columns are that memory.

    Raises:
        ArrowIssue: It is no stream, or pyarrow is not there.
        Malformed: It is not there.
    """
    if claim.length == 0:
        raise ArrowIssue("not a stream of Arrow: it has no bytes")
    # Before it is mapped: this may tell that there is no pyarrow.
    _pyarrow()
    return to_table(memoryview(claim.view()).toreadonly())


def to_batch(table: Any) -> Any:
    """The rows of a table as one record batch.

    Raises:
        ArrowIssue: They do not fit in one.
    """
    batches = table.to_batches()
    if len(batches) > 1:
        batches = table.combine_chunks().to_batches()
    if len(batches) > 1:
        raise ArrowIssue("a table whose rows do not fit in one record batch")
    if batches:
        return batches[0]
    pyarrow = sys.modules["pyarrow"]
    columns = [pyarrow.nulls(0, field.type) for field in table.schema]
    return pyarrow.RecordBatch.from_arrays(columns, schema=table.schema)


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "pyarrow":
            issue = "an Arrow table needs pyarrow: add `pyarrow` to requirements.txt"
        else:
            issue = f"an Arrow table needs pyarrow, which does not import: {error}"
        raise ArrowIssue(issue) from None
