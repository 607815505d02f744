"""The six endpoints (API.md 2), without HTTP: what is asked for, and the answer."""

from __future__ import annotations

import random
import re
import uuid
from typing import TYPE_CHECKING, Any

from lamina_batch.sandbox.answers import Answer, data, error, to_json
from lamina_batch.sandbox.calls import Call, Endpoint, Start
from lamina_batch.sandbox.executions import Execution, draw_durations, placeholders, view
from lamina_batch.sandbox.inputs import input_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina_batch.sandbox.apps import SandboxApp
    from lamina_batch.sandbox.executions import Ending, ExecutionStore, ValueOf
    from lamina_batch.sandbox.faults import Fault

#: a part of the one message that clients look for when credits run out (API.md 4)
INSUFFICIENT_CREDITS = "Insufficient credits"

_LISTED_BY_DEFAULT = 10
_LISTED_AT_MOST = 100


class Service:
    """Answers calls that the limiter and the key check let pass."""

    def __init__(
        self,
        *,
        apps: Mapping[str, SandboxApp],
        executions: ExecutionStore,
        value_of: ValueOf,
        signing_key: Mapping[str, str],
        clock: Callable[[], float],
        seed: int,
        speed: float,
    ) -> None:
        self._apps = apps
        self._executions = executions
        self._value_of = value_of
        self._clock = clock
        self._seed = seed
        self._speed = speed
        self._keys = Answer(status=200, body=to_json({"keys": [dict(signing_key)]}))
        self._app_answers = {app_id: data(_app_shown(app)) for app_id, app in apps.items()}
        self._workflow_answers = {
            app_id: data({"appId": app_id, "name": app.name, **app.workflow}) for app_id, app in apps.items()
        }

    def get(self, call: Call, query: Mapping[str, str]) -> Answer:
        """Answer a read."""
        match call.endpoint:
            case Endpoint.READ:
                return self._read(call.execution_id or "")
            case Endpoint.APP:
                return self._app_answers.get(call.app_id or "", _APP_NOT_FOUND)
            case Endpoint.WORKFLOW:
                return self._workflow_answers.get(call.app_id or "", _APP_NOT_FOUND)
            case Endpoint.LIST_APPS:
                return self._list_apps(query)
            case Endpoint.SIGNING_KEY:
                return self._keys
            case Endpoint.START:
                raise ValueError("a start is not a read")

    def start(self, call: Call, start: Start, fault: Fault | None) -> Answer:
        """Accept an execution, or say why not. `fault` decides how it will end.

        Raises OSError where it could not be kept: then it is not accepted.
        """
        app = self._apps.get(call.app_id or "")
        if app is None:
            return _APP_NOT_FOUND
        if start.inputs is None or start.problem:
            return error(400, start.problem)
        if problems := input_problems(app.parameters, start.inputs):
            return error(400, "Invalid inputs", problems)
        execution = self._accept(app, start, start.inputs, fault)
        self._executions.add(execution)
        shown = {
            "executionId": execution.execution_id,
            "workflowId": app.app_id,
            "workflowName": app.name,
            "status": "queued",
            "webhookUrl": start.webhook,
            "outputs": placeholders(app),
        }
        return Answer(status=202, body=to_json({"data": shown}), accepted=execution)

    def view(self, execution: Execution, now: float) -> dict[str, Any]:
        """The execution as it stands at `now`, epoch seconds (API.md 2.5)."""
        return view(execution, self._apps[execution.app_id], now=now, value_of=self._value_of)

    def _read(self, execution_id: str) -> Answer:
        execution = self._executions.get(execution_id)
        if execution is None or execution.app_id not in self._apps:
            return error(404, "Execution not found")
        return data(self.view(execution, self._clock()))

    def _list_apps(self, query: Mapping[str, str]) -> Answer:
        limit = query.get("limit", str(_LISTED_BY_DEFAULT))
        if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= _LISTED_AT_MOST:
            return error(400, f"limit must be a whole number from 1 to {_LISTED_AT_MOST}")
        search = query.get("search", "").strip().casefold()
        found = [app for app in self._apps.values() if search in f"{app.name}\n{app.description or ''}".casefold()]
        return data(
            [
                {"appId": a.app_id, "name": a.name, "description": a.description, "isPublic": a.is_public}
                for a in found[: int(limit)]
            ]
        )

    def _accept(self, app: SandboxApp, start: Start, inputs: Mapping[str, Any], fault: Fault | None) -> Execution:
        number = len(self._executions)
        durations = draw_durations(app, seed=self._seed, number=number, speed=self._speed)
        ending, message, failed_output = _ending(app, fault, f"{self._seed}:{number}")
        return Execution(
            execution_id=str(uuid.uuid4()),
            app_id=app.app_id,
            inputs=inputs,
            created_at=round(self._clock(), 3),
            queued_seconds=durations.queued,
            seconds=durations.total,
            ending=ending,
            message=message,
            failed_output=failed_output,
            webhook=start.webhook,
            idempotency_key=start.idempotency_key,
        )


_APP_NOT_FOUND = error(404, "App not found")


def _ending(app: SandboxApp, fault: Fault | None, seed: str) -> tuple[Ending, str | None, int | None]:
    """How an execution ends, why, and which of its outputs fails."""
    if fault is None:
        return "completed", None, None
    match fault.name:
        case "never_finish":
            return "never", None, None
        case "credits":
            return "failed", INSUFFICIENT_CREDITS, None
        case "failed":
            return "failed", fault.message, None
        case "failed_output":
            chance = random.Random(seed)  # noqa: S311 -- which output fails is no secret
            return "completed", fault.message, chance.randrange(len(app.outputs))
        case name:
            raise ValueError(f"{name} is no fault of an execution")


def _app_shown(app: SandboxApp) -> dict[str, Any]:
    return {
        "appId": app.app_id,
        "name": app.name,
        "description": app.description,
        "parameters": list(app.served_parameters),
    }
