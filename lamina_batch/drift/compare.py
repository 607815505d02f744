"""Drift: what is different between two contracts of one app, and which of it breaks a pipeline. Pure.

A name or a label is the same only byte for byte. A pipeline that means one of another spacing would still run, but
what it sends is other content then, and every row of it would be bought again.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from lamina_batch.apps.schema import lenient, match

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lamina_batch.apps.app import App, Parameter


class Kind(StrEnum):
    PARAMETER_REMOVED = "parameter removed"
    PARAMETER_ADDED = "parameter added"
    RETYPED = "retyped"
    MADE_REQUIRED = "made required"
    NO_LONGER_REQUIRED = "no longer required"
    LABEL_REMOVED = "label removed"
    LABEL_RENAMED = "label renamed"
    LABEL_ADDED = "label added"
    DEFAULT_CHANGED = "default changed"
    ACCEPT_CHANGED = "accept changed"
    MULTIPLE_GIVEN = "multiple given"
    MULTIPLE_WITHDRAWN = "multiple withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    kind: Kind
    #: the parameter as it was; None where it is new
    before: Parameter | None
    #: the parameter as it is; None where it is gone
    after: Parameter | None
    #: the label that is gone or new
    label: str | None = None
    #: of a parameter or a label that is gone: what it is probably called now
    likely: str | None = None

    @property
    def parameter(self) -> str:
        """The name of the parameter: the one that a pipeline of before knows, where there is one."""
        known = self.before or self.after
        return known.name if known is not None else ""


def compare(before: App, after: App) -> tuple[Change, ...]:
    """Every change that matters to what may be sent, in the order of the parameters before, the new ones last.

    Descriptions, ids and the order of things do not matter, nor does the generation of the API (see `must_supply`).
    """
    was = {p.name: p for p in before.parameters}
    now = {p.name: p for p in after.parameters}
    gone = [p for p in before.parameters if p.name not in now]
    new = [p for p in after.parameters if p.name not in was]
    likely = _likely_parameters(gone, new)
    changes: list[Change] = []
    for parameter in before.parameters:
        still = now.get(parameter.name)
        if still is None:
            changes.append(
                Change(kind=Kind.PARAMETER_REMOVED, before=parameter, after=None, likely=likely.get(parameter.name))
            )
        else:
            changes += (change for rule in _RULES for change in rule(parameter, still))
    changes += (Change(kind=Kind.PARAMETER_ADDED, before=None, after=parameter) for parameter in new)
    return tuple(changes)


# -- what can change of one parameter: a rule for each ----------------------------------------------------------


def _type(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.type != after.type:
        yield Change(kind=Kind.RETYPED, before=before, after=after)


def _required(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.must_supply != after.must_supply:
        kind = Kind.MADE_REQUIRED if after.must_supply else Kind.NO_LONGER_REQUIRED
        yield Change(kind=kind, before=before, after=after)


def _labels(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.type != after.type:
        return  # with another type there are no labels to look for
    gone = [label for label in before.options if label not in after.options]
    new = [label for label in after.options if label not in before.options]
    likely = likely_names(gone, new)
    if not likely and len(gone) == len(new) == 1 and before.options.index(gone[0]) == after.options.index(new[0]):
        likely = {gone[0]: new[0]}
    for label in gone:
        kind = Kind.LABEL_RENAMED if label in likely else Kind.LABEL_REMOVED
        yield Change(kind=kind, before=before, after=after, label=label, likely=likely.get(label))
    for label in new:
        if label not in likely.values():
            yield Change(kind=Kind.LABEL_ADDED, before=before, after=after, label=label)


def _default(before: Parameter, after: Parameter) -> Iterator[Change]:
    # Where a default decides whether the parameter may be left out, that is what is said of it.
    if before.default != after.default and before.must_supply == after.must_supply:
        yield Change(kind=Kind.DEFAULT_CHANGED, before=before, after=after)


def _accept(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.type == after.type and set(before.accept) != set(after.accept):
        yield Change(kind=Kind.ACCEPT_CHANGED, before=before, after=after)


def _multiple(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.multiple != after.multiple:
        kind = Kind.MULTIPLE_GIVEN if after.multiple else Kind.MULTIPLE_WITHDRAWN
        yield Change(kind=kind, before=before, after=after)


_RULES: tuple[Callable[[Parameter, Parameter], Iterator[Change]], ...] = (
    _type,
    _required,
    _labels,
    _default,
    _accept,
    _multiple,
)


def likely_names(gone: Sequence[str], new: Iterable[str]) -> dict[str, str]:
    """For names that are gone the new one that each probably became; no new one is given twice.

    The same but for case and spaces comes first, then what is most alike.
    """
    left = list(new)
    found: dict[str, str] = {}
    for old in gone:
        same = [name for name in left if lenient(name) == lenient(old)]
        if same:
            found[old] = same[0]
            left.remove(same[0])
    for old in gone:
        if old not in found:
            forms = {lenient(name): name for name in left}
            near = difflib.get_close_matches(lenient(old), forms, n=1, cutoff=0.6)
            if near:
                found[old] = forms[near[0]]
                left.remove(forms[near[0]])
    return found


def _likely_parameters(gone: Sequence[Parameter], new: Sequence[Parameter]) -> dict[str, str]:
    likely: dict[str, str] = {}
    for kind in dict.fromkeys(p.type for p in gone):
        olds = [p.name for p in gone if p.type == kind]
        news = [p.name for p in new if p.type == kind]
        found = likely_names(olds, news)
        likely |= found or (dict(zip(olds, news, strict=True)) if len(olds) == len(news) == 1 else {})
    return likely


# -- what breaks a pipeline -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Where a pipeline uses something of a contract."""

    #: keys of the pipeline file that name it: `inputs.Style.map.Luxe`
    places: tuple[str, ...] = ()
    #: rows whose cells come to it, as the spreadsheet numbers them; of several files `12 of a.csv`
    rows: tuple[str, ...] = ()

    @property
    def used(self) -> bool:
        return bool(self.places or self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """What a pipeline, and the rows of its catalog, use of the contract that it was made for."""

    #: parameters as the pipeline writes them, in `inputs` and `matrix`
    written: frozenset[str] = frozenset()
    #: by name
    parameters: Mapping[str, Use] = field(default_factory=dict)
    #: by name and label
    labels: Mapping[tuple[str, str], Use] = field(default_factory=dict)
    #: parameters that get several values at once
    several: Mapping[str, Use] = field(default_factory=dict)
    #: rows that leave out a parameter, by name; a parameter that no rule gives is left out of all
    blank: Mapping[str, int] = field(default_factory=dict)

    def gives(self, parameter: str, among: Iterable[str]) -> bool:
        """Whether the pipeline means this one of the contract's parameters with something that it writes."""
        names = tuple(among)
        return any(match(written, names) == parameter for written in self.written)


def everything(app: App) -> Uses:
    """The uses of a pipeline that leaves nothing out: for what could break some pipeline."""
    use = Use(places=("inputs",))
    return Uses(
        written=frozenset(p.name for p in app.parameters),
        parameters={p.name: use for p in app.parameters},
        labels={(p.name, label): use for p in app.parameters for label in p.options},
        several={p.name: use for p in app.parameters if p.multiple},
    )


def breaking(change: Change, uses: Uses, after: App) -> Use | None:
    """What of the pipeline this change breaks; None: nothing, the change is only worth telling."""
    use = _BREAKS[change.kind](change, uses, after)
    return use if use is not None and use.used else None


def _never(_change: Change, _uses: Uses, _after: App) -> None:
    return None


def _if_given(change: Change, uses: Uses, _after: App) -> Use | None:
    return uses.parameters.get(change.parameter)


def _if_label_used(change: Change, uses: Uses, _after: App) -> Use | None:
    return uses.labels.get((change.parameter, change.label or ""))


def _if_several_sent(change: Change, uses: Uses, _after: App) -> Use | None:
    return uses.several.get(change.parameter)


def _if_needed(change: Change, uses: Uses, after: App) -> Use | None:
    new = change.after
    if new is None or not new.must_supply or uses.gives(new.name, [p.name for p in after.parameters]):
        return None
    return Use(places=("inputs",))


def _if_narrower(change: Change, uses: Uses, after: App) -> Use | None:
    """Which kind of file an address leads to is not known, so any kind that is no longer taken counts."""
    if change.before is None or change.after is None or not change.after.accept:
        return None
    withdrawn = set(change.before.accept) - set(change.after.accept)
    return _if_given(change, uses, after) if withdrawn else None


_BREAKS: Mapping[Kind, Callable[[Change, Uses, App], Use | None]] = {
    Kind.PARAMETER_REMOVED: _if_given,
    Kind.PARAMETER_ADDED: _if_needed,
    Kind.RETYPED: _if_given,
    Kind.MADE_REQUIRED: _if_needed,
    Kind.NO_LONGER_REQUIRED: _never,
    Kind.LABEL_REMOVED: _if_label_used,
    Kind.LABEL_RENAMED: _if_label_used,
    Kind.LABEL_ADDED: _never,
    Kind.DEFAULT_CHANGED: _never,
    Kind.ACCEPT_CHANGED: _if_narrower,
    Kind.MULTIPLE_GIVEN: _never,
    Kind.MULTIPLE_WITHDRAWN: _if_several_sent,
}


# -- in words ---------------------------------------------------------------------------------------------------


def words(change: Change) -> str:
    """The change as a sentence for people."""
    before, after, name = change.before, change.after, repr(change.parameter)
    likely = "" if change.likely is None else f"; it is probably {change.likely!r} now"
    match change.kind:
        case Kind.PARAMETER_REMOVED:
            return f"the input {name} is gone{likely}"
        case Kind.PARAMETER_ADDED:
            needed = ", and must be given" if after is not None and after.must_supply else ""
            return f"the input {name} ({after.type if after else ''}) is new{needed}"
        case Kind.RETYPED:
            return f"{name} is of the type {after.type if after else ''} now, and was {before.type if before else ''}"
        case Kind.MADE_REQUIRED:
            return f"{name} must be given now"
        case Kind.NO_LONGER_REQUIRED:
            return f"{name} need not be given any more"
        case Kind.LABEL_REMOVED | Kind.LABEL_RENAMED:
            return f"{name} has no label {change.label!r} any more{likely}"
        case Kind.LABEL_ADDED:
            return f"{name} has a new label {change.label!r}"
        case Kind.DEFAULT_CHANGED:
            return f"the app's own default for {name} is {_default_of(after)} now, and was {_default_of(before)}"
        case Kind.ACCEPT_CHANGED:
            return f"{name} takes {_kinds_of(after)} now, and took {_kinds_of(before)}"
        case Kind.MULTIPLE_GIVEN:
            return f"{name} takes several values now"
        case Kind.MULTIPLE_WITHDRAWN:
            return f"{name} takes one value now, and took several"


_ROWS_NAMED = 5


def use_words(use: Use) -> str:
    """Where it is used, as a clause for people: places in the pipeline file, and the first rows with their count."""
    parts = list(use.places)
    if use.rows:
        more = f", ... ({len(use.rows)} rows)" if len(use.rows) > _ROWS_NAMED else ""
        parts.append(f"row{'s' if len(use.rows) > 1 else ''} {', '.join(use.rows[:_ROWS_NAMED])}{more}")
    return ", ".join(parts)


def _default_of(parameter: Parameter | None) -> str:
    value = None if parameter is None else parameter.default
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _kinds_of(parameter: Parameter | None) -> str:
    return " or ".join(parameter.accept) if parameter is not None and parameter.accept else "any kind"
