"""What is wrong with a pipeline file: gathered, sorted by place, told in one error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_batch.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lamina_batch.pipeline.spec import FilePosition

#: keys and list indexes from the top of the file to a value
KeyPath = tuple[str | int, ...]

#: more would scroll the first one, often the cause of the others, off the screen
MAX_PROBLEMS_SHOWN = 20

#: what every Lamina API key contains (docs/lamina-api.md, "Authentication")
API_KEY_PATTERN = re.compile(r"lma_[A-Za-z0-9_-]{8,}")

SECRET_REFUSED_MESSAGE = "this looks like an API key or a secret, and those do not belong in a pipeline file"  # noqa: S105  # words, not a secret
SECRET_REFUSED_HINT = "take it out and set the environment variable LAMINA_API_KEY; replace a key that others have seen"  # noqa: S105  # words, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a pipeline file."""

    steps: KeyPath
    place: FilePosition
    what: str
    hint: str | None = None


def dotted_path(steps: KeyPath) -> str:
    """`run.max_in_flight`: how a place in the file is named, safe to print."""
    return ".".join(escape_unprintable(str(step)) for step in steps)


def escape_unprintable(text: str) -> str:
    """`text`, with escapes where a terminal would obey it instead of showing it."""
    return text if text.isprintable() else repr(text)


def redact(text: str) -> str:
    """`text` without what may be an API key."""
    return API_KEY_PATTERN.sub("lma_…", text)


def as_error(file: Path, problems: Iterable[Problem]) -> PipelineError:
    """One error that tells all problems, in the file's order; of several about one place only the first."""
    first_at: dict[KeyPath, Problem] = {}
    for problem in problems:
        first_at.setdefault(problem.steps, problem)
    ordered = sorted(first_at.values(), key=lambda problem: problem.place)
    errors = [
        PipelineError(problem.what, where=_format_position(file, problem.place), hint=problem.hint)
        for problem in ordered[:MAX_PROBLEMS_SHOWN]
    ]
    if len(ordered) == 1:
        return errors[0]
    lines = [line for error in errors for line in str(error).splitlines()]
    if len(ordered) > MAX_PROBLEMS_SHOWN:
        lines.append(f"and {len(ordered) - MAX_PROBLEMS_SHOWN} more")
    return PipelineError("\n  ".join([f"{len(ordered)} problems", *lines]), where=str(file))


def _format_position(file: Path, place: FilePosition) -> str:
    return f"{file}:{place.line}:{place.column}" if place.line else "--set"
