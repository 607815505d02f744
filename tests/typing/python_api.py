"""Read by mypy alone: what the Python API takes and answers, as a caller with strict types sees it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import polars as pl

import lamina_batch


def blocking() -> None:
    pipeline = lamina_batch.load_pipeline("catalog.yaml", overrides={"rows.from": "today.csv"}, sandbox=True)
    assert_type(pipeline, lamina_batch.LoadedPipeline)
    assert_type(pipeline.manifest, tuple[Path, ...])
    plan = lamina_batch.plan(pipeline, limit=3, only=["00123"], rerun_file=Path("picks.json"))
    assert_type(plan, lamina_batch.Plan)
    assert_type(plan.jobs, pl.DataFrame)
    summary = lamina_batch.run(pipeline, yes=True, if_locked="wait")
    assert_type(summary, lamina_batch.Summary)
    assert_type(summary.counts["completed"], int)
    assert_type(lamina_batch.read_results(pipeline, layout="long"), pl.DataFrame)


async def in_a_loop() -> None:
    pipeline = lamina_batch.load_pipeline(Path("catalog.yaml"), base_url="http://127.0.0.1:8787", api_key="lma_any")
    assert_type(await lamina_batch.plan_async(pipeline), lamina_batch.Plan)
    assert_type(await lamina_batch.run_async(pipeline, wait=False), lamina_batch.Summary)


def mistakes() -> None:
    """Each of these is one to mypy: an ignore that hides nothing is an error there."""
    pipeline = lamina_batch.load_pipeline("catalog.yaml")
    lamina_batch.run("catalog.yaml")  # type: ignore[arg-type]
    lamina_batch.run(pipeline, limit="3")  # type: ignore[arg-type]
    lamina_batch.run(pipeline, sandbox=True)  # type: ignore[call-arg]
    lamina_batch.plan(pipeline, yes=True)  # type: ignore[call-arg]
    lamina_batch.run(pipeline, if_locked="skip")  # type: ignore[arg-type]
    lamina_batch.nothing_of_ours  # type: ignore[attr-defined]  # noqa: B018
