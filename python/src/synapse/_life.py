"""The life of the process: it dies with its host, in every state, and ends in an orderly way
otherwise.
"""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Final, NoReturn

from synapse import _descendants

EXIT_HOST_GONE: Final = 75
EXIT_PROTOCOL_BROKEN: Final = 76
EXIT_PARENT_CHANGED: Final = 77
EXIT_BAD_START: Final = 78

CHANNEL_FD: Final = 3
LIFELINE_FD: Final = 4
CRASH_FD: Final = 5

_OOM_SCORE: Final = 500
_PR_SET_PDEATHSIG: Final = 1
_ENDING_SECONDS: Final = 1.0


def leave_at_once(code: int) -> NoReturn:
    """End the process without running anything else."""
    os._exit(code)


# A forked child that comes to an end must not take its parent and siblings along.
_pid: Final = os.getpid()
_worker_id: Final = os.environ.get("SYNAPSE_WORKER_ID", "")


def leave_orphaned() -> NoReturn:
    """End the process and what it started, which nobody else will: the host is gone."""
    if os.getpid() == _pid and not _end_descendants():
        _descendants.end_group()
    os._exit(EXIT_HOST_GONE)


def _end_descendants() -> bool:
    with contextlib.suppress(BaseException):
        # Threads that are busy in Python must not hold this up, nor may the kernel.
        sys.setswitchinterval(1e-6)
        _thread.start_new_thread(_leave_after, (_ENDING_SECONDS, EXIT_HOST_GONE))
    return _descendants.end(_worker_id)


def claim_descriptors() -> None:
    """Keep descriptors 3, 4 and 5 to this process: programs it starts and children it forks do not
    get them.
    """
    for fd in (CHANNEL_FD, LIFELINE_FD, CRASH_FD):
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, False)


def close_in_child(detach_channel: Callable[[], int]) -> None:
    """In a forked child, close what belongs to the worker: a copy would keep the host's streams
    open.
    """
    lifeline, crashes = _is_stream(LIFELINE_FD), _is_stream(CRASH_FD)

    def close() -> None:
        fds = [detach_channel()]
        if lifeline:
            fds.append(LIFELINE_FD)
        if crashes:
            faulthandler.disable()
            fds.append(CRASH_FD)
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)


def restore_signals_in_child() -> None:
    """In a forked child, let signals do again what they do to any process; handlers that the module
    has set stay.
    """
    import signal

    if not hasattr(os, "register_at_fork"):
        return
    masks = threading.local()

    # Held back meanwhile: Python drops what reaches a child before it is set up.
    def hold() -> None:
        # Asked first: blocking them may run a handler of the module, which may raise.
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, _signal_handlers)

    def let_go() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def restore() -> None:
        for number, handler in _signal_handlers.items():
            with contextlib.suppress(OSError, ValueError):
                if signal.getsignal(number) is handler:
                    signal.signal(number, signal.SIG_DFL)
        let_go()

    os.register_at_fork(before=hold, after_in_parent=let_go, after_in_child=restore)


def _is_stream(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def tie_to_host() -> None:
    """Make the kernel end this process when the host is gone, whatever it is doing by then.

    Where the platform cannot, the end of the channel is what remains.
    """
    host_pid = _host_pid(os.environ.pop("SYNAPSE_PPID", ""))
    wants_signal = os.environ.pop("SYNAPSE_PDEATHSIG", "") != "0"
    if sys.platform == "linux":
        if not _hold_lifeline() and wants_signal:
            # It ends this process alone, and before the lifeline could end the whole group: the
            # thread that started us goes before its process lets go of its files.
            _ask_for_death_signal()
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
            if int(file.read()) < _OOM_SCORE:
                file.seek(0)
                file.write(str(_OOM_SCORE))
    if host_pid is not None and _parent_changed(host_pid):
        leave_at_once(EXIT_PARENT_CHANGED)


def _host_pid(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _hold_lifeline() -> bool:
    if not _is_stream(LIFELINE_FD):
        return False
    import fcntl
    import signal

    # The kernel sends the signal itself, so that neither the GIL nor a busy thread is in the way.
    # The whole group gets it, but only a group that is ours: started inside another one, we must
    # not take that with us.
    leads = os.getpgrp() == os.getpid()
    holds = False
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(LIFELINE_FD, fcntl.F_SETSIG, signal.SIGKILL)  # type: ignore[attr-defined,unused-ignore]
        fcntl.fcntl(LIFELINE_FD, fcntl.F_SETOWN, -os.getpgrp() if leads else os.getpid())
        flags = fcntl.fcntl(LIFELINE_FD, fcntl.F_GETFL)
        fcntl.fcntl(LIFELINE_FD, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
        holds = True
    if _hung_up(LIFELINE_FD):
        leave_orphaned()
    return holds


def _ask_for_death_signal() -> None:
    import signal

    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def _hung_up(fd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLHUP)
    try:
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))
    except OSError:
        return False


def _parent_changed(host_pid: int) -> bool:
    # There, signal 0 is no question.
    if sys.platform == "win32":
        return False
    parent = os.getppid()
    # 0: the parent is in another process id namespace, where the number it told means another
    # process or none.
    if parent in (host_pid, 0):
        return False
    try:
        os.kill(host_pid, 0)
    except ProcessLookupError:
        # The host died, or its number is of another namespace (a container with an init process of
        # its own). The streams tell these apart: a host that died has let go of them.
        return any(map(_hung_up, (CHANNEL_FD, LIFELINE_FD)))
    except OSError:
        return False
    return True


def watch_crashes() -> None:
    """Write the stacks of all threads to descriptor 5 at a fatal signal, and to stderr where there
    is none.
    """
    with contextlib.suppress(Exception):
        faulthandler.enable(file=CRASH_FD if _is_open(CRASH_FD) else 2, all_threads=True)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# What this process does at a signal, which is not for the children it forks.
_signal_handlers: Final[dict[int, Callable[[int, Any], None]]] = {}


def on_interrupt() -> None:
    """SIGINT does nothing: it goes to the host as well, which decides."""
    import signal

    _handle_signal(signal.SIGINT, lambda: None)


def on_terminate(leave: Callable[[], None]) -> None:
    """SIGTERM calls `leave`, in a thread of its own."""
    import signal

    _leave_at(leave, signal.SIGTERM)


def on_stop(leave: Callable[[], None]) -> None:
    """SIGINT and SIGTERM call `leave`, in a thread of its own."""
    import signal

    _leave_at(leave, signal.SIGINT, signal.SIGTERM)


def _leave_at(leave: Callable[[], None], *numbers: int) -> None:
    for number in numbers:
        # The main thread may have been interrupted anywhere, with any lock in its hands.
        _handle_signal(number, lambda: _thread.start_new_thread(leave, ()))
    _watch_signals(numbers, leave)


def _watch_signals(numbers: Collection[int], leave: Callable[[], None]) -> None:
    """Leave at a signal also when the main thread does not get to its handler: one that reaches
    another thread, or comes just before a wait, does not end the wait.
    """
    import signal

    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before != -1:
        # The module has one of its own.
        signal.set_wakeup_fd(before)
        return

    def watch() -> None:
        while arrived := os.read(read, 64):
            for number in numbers:
                if number in arrived and signal.getsignal(number) is _signal_handlers[number]:
                    leave()

    def forget() -> None:
        if signal.set_wakeup_fd(-1) not in (write, -1):
            return
        os.close(read)
        os.close(write)

    threading.Thread(target=watch, name="synapse-signals", daemon=True).start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def _handle_signal(number: int, act: Callable[[], object]) -> None:
    import signal

    def handle(_number: int, _frame: Any) -> None:
        act()

    _signal_handlers[number] = handle
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, handle)


def end(code: int, *, orphaned: bool = False) -> NoReturn:
    """Flush, run the functions registered with `atexit`, and leave, all within a limit of time.

    With `orphaned`, what this process started ends with it.
    """
    leave_within(_ENDING_SECONDS, code, orphaned=orphaned)
    try:
        import atexit

        from synapse import _cstdio

        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            if stream is not None:
                with contextlib.suppress(Exception):
                    stream.flush()
        _cstdio.flush_all()
    except BaseException:
        pass
    if orphaned and os.getpid() == _pid:
        _end_descendants()
    os._exit(code)


def leave_within(seconds: float, code: int, *, orphaned: bool = False) -> None:
    """Leave after that time, unless the process has left by then."""
    threading.Thread(target=_leave_after, args=(seconds, code, orphaned), daemon=True).start()


def _leave_after(seconds: float, code: int, orphaned: bool = False) -> None:
    time.sleep(min(seconds, threading.TIMEOUT_MAX))
    if orphaned:
        _end_descendants()
    os._exit(code)
