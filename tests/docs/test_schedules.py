"""Nights in which not all is well, on the examples of docs/cron.md as they stand there."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from process import TOP, environment

from docs.markdown import Block, blocks
from docs.readers import prepare
from docs.runners import Page
from docs.schedules import cron_line, home_of, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCKS = list(blocks(TOP / "docs" / "cron.md"))


def block(runner: str) -> Block:
    (found,) = [one for one in BLOCKS if one.runner == runner]
    return found


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """Somebody who has done what the page says, with a service of their own."""
    folder, aside = tmp_path / "reader", tmp_path / "aside"
    folder.mkdir()
    aside.mkdir()
    one = Page(folder=folder, aside=aside, env=environment(LAMINA_API_KEY="lma_key_of_a_reader"))
    prepare(one)
    home_of(one)
    (env,) = [found for found in BLOCKS if found.said.get("file") == "env"]
    (folder / "env").write_text(env.text)
    one.serve("--data", str(aside / "service"))
    yield one
    one.close()


def bought(page: Page) -> int:
    log = page.aside / "service" / "executions.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_cron_mails_when_something_is_wrong_and_only_then(page: Page) -> None:
    crontab = block("crontab")
    rows = (page.folder / "products.csv").read_text()
    (page.folder / "products.csv").write_text(rows.replace("https://images.example.com/00124-front.jpg", "no address"))
    mail = cron_line(crontab, page).stdout
    assert mail.startswith("exit code 3\n")
    assert "row 3 (00124)" in mail
    (page.folder / "products.csv").write_text(rows)
    assert cron_line(crontab, page).stdout == ""
    assert bought(page) == 5
    (page.folder / "env").write_text("LAMINA_API_KEY=lma_revoked_key\n")
    assert cron_line(crontab, page).stdout.startswith("exit code 1\n")


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_workflow_keeps_the_ledger_from_night_to_night(page: Page) -> None:
    workflow = block("workflow")
    assert run_job(workflow, page, night=0).codes == {}, "there is no branch for the ledger yet"
    assert bought(page) == 0
    (create,) = [one for one in BLOCKS if one.text.startswith("git push origin")]
    page.shell(create.text)
    first = run_job(workflow, page, night=1, dies_after="Keep the ledger of what was submitted")
    assert list(first.codes.values()) == [0, 0], first.said
    assert bought(page) == 5
    second = run_job(workflow, page, night=2)
    assert list(second.codes.values()) == [0] * 4, second.said
    third = run_job(workflow, page, night=3)
    assert list(third.codes.values()) == [0] * 4, third.said
    assert bought(page) == 5
    kept = page.aside / "runner-3"
    assert (kept / "out" / "catalog.csv").read_text().count(",completed,") == 5
    log = subprocess.run(
        ["git", "log", "--oneline", "ledger"], cwd=page.aside / "origin.git", capture_output=True, text=True, check=True
    )
    assert log.stdout.count("\n") == 1
    runs = sorted((kept / ".lamina-batch" / "catalog" / "runs").iterdir())
    assert len(runs) == 5
    assert json.loads((runs[-1] / "summary.json").read_text())["counts"]["unchanged"] == 5
