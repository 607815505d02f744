"""A short storm: kill -9, lost answers, a service that goes away, and then nothing bought twice and nothing lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chaos.__main__ import storm, table

if TYPE_CHECKING:
    from pathlib import Path

#: Between them: kills in a burst and elsewhere, a kill of the service, and most ways to lose an answer.
SEEDS = (7, 17, 23, 25)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_short_storm_buys_nothing_twice_and_loses_nothing(tmp_path: Path) -> None:
    """`make chaos` plays many more, and longer ones; `make chaos SEED=N` replays one. See docs/chaos.md."""
    total, failed = storm(SEEDS, tmp_path, jobs=2, short=True)
    assert failed == [], "\n".join(total.problems)
    assert (total.duplicates, total.unproved, total.lost) == (0, 0, 0), table(total)
    assert total.kills, "somebody was killed"
    assert total.answers_lost, "answers were lost"
    assert total.accepted > total.held_accepted > 0, table(total)
