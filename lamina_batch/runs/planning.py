"""What a run will do with each row: the plan, from the checked rows, the ledger and what the user asked for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.errors import UsageError, did_you_mean
from lamina_batch.execution.guards import StoppedRun
from lamina_batch.execution.plan import (
    Plan,
    PlanOptions,
    completed_contents,
    has_completed_content,
    ledger_frame,
    make_plan,
    matches_names,
    with_evidence,
)
from lamina_batch.media.names import parse_pattern
from lamina_batch.results.picks import select_reruns
from lamina_batch.results.publish import ledger_rows_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.prepare import Prepared
    from lamina_batch.execution.output_files import OutputDownloader
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.media.names import PathPattern
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.picks import Pick
    from lamina_batch.runs.context import RunRequest
    from lamina_batch.runtime import Runtime

#: The ledger keeps the last stop by a guard under this name.
STOPPED_META_KEY = "stopped"


def download_pattern(pipeline: Pipeline) -> PathPattern | None:
    """Where downloaded files go; None if nothing is downloaded. Raises PipelineError for an invalid pattern."""
    text = pipeline.results.download
    if text is None:
        return None
    try:
        pattern = parse_pattern(text)
    except ValueError as error:
        raise pipeline.error(("results", "download"), str(error)) from error
    if pipeline.matrix and not pattern.uses("variant"):
        raise pipeline.error(
            ("results", "download"),
            "must contain {variant}, because there is a matrix",
            "add it as a folder: {key}/{variant}/",
        )
    return pattern


async def open_downloads(
    pipeline: Pipeline, ledger: Ledger, runtime: Runtime, note: Callable[[str], None], stack: AsyncExitStack
) -> OutputDownloader | None:
    """The downloader, running until `stack` is left; None if the pipeline downloads nothing."""
    pattern = download_pattern(pipeline)
    if pattern is None:
        return None
    from lamina_batch.execution.output_files import OutputDownloader  # noqa: PLC0415  # few pipelines download

    return await stack.enter_async_context(OutputDownloader(ledger=ledger, pattern=pattern, runtime=runtime, note=note))


def refuse_picks(pipeline: Pipeline, request: RunRequest, service: str) -> None:
    """Raise UsageError if the verdicts are about another pipeline, app or service."""
    if request.picks is not None:
        request.picks.refuse_other(pipeline=pipeline.name, app=pipeline.app, service=service)


def plan_jobs(
    pipeline: Pipeline,
    prepared: Prepared,
    ledger: Ledger | None,
    request: RunRequest,
    *,
    at: float,
    note: Callable[[str], None],
    contents: pl.Series | None = None,
) -> Plan:
    """What to do with each row.

    `at` is the present in epoch seconds. `contents` are the ledger's completed contents, if they are read already.
    Raises UsageError for a key that no row has, and for a rerun of a row that is running or held.
    """
    jobs = prepared.checked.jobs
    _check_keys_exist(jobs, request.starts or frozenset())
    rerun = request.rerun
    if request.picks is not None:
        picked = jobs.filter(pl.col("key").is_in([pick.key for pick in request.picks.rejected]))
        evidence = with_evidence(picked, ledger_rows_for(ledger, picked), share_identical=pipeline.run.share_identical)
        again = select_reruns(request.picks, evidence, lambda pick: _ledger_has_pick(ledger, pick))
        for text in again.notes:
            note(text)
        rerun |= again.rerun
    wish = PlanOptions(
        retry_failed=request.retry_failed,
        rerun=rerun,
        only=request.starts,
        limit=request.limit,
        resubmit_held=pipeline.run.on_unknown == "resubmit",
        share_identical=pipeline.run.share_identical,
    )
    done: pl.Series | None = None
    if ledger is not None and can_skip_completed(pipeline, request):
        done = has_completed_content(jobs, completed_contents(ledger.contents()) if contents is None else contents)
        if rerun:
            done &= ~jobs.select(matches_names(rerun)).to_series()
    ledger_rows = ledger_rows_for(ledger, jobs if done is None else jobs.filter(~done))
    plan = make_plan(jobs, ledger_rows, wish, contract=prepared.app.fingerprint, at=at, done=done)
    _check_rerun(pipeline, plan, rerun)
    return plan


def can_skip_completed(pipeline: Pipeline, request: RunRequest) -> bool:
    """Whether the content hash alone decides that a row is completed, whatever the row's own history."""
    return pipeline.run.share_identical and not request.explain


def _ledger_has_pick(ledger: Ledger | None, pick: Pick) -> bool:
    """Whether the ledger knows the content and the execution that this verdict is about.

    The row itself need not have been bought: it may share the outputs of another row with the same content.
    """
    known = ledger_frame(ledger.table_about([], [pick.inputs_sha256])) if ledger is not None else None
    if ledger is None or known is None or known.is_empty():
        return False
    if pick.execution_id is None or pick.execution_id in known.get_column("execution_id"):
        return True
    job = ledger.of_execution(pick.execution_id)
    return job is not None and job.content == pick.inputs_sha256


def active_stop(pipeline: Pipeline, app: App, ledger: Ledger, request: RunRequest) -> StoppedRun | None:
    """The stop of an earlier run that still holds: the user has not answered it, and nothing changed. None: go on."""
    stopped = StoppedRun.parse(ledger.meta(STOPPED_META_KEY))
    answered = request.yes or request.retry_failed or request.rerun or request.picks is not None
    changed = stopped is not None and stopped.made_with != mapping_fingerprint(pipeline, app)
    return None if answered or changed else stopped


def mapping_fingerprint(pipeline: Pipeline, app: App) -> str:
    """SHA-256 of the mapping and the contract: the usual causes when every execution fails."""
    mapping = repr((pipeline.inputs, dict(pipeline.matrix), app.fingerprint))
    return hashlib.sha256(mapping.encode()).hexdigest()


def _check_keys_exist(jobs: pl.DataFrame, names: frozenset[str]) -> None:
    """Raise UsageError for a key that no row has, before anything is spent."""
    if not names:
        return
    known = set(jobs["key"].drop_nulls()) | set(
        jobs.select(pl.concat_str("key", pl.lit("/"), "variant")).to_series().drop_nulls()
    )
    for name in sorted(names - known):
        raise UsageError(
            f"no row has the key {name!r} (rows that `where` or `skip_row` leave out do not count)",
            hint=did_you_mean(name, known),
        )


def _check_rerun(pipeline: Pipeline, plan: Plan, rerun: frozenset[str]) -> None:
    if not rerun:
        return
    busy = plan.frame.filter(matches_names(rerun) & pl.col("was_status").is_in(["running", "submitting", "held"]))
    for key, status in busy.select("key", "was_status").iter_rows():
        what, hint = (
            ("still running", "let a plain run collect it first")
            if status == "running"
            else ("held: it may have been bought already", f"settle it first: see `{pipeline.command_line('held')}`")
        )
        raise UsageError(f"{key!r} cannot be run again: it is {what}", hint=hint)


def estimate_credits(pipeline: Pipeline, executions: int) -> float | None:
    """The cost by the user's own `credits_per_execution`; None if that is not given."""
    each = pipeline.run.credits_per_execution
    return None if each is None else each * executions
