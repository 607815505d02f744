"""The sandbox's log of requests tells afterwards what each was, what it bought, and whether its answer left."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from process import PATIENCE, wait_for
from sandbox_support import CARTOONIFY, ask, cancel, get, journal, post, start, start_run, wait_for_end

from lamina_batch.sandbox import GENERATIONS, SANDBOX_KEY, SandboxOptions, embedded
from lamina_batch.sandbox.fault_responses import client_disconnected
from lamina_batch.sandbox.server import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

BOTH = GENERATIONS["both"]
BODY = b'{"inputs":{"Style":"Ghibli"}}'


def test_each_request_is_named_and_so_is_its_generation(tmp_path: Path) -> None:
    with embedded(SandboxOptions(limit=10**6, speed=5000, generations=BOTH, data=tmp_path)) as url:
        execution_id, run_id = start(url), start_run(url)
        file = wait_for_end(url, execution_id)["outputs"][0]["value"]
        before = len(journal(tmp_path, "requests.jsonl"))
        for path in (
            f"/v1/executions/{execution_id}",
            f"/v1/runs/{run_id}",
            f"/v1/runs/{run_id}/wait",
            "/v1/runs",
            "/v1/apps",
            f"/v1/apps/{CARTOONIFY}",
            f"/v1/apps/{CARTOONIFY}/workflow",
            "/v1/webhooks/signing-key",
            "/v1/nothing",
        ):
            get(url, path)
        cancel(url, run_id)
        ask(file, headers={})
        ask(url, "/favicon.ico", headers={})
    lines = journal(tmp_path, "requests.jsonl")
    assert [(line["kind"], line["generation"], line["execution_id"]) for line in lines[:2]] == [
        ("start", "executions", execution_id),
        ("start", "runs", run_id),
    ]
    assert [(line["kind"], line["generation"]) for line in lines[before:]] == [
        ("read", "executions"),
        ("read", "runs"),
        ("wait", "runs"),
        ("list", "runs"),
        ("list_apps", None),
        ("app", None),
        ("workflow", None),
        ("signing_key", None),
        (None, None),
        ("cancel", "runs"),
        ("media", None),
        (None, None),
    ]
    assert len({line["request_id"] for line in lines}) == len(lines)


def test_an_error_can_be_found_in_the_log_by_its_request_id(tmp_path: Path) -> None:
    with embedded(SandboxOptions(generations=BOTH, data=tmp_path)) as url:
        body = get(url, "/v1/runs/unknown").json()
    assert [line["request_id"] for line in journal(tmp_path, "requests.jsonl")] == [body["requestId"]]


@pytest.mark.parametrize("generation", ["executions", "runs"])
@pytest.mark.parametrize(
    ("fault", "accepted", "answered"),
    [
        (None, True, True),
        ("failed", True, True),
        ("429", False, True),
        ("500", False, True),
        ("502", False, True),
        ("503", False, True),
        ("credits_400", False, True),
        ("drop_before", False, False),
        ("500_accepted", True, False),
        ("502_accepted", True, False),
        ("drop_after_accept", True, False),
        ("hang_after_accept:seconds=0.01", True, False),
        ("broken_json", True, False),
        ("truncated", True, False),
    ],
)
def test_the_log_tells_what_a_start_bought_and_whether_its_answer_left(
    tmp_path: Path, fault: str | None, generation: Any, *, accepted: bool, answered: bool
) -> None:
    options = SandboxOptions(generations=BOTH, data=tmp_path, faults=(fault,) if fault else ())
    with embedded(options) as url:
        try:
            post(url, CARTOONIFY, {"Style": "Ghibli"}, generation=generation)
        except (ConnectionError, http.client.HTTPException):
            assert not answered
    (line,) = journal(tmp_path, "requests.jsonl")
    bought = [execution["execution_id"] for execution in journal(tmp_path, "executions.jsonl")]
    assert (line["accepted"] is not None, line["answered"]) == (accepted, answered)
    assert bought == ([line["accepted"]] if accepted else [])
    assert line["fault"] == (fault.partition(":")[0] if fault else None)


def test_a_start_that_is_refused_was_answered_and_bought_nothing(tmp_path: Path) -> None:
    with embedded(SandboxOptions(generations=BOTH, data=tmp_path)) as url:
        post(url, CARTOONIFY, {"Style": "Mars"})
    (line,) = journal(tmp_path, "requests.jsonl")
    assert (line["status"], line["accepted"], line["answered"]) == (400, None, True)


async def written(data: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a journal of the sandbox on this loop, once there are any."""
    async with asyncio.timeout(PATIENCE):
        while not (lines := journal(data, name)):  # noqa: ASYNC110 -- a file tells of no event
            await asyncio.sleep(0.001)  # noqa: TID251 -- the test is the edge
    return lines


def send_start(url: str) -> socket.socket:
    """A start whose bytes are all sent; its connection, on which the answer is to come."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = socket.create_connection((parts.hostname, parts.port or 80), timeout=PATIENCE)
    head = (
        f"POST /v1/apps/{CARTOONIFY}/runs HTTP/1.1\r\nHost: {parts.netloc}\r\nx-api-key: {SANDBOX_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    connection.sendall(head.encode() + BODY)
    return connection


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_dies_with_its_start_under_way_has_bought_and_was_not_answered(
    tmp_path: Path, *, reset: bool
) -> None:
    """The service has read the request whole: whether the client lives does not matter to it."""
    sandbox = Sandbox(SandboxOptions(generations=BOTH, data=tmp_path, faults=("slow:seconds=0.3",)))
    connection = send_start(await sandbox.start())
    # The line of a late answer does not wait for it.
    await written(tmp_path, "requests.jsonl")
    # The server's loop is this one, so it cannot answer before the client is gone.
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    await written(tmp_path, "answers.jsonl")
    await sandbox.stop()
    (line,) = journal(tmp_path, "requests.jsonl")
    (answer,) = journal(tmp_path, "answers.jsonl")
    (bought,) = journal(tmp_path, "executions.jsonl")
    assert (line["accepted"], line["answered"], line["fault"]) == (bought["execution_id"], None, "slow")
    assert answer.pop("at") >= line["at"] + 0.3
    assert answer == {
        "request_id": line["request_id"],
        "kind": "start",
        "execution_id": bought["execution_id"],
        "answered": False,
    }


def test_a_late_answer_that_was_waited_for_is_noted_as_answered(tmp_path: Path) -> None:
    with embedded(SandboxOptions(generations=BOTH, data=tmp_path, faults=("slow:seconds=0.01",))) as url:
        run_id = start_run(url)
    (line,) = journal(tmp_path, "requests.jsonl")
    (answer,) = journal(tmp_path, "answers.jsonl")
    assert (line["accepted"], line["answered"]) == (run_id, None)
    assert (answer["request_id"], answer["answered"]) == (line["request_id"], True)


def test_a_late_answer_that_the_end_of_the_sandbox_cuts_off_is_noted_as_unanswered(tmp_path: Path) -> None:
    with embedded(SandboxOptions(generations=BOTH, data=tmp_path, faults=("slow:seconds=1000",))) as url:
        connection = send_start(url)
        wait_for(lambda: bool(journal(tmp_path, "requests.jsonl")))
    connection.close()
    (answer,) = journal(tmp_path, "answers.jsonl")
    assert answer["answered"] is False


def test_a_wait_that_the_end_of_the_sandbox_cuts_off_is_logged(tmp_path: Path) -> None:
    with embedded(SandboxOptions(generations=BOTH, data=tmp_path)) as url:
        run_id = start_run(url)
        waiting = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
        waiting.request("GET", f"/v1/runs/{run_id}/wait?timeout=120", headers={"x-api-key": SANDBOX_KEY})
        get(url, "/v1/apps")
    waiting.close()
    last = journal(tmp_path, "requests.jsonl")[-1]
    assert (last["kind"], last["status"], last["answered"]) == ("wait", None, False)


async def test_the_kernel_is_asked_whether_the_client_is_there() -> None:
    """It knows a turn of the loop before asyncio does."""
    seen: list[bool] = []
    asked = asyncio.Event()
    clients: list[socket.socket] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(client_disconnected(request))
        clients[0].close()
        seen.append(client_disconnected(request))
        asked.set()
        return web.Response()

    listening = socket.create_server(("127.0.0.1", 0))
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.SockSite(runner, listening).start()
    clients.append(socket.create_connection(listening.getsockname()))
    clients[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await asked.wait()
    await runner.cleanup()
    assert seen == [False, True]


async def test_a_client_that_left_before_its_answer_was_ready_was_not_answered(tmp_path: Path) -> None:
    sandbox = Sandbox(SandboxOptions(generations=BOTH, data=tmp_path))
    url = await sandbox.start()
    # All of it happens while the server's loop, which is this one, stands still.
    send_start(url).close()
    lines = await written(tmp_path, "requests.jsonl")
    await sandbox.stop()
    (bought,) = journal(tmp_path, "executions.jsonl")
    assert [(line["accepted"], line["answered"]) for line in lines] == [(bought["execution_id"], False)]


def test_lines_are_json_with_the_same_fields(tmp_path: Path) -> None:
    with embedded(SandboxOptions(generations=BOTH, data=tmp_path)) as url:
        start(url)
        get(url, "/v1/nothing")
        ask(url, "/x", headers={})
    lines = (tmp_path / "requests.jsonl").read_text().splitlines()
    assert len({tuple(json.loads(line)) for line in lines}) == 1
