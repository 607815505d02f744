"""An app's parameters as JSON Schema 2020-12: the authority on which inputs the service would take (docs/lamina-api.md,
"Parameters").

What is checked is the object sent as `inputs`, in the one wire form we use: each value a string as bytes of the
service's own spelling; several values for one parameter an array of at least two strings. A single value is sent
as a bare string, for a parameter that takes several too: the service accepts both (docs/lamina-api.md,
"Several values"), and one canonical form is what keeps equal content equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamina_batch.pipeline.names import normalise_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina_batch.apps.app import App, Parameter

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# An absolute http(s) URL with something for a host. Written without `$`, `\s`, `\d` or `\w`, which Python, Rust and
# ECMA-262 read differently, because the same text is searched for by jsonschema and by polars.
URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\x00-\x20/?#]"
# Control characters and every kind of blank, zero-width ones included: what a pasted cell smuggles into a URL.
URL_FORBIDDEN_PATTERN = (
    r"[\x00-\x20\x7f-\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\uffff]"
)


def input_schema(app: App) -> dict[str, Any]:
    """The schema of the `inputs` object of one execution.

    `required` lists what must be supplied in both generations of the API; a parameter that is left out otherwise
    takes the app's default (docs/lamina-api.md, "Required and default").
    """
    return {
        "$schema": SCHEMA_DIALECT,
        "title": app.name,
        "type": "object",
        "properties": {p.name: parameter_schema(p) for p in app.parameters},
        "required": [p.name for p in app.parameters if p.must_supply],
        "additionalProperties": False,
    }


def parameter_schema(parameter: Parameter) -> dict[str, Any]:
    """The schema of one parameter's value: a string, or also an array of two or more where it takes several."""
    one = value_schema(parameter)
    value = one if not parameter.multiple else {"oneOf": [one, {"type": "array", "items": one, "minItems": 2}]}
    annotations = {"description": parameter.description, "default": parameter.default}
    return value | {key: note for key, note in annotations.items() if note is not None}


def value_schema(parameter: Parameter) -> dict[str, Any]:
    """The schema of a single value of the parameter.

    A kind we do not know is checked as text, and so are options without labels: there is nothing to hold them to.
    """
    if parameter.type == "options" and parameter.options:
        return {"type": "string", "enum": list(parameter.options)}
    if parameter.type == "url":
        return {"type": "string", "pattern": URL_PATTERN, "not": {"pattern": URL_FORBIDDEN_PATTERN}}
    return {"type": "string"}


def match(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` means: itself, or else the only one that is leniently the same.

    What is returned is the choice byte for byte. None if nothing matches, or more than one does leniently.
    """
    choices = tuple(choices)
    if name in choices:
        return name
    form = normalise_name(name)
    same = [choice for choice in choices if normalise_name(choice) == form]
    return same[0] if len(same) == 1 else None
