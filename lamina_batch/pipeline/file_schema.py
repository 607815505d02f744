"""pipeline.schema.json, and the questions the reader asks it: what stands below a key, and what is text there."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

#: a subschema; None if the schema knows nothing of a place
Schema = dict[str, Any]


def pipeline_schema() -> Schema:
    """The JSON Schema of the pipeline file, the same document that editors use."""
    file = importlib.resources.files("lamina_batch") / "schemas" / "pipeline.schema.json"
    schema: Schema = json.loads(file.read_text(encoding="utf-8"))
    return schema


def subschema(root: Schema, schema: Schema | None, step: str | int) -> Schema | None:
    """The subschema of the key or list index `step` below `schema`, with its `$ref` merged in."""
    if schema is None:
        return None
    if isinstance(step, int):
        found = schema.get("items")
    else:
        found = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    if not isinstance(found, dict):
        return None
    return {**_definition(root, found["$ref"]), **found} if "$ref" in found else found


def schema_types(schema: Schema | None) -> frozenset[str]:
    """The JSON types that `schema` admits."""
    named = (schema or {}).get("type", ())
    return frozenset((named,) if isinstance(named, str) else named)


def takes_only_text(schema: Schema | None) -> bool:
    """Whether a scalar here is text as typed, whatever else it looks like."""
    return bool(schema_types(schema)) and not schema_types(schema) & {"boolean", "integer", "number", "null"}


def _definition(root: Schema, reference: str) -> Schema:
    definition: Schema = root["$defs"][reference.removeprefix("#/$defs/")]
    return definition
