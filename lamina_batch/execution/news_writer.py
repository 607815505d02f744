"""Puts what has happened into the ledger, and loses nothing while the ledger cannot be written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from lamina_batch.errors import StateError
from lamina_batch.ledger.job import Delivered, DeliveryOutcome

if TYPE_CHECKING:
    from lamina_batch.ledger.job import Job, News
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.runtime import Runtime

#: The ledger is given up after this many refused writes in a row, at least a pause apart.
MAX_WRITE_ATTEMPTS = 5
#: seconds
PAUSE_BETWEEN_ATTEMPTS = 1.0


@dataclass(slots=True, kw_only=True)
class NewsWriter:
    """Collects news of jobs, and writes all of it in one transaction."""

    ledger: Ledger
    runtime: Runtime
    run_id: str
    #: why the last write failed; None if it did not
    error: StateError | None = None
    _news: list[tuple[int, News]] = field(default_factory=list)
    #: callbacks that wait until the ledger has them
    _callbacks: list[asyncio.Future[DeliveryOutcome]] = field(default_factory=list)
    _attempts: int = 0
    #: monotonic seconds
    _attempted_at: float = -inf
    _closed: bool = False

    def add(self, job_id: int, news: News) -> None:
        """Keep news of a job for the next write."""
        self._news.append((job_id, news))

    async def deliver(self, job_id: int, news: Delivered) -> DeliveryOutcome:
        """Keep the news of a callback, and return once the ledger has it or cannot take it."""
        if self._closed:
            return DeliveryOutcome.UNCOMMITTED
        committed: asyncio.Future[DeliveryOutcome] = asyncio.get_running_loop().create_future()
        self._callbacks.append(committed)
        self.add(job_id, news)
        return await committed

    @property
    def gave_up(self) -> bool:
        """Whether the ledger refused too many writes in a row."""
        return self._attempts >= MAX_WRITE_ATTEMPTS

    def write(self) -> list[tuple[Job, bool]]:
        """Write the news. Returns the jobs that changed, each with whether a callback told of it.

        If the ledger cannot be written (a full disk, a lock), `error` says why, and the news is kept for the next try.
        """
        if not self._news:
            return []
        now = self.runtime.now()
        try:
            changed = self.ledger.record(self._news, at=self.runtime.wall(), run_id=self.run_id)
        except StateError as error:
            self.error = error
            if now - self._attempted_at >= PAUSE_BETWEEN_ATTEMPTS:
                self._attempts, self._attempted_at = self._attempts + 1, now
            self._answer_callbacks(DeliveryOutcome.UNCOMMITTED)
            return []
        delivered = {job_id for job_id, news in self._news if isinstance(news, Delivered)}
        self._news, self.error, self._attempts = [], None, 0
        self._answer_callbacks(DeliveryOutcome.COMMITTED)
        return [(job, job.id in delivered) for job in changed]

    def close(self) -> None:
        """Take no more callbacks: nothing is written any more."""
        self._closed = True

    def _answer_callbacks(self, outcome: DeliveryOutcome) -> None:
        for callback in self._callbacks:
            if not callback.done():
                callback.set_result(outcome)
        self._callbacks.clear()
