"""The outputs' files: saved while the run goes on, named in the manifest, and tried again where they failed."""

from __future__ import annotations

import csv
import hashlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from process import PIPELINE, Cli, Service, lasting_port, row, stopping, wait_for, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = ("--limit", "100000", "--window", "3", "--speed", "100")
SAVED = PIPELINE + 'results: {layout: long, download: "out/images/{key}/{label}.{ext}"}\n'


def told_of(cli: Cli, service: Service) -> Cli:
    return Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})


def lines_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "p.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def saved(folder: Path) -> set[Path]:
    return {path for path in (folder / "out" / "images").rglob("*") if path.is_file()}


def with_downloads(project: Path) -> None:
    (project / "p.yaml").write_text(SAVED, encoding="utf-8")


def test_each_output_has_a_file_and_its_hash(project: Path, at: Cli) -> None:
    with_downloads(project)
    assert at("run", "p.yaml", "--json").summary["downloads"] == {"saved": 12, "failed": 0}
    lines = lines_of(project)
    assert {Path(line["lamina_file"]) for line in lines} == saved(project)
    for line in lines:
        assert hashlib.sha256(Path(line["lamina_file"]).read_bytes()).hexdigest() == line["lamina_sha256"]
    assert (project / "out" / "images" / "00001" / "Front View.png").exists()


def test_a_file_that_failed_is_named_and_healed_by_results(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    with_downloads(project)
    broken = serve(*QUICK, "--fault", "truncated:on=media,first=1", "--fault", "unauthorized:on=media,after=3,rate=0")
    run = told_of(cli, broken)("run", "p.yaml", "--json")
    assert run.summary["downloads"] == {"saved": 12, "failed": 0}, "one broken answer is asked for again"
    for path in saved(project):
        path.unlink()
    at = told_of(cli, broken)
    assert at("results", "p.yaml").code == 0
    assert len(saved(project)) == 12


def test_an_address_that_is_gone_does_not_fail_the_row(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    with_downloads(project)
    service = serve(*QUICK, "--fault", "redirect:on=media,to=http://127.0.0.1:9/gone.png")
    run = told_of(cli, service)("run", "p.yaml", "--json", code=3)
    assert run.summary["counts"]["completed"] == 3
    assert run.summary["downloads"] == {"saved": 0, "failed": 12}
    assert saved(project) == set()
    assert all(line["lamina_error"].startswith("not downloaded: ") for line in lines_of(project))
    assert {line["lamina_status"] for line in lines_of(project)} == {"completed"}


def test_the_next_run_saves_what_is_missing_and_buys_nothing(project: Path, at: Cli, service: Service) -> None:
    at("run", "p.yaml")
    with_downloads(project)
    assert at("run", "p.yaml", "--json").summary["downloads"] == {"saved": 12, "failed": 0}
    assert len(service.accepted) == 3
    assert at("run", "p.yaml", "--json").summary["downloads"] == {"saved": 0, "failed": 0}


def test_a_killed_run_leaves_no_half_file_and_the_next_one_goes_on(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    with_downloads(project)
    write_rows(project, [row(n) for n in range(1, 21)])
    port = ("--port", str(lasting_port()))
    # The run cannot come to its end before it is killed, however late that is.
    service = serve(*QUICK, *port, "--fault", "slow:on=media,after=8,seconds=3600")
    at = told_of(cli, service)
    with stopping(at.start("run", "p.yaml")) as process:
        wait_for(lambda: len(saved(project)) >= 3)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    service.end()
    serve(*QUICK, *port, data=service.data)
    at("run", "p.yaml")
    lines = lines_of(project)
    assert len(lines) == 80
    assert {Path(line["lamina_file"]) for line in lines} == saved(project)
    assert all(hashlib.sha256(Path(ln["lamina_file"]).read_bytes()).hexdigest() == ln["lamina_sha256"] for ln in lines)


def test_a_bad_pattern_is_told_before_anything_is_bought(project: Path, at: Cli, service: Service) -> None:
    for pattern, said in (("out/{sku}.{ext}", "{sku}"), ("out/{key.png", "brace")):
        (project / "p.yaml").write_text(PIPELINE + f'results: {{download: "{pattern}"}}\n', encoding="utf-8")
        for command in ("validate", "plan", "run"):
            assert said in at(command, "p.yaml", code=2).err
    matrix = 'matrix: {Location: [Studio, Park]}\nresults: {download: "out/{key}.{ext}"}\n'
    (project / "p.yaml").write_text(PIPELINE + matrix, encoding="utf-8")
    assert "{variant}" in at("validate", "p.yaml", code=2).err
    assert service.accepted == []


def test_keys_never_lead_out_of_the_folder(project: Path, at: Cli) -> None:
    with_downloads(project)
    write_rows(project, [row(1, sku="../../escaped"), row(2, sku="/etc/passwd"), row(3, sku="CON")])
    at("run", "p.yaml")
    folder = (project / "out" / "images").resolve()
    files = [Path(line["lamina_file"]) for line in lines_of(project)]
    assert len(files) == 12
    assert all(folder in file.resolve().parents for file in files)
    assert not list(project.parent.glob("escaped*"))
