"""The summary of one run: what `--json` prints and `runs/<run id>/summary.json` keeps, and the exit code it means."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lamina_batch.atomic_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lamina_batch.execution.guards import StopReason

SCHEMA_VERSION = 1
FILE_NAME = "summary.json"
#: This many runs keep their folder: three months of nights, or four days of hours.
MAX_KEPT_RUNS = 100
#: As batch.new_run_id makes them: they sort by time.
_RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
#: Every status a job may be shown with (docs/results.md, "The manifest"), in the order that people read them.
STATUSES = (
    "completed",
    "partial",
    "failed",
    "rejected",
    "invalid",
    "held",
    "timed_out",
    "running",
    "planned",
)
#: A page holds at most so many jobs; what is left out is counted on it.
MAX_REPORTED_JOBS = 10_000
#: A job in one of these wants somebody's attention.
PROBLEM_STATUSES = ("partial", "failed", "rejected", "invalid", "held", "timed_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTotals:
    """What the run asked of the service, by kind."""

    total: int
    submit: int
    poll: int
    other: int
    #: answered 429
    rate_limited: int
    #: requests for each execution whose end was seen; None: none ended
    per_ended: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadTotals:
    """Files of outputs that this run saved, and that it could not save."""

    saved: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFiles:
    """Where the results of a run are."""

    manifest: tuple[str, ...]
    report: str | None
    findings: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One run, in numbers. The keys are pinned by schemas/summary.schema.json."""

    schema_version: int
    pipeline: str
    run_id: str
    exit_code: int
    stopped_by: str | None
    counts: Mapping[str, int]
    requests: RequestTotals
    seconds: float
    least_seconds: float
    credits: float | None
    files: WrittenFiles
    #: None: nothing is downloaded
    downloads: DownloadTotals | None = None

    def to_json(self) -> str:
        """ASCII throughout, so that no name in it can drive the terminal that it is printed on."""
        return json.dumps(asdict(self), indent=2) + "\n"


def write_summary(summary: Summary, folder: Path) -> Path:
    """Write it to `<folder>/runs/<run id>/summary.json`, and let the oldest go. Raises StateError if it cannot."""
    text = summary.to_json()
    runs = folder / "runs"
    written = write_whole(runs / summary.run_id / FILE_NAME, lambda aside: _write_text(aside, text))
    prune_runs(runs, keep=MAX_KEPT_RUNS)
    return written


def prune_runs(runs: Path, *, keep: int) -> None:
    """Remove what earlier runs left in `runs`, but for the newest `keep`. What cannot be removed stays.

    Only a folder named as ours are is looked at, and only the summary in it is ours: with another file in it, it stays.
    """
    with suppress(OSError):
        ours = sorted(entry.name for entry in os.scandir(runs) if _RUN_ID.fullmatch(entry.name))
        for name in ours[:-keep]:
            folder = runs / name
            if folder.is_symlink():
                continue
            with suppress(OSError):
                if os.listdir(folder) == [FILE_NAME]:  # noqa: PTH208  # names are enough
                    (folder / FILE_NAME).unlink()
                folder.rmdir()


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def exit_code(
    counts: Mapping[str, int],
    stopped_by: StopReason | None,
    *,
    signal: int | None = None,
    unwritten: bool = False,
    unsaved: bool = False,
) -> int:
    """The one code for all that happened; where several apply, docs/exit-codes.md gives their order.

    `signal` is the number of the signal that stopped the run, if one did; `unwritten` says that the manifest could
    not be written, `unsaved` that a file could not be downloaded.
    """
    if signal is not None:
        return 128 + signal
    if unwritten or stopped_by in {"refused", "unreachable"}:
        return 1
    if counts.get("held"):
        return 6
    if stopped_by in {"max_executions", "credits", "canary", "max_failures"}:
        return 5
    if stopped_by == "invalid_rows":
        return 4
    return 3 if unsaved or any(counts.get(status) for status in PROBLEM_STATUSES) else 0
