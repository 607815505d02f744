"""The `where` and `sql` of a pipeline: polars SQL over columns, with errors at the position in the pipeline file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lamina_batch.sources.table import first_line

if TYPE_CHECKING:
    from lamina_batch.pipeline.problems import KeyPath
    from lamina_batch.pipeline.spec import Pipeline

WHERE = ("rows", "where")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`""")
#: syntax that makes the SQL parser find other texts than `_QUOTED` does
_UNSUPPORTED_SYNTAX = re.compile(r"""--|/\*|\$\w*\$|\b(?:\w|U&)'""", re.IGNORECASE)
#: a query may read other things than columns, such as files, and polars reads them already when it parses
_QUERY = re.compile(r"\bselect\b|\(\s*(from|with|values)\b", re.IGNORECASE)
_READER_FUNCTION = re.compile(r"""\bread_\w+["`]?\s*\(""", re.IGNORECASE)


class SqlExpression(NamedTuple):
    """A parsed SQL expression of the pipeline file."""

    path: KeyPath
    expression: pl.Expr
    #: the columns that it reads, as written
    column_names: tuple[str, ...]


def parse_sql(pipeline: Pipeline, path: KeyPath, text: str) -> SqlExpression:
    """Raises PipelineError if `text` is not one SQL expression."""
    if construct := _unsupported_construct(text):
        raise pipeline.error(path, f"{construct} inside the expression is not supported", _EXAMPLE_HINT)
    try:
        expression = pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise pipeline.error(path, f"this SQL cannot be read: {first_line(error)}", _EXAMPLE_HINT) from error
    return SqlExpression(path, expression, tuple(dict.fromkeys(expression.meta.root_names())))


def run_sql(pipeline: Pipeline, sql: SqlExpression, rows: pl.DataFrame) -> pl.Series:
    """The value for each row; `rows` has the columns `column_names`. Raises PipelineError if it cannot be run."""
    try:
        return rows.with_columns(sql.expression.alias("lamina_result")).get_column("lamina_result")
    except pl.exceptions.PolarsError as error:
        reason = first_line(error)
        if "str" in reason or "Utf8" in reason:
            hint = "cells of text files are text: name the column's type under `rows.types`, as {price: float}"
        else:
            hint = _EXAMPLE_HINT
        raise pipeline.error(sql.path, f"this SQL cannot be run over the rows: {reason}", hint) from error


_EXAMPLE_HINT = "it is one expression over the columns, such as active = 'yes' AND \"Unit price\" > 100"


def _unsupported_construct(text: str) -> str | None:
    names = _QUOTED.sub(lambda found: "''" if found[0].startswith("'") else found[0], text)
    bare = _QUOTED.sub(lambda found: "''" if found[0].startswith("'") else '""', text)
    if _UNSUPPORTED_SYNTAX.search(bare):
        return "a comment, or a text in other quotes than '…',"
    if _QUERY.search(bare) or _READER_FUNCTION.search(names):
        return "a query"
    return None
