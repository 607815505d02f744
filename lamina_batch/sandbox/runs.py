"""What only the runs generation shows: a run's progress and what is known of its outputs, and the list (API.md 11)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lamina_batch.sandbox.calls import bad_request
from lamina_batch.sandbox.executions import asked_outputs, state, status_at, view

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lamina_batch.sandbox.answers import Refusal
    from lamina_batch.sandbox.apps import Output, SandboxApp
    from lamina_batch.sandbox.executions import Execution, ValueOf

    #: what is known of an output that is there: mimeType, dimensions, durationSeconds
    FactsOf = Callable[[Execution, Output], Mapping[str, Any]]

STATUSES = ("queued", "running", "completed", "failed", "cancelled")

_LISTED_BY_DEFAULT = 25
_LISTED_AT_MOST = 100
_WAIT_BY_DEFAULT = 60
_WAIT_AT_MOST = 120
_NO_FACTS: Mapping[str, Any] = {"mimeType": None, "dimensions": None, "durationSeconds": None}


def run_view(run: Execution, app: SandboxApp, *, now: float, value_of: ValueOf, facts_of: FactsOf) -> dict[str, Any]:
    """The run as GET shows it at `now`, epoch seconds."""
    shown = view(run, app, now=now, value_of=value_of)
    outputs = [
        {**outcome, **(facts_of(run, output) if outcome["status"] == "completed" else _NO_FACTS)}
        for outcome, output in zip(shown["outputs"], asked_outputs(run, app), strict=True)
    ]
    statuses = [outcome["status"] for outcome in outputs]
    completed, failed = statuses.count("completed"), statuses.count("error")
    return {
        **shown,
        "outputs": outputs,
        "progress": {
            "totalOutputs": len(outputs),
            "completedOutputs": completed,
            "failedOutputs": failed,
            "percentComplete": round(100 * (completed + failed) / len(outputs)) if outputs else 100,
        },
        "quality": None,
        "artifacts": [],
    }


def run_item(run: Execution, *, now: float) -> dict[str, Any]:
    """The run as the list shows it: without its inputs and outputs."""
    return {"runId": run.execution_id, "workflowId": run.app_id, **state(run, now)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What a list was asked for."""

    status: str | None = None
    app_id: str | None = None
    limit: int = _LISTED_BY_DEFAULT
    offset: int = 0
    #: epoch seconds: only runs created then or later
    since: float | None = None

    def matches(self, run: Execution, now: float) -> bool:
        return (
            (self.app_id is None or run.app_id == self.app_id)
            and (self.since is None or run.created_at >= self.since)
            and (self.status is None or status_at(run, now) == self.status)
        )


def read_list_query(query: Mapping[str, str]) -> ListQuery | Refusal:
    limit, offset = query.get("limit", str(_LISTED_BY_DEFAULT)), query.get("offset", "0")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= _LISTED_AT_MOST:
        return bad_request(f"limit must be a whole number from 1 to {_LISTED_AT_MOST}")
    if not re.fullmatch(r"[0-9]{1,9}", offset):
        return bad_request("offset must be a whole number of at least 0")
    status = query.get("status")
    if status is not None and status not in STATUSES:
        return bad_request(f"status must be one of: {', '.join(STATUSES)}")
    since: float | None = None
    if "since" in query:
        try:
            instant = datetime.fromisoformat(query["since"])
        except ValueError:
            return bad_request("since must be an ISO 8601 instant")
        since = (instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)).timestamp()
    return ListQuery(status=status, app_id=query.get("appId"), limit=int(limit), offset=int(offset), since=since)


def listed(runs: Sequence[Execution], query: ListQuery, *, now: float) -> dict[str, Any]:
    """One page; `runs` come newest first. Pages shift as new runs come in between them."""
    found = [run for run in runs if query.matches(run, now)]
    page = found[query.offset : query.offset + query.limit]
    return {
        "data": [run_item(run, now=now) for run in page],
        "pagination": {"total": len(found), "limit": query.limit, "offset": query.offset},
    }


def read_wait_timeout(query: Mapping[str, str]) -> float | Refusal:
    """Seconds that a wait may take."""
    timeout = query.get("timeout", str(_WAIT_BY_DEFAULT))
    if not re.fullmatch(r"[0-9]{1,3}", timeout) or not 1 <= int(timeout) <= _WAIT_AT_MOST:
        return bad_request(f"timeout must be a whole number of seconds from 1 to {_WAIT_AT_MOST}")
    return float(timeout)


def selected_outputs(app: SandboxApp, labels: tuple[str, ...]) -> tuple[int, ...] | Refusal:
    """The positions of the outputs with these labels, in any case; a label that several share means them all."""
    known = [output.label.lower() for output in app.outputs]
    for label in labels:
        if label.lower() not in known:
            names = ", ".join(dict.fromkeys(output.label for output in app.outputs))
            return bad_request(f'unknown output "{label}". Must be one of: {names}')
    wanted = {label.lower() for label in labels}
    return tuple(index for index, label in enumerate(known) if label in wanted)
