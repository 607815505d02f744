"""A merchandiser's workbook as the catalog of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openpyxl import Workbook
from process import PIPELINE, Cli, read_manifest

if TYPE_CHECKING:
    from pathlib import Path

FRONT = "https://images.example.com/{}.jpg"


def write_book(file: Path) -> None:
    """A sheet for people, and one with a blank row, a key that is a number, a date and an error in it."""
    workbook = Workbook()
    read_me = workbook.active
    assert read_me is not None
    read_me.title = "Read me"
    read_me["A1"] = "Fill the other sheet"
    sheet = workbook.create_sheet("Summer 26")
    sheet.append(["SKU *", "Title", "Front", "Gender", "Price"])
    sheet.append(["00017", "Linen dress", FRONT.format(17), "Female", 89.9])
    sheet.append([])
    sheet.append([18, "Straw hat", FRONT.format(18), None, 20])
    sheet.append(["00019", "Belt", FRONT.format(19), "Femal", "#N/A"])
    workbook.save(file)


def test_a_sheet_of_a_workbook_is_run(tmp_path: Path, cli: Cli) -> None:
    write_book(tmp_path / "catalog.xlsx")
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("rows.csv", "catalog.xlsx#summer 26"), encoding="utf-8")
    ran = cli("run", "p.yaml", "--sandbox", "--json", code=3)
    assert {name: ran.summary["counts"][name] for name in ("rows", "completed", "invalid")} == {
        "rows": 3,
        "completed": 2,
        "invalid": 1,
    }
    assert "numbers in the key column 'SKU *' have fewer digits than the longest key: 18 in row 4." in ran.err
    assert "read as blank: E5" in ran.err
    lines = read_manifest(tmp_path / "out" / "p.sandbox.csv")
    assert [(line["SKU *"], line["Price"], line["lamina_row"], line["lamina_status"]) for line in lines] == [
        ("00017", "89.9", "2", "completed"),
        ("18", "20", "4", "completed"),
        ("00019", "", "5", "invalid"),
    ]


def test_a_sheet_that_is_not_there_stops_the_run_with_those_that_are(tmp_path: Path, cli: Cli) -> None:
    write_book(tmp_path / "catalog.xlsx")
    (tmp_path / "p.yaml").write_text(PIPELINE.replace("rows.csv", "catalog.xlsx#Sumer 26"), encoding="utf-8")
    ran = cli("run", "p.yaml", "--sandbox", code=2)
    assert "did you mean 'Summer 26'? its sheets are 'Read me', 'Summer 26'" in ran.err
