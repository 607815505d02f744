"""A workbook to fill for a pipeline, put where nothing of anybody's is lost."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.atomic_files import write_whole
from lamina_batch.errors import UsageError
from lamina_batch.results.publish import refuse_source
from lamina_batch.sheets.fields import fields
from lamina_batch.sheets.template import write_template
from lamina_batch.sources.read_catalog import read_catalog
from lamina_batch.sources.table import normalise_header

if TYPE_CHECKING:
    from lamina_batch.apps.app import App
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog


def read_existing_rows(pipeline: Pipeline) -> Catalog | None:
    """The catalog that `rows.from` names; None if there is no such file yet.

    Raises CatalogError if there is one and it cannot be read.
    """
    sources = pipeline.rows.sources
    if not any(Path(source).exists() or glob.glob(source, recursive=True) for source in sources):  # noqa: PTH207
        return None
    return read_catalog(pipeline)


def untyped_columns(pipeline: Pipeline, app: App, catalog: Catalog) -> tuple[str, ...]:
    """The columns that the pipeline uses which are more than text in the rows, and are text once they are in a sheet.

    What `rows.types` names is none of them.
    """
    kinds = catalog.frame.collect_schema()
    typed = {normalise_header(name) for name in pipeline.rows.types}
    names = [field.column for field in fields(pipeline, app, catalog) if normalise_header(field.name) not in typed]
    return tuple(name for name in names if name is not None and kinds[name] not in (pl.String, pl.Null, pl.List))


def refuse_sheet(pipeline: Pipeline, file: Path, *, replace: bool) -> None:
    """Raise UsageError if a workbook at `file` would cost somebody their work, or could not be written as such.

    The file that `rows.from` names may be made, but never replaced: it may hold more than its rows.
    """
    if file.suffix.lower() != ".xlsx":
        raise UsageError("a sheet to fill is an .xlsx workbook", where=str(file), hint="name it FILE.xlsx")
    if file.exists():
        refuse_source(pipeline, file)
        if not replace:
            raise UsageError(
                "there is such a file already, and somebody may have filled it",
                where=str(file),
                hint="give another name, or say --replace",
            )
    elif str(file.resolve()) not in {str(Path(source).resolve()) for source in pipeline.rows.sources}:
        refuse_source(pipeline, file)


def write_sheet(pipeline: Pipeline, app: App, file: Path, *, catalog: Catalog | None = None) -> Path:
    """Write the workbook to fill, whole or not at all; with the rows of `catalog`, if given. Returns where it stands.

    Raises PipelineError if the pipeline does not fit the app or the catalog, StateError where it cannot be written.
    """
    return write_whole(file, lambda aside: write_template(pipeline, app, aside, catalog=catalog))
