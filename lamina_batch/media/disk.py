"""Disk work beside the loop: in threads of its own, so that a slow disk holds up neither requests nor name lookups."""

from __future__ import annotations

import asyncio
import errno
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_THREAD_COUNT = 4
_DISK_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskError(Exception):
    """A download cannot be written; the text says why."""


class DiskWorker:
    """The threads. `close` waits for what they do."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREAD_COUNT, thread_name_prefix="downloads")

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `work` in a thread. Raises DiskError for an OSError of it.

        Work that has begun is never left behind: who is cancelled here is so when it has ended.
        """
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # seen: nobody is left to be told
            raise
        try:
            return future.result()
        except OSError as error:
            raise DiskError(_error_text(error)) from error

    def close(self) -> None:
        """Wait for the work that has begun, and end the threads."""
        self._pool.shutdown()


def _error_text(error: OSError) -> str:
    if error.errno in _DISK_FULL_ERRORS:
        return "the disk is full"
    where = f"{error.filename}: " if isinstance(error.filename, str) else ""
    return f"cannot be written: {where}{error.strerror or error}"
