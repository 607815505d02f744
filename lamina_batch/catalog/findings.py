"""Build findings, and merge those of all checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable

#: texts of a finding; "" if one does not apply
_TEXT_COLUMNS = ("column", "parameter", "value", "code", "severity", "message", "hint")
#: the order of findings: by row, by check, by position of the value in its list
_ORDER_COLUMNS = {"lamina_index": pl.UInt32, "order": pl.Int64, "position": pl.Int64}
#: columns of `make_findings`
FINDING_SCHEMA = dict(sorted((_ORDER_COLUMNS | dict.fromkeys(_TEXT_COLUMNS, pl.String)).items()))


def make_findings(rows: pl.DataFrame, order: int, **texts: str | pl.Expr) -> pl.DataFrame:
    """One finding for each row; its severity is error unless `texts` has another.

    `texts` holds the texts by column, each fixed or an expression over `rows`. `position` orders findings of one row
    and check.
    """
    columns: dict[str, str | pl.Expr] = {
        **dict.fromkeys(_TEXT_COLUMNS, ""),
        "severity": "error",
        "position": pl.lit(0),
        **texts,
        "order": pl.lit(order),
        "lamina_index": pl.col("lamina_index"),
    }
    return rows.select(
        (pl.lit(text) if isinstance(text, str) else text).cast(dtype).alias(name)
        for name, dtype in FINDING_SCHEMA.items()
        for text in [columns[name]]
    )


def merge_findings(frames: Iterable[pl.DataFrame], rows: pl.DataFrame) -> pl.DataFrame:
    """All findings in order, joined with the names of their rows."""
    source = ["source"] if "lamina_source" in rows.columns else []
    findings = pl.concat([pl.DataFrame(schema=FINDING_SCHEMA), *(frame for frame in frames if not frame.is_empty())])
    named_rows = (rows.clear() if findings.is_empty() else rows).select(
        "lamina_index",
        pl.col("lamina_row").cast(pl.String).alias("row"),
        pl.col("lamina_key").alias("key"),
        *(pl.col(f"lamina_{name}").alias(name) for name in source),
    )
    return (
        findings.join(named_rows, on="lamina_index", how="inner")
        .sort(list(_ORDER_COLUMNS), maintain_order=True)
        .select("lamina_index", "row", "key", *_TEXT_COLUMNS, *source)
    )
