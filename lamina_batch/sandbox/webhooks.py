"""Signed webhook deliveries (docs/lamina-api.md, "Webhooks"), and the keys that sign them."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from lamina_batch.sandbox.executions import SandboxExecution
    from lamina_batch.sandbox.journal import Journal

#: seconds before the second, third and fourth try
RETRY_DELAYS = (5.0, 30.0, 120.0)
#: Seconds that a receiver has for its answer, at any speed: on a busy machine it is not quick because the sandbox is.
ANSWER_TIMEOUT = 15.0

#: how long before it is sent a stale delivery says that it was signed, seconds: receivers take 300 (docs/lamina-api.md,
#: "Verification")
_STALE_SECONDS = 600
_USER_ID = "user_sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookKey:
    """A key that signs deliveries."""

    private: Ed25519PrivateKey
    kid: str

    @classmethod
    def from_seed(cls, seed: bytes, *, version: int = 1) -> WebhookKey:
        """The key that these 32 bytes make."""
        return cls(private=Ed25519PrivateKey.from_private_bytes(seed), kid=f"lamina-sandbox-webhook-v{version}")

    def jwk(self) -> dict[str, str]:
        """The public half as `GET /v1/webhooks/signing-key` lists it (docs/lamina-api.md, "Signing key")."""
        x = base64.urlsafe_b64encode(self.private.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "use": "sig", "alg": "EdDSA"}

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


class WebhookKeys:
    """The key that signs, and those before it."""

    def __init__(self, seeds: Sequence[bytes], *, keep: Callable[[Sequence[bytes]], None]) -> None:
        """`seeds`: the oldest first, the last one signs. `keep` makes them outlive the process, or raises OSError."""
        self._seeds = list(seeds)
        self._keep = keep

    @property
    def current(self) -> WebhookKey:
        """The key that signs now."""
        return self._key(len(self._seeds))

    def listed(self) -> list[dict[str, str]]:
        """The public halves of the one before and of the one that signs, in this order: every key is to be tried."""
        newest = len(self._seeds)
        return [self._key(version).jwk() for version in range(max(1, newest - 1), newest + 1)]

    def rotate(self, seed: bytes) -> None:
        """Sign with another key from now on, deliveries of what was accepted before included."""
        self._keep([*self._seeds, seed])
        self._seeds.append(seed)

    def _key(self, version: int) -> WebhookKey:
        return WebhookKey.from_seed(self._seeds[version - 1], version=version)


@dataclass(slots=True, kw_only=True)
class _DeliveryProgress:
    """What webhooks.jsonl tells of the deliveries of one execution."""

    tries: int = 0
    #: answers of 2xx
    taken: int = 0
    #: when the last answer came, epoch seconds
    last_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _PendingDelivery:
    task: asyncio.Task[None]
    #: set when the first try has ended
    tried: asyncio.Event


class WebhookDeliveries:
    """Tells receivers about executions that ended: one try, and three more while no 2xx comes back."""

    def __init__(
        self,
        *,
        keys: WebhookKeys,
        view: Callable[[SandboxExecution, float], Mapping[str, Any]],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        speed: float,
        journal: Journal | None,
    ) -> None:
        self._keys = keys
        self._view = view
        self._clock = clock
        self._sleep = sleep
        self._speed = speed
        self._journal = journal
        self._pending: dict[str, _PendingDelivery] = {}
        self._session: aiohttp.ClientSession | None = None

    def schedule(self, execution: SandboxExecution) -> None:
        """Deliver at the end of this execution, if it names a webhook and ever ends.

        Said again before its end, as of one that was cancelled meanwhile, it takes the place of what was said.
        """
        self._schedule(execution, _DeliveryProgress())

    def resume(self, executions: Iterable[SandboxExecution], tried: Iterable[Mapping[str, Any]]) -> None:
        """Go on after a restart. `tried` are the lines of webhooks.jsonl.

        What has not been delivered is delivered, what ended meanwhile too; of a delivery in mid schedule the tries that
        are left are made. One whose answer came, but not its line, is made again.
        """
        made: dict[str, _DeliveryProgress] = {}
        for line in tried:
            so_far = made.setdefault(line["execution_id"], _DeliveryProgress())
            so_far.tries = max(so_far.tries, line["attempt"])
            so_far.taken += _is_success(line["status"])
            so_far.last_at = line["at"]
        for execution in executions:
            self._schedule(execution, made.get(execution.execution_id, _DeliveryProgress()))

    async def first_try(self, execution: SandboxExecution) -> None:
        """Wait until the first try of its delivery has ended, if one is due at all."""
        pending = self._pending.get(execution.execution_id)
        if pending is not None:
            await pending.tried.wait()

    async def close(self) -> None:
        """Drop what has not been delivered."""
        tasks = [pending.task for pending in self._pending.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _schedule(self, execution: SandboxExecution, made: _DeliveryProgress) -> None:
        if execution.webhook is None or _is_finished(execution, made):
            return
        before = self._pending.pop(execution.execution_id, None)
        if before is not None:
            before.task.cancel()
        if execution.ended_at == float("inf"):
            return
        if self._session is None:
            # A receiver's connection is never in line behind those of others: the time for its answer runs.
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        # The query is the receiver's: it must come back byte for byte.
        url = URL(execution.webhook, encoded=execution.webhook.isascii())
        tried = asyncio.Event()
        task = asyncio.create_task(self._deliver(execution, url, self._session, made, tried))
        pending = _PendingDelivery(task=task, tried=tried)
        self._pending[execution.execution_id] = pending

        def forget(_: asyncio.Task[None]) -> None:
            tried.set()
            if self._pending.get(execution.execution_id) is pending:
                del self._pending[execution.execution_id]

        task.add_done_callback(forget)

    async def _deliver(
        self,
        execution: SandboxExecution,
        url: URL,
        session: aiohttp.ClientSession,
        made: _DeliveryProgress,
        tried: asyncio.Event,
    ) -> None:
        await self._sleep(execution.ended_at - self._clock())
        # A sleep can end a moment early, and the wall clock can be set back: the end is the end.
        shown = self._view(execution, max(self._clock(), execution.ended_at))
        body = json.dumps({"data": shown}, separators=(",", ":")).encode()
        while not _is_finished(execution, made):
            if made.tries:
                delay = RETRY_DELAYS[made.tries - 1] / self._speed
                # After a restart a part of it has gone by; the wall clock may have been set back meanwhile.
                await self._sleep(min(delay, made.last_at + delay - self._clock()))
            made.tries += 1
            fault = execution.delivery_fault if made.tries <= execution.delivery_tries else None
            status = None if fault == "webhook_lost" else await self._try(execution, url, body, session, fault)
            made.last_at = self._clock()
            made.taken += _is_success(status)
            if self._journal is not None:
                self._journal.append(
                    {
                        "at": made.last_at,
                        "execution_id": execution.execution_id,
                        "url": execution.webhook,
                        "attempt": made.tries,
                        "status": status,
                        "fault": fault,
                    }
                )
            tried.set()

    async def _try(
        self, execution: SandboxExecution, url: URL, body: bytes, session: aiohttp.ClientSession, fault: str | None
    ) -> int | None:
        """The status that came back; None if none came in time."""
        headers = self._signed(execution, body, fault)
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _signed(self, execution: SandboxExecution, body: bytes, fault: str | None) -> dict[str, str]:
        """The headers of one try, with what a fault does to them."""
        key, execution_id, now = self._keys.current, execution.execution_id, self._clock()
        match fault:
            case "webhook_forged":
                key = WebhookKey.from_seed(bytes(32))
            case "webhook_stale":
                now -= _STALE_SECONDS
            case "webhook_wrong_id":
                execution_id = str(uuid.uuid5(uuid.NAMESPACE_OID, execution_id))
            case _:
                pass
        return key.headers(body, execution_id=execution_id, now=now)


def _is_finished(execution: SandboxExecution, made: _DeliveryProgress) -> bool:
    """Whether no further try is due. A 2xx ends it; one that the fault `webhook_twice` overhears is the first."""
    enough = 2 if execution.delivery_fault == "webhook_twice" else 1
    return made.taken >= enough or made.tries > len(RETRY_DELAYS)


def _is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300
