"""A run as a log for machines: one JSON object a line (docs/logs.md, schemas/event.schema.json).

Every message of a run is an event, so that each line is JSON.
"""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from lamina_batch._version import __version__
from lamina_batch.execution.plan import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.execution.engine import Progress
    from lamina_batch.execution.plan import Plan
    from lamina_batch.ledger.job import Job
    from lamina_batch.monitoring.notify import CommandResult
    from lamina_batch.runtime import Runtime

LogLevel = Literal["info", "warning", "error"]

#: Seconds between two lines of progress where there is no terminal (docs/cli.md, "Commands").
PROGRESS_INTERVAL = 30.0
#: Findings that are logged before a run; findings.csv has all.
MAX_FINDINGS_SHOWN = 10
#: States of a job that want attention.
ATTENTION_STATES = frozenset({"failed", "rejected", "held", "timed_out", "partial"})

_ACTION_LABELS = {
    Action.SUBMIT: "to start",
    Action.SHARE: "equal to one of these",
    Action.UNCHANGED: "unchanged",
    Action.COLLECT: "running",
    Action.ASK_ONCE: "timed out earlier",
    Action.REPORT: "ended badly earlier",
    Action.HOLD: "held",
    Action.INVALID: "invalid",
    Action.LEAVE: "left for another time",
}


def plan_summary_line(plan: Plan) -> str:
    """What a run is going to do, in one line."""
    counts = ((plan.count(action), words) for action, words in _ACTION_LABELS.items())
    return ", ".join([f"{plan.frame.height} jobs", *(f"{count} {words}" for count, words in counts if count)])


class EventLog:
    """Writes events; a `Reporter` of a run.

    `write` takes one line, without its end. `quiet` leaves out all
    but errors, and the end.
    """

    def __init__(
        self,
        *,
        write: Callable[[str], None],
        runtime: Runtime,
        run_id: str,
        quiet: bool,
    ) -> None:
        self._write = write
        self._now = runtime.now
        self._wall = runtime.wall
        self._run_id = run_id
        self._quiet = quiet
        self._line_at = runtime.now() + PROGRESS_INTERVAL
        #: the pipeline's name; None: its file is not read yet
        self.pipeline: str | None = None

    def event(self, name: str, message: str, *, level: LogLevel = "info", **more: object) -> None:
        """Write one event."""
        if self._quiet and level != "error" and name != "ended":
            return
        at = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"ts": at, "event": name, "level": level, "run_id": self._run_id, "pipeline": self.pipeline}
        # ASCII throughout: no name in it can end the line, drive a terminal, or fail to be written in some locale.
        self._write(json.dumps({**head, "message": message, **more}))

    def started(self, command: str) -> None:
        """The first event, unless the pipeline file cannot be read."""
        version = __version__
        self.event("started", f"{command}: lamina-batch {version}", command=command, version=version)

    def ended(self, ended: CommandResult) -> None:
        """The last event of all."""
        self.event(
            "ended",
            ended.line(),
            level="info" if ended.exit_code == 0 else "warning" if ended.exit_code == 3 else "error",
            exit_code=ended.exit_code,
            ending=ended.ending,
            error=ended.error,
            summary=None if ended.summary is None else asdict(ended.summary),
        )

    # -- what a run tells (batch.Reporter) ---------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Write something a person should know."""
        self.event("note", text)

    def planned(self, plan: Plan, checked: CheckedRows) -> None:
        """Write what the run is going to do, and the first findings."""
        actions = {str(action): plan.count(action) for action in Action}
        self.event("planned", plan_summary_line(plan), jobs=plan.frame.height, actions=actions)
        errors = checked.findings.filter(checked.findings["severity"] == "error")
        for finding in errors.head(MAX_FINDINGS_SHOWN).iter_rows(named=True):
            self._finding(finding)
        if errors.height > MAX_FINDINGS_SHOWN:
            self.note(f"and {errors.height - MAX_FINDINGS_SHOWN} more findings in findings.csv")

    def _finding(self, finding: Mapping[str, object]) -> None:
        names = ("row", "source", "key", "column", "parameter", "value", "code", "hint")
        told = {name: finding.get(name) or None for name in names}
        self.event("finding", str(finding["message"]), level="warning", **told)

    def changed(self, job: Job) -> None:
        """Write that a job has a new state."""
        state = "partial" if job.state == "completed" and job.failed_outputs else str(job.state)
        bad = state in ATTENTION_STATES
        self.event(
            "job",
            f"{job.name}: {state.replace('_', ' ')}" + (f": {job.message}" if bad and job.message else ""),
            level="warning" if bad else "info",
            key=job.key,
            variant=job.variant or None,
            state=state,
            execution_id=job.execution_id,
            attempts=job.attempts,
            code=job.code,
        )

    def on_progress(self, progress: Progress) -> None:
        """Write the progress, from time to time."""
        if self._now() < self._line_at:
            return
        self._line_at = self._now() + PROGRESS_INTERVAL
        self.event(
            "progress",
            f"{progress.ended} of {progress.total} done, {progress.running} running, {progress.waiting} waiting",
            total=progress.total,
            ended=progress.ended,
            running=progress.running,
            waiting=progress.waiting,
            least_seconds_left=round(progress.least_left, 1),
            silent_seconds=round(progress.silent, 1),
        )

    # -- what others would print -------------------------------------------------------------------------------

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Turn what libraries log or warn of into notes while the block runs."""
        handler = _LogHandler(self)
        root = logging.getLogger()
        root.addHandler(handler)
        logging.captureWarnings(capture=True)
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)
            root.removeHandler(handler)


class _LogHandler(logging.Handler):
    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info is not None and record.exc_info[1] is not None:
            text += f" ({record.exc_info[1].__class__.__name__}: {record.exc_info[1]})"
        self._log.event("note", text, level="warning")
