"""schemas/pipeline.schema.json is what editors show and what the reader asks."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from lamina_batch.pipeline.file_schema import pipeline_schema, schema_types, subschema
from lamina_batch.pipeline.load import load_pipeline, parse_duration
from lamina_batch.pipeline.spec import Api, Notify, Poll, Results, Rows, RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = pipeline_schema()
PAGE = (Path(__file__).parents[2] / "docs" / "pipeline-file.md").read_text(encoding="utf-8")


def keys_of(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that a file may hold, with its subschema as written; `*` is a name that the user chooses."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}", inner
        yield from keys_of(inner, f"{path}{name}.")
    for word, step in (("additionalProperties", "*"), ("items", "0")):
        if isinstance(schema.get(word), dict):
            yield f"{path}{step}", schema[word]
            yield from keys_of(schema[word], f"{path}{step}.")


def every_key() -> dict[str, dict[str, Any]]:
    rule = SCHEMA["$defs"]["rule"]
    return {**dict(keys_of(SCHEMA)), **dict(keys_of(rule, "inputs.*."))}


def test_it_is_a_valid_schema_of_draft_2020_12() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"]
    assert SCHEMA["title"]


@pytest.mark.parametrize("key", every_key())
def test_every_key_says_what_it_means(key: str) -> None:
    assert re.fullmatch(r"[A-Z1].{10,}[.]", every_key()[key].get("description", ""))


@pytest.mark.parametrize("name", SCHEMA["$defs"])
def test_every_definition_says_what_it_means(name: str) -> None:
    assert SCHEMA["$defs"][name]["description"]


def test_every_place_has_a_type_because_the_reader_asks_what_is_text_there() -> None:
    for key, inner in every_key().items():
        found = inner if "type" in inner else SCHEMA["$defs"][inner["$ref"].removeprefix("#/$defs/")]
        assert found["type"], key


def test_every_mapping_with_fixed_keys_refuses_others() -> None:
    for key, inner in [("", SCHEMA), ("rule", SCHEMA["$defs"]["rule"]), *every_key().items()]:
        if "properties" in inner:
            assert inner["additionalProperties"] is False, key


def test_every_example_and_default_fits_its_own_place() -> None:
    for key, inner in every_key().items():
        validator = Draft202012Validator({**inner, "$defs": SCHEMA["$defs"]})
        for example in [*inner.get("examples", []), *([inner["default"]] if "default" in inner else [])]:
            assert validator.is_valid(example), (key, example)


def test_a_required_key_has_an_example_for_the_error_that_misses_it() -> None:
    for schema in (SCHEMA, SCHEMA["properties"]["rows"]):
        for key in schema["required"]:
            assert schema["properties"][key]["examples"]


def test_the_defaults_that_editors_show_are_the_ones_that_apply() -> None:
    def default(*steps: str) -> Any:
        schema: Any = SCHEMA
        for step in steps:
            schema = subschema(SCHEMA, schema, step)
        return schema["default"]

    rows = Rows(sources=(), key=())
    assert (default("rows", "encoding"), default("rows", "types")) == (rows.encoding, rows.types)
    assert default("api", "generation") == Api().generation
    assert default("api", "auth") == Api().auth
    assert tuple(default("notify", "on")) == Notify(url="").on
    assert default("results", "layout") == Results(manifest=()).layout
    assert default("run", "poll", "min_interval") == "auto"
    assert Poll().min_interval is None
    assert parse_duration(default("run", "poll", "max_interval")) == Poll().max_interval
    assert default("run", "requests_per_minute") == "auto"
    assert RunSettings().requests_per_minute is None
    for timeout in ("execution_timeout", "request_timeout"):
        assert parse_duration(default("run", timeout)) == getattr(RunSettings(), timeout)
    for field in dataclasses.fields(RunSettings):
        if field.name not in {"poll", "webhook", "requests_per_minute", "execution_timeout", "request_timeout"}:
            assert default("run", field.name) == getattr(RunSettings(), field.name), field.name


def test_below_follows_references_and_ends_at_what_the_schema_does_not_know() -> None:
    rule = subschema(SCHEMA, subschema(SCHEMA, SCHEMA, "inputs"), "Any Name")
    assert schema_types(subschema(SCHEMA, rule, "value")) == {"string", "array"}
    assert subschema(SCHEMA, rule, "valeu") is None
    assert subschema(SCHEMA, None, "x") is None
    assert subschema(SCHEMA, subschema(SCHEMA, SCHEMA, "version"), 0) is None


def test_the_reference_page_has_every_key() -> None:
    for key in every_key():
        name = key.rsplit(".", 1)[-1]
        assert name in {"*", "0"} or re.search(rf"[`.]{name}[`.]", PAGE), key


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_every_example_of_the_reference_page_loads(block: str, tmp_path: Path) -> None:
    needed = [
        "version: 1",
        "app: an-app",
        "rows: {from: a.csv, key: sku}",
        "inputs: {Front: {column: front}}",
    ]
    missing = [line for line in needed if not re.search(rf"^{line.split(':')[0]}:", block, re.MULTILINE)]
    file = tmp_path / "example.yaml"
    file.write_text("\n".join([*missing, block]), encoding="utf-8")
    environ = {"CATALOG_FOLDER": "data", "NOTIFY_URL": "https://chat.example.com/hook"}
    load_pipeline(file, environ=environ, today=dt.date(2026, 1, 31))
