"""The forecast against whole runs in simulated time, of rows that last as the known executions did."""

from __future__ import annotations

from random import Random
from typing import Literal

import pytest
from simulated_service import Clock, Limiter, Run
from test_polling_simulation import SHAPES, draw

from lamina_batch.execution.forecast import Forecast, forecast
from lamina_batch.execution.list_polling import ListPoller
from lamina_batch.execution.polling import ExecutionPoller

Way = Literal["poll", "list", "webhook"]
INTERVALS = {"min_interval": 3.0, "max_interval": 60.0}


def whole_run(way: Way, durations: dict[str, float], known: list[float], slots: int) -> Run:
    clock = Clock()
    run = Run(
        clock=clock,
        limiter=Limiter(),
        durations=durations,
        polling=ListPoller(**INTERVALS, durations=known)
        if way == "list"
        else ExecutionPoller(**INTERVALS, durations=known, delivered=way == "webhook"),
        max_in_flight=slots,
        told_after=(lambda _name: 0.0) if way == "webhook" else None,
    )
    run.begin()
    clock.run()
    assert run.done
    return run


def ahead_of(way: Way, rows: int, known: list[float], slots: int) -> Forecast:
    return forecast(
        rows,
        durations=known,
        limit=100,
        window=60.0,
        max_in_flight=slots,
        completion="webhook" if way == "webhook" else "poll",
        generation="runs" if way == "list" else "executions",
        reads=3,
        **INTERVALS,
    )


@pytest.mark.parametrize(("rows", "slots"), [(60, 100), (1500, 100), (1500, 20)])
@pytest.mark.parametrize("median", [30.0, 150.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["poll", "list", "webhook"])
def test_a_run_takes_what_was_forecast(way: Way, shape: str, median: float, rows: int, slots: int) -> None:
    known = list(draw(shape, 300, median, 99).values())
    ahead = ahead_of(way, rows, known, slots)
    random = Random(1)
    run = whole_run(way, {str(number): random.choice(known) for number in range(rows)}, known, slots)
    assert ahead.requests is not None
    assert ahead.seconds is not None
    assert ahead.requests == pytest.approx(run.requests, rel=0.2)
    if rows > 1000:
        assert ahead.seconds == pytest.approx(run.seconds, rel=0.15)
    else:
        # Which of a few are the long ones is chance.
        assert ahead.seconds / 2.5 <= run.seconds <= 2.5 * ahead.seconds


def test_a_run_whose_slots_and_requests_run_short_in_turns_is_slower_than_either_explains() -> None:
    known = list(draw("bimodal", 300, 150.0, 99).values())
    random = Random(1)
    run = whole_run("webhook", {str(number): random.choice(known) for number in range(4000)}, known, 150)
    assert ahead_of("webhook", 4000, known, 150).seconds == pytest.approx(run.seconds, rel=0.15)
