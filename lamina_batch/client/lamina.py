"""The Lamina HTTP API and nothing else: requests out, typed results and typed errors back (docs/lamina-api.md).

It sends strictly, follows no redirect, and counts every request against one budget. A POST ends in a value that says
how far it came (StartEnd), because what that proves is not for this room to decide. Whatever the service sends is
bounded in bytes and time, and read by answers.py. What differs between the generations of the API is in generations.py.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from lamina_batch._version import __version__
from lamina_batch.apps.app import App, parse_app
from lamina_batch.client.answers import (
    Execution,
    ListedExecution,
    Output,
    decode_body,
    only_objects,
    optional_text,
    parse_delivery,
    parse_execution,
    parse_page,
    read_execution_id,
    read_json,
    unwrap_data,
)
from lamina_batch.client.budget import Quota, parse_quota, retry_after_of_body
from lamina_batch.client.generations import API_VERSIONS, EXECUTIONS, LIST_PATH, RUNS, ApiVersion, parse_api_error
from lamina_batch.client.retry import backoff, retryable
from lamina_batch.errors import CredentialsError, ServiceError, UnknownAppError

if TYPE_CHECKING:
    from types import TracebackType

    from lamina_batch.client.budget import Budget
    from lamina_batch.runtime import Runtime

__all__ = [
    "API_VERSIONS",
    "EXECUTIONS",
    "RUNS",
    "ApiVersion",
    "AppSummary",
    "Execution",
    "Kind",
    "LaminaClient",
    "ListResult",
    "ListedExecution",
    "Output",
    "Phase",
    "ReadResult",
    "ServiceProbe",
    "StartResult",
    "Workflow",
    "WorkflowNode",
    "parse_delivery",
    "parse_execution",
]

Kind = Literal["submit", "poll", "other"]

#: No answer of the API is near this; a body that does not end must not fill the memory.
_MAX_BODY_BYTES = 8 * 1024 * 1024
#: A server may close a connection that idles just as a POST goes out on it, and the POST's fate is then unknown.
_IDLE_SECONDS = 2.0
#: Reads before the first submission are repeated for so long at most (docs/budget.md, "Rules").
_STARTUP_SECONDS = 20.0
#: The way out where a probe cannot tell.
_NAME_API_VERSION_HINT = "say it in the pipeline file: `generation: runs` or `generation: executions` under `api`"
#: A window that is used up by others is waited out, but not for ever.
_MAX_RATE_LIMITED = 5


class Phase(IntEnum):
    """How far a request came. From REQUEST_BEGUN on, the service may have seen it."""

    NOTHING = 0
    CONNECTED = 1
    REQUEST_BEGUN = 2
    REQUEST_SENT = 3
    ANSWER_BEGUN = 4
    ANSWERED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class StartResult:
    """How a POST that starts an execution ended."""

    phase: Phase
    #: None: no status line was read
    status: int | None = None
    execution_id: str | None = None
    #: the service's words, or what went wrong on the way
    message: str = ""
    #: the service's own code for an error, such as VALIDATION_ERROR; the executions generation has none
    code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """How a poll ended: with an execution, or with a status and words."""

    execution: Execution | None = None
    status: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListResult:
    """How a look at the list of executions ended."""

    #: 200: the list was read. None: nothing readable came back
    status: int | None = None
    #: newest first; empty unless the status is 200
    items: tuple[ListedExecution, ...] = ()
    #: how many entries came, those without an id included: the next page begins at `offset + received`
    received: int = 0
    #: how many there are on all pages; None: not said
    total: int | None = None
    #: the service's words, or what went wrong on the way
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProbe:
    """How the service answered a first small read, and what came with the answer."""

    #: None: no status line was read
    status: int | None
    #: 200, and the answer is one of the API's
    usable: bool
    #: the service's words for an error, or what went wrong on the way; empty if it is usable
    message: str = ""
    #: what the headers say about the limit
    quota: Quota = field(default_factory=Quota)
    #: the Date header unchanged; empty: there is none
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSummary:
    """An app in the list of apps."""

    app_id: str
    name: str
    description: str | None
    public: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowNode:
    """One step of an app's workflow."""

    id: str
    type: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """How an app works inside; a hint, and no more."""

    app_id: str
    name: str
    nodes: tuple[WorkflowNode, ...]
    #: (source, target) node ids
    edges: tuple[tuple[str, str], ...]

    @property
    def makes_video(self) -> bool:
        """Whether a node's type speaks of video: a hint for how long to wait (docs/lamina-api.md, "Get workflow")."""
        return any("video" in node.type.casefold() for node in self.nodes)


@dataclass(slots=True)
class _HttpAnswer:
    """A response: its status line always, its body as far as it came."""

    status: int
    phase: Phase
    body: bytes
    broken: str | None = None
    #: its JSON; None: it is none
    data: object = None
    #: what its headers say
    quota: Quota = field(default_factory=Quota)
    date: str = ""

    @property
    def is_page(self) -> bool:
        """Whether this is of a web site or a proxy, not of the API."""
        return self.data is None and self.body.lstrip()[:1] == b"<"


class _NoAnswerError(Exception):
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
    runtime: Runtime
    #: seconds
    request_timeout: float = 30.0
    bearer: bool = False
    generation: ApiVersion = EXECUTIONS
    #: requests that left, by kind, and `rate_limited` for those answered 429
    requests: Counter[str] = field(default_factory=Counter)
    _session: aiohttp.ClientSession | None = None
    _post_session: aiohttp.ClientSession | None = None
    #: the base URL without a trailing slash
    _origin: str = ""
    #: the key, as it may be echoed
    _secrets: tuple[str, ...] = field(default=(), repr=False)

    async def __aenter__(self) -> Self:
        try:
            self._origin = str(URL(self.base_url)).rstrip("/")
        except ValueError as error:
            raise ServiceError(f"not a usable base URL: {error}", where=self.base_url) from error
        self._secrets = tuple({self.api_key, quote(self.api_key, safe="")} - {""})
        self._session = self._open_session(aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS))
        # On a connection that was used before, an answer out of step could be taken for that of a POST.
        self._post_session = self._open_session(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    def _open_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_phase_tracer(Phase.CONNECTED))
        trace.on_connection_reuseconn.append(_phase_tracer(Phase.CONNECTED))
        trace.on_request_headers_sent.append(_phase_tracer(Phase.REQUEST_BEGUN))
        trace.on_request_chunk_sent.append(_phase_tracer(Phase.REQUEST_SENT))
        trace.on_request_end.append(_phase_tracer(Phase.ANSWER_BEGUN))
        key = {"Authorization": f"Bearer {self.api_key}"} if self.bearer else {"x-api-key": self.api_key}
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": f"lamina-batch/{__version__}",
                "Accept": "application/json",
                # Answers are small, and what need not be unpacked cannot burst.
                "Accept-Encoding": "identity",
                **key,
            },
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=self.request_timeout),
            trace_configs=[trace],
        )
        # aiohttp would send a GET twice where a connection closes, past the budget, and offers no public way to stop it
        # (aio-libs/aiohttp#10790).
        session._retry_connection = False  # noqa: SLF001
        return session

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in filter(None, (self._session, self._post_session)):
            await session.close()

    async def greet(self) -> ServiceProbe:
        """Ask once for one app, whatever comes of it: is the service there, and does it take the key? Never raises."""
        try:
            answer = await self._request("GET", "/v1/apps", kind="other", params={"limit": "1"})
        except _NoAnswerError as end:
            return ServiceProbe(status=None, usable=False, message=str(end))
        usable = answer.status == 200 and isinstance(unwrap_data(answer.data), list)
        return ServiceProbe(
            status=answer.status,
            usable=usable,
            message="" if usable else self._words(answer),
            quota=answer.quota,
            date=answer.date,
        )

    # -- the endpoints (docs/lamina-api.md, "Endpoints" and "List of runs") --------------------------------------------

    async def list_apps(self, *, search: str | None = None, limit: int = 100) -> tuple[AppSummary, ...]:
        """The apps that the key may see (docs/lamina-api.md, "List apps"). There is no paging. Raises ServiceError."""
        params = {"limit": str(limit)} | ({"search": search} if search else {})
        data = await self._read("/v1/apps", params=params)
        if not isinstance(data, list):
            raise ServiceError("the service listed its apps in a form this version does not know")
        return tuple(
            AppSummary(
                app_id=str(item.get("appId") or ""),
                name=str(item.get("name") or ""),
                description=optional_text(item.get("description")),
                public=item.get("isPublic") if isinstance(item.get("isPublic"), bool) else None,
            )
            for item in data
            if isinstance(item, Mapping)
        )

    async def get_app(self, app_id: str) -> App:
        """The app's contract (docs/lamina-api.md, "Get app"), under the id that was asked for.

        Raises CredentialsError, and ServiceError also for an answer about another app: rows would be bought from it.
        """
        app = parse_app(await self._read(f"/v1/apps/{quote(app_id, safe='')}"))
        if app.app_id and app.app_id.strip().casefold() != app_id.strip().casefold():
            raise ServiceError(
                f"the service was asked for app {app_id} and answered about app {app.app_id}",
                where=self.base_url,
                hint="nothing was submitted; check the address, and a proxy or cache before the service",
            )
        return replace(app, app_id=app_id)

    async def get_workflow(self, app_id: str) -> Workflow:
        """The app's nodes and edges (docs/lamina-api.md, "Get workflow"). Raises ServiceError, CredentialsError."""
        data = await self._read(f"/v1/apps/{quote(app_id, safe='')}/workflow")
        if not isinstance(data, Mapping):
            raise ServiceError("the service described the workflow in a form this version does not know")
        return Workflow(
            app_id=str(data.get("appId") or app_id),
            name=str(data.get("name") or ""),
            nodes=tuple(
                WorkflowNode(id=str(n.get("id", "")), type=str(n.get("type", "")), label=str(n.get("label") or ""))
                for n in only_objects(data.get("nodes"))
            ),
            edges=tuple((str(e.get("source", "")), str(e.get("target", ""))) for e in only_objects(data.get("edges"))),
        )

    async def get_signing_keys(self) -> tuple[Mapping[str, object], ...]:
        """The JSON Web Keys that sign webhooks: bare `keys`, no envelope (docs/lamina-api.md, "Signing key")."""
        body = await self._read("/v1/webhooks/signing-key", bare=True)
        return only_objects(body.get("keys")) if isinstance(body, Mapping) else ()

    async def start(self, app_id: str, inputs: str, *, submission: str, webhook: str | None = None) -> StartResult:
        """Start one execution (docs/lamina-api.md, "Start execution"). Sent once, never repeated; how it ended is the
        result.

        `inputs` is the JSON text of the inputs object. `submission` goes out as Idempotency-Key: nothing relies on
        it (docs/lamina-api.md, "Idempotency"). `webhook` is the URL to call when the execution ends.
        """
        path = self.generation.start_path.format(app_id=quote(app_id, safe=""))
        params = {} if webhook is None else {"webhook": webhook}
        body = b'{"inputs":' + inputs.encode() + b"}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": submission}
        try:
            answer = await self._request("POST", path, kind="submit", body=body, headers=headers, params=params)
        except _NoAnswerError as end:
            return StartResult(phase=end.phase, message=str(end))
        if 200 <= answer.status < 300:
            found = read_execution_id(unwrap_data(answer.data), self.generation)
            if found is not None:
                return StartResult(phase=answer.phase, status=answer.status, execution_id=found)
            why = answer.broken or "its answer holds no execution id"
            return StartResult(phase=answer.phase, status=answer.status, message=f"HTTP {answer.status}, {why}")
        return StartResult(
            phase=answer.phase,
            status=answer.status,
            message=self._words(answer),
            code=parse_api_error(answer.data).code,
        )

    async def get_execution(self, execution_id: str, *, generation: str | None = None) -> ReadResult:
        """Ask once how an execution stands (docs/lamina-api.md, "Get execution"). Never raises for what the service or
        the network does.

        `generation` names the one that made the execution; None: the client's own.
        """
        spoken = self.generation if generation is None else API_VERSIONS.get(generation)
        if spoken is None:
            return ReadResult(message=f"this version does not know the API generation {generation!r}")
        path = spoken.read_path.format(execution_id=quote(execution_id, safe=""))
        try:
            answer = await self._request("GET", path, kind="poll")
        except _NoAnswerError as end:
            return ReadResult(message=str(end))
        if answer.status == 200:
            execution = parse_execution(unwrap_data(answer.data), spoken, execution_id)
            if execution is not None:
                return ReadResult(execution=execution, status=200)
            return ReadResult(message=answer.broken or "HTTP 200, but its answer does not describe this execution")
        return ReadResult(status=answer.status, message=self._words(answer))

    async def list_runs(
        self,
        *,
        app_id: str | None = None,
        since: float | None = None,
        limit: int = 100,
        offset: int = 0,
        status: str | None = None,
    ) -> ListResult:
        """Ask once for one page of the executions that the key may see, newest first (docs/lamina-api.md,
        "List of runs").

        `since` is in epoch seconds, and goes out as the service writes instants; its own form is documented nowhere.
        `limit` is 100 at most. Only the runs generation has this. Never raises for what service or network do.
        """
        params = {"limit": str(limit), "offset": str(offset)}
        if app_id is not None:
            params["appId"] = app_id
        if since is not None:
            instant = datetime.fromtimestamp(since, UTC).isoformat(timespec="milliseconds")
            params["since"] = instant.replace("+00:00", "Z")
        if status is not None:
            params["status"] = status
        try:
            answer = await self._request("GET", LIST_PATH, kind="poll", params=params)
        except _NoAnswerError as end:
            return ListResult(message=str(end))
        if answer.status != 200:
            return ListResult(status=answer.status, message=self._words(answer))
        page = parse_page(answer.data, RUNS)
        if page is None:
            return ListResult(message=answer.broken or "HTTP 200, but its answer holds no list")
        return ListResult(status=200, items=page.items, received=page.received, total=page.total)

    async def probe_generation(self) -> ApiVersion:
        """Find out which generation the service speaks, by a read (docs/budget.md, "Rules"). Nothing is submitted.

        A list of runs means runs, 404 means executions. A web page in the place of the list means executions too,
        but only where the app list, which both generations have, is there: else this is not the API at all. Anything
        else (a redirect, 400, 403, JSON of another form) tells nothing, and guessing would blame the app for it later.

        Raises CredentialsError for 401, ServiceError where it cannot be told or no answer comes in 20 s.
        """
        path, params = LIST_PATH, {"limit": "1"}
        answer = await self._answer_to(
            path,
            params=params,
            usable=lambda a: a.status == 404 or (a.status == 200 and (a.data is not None or a.is_page)),
            hint=_NAME_API_VERSION_HINT,
        )
        if answer.status == 404:
            return EXECUTIONS
        if answer.is_page:
            await self.list_apps(limit=1)
            return EXECUTIONS
        if isinstance(unwrap_data(answer.data), list):
            return RUNS
        raise ServiceError(
            "it cannot be told which generation of the API this is: HTTP 200, but no list of runs",
            where=f"GET {self.base_url}{path}",
            hint=_NAME_API_VERSION_HINT,
        )

    # -- how they are made ---------------------------------------------------------------------------------

    async def _read(self, path: str, *, params: Mapping[str, str] | None = None, bare: bool = False) -> object:
        """The JSON of a read before the work starts, out of its envelope unless it is `bare`.

        Raises CredentialsError for 401, ServiceError for everything else that does not end in a 200.
        """
        answer = await self._answer_to(path, params=params, usable=lambda a: a.status == 200 and a.data is not None)
        return answer.data if bare else unwrap_data(answer.data)

    async def _answer_to(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None,
        usable: Callable[[_HttpAnswer], bool],
        hint: str | None = None,
    ) -> _HttpAnswer:
        """The first usable answer to a read: repeated with backoff for 20 s at most, waiting for budget if need be.

        Raises CredentialsError for 401, ServiceError for any other final answer, and where none is usable in time.
        """
        began = self.runtime.now()
        attempt = limited = 0
        while True:
            await self._wait_for_budget()
            status: int | None = None
            try:
                answer = await self._request("GET", path, kind="other", params=params)
            except _NoAnswerError as end:
                words = str(end)
            else:
                if usable(answer):
                    return answer
                status = answer.status
                words = self._words(answer)
                if not retryable(None if status == 200 else status):
                    raise self._final(path, status, words, hint)
            if status == 429:
                limited += 1
                pause = 0.0
            else:
                attempt += 1
                pause = backoff(attempt, self.runtime.random)
            late = self.runtime.now() - began + pause > _STARTUP_SECONDS and status != 429
            if late or limited > _MAX_RATE_LIMITED:
                raise ServiceError(
                    f"no usable answer in {self.runtime.now() - began:.0f} s: {words}",
                    where=f"GET {self.base_url}{path}",
                    hint="check the network and the base URL, then try again: this request submitted nothing",
                )
            if attempt + limited == 1:
                self.runtime.notice(f"{self.base_url}: {words}; trying again for a while")
            await self.runtime.sleep(pause)

    async def _wait_for_budget(self) -> None:
        while self.budget.available(self.runtime.now()) < 1:
            change = self.budget.next_change(self.runtime.now())
            await self.runtime.sleep(0.05 if change is None else max(0.01, change - self.runtime.now()))

    def _final(self, path: str, status: int, words: str, hint: str | None) -> ServiceError:
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
                hint=f"check --base-url and LAMINA_BASE_URL{f'; {hint}' if hint else ''}",
            )
        if path.startswith("/v1/apps/") and status in {400, 403, 404}:
            return UnknownAppError(
                f"HTTP {status}: {words}",
                where=where,
                hint="`lamina-batch apps list` finds the ids that this key sees; a private app is seen only with a key "
                "of its own workspace",
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
    ) -> _HttpAnswer:
        """One request on the wire. Raises _UnansweredError if no status line came back."""
        session = self._post_session if method == "POST" else self._session
        if session is None:
            msg = "LaminaClient is used outside `async with`"
            raise RuntimeError(msg)
        query = f"?{urlencode(params, quote_via=quote, safe='')}" if params else ""
        # As it is encoded here, so it goes out: yarl would undo some of it.
        url = URL(f"{self._origin}{path}{query}", encoded=True)
        journey = SimpleNamespace(phase=Phase.NOTHING)
        self.requests[kind] += 1
        ticket = self.budget.spend(self.runtime.now())
        quota: Quota | None = None
        try:
            async with session.request(
                method, url, data=body, headers=headers, allow_redirects=False, trace_request_ctx=journey
            ) as response:
                quota = parse_quota(response.headers, response.status)
                if quota.limited:
                    self.requests["rate_limited"] += 1
                in_body = quota.limited and quota.retry_after is None and "json" in response.content_type
                if not in_body:
                    self.budget.settle(ticket, self.runtime.now(), quota)
                answer = await _read_answer(response)
                answer.data = read_json(answer.body, self._cut)
                answer.quota, answer.date = quota, response.headers.get("Date", "")
                if in_body:
                    quota = replace(quota, retry_after=retry_after_of_body(answer.data))
                return answer
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if journey.phase < Phase.REQUEST_BEGUN:
                self.requests[kind] -= 1
                self.budget.withdraw(ticket)
            words = self._cut(_describe_network_error(error, self.request_timeout))
        finally:
            self.budget.settle(ticket, self.runtime.now(), quota)
        # Out here, so that aiohttp's error, which knows the headers that were sent, is nobody's context.
        raise _NoAnswerError(journey.phase, words)

    def _cut(self, said: str) -> str:
        """The same without the key: whatever is echoed, it goes no further than this."""
        for form in self._secrets:
            said = said.replace(form, "[key]")
        return said

    def _words(self, answer: _HttpAnswer) -> str:
        """The service's own words for an error (docs/lamina-api.md, "Errors and retries"), or what it sent instead."""
        if answer.is_page:
            otherwise = f"HTTP {answer.status} with a web page instead of JSON"
        elif answer.data is not None:
            otherwise = json.dumps(answer.data, ensure_ascii=False)
        else:
            otherwise = self._cut(answer.body.decode("utf-8", "replace")).strip()
        return parse_api_error(answer.data).told(otherwise or answer.broken or f"HTTP {answer.status} without a word")


def _phase_tracer(
    phase: Phase,
) -> Callable[[aiohttp.ClientSession, SimpleNamespace, object], Awaitable[None]]:
    async def mark(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.phase = phase

    return mark


async def _read_answer(response: aiohttp.ClientResponse) -> _HttpAnswer:
    """Read the body within bounds; a body that breaks off still leaves the status line, which may prove enough."""
    chunks: list[bytes] = []
    size = 0
    phase, broken = Phase.ANSWERED, None
    try:
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > _MAX_BODY_BYTES:
                return _HttpAnswer(response.status, Phase.ANSWER_BEGUN, b"", "its answer does not end")
            chunks.append(chunk)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        phase, broken = Phase.ANSWER_BEGUN, f"its answer broke off ({error.__class__.__name__})"
    try:
        body = decode_body(b"".join(chunks), response.headers.get("Content-Encoding", ""), most=_MAX_BODY_BYTES)
    except ValueError as error:
        return _HttpAnswer(response.status, phase, b"", broken or str(error))
    return _HttpAnswer(response.status, phase, body, broken)


def _describe_network_error(error: Exception, request_timeout: float) -> str:
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {request_timeout:g} s"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed without an answer"
    if isinstance(error, aiohttp.ClientResponseError):
        # Its own text names the URL, and with that the token of a webhook; what follows the colon quotes the answer,
        # cut anywhere, where the key may be echoed.
        return f"its answer is not HTTP ({error.message.partition(':')[0].strip()})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
    return f"{error.__class__.__name__}: {error}".rstrip(": ")
