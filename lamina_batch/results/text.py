"""Text of ours in a CSV that a spreadsheet program will open."""

from __future__ import annotations

import polars as pl

#: What makes a spreadsheet program take a cell for a formula.
_FORMULA = r"^[=+\-@\t\r]"


def harmless(text: pl.Expr) -> pl.Expr:
    """The same text, with a leading `'` where a spreadsheet program would take it for a formula."""
    return pl.when(text.str.contains(_FORMULA)).then(pl.lit("'") + text).otherwise(text)
