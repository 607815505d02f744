"""What is kept of outcomes while they go by, part by part, so that a million of them are never held at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.results.manifest import Outcomes
from lamina_batch.results.summary import MAX_REPORTED_JOBS, PROBLEM_STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class RunTotals:
    """The numbers, what is wrong, and what a page shows."""

    def __init__(self) -> None:
        #: jobs by status
        self.counts: Counter[str] = Counter()
        self._problems: Counter[str] = Counter()
        #: a name for each thing that is wrong, the same in every run in which it stays wrong
        self.problems: list[str] = []
        self._shown: list[Outcomes] = []
        self._room = Counter({True: MAX_REPORTED_JOBS, False: MAX_REPORTED_JOBS})

    def each(self, parts: Iterable[Outcomes]) -> Iterator[Outcomes]:
        """The parts as they are."""
        for part in parts:
            self.counts.update(part.counts())
            self._name_problems(part)
            self._show(part)
            yield part

    def outcomes(self) -> Outcomes:
        """The first jobs of all, and the first with a problem; its counts are those of all."""
        return Outcomes(
            jobs=pl.concat(part.jobs for part in self._shown),
            outputs=pl.concat(part.outputs for part in self._shown),
            total=self.counts,
        )

    def _name_problems(self, part: Outcomes) -> None:
        bad = part.jobs.filter(pl.col("status").is_in(PROBLEM_STATUSES))
        who = pl.coalesce("key", pl.concat_str(pl.lit("row "), "row"))
        names = bad.select(pl.concat_str([who, "variant", "status", pl.col("code").fill_null("")], separator="\t"))
        for name in names.to_series():
            self.problems.append(f"{name}\t{self._problems[name]}")
            self._problems[name] += 1

    def _show(self, part: Outcomes) -> None:
        bad = pl.col("status").is_in(PROBLEM_STATUSES)
        kept = part.jobs.filter(
            (bad & (bad.cum_sum() <= self._room[True])) | (~bad & ((~bad).cum_sum() <= self._room[False]))
        )
        problems = kept.filter(bad).height
        self._room.subtract({True: problems, False: kept.height - problems})
        if kept.height or not self._shown:
            outputs = part.outputs.join(kept.select("job_id"), on="job_id", how="semi", maintain_order="left")
            self._shown.append(Outcomes(jobs=kept, outputs=outputs))
