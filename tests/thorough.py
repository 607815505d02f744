"""How many examples a property is tried with: few by default, many with `--hypothesis-profile=thorough`."""

from __future__ import annotations

from hypothesis import settings

#: What `make thorough` multiplies the examples of every property by.
THOROUGHNESS = 20
#: Of a property that says nothing of its own. The machine may be busy: how long an example takes is no finding.
FEW = 100

settings.register_profile("few", deadline=None, max_examples=FEW)
settings.register_profile("thorough", deadline=None, max_examples=FEW * THOROUGHNESS)


def examples(few: int) -> int:
    """So many by default, and as many times more when asked for."""
    return few * max(1, settings.default.max_examples // FEW)  # type: ignore[union-attr]
