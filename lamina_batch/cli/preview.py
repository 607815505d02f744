"""The commands that look ahead and spend nothing: validate and plan."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lamina_batch.cli.options import pipeline_options, run_blocking, runtime, start_options
from lamina_batch.cli.shell import Command, out, out_all, say
from lamina_batch.errors import UsageError

if TYPE_CHECKING:
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runs.bootstrap import PipelineTarget
    from lamina_batch.runs.context import RunRequest
    from lamina_batch.runs.preview import Preview


@click.command(cls=Command)
@pipeline_options
@click.option(
    "--findings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write them to FILE too: .csv, .ndjson, or .xlsx for the sheet itself with its bad cells marked.",
)
@click.option("--offline", is_flag=True, help="Check against the pin instead of the live app: no key, no network.")
@click.option(
    "--check-images",
    is_flag=True,
    help="Ask every image and video URL too, also with --sandbox: is it there, is it an image, and large enough?",
)
def validate(call: PipelineTarget, *, findings: Path | None, offline: bool, check_images: bool) -> None:
    """Check the file, the app's live schema and every row, and spend nothing.

    Exits 3 when there are findings that would keep a row from being run; warnings do not count. Exits 8 when the app
    has changed since its pin, or the last run, in a way that breaks this pipeline.

    \b
    Examples:
      lamina-batch validate catalog.yaml --findings findings.csv
      lamina-batch validate catalog.yaml --findings to-mend.xlsx
      lamina-batch validate catalog.yaml --offline
      lamina-batch validate catalog.yaml --check-images
    """
    from lamina_batch.cli.progress import ProgressCounter, finding_lines
    from lamina_batch.pipeline.sheet_reference import WORKBOOK_EXTENSIONS
    from lamina_batch.results.findings import write_findings, write_marked
    from lamina_batch.results.publish import refuse_source
    from lamina_batch.runs.preview import validate as validate_rows
    from lamina_batch.runs.preview import validate_offline

    pipeline = call.load()
    if findings is not None:
        refuse_source(pipeline, findings)
    if offline and check_images:
        raise UsageError("--check-images asks the hosts of the pictures, and --offline asks no host", hint="give one")
    if offline:
        prepared = validate_offline(pipeline)
    else:
        here = runtime()
        tally = ProgressCounter(
            "URLs asked", say=say, now=here.now, terminal=sys.stderr is not None and sys.stderr.isatty()
        )
        with call.access(pipeline) as access, tally:
            prepared = validate_rows(pipeline, access, here, on_progress=tally.on_progress if check_images else None)
    checked = prepared.checked
    for note in prepared.notes:
        say(f"note: {note}")
    for some in checked.findings.iter_slices():
        marks = ["" if severity == "error" else "warning: " for severity in some["severity"]]
        out_all([mark + line for mark, line in zip(marks, finding_lines(some), strict=True)])
    bad = checked.jobs.filter(~checked.jobs["valid"])["lamina_index"].n_unique()
    rows = checked.jobs["lamina_index"].n_unique()
    if findings is not None:
        if findings.suffix.lower() in WORKBOOK_EXTENSIONS:
            written = write_marked(checked, findings, catalog=prepared.catalog, pipeline=pipeline, app=prepared.app)
        else:
            written = write_findings(checked.findings, findings)
        say(f"findings: {written}")
    skipped = f", {checked.skipped_rows} left out by blank: skip_row" if checked.skipped_rows else ""
    say(f"{pipeline.name}: {rows} rows checked against {prepared.app.name!r}, {bad} invalid{skipped}")
    sys.exit(3 if bad else 0)


@click.command(cls=Command)
@pipeline_options
@start_options
@click.option("--explain", is_flag=True, help="Say for each row what would happen and why.")
def plan(
    call: PipelineTarget,
    *,
    request: RunRequest,
    explain: bool,
) -> None:
    """Say what a run would do and cost, and do nothing.

    \b
    Example:
      lamina-batch plan catalog.yaml --explain
    """
    from lamina_batch.runs.preview import preview as preview_run

    request = replace(request, explain=explain)
    pipeline = call.load()
    with call.access(pipeline) as access:
        preview = run_blocking(preview_run(pipeline, access, runtime(), request))
    for note in preview.prepared.notes:
        say(f"note: {note}")
    _print_plan(pipeline, preview)
    if explain:
        _print_explanations(preview)


def _print_plan(pipeline: Pipeline, preview: Preview) -> None:
    frame = preview.plan.frame
    out(f"{pipeline.name}: {frame['lamina_index'].n_unique()} rows, {frame.height} jobs")
    for (action, reason), count in preview.plan.reasons().items():
        out(f"  {count:>7}  {action.replace('_', ' ')}" + (f" ({reason})" if reason != action else ""))
    for parameter, count in preview.prepared.checked.app_defaults:
        out(f"  {count:>7}  jobs take the app's own default for {parameter!r}")
    out(f"executions to start: {preview.executions} (max_executions is {pipeline.run.max_executions})")
    for completion, forecast in preview.forecasts.items() if preview.executions else ():
        chosen = " (as run.completion says)" if completion == pipeline.run.completion else ""
        least = f"{forecast.least_requests} requests and {_format_duration(forecast.least_seconds)} at the least"
        if forecast.requests is None or forecast.seconds is None:
            out(f"by {completion}{chosen}: {least}; how long this app takes is not known yet")
        else:
            likely = f"about {forecast.requests} requests and {_format_duration(forecast.seconds)}"
            out(f"by {completion}{chosen}: {likely}; {least}")
    if preview.executions > pipeline.run.max_executions:
        out("a run would start nothing: use --yes or --limit N, or raise run.max_executions")
    if preview.stopped is not None:
        out(f"a run would start nothing: {preview.stopped.why}; look at its manifest, then use --yes or --retry-failed")
    if preview.credits is not None:
        out(f"credits: {preview.credits:g}")


def _format_duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _print_explanations(preview: Preview) -> None:
    columns = ("row", "key", "variant", "action", "reason", "message", "was_key", "was_variant")
    for row, key, variant, action, reason, message, was_key, was_variant in preview.plan.frame.select(
        columns
    ).iter_rows():
        name = f"{key}/{variant}" if variant else key
        why = message if action == "invalid" else reason
        if name in preview.changed:
            why = f"changed: {', '.join(preview.changed[name]) or 'asked for in another way'}"
        if was_key is not None and (was_key, was_variant) != (key, variant):
            why += f", as bought for {was_key}/{was_variant}" if was_variant else f", as bought for {was_key}"
        out(f"row {row}  {name}: {action.replace('_', ' ')}: {why}")
