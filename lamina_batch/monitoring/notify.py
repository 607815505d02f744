"""Notification of another tool about how a run ended: one JSON POST of the summary, without effect on the run.

It goes to an address of the user's, never to the service, and nothing of ours goes with it but the program's name: the
API key is not known here. Redirects are not followed. A run that ended well is not made to fail by it, nor held up for
more than a few seconds.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from lamina_batch.client.retry import backoff, retryable
from lamina_batch.media.http import FetchLimits, network_failure, open_session
from lamina_batch.results.summary import PROBLEM_STATUSES, STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina_batch.pipeline.spec import Notify, RunOutcome
    from lamina_batch.results.summary import Summary
    from lamina_batch.runtime import Runtime

#: Characters of an error that the line for people holds.
_MAX_ERROR_CHARS = 300
#: What chat tools read as markup or as a call to everybody: the line may hold words of the service or of a catalog.
_CHAT_ESCAPES = str.maketrans({"<": "‹", ">": "›", "&": "+", "@": "＠", "`": "'", "\n": " ", "\r": " "})


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyLimits:
    """How long a run may be held up by it."""

    tries: int = 3
    #: seconds for one try
    each: float = 5.0
    #: seconds for all of them
    together: float = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """How a command ended."""

    #: the pipeline's name
    pipeline: str
    run_id: str
    exit_code: int
    #: None: it did not come so far
    summary: Summary | None = None
    #: why there is no summary, in words; None: there is one
    error: str | None = None

    @property
    def ending(self) -> RunOutcome:
        """How the command ended, in one word."""
        match self.exit_code:
            case 0:
                return "success"
            case 3:
                return "partial"
            case _:
                return "failure"

    def body(self) -> Mapping[str, object]:
        """What is sent (docs/logs.md): the summary's keys if there is one, and `text`, `ending` and `error`."""
        known = {"pipeline": self.pipeline, "run_id": self.run_id, "exit_code": self.exit_code}
        numbers = known if self.summary is None else asdict(self.summary)
        return {"text": self.line(), "ending": self.ending, "error": self.error, **numbers}

    def line(self) -> str:
        """One line for people, without anything that a chat tool would obey."""
        text = f"{self.pipeline}: {self.ending} (exit {self.exit_code})"
        if self.error is not None:
            text += f": {self.error[:_MAX_ERROR_CHARS]}"
        elif self.summary is not None:
            text += f": {_counts_text(self.summary)}"
        return text.translate(_CHAT_ESCAPES)


def _counts_text(summary: Summary) -> str:
    counts = summary.counts
    parts = [f"{counts[status]} {status.replace('_', ' ')}" for status in STATUSES if counts[status]]
    text = f"{counts['jobs']} jobs: {', '.join(parts) or 'nothing to do'}; {counts['submitted']} started"
    if any(counts[status] for status in PROBLEM_STATUSES):
        text += f"; {counts['new_problems']} new problems"
    return text if summary.stopped_by is None else f"{text}; stopped by {summary.stopped_by}"


async def send_notification(
    notify: Notify,
    ended: CommandResult,
    *,
    redact: Callable[[str], str],
    runtime: Runtime,
    bounds: NotifyLimits = NotifyLimits(),  # frozen
) -> str | None:
    """Send it if the pipeline asks for this ending. Returns why it could not be sent, without the address; else None.

    `redact` takes secrets out of the body. Raises no error of the network or of the receiver.
    """
    if ended.ending not in notify.on:
        return None
    host = urlsplit(notify.url).hostname or ""
    body = redact(json.dumps(ended.body())).encode()
    why = "no answer"
    limits = FetchLimits(idle=bounds.each, connect=bounds.each)
    try:
        async with (
            asyncio.timeout(bounds.together),
            open_session(limits) as session,
        ):
            for attempt in range(1, bounds.tries + 1):
                if attempt > 1:
                    await runtime.sleep(backoff(attempt, runtime.random, base=1.0))
                status, why = await _post(session, notify.url, body, limits)
                if status is not None and 200 <= status < 300:
                    return None
                if not retryable(status):
                    break
    except TimeoutError:
        pass
    return f"{host} was not told how this run ended: {why}"


async def _post(session: aiohttp.ClientSession, url: str, body: bytes, limits: FetchLimits) -> tuple[int | None, str]:
    """The status of one try, if there is one, and what happened in words without the address."""
    try:
        async with (
            asyncio.timeout(limits.idle),
            session.post(
                url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response,
        ):
            status = response.status
    except TimeoutError:
        return None, f"no answer within {limits.idle:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        failure = network_failure(error, limits)
        return None if failure.again else 0, failure.reason
    if 300 <= status < 400:
        return status, f"it redirects (HTTP {status}), which is not followed"
    return status, f"HTTP {status}"
