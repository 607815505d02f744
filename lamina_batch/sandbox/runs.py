"""What only the runs generation shows: a run's progress and what is known of its outputs, and the list
(docs/lamina-api.md, "State and outputs of a run" and "List of runs").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lamina_batch.sandbox.executions import requested_outputs, status_at, status_fields, view
from lamina_batch.sandbox.requests import bad_request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lamina_batch.sandbox.apps import SandboxApp, SandboxOutput
    from lamina_batch.sandbox.executions import SandboxExecution, ValueOf
    from lamina_batch.sandbox.responses import ApiError

    #: what is known of an output that is there: mimeType, dimensions, durationSeconds
    OutputMetadata = Callable[[SandboxExecution, SandboxOutput], Mapping[str, Any]]

STATUSES = ("queued", "running", "completed", "failed", "cancelled")

_DEFAULT_PAGE_SIZE = 25
_MAX_PAGE_SIZE = 100
_DEFAULT_WAIT_SECONDS = 60
_MAX_WAIT_SECONDS = 120
_NO_METADATA: Mapping[str, Any] = {"mimeType": None, "dimensions": None, "durationSeconds": None}


def run_view(
    run: SandboxExecution, app: SandboxApp, *, now: float, value_of: ValueOf, output_metadata: OutputMetadata
) -> dict[str, Any]:
    """The run as GET shows it at `now`, epoch seconds."""
    shown = view(run, app, now=now, value_of=value_of)
    outputs = [
        {**outcome, **(output_metadata(run, output) if outcome["status"] == "completed" else _NO_METADATA)}
        for outcome, output in zip(shown["outputs"], requested_outputs(run, app), strict=True)
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


def run_item(run: SandboxExecution, *, now: float) -> dict[str, Any]:
    """The run as the list shows it: without its inputs and outputs."""
    return {"runId": run.execution_id, "workflowId": run.app_id, **status_fields(run, now)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What a list was asked for."""

    status: str | None = None
    app_id: str | None = None
    limit: int = _DEFAULT_PAGE_SIZE
    offset: int = 0
    #: epoch seconds: only runs created then or later
    since: float | None = None

    def matches(self, run: SandboxExecution, now: float) -> bool:
        """Whether the list shows this run."""
        return (
            (self.app_id is None or run.app_id == self.app_id)
            and (self.since is None or run.created_at >= self.since)
            and (self.status is None or status_at(run, now) == self.status)
        )


def read_list_query(query: Mapping[str, str]) -> ListQuery | ApiError:
    """The query of a list request, or why it is refused."""
    limit, offset = query.get("limit", str(_DEFAULT_PAGE_SIZE)), query.get("offset", "0")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MAX_PAGE_SIZE:
        return bad_request(f"limit must be a whole number from 1 to {_MAX_PAGE_SIZE}")
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


def list_page(runs: Sequence[SandboxExecution], query: ListQuery, *, now: float) -> dict[str, Any]:
    """One page; `runs` come newest first. Pages shift as new runs come in between them."""
    found = [run for run in runs if query.matches(run, now)]
    page = found[query.offset : query.offset + query.limit]
    return {
        "data": [run_item(run, now=now) for run in page],
        "pagination": {"total": len(found), "limit": query.limit, "offset": query.offset},
    }


def read_wait_timeout(query: Mapping[str, str]) -> float | ApiError:
    """Seconds that a wait may take."""
    timeout = query.get("timeout", str(_DEFAULT_WAIT_SECONDS))
    if not re.fullmatch(r"[0-9]{1,3}", timeout) or not 1 <= int(timeout) <= _MAX_WAIT_SECONDS:
        return bad_request(f"timeout must be a whole number of seconds from 1 to {_MAX_WAIT_SECONDS}")
    return float(timeout)


def selected_outputs(app: SandboxApp, labels: tuple[str, ...]) -> tuple[int, ...] | ApiError:
    """The positions of the outputs with these labels, in any case; a label that several share means them all."""
    known = [output.label.lower() for output in app.outputs]
    for label in labels:
        if label.lower() not in known:
            names = ", ".join(dict.fromkeys(output.label for output in app.outputs))
            return bad_request(f'unknown output "{label}". Must be one of: {names}')
    wanted = {label.lower() for label in labels}
    return tuple(index for index, label in enumerate(known) if label in wanted)
