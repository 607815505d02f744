"""Plays one schedule: the client and the service as real processes, blows at their moments, then calm until done."""

from __future__ import annotations

import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from process import PATIENCE, environment, read_manifest, row, write_rows

from chaos.count import Evidence, Held, Played, inputs_of, leg_at
from chaos.schedule import Blow, Leg, Words, canonical, image_url, pipeline_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from chaos.schedule import Catalog, Schedule, Strike

#: Seconds that a client may take for one leg, which lasts a few: past it, it hangs.
LONGEST_LEG = 90.0
#: Calm runs until nothing is left to do.
MOST_CALM_RUNS = 6
#: How often the service's log is looked at, seconds.
_GLANCE = 0.004
#: Below what the kernel gives to connections that leave: while the service is away, nobody takes its port.
_PORTS = range(20_000, 32_000)
_taken: set[int] = set()
_taking = threading.Lock()


class HarnessError(Exception):
    """The storm itself could not be played; it says nothing about the product."""


def play(schedule: Schedule, folder: Path) -> Evidence:
    """Play the schedule in `folder`, which is new. Raises HarnessError."""
    folder.mkdir(parents=True)
    ports = _free_port(), _free_port()
    service = _Service(folder=folder / "service", schedule=schedule, port=ports[0])
    storm = _Storm(schedule=schedule, folder=folder, service=service, listen=f"127.0.0.1:{ports[1]}")
    try:
        service.start(schedule.faults)
        for leg in schedule.legs:
            storm.leg(leg)
        service.stop(signal.SIGTERM)
        service.start(())
        storm.calm()
        return storm.evidence()
    finally:
        service.stop(signal.SIGKILL)
        with _taking:
            _taken.difference_update(ports)


@dataclass(slots=True, kw_only=True)
class _Service:
    """The sandbox as a process that comes and goes; what it accepted stays."""

    folder: Path
    schedule: Schedule
    port: int
    _process: subprocess.Popen[str] | None = None
    _faults: tuple[str, ...] = ()
    _starts: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, faults: tuple[str, ...] | None = None) -> None:
        """Come back as it was, or with other faults."""
        self._faults = self._faults if faults is None else faults
        self._starts += 1
        settings = self.schedule.settings
        options = {
            "port": self.port,
            "data": self.folder,
            "limit": settings.limit,
            "window": settings.window,
            "speed": settings.speed,
            "generation": settings.generation,
            # Another one each time, or every start would meet the same fates again.
            "seed": self.schedule.seed * 1000 + self._starts,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        words += [word for fault in self._faults for word in ("--fault", fault)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lamina_batch", "sandbox", *words],
            cwd=self.folder.parent,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if "http://" not in said:
            raise HarnessError(f"the sandbox does not start: {said}{self._process.stderr.read()}")

    def stop(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stderr is not None
        process.stderr.close()

    @property
    def is_there(self) -> bool:
        return self._process is not None

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A journal of the sandbox. A line torn by a kill -9 belongs to an answer that was never sent."""
        return list(_json_lines(self.folder / name))


@dataclass(slots=True, kw_only=True)
class _Tail:
    """Counts the requests that came since it was made."""

    file: Path
    starts: int = 0
    any: int = 0
    _offset: int = 0
    _rest: bytes = b""

    def __post_init__(self) -> None:
        self._offset = self.file.stat().st_size if self.file.exists() else 0

    def look(self) -> None:
        if not self.file.exists() or self.file.stat().st_size == self._offset:
            return
        with self.file.open("rb") as opened:
            opened.seek(self._offset)
            read = opened.read()
        self._offset += len(read)
        *whole, self._rest = (self._rest + read).split(b"\n")
        self.any += len(whole)
        self.starts += sum(b'"kind":"start"' in line for line in whole)


@dataclass(slots=True, kw_only=True)
class _Storm:
    schedule: Schedule
    folder: Path
    service: _Service
    #: where the client takes callbacks
    listen: str
    played: list[Played] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: what the last run printed
    _summary: dict[str, Any] = field(default_factory=dict)

    def leg(self, leg: Leg) -> Played:
        """One process of the client, with everything that hits it."""
        if self.played and int(_wall()) == int(self.played[-1].ended):
            # `status` names instants to the second, and each must belong to one leg.
            time.sleep(1 - _wall() % 1)
        self._put(leg.catalog)
        if leg.settle is not None:
            self._settle(leg.settle)
        number = len(self.played)
        log = _Tail(file=self.service.folder / "requests.jsonl")
        with (self.folder / f"leg-{number}.out").open("w") as out, (self.folder / f"leg-{number}.err").open("w") as err:
            began = _wall()
            client = subprocess.Popen(
                self._client(*leg.command, "p.yaml", "--json"),
                cwd=self.folder,
                env=environment(LAMINA_API_KEY="lma_chaos_key_of_nobody"),
                stdout=out,
                stderr=err,
                text=True,
            )
            try:
                hits = self._strike(leg, client, log)
            finally:
                client.kill()
                client.wait()
        if not self.service.is_there:
            self.service.start()
        done = Played(
            leg=leg,
            began=began,
            ended=_wall(),
            code=client.returncode,
            killed=Blow.KILL in hits,
            left_at_once=Blow.TERM_TWICE in hits,
            told_to_stop=Blow.TERM in hits,
            service_stops=sum(hit in {Blow.SERVICE_KILL, Blow.SERVICE_TERM} for hit in hits),
        )
        self.played.append(done)
        self._judge(number, done)
        return done

    def calm(self) -> None:
        """Run the last catalog until nothing is left to do."""
        leg = Leg(catalog=self.schedule.legs[-1].catalog)
        for _ in range(MOST_CALM_RUNS):
            self.leg(leg)
            counts = self._summary.get("counts", {})
            if counts and not counts["running"] and not counts["planned"]:
                return
        self.problems.append(f"not done after {MOST_CALM_RUNS} runs in calm weather: {self._summary.get('counts')}")

    def evidence(self) -> Evidence:
        file = self.folder / "out" / "p.csv"
        manifest = read_manifest(file) if file.exists() else []
        if self.schedule.settings.download:
            self.problems += self._missing_files(manifest)
        return Evidence(
            schedule=self.schedule,
            played=tuple(self.played),
            executions=self.service.lines("executions.jsonl"),
            requests=self.service.lines("requests.jsonl"),
            late=self.service.lines("answers.jsonl"),
            delivered=self.service.lines("webhooks.jsonl"),
            manifest=manifest,
            held=tuple(self._held()),
            known=self._known(),
            problems=tuple(self.problems),
        )

    # -- the client ----------------------------------------------------------------------------------------

    def _client(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lamina_batch", *words, "--base-url", self.service.url]

    def _put(self, catalog: Catalog) -> None:
        """Put the catalog where the client reads it."""
        text = pipeline_text(catalog, self.schedule.settings, listen=self.listen)
        (self.folder / "p.yaml").write_text(text, encoding="utf-8")
        write_rows(
            self.folder, [row(r.image, sku=r.key, title=r.title, front=image_url(r), gender="") for r in catalog.rows]
        )

    def _strike(self, leg: Leg, client: subprocess.Popen[str], log: _Tail) -> list[Blow]:
        """Wait for the client's end, and deal the blows on the way. Answers those that met something alive."""
        hits: list[Blow] = []
        waiting = list(leg.strikes)
        due: list[tuple[float, Strike]] = []
        back_at: float | None = None
        until = time.monotonic() + LONGEST_LEG
        while client.poll() is None:
            log.look()
            now = time.monotonic()
            for strike in [s for s in waiting if (log.starts if s.of == "start" else log.any) >= s.count]:
                waiting.remove(strike)
                due.append((now + strike.delay, strike))
            for at, strike in list(due):
                if at <= now:
                    due.remove((at, strike))
                    if self._deal(strike, client):
                        hits.append(strike.blow)
                        back_at = now + strike.down if not self.service.is_there else back_at
            if back_at is not None and now >= back_at:
                back_at = None
                self.service.start()
            if now > until:
                self.problems.append(f"leg {len(self.played)} did not end within {LONGEST_LEG:.0f} s")
                break
            time.sleep(_GLANCE)
        return hits

    def _deal(self, strike: Strike, client: subprocess.Popen[str]) -> bool:
        """Whether it met something alive."""
        match strike.blow:
            case Blow.KILL:
                client.kill()
            case Blow.TERM:
                client.terminate()
            case Blow.TERM_TWICE:
                client.terminate()
                time.sleep(0.1)
                client.terminate()
            case Blow.SERVICE_KILL | Blow.SERVICE_TERM:
                if not self.service.is_there:
                    return False
                self.service.stop(signal.SIGKILL if strike.blow is Blow.SERVICE_KILL else signal.SIGTERM)
        return True

    def _judge(self, number: int, done: Played) -> None:
        """What no weather excuses."""
        said = (self.folder / f"leg-{number}.err").read_text(encoding="utf-8")
        printed = (self.folder / f"leg-{number}.out").read_text(encoding="utf-8")
        try:
            self._summary = json.loads(printed)
        except ValueError:
            self._summary = {}
        if "this is a bug" in said or "Traceback" in said:
            self.problems.append(f"leg {number} crashed: {said.strip().splitlines()[-1]}")
        allowed = {0, 1, 3, 6}
        if done.killed:
            allowed |= {-signal.SIGKILL}
        if done.told_to_stop or done.left_at_once:
            # A signal that comes before Python has taken over ends the process by itself.
            allowed |= {143, -signal.SIGTERM}
        if not done.leg.submits:
            # There may be nothing to collect yet.
            allowed |= {2}
        if done.code not in allowed:
            self.problems.append(f"leg {number} ended with exit code {done.code}: {said.strip()[-300:]}")

    # -- what it is asked beside -----------------------------------------------------------------------------

    def _ask(self, *words: str) -> str:
        ran = subprocess.run(
            self._client(*words),
            cwd=self.folder,
            env=environment(LAMINA_API_KEY="lma_chaos_key_of_nobody"),
            capture_output=True,
            text=True,
            timeout=LONGEST_LEG,
            check=False,
        )
        if ran.returncode:
            self.problems.append(f"`{' '.join(words)}` ended with exit code {ran.returncode}: {ran.stderr.strip()}")
        return ran.stdout

    def _held(self) -> Iterator[Held]:
        """The jobs that `status` calls held."""
        for line in self._ask("status", "p.yaml").splitlines():
            if line.startswith("held: "):
                name, _, rest = line.removeprefix("held: ").partition(": sent ")
                sent = datetime.strptime(rest.partition("Z")[0], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
                yield Held(name=name, sent=sent.timestamp())

    def _settle(self, words: Words) -> None:
        """Say what becomes of the held jobs."""
        held = list(self._held())
        if not held:
            return
        if words is not Words.LOOKED_UP:
            self._ask("held", "p.yaml", "--resubmit" if words is Words.RESUBMIT else "--give-up", "--all")
            return
        accepted = {
            (leg_at(line["created_at"], self.played), canonical(line["inputs"])): line["execution_id"]
            for line in self.service.lines("executions.jsonl")
        }
        said: list[str] = []
        names = [job.name for job in held]
        for job in held:
            if names.count(job.name) > 1:
                # Two revisions of one key: no words tell them apart.
                continue
            number, inputs = inputs_of(job, self.played, self.schedule.settings)
            execution_id = accepted.get((number, inputs or ""))
            said += ["--adopt", f"{job.name}={execution_id}"] if execution_id else ["--resubmit", job.name]
        if said:
            self._ask("held", "p.yaml", *said)

    def _missing_files(self, manifest: list[dict[str, str]]) -> Iterator[str]:
        """Every output has its file: what a kill cut short has been fetched again."""
        for line in manifest:
            for column in line:
                url = line[column.removesuffix("_file")] if column.endswith("_file") else ""
                if url and not (line[column] and (self.folder / "out" / line[column]).is_file()):
                    yield f"{line['lamina_key']} has no file for {column.removesuffix('_file')}: {line[column]!r}"

    def _known(self) -> frozenset[str]:
        """The ids of executions that the ledger has or had; asked for nothing but ids."""
        file = self.folder / ".lamina-batch" / "p" / "ledger.sqlite"
        if not file.exists():
            return frozenset()
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
            found = ledger.execute("SELECT execution_id FROM job UNION SELECT execution_id FROM event").fetchall()
        return frozenset(str(known) for (known,) in found if known is not None)


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    if not file.exists():
        return
    for line in file.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _wall() -> float:
    return datetime.now(UTC).timestamp()


def _free_port() -> int:
    """A port that nobody listens on, and that no other schedule of ours has."""
    for port in random.sample(_PORTS, k=200):
        with _taking:
            if port in _taken:
                continue
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            _taken.add(port)
            return port
    raise HarnessError("no free port")
