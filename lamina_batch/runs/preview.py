"""Looking ahead: what validate and plan answer, without spending anything."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import polars as pl

from lamina_batch.catalog.prepare import Prepared, prepare
from lamina_batch.client.generations import RUNS
from lamina_batch.drift.judge import read_pipeline_pin
from lamina_batch.execution.forecast import forecast
from lamina_batch.execution.plan import Action, Plan, completed_contents
from lamina_batch.ledger.ledger import Ledger, find_ledger
from lamina_batch.pipeline.spec import Completion
from lamina_batch.runs.contract import check_contract
from lamina_batch.runs.planning import (
    active_stop,
    can_skip_completed,
    download_pattern,
    estimate_credits,
    plan_jobs,
    refuse_picks,
)
from lamina_batch.runs.service import SETUP_REQUESTS, fetch_app, make_budget, makes_video_meta_key, min_poll_interval
from lamina_batch.runs.state import read_state
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.catalog.mapping import RowMapping
    from lamina_batch.client.budget import Budget
    from lamina_batch.execution.forecast import Forecast
    from lamina_batch.execution.guards import StoppedRun
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.preflight.preflight import PreflightResult
    from lamina_batch.runs.context import Access, RunRequest
    from lamina_batch.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What `plan` answers."""

    prepared: Prepared
    plan: Plan
    executions: int
    #: the earlier run whose stop keeps this one from starting anything; None if there is no such run
    stopped: StoppedRun | None
    #: what a run would take, by each way to notice the ends
    forecasts: Mapping[Completion, Forecast]
    credits: float | None
    #: key/variant of a changed job -> the inputs that changed; empty unless explanations were asked for
    changed: dict[str, tuple[str, ...]]


def validate(
    pipeline: Pipeline, access: Access, runtime: Runtime, *, on_progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Check the file, the live schema and every row.

    With `on_progress` every distinct image and video URL is requested, too; it gets the number done and the total.
    """
    download_pattern(pipeline)
    catalog = read_catalog(pipeline)
    app = asyncio.run(fetch_app(pipeline, access, runtime, make_budget(pipeline)))
    with find_ledger(pipeline.state) or nullcontext() as ledger:
        notes = check_contract(pipeline, catalog, app, access.service, ledger)
    check_urls = _make_url_check(pipeline, access, runtime, on_progress) if on_progress is not None else None
    return prepare(
        pipeline, catalog, app, access.service, all_hashes=False, contract_notes=notes, check_urls=check_urls
    )


def validate_offline(pipeline: Pipeline) -> Prepared:
    """Check the file and every row against the pin alone. Raises PipelineError if there is none."""
    download_pattern(pipeline)
    pin = read_pipeline_pin(pipeline)
    if pin is None:
        raise pipeline.error(
            ("schema", "pin"),
            "is not given, and without the service the pin is what rows are checked against",
            f"`lamina-batch apps pin {pipeline.app}{pipeline.sandbox_option}` takes one; then add "
            "schema: {pin: FILE}",
        )
    note = f"checked against the pin of {pin.taken_at}, taken from {pin.taken_from}; the app may have changed since"
    return prepare(pipeline, read_catalog(pipeline), pin.app, pin.taken_from, all_hashes=False, contract_notes=(note,))


def _make_url_check(
    pipeline: Pipeline, access: Access, runtime: Runtime, on_progress: Callable[[int, int], None]
) -> Callable[[RowMapping], PreflightResult]:
    # What it imports takes longer than many a command, and few ask for it.
    from lamina_batch.preflight.addresses import is_private  # noqa: PLC0415
    from lamina_batch.preflight.preflight import UrlChecker  # noqa: PLC0415

    preflights = UrlChecker(
        local=is_private(access.base_url),
        needed=pipeline.run.execution_timeout,
        runtime=runtime,
        on_progress=on_progress,
    )
    return lambda mapped: asyncio.run(preflights.look(mapped))


async def preview(pipeline: Pipeline, access: Access, runtime: Runtime, request: RunRequest) -> Preview:
    """What a run would do, without doing it and without touching the state folder."""
    refuse_picks(pipeline, request, access.service)
    download_pattern(pipeline)
    with read_state(pipeline, access.service, request) as ledger, ThreadPoolExecutor(1) as aside:
        has_jobs = ledger is not None and not ledger.is_empty()
        # SQLite reads while the service is asked and polars calculates.
        skip = has_jobs and can_skip_completed(pipeline, request)
        reading = aside.submit(_completed_contents, pipeline.state) if skip else None
        catalog = read_catalog(pipeline)
        budget = make_budget(pipeline)
        app = await fetch_app(pipeline, access, runtime, budget)
        notes = check_contract(pipeline, catalog, app, access.service, ledger)
        prepared = prepare(pipeline, catalog, app, access.service, all_hashes=has_jobs, contract_notes=notes)
        plan = plan_jobs(
            pipeline,
            prepared,
            ledger if has_jobs else None,
            request,
            at=runtime.wall(),
            note=runtime.notice,
            contents=reading.result() if reading is not None else None,
        )
        executions = plan.count(Action.SUBMIT)
        return Preview(
            prepared=prepared,
            plan=plan,
            executions=executions,
            stopped=active_stop(pipeline, app, ledger, request) if ledger is not None and executions else None,
            forecasts=_forecasts(pipeline, executions, budget, ledger, app, speed=access.speed),
            credits=estimate_credits(pipeline, executions),
            changed=_changed_inputs(plan, prepared.checked, ledger) if ledger is not None and request.explain else {},
        )


def _completed_contents(folder: Path) -> pl.Series | None:
    """The ledger's completed contents, read by a connection of its own."""
    with find_ledger(folder) or nullcontext() as ledger:
        return completed_contents(ledger.contents()) if ledger is not None else None


def _forecasts(
    pipeline: Pipeline, executions: int, budget: Budget, ledger: Ledger | None, app: App, *, speed: float
) -> Mapping[Completion, Forecast]:
    video = ledger is not None and ledger.meta(makes_video_meta_key(app)) == "True"
    least = min_poll_interval(pipeline, video=video, speed=speed)
    remembered = ledger.meta("generation") if ledger is not None else None
    generation = remembered if pipeline.api.api_version == "auto" else pipeline.api.api_version

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
            reads=SETUP_REQUESTS,
        )

    return {completion: by(completion) for completion in get_args(Completion)}


def _changed_inputs(plan: Plan, checked: CheckedRows, ledger: Ledger) -> dict[str, tuple[str, ...]]:
    """For each changed job, the names of the inputs that differ from its newest revision."""
    changed = checked.with_inputs(plan.frame.filter(pl.col("reason") == "changed"))
    answer: dict[str, tuple[str, ...]] = {}
    for key, variant, inputs in changed.select("key", "variant", "inputs").iter_rows():
        before = ledger.newest_inputs(key, variant)
        if before:
            old, new = json.loads(before), json.loads(inputs)
            name = f"{key}/{variant}" if variant else key
            answer[name] = tuple(p for p in sorted(old.keys() | new.keys()) if old.get(p) != new.get(p))
    return answer
