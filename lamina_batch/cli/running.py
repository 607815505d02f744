"""The commands that may wait for executions: run and collect."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from lamina_batch.cli.options import pipeline_options, world
from lamina_batch.cli.shell import Command, out, say
from lamina_batch.errors import LedgerLockedError

if TYPE_CHECKING:
    from lamina_batch.cli.options import Call
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.summary import Summary


@click.command(cls=Command)
@pipeline_options
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


@click.command(cls=Command)
@pipeline_options
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
    from lamina_batch.cli.progress import Console
    from lamina_batch.execution.engine import Control

    pipeline = call.load()
    control = Control()
    console = Console(say=say, now=time.monotonic, terminal=sys.stderr.isatty(), quiet=quiet)
    try:
        with call.access(pipeline) as access:
            work = batch.run(pipeline, access, request, world=world(), reporter=console, control=control)
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
