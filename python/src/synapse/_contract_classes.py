"""From classes and named types to the definitions of the contract."""

from __future__ import annotations

import dataclasses
import enum
import math
import sys
import typing
from collections.abc import Iterator, Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Final

from synapse._annotations import written
from synapse._contract_limits import Type, cleaned, doc_in
from synapse._contract_places import Place, doc_of_type
from synapse._contract_types import (
    Scope,
    Spot,
    constant_of,
    hints_for,
    is_alias,
    is_model,
    parameters_of,
    unresolved,
)
from synapse._convert import qualifiers
from synapse._declared import Error

if TYPE_CHECKING:
    from synapse._contract_types import Describer

Definition = dict[str, Any]
#: No default, or one that is no constant.
MISSING: Final = Parameter.empty


def define(describer: Describer, kind: Any, place: Place | None, spot: Spot) -> Definition:
    """The definition of a class, a `NewType` or a named type."""
    parameters = parameters_of(kind)
    definition: Definition = {}
    doc = doc_of_type(kind)
    if doc is not None:
        definition["doc"] = doc
    scope: dict[Any, Type] = {
        each: {"kind": "parameter", "name": each.__name__} for each in parameters
    }
    name = kind.__qualname__ if isinstance(kind, type) else kind.__name__
    path = name.rpartition("<locals>.")[2]
    inner = dataclasses.replace(spot, path=path, place=place, of_model=is_model(kind))
    for each in parameters:
        if not isinstance(each, typing.TypeVar):
            scope[each] = describer.problem(
                inner, f"its parameter `{each}` stands for no single type: use a TypeVar"
            )
    defined = _Definer(describer, kind, inner, scope).define()
    if parameters and defined["kind"] in ("struct", "record", "alias"):
        defined["parameters"] = [each.__name__ for each in parameters]
    return {**defined, **definition}


class _Definer:
    """Makes one definition."""

    def __init__(self, describer: Describer, kind: Any, spot: Spot, scope: dict[Any, Type]) -> None:
        self._describer = describer
        self._kind = kind
        self._spot = spot
        self._scope = scope
        self._is_in = spot.way == "in"
        self._scopes: dict[Any, Scope] = {}
        self._hints: dict[str, Any] = {}
        self._failures: Mapping[str, Exception] = {}
        #: The keys of fields that may be missing in what is sent.
        self._omitted: set[str] = set()

    def define(self) -> Definition:
        defined = self._defined()
        if not hasattr(self._kind, "__total__"):
            for each in defined.get("fields", ()):
                if not each["required"] and each["name"] not in self._omitted:
                    each["always"] = True
        return defined

    def _defined(self) -> Definition:
        kind = self._kind
        if isinstance(kind, typing.NewType):
            return self._alias(kind.__supertype__)
        if is_alias(kind):
            return self._alias(kind.__value__)
        if issubclass(kind, enum.Enum):
            return self._enum()
        if is_model(kind):
            return self._model()
        if hasattr(kind, "__struct_fields__"):
            return self._msgspec()
        self._hints, self._failures = hints_for(kind, self._spot.way)
        if issubclass(kind, Error):
            return self._error()
        self._scopes = dict(_scopes(self._describer, kind, self._spot, self._scope))
        if hasattr(kind, "__total__"):
            return self._struct(self._typed_dict())
        if hasattr(kind, "__attrs_attrs__"):
            return self._struct(self._attrs())
        if dataclasses.is_dataclass(kind):
            return self._struct(self._dataclass())
        return {"kind": "record", "fields": list(self._named_tuple())}

    def _alias(self, annotation: Any) -> Definition:
        return {"kind": "alias", "type": self._describer.of(annotation, self._spot, self._scope)}

    def _enum(self) -> Definition:
        if issubclass(self._kind, enum.Flag):
            # Any combination of its members.
            return {"kind": "alias", "type": {"kind": "integer"}}
        members = []
        for member in self._kind:
            known, value = constant_of(member.value)
            if not known or (isinstance(value, float) and not math.isfinite(value)):
                why = (
                    f"the value of `{member.name}` is no constant that can be named: give it text "
                    f"or a number for one"
                )
                return {"kind": "alias", "type": self._describer.problem(self._spot, why)}
            members.append({"name": member.name, "value": value})
        return {"kind": "enum", "members": members}

    def _error(self) -> Definition:
        fields = [field("message", {"kind": "string"}, True)]
        fields += [self._hinted(name, name, True) for name in self._kind._fields]
        return {"kind": "error", "fields": fields}

    # Fields

    def _struct(self, fields: Iterator[dict[str, Any]], is_open: bool = True) -> Definition:
        return _tagged({"kind": "struct", "fields": list(fields)}, is_open)

    def _described(self, name: str, annotation: Any, scope: Scope) -> Type:
        spot = dataclasses.replace(self._spot, path=f"{self._spot.path}.{name}")
        return self._describer.of(annotation, spot, scope)

    def _hinted(
        self, key: str, name: str, required: bool, default: Any = MISSING, doc: str | None = None
    ) -> dict[str, Any]:
        """A field that the class has an annotation for."""
        failure = self._failures.get(name)
        if failure is not None:
            spot = dataclasses.replace(self._spot, path=f"{self._spot.path}.{name}")
            why = unresolved("its annotation", failure)
            return field(key, self._describer.problem(spot, why), required, default, doc)
        hint = self._hints.get(name, Any)
        scope = self._scope_of(name)
        return field(
            key, self._described(name, hint, scope), required, default, doc or doc_of_hint(hint)
        )

    def _scope_of(self, name: str) -> Scope:
        """What parameters stand for in the class that says the annotation."""
        having = [base for base in self._scopes if name in written(base)]
        if hasattr(self._kind, "__total__"):
            # A `TypedDict` repeats the annotations of its bases, which it does not inherit from.
            having.reverse()
        else:
            having.sort(key=self._kind.__mro__.index)
        return self._scopes[having[0]] if having else self._scope

    def _typed_dict(self) -> Iterator[dict[str, Any]]:
        required = set(self._kind.__required_keys__)
        for name in (*self._kind.__required_keys__, *self._kind.__optional_keys__):
            says = set(qualifiers(self._hints.get(name)))
            if "Required" in says:
                required.add(name)
            elif "NotRequired" in says:
                required.discard(name)
        for name in written(self._kind):
            yield self._hinted(name, name, name in required)

    def _dataclass(self) -> Iterator[dict[str, Any]]:
        for each in dataclasses.fields(self._kind):
            if self._is_in and not each.init:
                continue
            has_default = each.default is not dataclasses.MISSING
            required = not has_default and each.default_factory is dataclasses.MISSING
            default = each.default if has_default and each.init else MISSING
            doc = getattr(each, "doc", None)
            yield self._hinted(each.name, each.name, required or not each.init, default, doc)

    def _attrs(self) -> Iterator[dict[str, Any]]:
        for each in self._kind.__attrs_attrs__:
            has_default = type(each.default).__name__ != "_Nothing"
            # msgspec wants what has no default also where `__init__` does not take it, and does not
            # send what is private.
            if (not each.init and has_default) if self._is_in else each.name.startswith("_"):
                continue
            required = not has_default or not each.init
            default = MISSING if required else each.default
            yield self._hinted(each.name, each.name, required, default)

    def _named_tuple(self) -> Iterator[dict[str, Any]]:
        defaults = self._kind._field_defaults
        for name in self._kind._fields:
            yield self._hinted(name, name, name not in defaults, defaults.get(name, MISSING))

    def _msgspec(self) -> Definition:
        msgspec = sys.modules["msgspec"]
        config = self._kind.__struct_config__
        unset = (msgspec.NODEFAULT, msgspec.UNSET)
        fields = []
        for each in msgspec.structs.fields(self._kind):
            default = MISSING if each.default in unset else each.default
            described = self._described(each.name, each.type, self._scope)
            if config.omit_defaults or each.default is msgspec.UNSET:
                self._omitted.add(each.encode_name)
            fields.append(
                field(each.encode_name, described, each.required, default, doc_of_hint(each.type))
            )
        if config.array_like:
            if config.tag is not None:
                literal = {"kind": "literal", "values": [config.tag]}
                # It is told from the fields by its place, not by its name.
                name = config.tag_field
                while any(each["name"] == name for each in fields):
                    name = f"_{name}"
                fields.insert(0, field(name, literal, True))
            return {"kind": "record", "fields": fields}
        definition: Definition = {"kind": "struct", "fields": fields}
        if config.tag is None:
            return _tagged(definition, not config.forbid_unknown_fields)
        definition["tag"] = {"field": config.tag_field, "value": config.tag}
        return definition if config.forbid_unknown_fields else {**definition, "open": True}

    # Models of pydantic

    def _model(self) -> Definition:
        model = self._kind
        if not getattr(model, "__pydantic_complete__", True):
            model.model_rebuild(raise_errors=False)
        config, decorators = model.model_config, model.__pydantic_decorators__
        if decorators.model_serializers and not self._is_in:
            return {"kind": "alias", "type": self._serialized(decorators.model_serializers)}
        root = getattr(model, "__pydantic_root_model__", False) is True
        fields = []
        for name, info in model.model_fields.items():
            annotation = _annotation_of(info)
            if root:
                return self._alias(annotation)
            if info.exclude and not self._is_in:
                continue
            described = self._described(name, annotation, self._scope)
            if not self._is_in:
                described = self._serialized_field(name, described)
            default = MISSING if info.default_factory is not None else info.default
            fields.append(
                field(
                    self._key(name, info, config),
                    described,
                    info.is_required(),
                    default,
                    info.description or doc_of_hint(annotation),
                )
            )
        if not self._is_in:
            for name, computed in model.model_computed_fields.items():
                described = self._described(name, computed.return_type, self._scope)
                key = computed.alias if config.get("serialize_by_alias") else None
                fields.append(field(key or name, described, True, MISSING, computed.description))
        definition: Definition = {"kind": "struct", "fields": fields}
        return _tagged(definition, config.get("extra") != "forbid")

    def _key(self, name: str, info: Any, config: Mapping[str, Any]) -> str:
        """The key of a field on the wire."""
        by_alias = bool(config.get("serialize_by_alias"))
        if not self._is_in:
            return str(info.serialization_alias or name) if by_alias else name
        by_name = config.get("populate_by_name") or config.get("validate_by_name")
        if info.validation_alias is None or config.get("validate_by_alias") is False:
            return name
        if by_name and not by_alias:
            # The one that goes both ways.
            return name
        choices = getattr(info.validation_alias, "choices", [info.validation_alias])
        for choice in choices:
            if isinstance(choice, str):
                return choice
        spot = dataclasses.replace(self._spot, path=f"{self._spot.path}.{name}")
        self._describer.problem(
            spot, "it is taken from a path in what arrives: give it an alias that is a text"
        )
        return name

    def _serialized_field(self, name: str, described: Type) -> Type:
        decorators = self._kind.__pydantic_decorators__.field_serializers
        found = {
            key: each
            for key, each in decorators.items()
            if name in each.info.fields or "*" in each.info.fields
        }
        if not found:
            return described
        return self._serialized(found, f".{name}")

    def _serialized(self, decorators: Mapping[str, Any], path: str = "") -> Type:
        """What the function of a serializer returns."""
        spot = dataclasses.replace(self._spot, path=f"{self._spot.path}{path}")
        decorator = list(decorators.values())[-1]
        returned = decorator.info.return_type
        if type(returned).__name__ == "PydanticUndefinedType":
            try:
                returned = typing.get_type_hints(decorator.func).get("return", MISSING)
            except Exception:
                returned = MISSING
        if returned is MISSING:
            return self._describer.problem(
                spot, "what its serializer returns is not said: annotate its return"
            )
        return self._describer.of(returned, spot, self._scope)


def field(
    name: str, described: Type, required: bool, default: Any = MISSING, doc: str | None = None
) -> dict[str, Any]:
    """A field, or a parameter of a handler."""
    result: dict[str, Any] = {"name": name, "type": described, "required": required}
    if not required and default is not MISSING:
        known, constant = constant_of(default)
        if known:
            result["default"] = constant
    if doc:
        result["doc"] = cleaned(doc)
    return result


def doc_of_hint(annotation: Any) -> str | None:
    """What the metadata of an annotation says about the field."""
    while (origin := typing.get_origin(annotation)) is not None:
        arguments = typing.get_args(annotation)
        if origin is typing.Annotated:
            return doc_in(arguments[1:])
        if getattr(origin, "__name__", "") not in ("Required", "NotRequired", "ReadOnly"):
            return None
        annotation = arguments[0]
    return None


def _annotation_of(info: Any) -> Any:
    """The annotation of a field of a model, whose metadata pydantic has taken apart."""
    if not info.metadata:
        return info.annotation
    annotated: Any = typing.Annotated
    parts = (info.annotation, *info.metadata)
    return annotated[parts]


def _tagged(definition: Definition, is_open: bool) -> Definition:
    """With its first field that has one constant as its tag."""
    for each in definition["fields"]:
        kind = each["type"]
        if kind["kind"] != "literal" or len(kind["values"]) != 1:
            continue
        (value,) = kind["values"]
        if isinstance(value, str) and (each["required"] or each.get("default") == value):
            definition["tag"] = {"field": each["name"], "value": value}
            definition["fields"].remove(each)
            break
    return {**definition, "open": True} if is_open else definition


def _scopes(
    describer: Describer, kind: Any, spot: Spot, scope: Scope
) -> Iterator[tuple[Any, Scope]]:
    """What the parameters of a class and of its bases stand for."""
    yield kind, scope
    for base in kind.__dict__.get("__orig_bases__") or kind.__bases__:
        origin = typing.get_origin(base) or base
        if not isinstance(origin, type) or origin in _ROOTS:
            continue
        arguments = [describer.of(each, spot, scope) for each in typing.get_args(base)]
        inner = dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False))
        yield from _scopes(describer, origin, spot, inner)


_ROOTS: Final = (object, dict, tuple, typing.Generic, typing.Protocol)
