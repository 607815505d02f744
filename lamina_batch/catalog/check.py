"""Mapped rows -> jobs, and findings for what the service would refuse or nobody can have meant.

A row with an error is no exception but a job that is not valid; nothing is spent on it. Column-wise expressions let
the plainly good cells pass, and each distinct (parameter, value) of the rest is put to the JSON Schema once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.catalog.content import (
    content_hashes,
    inputs_expression,
    list_json,
    string_json,
    text_json,
)
from lamina_batch.catalog.findings import assembled, said
from lamina_batch.catalog.values import Values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.mapping import Mapped
    from lamina_batch.catalog.verdict import Verdict
    from lamina_batch.pipeline.spec import ColumnType, Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    #: a line for each row and variant, in the order of the source: `lamina_index`, `row`, `key`, `variant` ("" without
    #: a matrix), `inputs` (canonical JSON) and `content` (its hash, see content.py), both null where not `valid`, and
    #: `code` and `message` of the row's first error, null where `valid`
    jobs: pl.DataFrame
    #: a line for each bad cell, by row and then in the order of `inputs`: `lamina_index` (to join with `jobs`) and, as
    #: text, `row`, `key`, `column`, `parameter`, `value`, `code`, `severity`, `message`, `hint`, and `source` where
    #: there are several files; "" where one does not apply
    findings: pl.DataFrame
    #: rows left out by `blank: skip_row`
    skipped_rows: int
    #: parameter -> valid jobs in which a blank leaves it out, so that the app's own default applies
    app_defaults: tuple[tuple[str, int], ...]
    #: warnings about the whole, for people
    notes: tuple[str, ...]


def check_rows(
    mapped: Mapped,
    pipeline: Pipeline,
    app: App,
    *,
    service: str,
    known: Mapping[str, Mapping[str, Verdict]] = MappingProxyType({}),
) -> Checked:
    """Check every mapped row; `service` is the base URL that the content hash is bound to, or `sandbox`.

    `known` holds, by parameter and value, verdicts that were found elsewhere, such as on URLs that were asked.
    """
    found: list[pl.DataFrame] = [_mistyped(mapped)]
    rows = mapped.frame
    for order, item in enumerate(mapped.inputs):
        values = Values(item, mapped, order, known.get(item.parameter.name, {}))
        found += values.findings()
        rows = rows.with_columns(values.sent())

    members = {
        item.parameter.name: list_json(pl.col(item.slot)) if item.several else text_json(pl.col(item.slot))
        for item in mapped.inputs
    }
    found += _keys(rows, inputs_expression(members), pipeline)
    findings = assembled(found, mapped.frame)
    jobs = _jobs(rows, members, mapped, findings)
    valid = rows.join(findings.filter(severity="error"), on="lamina_index", how="anti")
    variants = len(_variants(mapped))
    blanks = [(item.parameter.name, valid.get_column(item.slot).null_count() * variants) for item in mapped.inputs]
    return Checked(
        jobs=jobs.with_columns(content_hashes(service, app.app_id, jobs.get_column("inputs"))).select(_JOBS),
        findings=findings,
        skipped_rows=mapped.skipped_rows,
        app_defaults=tuple((name, count) for name, count in blanks if count),
        notes=mapped.notes,
    )


_JOBS = ("lamina_index", "row", "key", "variant", "inputs", "content", "valid", "code", "message")


def _keys(rows: pl.DataFrame, inputs: pl.Expr, pipeline: Pipeline) -> Iterator[pl.DataFrame]:
    yield said(
        rows.filter(pl.col("lamina_blank_key").is_not_null()),
        _KEYS,
        code="blank_key",
        column=pl.col("lamina_blank_key"),
        message=pl.format("'{}' is blank, and it names the row", "lamina_blank_key"),
        hint="give the row a key of its own: results are kept and found by it",
    )
    named = pl.col("lamina_row").cast(pl.String)
    if "lamina_source" in rows.columns:
        named = pl.format("{} of {}", named, "lamina_source")
    group = "lamina_key"
    shared = (
        rows.filter(pl.col("lamina_blank_key").is_null() & pl.col(group).is_duplicated())
        .with_columns(inputs.alias("inputs"), named.alias("named"))
        .filter(pl.col("inputs").n_unique().over(group) > 1)
    )
    others = pl.when(pl.len().over(group) > _NAMED_ROWS).then(pl.lit(", ...")).otherwise(pl.lit(""))
    listed = pl.col("named").head(_NAMED_ROWS).str.join(", ").over(group)
    yield said(
        shared,
        _KEYS,
        code="duplicate_key",
        column=", ".join(pipeline.rows.key),
        value=pl.col(group),
        message=pl.format("rows {}{} share this key, and their inputs differ", listed, others),
        hint="give each row a key of its own, or list more columns under `rows.key`",
    )


_NAMED_ROWS = 5
#: what is wrong with a row as such comes before what is wrong with one input
_KEYS, _TYPES = -2, -1


def _mistyped(mapped: Mapped) -> pl.DataFrame:
    return said(
        mapped.mistyped,
        _TYPES,
        code="invalid_type",
        column=pl.col("column"),
        value=pl.col("value"),
        message=pl.format("'{}' is not of the type {}, as `rows.types` says", "column", "type"),
        hint=pl.col("type").replace_strict(_SPELT, return_dtype=pl.String),
    )


_SPELT: Mapping[ColumnType, str] = {
    "text": "",
    "integer": "write digits only: 1200",
    "float": "write it with a point and without spaces or signs: 1200.50",
    "boolean": "write yes or no, true or false, 1 or 0",
    "date": "write it as 2026-03-31",
    "datetime": "write it as 2026-03-31T18:30:00",
}


def _variants(mapped: Mapped) -> list[dict[str, str]]:
    """Each combination of the matrix as parameter -> value; a single empty one without a matrix."""
    names = [parameter.name for parameter, _ in mapped.matrix]
    return [
        dict(zip(names, values, strict=True)) for values in itertools.product(*(values for _, values in mapped.matrix))
    ]


def _jobs(rows: pl.DataFrame, members: Mapping[str, pl.Expr], mapped: Mapped, findings: pl.DataFrame) -> pl.DataFrame:
    """Every row in every variant, with its canonical inputs where nothing is wrong with the row."""
    jobs = pl.concat(
        rows.select(
            "lamina_index",
            pl.col("lamina_row").alias("row"),
            pl.col("lamina_key").alias("key"),
            pl.lit("; ".join(sorted(f"{name}={value}" for name, value in variant.items()))).alias("variant"),
            inputs_expression(
                {**members, **{name: pl.lit(string_json(value)) for name, value in variant.items()}}
            ).alias("inputs"),
        )
        for variant in _variants(mapped)
    )
    errors = (
        findings.filter(severity="error")
        .unique("lamina_index", keep="first", maintain_order=True)
        .select("lamina_index", "code", "message")
    )
    valid = pl.col("code").is_null()
    return (
        jobs.sort("lamina_index", maintain_order=True)
        .join(errors, on="lamina_index", how="left", maintain_order="left")
        .with_columns(valid.alias("valid"), pl.when(valid).then("inputs").alias("inputs"))
    )
