"""The merchandiser's loop: a workbook to fill, their workbook back with the mistakes marked, and a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import openpyxl

if TYPE_CHECKING:
    from pathlib import Path

    from process import Cli

FRONT = "https://images.example.com/{}.jpg"


def test_a_sheet_is_made_for_rows_that_are_there_and_never_over_another(project: Path, cli: Cli) -> None:
    made = cli("sheet", "p.yaml", "-o", "to-fill.xlsx", "--sandbox")
    assert made.out == "to-fill.xlsx\n"
    assert "3 rows" in made.err
    assert openpyxl.load_workbook(project / "to-fill.xlsx")["Products"].max_row == 4
    assert "somebody may have filled it" in cli("sheet", "p.yaml", "-o", "to-fill.xlsx", "--sandbox", code=2).err
    cli("sheet", "p.yaml", "-o", "to-fill.xlsx", "--sandbox", "--empty", "--replace")
    assert openpyxl.load_workbook(project / "to-fill.xlsx")["Products"].max_row == 1
