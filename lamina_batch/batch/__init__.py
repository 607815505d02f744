"""One run as a straight line: load -> read -> map -> check -> plan -> execute -> results.

The path of one row:

1. `catalog.source` reads it from the file, with the row number that a spreadsheet shows.
2. `catalog.mapping` turns its cells into the app's inputs, once for each variant.
3. `catalog.check` holds them against the app's live schema and makes findings of what does not fit.
4. `catalog.content` gives what is left its content: the hash that says what would be bought.
5. `execution.plan` looks that content up in the ledger: submit, share, collect, reuse, report or hold.
6. `execution.engine` makes the submission durable, sends it when the budget allows, and writes its end down.
7. `execution.files` saves the files of what completed, while the others go on.
8. `results.manifest` puts the row's own cells and what came of them side by side.

Loading the pipeline file is the caller's, because it decides with which overrides. `line` is this list as code; `ahead`
looks ahead without spending, `again` writes down again, and `steps` holds what they share.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina_batch.batch.again import manifest, results
    from lamina_batch.batch.ahead import Preview, preview, validate, validate_offline
    from lamina_batch.batch.contract import drift
    from lamina_batch.batch.line import Reporter, new_run_id, run
    from lamina_batch.batch.service import app_of, ask
    from lamina_batch.batch.steps import Prepared, binding, existing_ledger, prepare, refuse_source
    from lamina_batch.batch.world import Access, RunRequest, World

__all__ = [
    "Access",
    "Prepared",
    "Preview",
    "Reporter",
    "RunRequest",
    "World",
    "app_of",
    "ask",
    "binding",
    "drift",
    "existing_ledger",
    "manifest",
    "new_run_id",
    "prepare",
    "preview",
    "refuse_source",
    "results",
    "run",
    "validate",
    "validate_offline",
]

#: what stands where; each command needs few of them, and is not kept waiting for the others
_MODULES = {
    "again": ("manifest", "results"),
    "ahead": ("Preview", "preview", "validate", "validate_offline"),
    "contract": ("drift",),
    "line": ("Reporter", "new_run_id", "run"),
    "service": ("app_of", "ask"),
    "steps": ("Prepared", "binding", "existing_ledger", "prepare", "refuse_source"),
    "world": ("Access", "RunRequest", "World"),
}


if not TYPE_CHECKING:  # to a type checker this would be every attribute there could be

    def __getattr__(name: str) -> object:
        for module, names in _MODULES.items():
            if name in names:
                return getattr(importlib.import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
