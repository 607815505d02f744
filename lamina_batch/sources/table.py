"""One table of a file, the catalog made of all of them, and the form in which names of columns are compared."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lamina_batch.errors import CatalogError
from lamina_batch.pipeline.names import normalise_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: columns of ours in a source are ignored, so that a manifest can be fed back in
OWN_PREFIX = "lamina_"
#: those of ours in a catalog's frame that say which row it is
ROW_ID_COLUMNS = ("lamina_index", "lamina_row", "lamina_source")
#: rows that are decoded at once only to see that they can be
_DECODED_AT_A_TIME = 20_000


#: names the file of a row, where there are several
SOURCE_COLUMN = "lamina_source"


class Table(NamedTuple):
    """The table in one file."""

    #: as they stand in the file
    headers: tuple[str, ...]
    #: one column for each header, in the file's order; blank lines are rows of nulls
    frame: pl.LazyFrame
    #: the row number, as a spreadsheet shows it, of the first line of `frame`
    first_row: int
    #: what a person should know about the file as a whole
    notes: tuple[str, ...] = ()
    #: the sheet that was read, as its workbook spells it; None in files that have none
    sheet: str | None = None
    #: which column of the file each header stands in, from 1; None: they are all of its columns
    places: tuple[int, ...] | None = None
    #: where columns of ours stand that were left out
    ours: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One of the files of a catalog, and where in it the cells stand."""

    path: Path
    #: as the workbook spells it; None in files that have none
    sheet: str | None
    #: what `lamina_source` says for its rows, where there are several files
    source: str
    #: the last row of the header, as a spreadsheet shows it; 1 where the rows have no line for it
    header_row: int
    #: column of the catalog -> its column in this file, from 1
    places: Mapping[str, int]
    #: the same for columns of ours, which the catalog leaves out
    ours: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All rows that `rows.from` names, as one table."""

    #: the rows that are not wholly blank, in the order of the source: `lamina_index` (UInt32, from 0), `lamina_row`
    #: (UInt32, as a spreadsheet shows it: the header is row 1, in each file), `lamina_source` (only when rows.from is
    #: a glob or a list), then `columns`. Only the columns that are asked for are ever decoded; use `collect`
    frame: pl.LazyFrame
    #: the source's columns by names that are unique, in its order
    columns: tuple[str, ...]
    #: the same columns by the names they have in the file: some may be empty or stand twice
    headers: tuple[str, ...]
    #: whether `frame` has `lamina_source`
    several: bool
    #: what a person should know about the files as a whole
    notes: tuple[str, ...] = ()
    #: the files in the order in which they were read
    parts: tuple[SourceFile, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """The columns of ours in `frame` that say which row it is."""
        return ROW_ID_COLUMNS if self.several else ROW_ID_COLUMNS[:-1]

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """What was made of `frame`. Raises CatalogError if a file turns out to be damaged."""
        return collect(rows)

    def refuse_damaged(self) -> None:
        """Decode every cell once, some rows at a time, those included that no rule reads.

        Raises CatalogError if a file turns out to be damaged.
        """
        # Files of other forms were read whole.
        if not any(part.path.suffix.lower() == ".parquet" for part in self.parts):
            return
        with _damage_as_catalog_error():
            for _ in self.frame.collect_batches(chunk_size=_DECODED_AT_A_TIME, maintain_order=False):
                pass


def collect(rows: pl.LazyFrame) -> pl.DataFrame:
    """Compute the rows. Raises CatalogError if a file turns out to be damaged."""
    with _damage_as_catalog_error():
        return rows.collect()


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
    """Without the mark that `lamina-batch sheet` puts on columns that must be filled."""
    return name.removesuffix(" *")


def normalise_header(name: str) -> str:
    """The form in which two names of a column count as the same."""
    return normalise_name(without_required_mark(name.strip()))
