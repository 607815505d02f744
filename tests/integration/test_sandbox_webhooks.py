"""The sandbox delivers signed webhooks at the end of an execution (docs/lamina-api.md, "Verification")."""

from __future__ import annotations

import base64
import json
import queue
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from process import PATIENCE, wait_for
from sandbox_support import CARTOONIFY, ID_FIELDS, Served, cancel, get, journal, post, read, start_run, wait_for_end

from lamina_batch.sandbox import GENERATIONS, SandboxOptions, embedded, webhooks
from lamina_batch.sandbox.executions import ExecutionStore, SandboxExecution
from lamina_batch.sandbox.journal import Journal
from lamina_batch.sandbox.webhooks import RETRY_DELAYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message
    from pathlib import Path

    from lamina_batch.sandbox.api_versions import SandboxApiVersion

FAST = 5000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    path: str
    headers: Message
    body: bytes


@contextmanager
def receiver(*statuses: int, slow: bool = False) -> Iterator[tuple[str, queue.Queue[Delivery]]]:
    """A server that answers with these statuses in turn, and 200 from then on; if `slow`, once it is asked again."""
    received: queue.Queue[Delivery] = queue.Queue()
    answers = list(statuses)
    first, again = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = answers.pop(0) if answers else 200
            received.put(Delivery(path=self.path, headers=self.headers, body=body))
            if first.acquire(blocking=False) and slow:
                again.wait(PATIENCE)
            again.set()
            with suppress(ConnectionError):  # of one who did not wait for it
                self._answer(status)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/followed")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def start_with(base_url: str, webhook: str, *, generation: SandboxApiVersion = "executions") -> str:
    query = f"?webhook={quote(webhook, safe='')}"
    answered = post(base_url, CARTOONIFY, {"Style": "Ghibli"}, query=query, generation=generation)
    assert answered.status == 202
    assert answered.json()["data"]["webhookUrl"] == webhook
    return str(answered.json()["data"][ID_FIELDS[generation]])


def listed_keys(base_url: str) -> list[str]:
    return [key["x"] for key in get(base_url, "/v1/webhooks/signing-key").json()["keys"]]


def is_signed_with(key: str, delivery: Delivery) -> bool:
    """As a receiver finds out: over timestamp, dot and raw body."""
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key + "="))
    timestamp = delivery.headers["X-Lamina-Webhook-Timestamp"]
    signature = bytes.fromhex(delivery.headers["X-Lamina-Webhook-Signature"])
    try:
        public.verify(signature, f"{timestamp}.".encode() + delivery.body)
    except InvalidSignature:
        return False
    with pytest.raises(InvalidSignature):
        public.verify(signature, f"{timestamp}.".encode() + delivery.body + b" ")
    return True


def verify(base_url: str, delivery: Delivery) -> None:
    assert [is_signed_with(key, delivery) for key in listed_keys(base_url)] == [True]


def test_a_delivery_is_signed_and_holds_what_a_read_shows() -> None:
    with receiver() as (hook, received), embedded(SandboxOptions(limit=10**6, speed=FAST)) as base_url:
        execution_id = start_with(base_url, f"{hook}?token=a%2Fb%20c&x=1")
        delivery = received.get(timeout=PATIENCE)
        verify(base_url, delivery)
        assert json.loads(delivery.body) == {"data": read(base_url, execution_id)}
    assert delivery.path == "/hook?token=a%2Fb%20c&x=1"
    assert delivery.headers["X-Lamina-Webhook-Request-Id"] == execution_id
    assert delivery.headers["X-Lamina-Webhook-User-Id"]
    assert delivery.headers["Content-Type"] == "application/json"
    assert json.loads(delivery.body)["data"]["status"] == "completed"


def test_failures_are_delivered() -> None:
    options = SandboxOptions(speed=FAST, faults=("failed",))
    with receiver() as (hook, received), embedded(options) as base_url:
        start_with(base_url, hook)
        assert json.loads(received.get(timeout=PATIENCE).body)["data"]["status"] == "failed"


def test_a_delivery_that_is_not_taken_is_tried_three_times_more(tmp_path: Path) -> None:
    options = SandboxOptions(limit=10**6, speed=FAST, data=tmp_path)
    with receiver(500, 404, 302, 500, 500) as (hook, received), embedded(options) as base_url:
        execution_id = start_with(base_url, hook)
        deliveries = [received.get(timeout=PATIENCE) for _ in range(1 + len(RETRY_DELAYS))]
        for delivery in deliveries:
            verify(base_url, delivery)
    assert {(d.path, d.body) for d in deliveries} == {("/hook", deliveries[0].body)}
    assert received.empty()
    lines = journal(tmp_path, "webhooks.jsonl")
    # The last line is written after its answer has come back, which the end of the sandbox may cut short.
    assert [(line["attempt"], line["status"]) for line in lines][:3] == [(1, 500), (2, 404), (3, 302)]
    assert {(line["execution_id"], line["url"]) for line in lines} == {(execution_id, hook)}


def test_a_2xx_ends_it() -> None:
    options = SandboxOptions(speed=FAST)
    with receiver(503, 204, 500, 500, 500, 500) as (hook, received), embedded(options) as base_url:
        first = start_with(base_url, hook)
        told = [received.get(timeout=PATIENCE).headers["X-Lamina-Webhook-Request-Id"] for _ in range(2)]
        # A third try for the first would fall between the four for the second.
        second = start_with(base_url, hook)
        told += [received.get(timeout=PATIENCE).headers["X-Lamina-Webhook-Request-Id"] for _ in range(4)]
    assert told == [first] * 2 + [second] * 4


def test_what_ends_after_a_restart_is_delivered(tmp_path: Path) -> None:
    with receiver() as (hook, received):
        with embedded(SandboxOptions(speed=20, data=tmp_path)) as base_url:
            execution_id = start_with(base_url, hook)
        with embedded(SandboxOptions(speed=20, data=tmp_path)):
            assert received.get(timeout=PATIENCE).headers["X-Lamina-Webhook-Request-Id"] == execution_id


@pytest.mark.parametrize("generation", ["executions", "runs"])
def test_the_body_has_the_id_field_of_the_generation_that_made_it(generation: SandboxApiVersion) -> None:
    options = SandboxOptions(limit=10**6, speed=FAST, generations=GENERATIONS["both"])
    with receiver() as (hook, received), embedded(options) as base_url:
        execution_id = start_with(base_url, hook, generation=generation)
        delivery = received.get(timeout=PATIENCE)
        shown = read(base_url, execution_id, generation=generation)
    assert json.loads(delivery.body) == {"data": shown}
    assert set(shown) & set(ID_FIELDS.values()) == {ID_FIELDS[generation]}
    assert delivery.headers["X-Lamina-Webhook-Request-Id"] == execution_id


def test_a_slow_2xx_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that duplicates must be expected (docs/lamina-api.md, "Deliveries")."""
    monkeypatch.setattr(webhooks, "ANSWER_TIMEOUT", 0.2)
    with receiver(slow=True) as (hook, received), embedded(SandboxOptions(speed=FAST)) as base_url:
        start_with(base_url, hook)
        first, second = (received.get(timeout=PATIENCE) for _ in range(2))
    assert first.body == second.body


def cancelled_ones(base_url: str, query: str) -> Iterator[str]:
    for _ in range(20):
        run_id = start_run(base_url, "steady", {}, query=query)
        statuses = {cancel(base_url, run_id).json()["data"]["status"] for _ in range(2)}
        if statuses == {"cancelled"}:
            yield run_id


def test_a_cancelled_run_is_delivered_when_it_is_cancelled_and_not_again(tmp_path: Path) -> None:
    app = {
        "appId": "steady",
        "name": "Steady",
        "parameters": [],
        "nodes": [{"id": "n1", "type": "textNode", "label": "Copy", "output": "text"}],
        "seconds": {"median": 0.4, "sigma": 0},
    }
    (tmp_path / "apps.json").write_text(json.dumps([app]))
    options = SandboxOptions(generations=GENERATIONS["runs"], apps=tmp_path / "apps.json")
    with receiver() as (hook, received), embedded(options) as base_url:
        query = f"?webhook={quote(hook, safe='')}"
        # On a machine that was busy just then one may have ended before it could be cancelled.
        first = next(run_id for run_id in cancelled_ones(base_url, query))
        second = start_run(base_url, "steady", {}, query=query)
        told: list[tuple[str, str]] = []
        while (second, "completed") not in told:
            run = json.loads(received.get(timeout=PATIENCE).body)["data"]
            told.append((run["runId"], run["status"]))
    # At its own end, which it no longer has, the first would come again before the second.
    assert [status for run_id, status in told if run_id == first] == ["cancelled"]


# --- after a restart


def ended_long_ago(data: Path, hook: str, execution_id: str = "e1", **rest: Any) -> None:
    """An execution whose end came while no sandbox was there to tell of it."""
    store = ExecutionStore(data / "executions.jsonl")
    store.add(
        SandboxExecution(
            execution_id=execution_id,
            app_id=CARTOONIFY,
            inputs={},
            created_at=1000.0,
            queued_seconds=1.0,
            seconds=2.0,
            webhook=hook,
            **rest,
        )
    )
    store.close()


def tried(data: Path, *statuses: int | None) -> None:
    log = Journal(data / "webhooks.jsonl")
    for attempt, status in enumerate(statuses, start=1):
        log.append({"at": 1003.0, "execution_id": "e1", "url": "x", "attempt": attempt, "status": status})
    log.close()


def test_what_ended_while_the_sandbox_was_down_is_delivered(tmp_path: Path) -> None:
    with receiver() as (hook, received):
        ended_long_ago(tmp_path, hook)
        with embedded(SandboxOptions(data=tmp_path)) as base_url:
            delivery = received.get(timeout=PATIENCE)
            verify(base_url, delivery)
            assert json.loads(delivery.body) == {"data": read(base_url, "e1")}
    assert json.loads(delivery.body)["data"]["completedAt"] == "1970-01-01T00:16:42.000Z"


@pytest.mark.parametrize(
    ("before", "fault", "left"),
    [
        ((), None, 4),
        ((500, None), None, 2),
        ((None, 500, 500), None, 1),
        ((None, 500, 500, 500), None, 0),
        ((500, 200), None, 0),
        ((200,), "webhook_twice", 3),
        ((200, 200), "webhook_twice", 0),
    ],
)
def test_the_tries_that_are_left_are_made(
    tmp_path: Path, before: tuple[int | None, ...], fault: str | None, left: int
) -> None:
    with receiver(*[500] * 4) as (hook, received):
        ended_long_ago(tmp_path, hook, delivery_fault=fault)
        tried(tmp_path, *before)
        with embedded(SandboxOptions(speed=FAST, data=tmp_path)) as base_url:
            for _ in range(left):
                verify(base_url, received.get(timeout=PATIENCE))
            # A further try would come before the four of another one have.
            other = start_with(base_url, f"{hook}?other")
            wait_for_end(base_url, other)
            assert received.get(timeout=PATIENCE).path == "/hook?other"


def test_what_was_not_delivered_before_a_kill_9_is_delivered_after_it(tmp_path: Path) -> None:
    with receiver(*[500] * 4) as (hook, received):
        # It ends at once, and between the first try and the second are five minutes.
        first = Served(tmp_path, "webhook_early", speed=1 / 60)
        try:
            execution_id = start_with(first.base_url, hook)
            received.get(timeout=PATIENCE)
        finally:
            first.end(signal.SIGKILL)
        assert received.empty()
        second = Served(tmp_path)
        try:
            assert received.get(timeout=PATIENCE).headers["X-Lamina-Webhook-Request-Id"] == execution_id
        finally:
            second.end(signal.SIGTERM)


# --- faults


@contextmanager
def faulty(
    tmp_path: Path, *faults: str, answers: tuple[int, ...] = (), speed: float = FAST
) -> Iterator[tuple[str, str, queue.Queue[Delivery]]]:
    """Base URL, webhook URL, and what arrives there."""
    options = SandboxOptions(limit=10**6, speed=speed, data=tmp_path, faults=faults)
    with receiver(*answers) as (hook, received), embedded(options) as base_url:
        yield base_url, hook, received


def statuses(data: Path, count: int) -> list[tuple[int, int | None, str | None]]:
    """Attempt, status and fault of the first tries, once so many are logged."""
    wait_for(lambda: len(journal(data, "webhooks.jsonl")) >= count)
    lines = journal(data, "webhooks.jsonl")
    return [(line["attempt"], line["status"], line["fault"]) for line in lines[:count]]


def test_an_early_webhook_comes_before_the_202(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_early", speed=1) as (base_url, hook, received):
        execution_id = start_with(base_url, hook)
        delivery = received.get_nowait()
        assert json.loads(delivery.body)["data"]["status"] == "completed"
        verify(base_url, delivery)
    assert delivery.headers["X-Lamina-Webhook-Request-Id"] == execution_id


def test_an_early_webhook_can_be_all_that_is_heard_of_a_start(tmp_path: Path) -> None:
    faults = ("webhook_early", "drop_after_accept", "failed")
    with faulty(tmp_path, *faults, speed=1) as (base_url, hook, received):
        with pytest.raises(ConnectionError):
            start_with(base_url, hook)
        told = json.loads(received.get_nowait().body)["data"]
    assert told["status"] == "failed"
    assert [line["execution_id"] for line in journal(tmp_path, "executions.jsonl")] == [told["executionId"]]


def test_an_early_end_needs_no_webhook(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_early", speed=1) as (base_url, _, _):
        answered = post(base_url, CARTOONIFY, {}).json()["data"]
        assert answered["status"] == "queued"
        ended = read(base_url, answered["executionId"])
    assert ended["status"] == "completed"
    assert ended["createdAt"] == ended["startedAt"] == ended["completedAt"]


def test_a_lost_webhook_never_comes(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_lost:first=1") as (base_url, hook, received):
        lost = start_with(base_url, hook)
        assert statuses(tmp_path, 4) == [(attempt, None, "webhook_lost") for attempt in (1, 2, 3, 4)]
        assert wait_for_end(base_url, lost)["status"] == "completed"
        other = start_with(base_url, hook)
        assert received.get(timeout=PATIENCE).headers["X-Lamina-Webhook-Request-Id"] == other
    # Nor after a restart.
    with receiver() as (hook, received), embedded(SandboxOptions(speed=FAST, data=tmp_path)) as base_url:
        other = start_with(base_url, hook)
        assert received.get(timeout=PATIENCE).headers["X-Lamina-Webhook-Request-Id"] == other


def test_a_webhook_can_be_lost_until_a_later_try(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_lost:tries=2") as (base_url, hook, received):
        execution_id = start_with(base_url, hook)
        assert received.get(timeout=PATIENCE).headers["X-Lamina-Webhook-Request-Id"] == execution_id
        assert statuses(tmp_path, 3)[1:] == [(2, None, "webhook_lost"), (3, 200, None)]


def test_webhook_twice_comes_again_after_its_2xx(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_twice:first=1") as (base_url, hook, received):
        twice = start_with(base_url, hook)
        deliveries = [received.get(timeout=PATIENCE) for _ in range(2)]
        once = start_with(base_url, hook)
        deliveries += [received.get(timeout=PATIENCE)]
        assert [d.headers["X-Lamina-Webhook-Request-Id"] for d in deliveries] == [twice, twice, once]
        verify(base_url, deliveries[1])
    assert deliveries[0].body == deliveries[1].body


def test_a_forged_webhook_is_signed_with_a_key_that_nobody_lists(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_forged:tries=1", answers=(401,)) as (base_url, hook, received):
        start_with(base_url, hook)
        forged, signed = (received.get(timeout=PATIENCE) for _ in range(2))
        assert [is_signed_with(key, forged) for key in listed_keys(base_url)] == [False]
        verify(base_url, signed)
        assert forged.body == signed.body
        assert statuses(tmp_path, 2) == [(1, 401, "webhook_forged"), (2, 200, None)]


def test_a_stale_webhook_was_signed_too_long_ago(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_stale") as (base_url, hook, received):
        ended = wait_for_end(base_url, start_with(base_url, hook))
        delivery = received.get(timeout=PATIENCE)
        verify(base_url, delivery)
    at = datetime.fromisoformat(ended["completedAt"]).timestamp()
    assert at - 601 < int(delivery.headers["X-Lamina-Webhook-Timestamp"]) < at - 300


def test_the_header_of_a_webhook_can_name_another_id(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_wrong_id") as (base_url, hook, received):
        execution_id = start_with(base_url, hook)
        delivery = received.get(timeout=PATIENCE)
        verify(base_url, delivery)
    assert delivery.headers["X-Lamina-Webhook-Request-Id"] != execution_id
    assert json.loads(delivery.body)["data"]["executionId"] == execution_id


def test_after_a_rotation_the_new_key_signs_and_the_one_before_is_listed_first(tmp_path: Path) -> None:
    with faulty(tmp_path, "webhook_key_rotated:after=1") as (base_url, hook, received):
        start_with(base_url, hook)
        (first,) = listed_keys(base_url)
        assert is_signed_with(first, received.get(timeout=PATIENCE))
        start_with(base_url, hook)
        assert listed_keys(base_url)[0] == first
        rotated = received.get(timeout=PATIENCE)
        assert [is_signed_with(key, rotated) for key in listed_keys(base_url)] == [False, True]
        start_with(base_url, hook)
        second, third = listed_keys(base_url)
        assert is_signed_with(third, received.get(timeout=PATIENCE))
        assert first not in {second, third}
        kids = [key["kid"] for key in get(base_url, "/v1/webhooks/signing-key").json()["keys"]]
    assert kids == ["lamina-sandbox-webhook-v2", "lamina-sandbox-webhook-v3"]
    # What signs now is kept.
    with embedded(SandboxOptions(data=tmp_path)) as base_url:
        assert listed_keys(base_url) == [second, third]
