"""A runtime for tests: the computer's own, with the parts that a test replaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lamina_batch.runtime import Runtime, system_runtime


def make_runtime(**replaced: Any) -> Runtime:
    """Clocks, sleep and randomness of this computer, but for what is `replaced`."""
    return replace(system_runtime(), **replaced)
