"""Decorated functions in the bodies of classes: they wait for `@synapse.service`, which makes the
instance that they belong to.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, Protocol


class Bindable(Protocol):
    """What a decorator registers. Its function is that of an instance once there is one."""

    function: Callable[..., Any]


# Registers a bound function; the text tells apart what the subclasses of one class have in common.
Register = Callable[[Callable[..., Any], str], Bindable]


class Member:
    """A decorated function in the body of a class."""

    __slots__ = ("decorator", "function", "is_claimed", "owner", "register")

    def __init__(self, function: Any, decorator: str, owner: str, register: Register) -> None:
        self.function = function
        self.decorator = decorator
        self.owner = owner
        self.register = register
        self.is_claimed = False

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", self.function))


members: Final[list[Member]] = []


def defer(function: Any, decorator: str, register: Register) -> bool:
    """Whether the function is a member of a class whose body runs; it is registered later then."""
    owner = _class_around(function)
    if owner is None:
        return False
    members.append(Member(function, decorator, owner, register))
    return True


def check_all_claimed() -> None:
    """Once the module is loaded, every class with members is a service or the base of one.

    Raises:
        TypeError: One is not.
    """
    for member in members:
        if not member.is_claimed:
            name, owner = member.name, member.owner
            raise TypeError(
                f"@{member.decorator} on `{owner}.{name}`: it is a method, and nothing would be "
                f"its `self`: decorate the class with @synapse.service, so that the worker makes "
                f"an instance, or register the method of one, {member.decorator}({owner}().{name})"
            )


def members_of(attribute: Any) -> Iterator[Member]:
    """The members that an attribute of a class is, also through what wraps them."""
    layers = list(_layers(attribute))
    for member in members:
        if any(member.function is layer for layer in layers):
            yield member


def _layers(attribute: Any) -> Iterator[Any]:
    met: set[int] = set()
    while attribute is not None and id(attribute) not in met:
        met.add(id(attribute))
        yield attribute
        if isinstance(attribute, (staticmethod, classmethod)):
            attribute = attribute.__func__
        else:
            # Looked up without running anything of the attribute's.
            attribute = inspect.getattr_static(attribute, "__wrapped__", None)


def _class_around(function: Any) -> str | None:
    """The class in whose body a decorator is at work on the function."""
    of_class = isinstance(function, (staticmethod, classmethod))
    plain = function.__func__ if of_class else function
    owner = str(getattr(plain, "__qualname__", "")).rpartition(".")[0]
    can_be_nearest = of_class or inspect.isfunction(plain)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__package__") != __package__:
            body = _class_of_body(frame)
            if body is not None and (can_be_nearest or body == owner):
                return body
            # Further out it is the class's only if its own name says so: a body may call anything.
            can_be_nearest = False
        frame = frame.f_back
    return None


def _class_of_body(frame: FrameType) -> str | None:
    if frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return None
    name = frame.f_locals.get("__qualname__")
    return name if isinstance(name, str) else None
