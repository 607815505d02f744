"""A run that is killed at every single effect it has, one after the other, and then run again.

An effect is what outlives the process: SQL that writes, a change of a file or folder, bytes to or from the service.
They are counted in the child process by wrappers around sqlite3, os and socket, which this file puts there; the product
has no hook for it.

Run as a program, this file is the warm process (warm.py) of which the children are forks.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from warm import Warm, serve_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from hostile import Answer

#: Children at a time: each waits a second for its first poll.
AT_ONCE = 8

# -- in the child process --------------------------------------------------------------------------------------------


class Effects:
    """Counts effects, writes each to `log`, and dies right before or right after the one numbered `stop`; 0: never."""

    def __init__(self, *, stop: int, before: bool, log: int) -> None:
        self._stop = stop
        self._before = before
        self._log = log
        self._count = 0

    def counted(self, function: Callable[..., Any], name: Callable[..., str | None]) -> Callable[..., Any]:
        """`function`, whose calls are effects unless `name` of their arguments is None."""

        def call(*args: Any, **options: Any) -> Any:
            what = name(*args)
            if what is None:
                return function(*args, **options)
            self._count += 1
            here = self._count == self._stop
            os.write(self._log, what.encode() + b"\n")
            if here and self._before:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **options)
            finally:
                if here:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    def install(self) -> None:
        """Count from now on, in this process."""
        for name in ("replace", "rename", "fsync", "mkdir", "unlink", "ftruncate", "pwrite"):
            setattr(os, name, self.counted(getattr(os, name), _file_effect(name)))
        os.open = self.counted(os.open, _opening)
        fcntl.flock = self.counted(fcntl.flock, lambda *_: "flock")
        for verb in ("connect", "send", "recv"):
            setattr(socket.socket, verb, self.counted(getattr(socket.socket, verb), _network_effect(verb)))
        sqlite3.connect = self._connecting(sqlite3.connect)

    def _connecting(self, connect: Callable[..., Any]) -> Callable[..., Any]:
        execute = self.counted(sqlite3.Cursor.execute, lambda _, sql, *values: _sql_effect(sql, *values))
        many = self.counted(sqlite3.Cursor.executemany, lambda _, sql, *__: _sql_effect(sql))
        script = self.counted(sqlite3.Cursor.executescript, lambda _, text: f"SCRIPT {text[:20]}")
        close = self.counted(sqlite3.Connection.close, lambda _: "close the ledger")

        class Cursor(sqlite3.Cursor):
            def execute(self, *args: Any) -> Any:
                return execute(self, *args)

            def executemany(self, *args: Any) -> Any:
                return many(self, *args)

            def executescript(self, *args: Any) -> Any:
                return script(self, *args)

        class Connection(sqlite3.Connection):
            def cursor(self, factory: Any = Cursor) -> Any:
                return super().cursor(factory)

            def execute(self, *args: Any) -> Any:
                return self.cursor().execute(*args)

            def executescript(self, *args: Any) -> Any:
                return self.cursor().executescript(*args)

            def close(self) -> None:
                close(self)

        def connecting(*args: Any, **options: Any) -> Any:
            return connect(*args, factory=Connection, **options)

        return self.counted(connecting, lambda *_: "open the ledger")


def _file_effect(name: str) -> Callable[..., str]:
    return lambda *args: f"{name} {args[1] if name in {'replace', 'rename'} else args[0]}"


def _opening(path: object, flags: int, *_: object) -> str | None:
    return f"open {path}" if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None


def _network_effect(verb: str) -> Callable[..., str | None]:
    def name(of: socket.socket, data: object, *_: object) -> str | None:
        if of.family not in {socket.AF_INET, socket.AF_INET6}:
            return None  # the event loop wakes itself up by a socket, too
        words = bytes(data).partition(b"\r\n")[0].decode("latin-1") if isinstance(data, bytes) else ""
        return f"{verb} {words}".rstrip()

    return name


def _sql_effect(sql: str, values: Any = ()) -> str | None:
    verb = sql.split(maxsplit=1)[0].upper()
    if verb == "SELECT" or (verb == "PRAGMA" and "journal_mode" not in sql):
        return None
    return f"{verb} {values[0]}" if sql.startswith("UPDATE job SET state") else verb


def main_with_effects(command: Mapping[str, Any]) -> None:
    """`lamina-batch`, killed where the command says."""
    main = importlib.import_module("lamina_batch.cli").main
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    Effects(stop=command["stop"], before=command["before"], log=log).install()
    main(prog_name="lamina-batch")


if __name__ == "__main__":
    serve_forks(main_with_effects)
    sys.exit()

# -- the tests -------------------------------------------------------------------------------------------------------

import pytest  # noqa: E402
from hostile import Asked, execution, hostile, says, usual  # noqa: E402
from process import PIPELINE, Service, environment, read_manifest, row, wait_for, write_rows  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    effects: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """Runs commands that are killed at one of their effects."""

    warm: Warm
    service: Service

    def run(
        self, folder: Path, name: str, *args: str, stop: int = 0, before: bool = False, url: str | None = None
    ) -> Ended:
        """`lamina-batch args` in `folder`, killed right after (or before) the effect numbered `stop`."""
        log = folder / f"{name}.effects"
        env = environment(LAMINA_API_KEY="lma_test_key_of_nobody", LAMINA_BASE_URL=url or self.service.url)
        ran = self.warm.run(*args, folder=folder, env=env, timeout=100, stop=stop, before=before, log=str(log))
        effects = tuple(log.read_text().splitlines())
        return Ended(code=ran.returncode, out=ran.stdout.decode(), err=ran.stderr.decode(), effects=effects)


@pytest.fixture
def quick(serve: Callable[..., Service]) -> Service:
    return serve("--limit", "100000", "--speed", "5000")


@pytest.fixture
def forks(quick: Service) -> Iterator[Forks]:
    warm = Warm(__file__)
    yield Forks(warm=warm, service=quick)
    warm.close()


def states(folder: Path) -> list[str]:
    """What the ledger of a dead run says of each of its jobs."""
    file = folder / ".lamina-batch/p/ledger.sqlite"
    if not file.exists():
        return []
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'job'").fetchone() is None:
            return []
        return [str(state) for (state,) in connection.execute("SELECT state FROM job ORDER BY id")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A run that was killed, what it left, and the run after it."""

    folder: Path
    #: the effect that it was to be killed at
    number: int
    first: Ended
    #: the states of its jobs when it was dead
    left: list[str]
    second: Ended

    @property
    def lines(self) -> list[dict[str, str]]:
        return read_manifest(self.folder / "out/p.csv")

    @property
    def missed(self) -> bool:
        """Whether it had come to its end before that."""
        return self.first.code == 0 and len(self.first.effects) < self.number

    def __str__(self) -> str:
        return f"{self.folder.name} at {self.first.effects[-1]!r} left {self.left}, then exit {self.second.code}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Stops a run of so many rows at each of its effects."""

    tmp_path: Path
    forks: Forks
    rows: int
    before: bool

    def whole(self) -> Ended:
        """A run that nobody stops, to count its effects."""
        return self.forks.run(self.folder(0), "whole", "run", "p.yaml")

    def stops(self, numbers: Iterable[int]) -> list[Stop]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._stop, numbers))

    def _stop(self, number: int) -> Stop:
        folder = self.folder(number)
        first = self.forks.run(folder, "first", "run", "p.yaml", stop=number, before=self.before)
        left = states(folder)
        return Stop(folder=folder, number=number, first=first, left=left, second=self.again(folder, "second"))

    def again(self, folder: Path, name: str) -> Ended:
        return self.forks.run(folder, name, "run", "p.yaml", "--json")

    def folder(self, number: int) -> Path:
        """A pipeline and rows that no other stop has, so that one service and its log serve all."""
        folder = self.tmp_path / f"stop-{number:03}"
        folder.mkdir()
        (folder / "p.yaml").write_text(PIPELINE, encoding="utf-8")
        write_rows(folder, [row(1000 * (n + 1) + number) for n in range(self.rows)])
        return folder


def everything(effects: tuple[str, ...]) -> list[int]:
    return list(range(1, len(effects) + 1))


def what_cannot_be_undone(effects: tuple[str, ...]) -> list[int]:
    """A stop before one of the others is a stop after the one before it."""
    final = ("PRAGMA", "COMMIT", "connect", "send", "recv", "replace")
    return [number for number, effect in enumerate(effects, start=1) if effect.startswith(final)]


def what_jobs_go_through(effects: tuple[str, ...]) -> list[int]:
    """From the intent to the commit of the last end: what two rows may share."""
    first = effects.index("UPDATE submitting")
    last = max(n for n, effect in enumerate(effects) if effect == "UPDATE completed")
    return list(range(first + 1, effects.index("COMMIT", last) + 2))


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "before", "chosen"),
    [(1, False, everything), (1, True, what_cannot_be_undone), (2, False, what_jobs_go_through)],
    ids=["after", "before", "two rows"],
)
def test_a_run_killed_at_any_effect_is_continued_and_nothing_is_bought_twice_or_lost(
    tmp_path: Path, forks: Forks, rows: int, before: bool, chosen: Callable[[tuple[str, ...]], list[int]]
) -> None:
    stopping = Stopping(tmp_path=tmp_path, forks=forks, rows=rows, before=before)
    whole = stopping.whole()
    assert whole.code == 0, whole.err
    for seen in ("PRAGMA", "COMMIT", "connect", "send POST", "recv", "flock", "open", "replace", "fsync"):
        assert any(effect.startswith(seen) for effect in whole.effects), f"{seen} goes by unseen"

    # A run may have fewer effects than that one had, as an answer may come in one piece or in two.
    numbers = chosen(whole.effects)
    stops = [stop for stop in stopping.stops(numbers) if not stop.missed]
    assert len(stops) > 0.9 * len(numbers)

    accepted: dict[str, list[str]] = defaultdict(list)
    for line in forks.service.accepted:
        accepted[line["inputs"]["Prompt"]].append(line["execution_id"])
    for stop in stops:
        assert stop.first.code == -signal.SIGKILL, stop
        lines = stop.lines
        assert len(lines) == rows, stop
        for n, line in enumerate(lines):
            bought = accepted[f"{line['title']} in soft light"]
            # Only the time between the commit of the intent and the commit of the answer makes it unknown.
            if stop.left and stop.left[n] == "submitting":
                assert (line["lamina_status"], stop.second.code) == ("held", 6), stop
                assert len(bought) <= 1, stop
                assert f"{line['sku']}: held" in stop.second.err, stop
            else:
                assert (line["lamina_status"], [line["lamina_execution_id"]]) == ("completed", bought), stop
        if "submitting" not in stop.left:
            assert stop.second.code == 0, stop
    if chosen is everything:
        for stop in stops:
            assert stop.left == committed(stop.first.effects), stop
        assert {tuple(stop.left) for stop in stops} == {(), ("submitting",), ("running",), ("completed",)}

    held = [stop for stop in stops if "submitting" in stop.left]
    assert held
    for stop in held:
        again = stopping.again(stop.folder, "third")
        assert (again.code, json.loads(again.out)["counts"]["submitted"]) == (6, 0), stop
    assert set(forks.service.bought().values()) == {1}


def committed(effects: tuple[str, ...]) -> list[str]:
    """The state of the one job. A commit alone changes what is left: so a job is `submitting`, and held later, from the
    commit of the intent to that of the answer, no longer.
    """
    state: list[str] = []
    written = None
    for effect in effects:
        if effect.startswith("UPDATE "):
            written = effect.removeprefix("UPDATE ")
        elif effect == "COMMIT" and written is not None:
            state = [written]
    return state


def seven_have_ended(runs: list[Future[Ended]]) -> None:
    wait_for(lambda: sum(run.done() for run in runs) == 7)


def test_of_runs_started_at_one_instant_one_works_and_the_others_exit_seven(tmp_path: Path, forks: Forks) -> None:
    """There is no state folder yet: they make it, its lock and its ledger at once."""
    stopping = Stopping(tmp_path=tmp_path, forks=forks, rows=3, before=False)
    for attempt in range(3):
        folder = stopping.folder(attempt)
        over = threading.Event()

        def answer(asked: Asked, over: threading.Event = over) -> Answer:
            """The one that works does so until the others have come, however long one of them takes."""
            if asked.kind != "read":
                return usual(asked, int(json.loads(asked.body)["inputs"]["Prompt"].split()[1]) if asked.body else 0)
            name, status = asked.path.rpartition("/")[2], "completed" if over.is_set() else "running"
            return says(200, execution(executionId=name, status=status))

        with hostile(answer=answer) as service, ThreadPoolExecutor(AT_ONCE) as pool:
            run = partial(forks.run, folder, url=service.url)
            runs = [pool.submit(run, name, "run", "p.yaml") for name in "abcdefgh"]
            try:
                seven_have_ended(runs)
            finally:
                over.set()
            ends = [run.result() for run in runs]
        assert sorted(end.code for end in ends) == [0, 7, 7, 7, 7, 7, 7, 7]
        for end in ends:
            if end.code == 7:
                assert "another run holds this ledger" in end.err
                assert not any(effect.startswith(("connect", "open the ledger")) for effect in end.effects)
        assert states(folder) == ["completed"] * 3
        assert len({asked.body for asked in service.asked if asked.kind == "start"}) == service.count("start") == 3
