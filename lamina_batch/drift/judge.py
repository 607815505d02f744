"""Whether an app still is what a pipeline was made for: its live contract held against the pin, or the last run's."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina_batch.drift.compare import Kind, Uses, breaking, compare, everything, use_words, words
from lamina_batch.drift.pins import SANDBOX, read_pin
from lamina_batch.drift.usage import find_uses
from lamina_batch.errors import DriftError, UsageError

if TYPE_CHECKING:
    from lamina_batch.apps.app import App
    from lamina_batch.drift.compare import Change, Use
    from lamina_batch.drift.pins import Pin
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The contract that a pipeline is held to."""

    app: App
    #: how people know it: `the pin of 2026-03-31`, `the last run`
    called: str
    #: the command with which the live contract is accepted in its place
    accept: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What changed since a contract, and what of it breaks."""

    known: Known
    #: each change with what it breaks; None: it is only worth telling
    changes: tuple[tuple[Change, Use | None], ...] = ()
    uses: Uses

    @property
    def breaks(self) -> bool:
        return any(use is not None for _, use in self.changes)

    def lines(self, *, broken: bool) -> tuple[str, ...]:
        """The changes that break, or those that do not, a line for each."""
        return tuple(self._line(change, use) for change, use in self.changes if (use is not None) is broken)

    def _line(self, change: Change, use: Use | None) -> str:
        told = words(change)
        if use is not None and change.kind not in {Kind.PARAMETER_ADDED, Kind.MADE_REQUIRED}:
            return f"{told}: used by {use_words(use)}"
        if use is not None:
            return f"{told}: neither inputs nor matrix gives it"
        if change.kind is Kind.DEFAULT_CHANGED:
            return f"{told}: {_takers(self.uses.blank.get(change.parameter))}"
        return told


def _takers(rows: int | None) -> str:
    if rows is None:
        return "every row takes it"
    return f"{rows} row takes it" if rows == 1 else f"{rows or 'no'} rows take it"


def read_pinned(pipeline: Pipeline) -> Pin | None:
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


def known_contract(pipeline: Pipeline, service: str, last: App | None) -> Known | str | None:
    """What the live contract at `service` is held against: the pin, or without one the contract of the last run.

    None: there is nothing yet. Words: why a pin is passed over. Raises PipelineError as `read_pinned` does, and where
    a pin of the stand-in meets the real service: it says nothing about the real app.
    """
    pin = read_pinned(pipeline)
    if pin is None:
        if last is None or last.app_id != pipeline.app:
            return None
        again = f"{pipeline.command('run')} --set schema.on_drift=warn"
        return Known(
            app=last,
            called="the last run",
            accept=f"`{again}` once; or name as schema.pin what "
            f"`lamina-batch apps pin {pipeline.app}{pipeline.sandbox_option}` writes",
        )
    if pin.taken_from == SANDBOX != service:
        raise pipeline.error(
            ("schema", "pin"),
            f"{pipeline.schema.pin}: this pin was taken from the sandbox, which stands in for the real app",
            f"take the real one: `{pin_command(pipeline)}`",
        )
    if service == SANDBOX != pin.taken_from:
        return f"the pin was taken from {pin.taken_from}: what the sandbox serves is not held against it"
    return Known(app=pin.app, called=f"the pin of {pin.taken_at[:10]}", accept=f"`{pin_command(pipeline)}`")


def pin_command(pipeline: Pipeline) -> str:
    """The command that writes the pin which the pipeline names."""
    return f"lamina-batch apps pin {pipeline.app} -o {shlex.quote(str(pipeline.schema.pin))}{pipeline.sandbox_option}"


def judge(known: Known, app: App, pipeline: Pipeline | None, catalog: Catalog | None) -> Drift:
    """What is different between the known contract and `app`, and what that breaks of the pipeline and its rows.

    Without a pipeline: what could break one.
    """
    changes = () if known.app.fingerprint == app.fingerprint else compare(known.app, app)
    if not changes:
        return Drift(known=known, uses=Uses())
    uses = everything(known.app) if pipeline is None else find_uses(pipeline, catalog, known.app)
    return Drift(known=known, changes=tuple((change, breaking(change, uses, app)) for change in changes), uses=uses)


def refuse_drift(drift: Drift, app: App, pipeline: Pipeline) -> tuple[str, ...]:
    """Notes about what changed. Raises DriftError where it breaks the pipeline, unless that only warns."""
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
