"""Whether deliveries would find the way in: a receiver of our own, and requests that go out and come in again.

Nothing is bought for it. A run's receiver listens where the pipeline says, for a token that only this check knows; then
this computer calls the public address as the service would, with a body signed by a key made for the purpose. What
comes in whole shows that name, certificate, tunnel or proxy, path, headers and body are as they should be, on the way
from here. That the service's own hosts may come in too is beyond what can be known without a delivery of theirs; the
stand-in is asked for one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lamina_batch.client.lamina import parse_delivery
from lamina_batch.errors import LaminaBatchError
from lamina_batch.execution.webhooks import WebhookReceiver, local_url, webhook_url
from lamina_batch.ledger.job import DeliveryOutcome
from lamina_batch.media.http import FetchLimits, network_failure, open_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.client.lamina import Execution, LaminaClient
    from lamina_batch.pipeline.spec import Webhook
    from lamina_batch.runtime import Runtime

_LIMITS = FetchLimits(total=20.0, idle=15.0, connect=10.0)
#: Seconds that the stand-in has to end an execution and deliver it.
DELIVERY_SECONDS = 25.0


@dataclass(slots=True, kw_only=True)
class RoundTrip:
    """What became of one request to the public address."""

    #: where it was sent, without the token
    url: str
    #: False: the sandbox's own delivery is awaited
    ours: bool = True
    #: the status that came back; None: none did
    status: int | None = None
    #: what went wrong on the way, in words
    trouble: str = ""
    #: a request came in that knew our token
    arrived: bool = False
    #: one came in, but with another last part of the path
    wrong_token: bool = False
    #: it was verified, and handed over
    taken: bool = False
    #: what the receiver said of it
    notes: list[str] = field(default_factory=list)
    #: the port is taken, and a receiver answers at the public address: a run is at it
    busy: bool = False


async def check_round_trip(
    webhook: Webhook, client: LaminaClient, runtime: Runtime, *, sandbox: bool, seconds: float = DELIVERY_SECONDS
) -> RoundTrip:
    """Listen, send, and see what comes in. Raises LaminaBatchError if the port or the keys cannot be had.

    With `sandbox` the public address is of no use (docs/webhooks.md), and an execution of the stand-in is delivered
    within `seconds`.
    """
    url = f"{local_url(webhook.listen)}/lamina" if sandbox else webhook.public_url
    trip = RoundTrip(url=url, ours=not sandbox)
    token = secrets.token_urlsafe(24)
    key = Ed25519PrivateKey.generate()
    here = asyncio.Event()

    async def keys() -> Sequence[Mapping[str, object]]:
        listed = await client.get_signing_keys()
        return listed if sandbox else (*listed, _public_jwk(key))

    def knows(asked: str) -> bool:
        trip.arrived = trip.arrived or asked == token
        trip.wrong_token = trip.wrong_token or asked != token
        return asked == token

    async def deliver(_token: str, _execution: Execution) -> DeliveryOutcome:
        trip.taken = True
        here.set()
        return DeliveryOutcome.COMMITTED

    try:
        async with WebhookReceiver(
            listen=webhook.listen,
            public_url=url,
            keys=keys,
            knows=knows,
            parse=parse_delivery,
            deliver=deliver,
            runtime=runtime,
            note=trip.notes.append,
        ) as receiver:
            if sandbox:
                await _request_sandbox_delivery(client, receiver.url_for(token), token, trip)
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await here.wait()
            else:
                await _send_signed_request(receiver.url_for(token), key, runtime.wall(), trip)
    except LaminaBatchError:
        trip.busy = not sandbox and await _is_receiver(webhook_url(url, "x"))
        if not trip.busy:
            raise
    return trip


async def _request_sandbox_delivery(client: LaminaClient, url: str, token: str, trip: RoundTrip) -> None:
    """Have the stand-in run something that asks for no inputs, and costs nothing there."""
    for app in await client.list_apps():
        end = await client.start(app.app_id, "{}", submission=token, webhook=url)
        if end.execution_id is not None:
            return
    trip.trouble = "the stand-in has no app that runs without inputs"


async def _send_signed_request(url: str, key: Ed25519PrivateKey, now: float, trip: RoundTrip) -> None:
    name = f"doctor-{secrets.token_hex(8)}"
    body = json.dumps({"executionId": name, "status": "completed", "outputs": [], "errorMessage": None}).encode()
    timestamp = str(int(now))
    headers = {
        "Content-Type": "application/json",
        "X-Lamina-Webhook-Signature": key.sign(timestamp.encode() + b"." + body).hex(),
        "X-Lamina-Webhook-Timestamp": timestamp,
        "X-Lamina-Webhook-Request-Id": name,
    }
    try:
        async with (
            asyncio.timeout(_LIMITS.total),
            open_session(_LIMITS) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            trip.status = response.status
    except TimeoutError:
        trip.trouble = f"no answer within {_LIMITS.total:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        trip.trouble = network_failure(error, _LIMITS).reason


async def _is_receiver(url: str) -> bool:
    """Whether a receiver of ours answers there: nobody else says 405 to a GET in this way."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
        async with (
            asyncio.timeout(_LIMITS.total),
            open_session(_LIMITS) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            return response.status == 405 and response.headers.get("Allow") == "POST"
    return False


def _public_jwk(key: Ed25519PrivateKey) -> Mapping[str, object]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig", "alg": "EdDSA"}
