"""Canary and failure limit."""

from __future__ import annotations

from lamina_batch.execution.guards import Guards, StopReason
from lamina_batch.pipeline.spec import FailureLimit


def test_without_limits_everything_may_begin() -> None:
    guards = Guards()
    guards.began(1)
    guards.ended(1, completed=False, failed=True)
    assert guards.room() is None


def test_a_canary_lets_the_first_through_and_waits_for_all_of_them() -> None:
    guards = Guards(canary=2)
    assert guards.room() == 2
    guards.began(1)
    assert guards.room() == 1
    guards.began(2)
    assert guards.room() == 0
    guards.ended(1, completed=True, failed=False)
    assert guards.room() == 0
    guards.ended(2, completed=True, failed=False)
    assert guards.room() is None


def test_a_canary_that_does_not_complete_stops_the_run() -> None:
    guards = Guards(canary=1)
    guards.began(1)
    guards.ended(1, completed=False, failed=False)
    assert (guards.stop, guards.room()) == (StopReason.CANARY, 0)


def test_a_canary_sent_again_is_still_the_same_canary() -> None:
    guards = Guards(canary=1)
    guards.began(1)
    guards.began(1)
    guards.ended(1, completed=True, failed=False)
    assert guards.room() is None


def test_a_number_of_failures_is_a_limit_to_be_passed() -> None:
    guards = Guards(max_failures=FailureLimit(count=1))
    guards.ended(1, completed=False, failed=True)
    assert guards.stop is None
    guards.ended(2, completed=False, failed=True)
    assert guards.stop is StopReason.MAX_FAILURES


def test_a_share_of_failures_counts_after_twenty_ends() -> None:
    guards = Guards(max_failures=FailureLimit(share=0.2))
    for job in range(19):
        guards.ended(job, completed=False, failed=True)
    assert guards.stop is None
    guards.ended(19, completed=False, failed=True)
    assert guards.stop is StopReason.MAX_FAILURES
