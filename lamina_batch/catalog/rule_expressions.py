"""The expression of a rule of `inputs`: the value that each row gives for one input of the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import polars as pl

from lamina_batch.catalog.columns import ColumnReference
from lamina_batch.pipeline.spec import Column, Columns, Sql, Template, Value
from lamina_batch.sources.text import blank_to_null

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina_batch.catalog.cells import CellExpressions
    from lamina_batch.pipeline.problems import KeyPath
    from lamina_batch.pipeline.spec import InputRule


def rule_column_references(path: KeyPath, rule: InputRule) -> Iterator[ColumnReference]:
    """The columns that a rule names outside of SQL; `path` is the key path of the rule."""
    match rule.source:
        case Column(name=name):
            yield ColumnReference((*path, "column"), name)
        case Columns(names=names):
            yield from (ColumnReference((*path, "columns", at), name) for at, name in enumerate(names))
        case Template(columns=names):
            yield from (ColumnReference((*path, "template"), name) for name in names)
        case Value() | Sql():
            return
        case _:
            assert_never(rule.source)


def source_expression(cells: CellExpressions, path: KeyPath, rule: InputRule) -> pl.Expr:
    """The value of a rule's source, other than SQL: a text or a list of texts for each row."""
    match rule.source:
        case Column(name=name, split=None) if cells.dtype(name) == pl.List:
            return cells.texts((*path, "column"), name)
        case Column(name=name, split=None):
            return cells.text((*path, "column"), name)
        case Column(name=name, split=separator):
            return cells.text((*path, "column"), name).str.split(separator)
        case Columns():
            return pl.concat_list(cells.text(*reference) for reference in rule_column_references(path, rule))
        case Template(parts=parts):
            return pl.concat_str(
                blank_to_null(cells.text((*path, "template"), part)) if at % 2 else pl.lit(part)
                for at, part in enumerate(parts)
            )
        case Value(values=values):
            return pl.lit(values[0]) if len(values) == 1 else pl.lit(list(values), dtype=pl.List(pl.String))
        case Sql():
            raise TypeError("SQL is run over the rows, not built into an expression")
        case _:
            assert_never(rule.source)


def rule_expression(source: pl.Expr, rule: InputRule, *, is_list: bool) -> pl.Expr:
    """The value after `map` and `default`; null if it is blank."""
    if not is_list:
        # A template is null if one of its columns is blank, and a constant is never blank.
        blank_is_null = isinstance(rule.source, Template | Value) and not rule.map
        value = source if blank_is_null else _apply_map(source, rule)
        return value if rule.default is None else value.fill_null(rule.default)
    element = pl.element()
    if isinstance(rule.source, Column) and rule.source.split is not None:
        element = element.str.strip_chars()  # spaces around a separator do not belong to the value
    values = source.list.eval(_apply_map(element, rule))
    values = pl.when(values.list.drop_nulls().list.len() > 0).then(values)
    return values if rule.default is None else values.fill_null(pl.lit([rule.default]))


def _apply_map(text: pl.Expr, rule: InputRule) -> pl.Expr:
    text = blank_to_null(text)
    return blank_to_null(text.replace(dict(rule.map))) if rule.map else text
