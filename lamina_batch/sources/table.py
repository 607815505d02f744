"""The table in a file, the catalog made of all tables, and how column names are compared."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lamina_batch.errors import CatalogError
from lamina_batch.pipeline.names import normalise_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: the prefix of our own columns. They are ignored in a source, so that a manifest can be a source
OWN_PREFIX = "lamina_"
#: the column with the file of a row, if the catalog is a list or a pattern of files
SOURCE_COLUMN = "lamina_source"
#: the columns that identify a row of a catalog's frame
ROW_ID_COLUMNS = ("lamina_index", "lamina_row", SOURCE_COLUMN)
#: rows that `Catalog.refuse_damaged` decodes at a time
_DECODE_BATCH_ROWS = 20_000


class Table(NamedTuple):
    """The table in one file."""

    #: as written in the file
    headers: tuple[str, ...]
    #: one column for each header, in the file's order; blank lines are rows of nulls
    frame: pl.LazyFrame
    #: the row number, as a spreadsheet shows it, of the first row of `frame`
    first_row: int
    #: warnings about the whole file
    notes: tuple[str, ...] = ()
    #: the sheet, as its workbook spells it; None if the file has no sheets
    sheet: str | None = None
    #: the column of the file for each header, from 1; None if `headers` has all columns of the file
    column_numbers: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of a catalog, and the positions of the cells in it."""

    path: Path
    #: the sheet, as its workbook spells it; None if the file has no sheets
    sheet: str | None
    #: the value of `lamina_source` in its rows
    source: str
    #: the last row of the header, as a spreadsheet shows it; 1 in files without a header
    header_row: int
    #: column of the catalog -> its column in this file, from 1
    column_numbers: Mapping[str, int]
    #: our own columns, which the catalog leaves out -> their columns in this file, from 1
    own_columns: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All rows that `rows.from` names, as one table."""

    #: the rows with at least one filled cell, in the order of the source: `lamina_index` (UInt32, from 0),
    #: `lamina_row` (UInt32, as a spreadsheet shows it: the header is row 1 of each file), `lamina_source` (only if
    #: rows.from is a pattern or a list), then `columns`. Compute it with `collect`
    frame: pl.LazyFrame
    #: the columns of the source by unique names, in their order
    columns: tuple[str, ...]
    #: the names of the same columns in the file; some may be empty or repeated
    headers: tuple[str, ...]
    #: whether `frame` has `lamina_source`
    has_source_column: bool
    #: warnings about whole files
    notes: tuple[str, ...] = ()
    #: the files, in the order of their rows
    files: tuple[SourceFile, ...] = ()

    @property
    def row_id_columns(self) -> tuple[str, ...]:
        """The columns of `frame` that identify a row."""
        return ROW_ID_COLUMNS if self.has_source_column else ROW_ID_COLUMNS[:-1]

    @staticmethod
    def collect(rows: pl.LazyFrame) -> pl.DataFrame:
        """Compute rows made of `frame`. Raises CatalogError if a file is damaged."""
        with _damage_as_catalog_error():
            return rows.collect()

    def refuse_damaged(self) -> None:
        """Decode every cell once, also those that no rule reads. Raises CatalogError if a file is damaged."""
        # Other formats are decoded when they are read.
        if not any(file.path.suffix.lower() == ".parquet" for file in self.files):
            return
        with _damage_as_catalog_error():
            for _ in self.frame.collect_batches(chunk_size=_DECODE_BATCH_ROWS, maintain_order=False):
                pass


@contextmanager
def _damage_as_catalog_error() -> Iterator[None]:
    try:
        yield
    except pl.exceptions.ComputeError as error:
        if "parquet" not in str(error).lower():
            raise
        raise CatalogError(
            "a Parquet file is damaged", hint=f"write it again; polars says: {first_line(error)}"
        ) from error


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]


def without_required_mark(name: str) -> str:
    """The name without the mark ` *`, which `lamina-batch sheet` puts on columns that must be filled."""
    return name.removesuffix(" *")


def normalise_header(name: str) -> str:
    """The form in which column names are compared."""
    return normalise_name(without_required_mark(name.strip()))
