"""The canonical inputs and their hash are exactly what Python's json and hashlib make of the same values."""

from __future__ import annotations

import hashlib
import json

import polars as pl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lamina_batch.catalog.content import (
    content_hash,
    content_hashes,
    inputs_expression,
    list_json,
    string_json,
    text_json,
)

#: any text that UTF-8 can hold, with what JSON escapes drawn often
TEXT = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\/\b\f\n\r\t\x00\x1f\x7f\u2028😀'))
)
VALUE = st.none() | TEXT | st.lists(TEXT, min_size=1, max_size=3)


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(TEXT | st.none(), max_size=5))
@example([chr(code) for code in range(0x110)])
def test_text_is_escaped_as_json_does(texts: list[str | None]) -> None:
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    expected = [None if text is None else canonical(text) for text in texts]
    assert frame.select(text_json(pl.col("text"))).to_series().to_list() == expected
    assert [None if text is None else string_json(text) for text in texts] == expected


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(TEXT, VALUE, max_size=5))
def test_inputs_are_one_canonical_object_without_what_is_blank(inputs: dict[str, str | list[str] | None]) -> None:
    columns = {f"c{at}": [value, None] for at, value in enumerate(inputs.values())}
    kinds = {
        f"c{at}": pl.List(pl.String) if isinstance(value, list) else pl.String
        for at, value in enumerate(inputs.values())
    }
    frame = pl.DataFrame(columns | {"row": [0, 1]}, schema=kinds | {"row": pl.Int64})
    expression = inputs_expression(
        {
            name: (list_json if kinds[column] == pl.List else text_json)(pl.col(column))
            for name, column in zip(inputs, columns, strict=True)
        }
    )
    given_values = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value
        for name, value in inputs.items()
        if value is not None
    }
    assert frame.with_columns(expression.alias("inputs"))["inputs"].to_list() == [canonical(given_values), "{}"]


@settings(deadline=None)  # the machine may be busy
@given(TEXT, TEXT, st.dictionaries(TEXT, TEXT | st.lists(TEXT, min_size=2)))
def test_content_is_the_sha256_of_app_service_and_inputs(
    service: str, app_id: str, inputs: dict[str, str | list[str]]
) -> None:
    whole = canonical({"app": app_id, "base_url": service, "inputs": inputs})
    expected = hashlib.sha256(whole.encode()).hexdigest()
    assert content_hash(service, app_id, canonical(inputs)) == expected
    column = pl.Series([canonical(inputs), None, canonical(inputs)])
    assert content_hashes(service, app_id, column).to_list() == [expected, None, expected]


def test_the_form_has_not_changed_since_it_was_first_paid_for() -> None:
    """If this fails, every user's finished rows would be bought again."""
    inputs = '{"Aspect Ratio":"1:1","Front":"https://cdn.example.com/1.jpg","Mood":["a","b"]}'
    assert content_hash("https://app.uselamina.ai", "bbb17293-5fe7-4645-8c6e-0745bc28254d", inputs) == (
        "4ec1ecb218ab940ce5849120a33b7690f96b25f59554a820fa5574d332a078cd"
    )
