"""The endpoints (docs/lamina-api.md, "Endpoints" and "The runs API"), without HTTP: what is asked
for, and the answer.
"""

from __future__ import annotations

import math
import random
import re
import uuid
from typing import TYPE_CHECKING, Any

from lamina_batch.sandbox.api_versions import ID_FIELDS
from lamina_batch.sandbox.executions import (
    SandboxExecution,
    draw_durations,
    pending_outputs,
    requested_outputs,
    status_at,
    view,
)
from lamina_batch.sandbox.inputs import input_problems
from lamina_batch.sandbox.requests import Endpoint, RoutedRequest, StartRequest, bad_request, not_found
from lamina_batch.sandbox.responses import ApiError, ApiSuccess, success, to_json
from lamina_batch.sandbox.runs import list_page, read_list_query, read_wait_timeout, run_view, selected_outputs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lamina_batch.sandbox.api_versions import SandboxApiVersion
    from lamina_batch.sandbox.apps import SandboxApp
    from lamina_batch.sandbox.executions import ExecutionEnding, ExecutionStore, ValueOf
    from lamina_batch.sandbox.faults import SandboxFault
    from lamina_batch.sandbox.runs import OutputMetadata
    from lamina_batch.sandbox.webhooks import WebhookKeys

#: a part of the one message that clients look for when credits run out (docs/lamina-api.md, "Execution states")
INSUFFICIENT_CREDITS = "Insufficient credits"

_DEFAULT_PAGE_SIZE = 10
_MAX_PAGE_SIZE = 100
#: how often a wait looks whether its run was cancelled, seconds
_WAIT_POLL_SECONDS = 0.05

_APP_NOT_FOUND = not_found("App not found")
_NOT_FOUND: Mapping[SandboxApiVersion, ApiError] = {
    "executions": not_found("Execution not found"),
    "runs": not_found("Run not found"),
}


class SandboxService:
    """Answers calls that the limiter and the key check let pass."""

    def __init__(  # noqa: PLR0913  # each is a part of the service
        self,
        *,
        apps: Mapping[str, SandboxApp],
        executions: ExecutionStore,
        value_of: ValueOf,
        output_metadata: OutputMetadata,
        keys: WebhookKeys,
        generations: frozenset[SandboxApiVersion],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        seed: int,
        speed: float,
    ) -> None:
        self._apps = apps
        self._executions = executions
        self._value_of = value_of
        self._facts_of = output_metadata
        self._keys = keys
        self._shows_runs = "runs" in generations
        self._clock = clock
        self._sleep = sleep
        self._seed = seed
        self._speed = speed
        self._app_answers = {app_id: success(_app_body(app, runs=self._shows_runs)) for app_id, app in apps.items()}
        self._workflow_answers = {
            app_id: success({"appId": app_id, "name": app.name, **app.workflow}) for app_id, app in apps.items()
        }

    def find(self, call: RoutedRequest) -> SandboxExecution | None:
        """The execution that a call names, if the call's generation made it: neither knows those of the other."""
        execution = self._executions.get(call.execution_id or "")
        if execution is None or execution.app_id not in self._apps or execution.generation != call.generation:
            return None
        return execution

    def get(self, call: RoutedRequest, query: Mapping[str, str]) -> ApiSuccess | ApiError:
        """Answer a read that needs no waiting."""
        match call.endpoint:
            case Endpoint.READ:
                return self._read(call)
            case Endpoint.LIST:
                return self._list_runs(query)
            case Endpoint.APP:
                return self._app_answers.get(call.app_id or "", _APP_NOT_FOUND)
            case Endpoint.WORKFLOW:
                return self._workflow_answers.get(call.app_id or "", _APP_NOT_FOUND)
            case Endpoint.LIST_APPS:
                return self._list_apps(query)
            case Endpoint.SIGNING_KEY:
                return ApiSuccess(status=200, body=to_json({"keys": self._keys.listed()}))
            case Endpoint.START | Endpoint.WAIT | Endpoint.CANCEL:
                raise ValueError(f"{call.endpoint.value} is not a plain read")

    def start(
        self, call: RoutedRequest, start: StartRequest, *, ending: SandboxFault | None, delivery: SandboxFault | None
    ) -> ApiSuccess | ApiError:
        """Accept an execution, or say why not. The faults decide how it will end, and how that is told.

        Raises OSError if it could not be kept: then it is not accepted.
        """
        generation = call.generation or "executions"
        app = self._apps.get(call.app_id or "")
        if app is None:
            return _APP_NOT_FOUND
        if start.problem is not None or start.inputs is None:
            return start.problem or bad_request("inputs is required and must be an object")
        if problems := input_problems(app.parameters, start.inputs, names_only=generation == "executions"):
            return ApiError(
                status=400,
                message="Invalid inputs",
                code="VALIDATION_ERROR",
                problems=problems,
                details_form=app.details_form,
            )
        selected = selected_outputs(app, start.outputs) if start.outputs is not None else None
        if isinstance(selected, ApiError):
            return selected
        execution = self._accept(
            app, start, start.inputs, generation=generation, selected=selected, ending=ending, delivery=delivery
        )
        self._executions.add(execution)
        shown = {
            ID_FIELDS[generation]: execution.execution_id,
            "workflowId": app.app_id,
            "workflowName": app.name,
            "status": "queued",
            "webhookUrl": start.webhook,
            "outputs": pending_outputs(requested_outputs(execution, app)),
        }
        return ApiSuccess(status=202, body=to_json({"data": shown}), accepted=execution)

    async def wait(self, call: RoutedRequest, query: Mapping[str, str]) -> ApiSuccess | ApiError:
        """The run once it has ended, or as it is after `timeout` seconds; those are the caller's, at any speed."""
        timeout = read_wait_timeout(query)
        if isinstance(timeout, ApiError):
            return timeout
        run = self.find(call)
        until = self._clock() + timeout
        while run is not None:
            now = self._clock()
            if now >= run.ended_at or now >= until:
                shown = {"data": self.view(run, now), "timeout": now < run.ended_at}
                return ApiSuccess(status=200, body=to_json(shown))
            await self._sleep(min(run.ended_at - now, until - now, _WAIT_POLL_SECONDS))
            run = self.find(call)
        return _NOT_FOUND["runs"]

    def cancel(self, call: RoutedRequest) -> tuple[ApiSuccess | ApiError, SandboxExecution | None]:
        """End a run that has not ended. Also returns the run where this has changed it.

        Raises OSError if it could not be kept: then it goes on.
        """
        run = self.find(call)
        if run is None:
            return _NOT_FOUND["runs"], None
        now = self._clock()
        after = self._executions.cancel(run, now)
        answer = success({"runId": run.execution_id, "status": status_at(after, now)})
        return answer, after if after is not run else None

    def view(self, execution: SandboxExecution, now: float) -> dict[str, Any]:
        """The execution unchanged at `now`, epoch seconds, as its generation shows it."""
        app = self._apps[execution.app_id]
        match execution.generation:
            case "executions":
                return view(execution, app, now=now, value_of=self._value_of)
            case "runs":
                return run_view(execution, app, now=now, value_of=self._value_of, output_metadata=self._facts_of)

    def _read(self, call: RoutedRequest) -> ApiSuccess | ApiError:
        execution = self.find(call)
        if execution is None:
            return _NOT_FOUND[call.generation or "executions"]
        return success(self.view(execution, self._clock()))

    def _list_runs(self, query: Mapping[str, str]) -> ApiSuccess | ApiError:
        asked = read_list_query(query)
        if isinstance(asked, ApiError):
            return asked
        runs = [run for run in self._executions.newest_first("runs") if run.app_id in self._apps]
        return ApiSuccess(status=200, body=to_json(list_page(runs, asked, now=self._clock())))

    def _list_apps(self, query: Mapping[str, str]) -> ApiSuccess | ApiError:
        limit = query.get("limit", str(_DEFAULT_PAGE_SIZE))
        if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= _MAX_PAGE_SIZE:
            return bad_request(f"limit must be a whole number from 1 to {_MAX_PAGE_SIZE}")
        search = query.get("search", "").strip().casefold()
        found = [app for app in self._apps.values() if search in f"{app.name}\n{app.description or ''}".casefold()]
        return success([_app_list_item(app, runs=self._shows_runs) for app in found[: int(limit)]])

    def _accept(
        self,
        app: SandboxApp,
        start: StartRequest,
        inputs: Mapping[str, Any],
        *,
        generation: SandboxApiVersion,
        selected: tuple[int, ...] | None,
        ending: SandboxFault | None,
        delivery: SandboxFault | None,
    ) -> SandboxExecution:
        number = len(self._executions)
        durations = draw_durations(app, seed=self._seed, number=number, speed=self._speed)
        is_early = delivery is not None and delivery.name == "webhook_early"
        count = len(app.outputs) if selected is None else len(selected)
        how, message, failed_output = _ending(ending, count, f"{self._seed}:{number}")
        return SandboxExecution(
            execution_id=str(uuid.uuid4()),
            app_id=app.app_id,
            inputs=inputs,
            # Down: an instant that lies ahead would show an end as not yet come.
            created_at=math.floor(self._clock() * 1000) / 1000,
            queued_seconds=0.0 if is_early else durations.queued,
            seconds=0.0 if is_early else durations.total,
            ending=how,
            message=message,
            failed_output=failed_output,
            webhook=start.webhook,
            idempotency_key=start.idempotency_key,
            generation=generation,
            selected=selected,
            delivery_fault=delivery.name if delivery is not None else None,
            delivery_tries=delivery.tries if delivery is not None else 0,
        )


def _ending(fault: SandboxFault | None, outputs: int, seed: str) -> tuple[ExecutionEnding, str | None, int | None]:
    """How an execution ends, why, and which of its outputs fails."""
    if fault is None:
        return "completed", None, None
    match fault.name:
        case "never_finish":
            return "never", None, None
        case "cancelled":
            return "cancelled", None, None
        case "credits":
            return "failed", INSUFFICIENT_CREDITS, None
        case "failed":
            return "failed", fault.message, None
        case "failed_output":
            chance = random.Random(seed)  # noqa: S311 -- which output fails is no secret
            return "completed", fault.message, chance.randrange(outputs)
        case name:
            raise ValueError(f"{name} is no fault of an execution")


def _app_body(app: SandboxApp, *, runs: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "appId": app.app_id,
        "name": app.name,
        "description": app.description,
        "parameters": list(app.served_parameters),
    }
    if runs:
        shown["outputs"] = [
            {"index": index, "label": output.label, "type": output.kind} for index, output in enumerate(app.outputs)
        ]
    return shown


def _app_list_item(app: SandboxApp, *, runs: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "appId": app.app_id,
        "name": app.name,
        "description": app.description,
        "isPublic": app.is_public,
    }
    if runs:
        kinds = list(dict.fromkeys(output.kind for output in app.outputs))
        shown |= {
            "capabilities": [],
            "icon": None,
            "modality": kinds[-1],
            "outputFormats": kinds,
            "inputSummary": None,
            "thumbnail": None,
        }
    return shown
