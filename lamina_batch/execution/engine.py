"""The loop that joins client, ledger, budget, polling and webhooks. It decides as little as possible.

Requests run as tasks that only talk to the network and leave behind how they ended, as callbacks do; one loop takes
what is there, writes it to the ledger in one transaction, asks budget, polling and guards what may happen next, and
makes it happen. So every change of the ledger is made in one place, many answers share one commit, and nothing is sent
before its intent is durable. A job's failure is a value; only a broken run escapes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Protocol, assert_never

from lamina_batch.client.lamina import StartResult
from lamina_batch.client.retry import backoff
from lamina_batch.errors import StateError
from lamina_batch.execution.forecast import least_seconds
from lamina_batch.execution.guards import StopReason
from lamina_batch.execution.list_polling import ListPoller
from lamina_batch.execution.submission_outcome import (
    SubmissionOutcome,
    classify_submission,
    reports_insufficient_credits,
)
from lamina_batch.ledger.job import (
    Accepted,
    Delivered,
    DeliveryOutcome,
    NotAccepted,
    Observed,
    Refused,
    State,
    Submission,
    TimedOut,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from lamina_batch.client.budget import Budget
    from lamina_batch.client.lamina import Execution, LaminaClient, ListResult, ReadResult
    from lamina_batch.execution.guards import Guards
    from lamina_batch.execution.list_polling import ListRequest
    from lamina_batch.execution.polling import ExecutionPoller
    from lamina_batch.ledger.job import Job, News
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.runtime import Runtime

#: One dropped network must not hold a hundred rows (DESIGN.md section 6).
MAX_OPEN_POSTS = 16
#: Polls may be repeated, so this bounds nothing but sockets.
MAX_OPEN_POLLS = 64
#: Progress is told this often even when nothing happens, seconds.
HEARTBEAT_SECONDS = 1.0
#: How often in a row the ledger may refuse what is known, a heartbeat apart, before the run gives up.
MAX_WRITE_ATTEMPTS = 5
#: So many submissions in a row of which nobody knows the fate, and each that follows waits for the one before.
MAX_CONSECUTIVE_UNKNOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    #: jobs this run works on
    total: int
    #: of these, how many are done with, well or badly
    ended: int
    running: int
    #: not sent yet
    waiting: int
    #: seconds that what is left takes by the budget alone
    least_left: float
    #: seconds since the service last answered, while it does not; 0: it does
    silent: float = 0.0


class Listener(Protocol):
    """Is told what happens, and changes nothing by it."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def changed(self, job: Job) -> None:
        """A job has a new state, and that is durable."""

    def on_progress(self, progress: Progress) -> None:
        """Something happened; the numbers now."""


@dataclass(slots=True)
class Control:
    """How the outside stops a running engine gently; to stop it at once, cancel its task."""

    stopped: bool = False
    #: the number of the signal that asked for it, if one did
    signal: int | None = None
    wake: Callable[[], None] | None = None

    def stop(self, signal: int | None = None) -> None:
        """Take nothing new, let the POSTs in flight land, and end."""
        self.stopped = True
        self.signal = signal
        if self.wake is not None:
            self.wake()


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a run of the engine came to."""

    #: None: it ran to its end
    stopped_by: StopReason | None = None
    #: what the service or the network said where that stopped it
    reason: str = ""
    #: executions accepted
    submitted: int = 0
    #: executions whose end was seen
    ended: int = 0


class _SubmissionQueue:
    """The submissions not taken yet, one looked ahead."""

    def __init__(self, submissions: Iterator[Submission], count: int) -> None:
        self._submissions = submissions
        self._head = next(submissions, None)
        #: what the plan counted, for progress
        self.left = count

    def __bool__(self) -> bool:
        return self._head is not None

    def take(self) -> Submission:
        head = self._head
        if head is None:
            raise IndexError
        self._head = next(self._submissions, None)
        self.left = max(0, self.left - 1)
        return head


@dataclass(slots=True, kw_only=True)
class Engine:
    """One run's execution. Everything it needs is handed in; `run` may be called once."""

    client: LaminaClient
    ledger: Ledger
    budget: Budget
    #: Sweeping where the service has a list, and nobody tells of ends
    polling: ExecutionPoller | ListPoller
    guards: Guards
    listener: Listener
    control: Control
    runtime: Runtime
    app_id: str
    #: fingerprint of the app's parameters
    contract: str
    run_id: str
    max_in_flight: int
    #: seconds
    execution_timeout: float
    #: whether to wait for executions to end
    wait: bool = True
    #: where a callback for a submission shall go; None: no callbacks are asked for
    webhook_for: Callable[[str], str] | None = None

    outcome: Outcome = field(default_factory=Outcome)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    #: requests that have ended and are not looked at yet
    _ended: list[tuple[Job, StartResult | ReadResult]] = field(default_factory=list)
    #: callbacks that wait to be told whether the ledger has them
    _callbacks: list[asyncio.Future[DeliveryOutcome]] = field(default_factory=list)
    #: what they mean for their jobs, until the ledger has it
    _news: list[tuple[int, News]] = field(default_factory=list)
    #: why the ledger does not have it yet, and how often that was tried in a row
    _unwritten: StateError | None = None
    _tries: int = 0
    #: monotonic seconds
    _tried_at: float = -inf
    _posts: int = 0
    #: polls whose end is not written down yet: a task may still stand here a moment after it left its end behind
    _polls: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    #: requests for the list that are out, and those that have ended and are not looked at yet
    _sweeps: set[asyncio.Task[None]] = field(default_factory=set)
    _swept: list[tuple[ListRequest, ListResult]] = field(default_factory=list)
    #: job id as text -> the job, while its end is awaited
    _running: dict[str, Job] = field(default_factory=dict)
    #: execution id -> job id as text, of these
    _by_execution: dict[str, str] = field(default_factory=dict)
    #: since when (monotonic seconds)
    _since: dict[str, float] = field(default_factory=dict)
    #: of these, the ones asked about only once
    _once: set[str] = field(default_factory=set)
    #: held jobs whose POST carried a webhook URL: a callback may still tell what became of it
    _hoped: dict[int, Job] = field(default_factory=dict)
    #: jobs that this run sent and of which it is not known yet whether they were accepted
    _sent: set[int] = field(default_factory=set)
    #: proved not accepted: sent again before anything new
    _again: deque[Submission] = field(default_factory=deque)
    #: after a connection that could not be made, nothing is sent until then
    _pause_until: float = 0.0
    #: submissions in a row of which nobody knows what became
    _doubts: int = 0
    #: requests in a row that were not answered, and since when (monotonic seconds)
    _unanswered: int = 0
    _silent_since: float = 0.0
    #: what the network said when it last kept an answer back
    _silence: str = ""
    #: the service refuses to answer polls: nothing more can be collected
    _deaf: bool = False
    _broken: StateError | None = None
    #: nothing is written down any more
    _over: bool = False
    _total: int = 0
    _done: int = 0

    async def run(
        self,
        submissions: Iterable[Submission],
        count: int,
        *,
        running: Iterable[Job] = (),
        ask_once: Iterable[Job] = (),
        held: Iterable[Job] = (),
    ) -> Outcome:
        """Send `submissions` (`count` of them), await their ends and those of `running`, ask once about `ask_once`.

        Of `held`, those that a callback may still settle are waited for.

        When cancelled, jobs whose POST was open stay `submitting` in the ledger, to be held. Raises StateError where
        the ledger cannot be written: from then on nothing is sent.
        """
        self.control.wake = self._wake.set
        waiting = _SubmissionQueue(iter(submissions), count)
        for job in running:
            self._watch(job)
        for job in ask_once:
            self._watch(job)
            self._once.add(str(job.id))
        for job in held:
            self._hope(job)
        self._total = count + len(self._running) + len(self._hoped)
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._loop(tasks, waiting)
                for read in (*self._polls.values(), *self._sweeps):
                    read.cancel()
        finally:
            # However this ends, an answer that is here is not thrown away.
            self._write_down()
            self._over = True
        if self._unwritten is not None:
            raise self._unwritten
        if self._broken is not None:
            raise self._broken
        return self.outcome

    async def _loop(self, tasks: asyncio.TaskGroup, waiting: _SubmissionQueue) -> None:
        while True:
            self._wake.clear()
            self._write_down()
            now = self.runtime.now()
            self._judge(now, waiting)
            if self._finished(waiting):
                return
            room = self.budget.available(now)
            room -= self._poll(tasks, now, room, waiting)
            room -= self._sweep(tasks, now, room, waiting)
            room -= self._submit(tasks, now, room, waiting)
            self.listener.on_progress(self._progress(waiting))
            await self._rest(self._next_look(now, room, waiting))

    # -- what may happen next ------------------------------------------------------------------------------

    def _judge(self, now: float, waiting: _SubmissionQueue) -> None:
        """Settle whether the run goes on as it is."""
        if self.outcome.stopped_by is None:
            if self.control.stopped:
                self.outcome.stopped_by = StopReason.SIGNAL
            elif self.guards.stop is not None and (self._again or waiting):
                self.outcome.stopped_by = self.guards.stop
        elif self.control.stopped:
            self.outcome.stopped_by = StopReason.SIGNAL
        if self._unanswered and now - self._silent_since > self.execution_timeout:
            self._stop(StopReason.UNREACHABLE, self._silence)
            self._deaf = True
        for job in [job for job in self._hoped.values() if self._late(job)]:
            del self._hoped[job.id]
            self._end(job, completed=False, failed=False)

    def _stop(self, why: StopReason, reason: str) -> None:
        if self.outcome.stopped_by is None:
            self.outcome.stopped_by = why
            self.outcome.reason = reason

    def _submitting(self) -> bool:
        return self.outcome.stopped_by is None and self._broken is None and self._unwritten is None

    def _listening(self) -> bool:
        broken = self._broken is not None or self._unwritten is not None
        return self.wait and not self._deaf and not self.control.stopped and not broken

    def _finished(self, waiting: _SubmissionQueue) -> bool:
        if self._posts or self._ended:
            return False
        if self._unwritten is not None:
            return self._tries >= MAX_WRITE_ATTEMPTS
        if self._submitting() and (self._again or waiting):
            return False
        return not (self._listening() and (self._running or self._polls or self._hoped))

    def _poll(self, tasks: asyncio.TaskGroup, now: float, room: int, waiting: _SubmissionQueue) -> int:
        if not self._listening():
            return 0
        most = min(room, MAX_OPEN_POLLS - len(self._polls))
        if most <= 0:
            return 0
        due = self.polling.due(now, most, room=room, waiting=self._startable(waiting))
        for name in due:
            self._polls[name] = tasks.create_task(self._ask(self._running[name]))
        return len(due)

    def _sweep(self, tasks: asyncio.TaskGroup, now: float, room: int, waiting: _SubmissionQueue) -> int:
        """Ask the list about many at once, where there is one."""
        count = 0
        if isinstance(self.polling, ListPoller) and self._listening():
            while room > count:
                sweep = self.polling.sweep_due(now, room - count, waiting=self._startable(waiting))
                if sweep is None:
                    break
                task = tasks.create_task(self._list(sweep))
                self._sweeps.add(task)
                task.add_done_callback(self._sweeps.discard)
                count += 1
        return count

    def _startable(self, waiting: _SubmissionQueue) -> int:
        """Submissions that only want requests: those that wait for a slot do not count."""
        if not self._submitting():
            return 0
        return max(0, min(waiting.left + len(self._again), self.max_in_flight - self._in_flight()))

    def _in_flight(self) -> int:
        return self._posts + (len(self._running) - len(self._once) if self.wait else 0)

    def _submit(self, tasks: asyncio.TaskGroup, now: float, room: int, waiting: _SubmissionQueue) -> int:
        """Send as many as may go now, after the intent of all of them is on the disk."""
        if not self._submitting() or now < self._pause_until:
            return 0
        if isinstance(self.polling, ListPoller):
            room -= self.polling.reserved(now)
        most = min(room, MAX_OPEN_POSTS - self._posts, self.max_in_flight - self._in_flight())
        if self._doubts >= MAX_CONSECUTIVE_UNKNOWN:
            most = min(most, 1 - self._posts)
        guarded = self.guards.room()
        most = most if guarded is None else min(most, guarded)
        batch: list[Submission] = []
        while len(batch) < most and (self._again or waiting):
            batch.append(self._again.popleft() if self._again else waiting.take())
        if not batch:
            return 0
        try:
            jobs = self.ledger.begin(
                batch,
                app_id=self.app_id,
                contract=self.contract,
                at=self.runtime.wall(),
                run_id=self.run_id,
                by_webhook=self.webhook_for is not None,
            )
        except StateError as error:
            # What is in flight may still land, and may still be written once the disk has room again.
            self._broken = error
            return 0
        for job in jobs:
            self.guards.began(job.id)
            self._sent.add(job.id)
            self._posts += 1
            tasks.create_task(self._send(job))
        return len(jobs)

    def _next_look(self, now: float, room: int, waiting: _SubmissionQueue) -> float | None:
        """Seconds until something may be done that cannot be done now; None: only an answer changes anything."""
        moments: list[float | None] = []
        wants_room = bool(self._again or waiting) and self._submitting()
        if self._listening() and room > 0 and len(self._polls) < MAX_OPEN_POLLS:
            moments.append(self.polling.next_due(now))
        if wants_room or self._running:
            # More requests may also be a reason to ask earlier.
            moments.append(self.budget.next_change(now))
        if wants_room and self._pause_until > now:
            moments.append(self._pause_until)
        known = [moment for moment in moments if moment is not None]
        return max(0.0, min(known) - now) if known else None

    async def _rest(self, delay: float | None) -> None:
        """Wait until an answer is there, somebody stops us, `delay` seconds are over, or a heartbeat is due."""
        pause = HEARTBEAT_SECONDS if delay is None else min(delay, HEARTBEAT_SECONDS)
        waits = [
            asyncio.ensure_future(_wait_for(self._wake.wait())),
            asyncio.ensure_future(_wait_for(self.runtime.sleep(pause))),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _progress(self, waiting: _SubmissionQueue) -> Progress:
        left = waiting.left + len(self._again)
        return Progress(
            total=self._total,
            ended=self._done,
            running=len(self._running) + len(self._hoped) + self._posts,
            waiting=left,
            least_left=least_seconds(
                left, limit=self.budget.limit, window=self.budget.window, reads=len(self._running)
            ),
            silent=self.runtime.now() - self._silent_since if self._unanswered else 0.0,
        )

    # -- the requests --------------------------------------------------------------------------------------

    async def _send(self, job: Job) -> None:
        submission = job.submission or ""
        webhook = None if self.webhook_for is None else self.webhook_for(submission)
        end = await self.client.start(self.app_id, job.inputs, submission=submission, webhook=webhook)
        self._posts -= 1
        self._ended.append((job, end))
        self._wake.set()

    async def _ask(self, job: Job) -> None:
        end = await self.client.get_execution(job.execution_id or "", generation=job.generation)
        self._ended.append((job, end))
        self._wake.set()

    async def _list(self, sweep: ListRequest) -> None:
        end = await self.client.list_runs(app_id=self.app_id, limit=sweep.limit, offset=sweep.offset)
        self._swept.append((sweep, end))
        self._wake.set()

    # -- the callbacks -------------------------------------------------------------------------------------

    def knows(self, submission: str) -> bool:
        """Whether a job was ever sent under this name."""
        return self.ledger.of_submission(submission) is not None

    async def deliver(self, submission: str, execution: Execution) -> DeliveryOutcome:
        """Take a verified callback; the answer comes when the ledger has it, or when that cannot be."""
        job = self.ledger.of_submission(submission)
        if job is None:
            return DeliveryOutcome.UNKNOWN
        if self._over:
            return DeliveryOutcome.UNCOMMITTED
        taken: asyncio.Future[DeliveryOutcome] = asyncio.get_running_loop().create_future()
        self._unanswered = 0
        self._callbacks.append(taken)
        self._news.append((job.id, Delivered(execution=execution, submission=submission, at=self.runtime.wall())))
        self._wake.set()
        return await taken

    # -- what has happened ---------------------------------------------------------------------------------

    def _write_down(self) -> None:
        """Put all that has ended into the ledger, in one transaction, and act on what that changed.

        A ledger that cannot be written for the moment (a full disk, a lock) costs no answer: they are kept, nothing
        new is sent, and the next look tries again.
        """
        ended, self._ended = self._ended, []
        for job, end in ended:
            item = self._post_ended(end) if isinstance(end, StartResult) else self._poll_ended(job, end)
            if item is not None:
                self._news.append((job.id, item))
        swept, self._swept = self._swept, []
        for sweep, page in swept:
            self._sweep_ended(sweep, page)
        if not self._news:
            return
        try:
            changed = self.ledger.record(self._news, at=self.runtime.wall(), run_id=self.run_id)
        except StateError as error:
            self._unwritten = error
            if self.runtime.now() - self._tried_at >= HEARTBEAT_SECONDS:
                self._tries, self._tried_at = self._tries + 1, self.runtime.now()
            self._answer_callbacks(DeliveryOutcome.UNCOMMITTED)
            return
        told = {job_id for job_id, item in self._news if isinstance(item, Delivered)}
        self._news, self._unwritten, self._tries = [], None, 0
        self._answer_callbacks(DeliveryOutcome.COMMITTED)
        for job in changed:
            self._changed(job, told=job.id in told)
            self.listener.changed(job)

    def _answer_callbacks(self, taken: DeliveryOutcome) -> None:
        for callback in self._callbacks:
            if not callback.done():
                callback.set_result(taken)
        self._callbacks.clear()

    def _post_ended(self, end: StartResult) -> News:
        self._heard(end.status, end.message)
        proof = classify_submission(end)
        self._doubts = self._doubts + 1 if proof is SubmissionOutcome.UNKNOWN else 0
        if proof is SubmissionOutcome.NOT_ACCEPTED and end.status is None:
            self._pause_until = self.runtime.now() + backoff(self._unanswered, self.runtime.random)
        elif self._doubts >= MAX_CONSECUTIVE_UNKNOWN:
            self._pause_until = self.runtime.now() + backoff(
                self._doubts - MAX_CONSECUTIVE_UNKNOWN + 1, self.runtime.random, base=5.0, cap=60.0
            )
        match proof:
            case SubmissionOutcome.ACCEPTED:
                return Accepted(execution_id=end.execution_id or "", generation=self.client.generation.name)
            case SubmissionOutcome.UNKNOWN:
                return Unknown(code="unknown", message=f"it is not known whether this was bought: {end.message}")
            case SubmissionOutcome.REFUSED:
                return Refused(code=(end.code or f"http_{end.status}").lower(), message=end.message)
            case SubmissionOutcome.NOT_ACCEPTED:
                return NotAccepted(code="not_accepted", message=end.message)
            case SubmissionOutcome.NO_CREDITS:
                self._stop(StopReason.CREDITS, end.message)
                return NotAccepted(code="credits", message=end.message)
            case SubmissionOutcome.STOP:
                self._stop(StopReason.REFUSED, f"HTTP {end.status} to a submission: {end.message}")
                return NotAccepted(code=f"http_{end.status}", message=end.message)
            case _:
                assert_never(proof)

    def _poll_ended(self, job: Job, end: ReadResult) -> News | None:
        name = str(job.id)
        self._polls.pop(name, None)
        self._heard(end.status, end.message)
        if end.execution is not None and end.execution.ended:
            return Observed(execution=end.execution, at=self.runtime.wall())
        self._refused(end)
        if name in self._once:
            self._unwatch(job)
            return None
        if self._late(job) and self._is_told(end, name):
            said = f"status {end.execution.status!r}" if end.execution is not None else end.message
            return TimedOut(message=f"no end within {self.execution_timeout:g} s; the service last said: {said}")
        if end.execution is not None:
            self.polling.asked(name, self.runtime.now())
        else:
            self.polling.failed(name, self.runtime.now())
        return None

    def _sweep_ended(self, sweep: ListRequest, end: ListResult) -> None:
        if not isinstance(self.polling, ListPoller):
            return
        self._heard(end.status, end.message)
        self._refused(end)
        if end.status != 200:
            self.polling.sweep_failed(sweep, self.runtime.now())
            return
        listed = [(self._by_execution.get(item.execution_id), item.ended) for item in end.items]
        seen = {name: ended for name, ended in listed if name is not None}
        self.polling.swept(sweep, self.runtime.now(), seen)
        for name in [name for name in self._once if seen.get(name) is False]:
            self._unwatch(self._running[name])

    def _refused(self, end: ReadResult | ListResult) -> None:
        """The service refuses the key or the address: nothing more can be collected."""
        if end.status in {401, 403} or (end.status is not None and 300 <= end.status < 400):
            self._stop(StopReason.REFUSED, f"HTTP {end.status} to a poll: {end.message}")
            self._deaf = True

    def _heard(self, status: int | None, message: str) -> None:
        """Keep track of whether the service answers at all."""
        if status is not None:
            self._unanswered = 0
            return
        if not self._unanswered:
            self._silent_since = self.runtime.now()
        self._unanswered += 1
        if self._unanswered == 1:
            self.listener.note(f"no answer from the service ({message})")
        self._silence = message

    def _is_told(self, end: ReadResult, name: str) -> bool:
        """Whether this poll says something of the execution; what only the way there says is asked again."""
        waited = self.runtime.now() - self._since.get(name, self.runtime.now())
        return end.execution is not None or end.status == 404 or waited >= self.execution_timeout

    def _late(self, job: Job) -> bool:
        return job.submitted_at is not None and self.runtime.wall() - job.submitted_at >= self.execution_timeout

    def _changed(self, job: Job, *, told: bool) -> None:
        if job.execution_id is not None and job.id in self._sent:
            self._sent.discard(job.id)
            self.outcome.submitted += 1
        match job.state:
            case State.RUNNING:
                self._watch(job)
            case State.PLANNED:
                if self.outcome.stopped_by is None:
                    self._again.append(
                        Submission(
                            key=job.key,
                            variant=job.variant,
                            content=job.content,
                            inputs=job.inputs,
                            job_id=job.id,
                        )
                    )
            case State.COMPLETED:
                self.outcome.ended += 1
                self._end(job, completed=job.failed_outputs == 0, failed=False, told=told)
            case State.FAILED:
                self.outcome.ended += 1
                if reports_insufficient_credits(job.message):
                    self._stop(StopReason.CREDITS, job.message or "")
                self._end(job, completed=False, failed=True, told=told)
            case State.TIMED_OUT | State.REJECTED:
                self._end(job, completed=False, failed=True)
            case State.HELD:
                if not self._hope(job):
                    self._end(job, completed=False, failed=False)
            case State.SUBMITTING:
                pass
            case _:
                assert_never(job.state)

    def _end(self, job: Job, *, completed: bool, failed: bool, told: bool = False) -> None:
        self._unwatch(job, told=told)
        self.guards.ended(job.id, completed=completed, failed=failed)

    def _hope(self, job: Job) -> bool:
        """Wait for a callback of a held job, if one may come."""
        may_come = self.wait and self.webhook_for is not None and job.by_webhook and not self._late(job)
        if may_come:
            self._hoped[job.id] = job
        return may_come

    def _watch(self, job: Job) -> None:
        self._running[str(job.id)] = job
        self._by_execution[job.execution_id or ""] = str(job.id)
        self._since[str(job.id)] = self.runtime.now()
        age = max(0.0, self.runtime.wall() - job.submitted_at) if job.submitted_at is not None else 0.0
        self.polling.start(str(job.id), self.runtime.now(), age=age)

    def _unwatch(self, job: Job, *, told: bool = False) -> None:
        name = str(job.id)
        self._done += 1
        self._hoped.pop(job.id, None)
        if self._running.pop(name, None) is not None:
            self._once.discard(name)
            self._since.pop(name, None)
            self._by_execution.pop(job.execution_id or "", None)
        if self.wait:
            self.polling.ended(name, job.seconds if job.state is State.COMPLETED else None, told=told)


async def _wait_for(what: Awaitable[object]) -> object:
    return await what
