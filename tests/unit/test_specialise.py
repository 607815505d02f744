"""The pipeline schema of one app, as an editor sees it: a JSON Schema over the values of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from catalog_support import STOCK, app, image, options, text
from jsonschema import Draft202012Validator

from lamina_batch.authoring.app_schema import app_schema
from lamina_batch.drift.pins import read_pin
from lamina_batch.pipeline.file_schema import pipeline_schema
from lamina_batch.pipeline.typed_values import typed_values
from lamina_batch.pipeline.yaml_tree import read_tree

ROOT = Path(__file__).parents[2]
APP = app(
    image("Front", required=True),
    options("Model  Body", "Standard ", "Plus Size", default="Plus Size"),
    options("Looks", "Warm", "Cold", multiple=True),
    text("Prompt", description="What the picture shows"),
    image("Back", default=STOCK),
)

GOOD = """\
version: 1
app: an-app
rows: {from: rows.csv, key: sku}
inputs:
  Front: {column: front}
  "Model  Body": {column: body, map: {S: "Standard ", none: ""}, default: Plus Size}
  Looks: {value: [Warm, Cold]}
  Prompt: {template: "{title} in soft light"}
matrix: {}
"""


def problems(text: str, folder: Path) -> list[tuple[tuple[str | int, ...], str]]:
    """Where an editor marks something, and by which rule."""
    file = folder / "catalog.yaml"
    file.write_text(text, encoding="utf-8")
    values = typed_values(read_tree(file), pipeline_schema(), file, {}).values
    return [
        (tuple(error.absolute_path), str(error.validator))
        for error in Draft202012Validator(app_schema(APP)).iter_errors(values)
    ]


def test_a_right_file_passes(tmp_path: Path) -> None:
    assert problems(GOOD, tmp_path) == []


@pytest.mark.parametrize(
    ("before", "after", "place", "rule"),
    [
        ("default: Plus Size", "default: Plus-Size", ("inputs", "Model  Body", "default"), "enum"),
        ('S: "Standard "', "S: Standard", ("inputs", "Model  Body", "map", "S"), "enum"),
        ("[Warm, Cold]", "[Warm, Cool]", ("inputs", "Looks", "value", 1), "enum"),
        ("[Warm, Cold]", "Cool", ("inputs", "Looks", "value"), "enum"),
        ("  Prompt:", "  Promt:", ("inputs",), "additionalProperties"),
        ('"Model  Body"', '"Model Body"', ("inputs",), "additionalProperties"),
        ("matrix: {}", "matrix: {Lokks: [Warm]}", ("matrix",), "additionalProperties"),
        ("matrix: {}", "matrix: {Looks: [Warm, Cool]}", ("matrix", "Looks", 1), "enum"),
        ("  Front: {column: front}\n", "", (), "anyOf"),
        ("app: an-app", "app: another-app", ("app",), "const"),
        ("{column: front}", "{colum: front}", ("inputs", "Front"), "additionalProperties"),
        ("{column: front}", "{column: front, value: x}", ("inputs", "Front"), "oneOf"),
    ],
)
def test_a_fault_is_marked_at_its_place(
    tmp_path: Path, before: str, after: str, place: tuple[str | int, ...], rule: str
) -> None:
    assert before in GOOD
    assert (place, rule) in problems(GOOD.replace(before, after), tmp_path)


def test_what_must_be_given_may_stand_in_the_matrix(tmp_path: Path) -> None:
    moved = GOOD.replace("  Front: {column: front}\n", "").replace(
        "matrix: {}", "matrix: {Front: [https://a.example/1.jpg]}"
    )
    assert problems(moved, tmp_path) == []


@pytest.mark.parametrize("file", sorted((ROOT / "pipelines").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_pipelines_that_ship_pass_the_schema_of_their_app(file: Path) -> None:
    """But for leniency: an editor teaches the spelling that needs none."""
    values = typed_values(read_tree(file), pipeline_schema(), file, {}).values
    pin = read_pin(file.parent / values["schema"]["pin"])
    errors = list(Draft202012Validator(app_schema(pin.app)).iter_errors(values))
    lenient = [("inputs",), ("inputs", "Model Body type", "map", "Normal")] if file.stem == "swift_catalog" else []
    assert sorted(tuple(error.absolute_path) for error in errors) == lenient


def test_it_is_a_valid_schema_that_explains_each_input() -> None:
    schema = app_schema(APP)
    Draft202012Validator.check_schema(schema)
    inputs = schema["properties"]["inputs"]["properties"]
    assert list(inputs) == [p.name for p in APP.parameters]
    assert inputs["Prompt"]["description"] == "What the picture shows. Prompt: text."
    assert inputs["Front"]["description"] == "Front: url, image, must be given."
    assert inputs["Back"]["description"].endswith(f"Without it the app uses '{STOCK}'.")
    # An editor offers whatever it finds: nothing of the general rule is left beside the labels.
    assert [place for place in inputs.values() if "$ref" in place] == []
    assert "examples" not in inputs["Model  Body"]["properties"]["value"]
    assert "enum" not in inputs["Prompt"]["properties"]["value"]


def test_the_general_schema_is_left_as_it_is() -> None:
    before = pipeline_schema()
    app_schema(APP)
    assert pipeline_schema() == before
