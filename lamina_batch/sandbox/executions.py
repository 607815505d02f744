"""Executions: what is kept of each, and what it looks like at any instant (API.md 2.5 and 4).

Nothing runs. The whole life of an execution is drawn when it is accepted, and what a reader sees is a pure function of
that record and the time. So a sandbox that was killed and started again goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from lamina_batch.sandbox.journal import Journal, read_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lamina_batch.sandbox.apps import Output, SandboxApp

    #: the `value` of an output that is there: a URL, or the text itself
    ValueOf = Callable[["Execution", Output], str]


Ending = Literal["completed", "failed", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One accepted execution: a line of executions.jsonl."""

    execution_id: str
    app_id: str
    inputs: Mapping[str, Any]
    #: epoch seconds, to the millisecond
    created_at: float
    #: from creation to the start
    queued_seconds: float
    #: from creation to the end
    seconds: float
    ending: Ending = "completed"
    #: why it failed, or why one output did
    message: str | None = None
    #: which output ends with an error while the execution completes
    failed_output: int | None = None
    webhook: str | None = None
    #: logged only: the service promises nothing about it (API.md 8), so it changes nothing
    idempotency_key: str | None = None

    @property
    def ended_at(self) -> float:
        """The instant of the end, epoch seconds; infinite where it never comes."""
        return math.inf if self.ending == "never" else round(self.created_at + self.seconds, 3)


_FIELDS = tuple(field.name for field in fields(Execution))


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long an execution queues and takes, seconds from its creation."""

    queued: float
    total: float


def draw_durations(app: SandboxApp, *, seed: int, number: int, speed: float) -> Durations:
    """Durations for the execution with this number, counted from 0: lognormal around the app's median."""
    chance = random.Random(f"{seed}:{number}")  # noqa: S311 -- durations, not secrets
    total = app.median_seconds / speed * math.exp(app.sigma * chance.gauss(0, 1))
    return Durations(queued=round(total * chance.uniform(0.02, 0.1), 3), total=max(round(total, 3), 0.001))


def status_at(execution: Execution, now: float) -> str:
    if now >= execution.ended_at:
        return execution.ending
    return "queued" if now < execution.created_at + execution.queued_seconds else "running"


def finished_outputs(execution: Execution, count: int, now: float) -> int:
    """How many of the outputs are there: they come one after the other, the last at the end.

    An execution that fails, or never ends, shows none.
    """
    if execution.ending != "completed":
        return 0
    if now >= execution.ended_at:
        return count
    started = execution.created_at + execution.queued_seconds
    if now < started:
        return 0
    return int(count * (now - started) / (execution.ended_at - started))


def view(execution: Execution, app: SandboxApp, *, now: float, value_of: ValueOf) -> dict[str, Any]:
    """The execution as GET shows it at `now` (API.md 2.5)."""
    status = status_at(execution, now)
    finished = finished_outputs(execution, len(app.outputs), now)
    return {
        "executionId": execution.execution_id,
        "workflowId": execution.app_id,
        "status": status,
        "outputs": [
            _output(execution, output, status=status, is_finished=index < finished, index=index, value_of=value_of)
            for index, output in enumerate(app.outputs)
        ],
        "errorMessage": execution.message if status == "failed" else None,
        "startedAt": None if status == "queued" else iso_instant(execution.created_at + execution.queued_seconds),
        "completedAt": iso_instant(execution.ended_at) if status in {"completed", "failed"} else None,
        "createdAt": iso_instant(execution.created_at),
    }


def placeholders(app: SandboxApp) -> list[dict[str, Any]]:
    """The outputs of an execution that has just been accepted (API.md 2.4)."""
    return [_outcome(output) for output in app.outputs]


def iso_instant(at: float) -> str:
    """Epoch seconds as the service writes them: 2026-03-23T12:22:40.552Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _output(
    execution: Execution, output: Output, *, status: str, is_finished: bool, index: int, value_of: ValueOf
) -> dict[str, Any]:
    if status == "failed" or (is_finished and index == execution.failed_output):
        # A failed output keeps the type "pending" (API.md 4).
        return _outcome(output, status="error", error=execution.message)
    if is_finished:
        value = value_of(execution, output)
        return _outcome(output, kind=output.kind, value=value, status="completed")
    return _outcome(output)


def _outcome(
    output: Output,
    *,
    kind: str = "pending",
    value: str | None = None,
    status: str = "pending",
    error: str | None = None,
) -> dict[str, Any]:
    return {
        "id": output.output_id,
        "label": output.label,
        "type": kind,
        "value": value,
        "status": status,
        "error": error,
    }


class ExecutionStore:
    """Every accepted execution, by id. With a file, one that was added has left this process."""

    def __init__(self, path: Path | None) -> None:
        """Take up what the file holds. Raises OSError where it cannot be read or written."""
        self._by_id: dict[str, Execution] = {}
        self._journal: Journal | None = None
        if path is not None:
            for entry in read_journal(path):
                kept = Execution(**{name: entry[name] for name in _FIELDS if name in entry})
                self._by_id[kept.execution_id] = kept
            self._journal = Journal(path)

    def add(self, execution: Execution) -> None:
        """Keep it. Raises OSError where it could not be written: then it must not be called accepted."""
        if self._journal is not None:
            self._journal.append({name: getattr(execution, name) for name in _FIELDS})
        self._by_id[execution.execution_id] = execution

    def get(self, execution_id: str) -> Execution | None:
        return self._by_id.get(execution_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Execution]:
        return iter(self._by_id.values())

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
