"""`where` and `sql`: polars SQL over the columns of one row, with errors at the place in the pipeline file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

if TYPE_CHECKING:
    from lamina_batch.catalog.columns import KeyPath
    from lamina_batch.pipeline.spec import Pipeline

WHERE = ("rows", "where")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`""")
#: what would let a text look like something else here than to the SQL parser
_UNSUPPORTED_SYNTAX = re.compile(r"""--|/\*|\$\w*\$|\b(?:\w|U&)'""", re.IGNORECASE)
#: what a query could read from is no column of the row: other files, for one, already while it is parsed
_QUERY = re.compile(r"\bselect\b|\(\s*(from|with|values)\b", re.IGNORECASE)
_READER_FUNCTION = re.compile(r"""\bread_\w+["`]?\s*\(""", re.IGNORECASE)


class SqlExpression(NamedTuple):
    """A parsed SQL expression of the pipeline file."""

    path: KeyPath
    expression: pl.Expr
    #: the columns it reads, as written
    column_names: tuple[str, ...]


def parse_sql(pipeline: Pipeline, path: KeyPath, text: str) -> SqlExpression:
    """Raises PipelineError if `text` is not one SQL expression."""
    if said := _unsupported_construct(text):
        raise pipeline.error(path, f"{said} inside the expression is not supported", _EXAMPLE_HINT)
    try:
        expression = pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise pipeline.error(path, f"this SQL cannot be read: {_first_line(error)}", _EXAMPLE_HINT) from error
    return SqlExpression(path, expression, tuple(dict.fromkeys(expression.meta.root_names())))


def run_sql(pipeline: Pipeline, sql: SqlExpression, rows: pl.DataFrame) -> pl.Series:
    """Its value for each of the rows, whose columns bear the names in `roots`. Raises PipelineError."""
    try:
        return rows.with_columns(sql.expression.alias("lamina_result")).get_column("lamina_result")
    except pl.exceptions.PolarsError as error:
        said = _first_line(error)
        if "string" in said or "str" in said or "Utf8" in said:
            hint = "cells of text files are text: name the column's type under `rows.types`, as {price: float}"
        else:
            hint = _EXAMPLE_HINT
        raise pipeline.error(sql.path, f"this SQL cannot be run over the rows: {said}", hint) from error


_EXAMPLE_HINT = "it is one expression over the columns, such as active = 'yes' AND \"Unit price\" > 100"


def _unsupported_construct(text: str) -> str | None:
    names = _QUOTED.sub(lambda found: "''" if found[0].startswith("'") else found[0], text)
    bare = _QUOTED.sub(lambda found: "''" if found[0].startswith("'") else '""', text)
    if _UNSUPPORTED_SYNTAX.search(bare):
        return "a comment, or a text in other quotes than '…',"
    if _QUERY.search(bare) or _READER_FUNCTION.search(names):
        return "a query"
    return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
