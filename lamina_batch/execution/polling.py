"""When to ask about which execution (DESIGN.md section 7, API.md section 7).

Pure: instants are seconds of a monotonic clock and are handed in. docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEVELS = (0.9, 0.6, 0.3)
_GROWTHS = (0.5, 0.3, 0.15)
_MOST_KNOWN = 1000
_STEP = 1.25
RICH = (1.0, 3.0)
FEW = 5


@dataclass(slots=True, eq=False)
class _Live:
    name: str
    #: when the service accepted it
    started: float
    #: when it was last known not to have ended
    seen: float
    asked: bool = False
    failures: int = 0
    retry_at: float = 0.0
    version: int = 0
    out: bool = False


class Lifetimes:
    def __init__(self, durations, censored=()):
        self.ends = sorted(durations)
        cens = sorted(censored)
        self.left = []
        alive = 1.0
        n, m = len(self.ends), len(cens)
        for i, d in enumerate(self.ends):
            at_risk = n - i + m - bisect_left(cens, d)
            alive *= 1 - 1 / at_risk
            self.left.append(alive)
        self.least = alive
        self.floor = cens[-1] if cens else 0.0

    def after(self, age, chance):
        """age by which an execution alive at `age` has ended with that chance, if it is one that ends like known ones"""
        i = bisect_right(self.ends, age)
        if len(self.ends) - i < (FEW if age > 0 else 1):
            return None
        alive = self.left[i - 1] if i else 1.0
        mass = alive - self.least
        if mass < 0.5 * alive:
            return None
        wanted = alive - chance * mass
        # left is falling
        j = bisect_left(self.left, -wanted - 1e-9, lo=i, key=lambda v: -v)
        return self.ends[min(j, len(self.ends) - 1)]


class Polling:
    """Which executions to ask about now. Asked ones are not handed out again before their answer is told."""

    def __init__(self, *, min_interval: float, max_interval: float, durations: Iterable[float] = ()) -> None:
        self._least = min_interval
        self._most = max(min_interval, max_interval)
        self._known = deque((d for d in durations if d >= 0), _MOST_KNOWN)
        self._lifetimes = Lifetimes(self._known)
        self._live: dict[str, _Live] = {}
        self._heaps: list[list[tuple[float, int, _Live]]] = [[] for _ in _LEVELS]
        self._count = 0
        self._news = 0
        self._learnt = len(self._known)
        self._level = 0
        self._outs = 0

    def __len__(self) -> int:
        return len(self._live)

    def start(self, execution: str, now: float, *, age: float = 0.0) -> None:
        live = _Live(name=execution, started=now - max(0.0, age), seen=now - max(0.0, age))
        live.retry_at = now
        self._live[execution] = live
        self._plan(live)

    def asked(self, execution: str, now: float) -> None:
        live = self._live.get(execution)
        if live is not None:
            self._back(live)
            live.failures, live.seen, live.asked = 0, now, True
            self._news += 1
            self._plan(live)

    def failed(self, execution: str, now: float) -> None:
        live = self._live.get(execution)
        if live is not None:
            self._back(live)
            live.failures += 1
            live.retry_at = now + min(self._most, self._least * 2.0 ** min(live.failures - 1, 30))
            self._plan(live)

    def ended(self, execution: str, duration: float | None) -> None:
        live = self._live.pop(execution, None)
        if live is not None:
            self._back(live)
        if duration is not None and duration >= 0:
            self._known.append(duration)
            self._news += 1

    def _back(self, live):
        if live.out:
            live.out = False
            self._outs -= 1

    def due(self, now: float, limit: int, *, waiting: int = 0, startable: int | None = None) -> list[str]:
        if self._news > 0 and self._news >= min(250, (_STEP - 1) * self._learnt):
            self._learn()
        startable = waiting if startable is None else startable
        k = len(self._live)
        if startable > 0 or limit < RICH[0] * k:
            self._level = 0
        elif limit < RICH[1] * k:
            self._level = 1
        else:
            self._level = 2
        heap = self._heaps[self._level]
        limit = min(limit, 2 + 2 * len(self._known) - self._outs)
        names: list[str] = []
        while len(names) < limit:
            live = self._head()
            if live is None or heap[0][0] > now:
                break
            heapq.heappop(heap)
            live.out = True
            self._outs += 1
            live.version = 0
            names.append(live.name)
        return names

    def next_due(self, now: float) -> float | None:
        live = self._head()
        if live is None or self._outs >= 2 + 2 * len(self._known):
            return None
        return max(now, self._heaps[self._level][0][0])

    # -- inside --------------------------------------------------------------------------------------------

    def _head(self) -> _Live | None:
        heap = self._heaps[self._level]
        while heap:
            _, version, live = heap[0]
            if version == live.version and not live.out and live.name in self._live:
                return live
            heapq.heappop(heap)
        return None

    def _plan(self, live: _Live) -> None:
        self._count += 1
        live.version = self._count
        for heap, instant in zip(self._heaps, self._instants(live)):
            heapq.heappush(heap, (instant, live.version, live))

    def _instants(self, live: _Live):
        age = live.seen - live.started
        earliest = max(live.seen + self._least, live.retry_at)
        half = self._lifetimes.after(age, 0.5)
        for level, growth in zip(_LEVELS, _GROWTHS):
            if half is None:
                base = max(age, self._lifetimes.floor) if not self._known else age
                wanted = live.started + age + min(self._most, (base - age) + growth * base)
            else:
                wanted = live.started + min(half + self._most, self._lifetimes.after(age, level))
            yield max(earliest, wanted)

    def _learn(self) -> None:
        self._news = 0
        censored = [live.seen - live.started for live in self._live.values() if live.asked]
        self._lifetimes = Lifetimes(self._known, censored)
        self._learnt = len(self._known) + len(censored)
        for heap in self._heaps:
            heap.clear()
        for live in self._live.values():
            if not live.out:
                self._plan(live)
