"""Arrays of numbers as extension 1 of the wire: numpy's where numpy is there, the standard
library's elsewhere.
"""

from __future__ import annotations

import array
import importlib
import math
import sys
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from synapse._memory import Claim

EXTENSION: Final = 1
#: The extension of a value in shared memory, which for an array has the same head.
SHARED: Final = 3
_MAX_DIMENSIONS: Final = 32
_DIMENSION: Final = Struct("<I")


class ArrayIssue(ValueError):
    """An array that cannot be carried, or bytes that are no array."""


# Element type on the wire: name, bytes per element, format of the struct module.
_ELEMENTS: Final = {
    1: ("bool", 1, "?"),
    2: ("int8", 1, "b"),
    3: ("uint8", 1, "B"),
    4: ("int16", 2, "h"),
    5: ("uint16", 2, "H"),
    6: ("int32", 4, "i"),
    7: ("uint32", 4, "I"),
    8: ("int64", 8, "q"),
    9: ("uint64", 8, "Q"),
    10: ("float32", 4, "f"),
    11: ("float64", 8, "d"),
}
_CODES: Final = {name: code for code, (name, _, _) in _ELEMENTS.items()}
_KINDS: Final = {
    "?": "bool",
    "b": "int",
    "h": "int",
    "i": "int",
    "l": "int",
    "q": "int",
    "n": "int",
    "B": "uint",
    "H": "uint",
    "I": "uint",
    "L": "uint",
    "Q": "uint",
    "N": "uint",
    "f": "float",
    "d": "float",
}


def head(element: int, shape: tuple[int, ...]) -> bytes:
    """What stands before the elements."""
    if len(shape) > _MAX_DIMENSIONS:
        raise ArrayIssue(f"an array of {len(shape)} dimensions, more than {_MAX_DIMENSIONS}")
    try:
        return bytes((element, len(shape))) + b"".join(map(_DIMENSION.pack, shape))
    except Exception:
        raise ArrayIssue(f"an array of shape {shape}, beyond 32 bits") from None


def from_numpy(value: Any) -> tuple[bytes, memoryview]:
    """The head and the elements of a numpy array; the elements are its own memory where that is
    laid out so.
    """
    numpy = sys.modules["numpy"]
    start = head_of_numpy(value)
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    flat = numpy.ascontiguousarray(little).reshape(-1)
    return start, memoryview(flat.view(numpy.uint8))


def head_of_numpy(value: Any) -> bytes:
    """The head of a numpy array."""
    masked = sys.modules.get("numpy.ma")
    if masked is not None and isinstance(value, masked.MaskedArray):
        raise ArrayIssue("cannot carry a masked array: fill it first, with .filled()")
    element = _CODES.get(value.dtype.name)
    if element is None or value.dtype.kind not in "biuf":
        raise ArrayIssue(
            f"cannot carry a numpy array of `{value.dtype}`: convert it with .astype() or .tolist()"
        )
    return head(element, value.shape)


def from_buffer(value: array.array[Any] | memoryview) -> tuple[bytes, memoryview]:
    """The head and the elements of an `array.array`, or of a `memoryview` whose items are
    numbers.
    """
    view = memoryview(value)
    start = head_of_buffer(view)
    data = view.tobytes()
    if sys.byteorder == "big" and view.format[0] != "<" and view.itemsize > 1:
        data = _swapped(data, view.itemsize)
    return start, memoryview(data)


def head_of_buffer(view: memoryview) -> bytes:
    """The head of an array whose elements a buffer has."""
    order, letter = view.format[:-1], view.format[-1:]
    kind = _KINDS.get(letter)
    if kind is None or order not in ("", "@", "=", "<"):
        raise ArrayIssue(f"cannot carry a buffer of format `{view.format}`")
    name = kind if kind == "bool" else f"{kind}{view.itemsize * 8}"
    return head(_CODES[name], view.shape or ())


def _swapped(data: bytes, size: int) -> bytes:
    swapped = bytearray(len(data))
    for offset in range(size):
        swapped[offset::size] = data[size - 1 - offset :: size]
    return bytes(swapped)


def to_array(data: bytes | bytearray | memoryview) -> Any:
    """A numpy array, or without numpy an `array.array` for one dimension and a `memoryview` for
    more.

    Raises:
        ArrayIssue: The bytes do not follow the layout.
    """
    view = memoryview(data).cast("B")
    element, shape, start = _layout(view)
    elements = view[start:]
    name, size, letter = _element(element, shape, len(elements))
    numpy = _numpy()
    if numpy is None:
        return _without_numpy(elements, shape, size, letter)
    result = numpy.frombuffer(elements, numpy.dtype(name).newbyteorder("<"))
    if not (result.flags.writeable and result.flags.aligned):
        result = result.copy()
    return result.astype(name, copy=False).reshape(shape)


def to_shared_array(head: memoryview, claim: Claim) -> Any:
    """Like `to_array`, of elements in shared memory: a numpy array is that memory.

    Raises:
        ArrayIssue: The bytes do not follow the layout.
        Malformed: The elements are not there.
    """
    element, shape, start = _layout(head)
    if start != len(head):
        raise ArrayIssue(f"an array in shared memory with a head of {len(head)} bytes")
    name, size, letter = _element(element, shape, claim.length)
    numpy = _numpy()
    if numpy is None:
        return _without_numpy(memoryview(claim.read()), shape, size, letter)
    if claim.length == 0:
        return numpy.empty(shape, name)
    result = numpy.ndarray(shape, numpy.dtype(name).newbyteorder("<"), claim.view())
    if not result.flags.aligned:
        result = result.copy()
    return result.astype(name, copy=False)


def _element(element: int, shape: tuple[int, ...], length: int) -> tuple[str, int, str]:
    name, size, letter = _ELEMENTS[element]
    if math.prod(shape) * size != length:
        raise ArrayIssue(f"an array of shape {shape} with {length} bytes of {name}")
    return name, size, letter


def _layout(view: memoryview) -> tuple[int, tuple[int, ...], int]:
    if len(view) < 2:
        raise ArrayIssue("an array without a head")
    element, dimensions = view[0], view[1]
    if element not in _ELEMENTS:
        raise ArrayIssue(f"an array of the unknown element type {element}")
    if dimensions > _MAX_DIMENSIONS:
        raise ArrayIssue(f"an array of {dimensions} dimensions, more than {_MAX_DIMENSIONS}")
    start = 2 + 4 * dimensions
    if len(view) < start:
        raise ArrayIssue("an array without its shape")
    return (
        element,
        tuple(_DIMENSION.unpack_from(view, 2 + 4 * i)[0] for i in range(dimensions)),
        start,
    )


_numpy_module: Any = False


def _numpy() -> Any:
    # Imported when the first array arrives: a module that has none to do with numpy does not wait
    # for it.
    global _numpy_module
    if _numpy_module is False:
        try:
            _numpy_module = importlib.import_module("numpy")
        except ImportError:
            _numpy_module = None
    return _numpy_module


def _without_numpy(elements: memoryview, shape: tuple[int, ...], size: int, letter: str) -> Any:
    data = elements.tobytes()
    if sys.byteorder == "big" and size > 1:
        data = _swapped(data, size)
    if len(shape) == 1 and letter != "?":
        return array.array(letter, data)
    # The stubs know the formats as literals only.
    view: Any = memoryview(data)
    items = view.cast(letter)
    if not shape:
        return items[0]
    # A view cannot have an empty dimension; nothing is in it that a flat one would miss.
    return items if len(shape) == 1 or 0 in shape else view.cast(letter, shape)
