"""The request budget, step by step. Long runs against a model of the limiter: tests/property/test_budget_model.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.client.budget import Budget, Quota, RequestTicket, parse_quota

W = 60.0


def quota(remaining: int, reset: float, *, limit: int = 100, window: float = W) -> Quota:
    return Quota(limit=limit, remaining=remaining, reset=reset, window=window)


def refused(retry_after: float | None = None, **other: float) -> Quota:
    return Quota(limited=True, retry_after=retry_after, **other)  # type: ignore[arg-type]  # only floats are passed


def heard(budget: Budget, sent: float, got: float, said: Quota | None) -> None:
    budget.settle(budget.spend(sent), got, said)


def burst(budget: Budget, now: float, count: int) -> list[RequestTicket]:
    return [budget.spend(now) for _ in range(count)]


def opened(at: float = 0.0) -> Budget:
    """A budget whose first request opened a window at that instant, with a round trip of 0.2 s."""
    budget = Budget()
    heard(budget, at, at + 0.2, quota(99, 60))
    return budget


# -- what an answer says -----------------------------------------------------------------------------------


def test_the_headers_of_the_service_are_read() -> None:
    headers = {"RateLimit-Policy": "100;w=60", "RateLimit-Limit": "100", "RateLimit-Remaining": "7"}
    assert parse_quota({**headers, "RateLimit-Reset": "31"}, 200) == quota(7, 31)
    assert parse_quota({**headers, "Retry-After": "12.345"}, 429) == Quota(
        limit=100, remaining=7, window=60.0, retry_after=12.345, limited=True
    )
    assert parse_quota({"ratelimit-remaining": " 5 ", "X-RateLimit-Reset": "1760000000"}, 200) == Quota(remaining=5)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1e3", "nan", "inf", "0x10", "٣", "9" * 400, "1.5.1", "Wed, 21 Oct 2026 07:28:00 GMT"]
)
def test_what_makes_no_sense_counts_as_not_said(text: str) -> None:
    names = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After")
    headers = {**dict.fromkeys(names, text), "RateLimit-Policy": f"100;w={text}"}
    assert parse_quota(headers, 200) == Quota()


def test_an_epoch_is_not_taken_for_a_span_and_half_a_request_not_for_a_number() -> None:
    assert parse_quota({"RateLimit-Reset": "1760000000", "RateLimit-Remaining": "1.5"}, 200) == Quota()
    assert parse_quota({"RateLimit-Limit": "0", "RateLimit-Reset": "0", "Retry-After": "0"}, 429) == refused()


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=30)), st.integers(100, 599))
def test_no_header_breaks_it(headers: dict[str, str], status: int) -> None:
    assert parse_quota(headers, status).limited == (status == 429)


# -- the start ---------------------------------------------------------------------------------------------


def test_while_nothing_is_known_one_request_goes_ahead_but_a_slow_one_is_not_waited_for_long() -> None:
    budget = Budget()
    assert (budget.limit, budget.window, budget.available(0), budget.next_change(0)) == (100, 60.0, 1, None)
    budget.spend(0)
    assert budget.available(0.5) == 0
    assert budget.next_change(0.5) == 1
    assert budget.available(1) > 0


def test_the_first_answer_shows_that_nobody_else_is_there() -> None:
    budget = opened()
    assert budget.available(0.2) == 99
    assert budget.next_change(0.2) == pytest.approx(60.2 + 0.06)


def test_the_first_answer_shows_that_somebody_is_there() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, quota(63, 30))
    # Not all 63 at once: somebody else reads the same number.
    assert 0 < budget.available(0.2) < 32


# -- within a window ---------------------------------------------------------------------------------------


def test_requests_on_their_way_are_counted_before_they_are_answered() -> None:
    budget = opened()
    tickets = burst(budget, 1, 60)
    assert budget.available(1) == 39
    # The fortieth to arrive had 59 left behind it; of the 59 not answered yet it is not known which were counted.
    budget.settle(tickets[0], 1.1, quota(59, 60))
    assert budget.available(1.1) == 0
    for ticket in tickets[1:]:
        budget.settle(ticket, 1.2, quota(39, 59))
    assert budget.available(1.2) == 39


def test_answers_that_overtake_each_other_do_not_give_requests_back() -> None:
    budget = opened()
    first, second = burst(budget, 1, 2)
    budget.settle(second, 1.1, quota(97, 60))
    budget.settle(first, 1.2, quota(98, 60))
    assert budget.available(1.2) == 97


def test_a_remainder_that_shrinks_without_us_is_respected_and_used_in_small_steps() -> None:
    budget = opened()
    heard(budget, 10, 10.2, quota(40, 50))
    assert budget.available(10.2) == 5
    heard(budget, 11, 11.2, quota(1, 49))
    assert budget.available(11.2) == 0


def test_nothing_leaves_when_the_remainder_is_used_until_the_window_is_over() -> None:
    budget = opened()
    for ticket in burst(budget, 1, 99):
        budget.settle(ticket, 1.2, quota(0, 60))
    assert budget.available(1.2) == budget.available(60) == budget.available(60.2) == 0
    end = budget.next_change(1.2)
    assert end is not None
    assert 60.2 <= end <= 60.3
    assert budget.available(end) == 100


# -- lost and hung requests --------------------------------------------------------------------------------


def test_a_lost_answer_whose_request_was_counted_costs_one_request_and_not_two() -> None:
    budget = opened()
    lost, told = burst(budget, 1, 2)
    budget.settle(lost, 1.1, None)
    assert budget.available(1.1) == 97
    budget.settle(told, 1.2, quota(97, 60))
    assert budget.available(1.2) == 97


def test_a_lost_request_that_was_not_counted_is_given_back_once_it_cannot_arrive_any_more() -> None:
    budget = opened()
    heard(budget, 1, 1.1, None)
    assert budget.available(1.2) == 98
    heard(budget, 5, 5.2, quota(98, 56))
    assert budget.available(5.2) == 98


def test_that_an_old_request_is_lost_in_the_end_changes_nothing() -> None:
    budget = opened()
    hanging = budget.spend(1)
    heard(budget, 5, 5.2, quota(98, 56))
    budget.settle(hanging, 31, None)
    assert budget.available(31) == 98


def test_an_old_lost_request_that_was_counted_does_not_stand_in_for_a_new_one_that_was_not() -> None:
    budget = opened()
    heard(budget, 1, 1.1, None)
    heard(budget, 5, 5.2, quota(97, 56))
    assert budget.available(5.2) == 97
    heard(budget, 5.3, 5.4, None)
    heard(budget, 5.3, 5.5, quota(96, 55))
    assert budget.available(5.5) == 95


def test_a_request_that_hangs_does_not_hold_a_request_back_for_the_whole_window() -> None:
    budget = opened()
    budget.spend(1)
    told = budget.spend(1)
    budget.settle(told, 1.2, quota(97, 60))
    # It may still be on its way...
    assert budget.available(1.2) == 96
    # ...but after this it has been counted: somebody must have been the third.
    change = budget.next_change(1.2)
    assert change is not None
    assert change < 10
    assert budget.available(change) == 97


def test_an_answer_of_a_proxy_that_says_nothing_may_have_been_counted_or_not() -> None:
    budget = opened()
    heard(budget, 1, 1.1, parse_quota({"Server": "a proxy"}, 502))
    assert budget.available(1.1) == 98
    heard(budget, 5, 5.2, quota(98, 56))
    assert budget.available(5.2) == 98


def test_a_request_without_a_connection_is_as_if_it_had_never_left() -> None:
    budget = opened()
    ticket = budget.spend(1)
    budget.withdraw(ticket)
    budget.settle(ticket, 1.1, None)
    assert budget.available(1.1) == 99


def test_only_the_first_word_about_a_ticket_counts() -> None:
    budget = opened()
    ticket = budget.spend(1)
    budget.settle(ticket, 1.2, quota(98, 60))
    budget.settle(ticket, 1.3, quota(0, 60))
    budget.settle(ticket, 1.4, None)
    assert budget.available(1.4) == 98


# -- the end of a window -----------------------------------------------------------------------------------


def test_the_end_is_never_taken_too_early_and_each_answer_may_tell_it_better() -> None:
    budget = Budget()
    # Somebody else opened it at -29.05, so it ends at 30.95. The service rounds up.
    heard(budget, 0, 0.2, quota(50, 31))
    assert budget.next_change(0.2) == pytest.approx(0.2 + 31 * 1.001)
    heard(budget, 5.9, 6.1, quota(49, 25))
    assert budget.next_change(6.1) == pytest.approx(6.1 + 25 * 1.001)


def test_after_a_window_of_our_own_the_next_is_used_at_once() -> None:
    budget = opened()
    assert budget.available(61) == 100


def test_after_a_shared_window_one_request_asks_first() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, quota(50, 31))
    assert budget.available(32) == 1
    heard(budget, 32, 32.2, quota(80, 40))
    assert 1 < budget.available(32.2) <= 40


def test_one_quiet_window_is_enough_to_be_alone_again() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, quota(50, 31))
    heard(budget, 32, 32.2, quota(99, 60))
    assert budget.available(100) == 100


def test_an_answer_of_the_window_before_changes_nothing_in_the_new_one() -> None:
    budget = opened()
    late = budget.spend(59.9)
    assert budget.available(60.5) == 99  # it may have been the first of the new window
    budget.settle(late, 60.6, quota(98, 1))
    assert budget.available(60.6) == 100


def test_the_first_answer_of_the_next_window_may_come_before_we_take_the_last_one_to_be_over() -> None:
    budget = opened()  # over at 60.26 at the latest
    heard(budget, 60.1, 60.2, quota(99, 60))
    assert budget.available(61) == 99
    assert budget.next_change(61) == pytest.approx(60.2 + 60.06)


def test_more_left_than_before_means_a_new_window_even_where_the_rounded_rest_leaves_that_open() -> None:
    budget = Budget()
    heard(budget, 0, 0.9, quota(2, 2, limit=3, window=2.0))  # ends between 2 and 2.9
    heard(budget, 0.9, 1.7, quota(1, 2, limit=3, window=2.0))
    heard(budget, 1.8, 2.7, quota(2, 2, limit=3, window=2.0))
    assert budget.available(2.8) == budget.available(3) == 2


def test_what_ended_unmarked_while_the_window_ended_may_belong_to_the_next_one() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, Quota())
    heard(budget, 60.1, 60.2, Quota())
    assert budget.available(60.3) == 99
    marked = opened()
    heard(marked, 59.9, 60.0, None)
    assert marked.available(60.3) == 99


def test_an_answer_of_a_window_that_began_before_we_thought_is_believed() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, quota(50, 31))  # ends between 30 and 31.2
    heard(budget, 30.5, 30.7, quota(90, 60))  # and somebody has opened the next
    assert budget.next_change(30.7) == pytest.approx(90.7 + 0.06)
    assert 0 < budget.available(30.7) < 50


# -- no headers, and 429 -----------------------------------------------------------------------------------


def test_without_headers_a_hundred_a_minute_count_from_the_first_request() -> None:
    budget = Budget()
    heard(budget, 0, 0.3, Quota())
    assert budget.available(0.3) == 99
    tickets = burst(budget, 1, 99)
    for ticket in tickets:
        budget.settle(ticket, 1.3, Quota())
    assert budget.available(1.3) == 0
    assert budget.next_change(1.3) == pytest.approx(60.3 + 0.06)
    assert budget.available(60.4) == 100


def test_without_headers_the_end_counts_from_an_answer_as_only_that_proves_an_arrival() -> None:
    budget = Budget()
    heard(budget, 0, 0.1, None)
    heard(budget, 20, 20.3, Quota())
    assert budget.next_change(20.3) == pytest.approx(80.3 + 0.06)


def test_requests_per_minute_stands_for_the_hundred() -> None:
    budget = Budget(requests_per_minute=20)
    assert budget.limit == 20
    heard(budget, 0, 0.3, Quota())
    assert budget.available(0.3) == 19


@pytest.mark.parametrize(
    ("said", "until"), [(Quota(limited=True, retry_after=7.5), 7.7), (Quota(limited=True, reset=9), 9.2)]
)
def test_after_429_nothing_leaves_until_the_service_says_so(said: Quota, until: float) -> None:
    budget = Budget()
    heard(budget, 0, 0.2, said)
    assert budget.available(until - 0.01) == 0
    assert budget.next_change(1) == pytest.approx(until, rel=0.002)
    assert budget.available(until + 0.1) == 1


def test_after_429_without_a_word_a_whole_window_is_waited_for() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, Quota())
    heard(budget, 30, 30.2, refused())
    assert budget.available(89) == 0
    assert budget.next_change(31) == pytest.approx(90.2 + 0.06)


def test_a_429_makes_us_careful_for_a_window() -> None:
    budget = opened()
    heard(budget, 1, 1.2, refused(59))
    assert budget.available(62) == 1


# -- part of the budget ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "per_window"), [(0.5, 50), (0.999, 99), (0.001, 1), (1.0, 100)])
def test_share_is_of_what_the_headers_allow(share: float, per_window: int) -> None:
    budget = Budget(share=share)
    assert budget.limit == per_window
    heard(budget, 0, 0.2, quota(99, 60))
    assert budget.available(0.2) == per_window - 1


def test_share_is_filled_in_every_window_also_next_to_lost_answers() -> None:
    budget = Budget(share=0.5)
    heard(budget, 0, 0.2, quota(99, 60))
    for ticket in burst(budget, 1, 49):
        budget.settle(ticket, 1.2, None)
    assert budget.available(2) == 0
    assert budget.available(61) == 50


def test_requests_per_minute_is_scaled_to_the_window_and_never_more_than_the_headers_allow() -> None:
    budget = Budget(requests_per_minute=30)
    heard(budget, 0, 0.2, quota(99, 10, window=10.0))
    assert (budget.limit, budget.window) == (5, 10.0)
    assert budget.available(0.2) == 4
    generous = Budget(requests_per_minute=500)
    heard(generous, 0, 0.2, quota(99, 60))
    assert generous.limit == 100


# -- surprises ---------------------------------------------------------------------------------------------


def test_the_limit_of_the_headers_is_taken_over_whenever_it_changes() -> None:
    budget = opened()
    heard(budget, 61, 61.2, quota(19, 60, limit=20))
    assert (budget.limit, budget.available(61.2)) == (20, 19)
    heard(budget, 122, 122.2, quota(499, 30, limit=500, window=30.0))
    assert (budget.limit, budget.window, budget.available(122.2)) == (500, 30.0, 499)


def test_without_a_policy_the_longest_rest_tells_the_window() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, Quota(limit=100, remaining=40, reset=290))
    assert budget.window == 290
    assert budget.next_change(0.2) == pytest.approx(290.2 + 0.29)


def test_a_rest_longer_than_the_window_is_cut_to_it() -> None:
    budget = Budget()
    heard(budget, 0, 0.2, quota(0, 3000))
    assert budget.next_change(0.2) == pytest.approx(60.2 + 0.06)


def test_a_clock_that_goes_back_is_not_followed() -> None:
    budget = opened(1000)
    for ticket in burst(budget, 1001, 99):
        budget.settle(ticket, 1001.2, quota(0, 59))
    assert budget.available(3) == 0
    assert budget.available(1061) == 100
    heard(budget, 5, 5.2, quota(99, 60))
    assert budget.available(5.2) == 99


def test_after_a_long_sleep_the_window_is_over() -> None:
    budget = opened()
    for ticket in burst(budget, 1, 99):
        budget.settle(ticket, 1.2, quota(0, 60))
    assert budget.available(1e9) == 100
