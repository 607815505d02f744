"""Findings as a file: a line per bad cell, with the columns of docs/results.md, "findings.csv"."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.atomic_files import write_whole
from lamina_batch.errors import UsageError
from lamina_batch.results.text import escape_formula

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog

_CSV_BATCH_ROWS = 50_000
COLUMNS = ("row", "key", "column", "parameter", "value", "code", "severity", "message", "hint")


def write_findings(findings: pl.DataFrame, file: Path) -> Path:
    """Write findings as .csv or .ndjson. Raises UsageError for another ending, StateError where it cannot."""
    columns = [*COLUMNS, *(["source"] if "source" in findings.columns else [])]
    table = findings.select(columns)
    match file.suffix.lower():
        case ".csv":
            return write_whole(file, partial(_write_csv, table))
        case ".ndjson" | ".jsonl":
            return write_whole(file, table.lazy().sink_ndjson)
        case other:
            raise UsageError(
                f"findings cannot be written as {other or 'a file without an ending'!r}",
                where=str(file),
                hint="use .csv or .ndjson, or .xlsx for the sheet itself with its cells marked",
            )


def _write_csv(table: pl.DataFrame, file: Path) -> None:
    texts = [name for name in table.columns if name != "row"]
    with file.open("wb") as out:
        table.clear().write_csv(out)
        # In slices, so that the memory it takes does not grow with them.
        for some in table.iter_slices(_CSV_BATCH_ROWS):
            safe = some.with_columns(escape_formula(pl.col(name)).alias(name) for name in texts)
            safe.write_csv(out, include_header=False)


def write_marked(checked: CheckedRows, file: Path, *, catalog: Catalog, pipeline: Pipeline, app: App) -> Path:
    """Write the workbook that the findings are about again, its bad cells marked.

    Raises UsageError if it cannot be marked, or not under this name; StateError where it cannot be written.
    """
    # What they import takes longer than many a command.
    from lamina_batch.sheets.annotate import annotate, refuse_source_name  # noqa: PLC0415
    from lamina_batch.sheets.fields import fields  # noqa: PLC0415

    refuse_source_name(catalog, file)
    taken = fields(pipeline, app, catalog)
    return write_whole(file, lambda aside: annotate(checked, aside, catalog=catalog, fields=taken))
