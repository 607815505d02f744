"""How the code of the documentation is executed: one runner for each language.

A runner gets a block and the page that it stands on, and raises where the block does not do what a reader would expect.
Another language is another entry of RUNNERS.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from jsonschema import Draft202012Validator
from process import APP, TOP, wait_for

from docs.schedules import run_containerfile, run_crontab, run_systemd, run_workflow
from lamina_batch.pipeline.load import load_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from docs.markdown import Block

#: seconds that one block may take
LONGEST = 110
#: options of a sandbox whose limit never matters
QUICK = ("--limit", "100000", "--window", "3", "--speed", "100")


@dataclass(slots=True, kw_only=True)
class Page:
    """Where the blocks of one page run, one after the other."""

    #: the reader's folder
    folder: Path
    #: for what belongs to the test: nothing of it is in the reader's folder
    aside: Path
    #: as the blocks so far have left it
    env: dict[str, str]
    #: each the head of a group that may outlive its block
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def close(self) -> None:
        for process in self.started:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def start(self, command: list[str], name: str) -> tuple[subprocess.Popen[bytes], Path]:
        """A process in the reader's folder, and the file with what it prints."""
        printed = self.aside / f"{name}.out"
        with printed.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process, printed

    def finish(self, command: list[str], name: str, *, exits: int = 0) -> None:
        """Run it to its end. Raises AssertionError, with what it printed, where it ends in another way."""
        process, printed = self.start(command, name)
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {LONGEST} s:\n{_tail(printed)}") from None
        assert code == exits, f"ended with {code}:\n{_tail(printed)}"

    def go_on(self, command: list[str], name: str) -> str:
        """Start what ends with the page. Answers the first that it says."""
        process, printed = self.start(command, name)
        wait_for(lambda: printed.stat().st_size > 0 or process.poll() is not None)
        assert process.poll() is None, f"ended with {process.returncode}, and should go on:\n{_tail(printed)}"
        return _tail(printed)

    # for what a reader has done before

    def shell(self, text: str, *, exits: int = 0) -> None:
        self.finish(["bash", "-ec", text], f"before-{len(self.started)}", exits=exits)

    def serve(self, *options: str) -> None:
        """Give the page a sandbox of its own as the service."""
        command = [sys.executable, "-m", "lamina_batch", "sandbox", "--port", "0", *QUICK, *options]
        said = self.go_on(command, f"before-{len(self.started)}")
        self.env["LAMINA_BASE_URL"] = "http://" + said.partition("http://")[2].split()[0].rstrip("/")


def _tail(printed: Path) -> str:
    return printed.read_text(encoding="utf-8", errors="replace")[-3000:]


# -- shell ---------------------------------------------------------------------------------------------------

#: Ends at the first command that fails, as a reader would; or where `exits` names a code, at one that fails otherwise.
_SHELL = """\
set -uo pipefail
test ! -e {state} || {{ source {state}; cd "$PWD"; }}
trap 'export -p >{state}' EXIT
{errors}
{text}
{expected}
"""


def run_shell(block: Block, page: Page) -> None:
    """As it stands, by bash, in the reader's folder. Variables and the folder are kept for the next block."""
    code = block.said.get("exits")
    script = page.aside / f"{block.line}.sh"
    state = shlex.quote(str(page.aside / "state"))
    errors, expected = "set -e", ""
    if code is not None:
        errors = f"trap 'code=$?; test $code = {int(code)} || exit $code; ended=yes' ERR"
        expected = f'test "${{ended:-}}" || {{ echo "no command exited with {int(code)}"; exit 1; }}'
    script.write_text(_SHELL.format(state=state, errors=errors, text=block.text, expected=expected), encoding="utf-8")
    command = ["bash", str(script)]
    if "background" not in block.said:
        page.finish(command, str(block.line))
    else:
        page.go_on(command, str(block.line))


# -- pipelines -----------------------------------------------------------------------------------------------

#: What makes a pipeline of a part of one.
_LEAST = {
    ("version",): "1",
    ("app",): APP,
    ("rows", "from"): "products.csv",
    ("rows", "key"): "sku",
    ("inputs",): "{Front: {column: front_image_url}}",
}


def run_yaml(block: Block, page: Page) -> None:
    """A pipeline file, or a part of one that loads once what is required has been added."""
    given: Any = yaml.load(block.text, Loader=yaml.BaseLoader)
    assert isinstance(given, dict), "is neither a pipeline file nor keys of one"
    known = json.loads((TOP / "schemas" / "pipeline.schema.json").read_text(encoding="utf-8"))["properties"]
    strange = given.keys() - known.keys()
    assert not strange, f"{', '.join(sorted(strange))}: no key of a pipeline file; is this `runs as` something else?"
    file = page.folder / "pipelines" / f"block-{block.line}.yaml"
    file.write_text(block.text, encoding="utf-8")
    added = [".".join(path) + "=" + value for path, value in _LEAST.items() if not _has(given, path)]
    load_pipeline(file, overrides=added, environ=page.env, today=dt.date(2026, 1, 31))


def _has(given: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    inner: Any = given
    for step in path:
        if not isinstance(inner, dict) or step not in inner:
            return False
        inner = inner[step]
    return True


# -- data ----------------------------------------------------------------------------------------------------


def run_json(block: Block, page: Page) -> None:
    fits_schema(block, json.loads(block.text))


def run_ndjson(block: Block, page: Page) -> None:
    for line in block.text.splitlines():
        fits_schema(block, json.loads(line))


def fits_schema(block: Block, value: object) -> None:
    """Raise ValidationError where `value` is not what the schema that the block names says."""
    name = block.said.get("schema")
    if name is not None:
        schema = json.loads((TOP / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
        Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


def run_csv(block: Block, page: Page) -> None:
    """Every line has as many cells as the header."""
    lengths = {len(line) for line in csv.reader(io.StringIO(block.text), strict=True)}
    assert len(lengths) == 1, f"lines of {sorted(lengths)} cells"


# -- python --------------------------------------------------------------------------------------------------


def run_python(block: Block, page: Page) -> None:
    """As a program of its own, in the reader's folder, warnings being errors."""
    script = page.aside / f"{block.line}.py"
    script.write_text(block.text, encoding="utf-8")
    page.finish([sys.executable, "-W", "error", str(script)], str(block.line))


RUNNERS: dict[str, Callable[[Block, Page], None]] = {
    "crontab": run_crontab,
    "csv": run_csv,
    "dockerfile": run_containerfile,
    "json": run_json,
    "ndjson": run_ndjson,
    "python": run_python,
    "sh": run_shell,
    "systemd": run_systemd,
    "workflow": run_workflow,
    "yaml": run_yaml,
}
