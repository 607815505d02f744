"""The commands that look after the ledger: status, held and state."""

from __future__ import annotations

import os
import shlex
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lamina_batch.cli.options import (
    PipelineTarget,
    RedactingServiceOptions,
    override_option,
    pipeline_options,
    run_blocking,
    runtime,
    service_options,
)
from lamina_batch.cli.shell import Command, Group, out, say
from lamina_batch.errors import CredentialsError, LaminaBatchError, ServiceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina_batch.ledger.held import HeldDecisions
    from lamina_batch.ledger.job import Job
    from lamina_batch.pipeline.spec import Pipeline


@click.command(cls=Command)
@pipeline_options
def status(call: PipelineTarget) -> None:
    """Say what the ledger knows, without the network.

    \b
    Example:
      lamina-batch status catalog.yaml
    """
    from lamina_batch.ledger.job import State
    from lamina_batch.ledger.ledger import find_ledger

    pipeline = call.locate()
    ledger = find_ledger(pipeline.state)
    if ledger is None:
        out(f"{pipeline.name}: has not run yet (no ledger in {pipeline.state})")
        return
    with ledger:
        # The ledger names it from the folder that it is in itself, so that both can be moved.
        bound, service = ledger.meta("pipeline"), ledger.meta("service")
        if bound is None:
            out(f"{pipeline.name}: no run has come as far as its rows yet (the ledger is in {pipeline.state})")
        else:
            out(f"{pipeline.name}: ledger of {os.path.relpath(pipeline.state / bound)} at {service}")
        for name, count in sorted(ledger.counts().items()):
            out(f"  {count:>7}  {name.replace('_', ' ')}")
        held = ledger.jobs(State.HELD, State.SUBMITTING)
    for job in held:
        out(_held_line(job))
    if held:
        out(_held_help(call))


_HELD_HELP = """\
A held row may have been bought; it is not sent again until you say what it is:
  {held} --adopt KEY=EXECUTION_ID   it was: this is its execution
  {held} --resubmit KEY             send it again, and maybe pay twice
  {held} --give-up KEY              neither: it failed, and only `run --rerun KEY` sends it again"""


def _held_help(call: PipelineTarget) -> str:
    sandbox = " --sandbox" if call.service.sandbox else ""
    return _HELD_HELP.format(held=f"lamina-batch held {shlex.quote(str(call.file))}{sandbox}")


def _held_line(job: Job) -> str:
    why = job.message or "its answer has not been heard yet"
    return f"held: {job.name}: sent {_format_time(job.submitted_at or 0.0)} (attempt {job.attempts}): {why}"


def _format_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


@click.command(cls=Command)
@pipeline_options
@click.option(
    "--adopt", multiple=True, metavar="KEY=EXECUTION_ID…", help="This execution is that row's: it is collected."
)
@click.option("--resubmit", multiple=True, metavar="KEY…", help="Send these again (or --all): maybe paid for twice.")
@click.option(
    "--give-up",
    multiple=True,
    metavar="KEY…",
    help="Call these failed (or --all): only `run --rerun KEY` sends them again.",
)
def held(call: PipelineTarget, *, adopt: tuple[str, ...], resubmit: tuple[str, ...], give_up: tuple[str, ...]) -> None:
    """Show the held rows: it is not known whether they were bought. Or decide about them.

    What you say changes the ledger only; the next plain `run` acts on it. KEY is the key, or key/variant.

    \b
    Examples:
      lamina-batch held catalog.yaml
      lamina-batch held catalog.yaml --adopt 00123=fc32ae7d-6840-4be3-8fb1-539a60e33fc3
      lamina-batch held catalog.yaml --resubmit --all
    """
    from lamina_batch.ledger.held import HeldDecisions
    from lamina_batch.runs.held import settle_held

    words = HeldDecisions(adopt=_parse_adoptions(adopt), resubmit=resubmit, give_up=give_up)
    pipeline = call.load()
    if not words:
        _show_held(call, pipeline)
        return
    if words.adopt:
        _check_adopted_ids(call, pipeline, words)
    for job in run_blocking(settle_held(pipeline, words, runtime=runtime())):
        out(f"{job.name}: {_DECISION_RESULTS[job.state]}")


_DECISION_RESULTS = {
    "running": "adopted: the next run collects it",
    "planned": "the next run sends it again",
    "failed": "given up",
}


def _check_adopted_ids(call: PipelineTarget, pipeline: Pipeline, words: HeldDecisions) -> None:
    from lamina_batch.runs.held import find_held_jobs, refuse_unknown_executions
    from lamina_batch.runs.service import ask as ask_service
    from lamina_batch.runs.state import read_existing_state

    with read_existing_state(pipeline) as ledger:
        found = find_held_jobs(pipeline, ledger)
    try:
        with call.access(pipeline) as access:
            why = run_blocking(
                ask_service(access, runtime(), lambda client: refuse_unknown_executions(client, found, words), pipeline)
            )
    except (CredentialsError, ServiceError) as error:
        why = error.what
    if why:
        say(f"note: whether the service knows these executions could not be asked: {why}")


def _parse_adoptions(texts: tuple[str, ...]) -> dict[str, str]:
    adopted: dict[str, str] = {}
    for text in texts:
        name, _, execution_id = (part.strip() for part in text.rpartition("="))
        if not name or not execution_id:
            raise UsageError(f"--adopt {text!r} is not KEY=EXECUTION_ID")
        if name in adopted:
            raise UsageError(f"--adopt names {name!r} twice")
        adopted[name] = execution_id
    return adopted


def _show_held(call: PipelineTarget, pipeline: Pipeline) -> None:
    from lamina_batch.client.lamina import RUNS
    from lamina_batch.runs.held import find_held_jobs, list_executions_since, with_candidates
    from lamina_batch.runs.service import ask as ask_service
    from lamina_batch.runs.state import read_existing_state

    with read_existing_state(pipeline) as ledger:
        found = find_held_jobs(pipeline, ledger)
        if found.jobs and found.generation == RUNS.name:
            since = min(job.submitted_at or 0.0 for job in found.jobs) - 60.0
            try:
                with call.access(pipeline) as access:
                    listed, complete = run_blocking(
                        ask_service(
                            access,
                            runtime(),
                            lambda client: list_executions_since(client, pipeline.app, since),
                            pipeline,
                        )
                    )
                if not complete:
                    say("note: the service lists more executions than were looked at: the newest are shown, not all")
                found = with_candidates(found, listed, ledger, pipeline.run.request_timeout)
            except LaminaBatchError as error:
                say(f"note: which executions these may be is not known: {error.what}")
    for job in found.jobs:
        out(_held_line(job))
        for item in found.candidates.get(job.id, ()):
            created = _format_time(item.created_at) if item.created_at is not None else "at a time not told"
            out(f"  it may be {item.execution_id}: created {created}, {item.status or 'status not told'}")
    out(_held_help(call) if found.jobs else f"{pipeline.name}: nothing is held")


@click.group(cls=Group)
def state() -> None:
    """Look after the ledger."""


@state.command("import", cls=Command)
@click.argument("manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--pipeline",
    "file",
    type=click.Path(path_type=Path),
    help="The pipeline that wrote it (default: the one in this folder, or above the manifest, whose results go there).",
)
@override_option
@service_options
def state_import(
    manifest: Path, *, file: Path | None, sandbox: bool, base_url: str | None, overrides: tuple[str, ...]
) -> None:
    """Rebuild a lost ledger from a manifest, so that nothing in it is bought again.

    \b
    Example:
      lamina-batch state import out/catalog.csv
    """
    from lamina_batch.runs.restore import find_pipeline, import_manifest, refuse_sandbox_mismatch

    service = RedactingServiceOptions(sandbox=sandbox, base_url=base_url)
    refuse_sandbox_mismatch(manifest, service.name())
    if file is not None:
        pipeline = PipelineTarget(file=file, service=service, overrides=overrides).load()
    else:
        pipeline = find_pipeline(manifest, _pipelines_near(manifest, service, overrides))
    told, new = run_blocking(import_manifest(pipeline, manifest, service=service.name(), runtime=runtime()))
    known = f"; {told - new} were there already" if told > new else ""
    say(f"{pipeline.name}: {new} of {told} jobs taken over into {pipeline.state}{known}")


def _pipelines_near(manifest: Path, service: RedactingServiceOptions, overrides: tuple[str, ...]) -> Iterator[Pipeline]:
    """The pipeline files in this folder and in the three above the manifest; what is no pipeline is passed over."""
    folders = dict.fromkeys((Path.cwd(), *manifest.resolve().parents[:3]))
    for folder in folders:
        for found in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))):
            with suppress(UsageError):
                yield PipelineTarget(file=found, service=service, overrides=overrides).load()
