"""Writing what people take away: the manifest and the report, from the rows and the ledger."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.errors import StateError, UsageError
from lamina_batch.execution.plan import ledger_frame
from lamina_batch.results.manifest import JOBS_PER_PART, ManifestLines, Outcomes, gather_outcomes, write_manifest
from lamina_batch.results.totals import RunTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from lamina_batch.catalog.prepare import Prepared
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.pipeline.spec import Layout, Pipeline

#: Up to this many jobs are looked up in the ledger one by one.
_MAX_KEYED_LOOKUPS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What was written, and the totals over all jobs."""

    #: where each manifest stands; fewer than were asked for if one could not be written
    manifest: tuple[Path, ...]
    #: None: none was asked for, or it could not be written
    report: Path | None
    totals: RunTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Writes the manifest and the report of one pipeline."""

    pipeline: Pipeline
    prepared: Prepared
    ledger: Ledger
    #: the base URL or `sandbox`
    service: str

    def publish(
        self,
        manifests: Sequence[Path],
        report: Path | None,
        layout: Layout,
        *,
        at: float,
        unchanged: Collection[Path] = (),
        on_error: Callable[[StateError], None] | None = None,
    ) -> Published:
        """Write the manifests and then the report, except the files in `unchanged`. `at` is now, in epoch seconds.

        If one cannot be written, the other still is; `on_error` gets the StateError, and without it the error is raised
        in the end.
        """
        totals = RunTotals()
        lines = ManifestLines(self.prepared.catalog, totals.each(self.outcomes()), layout)
        errors: list[StateError] = []
        written: tuple[Path, ...] = ()
        page: Path | None = report if report in unchanged else None
        try:
            new = [file for file in manifests if file not in unchanged]
            places = dict(zip(new, write_manifest(self.prepared.catalog, lines, new), strict=True))
            written = tuple(places.get(file, file) for file in manifests)
        except StateError as error:
            errors.append(error)
        if report is not None and report not in unchanged:
            try:
                page = self._write_report(totals.outcomes(), report, at)
            except StateError as error:
                errors.append(error)
        for problem in errors:
            if on_error is None:
                raise problem
            on_error(problem)
        return Published(manifest=written, report=page, totals=totals)

    def outcomes(self) -> Iterator[Outcomes]:
        """The state and the outputs of every job, some thousand jobs at a time, in the order of the rows."""
        jobs = self.prepared.checked.jobs
        # No jobs are a part too: it has the columns.
        for start in range(0, max(jobs.height, 1), JOBS_PER_PART):
            some = jobs.slice(start, JOBS_PER_PART)
            rows = ledger_rows_for(self.ledger, some)
            ids = rows.get_column("id").to_list()
            yield gather_outcomes(
                some,
                rows,
                self.ledger.outputs(ids),
                [
                    (job_id, position, file and os.path.normpath(self.ledger.folder / str(file)), sha256, error)
                    for job_id, position, file, sha256, error in self.ledger.downloads(ids)
                ],
                app_id=self.prepared.app.app_id,
                share_identical=self.pipeline.run.share_identical,
            )

    def published_job_ids(self) -> set[int]:
        """The jobs whose outputs the manifest holds."""
        return {int(job) for part in self.outcomes() for job in part.jobs["job_id"].drop_nulls()}

    def _write_report(self, outcomes: Outcomes, file: Path, at: float) -> Path:
        # The template engine loads only if a report is wanted.
        from lamina_batch.results.report.contents import gather_report  # noqa: PLC0415
        from lamina_batch.results.report.page import write_report  # noqa: PLC0415

        made_at = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        contents = gather_report(
            self.pipeline,
            self.prepared.app,
            self.prepared.catalog,
            self.prepared.checked,
            outcomes,
            service=self.service,
            made_at=made_at,
            folder=file.parent,
        )
        return write_report(contents, file)

    def results_to_keep(self) -> frozenset[Path]:
        """The existing results that an empty catalog must not overwrite: those of rows that the ledger knows."""
        if self.prepared.checked.jobs.height or self.ledger.is_empty():
            return frozenset()
        files = (*self.pipeline.results.manifest, *filter(None, [self.pipeline.results.report]))
        return frozenset(file for file in files if file.exists())


def ledger_rows_for(ledger: Ledger | None, jobs: pl.DataFrame) -> pl.DataFrame:
    """The ledger's rows with the keys or contents of these jobs; all of its rows if the jobs are many."""
    if ledger is None:
        return ledger_frame([])
    if jobs.height > _MAX_KEYED_LOOKUPS:
        return ledger_frame(ledger.table())
    return ledger_frame(ledger.table_about(jobs["key"].drop_nulls().to_list(), jobs["content"].drop_nulls().to_list()))


def with_removed_rows(jobs: pl.DataFrame, ledger: pl.DataFrame) -> pl.DataFrame:
    """The jobs of the check, followed by those that only the ledger knows, each in its newest revision.

    A row is removed if it is gone, left out by `where`, of another matrix, or invalid now. A revision that failed or
    was rejected gives way to an earlier one that did not. Jobs that were only planned are left out. An added job has no
    `row`.
    """
    others = (
        ledger.filter(pl.col("status") != "planned")
        .join(jobs.filter("valid"), on=["key", "variant"], how="anti")
        .sort(~pl.col("status").is_in(["failed", "rejected"]), "id")
        .unique(["key", "variant"], keep="last", maintain_order=True)
        .select("key", "variant", "content", valid=pl.lit(value=True))
    )
    return pl.concat([jobs, others], how="diagonal")


def refuse_source(pipeline: Pipeline, file: Path) -> None:
    """Raise UsageError if writing `file` would replace the rows or the pipeline file, or be read as rows later."""
    target = file.resolve()
    if target == pipeline.file.resolve():
        raise UsageError("this is the pipeline file itself", where=str(file), hint="give it another name")
    for source in pipeline.rows.sources:
        if target == Path(source).resolve() or _glob_matches(target.parts, Path(source).parts):
            raise UsageError(
                f"this would be read as rows: `rows.from` names {source}",
                where=str(file),
                hint="give it another name, or another folder",
            )


def _glob_matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether `glob` finds this path: `**` stands for any number of folders, and no wildcard for a hidden one."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and _glob_matches(parts, pattern[1:]):
        return True
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    rest = pattern if pattern[0] == "**" else pattern[1:]
    return fnmatchcase(parts[0], pattern[0]) and _glob_matches(parts[1:], rest)
