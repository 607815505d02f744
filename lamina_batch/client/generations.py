"""What differs between the generations of the API, in one place: paths, id field, ends, and how errors are told.

The service replaced *executions* by *runs* within weeks, and no source says whether it still answers to the former
(docs/lamina-api.md, "The runs API" and "Unknowns"). Everything else that the client says and hears is the same in both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: An error message is cut after this many characters.
_MAX_MESSAGE_LENGTH = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiVersion:
    """One generation of the API. Its errors are told by their own shape: see `parse_complaint`."""

    name: str
    start_path: str
    read_path: str
    id_field: str
    #: the statuses that end an execution, lower case; any other is waited for
    ended: frozenset[str]


#: docs/lamina-api.md, "Endpoints". `cancelled` belongs to the next generation, but is an end wherever it is seen
#: (docs/lamina-api.md, "Execution states").
EXECUTIONS = ApiVersion(
    name="executions",
    start_path="/v1/apps/{app_id}/executions",
    read_path="/v1/executions/{execution_id}",
    id_field="executionId",
    ended=frozenset({"completed", "failed", "cancelled"}),
)
#: docs/lamina-api.md, "The runs API".
RUNS = ApiVersion(
    name="runs",
    start_path="/v1/apps/{app_id}/runs",
    read_path="/v1/runs/{execution_id}",
    id_field="runId",
    ended=frozenset({"completed", "failed", "cancelled"}),
)
#: The list of executions, newest first: the runs generation alone has it.
LIST_PATH = "/v1/runs"
API_VERSIONS: Mapping[str, ApiVersion] = MappingProxyType({g.name: g for g in (EXECUTIONS, RUNS)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """An error as the service tells it."""

    #: the error and what is wrong with which input, for people; empty: not a word
    words: str
    #: `VALIDATION_ERROR` and the like (docs/lamina-api.md, "Errors of runs"); None: it has none, as in the executions
    #: generation
    code: str | None = None
    #: names the request to the service's people
    request_id: str | None = None

    def told(self, otherwise: str) -> str:
        """The words, or `otherwise` if there are none, with what helps to look them up behind them."""
        known = ", ".join(
            part for part in (self.code, self.request_id and f"request {self.request_id}") if part is not None
        )
        text = (self.words or otherwise)[:_MAX_MESSAGE_LENGTH]
        return f"{text} ({known})" if known else text


def parse_api_error(body: object) -> ApiError:
    """Read the body of an error: `{error, details?}`, or `{error, code, requestId, details?}` (docs/lamina-api.md,
    "Errors and retries" and "Errors of runs").

    The sources disagree about `details`: texts, objects with `field`, `error`, `message`, `allowed`, `range` and `got`,
    or such objects further in under `details` and `errors`. Each is understood wherever it is met.
    """
    if not isinstance(body, Mapping):
        return ApiError(words="")
    error = body.get("error")
    if isinstance(error, Mapping):
        # What a proxy says, not the service.
        body = {**body, **error}
        error = error.get("message")
    words = _short_text(error) or _short_text(body.get("message")) or ""
    details = "; ".join(detail for detail in _parse_details(body.get("details")) if detail)
    return ApiError(
        words=": ".join(part for part in (words, details) if part),
        code=_code_token(body.get("code")),
        request_id=_code_token(body.get("requestId")),
    )


def _parse_details(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield _parse_detail(item)
        case Mapping():
            inner = value.get("errors", value.get("details"))
            if isinstance(inner, list | Mapping):
                yield from _parse_details(inner)
            elif {"field", "message", "error"} & value.keys():
                yield _parse_detail(value)
            else:
                for field, what in value.items():
                    yield f'"{field}": {_display_value(what)}'
        case _:
            return


def _parse_detail(item: object) -> str:
    """One fault, as the executions generation words it: `"Location": invalid option "Mars". Must be one of: …`."""
    if not isinstance(item, Mapping):
        return _display_value(item)
    what = _short_text(item.get("message")) or _short_text(item.get("error"))
    if what is None:
        return _display_value(item)
    more: list[str] = []
    got, allowed, limits = item.get("got"), item.get("allowed"), item.get("range")
    if got is not None and _display_value(got) not in what:
        more.append(f"got {json.dumps(got, ensure_ascii=False)}")
    if isinstance(allowed, list):
        allowed = ", ".join(_display_value(choice) for choice in allowed)
    if allowed is not None and _display_value(allowed) not in what:
        more.append(f"allowed: {_display_value(allowed)}")
    if limits is not None and _display_value(limits) not in what:
        more.append(f"range: {_display_value(limits)}")
    if more:
        what = f"{what} ({'; '.join(more)})"
    field = _short_text(item.get("field"))
    return what if field is None or what.startswith(f'"{field}"') else f'"{field}": {what}'


def _display_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short_text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _code_token(value: object) -> str | None:
    """A code or an id that may stand in a message without bursting it."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.:@/+=-]{1,100}", value, re.ASCII) else None
