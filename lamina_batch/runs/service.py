"""The service as a pipeline talks to it: a client with its budget, and the contract of the app."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from lamina_batch.apps.app import App, parse_app
from lamina_batch.client.budget import Budget
from lamina_batch.errors import ServiceError, UnknownAppError, UsageError
from lamina_batch.pipeline.spec import RunSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lamina_batch.client.lamina import LaminaClient
    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runs.context import Access
    from lamina_batch.runtime import Runtime


_Result = TypeVar("_Result")

#: Seconds below which an execution is not asked again (docs/pipeline-file.md, "run").
IMAGE_POLL_INTERVAL = 3.0
VIDEO_POLL_INTERVAL = 10.0
#: Requests that a run spends before its first submission: the app, its workflow, and the generation or the keys.
SETUP_REQUESTS = 3


async def ask(
    access: Access,
    runtime: Runtime,
    question: Callable[[LaminaClient], Awaitable[_Result]],
    pipeline: Pipeline | None = None,
) -> _Result:
    """Ask the service something outside a run, as `pipeline` does, if there is one.

    Raises ServiceError, CredentialsError.
    """
    budget = Budget() if pipeline is None else make_budget(pipeline)
    async with make_client(pipeline, access, runtime, budget) as client:
        return await question(client)


async def fetch_app(pipeline: Pipeline, access: Access, runtime: Runtime, budget: Budget) -> App:
    """The contract of the pipeline's app, read with a client of its own."""
    async with make_client(pipeline, access, runtime, budget) as client:
        return await app_of(pipeline, client)


async def app_of(pipeline: Pipeline, client: LaminaClient) -> App:
    """The contract of the pipeline's app.

    Raises ServiceError, UnknownAppError with the place of the id in the file, CredentialsError.
    """
    try:
        return await client.get_app(pipeline.app)
    except UnknownAppError as error:
        told = pipeline.error(("app",), f"the service knows no app {pipeline.app!r}, or hides it from this key")
        raise UnknownAppError(
            f"{told.what} ({error.what})",
            where=told.where,
            hint=f"`lamina-batch apps list{pipeline.sandbox_option}` finds ids; a private app is seen only with a key "
            "of its own workspace",
        ) from error


def min_poll_interval(pipeline: Pipeline, *, video: bool, speed: float) -> float:
    """Seconds below which an execution is not asked again."""
    chosen = pipeline.run.poll.min_interval
    return chosen if chosen is not None else (VIDEO_POLL_INTERVAL if video else IMAGE_POLL_INTERVAL) / speed


def makes_video_meta_key(app: App) -> str:
    """Under which name the ledger remembers it."""
    return f"makes_video {app.app_id} {app.fingerprint}"


async def makes_video(client: LaminaClient, ledger: Ledger, app: App) -> bool:
    """Whether this app makes video, asked once for each version of its contract and remembered."""
    name = makes_video_meta_key(app)
    known = ledger.meta(name)
    if known is None:
        try:
            workflow = await client.get_workflow(app.app_id)
        except ServiceError:
            # The workflow is only a hint for pacing, and its endpoint may go (docs/lamina-api.md, "Get workflow").
            return False
        known = str(workflow.makes_video)
        ledger.set_meta({name: known})
    return known == "True"


def last_run_app(ledger: Ledger) -> App:
    """The contract of the last run. Raises UsageError if no run came so far."""
    served = ledger.meta("app")
    if served is None:
        raise UsageError("no run has come as far as reading the app yet", hint="`lamina-batch run` comes first")
    app = parse_app(json.loads(served))
    return replace(app, app_id=ledger.meta("app_id") or app.app_id)


def make_budget(pipeline: Pipeline) -> Budget:
    """The request budget that the pipeline asks for."""
    return Budget(requests_per_minute=pipeline.run.requests_per_minute, share=pipeline.run.share)


def make_client(pipeline: Pipeline | None, access: Access, runtime: Runtime, budget: Budget) -> LaminaClient:
    """A client for the service, to be opened with `async with`."""
    # What it imports takes a tenth of a second; `preview` has the ledger read meanwhile.
    from lamina_batch.client.lamina import LaminaClient  # noqa: PLC0415

    run = RunSettings() if pipeline is None else pipeline.run
    return LaminaClient(
        base_url=access.base_url,
        api_key=access.api_key,
        budget=budget,
        runtime=runtime,
        request_timeout=run.request_timeout,
        bearer=pipeline is not None and pipeline.api.auth == "bearer",
    )
