"""What a plan need not look at: rows that were completed when the last run ended, known again by their cells.

A catalog of a million rows changes in few from night to night. A run leaves a number for each row that was completed
and plain, and a plan that meets the same number again takes that row as it was, unless anything else has changed: the
mapping, the app, the service, the ledger, or a version of what calculates. It is a plan's short cut and no more than
that. What is bought is decided by contents (catalog/content.py), of every row, in every run. A plan says the same with
it, but for guesses at what is meant where hundreds of labels are wrong (`verdict._GUESSES`).
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import polars_hash

from lamina_batch.execution.plan import completed, settled

if TYPE_CHECKING:
    from lamina_batch.apps.app import App
    from lamina_batch.catalog.check import Checked
    from lamina_batch.catalog.mapping import Mapped
    from lamina_batch.execution.ledger import Ledger
    from lamina_batch.pipeline.spec import Pipeline


class Remembered(NamedTuple):
    """What a run left. Another version may have packed it, so it is not looked into before that is compared."""

    made_with: str
    packed: bytes

    def prints(self, made_with: str) -> pl.Series | None:
        """The numbers of rows (`Checked.prints`) that were made with just this; None: there are none to be had."""
        if self.made_with != made_with:
            return None
        # What cannot be read is as good as lost: every row is looked at.
        with suppress(OSError, pl.exceptions.PolarsError):
            return pl.read_ipc(io.BytesIO(self.packed)).to_series()
        return None


def made_of(pipeline: Pipeline, app: App, service: str, mapped: Mapped) -> str:
    """Fingerprint of all that says, beside its cells, what a row comes to."""
    told = (
        (_code(), pl.__version__, polars_hash.__version__),
        (service, app.app_id, app.fingerprint),
        (pipeline.inputs, dict(pipeline.matrix), pipeline.rows.key, mapped.kinds),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()


@cache
def _code() -> str:
    """Fingerprint of the modules that make jobs of cells: a checkout changes more often than its version."""
    package = files("lamina_batch")
    modules = (module for room in ("catalog", "apps", "pipeline") for module in package.joinpath(room).iterdir())
    texts = sorted((module.name, module.read_bytes()) for module in modules if module.name.endswith(".py"))
    return hashlib.sha256(repr(texts).encode()).hexdigest()


def recall(ledger: Ledger) -> Remembered | None:
    """What the last run left, where nothing has happened since."""
    found = ledger.settled()
    return None if found is None else Remembered(*found)


def remember(checked: Checked, made_with: str, ledger: Ledger) -> None:
    """Leave to the next plan what it need not look at. Raises StateError where the ledger cannot be read or written."""
    done = checked.jobs.select("lamina_index", done=settled(checked.jobs, completed(ledger.contents())))
    whole = done.group_by("lamina_index").agg(pl.col("done").all()).filter("done").get_column("lamina_index")
    packed = io.BytesIO()
    prints = checked.prints(checked.plain.filter(checked.plain.is_in(whole.implode())))
    prints.to_frame("print").write_ipc(packed)
    ledger.remember_settled(made_with, packed.getvalue())
