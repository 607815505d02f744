"""Check mapped rows against the app's contract, and make jobs and findings of them.

A bad row is not an exception but a job that is not valid: nothing is spent on it. Expressions over whole columns find
the good cells, and only the distinct values of the others are looked at one by one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from lamina_batch.catalog.content_hash import (
    Member,
    inputs_expression,
    list_member,
    string_json,
    text_member,
    verbatim_member,
    with_content_hash,
)
from lamina_batch.catalog.findings import make_findings, merge_findings
from lamina_batch.catalog.input_validator import InputValidator, quote_values
from lamina_batch.catalog.input_values import InputValues
from lamina_batch.catalog.mapping import MAX_LISTED_ROWS
from lamina_batch.catalog.resolve_inputs import variant_name, variants
from lamina_batch.pipeline.spec import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.input_validator import Verdict
    from lamina_batch.catalog.mapping import MappedInput, MappedPart, RowMapping
    from lamina_batch.pipeline.spec import ColumnType, Pipeline

#: rows that are mapped and checked at a time, and parts at a time: they bound the memory
PART_ROWS = 65_536
_THREAD_COUNT = 2
_JOB_COLUMNS = ("lamina_index", "row", "key", "variant", "content", "inputs_bytes", "valid", "code", "message")
#: findings about the whole row come before the findings about its inputs
_KEY_ORDER, _TYPE_ORDER = -2, -1
#: rows that a finding about a shared key lists
_MAX_LISTED_ROWS = 5
_TYPE_HINTS: Mapping[ColumnType, str] = {
    "text": "",
    "integer": "write digits only: 1200",
    "float": "write it with a point and without spaces or signs: 1200.50",
    "boolean": "write yes or no, true or false, 1 or 0",
    "date": "write it as 2026-03-31",
    "datetime": "write it as 2026-03-31T18:30:00",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRows:
    """The jobs of a catalog, and the findings about its rows."""

    #: one line for each row and variant, in the order of the source: `lamina_index`, `row`, `key`, `variant` (""
    #: without a matrix), `content` (the content hash), `inputs_bytes` (the length of the canonical inputs), `valid`,
    #: and `code` and `message` of the row's first error. Valid jobs have no error; others have no content. Unless all
    #: hashes are made, `content` and `inputs_bytes` are also null if no other row has equal inputs
    jobs: pl.DataFrame
    #: one line for each bad cell, by row and then in the order of `inputs`: `lamina_index` as in `jobs`, and, as text,
    #: `row`, `key`, `column`, `parameter`, `value`, `code`, `severity`, `message`, `hint`, and `source` if there are
    #: several files. A text that does not apply is ""
    findings: pl.DataFrame
    #: the number of rows that `blank: skip_row` leaves out, and the keys of the first of them
    skipped_rows: int
    skipped_keys: tuple[str, ...]
    #: parameter -> valid jobs without a value for it, for which the app uses its default
    app_defaults: tuple[tuple[str, int], ...]
    #: warnings about the whole catalog
    notes: tuple[str, ...]
    _checker: _Checker

    def with_inputs(self, jobs: pl.DataFrame) -> pl.DataFrame:
        """Some of the jobs with `inputs`: the canonical JSON of what is sent, or null if the job is not valid.

        The inputs of a large catalog would fill the memory, so they are made anew each time.
        """
        inputs = self._checker.inputs(jobs.get_column("lamina_index").unique())
        joined = jobs.join(inputs, on=["lamina_index", "variant"], how="left", maintain_order="left")
        return joined.with_columns(pl.when("valid").then("inputs").alias("inputs"))


def check_rows(
    mapped: RowMapping,
    pipeline: Pipeline,
    app: App,
    *,
    service: str,
    all_hashes: bool = True,
    url_verdicts: Mapping[str, Mapping[str, Verdict]] = MappingProxyType({}),
) -> CheckedRows:
    """Check every mapped row.

    `service` is the base URL, or `sandbox`, and becomes part of the content hashes. Without `all_hashes`, only jobs
    with equal inputs get a content hash: that is enough if there is no ledger to look the others up in.
    `url_verdicts` holds, by parameter and value, verdicts that the schema cannot give, such as those on URLs that were
    requested.
    """
    validators = [
        InputValidator(item.parameter, url_verdicts.get(item.parameter.name, {}), map_keys=tuple(item.rule.map))
        for item in mapped.inputs
    ]
    checker = _Checker(mapped, service, app.app_id, validators)
    duplicates = checker.duplicate_key_findings(pipeline)

    def check_slice(rows: pl.DataFrame) -> _PartResult:
        return checker.check(rows, duplicates, all_hashes=all_hashes)

    with ThreadPoolExecutor(_THREAD_COUNT) as threads:
        parts = list(threads.map(check_slice, mapped.slices(PART_ROWS)))
    jobs = pl.concat([part.jobs for part in parts], rechunk=False)
    if not all_hashes:
        jobs = checker.with_duplicate_contents(jobs, pl.concat(part.quick_hashes for part in parts))
    blanks = {
        item.parameter.name: sum(part.blanks[at] for part in parts) * len(checker.variants)
        for at, item in enumerate(mapped.inputs)
    }
    return CheckedRows(
        jobs=jobs,
        findings=pl.concat([part.findings for part in parts], rechunk=False),
        skipped_rows=sum(part.skipped_rows for part in parts),
        skipped_keys=tuple(key for part in parts for key in part.skipped_keys)[:MAX_LISTED_ROWS],
        app_defaults=tuple((name, count) for name, count in blanks.items() if count),
        notes=mapped.notes,
        _checker=_Checker(mapped.without_cells(), service, app.app_id, validators),
    )


class _PartResult(NamedTuple):
    """The result for some of the rows."""

    jobs: pl.DataFrame
    findings: pl.DataFrame
    #: without all hashes: a number for each of `jobs`, equal if the inputs are, and seldom equal otherwise
    quick_hashes: pl.Series
    #: for each input, the valid rows without a value
    blanks: tuple[int, ...]
    skipped_rows: int
    skipped_keys: tuple[str, ...]


class _Checker:
    """Checks rows of one catalog, some at a time. There is one validator for each input."""

    def __init__(self, mapped: RowMapping, service: str, app_id: str, validators: list[InputValidator]) -> None:
        self._mapped = mapped
        self._service = service
        self._app_id = app_id
        self._validators = validators
        self.variants = variants(mapped.matrix)

    def check(self, rows: pl.DataFrame, duplicates: pl.DataFrame, *, all_hashes: bool) -> _PartResult:
        """Check these rows; `duplicates` holds the findings about keys that several rows of the catalog share."""
        part = self._mapped.map_slice(rows)
        frame, input_findings = self._with_sent_values(part)
        findings = merge_findings(
            [
                _type_findings(part),
                _blank_key_findings(part.frame),
                duplicates.join(part.frame.select("lamina_index"), on="lamina_index", how="semi"),
                *input_findings,
            ],
            part.frame,
        )
        errors = findings.filter(severity="error").unique("lamina_index", keep="first", maintain_order=True)
        errors = errors.select("lamina_index", "code", "message")
        frame = frame.join(errors, on="lamina_index", how="left", maintain_order="left")
        columns = [item.value_column for item in self._mapped.inputs]
        quick_hashes = frame.select(columns).hash_rows() if columns and not all_hashes else pl.lit(0, dtype=pl.UInt64)
        frame = frame.with_columns(valid=pl.col("code").is_null(), quick_hash=quick_hashes)
        blanks = frame.select((pl.col(column).is_null() & pl.col("valid")).sum() for column in columns)
        jobs = self._jobs(frame, all_hashes=all_hashes)
        return _PartResult(
            jobs=jobs.select(_JOB_COLUMNS),
            findings=findings,
            quick_hashes=jobs.get_column("quick_hash"),
            blanks=blanks.row(0) if columns else (),
            skipped_rows=part.skipped_rows,
            skipped_keys=part.skipped_keys,
        )

    def inputs(self, index: pl.Series) -> pl.DataFrame:
        """The canonical inputs of the rows with this `lamina_index`: `lamina_index`, `variant`, `inputs`."""
        frame, _ = self._with_sent_values(self._mapped.map_rows_at(index))
        return pl.concat(
            frame.select(
                "lamina_index",
                variant=pl.lit(variant_name(variant)),
                inputs=inputs_expression(self._members(frame, variant)),
            )
            for variant in self.variants
        )

    def with_duplicate_contents(self, jobs: pl.DataFrame, quick_hashes: pl.Series) -> pl.DataFrame:
        """The jobs, with content hashes for those whose inputs may be equal to another's."""
        valid = jobs.select("lamina_index", "valid", "variant").with_columns(quick_hash=quick_hashes)
        valid = valid.filter(pl.col("valid") & (pl.col("variant") == variant_name(self.variants[0])))
        index = valid.filter(pl.col("quick_hash").is_duplicated()).get_column("lamina_index")
        if index.is_empty():
            return jobs
        hashes = []
        for start in range(0, len(index), PART_ROWS):
            frame, _ = self._with_sent_values(self._mapped.map_rows_at(index.slice(start, PART_ROWS)))
            hashes += [
                self._with_content_hash(frame, variant).select(
                    "lamina_index", "content", "inputs_bytes", variant=pl.lit(variant_name(variant))
                )
                for variant in self.variants
            ]
        return (
            jobs.drop("content", "inputs_bytes")
            .join(pl.concat(hashes), on=["lamina_index", "variant"], how="left", maintain_order="left")
            .select(_JOB_COLUMNS)
        )

    def duplicate_key_findings(self, pipeline: Pipeline) -> pl.DataFrame:
        """A finding for each row that shares its key with a row whose inputs differ."""
        # Hashes of keys take less memory than keys, and keys of the same hash are compared below.
        keys = self._mapped.row_keys().with_columns(pl.col("lamina_key").hash())
        index = keys.filter(pl.col("lamina_key").is_duplicated()).get_column("lamina_index")
        frame, _ = self._with_sent_values(self._mapped.map_rows_at(index))
        return _duplicate_key_findings(frame, inputs_expression(self._members(frame, {})), pipeline)

    def _with_sent_values(self, part: MappedPart) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
        """The rows with the values that are sent, and the findings about them."""
        frame = part.frame
        findings: list[pl.DataFrame] = []
        for order, (item, validator) in enumerate(zip(self._mapped.inputs, self._validators, strict=True)):
            values = InputValues(item, validator, part, order)
            findings += values.findings()
            sent = values.sent_expression()
            if sent is not None:
                frame = frame.with_columns(sent)
        return frame, findings

    def _jobs(self, frame: pl.DataFrame, *, all_hashes: bool) -> pl.DataFrame:
        """Every row in every variant, in the order of the source."""
        no_hash = {"content": pl.lit(None, dtype=pl.String), "inputs_bytes": pl.lit(None, dtype=pl.UInt32)}
        jobs = [
            (self._with_content_hash(frame, variant) if all_hashes else frame.with_columns(**no_hash)).select(
                "lamina_index",
                "valid",
                "code",
                "message",
                "quick_hash",
                row="lamina_row",
                key="lamina_key",
                variant=pl.lit(variant_name(variant)),
                content=pl.when("valid").then("content"),
                inputs_bytes=pl.when("valid").then("inputs_bytes"),
            )
            for variant in self.variants
        ]
        return jobs[0] if len(jobs) == 1 else pl.concat(jobs).sort("lamina_index", maintain_order=True)

    def _with_content_hash(self, frame: pl.DataFrame, variant: Mapping[str, str]) -> pl.DataFrame:
        return with_content_hash(frame, self._service, self._app_id, self._members(frame, variant))

    def _members(self, frame: pl.DataFrame, variant: Mapping[str, str]) -> dict[str, Member]:
        """The members of the canonical inputs, for rows that hold the values that are sent."""
        return {item.parameter.name: _member(item, frame) for item in self._mapped.inputs} | {
            name: Member((string_json(value),)) for name, value in variant.items()
        }


def _member(item: MappedInput, frame: pl.DataFrame) -> Member:
    value = pl.col(item.value_column)
    if item.is_list:
        return list_member(value)
    if isinstance(item.rule.source, Value):
        return Member((string_json(item.rule.source.values[0]),))
    optional = frame.get_column(item.value_column).null_count() > 0
    labels = item.parameter.options
    if labels and all(string_json(label) == f'"{label}"' for label in labels):
        # A valid value is one of the labels.
        return verbatim_member(value, optional=optional)
    # A valid URL has no control characters.
    return text_member(value, optional=optional, plain=item.parameter.type == "url")


def _blank_key_findings(rows: pl.DataFrame) -> pl.DataFrame:
    return make_findings(
        rows.filter(pl.col("lamina_blank_key").is_not_null()),
        _KEY_ORDER,
        code="blank_key",
        column=pl.col("lamina_blank_key"),
        message=pl.format("'{}' is blank, and it names the row", "lamina_blank_key"),
        hint="give the row a key of its own: results are kept and found by it",
    )


def _duplicate_key_findings(rows: pl.DataFrame, inputs: pl.Expr, pipeline: Pipeline) -> pl.DataFrame:
    label = pl.col("lamina_row").cast(pl.String)
    if "lamina_source" in rows.columns:
        label = pl.format("{} of {}", label, "lamina_source")
    key = "lamina_key"
    shared = (
        rows.filter(pl.col("lamina_blank_key").is_null() & pl.col(key).is_duplicated())
        .with_columns(inputs.alias("inputs"), label.alias("label"))
        .filter(pl.col("inputs").n_unique().over(key) > 1)
    )
    listed = pl.col("label").head(_MAX_LISTED_ROWS).str.join(", ").over(key)
    more = pl.when(pl.len().over(key) > _MAX_LISTED_ROWS).then(pl.lit(", ...")).otherwise(pl.lit(""))
    return make_findings(
        shared,
        _KEY_ORDER,
        code="duplicate_key",
        column=", ".join(pipeline.rows.key),
        value=pl.col(key),
        message=pl.format("rows {}{} share this key, and their inputs differ", listed, more),
        hint="give each row a key of its own, or list more columns under `rows.key`",
    )


def _type_findings(part: MappedPart) -> pl.DataFrame:
    return make_findings(
        part.mistyped,
        _TYPE_ORDER,
        code="invalid_type",
        column=pl.col("column"),
        value=pl.col("value"),
        message=pl.format(
            "{} is not of the type {}, as `rows.types` says", quote_values(part.mistyped.get_column("value")), "type"
        ),
        hint=pl.when((pl.col("type") == "float") & pl.col("value").str.contains(r"\d,\d"))
        .then(_decimal_comma_hint(pl.col("value")))
        .otherwise(pl.col("type").replace_strict(_TYPE_HINTS, return_dtype=pl.String)),
    )


def _decimal_comma_hint(value: pl.Expr) -> pl.Expr:
    """A hint for a number with a comma; it shows the number with a point, unless the comma may separate thousands."""
    advice = "write a point instead of the decimal comma"
    number = value.str.extract(r"^\s*([+-]?\d+,(?:\d{1,2}|\d{4,}))\s*$").str.replace(",", ".", literal=True)
    return (
        pl.when(number.is_not_null())
        .then(pl.format(f"{advice}: {{}}", number))
        .otherwise(pl.lit(f"{advice}, and no signs for thousands or currencies: 1200.50"))
    )
