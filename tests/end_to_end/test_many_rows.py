"""A night in which few of many rows changed: what is submitted is exactly that. With a million rows: tests/bench."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from process import Cli, Service

if TYPE_CHECKING:
    from collections.abc import Callable

BENCH = Path(__file__).parents[1] / "bench"
ROWS, CHANGED = 30_000, 12


@pytest.mark.long
def test_of_many_rows_those_that_changed_are_submitted(tmp_path: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    """The catalog is checked, planned and written in several parts."""
    service = serve("--limit", "1000000", "--window", "1", "--speed", "200")
    for script, *words in (
        ("scale_catalogs.py", str(tmp_path), str(ROWS), str(CHANGED)),
        ("scale_ledger.py", "clean-parquet.yaml", service.url, "keys.parquet"),
    ):
        subprocess.run([sys.executable, str(BENCH / script), *words], cwd=tmp_path, check=True)
    at = Cli(folder=tmp_path, env={**cli.env, "LAMINA_BASE_URL": service.url})
    tonight = ("clean-parquet.yaml", "--set", "rows.from=changed.parquet")
    planned = at("plan", *tonight).out
    assert f"{CHANGED}  submit (changed)" in planned
    assert f"{ROWS - CHANGED}  unchanged (completed)" in planned

    counts = at("run", *tonight, "--json", "--quiet").summary["counts"]
    assert (counts["submitted"], counts["unchanged"], counts["completed"]) == (CHANGED, ROWS - CHANGED, ROWS)
    prompts = [line["inputs"]["Prompt"] for line in service.accepted]
    assert len(set(prompts)) == len(prompts) == CHANGED
    assert all(" (new) in " in prompt for prompt in prompts)

    manifest = pl.read_parquet(tmp_path / "out" / "scale.parquet")
    source = pl.read_parquet(tmp_path / "changed.parquet")
    assert manifest.select(source.columns).equals(source)
    assert manifest["lamina_row"].to_list() == list(range(2, ROWS + 2))
    assert manifest["lamina_execution_id"].n_unique() == ROWS
    fresh = manifest.filter(~pl.col("lamina_execution_id").str.starts_with("exec-"))
    assert fresh.height == CHANGED
    assert fresh["title"].str.ends_with("(new)").all()
