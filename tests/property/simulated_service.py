"""The service in simulated time, for the tests of budget and polling.

A limiter, a network with latency and losses, and runs that obey Budget and Polling as the engine does: due polls
first, submissions take the rest, so many in flight. Nothing here sleeps or reads a clock; a seed fixes everything.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from lamina_batch.client.budget import Budget, parse_quota
from lamina_batch.execution.pacer import ListRequest, Pacer, PollRequest, Room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina_batch.client.budget import RequestTicket

#: seconds until a request without an answer is given up
GIVEN_UP_AFTER = 30.0


class Fate(Enum):
    """What becomes of a request."""

    ANSWERED = "answered"
    #: counted by the limiter, then the connection breaks
    LOST = "lost"
    #: counted by the limiter, then nothing is heard
    HANGS = "hangs"
    #: there is no connection
    REFUSED = "refused"


class Clock:
    """Simulated time: what is to happen, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, instant: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (max(instant, self.now), self._count, event))

    def run(self, *, events: int = 1_000_000) -> None:
        """Let happen what is to happen; a run that does not end would go on for ever."""
        for _ in range(events):
            if not self._events:
                return
            self.now, _, event = heapq.heappop(self._events)
            event()
        raise AssertionError(f"still not over after {events} events")


@dataclass(slots=True, kw_only=True)
class Limiter:
    """A fixed window, opened by the first request after the end of the last one (docs/lamina-api.md, "Limiter")."""

    limit: int = 100
    window: float = 60.0
    says_nothing: bool = False
    #: the limit of the windows from that number on
    later_limits: Mapping[int, int] = field(default_factory=dict)
    end: float = -math.inf
    hits: int = 0
    #: requests let through, for each window
    passed: list[int] = field(default_factory=list)
    refused: int = 0
    #: time between the end of a window and the beginning of the next
    gaps: list[float] = field(default_factory=list)

    def hit(self, now: float) -> tuple[int, dict[str, str]]:
        """Count a request; the status and headers of its answer."""
        if now >= self.end:
            self.limit = self.later_limits.get(len(self.passed), self.limit)
            if self.passed:
                self.gaps.append(now - self.end)
            self.end, self.hits = now + self.window, 0
            self.passed.append(0)
        self.hits += 1
        allowed = self.hits <= self.limit
        self.passed[-1] += allowed
        self.refused += not allowed
        status = 200 if allowed else 429
        if self.says_nothing:
            return status, {}
        # Rounding errors of ours are not the service's: it counts in milliseconds.
        rest = str(math.ceil(round(self.end - now, 6)))
        headers = {
            "RateLimit-Policy": f"{self.limit};w={math.ceil(self.window)}",
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(0, self.limit - self.hits)),
            "RateLimit-Reset": rest,
        }
        return status, headers if allowed else {**headers, "Retry-After": rest}

    @property
    def total(self) -> int:
        return sum(self.passed) + self.refused


class Oracle(Pacer):
    """Knows when each execution ends, and asks about it once, from then on."""

    def __init__(self, durations: Mapping[str, float]) -> None:
        self._durations = durations
        self._ends: list[tuple[float, str]] = []
        self._live = 0

    def start(self, execution: str, now: float, *, age: float = 0.0) -> None:
        # The nanosecond is for what an addition the other way round would be less by.
        heapq.heappush(self._ends, (now - age + self._durations[execution] + 1e-9, execution))
        self._live += 1

    def asked(self, execution: str, now: float) -> None:
        raise AssertionError("the oracle asked too early")

    def failed(self, execution: str, now: float) -> None:
        heapq.heappush(self._ends, (now, execution))

    def ended(self, execution: str, duration: float | None, *, by_callback: bool = False) -> None:
        self._live -= 1

    def due(self, now: float, limit: int, *, waiting: int = 0, room: int | None = None) -> list[str]:
        names: list[str] = []
        while self._ends and self._ends[0][0] <= now and len(names) < limit:
            names.append(heapq.heappop(self._ends)[1])
        return names

    def next_due(self, now: float) -> float | None:
        return max(now, self._ends[0][0]) if self._ends else None

    def __len__(self) -> int:
        return self._live


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of rows against the service. `polling` None: ends are told by webhook."""

    clock: Clock
    limiter: Limiter
    durations: Mapping[str, float]
    budget: Budget = field(default_factory=Budget)
    polling: Pacer | None = None
    random: Random = field(default_factory=lambda: Random(1))
    max_in_flight: int = 100
    most_open_posts: int = 16
    most_open_polls: int = 64
    #: seconds one way, at the least and at the most
    latency: tuple[float, float] = (0.02, 0.12)
    #: reads of the contract, one after the other, before the first submission
    reads: int = 3
    #: what becomes of each request, the first being 1
    fate: Callable[[int], Fate] = lambda _number: Fate.ANSWERED
    #: how many seconds after its end an execution is told of, infinite where that is lost; None: no webhooks
    told_after: Callable[[str], float] | None = None

    requests: int = 0
    refused: int = 0
    began: float = 0.0
    #: when the last end, or without polling the last acceptance, was seen
    ended: float = 0.0
    #: execution -> when it was polled
    polled: dict[str, list[float]] = field(default_factory=dict)
    sweeps: int = 0
    #: all that was accepted, in order; None: somebody else's
    listed: list[str | None] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)
    _accepted: dict[str, float] = field(default_factory=dict)
    #: executions whose end is known
    _over: set[str] = field(default_factory=set)
    #: whose acceptance was not answered: only a webhook can tell of them
    _held: set[str] = field(default_factory=set)
    _posts: int = 0
    _polls: int = 0
    _reading: bool = False
    _look_at: float = math.inf
    _overseer: Random = field(default_factory=lambda: Random(2))

    def begin(self) -> None:
        self.began = self.clock.now
        self._waiting = list(self.durations)[::-1]
        self._step()

    def oversee(self, every: float) -> None:
        """Look at some instants, about so many seconds apart, whether something could be done that is not done."""

        def look() -> None:
            if not self.done:
                self._assert_not_idle()
                self.oversee(every)

        self.clock.at(self.clock.now + self._overseer.uniform(0, 2 * every), look)

    @property
    def done(self) -> bool:
        return not self._waiting and not self._posts and not self._live and not self._held

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def per_row(self) -> float:
        return self.requests / len(self.durations)

    @property
    def _live(self) -> int:
        return 0 if self.polling is None else len(self.polling)

    def _step(self) -> None:
        """Do what may be done now, and see to it that the next moment at which that may change is not missed."""
        now = self.clock.now
        room = self.budget.available(now)
        if self.reads:
            if room and not self._reading:
                self._reading = True
                self._send(self._read_ended)
            elif not self._reading:
                self._look_again(self.budget.next_change(now))
            return
        kept = 0
        if self.polling is not None:
            for request in self.polling.requests(now, self._room(room)):
                room -= 1
                match request:
                    case PollRequest(execution=name):
                        self._polls += 1
                        self.polled.setdefault(name, []).append(now)
                        self._send(partial(self._poll_ended, name))
                    case ListRequest():
                        self.sweeps += 1
                        shown: dict[str, bool] = {}
                        self._send(partial(self._list_ended, request, shown), partial(self._show, request, shown))
            kept = self.polling.reserved(now)
        slots = self.max_in_flight - self._posts - self._live
        for _ in range(min(room - kept, self.most_open_posts - self._posts, slots, len(self._waiting))):
            room -= 1
            self._posts += 1
            name = self._waiting.pop()
            self._send(partial(self._post_ended, name), partial(self._accept, name))
        if not self.done:
            # More requests may also be a reason to ask earlier.
            self._look_again(self.budget.next_change(now))
        if room > 0 and self.polling is not None and self._polls < self.most_open_polls:
            self._look_again(self.polling.next_due(now))

    def _assert_not_idle(self) -> None:
        now = self.clock.now
        room = self.budget.available(now)
        if self.reads:
            assert self._reading or room == 0, f"{now}: nothing is read"
            return
        slots = self.max_in_flight - self._posts - self._live
        kept = 0
        if self.polling is not None:
            assert self.polling.requests(now, self._room(room)) == [], f"{now}: a request is due"
            kept = self.polling.reserved(now)
        idle = min(room - kept, self.most_open_posts - self._posts, slots, len(self._waiting))
        assert idle <= 0, f"{now}: {idle} rows may be submitted"

    def _room(self, requests: int) -> Room:
        slots = self.max_in_flight - self._posts - self._live
        polls = self.most_open_polls - self._polls
        return Room(requests=requests, polls=polls, waiting=min(len(self._waiting), slots))

    def _look_again(self, at: float | None) -> None:
        if at is not None and at < self._look_at:
            self._look_at = at
            self.clock.at(at, partial(self._look, at))

    def _look(self, at: float) -> None:
        if at == self._look_at:
            self._look_at = math.inf
            self._step()

    def _send(self, ended: Callable[[int | None, float], None], accepted: Callable[[], None] = lambda: None) -> None:
        self.requests += 1
        ticket = self.budget.spend(self.clock.now)
        arrives = self.clock.now + self.random.uniform(*self.latency)
        self.clock.at(arrives, partial(self._arrive, ticket, self.fate(self.requests), accepted, ended))

    def _arrive(
        self,
        ticket: RequestTicket,
        fate: Fate,
        accepted: Callable[[], None],
        ended: Callable[[int | None, float], None],
    ) -> None:
        arrived = self.clock.now
        status, headers = (0, {}) if fate is Fate.REFUSED else self.limiter.hit(arrived)
        self.refused += status == 429
        if status == 200:
            accepted()

        def answer() -> None:
            match fate:
                case Fate.ANSWERED:
                    self.budget.settle(ticket, self.clock.now, parse_quota(headers, status))
                case Fate.REFUSED:
                    self.budget.withdraw(ticket)
                case Fate.LOST | Fate.HANGS:
                    self.budget.settle(ticket, self.clock.now, None)
            ended(status if fate is Fate.ANSWERED else None, arrived)
            self._step()

        way_back = GIVEN_UP_AFTER if fate is Fate.HANGS else self.random.uniform(*self.latency)
        self.clock.at(arrived + way_back, answer)

    def _read_ended(self, status: int | None, _arrived: float) -> None:
        self._reading = False
        self.reads -= status == 200

    def _post_ended(self, name: str, status: int | None, arrived: float) -> None:
        self._posts -= 1
        if name not in self._accepted:
            self._waiting.append(name)
            return
        if self.polling is None:
            # Its end is told by webhook: here it only matters that it took a request.
            self.ended = self.clock.now
        elif name in self._over:
            pass
        elif status is None and self.told_after is not None:
            self._held.add(name)
        else:
            self.polling.start(name, self.clock.now)

    def _accept(self, name: str) -> None:
        self._accepted[name] = self.clock.now
        self.listed.append(name)
        if self.told_after is not None:
            way = self.random.uniform(*self.latency)
            after = self.durations[name] + self.told_after(name)
            if after < math.inf:
                self.clock.at(self.clock.now + after + way, partial(self._told, name))

    def _show(self, sweep: ListRequest, shown: dict[str, bool]) -> None:
        """What the list says of ours: the newest first, whoever started them."""
        newest = self.listed[len(self.listed) - sweep.offset - 1 :: -1] if sweep.offset < len(self.listed) else []
        for name in newest[: sweep.limit]:
            if name is not None and name not in self._over:
                shown[name] = self._accepted[name] + self.durations[name] <= self.clock.now

    def _list_ended(self, sweep: ListRequest, shown: dict[str, bool], status: int | None, _arrived: float) -> None:
        assert self.polling is not None
        if status == 200:
            self.polling.list_answered(sweep, self.clock.now, shown)
        else:
            self.polling.list_failed(sweep, self.clock.now)

    def _told(self, name: str) -> None:
        assert self.polling is not None
        if name not in self._over:
            self._end(name, by_callback=True)
            self._held.discard(name)
            self._step()

    def _end(self, name: str, *, by_callback: bool) -> None:
        assert self.polling is not None
        self._over.add(name)
        self.ended = self.clock.now
        self.polling.ended(name, self.durations[name], by_callback=by_callback)

    def _poll_ended(self, name: str, status: int | None, arrived: float) -> None:
        assert self.polling is not None
        self._polls -= 1
        if name in self._over:
            return
        if status != 200:
            self.polling.failed(name, self.clock.now)
        elif arrived < self._accepted[name] + self.durations[name]:
            self.polling.asked(name, self.clock.now)
        else:
            self._end(name, by_callback=False)
