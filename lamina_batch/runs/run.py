"""One run as a straight line: read -> map -> check -> plan -> execute -> publish (docs/architecture.md)."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lamina_batch.atomic_files import ensure_writable
from lamina_batch.catalog.prepare import prepare
from lamina_batch.client.lamina import API_VERSIONS, EXECUTIONS
from lamina_batch.errors import StateError
from lamina_batch.execution.forecast import least_seconds
from lamina_batch.execution.guards import StopReason
from lamina_batch.execution.plan import Action
from lamina_batch.results.findings import write_findings
from lamina_batch.results.manifest import refuse_too_many_rows
from lamina_batch.results.publish import Publisher, refuse_source
from lamina_batch.results.summary import (
    SCHEMA_VERSION,
    STATUSES,
    DownloadTotals,
    RequestTotals,
    Summary,
    WrittenFiles,
    exit_code,
    write_summary,
)
from lamina_batch.runs.contract import check_contract
from lamina_batch.runs.execute import Reporter, RunContext, execute_plan
from lamina_batch.runs.planning import download_pattern, estimate_credits, plan_jobs, refuse_picks
from lamina_batch.runs.service import SETUP_REQUESTS, app_of, last_run_app, make_budget, make_client
from lamina_batch.runs.state import binding, write_state
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.prepare import Prepared
    from lamina_batch.client.lamina import ApiVersion
    from lamina_batch.execution.engine import Control, Outcome
    from lamina_batch.execution.output_files import OutputDownloader
    from lamina_batch.execution.plan import Plan
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.publish import Published
    from lamina_batch.runs.context import Access, RunRequest
    from lamina_batch.runtime import Runtime


async def run(
    pipeline: Pipeline,
    access: Access,
    request: RunRequest,
    *,
    runtime: Runtime,
    reporter: Reporter,
    control: Control,
    run_id: str | None = None,
) -> Summary:
    """Do all of it; with `submit=False` only what `collect` does. Returns the summary, whatever became of the rows.

    `run_id` is one of `new_run_id`; None makes one.
    Raises LedgerLockedError if another run holds the ledger, and the errors of each step. An execution that fails is
    no error but a number in the summary.
    """
    _refuse_unwaited(pipeline, request)
    refuse_picks(pipeline, request, access.service)
    run_id = run_id or new_run_id(runtime)
    async with write_state(
        pipeline, access.service, request, run_id=run_id, runtime=runtime, create=request.submit
    ) as ledger:
        started_at = runtime.now()
        for job in ledger.recover(at=runtime.wall(), run_id=run_id):
            reporter.note(f"{job.name}: held: {job.message}")
        _check_result_files(pipeline)
        catalog = read_catalog(pipeline)
        if request.submit:
            # The manifest needs the columns, too, that no rule reads.
            catalog.refuse_damaged()
        budget = make_budget(pipeline)
        async with make_client(pipeline, access, runtime, budget) as client:
            context = RunContext(
                pipeline=pipeline,
                access=access,
                request=request,
                runtime=runtime,
                reporter=reporter,
                control=control,
                ledger=ledger,
                run_id=run_id,
                budget=budget,
                client=client,
            )
            app = await app_of(pipeline, client) if request.submit else last_run_app(ledger)
            notes = check_contract(pipeline, catalog, app, access.service, ledger) if request.submit else ()
            client.generation = await _choose_api_version(context)
            prepared = prepare(pipeline, catalog, app, access.service, contract_notes=notes)
            for note in prepared.notes:
                reporter.note(note)
            refuse_too_many_rows(pipeline.results.manifest, prepared.checked.jobs.height)
            findings = write_findings(prepared.checked.findings, pipeline.state / "findings.csv")
            plan = plan_jobs(pipeline, prepared, ledger, request, at=runtime.wall(), note=reporter.note)
            if request.submit:
                _bind_ledger(context, app)
                reporter.planned(plan, prepared.checked)
            publisher = Publisher(pipeline=pipeline, prepared=prepared, ledger=ledger, service=access.service)
            try:
                outcome, files = await execute_plan(context, prepared, plan, publisher.published_job_ids)
            except StateError:
                # The ledger can no longer be written. What it knows is still published.
                with suppress(StateError):
                    _publish(context, publisher)
                raise
            if outcome.stopped_by is not None and outcome.reason:
                reporter.note(outcome.reason)
            published = _publish(context, publisher)
            summary = _summarise(
                context,
                prepared=prepared,
                plan=plan,
                outcome=outcome,
                published=published,
                findings=findings,
                files=files,
                started_at=started_at,
            )
            write_summary(summary, pipeline.state)
            return summary


def new_run_id(runtime: Runtime) -> str:
    """A name for one run. Names sort by time."""
    at = datetime.fromtimestamp(runtime.wall(), UTC)
    return f"{at:%Y%m%dT%H%M%SZ}-{runtime.random.getrandbits(24):06x}"


def _refuse_unwaited(pipeline: Pipeline, request: RunRequest) -> None:
    if request.wait:
        return
    if pipeline.run.canary:
        raise pipeline.error(
            ("run", "canary"), "a canary has to be waited for", "leave out --no-wait, or --set run.canary=0"
        )
    if pipeline.run.completion == "webhook":
        raise pipeline.error(
            ("run", "completion"),
            "callbacks have to be waited for",
            "leave out --no-wait, or --set run.completion=poll",
        )


def _check_result_files(pipeline: Pipeline) -> None:
    """Raise an error if a result would overwrite the source, or its folder cannot be written."""
    for file in (*pipeline.results.manifest, *filter(None, [pipeline.results.report])):
        refuse_source(pipeline, file)
        ensure_writable(file)
    pattern = download_pattern(pipeline)
    if pattern is not None:
        ensure_writable(pattern.folder / "any")


async def _choose_api_version(context: RunContext) -> ApiVersion:
    """The API version to submit to: the pipeline's, the one found by an earlier run, or the one that answers."""
    wanted, ledger = context.pipeline.api.api_version, context.ledger
    if wanted != "auto":
        return API_VERSIONS[wanted]
    same_service = ledger.meta("service") == context.access.service
    earlier = ledger.meta("generation") if same_service and not ledger.meta("generation_doubted") else None
    version = API_VERSIONS.get(earlier or "")
    if version is None and context.request.submit:
        version = await context.client.probe_generation()
    return version or EXECUTIONS


def _bind_ledger(context: RunContext, app: App) -> None:
    """Tie the ledger to this service. Only now: a wrong address or key must not tie it."""
    ledger = context.ledger
    ledger.bind(binding(context.pipeline, context.access.service), adopt=context.request.adopt_state)
    ledger.set_meta(
        {
            "app": app.served_json,
            "app_id": app.app_id,
            "generation": context.client.generation.name,
            "generation_doubted": "",
        }
    )


def _publish(context: RunContext, publisher: Publisher) -> Published:
    """Write the manifest and the report, and note a file that cannot be written. No rows overwrite nothing."""
    pipeline, note = context.pipeline, context.reporter.note
    kept = publisher.results_to_keep()
    if not publisher.prepared.checked.jobs.height and not context.ledger.is_empty():
        counts = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(context.ledger.counts().items()))
        files = [*pipeline.results.manifest, *filter(None, [pipeline.results.report])]
        names = f"; left as they are: {', '.join(str(file) for file in files if file in kept)}" if kept else ""
        note(f"there are no rows, although the ledger knows jobs ({counts}){names}")
    return publisher.publish(
        pipeline.results.manifest,
        pipeline.results.report,
        pipeline.results.layout,
        at=context.runtime.wall(),
        unchanged=kept,
        on_error=lambda error: note(f"{error}\n  `{pipeline.command_line('results')}` writes it again"),
    )


def _summarise(
    context: RunContext,
    *,
    prepared: Prepared,
    plan: Plan,
    outcome: Outcome,
    published: Published,
    findings: Path,
    files: OutputDownloader | None,
    started_at: float,
) -> Summary:
    pipeline, counts = context.pipeline, published.totals.counts
    requests = _request_totals(context, outcome)
    return Summary(
        schema_version=SCHEMA_VERSION,
        pipeline=pipeline.name,
        run_id=context.run_id,
        exit_code=exit_code(
            counts,
            outcome.stopped_by,
            signal=context.control.signal if outcome.stopped_by is StopReason.SIGNAL else None,
            unwritten=not published.manifest or (published.report is None and pipeline.results.report is not None),
            unsaved=bool(files and files.failed),
        ),
        stopped_by=outcome.stopped_by,
        counts={
            "rows": prepared.checked.jobs["lamina_index"].n_unique(),
            "jobs": counts.total(),
            "submitted": outcome.submitted,
            "unchanged": plan.count(Action.UNCHANGED),
            **{status: counts.get(status, 0) for status in STATUSES},
            "new_problems": context.ledger.replace_problems(published.totals.problems),
        },
        requests=requests,
        seconds=round(context.runtime.now() - started_at, 3),
        least_seconds=round(
            least_seconds(
                outcome.submitted,
                limit=context.budget.limit,
                window=context.budget.window,
                shortest=min(context.ledger.durations(prepared.app.app_id), default=0.0),
                per_job=1 if context.by_webhook else 2,
                reads=min(SETUP_REQUESTS, requests.other),
                max_in_flight=pipeline.run.max_in_flight,
            ),
            3,
        ),
        credits=estimate_credits(pipeline, outcome.submitted),
        files=WrittenFiles(
            manifest=tuple(str(file) for file in published.manifest),
            report=None if published.report is None else str(published.report),
            findings=str(findings),
        ),
        downloads=None if files is None else DownloadTotals(saved=files.saved, failed=files.failed),
    )


def _request_totals(context: RunContext, outcome: Outcome) -> RequestTotals:
    sent = context.client.requests
    total = sent["submit"] + sent["poll"] + sent["other"]
    return RequestTotals(
        total=total,
        submit=sent["submit"],
        poll=sent["poll"],
        other=sent["other"],
        rate_limited=sent["rate_limited"],
        per_ended=round(total / outcome.ended, 3) if outcome.ended else None,
    )
