"""Was the ledger lost? An empty one beside old results, or beside a ledger without a pipeline, would buy all again."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_batch.errors import LostLedgerError, StateError
from lamina_batch.ledger.ledger import find_ledger
from lamina_batch.results.read_manifest import count_bought_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina_batch.ledger.ledger import Ledger
    from lamina_batch.pipeline.spec import Pipeline

#: The folder in which ledgers stand side by side unless `state` says otherwise.
_STATE_FOLDERS = ".lamina-batch"


def refuse_lost(pipeline: Pipeline, ledger: Ledger | None) -> None:
    """Raise LostLedgerError if there are results of this pipeline, but no ledger that knows of them."""
    if ledger is not None and not ledger.is_empty():
        return
    for file in (*pipeline.results.manifest, *_manifests_of_other_days(pipeline)):
        bought = count_bought_rows(file)
        if bought:
            raise LostLedgerError(
                f"this manifest holds {bought} rows that were bought, but the ledger in {pipeline.state} is empty: "
                "a run would buy them again",
                where=str(file),
                hint=f"put the state folder back, or `lamina-batch state import {file} "
                f"--pipeline {pipeline.file}{pipeline.sandbox_option}`; "
                "if they are to be bought again: --new-ledger",
            )


#: so many manifests of other days are read
_MAX_OTHER_DAYS = 10


def _manifests_of_other_days(pipeline: Pipeline) -> Iterator[Path]:
    """The manifests of other days, newest first."""
    for pattern in pipeline.results.other_days_globs:
        found = (Path(name) for name in sorted(glob.glob(pattern), reverse=True))  # noqa: PTH207  # it is absolute
        yield from [file for file in found if file not in pipeline.results.manifest][:_MAX_OTHER_DAYS]


def refuse_renamed(pipeline: Pipeline, ledger: Ledger | None, service: str) -> None:
    """Raise LostLedgerError if ours is empty and one beside it belongs to a pipeline file that is gone."""
    beside = pipeline.state.parent
    if beside.name != _STATE_FOLDERS or (ledger is not None and not ledger.is_empty()):
        return
    for folder in sorted(beside.glob("*/")):
        other = _open_neighbour(folder) if folder != pipeline.state else None
        if other is None:
            continue
        with other:
            file = folder / (other.meta("pipeline") or "")
            same = (other.meta("service"), other.meta("app_id")) == (service, pipeline.app)
            if same and not file.exists() and not other.is_empty():
                raise LostLedgerError(
                    f"this ledger belongs to {os.path.normpath(file)}, which is gone: if that is now "
                    f"{pipeline.file.name}, a run would buy everything again",
                    where=str(folder),
                    hint=f"write `state: {_STATE_FOLDERS}/{folder.name.removesuffix('.sandbox')}` into "
                    f"{pipeline.file.name} and run it once with --adopt-state; "
                    "if this is another pipeline: --new-ledger",
                )


def _open_neighbour(folder: Path) -> Ledger | None:
    """The ledger in it; one that cannot be read must not stop this pipeline."""
    try:
        return find_ledger(folder)
    except StateError:
        return None
