"""Faults asked for by name: which there are, how they are written, and which requests meet one. Pure.

A fault is written `name` or `name:key=value,key=value`. docs/sandbox.md shows each with an example.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What a request is for: starting an execution, reading one or waiting for it, listing many, the rest of the API, or
#: an output's file.
RequestKind = Literal["start", "read", "list", "app", "media"]


class FaultStage(Enum):
    """What a fault changes."""

    #: the request is answered without reaching the service: nothing is accepted
    REFUSE = "refuse"
    #: the service does what it is asked, and the answer does not arrive whole or in time
    ANSWER = "answer"
    #: as ANSWER, but only where an execution has been accepted
    ACCEPTED = "accepted"
    #: the execution that is accepted ends badly
    EXECUTION = "execution"
    #: its end is told in another way than it should be
    DELIVERY = "delivery"
    #: the key that signs webhooks changes
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """What a name means."""

    stage: FaultStage
    #: the requests it is about unless on= says otherwise: one of their kinds, or any (all but media)
    on: str
    #: settings of its own with their defaults; None: must be given
    settings: Mapping[str, str | float | None] = field(default_factory=dict)
    #: once it has fired, it fires for all of these from then on; empty: it does not last
    persists_for: str = ""


FAULT_RULES: Mapping[str, FaultRule] = MappingProxyType(
    {
        "429": FaultRule(stage=FaultStage.REFUSE, on="any"),
        "500": FaultRule(stage=FaultStage.REFUSE, on="any", settings={"code": "INTERNAL_ERROR"}),
        "502": FaultRule(stage=FaultStage.REFUSE, on="any"),
        "503": FaultRule(stage=FaultStage.REFUSE, on="any"),
        "drop_before": FaultRule(stage=FaultStage.REFUSE, on="any"),
        "redirect": FaultRule(stage=FaultStage.REFUSE, on="any", settings={"to": None}),
        "unauthorized": FaultRule(stage=FaultStage.REFUSE, on="any", persists_for="any"),
        "credits_400": FaultRule(stage=FaultStage.REFUSE, on="start", persists_for="start"),
        "500_accepted": FaultRule(stage=FaultStage.ACCEPTED, on="start"),
        "502_accepted": FaultRule(stage=FaultStage.ACCEPTED, on="start"),
        "drop_after_accept": FaultRule(stage=FaultStage.ACCEPTED, on="start"),
        "hang_after_accept": FaultRule(stage=FaultStage.ACCEPTED, on="start", settings={"seconds": 3600.0}),
        "slow": FaultRule(stage=FaultStage.ANSWER, on="any", settings={"seconds": 2.0}),
        "broken_json": FaultRule(stage=FaultStage.ANSWER, on="any"),
        "truncated": FaultRule(stage=FaultStage.ANSWER, on="any"),
        "huge_body": FaultRule(stage=FaultStage.ANSWER, on="any"),
        "credits": FaultRule(stage=FaultStage.EXECUTION, on="start", persists_for="start"),
        "failed": FaultRule(stage=FaultStage.EXECUTION, on="start", settings={"message": "Image generation timed out"}),
        "failed_output": FaultRule(
            stage=FaultStage.EXECUTION, on="start", settings={"message": "Image generation failed"}
        ),
        "cancelled": FaultRule(stage=FaultStage.EXECUTION, on="start"),
        "never_finish": FaultRule(stage=FaultStage.EXECUTION, on="start"),
        "webhook_early": FaultRule(stage=FaultStage.DELIVERY, on="start"),
        "webhook_lost": FaultRule(stage=FaultStage.DELIVERY, on="start", settings={"tries": 4.0}),
        "webhook_twice": FaultRule(stage=FaultStage.DELIVERY, on="start"),
        "webhook_forged": FaultRule(stage=FaultStage.DELIVERY, on="start", settings={"tries": 4.0}),
        "webhook_stale": FaultRule(stage=FaultStage.DELIVERY, on="start", settings={"tries": 4.0}),
        "webhook_wrong_id": FaultRule(stage=FaultStage.DELIVERY, on="start", settings={"tries": 4.0}),
        "webhook_key_rotated": FaultRule(stage=FaultStage.KEY, on="start"),
    }
)

_SELECTORS = ("on", "rate", "every", "after", "first", "match")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxFault:
    """One fault as it was asked for."""

    name: str
    stage: FaultStage
    #: the requests it may fire for
    kinds: frozenset[RequestKind]
    #: those it fires for without a further question once it has fired
    persistent_kinds: frozenset[RequestKind]
    #: chance to fire, 0 to 1
    rate: float
    #: fires for each n-th request
    every: int
    #: lets this many requests go first
    after: int
    #: fires for no more than this many requests
    first: int | None
    #: only requests whose inputs hold this text
    match: str
    seconds: float
    message: str
    to: str
    #: of an error, in the runs generation
    code: str
    #: how many tries of a delivery it concerns, the first ones
    tries: int


class ChosenFaults(NamedTuple):
    """What happens to one request: of the faults that concern the same thing, the first that was asked for."""

    answer: SandboxFault | None
    execution: SandboxFault | None = None
    delivery: SandboxFault | None = None
    key: SandboxFault | None = None


def parse_faults(specs: Iterable[str]) -> tuple[SandboxFault, ...]:
    """The faults that `specs` ask for. Raises ValueError, which lists the known names, where one is not a fault."""
    return tuple(_parse_fault(spec) for spec in specs)


class FaultPlan:
    """Decides for each request. It counts those that each fault is about: the same order meets the same faults."""

    def __init__(self, faults: tuple[SandboxFault, ...], *, seed: int) -> None:
        self._faults = faults
        self._seed = seed
        self._counts = [0] * len(faults)
        self._fired: set[int] = set()

    def choose(self, kind: RequestKind, texts: Iterable[str]) -> ChosenFaults:
        """What happens to this request. `texts` are the inputs of the execution that it is about."""
        if not self._faults:
            return ChosenFaults(None)
        texts = tuple(texts)
        # All of them are asked, so that each counts every request that it is about.
        firing = [fault for index, fault in enumerate(self._faults) if self._fires(index, fault, kind, texts)]
        return ChosenFaults(
            answer=_first(firing, FaultStage.REFUSE, FaultStage.ANSWER, FaultStage.ACCEPTED),
            execution=_first(firing, FaultStage.EXECUTION),
            delivery=_first(firing, FaultStage.DELIVERY),
            key=_first(firing, FaultStage.KEY),
        )

    def _fires(self, index: int, fault: SandboxFault, kind: RequestKind, texts: tuple[str, ...]) -> bool:
        if index in self._fired and kind in fault.persistent_kinds:
            return True
        if kind not in fault.kinds:
            return False
        if fault.match and not any(fault.match in text for text in texts):
            return False
        self._counts[index] += 1
        count = self._counts[index] - fault.after
        if count < 1 or count % fault.every or (fault.first is not None and count > fault.first):
            return False
        # A draw of its own for each request, so that what other requests do does not shift it.
        chance = random.Random(f"{self._seed}:{index}:{count}")  # noqa: S311 -- a dice, not a secret
        if chance.random() >= fault.rate:
            return False
        self._fired.add(index)
        return True


def _first(firing: Iterable[SandboxFault], *stages: FaultStage) -> SandboxFault | None:
    return next((fault for fault in firing if fault.stage in stages), None)


def _parse_fault(spec: str) -> SandboxFault:
    name, _, written = spec.partition(":")
    rule = FAULT_RULES.get(name.strip())
    if rule is None:
        raise ValueError(f"{name.strip()!r} is no fault of the sandbox. Known: {', '.join(FAULT_RULES)}")
    values: dict[str, str] = {}
    for part in written.split(",") if written else ():
        key, equals, value = part.partition("=")
        if not equals or key.strip() not in {*_SELECTORS, *rule.settings}:
            known = ", ".join(f"{key}=" for key in (*rule.settings, *_SELECTORS))
            raise ValueError(f"fault {spec!r}: {part!r} is not understood. {name.strip()} takes {known}")
        values[key.strip()] = value
    for key, default in rule.settings.items():
        if default is None and key not in values:
            raise ValueError(f"fault {spec!r}: {key}= is missing")
    if rule.persists_for and "first" in values:
        raise ValueError(f"fault {spec!r}: {name.strip()} lasts once it has begun, so first= means nothing")
    return SandboxFault(
        name=name.strip(),
        stage=rule.stage,
        kinds=_parse_kinds(spec, values.get("on", rule.on), rule),
        persistent_kinds=_kinds(rule.persists_for),
        rate=_number(spec, "rate", values.get("rate", "1"), least=0, most=1),
        every=_count(spec, "every", values.get("every", "1"), least=1),
        after=_count(spec, "after", values.get("after", "0"), least=0),
        first=_count(spec, "first", values["first"], least=1) if "first" in values else None,
        match=values.get("match", ""),
        seconds=_number(spec, "seconds", values.get("seconds", str(rule.settings.get("seconds", 0))), least=0),
        message=values.get("message", str(rule.settings.get("message", ""))),
        to=values.get("to", ""),
        code=values.get("code", str(rule.settings.get("code", ""))),
        tries=_count(spec, "tries", values.get("tries", "4"), least=1),
    )


def _parse_kinds(spec: str, on: str, rule: FaultRule) -> frozenset[RequestKind]:
    allowed = ("start",) if rule.on == "start" else (*get_args(RequestKind), "any")
    if on not in allowed:
        raise ValueError(f"fault {spec!r}: on= is one of {', '.join(allowed)}, not {on!r}")
    return _kinds(on)


def _kinds(on: str) -> frozenset[RequestKind]:
    return frozenset(kind for kind in get_args(RequestKind) if kind == on or (on == "any" and kind != "media"))


def _number(spec: str, key: str, value: str, *, least: float, most: float = 1e9) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise ValueError(f"fault {spec!r}: {key}= is a number from {least:g} to {most:g}, not {value!r}")
    return number


def _count(spec: str, key: str, value: str, *, least: int) -> int:
    if not value.strip().isdecimal() or int(value) < least:
        raise ValueError(f"fault {spec!r}: {key}= is a whole number of at least {least}, not {value!r}")
    return int(value)
