"""Which of the rejected rows are made again, given what the ledger knows now."""

from __future__ import annotations

import polars as pl
import pytest

from lamina_batch.execution.plan import ledger_frame, with_evidence
from lamina_batch.results.picks import Pick, Picks, run_again

SAME, OTHER = "a" * 64, "b" * 64


def job(job_id: int, state: str, execution: str | None, content: str = SAME) -> tuple[object, ...]:
    return (job_id, "1", "", job_id, content, state, "app", "c", execution, 1, 0.0, 1.0, 1.0, 0, None, None)


def rejected(verdict: str = "reject") -> Picks:
    pick = Pick(key="1", variant="", inputs_sha256=SAME, execution_id="e1", verdict=verdict, note="")  # type: ignore[arg-type]
    return Picks(where="picks.json", pipeline="p", app="app", service="sandbox", picks=(pick,))


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
    assert run_again(rejected(), evidence).rerun == (frozenset({"1"}) if again else frozenset())


@pytest.mark.parametrize("content", [OTHER, None], ids=["changed", "invalid now"])
def test_a_row_with_other_inputs_is_left_to_a_plain_run(content: str | None) -> None:
    again = run_again(rejected(), with_evidence(rows(content), ledger_frame([job(1, "completed", "e1")])))
    assert again.rerun == frozenset()
    assert any("changed since" in note for note in again.notes)


def test_what_was_picked_is_left_alone() -> None:
    evidence = with_evidence(rows(), ledger_frame([job(1, "completed", "e1")]))
    assert run_again(rejected("pick"), evidence).rerun == frozenset()
