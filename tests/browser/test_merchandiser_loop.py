"""The merchandiser's loop, whole: a sheet filled, marked, mended and run; pictures judged; the rejected made again."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import openpyxl
import pytest
from browser_support import opened
from merchandiser import PIPELINE, PRODUCTS, fill, judge, marked, mend

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from playwright.sync_api import Browser
    from process import Cli

#: openpyxl would lose what it does not know of ours, and says so: so would a person's old program.
pytestmark = pytest.mark.filterwarnings("ignore:.*extension is not supported:UserWarning")


def accepted(folder: Path) -> list[str]:
    """The titles that the sandbox's own log says were accepted, in their order."""
    log = folder / ".lamina-batch" / "autumn.sandbox" / "service" / "executions.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line)["inputs"]["Prompt"].partition(" in ")[0] for line in lines]


def test_from_an_empty_sheet_to_pictures_that_somebody_approved(browser: Browser, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "autumn.yaml").write_text(PIPELINE, encoding="utf-8")
    cli("sheet", "autumn.yaml", "-o", "autumn.xlsx", "--sandbox")
    fill(tmp_path / "autumn.xlsx")

    ran = cli("validate", "autumn.yaml", "--sandbox", "--findings", "marked.xlsx", code=3)
    assert "6 rows checked against 'Premium Catalog 1.0', 3 invalid" in ran.err
    assert marked(tmp_path / "marked.xlsx") == {
        "B3": "",
        "B5": "images.example.com/autumn/04714.jpg",
        "D6": "Men",
    }
    mend(tmp_path / "marked.xlsx")
    shutil.move(tmp_path / "marked.xlsx", tmp_path / "autumn.xlsx")
    assert cli("validate", "autumn.yaml", "--sandbox").out == ""
    assert accepted(tmp_path) == [], "nothing was bought yet"

    ran = cli("run", "autumn.yaml", "--sandbox", "--json")
    assert ran.summary["counts"]["completed"] == len(PRODUCTS)
    assert sorted(accepted(tmp_path)) == sorted(title for _, _, title, _ in PRODUCTS.values())
    results = openpyxl.load_workbook(tmp_path / "autumn-results.sandbox.xlsx")["results"]
    lines = [dict(zip(_values(results[1]), cells, strict=True)) for cells in results.iter_rows(min_row=2)]
    assert [line["Style number *"].value for line in lines] == list(PRODUCTS)
    for line in lines:
        assert line["lamina_status"].value == "completed"
        link = line["lamina_Front View_file"].hyperlink
        assert link is not None
        assert (tmp_path / unquote(link.target or "")).read_bytes().startswith(b"\x89PNG")

    [drawn, *_] = (tmp_path / "pictures").rglob("*.png")
    with opened(browser, tmp_path / "autumn.sandbox.html", web=drawn.read_bytes()) as watched:
        watched.page.locator(".outputs img.there").first.wait_for()
        judge(watched.page, "04711", "p")
        judge(watched.page, "04713", "r", "too dark: we sell this in daylight")
        judge(watched.page, "04716", "r")
        with watched.page.expect_download() as download:
            watched.page.get_by_role("button", name="Save verdicts").click()
        download.value.save_as(tmp_path / "autumn-picks.json")
        assert watched.complaints == []

    again = cli("run", "autumn.yaml", "--sandbox", "--rerun-file", "autumn-picks.json", "--json")
    assert again.summary["counts"]["submitted"] == 2
    assert sorted(accepted(tmp_path)[len(PRODUCTS) :]) == ["Overshirt “Porto”", "Pleated Skirt “Ines”"]


def _values(cells: Iterable[Any]) -> list[str]:
    return [cell.value for cell in cells]
