"""The limit is respected: no 429 in normal operation, by the service's own log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from process import Cli, Service, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.long
def test_no_429_in_250_rows_at_100_requests_in_3_seconds(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    service = serve("--limit", "100", "--window", "3", "--speed", "20")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    write_rows(project, [row(n) for n in range(250)])
    summary = at("run", "p.yaml", "--json").summary
    assert summary["counts"]["completed"] == 250
    assert summary["requests"]["rate_limited"] == 0
    assert 429 not in {line["status"] for line in service.requests}
    assert len(service.requests) == summary["requests"]["total"]


def test_a_429_is_waited_out_and_costs_nothing_but_time(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    service = serve("--limit", "1000", "--window", "1", "--speed", "50", "--fault", "429:every=3,on=any")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    write_rows(project, [row(n) for n in range(10)])
    summary = at("run", "p.yaml", "--json").summary
    assert summary["counts"]["completed"] == 10
    assert summary["requests"]["rate_limited"] > 0
    assert set(service.bought().values()) == {1}
