"""The cells of a catalog as the rules see them: as text, as lists of text, and typed for SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.catalog.columns import ColumnReference
from lamina_batch.sources.text import as_text, blank_to_null, can_be_text, is_blank, parse_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamina_batch.catalog.columns import KeyPath
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog

# In the frame of work the source's columns stand under `_RAW`, whether a cell is not of its type under `_BAD`, and what
# SQL sees under the very names that the SQL uses. No column of the source begins with `lamina_`, so none are confused.
_RAW_PREFIX = "lamina_raw:"
_MISTYPED_PREFIX = "lamina_bad:"


class CellExpressions:
    """Every column that the pipeline names, by the name as written there."""

    def __init__(self, catalog: Catalog, pipeline: Pipeline, names: Mapping[str, str]) -> None:
        self._catalog = catalog
        self._pipeline = pipeline
        #: as written -> column of the catalog
        self._names = names
        self._kinds = catalog.frame.collect_schema()
        self._types = {names[written]: kind for written, kind in pipeline.rows.types.items()}
        #: one name as written for each typed column: two may match the same one
        self._typed_names = tuple({names[written]: written for written in pipeline.rows.types}.values())

    def read(self, sql_names: Iterable[str]) -> pl.DataFrame:
        """The frame of work."""
        raw = [pl.col(column).alias(_RAW_PREFIX + column) for column in dict.fromkeys(self._names.values())]
        bad = [
            (~self.blank(written) & self._typed(written).is_null()).alias(_MISTYPED_PREFIX + self._names[written])
            for written in self._typed_names
        ]
        sql = [self._sql_expression(written).alias(written) for written in sql_names]
        rows = self._catalog.collect(self._catalog.frame.select(*self._catalog.marks, *raw))
        return rows.with_columns(*bad, *sql) if bad or sql else rows

    def kind(self, written: str) -> pl.DataType:
        """The type of the column that the pipeline writes so."""
        return self._kinds[self._names[written]]

    def text(self, path: KeyPath, written: str) -> pl.Expr:
        """The cells of a column as text. Raises PipelineError if they are no single values."""
        self._refuse_nested(path, f"the column {self._names[written]!r}", self.kind(written))
        return as_text(self._raw(written), self.kind(written))

    def texts(self, path: KeyPath, written: str) -> pl.Expr:
        """The cells of a list column as lists of text. Raises PipelineError if those hold no single values."""
        inner = getattr(self.kind(written), "inner", pl.Null())
        self._refuse_nested(path, f"the column {self._names[written]!r} in its lists", inner)
        return self._raw(written).list.eval(as_text(pl.element(), inner))

    def result(self, path: KeyPath, name: str, kind: pl.DataType) -> pl.Expr:
        """What SQL gave for each row, as text. Raises PipelineError if these are no single values."""
        self._refuse_nested(path, "the result", kind)
        return as_text(pl.col(name), kind)

    def blank(self, written: str) -> pl.Expr:
        """Whether the cell is blank."""
        return is_blank(self._raw(written), self.kind(written))

    def any_mistyped_expression(self, written: Iterable[str]) -> pl.Expr:
        """Whether one of these cells cannot be read as `types` says."""
        typed = [_MISTYPED_PREFIX + self._names[name] for name in written if self._names[name] in self._types]
        return pl.any_horizontal(typed) if typed else pl.lit(value=False)

    def mistyped(self, rows: pl.DataFrame) -> pl.DataFrame:
        """A line for each cell that is not of its type."""
        found = [
            rows.filter(_MISTYPED_PREFIX + self._names[written]).select(
                "lamina_index",
                pl.lit(self._names[written]).alias("column"),
                as_text(self._raw(written), self.kind(written)).alias("value"),
                pl.lit(self._types[self._names[written]]).alias("type"),
            )
            for written in self._typed_names
        ]
        return pl.concat([pl.DataFrame(schema=_MISTYPED_SCHEMA), *found])

    def key(self) -> pl.Expr:
        """The text that names a row: the cell, or the cells joined so that no two lists of cells read the same."""
        parts = [self.text(*use).fill_null("") for use in key_column_references(self._pipeline)]
        if len(parts) > 1:
            parts = [part.str.replace_many(["\\", "|"], ["\\\\", "\\|"]) for part in parts]
        return pl.concat_str(parts, separator="|").alias("lamina_key")

    def blank_key(self) -> pl.Expr:
        """The first column of the key that is blank, as `lamina_blank_key`; null if none is."""
        named = [pl.when(self.blank(name)).then(pl.lit(self._names[name])) for name in self._pipeline.rows.key]
        return pl.coalesce(named).alias("lamina_blank_key")

    def _raw(self, written: str) -> pl.Expr:
        return pl.col(_RAW_PREFIX + self._names[written])

    def _typed(self, written: str) -> pl.Expr:
        return parse_as(self.text(("rows", "types", written), written), self._types[self._names[written]])

    def _sql_expression(self, written: str) -> pl.Expr:
        if self._names[written] in self._types:
            return self._typed(written)
        return blank_to_null(self._raw(written)) if self.kind(written) == pl.String else self._raw(written)

    def _refuse_nested(self, path: KeyPath, what: str, kind: pl.DataType) -> None:
        if not can_be_text(kind):
            raise self._pipeline.error(
                path,
                f"{what} holds {kind}, and one text is needed",
                "a list column fits `column:` alone; flatten anything else before",
            )


_MISTYPED_SCHEMA = {"lamina_index": pl.UInt32, "column": pl.String, "value": pl.String, "type": pl.String}


def key_column_references(pipeline: Pipeline) -> Iterator[ColumnReference]:
    """The columns that `rows.key` names."""
    key = pipeline.rows.key
    for at, written in enumerate(key):
        yield ColumnReference(("rows", "key") if len(key) == 1 else ("rows", "key", at), written)
