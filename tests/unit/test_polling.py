"""When to ask about which execution, step by step. Whole runs: tests/property/test_polling_simulation.py."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.execution.polling import ExecutionPoller

KNOWN = tuple(30.0 for _ in range(20))


def polling(*durations: float, least: float = 3.0, most: float = 60.0) -> ExecutionPoller:
    return ExecutionPoller(min_interval=least, max_interval=most, durations=durations)


def wait(it: ExecutionPoller, *, room: int = 100, waiting: int = 0) -> tuple[float, list[str]]:
    """The next instant at which something is asked, and what."""
    at = 0.0
    for _ in range(1000):
        names = it.due(at, 64, room=room, waiting=waiting)
        if names:
            return at, names
        later = it.next_due(at)
        assert later is not None
        assert later > at
        at = later
    raise AssertionError("nothing is ever asked")


# -- one execution -----------------------------------------------------------------------------------------


def test_an_app_never_seen_is_asked_after_the_least_interval() -> None:
    it = polling()
    it.start("a", 100)
    assert it.due(102.9, 10) == []
    assert it.next_due(102.9) == 103
    assert it.due(103, 10) == ["a"]


def test_what_is_out_is_not_handed_out_again_before_its_poll_has_ended() -> None:
    it = polling()
    it.start("a", 0)
    assert it.due(3, 10) == ["a"]
    assert it.due(1000, 10) == []
    assert it.next_due(1000) is None
    it.asked("a", 1000)
    assert it.due(2000, 10) == ["a"]


def test_a_known_duration_is_waited_for_and_asked_about_once() -> None:
    it = polling(*KNOWN)
    it.start("a", 100)
    assert wait(it) == (130, ["a"])


def test_a_duration_learnt_in_this_run_counts_for_those_already_waiting() -> None:
    it = polling()
    for name in "abc":
        it.start(name, 0)
    it.ended("a", 40)
    assert wait(it) == (40, ["b", "c"])


def test_the_least_interval_holds_after_the_start_and_after_a_poll() -> None:
    it = polling(*(0.1 for _ in range(20)), *(4.0 for _ in range(20)))
    it.start("a", 0)
    it.asked("a", 3.5)
    assert wait(it)[0] == 6.5
    short = polling(*(0.1 for _ in range(20)))
    short.start("a", 0)
    assert wait(short)[0] == 3


def test_a_resumed_execution_that_must_have_ended_long_ago_is_asked_at_once() -> None:
    it = polling(*KNOWN)
    it.start("old", 1000, age=4000)
    it.start("young", 1000, age=10)
    assert it.due(1000, 10) == ["old"]
    it.ended("old", 30)
    assert wait(it) == (1020, ["young"])


def test_one_that_never_ends_costs_ever_less() -> None:
    it = polling(*KNOWN)
    it.start("a", 0)
    asked = []
    for _ in range(30):
        at, _ = wait(it)
        it.asked("a", at)
        asked.append(at)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert asked[0] == 30
    assert gaps == sorted(gaps)
    assert gaps[0] < 15
    assert gaps[-1] == 60


def test_failed_polls_come_after_ever_longer_pauses() -> None:
    it = polling(*KNOWN)
    it.start("a", 0)
    at, gaps = wait(it)[0], []
    for _ in range(8):
        it.failed("a", at)
        later, _ = wait(it)
        gaps.append(later - at)
        at = later
    assert gaps == [3, 6, 12, 24, 48, 60, 60, 60]
    it.asked("a", at)
    at, _ = wait(it)
    it.failed("a", at)
    assert wait(it)[0] - at == 3


# -- what the distribution says ----------------------------------------------------------------------------


def test_short_ones_are_asked_when_they_are_over_and_the_rest_when_the_long_ones_are() -> None:
    it = polling(*(30.0 for _ in range(90)), *(300.0 for _ in range(10)))
    it.start("a", 0)
    assert wait(it, room=100, waiting=100)[0] == 30
    it.asked("a", 30)
    # Nothing ends in between, so there is nothing to be seen, however long that is.
    assert wait(it, room=100, waiting=100)[0] == 300


@pytest.mark.parametrize(("room", "waiting"), [(100, 100), (3, 0), (1, 0)])
def test_patience_grows_as_requests_become_scarce(room: int, waiting: int) -> None:
    random = Random(1)
    spread = [random.lognormvariate(3.4, 1.0) for _ in range(300)]
    rich, poor = polling(*spread), polling(*spread)
    for it in (rich, poor):
        for name in "abcd":
            it.start(name, 0)
    assert wait(rich, room=100)[0] * 1.5 < wait(poor, room=room, waiting=waiting)[0]


def test_one_that_has_probably_ended_is_asked_within_the_greatest_interval() -> None:
    random = Random(1)
    it = polling(*(random.lognormvariate(3.4, 1.0) for _ in range(300)), most=20.0)
    it.start("a", 0)
    assert wait(it, room=1, waiting=1)[0] < 30 * 1.2 + 20


def test_two_long_ones_among_many_short_ones_are_no_reason_to_wait_for_long() -> None:
    it = polling(*(30.0 for _ in range(100)), 3000.0, 3000.0)
    it.start("a", 0)
    it.asked("a", 31)
    assert wait(it)[0] < 50


def test_an_end_that_is_told_late_is_expected_late() -> None:
    it = polling(*KNOWN)
    for i in range(300):
        # The service says 30 s, but was seen not to have ended after 31.
        it.start(str(i), 0)
        it.asked(str(i), 31)
        it.ended(str(i), 30.0)
    it.start("a", 0)
    assert wait(it)[0] == 31


# -- many executions ---------------------------------------------------------------------------------------


def test_those_whose_best_moment_is_longest_past_come_first() -> None:
    it = polling(*KNOWN)
    for i, name in enumerate("dacb"):
        it.start(name, i)
    assert it.due(100, 2) == ["d", "a"]
    assert it.due(100, 10) == ["c", "b"]


def test_while_nothing_is_known_one_goes_ahead_of_the_others() -> None:
    it = polling()
    for i in range(50):
        it.start(str(i), 0)
    polls = 0
    at = 3.0
    while at < 30:
        names = it.due(at, 64)
        assert len(names) <= 1
        for name in names:
            polls += 1
            it.asked(name, at)
        later = it.next_due(at)
        assert later is not None
        at = max(later, at + 0.1)
    assert polls <= 12
    ahead = it.due(at, 64)
    it.ended(ahead[0], 30.0)
    # It tells about all of them; but one example is not trusted with all requests at once.
    assert 1 < len(it.due(at + 1, 64)) < 10


def test_one_that_is_stuck_does_not_keep_others_from_being_asked() -> None:
    it = polling()
    it.start("stuck", 0, age=100_000)
    at = 0.0
    for _ in range(100):
        at, names = wait(it)
        assert names == ["stuck"]
        it.asked("stuck", at)
    it.start("new", at)
    others = 0
    while not others:
        later, names = wait(it)
        assert later <= at + 10 * 60 * 1.5
        others += "new" in names
        for name in names:
            it.asked(name, later)


def test_the_one_that_goes_ahead_may_be_the_last_to_end() -> None:
    it = polling()
    for i in range(50):
        it.start(str(i), i / 10)
    at, names = wait(it)
    while names == ["0"]:
        it.asked("0", at)
        assert at < 5 * 60
        at, names = wait(it)


def test_when_one_has_failed_the_others_are_not_kept_waiting_by_how_long_it_lasted() -> None:
    it = polling()
    it.start("failing", 0)
    it.start("other", 60)
    it.asked("failing", 100)
    assert it.due(100, 10) == []
    it.ended("failing", None)
    assert it.due(100, 10) == ["other"]


def test_ends_without_a_duration_count_as_ends() -> None:
    it = polling()
    for i in range(40):
        it.start(str(i), 0)
    for i in range(10):
        it.ended(str(i), None)
    assert len(it) == 30
    assert len(it.due(3, 64)) > 10


def test_what_is_not_known_changes_nothing() -> None:
    it = polling()
    it.asked("x", 1)
    it.failed("x", 1)
    it.ended("x", None)
    assert (len(it), it.due(10, 10), it.next_due(10)) == (0, [], None)


def test_an_execution_that_is_started_again_is_one_execution() -> None:
    it = polling(*KNOWN)
    it.start("a", 0)
    it.start("a", 0)
    assert len(it) == 1
    assert it.due(40, 10) == ["a"]
    it.start("a", 40)
    assert it.due(80, 10) == ["a"]


# -- where ends are told -----------------------------------------------------------------------------------
# The grace is 12 least intervals, 36 s; without anything known the first age is 20 of them.


def told_of(*durations: float, timeout: float = math.inf) -> ExecutionPoller:
    return ExecutionPoller(min_interval=3, max_interval=60, durations=durations, delivered=True, timeout=timeout)


def test_what_is_told_is_never_asked_about() -> None:
    it = told_of(*KNOWN)
    for i in range(200):
        it.start(str(i), i)
        assert it.due(i, 10) == []
        if i >= 31:
            it.ended(str(i - 31), 31, by_callback=True)


@pytest.mark.parametrize(("waiting", "at"), [(100, 2 * 39 + 36), (0, 38 + 36)])
def test_one_of_which_nothing_is_told_is_asked_when_it_must_have_ended_and_sooner_with_requests_to_spare(
    waiting: int, at: float
) -> None:
    # All have ended by 39 s, and 19 of 20 by 38 s.
    it = told_of(*range(20, 40))
    it.start("a", 0)
    assert wait(it, waiting=waiting) == (at, ["a"])


def test_while_nothing_is_known_one_is_asked_after_a_minute_and_ever_more_rarely() -> None:
    it = told_of()
    for i in range(50):
        it.start(str(i), i / 100)
    at, names = wait(it)
    assert (at, names) == (60, ["0"])
    assert it.due(2000, 64) == []
    it.asked("0", 60)
    assert wait(it)[0] == pytest.approx(90, abs=1)


def test_one_asked_in_vain_is_asked_again_when_its_age_has_grown_by_half() -> None:
    it = told_of(*KNOWN)
    it.start("a", 0)
    at, _ = wait(it)
    it.asked("a", at)
    assert wait(it)[0] == pytest.approx(1.5 * at)


def test_after_two_in_vain_it_is_quiet_for_ever_longer() -> None:
    it = told_of(*KNOWN)
    for i in range(200):
        it.start(str(i), 0)
    at = 0.0
    asked: list[float] = []
    while len(asked) < 6:
        names = it.due(at, 64, room=1000)
        assert len(names) <= 1
        if names:
            it.asked(names[0], at)
            asked.append(at)
        later = it.next_due(at)
        assert later is not None
        at = max(later, at + 0.01)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps == pytest.approx([0, 60, 120, 240, 480], abs=0.1)


def test_each_two_hundred_told_allow_one_more_in_vain() -> None:
    it = told_of(*KNOWN)
    for i in range(400):
        it.ended(f"told {i}", 30, by_callback=True)
    for i in range(10):
        it.start(str(i), 0)
    for expected in (True, True, True, True, False):
        names = it.due(70, 64)
        assert bool(names) is expected
        for name in names:
            it.asked(name, 70)


def test_an_end_that_was_missed_breaks_the_quiet_and_lets_more_be_asked() -> None:
    it = told_of(*KNOWN)
    for i in range(8):
        it.ended(f"told {i}", 30, by_callback=True)
    for i in range(12):
        it.start(str(i), 0)
    (missed,) = it.due(70, 64)
    it.ended(missed, 30)
    first, second = it.due(71, 64)
    it.asked(first, 72)
    (third,) = it.due(72, 64)
    it.asked(third, 73)
    assert it.due(73, 64) == []
    it.ended(second, 30)
    assert len(it.due(74, 64)) == 4


def test_where_nothing_is_ever_told_executions_are_asked_as_without_webhooks_until_something_is() -> None:
    it = told_of(*KNOWN)
    it.start("a", 0)
    assert wait(it)[0] == 66
    it.ended("a", 30)
    it.start("b", 100)
    it.start("c", 100)
    assert it.due(129, 64) == []
    assert it.next_due(129) == 130
    it.ended("b", 30, by_callback=True)
    it.ended("x", 30, by_callback=True)
    assert it.due(165, 64) == []
    assert it.next_due(165) == 166


def test_what_an_earlier_run_left_behind_says_nothing_about_deliveries_now() -> None:
    it = told_of(*KNOWN)
    it.start("old", 1000, age=5000)
    it.start("new", 1000)
    assert it.due(1000, 64) == ["old"]
    it.ended("old", 30)
    assert it.due(1060, 64) == []
    assert wait(it)[0] == 1066


def test_that_one_was_given_up_says_nothing_about_deliveries() -> None:
    it = told_of(*KNOWN, timeout=100.0)
    it.start("a", 0)
    it.start("new", 90)
    it.due(100, 64)
    it.ended("a", None)
    assert it.due(150, 64) == []


def test_each_is_asked_when_it_would_be_given_up_however_quiet_it_is() -> None:
    it = told_of(*KNOWN, timeout=300.0)
    for i in range(5):
        it.start(str(i), i)
    for at in (70.0, 70.0, 131.0, 252.0):
        it.asked(it.due(at, 64)[0], at)
    for i in range(5):
        assert it.due(300 + i - 0.1, 64) == []
        assert it.due(300 + i, 64) == [str(i)]
        it.ended(str(i), None)


def test_a_given_up_age_is_asked_at_without_webhooks_too() -> None:
    it = ExecutionPoller(min_interval=3, max_interval=60, durations=[1000.0] * 20, timeout=100.0)
    it.start("a", 0)
    assert wait(it) == (100, ["a"])


def test_what_is_learnt_while_one_waits_counts_for_it() -> None:
    it = told_of(*KNOWN)
    it.start("a", 0)
    # One longer example is not worth planning everything anew, but it is known when the moment comes.
    for i in range(5):
        it.ended(f"b{i}", 50, by_callback=True)
    assert wait(it, waiting=100)[0] == 2 * 50 + 36


def test_an_end_told_of_an_execution_that_nobody_waits_for_teaches_how_long_they_take() -> None:
    it = told_of()
    it.ended("held", 40, by_callback=True)
    it.start("a", 0)
    assert wait(it)[0] == 76


# -- whatever happens --------------------------------------------------------------------------------------

names = st.sampled_from([str(i) for i in range(12)])
actions = st.lists(
    st.tuples(
        st.sampled_from(["start", "due", "due", "due", "asked", "failed", "ended"]),
        names,
        st.floats(0, 50),
        st.floats(0, 500),
        st.integers(0, 20),
    ),
    max_size=120,
)


@given(actions=actions, known=st.lists(st.floats(0, 1000), max_size=30), delivered=st.booleans())
def test_never_below_the_least_interval_never_twice_at_once_and_never_forgotten(
    *, actions: list[tuple[str, str, float, float, int]], known: list[float], delivered: bool
) -> None:
    it = told_of(*known) if delivered else polling(*known)
    now = 0.0
    earliest: dict[str, float] = {}
    out: set[str] = set()
    for action, name, pause, number, count in actions:
        now += pause
        match action:
            case "start" if name not in earliest:
                it.start(name, now, age=number)
                earliest[name] = now - number + 3
            case "due":
                for due in it.due(now, count, waiting=count % 3, room=int(number)):
                    assert due not in out
                    assert earliest[due] <= now
                    out.add(due)
            case "asked" | "failed" if name in out:
                (it.asked if action == "asked" else it.failed)(name, now)
                out.remove(name)
                earliest[name] = now + 3
            case "ended" if name in earliest:
                it.ended(name, number, by_callback=delivered and count % 2 == 0)
                del earliest[name]
                out.discard(name)
        assert len(it) == len(earliest)
        if set(earliest) - out and not out:
            assert it.next_due(now) is not None
    # Each is asked some day, if those asked end.
    for name in out:
        it.ended(name, None)
        del earliest[name]
    while earliest:
        at = it.next_due(now)
        assert at is not None
        # Twice the longest that is known, and some grace, is how long a callback may be late.
        assert at <= now + 2100
        now = at
        for name in it.due(now, 64):
            it.ended(name, None)
            del earliest[name]
