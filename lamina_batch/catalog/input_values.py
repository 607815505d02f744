"""The values of one input: the findings about them, and what is sent."""

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
    """The checked values of some rows for one input; `order` is its position among the inputs."""

    def __init__(self, item: MappedInput, validator: InputValidator, part: MappedPart, order: int) -> None:
        self._item = item
        self._part = part
        self._order = order
        values = part.frame.get_column(item.value_column)
        self._verdicts = validator.validate_series((values.explode() if item.is_list else values).drop_nulls())

    def findings(self) -> Iterator[pl.DataFrame]:
        """The findings about the values."""
        yield from self._blanks()
        if self._item.is_list and not self._item.parameter.multiple:
            yield self._too_many()
        if self._verdicts.height:
            yield self._bad_cells()

    def sent_expression(self) -> pl.Expr | None:
        """The values in the app's own spelling, without blanks in lists; None if nothing changes."""
        value = pl.col(self._item.value_column)
        changed = self._verdicts.filter(pl.col("sent") != pl.col("value"))
        spellings = dict(changed.select("value", "sent").iter_rows())
        if not self._item.is_list:
            return value.replace(spellings) if spellings else None
        value = value.list.drop_nulls()
        return value.list.eval(pl.element().replace(spellings)) if spellings else value

    def _blanks(self) -> Iterator[pl.DataFrame]:
        parameter, rule = self._item.parameter, self._item.rule
        blank = self._part.frame.filter(pl.col(self._item.value_column).is_null())
        if isinstance(rule.source, Sql):
            # SQL gives NULL for a cell that is not of its type. That cell has a finding already.
            blank = blank.join(self._part.mistyped, on="lamina_index", how="anti")
        if parameter.type == "url" and rule.blank is None:
            kind = parameter.accept[0] if parameter.accept else "file"
            instead = f": the app would use its own stock {kind}" if parameter.default is not None else ""
            yield self._make_findings(
                blank,
                code="blank_image",
                message=f"no {kind} for {parameter.name!r}{instead}",
                hint="give its URL; or choose `blank: skip_row` or `blank: app_default` in the pipeline",
            )
        elif parameter.must_supply:
            yield self._make_findings(
                blank,
                code="missing_input",
                message=f"{parameter.name!r} is blank, and the app needs it",
                hint="fill the cell, or give a `default` in the pipeline",
            )

    def _too_many(self) -> pl.DataFrame:
        values = pl.col(self._item.value_column).list.drop_nulls()
        return self._make_findings(
            self._part.frame.filter(values.list.len() > 1),
            code="too_many_values",
            value=values.list.join(", "),
            message=pl.format(
                "{} values, and {} takes one", values.list.len(), pl.lit(repr(self._item.parameter.name))
            ),
            hint="keep one of them",
        )

    def _bad_cells(self) -> pl.DataFrame:
        texts = ("code", "severity", "message", "hint")
        verdicts = self._verdicts.filter(pl.col("code").is_not_null()).select("value", *texts)
        cells = self._cells().join(verdicts, on="value", how="inner", maintain_order="left")
        return self._make_findings(cells, **{name: pl.col(name) for name in ("column", "value", "position", *texts)})

    def _cells(self) -> pl.DataFrame:
        """Every single value with its row, its position in the list and its column."""
        item = self._item
        value = pl.col(item.value_column).alias("value")
        column = pl.lit(", ".join(item.columns)).alias("column")
        if not item.is_list:
            position = pl.lit(0, dtype=pl.Int64).alias("position")
            return self._part.frame.select("lamina_index", value, position, column)
        position = pl.int_ranges(pl.col(item.value_column).list.len()).alias("position")
        if isinstance(item.rule.source, Columns):
            column = pl.col("position").replace_strict(range(len(item.columns)), item.columns, return_dtype=pl.String)
        return (
            self._part.frame.filter(pl.col(item.value_column).is_not_null())
            .select("lamina_index", value, position)
            .explode("value", "position")
            .with_columns(column.alias("column"))
        )

    def _make_findings(self, rows: pl.DataFrame, **texts: str | pl.Expr) -> pl.DataFrame:
        about = {"column": ", ".join(self._item.columns), "parameter": self._item.parameter.name}
        return make_findings(rows, self._order, **{**about, **texts})
