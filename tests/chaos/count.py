"""What came of a storm, counted from the service's own log and joined with the manifest on inputs. Pure.

The client's ledger is not asked what it believes: what was bought stands in executions.jsonl, what was asked for in
requests.jsonl, and what a row wanted follows from the catalog (schedule.slots). From the ledger come only the ids that
it knows, for rows that are in no catalog any more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from chaos.schedule import MOST_OPEN_POSTS, Words, canonical, slots

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.schedule import Leg, Schedule, Settings

#: Faults after which a 2xx cannot be read.
_UNREADABLE = frozenset({"broken_json", "truncated", "huge_body"})
_REACHED_AN_END = frozenset({"completed", "partial", "failed", "timed_out", "held"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A leg, and what became of it."""

    leg: Leg
    #: epoch seconds
    began: float
    #: epoch seconds
    ended: float
    #: exit code; negative: the signal that ended it
    code: int
    #: met kill -9 while it lived
    killed: bool = False
    #: met two SIGTERM
    left_at_once: bool = False
    #: met one SIGTERM
    told_to_stop: bool = False
    #: how often the service was stopped under it
    service_stops: int = 0

    @property
    def cuts(self) -> int:
        """How often POSTs that were open may have been cut off, on either side."""
        return int(self.killed or self.left_at_once) + self.service_stops


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A job that the product names as held."""

    #: key, or key/variant
    name: str
    #: epoch seconds
    sent: float


def inputs_of(held: Held, played: Sequence[Played], settings: Settings) -> tuple[int, str | None]:
    """Which leg sent the job that is held, and its inputs; None where no catalog so far has such a job."""
    # Its instant is told to the second, and no two legs share one.
    number = leg_at(held.sent + 0.999, played)
    return number, dict(slots(played[number].leg.catalog, settings)).get(held.name)


def leg_at(at: float, played: Sequence[Played]) -> int:
    """The leg that an instant belongs to."""
    return max((number for number, leg in enumerate(played) if leg.began <= at), default=0)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    schedule: Schedule
    played: tuple[Played, ...]
    #: lines of executions.jsonl
    executions: Sequence[Mapping[str, Any]]
    #: lines of requests.jsonl
    requests: Sequence[Mapping[str, Any]]
    #: lines of answers.jsonl
    late: Sequence[Mapping[str, Any]]
    #: lines of webhooks.jsonl
    delivered: Sequence[Mapping[str, Any]]
    manifest: Sequence[Mapping[str, str]]
    held: tuple[Held, ...]
    #: ids of executions that the ledger knows
    known: frozenset[str]
    #: what went wrong on the way
    problems: tuple[str, ...] = ()


class Fate(StrEnum):
    """What became of the answer to a POST, as the service saw it."""

    #: it was handed to a client that was there, and says all there is to say
    HEARD = "heard"
    #: as HEARD, and it proves that nothing was accepted
    REFUSED = "refused"
    #: a fault took it, or the client had stopped waiting; or it proves nothing
    LOST = "lost"
    #: somebody was killed before it left
    CUT_OFF = "cut_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A POST as the service saw it."""

    at: float
    inputs: str
    #: which leg sent it
    leg: int
    fate: Fate
    #: of the execution that was accepted
    execution_id: str | None


@dataclass(slots=True, kw_only=True)
class Tally:
    """The numbers of one schedule, or of many."""

    schedules: int = 0
    #: processes of the client
    runs: int = 0
    #: of these, ended by kill -9
    kills: int = 0
    #: of these, stopped by one SIGTERM, or by two
    terms: int = 0
    #: stops of the service under a running client
    service_stops: int = 0
    #: jobs of the last catalogs
    jobs: int = 0
    starts: int = 0
    accepted: int = 0
    #: accepted beyond the first for the same inputs, and nobody had asked for it
    duplicates: int = 0
    #: sent again though the first was not proved refused, accepted or not
    unproved: int = 0
    #: accepted once more because the user had said so
    consented: int = 0
    #: accepted, and neither is the id known nor the row held
    lost: int = 0
    #: accepted and not known, but the user has said to send it again or to give it up
    let_go: int = 0
    held_accepted: int = 0
    held_not_accepted: int = 0
    #: of the held, those whose answer was lost
    held_unheard: int = 0
    #: of the held, the others: open when the client or the service was stopped
    held_cut_off: int = 0
    #: answers to a POST that were lost, by the service's log
    answers_lost: int = 0
    #: POSTs that the service saw open when somebody was killed
    cut_off: int = 0
    #: POSTs that may have been open then besides: on their way to the service, or their answers on the way back
    on_the_way: int = 0
    #: (fault, what it met)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: how the jobs of the last catalogs stand
    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def held(self) -> int:
        return self.held_accepted + self.held_not_accepted

    @property
    def most_held(self) -> int:
        return self.answers_lost + self.cut_off + self.on_the_way

    def add(self, other: Tally) -> None:
        for name in self.__slots__:
            mine = getattr(self, name)
            setattr(self, name, mine + getattr(other, name))


def count(evidence: Evidence) -> Tally:
    """Count, and say what should not be."""
    return _Count(evidence=evidence).tally()


@dataclass(frozen=True, kw_only=True)
class _Count:
    evidence: Evidence

    # -- what the service saw ------------------------------------------------------------------------------

    @cached_property
    def catalogs(self) -> tuple[dict[str, str], ...]:
        """For each leg: name of the job -> its inputs."""
        settings = self.evidence.schedule.settings
        return tuple(dict(slots(played.leg.catalog, settings)) for played in self.evidence.played)

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        """Every POST, oldest first."""
        found = [
            Start(
                at=line["at"],
                inputs=canonical(line["inputs"]),
                leg=leg_at(line["at"], self.evidence.played),
                fate=self._fate(line),
                execution_id=line["accepted"],
            )
            for line in self.evidence.requests
            if line["kind"] == "start" and line["inputs"] is not None
        ]
        logged = {start.execution_id for start in found}
        # A service killed between the two lines has accepted what its log of requests does not hold.
        found += [
            Start(
                at=line["created_at"],
                inputs=canonical(line["inputs"]),
                leg=leg_at(line["created_at"], self.evidence.played),
                fate=Fate.CUT_OFF,
                execution_id=line["execution_id"],
            )
            for line in self.evidence.executions
            if line["execution_id"] not in logged
        ]
        return tuple(sorted(found, key=lambda start: start.at))

    def _fate(self, line: Mapping[str, Any]) -> Fate:
        status, fault = line["status"], line["fault"]
        taken = status is None and fault is not None
        if taken or (
            status is not None and (status >= 500 or status == 408 or (status < 300 and fault in _UNREADABLE))
        ):
            return Fate.LOST
        if not self._is_answered(line):
            leg = self.evidence.played[leg_at(line["at"], self.evidence.played)]
            had_given_up = line["at"] + self.evidence.schedule.settings.request_timeout < leg.ended
            return Fate.LOST if not leg.cuts or (had_given_up and not leg.service_stops) else Fate.CUT_OFF
        return Fate.REFUSED if status is not None and status >= 300 else Fate.HEARD

    def _is_answered(self, line: Mapping[str, Any]) -> bool:
        """Whether the answer left for a client that was there; a late one says so in a line of its own."""
        answered: bool | None = line["answered"]
        return line["request_id"] in self._late if answered is None else answered

    @cached_property
    def _late(self) -> frozenset[str]:
        return frozenset(line["request_id"] for line in self.evidence.late if line["answered"])

    @cached_property
    def executions(self) -> dict[str, Mapping[str, Any]]:
        return {line["execution_id"]: line for line in self.evidence.executions}

    @cached_property
    def bought(self) -> dict[str, list[Start]]:
        """The starts that were accepted, by inputs, oldest first."""
        found: defaultdict[str, list[Start]] = defaultdict(list)
        for start in self.starts:
            if start.execution_id is not None:
                found[start.inputs].append(start)
        return dict(found)

    def _ended_badly(self, start: Start) -> float | None:
        """Since when the client could know that this execution ended badly; None: it did not, or nobody was told."""
        execution = self.executions.get(start.execution_id or "")
        if execution is None or (execution["ending"] != "failed" and execution["failed_output"] is None):
            return None
        end = execution["created_at"] + execution["seconds"]
        read = (line["at"] for line in self.evidence.requests if line["kind"] == "read" and self._is_heard(line, start))
        called = (line["at"] for line in self.evidence.delivered if line["execution_id"] == start.execution_id)
        return min((at for at in (*read, *called) if at >= end - 0.001), default=None)

    def _is_heard(self, line: Mapping[str, Any], start: Start) -> bool:
        return line["execution_id"] == start.execution_id and line["status"] == 200 and self._is_answered(line)

    def _is_asked_for(self, first: Start, second: Start) -> bool:
        """Whether the user has asked for `second` though `first` was sent with the same inputs.

        `--retry-failed` asks for what had failed, and was told to have, before that run began; not for what was given
        up. The words about held jobs ask for what was sent in an earlier leg, and whose answer was lost or cut off.
        """
        told = self._ended_badly(first)
        for number in range(first.leg, second.leg + 1):
            played = self.evidence.played[number]
            may_be_held = number > first.leg and self._may_be_held(first)
            if played.leg.retries_failed and told is not None and told < played.began:
                return True
            if may_be_held and played.leg.resubmits_held:
                return True
            if may_be_held and played.leg.settle is Words.LOOKED_UP and first.execution_id is None:
                return True
        return False

    def _may_be_held(self, start: Start) -> bool:
        return start.fate in {Fate.LOST, Fate.CUT_OFF} or self.evidence.played[start.leg].cuts > 0

    def _is_let_go(self, start: Start) -> bool:
        """Whether the user has said not to care for what became of this one."""
        later = self.evidence.played[start.leg + 1 :]
        return self._may_be_held(start) and any(
            played.leg.settle is Words.GIVE_UP or played.leg.resubmits_held for played in later
        )

    # -- what the product says -----------------------------------------------------------------------------

    @cached_property
    def held(self) -> tuple[tuple[Held, int, str | None], ...]:
        """Each job named as held, the leg that sent it, and its inputs."""
        settings = self.evidence.schedule.settings
        return tuple((held, *inputs_of(held, self.evidence.played, settings)) for held in self.evidence.held)

    @cached_property
    def lines(self) -> dict[str, Mapping[str, str]]:
        """The manifest by name of the job."""
        return {
            f"{line['lamina_key']}/{line['lamina_variant']}" if line["lamina_variant"] else line["lamina_key"]: line
            for line in self.evidence.manifest
        }

    # -- the two held against each other -------------------------------------------------------------------

    def tally(self) -> Tally:
        played = self.evidence.played
        tally = Tally(
            schedules=1,
            runs=len(played),
            kills=sum(leg.killed for leg in played),
            terms=sum(leg.told_to_stop or leg.left_at_once for leg in played),
            service_stops=sum(leg.service_stops for leg in played),
            jobs=len(self.catalogs[-1]),
            starts=len(self.starts),
            accepted=len(self.evidence.executions),
            answers_lost=sum(start.fate is Fate.LOST for start in self.starts),
            cut_off=sum(start.fate is Fate.CUT_OFF for start in self.starts),
            statuses=Counter(line["lamina_status"] for line in self.evidence.manifest),
            problems=list(self.evidence.problems),
        )
        self._count_faults(tally)
        self._count_repeats(tally)
        self._count_lost(tally)
        self._count_held(tally)
        tally.problems += [*self._strangers(), *self._manifest_problems()]
        return tally

    def _count_faults(self, tally: Tally) -> None:
        for line in self.evidence.requests:
            kind = line["kind"] if line["kind"] in {"start", "read"} else "other"
            fault = line["fault"] or ("429 of the limiter" if line["status"] == 429 else None)
            if fault is not None:
                tally.faults[fault, kind] += 1
        # The log names one fault for each request, and that of the answer goes first.
        for ending, name in (("never", "never_finish"), ("failed", "failed")):
            tally.faults[name, "start"] = sum(line["ending"] == ending for line in self.evidence.executions)
        tally.faults["failed_output", "start"] = sum(
            line["failed_output"] is not None for line in self.evidence.executions
        )

    def _count_repeats(self, tally: Tally) -> None:
        for inputs, bought in self.bought.items():
            for first, second in pairwise(bought):
                if self._is_asked_for(first, second):
                    tally.consented += 1
                else:
                    tally.duplicates += 1
                    tally.problems.append(f"duplicate: {second.execution_id} after {first.execution_id}: {inputs}")
        last: dict[str, Start] = {}
        for start in self.starts:
            first_sent = last.get(start.inputs)
            last[start.inputs] = start
            if first_sent is None or first_sent.fate is Fate.REFUSED or self._is_asked_for(first_sent, start):
                continue
            tally.unproved += 1
            tally.problems.append(
                f"sent again in leg {start.leg} though the one of leg {first_sent.leg} "
                f"may have been accepted: {start.inputs}"
            )

    def _count_lost(self, tally: Tally) -> None:
        """Each execution that was paid for is shown by its row, or the row is held.

        Where no row wants it any more, or its row shows a newer one, the ledger knows the id.
        """
        shown = {line["lamina_execution_id"] for line in self.lines.values()}
        held = {inputs for _, _, inputs in self.held}
        empty = {
            self.catalogs[-1].get(name)
            for name, line in self.lines.items()
            if not line["lamina_execution_id"] and line["lamina_status"] != "held"
        }
        for start in self.starts:
            if start.execution_id is None or start.execution_id in shown or start.inputs in held:
                continue
            if start.execution_id in self.evidence.known and start.inputs not in empty:
                continue
            if self._is_let_go(start):
                tally.let_go += 1
            else:
                tally.lost += 1
                tally.problems.append(f"lost: {start.execution_id} of leg {start.leg}: {start.inputs}")

    def _count_held(self, tally: Tally) -> None:
        """Each held job has a reason: its own answer was lost, or it was open when somebody was killed."""
        fates = {(start.leg, start.inputs): start.fate for start in self.starts}
        on_the_way: Counter[int] = Counter()
        for held, leg, inputs in self.held:
            bought = [start for start in self.bought.get(inputs or "", ()) if start.leg == leg]
            if bought:
                tally.held_accepted += 1
            else:
                tally.held_not_accepted += 1
            if inputs is None:
                tally.problems.append(f"held, but no catalog ever had it: {held.name}")
            if any(start.execution_id in self._polled for start in bought):
                tally.problems.append(f"held, though its answer was heard in leg {leg}: {held.name}")
            fate = fates.get((leg, inputs or ""))
            if fate is Fate.LOST:
                tally.held_unheard += 1
                continue
            tally.held_cut_off += 1
            if fate is not Fate.CUT_OFF:
                on_the_way[leg] += 1
        for number in range(len(self.evidence.played)):
            room = self._may_be_on_the_way(number)
            tally.on_the_way += room
            if on_the_way[number] > room:
                tally.problems.append(
                    f"too many held: {on_the_way[number]} jobs of leg {number} whose answers were neither lost nor "
                    f"cut off, and {room} may have been on the way when somebody was killed"
                )
        said = {self.catalogs[-1].get(name) for name, line in self.lines.items() if line["lamina_status"] == "held"}
        for unnamed in said - {inputs for _, _, inputs in self.held}:
            tally.problems.append(f"the manifest says held, and `status` does not name it: {unnamed}")

    def _may_be_on_the_way(self, number: int) -> int:
        """How many POSTs of this leg may have been open at a kill without the service's having seen them cut off.

        At most one for each inputs that the leg could send at all, less those whose fate is known: the answer was lost
        or cut off, or it was heard, since the execution was polled. And at most 16 for each kill in all.
        """
        played = self.evidence.played[number]
        leg = played.leg
        if not leg.submits or number not in self._informed:
            return 0
        could = set(self.catalogs[number].values())
        if not any(before.leg.sends_again for before in self.evidence.played[: number + 1]):
            could -= {start.inputs for start in self.starts if start.leg < number and start.fate is not Fate.REFUSED}
        mine = [start for start in self.starts if start.leg == number]
        could -= {start.inputs for start in mine if start.execution_id in self._polled}
        could -= {start.inputs for start in mine if start.fate in {Fate.LOST, Fate.CUT_OFF}}
        most = played.cuts * self._most_open
        if not played.service_stops:
            most -= sum(start.fate is Fate.CUT_OFF for start in mine)
        return max(0, min(most, len(could)))

    @cached_property
    def _most_open(self) -> int:
        return min(MOST_OPEN_POSTS, self.evidence.schedule.settings.max_in_flight)

    @cached_property
    def _informed(self) -> frozenset[int]:
        """The legs that were told of the app: before that, nothing is submitted."""
        return frozenset(
            leg_at(line["at"], self.evidence.played)
            for line in self.evidence.requests
            if line["kind"] == "app" and line["status"] == 200
        )

    @cached_property
    def _polled(self) -> frozenset[str]:
        """The executions that the client asked about, so that it knows their ids."""
        return frozenset(line["execution_id"] for line in self.evidence.requests if line["kind"] == "read")

    def _strangers(self) -> Iterator[str]:
        """What was bought though no catalog so far had it, and what `collect` bought."""
        for start in self.starts:
            if not any(start.inputs in catalog.values() for catalog in self.catalogs[: start.leg + 1]):
                yield f"nobody asked for this: {start.inputs}"
            if not self.evidence.played[start.leg].leg.submits:
                yield f"`collect` submitted: {start.inputs}"

    def _manifest_problems(self) -> Iterator[str]:
        wanted = self.catalogs[-1]
        if list(self.lines) != list(wanted):
            yield f"the manifest has {len(self.lines)} lines, or not in their order, for {len(wanted)} jobs"
        for name, line in self.lines.items():
            status, execution_id = line["lamina_status"], line["lamina_execution_id"]
            if status not in _REACHED_AN_END:
                yield f"{name} is still {status}"
            if not execution_id:
                continue
            execution = self.executions.get(execution_id)
            if execution is None:
                yield f"{name} shows an execution that the service does not know: {execution_id}"
            elif canonical(execution["inputs"]) != wanted.get(name):
                yield f"{name} shows an execution with other inputs: {execution_id}"
            elif status != "held" and status != (truth := _true_status(execution)):
                yield f"{name} is said to be {status}, and it is {truth}: {execution_id}"
        last = self.evidence.played[-1]
        some_held = any(line["lamina_status"] == "held" for line in self.lines.values())
        if (last.code == 6) is not some_held:
            yield f"exit code {last.code}, and held rows: {some_held}"


def _true_status(execution: Mapping[str, Any]) -> str:
    if execution["ending"] == "never":
        return "timed_out"
    if execution["ending"] == "failed":
        return "failed"
    return "partial" if execution["failed_output"] is not None else "completed"
