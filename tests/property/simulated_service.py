"""Simulated time for the tests of budget and polling: the service's limiter, a network with latency, and runs on it.

A run obeys Budget and Polling as the engine does: polls first, submissions take the rest, so many in flight.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from lamina_batch.client.budget import Budget, parse_quota

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from lamina_batch.client.budget import Ticket


#: seconds until a request without an answer is given up
HANG = 30.0


class Fate(Enum):
    """What becomes of a request."""

    ANSWERED = "answered"
    #: counted by the limiter, its answer lost
    LOST = "lost"
    #: counted by the limiter, and nothing is heard for HANG seconds
    HANGS = "hangs"
    #: it never reached the limiter
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

    def run(self, until: float = math.inf) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()


@dataclass(slots=True, kw_only=True)
class Limiter:
    """A fixed window, opened by the first request after the last one's end (API.md section 5)."""

    limit: int = 100
    window: float = 60.0
    #: "draft-6", or "none": it says nothing at all
    headers: str = "draft-6"
    end: float = -math.inf
    hits: int = 0
    total: int = 0
    refused: int = 0
    #: requests let through in each window
    windows: list[int] = field(default_factory=list)

    def hit(self, now: float) -> tuple[int, dict[str, str]]:
        if now >= self.end:
            self.end = now + self.window
            self.hits = 0
            self.windows.append(0)
        self.hits += 1
        self.total += 1
        rest = math.ceil(round(self.end - now, 6))
        allowed = self.hits <= self.limit
        if allowed:
            self.windows[-1] += 1
        else:
            self.refused += 1
        if self.headers == "none":
            return (200 if allowed else 429), {}
        headers = {
            "RateLimit-Policy": f"{self.limit};w={math.ceil(self.window)}",
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(max(0, self.limit - self.hits)),
            "RateLimit-Reset": str(rest),
        }
        if not allowed:
            headers["Retry-After"] = str(rest)
        return (200 if allowed else 429), headers


class Pacer(Protocol):
    """What the runs need of Polling."""

    def start(self, execution: str, now: float, *, age: float = 0.0) -> None: ...
    def asked(self, execution: str, now: float) -> None: ...
    def failed(self, execution: str, now: float) -> None: ...
    def ended(self, execution: str, duration: float | None) -> None: ...
    def due(self, now: float, limit: int, *, waiting: int = 0) -> list[str]: ...
    def next_due(self, now: float) -> float | None: ...
    def __len__(self) -> int: ...


class Oracle:
    """Knows when every execution ends, and asks once, from then on."""

    def __init__(self, durations: dict[str, float]) -> None:
        self._durations = durations
        self._heap: list[tuple[float, str]] = []
        self._live = 0

    def start(self, execution: str, now: float, *, age: float = 0.0) -> None:
        heapq.heappush(self._heap, (now - age + self._durations[execution] + 1e-9, execution))
        self._live += 1

    def asked(self, execution: str, now: float) -> None:
        raise AssertionError

    def failed(self, execution: str, now: float) -> None:
        heapq.heappush(self._heap, (now, execution))

    def ended(self, execution: str, duration: float | None) -> None:
        self._live -= 1

    def due(self, now: float, limit: int, *, waiting: int = 0) -> list[str]:
        names = []
        while self._heap and self._heap[0][0] <= now and len(names) < limit:
            names.append(heapq.heappop(self._heap)[1])
        return names

    def next_due(self, now: float) -> float | None:
        return max(now, self._heap[0][0]) if self._heap else None

    def __len__(self) -> int:
        return self._live


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of rows against the simulated service."""

    clock: Clock
    limiter: Limiter
    budget: Budget
    polling: Pacer
    random: Random
    durations: dict[str, float]
    max_in_flight: int = 100
    open_posts: int = 16
    open_polls: int = 64
    #: least and greatest latency of one way
    latency: tuple[float, float] = (0.02, 0.12)
    #: reads of the contract before the first submission
    reads: int = 3
    #: what becomes of a request, by its number
    fate: Callable[[int], Fate] = lambda _number: Fate.ANSWERED
    #: ends without polls, as by webhook
    webhooks: bool = False

    posts: int = 0
    polls: int = 0
    misses: int = 0
    refused: int = 0
    began: float = 0.0
    ended_at: float = 0.0
    _waiting: list[str] = field(default_factory=list)
    _accepted: dict[str, float] = field(default_factory=dict)
    _posting: int = 0
    _polling: int = 0
    _reading: int = 0
    _wake: float | None = None
    requests: int = 0
    log: list[tuple[float, str]] = field(default_factory=list)

    def begin(self) -> None:
        self.began = self.clock.now
        self._waiting = list(reversed(self.durations))
        self.step()

    @property
    def done(self) -> bool:
        return not self._waiting and not self._posting and not len(self.polling) and not self._reading

    def step(self) -> None:
        if self.done:
            return
        now = self.clock.now
        if self.reads:
            if not self._reading and self.budget.available(now) > 0:
                self.reads -= 1
                self._reading = 1
                self._send("read", self._read_back)
            else:
                self._sleep(self.budget.next_change(now))
            return
        if self._reading:
            return
        room = self.budget.available(now)
        in_flight = self._posting + len(self.polling)
        startable = min(len(self._waiting), self.max_in_flight - in_flight)
        for name in self.polling.due(now, min(room, self.open_polls - self._polling), waiting=startable):
            room -= 1
            self._polling += 1
            self.polls += 1
            self._send("poll", lambda status, seen, name=name: self._poll_back(name, status, seen))
        in_flight = self._posting + len(self.polling)
        for _ in range(min(room, self.open_posts - self._posting, self.max_in_flight - in_flight, len(self._waiting))):
            room -= 1
            name = self._waiting.pop()
            self._posting += 1
            self.posts += 1
            self._send("post", lambda status, seen, name=name: self._post_back(name, status, seen))
        moments = []
        if room > 0 and self._polling < self.open_polls:
            moments.append(self.polling.next_due(now))
        if room <= 0:
            moments.append(self.budget.next_change(now))
        known = [moment for moment in moments if moment is not None]
        if known:
            self._sleep(min(known))

    def _sleep(self, until: float | None) -> None:
        if until is None or (self._wake is not None and self._wake <= until and self._wake > self.clock.now):
            return
        self._wake = until
        self.clock.at(until, self.step)

    def _send(self, kind: str, back: Callable[[int | None, float], None]) -> None:
        ticket = self.budget.spend(self.clock.now)
        self.requests += 1
        number = self.requests
        self.clock.at(
            self.clock.now + self.random.uniform(*self.latency), lambda: self._arrive(kind, ticket, number, back)
        )

    def _arrive(self, kind: str, ticket: Ticket, number: int, back: Callable[[int | None, float], None]) -> None:
        seen = self.clock.now
        fate = self.fate(number)
        lost = fate is not Fate.ANSWERED
        status, headers = (0, {}) if fate is Fate.REFUSED else self.limiter.hit(seen)
        self.log.append((seen, "429" if status == 429 else kind))

        def answer() -> None:
            if fate is Fate.REFUSED:
                self.budget.withdraw(ticket)
            else:
                self.budget.settle(ticket, self.clock.now, None if lost else parse_quota(headers, status))
            if status == 429:
                self.refused += 1
            back(None if lost else status, seen)
            self.step()

        way_back = HANG if fate is Fate.HANGS else self.random.uniform(*self.latency)
        self.clock.at(seen + way_back, answer)

    def _read_back(self, status: int | None, seen: float) -> None:
        self._reading = 0
        if status != 200:
            self.reads += 1

    def _post_back(self, name: str, status: int | None, seen: float) -> None:
        self._posting -= 1
        if status == 429:
            self._waiting.append(name)
            return
        self._accepted[name] = seen
        self.ended_at = self.clock.now
        if not self.webhooks:
            self.polling.start(name, self.clock.now)

    def _poll_back(self, name: str, status: int | None, seen: float) -> None:
        self._polling -= 1
        if status != 200:
            self.polling.failed(name, self.clock.now)
        elif seen >= self._accepted[name] + self.durations[name]:
            self.ended_at = self.clock.now
            self.polling.ended(name, self.durations[name])
        else:
            self.misses += 1
            self.polling.asked(name, self.clock.now)

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began


def simulate(clock: Clock, runs: Iterable[Run]) -> None:
    for run in runs:
        run.begin()
    clock.run()
