"""How long a run must take at the least (DESIGN.md section 7)."""

from __future__ import annotations

import math


def least_seconds(
    jobs: int, *, limit: int, window: float, shortest: float = 0.0, per_job: int = 2, reads: int = 3
) -> float:
    """The least possible time for `jobs` executions, in seconds.

    `per_job` requests are needed for each (2 by polling, 1 by webhook), `reads` for the contract; `limit` requests
    pass in each `window` seconds, the first of which costs no waiting; `shortest` is the shortest duration seen.
    """
    if jobs <= 0:
        return 0.0
    return window * (math.ceil((jobs * per_job + reads) / limit) - 1) + shortest
