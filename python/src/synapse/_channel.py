"""The channel: one blocking duplex socket, read by whoever owns reading, written by whoever has
something ready.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from typing import Any, Final, TypeGuard

from synapse._cancel import guards, shielded
from synapse._frames import FREE, Buffer, Frame, FrameReader, Outgoing, Referring, make_frame
from synapse._life import leave_orphaned
from synapse._polling import Polling

# Pieces from this size on are written as they are, smaller ones are joined into writes of about
# that many bytes.
_LARGE: Final = 64 * 1024
_BATCH: Final = 256 * 1024
# How many frames are taken at a time.
_MANY: Final = 256
# How long an answer waits for others that are to leave with it. The host deals with the first ones
# while the rest is made.
BATCH_SECONDS: Final = 0.00004
# Arguments of `recv_into`: as much as fits, and without waiting.
_ALL: Final = (0,)
_NOT_WAITING: Final = (getattr(socket, "MSG_DONTWAIT", 0),)
# That of `acquire`.
_WAITING: Final = (True,)


# What a socket says that will not work again.
_BROKEN: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EBADF",
        "ECONNABORTED",
        "ECONNRESET",
        "EINVAL",
        "EIO",
        "ENETDOWN",
        "ENETRESET",
        "ENOTCONN",
        "ENOTSOCK",
        "EPIPE",
        "ESHUTDOWN",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)


def _is_of_socket(error: BaseException) -> TypeGuard[OSError]:
    """Whether the socket itself failed: what a signal handler raises has been through a frame of
    its own.
    """
    traceback = error.__traceback__
    return isinstance(error, OSError) and (traceback is None or traceback.tb_next is None)


def _is_end(error: BaseException) -> bool:
    """Whether this ends the channel; if not, it is logged, and there may be more to read.

    Raises:
        BlockingIOError: Nothing has arrived.
    """
    if _is_of_socket(error):
        if isinstance(error, BlockingIOError):
            raise error
        if error.errno in _BROKEN:
            return True
    _log_raised(error)
    return False


def _log_raised(error: BaseException) -> None:
    logging.getLogger("synapse").error(
        "A signal handler raised while the worker waited for the host", exc_info=error
    )


class HostGone(Exception):
    """There is nothing more to read, and the worker is leaving already."""


def _joined(frames: list[Outgoing]) -> Iterator[Buffer]:
    """What is to be written, with small pieces joined. Takes the frames, so that none is held
    longer than it is needed; those that refer to shared memory leave with it.
    """
    small: list[Buffer] = []
    size = 0
    frames.reverse()
    while frames:
        frame = frames.pop()
        if isinstance(frame, Referring):
            frame.shipment.leave()
        for piece in (frame,) if isinstance(frame, bytes) else frame:
            is_large = len(piece) >= _LARGE
            if not is_large:
                small.append(piece)
                size += len(piece)
            if small and (is_large or size >= _BATCH):
                yield b"".join(small)
                small, size = [], 0
            if is_large:
                yield piece
    if small:
        yield b"".join(small)


class Reading:
    """A lock that knows its owner: what the garbage collector runs on the thread that reads must
    not wait for what that thread is to read.
    """

    __slots__ = ("_lock", "_owner", "locked")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self.locked = self._lock.locked

    def acquire(self, blocking: bool = True) -> bool:
        if not self._lock.acquire(blocking):
            return False
        self._owner = get_ident()
        return True

    def wait(self) -> None:
        """`acquire`, whatever a signal handler of the module raises meanwhile: that is logged."""
        acquired: list[bool] = []
        while not acquired:
            try:
                # In one step, as bytes are received.
                acquired.extend(map(self._lock.acquire, _WAITING))
            except BaseException as error:
                _log_raised(error)
        self._owner = get_ident()

    def release(self) -> None:
        self._owner = None
        self._lock.release()

    @property
    def is_mine(self) -> bool:
        """Whether this thread reads."""
        return self._owner == get_ident()


class Channel:
    """Frames over a socket that stays in blocking mode.

    Reading belongs to the thread that holds `reading`. Writing is combined: frames are queued with
    `post`, and the first thread to `flush` writes what every thread has queued.
    """

    __slots__ = (
        "_outgoing",
        "_reader",
        "_socket",
        "_writer",
        "_writing",
        "freed",
        "on_host_gone",
        "polling",
        "post",
        "reading",
    )

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._reader = FrameReader()
        self._outgoing: deque[Outgoing] = deque()
        #: Queues a frame; it leaves with the next `flush` of any thread.
        self.post: Callable[[Outgoing], None] = self._outgoing.append
        #: Regions of the host whose memory is not needed any more: each is said once, behind the
        #: frames that are queued. Finalizers add to it.
        self.freed: deque[int] = deque()
        self._writing = threading.Lock()
        self._writer: int | None = None
        self.reading = Reading()
        self.polling = Polling(sock.fileno())
        self.on_host_gone: Callable[[], None] = leave_orphaned

    def fileno(self) -> int:
        return self._socket.fileno()

    def detach(self) -> int:
        """Give the descriptor away, in a forked child that must not use it."""
        return self._socket.detach()

    def limit_frames(self, max_frame_size: int) -> None:
        self._reader.max_frame_size = max_frame_size

    def claim_with(self, claim: Callable[[int, int, int, int], Any]) -> None:
        """Make claims of the references to shared memory that arrive."""
        self._reader.claim = claim

    @property
    def is_mine(self) -> bool:
        """Whether this thread reads or writes: what the collector runs meanwhile cannot wait
        for the host.
        """
        return self.reading.is_mine or self._writer == get_ident()

    @property
    def backlog(self) -> int:
        """How many frames wait to be written."""
        return len(self._outgoing)

    def read(self) -> list[Frame]:
        """Wait for bytes and return the frames they complete; the process ends when the host is
        gone.

        Raises:
            HostGone: It is, and the process is about to end.
        """
        return self._read(self._receive)

    def read_next(self) -> list[Frame]:
        """Like `read`, once everything has been answered: what comes next may come at once."""
        return self._read(self._receive_next)

    def read_arrived(self) -> list[Frame]:
        """Like `read`, without waiting."""
        return self._read(self._receive_arrived)

    def read_within(self, seconds: float = 0.01) -> list[Frame]:
        """Like `read`, for as long."""
        try:
            select.select([self._socket], [], [], seconds)
        except (OSError, ValueError):
            time.sleep(seconds)
        return self.read_arrived()

    def _read(self, receive: Callable[[memoryview], int]) -> list[Frame]:
        try:
            frames = self._reader.read(receive)
        except BlockingIOError:
            return []
        if frames is None:
            self.on_host_gone()
            raise HostGone
        return frames

    def _receive(self, into: memoryview) -> int:
        received: list[int] = []
        while True:
            try:
                # In one step: a signal handler of the module may raise as soon as there is one, and
                # the number of bytes that have arrived would be lost.
                received.extend(map(self._socket.recv_into, (into,)))
                return received[0]
            except BaseException as error:
                if received:
                    return received[0]
                if _is_end(error):
                    return 0

    def _receive_next(self, into: memoryview) -> int:
        try:
            self.polling.look()
        except BaseException as error:
            if _is_end(error):
                return 0
        received = self._receive(into)
        self.polling.woke()
        return received

    def _receive_arrived(self, into: memoryview) -> int:
        received: list[int] = []
        while True:
            try:
                received.extend(map(self._socket.recv_into, (into,), _ALL, _NOT_WAITING))
                return received[0]
            except BaseException as error:
                if received:
                    return received[0]
                if _is_end(error):
                    return 0

    def send(self, frame: Outgoing) -> None:
        self._outgoing.append(frame)
        self.flush()

    def flush(self) -> None:
        """Write all that is queued, unless another thread is at it: then that thread does."""
        if self._outgoing or self.freed:
            (self._flush_shielded if guards else self._flush)()

    def _flush(self) -> None:
        outgoing, writing, freed = self._outgoing, self._writing, self.freed
        while outgoing or freed:
            # Whoever holds the lock looks at the queue again after releasing it, so giving up here
            # loses nothing.
            if not writing.acquire(blocking=False):
                return
            try:
                self._writer = get_ident()
                self._write_queued(outgoing)
            except OSError:
                self.on_host_gone()
                outgoing.clear()
                freed.clear()
            finally:
                self._writer = None
                writing.release()

    # A handler prints: what it is about to write may be an answer of another call.
    _flush_shielded = shielded(_flush)

    def finish(self, seconds: float) -> None:
        """Write all that is queued, and wait for as long for another thread that is at it."""
        if self._writing.acquire(timeout=seconds):
            self._writing.release()
        self.flush()

    def _write_queued(self, outgoing: deque[Outgoing]) -> None:
        next_frame, freed = outgoing.popleft, self.freed
        while outgoing or freed:
            frames = [next_frame() for _ in range(min(len(outgoing), _MANY))]
            # Behind whatever refers to the same memory: that frame holds on to it.
            while freed:
                frames.append(make_frame(FREE, freed.popleft()))
            pieces: Iterable[Buffer]
            try:
                # Most frames are small, and of one piece.
                is_small = sum(map(len, frames)) <= _BATCH
                pieces = (b"".join(frames),) if is_small else _joined(frames)  # type: ignore[arg-type]
            except TypeError:
                pieces = _joined(frames)
            for piece in pieces:
                self._socket.sendall(piece)
