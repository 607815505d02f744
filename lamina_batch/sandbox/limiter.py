"""The rate limiter of the service: a fixed window for each address, as express-rate-limit keeps it (docs/lamina-api.md,
"Limiter").
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What the limiter says about one request."""

    limit: int
    #: length of the window, seconds
    window: float
    #: requests of this address in its window, this one included
    hits: int
    #: seconds until the window ends
    resets_in: float

    @property
    def allowed(self) -> bool:
        """Whether the request passes the limit."""
        return self.hits <= self.limit

    @property
    def remaining(self) -> int:
        """The requests that the window still allows."""
        return max(0, self.limit - self.hits)


class FixedWindowLimiter:
    """Counts requests by address. `now` is seconds on any clock that never goes back."""

    def __init__(self, *, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._windows: dict[str, tuple[int, int]] = {}

    def hit(self, address: str, now: float) -> Hit:
        """Count one request. Every request counts, a rejected one too, and none of them extends the window.

        A window starts with a request, never by itself: the first one at or after the end of the last window.
        """
        # Whole milliseconds, as Date.now() counts: a rounding error above 60 s would be announced as 61.
        now_ms = math.floor(now * 1000)
        ends_at, hits = self._windows.get(address, (now_ms, 0))
        if ends_at <= now_ms:
            ends_at, hits = now_ms + round(self._window * 1000), 0
        hits += 1
        self._windows[address] = (ends_at, hits)
        return Hit(limit=self._limit, window=self._window, hits=hits, resets_in=(ends_at - now_ms) / 1000)


def rate_limit_headers(hit: Hit, *, wall_clock: float) -> dict[str, str]:
    """The headers that every answer carries: draft 6 and the older X- ones (docs/lamina-api.md, "Limiter").

    `wall_clock` is epoch seconds: X-RateLimit-Reset is an instant, while RateLimit-Reset is a span.
    """
    resets_in = math.ceil(hit.resets_in)
    headers = {
        "X-RateLimit-Limit": str(hit.limit),
        "X-RateLimit-Remaining": str(hit.remaining),
        "X-RateLimit-Reset": str(math.ceil(wall_clock + hit.resets_in)),
        "RateLimit-Policy": f"{hit.limit};w={math.ceil(hit.window)}",
        "RateLimit-Limit": str(hit.limit),
        "RateLimit-Remaining": str(hit.remaining),
    }
    if resets_in:
        headers["RateLimit-Reset"] = str(resets_in)
    return headers


def retry_after(hit: Hit, *, fractional: bool) -> str:
    """Seconds to the end of the window: whole ones, as the service sends, or exact to the millisecond.

    Fractions are for scaled windows: rounding up costs nothing in 60 s, and a third of a window of 3 s.
    """
    return f"{math.ceil(hit.resets_in * 1000) / 1000:.3f}" if fractional else str(math.ceil(hit.resets_in))
