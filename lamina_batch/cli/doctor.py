"""The command that looks after the whole: doctor."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from lamina_batch.cli.options import (
    PipelineTarget,
    RedactingServiceOptions,
    override_option,
    run_blocking,
    runtime,
    service_options,
)
from lamina_batch.cli.shell import Command, out, out_document
from lamina_batch.errors import LaminaBatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


@click.command(cls=Command)
@click.argument("pipeline", type=click.Path(path_type=Path), required=False)
@override_option
@service_options
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON (docs/doctor.md).")
def doctor(
    *, pipeline: Path | None, sandbox: bool, base_url: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Look whether everything is there that a run needs: key, service, limit, clock, and what PIPELINE needs.

    Each line is ok, warn or fail, with what to do. Nothing is spent and nothing is changed. Exits 1 where a line fails.

    \b
    Examples:
      lamina-batch doctor
      lamina-batch doctor catalog.yaml
    """
    import json

    from lamina_batch.doctor import checks as examination
    from lamina_batch.doctor.facts import collect_facts

    if overrides and pipeline is None:
        raise UsageError(
            "--set is about a pipeline file, and none is named", hint="lamina-batch doctor PIPELINE --set …"
        )
    service = RedactingServiceOptions(sandbox=sandbox, base_url=base_url)
    with ExitStack() as stack:
        loaded = (
            _result_or_error(PipelineTarget(file=pipeline, service=service, overrides=overrides).load)
            if pipeline
            else None
        )
        access = _result_or_error(lambda: stack.enter_context(service.open(None)))
        facts = run_blocking(collect_facts(loaded, access, runtime()))
    lines = examination.run_checks(facts)
    if as_json:
        out_document(json.dumps(examination.as_json(lines), indent=2))
    else:
        for line in lines:
            out(f"{line.level:<5} {line.check}: {line.message}" + (f"\n{line.hint}" if line.hint else ""))
    sys.exit(examination.exit_code(lines))


def _result_or_error(make: Callable[[], _T]) -> _T | LaminaBatchError:
    try:
        return make()
    except LaminaBatchError as error:
        return error
