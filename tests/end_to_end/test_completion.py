"""Shell completion: click's own, as docs/completion.md has it, in the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from process import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The words before the cursor, and what they may become.
CASES = [
    pytest.param("lamina-batch val", {"validate"}, id="command"),
    pytest.param("lamina-batch apps sh", {"show"}, id="command of a group"),
    pytest.param("lamina-batch run --if-", {"--if-locked"}, id="option"),
    pytest.param("lamina-batch run p.yaml --if-locked s", {"skip"}, id="word of an option"),
]


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    """A shell in which `lamina-batch` is a command."""
    here = Path(sys.executable).parent
    if not (here / "lamina-batch").exists():
        pytest.fail("lamina-batch is not installed beside python")
    return environment(PATH=f"{here}:/usr/local/bin:/usr/bin:/bin", HOME=str(tmp_path))


def shell(env: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_bash_completes(env: Mapping[str, str], typed: str, offered: set[str]) -> None:
    """The script is sourced, and the function that it registers is called as bash does at a press of the tabulator."""
    script = """
    source <(_LAMINA_BATCH_COMPLETE=bash_source lamina-batch)
    read -ra COMP_WORDS <<<"$1"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    registered=$(complete -p lamina-batch)
    [[ $registered =~ -F\\ ([^\\ ]+) ]]
    "${BASH_REMATCH[1]}" lamina-batch "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    assert set(shell(env, "bash", "-ec", script, "bash", typed).split()) == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_takes_the_script(env: Mapping[str, str]) -> None:
    script = "autoload -Uz compinit && compinit -u; source <(_LAMINA_BATCH_COMPLETE=zsh_source lamina-batch)"
    assert "_lamina_batch" in shell(env, "zsh", "-fc", f"{script}; print -r -- $_comps[lamina-batch]")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_fish_completes(env: Mapping[str, str], typed: str, offered: set[str]) -> None:
    script = "env _LAMINA_BATCH_COMPLETE=fish_source lamina-batch | source; complete -C $argv[1]"
    told = shell(env, "fish", "--no-config", "-c", script, typed)
    assert {line.split("\t")[0] for line in told.splitlines()} == offered


@pytest.mark.parametrize("kind", ["zsh", "fish"])
@pytest.mark.parametrize(("typed", "offered"), CASES)
def test_what_the_scripts_of_the_others_ask(env: Mapping[str, str], kind: str, typed: str, offered: set[str]) -> None:
    """Also where these shells are not here: the question that their script puts to lamina-batch is answered."""
    *before, last = typed.split()
    asked = {"COMP_WORDS": typed if kind == "zsh" else " ".join(before)}
    asked["COMP_CWORD"] = str(len(before)) if kind == "zsh" else last
    told = shell({**env, **asked, "_LAMINA_BATCH_COMPLETE": f"{kind}_complete"}, "lamina-batch")
    answers = (
        told.splitlines()[1::3]
        if kind == "zsh"
        else [line.partition(",")[2].split("\t")[0] for line in told.splitlines()]
    )
    assert set(answers) == offered
