"""Runs that are called instead of asking: through the real receiver, against the sandbox's signed callbacks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from process import PIPELINE, Cli, Service, lasting_port, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

QUICK = ("--limit", "100000", "--window", "3", "--speed", "100")


@pytest.fixture
def port(project: Path) -> int:
    """A port for the receiver, and a pipeline that wants callbacks there."""
    port = lasting_port()
    hook = f'completion: webhook, webhook: {{public_url: "http://127.0.0.1:{port}/lamina", listen: "127.0.0.1:{port}"}}'
    # A callback may be late on a busy machine, and then asking would be right.
    text = PIPELINE.partition("run:")[0] + f"run: {{{hook}, poll: {{min_interval: 1h, max_interval: 1h}}}}\n"
    (project / "p.yaml").write_text(text, encoding="utf-8")
    return port


@pytest.fixture
def against(cli: Cli, serve: Callable[..., Service]) -> Callable[..., tuple[Cli, Service]]:
    def start(*args: str) -> tuple[Cli, Service]:
        service = serve(*QUICK, *args)
        return Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url}), service

    return start


@pytest.mark.parametrize("generation", ["executions", "runs", "both"])
def test_a_row_costs_one_request(
    project: Path, port: int, against: Callable[..., tuple[Cli, Service]], generation: str
) -> None:
    write_rows(project, [row(n) for n in range(20)])
    at, service = against("--generation", generation)
    summary = at("run", "p.yaml", "--json").summary
    assert port
    assert summary["counts"]["completed"] == 20
    assert (summary["requests"]["submit"], summary["requests"]["poll"]) == (20, 0)
    assert set(service.bought().values()) == {1}


def test_a_callback_settles_a_row_whose_answer_was_lost(
    project: Path, port: int, against: Callable[..., tuple[Cli, Service]]
) -> None:
    write_rows(project, [row(n) for n in range(20)])
    at, service = against("--fault", "drop_after_accept:every=2")
    summary = at("run", "p.yaml", "--json").summary
    assert port
    assert (summary["counts"]["completed"], summary["counts"]["held"]) == (20, 0)
    assert summary["counts"]["submitted"] == 20
    assert set(service.bought().values()) == {1}


def test_what_was_never_accepted_stays_held_and_the_run_ends(
    project: Path, port: int, against: Callable[..., tuple[Cli, Service]]
) -> None:
    # The others end as soon as they are accepted: none of them can be too late.
    at, service = against("--fault", "500:on=start,first=1", "--fault", "webhook_early")
    summary = at("run", "p.yaml", "--json", "--set", "run.execution_timeout=3s", code=6).summary
    assert project.exists()
    assert port
    assert (summary["counts"]["completed"], summary["counts"]["held"]) == (2, 1)
    assert len(service.accepted) == 2


def test_a_taken_port_is_told_before_anything_is_bought(
    project: Path, port: int, against: Callable[..., tuple[Cli, Service]]
) -> None:
    at, service = against()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert str(port) in at("run", "p.yaml", code=1).err
    assert service.accepted == []
    assert at("run", "p.yaml", "--json").summary["counts"]["completed"] == 3
    assert project.exists()


def test_leaving_without_waiting_is_refused(project: Path, port: int, at: Cli, service: Service) -> None:
    assert "callbacks have to be waited for" in at("run", "p.yaml", "--no-wait", code=2).err
    assert service.accepted == []
    assert project.exists()
    assert port


def test_the_embedded_sandbox_calls_back_too(project: Path, port: int, cli: Cli) -> None:
    assert cli("run", "p.yaml", "--sandbox", "--json").summary["requests"]["poll"] == 0
    assert project.exists()
    assert port
