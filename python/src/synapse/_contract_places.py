"""Where handlers and types are written, for the contract."""

from __future__ import annotations

import ast
import functools
import inspect
import os
import re
import sys
from typing import Any, Final

from synapse._annotations import routine_of, target_of
from synapse._contract_limits import MAX_NAME, cleaned

Place = dict[str, Any]

_DEFINITION: Final = re.compile(r"\s*(async\s+)?def\s")
_MOST_DECORATORS: Final = 200


class Places:
    """Finds places, as paths relative to a directory where they lie in it."""

    def __init__(self, directory: str) -> None:
        self._directory = os.path.realpath(directory)

    def of_function(self, function: Any) -> Place | None:
        code = getattr(routine_of(function), "__code__", None)
        if code is None:
            return None
        # The first line is that of the first decorator.
        line = code.co_firstlineno
        lines = _lines(code.co_filename)[line - 1 : line - 1 + _MOST_DECORATORS]
        below = next((i for i, each in enumerate(lines) if _DEFINITION.match(each)), 0)
        return self._place(code.co_filename, line + below)

    def of_type(self, kind: Any) -> Place | None:
        """The place of a class, or of what a module gives a name."""
        module = sys.modules.get(getattr(kind, "__module__", None) or "")
        file = getattr(module, "__file__", None)
        if file is None:
            return None
        names = _names(file)
        qualified = getattr(kind, "__qualname__", kind.__name__)
        # The functional form of a class in a function says the name alone.
        line = names.get(qualified) or names.get(kind.__name__)
        return None if line is None else self._place(file, line)

    def _place(self, file: str, line: int) -> Place | None:
        absolute = os.path.realpath(file)
        inside = absolute.startswith(os.path.join(self._directory, ""))
        shown = os.path.relpath(absolute, self._directory) if inside else absolute
        shown = shown.replace(os.sep, "/")
        return {"file": shown, "line": line} if len(shown) <= MAX_NAME else None


@functools.lru_cache(maxsize=256)
def _lines(file: str) -> list[str]:
    import linecache

    return linecache.getlines(file)


@functools.lru_cache(maxsize=256)
def _names(file: str) -> dict[str, int]:
    """The lines of the classes of a file, and of the names that it assigns, by qualified name."""
    found: dict[str, int] = {}
    try:
        tree = ast.parse("".join(_lines(file)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return found
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, prefix = waiting.pop()
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.ClassDef):
                found[prefix + child.name] = child.lineno
                inner = f"{prefix}{child.name}."
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = f"{prefix}{child.name}.<locals>."
            else:
                for name in _assigned(child):
                    found.setdefault(prefix + name, child.lineno)  # type: ignore[attr-defined]
            if isinstance(child, (ast.stmt, ast.excepthandler)):
                waiting.append((child, inner))
    return found


def _assigned(node: ast.AST) -> list[str]:
    targets: list[Any] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    elif type(node).__name__ == "TypeAlias":
        targets = [node.name]  # type: ignore[attr-defined]
    return [each.id for each in targets if isinstance(each, ast.Name)]


def doc_of_function(function: Any) -> str | None:
    """The whole docstring of a handler."""
    target = target_of(function)
    if not inspect.isroutine(target):
        target = type(target)
    doc = inspect.getdoc(target)
    return cleaned(doc) or None if isinstance(doc, str) else None


def doc_of_type(kind: Any) -> str | None:
    """The docstring of a class, unless it is one that nobody wrote."""
    doc = vars(kind).get("__doc__") if isinstance(kind, type) else None
    if not isinstance(doc, str):
        return None
    text = cleaned(doc)
    made = text.startswith(f"{kind.__name__}(") and text.endswith(")") and "\n" not in text
    return None if not text or made or text == "An enumeration." else text
