"""Code that arrives in a call: `$evaluate`, where the host allows it."""

from __future__ import annotations

import ast
import linecache
import textwrap
import threading
from collections import OrderedDict
from types import CodeType, ModuleType
from typing import Any, Final, NamedTuple

from synapse._codec import Codec
from synapse._declared import Error
from synapse._handlers import Handler
from synapse._requests import EVALUATE

_MAX_KEPT: Final = 256
# Characters of all sources that are kept; code takes many times as much.
_MAX_KEPT_SIZE: Final = 1024 * 1024


class _Key(NamedTuple):
    source: str
    file: str | None
    line: int


class _Compiled(NamedTuple):
    name: str
    body: CodeType
    result: CodeType | None


class Evaluator:
    """Runs code in copies of the namespace of a module."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._lock = threading.Lock()
        # Those last used, with what `linecache` shows of the ones without a file.
        self._compiled: OrderedDict[_Key, _Compiled] = OrderedDict()
        self._size = 0
        self._unnamed = 0

    def handler(self, codec: Codec) -> Handler:
        """What answers calls with code. It can declare no errors, so all of them are."""
        handler = Handler(self.evaluate, EVALUATE, (Error,))
        handler.prepare(codec)
        return handler

    def evaluate(self, source: str, file: str | None, line: int, bindings: dict[str, Any]) -> Any:
        """Run the source; the value is that of its last statement, where that is an expression.

        Raises:
            SyntaxError: The source is no Python, said with its place in the file.
        """
        compiled = self._compile(_Key(source, file, line))
        import synapse

        namespace = {**vars(self._module), "synapse": synapse, **bindings}
        exec(compiled.body, namespace)
        return None if compiled.result is None else eval(compiled.result, namespace)

    def _compile(self, key: _Key) -> _Compiled:
        with self._lock:
            compiled = self._compiled.get(key)
            if compiled is None:
                compiled = _compile(key, self._name() if key.file is None else key.file)
                self._compiled[key] = compiled
                self._size += len(key.source)
                self._forget_oldest()
            else:
                self._compiled.move_to_end(key)
        return compiled

    def _name(self) -> str:
        self._unnamed += 1
        number = f" {self._unnamed}" if self._unnamed > 1 else ""
        return f"<synapse.evaluate{number}>"

    def _forget_oldest(self) -> None:
        while len(self._compiled) > _MAX_KEPT or self._size > _MAX_KEPT_SIZE:
            key, dropped = self._compiled.popitem(last=False)
            self._size -= len(key.source)
            if key.file is None:
                linecache.cache.pop(dropped.name, None)


def _compile(key: _Key, name: str) -> _Compiled:
    source = textwrap.dedent(key.source)
    before = 0 if key.file is None else max(key.line, 1) - 1
    try:
        tree = compile(source, name, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as error:
        for end in ("lineno", "end_lineno"):
            number = getattr(error, end, None)
            if number is not None:
                setattr(error, end, number + before)
        raise
    assert isinstance(tree, ast.Module)
    ast.increment_lineno(tree, before)
    result = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        value = ast.Expression(tree.body[-1].value)
        del tree.body[-1]
        result = compile(value, name, "eval", dont_inherit=True)
    body = compile(tree, name, "exec", dont_inherit=True)
    if key.file is None:
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return _Compiled(name, body, result)
