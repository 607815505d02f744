"""What to do with each row: the table of docs/one-row.md, "What a run does", over frames that say it case by case."""

from __future__ import annotations

import polars as pl
import pytest

from lamina_batch.execution.plan import Action, Plan, PlanOptions, ledger_frame, make_plan

NOW = 1_000_000.0


def job(  # a table row
    id_: int,
    key: str,
    content: str,
    state: str,
    failed_outputs: int = 0,
    contract: str = "c1",
    submitted_at: float = NOW - 100,
    changed_at_event: int | None = None,
) -> tuple[object, ...]:
    execution = f"e{id_}"
    return (
        id_, key, "", 1, content, state, "app", contract, execution, 1, submitted_at, None, None, failed_outputs, None,
        None, id_ if changed_at_event is None else changed_at_event,
    )  # fmt: skip


def rows(*keys_and_contents: tuple[str | None, str | None], variant: str = "") -> pl.DataFrame:
    return pl.DataFrame(
        [(key, variant, content) for key, content in keys_and_contents],
        schema={"key": pl.String, "variant": pl.String, "content": pl.String},
        orient="row",
    ).with_columns(valid=pl.col("content").is_not_null(), inputs=pl.lit("{}"))


def plan(
    jobs: pl.DataFrame, *ledger: tuple[object, ...], wish: PlanOptions | None = None, contract: str = "c1"
) -> Plan:
    return make_plan(jobs, ledger_frame(ledger), wish or PlanOptions(), contract=contract, at=NOW)


def as_they_are(jobs: pl.DataFrame) -> pl.DataFrame:
    """The jobs of these tests have their inputs."""
    return jobs


def actions(plan: Plan) -> list[str]:
    return plan.frame["action"].to_list()


RETRY = PlanOptions(retry_failed=True)
RERUN = PlanOptions(rerun=frozenset({"A"}))
OLD = NOW - 8 * 24 * 3600

TABLE = [
    # found in the ledger, wish, action, whether the ledger's own job is sent again
    ("planned", PlanOptions(), Action.SUBMIT, True),
    ("planned", RETRY, Action.SUBMIT, True),
    ("planned", RERUN, Action.SUBMIT, True),
    ("completed", PlanOptions(), Action.UNCHANGED, False),
    ("completed", RETRY, Action.UNCHANGED, False),
    ("completed", RERUN, Action.SUBMIT, False),
    ("failed", PlanOptions(), Action.REPORT, False),
    ("failed", RETRY, Action.SUBMIT, True),
    ("failed", RERUN, Action.SUBMIT, True),
    ("rejected", PlanOptions(), Action.REPORT, False),
    ("rejected", RETRY, Action.SUBMIT, True),
    ("rejected", RERUN, Action.SUBMIT, True),
    ("running", PlanOptions(), Action.COLLECT, False),
    ("running", RETRY, Action.COLLECT, False),
    ("timed_out", PlanOptions(), Action.ASK_ONCE, False),
    ("timed_out", RETRY, Action.ASK_ONCE, False),
    ("timed_out", RERUN, Action.SUBMIT, False),
    ("held", PlanOptions(), Action.HOLD, False),
    ("held", RETRY, Action.HOLD, False),
    ("held", RERUN, Action.HOLD, False),
    ("held", PlanOptions(resubmit_held=True), Action.SUBMIT, True),
    ("submitting", PlanOptions(), Action.HOLD, False),
]


@pytest.mark.parametrize(("state", "wish", "action", "resends"), TABLE)
def test_what_is_found_decides(state: str, wish: PlanOptions, action: Action, resends: bool) -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", state), wish=wish)
    assert actions(made) == [action]
    assert [s.job_id for s in made.submissions(as_they_are)] == (
        [7 if resends else None] if action is Action.SUBMIT else []
    )


@pytest.mark.parametrize(
    ("wish", "action"), [(PlanOptions(), Action.REPORT), (RETRY, Action.SUBMIT), (RERUN, Action.SUBMIT)]
)
def test_a_partial_job_is_sent_again_only_when_asked_and_keeps_its_outputs(wish: PlanOptions, action: Action) -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", "completed", failed_outputs=1), wish=wish)
    assert actions(made) == [action]
    assert all(s.job_id is None for s in made.submissions(as_they_are))


def test_a_rejected_job_is_sent_again_when_the_schema_has_changed() -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", "rejected"), contract="c2")
    assert actions(made) == [Action.SUBMIT]


def test_what_timed_out_is_asked_about_for_seven_days() -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", "timed_out", submitted_at=OLD))
    assert actions(made) == [Action.REPORT]


def test_an_invalid_row_is_never_sent() -> None:
    made = plan(rows((None, None), ("A", None)), job(7, "A", "a", "completed"), wish=RERUN)
    assert actions(made) == [Action.INVALID, Action.INVALID]


def test_other_content_under_a_known_key_is_a_change() -> None:
    made = plan(rows(("A", "b"), ("B", "c")), job(7, "A", "a", "completed"))
    assert made.frame["reason"].to_list() == ["changed", "new"]


def test_a_renamed_key_takes_what_the_old_one_bought() -> None:
    made = plan(rows(("A9", "a")), job(7, "A", "a", "completed"))
    assert actions(made) == [Action.UNCHANGED]
    assert made.frame["was_key"].to_list() == ["A"]


def test_renaming_a_held_key_does_not_buy_it_again() -> None:
    assert actions(plan(rows(("A9", "a")), job(7, "A", "a", "held"))) == [Action.HOLD]


def test_going_back_to_earlier_content_takes_its_outputs() -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", "completed"), job(8, "A", "b", "completed"))
    assert actions(made) == [Action.UNCHANGED]
    assert made.frame["was_id"].to_list() == [7]


def test_equal_rows_of_one_run_share_one_execution() -> None:
    made = plan(rows(("A", "a"), ("B", "a"), ("C", "c")))
    assert actions(made) == [Action.SUBMIT, Action.SHARE, Action.SUBMIT]
    assert [s.key for s in made.submissions(as_they_are)] == ["A", "C"]


def test_without_sharing_each_row_buys_its_own() -> None:
    made = plan(
        rows(("A", "a"), ("B", "a"), ("B", "a")), job(7, "A", "a", "completed"), wish=PlanOptions(share_identical=False)
    )
    assert actions(made) == [Action.UNCHANGED, Action.SUBMIT, Action.SHARE]


def test_a_failure_gives_way_to_a_later_success_of_the_same_content() -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", "failed"), job(8, "B", "a", "completed"), wish=RETRY)
    assert actions(made) == [Action.UNCHANGED]
    assert made.frame["was_id"].to_list() == [8]


def test_a_planned_job_takes_what_an_older_job_of_the_same_content_completed_since() -> None:
    """The ids tell which job was made first, and not which one completed last."""
    older = job(7, "B", "a", "completed", changed_at_event=40)
    made = plan(rows(("A", "a")), older, job(8, "A", "a", "planned", changed_at_event=30))
    assert actions(made) == [Action.UNCHANGED]
    assert made.frame["was_id"].to_list() == [7]


def test_a_planned_job_is_sent_if_the_user_asked_for_it_after_the_same_content_completed() -> None:
    older = job(7, "A", "a", "completed", changed_at_event=30)
    made = plan(rows(("A", "a")), older, job(8, "A", "a", "planned", changed_at_event=40))
    assert actions(made) == [Action.SUBMIT]
    assert [s.job_id for s in made.submissions(as_they_are)] == [8]


def test_a_failed_rerun_is_reported_although_an_older_success_is_there() -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", "completed"), job(8, "A", "a", "failed"))
    assert actions(made) == [Action.REPORT]


def test_equal_rows_that_each_have_their_own_are_each_run_again() -> None:
    """Sharing, the second would go on showing what somebody rejected."""
    ledger = (job(7, "A", "a", "completed"), job(8, "B", "a", "completed"))
    jobs = rows(("A", "a"), ("A", "a"), ("B", "a"), ("B", "a"), ("C", "a"), ("D", "d"))
    names = frozenset({"A", "B", "C", "D"})
    made = plan(jobs, *ledger, wish=PlanOptions(rerun=names))
    share, submit, leave = Action.SHARE, Action.SUBMIT, Action.LEAVE
    assert actions(made) == [submit, share, submit, share, share, submit]
    limited = plan(jobs, *ledger, wish=PlanOptions(rerun=names, limit=1))
    assert actions(limited)[:3] == [submit, share, leave]
    assert actions(limited)[4:] == [share, leave]


def test_equal_rows_that_took_another_s_outputs_share_what_is_made_again() -> None:
    made = plan(
        rows(("B", "a"), ("A", "a")), job(7, "B", "a", "completed"), wish=PlanOptions(rerun=frozenset({"A", "B"}))
    )
    assert actions(made) == [Action.SUBMIT, Action.SHARE]


def test_only_leaves_the_others_but_collects_what_runs() -> None:
    made = plan(
        rows(("A", "a"), ("B", "b"), ("C", "c")), job(7, "B", "b", "running"), wish=PlanOptions(only=frozenset({"C"}))
    )
    assert actions(made) == [Action.LEAVE, Action.COLLECT, Action.SUBMIT]


def test_a_limit_counts_executions_and_leaves_rows_equal_to_a_left_one() -> None:
    made = plan(
        rows(("A", "a"), ("B", "a"), ("C", "c"), ("D", "c"), ("E", "e")),
        job(7, "E", "e", "completed"),
        wish=PlanOptions(limit=1),
    )
    assert actions(made) == [Action.SUBMIT, Action.SHARE, Action.LEAVE, Action.LEAVE, Action.UNCHANGED]


def test_a_variant_is_named_by_key_or_by_key_and_variant() -> None:
    jobs = pl.concat([rows(("A", "a"), variant="X=1"), rows(("A", "b"), variant="X=2")])
    assert actions(plan(jobs, wish=PlanOptions(only=frozenset({"A/X=2"})))) == [Action.LEAVE, Action.SUBMIT]
    assert actions(plan(jobs, wish=PlanOptions(only=frozenset({"A"})))) == [Action.SUBMIT, Action.SUBMIT]


# -- another row's job of the same content -----------------------------------------------------------------------------

BOUGHT_NOTHING = ["planned", "failed", "rejected", "partial"]
MAY_BUY = [("running", Action.COLLECT), ("held", Action.HOLD), ("submitting", Action.HOLD)]


@pytest.mark.parametrize("wish", [PlanOptions(), RETRY], ids=["plain", "retry"])
@pytest.mark.parametrize(("live", "action"), MAY_BUY)
@pytest.mark.parametrize("own", BOUGHT_NOTHING)
@pytest.mark.parametrize("live_is_older", [False, True], ids=["newer", "older"])
def test_what_bought_nothing_gives_way_to_another_row_s_job_that_may_buy_it(
    own: str, live: str, action: Action, live_is_older: bool, wish: PlanOptions
) -> None:
    """Otherwise the same content is bought twice: once by the other row, once more by this one."""
    first, second = ((7, "B", live), (8, "A", own)) if live_is_older else ((7, "A", own), (8, "B", live))
    made = plan(rows(("A", "a")), *(any_job(*one) for one in (first, second)), wish=wish)
    assert actions(made) == [action]
    assert made.frame["was_key"].to_list() == ["B"]


def any_job(id_: int, key: str, state: str, changed_at_event: int | None = None) -> tuple[object, ...]:
    """A job of content `a`; a partial one is completed in the ledger, with a failed output."""
    partial = state == "partial"
    stored = "completed" if partial else state
    return job(id_, key, "a", stored, failed_outputs=int(partial), changed_at_event=changed_at_event)


@pytest.mark.parametrize("own", ["failed", "rejected", "partial"])
@pytest.mark.parametrize("late_is_older", [False, True], ids=["newer", "older"])
def test_a_retry_gives_way_to_another_row_s_job_that_timed_out(own: str, late_is_older: bool) -> None:
    """The execution that timed out may still complete."""
    first, second = ((7, "B", "timed_out"), (8, "A", own)) if late_is_older else ((7, "A", own), (8, "B", "timed_out"))
    made = plan(rows(("A", "a")), any_job(*first), any_job(*second), wish=RETRY)
    assert actions(made) == [Action.ASK_ONCE]
    assert made.frame["was_key"].to_list() == ["B"]


@pytest.mark.parametrize(("asked_at", "action"), [(30, Action.ASK_ONCE), (50, Action.SUBMIT)])
def test_a_planned_job_gives_way_to_one_that_timed_out_since(asked_at: int, action: Action) -> None:
    """Unless the user asked for it after that."""
    late = job(8, "B", "a", "timed_out", changed_at_event=40)
    made = plan(rows(("A", "a")), job(7, "A", "a", "planned", changed_at_event=asked_at), late)
    assert actions(made) == [action]


@pytest.mark.parametrize("own", BOUGHT_NOTHING)
def test_without_sharing_no_row_gives_way_to_another(own: str) -> None:
    wish = PlanOptions(retry_failed=True, share_identical=False)
    made = plan(rows(("A", "a")), any_job(7, "A", own), job(8, "B", "a", "running"), wish=wish)
    assert actions(made) == [Action.SUBMIT]
    assert [s.job_id for s in made.submissions(as_they_are)] == [None if own == "partial" else 7]


def test_a_live_job_of_other_content_is_no_reason_to_wait() -> None:
    made = plan(rows(("A", "a")), job(7, "A", "a", "planned"), job(8, "B", "b", "running"))
    assert actions(made) == [Action.SUBMIT]
    assert [s.job_id for s in made.submissions(as_they_are)] == [7]
