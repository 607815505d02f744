"""What to do with each row: submit, reuse, resume, report or hold. Pure over two frames, the jobs and the ledger.

A job's evidence is what the ledger knows of its content: of its own newest revision with this content, or, because
equal content is bought once, of any job that carries it. What follows from it is the table of DESIGN.md section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.execution.job import State, Submission
from lamina_batch.execution.ledger import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

#: A job that timed out is asked about once a run for so long (DESIGN.md section 5).
TIMED_OUT_KEPT_SECONDS = 7 * 24 * 3600.0


#: jobs whose inputs are made at once: sending them takes minutes
_AT_A_TIME = 1_000


class Action(StrEnum):
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
class Wish:
    """What the user asks of this run beyond the plain table."""

    retry_failed: bool = False
    #: keys, or key/variant
    rerun: frozenset[str] = frozenset()
    #: only these keys (or key/variant) are submitted; None: all
    only: frozenset[str] | None = None
    #: start at most so many executions
    limit: int | None = None
    #: consent to pay twice for answers that were lost (`on_unknown: resubmit`)
    resubmit_held: bool = False
    share_identical: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    #: the jobs with `action`, `reason`, and the evidence's columns prefixed `was_`
    frame: pl.DataFrame

    def count(self, action: Action) -> int:
        return self.frame.filter(pl.col("action") == action).height

    def reasons(self) -> dict[tuple[str, str], int]:
        """How many jobs there are of each (action, reason)."""
        counted = self.frame.group_by("action", "reason").len().sort("action", "reason")
        return {(str(a), str(r)): int(n) for a, r, n in counted.iter_rows()}

    def submissions(self, with_inputs: Callable[[pl.DataFrame], pl.DataFrame]) -> Iterator[Submission]:
        """What to send, in the source's order; `with_inputs` puts `inputs` to some of the jobs when they are due."""
        wanted = self.frame.filter(pl.col("action") == Action.SUBMIT)
        for some in wanted.iter_slices(_AT_A_TIME):
            columns = with_inputs(some).select("key", "variant", "content", "inputs", "resend")
            for key, variant, content, inputs, resend in columns.iter_rows():
                yield Submission(key=key, variant=variant, content=content, inputs=inputs, job_id=resend)

    def job_ids(self, action: Action) -> list[int]:
        """The ledger's jobs behind the rows with this action."""
        found = self.frame.filter(pl.col("action") == action)["was_id"].unique().drop_nulls().sort()
        return [int(job_id) for job_id in found]


def ledger_frame(rows: Sequence[tuple[object, ...]]) -> pl.DataFrame:
    """The ledger's table (Ledger.table) as a frame, with `status`, which tells partial from completed."""
    types: dict[str, type[pl.DataType]] = {
        "id": pl.Int64,
        "revision": pl.Int64,
        "attempts": pl.Int64,
        "failed_outputs": pl.Int64,
        "submitted_at": pl.Float64,
        "completed_at": pl.Float64,
        "seconds": pl.Float64,
    }
    schema = {name: types.get(name, pl.String) for name in TABLE}
    partial = (pl.col("state") == State.COMPLETED) & (pl.col("failed_outputs") > 0)
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        status=pl.when(partial).then(pl.lit("partial")).otherwise(pl.col("state")),
        # Asking for the same content once more may have made a new revision; people count submissions.
        attempts=pl.col("attempts").sum().over("key", "variant", "content"),
    )


#: Of several jobs with one content, the one that says most about what has been paid for speaks for it.
_WEIGHT = {
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
_UNFINISHED = ("failed", "rejected", "timed_out", "partial", "planned")


def with_evidence(jobs: pl.DataFrame, ledger: pl.DataFrame, *, share_identical: bool = True) -> pl.DataFrame:
    """Put beside each job what the ledger knows of its content, as columns prefixed `was_` (null: nothing).

    A job's own newest revision with this content decides, unless it did not complete and another job has completed
    the same content since, or bought nothing while another may have. Without one of its own, any job of the same
    content speaks, the most telling first.
    `known` says whether the ledger knows the key and variant at all, with whatever content.
    """
    own = (
        ledger.sort("id")
        .unique(subset=["key", "variant", "content"], keep="last", maintain_order=True)
        .select("key", "variant", "content", own="id", own_status="status")
    )
    weighed = ledger.with_columns(
        weight=pl.col("status").replace_strict(_WEIGHT, default=9, return_dtype=pl.Int64)
    ).sort("weight", "id", descending=[False, True])
    any_job = weighed.unique(subset=["content"], keep="first", maintain_order=True).select("content", any="id")
    done = ledger.filter(pl.col("status") == "completed").group_by("content").agg(done=pl.col("id").max())
    live = (
        ledger.filter(pl.col("status").is_in(["running", "submitting", "held"]))
        .group_by("content")
        .agg(live=pl.col("id").max())
    )
    known = ledger.select("key", "variant").unique().with_columns(known=pl.lit(value=True))
    found = (
        jobs.join(own, on=["key", "variant", "content"], how="left", maintain_order="left")
        .join(any_job, on="content", how="left", maintain_order="left")
        .join(done, on="content", how="left", maintain_order="left")
        .join(live, on="content", how="left", maintain_order="left")
        .join(known, on=["key", "variant"], how="left", maintain_order="left")
    )
    shared = (
        pl.when(pl.col("own").is_null())
        .then(pl.col("any"))
        .when(pl.col("own_status").is_in(_UNFINISHED) & (pl.col("done") > pl.col("own")))
        .then(pl.col("done"))
        .when(pl.col("own_status").is_in(["planned", "failed", "rejected"]) & pl.col("live").is_not_null())
        .then(pl.col("live"))
        .otherwise(pl.col("own"))
    )
    evidence = ledger.select(pl.all().name.prefix("was_"))
    return (
        found.with_columns(
            was_id=shared if share_identical else pl.col("own"), known=pl.col("known").fill_null(value=False)
        )
        .drop("own", "own_status", "any", "done", "live")
        .join(evidence, on="was_id", how="left", maintain_order="left")
    )


def make_plan(jobs: pl.DataFrame, ledger: pl.DataFrame, wish: Wish, *, contract: str, at: float) -> Plan:
    """Decide on every job. `contract` is the live schema's fingerprint, `at` the present in epoch seconds."""
    frame = with_evidence(jobs, ledger, share_identical=wish.share_identical)
    status = pl.col("was_status")
    # A rerun of what runs or is held is refused before it comes here; here it would change nothing.
    rerun = named(wish.rerun) & ~status.is_in(["running", "submitting", "held"]).fill_null(value=False)
    fresh = pl.col("was_submitted_at") >= at - TIMED_OUT_KEPT_SECONDS
    ended_badly = status.is_in(["partial", "failed"])
    rules = (
        (~pl.col("valid"), Action.INVALID, "invalid"),
        (rerun, Action.SUBMIT, "rerun"),
        (status.is_null() & pl.col("known"), Action.SUBMIT, "changed"),
        (status.is_null(), Action.SUBMIT, "new"),
        (status == "planned", Action.SUBMIT, "planned"),
        (status == "completed", Action.UNCHANGED, "completed"),
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
    )
    frame = frame.with_columns(
        action=_first([(when, str(action)) for when, action, _ in rules], str(Action.REPORT)),
        reason=_first([(when, reason) for when, _, reason in rules], "unknown state"),
    )
    submit = pl.col("action") == Action.SUBMIT
    # What failed or was never sent is sent again as the job it is, under whatever key it stands; what completed,
    # in part or late, keeps its outputs and its id, so asking again makes a new revision.
    resend = submit & status.is_in(["planned", "failed", "rejected", "held"])
    frame = frame.with_columns(resend=pl.when(resend).then(pl.col("was_id")))
    if wish.only is not None:
        frame = _leave(frame, ~named(wish.only), "not asked for")
    group = ["content"] if wish.share_identical else ["key", "variant", "content"]
    follows = submit & (pl.int_range(pl.len()).over([*group, submit]) > 0)
    frame = frame.with_columns(
        action=pl.when(follows).then(pl.lit(str(Action.SHARE))).otherwise(pl.col("action")),
        reason=pl.when(follows).then(pl.lit("equal to a row above")).otherwise(pl.col("reason")),
    )
    if wish.limit is not None:
        frame = frame.with_columns(rank=pl.when(submit).then(submit.cum_sum()))
        past = (pl.col("rank").max().over(group) > wish.limit).fill_null(value=False)
        frame = _leave(frame, past, "past --limit").drop("rank")
    return Plan(frame=frame)


def named(names: Iterable[str]) -> pl.Expr:
    """Whether a job is meant by one of `names`, each a key or key/variant."""
    wanted = sorted(names)
    full = pl.concat_str("key", pl.lit("/"), "variant")
    return (pl.col("key").is_in(wanted) | ((pl.col("variant") != "") & full.is_in(wanted))).fill_null(value=False)


def _leave(frame: pl.DataFrame, where: pl.Expr, reason: str) -> pl.DataFrame:
    """Leave those that would be submitted; what has been bought already is still collected and shown."""
    left = where & pl.col("action").is_in([str(Action.SUBMIT), str(Action.SHARE)])
    return frame.with_columns(
        action=pl.when(left).then(pl.lit(str(Action.LEAVE))).otherwise(pl.col("action")),
        reason=pl.when(left).then(pl.lit(reason)).otherwise(pl.col("reason")),
    )


def _first(rules: Sequence[tuple[pl.Expr, str]], otherwise: str) -> pl.Expr:
    """The value of the first rule that holds."""
    value = pl.lit(otherwise)
    for condition, then in reversed(rules):
        value = pl.when(condition).then(pl.lit(then)).otherwise(value)
    return value
