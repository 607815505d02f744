"""Checks the values of a pipeline file against its JSON Schema. Each problem gets a message and a hint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from lamina_batch.errors import did_you_mean
from lamina_batch.pipeline.file_schema import schema_types
from lamina_batch.pipeline.problems import (
    SECRET_REFUSED_HINT,
    SECRET_REFUSED_MESSAGE,
    KeyPath,
    Problem,
    dotted_path,
    escape_unprintable,
)
from lamina_batch.pipeline.spec import SOURCES
from lamina_batch.pipeline.typed_values import parse_scalar
from lamina_batch.pipeline.yaml_tree import OVERRIDE_POSITION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jsonschema.exceptions import ValidationError

    from lamina_batch.pipeline.keys import Schema
    from lamina_batch.pipeline.typed_values import PipelineValues


def check_document(document: PipelineValues, schema: Schema) -> list[Problem]:
    """All problems of the document with the schema."""
    # importing jsonschema takes longer than the rest of loading, and --help does not need it
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    errors = Draft202012Validator(schema).iter_errors(document.values)
    # FILL_IN comes first, because of several problems of one value only the first is shown.
    return [
        *_fill_in_problems(document),
        *(problem for error in errors for problem in _translate_error(error, document, schema)),
    ]


#: `init` writes it where the user has to decide
FILL_IN = "FILL_IN"
_MAX_LISTED = 20


def _fill_in_problems(document: PipelineValues) -> Iterator[Problem]:
    """All places with FILL_IN, as one problem."""
    paths = sorted(_unfilled_paths(document.values, ()), key=document.positions.__getitem__)
    if not paths:
        return
    listed = [
        f"{dotted_path(path)} ({f'line {line}' if (line := document.positions[path].line) else '--set'})"
        for path in paths[:_MAX_LISTED]
    ]
    more = f", and {len(paths) - _MAX_LISTED} more" if len(paths) > _MAX_LISTED else ""
    what = "1 place is" if len(paths) == 1 else f"{len(paths)} places are"
    yield Problem(
        key_path=paths[0],
        position=document.positions[paths[0]],
        what=f"{what} still to be filled in: {', '.join(listed)}{more}",
        hint=f"replace {FILL_IN} with a value; the comments above it say which values fit",
    )


def _unfilled_paths(value: object, key_path: KeyPath) -> Iterator[KeyPath]:
    if value == FILL_IN:
        yield key_path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in inner:
        yield from _unfilled_paths(item, (*key_path, step))


def _translate_error(error: ValidationError, document: PipelineValues, root: Schema) -> Iterator[Problem]:
    """An error of jsonschema as problems. One error can be several problems; as_error merges those of one value."""
    key_path: KeyPath = tuple(error.absolute_path)
    value: Any = error.instance
    schema: Any = error.schema
    if error.validator == "not":  # an option that does not go with the source of this rule
        yield document.problem(key_path, schema["errorMessage"], _OPTIONS_HINT)
    elif error.validator == "additionalProperties":
        for key in value:
            if key not in schema["properties"]:
                yield _unknown_key(document, (*key_path, key), schema, root)
    elif error.validator == "required":
        for key in schema["required"]:
            if key not in value:
                yield _missing_key(document, (*key_path, key), schema)
    elif error.validator == "oneOf" and isinstance(value, dict):  # another type has the message of the last branch
        yield from _source_problems(document, key_path, value, schema)
    elif value is None:
        yield document.problem(key_path, "has no value", _hint_for_null(key_path, schema))
    elif error.validator == "uniqueItems":
        yield document.problem(key_path, f"lists {display_value(_first_duplicate(value))} twice", "keep one")
    elif error.validator in {"minItems", "minProperties"}:
        yield document.problem(key_path, "is empty", "give at least one, or take the key out")
    else:
        # A value that may hold a token is writeOnly, and is not shown.
        is_what = "" if schema.get("writeOnly") else f", is {display_value(value)}"
        yield document.problem(key_path, f"{expectation(schema)}{is_what}", _hint_for(value, key_path, schema))


_OPTIONS_HINT = "map goes with column and columns, split with column, default and blank with every source but value"


def _source_problems(
    document: PipelineValues, key_path: KeyPath, rule: dict[str, Any], schema: Schema
) -> Iterator[Problem]:
    """A rule with several sources, or with none."""
    given = [source for source in SOURCES if source in rule]
    if given:
        what = f"gives {' and '.join(f'`{source}`' for source in given)}, and takes only one"
        added = [source for source in given if document.positions[(*key_path, source)] == OVERRIDE_POSITION]
        hint = f'--set "{dotted_path(key_path)}={{{added[0]}: ...}}" replaces the whole rule' if added else "keep one"
        yield document.problem(key_path, what, hint)
    elif rule.keys() <= schema["properties"].keys():  # otherwise the unknown key is the cause
        what, hint = "does not say where the value comes from", f"give one of {_join_alternatives(SOURCES)}"
        yield document.problem(key_path, what, hint)


def _unknown_key(document: PipelineValues, key_path: KeyPath, schema: Schema, root: Schema) -> Problem:
    key = str(key_path[-1])
    if key_path[0] not in {"inputs", "matrix"} and (_SECRET_KEY_PATTERN.search(key) or key_path == ("api", "key")):
        position = document.key_positions[key_path]
        return Problem(key_path=key_path, position=position, what=SECRET_REFUSED_MESSAGE, hint=SECRET_REFUSED_HINT)
    sections = [name for name, inner in root["properties"].items() if key in inner.get("properties", {})]
    hint = did_you_mean(key, schema["properties"]) or (
        f"`{key}` stands below `{sections[0]}`" if sections else f"known here: {', '.join(schema['properties'])}"
    )
    return document.problem(key_path, "is not a known key", hint, at_key=True)


_SECRET_KEY_PATTERN = re.compile(r"api[-_ ]?key|token|secret|passw(or)?d|credential", re.IGNORECASE)


def _missing_key(document: PipelineValues, key_path: KeyPath, schema: Schema) -> Problem:
    key = str(key_path[-1])
    example = yaml.safe_dump({key: schema["properties"][key]["examples"][0]}, default_flow_style=True)
    return document.problem(key_path, "is missing", f"for example {example.strip()[1:-1]}")


_TYPE_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys",
    "null": "null",
}


def expectation(schema: Schema) -> str:
    """`must be ...`: the errorMessage of the schema, or a text made from its keywords."""
    if "errorMessage" in schema:
        return str(schema["errorMessage"])
    if "const" in schema:
        return f"must be {schema['const']}"
    if "enum" in schema:
        return f"must be {_join_alternatives(schema['enum'])}"
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    text = f"must be {_join_alternatives(_TYPE_NAMES[name] for name in types)}"
    match schema:
        case {"minimum": low, "maximum": high}:
            return f"{text} from {low} to {high}"
        case {"minimum": low}:
            return f"{text} of at least {low}"
        case {"minLength": _}:
            return f"{text} that is not empty"
        case _:
            return text


def _join_alternatives(choices: Iterable[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def display_value(value: object) -> str:
    """The value for a message; long text is cut."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= 60 else f"{value[:59]}…")
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return str(value)


def _first_duplicate(values: list[object]) -> object:
    return next(value for index, value in enumerate(values) if value in values[:index])


def _hint_for_null(key_path: KeyPath, schema: Schema) -> str:
    if schema.get("type") == "object":
        return "write its keys below it, indented, or take it out"
    if key_path[0] == "inputs" and len(key_path) > 2 and "minLength" not in schema:
        return 'write a value after the colon; "" is an empty text'
    return "write a value after the colon, or take the key out"


def _hint_for(value: object, key_path: KeyPath, schema: Schema) -> str | None:
    match key_path, value:
        case ("version",), _:
            return "this lamina-batch reads version 1 of the format"
        case ("inputs", str()), str():
            text = escape_unprintable(value)
            return f"write {{column: {text}}}, or {{value: {text}}} for the same text in every row"
        case ("inputs", str()), list():
            return "write {columns: [...]} for columns, or {value: [...]} for fixed values"
        case ("inputs", str(), "column"), list():
            return "write columns for several columns"
        case ("inputs", str(), "columns"), str():
            return "write column for one column"
        case ("matrix", str()), str():
            return f"write [{escape_unprintable(value)}]"
        case _, str() if "enum" in schema:
            return did_you_mean(value, schema["enum"])
        case _, str() if schema_types(schema) & {"integer", "number"} and not isinstance(parse_scalar(value), str):
            return "write it without quotes"
        case _:
            return None
