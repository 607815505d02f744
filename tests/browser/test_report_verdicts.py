"""From a run to the page, from the page to a file, from the file to another run: what was rejected is made again."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from browser_support import opened
from process import PIPELINE, row, write_rows

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser
    from process import Cli

REPORTED = (
    PIPELINE
    + """\
name: autumn
matrix:
  Location: [Studio, Park]
results:
  manifest: out/autumn.csv
  report: out/{date}/autumn.html
  download: "out/pictures/{key}/{variant}/{label}.{ext}"
"""
)


def reported(folder: Path) -> Path:
    [page] = (folder / "out").glob("*/autumn.sandbox.html")
    return page


def accepted(folder: Path) -> list[tuple[str, str]]:
    """What the sandbox's own log says was accepted: number of the dress, location."""
    log = folder / ".lamina-batch" / "p.sandbox" / "service" / "executions.jsonl"
    lines = [json.loads(line)["inputs"] for line in log.read_text().splitlines()]
    return [(re.sub(r"\D", "", line["Prompt"]), line["Location"]) for line in lines]


def test_exactly_what_was_rejected_runs_again(browser: Browser, project: Path, cli: Cli) -> None:
    (project / "p.yaml").write_text(REPORTED, encoding="utf-8")
    write_rows(project, [row(number) for number in range(1, 6)])
    ran = cli("run", "p.yaml", "--sandbox", "--json")
    assert ran.summary["files"]["report"] == str(reported(project))
    assert len(accepted(project)) == 10

    [drawn, *_] = (project / "out" / "pictures").rglob("*.png")
    with opened(browser, reported(project), web=drawn.read_bytes()) as watched:
        page = watched.page
        page.locator(".outputs img.there").first.wait_for()
        made = page.locator(".outputs img").evaluate_all("all => all.map(one => one.getAttribute('src'))")
        assert made[0] == "./../pictures/00001/Location%3DStudio/Front%20View.sandbox.png", "the folder may be moved"
        for key, location, verdict in (("00002", "Park", "r"), ("00004", "Studio", "r"), ("00005", "Park", "p")):
            one = page.locator(".card").filter(has_text=key).filter(has_text=location)
            one.evaluate("card => card.focus()")
            page.keyboard.press(verdict)
        with page.expect_download() as download:
            page.get_by_role("button", name="Save verdicts").click()
        advice = page.locator("#saved-command").inner_text()
        assert advice == "lamina-batch run p.yaml --rerun-file autumn-picks.json --sandbox"
        picks = project / "autumn-picks.json"
        download.value.save_as(picks)
        assert watched.complaints == []
        own = {url.partition("/out/")[2] for url in watched.requests if url.startswith("file:")}
        others = {url for url in watched.requests if not url.startswith("file:")}
        assert all(re.fullmatch(r"[0-9-]+/autumn.sandbox.html|pictures/.*\.sandbox\.png", path) for path in own), own
        assert all(re.fullmatch(r"https://images\.example\.com/\S+\.jpg", url) for url in others), "the sources only"

        told = cli("plan", "p.yaml", "--sandbox", "--rerun-file", picks)
        assert "executions to start: 2" in told.out
        again = cli("run", "p.yaml", "--sandbox", "--rerun-file", picks, "--json")
        assert again.summary["counts"]["submitted"] == 2
        assert accepted(project)[10:] == [("2", "Park"), ("4", "Studio")]
        once_more = cli("run", "p.yaml", "--sandbox", "--rerun-file", picks, "--json")
        assert once_more.summary["counts"]["submitted"] == 0, "the same file buys nothing twice"
        assert "2 rows sent again since" in once_more.err

        page.reload()
        page.locator(".outputs img.there").first.wait_for()
        assert page.get_by_text("Rejected before it was made again").count() == 2
        assert page.locator(".is-pick").count() == 1
        assert page.locator(".is-reject").count() == 0, "what is new is yet to be judged"
