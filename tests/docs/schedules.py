"""How the examples of docs/cron.md are executed: as the scheduler that each is for would, as far as that goes here."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docs.markdown import Block
    from docs.runners import Page

#: What cron, a service manager and a container engine give, and nothing else.
BARE = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "reader"}
LONGEST = 100


def _given(page: Page, **more: str) -> dict[str, str]:
    """A bare environment. The reader's service is told in it, because theirs is not where ours is."""
    return {**BARE, "HOME": page.env["HOME"], "LAMINA_BASE_URL": page.env["LAMINA_BASE_URL"], **more}


def _run(command: list[str], *, folder: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )


# -- cron --------------------------------------------------------------------------------------------------------------

_FIELD = r"(?:\*|[0-9]+(?:-[0-9]+)?)(?:/[0-9]+)?(?:,[0-9]+)*"
_LINE = re.compile(rf"((?:{_FIELD}\s+){{5}})(\S.*)")


def cron_line(block: Block, page: Page) -> subprocess.CompletedProcess[str]:
    """Execute the one command of a crontab as cron does: by sh, from HOME, in a bare environment."""
    env = _given(page)
    (command,) = [match[2] for line in block.text.splitlines() if (match := _LINE.fullmatch(line))]
    for line in block.text.splitlines():
        assert _LINE.fullmatch(line) or re.fullmatch(r"[A-Z]+=\S+", line), line
    assert not re.search(r"(?<!\\)%", command), "cron ends a command at %"
    return _run([env["SHELL"], "-c", command.replace("\\%", "%")], folder=Path(env["HOME"]), env=env)


def run_crontab(block: Block, page: Page) -> None:
    done = cron_line(block, page)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


# -- systemd -----------------------------------------------------------------------------------------------------------


def run_systemd(block: Block, page: Page) -> None:
    """Let systemd itself read the unit, where it is here, and execute what a service starts."""
    name = block.said["file"]
    folder = page.aside / "units"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(block.text, encoding="utf-8")
    if shutil.which("systemd-analyze"):
        _verify(folder / name, page)
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    if "Service" not in unit:
        units = {file.name for file in folder.iterdir()}
        assert Path(name).with_suffix(".service").name in units, "a timer starts the service of its name"
        return
    service = {key: value.replace("%h", page.env["HOME"]) for key, value in unit["Service"].items()}
    given = dict(line.split("=", 1) for line in Path(service["EnvironmentFile"]).read_text().splitlines() if line)
    done = _run(shlex.split(service["ExecStart"]), folder=Path(service["WorkingDirectory"]), env=_given(page, **given))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == done.stderr.count('{"ts": '), "the journal has a line for each event"


def _verify(unit: Path, page: Page) -> None:
    done = _run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        folder=unit.parent,
        env={**BARE, "HOME": page.env["HOME"], "XDG_RUNTIME_DIR": str(page.aside)},
    )
    # It looks at the units that this machine has, too.
    ours = [line for line in done.stderr.splitlines() if unit.stem in line]
    assert not ours, "\n".join(ours)


# -- containers --------------------------------------------------------------------------------------------------------

_INSTRUCTION = re.compile(r"(FROM|COPY|RUN|USER|WORKDIR|ENTRYPOINT|CMD) +(\S.*)")


def run_containerfile(block: Block, page: Page) -> None:
    """Start what the container starts, in the folder that is its volume, as a user that may be nobody."""
    steps: dict[str, str] = {}
    for line in block.text.splitlines():
        match = _INSTRUCTION.fullmatch(line)
        assert match, f"not an instruction: {line}"
        steps[match[1]] = match[2]
    assert next(iter(steps)) == "FROM"
    assert _run(["sh", "-nc", steps["RUN"]], folder=page.folder, env=BARE).returncode == 0
    command = [*yaml.safe_load(steps["ENTRYPOINT"]), *yaml.safe_load(steps["CMD"])]
    env = _given(page, LAMINA_API_KEY=page.env["LAMINA_API_KEY"], PATH=str(Path(sys.executable).parent))
    env.pop("HOME")
    done = _run(command, folder=page.folder, env=env)
    assert done.returncode == 0, done.stderr


# -- GitHub Actions ----------------------------------------------------------------------------------------------------

_ACTIONS = {"actions/checkout@v4", "actions/setup-python@v5", "actions/upload-artifact@v4"}
#: what a step's `if` says -> whether it is started after a failure, and whether the ledger must have been fetched
_CONDITIONS = {
    None: (False, False),
    "${{ !cancelled() }}": (True, False),
    "${{ always() && steps.ledger.outcome == 'success' }}": (True, True),
    "${{ !cancelled() && steps.ledger.outcome == 'success' }}": (True, True),
}


@dataclass(slots=True, kw_only=True)
class Job:
    """One run of a workflow's job on a fresh runner."""

    #: name of a step -> its exit code, of those that were started
    codes: dict[str, int] = field(default_factory=dict)
    said: str = ""


def run_job(block: Block, page: Page, *, night: int, dies_after: str | None = None) -> Job:
    """The steps of the workflow's one job, in order. `dies_after` names the step with which the runner goes away."""
    (described,) = yaml.safe_load(block.text)["jobs"].values()
    workspace = page.aside / f"runner-{night}"
    workspace.mkdir()
    env = {"PATH": page.env["PATH"], "HOME": str(workspace.parent), "LAMINA_BASE_URL": page.env["LAMINA_BASE_URL"]}
    for name, value in described["env"].items():
        secret = re.fullmatch(r"\$\{\{ secrets\.(\w+) \}\}", value)
        env[name] = page.env[secret[1]] if secret else value
    job = Job()
    failed = has_ledger = False
    for step in described["steps"]:
        after_failure, needs_ledger = _CONDITIONS[step.get("if")]
        if "uses" in step:
            assert step["uses"] in _ACTIONS, step["uses"]
            if step["uses"].startswith("actions/checkout"):
                done = _check_out(step.get("with", {}), workspace, page)
                job.said += done.stderr
                failed = failed or done.returncode != 0
                has_ledger = has_ledger or (step.get("id") == "ledger" and done.returncode == 0)
            continue
        if step["name"] == "Install":  # what is tested is installed
            continue
        if (failed and not after_failure) or (needs_ledger and not has_ledger):
            continue
        # As a hosted runner starts it: a step ends with the first command that fails.
        done = _run(["bash", "-ec", step["run"]], folder=workspace / step.get("working-directory", ""), env=env)
        job.codes[step["name"]] = done.returncode
        job.said += done.stdout + done.stderr
        failed = failed or done.returncode != 0
        if step["name"] == dies_after:
            break
    return job


def _check_out(given: Mapping[str, Any], workspace: Path, page: Page) -> subprocess.CompletedProcess[str]:
    where = workspace / given.get("path", ".")
    origin = f"file://{page.aside / 'origin.git'}"
    branch = given.get("ref", "main")
    return _run(
        ["git", "clone", "--quiet", "--depth", "1", "--branch", branch, origin, str(where)],
        folder=workspace,
        env={"PATH": page.env["PATH"]},
    )


def run_workflow(block: Block, page: Page) -> None:
    job = run_job(block, page, night=1)
    assert list(job.codes.values()) == [0] * 4, f"{job.codes}\n{job.said}"


def home_of(page: Page) -> None:
    """The reader's folder is `catalog` in their home, and a repository with an origin."""
    home = page.aside / "home"
    home.mkdir()
    (home / "catalog").symlink_to(page.folder)
    page.env["HOME"] = str(home)
    page.shell(f"""
        export GIT_AUTHOR_NAME=reader GIT_AUTHOR_EMAIL=r@example.com
        git init --quiet --initial-branch main .
        git init --quiet --bare --initial-branch main {shlex.quote(str(page.aside / "origin.git"))}
        git config user.name reader
        git config user.email r@example.com
        git remote add origin file://{shlex.quote(str(page.aside / "origin.git"))}
        git add catalog.yaml products.csv
        git commit --quiet --message catalog
        git push --quiet origin main
    """)
