"""lamina-batch for programs: load a pipeline, see what a run would do, run it, read what came of it (docs/python.md).

The same path as the commands: what `run` answers, writes and refuses is what `lamina-batch run` does. Nothing is
printed (notes go to the logger `lamina_batch`), no signal is touched, and every error is a LaminaBatchError.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from lamina_batch.errors import LaminaBatchError, UsageError
from lamina_batch.results.picks import parse_picks
from lamina_batch.runs.bootstrap import PipelineTarget, ServiceOptions
from lamina_batch.runs.context import RunRequest
from lamina_batch.runs.preview import preview as preview_run
from lamina_batch.runs.republish import manifest_frame
from lamina_batch.runs.run import new_run_id
from lamina_batch.runs.session import Session
from lamina_batch.runtime import system_runtime

if TYPE_CHECKING:
    import os
    from collections.abc import Coroutine, Iterable, Mapping
    from typing import Unpack

    import polars as pl

    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.execution.engine import Progress
    from lamina_batch.ledger.job import Job
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.summary import Summary

_log = logging.getLogger("lamina_batch")
# Else Python prints warnings of programs that have set up no log.
_log.addHandler(logging.NullHandler())
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPipeline:
    """A pipeline file that has been read and checked, and the service that it runs at. `load_pipeline` makes it."""

    #: what the file says
    spec: Pipeline
    call: PipelineTarget = field(repr=False)

    @property
    def name(self) -> str:
        """The pipeline's name, for people."""
        return self.spec.name

    @property
    def state(self) -> Path:
        """The folder of the ledger: findings.csv and runs/ are in it, too."""
        return self.spec.state

    @property
    def manifest(self) -> tuple[Path, ...]:
        """Where `run` writes the results."""
        return self.spec.results.manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do."""

    #: a line per job in the source's order: `row`, `key`, `variant`, `action`, `reason`, and `message` where a row is
    #: invalid. The actions are those that `lamina-batch plan` counts: submit, share, unchanged, collect, …
    jobs: pl.DataFrame
    #: a line per bad cell, as in findings.csv
    findings: pl.DataFrame
    #: how many would be started
    executions: int
    #: the least time that the service's rate limit allows for them
    least_seconds: float
    #: None: run.credits_per_execution is not given
    credits: float | None
    #: what a person should know about the whole
    notes: tuple[str, ...]


class PlanArguments(TypedDict, total=False):
    """What `plan` can be asked beyond the pipeline file. As the options of `lamina-batch plan`."""

    #: start at most so many executions
    limit: int
    #: start only these rows, each a key or key/variant
    only: Iterable[str]
    #: start again what failed, was partial or was rejected, but not what was given up while it was held
    retry_failed: bool
    #: buy these rows once more, whatever they came to, and nothing else
    rerun: Iterable[str]
    #: verdicts saved from the report: what was rejected there is bought once more, and nothing else
    rerun_file: str | os.PathLike[str]
    #: take over a ledger that belongs to another file or service
    adopt_state: bool
    #: an empty ledger is meant, although there are results
    new_ledger: bool


class RunArguments(PlanArguments, total=False):
    """What `run` can be asked beyond the pipeline file. As the options of `lamina-batch run`."""

    #: go on past run.max_executions, and after a run that run.canary or run.max_failures stopped
    yes: bool
    #: False: submit and leave
    wait: bool
    #: False: never submit, only collect what is running
    submit: bool
    #: what to do while another run holds the ledger; `fail` raises LedgerLockedError
    if_locked: Literal["fail", "wait"]


def load_pipeline(
    file: str | os.PathLike[str],
    *,
    overrides: Mapping[str, str] | None = None,
    sandbox: bool = False,
    base_url: str | None = None,
    api_key: str | None = None,
) -> LoadedPipeline:
    """Read and check a pipeline file. Nothing is asked of the service yet.

    `overrides` are values of the file by their dotted paths, as `--set` takes them: `{"rows.from": "today.csv"}`.
    `sandbox` means the embedded stand-in, with a ledger and results of its own. `base_url` and `api_key` go before the
    environment (LAMINA_BASE_URL, LAMINA_API_KEY) and the official tool's file.

    Raises PipelineError, which names every problem of the file, and UsageError for an override that does not fit.
    """
    call = PipelineTarget(
        file=Path(file),
        service=ServiceOptions(sandbox=sandbox, base_url=base_url, api_key=api_key),
        overrides=tuple(f"{path}={value}" for path, value in (overrides or {}).items()),
    )
    return LoadedPipeline(spec=call.load(), call=call)


async def plan_async(pipeline: LoadedPipeline, **options: Unpack[PlanArguments]) -> Plan:
    """What a run would do: every row is checked against the app's live schema, and nothing is started or written.

    Raises ServiceError and CredentialsError if the service cannot be asked, CatalogError and PipelineError where the
    rows or the pipeline do not fit.
    """
    with pipeline.call.access(pipeline.spec) as access:
        preview = await preview_run(pipeline.spec, access, system_runtime(_log.info), _make_run_request(options))
    return Plan(
        jobs=preview.plan.frame.select("row", "key", "variant", "action", "reason", "message"),
        findings=preview.prepared.checked.findings,
        executions=preview.executions,
        least_seconds=preview.forecasts[pipeline.spec.run.completion].least_seconds,
        credits=preview.credits,
        notes=preview.prepared.notes,
    )


def plan(pipeline: LoadedPipeline, **options: Unpack[PlanArguments]) -> Plan:
    """`plan_async`, and waits for it. Raises UsageError if an event loop is running already."""
    return _run_blocking(plan_async(pipeline, **options), "plan")


async def run_async(pipeline: LoadedPipeline, **options: Unpack[RunArguments]) -> Summary:
    """Check, submit, wait, and write the results. Run it again at any time: nothing is bought twice.

    The answer has the numbers, and in `exit_code` what `lamina-batch run` would exit with: a row that failed, a cap or
    a canary that stopped the run are no exceptions but found there. `read_results` has the rows.

    Cancelling it is like Ctrl-C: nothing new is submitted, what is being submitted lands (30 s at most,
    run.request_timeout), the results are written, and then CancelledError is raised. Cancelled once more, it leaves at
    once, and what has not landed is held.

    Who `notify` of the pipeline names is told how it ended, unless it was cancelled.

    Raises LedgerLockedError while another run holds the ledger, and what `plan_async` raises; StateError where the
    ledger cannot be written.
    """
    runtime = system_runtime(_log.info)
    session = Session(
        target=pipeline.call,
        pipeline=pipeline.spec,
        request=_make_run_request(options),
        runtime=runtime,
        reporter=_LogReporter(),
        run_id=new_run_id(runtime),
    )
    try:
        summary = await session.run()
    except LaminaBatchError as error:
        await _notify(session, exit_code=error.exit_code, error=error.located_message)
        raise
    await _notify(session, exit_code=summary.exit_code, summary=summary)
    return summary


async def _notify(session: Session, **result: Any) -> None:
    problem = await session.notify(**result)
    if problem is not None:
        _log.warning(problem)


def run(pipeline: LoadedPipeline, **options: Unpack[RunArguments]) -> Summary:
    """`run_async`, and waits for it. Raises UsageError if an event loop is running already."""
    return _run_blocking(run_async(pipeline, **options), "run")


def read_results(pipeline: LoadedPipeline, *, layout: Literal["wide", "long"] | None = None) -> pl.DataFrame:
    """The lines of the manifest as they stand now, from the ledger and the rows: nothing is asked of the service.

    Columns as docs/results.md lists them, those of the source first, with their types; `layout` is the pipeline's
    unless given. Raises UsageError if the pipeline has not run yet.
    """
    return manifest_frame(pipeline.spec, layout or pipeline.spec.results.layout)


class _LogReporter:
    """Tells the log what a run says."""

    def planned(self, plan: object, checked: CheckedRows) -> None:
        pass

    def note(self, text: str) -> None:
        _log.info(text)

    def changed(self, job: Job) -> None:
        _log.debug("%s: %s", job.name, job.state)

    def on_progress(self, progress: Progress) -> None:
        pass


def _make_run_request(options: Any) -> RunRequest:
    asked = dict(options)
    # An empty list of keys means no row. It is what a filter of the caller's comes to, and must not buy all of them.
    some = {"only", "rerun"} & asked.keys()
    only, rerun = (_keys(asked.pop(name, ())) for name in ("only", "rerun"))
    file = asked.pop("rerun_file", None)
    picks = None if file is None else parse_picks(_read_picks_file(Path(file)), where=str(file))
    return RunRequest(only=only if some else None, rerun=rerun, picks=picks, **asked)


def _keys(names: Iterable[str]) -> frozenset[str]:
    """One key alone is a text, and no list of its letters."""
    return frozenset((names,) if isinstance(names, str) else names)


def _read_picks_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror or error}", where=str(file)) from error


def _run_blocking(work: Coroutine[Any, Any, _Result], name: str) -> _Result:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise UsageError(
        f"{name}() waits, and an event loop is running here that would wait with it",
        hint=f"write `await {name}_async(...)`",
    )
