"""Opening the state of a pipeline. Every command checks in this order, so that all report the same first error:

1. the folder is not on a network file system;
2. no other run holds the lock (commands that write);
3. the ledger can be opened;
4. the ledger belongs to this pipeline file and this service;
5. the ledger was not lost, and the pipeline file was not renamed.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from lamina_batch.errors import UsageError
from lamina_batch.ledger.ledger import Binding, Ledger, find_ledger, open_ledger
from lamina_batch.ledger.lock import hold_lock
from lamina_batch.ledger.state_folder import refuse_network
from lamina_batch.results.lost_ledger import refuse_lost, refuse_renamed
from lamina_batch.runs.context import RunRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runtime import Runtime

_PLAIN = RunRequest()


def binding(pipeline: Pipeline, service: str) -> Binding:
    """What the ledger of this pipeline at this service is tied to."""
    return Binding(service=service, pipeline=os.path.relpath(pipeline.file, pipeline.state))


@contextmanager
def read_state(pipeline: Pipeline, service: str | None, request: RunRequest = _PLAIN) -> Iterator[Ledger | None]:
    """The ledger for reading; None if this pipeline has not run. Nothing is created or locked.

    `service` is the base URL or `sandbox`; None if it is not known, and then the binding is not checked.
    Raises StateError, UsageError for a ledger of another file or service, LostLedgerError.
    """
    refuse_network(pipeline.state)
    ledger = find_ledger(pipeline.state)
    with ledger or nullcontext():
        _check(pipeline, ledger, service, request)
        yield ledger


@contextmanager
def read_existing_state(pipeline: Pipeline, service: str | None = None) -> Iterator[Ledger]:
    """As `read_state`. Raises UsageError if this pipeline has not run."""
    with read_state(pipeline, service) as ledger:
        if ledger is None:
            raise _no_ledger(pipeline)
        yield ledger


@asynccontextmanager
async def write_state(
    pipeline: Pipeline,
    service: str | None,
    request: RunRequest = _PLAIN,
    *,
    run_id: str,
    runtime: Runtime,
    create: bool = False,
    restoring: bool = False,
) -> AsyncIterator[Ledger]:
    """The locked ledger for reading and writing.

    `run_id` is what other runs are told about the holder of the lock. Without `create` a missing ledger is a
    UsageError. `restoring` means that the ledger is about to be filled, so an empty one is no error.
    Raises LedgerLockedError, and what `read_state` raises.
    """
    refuse_network(pipeline.state)
    async with lock_state(pipeline, request, run_id=run_id, runtime=runtime):
        ledger = open_ledger(pipeline.state) if create else find_ledger(pipeline.state)
        if ledger is None:
            raise _no_ledger(pipeline)
        with ledger:
            if not restoring:
                _check(pipeline, ledger, service, request)
            yield ledger


@asynccontextmanager
async def lock_state(
    pipeline: Pipeline, request: RunRequest = _PLAIN, *, run_id: str, runtime: Runtime
) -> AsyncIterator[None]:
    """Hold the lock of the state folder. Raises LedgerLockedError, and StateError if the folder cannot be written."""
    if request is _PLAIN:
        hint = "wait for it to end, then try again"
    elif request.submit:
        hint = "wait for it to end; `run` can do that itself: --if-locked wait (or skip)"
    else:
        hint = "that run collects and writes the results itself; otherwise try again when it has ended"
    async with hold_lock(pipeline.state, if_locked=request.if_locked, holder=run_id, runtime=runtime, hint=hint):
        yield


def _check(pipeline: Pipeline, ledger: Ledger | None, service: str | None, request: RunRequest) -> None:
    if ledger is not None and service is not None:
        ledger.check_binding(binding(pipeline, service), adopt=request.adopt_state)
    if not request.new_ledger:
        refuse_lost(pipeline, ledger)
        if service is not None:
            refuse_renamed(pipeline, ledger, service)


def _no_ledger(pipeline: Pipeline) -> UsageError:
    return UsageError(
        "this pipeline has not run yet: there is no ledger",
        where=str(pipeline.state),
        hint=f"`{pipeline.command_line('run')}` makes one (with --sandbox it is another one)",
    )
