"""The help of the commands: every example in it is one that the command line takes."""

from __future__ import annotations

import inspect
import json
import shlex
from typing import TYPE_CHECKING

import click
import pytest

from lamina_batch.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{path}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")


COMMANDS = dict(commands(main))
EXAMPLES = [
    pytest.param(line.strip(), id=f"{path}: {line.strip()}")
    for path, command in COMMANDS.items()
    for block in inspect.cleandoc(command.help or "").split("\b\n")[1:]
    for line in block.splitlines()[1:]
    if line.strip()
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files that examples name as given are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for name in ("catalog.yaml", "products.csv", "out/catalog.csv"):
        (tmp_path / name).touch()
    verdicts = {"format": "lamina-batch picks", "version": 1, "pipeline": "p", "app": "a", "service": "s", "picks": []}
    (tmp_path / "catalog-picks.json").write_text(json.dumps(verdicts))
    return tmp_path


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_taken(example: str, folder: Path) -> None:
    words = shlex.split(example.partition(" > ")[0].removesuffix("&"))
    while "=" in words[0]:
        del words[0]
    assert words.pop(0) == "lamina-batch"
    name = words.pop(0)
    while isinstance(COMMANDS[name], click.Group):
        name = f"{name} {words.pop(0)}"
    COMMANDS[name].make_context(name, words)


@pytest.mark.parametrize("word", ["--dry-run", "-n"])
def test_who_asks_run_for_a_dry_run_is_told_of_plan(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((word, "catalog.yaml"), ("catalog.yaml", word), (word,)):
        with pytest.raises(SystemExit) as ended:
            main(["run", *words])
        assert ended.value.code == 2
        assert "lamina-batch plan" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, found in COMMANDS.items() if not isinstance(found, click.Group)])
def test_every_command_has_an_example_and_every_option_a_word(name: str) -> None:
    command = COMMANDS[name]
    assert f"lamina-batch {name}" in (command.help or "")
    assert [p.name for p in command.params if isinstance(p, click.Option) and not p.help] == []
