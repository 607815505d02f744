"""The sandbox delivers signed webhooks at the end of an execution (API.md 6)."""

from __future__ import annotations

import base64
import json
import queue
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sandbox_support import CARTOONIFY, get, journal, post, read

from lamina_batch.sandbox import SandboxOptions, embedded
from lamina_batch.sandbox.webhooks import RETRY_DELAYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    path: str
    headers: Message
    body: bytes


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, queue.Queue[Delivery]]]:
    """A server that answers with these statuses in turn, and 200 from then on."""
    received: queue.Queue[Delivery] = queue.Queue()
    answers = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = answers.pop(0) if answers else 200
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/followed")
            self.send_header("Content-Length", "0")
            self.end_headers()
            received.put(Delivery(path=self.path, headers=self.headers, body=body))

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


def start_with(base_url: str, webhook: str) -> str:
    answered = post(base_url, CARTOONIFY, {}, query=f"?webhook={quote(webhook, safe='')}")
    assert answered.status == 202
    assert answered.json()["data"]["webhookUrl"] == webhook
    return str(answered.json()["data"]["executionId"])


def verify(base_url: str, delivery: Delivery) -> None:
    """As a receiver does it: with the key that the service lists, over timestamp, dot and raw body."""
    (key,) = get(base_url, "/v1/webhooks/signing-key").json()["keys"]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
    timestamp = delivery.headers["X-Lamina-Webhook-Timestamp"]
    signature = bytes.fromhex(delivery.headers["X-Lamina-Webhook-Signature"])
    public.verify(signature, f"{timestamp}.".encode() + delivery.body)
    with pytest.raises(InvalidSignature):
        public.verify(signature, f"{timestamp}.".encode() + delivery.body + b" ")


def test_a_delivery_is_signed_and_holds_what_a_read_shows() -> None:
    with receiver() as (hook, received), embedded(SandboxOptions(limit=10**6, speed=5000)) as base_url:
        execution_id = start_with(base_url, f"{hook}?token=a%2Fb%20c&x=1")
        delivery = received.get(timeout=20)
        verify(base_url, delivery)
        assert json.loads(delivery.body) == {"data": read(base_url, execution_id)}
    assert delivery.path == "/hook?token=a%2Fb%20c&x=1"
    assert delivery.headers["X-Lamina-Webhook-Request-Id"] == execution_id
    assert delivery.headers["X-Lamina-Webhook-User-Id"]
    assert delivery.headers["Content-Type"] == "application/json"
    assert json.loads(delivery.body)["data"]["status"] == "completed"


def test_failures_are_delivered() -> None:
    options = SandboxOptions(speed=5000, faults=("failed",))
    with receiver() as (hook, received), embedded(options) as base_url:
        start_with(base_url, hook)
        assert json.loads(received.get(timeout=20).body)["data"]["status"] == "failed"


def test_a_delivery_that_is_not_taken_is_tried_three_times_more(tmp_path: Path) -> None:
    options = SandboxOptions(limit=10**6, speed=5000, data=tmp_path)
    with receiver(500, 404, 302, 500, 500) as (hook, received), embedded(options) as base_url:
        execution_id = start_with(base_url, hook)
        deliveries = [received.get(timeout=20) for _ in range(1 + len(RETRY_DELAYS))]
        for delivery in deliveries:
            verify(base_url, delivery)
    assert {(d.path, d.body) for d in deliveries} == {("/hook", deliveries[0].body)}
    assert received.empty()
    lines = journal(tmp_path, "webhooks.jsonl")
    # The last line is written after its answer has come back, which the end of the sandbox may cut short.
    assert [(line["attempt"], line["status"]) for line in lines][:3] == [(1, 500), (2, 404), (3, 302)]
    assert {(line["execution_id"], line["url"]) for line in lines} == {(execution_id, hook)}


def test_a_2xx_ends_it() -> None:
    options = SandboxOptions(speed=5000)
    with receiver(503, 204, 500, 500, 500, 500) as (hook, received), embedded(options) as base_url:
        first = start_with(base_url, hook)
        told = [received.get(timeout=20).headers["X-Lamina-Webhook-Request-Id"] for _ in range(2)]
        # A third try for the first would fall between the four for the second.
        second = start_with(base_url, hook)
        told += [received.get(timeout=20).headers["X-Lamina-Webhook-Request-Id"] for _ in range(4)]
    assert told == [first] * 2 + [second] * 4


def test_what_ends_after_a_restart_is_delivered(tmp_path: Path) -> None:
    with receiver() as (hook, received):
        with embedded(SandboxOptions(speed=20, data=tmp_path)) as base_url:
            execution_id = start_with(base_url, hook)
        with embedded(SandboxOptions(speed=20, data=tmp_path)):
            assert received.get(timeout=20).headers["X-Lamina-Webhook-Request-Id"] == execution_id
