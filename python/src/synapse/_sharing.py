"""From values to references: what is large goes into shared memory, and its message tells where."""

from __future__ import annotations

import array
import contextlib
import itertools
import sys
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

from synapse import _arrays, _arrow
from synapse._codec import Codec, Encode
from synapse._frames import COUNT, REFERENCE, Shipped
from synapse._memory import FIRST_FD, KEPT_FILE, Claim, Memory
from synapse._msgpack import Extension
from synapse._regions import OWN_FILE, Region, Regions, write

_MAX_REFERENCES: Final = 0xFFFF
_SERIALS: Final = 0xFFFFFFFF
# How deep byte strings are looked for: in the items of the value, and in theirs.
_DEPTH: Final = 2
_BYTES: Final = frozenset({bytes, bytearray, memoryview})
_OF_BYTES: Final = ("B", "b", "c")


class Cargo:
    """What one message refers to. Regions that have not left with it are given back."""

    __slots__ = ("_claims", "_frozen", "_known", "_references", "_regions", "_table", "size")

    def __init__(self, regions: Regions) -> None:
        self._table = regions
        self._references: list[bytes] = []
        self._regions: list[Region] = []
        # Until the message has left, their memory is not given back.
        self._claims: list[Claim] = []
        self._frozen: list[Any] = []
        # What has been put somewhere, should the message be encoded once more.
        self._known: dict[int, tuple[Any, Extension]] = {}
        self.size = 0

    @property
    def is_full(self) -> bool:
        return len(self._references) == _MAX_REFERENCES

    def find(self, value: Any) -> Extension | None:
        known = self._known.get(id(value))
        return None if known is None else known[1]

    def add(
        self, value: Any, head: bytes, number: int, start: int, offset: int, length: int
    ) -> Extension:
        serial = next(_serials) & _SERIALS
        self._references.append(REFERENCE.pack(serial, number, start, offset, length))
        extension = Extension(_arrays.SHARED, serial.to_bytes(4, "little") + head)
        # Held with it: another value could have its number.
        self._known[id(value)] = value, extension
        self.size += length
        return extension

    def take(self, region: Region) -> None:
        """Carry a region that is held."""
        self._regions.append(region)

    def borrow(self, value: Any, claim: Claim) -> None:
        """Refer to where an array lies already."""
        if claim.region is not None:
            self._table.hold_again(claim.region)
            self._regions.append(claim.region)
        else:
            self._claims.append(claim)
        if claim.file != KEPT_FILE:
            self._frozen.append(value)

    def close(self) -> None:
        """Nothing is added any more."""
        self._known.clear()
        numpy: Any = sys.modules.get("numpy")
        # The host may look at it at any time: to change it in place is an error from now on.
        for base in self._frozen:
            while isinstance(base, numpy.ndarray):
                base.flags.writeable = False
                base = base.base
        self._frozen.clear()

    @property
    def table(self) -> bytes:
        return b"".join((*self._references, COUNT.pack(len(self._references))))

    def leave(self) -> None:
        while self._regions:
            self._table.send(self._regions.pop())

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            for region in self._regions:
                self._table.let_go(region)


_serials: Final = itertools.count()


class Sharing:
    """Encodes values whose large parts go into shared memory."""

    def __init__(self, memory: Memory, regions: Regions, codec: Codec, threshold: int) -> None:
        self.memory = memory
        self._regions = regions
        self._codec = codec
        self.threshold = threshold
        #: By the threads that encode, and have put something somewhere.
        self.open: dict[int, Cargo] = {}
        #: For the value of a call, which may refer to memory that its handler was given.
        self.encode_value = codec.offering(self._offer_value)
        #: The same in two steps: what is fast, and what takes over where that raises.
        self.try_value = codec.trying(self._offer_value)
        self.walk_value = codec.walking(self._offer_value)
        #: For everything else, whose memory is copied.
        self.encode_copied = codec.offering(self._offer_copied)

    def encode(self, value: Any) -> bytes:
        """Encode what is not the value of a call, and may be nested in one that is."""
        with self.apart():
            try:
                alone = self.alone(value, self._offer_copied)
                if alone is not None:
                    return alone
                return self.complete(value, self.encode_copied(value), self.encode_copied)
            finally:
                self.drop()

    def alone(self, value: Any, offer: Callable[[Any], Extension | None]) -> bytes | None:
        """A value that is all in shared memory; `None` where it is not."""
        extension = self._moved_bytes(value) if type(value) in _BYTES else None
        extension = extension or offer(value)
        if extension is None:
            return None
        return self._shipped(self._codec.encode(extension))

    def alone_value(self, value: Any) -> bytes | None:
        """Like `alone`, for the value of a call."""
        return self.alone(value, self._offer_value)

    def complete(self, value: Any, payload: bytes, encode: Encode) -> bytes:
        """The payload, which refers to what was put somewhere while the value was encoded; large
        byte strings in it are put somewhere now.
        """
        if len(payload) >= self.threshold:
            moved = self._moved(value, _DEPTH)
            if moved is not value:
                payload = encode(moved)
        return self._shipped(payload)

    def _shipped(self, payload: bytes) -> bytes:
        cargo = self.open.pop(get_ident(), None) if self.open else None
        if cargo is None:
            return payload
        cargo.close()
        shipped = Shipped(payload)
        shipped.shipment = cargo
        return shipped

    def drop(self) -> None:
        """Give back what this thread has put somewhere for a message that is not made."""
        if self.open:
            self.open.pop(get_ident(), None)

    @contextlib.contextmanager
    def apart(self) -> Any:
        """Let this thread encode others while it encodes a value, as code of the module may do."""
        thread = get_ident()
        outer = self.open.pop(thread, None)
        try:
            yield
        finally:
            if outer is not None:
                self.open[thread] = outer

    # Byte strings

    def _moved(self, value: Any, depth: int) -> Any:
        """The value, with extensions in the place of large byte strings."""
        kind = type(value)
        if kind in _BYTES:
            return self._moved_bytes(value) or value
        if not depth or kind not in (dict, list, tuple):
            return value
        moved: Any = None
        for key, item in value.items() if kind is dict else enumerate(value):
            replaced = self._moved(item, depth - 1)
            if replaced is not item:
                if moved is None:
                    moved = dict(value) if kind is dict else list(value)
                moved[key] = replaced
        return value if moved is None else moved

    def _moved_bytes(self, value: Any) -> Extension | None:
        if len(value) < self.threshold:
            return None
        data = memoryview(value)
        # Elements of other types are an array.
        if data.format not in _OF_BYTES or not data.c_contiguous:
            return None
        cargo = self.open.get(get_ident())
        if cargo is not None:
            known = cargo.find(value)
            if known is not None or cargo.is_full:
                return known
        return self._put(value, b"", data.cast("B"))

    # Arrays and tables

    def _offer_value(self, value: Any) -> Extension | None:
        return self._offer(value, by_place=True)

    def _offer_copied(self, value: Any) -> Extension | None:
        return self._offer(value, by_place=False)

    def _offer(self, value: Any, by_place: bool) -> Extension | None:
        numpy = sys.modules.get("numpy")
        is_numpy = numpy is not None and isinstance(value, numpy.ndarray)
        is_buffer = is_numpy or isinstance(value, (array.array, memoryview))
        if not is_buffer and not _arrow.is_tabular(value):
            return None
        cargo = self.open.get(get_ident())
        if cargo is not None:
            known = cargo.find(value)
            if known is not None or cargo.is_full:
                return known
        if is_numpy:
            return self._offer_numpy(numpy, value, by_place)
        if not is_buffer:
            return self._offer_table(value)
        data = memoryview(value)
        if data.nbytes < self.threshold or not data.c_contiguous or sys.byteorder == "big":
            return None
        return self._put(value, _arrays.head_of_buffer(data), data.cast("B"))

    def _offer_numpy(self, numpy: Any, value: Any, by_place: bool) -> Extension | None:
        size = value.nbytes
        is_large = size >= self.threshold
        if not size or not (is_large or (by_place and self.memory.has_kept)):
            return None
        head = _arrays.head_of_numpy(value)
        little = value.dtype.newbyteorder("<")
        is_plain = value.flags.c_contiguous and value.dtype == little
        if by_place and is_plain:
            referred = self._refer(numpy, value, head, is_large)
            if referred is not None:
                return referred
        if not is_large:
            return None
        if not is_plain:
            return self._fill(numpy, value, head, little)
        data = memoryview(numpy.asarray(value).reshape(-1).view(numpy.uint8))
        return self._put(value, head, data, numpy)

    def _refer(self, numpy: Any, value: Any, head: bytes, is_large: bool) -> Extension | None:
        """An array that lies in shared memory, if it does."""
        base = value
        while isinstance(base, numpy.ndarray):
            base = base.base
        if isinstance(base, memoryview):
            base = base.obj
        ctypes = sys.modules.get("ctypes")
        if ctypes is None or not isinstance(base, ctypes.Array):
            return None
        claim = getattr(base, "claim", None)
        if type(claim) is not Claim or not claim.is_of(self.memory):
            return None
        if not is_large and claim.file != KEPT_FILE:
            return None
        address: int = value.__array_interface__["data"][0]
        within = address - ctypes.addressof(base)
        if within < 0 or within + value.nbytes > claim.length:
            return None
        cargo = self._cargo()
        cargo.borrow(value, claim)
        offset = claim.offset + within
        return cargo.add(value, head, claim.number, claim.start, offset, value.nbytes)

    def _fill(self, numpy: Any, value: Any, head: bytes, little: Any) -> Extension | None:
        """Put an array somewhere that is laid out in another way, in one pass."""

        def fill(region: Region) -> None:
            self._regions.reserve(region, value.nbytes)
            there = numpy.ndarray(value.shape, little, self.memory.map_own(region, value.nbytes))
            numpy.copyto(there, value)

        return self._put_with(value, head, value.nbytes, fill)

    def _offer_table(self, value: Any) -> Extension | None:
        table = _arrow.complete(value)
        if table.nbytes < self.threshold:
            return None
        size = _arrow.size(table)

        def fill(region: Region) -> None:
            self._regions.reserve(region, size)
            _arrow.write_to(table, memoryview(self.memory.map_own(region, size))[:size])

        return self._put_with(value, _arrow.SHARED_HEAD, size, fill)

    def _put(
        self, value: Any, head: bytes, data: memoryview, numpy: Any = None
    ) -> Extension | None:
        size = len(data)

        def fill(region: Region) -> None:
            if numpy is not None and region.solid >= size:
                # Faster, where there is memory already.
                there = numpy.frombuffer(self.memory.map_own(region, size), numpy.uint8, size)
                numpy.copyto(there, numpy.frombuffer(data, numpy.uint8))
                return
            write(FIRST_FD + OWN_FILE, data, region.start)
            region.solid = max(region.solid, size)

        return self._put_with(value, head, size, fill)

    def _put_with(
        self, value: Any, head: bytes, size: int, fill: Callable[[Region], None]
    ) -> Extension | None:
        region = self._regions.take(size)
        if region is None:
            return None
        try:
            fill(region)
        except OSError:
            self._regions.let_go(region)
            return None
        except BaseException:
            self._regions.let_go(region)
            raise
        cargo = self._cargo()
        cargo.take(region)
        return cargo.add(value, head, region.number, region.start, region.start, size)

    def _cargo(self) -> Cargo:
        thread = get_ident()
        cargo = self.open.get(thread)
        if cargo is None:
            cargo = self.open[thread] = Cargo(self._regions)
        return cargo

    # Arrays that are made there

    def make(self, size: int) -> Any:
        """Memory for an array, or `None` where it is small or there is no room."""
        if size < self.threshold or self.memory.is_of_parent:
            return None
        region = self._regions.take(size)
        if region is None:
            return None
        # From here on it is let go of with this.
        claim = self.memory.own(region, size)
        try:
            self._regions.reserve(region, size)
            return claim.view()
        except (OSError, ValueError):
            return None
