"""Findings in the making: what each check says about the rows it names, and all of it put in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

#: what a finding says: all text, "" where one does not apply
_TEXT_COLUMNS = ("column", "parameter", "value", "code", "severity", "message", "hint")
#: where it belongs: the row, the check among the checks, the cell within its list
_ORDER_COLUMNS = {"lamina_index": pl.UInt32, "order": pl.Int64, "position": pl.Int64}
#: what `said` answers
FINDING_SCHEMA = dict(sorted((_ORDER_COLUMNS | dict.fromkeys(_TEXT_COLUMNS, pl.String)).items()))


def make_findings(rows: pl.DataFrame, order: int, **words: str | pl.Expr) -> pl.DataFrame:
    """A finding for each of the rows, an error unless `words` gives another severity.

    `words` holds its text, fixed or an expression over `rows`, by the names of the columns of the findings;
    `position` tells several of one row and check apart.
    """
    given: dict[str, str | pl.Expr] = {
        **dict.fromkeys(_TEXT_COLUMNS, ""),
        "severity": "error",
        "position": pl.lit(0),
        **words,
        "order": pl.lit(order),
        "lamina_index": pl.col("lamina_index"),
    }
    return rows.select(
        (pl.lit(word) if isinstance(word, str) else word).cast(FINDING_SCHEMA[name]).alias(name)
        for name in FINDING_SCHEMA
        for word in [given[name]]
    )


def merge_findings(found: Iterable[pl.DataFrame], rows: pl.DataFrame) -> pl.DataFrame:
    """All findings with the rows they are about, by row and then in order."""
    source = ["source"] if "lamina_source" in rows.columns else []
    told = pl.concat([pl.DataFrame(schema=FINDING_SCHEMA), *(one for one in found if not one.is_empty())])
    about = rows if not told.is_empty() else rows.clear()
    about = about.select(
        "lamina_index",
        pl.col("lamina_row").cast(pl.String).alias("row"),
        pl.col("lamina_key").alias("key"),
        *(pl.col(f"lamina_{name}").alias(name) for name in source),
    )
    return (
        told.join(about, on="lamina_index", how="inner")
        .sort(list(_ORDER_COLUMNS), maintain_order=True)
        .select("lamina_index", "row", "key", *_TEXT_COLUMNS, *source)
    )
