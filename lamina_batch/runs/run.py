"""One run on a locked ledger: the straight line, from the app's contract to the summary."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import polars as pl

from lamina_batch.atomic_files import ensure_writable
from lamina_batch.client.lamina import EXECUTIONS, GENERATIONS, RUNS, LaminaClient, parse_delivery
from lamina_batch.errors import StateError
from lamina_batch.execution.engine import Control, Engine, Listener, Outcome
from lamina_batch.execution.forecast import least_seconds
from lamina_batch.execution.guards import Guards, Stop, Stopped, remembered
from lamina_batch.execution.list_polling import Sweeping
from lamina_batch.execution.plan import Action, Plan, named
from lamina_batch.execution.polling import Polling
from lamina_batch.ledger.job import State
from lamina_batch.ledger.ledger import Ledger, open_ledger
from lamina_batch.ledger.lock import locked
from lamina_batch.ledger.state_folder import Reserve, ensure_room, refuse_network, room_for
from lamina_batch.results.findings import write_findings
from lamina_batch.results.lost_ledger import refuse_lost, refuse_renamed
from lamina_batch.results.manifest import Lines, ensure_room_in, write_manifest
from lamina_batch.results.summary import (
    SCHEMA_VERSION,
    STATUSES,
    Requests,
    Saved,
    Summary,
    Written,
    exit_code,
    write_summary,
)
from lamina_batch.results.totals import Told
from lamina_batch.runs.contract import check_contract
from lamina_batch.runs.planning import (
    STOPPED_META_KEY,
    Prepared,
    active_stop,
    binding,
    download_pattern,
    estimate_credits,
    made_with,
    open_downloads,
    open_existing_ledger,
    outcome_pages,
    plan_jobs,
    prepare,
    publish_report,
    refuse_picks,
    refuse_source,
    shown_job_ids,
)
from lamina_batch.runs.service import (
    SETUP_REQUESTS,
    app_of,
    last_run_app,
    make_budget,
    make_client,
    makes_video,
    min_poll_interval,
)
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.client.budget import Budget
    from lamina_batch.client.lamina import Generation
    from lamina_batch.execution.engine import Progress
    from lamina_batch.execution.output_files import Files
    from lamina_batch.ledger.job import Job
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runs.context import Access, RunRequest
    from lamina_batch.runtime import Runtime


class Reporter(Listener, Protocol):
    """Is told how the run goes, and shows it."""

    def planned(self, plan: Plan, checked: CheckedRows) -> None:
        """What the run is going to do, before it does."""


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
    """All of it, or with `submit=False` only what `collect` does. Answers the summary, whatever the rows came to.

    `run_id` is one of `new_run_id`; None: one is made.
    Raises LedgerLockedError where another run holds the ledger, and the errors of each step; a bad end of one
    execution is no error but a number in the summary.
    """
    if not request.wait and pipeline.run.canary:
        raise pipeline.error(
            ("run", "canary"), "a canary has to be waited for", "leave out --no-wait, or --set run.canary=0"
        )
    if not request.wait and pipeline.run.completion == "webhook":
        raise pipeline.error(
            ("run", "completion"),
            "callbacks have to be waited for",
            "leave out --no-wait, or --set run.completion=poll",
        )
    refuse_picks(pipeline, request, access.service)
    refuse_network(pipeline.state)
    run_id = run_id or new_run_id(runtime)
    hint = "wait for it to end; `run` can do that itself: --if-locked wait (or skip)"
    if not request.submit:
        hint = "that run collects and writes the results itself; else say this again when it has ended"
    async with locked(pipeline.state, if_locked=request.if_locked, holder=run_id, runtime=runtime, hint=hint):
        ledger = open_ledger(pipeline.state) if request.submit else open_existing_ledger(pipeline)
        with ledger:
            ledger.check_binding(binding(pipeline, access.service), adopt=request.adopt_state)
            if not request.new_ledger:
                refuse_lost(pipeline, ledger)
                refuse_renamed(pipeline, ledger, access.service)
            for job in ledger.recover(at=runtime.wall(), run_id=run_id):
                reporter.note(f"{job.name}: held: {job.message}")
            one = _Run(
                pipeline=pipeline,
                access=access,
                request=request,
                runtime=runtime,
                reporter=reporter,
                control=control,
                ledger=ledger,
                run_id=run_id,
                began=runtime.now(),
                budget=make_budget(pipeline),
            )
            return await one.line()


@dataclass(frozen=True, slots=True, kw_only=True)
class _DownloadingListener:
    """A listener that has the files of what completed saved, and passes everything on."""

    reporter: Reporter
    files: Files

    def note(self, text: str) -> None:
        self.reporter.note(text)

    def changed(self, job: Job) -> None:
        if job.state is State.COMPLETED:
            # A ledger that cannot be read for a moment: the next run saves what this one does not.
            with suppress(StateError):
                self.files.completed(job.id)
        self.reporter.changed(job)

    def on_progress(self, progress: Progress) -> None:
        self.reporter.on_progress(progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run on an open, locked ledger."""

    pipeline: Pipeline
    access: Access
    request: RunRequest
    runtime: Runtime
    reporter: Reporter
    control: Control
    ledger: Ledger
    run_id: str
    #: monotonic seconds
    began: float
    budget: Budget

    async def line(self) -> Summary:
        """The straight line, from the app's contract to the summary."""
        for file in (*self.pipeline.results.manifest, *filter(None, [self.pipeline.results.report])):
            refuse_source(self.pipeline, file)
            ensure_writable(file)
        pattern = download_pattern(self.pipeline)
        if pattern is not None:
            ensure_writable(pattern.folder / "any")
        catalog = read_catalog(self.pipeline)
        if self.request.submit:
            # The manifest will need the columns, too, that no rule reads.
            catalog.refuse_damaged()
        async with make_client(self.pipeline, self.access, self.runtime, self.budget) as client:
            app = await app_of(self.pipeline, client) if self.request.submit else last_run_app(self.ledger)
            told: tuple[str, ...] = ()
            if self.request.submit:
                told = check_contract(self.pipeline, catalog, app, self.access.service, self.ledger)
            client.generation = await self.generation(client)
            prepared = prepare(self.pipeline, catalog, app, self.access.service, told=told)
            for note in prepared.notes:
                self.reporter.note(note)
            ensure_room_in(self.pipeline.results.manifest, prepared.checked.jobs.height)
            findings = write_findings(prepared.checked.findings, self.pipeline.state / "findings.csv")
            plan = plan_jobs(
                self.pipeline, prepared, self.ledger, self.request, at=self.runtime.wall(), note=self.reporter.note
            )
            if self.request.submit:
                # Only now: a wrong address or key must not tie a ledger to itself.
                self.ledger.bind(binding(self.pipeline, self.access.service), adopt=self.request.adopt_state)
                self.ledger.set_meta(
                    {
                        "app": app.served,
                        "app_id": app.app_id,
                        "generation": client.generation.name,
                        "generation_doubted": "",
                    }
                )
                self.reporter.planned(plan, prepared.checked)
            try:
                async with AsyncExitStack() as stack:
                    self.reserve_disk_space(plan, stack)
                    files = await open_downloads(self.pipeline, self.ledger, self.runtime, self.reporter.note, stack)
                    if files is not None:
                        files.missing(shown_job_ids(self.pipeline, prepared, self.ledger))
                    outcome = await self.execute(client, prepared, plan, files)
                    await self.finish(files, outcome)
            except StateError:
                # The ledger can no longer be written; what it knows is still owed.
                with suppress(StateError):
                    self.write(prepared)
                raise
            if outcome.stopped_by is not None and outcome.reason:
                self.reporter.note(outcome.reason)
            requests = _request_totals(client, outcome)
            return self.report(prepared, plan, outcome, requests=requests, findings=findings, files=files)

    def reserve_disk_space(self, plan: Plan, stack: AsyncExitStack) -> None:
        """See that the disk has room for what the ledger will hold, and keep some back until `stack` is left.

        Raises StateError where it has not: then nothing was sent.
        """
        sends = plan.frame.filter(pl.col("action") == Action.SUBMIT)
        if sends.height:
            size = int(sends["inputs_bytes"].sum())
            ensure_room(self.pipeline.state, room_for(sends.height, size))
            self.ledger.reserve = stack.enter_context(Reserve(self.pipeline.state))

    async def generation(self, client: LaminaClient) -> Generation:
        """The generation of the API to submit to: the pipeline's, the one found before, or the one that answers."""
        asked = self.pipeline.api.generation
        if asked != "auto":
            return GENERATIONS[asked]
        same = self.ledger.meta("service") == self.access.service and not self.ledger.meta("generation_doubted")
        known = GENERATIONS.get(self.ledger.meta("generation") or "") if same else None
        if known is None and self.request.submit:
            known = await client.probe_generation()
        return known or EXECUTIONS

    async def execute(self, client: LaminaClient, prepared: Prepared, plan: Plan, files: Files | None) -> Outcome:
        """Send what the plan says, unless something forbids it; collect what runs in any case."""
        app, with_inputs = prepared.app, prepared.checked.with_inputs
        stopped = active_stop(self.pipeline, app, self.ledger, self.request)
        forbidden = _stop_before_start(self.pipeline, plan, self.request, stopped) if self.request.submit else None
        if stopped is not None and forbidden is stopped.by:
            self.reporter.note(
                f"nothing is started: {stopped.why}\n"
                "  look at its manifest; then --yes goes on, --retry-failed or --rerun KEY starts rows again"
            )
        sends = self.request.submit and forbidden is None
        count = plan.count(Action.SUBMIT) if sends else 0
        running = _jobs_to_collect(self.ledger, plan, self.request)
        once = set(plan.job_ids(Action.ASK_ONCE))
        ask_once = [job for job in self.ledger.jobs(State.TIMED_OUT) if job.id in once]
        # What is sent again is heard of as itself.
        resent = set(plan.job_ids(Action.SUBMIT)) if count else set()
        held = [job for job in self.ledger.jobs(State.HELD) if job.by_webhook and job.id not in resent]
        held = held if self.by_webhook else []
        if not (count or running or ask_once or held):
            return Outcome(stopped_by=forbidden)
        engine = Engine(
            client=client,
            ledger=self.ledger,
            budget=self.budget,
            polling=await self.polling(client, app),
            guards=Guards(canary=self.pipeline.run.canary, max_failures=self.pipeline.run.max_failures),
            listener=self.reporter if files is None else _DownloadingListener(reporter=self.reporter, files=files),
            control=self.control,
            runtime=self.runtime,
            app_id=app.app_id,
            contract=app.fingerprint,
            run_id=self.run_id,
            max_in_flight=self.pipeline.run.max_in_flight,
            execution_timeout=self.pipeline.run.execution_timeout,
            wait=self.request.wait,
        )
        try:
            async with self.webhook_receiver(engine, client):
                outcome = await engine.run(
                    plan.submissions(with_inputs) if sends else (), count, running=running, ask_once=ask_once, held=held
                )
        except asyncio.CancelledError:
            # The second signal: leave at once, with what was cut off held and everything else written.
            outcome = engine.outcome
            outcome.stopped_by = Stop.SIGNAL
            self.ledger.recover(at=self.runtime.wall(), run_id=self.run_id)
        if outcome.stopped_by is Stop.REFUSED and self.pipeline.api.generation == "auto":
            # The service may have gone over to another generation: the next run asks again.
            self.ledger.set_meta({"generation_doubted": "yes"})
        if sends:
            # A guard that found nothing left to stop has not let the run through either.
            self.remember(outcome, app, went_through=engine.guards.stop is None)
        outcome.stopped_by = outcome.stopped_by or forbidden
        return outcome

    def remember(self, outcome: Outcome, app: App, *, went_through: bool) -> None:
        """See that the next run knows whether this one was stopped."""
        before = Stopped.parse(self.ledger.meta(STOPPED_META_KEY))
        after = remembered(
            outcome.stopped_by,
            before=before,
            run_id=self.run_id,
            made_with=made_with(self.pipeline, app),
            went_through=went_through and bool(outcome.submitted) and self.request.wait,
        )
        if after != before:
            self.ledger.set_meta({STOPPED_META_KEY: after.to_text() if after is not None else ""})

    @property
    def by_webhook(self) -> bool:
        return self.pipeline.run.completion == "webhook"

    @asynccontextmanager
    async def webhook_receiver(self, engine: Engine, client: LaminaClient) -> AsyncIterator[None]:
        """Take callbacks for the engine while the block runs, if the pipeline wants them."""
        webhook = self.pipeline.run.webhook
        if not self.by_webhook or webhook is None:
            yield
            return
        # It imports a web server, and few pipelines want callbacks.
        from lamina_batch.execution.webhooks import Receiver, local_url  # noqa: PLC0415

        # The stand-in is on this machine, and reaches the receiver as it stands.
        local = f"{local_url(webhook.listen)}/lamina"
        async with Receiver(
            listen=webhook.listen,
            public_url=local if self.access.service == "sandbox" else webhook.public_url,
            keys=client.get_signing_keys,
            knows=engine.knows,
            parse=parse_delivery,
            deliver=engine.deliver,
            runtime=self.runtime,
            note=self.reporter.note,
        ) as receiver:
            engine.webhook_for = receiver.url_for
            yield

    async def polling(self, client: LaminaClient, app: App) -> Polling | Sweeping:
        """When to ask about executions, by what the ledger knows of this app's durations."""
        options = self.pipeline.run.poll
        video = options.min_interval is None and await makes_video(client, self.ledger, app)
        least = min_poll_interval(self.pipeline, video=video, speed=self.access.speed)
        if client.generation is RUNS and not self.by_webhook:
            return Sweeping(
                min_interval=least,
                max_interval=max(least, options.max_interval),
                durations=self.ledger.durations(app.app_id),
                timeout=self.pipeline.run.execution_timeout,
            )
        return Polling(
            min_interval=least,
            max_interval=max(least, options.max_interval),
            durations=self.ledger.durations(app.app_id),
            delivered=self.by_webhook,
            timeout=self.pipeline.run.execution_timeout,
        )

    async def finish(self, files: Files | None, outcome: Outcome) -> None:
        """Wait for the files that are on their way, unless somebody stops us; the next run saves the others."""
        if files is None or not self.request.wait:
            return
        stopped = asyncio.Event()
        self.control.wake = stopped.set
        waits = [asyncio.ensure_future(files.finish()), asyncio.ensure_future(stopped.wait())]
        if self.control.stopped:
            stopped.set()
        try:
            done, _ = await asyncio.wait(waits, timeout=3.0, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self.reporter.note(f"saving {files.left} more files")
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            stopped.set()
        finally:
            for wait in waits:
                wait.cancel()
        if stopped.is_set():
            outcome.stopped_by = outcome.stopped_by or Stop.SIGNAL

    def write(self, prepared: Prepared) -> tuple[tuple[Path, ...], Path | None, Told]:
        """Write the manifest and the report. Answers where they stand, and what they tell.

        Where no row is left, what stands there of earlier runs stays. What cannot be written is said. Raises StateError
        where the ledger cannot be read.
        """
        wanted = self.pipeline.results
        kept = self.existing_results_to_keep(prepared)
        told = Told()
        lines = Lines(prepared.catalog, told.each(outcome_pages(self.pipeline, prepared, self.ledger)), wanted.layout)
        manifest: tuple[Path, ...] = ()
        page: Path | None = None
        # What was bought is in the ledger, and one file is no reason to go without the other.
        try:
            new = [file for file in wanted.manifest if file not in kept]
            written = dict(zip(new, write_manifest(prepared.catalog, lines, new), strict=True))
            manifest = tuple(written.get(file, file) for file in wanted.manifest)
        except StateError as error:
            self.reporter.note(f"{error}\n  `{self.pipeline.command('results')}` writes it again")
        if wanted.report in kept:
            page = wanted.report
        elif wanted.report is not None:
            service, at = self.access.service, self.runtime.wall()
            try:
                page = publish_report(self.pipeline, prepared, told.outcomes(), wanted.report, service=service, at=at)
            except StateError as error:
                self.reporter.note(f"{error}\n  `{self.pipeline.command('results')}` writes it again")
        return manifest, page, told

    def existing_results_to_keep(self, prepared: Prepared) -> frozenset[Path]:
        """The results of before, where no row is left that could be told in their place; says so."""
        if prepared.checked.jobs.height or self.ledger.is_empty():
            return frozenset()
        counts = sorted(self.ledger.counts().items())
        files = [*self.pipeline.results.manifest, *filter(None, [self.pipeline.results.report])]
        kept = frozenset(file for file in files if file.exists())
        left = f"; left as they are: {', '.join(str(file) for file in files if file in kept)}" if kept else ""
        known = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts)
        self.reporter.note(f"there are no rows, although the ledger knows jobs ({known}){left}")
        return kept

    def report(
        self,
        prepared: Prepared,
        plan: Plan,
        outcome: Outcome,
        *,
        requests: Requests,
        findings: Path,
        files: Files | None,
    ) -> Summary:
        """Write what people take away, and the numbers."""
        manifest, page, told = self.write(prepared)
        counts = told.counts
        signal = self.control.signal if outcome.stopped_by is Stop.SIGNAL else None
        least = least_seconds(
            outcome.submitted,
            limit=self.budget.limit,
            window=self.budget.window,
            shortest=min(self.ledger.durations(prepared.app.app_id), default=0.0),
            per_job=1 if self.by_webhook else 2,
            reads=min(SETUP_REQUESTS, requests.other),
            max_in_flight=self.pipeline.run.max_in_flight,
        )
        summary = Summary(
            schema_version=SCHEMA_VERSION,
            pipeline=self.pipeline.name,
            run_id=self.run_id,
            exit_code=exit_code(
                counts,
                outcome.stopped_by,
                signal=signal,
                unwritten=not manifest or (page is None and self.pipeline.results.report is not None),
                unsaved=bool(files and files.failed),
            ),
            stopped_by=outcome.stopped_by,
            counts={
                "rows": prepared.checked.jobs["lamina_index"].n_unique(),
                "jobs": counts.total(),
                "submitted": outcome.submitted,
                "unchanged": plan.count(Action.UNCHANGED),
                **{status: counts.get(status, 0) for status in STATUSES},
                "new_problems": self.ledger.replace_problems(told.problems),
            },
            requests=requests,
            seconds=round(self.runtime.now() - self.began, 3),
            least_seconds=round(least, 3),
            credits=estimate_credits(self.pipeline, outcome.submitted),
            files=Written(
                manifest=tuple(str(file) for file in manifest),
                report=None if page is None else str(page),
                findings=str(findings),
            ),
            downloads=None if files is None else Saved(saved=files.saved, failed=files.failed),
        )
        write_summary(summary, self.pipeline.state)
        return summary


def _stop_before_start(pipeline: Pipeline, plan: Plan, request: RunRequest, stopped: Stopped | None) -> Stop | None:
    """Why nothing may be started at all; None: it may. `stopped` is an earlier stop that still stands."""
    if pipeline.run.on_invalid_rows == "fail" and plan.count(Action.INVALID):
        return Stop.INVALID_ROWS
    if stopped is not None and plan.count(Action.SUBMIT):
        return stopped.by
    if plan.count(Action.SUBMIT) > pipeline.run.max_executions and not request.yes:
        return Stop.MAX_EXECUTIONS
    return None


def _jobs_to_collect(ledger: Ledger, plan: Plan, request: RunRequest) -> list[Job]:
    """What runs and shall be waited for: all of it, also of rows that are gone, unless only some are asked for."""
    running = ledger.jobs(State.RUNNING)
    if request.starts is None:
        return running
    wanted = set(plan.frame.filter(named(request.starts))["was_id"].drop_nulls())
    return [job for job in running if job.id in wanted]


def _request_totals(client: LaminaClient, outcome: Outcome) -> Requests:
    sent = client.requests
    total = sent["submit"] + sent["poll"] + sent["other"]
    return Requests(
        total=total,
        submit=sent["submit"],
        poll=sent["poll"],
        other=sent["other"],
        rate_limited=sent["rate_limited"],
        per_ended=round(total / outcome.ended, 3) if outcome.ended else None,
    )


def new_run_id(runtime: Runtime) -> str:
    """A name for one run, in the order of time."""
    at = datetime.fromtimestamp(runtime.wall(), UTC)
    return f"{at:%Y%m%dT%H%M%SZ}-{runtime.random.getrandbits(24):06x}"
