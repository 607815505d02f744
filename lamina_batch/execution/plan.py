"""What to do with each row: submit, reuse, resume, report or hold. Pure over two frames, the jobs and the ledger.

A job's evidence is what the ledger knows of its content: of its own newest revision with this content, or, because
equal content is bought once, of any job that carries it. What follows from it is the table of docs/one-row.md,
"What a run does".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.ledger.job import GIVEN_UP, State, Submission
from lamina_batch.ledger.ledger import CONTENT_DIGITS, TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamina_batch.ledger.ledger import Contents

#: For how long each run polls a job that timed out one time (docs/one-row.md, "What a run does").
TIMED_OUT_POLL_SECONDS = 7 * 24 * 3600.0


#: rows of the ledger that are objects of Python at one time
_FRAME_BATCH_ROWS = 20_000
#: jobs whose inputs are made at once: sending them takes minutes
_SUBMISSION_BATCH_ROWS = 1_000


class Action(StrEnum):
    """What a run does with a job."""

    #: start an execution
    SUBMIT = "submit"
    #: equal to a row above it that is started in this run: takes its outputs
    SHARE = "share"
    #: it runs: wait for its end
    COLLECT = "collect"
    #: it timed out in an earlier run: ask once
    ASK_ONCE = "ask_once"
    #: completed: its outputs are here
    UNCHANGED = "unchanged"
    #: it ended badly in an earlier run: reported, not repeated
    REPORT = "report"
    #: it cannot be known whether it was bought
    HOLD = "hold"
    #: not valid: never sent
    INVALID = "invalid"
    #: left for another time (`--only`, `--limit`)
    LEAVE = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the user asks of this run beyond the plain table."""

    retry_failed: bool = False
    #: keys, or key/variant
    rerun: frozenset[str] = frozenset()
    #: only these keys (or key/variant) are submitted; None: all
    only: frozenset[str] | None = None
    #: start at most this many executions
    limit: int | None = None
    #: consent to pay twice for answers that were lost (`on_unknown: resubmit`)
    resubmit_held: bool = False
    share_identical: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run does with every job."""

    #: the jobs with `action`, `reason`, and the evidence's columns prefixed `was_`
    frame: pl.DataFrame

    def count(self, action: Action) -> int:
        """How many jobs get this action."""
        return self.frame.filter(pl.col("action") == action).height

    def reasons(self) -> dict[tuple[str, str], int]:
        """How many jobs there are of each (action, reason)."""
        counted = self.frame.group_by("action", "reason").len().sort("action", "reason")
        return {(str(a), str(r)): int(n) for a, r, n in counted.iter_rows()}

    def submissions(self, with_inputs: Callable[[pl.DataFrame], pl.DataFrame]) -> Iterator[Submission]:
        """What to send, in the source's order; `with_inputs` puts `inputs` to some of the jobs when they are due."""
        wanted = self.frame.filter(pl.col("action") == Action.SUBMIT)
        for some in wanted.iter_slices(_SUBMISSION_BATCH_ROWS):
            columns = with_inputs(some).select("key", "variant", "content", "inputs", "resend")
            for key, variant, content, inputs, resend in columns.iter_rows():
                yield Submission(key=key, variant=variant, content=content, inputs=inputs, job_id=resend)

    def job_ids(self, action: Action) -> list[int]:
        """The ledger's jobs behind the rows with this action."""
        found = self.frame.filter(pl.col("action") == action)["was_id"].unique().drop_nulls().sort()
        return [int(job_id) for job_id in found]


def ledger_frame(rows: Iterable[tuple[object, ...]]) -> pl.DataFrame:
    """Rows of the ledger's table (Ledger.table) as a frame, with `status`, which tells partial from completed.

    Of a content that it has at all it has to have every job.
    """
    types: dict[str, type[pl.DataType]] = {
        "id": pl.Int64,
        "revision": pl.Int64,
        "attempts": pl.Int64,
        "failed_outputs": pl.Int64,
        "submitted_at": pl.Float64,
        "completed_at": pl.Float64,
        "seconds": pl.Float64,
        "changed_at_event": pl.Int64,
    }
    schema = {name: types.get(name, pl.String) for name in TABLE}
    some = iter(rows)
    read = [pl.DataFrame(schema=schema)]
    while batch := list(islice(some, _FRAME_BATCH_ROWS)):
        read.append(pl.DataFrame(batch, schema=schema, orient="row"))
    partial = (pl.col("state") == State.COMPLETED) & (pl.col("failed_outputs") > 0)
    return pl.concat(read).with_columns(
        status=pl.when(partial).then(pl.lit("partial")).otherwise(pl.col("state")),
        # Asking for the same content once more may have made a new revision; people count submissions.
        attempts=pl.col("attempts").sum().over("key", "variant", "content"),
    )


def completed_contents(contents: Contents) -> pl.Series:
    """The contents whose jobs in the ledger are all completed, as numbers."""
    known = _hex_to_integers(contents.completed)
    others = _hex_to_integers(contents.others)
    return known.filter(~known.is_in(others.implode())) if others.len() else known


def has_completed_content(jobs: pl.DataFrame, known: pl.Series) -> pl.Series:
    """Which of the jobs are completed whatever else is asked: their content is one of those `known` as `completed`."""
    digits = jobs.get_column("content").str.slice(0, CONTENT_DIGITS)
    return digits.str.to_integer(base=16, dtype=pl.UInt128).is_in(known.implode()).fill_null(value=False)


def _hex_to_integers(digits: Iterable[str]) -> pl.Series:
    """Contents as the ledger tells them, each as a number: a million of those are compared much faster than texts."""
    packed = b"".join(map(bytes.fromhex, digits))
    if not packed:
        return pl.Series(dtype=pl.UInt128)
    numbers = pl.Array(pl.UInt128, 2 * len(packed) // CONTENT_DIGITS)
    return pl.Series([packed]).bin.reinterpret(dtype=numbers, endianness="big").explode()


#: Of several jobs with one content, the one that says most about what has been paid for speaks for it.
_EVIDENCE_ORDER = {
    "completed": 0,
    "running": 1,
    "submitting": 2,
    "held": 3,
    "timed_out": 4,
    "partial": 5,
    "failed": 6,
    "rejected": 7,
    "planned": 8,
}
#: An execution of such a job is open: it may still complete.
_LIVE = ("running", "submitting", "held")
#: A job in one of these states bought nothing that completed, so a plan may send it (again).
_UNFINISHED = ("failed", "rejected", "timed_out", "partial", "planned")
#: The same without the state that is never sent again unless the user names the row.
_RESENDABLE = ("failed", "rejected", "partial", "planned")


def with_evidence(jobs: pl.DataFrame, ledger: pl.DataFrame, *, share_identical: bool = True) -> pl.DataFrame:
    """Put beside each job what the ledger knows of its content, as columns prefixed `was_` (null: nothing).

    A job's own newest revision with this content decides, unless another job of the same content makes sending it a
    second purchase (docs/ledger.md, "Equal content"):

    - the other completed after the own one got its state;
    - the other is open, so it may still complete;
    - the other timed out, so it may still complete, and the user did not ask for the own one since.

    If the job has no revision with this content, any job of the content decides, in the order of `_WEIGHT`.
    `known` says whether the ledger has the key and variant at all, with whatever content.
    """
    if ledger.is_empty():
        nothing = [pl.lit(None, dtype=kind).alias(f"was_{name}") for name, kind in ledger.schema.items()]
        return jobs.with_columns(*nothing, known=pl.lit(value=False))
    own = (
        ledger.sort("id")
        .unique(subset=["key", "variant", "content"], keep="last", maintain_order=True)
        .select("key", "variant", "content", own="id", own_status="status", own_event="changed_at_event")
    )
    weighed = ledger.with_columns(
        weight=pl.col("status").replace_strict(_EVIDENCE_ORDER, default=9, return_dtype=pl.Int64)
    ).sort("weight", "id", descending=[False, True])
    any_job = weighed.unique(subset=["content"], keep="first", maintain_order=True).select("content", any="id")
    known = ledger.select("key", "variant").unique().with_columns(known=pl.lit(value=True))
    found = (
        jobs.join(own, on=["key", "variant", "content"], how="left", maintain_order="left")
        .join(any_job, on="content", how="left", maintain_order="left")
        .join(_newest(ledger, ["completed"], "done"), on="content", how="left", maintain_order="left")
        .join(_newest(ledger, _LIVE, "live"), on="content", how="left", maintain_order="left")
        .join(_newest(ledger, ["timed_out"], "late"), on="content", how="left", maintain_order="left")
        .join(known, on=["key", "variant"], how="left", maintain_order="left")
    )
    status = pl.col("own_status")
    asked_for_since = (status == "planned") & (pl.col("own_event") > pl.col("late_event"))
    shared = (
        pl.when(pl.col("own").is_null())
        .then(pl.col("any"))
        .when(status.is_in(_UNFINISHED) & (pl.col("done_event") > pl.col("own_event")))
        .then(pl.col("done"))
        .when(status.is_in(_RESENDABLE) & pl.col("live").is_not_null())
        .then(pl.col("live"))
        .when(status.is_in(_RESENDABLE) & pl.col("late").is_not_null() & ~asked_for_since)
        .then(pl.col("late"))
        .otherwise(pl.col("own"))
    )
    evidence = ledger.select(pl.all().name.prefix("was_"))
    return (
        found.with_columns(
            was_id=shared if share_identical else pl.col("own"), known=pl.col("known").fill_null(value=False)
        )
        .drop("own", "own_status", "own_event", "any", "done", "done_event", "live", "live_event", "late", "late_event")
        .join(evidence, on="was_id", how="left", maintain_order="left")
    )


def _newest(ledger: pl.DataFrame, statuses: Sequence[str], name: str) -> pl.DataFrame:
    """Of each content, the job that most recently got one of these statuses: `content`, `name` (its id), its event."""
    return (
        ledger.filter(pl.col("status").is_in(statuses))
        .sort("changed_at_event")
        .unique(subset=["content"], keep="last", maintain_order=True)
        .select("content", pl.col("id").alias(name), pl.col("changed_at_event").alias(f"{name}_event"))
    )


def make_plan(
    jobs: pl.DataFrame,
    ledger: pl.DataFrame,
    wish: PlanOptions,
    *,
    contract: str,
    at: float,
    done: pl.Series | None = None,
) -> Plan:
    """Decide on every job. `contract` is the live schema's fingerprint, `at` the present in epoch seconds.

    `done` says of each job whether it is settled (see `settled`) and not to be run again; then `ledger` has to know
    about the others only.
    """
    if done is None or not done.any():
        return Plan(frame=_decide(jobs, ledger, wish, contract=contract, at=at))
    decided = _decide(jobs.filter(~done), ledger, wish, contract=contract, at=at).select(pl.exclude(jobs.columns))
    plain = {"action": str(Action.UNCHANGED), "reason": "completed", "was_status": "completed"}
    lines = decided.vstack(pl.DataFrame({name: [plain.get(name)] for name in decided.columns}, schema=decided.schema))
    # Each is made in one go: a million of anything is memory that the system has to find.
    line = pl.select(pl.when(done).then(decided.height).otherwise((~done).cum_sum() - 1)).to_series()
    return Plan(frame=jobs.hstack(lines.select(pl.all().gather(line))))


def _decide(jobs: pl.DataFrame, ledger: pl.DataFrame, wish: PlanOptions, *, contract: str, at: float) -> pl.DataFrame:
    known = ledger.select(
        "id", "key", "variant", "content", "status", "contract", "submitted_at", "code", "changed_at_event"
    )
    frame = with_evidence(jobs, known, share_identical=wish.share_identical)
    status = pl.col("was_status")
    # A rerun of what runs or is held is refused before it comes here; here it would change nothing.
    rerun = matches_names(wish.rerun) & ~status.is_in(["running", "submitting", "held"]).fill_null(value=False)
    fresh = pl.col("was_submitted_at") >= at - TIMED_OUT_POLL_SECONDS
    ended_badly = status.is_in(["partial", "failed"])
    rules = (
        (~pl.col("valid"), Action.INVALID, "invalid"),
        (rerun, Action.SUBMIT, "rerun"),
        (status.is_null() & pl.col("known"), Action.SUBMIT, "changed"),
        (status.is_null(), Action.SUBMIT, "new"),
        (status == "planned", Action.SUBMIT, "planned"),
        (status == "completed", Action.UNCHANGED, "completed"),
        # It may have been bought: no word about all that failed is meant for it.
        (ended_badly & (pl.col("was_code") == GIVEN_UP).fill_null(value=False), Action.REPORT, "given up"),
        (ended_badly & pl.lit(wish.retry_failed), Action.SUBMIT, "retry"),
        (ended_badly, Action.REPORT, "ended badly"),
        ((status == "rejected") & pl.lit(wish.retry_failed), Action.SUBMIT, "retry"),
        ((status == "rejected") & (pl.col("was_contract") != contract), Action.SUBMIT, "schema changed"),
        (status == "rejected", Action.REPORT, "rejected"),
        (status == "running", Action.COLLECT, "running"),
        ((status == "timed_out") & fresh, Action.ASK_ONCE, "timed out"),
        (status == "timed_out", Action.REPORT, "timed out"),
        ((status == "held") & pl.lit(wish.resubmit_held), Action.SUBMIT, "resubmitted"),
        (status.is_in(["held", "submitting"]), Action.HOLD, "held"),
        (pl.lit(value=True), Action.REPORT, "unknown state"),
    )
    frame = frame.with_columns(rule=_first_matching_rule([when for when, _, _ in rules]))
    frame = frame.select(
        pl.exclude(
            "rule", "known", "was_content", "was_contract", "was_submitted_at", "was_code", "was_changed_at_event"
        ),
        action=pl.lit(pl.Series([str(action) for _, action, _ in rules])).gather("rule"),
        reason=pl.lit(pl.Series([reason for _, _, reason in rules])).gather("rule"),
    )
    submit = pl.col("action") == Action.SUBMIT
    # What failed or was never sent is sent again as the job it is, under whatever key it stands; what completed,
    # in part or late, keeps its outputs and its id, so asking again makes a new revision.
    resend = submit & status.is_in(["planned", "failed", "rejected", "held"])
    frame = frame.with_columns(resend=pl.when(resend).then(pl.col("was_id")))
    if wish.only is not None:
        frame = _set_left_out(frame, ~matches_names(wish.only), "not asked for")
    one = ["key", "variant", "content"]
    group = ["content"] if wish.share_identical else one
    alike = frame.select(*one, submit=submit)
    follows = _repeats_earlier_submission(alike, group)
    if follows.any():
        # One that has completed itself keeps what that made: run again for a row above it only, it would still show it.
        own = (pl.col("was_key") == pl.col("key")) & (pl.col("was_variant") == pl.col("variant"))
        keeps = frame.select((own & (status == "completed")).fill_null(value=False)).to_series()
        if (follows & keeps).any():
            follows &= ~keeps | _repeats_earlier_submission(alike, one)
        frame = frame.with_columns(
            action=pl.when(follows).then(pl.lit(str(Action.SHARE))).otherwise(pl.col("action")),
            reason=pl.when(follows).then(pl.lit("equal to a row above")).otherwise(pl.col("reason")),
        )
    if wish.limit is not None:
        frame = frame.with_columns(rank=pl.when(submit).then(submit.cum_sum()), place=pl.int_range(pl.len()))
        # A content that was not made stands alone.
        alone = pl.when(pl.col("content").is_null()).then("place")
        rank = pl.coalesce("rank", pl.col("rank").min().over(*group, alone))
        past = (rank > wish.limit).fill_null(value=False)
        frame = _set_left_out(frame, past, "past --limit").drop("rank", "place")
    return frame


def _repeats_earlier_submission(rows: pl.DataFrame, group: Sequence[str]) -> pl.Series:
    """Which rows to submit repeat an earlier row of their group. A row without a content repeats none."""
    twice = pl.col("submit") & pl.col("content").is_not_null()
    alike = rows.with_row_index("place").filter(twice)
    # Numbers are compared first: nearly always no two are equal, and a million texts are not.
    alike = alike.filter(alike.select(group).hash_rows().is_duplicated())
    found = alike.filter(pl.int_range(pl.len()).over(group) > 0)
    follows = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
    return follows.scatter(found["place"], values=True) if found.height else follows


def matches_names(names: Iterable[str]) -> pl.Expr:
    """Whether a job is meant by one of `names`, each a key or key/variant."""
    wanted = sorted(names)
    full = pl.concat_str("key", pl.lit("/"), "variant")
    return (pl.col("key").is_in(wanted) | ((pl.col("variant") != "") & full.is_in(wanted))).fill_null(value=False)


def _set_left_out(frame: pl.DataFrame, where: pl.Expr, reason: str) -> pl.DataFrame:
    """Leave those that would be submitted; what has been bought already is still collected and shown."""
    left = where & pl.col("action").is_in([str(Action.SUBMIT), str(Action.SHARE)])
    return frame.with_columns(
        action=pl.when(left).then(pl.lit(str(Action.LEAVE))).otherwise(pl.col("action")),
        reason=pl.when(left).then(pl.lit(reason)).otherwise(pl.col("reason")),
    )


def _first_matching_rule(rules: Sequence[pl.Expr]) -> pl.Expr:
    """The number of the first rule that holds."""
    number = pl.lit(len(rules) - 1, dtype=pl.UInt8)
    for at, condition in reversed(list(enumerate(rules[:-1]))):
        number = pl.when(condition).then(pl.lit(at, dtype=pl.UInt8)).otherwise(number)
    return number
