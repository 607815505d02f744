"""Expressions over cells: which are blank, the text of typed ones, and text read as a type."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import polars as pl

if TYPE_CHECKING:
    from lamina_batch.pipeline.spec import ColumnType

#: above it, two integers may have the same float
_MAX_EXACT_INTEGER = 2.0**53


def is_blank(cell: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """Whether the cell is null, white space, NaN or an empty list."""
    if kind == pl.String:
        return cell.is_null() | (cell.str.strip_chars() == "")
    if isinstance(kind, pl.List):
        return cell.is_null() | (cell.list.len() == 0)
    if kind.is_float():
        return cell.is_null() | cell.is_nan()
    return cell.is_null()


def blank_to_null(text: pl.Expr) -> pl.Expr:
    """The text unchanged, or null if it is blank."""
    return pl.when(text.str.strip_chars() != "").then(text)


def utf8_bytes(text: pl.Expr) -> pl.Expr:
    """The UTF-8 bytes of the text. Comparing them is much faster than a regular expression."""
    return text.cast(pl.Binary).cast(pl.List(pl.UInt8))


def can_be_text(kind: pl.DataType) -> bool:
    """Whether cells of this type have a text: they are single values, and not bytes."""
    return not (kind.is_nested() or kind in (pl.Binary, pl.Object))


def as_text(cell: pl.Expr, kind: pl.DataType) -> pl.Expr:
    """The cell as a person would write it, or null if there is no value.

    Whole numbers have no decimals. NaN is no value: a data frame turns integers into floats with NaN if one is missing.
    Dates and times are ISO 8601.
    """
    if kind == pl.String:
        return cell
    if kind.is_float():
        whole = (cell == cell.round()) & (cell.abs() < _MAX_EXACT_INTEGER)
        digits = pl.when(whole).then(cell.cast(pl.Int64, strict=False).cast(pl.String))
        return pl.when(cell.is_not_nan()).then(digits.otherwise(cell.cast(pl.String)))
    if isinstance(kind, pl.Datetime):
        return cell.dt.to_string("%Y-%m-%dT%H:%M:%S%.f" + ("%:z" if kind.time_zone else ""))
    if isinstance(kind, pl.Duration):
        return cell.dt.to_string("iso")
    return cell.cast(pl.String)


def parse_as(text: pl.Expr, kind: ColumnType) -> pl.Expr:
    """The text as a value of a type under `rows.types`; null if it is blank or has no such value."""
    if kind == "text":
        return blank_to_null(text)
    word = text.str.strip_chars()
    match kind:
        case "integer":
            return word.cast(pl.Int64, strict=False)
        case "float":
            number = word.cast(pl.Float64, strict=False)
            # `nan` and `inf` in a price column are mistakes, and NaN compares as greater than any number.
            return pl.when(number.is_finite()).then(number)
        case "boolean":
            answer = word.str.to_lowercase()
            return pl.when(answer.is_in(_TRUE)).then(True).when(answer.is_in(_FALSE)).then(False)  # noqa: FBT003
        case "date":
            return word.str.to_date("%Y-%m-%d", strict=False)
        case "datetime":
            instant = word.str.replace(" ", "T", literal=True).str.strip_suffix("Z")
            return pl.coalesce(instant.str.to_datetime(form, strict=False) for form in _DATETIME_FORMATS)
        case _:
            assert_never(kind)


_TRUE = ("true", "yes", "1")
_FALSE = ("false", "no", "0")
_DATETIME_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
