"""Looking after the ledger: held rows settled by word, a lost ledger made again, results that outlive it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from process import PIPELINE, Cli, Service, read_manifest, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOST = ("--limit", "100000", "--window", "3", "--speed", "100", "--fault", "drop_after_accept:first=2")


@pytest.fixture
def lossy(serve: Callable[..., Service]) -> Service:
    """A service that takes the first two submissions and keeps its answers to itself."""
    return serve(*LOST)


@pytest.fixture
def there(cli: Cli, lossy: Service, project: Path) -> Cli:
    """A run against it has left two rows held."""
    told = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": lossy.url})
    assert told("run", "p.yaml", "--json", code=6).summary["counts"]["held"] == 2
    return told


def held_names(ran: str) -> list[str]:
    return [line.split(": ")[1] for line in ran.splitlines() if line.startswith("held: ")]


def execution_of(service: Service, key: str) -> str:
    [found] = [e["execution_id"] for e in service.accepted if key in e["inputs"]["Front"]]
    return str(found)


def test_held_rows_are_shown_with_what_happened_and_what_to_do(there: Cli) -> None:
    shown = there("held", "p.yaml").out
    assert len(held_names(shown)) == 2
    assert "attempt 1" in shown
    assert "--adopt KEY=EXECUTION_ID" in shown
    assert held_names(there("status", "p.yaml").out) == held_names(shown)


def test_an_adopted_execution_is_collected_and_nothing_is_bought(there: Cli, lossy: Service, project: Path) -> None:
    names = held_names(there("held", "p.yaml").out)
    there("held", "p.yaml", "--adopt", *(f"{name}={execution_of(lossy, name)}" for name in names))
    assert there("run", "p.yaml", "--json").summary["counts"]["completed"] == 3
    assert len(lossy.accepted) == 3
    lines = {line["sku"]: line["lamina_execution_id"] for line in read_manifest(project / "out" / "p.csv")}
    assert all(lines[name] == execution_of(lossy, name) for name in names)


def test_a_resubmitted_row_is_sent_by_the_next_plain_run(there: Cli, lossy: Service) -> None:
    there("held", "p.yaml", "--resubmit", "--all")
    assert len(lossy.accepted) == 3, "the word alone buys nothing"
    assert there("run", "p.yaml", "--json").summary["counts"]["completed"] == 3
    assert sorted(lossy.bought().values()) == [1, 2, 2]


def test_a_row_given_up_is_failed_and_not_sent(there: Cli, lossy: Service, project: Path) -> None:
    there("held", "p.yaml", "--give-up", "--all")
    assert there("run", "p.yaml", "--json", code=3).summary["counts"]["failed"] == 2
    assert len(lossy.accepted) == 3
    assert {line["lamina_code"] for line in read_manifest(project / "out" / "p.csv")} == {"", "given_up"}


def test_a_row_given_up_is_bought_again_by_its_name_only(there: Cli, lossy: Service) -> None:
    """It may have been bought, and `--retry-failed` is a word about what failed."""
    first, second = held_names(there("held", "p.yaml").out)
    there("held", "p.yaml", "--give-up", "--all")
    assert there("plan", "p.yaml", "--retry-failed", "--explain").out.count("report: given up") == 2
    assert there("run", "p.yaml", "--retry-failed", "--json", code=3).summary["counts"]["submitted"] == 0
    assert len(lossy.accepted) == 3
    there("run", "p.yaml", "--rerun", first, code=3)
    assert sorted(lossy.bought().values()) == [1, 1, 2]
    assert f"{second}: report: given up" in there("plan", "p.yaml", "--explain").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--adopt", "{done}=x"), "no held job is called"),
        (("--adopt", "{held}=nonsense"), "knows no execution 'nonsense'"),
        (("--adopt", "{held}"), "is not KEY=EXECUTION_ID"),
        (("--adopt", "{held}={bought}"), "is that of '{done}' already"),
        (("--adopt", "{held}=x", "--give-up", "{held}"), "is named twice"),
        (("--resubmit", "{held}x"), "did you mean '{held}'?"),
    ],
)
def test_a_word_that_cannot_be_meant_changes_nothing(
    there: Cli, lossy: Service, words: tuple[str, ...], said: str
) -> None:
    held = held_names(there("held", "p.yaml").out)
    [done] = {"00001", "00002", "00003"} - set(held)
    names = {"held": held[0], "done": done, "bought": execution_of(lossy, done)}
    ran = there("held", "p.yaml", *(word.format(**names) for word in words), code=2)
    assert said.format(**names) in ran.err
    assert held_names(there("held", "p.yaml").out) == held


def test_held_is_for_a_pipeline_that_has_run(project: Path, cli: Cli) -> None:
    assert project.exists()
    assert "has not run yet" in cli("held", "p.yaml", code=2).err


# -- a lost ledger -------------------------------------------------------------------------------------------------


def lose_ledger(folder: Path) -> None:
    shutil.rmtree(folder / ".lamina-batch")


@pytest.mark.parametrize("manifest", ["out/p.csv", "out/p.parquet", "out/p.ndjson"])
@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_ledger_made_again_from_any_manifest_buys_nothing(
    project: Path, at: Cli, service: Service, manifest: str, layout: str
) -> None:
    text = PIPELINE + f"results: {{manifest: {manifest}, layout: {layout}}}\n"
    (project / "p.yaml").write_text(text, encoding="utf-8")
    write_rows(project, [row(1), row(2, title="=Coat"), row(3, sku="-7"), row(1, sku="again")])
    at("run", "p.yaml")
    before = (project / manifest).read_bytes()
    lose_ledger(project)
    for command in (("run", "p.yaml"), ("plan", "p.yaml")):
        assert "state import" in at(*command, code=5).err
    assert (project / manifest).read_bytes() == before, "the only record is left alone"
    assert "3 of 3 jobs" in at("state", "import", manifest).err
    counts = at("run", "p.yaml", "--json").summary["counts"]
    assert (counts["submitted"], counts["completed"], counts["unchanged"]) == (0, 4, 4)
    assert len(service.accepted) == 3
    again = (project / manifest).read_bytes()
    if manifest.endswith(".csv") and layout == "long":
        # Ids and types of outputs are in the long form only.
        assert again == before


def test_held_and_running_rows_survive_the_loss_too(there: Cli, lossy: Service, project: Path) -> None:
    names = held_names(there("held", "p.yaml").out)
    lose_ledger(project)
    there("state", "import", "out/p.csv")
    assert there("run", "p.yaml", "--json", code=6).summary["counts"]["held"] == 2
    assert held_names(there("held", "p.yaml").out) == names
    there("held", "p.yaml", "--resubmit", names[0])
    there("run", "p.yaml", code=6)
    assert sorted(lossy.bought().values()) == [1, 1, 2]


@pytest.mark.parametrize("manifest", ["out/p-{date}.csv", "out/{date}/p.xlsx"])
def test_the_manifest_of_another_day_tells_that_the_ledger_is_lost(
    project: Path, at: Cli, service: Service, manifest: str
) -> None:
    text = PIPELINE + f'results: {{manifest: "{manifest}"}}\n'
    (project / "p.yaml").write_text(text, encoding="utf-8")
    at("run", "p.yaml")
    [today] = [file for file in (project / "out").rglob("*") if file.is_file()]
    nights = [project / manifest.replace("{date}", day) for day in ("2025-01-30", "2025-01-31")]
    for night in nights:
        night.parent.mkdir(exist_ok=True)
        shutil.copy(today, night)
    today.unlink()
    lose_ledger(project)
    told = at("run", "p.yaml", code=5).err
    assert f"state import {nights[1]}" in told, "the newest"
    assert f"state import {nights[1]}" in at("plan", "p.yaml", code=5).err
    # Where each day has a ledger of its own, none is lost.
    assert "executions to start: 3" in at("plan", "p.yaml", "--set", "state=of/{date}").out
    at("state", "import", nights[1], "--pipeline", "p.yaml")
    assert at("run", "p.yaml", "--json").summary["counts"]["unchanged"] == 3
    assert len(service.accepted) == 3


def test_an_empty_ledger_that_is_meant_buys_again(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    lose_ledger(project)
    at("run", "p.yaml", "--new-ledger")
    assert sorted(service.bought().values()) == [2, 2, 2]
    assert project.exists()


def test_a_renamed_pipeline_file_does_not_buy_again(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    (project / "p.yaml").rename(project / "q.yaml")
    refused = at("run", "q.yaml", code=5)
    assert "state: .lamina-batch/p" in refused.err
    assert (
        at("run", "q.yaml", "--set", "state=.lamina-batch/p", "--adopt-state", "--json").summary["counts"]["unchanged"]
        == 3
    )
    assert len(service.accepted) == 3


def test_a_second_pipeline_beside_the_first_is_its_own(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    shutil.copy(project / "p.yaml", project / "q.yaml")
    at("run", "q.yaml")
    assert len(service.accepted) == 6


def test_a_file_that_is_no_manifest_is_refused(project: Path, at: Cli) -> None:
    at("run", "p.yaml")
    assert "no column 'lamina_key'" in at("state", "import", "rows.csv", "--pipeline", "p.yaml", code=2).err
    (project / "copy.csv").write_bytes((project / "out" / "p.csv").read_bytes())
    assert "--pipeline" in at("state", "import", "copy.csv", code=2).err
    assert "0 of 3" in at("state", "import", "copy.csv", "--pipeline", "p.yaml").err


def test_results_of_the_sandbox_stay_in_its_ledger(project: Path, at: Cli) -> None:
    """Else the real ledger would take for bought what nobody has paid for."""
    at("run", "p.yaml", "--sandbox")
    for more in ((), ("--pipeline", "p.yaml")):
        assert "add --sandbox" in at("state", "import", "out/p.sandbox.csv", *more, code=2).err
    assert "has not run yet" in at("status", "p.yaml").out
    again = at("state", "import", "out/p.sandbox.csv", "--sandbox").err
    assert "0 of 3 jobs taken over" in again
    assert "3 were there already" in again
    (project / "out" / "p.sandbox.csv").rename(project / "out" / "p.csv")
    for more in ((), ("--pipeline", "p.yaml")):
        assert "leave out --sandbox" in at("state", "import", "out/p.csv", "--sandbox", *more, code=2).err


def test_a_manifest_of_another_app_is_refused(project: Path, at: Cli) -> None:
    at("run", "p.yaml")
    file = project / "out" / "p.csv"
    file.write_text(file.read_text().replace("bbb17293", "aaa17293"), encoding="utf-8")
    assert "another app" in at("state", "import", "out/p.csv", code=2).err


def test_the_list_of_the_runs_generation_names_candidates_and_adopts_none(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    service = serve(*LOST, "--generation", "runs")
    there = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": service.url})
    there("run", "p.yaml", code=6)
    shown = there("held", "p.yaml").out
    for name in held_names(shown):
        mine = execution_of(service, name)
        assert shown.count(mine) == 2, "each of the two may be either"
    [known] = [e["execution_id"] for e in service.accepted if e["execution_id"] not in shown]
    assert known, "what the ledger knows is no candidate"
    assert there("run", "p.yaml", "--json", code=6).summary["counts"]["held"] == 2
    offline = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": "http://127.0.0.1:9"})
    assert len(held_names(offline("held", "p.yaml").out)) == 2
