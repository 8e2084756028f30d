"""The names of definitions: those of their classes, and as much of their modules as tells them
apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from synapse._contract_types import Key
from synapse._declared import Error

Drafts = dict[Key, dict[str, Any]]

_OUTPUT: Final = "Output"


def names_of(drafts: Drafts) -> dict[Key, str]:
    """The name of each definition.

    A class that is not the same where it arrives and where it is sent has two, and that of what is
    sent ends in `Output`.
    """
    double = _double(drafts)
    entities: dict[tuple[Any, str], list[Key]] = {}
    for kind, way in drafts:
        suffix = _OUTPUT if kind in double and way == "out" else ""
        entities.setdefault((kind, suffix), []).append((kind, way))
    names: dict[Key, str] = {}
    for entity, name in _told_apart(list(entities)).items():
        names.update(dict.fromkeys(entities[entity], name))
    return names


def resolve(value: Any, name_of: Callable[[Key], Any]) -> Any:
    """A draft with names in its references."""
    if isinstance(value, list):
        return [resolve(each, name_of) for each in value]
    if not isinstance(value, dict):
        return value
    result = {key: resolve(each, name_of) for key, each in value.items()}
    if value.get("kind") == "ref":
        result["name"] = name_of(value["name"])
    return result


def _double(drafts: Drafts) -> set[Any]:
    """The classes whose two drafts say something different, or refer to one that does."""
    both = [kind for kind, way in drafts if way == "in" and (kind, "out") in drafts]

    def plain(key: Key) -> Any:
        return resolve(drafts[key], lambda referred: referred[0])

    double = {kind for kind in both if plain((kind, "in")) != plain((kind, "out"))}
    refers = {kind: set(_referred(drafts[kind, "in"])) for kind in both}
    grows = True
    while grows:
        more = {kind for kind in both if kind not in double and refers[kind] & double}
        double |= more
        grows = bool(more)
    return double


def _referred(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if value.get("kind") == "ref":
            yield value["name"][0]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _referred(each)


def _told_apart(entities: list[tuple[Any, str]]) -> dict[tuple[Any, str], str]:
    ways = {entity: [name + entity[1] for name in _candidates(entity[0])] for entity in entities}
    level = dict.fromkeys(entities, 0)
    while True:
        names = {entity: ways[entity][level[entity]] for entity in entities}
        counts = Counter(names.values())
        clashing = [
            entity
            for entity in entities
            if counts[names[entity]] > 1 and level[entity] + 1 < len(ways[entity])
        ]
        if not clashing:
            return _numbered(names)
        for entity in clashing:
            level[entity] += 1


def _numbered(names: dict[tuple[Any, str], str]) -> dict[tuple[Any, str], str]:
    """What nothing tells apart is numbered in the order in which it was met; errors, whose names
    are their tags, are not.
    """
    taken: set[str] = {names[entity] for entity in names if _is_error(entity[0])}
    result = {}
    for entity, name in names.items():
        unique, number = name, 1
        while unique in taken and not _is_error(entity[0]):
            number += 1
            unique = f"{name}{number}"
        taken.add(unique)
        result[entity] = unique
    return result


def _candidates(kind: Any) -> list[str]:
    """The names that a class could have, the shortest first."""
    if _is_error(kind):
        return [kind.__name__]
    qualified = getattr(kind, "__qualname__", None) or kind.__name__
    local = qualified.rpartition("<locals>.")[2]
    candidates = [local, qualified.replace("<locals>.", "")]
    whole = candidates[-1]
    for part in reversed((getattr(kind, "__module__", None) or "").split(".")):
        whole = f"{_capitalized(part.removeprefix('_synapse_'))}{whole}"
        candidates.append(whole)
    names = (re.sub(r"\W", "_", each.replace(".", "")) for each in candidates)
    return list(dict.fromkeys(names))


def _capitalized(module: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in module.split("_"))


def _is_error(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Error)
