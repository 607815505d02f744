"""Whatever stands in a pipeline file: text comes out as it went in, and only our own errors are raised."""

from __future__ import annotations

import copy
import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from thorough import examples

from lamina_batch.errors import LaminaBatchError
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.pipeline.problems import API_KEY_PATTERN
from lamina_batch.pipeline.spec import Column, Columns, InputRule, Pipeline, Template, Value
from lamina_batch.pipeline.template import parse_template
from lamina_batch.pipeline.typed_values import parse_scalar, substitute_variables

if TYPE_CHECKING:
    from pathlib import Path

TODAY = dt.date(2026, 1, 31)

#: texts that YAML readers like to take for something else, and any other text
TRICKY = st.sampled_from(
    [
        "1:1",
        "16:9",
        "No",
        "on",
        "y",
        "0123",
        "0o17",
        "1e3",
        "1_000",
        "2026-01-01",
        "null",
        "~",
        "<<",
        "=",
        "!",
        "*",
        "&a",
        "- a",
        "a: b",
        "a #b",
        "'",
        '"',
        " a ",
        "a\nb",
        "\n",
        "\t",
        "\\n",
        "{x}",
        "[a",
        "%TAG",
        "@",
        "`",
        "---",
        "...",
    ]
)
TEXT = (TRICKY | st.text(st.characters(exclude_categories=["Cs"]))).filter(
    lambda text: not API_KEY_PATTERN.search(text)
)
SOME_TEXT = TEXT.filter(bool)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipelines") / "catalog.yaml"


def load(file: Path, content: bytes, *overrides: str) -> Pipeline:
    file.write_bytes(content)
    return load_pipeline(file, overrides=overrides, environ={"A": "x"}, today=TODAY)


def escaped(text: str) -> str:
    return text.replace("$", "$$")


@given(
    name=SOME_TEXT,
    column=SOME_TEXT,
    values=st.lists(TEXT, min_size=1, max_size=3),
    translations=st.dictionaries(TEXT, TEXT, min_size=1, max_size=3),
    flow=st.sampled_from([True, False, None]),
    unicode=st.booleans(),
    style=st.sampled_from([None, '"', "'", "|", ">"]),
)
def test_any_text_comes_out_as_it_was_written(
    *,
    file: Path,
    name: str,
    column: str,
    values: list[str],
    translations: dict[str, str],
    flow: bool | None,
    unicode: bool,
    style: str | None,
) -> None:
    content = {
        "app": "an-app",
        "rows": {"from": "a.csv", "key": escaped(column)},
        "inputs": {
            f"1{name}": {"value": escaped(values[0])},
            f"2{name}": {"value": [escaped(text) for text in values]},
            f"3{name}": {
                "column": escaped(column),
                "map": {cell: escaped(text) for cell, text in translations.items()},
                "default": escaped(values[0]),
            },
            f"4{name}": {"columns": [escaped(column)]},
        },
    }
    dumped = yaml.safe_dump(
        content, allow_unicode=unicode, default_flow_style=flow, default_style=style, sort_keys=False
    )
    assume(not set(dumped) & set("\x85\u2028\u2029"))
    pipeline = load(file, dumped.encode(), "version=1")  # a style for all scalars would make the number a text
    assert pipeline.rows.key == (column,)
    assert pipeline.inputs == (
        InputRule(parameter=f"1{name}", source=Value(values=(values[0],))),
        InputRule(parameter=f"2{name}", source=Value(values=tuple(values))),
        InputRule(parameter=f"3{name}", source=Column(name=column), map=translations, default=values[0]),
        InputRule(parameter=f"4{name}", source=Columns(names=(column,))),
    )


MINIMAL = b"version: 1\napp: an-app\nrows: {from: a.csv, key: sku}\ninputs: {P: {value: x}}\n"


@given(text=SOME_TEXT)
def test_text_given_to_set_is_taken_as_it_was_typed(file: Path, text: str) -> None:
    assume(not text.startswith(("[", "'", '"')))
    pipeline = load(file, MINIMAL, f"inputs.P.value={escaped(text)}")
    assert pipeline.inputs[0].source == Value(values=(text,))


@given(parts=st.lists(SOME_TEXT, min_size=2, max_size=7))
def test_templates_give_back_their_literals_and_columns(parts: list[str]) -> None:
    names = [part for part in parts[1::2] if not set(part) & set("{}") and part.strip()]
    literals = [*parts[0::2], *[""] * len(names)][: len(names) + 1]
    assume(names)
    text = literals[0].replace("{", "{{").replace("}", "}}")
    for name, literal in zip(names, literals[1:], strict=True):
        text += "{" + name + "}" + literal.replace("{", "{{").replace("}", "}}")
    expected = [literals[0]]
    for name, literal in zip(names, literals[1:], strict=True):
        expected += [name, literal]
    assert parse_template(text) == Template(parts=tuple(expected)).parts


@given(text=TEXT)
def test_a_doubled_dollar_is_always_a_dollar(text: str) -> None:
    assert substitute_variables(escaped(text), {}) == text


@given(number=st.integers(-(10**17), 10**17) | st.floats(-1e17, 1e17))
def test_decimal_numbers_are_numbers(number: float) -> None:
    assert parse_scalar(str(number)) == number


# Only our own errors


def refusal(file: Path, content: bytes, *overrides: str) -> LaminaBatchError | None:
    try:
        load(file, content, *overrides)
    except LaminaBatchError as error:
        return error
    return None


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_pipeline_or_our_error(file: Path, content: bytes) -> None:
    for text in (content, MINIMAL + content):
        error = refusal(file, text)
        assert error is None or error.where


FRAGMENTS = st.sampled_from(
    [
        *"{}[]:,-?#&*!|>%@`'\"\\\n\t ",
        "\n  ",
        ": ",
        "- ",
        "&a ",
        "*a",
        "<<",
        "!!int ",
        "---\n",
        "%YAML 1.1\n",
        "\\U",
        "\\x",
        "run",
        "canary",
        "1",
        "${A}",
        "${",
        "$",
        "null",
        "lma_12345678",
        "\x00",
        "\ud7ff",
        "\u2028",
        "\x85",
        "\ufeff",
    ]
)


@given(fragments=st.lists(FRAGMENTS, max_size=30))
@settings(max_examples=examples(300))
def test_any_yaml_like_text_is_a_pipeline_or_our_error(file: Path, fragments: list[str]) -> None:
    text = "".join(fragments)
    for content in (text, f"{MINIMAL.decode()}{text}"):
        assert "12345678" not in str(refusal(file, content.encode()))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers(), inner, max_size=3),
    max_leaves=5,
)
WHOLE: dict[str, Any] = {
    "version": 1,
    "name": "catalog",
    "app": "an-app",
    "rows": {
        "from": ["a.csv"],
        "key": "sku",
        "where": "a = b",
        "types": {"a": "int"},
        "encoding": "utf-8",
        "separator": "auto",
    },
    "inputs": {
        "A": {"column": "a", "map": {"b": "c"}, "default": "d", "split": "|", "blank": "skip_row"},
        "B": {"columns": ["a", "b"]},
        "C": {"value": "a"},
        "D": {"template": "{a} b"},
        "E": {"sql": "a || b"},
    },
    "matrix": {"F": ["a", "b"]},
    "api": {"generation": "auto", "auth": "bearer"},
    "run": {
        "max_in_flight": 1,
        "requests_per_minute": "auto",
        "share": 0.5,
        "completion": "poll",
        "poll": {"min_interval": "auto", "max_interval": "60s"},
        "execution_timeout": "45m",
        "max_failures": "20%",
        "credits_per_execution": None,
        "share_identical": True,
    },
    "results": {"manifest": ["out/a.csv"], "layout": "wide"},
    "state": "state",
}


def paths_of(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [inner for step, item in items for inner in ((*path, step), *paths_of(item, (*path, step)))]


def test_the_whole_file_that_the_next_test_spoils_is_good(file: Path) -> None:
    load(file, yaml.safe_dump(WHOLE).encode())


@given(path=st.sampled_from(paths_of(WHOLE)), junk=JUNK)
@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.too_slow])
def test_any_value_anywhere_is_good_or_our_error_at_that_key(
    file: Path, path: tuple[str | int, ...], junk: object
) -> None:
    spoilt: Any = copy.deepcopy(WHOLE)
    inner = spoilt
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = junk
    error = refusal(file, yaml.safe_dump(spoilt).encode())
    assert error is None or (error.where or "").startswith(str(file))


SETTABLE = st.sampled_from([".".join(str(step) for step in path) for path in paths_of(WHOLE)]) | TEXT


@given(path=SETTABLE, value=TEXT | FRAGMENTS)
def test_any_set_is_applied_or_our_error(file: Path, path: str, value: str) -> None:
    error = refusal(file, yaml.safe_dump(WHOLE).encode(), f"{path}={value}")
    assert error is None or error.where
