"""The command that writes down again what a run has written: results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina_batch.cli.options import pipeline_options, run_blocking, runtime
from lamina_batch.cli.shell import Command, out, say
from lamina_batch.errors import UsageError

if TYPE_CHECKING:
    from lamina_batch.runs.bootstrap import PipelineTarget

_PAGES = {".html", ".htm"}


@click.command(cls=Command)
@pipeline_options
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE…",
    help="Write here (.csv, .xlsx, .parquet, .ndjson, or .html for the report) instead of where the pipeline says.",
)
@click.option("--layout", type=click.Choice(["wide", "long"]), help="Instead of the pipeline's.")
@click.option(
    "--include-removed",
    is_flag=True,
    help="Add, behind the rows, what was bought for rows that are gone, left out by `where` or invalid now.",
)
def results(call: PipelineTarget, *, outputs: tuple[Path, ...], layout: Any, include_removed: bool) -> None:
    """Write the manifest and the report again, from the ledger and the rows, and save the files that are missing.

    The service itself is not asked for anything.

    \b
    Example:
      lamina-batch results catalog.yaml -o today.parquet --layout long
      lamina-batch results catalog.yaml -o look.html
    """
    from lamina_batch.runs.republish import republish

    pipeline = call.load()
    for file in outputs:
        if file.suffix.lower() not in {".csv", ".xlsx", ".parquet", ".ndjson", ".jsonl", *_PAGES}:
            raise UsageError("a manifest is .csv, .xlsx, .parquet or .ndjson, a report .html", where=str(file))
    pages = [file for file in outputs if file.suffix.lower() in _PAGES]
    if len(pages) > 1:
        raise UsageError("one report is written at a time", where=str(pages[1]))
    manifests = [file for file in outputs if file not in pages] if outputs else pipeline.results.manifest
    written, failed = run_blocking(
        republish(
            pipeline,
            manifests,
            layout or pipeline.results.layout,
            runtime(),
            include_removed=include_removed,
            report=(pages[0] if pages else None) if outputs else pipeline.results.report,
        )
    )
    for file in written:
        out(str(file))
    if failed:
        say(f"{failed} files could not be saved; the manifest says why")
    sys.exit(3 if failed else 0)
