"""Which of the rejected rows are made again, given what the ledger knows now."""

from __future__ import annotations

import json

import polars as pl
import pytest

from lamina_batch.errors import UsageError
from lamina_batch.execution.plan import ledger_frame, with_evidence
from lamina_batch.results.picks import Pick, Picks, parse_picks, select_reruns

SAME, OTHER = "a" * 64, "b" * 64


def job(job_id: int, state: str, execution: str | None, content: str = SAME) -> tuple[object, ...]:
    return (job_id, "1", "", job_id, content, state, "app", "c", execution, 1, 0.0, 1.0, 1.0, 0, None, None, job_id)


def rejected(verdict: str = "reject") -> Picks:
    pick = Pick(key="1", variant="", inputs_sha256=SAME, execution_id="e1", verdict=verdict, note="")  # type: ignore[arg-type]
    return Picks(where="picks.json", pipeline="p", app="app", service="sandbox", picks=(pick,))


def known(pick: Pick) -> bool:
    """The ledger had it."""
    return True


def rows(content: str | None = SAME) -> pl.DataFrame:
    one = {"key": ["1"], "variant": [""], "content": [content], "valid": [content is not None]}
    return pl.DataFrame(one, schema_overrides={"content": pl.String})


@pytest.mark.parametrize(
    ("ledger", "again"),
    [
        ([job(1, "completed", "e1")], True),
        ([job(1, "failed", "e1")], True),
        ([job(1, "timed_out", "e1")], True),
        ([job(1, "completed", "e1"), job(2, "completed", "e2")], False),
        ([job(1, "completed", "e1"), job(2, "running", "e2")], False),
        ([job(1, "completed", "e1"), job(2, "submitting", None)], False),
        ([job(1, "completed", "e1"), job(2, "held", None)], False),
        ([job(1, "completed", "e1"), job(2, "failed", "e2")], False),
        # proved not accepted: a plain run sends it
        ([job(1, "completed", "e1"), job(2, "planned", None)], False),
        ([], False),
    ],
    ids=lambda value: " then ".join(str(line[5]) for line in value) or "nothing" if isinstance(value, list) else "",
)
def test_a_row_is_made_again_as_long_as_it_is_what_was_rejected(ledger: list[tuple[object, ...]], again: bool) -> None:
    evidence = with_evidence(rows(), ledger_frame(ledger))
    assert select_reruns(rejected(), evidence, known).rerun == (frozenset({"1"}) if again else frozenset())


@pytest.mark.parametrize("content", [OTHER, None], ids=["changed", "invalid now"])
def test_a_row_with_other_inputs_is_left_to_a_plain_run(content: str | None) -> None:
    again = select_reruns(rejected(), with_evidence(rows(content), ledger_frame([job(1, "completed", "e1")])), known)
    assert again.rerun == frozenset()
    assert any("changed since" in note for note in again.notes)


def test_what_was_picked_is_left_alone() -> None:
    evidence = with_evidence(rows(), ledger_frame([job(1, "completed", "e1")]))
    assert select_reruns(rejected("pick"), evidence, known).rerun == frozenset()


@pytest.mark.parametrize("content", [SAME, OTHER], ids=["of another execution", "of other inputs"])
def test_a_verdict_on_what_the_ledger_never_had_is_said_to_be_one(content: str) -> None:
    evidence = with_evidence(rows(content), ledger_frame([job(1, "completed", "e2", content)]))
    again = select_reruns(rejected(), evidence, lambda _: False)
    assert again.rerun == frozenset()
    assert "1: this verdict is about a picture that this ledger does not know" in again.notes[-1]
    assert not any("since" in note for note in again.notes)


def test_all_that_is_wrong_with_a_file_is_said_at_once_and_what_is_nothing_may_be_left_out() -> None:
    pick = {"key": "1", "inputs_sha256": SAME, "execution_id": "e1", "verdict": "reject"}
    head = {"format": "lamina-batch picks", "version": 1, "pipeline": "p", "app": "app", "service": "sandbox"}
    read = parse_picks(json.dumps({**head, "picks": [pick, {**pick, "key": "2", "variant": None}]}).encode(), where="f")
    assert [(one.key, one.variant, one.note) for one in read.picks] == [("1", "", ""), ("2", "", "")]
    wrong = [{**pick, "verdict": "maybe"}, {"key": 7, "verdict": "pick"}]
    with pytest.raises(UsageError) as refused:
        parse_picks(json.dumps({**head, "version": 2, "picks": wrong}).encode(), where="f")
    assert refused.value.what.splitlines()[1:] == [
        "  picks[0].verdict: must be pick or reject, is 'maybe'",
        "  picks[1].execution_id: is missing",
        "  picks[1].inputs_sha256: is missing",
        "  picks[1].key: must be text, is 7",
        "  version: must be 1, is 2",
    ]
