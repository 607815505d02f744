"""The execution step of a run: an engine is built from the pipeline and the plan, runs, and is put away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import polars as pl

from lamina_batch.client.lamina import RUNS, LaminaClient, parse_delivery
from lamina_batch.errors import StateError
from lamina_batch.execution.engine import Control, Engine, Listener, Outcome
from lamina_batch.execution.guards import Guards, StoppedRun, StopReason, next_stopped_run
from lamina_batch.execution.list_polling import make_pacer
from lamina_batch.execution.plan import Action, Plan, matches_names
from lamina_batch.ledger.job import State
from lamina_batch.ledger.state_folder import DiskReserve, ensure_disk_space, estimate_ledger_bytes
from lamina_batch.runs.planning import STOPPED_META_KEY, active_stop, mapping_fingerprint, open_downloads
from lamina_batch.runs.service import makes_video, min_poll_interval

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from collections.abc import Set as AbstractSet

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.catalog.prepare import Prepared
    from lamina_batch.client.budget import Budget
    from lamina_batch.execution.engine import Progress
    from lamina_batch.execution.output_files import OutputDownloader
    from lamina_batch.ledger.job import Job
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runs.context import Access, RunRequest
    from lamina_batch.runtime import Runtime

#: Downloads that are still open after this many seconds are announced.
_QUIET_SECONDS = 3.0


class Reporter(Listener, Protocol):
    """Shows a person how the run goes."""

    def planned(self, plan: Plan, checked: CheckedRows) -> None:
        """The plan, before anything is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every step of one run works with: an open, locked ledger and an open client."""

    pipeline: Pipeline
    access: Access
    request: RunRequest
    runtime: Runtime
    reporter: Reporter
    control: Control
    ledger: Ledger
    run_id: str
    budget: Budget
    client: LaminaClient

    @property
    def by_webhook(self) -> bool:
        """Whether callbacks tell of ends."""
        return self.pipeline.run.completion == "webhook"


async def execute_plan(
    context: RunContext, prepared: Prepared, plan: Plan, published_job_ids: Callable[[], AbstractSet[int]]
) -> tuple[Outcome, OutputDownloader | None]:
    """Send what the plan says, collect what runs, and download outputs as jobs complete.

    `published_job_ids` are the jobs whose outputs the manifest holds; their missing files are downloaded too.
    Returns what the engine came to, and the downloader if the pipeline downloads.
    Raises StateError if the disk has no room, and then nothing was sent.
    """
    async with AsyncExitStack() as stack:
        _reserve_disk_space(context, plan, stack)
        files = await open_downloads(context.pipeline, context.ledger, context.runtime, context.reporter.note, stack)
        if files is not None:
            files.missing(published_job_ids())
        outcome = await _run_engine(context, prepared, plan, files)
        if files is not None and context.request.wait:
            await _wait_for_downloads(context, files, outcome)
    return outcome, files


def _reserve_disk_space(context: RunContext, plan: Plan, stack: AsyncExitStack) -> None:
    """Check that the disk has room for what the ledger will hold, and keep some in reserve until `stack` is left."""
    submissions = plan.frame.filter(pl.col("action") == Action.SUBMIT)
    if submissions.height:
        ensure_disk_space(
            context.pipeline.state, estimate_ledger_bytes(submissions.height, int(submissions["inputs_bytes"].sum()))
        )
        context.ledger.reserve = stack.enter_context(DiskReserve(context.pipeline.state))


async def _run_engine(context: RunContext, prepared: Prepared, plan: Plan, files: OutputDownloader | None) -> Outcome:
    ledger, app = context.ledger, prepared.app
    refusal = _refusal(context, plan, app)
    submits = context.request.submit and refusal is None
    count = plan.count(Action.SUBMIT) if submits else 0
    running = _jobs_to_collect(ledger, plan, context.request)
    once = set(plan.job_ids(Action.ASK_ONCE))
    ask_once = [job for job in ledger.jobs(State.TIMED_OUT) if job.id in once]
    # A held job that is submitted again is awaited as that submission.
    resubmitted = set(plan.job_ids(Action.SUBMIT)) if count else set()
    held = [job for job in ledger.jobs(State.HELD) if job.by_webhook and job.id not in resubmitted]
    held = held if context.by_webhook else []
    if not (count or running or ask_once or held):
        return Outcome(stopped_by=refusal)
    engine = await _make_engine(context, app, files)
    submissions = plan.submissions(prepared.checked.with_inputs) if submits else ()
    try:
        async with _webhook_receiver(context, engine):
            outcome = await engine.run(submissions, count, running=running, ask_once=ask_once, held=held)
    except asyncio.CancelledError:
        # The second signal leaves at once: what was cut off is held, and everything else is written.
        outcome = engine.outcome
        outcome.stopped_by = StopReason.SIGNAL
        ledger.recover(at=context.runtime.wall(), run_id=context.run_id)
    if outcome.stopped_by is StopReason.REFUSED and context.pipeline.api.api_version == "auto":
        # The service may serve another version of its API now: the next run asks again.
        ledger.set_meta({"generation_doubted": "yes"})
    if submits:
        # A guard that found nothing left to stop did not let the run through either.
        _record_stop(context, outcome, app, went_through=engine.guards.stop is None)
    outcome.stopped_by = outcome.stopped_by or refusal
    return outcome


def _refusal(context: RunContext, plan: Plan, app: App) -> StopReason | None:
    """Why nothing may be started at all; None if it may."""
    if not context.request.submit:
        return None
    pipeline, count = context.pipeline, plan.count(Action.SUBMIT)
    if pipeline.run.on_invalid_rows == "fail" and plan.count(Action.INVALID):
        return StopReason.INVALID_ROWS
    stopped = active_stop(pipeline, app, context.ledger, context.request)
    if stopped is not None and count:
        context.reporter.note(
            f"nothing is started: {stopped.why}\n"
            "  look at its manifest; then --yes goes on, --retry-failed or --rerun KEY starts rows again"
        )
        return stopped.by
    if count > pipeline.run.max_executions and not context.request.yes:
        return StopReason.MAX_EXECUTIONS
    return None


def _jobs_to_collect(ledger: Ledger, plan: Plan, request: RunRequest) -> list[Job]:
    """The running jobs to wait for: all, also those of removed rows, unless the request names some."""
    running = ledger.jobs(State.RUNNING)
    if request.starts is None:
        return running
    chosen = set(plan.frame.filter(matches_names(request.starts))["was_id"].drop_nulls())
    return [job for job in running if job.id in chosen]


async def _make_engine(context: RunContext, app: App, files: OutputDownloader | None) -> Engine:
    pipeline, run = context.pipeline, context.pipeline.run
    video = run.poll.min_interval is None and await makes_video(context.client, context.ledger, app)
    min_interval = min_poll_interval(pipeline, video=video, speed=context.access.speed)
    pacer = make_pacer(
        by_list=context.client.generation is RUNS,
        by_callback=context.by_webhook,
        min_interval=min_interval,
        max_interval=max(min_interval, run.poll.max_interval),
        durations=context.ledger.durations(app.app_id),
        timeout=run.execution_timeout,
    )
    reporter = context.reporter
    return Engine(
        client=context.client,
        ledger=context.ledger,
        budget=context.budget,
        pacer=pacer,
        guards=Guards(canary=run.canary, max_failures=run.max_failures),
        listener=reporter if files is None else _DownloadingListener(reporter=reporter, files=files),
        control=context.control,
        runtime=context.runtime,
        app_id=app.app_id,
        contract=app.fingerprint,
        run_id=context.run_id,
        max_in_flight=run.max_in_flight,
        execution_timeout=run.execution_timeout,
        wait=context.request.wait,
    )


@asynccontextmanager
async def _webhook_receiver(context: RunContext, engine: Engine) -> AsyncIterator[None]:
    """Take callbacks for the engine while the block runs, if the pipeline wants them."""
    webhook = context.pipeline.run.webhook
    if not context.by_webhook or webhook is None:
        yield
        return
    # It imports a web server, and few pipelines want callbacks.
    from lamina_batch.execution.webhooks import WebhookReceiver, local_url  # noqa: PLC0415

    # The sandbox runs on this machine and reaches the receiver directly.
    local = f"{local_url(webhook.listen)}/lamina"
    async with WebhookReceiver(
        listen=webhook.listen,
        public_url=local if context.access.is_sandbox else webhook.public_url,
        keys=context.client.get_signing_keys,
        knows=engine.knows,
        parse=parse_delivery,
        deliver=engine.deliver,
        runtime=context.runtime,
        note=context.reporter.note,
    ) as receiver:
        engine.webhook_for = receiver.url_for
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _DownloadingListener:
    """Downloads the outputs of completed jobs, and passes everything on."""

    reporter: Reporter
    files: OutputDownloader

    def note(self, text: str) -> None:
        self.reporter.note(text)

    def changed(self, job: Job) -> None:
        if job.state is State.COMPLETED:
            # If the ledger cannot be read for a moment, the next run downloads what this one does not.
            with suppress(StateError):
                self.files.completed(job.id)
        self.reporter.changed(job)

    def on_progress(self, progress: Progress) -> None:
        self.reporter.on_progress(progress)


def _record_stop(context: RunContext, outcome: Outcome, app: App, *, went_through: bool) -> None:
    """Tell the next run whether a guard stopped this one."""
    before = StoppedRun.parse(context.ledger.meta(STOPPED_META_KEY))
    after = next_stopped_run(
        outcome.stopped_by,
        before=before,
        run_id=context.run_id,
        made_with=mapping_fingerprint(context.pipeline, app),
        went_through=went_through and bool(outcome.submitted) and context.request.wait,
    )
    if after != before:
        context.ledger.set_meta({STOPPED_META_KEY: after.to_text() if after is not None else ""})


async def _wait_for_downloads(context: RunContext, files: OutputDownloader, outcome: Outcome) -> None:
    """Wait for the downloads that are on their way, unless the run is stopped; the next run saves the others."""
    stopped = asyncio.Event()
    context.control.wake = stopped.set
    waits = [asyncio.ensure_future(files.finish()), asyncio.ensure_future(stopped.wait())]
    if context.control.stopped:
        stopped.set()
    try:
        done, _ = await asyncio.wait(waits, timeout=_QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            context.reporter.note(f"saving {files.left} more files")
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        stopped.set()
    finally:
        for wait in waits:
            wait.cancel()
    if stopped.is_set():
        outcome.stopped_by = outcome.stopped_by or StopReason.SIGNAL
