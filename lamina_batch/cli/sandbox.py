"""The command `sandbox`."""

from __future__ import annotations

from pathlib import Path

import click

from lamina_batch.cli.shell import say
from lamina_batch.errors import LaminaBatchError, UsageError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="0: any free one. Default: the port that --data was served on last, else 8787.",
)
@click.option("--data", type=click.Path(path_type=Path), help="Folder for what it accepted and its logs.")
@click.option("--limit", type=int, default=100, show_default=True, help="Requests in a window for one address.")
@click.option("--window", type=float, default=60.0, show_default=True, help="Seconds of the rate limit's window.")
@click.option("--speed", type=float, default=1.0, show_default=True, help="Divides every duration of the service.")
@click.option("--seed", type=int, default=0, show_default=True, help="What durations and faults are drawn from.")
@click.option("--fault", "faults", multiple=True, metavar="NAME[:KEY=VALUE,…]", help="Misbehave; see docs/sandbox.md.")
@click.option("--no-headers", is_flag=True, help="Leave out the RateLimit headers.")
@click.option(
    "--generation",
    type=click.Choice(["executions", "runs", "both"]),
    default="executions",
    show_default=True,
    help="Which generation of the API to serve.",
)
@click.option("--apps", type=click.Path(path_type=Path), help="A file of apps to serve instead of the shipped ones.")
def sandbox(  # noqa: PLR0913  # click hands over each option
    *,
    host: str,
    port: int | None,
    data: Path | None,
    limit: int,
    window: float,
    speed: float,
    seed: int,
    faults: tuple[str, ...],
    no_headers: bool,
    generation: str,
    apps: Path | None,
) -> None:
    """Serve the stand-in for the service, for development against it.

    Any key that starts with lma_ is accepted.

    \b
    Example:
      lamina-batch sandbox --port 8787 --speed 20 --window 3 &
      LAMINA_API_KEY=lma_any lamina-batch run catalog.yaml --base-url http://127.0.0.1:8787
    """
    from lamina_batch.sandbox import GENERATIONS, SandboxOptions, last_port, serve

    if port is None:
        port = (last_port(data) if data is not None else None) or 8787
    try:
        options = SandboxOptions(
            limit=limit,
            window=window,
            speed=speed,
            seed=seed,
            data=data,
            faults=faults,
            headers=not no_headers,
            generations=GENERATIONS[generation],
            apps=apps,
        )
        serve(options, host=host, port=port, announce=say)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise LaminaBatchError(
            f"the sandbox cannot start on {host}:{port}: {error.strerror or error}",
            where=error.filename,
            hint="is the port taken? try --port 0. May the folder of --data be written?",
        ) from error
