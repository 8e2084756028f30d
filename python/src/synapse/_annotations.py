"""What functions and classes are annotated with."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from typing import Any


def target_of(function: Any) -> Any:
    """The function inside of wrappers and partials: the one that somebody wrote, or an object that
    is called.
    """
    target = inspect.unwrap(function)
    while hasattr(target, "func") and hasattr(target, "keywords"):
        target = inspect.unwrap(target.func)
    return target


def routine_of(function: Any) -> Any:
    """Like `target_of`, and the method of an object that is called."""
    target = target_of(function)
    return target if inspect.isroutine(target) else type(target).__call__


def written(target: Any) -> dict[str, Any]:
    """The annotations of a function or of a class itself, as they are written; names in them need
    not exist.
    """
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(target, format=annotationlib.Format.FORWARDREF)
    return inspect.get_annotations(target)


def resolved(
    annotations: dict[str, Any], owner: Any, scope: dict[str, Any], **local: Any
) -> dict[str, Any]:
    """Annotations whose texts are replaced by what they name.

    Args:
        annotations: Those of the owner, or some of them.
        owner: The function or class.
        scope: The names of its module.
        local: More names.
    """
    holder = types.SimpleNamespace(__annotations__=annotations)
    own = {each.__name__: each for each in getattr(owner, "__type_params__", ())}
    return typing.get_type_hints(holder, scope, {**own, **local}, include_extras=True)


def of_class(kind: type, **local: Any) -> tuple[dict[str, Any], dict[str, Exception]]:
    """The annotations of a class and of its bases, and why some of them have no meaning."""
    try:
        return typing.get_type_hints(kind, include_extras=True), {}
    except Exception:
        pass
    hints: dict[str, Any] = {}
    failures: dict[str, Exception] = {}
    for base in reversed(kind.__mro__):
        if base is object:
            continue
        scope = vars(sys.modules.get(base.__module__, types))
        for name, annotation in written(base).items():
            hints.pop(name, None)
            failures.pop(name, None)
            try:
                hints |= resolved({name: annotation}, base, scope, **{**vars(base), **local})
            except Exception as error:
                failures[name] = error
    return hints, failures
