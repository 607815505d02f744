"""Ctrl-C at any moment, then run again: every row ends, and no row is bought twice."""

from __future__ import annotations

import fcntl
import json
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from hostile import Answer, Asked, execution, hostile, says, usual
from process import PATIENCE, Cli, Service, lasting_port, opened_by, row, stopping, wait_for, write_rows

from lamina_batch.runs.session import ONE_STOP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 250


@pytest.mark.parametrize("accepted", [0, 7, 60, 100, 190], ids=lambda n: f"after {n}")
def test_ctrl_c_then_run_again_buys_each_row_once(
    project: Path, cli: Cli, serve: Callable[..., Service], accepted: int
) -> None:
    """The moments are told by what the service has accepted; slow answers keep POSTs open at 7 and 60.

    However late the signal comes, it comes in the middle: the service takes no more than a few until it comes again.
    """
    quick = ("--port", str(lasting_port()), "--window", "1", "--speed", "50", "--seed", str(accepted))
    slow, enough = "slow:seconds=0.1,on=start", f"429:on=start,after={accepted + 30}"
    service = serve(*quick, "--fault", enough, "--fault", slow)
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    write_rows(project, [row(n) for n in range(ROWS)])
    with stopping(at.start("run", "p.yaml", "--json")) as process:
        wait_for(lambda: len(service.accepted) >= accepted and bool(service.requests))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    if accepted or out:
        first = json.loads(out)
        assert first["stopped_by"] == "signal"
        assert first["counts"]["held"] == 0, "the POSTs in flight landed"
        assert first["counts"]["submitted"] == len(service.accepted) < ROWS
    else:
        assert "before anything was submitted" in err
        assert service.accepted == []
    service.end()
    serve(*quick, "--fault", slow, data=service.data)
    second = at("run", "p.yaml", "--json").summary
    assert second["counts"]["completed"] == ROWS
    assert len(service.accepted) == ROWS
    assert set(service.bought().values()) == {1}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_anything_is_sent_ends_at_once(project: Path, cli: Cli, number: int, code: int) -> None:
    """Nobody listens there, and a start-up that is tried again for a while has nothing to land."""
    with stopping(cli.start("run", "p.yaml", "--base-url", "http://127.0.0.1:9")) as process:
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert "before anything was submitted" in err


def test_a_second_signal_leaves_at_once_and_holds_what_was_open(
    project: Path, cli: Cli, serve: Callable[..., Service]
) -> None:
    service = serve("--limit", "1000", "--speed", "50", "--fault", "slow:seconds=3600,on=start")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    patient = ("--set", "run.request_timeout=1h")
    with stopping(at.start("run", "p.yaml", "--json", *patient)) as process:
        wait_for((project / ".lamina-batch/p/ledger.sqlite-wal").exists)
        wait_for(lambda: "submitting" in states(project))
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "submissions on their way are waited for" not in process.stderr.readline():
            assert process.poll() is None, "the first signal waits for what is open"
        threading.Event().wait(ONE_STOP_SECONDS + 0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert json.loads(out)["counts"]["held"] == 3
    again = at("run", "p.yaml", "--json", code=6).summary
    assert (again["counts"]["submitted"], again["counts"]["held"]) == (0, 3)
    assert "00001" in at("status", "p.yaml").out


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGTERM)])
def test_one_stop_that_is_delivered_twice_is_one_stop(
    project: Path, cli: Cli, serve: Callable[..., Service], numbers: tuple[signal.Signals, ...]
) -> None:
    """A terminal and a wrapper both forward Ctrl-C: the POSTs land, and nothing is held."""
    service = serve("--limit", "1000", "--speed", "50", "--fault", "slow:seconds=1,on=start")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    with stopping(at.start("run", "p.yaml", "--json")) as process:
        wait_for((project / ".lamina-batch/p/ledger.sqlite-wal").exists)
        wait_for(lambda: "submitting" in states(project))
        for number in numbers:
            process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in {128 + number for number in numbers}, err
    counts = json.loads(out)["counts"]
    assert (counts["held"], counts["submitted"]) == (0, len(service.accepted))


def test_kill_minus_nine_in_a_burst_holds_what_was_open(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    """What was accepted without our hearing of it is held, and nothing is bought twice."""
    service = serve("--limit", "1000", "--speed", "50", "--fault", "slow:seconds=0.5,on=start")
    at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
    write_rows(project, [row(n) for n in range(40)])
    with stopping(at.start("run", "p.yaml")) as process:
        wait_for(lambda: len(service.accepted) >= 20)
        process.kill()
    again = at("run", "p.yaml", "--json", code=None).summary
    counts = again["counts"]
    assert counts["held"] <= 16, "no more than the POSTs that were open"
    assert counts["completed"] + counts["held"] == 40
    assert "submitting" not in states(project)
    assert set(service.bought().values()) == {1}


def test_two_runs_at_once_buy_nothing_twice(project: Path, cli: Cli) -> None:
    over = threading.Event()

    def answer(asked: Asked) -> Answer:
        """Nothing ends before the others have come, however long they take."""
        if asked.kind != "read":
            return usual(asked, service.count("start"))
        status = "completed" if over.is_set() else "running"
        return says(200, execution(int(asked.path.rpartition("/e")[2]), status=status))

    with hostile(answer=answer) as service:
        at = Cli(folder=cli.folder, env={**cli.env, "LAMINA_BASE_URL": service.url})
        with stopping(at.start("run", "p.yaml")) as first:
            wait_for(lambda: service.count("start") == 3)
            second = at("run", "p.yaml", code=7)
            assert str(first.pid) in second.err
            assert "skipped" in at("run", "p.yaml", "--if-locked", "skip").err
            with stopping(at.start("run", "p.yaml", "--if-locked", "wait", "--json")) as waiting:
                wait_for(lambda: project / ".lamina-batch/p/lock" in opened_by(waiting))
                over.set()
                out, err = waiting.communicate(timeout=PATIENCE)
            assert (waiting.returncode, first.wait(timeout=PATIENCE)) == (0, 0), err
        assert json.loads(out)["counts"]["unchanged"] == 3
        assert service.count("start") == 3


def test_who_finds_the_ledger_locked_is_told_what_they_can_do(project: Path, cli: Cli) -> None:
    folder = project / ".lamina-batch" / "p"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "--if-locked wait" in cli("run", "p.yaml", code=7).err
        collecting = cli("collect", "p.yaml", code=7).err
    assert "another run holds this ledger" in collecting
    assert "--if-locked" not in collecting, "it has no such option"


def states(project: Path) -> set[str]:
    import sqlite3  # noqa: PLC0415

    file = project / ".lamina-batch/p/ledger.sqlite"
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return {str(state) for (state,) in connection.execute("SELECT state FROM job")}
    except sqlite3.OperationalError:
        return set()
    finally:
        connection.close()
