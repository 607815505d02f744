"""The pipeline schema specialised to one app, so that an editor completes its inputs and labels and marks wrong ones.

Everything that an editor shall offer stands in the place itself, without `$ref` and beside no other keyword that could
be merged in: editors follow different drafts of JSON Schema there. What is only leniently right is marked too, because
an editor should teach the spelling that needs no leniency.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamina_batch.pipeline.file_schema import pipeline_schema, subschema

if TYPE_CHECKING:
    from lamina_batch.apps.app import App, Parameter
    from lamina_batch.pipeline.keys import Schema


def app_schema(app: App) -> Schema:
    """The JSON Schema of pipeline files for this app. It refuses nothing else that the general one takes."""
    schema = pipeline_schema()
    keys = schema["properties"]
    rule = subschema(keys["inputs"], "any parameter")
    schema["$id"] = f"{schema['$id']}:app:{app.app_id}"
    schema["title"] = f"{schema['title']} for {app.name}"
    keys["app"] = {**keys["app"], "const": app.app_id, "examples": [app.app_id]}
    keys["app"]["description"] = f"{app.name}. {keys['app']['description']}"
    keys["inputs"] = _closed_section(keys["inputs"], {p.name: _rule(p, rule or {}) for p in app.parameters})
    keys["matrix"] = _closed_section(keys["matrix"], {p.name: _values(p) for p in app.parameters})
    needed = [_required_rule(p) for p in app.parameters if p.must_supply]
    return {**schema, **({"allOf": needed} if needed else {})}


def _closed_section(section: Schema, places: dict[str, Schema]) -> Schema:
    """A section that knows all its names."""
    left = {key: value for key, value in section.items() if key not in {"additionalProperties", "examples"}}
    return {**left, "additionalProperties": False, "properties": places}


def _rule(parameter: Parameter, rule: Schema) -> Schema:
    """Where this parameter's value comes from; its labels wherever the file can name one."""
    label = _label(parameter)
    places = rule["properties"]
    if label:
        # A cell may be translated to nothing: it is blank then.
        target = {**places["map"]["additionalProperties"], "enum": [*parameter.options, ""]}
        places = {
            **places,
            "value": _value(parameter, places["value"], label),
            "default": {**_without_examples(places["default"]), **label},
            "map": {**_without_examples(places["map"]), "additionalProperties": target},
        }
    return {**_without_examples(rule), "description": _description(parameter), "properties": places}


def _value(parameter: Parameter, place: Schema, label: Schema) -> Schema:
    if not parameter.multiple:
        return {"description": place["description"], "type": "string", **label}
    one_or_more = {**_without_examples(place), "items": {**place["items"], **label}}
    # An enum holds whatever the type is, and of several values each is held to the labels by `items`.
    return {**one_or_more, "if": {"type": "string"}, "then": label}


def _values(parameter: Parameter) -> Schema:
    label = _label(parameter)
    return {
        "description": f"One variant for each value. {_description(parameter)}",
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"description": "One value of this parameter.", "type": "string", "minLength": 1, **label},
    }


def _label(parameter: Parameter) -> Schema:
    return {"enum": list(parameter.options)} if parameter.type == "options" and parameter.options else {}


def _without_examples(place: Schema) -> Schema:
    """Without the general examples, which name inputs of another app."""
    return {key: value for key, value in place.items() if key != "examples"}


def _required_rule(parameter: Parameter) -> dict[str, Any]:
    given = [{"required": [section], "properties": {section: {"required": [parameter.name]}}} for section in _SECTIONS]
    return {
        "description": f"{parameter.name!r} must be given.",
        "anyOf": given,
        "errorMessage": f"inputs lacks {parameter.name!r}, which the app needs",
    }


_SECTIONS = ("inputs", "matrix")


def _description(parameter: Parameter) -> str:
    """What the app says of the parameter, in sentences."""
    facts = [parameter.type]
    facts += [" or ".join(parameter.accept)] if parameter.accept else []
    facts += ["takes several values"] if parameter.multiple else []
    facts += ["must be given"] if parameter.must_supply else []
    own = [f"Without it the app uses {parameter.default!r}."] if parameter.default is not None else []
    said = [parameter.description.rstrip(".") + "."] if parameter.description else []
    return " ".join([*said, f"{parameter.name}: {', '.join(facts)}.", *own])
