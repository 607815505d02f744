"""The durable record of every job: the one place with SQL.

Whatever is in here has been committed to the disk (WAL, synchronous FULL) before anything relies on it: a job is
`submitting` here before its POST leaves. Transitions are guarded twice, by the table in job.py and by the schema,
and each is written together with the event that tells it.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from lamina_batch.errors import LedgerMismatchError, StateError
from lamina_batch.ledger.job import (
    LEGAL_TRANSITIONS,
    Accepted,
    Delivered,
    IllegalTransitionError,
    Job,
    Observed,
    ResubmissionRequested,
    State,
    Unknown,
    advance,
    names_execution,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from lamina_batch.client.lamina import Output
    from lamina_batch.ledger.job import News, Submission
    from lamina_batch.ledger.state_folder import DiskReserve

SCHEMA_VERSION = 5
FILE_NAME = "ledger.sqlite"

_JOB_COLUMNS = (
    "id, key, variant, revision, content, inputs, state, app_id, contract, generation, execution_id, submission, "
    "attempts, submitted_at, completed_at, seconds, failed_outputs, code, message, by_webhook"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """What a ledger belongs to. Another one under the same state is refused, or work would be bought again."""

    #: base URL of the service, or the word `sandbox`
    service: str
    #: the pipeline file as seen from the state folder, so that the whole project may move
    pipeline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What became of the file behind an output: `file` and `sha256`, or `error`."""

    job_id: int
    #: of the output in its job
    position: int
    #: as seen from the ledger's folder, so that the whole project may move
    file: str | None = None
    sha256: str | None = None
    error: str | None = None


class OutputFile(NamedTuple):
    """An output that came as a URL, and the file it was saved to."""

    job_id: int
    position: int
    url: str
    type: str
    key: str
    variant: str
    label: str
    #: as seen from the ledger's folder; None: not saved yet
    file: str | None


#: Hexadecimal digits of a SHA-256 that identify a content: 128 bits are enough where no one forges contents.
CONTENT_DIGITS = 32


class Contents(NamedTuple):
    """Contents by their first CONTENT_DIGITS, one after another, some thousand in each text, read as they are taken."""

    #: of jobs that are completed in all their outputs
    completed: Iterator[str]
    #: of all other jobs; to be taken after the completed ones, so that what completes in between counts as neither
    others: Iterator[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedJob:
    """A job as another record than the ledger tells of it. Its id and revision are given anew."""

    job: Job
    outputs: tuple[Output, ...] = ()
    #: files that are here
    downloads: tuple[Download, ...] = ()


class Ledger:
    """An open ledger. Use `open_ledger`."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self._db = connection
        self._file = file
        self._identity = _identity(file)
        #: given up when the disk is full, so that what is known of sent submissions still finds room
        self.reserve: DiskReserve | None = None

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self._file.parent

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
                cursor.execute("COMMIT")
            except BaseException:
                # On a full disk SQLite may have rolled back by itself.
                if self._db.in_transaction:
                    cursor.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _ledger_error("written", self._file, error) from error

    def _read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """All rows that answer it. Raises StateError if the file cannot be read."""
        try:
            return self._db.execute(query, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise _ledger_error("read", self._file, error) from error

    def _each(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Each row that answers it, as it is taken. Raises StateError if the file cannot be read."""
        try:
            yield from self._db.execute(query, tuple(values))
        except sqlite3.Error as error:
            raise _ledger_error("read", self._file, error) from error

    # -- what the ledger belongs to ------------------------------------------------------------------------

    def bind(self, binding: Binding, *, adopt: bool = False) -> None:
        """Tie the ledger to its service and pipeline file, if they are new or `adopt` says that this is meant.

        Raises LedgerMismatchError if it holds jobs of others.
        """
        if not self.check_binding(binding, adopt=adopt):
            self.set_meta({"service": binding.service, "pipeline": binding.pipeline})

    def check_binding(self, binding: Binding, *, adopt: bool = False) -> bool:
        """Whether the ledger is tied to this service and pipeline file. Raises LedgerMismatchError as `bind` does."""
        found = self.meta("service"), self.meta("pipeline")
        wanted = binding.service, binding.pipeline
        if found not in {wanted, (None, None)} and not adopt and not self.is_empty():
            raise LedgerMismatchError(
                f"this ledger belongs to {self._path(found[1])} at {found[0]}, "
                f"not to {self._path(wanted[1])} at {wanted[0]}",
                where=str(self._file),
                hint=_mismatch_hint(found, wanted),
            )
        return found == wanted

    def is_empty(self) -> bool:
        """Whether no job was ever planned in it."""
        return not self._read("SELECT 1 FROM job LIMIT 1")

    def _path(self, pipeline: str | None) -> str:
        return os.path.normpath(self._file.parent / (pipeline or ""))

    def meta(self, name: str) -> str | None:
        """A remembered value; None if there is none."""
        rows = self._read("SELECT value FROM meta WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Remember values by name. Raises StateError."""
        with self._writing() as cursor:
            cursor.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    # -- changing jobs -------------------------------------------------------------------------------------

    def begin(
        self,
        submissions: Iterable[Submission],
        *,
        app_id: str,
        contract: str,
        at: float,
        run_id: str,
        by_webhook: bool = False,
    ) -> list[Job]:
        """Make the intent of these submissions durable: afterwards each is `submitting` and may be sent, once.

        One transaction. A job that news has ended since it was planned is left out of the answer. Raises StateError
        if it cannot be committed, and then nothing may be sent.
        """
        if _identity(self._file) != self._identity:
            # What is open goes on into a file without a name: good for what was sent, and nothing may follow it.
            raise StateError(
                "the ledger was removed or replaced",
                where=str(self._file),
                hint="put the state folder back, then run it again",
            )
        if self.reserve is not None and self.reserve.released:
            raise StateError("the disk is full", where=str(self._file), hint="make room, then run it again")
        sending: list[Job] = []
        with self._writing() as cursor:
            for submission in submissions:
                job = self._planned(cursor, submission, app_id=app_id, contract=contract, at=at, run_id=run_id)
                if job is None:
                    continue
                after = replace(
                    job,
                    state=State.SUBMITTING,
                    inputs=submission.inputs,
                    app_id=app_id,
                    contract=contract,
                    submission=secrets.token_hex(16),
                    by_webhook=by_webhook,
                    attempts=job.attempts + 1,
                    submitted_at=at,
                    code=None,
                    message=None,
                )
                self._change(cursor, job, after, at=at, run_id=run_id)
                sending.append(after)
        return sending

    def _planned(
        self, cursor: sqlite3.Cursor, submission: Submission, *, app_id: str, contract: str, at: float, run_id: str
    ) -> Job | None:
        """The job to send; None if it is not to be sent any more."""
        if submission.job_id is None:
            return self._insert(cursor, submission, app_id=app_id, contract=contract, at=at, run_id=run_id)
        job = self._load(cursor, submission.job_id)
        again = advance(job, ResubmissionRequested(reason="asked again"))
        if again is None:
            return self._named_as(cursor, job, submission) if job.state is State.PLANNED else None
        self._change(cursor, job, again, at=at, run_id=run_id)
        cursor.execute("DELETE FROM output WHERE job_id = ?", (job.id,))
        return self._named_as(cursor, again, submission)

    def _named_as(self, cursor: sqlite3.Cursor, job: Job, submission: Submission) -> Job:
        """The job under the key and variant of the row that it is sent for now: the row's key may have changed."""
        key, variant = submission.key, submission.variant
        if (job.key, job.variant) == (key, variant):
            return job
        cursor.execute(
            "UPDATE job SET key = ?, variant = ?, revision = "
            "(SELECT coalesce(max(revision), 0) + 1 FROM job WHERE key = ? AND variant = ?) WHERE id = ?",
            (key, variant, key, variant, job.id),
        )
        return self._load(cursor, job.id)

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
        _insert_event(cursor, None, job, at=at, run_id=run_id)
        return job

    def record(self, news: Sequence[tuple[int, News]], *, at: float, run_id: str) -> list[Job]:
        """Write down what is new about these jobs, all in one transaction. Returns those that changed.

        News that is old or told twice changes nothing; an execution that nobody knew of yet is told in an event even
        then. Raises StateError if it cannot be committed, also with the room that was kept back.
        """
        try:
            return self._record(news, at=at, run_id=run_id)
        except StateError as error:
            if not _is_disk_full(error.__cause__) or self.reserve is None or not self.reserve.release():
                raise
        return self._record(news, at=at, run_id=run_id)

    def _record(self, news: Sequence[tuple[int, News]], *, at: float, run_id: str) -> list[Job]:
        changed: list[Job] = []
        with self._writing() as cursor:
            for job_id, item in news:
                job = self._load(cursor, job_id)
                owner = self._other_owner(cursor, job, item)
                if owner is not None and not isinstance(item, Accepted):
                    # Outputs of another row's execution must not become this row's.
                    continue
                if owner is not None:
                    item = _foreign_execution(owner)  # noqa: PLW2901  # the answer proves nothing about this job
                after = advance(job, item)
                if after is None:
                    self._keep_stranger(cursor, job, item, at=at, run_id=run_id)
                    continue
                self._change(cursor, job, after, at=at, run_id=run_id)
                if isinstance(item, Observed | Delivered):
                    _insert_outputs(cursor, job_id, item.execution.outputs)
                changed.append(after)
        return changed

    def _keep_stranger(self, cursor: sqlite3.Cursor, job: Job, news: News, *, at: float, run_id: str) -> None:
        """An execution beside the job's own, of an earlier submission, has been paid for: its id is kept."""
        execution_id = names_execution(news)
        if execution_id is None or self._is_known(cursor, execution_id):
            return
        other = replace(
            job,
            submission=news.submission if isinstance(news, Delivered) else job.submission,
            execution_id=execution_id,
            code="also_accepted",
            message="the service accepted this too, for an earlier submission of the job",
        )
        _insert_event(cursor, job.state, other, at=at, run_id=run_id)

    def _other_owner(self, cursor: sqlite3.Cursor, job: Job, news: News) -> Job | None:
        """The other job that has the execution which the news names; None if there is none."""
        execution_id = names_execution(news)
        found = f"SELECT {_JOB_COLUMNS} FROM job WHERE execution_id = ? AND id <> ? LIMIT 1"
        row = cursor.execute(found, (execution_id, job.id)).fetchone() if execution_id is not None else None
        return _job_from_row(row) if row is not None else None

    def _is_known(self, cursor: sqlite3.Cursor, execution_id: str) -> bool:
        found = "SELECT 1 FROM job WHERE execution_id = :id UNION ALL SELECT 1 FROM event WHERE execution_id = :id"
        return cursor.execute(f"{found} LIMIT 1", {"id": execution_id}).fetchone() is not None

    def recover(self, *, at: float, run_id: str) -> list[Job]:
        """Hold every job found `submitting`: its POST was cut off, and its fate is not known."""
        cut_off = Unknown(
            code="interrupted",
            message="it is not known whether this was bought: the run was cut off before the answer was heard",
        )
        return self.record([(job.id, cut_off) for job in self.jobs(State.SUBMITTING)], at=at, run_id=run_id)

    def _change(self, cursor: sqlite3.Cursor, before: Job, after: Job, *, at: float, run_id: str) -> None:
        if after.state not in LEGAL_TRANSITIONS[before.state]:
            msg = f"job {before.id}: {before.state} -> {after.state}"
            raise IllegalTransitionError(msg)
        cursor.execute(
            "UPDATE job SET state = ?, inputs = ?, app_id = ?, contract = ?, generation = ?, execution_id = ?, "
            "submission = ?, attempts = ?, submitted_at = ?, completed_at = ?, seconds = ?, failed_outputs = ?, "
            "code = ?, message = ?, by_webhook = ? WHERE id = ? AND state = ?",
            (
                after.state,
                after.inputs,
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
                after.by_webhook,
                before.id,
                before.state,
            ),
        )
        if cursor.rowcount != 1:
            msg = f"job {before.id} is no longer {before.state}"
            raise IllegalTransitionError(msg)
        _insert_event(cursor, before.state, after, at=at, run_id=run_id)

    def put_downloads(self, downloads: Iterable[Download], *, at: float) -> None:
        """Write down what became of these files, in place of what was known. Raises StateError."""
        with self._writing() as cursor:
            _upsert_downloads(cursor, downloads, at)

    def import_jobs(self, imported: Iterable[ImportedJob], *, at: float, run_id: str) -> int:
        """Take over jobs that another ledger knew. Returns how many were new.

        One that is here already, by its execution or by its row and content, is left out: importing twice does no
        harm.
        """
        count = 0
        with self._writing() as cursor:
            for item in imported:
                job = item.job
                if job.execution_id is not None and self._is_known(cursor, job.execution_id):
                    continue
                same = "SELECT 1 FROM job WHERE key = ? AND variant = ? AND content = ? LIMIT 1"
                if cursor.execute(same, (job.key, job.variant, job.content)).fetchone():
                    continue
                self._put_imported(cursor, item, at=at, run_id=run_id)
                count += 1
        return count

    def _put_imported(self, cursor: sqlite3.Cursor, item: ImportedJob, *, at: float, run_id: str) -> None:
        job = item.job
        marks = ", ".join("?" * len(_JOB_COLUMNS.split(", ")))
        revision = "SELECT coalesce(max(revision), 0) + 1 FROM job WHERE key = ? AND variant = ?"
        number = cursor.execute(revision, (job.key, job.variant)).fetchone()[0]
        values = {name: getattr(job, name) for name in _JOB_COLUMNS.split(", ")} | {"id": None, "revision": number}
        cursor.execute(f"INSERT INTO job ({_JOB_COLUMNS}) VALUES ({marks})", tuple(values.values()))
        job_id = cursor.lastrowid or 0
        _insert_outputs(cursor, job_id, item.outputs)
        _upsert_downloads(cursor, (replace(download, job_id=job_id) for download in item.downloads), at)
        _insert_event(cursor, None, replace(job, id=job_id, code="imported"), at=at, run_id=run_id)

    # -- reading -------------------------------------------------------------------------------------------

    def _load(self, cursor: sqlite3.Cursor, job_id: int) -> Job:
        row = cursor.execute(f"SELECT {_JOB_COLUMNS} FROM job WHERE id = ?", (job_id,)).fetchone()
        if row is None:
            msg = f"no job {job_id}"
            raise IllegalTransitionError(msg)
        return _job_from_row(row)

    def _jobs(self, rest: str, values: Sequence[object] = ()) -> list[Job]:
        return [_job_from_row(row) for row in self._read(f"SELECT {_JOB_COLUMNS} FROM job {rest}", values)]

    def jobs(self, *states: State) -> list[Job]:
        """The jobs in these states, oldest first."""
        marks = ", ".join("?" * len(states))
        return self._jobs(f"WHERE state IN ({marks}) ORDER BY id", states)

    def table(self) -> Iterator[tuple[object, ...]]:
        """Every job as a plain tuple in the order of TABLE, oldest first: what plan.py joins the catalog with.

        Read as they are taken. Raises StateError if the file cannot be read.
        """
        return self._each(f"SELECT {_TABLE_SQL} FROM job ORDER BY id")

    def table_about(self, keys: Sequence[str], contents: Sequence[str]) -> Iterator[tuple[object, ...]]:
        """What `table` has of jobs with one of these keys or contents."""
        return self._each(
            f"SELECT {_TABLE_SQL} FROM job WHERE id IN ("
            "SELECT id FROM job WHERE key IN (SELECT value FROM json_each(?)) UNION "
            "SELECT id FROM job WHERE content IN (SELECT value FROM json_each(?))) ORDER BY id",
            (json.dumps(keys), json.dumps(contents)),
        )

    def contents(self) -> Contents:
        """Every content, of completed jobs and of all others. Raises StateError if the file cannot be read.

        SQLite puts the digits together: a million rows are never a million objects of Python.
        """
        lines = f"SELECT group_concat(substr(content, 1, {CONTENT_DIGITS}), '') FROM job"
        done = "state = 'completed' AND failed_outputs = 0"
        digits = "0123456789abcdef"
        return Contents(
            completed=(
                str(text)
                for low, high in itertools.pairwise(f"{digits}g")
                for (text,) in self._each(f"{lines} WHERE content >= ? AND content < ? AND {done}", (low, high))
                if text is not None
            ),
            others=(str(text) for (text,) in self._each(f"{lines} WHERE NOT ({done})") if text is not None),
        )

    def outputs(self, job_ids: Sequence[int] | None = None) -> Iterator[tuple[object, ...]]:
        """Every output (or those of these jobs) as a plain tuple in the order of OUTPUTS, by job and position."""
        return self._of_jobs("output", OUTPUTS, job_ids)

    def downloads(self, job_ids: Sequence[int] | None = None) -> Iterator[tuple[object, ...]]:
        """What became of files that were asked for, as plain tuples in the order of DOWNLOADS."""
        return self._of_jobs("download", DOWNLOADS, job_ids)

    def _of_jobs(
        self, table: str, columns: Sequence[str], job_ids: Sequence[int] | None
    ) -> Iterator[tuple[object, ...]]:
        some = "" if job_ids is None else "WHERE job_id IN (SELECT value FROM json_each(?)) "
        return self._each(
            f"SELECT {', '.join(columns)} FROM {table} {some}ORDER BY job_id, position",
            () if job_ids is None else (json.dumps(job_ids),),
        )

    def files(self, job_id: int | None = None) -> list[OutputFile]:
        """The outputs of completed jobs (or of this one) that came as a URL, oldest first."""
        one, values = ("", ()) if job_id is None else ("AND o.job_id = ? ", (job_id,))
        rows = self._read(
            "SELECT o.job_id, o.position, o.value, o.type, j.key, j.variant, o.label, d.file "
            "FROM output AS o JOIN job AS j ON j.id = o.job_id LEFT JOIN download AS d USING (job_id, position) "
            "WHERE j.state = 'completed' AND o.status = 'completed' AND o.type <> 'text' AND o.value IS NOT NULL "
            f"{one}ORDER BY o.job_id, o.position",
            values,
        )
        return [OutputFile(*row) for row in rows]

    def newest_inputs(self, key: str, variant: str) -> str | None:
        """The canonical inputs of the newest revision; None if there is none, empty if it was imported."""
        rows = self._read(
            "SELECT inputs FROM job WHERE key = ? AND variant = ? ORDER BY revision DESC LIMIT 1", (key, variant)
        )
        return str(rows[0][0]) if rows else None

    def of_submission(self, submission: str) -> Job | None:
        """The job that was sent under this name, in its last submission or in an earlier one."""
        found = self._jobs("WHERE id = (SELECT job_id FROM event WHERE submission = ? LIMIT 1)", (submission,))
        return found[0] if found else None

    def owner_of(self, execution_id: str) -> Job | None:
        """The job whose outputs are, or will be, those of this execution."""
        found = self._jobs("WHERE execution_id = ? LIMIT 1", (execution_id,))
        return found[0] if found else None

    def of_execution(self, execution_id: str) -> Job | None:
        """The job that this execution was bought for."""
        found = self._jobs(
            "WHERE id = (SELECT job_id FROM event WHERE execution_id = ? ORDER BY id DESC LIMIT 1)", (execution_id,)
        )
        return found[0] if found else None

    def counts(self) -> dict[str, int]:
        """Newest revisions by state. A completed one with failed outputs counts as partial."""
        rows = self._read(
            "SELECT CASE WHEN state = 'completed' AND failed_outputs > 0 THEN 'partial' ELSE state END AS status, "
            "count(*) FROM job AS j WHERE revision = (SELECT max(revision) FROM job WHERE key = j.key AND "
            "variant = j.variant) GROUP BY status"
        )
        return {str(status): int(count) for status, count in rows}

    def durations(self, app_id: str, most: int = 1000) -> list[float]:
        """Seconds that the latest executions of this app took, newest first."""
        rows = self._read(
            "SELECT seconds FROM job WHERE app_id = ? AND state = 'completed' AND seconds IS NOT NULL "
            "ORDER BY completed_at DESC LIMIT ?",
            (app_id, most),
        )
        return [float(row[0]) for row in rows]

    def replace_problems(self, identities: Iterable[str]) -> int:
        """Remember what is wrong now; returns how many of these problems the last run did not have."""
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
    "changed_at_event",
)
#: `changed_at_event` is the number of the event in which the job got its state. Events are numbered in the order in
#: which this ledger recorded them, so the number tells which of two jobs changed later. No clock does: the service and
#: this computer have one each, and clocks jump.
_TABLE_SQL = ", ".join(TABLE[:-1]) + (
    ", (SELECT max(event.id) FROM event WHERE event.job_id = job.id AND from_state IS NOT to_state)"
)
OUTPUTS = ("job_id", "position", "output_id", "label", "type", "status", "value", "error")
DOWNLOADS = ("job_id", "position", "file", "sha256", "error")


def _mismatch_hint(found: tuple[str | None, str | None], wanted: tuple[str | None, str | None]) -> str:
    if found[0] == wanted[0]:
        return "give this pipeline a `state` of its own, or take the ledger over with `run --adopt-state`"
    return (
        f"is `--base-url {found[0]}` missing? If the other service is meant, give it a `state` of its own; "
        "`run --adopt-state` takes the ledger over, and buys its rows again at that service"
    )


def find_ledger(folder: Path) -> Ledger | None:
    """Open the ledger in `folder` if there is one; in a folder that cannot be written, for reading.

    Raises StateError as `open_ledger` does.
    """
    file = folder / FILE_NAME
    if not file.exists():
        return None
    if os.access(folder, os.W_OK) and os.access(file, os.W_OK):
        try:
            return open_ledger(folder)
        except StateError as error:
            if not _is_disk_full(error.__cause__):
                raise
    # Without a write-ahead log beside it nothing is missing from the file, and reading it needs no lock.
    log = file.with_name(f"{FILE_NAME}-wal")
    frozen = "" if log.exists() and log.stat().st_size else "&immutable=1"
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro{frozen}", uri=True, isolation_level=None)
        version = _read_schema_version(connection, file)
    except sqlite3.Error as error:
        raise _ledger_error("opened", file, error) from error
    if version < SCHEMA_VERSION:
        connection.close()
        raise StateError(
            f"the ledger is of an older version (schema {version}) and may not be written here",
            where=str(file),
            hint="run any command of this version where it may be written",
        )
    return Ledger(connection, file)


def open_ledger(folder: Path) -> Ledger:
    """Open the ledger in `folder`, or make a new one.

    Raises StateError if it cannot be opened, is damaged, or was written by a newer version.
    """
    file = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(file, isolation_level=None, timeout=10.0)
    except (OSError, sqlite3.Error) as error:
        raise _ledger_error("opened", file, error) from error
    try:
        # FULL: a commit that returned is on the disk, also after a power cut. That is the whole promise.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, file)
    except sqlite3.Error as error:
        connection.close()
        raise _ledger_error("opened", file, error) from error
    except StateError:
        connection.close()
        raise
    return Ledger(connection, file)


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read_schema_version(connection: sqlite3.Connection, file: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if tables and not {"job", "event", "meta"} <= tables:
        raise StateError(
            "this database is no ledger: it belongs to another program",
            where=str(file),
            hint="give the pipeline another `state`",
        )
    if version > SCHEMA_VERSION:
        raise StateError(
            f"the ledger was written by a newer version of lamina-batch (schema {version})",
            where=str(file),
            hint="update lamina-batch, or give the pipeline another `state`",
        )
    return version


def _migrate(connection: sqlite3.Connection, file: Path) -> None:
    version = _read_schema_version(connection, file)
    if version == SCHEMA_VERSION:
        return
    room = files("lamina_batch").joinpath("ledger")
    if version == 0:
        # Readers (status, plan) do not wait for a writer, and a crash leaves nothing half written.
        connection.execute("PRAGMA journal_mode = WAL")
        steps = [(SCHEMA_VERSION, room.joinpath("schema.sql"))]
    else:
        steps = [(to, room.joinpath(f"migrations/{to}.sql")) for to in range(version + 1, SCHEMA_VERSION + 1)]
    for to, step in steps:
        connection.execute("BEGIN IMMEDIATE")
        # Another command may have made this step while this one waited for its turn.
        if int(connection.execute("PRAGMA user_version").fetchone()[0]) < to:
            for statement in _split_statements(step.read_text(encoding="utf-8")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {to}")
        connection.execute("COMMIT")


def _split_statements(script: str) -> Iterator[str]:
    """The script's statements. Each ends at the end of a line."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _insert_event(cursor: sqlite3.Cursor, before: State | None, after: Job, *, at: float, run_id: str) -> None:
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


def _insert_outputs(cursor: sqlite3.Cursor, job_id: int, outputs: Iterable[Output]) -> None:
    cursor.execute("DELETE FROM output WHERE job_id = ?", (job_id,))
    cursor.executemany(
        "INSERT INTO output VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(job_id, n, o.id, o.label, o.type, o.status, o.value, o.error) for n, o in enumerate(outputs)],
    )


def _upsert_downloads(cursor: sqlite3.Cursor, downloads: Iterable[Download], at: float) -> None:
    cursor.executemany(
        "INSERT OR REPLACE INTO download VALUES (?, ?, ?, ?, ?, ?)",
        [(d.job_id, d.position, d.file, d.sha256, d.error, at) for d in downloads],
    )


def _job_from_row(row: Sequence[object]) -> Job:
    values: dict[str, object] = dict(zip(_JOB_COLUMNS.split(", "), row, strict=True))
    typed = values | {"state": State(str(values["state"])), "by_webhook": bool(values["by_webhook"])}
    return Job(**typed)  # type: ignore[arg-type]  # the schema is STRICT


def _foreign_execution(owner: Job) -> Unknown:
    """What a 202 with the execution id of another job proves: nothing."""
    return Unknown(
        code="foreign_execution",
        message=f"it is not known whether this was bought: the service answered with execution {owner.execution_id}, "
        f"which belongs to {owner.name!r}",
    )


def _is_disk_full(error: BaseException | None) -> bool:
    """Whether the disk has no more room; a quota shows as an I/O error."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def _ledger_error(done: str, file: Path, error: Exception) -> StateError:
    why, hint = str(error), "see that the disk has room and the folder may be written"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        why = f"the file is damaged ({error})"
        hint = "restore it from a backup, or make it again from a manifest: `lamina-batch state import` says how"
    elif code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        why, hint = f"another program has it open ({error})", "close that program, then run it again"
    elif file.is_dir():
        why, hint = "a folder has its name", "move that folder away, or give the pipeline another `state`"
    return StateError(f"the ledger cannot be {done}: {why}", where=os.fspath(file), hint=hint)
