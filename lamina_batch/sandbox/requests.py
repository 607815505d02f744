"""Requests as the API understands them: which endpoint, with which key, and what a start sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

from lamina_batch.sandbox.inputs import is_absolute_url
from lamina_batch.sandbox.responses import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.sandbox.api_versions import SandboxApiVersion
    from lamina_batch.sandbox.faults import RequestKind

#: the workspace of every key; another one in x-workspace-id is refused
WORKSPACE_ID = "5f0c6e1a-3d0b-4a52-9a57-1a6d7c0b5e11"

INVALID_KEY = ApiError(status=401, message="Invalid API key", code="AUTH_INVALID_KEY")


class Endpoint(Enum):
    """The endpoints, under the names that requests.jsonl gives them."""

    LIST_APPS = "list_apps"
    APP = "app"
    WORKFLOW = "workflow"
    START = "start"
    READ = "read"
    #: the last three are the runs generation's
    LIST = "list"
    WAIT = "wait"
    CANCEL = "cancel"
    SIGNING_KEY = "signing_key"

    @property
    def kind(self) -> RequestKind:
        """What the faults call it."""
        match self:
            case Endpoint.START:
                return "start"
            case Endpoint.READ | Endpoint.WAIT:
                return "read"
            case Endpoint.LIST:
                return "list"
            case _:
                return "app"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedRequest:
    """A request, as far as its address tells."""

    endpoint: Endpoint
    #: None: the address is one that both generations have
    generation: SandboxApiVersion | None = None
    app_id: str | None = None
    execution_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What a start sent. `inputs` is None if the body could not be understood, and `problem` says why."""

    inputs: Mapping[str, Any] | None
    problem: ApiError | None = None
    #: labels of the outputs that are wanted; None: all
    outputs: tuple[str, ...] | None = None
    webhook: str | None = None
    idempotency_key: str | None = None


def route(method: str, path: str, served: frozenset[SandboxApiVersion]) -> RoutedRequest | None:
    """Which endpoint this is; None: there is none, or its generation is not served."""
    match method, path.removesuffix("/").split("/")[1:]:
        case "GET" | "HEAD", ["v1", "executions", execution_id]:
            call = RoutedRequest(endpoint=Endpoint.READ, generation="executions", execution_id=execution_id)
        case "POST", ["v1", "apps", app_id, "executions"]:
            call = RoutedRequest(endpoint=Endpoint.START, generation="executions", app_id=app_id)
        case "GET" | "HEAD", ["v1", "runs"]:
            call = RoutedRequest(endpoint=Endpoint.LIST, generation="runs")
        case "GET" | "HEAD", ["v1", "runs", run_id]:
            call = RoutedRequest(endpoint=Endpoint.READ, generation="runs", execution_id=run_id)
        case "GET" | "HEAD", ["v1", "runs", run_id, "wait"]:
            call = RoutedRequest(endpoint=Endpoint.WAIT, generation="runs", execution_id=run_id)
        case "POST", ["v1", "runs", run_id, "cancel"]:
            call = RoutedRequest(endpoint=Endpoint.CANCEL, generation="runs", execution_id=run_id)
        case "POST", ["v1", "apps", app_id, "runs"]:
            call = RoutedRequest(endpoint=Endpoint.START, generation="runs", app_id=app_id)
        case "GET" | "HEAD", ["v1", "apps"]:
            call = RoutedRequest(endpoint=Endpoint.LIST_APPS)
        case "GET" | "HEAD", ["v1", "apps", app_id]:
            call = RoutedRequest(endpoint=Endpoint.APP, app_id=app_id)
        case "GET" | "HEAD", ["v1", "apps", app_id, "workflow"]:
            call = RoutedRequest(endpoint=Endpoint.WORKFLOW, app_id=app_id)
        case "GET" | "HEAD", ["v1", "webhooks", "signing-key"]:
            call = RoutedRequest(endpoint=Endpoint.SIGNING_KEY)
        case _:
            return None
    return call if call.generation is None or call.generation in served else None


def authentication_error(headers: Mapping[str, str]) -> ApiError | None:
    """The 401 or 403 that these headers earn; None: the key and the workspace are fine (docs/lamina-api.md,
    "Authentication", "Errors and retries" and "Errors of runs").

    Any key counts that starts with `lma_` and does not say `revoked`. Where both headers stand, x-api-key is read.
    """
    key = headers.get("x-api-key")
    if key is None:
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        key = bearer if scheme.casefold() == "bearer" else ""
    key = key.strip()
    if not key:
        return ApiError(status=401, message="Missing API key", code="AUTH_MISSING_KEY")
    if not key.startswith("lma_") or "revoked" in key:
        return INVALID_KEY
    if headers.get("x-workspace-id", WORKSPACE_ID) != WORKSPACE_ID:
        message = "Workspace header does not match API key workspace scope"
        return ApiError(status=403, message=message, code="FORBIDDEN")
    return None


def read_start(
    body: bytes, headers: Mapping[str, str], webhook: str | None, generation: SandboxApiVersion
) -> StartRequest:
    """Parse what a start sent."""
    inputs: Any = None
    outputs: Any = None
    problem: ApiError | None = bad_request("inputs is required and must be an object")
    if headers.get("Content-Type", "").partition(";")[0].strip().casefold() == "application/json":
        try:
            sent = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            problem = bad_request("Request body is not valid JSON")
        else:
            inputs = sent.get("inputs") if isinstance(sent, dict) else None
            # The executions generation knows no such field, and passes over it.
            outputs = sent.get("outputs") if isinstance(sent, dict) and generation == "runs" else None
    if not isinstance(inputs, dict):
        inputs = None
    elif webhook is not None and not is_absolute_url(webhook):
        problem = ApiError(status=400, message="Invalid webhook URL", code="WEBHOOK_INVALID_URL")
    elif outputs is not None and not _is_list_of_texts(outputs):
        problem, outputs = bad_request("outputs must be a list of output labels"), None
    else:
        problem = None
    return StartRequest(
        inputs=inputs,
        problem=problem,
        outputs=tuple(outputs) if _is_list_of_texts(outputs) and outputs else None,
        webhook=webhook,
        idempotency_key=headers.get("Idempotency-Key"),
    )


def bad_request(message: str, *, status: int = 400) -> ApiError:
    """A refusal of the request's form."""
    return ApiError(status=status, message=message, code="VALIDATION_ERROR")


def not_found(message: str) -> ApiError:
    """A refusal of an unknown app or execution."""
    return ApiError(status=404, message=message, code="NOT_FOUND")


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
