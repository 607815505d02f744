"""What is wrong with a pipeline file: gathered, sorted by place, told in one error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_batch.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lamina_batch.pipeline.spec import Place

#: keys and list indexes from the top of the file to a value
Steps = tuple[str | int, ...]

#: more would scroll the first one, often the cause of the others, off the screen
MOST_SHOWN = 20

#: what every Lamina API key contains (API.md section 1)
KEY_SHAPE = re.compile(r"lma_[A-Za-z0-9_-]{8,}")

KEY_REFUSED = "this looks like an API key or a secret, and those do not belong in a pipeline file"
KEY_HINT = "take it out and set the environment variable LAMINA_API_KEY; replace a key that others have seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    steps: Steps
    place: Place
    what: str
    hint: str | None = None


def dotted(steps: Steps) -> str:
    """`run.max_in_flight`: how a place in the file is named, safe to print."""
    return ".".join(printable(str(step)) for step in steps)


def printable(text: str) -> str:
    """`text`, with escapes where a terminal would obey it instead of showing it."""
    return text if text.isprintable() else repr(text)


def redacted(text: str) -> str:
    """`text` without what may be an API key."""
    return KEY_SHAPE.sub("lma_…", text)


def as_error(file: Path, problems: Iterable[Problem]) -> PipelineError:
    """One error that tells all problems, in the file's order; of several about one place only the first."""
    first_at: dict[Steps, Problem] = {}
    for problem in problems:
        first_at.setdefault(problem.steps, problem)
    ordered = sorted(first_at.values(), key=lambda problem: problem.place)
    errors = [
        PipelineError(problem.what, where=_where(file, problem.place), hint=problem.hint)
        for problem in ordered[:MOST_SHOWN]
    ]
    if len(ordered) == 1:
        return errors[0]
    lines = [line for error in errors for line in str(error).splitlines()]
    if len(ordered) > MOST_SHOWN:
        lines.append(f"and {len(ordered) - MOST_SHOWN} more")
    return PipelineError("\n  ".join([f"{len(ordered)} problems", *lines]), where=str(file))


def _where(file: Path, place: Place) -> str:
    return f"{file}:{place.line}:{place.column}" if place.line else "--set"
