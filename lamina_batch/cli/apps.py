"""The commands that look at apps."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lamina_batch.cli.options import RedactingServiceOptions, run_blocking, runtime, service_options
from lamina_batch.cli.shell import Command, Group, out, out_document, say
from lamina_batch.errors import ServiceError, UnknownAppError, UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lamina_batch.apps.app import App
    from lamina_batch.client.lamina import LaminaClient
    from lamina_batch.drift.judge import Drift
    from lamina_batch.drift.pins import Pin


@click.group(cls=Group)
def apps() -> None:
    """Look at the apps that your key may use."""


def _with_client(service: RedactingServiceOptions, ask: Callable[[LaminaClient], Awaitable[Any]]) -> Any:
    from lamina_batch.runs.service import ask as ask_service

    with service.open(None) as access:
        return run_blocking(ask_service(access, runtime(), ask))


async def _find_app(
    client: LaminaClient, ask: Callable[[str], Awaitable[Any]], app_id: str, service: RedactingServiceOptions
) -> Any:
    """What `ask` answers for this app. Raises UsageError if no id was given, with those of the app of that name."""
    from lamina_batch.pipeline.names import normalise_name

    try:
        return await ask(app_id)
    except UnknownAppError as error:
        try:
            found = await client.list_apps(search=app_id, limit=100)
        except ServiceError:
            raise error from None
        same = [app.app_id for app in found if normalise_name(app.name) == normalise_name(app_id)]
        listing = f"`lamina-batch apps list{' --sandbox' if service.sandbox else ''}` finds them"
        if not same and _APP_ID.fullmatch(app_id):
            raise UnknownAppError(
                f"the service knows no app of this id, or hides it from this key ({error.what})",
                where=error.where,
                hint=f"{listing}; a private app is seen only with a key of its own workspace",
            ) from error
        what, hint = f"{app_id!r} is no id of an app", listing
        if same:
            what = f"{what}, but a name"
            hint = f"the id of that app is {same[0]}" if len(same) == 1 else f"the apps of that name: {', '.join(same)}"
        raise UsageError(what, hint=hint) from error


#: what an id looks like
_APP_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@apps.command("list", cls=Command)
@service_options
@click.option("--search", metavar="WORDS", help="Only apps that the service finds for these words.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
def apps_list(*, sandbox: bool, base_url: str | None, search: str | None, limit: int) -> None:
    """List apps: id and name.

    \b
    Example:
      lamina-batch apps list --search catalog
    """
    service = RedactingServiceOptions(sandbox=sandbox, base_url=base_url)
    found = _with_client(service, lambda client: client.list_apps(search=search, limit=limit))
    if not found:
        say("the service found no app")
    for app in found:
        out(f"{app.app_id}  {app.name}{'' if app.public is not False else '  (private)'}")


@apps.command("show", cls=Command)
@click.argument("app_id", metavar="APP")
@service_options
def apps_show(app_id: str, *, sandbox: bool, base_url: str | None) -> None:
    """Show an app's parameters as the service serves them. Quotes show odd spaces: they belong to the name.

    \b
    Example:
      lamina-batch apps show bbb17293-5fe7-4645-8c6e-0745bc28254d
    """
    service = RedactingServiceOptions(sandbox=sandbox, base_url=base_url)
    app = _with_client(service, lambda client: _find_app(client, client.get_app, app_id, service))
    out(f"{app.name} ({app.app_id})")
    if app.description:
        out(app.description)
    for p in app.parameters:
        facts = [p.type]
        facts += [f"accepts {', '.join(p.accept)}"] if p.accept else []
        facts += ["several values"] if p.multiple else []
        facts += ["must be given"] if p.must_supply else []
        facts += [f"default {p.default!r}"] if p.default is not None else []
        out(f"  {p.name!r}: {', '.join(facts)}")
        if p.description:
            out(f"      {p.description}")
        if p.options:
            out(f"      one of {', '.join(repr(option) for option in p.options)}")


@apps.command("workflow", cls=Command)
@click.argument("app_id", metavar="APP")
@service_options
def apps_workflow(app_id: str, *, sandbox: bool, base_url: str | None) -> None:
    """Show an app's nodes and how they feed each other.

    \b
    Example:
      lamina-batch apps workflow bbb17293-5fe7-4645-8c6e-0745bc28254d
    """
    service = RedactingServiceOptions(sandbox=sandbox, base_url=base_url)
    workflow = _with_client(service, lambda client: _find_app(client, client.get_workflow, app_id, service))
    out(f"{workflow.name} ({workflow.app_id})")
    for node in workflow.nodes:
        feeds = [target for source, target in workflow.edges if source == node.id]
        out(f"  {node.id}  {node.type}  {node.label!r}" + (f"  feeds {', '.join(feeds)}" if feeds else ""))


_pin_option = click.option(
    "--pin",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The pin (default: schemas/apps/APP.json below this folder).",
)


@apps.command("pin", cls=Command)
@click.argument("app_id", metavar="APP")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write it (default: schemas/apps/APP.json below this folder).",
)
@service_options
def apps_pin(app_id: str, *, output: Path | None, sandbox: bool, base_url: str | None) -> None:
    """Write down the app's parameters as they are now, so that every later run notices a change.

    Name the file as `schema.pin` in the pipeline, and keep it in version control. Taken again, it says what changed.

    \b
    Example:
      lamina-batch apps pin bbb17293-5fe7-4645-8c6e-0745bc28254d
    """
    from lamina_batch.drift.pins import pin_file, save_pin

    pin = fetch_pin(app_id, RedactingServiceOptions(sandbox=sandbox, base_url=base_url))
    file = output or pin_file(app_id)
    for line in save_pin(pin, file):
        say(line)
    out(str(file))


def fetch_pin(app_id: str, service: RedactingServiceOptions) -> Pin:
    """The app as the service has it now."""
    from lamina_batch.drift.pins import take_pin
    from lamina_batch.runs.service import ask as ask_service

    with service.open(None) as access:
        ask = ask_service(access, runtime(), lambda client: _find_app(client, client.get_app, app_id, service))
        app: App = run_blocking(ask)
        return take_pin(app, app_id, taken_from=access.service, at=datetime.now(UTC))


@apps.command("diff", cls=Command)
@click.argument("what", metavar="APP|PIPELINE")
@_pin_option
@service_options
def apps_diff(what: str, *, pin: Path | None, sandbox: bool, base_url: str | None) -> None:
    """Say how an app differs from its pin; for a pipeline also what of it breaks, and which rows use that.

    A pipeline without a pin is compared with its last run. Exits 8 when a change breaks the pipeline (for an app: could
    break one), else 0.

    \b
    Examples:
      lamina-batch apps diff catalog.yaml
      lamina-batch apps diff bbb17293-5fe7-4645-8c6e-0745bc28254d
    """
    service = RedactingServiceOptions(sandbox=sandbox, base_url=base_url)
    if Path(what).suffix.lower() in {".yaml", ".yml"}:
        if pin is not None:
            raise UsageError("a pipeline names its own pin", hint="leave out --pin")
        found, breaks = _diff_pipeline(Path(what), service), "breaks this pipeline"
    else:
        found, breaks = _diff_app(what, pin, service), "could break a pipeline"
    for line in found.lines(broken=True):
        out(f"{breaks}: {line}")
    for line in found.lines(broken=False):
        out(f"changed: {line}")
    since = found.baseline.label
    say(f"{found.baseline.app.name}: {len(found.changes) or 'no'} changes since {since}")
    if found.breaks:
        say(f"  once the pipeline is mended, accept the app as it is now with {found.baseline.accept_command}")
    sys.exit(8 if found.breaks else 0)


def _diff_pipeline(file: Path, service: RedactingServiceOptions) -> Drift:
    from lamina_batch.runs.bootstrap import PipelineTarget
    from lamina_batch.runs.contract import drift as pipeline_drift

    call = PipelineTarget(file=file, service=service, overrides=())
    pipeline = call.load()
    with call.access(pipeline) as access:
        return pipeline_drift(pipeline, access, runtime())


def _diff_app(app_id: str, file: Path | None, service: RedactingServiceOptions) -> Drift:
    from lamina_batch.drift.judge import compare_with_pin
    from lamina_batch.drift.pins import pin_file, read_pin

    file = file or pin_file(app_id)
    known = read_pin(file)
    return compare_with_pin(known, file, fetch_pin(app_id, service))


@apps.command("schema", cls=Command)
@click.argument("app_id", metavar="APP")
@click.option(
    "--pin",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Make it from this pin instead of the live app: no key, no network.",
)
@service_options
def apps_schema(app_id: str, *, pin: Path | None, sandbox: bool, base_url: str | None) -> None:
    """Print the pipeline schema for one app: with it an editor completes the app's inputs and labels.

    Point the first line of a pipeline file to it: # yaml-language-server: $schema=FILE

    \b
    Example:
      lamina-batch apps schema bbb17293-5fe7-4645-8c6e-0745bc28254d > catalog.schema.json
    """
    import json

    from lamina_batch.authoring.app_schema import app_schema
    from lamina_batch.drift.pins import read_pin

    if pin is not None:
        app = read_pin(pin).app
        if app.app_id != app_id:
            raise UsageError(f"this is the pin of another app, {app.app_id}", where=str(pin))
    else:
        app = fetch_pin(app_id, RedactingServiceOptions(sandbox=sandbox, base_url=base_url)).app
    out_document(json.dumps(app_schema(app), indent=2))  # in ASCII: whatever a name holds, a terminal shows it
