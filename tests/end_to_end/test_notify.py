"""`notify:` as a run and its environment see it."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
from hostile import Hostile, hostile, inside, says
from jsonschema import Draft202012Validator
from process import PIPELINE, Cli, Service, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUMMARY = json.loads((files("lamina_batch") / "schemas/summary.schema.json").read_text("utf-8"))


@pytest.fixture
def tool() -> Iterator[Hostile]:
    """Takes what it is told."""
    with hostile(start=says(200)) as listening:
        yield listening


@pytest.fixture
def told(project: Path, at: Cli, tool: Hostile) -> Cli:
    (project / "p.yaml").write_text(f"{PIPELINE}notify: {{url: '${{NOTIFY_URL}}'}}\n", encoding="utf-8")
    return Cli(folder=project, env={**at.env, "NOTIFY_URL": f"{tool.url}/hook-secret"})


def bodies(tool: Hostile) -> list[dict[str, Any]]:
    return [json.loads(asked.body) for asked in tool.asked]


def test_each_end_is_told_with_its_summary(project: Path, told: Cli, tool: Hostile, service: Service) -> None:
    first = told("run", "p.yaml", "--json")
    write_rows(project, [row(1), row(2, front="no address")])
    second = told("run", "p.yaml", "--json", code=3)
    third = told("collect", "p.yaml", "--json", code=3)
    assert [body["ending"] for body in bodies(tool)] == ["success", "partial", "partial"]
    for body, ran in zip(bodies(tool), (first, second, third), strict=True):
        ours = {name: body.pop(name) for name in ("text", "ending", "error")}
        Draft202012Validator(SUMMARY).validate(body)
        assert body == ran.summary
        assert ours["error"] is None
        assert ours["text"].startswith("p: ")
        assert "hook-secret" not in ran.err
    assert bodies(tool)[0]["text"] == "p: success (exit 0): 3 jobs: 3 completed; 3 started"
    heads = b"".join(asked.head + asked.body for asked in tool.asked)
    assert b"lma_" not in heads
    assert len(service.accepted) == 3


def test_a_run_that_could_not_run_is_told(told: Cli, tool: Hostile) -> None:
    told("run", "p.yaml", code=1, env={"LAMINA_API_KEY": ""})
    told("run", "p.yaml", "--only", "nobody", code=2)
    (no_key, no_row) = bodies(tool)
    assert no_key["exit_code"] == 1
    assert no_key["error"] == "no API key"
    assert no_key["text"] == "p: failure (exit 1): no API key"
    assert set(no_key) == {"text", "ending", "error", "pipeline", "run_id", "exit_code"}
    assert no_row["exit_code"] == 2
    assert "'nobody'" in no_row["error"]


def test_a_run_is_what_it_is_whoever_cannot_be_told(told: Cli) -> None:
    with hostile(start=says(404)) as gone:
        ran = told("run", "p.yaml", env={"NOTIFY_URL": f"{gone.url}/hook-secret"})
        assert gone.count("start") == 1
    assert "note: 127.0.0.1 was not told how this run ended: HTTP 404" in ran.err
    assert "hook-secret" not in ran.err
    ran = told("collect", "p.yaml", "--log-format", "json", env={"NOTIFY_URL": f"{gone.url}/hook-secret"})
    assert "no connection to the host" in ran.err
    assert "hook-secret" not in ran.err


def test_nothing_but_a_run_tells_and_a_sandbox_run_only_where_it_is_asked(told: Cli, tool: Hostile) -> None:
    for words in ("validate p.yaml", "plan p.yaml", "run p.yaml --sandbox"):
        assert inside(told, *words.split()).code == 0
    assert tool.connections == 0
    assert inside(told, "run", "p.yaml", "--sandbox", "--set", f"notify.url={tool.url}").code == 0
    assert [body["ending"] for body in bodies(tool)] == ["success"]
