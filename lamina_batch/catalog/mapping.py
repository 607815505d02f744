"""Rules -> expressions: what each row of the catalog gives for each input of the app, the whole catalog at once.

The order within a rule: its source; a blank is nothing; `map`; a blank is nothing; `default`; and what is still blank
is skipped here (`skip_row`) or judged by check.py. Otherwise a cell is sent unchanged, outer spaces included.
`where` and `sql` see blank cells as NULL, and columns under `types` as typed; everything else sees the text.
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
    from lamina_batch.catalog.columns import KeyPath
    from lamina_batch.catalog.sql import SqlExpression
    from lamina_batch.pipeline.spec import InputRule, Pipeline
    from lamina_batch.sources.table import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedInput:
    """One entry of `inputs`, its constants in the app's spelling."""

    parameter: Parameter
    rule: InputRule
    #: the columns it reads
    columns: tuple[str, ...]
    #: the column of `Mapped.frame` that holds its values
    slot: str
    #: whether that column holds lists
    several: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedPart:
    """Some of the rows, mapped."""

    #: a line for each row that is kept, in the order of the source: `lamina_index`, `lamina_row`, `lamina_source`
    #: (where there are several files), `lamina_key` (text), `lamina_blank_key` (the first column of the key that is
    #: blank, or null), and the slots of `inputs`: the text or the list of texts to send, null where blank. In a list
    #: from `columns` the place tells the column, so a blank among them is a null.
    frame: pl.DataFrame
    #: cells that cannot be read as `types` says: `lamina_index`, `column`, `value`, `type`
    mistyped: pl.DataFrame
    #: rows left out by `blank: skip_row`, and the keys of the first of them (`row 7` where that is blank)
    skipped_rows: int
    skipped_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowMapping:
    """The rows that `where` lets through, and how they become inputs.

    What the rules make of them takes several times the room of the cells, so it is made part by part, for those who
    need it. The cells themselves take room as well: who needs only some of the rows, and later, keeps `at_rest`.
    """

    inputs: tuple[MappedInput, ...]
    #: parameters of the matrix and their values, in the file's order
    matrix: tuple[tuple[Parameter, tuple[str, ...]], ...]
    #: warnings about the whole, for people
    notes: tuple[str, ...]
    #: answers the cells that the rules read, a line for each row
    _read: Callable[[], pl.DataFrame]
    #: the same, without holding them
    _again: Callable[[], pl.DataFrame]
    _rules: Callable[[pl.DataFrame], MappedPart]
    _key: pl.Expr

    def without_cells(self) -> RowMapping:
        """The same without the cells: they are read again whenever rows are asked for."""
        return replace(self, _read=self._again)

    def key(self) -> pl.Series:
        """`lamina_key` of every row, those included that `blank: skip_row` leaves out."""
        return self._read().select(self._key).to_series()

    def parts(self, size: int) -> Iterator[pl.DataFrame]:
        """All rows in their order, so many at a time, to be handed to `part`."""
        rows = self._read()
        # No rows are a part too: it has the columns.
        for start in range(0, max(rows.height, 1), size):
            yield rows.slice(start, size)

    def part(self, rows: pl.DataFrame) -> MappedPart:
        """What the rules make of these rows."""
        return self._rules(rows)

    def whole(self, chosen: pl.Series | None = None) -> MappedPart:
        """All of it at once, or of the rows for which `chosen` is true."""
        rows = self._read()
        return self._rules(rows if chosen is None else rows.filter(chosen))

    def some(self, index: pl.Series) -> MappedPart:
        """What the rules make of the rows with this `lamina_index`."""
        rows = self._read()
        return self._rules(rows.filter(rows.get_column("lamina_index").is_in(index.implode())))


def map_rows(catalog: Catalog, pipeline: Pipeline, app: App) -> RowMapping:
    """Map every row that `where` lets through.

    A row is kept as well where `where` comes to NULL over a cell that is not of its type: it becomes a finding,
    and does not vanish over a typing error.

    Raises PipelineError, at its place in the file, for a name that the app or the catalog lacks, a constant that the
    app would refuse, an input that must be supplied and is not, and SQL that cannot be read or run.
    """
    resolved = resolve_inputs(pipeline, app)
    sqls = _parse_expressions(pipeline)
    sql_uses = [ColumnReference(sql.path, root) for sql in sqls.values() for root in sql.column_names]
    names, notes = find_columns(catalog, pipeline, [*_column_references(pipeline), *sql_uses])
    cells = CellExpressions(catalog, pipeline, names)

    # SQL may look at the whole catalog (an average, say), so it is run over all of it and not in parts; and only once,
    # for nothing says that it would come to the same again.
    rows = cells.read(dict.fromkeys(use.written for use in sql_uses))
    passed = _apply_where(pipeline, sqls[WHERE], rows, cells) if WHERE in sqls else None
    rows = rows if passed is None else rows.filter(passed)
    made = {f"{_SQL_PREFIX}{sql.path[1]}": run_sql(pipeline, sql, rows) for path, sql in sqls.items() if path != WHERE}
    rows = rows.drop({use.written for use in sql_uses} - set(catalog.marks)).with_columns(**made)

    def again() -> pl.DataFrame:
        read = cells.read(())
        return (read if passed is None else read.filter(passed)).with_columns(**made)

    values: list[pl.Expr] = []
    inputs: list[MappedInput] = []
    for number, (parameter, rule) in enumerate(resolved.inputs):
        path = ("inputs", rule.parameter)
        sql = sqls.get((*path, "sql"))
        if sql is not None:
            name = f"{_SQL_PREFIX}{rule.parameter}"
            source = cells.result(sql.path, name, made[name].dtype)
            read = sql.column_names
        else:
            source = source_expression(cells, path, rule)
            read = tuple(use.written for use in rule_column_references(path, rule))
        slot = f"lamina_input_{number}"
        several = rows.lazy().select(source.alias(slot)).collect_schema()[slot] == pl.List
        values.append(rule_expression(source, rule, several=several).alias(slot))
        inputs.append(
            MappedInput(
                parameter=parameter,
                rule=rule,
                columns=tuple(names[written] for written in read),
                slot=slot,
                several=several,
            )
        )
    # What SQL makes of a mistyped cell is NULL, but no blank: that row is a finding.
    skips = [
        pl.col(item.slot).is_null() & ~cells.any_mistyped_expression(sqls[path].column_names if path in sqls else ())
        for item in inputs
        if item.rule.blank == "skip_row"
        for path in [("inputs", item.rule.parameter, "sql")]
    ]

    def apply(some: pl.DataFrame) -> MappedPart:
        mapped = some.with_columns(*values)
        kept, skipped = mapped, mapped.clear()
        if skips:
            skip = mapped.select(pl.any_horizontal(skips)).to_series()
            kept, skipped = mapped.filter(~skip), mapped.filter(skip).head(MAX_LISTED_ROWS)
        number = pl.format("row {}", "lamina_row")
        names = skipped.select(pl.when(cells.blank_key().is_null()).then(cells.key()).otherwise(number)).to_series()
        return MappedPart(
            frame=kept.select(*catalog.marks, cells.key(), cells.blank_key(), *(item.slot for item in inputs)),
            mistyped=cells.mistyped(kept),
            skipped_rows=mapped.height - kept.height,
            skipped_keys=tuple(names),
        )

    return RowMapping(
        inputs=tuple(inputs),
        matrix=resolved.matrix,
        notes=(*catalog.notes, *notes, *resolved.notes),
        _read=lambda: rows,
        _again=again,
        _rules=apply,
        _key=cells.key(),
    )


#: rows left out that are named
MAX_LISTED_ROWS = 5
#: what SQL made for each row; no column of the source begins so
_SQL_PREFIX = "lamina_sql:"


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
    passed = run_sql(pipeline, where, rows)
    if passed.dtype not in (pl.Boolean, pl.Null):
        raise pipeline.error(
            WHERE, f"this gives {passed.dtype}, and must give yes or no", "compare the column with something"
        )
    decided = passed.cast(pl.Boolean).fill_null(value=False)
    mistyped = rows.with_columns(cells.any_mistyped_expression(where.column_names).alias("lamina_result"))
    return decided | (passed.is_null() & mistyped.get_column("lamina_result"))


def _column_references(pipeline: Pipeline) -> Iterator[ColumnReference]:
    """The columns named outside of SQL."""
    yield from key_column_references(pipeline)
    for written in pipeline.rows.types:
        yield ColumnReference(("rows", "types", written), written)
    for rule in pipeline.inputs:
        yield from rule_column_references(("inputs", rule.parameter), rule)
