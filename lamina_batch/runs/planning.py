"""The steps that commands share: rows prepared, planned, put beside what the ledger knows, and their files saved."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.catalog.check_rows import CheckedRows, check_rows
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.errors import UsageError, did_you_mean
from lamina_batch.execution.guards import Stopped
from lamina_batch.execution.plan import Plan, Wish, completed, ledger_frame, make_plan, named, settled, with_evidence
from lamina_batch.ledger.ledger import Binding, Ledger, find_ledger
from lamina_batch.media.names import parse_pattern
from lamina_batch.results.manifest import PART, Outcomes, gather
from lamina_batch.results.picks import run_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AsyncExitStack

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.mapping import RowMapping
    from lamina_batch.execution.output_files import Files
    from lamina_batch.media.names import Pattern
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.preflight.preflight import Preflight
    from lamina_batch.results.picks import Pick
    from lamina_batch.runs.context import RunRequest
    from lamina_batch.runtime import Runtime
    from lamina_batch.sources.table import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The catalog, mapped and checked against one schema."""

    app: App
    catalog: Catalog
    checked: CheckedRows
    #: what the contract itself has to say
    told: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the whole."""
        read = self.catalog.frame.select(pl.len()).collect().item()
        kept = self.checked.jobs["lamina_index"].n_unique()
        skipped = self.checked.skipped_rows
        named = self.checked.skipped_keys
        which = f"{', '.join(named)}{', …' if skipped > len(named) else ''}"
        left_out = [f"{skipped} by `blank: skip_row`: {which}"] if skipped else []
        if read - kept - skipped:
            left_out.insert(0, f"{read - kept - skipped} by `where`")
        told = [f"of {read} rows, {kept} are used: left out {', '.join(left_out)}"] if left_out else []
        return (*self.told, *self.checked.notes, *told, *(["there are no rows to run"] if not kept else []))


def refuse_source(pipeline: Pipeline, file: Path) -> None:
    """Raise UsageError where writing `file` would replace the rows or the pipeline file, or become rows itself."""
    wanted = file.resolve()
    if wanted == pipeline.file.resolve():
        raise UsageError("this is the pipeline file itself", where=str(file), hint="give it another name")
    for source in pipeline.rows.sources:
        if wanted == Path(source).resolve() or _glob_matches(wanted.parts, Path(source).parts):
            raise UsageError(
                f"this would be read as rows: `rows.from` names {source}",
                where=str(file),
                hint="give it another name, or another folder",
            )


def _glob_matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is one that `glob` finds: `**` stands for any number of folders, and no sign for a hidden one."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and _glob_matches(parts, pattern[1:]):
        return True
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatchcase(parts[0], pattern[0]) and _glob_matches(
        parts[1:], pattern if pattern[0] == "**" else pattern[1:]
    )


def prepare(
    pipeline: Pipeline,
    catalog: Catalog,
    app: App,
    service: str,
    *,
    contents: bool = True,
    told: tuple[str, ...] = (),
    look: Callable[[RowMapping], Preflight] | None = None,
) -> Prepared:
    """Map -> check, with what `look` finds out about the mapped values.

    `contents` False: there is nothing to look them up in (`check_rows`).
    Raises PipelineError where the pipeline does not fit the app or the catalog.
    """
    download_pattern(pipeline)
    mapped = map_rows(catalog, pipeline, app)
    seen = look(mapped) if look is not None else None
    checked = check_rows(
        mapped,
        pipeline,
        app,
        service=service,
        contents=contents,
        known=seen.verdicts if seen is not None else {},
    )
    told = (*told, *(seen.notes if seen is not None else ()))
    return Prepared(app=app, catalog=catalog, checked=checked, told=told)


def download_pattern(pipeline: Pipeline) -> Pattern | None:
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


async def open_downloads(
    pipeline: Pipeline, ledger: Ledger, runtime: Runtime, note: Callable[[str], None], stack: AsyncExitStack
) -> Files | None:
    """What saves files until `stack` is left; None: nothing is to be saved."""
    pattern = download_pattern(pipeline)
    if pattern is None:
        return None
    from lamina_batch.execution.output_files import Files  # noqa: PLC0415  # few pipelines download

    files = Files(
        ledger=ledger,
        pattern=pattern,
        runtime=runtime,
        note=note,
    )
    return await stack.enter_async_context(files)


def shown_job_ids(pipeline: Pipeline, prepared: Prepared, ledger: Ledger) -> set[int]:
    """The jobs whose outputs the manifest shows."""
    return {int(i) for part in outcome_pages(pipeline, prepared, ledger) for i in part.jobs["job_id"].drop_nulls()}


def open_existing_ledger(pipeline: Pipeline) -> Ledger:
    """The ledger of a pipeline that has run. Raises UsageError where there is none."""
    ledger = find_ledger(pipeline.state)
    if ledger is None:
        raise UsageError(
            "this pipeline has not run yet: there is no ledger",
            where=str(pipeline.state),
            hint=f"`{pipeline.command('run')}` makes one (with --sandbox it is another one)",
        )
    return ledger


def refuse_picks(pipeline: Pipeline, request: RunRequest, service: str) -> None:
    """Raise UsageError where the verdicts are on what something else made."""
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
    """What to do with each row. `at` is the present in epoch seconds, `contents` the ledger's `completed` ones, where
    they have been read.

    Raises UsageError for a key that no row has, and for one to be run again that is running or held.
    """
    jobs = prepared.checked.jobs
    _check_keys_exist(jobs, request.starts or frozenset())
    rerun = request.rerun
    if request.picks is not None:
        picked = jobs.filter(pl.col("key").is_in([pick.key for pick in request.picks.rejected]))
        evidence = with_evidence(picked, ledger_rows_for(ledger, picked), share_identical=pipeline.run.share_identical)
        again = run_again(request.picks, evidence, lambda pick: _ledger_has_pick(ledger, pick))
        for text in again.notes:
            note(text)
        rerun |= again.rerun
    wish = Wish(
        retry_failed=request.retry_failed,
        rerun=rerun,
        only=request.starts,
        limit=request.limit,
        resubmit_held=pipeline.run.on_unknown == "resubmit",
        share_identical=pipeline.run.share_identical,
    )
    done: pl.Series | None = None
    if ledger is not None and can_skip_completed(pipeline, request):
        done = settled(jobs, completed(ledger.contents()) if contents is None else contents)
        if rerun:
            done &= ~jobs.select(named(rerun)).to_series()
    known = ledger_rows_for(ledger, jobs if done is None else jobs.filter(~done))
    plan = make_plan(jobs, known, wish, contract=prepared.app.fingerprint, at=at, done=done)
    _check_rerun(pipeline, plan, rerun)
    return plan


def can_skip_completed(pipeline: Pipeline, request: RunRequest) -> bool:
    """Whether what is completed can be told by its content alone: no row's own history counts, nor is told."""
    return pipeline.run.share_identical and not request.explain


def _ledger_has_pick(ledger: Ledger | None, pick: Pick) -> bool:
    """Whether the ledger ever had what this verdict is about: the content, and that execution of it.

    The row need not have been bought itself: it may have shared what another one of the same content came to.
    """
    known = ledger_frame(ledger.table_about([], [pick.inputs_sha256])) if ledger is not None else None
    if ledger is None or known is None or known.is_empty():
        return False
    if pick.execution_id is None or pick.execution_id in known.get_column("execution_id"):
        return True
    job = ledger.of_execution(pick.execution_id)
    return job is not None and job.content == pick.inputs_sha256


def active_stop(pipeline: Pipeline, app: App, ledger: Ledger, request: RunRequest) -> Stopped | None:
    """The earlier run that was stopped, where nobody has looked and nothing has changed since; None: go on."""
    stopped = Stopped.parse(ledger.meta(STOPPED_META_KEY))
    looked = request.yes or request.retry_failed or request.rerun or request.picks is not None
    return None if stopped is None or looked or stopped.made_with != made_with(pipeline, app) else stopped


#: under which name the ledger remembers it
STOPPED_META_KEY = "stopped"


def made_with(pipeline: Pipeline, app: App) -> str:
    """Fingerprint of what may be wrong when everything fails: the mapping, and the app."""
    told = repr((pipeline.inputs, dict(pipeline.matrix), app.fingerprint))
    return hashlib.sha256(told.encode()).hexdigest()


def ledger_rows_for(ledger: Ledger | None, jobs: pl.DataFrame) -> pl.DataFrame:
    """What the ledger knows of these jobs' keys and contents; of all, where there are too many to ask about each."""
    if ledger is None:
        return ledger_frame([])
    if jobs.height > _MAX_KEYED_LOOKUPS:
        return ledger_frame(ledger.table())
    return ledger_frame(ledger.table_about(jobs["key"].drop_nulls().to_list(), jobs["content"].drop_nulls().to_list()))


#: up to so many jobs are looked up one by one
_MAX_KEYED_LOOKUPS = 50_000


def _check_keys_exist(jobs: pl.DataFrame, names: frozenset[str]) -> None:
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


def _check_rerun(pipeline: Pipeline, plan: Plan, rerun: frozenset[str]) -> None:
    if not rerun:
        return
    busy = plan.frame.filter(named(rerun) & pl.col("was_status").is_in(["running", "submitting", "held"]))
    for key, status in busy.select("key", "was_status").iter_rows():
        what, hint = (
            ("still running", "let a plain run collect it first")
            if status == "running"
            else ("held: it may have been bought already", f"settle it first: see `{pipeline.command('held')}`")
        )
        raise UsageError(f"{key!r} cannot be run again: it is {what}", hint=hint)


def outcome_pages(pipeline: Pipeline, prepared: Prepared, ledger: Ledger) -> Iterator[Outcomes]:
    """How every job stands and what came out, some thousand jobs at a time, in the order of the rows."""
    jobs = prepared.checked.jobs
    # No jobs are a part too: it has the columns.
    for start in range(0, max(jobs.height, 1), PART):
        some = jobs.slice(start, PART)
        known = ledger_rows_for(ledger, some)
        ids = known.get_column("id").to_list()
        yield gather(
            some,
            known,
            ledger.outputs(ids),
            [
                (job_id, position, file and os.path.normpath(ledger.folder / str(file)), sha256, error)
                for job_id, position, file, sha256, error in ledger.downloads(ids)
            ],
            app_id=prepared.app.app_id,
            share_identical=pipeline.run.share_identical,
        )


def publish_report(
    pipeline: Pipeline, prepared: Prepared, outcomes: Outcomes, file: Path, *, service: str, at: float
) -> Path:
    """Write the report. Answers where it stands. Raises StateError where it cannot be written."""
    # The template engine is for those who want a report.
    from lamina_batch.results.report.contents import gather_report  # noqa: PLC0415
    from lamina_batch.results.report.page import write_report  # noqa: PLC0415

    contents = gather_report(
        pipeline,
        prepared.app,
        prepared.catalog,
        prepared.checked,
        outcomes,
        service=service,
        made_at=datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        folder=file.parent,
    )
    return write_report(contents, file)


def estimate_credits(pipeline: Pipeline, executions: int) -> float | None:
    each = pipeline.run.credits_per_execution
    return None if each is None else each * executions


def binding(pipeline: Pipeline, service: str) -> Binding:
    """What the ledger of this pipeline at this service is tied to."""
    return Binding(service=service, pipeline=os.path.relpath(pipeline.file, pipeline.state))
