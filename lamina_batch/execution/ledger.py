"""The durable record of every job: the one place with SQL.

Whatever is in here has been committed to the disk (WAL, synchronous FULL) before anything relies on it: a job is
`submitting` here before its POST leaves. Transitions are guarded twice, by the table in job.py and by the schema,
and each is written together with the event that tells it.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Self

from lamina_batch.errors import LedgerMismatchError, StateError
from lamina_batch.execution.job import (
    LEGAL,
    AskedAgain,
    IllegalTransitionError,
    Job,
    Observed,
    State,
    Unknown,
    advance,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lamina_batch.client.lamina import Output
    from lamina_batch.execution.job import News, Submission

SCHEMA_VERSION = 1
FILE_NAME = "ledger.sqlite"

_JOB_COLUMNS = (
    "id, key, variant, revision, content, inputs, state, app_id, contract, generation, execution_id, submission, "
    "attempts, submitted_at, completed_at, seconds, failed_outputs, code, message"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a ledger belongs to. Another one under the same state is refused, or work would be bought again."""

    #: base URL of the service, or the word `sandbox`
    service: str
    #: the pipeline file as seen from the state folder, so that the whole project may move
    pipeline: str


class Ledger:
    """An open ledger. Use `open_ledger`."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self._db = connection
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Cursor]:
        """One transaction: all of it durable when the block ends, or none of it."""
        try:
            cursor = self._db.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")
        except sqlite3.Error as error:
            raise _cannot("written", self._file, error) from error

    # -- what the ledger belongs to ------------------------------------------------------------------------

    def bind(self, binding: Binding, *, adopt: bool = False) -> None:
        """Tie the ledger to its service and pipeline file, if they are new or `adopt` says that this is meant.

        Raises LedgerMismatchError where it holds jobs of others.
        """
        if not self.check_binding(binding, adopt=adopt):
            self.set_meta({"service": binding.service, "pipeline": binding.pipeline})

    def check_binding(self, binding: Binding, *, adopt: bool = False) -> bool:
        """Whether the ledger is tied to this service and pipeline file. Raises LedgerMismatchError as `bind` does."""
        found = self.meta("service"), self.meta("pipeline")
        wanted = binding.service, binding.pipeline
        if found not in {wanted, (None, None)} and not adopt and not self._is_empty():
            raise LedgerMismatchError(
                f"this ledger belongs to {self._path(found[1])} at {found[0]}, "
                f"not to {self._path(wanted[1])} at {wanted[0]}",
                where=str(self._file),
                hint="give this pipeline a `state` of its own, or take the ledger over with `run --adopt-state`",
            )
        return found == wanted

    def _is_empty(self) -> bool:
        return self._db.execute("SELECT 1 FROM job LIMIT 1").fetchone() is None

    def _path(self, pipeline: str | None) -> str:
        return os.path.normpath(self._file.parent / (pipeline or ""))

    def meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, values: Mapping[str, str]) -> None:
        with self._writing() as cursor:
            cursor.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    # -- changing jobs -------------------------------------------------------------------------------------

    def begin(
        self, submissions: Iterable[Submission], *, app_id: str, contract: str, at: float, run_id: str
    ) -> list[Job]:
        """Make the intent of these submissions durable: afterwards each is `submitting` and may be sent, once.

        One transaction. Raises StateError if it cannot be committed, and then nothing may be sent.
        """
        with self._writing() as cursor:
            return [
                self._begin(cursor, submission, app_id=app_id, contract=contract, at=at, run_id=run_id)
                for submission in submissions
            ]

    def _begin(
        self, cursor: sqlite3.Cursor, submission: Submission, *, app_id: str, contract: str, at: float, run_id: str
    ) -> Job:
        if submission.job_id is None:
            job = self._insert(cursor, submission, app_id=app_id, contract=contract, at=at, run_id=run_id)
        else:
            job = self._load(cursor, submission.job_id)
            again = advance(job, AskedAgain(reason="asked again"))
            if again is not None:
                self._change(cursor, job, again, at=at, run_id=run_id)
                cursor.execute("DELETE FROM output WHERE job_id = ?", (job.id,))
                job = again
        sending = replace(
            job,
            state=State.SUBMITTING,
            app_id=app_id,
            contract=contract,
            submission=uuid.uuid4().hex,
            attempts=job.attempts + 1,
            submitted_at=at,
            code=None,
            message=None,
        )
        self._change(cursor, job, sending, at=at, run_id=run_id)
        return sending

    def _insert(
        self, cursor: sqlite3.Cursor, submission: Submission, *, app_id: str, contract: str, at: float, run_id: str
    ) -> Job:
        key, variant = submission.key, submission.variant
        cursor.execute(
            "INSERT INTO job (key, variant, revision, content, inputs, state, app_id, contract) VALUES "
            "(?, ?, (SELECT coalesce(max(revision), 0) + 1 FROM job WHERE key = ? AND variant = ?), ?, ?, ?, ?, ?)",
            (key, variant, key, variant, submission.content, submission.inputs, State.PLANNED, app_id, contract),
        )
        job = self._load(cursor, cursor.lastrowid or 0)
        _tell(cursor, None, job, at=at, run_id=run_id)
        return job

    def record(self, news: Sequence[tuple[int, News]], *, at: float, run_id: str) -> list[Job]:
        """Write down what is new about these jobs, all in one transaction. Answers those that changed.

        News that is old or told twice changes nothing. Raises StateError if it cannot be committed.
        """
        changed: list[Job] = []
        with self._writing() as cursor:
            for job_id, item in news:
                job = self._load(cursor, job_id)
                after = advance(job, item)
                if after is None:
                    continue
                self._change(cursor, job, after, at=at, run_id=run_id)
                if isinstance(item, Observed):
                    _put_outputs(cursor, job_id, item.execution.outputs)
                changed.append(after)
        return changed

    def recover(self, *, at: float, run_id: str) -> list[Job]:
        """Hold every job found `submitting`: its POST was cut off, and nobody knows what became of it."""
        cut_off = Unknown(
            code="interrupted",
            message="it is not known whether this was bought: the run was cut off before the answer was heard",
        )
        return self.record([(job.id, cut_off) for job in self.jobs(State.SUBMITTING)], at=at, run_id=run_id)

    def _change(self, cursor: sqlite3.Cursor, before: Job, after: Job, *, at: float, run_id: str) -> None:
        if after.state not in LEGAL[before.state]:
            msg = f"job {before.id}: {before.state} -> {after.state}"
            raise IllegalTransitionError(msg)
        cursor.execute(
            "UPDATE job SET state = ?, app_id = ?, contract = ?, generation = ?, execution_id = ?, submission = ?, "
            "attempts = ?, submitted_at = ?, completed_at = ?, seconds = ?, failed_outputs = ?, code = ?, message = ? "
            "WHERE id = ? AND state = ?",
            (
                after.state,
                after.app_id,
                after.contract,
                after.generation,
                after.execution_id,
                after.submission,
                after.attempts,
                after.submitted_at,
                after.completed_at,
                after.seconds,
                after.failed_outputs,
                after.code,
                after.message,
                before.id,
                before.state,
            ),
        )
        if cursor.rowcount != 1:
            msg = f"job {before.id} is no longer {before.state}"
            raise IllegalTransitionError(msg)
        _tell(cursor, before.state, after, at=at, run_id=run_id)

    # -- reading -------------------------------------------------------------------------------------------

    def _load(self, cursor: sqlite3.Cursor, job_id: int) -> Job:
        row = cursor.execute(f"SELECT {_JOB_COLUMNS} FROM job WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            msg = f"no job {job_id}"
            raise IllegalTransitionError(msg)
        return _job(row)

    def _jobs(self, rest: str, values: Sequence[object] = ()) -> list[Job]:
        rows = self._db.execute(f"SELECT {_JOB_COLUMNS} FROM job {rest}", tuple(values)).fetchall()
        return [_job(row) for row in rows]

    def jobs(self, *states: State) -> list[Job]:
        """The jobs in these states, oldest first."""
        marks = ", ".join("?" * len(states))
        return self._jobs(f"WHERE state IN ({marks}) ORDER BY id", states)

    def table(self) -> list[tuple[object, ...]]:
        """Every job as a plain tuple in the order of TABLE, oldest first: what plan.py joins the catalog with."""
        return self._db.execute(f"SELECT {', '.join(TABLE)} FROM job ORDER BY id").fetchall()

    def outputs(self) -> list[tuple[object, ...]]:
        """Every output as a plain tuple in the order of OUTPUTS, by job and position."""
        return self._db.execute(f"SELECT {', '.join(OUTPUTS)} FROM output ORDER BY job_id, position").fetchall()

    def newest_inputs(self, key: str, variant: str) -> str | None:
        """The canonical inputs of the newest revision, or None where there is none."""
        row = self._db.execute(
            "SELECT inputs FROM job WHERE key = ? AND variant = ? ORDER BY revision DESC LIMIT 1", (key, variant)
        ).fetchone()
        return None if row is None else str(row[0])

    def counts(self) -> dict[str, int]:
        """How many newest revisions stand in each state; a completed one with failed outputs counts as partial."""
        rows = self._db.execute(
            "SELECT CASE WHEN state = 'completed' AND failed_outputs > 0 THEN 'partial' ELSE state END AS status, "
            "count(*) FROM job AS j WHERE revision = (SELECT max(revision) FROM job WHERE key = j.key AND "
            "variant = j.variant) GROUP BY status"
        ).fetchall()
        return {str(status): int(count) for status, count in rows}

    def durations(self, app_id: str, most: int = 1000) -> list[float]:
        """Seconds that the latest executions of this app took, newest first."""
        rows = self._db.execute(
            "SELECT seconds FROM job WHERE app_id = ? AND state = 'completed' AND seconds IS NOT NULL "
            "ORDER BY completed_at DESC LIMIT ?",
            (app_id, most),
        ).fetchall()
        return [float(row[0]) for row in rows]

    def replace_problems(self, identities: Iterable[str]) -> int:
        """Remember what is wrong now; answers how many of these problems the last run did not have."""
        wanted = set(identities)
        with self._writing() as cursor:
            known = {str(row[0]) for row in cursor.execute("SELECT identity FROM problem")}
            cursor.execute("DELETE FROM problem")
            cursor.executemany("INSERT INTO problem VALUES (?)", [(identity,) for identity in sorted(wanted)])
        return len(wanted - known)


TABLE = (
    "id",
    "key",
    "variant",
    "revision",
    "content",
    "state",
    "app_id",
    "contract",
    "execution_id",
    "attempts",
    "submitted_at",
    "completed_at",
    "seconds",
    "failed_outputs",
    "code",
    "message",
)
OUTPUTS = ("job_id", "position", "output_id", "label", "type", "status", "value", "error")


def find_ledger(folder: Path) -> Ledger | None:
    """Open the ledger in `folder` if there is one. Raises StateError as `open_ledger` does."""
    return open_ledger(folder) if (folder / FILE_NAME).exists() else None


def open_ledger(folder: Path) -> Ledger:
    """Open the ledger in `folder`, or make a new one.

    Raises StateError where it cannot be opened, is damaged, or was written by a newer version.
    """
    file = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(file, isolation_level=None, timeout=10.0)
    except (OSError, sqlite3.Error) as error:
        raise _cannot("opened", file, error) from error
    try:
        # FULL: a commit that returned is on the disk, also after a power cut. That is the whole promise.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _prepare(connection, file)
    except sqlite3.Error as error:
        connection.close()
        raise _cannot("opened", file, error) from error
    except StateError:
        connection.close()
        raise
    return Ledger(connection, file)


def _prepare(connection: sqlite3.Connection, file: Path) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise StateError(
            f"the ledger was written by a newer version of lamina-batch (schema {version})",
            where=str(file),
            hint="update lamina-batch, or give the pipeline another `state`",
        )
    if version == SCHEMA_VERSION:
        return
    # Readers (status, plan) do not wait for a writer, and a crash leaves nothing half written.
    connection.execute("PRAGMA journal_mode = WAL")
    schema = files("lamina_batch").joinpath("execution/schema.sql").read_text(encoding="utf-8")
    connection.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


def _tell(cursor: sqlite3.Cursor, before: State | None, after: Job, *, at: float, run_id: str) -> None:
    cursor.execute(
        "INSERT INTO event (at, run_id, job_id, from_state, to_state, submission, execution_id, code, message) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            at,
            run_id,
            after.id,
            before,
            after.state,
            after.submission,
            after.execution_id,
            after.code,
            after.message,
        ),
    )


def _put_outputs(cursor: sqlite3.Cursor, job_id: int, outputs: Iterable[Output]) -> None:
    cursor.execute("DELETE FROM output WHERE job_id = ?", (job_id,))
    cursor.executemany(
        "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(job_id, n, o.id, o.label, o.type, o.status, o.value, o.error) for n, o in enumerate(outputs)],
    )


def _job(row: Sequence[object]) -> Job:
    values: dict[str, object] = dict(zip(_JOB_COLUMNS.split(", "), row, strict=True))
    return Job(**{**values, "state": State(str(values["state"]))})  # type: ignore[arg-type]  # the schema is STRICT


def _cannot(done: str, file: Path, error: Exception) -> StateError:
    hint = "see that the disk has room and the folder may be written"
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        hint = "the file is damaged: restore it from a backup; deleting it makes the next run buy everything again"
    return StateError(f"the ledger cannot be {done}: {error}", where=os.fspath(file), hint=hint)
