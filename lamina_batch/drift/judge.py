"""Whether an app still is what a pipeline was made for: its live contract held against the pin, or the last run's."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_batch.drift.compare import (
    ChangeKind,
    ContractUsage,
    broken_usage,
    compare,
    describe_change,
    describe_usage,
    full_usage,
)
from lamina_batch.drift.pins import SANDBOX_SOURCE, read_pin
from lamina_batch.drift.usage import find_usage
from lamina_batch.errors import DriftError, UsageError

if TYPE_CHECKING:
    from lamina_batch.apps.app import App
    from lamina_batch.drift.compare import Change, Usage
    from lamina_batch.drift.pins import Pin
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The contract that a pipeline is held to."""

    app: App
    #: how people know it: `the pin of 2026-03-31`, `the last run`
    called: str
    #: the command with which the live contract is accepted in its place
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What changed since a contract, and what of it breaks."""

    known: Baseline
    #: each change with what it breaks; None: it is only worth telling
    changes: tuple[tuple[Change, Usage | None], ...] = ()
    uses: ContractUsage

    @property
    def breaks(self) -> bool:
        """Whether a change breaks the pipeline."""
        return any(use is not None for _, use in self.changes)

    def lines(self, *, broken: bool) -> tuple[str, ...]:
        """The changes that break, or those that do not, a line for each."""
        return tuple(self._line(change, use) for change, use in self.changes if (use is not None) is broken)

    def _line(self, change: Change, use: Usage | None) -> str:
        told = describe_change(change)
        if use is not None and change.kind not in {ChangeKind.PARAMETER_ADDED, ChangeKind.MADE_REQUIRED}:
            return f"{told}: used by {describe_usage(use)}"
        if use is not None:
            return f"{told}: neither inputs nor matrix gives it"
        if change.kind is ChangeKind.DEFAULT_CHANGED:
            return f"{told}: {_default_rows_text(self.uses.blank.get(change.parameter))}"
        return told


def _default_rows_text(rows: int | None) -> str:
    if rows is None:
        return "every row takes it"
    return f"{rows} row takes it" if rows == 1 else f"{rows or 'no'} rows take it"


def read_pipeline_pin(pipeline: Pipeline) -> Pin | None:
    """The pin that the pipeline names; None: it names none.

    Raises PipelineError for one that is missing, cannot be used, or belongs to another app.
    """
    file = pipeline.schema.pin
    if file is None:
        return None
    path = ("schema", "pin")
    again = f"`{pin_command(pipeline)}` writes it"
    try:
        pin = read_pin(file)
    except UsageError as error:
        raise pipeline.error(path, f"{error.where}: {error.what}", again) from error
    if pin.app.app_id != pipeline.app:
        raise pipeline.error(path, f"{file}: this is the pin of another app, {pin.app.app_id} ({pin.app.name})", again)
    return pin


def find_baseline(pipeline: Pipeline, service: str, last: App | None) -> Baseline | str | None:
    """What the live contract at `service` is held against: the pin, or without one the contract of the last run.

    None: there is nothing yet. Words: why a pin is passed over. Raises PipelineError as `read_pinned` does, and where
    a pin of the stand-in meets the real service: it says nothing about the real app.
    """
    pin = read_pipeline_pin(pipeline)
    if pin is None:
        if last is None or last.app_id != pipeline.app:
            return None
        again = f"{pipeline.command('run')} --set schema.on_drift=warn"
        return Baseline(
            app=last,
            called="the last run",
            accept=f"`{again}` once; or name as schema.pin what "
            f"`lamina-batch apps pin {pipeline.app}{pipeline.sandbox_option}` writes",
        )
    if pin.taken_from == SANDBOX_SOURCE != service:
        raise pipeline.error(
            ("schema", "pin"),
            f"{pipeline.schema.pin}: this pin was taken from the sandbox, which stands in for the real app",
            f"take the real one: `{pin_command(pipeline)}`",
        )
    if service == SANDBOX_SOURCE != pin.taken_from:
        return f"the pin was taken from {pin.taken_from}: what the sandbox serves is not held against it"
    return Baseline(app=pin.app, called=f"the pin of {pin.taken_at[:10]}", accept=f"`{pin_command(pipeline)}`")


def pin_command(pipeline: Pipeline) -> str:
    """The command that writes the pin which the pipeline names."""
    return f"lamina-batch apps pin {pipeline.app} -o {shlex.quote(str(pipeline.schema.pin))}{pipeline.sandbox_option}"


def assess_drift(known: Baseline, app: App, pipeline: Pipeline | None, catalog: Catalog | None) -> Drift:
    """What is different between the known contract and `app`, and what that breaks of the pipeline and its rows.

    Without a pipeline: what could break one.
    """
    changes = () if known.app.fingerprint == app.fingerprint else compare(known.app, app)
    if not changes:
        return Drift(known=known, uses=ContractUsage())
    uses = full_usage(known.app) if pipeline is None else find_usage(pipeline, catalog, known.app)
    return Drift(known=known, changes=tuple((change, broken_usage(change, uses, app)) for change in changes), uses=uses)


def enforce_drift_policy(drift: Drift, app: App, pipeline: Pipeline) -> tuple[str, ...]:
    """Notes about what changed. Raises DriftError if it breaks the pipeline, unless that only warns."""
    if drift.breaks and pipeline.schema.on_drift == "fail":
        breaks = [f"\n  - {line}" for line in drift.lines(broken=True)]
        also = [f"\n  - also: {line}" for line in drift.lines(broken=False)]
        raise DriftError(
            f"the app {app.name!r} has changed since {drift.known.called} in a way that breaks this pipeline; "
            f"nothing was submitted{''.join([*breaks, *also])}",
            where=str(pipeline.file),
            hint=f"mend the pipeline or the rows if need be; then accept the app as it is with {drift.known.accept}",
        )
    since = f"since {drift.known.called}"
    return (
        *(f"the app has changed {since}, and it breaks this pipeline: {line}" for line in drift.lines(broken=True)),
        *(f"the app has changed {since}: {line}" for line in drift.lines(broken=False)),
    )
