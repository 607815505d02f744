"""The request budget: how many requests may leave now, by what the service's RateLimit headers said
(docs/lamina-api.md, "Rate limit").

The limiter counts requests in fixed windows, the next of which opens with the first request after the end of the last.
Each answer tells how many are left and, rounded up, for how long. From that this module keeps what it knows of the
current window: its latest possible end, and the least remainder told, less what of ours that remainder had not counted.
Pure: instants are seconds of a monotonic clock and are handed in. docs/budget.md explains the reasoning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: What the service documents, until its headers say otherwise (docs/lamina-api.md, "Rate limit").
DEFAULT_LIMIT = 100
DEFAULT_WINDOW = 60.0

#: Seconds within which a request that left has reached the limiter, if it ever does.
_MAX_TRANSIT_SECONDS = 1.0
#: A request not answered for so long hangs; whether it was counted has to be found out in other ways.
_HANGING_AFTER_SECONDS = 5.0
#: In a shared window the first answer is waited for so long, no longer: it may be a slow one.
_FIRST_ANSWER_WAIT_SECONDS = 1.0
#: In a shared window so much of the remainder may be on its way at once. Others act on the same number at the same
#: time, and each of us learns of the others one round trip late.
_MAX_BURST_IN_SHARED_WINDOW = 8
#: Our clock and the service's may run apart by so much; an end is taken to be later by this part of the window.
_CLOCK_DRIFT = 0.001
#: Rounding to whole seconds and the way of a request together blur the end of a window by no more than this.
_END_BLUR_SECONDS = 2.0
#: Greater numbers in headers are nonsense (an epoch where a span is due, for one) and count as absent.
_MAX_SECONDS = 3600.0
_MAX_REQUESTS = 1_000_000_000


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
    #: seconds to wait before the next request; an HTTP date counts as not said
    retry_after: float | None = None
    #: the request was refused for the limit's sake (status 429)
    limited: bool = False


def parse_quota(headers: Mapping[str, str], status: int) -> Quota:
    """Read the rate limit headers of a response (docs/lamina-api.md, "Limiter"). What makes no sense counts as not
    said.
    """
    by_name = {name.lower(): value for name, value in headers.items()}
    window = re.search(r";\s*w\s*=\s*([^;,\s]+)", by_name.get("ratelimit-policy", ""))
    return Quota(
        limit=_parse_count(by_name.get("ratelimit-limit"), least=1),
        remaining=_parse_count(by_name.get("ratelimit-remaining"), least=0),
        reset=_parse_seconds(by_name.get("ratelimit-reset")),
        window=_parse_seconds(window[1]) if window else None,
        retry_after=_parse_seconds(by_name.get("retry-after")),
        limited=status == 429,
    )


def retry_after_of_body(body: object) -> float | None:
    """The seconds to wait that the JSON body of a 429 tells (docs/lamina-api.md, "Errors of runs"). What makes no sense
    is not said.
    """
    said = body.get("retryAfter") if isinstance(body, Mapping) else None
    return _parse_seconds(str(said)) if isinstance(said, int | float | str) else None


def _parse_count(text: str | None, *, least: int) -> int | None:
    number = _parse_number(text)
    return int(number) if number is not None and number.is_integer() and least <= number <= _MAX_REQUESTS else None


def _parse_seconds(text: str | None) -> float | None:
    number = _parse_number(text)
    return number if number is not None and 0 < number <= _MAX_SECONDS else None


def _parse_number(text: str | None) -> float | None:
    if text is None or re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?", text.strip(), re.ASCII) is None:
        return None
    return float(text)


@dataclass(frozen=True, slots=True, eq=False)
class RequestTicket:
    """A request that left; handed back when its fate is known."""

    #: when it left
    sent_at: float


@dataclass(slots=True, kw_only=True)
class _Window:
    """What is known of one window of the limiter."""

    #: what leaves from here on cannot belong to an earlier window
    began: float
    #: its latest possible end; None while nothing of ours can have opened it
    end: float | None = None
    #: an answer given in it was seen
    heard: bool = False
    #: others may be using it: ask before using it, and go by small steps
    shared: bool
    #: requests of others were certainly counted in it
    foreign: bool = False
    #: the least remainder told, when the request that was told it left and was answered. Before that: all there is
    remaining: int
    told_at: float
    told_until: float
    #: requests that this remainder had counted, of whomever; None until one is told
    hits: int | None = None
    #: requests of ours that were answered in it
    answered: int = 0
    #: when requests left that were lost, where the remainder may not have counted them yet
    lost: list[float] = field(default_factory=list)
    #: how many were lost whose time to arrive was over before
    lost_before: int = 0
    #: when requests left whose answers do not say which window they are of
    unlabelled: list[float] = field(default_factory=list)
    #: when the first request left that may be in it
    first_left: float | None = None


class Budget:
    """How many requests may leave now. One per process, and every request draws on it.

    `share` is the part of the limit to use. `requests_per_minute` is the most to use, and stands for the documented
    100 as long as no header was seen. At least one request per window is always allowed.
    """

    def __init__(self, *, requests_per_minute: int | None = None, share: float = 1.0) -> None:
        self._per_minute = requests_per_minute
        self._share = share
        #: as the headers say it; assumed until then
        self._limit = DEFAULT_LIMIT if requests_per_minute is None else max(1, requests_per_minute)
        self._length = DEFAULT_WINDOW
        self._clock = -math.inf
        #: requests that left and are not settled, in the order they left
        self._open: dict[RequestTicket, None] = {}
        self._previous_end = -math.inf
        # Whether others are there is not known before the first answer.
        self._window = _Window(
            began=-math.inf, shared=True, remaining=self._limit, told_at=-math.inf, told_until=-math.inf
        )
        #: an answer was heard, and one that told a remainder
        self._heard = self._told = False

    @property
    def limit(self) -> int:
        """Requests that this process may use in one window."""
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
        window = self._window
        uncounted = self._uncounted(now)
        room = window.remaining - uncounted
        if window.shared:
            room = min(room, self._step(now) - uncounted)
        return max(0, min(room, self.limit - self._ours(uncounted)))

    def spend(self, now: float) -> RequestTicket:
        """Note that a request leaves now."""
        now = self._advance(now)
        ticket = RequestTicket(sent_at=now)
        self._open[ticket] = None
        window = self._window
        if window.first_left is None:
            window.first_left = now
        if not window.heard:
            window.end = self._latest_end(now + _MAX_TRANSIT_SECONDS, self._length)
        return ticket

    def withdraw(self, ticket: RequestTicket) -> None:
        """Note that a request never reached the service: there was no connection."""
        self._open.pop(ticket, None)

    def settle(self, ticket: RequestTicket, now: float, quota: Quota | None) -> None:
        """Note how a request ended: answered (what the answer says), or lost (None) and perhaps counted all the same.

        Only the first word about a ticket counts.
        """
        now = self._advance(now)
        if ticket not in self._open:
            return
        del self._open[ticket]
        if quota is None:
            self._lose(ticket)
        else:
            self._hear(ticket, now, quota)

    def next_change(self, now: float) -> float | None:
        """The next instant at which `available` may rise by itself; None if only an answer can change it."""
        now = self._advance(now)
        window = self._window
        # A millisecond, because what is added here is subtracted there.
        moments = [ticket.sent_at + _HANGING_AFTER_SECONDS + 0.001 for ticket in self._open]
        if window.end is not None:
            moments.append(window.end)
        if window.shared and not window.heard and window.first_left is not None:
            moments.append(window.first_left + _FIRST_ANSWER_WAIT_SECONDS)
        return min((moment for moment in moments if moment > now), default=None)

    # -- how many ------------------------------------------------------------------------------------------

    def _uncounted(self, now: float) -> int:
        """How many of our requests the told remainder does not contain, but the limiter may count."""
        window = self._window
        arrived_before = window.told_at - _MAX_TRANSIT_SECONDS
        pending = self._left_after(max(arrived_before, now - _HANGING_AFTER_SECONDS))
        doubtful = len(window.lost) + self._left_after(arrived_before) - pending
        if not doubtful:
            return pending
        # Hits that no answer of ours accounts for are our doubtful requests. Where they are somebody else's we
        # overshoot, by no more than was lost; without this rule each lost answer would cost a request of the window.
        gone = (
            window.lost_before
            + self._left_after(window.began - _MAX_TRANSIT_SECONDS)
            - self._left_after(arrived_before)
        )
        explained = max(0, (window.hits or 0) - window.answered - gone)
        return pending + max(0, doubtful - explained)

    def _ours(self, uncounted: int) -> int:
        """How many requests of this window are ours, at the most."""
        window = self._window
        ours = self._possibly_ours()
        return ours if window.hits is None else min(ours, window.hits + uncounted)

    def _possibly_ours(self) -> int:
        window = self._window
        return (
            window.answered
            + window.lost_before
            + len(window.lost)
            + self._left_after(window.began - _MAX_TRANSIT_SECONDS)
        )

    def _step(self, now: float) -> int:
        """How many may be on their way at once while others use the window too."""
        window = self._window
        asked_in_vain = window.first_left is not None and now >= window.first_left + _FIRST_ANSWER_WAIT_SECONDS
        if not window.heard and not asked_in_vain:
            return 1
        # The last one is left alone: two that both see it would both take it.
        return max(window.remaining // _MAX_BURST_IN_SHARED_WINDOW, 1 if window.remaining > 1 else 0)

    def _left_after(self, instant: float) -> int:
        """How many open requests left after `instant`. Cheap, because only few are ever old."""
        count = len(self._open)
        for ticket in self._open:
            if ticket.sent_at > instant:
                break
            count -= 1
        return count

    # -- what is known -------------------------------------------------------------------------------------

    def _advance(self, now: float) -> float:
        """Take note of the time, which never goes back, and of a window that is over."""
        self._clock = now = max(now, self._clock)
        end = self._window.end
        if end is not None and now >= end:
            self._roll(began=end, previous_end=end)
        return now

    def _roll(self, *, began: float, previous_end: float) -> None:
        last = self._window
        self._previous_end = previous_end
        # What left just before, and was not told which window counted it, may be in this one and have opened it.
        lost = [sent_at for sent_at in last.lost + last.unlabelled if sent_at > began - _MAX_TRANSIT_SECONDS]
        first_left = began if lost or self._left_after(began - _MAX_TRANSIT_SECONDS) else None
        self._window = _Window(
            began=began,
            end=None if first_left is None else self._latest_end(began + _MAX_TRANSIT_SECONDS, self._length),
            shared=last.foreign or (last.shared and not last.heard),
            remaining=self._limit,
            told_at=began,
            told_until=began,
            lost=lost,
            first_left=first_left,
        )

    def _lose(self, ticket: RequestTicket) -> None:
        window = self._window
        if ticket.sent_at > window.told_at - _MAX_TRANSIT_SECONDS:
            window.lost.append(ticket.sent_at)
        elif ticket.sent_at >= window.began:
            window.lost_before += 1

    @staticmethod
    def _latest_end(counted: float, rest: float) -> float:
        """The latest end of a window that was told to have `rest` left when a request was counted, by `counted`."""
        return counted + rest * (1 + _CLOCK_DRIFT)

    def _hear(self, ticket: RequestTicket, now: float, quota: Quota) -> None:
        self._limit = quota.limit or self._limit
        self._length = self._length_by(quota)
        rest = quota.reset if quota.reset is None else min(quota.reset, self._length)
        if quota.limited and quota.retry_after is not None:
            rest = quota.retry_after
        if self._told and quota.remaining is None and not quota.limited:
            # Something on the way answered, and may have kept the request from the limiter.
            self._lose(ticket)
            return
        if ticket.sent_at < self._window.began:
            # It was counted in the last window or in this one.
            if rest is not None and now + rest < self._previous_end + self._length - _END_BLUR_SECONDS:
                return
            if rest is None or ticket.sent_at + rest - 1 <= self._previous_end:
                self._lose(ticket)
                return
        if self._window.end is not None and self._belongs_to_the_next(ticket, rest, quota):
            self._roll(began=now, previous_end=self._window.end)
        window = self._window
        end = self._latest_end(now, self._length if rest is None else rest)
        if window.end is None or not window.heard or (quota.limited and rest is None):
            window.end = end
        else:
            window.end = min(window.end, end)
        window.answered += 1
        if rest is None:
            window.unlabelled.append(ticket.sent_at)
        self._note_remainder(ticket, now, quota)
        if not self._heard and not window.foreign:
            window.shared = False
        window.heard = self._heard = True

    def _belongs_to_the_next(self, ticket: RequestTicket, rest: float | None, quota: Quota) -> bool:
        """Whether an answer is of a later window than the one we believe to be in: a new one began early."""
        window = self._window
        if rest is not None and window.end is not None and ticket.sent_at + rest - 1 > window.end:
            # It was counted after it had left, and the rest is rounded up by less than a second.
            return True
        if window.hits is None or quota.remaining is None:
            return False
        # Requests are not taken back: one that left after we were told cannot find fewer.
        return ticket.sent_at >= window.told_until and self._limit - quota.remaining < window.hits

    def _length_by(self, quota: Quota) -> float:
        if quota.window is not None:
            return quota.window
        if quota.reset is None:
            return self._length
        # Without a policy: the request that opened the window was told all of it, and no other more than that.
        opened = quota.limit is not None and quota.remaining == quota.limit - 1
        return quota.reset if opened else max(quota.reset, self._length)

    def _note_remainder(self, ticket: RequestTicket, now: float, quota: Quota) -> None:
        window = self._window
        remaining = 0 if quota.limited else quota.remaining
        if remaining is None:
            if window.hits is None:
                window.remaining = self._limit
            return
        self._told = True
        remaining = min(remaining, self._limit)
        hits = self._limit - remaining
        if window.hits is None or hits >= window.hits:
            window.remaining, window.hits = remaining, hits
            window.told_at, window.told_until = max(window.told_at, ticket.sent_at), now
            doubtful = [sent_at for sent_at in window.lost if sent_at > window.told_at - _MAX_TRANSIT_SECONDS]
            window.lost_before += len(window.lost) - len(doubtful)
            window.lost = doubtful
        if quota.limited or hits > self._possibly_ours():
            window.foreign = window.shared = True
