"""When to stop spending: the canary and the failure limit. Pure: told what begins and ends, it says what may begin.

A stop holds for later runs, too, until a person has looked: the next run would only buy more failures.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from lamina_batch.pipeline.spec import FailureLimit

#: A share of failures says nothing before so many have ended (docs/pipeline-file.md, "run").
MIN_ENDED_FOR_SHARE = 20


class StopReason(StrEnum):
    """Why a run submits nothing more. The summary has the value as `stopped_by`."""

    SIGNAL = "signal"
    #: more to start than `max_executions`
    MAX_EXECUTIONS = "max_executions"
    #: rows are invalid and `on_invalid_rows` is `fail`
    INVALID_ROWS = "invalid_rows"
    #: the service says that credits ran out
    CREDITS = "credits"
    #: one of the first `canary` executions did not complete
    CANARY = "canary"
    MAX_FAILURES = "max_failures"
    #: the service refuses the key, the app or the address
    REFUSED = "refused"
    #: nothing has been heard of the service for `execution_timeout`
    UNREACHABLE = "unreachable"
    #: too many submissions in a row ended without telling whether they were accepted
    UNKNOWN = "unknown"


#: Those that the next run would run into again.
_LASTING_STOPS = {
    StopReason.CANARY: "not all executions of its canary completed",
    StopReason.MAX_FAILURES: "more of its executions failed than run.max_failures allows",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedRun:
    """The run that a guard stopped, as the ledger remembers it."""

    by: StopReason
    run_id: str
    #: fingerprint of the mapping and of the app that it ran with
    made_with: str

    @property
    def why(self) -> str:
        """The stop in words."""
        return f"run {self.run_id} was stopped, because {_LASTING_STOPS[self.by]}"

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """What `to_text` made; None if there is no stop."""
        if not text:
            return None
        told = json.loads(text)
        return cls(by=StopReason(told["by"]), run_id=told["run_id"], made_with=told["made_with"])

    def to_text(self) -> str:
        """The form in which the ledger keeps it."""
        return json.dumps(asdict(self))


def next_stopped_run(
    by: StopReason | None, *, before: StoppedRun | None, run_id: str, made_with: str, went_through: bool
) -> StoppedRun | None:
    """The stop that holds after a run: its own, none if it `went_through`, else `before`."""
    if by in _LASTING_STOPS:
        return StoppedRun(by=by, run_id=run_id, made_with=made_with)
    return None if by is None and went_through else before


@dataclass(slots=True, kw_only=True)
class Guards:
    """Tell `began` before each submission and `ended` when its fate is known; ask `room` and `stop` in between."""

    #: run this many first, and go on only if all of them complete; 0: no canary
    canary: int = 0
    max_failures: FailureLimit | None = None
    #: why nothing more may begin; None: it may
    stop: StopReason | None = None
    _first: set[int] = field(default_factory=set)
    _first_open: set[int] = field(default_factory=set)
    _ended: int = 0
    _failed: int = 0

    def room(self) -> int | None:
        """How many more may begin now; None: as many as you like."""
        if self.stop is not None:
            return 0
        if len(self._first) < self.canary:
            return self.canary - len(self._first)
        return 0 if self._first_open else None

    def began(self, job_id: int) -> None:
        """A job goes out, for the first time or again."""
        if job_id in self._first or len(self._first) < self.canary:
            self._first.add(job_id)
            self._first_open.add(job_id)

    def ended(self, job_id: int, *, completed: bool, failed: bool) -> None:
        """A job's fate is known. What neither completed nor failed (held, partial) still fails a canary."""
        self._ended += 1
        self._failed += failed
        if job_id in self._first_open:
            self._first_open.discard(job_id)
            if not completed:
                self.stop = self.stop or StopReason.CANARY
        if self.max_failures is not None and _exceeds(self.max_failures, self._failed, self._ended):
            self.stop = self.stop or StopReason.MAX_FAILURES


def _exceeds(limit: FailureLimit, failed: int, ended: int) -> bool:
    if limit.count is not None and failed > limit.count:
        return True
    return limit.share is not None and ended >= MIN_ENDED_FOR_SHARE and failed > limit.share * ended
