"""One run of ours as a process, with the intervals that we choose scaled as the service is. Prints its numbers.

python tests/bench/ours.py p.yaml URL --speed 20 [--set run.max_in_flight=20]
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import random
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_batch.execution.engine import Control, Progress
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.runs.context import Access, RunRequest
from lamina_batch.runs.run import run as run_pipeline
from lamina_batch.runtime import Runtime

if TYPE_CHECKING:
    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.execution.plan import Plan
    from lamina_batch.ledger.job import Job


class Silent:
    def note(self, text: str) -> None: ...

    def planned(self, plan: Plan, checked: CheckedRows) -> None: ...

    def changed(self, job: Job) -> None: ...

    def on_progress(self, progress: Progress) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("url")
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    pipeline = load_pipeline(options.pipeline, overrides=options.set, environ={}, today=dt.date(2026, 11, 24))
    cpu = time.process_time()
    summary = asyncio.run(
        run_pipeline(
            pipeline,
            Access(base_url=options.url, api_key="lma_ours", service=options.url, speed=options.speed),
            RunRequest(yes=True),
            runtime=Runtime(
                now=time.monotonic,
                wall=time.time,  # noqa: TID251  # the bench is the edge
                sleep=asyncio.sleep,  # noqa: TID251
                random=random.Random(os.getpid()),
                notice=lambda _: None,
            ),
            reporter=Silent(),
            control=Control(),
        )
    )
    [peak] = [line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if "VmHWM" in line]
    print(
        json.dumps(
            asdict(summary) | {"cpu_seconds": time.process_time() - cpu, "peak_mib": int(peak.split()[1]) / 1024}
        )
    )


if __name__ == "__main__":
    main()
