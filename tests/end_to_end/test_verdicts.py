"""Verdicts saved from the report, given to `run`; and the report as a file among the results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from process import PIPELINE, Cli, read_manifest, row, write_rows

if TYPE_CHECKING:
    from pathlib import Path


def picks_of(folder: Path, **changes: str) -> dict[str, Any]:
    """A file that rejects the first row of a manifest of the sandbox."""
    line = read_manifest(folder / "out" / "p.sandbox.csv")[0]
    pick = {
        "key": line["lamina_key"],
        "variant": "",
        "inputs_sha256": line["lamina_inputs_sha256"],
        "execution_id": line["lamina_execution_id"],
        "verdict": "reject",
        "note": "",
    }
    head = {"format": "lamina-batch picks", "version": 1, "pipeline": "p", "app": line["lamina_app_id"]}
    return {**head, "service": "sandbox", "picks": [pick | {k: v for k, v in changes.items() if k in pick}]} | {
        k: v for k, v in changes.items() if k not in pick
    }


def test_a_file_that_does_not_fit_is_refused_before_anything_is_bought(project: Path, cli: Cli) -> None:
    cli("run", "p.yaml", "--sandbox")
    file = project / "picks.json"

    def refused(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        return cli("run", "p.yaml", "--sandbox", "--rerun-file", file, code=2).err

    assert "it is not JSON" in refused("sku\n00001\n")
    assert "no file of verdicts" in refused('{"rows": []}')
    assert "2 was expected" not in refused(json.dumps(picks_of(project) | {"version": 2}))
    assert "of the pipeline 'other'" in refused(json.dumps(picks_of(project, pipeline="other")))
    assert "of the service 'https://x'" in refused(json.dumps(picks_of(project, service="https://x")))
    assert "no row has the key '00009'" in refused(json.dumps(picks_of(project, key="00009")))
    twice = picks_of(project)
    assert "judged twice" in refused(json.dumps(twice | {"picks": twice["picks"] * 2}))


def test_a_row_that_changed_since_is_left_to_the_plain_rules(project: Path, cli: Cli) -> None:
    cli("run", "p.yaml", "--sandbox")
    file = project / "picks.json"
    file.write_text(json.dumps(picks_of(project)), encoding="utf-8")
    write_rows(project, [row(1, title="A better title"), row(2, title="New too"), row(3)])
    ran = cli("run", "p.yaml", "--sandbox", "--rerun-file", file, "--json")
    assert "1 row changed since" in ran.err
    assert ran.summary["counts"]["submitted"] == 1, "its new inputs, and not those of the row that nobody rejected"
    again = cli("run", "p.yaml", "--sandbox", "--rerun-file", file, "--json")
    assert again.summary["counts"]["submitted"] == 0


def test_a_verdict_on_what_this_ledger_never_had_buys_nothing(project: Path, cli: Cli) -> None:
    cli("run", "p.yaml", "--sandbox")
    file = project / "picks.json"
    for change in ({"execution_id": "00000000-0000-4000-8000-000000000000"}, {"inputs_sha256": "f" * 64}):
        file.write_text(json.dumps(picks_of(project, **change)), encoding="utf-8")
        told = cli("plan", "p.yaml", "--sandbox", "--rerun-file", file)
        assert "00001: this verdict is about a picture that this ledger does not know" in told.err
        assert "executions to start: 0" in told.out


def test_a_report_that_cannot_be_written_loses_nothing_else(project: Path, cli: Cli) -> None:
    (project / "p.yaml").write_text(PIPELINE + "results: {report: out/report.html}\n", encoding="utf-8")
    page = project / "out" / "report.sandbox.html"
    cli("run", "p.yaml", "--sandbox")
    assert page.exists()
    page.unlink()
    page.mkdir()
    refused = cli("run", "p.yaml", "--sandbox", code=1)
    assert "report.sandbox.html" in refused.err
    page.rmdir()
    assert str(page) in cli("results", "p.yaml", "--sandbox").out
    assert page.exists()
    write_rows(project, [row(2), row(3)])
    cli("results", "p.yaml", "--sandbox", "-o", "look.html", "--include-removed")
    assert "images.example.com/00003" in (project / "look.html").read_text(encoding="utf-8")
    assert '"key":"00001"' in (project / "look.html").read_text(encoding="utf-8")
    rows = cli("run", "p.yaml", "--sandbox", "--set", "rows.from=*.csv", "--set", "results.report=x.csv", code=2)
    assert "known: .html, .htm" in rows.err
