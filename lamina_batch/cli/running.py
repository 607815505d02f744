"""The commands that may wait for executions: run and collect."""

from __future__ import annotations

import signal
import sys
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from lamina_batch.cli.options import pipeline_options, run_blocking, runtime, start_options
from lamina_batch.cli.shell import (
    CONTROL_FLOW_EXCEPTIONS,
    Command,
    note,
    out,
    report_error,
    say,
    send_messages_to,
    write_event,
)
from lamina_batch.errors import LaminaBatchError, LedgerLockedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager

    from lamina_batch.monitoring.events import EventLog
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.results.summary import Summary
    from lamina_batch.runs.bootstrap import PipelineTarget
    from lamina_batch.runs.context import RunRequest
    from lamina_batch.runs.execute import Reporter
    from lamina_batch.runs.session import Session
    from lamina_batch.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """What a run shows of itself, and how."""

    #: the summary on stdout
    as_json: bool
    #: text or json
    log_format: str
    quiet: bool


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`, `--log-format` and `--quiet`; the command gets a `Shown`."""

    @wraps(command)
    def wrapped(*args: Any, as_json: bool, log_format: str, quiet: bool, **rest: Any) -> Any:
        return command(*args, options=OutputOptions(as_json=as_json, log_format=log_format, quiet=quiet), **rest)

    for option in (
        click.option(
            "--quiet",
            is_flag=True,
            help="No progress and no notes, only errors; and one line where it does not end with 0.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            help="What goes to stderr: text for people, or one JSON object a line (docs/logs.md).",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout."),
    ):
        wrapped = option(wrapped)
    return wrapped


def _refuse_dry_run(_context: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001  # as click has it
    if value:
        raise UsageError("the dry run is a command of its own", hint="lamina-batch plan PIPELINE (see plan --help)")


@click.command(cls=Command)
@pipeline_options
@click.option(
    "-n",
    "--dry-run",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    hidden=True,
    callback=_refuse_dry_run,
    help="The dry run is `lamina-batch plan`.",
)
@start_options
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
@click.option(
    "--yes",
    is_flag=True,
    help="Go on where a run would stop and ask: past max_executions, after a failed canary or too many failures.",
)
@output_options
def run(
    call: PipelineTarget,
    *,
    request: RunRequest,
    no_wait: bool,
    if_locked: Any,
    yes: bool,
    options: OutputOptions,
) -> None:
    """Check, submit, wait, and write the results.

    Run it again at any time: what the ledger has bought is not bought again.

    \b
    Examples:
      lamina-batch run pipelines/premium_catalog.yaml --sandbox
      lamina-batch run catalog.yaml --limit 5
      lamina-batch run catalog.yaml --rerun 00123 00127 --yes
      lamina-batch run catalog.yaml --rerun-file catalog-picks.json
    """
    request = replace(request, yes=yes, wait=not no_wait, if_locked=if_locked)
    _run(call, request, options)


@click.command(cls=Command)
@pipeline_options
@output_options
def collect(call: PipelineTarget, *, options: OutputOptions) -> None:
    """Wait for what is running and write the results. Never submits.

    \b
    Example:
      lamina-batch collect catalog.yaml
    """
    from lamina_batch.runs.context import RunRequest

    _run(call, RunRequest(submit=False), options)


def _run(target: PipelineTarget, request: RunRequest, options: OutputOptions) -> None:
    from lamina_batch.runs.run import new_run_id

    here = runtime()
    run_id = new_run_id(here)
    reporter, screen, log = _make_reporter(here, run_id, options)
    session: Session | None = None

    async def run_session() -> Summary:
        nonlocal session
        from lamina_batch.runs.session import Session

        pipeline = target.load()
        session = Session(
            target=target, pipeline=pipeline, request=request, runtime=here, reporter=reporter, run_id=run_id
        )
        if log is not None:
            log.pipeline = pipeline.name
            log.started("run" if request.submit else "collect")
        return await _run_with_signals(session)

    summary, code, error = _outcome_of(run_session, screen, request, lambda: session)
    try:
        if summary is not None and session is not None:
            _print_summary(summary, session.pipeline, code, options, logged=log is not None)
    finally:
        # Also if the reader of stdout is gone.
        if session is not None and (summary is not None or error is not None):
            _notify(session, code, summary, error)
        if log is not None:
            from lamina_batch.monitoring.notify import CommandResult

            name = session.pipeline.name if session is not None else target.file.name
            log.ended(CommandResult(pipeline=name, run_id=run_id, exit_code=code, summary=summary, error=error))
    sys.exit(code)


def _make_reporter(
    here: Runtime, run_id: str, options: OutputOptions
) -> tuple[Reporter, AbstractContextManager[object], EventLog | None]:
    """What shows the run, what has to leave the screen before anything else is printed, and the log if there is one."""
    from lamina_batch.cli.progress import Console
    from lamina_batch.monitoring.events import EventLog

    if options.log_format == "json":
        log = EventLog(write=write_event, runtime=here, run_id=run_id, quiet=options.quiet)
        send_messages_to(log)
        return log, log.capturing(), log
    terminal = sys.stderr is not None and sys.stderr.isatty()
    console = Console(say=say, now=here.now, terminal=terminal, quiet=options.quiet)
    return console, closing(console), None


def _outcome_of(
    run_session: Callable[[], Coroutine[Any, Any, Summary]],
    screen: AbstractContextManager[object],
    request: RunRequest,
    session: Callable[[], Session | None],
) -> tuple[Summary | None, int, str | None]:
    """Run it. The summary if there is one, the exit code, and why there is no summary."""
    import asyncio

    try:
        with screen:
            summary = run_blocking(run_session())
    except LedgerLockedError as locked:
        if request.if_locked != "skip":
            return None, report_error(locked), locked.what
        say(f"skipped: {locked.what}")
        return None, 0, None
    except asyncio.CancelledError:
        error = "stopped before anything was submitted"
        say(error)
        started = session()
        return None, 128 + ((started.control.signal if started is not None else None) or signal.SIGINT), error
    except CONTROL_FLOW_EXCEPTIONS:
        raise
    except Exception as other:  # noqa: BLE001  # every error is printed, and sent to the notify receiver
        return None, report_error(other), _error_text(other)
    return summary, summary.exit_code, None


def _print_summary(summary: Summary, pipeline: Pipeline, code: int, options: OutputOptions, *, logged: bool) -> None:
    if options.as_json:
        out(summary.to_json().rstrip("\n"))
    if not options.quiet:
        say("\n".join(_summary_lines(summary, pipeline)))
    elif code and not logged:
        # A mail of cron's with nothing in it helps nobody.
        say(_summary_line(summary, code, pipeline))


def _notify(session: Session, code: int, summary: Summary | None, error: str | None) -> None:
    # Ctrl-C ends the wait for the receiver. What the run came to stands.
    with suppress(KeyboardInterrupt):
        problem = run_blocking(session.notify(exit_code=code, summary=summary, error=error))
        if problem is not None:
            note(problem)


async def _run_with_signals(session: Session) -> Summary:
    from lamina_batch.runs.session import stop_on_signals

    def on_stop() -> None:
        say(
            "stopping: nothing new is submitted; submissions on their way are waited for\n"
            "  (press Ctrl-C again after 2 s to leave at once; submissions on their way are then held, as their fate "
            "is not known)"
        )

    with stop_on_signals(session.control, on_stop):
        return await session.run()


def _error_text(error: Exception) -> str:
    if isinstance(error, LaminaBatchError):
        return error.located_message
    return f"{error.__class__.__name__}: {error}"


_STOP_MESSAGES = {
    "signal": "stopped by a signal; everything is saved, run it again to go on",
    "max_executions": "nothing was started: there are more executions to start than max_executions allows; "
    "look at `{plan}`, then use --yes, --limit N, or raise run.max_executions",
    "invalid_rows": "nothing was started: rows are invalid and run.on_invalid_rows is fail; see findings.csv",
    "credits": "stopped: the service reports too few credits; top up, then run again",
    "canary": "stopped after the canary: not all of its executions completed; runs start nothing more until you have "
    "looked at them: then --yes, --retry-failed or --rerun KEY, or another mapping",
    "max_failures": "stopped: more executions failed than run.max_failures allows; runs start nothing more until you "
    "have looked at them: then --yes, --retry-failed or --rerun KEY, or another mapping",
    "refused": "stopped: the service refuses to take more; see the note above",
    "unreachable": "stopped: nothing has been heard of the service for run.execution_timeout",
    "unknown": "stopped: the fate of too many submissions in a row is not known, so nothing more is submitted; see "
    "the note above, and ask the operator of the service or of the proxy before it",
}


def _counts_text(summary: Summary) -> str:
    from lamina_batch.results.summary import STATUSES

    counts = summary.counts
    parts = [f"{counts[status]} {status.replace('_', ' ')}" for status in STATUSES if counts[status]]
    return f"{summary.pipeline}: {counts['jobs']} jobs: {', '.join(parts) or 'nothing to do'}"


def _stop_text(stopped_by: str, pipeline: Pipeline) -> str:
    return _STOP_MESSAGES[stopped_by].format(plan=pipeline.command_line("plan"))


def _summary_line(summary: Summary, code: int, pipeline: Pipeline) -> str:
    stopped = f"; {_stop_text(summary.stopped_by, pipeline)}" if summary.stopped_by is not None else ""
    return f"{_counts_text(summary)} (exit code {code}){stopped}"


def _summary_lines(summary: Summary, pipeline: Pipeline) -> Iterator[str]:
    """The summary for people, line by line."""
    counts = summary.counts
    run = pipeline.command_line("run")
    yield _counts_text(summary)
    executions = "1 execution" if counts["submitted"] == 1 else f"{counts['submitted']} executions"
    yield f"  {executions} started, {counts['unchanged']} unchanged, {summary.seconds:.1f} s"
    if counts["submitted"]:
        requests = summary.requests
        each = f", {requests.per_ended:.2f} for each that ended" if requests.per_ended is not None else ""
        yield f"  {requests.total} requests{each}; least possible time by the rate limit {summary.least_seconds:.1f} s"
    if summary.stopped_by is not None:
        yield f"  {_stop_text(summary.stopped_by, pipeline)}"
    if counts["invalid"]:
        yield f"  findings: {summary.files.findings}"
    if counts["failed"] or counts["partial"] or counts["rejected"]:
        yield f"  the manifest says why rows failed; `{run} --retry-failed` starts them again, `--rerun KEY` only some"
    if counts["timed_out"]:
        yield f"  what timed out is asked about once in each run; `{run} --rerun KEY` buys it again"
    if counts["running"]:
        yield f"  running: `{pipeline.command_line('collect')}` waits for them and writes the results"
    if counts["held"]:
        yield f"  held: it is not known whether these were bought; see `{pipeline.command_line('held')}`"
    if summary.downloads is not None and (summary.downloads.saved or summary.downloads.failed):
        missed = f", {summary.downloads.failed} could not be saved" if summary.downloads.failed else ""
        yield f"  {summary.downloads.saved} files saved{missed}"
    elif summary.downloads is None and counts["submitted"] and counts["completed"]:
        yield "  the URLs in the manifest expire; `results.download` saves the files"
    for wanted, written in zip(pipeline.results.manifest, summary.files.manifest, strict=False):
        said = "" if str(wanted) == written else f" ({wanted.name} could not be replaced: is it open elsewhere?)"
        yield f"  manifest: {written}{said}"
    if summary.files.report is not None:
        said = "" if str(pipeline.results.report) == summary.files.report else " (the old one could not be replaced)"
        yield f"  report: {summary.files.report}{said}"
