"""Rules -> values: what a row gives for each input, and what is said about a pipeline that does not fit."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from catalog_support import STOCK, Desk, app, image, options, text

from lamina_batch.errors import PipelineError

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.mapping import RowMapping

ROWS = "rows: {from: rows.csv, key: sku}\n"
PROMPT = app(text("Prompt"))
SEVERAL = app(text("Words", multiple=True))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def values(mapped: RowMapping, at: int = 0) -> list[Any]:
    return mapped.map_all().frame[mapped.inputs[at].value_column].to_list()


def mapped(desk: Desk, app: App, rule: str, *, rows: str = ROWS) -> list[Any]:
    return values(desk.map(app, f"{rows}inputs:\n  {app.parameters[0].name}: {rule}\n"))


def refused(desk: Desk, app: App, body: str) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        desk.map(app, body)
    assert caught.value.exit_code == 2
    return caught.value


# --- where a value comes from


def test_a_text_without_quotes_in_sql_is_told_how_to_be_one(desk: Desk) -> None:
    desk.write("rows.csv", "sku,active\nA,yes\n")
    body = "rows: {from: rows.csv, key: sku, where: active = yes}\ninputs:\n  Prompt: {value: x}\n"
    assert "single quotes: 'yes'" in refused(desk, PROMPT, body).what + str(refused(desk, PROMPT, body).hint)


def test_a_cell_is_sent_as_it_stands_and_is_blank_if_it_is_white_space(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,title\nA, x  y \nB,"two\r\nlines\n"\nC,\nD,"  \t\n"\nE,\u00a0\u3000\nF,00123\n')
    assert mapped(desk, PROMPT, "{column: title}") == [" x  y ", "two\r\nlines\n", None, None, None, "00123"]


def test_a_map_translates_the_cells_it_lists_and_lets_others_pass(desk: Desk) -> None:
    desk.write("rows.csv", "sku,g\nA,F\nB,M\nC,Other\nD,f\nE,\nF,No\n")
    rule = "{column: g, map: {F: Female, M: Male, No: 'n/a'}}"
    assert mapped(desk, PROMPT, rule) == ["Female", "Male", "Other", "f", None, "n/a"]


def test_a_cell_may_be_mapped_to_nothing(desk: Desk) -> None:
    desk.write("rows.csv", "sku,g\nA,n/a\nB,-\nC,x\n")
    assert mapped(desk, PROMPT, "{column: g, map: {n/a: '', '-': ' '}}") == [None, None, "x"]
    assert mapped(desk, PROMPT, "{column: g, map: {n/a: '', '-': ' '}, default: y}") == ["y", "y", "x"]


def test_a_default_replaces_a_blank_and_is_not_translated(desk: Desk) -> None:
    desk.write("rows.csv", "sku,g\nA,F\nB,\nC, \n")
    assert mapped(desk, PROMPT, "{column: g, map: {F: Female}, default: F}") == ["Female", "F", "F"]


def test_a_value_is_the_same_for_every_row(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\nB\n")
    assert mapped(desk, PROMPT, "{value: 1:1}") == ["1:1", "1:1"]
    assert mapped(desk, SEVERAL, "{value: [x, No]}") == [["x", "No"], ["x", "No"]]


def test_a_template_joins_cells_as_they_stand_and_is_blank_with_any_of_them(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title,colour\nA, Shirt ,red\nB,Shirt,\nC, ,red\n")
    rule = '{template: "{{ {title}/{colour} }}"}'
    assert mapped(desk, PROMPT, rule) == ["{  Shirt /red }", None, None]


def test_a_template_of_blank_cells_and_a_default(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,\n")
    assert mapped(desk, PROMPT, '{template: "A {title}", default: A thing}') == ["A thing"]


def test_split_gives_the_elements_that_are_not_blank_without_the_spaces_around_them(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,w\nA,a| b c |d\nB,a\nC,| |\nD,\nE,a||F\n"F","a |\n"\n')
    drawn = mapped(desk, SEVERAL, "{column: w, split: '|', map: {F: Female}}")
    assert [None if row is None else [cell for cell in row if cell is not None] for row in drawn] == [
        ["a", "b c", "d"],
        ["a"],
        None,
        None,
        ["a", "Female"],
        ["a"],
    ]


def test_columns_give_a_list_in_their_order_and_the_place_of_a_blank_stays(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,a,b,c\nA,1,2,3\nB,1,,3\nC,," ",\nD, x ,,\n')
    assert mapped(desk, SEVERAL, "{columns: [c, a, b]}") == [
        ["3", "1", "2"],
        ["3", "1", None],
        None,
        [None, " x ", None],
    ]
    assert mapped(desk, SEVERAL, "{columns: [c, a], default: z}") == [["3", "1"], ["3", "1"], ["z"], [None, " x "]]


def test_sql_gives_text(desk: Desk) -> None:
    desk.write("rows.csv", "sku,price,title\nA,150,x\nB,50,\nC,,y\n")
    rows = "rows: {from: rows.csv, key: sku, types: {price: float}}\n"
    assert mapped(desk, PROMPT, "{sql: \"CASE WHEN price > 100 THEN 'Luxury' ELSE 'Everyday' END\"}", rows=rows) == [
        "Luxury",
        "Everyday",
        "Everyday",
    ]
    assert mapped(desk, PROMPT, "{sql: price * 2}", rows=rows) == ["300", "100", None]
    assert mapped(desk, PROMPT, "{sql: price > 100}", rows=rows) == ["true", "false", None]
    assert mapped(desk, PROMPT, "{sql: \"'fixed'\"}", rows=rows) == ["fixed", "fixed", "fixed"]
    assert mapped(desk, PROMPT, "{sql: title, default: none}", rows=rows) == ["x", "none", "y"]


def test_sql_that_reads_no_column_works_on_a_catalog_without_rows(desk: Desk) -> None:
    desk.write("rows.csv", "sku,price\n")
    assert mapped(desk, PROMPT, "{sql: \"'fixed'\"}") == []
    assert mapped(desk, PROMPT, "{sql: price}") == []
    assert mapped(desk, SEVERAL, "{columns: [price]}") == []


def test_sql_sees_blanks_as_null(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,a\nA," "\nB,""\nC,x\n')
    assert mapped(desk, PROMPT, '{sql: "a IS NULL"}') == ["true", "true", "false"]


def test_a_typed_column_is_typed_for_sql_and_text_elsewhere(desk: Desk) -> None:
    """A cell is sent as it stands: `19.90` does not become 19.9 because somewhere it is compared."""
    desk.write("rows.csv", "sku,price\n001,19.90\n002,5\n")
    result = desk.map(
        app(text("A"), text("B"), text("C")),
        """
        rows: {from: rows.csv, key: sku, types: {price: float, sku: integer}, where: "sku < 2"}
        inputs: {A: {column: price}, B: {template: "{sku}: {price}"}, C: {sql: "sku + price"}}
        """,
    )
    assert [values(result, at) for at in range(3)] == [["19.90"], ["001: 19.90"], ["20.9"]]
    assert result.map_all().frame["lamina_key"].to_list() == ["001"]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("integer", ["1", "-7", " 42 ", "007"], ["1.5", "1,000", "x", "1e3", "99999999999999999999"]),
        ("float", ["1", "1.5", " -2.50 ", "1e3"], ["1,5", "nan", "inf", "€5", "1 000"]),
        ("boolean", ["yes", "No", "TRUE", "false", "1", "0"], ["y", "2", "ja"]),
        ("date", ["2026-03-31"], ["31.03.2026", "2026-02-30", "2026-03-31 10:00"]),
        (
            "datetime",
            ["2026-03-31T10:00:01", "2026-03-31 10:00", "2026-03-31T10:00:01.5Z", "2026-03-31"],
            ["10:00", "x"],
        ),
        ("text", ["x", "1"], []),
    ],
)
def test_cells_that_are_not_of_their_type_are_kept_as_they_stand(
    desk: Desk, kind: str, good: list[str], bad: list[str]
) -> None:
    desk.write("rows.csv", "sku;c\n" + "".join(f"{n};{cell}\n" for n, cell in enumerate([*good, "", " ", *bad])))
    rows = f"rows: {{from: rows.csv, key: sku, types: {{c: {kind}}}}}\n"
    result = desk.map(PROMPT, rows + "inputs: {Prompt: {value: x}}\n")
    assert result.map_all().mistyped["value"].to_list() == bad
    assert set(result.map_all().mistyped["type"]) <= {kind}


def test_a_column_typed_under_two_spellings_is_one_column(desk: Desk) -> None:
    desk.write("rows.csv", "sku,Price\nA,x\n")
    rows = "rows: {from: rows.csv, key: sku, types: {price: integer, PRICE: float}}\n"
    result = desk.map(PROMPT, rows + "inputs: {Prompt: {value: x}}\n")
    assert result.map_all().mistyped.select("column", "value").rows() == [("Price", "x")]


def parquet(desk: Desk, frame: pl.DataFrame) -> None:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    desk.write("rows.parquet", buffer.getvalue())


def test_typed_columns_of_parquet_read_as_a_person_would_write_them(desk: Desk) -> None:
    kinds: list[tuple[str, pl.Series]] = [
        ("12", pl.Series([12], dtype=pl.Int32)),
        ("12", pl.Series([12.0])),
        ("0.1", pl.Series([0.1], dtype=pl.Float32)),
        ("-1.25", pl.Series([-1.25])),
        ("0", pl.Series([-0.0])),
        ("true", pl.Series([True])),
        ("2026-03-31", pl.Series(["2026-03-31"]).str.to_date()),
        ("2026-03-31T10:00:05", pl.Series(["2026-03-31 10:00:05"]).str.to_datetime()),
        ("2026-03-31T10:00:05+00:00", pl.Series(["2026-03-31 10:00:05"]).str.to_datetime(time_zone="UTC")),
        ("10:00:05", pl.Series(["10:00:05"]).str.to_time()),
        ("1.50", pl.Series(["1.50"]).str.to_decimal(scale=2)),
        ("Red", pl.Series(["Red"], dtype=pl.Categorical)),
        ("P1D", pl.Series([86_400_000], dtype=pl.Duration("ms"))),
    ]
    parquet(desk, pl.DataFrame({"sku": ["A"], **{f"c{at}": series for at, (_, series) in enumerate(kinds)}}))
    for at, (expected, _) in enumerate(kinds):
        assert mapped(desk, PROMPT, f"{{column: c{at}}}", rows="rows: {from: rows.parquet, key: sku}\n") == [expected]


def test_a_float_that_is_no_number_is_blank(desk: Desk) -> None:
    """Data frames write a missing number so."""
    parquet(desk, pl.DataFrame({"sku": [1.0, float("nan")], "c": [float("nan"), 2.0]}))
    result = desk.map(PROMPT, "rows: {from: rows.parquet, key: sku}\ninputs: {Prompt: {column: c}}\n")
    assert values(result) == [None, "2"]
    assert result.map_all().frame.select("lamina_key", "lamina_blank_key").rows() == [("1", None), ("", "sku")]


def test_a_list_column_is_a_list(desk: Desk) -> None:
    parquet(desk, pl.DataFrame({"sku": ["A", "B", "C"], "c": [[1, 2], [], None]}))
    rows = "rows: {from: rows.parquet, key: sku}\n"
    assert mapped(desk, SEVERAL, "{column: c, map: {'1': one}}", rows=rows) == [["one", "2"], None, None]


@pytest.mark.parametrize("rule", ["{template: '{c}'}", "{columns: [c]}", "{column: c, split: ','}", "{sql: c}"])
def test_a_list_column_fits_nowhere_else(desk: Desk, rule: str) -> None:
    parquet(desk, pl.DataFrame({"sku": ["A"], "c": [["a"]]}))
    error = refused(desk, SEVERAL, f"rows: {{from: rows.parquet, key: sku}}\ninputs:\n  Words: {rule}\n")
    assert "holds List(String), and one text is needed" in error.what


def test_nested_data_is_refused(desk: Desk) -> None:
    parquet(desk, pl.DataFrame({"sku": ["A"], "c": [{"x": 1}], "l": [[{"x": 1}]]}))
    rows = "rows: {from: rows.parquet, key: sku}\n"
    assert "'c' holds Struct" in refused(desk, SEVERAL, rows + "inputs: {Words: {column: c}}\n").what
    assert "'l' in its lists holds Struct" in refused(desk, SEVERAL, rows + "inputs: {Words: {column: l}}\n").what
    key = "rows: {from: rows.parquet, key: l}\ninputs: {Words: {column: sku}}\n"
    assert refused(desk, SEVERAL, key).what.startswith("rows.key: the column 'l' holds List")


# --- which rows


def test_where_leaves_out_rows_for_which_it_is_not_true(desk: Desk) -> None:
    desk.write("rows.csv", "sku,active\nA,yes\nB,no\nC,\nD,yes\n")
    result = desk.map(
        PROMPT, "rows: {from: rows.csv, key: sku, where: \"active = 'yes'\"}\ninputs: {Prompt: {column: sku}}"
    )
    assert (values(result), result.map_all().frame["lamina_row"].to_list(), result.map_all().skipped_rows) == (
        ["A", "D"],
        [2, 5],
        0,
    )


def test_where_keeps_a_row_that_it_cannot_decide_over_a_mistyped_cell(desk: Desk) -> None:
    """Otherwise a typing error in a price would make the product vanish without a word."""
    desk.write("rows.csv", "sku,price,stock\nA,ten,1\nB,10,x\nC,1,x\nD,ten,0\nE,,1\n")
    result = desk.map(
        PROMPT,
        """
        rows: {from: rows.csv, key: sku, types: {price: float, stock: integer}, where: "price > 5 AND sku <> 'D'"}
        inputs: {Prompt: {column: sku}}
        """,
    )
    assert values(result) == ["A", "B"]
    assert result.map_all().mistyped.select("column", "value").rows() == [("price", "ten"), ("stock", "x")]


def test_sql_is_run_over_the_rows_that_where_lets_through_alone(desk: Desk) -> None:
    desk.write("rows.csv", "sku,price\nA,5\nB,none\n")
    rule = "{sql: CAST(price AS INT) + 1}"
    assert mapped(desk, PROMPT, rule, rows="rows: {from: rows.csv, key: sku, where: \"sku = 'A'\"}\n") == ["6"]


def test_skip_row_leaves_out_rows_and_counts_them(desk: Desk) -> None:
    desk.write("rows.csv", "sku,front,back\nA,f,b\nB,f,\nC,,b\nD,,\n")
    result = desk.map(
        app(text("Front"), text("Back")),
        f"{ROWS}inputs:\n  Front: {{column: front, blank: skip_row}}\n  Back: {{column: back, blank: skip_row}}\n",
    )
    assert (result.map_all().frame["lamina_key"].to_list(), result.map_all().skipped_rows) == (["A"], 3)


def test_a_default_saves_a_row_from_being_skipped(desk: Desk) -> None:
    desk.write("rows.csv", "sku,front\nA,\n")
    assert mapped(desk, PROMPT, "{column: front, default: x, blank: skip_row}") == ["x"]


def test_a_row_is_not_skipped_over_a_mistyped_cell(desk: Desk) -> None:
    desk.write("rows.csv", "sku,price\nA,ten\nB,\n")
    result = desk.map(
        PROMPT,
        "rows: {from: rows.csv, key: sku, types: {price: float}}\ninputs: {Prompt: {sql: price, blank: skip_row}}\n",
    )
    assert (result.map_all().frame["lamina_key"].to_list(), result.map_all().skipped_rows) == (["A"], 1)


# --- keys


def test_the_key_is_the_text_of_the_column(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,x\n001|a\\, 1\n B ,1\n,1\n" ",1\n')
    result = desk.map(PROMPT, f"{ROWS}inputs: {{Prompt: {{column: x}}}}\n")
    assert result.map_all().frame["lamina_key"].to_list() == ["001|a\\", " B ", "", " "]
    assert result.map_all().frame["lamina_blank_key"].to_list() == [None, None, "sku", "sku"]


def test_the_parts_of_a_composite_key_are_escaped(desk: Desk) -> None:
    desk.write("rows.csv", "brand,sku\na|b,c\na,b|c\na\\,|b\n,c\na,\n")
    result = desk.map(PROMPT, "rows: {from: rows.csv, key: [brand, sku]}\ninputs: {Prompt: {value: x}}\n")
    assert result.map_all().frame["lamina_key"].to_list() == ["a\\|b|c", "a|b\\|c", "a\\\\|\\|b", "|c", "a|"]
    assert result.map_all().frame["lamina_blank_key"].to_list() == [None, None, None, "brand", "sku"]


def test_the_file_of_a_row_can_be_used_like_a_column(desk: Desk) -> None:
    desk.write("a.csv", "sku\nA\n")
    desk.write("b.csv", "sku\nA\n")
    result = desk.map(
        PROMPT,
        """
        rows: {from: '*.csv', key: [lamina_source, sku], where: "lamina_source <> 'c.csv'"}
        inputs: {Prompt: {template: "{sku} of {lamina_source}"}}
        """,
    )
    assert result.map_all().frame["lamina_key"].to_list() == ["a.csv|A", "b.csv|A"]
    assert values(result) == ["A of a.csv", "A of b.csv"]


# --- names


def test_columns_match_leniently_where_only_one_does_and_that_is_said(desk: Desk) -> None:
    desk.write("rows.csv", " SKU ,Product  Title,price *\nA,x,5\n")
    result = desk.map(
        app(text("A"), text("B"), text("C"), text("D")),
        """
        rows: {from: rows.csv, key: sku, types: {price: integer}, where: "\\"product title\\" = 'x'"}
        inputs: {A: {column: product title}, B: {template: "{Sku}"}, C: {sql: price + 1}, D: {columns: [price]}}
        """,
    )
    assert [values(result, at) for at in range(4)] == [["x"], ["A"], ["6"], [["5"]]]
    assert result.notes == (
        "the column ' SKU ' is taken for 'sku', which the pipeline names",
        "the column 'Product  Title' is taken for 'product title', which the pipeline names",
        "the column ' SKU ' is taken for 'Sku', which the pipeline names",
    )
    assert result.inputs[0].columns == ("Product  Title",)


def test_an_exact_column_wins_over_a_lenient_one(desk: Desk) -> None:
    desk.write("rows.csv", "sku,Title,title,title *\nA,1,2,3\n")
    assert mapped(desk, PROMPT, "{column: title}") == ["2"]
    assert mapped(desk, PROMPT, "{column: title *}") == ["3"]


def test_a_column_that_could_be_several_is_refused(desk: Desk) -> None:
    desk.write("rows.csv", "sku,Title,title *\nA,1,2\n")
    error = refused(desk, PROMPT, f"{ROWS}inputs:\n  Prompt: {{column: TITLE}}\n")
    assert "'TITLE' could be any of 'Title', 'title *'" in error.what


def test_a_column_that_stands_twice_in_the_header_cannot_be_used(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title,title,Title\nA,1,2,3\n")
    error = refused(desk, PROMPT, f"{ROWS}inputs:\n  Prompt: {{column: title}}\n")
    assert "the column 'title' is 2 times in the header" in error.what


def test_a_column_that_is_missing_is_named_at_its_place_with_the_nearest(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,x\n")
    error = refused(desk, PROMPT, "rows: {from: rows.csv, key: sku}\ninputs:\n  Prompt: {column: tittle}\n")
    assert error.where == f"{desk.folder}/pipeline.yaml:5:20"
    assert error.what == "inputs.Prompt.column: the catalog has no column 'tittle': did you mean 'title'?"
    assert error.hint == "its columns are 'sku', 'title'"


def test_all_missing_columns_are_named_at_once(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,x\n")
    error = refused(
        desk,
        app(text("A"), text("B"), text("C"), text("D")),
        """
        rows: {from: rows.csv, key: [sku, brand], types: {cost: float}, where: "activ = 'yes'"}
        inputs: {A: {column: c1}, B: {columns: [title, c2]}, C: {template: "{c3}"}, D: {sql: "c4 + brand"}}
        """,
    )
    assert error.what == "rows.key.1: the catalog lacks 7 columns"
    assert error.hint is not None
    assert [line.split(":")[0].strip() for line in error.hint.split("\n")] == [
        "rows.key.1",
        "rows.types.cost",
        "inputs.A.column",
        "inputs.B.columns.1",
        "inputs.C.template",
        "rows.where",
        "inputs.D.sql",
    ]


def test_names_of_the_app_match_leniently_and_that_is_said(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    quirky = app(options("Model  Ethnicity", "Asian", "African"), options("Model Body type", "Standard ", "Plus Size"))
    result = desk.map(
        quirky,
        f"{ROWS}inputs: {{model ethnicity: {{value: ASIAN}}}}\nmatrix: {{MODEL BODY TYPE: [standard, Plus Size]}}\n",
    )
    assert [item.parameter.name for item in result.inputs] == ["Model  Ethnicity"]
    assert values(result) == ["Asian"]
    assert [(p.name, labels) for p, labels in result.matrix] == [("Model Body type", ("Standard ", "Plus Size"))]
    assert result.notes == (
        "inputs.model ethnicity is taken for the app's input 'Model  Ethnicity'",
        "matrix.MODEL BODY TYPE is taken for the app's input 'Model Body type'",
    )


@pytest.mark.parametrize(
    "section", ["inputs:\n  Promt: {value: x}", "inputs:\n  Prompt: {value: x}\nmatrix:\n  Promt: [x]"]
)
def test_an_input_that_the_app_lacks_is_named_with_the_nearest(desk: Desk, section: str) -> None:
    desk.write("rows.csv", "sku\nA\n")
    error = refused(desk, PROMPT, ROWS + section)
    assert ".Promt: the app 'Catalog Maker' has no input 'Promt'" in error.what
    assert error.hint == "did you mean 'Prompt'?"
    assert str(error.where).startswith(f"{desk.folder}/pipeline.yaml:")


def test_an_input_like_none_of_the_apps_is_told_what_there_is(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    error = refused(desk, app(text("A"), text("B")), f"{ROWS}inputs: {{Zebra: {{value: x}}}}\n")
    assert error.hint == "it has 'A', 'B'"


def test_an_input_that_could_be_two_of_the_apps_is_refused(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    two = app(text("Model Name"), text("model  name"))
    assert "has no input 'MODEL NAME'" in refused(desk, two, f"{ROWS}inputs: {{MODEL NAME: {{value: x}}}}\n").what


def test_what_the_app_needs_must_be_given(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    needy = app(text("A", required=True), text("B", required=True, default="x"), text("C", required=True), text("D"))
    error = refused(desk, needy, f"{ROWS}inputs: {{D: {{value: x}}}}\n")
    assert error.what == "inputs: the app 'Catalog Maker' needs 'A', 'C', and neither inputs nor matrix gives them"
    desk.map(needy, f"{ROWS}inputs: {{A: {{value: x}}}}\nmatrix: {{C: [y]}}\n")


def test_a_picture_that_the_pipeline_leaves_to_the_app_is_said(desk: Desk) -> None:
    desk.write("rows.csv", "sku,front\nA,x\n")
    result = desk.map(
        app(image("Front", default=STOCK), image("Back", default=STOCK), image("Logo"), text("Prompt", default="x")),
        f"{ROWS}inputs: {{Front: {{column: front}}}}\n",
    )
    assert result.notes == ("'Back' is not given by the pipeline: every row is made with the app's own stock image",)


# --- constants


FITTED = app(
    options("Body", "Standard ", "Plus Size", "Muscular"), image("Front"), text("Words", multiple=True), text("Prompt")
)


@pytest.mark.parametrize(
    ("inputs", "path", "what", "hint"),
    [
        (
            "{Body: {value: Plus Sise}}",
            "inputs.Body.value",
            "'Plus Sise' is not a label of 'Body'",
            "did you mean 'Plus Size'? the labels are 'Standard ', 'Plus Size', 'Muscular'",
        ),
        ("{Body: {column: sku, default: Big}}", "inputs.Body.default", "'Big' is not a label of 'Body'", None),
        ("{Body: {column: sku, map: {P: Plus}}}", "inputs.Body.map.P", "'Plus' is not a label of 'Body'", None),
        (
            "{Front: {value: example.com/a.jpg}}",
            "inputs.Front.value",
            "'example.com/a.jpg' is not an http(s) URL, as 'Front' needs",
            "put https:// before it",
        ),
        ("{Front: {column: sku, default: a.jpg}}", "inputs.Front.default", "'a.jpg' is not an http(s) URL", None),
        ("{Front: {value: [a, b]}}", "inputs.Front.value", "'Front' takes one value, not 2", "keep one of them"),
        ("{Prompt: {value: ' '}}", "inputs.Prompt.value", "this is blank, and a blank is never sent", None),
        ("{Prompt: {column: sku, default: ''}}", "inputs.Prompt.default", "this is blank", None),
        ("{Words: {value: [a, '']}}", "inputs.Words.value.1", "this is blank", None),
    ],
)
def test_a_constant_that_the_app_would_refuse_is_an_error_at_its_place(
    desk: Desk, inputs: str, path: str, what: str, hint: str | None
) -> None:
    desk.write("rows.csv", "sku\nA\n")
    error = refused(desk, FITTED, f"{ROWS}inputs: {inputs}\n")
    assert error.what.startswith(f"{path}: {what}")
    assert hint is None or error.hint == hint
    assert str(error.where).startswith(f"{desk.folder}/pipeline.yaml:4:")


def test_a_matrix_value_that_the_app_would_refuse_is_an_error_at_its_place(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    error = refused(desk, FITTED, f"{ROWS}inputs: {{Prompt: {{value: x}}}}\nmatrix:\n  Body: [Muscular, Slim]\n")
    assert error.where == f"{desk.folder}/pipeline.yaml:6:20"
    assert error.what == "matrix.Body.1: 'Slim' is not a label of 'Body'"


def test_a_matrix_value_may_not_stand_twice_in_two_spellings(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    error = refused(desk, FITTED, f"{ROWS}inputs: {{Prompt: {{value: x}}}}\nmatrix: {{Body: [muscular, MUSCULAR]}}\n")
    assert error.what == "matrix.Body.1: 'Muscular' is listed twice"


def test_no_two_combinations_of_the_matrix_have_one_name(desk: Desk) -> None:
    """A job is found by its key and variant: these two would be sent with each other's inputs."""
    desk.write("rows.csv", "sku\nA\n")
    body = ROWS + "inputs: {P: {value: x}}\nmatrix: {A: ['1', '1; B=2'], B: ['3', '2; B=3']}\n"
    error = refused(desk, app(text("P"), text("A"), text("B")), body)
    assert error.what == "matrix: two combinations have the name 'A=1; B=2; B=3'"


def test_constants_are_sent_in_the_apps_spelling(desk: Desk) -> None:
    desk.write("rows.csv", "sku,b\nA,s\nB,\nC,Muscular\n")
    assert mapped(desk, FITTED, "{column: b, map: {s: standard}, default: PLUS  SIZE}") == [
        "Standard ",
        "Plus Size",
        "Muscular",
    ]


# --- SQL that does not work


@pytest.mark.parametrize(
    ("where", "what", "hint"),
    [
        ("active =", "this SQL cannot be read", "it is one expression over the columns"),
        ("SOUNDS(active)", "this SQL cannot be read: unsupported function", None),
        ("active; DROP TABLE x", "this SQL cannot be read", None),
        ("active", "this gives String, and must give yes or no", "compare the column with something"),
        ("price > 5", "this SQL cannot be run over the rows", "name the column's type under `rows.types`"),
        ("CAST(active AS INT) > 5", "this SQL cannot be run over the rows", None),
        ("active IN (SELECT a FROM read_csv('/etc/passwd'))", "a query inside the expression is not supported", None),
        ("active IN ( from read_csv('/etc/passwd'))", "a query inside the expression is not supported", None),
    ],
)
def test_a_where_that_does_not_work_is_an_error_at_its_place(
    desk: Desk, where: str, what: str, hint: str | None
) -> None:
    desk.write("rows.csv", "sku,active,price\nA,yes,5\n")
    body = f'rows:\n  from: rows.csv\n  key: sku\n  where: "{where}"\ninputs: {{Prompt: {{value: x}}}}\n'
    error = refused(desk, PROMPT, body)
    assert error.where == f"{desk.folder}/pipeline.yaml:6:10"
    assert error.what.startswith(f"rows.where: {what}")
    assert hint is None or hint in str(error.hint)


def test_a_literal_that_reads_like_a_query_is_no_query(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    assert mapped(desk, PROMPT, "{sql: \"CONCAT(sku, ' (Select line)')\"}") == ["A (Select line)"]


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("price +", "this SQL cannot be read"),
        ("price * 2", "this SQL cannot be run over the rows"),
        ("STRING_TO_ARRAY(price, ',')", "the result holds List(String), and one text is needed"),
        ("UNNEST(STRING_TO_ARRAY(price, ','))", "this SQL cannot be run over the rows"),
    ],
)
def test_an_sql_input_that_does_not_work_is_an_error_at_its_place(desk: Desk, sql: str, what: str) -> None:
    desk.write("rows.csv", 'sku,price\nA,"1,2"\n')
    error = refused(desk, PROMPT, f'{ROWS}inputs:\n  Prompt:\n    sql: "{sql}"\n')
    assert error.where == f"{desk.folder}/pipeline.yaml:6:10"
    assert error.what.startswith(f"inputs.Prompt.sql: {what}")


def test_skipped_rows_are_named_beside_typed_columns(desk: Desk) -> None:
    """polars once panicked over these rows."""
    header, good = '"k","a","b","c","p"\n', '"k1","x","x","",""\n"k1"," y","plus  size","""q""","3"\n'
    desk.write("rows.csv", header + good + '"k3","","é","t","1"\n"","","x","t","3"\n')
    body = "rows: {from: rows.csv, key: k, types: {p: float}}\ninputs: {P: {column: a, blank: skip_row}}\n"
    part = desk.map(app(text("P")), body).map_all()
    assert (part.skipped_rows, part.skipped_keys) == (2, ("k3", "row 5"))
