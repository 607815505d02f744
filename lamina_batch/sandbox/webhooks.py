"""Signed webhook deliveries (API.md 6), and the key that signs them."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lamina_batch.sandbox.executions import Execution
    from lamina_batch.sandbox.journal import Journal

#: seconds before the second, third and fourth try
RETRY_DELAYS = (5.0, 30.0, 120.0)
#: seconds that a receiver has for its answer
ANSWER_TIMEOUT = 15.0

_USER_ID = "user_sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookKey:
    private: Ed25519PrivateKey

    @classmethod
    def from_seed(cls, seed: bytes) -> WebhookKey:
        """The key that these 32 bytes make."""
        return cls(private=Ed25519PrivateKey.from_private_bytes(seed))

    def jwk(self) -> dict[str, str]:
        """The public half as `GET /v1/webhooks/signing-key` lists it (API.md 2.6)."""
        x = base64.urlsafe_b64encode(self.private.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "x": x,
            "kid": "lamina-sandbox-webhook-v1",
            "use": "sig",
            "alg": "EdDSA",
        }

    def headers(self, body: bytes, *, execution_id: str, now: float) -> dict[str, str]:
        """The headers of one delivery: the signature is over the timestamp's text, a dot, and the raw body."""
        timestamp = str(int(now))
        return {
            "Content-Type": "application/json",
            "X-Lamina-Webhook-Signature": self.private.sign(f"{timestamp}.".encode() + body).hex(),
            "X-Lamina-Webhook-Timestamp": timestamp,
            "X-Lamina-Webhook-Request-Id": execution_id,
            "X-Lamina-Webhook-User-Id": _USER_ID,
        }


class Deliveries:
    """Tells receivers about executions that ended: one try, and three more while no 2xx comes back.

    What is due is known to this process only. After a restart, executions that have yet to end are scheduled again, and
    those that ended meanwhile are not: a client that waits for webhooks alone loses them, as it may with the service.
    """

    def __init__(
        self,
        *,
        key: WebhookKey,
        view: Callable[[Execution, float], Mapping[str, Any]],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        speed: float,
        journal: Journal | None,
    ) -> None:
        self._key = key
        self._view = view
        self._clock = clock
        self._sleep = sleep
        self._speed = speed
        self._journal = journal
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def schedule(self, execution: Execution) -> None:
        """Deliver at the end of this execution, if it names a webhook and ever ends."""
        if execution.webhook is None or execution.ending == "never":
            return
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT))
        # The query is the receiver's: it must come back byte for byte.
        url = URL(execution.webhook, encoded=execution.webhook.isascii())
        task = asyncio.create_task(self._deliver(execution, url, self._session))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Drop what has not been delivered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _deliver(self, execution: Execution, url: URL, session: aiohttp.ClientSession) -> None:
        await self._sleep(execution.ended_at - self._clock())
        # A sleep can end a moment early, and the wall clock can be set back: the end is the end.
        shown = self._view(execution, max(self._clock(), execution.ended_at))
        body = json.dumps({"data": shown}, separators=(",", ":")).encode()
        for attempt, delay in enumerate((0.0, *RETRY_DELAYS), start=1):
            await self._sleep(delay / self._speed)
            status = await self._try(execution, url, body, session)
            if self._journal is not None:
                self._journal.append(
                    {
                        "at": self._clock(),
                        "execution_id": execution.execution_id,
                        "url": execution.webhook,
                        "attempt": attempt,
                        "status": status,
                    }
                )
            if status is not None and 200 <= status < 300:
                return

    async def _try(self, execution: Execution, url: URL, body: bytes, session: aiohttp.ClientSession) -> int | None:
        """The status that came back; None where none came in time."""
        headers = self._key.headers(body, execution_id=execution.execution_id, now=self._clock())
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None
