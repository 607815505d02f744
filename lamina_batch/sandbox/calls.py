"""Requests as the API understands them: which endpoint, with which key, and what a start sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

from lamina_batch.sandbox.answers import Answer, error
from lamina_batch.sandbox.inputs import is_absolute_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.sandbox.faults import RequestKind

#: the workspace of every key; another one in x-workspace-id is refused
WORKSPACE_ID = "5f0c6e1a-3d0b-4a52-9a57-1a6d7c0b5e11"


class Endpoint(Enum):
    LIST_APPS = "list_apps"
    APP = "app"
    WORKFLOW = "workflow"
    START = "start"
    READ = "read"
    SIGNING_KEY = "signing_key"

    @property
    def kind(self) -> RequestKind:
        """What the faults call it."""
        match self:
            case Endpoint.START:
                return "start"
            case Endpoint.READ:
                return "read"
            case _:
                return "app"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request, as far as its address tells."""

    endpoint: Endpoint
    app_id: str | None = None
    execution_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a start sent. `inputs` is None where the body could not be understood, and `problem` says why."""

    inputs: Mapping[str, Any] | None
    problem: str = ""
    webhook: str | None = None
    idempotency_key: str | None = None


def route(method: str, path: str) -> Call | None:
    """Which endpoint this is; None: there is none."""
    match method, path.removesuffix("/").split("/")[1:]:
        case "GET" | "HEAD", ["v1", "executions", execution_id]:
            return Call(endpoint=Endpoint.READ, execution_id=execution_id)
        case "POST", ["v1", "apps", app_id, "executions"]:
            return Call(endpoint=Endpoint.START, app_id=app_id)
        case "GET" | "HEAD", ["v1", "apps"]:
            return Call(endpoint=Endpoint.LIST_APPS)
        case "GET" | "HEAD", ["v1", "apps", app_id]:
            return Call(endpoint=Endpoint.APP, app_id=app_id)
        case "GET" | "HEAD", ["v1", "apps", app_id, "workflow"]:
            return Call(endpoint=Endpoint.WORKFLOW, app_id=app_id)
        case "GET" | "HEAD", ["v1", "webhooks", "signing-key"]:
            return Call(endpoint=Endpoint.SIGNING_KEY)
        case _:
            return None


def refusal(headers: Mapping[str, str]) -> Answer | None:
    """The 401 or 403 that these headers earn; None: the key and the workspace are fine (API.md 1 and 8).

    Any key counts that starts with `lma_` and does not say `revoked`. Where both headers stand, x-api-key is read.
    """
    key = headers.get("x-api-key")
    if key is None:
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        key = bearer if scheme.casefold() == "bearer" else ""
    key = key.strip()
    if not key:
        return error(401, "Missing API key")
    if not key.startswith("lma_") or "revoked" in key:
        return error(401, "Invalid API key")
    if headers.get("x-workspace-id", WORKSPACE_ID) != WORKSPACE_ID:
        return error(403, "Workspace header does not match API key workspace scope")
    return None


def read_start(body: bytes, headers: Mapping[str, str], webhook: str | None) -> Start:
    """Parse what a start sent."""
    inputs: Any = None
    problem = "inputs is required and must be an object"
    if headers.get("Content-Type", "").partition(";")[0].strip().casefold() == "application/json":
        try:
            sent = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            problem = "Request body is not valid JSON"
        else:
            inputs = sent.get("inputs") if isinstance(sent, dict) else None
    if not isinstance(inputs, dict):
        inputs = None
    elif webhook is not None and not is_absolute_url(webhook):
        problem = "Invalid webhook URL"
    else:
        problem = ""
    return Start(inputs=inputs, problem=problem, webhook=webhook, idempotency_key=headers.get("Idempotency-Key"))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
