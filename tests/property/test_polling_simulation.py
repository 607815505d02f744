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
from thorough import examples

from lamina_batch.client.budget import Budget
from lamina_batch.execution.list_polling import ListPoller
from lamina_batch.execution.polling import ExecutionPoller

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


def learning(window: float, known: Iterable[float] = ()) -> ExecutionPoller:
    return ExecutionPoller(min_interval=window / 20, max_interval=window, durations=known)


def go(
    durations: dict[str, float],
    pacer: ExecutionPoller | ListPoller | Oracle,
    *,
    window: float = 60.0,
    in_flight: int = 100,
    budget: Budget | None = None,
    fate: Callable[[int], Fate] | None = None,
    told_after: Callable[[str], float] | None = None,
    reads: int = 3,
    strangers: float = 0.0,
) -> Run:
    """A run to its end. `strangers`: so many executions a second are started by others with the same key."""
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
        told_after=told_after,
        reads=reads,
    )
    random = Random(3)

    def somebody_else() -> None:
        run.listed.append(None)
        if not run.done:
            clock.at(clock.now + random.expovariate(strangers), somebody_else)

    if strangers:
        somebody_else()
    run.begin()
    run.oversee(window / 8)
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


@pytest.mark.parametrize("shape", ["uniform", "lognormal"])
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


# -- where ends are told by webhook ------------------------------------------------------------------------


def net(window: float, known: Iterable[float] = (), *, timeout: float = math.inf) -> ExecutionPoller:
    return ExecutionPoller(
        min_interval=window / 20, max_interval=window, durations=known, delivered=True, timeout=timeout
    )


def at_once(_name: str) -> float:
    return 0.0


def never(_name: str) -> float:
    return math.inf


def every_tenth_start_lost(number: int) -> Fate:
    return Fate.LOST if number > 4 and number % 10 == 0 else Fate.ANSWERED


@pytest.mark.parametrize("fate", [None, every_tenth_start_lost], ids=["all answered", "every tenth start lost"])
@pytest.mark.parametrize("window", [4.0, 60.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_where_all_ends_are_told_hardly_any_is_asked_for(
    shape: str, window: float, fate: Callable[[int], Fate] | None
) -> None:
    durations = draw(shape, 1000, window / 2, 1)
    run = go(durations, net(window), window=window, told_after=at_once, reads=4, fate=fate)
    assert run.refused == 0
    assert run.per_row <= 1.015
    # The safety net costs no time: this is how long it takes without.
    submitted = (math.ceil(1004 / 100) - 1) * window
    last = max(submitted, *(number // 96 * window + durations[str(number)] for number in range(1000)))
    assert run.seconds <= 1.05 * last + window / 10


def test_ten_thousand_rows_by_webhook() -> None:
    run = go(draw("bimodal", 10_000, 30.0, 1), net(60.0), told_after=at_once)
    assert run.refused == 0
    assert run.per_row <= 1.01


@pytest.mark.parametrize("shape", SHAPES)
def test_a_lost_delivery_is_found_long_before_it_is_given_up(shape: str) -> None:
    durations = draw(shape, 1000, 30.0, 2)
    told = go(durations, net(60.0), told_after=at_once)
    run = go(durations, net(60.0), told_after=lambda name: math.inf if int(name) % 100 == 99 else 0.0)
    assert run.refused == 0
    assert run.per_row <= 1.08
    assert run.seconds <= told.seconds + 6 * 60


@pytest.mark.parametrize("shape", SHAPES)
def test_when_no_delivery_ever_comes_it_costs_what_polling_costs(shape: str) -> None:
    durations = draw(shape, 1000, 30.0, 2)
    run = go(durations, net(60.0), told_after=never)
    assert run.refused == 0
    assert run.per_row <= 2.3
    assert run.seconds <= 1.15 * go(durations, Oracle(durations)).seconds + 2 * 60


@pytest.mark.parametrize("shape", SHAPES)
def test_after_an_outage_of_minutes_all_is_found_and_deliveries_are_relied_on_again(shape: str) -> None:
    durations = draw(shape, 2000, 30.0, 3)
    lost = {name: 200 <= int(name) < 400 for name in durations}
    run = go(durations, net(60.0), told_after=lambda name: math.inf if lost[name] else 0.0)
    assert run.refused == 0
    asked = [name for name in run.polled if not lost[name]]
    assert len(asked) < 60
    assert sum(len(run.polled[name]) for name in lost if lost[name]) <= 2 * 200


def test_some_that_are_never_told_of_and_never_end_are_hardly_asked_about_and_given_up_in_time() -> None:
    durations = draw("uniform", 300, 30.0, 7)
    stuck = [str(number) for number in range(0, 300, 30)]
    durations |= dict.fromkeys(stuck, 2700.0)
    run = go(durations, net(60.0, timeout=2700.0), told_after=lambda name: math.inf if name in stuck else 0.0)
    # Each is asked at the age of 45 minutes, when somebody would give it up; here it has just ended.
    assert run.seconds < 2700 + 6 * 60
    assert sum(len(polls) for polls in run.polled.values()) < 10 + 25


# -- where a list shows many at once -----------------------------------------------------------------------


def listing(window: float, known: Iterable[float] = ()) -> ListPoller:
    return ListPoller(min_interval=window / 20, max_interval=window, durations=known)


@pytest.mark.parametrize("window", [4.0, 60.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_thousand_rows_with_the_list(shape: str, window: float) -> None:
    durations = draw(shape, 1000, window / 2, 1)
    run = go(durations, listing(window), window=window, reads=4)
    assert run.refused == 0
    assert run.per_row <= 2.1
    assert run.seconds <= 1.1 * go(durations, Oracle(durations), window=window).seconds


def test_ten_thousand_rows_with_the_list() -> None:
    run = go(draw("lognormal", 10_000, 30.0, 1), listing(60.0))
    assert run.refused == 0
    assert run.per_row <= 2.1
    assert run.seconds <= 1.1 * (math.ceil(20_003 / 100) - 1) * 60


@pytest.mark.parametrize("rows", [1, 3, 10, 50])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_few_rows_with_the_list_cost_no_more_than_without_and_end_as_soon(shape: str, rows: int) -> None:
    durations = draw(shape, rows, 30.0, 4)
    run = go(durations, listing(60.0))
    plain = go(durations, learning(60.0))
    assert run.requests <= 1.2 * plain.requests + 3
    assert run.seconds <= 1.3 * go(durations, Oracle(durations)).seconds


@pytest.mark.parametrize("strangers", [0.5, 5.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_where_others_fill_the_list_ours_are_found_in_other_ways(shape: str, strangers: float) -> None:
    durations = draw(shape, 1000, 30.0, 1)
    run = go(durations, listing(60.0), strangers=strangers)
    assert run.refused == 0
    assert run.per_row <= 2.3
    assert run.seconds <= 1.15 * go(durations, Oracle(durations)).seconds


@pytest.mark.parametrize("in_flight", [2, 20, 300])
def test_the_list_with_few_and_with_many_slots(in_flight: int) -> None:
    durations = draw("lognormal", 300, 20.0, 1)
    run = go(durations, listing(60.0), in_flight=in_flight)
    plain = go(durations, learning(60.0), in_flight=in_flight)
    assert run.requests <= 1.02 * plain.requests
    assert run.seconds <= 1.2 * plain.seconds


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.REFUSED])
def test_every_tenth_answer_lost_with_the_list(fate: Fate) -> None:
    durations = draw("lognormal", 1000, 30.0, 5)
    run = go(durations, listing(60.0), fate=lambda number: fate if number % 10 == 0 else Fate.ANSWERED)
    assert run.refused == 0
    assert run.per_row <= 2.2 / 0.9


# -- two runs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pacer", [learning, listing], ids=["polling", "list"])
def test_two_runs_that_poll_on_one_address_share_the_limit(
    pacer: Callable[[float], ExecutionPoller | ListPoller], seed: int
) -> None:
    durations = [draw("bimodal", 500, 30.0, seed * 2 + i) for i in range(2)]

    def together(pacers: list[ExecutionPoller | ListPoller] | list[Oracle]) -> float:
        limiter = Limiter()
        clock = Clock()
        runs = [
            Run(clock=clock, limiter=limiter, durations=durations[i], polling=pacers[i], random=Random(seed * 2 + i))
            for i in range(2)
        ]
        for i, run in enumerate(runs):
            clock.at(i, run.begin)
        clock.run()
        assert all(run.done for run in runs)
        assert limiter.refused < 0.01 * limiter.total
        return max(run.ended for run in runs)

    assert together([pacer(60.0), pacer(60.0)]) <= 1.10 * together([Oracle(each) for each in durations])


# -- what always holds -------------------------------------------------------------------------------------


@settings(max_examples=examples(40))
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    rows=st.integers(1, 150),
    median=st.floats(0.1, 300),
    in_flight=st.integers(1, 120),
    known=st.lists(st.floats(0, 600), max_size=20),
    way=st.sampled_from(["poll", "webhook", "list"]),
    lost=st.sampled_from([0.0, 0.0, 0.2, 1.0]),
    strangers=st.sampled_from([0.0, 0.0, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_every_row_ends_nothing_is_refused_the_least_interval_holds_and_nothing_is_idle(
    *,
    shape: str,
    rows: int,
    median: float,
    in_flight: int,
    known: list[float],
    way: str,
    lost: float,
    strangers: float,
    seed: int,
) -> None:
    random = Random(seed)
    pacers: dict[str, Callable[[float, Iterable[float]], ExecutionPoller | ListPoller]]
    pacers = {"poll": learning, "webhook": net, "list": listing}
    run = go(
        draw(shape, rows, median, seed),
        pacers[way](60.0, known),
        in_flight=in_flight,
        told_after=(lambda _name: math.inf if random.random() < lost else 0.0) if way == "webhook" else None,
        strangers=strangers if way == "list" else 0.0,
    )
    assert run.refused == 0
    if way != "webhook":
        assert set(run.polled) == set(run.durations)
    for polls in run.polled.values():
        assert all(later - earlier >= 3 for earlier, later in pairwise(polls))
