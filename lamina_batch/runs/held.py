"""Held jobs: what is known of each, which executions it may be, and what the user decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamina_batch.client.lamina import EXECUTIONS, RUNS
from lamina_batch.errors import ServiceError, UsageError
from lamina_batch.ledger.held import apply_decisions, find_candidates
from lamina_batch.ledger.job import State
from lamina_batch.runs.run import new_run_id
from lamina_batch.runs.state import write_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.client.answers import ListedExecution
    from lamina_batch.client.lamina import LaminaClient
    from lamina_batch.ledger.held import HeldDecisions
    from lamina_batch.ledger.job import Job
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runtime import Runtime

#: Pages of the list that are asked for candidates, of 100 each.
_MAX_PAGES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldJobs:
    """The held jobs: it is not known whether they were bought."""

    #: oldest first; also those whose POST may still be open in another process
    jobs: tuple[Job, ...]
    #: the API generation in which they were sent
    generation: str
    #: job id -> executions that the service lists and the ledger does not know
    candidates: Mapping[int, tuple[ListedExecution, ...]] = field(default_factory=dict)


def find_held_jobs(pipeline: Pipeline, ledger: Ledger) -> HeldJobs:
    """What the ledger knows of them."""
    return HeldJobs(jobs=tuple(ledger.jobs(State.HELD, State.SUBMITTING)), generation=_api_version(pipeline, ledger))


def _api_version(pipeline: Pipeline, ledger: Ledger) -> str:
    asked = pipeline.api.api_version
    return (ledger.meta("generation") or EXECUTIONS.name) if asked == "auto" else asked


async def list_executions_since(client: LaminaClient, app_id: str, since: float) -> tuple[list[ListedExecution], bool]:
    """The executions of this app that the service lists since then, newest first, and whether these are all.

    There are no more than a few requests show. Raises ServiceError if it does not answer with a list.
    """
    found: list[ListedExecution] = []
    offset = 0
    for _ in range(_MAX_PAGES):
        end = await client.list_runs(app_id=app_id, since=since, offset=offset)
        if end.status != 200:
            raise ServiceError(f"the service does not list its executions: {end.message}")
        found += end.items
        offset += end.received
        if not end.received or (end.total is not None and offset >= end.total):
            return found, True
    return found, False


def with_candidates(
    held: HeldJobs, listed: Sequence[ListedExecution], ledger: Ledger, request_timeout: float
) -> HeldJobs:
    """The same, with the executions that each of them may be."""
    strangers = [item for item in listed if ledger.of_execution(item.execution_id) is None]
    found = {job.id: find_candidates(job, strangers, request_timeout) for job in held.jobs}
    return HeldJobs(jobs=held.jobs, generation=held.generation, candidates=found)


async def refuse_unknown_executions(client: LaminaClient, held: HeldJobs, words: HeldDecisions) -> str | None:
    """Raise UsageError if the service knows no such execution; answers why it could not be asked, if it could not.

    Adopted all the same, it would be asked about without result until `execution_timeout`.
    """
    names = {name for job in held.jobs for name in (job.key, job.name)} - {*words.resubmit, *words.give_up}
    for name, execution_id in words.adopt.items():
        if name not in names:
            continue
        end = await client.get_execution(execution_id, generation=held.generation)
        if end.status in {400, 404}:
            raise UsageError(
                f"the service knows no execution {execution_id!r}, so {name!r} stays held",
                hint=f"{_EXECUTION_ID_HINTS.get(held.generation, _NO_LIST_HINT)}; HTTP says: {end.message}",
            )
        if end.execution is None:
            return end.message
    return None


#: this generation of the API has a list, the other has none
_EXECUTION_ID_HINTS = {RUNS.name: "its id stands in the service's own list of executions, which `held` shows"}
_NO_LIST_HINT = "the API lists no executions: look in the Lamina app for what was made at the time that `held` names"


async def settle_held(pipeline: Pipeline, words: HeldDecisions, *, runtime: Runtime) -> list[Job]:
    """Do what the user says. Raises UsageError as `settle`, LedgerLockedError where a run holds the ledger."""
    run_id = new_run_id(runtime)
    async with write_state(pipeline, None, run_id=run_id, runtime=runtime) as ledger:
        ledger.recover(at=runtime.wall(), run_id=run_id)
        generation = _api_version(pipeline, ledger)
        return apply_decisions(ledger, words, generation=generation, at=runtime.wall(), run_id=run_id)
