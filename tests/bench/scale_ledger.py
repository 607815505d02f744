"""The ledger of a catalog of which every row has completed, as nights of runs would have left it.

    python tests/bench/scale_ledger.py PIPELINE SERVICE KEYS

Every job has its inputs, its four events and an output. KEYS gets the keys and hashes, as Parquet, for the baselines.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_batch.catalog.prepare import prepare
from lamina_batch.ledger.ledger import open_ledger
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.runs.context import Access
from lamina_batch.runs.service import ask as ask_service
from lamina_batch.runs.state import binding
from lamina_batch.runtime import Runtime
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.check_rows import CheckedRows

AT = 1_790_000_000.0
_BATCH = 50_000
_JOB = (
    "INSERT INTO job (id, key, variant, revision, content, inputs, state, app_id, contract, generation, execution_id, "
    "submission, attempts, submitted_at, completed_at, seconds) "
    "VALUES (?, ?, ?, 1, ?, ?, 'completed', ?, ?, 'executions', ?, ?, 1, ?, ?, 30.0)"
)
_EVENT = (
    "INSERT INTO event (at, run_id, job_id, from_state, to_state, submission, execution_id) "
    "VALUES (?, 'bench', ?, ?, ?, ?, ?)"
)
_OUTPUT = "INSERT INTO output VALUES (?, 0, ?, 'Image', 'image', 'completed', ?, NULL)"


def fill(connection: sqlite3.Connection, checked: CheckedRows, app: App) -> None:
    """Every job as completed."""
    connection.execute("BEGIN")
    first = 1
    for some in checked.jobs.iter_slices(_BATCH):
        lines: Sequence[tuple[str, str, str, str]]
        lines = checked.with_inputs(some).select("key", "variant", "content", "inputs").rows()
        connection.executemany(_JOB, _jobs(lines, first, app))
        connection.executemany(_EVENT, _events(lines, first))
        connection.executemany(
            _OUTPUT,
            (
                (number, f"output-{content[:16]}", f"https://media.example.com/out/{content[:32]}.png")
                for number, (_, _, content, _) in enumerate(lines, start=first)
            ),
        )
        first += len(lines)
    connection.execute("COMMIT")


def _jobs(lines: Sequence[tuple[str, str, str, str]], first: int, app: App) -> Iterator[tuple[object, ...]]:
    for number, (key, variant, content, inputs) in enumerate(lines, start=first):
        named = app.app_id, app.fingerprint, f"exec-{content[:32]}", content[32:]
        yield number, key, variant, content, inputs, *named, AT + number, AT + number + 30


def _events(lines: Sequence[tuple[str, str, str, str]], first: int) -> Iterator[tuple[object, ...]]:
    for number, (_, _, content, _) in enumerate(lines, start=first):
        submission, execution = content[32:], f"exec-{content[:32]}"
        yield AT + number, number, None, "planned", None, None
        yield AT + number, number, "planned", "submitting", submission, None
        yield AT + number, number, "submitting", "running", submission, execution
        yield AT + number + 30, number, "running", "completed", submission, execution


def main() -> None:
    pipeline_file, service, keys = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    pipeline = load_pipeline(pipeline_file, overrides=(), environ={}, today=dt.date(2026, 11, 24))
    access = Access(base_url=service, api_key="lma_bench", service=service)
    runtime = Runtime(
        now=time.monotonic,
        wall=time.time,  # noqa: TID251  # the bench is the edge
        sleep=asyncio.sleep,  # noqa: TID251
        random=random.Random(1),
        notice=lambda _: None,
    )
    app = asyncio.run(ask_service(access, runtime, lambda client: client.get_app(pipeline.app), pipeline))
    checked = prepare(pipeline, read_catalog(pipeline), app, service).checked
    checked.jobs.select("key", "content").write_parquet(keys)
    with open_ledger(pipeline.state) as ledger:
        ledger.bind(binding(pipeline, service))
        ledger.set_meta({"app": app.served_json, "app_id": app.app_id, "generation": "executions"})
        fill(ledger._db, checked, app)
    os._exit(0)


if __name__ == "__main__":
    main()
