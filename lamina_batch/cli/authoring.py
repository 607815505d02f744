"""The commands that make files for people to fill: sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lamina_batch.cli.options import pipeline_options, waited_for, world
from lamina_batch.cli.shell import Command, out, say

if TYPE_CHECKING:
    from lamina_batch.cli.options import Call


@click.command(cls=Command)
@pipeline_options
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), metavar="FILE.xlsx", help="Where to write it."
)
@click.option("--empty", is_flag=True, help="Without the rows that the pipeline has already.")
@click.option("--replace", is_flag=True, help="Replace FILE.xlsx if it exists.")
def sheet(call: Call, *, output: Path, empty: bool, replace: bool) -> None:
    """Make the spreadsheet for those who fill it: a column for each that the pipeline uses, with lists to choose from.

    Where `rows.from` exists already, its rows are in it, with all of their columns. Filled, the workbook is read by
    `rows.from: FILE.xlsx`.

    \b
    Examples:
      lamina-batch sheet catalog.yaml -o to-fill.xlsx
      lamina-batch sheet catalog.yaml -o to-fill.xlsx --empty
    """
    from lamina_batch import batch
    from lamina_batch.authoring.sheet import existing_rows, refuse_sheet, write_sheet

    pipeline = call.load()
    refuse_sheet(pipeline, output, replace=replace)
    catalog = None if empty else existing_rows(pipeline)
    with call.access(pipeline) as access:
        app = waited_for(batch.ask(access, world(), lambda client: client.get_app(pipeline.app), pipeline))
    out(str(write_sheet(pipeline, app, output, catalog=catalog)))
    if catalog is not None:
        for note in catalog.notes:
            say(f"note: {note}")
        rows = catalog.frame.select("lamina_index").collect().height
        say(f"{rows} rows of {pipeline.name} are in it; --empty leaves them out")
