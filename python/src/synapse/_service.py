"""Classes whose one instance lives as long as the worker."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from synapse import _hooks
from synapse._members import Bindable, Member, members, members_of

C = TypeVar("C", bound=type)


class _Unmade:
    """In place of `self` until there is an instance."""


class _Service:
    """Makes the instance, and binds to it what is registered already."""

    __slots__ = ("bound", "cls", "instance")

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.bound: list[tuple[Bindable, str]] = []
        self.instance: Any = None

    def __call__(self) -> None:
        self.instance = self.cls()
        for target, name in self.bound:
            target.function = getattr(self.instance, name)


@overload
def service(cls: C, /) -> C: ...


@overload
def service() -> Callable[[C], C]: ...


def service(cls: Any = None, /) -> Any:
    """Let the worker make an instance of a class, whose decorated methods TypeScript calls.

    The instance is made once per worker, without arguments, before the worker is ready: `__init__`
    may load a model. It lives as long as the worker. Its methods decorated with
    `synapse.handler`, `synapse.on_start`, `synapse.on_stop` and `synapse.background` are
    handlers and hooks, as functions are, without their `self`; so are those of its bases, and
    what overrides them. The making of the instance and `on_start` hooks happen in the order in
    which the module says them. The class itself is returned, and its methods stay plain ones.

    Args:
        cls: The class.

    Raises:
        TypeError: It is no class, or needs arguments.

    Example:
        >>> import synapse
        >>> @synapse.service
        ... class Model:
        ...     def __init__(self) -> None:
        ...         self.words = {"one": 1}
        ...     @synapse.handler
        ...     def look_up(self, word: str) -> int:
        ...         return self.words[word]
        >>> Model().look_up("one")
        1
    """
    if cls is None:
        return service
    if not isinstance(cls, type):
        raise TypeError(f"synapse.service decorates classes, not {cls!r}")
    _check_constructor(cls)
    made = _Service(cls)
    # First: the hooks of the instance need it.
    _hooks.starts.append(_hooks.Hook(made, cls.__qualname__))
    for name, member in _find(cls):
        bound = inspect.getattr_static(cls, name).__get__(_Unmade(), cls)
        made.bound.append((member.register(bound, f" of {cls.__qualname__}"), name))
    _check_none_hidden(cls)
    return cls


def _check_constructor(cls: type) -> None:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for each in parameters:
        if each.default is inspect.Parameter.empty and each.kind not in optional:
            raise TypeError(
                f"service `{cls.__qualname__}`: the worker makes its instance without arguments, "
                f"and `{each.name}` has no default"
            )


def _find(cls: type) -> list[tuple[str, Member]]:
    """The members of a class by the names of their attributes, those of bases first.

    What overrides a member takes its place, with the decorators of its own where it has some.
    """
    found: dict[str, list[Member]] = {}
    for base in reversed(cls.__mro__):
        for name, attribute in vars(base).items():
            own = list(members_of(attribute))
            for member in own:
                member.is_claimed = True
            if own:
                found[name] = own
    for name in list(found):
        # `name = None` takes it away.
        if not hasattr(inspect.getattr_static(cls, name), "__get__"):
            del found[name]
    return [(name, member) for name, own in found.items() for member in own]


def _check_none_hidden(cls: type) -> None:
    for member in members:
        ours = member.owner == cls.__qualname__ and _module_of(member) == cls.__module__
        if ours and not member.is_claimed:
            raise TypeError(
                f"service `{cls.__qualname__}`: `{member.name}` is not found in it under "
                f"@{member.decorator}: put that decorator above the others, and give the method "
                f"its name in the class"
            )


def _module_of(member: Member) -> Any:
    function = getattr(member.function, "__func__", member.function)
    return getattr(function, "__module__", None)
