"""The results manifest: the source's columns byte for byte, then ours, prefixed `lamina_` (docs/results.md,
"The manifest").
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import polars as pl

from lamina_batch.atomic_files import write_whole
from lamina_batch.errors import StateError
from lamina_batch.execution.plan import with_evidence
from lamina_batch.ledger.ledger import DOWNLOADS, OUTPUTS
from lamina_batch.results.text import escape_formula

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lamina_batch.pipeline.spec import Layout
    from lamina_batch.sources.table import Catalog

PREFIX = "lamina_"
#: jobs whose outcomes are gathered at a time
JOBS_PER_PART = 20_000
#: Ours, in order. Other people's scripts read them by name.
COLUMNS = (
    "row",
    "key",
    "variant",
    "status",
    "code",
    "message",
    "execution_id",
    "app_id",
    "attempts",
    "submitted_at",
    "completed_at",
    "seconds",
    "inputs_sha256",
    "reused_from",
)
#: Those of them, and of the next, that say nothing about a picture.
_DETAIL_COLUMNS = (
    "execution_id", "app_id", "attempts", "submitted_at", "completed_at", "seconds", "inputs_sha256", "reused_from",
    "output_id", "sha256",
)  # fmt: skip
LONG_COLUMNS = ("output_id", "label", "type", "value", "file", "sha256", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """How every job of a catalog stands, and what came out."""

    #: a line per job in the source's order: lamina_index, the columns of COLUMNS, and `job_id`
    jobs: pl.DataFrame
    #: a line per output: job_id, position and what LONG_COLUMNS names
    outputs: pl.DataFrame
    #: jobs by status, where `jobs` are only some of those that are told about
    total: Mapping[str, int] | None = None

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        if self.total is not None:
            return dict(self.total)
        return {str(status): int(n) for status, n in self.jobs.group_by("status").len().iter_rows()}


def gather_outcomes(
    jobs: pl.DataFrame,
    ledger: pl.DataFrame,
    outputs: Iterable[tuple[object, ...]],
    downloads: Iterable[tuple[object, ...]] = (),
    *,
    app_id: str,
    share_identical: bool,
) -> Outcomes:
    """Put together what the catalog asks for and what the ledger knows. Pure.

    `jobs` is what the check answered, `ledger`, `outputs` and `downloads` the ledger's tables, with files as they
    shall be shown.
    """
    same = ["content"] if share_identical else ["key", "variant", "content"]
    bought = (
        ledger.filter(pl.col("status").is_in(["completed", "partial"])).group_by(same).agg(bought=pl.col("id").max())
    )
    found = with_evidence(jobs, ledger, share_identical=share_identical).join(
        bought, on=same, how="left", maintain_order="left"
    )
    valid = pl.col("valid")
    was = pl.col("was_status")
    name = (
        pl.when(pl.col("was_variant") == "")
        .then(pl.col("was_key"))
        .otherwise(pl.concat_str("was_key", pl.lit("/"), "was_variant"))
    )
    own = (pl.col("was_key") == pl.col("key")) & (pl.col("was_variant") == pl.col("variant"))
    # Asking again may fail; what the same inputs made before has been paid for and is still shown.
    shown = pl.when(was.is_in(["completed", "partial"])).then("was_id").otherwise(pl.coalesce("bought", "was_id"))
    earlier = pl.lit("; the outputs are those of an earlier execution")
    status = (
        pl.when(~valid)
        .then(pl.lit("invalid"))
        .when(was.is_null())
        .then(pl.lit("planned"))
        # A POST cut off just now is what the next run will find, and hold.
        .when(was == "submitting")
        .then(pl.lit("held"))
        .otherwise(was)
    )
    table = found.select(
        "lamina_index",
        "row",
        "key",
        "variant",
        status=status,
        code=pl.when(valid).then(pl.col("was_code")).otherwise(pl.col("code")),
        message=pl.when(~valid)
        .then(pl.col("message"))
        .when(shown != pl.col("was_id"))
        .then(pl.concat_str(pl.col("was_message").fill_null(was), earlier))
        .otherwise(pl.col("was_message")),
        execution_id="was_execution_id",
        app_id=pl.coalesce("was_app_id", pl.lit(app_id)),
        attempts=pl.col("was_attempts").fill_null(0),
        submitted_at=_iso_instant(pl.col("was_submitted_at")),
        completed_at=_iso_instant(pl.col("was_completed_at")),
        seconds=pl.col("was_seconds").round(3),
        inputs_sha256="content",
        reused_from=pl.when(~own).then(name),
        job_id=shown,
    )
    fetched = _table(downloads, DOWNLOADS).rename({"error": "not_fetched"})
    seen = (
        _table(outputs, OUTPUTS)
        .join(table.select("job_id").unique(), on="job_id", how="semi", maintain_order="left")
        .join(fetched, on=["job_id", "position"], how="left", maintain_order="left")
    )
    usable = (pl.col("status") == "completed") & pl.col("value").is_not_null()
    reason = (
        pl.when(~usable)
        .then(pl.coalesce("error", pl.concat_str(pl.lit("not made: status "), "status")))
        .otherwise(pl.coalesce("error", pl.concat_str(pl.lit("not downloaded: "), "not_fetched")))
    )
    return Outcomes(
        jobs=table,
        outputs=seen.select(
            "job_id",
            "position",
            "output_id",
            "label",
            "type",
            "file",
            "sha256",
            value=pl.when(usable).then(pl.col("value")),
            error=reason,
        ),
    )


def _table(rows: Iterable[tuple[object, ...]], columns: Sequence[str]) -> pl.DataFrame:
    types = {name: pl.Int64 if name in {"job_id", "position"} else pl.String for name in columns}
    return pl.DataFrame(list(rows), schema=types, orient="row")


def _iso_instant(epoch: pl.Expr) -> pl.Expr:
    """Epoch seconds as ISO 8601 in UTC, with Z."""
    milliseconds = (epoch * 1000).round().cast(pl.Int64)
    return milliseconds.cast(pl.Datetime("ms")).dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")


class ManifestLines:
    """The manifest: the catalog's columns, then ours. Held in memory as Parquet packs it, part by part.

    The parts are in the order of the rows, and none is held longer than it takes.
    """

    def __init__(self, catalog: Catalog, parts: Iterable[Outcomes], layout: Layout) -> None:
        source = _SourceRows(catalog)
        self._outputs = _OutputColumns()
        self._parts: list[pl.LazyFrame] = []
        held: pl.DataFrame | None = None
        for outcomes in parts:
            match layout:
                case "wide":
                    ours = _wide_lines(outcomes, self._outputs)
                case "long":
                    ours = _long_lines(outcomes)
                case _:
                    assert_never(layout)
            ours = ours.drop("job_id").rename(lambda name: name if name == "lamina_index" else PREFIX + name)
            theirs = source.rows(ours.get_column("lamina_index"))
            lines = ours.join(theirs, on="lamina_index", how="left", maintain_order="left").drop("lamina_index")
            if held is not None:
                self._parts.append(_compress_in_memory(held))
            held = lines
        if held is not None:
            # Few catalogs have a second part, and the only one need not be packed.
            self._parts.append(_compress_in_memory(held) if self._parts else held.lazy())
        made = self._outputs.names() if layout == "wide" else {}
        fixed = (*COLUMNS, *(LONG_COLUMNS if layout == "long" else ()))
        #: of each column its name and, where it holds an output, the name it has in the parts
        self._columns = {
            **dict.fromkeys(name for name in source.columns if name != "lamina_source"),
            **dict.fromkeys(["lamina_source"] if "lamina_source" in source.columns else []),
            **dict.fromkeys(PREFIX + name for name in fixed),
            **{PREFIX + name: PREFIX + placeholder for placeholder, name in made.items()},
        }
        self.columns = tuple(self._columns)
        self.height = sum(part.select(pl.len()).collect().item() for part in self._parts)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for part in self._parts:
            yield self._named(part).collect()

    def lazy(self) -> pl.LazyFrame:
        """All lines, not computed yet."""
        return pl.concat([self._named(part) for part in self._parts])

    def whole(self) -> pl.DataFrame:
        """All lines in memory."""
        return self.lazy().collect()

    def _named(self, part: pl.LazyFrame) -> pl.LazyFrame:
        there = set(part.collect_schema().names())
        nothing = pl.lit(None, dtype=pl.String)
        return part.select(
            (pl.col(held or name) if (held or name) in there else nothing).alias(name)
            for name, held in self._columns.items()
        )


def _compress_in_memory(lines: pl.DataFrame) -> pl.LazyFrame:
    memory = io.BytesIO()
    lines.write_parquet(memory, compression="zstd", compression_level=1)
    memory.seek(0)
    return pl.scan_parquet(memory)


class _SourceRows:
    """The catalog's own cells, read once from its first row to its last."""

    def __init__(self, catalog: Catalog) -> None:
        rows = catalog.frame.drop("lamina_row")
        self._batches = rows.collect_batches(chunk_size=JOBS_PER_PART, maintain_order=True)
        self._held = rows.clear().collect()
        self.columns = [name for name in self._held.columns if name != "lamina_index"]

    def rows(self, index: pl.Series) -> pl.DataFrame:
        """The rows up to the last of these `lamina_index`, from the last one that was asked for before."""
        last: Any = index.max()
        if last is None:
            return self._held.clear()
        while self._held.is_empty() or self._held["lamina_index"][-1] < last:
            more = next(self._batches, None)
            if more is None:
                break
            self._held = self._held.vstack(more)
        found = self._held.filter(pl.col("lamina_index") <= last)
        self._held = self._held.filter(pl.col("lamina_index") >= last)
        return found


class _OutputColumns:
    """The columns for outputs: one for each label, and for its second one of a job, its third, …"""

    def __init__(self) -> None:
        #: (label, nth) -> the first output of it: job and position
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}

    def see(self, placed: pl.DataFrame) -> list[tuple[str, int, str]]:
        """The columns of these outputs: label, nth, and a name to hold it under for now."""
        first = (placed.sort("job_id", "position").unique(["label", "nth"], keep="first", maintain_order=True)).select(
            "label", "nth", "job_id", "position"
        )
        for label, nth, job_id, position in first.iter_rows():
            at = self._seen.setdefault((label, nth), (job_id, position))
            self._seen[label, nth] = min(at, (job_id, position))
        held = {key: number for number, key in enumerate(self._seen)}
        return [(label, nth, f"output:{held[label, nth]}") for label, nth, _, _ in first.iter_rows()]

    def names(self) -> dict[str, str]:
        """The name it is held under -> its own, in the order first seen; none is given twice, nor one that is ours."""
        taken = {"lamina_index", "job_id", "source", *COLUMNS}
        names: dict[str, str] = {}
        held = {key: number for number, key in enumerate(self._seen)}
        for label, nth in sorted(self._seen, key=lambda key: self._seen[key]):
            number = nth
            # The writer quotes no line end in a header.
            plain = " ".join(label.split()) or "output"
            name = plain if number == 1 else f"{plain} {number}"
            while taken & {name, f"{name}_file", f"{name}_error"}:
                number += 1
                name = f"{plain} {number}"
            for ending in ("", "_file", "_error"):
                taken.add(name + ending)
                names[f"output:{held[label, nth]}{ending}"] = name + ending
        return names


def _wide_lines(outcomes: Outcomes, columns: _OutputColumns) -> pl.DataFrame:
    """A line per job; for each output a column with its value, one with its file and one with its error."""
    placed = outcomes.outputs.with_columns(
        # Labels repeat (docs/lamina-api.md, "Outputs"): the second of one job gets a 2.
        nth=pl.int_range(pl.len()).over("job_id", "label") + 1
    )
    frame = outcomes.jobs
    for label, nth, column in columns.see(placed):
        one = placed.filter((pl.col("label") == label) & (pl.col("nth") == nth)).select(
            "job_id",
            pl.col("value").alias(column),
            pl.col("file").alias(f"{column}_file"),
            pl.col("error").alias(f"{column}_error"),
        )
        frame = frame.join(one, on="job_id", how="left", maintain_order="left")
    return frame


def _long_lines(outcomes: Outcomes) -> pl.DataFrame:
    """A line per output; a job without any has one line."""
    return (
        outcomes.jobs.with_row_index("line")
        .join(outcomes.outputs, on="job_id", how="left")
        .sort("line", "position", nulls_last=True)
        .drop("line", "position")
        .select(*outcomes.jobs.columns, *LONG_COLUMNS)
    )


def refuse_too_many_rows(manifests: Sequence[Path], jobs: int) -> None:
    """Raise StateError if one of the files cannot hold a row for each of so many jobs."""
    for file in manifests:
        if file.suffix.lower() == ".xlsx":
            from lamina_batch.results.workbook import refuse_too_large_table  # noqa: PLC0415  # only workbooks need it

            refuse_too_large_table(file, rows=jobs)


def write_manifest(catalog: Catalog, lines: ManifestLines, files: Sequence[Path]) -> tuple[Path, ...]:
    """Write the manifest in every form asked for. Returns where each stands.

    Raises StateError if one cannot be written, after the others are.
    """
    headers = dict(zip(catalog.columns, catalog.headers, strict=True))
    written: list[Path] = []
    refused: StateError | None = None
    for file in files:
        try:
            written.append(write_whole(file, _writer(lines, headers, file)))
        except StateError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return tuple(written)


def output_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Those of a wide manifest that hold what came out: they have a file and an error beside them."""
    fixed = {PREFIX + name for name in COLUMNS}
    names = set(columns)
    return tuple(
        name
        for name in columns
        if name.startswith(PREFIX) and name not in fixed and {f"{name}_file", f"{name}_error"} <= names
    )


def _writer(lines: ManifestLines, headers: Mapping[str, str], file: Path) -> Callable[[Path], None]:
    """What writes the manifest as the name of `file` says. Raises StateError if no such file can hold it."""
    match file.suffix.lower():
        case ".parquet":
            return lambda aside: lines.lazy().sink_parquet(aside)
        case ".ndjson" | ".jsonl":
            return partial(_write_ndjson, lines)
        case ".xlsx":
            return _workbook_writer(lines, headers, file)
        case _:
            return partial(_write_csv, lines, headers)


def _workbook_writer(lines: ManifestLines, headers: Mapping[str, str], file: Path) -> Callable[[Path], None]:
    # What it imports takes longer than many a command, and few write workbooks.
    from lamina_batch.results.workbook import ColumnRoles, refuse_too_large_table, write_workbook  # noqa: PLC0415

    refuse_too_large_table(file, rows=lines.height, columns=len(lines.columns))
    values = output_columns([name for name in lines.columns if name not in headers])
    roles = ColumnRoles(
        theirs=headers,
        status=f"{PREFIX}status",
        values=values or (f"{PREFIX}value",),
        files=tuple(f"{name}_file" for name in values) or (f"{PREFIX}file",),
        details=tuple(PREFIX + name for name in _DETAIL_COLUMNS),
    )
    return partial(write_workbook, _flatten(lines.whole()), roles)


def _write_ndjson(lines: ManifestLines, file: Path) -> None:
    with file.open("wb") as out:
        for some in lines:
            some.write_ndjson(out)


def _write_csv(lines: ManifestLines, headers: Mapping[str, str], file: Path) -> None:
    # The header is written here because a source may name two columns alike, or one not at all.
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(headers.get(c, c) for c in lines.columns)
    with file.open("wb") as out:
        out.write(header.getvalue().encode())
        for some in lines:
            _escape_formulas(_flatten(some), set(headers)).write_csv(out, include_header=False)


def _flatten(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame as cells can hold it: lists and objects of a Parquet source as text."""
    columns: list[pl.Expr] = []
    for name, kind in frame.schema.items():
        column = pl.col(name)
        if isinstance(kind, pl.List | pl.Array):
            column = column.cast(pl.List(pl.String)).list.join("|")
        elif isinstance(kind, pl.Struct):
            column = column.struct.json_encode()
        columns.append(column.alias(name))
    return frame.select(columns)


def _escape_formulas(frame: pl.DataFrame, theirs: set[str]) -> pl.DataFrame:
    """The frame with our own text harmless, for a CSV."""
    # An empty text would be written as "" to tell it from nothing: a difference no reader of a CSV makes.
    return frame.with_columns(
        escape_formula(pl.when(pl.col(name) != "").then(pl.col(name))).alias(name)
        for name, kind in frame.schema.items()
        if kind == pl.String and name not in theirs
    )
