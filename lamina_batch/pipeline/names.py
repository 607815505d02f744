"""How names are compared when they are not the same byte for byte."""

from __future__ import annotations


def normalise_name(name: str) -> str:
    """`name` for lenient comparison (docs/rows-and-inputs.md, "Names"): without case, outer and repeated spaces."""
    return " ".join(name.split()).casefold()
