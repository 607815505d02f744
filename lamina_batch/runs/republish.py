"""Telling again what has been bought: results, and the manifest as a frame."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from lamina_batch.errors import LedgerLockedError
from lamina_batch.execution.plan import ledger_frame
from lamina_batch.ledger.lock import locked
from lamina_batch.results.lost_ledger import refuse_lost
from lamina_batch.results.manifest import Lines, write_manifest
from lamina_batch.results.removed import with_removed
from lamina_batch.results.totals import Told
from lamina_batch.runs.planning import (
    Prepared,
    open_downloads,
    open_existing_ledger,
    outcome_pages,
    prepare,
    publish_report,
    refuse_source,
    shown_job_ids,
)
from lamina_batch.runs.service import last_run_app
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.pipeline.spec import Layout, Pipeline
    from lamina_batch.runtime import Runtime


async def results(
    pipeline: Pipeline,
    manifests: Sequence[Path],
    layout: Layout,
    runtime: Runtime,
    *,
    report: Path | None = None,
    include_removed: bool = False,
) -> tuple[tuple[Path, ...], int]:
    """Write the manifest and the report again, from the ledger and the rows, and save the files that are missing.

    With `include_removed` what the ledger knows of rows that are no longer run follows the rows.
    Nothing is asked of the service. Answers where each manifest and then the report stands, and how many files could
    not be saved. Raises UsageError where there is no ledger yet.
    """
    for file in (*manifests, *filter(None, [report])):
        refuse_source(pipeline, file)
    with open_existing_ledger(pipeline) as ledger:
        prepared = _prepare_like_last_run(pipeline, ledger)
        if include_removed:
            jobs = with_removed(prepared.checked.jobs, ledger_frame(ledger.table()))
            prepared = replace(prepared, checked=replace(prepared.checked, jobs=jobs))
        failed = 0
        if pipeline.results.download is not None:
            try:
                async with locked(pipeline.state, if_locked="fail", holder="results", runtime=runtime):
                    failed = await _download_missing(pipeline, prepared, ledger, runtime)
            except LedgerLockedError:
                runtime.notice("a run holds this ledger, and saves the missing files itself")
        told = Told()
        lines = Lines(prepared.catalog, told.each(outcome_pages(pipeline, prepared, ledger)), layout)
        service = ledger.meta("service") or ""
        page: tuple[Path, ...] = ()
        try:
            written = write_manifest(prepared.catalog, lines, manifests)
        finally:
            # A manifest that cannot be written keeps nobody from looking at the pictures.
            if report is not None:
                page = (
                    publish_report(pipeline, prepared, told.outcomes(), report, service=service, at=runtime.wall()),
                )
    return (*written, *page), failed


def manifest(pipeline: Pipeline, layout: Layout) -> pl.DataFrame:
    """The lines of the manifest, from the ledger and the rows. Raises UsageError where there is no ledger yet."""
    with open_existing_ledger(pipeline) as ledger:
        prepared = _prepare_like_last_run(pipeline, ledger)
        return Lines(prepared.catalog, outcome_pages(pipeline, prepared, ledger), layout).whole()


def _prepare_like_last_run(pipeline: Pipeline, ledger: Ledger) -> Prepared:
    """The rows as they are now, against the app as the last run read it."""
    refuse_lost(pipeline, ledger)
    return prepare(pipeline, read_catalog(pipeline), last_run_app(ledger), ledger.meta("service") or "")


async def _download_missing(pipeline: Pipeline, prepared: Prepared, ledger: Ledger, runtime: Runtime) -> int:
    async with AsyncExitStack() as stack:
        files = await open_downloads(pipeline, ledger, runtime, runtime.notice, stack)
        if files is None:
            return 0
        files.missing(shown_job_ids(pipeline, prepared, ledger))
        await files.finish()
    return files.failed
