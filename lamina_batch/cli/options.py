"""What the commands have in common: which pipeline and which service are meant, and the clocks of the world."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lamina_batch.cli.shell import note, redact_secret
from lamina_batch.runs import bootstrap
from lamina_batch.runs.bootstrap import PipelineTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from lamina_batch.results.picks import Picks
    from lamina_batch.runs.context import Access
    from lamina_batch.runtime import Runtime

__all__ = [
    "PipelineTarget",
    "RedactingServiceOptions",
    "override_option",
    "pipeline_options",
    "run_blocking",
    "runtime",
    "service_options",
    "start_options",
]

_Result = TypeVar("_Result")


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


_rerun_file_option = click.option(
    "--rerun-file",
    "picks",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    callback=_read_picks,
    metavar="FILE",
    help="Buy once more what was rejected in the report (`Save verdicts` there writes FILE), and nothing else.",
)


def start_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What to start, for `run` and for `plan`, which must mean the same; the command gets it as a `RunRequest`."""

    @wraps(command)
    def wrapped(
        *args: Any,
        limit: int | None,
        only: tuple[str, ...],
        retry_failed: bool,
        rerun: tuple[str, ...],
        picks: Picks | None,
        adopt_state: bool,
        new_ledger: bool,
        **rest: Any,
    ) -> Any:
        from lamina_batch.runs.context import RunRequest

        request = RunRequest(
            retry_failed=retry_failed,
            rerun=frozenset(rerun),
            picks=picks,
            only=frozenset(only) or None,
            limit=limit,
            adopt_state=adopt_state,
            new_ledger=new_ledger,
        )
        return command(*args, request=request, **rest)

    for option in (
        click.option(
            "--new-ledger", is_flag=True, help="An empty ledger is meant, although there are results: buys again."
        ),
        click.option("--adopt-state", is_flag=True, help="Take over a ledger that belongs to another file or service."),
        _rerun_file_option,
        click.option(
            "--rerun",
            multiple=True,
            metavar="KEY…",
            help="Buy these rows once more, whatever they came to, and nothing else.",
        ),
        click.option(
            "--retry-failed",
            is_flag=True,
            help="Start again what failed, was partial or was rejected (not what `held --give-up` gave up).",
        ),
        click.option("--only", multiple=True, metavar="KEY…", help="Start only these rows (key, or key/variant)."),
        click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Start at most N executions."),
    ):
        wrapped = option(wrapped)
    return wrapped


def pipeline_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """PIPELINE, `--set` and the service options; the command gets a `PipelineTarget`."""

    @wraps(command)
    def wrapped(*, pipeline: Path, sandbox: bool, base_url: str | None, overrides: tuple[str, ...], **rest: Any) -> Any:
        return command(
            PipelineTarget(
                file=pipeline,
                service=RedactingServiceOptions(sandbox=sandbox, base_url=base_url),
                overrides=overrides,
            ),
            **rest,
        )

    return click.argument("pipeline", type=click.Path(path_type=Path))(override_option(service_options(wrapped)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactingServiceOptions(bootstrap.ServiceOptions):
    """Which service the user means."""

    @contextmanager
    def open(self, sandbox_data: Path | None) -> Iterator[Access]:
        """As above, and what is printed from now on never shows the key."""
        with bootstrap.ServiceOptions.open(self, sandbox_data) as access:
            redact_secret(access.api_key)
            yield access


def run_blocking(work: Coroutine[Any, Any, _Result]) -> _Result:
    """What `work` comes to. asyncio takes longer to load than all of `--help`."""
    import asyncio

    return asyncio.run(work)


def runtime() -> Runtime:
    """The real one, whose notices a person reads."""
    from lamina_batch.runtime import system_runtime

    return system_runtime(note)
