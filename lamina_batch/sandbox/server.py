"""The sandbox as a server: what it keeps, and its start and end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aiohttp import web

from lamina_batch.sandbox.apps import load_apps
from lamina_batch.sandbox.executions import ExecutionStore, SandboxExecution
from lamina_batch.sandbox.faults import FaultPlan, parse_faults
from lamina_batch.sandbox.handler import Handler
from lamina_batch.sandbox.journal import Journal, read_journal
from lamina_batch.sandbox.limiter import FixedWindowLimiter
from lamina_batch.sandbox.media import MediaStore
from lamina_batch.sandbox.service import SandboxService
from lamina_batch.sandbox.signed_urls import LinkSigner
from lamina_batch.sandbox.webhooks import WebhookDeliveries, WebhookKeys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from lamina_batch.sandbox.apps import SandboxOutput
    from lamina_batch.sandbox.options import SandboxOptions

# Node closes an idle connection after 5 s: a client that trusts an old connection meets a closed one.
_KEEPALIVE_SECONDS = 5.0
# At the end, answers on their way have this long; what hangs on purpose is cut off.
_SHUTDOWN_SECONDS = 0.5
_BACKLOG = 1024


class Sandbox:
    """A local stand-in for the Lamina service. See docs/sandbox.md.

    Raises ValueError if the file of apps cannot be used. `clock` is epoch seconds, `monotonic` paces the limiter.
    """

    def __init__(
        self,
        options: SandboxOptions,
        *,
        clock: Callable[[], float] = time.time,  # noqa: TID251 -- the edge where the clock comes in
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,  # noqa: TID251 -- as above
    ) -> None:
        self._options = options
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._apps = load_apps(options.apps, runs="runs" in options.generations)
        self._faults = FaultPlan(parse_faults(options.faults), seed=options.seed)
        self._closing: contextlib.AsyncExitStack | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Take up what the data folder holds, listen, and return the base URL. Port 0: any free one.

        Raises OSError if the port is taken or the data folder cannot be used.
        """
        async with contextlib.AsyncExitStack() as closing:
            listening = closing.enter_context(_listen(host, port))
            base_url = _base_url(listening)
            runner = web.ServerRunner(
                web.Server(self._handler(base_url, closing), access_log=None, keepalive_timeout=_KEEPALIVE_SECONDS),
                shutdown_timeout=_SHUTDOWN_SECONDS,
            )
            await runner.setup()
            closing.push_async_callback(runner.cleanup)
            await web.SockSite(runner, listening, backlog=_BACKLOG).start()
            self._closing = closing.pop_all()
        return base_url

    async def stop(self) -> None:
        """Stop listening, cut off what hangs, drop undelivered webhooks, close the files."""
        if self._closing is not None:
            await self._closing.aclose()

    def _handler(self, base_url: str, closing: contextlib.AsyncExitStack) -> Handler:
        options, data = self._options, self._options.data
        executions = ExecutionStore(data / "executions.jsonl" if data is not None else None)
        closing.callback(executions.close)
        log = _journal(data, "requests.jsonl", closing)
        late_log = _journal(data, "answers.jsonl", closing)
        kept = _secrets(data)

        def keep(seeds: Sequence[bytes]) -> None:
            if data is not None:
                _write_secrets(data / "secrets.json", replace(kept, webhooks=tuple(seeds)))

        keys = WebhookKeys(kept.webhooks, keep=keep)
        media = MediaStore(
            apps=self._apps,
            executions=executions,
            signer=LinkSigner(secret=kept.links),
            url_lifetime=options.url_lifetime,
        )

        def value_of(execution: SandboxExecution, output: SandboxOutput) -> str:
            return media.value_of(base_url, execution, output)

        service = SandboxService(
            apps=self._apps,
            executions=executions,
            value_of=value_of,
            output_metadata=media.output_metadata,
            keys=keys,
            generations=options.generations,
            clock=self._clock,
            sleep=self._sleep,
            seed=options.seed,
            speed=options.speed,
        )
        tried = list(read_journal(data / "webhooks.jsonl")) if data is not None else []
        deliveries = WebhookDeliveries(
            keys=keys,
            view=service.view,
            clock=self._clock,
            sleep=self._sleep,
            speed=options.speed,
            journal=_journal(data, "webhooks.jsonl", closing),
        )
        closing.push_async_callback(deliveries.close)
        deliveries.resume([execution for execution in executions if execution.app_id in self._apps], tried)
        return Handler(
            options=options,
            limiter=FixedWindowLimiter(limit=options.limit, window=options.window),
            faults=self._faults,
            service=service,
            media=media,
            executions=executions,
            deliveries=deliveries,
            rotate_key=lambda: keys.rotate(secrets.token_bytes(32)),
            request_id=lambda: str(uuid.uuid4()),
            log=log,
            late_log=late_log,
            clock=self._clock,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Secrets:
    #: signs the URLs of outputs
    links: bytes
    #: the private halves of the keys that sign webhooks, the oldest first
    webhooks: tuple[bytes, ...]


def _secrets(data: Path | None) -> _Secrets:
    """The secrets of this data folder, made at its first use."""
    made = _Secrets(links=secrets.token_bytes(32), webhooks=(secrets.token_bytes(32),))
    if data is None:
        return made
    path = data / "secrets.json"
    if not path.exists():
        _write_secrets(path, made)
    try:
        kept = json.loads(path.read_text())
        seeds = [*kept.get("webhooks_before", ()), kept["webhooks"]]
        return _Secrets(links=bytes.fromhex(kept["links"]), webhooks=tuple(bytes.fromhex(seed) for seed in seeds))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"{path} is damaged: delete it, and output URLs made so far stop working") from error


def _write_secrets(path: Path, kept: _Secrets) -> None:
    *before, current = (seed.hex() for seed in kept.webhooks)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.touch(mode=0o600)
    aside.write_text(json.dumps({"links": kept.links.hex(), "webhooks": current, "webhooks_before": before}))
    aside.replace(path)


def _journal(data: Path | None, name: str, closing: contextlib.AsyncExitStack) -> Journal | None:
    if data is None:
        return None
    journal = Journal(data / name)
    closing.callback(journal.close)
    return journal


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _base_url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- compared, not bound
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
