"""What a run will cost in requests and time, and the least time it can take (docs/budget.md, "Forecast").

The forecast is a rehearsal: the budget and the polling of the real run, on a clock that jumps, against a limiter and
executions that last as the known ones did. A run of many jobs is rehearsed in part, and goes on as that part did.
Pure and without chance: equal arguments give equal answers. docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from statistics import linear_regression
from typing import TYPE_CHECKING, Literal

from lamina_batch.client.budget import Budget, Quota
from lamina_batch.execution.list_polling import make_pacer
from lamina_batch.execution.pacer import ListRequest, PollRequest, Room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina_batch.execution.pacer import Pacer
    from lamina_batch.pipeline.spec import Completion

#: This many jobs are rehearsed at most; what comes after them takes what the later half of these took.
_SIMULATED_JOBS = 1000
#: Requests take as long as this part of the window, and so many starts and polls are out at once, as with the engine.
#: Without it all would happen at once, and slots and windows would fall into step as they never do.
_ROUND_TRIP = 1 / 400
_MOST_STARTS, _MOST_POLLS = 16, 64
#: The golden section: its multiples, less whole numbers, pick durations that are spread as evenly as can be.
_GOLDEN_SECTION = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a run is expected to take. None if nothing is known of durations."""

    jobs: int
    #: requests that start executions
    submit: int
    #: requests that ask about them, one by one or by the list
    poll: int | None
    #: reads of the contract
    other: int
    seconds: float | None
    #: no client could do with fewer
    least_requests: int
    least_seconds: float

    @property
    def requests(self) -> int | None:
        """All requests; None if nothing is known of durations."""
        return None if self.poll is None else self.submit + self.poll + self.other

    @property
    def per_ended(self) -> float | None:
        """Requests for each job."""
        requests = self.requests
        return None if requests is None or not self.jobs else requests / self.jobs


def forecast(  # noqa: PLR0913  # each is a fact of its own
    jobs: int,
    *,
    durations: Sequence[float],
    limit: int,
    window: float,
    max_in_flight: int,
    completion: Completion,
    generation: Literal["executions", "runs"],
    min_interval: float,
    max_interval: float,
    reads: int,
) -> Forecast:
    """What `jobs` executions will take, if they last as `durations` did (seconds).

    `limit` requests may leave in each `window` seconds. By webhook it is assumed that every delivery arrives.
    """
    known = sorted(duration for duration in durations if duration >= 0)
    per_job = 1 if completion == "webhook" else 2
    poll: int | None = None
    seconds: float | None = None
    if jobs <= 0:
        poll, seconds = 0, 0.0
    elif known:
        by_callback = completion == "webhook"
        pacer = make_pacer(
            by_list=generation == "runs",
            by_callback=by_callback,
            min_interval=min_interval,
            max_interval=max_interval,
            durations=known,
        )
        simulation = _Simulation(
            limit=limit,
            window=window,
            max_in_flight=max_in_flight,
            reads=reads,
            durations=known,
            pacer=pacer,
            by_callback=by_callback,
        )
        poll, seconds = simulation.extend(jobs)
    return Forecast(
        jobs=jobs,
        submit=max(0, jobs),
        poll=poll,
        other=reads,
        seconds=seconds,
        least_requests=max(0, jobs) * per_job + reads,
        least_seconds=least_seconds(
            jobs,
            limit=limit,
            window=window,
            shortest=known[0] if known else 0.0,
            per_job=per_job,
            reads=reads,
            max_in_flight=max_in_flight,
        ),
    )


def least_seconds(
    jobs: int,
    *,
    limit: int,
    window: float,
    shortest: float = 0.0,
    per_job: int = 2,
    reads: int = 3,
    max_in_flight: int | None = None,
) -> float:
    """The least possible time for `jobs` executions, in seconds: no client is faster, and a perfect one is that fast.

    `per_job` requests are needed for each (2 by polling, 1 by webhook), `reads` before the first of them; `limit`
    requests pass in each `window` seconds, the first of which begins with the run; `shortest` is the shortest duration
    that occurs. With `max_in_flight` slots, all but so many must be seen to have ended before the last one starts.
    """
    if jobs <= 0:
        return 0.0
    slots = jobs if max_in_flight is None else min(jobs, max_in_flight)
    before_the_last = reads + jobs + (jobs - slots) * (per_job - 1)

    def leaves_at(request: int) -> float:
        return window * (math.ceil(request / limit) - 1)

    return max(
        # The last request of all may leave, ...
        leaves_at(reads + jobs * per_job),
        # ... the last execution may end, ...
        leaves_at(before_the_last) + shortest,
        # ... and each slot has been used often enough.
        math.ceil(jobs / slots) * shortest,
    )


# -- the rehearsal -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _PerJob:
    """What one job more takes."""

    polls: float
    seconds: float


@dataclass(slots=True, kw_only=True)
class _Simulation:
    """A run in which hardly anything takes time but executions and the limit."""

    limit: int
    window: float
    max_in_flight: int
    #: still to be made
    reads: int
    #: of executions, from the shortest to the longest
    durations: Sequence[float]
    pacer: Pacer
    #: whether callbacks tell of ends
    by_callback: bool

    _now: float = 0.0
    _budget: Budget = field(default_factory=Budget)
    _window_end: float = -math.inf
    _hits: int = 0
    _jobs: int = 0
    #: the durations of those that run, and when they end
    _running: dict[str, tuple[float, float]] = field(default_factory=dict)
    _deliveries: list[tuple[float, str]] = field(default_factory=list)
    #: when each was started
    _starts: list[float] = field(default_factory=list)
    #: ends seen when the last one was started
    _ends_at_last_start: int = 0
    _polls: int = 0
    #: at each end: polls so far, and for how long the slot was taken
    _ends: list[tuple[int, float]] = field(default_factory=list)

    def extend(self, jobs: int) -> tuple[int, float]:
        """Polls and seconds that this many jobs take."""
        self._jobs = min(jobs, _SIMULATED_JOBS)
        while len(self._ends) < self._jobs:
            acted = self._act()
            if len(self._ends) < self._jobs:
                self._wait(acted=acted)
        if jobs == self._jobs:
            return self._polls, self._now
        each = self._usual()
        more = jobs - self._jobs
        return self._polls + round(more * each.polls), self._now + more * each.seconds

    def _usual(self) -> _PerJob:
        """What a job takes in the long run: not while the first ones start, nor while the last ones end."""
        first, last = self._ends_at_last_start // 3, self._ends_at_last_start - 1
        if last - first < self._jobs // 4:
            first, last = 0, len(self._ends) - 1
        polls = (self._ends[last][0] - self._ends[first][0]) / (last - first)
        taken = sum(seconds for _, seconds in self._ends[first : last + 1]) / (last + 1 - first)
        # Requests or slots set the pace; in turns where both run short, and then it is slower than either alone.
        paces = [(1 + polls) * self.window / self.limit, taken / self.max_in_flight]
        later = range(self._jobs // 3, self._jobs)
        paces.append(linear_regression(later, [self._starts[number] for number in later]).slope)
        return _PerJob(polls=polls, seconds=max(paces))

    def _act(self) -> bool:
        """Do what may be done now, as the engine does: due polls first, submissions take the rest."""
        now = self._now
        room = self._budget.available(now)
        if room <= 0:
            return False
        if self.reads:
            self.reads -= 1
            self._request()
            return True
        slots = max(0, min(self.max_in_flight - len(self._running), self._jobs - len(self._starts)))
        requests = self.pacer.requests(now, Room(requests=room, polls=_MOST_POLLS, waiting=slots))
        for request in requests:
            match request:
                case PollRequest(execution=name):
                    self._poll(name)
                case ListRequest():
                    self._list(request)
        room -= len(requests)
        starting = max(0, min(room - self.pacer.reserved(now), slots, _MOST_STARTS))
        for _ in range(starting):
            self._start()
        return bool(requests) or starting > 0

    def _wait(self, *, acted: bool) -> None:
        """Go to the next instant at which something may be done."""
        soon = self._now + self.window * _ROUND_TRIP
        if not acted:
            # More requests may also be a reason to ask earlier.
            changes = [self._budget.next_change(self._now)]
            if self._budget.available(self._now) > 0:
                changes.append(self.pacer.next_due(self._now))
            moments = [change for change in changes if change is not None]
            if self._deliveries:
                moments.append(self._deliveries[0][0])
            self._now = max(min(moments, default=soon), math.nextafter(self._now, math.inf))
        else:
            self._now = soon
        while self._deliveries and self._deliveries[0][0] <= self._now:
            name = heapq.heappop(self._deliveries)[1]
            if name in self._running:
                self._end(name, by_callback=True)

    def _request(self) -> None:
        ticket = self._budget.spend(self._now)
        if self._now >= self._window_end:
            self._window_end, self._hits = self._now + self.window, 0
        self._hits += 1
        said = Quota(
            limit=self.limit,
            remaining=max(0, self.limit - self._hits),
            reset=self._window_end - self._now,
            window=self.window,
        )
        self._budget.settle(ticket, self._now, said)

    def _start(self) -> None:
        number = len(self._starts)
        self._request()
        self._starts.append(self._now)
        duration = self.durations[int(len(self.durations) * (number * _GOLDEN_SECTION % 1))]
        name = str(number)
        self._running[name] = (duration, self._now + duration)
        self.pacer.start(name, self._now)
        if self.by_callback:
            heapq.heappush(self._deliveries, (self._now + duration, name))
        self._ends_at_last_start = len(self._ends)

    def _poll(self, name: str) -> None:
        self._request()
        self._polls += 1
        if self._running[name][1] <= self._now:
            self._end(name, by_callback=False)
        else:
            self.pacer.asked(name, self._now)

    def _list(self, request: ListRequest) -> None:
        self._request()
        self._polls += 1
        page = range(len(self._starts) - request.offset - 1, -1, -1)[: request.limit]
        listed = [name for name in map(str, page) if name in self._running]
        self.pacer.list_answered(request, self._now, {name: self._running[name][1] <= self._now for name in listed})

    def _end(self, name: str, *, by_callback: bool) -> None:
        duration, _ = self._running.pop(name)
        self.pacer.ended(name, duration, by_callback=by_callback)
        self._ends.append((self._polls, self._now - self._starts[int(name)]))
