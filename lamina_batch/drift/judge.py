"""Drift: whether the live contract of an app still fits a pipeline. It is compared with a pin or with the last run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_batch.drift.compare import ChangeKind, compare, describe_change
from lamina_batch.drift.pins import SANDBOX_SOURCE, read_pin
from lamina_batch.drift.usage import ContractUsage, broken_usage, find_usage, full_usage
from lamina_batch.errors import DriftError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.apps.app import App
    from lamina_batch.drift.compare import Change
    from lamina_batch.drift.pins import Pin
    from lamina_batch.drift.usage import Usage
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The contract that the live one is compared with."""

    app: App
    #: for messages: `the pin of 2026-03-31`, `the last run`
    label: str
    #: for messages: the command that makes the live contract the new baseline
    accept_command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The changes since a baseline, and what they break."""

    baseline: Baseline
    #: each change with what it breaks; None: it breaks nothing
    changes: tuple[tuple[Change, Usage | None], ...] = ()
    usage: ContractUsage

    @property
    def breaks(self) -> bool:
        """Whether a change breaks the pipeline."""
        return any(broken is not None for _, broken in self.changes)

    def lines(self, *, broken: bool) -> tuple[str, ...]:
        """The changes that break the pipeline, or those that do not, one line each."""
        return tuple(self._line(change, usage) for change, usage in self.changes if (usage is not None) is broken)

    def _line(self, change: Change, broken: Usage | None) -> str:
        if broken is not None and change.kind in {ChangeKind.PARAMETER_ADDED, ChangeKind.MADE_REQUIRED}:
            return f"{describe_change(change)}: neither inputs nor matrix gives it"
        if broken is not None:
            return f"{describe_change(change)}: used by {broken.describe()}"
        if change.kind is ChangeKind.DEFAULT_CHANGED:
            return f"{describe_change(change)}: {_default_rows_text(self.usage.blank_rows.get(change.parameter))}"
        return describe_change(change)


def _default_rows_text(rows: int | None) -> str:
    if rows is None:
        return "every row takes it"
    return f"{rows} row takes it" if rows == 1 else f"{rows or 'no'} rows take it"


def read_pipeline_pin(pipeline: Pipeline) -> Pin | None:
    """The pin that the pipeline names; None: it names none.

    Raises PipelineError if the pin is missing, cannot be used, or belongs to another app.
    """
    file = pipeline.schema_options.pin
    if file is None:
        return None
    try:
        pin = read_pin(file)
        _refuse_other_app(pin, pipeline.app, file)
    except UsageError as error:
        hint = f"`{pin_command(pipeline)}` writes it"
        raise pipeline.error(("schema", "pin"), error.located_message, hint) from error
    return pin


def find_baseline(pipeline: Pipeline, service: str, last: App | None) -> Baseline | str | None:
    """The contract to compare the live one at `service` with: the pin, or else the contract of the `last` run.

    None: there is no such contract yet. Text: why the pin is not used. Raises PipelineError as `read_pipeline_pin`
    does, and for a pin of the sandbox at the real service, because it says nothing about the real app.
    """
    pin = read_pipeline_pin(pipeline)
    if pin is None:
        if last is None or last.app_id != pipeline.app:
            return None
        return Baseline(
            app=last,
            label="the last run",
            accept_command=f"`{pipeline.command_line('run')} --set schema.on_drift=warn` once; or name as schema.pin "
            f"what `lamina-batch apps pin {pipeline.app}{pipeline.sandbox_option}` writes",
        )
    if service == SANDBOX_SOURCE != pin.taken_from:
        return f"the pin was taken from {pin.taken_from}: what the sandbox serves is not held against it"
    accept = f"`{pin_command(pipeline)}`"
    try:
        _refuse_sandbox_pin(pin, service, f"{pipeline.schema_options.pin}", accept)
    except UsageError as error:
        raise pipeline.error(("schema", "pin"), error.located_message, error.hint) from error
    return Baseline(app=pin.app, label=_pin_label(pin), accept_command=accept)


def compare_with_pin(pin: Pin, file: Path, now: Pin) -> Drift:
    """The changes since `pin`, which is in `file`, that could break a pipeline. `now` holds the live contract.

    Raises UsageError for the pin of another app, and for a pin of the sandbox at the real service.
    """
    sandbox = " --sandbox" if now.taken_from == SANDBOX_SOURCE else ""
    accept = f"`lamina-batch apps pin {now.app.app_id} -o {file}{sandbox}`"
    _refuse_other_app(pin, now.app.app_id, file)
    _refuse_sandbox_pin(pin, now.taken_from, str(file), accept)
    return assess_drift(Baseline(app=pin.app, label=_pin_label(pin), accept_command=accept), now.app, None, None)


def _refuse_other_app(pin: Pin, app_id: str, file: Path) -> None:
    if pin.app.app_id != app_id:
        raise UsageError(f"this is the pin of another app, {pin.app.app_id} ({pin.app.name})", where=str(file))


def _refuse_sandbox_pin(pin: Pin, service: str, where: str, accept_command: str) -> None:
    if pin.taken_from == SANDBOX_SOURCE != service:
        raise UsageError(
            "this pin was taken from the sandbox, which stands in for the real app",
            where=where,
            hint=f"take the real one: {accept_command}",
        )


def _pin_label(pin: Pin) -> str:
    return f"the pin of {pin.taken_at[:10]}"


def pin_command(pipeline: Pipeline) -> str:
    """The command that writes the pin of the pipeline."""
    file = shlex.quote(str(pipeline.schema_options.pin))
    return f"lamina-batch apps pin {pipeline.app} -o {file}{pipeline.sandbox_option}"


def assess_drift(baseline: Baseline, app: App, pipeline: Pipeline | None, catalog: Catalog | None) -> Drift:
    """The changes from the baseline to `app`, and what they break of the pipeline and its rows.

    Without a pipeline: what they could break of any.
    """
    changes = () if baseline.app.fingerprint == app.fingerprint else compare(baseline.app, app)
    if not changes:
        return Drift(baseline=baseline, usage=ContractUsage())
    usage = full_usage(baseline.app) if pipeline is None else find_usage(pipeline, catalog, baseline.app)
    assessed = tuple((change, broken_usage(change, usage, app)) for change in changes)
    return Drift(baseline=baseline, changes=assessed, usage=usage)


def enforce_drift_policy(drift: Drift, app: App, pipeline: Pipeline) -> tuple[str, ...]:
    """Notes about the changes. Raises DriftError if they break the pipeline and `schema.on_drift` is fail."""
    since = drift.baseline.label
    if drift.breaks and pipeline.schema_options.on_drift == "fail":
        breaks = [f"\n  - {line}" for line in drift.lines(broken=True)]
        also = [f"\n  - also: {line}" for line in drift.lines(broken=False)]
        raise DriftError(
            f"the app {app.name!r} has changed since {since} in a way that breaks this pipeline; "
            f"nothing was submitted{''.join([*breaks, *also])}",
            where=str(pipeline.file),
            hint="correct the pipeline or the rows if need be; then accept the app as it is with "
            f"{drift.baseline.accept_command}",
        )
    return (
        *(f"the app has changed since {since}, and it breaks this pipeline: {x}" for x in drift.lines(broken=True)),
        *(f"the app has changed since {since}: {x}" for x in drift.lines(broken=False)),
    )
