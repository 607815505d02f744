"""What the report shows, gathered before anything is rendered. Pure, but for a look at which saved files are there.

Texts of the catalog and of the service are kept as text. What may stand in a `src` is decided here, once: an http(s)
address, or the path of a file of ours relative to the page, so that both can be moved together.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

import polars as pl

from lamina_batch.catalog.cells import key_column_references
from lamina_batch.catalog.columns import find_columns
from lamina_batch.catalog.resolve_inputs import resolve_inputs
from lamina_batch.catalog.rule_expressions import rule_column_references
from lamina_batch.pipeline.spec import Column, Columns
from lamina_batch.results.summary import MAX_REPORTED_JOBS, PROBLEM_STATUSES, STATUSES
from lamina_batch.sheets.fields import fields
from lamina_batch.sheets.words import explain_for_merchandiser, named_columns, split_columns
from lamina_batch.sources.table import normalise_header

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lamina_batch.apps.app import App, Parameter
    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.pipeline.spec import InputRule, Pipeline
    from lamina_batch.results.manifest import Outcomes
    from lamina_batch.sources.table import Catalog

#: A page holds at most so many characters of text; what is left out is counted on it.
MAX_CHARACTERS = 50_000_000
#: characters of one text
_MAX_INPUT_CHARACTERS = 2_000
_MAX_OUTPUT_CHARACTERS = 20_000

Kind = Literal["image", "video", "audio", "text", "link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """A picture that was sent, or one output."""

    label: str
    kind: Kind
    #: where it is: http(s), or relative to the page; None: nowhere that may be linked
    src: str | None = None
    #: what a text output says, or an address that cannot be linked
    text: str | None = None
    #: why it is not there, or not saved
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One bad cell."""

    where: str
    value: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportJob:
    """One job as the page shows it."""

    #: as a spreadsheet shows it; None: the row is gone from the source
    row: int | None
    #: the file the row came from, where there are several
    source: str | None
    #: "" where the row has none
    key: str
    variant: str
    title: str | None
    status: str
    message: str | None
    sources: tuple[Medium, ...]
    #: the other inputs: name and value
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[Medium, ...]
    reasons: tuple[Reason, ...]
    #: these name what is judged: its content, and the execution that was looked at
    inputs_sha256: str | None
    execution_id: str | None
    reused_from: str | None

    @property
    def characters(self) -> int:
        """About how much it adds to the page."""
        media = (*self.sources, *self.outputs)
        texts = [t for t in (self.key, self.variant, self.title, self.message, self.reused_from) if t]
        texts += [t for m in media for t in (m.label, m.src, m.text, m.error) if t]
        texts += [t for pair in self.inputs for t in pair]
        texts += [t for r in self.reasons for t in (r.where, r.value, r.message, r.hint)]
        return _JOB_OVERHEAD_CHARACTERS + sum(map(len, texts))


#: characters of a job's own fields
_JOB_OVERHEAD_CHARACTERS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContents:
    """Everything that a report shows."""

    pipeline: str
    #: name of the pipeline file
    file: str
    app_id: str
    app_name: str
    #: the base URL, or the word `sandbox`
    service: str
    #: ISO 8601 in UTC
    made_at: str
    #: of all jobs, also of those that are left out; only statuses that occur, in the order that people read them
    counts: Mapping[str, int]
    #: in the source's order
    jobs: tuple[ReportJob, ...]

    @property
    def total(self) -> int:
        """All jobs, also those that the page leaves out."""
        return sum(self.counts.values())


def gather_report(  # noqa: PLR0913  # each is a part of the page
    pipeline: Pipeline,
    app: App,
    catalog: Catalog,
    checked: CheckedRows,
    outcomes: Outcomes,
    *,
    service: str,
    made_at: str,
    folder: Path,
    most_jobs: int = MAX_REPORTED_JOBS,
    most_characters: int = MAX_CHARACTERS,
) -> ReportContents:
    """Put together what a page in `folder` shows: all jobs, or the first, those with a problem before others."""
    counts = outcomes.counts()
    first = (
        outcomes.jobs.with_row_index("place")
        .sort(pl.col("status").is_in(PROBLEM_STATUSES), descending=True, maintain_order=True)
        .head(most_jobs)
    )
    chosen = checked.with_inputs(first.with_columns(valid=pl.col("status") != "invalid"))
    jobs: list[tuple[int, ReportJob]] = []
    characters = 0
    found = _jobs(
        chosen, pipeline=pipeline, app=app, catalog=catalog, checked=checked, outcomes=outcomes, folder=folder
    )
    for place, job in found:
        characters += job.characters
        if characters > most_characters and jobs:
            break
        jobs.append((place, job))
    return ReportContents(
        pipeline=pipeline.name,
        file=pipeline.file.name,
        app_id=pipeline.app,
        app_name=app.name,
        service=service,
        made_at=made_at,
        counts={status: counts[status] for status in STATUSES if counts.get(status)},
        jobs=tuple(job for _, job in sorted(jobs, key=itemgetter(0))),
    )


def _jobs(
    chosen: pl.DataFrame,
    *,
    pipeline: Pipeline,
    app: App,
    catalog: Catalog,
    checked: CheckedRows,
    outcomes: Outcomes,
    folder: Path,
) -> Iterator[tuple[int, ReportJob]]:
    rows = chosen.select("lamina_index").unique()
    rules = resolve_inputs(pipeline, app).inputs
    cells = _SourceCells(pipeline, catalog, rules, rows)
    order = {parameter.name: at for at, (parameter, _) in enumerate(rules)}
    accepts = {p.name: _accepted_kind(p.accept) for p in app.parameters if p.type == "url"}
    choices = {field.column: field.choices for field in fields(pipeline, app, catalog) if field.column is not None}
    reasons = _reasons(checked.findings, rows, named_columns(catalog), choices)
    outputs = _outputs_by_job(outcomes.outputs, chosen)
    for line in chosen.iter_rows(named=True):
        index, variant = line["lamina_index"], line["variant"]
        matrix = set(variant.split("; "))
        sent = json.loads(line["inputs"]) if line["inputs"] is not None else cells.inputs(index)
        # What the matrix gives follows what the inputs give.
        names = sorted(sent, key=lambda name: order.get(name, len(order)))
        pairs = [(name, value) for name in names for value in _as_list(sent[name])]
        yield (
            line["place"],
            ReportJob(
                row=line["row"],
                source=cells.source(index),
                key=line["key"] or "",
                variant=variant,
                title=cells.title(index),
                status=line["status"],
                message=line["message"],
                sources=tuple(_source_medium(name, value, accepts[name]) for name, value in pairs if name in accepts),
                inputs=tuple(
                    (name, _clip(value, _MAX_INPUT_CHARACTERS))
                    for name, value in pairs
                    if name not in accepts and f"{name}={value}" not in matrix
                ),
                outputs=_output_media(outputs.get(line["job_id"], ()), folder),
                reasons=reasons.get(index, ()) if line["status"] == "invalid" else (),
                inputs_sha256=line["inputs_sha256"],
                execution_id=line["execution_id"],
                reused_from=line["reused_from"],
            ),
        )


#: How catalogs call the column with a product's name, the most telling first.
_TITLE_COLUMNS = ("title", "product title", "product name", "name", "product", "style name", "item name", "item")


class _SourceCells:
    """The few cells that are shown as they stand in the source: a title, and what an invalid row gives for inputs."""

    def __init__(
        self, pipeline: Pipeline, catalog: Catalog, rules: Sequence[tuple[Parameter, InputRule]], rows: pl.DataFrame
    ) -> None:
        named = {
            re.sub(r"[\s_-]+", " ", normalise_header(header)).strip(): column
            for column, header in _named_columns(catalog)
        }
        titles = [named[name] for name in _TITLE_COLUMNS if name in named]
        plain = [(parameter.name, rule) for parameter, rule in rules if isinstance(rule.source, Column | Columns)]
        uses = {name: tuple(rule_column_references(("inputs", rule.parameter), rule)) for name, rule in plain}
        keys = tuple(key_column_references(pipeline))
        found = find_columns(catalog, pipeline, [*keys, *(use for some in uses.values() for use in some)]).columns
        self._title = next((column for column in titles if column not in {found[use.name] for use in keys}), None)
        self._inputs = {name: [found[use.name] for use in some] for name, some in uses.items()}
        self._splits = {name: rule.source.split for name, rule in plain if isinstance(rule.source, Column)}
        columns = [column for some in self._inputs.values() for column in some]
        wanted = dict.fromkeys((*catalog.row_id_columns, *columns, *([self._title] if self._title else [])))
        frame = catalog.frame.select(*wanted).join(rows.lazy(), on="lamina_index", how="semi").collect()
        self._rows = {row["lamina_index"]: row for row in frame.iter_rows(named=True)}

    def title(self, index: int | None) -> str | None:
        value = self._of(index).get(self._title) if self._title else None
        return None if value is None or not str(value).strip() else _clip(str(value), _MAX_INPUT_CHARACTERS)

    def source(self, index: int | None) -> str | None:
        source: str | None = self._of(index).get("lamina_source")
        return source

    def inputs(self, index: int | None) -> dict[str, object]:
        """What the columns of a row give, where it never came to inputs."""
        row = self._of(index)
        given: dict[str, object] = {}
        for name, columns in self._inputs.items():
            split = self._splits.get(name)
            cells = [part for column in columns for part in _as_list(row.get(column), split)]
            if cells:
                given[name] = cells
        return given

    def _of(self, index: int | None) -> dict[str, Any]:
        # What only the ledger knows has no cells.
        return {} if index is None else self._rows[index]


def _named_columns(catalog: Catalog) -> list[tuple[str, str]]:
    # Of two columns alike, the first.
    return list(zip(catalog.columns, catalog.headers, strict=True))[::-1]


def _reasons(
    findings: pl.DataFrame, rows: pl.DataFrame, known: Mapping[str, str], choices: Mapping[str, Sequence[str]]
) -> dict[int, tuple[Reason, ...]]:
    """What is wrong with each row, in the words of the marked workbook."""
    bad = findings.filter(pl.col("severity") == "error").join(
        rows, on="lamina_index", how="semi", maintain_order="left"
    )

    def reason(line: dict[str, Any]) -> Reason:
        listed = [choice for name in split_columns(line["column"], known) for choice in choices.get(name, ())]
        message, hint = explain_for_merchandiser(line, listed)
        where = line["column"] or line["parameter"]
        return Reason(where=where, value=_clip(line["value"], _MAX_INPUT_CHARACTERS), message=message, hint=hint)

    lines = bad.select("lamina_index", "code", "column", "parameter", "value", "message", "hint").iter_rows(named=True)
    return {index: tuple(map(reason, group)) for index, group in groupby(lines, key=itemgetter("lamina_index"))}


_Output = tuple[str, str, str | None, str | None, str | None]


def _outputs_by_job(outputs: pl.DataFrame, chosen: pl.DataFrame) -> dict[int, list[_Output]]:
    kept = outputs.join(chosen.select("job_id").unique(), on="job_id", how="semi").sort("job_id", "position")
    found: dict[int, list[_Output]] = {}
    for job_id, *output in kept.select("job_id", "label", "type", "value", "file", "error").iter_rows():
        found.setdefault(job_id, []).append(tuple(output))
    return found


def _source_medium(name: str, value: str, kind: Kind) -> Medium:
    src = web_address(value)
    return Medium(label=name, kind=kind, src=src, text=None if src else _clip(value, _MAX_INPUT_CHARACTERS))


def _output_media(outputs: Sequence[_Output], folder: Path) -> tuple[Medium, ...]:
    """What came out, in the app's order, texts last."""
    media = [_output_medium(output, folder) for output in outputs]
    return tuple(sorted(media, key=lambda medium: medium.kind == "text"))


def _output_medium(output: _Output, folder: Path) -> Medium:
    label, served, value, file, error = output
    kind = _MEDIUM_KINDS.get(served.casefold())
    if kind == "text":
        return Medium(label=label, kind="text", text=value and _clip(value, _MAX_OUTPUT_CHARACTERS), error=error)
    src = (relative_link(Path(file), folder) if file and Path(file).exists() else None) or web_address(value or "")
    unlinked = value if src is None else None
    return Medium(
        label=label,
        # What failed does not say what it would have been (docs/lamina-api.md, "Outputs"): mostly a picture.
        kind=kind or ("link" if src else "text" if value else "image"),
        src=src,
        text=unlinked and _clip(unlinked, _MAX_OUTPUT_CHARACTERS),
        error=error,
    )


_MEDIUM_KINDS: Mapping[str, Kind] = {"image": "image", "video": "video", "audio": "audio", "text": "text"}


def _accepted_kind(accept: Sequence[str]) -> Kind:
    """What a url parameter takes; a picture, unless the app says otherwise."""
    named = {kind for text in accept for kind in ("image", "video", "audio") if kind in text.casefold()}
    return "image" if not named or "image" in named else _MEDIUM_KINDS[min(named)]


def web_address(text: str) -> str | None:
    """`text` where it is an http(s) address with a host; None: it is only text."""
    if not text.lower().startswith(("http://", "https://")) or not text.isprintable():
        return None
    try:
        return text if urlsplit(text).hostname else None
    except ValueError:
        return None


def relative_link(file: Path, folder: Path) -> str | None:
    """The link to `file` from a page in `folder`. Its dot keeps a name with a colon from being taken for a scheme."""
    relative = os.path.relpath(file, folder)
    try:
        return f"./{quote(relative)}"
    except UnicodeEncodeError:
        return None


def _as_list(values: object, split: str | None = None) -> list[str]:
    """The single values, without blank ones."""
    several = values if isinstance(values, list) else [values]
    texts = [str(value) for value in several if value is not None]
    if split is not None:
        texts = [part.strip() for text in texts for part in text.split(split)]
    return [text for text in texts if text.strip()]


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … [{len(text) - most:,} more characters]"
