"""As cron, a container or a service manager starts it: no HOME, no PATH, no locale, no terminal, closed streams."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from process import PATIENCE, PIPELINE, Cli, Service, row, stopping, wait_for, write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: The program that pip puts beside Python.
PROGRAM = Path(sys.executable).with_name("lamina-batch")
NAME = "目録 Größe"


@pytest.fixture
def catalog(project: Path) -> Path:
    """A pipeline in whose names and rows nothing is ASCII."""
    file = project / f"{NAME}.yaml"
    added = f'name: {NAME}\nresults: {{manifest: "出力/結果.csv", download: "出力/{{key}}/{{label}}.{{ext}}"}}\n'
    file.write_text(PIPELINE.replace("rows.csv", "商品.csv") + added, encoding="utf-8")
    write_rows(project, [row(1, sku="ß-1", title="Kleid 日本"), row(2, sku="日-2", front="nope")], "商品.csv")
    return file


def bare(command: str, *words: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell's command line with `words` behind it, from / and with nothing in the environment but `env`."""
    return subprocess.run(
        ["/bin/sh", "-c", command, str(PROGRAM), *map(str, words)],
        cwd="/",
        env=env,
        capture_output=True,
        encoding=env.get("PYTHONIOENCODING", "utf-8"),
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "env"),
    [
        ('"$0" "$@"', {}),
        ('"$0" "$@" <&-', {"LANG": "C", "LC_ALL": "C", "PATH": "/usr/bin:/bin"}),
        ('"$0" "$@" <&- 2>&-', {"PYTHONIOENCODING": "latin-1"}),
        ('"$0" "$@" <&- >&- 2>&-', {}),
    ],
    ids=["nothing", "no stdin", "no stderr", "no streams"],
)
def test_it_runs_all_the_same(catalog: Path, command: str, env: Mapping[str, str]) -> None:
    done = bare(command, "run", catalog, "--sandbox", "--json", **env)
    assert done.returncode == 3, done.stderr
    manifest = (catalog.parent / "出力/結果.sandbox.csv").read_text(encoding="utf-8")
    assert "ß-1" in manifest
    assert len(list((catalog.parent / "出力").glob("ß-1/*.sandbox.*"))) == 4
    if ">&-" not in command.replace("2>&-", ""):
        assert json.loads(done.stdout)["pipeline"] == NAME
    if "2>&-" not in command:
        assert NAME in done.stderr
        assert "\r" not in done.stderr


def test_what_the_terminal_cannot_spell_is_escaped(catalog: Path) -> None:
    done = bare('"$0" "$@"', "validate", catalog, "--sandbox", PYTHONIOENCODING="latin-1")
    assert done.returncode == 3, done.stderr
    assert "row 3 (\\u65e5-2)" in done.stdout


def test_a_locale_that_python_shall_not_leave_is_named(catalog: Path) -> None:
    legacy = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = bare('"$0" "$@"', "validate", catalog, "--sandbox", **legacy)
    assert done.returncode == 1
    assert "this locale cannot spell" in done.stderr
    assert "LANG=C.UTF-8" in done.stderr
    assert done.stderr.isascii()


def test_a_user_without_a_home_has_no_key_and_no_crash() -> None:
    """As in a container whose user is a number that /etc/passwd does not know."""
    script = "import pwd; pwd.getpwuid = {}.__getitem__; from lamina_batch.cli import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", script], env={}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "fail  key: no API key" in done.stdout


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc to look at")
def test_a_stream_that_was_closed_is_nobody_elses(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    """Or the ledger would be file 2, and what a library writes to stderr would be written into it."""
    service = serve("--limit", "1000", "--fault", "never_finish")
    at = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": service.url})
    words = " ".join(f"'{word}'" for word in at.command("run", "p.yaml"))
    command = ["/bin/sh", "-c", f"exec {words} <&- >&- 2>&-"]
    with stopping(subprocess.Popen(command, cwd=project, env=dict(at.env), text=True)) as run:
        wait_for(lambda: len(service.accepted) == 3)
        streams = {Path(f"/proc/{run.pid}/fd/{number}").readlink() for number in range(3)}
        assert streams == {Path(os.devnull)}
        run.send_signal(signal.SIGTERM)
        assert run.wait(timeout=PATIENCE) == 143


# -- nobody listens any more -----------------------------------------------------------------------------------------


@pytest.fixture
def slow(project: Path, cli: Cli, serve: Callable[..., Service]) -> Cli:
    """Executions of about two seconds: somebody may leave while they run."""
    return Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": serve("--limit", "1000", "--speed", "15").url})


@pytest.mark.parametrize("words", [(), ("--log-format", "json")], ids=["text", "json"])
def test_a_pipe_that_closes_stops_nothing(slow: Cli, words: tuple[str, ...]) -> None:
    """As with `| head`, or a log shipper that dies. What is on its way would be held, or lost to this run."""
    with stopping(slow.start("run", "p.yaml", *words)) as run:
        assert run.stderr is not None
        run.stderr.readline()
        run.stderr.close()
        run.stderr = None
        assert run.wait(timeout=PATIENCE) == 0
    assert "3  completed" in slow("status", "p.yaml").out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_behind_the_log_stops_nothing(slow: Cli) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            slow.command("run", "p.yaml"), cwd=slow.folder, env=dict(slow.env), stderr=full, check=False
        )
    assert done.returncode == 0


def test_a_terminal_that_is_gone_stops_nothing(slow: Cli) -> None:
    """With a progress bar on it, and without the signal that a shell's own terminal would send."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    command = slow.command("run", "p.yaml")
    with stopping(subprocess.Popen(command, cwd=slow.folder, env=dict(slow.env), stderr=theirs, text=True)) as run:
        os.close(theirs)
        seen = b""
        while b"0/3" not in seen:
            seen += os.read(ours, 4096)
        os.close(ours)
        assert run.wait(timeout=PATIENCE) == 0


@pytest.mark.parametrize(("heeded", "code"), [("SIG_DFL", 129), ("SIG_IGN", 0)], ids=["alone", "nohup"])
def test_a_hangup_is_a_gentle_stop(slow: Cli, heeded: str, code: int) -> None:
    # No shell heeds a signal again that was ignored when it started, as it is when all of this runs under nohup.
    so = f"import os, signal, sys; signal.signal(signal.SIGHUP, signal.{heeded}); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", so, *slow.command("run", "p.yaml", "--log-format", "json")]
    with stopping(
        subprocess.Popen(command, cwd=slow.folder, env=dict(slow.env), stderr=subprocess.PIPE, text=True)
    ) as run:
        assert run.stderr is not None
        while '"running"' not in run.stderr.readline():
            pass
        run.send_signal(signal.SIGHUP)
        _, err = run.communicate(timeout=PATIENCE)
    assert (run.returncode, json.loads(err.splitlines()[-1])["exit_code"]) == (code, code)
    assert "held" not in slow("status", "p.yaml").out
