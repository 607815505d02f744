"""The budget against a model of the limiter, in simulated time: never over the limit, and none of it left unused."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_service import Clock, Fate, Limiter, Run
from thorough import examples

from lamina_batch.client.budget import Budget, Quota

if TYPE_CHECKING:
    from collections.abc import Callable


def rows(count: int) -> dict[str, float]:
    return {str(number): 0.0 for number in range(count)}


def every_tenth(fate: Fate) -> Callable[[int], Fate]:
    return lambda number: fate if number % 10 == 0 else Fate.ANSWERED


def by_chance(seed: int, *, lost: float, hangs: float) -> Callable[[int], Fate]:
    random = Random(seed)

    def fate(number: int) -> Fate:
        # Nothing is submitted before the contract is read, so the first word about the limit does arrive.
        draw = 1.0 if number == 1 else random.random()
        return Fate.LOST if draw < lost else Fate.HANGS if draw < lost + hangs else Fate.ANSWERED

    return fate


def least(requests: int, limiter: Limiter) -> float:
    return (math.ceil(requests / limiter.limit) - 1) * limiter.window


# -- alone -------------------------------------------------------------------------------------------------


@settings(max_examples=examples(60))
@given(
    limit=st.integers(2, 40),
    window=st.sampled_from([2.0, 3.0, 5.0, 60.0]),
    slowness=st.floats(0.0, 1.0),
    posts=st.integers(1, 50),
    lost=st.sampled_from([0.0, 0.0, 0.1, 0.4]),
    hangs=st.sampled_from([0.0, 0.0, 0.02]),
    says_nothing=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_alone_it_is_never_over_the_limit_whatever_is_lost_on_the_way(
    *, limit: int, window: float, slowness: float, posts: int, lost: float, hangs: float, says_nothing: bool, seed: int
) -> None:
    # Without headers we are told the limit, and a window of 60 s is what is documented.
    limiter = Limiter(limit=limit, window=60.0 if says_nothing else window, says_nothing=says_nothing)
    # And when even the answer that tells the beginning of a window is lost, only a guess is left.
    fate = by_chance(seed, lost=0.0 if says_nothing else lost, hangs=0.0 if says_nothing else hangs)
    clock = Clock()
    run = Run(
        clock=clock,
        limiter=limiter,
        budget=Budget(requests_per_minute=limit) if says_nothing else Budget(),
        durations=rows(5 * limit),
        random=Random(seed),
        # Where a way takes as long as a window, whole seconds cannot tell one window from the next.
        latency=(0.001, 0.001 + slowness * min(0.9, window / 8)),
        most_open_posts=posts,
        fate=fate,
        reads=1,
    )
    run.begin()
    clock.run()
    assert run.done
    assert limiter.total == run.requests
    assert limiter.refused == 0


@pytest.mark.parametrize("window", [3.0, 5.0, 60.0])
@pytest.mark.parametrize("fate", [Fate.ANSWERED, Fate.LOST])
@pytest.mark.parametrize("says_nothing", [False, True], ids=["headers", "no headers"])
def test_alone_every_window_is_filled_and_the_next_begins_a_round_trip_after_its_end(
    window: float, fate: Fate, says_nothing: bool
) -> None:
    window = 60.0 if says_nothing else window
    limiter = Limiter(window=window, says_nothing=says_nothing)
    clock = Clock()
    run = Run(clock=clock, limiter=limiter, durations=rows(997), latency=(0.001, 0.01), fate=every_tenth(fate))
    run.begin()
    clock.run()
    assert run.done
    assert limiter.passed == [100] * 10
    assert limiter.refused == 0
    assert max(limiter.gaps) <= 0.02 + window * 0.001
    assert run.seconds <= least(1000, limiter) * 1.001 + 10 * 0.02 + 0.5


def test_ten_thousand_requests_leave_as_fast_as_the_limit_allows() -> None:
    limiter = Limiter()
    clock = Clock()
    run = Run(clock=clock, limiter=limiter, durations=rows(9997))
    run.begin()
    clock.run()
    assert limiter.passed == [100] * 100
    assert limiter.refused == 0
    assert run.seconds <= least(10_000, limiter) * 1.005


def test_a_window_that_somebody_opened_and_left_costs_a_second_at_the_most() -> None:
    for fraction in range(10):
        limiter = Limiter()
        clock = Clock()
        limiter.hit(0)
        run = Run(clock=clock, limiter=limiter, durations=rows(400))
        clock.at(20 + fraction / 10, run.begin)
        clock.run()
        assert run.refused == 0
        assert run.done
        # The last request of a shared window is left alone.
        assert limiter.passed[:4] == [99, 99, 100, 100]
        assert max(limiter.gaps) < 1.5


@pytest.mark.parametrize("after", [30, 300])
def test_a_changed_limit_is_learnt_from_one_window(after: int) -> None:
    limiter = Limiter(later_limits={2: after})
    clock = Clock()
    run = Run(clock=clock, limiter=limiter, durations=rows(1200))
    run.begin()
    clock.run()
    assert run.done
    # All of a window that was thought larger may be on its way; that is over when its first answers are there.
    assert limiter.refused <= 16
    assert set(limiter.passed[3:-1]) == {after}


def test_connections_that_fail_cost_nothing_of_the_budget() -> None:
    limiter = Limiter()
    clock = Clock()
    run = Run(clock=clock, limiter=limiter, durations=rows(1000), fate=every_tenth(Fate.REFUSED))
    run.begin()
    clock.run()
    assert set(limiter.passed[:-1]) == {100}


def test_requests_that_hang_hold_nothing_up() -> None:
    limiter = Limiter()
    clock = Clock()
    run = Run(clock=clock, limiter=limiter, durations=rows(997), fate=by_chance(3, lost=0.0, hangs=0.03))
    run.begin()
    clock.run()
    assert limiter.passed == [100] * 10
    assert limiter.refused == 0


# -- with others -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("window", "slowest"), [(60.0, 0.12), (60.0, 1.0), (3.0, 0.006), (5.0, 0.05)], ids=["usual", "slow", "3s", "5s"]
)
def test_two_runs_on_one_address_share_the_limit(window: float, slowest: float, seed: int) -> None:
    limiter = Limiter(window=window)
    clock = Clock()
    random = Random(seed)
    runs = [
        Run(
            clock=clock,
            limiter=limiter,
            durations=rows(500),
            random=Random(seed * 2 + i),
            latency=(slowest / 10, slowest),
        )
        for i in range(2)
    ]
    for run in runs:
        clock.at(random.uniform(0, window / 30), run.begin)
    clock.run()
    assert all(run.done for run in runs)
    assert limiter.refused < 0.01 * limiter.total
    assert max(run.ended for run in runs) <= 1.10 * least(1006, limiter)


def test_a_run_that_comes_later_is_let_in() -> None:
    limiter = Limiter()
    clock = Clock()
    first, second = (Run(clock=clock, limiter=limiter, durations=rows(600), random=Random(i)) for i in range(2))
    clock.at(0, first.begin)
    clock.at(150, second.begin)
    clock.run()
    assert limiter.refused < 0.01 * limiter.total
    assert max(first.ended, second.ended) <= 1.10 * least(1206, limiter)
    assert first.seconds < 9 * 60


@pytest.mark.parametrize("per_window", [5, 30, 80])
def test_next_to_others_who_obey_nothing_hardly_a_request_of_ours_is_refused(per_window: int) -> None:
    limiter = Limiter()
    clock = Clock()
    random = Random(per_window)
    run = Run(clock=clock, limiter=limiter, durations=rows(500))

    def somebody_else() -> None:
        limiter.hit(clock.now)
        if not (run.ended and run.done):
            clock.at(clock.now + random.expovariate(per_window / 60), somebody_else)

    somebody_else()
    clock.at(0.5, run.begin)
    clock.run()
    assert run.refused < 0.01 * run.requests
    assert run.seconds < 9 * 60


def test_share_leaves_the_rest_to_others() -> None:
    limiter = Limiter()
    clock = Clock()
    run = Run(clock=clock, limiter=limiter, durations=rows(297), budget=Budget(share=0.3))
    run.begin()
    clock.run()
    assert limiter.passed == [30] * 10


# -- whatever comes ----------------------------------------------------------------------------------------


quotas = st.none() | st.builds(
    Quota,
    limit=st.none() | st.integers(1, 300),
    remaining=st.none() | st.integers(0, 300),
    reset=st.none() | st.floats(0.001, 3600),
    window=st.none() | st.floats(0.001, 3600),
    retry_after=st.none() | st.floats(0.001, 3600),
    limited=st.booleans(),
)


@settings(max_examples=examples(200))
@given(
    events=st.lists(st.tuples(st.floats(-100, 4000), st.integers(0, 5), st.integers(0, 20), quotas), max_size=40),
    share=st.floats(0.001, 1.0),
    per_minute=st.none() | st.integers(1, 1000),
)
def test_whatever_is_answered_and_whatever_the_clock_does_it_never_stands_still_for_ever(
    events: list[tuple[float, int, int, Quota | None]], share: float, per_minute: int | None
) -> None:
    budget = Budget(share=share, requests_per_minute=per_minute)
    now = 0.0
    tickets = []
    for pause, spend, settle, said in events:
        now += pause
        tickets += [budget.spend(now) for _ in range(min(spend, budget.available(now)))]
        for ticket in tickets[:settle]:
            budget.settle(ticket, now, said)
        del tickets[:settle]
        assert 0 <= budget.available(now) <= budget.limit
    for ticket in tickets:
        budget.settle(ticket, now, None)
    # With nothing on its way there is always an instant from which on a request may leave.
    until = now + 2 * 4000
    while not budget.available(now):
        change = budget.next_change(now)
        assert change is not None
        assert now < change or change < max(0.0, now)
        now = change
        assert now <= max(until, 160_000)
