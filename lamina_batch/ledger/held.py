"""The user's decisions about held jobs: only a person can know whether they were bought. Changes the ledger only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamina_batch.errors import UsageError, did_you_mean
from lamina_batch.ledger.job import Accepted, GivenUp, ResubmissionRequested, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.client.answers import ListedExecution
    from lamina_batch.ledger.job import Job, News
    from lamina_batch.ledger.ledger import Ledger

#: Our clock and the service's may differ by so much, seconds.
_CLOCK_TOLERANCE_SECONDS = 60.0
#: Stands for every held job, where names are given.
ALL = "--all"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldDecisions:
    """What the user says of held jobs, each named by its key or key/variant."""

    #: name -> the id of the execution that it turned out to be
    adopt: Mapping[str, str] = field(default_factory=dict)
    #: consent to pay for these once more; may hold ALL
    resubmit: tuple[str, ...] = ()
    #: these are failed; may hold ALL
    give_up: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.adopt or self.resubmit or self.give_up)


def apply_decisions(ledger: Ledger, words: HeldDecisions, *, generation: str, at: float, run_id: str) -> list[Job]:
    """Write down what the user says, all of it or nothing. Returns the jobs as they are then.

    `generation` is that of the service which made the adopted executions. Raises UsageError for a name that no held
    job has or that is given twice, and for an execution that belongs to a job already.
    """
    held = ledger.jobs(State.HELD)
    news: list[tuple[int, News]] = []
    for name, execution_id in words.adopt.items():
        job = _find_job(held, name)
        owner = ledger.of_execution(execution_id)
        if owner is not None:
            raise UsageError(f"execution {execution_id} is that of {owner.name!r} already")
        news.append((job.id, Accepted(execution_id=execution_id, generation=generation)))
    if len(set(words.adopt.values())) < len(words.adopt):
        raise UsageError("one execution cannot be adopted for two rows", hint="give each row its own")
    news += [(job.id, ResubmissionRequested(reason="resubmitted")) for job in _find_jobs(held, words.resubmit)]
    news += [(job.id, GivenUp()) for job in _find_jobs(held, words.give_up)]
    twice = {job_id for job_id, _ in news if [n for n, _ in news].count(job_id) > 1}
    for job in held:
        if job.id in twice:
            raise UsageError(f"{job.name!r} is named twice", hint="adopt it, resubmit it, or give it up")
    return ledger.record(news, at=at, run_id=run_id)


def find_candidates(job: Job, listed: Sequence[ListedExecution], request_timeout: float) -> tuple[ListedExecution, ...]:
    """Which of the executions that the service lists, and this ledger does not know, the held job may be.

    They were created about when its POST was open. Which one it is cannot be told from the list (docs/lamina-api.md,
    "List of runs": its items lack the inputs), so none is ever adopted without the user's word.
    """
    sent = job.submitted_at or 0.0
    since, until = sent - _CLOCK_TOLERANCE_SECONDS, sent + request_timeout + _CLOCK_TOLERANCE_SECONDS
    return tuple(item for item in listed if item.created_at is None or since <= item.created_at <= until)


def _find_jobs(held: Sequence[Job], names: Sequence[str]) -> list[Job]:
    if ALL in names:
        return list(held)
    found: dict[int, Job] = {}
    for name in names:
        matching = [job for job in held if name in {job.name, job.key}]
        if not matching:
            raise _unknown_name_error(held, name)
        found |= {job.id: job for job in matching}
    return list(found.values())


def _find_job(held: Sequence[Job], name: str) -> Job:
    matching = [job for job in held if job.name == name] or [job for job in held if job.key == name]
    if not matching:
        raise _unknown_name_error(held, name)
    if len(matching) > 1:
        raise UsageError(
            f"{len(matching)} held jobs have the key {name!r}",
            hint=f"name one of them: {', '.join(job.name for job in matching)}",
        )
    return matching[0]


def _unknown_name_error(held: Sequence[Job], name: str) -> UsageError:
    names = {job.name for job in held}
    return UsageError(
        f"no held job is called {name!r}",
        hint=did_you_mean(name, names) or f"held: {', '.join(sorted(names)) or 'none'}",
    )
