"""The commands that look at apps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lamina_batch.cli.options import Service, service_options, waited_for, world
from lamina_batch.cli.shell import Command, Group, out, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lamina_batch.client.lamina import LaminaClient


@click.group(cls=Group, not_built=("pin", "diff", "schema"))
def apps() -> None:
    """Look at the apps that your key may use."""


def _with_client(service: Service, ask: Callable[[LaminaClient], Awaitable[Any]]) -> Any:
    from lamina_batch import batch

    with service.open(None) as access:
        return waited_for(batch.ask(access, world(), ask))


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
    service = Service(sandbox=sandbox, base_url=base_url)
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
    service = Service(sandbox=sandbox, base_url=base_url)
    app = _with_client(service, lambda client: client.get_app(app_id))
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
    service = Service(sandbox=sandbox, base_url=base_url)
    workflow = _with_client(service, lambda client: client.get_workflow(app_id))
    out(f"{workflow.name} ({workflow.app_id})")
    for node in workflow.nodes:
        feeds = [target for source, target in workflow.edges if source == node.id]
        out(f"  {node.id}  {node.type}  {node.label!r}" + (f"  feeds {', '.join(feeds)}" if feeds else ""))
