"""The plan, the ledger and the states of a job under everything that can happen, in any order.

The service is a model that remembers what it accepted; the ledger is the real one, on a real disk. Rules send, answer,
lose, poll, deliver, kill, restart, change the rows and speak for the user; after every step the promises of
docs/architecture.md, "Promises" are held against what the service knows.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from thorough import examples

from lamina_batch.client.lamina import Execution, Output
from lamina_batch.execution.plan import (
    Action,
    PlanOptions,
    completed_contents,
    has_completed_content,
    ledger_frame,
    make_plan,
    matches_names,
)
from lamina_batch.ledger.held import HeldDecisions, apply_decisions
from lamina_batch.ledger.job import (
    Accepted,
    Delivered,
    NotAccepted,
    Observed,
    Refused,
    State,
    Submission,
    TimedOut,
    Unknown,
)
from lamina_batch.ledger.ledger import FILE_NAME, open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lamina_batch.execution.plan import Plan
    from lamina_batch.ledger.job import Job, News
    from lamina_batch.ledger.ledger import Ledger

T = TypeVar("T")

KEYS = ("A", "B", "C", "D")
CONTENTS = ("a", "b", "c")
DAY = 24 * 3600.0
#: A disk without the waiting, where there is one: what a killed process leaves behind is the same.
MEMORY = Path("/dev/shm")

#: docs/ledger.md, "States", said once more: the states, and the arrows between them.
ARROWS = {
    None: {"planned"},
    "planned": {"submitting", "completed", "failed"},
    "submitting": {"running", "rejected", "held", "planned", "completed", "failed"},
    "running": {"completed", "failed", "timed_out"},
    "held": {"running", "planned", "completed", "failed"},
    "timed_out": {"completed", "failed", "planned"},
    "failed": {"planned", "completed", "failed"},
    "rejected": {"planned", "completed", "failed"},
    "completed": set(),
}
#: how an execution may end at the service, and the state that this is for its job
ENDS = {
    "completed": "completed",
    "partial": "completed",
    "failed": "failed",
    "cancelled": "failed",
    "no_output": "failed",
}


#: whether the process dies in the middle of a transaction
KILLED = st.sampled_from([False, False, False, False, False, True])
#: how a POST ends for the client
HOW = st.sampled_from(["202", "202", "202", "accepted and lost", "lost", "429", "400", "no connection", "not yet"])
#: how an execution ends before it is told of, if it runs
END = st.sampled_from([None, "completed", "completed", "partial", "failed", "failed", "cancelled", "no_output"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that somebody does to the catalog."""

    how: str
    at: int
    other: int
    content: str


CHANGE = st.builds(
    Change,
    how=st.sampled_from(["change", "change", "swap", "rename", "reverse", "add", "remove"]),
    at=st.integers(0, 3),
    other=st.integers(0, 3),
    content=st.sampled_from(CONTENTS),
)


class KilledError(BaseException):
    """The process dies here."""


@dataclass(eq=False, slots=True, kw_only=True)
class Bought:
    """An execution that the service accepted, and that is paid for."""

    id: str
    attempt: Attempt
    #: a key of ENDS; None: it runs
    end: str | None = None

    def seen(self) -> Execution:
        """What the service says of it."""
        good = Output(
            id="n1", label="Front", type="image", status="completed", value=f"https://x/{self.id}", error=None
        )
        bad = Output(id="n2", label="Back", type="pending", status="error", value=None, error="no")
        outputs = {None: (), "completed": (good,), "partial": (good, bad), "no_output": (bad,)}.get(self.end, ())
        status = {None: "running", "partial": "completed", "no_output": "completed"}.get(self.end, self.end)
        return Execution(
            execution_id=self.id, status=status or "", ended=self.end is not None, outputs=outputs, created_at=1.0
        )


@dataclass(eq=False, slots=True, kw_only=True)
class Attempt:
    """A POST that left, as the service and the user see it."""

    token: str
    job_id: int
    #: of its job, which is that of the row it is bought for unless that was renamed
    key: str
    content: str
    by_webhook: bool
    #: the client was told that it is not accepted, now or later
    refused: bool = False
    #: it will not be accepted, whoever knows
    never: bool = False
    bought: Bought | None = None
    #: the client waits for its answer
    open: bool = True
    #: the user wants another one, whatever this one costs
    excused: bool = False

    def buys(self, key: str, content: str, sharing: bool) -> bool:
        """Whether it buys what this row wants; with sharing, whatever row it was bought for."""
        return self.content == content and (sharing or self.key == key)

    def accept(self) -> Bought:
        """The service takes it, once."""
        self.bought = self.bought or Bought(id=f"e-{self.token[:8]}", attempt=self)
        return self.bought


@dataclass(slots=True, kw_only=True)
class Run:
    """A process that works on the ledger."""

    ledger: Ledger
    plan: Plan
    by_webhook: bool
    sharing: bool
    #: what the plan wants sent, with its reason
    waiting: list[tuple[Submission, str]]
    #: POSTs have left
    sent: bool = False
    #: news of polls, which may come twice
    polled: list[tuple[int, News]] = field(default_factory=list)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(prefix="ledger-machine-", dir=MEMORY if MEMORY.is_dir() else None))
        self.folder = self.top / "0"
        self.now = 1_000_000.0
        self.rows: list[tuple[str, str]] = []
        #: `share_identical` of the runs; several: the user changes it between runs
        self.sharing: tuple[bool, ...] = (True,)
        self.run: Run | None = None
        self.attempts: list[Attempt] = []
        #: what was delivered by callback, which may come again
        self.delivered: list[tuple[int, Delivered]] = []
        self.completed: dict[int, tuple[object, ...]] = {}
        #: jobs wait for the user's word
        self.unsettled = False
        self.images = 0
        self.runs = 0

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.come_to_rest()
        finally:
            if self.run is not None:
                self.run.ledger.__exit__()
            shutil.rmtree(self.top)

    # -- the rows ----------------------------------------------------------------------------------------------------

    @initialize(
        contents=st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=3),
        sharing=st.sampled_from([(True,), (True,), (False,), (True, False)]),
    )
    def begin_with(self, contents: list[str], sharing: tuple[bool, ...]) -> None:
        self.rows = list(zip(KEYS, contents, strict=False))
        self.sharing = sharing

    def change_the_rows(self, change: Change) -> None:
        """Equal rows come about by this, too."""
        at, other = change.at % len(self.rows), change.other % len(self.rows)
        free = [key for key in KEYS if key not in dict(self.rows)]
        match change.how:
            case "change":
                self.rows[at] = (self.rows[at][0], change.content)
            case "swap":
                keys, contents = zip(*self.rows, strict=True)
                swapped = list(contents)
                swapped[at], swapped[other] = swapped[other], swapped[at]
                self.rows = list(zip(keys, swapped, strict=True))
            case "rename" if free:
                self.rows[at] = (free[other % len(free)], self.rows[at][1])
            case "reverse":
                self.rows.reverse()
            case "add" if free:
                self.rows.append((free[0], change.content))
            case "remove" if len(self.rows) > 1:
                del self.rows[at]
            case _:
                pass

    # -- a run -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.run is None)
    @rule(
        wish=st.sampled_from(
            [
                PlanOptions(),
                PlanOptions(),
                PlanOptions(retry_failed=True),
                PlanOptions(rerun=frozenset({"A"})),
                PlanOptions(rerun=frozenset({"A", "B", "C"})),
                PlanOptions(resubmit_held=True),
                PlanOptions(limit=1),
                PlanOptions(retry_failed=True, only=frozenset({"A", "C"})),
            ]
        ),
        contract=st.sampled_from(["c1", "c1", "c2"]),
        by_webhook=st.booleans(),
        pause=st.sampled_from([60.0, 60.0, 60.0, 8 * DAY]),
        changes=st.lists(CHANGE, max_size=2),
        sharing=st.integers(0, 1),
    )
    def start_a_run(
        self,
        *,
        wish: PlanOptions,
        contract: str = "c1",
        by_webhook: bool = False,
        pause: float = 60.0,
        changes: Sequence[Change] = (),
        sharing: int = 0,
    ) -> None:
        self.now += pause
        for change in changes:
            self.change_the_rows(change)
        share = self.sharing[sharing % len(self.sharing)]
        wish = replace(wish, only=wish.rerun or wish.only, share_identical=share)
        ledger = open_ledger(self.folder)
        ledger.recover(at=self.tick(), run_id=self.new_run())
        plan = self.planned(ledger, wish, contract)
        if self.runs % 4 == 0:
            again = self.planned(ledger, wish, contract)
            assert plan.frame.equals(again.frame), "a plan made twice is the same plan"
        self.check_plan(plan, wish)
        reasons = plan.frame.filter(pl.col("action") == Action.SUBMIT)["reason"].to_list()
        waiting = list(zip(plan.submissions(lambda jobs: jobs), reasons, strict=True))
        self.run = Run(ledger=ledger, plan=plan, by_webhook=by_webhook, sharing=share, waiting=waiting)

    def planned(self, ledger: Ledger, wish: PlanOptions, contract: str = "c1") -> Plan:
        jobs = pl.DataFrame(
            [(key, "", content * 64, json.dumps({"p": content})) for key, content in self.rows],
            schema={"key": pl.String, "variant": pl.String, "content": pl.String, "inputs": pl.String},
            orient="row",
        ).with_columns(valid=pl.lit(value=True))
        plan = make_plan(jobs, ledger_frame(ledger.table()), wish, contract=contract, at=self.now)
        if self.runs % 4 == 0 and wish.share_identical:
            done = (
                has_completed_content(jobs, completed_contents(ledger.contents()))
                & ~jobs.select(matches_names(wish.rerun)).to_series()
            )
            others = jobs.filter(~done)
            about = ledger_frame(ledger.table_about(others["key"].to_list(), others["content"].to_list()))
            quick = make_plan(jobs, about, wish, contract=contract, at=self.now, done=done)
            told = ["key", "content", "action", "reason", "was_status", "resend"]
            assert quick.frame.select(told).equals(plan.frame.select(told)), "what is settled need not be looked up"
        return plan

    def check_plan(self, plan: Plan, wish: PlanOptions) -> None:
        """What the plan says of each row, held against what the service knows of its content."""
        for key, content, action in plan.frame.select("key", "content", "action").iter_rows():
            attempts = [a for a in self.attempts if a.buys(key, content, wish.share_identical) and not a.refused]
            if not attempts and wish.limit is None and wish.only is None:
                bad = {Action.HOLD, Action.UNCHANGED, Action.COLLECT, Action.ASK_ONCE, Action.LEAVE}
                assert action not in bad, f"{key} {content[0]} was never bought, but {action}"

    @precondition(lambda self: self.run and self.run.waiting)
    @rule(count=st.integers(1, 3), killed_after=st.sampled_from([None, None, None, None, None, None, 0, 1, 2]))
    def send(self, count: int, killed_after: int | None) -> None:
        """The intents of the next few are committed, and their POSTs leave; or the process dies while it writes."""
        assert self.run is not None
        self.run.sent = True
        batch, self.run.waiting = self.run.waiting[:count], self.run.waiting[count:]
        states = {job.id: job.state for job in self.run.ledger.jobs(*State)}

        def submissions() -> Iterator[Submission]:
            for number, (submission, _) in enumerate(batch):
                if number == killed_after:
                    self.take_image()
                    raise KilledError
                yield submission

        try:
            jobs = self.run.ledger.begin(
                submissions(),
                app_id="app",
                contract="c1",
                at=self.tick(),
                run_id=f"r{self.runs}",
                by_webhook=self.run.by_webhook,
            )
        except KilledError:
            self.die()
            return
        reasons = {(s.key, s.content): reason for s, reason in batch}
        sent = {(s.job_id, s.content): s.key for s, _ in batch}
        for job in jobs:
            key = sent.get((job.id, job.content), job.key)
            self.check_purchase(job, key, reasons[key, job.content], states)
            attempt = Attempt(
                token=job.submission or "", job_id=job.id, key=job.key, content=job.content, by_webhook=job.by_webhook
            )
            self.attempts.append(attempt)

    def check_purchase(self, job: Job, key: str, reason: str, states: dict[int, State]) -> None:
        """Promise 1: whatever may have been bought before, the user has said that it may be bought again."""
        assert self.run is not None
        for earlier in self.attempts:
            if not earlier.buys(key, job.content, self.run.sharing) or earlier.refused or earlier.excused:
                continue
            ended_badly = earlier.bought is not None and ENDS.get(earlier.bought.end or "") == "failed"
            partial = earlier.bought is not None and earlier.bought.end == "partial"
            match reason:
                case "rerun":
                    pass
                case "retry":
                    assert ended_badly or partial, f"{job.name} is bought again while {describe(earlier)}"
                case "planned" | "again" if ended_badly:
                    continue  # of another job, and that one says so itself
                case "resubmitted" | "planned" | "again" if earlier.job_id != job.id and len(self.sharing) > 1:
                    continue  # rows that were bought one by one, and are taken for one since
                case "resubmitted":
                    was_held = states[earlier.job_id] is State.HELD
                    assert was_held or ended_badly, f"{job.name} is resubmitted while {describe(earlier)}"
                case _:
                    raise AssertionError(f"{job.name} is bought ({reason}) while {describe(earlier)}")
            earlier.excused = True

    @precondition(lambda self: self.run and (self.run.sent or not self.run.waiting))
    @rule(killed=st.booleans())
    def end_the_run(self, killed: bool) -> None:
        """It ends by itself when it has no POST open. Or kill -9: what is on the disk stays, the rest is nobody's."""
        assert self.run is not None
        if killed or self.open_posts():
            self.kill()
        else:
            self.run.ledger.__exit__()
            self.run = None

    def kill(self) -> None:
        self.take_image()
        self.die()

    def take_image(self) -> None:
        """The files as they are at this instant: what a process that dies now leaves behind."""
        self.images += 1
        image = self.top / str(self.images)
        image.mkdir()
        for file in self.folder.iterdir():
            if not file.name.endswith("-shm"):
                shutil.copyfile(file, image / file.name)
        self.next_folder = image

    def die(self) -> None:
        assert self.run is not None
        self.run.ledger.__exit__()
        self.run = None
        shutil.rmtree(self.folder)
        self.folder = self.next_folder
        for attempt in self.attempts:
            attempt.open = False

    # -- the service -------------------------------------------------------------------------------------------------

    def undecided(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if not attempt.never and attempt.bought is None]

    @precondition(lambda self: self.undecided())
    @rule(which=st.integers(0, 20))
    def accept(self, which: int) -> None:
        """The service takes it, whether or not anybody still waits for the answer."""
        pick(self.undecided(), which).accept()

    # -- what the client hears ---------------------------------------------------------------------------------------

    def record(self, news: list[tuple[int, News]], *, killed: bool = False) -> None:
        """One transaction; or the process dies when half of it is written."""
        assert self.run is not None

        def telling() -> Iterator[tuple[int, News]]:
            for number, item in enumerate(news):
                if killed and number == len(news) // 2:
                    self.take_image()
                    raise KilledError
                yield item

        try:
            changed = self.run.ledger.record(telling(), at=self.tick(), run_id=f"r{self.runs}")  # type: ignore[arg-type]
        except KilledError:
            self.die()
            return
        for job in changed:
            if job.state is State.PLANNED:
                # As the engine does: proved not accepted, so it is sent again.
                again = Submission(
                    key=job.key, variant=job.variant, content=job.content, inputs=job.inputs, job_id=job.id
                )
                self.run.waiting.insert(0, (again, "again"))

    def open_posts(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.open] if self.run else []

    @precondition(lambda self: self.open_posts())
    @rule(hows=st.lists(HOW, min_size=1, max_size=4), killed=KILLED)
    def answer(self, hows: list[str], killed: bool) -> None:
        """POSTs end for the client. What the service has accepted already may be heard or lost, but not refused."""
        news: list[tuple[int, News]] = []
        for attempt, how in zip(self.open_posts(), hows, strict=False):
            if how == "not yet":
                continue
            attempt.open = False
            item = self.answered(attempt, how)
            attempt.never = isinstance(item, Refused | NotAccepted)
            # Who dies before it is written down has not been told.
            attempt.refused = attempt.never and not killed
            news.append((attempt.job_id, item))
        self.record(news, killed=killed)

    def answered(self, attempt: Attempt, how: str) -> News:
        if how == "202" or (attempt.bought is not None and how not in {"accepted and lost", "lost"}):
            return Accepted(execution_id=attempt.accept().id, generation="executions")
        if how == "400":
            return Refused(code="http_400", message="no")
        if how in {"429", "no connection"}:
            return NotAccepted(code="not_accepted", message="no")
        if how == "accepted and lost":
            attempt.accept()
        return Unknown(code="unknown", message="lost")

    def pollable(self) -> list[Bought]:
        if self.run is None:
            return []
        asked = {job.execution_id for job in self.run.ledger.jobs(State.RUNNING, State.TIMED_OUT)}
        return [a.bought for a in self.attempts if a.bought is not None and a.bought.id in asked]

    @precondition(lambda self: self.pollable())
    @rule(ends=st.lists(END, min_size=1, max_size=4), killed=KILLED)
    def poll(self, ends: list[str | None], killed: bool) -> None:
        assert self.run is not None
        news: list[tuple[int, News]] = []
        for bought, end in zip(self.pollable(), ends, strict=False):
            bought.end = bought.end or end
            news.append((bought.attempt.job_id, Observed(execution=bought.seen(), at=self.now)))
        self.run.polled += news
        self.record(news, killed=killed)

    @precondition(lambda self: self.pollable())
    @rule(which=st.integers(0, 20))
    def time_out(self, which: int) -> None:
        self.record([(pick(self.pollable(), which).attempt.job_id, TimedOut(message="no end"))])

    @precondition(lambda self: self.run and self.run.polled)
    @rule(which=st.integers(0, 20))
    def poll_is_told_twice(self, which: int) -> None:
        assert self.run is not None
        self.record([pick(self.run.polled, which)])

    def deliverable(self) -> list[Bought]:
        taken = [a.bought for a in self.attempts if a.by_webhook and a.bought is not None]
        return taken if self.run else []

    @precondition(lambda self: self.deliverable())
    @rule(which=st.integers(0, 20), end=END, killed=KILLED)
    def deliver(self, which: int, end: str | None, killed: bool) -> None:
        """A callback, before or after the 202, of this attempt or of one long ago, once more or for the first time."""
        assert self.run is not None
        bought = pick(self.deliverable(), which)
        bought.end = bought.end or end or "completed"
        job = self.run.ledger.of_submission(bought.attempt.token)
        assert job is not None, "every token leads to its job"
        assert job.id == bought.attempt.job_id
        news = Delivered(execution=bought.seen(), submission=bought.attempt.token, at=self.now)
        self.record([(job.id, news)], killed=killed)

    # -- the user ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.run is None and self.unsettled)
    @rule(which=st.integers(0, 20), word=st.sampled_from(["adopt", "resubmit", "give up"]))
    def settle_a_held_job(self, which: int, word: str) -> None:
        with open_ledger(self.folder) as ledger:
            ledger.recover(at=self.tick(), run_id=self.new_run())
            held = ledger.jobs(State.HELD)
            if not held:
                return
            job = pick(held, which)
            attempt = next(a for a in self.attempts if a.token == job.submission)
            words = {
                "adopt": HeldDecisions(adopt={job.name: attempt.bought.id if attempt.bought else ""}),
                "resubmit": HeldDecisions(resubmit=(job.name,)),
                "give up": HeldDecisions(give_up=(job.name,)),
            }[word]
            same_name = [other for other in held if other.name == job.name]
            if word == "adopt" and (attempt.bought is None or len(same_name) > 1):
                return
            apply_decisions(ledger, words, generation="executions", at=self.tick(), run_id=f"r{self.runs}")
            if word != "adopt":
                for one in self.attempts:
                    one.excused |= one.job_id in {other.id for other in same_name}

    # -- the promises ------------------------------------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        file = self.folder / FILE_NAME
        if not file.exists():
            return
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as other:
            other.row_factory = sqlite3.Row
            jobs = {int(row["id"]): dict(row) for row in other.execute("SELECT * FROM job")}
            events = [dict(row) for row in other.execute("SELECT * FROM event ORDER BY id")]
            outputs = other.execute("SELECT job_id, output_id, value FROM output ORDER BY job_id, position").fetchall()
        values = {job_id: [tuple(o)[1:] for o in outputs if o[0] == job_id] for job_id in jobs}
        self.unsettled = any(job["state"] in {"held", "submitting"} for job in jobs.values())
        self.check_nothing_is_lost(jobs, events)
        self.check_history(jobs, events)
        self.check_states(jobs, values)
        self.check_what_completed(jobs, values)

    def check_nothing_is_lost(self, jobs: dict[int, dict[str, Any]], events: list[dict[str, Any]]) -> None:
        """Promise 2: every accepted execution is in the ledger with its id, or its job is held, or about to be."""
        known = {job["execution_id"] for job in jobs.values()} | {event["execution_id"] for event in events}
        for attempt in self.attempts:
            if attempt.bought is None or attempt.bought.id in known or attempt.excused:
                continue
            job = jobs[attempt.job_id]
            assert job["state"] in {"submitting", "held"}, f"lost: {describe(attempt)}, job {job}"
            assert job["submission"] == attempt.token

    def check_history(self, jobs: dict[int, dict[str, Any]], events: list[dict[str, Any]]) -> None:
        """The events tell the exact way of each job, by legal steps, to where it is now."""
        at: dict[int, str | None] = {}
        last: dict[int, dict[str, Any]] = {}
        for event in events:
            job_id, to = event["job_id"], event["to_state"]
            before = at.get(job_id)
            assert event["from_state"] == before, f"a gap in the history of job {job_id}: {event}"
            if event["code"] == "also_accepted":
                assert to == before
                continue
            assert to in ARROWS[before], f"job {job_id}: {before} -> {to}"
            at[job_id], last[job_id] = to, event
        assert last.keys() == jobs.keys()
        for job_id, job in jobs.items():
            told = {name: last[job_id][name] for name in ("submission", "execution_id", "code", "message")}
            assert (at[job_id], told) == (job["state"], {name: job[name] for name in told})

    def check_states(self, jobs: dict[int, dict[str, Any]], values: dict[int, list[tuple[Any, ...]]]) -> None:
        """What the ledger says of an execution is so at the service, and it is of that job."""
        bought = {a.bought.id: a.bought for a in self.attempts if a.bought is not None}
        live = [
            (j["key"], j["variant"], j["content"]) for j in jobs.values() if j["state"] in {"submitting", "running"}
        ]
        assert len(live) == len(set(live)), "two live attempts of one job"
        for job in jobs.values():
            assert job["attempts"] == sum(a.job_id == job["id"] for a in self.attempts)
            if job["execution_id"] is None:
                continue
            execution = bought[job["execution_id"]]
            assert execution.attempt.job_id == job["id"]
            if job["state"] in {"completed", "failed"}:
                assert execution.end is not None
                assert ENDS[execution.end] == job["state"]
                assert (job["state"] == "completed" and job["failed_outputs"] > 0) is (execution.end == "partial")
                assert values[job["id"]] == [(o.id, o.value) for o in execution.seen().outputs]

    def check_what_completed(self, jobs: dict[int, dict[str, Any]], values: dict[int, list[tuple[Any, ...]]]) -> None:
        for job_id, job in jobs.items():
            if job["state"] == "completed":
                now = (tuple(job.values()), tuple(values[job_id]))
                assert self.completed.setdefault(job_id, now) == now, f"job {job_id} had completed, and changed"
        for job_id in self.completed:
            assert jobs[job_id]["state"] == "completed"

    def come_to_rest(self) -> None:
        """With a service that works, and nobody who disturbs, one plain run does all there is to do."""
        if not self.rows:
            return
        if self.run is not None:
            self.kill()
        self.do_all_there_is_to_do()
        self.start_a_run(wish=PlanOptions())
        assert self.run is not None
        assert self.run.waiting == [], "nothing is new, and yet something would be bought"
        done = {Action.UNCHANGED, Action.REPORT, Action.HOLD, Action.ASK_ONCE}
        assert set(self.run.plan.frame["action"]) <= done
        self.check()

    def do_all_there_is_to_do(self) -> None:
        self.start_a_run(wish=PlanOptions())
        assert self.run is not None
        while self.run.waiting:
            self.send(3, None)
            for attempt in self.open_posts():
                attempt.open = False
                self.record([(attempt.job_id, self.answered(attempt, "202"))])
            self.check()
        for bought in self.pollable():
            bought.end = bought.end or "completed"
            self.record([(bought.attempt.job_id, Observed(execution=bought.seen(), at=self.now))])
        self.check()
        self.kill()

    # -- small things ------------------------------------------------------------------------------------------------

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    def new_run(self) -> str:
        self.runs += 1
        return f"r{self.runs}"


def pick(things: list[T], which: int) -> T:
    return things[which % len(things)]


def describe(attempt: Attempt) -> str:
    if attempt.bought is None:
        return f"an earlier POST of it (job {attempt.job_id}) may have been accepted"
    return f"{attempt.bought.id} (job {attempt.job_id}) is {attempt.bought.end or 'running'}"


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(
    max_examples=examples(40),
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
# It takes long to find the shortest way to a fault.
TestLedger.pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # type: ignore[attr-defined]
