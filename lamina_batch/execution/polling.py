"""When to ask about which execution (docs/budget.md, "When to poll", docs/lamina-api.md, "Polling").

Asking too early wastes a request, asking late leaves a slot and a finished picture lying. From the durations of this
app, those of earlier runs included, each execution gets the instant at which asking is best. How patient that is
depends on what a request is worth: much while submissions want the same ones, little when there are plenty.
Where the service tells of ends by itself (docs/lamina-api.md, "Webhooks"), only those are asked about that it seems to
have missed. Pure: instants are seconds of a monotonic clock and are handed in. docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from lamina_batch.execution.pacer import Pacer

if TYPE_CHECKING:
    from collections.abc import Iterable


class _RequestWorth(NamedTuple):
    """How long to hold back a request."""

    #: asking without result is as bad as a finished execution that lies unseen for so many median durations
    vain: float
    #: one that outlasts all that is known is asked again when its age has grown by this part
    growth: float


#: What a request is worth when there are hardly enough of them, and when there are plenty.
_POOR, _RICH = 0, 1
_REQUEST_WORTH = (_RequestWorth(12.0, 0.5), _RequestWorth(1.0, 0.25))
#: Plenty: so many for each live execution, after all submissions that could leave now.
_REQUESTS_PER_EXECUTION_WHEN_RICH = 2

#: An app may change; the latest durations are the ones that count.
_MAX_SAMPLES = 300
#: Fewer examples than this say nothing about the executions that outlast the others.
_MIN_SAMPLES = 8
#: While nothing has ended, the others follow the first for so many greatest intervals: it may be stuck.
_MAX_INTERVALS_BEHIND_FIRST = 10
#: Everything is planned anew when so many more have ended, as a part of those known or, if more are live, of those.
_REPLAN_SHARE = 0.25


#: Where ends are told: one is asked about when its age, less a grace, is so many times the one that so many ended by;
#: then whenever its age has grown by this part.
_MISSED_CALLBACK_AGES = ((2.0, 1.0, 1.0), (1.0, 0.95, 0.5))
#: The grace in least intervals: a delivery that was not taken is repeated after 5 and 30 s (docs/lamina-api.md,
#: "Deliveries").
_CALLBACK_GRACE_INTERVALS = 12.0
#: While nothing is known, the age to ask at, in least intervals: a minute for images.
_FIRST_POLL_INTERVALS = 20.0
#: This many ends show whether callbacks arrive.
_RECENT_ENDS = 8
#: So often, and once more for so many ends told, may be asked without result; after that at ever longer pauses.
_VAIN, _VAIN_PER = 2, 200


class DurationSample:
    """How long executions take."""

    def __init__(self, durations: Iterable[float]) -> None:
        self._sorted = sorted(durations)
        #: sums of the shortest
        self._sums = (0.0, *accumulate(self._sorted))
        self._best: dict[tuple[int, _RequestWorth], float] = {}

    def __len__(self) -> int:
        return len(self._sorted)

    def quantile(self, part: float) -> float:
        """The age by which this part of them, between 0 and 1, has ended."""
        return self._sorted[max(0, math.ceil(part * len(self._sorted)) - 1)]

    def likely_age(self, age: float) -> float | None:
        """The age by which one that had not ended at `age` has as likely as not; None: too little is known."""
        shorter = bisect_right(self._sorted, age)
        if not self._tells(age, shorter):
            return None
        return self._sorted[(shorter + len(self._sorted)) // 2]

    def best_age(self, age: float, patience: _RequestWorth, longest: float) -> float | None:
        """The age at which to ask about an execution that had not ended at `age`; None: too little is known.

        The best is where the time that it is expected to lie finished and unseen, and the chance to ask without result,
        weigh least together; but no later than `longest` after it has ended as likely as not.
        """
        shorter = bisect_right(self._sorted, age)
        if not self._tells(age, shorter):
            return None
        key = (shorter, patience)
        if key not in self._best:
            self._best[key] = self._search(shorter, patience, longest)
        return self._best[key]

    def _tells(self, age: float, shorter: int) -> bool:
        return len(self._sorted) - shorter >= (_MIN_SAMPLES if age > 0 else 1)

    def _search(self, shorter: int, patience: _RequestWorth, longest: float) -> float:
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


class _CallbackHistory:
    """Whether callbacks arrive, and how often a poll may find nothing meanwhile."""

    def __init__(self, *, expected: bool, pause: float) -> None:
        self._expected = expected
        self._pause = pause
        #: the latest ends: told, or found by asking
        self._latest: deque[bool] = deque(maxlen=_RECENT_ENDS)
        self._told = 0
        self._vain = 0
        #: before that nothing is asked, having been asked without result too often
        self.quiet_until = -math.inf

    @property
    def trusted(self) -> bool:
        """Whether to rely on them: no more than half of the latest ends had to be asked for."""
        return self._expected and 2 * sum(self._latest) >= len(self._latest)

    @property
    def most_out(self) -> int:
        """How many polls may be out at once: where the last ones found ends, there may be more to find."""
        return max(1, 2 * (len(self._latest) - sum(self._latest)))

    def told(self) -> None:
        self._latest.append(True)
        self._told += 1

    def found(self, *, missed: bool) -> None:
        """An end was found by asking. `missed`: it would have been told, had all been well."""
        if missed:
            self._latest.append(False)
        self._vain = 0
        self.quiet_until = -math.inf

    def asked_in_vain(self, now: float) -> None:
        self._vain += 1
        over = self._vain - _VAIN - self._told // _VAIN_PER
        if over >= 0:
            self.quiet_until = now + self._pause * 2.0 ** min(over, 30)


@dataclass(slots=True, eq=False)
class _PolledExecution:
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


class ExecutionPoller(Pacer):
    """Which executions to ask about now. One that was handed out is not handed out again before its poll has ended.

    Intervals and `durations` are in seconds. `delivered`: the service tells of ends by webhook, and asking only finds
    what it missed; should it miss most, they are asked about as if it told of none. At the age of `timeout` each is
    asked about whatever else is known, because one that has not ended then is given up.
    """

    def __init__(
        self,
        *,
        min_interval: float,
        max_interval: float,
        durations: Iterable[float] = (),
        delivered: bool = False,
        timeout: float = math.inf,
    ) -> None:
        self._deliveries = _CallbackHistory(expected=delivered, pause=max(min_interval, max_interval))
        self._timeout = timeout
        self._least = min_interval
        self._most = max(min_interval, max_interval)
        self._ended = deque((duration for duration in durations if duration >= 0), _MAX_SAMPLES)
        self._durations = DurationSample(self._ended)
        self._live: dict[str, _PolledExecution] = {}
        #: one queue for each patience, by the instant to ask at
        self._queues: tuple[list[tuple[float, int, _PolledExecution]], ...] = tuple([] for _ in _REQUEST_WORTH)
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

    @property
    def durations(self) -> DurationSample:
        """What the plans are made with; another object when it has changed."""
        return self._durations

    def start(self, execution: str, now: float, *, age: float = 0.0) -> None:
        """Wait for the end of an execution that was accepted `age` seconds ago."""
        self.ended(execution, None)
        accepted = now - max(0.0, age)
        live = _PolledExecution(
            name=execution, started=accepted, since=now, seen=accepted, not_before=accepted + self._least
        )
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
            if self._deliveries.trusted:
                self._deliveries.asked_in_vain(now)
            self._plan(live)

    def failed(self, execution: str, now: float) -> None:
        """A poll was not answered, or not with an execution."""
        live = self._live.get(execution)
        if live is not None:
            self._back(live)
            live.failures += 1
            live.not_before = now + min(self._most, self._least * 2.0 ** min(live.failures - 1, 30))
            self._plan(live)

    def ended(self, execution: str, duration: float | None, *, by_callback: bool = False) -> None:
        """It ended, or is no longer waited for; `duration` is in seconds by the service's own clock, if known.

        `by_callback`: a callback told of it. The execution may be one that nobody waits for.
        """
        live = self._live.pop(execution, None)
        was_out = live is not None and live.plan == 0
        if live is not None:
            self._back(live)
            live.plan = 0
            if not self._ends:
                self._outlasted = 0.0
                self._news += 1
        if live is not None or duration is not None:
            self._ends += 1
        if duration is not None and duration >= 0:
            if live is not None:
                # What the service calls completed may be seen a little later than that.
                duration = max(duration, live.seen - live.started)
            self._ended.append(duration)
            self._news += 1
        if by_callback or (was_out and duration is not None):
            # What was accepted before this run may have been told while nobody listened.
            self._heard_of_end(told=by_callback, missed=live is not None and live.since - live.started <= self._least)

    def due(self, now: float, limit: int, *, waiting: int = 0, room: int | None = None) -> list[str]:
        """Those to ask about now, best first, at most `limit`, each of them out until its poll has ended.

        `room` requests may leave now (None: `limit`). `waiting` submissions could take them instead; those that wait
        for a slot do not count.
        """
        if self._news and self._news >= _REPLAN_SHARE * min(self._ends, max(_MAX_SAMPLES, len(self._live))):
            self._plan_anew()
        spare = (limit if room is None else room) - waiting
        self._patience = _RICH if spare >= _REQUESTS_PER_EXECUTION_WHEN_RICH * len(self._live) else _POOR
        queue = self._queues[self._patience]
        names: list[str] = []
        if self._deliveries.trusted and self._news and (at := self._head()) is not None and at <= now:
            # Seldom is one due, and then it is worth looking twice.
            self._plan_anew()
        while len(names) < limit and self._unsure() > 0 and (at := self._head()) is not None and at <= now:
            live = heapq.heappop(queue)[2]
            if self._deliveries.trusted and self._instant(live, self._patience) > now:
                # It was planned before too many were asked without result.
                self._plan(live)
                continue
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
        """How many may go out: the first few polls teach what the others need not find out again."""
        if self._deliveries.trusted:
            return self._deliveries.most_out - self._out
        return 1 + 2 * self._ends - self._out

    def _back(self, live: _PolledExecution) -> None:
        if live.plan == 0:
            self._out -= 1

    def _head(self) -> float | None:
        queue = self._queues[self._patience]
        while queue and queue[0][1] != queue[0][2].plan:
            heapq.heappop(queue)
        return queue[0][0] if queue else None

    def _plan(self, live: _PolledExecution) -> None:
        self._plans += 1
        live.plan = self._plans
        for patience, queue in enumerate(self._queues):
            heapq.heappush(queue, (self._instant(live, patience), live.plan, live))

    def _instant(self, live: _PolledExecution, patience: int) -> float:
        if self._deliveries.trusted:
            instant = max(live.started + self._missed_age(live, patience), self._deliveries.quiet_until)
        else:
            instant = live.started + self._ended_age(live, _REQUEST_WORTH[patience])
        given_up = live.started + self._timeout
        if live.seen < given_up:
            instant = min(instant, given_up)
        return max(live.not_before, instant)

    def _ended_age(self, live: _PolledExecution, patience: _RequestWorth) -> float:
        """The age at which to poll an execution without callbacks."""
        age = live.seen - live.started
        best = self._durations.best_age(age, patience, self._most)
        if best is None:
            base = max(age, min(self._outlasted, _MAX_INTERVALS_BEHIND_FIRST * self._most))
            gap = min(self._most, max(self._least, patience.growth * base))
            best = base + gap
            if not self._ends and gap == self._most and age > 0:
                # That one may be the last of all to end: let another go ahead.
                best += gap
        return best

    def _missed_age(self, live: _PolledExecution, patience: int) -> float:
        """The age at which to poll an execution whose callback should have come."""
        times, part, growth = _MISSED_CALLBACK_AGES[patience]
        age = live.seen - live.started
        if self._durations:
            first = times * self._durations.quantile(part) + _CALLBACK_GRACE_INTERVALS * self._least
        else:
            first = _FIRST_POLL_INTERVALS * self._least
            age = max(age, self._outlasted)
        return max(first, (1 + growth) * age)

    def _heard_of_end(self, *, told: bool, missed: bool) -> None:
        """Note how an end became known, and plan anew where that changes what to think of the others."""
        deliveries = self._deliveries
        before = deliveries.trusted, deliveries.quiet_until
        if told:
            deliveries.told()
        else:
            deliveries.found(missed=missed)
        if before != (deliveries.trusted, deliveries.quiet_until):
            self._plan_anew()

    def _plan_anew(self) -> None:
        self._news = 0
        self._durations = DurationSample(self._ended)
        planned = [live for live in self._live.values() if live.plan]
        for patience, queue in enumerate(self._queues):
            queue[:] = [(self._instant(live, patience), live.plan, live) for live in planned]
            heapq.heapify(queue)
