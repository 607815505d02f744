"""The Lamina HTTP API and nothing else: requests out, typed results and typed errors back (API.md sections 1 to 5).

It parses tolerantly, sends strictly, follows no redirect, and counts every request against one budget. A POST ends
in a value that says how far it came (StartEnd), because what that proves is not for this room to decide.

What differs between the generations of the API stands in `Generation`, and nowhere else (API.md section 11).
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote

import aiohttp

import lamina_batch
from lamina_batch.apps.app import App, parse_app
from lamina_batch.client.budget import Quota, parse_quota
from lamina_batch.client.retry import backoff, retryable
from lamina_batch.errors import CredentialsError, ServiceError

if TYPE_CHECKING:
    from random import Random
    from types import TracebackType

    from lamina_batch.client.budget import Budget

Kind = Literal["submit", "poll", "other"]

#: No answer of the API is near this; a body that does not end must not fill the memory.
_MOST_BYTES = 8 * 1024 * 1024
#: A server may close a connection that idles just as a POST goes out on it, and the POST's fate is then unknown.
_IDLE_SECONDS = 2.0
#: Reads before the first submission are repeated for so long at most (DESIGN.md section 7).
_STARTUP_SECONDS = 20.0
#: A window that is used up by others is waited out, but not for ever.
_MOST_LIMITED = 5


class Phase(IntEnum):
    """How far a request came. From REQUEST_BEGUN on, the service may have seen it."""

    NOTHING = 0
    CONNECTED = 1
    REQUEST_BEGUN = 2
    REQUEST_SENT = 3
    ANSWER_BEGUN = 4
    ANSWERED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation of the API: its paths, its id field, the statuses that end an execution."""

    name: str
    start_path: str
    read_path: str
    id_field: str
    ended: frozenset[str]


#: API.md section 2. `cancelled` belongs to the next generation, but is an end wherever it is seen (section 4).
EXECUTIONS = Generation(
    name="executions",
    start_path="/v1/apps/{app_id}/executions",
    read_path="/v1/executions/{execution_id}",
    id_field="executionId",
    ended=frozenset({"completed", "failed", "cancelled"}),
)
GENERATIONS: Mapping[str, Generation] = {EXECUTIONS.name: EXECUTIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of an execution. Labels are not unique; ids are (API.md section 4)."""

    id: str
    label: str
    #: image, video, text, and whatever comes; `pending` also for one that failed
    type: str
    status: str
    #: a URL, or the text itself
    value: str | None
    error: str | None

    @property
    def usable(self) -> bool:
        return self.status == "completed" and bool(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    execution_id: str
    #: lower case, as the service says it; an unknown one is not an end
    status: str
    ended: bool
    outputs: tuple[Output, ...] = ()
    error_message: str | None = None
    #: epoch seconds by the service's clock
    created_at: float | None = None
    #: epoch seconds by the service's clock
    completed_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEnd:
    """How a POST that starts an execution ended."""

    phase: Phase
    #: None: no status line was read
    status: int | None = None
    execution_id: str | None = None
    #: the service's words, or what went wrong on the way
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEnd:
    """How a poll ended: with an execution, or with a status and words."""

    execution: Execution | None = None
    status: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSummary:
    app_id: str
    name: str
    description: str | None
    public: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: str
    type: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    app_id: str
    name: str
    nodes: tuple[Node, ...]
    #: (source, target) node ids
    edges: tuple[tuple[str, str], ...]

    @property
    def makes_video(self) -> bool:
        """Whether a node's type speaks of video: a hint for how long to wait (API.md 2.3)."""
        return any("video" in node.type.casefold() for node in self.nodes)


@dataclass(slots=True)
class _Answer:
    """A response: its status line always, its body as far as it came."""

    status: int
    phase: Phase
    body: bytes
    broken: str | None = None


class _UnansweredError(Exception):
    """No status line came back."""

    def __init__(self, phase: Phase, message: str) -> None:
        super().__init__(message)
        self.phase = phase


@dataclass(slots=True)
class LaminaClient:
    """An open session with one service. Use as `async with`."""

    base_url: str
    api_key: str = field(repr=False)
    budget: Budget
    now: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Random
    #: tells a person why they wait
    notice: Callable[[str], None]
    #: seconds
    request_timeout: float = 30.0
    bearer: bool = False
    generation: Generation = EXECUTIONS
    #: requests that left, by kind, and `rate_limited` for those answered 429
    requests: Counter[str] = field(default_factory=Counter)
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_reached(Phase.CONNECTED))
        trace.on_connection_reuseconn.append(_reached(Phase.CONNECTED))
        trace.on_request_headers_sent.append(_reached(Phase.REQUEST_BEGUN))
        trace.on_request_chunk_sent.append(_reached(Phase.REQUEST_SENT))
        trace.on_request_end.append(_reached(Phase.ANSWER_BEGUN))
        key = {"Authorization": f"Bearer {self.api_key}"} if self.bearer else {"x-api-key": self.api_key}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": f"lamina-batch/{lamina_batch.__version__}",
                "Accept": "application/json",
                **key,
            },
            timeout=aiohttp.ClientTimeout(total=self.request_timeout),
            trace_configs=[trace],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    # -- the six endpoints (API.md section 2) --------------------------------------------------------------

    async def list_apps(self, *, search: str | None = None, limit: int = 100) -> tuple[AppSummary, ...]:
        """The apps that the key may see (API.md 2.1). There is no paging. Raises ServiceError."""
        params = {"limit": str(limit)} | ({"search": search} if search else {})
        data = await self._read("/v1/apps", params=params)
        if not isinstance(data, list):
            raise ServiceError("the service listed its apps in a form this version does not know")
        return tuple(
            AppSummary(
                app_id=str(item.get("appId", "")),
                name=str(item.get("name") or ""),
                description=_text(item.get("description")),
                public=item.get("isPublic") if isinstance(item.get("isPublic"), bool) else None,
            )
            for item in data
            if isinstance(item, Mapping)
        )

    async def get_app(self, app_id: str) -> App:
        """The app's contract (API.md 2.2). Raises ServiceError, CredentialsError."""
        app = parse_app(await self._read(f"/v1/apps/{quote(app_id, safe='')}"))
        return app if app.app_id else replace(app, app_id=app_id)

    async def get_workflow(self, app_id: str) -> Workflow:
        """The app's nodes and edges (API.md 2.3). Raises ServiceError, CredentialsError."""
        data = await self._read(f"/v1/apps/{quote(app_id, safe='')}/workflow")
        if not isinstance(data, Mapping):
            raise ServiceError("the service described the workflow in a form this version does not know")
        return Workflow(
            app_id=str(data.get("appId") or app_id),
            name=str(data.get("name") or ""),
            nodes=tuple(
                Node(id=str(n.get("id", "")), type=str(n.get("type", "")), label=str(n.get("label") or ""))
                for n in _objects(data.get("nodes"))
            ),
            edges=tuple((str(e.get("source", "")), str(e.get("target", ""))) for e in _objects(data.get("edges"))),
        )

    async def get_signing_keys(self) -> tuple[Mapping[str, object], ...]:
        """The JSON Web Keys that sign webhooks: bare `keys`, no envelope (API.md 2.6)."""
        body = await self._read("/v1/webhooks/signing-key", enveloped=False)
        return tuple(_objects(body.get("keys"))) if isinstance(body, Mapping) else ()

    async def start(self, app_id: str, inputs: str, *, submission: str) -> StartEnd:
        """Start one execution (API.md 2.4). Sent once, never repeated; how it ended is the result.

        `inputs` is the JSON text of the inputs object. `submission` goes out as Idempotency-Key: nothing relies on
        it (API.md section 8).
        """
        path = self.generation.start_path.format(app_id=quote(app_id, safe=""))
        body = b'{"inputs":' + inputs.encode() + b"}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": submission}
        try:
            answer = await self._request("POST", path, kind="submit", body=body, headers=headers)
        except _UnansweredError as end:
            return StartEnd(phase=end.phase, message=str(end))
        data = _json(answer.body)
        if 200 <= answer.status < 300:
            accepted = _enveloped(data)
            found = _identity(accepted.get(self.generation.id_field)) if isinstance(accepted, Mapping) else None
            if found is not None:
                return StartEnd(phase=answer.phase, status=answer.status, execution_id=found)
            why = answer.broken or "its answer holds no execution id"
            return StartEnd(phase=answer.phase, status=answer.status, message=f"HTTP {answer.status}, {why}")
        return StartEnd(phase=answer.phase, status=answer.status, message=self._words(answer, data))

    async def get_execution(self, execution_id: str) -> ReadEnd:
        """Ask once how an execution stands (API.md 2.5). Never raises for what the service or the network does."""
        path = self.generation.read_path.format(execution_id=quote(execution_id, safe=""))
        try:
            answer = await self._request("GET", path, kind="poll")
        except _UnansweredError as end:
            return ReadEnd(message=str(end))
        data = _json(answer.body)
        if answer.status == 200:
            execution = parse_execution(_enveloped(data), self.generation, execution_id)
            if execution is not None:
                return ReadEnd(execution=execution, status=200)
            return ReadEnd(message=answer.broken or "HTTP 200, but its answer holds no execution")
        return ReadEnd(status=answer.status, message=self._words(answer, data))

    # -- how they are made ---------------------------------------------------------------------------------

    async def _read(self, path: str, *, params: Mapping[str, str] | None = None, enveloped: bool = True) -> object:
        """A read before the work starts: repeated with backoff for 20 s at most, waiting for budget if need be.

        Raises CredentialsError for 401, ServiceError for everything else that does not end in a 200.
        """
        began = self.now()
        attempt = limited = 0
        while True:
            await self._wait_for_budget()
            status: int | None = None
            try:
                answer = await self._request("GET", path, kind="other", params=params)
            except _UnansweredError as end:
                words = str(end)
            else:
                status = answer.status
                data = _json(answer.body)
                if status == 200 and data is not None:
                    return _enveloped(data) if enveloped else data
                words = self._words(answer, data)
                if not retryable(None if status == 200 else status):
                    raise self._final(path, status, words)
            if status == 429:
                limited += 1
                pause = 0.0
            else:
                attempt += 1
                pause = backoff(attempt, self.random)
            late = self.now() - began + pause > _STARTUP_SECONDS and status != 429
            if late or limited > _MOST_LIMITED:
                raise ServiceError(
                    f"no usable answer in {self.now() - began:.0f} s: {words}",
                    where=f"GET {self.base_url}{path}",
                    hint="check the network and the base URL, then try again: nothing was submitted by this",
                )
            if attempt + limited == 1:
                self.notice(f"{self.base_url}: {words}; trying again for a while")
            await self.sleep(pause)

    async def _wait_for_budget(self) -> None:
        while self.budget.available(self.now()) < 1:
            change = self.budget.next_change(self.now())
            await self.sleep(0.05 if change is None else max(0.01, change - self.now()))

    def _final(self, path: str, status: int, words: str) -> ServiceError:
        where = f"GET {self.base_url}{path}"
        if status == 401:
            return CredentialsError(
                f"the service refuses the API key: {words}",
                where=where,
                hint="check LAMINA_API_KEY (or run `lamina login`)",
            )
        if 300 <= status < 400:
            return ServiceError(
                f"the service redirects (HTTP {status}), which is never followed with the key",
                where=where,
                hint="check --base-url and LAMINA_BASE_URL",
            )
        hint = None
        if status in {403, 404}:
            hint = (
                "check the app id; a private app is seen only with a key of its own workspace "
                "(`lamina-batch apps list` shows what this key sees)"
            )
        return ServiceError(f"HTTP {status}: {words}", where=where, hint=hint)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        kind: Kind,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> _Answer:
        """One request on the wire. Raises _UnansweredError where no status line came back."""
        if self._session is None:
            msg = "LaminaClient is used outside `async with`"
            raise RuntimeError(msg)
        journey = SimpleNamespace(phase=Phase.NOTHING)
        self.requests[kind] += 1
        ticket = self.budget.spend(self.now())
        quota: Quota | None = None
        try:
            async with self._session.request(
                method,
                f"{self.base_url}{path}",
                data=body,
                headers=headers,
                params=params,
                allow_redirects=False,
                trace_request_ctx=journey,
            ) as response:
                quota = parse_quota(response.headers, response.status)
                self.budget.settle(ticket, self.now(), quota)
                if quota.limited:
                    self.requests["rate_limited"] += 1
                answer = await _answer(response)
                # Whatever the service echoes, the key goes no further than this.
                answer.body = answer.body.replace(self.api_key.encode(), b"[key]")
                return answer
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if journey.phase < Phase.REQUEST_BEGUN:
                self.requests[kind] -= 1
                self.budget.withdraw(ticket)
            raise _UnansweredError(journey.phase, _what_happened(error, self.request_timeout)) from error
        finally:
            if quota is None:
                self.budget.settle(ticket, self.now(), None)

    def _words(self, answer: _Answer, data: object) -> str:
        """The service's own words for an error (API.md section 8)."""
        words = answer.broken or ""
        if isinstance(data, Mapping):
            words = str(data.get("error") or data.get("message") or words)
            details = data.get("details")
            if isinstance(details, list) and details:
                words = f"{words}: " + "; ".join(str(detail) for detail in details)
        elif answer.body.lstrip()[:1] == b"<":
            words = f"HTTP {answer.status} with a web page instead of JSON"
        elif answer.body:
            words = answer.body.decode("utf-8", "replace").strip()
        words = words or f"HTTP {answer.status} without a word"
        return words[:1000]


def parse_execution(data: object, generation: Generation, asked: str | None = None) -> Execution | None:
    """Build an Execution from what the service says, tolerantly; None where it holds no status (API.md 2.5, 4)."""
    if not isinstance(data, Mapping) or not isinstance(data.get("status"), str):
        return None
    execution_id = asked or _identity(data.get(generation.id_field))
    if execution_id is None:
        return None
    status = data["status"].strip().lower()
    return Execution(
        execution_id=execution_id,
        status=status,
        ended=status in generation.ended,
        outputs=tuple(_output(item, index) for index, item in enumerate(_objects(data.get("outputs")))),
        error_message=_text(data.get("errorMessage")) or None,
        created_at=_instant(data.get("createdAt")),
        completed_at=_instant(data.get("completedAt")),
    )


def _output(item: Mapping[str, object], index: int) -> Output:
    value = item.get("value")
    if value is not None and not isinstance(value, str):
        # The official SDK types it `unknown` (API.md section 4): keep what came rather than lose it.
        value = json.dumps(value, ensure_ascii=False)
    identity = str(item.get("id") or f"output-{index + 1}")
    return Output(
        id=identity,
        label=str(item.get("label") or identity),
        type=str(item.get("type") or "pending"),
        status=str(item.get("status") or "pending").lower(),
        value=value or None,
        error=_text(item.get("error")) or None,
    )


def _reached(
    phase: Phase,
) -> Callable[[aiohttp.ClientSession, SimpleNamespace, object], Awaitable[None]]:
    async def mark(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.phase = phase

    return mark


async def _answer(response: aiohttp.ClientResponse) -> _Answer:
    """Read the body within bounds; a body that breaks off still leaves the status line, which may prove enough."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > _MOST_BYTES:
                return _Answer(response.status, Phase.ANSWER_BEGUN, b"", "its answer does not end")
            chunks.append(chunk)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        broken = f"its answer broke off ({error.__class__.__name__})"
        return _Answer(response.status, Phase.ANSWER_BEGUN, b"".join(chunks), broken)
    return _Answer(response.status, Phase.ANSWERED, b"".join(chunks))


def _what_happened(error: Exception, request_timeout: float) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {request_timeout:g} s"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
    return f"{error.__class__.__name__}: {error}".rstrip(": ")


def _json(body: bytes) -> object:
    try:
        data: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return data


def _enveloped(data: object) -> object:
    return data["data"] if isinstance(data, Mapping) and "data" in data else data


def _objects(value: object) -> tuple[Mapping[str, object], ...]:
    return tuple(v for v in value if isinstance(v, Mapping)) if isinstance(value, list) else ()


def _identity(value: object) -> str | None:
    """An id that can be asked about; documented as a string, and nothing else is read as one but a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.strip() else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _instant(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        instant = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant.timestamp() if instant.tzinfo is not None else None
