"""`python -m chaos`: plays many schedules, prints what was counted, and says how to replay one that failed."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.count import Tally, count
from chaos.schedule import draw
from chaos.storm import HarnessError, play

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chaos.schedule import Schedule

#: A port taken by somebody else is no finding; a second try gets another.
_TRIES = 3


def main(words: list[str] | None = None) -> int:
    """Play what `words` ask for; 1 where something was found."""
    options = _options(words)
    seeds = [options.seed] * options.times if options.seed is not None else range(1, options.seeds + 1)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="lamina-chaos-"))
    began = time.monotonic()
    total, failed = storm(seeds, folder, jobs=options.jobs, short=options.short, keep=options.keep)
    print(table(total), flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    for seed, where in failed:
        print(f"seed {seed} failed; everything it left is in {where}")
        print(f"  replay: make chaos SEED={seed}     (moments are not exact to the millisecond: TIMES=20 tries often)")
    if not failed and not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def storm(
    seeds: Iterable[int], folder: Path, *, jobs: int, short: bool = False, keep: bool = False
) -> tuple[Tally, list[tuple[int, Path]]]:
    """Play the schedules of these seeds, `jobs` at once. Answers the sum, and which failed and where they lie."""
    total = Tally()
    failed: list[tuple[int, Path]] = []
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        playing = {}
        for number, seed in enumerate(seeds):
            where = folder / f"seed-{seed}-{number}"
            playing[pool.submit(_one, draw(seed).short() if short else draw(seed), where)] = seed, where
        for done in as_completed(playing):
            seed, where = playing[done]
            tally = done.result()
            total.add(tally)
            print(line(seed, tally), flush=True)
            if tally.problems:
                failed.append((seed, where))
            elif not keep:
                shutil.rmtree(where, ignore_errors=True)
    return total, failed


def _one(schedule: Schedule, where: Path) -> Tally:
    for attempt in range(1, _TRIES + 1):
        shutil.rmtree(where, ignore_errors=True)
        try:
            return count(play(schedule, where))
        except HarnessError:
            if attempt == _TRIES:
                raise
    raise AssertionError


def line(seed: int, tally: Tally) -> str:
    """One schedule in a line, and a line for each problem."""
    said = (
        f"seed {seed}: {tally.runs} runs, {tally.kills} killed, {tally.accepted} accepted, "
        f"held {tally.held} of at most {tally.most_held}, "
        f"duplicates {tally.duplicates}, lost {tally.lost}"
    )
    return "\n".join([said, *(f"  PROBLEM: {problem}" for problem in tally.problems)])


def table(total: Tally) -> str:
    """The sum, for people."""
    faults = [(f"  {name} ({kind})", number) for (name, kind), number in sorted(total.faults.items())]
    statuses = [(f"  {name}", number) for name, number in total.statuses.most_common()]
    rows: list[tuple[str, object]] = [
        ("schedules", total.schedules),
        ("runs (client processes)", total.runs),
        ("kills (kill -9 of the client)", total.kills),
        ("stopped by SIGTERM", total.terms),
        ("service killed or restarted under a run", total.service_stops),
        ("faults", sum(total.faults.values())),
        *faults,
        ("rows (jobs of the last catalogs)", total.jobs),
        *statuses,
        ("submissions the service saw", total.starts),
        ("accepted executions", total.accepted),
        ("bought again because it was asked for", total.consented),
        ("duplicates", total.duplicates),
        ("sent again without proof", total.unproved),
        ("lost", total.lost),
        ("let go because it was said so", total.let_go),
        ("held", total.held),
        ("  held and accepted", total.held_accepted),
        ("  held and not accepted", total.held_not_accepted),
        ("  held because the answer was lost", total.held_unheard),
        ("  held because somebody was killed", total.held_cut_off),
        ("most that may be held", total.most_held),
        ("  answers lost", total.answers_lost),
        ("  POSTs seen open at a kill", total.cut_off),
        ("  others on the way at a kill, at most", total.on_the_way),
        ("problems", len(total.problems)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {number:>7}" for name, number in rows)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=60, help="play the seeds from 1 to this (60)")
    parser.add_argument("--seed", type=int, help="play only this one")
    parser.add_argument("--times", type=int, default=1, help="with --seed: so often")
    parser.add_argument("--short", action="store_true", help="only the first two legs of each")
    parser.add_argument("--jobs", type=int, default=4, help="schedules at once (4)")
    parser.add_argument("--folder", help="where they are played (a temporary folder)")
    parser.add_argument("--keep", action="store_true", help="keep what they leave")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
