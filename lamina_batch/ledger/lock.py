"""One run at a time on one ledger. The lock dies with its process, so it cannot go stale."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from lamina_batch.errors import LedgerLockedError, StateError
from lamina_batch.ledger.state_folder import make_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lamina_batch.runtime import Runtime

IfLocked = Literal["fail", "wait", "skip"]


@asynccontextmanager
async def hold_lock(
    folder: Path,
    *,
    if_locked: IfLocked,
    holder: str,
    runtime: Runtime,
    hint: str = "wait for it to end, then say this again",
) -> AsyncIterator[None]:
    """Hold the ledger in `folder` while the block runs; `holder` names this run to others.

    With `wait` it asks again every second. `hint` is what to do where it is not free. Raises LedgerLockedError (for
    `fail` and `skip`) with the holder's words, StateError where the folder cannot be written.
    """
    file = folder / "lock"
    make_folder(folder)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise _unwritable_error(folder, error) from error
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if if_locked != "wait":
                    raise LedgerLockedError(
                        f"another run holds this ledger: {_read_holder(descriptor)}",
                        where=str(folder),
                        hint=hint,
                    ) from None
            await runtime.sleep(1.0)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "run": holder}).encode(), 0)
        except OSError as error:
            raise _unwritable_error(folder, error) from error
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _unwritable_error(folder: Path, error: OSError) -> StateError:
    return StateError(
        f"the state folder cannot be written: {error.strerror}",
        where=str(folder),
        hint="see that the disk has room and the folder may be written; nothing was submitted: without a ledger "
        "nothing may be spent",
    )


def _read_holder(descriptor: int) -> str:
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {said['pid']}, run {said['run']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "holder unknown"
