"""TEMPORARY SHIM by the lead so that others can run; helper: overwrite this file."""

from __future__ import annotations

from random import Random


def backoff(attempt: int, random: Random, *, base: float = 0.5, cap: float = 30.0) -> float:
    return random.uniform(base / 2, min(cap, base * 2**attempt))


def retryable(status: int | None) -> bool:
    return status is None or status in {408, 429} or status >= 500
