"""What a doctor has to know, gathered: it reads, and leaves nothing behind. What it means is doctor.py's to say."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import polars as pl

from lamina_batch._version import __version__
from lamina_batch.apps.app import App
from lamina_batch.doctor.webhook_roundtrip import check_round_trip
from lamina_batch.errors import LaminaBatchError
from lamina_batch.ledger.ledger import find_ledger
from lamina_batch.ledger.state_folder import (
    RESERVE_BYTES,
    ensure_disk_space,
    estimate_ledger_bytes,
    refuse_unwritable,
)
from lamina_batch.media.names import PathPattern
from lamina_batch.runs.contract import check_contract
from lamina_batch.runs.planning import download_pattern
from lamina_batch.runs.service import app_of, ask
from lamina_batch.runs.state import read_state
from lamina_batch.sources.read_catalog import read_catalog
from lamina_batch.sources.table import Catalog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from lamina_batch.client.lamina import ApiVersion, LaminaClient, ServiceProbe
    from lamina_batch.doctor.webhook_roundtrip import RoundTrip
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runs.context import Access
    from lamina_batch.runtime import Runtime

_T = TypeVar("_T")

#: Bytes that the inputs of one job take, where it is not known.
_INPUT_BYTES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """How the service answered. What was not asked, because it did not answer before, is None."""

    greeting: ServiceProbe
    #: epoch seconds by this computer's clock, before and after
    sent_at: float
    received_at: float
    generation: ApiVersion | LaminaBatchError | None = None
    #: None: there is no pipeline that names one
    app: App | LaminaBatchError | None = None
    #: None: the pipeline has no webhook
    trip: RoundTrip | LaminaBatchError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFacts:
    """What a pipeline finds on this computer."""

    #: why the rows cannot be read; None: they can
    rows: LaminaBatchError | None
    #: what changed of the app since the pin or the last run, in words; None: the service was not asked
    drift: tuple[str, ...] | LaminaBatchError | None
    #: what keeps a run from working in the state folder
    state: tuple[LaminaBatchError, ...]
    #: what keeps it from writing its results
    results: tuple[LaminaBatchError, ...]
    #: jobs by state; None if there is no ledger or it cannot be read
    counts: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that the checks look at."""

    #: name -> version
    versions: Mapping[str, str]
    #: None: none was named
    pipeline: Pipeline | LaminaBatchError | None
    access: Access | LaminaBatchError
    #: None: there is no access
    service: ServiceFacts | None
    #: None: there is no pipeline
    place: LocalFacts | None
    #: why the host of `notify` is not found; None if it is found, or the pipeline has no `notify`
    notify_problem: str | None


async def collect_facts(
    pipeline: Pipeline | LaminaBatchError | None, access: Access | LaminaBatchError, runtime: Runtime
) -> Facts:
    """Ask the service, this computer, and the public address of the pipeline's webhooks. Raises nothing of these."""
    known = None if isinstance(pipeline, LaminaBatchError) else pipeline
    service: ServiceFacts | None = None
    if not isinstance(access, LaminaBatchError):
        here = access

        async def question(client: LaminaClient) -> ServiceFacts:
            return await _probe_service(client, known, here, runtime)

        service = await ask(access, runtime, question, known)
    place: LocalFacts | None = None
    if known is not None:
        place = _local_facts(known, None if isinstance(access, LaminaBatchError) else access.service, service)
    return Facts(
        versions={
            "lamina-batch": __version__,
            "python": platform.python_version(),
            "polars": pl.__version__,
            "sqlite": sqlite3.sqlite_version,
        },
        pipeline=pipeline,
        access=access,
        service=service,
        place=place,
        notify_problem=None if known is None else await _notify_host_problem(known),
    )


async def _probe_service(
    client: LaminaClient, pipeline: Pipeline | None, access: Access, runtime: Runtime
) -> ServiceFacts:
    sent_at = runtime.wall()
    greeting = await client.greet()
    received_at = runtime.wall()
    if not greeting.usable:
        return ServiceFacts(greeting=greeting, sent_at=sent_at, received_at=received_at)
    generation = await _await_or_error(client.probe_generation())
    app: App | LaminaBatchError | None = None
    trip: RoundTrip | LaminaBatchError | None = None
    if pipeline is not None:
        app = await _await_or_error(app_of(pipeline, client))
        webhook = pipeline.run.webhook
        if webhook is not None:
            if not isinstance(generation, LaminaBatchError):
                client.generation = generation
            trip = await _await_or_error(
                check_round_trip(webhook, client, runtime, sandbox=access.service == "sandbox")
            )
    return ServiceFacts(
        greeting=greeting, sent_at=sent_at, received_at=received_at, generation=generation, app=app, trip=trip
    )


async def _await_or_error(question: Awaitable[_T]) -> _T | LaminaBatchError:
    try:
        return await question
    except LaminaBatchError as error:
        return error


def _local_facts(pipeline: Pipeline, name: str | None, service: ServiceFacts | None) -> LocalFacts:
    """`name` is what ledgers know the service by; None: it is not known."""
    run = pipeline.run
    needed = RESERVE_BYTES + estimate_ledger_bytes(run.max_executions, run.max_executions * _INPUT_BYTES)
    catalog = _call_or_error(lambda: read_catalog(pipeline))
    counts = _call_or_error(lambda: _ledger_counts(pipeline, name))
    pattern = _call_or_error(lambda: download_pattern(pipeline))
    folders = [file.parent for file in pipeline.results.manifest]
    folders += [pattern.folder] if isinstance(pattern, PathPattern) else []
    app = service.app if service is not None else None
    drift: tuple[str, ...] | LaminaBatchError | None = None
    if isinstance(app, App) and name is not None:
        drift = _call_or_error(
            lambda: _contract_notes(pipeline, catalog if isinstance(catalog, Catalog) else None, app, name)
        )
    return LocalFacts(
        rows=catalog if isinstance(catalog, LaminaBatchError) else None,
        drift=drift,
        state=_only_errors(
            counts,
            _call_or_error(lambda: refuse_unwritable(pipeline.state)),
            _call_or_error(lambda: ensure_disk_space(pipeline.state, needed)),
        ),
        results=_only_errors(
            pattern, *(_call_or_error(partial(refuse_unwritable, folder)) for folder in dict.fromkeys(folders))
        ),
        counts=None if isinstance(counts, LaminaBatchError) else counts,
    )


def _call_or_error(step: Callable[[], _T]) -> _T | LaminaBatchError:
    try:
        return step()
    except LaminaBatchError as error:
        return error


def _only_errors(*ends: object) -> tuple[LaminaBatchError, ...]:
    return tuple(end for end in ends if isinstance(end, LaminaBatchError))


def _ledger_counts(pipeline: Pipeline, name: str | None) -> Mapping[str, int] | None:
    """How many jobs stand in each state; None if there is no ledger. Raises what would keep a run from starting."""
    with read_state(pipeline, name) as ledger:
        return None if ledger is None else ledger.counts()


def _contract_notes(pipeline: Pipeline, catalog: Catalog | None, app: App, name: str) -> tuple[str, ...]:
    with find_ledger(pipeline.state) or nullcontext() as ledger:
        return check_contract(pipeline, catalog, app, name, ledger)


async def _notify_host_problem(pipeline: Pipeline) -> str | None:
    """Why the host of `notify` is not found. It is not called, because some services count every call."""
    if pipeline.notify is None:
        return None
    host = urlsplit(pipeline.notify.url).hostname or ""
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        return f"the host {host} is not found ({getattr(error, 'strerror', None) or error.__class__.__name__})"
    return None
