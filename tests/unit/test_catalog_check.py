"""Mapped rows -> jobs and findings: what is refused, in which words, and what is sent for the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import polars as pl
import pytest
from catalog_support import STOCK, Desk, app, image, options, sent, text, with_inputs

from lamina_batch.catalog import check_rows as check
from lamina_batch.catalog.content_hash import content_hash
from lamina_batch.catalog.input_validator import FindingCode

if TYPE_CHECKING:
    from lamina_batch.apps.app import App
    from lamina_batch.catalog.check_rows import CheckedRows

ROWS = "rows: {from: rows.csv, key: sku}\n"
URL = "https://cdn.example.com/a.jpg"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def codes(checked: CheckedRows) -> list[tuple[str, str]]:
    return checked.findings.select("row", "code").rows()


def only(checked: CheckedRows) -> dict[str, Any]:
    """The one finding there is."""
    (finding,) = checked.findings.drop("lamina_index").to_dicts()
    return finding


def check_one(desk: Desk, app: App, rule: str, *cells: str, rows: str = ROWS) -> CheckedRows:
    """Cells of the column `c`, checked against the app's one parameter."""
    desk.write("rows.csv", "sku\tc\n" + "".join(f"K{at}\t{cell}\n" for at, cell in enumerate(cells)))
    return desk.check(app, f"{rows}inputs:\n  {app.parameters[0].name}: {rule}\n")


# --- what is sent


def test_a_good_row_is_a_job_with_its_inputs_and_their_hash(desk: Desk) -> None:
    desk.write("rows.csv", f"sku,front,title\n001,{URL},Rock\n")
    checked = desk.check(
        app(text("Title"), image("Front"), options("Size", "Big")),
        f"{ROWS}inputs: {{Title: {{column: title}}, Front: {{column: front}}}}\n",
    )
    inputs = f'{{"Front":"{URL}","Title":"Rock"}}'
    assert checked.jobs.to_dicts() == [
        {
            "lamina_index": 0,
            "row": 2,
            "key": "001",
            "variant": "",
            "content": content_hash("sandbox", "an-app", inputs),
            "inputs_bytes": len(inputs),
            "valid": True,
            "code": None,
            "message": None,
        }
    ]
    assert with_inputs(checked)["inputs"].to_list() == [inputs]
    assert checked.findings.is_empty()
    assert (checked.skipped_rows, checked.app_defaults, checked.notes) == (0, (), ())


def test_the_findings_of_a_good_catalog_have_their_columns_all_the_same(desk: Desk) -> None:
    findings = check_one(desk, app(text("P")), "{column: c}", "x").findings
    names = ["row", "key", "column", "parameter", "value", "code", "severity", "message", "hint"]
    assert findings.columns == ["lamina_index", *names]
    assert findings.schema == {"lamina_index": pl.UInt32, **dict.fromkeys(names, pl.String)}


def test_one_value_is_sent_as_a_string_and_several_as_an_array(desk: Desk) -> None:
    """docs/lamina-api.md, "Several values"."""
    checked = check_one(desk, app(text("P", multiple=True)), "{column: c, split: '|'}", "a", "a|b", "a||b|", "")
    assert sent(checked) == [{"P": "a"}, {"P": ["a", "b"]}, {"P": ["a", "b"]}, {}]


def test_blanks_are_left_out_and_counted_where_the_row_is_valid(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title,size\nA,x,\nB,,\nC,,Bog\n")
    checked = desk.check(
        app(text("Title"), options("Size", "Big", default="Big"), options("Place", "Park", "Studio")),
        f"{ROWS}inputs: {{Title: {{column: title}}, Size: {{column: size}}}}\nmatrix: {{Place: [Park, Studio]}}\n",
    )
    assert sent(checked) == [
        {"Title": "x", "Place": "Park"},
        {"Title": "x", "Place": "Studio"},
        {"Place": "Park"},
        {"Place": "Studio"},
        None,
        None,
    ]
    assert checked.app_defaults == (("Title", 2), ("Size", 4))


def test_each_row_runs_once_for_every_combination_in_the_order_of_the_rows(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\nB\n")
    checked = desk.check(
        app(options("Size", "Big ", "Small"), options("Place", "Park", "Studio"), text("P")),
        f"{ROWS}inputs: {{P: {{column: sku}}}}\nmatrix: {{size: [big, small], Place: [Studio, Park]}}\n",
    )
    assert checked.jobs.select("lamina_index", "key", "variant").rows() == [
        (0, "A", "Place=Studio; Size=Big "),
        (0, "A", "Place=Park; Size=Big "),
        (0, "A", "Place=Studio; Size=Small"),
        (0, "A", "Place=Park; Size=Small"),
        (1, "B", "Place=Studio; Size=Big "),
        (1, "B", "Place=Park; Size=Big "),
        (1, "B", "Place=Studio; Size=Small"),
        (1, "B", "Place=Park; Size=Small"),
    ]
    assert sent(checked)[0] == {"P": "A", "Place": "Studio", "Size": "Big "}
    assert checked.jobs["content"].n_unique() == 8


def test_a_catalog_without_rows_gives_no_jobs(desk: Desk) -> None:
    checked = check_one(desk, app(image("P", multiple=True)), "{column: c, split: '|'}")
    assert (checked.jobs.height, checked.findings.height) == (0, 0)
    checked = check_one(desk, app(image("P", multiple=True)), "{columns: [c]}")
    assert (checked.jobs.height, checked.findings.height) == (0, 0)


def test_content_is_bound_to_the_app_and_the_service_but_not_to_key_or_place(desk: Desk) -> None:
    first = check_one(desk, app(text("P")), "{column: c}", "x", "y")
    again = check_one(desk, app(text("P")), "{column: c}", "y", "z", "x")
    assert first.jobs["content"].to_list() == [again.jobs["content"][2], again.jobs["content"][0]]
    assert content_hash("https://a.example", "an-app", "{}") != content_hash("https://b.example", "an-app", "{}")
    assert content_hash("sandbox", "an-app", "{}") != content_hash("sandbox", "another", "{}")


# --- labels


BODY = app(options("Model Body type", "Standard ", "Plus Size", "Muscular"))
RULE = "{column: c}"


def test_a_label_that_the_app_lacks_is_a_finding_with_the_nearest(desk: Desk) -> None:
    checked = check_one(desk, BODY, RULE, "Muscular", "Plus Sise")
    assert only(checked) == {
        "row": "3",
        "key": "K1",
        "column": "c",
        "parameter": "Model Body type",
        "value": "Plus Sise",
        "code": "invalid_option",
        "severity": "error",
        "message": "'Plus Sise' is not a label of 'Model Body type'",
        "hint": "did you mean 'Plus Size'? the labels are 'Standard ', 'Plus Size', 'Muscular'",
    }
    assert checked.jobs.select("valid", "code", "message").rows() == [
        (True, None, None),
        (False, "invalid_option", "'Plus Sise' is not a label of 'Model Body type'"),
    ]
    assert sent(checked) == [{"Model Body type": "Muscular"}, None]
    assert checked.jobs["content"].is_null().to_list() == [False, True]


def test_a_word_like_one_of_the_map_is_told_the_maps_words_too(desk: Desk) -> None:
    place = app(options("Location", "Park", "Studio"))
    rule = "{column: c, map: {Outside: Park, Inside: Studio}}"
    assert only(check_one(desk, place, rule, "Outside", "outside", "Park"))["hint"] == (
        "did you mean 'Outside'? `map` takes 'Outside', 'Inside'; the labels are 'Park', 'Studio'"
    )


def test_a_label_like_none_of_many_is_told_where_they_are_listed(desk: Desk) -> None:
    many = app(options("P", *(f"Label {n}" for n in range(30))))
    assert only(check_one(desk, many, RULE, "???"))["hint"] == "`lamina-batch apps show` lists the 30 labels"


def test_a_lenient_match_is_a_warning_for_each_cell_and_the_apps_spelling_is_sent(desk: Desk) -> None:
    checked = check_one(desk, BODY, RULE, "Standard", " plus  size ", "standard", "Standard ")
    assert codes(checked) == [("3", "lenient_match"), ("4", "lenient_match")], "other spaces alone are no finding"
    assert checked.findings["severity"].unique().to_list() == ["warning"]
    assert checked.findings.drop("lamina_index").row(0, named=True) == {
        "row": "3",
        "key": "K1",
        "column": "c",
        "parameter": "Model Body type",
        "value": " plus  size ",
        "code": "lenient_match",
        "severity": "warning",
        "message": "' plus  size ' is sent as 'Plus Size', the app's own spelling",
        "hint": "write 'Plus Size'",
    }
    assert [job["Model Body type"] for job in sent(checked) if job] == [
        "Standard ",
        "Plus Size",
        "Standard ",
        "Standard ",
    ]
    assert checked.jobs["content"].n_unique() == 2


def test_a_label_that_could_be_two_is_refused_unless_it_is_exact(desk: Desk) -> None:
    twins = app(options("P", "Standard", "Standard "))
    assert codes(check_one(desk, twins, RULE, "Standard", "Standard ", "STANDARD")) == [("4", "invalid_option")]


def test_each_bad_element_of_a_list_is_a_finding(desk: Desk) -> None:
    several = app(options("P", "Red", "Green", multiple=True))
    checked = check_one(desk, several, "{column: c, split: '|'}", "Red|blu| green |Gren", "Red|Red")
    assert checked.findings.select("row", "column", "value", "code").rows() == [
        ("2", "c", "blu", "invalid_option"),
        ("2", "c", "green", "lenient_match"),
        ("2", "c", "Gren", "invalid_option"),
    ]
    assert sent(checked) == [None, {"P": ["Red", "Red"]}]


def test_a_finding_in_one_of_several_columns_names_that_column(desk: Desk) -> None:
    desk.write("rows.csv", f"sku,a,b,c\nA,{URL},,x.jpg\nB,,{URL},\nC,,,\n")
    checked = desk.check(
        app(image("Mood", multiple=True)),
        f"{ROWS}inputs: {{Mood: {{columns: [a, b, c], blank: app_default}}}}\n",
    )
    assert checked.findings.select("row", "column", "value", "code").rows() == [("2", "c", "x.jpg", "invalid_url")]
    assert sent(checked) == [None, {"Mood": URL}, {}]


def test_more_than_one_value_for_a_parameter_that_takes_one_is_a_finding(desk: Desk) -> None:
    checked = check_one(desk, app(text("P")), "{column: c, split: '|'}", "a", "a| b |", "a|", "|")
    assert only(checked) == {
        "row": "3",
        "key": "K1",
        "column": "c",
        "parameter": "P",
        "value": "a, b",
        "code": "too_many_values",
        "severity": "error",
        "message": "2 values, and 'P' takes one",
        "hint": "keep one of them",
    }
    assert sent(checked) == [{"P": "a"}, None, {"P": "a"}, {}]


# --- URLs


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        (f"{URL} ", "remove the white space around it"),
        (f"\u00a0{URL}", "remove the white space around it"),
        ("https://cdn.example.com/a b.jpg", "write each space inside it as %20"),
        ("cdn.example.com/a.jpg", "put https:// before it"),
        ("ftp://cdn.example.com/a.jpg", "give a full address that begins with https://"),
        ("C:\\photos\\a.jpg", "give a full address that begins with https://"),
        ("IMG_4471", "give a full address that begins with https://"),
    ],
)
def test_what_is_no_url_is_a_finding_that_says_how_to_mend_it(desk: Desk, cell: str, hint: str) -> None:
    finding = only(check_one(desk, app(image("Front")), RULE, cell, URL))
    assert (finding["code"], finding["value"]) == ("invalid_url", cell)
    assert finding["message"] == f"{cell!r} is not an http(s) URL, as 'Front' needs"
    assert hint in finding["hint"]


def test_a_long_value_and_control_characters_are_shown_short_and_harmless(desk: Desk) -> None:
    finding = only(check_one(desk, app(image("Front")), RULE, "\x1b[31m" + "x" * 500))
    assert finding["value"] == "\x1b[31m" + "x" * 500
    assert "\x1b" not in finding["message"]
    assert len(finding["message"]) < 150


def test_a_blank_picture_is_a_finding(desk: Desk) -> None:
    assert only(check_one(desk, app(image("Front", default=STOCK)), RULE, " ", URL)) == {
        "row": "2",
        "key": "K0",
        "column": "c",
        "parameter": "Front",
        "value": "",
        "code": "blank_image",
        "severity": "error",
        "message": "no image for 'Front': the app would use its own stock image",
        "hint": "give its URL; or choose `blank: skip_row` or `blank: app_default` in the pipeline",
    }


def test_a_blank_film_is_named_as_one(desk: Desk) -> None:
    film = app({"name": "Clip", "type": "url", "accept": ["video"], "required": True})
    finding = only(check_one(desk, film, RULE, ""))
    assert (finding["code"], finding["message"]) == ("blank_image", "no video for 'Clip'")


def test_a_blank_picture_may_be_left_to_the_app_or_skipped_or_replaced(desk: Desk) -> None:
    front = app(image("Front", default=STOCK))
    left = check_one(desk, front, "{column: c, blank: app_default}", "", URL)
    assert (sent(left), left.app_defaults) == ([{}, {"Front": URL}], (("Front", 1),))
    skipped = check_one(desk, front, "{column: c, blank: skip_row}", "", URL)
    assert (sent(skipped), skipped.skipped_rows, skipped.skipped_keys) == ([{"Front": URL}], 1, ("K0",))
    replaced = check_one(desk, front, f"{{column: c, default: '{URL}'}}", "")
    assert sent(replaced) == [{"Front": URL}]


def test_the_first_rows_that_are_skipped_are_named_in_whatever_part_they_are(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.write("rows.csv", "sku,c\n" + ",\n" + "".join(f"{n},\n" for n in range(8)) + f"x,{URL}\n")
    monkeypatch.setattr("lamina_batch.catalog.check_rows.PART_ROWS", 3)
    body = "rows: {from: rows.csv, key: sku}\ninputs: {Front: {column: c, blank: skip_row}}\n"
    checked = desk.check(app(image("Front")), body)
    assert (checked.skipped_rows, checked.skipped_keys) == (8, ("0", "1", "2", "3", "4"))


def test_what_the_app_needs_may_not_be_blank(desk: Desk) -> None:
    finding = only(check_one(desk, app(text("Prompt", required=True)), RULE, ""))
    assert (finding["code"], finding["message"]) == ("missing_input", "'Prompt' is blank, and the app needs it")
    needed = app(image("Front", required=True))
    assert only(check_one(desk, needed, "{column: c, blank: app_default}", ""))["code"] == "missing_input"


# --- keys


def test_a_blank_key_is_a_finding(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,x\n,y\n,z\n")
    checked = desk.check(app(text("P")), f"{ROWS}inputs: {{P: {{column: title}}}}\n")
    assert codes(checked) == [("3", "blank_key"), ("4", "blank_key")]
    assert checked.findings.row(0, named=True)["message"] == "'sku' is blank, and it names the row"
    assert checked.findings.row(0, named=True)["column"] == "sku"


def test_rows_that_share_a_key_are_all_findings(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title,price\nA,x,1\nB,y,1\nA,z,1\nA,x,2\n")
    checked = desk.check(app(text("P")), f"{ROWS}inputs: {{P: {{column: title}}}}\n")
    assert codes(checked) == [("2", "duplicate_key"), ("4", "duplicate_key"), ("5", "duplicate_key")]
    assert checked.findings.drop("lamina_index").row(0, named=True) == {
        "row": "2",
        "key": "A",
        "column": "sku",
        "parameter": "",
        "value": "A",
        "code": "duplicate_key",
        "severity": "error",
        "message": "rows 2, 4, 5 share this key, and their inputs differ",
        "hint": "give each row a key of its own, or list more columns under `rows.key`",
    }


def test_rows_that_share_a_key_may_be_equal_in_all_that_is_sent(desk: Desk) -> None:
    desk.write("rows.csv", "sku,size,price\nA,Big ,1\nA,big,2\n")
    checked = desk.check(app(options("P", "Big ")), f"{ROWS}inputs: {{P: {{column: size}}}}\n")
    assert codes(checked) == [("3", "lenient_match")]
    assert checked.jobs["valid"].to_list() == [True, True]
    assert checked.jobs["content"].n_unique() == 1


def test_rows_that_share_a_key_and_a_fault_have_that_fault_alone(desk: Desk) -> None:
    desk.write("rows.csv", "sku,front\nA,\nA,\n")
    checked = desk.check(app(image("P")), f"{ROWS}inputs: {{P: {{column: front}}}}\n")
    assert codes(checked) == [("2", "blank_image"), ("3", "blank_image")]


def test_only_rows_that_where_lets_through_share_a_key(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title,live\nA,x,yes\nA,z,no\n")
    rows = "rows: {from: rows.csv, key: sku, where: \"live = 'yes'\"}\n"
    assert desk.check(app(text("P")), f"{rows}inputs: {{P: {{column: title}}}}\n").findings.is_empty()


def test_composite_keys_are_compared_part_by_part(desk: Desk) -> None:
    desk.write("rows.csv", "a,b,title\nx|y,z,1\nx,y|z,2\nx,,3\n")
    checked = desk.check(app(text("P")), "rows: {from: rows.csv, key: [a, b]}\ninputs: {P: {column: title}}\n")
    assert checked.findings.select("row", "column", "code").rows() == [("4", "b", "blank_key")]


def test_many_rows_that_share_a_key_are_not_all_listed(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\n" + "".join(f"A,{n}\n" for n in range(9)))
    checked = desk.check(app(text("P")), f"{ROWS}inputs: {{P: {{column: title}}}}\n")
    assert set(checked.findings["message"]) == {"rows 2, 3, 4, 5, 6, ... share this key, and their inputs differ"}


def test_the_file_of_a_finding_is_named_where_there_are_several(desk: Desk) -> None:
    desk.write("a.csv", "sku,title\nA,x\n")
    desk.write("b.csv", "sku,title\nA,y\n")
    checked = desk.check(app(text("P")), "rows: {from: '*.csv', key: sku}\ninputs: {P: {column: title}}\n")
    assert checked.findings.columns[-1] == "source"
    assert checked.findings.select("row", "source", "message").rows() == [
        ("2", "a.csv", "rows 2 of a.csv, 2 of b.csv share this key, and their inputs differ"),
        ("2", "b.csv", "rows 2 of a.csv, 2 of b.csv share this key, and their inputs differ"),
    ]


# --- types


def test_a_cell_that_is_not_of_its_type_is_a_finding(desk: Desk) -> None:
    rows = "rows: {from: rows.csv, key: sku, types: {c: float}}\n"
    checked = check_one(desk, app(text("P")), "{column: c}", "1.5", "1,5", "", rows=rows)
    assert only(checked) == {
        "row": "3",
        "key": "K1",
        "column": "c",
        "parameter": "",
        "value": "1,5",
        "code": "invalid_type",
        "severity": "error",
        "message": "'1,5' is not of the type float, as `rows.types` says",
        "hint": "write a point instead of the decimal comma: 1.5",
    }
    assert sent(checked) == [{"P": "1.5"}, None, {}]


@pytest.mark.parametrize(
    ("cell", "hint"),
    [
        ("19,90", "write a point instead of the decimal comma: 19.90"),
        ("1,200", "write a point instead of the decimal comma, and no signs for thousands or currencies: 1200.50"),
        ("1.200,50", "write a point instead of the decimal comma, and no signs for thousands or currencies: 1200.50"),
        ("19.90 EUR", "write it with a point and without spaces or signs: 1200.50"),
    ],
)
def test_a_number_with_a_comma_is_told_what_to_write(desk: Desk, cell: str, hint: str) -> None:
    rows = "rows: {from: rows.csv, key: sku, types: {c: float}}\n"
    assert only(check_one(desk, app(text("P")), "{column: c}", cell, rows=rows))["hint"] == hint


@pytest.mark.parametrize("kind", ["integer", "boolean", "date", "datetime"])
def test_every_type_says_how_it_is_written(desk: Desk, kind: str) -> None:
    rows = f"rows: {{from: rows.csv, key: sku, types: {{c: {kind}}}}}\n"
    assert only(check_one(desk, app(text("P")), "{column: c}", "x", rows=rows))["hint"].startswith("write ")


def test_a_mistyped_cell_that_sql_reads_is_not_called_blank_as_well(desk: Desk) -> None:
    rows = "rows: {from: rows.csv, key: sku, types: {c: float}}\n"
    needed = app(text("P", required=True))
    assert codes(check_one(desk, needed, "{sql: c}", "x", "", rows=rows)) == [
        ("2", "invalid_type"),
        ("3", "missing_input"),
    ]


# --- order


def test_findings_stand_by_row_and_then_the_row_before_its_inputs_in_their_order(desk: Desk) -> None:
    desk.write("rows.csv", "sku,b,a,n\nB,?,!,x\n,?,,1\nA,Big,,x\n")
    checked = desk.check(
        app(options("A", "Big", required=True), options("B", "Big")),
        """
        rows: {from: rows.csv, key: sku, types: {n: integer}}
        inputs: {B: {column: b}, A: {column: a}}
        """,
    )
    assert checked.findings.select("row", "code", "parameter").rows() == [
        ("2", "invalid_type", ""),
        ("2", "invalid_option", "B"),
        ("2", "invalid_option", "A"),
        ("3", "blank_key", ""),
        ("3", "invalid_option", "B"),
        ("3", "missing_input", "A"),
        ("4", "invalid_type", ""),
        ("4", "missing_input", "A"),
    ]
    assert checked.jobs["code"].to_list() == ["invalid_type", "blank_key", "invalid_type"]


def test_a_warning_is_never_the_reason_of_an_invalid_row(desk: Desk) -> None:
    desk.write("rows.csv", "sku,a,b\nA,BIG,?\n")
    checked = desk.check(
        app(options("A", "Big"), options("B", "Big")),
        f"{ROWS}inputs: {{A: {{column: a}}, B: {{column: b}}}}\n",
    )
    assert checked.findings["code"].to_list() == ["lenient_match", "invalid_option"]
    assert checked.jobs["code"].to_list() == ["invalid_option"]


def test_names_and_values_reach_the_wire_byte_for_byte(desk: Desk) -> None:
    name, label = 'Model  "Éthnicity"\\', 'Straight "x" \\ '
    desk.write("rows.csv", "sku,c\nA,x\n")
    checked = desk.check(
        app(options(name, label)),
        f"{ROWS}inputs: {{{json.dumps(name)}: {{column: c, map: {{x: {json.dumps(label)}}}}}}}\n",
    )
    assert with_inputs(checked)["inputs"].to_list() == [
        json.dumps({name: label}, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    ]


# --- large catalogs


def test_a_catalog_checked_in_parts_is_the_catalog_checked_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are shared across parts, spellings and defaults included."""
    lines = ["A,big,5", "B,?,6", ",Big,7", "A,Big,x", "C,Big,8", "D,,9", "C,Big,8", "E,BIG,10", "B,Big,6"]
    desk.write("rows.csv", "sku,c,n\n" + "".join(f"{line}\n" for line in lines))
    body = """
        rows: {from: rows.csv, key: sku, types: {n: integer}, where: "n IS NULL OR n < 10"}
        inputs: {S: {column: c}, T: {sql: "n - MIN(n)"}}
        matrix: {M: [x, y]}
        """
    wanted = app(options("S", "Big", default="Big"), text("T"), text("M"))
    once = desk.check(wanted, body)
    monkeypatch.setattr(check, "PART_ROWS", 2)
    parts = desk.check(wanted, body)
    assert parts.jobs.equals(once.jobs)
    assert parts.findings.equals(once.findings)
    assert with_inputs(parts).equals(with_inputs(once))
    assert (parts.app_defaults, parts.skipped_rows) == (once.app_defaults, once.skipped_rows) == ((("S", 2),), 0)
    assert set(once.findings["code"]) >= {"duplicate_key", "blank_key", "invalid_type", "invalid_option"}


def test_without_contents_those_are_made_that_tell_which_rows_are_equal(desk: Desk) -> None:
    desk.write("rows.csv", "sku,c\nA,x\nB,y\nC,x\nD,?\nE,\nF,?\n")
    body = f'{ROWS}inputs: {{P: {{column: c}}, S: {{column: c, map: {{x: "", y: "", "": Big}}}}}}\n'
    wanted = app(text("P"), options("S", "Big"))
    every = desk.check(wanted, body).jobs
    few = desk.check(wanted, body, all_hashes=False).jobs
    assert few["content"].to_list() == [every["content"][0], None, every["content"][2], None, None, None]
    assert few["inputs_bytes"].to_list() == [every["inputs_bytes"][0], None, every["inputs_bytes"][2], None, None, None]
    assert few.drop("content", "inputs_bytes").equals(every.drop("content", "inputs_bytes"))


def test_the_page_for_users_explains_every_code_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rows-and-inputs.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)` \| (?:error|warning) \|", page, re.MULTILINE)) == get_args(FindingCode)


@pytest.mark.parametrize("sign", [",", ";", "|"])
def test_several_urls_in_one_cell_are_named_as_that(desk: Desk, sign: str) -> None:
    """None of them is one picture, and the service would be paid for failing to fetch it."""
    finding = only(
        check_one(desk, app(image("Front")), "{column: c}", f"https://x.example/1.jpg{sign}https://x.example/2.jpg")
    )
    assert finding["code"] == "invalid_url"
    assert "several URLs in one cell" in finding["message"]
    assert "split" in finding["hint"]
