"""The request budget: how many requests may leave now, by what the service's RateLimit headers said (API.md section 5).

Pure: instants are seconds of a monotonic clock and are handed in. docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What the service documents, until its headers say otherwise (API.md section 5).
DEFAULT_LIMIT = 100
DEFAULT_WINDOW = 60.0

#: A request that left so long before another has reached the limiter before it, if it ever does.
_LAG = 0.5
#: An answer that does not come within so long is not waited for before a shared window is used.
_PATIENCE = 1.0
#: Two machines' clocks may run apart by so much of a window before we would come too early.
_DRIFT = 0.001
#: Larger numbers in headers are nonsense (an epoch instead of a span, for one) and are ignored.
_MOST_SECONDS = 86_400.0
_MOST_REQUESTS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one response says about the limit. None: it does not say."""

    #: requests that one window allows
    limit: int | None = None
    #: of these, how many are left
    remaining: int | None = None
    #: seconds until the window ends, rounded up by the service
    reset: float | None = None
    #: length of the window, seconds (`RateLimit-Policy: 100;w=60`)
    window: float | None = None
    #: seconds to wait, on a 429
    retry_after: float | None = None
    #: the service refused the request for the limit's sake (status 429)
    limited: bool = False


def parse_quota(headers: Mapping[str, str], status: int) -> Quota:
    """Read the rate limit headers of a response (API.md section 5). What cannot be understood counts as absent."""
    lowered = {name.lower(): value for name, value in headers.items()}
    window = re.search(r";\s*w\s*=\s*([0-9.]+)", lowered.get("ratelimit-policy", ""))
    return Quota(
        limit=_count(lowered.get("ratelimit-limit"), least=1),
        remaining=_count(lowered.get("ratelimit-remaining"), least=0),
        reset=_seconds(lowered.get("ratelimit-reset")),
        window=_seconds(window[1]) if window else None,
        retry_after=_seconds(lowered.get("retry-after")),
        limited=status == 429,
    )


def _count(text: str | None, *, least: int) -> int | None:
    number = _number(text)
    return int(number) if number is not None and least <= number <= _MOST_REQUESTS and number.is_integer() else None


def _seconds(text: str | None) -> float | None:
    number = _number(text)
    return number if number is not None and 0 < number <= _MOST_SECONDS else None


def _number(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{0,20})?", text.strip(), re.ASCII):
        return None
    return float(text)


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that left; given back to `settle` when its fate is known."""

    #: when it left
    sent_at: float


@dataclass(slots=True, kw_only=True)
class _Window:
    """What is known about the limiter's current window."""

    #: no request sent from here on can belong to an earlier window
    began: float
    #: latest possible end; None while nothing was heard
    end: float | None = None
    #: treat it as shared with other programs: learn first, then leave them room
    shared: bool
    #: somebody else's requests were certainly seen in it
    foreign: bool = False
    #: the least remainder that an answer told (before any: the limit), and when the request so answered had left
    remaining: int
    told_at: float
    #: requests that this remainder had counted
    hits: int = 0
    #: an answer in this window was seen
    heard: bool = False
    #: requests of ours answered in this window
    answered: int = 0
    #: when requests left whose answers were lost, where the remainder may not have counted them yet
    lost: list[float] = field(default_factory=list)
    #: those that left long enough before the told remainder to be in it, if they ever arrived
    lost_before: int = 0
    #: when the first request left in it
    first_sent: float | None = None


class Budget:
    """How many requests may leave now. One for each process, and every request draws on it.

    `requests_per_minute` caps what this process uses (and replaces the assumed 100 a minute while no header was
    seen); `share` is the part of the limit it may use. At least one request per window is always allowed.
    """

    def __init__(self, *, requests_per_minute: int | None = None, share: float = 1.0) -> None:
        self._per_minute = requests_per_minute
        self._share = share
        self._limit = requests_per_minute or DEFAULT_LIMIT
        self._length = DEFAULT_WINDOW
        self._clock = -math.inf
        #: requests not settled yet, in the order they left
        self._open: dict[Ticket, None] = {}
        #: latest possible end of the window before the current one
        self._previous_end = -math.inf
        # Nothing is known at first, so the window is treated as shared until an answer tells.
        self._current = _Window(began=-math.inf, shared=True, remaining=self._limit, told_at=-math.inf)
        self._heard_ever = False

    @property
    def limit(self) -> int:
        """Requests of ours that one window allows."""
        most = math.floor(self._share * self._limit)
        if self._per_minute is not None:
            most = min(most, math.floor(self._per_minute * self._length / 60))
        return max(1, most)

    @property
    def window(self) -> float:
        """Length of the limiter's window, seconds."""
        return self._length

    def available(self, now: float) -> int:
        """How many requests may leave now."""
        now = self._advance(now)
        window = self._current
        uncounted = self._open_since(window.told_at - _LAG) + self._lost_uncounted(window)
        room = window.remaining - uncounted
        if window.shared:
            if not window.heard and not self._overdue(window, now):
                room = min(room, 1 - uncounted)
            else:
                # The others act on the same remainder at the same time: half of it is theirs.
                room = min(room, max(1 if window.remaining > 1 else 0, window.remaining // 8) - uncounted)
        used = window.answered + window.lost_before + len(window.lost) + self._open_since(window.began - _LAG)
        return max(0, min(room, self.limit - used))

    def spend(self, now: float) -> Ticket:
        """Note that a request leaves now."""
        now = self._advance(now)
        ticket = Ticket(sent_at=now)
        self._open[ticket] = None
        if self._current.first_sent is None:
            self._current.first_sent = now
        return ticket

    def settle(self, ticket: Ticket, now: float, quota: Quota | None) -> None:
        """Note how a request ended: with an answer, or lost (None). A ticket settled before changes nothing."""
        now = self._advance(now)
        if ticket not in self._open:
            return
        del self._open[ticket]
        if quota is None:
            self._lose(ticket, now)
            return
        self._limit = quota.limit or self._limit
        self._length = self._window_length(quota)
        self._hear(ticket, now, quota)

    def next_change(self, now: float) -> float | None:
        """The next instant at which `available` may rise by itself; None if only an answer can change it."""
        now = self._advance(now)
        window = self._current
        moments = []
        if window.end is not None:
            moments.append(window.end)
        if window.shared and not window.heard and window.first_sent is not None:
            patience_ends = window.first_sent + _PATIENCE
            if patience_ends > now:
                moments.append(patience_ends)
        return min(moments, default=None)

    # -- inside --------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> float:
        """Take note of the time, which never goes back, and of a window that is over."""
        self._clock = now = max(now, self._clock)
        end = self._current.end
        if end is not None and now >= end:
            self._roll(end, end)
        return now

    def _roll(self, began: float, previous_end: float) -> None:
        old = self._current
        self._previous_end = previous_end
        self._current = _Window(
            began=began,
            shared=old.foreign or (old.shared and not old.heard),
            remaining=self._limit,
            told_at=began,
            lost=[sent for sent in old.lost if sent > began - _LAG],
        )

    def _window_length(self, quota: Quota) -> float:
        if quota.window is not None:
            return quota.window
        # Without a policy the request that opened the window tells its length, and no rest is longer than the whole.
        rest = quota.reset
        if rest is None:
            return self._length
        opener = quota.limit is not None and quota.remaining == quota.limit - 1
        return rest if opener else max(rest, self._length)

    def _hear(self, ticket: Ticket, now: float, quota: Quota) -> None:
        rest = quota.reset
        if quota.limited and quota.retry_after is not None:
            rest = quota.retry_after
        early = ticket.sent_at < self._current.began
        if rest is None and early:
            # It may be of either window. The one before is over; of this one it tells nothing certain.
            self._lose(ticket, now)
            return
        if rest is not None:
            # The service rounds up, and counted the request somewhere between its leaving and our hearing of it.
            earliest = ticket.sent_at + rest - 1
            end = self._current.end
            if end is not None and earliest > end:
                self._roll(now, end)
            elif early and earliest <= self._previous_end:
                return
        window = self._current
        slack = _DRIFT * self._length
        if quota.limited and rest is None:
            window.end = now + self._length + slack
        else:
            latest = now + (self._length if rest is None else min(rest, max(self._length, rest))) + slack
            window.end = latest if window.end is None else min(window.end, latest)
        window.answered += 1
        self._take_remainder(window, ticket, quota)
        if quota.limited:
            window.foreign = window.shared = True
        elif not self._heard_ever and not window.foreign:
            window.shared = False
        self._heard_ever = window.heard = True

    def _take_remainder(self, window: _Window, ticket: Ticket, quota: Quota) -> None:
        remaining = 0 if quota.limited else quota.remaining
        if remaining is None:
            if not window.heard and not self._heard_ever:
                window.remaining = self._limit
            return
        remaining = min(remaining, self._limit)
        hits = self._limit - remaining
        if not window.heard or remaining <= window.remaining:
            window.remaining, window.hits = remaining, hits
            window.told_at = max(window.told_at, ticket.sent_at)
            kept = [sent for sent in window.lost if sent > window.told_at - _LAG]
            window.lost_before += len(window.lost) - len(kept)
            window.lost = kept
        ours = window.answered + window.lost_before + len(window.lost) + self._open_since(window.began - _LAG)
        if hits > ours:
            window.foreign = window.shared = True

    def _lose(self, ticket: Ticket, now: float) -> None:
        window = self._current
        if ticket.sent_at > window.told_at - _LAG:
            window.lost.append(ticket.sent_at)
        elif ticket.sent_at >= window.began:
            window.lost_before += 1
        if window.end is None and ticket.sent_at >= window.began:
            # If it arrived at all, it arrived by now, and the window is that old at least.
            window.end = now + self._length * (1 + _DRIFT)

    def _open_since(self, instant: float) -> int:
        count = len(self._open)
        for ticket in self._open:
            if ticket.sent_at > instant:
                break
            count -= 1
        return count

    def _lost_uncounted(self, window: _Window) -> int:
        """Of the requests lost lately, how many the told remainder does not contain.

        It contains as many more than were answered as somebody else's requests or our lost ones explain.
        """
        before = window.lost_before + len(self._open) - self._open_since(window.told_at - _LAG)
        explained = window.hits - window.answered - before
        return len(window.lost) - min(len(window.lost), max(0, explained))

    def _overdue(self, window: _Window, now: float) -> bool:
        return window.first_sent is not None and now - window.first_sent >= _PATIENCE
