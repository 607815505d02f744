"""The first five minutes: from nothing to a finished run of one's own products."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import openpyxl
import pytest
from process import APP, PATIENCE, environment, read_manifest, stopping

if TYPE_CHECKING:
    from process import Cli

SCRIPT = Path(__file__).with_name("first_run.sh")
INSTALL = "pip install"


@pytest.mark.timeout(400)
def test_from_pip_install_to_the_first_finished_run_in_under_five_commands(tmp_path: Path) -> None:
    """Of the wheel, if there is one (tests/wheel.sh), into an environment of its own; else what is installed here."""
    script = SCRIPT.read_text(encoding="utf-8")
    commands = script.partition("\nCSV\n")[2].splitlines()
    assert [command.split()[0] for command in commands] == ["pip", "lamina-batch", "lamina-batch"]
    wheel = os.environ.get("LAMINA_BATCH_WHEEL")
    tools = Path(sys.executable).parent
    if wheel is None:
        script = "\n".join(line for line in script.splitlines() if not line.startswith(INSTALL))
    else:
        venv.create(tmp_path / "own", with_pip=True)
        tools = tmp_path / "own" / "bin"
    env = environment(PATH=f"{tools}:{os.environ['PATH']}", **({} if wheel is None else {"LAMINA_BATCH": wheel}))
    folder = tmp_path / "shop"
    folder.mkdir()
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = read_manifest(folder / "out" / "products.sandbox.csv")
    assert [(line["sku"], line["lamina_status"]) for line in manifest] == [
        ("00123", "completed"),
        ("00124", "completed"),
    ]
    assert all(Path(folder, "out", line["lamina_Front View_file"]).exists() for line in manifest)


def test_a_sheet_to_fill_goes_from_init_to_results(tmp_path: Path, cli: Cli) -> None:
    made = cli("init", "--search", "mood board", "--sandbox", "-o", "shots.yaml")
    assert "shots.xlsx" in made.out
    book = openpyxl.load_workbook(tmp_path / "shots.xlsx")
    table = book["Products"]
    headers = {str(cell.value).removesuffix(" *"): at for at, cell in enumerate(table[1], start=1)}
    filled = {
        "sku": "00123",
        "Product": "Hand cream",
        "Your Product": "https://images.example.com/cream.png",
        "Mood Board Images": "https://images.example.com/a.jpg|https://images.example.com/b.jpg",
    }
    for header, value in filled.items():
        table.cell(2, headers[header], value)
    book.save(tmp_path / "shots.xlsx")
    cli("validate", "shots.yaml", "--sandbox")
    assert cli("run", "shots.yaml", "--sandbox", "--json").summary["counts"]["completed"] == 1


def test_init_chooses_nothing_by_itself_and_overwrites_nothing(tmp_path: Path, cli: Cli) -> None:
    several = cli("init", "--search", "catalog", "--sandbox", code=2)
    assert f"{APP}  Premium Catalog 1.0" in several.out.splitlines()
    assert "choose one: --app ID" in several.err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "rows.csv").write_text("id,front,note\n1,https://images.example.com/1.jpg,x\n")
    assert "inputs.Back" in cli("init", "--app", APP, "--rows", "rows.csv", "--sandbox").err
    # What is open cannot be run, not even in the sandbox.
    told = cli("run", "rows.yaml", "--sandbox", code=2).err
    assert "still to be filled in: inputs.Back.column (line " in told
    before = (tmp_path / "rows.yaml").read_bytes()
    assert "such a file already" in cli("init", "--app", APP, "--rows", "rows.csv", "--sandbox", code=2).err
    assert (tmp_path / "rows.yaml").read_bytes() == before


def test_at_a_terminal_it_asks_which_app_is_meant(tmp_path: Path, cli: Cli) -> None:
    parent, child = pty.openpty()
    command = cli.command("init", "--search", "catalog", "--sandbox", "-o", "chosen.yaml")
    process = subprocess.Popen(
        command, cwd=tmp_path, env=dict(cli.env), stdin=child, stdout=child, stderr=child, text=True
    )
    os.close(child)
    with stopping(process):
        said = b""
        while b"Which" not in said:
            said += os.read(parent, 1000)
        os.write(parent, b"2\n")
        assert process.wait(PATIENCE) == 0
    os.close(parent)
    assert "de5cca6b-73aa-4e27-a714-3339024db15d" in (tmp_path / "chosen.yaml").read_text(encoding="utf-8")
