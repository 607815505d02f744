"""What a seed stands for: a catalog and its changes, the faults of the service, and the moment of every blow. Pure."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from process import APP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: The client opens no more POSTs than this at once (docs/ledger.md).
MOST_OPEN_POSTS = 16
BACK = "https://images.example.com/back.jpg"
LOCATIONS = ("Studio", "Park")
#: Where a fault keeps an answer back for longer than any client waits.
FOREVER = 60


class Blow(StrEnum):
    #: kill -9 of the client
    KILL = "kill"
    #: SIGTERM to the client: it lets what is open land
    TERM = "term"
    #: SIGTERM, and again: it leaves at once
    TERM_TWICE = "term_twice"
    #: kill -9 of the service, which comes back
    SERVICE_KILL = "service_kill"
    #: SIGTERM to the service, which comes back
    SERVICE_TERM = "service_term"


class Words(StrEnum):
    """What a user says of held jobs, with `lamina-batch held`."""

    #: each was looked up at the service: adopted where it was accepted, sent again where it was not
    LOOKED_UP = "looked_up"
    #: sent again, whatever became of it
    RESUBMIT = "resubmit"
    GIVE_UP = "give_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A blow and its moment: so long after so many requests of the leg stand in the service's log."""

    blow: Blow
    of: Literal["start", "any"]
    count: int
    #: seconds
    delay: float
    #: seconds that the service stays away
    down: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    key: str
    title: str
    image: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What the client is asked for: the rows, and the one part of the pipeline file that changes."""

    rows: tuple[Row, ...]
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What stays the same through a schedule."""

    share_identical: bool
    matrix: bool
    max_in_flight: int
    #: seconds
    request_timeout: int
    #: seconds; executions that never end are waited for so long
    execution_timeout: int
    #: which of the API's generations the service has
    generation: Literal["executions", "runs", "both"]
    #: ends are told by callback, not asked for
    webhook: bool
    download: bool
    #: the service's rate limit
    limit: int
    window: int
    speed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One process of the client, what the user says before it of what is held, and what happens to it."""

    catalog: Catalog
    settle: Words | None = None
    command: tuple[str, ...] = ("run",)
    strikes: tuple[Strike, ...] = ()

    @property
    def submits(self) -> bool:
        return self.command[0] == "run"

    @property
    def retries_failed(self) -> bool:
        return "--retry-failed" in self.command

    @property
    def resubmits_held(self) -> bool:
        return self.settle is Words.RESUBMIT or "run.on_unknown=resubmit" in self.command

    @property
    def sends_again(self) -> bool:
        """Whether something may be sent again from here on that was sent before."""
        return self.retries_failed or self.resubmits_held or self.settle is Words.LOOKED_UP


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    seed: int
    settings: Settings
    #: of the service while the storm lasts
    faults: tuple[str, ...]
    #: the storm; afterwards the last catalog is run until it is done
    legs: tuple[Leg, ...]

    def short(self) -> Schedule:
        """Its beginning."""
        return replace(self, legs=self.legs[:2])


# -- what a catalog means ------------------------------------------------------------------------------------


def slots(catalog: Catalog, settings: Settings) -> Iterator[tuple[str, str]]:
    """Each job of the catalog: how people name it (key, or key/variant), and its inputs as canonical text.

    Written down a second time on purpose: what the product makes of a row is held against this.
    """
    for row in catalog.rows:
        prompt = f"{row.title} in {catalog.tone} light"
        inputs = {
            "Front": image_url(row),
            "Back": BACK,
            # The runs generation wants a value wherever the app has no default (docs/lamina-api.md,
            # "Required and default").
            "Model Gender": "Female",
            "Style": "Luxury",
            # Where equal rows are bought each for itself, the key tells them apart in the service's log.
            "Prompt": prompt if settings.share_identical else f"{row.key}: {prompt}",
        }
        if not settings.matrix:
            yield row.key, canonical(inputs)
            continue
        for location in LOCATIONS:
            yield f"{row.key}/Location={location}", canonical({**inputs, "Location": location})


def canonical(inputs: Mapping[str, object]) -> str:
    return json.dumps(inputs, sort_keys=True)


def image_url(row: Row) -> str:
    return f"https://images.example.com/{row.image:05}.jpg"


def pipeline_text(catalog: Catalog, settings: Settings, *, listen: str) -> str:
    """The pipeline file; `listen` is where callbacks are taken."""
    prompt = f"{{title}} in {catalog.tone} light"
    if not settings.share_identical:
        prompt = f"{{sku}}: {prompt}"
    matrix = f"matrix:\n  Location: [{', '.join(LOCATIONS)}]\n" if settings.matrix else ""
    webhook = f"  completion: webhook\n  webhook: {{public_url: http://{listen}, listen: {listen}}}\n"
    download = 'results:\n  download: "files/{key}/{variant}/{label}.{ext}"\n'
    return f"""\
version: 1
app: {APP}
rows:
  from: rows.csv
  key: sku
inputs:
  Front: {{column: front}}
  Back: {{value: {BACK}}}
  Model Gender: {{value: Female}}
  Style: {{value: Luxury}}
  Prompt: {{template: "{prompt}"}}
{matrix}run:
  share_identical: {str(settings.share_identical).lower()}
  max_in_flight: {settings.max_in_flight}
  request_timeout: {settings.request_timeout}s
  execution_timeout: {settings.execution_timeout}s
  poll: {{min_interval: 1s, max_interval: 1s}}
{webhook if settings.webhook else ""}{download if settings.download else ""}"""


# -- drawing one ---------------------------------------------------------------------------------------------


def draw(seed: int) -> Schedule:
    """The schedule of this seed, the same one every time."""
    chance = random.Random(seed)
    settings = Settings(
        share_identical=chance.random() < 0.75,
        matrix=chance.random() < 0.2,
        max_in_flight=chance.choice((100, 100, 100, 8, 3)),
        request_timeout=chance.choice((3, 3, 10)),
        execution_timeout=4,
        generation=chance.choices(("executions", "runs", "both"), weights=(6, 2, 1))[0],
        webhook=chance.random() < 0.25,
        download=chance.random() < 0.25,
        limit=chance.choice((100_000, 100_000, 60, 25)),
        window=1,
        speed=chance.choice((20, 60, 200)),
    )
    numbers = iter(range(1, 10_000))
    rows = chance.randint(3, 20) if settings.matrix or settings.limit == 25 else chance.randint(3, 40)
    catalog = Catalog(rows=tuple(_new_row(next(numbers)) for _ in range(rows)), tone="soft")
    seen = [catalog]
    legs: list[Leg] = []
    for number in range(chance.randint(3, 5)):
        if number and chance.random() < 0.6:
            catalog = _changed(chance, catalog, seen, numbers)
            seen.append(catalog)
        count = sum(1 for _ in slots(catalog, settings))
        legs.append(
            Leg(
                catalog=catalog,
                settle=chance.choice(tuple(Words)) if number and chance.random() < 0.15 else None,
                command=_command(chance, number, settings),
                strikes=_strikes(chance, number, count),
            )
        )
    return Schedule(seed=seed, settings=settings, faults=_faults(chance, settings), legs=tuple(legs))


def _new_row(number: int) -> Row:
    return Row(key=f"R{number:05}", title=f"Dress {number}", image=number)


def _changed(chance: random.Random, catalog: Catalog, seen: list[Catalog], numbers: Iterator[int]) -> Catalog:
    """The catalog as somebody left it overnight."""
    rows = list(catalog.rows)
    tone = catalog.tone
    for change in chance.choices(
        ("rename", "edit", "add", "equal", "remove", "shuffle", "tone", "earlier"),
        weights=(4, 4, 4, 4, 3, 1, 0.7, 1),
        k=chance.randint(1, 3),
    ):
        at = chance.randrange(len(rows))
        match change:
            case "rename":
                rows[at] = replace(rows[at], key=f"R{next(numbers):05}")
            case "edit":
                rows[at] = replace(rows[at], title=f"Coat {next(numbers)}")
            case "add":
                rows += [_new_row(next(numbers)) for _ in range(chance.randint(1, 5))]
            case "equal":
                rows.insert(at, replace(rows[at], key=f"R{next(numbers):05}"))
            case "remove":
                gone = set(chance.sample(range(len(rows)), k=min(len(rows) - 1, chance.randint(1, 3))))
                rows = [row for number, row in enumerate(rows) if number not in gone]
            case "shuffle":
                chance.shuffle(rows)
            case "tone":
                tone = chance.choice(("soft", "hard", "warm"))
            case _:
                earlier = chance.choice(seen)
                rows, tone = list(earlier.rows), earlier.tone
    return Catalog(rows=tuple(rows), tone=tone)


def _command(chance: random.Random, number: int, settings: Settings) -> tuple[str, ...]:
    # Callbacks have to be waited for: the product refuses to leave.
    leave = ("run",) if settings.webhook else ("run", "--no-wait")
    if number == 0:
        return chance.choice((("run",), ("run",), leave))
    return chance.choices(
        (
            ("run",),
            leave,
            ("run", "--retry-failed"),
            ("run", "--limit", "5"),
            ("collect",),
            ("run", "--set", "run.on_unknown=resubmit"),
        ),
        weights=(10, 3, 2, 1, 2, 0.7),
    )[0]


def _strikes(chance: random.Random, number: int, jobs: int) -> tuple[Strike, ...]:
    blows: list[Blow] = []
    if chance.random() < 0.9:
        blows += chance.choices((Blow.KILL, Blow.TERM, Blow.TERM_TWICE), weights=(10, 1, 1))
    if chance.random() < 0.25:
        blows += chance.choices((Blow.SERVICE_KILL, Blow.SERVICE_TERM), weights=(2, 1))
    return tuple(_strike(chance, blow, number, jobs) for blow in blows)


def _strike(chance: random.Random, blow: Blow, number: int, jobs: int) -> Strike:
    """In the middle of a burst of POSTs, or anywhere, the start and the end of a run included.

    Early enough to leave something for the next leg; later legs have less to send.
    """
    in_burst = chance.random() < (0.8 if number == 0 else 0.5)
    return Strike(
        blow=blow,
        of="start" if in_burst else "any",
        count=chance.randint(1, max(1, jobs // (2 if number == 0 else 5))) if in_burst else chance.randint(1, 4),
        delay=round(chance.uniform(0, 0.03) if in_burst else chance.uniform(0, 1.5), 3),
        down=round(chance.uniform(0, 1.5), 3),
    )


def _faults(chance: random.Random, settings: Settings) -> tuple[str, ...]:
    """A few of each kind. Of several the first that fires wins, so that the slow answers, which take all, go last."""

    def some(least: float, most: float) -> str:
        return f"rate={chance.uniform(least, most):.3f}"

    starts = [
        f"429:on=start,{some(0.05, 0.3)}",
        f"500:on=start,{some(0.02, 0.15)}",
        f"500_accepted:{some(0.02, 0.15)}",
        f"502:on=start,{some(0.02, 0.1)}",
        f"502_accepted:{some(0.02, 0.1)}",
        f"drop_before:on=start,{some(0.02, 0.1)}",
        f"drop_after_accept:{some(0.02, 0.15)}",
        f"broken_json:on=start,{some(0.02, 0.1)}",
        f"truncated:on=start,{some(0.02, 0.1)}",
    ]
    if settings.request_timeout < 10:
        starts.append(f"hang_after_accept:seconds={FOREVER},{some(0.01, 0.06)}")
    reads = [
        f"429:on=read,{some(0.05, 0.2)}",
        f"500:on=read,{some(0.05, 0.3)}",
        f"502:on=read,{some(0.05, 0.3)}",
        f"drop_before:on=read,{some(0.05, 0.2)}",
        f"broken_json:on=read,{some(0.05, 0.2)}",
        f"truncated:on=read,{some(0.05, 0.2)}",
        f"slow:on=read,seconds=0.5,{some(0.1, 0.5)}",
        "huge_body:on=read,first=1",
    ]
    app = [
        "429:on=app,first=1",
        "500:on=app,first=2",
        "502:on=app,first=1",
        "drop_before:on=app,first=1",
        "broken_json:on=app,first=1",
        "truncated:on=app,first=1",
    ]
    executions = [
        f"never_finish:{some(0.02, 0.1)}",
        f"failed:{some(0.05, 0.2)}",
        f"failed_output:{some(0.05, 0.2)}",
    ]
    deliveries = [
        f"webhook_early:{some(0.1, 0.4)}",
        f"webhook_lost:{some(0.1, 0.4)}",
        f"webhook_twice:{some(0.1, 0.4)}",
    ]
    chosen = [
        *chance.sample(starts, k=chance.randint(1, 4)),
        *chance.sample(reads, k=chance.randint(0, 3)),
        *chance.sample(app, k=chance.randint(0, 1)),
        *chance.sample(executions, k=chance.randint(0, 2)),
        *(chance.sample(deliveries, k=chance.randint(0, 2)) if settings.webhook else ()),
    ]
    slow = chance.random()
    if slow < 0.15 and settings.request_timeout < 10:
        # Slower than the client waits: the answer is lost.
        chosen.append(f"slow:on=start,seconds={settings.request_timeout + 3},{some(0.02, 0.06)}")
    elif slow < 0.75:
        chosen.append(f"slow:on=start,seconds={chance.uniform(0.05, 0.6):.2f},{some(0.3, 1.0)}")
    return tuple(chosen)
