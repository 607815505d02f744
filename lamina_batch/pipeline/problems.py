"""Problems of a pipeline file: collected, sorted by position, and raised as one error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lamina_batch.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: keys and list indexes from the top of the file to a value
KeyPath = tuple[str | int, ...]

#: The first problem often causes the others, and must not scroll off the screen.
MAX_PROBLEMS_SHOWN = 20

#: every Lamina API key contains it (docs/lamina-api.md, "Authentication")
API_KEY_PATTERN = re.compile(r"lma_[A-Za-z0-9_-]{8,}")

SECRET_REFUSED_MESSAGE = "this looks like an API key or a secret, and those do not belong in a pipeline file"  # noqa: S105  # a message
SECRET_REFUSED_HINT = "take it out and set the environment variable LAMINA_API_KEY; replace a key that others have seen"  # noqa: S105  # a message


class FilePosition(NamedTuple):
    """A position in the file; line and column count from 1. Line 0: the value comes from `--set`."""

    line: int
    column: int

    def format(self, file: Path) -> str:
        """`file:line:column`, or `--set`."""
        return f"{file}:{self.line}:{self.column}" if self.line else "--set"


class InvalidValueError(ValueError):
    """A value that cannot be used: `what` is wrong, and `hint` is the next thing to do."""

    def __init__(self, what: str, hint: str) -> None:
        """Hold what is wrong and what to do."""
        self.what = what
        self.hint = hint
        super().__init__(what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem at one position of the file."""

    key_path: KeyPath
    position: FilePosition
    what: str
    hint: str | None = None


def dotted_path(key_path: KeyPath) -> str:
    """`run.max_in_flight`: the name of a place in the file, safe to print."""
    return ".".join(escape_unprintable(str(step)) for step in key_path)


def escape_unprintable(text: str) -> str:
    """`text`, with escapes for characters that control a terminal."""
    return text if text.isprintable() else repr(text)


def redact(text: str) -> str:
    """`text` without anything that looks like an API key."""
    return API_KEY_PATTERN.sub("lma_…", text)


def as_error(file: Path, problems: Iterable[Problem]) -> PipelineError:
    """One error with all problems in the file's order. Of several problems of one value it has the first."""
    first_at: dict[KeyPath, Problem] = {}
    for problem in problems:
        first_at.setdefault(problem.key_path, problem)
    ordered = sorted(first_at.values(), key=lambda problem: problem.position)
    errors = [
        PipelineError(problem.what, where=problem.position.format(file), hint=problem.hint)
        for problem in ordered[:MAX_PROBLEMS_SHOWN]
    ]
    if len(ordered) == 1:
        return errors[0]
    lines = [line for error in errors for line in str(error).splitlines()]
    if len(ordered) > MAX_PROBLEMS_SHOWN:
        lines.append(f"and {len(ordered) - MAX_PROBLEMS_SHOWN} more")
    return PipelineError("\n  ".join([f"{len(ordered)} problems", *lines]), where=str(file))
