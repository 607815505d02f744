"""What a run will take, and the least it can take. Against whole runs: tests/property/test_forecast_simulation.py."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from lamina_batch.execution.forecast import Forecast, forecast, least_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina_batch.pipeline.spec import Completion


def ahead(
    jobs: int,
    durations: Sequence[float] = (30.0,) * 20,
    *,
    completion: Completion = "poll",
    generation: Literal["executions", "runs"] = "executions",
    limit: int = 100,
    window: float = 60.0,
    max_in_flight: int = 100,
    min_interval: float = 3.0,
) -> Forecast:
    return forecast(
        jobs,
        durations=durations,
        limit=limit,
        window=window,
        max_in_flight=max_in_flight,
        completion=completion,
        generation=generation,
        min_interval=min_interval,
        max_interval=window,
        reads=3,
    )


# -- the least possible time -------------------------------------------------------------------------------


def client(
    jobs: int, *, limit: int, window: float, duration: float, per_job: int, reads: int, slots: int, polls_first: bool
) -> float:
    """The time of a client that knows every end, and whose requests take none."""
    now = window_end = 0.0
    left = 0
    running: list[float] = []
    waiting = jobs

    def request() -> bool:
        nonlocal window_end, left
        if now >= window_end:
            window_end, left = now + window, limit
        left -= 1
        return left >= 0

    while True:
        while reads and request():
            reads -= 1
        for act in ("poll", "start", "poll") if polls_first else ("start", "poll", "start"):
            while act == "start" and not reads and waiting and len(running) < slots and request():
                waiting -= 1
                running.append(now + duration)
            while act == "poll" and running and running[0] <= now and (per_job == 1 or request()):
                running.pop(0)
        if not waiting and not running:
            return now
        moments = [window_end, *running[:1]] if left <= 0 else running[:1]
        now = min((moment for moment in moments if moment > now), default=now)


jobs_in_any_case = {
    "jobs": st.integers(1, 60),
    "limit": st.integers(1, 15),
    "duration": st.sampled_from([0.0, 1.0, 3.0, 5.0, 9.0, 10.0, 11.0, 15.0, 20.0, 27.0, 50.0]),
    "per_job": st.sampled_from([1, 2]),
    "reads": st.integers(1, 4),
}


@given(**jobs_in_any_case, slots=st.sampled_from([1, 2, 5, 20]))
def test_no_client_takes_less_than_the_least_possible_time(
    *, jobs: int, limit: int, duration: float, per_job: int, reads: int, slots: int
) -> None:
    least = least_seconds(
        jobs, limit=limit, window=10.0, shortest=duration, per_job=per_job, reads=reads, max_in_flight=slots
    )
    for polls_first in (True, False):
        taken = client(
            jobs,
            limit=limit,
            window=10.0,
            duration=duration,
            per_job=per_job,
            reads=reads,
            slots=slots,
            polls_first=polls_first,
        )
        assert taken >= least - 1e-9
    # A looser bound holds where the slots are not said.
    assert least >= least_seconds(jobs, limit=limit, window=10.0, shortest=duration, per_job=per_job, reads=reads)


@given(**jobs_in_any_case)
def test_with_slots_enough_a_perfect_client_takes_just_the_least_possible_time(
    *, jobs: int, limit: int, duration: float, per_job: int, reads: int
) -> None:
    assert least_seconds(
        jobs, limit=limit, window=10.0, shortest=duration, per_job=per_job, reads=reads
    ) == pytest.approx(
        min(
            client(
                jobs,
                limit=limit,
                window=10.0,
                duration=duration,
                per_job=per_job,
                reads=reads,
                slots=jobs,
                polls_first=polls_first,
            )
            for polls_first in (True, False)
        )
    )


def test_a_last_window_that_holds_polls_only_does_not_wait_for_an_execution() -> None:
    # 100 starts in the first two windows, 100 polls in the last two: the ones of the third are all over by then.
    assert least_seconds(150, limit=100, window=60, shortest=30, reads=0) == 120
    assert least_seconds(150, limit=100, window=60, shortest=70, reads=0) == 130


def test_nothing_takes_no_time() -> None:
    assert least_seconds(0, limit=100, window=60, shortest=30) == 0


# -- what is expected --------------------------------------------------------------------------------------


def test_a_constant_duration_is_forecast_to_the_request() -> None:
    it = ahead(10)
    assert (it.submit, it.poll, it.other, it.requests, it.per_ended) == (10, 10, 3, 23, 2.3)
    assert it.seconds == pytest.approx(30, abs=1)
    assert (it.least_requests, it.least_seconds) == (23, 30)


def test_by_webhook_a_job_takes_one_request() -> None:
    it = ahead(1000, completion="webhook")
    assert (it.submit, it.poll, it.requests, it.least_requests) == (1000, 0, 1003, 1003)
    assert it.seconds == pytest.approx(10 * 60 + 30, rel=0.01)


def test_with_the_list_what_asks_in_vain_is_a_few_sweeps() -> None:
    random = Random(1)
    spread = [random.lognormvariate(3.4, 1.0) for _ in range(300)]
    by_list = ahead(1000, spread, generation="runs").poll
    one_by_one = ahead(1000, spread).poll
    assert by_list is not None
    assert one_by_one is not None
    assert 1010 < by_list < 1100 < one_by_one


@pytest.mark.parametrize("completion", ["poll", "webhook"])
def test_without_known_durations_nothing_is_made_up(completion: Completion) -> None:
    it = ahead(100, (), completion=completion)
    assert (it.poll, it.requests, it.per_ended, it.seconds) == (None, None, None, None)
    assert (it.submit, it.other) == (100, 3)
    assert it.least_requests == (203 if completion == "poll" else 103)
    assert it.least_seconds == (120 if completion == "poll" else 60)


def test_nothing_to_do_takes_the_reads() -> None:
    it = ahead(0)
    assert (it.requests, it.per_ended, it.seconds, it.least_requests, it.least_seconds) == (3, None, 0, 3, 0)


def test_it_is_the_same_each_time() -> None:
    random = Random(1)
    spread = [random.lognormvariate(3.4, 1.0) for _ in range(300)]
    assert ahead(2000, spread) == ahead(2000, spread[::-1])


@pytest.mark.parametrize("completion", ["poll", "webhook"])
@pytest.mark.parametrize("slots", [20, 100])
def test_a_million_go_on_as_the_first_thousand_did(completion: Completion, slots: int) -> None:
    some, many = (ahead(jobs, completion=completion, max_in_flight=slots) for jobs in (20_000, 1_000_000))
    assert some.seconds is not None
    assert many.seconds == pytest.approx(50 * some.seconds, rel=0.01)
    assert many.per_ended == pytest.approx(some.per_ended, rel=0.01)
    # Slots or the limit: whichever is scarcer sets the pace.
    pace = max(30 / slots, (1 if completion == "webhook" else 2) * 60 / 100)
    assert many.seconds == pytest.approx(1_000_000 * pace, rel=0.01)


@settings(max_examples=examples(60))
@given(
    jobs=st.integers(1, 120),
    durations=st.lists(st.floats(0, 300), min_size=1, max_size=20),
    limit=st.integers(1, 120),
    window=st.sampled_from([1.0, 3.0, 60.0]),
    slots=st.integers(1, 120),
    way=st.sampled_from([("poll", "executions"), ("poll", "runs"), ("webhook", "executions"), ("webhook", "runs")]),
)
def test_whatever_is_asked_the_forecast_is_never_below_the_least(
    *,
    jobs: int,
    durations: list[float],
    limit: int,
    window: float,
    slots: int,
    way: tuple[Completion, Literal["executions", "runs"]],
) -> None:
    it = ahead(
        jobs,
        durations,
        completion=way[0],
        generation=way[1],
        limit=limit,
        window=window,
        max_in_flight=slots,
        min_interval=window / 20,
    )
    assert it.requests is not None
    assert it.seconds is not None
    assert it.requests >= it.least_requests
    assert it.seconds >= it.least_seconds - 1e-6
