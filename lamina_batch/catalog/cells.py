"""Expressions over the cells of a catalog: as text, as lists of text, and typed for SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.catalog.columns import ColumnReference
from lamina_batch.sources.text import as_text, blank_to_null, can_be_text, is_blank, parse_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamina_batch.pipeline.problems import KeyPath
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog

# The working frame holds the columns of the source under the first prefix, whether a cell is not of its type under the
# second, and the columns for SQL under the names that the SQL uses. No column of a source begins with `lamina_`.
_RAW_PREFIX = "lamina_raw:"
_MISTYPED_PREFIX = "lamina_bad:"
_MISTYPED_SCHEMA = {"lamina_index": pl.UInt32, "column": pl.String, "value": pl.String, "type": pl.String}


class CellExpressions:
    """Expressions for every column that the pipeline names, by its name there."""

    def __init__(self, catalog: Catalog, pipeline: Pipeline, names: Mapping[str, str]) -> None:
        self._catalog = catalog
        self._pipeline = pipeline
        #: name in the pipeline -> column of the catalog
        self._columns = names
        self._dtypes = catalog.frame.collect_schema()
        self._types = {names[name]: column_type for name, column_type in pipeline.rows.types.items()}
        #: one name for each typed column: two names may match the same column
        self._typed_names = tuple({names[name]: name for name in pipeline.rows.types}.values())

    def read(self, sql_names: Iterable[str]) -> pl.DataFrame:
        """The working frame: one line for each row of the catalog."""
        raw = [pl.col(column).alias(_RAW_PREFIX + column) for column in dict.fromkeys(self._columns.values())]
        mistyped = [
            (~self.blank(name) & self._typed(name).is_null()).alias(_MISTYPED_PREFIX + self._columns[name])
            for name in self._typed_names
        ]
        sql = [self._sql_expression(name).alias(name) for name in sql_names]
        rows = self._catalog.collect(self._catalog.frame.select(*self._catalog.row_id_columns, *raw))
        return rows.with_columns(*mistyped, *sql) if mistyped or sql else rows

    def dtype(self, name: str) -> pl.DataType:
        """The polars type of the column."""
        return self._dtypes[self._columns[name]]

    def text(self, path: KeyPath, name: str) -> pl.Expr:
        """The cells of a column as text. Raises PipelineError if they are not single values."""
        self._refuse_nested(path, f"the column {self._columns[name]!r}", self.dtype(name))
        return as_text(self._raw(name), self.dtype(name))

    def texts(self, path: KeyPath, name: str) -> pl.Expr:
        """The cells of a list column as lists of text. Raises PipelineError if the elements are not single values."""
        inner = getattr(self.dtype(name), "inner", pl.Null())
        self._refuse_nested(path, f"the column {self._columns[name]!r} in its lists", inner)
        return self._raw(name).list.eval(as_text(pl.element(), inner))

    def sql_result(self, path: KeyPath, column: str, dtype: pl.DataType) -> pl.Expr:
        """The results of SQL as text. Raises PipelineError if they are not single values."""
        self._refuse_nested(path, "the result", dtype)
        return as_text(pl.col(column), dtype)

    def blank(self, name: str) -> pl.Expr:
        """Whether the cell is blank."""
        return is_blank(self._raw(name), self.dtype(name))

    def any_mistyped_expression(self, names: Iterable[str]) -> pl.Expr:
        """Whether one of these cells is not of its type under `rows.types`."""
        typed = [_MISTYPED_PREFIX + self._columns[name] for name in names if self._columns[name] in self._types]
        return pl.any_horizontal(typed) if typed else pl.lit(value=False)

    def mistyped(self, rows: pl.DataFrame) -> pl.DataFrame:
        """One line for each cell that is not of its type."""
        cells = [
            rows.filter(_MISTYPED_PREFIX + self._columns[name]).select(
                "lamina_index",
                pl.lit(self._columns[name]).alias("column"),
                as_text(self._raw(name), self.dtype(name)).alias("value"),
                pl.lit(self._types[self._columns[name]]).alias("type"),
            )
            for name in self._typed_names
        ]
        return pl.concat([pl.DataFrame(schema=_MISTYPED_SCHEMA), *cells])

    def key(self) -> pl.Expr:
        """The key of a row: its cell, or its cells joined so that different cells give different keys."""
        parts = [self.text(*reference).fill_null("") for reference in key_column_references(self._pipeline)]
        if len(parts) > 1:
            parts = [part.str.replace_many(["\\", "|"], ["\\\\", "\\|"]) for part in parts]
        return pl.concat_str(parts, separator="|").alias("lamina_key")

    def blank_key(self) -> pl.Expr:
        """The first blank column of the key, or null, as `lamina_blank_key`."""
        blank = [pl.when(self.blank(name)).then(pl.lit(self._columns[name])) for name in self._pipeline.rows.key]
        return pl.coalesce(blank).alias("lamina_blank_key")

    def _raw(self, name: str) -> pl.Expr:
        return pl.col(_RAW_PREFIX + self._columns[name])

    def _typed(self, name: str) -> pl.Expr:
        return parse_as(self.text(("rows", "types", name), name), self._types[self._columns[name]])

    def _sql_expression(self, name: str) -> pl.Expr:
        if self._columns[name] in self._types:
            return self._typed(name)
        return blank_to_null(self._raw(name)) if self.dtype(name) == pl.String else self._raw(name)

    def _refuse_nested(self, path: KeyPath, what: str, dtype: pl.DataType) -> None:
        if not can_be_text(dtype):
            hint = "a list column fits `column:` alone; flatten anything else before"
            raise self._pipeline.error(path, f"{what} holds {dtype}, and one text is needed", hint)


def key_column_references(pipeline: Pipeline) -> Iterator[ColumnReference]:
    """The columns that `rows.key` names."""
    key = pipeline.rows.key
    for at, name in enumerate(key):
        yield ColumnReference(("rows", "key") if len(key) == 1 else ("rows", "key", at), name)
