"""An app's parameters as JSON Schema: what the service would take, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import polars as pl
import pytest

from lamina_batch.apps.app import App, Parameter, parse_app
from lamina_batch.apps.input_schema import (
    URL_FORBIDDEN_PATTERN,
    URL_PATTERN,
    input_schema,
    parameter_schema,
    value_schema,
)
from lamina_batch.pipeline.names import match_name, normalise_name


def an_app(*parameters: dict[str, Any]) -> App:
    return parse_app({"appId": "an-app", "name": "Cartoonify!", "parameters": list(parameters)})


def accepts(app: App, inputs: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(input_schema(app)).is_valid(inputs)


def test_the_whole_schema_of_the_vendors_sample_app() -> None:
    """docs/lamina-api.md, "Get app"."""
    app = an_app(
        {"name": "Upload", "type": "url", "required": False, "accept": ["image"], "default": "https://m.example/a.png"},
        {"name": "Style", "type": "options", "required": True, "options": ["Ghibli", "Disney / Pixar"]},
        {"name": "Notes", "type": "text", "required": True, "default": "", "description": "What else to know"},
    )
    assert input_schema(app) == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Cartoonify!",
        "type": "object",
        "properties": {
            "Upload": {
                "type": "string",
                "pattern": URL_PATTERN,
                "not": {"pattern": URL_FORBIDDEN_PATTERN},
                "default": "https://m.example/a.png",
            },
            "Style": {"type": "string", "enum": ["Ghibli", "Disney / Pixar"]},
            "Notes": {"type": "string", "description": "What else to know", "default": ""},
        },
        "required": ["Style"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("kind", ["text", "options", "url"])
@pytest.mark.parametrize("multiple", [False, True])
def test_every_schema_is_a_valid_schema(kind: str, multiple: bool) -> None:
    app = an_app({"name": "P", "type": kind, "options": ["a", "b"], "multiple": multiple})
    jsonschema.Draft202012Validator.check_schema(input_schema(app))


@pytest.mark.parametrize(
    ("required", "default", "omissible"),
    [
        (True, None, False),
        (True, "x", True),
        (True, "", True),
        (True, 0, True),
        (True, False, True),
        (True, [], True),
        (False, None, True),
        (False, "x", True),
    ],
)
def test_an_input_may_be_left_out_unless_it_is_required_and_has_no_default(
    required: bool, default: object, omissible: bool
) -> None:
    """docs/lamina-api.md, "Required and default": the rule that holds in both generations; falsy
    defaults are defaults.
    """
    app = an_app({"name": "P", "type": "text", "required": required, "default": default})
    assert accepts(app, {}) is omissible


def test_unknown_inputs_and_null_are_refused() -> None:
    app = an_app({"name": "P", "type": "text"})
    assert accepts(app, {"P": "x"})
    assert not accepts(app, {"p": "x"})
    assert not accepts(app, {"P": None})


@pytest.mark.parametrize("kind", ["text", "colour", ""])
def test_text_and_kinds_we_do_not_know_take_any_string_and_no_number(kind: str) -> None:
    app = an_app({"name": "P", "type": kind})
    assert accepts(app, {"P": " any\ntext "})
    assert not accepts(app, {"P": 123})


def test_a_label_must_be_the_apps_byte_for_byte() -> None:
    app = an_app({"name": "P", "type": "options", "options": ["Standard ", "Plus Size"]})
    assert accepts(app, {"P": "Standard "})
    assert not accepts(app, {"P": "Standard"})
    assert not accepts(app, {"P": "plus size"})


def test_options_whose_labels_were_not_served_take_any_text() -> None:
    assert value_schema(Parameter(name="P", type="options")) == {"type": "string"}


GOOD_URLS = [
    "https://cdn.example.com/p/1001.jpg",
    "HTTP://example.com",
    "hTtPs://example.com/a%20b.jpg?sig=a+b&c=%2F#top",
    "http://localhost:8080/x",
    "http://[::1]/x",
    "https://user@example.com/x",
    "https://bücher.example/größe.jpg",
    "https://cdn.example.com/shirt(1).jpg",
    "https://cdn.example.com/w_400,h_300/a.jpg",
    "https://res.example.com/fetch/https://cdn.example.com/a.jpg",
    "https://cdn.example.com/a.jpg?x=1;y=2|3",
    "https://cdn.example.com:65535/a.jpg",
    "http://[::1]:8080/x",
    "https://na.example.com/a.jpg",
]
BAD_URLS = [
    "",
    "example.com/a.jpg",
    "www.example.com/a.jpg",
    "ftp://example.com/a.jpg",
    "//example.com/a.jpg",
    "file:///a.jpg",
    "http:/example.com",
    "https://",
    "https:///a.jpg",
    "https://?a",
    "https://#a",
    "https:// example.com",
    " https://example.com/a.jpg",
    "https://example.com/a.jpg ",
    "https://example.com/a.jpg\n",
    "https://example.com/a b.jpg",
    "https://example.com/a.jpg\u00a0",
    "https://example.com/\u200ba.jpg",
    "\ufeffhttps://example.com/a.jpg",
    "https://example.com/a.jpg\x00",
    "https://example.com/\ufffd.jpg",
    "x https://example.com",
    "httpss://example.com",
    "https://a.example/1.jpg,https://a.example/2.jpg",
    "https://a.example/1.jpg|http://a.example/2.jpg",
    "https://a.example/1.jpg;HTTPS://a.example/2.jpg",
    "https://a.example/1.jpg,",
    "https://a.example/1.jpg;",
    "https://https://a.example/1.jpg",
    "http://https:/a.example/1.jpg",
    "https://a.example/i.jpg?w=10&amp;h=20",
    "https://a.example/{size}/1.jpg",
    "<https://a.example/1.jpg>",
    "https://user:secret@a.example/1.jpg",
    "https://a.example:99999/1.jpg",
    "https://a.example:port/1.jpg",
    "https://a.example/100%.jpg",
    "https://a.example/a%2",
    "https://a.example/a%",
    "https://TBD",
    "https://tbd/1.jpg",
    "https://...",
    "https://todo",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_an_absolute_http_url_is_taken(url: str) -> None:
    assert accepts(an_app({"name": "P", "type": "url"}), {"P": url})


@pytest.mark.parametrize("url", BAD_URLS)
def test_anything_else_is_no_url(url: str) -> None:
    assert not accepts(an_app({"name": "P", "type": "url"}), {"P": url})


@pytest.mark.parametrize("pattern", [URL_PATTERN, URL_FORBIDDEN_PATTERN], ids=["url", "not in a url"])
def test_python_and_polars_read_the_patterns_alike(pattern: str) -> None:
    """The first is what jsonschema asks, the second what clears whole columns; in between lies a paid mistake."""
    every = [chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000]
    texts = [*GOOD_URLS, *BAD_URLS, *every, *(f"https://{character}" for character in every)]
    assert pl.Series(texts).str.contains(pattern).to_list() == [bool(re.search(pattern, text)) for text in texts]


def test_several_values_are_an_array_of_two_or_more() -> None:
    """One value has one wire form only, so that equal content is written the same way."""
    app = an_app({"name": "P", "type": "options", "options": ["a", "b"], "multiple": True})
    assert accepts(app, {"P": "a"})
    assert accepts(app, {"P": ["a", "b"]})
    assert accepts(app, {"P": ["a", "a"]})
    assert not accepts(app, {"P": ["a"]})
    assert not accepts(app, {"P": []})
    assert not accepts(app, {"P": ["a", "c"]})
    assert not accepts(app, {"P": "c"})


def test_a_parameter_for_one_value_takes_no_array() -> None:
    assert not accepts(an_app({"name": "P", "type": "text"}), {"P": ["a", "b"]})


def test_notes_stand_beside_the_alternatives() -> None:
    schema = parameter_schema(Parameter(name="P", type="text", multiple=True, description="Words", default=["x"]))
    assert schema["description"] == "Words"
    assert schema["default"] == ["x"]
    assert list(schema["oneOf"][0]) == ["type"]


def test_leniency_is_about_case_and_spaces_only() -> None:
    assert normalise_name("  Model\t ETHNICITY\n") == "model ethnicity"
    assert normalise_name("STRASSE") == normalise_name("straße")
    assert normalise_name("Plus-Size") != normalise_name("Plus Size")


def test_the_exact_spelling_wins_and_is_what_comes_back() -> None:
    assert match_name("Standard", ["standard", "Standard", "Standard "]) == "Standard"
    assert match_name("model ethnicity", ["Model  Ethnicity", "Model Gender"]) == "Model  Ethnicity"
    assert match_name(" STANDARD", ["Standard ", "Plus Size"]) == "Standard "


def test_what_could_be_two_things_is_neither() -> None:
    assert match_name("standard", ["Standard", "Standard "]) is None
    assert match_name("Luxury", ["Standard"]) is None
