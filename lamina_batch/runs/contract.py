"""The live contract held against the one that the pipeline was made for: its pin, or that of the last run."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from lamina_batch.drift.judge import Drift, assess_drift, enforce_drift_policy, find_baseline
from lamina_batch.errors import UsageError
from lamina_batch.ledger.ledger import Ledger, find_ledger
from lamina_batch.runs.service import fetch_app, last_run_app, make_budget
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from lamina_batch.apps.app import App
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.runs.context import Access
    from lamina_batch.runtime import Runtime
    from lamina_batch.sources.table import Catalog


def check_contract(
    pipeline: Pipeline, catalog: Catalog | None, app: App, service: str, ledger: Ledger | None
) -> tuple[str, ...]:
    """Notes about what changed of the app since its pin, or without one since the last run.

    Without a catalog it is not known which rows use what changed.

    Raises DriftError if it breaks the pipeline, PipelineError for a pin that cannot be used.
    """
    known = find_baseline(pipeline, service, _last_run_contract(ledger, service))
    if known is None or isinstance(known, str):
        return () if known is None else (known,)
    return enforce_drift_policy(assess_drift(known, app, pipeline, catalog), app, pipeline)


def drift(pipeline: Pipeline, access: Access, runtime: Runtime) -> Drift:
    """What changed of the app, and what of it breaks this pipeline.

    Raises UsageError if there is nothing to compare with: neither a pin nor a run.
    """
    catalog = read_catalog(pipeline)
    app = asyncio.run(fetch_app(pipeline, access, runtime, make_budget(pipeline)))
    with find_ledger(pipeline.state) or nullcontext() as ledger:
        known = find_baseline(pipeline, access.service, _last_run_contract(ledger, access.service))
    if isinstance(known, str):
        raise UsageError(known, where=str(pipeline.file), hint="leave out --sandbox")
    if known is None:
        raise UsageError(
            "there is nothing to compare the app with: no pin, and no run before",
            where=str(pipeline.file),
            hint=f"name as schema.pin what `lamina-batch apps pin {pipeline.app}{pipeline.sandbox_option}` writes",
        )
    return assess_drift(known, app, pipeline, catalog)


def _last_run_contract(ledger: Ledger | None, service: str) -> App | None:
    """The contract of the ledger's last run at this service; None: there was none."""
    if ledger is None or ledger.meta("service") != service or ledger.meta("app") is None:
        return None
    return replace(last_run_app(ledger), app_id=ledger.meta("app_id") or "")
