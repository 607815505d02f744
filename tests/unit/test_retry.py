"""Which reads are repeated, and after how long."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.client.retry import backoff, retryable


@pytest.mark.parametrize("status", [None, 408, 429, 500, 502, 503, 504, 599])
def test_what_may_end_better_next_time_is_repeated(status: int | None) -> None:
    assert retryable(status)


@pytest.mark.parametrize("status", [200, 202, 301, 400, 401, 403, 404, 405, 409, 413, 422, 600])
def test_an_answer_that_stays_what_it_is_is_not_repeated(status: int) -> None:
    assert not retryable(status)


@given(
    attempt=st.integers(-5, 10**9), base=st.floats(0.001, 10), cap=st.floats(0.001, 1000), seed=st.integers(0, 2**32)
)
def test_the_pause_stays_within_its_bounds_at_any_attempt(attempt: int, base: float, cap: float, seed: int) -> None:
    most = min(cap, base * 2.0 ** min(max(attempt - 1, 0), 64))
    pause = backoff(attempt, Random(seed), base=base, cap=cap)
    assert 0 < most / 10 <= pause <= most


def test_pauses_grow_to_the_cap_and_two_that_failed_together_come_back_apart() -> None:
    def highest(attempt: int) -> float:
        return max(backoff(attempt, Random(seed)) for seed in range(200))

    assert highest(1) < 0.5 < highest(2) < 1 < highest(3) < 2
    assert 29 < highest(7) < 30
    assert 29 < highest(5000) < 30
    assert len({backoff(3, Random(seed)) for seed in range(50)}) == 50
