"""What people take away: manifest, findings, summary, and how the files appear."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import polars as pl
import pytest

import lamina_batch
from lamina_batch.atomic_files import ensure_writable, write_whole
from lamina_batch.errors import StateError, UsageError
from lamina_batch.execution.guards import StopReason
from lamina_batch.execution.plan import ledger_frame
from lamina_batch.results.findings import COLUMNS, write_findings
from lamina_batch.results.manifest import ManifestLines, Outcomes, gather_outcomes, write_manifest
from lamina_batch.results.publish import with_removed_rows
from lamina_batch.results.summary import STATUSES, RequestTotals, Summary, WrittenFiles, exit_code, write_summary
from lamina_batch.sources.table import Catalog

if TYPE_CHECKING:
    from lamina_batch.pipeline.spec import Layout

SCHEMAS = Path(lamina_batch.__file__).parent / "schemas"
HASH = "a" * 64


def catalog() -> Catalog:
    frame = pl.DataFrame(
        {
            "lamina_index": [0, 1, 2, 3],
            "lamina_row": [2, 3, 4, 5],
            "sku": ["0001", "=1+1", "3", "4"],
            "unnamed": ["a,b", 'say "x"', "two\nlines", None],
        },
        schema_overrides={"lamina_index": pl.UInt32, "lamina_row": pl.UInt32},
    )
    return Catalog(frame=frame.lazy(), columns=("sku", "unnamed"), headers=("sku", ""), has_source_column=False)


def jobs() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "lamina_index": [0, 1, 2, 3],
            "row": [2, 3, 4, 5],
            "key": ["0001", "=1+1", "3", None],
            "variant": ["", "", "", ""],
            "inputs": ["{}", "{}", "{}", None],
            "content": [HASH, "b" * 64, "c" * 64, None],
            "valid": [True, True, True, False],
            "code": [None, None, None, "blank_key"],
            "message": [None, None, None, "the key is blank"],
        },
        schema_overrides={"lamina_index": pl.UInt32, "row": pl.UInt32},
    )


def outcomes() -> Outcomes:
    ledger = ledger_frame(
        [
            (1, "0001", "", 1, HASH, "completed", "app", "c", "e1", 1, 0.0, 1.5, 1.5, 0, None, None, 1),
            (2, "other", "", 1, "b" * 64, "completed", "app", "c", "e2", 2, 0.0, 1.5, 1.5, 1, "partial", "1 of 2", 2),
        ]
    )
    outputs = [
        (1, 0, "n1", "AI Designer", "image", "completed", "https://x/1.png", None),
        (1, 1, "n2", "AI Designer", "image", "completed", "https://x/2.png", None),
        (1, 2, "n3", "status", "text", "completed", "=HYPERLINK(1)", None),
        (2, 0, "n1", "AI Designer", "pending", "error", None, "nope"),
    ]
    return gather_outcomes(jobs(), ledger, outputs, app_id="app", share_identical=True)


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_manifest_in_parts_is_the_manifest_at_once(tmp_path: Path, layout: Layout) -> None:
    """Whatever part an output is first seen in."""
    told = outcomes()
    whole = ManifestLines(catalog(), [told], layout).whole()
    files = [tmp_path / f"m{ending}" for ending in (".csv", ".ndjson", ".parquet")]
    once = [
        file.read_bytes() for file in write_manifest(catalog(), ManifestLines(catalog(), [told], layout), files[:2])
    ]
    rows = [told.jobs[at : at + 1] for at in range(told.jobs.height)]
    parts = [Outcomes(jobs=row, outputs=told.outputs.join(row, on="job_id", how="semi")) for row in rows]
    lines = ManifestLines(catalog(), parts, layout)
    assert lines.whole().equals(whole)
    assert [file.read_bytes() for file in write_manifest(catalog(), lines, files)[:2]] == once
    assert pl.read_parquet(files[2]).equals(whole)


def test_the_source_comes_first_byte_for_byte_then_ours(tmp_path: Path) -> None:
    [file] = write_manifest(catalog(), ManifestLines(catalog(), [outcomes()], "wide"), [tmp_path / "m.csv"])
    with file.open(encoding="utf-8", newline="") as opened:
        header, *lines = csv.reader(opened)
    assert header[:4] == ["sku", "", "lamina_row", "lamina_key"]
    assert [line[:2] for line in lines] == [
        ["0001", "a,b"], ["=1+1", 'say "x"'], ["3", "two\nlines"], ["4", ""],
    ]  # fmt: skip
    assert dict(zip(header, lines[0], strict=True))["lamina_submitted_at"] == "1970-01-01T00:00:00.000Z"


def test_our_text_is_no_formula_in_csv_and_untouched_elsewhere(tmp_path: Path) -> None:
    files = [tmp_path / "m.csv", tmp_path / "m.parquet", tmp_path / "m.ndjson"]
    write_manifest(catalog(), ManifestLines(catalog(), [outcomes()], "wide"), files)
    with files[0].open(encoding="utf-8", newline="") as opened:
        lines = list(csv.DictReader(opened))
    assert lines[0]["lamina_status 2"] == "'=HYPERLINK(1)"
    assert lines[1]["sku"] == "=1+1", "their own cell stays as it is"
    assert lines[1]["lamina_key"] == "'=1+1"
    assert pl.read_parquet(files[1])["lamina_status 2"][0] == "=HYPERLINK(1)"
    assert pl.read_ndjson(files[2])["lamina_status 2"][0] == "=HYPERLINK(1)"


def test_a_repeated_label_gets_a_number_and_no_column_of_ours_is_taken() -> None:
    columns = ManifestLines(catalog(), [outcomes()], "wide").whole().columns
    assert columns[-9:] == [
        "lamina_AI Designer", "lamina_AI Designer_file", "lamina_AI Designer_error",
        "lamina_AI Designer 2", "lamina_AI Designer 2_file", "lamina_AI Designer 2_error",
        "lamina_status 2", "lamina_status 2_file", "lamina_status 2_error",
    ]  # fmt: skip


def test_a_failed_output_has_an_error_and_no_value() -> None:
    line = ManifestLines(catalog(), [outcomes()], "wide").whole().row(1, named=True)
    assert (line["lamina_status"], line["lamina_AI Designer"], line["lamina_AI Designer_error"]) == (
        "partial", None, "nope",
    )  # fmt: skip
    assert line["lamina_reused_from"] == "other"


def test_every_job_is_in_it_whatever_became_of_it() -> None:
    frame = ManifestLines(catalog(), [outcomes()], "wide").whole()
    assert frame["lamina_status"].to_list() == ["completed", "partial", "planned", "invalid"]
    assert frame["lamina_code"].to_list() == [None, "partial", None, "blank_key"]


def test_the_long_layout_has_a_line_per_output_and_one_for_a_job_without() -> None:
    frame = ManifestLines(catalog(), [outcomes()], "long").whole()
    assert frame["lamina_key"].to_list() == ["0001", "0001", "0001", "=1+1", "3", None]
    assert frame["lamina_output_id"].to_list() == ["n1", "n2", "n3", "n1", None, None]


def test_each_line_fits_the_published_schema(tmp_path: Path) -> None:
    schema = json.loads((SCHEMAS / "manifest.schema.json").read_text())
    for layout in ("wide", "long"):
        [file] = write_manifest(
            catalog(), ManifestLines(catalog(), [outcomes()], layout), [tmp_path / f"{layout}.ndjson"]
        )
        for line in file.read_text().splitlines():
            jsonschema.validate(json.loads(line), schema)


def test_a_failure_does_not_take_away_what_the_same_inputs_made_before() -> None:
    ledger = ledger_frame(
        [
            (1, "0001", "", 1, HASH, "completed", "app", "c", "e1", 1, 0.0, 1.5, 1.5, 0, None, None, 1),
            (2, "0001", "", 2, HASH, "failed", "app", "c", "e2", 1, 0.0, 1.5, 1.5, 0, "failed", "no luck", 2),
        ]
    )
    outputs = [(1, 0, "n1", "Front", "image", "completed", "https://x/1.png", None)]
    again = gather_outcomes(jobs(), ledger, outputs, app_id="app", share_identical=True)
    line = ManifestLines(catalog(), [again], "wide").whole().row(0, named=True)
    assert (line["lamina_status"], line["lamina_execution_id"], line["lamina_Front"]) == (
        "failed", "e2", "https://x/1.png",
    )  # fmt: skip
    assert line["lamina_message"] == "no luck; the outputs are those of an earlier execution"
    assert line["lamina_attempts"] == 2


def test_a_place_that_cannot_take_a_file_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "dir.csv").mkdir()
    (tmp_path / "file").write_text("")
    for file in (tmp_path / "dir.csv", tmp_path / "file" / "x.csv"):
        with pytest.raises(StateError):
            ensure_writable(file)
    ensure_writable(tmp_path / "new" / "x.csv")
    assert not list((tmp_path / "new").iterdir())


def test_findings_are_written_in_the_pinned_columns(tmp_path: Path) -> None:
    findings = pl.DataFrame([{**dict.fromkeys(COLUMNS, "=x"), "row": 3}])
    file = write_findings(findings, tmp_path / "f.csv")
    assert file.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert "'=x" in file.read_text()
    assert json.loads(write_findings(findings, tmp_path / "f.ndjson").read_text())["key"] == "=x"
    with pytest.raises(UsageError, match=r"\.csv or \.ndjson"):
        write_findings(findings, tmp_path / "f.xlsx")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "x.csv"

    def put_first(aside: Path) -> None:
        aside.write_text("first")

    write_whole(file, put_first)

    def fail(aside: Path) -> None:
        aside.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StateError, match="No space left"):
        write_whole(file, fail)
    assert file.read_text() == "first"
    assert [f.name for f in file.parent.iterdir()] == ["x.csv"], "nothing half written is left"


def test_what_only_the_ledger_knows_follows_in_its_newest_revision() -> None:
    ledger = ledger_frame(
        [
            (1, "gone", "", 1, "d" * 64, "completed", "app", "c", "e1", 1, 0.0, 1.5, 1.5, 0, None, None, 1),
            (2, "0001", "", 1, "e" * 64, "completed", "app", "c", "e2", 1, 0.0, 1.5, 1.5, 0, None, None, 2),
            (3, "0001", "Size=XL", 1, HASH, "failed", "app", "c", "e3", 1, 0.0, 1.5, 1.5, 0, "x", "it broke", 3),
            (4, "never sent", "", 1, "f" * 64, "planned", "app", "c", None, 0, None, None, None, 0, None, None, 4),
            (5, "gone", "", 2, "f" * 64, "completed", "app", "c", "e5", 1, 0.0, 1.5, 1.5, 0, None, None, 5),
        ]
    )
    outcomes = gather_outcomes(with_removed_rows(jobs(), ledger), ledger, [], app_id="app", share_identical=True)
    told = outcomes.jobs.select("lamina_index", "key", "variant", "status", "execution_id").rows()
    assert told[4:] == [(None, "0001", "Size=XL", "failed", "e3"), (None, "gone", "", "completed", "e5")]
    assert with_removed_rows(jobs(), ledger.clear()).rows() == jobs().rows()


def test_a_row_that_is_invalid_now_does_not_hide_what_was_bought_for_it() -> None:
    """A label was renamed, so its content cannot be made any more; the last try before that failed."""
    ledger = ledger_frame(
        [
            (1, "0001", "", 1, HASH, "completed", "app", "c", "e1", 1, 0.0, 1.5, 1.5, 0, None, None, 1),
            (2, "3", "", 1, "c" * 64, "completed", "app", "c", "e2", 1, 0.0, 1.5, 1.5, 0, None, None, 2),
            (3, "3", "", 2, "d" * 64, "failed", "app", "c", "e3", 1, 0.0, 1.5, 1.5, 0, "x", "it broke", 3),
        ]
    )
    bad = pl.col("key") == "3"
    now = jobs().with_columns(
        valid=pl.col("valid") & ~bad, content=pl.when(~bad).then("content"), code=pl.when(bad).then(pl.lit("choice"))
    )
    outcomes = gather_outcomes(with_removed_rows(now, ledger), ledger, [], app_id="app", share_identical=True)
    told = outcomes.jobs.select("lamina_index", "key", "status", "execution_id").rows()
    assert told[2] == (2, "3", "invalid", None)
    assert told[4:] == [(None, "3", "completed", "e2")]


def summary(**counts: int) -> Summary:
    return Summary(
        schema_version=1,
        pipeline="p",
        run_id="r",
        exit_code=0,
        stopped_by=None,
        counts={"rows": 0, "jobs": 0, "submitted": 0, "unchanged": 0, "new_problems": 0}
        | dict.fromkeys(STATUSES, 0)
        | counts,
        requests=RequestTotals(total=0, submit=0, poll=0, other=0, rate_limited=0, per_ended=None),
        seconds=0.0,
        least_seconds=0.0,
        credits=None,
        files=WrittenFiles(manifest=("/x.csv",), report=None, findings=None),
    )


def test_the_summary_fits_the_published_schema(tmp_path: Path) -> None:
    schema = json.loads((SCHEMAS / "summary.schema.json").read_text())
    file = write_summary(summary(), tmp_path)
    assert file == tmp_path / "runs" / "r" / "summary.json"
    jsonschema.validate(json.loads(file.read_text()), schema)
    assert set(schema["properties"]["stopped_by"]["enum"]) == {None, *StopReason}


@pytest.mark.parametrize(
    ("counts", "stopped_by", "signal", "code"),
    [
        ({"completed": 3}, None, None, 0),
        ({"planned": 3}, None, None, 0),
        ({"running": 3}, None, None, 0),
        ({"completed": 3, "invalid": 1}, None, None, 3),
        ({"failed": 1}, None, None, 3),
        ({"partial": 1}, None, None, 3),
        ({"rejected": 1}, None, None, 3),
        ({"timed_out": 1}, None, None, 3),
        ({"invalid": 1}, StopReason.INVALID_ROWS, None, 4),
        ({"invalid": 1}, StopReason.CREDITS, None, 5),
        ({}, StopReason.MAX_EXECUTIONS, None, 5),
        ({}, StopReason.CANARY, None, 5),
        ({}, StopReason.MAX_FAILURES, None, 5),
        ({"held": 1, "failed": 1}, StopReason.CREDITS, None, 6),
        ({"held": 1}, StopReason.REFUSED, None, 1),
        ({}, StopReason.UNREACHABLE, None, 1),
        ({"held": 1}, StopReason.SIGNAL, 2, 130),
        ({"held": 1}, StopReason.SIGNAL, 15, 143),
    ],
)
def test_one_exit_code_for_all_that_happened(
    counts: dict[str, int], stopped_by: StopReason | None, signal: int | None, code: int
) -> None:
    assert exit_code(counts, stopped_by, signal=signal) == code
