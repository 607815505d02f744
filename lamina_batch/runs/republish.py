"""Writing results again from the ledger and the rows, without asking the service."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from lamina_batch.catalog.prepare import prepare
from lamina_batch.errors import LedgerLockedError
from lamina_batch.execution.plan import ledger_frame
from lamina_batch.results.manifest import ManifestLines
from lamina_batch.results.publish import Publisher, refuse_source, with_removed_rows
from lamina_batch.runs.planning import download_pattern, open_downloads
from lamina_batch.runs.service import last_run_app
from lamina_batch.runs.state import lock_state, read_existing_state
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import polars as pl

    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.pipeline.spec import Layout, Pipeline
    from lamina_batch.runtime import Runtime


async def republish(
    pipeline: Pipeline,
    manifests: Sequence[Path],
    layout: Layout,
    runtime: Runtime,
    *,
    report: Path | None = None,
    include_removed: bool = False,
) -> tuple[tuple[Path, ...], int]:
    """Write the manifests and the report again, and download the files that are missing.

    With `include_removed`, what the ledger knows of removed rows follows the rows.
    Returns where each manifest and then the report stands, and how many files could not be downloaded.
    Raises UsageError if there is no ledger.
    """
    for file in (*manifests, *filter(None, [report])):
        refuse_source(pipeline, file)
    with read_existing_state(pipeline) as ledger:
        publisher = _like_last_run(pipeline, ledger)
        if include_removed:
            prepared = publisher.prepared
            jobs = with_removed_rows(prepared.checked.jobs, ledger_frame(ledger.table()))
            prepared = replace(prepared, checked=replace(prepared.checked, jobs=jobs))
            publisher = replace(publisher, prepared=prepared)
        failed = 0
        if pipeline.results.download is not None:
            try:
                async with lock_state(pipeline, run_id="results", runtime=runtime):
                    failed = await _download_missing(publisher, runtime)
            except LedgerLockedError:
                runtime.notice("a run holds this ledger, and saves the missing files itself")
        published = publisher.publish(manifests, report, layout, at=runtime.wall())
    return (*published.manifest, *filter(None, [published.report])), failed


def manifest_frame(pipeline: Pipeline, layout: Layout) -> pl.DataFrame:
    """The lines of the manifest, from the ledger and the rows. Raises UsageError if there is no ledger."""
    with read_existing_state(pipeline) as ledger:
        publisher = _like_last_run(pipeline, ledger)
        return ManifestLines(publisher.prepared.catalog, publisher.outcomes(), layout).whole()


def _like_last_run(pipeline: Pipeline, ledger: Ledger) -> Publisher:
    """The rows as they are now, checked against the contract that the last run read."""
    download_pattern(pipeline)
    service = ledger.meta("service") or ""
    prepared = prepare(pipeline, read_catalog(pipeline), last_run_app(ledger), service)
    return Publisher(pipeline=pipeline, prepared=prepared, ledger=ledger, service=service)


async def _download_missing(publisher: Publisher, runtime: Runtime) -> int:
    async with AsyncExitStack() as stack:
        files = await open_downloads(publisher.pipeline, publisher.ledger, runtime, runtime.notice, stack)
        if files is None:
            return 0
        files.missing(publisher.published_job_ids())
        await files.finish()
    return files.failed
