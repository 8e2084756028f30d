"""The protocol `json-lines` of a script: a JSON object a line, one call at a time.

A line on standard input is a call, `{"method": …, "params": {…}}`. A line on standard output is its
end, `{"result": …}` or `{"error": …}`, or a partial result before it, `__STREAM__` and a value.
Every other line is a record of the log.
"""

from __future__ import annotations

import codecs
import functools
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse import _replace
from synapse._answers import Made
from synapse._codec import Codec
from synapse._context import Context, current_call
from synapse._handle import AnyMethod, Handle
from synapse._handlers import Handler
from synapse._incoming import ItemIssue
from synapse._logs import LogStream, Output
from synapse._objects import Remote
from synapse._script import Stdin
from synapse._stdio_v1 import Replies

if TYPE_CHECKING:
    from synapse._calls import Call

#: In `Hello`, a handler that stands for any name.
ANY: Final = "$any"
CONTROLLER: Final = "Controller"

_STREAM: Final = "__STREAM__"
_BEGINS: Final = ("{", _STREAM)
_REPLIES: Final = ({"result"}, {"error"}, {"result", "error"})
_TAKEN: Final = (
    "this process of the script belongs to a controller already: with the option `oneShot: true` "
    "each has one of its own"
)


class Refused(Exception):
    """The script has answered with an error."""

    def __init__(self, error: Any) -> None:
        super().__init__(error)
        self.error = error

    def answer(self) -> Made:
        return Made(lambda answers, id: answers.failed(id, self.error))


class Adapter:
    """One call at a time, each with the lines up to the next reply."""

    def __init__(self, codec: Codec) -> None:
        self.handlers: Mapping[str, Handler] = _Handlers(self, codec)
        self._one_at_a_time = threading.Lock()
        self._lines = threading.local()
        self._stdin: Stdin
        self._stdout: LogStream
        self.is_waiting = False
        self._reply: dict[str, Any] | None = None
        self._call: Call | None = None
        # Whether a caller that opened it as a controller has it, or had it.
        self._is_open = False
        self._is_leaving = False

    def attach(self, stdin: Stdin, output: Output) -> None:
        self._stdin, self._stdout = stdin, output.stdout
        decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

        def write(data: Any) -> None:
            output.stdout.write(decoder.decode(bytes(data)))

        output.stdout.bytes_to = Replies(output.stdout, write)
        output.stdout.tap = self._written

    # Calls

    def ask(self, method: str, params: Any) -> Any:
        """Call a method of the script, in the thread of a call of ours.

        Raises:
            Refused: It answered with an error. ItemIssue: What it takes is no JSON.
        """
        try:
            line = json.dumps({"method": method, "params": params})
        except (TypeError, ValueError, RecursionError) as error:
            raise ItemIssue("$", f"the script takes JSON: {error}") from None
        changed = self._stdin.changed
        with self._one_at_a_time:
            with changed:
                # What it writes before it waits for the next call is none of this one's.
                self._stdin.await_reader(lambda: False)
                self._call, self._reply, self.is_waiting = current_call.get(), None, True
            try:
                self._stdin.send(line.encode() + b"\n")
            except OSError as error:
                self.is_waiting = False
                _replace.replace_me("the script has closed its standard input")
                raise RuntimeError("the script has closed its standard input") from error
            with changed:
                changed.wait_for(lambda: not self.is_waiting)
                reply, self._reply, self._call = self._reply, None, None
        assert reply is not None
        if reply.get("error") is not None or "result" not in reply:
            raise Refused(reply["error"])
        return reply["result"]

    def call(self, method: str, params: Any) -> Any:
        try:
            return self.ask(method, params)
        except Refused as refused:
            return refused.answer()

    def open(self, properties: dict[str, Any] | None) -> Any:
        """Let a caller have the script as a controller."""
        if self._is_open:
            _close_due()
        if self._is_leaving:
            return Made(lambda answers, id: answers.die(id, "Closed", None, rejected=True))
        if self._is_open:
            return Made(lambda answers, id: answers.unsupported(id, _TAKEN))
        self._is_open = True
        try:
            for name, value in (properties or {}).items():
                self.ask("setProperty", {"name": name, "value": value})
        except BaseException as error:
            self._is_open = False
            if isinstance(error, Refused):
                return error.answer()
            raise
        return Handle(Script(self), self._let_go)

    def _let_go(self) -> None:
        # It keeps what it has been told, and the next one is to find it as it begins.
        self._is_leaving = True
        _replace.replace_done("the controller that had this script was ended")

    # Lines

    def _written(self, text: str) -> bool:
        if getattr(self._lines, "is_passing", False):
            return False
        start = 0
        while start < len(text):
            end = text.find("\n", start) + 1 or len(text)
            self._piece(text[start:end])
            start = end
        return True

    def _piece(self, piece: str) -> None:
        """A line or a part of one: print writes what it prints and the end of the line apart."""
        pending: list[str] = vars(self._lines).setdefault("pending", [])
        if not pending and not piece.startswith(_BEGINS):
            self._pass(piece)
            return
        pending.append(piece)
        if not piece.endswith("\n"):
            return
        pieces = pending.copy()
        pending.clear()
        # What a method prints without an end of line stands before the reply, in the same line.
        for index, begin in enumerate(pieces):
            if begin.startswith(_BEGINS) and self._took("".join(pieces[index:])):
                self._pass("".join(pieces[:index]))
                return
        self._pass("".join(pieces))

    def _took(self, line: str) -> bool:
        """Whether a line is one of the protocol."""
        is_partial = line.startswith(_STREAM)
        try:
            value = json.loads(line[len(_STREAM) :] if is_partial else line)
        except (ValueError, RecursionError):
            return False
        with self._stdin.changed:
            if not self.is_waiting:
                return False
            if is_partial:
                call = self._call
            elif isinstance(value, dict) and value.keys() in _REPLIES:
                self._reply, self.is_waiting = value, False
                self._stdin.changed.notify_all()
                return True
            else:
                return False
        if call is not None:
            _report(call, value)
        return True

    def _pass(self, text: str) -> None:
        """Let text become a record of the log."""
        if not text:
            return
        self._lines.is_passing = True
        try:
            self._stdout.write(text)
        finally:
            self._lines.is_passing = False


def _report(call: Call, value: Any) -> None:
    try:
        Context(call).progress(value)
    except ValueError as error:
        logging.getLogger("synapse").error("A partial result is dropped: %s", error)


def _close_due() -> None:
    """Let go of what the caller has let go of, which waits for this call to end."""
    call = current_call.get()
    if call is not None and isinstance(call.handler, Remote):
        call.handler.objects.close_due()


class Script(AnyMethod):
    """The script as an object whose methods are its own."""

    __slots__ = ("_adapter",)

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self._adapter.call, name)


class _Handlers(Mapping[str, Handler]):
    """Any public name is a method of the script, for all that is known of it."""

    def __init__(self, adapter: Adapter, codec: Codec) -> None:
        def bind(payload: Any) -> Any:
            return (codec.decode(payload) if payload else None,), None

        def handler(name: str, function: Callable[[Any], Any]) -> Handler:
            made = Handler(function, name, cancel="replace")
            made.bind = bind
            return made

        self._adapter = adapter
        self._handler = handler
        self._any = handler(ANY, functools.partial(adapter.call, ANY))
        self._controller = handler(CONTROLLER, adapter.open)

    def __getitem__(self, name: str) -> Handler:
        if name == ANY:
            return self._any
        if name == CONTROLLER:
            return self._controller
        if name.startswith(("_", "$")):
            raise KeyError(name)
        return self._handler(name, functools.partial(self._adapter.call, name))

    def __iter__(self) -> Iterator[str]:
        return iter((ANY, CONTROLLER))

    def __len__(self) -> int:
        return 2
