"""One run as a straight line: load -> read -> map -> check -> plan -> execute -> results.

The path of one row:

1. `catalog.source` reads it from the file, with the row number that a spreadsheet shows.
2. `catalog.mapping` turns its cells into the app's inputs, once for each variant.
3. `catalog.check` holds them against the app's live schema and makes findings of what does not fit.
4. `catalog.content` gives what is left its content: the hash that says what would be bought.
5. `execution.plan` looks that content up in the ledger: submit, share, collect, reuse, report or hold.
6. `execution.engine` makes the submission durable, sends it when the budget allows, and writes its end down.
7. `execution.files` saves the files of what completed, while the others go on.
8. `results.manifest` puts the row's own cells and what came of them side by side.

Loading the pipeline file is the caller's, because it decides with which overrides.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, get_args

import polars as pl

from lamina_batch.apps.app import App, parse_app
from lamina_batch.catalog.check import Checked, check_rows
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.catalog.source import Catalog, read_catalog
from lamina_batch.client.budget import Budget
from lamina_batch.client.lamina import EXECUTIONS, GENERATIONS, RUNS, LaminaClient, parse_delivery
from lamina_batch.errors import LedgerLockedError, ServiceError, StateError, UsageError, did_you_mean
from lamina_batch.execution.engine import Control, Engine, Listener, Outcome
from lamina_batch.execution.files import Files
from lamina_batch.execution.folder import Reserve, ensure_room, refuse_network, room_for
from lamina_batch.execution.forecast import forecast, least_seconds
from lamina_batch.execution.guards import Guards, Stop
from lamina_batch.execution.job import State
from lamina_batch.execution.ledger import Binding, Ledger, find_ledger, open_ledger
from lamina_batch.execution.lock import IfLocked, locked
from lamina_batch.execution.plan import Action, Plan, Wish, ledger_frame, make_plan, named
from lamina_batch.execution.polling import Polling
from lamina_batch.execution.sweep import Sweeping
from lamina_batch.execution.webhooks import Receiver, local_url
from lamina_batch.media.names import parse_pattern
from lamina_batch.pipeline.spec import Completion, RunOptions
from lamina_batch.results.files import ensure_writable
from lamina_batch.results.findings import write_findings
from lamina_batch.results.lost import refuse_lost, refuse_renamed
from lamina_batch.results.manifest import Outcomes, ensure_room_in, gather, write_manifest
from lamina_batch.results.summary import (
    PROBLEMS,
    SCHEMA_VERSION,
    STATUSES,
    Requests,
    Saved,
    Summary,
    Written,
    exit_code,
    write_summary,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from random import Random

    from lamina_batch.client.lamina import Generation
    from lamina_batch.execution.engine import Progress
    from lamina_batch.execution.forecast import Forecast
    from lamina_batch.execution.job import Job
    from lamina_batch.media.names import Pattern
    from lamina_batch.pipeline.spec import Layout, Pipeline

_Answer = TypeVar("_Answer")

#: Seconds below which an execution is not asked again (DESIGN.md section 4, run.poll).
IMAGE_INTERVAL = 3.0
VIDEO_INTERVAL = 10.0
#: Requests that a run spends before its first submission: the app, its workflow, and the generation or the keys.
_READS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is not a function of its arguments: clocks, sleep and chance."""

    #: monotonic seconds, for pacing
    now: Callable[[], float]
    #: epoch seconds, for records
    wall: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Random
    #: tells a person something while they wait
    notice: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which service, and with which key."""

    base_url: str
    api_key: str = field(repr=False)
    #: what the ledger and the content hashes know the service by: the base URL, or the word `sandbox`
    service: str
    #: how many times faster than the real service it works; shortens the intervals that we choose, not the user's
    speed: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the user asks of `run` beyond the pipeline file."""

    retry_failed: bool = False
    rerun: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    limit: int | None = None
    #: consent to start more than `max_executions`
    yes: bool = False
    #: False: submit and leave
    wait: bool = True
    if_locked: IfLocked = "fail"
    adopt_state: bool = False
    #: the ledger is meant to be empty, whatever was bought before
    new_ledger: bool = False
    #: False: `collect`, which never submits
    submit: bool = True


class Reporter(Listener, Protocol):
    """Is told how the run goes, and shows it."""

    def planned(self, plan: Plan, checked: Checked) -> None:
        """What the run is going to do, before it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The catalog, mapped and checked against one schema."""

    app: App
    catalog: Catalog
    checked: Checked

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the whole."""
        read = self.catalog.frame.select(pl.len()).collect().item()
        kept = self.checked.jobs["lamina_index"].n_unique()
        skipped = self.checked.skipped_rows
        left_out = [f"{skipped} by `blank: skip_row`"] if skipped else []
        if read - kept - skipped:
            left_out.insert(0, f"{read - kept - skipped} by `where`")
        told = [f"of {read} rows, {kept} are used: left out {', '.join(left_out)}"] if left_out else []
        return (*self.checked.notes, *told, *(["there are no rows to run"] if not kept else []))


def refuse_source(pipeline: Pipeline, file: Path) -> None:
    """Raise UsageError where writing `file` would replace the rows or the pipeline file, or become rows itself."""
    wanted = file.resolve()
    if wanted == pipeline.file.resolve():
        raise UsageError("this is the pipeline file itself", where=str(file), hint="give it another name")
    for source in pipeline.rows.sources:
        if wanted == Path(source).resolve() or wanted.match(source):
            raise UsageError(
                f"this would be read as rows: `rows.from` names {source}",
                where=str(file),
                hint="give it another name, or another folder",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What `plan` answers."""

    prepared: Prepared
    plan: Plan
    executions: int
    #: what a run would take, by each way to notice the ends
    forecasts: Mapping[Completion, Forecast]
    credits: float | None
    #: key/variant of a changed job -> the inputs that changed
    changed: dict[str, tuple[str, ...]]


# -- the steps -----------------------------------------------------------------------------------------------


def prepare(pipeline: Pipeline, catalog: Catalog, app: App, service: str) -> Prepared:
    """Map -> check. Raises PipelineError where the pipeline does not fit the app or the catalog."""
    file_pattern(pipeline)
    mapped = map_rows(catalog, pipeline, app)
    return Prepared(app=app, catalog=catalog, checked=check_rows(mapped, pipeline, app, service=service))


def file_pattern(pipeline: Pipeline) -> Pattern | None:
    """Where downloaded files go; None: nothing is downloaded. Raises PipelineError for a pattern that is none."""
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
            "has to use {variant}, because there is a matrix",
            "add it as a folder: {key}/{variant}/",
        )
    return pattern


async def ask(
    access: Access,
    world: World,
    question: Callable[[LaminaClient], Awaitable[_Answer]],
    pipeline: Pipeline | None = None,
) -> _Answer:
    """Ask the service something outside a run, as `pipeline` does, if there is one.

    Raises ServiceError, CredentialsError.
    """
    budget = Budget() if pipeline is None else _budget(pipeline)
    async with _client(pipeline, access, world, budget) as client:
        return await question(client)


def validate(pipeline: Pipeline, access: Access, world: World) -> Prepared:
    """Check the file, the live schema and every row."""
    catalog = read_catalog(pipeline)
    app = asyncio.run(_fetch_app(pipeline, access, world, _budget(pipeline)))
    return prepare(pipeline, catalog, app, access.service)


def preview(pipeline: Pipeline, access: Access, world: World, request: RunRequest) -> Preview:
    """What a run would do, without doing it and without touching the state folder."""
    catalog = read_catalog(pipeline)
    budget = _budget(pipeline)
    app = asyncio.run(_fetch_app(pipeline, access, world, budget))
    prepared = prepare(pipeline, catalog, app, access.service)
    ledger = find_ledger(pipeline.state)
    if not request.new_ledger:
        refuse_lost(pipeline, ledger)
        refuse_renamed(pipeline, ledger, access.service)
    with ledger or nullcontext():
        if ledger is not None:
            ledger.check_binding(binding(pipeline, access.service), adopt=request.adopt_state)
        plan = _plan(pipeline, prepared, ledger.table() if ledger is not None else [], request, world)
        executions = plan.count(Action.SUBMIT)
        return Preview(
            prepared=prepared,
            plan=plan,
            executions=executions,
            forecasts=_forecasts(pipeline, executions, budget, ledger, app, speed=access.speed),
            credits=_credits(pipeline, executions),
            changed=_changes(plan, ledger) if ledger is not None else {},
        )


def _forecasts(
    pipeline: Pipeline, executions: int, budget: Budget, ledger: Ledger | None, app: App, *, speed: float
) -> Mapping[Completion, Forecast]:
    video = ledger is not None and ledger.meta(_makes_video_name(app)) == "True"
    least = _least_interval(pipeline, video=video, speed=speed)
    remembered = ledger.meta("generation") if ledger is not None else None
    generation = remembered if pipeline.api.generation == "auto" else pipeline.api.generation

    def by(completion: Completion) -> Forecast:
        return forecast(
            executions,
            durations=ledger.durations(app.app_id) if ledger is not None else (),
            limit=budget.limit,
            window=budget.window,
            max_in_flight=pipeline.run.max_in_flight,
            completion=completion,
            generation="runs" if generation == RUNS.name else "executions",
            min_interval=least,
            max_interval=max(least, pipeline.run.poll.max_interval),
            reads=_READS,
        )

    return {completion: by(completion) for completion in get_args(Completion)}


async def _fetch_app(pipeline: Pipeline, access: Access, world: World, budget: Budget) -> App:
    async with _client(pipeline, access, world, budget) as client:
        return await client.get_app(pipeline.app)


async def results(
    pipeline: Pipeline, manifests: Sequence[Path], layout: Layout, world: World
) -> tuple[tuple[Path, ...], int]:
    """Write the manifest again, from the ledger and the rows, and save the files that are missing.

    Nothing is asked of the service. Answers where each manifest stands, and how many files could not be saved. Raises
    UsageError where there is no ledger yet.
    """
    for file in manifests:
        refuse_source(pipeline, file)
    with existing_ledger(pipeline) as ledger:
        refuse_lost(pipeline, ledger)
        catalog = read_catalog(pipeline)
        prepared = prepare(pipeline, catalog, _last_app(ledger), ledger.meta("service") or "")
        failed = 0
        if pipeline.results.download is not None:
            try:
                async with locked(pipeline.state, if_locked="fail", holder="results", sleep=world.sleep):
                    failed = await _save_missing(pipeline, prepared, ledger, world)
            except LedgerLockedError:
                world.notice("a run holds this ledger, and saves the missing files itself")
        written = write_manifest(prepared.catalog, _gather(pipeline, prepared, ledger), manifests, layout)
    return written, failed


async def _save_missing(pipeline: Pipeline, prepared: Prepared, ledger: Ledger, world: World) -> int:
    async with AsyncExitStack() as stack:
        files = await _files(pipeline, ledger, world, world.notice, stack)
        if files is None:
            return 0
        files.missing(_shown(pipeline, prepared, ledger))
        await files.finish()
    return files.failed


async def _files(
    pipeline: Pipeline, ledger: Ledger, world: World, note: Callable[[str], None], stack: AsyncExitStack
) -> Files | None:
    """What saves files until `stack` is left; None: nothing is to be saved."""
    pattern = file_pattern(pipeline)
    if pattern is None:
        return None
    files = Files(
        ledger=ledger,
        pattern=pattern,
        now=world.now,
        wall=world.wall,
        sleep=world.sleep,
        random=world.random,
        note=note,
    )
    return await stack.enter_async_context(files)


def _shown(pipeline: Pipeline, prepared: Prepared, ledger: Ledger) -> set[int]:
    """The jobs whose outputs the manifest shows."""
    return set(_gather(pipeline, prepared, ledger).jobs["job_id"].drop_nulls())


def existing_ledger(pipeline: Pipeline) -> Ledger:
    """The ledger of a pipeline that has run. Raises UsageError where there is none."""
    ledger = find_ledger(pipeline.state)
    if ledger is None:
        raise UsageError(
            "this pipeline has not run yet: there is no ledger",
            where=str(pipeline.state),
            hint="`lamina-batch run` makes one (with --sandbox it is another one)",
        )
    return ledger


# -- the run -------------------------------------------------------------------------------------------------


async def run(
    pipeline: Pipeline,
    access: Access,
    request: RunRequest,
    *,
    world: World,
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
    refuse_network(pipeline.state)
    run_id = run_id or new_run_id(world)
    async with locked(pipeline.state, if_locked=request.if_locked, holder=run_id, sleep=world.sleep):
        ledger = open_ledger(pipeline.state) if request.submit else existing_ledger(pipeline)
        with ledger:
            ledger.check_binding(binding(pipeline, access.service), adopt=request.adopt_state)
            if not request.new_ledger:
                refuse_lost(pipeline, ledger)
                refuse_renamed(pipeline, ledger, access.service)
            for job in ledger.recover(at=world.wall(), run_id=run_id):
                reporter.note(f"{job.name}: held: {job.message}")
            one = _Run(
                pipeline=pipeline,
                access=access,
                request=request,
                world=world,
                reporter=reporter,
                control=control,
                ledger=ledger,
                run_id=run_id,
                began=world.now(),
                budget=_budget(pipeline),
            )
            return await one.line()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saving:
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

    def went_on(self, progress: Progress) -> None:
        self.reporter.went_on(progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run on an open, locked ledger."""

    pipeline: Pipeline
    access: Access
    request: RunRequest
    world: World
    reporter: Reporter
    control: Control
    ledger: Ledger
    run_id: str
    #: monotonic seconds
    began: float
    budget: Budget

    async def line(self) -> Summary:
        """The straight line, from the app's contract to the summary."""
        for file in self.pipeline.results.manifest:
            refuse_source(self.pipeline, file)
            ensure_writable(file)
        pattern = file_pattern(self.pipeline)
        if pattern is not None:
            ensure_writable(pattern.folder / "any")
        catalog = read_catalog(self.pipeline)
        async with _client(self.pipeline, self.access, self.world, self.budget) as client:
            app = await client.get_app(self.pipeline.app) if self.request.submit else _last_app(self.ledger)
            client.generation = await self.generation(client)
            prepared = prepare(self.pipeline, catalog, app, self.access.service)
            for note in prepared.notes:
                self.reporter.note(note)
            ensure_room_in(self.pipeline.results.manifest, prepared.checked.jobs.height)
            findings = write_findings(prepared.checked.findings, self.pipeline.state / "findings.csv")
            plan = _plan(self.pipeline, prepared, self.ledger.table(), self.request, self.world)
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
                    self.keep_room(plan, stack)
                    files = await _files(self.pipeline, self.ledger, self.world, self.reporter.note, stack)
                    if files is not None:
                        files.missing(_shown(self.pipeline, prepared, self.ledger))
                    outcome = await self.execute(client, app, plan, files)
                    await self.finish(files, outcome)
            except StateError:
                # The ledger can no longer be written; what it knows is still owed.
                with suppress(StateError):
                    wanted = self.pipeline.results
                    known = _gather(self.pipeline, prepared, self.ledger)
                    write_manifest(prepared.catalog, known, wanted.manifest, wanted.layout)
                raise
            if outcome.stopped_by is not None and outcome.reason:
                self.reporter.note(outcome.reason)
            requests = _requests(client, outcome)
            return self.report(prepared, plan, outcome, requests=requests, findings=findings, files=files)

    def keep_room(self, plan: Plan, stack: AsyncExitStack) -> None:
        """See that the disk has room for what the ledger will hold, and keep some back until `stack` is left.

        Raises StateError where it has not: then nothing was sent.
        """
        sends = plan.frame.filter(pl.col("action") == Action.SUBMIT)
        if sends.height:
            size = int(sends["inputs"].str.len_bytes().sum())
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

    async def execute(self, client: LaminaClient, app: App, plan: Plan, files: Files | None) -> Outcome:
        """Send what the plan says, unless something forbids it; collect what runs in any case."""
        forbidden = _forbidden(self.pipeline, plan, self.request) if self.request.submit else None
        sends = self.request.submit and forbidden is None
        count = plan.count(Action.SUBMIT) if sends else 0
        running = _to_collect(self.ledger, plan, self.request)
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
            listener=self.reporter if files is None else _Saving(reporter=self.reporter, files=files),
            control=self.control,
            random=self.world.random,
            now=self.world.now,
            wall=self.world.wall,
            sleep=self.world.sleep,
            app_id=app.app_id,
            contract=app.fingerprint,
            run_id=self.run_id,
            max_in_flight=self.pipeline.run.max_in_flight,
            execution_timeout=self.pipeline.run.execution_timeout,
            wait=self.request.wait,
        )
        try:
            async with self.receiving(engine, client):
                outcome = await engine.run(
                    plan.submissions() if sends else (), count, running=running, ask_once=ask_once, held=held
                )
        except asyncio.CancelledError:
            # The second signal: leave at once, with what was cut off held and everything else written.
            outcome = engine.outcome
            outcome.stopped_by = Stop.SIGNAL
            self.ledger.recover(at=self.world.wall(), run_id=self.run_id)
        if outcome.stopped_by is Stop.REFUSED and self.pipeline.api.generation == "auto":
            # The service may have gone over to another generation: the next run asks again.
            self.ledger.set_meta({"generation_doubted": "yes"})
        outcome.stopped_by = outcome.stopped_by or forbidden
        return outcome

    @property
    def by_webhook(self) -> bool:
        return self.pipeline.run.completion == "webhook"

    @asynccontextmanager
    async def receiving(self, engine: Engine, client: LaminaClient) -> AsyncIterator[None]:
        """Take callbacks for the engine while the block runs, if the pipeline wants them."""
        webhook = self.pipeline.run.webhook
        if not self.by_webhook or webhook is None:
            yield
            return
        # The stand-in is on this machine, and reaches the receiver as it stands.
        local = f"{local_url(webhook.listen)}/lamina"
        async with Receiver(
            listen=webhook.listen,
            public_url=local if self.access.service == "sandbox" else webhook.public_url,
            keys=client.get_signing_keys,
            knows=engine.knows,
            parse=parse_delivery,
            deliver=engine.deliver,
            now=self.world.now,
            wall=self.world.wall,
            note=self.reporter.note,
        ) as receiver:
            engine.webhook_for = receiver.url_for
            yield

    async def polling(self, client: LaminaClient, app: App) -> Polling | Sweeping:
        """When to ask about executions, by what the ledger knows of this app's durations."""
        options = self.pipeline.run.poll
        video = options.min_interval is None and await _makes_video(client, self.ledger, app)
        least = _least_interval(self.pipeline, video=video, speed=self.access.speed)
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
        outcomes = _gather(self.pipeline, prepared, self.ledger)
        wanted = self.pipeline.results
        manifest: tuple[Path, ...] = ()
        try:
            manifest = write_manifest(prepared.catalog, outcomes, wanted.manifest, wanted.layout)
        except StateError as error:
            # What was bought is in the ledger; the numbers are still owed.
            self.reporter.note(f"{error}\n  `lamina-batch results` writes it again")
        counts = outcomes.counts()
        signal = self.control.signal if outcome.stopped_by is Stop.SIGNAL else None
        least = least_seconds(
            outcome.submitted,
            limit=self.budget.limit,
            window=self.budget.window,
            shortest=min(self.ledger.durations(prepared.app.app_id), default=0.0),
            per_job=1 if self.by_webhook else 2,
            reads=min(_READS, requests.other),
            max_in_flight=self.pipeline.run.max_in_flight,
        )
        summary = Summary(
            schema_version=SCHEMA_VERSION,
            pipeline=self.pipeline.name,
            run_id=self.run_id,
            exit_code=exit_code(
                counts, outcome.stopped_by, signal=signal, unwritten=not manifest, unsaved=bool(files and files.failed)
            ),
            stopped_by=outcome.stopped_by,
            counts={
                "rows": prepared.checked.jobs["lamina_index"].n_unique(),
                "jobs": outcomes.jobs.height,
                "submitted": outcome.submitted,
                "unchanged": plan.count(Action.UNCHANGED),
                **{status: counts.get(status, 0) for status in STATUSES},
                "new_problems": self.ledger.replace_problems(_problems(outcomes)),
            },
            requests=requests,
            seconds=round(self.world.now() - self.began, 3),
            least_seconds=round(least, 3),
            credits=_credits(self.pipeline, outcome.submitted),
            files=Written(manifest=tuple(str(file) for file in manifest), report=None, findings=str(findings)),
            downloads=None if files is None else Saved(saved=files.saved, failed=files.failed),
        )
        write_summary(summary, self.pipeline.state)
        return summary


def _plan(
    pipeline: Pipeline, prepared: Prepared, table: list[tuple[object, ...]], request: RunRequest, world: World
) -> Plan:
    jobs = prepared.checked.jobs
    _check_names(jobs, (request.only or frozenset()) | request.rerun)
    ledger = ledger_frame(table)
    wish = Wish(
        retry_failed=request.retry_failed,
        rerun=request.rerun,
        only=request.only,
        limit=request.limit,
        resubmit_held=pipeline.run.on_unknown == "resubmit",
        share_identical=pipeline.run.share_identical,
    )
    plan = make_plan(jobs, ledger, wish, contract=prepared.app.fingerprint, at=world.wall())
    _check_rerun(plan, request.rerun)
    return plan


def _check_names(jobs: pl.DataFrame, names: frozenset[str]) -> None:
    """A key that no row has is a mistake to be told before anything is spent."""
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


def _check_rerun(plan: Plan, rerun: frozenset[str]) -> None:
    if not rerun:
        return
    busy = plan.frame.filter(named(rerun) & pl.col("was_status").is_in(["running", "submitting", "held"]))
    for key, status in busy.select("key", "was_status").iter_rows():
        what, hint = (
            ("still running", "let a plain run collect it first")
            if status == "running"
            else ("held: it may have been bought already", "settle it first: see `lamina-batch status`")
        )
        raise UsageError(f"{key!r} cannot be run again: it is {what}", hint=hint)


def _forbidden(pipeline: Pipeline, plan: Plan, request: RunRequest) -> Stop | None:
    """Why nothing may be started at all; None: it may."""
    if pipeline.run.on_invalid_rows == "fail" and plan.count(Action.INVALID):
        return Stop.INVALID_ROWS
    if plan.count(Action.SUBMIT) > pipeline.run.max_executions and not request.yes:
        return Stop.MAX_EXECUTIONS
    return None


def _to_collect(ledger: Ledger, plan: Plan, request: RunRequest) -> list[Job]:
    """What runs and shall be waited for: all of it, also of rows that are gone, unless only some are asked for."""
    running = ledger.jobs(State.RUNNING)
    if request.only is None:
        return running
    wanted = set(plan.frame.filter(named(request.only))["was_id"].drop_nulls())
    return [job for job in running if job.id in wanted]


def _least_interval(pipeline: Pipeline, *, video: bool, speed: float) -> float:
    """Seconds below which an execution is not asked again."""
    chosen = pipeline.run.poll.min_interval
    return chosen if chosen is not None else (VIDEO_INTERVAL if video else IMAGE_INTERVAL) / speed


def _makes_video_name(app: App) -> str:
    """Under which name the ledger remembers it."""
    return f"makes_video {app.app_id} {app.fingerprint}"


async def _makes_video(client: LaminaClient, ledger: Ledger, app: App) -> bool:
    """Whether this app makes video, asked once for each version of its contract and remembered."""
    name = _makes_video_name(app)
    known = ledger.meta(name)
    if known is None:
        try:
            workflow = await client.get_workflow(app.app_id)
        except ServiceError:
            # The workflow is only a hint for pacing, and its endpoint may go (API.md 2.3).
            return False
        known = str(workflow.makes_video)
        ledger.set_meta({name: known})
    return known == "True"


def _last_app(ledger: Ledger) -> App:
    """The contract of the last run. Raises UsageError where no run came so far."""
    served = ledger.meta("app")
    if served is None:
        raise UsageError("no run has come as far as reading the app yet", hint="`lamina-batch run` comes first")
    return parse_app(json.loads(served))


def _gather(pipeline: Pipeline, prepared: Prepared, ledger: Ledger) -> Outcomes:
    return gather(
        prepared.checked.jobs,
        ledger_frame(ledger.table()),
        ledger.outputs(),
        [
            (job_id, position, file and os.path.normpath(ledger.folder / str(file)), sha256, error)
            for job_id, position, file, sha256, error in ledger.downloads()
        ],
        app_id=prepared.app.app_id,
        share_identical=pipeline.run.share_identical,
    )


def _problems(outcomes: Outcomes) -> list[str]:
    """A name for each thing that is wrong, the same in every run in which it stays wrong."""
    bad = outcomes.jobs.filter(pl.col("status").is_in(PROBLEMS))
    who = pl.coalesce("key", pl.concat_str(pl.lit("row "), "row"))
    names = bad.select(
        name=pl.concat_str([who, "variant", "status", pl.col("code").fill_null("")], separator="\t")
    ).with_columns(nth=pl.int_range(pl.len()).over("name"))
    return [f"{name}\t{nth}" for name, nth in names.iter_rows()]


def _changes(plan: Plan, ledger: Ledger) -> dict[str, tuple[str, ...]]:
    """For each changed job, the names of the inputs that differ from its newest revision."""
    changed = plan.frame.filter(pl.col("reason") == "changed").select("key", "variant", "inputs")
    answer: dict[str, tuple[str, ...]] = {}
    for key, variant, inputs in changed.iter_rows():
        before = ledger.newest_inputs(key, variant)
        if before:
            old, new = json.loads(before), json.loads(inputs)
            name = f"{key}/{variant}" if variant else key
            answer[name] = tuple(p for p in sorted(old.keys() | new.keys()) if old.get(p) != new.get(p))
    return answer


def _credits(pipeline: Pipeline, executions: int) -> float | None:
    each = pipeline.run.credits_per_execution
    return None if each is None else each * executions


def _requests(client: LaminaClient, outcome: Outcome) -> Requests:
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


def _budget(pipeline: Pipeline) -> Budget:
    return Budget(requests_per_minute=pipeline.run.requests_per_minute, share=pipeline.run.share)


def _client(pipeline: Pipeline | None, access: Access, world: World, budget: Budget) -> LaminaClient:
    run = RunOptions() if pipeline is None else pipeline.run
    return LaminaClient(
        base_url=access.base_url,
        api_key=access.api_key,
        budget=budget,
        now=world.now,
        sleep=world.sleep,
        random=world.random,
        notice=world.notice,
        request_timeout=run.request_timeout,
        bearer=pipeline is not None and pipeline.api.auth == "bearer",
    )


def binding(pipeline: Pipeline, service: str) -> Binding:
    """What the ledger of this pipeline at this service is tied to."""
    return Binding(service=service, pipeline=os.path.relpath(pipeline.file, pipeline.state))


def new_run_id(world: World) -> str:
    """A name for one run, in the order of time."""
    at = datetime.fromtimestamp(world.wall(), UTC)
    return f"{at:%Y%m%dT%H%M%SZ}-{world.random.getrandbits(24):06x}"
