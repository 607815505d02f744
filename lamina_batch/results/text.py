"""Text of ours in a CSV that a spreadsheet program will open."""

from __future__ import annotations

import polars as pl

#: What makes a spreadsheet program take a cell for a formula.
_FORMULA_START = r"^[=+\-@\t\r]"


def escape_formula(text: pl.Expr) -> pl.Expr:
    """The same text, with a leading `'` where a spreadsheet program would take it for a formula."""
    return text.map_batches(_escape_series, return_dtype=pl.String, is_elementwise=True)


def _escape_series(text: pl.Series) -> pl.Series:
    # Few columns hold any, and to look is much cheaper than to replace.
    return text.str.replace(_FORMULA_START, "'$0") if text.str.contains(_FORMULA_START).any() else text
