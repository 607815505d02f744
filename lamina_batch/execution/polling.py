"""When to ask about which execution (DESIGN.md section 7, API.md section 7).

Asking too early wastes a request, asking late leaves a slot and a finished picture lying. From the durations of this
app, those of earlier runs included, each execution gets the instant at which asking is best. What a request is worth
at the moment decides how patient that is: while submissions want the same requests, very; when there are more
requests than executions to ask about, less. Pure: instants are seconds of a monotonic clock and are handed in.
docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Patience(NamedTuple):
    """How long to hold back a request."""

    #: asking in vain is as bad as a finished execution that lies unseen for so many median durations
    vain: float
    #: one that outlasts all that is known is asked again when its age has grown by this part
    growth: float


#: What a request is worth, by how many there are: hardly one for each execution and submission; some; plenty.
_PATIENT, _READY, _EAGER = 0, 1, 2
_PATIENCE = (_Patience(12.0, 0.5), _Patience(1.0, 0.3), _Patience(0.5, 0.2))
#: Requests for each live execution, after all submissions that could leave now, from which there are some, or plenty.
_SOME = 2
_PLENTY = 4

#: An app may change; the latest durations are the ones that count.
_MOST_KNOWN = 300
#: Fewer examples than this say nothing about the executions that outlast the others.
_FEW = 8
#: While nothing has ended, the others follow the first for so many greatest intervals: it may be stuck.
_MOST_AHEAD = 10
#: Everything is planned anew when what is known has grown by this part. But not too often where much is live, and
#: often enough where much is known.
_NEWS = 0.25
_MOST_NEWS = 200


class _Durations:
    """How long executions take: the ended ones, weighed up against those asked in vain so far (Kaplan-Meier)."""

    def __init__(self, ended: Iterable[float], outlasted: Iterable[float]) -> None:
        self._ended = sorted(ended)
        ages = sorted(outlasted)
        #: what part has not ended before the i-th duration
        self._alive = [1.0]
        #: the mean over all executions of the time ended before the i-th duration, for sums of lateness
        self._moment = [0.0]
        for i, duration in enumerate(self._ended):
            at_risk = len(self._ended) - i + len(ages) - bisect_left(ages, duration)
            ends = self._alive[-1] / at_risk
            self._alive.append(self._alive[-1] - ends)
            self._moment.append(self._moment[-1] + ends * duration)
        half = self._alive[-1] + (1 - self._alive[-1]) / 2
        self._median = next((d for d, alive in zip(self._ended, self._alive[1:], strict=True) if alive <= half), 0.0)
        self._best: dict[tuple[int, float], float] = {}

    def best_age(self, age: float, patience: _Patience, longest: float) -> float | None:
        """The age at which to ask about an execution that had not ended at `age`; None: too little is known.

        The best is where the expected time that it lies finished and unseen, and the chance to ask in vain, weigh
        least together; but no more than `longest` after it has ended as likely as not.
        """
        first = bisect_right(self._ended, age)
        examples = len(self._ended) - first
        mass = self._alive[first] - self._alive[-1]
        if examples < (_FEW if age > 0 else 1) or mass < self._alive[first] / 2:
            return None
        key = (first, patience.vain)
        if key not in self._best:
            self._best[key] = self._search(first, mass, patience.vain * self._median, longest)
        return self._best[key]

    def _search(self, first: int, mass: float, vain: float, longest: float) -> float:
        alive, moment, least = self._alive[first], self._moment[first], self._alive[-1]
        best, best_cost, latest = self._ended[first], float("inf"), float("inf")
        for i in range(first, len(self._ended)):
            at = self._ended[i]
            if at > latest:
                break
            done = alive - self._alive[i + 1]
            cost = at * done - (self._moment[i + 1] - moment) + vain * (self._alive[i + 1] - least)
            if cost < best_cost:
                best, best_cost = at, cost
            if done >= mass / 2:
                latest = min(latest, at + longest)
        return best


@dataclass(slots=True, eq=False)
class _Live:
    name: str
    #: when the service accepted it
    started: float
    #: when the waiting for it began
    since: float
    #: when it was last known not to have ended
    seen: float
    #: not to be asked before
    not_before: float
    #: polls that failed since the last answer
    failures: int = 0
    #: what is planned for it; an entry of another number in a queue is out of date. 0: nothing, a poll is out
    plan: int = 0


class Polling:
    """Which executions to ask about now. One that was handed out is not handed out again before its poll has ended."""

    def __init__(self, *, min_interval: float, max_interval: float, durations: Iterable[float] = ()) -> None:
        self._least = min_interval
        self._most = max(min_interval, max_interval)
        self._ended = deque((duration for duration in durations if duration >= 0), _MOST_KNOWN)
        self._durations = _Durations(self._ended, ())
        self._live: dict[str, _Live] = {}
        #: one queue for each patience, by the instant to ask at
        self._queues: tuple[list[tuple[float, int, _Live]], ...] = tuple([] for _ in _PATIENCE)
        self._patience = _PATIENT
        self._plans = 0
        #: polls that are out
        self._out = 0
        #: ends and vain polls since the last learning, and what it knew
        self._news = 0
        self._learnt = len(self._ended)
        #: ends seen, earlier runs included
        self._ends = len(self._ended)
        #: while there is none: so long did one of them last, and the others need not be asked before
        self._outlasted = 0.0

    def __len__(self) -> int:
        return len(self._live)

    def start(self, execution: str, now: float, *, age: float = 0.0) -> None:
        """Wait for the end of an execution that was accepted `age` seconds ago."""
        self.ended(execution, None)
        accepted = now - max(0.0, age)
        live = _Live(name=execution, started=accepted, since=now, seen=accepted, not_before=accepted + self._least)
        self._live[execution] = live
        self._plan(live)

    def asked(self, execution: str, now: float) -> None:
        """A poll came back: it had not ended."""
        live = self._live.get(execution)
        if live is not None:
            self._back(live)
            live.seen, live.failures = now, 0
            live.not_before = now + self._least
            self._news += 1
            if not self._ends:
                self._outlasted = max(self._outlasted, now - live.since)
            self._plan(live)

    def failed(self, execution: str, now: float) -> None:
        """A poll was not answered, or not with an execution."""
        live = self._live.get(execution)
        if live is not None:
            self._back(live)
            live.failures += 1
            live.not_before = now + min(self._most, self._least * 2.0 ** min(live.failures - 1, 30))
            self._plan(live)

    def ended(self, execution: str, duration: float | None) -> None:
        """It ended, or is no longer waited for; `duration` is in seconds by the service's own clock, if known."""
        live = self._live.pop(execution, None)
        if live is not None:
            self._back(live)
            live.plan = 0
            if not self._ends:
                self._outlasted, self._news = 0.0, _MOST_NEWS
            self._ends += 1
        if duration is not None and duration >= 0:
            if live is not None:
                # What the service calls completed may be seen a little later than that.
                duration = max(duration, live.seen - live.started)
            self._ended.append(duration)
            self._news += 1

    def due(self, now: float, limit: int, *, waiting: int = 0, room: int | None = None) -> list[str]:
        """Those to ask about now, best first, at most `limit`, each of them out until its poll has ended.

        `room` requests may leave now (None: `limit`). `waiting` submissions could take them instead; those that wait
        for a slot do not count.
        """
        if self._news and self._news >= min(_NEWS * self._learnt, max(_MOST_NEWS, _NEWS * len(self._live))):
            self._learn()
        spare = (limit if room is None else room) - waiting
        if spare < _SOME * len(self._live):
            self._patience = _PATIENT
        else:
            self._patience = _READY if spare < _PLENTY * len(self._live) else _EAGER
        queue = self._queues[self._patience]
        names: list[str] = []
        while len(names) < min(limit, self._unsure()) and (at := self._head()) is not None and at <= now:
            live = heapq.heappop(queue)[2]
            live.plan = 0
            self._out += 1
            names.append(live.name)
        return names

    def next_due(self, now: float) -> float | None:
        """The next instant at which `due` may have one to ask about; None if only an answer can change that."""
        at = self._head() if self._unsure() > 0 else None
        return None if at is None else max(now, at)

    # -- inside --------------------------------------------------------------------------------------------

    def _unsure(self) -> int:
        """How many may be out at most: the first few polls teach what the others need not find out again."""
        return 1 + 2 * self._ends - self._out

    def _back(self, live: _Live) -> None:
        if live.plan == 0:
            self._out -= 1

    def _head(self) -> float | None:
        queue = self._queues[self._patience]
        while queue and queue[0][1] != queue[0][2].plan:
            heapq.heappop(queue)
        return queue[0][0] if queue else None

    def _plan(self, live: _Live) -> None:
        self._plans += 1
        live.plan = self._plans
        for queue, patience in zip(self._queues, _PATIENCE, strict=True):
            heapq.heappush(queue, (self._instant(live, patience), live.plan, live))

    def _instant(self, live: _Live, patience: _Patience) -> float:
        age = live.seen - live.started
        best = self._durations.best_age(age, patience, self._most)
        if best is None:
            base = max(age, min(self._outlasted, _MOST_AHEAD * self._most))
            best = base + min(self._most, max(self._least, patience.growth * base))
        return max(live.not_before, live.started + best)

    def _learn(self) -> None:
        outlasted = [live.seen - live.started for live in self._live.values() if live.seen > live.started]
        self._durations = _Durations(self._ended, outlasted)
        self._learnt = len(self._ended) + len(outlasted)
        self._news = 0
        planned = [live for live in self._live.values() if live.plan]
        for queue, patience in zip(self._queues, _PATIENCE, strict=True):
            queue[:] = [(self._instant(live, patience), live.plan, live) for live in planned]
            heapq.heapify(queue)
