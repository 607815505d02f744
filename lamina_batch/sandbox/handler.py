"""One request: limiter, key, fault, answer, and a line in the log, in this order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from lamina_batch.sandbox.api_versions import default_api_version
from lamina_batch.sandbox.envelope import HTML_TYPE, Envelope, no_such_path
from lamina_batch.sandbox.fault_responses import client_disconnected, fault_reply, is_sent_whole, send
from lamina_batch.sandbox.faults import FaultStage
from lamina_batch.sandbox.limiter import rate_limit_headers
from lamina_batch.sandbox.media import MediaRequest
from lamina_batch.sandbox.requests import Endpoint, RoutedRequest, authentication_error, bad_request, read_start, route
from lamina_batch.sandbox.responses import ApiSuccess, HttpReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from lamina_batch.sandbox.executions import ExecutionStore, SandboxExecution
    from lamina_batch.sandbox.faults import FaultPlan, SandboxFault
    from lamina_batch.sandbox.journal import Journal
    from lamina_batch.sandbox.limiter import FixedWindowLimiter
    from lamina_batch.sandbox.media import MediaStore
    from lamina_batch.sandbox.options import SandboxOptions
    from lamina_batch.sandbox.requests import StartRequest
    from lamina_batch.sandbox.responses import ApiError
    from lamina_batch.sandbox.service import SandboxService
    from lamina_batch.sandbox.webhooks import WebhookDeliveries


class Handler:
    """What the server calls for each request."""

    def __init__(  # noqa: PLR0913  # each is a part of the service
        self,
        *,
        options: SandboxOptions,
        limiter: FixedWindowLimiter,
        faults: FaultPlan,
        service: SandboxService,
        media: MediaStore,
        executions: ExecutionStore,
        deliveries: WebhookDeliveries,
        rotate_key: Callable[[], None],
        request_id: Callable[[], str],
        log: Journal | None,
        late_log: Journal | None,
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
        self._rotate_key = rotate_key
        self._request_id = request_id
        self._log = log
        self._late_log = late_log
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        entry = _log_entry(request, self._clock(), self._request_id())
        try:
            if request.path.startswith("/v1/"):
                reply, fault = await self._api(request, entry)
            else:
                entry["leaked_key"] = _contains_api_key(request)
                reply, fault = await self._media_file(request, entry)
        except asyncio.CancelledError:
            self._write(entry)  # the sandbox is stopped: nobody is answered
            raise
        is_late = reply is not None and fault is not None and fault.name == "slow"
        entry["status"] = None if reply is None else reply.status
        # Whether a late answer finds its client cannot be known yet, and the line must not wait for it.
        entry["answered"] = None if is_late else is_sent_whole(reply, fault) and not client_disconnected(request)
        self._write(entry)
        if is_late and fault is not None:
            await self._delay(request, entry, fault.seconds)
        return await send(request, reply, fault, sleep=self._sleep)

    async def _delay(self, request: web.BaseRequest, entry: Mapping[str, Any], seconds: float) -> None:
        """Let a late answer wait, and note whether anybody was still there to take it."""
        answered = False
        try:
            await self._sleep(seconds)
            answered = not client_disconnected(request)
        finally:
            if self._late_log is not None:
                told = {name: entry[name] for name in ("request_id", "kind", "execution_id")}
                self._late_log.append({"at": round(self._clock(), 6), **told, "answered": answered})

    async def _api(
        self, request: web.BaseRequest, entry: dict[str, Any]
    ) -> tuple[HttpReply | None, SandboxFault | None]:
        """Every address below /v1 counts against the limit, whatever comes of it (docs/lamina-api.md, "Limiter")."""
        hit = self._limiter.hit(request.remote or "", self._monotonic())
        call = route(request.method, request.path, self._options.generations)
        generation = call.generation if call is not None else None
        envelope = Envelope(
            generation=generation or default_api_version(self._options.generations),
            request_id=entry["request_id"],
            limit_headers=rate_limit_headers(hit, wall_clock=entry["at"]) if self._options.headers else {},
            hit=hit,
            fractional=self._options.fractional_retry_after,
        )
        start: StartRequest | None = None
        if call is not None:
            entry["kind"], entry["generation"] = call.endpoint.value, generation
            entry["app_id"], entry["execution_id"] = call.app_id, call.execution_id
            if call.endpoint is Endpoint.START:
                try:
                    body = await request.read()
                except web.HTTPRequestEntityTooLarge:
                    return envelope.written(bad_request("Request body is too large", status=413)), None
                except web.RequestPayloadError:
                    return envelope.written(bad_request("Request body cannot be read")), None
                except ConnectionError:
                    return None, None  # the client left before it had said all
                start = read_start(body, request.headers, request.query.get("webhook"), envelope.generation)
                entry["inputs"], entry["webhook"] = start.inputs, start.webhook
                entry["idempotency_key"] = start.idempotency_key

        if not hit.allowed:
            return envelope.limited(), None
        refused = authentication_error(request.headers)
        if refused is not None:
            return envelope.written(refused), None
        if call is None:
            return envelope.no_such_path(request.method, request.path), None
        return await self._called(request, call, start, entry, envelope)

    async def _called(
        self,
        request: web.BaseRequest,
        call: RoutedRequest,
        start: StartRequest | None,
        entry: dict[str, Any],
        envelope: Envelope,
    ) -> tuple[HttpReply | None, SandboxFault | None]:
        """The answer of the service, and what a fault makes of it."""
        named = self._service.find(call)
        if named is not None:
            entry["app_id"] = named.app_id
        inputs = start.inputs if start is not None else named.inputs if named is not None else None
        chosen = self._faults.choose(call.endpoint.kind, _input_texts(inputs))
        fault = chosen.answer
        if fault is not None and fault.stage is FaultStage.REFUSE:
            entry["fault"] = fault.name
            return fault_reply(fault, envelope), fault

        accepted: SandboxExecution | None = None
        answer: ApiSuccess | ApiError
        if start is not None:
            answer = self._service.start(call, start, ending=chosen.execution, delivery=chosen.delivery)
            accepted = answer.accepted if isinstance(answer, ApiSuccess) else None
        elif call.endpoint is Endpoint.WAIT:
            answer = await self._service.wait(call, request.query)
        elif call.endpoint is Endpoint.CANCEL:
            answer, cancelled = self._service.cancel(call)
            if cancelled is not None:
                self._deliveries.schedule(cancelled)
        else:
            answer = self._service.get(call, request.query)
        if accepted is not None:
            entry["execution_id"] = entry["accepted"] = accepted.execution_id
            firing = chosen.execution or chosen.delivery or chosen.key
            entry["fault"] = firing.name if firing is not None else None
            if chosen.key is not None:
                self._rotate_key()
            self._deliveries.schedule(accepted)
            if accepted.delivery_fault == "webhook_early":
                await self._deliveries.first_try(accepted)
        if fault is None or (fault.stage is FaultStage.ACCEPTED and accepted is None):
            return envelope.written(answer), None
        entry["fault"] = fault.name
        if fault.stage is FaultStage.ACCEPTED:
            return fault_reply(fault, envelope), fault
        return envelope.written(answer), fault

    async def _media_file(
        self, request: web.BaseRequest, entry: dict[str, Any]
    ) -> tuple[HttpReply | None, SandboxFault | None]:
        """An output's file. It needs no key and counts against no limit; whatever else is asked for is not there."""
        match request.method, request.path.split("/")[1:]:
            case "GET" | "HEAD", ["media", execution_id, file_name]:
                pass
            case _:
                return no_such_path(request.method, request.path, {"Content-Type": HTML_TYPE}), None
        entry["kind"], entry["execution_id"] = "media", execution_id
        execution = self._executions.get(execution_id)
        if execution is not None:
            entry["app_id"] = execution.app_id
        fault = self._faults.choose("media", _input_texts(execution.inputs if execution is not None else None)).answer
        entry["fault"] = fault.name if fault is not None else None
        if fault is not None and fault.stage is FaultStage.REFUSE:
            # A storage service, not the API: it has neither generations nor limits.
            envelope = Envelope(
                generation="executions", request_id=entry["request_id"], limit_headers={}, hit=None, fractional=False
            )
            return fault_reply(fault, envelope), fault
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
        return HttpReply(status=answer.status, body=answer.body, headers=answer.headers), fault

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._log is not None:
            self._log.append(entry)


def _log_entry(request: web.BaseRequest, now: float, request_id: str) -> dict[str, Any]:
    """A line of requests.jsonl: docs/sandbox.md describes its fields."""
    return {
        "at": round(now, 6),
        "request_id": request_id,
        "ip": request.remote,
        "method": request.method,
        "path": request.path,
        "kind": None,
        "generation": None,
        "status": None,
        "fault": None,
        "app_id": None,
        "execution_id": None,
        "accepted": None,
        "answered": False,
        "inputs": None,
        "webhook": None,
        "idempotency_key": None,
        "user_agent": request.headers.get("User-Agent"),
        "leaked_key": False,
    }


def _contains_api_key(request: web.BaseRequest) -> bool:
    """Whether something that looks like an API key came along where none belongs."""
    return "lma_" in request.path_qs or any("lma_" in value for value in request.headers.values())


def _input_texts(inputs: Mapping[str, Any] | None) -> Iterator[str]:
    for value in (inputs or {}).values():
        yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str))
