"""Executions: what is kept of each, and what it looks like at any instant (docs/lamina-api.md, "Get execution",
"Outputs" and "The runs API").

Nothing runs. The whole life of an execution is drawn when it is accepted, and what a reader sees is a pure function of
that record, of its cancellation and of the time. So a sandbox that was killed and started again goes on as if nothing
had happened. A run is an execution that the runs generation made.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, assert_never

from lamina_batch.sandbox.api_versions import ID_FIELDS
from lamina_batch.sandbox.journal import Journal, read_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lamina_batch.sandbox.api_versions import SandboxApiVersion
    from lamina_batch.sandbox.apps import SandboxApp, SandboxOutput

    #: the `value` of an output that is there: a URL, or the text itself
    ValueOf = Callable[["SandboxExecution", SandboxOutput], str]


ExecutionEnding = Literal["completed", "failed", "cancelled", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxExecution:
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
    ending: ExecutionEnding = "completed"
    #: why it failed, or why one output did
    message: str | None = None
    #: which of its outputs ends with an error while the execution completes
    failed_output: int | None = None
    webhook: str | None = None
    #: logged only: the service promises nothing about it (docs/lamina-api.md, "Idempotency"), so it changes nothing
    idempotency_key: str | None = None
    #: which generation started it, and is the only one to read it
    generation: SandboxApiVersion = "executions"
    #: the positions of the app's outputs that were asked for; None: all
    selected: tuple[int, ...] | None = None
    #: the fault that its deliveries meet
    delivery_fault: str | None = None
    #: how many of the tries to deliver meet it, the first ones
    delivery_tries: int = 0
    #: epoch seconds; kept in cancellations.jsonl, and only where it came before the end
    cancelled_at: float | None = None

    @property
    def scheduled_end(self) -> float:
        """When it ends unless it is cancelled, epoch seconds; infinite where it never does."""
        return math.inf if self.ending == "never" else round(self.created_at + self.seconds, 3)

    @property
    def ended_at(self) -> float:
        """The instant of the end, epoch seconds; infinite where it never comes."""
        return self.scheduled_end if self.cancelled_at is None else self.cancelled_at

    @property
    def started_at(self) -> float:
        """When it leaves the queue, unless it is cancelled before."""
        return self.created_at + self.queued_seconds


_STORED_FIELDS = tuple(field.name for field in fields(SandboxExecution) if field.name != "cancelled_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxDurations:
    """How long an execution queues and takes, seconds from its creation."""

    queued: float
    total: float


def draw_durations(app: SandboxApp, *, seed: int, number: int, speed: float) -> SandboxDurations:
    """Durations for the execution with this number, counted from 0, in the app's shape around its median."""
    chance = random.Random(f"{seed}:{number}")  # noqa: S311 -- durations, not secrets
    total = app.median_seconds / speed * _factor(app, chance)
    return SandboxDurations(queued=round(total * chance.uniform(0.02, 0.1), 3), total=max(round(total, 3), 0.001))


def _factor(app: SandboxApp, chance: random.Random) -> float:
    match app.shape:
        case "lognormal":
            return math.exp(app.sigma * chance.gauss(0, 1))
        case "uniform":
            return chance.uniform(0, 2)
        case "bimodal":
            return 1.0 if chance.random() < 0.9 else 10.0
        case _:
            assert_never(app.shape)


def requested_outputs(execution: SandboxExecution, app: SandboxApp) -> tuple[SandboxOutput, ...]:
    """The outputs that this execution makes, in the app's order."""
    if execution.selected is None:
        return app.outputs
    return tuple(output for index, output in enumerate(app.outputs) if index in execution.selected)


def status_at(execution: SandboxExecution, now: float) -> str:
    """The status that the service reports at this instant."""
    if now >= execution.ended_at:
        return execution.ending if execution.cancelled_at is None else "cancelled"
    return "queued" if now < execution.started_at else "running"


def finished_output_count(execution: SandboxExecution, count: int, now: float) -> int:
    """How many of the outputs are there: they come one after the other, the last at the end.

    An execution that fails, or never ends, shows none. One that is cancelled keeps those that it had.
    """
    if execution.ending != "completed":
        return 0
    at = min(now, execution.ended_at)
    if at >= execution.scheduled_end:
        return count
    if at < execution.started_at:
        return 0
    return int(count * (at - execution.started_at) / (execution.scheduled_end - execution.started_at))


def status_fields(execution: SandboxExecution, now: float) -> dict[str, Any]:
    """How far it is at `now`, without its outputs."""
    status = status_at(execution, now)
    has_started = min(now, execution.ended_at) >= execution.started_at
    return {
        "status": status,
        "errorMessage": execution.message if status == "failed" else None,
        "startedAt": iso_instant(execution.started_at) if has_started else None,
        "completedAt": iso_instant(execution.ended_at) if now >= execution.ended_at else None,
        "createdAt": iso_instant(execution.created_at),
    }


def view(execution: SandboxExecution, app: SandboxApp, *, now: float, value_of: ValueOf) -> dict[str, Any]:
    """The execution as GET shows it at `now` (docs/lamina-api.md, "Get execution"), under the id field of its
    generation.
    """
    shown = status_fields(execution, now)
    outputs = requested_outputs(execution, app)
    finished = finished_output_count(execution, len(outputs), now)
    return {
        ID_FIELDS[execution.generation]: execution.execution_id,
        "workflowId": execution.app_id,
        **shown,
        "outputs": [
            _output(
                execution,
                output,
                status=shown["status"],
                is_finished=index < finished,
                index=index,
                value_of=value_of,
            )
            for index, output in enumerate(outputs)
        ],
    }


def pending_outputs(outputs: tuple[SandboxOutput, ...]) -> list[dict[str, Any]]:
    """The outputs of an execution that has just been accepted (docs/lamina-api.md, "Start execution")."""
    return [_output_body(output) for output in outputs]


def iso_instant(at: float) -> str:
    """Epoch seconds as the service writes them: 2026-03-23T12:22:40.552Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _output(
    execution: SandboxExecution, output: SandboxOutput, *, status: str, is_finished: bool, index: int, value_of: ValueOf
) -> dict[str, Any]:
    if status == "failed" or (is_finished and index == execution.failed_output):
        # A failed output keeps the type "pending" (docs/lamina-api.md, "Outputs").
        return _output_body(output, status="error", error=execution.message)
    if is_finished:
        value = value_of(execution, output)
        return _output_body(output, kind=output.kind, value=value, status="completed")
    return _output_body(output, status="cancelled" if status == "cancelled" else "pending")


def _output_body(
    output: SandboxOutput,
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
    """Every accepted execution, by id. With a file, one that was added has left this process; so has a cancellation."""

    def __init__(self, path: Path | None) -> None:
        """Take up what the file holds, and the cancellations beside it.

        Raises OSError if one of them cannot be read or written.
        """
        self._by_id: dict[str, SandboxExecution] = {}
        self._journal: Journal | None = None
        self._cancellations: Journal | None = None
        if path is None:
            return
        cancellations = path.with_name("cancellations.jsonl")
        for entry in read_journal(path):
            kept = _from_entry(entry)
            self._by_id[kept.execution_id] = kept
        for entry in read_journal(cancellations):
            cancelled = self._by_id.get(entry.get("execution_id", ""))
            if cancelled is not None:
                self._by_id[cancelled.execution_id] = replace(cancelled, cancelled_at=entry["at"])
        self._journal = Journal(path)
        self._cancellations = Journal(cancellations)

    def add(self, execution: SandboxExecution) -> None:
        """Keep it. Raises OSError if it could not be written: then it must not be called accepted."""
        if self._journal is not None:
            self._journal.append({name: getattr(execution, name) for name in _STORED_FIELDS})
        self._by_id[execution.execution_id] = execution

    def cancel(self, execution: SandboxExecution, now: float) -> SandboxExecution:
        """End it at `now`, epoch seconds, unless it has ended; return it as it is then.

        Raises OSError if it could not be written: then it must not be called cancelled.
        """
        # Rounded down: whoever reads it after this sees it ended.
        at = max(math.floor(now * 1000) / 1000, execution.created_at)
        if at >= execution.ended_at:
            return execution
        if self._cancellations is not None:
            self._cancellations.append({"at": at, "execution_id": execution.execution_id})
        cancelled = replace(execution, cancelled_at=at)
        self._by_id[execution.execution_id] = cancelled
        return cancelled

    def get(self, execution_id: str) -> SandboxExecution | None:
        """The execution with this id; None if there is none."""
        return self._by_id.get(execution_id)

    def newest_first(self, generation: SandboxApiVersion) -> list[SandboxExecution]:
        """What this generation made; of those made in one millisecond, the one that was accepted last comes first."""
        made = [execution for execution in reversed(self._by_id.values()) if execution.generation == generation]
        return sorted(made, key=lambda execution: -execution.created_at)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[SandboxExecution]:
        return iter(self._by_id.values())

    def close(self) -> None:
        """Close the files."""
        for journal in (self._journal, self._cancellations):
            if journal is not None:
                journal.close()


def _from_entry(entry: Mapping[str, Any]) -> SandboxExecution:
    """A line of executions.jsonl; fields of a later version are left out."""
    kept = SandboxExecution(**{name: entry[name] for name in _STORED_FIELDS if name in entry})
    return kept if kept.selected is None else replace(kept, selected=tuple(kept.selected))
