"""The main job as its users run it: what is bought, what is not, and what they get back."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import polars as pl
import pytest
from process import PIPELINE, TOP, Cli, Service, read_manifest, row, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable


def manifest(folder: Path) -> list[dict[str, str]]:
    return read_manifest(folder / "out" / "p.csv")


def test_a_run_buys_each_row_once_and_writes_it_all_down(project: Path, at: Cli, service: Service) -> None:
    ran = at("run", "p.yaml", "--json")
    assert ran.summary["counts"]["completed"] == 3
    assert ran.summary["exit_code"] == 0
    assert sorted(service.bought().values()) == [1, 1, 1]
    lines = manifest(project)
    assert [line["sku"] for line in lines] == ["00001", "00002", "00003"]
    assert [line["lamina_row"] for line in lines] == ["2", "3", "4"]
    assert {line["lamina_status"] for line in lines} == {"completed"}
    assert {line["lamina_execution_id"] for line in lines} == {e["execution_id"] for e in service.accepted}
    assert all(line["lamina_submitted_at"].endswith("Z") for line in lines)


def test_the_summary_on_disk_is_the_one_printed(project: Path, at: Cli) -> None:
    printed = at("run", "p.yaml", "--json").summary
    [file] = (project / ".lamina-batch" / "p" / "runs").glob("*/summary.json")
    assert json.loads(file.read_text()) == printed
    assert printed["run_id"] == file.parent.name


def test_a_second_run_submits_nothing(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    second = at("run", "p.yaml", "--json").summary
    assert (second["counts"]["submitted"], second["counts"]["unchanged"]) == (0, 3)
    assert len(service.accepted) == 3


def test_what_no_input_uses_costs_nothing(project: Path, at: Cli, service: Service) -> None:
    """A renamed key, a moved row, a changed price."""
    at("run", "p.yaml")
    write_rows(project, [row(3, price="99.00"), row(1, sku="renamed"), row(2)])
    second = at("run", "p.yaml", "--json").summary
    assert (second["counts"]["submitted"], second["counts"]["completed"]) == (0, 3)
    assert len(service.accepted) == 3
    lines = manifest(project)
    assert [(line["sku"], line["lamina_reused_from"]) for line in lines] == [
        ("00003", ""), ("renamed", "00001"), ("00002", ""),
    ]  # fmt: skip


def test_a_changed_prompt_buys_exactly_the_rows_it_touches(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    write_rows(project, [row(1), row(2, title="Coat"), row(3)])
    plan = at("plan", "p.yaml", "--explain").out
    assert "00002: submit: changed: Prompt" in plan
    assert at("run", "p.yaml", "--json").summary["counts"]["submitted"] == 1
    assert [e["inputs"]["Prompt"] for e in service.accepted][3:] == ["Coat in soft light"]


def test_equal_rows_share_one_execution(project: Path, at: Cli, service: Service) -> None:
    write_rows(project, [row(1), row(1, sku="again"), row(2)])
    counts = at("run", "p.yaml", "--json").summary["counts"]
    assert (counts["submitted"], counts["completed"]) == (2, 3)
    assert [line["lamina_reused_from"] for line in manifest(project)] == ["", "00001", ""]
    assert len(service.accepted) == 2


def test_bad_rows_are_named_and_the_good_ones_run(project: Path, at: Cli, service: Service) -> None:
    write_rows(project, [row(1), row(2, gender="Femal"), row(3, front="")])
    ran = at("run", "p.yaml", "--json", code=3)
    assert ran.summary["counts"]["invalid"] == 2
    assert ran.summary["counts"]["new_problems"] == 2
    assert len(service.accepted) == 1
    findings = read_manifest(Path(ran.summary["files"]["findings"]))
    assert [(f["row"], f["key"], f["column"], f["code"]) for f in findings] == [
        ("3", "00002", "gender", "invalid_option"),
        ("4", "00003", "front", "blank_image"),
    ]
    assert "Female" in findings[0]["hint"]
    assert [line["lamina_status"] for line in manifest(project)] == ["completed", "invalid", "invalid"]
    again = at("run", "p.yaml", "--json", code=3).summary
    assert (again["counts"]["submitted"], again["counts"]["new_problems"]) == (0, 0)


def test_fail_on_invalid_rows_submits_nothing(project: Path, at: Cli, service: Service) -> None:
    write_rows(project, [row(1), row(2, gender="?")])
    ran = at("run", "p.yaml", "--set", "run.on_invalid_rows=fail", "--json", code=4)
    assert ran.summary["stopped_by"] == "invalid_rows"
    assert [line["lamina_status"] for line in manifest(project)] == ["planned", "invalid"]
    assert service.accepted == []


def test_validate_spends_nothing_and_exits_three(project: Path, at: Cli, service: Service) -> None:
    write_rows(project, [row(1), row(2, gender="femalé")])
    ran = at("validate", "p.yaml", "--findings", "f.csv", code=3)
    assert "row 3 (00002)" in ran.out
    assert [f["code"] for f in read_manifest(project / "f.csv")] == ["invalid_option"]
    assert service.accepted == []
    assert not (project / ".lamina-batch").exists()


def test_plan_touches_nothing(project: Path, at: Cli, service: Service) -> None:
    ran = at("plan", "p.yaml")
    assert "executions to start: 3" in ran.out
    assert service.accepted == []
    assert not (project / ".lamina-batch").exists()


def test_a_lenient_label_is_sent_as_the_service_spells_it(project: Path, at: Cli, service: Service) -> None:
    write_rows(project, [row(1, gender=" female ")])
    at("run", "p.yaml")
    assert [e["inputs"]["Model Gender"] for e in service.accepted] == ["Female"]


def test_more_than_max_executions_starts_nothing_unless_yes(project: Path, at: Cli, service: Service) -> None:
    ran = at("run", "p.yaml", "--set", "run.max_executions=2", "--json", code=5)
    assert ran.summary["stopped_by"] == "max_executions"
    assert service.accepted == []
    at("run", "p.yaml", "--set", "run.max_executions=2", "--yes")
    assert len(service.accepted) == 3


def test_limit_and_only_leave_the_rest_planned(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml", "--only", "00002", "00003", "--limit", "1")
    assert [line["lamina_status"] for line in manifest(project)] == ["planned", "completed", "planned"]
    assert len(service.accepted) == 1


def test_rerun_buys_once_more_and_shows_the_new_outputs(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    before = manifest(project)[0]["lamina_execution_id"]
    at("run", "p.yaml", "--rerun", "00001")
    lines = manifest(project)
    assert len(service.accepted) == 4
    assert lines[0]["lamina_execution_id"] not in {before, lines[1]["lamina_execution_id"]}


def test_rerun_buys_nothing_else(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml", "--limit", "1")
    at("run", "p.yaml", "--rerun", "00001")
    assert [e["inputs"]["Prompt"] for e in service.accepted] == ["Dress 1 in soft light"] * 2


def test_nothing_is_written_over_the_rows_or_among_them(project: Path, at: Cli, service: Service) -> None:
    before = (project / "rows.csv").read_bytes()
    for words in (
        ("validate", "p.yaml", "--findings", "rows.csv"),
        ("results", "p.yaml", "-o", "rows.csv"),
        ("run", "p.yaml", "--set", "rows.from=*.csv", "--set", "results.manifest=m.csv"),
        ("validate", "p.yaml", "--findings", "p.yaml"),
    ):
        assert "give it another name" in at(*words, code=2).err
    assert (project / "rows.csv").read_bytes() == before
    assert service.accepted == []


def test_a_manifest_without_a_place_is_told_before_anything_is_bought(project: Path, at: Cli, service: Service) -> None:
    (project / "dir.csv").mkdir()
    assert "it is a folder" in at("run", "p.yaml", "--set", "results.manifest=dir.csv", code=1).err
    assert service.accepted == []


def test_a_wrong_address_does_not_tie_the_ledger_to_itself(project: Path, at: Cli) -> None:
    at("run", "p.yaml", env={"LAMINA_API_KEY": "lma_revoked"}, code=1)
    assert "None" not in (told := at("status", "p.yaml").out)
    assert "no run has come as far as its rows yet" in told
    at("run", "p.yaml", "--base-url", at.env["LAMINA_BASE_URL"].replace("127.0.0.1", "localhost"), "--limit", "0")
    assert at("run", "p.yaml", "--json").summary["counts"]["completed"] == 3
    assert "p: ledger of p.yaml at http" in at("status", "p.yaml").out


def test_a_wrong_app_id_is_told_with_its_line_and_a_name_with_its_id(project: Path, cli: Cli) -> None:
    wrong = "00000000-0000-4000-8000-000000000000"
    told = cli("run", "p.yaml", "--sandbox", "--set", f"app={wrong}", code=1).err
    assert "--set: app: the service knows no app" in told
    assert "`lamina-batch apps list --sandbox` finds ids" in told
    (project / "q.yaml").write_text(re.sub("^app: .*", f"app: {wrong}", PIPELINE, flags=re.MULTILINE), encoding="utf-8")
    assert "q.yaml:2:6: app: the service knows no app" in cli("validate", "q.yaml", "--sandbox", code=1).err
    named = cli("apps", "show", "premium catalog 1.0", "--sandbox", code=2).err
    assert "no id of an app, but a name\n  the id of that app is bbb17293-5fe7" in named


def test_commands_that_are_named_are_those_of_the_sandbox(project: Path, cli: Cli) -> None:
    told = cli("run", "p.yaml", "--sandbox", "--no-wait").err
    assert "`lamina-batch collect p.yaml --sandbox`" in told
    assert "3 executions started" in told
    assert "`lamina-batch run p.yaml` makes one" in cli("held", "p.yaml", code=2).err


def test_rows_that_are_left_out_are_counted(project: Path, at: Cli) -> None:
    write_rows(project, [row(1), row(2, front=""), row(3, price="0.00")])
    rules = ("--set", "inputs.Front.blank=skip_row", "--set", "rows.where=price <> '0.00'")
    ran = at("run", "p.yaml", *rules)
    assert "of 3 rows, 1 are used: left out 1 by `where`, 1 by `blank: skip_row`: 00002" in ran.err
    assert "do not count" in at("run", "p.yaml", *rules, "--only", "00002", code=2).err


def test_an_unknown_key_is_refused_with_the_nearest(project: Path, at: Cli, service: Service) -> None:
    ran = at("run", "p.yaml", "--rerun", "0001", code=2)
    assert "did you mean '00001'" in ran.err
    assert service.accepted == []


def test_a_matrix_runs_each_row_once_for_every_combination(project: Path, at: Cli, service: Service) -> None:
    (project / "p.yaml").write_text(PIPELINE + "matrix: {Location: [Studio, Park], Aspect Ratio: [1:1]}\n")
    counts = at("run", "p.yaml", "--json").summary["counts"]
    assert (counts["rows"], counts["jobs"], counts["completed"]) == (3, 6, 6)
    assert [line["lamina_variant"] for line in manifest(project)][:2] == [
        "Aspect Ratio=1:1; Location=Studio",
        "Aspect Ratio=1:1; Location=Park",
    ]
    assert Counter(e["inputs"]["Location"] for e in service.accepted) == {"Studio": 3, "Park": 3}


def test_no_wait_submits_and_collect_fetches(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    service = serve("--limit", "100000", "--speed", "20")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    left = at("run", "p.yaml", "--no-wait", "--json").summary
    assert left["counts"]["running"] == 3
    got = at("collect", "p.yaml", "--json").summary
    assert (got["counts"]["completed"], got["requests"]["submit"]) == (3, 0)
    assert len(service.accepted) == 3


def test_results_writes_any_form_again_without_the_network(project: Path, at: Cli) -> None:
    at("run", "p.yaml")
    offline = Cli(folder=at.folder, env={n: v for n, v in at.env.items() if not n.startswith("LAMINA_")})
    offline("results", "p.yaml", "-o", "again.parquet", "-o", "again.ndjson", "--layout", "long")
    frame = pl.read_parquet(project / "again.parquet")
    assert frame["lamina_status"].to_list() == ["completed"] * frame.height
    assert frame.height > 3, "a line per output"
    assert pl.read_ndjson(project / "again.ndjson").height == frame.height


def test_a_quiet_run_says_in_one_line_what_is_wrong_and_nothing_else(project: Path, at: Cli) -> None:
    assert at("run", "p.yaml", "--quiet").err == ""
    write_rows(project, [row(1), row(2, front="no address"), row(3)])
    said = at("run", "p.yaml", "--quiet", code=3).err.splitlines()
    assert said == ["p: 3 jobs: 2 completed, 1 invalid (exit code 3)"]
    write_rows(project, [row(n) for n in range(1, 9)])
    [line] = at("run", "p.yaml", "--quiet", "--set", "run.max_executions=1", code=5).err.splitlines()
    assert "use --yes" in line


def test_after_a_failed_canary_plan_and_a_quiet_night_say_what_to_do(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    service = serve("--speed", "100", "--fault", "failed")
    at = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": service.url})
    first = at("run", "p.yaml", "--set", "run.canary=1", "--json", code=5).summary["run_id"]
    planned = at("plan", "p.yaml").out
    assert f"a run would start nothing: run {first} was stopped" in planned
    assert "would start nothing" not in at("plan", "p.yaml", "--retry-failed").out
    [line] = at("run", "p.yaml", "--quiet", code=5).err.splitlines()
    assert "--retry-failed" in line
    assert len(service.accepted) == 1


@pytest.mark.parametrize("how", ["header", "where"])
def test_a_catalog_without_rows_takes_no_results_away(project: Path, at: Cli, how: str) -> None:
    """An export that went wrong, or a night without changes: nothing is wrong with the run itself."""
    results = ("--set", "results={manifest: [out/p.csv, out/p.parquet], report: out/p.html}")
    at("run", "p.yaml", *results)
    files = [project / "out" / name for name in ("p.csv", "p.parquet", "p.html")]
    before = [file.read_bytes() for file in files]
    if how == "header":
        write_rows(project, [])
    where = ("--set", "rows.where=title = 'none'") if how == "where" else ()
    ran = at("run", "p.yaml", *results, *where, "--json")
    assert [file.read_bytes() for file in files] == before
    assert "no rows, although the ledger knows jobs (3 completed)" in ran.err
    assert str(files[0]) in ran.err
    assert (ran.summary["counts"]["jobs"], ran.summary["files"]["manifest"]) == (0, [str(f) for f in files[:2]])
    # What is not there yet takes nothing away.
    at("run", "p.yaml", "--set", "results.manifest=out/new.csv", *where)
    assert read_manifest(project / "out" / "new.csv") == []


def test_what_was_bought_for_rows_that_are_gone_is_shown_when_asked_for(project: Path, at: Cli) -> None:
    write_rows(project, [row(1), row(2), row(3), row(4)])
    pipeline = project / "p.yaml"
    pipeline.write_text(pipeline.read_text().replace("  key: sku\n", "  key: sku\n  where: title != 'Dress 2'\n"))
    at("run", "p.yaml", "--set", "rows.where=true", "--limit", "3")
    # Gone, left out, changed since, and never bought.
    write_rows(project, [row(1, title="Skirt"), row(2)])
    at("results", "p.yaml")
    assert [line["lamina_key"] for line in read_manifest(project / "out" / "p.csv")] == ["00001"]
    at("results", "p.yaml", "--include-removed", "-o", "all.csv", "-o", "all.ndjson", "-o", "all.xlsx")
    lines = read_manifest(project / "all.csv")
    told = [(line["lamina_key"], line["sku"], line["lamina_row"], line["lamina_status"]) for line in lines]
    assert told == [
        ("00001", "00001", "2", "planned"),
        ("00002", "", "", "completed"),
        ("00003", "", "", "completed"),
    ]
    assert all(line["lamina_Front View"].startswith("http") for line in lines[1:])
    schema = json.loads((TOP / "schemas" / "manifest.schema.json").read_text())
    for line in (project / "all.ndjson").read_text().splitlines():
        jsonschema.validate(json.loads(line), schema)


def test_a_manifest_fed_back_in_changes_nothing(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    at("run", "p.yaml", "--set", "rows.from=out/p.csv", "--set", "results.manifest=out/q.csv")
    assert len(service.accepted) == 3


def test_another_service_under_the_same_state_is_refused(project: Path, at: Cli) -> None:
    at("run", "p.yaml")
    ran = at("run", "p.yaml", "--base-url", "http://127.0.0.1:9", code=2)
    assert "--adopt-state" in ran.err
    assert "is `--base-url" in ran.err


def test_a_wrong_key_is_said_to_be_one_and_never_shown(project: Path, at: Cli) -> None:
    ran = at("run", "p.yaml", env={"LAMINA_API_KEY": "lma_revoked_secret"}, code=1)
    assert "Invalid API key" in ran.err
    assert "lma_revoked_secret" not in ran.err + ran.out


def test_without_a_key_it_says_where_one_comes_from(project: Path, at: Cli) -> None:
    ran = at("run", "p.yaml", env={"LAMINA_API_KEY": ""}, code=1)
    assert "LAMINA_API_KEY" in ran.err
    assert "--sandbox" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "collect",
        "validate",
        "plan",
        "status",
        "results",
        "sandbox",
        "held",
        "state import",
        "apps list",
        "apps show",
        "apps workflow",
        "apps pin",
        "apps diff",
        "apps schema",
        "init",
    ],
)
def test_help_shows_an_example(cli: Cli, command: str) -> None:
    assert "Example" in cli(*command.split(), "--help").out


@pytest.mark.long
@pytest.mark.parametrize("pipeline", sorted((TOP / "pipelines").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_pipeline_runs_in_the_embedded_sandbox(pipeline: Path, tmp_path: Path, cli: Cli) -> None:
    """From a copy, so that nobody's own results are in the way; one of them has bad rows and says so."""
    import shutil  # noqa: PLC0415

    for name in ("pipelines", "sample_data", "schemas"):
        shutil.copytree(TOP / name, tmp_path / name)
    ran = cli("run", f"pipelines/{pipeline.name}", "--sandbox", "--json", code=None, env={"LAMINA_API_KEY": ""})
    summary = ran.summary
    counts = summary["counts"]
    assert ran.code == (3 if counts["invalid"] else 0), ran.err
    assert counts["completed"] == counts["jobs"] - counts["invalid"]
    assert summary["requests"]["rate_limited"] == 0
    assert all(".sandbox." in file for file in summary["files"]["manifest"])
    second = cli("run", f"pipelines/{pipeline.name}", "--sandbox", "--json", code=ran.code).summary
    assert second["counts"]["submitted"] == 0


def test_damage_in_a_column_that_no_rule_reads_is_told_before_anything_is_bought(
    project: Path, at: Cli, service: Service
) -> None:
    """The manifest would have to hold that column."""
    (project / "p.yaml").write_text(PIPELINE.replace("rows.csv", "rows.parquet"), encoding="utf-8")
    file = project / "rows.parquet"
    rows = pl.DataFrame([row(n) | {"note": f"kept {n}"} for n in range(1, 4)])
    rows.write_parquet(file, compression="uncompressed", statistics=False)
    file.write_bytes(file.read_bytes().replace(b"kept", b"\xff\xff\xff\xff"))
    at("plan", "p.yaml")
    ran = at("run", "p.yaml", code=2)
    assert "a Parquet file is damaged" in ran.err
    assert service.accepted == []
    assert not (project / "out" / "p.csv").exists()
