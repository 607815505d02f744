"""The jobs in flight: submissions that wait, executions that run, and held jobs that a callback may still settle."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamina_batch.ledger.job import State, Submission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina_batch.execution.pacer import Pacer
    from lamina_batch.ledger.job import Job
    from lamina_batch.runtime import Runtime


class SubmissionQueue:
    """The submissions not sent yet. Those that were not accepted go first again."""

    def __init__(self, submissions: Iterator[Submission], count: int) -> None:
        self._submissions = submissions
        self._head = next(submissions, None)
        self._retries: deque[Submission] = deque()
        #: never sent yet, as the plan counted them
        self._new = count

    def __bool__(self) -> bool:
        return bool(self._retries) or self._head is not None

    def __len__(self) -> int:
        return self._new + len(self._retries)

    def take(self) -> Submission:
        """The next one. Raises IndexError if there is none."""
        if self._retries:
            return self._retries.popleft()
        head = self._head
        if head is None:
            raise IndexError
        self._head = next(self._submissions, None)
        self._new = max(0, self._new - 1)
        return head

    def retry(self, job: Job) -> None:
        """Send a job again whose submission was proved not to be accepted."""
        self._retries.append(
            Submission(key=job.key, variant=job.variant, content=job.content, inputs=job.inputs, job_id=job.id)
        )


@dataclass(slots=True, kw_only=True)
class Tracker:
    """Knows each job whose end this run awaits, and tells the pacer."""

    pacer: Pacer
    runtime: Runtime
    #: seconds
    execution_timeout: float
    #: whether the run waits for ends at all
    wait: bool
    #: job id as text -> the job whose execution is awaited
    running: dict[str, Job] = field(default_factory=dict)
    #: job id -> a held job that a callback may still settle
    awaiting_callback: dict[int, Job] = field(default_factory=dict)
    #: jobs that this run sent and whose acceptance is not known yet
    sent: set[int] = field(default_factory=set)
    #: jobs that are done with, well or badly
    done: int = 0
    #: execution id -> job id as text
    _by_execution: dict[str, str] = field(default_factory=dict)
    #: job id as text -> since when it is awaited (monotonic seconds)
    _since: dict[str, float] = field(default_factory=dict)
    #: of the running ones, those that are asked about only once
    _ask_once: set[str] = field(default_factory=set)

    def watch(self, job: Job, *, once: bool = False) -> None:
        """Await the end of a job's execution. `once`: ask about it a single time."""
        name, now = str(job.id), self.runtime.now()
        self.running[name] = job
        self._by_execution[job.execution_id or ""] = name
        self._since[name] = now
        if once:
            self._ask_once.add(name)
        age = max(0.0, self.runtime.wall() - job.submitted_at) if job.submitted_at is not None else 0.0
        self.pacer.start(name, now, age=age)

    def unwatch(self, job: Job, *, by_callback: bool = False) -> None:
        """The job is done with."""
        name = str(job.id)
        self.done += 1
        self.awaiting_callback.pop(job.id, None)
        if self.running.pop(name, None) is not None:
            self._ask_once.discard(name)
            self._since.pop(name, None)
            self._by_execution.pop(job.execution_id or "", None)
        if self.wait:
            duration = job.seconds if job.state is State.COMPLETED else None
            self.pacer.ended(name, duration, by_callback=by_callback)

    def await_callback(self, job: Job) -> bool:
        """Wait for a callback of a held job if one may still come; whether it does."""
        may_come = self.wait and job.by_webhook and not self.is_overdue(job)
        if may_come:
            self.awaiting_callback[job.id] = job
        return may_come

    def is_overdue(self, job: Job) -> bool:
        """Whether the job was submitted longer than `execution_timeout` ago."""
        return job.submitted_at is not None and self.runtime.wall() - job.submitted_at >= self.execution_timeout

    def overdue_callbacks(self) -> list[Job]:
        """The held jobs for which no callback is awaited any longer."""
        return [job for job in self.awaiting_callback.values() if self.is_overdue(job)]

    def waited(self, name: str) -> float:
        """For how many seconds this run has awaited the execution."""
        now = self.runtime.now()
        return now - self._since.get(name, now)

    def is_asked_once(self, name: str) -> bool:
        """Whether the job is asked about a single time."""
        return name in self._ask_once

    def ended_on_page(self, executions: list[tuple[str, bool]]) -> dict[str, bool]:
        """Of (execution id, ended) pairs, those of awaited jobs by their names."""
        named = [(self._by_execution.get(execution), ended) for execution, ended in executions]
        return {name: ended for name, ended in named if name is not None}

    def slots_used(self) -> int:
        """Executions that count against `max_in_flight`."""
        return len(self.running) - len(self._ask_once) if self.wait else 0
