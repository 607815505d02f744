"""The event loop of the tests that are coroutines: its time is that which it waited, not that which it was kept."""

from __future__ import annotations

import asyncio
import selectors
import time


class _Clocked(selectors.DefaultSelector):
    """Counts the seconds in which nothing came, and hardly any beside them."""

    #: What a look at which something came may count: enough for a peer that never stops to meet its timeout.
    STEP = 0.001

    def __init__(self) -> None:
        super().__init__()
        self.at = self._looked = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        self.at += min(passed, self.STEP if ready else max(timeout or 0.0, self.STEP))
        return ready


class FairLoop(asyncio.SelectorEventLoop):
    """Where client and server share this loop, a busy machine cannot end a timeout between the two of them.

    An ordinary loop that was not given the processor for ten seconds finds both what has come in meanwhile and every
    timeout of ten seconds, and acts on both. This one finds what has come in.
    """

    def __init__(self) -> None:
        self._clocked = _Clocked()
        super().__init__(self._clocked)

    def time(self) -> float:
        return self._clocked.at
