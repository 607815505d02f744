"""When to ask the list about many at once, step by step. Whole runs: tests/property/test_polling_simulation.py."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.execution.list_polling import ListPoller
from lamina_batch.execution.pacer import ListRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN = tuple(30.0 for _ in range(20))


def sweeping(*durations: float) -> ListPoller:
    return ListPoller(min_interval=3, max_interval=60, durations=durations)


def started(count: int, *durations: float, at: float = 0.0) -> ListPoller:
    it = sweeping(*durations)
    for i in range(count):
        it.start(str(i), at)
    return it


def wait(
    it: ListPoller, at: float = 0.0, *, room: int = 100, waiting: int = 0
) -> tuple[float, ListRequest | list[str]]:
    """The next instant at which something is asked, and what."""
    for _ in range(1000):
        names = it.due(at, 64, room=room, waiting=waiting)
        if names:
            return at, names
        sweep = it.list_due(at, room, waiting=waiting)
        if sweep is not None:
            return at, sweep
        later = it.next_due(at)
        assert later is not None
        assert later > at
        at = later
    raise AssertionError("nothing is ever asked")


def sweep_at(it: ListPoller, now: float, *, room: int = 100) -> ListRequest:
    assert it.due(now, 64, room=room) == []
    sweep = it.list_due(now, room)
    assert sweep is not None
    return sweep


def running(names: Iterable[int]) -> dict[str, bool]:
    return {str(i): False for i in names}


# -- when a sweep is worth it ------------------------------------------------------------------------------


def test_many_that_should_have_ended_are_looked_up_in_the_list_and_those_that_have_are_asked_at_once() -> None:
    it = started(20, *KNOWN)
    at, sweep = wait(it)
    assert 30 < at < 35
    assert sweep == ListRequest(offset=0, limit=100, sent_at=at)
    it.list_answered(sweep, at + 0.2, {**running(range(18)), "18": True, "19": True})
    assert it.due(at + 0.2, 64) == ["18", "19"]
    assert it.due(at + 0.3, 64) == []
    assert len(it) == 20


def test_nothing_is_swept_while_nothing_can_have_ended() -> None:
    it = started(50, *KNOWN)
    assert it.list_due(29.9, 100) is None
    assert it.next_due(0) == pytest.approx(30, abs=4)


@pytest.mark.parametrize("count", [10, 40])
def test_the_time_that_all_of_them_have_lain_unseen_is_what_counts(count: int) -> None:
    # Requests are scarce: six median durations, added up.
    at, _ = wait(started(count, *KNOWN), room=100, waiting=90)
    assert at == pytest.approx(30 + 6 * 30 / count)


def test_with_requests_to_spare_a_sweep_is_worth_less() -> None:
    assert wait(started(10, *KNOWN))[0] == pytest.approx(30 + 0.5 * 30 / 10)


def test_one_that_has_probably_ended_is_not_left_for_longer_than_the_greatest_interval() -> None:
    it = started(3, *(300.0 for _ in range(20)))
    for i in range(3):
        it.start(f"late {i}", 250)
    assert wait(it, waiting=100)[0] == 360


def test_while_nothing_is_known_sweeps_come_after_the_least_interval_and_then_ever_more_rarely() -> None:
    it = started(50)
    at, asked = 0.0, []
    while at < 60:
        at, sweep = wait(it, at)
        assert isinstance(sweep, ListRequest)
        it.list_answered(sweep, at, running(range(50)))
        asked.append(at)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert 3 <= asked[0] < 4
    assert min(gaps) >= 3
    assert gaps[-1] > 8
    assert len(asked) < 15


def test_a_duration_learnt_in_this_run_counts_for_those_already_waiting() -> None:
    it = started(20)
    it.ended("0", 40)
    assert wait(it)[0] == pytest.approx(40, abs=2)


# -- one by one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_are_asked_about_one_by_one(count: int) -> None:
    it = started(count, *KNOWN)
    assert wait(it) == (30, [str(i) for i in range(count)])
    it.asked("0", 30.2)
    assert it.list_due(60, 100) is None
    assert it.due(60, 64) == ["0"]


def test_a_sweep_that_did_not_show_one_is_not_repeated_for_it() -> None:
    it = started(20, *KNOWN)
    for i in range(20, 30):
        it.start(str(i), 20)
    it.list_answered(sweep_at(it, 40), 40.2, running(range(10, 30)))
    # Ten are further down; the others may be on the first page still.
    _, sweep = wait(it, 44)
    assert isinstance(sweep, ListRequest)
    assert sweep.offset == 100
    it.list_answered(sweep, 45, dict.fromkeys(map(str, range(10)), True))
    assert it.due(45, -1) == []
    assert it.due(45, 64) == [str(i) for i in range(10)]


def test_one_alone_on_its_page_is_asked_by_itself() -> None:
    it = started(20, *KNOWN)
    it.list_answered(sweep_at(it, 40), 40.2, running(range(1, 20)))
    assert it.due(40.3, 64) == ["0"]


@pytest.mark.parametrize(
    # Answers overtake each other: one that was heard of first may stand a few places further up.
    ("newer", "offset"),
    [(130, 100), (105, 0)],
)
def test_those_that_newer_ones_of_ours_have_pushed_down_are_looked_up_where_they_must_be(
    newer: int, offset: int
) -> None:
    it = started(10, *KNOWN)
    for i in range(10, 10 + newer):
        it.start(str(i), 25)
    _, sweep = wait(it)
    assert isinstance(sweep, ListRequest)
    assert sweep.offset == offset


def test_on_a_page_full_of_others_ours_are_asked_one_by_one() -> None:
    it = started(20, *KNOWN)
    it.list_answered(sweep_at(it, 40), 40.2, running(range(18, 20)))
    assert set(it.due(41, 64)) == {str(i) for i in range(18)}


def test_one_accepted_a_moment_before_the_sweep_need_not_be_on_the_list_yet() -> None:
    it = started(20, *KNOWN)
    it.start("young", 38)
    it.list_answered(sweep_at(it, 40), 40.2, dict.fromkeys(map(str, range(20)), True))
    for name in it.due(40.2, 64):
        it.ended(name, 30)
    for i in range(20, 30):
        it.start(str(i), 41)
    _, sweep = wait(it, 68)
    assert isinstance(sweep, ListRequest)
    assert sweep.offset == 0
    it.list_answered(sweep, 75, {"young": True})
    assert it.due(75, 1) == ["young"]


# -- requests that are out, and that fail ------------------------------------------------------------------


def test_a_page_is_swept_by_one_request_at_a_time_and_not_below_the_least_interval() -> None:
    it = started(20, *KNOWN)
    sweep = sweep_at(it, 40)
    assert it.list_due(41, 100) is None
    it.list_answered(sweep, 41, running(range(20)))
    for i in range(20, 60):
        it.start(str(i), 12)
    assert it.list_due(43.9, 1000) is None
    assert it.list_due(44, 1000) is not None


def test_what_a_sweep_may_find_is_kept_for_it_but_not_for_long() -> None:
    it = started(20, *KNOWN)
    for i in range(20, 50):
        it.start(str(i), 39)
    assert it.reserved(40) == 0
    sweep = sweep_at(it, 40)
    assert it.reserved(40) == 20
    assert it.reserved(42.9) == 20
    assert it.next_due(41) == 43
    assert it.reserved(43) == 0
    it.list_answered(sweep, 44, dict.fromkeys(map(str, range(10)), True))
    assert it.reserved(44) == 10
    assert len(it.due(44, 4)) == 4
    assert it.reserved(44) == 6


def test_nothing_is_swept_while_what_was_found_needs_all_requests() -> None:
    it = started(40, *KNOWN)
    it.list_answered(sweep_at(it, 40), 40.2, dict.fromkeys(map(str, range(20)), True))
    for i in range(40, 80):
        it.start(str(i), 10)
    assert len(it.due(50, 15)) == 15
    assert it.list_due(50, 5) is None
    assert it.list_due(50, 6) is not None


def test_a_failed_sweep_is_repeated_after_ever_longer_pauses_and_then_they_are_asked_one_by_one() -> None:
    it = started(20, *KNOWN)
    at = 40.0
    for pause in (3, 6):
        it.list_failed(sweep_at(it, at), at)
        assert it.next_due(at) == at + pause
        at += pause
    it.list_failed(sweep_at(it, at), at)
    assert len(it.due(at, 64)) == 20


def test_what_sweeps_have_seen_is_not_forgotten_when_they_fail() -> None:
    it = started(20, *KNOWN, *(300.0 for _ in range(15)))
    it.list_answered(sweep_at(it, 50), 50, running(range(20)))
    for i in range(20, 40):
        it.start(str(i), 51)
    for at in (120.0, 123.0, 129.0):
        it.list_failed(sweep_at(it, at), at)
    assert it.due(129, 64) == [str(i) for i in range(20, 40)]


def test_a_poll_that_fails_for_one_found_is_repeated_after_ever_longer_pauses() -> None:
    it = started(4, *KNOWN)
    it.list_answered(sweep_at(it, 60), 60, {"0": True, **running(range(1, 4))})
    at = 60.0
    for pause in (3, 6, 12):
        assert it.due(at, 64) == ["0"]
        it.failed("0", at)
        assert it.due(at + pause - 0.1, 1) in ([], ["1"], ["2"], ["3"])
        at += pause
    assert it.due(at, 64) == ["0"]


def test_one_that_the_list_shows_as_ended_and_the_poll_does_not_is_asked_again() -> None:
    it = started(4, *KNOWN)
    it.list_answered(sweep_at(it, 60), 60, dict.fromkeys("0123", True))
    assert it.due(60, 1) == ["0"]
    it.asked("0", 60.5)
    assert it.due(63.4, 64) == ["1", "2", "3"]
    assert it.due(63.5, 64) == ["0"]


def test_ends_are_taken_note_of_wherever_the_execution_stands() -> None:
    it = started(10, *KNOWN)
    it.list_answered(sweep_at(it, 40), 40, {"0": True, **running(range(2, 10))})
    assert it.due(40, 1) == ["0"]
    assert it.due(41, 64) == ["1"]
    for i in range(10):
        it.ended(str(i), 30)
        assert len(it) == 9 - i
    assert it.next_due(50) is None
    it.ended("nobody", None)
    assert len(it) == 0


def test_an_execution_that_is_started_again_is_one_execution() -> None:
    it = started(1, *KNOWN)
    it.start("0", 10)
    assert len(it) == 1
    assert wait(it) == (40, ["0"])


# -- whatever happens --------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["start", "start", "start", "due", "due", "sweep", "list_answered", "asked", "failed", "ended"]
        ),
        st.integers(0, 30),
        st.floats(0, 40),
        st.integers(0, 20),
    ),
    max_size=120,
)


@given(steps=steps, known=st.lists(st.floats(0, 300), max_size=20))
def test_nothing_is_asked_twice_at_once_or_forgotten(
    steps: list[tuple[str, int, float, int]], known: list[float]
) -> None:
    it = sweeping(*known)
    now = 0.0
    live: set[str] = set()
    out: set[str] = set()
    sweeps: list[ListRequest] = []
    for action, number, pause, count in steps:
        now += pause
        name = str(number)
        match action:
            case "start" if name not in live:
                it.start(name, now, age=pause if count == 0 else 0.0)
                live.add(name)
            case "due":
                for due in it.due(now, count, room=count + number, waiting=number):
                    assert due in live - out
                    out.add(due)
            case "sweep":
                sweep = it.list_due(now, count, waiting=number)
                if sweep is not None:
                    assert sweep.offset not in {other.offset for other in sweeps}
                    sweeps.append(sweep)
            case "list_answered" if sweeps:
                seen = {name: int(name) % 3 == 0 for name in live if int(name) < count * 2}
                if count:
                    it.list_answered(sweeps.pop(), now, seen)
                else:
                    it.list_failed(sweeps.pop(), now)
            case "asked" | "failed" if name in out:
                (it.asked if action == "asked" else it.failed)(name, now)
                out.remove(name)
            case "ended" if name in live:
                it.ended(name, pause if count % 2 else None)
                live.discard(name)
                out.discard(name)
        assert len(it) == len(live)
        assert 0 <= it.reserved(now) <= len(live)
    for sweep in sweeps:
        it.list_failed(sweep, now)
    for name in out:
        it.ended(name, None)
        live.discard(name)
    for _ in range(200):
        if not live:
            break
        at = it.next_due(now)
        assert at is not None
        assert at <= now + 1000
        now = at
        for name in it.due(now, 64):
            it.ended(name, 30)
            live.discard(name)
        last = it.list_due(now, 100)
        if last is not None:
            it.list_answered(last, now, dict.fromkeys(live, True))
    assert not live
