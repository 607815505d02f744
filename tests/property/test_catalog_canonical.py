"""The canonical inputs and their hash are exactly what Python's json and hashlib make of the same values."""

from __future__ import annotations

import hashlib
import json

import polars as pl
from hypothesis import example, given
from hypothesis import strategies as st

from lamina_batch.catalog.content_hash import (
    content_hash,
    inputs_expression,
    list_member,
    string_json,
    text_member,
    with_content_hash,
)

#: any text that UTF-8 can hold, with what JSON escapes drawn often
TEXT = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\/\b\f\n\r\t\x00\x1f\x7f\u2028😀'))
)
VALUE = st.none() | TEXT | st.lists(TEXT, min_size=1, max_size=3)


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _columns(pieces: tuple[str | pl.Expr, ...]) -> list[pl.Expr]:
    return [pl.lit(piece) if isinstance(piece, str) else piece for piece in pieces]


@given(st.lists(TEXT | st.none(), max_size=5))
@example([chr(code) for code in range(0x110)])
def test_text_is_escaped_as_json_does(texts: list[str | None]) -> None:
    frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
    expected = [None if text is None else canonical(text) for text in texts]
    for optional in (True, False):
        member = text_member(pl.col("text"), optional=optional)
        assert frame.select(pl.concat_str(_columns(member.pieces))).to_series().to_list() == expected
    assert [None if text is None else string_json(text) for text in texts] == expected


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
            name: list_member(pl.col(column))
            if kinds[column] == pl.List
            else text_member(pl.col(column), optional=True)
            for name, column in zip(inputs, columns, strict=True)
        }
    )
    given_values = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value
        for name, value in inputs.items()
        if value is not None
    }
    assert frame.with_columns(expression.alias("inputs"))["inputs"].to_list() == [canonical(given_values), "{}"]


@given(TEXT, TEXT, st.dictionaries(TEXT, TEXT | st.lists(TEXT, min_size=2)))
def test_content_is_the_sha256_of_app_service_and_inputs(
    service: str, app_id: str, inputs: dict[str, str | list[str]]
) -> None:
    whole = canonical({"app": app_id, "base_url": service, "inputs": inputs})
    expected = hashlib.sha256(whole.encode()).hexdigest()
    assert content_hash(service, app_id, canonical(inputs)) == expected
    members = {
        name: list_member(pl.lit(pl.Series([value] * 2, dtype=pl.List(pl.String))))
        if isinstance(value, list)
        # The commas are set in another way where a row may leave it out.
        else text_member(pl.lit(pl.Series([value] * 2, dtype=pl.String)), optional=bool(len(name) % 2))
        for name, value in inputs.items()
    }
    found = with_content_hash(pl.DataFrame({"row": [0, 1]}), service, app_id, members).drop("row")
    assert found.rows() == [(expected, len(canonical(inputs).encode()))] * 2


@given(st.lists(st.tuples(TEXT | st.none(), TEXT, TEXT | st.none()), min_size=1, max_size=4), st.permutations("abc"))
def test_commas_stand_between_whatever_is_there(
    rows: list[tuple[str | None, str, str | None]], names: list[str]
) -> None:
    """Also around what no row leaves out, wherever it stands in the order of the names."""
    frame = pl.DataFrame(rows, schema=dict.fromkeys("xyz", pl.String), orient="row")
    members = {
        name: text_member(pl.col(column), optional=column != "y") for name, column in zip(names, "xyz", strict=True)
    }
    found = frame.select(inputs_expression(members)).to_series().to_list()
    assert found == [
        canonical({name: value for name, value in zip(names, row, strict=True) if value is not None}) for row in rows
    ]


def test_the_form_has_not_changed_since_it_was_first_paid_for() -> None:
    """If this fails, every user's finished rows would be bought again."""
    inputs = '{"Aspect Ratio":"1:1","Front":"https://cdn.example.com/1.jpg","Mood":["a","b"]}'
    assert content_hash("https://app.uselamina.ai", "bbb17293-5fe7-4645-8c6e-0745bc28254d", inputs) == (
        "4ec1ecb218ab940ce5849120a33b7690f96b25f59554a820fa5574d332a078cd"
    )
