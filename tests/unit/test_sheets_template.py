"""The workbook to fill: which columns it has, what may go into them, and that it is read back as it was filled."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import openpyxl
import polars as pl
import pytest
from catalog_support import STOCK, Desk, app, image, options, text
from process import TOP

from lamina_batch.apps.app import parse_app
from lamina_batch.authoring.sheet import read_existing_rows, refuse_sheet, untyped_columns, write_sheet
from lamina_batch.catalog.check_rows import check_rows
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.errors import CatalogError, PipelineError, UsageError
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.sheets.fields import fields
from lamina_batch.sheets.template import GUIDE_SHEET, LISTS_SHEET, TABLE_SHEET, write_template
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.pipeline.spec import ColumnType, Pipeline
    from lamina_batch.sheets.fields import SheetField

#: Labels that break a list written into a rule: a comma, a space at the end, a formula, and too many of them.
AWKWARD = ("Standard ", "Plus, size", "=1+1", '"quoted"', "1:1", *(f"A long label of many {n:04}" for n in range(40)))
APP = app(
    image("Front", default=STOCK, description="The product from the front. " * 20),
    image("Back", default=STOCK),
    options("Gender", "Female", "Male", default="Female"),
    options("Body", *AWKWARD),
    text("Prompt"),
    text("Headline", required=True),
)
PIPELINE = """
    rows: {from: filled.xlsx, key: sku, where: "active = 'yes' AND stock > 0", types: {stock: integer, Stock: integer}}
    inputs:
      Front: {column: front}
      Back: {column: back, blank: skip_row}
      Gender: {column: gender, map: {F: Female, M: Male}}
      Body: {column: body}
      Prompt: {template: "{title} in {colour}"}
      Headline: {column: title}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def by_name(pipeline: Pipeline, of: App = APP) -> dict[str, SheetField]:
    return {field.name: field for field in fields(pipeline, of)}


def test_a_column_for_the_key_the_inputs_and_where_in_their_order(desk: Desk) -> None:
    found = by_name(desk.pipeline(PIPELINE))
    assert list(found) == ["sku", "front", "back", "gender", "body", "title", "colour", "active", "stock"]
    assert [name for name, field in found.items() if field.required] == ["sku", "front", "title"]
    assert found["gender"].choices == ("F", "M", "Female", "Male")
    assert found["body"].choices == AWKWARD
    assert (found["stock"].kind, found["front"].kind, found["sku"].kind) == ("integer", "url", "text")
    assert found["back"].blank == ("The row is left out.",)
    assert found["gender"].blank == ("The app takes “Female” for “Gender”.",)
    assert found["active"].example == "yes"


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("Front: {column: a, default: https://x.example/a.jpg}", {"a": (False, "url", ())}),
        ("Front: {column: a, blank: app_default}", {"a": (False, "url", ())}),
        ("Front: {column: a, map: {none: https://x.example/a.jpg}}", {"a": (True, "text", ())}),
        ("Gender: {column: a, split: '|'}", {"a": (False, "text", ())}),
        ("Gender: {columns: [a, b]}", {"a": (False, "text", ("Female", "Male")), "b": (False, "text", ("Female", "Male"))}),  # noqa: E501
        ("Gender: {sql: \"CASE WHEN a = 'x' THEN 'Male' END\"}", {"a": (False, "text", ())}),
        ("Gender: {column: a}\n      Body: {column: a}", {"a": (False, "text", ("Male",))}),
        ("Gender: {column: A}\n      Prompt: {template: '{a}'}", {"A": (False, "text", ("Female", "Male"))}),
        ("Prompt: {column: lamina_source}", {}),
    ],
)  # fmt: skip
def test_each_rule_says_what_its_columns_take(desk: Desk, inputs: str, expected: dict[str, Any]) -> None:
    pipeline = desk.pipeline(f"\n    rows: {{from: x.xlsx, key: sku}}\n    inputs:\n      {inputs}\n")
    of = app(
        image("Front", default=STOCK), options("Gender", "Female", "Male"), options("Body", "Male"), text("Prompt")
    )
    found = by_name(pipeline, of)
    del found["sku"]
    assert {name: (field.required, field.kind, field.choices) for name, field in found.items()} == expected


def test_types_say_what_a_column_takes_but_the_key_stays_text(desk: Desk) -> None:
    pipeline = desk.pipeline("""
        rows: {from: x.xlsx, key: sku, where: "sold AND day > '2026-01-01'",
               types: {sku: integer, sold: boolean, day: date}}
        inputs: {Headline: {template: "{sku}"}}
    """)
    found = by_name(pipeline)
    assert (found["sku"].kind, found["day"].kind, found["sold"].choices) == ("text", "date", ("yes", "no"))


def test_a_person_is_offered_what_the_app_takes(desk: Desk) -> None:
    pipeline = desk.pipeline(PIPELINE)
    write_template(pipeline, APP, desk.folder / "t.xlsx")
    book = openpyxl.load_workbook(desk.folder / "t.xlsx")
    assert [(sheet.title, sheet.sheet_state) for sheet in book] == [
        (TABLE_SHEET, "visible"),
        (GUIDE_SHEET, "visible"),
        (LISTS_SHEET, "hidden"),
    ]
    sheet, lists = book[TABLE_SHEET], book[LISTS_SHEET]
    header = [cell.value for cell in sheet[1]]
    assert header == ["sku *", "front *", "back", "gender", "body", "title *", "colour", "active", "stock"]
    assert (sheet.freeze_panes, sheet.max_row) == ("B2", 1)
    rules = {str(rule.sqref).partition("2:")[0]: rule for rule in sheet.data_validations.dataValidation}
    assert set(rules) == set("ABCDEFGHI")
    for letter, choices in (("D", ("F", "M", "Female", "Male")), ("E", AWKWARD)):
        assert rules[letter].type == "list"
        area = book.defined_names[rules[letter].formula1].attr_text.removeprefix(f"{LISTS_SHEET}!")
        assert tuple(cell.value for [cell] in lists[area.replace("$", "")]) == choices
    assert (rules["B"].type, rules["I"].type, rules["G"].type) == ("custom", "whole", None)
    assert all(len(rule.promptTitle) <= 32 and len(rule.prompt) <= 255 for rule in rules.values())
    assert rules["B"].prompt.startswith(
        "Must be filled. Web address (https://…) of the picture for “Front”. The product"
    )
    formats = {
        at: one.number_format
        for one in sheet.column_dimensions.values()
        for at in range(one.min or 1, (one.max or 1) + 1)
    }
    assert formats == dict.fromkeys(range(1, 9), "@") | {9: "0"}
    told = "\n".join(str(cell) for row in book[GUIDE_SHEET].iter_rows(values_only=True) for cell in row if cell)
    assert all(
        name in told for name in ("A:  sku *", "“Products”", "Catalog Maker", "https://images.example.com/front.jpg")
    )


def test_what_a_person_fills_is_read_back_as_they_typed_it(desk: Desk) -> None:
    pipeline = desk.pipeline(PIPELINE)
    write_template(pipeline, APP, desk.folder / "filled.xlsx")
    book = openpyxl.load_workbook(desk.folder / "filled.xlsx")
    book[TABLE_SHEET].append(["00123", "https://x.example/1.jpg", None, "F", "Standard ", "Dress", "=red", "yes", 5])
    book[TABLE_SHEET]["G2"].data_type = "s"
    book.save(desk.folder / "filled.xlsx")
    catalog = read_catalog(pipeline)
    [row] = catalog.frame.drop("lamina_index").collect().rows()
    assert row == (2, "00123", "https://x.example/1.jpg", None, "F", "Standard ", "Dress", "=red", "yes", "5")
    assert not catalog.notes


def test_the_example_can_never_be_taken_for_a_product(desk: Desk) -> None:
    """Neither where it stands nor when its page is dragged to the front is it a row with a key."""
    pipeline = desk.pipeline("\n    rows: {from: filled.xlsx, key: sku}\n    inputs: {Headline: {template: '{sku}'}}\n")
    write_template(pipeline, APP, desk.folder / "filled.xlsx")
    assert read_catalog(pipeline).frame.collect().height == 0
    book = openpyxl.load_workbook(desk.folder / "filled.xlsx")
    book.move_sheet(GUIDE_SHEET, -1)
    book.save(desk.folder / "filled.xlsx")
    with pytest.raises(PipelineError, match="no column 'sku'"):
        fields(pipeline, APP, read_catalog(pipeline))


def test_rows_that_are_there_are_kept_with_all_their_columns(desk: Desk) -> None:
    desk.write(
        "rows.csv", 'SKU,note,Title,Title *,front,\n00017,"=1+1",Dress,x,https://x.example/1.jpg,y\n\n1E5,,,,,\n'
    )
    pipeline = desk.pipeline("""
        rows: {from: rows.csv, key: sku}
        inputs: {Front: {column: front}, Headline: {column: Title}}
    """)
    write_template(pipeline, APP, desk.folder / "t.xlsx", catalog=read_catalog(pipeline))
    sheet = openpyxl.load_workbook(desk.folder / "t.xlsx")[TABLE_SHEET]
    header, *rows = sheet.iter_rows()
    # "Title" must be filled too, but with the mark it would be named as the column beside it.
    assert [cell.value for cell in header] == ["SKU *", "note", "Title", "Title *", "front *", None]
    assert [[cell.value for cell in row] for row in rows] == [
        ["00017", "=1+1", "Dress", "x", "https://x.example/1.jpg", "y"],
        ["1E5", None, None, None, None, None],
    ]
    assert all(cell.data_type == "s" for row in rows for cell in row if cell.value is not None)
    assert sheet["A2"].number_format == "@"
    again = desk.pipeline("\n    rows: {from: t.xlsx, key: sku}\n    inputs: {Front: {column: front}}\n")
    assert read_catalog(again).frame.collect()["SKU *"].to_list() == ["00017", "1E5"]


def test_cells_of_a_parquet_file_stay_what_they_are(desk: Desk) -> None:
    frame = pl.DataFrame({"sku": ["1"], "day": [dt.date(2026, 3, 31)], "tags": [["a", "b"]], "price": [19.9]})
    frame.write_parquet(desk.folder / "rows.parquet")
    pipeline = desk.pipeline("\n    rows: {from: rows.parquet, key: sku}\n    inputs: {Headline: {column: sku}}\n")
    write_template(pipeline, APP, desk.folder / "t.xlsx", catalog=read_catalog(pipeline))
    sheet = openpyxl.load_workbook(desk.folder / "t.xlsx")[TABLE_SHEET]
    assert [cell.value for cell in sheet[2]] == ["1", dt.datetime(2026, 3, 31), "a|b", 19.9]  # noqa: DTZ001


def test_columns_that_lose_their_types_in_a_sheet_are_named(desk: Desk) -> None:
    pl.DataFrame({"sku": ["1"], "stock": [3], "day": [dt.date(2026, 3, 31)], "price": [1.5]}).write_parquet(
        desk.folder / "rows.parquet"
    )
    pipeline = desk.pipeline("""
        rows: {from: rows.parquet, key: sku, where: "stock > 1 AND price > 1", types: {price: float}}
        inputs: {Headline: {column: sku}}
    """)
    assert untyped_columns(pipeline, APP, read_catalog(pipeline)) == ("stock",)


def test_the_sheet_has_the_name_that_the_pipeline_reads(desk: Desk) -> None:
    body = "\n    rows: {{from: 'new.xlsx#{}', key: sku}}\n    inputs: {{Headline: {{column: sku}}}}\n"
    write_template(desk.pipeline(body.format("Summer 26")), APP, desk.folder / "new.xlsx")
    assert openpyxl.load_workbook(desk.folder / "new.xlsx").sheetnames[0] == "Summer 26"
    for name in ("a*b", "x" * 32, "lists"):
        with pytest.raises(PipelineError, match="cannot be called"):
            write_template(desk.pipeline(body.format(name)), APP, desk.folder / "t.xlsx")


def test_nobodys_work_is_written_over(desk: Desk) -> None:
    desk.write("rows.csv", "sku\n1\n")
    file = desk.write("t.xlsx", b"filled by somebody")
    pipeline = desk.pipeline("\n    rows: {from: rows.csv, key: sku}\n    inputs: {Headline: {column: sku}}\n")
    with pytest.raises(UsageError, match="somebody may have filled it"):
        refuse_sheet(pipeline, file, replace=False)
    refuse_sheet(pipeline, file, replace=True)
    refuse_sheet(pipeline, desk.folder / "new.xlsx", replace=False)
    with pytest.raises(UsageError, match="xlsx workbook"):
        refuse_sheet(pipeline, desk.folder / "new.csv", replace=True)
    # The workbook of the rows may be made, but never replaced.
    pipeline = desk.pipeline("\n    rows: {from: t.xlsx, key: sku}\n    inputs: {Headline: {column: sku}}\n")
    with pytest.raises(UsageError, match="would be read as rows"):
        refuse_sheet(pipeline, file, replace=True)
    file.unlink()
    refuse_sheet(pipeline, file, replace=False)
    assert read_existing_rows(pipeline) is None
    assert write_sheet(pipeline, APP, file) == file
    catalog = read_existing_rows(pipeline)
    assert catalog is not None
    assert catalog.frame.collect().height == 0
    # Another workbook among several would change what is run.
    pipeline = desk.pipeline("\n    rows: {from: '*.xlsx', key: sku}\n    inputs: {Headline: {column: sku}}\n")
    with pytest.raises(UsageError, match="would be read as rows"):
        refuse_sheet(pipeline, desk.folder / "new.xlsx", replace=False)


def test_rows_that_cannot_be_read_are_said_and_not_left_out(desk: Desk) -> None:
    desk.write("rows.xlsx", b"no workbook")
    with pytest.raises(CatalogError, match="not an XLSX workbook"):
        read_existing_rows(
            desk.pipeline("\n    rows: {from: rows.xlsx, key: sku}\n    inputs: {Headline: {column: sku}}\n")
        )


NEEDED: dict[str, dict[str, ColumnType]] = {
    "eyewear_video": {"polarised": "boolean", "lens_width_mm": "integer"},
    "performance_video": {"stock": "integer"},
}


@pytest.mark.parametrize("name", sorted(file.stem for file in (TOP / "pipelines").glob("*.yaml")))
def test_the_example_of_every_recipe_is_a_row_that_would_be_made(desk: Desk, name: str) -> None:
    """What the page shows as one filled row has nothing wrong with it; and no limit of a workbook is passed."""
    pipeline = load_pipeline(TOP / "pipelines" / f"{name}.yaml", environ={}, today=dt.date(2026, 1, 31))
    served = {one["appId"]: one for one in json.loads((TOP / "lamina_batch/sandbox/apps.json").read_text())}
    of = parse_app(served[pipeline.app])
    # Those whose rows are Parquet have no need of types; a sheet has.
    types = {**pipeline.rows.types, **NEEDED.get(name, {})}
    file = desk.folder / "rows.xlsx"
    pipeline = replace(pipeline, rows=replace(pipeline.rows, sources=(str(file),), where=None, types=types))
    example = {field.name: field.example for field in fields(pipeline, of)}
    write_template(pipeline, of, file)
    book = openpyxl.load_workbook(file)
    header = [str(cell.value).removesuffix(" *") for cell in book[TABLE_SHEET][1]]
    book[TABLE_SHEET].append([example[column] for column in header])
    book.save(file)
    checked = check_rows(map_rows(read_catalog(pipeline), pipeline, of), pipeline, of, service="sandbox")
    assert checked.findings.height == 0
    assert checked.jobs.height > 0
