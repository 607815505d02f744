"""Clocks, sleep, randomness and notices: everything that a test replaces to be repeatable."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random


def _ignore(_text: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The clocks, sleep, randomness and notices of a run."""

    #: monotonic seconds, for pacing and durations
    now: Callable[[], float]
    #: epoch seconds, for records
    wall: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random: Random
    #: shows a message to the user
    notice: Callable[[str], None] = _ignore


def system_runtime(notice: Callable[[str], None] = _ignore) -> Runtime:
    """The clocks, sleep and randomness of this computer."""
    import asyncio  # `--help` starts without it
    import random

    return Runtime(
        now=time.monotonic,
        wall=time.time,  # noqa: TID251  # the one place where the wall clock is read
        sleep=asyncio.sleep,  # noqa: TID251  # and where sleep comes from
        random=random.Random(),  # noqa: S311  # for backoff and names, not for secrets
        notice=notice,
    )
