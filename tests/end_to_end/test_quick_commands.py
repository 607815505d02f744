"""What is asked for often is answered without loading what takes long."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from process import Cli

#: Each takes longer to load than `lamina-batch --help` may take.
SLOW = {"aiohttp", "asyncio", "cryptography", "fastexcel", "jsonschema", "polars", "tqdm", "xlsxwriter"}


def loaded(cli: Cli, *args: str) -> set[str]:
    """The top-level packages that a command has loaded when it ends."""
    python, *rest = cli.command(*args)
    done = subprocess.run(
        [python, "-X", "importtime", *rest], cwd=cli.folder, env=cli.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    "args", [["--help"], ["run", "--help"], ["apps", "--help"], ["--version"], ["status", "p.yaml"]], ids=" ".join
)
def test_quick_commands_load_nothing_slow(cli: Cli, project: Path, args: list[str]) -> None:
    modules = loaded(cli, *args)
    assert "click" in modules
    assert modules & SLOW == set()


def test_status_with_a_ledger_loads_nothing_slow(cli: Cli, project: Path) -> None:
    cli("run", "p.yaml", "--sandbox", "--limit", "1")
    modules = loaded(cli, "status", "p.yaml", "--sandbox")
    assert "sqlite3" in modules
    assert modules & SLOW == set()


def test_status_answers_while_the_rest_of_the_file_is_wrong(cli: Cli, project: Path) -> None:
    """Somebody edits the pipeline while a run goes on: what became of the rows is told all the same."""
    cli("run", "p.yaml", "--sandbox", "--limit", "1")
    file = project / "p.yaml"
    file.write_text(file.read_text().replace("inputs:", 'inputs: {Front: {colum: "${NOT_SET}"}}\ninputz:'))
    assert "1  completed" in cli("status", "p.yaml", "--sandbox").out
    assert "colum" in cli("run", "p.yaml", "--sandbox", code=2).err


def test_status_does_not_guess_where_the_ledger_is(cli: Cli, project: Path) -> None:
    file = project / "p.yaml"
    file.write_text(file.read_text() + "state: [a, b]\nname: ${NOT_SET}\n")
    told = cli("status", "p.yaml", code=2).err
    assert "state: must be text" in told
    assert "NOT_SET is not set" in told
