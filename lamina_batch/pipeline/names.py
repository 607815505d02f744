"""Compares names in which case and spaces do not matter (docs/rows-and-inputs.md, "Names")."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def normalise_name(name: str) -> str:
    """`name` in lower case, with single spaces, and without outer spaces: equal for names that match."""
    return " ".join(name.split()).casefold()


def match_name(name: str, choices: Iterable[str]) -> str | None:
    """The choice that is `name`, or else the only choice with the same normalised name, byte for byte.

    None if no choice matches, or if several match only when normalised.
    """
    choices = tuple(choices)
    if name in choices:
        return name
    same = [choice for choice in choices if normalise_name(choice) == normalise_name(name)]
    return same[0] if len(same) == 1 else None
