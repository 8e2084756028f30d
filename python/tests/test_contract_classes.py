from __future__ import annotations

import collections
import dataclasses
import enum
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NewType, TypeVar

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions
from contracts import contract_of, given, taken

import synapse

if typing.TYPE_CHECKING:
    from nowhere import Nothing  # type: ignore[import-not-found]

T = TypeVar("T")
U = TypeVar("U")

INTEGER = {"kind": "integer"}
STRING = {"kind": "string"}
NULL = {"kind": "null"}
UNKNOWN = {"kind": "unknown"}
NUMBER = {"kind": "number"}


def field(name: str, type: Any = INTEGER, required: bool = True, **more: Any) -> Any:
    return {"name": name, "type": type, "required": required, **more}


def ref(name: str, *arguments: Any) -> Any:
    result: dict[str, Any] = {"kind": "ref", "name": name}
    return {**result, "arguments": list(arguments)} if arguments else result


def parameter(name: str) -> Any:
    return {"kind": "parameter", "name": name}


def a_list(items: Any) -> Any:
    return {"kind": "list", "items": items}


def optional(member: Any) -> Any:
    return {"kind": "union", "members": [member, NULL]}


def a_struct(*fields: Any, **more: Any) -> Any:
    return {"kind": "struct", "fields": list(fields), "open": True, **more}


# Dataclasses


class Level(enum.Enum):
    "How much."

    LOW = "low"
    HIGH = "high"


@dataclasses.dataclass
class Job:
    """Work to do.

    All of it.
    """

    name: Annotated[str, msgspec.Meta(description="What it is called.", max_length=9)]
    tries: int = 3
    level: Level = Level.LOW
    tags: list[str] = dataclasses.field(default_factory=list)
    parent: Job | None = None
    ratio: float = 0.5
    seen: typing.ClassVar[int] = 0


JOB_FIELDS = [
    field("name", {**STRING, "maxLength": 9}, doc="What it is called."),
    field("tries", required=False, always=True, default=3),
    field("level", ref("Level"), required=False, always=True, default="low"),
    field("tags", a_list(STRING), required=False, always=True),
    field("parent", optional(ref("Job")), required=False, always=True, default=None),
    field("ratio", NUMBER, required=False, always=True, default=0.5),
]
LEVEL = {
    "kind": "enum",
    "members": [{"name": "LOW", "value": "low"}, {"name": "HIGH", "value": "high"}],
    "doc": "How much.",
}


def test_a_dataclass_is_a_struct_with_its_defaults() -> None:
    expected = {"Job": a_struct(*JOB_FIELDS, doc="Work to do.\n\nAll of it."), "Level": LEVEL}
    assert taken(Job) == (ref("Job"), expected)
    assert given(list[Job]) == (a_list(ref("Job")), expected)


def test_a_definition_says_where_it_is_written() -> None:
    def f(job: Job) -> Level: ...

    contract = contract_of(f)
    lines = Path(__file__).read_text().splitlines()
    for name, definition in contract["definitions"].items():
        place = definition["place"]
        assert place["file"] == "test_contract_classes.py"
        assert lines[place["line"] - 1].startswith(f"class {name}")


@dataclasses.dataclass
class Counted:
    n: int
    double: int = dataclasses.field(init=False)


def test_a_field_that_init_does_not_take_is_sent_only() -> None:
    assert taken(Counted)[1] == {"Counted": a_struct(field("n"))}
    assert given(Counted)[1] == {"Counted": a_struct(field("n"), field("double"))}


def test_a_class_that_differs_in_the_two_ways_has_two_definitions() -> None:
    @dataclasses.dataclass
    class Batch:
        items: list[Counted]

    @dataclasses.dataclass
    class Same:
        n: int

    def f(batch: Any, same: Any) -> Any: ...

    f.__annotations__.update({"batch": Batch, "same": Same, "return": tuple[Batch, Same]})
    contract = contract_of(f)
    names = sorted(contract["definitions"])
    assert names == ["Batch", "BatchOutput", "Counted", "CountedOutput", "Same"]
    method = contract["methods"]["f"]
    assert [each["type"]["name"] for each in method["payload"]["fields"]] == ["Batch", "Same"]
    assert [each["name"] for each in method["success"]["items"]] == ["BatchOutput", "Same"]
    inner = contract["definitions"]["BatchOutput"]["fields"][0]["type"]
    assert inner == a_list(ref("CountedOutput"))


# Generics


@dataclasses.dataclass
class Box(Generic[T]):
    item: T
    next: Box[T] | None = None


@dataclasses.dataclass
class Pair(Generic[T, U]):
    first: T
    second: Box[U]


@dataclasses.dataclass
class Numbers(Box[int]):
    more: int = 0


@dataclasses.dataclass
class Swapped(Pair[U, T], Generic[T, U]):
    third: T


BOX = a_struct(
    field("item", parameter("T")),
    field("next", optional(ref("Box", parameter("T"))), required=False, always=True, default=None),
    parameters=["T"],
)


def test_a_generic_has_parameters_and_is_referred_to_with_arguments() -> None:
    assert taken(Box[int]) == (ref("Box", INTEGER), {"Box": BOX})
    assert taken(Box) == (ref("Box", UNKNOWN), {"Box": BOX})
    described, definitions = taken(Pair[int, list[str]])
    assert described == ref("Pair", INTEGER, a_list(STRING))
    assert definitions["Pair"] == a_struct(
        field("first", parameter("T")),
        field("second", ref("Box", parameter("U"))),
        parameters=["T", "U"],
    )


def test_a_class_of_a_generic_with_arguments_has_their_types() -> None:
    assert taken(Numbers)[1]["Numbers"] == a_struct(
        field("item"),
        field("next", optional(ref("Box", INTEGER)), required=False, always=True, default=None),
        field("more", required=False, always=True, default=0),
    )
    assert taken(Swapped[int, str])[1]["Swapped"] == a_struct(
        field("first", parameter("U")),
        field("second", ref("Box", parameter("T"))),
        field("third", parameter("T")),
        parameters=["T", "U"],
    )


class Wrapped(msgspec.Struct, Generic[T]):
    item: T


class WrappedText(Wrapped[str]):
    n: int = 1


class Held(pydantic.BaseModel, Generic[T]):
    item: T
    more: list[T] = []


class HeldText(Held[str]):
    pass


class Entry(typing_extensions.TypedDict, Generic[T]):
    item: T


class EntryOfText(Entry[str], Generic[T]):
    other: T


class Row(typing_extensions.NamedTuple, Generic[T]):
    item: T


def test_generics_may_be_of_any_kind() -> None:
    item = field("item", parameter("T"))
    assert taken(Wrapped[int]) == (
        ref("Wrapped", INTEGER),
        {"Wrapped": a_struct(item, parameters=["T"])},
    )
    assert taken(WrappedText)[1]["WrappedText"]["fields"][0] == field("item", STRING)
    held = a_struct(
        item, field("more", a_list(parameter("T")), required=False, always=True), parameters=["T"]
    )
    assert taken(Held[int]) == (ref("Held", INTEGER), {"Held": held})
    assert taken(HeldText)[1]["HeldText"]["fields"][0] == field("item", STRING)
    assert taken(Entry[int]) == (
        ref("Entry", INTEGER),
        {"Entry": a_struct(item, parameters=["T"])},
    )
    assert taken(EntryOfText[int])[1]["EntryOfText"]["fields"] == [
        field("item", STRING),
        field("other", parameter("T")),
    ]
    record = {"kind": "record", "fields": [item], "parameters": ["T"]}
    assert given(Row[int]) == (ref("Row", INTEGER), {"Row": record})


# Typed dictionaries and named tuples


class Options(typing_extensions.TypedDict, total=False):
    "What is wanted."

    name: typing_extensions.Required[str]
    size: typing_extensions.ReadOnly[int]


class More(Options):
    depth: typing_extensions.NotRequired[Annotated[int, typing_extensions.Doc("How deep.")]]
    width: int


class Closed(typing_extensions.TypedDict, extra_items=int):
    n: int


Functional = typing.TypedDict("Functional", {"a-b": int})


def test_a_typed_dictionary_is_a_struct() -> None:
    own = (field("name", STRING), field("size", required=False))
    assert taken(Options)[1] == {"Options": a_struct(*own, doc="What is wanted.")}
    assert taken(More)[1]["More"] == a_struct(
        *own, field("depth", required=False, doc="How deep."), field("width")
    )
    assert taken(Closed)[1] == {"Closed": a_struct(field("n"))}
    assert taken(Functional)[1] == {"Functional": a_struct(field("a-b"))}


class Point(typing.NamedTuple):
    x: int
    y: float = 0.5


Untyped = collections.namedtuple("Untyped", ["a", "b"])


def test_a_named_tuple_is_a_record() -> None:
    fields = [field("x"), field("y", NUMBER, required=False, always=True, default=0.5)]
    assert taken(Point) == (ref("Point"), {"Point": {"kind": "record", "fields": fields}})
    fields = [field("a", UNKNOWN), field("b", UNKNOWN)]
    assert taken(Untyped)[1] == {"Untyped": {"kind": "record", "fields": fields}}


# msgspec


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True):
    first_name: str
    last_name: str | msgspec.UnsetType = msgspec.UNSET
    nick_names: list[str] = msgspec.field(default_factory=list)
    age: Annotated[int, msgspec.Meta(ge=0, description="In years.")] = 3
    other: int = msgspec.field(default=1, name="x")


class Unset(msgspec.Struct):
    a: int | msgspec.UnsetType = msgspec.UNSET
    b: int = 1


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    n: int


class Flat(msgspec.Struct, array_like=True):
    n: int
    text: str = "a"


class TaggedFlat(msgspec.Struct, array_like=True, tag="flat"):
    n: int


class Circle(msgspec.Struct, tag_field="_tag", tag="circle"):
    radius: float


class Square(msgspec.Struct, tag_field="_tag", tag="square", forbid_unknown_fields=True):
    side: float


class Third(msgspec.Struct, tag=3):
    pass


def test_a_struct_of_msgspec_is_as_it_travels() -> None:
    assert taken(Renamed)[1] == {
        "Renamed": a_struct(
            field("firstName", STRING),
            field("lastName", STRING, required=False),
            field("nickNames", a_list(STRING), required=False),
            field("age", {**INTEGER, "minimum": 0}, required=False, default=3, doc="In years."),
            field("x", required=False, default=1),
        )
    }
    assert taken(Unset)[1] == {
        "Unset": a_struct(
            field("a", required=False), field("b", required=False, always=True, default=1)
        )
    }
    assert taken(Strict)[1] == {"Strict": {"kind": "struct", "fields": [field("n")]}}
    assert taken(Flat)[1] == {
        "Flat": {
            "kind": "record",
            "fields": [field("n"), field("text", STRING, required=False, always=True, default="a")],
        }
    }
    tag = field("type", {"kind": "literal", "values": ["flat"]})
    assert taken(TaggedFlat)[1] == {"TaggedFlat": {"kind": "record", "fields": [tag, field("n")]}}


def test_tagged_structs_have_their_tags() -> None:
    assert taken(Circle | Square | Third) == (
        {"kind": "union", "members": [ref("Circle"), ref("Square"), ref("Third")]},
        {
            "Circle": a_struct(field("radius", NUMBER), tag={"field": "_tag", "value": "circle"}),
            "Square": {
                "kind": "struct",
                "fields": [field("side", NUMBER)],
                "tag": {"field": "_tag", "value": "square"},
            },
            "Third": a_struct(tag={"field": "type", "value": 3}),
        },
    )


def test_a_literal_of_one_text_is_a_tag_in_any_struct() -> None:
    @dataclasses.dataclass
    class Cat:
        kind: Literal["cat"]
        name: str

    @dataclasses.dataclass
    class Dog:
        name: str
        kind: Literal["dog"] = "dog"

    for each in (Cat, Dog):
        each.__annotations__["kind"] = Literal[each.__name__.lower()]
    name = field("name", STRING)
    assert given(Cat)[1] == {"Cat": a_struct(name, tag={"field": "kind", "value": "cat"})}
    assert given(Dog)[1] == {"Dog": a_struct(name, tag={"field": "kind", "value": "dog"})}


# attrs


@attrs.define
class Made:
    n: int
    text: str = "a"
    many: list[int] = attrs.field(factory=list)
    fixed: int = attrs.field(init=False, default=4)
    later: int = attrs.field(init=False)
    _private: int = 5


def test_a_class_of_attrs_is_a_struct() -> None:
    text = field("text", STRING, required=False, always=True, default="a")
    many = field("many", a_list(INTEGER), required=False, always=True)
    private = field("_private", required=False, always=True, default=5)
    assert taken(Made)[1] == {"Made": a_struct(field("n"), text, many, field("later"), private)}
    assert given(Made)[1] == {
        "Made": a_struct(field("n"), text, many, field("fixed"), field("later"))
    }


# pydantic


class Person(pydantic.BaseModel):
    "Somebody."

    model_config = pydantic.ConfigDict(extra="forbid")

    full_name: str = pydantic.Field(alias="fullName", min_length=1, description="All of it.")
    age: int = pydantic.Field(default=0, ge=0, le=150)
    born: pydantic.AwareDatetime | None = None
    friends: list[Person] = pydantic.Field(default_factory=list)
    secret: int = pydantic.Field(default=0, exclude=True)
    ratio: Annotated[float, pydantic.Field(gt=0, description="Of two.")] = 1.0

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def size(self) -> int:
        "How long it is."
        return len(self.full_name)


def person(name: str, friends: str) -> list[Any]:
    aware = {"kind": "datetime", "aware": True}
    return [
        field(name, {**STRING, "minLength": 1}, doc="All of it."),
        field(
            "age", {**INTEGER, "minimum": 0, "maximum": 150}, required=False, always=True, default=0
        ),
        field("born", optional(aware), required=False, always=True, default=None),
        field("friends", a_list(ref(friends)), required=False, always=True),
    ]


RATIO = field(
    "ratio",
    {**NUMBER, "exclusiveMinimum": 0},
    required=False,
    always=True,
    default=1.0,
    doc="Of two.",
)


def test_a_model_of_pydantic_is_as_it_travels() -> None:
    secret = field("secret", required=False, always=True, default=0)
    closed = {"kind": "struct", "doc": "Somebody."}
    expected = {**closed, "fields": [*person("fullName", "Person"), secret, RATIO]}
    assert taken(Person)[1] == {"Person": expected}
    size = field("size", doc="How long it is.")
    expected = {**closed, "fields": [*person("full_name", "Person"), RATIO, size]}
    assert given(Person)[1] == {"Person": expected}


class ByName(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    full_name: str = pydantic.Field(alias="fullName")


class ByAlias(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(serialize_by_alias=True, extra="allow")
    full_name: str = pydantic.Field(alias="fullName")


class Choices(pydantic.BaseModel):
    a: int = pydantic.Field(validation_alias=pydantic.AliasChoices("first", "second"))


class Numbered(pydantic.RootModel[list[int]]):
    pass


def test_the_keys_of_a_model_go_both_ways_where_they_can() -> None:
    for model, key in ((ByName, "full_name"), (ByAlias, "fullName")):
        expected = {model.__name__: a_struct(field(key, STRING))}
        assert taken(model)[1] == given(model)[1] == expected
    assert taken(Choices)[1] == {"Choices": a_struct(field("first"))}
    assert given(Choices)[1] == {"Choices": a_struct(field("a"))}


def test_a_root_model_is_what_it_holds() -> None:
    assert taken(Numbered) == (
        ref("Numbered"),
        {"Numbered": {"kind": "alias", "type": a_list(INTEGER)}},
    )


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"


class Home(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")


def test_a_discriminated_union_has_tags() -> None:
    assert taken(Home)[1] == {
        "Home": a_struct(field("pet", {"kind": "union", "members": [ref("Cat"), ref("Dog")]})),
        "Cat": a_struct(field("lives"), tag={"field": "kind", "value": "cat"}),
        "Dog": a_struct(tag={"field": "kind", "value": "dog"}),
    }


class Serialized(pydantic.BaseModel):
    plain: int
    as_text: int
    annotated: Annotated[int, pydantic.PlainSerializer(str, return_type=str)]

    @pydantic.field_serializer("as_text")
    def _text(self, value: int) -> str:
        return str(value)


class Whole(pydantic.BaseModel):
    n: int

    @pydantic.model_serializer
    def _text(self) -> str:
        return str(self.n)


class Hidden(pydantic.BaseModel):
    n: int

    @pydantic.field_serializer("n")
    def _text(self, value):  # type: ignore[no-untyped-def]
        return str(value)


def test_what_a_model_sends_is_what_its_serializers_return() -> None:
    fields = [field("plain"), field("as_text", STRING), field("annotated", STRING)]
    assert given(Serialized)[1] == {"Serialized": a_struct(*fields)}
    assert given(Whole)[1] == {"Whole": {"kind": "alias", "type": STRING}}
    assert given(Hidden, problems=1)[1] == {"Hidden": a_struct(field("n", UNKNOWN))}
    assert taken(Hidden)[1] == {"Hidden": a_struct(field("n"))}


class Site(pydantic.BaseModel):
    url: pydantic.HttpUrl
    file: Path
    secret: pydantic.SecretStr


def test_what_only_pydantic_can_read_arrives_and_is_not_sent() -> None:
    fields = [field(name, STRING) for name in ("url", "file", "secret")]
    assert taken(Site)[1] == {"Site": a_struct(*fields)}
    given(Site, problems=3)


# Enums, named types


class Number(enum.IntEnum):
    ONE = 1
    BIG = 2**60


class Mixed(enum.Enum):
    TEXT = "text"
    HALF = 0.5
    NONE = None
    SAME = "text"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Objects(enum.Enum):
    A = object()


def test_an_enum_has_its_members_in_their_order() -> None:
    assert taken(Number)[1]["Number"]["members"] == [
        {"name": "ONE", "value": 1},
        {"name": "BIG", "value": 2**60},
    ]
    assert [each["value"] for each in taken(Mixed)[1]["Mixed"]["members"]] == ["text", 0.5, None]
    assert taken(Access)[1] == {"Access": {"kind": "alias", "type": INTEGER}}
    assert given(Objects, problems=1)[1] == {"Objects": {"kind": "alias", "type": UNKNOWN}}
    endless = enum.Enum("Endless", {"NONE": float("inf")})
    assert taken(endless, problems=1)[1] == {"Endless": {"kind": "alias", "type": UNKNOWN}}


UserId = NewType("UserId", int)
Listed = typing_extensions.TypeAliasType("Listed", list[T], type_params=(T,))


def test_a_new_type_is_an_alias() -> None:
    assert taken(list[UserId]) == (
        a_list(ref("UserId")),
        {"UserId": {"kind": "alias", "type": INTEGER}},
    )
    bounded = Annotated[UserId, msgspec.Meta(ge=0)]
    assert taken(bounded) == ({**INTEGER, "minimum": 0}, {})


def test_a_named_alias_may_be_generic() -> None:
    assert given(Listed[int]) == (
        ref("Listed", INTEGER),
        {"Listed": {"kind": "alias", "type": a_list(parameter("T")), "parameters": ["T"]}},
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no type statement")
def test_type_statements_and_parameters_in_brackets_are_described() -> None:
    scope: dict[str, Any] = {"dataclasses": dataclasses, "__name__": __name__}
    source = """
type Tree = int | list[Tree]
type Couple[V] = tuple[V, V]

@dataclasses.dataclass
class Cell[V: int]:
    item: V
    next: "Cell[V] | None" = None
"""
    exec(source, scope)
    union = {"kind": "union", "members": [INTEGER, a_list(ref("Tree"))]}
    assert taken(scope["Tree"]) == (ref("Tree"), {"Tree": {"kind": "alias", "type": union}})
    both = {"kind": "tuple", "items": [parameter("V"), parameter("V")]}
    couple = {"kind": "alias", "type": both, "parameters": ["V"]}
    assert taken(scope["Couple"][str]) == (ref("Couple", STRING), {"Couple": couple})
    described, definitions = given(scope["Cell"])
    assert described == ref("Cell", INTEGER)
    assert definitions["Cell"]["fields"][0] == field("item", parameter("V"))


# Errors


class Full(synapse.Error):
    "There is no room."

    limit: int
    unit: str = "tokens"
    _kept: int


class Fuller(Full):
    by: float


def test_an_error_is_sent_with_its_message_and_all_of_its_fields() -> None:
    def f() -> None: ...

    contract = contract_of(f, raises=(Full,))
    assert contract["methods"]["f"]["raises"] == ["Full", "Fuller"]
    fields = [field("message", STRING), field("limit"), field("unit", STRING)]
    full, fuller = contract["definitions"]["Full"], contract["definitions"]["Fuller"]
    assert (full["kind"], full["doc"], full["fields"]) == ("error", "There is no room.", fields)
    assert fuller["fields"] == [*fields, field("by", NUMBER)]


# What cannot be described


class Opaque:
    pass


@dataclasses.dataclass
class Broken:
    good: int
    thing: Opaque
    nothing: Nothing


def test_a_field_without_a_type_is_unknown_and_a_problem_of_its_class() -> None:
    def f() -> Broken: ...

    contract = contract_of(f)
    fields = contract["definitions"]["Broken"]["fields"]
    assert [each["type"] for each in fields] == [INTEGER, UNKNOWN, UNKNOWN]
    first, second = contract["problems"]
    place = contract["definitions"]["Broken"]["place"]
    assert (first["method"], first["path"], first["place"]) == ("f", "Broken.thing", place)
    assert first["message"].startswith("`Opaque` cannot be sent as a value: return a dataclass")
    assert second["path"] == "Broken.nothing"
    assert "name 'Nothing' is not defined: name a type that the module has" in second["message"]


# Names


def test_a_name_has_no_dots() -> None:
    class Inner:
        @dataclasses.dataclass
        class Options:
            n: int

    described, definitions = given(Inner.Options)
    assert (described, list(definitions)) == (ref("InnerOptions"), ["InnerOptions"])


def make(name: str, module: str, kind: Any = int) -> Any:
    made = dataclasses.make_dataclass(name, [("n", kind)])
    made.__module__ = module
    return made


@pytest.mark.parametrize("backwards", [False, True])
def test_classes_of_one_name_are_told_apart_by_their_modules(backwards: bool) -> None:
    classes = [
        make("User", "shop.user_models"),
        make("User", "shop.admin.views"),
        make("User", "bank.views"),
        make("Other", "bank.views"),
    ]
    if backwards:
        classes.reverse()
    names = sorted(given(tuple[tuple(classes)])[1])  # type: ignore[misc]
    assert names == ["AdminViewsUser", "BankViewsUser", "Other", "UserModelsUser"]


def test_classes_that_nothing_tells_apart_are_numbered() -> None:
    classes = [make("User", "shop"), make("User", "shop", str)]
    described, definitions = given(tuple[tuple(classes)])  # type: ignore[misc]
    assert [each["name"] for each in described["items"]] == ["ShopUser", "ShopUser2"]
    assert definitions["ShopUser2"]["fields"][0]["type"] == STRING


def test_an_error_keeps_its_name_which_is_its_tag() -> None:
    @dataclasses.dataclass
    class Full:
        n: int

    def f() -> Any: ...

    f.__annotations__["return"] = Full
    contract = contract_of(f, raises=(Fuller, globals()["Full"]))
    assert contract["definitions"]["Full"]["kind"] == "error"
    other = contract["methods"]["f"]["success"]["name"]
    assert other != "Full" and contract["definitions"][other]["kind"] == "struct"


def test_two_errors_of_one_name_are_a_problem() -> None:
    one = type("Taken", (synapse.Error,), {"__annotations__": {"n": int}})
    two = type("Taken", (synapse.Error,), {"__annotations__": {"text": str}})

    def f() -> None: ...

    (problem,) = contract_of(f, raises=(one, two))["problems"]
    assert problem["path"] == "raises Taken"
    assert "rename one of them" in problem["message"]
