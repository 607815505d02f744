"""The JSON Schema of the pipeline file, and what the reader of the file asks it.

`make docs` writes it to schemas/pipeline.schema.json for editors.
"""

from __future__ import annotations

from lamina_batch.pipeline.keys import Schema, section_type, summary_of
from lamina_batch.pipeline.spec import Pipeline


def pipeline_schema() -> Schema:
    """The JSON Schema of the pipeline file. The caller may change its top two levels."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:lamina-batch:schema:pipeline:1",
        "$comment": "Generated from the dataclasses of lamina_batch/pipeline/spec.py. errorMessage is the message for "
        "a value that does not fit. Each key has exactly one subschema (no anyOf over types), which also says whether "
        "its value is text. Text with ${NAME} in it is checked after the environment was read.",
        "title": "lamina-batch pipeline file",
        "description": summary_of(Pipeline),
        **section_type(Pipeline).schema,
    }


def subschema(schema: Schema | None, step: str | int) -> Schema | None:
    """The subschema of the key or list index `step` below `schema`; None where the schema has nothing there."""
    if schema is None:
        return None
    if isinstance(step, int):
        found = schema.get("items")
    else:
        found = schema.get("properties", {}).get(step, schema.get("additionalProperties"))
    return found if isinstance(found, dict) else None


def schema_types(schema: Schema | None) -> frozenset[str]:
    """The JSON types that `schema` allows."""
    types = (schema or {}).get("type", ())
    return frozenset((types,) if isinstance(types, str) else types)


def takes_only_text(schema: Schema | None) -> bool:
    """Whether a scalar here is text as typed, even if it looks like a number or a boolean."""
    types = schema_types(schema)
    return bool(types) and not types & {"boolean", "integer", "number", "null"}
