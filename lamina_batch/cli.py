"""Words in, words out: the commands, their exit codes, and nothing that decides about rows or money.

Libraries that take long to load are imported by the commands that need them, so that `--help` is quick.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import lamina_batch
from lamina_batch.errors import CredentialsError, LaminaBatchError, LedgerLockedError, ServiceError, UsageError
from lamina_batch.shell import Command, Group, conceal, out, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from lamina_batch.batch import Access, Preview, World
    from lamina_batch.client.lamina import LaminaClient
    from lamina_batch.execution.held import Words
    from lamina_batch.execution.job import Job
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.summary import Summary

#: The embedded sandbox is so much faster than the service, its window included, that each example ends in a minute.
SANDBOX_SPEED = 20.0
SANDBOX_WINDOW = 3.0


def _service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--sandbox` and `--base-url`, on every command that may talk to the service."""
    command = click.option(
        "--base-url", metavar="URL", help="Origin of the service (default: LAMINA_BASE_URL or the vendor's)."
    )(command)
    return click.option(
        "--sandbox", is_flag=True, help="Use the embedded stand-in: no key, no network, results of its own."
    )(command)


_override_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the pipeline file, such as rows.from=today.csv (may be repeated).",
)


def _pipeline_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """PIPELINE, `--set` and the service options; the command gets a `Call`."""

    @wraps(command)
    def wrapped(*, pipeline: Path, sandbox: bool, base_url: str | None, overrides: tuple[str, ...], **rest: Any) -> Any:
        return command(
            Call(
                file=pipeline,
                service=Service(sandbox=sandbox, base_url=base_url),
                overrides=overrides,
            ),
            **rest,
        )

    return click.argument("pipeline", type=click.Path(path_type=Path))(_override_option(_service_options(wrapped)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Which service the user means."""

    sandbox: bool
    base_url: str | None

    @contextmanager
    def open(self, sandbox_data: Path | None) -> Iterator[Access]:
        """Access to it while the block runs. Raises CredentialsError where no key is found."""
        from lamina_batch.batch import Access
        from lamina_batch.client.credentials import find_credentials

        if self.sandbox:
            if self.base_url:
                raise UsageError("--sandbox and --base-url name two services", hint="give one of them")
            from lamina_batch.sandbox import SANDBOX_KEY, SandboxOptions, embedded

            options = SandboxOptions(window=SANDBOX_WINDOW, speed=SANDBOX_SPEED, data=sandbox_data)
            with embedded(options) as url:
                yield Access(base_url=url, api_key=SANDBOX_KEY, service="sandbox", speed=SANDBOX_SPEED)
            return
        found = find_credentials(os.environ, Path.home(), now=datetime.now(UTC), base_url=self.base_url)
        conceal(found.api_key)
        yield Access(base_url=found.base_url, api_key=found.api_key, service=found.base_url)

    def name(self) -> str:
        """What ledgers know it by. Needs no key."""
        from lamina_batch.client.credentials import find_base_url

        if self.sandbox:
            return "sandbox"
        return find_base_url(os.environ, Path.home(), now=datetime.now(UTC), base_url=self.base_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command on one pipeline."""

    file: Path
    service: Service
    overrides: tuple[str, ...]

    def load(self) -> Pipeline:
        from lamina_batch.pipeline.load import load_pipeline

        return load_pipeline(
            self.file,
            overrides=self.overrides,
            environ=os.environ,
            today=date.today(),  # noqa: DTZ011  # {date} is the local date, as people name their files
            suffix="sandbox" if self.service.sandbox else None,
        )

    @contextmanager
    def access(self, pipeline: Pipeline) -> Iterator[Access]:
        with self.service.open(pipeline.state / "service") as access:
            yield access


def _world() -> World:
    import random

    from lamina_batch.batch import World

    return World(
        now=time.monotonic,
        wall=time.time,  # noqa: TID251  # this is the edge where clocks are read
        sleep=asyncio.sleep,  # noqa: TID251  # and where sleep comes from
        random=random.Random(),  # noqa: S311  # backoff and names, no secrets
        notice=lambda text: say(f"note: {text}"),
    )


@click.group(
    cls=Group,
    not_built=("init", "sheet", "doctor"),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 could not run, 2 wrong usage, 3 some rows need attention, 4 nothing run because rows "
    "are invalid, 5 stopped to save money, 6 some submissions are held, 7 another run holds the ledger.",
)
@click.version_option(lamina_batch.__version__, prog_name="lamina-batch")
def main() -> None:
    """Run a product catalog through a Lamina app: rows in, images, videos and text out, no credit spent twice.

    \b
    Try it without a key:
      lamina-batch run pipelines/premium_catalog.yaml --sandbox
    """


@main.command(cls=Command)
@_pipeline_options
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Start at most N executions.")
@click.option("--only", multiple=True, metavar="KEY…", help="Start only these rows (key, or key/variant).")
@click.option("--retry-failed", is_flag=True, help="Start again what failed, was partial or was rejected.")
@click.option(
    "--rerun", multiple=True, metavar="KEY…", help="Buy these rows once more, whatever they came to, and nothing else."
)
@click.option(
    "--no-wait",
    is_flag=True,
    help="Submit and leave (max_in_flight does not apply); `collect` fetches the results later.",
)
@click.option(
    "--if-locked",
    type=click.Choice(["fail", "wait", "skip"]),
    default="fail",
    show_default=True,
    help="What to do when another run holds this ledger.",
)
@click.option("--adopt-state", is_flag=True, help="Take over a ledger that belongs to another file or service.")
@click.option("--new-ledger", is_flag=True, help="An empty ledger is meant, although there are results: buys again.")
@click.option("--yes", is_flag=True, help="Start more executions than max_executions allows.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no notes, only errors.")
def run(
    call: Call,
    *,
    limit: int | None,
    only: tuple[str, ...],
    retry_failed: bool,
    rerun: tuple[str, ...],
    no_wait: bool,
    if_locked: Any,
    adopt_state: bool,
    new_ledger: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check, submit, wait, and write the results.

    Run it again at any time: what the ledger has bought is not bought again.

    \b
    Examples:
      lamina-batch run pipelines/premium_catalog.yaml --sandbox
      lamina-batch run catalog.yaml --limit 5
      lamina-batch run catalog.yaml --rerun 00123 00127 --yes
    """
    from lamina_batch.batch import RunRequest

    request = RunRequest(
        retry_failed=retry_failed,
        rerun=frozenset(rerun),
        only=frozenset((*only, *rerun)) or None,
        limit=limit,
        yes=yes,
        wait=not no_wait,
        if_locked=if_locked,
        adopt_state=adopt_state,
        new_ledger=new_ledger,
    )
    _run(call, request, as_json=as_json, quiet=quiet)


@main.command(cls=Command)
@_pipeline_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no notes, only errors.")
def collect(call: Call, *, as_json: bool, quiet: bool) -> None:
    """Wait for what is running and write the results. Never submits.

    \b
    Example:
      lamina-batch collect catalog.yaml
    """
    from lamina_batch.batch import RunRequest

    _run(call, RunRequest(submit=False), as_json=as_json, quiet=quiet)


def _run(call: Call, request: Any, *, as_json: bool, quiet: bool) -> None:
    from lamina_batch import batch
    from lamina_batch.execution.engine import Control
    from lamina_batch.progress import Console

    pipeline = call.load()
    control = Control()
    console = Console(say=say, now=time.monotonic, terminal=sys.stderr.isatty(), quiet=quiet)
    try:
        with call.access(pipeline) as access:
            work = batch.run(pipeline, access, request, world=_world(), reporter=console, control=control)
            summary = asyncio.run(_with_signals(work, control))
    except LedgerLockedError as error:
        if request.if_locked != "skip":
            raise
        say(f"skipped: {error.what}")
        return
    except asyncio.CancelledError:
        say("stopped before anything was submitted")
        sys.exit(128 + (control.signal or signal.SIGINT))
    finally:
        console.close()
    if as_json:
        out(summary.to_json().rstrip("\n"))
    if not quiet:
        _tell(summary, pipeline)
    sys.exit(summary.exit_code)


async def _with_signals(work: Any, control: Any) -> Summary:
    """Do `work`; the first signal stops it gently, the second at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)

    def stop(number: signal.Signals) -> None:
        again = control.stopped
        control.stop(int(number))
        if again or control.wake is None:
            # The second time, or before anything is on its way.
            task.cancel()
            return
        say("stopping: nothing new is submitted; what is being submitted lands first")
        say("  (again: leave at once; what has not landed then is held, because nobody knows what became of it)")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        summary: Summary = await task
        return summary
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


_STOPPED = {
    "signal": "stopped by a signal; everything is saved, run it again to go on",
    "max_executions": "nothing was started: there are more executions to start than max_executions allows; "
    "look at `lamina-batch plan`, then use --yes, --limit N, or raise run.max_executions",
    "invalid_rows": "nothing was started: rows are invalid and run.on_invalid_rows is fail; see findings.csv",
    "credits": "stopped: the service reports too few credits; top up, then run again",
    "canary": "stopped after the canary: not all of its executions completed; look at them, then run again",
    "max_failures": "stopped: more executions failed than run.max_failures allows",
    "refused": "stopped: the service refuses to take more; see the note above",
    "unreachable": "stopped: nothing has been heard of the service for run.execution_timeout",
}


def _tell(summary: Summary, pipeline: Pipeline) -> None:
    from lamina_batch.results.summary import STATUSES

    counts = summary.counts
    parts = [f"{counts[status]} {status.replace('_', ' ')}" for status in STATUSES if counts[status]]
    say(f"{summary.pipeline}: {counts['jobs']} jobs: {', '.join(parts) or 'nothing to do'}")
    say(f"  {counts['submitted']} executions started, {counts['unchanged']} unchanged, {summary.seconds:.1f} s")
    if counts["submitted"]:
        requests = summary.requests
        each = f", {requests.per_ended:.2f} for each that ended" if requests.per_ended is not None else ""
        say(f"  {requests.total} requests{each}; least possible time by the rate limit {summary.least_seconds:.1f} s")
    if summary.stopped_by is not None:
        say(f"  {_STOPPED[summary.stopped_by]}")
    if counts["invalid"]:
        say(f"  findings: {summary.files.findings}")
    if counts["failed"] or counts["partial"] or counts["rejected"]:
        say("  the manifest says why rows failed; `run --retry-failed` starts them again, `run --rerun KEY` only some")
    if counts["timed_out"]:
        say("  what timed out is asked about once in each run; `run --rerun KEY` buys it again")
    if counts["running"]:
        say(f"  running: `lamina-batch collect {pipeline.file.name}` waits for them and writes the results")
    if counts["held"]:
        say(f"  held: it is not known whether these were bought; see `lamina-batch held {pipeline.file.name}`")
    if summary.downloads is not None and (summary.downloads.saved or summary.downloads.failed):
        missed = f", {summary.downloads.failed} could not be saved" if summary.downloads.failed else ""
        say(f"  {summary.downloads.saved} files saved{missed}")
    elif summary.downloads is None and counts["submitted"] and counts["completed"]:
        say("  the URLs in the manifest expire; `results.download` saves the files")
    for wanted, written in zip(pipeline.results.manifest, summary.files.manifest, strict=False):
        said = "" if str(wanted) == written else f" ({wanted.name} could not be replaced: is it open elsewhere?)"
        say(f"  manifest: {written}{said}")


@main.command(cls=Command)
@_pipeline_options
@click.option(
    "--findings", type=click.Path(path_type=Path), metavar="FILE", help="Write them to FILE (.csv or .ndjson) too."
)
def validate(call: Call, *, findings: Path | None) -> None:
    """Check the file, the app's live schema and every row, and spend nothing.

    Exits 3 when there are findings that would keep a row from being run; warnings do not count.

    \b
    Example:
      lamina-batch validate catalog.yaml --findings findings.csv
    """
    from lamina_batch import batch
    from lamina_batch.progress import finding_line
    from lamina_batch.results.findings import write_findings

    pipeline = call.load()
    if findings is not None:
        batch.refuse_source(pipeline, findings)
    with call.access(pipeline) as access:
        prepared = batch.validate(pipeline, access, _world())
    checked = prepared.checked
    for note in prepared.notes:
        say(f"note: {note}")
    for finding in checked.findings.iter_rows(named=True):
        mark = "" if finding["severity"] == "error" else "warning: "
        out(mark + finding_line(finding))
    if findings is not None:
        say(f"findings: {write_findings(checked.findings, findings)}")
    bad = checked.jobs.filter(~checked.jobs["valid"])["lamina_index"].n_unique()
    rows = checked.jobs["lamina_index"].n_unique()
    skipped = f", {checked.skipped_rows} left out by blank: skip_row" if checked.skipped_rows else ""
    say(f"{pipeline.name}: {rows} rows checked against {prepared.app.name!r}, {bad} invalid{skipped}")
    sys.exit(3 if bad else 0)


@main.command(cls=Command)
@_pipeline_options
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="As for run.")
@click.option("--only", multiple=True, metavar="KEY…", help="As for run.")
@click.option("--retry-failed", is_flag=True, help="As for run.")
@click.option("--rerun", multiple=True, metavar="KEY…", help="As for run.")
@click.option("--adopt-state", is_flag=True, help="As for run.")
@click.option("--new-ledger", is_flag=True, help="As for run.")
@click.option("--explain", is_flag=True, help="Say for each row what would happen and why.")
def plan(
    call: Call,
    *,
    limit: int | None,
    only: tuple[str, ...],
    retry_failed: bool,
    rerun: tuple[str, ...],
    adopt_state: bool,
    new_ledger: bool,
    explain: bool,
) -> None:
    """Say what a run would do and cost, and do nothing.

    \b
    Example:
      lamina-batch plan catalog.yaml --explain
    """
    from lamina_batch import batch

    request = batch.RunRequest(
        retry_failed=retry_failed,
        rerun=frozenset(rerun),
        only=frozenset((*only, *rerun)) or None,
        limit=limit,
        adopt_state=adopt_state,
        new_ledger=new_ledger,
    )
    pipeline = call.load()
    with call.access(pipeline) as access:
        preview = batch.preview(pipeline, access, _world(), request)
    for note in preview.prepared.notes:
        say(f"note: {note}")
    _show_plan(pipeline, preview)
    if explain:
        _explain(preview)


def _show_plan(pipeline: Pipeline, preview: Preview) -> None:
    frame = preview.plan.frame
    out(f"{pipeline.name}: {frame['lamina_index'].n_unique()} rows, {frame.height} jobs")
    for (action, reason), count in preview.plan.reasons().items():
        out(f"  {count:>7}  {action.replace('_', ' ')}" + (f" ({reason})" if reason != action else ""))
    for parameter, count in preview.prepared.checked.app_defaults:
        out(f"  {count:>7}  jobs take the app's own default for {parameter!r}")
    out(f"executions to start: {preview.executions} (max_executions is {pipeline.run.max_executions})")
    for completion, forecast in preview.forecasts.items() if preview.executions else ():
        chosen = " (as run.completion says)" if completion == pipeline.run.completion else ""
        least = f"{forecast.least_requests} requests and {_span(forecast.least_seconds)} at the least"
        if forecast.requests is None or forecast.seconds is None:
            out(f"by {completion}{chosen}: {least}; how long this app takes is not known yet")
        else:
            out(f"by {completion}{chosen}: about {forecast.requests} requests and {_span(forecast.seconds)}; {least}")
    if preview.executions > pipeline.run.max_executions:
        out("a run would start nothing: use --yes or --limit N, or raise run.max_executions")
    if preview.credits is not None:
        out(f"credits: {preview.credits:g}")


def _span(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _explain(preview: Preview) -> None:
    columns = ("row", "key", "variant", "action", "reason", "message", "was_key", "was_variant")
    for row, key, variant, action, reason, message, was_key, was_variant in preview.plan.frame.select(
        columns
    ).iter_rows():
        name = f"{key}/{variant}" if variant else key
        why = message if action == "invalid" else reason
        if name in preview.changed:
            why = f"changed: {', '.join(preview.changed[name]) or 'asked for in another way'}"
        if was_key is not None and (was_key, was_variant) != (key, variant):
            why += f", as bought for {was_key}/{was_variant}" if was_variant else f", as bought for {was_key}"
        out(f"row {row}  {name}: {action.replace('_', ' ')}: {why}")


@main.command(cls=Command)
@_pipeline_options
def status(call: Call) -> None:
    """Say what the ledger knows, without the network.

    \b
    Example:
      lamina-batch status catalog.yaml
    """
    from lamina_batch.execution.job import State
    from lamina_batch.execution.ledger import find_ledger

    pipeline = call.load()
    ledger = find_ledger(pipeline.state)
    if ledger is None:
        out(f"{pipeline.name}: has not run yet (no ledger in {pipeline.state})")
        return
    with ledger:
        out(f"{pipeline.name}: ledger of {ledger.meta('pipeline')} at {ledger.meta('service')}")
        for name, count in sorted(ledger.counts().items()):
            out(f"  {count:>7}  {name.replace('_', ' ')}")
        held = ledger.jobs(State.HELD, State.SUBMITTING)
    for job in held:
        out(_held_line(job))
    if held:
        out(_HELD_HELP.format(file=call.file))


_HELD_HELP = """\
A held row may have been bought; it is not sent again until you say what it is:
  lamina-batch held {file} --adopt KEY=EXECUTION_ID   it was: this is its execution
  lamina-batch held {file} --resubmit KEY             send it again, and maybe pay twice
  lamina-batch held {file} --give-up KEY              neither"""


def _held_line(job: Job) -> str:
    why = job.message or "its answer has not been heard yet"
    return f"held: {job.name}: sent {_instant(job.submitted_at or 0.0)} (attempt {job.attempts}): {why}"


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@main.command(cls=Command)
@_pipeline_options
@click.option(
    "--adopt", multiple=True, metavar="KEY=EXECUTION_ID…", help="This execution is that row's: it is collected."
)
@click.option("--resubmit", multiple=True, metavar="KEY…", help="Send these again (or --all): maybe paid for twice.")
@click.option("--give-up", multiple=True, metavar="KEY…", help="Call these failed (or --all).")
def held(call: Call, *, adopt: tuple[str, ...], resubmit: tuple[str, ...], give_up: tuple[str, ...]) -> None:
    """Show the rows of which nobody knows whether they were bought, or say what becomes of them.

    What you say changes the ledger only; the next plain `run` acts on it. KEY is the key, or key/variant.

    \b
    Examples:
      lamina-batch held catalog.yaml
      lamina-batch held catalog.yaml --adopt 00123=fc32ae7d-6840-4be3-8fb1-539a60e33fc3
      lamina-batch held catalog.yaml --resubmit --all
    """
    from lamina_batch.execution.held import Words
    from lamina_batch.operations.settle import settle_held

    words = Words(adopt=_adoptions(adopt), resubmit=resubmit, give_up=give_up)
    pipeline = call.load()
    if not words:
        _show_held(call, pipeline)
        return
    if words.adopt:
        _check_adopted(call, pipeline, words)
    for job in asyncio.run(settle_held(pipeline, words, world=_world())):
        out(f"{job.name}: {_SETTLED[job.state]}")


_SETTLED = {
    "running": "adopted: the next run collects it",
    "planned": "the next run sends it again",
    "failed": "given up",
}


def _check_adopted(call: Call, pipeline: Pipeline, words: Words) -> None:
    from lamina_batch import batch
    from lamina_batch.operations.settle import held_jobs, refuse_strangers

    with batch.existing_ledger(pipeline) as ledger:
        found = held_jobs(pipeline, ledger)
    try:
        with call.access(pipeline) as access:
            why = asyncio.run(
                batch.ask(access, _world(), lambda client: refuse_strangers(client, found, words), pipeline)
            )
    except (CredentialsError, ServiceError) as error:
        why = error.what
    if why:
        say(f"note: whether the service knows these executions could not be asked: {why}")


def _adoptions(texts: tuple[str, ...]) -> dict[str, str]:
    adopted: dict[str, str] = {}
    for text in texts:
        name, _, execution_id = (part.strip() for part in text.rpartition("="))
        if not name or not execution_id:
            raise UsageError(f"--adopt {text!r} is not KEY=EXECUTION_ID")
        if name in adopted:
            raise UsageError(f"--adopt names {name!r} twice")
        adopted[name] = execution_id
    return adopted


def _show_held(call: Call, pipeline: Pipeline) -> None:
    from lamina_batch import batch
    from lamina_batch.client.lamina import RUNS
    from lamina_batch.operations.settle import held_jobs, list_since, with_candidates

    with batch.existing_ledger(pipeline) as ledger:
        found = held_jobs(pipeline, ledger)
        if found.jobs and found.generation == RUNS.name:
            since = min(job.submitted_at or 0.0 for job in found.jobs) - 60.0
            try:
                with call.access(pipeline) as access:
                    listed, complete = asyncio.run(
                        batch.ask(access, _world(), lambda client: list_since(client, pipeline.app, since), pipeline)
                    )
                if not complete:
                    say("note: the service lists more executions than were looked at: the newest are shown, not all")
                found = with_candidates(found, listed, ledger, pipeline.run.request_timeout)
            except LaminaBatchError as error:
                say(f"note: which executions these may be is not known: {error.what}")
    for job in found.jobs:
        out(_held_line(job))
        for item in found.candidates.get(job.id, ()):
            created = _instant(item.created_at) if item.created_at is not None else "at a time not told"
            out(f"  it may be {item.execution_id}: created {created}, {item.status or 'status not told'}")
    out(_HELD_HELP.format(file=call.file) if found.jobs else f"{pipeline.name}: nothing is held")


@main.group(cls=Group)
def state() -> None:
    """Look after the ledger."""


@state.command("import", cls=Command)
@click.argument("manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--pipeline",
    "file",
    type=click.Path(path_type=Path),
    help="The pipeline that wrote it (default: the one in this folder, or above the manifest, whose results go there).",
)
@_override_option
@_service_options
def state_import(
    manifest: Path, *, file: Path | None, sandbox: bool, base_url: str | None, overrides: tuple[str, ...]
) -> None:
    """Rebuild a lost ledger from a manifest, so that nothing in it is bought again.

    \b
    Example:
      lamina-batch state import out/catalog.csv
    """
    from lamina_batch.operations.restore import import_manifest, pipeline_of

    service = Service(sandbox=sandbox, base_url=base_url)
    if file is not None:
        pipeline = Call(file=file, service=service, overrides=overrides).load()
    else:
        pipeline = pipeline_of(manifest, _pipelines_near(manifest, service, overrides))
    told, new = asyncio.run(import_manifest(pipeline, manifest, service=service.name(), world=_world()))
    say(f"{pipeline.name}: {new} of {told} jobs taken over into {pipeline.state}")


def _pipelines_near(manifest: Path, service: Service, overrides: tuple[str, ...]) -> Iterator[Pipeline]:
    """The pipeline files in this folder and in the three above the manifest; what is no pipeline is passed over."""
    folders = dict.fromkeys((Path.cwd(), *manifest.resolve().parents[:3]))
    for folder in folders:
        for found in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))):
            with suppress(UsageError):
                yield Call(file=found, service=service, overrides=overrides).load()


@main.command(cls=Command)
@_pipeline_options
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE…",
    help="Write here (.csv, .xlsx, .parquet or .ndjson) instead of where the pipeline says.",
)
@click.option("--layout", type=click.Choice(["wide", "long"]), help="Instead of the pipeline's.")
def results(call: Call, *, outputs: tuple[Path, ...], layout: Any) -> None:
    """Write the manifest again, from the ledger and the rows, and save the files that are missing.

    The service itself is not asked for anything.

    \b
    Example:
      lamina-batch results catalog.yaml -o today.parquet --layout long
    """
    from lamina_batch import batch

    pipeline = call.load()
    for file in outputs:
        if file.suffix.lower() not in {".csv", ".xlsx", ".parquet", ".ndjson", ".jsonl"}:
            raise UsageError("a manifest is .csv, .xlsx, .parquet or .ndjson", where=str(file))
    wanted = outputs or pipeline.results.manifest
    written, failed = asyncio.run(batch.results(pipeline, wanted, layout or pipeline.results.layout, _world()))
    for file in written:
        out(str(file))
    if failed:
        say(f"{failed} files could not be saved; the manifest says why")
    sys.exit(3 if failed else 0)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="0: any free one. Default: the port that --data was served on last, else 8787.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder for what it accepted and its logs.")
@click.option("--limit", type=int, default=100, show_default=True, help="Requests in a window for one address.")
@click.option("--window", type=float, default=60.0, show_default=True, help="Seconds of the rate limit's window.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Divides every duration of the service.")
@click.option("--seed", type=int, default=0, show_default=True, help="What durations and faults are drawn from.")
@click.option("--fault", "faults", multiple=True, metavar="NAME[:KEY=VALUE,…]", help="Misbehave; see docs/sandbox.md.")
@click.option("--no-headers", is_flag=True, help="Leave out the RateLimit headers.")
@click.option(
    "--generation",
    type=click.Choice(["executions", "runs", "both"]),
    default="executions",
    show_default=True,
    help="Which generation of the API to serve.",
)
@click.option("--apps", type=click.Path(path_type=Path), help="A file of apps to serve instead of the shipped ones.")
def sandbox(
    *,
    host: str,
    port: int | None,
    data: Path | None,
    limit: int,
    window: float,
    speed: float,
    seed: int,
    faults: tuple[str, ...],
    no_headers: bool,
    generation: str,
    apps: Path | None,
) -> None:
    """Serve the stand-in for the service, for development against it.

    Any key that starts with lma_ is accepted.

    \b
    Example:
      lamina-batch sandbox --port 8787 --speed 20 --window 3 &
      LAMINA_API_KEY=lma_any lamina-batch run catalog.yaml --base-url http://127.0.0.1:8787
    """
    from lamina_batch.sandbox import GENERATIONS, SandboxOptions, last_port, serve

    if port is None:
        port = (last_port(data) if data is not None else None) or 8787
    try:
        options = SandboxOptions(
            limit=limit,
            window=window,
            speed=speed,
            seed=seed,
            data=data,
            faults=faults,
            headers=not no_headers,
            generations=GENERATIONS[generation],
            apps=apps,
        )
        serve(options, host=host, port=port, announce=say)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise LaminaBatchError(
            f"the sandbox cannot start on {host}:{port}: {error.strerror or error}",
            where=error.filename,
            hint="is the port taken? try --port 0. May the folder of --data be written?",
        ) from error


@main.group(cls=Group, not_built=("pin", "diff", "schema"))
def apps() -> None:
    """Look at the apps that your key may use."""


def _with_client(service: Service, ask: Callable[[LaminaClient], Awaitable[Any]]) -> Any:
    from lamina_batch import batch

    with service.open(None) as access:
        return asyncio.run(batch.ask(access, _world(), ask))


@apps.command("list", cls=Command)
@_service_options
@click.option("--search", metavar="WORDS", help="Only apps that the service finds for these words.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
def apps_list(*, sandbox: bool, base_url: str | None, search: str | None, limit: int) -> None:
    """List apps: id and name.

    \b
    Example:
      lamina-batch apps list --search catalog
    """
    service = Service(sandbox=sandbox, base_url=base_url)
    found = _with_client(service, lambda client: client.list_apps(search=search, limit=limit))
    if not found:
        say("the service found no app")
    for app in found:
        out(f"{app.app_id}  {app.name}{'' if app.public is not False else '  (private)'}")


@apps.command("show", cls=Command)
@click.argument("app_id", metavar="APP")
@_service_options
def apps_show(app_id: str, *, sandbox: bool, base_url: str | None) -> None:
    """Show an app's parameters as the service serves them. Quotes show odd spaces: they belong to the name.

    \b
    Example:
      lamina-batch apps show bbb17293-5fe7-4645-8c6e-0745bc28254d
    """
    service = Service(sandbox=sandbox, base_url=base_url)
    app = _with_client(service, lambda client: client.get_app(app_id))
    out(f"{app.name} ({app.app_id})")
    if app.description:
        out(app.description)
    for p in app.parameters:
        facts = [p.type]
        facts += [f"accepts {', '.join(p.accept)}"] if p.accept else []
        facts += ["several values"] if p.multiple else []
        facts += ["must be given"] if p.must_supply else []
        facts += [f"default {p.default!r}"] if p.default is not None else []
        out(f"  {p.name!r}: {', '.join(facts)}")
        if p.description:
            out(f"      {p.description}")
        if p.options:
            out(f"      one of {', '.join(repr(option) for option in p.options)}")


@apps.command("workflow", cls=Command)
@click.argument("app_id", metavar="APP")
@_service_options
def apps_workflow(app_id: str, *, sandbox: bool, base_url: str | None) -> None:
    """Show an app's nodes and how they feed each other.

    \b
    Example:
      lamina-batch apps workflow bbb17293-5fe7-4645-8c6e-0745bc28254d
    """
    service = Service(sandbox=sandbox, base_url=base_url)
    workflow = _with_client(service, lambda client: client.get_workflow(app_id))
    out(f"{workflow.name} ({workflow.app_id})")
    for node in workflow.nodes:
        feeds = [target for source, target in workflow.edges if source == node.id]
        out(f"  {node.id}  {node.type}  {node.label!r}" + (f"  feeds {', '.join(feeds)}" if feeds else ""))


if __name__ == "__main__":
    main()
