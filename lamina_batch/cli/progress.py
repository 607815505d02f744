"""How a run shows itself while it runs: a bar at a terminal, a line every 30 s without one. All of it on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Self

from tqdm import tqdm

from lamina_batch.cli.shell import lenient_stderr
from lamina_batch.monitoring.events import MAX_FINDINGS_SHOWN, PROGRESS_INTERVAL, plan_summary_line

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.execution.engine import Progress
    from lamina_batch.execution.plan import Plan
    from lamina_batch.ledger.job import Job


class Console:
    """Shows a run on stderr. `say` prints one line there; `now` is a monotonic clock in seconds."""

    def __init__(self, *, say: Callable[[str], None], now: Callable[[], float], terminal: bool, quiet: bool) -> None:
        self._say = say
        self._now = now
        self._quiet = quiet
        self._terminal = terminal and not quiet
        self._bar: tqdm[NoReturn] | None = None
        #: jobs that want attention
        self._bad: set[int] = set()
        self._line_at = now() + PROGRESS_INTERVAL

    def close(self) -> None:
        """Take the progress bar off the screen."""
        if self._bar is not None:
            with lenient_stderr():
                self._bar.close()
            self._bar = None

    def note(self, text: str) -> None:
        """Show something a person should know."""
        if not self._quiet:
            self._print(f"note: {text}")

    def planned(self, plan: Plan, checked: CheckedRows) -> None:
        """Show what the run is going to do."""
        if self._quiet:
            return
        self._print(plan_summary_line(plan))
        errors = checked.findings.filter(checked.findings["severity"] == "error")
        for line in finding_lines(errors.head(MAX_FINDINGS_SHOWN)):
            self._print(f"  {line}")
        if errors.height > MAX_FINDINGS_SHOWN:
            self._print(f"  … and {errors.height - MAX_FINDINGS_SHOWN} more in findings.csv")

    def changed(self, job: Job) -> None:
        """Show a job that needs attention."""
        bad = job.state in {"failed", "rejected", "held", "timed_out"}
        (self._bad.add if bad else self._bad.discard)(job.id)
        if bad:
            self.note(f"{job.name}: {job.state.replace('_', ' ')}: {job.message}")

    def on_progress(self, progress: Progress) -> None:
        """Move the bar, or print a line from time to time."""
        if self._quiet:
            return
        if not self._terminal:
            if self._now() >= self._line_at:
                self._line_at = self._now() + PROGRESS_INTERVAL
                self._print(self._words(progress))
            return
        with lenient_stderr():
            if self._bar is None:
                self._bar = tqdm(total=progress.total, unit="job", dynamic_ncols=True, leave=False)
            self._bar.total = progress.total
            self._bar.n = min(progress.ended, progress.total)
            self._bar.set_postfix_str(self._words(progress), refresh=False)
            self._bar.refresh()

    def _words(self, progress: Progress) -> str:
        parts = [f"{progress.ended} of {progress.total} done"] if self._bar is None else []
        parts += [f"{progress.running} running", f"{progress.waiting} waiting"]
        if self._bad:
            parts.append(f"{len(self._bad)} with problems")
        if progress.silent >= 1:
            parts.append(f"no answer from the service for {progress.silent:.0f} s")
        if progress.least_left >= 1:
            parts.append(f"at least {progress.least_left:.0f} s more by the rate limit")
        return ", ".join(parts)

    def _print(self, text: str) -> None:
        if self._bar is not None:
            with lenient_stderr():
                self._bar.clear()
        self._say(text)


class ProgressCounter:
    """Shows on stderr how many of how many are done: a bar at a terminal, a line every 30 s without one."""

    def __init__(self, what: str, *, say: Callable[[str], None], now: Callable[[], float], terminal: bool) -> None:
        self._what = what
        self._say = say
        self._now = now
        self._terminal = terminal
        self._bar: tqdm[NoReturn] | None = None
        self._line_at = now() + PROGRESS_INTERVAL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_progress(self, done: int, total: int) -> None:
        """Move the bar, or print a line from time to time."""
        if not self._terminal:
            if self._now() >= self._line_at:
                self._line_at = self._now() + PROGRESS_INTERVAL
                self._say(f"{done} of {total} {self._what}")
            return
        if self._bar is None:
            self._bar = tqdm(total=total, desc=self._what, dynamic_ncols=True, leave=False)
        self._bar.update(done - self._bar.n)


def finding_lines(findings: pl.DataFrame) -> list[str]:
    """Each finding as a person reads it: where, what, and what to do."""
    # It takes longer to load than many a command.
    import polars as pl

    def given(name: str, before: str, text: pl.Expr, after: str) -> pl.Expr:
        """The text between two others, or nothing at all where the finding has none."""
        return (
            pl.when(pl.col(name) != "").then(pl.concat_str(pl.lit(before), text, pl.lit(after))).otherwise(pl.lit(""))
        )

    columns = {name: repr(name) for name in findings["column"].unique()}
    parts = [
        *([given("source", "", pl.col("source"), " ")] if "source" in findings.columns else []),
        pl.concat_str(pl.lit("row "), "row"),
        given("key", " (", pl.col("key"), ")"),
        pl.lit(": "),
        given("column", "column ", pl.col("column").replace(columns), ": "),
        pl.col("message"),
        given("hint", " (", pl.col("hint"), ")"),
        pl.concat_str(pl.lit(" ["), "code", pl.lit("]")),
    ]
    return findings.select(pl.concat_str(parts)).to_series().to_list()
