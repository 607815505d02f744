"""Repeating reads: which ends are worth another try, and after how long. A POST is never repeated by this rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


def retryable(status: int | None) -> bool:
    """Whether a read that ended with this HTTP status (None: with no status at all) may end better next time.

    True without a status, for 408, 429 and every 5xx (docs/lamina-api.md, "Errors and retries"); any other answer stays
    what it is.
    """
    return status is None or status in {408, 429} or 500 <= status <= 599


def backoff(attempt: int, random: random.Random, *, base: float = 0.5, cap: float = 30.0) -> float:
    """Seconds to wait after failure number `attempt`, the first being 1 (anything less counts as 1).

    Full jitter: the answer lies between a tenth of and the whole of min(cap, base * 2 ** (attempt - 1)), so many
    clients that failed together do not come back together, and none comes back at once.
    """
    # Past a thousand doublings a float overflows, and the cap was reached long before.
    most = min(cap, base * 2.0 ** min(max(attempt, 1) - 1, 64))
    return random.uniform(most / 10, most)
