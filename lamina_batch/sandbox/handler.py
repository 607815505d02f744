"""One request: limiter, key, fault, answer, and a line in the log, in this order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from lamina_batch.sandbox.answers import error
from lamina_batch.sandbox.calls import Endpoint, read_start, refusal, route
from lamina_batch.sandbox.faults import Stage
from lamina_batch.sandbox.limiter import rate_limit_headers, retry_after
from lamina_batch.sandbox.media import MediaRequest
from lamina_batch.sandbox.misbehaviour import Reply, instead_of_answer, send

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from lamina_batch.sandbox.answers import Answer
    from lamina_batch.sandbox.calls import Call, Start
    from lamina_batch.sandbox.executions import Execution, ExecutionStore
    from lamina_batch.sandbox.faults import Fault, FaultPlan
    from lamina_batch.sandbox.journal import Journal
    from lamina_batch.sandbox.limiter import FixedWindowLimiter, Hit
    from lamina_batch.sandbox.media import MediaStore
    from lamina_batch.sandbox.options import SandboxOptions
    from lamina_batch.sandbox.service import Service
    from lamina_batch.sandbox.webhooks import Deliveries

_JSON = {"Content-Type": "application/json; charset=utf-8"}
_TOO_MANY = b"Too many requests from this IP, please try again in a minute"


class Handler:
    """What the server calls for each request."""

    def __init__(
        self,
        *,
        options: SandboxOptions,
        limiter: FixedWindowLimiter,
        faults: FaultPlan,
        service: Service,
        media: MediaStore,
        executions: ExecutionStore,
        deliveries: Deliveries,
        log: Journal | None,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._options = options
        self._limiter = limiter
        self._faults = faults
        self._service = service
        self._media = media
        self._executions = executions
        self._deliveries = deliveries
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        entry = _log_entry(request, self._clock())
        if request.path.startswith("/v1/"):
            reply, fault = await self._api(request, entry)
        else:
            entry["leaked_key"] = _carries_key(request)
            reply, fault = await self._media_file(request, entry)
        if self._log is not None:
            entry["status"] = None if reply is None else reply.status
            self._log.append(entry)
        return await send(request, reply, fault, sleep=self._sleep)

    async def _api(self, request: web.BaseRequest, entry: dict[str, Any]) -> tuple[Reply | None, Fault | None]:
        """Every address below /v1 counts against the limit, whatever comes of it (API.md 5)."""
        hit = self._limiter.hit(request.remote or "", self._monotonic())
        headers = _JSON
        if self._options.headers:
            headers = _JSON | rate_limit_headers(hit, wall_clock=entry["at"])
        call = route(request.method, request.path)
        start: Start | None = None
        if call is not None:
            entry["app_id"], entry["execution_id"] = call.app_id, call.execution_id
            if call.endpoint is Endpoint.START:
                try:
                    body = await request.read()
                except web.HTTPRequestEntityTooLarge:
                    return _reply(error(413, "Request body is too large"), headers), None
                except web.RequestPayloadError:
                    return _reply(error(400, "Request body cannot be read"), headers), None
                except ConnectionError:
                    return None, None  # the client left before it had said all
                start = read_start(body, request.headers, request.query.get("webhook"))
                entry["inputs"], entry["webhook"] = start.inputs, start.webhook
                entry["idempotency_key"] = start.idempotency_key

        if not hit.allowed:
            return self._limited(hit, headers), None
        refused = refusal(request.headers)
        if refused is not None:
            return _reply(refused, headers), None
        if call is None:
            return _reply(error(404, "Not found"), headers), None
        return self._called(request, call, start, entry, headers=headers, hit=hit)

    def _called(
        self,
        request: web.BaseRequest,
        call: Call,
        start: Start | None,
        entry: dict[str, Any],
        *,
        headers: Mapping[str, str],
        hit: Hit,
    ) -> tuple[Reply | None, Fault | None]:
        """The answer of the service, and what a fault makes of it."""
        read = self._executions.get(call.execution_id) if call.execution_id is not None else None
        if read is not None:
            entry["app_id"] = read.app_id
        inputs = start.inputs if start is not None else read.inputs if read is not None else None
        fault, execution_fault = self._faults.choose(call.endpoint.kind, _texts(inputs))
        if fault is not None and fault.stage is Stage.REFUSE:
            entry["fault"] = fault.name
            return instead_of_answer(fault, headers=headers, limited=self._limited(hit, headers)), fault

        accepted: Execution | None = None
        if start is None:
            answer = self._service.get(call, request.query)
        else:
            answer = self._service.start(call, start, execution_fault)
            accepted = answer.accepted
        if accepted is not None:
            entry["execution_id"] = accepted.execution_id
            entry["fault"] = execution_fault.name if execution_fault is not None else None
            self._deliveries.schedule(accepted)
        if fault is None or (fault.stage is Stage.ACCEPTED and accepted is None):
            return _reply(answer, headers), None
        entry["fault"] = fault.name
        if fault.stage is Stage.ACCEPTED:
            return instead_of_answer(fault, headers=headers, limited=self._limited(hit, headers)), fault
        return _reply(answer, headers), fault

    async def _media_file(self, request: web.BaseRequest, entry: dict[str, Any]) -> tuple[Reply | None, Fault | None]:
        """An output's file. It needs no key and counts against no limit; whatever else is asked for is not there."""
        match request.method, request.path.split("/")[1:]:
            case "GET" | "HEAD", ["media", execution_id, file_name]:
                pass
            case _:
                return _reply(error(404, "Not found"), _JSON), None
        entry["execution_id"] = execution_id
        execution = self._executions.get(execution_id)
        if execution is not None:
            entry["app_id"] = execution.app_id
        fault, _ = self._faults.choose("media", _texts(execution.inputs if execution is not None else None))
        entry["fault"] = fault.name if fault is not None else None
        if fault is not None and fault.stage is Stage.REFUSE:
            limited = Reply(status=429, body=_TOO_MANY, headers={"Content-Type": "text/html; charset=utf-8"})
            return instead_of_answer(fault, headers=_JSON, limited=limited), fault
        answer = await self._media.answer(
            MediaRequest(
                execution_id=execution_id,
                file_name=file_name,
                expires=request.query.get("expires", ""),
                signature=request.query.get("sig", ""),
                range=request.headers.get("Range"),
                if_range=request.headers.get("If-Range"),
                if_none_match=request.headers.get("If-None-Match"),
            ),
            entry["at"],
        )
        return Reply(status=answer.status, body=answer.body, headers=answer.headers), fault

    def _limited(self, hit: Hit, headers: Mapping[str, str]) -> Reply:
        """The 429: bare text, as HTML (API.md 5)."""
        headers = {**headers, "Content-Type": "text/html; charset=utf-8"}
        if self._options.headers:
            if "RateLimit-Remaining" in headers:
                headers["RateLimit-Remaining"] = headers["X-RateLimit-Remaining"] = "0"
            headers["Retry-After"] = retry_after(hit, fractional=self._options.fractional_retry_after)
        return Reply(status=429, body=_TOO_MANY, headers=headers)


def _reply(answer: Answer, headers: Mapping[str, str]) -> Reply:
    return Reply(status=answer.status, body=answer.body, headers=headers)


def _log_entry(request: web.BaseRequest, now: float) -> dict[str, Any]:
    """A line of requests.jsonl: docs/sandbox.md describes its fields."""
    return {
        "at": round(now, 6),
        "ip": request.remote,
        "method": request.method,
        "path": request.path,
        "status": None,
        "fault": None,
        "app_id": None,
        "execution_id": None,
        "inputs": None,
        "webhook": None,
        "idempotency_key": None,
        "user_agent": request.headers.get("User-Agent"),
        "leaked_key": False,
    }


def _carries_key(request: web.BaseRequest) -> bool:
    """Whether something that looks like an API key came along where none belongs."""
    return "lma_" in request.path_qs or any("lma_" in value for value in request.headers.values())


def _texts(inputs: Mapping[str, Any] | None) -> Iterator[str]:
    for value in (inputs or {}).values():
        yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))
