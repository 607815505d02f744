"""Map rows to the inputs of the app, by expressions over whole columns.

A rule takes its source, then `map`, then `default`; a blank before or after `map` is null. Rows that are still blank
are skipped here (`skip_row`) or become findings in check_rows.py. Otherwise a cell is sent unchanged, with its outer
spaces. `where` and `sql` see blank cells as NULL and columns under `types` as typed; all else sees text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.catalog.cells import CellExpressions, key_column_references
from lamina_batch.catalog.columns import ColumnReference, find_columns
from lamina_batch.catalog.resolve_inputs import resolve_inputs
from lamina_batch.catalog.rule_expressions import rule_column_references, rule_expression, source_expression
from lamina_batch.catalog.sql import WHERE, parse_sql, run_sql
from lamina_batch.pipeline.spec import Sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina_batch.apps.app import App, Parameter
    from lamina_batch.catalog.sql import SqlExpression
    from lamina_batch.pipeline.problems import KeyPath
    from lamina_batch.pipeline.spec import InputRule, Pipeline
    from lamina_batch.sources.table import Catalog

#: skipped rows that `MappedPart.skipped_keys` names
MAX_LISTED_ROWS = 5
#: the prefix of columns with results of SQL; no column of a source begins with it
_SQL_PREFIX = "lamina_sql:"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedInput:
    """One entry of `inputs`."""

    parameter: Parameter
    #: its constants are in the app's spelling
    rule: InputRule
    #: the columns of the catalog that it reads
    columns: tuple[str, ...]
    #: the column of `MappedPart.frame` that holds its values
    value_column: str
    #: whether that column holds lists
    is_list: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedPart:
    """Some of the rows, mapped."""

    #: one line for each row that is not skipped, in the order of the source: `lamina_index`, `lamina_row`,
    #: `lamina_source` (if there are several files), `lamina_key` (text), `lamina_blank_key` (the first blank column of
    #: the key, or null), and the value columns of `inputs`: texts or lists of texts, null if blank. A list from
    #: `columns` has one element for each column, null if the cell is blank
    frame: pl.DataFrame
    #: cells that are not of their type under `rows.types`: `lamina_index`, `column`, `value`, `type`
    mistyped: pl.DataFrame
    #: the number of rows that `blank: skip_row` leaves out, and the first of their keys (`row 7` if the key is blank)
    skipped_rows: int
    skipped_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMapping:
    """The rows that pass `where`, and how they become inputs.

    Mapped rows take several times the memory of their cells, so rows are mapped a slice at a time.
    """

    inputs: tuple[MappedInput, ...]
    #: parameters of the matrix and their values, in the file's order
    matrix: tuple[tuple[Parameter, tuple[str, ...]], ...]
    #: warnings about the whole catalog
    notes: tuple[str, ...]
    #: returns the cells that the rules read, one line for each row
    _read: Callable[[], pl.DataFrame]
    #: returns the same from the source, without cells in memory
    _read_again: Callable[[], pl.DataFrame]
    _map: Callable[[pl.DataFrame], MappedPart]
    _key: pl.Expr

    def without_cells(self) -> RowMapping:
        """The same mapping without the cells in memory: it reads them again for each call."""
        return replace(self, _read=self._read_again)

    def row_keys(self) -> pl.DataFrame:
        """`lamina_index` and `lamina_key` of every row, also of rows that `blank: skip_row` leaves out."""
        return self._read().select("lamina_index", self._key)

    def slices(self, size: int) -> Iterator[pl.DataFrame]:
        """All rows in their order, `size` at a time, for `map_slice`. There is always at least one slice."""
        rows = self._read()
        for start in range(0, max(rows.height, 1), size):
            yield rows.slice(start, size)

    def map_slice(self, rows: pl.DataFrame) -> MappedPart:
        """Map one of the `slices`."""
        return self._map(rows)

    def map_all(self) -> MappedPart:
        """Map all rows at once."""
        return self._map(self._read())

    def map_rows_at(self, index: pl.Series) -> MappedPart:
        """Map the rows with this `lamina_index`."""
        rows = self._read()
        return self._map(rows.filter(rows.get_column("lamina_index").is_in(index.implode())))


def map_rows(catalog: Catalog, pipeline: Pipeline, app: App) -> RowMapping:
    """Map every row that passes `where`.

    A row also passes if `where` is NULL because of a cell that is not of its type: it becomes a finding.

    Raises PipelineError, with the position in the file, for a name that the app or the catalog lacks, a constant that
    the app would refuse, a required input without a rule, and SQL that cannot be read or run.
    """
    resolved = resolve_inputs(pipeline, app)
    sqls = _parse_expressions(pipeline)
    sql_references = [ColumnReference(sql.path, name) for sql in sqls.values() for name in sql.column_names]
    columns, notes = find_columns(catalog, pipeline, [*_column_references(pipeline), *sql_references])
    cells = CellExpressions(catalog, pipeline, columns)

    # SQL may read the whole catalog, for an average, say, so it runs over all rows. It may be random, so it runs once.
    rows = cells.read(dict.fromkeys(reference.name for reference in sql_references))
    passed = _apply_where(pipeline, sqls[WHERE], rows, cells) if WHERE in sqls else None
    rows = rows if passed is None else rows.filter(passed)
    results = {
        f"{_SQL_PREFIX}{sql.path[1]}": run_sql(pipeline, sql, rows) for path, sql in sqls.items() if path != WHERE
    }
    rows = rows.drop({reference.name for reference in sql_references} - set(catalog.row_id_columns))
    rows = rows.with_columns(**results)

    def read_again() -> pl.DataFrame:
        cells_again = cells.read(())
        return (cells_again if passed is None else cells_again.filter(passed)).with_columns(**results)

    values: list[pl.Expr] = []
    inputs: list[MappedInput] = []
    for number, (parameter, rule) in enumerate(resolved.inputs):
        path = ("inputs", rule.parameter)
        sql = sqls.get((*path, "sql"))
        if sql is not None:
            result = f"{_SQL_PREFIX}{rule.parameter}"
            source = cells.sql_result(sql.path, result, results[result].dtype)
            names = sql.column_names
        else:
            source = source_expression(cells, path, rule)
            names = tuple(reference.name for reference in rule_column_references(path, rule))
        value_column = f"lamina_input_{number}"
        is_list = rows.lazy().select(source.alias(value_column)).collect_schema()[value_column] == pl.List
        values.append(rule_expression(source, rule, is_list=is_list).alias(value_column))
        inputs.append(
            MappedInput(
                parameter=parameter,
                rule=rule,
                columns=tuple(columns[name] for name in names),
                value_column=value_column,
                is_list=is_list,
            )
        )
    # SQL gives NULL for a cell that is not of its type. That row is not blank, but has a finding.
    skips = [
        pl.col(item.value_column).is_null()
        & ~cells.any_mistyped_expression(sqls[path].column_names if path in sqls else ())
        for item in inputs
        if item.rule.blank == "skip_row"
        for path in [("inputs", item.rule.parameter, "sql")]
    ]

    def map_part(part: pl.DataFrame) -> MappedPart:
        mapped = part.with_columns(*values)
        kept, skipped = mapped, mapped.clear()
        if skips:
            skip = mapped.select(pl.any_horizontal(skips)).to_series()
            kept, skipped = mapped.filter(~skip), mapped.filter(skip)
        first_skipped = skipped.head(MAX_LISTED_ROWS).select("lamina_row", cells.key(), cells.blank_key())
        return MappedPart(
            frame=kept.select(
                *catalog.row_id_columns, cells.key(), cells.blank_key(), *(item.value_column for item in inputs)
            ),
            mistyped=cells.mistyped(kept),
            skipped_rows=skipped.height,
            skipped_keys=tuple(f"row {row}" if blank_key else key for row, key, blank_key in first_skipped.rows()),
        )

    return RowMapping(
        inputs=tuple(inputs),
        matrix=resolved.matrix,
        notes=(*catalog.notes, *notes, *resolved.notes),
        _read=lambda: rows,
        _read_again=read_again,
        _map=map_part,
        _key=cells.key(),
    )


def _parse_expressions(pipeline: Pipeline) -> dict[KeyPath, SqlExpression]:
    """Every SQL expression of the pipeline by its path."""
    texts: dict[KeyPath, str] = {}
    if pipeline.rows.where is not None:
        texts[WHERE] = pipeline.rows.where
    for rule in pipeline.inputs:
        if isinstance(rule.source, Sql):
            texts["inputs", rule.parameter, "sql"] = rule.source.expression
    return {path: parse_sql(pipeline, path, text) for path, text in texts.items()}


def _apply_where(pipeline: Pipeline, where: SqlExpression, rows: pl.DataFrame, cells: CellExpressions) -> pl.Series:
    """Whether each row passes `where`."""
    result = run_sql(pipeline, where, rows)
    if result.dtype not in (pl.Boolean, pl.Null):
        raise pipeline.error(
            WHERE, f"this gives {result.dtype}, and must give yes or no", "compare the column with something"
        )
    mistyped = rows.with_columns(cells.any_mistyped_expression(where.column_names).alias("lamina_mistyped"))
    return result.cast(pl.Boolean).fill_null(value=False) | (result.is_null() & mistyped.get_column("lamina_mistyped"))


def _column_references(pipeline: Pipeline) -> Iterator[ColumnReference]:
    """The columns named outside of SQL."""
    yield from key_column_references(pipeline)
    for name in pipeline.rows.types:
        yield ColumnReference(("rows", "types", name), name)
    for rule in pipeline.inputs:
        yield from rule_column_references(("inputs", rule.parameter), rule)
