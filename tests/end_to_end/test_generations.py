"""One pipeline file, whatever the service speaks (docs/lamina-api.md, "The runs API")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from process import Cli, Service, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = ("--limit", "100000", "--window", "3", "--speed", "100")


@pytest.mark.parametrize("generation", ["executions", "runs", "both"])
def test_the_same_pipeline_file_runs_unchanged(
    project: Path, cli: Cli, serve: Callable[..., Service], generation: str
) -> None:
    service = serve(*QUICK, "--generation", generation)
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    write_rows(project, [row(n) for n in range(12)])
    assert at("run", "p.yaml", "--json").summary["counts"]["completed"] == 12
    assert at("run", "p.yaml", "--json").summary["counts"]["unchanged"] == 12
    assert set(service.bought().values()) == {1}
    probes = [line for line in service.requests if line["path"].startswith("/v1/runs?limit=1")]
    assert len(probes) <= 1, "what answers is remembered"


def test_an_execution_is_read_in_the_generation_that_made_it(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    """The pipeline goes over to the other generation while rows run; each reads only what it made."""
    service = serve("--limit", "100000", "--window", "3", "--speed", "20", "--generation", "both")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    first = at("run", "p.yaml", "--no-wait", "--json", "--set", "api.generation=executions").summary
    assert first["counts"]["running"] == 3
    write_rows(project, [row(n) for n in range(1, 6)])
    told = at("run", "p.yaml", "--json", "--set", "api.generation=runs").summary
    assert told["counts"]["completed"] == 5
    assert [line["generation"] for line in service.accepted] == ["executions"] * 3 + ["runs"] * 2
