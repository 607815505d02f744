"""The results as a workbook: from `run --sandbox` to what a person opens, and back into a lost ledger."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pytest
from process import PIPELINE, read_manifest, row, write_rows

if TYPE_CHECKING:
    from process import Cli

#: Two titles that a careless writer makes formulas of, and a gender that does not pass the check.
ROWS = [
    row(1, title='=HYPERLINK("https://evil.example","x")'),
    row(2, title="+49 30 1234", sku="00002"),
    row(3, gender="nobody"),
]


def sheet_of(file: Path) -> Any:
    book = openpyxl.load_workbook(file)
    assert book.sheetnames == ["results"]
    return book["results"]


def lines_of(file: Path) -> list[dict[str, Any]]:
    header, *rows = sheet_of(file).iter_rows()
    return [dict(zip([cell.value for cell in header], cells, strict=True)) for cells in rows]


def told(value: Any) -> str:
    """A cell as the CSV of the same results has it, but for the `'` that only a CSV needs."""
    return "" if value is None else str(value)


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_run_leaves_a_workbook_that_says_what_its_csv_says(project: Path, cli: Cli, layout: str) -> None:
    results = (
        "results:",
        f"  layout: {layout}",
        '  manifest: ["out/{date}.xlsx", out/p.csv]',
        '  download: "out/images/{key}/{label}.{ext}"',
    )
    (project / "p.yaml").write_text(PIPELINE + "\n".join(results), encoding="utf-8")
    write_rows(project, ROWS)
    files = cli("run", "p.yaml", "--sandbox", "--json", code=3).summary["files"]["manifest"]
    book = Path(files[0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.sandbox\.xlsx", book.name)
    assert not [file for file in book.parent.iterdir() if file.name.startswith(".")], "nothing is left beside it"

    found, flat = lines_of(book), read_manifest(Path(files[1]))
    assert [list(line) for line in found] == [list(line) for line in flat]
    for line, expected in zip(found, flat, strict=True):
        numbers = {"lamina_row", "lamina_attempts", "lamina_seconds"}
        assert {n: told(c.value) for n, c in line.items() if n not in numbers} == {
            n: text for n, text in expected.items() if n not in numbers
        }
        assert [line[n].value for n in sorted(numbers)] == [
            float(expected[n]) if expected[n] else None for n in sorted(numbers)
        ]
    assert {line["title"].value for line in found} == {r["title"] for r in ROWS}

    value, file = (
        ("lamina_Front View", "lamina_Front View_file") if layout == "wide" else ("lamina_value", "lamina_file")
    )
    assert found[0][value].value.startswith("http")
    assert found[0][value].hyperlink.target == found[0][value].value
    saved = (book.parent / found[0][file].hyperlink.target.replace("%20", " ")).resolve()
    assert saved == Path(found[0][file].value)
    assert saved.is_file()
    statuses = {line["lamina_status"].value: line["lamina_status"].fill.fgColor.rgb for line in found}
    assert set(statuses) == {"completed", "invalid"}
    assert len(set(statuses.values())) == 2


def test_results_writes_one_on_demand_and_a_lost_ledger_is_made_again_from_it(project: Path, cli: Cli) -> None:
    """The ledger is lost: the workbook stops the run that would buy again, and brings back what was bought."""
    (project / "p.yaml").write_text(f"{PIPELINE}results: {{manifest: p.xlsx}}\n", encoding="utf-8")
    cli("run", "p.yaml", "--sandbox")
    book = project / "p.sandbox.xlsx"
    assert cli("results", "p.yaml", "--sandbox", "-o", "again.XLSX", "--layout", "long").out.strip() == "again.XLSX"
    assert len(lines_of(project / "again.XLSX")) == 12
    before = [{name: cell.value for name, cell in line.items()} for line in lines_of(book)]

    shutil.rmtree(project / ".lamina-batch")
    stopped = cli("run", "p.yaml", "--sandbox", code=5)
    assert "holds 3 rows that were bought" in stopped.err
    cli("state", "import", book, "--pipeline", "p.yaml", "--sandbox")
    assert cli("run", "p.yaml", "--sandbox", "--json").summary["counts"]["submitted"] == 0
    after = [{name: cell.value for name, cell in line.items()} for line in lines_of(book)]
    assert after == before


def test_other_kinds_of_workbook_are_refused_with_the_known_ones(project: Path, cli: Cli) -> None:
    (project / "p.yaml").write_text(f"{PIPELINE}results: {{manifest: out/p.xls}}\n", encoding="utf-8")
    assert ".xlsx" in cli("plan", "p.yaml", "--sandbox", code=2).err
    refused = cli("results", "p.yaml", "--sandbox", "-o", "p.xls", code=2)
    assert ".xlsx" in refused.err
