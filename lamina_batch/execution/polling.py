"""When to ask about which execution (DESIGN.md section 7, API.md section 7).

Asking too early wastes a request, asking late leaves a slot and a finished picture lying. From the durations of this
app, those of earlier runs included, each execution gets the instant at which asking is best. How patient that is
depends on what a request is worth: much while submissions want the same ones, little when there are plenty.
Pure: instants are seconds of a monotonic clock and are handed in. docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Patience(NamedTuple):
    """How long to hold back a request."""

    #: asking in vain is as bad as a finished execution that lies unseen for so many median durations
    vain: float
    #: one that outlasts all that is known is asked again when its age has grown by this part
    growth: float


#: What a request is worth when there are hardly enough of them, and when there are plenty.
_POOR, _RICH = 0, 1
_PATIENCE = (_Patience(12.0, 0.5), _Patience(1.0, 0.25))
#: Plenty: so many for each live execution, after all submissions that could leave now.
_PLENTY = 2

#: An app may change; the latest durations are the ones that count.
_MOST_KNOWN = 300
#: Fewer examples than this say nothing about the executions that outlast the others.
_FEW = 8
#: While nothing has ended, the others follow the first for so many greatest intervals: it may be stuck.
_MOST_AHEAD = 10
#: Everything is planned anew when so many more have ended, as a part of those known or, if more are live, of those.
_NEWS = 0.25


class _Durations:
    """How long executions take."""

    def __init__(self, durations: Iterable[float]) -> None:
        self._sorted = sorted(durations)
        #: sums of the shortest
        self._sums = (0.0, *accumulate(self._sorted))
        self._best: dict[tuple[int, _Patience], float] = {}

    def best_age(self, age: float, patience: _Patience, longest: float) -> float | None:
        """The age at which to ask about an execution that had not ended at `age`; None: too little is known.

        The best is where the time that it is expected to lie finished and unseen, and the chance to ask in vain,
        weigh least together; but no later than `longest` after it has ended as likely as not.
        """
        shorter = bisect_right(self._sorted, age)
        if len(self._sorted) - shorter < (_FEW if age > 0 else 1):
            return None
        key = (shorter, patience)
        if key not in self._best:
            self._best[key] = self._search(shorter, patience, longest)
        return self._best[key]

    def _search(self, shorter: int, patience: _Patience, longest: float) -> float:
        vain = patience.vain * self._sorted[len(self._sorted) // 2]
        latest = self._sorted[(shorter + len(self._sorted)) // 2] + longest
        best, least = 0.0, math.inf
        for i in range(shorter, len(self._sorted)):
            at = self._sorted[i]
            if at > latest:
                break
            ended = i + 1 - shorter
            unseen = at * ended - (self._sums[i + 1] - self._sums[shorter])
            cost = unseen + vain * (len(self._sorted) - shorter - ended)
            if cost < least:
                best, least = at, cost
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
        self._durations = _Durations(self._ended)
        self._live: dict[str, _Live] = {}
        #: one queue for each patience, by the instant to ask at
        self._queues: tuple[list[tuple[float, int, _Live]], ...] = tuple([] for _ in _PATIENCE)
        self._patience = _POOR
        self._plans = 0
        #: polls that are out
        self._out = 0
        #: what was learnt since the last planning
        self._news = 0
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
            if not self._ends:
                self._outlasted = max(self._outlasted, now - live.since)
                self._news += 1
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
                self._outlasted = 0.0
                self._news += 1
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
        if self._news and self._news >= _NEWS * min(self._ends, max(_MOST_KNOWN, len(self._live))):
            self._plan_anew()
        spare = (limit if room is None else room) - waiting
        self._patience = _RICH if spare >= _PLENTY * len(self._live) else _POOR
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
            gap = min(self._most, max(self._least, patience.growth * base))
            best = base + gap
            if not self._ends and gap == self._most and age > 0:
                # That one may be the last of all to end: let another go ahead.
                best += gap
        return max(live.not_before, live.started + best)

    def _plan_anew(self) -> None:
        self._news = 0
        self._durations = _Durations(self._ended)
        planned = [live for live in self._live.values() if live.plan]
        for queue, patience in zip(self._queues, _PATIENCE, strict=True):
            queue[:] = [(self._instant(live, patience), live.plan, live) for live in planned]
            heapq.heapify(queue)
