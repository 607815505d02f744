"""The loop that joins client, ledger, budget, polling and webhooks. It decides as little as possible.

Requests run as tasks that only talk to the network and leave behind how they ended, as callbacks do; one loop takes
what is there, writes it to the ledger in one transaction, asks budget, polling and guards what may happen next, and
makes it happen. So every change of the ledger is made in one place, many answers share one commit, and nothing is sent
before its intent is durable. A job's failure is a value; only a broken run escapes.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, assert_never

from lamina_batch.client.lamina import StartResult
from lamina_batch.client.retry import backoff
from lamina_batch.errors import StateError
from lamina_batch.execution.forecast import least_seconds
from lamina_batch.execution.guards import StopReason
from lamina_batch.execution.news_writer import NewsWriter
from lamina_batch.execution.pacer import ListRequest, PollRequest, Room
from lamina_batch.execution.submission_outcome import (
    SubmissionOutcome,
    classify_submission,
    reports_insufficient_credits,
)
from lamina_batch.execution.tracker import SubmissionQueue, Tracker
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
    from collections.abc import Awaitable, Callable, Iterable

    from lamina_batch.client.budget import Budget
    from lamina_batch.client.lamina import Execution, LaminaClient, ListResult, ReadResult
    from lamina_batch.execution.guards import Guards
    from lamina_batch.execution.pacer import Pacer
    from lamina_batch.ledger.job import Job, News
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.runtime import Runtime

#: One dropped network must not hold a hundred rows (docs/ledger.md, "Submissions").
MAX_OPEN_POSTS = 16
#: Polls may be repeated, so this bounds nothing but sockets.
MAX_OPEN_POLLS = 64
#: Seconds between progress reports while nothing happens.
HEARTBEAT_SECONDS = 1.0
#: After this many submissions in a row with an unknown fate, each one waits for the one before.
MAX_CONSECUTIVE_UNKNOWN = 8
#: After this many nothing more is submitted: a gateway that answers for the service would have all rows held.
STOP_AFTER_UNKNOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is."""

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


@dataclass(slots=True)
class _Contact:
    """Whether the service answers at all."""

    #: requests in a row that were not answered
    unanswered: int = 0
    #: since when (monotonic seconds)
    silent_since: float = 0.0
    #: what the network said about the last of them
    reason: str = ""

    def record(self, status: int | None, message: str, now: float) -> bool:
        """Note the end of a request. Whether it is the first in a row without an answer."""
        if status is not None:
            self.unanswered = 0
            return False
        if not self.unanswered:
            self.silent_since = now
        self.unanswered += 1
        self.reason = message
        return self.unanswered == 1

    def silent_for(self, now: float) -> float:
        """Seconds since the service last answered; 0 while it does."""
        return now - self.silent_since if self.unanswered else 0.0


@dataclass(slots=True, kw_only=True)
class Engine:
    """One run's execution. Everything it needs is handed in; `run` may be called once."""

    client: LaminaClient
    ledger: Ledger
    budget: Budget
    pacer: Pacer
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
    #: token of a submission -> the address for its callback; None: no callbacks are asked for
    webhook_for: Callable[[str], str] | None = None

    outcome: Outcome = field(default_factory=Outcome)
    _tracker: Tracker = field(init=False)
    _writer: NewsWriter = field(init=False)
    _contact: _Contact = field(default_factory=_Contact)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    #: requests that have ended and are not looked at yet
    _ended: list[tuple[Job, StartResult | ReadResult]] = field(default_factory=list)
    _pages: list[tuple[ListRequest, ListResult]] = field(default_factory=list)
    #: POSTs that are open
    _posts: int = 0
    #: job id as text -> its poll, until the end of the poll is looked at
    _polls: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    #: requests for the list that are out
    _list_tasks: set[asyncio.Task[None]] = field(default_factory=set)
    #: after a connection that could not be made, nothing is sent until then (monotonic seconds)
    _pause_until: float = 0.0
    #: submissions in a row whose fate is not known
    _consecutive_unknown: int = 0
    #: the service refuses to answer polls, so nothing more can be collected
    _polling_disabled: bool = False
    #: the ledger refused to take the intent of submissions
    _intent_error: StateError | None = None
    _total: int = 0

    def __post_init__(self) -> None:
        self._tracker = Tracker(
            pacer=self.pacer, runtime=self.runtime, execution_timeout=self.execution_timeout, wait=self.wait
        )
        self._writer = NewsWriter(ledger=self.ledger, runtime=self.runtime, run_id=self.run_id)

    async def run(
        self,
        submissions: Iterable[Submission],
        count: int,
        *,
        running: Iterable[Job] = (),
        ask_once: Iterable[Job] = (),
        held: Iterable[Job] = (),
    ) -> Outcome:
        """Send `submissions` (`count` of them), await their ends and those of `running`, poll `ask_once` one time.

        `held` jobs are awaited as long as a callback may settle them.

        When cancelled, jobs whose POST was open stay `submitting` in the ledger, to be held. Raises StateError if the
        ledger cannot be written; from then on nothing is sent.
        """
        self.control.wake = self._wake.set
        queue = SubmissionQueue(iter(submissions), count)
        for job in running:
            self._tracker.watch(job)
        for job in ask_once:
            self._tracker.watch(job, once=True)
        for job in held:
            self._await_callback(job)
        self._total = count + len(self._tracker.running) + len(self._tracker.awaiting_callback)
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._loop(tasks, queue)
                for read in (*self._polls.values(), *self._list_tasks):
                    read.cancel()
        finally:
            # However this ends, an answer that is here is not thrown away.
            self._process_answers(queue)
            self._writer.close()
        if self._writer.error is not None:
            raise self._writer.error
        if self._intent_error is not None:
            raise self._intent_error
        return self.outcome

    async def _loop(self, tasks: asyncio.TaskGroup, queue: SubmissionQueue) -> None:
        while True:
            self._wake.clear()
            self._process_answers(queue)
            now = self.runtime.now()
            self._check_stops(now, queue)
            if self._finished(queue):
                return
            room = self.budget.available(now)
            room -= self._send_reads(tasks, now, room, queue)
            room -= self._send_submissions(tasks, now, room, queue)
            self.listener.on_progress(self._progress(queue))
            await self._rest(self._next_look(now, room, queue))

    # -- what may happen next ------------------------------------------------------------------------------

    def _check_stops(self, now: float, queue: SubmissionQueue) -> None:
        if self.control.stopped:
            self.outcome.stopped_by = StopReason.SIGNAL
        elif self.outcome.stopped_by is None and self.guards.stop is not None and queue:
            self.outcome.stopped_by = self.guards.stop
        if self._contact.silent_for(now) > self.execution_timeout:
            self._stop(StopReason.UNREACHABLE, self._contact.reason)
            self._polling_disabled = True
        for job in self._tracker.overdue_callbacks():
            self._end(job, completed=False, failed=False)

    def _stop(self, why: StopReason, reason: str) -> None:
        if self.outcome.stopped_by is None:
            self.outcome.stopped_by = why
            self.outcome.reason = reason

    def _ledger_refuses(self) -> bool:
        return self._intent_error is not None or self._writer.error is not None

    def _submitting(self) -> bool:
        return self.outcome.stopped_by is None and not self._ledger_refuses()

    def _collecting(self) -> bool:
        return self.wait and not self._polling_disabled and not self.control.stopped and not self._ledger_refuses()

    def _finished(self, queue: SubmissionQueue) -> bool:
        if self._posts or self._ended:
            return False
        if self._writer.error is not None:
            return self._writer.gave_up
        if self._submitting() and queue:
            return False
        awaited = self._tracker.running or self._polls or self._tracker.awaiting_callback
        return not (self._collecting() and awaited)

    def _send_reads(self, tasks: asyncio.TaskGroup, now: float, room: int, queue: SubmissionQueue) -> int:
        """Send the polls and list requests that are worth it now. Returns their number."""
        if not self._collecting():
            return 0
        free = Room(requests=room, polls=MAX_OPEN_POLLS - len(self._polls), waiting=self._startable(queue))
        requests = self.pacer.requests(now, free)
        for request in requests:
            match request:
                case PollRequest(execution=name):
                    self._polls[name] = tasks.create_task(self._poll(self._tracker.running[name]))
                case ListRequest():
                    task = tasks.create_task(self._list(request))
                    self._list_tasks.add(task)
                    task.add_done_callback(self._list_tasks.discard)
                case _:
                    assert_never(request)
        return len(requests)

    def _startable(self, queue: SubmissionQueue) -> int:
        """Submissions that only want requests: those that wait for a slot do not count."""
        return max(0, min(len(queue), self.max_in_flight - self._in_flight())) if self._submitting() else 0

    def _in_flight(self) -> int:
        return self._posts + self._tracker.slots_used()

    def _send_submissions(self, tasks: asyncio.TaskGroup, now: float, room: int, queue: SubmissionQueue) -> int:
        """Send as many as may go now, after the intent of all of them is on the disk. Returns their number."""
        if not self._submitting() or now < self._pause_until:
            return 0
        limits = [room - self.pacer.reserved(now), MAX_OPEN_POSTS - self._posts]
        limits.append(self.max_in_flight - self._in_flight())
        if self._consecutive_unknown >= MAX_CONSECUTIVE_UNKNOWN:
            limits.append(1 - self._posts)
        guarded = self.guards.room()
        if guarded is not None:
            limits.append(guarded)
        batch: list[Submission] = []
        while len(batch) < min(limits) and queue:
            batch.append(queue.take())
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
            self._intent_error = error
            return 0
        for job in jobs:
            self.guards.began(job.id)
            self._tracker.sent.add(job.id)
            self._posts += 1
            tasks.create_task(self._submit(job))
        return len(jobs)

    def _next_look(self, now: float, room: int, queue: SubmissionQueue) -> float | None:
        """Seconds until something may be done that cannot be done now; None: only an answer changes anything."""
        moments: list[float | None] = []
        wants_room = bool(queue) and self._submitting()
        if self._collecting() and room > 0 and len(self._polls) < MAX_OPEN_POLLS:
            moments.append(self.pacer.next_due(now))
        if wants_room or self._tracker.running:
            # More requests may also be a reason to ask earlier.
            moments.append(self.budget.next_change(now))
        if wants_room and self._pause_until > now:
            moments.append(self._pause_until)
        coming = [moment for moment in moments if moment is not None]
        return max(0.0, min(coming) - now) if coming else None

    async def _rest(self, delay: float | None) -> None:
        """Wait until an answer is there, a stop is asked for, `delay` seconds are over, or a heartbeat is due."""
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

    def _progress(self, queue: SubmissionQueue) -> Progress:
        running = len(self._tracker.running)
        return Progress(
            total=self._total,
            ended=self._tracker.done,
            running=running + len(self._tracker.awaiting_callback) + self._posts,
            waiting=len(queue),
            least_left=least_seconds(len(queue), limit=self.budget.limit, window=self.budget.window, reads=running),
            silent=self._contact.silent_for(self.runtime.now()),
        )

    # -- the requests --------------------------------------------------------------------------------------

    async def _submit(self, job: Job) -> None:
        submission = job.submission or ""
        webhook = None if self.webhook_for is None else self.webhook_for(submission)
        end = await self.client.start(self.app_id, job.inputs, submission=submission, webhook=webhook)
        self._posts -= 1
        self._ended.append((job, end))
        self._wake.set()

    async def _poll(self, job: Job) -> None:
        end = await self.client.get_execution(job.execution_id or "", generation=job.generation)
        self._ended.append((job, end))
        self._wake.set()

    async def _list(self, request: ListRequest) -> None:
        end = await self.client.list_runs(app_id=self.app_id, limit=request.limit, offset=request.offset)
        self._pages.append((request, end))
        self._wake.set()

    # -- the callbacks -------------------------------------------------------------------------------------

    def knows(self, submission: str) -> bool:
        """Whether a job was ever sent under this name."""
        return self.ledger.of_submission(submission) is not None

    async def deliver(self, submission: str, execution: Execution) -> DeliveryOutcome:
        """Take a verified callback. Returns once the ledger has it, or cannot take it."""
        job = self.ledger.of_submission(submission)
        owner = self.ledger.owner_of(execution.execution_id)
        if job is None or (owner is not None and owner.id != job.id):
            return DeliveryOutcome.UNKNOWN
        self._contact.unanswered = 0
        news = Delivered(execution=execution, submission=submission, at=self.runtime.wall())
        self._wake.set()
        return await self._writer.deliver(job.id, news)

    # -- what has happened ---------------------------------------------------------------------------------

    def _process_answers(self, queue: SubmissionQueue) -> None:
        """Put all that has ended into the ledger, in one transaction, and act on what that changed."""
        ended, self._ended = self._ended, []
        for job, end in ended:
            news = self._post_ended(end) if isinstance(end, StartResult) else self._poll_ended(job, end)
            if news is not None:
                self._writer.add(job.id, news)
        pages, self._pages = self._pages, []
        for request, page in pages:
            self._list_ended(request, page)
        for job, by_callback in self._writer.write():
            self._changed(job, queue, by_callback=by_callback)
            self.listener.changed(job)

    def _post_ended(self, end: StartResult) -> News:
        self._record_contact(end.status, end.message)
        outcome, now = classify_submission(end), self.runtime.now()
        self._consecutive_unknown = self._consecutive_unknown + 1 if outcome is SubmissionOutcome.UNKNOWN else 0
        if outcome is SubmissionOutcome.NOT_ACCEPTED and end.status is None:
            self._pause_until = now + backoff(self._contact.unanswered, self.runtime.random)
        elif self._consecutive_unknown >= MAX_CONSECUTIVE_UNKNOWN:
            failures = self._consecutive_unknown - MAX_CONSECUTIVE_UNKNOWN + 1
            if self._consecutive_unknown >= STOP_AFTER_UNKNOWN:
                self._stop(StopReason.UNKNOWN, f"{self._consecutive_unknown} submissions in a row: {end.message}")
            self._pause_until = now + backoff(failures, self.runtime.random, base=5.0, cap=60.0)
        match outcome:
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
                assert_never(outcome)

    def _poll_ended(self, job: Job, end: ReadResult) -> News | None:
        name = str(job.id)
        self._polls.pop(name, None)
        self._record_contact(end.status, end.message)
        if end.execution is not None and end.execution.ended:
            return Observed(execution=end.execution, at=self.runtime.wall())
        self._check_refused(end)
        if self._tracker.is_asked_once(name):
            self._tracker.unwatch(job)
            return None
        if self._tracker.is_overdue(job) and self._is_about_execution(end, name):
            answer = f"status {end.execution.status!r}" if end.execution is not None else end.message
            return TimedOut(message=f"no end within {self.execution_timeout:g} s; the service last said: {answer}")
        if end.execution is not None:
            self.pacer.asked(name, self.runtime.now())
        else:
            self.pacer.failed(name, self.runtime.now())
        return None

    def _list_ended(self, request: ListRequest, end: ListResult) -> None:
        self._record_contact(end.status, end.message)
        self._check_refused(end)
        if end.status != 200:
            self.pacer.list_failed(request, self.runtime.now())
            return
        ended = self._tracker.ended_on_page([(item.execution_id, item.ended) for item in end.items])
        self.pacer.list_answered(request, self.runtime.now(), ended)
        for name in [name for name, has_ended in ended.items() if not has_ended and self._tracker.is_asked_once(name)]:
            self._tracker.unwatch(self._tracker.running[name])

    def _check_refused(self, end: ReadResult | ListResult) -> None:
        """Stop collecting if the service refuses the key or the address."""
        if end.status in {401, 403} or (end.status is not None and 300 <= end.status < 400):
            self._stop(StopReason.REFUSED, f"HTTP {end.status} to a poll: {end.message}")
            self._polling_disabled = True

    def _record_contact(self, status: int | None, message: str) -> None:
        if self._contact.record(status, message, self.runtime.now()):
            self.listener.note(f"no answer from the service ({message})")

    def _is_about_execution(self, end: ReadResult, name: str) -> bool:
        """Whether this poll says something of the execution. What only the way there says is asked again."""
        waited_long = self._tracker.waited(name) >= self.execution_timeout
        return end.execution is not None or end.status == 404 or waited_long

    def _changed(self, job: Job, queue: SubmissionQueue, *, by_callback: bool) -> None:
        if job.execution_id is not None and job.id in self._tracker.sent:
            self._tracker.sent.discard(job.id)
            self.outcome.submitted += 1
        match job.state:
            case State.RUNNING:
                self._tracker.watch(job)
            case State.PLANNED:
                if self.outcome.stopped_by is None:
                    queue.retry(job)
            case State.COMPLETED:
                self.outcome.ended += 1
                self._end(job, completed=job.failed_outputs == 0, failed=False, by_callback=by_callback)
            case State.FAILED:
                self.outcome.ended += 1
                if reports_insufficient_credits(job.message):
                    self._stop(StopReason.CREDITS, job.message or "")
                self._end(job, completed=False, failed=True, by_callback=by_callback)
            case State.TIMED_OUT | State.REJECTED:
                self._end(job, completed=False, failed=True)
            case State.HELD:
                if not self._await_callback(job):
                    self._end(job, completed=False, failed=False)
            case State.SUBMITTING:
                pass
            case _:
                assert_never(job.state)

    def _end(self, job: Job, *, completed: bool, failed: bool, by_callback: bool = False) -> None:
        self._tracker.unwatch(job, by_callback=by_callback)
        self.guards.ended(job.id, completed=completed, failed=failed)

    def _await_callback(self, job: Job) -> bool:
        return self.webhook_for is not None and self._tracker.await_callback(job)


async def _wait_for(what: Awaitable[object]) -> object:
    return await what
