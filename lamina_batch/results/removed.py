"""What was bought for rows that are no longer run: gone, left out by `where`, of another matrix, invalid now."""

from __future__ import annotations

import polars as pl


def with_removed(jobs: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """The jobs of the check, and behind them those that only the ledger knows, each in its newest revision. Pure.

    A row that is invalid now does not stand for what was bought for it. What came to nothing gives way to an earlier
    revision that did not; what was only planned is left out: nothing will come of it. An added job has no `row`.
    """
    others = (
        ledger.filter(pl.col("status") != "planned")
        .join(jobs.filter("valid"), on=["key", "variant"], how="anti")
        .sort(~pl.col("status").is_in(["failed", "rejected"]), "id")
        .unique(["key", "variant"], keep="last", maintain_order=True)
        .select("key", "variant", "content", valid=pl.lit(value=True))
    )
    return pl.concat([jobs, others], how="diagonal")
