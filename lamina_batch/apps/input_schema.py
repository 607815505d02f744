"""An app's parameters as JSON Schema 2020-12: the inputs that the service accepts.

It checks the object sent as `inputs`, in the one form that lamina-batch sends: each value is a string in the service's
own spelling, and several values for one parameter are an array of at least two strings. A single value is a bare
string, even for a parameter that takes several. The service accepts both (docs/lamina-api.md, "Several values"), but
one canonical form keeps equal content equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina_batch.apps.app import App, Parameter

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# An absolute http(s) URL with a host. jsonschema and polars both use the pattern, so it has no `$`, `\s`, `\d` or
# `\w`: Python, Rust and ECMA-262 read them differently.
URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\x00-\x20/?#]"
#: Several URLs in one cell, as exports join them. A URL may hold another one after a slash, so that is no sign.
SEVERAL_URLS_PATTERN = r"[,;|][Hh][Tt][Tt][Pp][Ss]?://"
# `$` occurs only behind characters that end the text in all three languages: a line end is forbidden anyway.
URL_FORBIDDEN_PATTERN = "|".join(  # noqa: FLY002  # each alternative has its reason
    (
        # Control characters and every kind of blank, also of zero width: a pasted cell can bring them into a URL.
        r"[\x00-\x20\x7f-\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\uffff]",
        SEVERAL_URLS_PATTERN,
        r"[,;|]$",
        # HTML escapes, tags, and placeholders of a template that was not filled in.
        r"&amp;|[<>{}]",
        r"^[Hh][Tt][Tt][Pp][Ss]?://[Hh][Tt][Tt][Pp][Ss]?:/",
        # A user name and a password would reach the service and its logs.
        r"^[^/?#]*//[^/?#@]*:[^/?#@]*@",
        # A port over 65,535 or that is no number, and a % that escapes nothing.
        r"^[^/?#]*//[^/?#\[\]]*:(?:[^0-9/?#]|[0-9]{6}|[7-9][0-9]{4}|6[6-9][0-9]{3})",
        r"%(?:[^0-9A-Fa-f]|[0-9A-Fa-f][^0-9A-Fa-f]|[0-9A-Fa-f]?$)",
        # A host that stands for one to be filled in.
        r"^[^/?#]*//(?:\.+|\u2026|[Tt][Bb][DdCcAa]|[Tt][Oo][Dd][Oo]|[Nn][Oo][Nn][Ee]|[Nn][Uu][Ll][Ll]|[Nn][Aa])(?:[/?#:]|$)",
    )
)


def input_schema(app: App) -> dict[str, Any]:
    """The schema of the `inputs` object of one execution.

    `required` lists the parameters that both generations of the API need. For any other, the app has a default
    (docs/lamina-api.md, "Required and default").
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
    """The schema of one parameter's value: a string, or an array of two or more if it takes several."""
    one = value_schema(parameter)
    value = one if not parameter.multiple else {"oneOf": [one, {"type": "array", "items": one, "minItems": 2}]}
    annotations = {"description": parameter.description, "default": parameter.default}
    return value | {key: note for key, note in annotations.items() if note is not None}


def value_schema(parameter: Parameter) -> dict[str, Any]:
    """The schema of a single value of the parameter.

    A parameter of an unknown type, or options without labels, can only be checked as text.
    """
    if parameter.type == "options" and parameter.options:
        return {"type": "string", "enum": list(parameter.options)}
    if parameter.type == "url":
        return {"type": "string", "pattern": URL_PATTERN, "not": {"pattern": URL_FORBIDDEN_PATTERN}}
    return {"type": "string"}
