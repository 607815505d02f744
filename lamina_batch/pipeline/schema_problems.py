"""The values of the file against pipeline.schema.json, each problem in words."""

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
from lamina_batch.pipeline.typed_values import parse_scalar
from lamina_batch.pipeline.yaml_tree import OVERRIDE_POSITION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jsonschema.exceptions import ValidationError

    from lamina_batch.pipeline.file_schema import Schema
    from lamina_batch.pipeline.typed_values import Document


def check_document(document: Document, schema: Schema) -> list[Problem]:
    """Every way in which the document does not fit the schema."""
    # importing jsonschema takes longer than all the rest of loading, and --help needs none of it
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    found = Draft202012Validator(schema).iter_errors(document.values)
    # First, because of several problems about one place the first is told.
    return [
        *_fill_in_problems(document),
        *(problem for error in found for problem in _translate_error(error, document, schema)),
    ]


#: what `init` writes where somebody still has to decide
FILL_IN = "FILL_IN"
_MAX_LISTED = 20


def _fill_in_problems(document: Document) -> Iterator[Problem]:
    """All places that nobody has filled in yet, as one problem."""
    left = sorted(_unfilled_paths(document.values, ()), key=lambda steps: document.places[steps])
    if not left:
        return
    named = [
        f"{dotted_path(steps)} ({f'line {line}' if (line := document.places[steps].line) else '--set'})"
        for steps in left[:_MAX_LISTED]
    ]
    more = f", and {len(left) - _MAX_LISTED} more" if len(left) > _MAX_LISTED else ""
    what = "1 place is" if len(left) == 1 else f"{len(left)} places are"
    yield Problem(
        steps=left[0],
        place=document.places[left[0]],
        what=f"{what} still to be filled in: {', '.join(named)}{more}",
        hint=f"write what is meant in place of {FILL_IN}; the comments above it say what that may be",
    )


def _unfilled_paths(value: object, steps: KeyPath) -> Iterator[KeyPath]:
    match value:
        case str() if value == FILL_IN:
            yield steps
        case dict():
            for key, inner in value.items():
                yield from _unfilled_paths(inner, (*steps, key))
        case list():
            for at, inner in enumerate(value):
                yield from _unfilled_paths(inner, (*steps, at))
        case _:
            pass


def _translate_error(error: ValidationError, document: Document, root: Schema) -> Iterator[Problem]:  # noqa: C901  # one case for each keyword of JSON Schema
    """One complaint of jsonschema in our words; sometimes several, which as_error merges by place."""
    steps: KeyPath = tuple(error.absolute_path)
    value: Any = error.instance
    schema: Any = error.schema
    if error.validator == "not":  # an option that the source of this rule does not take
        yield document.problem(steps, schema["errorMessage"], _OPTIONS_HINT)
    elif error.validator == "additionalProperties":
        for key in value:
            if key not in schema["properties"]:
                yield _unknown_key(document, (*steps, key), schema, root)
    elif error.validator == "required":
        for key in schema["required"]:
            if key not in value:
                yield _missing_key(document, (*steps, key), schema)
    elif error.validator == "oneOf" and isinstance(value, dict):  # of another type: the message is the last one
        given = [source for source in _SOURCE_KEYS if source in value]
        if given:
            what = f"gives {' and '.join(f'`{source}`' for source in given)}, and takes only one"
            added = [source for source in given if document.places[(*steps, source)] == OVERRIDE_POSITION]
            hint = f'--set "{dotted_path(steps)}={{{added[0]}: ...}}" replaces the whole rule' if added else "keep one"
            yield document.problem(steps, what, hint)
        elif value.keys() <= schema["properties"].keys():  # else the unknown key is the cause
            yield document.problem(steps, "does not say where the value comes from", f"give one of {_SOURCE_KEYS_TEXT}")
    elif value is None:
        yield document.problem(steps, "has no value", _hint_for_null(steps, schema))
    elif error.validator == "uniqueItems":
        yield document.problem(steps, f"lists {display_value(_first_duplicate(value))} twice", "keep one")
    elif error.validator in {"minItems", "minProperties"}:
        yield document.problem(steps, "is empty", "give at least one, or take the key out")
    else:
        # What is marked so may hold a token, and is not repeated.
        is_what = "" if schema.get("writeOnly") else f", is {display_value(value)}"
        what = f"{expectation(schema)}{is_what}"
        yield document.problem(steps, what, _hint_for(value, steps, schema))


_SOURCE_KEYS = ("column", "columns", "value", "template", "sql")
_SOURCE_KEYS_TEXT = "column, columns, value, template or sql"
_OPTIONS_HINT = "map goes with column and columns, split with column, default and blank with every source but value"


def _unknown_key(document: Document, steps: KeyPath, schema: Schema, root: Schema) -> Problem:
    key = str(steps[-1])
    if steps[0] not in {"inputs", "matrix"} and (_SECRET_KEY_PATTERN.search(key) or steps == ("api", "key")):
        return Problem(steps=steps, place=document.keys[steps], what=SECRET_REFUSED_MESSAGE, hint=SECRET_REFUSED_HINT)
    hint = did_you_mean(key, schema["properties"]) or next(
        (
            f"`{key}` stands below `{section}`"
            for section, inner in root["properties"].items()
            if key in inner.get("properties", {})
        ),
        f"known here: {', '.join(schema['properties'])}",
    )
    return document.problem(steps, "is not a known key", hint, at_key=True)


_SECRET_KEY_PATTERN = re.compile(r"api[-_ ]?key|token|secret|passw(or)?d|credential", re.IGNORECASE)


def _missing_key(document: Document, steps: KeyPath, schema: Schema) -> Problem:
    key = str(steps[-1])
    example = yaml.safe_dump({key: schema["properties"][key]["examples"][0]}, default_flow_style=True)
    return document.problem(steps, "is missing", f"for example {example.strip()[1:-1]}")


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
    """What a value must be: the schema's own words where it has some."""
    if "errorMessage" in schema:
        return str(schema["errorMessage"])
    if "const" in schema:
        return f"must be {schema['const']}"
    if "enum" in schema:
        return f"must be {_join_alternatives(schema['enum'])}"
    named = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    text = f"must be {_join_alternatives(_TYPE_NAMES[kind] for kind in named)}"
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
    """The value as a message shows it."""
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


def _hint_for_null(steps: KeyPath, schema: Schema) -> str:
    if schema.get("type") == "object":
        return "write its keys below it, indented, or take it out"
    if steps[0] == "inputs" and len(steps) > 2 and "minLength" not in schema:
        return 'write a value after the colon; "" is an empty text'
    return "write a value after the colon, or take the key out"


def _hint_for(value: object, steps: KeyPath, schema: Schema) -> str | None:
    match steps, value:
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
