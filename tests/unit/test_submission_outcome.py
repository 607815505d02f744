"""What the end of a POST proves: the table of docs/ledger.md, "What the end of a POST proves", case by case.

tests/integration/test_request_life.py has servers that bring these ends about.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.client.lamina import Phase, StartResult
from lamina_batch.execution.submission_outcome import (
    SubmissionOutcome,
    classify_submission,
    reports_insufficient_credits,
)

UNANSWERED = [
    (
        Phase.NOTHING,
        SubmissionOutcome.NOT_ACCEPTED,
        "Errors and retries: refused connection and failed lookup are provably not started",
    ),
    (
        Phase.CONNECTED,
        SubmissionOutcome.NOT_ACCEPTED,
        "Errors and retries: a network error before anything was written provably never left",
    ),
    (
        Phase.REQUEST_BEGUN,
        SubmissionOutcome.UNKNOWN,
        "Errors and retries: the head may have arrived, and nothing says what a half request does",
    ),
    (Phase.REQUEST_SENT, SubmissionOutcome.UNKNOWN, "Errors and retries: a lost answer (timeout, reset) is ambiguous"),
    (
        Phase.ANSWER_BEGUN,
        SubmissionOutcome.UNKNOWN,
        "Errors and retries: an answer began, and its status line was never whole",
    ),
]


@pytest.mark.parametrize(("phase", "proof", "source"), UNANSWERED, ids=str)
def test_without_a_status_line_the_phase_decides(phase: Phase, proof: SubmissionOutcome, source: str) -> None:
    assert classify_submission(StartResult(phase=phase, message=source)) is proof


ANSWERED = [
    # status, execution id, words, what it proves, heading of docs/lamina-api.md and why
    (202, "e-1", "", SubmissionOutcome.ACCEPTED, "Start execution: 202 means accepted; store executionId"),
    (200, "e-1", "", SubmissionOutcome.ACCEPTED, "Start execution: 202 is documented; an id was given all the same"),
    (201, "e-1", "", SubmissionOutcome.ACCEPTED, "Start execution: as above"),
    (
        202,
        None,
        "its answer holds no execution id",
        SubmissionOutcome.UNKNOWN,
        "Start execution: accepted, but without an id for collecting it",
    ),
    (204, None, "", SubmissionOutcome.UNKNOWN, "Start execution: as above"),
    (100, None, "", SubmissionOutcome.UNKNOWN, "Errors and retries: no final answer came"),
    (
        429,
        None,
        "Too many requests from this IP, please try again in a minute",
        SubmissionOutcome.NOT_ACCEPTED,
        "Errors and retries: before any work",
    ),
    (429, None, "RATE_LIMITED", SubmissionOutcome.NOT_ACCEPTED, "Errors of runs: the same in JSON"),
    (
        429,
        None,
        "Insufficient credits",
        SubmissionOutcome.NOT_ACCEPTED,
        "Errors and retries: the status counts, whatever is said with it",
    ),
    (401, None, "Missing API key", SubmissionOutcome.STOP, "Errors and retries: stop the batch"),
    (401, None, "Invalid API key", SubmissionOutcome.STOP, "Errors and retries: stop the batch"),
    (
        403,
        None,
        "Workspace header does not match API key workspace scope",
        SubmissionOutcome.STOP,
        "Errors and retries: no row can change that",
    ),
    (404, None, "App not found", SubmissionOutcome.STOP, "Errors and retries: no row can change that"),
    (
        301,
        None,
        "",
        SubmissionOutcome.STOP,
        "Unknowns 1: the paths may have moved; redirects are not followed with the key",
    ),
    (307, None, "", SubmissionOutcome.STOP, "Unknowns 1: as above"),
    (308, None, "", SubmissionOutcome.STOP, "Unknowns 1: as above"),
    (
        400,
        None,
        'Invalid inputs: "Location": invalid option "Mars"',
        SubmissionOutcome.REFUSED,
        "Errors and retries: fix the row",
    ),
    (400, None, "", SubmissionOutcome.REFUSED, "Unknowns 5: any other 4xx is final"),
    (409, None, "", SubmissionOutcome.REFUSED, "Unknowns 5: any other 4xx is final"),
    (413, None, "", SubmissionOutcome.REFUSED, "Unknowns 5 and 15: any other 4xx is final"),
    (415, None, "", SubmissionOutcome.REFUSED, "Unknowns 5: any other 4xx is final"),
    (418, None, "", SubmissionOutcome.REFUSED, "Unknowns 5: any other 4xx is final"),
    (422, None, "", SubmissionOutcome.REFUSED, "Unknowns 5: 422 is spoken of for invented names"),
    (
        408,
        None,
        "",
        SubmissionOutcome.UNKNOWN,
        "Errors and retries: a timeout, told by a proxy that may have handed the request on",
    ),
    (500, None, "Internal server error", SubmissionOutcome.UNKNOWN, "Errors and retries: 5xx: ambiguous for a POST"),
    (
        500,
        None,
        "INTERNAL_ERROR",
        SubmissionOutcome.UNKNOWN,
        "The runs API: retryable: true does not make a start safe to repeat",
    ),
    (
        502,
        None,
        "HTTP 502 with a web page instead of JSON",
        SubmissionOutcome.UNKNOWN,
        "Errors and retries: 5xx from a proxy: ambiguous",
    ),
    (
        503,
        None,
        "RESOURCE_UNAVAILABLE",
        SubmissionOutcome.UNKNOWN,
        "The runs API: retryable: true does not make a start safe to repeat",
    ),
    (504, None, "", SubmissionOutcome.UNKNOWN, "Errors and retries: 5xx from a proxy: ambiguous"),
    (599, None, "", SubmissionOutcome.UNKNOWN, "Errors and retries: other 5xx: ambiguous"),
    (
        400,
        None,
        "Insufficient credits",
        SubmissionOutcome.NO_CREDITS,
        "Execution states: stop the whole batch on that one",
    ),
    (
        403,
        None,
        "insufficient CREDITS for this run",
        SubmissionOutcome.NO_CREDITS,
        "Execution states: matched without regard to case",
    ),
    (402, None, "", SubmissionOutcome.NO_CREDITS, "Unknowns 12: not documented, and it can mean nothing else"),
    (
        500,
        None,
        "Insufficient credits",
        SubmissionOutcome.UNKNOWN,
        "Errors and retries: 5xx: ambiguous, whatever is said with it",
    ),
    (202, "e-1", "Insufficient credits", SubmissionOutcome.ACCEPTED, "Start execution: 202 means accepted"),
]


@pytest.mark.parametrize(("status", "execution_id", "message", "proof", "source"), ANSWERED)
@pytest.mark.parametrize("phase", [Phase.ANSWER_BEGUN, Phase.ANSWERED], ids=["body broken", "whole"])
def test_a_status_line_decides(  # a table row
    phase: Phase, status: int, execution_id: str | None, message: str, proof: SubmissionOutcome, source: str
) -> None:
    """Whether or not its body came whole: an id that was read was read, and a refusal needs no words."""
    end = StartResult(phase=phase, status=status, execution_id=execution_id, message=message)
    assert classify_submission(end) is proof, f"docs/lamina-api.md, {source}"


@given(status=st.integers(100, 599), phase=st.sampled_from(Phase), words=st.text())
def test_only_a_readable_id_is_an_acceptance(status: int, phase: Phase, words: str) -> None:
    assert classify_submission(StartResult(phase=phase, status=status, message=words)) is not SubmissionOutcome.ACCEPTED


@given(
    status=st.integers(200, 299) | st.integers(500, 599) | st.just(408) | st.integers(100, 199),
    phase=st.sampled_from(Phase),
    words=st.text() | st.just("Insufficient credits"),
)
def test_what_may_stand_for_an_execution_is_never_sent_again(status: int, phase: Phase, words: str) -> None:
    """docs/lamina-api.md, "Idempotency": never resend silently what may have started and be billed."""
    assert classify_submission(StartResult(phase=phase, status=status, message=words)) is SubmissionOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("words", "lacks"),
    [
        ("Insufficient credits", True),
        ("Error: INSUFFICIENT CREDITS. Top up", True),
        ("insufficient credit", False),
        ("", False),
        (None, False),
    ],
)
def test_want_of_credits_is_told_by_words_alone(words: str | None, lacks: bool) -> None:
    """docs/lamina-api.md, "Execution states": no code, and a message that contains them in any case."""
    assert reports_insufficient_credits(words) is lacks
