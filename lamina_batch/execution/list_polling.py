"""When to ask the list about many executions at once (docs/budget.md, "The list"; the `runs` generation,
docs/lamina-api.md, "List of runs").

The list shows the newest hundred, whoever started them, with their status and without outputs. One request for it, a
sweep, observes every execution of ours on its page; each that has ended is then asked for its outputs at once. A sweep
is worth its request when those that should have ended have lain unseen for long enough, all of them together. Those
that no sweep shows, and the last few, are asked about one by one (polling.py).
Pure: instants are seconds of a monotonic clock and are handed in. docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamina_batch.execution.pacer import ListRequest, Pacer
from lamina_batch.execution.polling import ExecutionPoller

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What one page of the list shows at most (docs/lamina-api.md, "List of runs").
PAGE_SIZE = 100

#: A sweep is worth so many median durations that finished executions lie unseen, added up: when there are hardly
#: enough requests, and when there are plenty.
_POOR, _RICH = 6.0, 0.5
#: Plenty: so many for each live execution, after all submissions that could leave now.
_REQUESTS_PER_EXECUTION_WHEN_RICH = 2
#: One that outlasts what is known is expected to end when its age has grown by this part.
_GROWTH = 0.25
#: So few altogether, and one alone on its page, are asked about one by one: what a sweep finds takes a poll as well.
_MAX_POLLED_BY_ID = 3
#: A page that hides so many times more of ours than it shows is full of others', and so is the next.
_FOREIGN_PAGE_RATIO = 2
#: What is heard of later may have been accepted before, by so many places in the list at most.
_MAX_OVERTAKING = 20
#: After so many failures in a row those of a page are asked about one by one.
_MAX_LIST_FAILURES = 3


@dataclass(slots=True, eq=False)
class _TrackedExecution:
    name: str
    #: when the service accepted it
    started: float
    #: when the waiting for it began
    since: float
    #: how many of ours this run had started by then, this one included
    number: int
    #: when it was last known not to have ended
    seen: float
    #: when it will have ended as likely as not
    expected: float


@dataclass(slots=True, eq=False)
class _ListPage:
    """Those that a sweep of this page may show."""

    live: dict[str, _TrackedExecution] = field(default_factory=dict)
    #: when the sweep that is out left
    sent_at: float | None = None
    #: not to be list_answered before
    not_before: float = -math.inf
    #: sweeps that failed since the last answer
    failures: int = 0
    #: the moments it is planned by, for what a sweep is worth; forgotten when the page changes
    due: dict[float, tuple[float, float]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _PageResult:
    """One that the list shows as ended, and whose outputs are wanted."""

    #: not to be asked before
    at: float
    #: polls that failed
    failures: int = 0
    #: a poll is out
    out: bool = False

    def wanted(self, now: float) -> bool:
        return not self.out and self.at <= now


class ListPoller(Pacer):
    """Which executions to ask about now, and when a sweep is worth its request.

    It is used as `Polling` is. Besides, `list_due` hands out sweeps, one for each page at a time; `list_answered` or
    `list_failed` is told how each ended. Intervals and `durations` are in seconds. At the age of `timeout` each is
    asked about by itself, because only that tells what is to be said of it.
    """

    def __init__(
        self,
        *,
        min_interval: float,
        max_interval: float,
        durations: Iterable[float] = (),
        timeout: float = math.inf,
    ) -> None:
        self._least = min_interval
        self._timeout = timeout
        self._most = max(min_interval, max_interval)
        #: those that are asked about one by one; and what is known of durations
        self._by_id = ExecutionPoller(
            min_interval=min_interval, max_interval=max_interval, durations=durations, timeout=timeout
        )
        self._known = self._by_id.durations
        self._pages = [_ListPage()]
        self._page_of: dict[str, _ListPage] = {}
        self._found: dict[str, _PageResult] = {}
        #: executions that this run started
        self._started = 0
        #: how many there were when the pages were last turned
        self._turned = 0
        self._worth = _POOR

    def __len__(self) -> int:
        return len(self._by_id) + len(self._found) + len(self._page_of)

    def start(self, execution: str, now: float, *, age: float = 0.0) -> None:
        """Wait for the end of an execution that was accepted `age` seconds ago."""
        self._forget(execution)
        accepted = now - max(0.0, age)
        # What an earlier run started stands behind all of this one; how far is seen when it is not on its page.
        self._started += age <= self._least
        live = _TrackedExecution(
            name=execution, started=accepted, since=now, number=self._started, seen=accepted, expected=0.0
        )
        if age >= self._timeout:
            self._ask_by_id(live)
        else:
            self._put(live, 0)

    def asked(self, execution: str, now: float) -> None:
        """A poll came back: it had not ended."""
        self._again(execution, now + self._least)
        self._by_id.asked(execution, now)

    def failed(self, execution: str, now: float) -> None:
        """A poll was not answered, or not with an execution."""
        found = self._found.get(execution)
        if found is not None:
            found.failures += 1
            self._again(execution, now + self._pause(found.failures))
        self._by_id.failed(execution, now)

    def ended(self, execution: str, duration: float | None, *, by_callback: bool = False) -> None:
        """It ended, or is no longer waited for; `duration` is in seconds by the service's own clock, if known."""
        self._forget(execution)
        self._by_id.ended(execution, duration, by_callback=by_callback)

    def due(self, now: float, limit: int, *, waiting: int = 0, room: int | None = None) -> list[str]:
        """Those to ask about now, best first, at most `limit`, each of them out until its poll has ended.

        Those first that a sweep has found ended. `waiting` and `room` as in `Polling.due`.
        """
        self._arrange(now, limit if room is None else room, waiting)
        names = [name for name, found in self._found.items() if found.wanted(now)][: max(0, limit)]
        for name in names:
            self._found[name].out = True
        return names + self._by_id.due(now, limit - len(names), waiting=waiting, room=room)

    def next_due(self, now: float) -> float | None:
        """The next instant at which there may be one to ask about, a sweep to make, or less reserved; None: never."""
        moments = [found.at for found in self._found.values() if not found.out]
        for page in self._pages:
            if page.sent_at is None:
                moments.append(self._page_due(page))
            elif now < page.sent_at + self._least:
                moments.append(page.sent_at + self._least)
        by_id = self._by_id.next_due(now)
        if by_id is not None:
            moments.append(by_id)
        at = min(moments, default=math.inf)
        return None if at == math.inf else max(now, at)

    def list_due(self, now: float, room: int, *, waiting: int = 0) -> ListRequest | None:
        """A page that is worth one of the `room` requests that may leave now; call again until it returns None."""
        self._arrange(now, room, waiting)
        if room <= self._wanted(now):
            # What is found already comes first.
            return None
        for number, page in enumerate(self._pages):
            if page.sent_at is None and self._page_due(page) <= now:
                page.sent_at = now
                return ListRequest(offset=number * PAGE_SIZE, limit=PAGE_SIZE, sent_at=now)
        return None

    def reserved(self, now: float) -> int:
        """How many requests submissions should leave for what was found, and for what the sweeps that are out may find.

        A sweep that is slow keeps none back for longer than the least interval.
        """
        count = self._wanted(now)
        for page in self._pages:
            if page.sent_at is not None and now < page.sent_at + self._least:
                count += sum(live.expected <= page.sent_at for live in page.live.values())
        return count

    def list_answered(self, sweep: ListRequest, now: float, seen: Mapping[str, bool]) -> None:
        """A sweep came back. `seen`: those of ours that are on the page and waited for, and whether they have ended."""
        page = self._back(sweep, now + self._least)
        page.failures = 0
        for name, ended in seen.items():
            if name not in self._page_of:
                continue
            if ended:
                self._take(name)
                self._found[name] = _PageResult(at=now)
                continue
            live = self._page_of[name].live[name]
            if sweep.sent_at >= live.started + self._timeout:
                self._ask_by_id(self._take(name))
            else:
                live.seen = max(live.seen, sweep.sent_at)
                live.expected = self._expected(live)
                self._page_of[name].due.clear()
        # A list may be a moment behind.
        hidden = [
            live for live in page.live.values() if live.name not in seen and live.started <= sweep.sent_at - self._least
        ]
        full_of_others = len(hidden) > _FOREIGN_PAGE_RATIO * len(seen)
        for live in hidden:
            self._take(live.name)
            if full_of_others:
                self._ask_by_id(live)
            else:
                # New ones only push it further back, so this page never shows it again.
                self._put(live, sweep.offset // PAGE_SIZE + 1)

    def list_failed(self, sweep: ListRequest, now: float) -> None:
        """A sweep was not answered, or not with a list."""
        page = self._back(sweep, now)
        page.failures += 1
        page.not_before = now + self._pause(page.failures)
        if page.failures >= _MAX_LIST_FAILURES:
            self._ask_all_by_id(page)

    # -- inside --------------------------------------------------------------------------------------------

    def _wanted(self, now: float) -> int:
        return sum(found.wanted(now) for found in self._found.values())

    def _pause(self, failures: int) -> float:
        return min(self._most, self._least * 2.0 ** min(failures - 1, 30))

    def _back(self, sweep: ListRequest, not_before: float) -> _ListPage:
        page = self._pages[sweep.offset // PAGE_SIZE]
        page.sent_at = None
        page.not_before = not_before
        page.due.clear()
        return page

    def _again(self, execution: str, at: float) -> None:
        found = self._found.get(execution)
        if found is not None:
            found.out, found.at = False, at

    def _forget(self, execution: str) -> None:
        self._found.pop(execution, None)
        if execution in self._page_of:
            self._take(execution)

    def _take(self, execution: str) -> _TrackedExecution:
        """Take it off its page."""
        page = self._page_of.pop(execution)
        page.due.clear()
        return page.live.pop(execution)

    def _arrange(self, now: float, room: int, waiting: int) -> None:
        """Bring everything up to date with what is known, and with how many requests there are."""
        self._worth = _RICH if room - waiting >= _REQUESTS_PER_EXECUTION_WHEN_RICH * len(self) else _POOR
        if self._known is not self._by_id.durations:
            self._known = self._by_id.durations
            for page in self._pages:
                page.due.clear()
                for live in page.live.values():
                    live.expected = self._expected(live)
        if self._started >= self._turned + PAGE_SIZE // 10:
            self._turn_pages()
        for page in self._pages:
            if self._few(page) and page.sent_at is None and self._page_due(page) <= now:
                self._ask_all_by_id(page)

    def _few(self, page: _ListPage) -> bool:
        return len(page.live) == 1 or (len(page.live) <= _MAX_POLLED_BY_ID and len(self) <= _MAX_POLLED_BY_ID)

    def _turn_pages(self) -> None:
        """Move executions to a later page if newer ones have pushed them there."""
        self._turned = self._started
        for number, page in enumerate(self._pages.copy()):
            for live in page.live.copy().values():
                behind = (self._started - live.number - _MAX_OVERTAKING) // PAGE_SIZE
                if behind > number:
                    self._take(live.name)
                    self._put(live, behind)

    def _put(self, live: _TrackedExecution, number: int) -> None:
        while len(self._pages) <= number:
            self._pages.append(_ListPage())
        live.expected = self._expected(live)
        page = self._page_of[live.name] = self._pages[number]
        page.live[live.name] = live
        page.due.clear()

    def _ask_all_by_id(self, page: _ListPage) -> None:
        for name in list(page.live):
            self._ask_by_id(self._take(name))

    def _ask_by_id(self, live: _TrackedExecution) -> None:
        self._by_id.start(live.name, live.since, age=live.since - live.started)
        if live.seen > live.started:
            self._by_id.asked(live.name, live.seen)

    def _expected(self, live: _TrackedExecution) -> float:
        age = live.seen - live.started
        likely = self._known.likely_age(age)
        if likely is None:
            likely = age + min(self._most, _GROWTH * age)
        return max(live.started + min(likely, self._timeout), live.seen + self._least)

    def _page_due(self, page: _ListPage) -> float:
        """When a sweep of this page, or a poll where few are waited for, is worth its request."""
        if not page.live:
            return math.inf
        if self._worth not in page.due:
            page.due[self._worth] = self._best_moment(sorted(live.expected for live in page.live.values()))
        first, best = page.due[self._worth]
        return max(page.not_before, first if self._few(page) else best)

    def _best_moment(self, expected: list[float]) -> tuple[float, float]:
        """When the first will have ended, and when all that will have by then have lain unseen for long enough."""
        worth = self._worth * (self._known.quantile(0.5) if self._known else self._least)
        best = together = 0.0
        for count, at in enumerate(expected, 1):
            if count > 1 and at >= best:
                break
            together += at
            best = (worth + together) / count
        # One that has probably ended is not left for longer than this.
        return expected[0], min(best, expected[0] + self._most)


def make_pacer(
    *,
    by_list: bool,
    by_callback: bool,
    min_interval: float,
    max_interval: float,
    durations: Iterable[float],
    timeout: float = math.inf,
) -> Pacer:
    """The pacer for what the service offers: a list, unless callbacks tell of ends anyway."""
    if by_list and not by_callback:
        return ListPoller(min_interval=min_interval, max_interval=max_interval, durations=durations, timeout=timeout)
    return ExecutionPoller(
        min_interval=min_interval,
        max_interval=max_interval,
        durations=durations,
        delivered=by_callback,
        timeout=timeout,
    )
