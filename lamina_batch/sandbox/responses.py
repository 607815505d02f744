"""What the API answers, and in which form: the `data` envelope, and the errors of each generation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.sandbox.api_versions import DetailsForm, SandboxApiVersion
    from lamina_batch.sandbox.executions import SandboxExecution

#: the codes that say `retryable` (docs/lamina-api.md, "Errors of runs")
_RETRYABLE = frozenset({"AUTH_FAILED", "INTERNAL_ERROR", "RATE_LIMITED", "RESOURCE_UNAVAILABLE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSuccess:
    """An answer with data."""

    status: int
    #: JSON
    body: bytes
    #: the execution that was accepted
    accepted: SandboxExecution | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputProblem:
    """One thing that is wrong with one input."""

    #: the name, key or id under which it was sent; the parameter's key where nothing was sent
    field: str
    #: what the executions generation calls it
    name: str
    #: one of the input error codes of docs/lamina-api.md, "Inputs and app fields of runs"
    code: str
    message: str
    #: the labels that would have been accepted
    allowed: tuple[str, ...] = ()
    #: what was sent
    got: object = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """Why a request fails, before it is written in the form of a generation."""

    status: int
    message: str
    #: one of the codes of docs/lamina-api.md, "Errors of runs"; the executions generation knows none
    code: str
    problems: tuple[InputProblem, ...] = ()
    details_form: DetailsForm = "array"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """An answer as it would go out. The headers hold the Content-Type, and the rate limit's."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def success(value: object) -> ApiSuccess:
    """A success with its envelope (docs/lamina-api.md, "Endpoints")."""
    return ApiSuccess(status=200, body=to_json({"data": value}))


def error_body(
    refusal: ApiError, generation: SandboxApiVersion, *, request_id: str, retry_after: float | None = None
) -> dict[str, Any]:
    """The error as a generation writes it (docs/lamina-api.md, "Errors and retries" and "Errors of runs")."""
    body: dict[str, Any] = {"error": refusal.message}
    if generation == "executions":
        if refusal.problems:
            body["details"] = [f'"{problem.name}": {problem.message}' for problem in refusal.problems]
        return body
    body |= {"code": refusal.code, "retryable": refusal.code in _RETRYABLE, "requestId": request_id}
    if retry_after is not None:
        body["retryAfter"] = retry_after
    if refusal.problems:
        errors = [_field_error(problem) for problem in refusal.problems]
        body["details"] = errors if refusal.details_form == "array" else {"details": {"errors": errors}}
    return body


def to_json(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def _field_error(problem: InputProblem) -> dict[str, Any]:
    written: dict[str, Any] = {
        "field": problem.field,
        "error": problem.code,
        "message": f'"{problem.name}": {problem.message}',
    }
    if problem.allowed:
        written["allowed"] = list(problem.allowed)
    if problem.got is not None:
        written["got"] = problem.got
    return written
