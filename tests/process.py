"""The command line as a process, the sandbox as another, and the files between them."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from warm import warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Seconds for what comes in a moment where nothing is broken, on however busy a machine. No test waits to see it pass.
PATIENCE = 60.0
#: The folder that holds pipelines/ and sample_data/: the checkout, or the copy that the wheel is tested beside.
TOP = Path(__file__).resolve().parents[1]
#: What is tested is this wheel, each command as a process that starts anew (tests/wheel.sh); None: the checkout.
WHEEL = os.environ.get("LAMINA_BATCH_WHEEL")
APP = "bbb17293-5fe7-4645-8c6e-0745bc28254d"


def environment(**extra: str) -> dict[str, str]:
    # Nobody's own key is ever found by a test; and what is compiled once need not be compiled by every process.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LAMINA_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return kept | {"HOME": "/nonexistent", "COLUMNS": "120"} | extra


def lasting_port() -> int:
    """A free port that stays so while nothing listens on it: the system hands out others (Linux: from 32768)."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def wait_for(what: Callable[[], bool]) -> None:
    """Until it is so; a test that waits for ever says nothing."""
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, "what the test waits for did not happen"
        time.sleep(0.01)


def json_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a journal that may be growing: one that is not there whole yet comes next time."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text().rpartition("\n")[0].splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.out)
        return data


def _text(output: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(output), encoding="utf-8").read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cli:
    """`lamina-batch` in a folder, with an environment."""

    folder: Path
    env: Mapping[str, str]
    #: seconds that a command may take
    timeout: float = 100

    def command(self, *args: str | Path) -> list[str]:
        return [sys.executable, "-m", "lamina_batch", *map(str, args)]

    def __call__(self, *args: str | Path, code: int | None = 0, env: Mapping[str, str] | None = None) -> Ran:
        raw = self.raw(*args, env=env)
        ran = Ran(code=raw.returncode, out=_text(raw.stdout), err=_text(raw.stderr))
        assert code is None or ran.code == code, f"exit {ran.code}\n{ran.out}\n{ran.err}"
        return ran

    def raw(self, *args: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        """Its output as it came: no line end is translated."""
        env = {**self.env, **(env or {})}
        if WHEEL is None:
            return warm().run(*args, folder=self.folder, env=env, timeout=self.timeout)
        return subprocess.run(
            self.command(*args), cwd=self.folder, env=env, capture_output=True, timeout=self.timeout, check=False
        )

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*args),
            cwd=self.folder,
            env=dict(self.env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A sandbox process, and what its own logs say."""

    url: str
    data: Path
    process: subprocess.Popen[str] | None = None

    def lines(self, name: str) -> list[dict[str, Any]]:
        return json_lines(self.data / name)

    @property
    def accepted(self) -> list[dict[str, Any]]:
        return self.lines("executions.jsonl")

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.lines("requests.jsonl")

    def end(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE)

    def bought(self) -> Counter[str]:
        """How often each set of inputs was accepted."""
        return Counter(json.dumps(line["inputs"], sort_keys=True) for line in self.accepted)


PIPELINE = f"""\
version: 1
app: {APP}
rows:
  from: rows.csv
  key: sku
inputs:
  Front: {{column: front}}
  Back: {{value: https://images.example.com/back.jpg}}
  Prompt: {{template: "{{title}} in soft light"}}
  Model Gender: {{column: gender, default: Female}}
run:
  poll: {{min_interval: 1s}}
"""

HEADER = ("sku", "title", "front", "gender", "price")


def row(number: int, **changes: str) -> dict[str, str]:
    return {
        "sku": f"{number:05}",
        "title": f"Dress {number}",
        "front": f"https://images.example.com/{number:05}.jpg",
        "gender": "Female",
        "price": "10.00",
    } | changes


def write_rows(folder: Path, rows: list[dict[str, str]], name: str = "rows.csv") -> None:
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)


def read_manifest(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def opened_by(process: subprocess.Popen[str]) -> set[Path]:
    """The files that it has open, as far as the system tells."""
    return {Path(file.path) for file in psutil.Process(process.pid).open_files()}


@contextmanager
def stopping(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
