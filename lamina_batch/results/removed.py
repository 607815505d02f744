"""What was bought for rows that are no longer run: gone from the source, left out by `where`, of another matrix."""

from __future__ import annotations

import polars as pl


def with_removed(jobs: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """The jobs of the check, and behind them those that only the ledger knows, each in its newest revision. Pure.

    What was only planned is left out: nothing came of it and nothing will. An added job has no `row`.
    """
    others = (
        ledger.filter(pl.col("status") != "planned")
        .join(jobs, on=["key", "variant"], how="anti")
        .sort("id")
        .unique(["key", "variant"], keep="last", maintain_order=True)
        .select("key", "variant", "content", valid=pl.lit(value=True))
    )
    return pl.concat([jobs, others], how="diagonal")
