"""The client and the runs generation (docs/lamina-api.md, "The runs API"), against servers that answer what the test
says.
"""

from __future__ import annotations

import pytest
from client_support import Leaping, answering, client, said, saying, scripted

from lamina_batch.client.lamina import EXECUTIONS, RUNS, ApiVersion, ListedExecution, Phase
from lamina_batch.errors import CredentialsError, ServiceError
from lamina_batch.execution.submission_outcome import SubmissionOutcome, classify_submission

ACCEPTED: object = {"data": {"runId": "r1", "workflowId": "a", "status": "queued", "webhookUrl": None, "outputs": []}}


# -- start and read --------------------------------------------------------------------------------------------


async def test_a_run_is_started_on_its_own_path() -> None:
    async with scripted(said("202 Accepted", ACCEPTED)) as service, client(service.url, generation=RUNS) as session:
        end = await session.start("a", '{"Prompt":"x"}', submission="s1", webhook="https://h.example/t")
    assert (end.execution_id, classify_submission(end)) == ("r1", SubmissionOutcome.ACCEPTED)
    assert service.asked == ["POST /v1/apps/a/runs?webhook=https%3A%2F%2Fh.example%2Ft"]
    assert service.requests[0].endswith(b'\r\n\r\n{"inputs":{"Prompt":"x"}}')


async def test_an_execution_is_read_in_the_generation_that_made_it() -> None:
    """Whatever the client speaks now (docs/ledger.md, "Binding")."""
    run = said("200 OK", {"data": {"runId": "r1", "status": "cancelled", "progress": {"percentComplete": 40}}})
    execution = said("200 OK", {"data": {"executionId": "e1", "status": "running"}})
    async with scripted(run, execution, run) as service, client(service.url, generation=RUNS) as session:
        ends = [
            await session.get_execution("r1"),
            await session.get_execution("e1", generation="executions"),
            await session.get_execution("r1", generation="runs"),
        ]
        unknown = await session.get_execution("x", generation="films")
    assert service.asked == ["GET /v1/runs/r1", "GET /v1/executions/e1", "GET /v1/runs/r1"]
    told = [(e.execution.generation, e.execution.ended) for e in ends if e.execution is not None]
    assert told == [("runs", True), ("executions", False), ("runs", True)]
    assert (unknown.execution, unknown.status) == (None, None)
    assert "films" in unknown.message


async def test_a_503_that_calls_itself_retryable_proves_nothing() -> None:
    """docs/lamina-api.md, "The runs API", traps: it may come after the start."""
    body = {"error": "Try later", "code": "RESOURCE_UNAVAILABLE", "retryable": True, "requestId": "q", "retryAfter": 3}
    async with answering(saying("503 Service Unavailable", body)) as url, client(url, generation=RUNS) as session:
        end = await session.start("a", "{}", submission="s1")
    assert (end.phase, end.code) == (Phase.ANSWERED, "RESOURCE_UNAVAILABLE")
    assert classify_submission(end) is SubmissionOutcome.UNKNOWN


async def test_an_error_is_told_with_its_details_code_and_request() -> None:
    body = {
        "error": "Validation failed",
        "code": "VALIDATION_ERROR",
        "retryable": False,
        "requestId": "abc",
        "details": [{"field": "Location", "error": "invalid_option", "got": "Mars", "allowed": ["Studio", "Park"]}],
    }
    async with answering(saying("400 Bad Request", body)) as url, client(url, generation=RUNS) as session:
        end = await session.start("a", "{}", submission="s1")
    assert classify_submission(end) is SubmissionOutcome.REFUSED
    assert end.code == "VALIDATION_ERROR"
    assert end.message == (
        'Validation failed: "Location": invalid_option (got "Mars"; allowed: Studio, Park)'
        " (VALIDATION_ERROR, request abc)"
    )


async def test_too_few_credits_are_seen_in_the_envelope() -> None:
    body = {"error": "Insufficient credits", "code": "FORBIDDEN", "requestId": "q"}
    async with answering(saying("403 Forbidden", body)) as url, client(url, generation=RUNS) as session:
        assert classify_submission(await session.start("a", "{}", submission="s1")) is SubmissionOutcome.NO_CREDITS


# -- the limit -------------------------------------------------------------------------------------------------


LIMITED = {"error": "Rate limit exceeded", "code": "RATE_LIMITED", "retryable": True, "requestId": "q", "retryAfter": 7}


@pytest.mark.parametrize(
    ("body", "headers", "least", "most"),
    [
        (LIMITED, (), 6, 8),
        (LIMITED, ("Retry-After: 3",), 2, 4),
        ({**LIMITED, "retryAfter": "soon"}, (), 50, 70),
        ({**LIMITED, "retryAfter": "soon"}, ("RateLimit-Reset: 20",), 19, 21),
    ],
    ids=["body", "header", "neither", "reset"],
)
async def test_the_budget_learns_from_the_body_of_a_429_how_long_to_wait(
    body: object, headers: tuple[str, ...], least: float, most: float
) -> None:
    clock = Leaping()
    async with (
        answering(saying("429 Too Many Requests", body, *headers)) as url,
        client(url, generation=RUNS, clock=clock) as session,
    ):
        end = await session.start("a", "{}", submission="s1")
        assert session.budget.available(clock.now()) == 0
        again = session.budget.next_change(clock.now())
        assert session.requests["rate_limited"] == 1
    assert classify_submission(end) is SubmissionOutcome.NOT_ACCEPTED
    assert again is not None
    assert least < again - clock.now() < most


async def test_a_429_whose_body_breaks_off_still_stops_the_budget() -> None:
    answer = saying("429 Too Many Requests", b'{"error"', "Content-Type: application/json", length=100)
    clock = Leaping()
    async with answering(answer) as url, client(url, generation=RUNS, clock=clock) as session:
        await session.start("a", "{}", submission="s1")
        again = session.budget.next_change(clock.now())
    assert again is not None
    assert again - clock.now() > 50


# -- the list --------------------------------------------------------------------------------------------------


def page(*entries: object, **pagination: object) -> bytes:
    return said("200 OK", {"data": list(entries), "pagination": pagination})


async def test_the_list_is_typed() -> None:
    entry = {
        "runId": "r2",
        "workflowId": "a",
        "status": "Completed",
        "createdAt": "2026-05-08T09:30:00.000Z",
        "completedAt": "2026-05-08T09:31:00.000Z",
        "news": {"quality": 1},
    }
    answer = page(entry, {"runId": "r1", "status": "queued", "completedAt": None}, total=212, limit=2, offset=0)
    async with scripted(answer) as service, client(service.url, generation=RUNS) as session:
        end = await session.list_runs(limit=2)
        assert (session.requests["poll"], session.requests["other"]) == (1, 0)
    assert (end.status, end.received, end.total, end.message) == (200, 2, 212, "")
    created = 1778232600.0
    assert end.items == (
        ListedExecution(
            execution_id="r2",
            status="completed",
            ended=True,
            created_at=created,
            completed_at=created + 60,
            app_id="a",
        ),
        ListedExecution(execution_id="r1", status="queued", ended=False),
    )


async def test_the_list_is_asked_for_in_the_service_s_words() -> None:
    async with scripted(page()) as service, client(service.url, generation=RUNS) as session:
        await session.list_runs(app_id="a&b", since=1778232600.25, limit=50, offset=100, status="completed")
        await session.list_runs()
    assert service.asked[0].startswith("GET /v1/runs?")
    assert service.query(0) == {
        "appId": ["a&b"],
        "since": ["2026-05-08T09:30:00.250Z"],
        "limit": ["50"],
        "offset": ["100"],
        "status": ["completed"],
    }
    assert service.query(1) == {"limit": ["100"], "offset": ["0"]}


async def test_what_cannot_be_read_of_the_list_is_left_out_and_counted() -> None:
    answer = page({"status": "queued"}, None, "r9", {"runId": ""}, {"runId": "r1"}, total="many")
    async with scripted(answer) as service, client(service.url, generation=RUNS) as session:
        end = await session.list_runs()
    assert end.items == (ListedExecution(execution_id="r1", status="", ended=False),)
    assert (end.received, end.total) == (5, None)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (said("200 OK", {"data": {"runId": "r1"}}), None),
        (said("200 OK", b"<html>"), None),
        (said("200 OK", b'{"data":[', length=100), None),
        (said("403 Forbidden", {"error": "no", "code": "FORBIDDEN"}), 403),
        (said("401 Unauthorized", b""), 401),
        (said("500 Internal Server Error", b""), 500),
        (b"", None),
    ],
    ids=["no list", "page", "broken", "403", "401", "500", "nothing"],
)
async def test_a_list_that_does_not_come_is_a_value(answer: bytes, status: int | None) -> None:
    async with scripted(answer) as service, client(service.url, generation=RUNS) as session:
        end = await session.list_runs()
        assert len(service.requests) == session.requests["poll"] == 1
    assert (end.status, end.items, end.received) == (status, (), 0)
    assert end.message


# -- which generation it is ------------------------------------------------------------------------------------


APPS = said("200 OK", {"data": [{"appId": "a", "name": "A"}]})


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (page(total=0, limit=1, offset=0), RUNS),
        (page({"runId": "r1", "status": "queued"}, total=9), RUNS),
        (said("404 Not Found", {"error": "Not found"}), EXECUTIONS),
        (said("404 Not Found", b"<pre>Cannot GET /v1/runs</pre>"), EXECUTIONS),
    ],
    ids=["empty list", "list", "404", "404 page"],
)
async def test_a_probe_asks_once_and_submits_nothing(answer: bytes, found: ApiVersion) -> None:
    async with scripted(answer) as service, client(service.url) as session:
        assert await session.probe_generation() is found
        assert session.requests == {"other": 1}
    assert service.asked == ["GET /v1/runs?limit=1"]


async def test_a_web_page_in_the_place_of_the_list_means_executions_where_the_api_is_there() -> None:
    """A web application answers every path it does not know with its front page."""
    async with scripted(said("200 OK", b"\n<!doctype html>"), APPS) as service, client(service.url) as session:
        assert await session.probe_generation() is EXECUTIONS
    assert service.asked == ["GET /v1/runs?limit=1", "GET /v1/apps?limit=1"]


async def test_a_web_page_everywhere_is_not_the_api() -> None:
    pages = said("200 OK", b"<html>")
    async with scripted(pages) as service, client(service.url, clock=Leaping()) as session:
        with pytest.raises(ServiceError, match="web page"):
            await session.probe_generation()


@pytest.mark.parametrize(
    "answer",
    [
        said("400 Bad Request", {"error": "limit"}),
        said("403 Forbidden", {"error": "no", "code": "FORBIDDEN"}),
        said("405 Method Not Allowed", b""),
        said("302 Found", b"", "Location: /login"),
        said("204 No Content", b""),
        said("200 OK", {"ok": True}),
        said("200 OK", {"data": {}}),
        said("200 OK", b'"welcome"'),
    ],
    ids=["400", "403", "405", "redirect", "204", "other json", "no list", "text"],
)
async def test_what_tells_no_generation_is_not_guessed_from(answer: bytes) -> None:
    async with scripted(answer) as service, client(service.url) as session:
        with pytest.raises(ServiceError, match=r"(?s)/v1/runs.*generation: runs") as error:
            await session.probe_generation()
        assert len(service.requests) == 1
    assert not isinstance(error.value, CredentialsError)


async def test_a_probe_with_a_bad_key_says_so() -> None:
    body = {"error": "Invalid API key", "code": "AUTH_INVALID_KEY", "requestId": "q"}
    async with scripted(said("401 Unauthorized", body)) as service, client(service.url) as session:
        with pytest.raises(CredentialsError, match="Invalid API key"):
            await session.probe_generation()
        assert len(service.requests) == 1


@pytest.mark.parametrize(
    "first",
    [said("500 Internal Server Error"), said("503 Busy", b"<html>"), b"", said("200 OK", b'{"data":[', length=100)],
    ids=["500", "503 page", "nothing", "broken off"],
)
async def test_a_probe_that_fails_for_the_moment_is_repeated(first: bytes) -> None:
    async with scripted(first, page()) as service, client(service.url) as session:
        assert await session.probe_generation() is RUNS
        assert len(service.requests) == 2


async def test_a_probe_ends_when_the_service_does_not_recover() -> None:
    failing = said("500 Internal Server Error")
    async with scripted(failing) as service, client(service.url, clock=Leaping()) as session:
        with pytest.raises(ServiceError, match="no usable answer"):
            await session.probe_generation()
        assert len(service.requests) > 2


# -- the app ---------------------------------------------------------------------------------------------------


async def test_required_parameters_with_a_default_need_not_be_supplied() -> None:
    """Here all are required; a default, even an empty one, makes omission safe (docs/lamina-api.md,
    "Required and default").
    """
    parameters = [
        {"name": "Front", "key": "front_image_url", "type": "url", "required": True, "default": None},
        {"name": "Back", "key": "back_image_url", "type": "url", "required": True},
        {"name": "Style", "key": "style_text", "type": "options", "options": ["A"], "required": True, "default": "A"},
        {"name": "Note", "key": "note_text", "type": "text", "required": True, "default": ""},
        {"name": "Tags", "type": "text", "required": True, "default": [], "multiple": True},
        {"name": "Logo", "type": "text", "required": True, "default": False},
    ]
    body = {
        "data": {"appId": "a", "name": "A", "parameters": parameters, "outputs": [{"index": 0, "label": "L"}]},
    }
    async with scripted(said("200 OK", body)) as service, client(service.url, generation=RUNS) as session:
        app = await session.get_app("a")
    assert [p.name for p in app.parameters if p.must_supply] == ["Front", "Back"]
    assert service.asked == ["GET /v1/apps/a"]
