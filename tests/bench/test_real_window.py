"""What only the real 60 s window shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from process import Cli, Service, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_no_429_in_130_rows_without_headers_at_the_real_window(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    """Without RateLimit headers, 100 requests a minute is all that is known; 130 rows need three windows."""
    service = serve("--limit", "100", "--window", "60", "--no-headers")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url}, timeout=600)
    write_rows(project, [row(n) for n in range(130)])
    summary = at("run", "p.yaml", "--json", "--set", "run.poll.min_interval=3s").summary
    print(
        f"130 rows, no headers: {summary['requests']['total']} requests, {summary['seconds']} s, "
        f"{summary['requests']['rate_limited']} answered 429"
    )
    assert summary["counts"]["completed"] == 130
    assert 429 not in {line["status"] for line in service.requests}
