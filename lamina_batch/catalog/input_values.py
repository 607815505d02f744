"""The values of one input: which the app would refuse, which it spells otherwise, and what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.catalog.findings import make_findings
from lamina_batch.pipeline.spec import Columns, Sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina_batch.catalog.input_validator import InputValidator
    from lamina_batch.catalog.mapping import MappedInput, MappedPart


class InputValues:
    """What some rows give for one input, checked; `order` is its place among the findings of a row."""

    def __init__(self, item: MappedInput, judge: InputValidator, part: MappedPart, order: int) -> None:
        self._item = item
        self._part = part
        self._order = order
        values = part.frame.get_column(item.slot)
        self._verdicts = judge.verdicts((values.explode() if item.several else values).drop_nulls())

    def findings(self) -> Iterator[pl.DataFrame]:
        """What is wrong with the values of this input."""
        yield from self._blanks()
        if self._item.several and not self._item.parameter.multiple:
            yield self._too_many()
        if self._verdicts.height:
            yield self._bad_cells()

    def sent(self) -> pl.Expr | None:
        """The values as they are sent: in the app's own spelling, without blanks among them; None: as they stand."""
        value = pl.col(self._item.slot)
        other = self._verdicts.filter(pl.col("sent") != pl.col("value"))
        spelt = dict(other.select("value", "sent").iter_rows())
        if not self._item.several:
            return value.replace(spelt) if spelt else None
        value = value.list.drop_nulls()
        return value.list.eval(pl.element().replace(spelt)) if spelt else value

    def _blanks(self) -> Iterator[pl.DataFrame]:
        parameter, rule = self._item.parameter, self._item.rule
        blank = self._part.frame.filter(pl.col(self._item.slot).is_null())
        if isinstance(rule.source, Sql):
            # NULL over a cell that is not of its type: that cell is the finding, and it is not blank.
            blank = blank.join(self._part.mistyped, on="lamina_index", how="anti")
        if parameter.type == "url" and rule.blank is None:
            kind = parameter.accept[0] if parameter.accept else "file"
            instead = f": the app would use its own stock {kind}" if parameter.default is not None else ""
            yield self._said(
                blank,
                code="blank_image",
                message=f"no {kind} for {parameter.name!r}{instead}",
                hint="give its URL; or choose `blank: skip_row` or `blank: app_default` in the pipeline",
            )
        elif parameter.must_supply:
            yield self._said(
                blank,
                code="missing_input",
                message=f"{parameter.name!r} is blank, and the app needs it",
                hint="fill the cell, or give a `default` in the pipeline",
            )

    def _too_many(self) -> pl.DataFrame:
        values = pl.col(self._item.slot).list.drop_nulls()
        return self._said(
            self._part.frame.filter(values.list.len() > 1),
            code="too_many_values",
            value=values.list.join(", "),
            message=pl.format(
                "{} values, and {} takes one", values.list.len(), pl.lit(repr(self._item.parameter.name))
            ),
            hint="keep one of them",
        )

    def _bad_cells(self) -> pl.DataFrame:
        words = ("code", "severity", "message", "hint")
        verdicts = self._verdicts.filter(pl.col("code").is_not_null()).select("value", *words)
        found = self._cells().join(verdicts, on="value", how="inner", maintain_order="left")
        columns = ("column", "value", "position", *words)
        return self._said(found, **{name: pl.col(name) for name in columns})

    def _cells(self) -> pl.DataFrame:
        """Every single value with its row, its place in the list and the column it came from."""
        item = self._item
        value = pl.col(item.slot).alias("value")
        column = pl.lit(", ".join(item.columns)).alias("column")
        if not item.several:
            position = pl.lit(0, dtype=pl.Int64).alias("position")
            return self._part.frame.select("lamina_index", value, position, column)
        position = pl.int_ranges(pl.col(item.slot).list.len()).alias("position")
        if isinstance(item.rule.source, Columns):
            places = range(len(item.columns))
            column = pl.col("position").replace_strict(places, item.columns, return_dtype=pl.String)
        return (
            self._part.frame.filter(pl.col(item.slot).is_not_null())
            .select("lamina_index", value, position)
            .explode("value", "position")
            .with_columns(column.alias("column"))
        )

    def _said(self, rows: pl.DataFrame, **words: str | pl.Expr) -> pl.DataFrame:
        about = {"column": ", ".join(self._item.columns), "parameter": self._item.parameter.name}
        return make_findings(rows, self._order, **{**about, **words})
