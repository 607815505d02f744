"""The JSON Schema that is generated from the specs: editors show it, and the reader asks it."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from lamina_batch.pipeline.file_schema import pipeline_schema, schema_types, subschema
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.pipeline.spec import Api, Notify, Poll, Results, Rows, RunSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = pipeline_schema()
PAGE = (Path(__file__).parents[2] / "docs" / "pipeline-file.md").read_text(encoding="utf-8")


def keys_below(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that a file may hold, with its subschema; `*` is a name that the user chooses."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}", inner
        yield from keys_below(inner, f"{path}{name}.")
    for word, step in (("additionalProperties", "*"), ("items", "0")):
        if isinstance(schema.get(word), dict):
            yield f"{path}{step}", schema[word]
            yield from keys_below(schema[word], f"{path}{step}.")


KEYS = dict(keys_below(SCHEMA))


def test_the_schema_for_editors_is_the_generated_one() -> None:
    file = Path(__file__).parents[2] / "schemas" / "pipeline.schema.json"
    assert json.loads(file.read_text(encoding="utf-8")) == SCHEMA, "`make docs` writes it again"


def test_it_is_a_valid_schema_of_draft_2020_12() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"]
    assert SCHEMA["title"]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_says_what_it_means(key: str) -> None:
    assert re.fullmatch(r"[A-Z1].{10,}[.]", KEYS[key].get("description", ""))


def test_every_place_has_a_type_because_the_reader_asks_what_is_text_there() -> None:
    for key, inner in KEYS.items():
        assert inner["type"], key


def test_every_mapping_with_fixed_keys_refuses_others() -> None:
    for key, inner in [("", SCHEMA), *KEYS.items()]:
        if "properties" in inner:
            assert inner["additionalProperties"] is False, key


def test_every_example_and_default_fits_its_own_place() -> None:
    for key, inner in KEYS.items():
        validator = Draft202012Validator(inner)
        for example in [*inner.get("examples", []), *([inner["default"]] if "default" in inner else [])]:
            assert validator.is_valid(example), (key, example)


def test_a_required_key_has_an_example_for_the_error_that_misses_it() -> None:
    for schema in (SCHEMA, *KEYS.values()):
        for key in schema.get("required", ()):
            assert schema["properties"][key]["examples"]


def test_the_defaults_that_editors_show_are_the_ones_that_apply() -> None:
    assert SCHEMA["properties"]["run"]["properties"]["execution_timeout"]["default"] == "45m"
    assert RunSettings() == RunSettings(
        max_in_flight=100,
        requests_per_minute=None,
        share=1.0,
        completion="poll",
        poll=Poll(min_interval=None, max_interval=60.0),
        webhook=None,
        execution_timeout=2700.0,
        request_timeout=30.0,
        on_unknown="hold",
        on_invalid_rows="skip",
        share_identical=True,
        max_executions=500,
        canary=0,
        max_failures=None,
        credits_per_execution=None,
    )
    assert (Api(), Notify(url="").on) == (
        Api(api_version="auto", auth="x-api-key"),
        ("success", "partial", "failure"),
    )
    assert Rows(sources=(), key=()) == Rows(sources=(), key=(), types={}, encoding="utf-8", separator=None, where=None)
    assert Results(manifest=()).layout == "wide"


def test_a_subschema_is_none_where_the_schema_has_nothing() -> None:
    rule = subschema(subschema(SCHEMA, "inputs"), "Any Name")
    assert schema_types(subschema(rule, "value")) == {"string", "array"}
    assert subschema(rule, "valeu") is None
    assert subschema(None, "x") is None
    assert subschema(subschema(SCHEMA, "version"), 0) is None


def test_the_reference_page_has_every_key() -> None:
    for key in KEYS:
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
