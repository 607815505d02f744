"""The expressions over whole columns against plain Python over single rows, and against the JSON Schema itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.apps.app import App, Parameter
from lamina_batch.apps.input_schema import input_schema, value_schema
from lamina_batch.catalog.check_rows import check_rows
from lamina_batch.catalog.content_hash import content_hash
from lamina_batch.catalog.input_validator import InputValidator, Verdict, quote_value
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.pipeline.names import match_name
from lamina_batch.pipeline.spec import (
    Api,
    BlankPolicy,
    Column,
    Columns,
    InputRule,
    Pipeline,
    Results,
    Rows,
    RunSettings,
    Template,
    Value,
)
from lamina_batch.sources.table import Catalog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
COLUMNS = ("c0", "c1", "c2")


# --- the rules in plain Python


def filled(cell: str | None) -> str | None:
    return cell if cell is not None and cell.strip(WHITE_SPACE) else None


def translated(cell: str | None, rule: InputRule) -> str | None:
    cell = filled(cell)
    return None if cell is None else filled(rule.map.get(cell, cell))


def reference(rule: InputRule, row: Mapping[str, str | None]) -> str | list[str] | None:
    """What one row gives for one rule."""
    value: str | list[str] | None
    match rule.source:
        case Column(name=name, split=None):
            value = translated(row[name], rule)
        case Column(name=name, split=str(separator)):
            cell = row[name]
            parts = [] if cell is None else cell.split(separator)
            value = [part for part in (translated(part.strip(WHITE_SPACE), rule) for part in parts) if part is not None]
        case Columns(names=names):
            value = [part for part in (translated(row[name], rule) for name in names) if part is not None]
        case Template(parts=parts):
            cells = [filled(row[name]) for name in parts[1::2]]
            whole = [text for pair in zip(parts[::2], [*cells, ""], strict=True) for text in pair]
            value = None if None in cells else filled("".join(text or "" for text in whole))
        case Value(values=values):
            value = list(values) if len(values) > 1 else values[0]
        case _:
            raise AssertionError(rule.source)
    if not value and rule.default is not None:
        return [rule.default] if isinstance(value, list) else rule.default
    return value or None


# --- what is drawn

PLAIN = st.sampled_from(
    ["", " ", "a", "F", "M", " F ", "a|F", " a | M |", "|", "||", "x\ny", "\u00a0", "\x1c", "é\u2003"]
)
CELL = st.none() | PLAIN | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4).filter(filled).filter(str.strip)
BLANK: st.SearchStrategy[BlankPolicy | None] = st.sampled_from([None, "app_default", "skip_row"])
#: what goes with what, as load.py lets it through
RULE = st.one_of(
    st.builds(
        InputRule,
        parameter=st.just("P"),
        source=st.one_of(
            st.builds(Column, name=st.sampled_from(COLUMNS), split=st.none() | st.sampled_from(["|", " ", "ab"])),
            st.builds(Columns, names=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3).map(tuple)),
        ),
        map=st.dictionaries(PLAIN, PLAIN, max_size=3),
        default=st.none() | WORD,
        blank=BLANK,
    ),
    st.builds(
        InputRule,
        parameter=st.just("P"),
        source=st.lists(st.tuples(st.sampled_from(["", " ", "in {"]), st.sampled_from(COLUMNS)), max_size=3).map(
            lambda pairs: Template(parts=(*(part for pair in pairs for part in pair), "."))
        ),
        default=st.none() | WORD,
        blank=BLANK,
    ),
    st.builds(
        InputRule,
        parameter=st.just("P"),
        source=st.builds(Value, values=st.lists(WORD, min_size=1, max_size=3).map(tuple)),
    ),
)
ROWS = st.lists(st.tuples(*[CELL] * len(COLUMNS)), max_size=6).map(
    lambda rows: [dict(zip(COLUMNS, row, strict=True)) for row in rows]
)


def catalog_of(rows: Sequence[Mapping[str, str | None]]) -> Catalog:
    """As read_catalog would give it, with a column `key` that numbers the rows."""
    names = ("key", *COLUMNS)
    frame = pl.DataFrame(
        [{"key": str(at), **row} for at, row in enumerate(rows)], schema=dict.fromkeys(names, pl.String)
    ).with_row_index("lamina_index")
    row = (pl.col("lamina_index") + 2).alias("lamina_row")
    return Catalog(
        frame=frame.lazy().select("lamina_index", row, *names), columns=names, headers=names, has_source_column=False
    )


def pipeline_of(*rules: InputRule) -> Pipeline:
    return Pipeline(
        file=Path("/p.yaml"),
        name="p",
        app="an-app",
        rows=Rows(sources=("/rows.csv",), key=("key",)),
        inputs=rules,
        matrix={},
        api=Api(),
        run=RunSettings(),
        results=Results(manifest=()),
        state=Path("/state"),
    )


def app_of(*parameters: Parameter) -> App:
    return App(app_id="an-app", name="An app", description=None, parameters=parameters, served_json="{}")


@given(rows=ROWS, rule=RULE)
def test_mapped_columns_equal_the_rules_row_by_row(rows: list[dict[str, str | None]], rule: InputRule) -> None:
    mapped = map_rows(catalog_of(rows), pipeline_of(rule), app_of(Parameter(name="P", type="text", multiple=True)))
    found = mapped.map_all().frame[mapped.inputs[0].value_column].to_list()
    found = [[part for part in value if part is not None] if isinstance(value, list) else value for value in found]
    expected = {str(at): reference(rule, row) for at, row in enumerate(rows)}
    if rule.blank == "skip_row":
        expected = {key: value for key, value in expected.items() if value is not None}
    assert dict(zip(mapped.map_all().frame["lamina_key"], found, strict=True)) == expected
    assert mapped.map_all().skipped_rows == len(rows) - len(expected)


LABELS = ["Big", "Big ", "big", "Plus Size", "plus  size", " Standard", "É", "é ", 'q"\\', "a|b", "\t"]
URLS = ["https://a.example/1.jpg", "HTTP://b.example", "https://a.example/ 1", "ftp://a.example", "https://", "a.jpg"]
VALUES = st.one_of(
    st.sampled_from([*LABELS, *URLS, "", " ", "BIG", " plus size ", "STANDARD", "e\u0301", "Straße"]),
    st.lists(st.sampled_from([*LABELS, *URLS, ""]), max_size=3).map("|".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)


@dataclass(frozen=True)
class Fitted:
    """A parameter with a rule for it."""

    parameter: Parameter
    rule: InputRule


@st.composite
def fitted(draw: st.DrawFn, name: str) -> Fitted:
    kind = draw(st.sampled_from(["text", "options", "url", "hologram"]))
    labels = draw(st.lists(st.sampled_from(LABELS), max_size=5, unique=True)) if kind == "options" else []
    parameter = Parameter(
        name=name,
        type=kind,
        required=draw(st.booleans()),
        options=tuple(labels),
        default=draw(st.sampled_from([None, "", "x"])),
        multiple=draw(st.booleans()),
    )
    source = draw(
        st.one_of(
            st.builds(Column, name=st.sampled_from(COLUMNS), split=st.none() | st.just("|")),
            st.builds(
                Columns, names=st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3, unique=True).map(tuple)
            ),
        )
    )
    return Fitted(parameter, InputRule(parameter=name, source=source, blank=draw(BLANK)))


def on_the_wire(parameter: Parameter, value: str | list[str]) -> str | list[str]:
    """Labels in the app's spelling, one value without an array."""
    values = [value] if isinstance(value, str) else value
    if parameter.type == "options":
        values = [match_name(text, parameter.options) or text for text in values]
    return values[0] if len(values) == 1 else values


@given(
    items=st.tuples(fitted("Front"), fitted("Model  Gender "), fitted('Ü "x"')),
    rows=st.lists(st.tuples(*[VALUES] * len(COLUMNS)), max_size=6),
)
def test_a_row_is_valid_exactly_when_the_json_schema_says_so(
    items: tuple[Fitted, ...], rows: list[tuple[str, ...]]
) -> None:
    """And its findings, inputs and hash agree with that."""
    app = app_of(*(item.parameter for item in items))
    pipeline = pipeline_of(*(item.rule for item in items))
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    checked = check_rows(map_rows(catalog_of(named), pipeline, app), pipeline, app, service="sandbox")

    authority = jsonschema.Draft202012Validator(input_schema(app))
    expected: dict[str, dict[str, Any] | None] = {}
    left_out: dict[str, int] = {}
    for at, row in enumerate(named):
        drawn = {item.parameter.name: reference(item.rule, row) for item in items}
        if any(drawn[item.parameter.name] is None and item.rule.blank == "skip_row" for item in items):
            continue
        inputs = {
            item.parameter.name: on_the_wire(item.parameter, value)
            for item in items
            if (value := drawn[item.parameter.name]) is not None
        }
        no_image = any(
            item.parameter.type == "url" and item.rule.blank is None and drawn[item.parameter.name] is None
            for item in items
        )
        valid = authority.is_valid(inputs) and not no_image
        expected[str(at)] = inputs if valid else None
        for item in items if valid else ():
            if drawn[item.parameter.name] is None:
                left_out[item.parameter.name] = left_out.get(item.parameter.name, 0) + 1

    jobs = checked.with_inputs(checked.jobs)
    found = {key: None if text is None else json.loads(text) for key, text in jobs.select("key", "inputs").rows()}
    assert found == expected
    assert list(found) == list(expected)
    assert jobs["valid"].to_list() == [inputs is not None for inputs in expected.values()]
    errors = checked.findings.filter(severity="error")
    assert set(errors["key"]) == {key for key, inputs in expected.items() if inputs is None}
    assert dict(checked.app_defaults) == left_out
    assert checked.skipped_rows == len(rows) - len(expected)
    for text, content in jobs.filter("valid").select("inputs", "content").rows():
        assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert content == content_hash("sandbox", "an-app", text)


ODD = [
    *LABELS,
    *URLS,
    "x.example/1.jpg",
    " https://a.example/1",
    "https://a.example/a b",
    "it's",
    "a\\b",
    "C:\\a.b/c",
    "\xa0",
]


@given(
    kind=st.sampled_from(["text", "options", "url"]),
    labels=st.lists(st.sampled_from(LABELS), min_size=1, max_size=5, unique=True),
    values=st.lists(
        st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=90), max_size=8
    ),
)
def test_whole_columns_are_judged_as_the_json_schema_judges_each_value(
    kind: str, labels: list[str], values: list[str]
) -> None:
    """Which values are refused, under which keyword, and how each is shown."""
    parameter = Parameter(name="P", type=kind, options=tuple(labels) if kind == "options" else ())
    authority = jsonschema.Draft202012Validator(value_schema(parameter))
    said = InputValidator(parameter).validate_series(pl.Series(values, dtype=pl.String))
    found = {value: Verdict(*verdict) for value, *verdict in said.iter_rows()}
    assert set(found) == {value for value in values if not authority.is_valid(value)}
    for value, verdict in found.items():
        label = match_name(value, parameter.options)
        assert verdict.is_error == (label is None)
        assert verdict.sent == (value if label is None else label)
        if verdict.is_error:
            assert verdict.message.startswith(f"{quote_value(value)} is not ")
            assert verdict.code == {"options": "invalid_option", "url": "invalid_url"}[kind]
        if kind == "url":
            assert (verdict.hint == "remove the white space around it") == authority.is_valid(value.strip())


@pytest.mark.parametrize("url", ["https://a.example/{}.jpg", "https://{}", "https://{}a.example", "{}"])
def test_every_sign_in_a_url_is_judged_as_the_json_schema_judges_it(url: str) -> None:
    parameter = Parameter(name="P", type="url")
    authority = jsonschema.Draft202012Validator(value_schema(parameter))
    signs = ["", *(chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000)]
    values = [url.format(sign) for sign in signs]
    said = InputValidator(parameter).validate_series(pl.Series(values, dtype=pl.String))
    assert set(said["value"]) == {value for value in values if not authority.is_valid(value)}
