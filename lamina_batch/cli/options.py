"""What the commands have in common: which pipeline and which service are meant, and the clocks of the world."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lamina_batch.cli.shell import conceal, note
from lamina_batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from lamina_batch.batch import Access, World
    from lamina_batch.pipeline.spec import Pipeline, Whereabouts
    from lamina_batch.results.picks import Picks

_Result = TypeVar("_Result")

#: The embedded sandbox is so much faster than the service, its window included, that each example ends in a minute.
SANDBOX_SPEED = 20.0
SANDBOX_WINDOW = 3.0


def service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--sandbox` and `--base-url`, on every command that may talk to the service."""
    command = click.option(
        "--base-url", metavar="URL", help="Origin of the service (default: LAMINA_BASE_URL or the vendor's)."
    )(command)
    return click.option(
        "--sandbox", is_flag=True, help="Use the embedded stand-in: no key, no network, results of its own."
    )(command)


override_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a value of the pipeline file, such as rows.from=today.csv (may be repeated).",
)


def _read_picks(_context: click.Context, _option: click.Parameter, file: Path | None) -> Picks | None:
    from lamina_batch.results.picks import parse_picks

    return None if file is None else parse_picks(file.read_bytes(), where=str(file))


rerun_file_option = click.option(
    "--rerun-file",
    "picks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    callback=_read_picks,
    metavar="FILE",
    help="Buy once more what was rejected in the report (`Save verdicts` there writes FILE), and nothing else.",
)


def pipeline_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """PIPELINE, `--set` and the service options; the command gets a `Call`."""

    @wraps(command)
    def wrapped(*, pipeline: Path, sandbox: bool, base_url: str | None, overrides: tuple[str, ...], **rest: Any) -> Any:
        return command(
            Call(
                file=pipeline,
                service=Service(sandbox=sandbox, base_url=base_url),
                overrides=overrides,
            ),
            **rest,
        )

    return click.argument("pipeline", type=click.Path(path_type=Path))(override_option(service_options(wrapped)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Which service the user means."""

    sandbox: bool
    base_url: str | None

    @contextmanager
    def open(self, sandbox_data: Path | None) -> Iterator[Access]:
        """Access to it while the block runs. Raises CredentialsError where no key is found."""
        from lamina_batch.batch import Access
        from lamina_batch.client.credentials import find_credentials

        if self.sandbox:
            if self.base_url:
                raise UsageError("--sandbox and --base-url name two services", hint="give one of them")
            from lamina_batch.sandbox import SANDBOX_KEY, SandboxOptions, embedded

            options = SandboxOptions(window=SANDBOX_WINDOW, speed=SANDBOX_SPEED, data=sandbox_data)
            with embedded(options) as url:
                yield Access(base_url=url, api_key=SANDBOX_KEY, service="sandbox", speed=SANDBOX_SPEED)
            return
        found = find_credentials(os.environ, _home(), now=datetime.now(UTC), base_url=self.base_url)
        conceal(found.api_key)
        yield Access(base_url=found.base_url, api_key=found.api_key, service=found.base_url, found_in=found.found_in)

    def name(self) -> str:
        """What ledgers know it by. Needs no key."""
        from lamina_batch.client.credentials import find_base_url

        if self.sandbox:
            return "sandbox"
        return find_base_url(os.environ, _home(), now=datetime.now(UTC), base_url=self.base_url)


def _home() -> Path:
    """Where the official tool keeps its file. In a container nobody may be at home."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A command on one pipeline."""

    file: Path
    service: Service
    overrides: tuple[str, ...]

    def load(self) -> Pipeline:
        from lamina_batch.pipeline.load import load_pipeline

        return load_pipeline(self.file, **self._circumstances())

    def locate(self) -> Whereabouts:
        """What is known of it without looking at the rest of the file, which may be wrong."""
        from lamina_batch.pipeline.load import locate_pipeline

        return locate_pipeline(self.file, **self._circumstances())

    def _circumstances(self) -> dict[str, Any]:
        return {
            "overrides": self.overrides,
            "environ": os.environ,
            "today": date.today(),  # noqa: DTZ011  # {date} is the local date, as people name their files
            "suffix": "sandbox" if self.service.sandbox else None,
        }

    @contextmanager
    def access(self, pipeline: Pipeline) -> Iterator[Access]:
        with self.service.open(pipeline.state / "service") as access:
            yield access


def waited_for(work: Coroutine[Any, Any, _Result]) -> _Result:
    """What `work` comes to. asyncio takes longer to load than all of `--help`."""
    import asyncio

    return asyncio.run(work)


def world() -> World:
    import asyncio
    import random

    from lamina_batch.batch import World

    return World(
        now=time.monotonic,
        wall=time.time,  # noqa: TID251  # this is the edge where clocks are read
        sleep=asyncio.sleep,  # noqa: TID251  # and where sleep comes from
        random=random.Random(),  # noqa: S311  # backoff and names, no secrets
        notice=note,
    )
