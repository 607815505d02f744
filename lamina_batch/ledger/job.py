"""A job: one row and one variant on its way to an execution. Its states, and what each piece of news makes of it.

Everything here is pure. News may come in any order, twice or never, from the POST, a poll, a webhook, a restart or the
user; `advance` is the one place that says what it changes, and the ledger writes down what it answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, assert_never

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.client.lamina import Execution, Output


class State(StrEnum):
    """The state of a job (docs/ledger.md, "States")."""

    PLANNED = "planned"
    SUBMITTING = "submitting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    HELD = "held"


#: code of a held job that the user gave up
GIVEN_UP = "given_up"

#: docs/ledger.md, "States". A job in a state that is not a key's value can never get there; the ledger checks the same.
#: A signed callback is the service's own word that it took the submission, so it ends a job in any state.
LEGAL_TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.PLANNED: frozenset({State.SUBMITTING, State.COMPLETED, State.FAILED}),
        State.SUBMITTING: frozenset(
            {State.RUNNING, State.REJECTED, State.HELD, State.PLANNED, State.COMPLETED, State.FAILED}
        ),
        State.RUNNING: frozenset({State.COMPLETED, State.FAILED, State.TIMED_OUT}),
        State.HELD: frozenset({State.RUNNING, State.PLANNED, State.COMPLETED, State.FAILED}),
        State.TIMED_OUT: frozenset({State.COMPLETED, State.FAILED, State.PLANNED}),
        State.FAILED: frozenset({State.PLANNED, State.COMPLETED, State.FAILED}),
        State.REJECTED: frozenset({State.PLANNED, State.COMPLETED, State.FAILED}),
        State.COMPLETED: frozenset(),
    }
)


class IllegalTransitionError(Exception):
    """A bug: a change of state that docs/ledger.md, "States", does not list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A job to send: what the plan hands to the engine."""

    key: str
    variant: str
    #: SHA-256 that says what is bought (catalog/content.py)
    content: str
    #: canonical JSON of the inputs object, sent unchanged
    inputs: str
    #: the ledger's job to send again; None: a new revision
    job_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One key, variant and revision, as the ledger holds it."""

    id: int
    key: str
    variant: str
    #: counts the contents and reruns of this key and variant, from 1
    revision: int
    content: str
    inputs: str
    state: State
    app_id: str
    #: fingerprint of the app's parameters when it was last sent
    contract: str
    #: which API generation made the execution
    generation: str | None = None
    execution_id: str | None = None
    #: names the last submission: sent as Idempotency-Key, and the unguessable token of its webhook URL
    submission: str | None = None
    #: whether the last submission carried a webhook URL, so that news of it may come unasked
    by_webhook: bool = False
    #: how often a POST left
    attempts: int = 0
    #: epoch seconds
    submitted_at: float | None = None
    #: epoch seconds
    completed_at: float | None = None
    #: by the service's clock if it says so, else by this computer's
    seconds: float | None = None
    #: outputs of a completed execution that did not complete
    failed_outputs: int = 0
    code: str | None = None
    message: str | None = None

    @property
    def name(self) -> str:
        """How people name it: the key, or key/variant."""
        return f"{self.key}/{self.variant}" if self.variant else self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The service answered the POST with an id, or the user adopted one."""

    execution_id: str
    generation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAccepted:
    """It is certain that no execution was started."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The service read the inputs and refused them."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """It cannot be known whether an execution was started."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the service says of the execution, at `at` (epoch seconds)."""

    execution: Execution
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A verified callback: what the service says of the execution that `submission` started."""

    execution: Execution
    submission: str
    at: float


class DeliveryOutcome(Enum):
    """What became of an execution that a callback handed over."""

    #: it is in the ledger for good, now or since an earlier delivery
    COMMITTED = "committed"
    #: it is not the execution of the job with that token
    UNKNOWN = "unknown"
    #: the ledger could not take it
    UNCOMMITTED = "uncommitted"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """It did not end within `execution_timeout`."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResubmissionRequested:
    """The user, or a changed schema, wants it sent once more."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """The user does not wait for news of a held job any longer, and does not want it sent again."""


News = Accepted | NotAccepted | Refused | Unknown | Observed | Delivered | TimedOut | ResubmissionRequested | GivenUp


def names_execution(news: News) -> str | None:
    """The id of the execution that the news is about, where it names one: paid for, so never to be forgotten."""
    match news:
        case Accepted():
            return news.execution_id
        case Observed() | Delivered():
            return news.execution.execution_id
        case _:
            return None


def advance(job: Job, news: News) -> Job | None:
    """What `news` makes of `job`; None if it changes nothing (it is old, or told twice)."""
    match news:
        case Accepted():
            if job.state in {State.SUBMITTING, State.HELD}:
                return replace(
                    job,
                    state=State.RUNNING,
                    execution_id=news.execution_id,
                    generation=news.generation,
                    code=None,
                    message=None,
                )
            return None
        case NotAccepted():
            return _leave_submitting(job, {State.SUBMITTING}, State.PLANNED, news.code, news.message)
        case Refused():
            return _leave_submitting(job, {State.SUBMITTING}, State.REJECTED, news.code, news.message)
        case Unknown():
            return _leave_submitting(job, {State.SUBMITTING}, State.HELD, news.code, news.message)
        case TimedOut():
            return _leave_submitting(job, {State.RUNNING}, State.TIMED_OUT, "timed_out", news.message)
        case ResubmissionRequested():
            if job.state not in {State.FAILED, State.REJECTED, State.TIMED_OUT, State.HELD}:
                return None
            return replace(
                job,
                state=State.PLANNED,
                execution_id=None,
                generation=None,
                completed_at=None,
                seconds=None,
                failed_outputs=0,
                code=None,
                message=None,
            )
        case Observed():
            waits = job.state in {State.SUBMITTING, State.HELD, State.RUNNING, State.TIMED_OUT}
            return _end(job, news.execution, news.at) if waits else None
        case Delivered():
            return _end(job, news.execution, news.at) if _awaits_delivery(job, news) else None
        case GivenUp():
            message = "given up: it is not known whether this was bought"
            return _leave_submitting(job, {State.HELD}, State.FAILED, GIVEN_UP, message)
        case _:
            assert_never(news)


def _leave_submitting(job: Job, states: set[State], to: State, code: str, message: str) -> Job | None:
    return replace(job, state=to, code=code, message=message) if job.state in states else None


def _awaits_delivery(job: Job, news: Delivered) -> bool:
    """Whether the callback is of the job's own last submission, and its end is not known yet."""
    if news.submission != job.submission:
        return False
    if job.execution_id is None:
        return True
    unfinished = job.state in {State.RUNNING, State.TIMED_OUT}
    return unfinished and job.execution_id == news.execution.execution_id


def _end(job: Job, execution: Execution, at: float) -> Job | None:
    if not execution.ended:
        return None
    completed_at = execution.completed_at if execution.completed_at is not None else at
    began = execution.created_at if execution.created_at is not None else job.submitted_at
    ended = replace(
        job,
        execution_id=execution.execution_id,
        completed_at=completed_at,
        seconds=max(0.0, completed_at - began) if began is not None else None,
        code=None,
        message=None,
    )
    if execution.status != "completed":
        code = "cancelled" if execution.status == "cancelled" else "failed"
        message = execution.error_message or _first_error(execution.outputs) or "the service gave no reason"
        return replace(ended, state=State.FAILED, code=code, message=message)
    failed = tuple(output for output in execution.outputs if not output.usable)
    if len(failed) == len(execution.outputs):
        message = _first_error(failed) or execution.error_message or "it completed without any output"
        return replace(ended, state=State.FAILED, code="no_output", message=message)
    if failed:
        labels = ", ".join(output.label for output in failed)
        message = f"{len(failed)} of {len(execution.outputs)} outputs failed: {labels}"
        reason = _first_error(failed)
        return replace(
            ended,
            state=State.COMPLETED,
            failed_outputs=len(failed),
            code="partial",
            message=f"{message} ({reason})" if reason else message,
        )
    return replace(ended, state=State.COMPLETED)


def _first_error(outputs: tuple[Output, ...]) -> str | None:
    return next((output.error for output in outputs if output.error), None)
