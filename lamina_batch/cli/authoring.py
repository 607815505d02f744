"""The commands that make files for people to fill: init and sheet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lamina_batch.cli.apps import fetch_pin
from lamina_batch.cli.options import (
    PipelineTarget,
    RedactingServiceOptions,
    pipeline_options,
    run_blocking,
    runtime,
    service_options,
)
from lamina_batch.cli.shell import Command, out, say
from lamina_batch.errors import UsageError

if TYPE_CHECKING:
    from lamina_batch.authoring.init import Draft


@click.command(cls=Command)
@click.option("--app", "app_id", metavar="ID", help="The app, by its id.")
@click.option("--search", metavar="WORDS", help="The app, by words that the service finds it for.")
@click.option(
    "--rows", metavar="FILE", help="Your product rows (.csv .tsv .xlsx .parquet .ndjson): columns are matched by name."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.yaml",
    help="The pipeline file to write (default: named after the rows, or the app).",
)
@click.option("--name", metavar="TEXT", help="A label for people (default: the file's name).")
@service_options
def init(
    *,
    app_id: str | None,
    search: str | None,
    rows: str | None,
    output: Path | None,
    name: str | None,
    sandbox: bool,
    base_url: str | None,
) -> None:
    """Write a first pipeline file for an app, with a pin of the app and a schema for editors beside it.

    With --rows, what plainly fits is matched and the rest is marked FILL_IN: nothing runs before that is gone. Without,
    a spreadsheet to fill is made, with a column for each input. Nothing that is there already is overwritten.

    \b
    Examples:
      lamina-batch init --app bbb17293-5fe7-4645-8c6e-0745bc28254d --rows products.csv
      lamina-batch init --search "try on" --sandbox
    """
    from lamina_batch.authoring.init import default_name, draft, refuse_existing_files, write_files

    if (app_id is None) == (search is None):
        raise UsageError("which app is it for?", hint="give --app ID, or --search WORDS")
    if output is not None and output.suffix.lower() not in {".yaml", ".yml"}:
        raise UsageError("a pipeline file is .yaml", where=str(output), hint="name it FILE.yaml")
    service = RedactingServiceOptions(sandbox=sandbox, base_url=base_url)
    pin = fetch_pin(app_id if app_id is not None else _choose_app(search or "", service), service)
    file = (output or Path(f"{default_name(pin.app, rows)}.yaml")).absolute()
    made = draft(pin, file, name=name, rows=rows)
    refuse_existing_files(made, pin)
    for written in write_files(made, pin):
        out(_display_path(written))
    if made.catalog is None:
        out(_display_path(_write_fill_sheet(made, service)))
    _print_next_steps(made, service)


def _choose_app(search: str, service: RedactingServiceOptions) -> str:
    """The id of the app that is meant; asks at a terminal where several are found. Raises UsageError elsewhere."""
    from lamina_batch.runs.service import ask as ask_service

    with service.open(None) as access:
        found = run_blocking(ask_service(access, runtime(), lambda client: client.list_apps(search=search, limit=100)))
    if not found:
        raise UsageError(f"the service finds no app for {search!r}", hint="`lamina-batch apps list` shows them all")
    if len(found) == 1:
        say(f"{found[0].name} ({found[0].app_id})")
        return found[0].app_id
    asked = sys.stdin.isatty() and sys.stderr.isatty()
    for number, app in enumerate(found, start=1):
        (say if asked else out)(f"{f'{number:>3}  ' if asked else ''}{app.app_id}  {app.name}")
    if not asked:
        raise UsageError(f"{len(found)} apps are found for {search!r}", hint="choose one: --app ID")
    chosen: int = click.prompt("Which", type=click.IntRange(1, len(found)), err=True)
    return found[chosen - 1].app_id


def _write_fill_sheet(made: Draft, service: RedactingServiceOptions) -> Path:
    """The spreadsheet to fill, beside the pipeline file."""
    from lamina_batch.authoring.sheet import write_sheet

    pipeline = PipelineTarget(file=made.file, service=service, overrides=()).load()
    return write_sheet(pipeline, made.app, made.file.parent / made.rows)


def _display_path(file: Path) -> str:
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


def _print_next_steps(made: Draft, service: RedactingServiceOptions) -> None:
    file, sandbox = _display_path(made.file), " --sandbox" if service.sandbox else ""
    if made.catalog is None:
        say(f"fill {_display_path(made.file.parent / made.rows)}, a row for each product; then")
    elif made.open:
        if made.no_key is not None:
            say(f"no key: {made.no_key}")
        say(f"decide what is marked FILL_IN in {file}: {', '.join(made.open)}; then")
    say(f"  lamina-batch validate {file}{sandbox}")
    say(f"  lamina-batch run {file}{sandbox}")


@click.command(cls=Command)
@pipeline_options
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE.xlsx", help="Where to write it."
)
@click.option("--empty", is_flag=True, help="Without the rows that the pipeline has already.")
@click.option("--replace", is_flag=True, help="Replace FILE.xlsx if it exists.")
def sheet(call: PipelineTarget, *, output: Path, empty: bool, replace: bool) -> None:
    """Make the spreadsheet for those who fill it: a column for each that the pipeline uses, with lists to choose from.

    Where `rows.from` exists already, its rows are in it, with all of their columns. Filled, the workbook is read by
    `rows.from: FILE.xlsx`.

    \b
    Examples:
      lamina-batch sheet catalog.yaml -o to-fill.xlsx
      lamina-batch sheet catalog.yaml -o to-fill.xlsx --empty
    """
    from lamina_batch.authoring.sheet import read_existing_rows, refuse_sheet, untyped_columns, write_sheet
    from lamina_batch.runs.service import app_of
    from lamina_batch.runs.service import ask as ask_service

    pipeline = call.load()
    refuse_sheet(pipeline, output, replace=replace)
    catalog = None if empty else read_existing_rows(pipeline)
    with call.access(pipeline) as access:
        app = run_blocking(ask_service(access, runtime(), lambda client: app_of(pipeline, client), pipeline))
    out(str(write_sheet(pipeline, app, output, catalog=catalog)))
    if catalog is not None:
        for note in catalog.notes:
            say(f"note: {note}")
        if names := untyped_columns(pipeline, app, catalog):
            listed = ", ".join(names)
            say(f"note: in a sheet these columns are text: {listed}; where SQL uses them, give their `rows.types`")
        rows = catalog.frame.select("lamina_index").collect().height
        say(f"{rows} rows of {pipeline.name} are in it; --empty leaves them out")
