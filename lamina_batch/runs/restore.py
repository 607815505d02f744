"""A lost ledger, made again from a manifest, so that nothing is bought a second time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_batch.errors import UsageError
from lamina_batch.ledger.ledger import Download, ImportedJob
from lamina_batch.results.read_manifest import read_manifest
from lamina_batch.runs.run import new_run_id
from lamina_batch.runs.state import binding, write_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.read_manifest import ManifestJob
    from lamina_batch.runtime import Runtime


def refuse_sandbox_mismatch(manifest: Path, service: str) -> None:
    """Raise UsageError if results of the sandbox would go into a real ledger, or real ones into the sandbox's.

    They are told apart by the names that runs give them. Nothing in the sandbox was paid for.
    """
    made = Path(manifest.stem).suffix == ".sandbox"
    if made and service != "sandbox":
        raise UsageError(
            "this manifest is of the sandbox: a real ledger with its rows would never buy them",
            where=str(manifest),
            hint="add --sandbox to take them over into the sandbox's ledger",
        )
    if not made and service == "sandbox":
        raise UsageError(
            "this manifest is not of the sandbox, whose results have .sandbox before the ending",
            where=str(manifest),
            hint="leave out --sandbox",
        )


def find_pipeline(manifest: Path, pipelines: Iterable[Pipeline]) -> Pipeline:
    """The one of these pipelines that writes its results to `manifest`. Raises UsageError unless it is just one."""
    wanted = manifest.resolve()
    found = [p for p in pipelines if wanted in {file.resolve() for file in p.results.manifest}]
    if len(found) != 1:
        what = "several pipeline files write" if found else "no pipeline file here writes"
        raise UsageError(
            f"{what} this manifest",
            where=str(manifest),
            hint=f"say which one: lamina-batch state import {manifest.name} --pipeline PIPELINE",
        )
    return found[0]


async def import_manifest(pipeline: Pipeline, manifest: Path, *, service: str, runtime: Runtime) -> tuple[int, int]:
    """Put what `manifest` tells into the pipeline's ledger. Returns how many jobs it tells of, and how many were new.

    `service` is what the ledger is tied to: a base URL, or the word `sandbox`. Raises UsageError if the file is no
    manifest or of another app, LedgerLockedError where a run holds the ledger.
    """
    kept = read_manifest(manifest)
    _check_app(pipeline, manifest, kept)
    run_id = new_run_id(runtime)
    async with write_state(pipeline, service, run_id=run_id, runtime=runtime, create=True, restoring=True) as ledger:
        ledger.bind(binding(pipeline, service))
        jobs = (_to_imported(one, pipeline.state) for one in kept)
        new = ledger.import_jobs(jobs, at=runtime.wall(), run_id=run_id)
    return len(kept), new


def _to_imported(one: ManifestJob, folder: Path) -> ImportedJob:
    downloads = tuple(
        Download(job_id=0, position=position, file=os.path.relpath(file, folder), sha256=sha256)
        for position, (file, sha256) in one.files.items()
    )
    return ImportedJob(job=one.job, outputs=one.outputs, downloads=downloads)


def _check_app(pipeline: Pipeline, manifest: Path, kept: Sequence[ManifestJob]) -> None:
    others = {one.job.app_id for one in kept} - {pipeline.app}
    if others:
        raise UsageError(
            f"this manifest holds results of another app: {min(others)}, and not only of {pipeline.app}",
            where=str(manifest),
            hint="give the manifest of this pipeline, or the pipeline of this manifest",
        )
