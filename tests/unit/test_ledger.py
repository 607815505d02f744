"""The ledger: durable intents, guarded transitions, a history that stays."""

from __future__ import annotations

import sqlite3
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamina_batch.client.lamina import Execution, Output
from lamina_batch.errors import LedgerMismatchError, StateError
from lamina_batch.ledger.job import (
    LEGAL_TRANSITIONS,
    Accepted,
    Delivered,
    GivenUp,
    IllegalTransitionError,
    Job,
    News,
    NotAccepted,
    Observed,
    Refused,
    ResubmissionRequested,
    State,
    Submission,
    TimedOut,
    Unknown,
)
from lamina_batch.ledger.ledger import (
    FILE_NAME,
    SCHEMA_VERSION,
    Binding,
    Download,
    ImportedJob,
    Ledger,
    find_ledger,
    open_ledger,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path) as opened:
        yield opened


def submission(key: str = "A", content: str = "a", job_id: int | None = None) -> Submission:
    return Submission(key=key, variant="", content=content * 64, inputs="{}", job_id=job_id)


def begin(ledger: Ledger, *submissions: Submission) -> list[Job]:
    return ledger.begin(submissions, app_id="app", contract="c", at=1.0, run_id="r1")


def record(ledger: Ledger, job: Job, news: News) -> list[Job]:
    return ledger.record([(job.id, news)], at=2.0, run_id="r1")


ACCEPTED = Accepted(execution_id="e1", generation="executions")


def output(status: str = "completed", value: str | None = "https://x/1.png", label: str = "Front") -> Output:
    return Output(id=f"{label}-{status}", label=label, type="image", status=status, value=value, error=None)


def ended(*outputs: Output, status: str = "completed") -> Observed:
    execution = Execution(
        execution_id="e1", status=status, ended=True, outputs=outputs, created_at=10.0, completed_at=15.0
    )
    return Observed(execution=execution, at=99.0)


def delivered(job: Job, execution_id: str = "e1", status: str = "completed") -> Delivered:
    execution = Execution(execution_id=execution_id, status=status, ended=True, outputs=(output(),))
    return Delivered(execution=execution, submission=job.submission or "", at=99.0)


def events(folder: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / FILE_NAME) as other:
        found = other.execute("SELECT from_state, to_state, execution_id, code FROM event ORDER BY id").fetchall()
    other.close()
    return found


def test_an_intent_is_on_the_disk_before_begin_returns(ledger: Ledger, tmp_path: Path) -> None:
    [job] = begin(ledger, submission())
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        assert other.execute("SELECT state, attempts FROM job").fetchall() == [("submitting", 1)]
    other.close()
    assert job.state is State.SUBMITTING
    assert job.submission


def test_the_whole_way_of_a_job_and_its_history(ledger: Ledger, tmp_path: Path) -> None:
    [job] = begin(ledger, submission())
    [running] = record(ledger, job, ACCEPTED)
    assert (running.state, running.execution_id) == (State.RUNNING, "e1")
    [done] = record(ledger, running, ended(output()))
    assert (done.state, done.seconds, done.completed_at) == (State.COMPLETED, 5.0, 15.0)
    assert [row[3] for row in ledger.outputs()] == ["Front"]
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        steps = other.execute("SELECT from_state, to_state FROM event ORDER BY id").fetchall()
    other.close()
    assert steps == [(None, "planned"), ("planned", "submitting"), ("submitting", "running"), ("running", "completed")]


def test_news_told_twice_or_late_changes_nothing(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, ACCEPTED)
    assert record(ledger, job, ACCEPTED) == []
    record(ledger, job, ended(output()))
    for late in (ACCEPTED, ended(status="failed"), Unknown(code="x", message="y"), TimedOut(message="z")):
        assert record(ledger, job, late) == []


def test_an_end_seen_before_the_acceptance_counts(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    [done] = record(ledger, job, ended(output()))
    assert done.state is State.COMPLETED
    assert record(ledger, job, ACCEPTED) == []


def test_a_job_found_submitting_is_held(ledger: Ledger) -> None:
    begin(ledger, submission())
    [held] = ledger.recover(at=3.0, run_id="r2")
    assert (held.state, held.code) == (State.HELD, "interrupted")
    assert ledger.recover(at=4.0, run_id="r3") == []


def test_a_failed_output_makes_a_completed_execution_partial(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, ACCEPTED)
    [done] = record(ledger, job, ended(output(), output("error", None, "Back")))
    assert (done.state, done.failed_outputs, done.code) == (State.COMPLETED, 1, "partial")
    assert "Back" in (done.message or "")
    assert ledger.counts() == {"partial": 1}


def test_a_completed_execution_without_any_output_failed(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, ACCEPTED)
    [done] = record(ledger, job, ended(output("error", None)))
    assert (done.state, done.code) == (State.FAILED, "no_output")


def test_a_cancelled_execution_is_failed_with_its_code(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, ACCEPTED)
    [done] = record(ledger, job, ended(status="cancelled"))
    assert (done.state, done.code) == (State.FAILED, "cancelled")


def test_a_failed_job_is_sent_again_as_the_same_job(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, Refused(code="http_400", message="no"))
    [again] = begin(ledger, submission(job_id=job.id))
    assert (again.id, again.attempts, again.revision) == (job.id, 2, 1)
    assert again.submission != job.submission


def test_other_content_is_a_new_revision(ledger: Ledger) -> None:
    [first] = begin(ledger, submission())
    record(ledger, first, ACCEPTED)
    [second] = begin(ledger, submission(content="b"))
    assert (first.revision, second.revision) == (1, 2)


def test_the_schema_refuses_two_live_attempts_of_one_job(ledger: Ledger) -> None:
    begin(ledger, submission())
    with pytest.raises(StateError, match="UNIQUE"):
        begin(ledger, submission())
    assert len(ledger.jobs(*State)) == 1, "the refused transaction left nothing behind"


@pytest.mark.parametrize(("before", "after"), list(product(State, State)), ids=str)
def test_only_legal_transitions_are_written(ledger: Ledger, before: State, after: State) -> None:
    news: dict[State, tuple[News, ...]] = {
        State.PLANNED: (NotAccepted(code="x", message="x"),),
        State.SUBMITTING: (),
        State.RUNNING: (ACCEPTED,),
        State.COMPLETED: (ACCEPTED, ended(output())),
        State.FAILED: (ACCEPTED, ended(status="failed")),
        State.TIMED_OUT: (ACCEPTED, TimedOut(message="x")),
        State.REJECTED: (Refused(code="x", message="x"),),
        State.HELD: (Unknown(code="x", message="x"),),
    }
    [job] = begin(ledger, submission())
    for item in news[before]:
        record(ledger, job, item)
    [now] = ledger.jobs(*State)
    assert now.state is before
    target = Job(**{name: getattr(now, name) for name in now.__dataclass_fields__} | {"state": after})
    target = Job(
        **{name: getattr(target, name) for name in target.__dataclass_fields__}
        | {"execution_id": target.execution_id or "e1"}
    )
    with ledger._writing() as cursor:
        if after in LEGAL_TRANSITIONS[before]:
            ledger._change(cursor, now, target, at=3.0, run_id="r")
        else:
            with pytest.raises(IllegalTransitionError):
                ledger._change(cursor, now, target, at=3.0, run_id="r")


@pytest.mark.parametrize("statement", ["DELETE FROM event", "UPDATE event SET at = 0"])
def test_the_history_cannot_be_changed(ledger: Ledger, tmp_path: Path, statement: str) -> None:
    begin(ledger, submission())
    other = sqlite3.connect(tmp_path / FILE_NAME)
    with pytest.raises(sqlite3.IntegrityError):
        other.execute(statement)
    other.close()


def test_a_ledger_belongs_to_one_service_and_one_file(ledger: Ledger) -> None:
    ledger.bind(Binding(service="https://b", pipeline="x.yaml"))
    ledger.bind(Binding(service="https://a", pipeline="x.yaml"))
    begin(ledger, submission())  # until there is a job in it, it belongs to nobody
    ledger.bind(Binding(service="https://a", pipeline="x.yaml"))
    with pytest.raises(LedgerMismatchError, match="https://b"):
        ledger.bind(Binding(service="https://b", pipeline="x.yaml"))
    with pytest.raises(LedgerMismatchError, match=r"y\.yaml"):
        ledger.bind(Binding(service="https://a", pipeline="y.yaml"))
    ledger.bind(Binding(service="https://b", pipeline="x.yaml"), adopt=True)
    assert ledger.meta("service") == "https://b"


def test_a_damaged_ledger_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, it only looks like a file" * 100)
    with pytest.raises(StateError, match="backup"):
        open_ledger(tmp_path)


def test_a_newer_ledger_is_not_touched(tmp_path: Path) -> None:
    with open_ledger(tmp_path):
        pass
    other = sqlite3.connect(tmp_path / FILE_NAME)
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StateError, match="newer"):
        open_ledger(tmp_path)


def test_looking_for_a_ledger_makes_none(tmp_path: Path) -> None:
    assert find_ledger(tmp_path / "state") is None
    assert not (tmp_path / "state").exists()


def test_problems_are_new_once(ledger: Ledger) -> None:
    assert ledger.replace_problems(["a", "b"]) == 2
    assert ledger.replace_problems(["b", "c"]) == 1
    assert ledger.replace_problems([]) == 0
    assert ledger.replace_problems(["a"]) == 1


def test_commits_are_synchronous_and_in_a_write_ahead_log(ledger: Ledger) -> None:
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)


# -- callbacks -------------------------------------------------------------------------------------------------


UNKNOWN = Unknown(code="unknown", message="?")
BEFORE_THE_END: dict[str, tuple[News, ...]] = {
    "its POST is still open": (),
    "it is held": (UNKNOWN,),
    "it runs": (ACCEPTED,),
    "it timed out": (ACCEPTED, TimedOut(message="?")),
    "it shall be sent again": (UNKNOWN, ResubmissionRequested(reason="resubmitted")),
    "it was given up": (UNKNOWN, GivenUp()),
    "its answer said no": (Refused(code="http_400", message="?"),),
}


@pytest.mark.parametrize("news", BEFORE_THE_END.values(), ids=BEFORE_THE_END)
def test_a_callback_ends_its_job_whatever_was_thought_of_it(ledger: Ledger, news: tuple[News, ...]) -> None:
    [job] = begin(ledger, submission())
    for item in news:
        record(ledger, job, item)
    [done] = record(ledger, job, delivered(job))
    assert (done.state, done.execution_id) == (State.COMPLETED, "e1")
    assert [row[3] for row in ledger.outputs()] == ["Front"]
    assert record(ledger, job, delivered(job)) == []
    assert record(ledger, job, delivered(job, status="failed")) == []


def test_a_job_that_a_callback_ended_is_not_sent(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, UNKNOWN)
    record(ledger, job, ResubmissionRequested(reason="resubmitted"))
    record(ledger, job, delivered(job))
    assert begin(ledger, submission(job_id=job.id), submission("B", "b"))[0].key == "B"
    assert ledger.jobs(State.SUBMITTING)[0].key == "B"


def test_a_callback_of_an_earlier_submission_changes_nothing_but_is_told(ledger: Ledger, tmp_path: Path) -> None:
    """Sent, held, sent again with consent: then the first turns out to have been bought as well."""
    [first] = begin(ledger, submission())
    record(ledger, first, UNKNOWN)
    record(ledger, first, ResubmissionRequested(reason="resubmitted"))
    [second] = begin(ledger, submission(job_id=first.id))
    record(ledger, second, Accepted(execution_id="e2", generation="executions"))
    for _ in range(2):
        assert record(ledger, second, delivered(first, "e1")) == []
    told = [event for event in events(tmp_path) if event[3] == "also_accepted"]
    assert told == [("running", "running", "e1", "also_accepted")]
    owner = ledger.of_execution("e1")
    assert owner is not None
    assert owner.id == first.id


def test_a_late_callback_of_a_failed_attempt_does_not_end_the_next_one(ledger: Ledger) -> None:
    [first] = begin(ledger, submission())
    record(ledger, first, ACCEPTED)
    record(ledger, first, ended(status="failed"))
    [second] = begin(ledger, submission(job_id=first.id))
    assert record(ledger, second, delivered(first, "e1", "failed")) == []
    assert [job.state for job in ledger.jobs(*State)] == [State.SUBMITTING]


def test_a_submission_is_found_by_its_name_also_when_it_was_not_the_last(ledger: Ledger) -> None:
    [first] = begin(ledger, submission())
    record(ledger, first, Refused(code="x", message="x"))
    [second] = begin(ledger, submission(job_id=first.id))
    for one in (first, second):
        found = ledger.of_submission(one.submission or "")
        assert found is not None
        assert (found.id, found.submission) == (first.id, second.submission)
    assert ledger.of_submission("no such") is None


# -- files and imports -----------------------------------------------------------------------------------------


def test_outputs_that_came_as_urls_have_files(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, ACCEPTED)
    words = Output(id="t", label="Words", type="text", status="completed", value="hello", error=None)
    record(ledger, job, ended(output(), words, output("error", None, "Back")))
    [wanted] = ledger.files()
    assert (wanted.job_id, wanted.position, wanted.url, wanted.label) == (job.id, 0, "https://x/1.png", "Front")
    assert wanted.file is None
    ledger.put_downloads([Download(job_id=job.id, position=0, error="HTTP 404")], at=1.0)
    assert ledger.files(job.id) == [wanted]
    ledger.put_downloads([Download(job_id=job.id, position=0, file="a.png", sha256="0" * 64)], at=2.0)
    assert [known.file for known in ledger.files()] == ["a.png"]
    assert list(ledger.downloads()) == [(job.id, 0, "a.png", "0" * 64, None)]
    assert ledger.files(job.id + 1) == []


def test_importing_twice_does_no_harm(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, ACCEPTED)
    [done] = record(ledger, job, ended(output()))
    other = Job(**{n: getattr(done, n) for n in done.__dataclass_fields__} | {"key": "B", "execution_id": "e9"})
    for new in (1, 0):
        assert ledger.import_jobs([ImportedJob(job=done), ImportedJob(job=other)], at=5.0, run_id="r") == new
    assert [(j.key, j.execution_id) for j in ledger.jobs(State.COMPLETED)] == [("A", "e1"), ("B", "e9")]


# -- versions --------------------------------------------------------------------------------------------------


def schema_of(file: Path) -> dict[tuple[str, str], str]:
    """Every table, index and trigger as SQL, with spaces and comments that say nothing left out."""
    connection = sqlite3.connect(file)
    found = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {(kind, name): "".join(sql.split()) for kind, name, sql in found}


def test_a_ledger_of_the_first_version_becomes_what_a_fresh_one_is(tmp_path: Path) -> None:
    old = tmp_path / "old" / FILE_NAME
    old.parent.mkdir()
    golden = Path(__file__).parents[1] / "data" / "ledger-1.sql"
    connection = sqlite3.connect(old)
    connection.executescript(golden.read_text(encoding="utf-8") + "PRAGMA user_version = 1;")
    connection.execute(
        "INSERT INTO job VALUES (7, 'A', '', 1, ?, '{}', 'completed', 'app', 'c', 'executions', 'e1', 's1', 1, 1.0, "
        "2.0, 1.0, 0, NULL, NULL)",
        ("a" * 64,),
    )
    connection.commit()
    connection.close()
    with open_ledger(old.parent) as migrated, open_ledger(tmp_path / "new"):
        [job] = migrated.jobs(State.COMPLETED)
    assert (job.id, job.execution_id, job.by_webhook) == (7, "e1", False)
    assert schema_of(old) == schema_of(tmp_path / "new" / FILE_NAME)
    with sqlite3.connect(old) as check:
        assert check.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    check.close()


# -- one execution, several jobs ---------------------------------------------------------------------------------------


def test_a_202_with_the_execution_of_another_job_proves_nothing(ledger: Ledger) -> None:
    """Otherwise two products get the pictures of one."""
    first, second = begin(ledger, submission("A", "a"), submission("B", "b"))
    record(ledger, first, ACCEPTED)
    [held] = record(ledger, second, ACCEPTED)
    assert (held.state, held.execution_id, held.code) == (State.HELD, None, "foreign_execution")
    assert held.message is not None
    assert "e1" in held.message
    assert "'A'" in held.message


def test_both_in_one_transaction_are_no_exception(ledger: Ledger) -> None:
    first, second = begin(ledger, submission("A", "a"), submission("B", "b"))
    changed = ledger.record([(first.id, ACCEPTED), (second.id, ACCEPTED)], at=2.0, run_id="r1")
    assert [job.state for job in changed] == [State.RUNNING, State.HELD]


def test_a_callback_about_the_execution_of_another_job_changes_nothing(ledger: Ledger) -> None:
    first, second = begin(ledger, submission("A", "a"), submission("B", "b"))
    record(ledger, first, ACCEPTED)
    assert record(ledger, second, delivered(second, "e1")) == []
    [job] = ledger.jobs(State.SUBMITTING)
    assert job.id == second.id
    assert list(ledger.outputs([second.id])) == []


def test_the_same_news_twice_is_still_the_job_s_own(ledger: Ledger) -> None:
    [job] = begin(ledger, submission())
    record(ledger, job, ACCEPTED)
    assert record(ledger, job, ACCEPTED) == []
    [done] = record(ledger, job, delivered(job, "e1"))
    assert done.state is State.COMPLETED


def test_a_job_that_is_sent_again_for_a_renamed_row_is_named_as_the_row(ledger: Ledger) -> None:
    """Else the manifest says that row B9 is held, and no held job is called B9."""
    [job] = begin(ledger, submission("B", "b"))
    record(ledger, job, ACCEPTED)
    record(ledger, job, ended(status="failed"))
    [again] = begin(ledger, submission("B9", "b", job_id=job.id))
    assert (again.id, again.key, again.revision, again.attempts) == (job.id, "B9", 1, 2)
    [held] = record(ledger, again, Unknown(code="unknown", message="lost"))
    assert (held.name, held.state) == ("B9", State.HELD)
    [new] = begin(ledger, submission("B", "c"))
    assert (new.key, new.revision) == ("B", 1)
