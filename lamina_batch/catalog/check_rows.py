"""Mapped rows -> jobs, and findings for what the service would refuse or nobody can have meant.

A row with an error is no exception but a job that is not valid; nothing is spent on it. Column-wise expressions let
the plainly good cells pass, and each distinct (parameter, value) of the rest is put to the JSON Schema once.
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
from lamina_batch.catalog.findings import FINDING_SCHEMA, make_findings, merge_findings
from lamina_batch.catalog.input_validator import InputValidator, quote_values
from lamina_batch.catalog.input_values import InputValues
from lamina_batch.catalog.mapping import MAX_LISTED_ROWS
from lamina_batch.catalog.resolve_inputs import variant_name, variants
from lamina_batch.pipeline.spec import Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.input_validator import Verdict
    from lamina_batch.catalog.mapping import MappedInput, MappedPart, RowMapping
    from lamina_batch.pipeline.spec import ColumnType, Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRows:
    """The jobs of a catalog, and the findings about its rows."""

    #: a line for each row and variant, in the order of the source: `lamina_index`, `row`, `key`, `variant` ("" without
    #: a matrix), `content` (the hash of what is sent, see content.py), `inputs_bytes` (the length of its canonical
    #: JSON), both null where not `valid`, and `code` and `message` of the row's first error, null where `valid`.
    #: Unless all contents were asked for, `content` and `inputs_bytes` are null as well where no other row is alike.
    jobs: pl.DataFrame
    #: a line for each bad cell, by row and then in the order of `inputs`: `lamina_index` (to join with `jobs`) and, as
    #: text, `row`, `key`, `column`, `parameter`, `value`, `code`, `severity`, `message`, `hint`, and `source` where
    #: there are several files; "" where one does not apply
    findings: pl.DataFrame
    #: rows left out by `blank: skip_row`, and what the first of them are called (`Part.skipped_names`)
    skipped_rows: int
    skipped_keys: tuple[str, ...]
    #: parameter -> valid jobs in which a blank leaves it out, so that the app's own default applies
    app_defaults: tuple[tuple[str, int], ...]
    #: warnings about the whole, for people
    notes: tuple[str, ...]
    _checker: _Checker

    def with_inputs(self, jobs: pl.DataFrame) -> pl.DataFrame:
        """Some of the jobs with `inputs`, the canonical JSON of what is sent; null where not `valid`.

        It is made anew each time: of a large catalog it would fill the memory.
        """
        made = self._checker.inputs(jobs.get_column("lamina_index").unique())
        found = jobs.join(made, on=["lamina_index", "variant"], how="left", maintain_order="left")
        return found.with_columns(pl.when("valid").then("inputs").alias("inputs"))


def check_rows(
    mapped: RowMapping,
    pipeline: Pipeline,
    app: App,
    *,
    service: str,
    contents: bool = True,
    known: Mapping[str, Mapping[str, Verdict]] = MappingProxyType({}),
) -> CheckedRows:
    """Check every mapped row; `service` is the base URL that the content hash is bound to, or `sandbox`.

    `known` holds, by parameter and value, verdicts that were found elsewhere, such as on URLs that were asked. Without
    `contents` only those are made without which it cannot be told which rows are equal: enough where there is no ledger
    to look them up in.
    """
    judges = [
        InputValidator(item.parameter, known.get(item.parameter.name, {}), words=tuple(item.rule.map))
        for item in mapped.inputs
    ]
    checker = _Checker(mapped, service, app.app_id, judges)
    twice = checker.duplicate_key_findings(pipeline)

    def batch(rows: pl.DataFrame) -> _PartResult:
        return checker.check(rows, twice, contents=contents)

    with ThreadPoolExecutor(_THREAD_COUNT) as threads:
        batches = list(threads.map(batch, mapped.parts(_PART_ROWS)))
    jobs = pl.concat([batch.jobs for batch in batches], rechunk=False)
    if not contents:
        jobs = checker.with_duplicate_contents(jobs, pl.concat(batch.alike for batch in batches))
    blanks = [sum(counts) for counts in zip(*(batch.blanks for batch in batches), strict=True)]
    names = [item.parameter.name for item in mapped.inputs]
    return CheckedRows(
        jobs=jobs,
        findings=pl.concat([batch.findings for batch in batches], rechunk=False),
        skipped_rows=sum(batch.skipped_rows for batch in batches),
        skipped_keys=tuple(name for batch in batches for name in batch.skipped_keys)[:MAX_LISTED_ROWS],
        app_defaults=tuple(
            (name, count * len(checker.variants)) for name, count in zip(names, blanks, strict=True) if count
        ),
        notes=mapped.notes,
        _checker=checker.without_cells(),
    )


#: rows that are mapped and checked at a time, and how many such parts at once: what bounds the memory
_PART_ROWS = 65_536
_THREAD_COUNT = 2


class _PartResult(NamedTuple):
    """What the check of some rows came to."""

    jobs: pl.DataFrame
    findings: pl.DataFrame
    #: without contents: for each of `jobs`, a number that is equal where the inputs are, and seldom otherwise
    alike: pl.Series
    #: for each input, the valid rows that leave it out
    blanks: tuple[int, ...]
    skipped_rows: int
    skipped_keys: tuple[str, ...]


class _Checker:
    """Checks rows of one catalog, some at a time."""

    def __init__(self, mapped: RowMapping, service: str, app_id: str, judges: Sequence[InputValidator]) -> None:
        self.mapped = mapped
        self._service = service
        self._app_id = app_id
        #: one for each input
        self._judges = judges
        self.variants = variants(mapped.matrix)

    def without_cells(self) -> _Checker:
        """The same for rows that are asked about later (`Mapped.at_rest`)."""
        return _Checker(self.mapped.without_cells(), self._service, self._app_id, self._judges)

    def check(self, rows: pl.DataFrame, twice: pl.DataFrame, *, contents: bool) -> _PartResult:
        """Check these rows; `twice` are the findings about keys that stand more than once in the catalog."""
        part = self.mapped.part(rows)
        found = [_type_findings(part), _blank_key_findings(part.frame)]
        if not twice.is_empty():
            found.append(twice.join(part.frame.select("lamina_index"), on="lamina_index", how="semi"))
        frame, make_findings = self._sent(part)
        findings = merge_findings([*found, *make_findings], part.frame)
        errors = (
            findings.filter(severity="error")
            .unique("lamina_index", keep="first", maintain_order=True)
            .select("lamina_index", "code", "message")
        )
        nothing = pl.lit(None, dtype=pl.String)
        frame = (
            frame.with_columns(nothing.alias("code"), nothing.alias("message"))
            if errors.is_empty()
            else frame.join(errors, on="lamina_index", how="left", maintain_order="left")
        )
        slots = [item.slot for item in self.mapped.inputs]
        hashed = frame.select(slots).hash_rows() if slots and not contents else pl.lit(0, dtype=pl.UInt64)
        frame = frame.with_columns(valid=pl.col("code").is_null(), alike=hashed)
        blanks = frame.select((pl.col(slot).is_null() & pl.col("valid")).sum() for slot in slots)
        jobs = self._jobs(frame, contents=contents)
        return _PartResult(
            jobs=jobs.select(_JOB_COLUMNS),
            findings=findings,
            alike=jobs.get_column("alike"),
            blanks=blanks.row(0) if slots else (),
            skipped_rows=part.skipped_rows,
            skipped_keys=part.skipped_keys,
        )

    def _sent(self, part: MappedPart) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
        """The rows with the values as they are sent, and what is to be said about them."""
        frame = part.frame
        found: list[pl.DataFrame] = []
        for order, (item, judge) in enumerate(zip(self.mapped.inputs, self._judges, strict=True)):
            values = InputValues(item, judge, part, order)
            found += values.findings()
            sent = values.sent()
            if sent is not None:
                frame = frame.with_columns(sent)
        return frame, found

    def _jobs(self, frame: pl.DataFrame, *, contents: bool) -> pl.DataFrame:
        """Every row in every variant, in the order of the source."""
        jobs = []
        for variant in self.variants:
            some = frame
            if contents:
                some = with_content_hash(frame, self._service, self._app_id, self._members(frame, variant))
            made = pl.col("valid") if contents else pl.lit(value=False)
            jobs.append(
                some.select(
                    "lamina_index",
                    "valid",
                    "code",
                    "message",
                    "alike",
                    row="lamina_row",
                    key="lamina_key",
                    variant=pl.lit(variant_name(variant)),
                    content=pl.when(made).then("content" if contents else pl.lit("")),
                    inputs_bytes=pl.when(made).then("inputs_bytes" if contents else pl.lit(0, dtype=pl.UInt32)),
                )
            )
        return jobs[0] if len(jobs) == 1 else pl.concat(jobs).sort("lamina_index", maintain_order=True)

    def _members(self, frame: pl.DataFrame, variant: Mapping[str, str]) -> dict[str, Member]:
        """The canonical inputs of rows whose slots hold what is sent."""
        return {item.parameter.name: _member(item, frame) for item in self.mapped.inputs} | {
            name: Member((string_json(value),)) for name, value in variant.items()
        }

    def inputs(self, index: pl.Series) -> pl.DataFrame:
        """The canonical inputs of these rows, in every variant: `lamina_index`, `variant`, `inputs`."""
        frame, _ = self._sent(self.mapped.some(index))
        return pl.concat(
            frame.select(
                "lamina_index",
                variant=pl.lit(variant_name(variant)),
                inputs=inputs_expression(self._members(frame, variant)),
            )
            for variant in self.variants
        )

    def with_duplicate_contents(self, jobs: pl.DataFrame, alike: pl.Series) -> pl.DataFrame:
        """The jobs, with the content of those that may be equal to another."""
        first = jobs.get_column("variant") == variant_name(self.variants[0])
        asked = jobs.select("lamina_index", "valid").with_columns(alike=alike).filter(first & pl.col("valid"))
        if asked.get_column("alike").n_unique() == asked.height:
            return jobs
        index = asked.filter(pl.col("alike").is_duplicated()).select("lamina_index")
        made = []
        for some in index.iter_slices(_PART_ROWS):
            frame, _ = self._sent(self.mapped.some(some.get_column("lamina_index")))
            nothing = pl.lit(None, dtype=pl.String)
            frame = frame.with_columns(valid=pl.lit(value=True), alike=0, code=nothing, message=nothing)
            made.append(self._jobs(frame, contents=True))
        found = pl.concat(made).select("lamina_index", "variant", "content", "inputs_bytes")
        return (
            jobs.drop("content", "inputs_bytes")
            .join(found, on=["lamina_index", "variant"], how="left", maintain_order="left")
            .select(_JOB_COLUMNS)
        )

    def duplicate_key_findings(self, pipeline: Pipeline) -> pl.DataFrame:
        """A finding for each row that shares its key with one whose inputs differ."""
        keys = self.mapped.key().hash()
        rows = pl.DataFrame(schema=FINDING_SCHEMA)
        if keys.n_unique() == keys.len():
            return rows
        frame, _ = self._sent(self.mapped.whole(keys.is_duplicated()))
        return _duplicate_key_findings(frame, inputs_expression(self._members(frame, {})), pipeline)


def _member(item: MappedInput, frame: pl.DataFrame) -> Member:
    if isinstance(item.rule.source, Value) and not item.several:
        return Member((string_json(item.rule.source.values[0]),))
    if item.several:
        return list_member(pl.col(item.slot))
    blank = frame.get_column(item.slot).null_count() > 0
    labels = item.parameter.options
    if labels and all(string_json(label) == f'"{label}"' for label in labels):
        # What is valid is one of them.
        return verbatim_member(pl.col(item.slot), optional=blank)
    # No URL that the schema lets through has control characters.
    return text_member(pl.col(item.slot), optional=blank, plain=item.parameter.type == "url")


_JOB_COLUMNS = ("lamina_index", "row", "key", "variant", "content", "inputs_bytes", "valid", "code", "message")


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
    named = pl.col("lamina_row").cast(pl.String)
    if "lamina_source" in rows.columns:
        named = pl.format("{} of {}", named, "lamina_source")
    group = "lamina_key"
    shared = (
        rows.filter(pl.col("lamina_blank_key").is_null() & pl.col(group).is_duplicated())
        .with_columns(inputs.alias("inputs"), named.alias("named"))
        .filter(pl.col("inputs").n_unique().over(group) > 1)
    )
    others = pl.when(pl.len().over(group) > _MAX_LISTED_ROWS).then(pl.lit(", ...")).otherwise(pl.lit(""))
    listed = pl.col("named").head(_MAX_LISTED_ROWS).str.join(", ").over(group)
    return make_findings(
        shared,
        _KEY_ORDER,
        code="duplicate_key",
        column=", ".join(pipeline.rows.key),
        value=pl.col(group),
        message=pl.format("rows {}{} share this key, and their inputs differ", listed, others),
        hint="give each row a key of its own, or list more columns under `rows.key`",
    )


_MAX_LISTED_ROWS = 5
#: what is wrong with a row as such comes before what is wrong with one input
_KEY_ORDER, _TYPE_ORDER = -2, -1


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
    """What to write for a number with a comma: the number itself, where it cannot be thousands that the comma parts."""
    words = "write a point instead of the decimal comma"
    plain = value.str.extract(r"^\s*([+-]?\d+,(?:\d{1,2}|\d{4,}))\s*$").str.replace(",", ".", literal=True)
    return (
        pl.when(plain.is_not_null())
        .then(pl.format(f"{words}: {{}}", plain))
        .otherwise(pl.lit(f"{words}, and no signs for thousands or currencies: 1200.50"))
    )


_TYPE_HINTS: Mapping[ColumnType, str] = {
    "text": "",
    "integer": "write digits only: 1200",
    "float": "write it with a point and without spaces or signs: 1200.50",
    "boolean": "write yes or no, true or false, 1 or 0",
    "date": "write it as 2026-03-31",
    "datetime": "write it as 2026-03-31T18:30:00",
}
