"""What a doctor has to know, gathered: it reads, and leaves nothing behind. What it means is doctor.py's to say."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import polars as pl

import lamina_batch
from lamina_batch.batch import ask, binding
from lamina_batch.batch.steps import file_pattern
from lamina_batch.errors import LaminaBatchError
from lamina_batch.execution.folder import (
    RESERVE_BYTES,
    ensure_room,
    refuse_network,
    refuse_unwritable,
    room_for,
)
from lamina_batch.execution.ledger import find_ledger
from lamina_batch.operations.roundtrip import make_trip
from lamina_batch.results.lost import refuse_lost, refuse_renamed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.batch import Access, World
    from lamina_batch.client.lamina import Generation, Greeting, LaminaClient
    from lamina_batch.operations.roundtrip import Trip
    from lamina_batch.pipeline.spec import Pipeline

_T = TypeVar("_T")

#: Bytes that the inputs of one job take, where it is not known.
_INPUT_BYTES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How the service answered. What was not asked, because it did not answer before, is None."""

    greeting: Greeting
    #: epoch seconds by this computer's clock, before and after
    sent_at: float
    received_at: float
    generation: Generation | LaminaBatchError | None = None
    #: None: there is no pipeline that names one
    app: App | LaminaBatchError | None = None
    #: None: the pipeline has no webhook
    trip: Trip | LaminaBatchError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The state folder of a pipeline, and where its results go."""

    #: what keeps a run from working in the state folder
    state: tuple[LaminaBatchError, ...]
    #: what keeps it from writing its results
    results: tuple[LaminaBatchError, ...]
    #: how many jobs stand in each state; None: there is no ledger yet, or it cannot be read
    counts: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    #: name -> version
    versions: Mapping[str, str]
    #: None: none was named
    pipeline: Pipeline | LaminaBatchError | None
    access: Access | LaminaBatchError
    #: None: there is no access
    service: Service | None
    #: None: there is no pipeline
    place: Place | None
    #: why the host of `notify` is not found; None: it is, or there is none
    notify_trouble: str | None


async def gather(
    pipeline: Pipeline | LaminaBatchError | None, access: Access | LaminaBatchError, world: World
) -> Facts:
    """Ask the service, this computer, and the public address of the pipeline's webhooks. Raises nothing of these."""
    known = None if isinstance(pipeline, LaminaBatchError) else pipeline
    service: Service | None = None
    if not isinstance(access, LaminaBatchError):
        here = access

        async def question(client: LaminaClient) -> Service:
            return await _ask(client, known, here, world)

        service = await ask(access, world, question, known)
    return Facts(
        versions={
            "lamina-batch": lamina_batch.__version__,
            "python": platform.python_version(),
            "polars": pl.__version__,
            "sqlite": sqlite3.sqlite_version,
        },
        pipeline=pipeline,
        access=access,
        service=service,
        place=None if known is None else _place(known, None if isinstance(access, LaminaBatchError) else access),
        notify_trouble=None if known is None else await _notify_trouble(known),
    )


async def _ask(client: LaminaClient, pipeline: Pipeline | None, access: Access, world: World) -> Service:
    sent_at = world.wall()
    greeting = await client.greet()
    received_at = world.wall()
    if not greeting.usable:
        return Service(greeting=greeting, sent_at=sent_at, received_at=received_at)
    generation = await _tried(client.probe_generation())
    app: App | LaminaBatchError | None = None
    trip: Trip | LaminaBatchError | None = None
    if pipeline is not None:
        app = await _tried(client.get_app(pipeline.app))
        webhook = pipeline.run.webhook
        if webhook is not None:
            if not isinstance(generation, LaminaBatchError):
                client.generation = generation
            trip = await _tried(make_trip(webhook, client, world, sandbox=access.service == "sandbox"))
    return Service(
        greeting=greeting, sent_at=sent_at, received_at=received_at, generation=generation, app=app, trip=trip
    )


async def _tried(question: Awaitable[_T]) -> _T | LaminaBatchError:
    try:
        return await question
    except LaminaBatchError as error:
        return error


def _place(pipeline: Pipeline, access: Access | None) -> Place:
    run = pipeline.run
    needed = RESERVE_BYTES + room_for(run.max_executions, run.max_executions * _INPUT_BYTES)
    state = [
        *_refusals(refuse_network, pipeline.state),
        *_refusals(refuse_unwritable, pipeline.state),
        *_refusals(lambda folder: ensure_room(folder, needed), pipeline.state),
    ]
    counts: Mapping[str, int] | None = None
    try:
        counts = _ledger_counts(pipeline, access)
    except LaminaBatchError as error:
        state.append(error)
    folders = dict.fromkeys(file.parent for file in pipeline.results.manifest)
    try:
        pattern = file_pattern(pipeline)
        if pattern is not None:
            folders[pattern.folder] = None
        results = [error for folder in folders for error in _refusals(refuse_unwritable, folder)]
    except LaminaBatchError as error:
        results = [error]
    return Place(state=tuple(state), results=tuple(results), counts=counts)


def _refusals(refuse: Callable[[Path], None], folder: Path) -> Iterator[LaminaBatchError]:
    try:
        refuse(folder)
    except LaminaBatchError as error:
        yield error


def _ledger_counts(pipeline: Pipeline, access: Access | None) -> Mapping[str, int] | None:
    """How many jobs stand in each state; None: there is no ledger. Raises what would keep a run from starting."""
    ledger = find_ledger(pipeline.state)
    with ledger or nullcontext():
        refuse_lost(pipeline, ledger)
        if access is not None:
            refuse_renamed(pipeline, ledger, access.service)
        if ledger is None:
            return None
        if access is not None:
            ledger.check_binding(binding(pipeline, access.service))
        return ledger.counts()


async def _notify_trouble(pipeline: Pipeline) -> str | None:
    """Why the host that is told of ends is not found. It is not called: some count every call."""
    if pipeline.notify is None:
        return None
    host = urlsplit(pipeline.notify.url).hostname or ""
    try:
        await asyncio.get_running_loop().getaddrinfo(host, None)
    except (OSError, UnicodeError) as error:
        return f"the host {host} is not found ({getattr(error, 'strerror', None) or error.__class__.__name__})"
    return None
