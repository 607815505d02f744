"""Keys of the pipeline file as fields of dataclasses: type, default, examples, and the meaning in the class docstring.

The JSON Schema, the reference page and the parsing of values all follow from the fields. A new key is a new field.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from lamina_batch.pipeline.problems import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lamina_batch.pipeline.problems import KeyPath

#: a JSON Schema, or a part of one
Schema = dict[str, Any]
Section = TypeVar("Section")
_NO_DEFAULT = object()


@dataclass(frozen=True, slots=True)
class ValueType:
    """A type of value: what JSON Schema says of it, and how it becomes the value of a field."""

    schema: Schema
    #: gets a value that fits the schema; raises InvalidValueError for what a schema cannot say
    parse: Callable[[Any], Any] = lambda value: value
    #: the dataclass of a mapping with fixed keys; None: any other value
    section: type | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a field says about its key."""

    type: ValueType
    #: as the file writes it
    default: object
    #: None: the name of the field
    name: str | None
    required: bool
    examples: Sequence[object]
    #: of an option of an input rule: the sources that it goes with
    goes_with: Sequence[str]

    def schema(self, meaning: str) -> Schema:
        """The JSON Schema of the key's value."""
        schema = {"description": meaning, **self.type.schema}
        if self.default not in ({}, _NO_DEFAULT) and not self.required:
            schema["default"] = self.default
        return {**schema, "examples": list(self.examples)} if self.examples else schema

    def default_value(self) -> object:
        """The value of the field without the key."""
        if self.default is _NO_DEFAULT:
            return None
        return self.type.parse(self.default) if self.type.section is None else self.type.section()


def file_key(
    value_type: ValueType,
    default: object = _NO_DEFAULT,
    *,
    name: str | None = None,
    required: bool = False,
    examples: Sequence[object] = (),
    goes_with: Sequence[str] = (),
    secret: bool = False,
) -> Any:
    """A dataclass field that is a key of the file. Without a default, an optional field is None.

    `default` is written as in the file: `45m`, not 2700.0. A `secret` value is never in the repr of its section.
    """
    key = Key(type=value_type, default=default, name=name, required=required, examples=examples, goes_with=goes_with)
    if required and default is _NO_DEFAULT:
        return dataclasses.field(metadata={"key": key}, repr=not secret)
    return dataclasses.field(default_factory=key.default_value, metadata={"key": key}, repr=not secret)


def keys_of(section: type) -> dict[str, tuple[str, Key]]:
    """The keys of a section by their names in the file, each with the name of its field."""
    fields = ((field.name, field.metadata["key"]) for field in dataclasses.fields(section) if "key" in field.metadata)
    return {key.name or name: (name, key) for name, key in fields}


def key_schemas(section: type) -> dict[str, Schema]:
    """The JSON Schema of each key of a section.

    The class docstring lists the meanings, `key: Meaning.`; a key that is a section itself has its own docstring.
    """
    listed = re.findall(r"^(\w+): (.+(?:\n    .+)*)", inspect.getdoc(section) or "", re.MULTILINE)
    meanings = {name: " ".join(meaning.split()) for name, meaning in listed}
    keys = {name: key for name, (_, key) in keys_of(section).items()}
    return {name: key.schema(meanings.get(name) or summary_of(key.type.section)) for name, key in keys.items()}


def summary_of(section: type | None) -> str:
    """The first paragraph of the class docstring."""
    return " ".join((inspect.getdoc(section) or "").partition("\n\n")[0].split()) if section is not None else ""


def section_type(section: type) -> ValueType:
    """The type of a mapping that becomes a `section`, and that has no other keys."""
    required = [name for name, (_, key) in keys_of(section).items() if key.required]
    schema: Schema = {"type": "object", "additionalProperties": False}
    schema |= {"required": required} if required else {}
    return ValueType({**schema, "properties": key_schemas(section)}, section=section)


def build(
    section: type[Section],
    values: Mapping[str, Any],
    key_path: KeyPath,
    report: Callable[[KeyPath, InvalidValueError], None],
    /,
    **fields: object,
) -> Section:
    """A `section` from values that fit its schema. `fields` are those that the caller has built itself.

    A value that its type refuses is reported, and its field is None.
    """
    for name, (field, key) in keys_of(section).items():
        if name not in values or field in fields:
            continue
        inner = (*key_path, name)
        try:
            fields[field] = (
                key.type.parse(values[name])
                if key.type.section is None
                else build(key.type.section, values[name], inner, report)
            )
        except InvalidValueError as problem:
            report(inner, problem)
            fields[field] = None
    return section(**fields)
