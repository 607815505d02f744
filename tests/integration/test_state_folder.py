"""State folders that cannot be trusted: read-only, full, damaged, somebody else's, gone. Real disks, real processes.

Whatever is wrong is said before anything is spent, or stops the spending; and nothing is bought twice afterwards.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hostile import Asked, execution, hostile, says, usual
from process import PATIENCE, Cli, read_manifest, row, stopping, wait_for, write_rows

from lamina_batch.errors import StateError
from lamina_batch.ledger.job import Accepted, State, Submission
from lamina_batch.ledger.ledger import open_ledger
from lamina_batch.ledger.state_folder import RESERVE_BYTES, DiskReserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hostile import Answer, Hostile

#: Permission bits do not bind root; without these two they do.
MORTAL = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")


@pytest.fixture
def mortal() -> list[str]:
    """What begins a command that permission bits bind."""
    if os.geteuid() != 0:
        return []
    if (
        shutil.which("setpriv") is None
        or subprocess.run([*MORTAL, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("root cannot be bound by permissions here: there is no setpriv, or it may not")
    return list(MORTAL)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


#: A service without limit headers is taken for one of a hundred a minute.
FAST = ("--set", "run.max_in_flight=1000", "--set", "run.requests_per_minute=100000")


def fill(disk: Path) -> Path:
    """Leave no room on it."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


def state(project: Path) -> Path:
    return project / ".lamina-batch" / "p"


def ledger(project: Path) -> Path:
    return state(project) / "ledger.sqlite"


def at(cli: Cli, service: Hostile) -> Cli:
    return Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})


def bought(service: Hostile) -> Counter[bytes]:
    return Counter(asked.body for asked in service.asked if asked.kind == "start")


# -- it may not be written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log", [False, True], ids=["closed", "with a log beside it"])
def test_a_read_only_folder_spends_nothing_and_still_tells(
    project: Path, cli: Cli, mortal: list[str], log: bool
) -> None:
    """With a write-ahead log, as a killed run leaves it, what stands in the log is told too."""
    with hostile() as service:
        here = at(cli, service)
        here("run", "p.yaml", "--limit", "2")
        if log:
            leave_log(ledger(project))
        for path in (*state(project).rglob("*"), state(project)):
            path.chmod(0o555 if path.is_dir() else 0o444)

        def run(*words: str) -> subprocess.CompletedProcess[str]:
            command = [*mortal, *here.command(*words)]
            return subprocess.run(command, cwd=project, env=dict(here.env), capture_output=True, text=True, check=False)

        for command in ("run", "collect"):
            done = run(command, "p.yaml")
            assert done.returncode == 1, done.stdout + done.stderr
            assert f"{state(project)}: the state folder cannot be written: Permission denied" in done.stderr
        assert service.count("start") == 2
        for words, said in (("status", "completed"), ("plan", "2  unchanged"), ("results", "p.csv")):
            done = run(words, "p.yaml")
            assert done.returncode == 0, done.stdout + done.stderr
            assert said in done.stdout
        assert ("held: kept" in run("status", "p.yaml").stdout) is log
        for path in (state(project), *state(project).rglob("*")):
            path.chmod(0o755)


def leave_log(file: Path) -> None:
    """Leave the ledger as a killed process does: with a job that stands in the write-ahead log only."""
    connection = sqlite3.connect(file, isolation_level=None)
    columns = "key, variant, revision, content, inputs, state, app_id, contract, submission, submitted_at, attempts"
    values = f"'kept', '', 1, '{'c' * 64}', '{{}}', 'held', 'a', 'b', 's', 1, 1"
    connection.execute(f"INSERT INTO job ({columns}) VALUES ({values})")
    copies = {path: path.read_bytes() for path in file.parent.glob("ledger.sqlite*")}
    assert len(copies) == 3
    connection.close()
    for path, content in copies.items():
        path.write_bytes(content)


@pytest.mark.parametrize("place", ["rows.csv", "rows.csv/below", "/dev/null"])
def test_a_state_that_can_be_no_folder_is_told_with_its_path(project: Path, cli: Cli, place: str) -> None:
    before = (project / "rows.csv").read_bytes()
    with hostile() as service:
        ran = at(cli, service)("run", "p.yaml", "--set", f"state={place}", code=1)
        assert service.asked == []
    assert str(project / place) in ran.err
    assert "cannot be made" in ran.err
    assert "nothing was submitted" in ran.err
    ran = cli("validate", "p.yaml", "--sandbox", "--set", f"state={place}/x", code=1)
    assert "the state folder cannot be made" in ran.err
    assert (project / "rows.csv").read_bytes() == before


# -- the ledger is not what it should be -----------------------------------------------------------------------------


def garbage(file: Path) -> None:
    file.write_bytes(b"this is no ledger\n" * 1000)


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def beginning(file: Path) -> None:
    os.truncate(file, 200)


def newer(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def of_others(file: Path) -> None:
    file.unlink()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE photos (id)")
    connection.close()


def of_others_with_our_version(file: Path) -> None:
    of_others(file)
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (garbage, "the file is damaged"),
        (half, "the file is damaged"),
        (beginning, "the file is damaged"),
        (newer, "written by a newer version of lamina-batch (schema 99)"),
        (of_others, "no ledger"),
        (of_others_with_our_version, "no ledger"),
        (folder, "a folder has its name"),
    ],
)
def test_a_ledger_that_is_none_is_told_left_alone_and_nothing_is_bought(
    project: Path, cli: Cli, spoil: Callable[[Path], None], said: str
) -> None:
    with hostile() as service:
        here = at(cli, service)
        here("run", "p.yaml", "--limit", "1")
        file = ledger(project)
        spoil(file)
        before = file.read_bytes() if file.is_file() else b""
        for command in ("run", "status", "plan"):
            ran = here(command, "p.yaml", code=1)
            assert said in ran.err, ran.err
            assert str(file) in ran.err
            assert "bug" not in ran.err
        assert service.count("start") == 1
        assert (file.read_bytes() if file.is_file() else b"") == before


def test_an_empty_ledger_file_beside_a_manifest_stops_the_run(project: Path, cli: Cli) -> None:
    """What a disk that was full left, or a copy that broke off: SQLite takes it for a new database."""
    with hostile() as service:
        here = at(cli, service)
        here("run", "p.yaml")
        ledger(project).write_bytes(b"")
        here("run", "p.yaml", code=5)
        assert service.count("start") == 3


def test_a_ledger_that_another_program_writes_is_told(project: Path, cli: Cli) -> None:
    with hostile() as service:
        here = at(cli, service)
        here("run", "p.yaml", "--limit", "1")
        other = sqlite3.connect(ledger(project), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            ran = here("run", "p.yaml", code=1)
            assert "another program has it open" in ran.err
            assert "completed" in here("status", "p.yaml").out, "reading waits for nobody"
        finally:
            other.close()
        assert service.count("start") == 1


def test_a_ledger_that_is_removed_during_a_run_stops_it_and_nothing_is_bought_again(project: Path, cli: Cli) -> None:
    """SQLite would go on writing into a file that has no name any more."""
    write_rows(project, [row(n) for n in range(40)])
    removed = threading.Event()
    with hostile(answer=halting(6, removed)) as service:
        here = at(cli, service)
        with stopping(here.start("run", "p.yaml", *FAST, "--set", "run.max_in_flight=4")) as process:
            wait_for(lambda: service.count("read") >= 4 and service.count("start") > 6)
            shutil.rmtree(state(project))
            removed.set()
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, err
        assert "the ledger was removed" in err
        count = service.count("start")
        assert count < 40
        here("run", "p.yaml", code=5)
        assert service.count("start") == count
        assert set(bought(service).values()) == {1}


# -- the disk is full -----------------------------------------------------------------------------------------------


def halting(
    after: int, until: threading.Event, *, running: Callable[[], bool] = lambda: False
) -> Callable[[Asked], Answer]:
    """A service that answers so many starts, and the others only then; what it has started runs while `running`.

    So whatever a test does meanwhile is done in the middle of a run, however long that takes.
    """
    starts = itertools.count(1)

    def answer(asked: Asked) -> Answer:
        name = asked.path.rpartition("/")[2]
        if asked.kind == "start":
            if next(starts) > after:
                until.wait(PATIENCE)
            # The name of the row: unique, however many are accepted at once.
            prompt = json.loads(asked.body)["inputs"]["Prompt"]
            return says(202, {"data": {"executionId": f"e{prompt.split()[1]}", "status": "queued"}})
        if asked.kind == "read":
            status = "queued" if running() else "completed"
            return says(200, execution(executionId=name, status=status))
        return usual(asked, 0)

    return answer


def test_a_disk_without_room_is_told_before_anything_is_bought(project: Path, cli: Cli, disk: Path) -> None:
    options = ("--set", f"state={disk / 'state'}")
    with hostile() as service:
        here = at(cli, service)
        here("run", "p.yaml", "--limit", "1", *options)
        filler = fill(disk)
        for _ in range(2):
            ran = here("run", "p.yaml", *options, code=1)
            assert str(disk / "state") in ran.err
            assert "see that the disk has room" in ran.err
        for command in ("status", "plan"):
            assert here(command, "p.yaml", *options).out
        os.truncate(filler, filler.stat().st_size - RESERVE_BYTES - (1 << 20))
        assert "this run may need" in here("run", "p.yaml", *options, code=1).err
        assert service.count("start") == 1
        filler.unlink()
        here("run", "p.yaml", *options)
    assert set(bought(service).values()) == {1}
    assert len(bought(service)) == 3


def test_no_answer_is_lost_when_the_disk_fills_up_in_a_burst(project: Path, cli: Cli, disk: Path) -> None:
    """What was kept back takes the answers of the POSTs that are open; nothing more is sent, and nothing is held."""
    write_rows(project, [row(n) for n in range(120)])
    options = ("--json", "--set", f"state={disk / 'state'}", *FAST)
    full, over = threading.Event(), threading.Event()
    with hostile(answer=halting(20, full, running=lambda: not over.is_set())) as service:
        here = at(cli, service)
        with stopping(here.start("run", "p.yaml", *options)) as process:
            wait_for(lambda: service.count("start") >= 30 or process.poll() is not None)
            filler = fill(disk)
            full.set()
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, err
        assert "the disk is full" in err
        accepted = service.count("start")
        assert 30 <= accepted < 120
        # The manifest is told what the ledger still knows.
        lines = Counter(line["lamina_status"] for line in read_manifest(project / "out" / "p.csv"))
        assert lines == {"running": accepted, "planned": 120 - accepted}
        over.set()
        filler.unlink()
        counts = here("run", "p.yaml", *options).summary["counts"]
    assert (counts["held"], counts["completed"]) == (0, 120)
    assert set(bought(service).values()) == {1}
    assert len(bought(service)) == 120
    assert not (disk / "state" / "reserve").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process can be changed on Linux only")
def test_where_nothing_can_be_written_any_more_only_what_was_open_is_held(project: Path, cli: Cli) -> None:
    """A limit on the size of files, which no reserve helps against, stands in for a disk that dies."""
    write_rows(project, [row(n) for n in range(120)])
    dead = threading.Event()
    with hostile(answer=halting(20, dead)) as service:
        here = at(cli, service)
        with stopping(here.start("run", "p.yaml", *FAST)) as process:
            wait_for(lambda: service.count("start") >= 30 or process.poll() is not None)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, 1))
            dead.set()
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, err
        assert str(ledger(project)) in err
        accepted = service.count("start")
        assert accepted < 120
        counts = here("run", "p.yaml", "--json", *FAST, code=6).summary["counts"]
    assert 1 <= counts["held"] <= 16
    assert counts["completed"] + counts["held"] == 120
    assert set(bought(service).values()) == {1}


def test_a_limit_too_small_for_the_reserve_is_told_before_anything_is_bought(project: Path, cli: Cli) -> None:
    with hostile() as service:
        here = at(cli, service)
        done = subprocess.run(
            here.command("run", "p.yaml"),
            cwd=project,
            env=dict(here.env),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
        )
        assert service.count("start") == 0
    assert done.returncode == 1
    assert "4.0 MiB cannot be kept back in the state folder" in done.stderr


def test_the_reserve_is_room_that_the_ledger_can_use(disk: Path) -> None:
    """The ledger and the reserve alone, on a disk that is really full."""
    folder = disk / "state"
    folder.mkdir()
    submissions = [Submission(key=str(n), variant="", content=f"{n:064}", inputs="{}", job_id=None) for n in range(16)]
    reserve = DiskReserve(folder)
    reserve.take()
    with open_ledger(folder) as ledger:
        jobs = ledger.begin(submissions, app_id="a", contract="c", at=1.0, run_id="r")
        fill(disk)
        news = [(job.id, Accepted(execution_id=f"e{job.id}" * 50, generation="executions")) for job in jobs]
        with pytest.raises(StateError, match="disk is full"):
            ledger.record(news, at=2.0, run_id="r")
        assert len(ledger.jobs(State.SUBMITTING)) == 16
        assert reserve.release()
        assert len(ledger.record(news, at=3.0, run_id="r")) == 16
        assert len(ledger.jobs(State.RUNNING)) == 16
