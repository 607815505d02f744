"""Whole runs in simulated time: few requests for each row, and hardly slower than one who knows every duration."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_service import Clock, Fate, Limiter, Oracle, Run

from lamina_batch.client.budget import Budget
from lamina_batch.execution.polling import Polling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: how long an execution takes, in units of the median (or of the short mode)
SHAPES: dict[str, Callable[[Random], float]] = {
    "constant": lambda _random: 1.0,
    "uniform": lambda random: random.uniform(0.0, 2.0),
    "lognormal": lambda random: random.lognormvariate(0.0, 1.0),
    "bimodal": lambda random: 1.0 if random.random() < 0.9 else 10.0,
}


def draw(shape: str, rows: int, median: float, seed: int) -> dict[str, float]:
    random = Random(seed)
    return {str(number): median * SHAPES[shape](random) for number in range(rows)}


def learning(window: float, known: Iterable[float] = ()) -> Polling:
    return Polling(min_interval=window / 20, max_interval=window, durations=known)


def go(
    durations: dict[str, float],
    pacer: Polling | Oracle,
    *,
    window: float = 60.0,
    in_flight: int = 100,
    budget: Budget | None = None,
    fate: Callable[[int], Fate] | None = None,
) -> Run:
    clock = Clock()
    run = Run(
        clock=clock,
        limiter=Limiter(window=window),
        durations=durations,
        polling=pacer,
        budget=budget or Budget(),
        max_in_flight=in_flight,
        latency=(window / 3000, window / 500),
        fate=fate or (lambda _number: Fate.ANSWERED),
    )
    run.begin()
    clock.run()
    assert run.done
    return run


# -- what it costs, and how long it takes ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window", [4.0, 60.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_thousand_rows_never_seen_before(shape: str, window: float, seed: int) -> None:
    durations = draw(shape, 1000, window / 2, seed)
    run = go(durations, learning(window), window=window)
    best = go(durations, Oracle(durations), window=window)
    assert run.refused == 0
    assert run.per_row <= 2.3
    assert run.seconds <= 1.15 * best.seconds


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_thousand_rows(shape: str) -> None:
    durations = draw(shape, 10_000, 30.0, 1)
    run = go(durations, learning(60.0))
    assert run.refused == 0
    assert run.per_row <= 2.25
    least = (math.ceil(20_003 / 100) - 1) * 60
    assert run.seconds <= 1.15 * least


def test_constant_durations_cost_two_requests_a_row_and_no_time() -> None:
    durations = draw("constant", 1000, 30.0, 1)
    run = go(durations, learning(60.0))
    assert run.per_row <= 2.01
    assert run.seconds <= 1.005 * go(durations, Oracle(durations)).seconds


def test_with_few_slots_a_finished_one_does_not_keep_its_slot_for_long() -> None:
    durations = draw("constant", 500, 20.0, 1)
    run = go(durations, learning(60.0), in_flight=20)
    assert run.per_row <= 2.1
    assert run.seconds <= 1.1 * go(durations, Oracle(durations), in_flight=20).seconds


@pytest.mark.parametrize("shape", SHAPES)
def test_a_later_run_knows_from_the_start(shape: str) -> None:
    durations = draw(shape, 60, 30.0, 1)
    run = go(durations, learning(60.0, draw(shape, 300, 30.0, 2).values()))
    assert run.per_row <= 2.4
    assert run.seconds <= 1.2 * go(durations, Oracle(durations)).seconds


@pytest.mark.parametrize("rows", [1, 10, 50])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_few_rows_are_seen_soon_after_they_end_for_less_than_a_poll_every_few_seconds(shape: str, rows: int) -> None:
    durations = draw(shape, rows, 30.0, 4)
    run = go(durations, learning(60.0))
    every_five_seconds = rows + 3 + sum(math.ceil(duration / 5) for duration in durations.values())
    assert run.requests < max(every_five_seconds, 18)
    assert run.seconds <= 1.3 * go(durations, Oracle(durations)).seconds


@pytest.mark.parametrize("median", [1.0, 240.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_very_short_and_very_long_ones(shape: str, median: float) -> None:
    durations = draw(shape, 300, median, 2)
    run = go(durations, learning(60.0))
    assert run.refused == 0
    assert run.per_row < 6.5
    assert run.seconds <= 1.5 * go(durations, Oracle(durations)).seconds


# -- when things go wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.REFUSED])
def test_every_tenth_answer_lost(fate: Fate) -> None:
    durations = draw("lognormal", 1000, 30.0, 5)
    run = go(durations, learning(60.0), fate=lambda number: fate if number % 10 == 0 else Fate.ANSWERED)
    assert run.refused == 0
    assert run.per_row <= 2.3 / 0.9


def test_a_part_of_the_budget_is_a_part_of_the_speed_and_costs_no_more() -> None:
    durations = draw("lognormal", 300, 30.0, 6)
    run = go(durations, learning(60.0), budget=Budget(share=0.5))
    assert max(run.limiter.passed) == 50
    assert run.per_row <= 2.4


def test_some_that_never_end_cost_ever_less_and_hold_up_nothing() -> None:
    durations = draw("uniform", 300, 30.0, 7)
    stuck = [str(number) for number in range(0, 300, 30)]
    durations |= dict.fromkeys(stuck, 4 * 3600.0)
    run = go(durations, learning(60.0))
    usual = draw("uniform", 300, 30.0, 7)
    assert max(max(run.polled[name]) for name in durations if name not in stuck) <= 1.3 * go(usual, Oracle(usual)).ended
    for name in stuck:
        gaps = [later - earlier for earlier, later in pairwise(run.polled[name])]
        assert len(gaps) < 4 * 60 + 10
        assert all(later > 0.5 * earlier for earlier, later in pairwise(gaps))


# -- what always holds -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    rows=st.integers(1, 150),
    median=st.floats(0.1, 300),
    in_flight=st.integers(1, 120),
    known=st.lists(st.floats(0, 600), max_size=20),
    seed=st.integers(0, 2**32),
)
def test_every_row_ends_nothing_is_refused_and_the_least_interval_holds(
    *, shape: str, rows: int, median: float, in_flight: int, known: list[float], seed: int
) -> None:
    run = go(draw(shape, rows, median, seed), learning(60.0, known), in_flight=in_flight)
    assert run.refused == 0
    assert set(run.polled) == set(run.durations)
    for polls in run.polled.values():
        assert all(later - earlier >= 3 for earlier, later in pairwise(polls))
