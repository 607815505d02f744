"""The receiver of webhooks on real sockets: what it takes, what it refuses, how little it says (docs/lamina-api.md,
"Webhooks").
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import os
import random
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from process import PATIENCE, lasting_port
from runtimes import make_runtime
from sandbox_support import CARTOONIFY, journal, post, wait_for_end

from lamina_batch.client.budget import Budget
from lamina_batch.client.lamina import EXECUTIONS, Execution, LaminaClient, parse_execution
from lamina_batch.errors import CredentialsError, LaminaBatchError, ServiceError, StateError
from lamina_batch.execution.webhooks import ReceiverLimits, WebhookReceiver, local_url, webhook_url
from lamina_batch.ledger.job import DeliveryOutcome
from lamina_batch.sandbox import SANDBOX_KEY, SandboxOptions, embedded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

AT = 1_760_000_000
TOKEN = "Tb7_kq-92"
SIGNATURE, TIMESTAMP, REQUEST_ID = (f"X-Lamina-Webhook-{name}" for name in ("Signature", "Timestamp", "Request-Id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A service that signs, with Python's cryptography."""

    private: Ed25519PrivateKey

    @classmethod
    def numbered(cls, number: int) -> Signer:
        return cls(private=Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))

    def jwk(self) -> dict[str, object]:
        x = base64.urlsafe_b64encode(self.private.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "v1", "use": "sig", "alg": "EdDSA"}

    def headers(self, content: bytes, *, execution_id: str = "e1", at: int = AT) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            SIGNATURE: self.private.sign(f"{at}.".encode() + content).hex(),
            TIMESTAMP: str(at),
            REQUEST_ID: execution_id,
            "X-Lamina-Webhook-User-Id": "user_1",
        }


SERVICE, STRANGER, NEW = Signer.numbered(1), Signer.numbered(2), Signer.numbered(3)


def body(execution_id: str = "e1", status: str = "completed", **more: object) -> bytes:
    output = {"id": "n1", "label": "Front", "type": "image", "value": "https://x/1.png", "status": "completed"}
    return json.dumps({"data": {"executionId": execution_id, "status": status, "outputs": [output], **more}}).encode()


def parse(data: object) -> Execution | None:
    return parse_execution(data.get("data"), EXECUTIONS) if isinstance(data, dict) else None


@dataclass(slots=True, kw_only=True)
class Scene:
    """A receiver's surroundings: the clocks, the service's keys, the engine."""

    monotonic: float = 1000.0
    epoch: float = float(AT)
    #: what the service lists
    listed: Sequence[Mapping[str, object]] = field(default_factory=lambda: [SERVICE.jwk()])
    keys_asked: int = 0
    #: what asking for the keys raises
    keys_error: Exception | None = None
    #: is waited for before the keys are listed
    keys_wait: asyncio.Event | None = None
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    taken: DeliveryOutcome = DeliveryOutcome.COMMITTED
    #: what the engine does first
    before: Callable[[], Awaitable[object]] | None = None
    delivered: list[tuple[str, Execution]] = field(default_factory=list)
    #: something was
    here: asyncio.Event = field(default_factory=asyncio.Event)
    notes: list[str] = field(default_factory=list)

    async def keys(self) -> Sequence[Mapping[str, object]]:
        self.keys_asked += 1
        if self.keys_wait is not None:
            await self.keys_wait.wait()
        if self.keys_error is not None:
            raise self.keys_error
        return self.listed

    async def deliver(self, token: str, execution: Execution) -> DeliveryOutcome:
        self.delivered.append((token, execution))
        self.here.set()
        if self.before is not None:
            await self.before()
        return self.taken

    def receiver(
        self, *, listen: tuple[str, int] = ("127.0.0.1", 0), bounds: ReceiverLimits | None = None
    ) -> WebhookReceiver:
        return WebhookReceiver(
            listen=listen,
            public_url="https://hooks.example.com/lamina",
            keys=self.keys,
            knows=lambda token: token in self.tokens,
            parse=parse,
            deliver=self.deliver,
            runtime=make_runtime(now=lambda: self.monotonic, wall=lambda: self.epoch),
            note=self.notes.append,
            bounds=bounds or ReceiverLimits(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """The way to a receiver, as the tunnel has it."""

    receiver: WebhookReceiver
    session: aiohttp.ClientSession

    async def send(
        self,
        content: bytes | AsyncIterator[bytes],
        headers: Mapping[str, str] | Sequence[tuple[str, str]],
        *,
        path: str = f"/lamina/{TOKEN}",
        method: str = "POST",
    ) -> Answer:
        url = f"{local_url(self.receiver.address)}{path}"
        # A large body in one piece makes aiohttp's client warn.
        data = io.BytesIO(content) if isinstance(content, bytes) else content
        async with self.session.request(method, url, data=data, headers=headers) as response:
            return Answer(status=response.status, headers=response.headers, body=await response.read())

    async def deliver(self, signer: Signer = SERVICE, content: bytes | None = None) -> int:
        """The status that a delivery gets."""
        content = body() if content is None else content
        return (await self.send(content, signer.headers(content))).status

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self.receiver.address)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def raw(self, data: bytes) -> bytes:
        """What comes back for these bytes until the connection is closed."""
        async with self.connection() as (reader, writer):
            writer.write(data)
            return await reader.read()


@asynccontextmanager
async def opened(scene: Scene, **options: Any) -> AsyncIterator[Door]:
    async with scene.receiver(**options) as receiver, aiohttp.ClientSession() as session:
        yield Door(receiver=receiver, session=session)


# -- signatures by another implementation ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSSL:
    """A service that signs, with OpenSSL's command line."""

    folder: Path

    def call(self, *args: str) -> bytes:
        return subprocess.run(
            ["openssl", *args], cwd=self.folder, capture_output=True, check=True, timeout=PATIENCE
        ).stdout

    def jwk(self) -> dict[str, object]:
        self.call("genpkey", "-algorithm", "ed25519", "-out", "key.pem")
        public = self.call("pkey", "-in", "key.pem", "-pubout", "-outform", "DER")[-32:]
        return {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(public).rstrip(b"=").decode()}

    def sign(self, content: bytes, at: int = AT) -> str:
        (self.folder / "message").write_bytes(f"{at}.".encode() + content)
        return self.call("pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "message").hex()


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    if shutil.which("openssl") is None and "CI" not in os.environ:
        pytest.skip("OpenSSL's command line is missing")
    return OpenSSL(folder=tmp_path)


async def test_what_openssl_signed_is_taken_and_what_it_did_not_sign_is_not(openssl: OpenSSL) -> None:
    scene = Scene(listed=[STRANGER.jwk(), openssl.jwk()])
    content = body(note="café, 1:1") + b"\n"
    headers = {SIGNATURE: openssl.sign(content), TIMESTAMP: str(AT), REQUEST_ID: "e1"}
    async with opened(scene) as door:
        assert (await door.send(content, headers)).status == 200
        assert (await door.send(content.strip(), headers)).status == 401
        assert (await door.send(content, headers | {TIMESTAMP: str(AT + 1)})).status == 401
    ((token, execution),) = scene.delivered
    assert (token, execution.execution_id, execution.ended) == (TOKEN, "e1", True)
    assert [output.value for output in execution.outputs] == ["https://x/1.png"]


# -- what is refused -------------------------------------------------------------------------------------------


def signed(content: bytes, without: str = "", **options: Any) -> tuple[bytes, dict[str, str]]:
    headers = SERVICE.headers(content, **options)
    return content, {name: text for name, text in headers.items() if name != without}


REFUSED: dict[str, tuple[tuple[bytes, dict[str, str]], int]] = {
    "no signature": (signed(body(), without=SIGNATURE), 401),
    "no timestamp": (signed(body(), without=TIMESTAMP), 401),
    "no headers at all": ((body(), {}), 401),
    "signature cut": ((body(), SERVICE.headers(body()) | {SIGNATURE: "00"}), 401),
    "signed by a stranger": ((body(), STRANGER.headers(body())), 401),
    "another body": ((body(), SERVICE.headers(body("e2"))), 401),
    "another timestamp": ((body(), SERVICE.headers(body()) | {TIMESTAMP: str(AT - 1)}), 401),
    "a fraction": ((body(), SERVICE.headers(body()) | {TIMESTAMP: f"{AT}.0"}), 401),
    "stale": (signed(body(), at=AT - 301), 401),
    "from the future": (signed(body(), at=AT + 301), 401),
    "no JSON": (signed(b"completed"), 400),
    "nothing": (signed(b""), 400),
    "no object": (signed(b"[1]"), 400),
    "no execution": (signed(b'{"data":{"status":"completed"}}'), 400),
    "no end to the nesting": (signed(b"[" * 100_000), 400),
    "not UTF-8": (signed(body().replace(b"Front", b"\xff\xfe")), 400),
    "no Request-Id": (signed(body(), without=REQUEST_ID), 400),
    "Request-Id of another": (signed(body(), execution_id="e2"), 400),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_delivery_that_is_not_right_is_refused_and_told_nothing(case: str) -> None:
    (content, headers), status = REFUSED[case]
    scene = Scene()
    async with opened(scene) as door:
        answer = await door.send(content, headers)
        assert (answer.status, answer.body) == (status, b"")
        assert answer.headers["Server"] == "receiver"
        assert scene.delivered == []
        assert await door.deliver() == 200
    assert len(scene.notes) == 1
    assert "refused" in scene.notes[0]
    assert scene.keys_asked == 1


@pytest.mark.parametrize("at", [AT - 300, AT + 300])
async def test_five_minutes_either_way_are_fresh(at: int) -> None:
    async with opened(Scene()) as door:
        assert (await door.send(*signed(body(), at=at))).status == 200


@pytest.mark.parametrize("name", [SIGNATURE, TIMESTAMP, REQUEST_ID])
async def test_a_header_that_is_there_twice_is_not_chosen_from(name: str) -> None:
    headers = SERVICE.headers(body())
    async with opened(Scene()) as door:
        answer = await door.send(body(), [*headers.items(), (name, headers[name])])
    assert answer.status == (400 if name == REQUEST_ID else 401)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "DELETE"])
async def test_only_post_is_a_delivery(method: str) -> None:
    scene = Scene()
    async with opened(scene) as door:
        answer = await door.send(body(), SERVICE.headers(body()), method=method)
        assert (answer.status, answer.body, answer.headers["Allow"]) == (405, b"", "POST")
    assert (scene.delivered, scene.notes) == ([], [])


@pytest.mark.parametrize(
    "path",
    ["/", "/lamina", "/lamina/", f"/lamina/{TOKEN}x", f"/lamina/{TOKEN}/", f"/{TOKEN}/lamina", f"/?{TOKEN}", "/%FF"],
)
async def test_a_path_that_ends_in_no_known_token_is_404(path: str) -> None:
    """A signed delivery, so that only the path can be at fault."""
    scene = Scene()
    async with opened(scene) as door:
        answer = await door.send(body(), SERVICE.headers(body()), path=path)
        assert (answer.status, answer.body) == (404, b"")
    assert (scene.delivered, scene.notes) == ([], [])


async def test_bytes_in_the_path_that_are_no_text_are_404() -> None:
    async with opened(Scene()) as door:
        answer = await door.raw(b"POST /lamina/\xff\xfe HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.0 400 "))


async def test_junk_at_an_unknown_token_never_costs_a_request_for_keys() -> None:
    scene = Scene()
    async with opened(scene) as door:
        scene.monotonic += 1000
        assert (await door.send(body(), STRANGER.headers(body()), path="/lamina/guess")).status == 404
    assert scene.keys_asked == 1


async def test_each_kind_of_refusal_is_told_once() -> None:
    scene = Scene()
    async with opened(scene) as door:
        for _ in range(3):
            await door.deliver(STRANGER)
            await door.send(*signed(body(), at=AT - 400))
    assert len(scene.notes) == 2
    assert any("signed 400 s ago" in note and "clock" in note for note in scene.notes)


async def test_a_packed_body_is_verified_as_it_came() -> None:
    """Nothing is unpacked for a stranger; and what the service signed is what is on the wire."""
    scene = Scene()
    packed = gzip.compress(body())
    async with opened(scene) as door:
        unsigned = await door.send(packed, SERVICE.headers(body()) | {"Content-Encoding": "gzip"})
        odd = await door.send(packed, SERVICE.headers(packed) | {"Content-Encoding": "gzip"})
    assert (unsigned.status, odd.status, scene.delivered) == (401, 400, [])


# -- what is handed over ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
async def test_every_end_is_handed_over(status: str) -> None:
    scene = Scene()
    async with opened(scene) as door:
        assert await door.deliver(content=body(status=status)) == 200
    assert [execution.status for _, execution in scene.delivered] == [status]


@pytest.mark.parametrize("status", ["queued", "running", "dreaming"])
async def test_what_has_not_ended_is_answered_and_left(status: str) -> None:
    scene = Scene()
    async with opened(scene) as door:
        assert await door.deliver(content=body(status=status)) == 200
    assert scene.delivered == []


@pytest.mark.parametrize(
    ("taken", "status"),
    [(DeliveryOutcome.COMMITTED, 200), (DeliveryOutcome.UNKNOWN, 404), (DeliveryOutcome.UNCOMMITTED, 503)],
)
async def test_the_answer_says_what_became_of_it(taken: DeliveryOutcome, status: int) -> None:
    scene = Scene(taken=taken)
    async with opened(scene) as door:
        assert await door.deliver() == status


async def test_2xx_comes_after_the_commit_and_not_before() -> None:
    committed = asyncio.Event()
    scene = Scene(before=committed.wait)
    async with opened(scene) as door, asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(door.deliver())
        await scene.here.wait()
        # A round trip later there still is no answer.
        assert (await door.send(b"", {}, method="GET")).status == 405
        assert not answering.done()
        committed.set()
        assert await answering == 200


async def test_duplicates_are_handed_over_and_answered_alike() -> None:
    """The ledger is what knows that it has it already."""
    scene = Scene()
    async with opened(scene) as door:
        assert [await door.deliver() for _ in range(3)] == [200, 200, 200]
    assert [execution.execution_id for _, execution in scene.delivered] == ["e1"] * 3


async def test_many_deliveries_are_in_hand_at_once() -> None:
    """One commit can take all of them: each waits for it, none for another."""
    count = 50
    everybody = asyncio.Event()
    scene = Scene(tokens={f"t{n}" for n in range(count)})

    async def until_all_are_here() -> None:
        if len(scene.delivered) == count:
            everybody.set()
        await everybody.wait()

    scene.before = until_all_are_here
    async with opened(scene) as door:
        contents = [body(f"e{n}") for n in range(count)]
        sent = [
            door.send(content, SERVICE.headers(content, execution_id=f"e{n}"), path=f"/t{n}")
            for n, content in enumerate(contents)
        ]
        assert {answer.status for answer in await asyncio.gather(*sent)} == {200}
    assert {(token, execution.execution_id) for token, execution in scene.delivered} == {
        (f"t{n}", f"e{n}") for n in range(count)
    }


@pytest.mark.parametrize("error", [StateError("the disk is full"), KeyError("a bug")], ids=["ledger", "bug"])
async def test_a_delivery_that_breaks_the_engine_is_503_and_told_to_our_own_people(error: Exception) -> None:
    async def fail() -> None:
        raise error

    scene = Scene(before=fail)
    async with opened(scene) as door:
        answer = await door.send(body(), SERVICE.headers(body()))
        assert (answer.status, answer.body) == (503, b"")
        scene.before = None
        assert await door.deliver() == 200
    assert len(scene.notes) == 1
    assert ("the disk is full" in scene.notes[0]) or ("a bug" in scene.notes[0])


async def test_a_commit_that_takes_too_long_is_503() -> None:
    scene = Scene(before=asyncio.Event().wait)
    async with opened(scene, bounds=ReceiverLimits(answer=0.2)) as door:
        assert await door.deliver() == 503


async def test_a_sender_that_does_not_wait_for_the_answer_is_taken_all_the_same() -> None:
    """The service hangs up after 15 s, and a tunnel when it likes; what it said is said."""
    gone, committed = asyncio.Event(), asyncio.Event()

    async def commit() -> None:
        await gone.wait()
        committed.set()

    content = body()
    head = "".join(f"{name}: {text}\r\n" for name, text in SERVICE.headers(content).items())
    scene = Scene(before=commit)
    async with opened(scene) as door:
        async with door.connection() as (_, writer):
            writer.write(f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode())
            writer.write(content)
            await scene.here.wait()
            writer.transport.abort()
        # A round trip, so that the receiver has met the abort.
        await door.send(b"", {}, method="GET")
        gone.set()
        await committed.wait()


# -- keys ------------------------------------------------------------------------------------------------------


async def test_a_new_key_is_fetched_once_a_minute_at_most_and_the_old_one_stays_good() -> None:
    scene = Scene()
    async with opened(scene) as door:
        scene.listed = [SERVICE.jwk(), NEW.jwk()]
        scene.monotonic += 59.9
        assert (await door.deliver(NEW), scene.keys_asked) == (401, 1)
        scene.monotonic += 0.1
        assert (await door.deliver(NEW), scene.keys_asked) == (200, 2)
        assert (await door.deliver(SERVICE), await door.deliver(NEW), scene.keys_asked) == (200, 200, 2)
        scene.monotonic += 59.9
        assert (await door.deliver(STRANGER), scene.keys_asked) == (401, 2)
        scene.monotonic += 0.1
        assert (await door.deliver(STRANGER), scene.keys_asked) == (401, 3)
        assert (await door.deliver(STRANGER), scene.keys_asked) == (401, 3)


async def test_a_key_that_is_no_longer_listed_is_no_longer_good() -> None:
    scene = Scene()
    async with opened(scene) as door:
        scene.listed = [NEW.jwk()]
        scene.monotonic += 60
        assert await door.deliver(NEW) == 200
        assert await door.deliver(SERVICE) == 401


async def test_only_a_signature_that_no_key_fits_is_a_reason_to_ask_for_keys() -> None:
    scene = Scene()
    async with opened(scene) as door:
        scene.monotonic += 60
        assert (await door.send(*signed(body(), at=AT - 301))).status == 401
        assert (await door.send(body(), {})).status == 401
        assert (await door.send(*signed(b"no JSON"))).status == 400
    assert scene.keys_asked == 1


async def test_deliveries_by_a_new_key_that_come_together_share_one_request() -> None:
    scene = Scene()
    async with opened(scene) as door, asyncio.TaskGroup() as tasks:
        scene.listed, scene.keys_wait = [NEW.jwk()], asyncio.Event()
        scene.monotonic += 60
        answers = [tasks.create_task(door.deliver(NEW)) for _ in range(10)]
        # The old key needs no request, and does not wait for one.
        assert await door.deliver(SERVICE) == 200
        scene.keys_wait.set()
        assert [await answer for answer in answers] == [200] * 10
    assert scene.keys_asked == 2


@pytest.mark.parametrize("failure", ["no answer", "no key"])
async def test_keys_that_cannot_be_had_are_503_and_asked_for_a_minute_later(failure: str) -> None:
    scene = Scene()
    async with opened(scene) as door:
        scene.monotonic += 60
        if failure == "no answer":
            scene.keys_error = ServiceError("no usable answer in 20 s")
        else:
            scene.listed = []
        assert (await door.deliver(NEW), scene.keys_asked) == (503, 2)
        assert (await door.deliver(NEW), scene.keys_asked) == (503, 2)
        # What is known stays known.
        assert await door.deliver(SERVICE) == 200
        scene.keys_error, scene.listed = None, [NEW.jwk()]
        scene.monotonic += 60
        assert (await door.deliver(NEW), scene.keys_asked) == (200, 3)
        # Now it is the signature again that does not fit.
        assert (await door.deliver(STRANGER), scene.keys_asked) == (401, 3)
    assert len(scene.notes) == 2
    assert "cannot be verified for now" in scene.notes[0]


async def test_keys_that_come_too_late_for_one_delivery_serve_the_next() -> None:
    """A busy run may have no request to spare for a while."""
    scene = Scene()
    async with opened(scene, bounds=ReceiverLimits(answer=0.3)) as door:
        scene.listed, scene.keys_wait = [NEW.jwk()], asyncio.Event()
        scene.monotonic += 60
        assert await door.deliver(NEW) == 503
        scene.keys_wait.set()
        assert await door.deliver(NEW) == 200
    assert scene.keys_asked == 2


# -- bounds ----------------------------------------------------------------------------------------------------

LARGE = 4096
EXACT = body(pad="x" * (LARGE - len(body(pad=""))))


async def chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


@pytest.mark.parametrize("length", ["known", "unknown"])
async def test_a_body_may_be_as_large_as_the_bound_and_no_byte_larger(length: str) -> None:
    scene = Scene()
    async with opened(scene, bounds=ReceiverLimits(body=LARGE)) as door:
        for content, status in ((EXACT, 200), (EXACT + b"\n", 413)):
            sent = content if length == "known" else chunks(content)
            assert (await door.send(sent, SERVICE.headers(content))).status == status
    assert len(scene.delivered) == 1


async def test_the_bound_is_4_mib_unless_said() -> None:
    content = body(pad="x" * (4 * 1024 * 1024 - len(body(pad=""))))
    async with opened(Scene()) as door:
        assert (await door.send(content, SERVICE.headers(content))).status == 200
        content += b"\n"
        assert (await door.send(content, SERVICE.headers(content))).status == 413


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes() -> None:
    async with opened(Scene(), bounds=ReceiverLimits(closing=0.1)) as door, door.connection() as (reader, writer):
        writer.write(f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_a_body_without_an_end_is_refused_when_it_is_too_large() -> None:
    async with (
        opened(Scene(), bounds=ReceiverLimits(body=LARGE, closing=0.1)) as door,
        door.connection() as (reader, writer),
    ):
        writer.write(f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n" + b"1\r\nx\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_the_body_of_an_unknown_token_is_not_read() -> None:
    async with opened(Scene(), bounds=ReceiverLimits(closing=0.1)) as door, door.connection() as (reader, writer):
        writer.write(b"POST /guess HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 404 Not Found\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Secret: " + b"y" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"X-Secret: y\r\n" * 500 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 secret \x1b[31m\r\n\r\n",
        b"secret\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\nX-Secret: secret\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nsecret",
    ],
    ids=["long path", "long header", "many headers", "TLS", "no HTTP", "negative length", "two lengths"],
)
async def test_what_is_not_http_is_refused_without_an_echo(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Neither to the sender nor to a log, which without handlers is the terminal."""
    scene = Scene()
    async with opened(scene) as door:
        answer = await door.raw(head)
        status = int(answer.split(b" ", 2)[1])
        assert 400 <= status < 500
        assert answer.endswith(b"\r\n\r\n")
        assert b"secret" not in answer.lower()
        assert b"aiohttp" not in answer.lower()
        assert await door.deliver() == 200
    assert caplog.records == []
    assert scene.notes == []


async def test_a_broken_chunk_is_400() -> None:
    scene = Scene()
    async with opened(scene) as door:
        head = f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        answer = await door.raw(head + b"zz\r\nx\r\n")
        assert answer.split(b" ", 2)[1] == b"400"
        assert answer.endswith(b"\r\n\r\n")
        assert scene.delivered == []
        assert await door.deliver() == 200


async def test_a_sender_that_hangs_up_in_the_middle_of_the_body_changes_nothing() -> None:
    scene = Scene()
    content = body()
    head = "".join(f"{name}: {text}\r\n" for name, text in SERVICE.headers(content).items())
    async with opened(scene) as door:
        async with door.connection() as (_, writer):
            writer.write(f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode())
            writer.write(content[:-1])
            await writer.drain()
        assert await door.deliver() == 200
    assert len(scene.delivered) == 1
    assert scene.notes == []


async def test_a_head_that_does_not_end_is_cut_off() -> None:
    async with opened(Scene(), bounds=ReceiverLimits(head=0.3)) as door, door.connection() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await reader.read() == b""


async def test_a_connection_that_says_nothing_is_cut_off() -> None:
    async with opened(Scene(), bounds=ReceiverLimits(head=0.3)) as door, door.connection() as (reader, _):
        assert await reader.read() == b""


async def test_a_head_in_time_is_not_cut_off_while_the_ledger_is_slow() -> None:
    late = asyncio.Event()
    scene = Scene(before=late.wait)
    async with opened(scene, bounds=ReceiverLimits(head=0.2)) as door, asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(door.deliver())
        async with door.connection() as (reader, _):
            # Opened later, so cut off later.
            await scene.here.wait()
            assert await reader.read() == b""
        late.set()
        assert await answering == 200


async def test_a_body_that_comes_too_slowly_is_408() -> None:
    async with (
        opened(Scene(), bounds=ReceiverLimits(answer=0.3, closing=0.1)) as door,
        door.connection() as (reader, writer),
    ):
        writer.write(f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx".encode())
        assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"


async def test_one_connection_carries_one_request() -> None:
    async with opened(Scene()) as door:
        content = body()
        head = "".join(f"{name}: {text}\r\n" for name, text in SERVICE.headers(content).items())
        request = (
            f"POST /{TOKEN} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        )
        answer = await door.raw(request + request)
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in answer


async def test_a_connection_too_many_is_closed_and_those_before_are_not() -> None:
    async with opened(Scene(), bounds=ReceiverLimits(connections=2, head=1000)) as door:
        async with door.connection(), door.connection() as (reader, writer):
            # The backlog is a queue: these two are accepted before a third is.
            async with door.connection() as (third, _):
                assert await third.read() == b""
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 405 Method Not Allowed\r\n"
        for _ in range(1000):
            try:
                assert await door.deliver() == 200
            except aiohttp.ClientConnectionError:
                # The receiver has yet to see that the two have gone.
                continue
            break
        else:
            pytest.fail("the places are never free again")


# -- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("public_url", "token", "expected"),
    [
        ("https://hooks.example.com/lamina", "abc", "https://hooks.example.com/lamina/abc"),
        ("https://hooks.example.com/lamina/", "abc", "https://hooks.example.com/lamina/abc"),
        ("https://hooks.example.com", "abc", "https://hooks.example.com/abc"),
        ("http://127.0.0.1:8788/", "abc", "http://127.0.0.1:8788/abc"),
        ("https://hooks.example.com/a?tenant=7&x=%2F", "abc", "https://hooks.example.com/a/abc?tenant=7&x=%2F"),
        ("https://hooks.example.com/a%20b#part", "abc", "https://hooks.example.com/a%20b/abc"),
        ("https://hooks.example.com/a", "ä/b c?d#e%", "https://hooks.example.com/a/%C3%A4%2Fb%20c%3Fd%23e%25"),
    ],
)
def test_the_token_is_the_last_segment_of_the_public_url(public_url: str, token: str, expected: str) -> None:
    assert webhook_url(public_url, token) == expected


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        (("127.0.0.1", 8788), "http://127.0.0.1:8788"),
        (("0.0.0.0", 8788), "http://127.0.0.1:8788"),
        (("localhost", 80), "http://localhost:80"),
        (("::1", 8788), "http://[::1]:8788"),
        (("::", 8788), "http://[::1]:8788"),
    ],
)
def test_the_way_to_the_receiver_on_this_computer(listen: tuple[str, int], expected: str) -> None:
    assert local_url(listen) == expected


@pytest.mark.parametrize("token", ["abc", "a b", "a/b", "a?b#c", "%41", "ä→", "..", "a+b", "a%2Fb"])
async def test_a_token_comes_back_as_it_was_whatever_is_in_it(token: str) -> None:
    scene = Scene(tokens={token})
    async with opened(scene) as door:
        path = door.receiver.url_for(token).removeprefix("https://hooks.example.com")
        # By hand: clients resolve `..` themselves.
        content = body()
        head = "".join(f"{name}: {text}\r\n" for name, text in SERVICE.headers(content).items())
        request = f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        assert (await door.raw(request)).startswith(b"HTTP/1.1 200 OK\r\n")
    assert [given for given, _ in scene.delivered] == [token]


@pytest.mark.parametrize("path", [f"/{TOKEN}", f"/a/b/c/{TOKEN}", f"//{TOKEN}", f"/lamina/{TOKEN}?tenant=7&x=/y"])
async def test_a_proxy_may_cut_and_add_what_stands_before_the_token(path: str) -> None:
    async with opened(Scene()) as door:
        content = body()
        assert (await door.send(content, SERVICE.headers(content), path=path)).status == 200


async def test_a_taken_port_ends_the_run_before_anything_is_asked_or_bought() -> None:
    scene = Scene()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaminaBatchError) as refused:
            async with scene.receiver(listen=("127.0.0.1", port)):
                pass
    # The service has no part in it.
    assert type(refused.value) is LaminaBatchError
    assert (refused.value.exit_code, refused.value.where) == (1, f"run.webhook.listen, 127.0.0.1:{port}")
    assert "another program listens there" in (refused.value.hint or "")
    assert scene.keys_asked == 0


async def test_two_receivers_cannot_share_a_port() -> None:
    async with opened(Scene()) as door:
        with pytest.raises(LaminaBatchError, match="cannot listen"):
            async with Scene().receiver(listen=door.receiver.address):
                pass
        assert await door.deliver() == 200


@pytest.mark.parametrize(
    ("host", "port", "hint"),
    [
        ("192.0.2.1", 0, "this computer has no such address"),
        ("127.0.0.1", 70_000, "give another host and port"),
        ("no-such-host.invalid", 0, "give another host and port"),
        ("a" * 100, 0, "give another host and port"),
    ],
)
async def test_an_address_that_is_not_ours_ends_the_run(host: str, port: int, hint: str) -> None:
    with pytest.raises(LaminaBatchError) as refused:
        async with Scene().receiver(listen=(host, port)):
            pass
    assert refused.value.exit_code == 1
    assert hint in (refused.value.hint or "")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this computer has no IPv6"))


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", IPV6])
async def test_it_listens_where_it_is_told(host: str) -> None:
    """On every address as in a container, by a name, or by IPv6."""
    scene = Scene()
    async with scene.receiver(listen=(host, 0)) as receiver, aiohttp.ClientSession() as session:
        content = body()
        url = f"{local_url(receiver.address)}/{TOKEN}"
        async with session.post(url, data=content, headers=SERVICE.headers(content)) as response:
            assert response.status == 200
        assert receiver.address[0] == {"localhost": "127.0.0.1"}.get(host, host)


@pytest.mark.parametrize(
    ("listed", "error", "expected"),
    [
        ([SERVICE.jwk()], CredentialsError("the service refuses the API key"), "refuses the API key"),
        ([], None, "lists no key"),
        ([{"kty": "RSA", "n": "x", "e": "AQAB"}], None, "lists no key"),
    ],
    ids=["refused", "no key", "no Ed25519 key"],
)
async def test_without_keys_the_run_does_not_begin_and_the_port_is_free_again(
    listed: list[Mapping[str, object]], error: Exception | None, expected: str
) -> None:
    scene = Scene(listed=listed, keys_error=error)
    listen = "127.0.0.1", lasting_port()
    with pytest.raises(ServiceError, match=expected):
        async with scene.receiver(listen=listen):
            pass
    socket.create_server(listen).close()


# -- the end ---------------------------------------------------------------------------------------------------


async def test_leaving_lets_the_delivery_in_hand_finish_and_takes_no_other() -> None:
    late = asyncio.Event()
    scene = Scene(before=late.wait)
    async with aiohttp.ClientSession() as session:
        async with scene.receiver(bounds=ReceiverLimits(closing=20)) as receiver:
            door = Door(receiver=receiver, session=session)
            answering = asyncio.create_task(door.deliver())
            await scene.here.wait()
            asyncio.get_running_loop().call_later(0.2, late.set)
        assert await answering == 200
        with pytest.raises(aiohttp.ClientConnectionError):
            await door.deliver()


async def test_leaving_does_not_wait_for_ever() -> None:
    scene = Scene(before=asyncio.Event().wait)
    async with aiohttp.ClientSession() as session:
        async with scene.receiver(bounds=ReceiverLimits(closing=0.1)) as receiver:
            door = Door(receiver=receiver, session=session)
            answering = asyncio.create_task(door.deliver())
            await scene.here.wait()
            # Nor for one that has said nothing yet.
            reader, writer = await asyncio.open_connection(*receiver.address)
        with pytest.raises(aiohttp.ClientConnectionError):
            await answering
        assert await reader.read() == b""
        writer.close()


# -- with the sandbox, as the service --------------------------------------------------------------------------


def client(base_url: str) -> LaminaClient:
    return LaminaClient(
        base_url=base_url,
        api_key=SANDBOX_KEY,
        budget=Budget(),
        runtime=make_runtime(random=random.Random(0)),
    )


async def test_the_service_delivers_again_what_could_not_be_committed(tmp_path: Path) -> None:
    """The sandbox signs with its own code, fetches nothing of ours, and repeats what was not answered with 2xx."""
    taken = asyncio.Event()
    scene = Scene(taken=DeliveryOutcome.UNCOMMITTED)

    async def commit_the_second() -> None:
        if len(scene.delivered) == 2:
            scene.taken = DeliveryOutcome.COMMITTED
            taken.set()

    scene.before = commit_the_second
    options = SandboxOptions(limit=10**6, speed=1000, data=tmp_path)
    with embedded(options) as base_url:
        async with client(base_url) as service:
            receiver = scene.receiver()
            receiver.keys = service.get_signing_keys
            receiver.runtime = make_runtime(now=lambda: scene.monotonic)
            async with receiver:
                receiver.public_url = f"{local_url(receiver.address)}/hooks?tenant=7"
                webhook = quote(receiver.url_for(TOKEN), safe="")
                started = await asyncio.to_thread(post, base_url, CARTOONIFY, {}, query=f"?webhook={webhook}")
                execution_id = started.json()["data"]["executionId"]
                await taken.wait()
        shown = wait_for_end(base_url, execution_id)
    (token, first), (_, second) = scene.delivered
    assert (token, second.execution_id, second.status) == (TOKEN, execution_id, shown["status"])
    assert [output.value for output in second.outputs] == [output["value"] for output in shown["outputs"]]
    assert first == second
    lines = journal(tmp_path, "webhooks.jsonl")
    assert [line["status"] for line in lines][:2] == [503, 200]
    assert scene.notes == []
