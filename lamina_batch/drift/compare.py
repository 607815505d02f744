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

from lamina_batch.apps.input_schema import match
from lamina_batch.pipeline.names import normalise_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lamina_batch.apps.app import App, Parameter


class ChangeKind(StrEnum):
    """What kind of change an app went through."""

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
    """One change of an app's contract."""

    kind: ChangeKind
    #: the parameter as it was; None if it is new
    before: Parameter | None
    #: the parameter as it is; None if it is gone
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
                Change(
                    kind=ChangeKind.PARAMETER_REMOVED, before=parameter, after=None, likely=likely.get(parameter.name)
                )
            )
        else:
            changes += (change for rule in _COMPARISON_RULES for change in rule(parameter, still))
    changes += (Change(kind=ChangeKind.PARAMETER_ADDED, before=None, after=parameter) for parameter in new)
    return tuple(changes)


# -- what can change of one parameter: a rule for each ----------------------------------------------------------


def _type_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.type != after.type:
        yield Change(kind=ChangeKind.RETYPED, before=before, after=after)


def _required_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.must_supply != after.must_supply:
        kind = ChangeKind.MADE_REQUIRED if after.must_supply else ChangeKind.NO_LONGER_REQUIRED
        yield Change(kind=kind, before=before, after=after)


def _label_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.type != after.type:
        return  # with another type there are no labels to look for
    gone = [label for label in before.options if label not in after.options]
    new = [label for label in after.options if label not in before.options]
    likely = likely_names(gone, new)
    if not likely and len(gone) == len(new) == 1 and before.options.index(gone[0]) == after.options.index(new[0]):
        likely = {gone[0]: new[0]}
    for label in gone:
        kind = ChangeKind.LABEL_RENAMED if label in likely else ChangeKind.LABEL_REMOVED
        yield Change(kind=kind, before=before, after=after, label=label, likely=likely.get(label))
    for label in new:
        if label not in likely.values():
            yield Change(kind=ChangeKind.LABEL_ADDED, before=before, after=after, label=label)


def _default_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    # Where a default decides whether the parameter may be left out, that is what is said of it.
    if before.default != after.default and before.must_supply == after.must_supply:
        yield Change(kind=ChangeKind.DEFAULT_CHANGED, before=before, after=after)


def _accept_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.type == after.type and set(before.accept) != set(after.accept):
        yield Change(kind=ChangeKind.ACCEPT_CHANGED, before=before, after=after)


def _multiple_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    if before.multiple != after.multiple:
        kind = ChangeKind.MULTIPLE_GIVEN if after.multiple else ChangeKind.MULTIPLE_WITHDRAWN
        yield Change(kind=kind, before=before, after=after)


_COMPARISON_RULES: tuple[Callable[[Parameter, Parameter], Iterator[Change]], ...] = (
    _type_changes,
    _required_changes,
    _label_changes,
    _default_changes,
    _accept_changes,
    _multiple_changes,
)


def likely_names(gone: Sequence[str], new: Iterable[str]) -> dict[str, str]:
    """For names that are gone the new one that each probably became; no new one is given twice.

    The same but for case and spaces comes first, then what is most alike.
    """
    left = list(new)
    found: dict[str, str] = {}
    for old in gone:
        same = [name for name in left if normalise_name(name) == normalise_name(old)]
        if same:
            found[old] = same[0]
            left.remove(same[0])
    for old in gone:
        if old not in found:
            forms = {normalise_name(name): name for name in left}
            near = difflib.get_close_matches(normalise_name(old), forms, n=1, cutoff=0.6)
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
class Usage:
    """Where a pipeline uses something of a contract."""

    #: keys of the pipeline file that name it: `inputs.Style.map.Luxe`
    places: tuple[str, ...] = ()
    #: rows whose cells come to it, as the spreadsheet numbers them; of several files `12 of a.csv`
    rows: tuple[str, ...] = ()

    @property
    def used(self) -> bool:
        """Whether the pipeline file or a row uses it."""
        return bool(self.places or self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractUsage:
    """What a pipeline, and the rows of its catalog, use of the contract that it was made for."""

    #: parameters as the pipeline writes them, in `inputs` and `matrix`
    written: frozenset[str] = frozenset()
    #: by name
    parameters: Mapping[str, Usage] = field(default_factory=dict)
    #: by name and label
    labels: Mapping[tuple[str, str], Usage] = field(default_factory=dict)
    #: parameters that get several values at once
    several: Mapping[str, Usage] = field(default_factory=dict)
    #: rows that leave out a parameter, by name; a parameter that no rule gives is left out of all
    blank: Mapping[str, int] = field(default_factory=dict)

    def supplies(self, parameter: str, among: Iterable[str]) -> bool:
        """Whether the pipeline means this one of the contract's parameters with something that it writes."""
        names = tuple(among)
        return any(match(written, names) == parameter for written in self.written)


def full_usage(app: App) -> ContractUsage:
    """The uses of a pipeline that leaves nothing out: for what could break some pipeline."""
    use = Usage(places=("inputs",))
    return ContractUsage(
        written=frozenset(p.name for p in app.parameters),
        parameters={p.name: use for p in app.parameters},
        labels={(p.name, label): use for p in app.parameters for label in p.options},
        several={p.name: use for p in app.parameters if p.multiple},
    )


def broken_usage(change: Change, uses: ContractUsage, after: App) -> Usage | None:
    """What of the pipeline this change breaks; None: nothing, the change is only worth telling."""
    use = _BREAKAGE_RULES[change.kind](change, uses, after)
    return use if use is not None and use.used else None


def _never(_change: Change, _uses: ContractUsage, _after: App) -> None:
    return None


def _if_given(change: Change, uses: ContractUsage, _after: App) -> Usage | None:
    return uses.parameters.get(change.parameter)


def _if_label_used(change: Change, uses: ContractUsage, _after: App) -> Usage | None:
    return uses.labels.get((change.parameter, change.label or ""))


def _if_several_sent(change: Change, uses: ContractUsage, _after: App) -> Usage | None:
    return uses.several.get(change.parameter)


def _if_needed(change: Change, uses: ContractUsage, after: App) -> Usage | None:
    new = change.after
    if new is None or not new.must_supply or uses.supplies(new.name, [p.name for p in after.parameters]):
        return None
    return Usage(places=("inputs",))


def _if_narrower(change: Change, uses: ContractUsage, after: App) -> Usage | None:
    """Which kind of file an address leads to is not known, so any kind that is no longer taken counts."""
    if change.before is None or change.after is None or not change.after.accept:
        return None
    withdrawn = set(change.before.accept) - set(change.after.accept)
    return _if_given(change, uses, after) if withdrawn else None


_BREAKAGE_RULES: Mapping[ChangeKind, Callable[[Change, ContractUsage, App], Usage | None]] = {
    ChangeKind.PARAMETER_REMOVED: _if_given,
    ChangeKind.PARAMETER_ADDED: _if_needed,
    ChangeKind.RETYPED: _if_given,
    ChangeKind.MADE_REQUIRED: _if_needed,
    ChangeKind.NO_LONGER_REQUIRED: _never,
    ChangeKind.LABEL_REMOVED: _if_label_used,
    ChangeKind.LABEL_RENAMED: _if_label_used,
    ChangeKind.LABEL_ADDED: _never,
    ChangeKind.DEFAULT_CHANGED: _never,
    ChangeKind.ACCEPT_CHANGED: _if_narrower,
    ChangeKind.MULTIPLE_GIVEN: _never,
    ChangeKind.MULTIPLE_WITHDRAWN: _if_several_sent,
}


# -- in words ---------------------------------------------------------------------------------------------------


def describe_change(change: Change) -> str:
    """The change as a sentence for people."""
    before, after, name = change.before, change.after, repr(change.parameter)
    likely = "" if change.likely is None else f"; it is probably {change.likely!r} now"
    match change.kind:
        case ChangeKind.PARAMETER_REMOVED:
            return f"the input {name} is gone{likely}"
        case ChangeKind.PARAMETER_ADDED:
            needed = ", and must be given" if after is not None and after.must_supply else ""
            return f"the input {name} ({after.type if after else ''}) is new{needed}"
        case ChangeKind.RETYPED:
            return f"{name} is of the type {after.type if after else ''} now, and was {before.type if before else ''}"
        case ChangeKind.MADE_REQUIRED:
            return f"{name} must be given now"
        case ChangeKind.NO_LONGER_REQUIRED:
            return f"{name} need not be given any more"
        case ChangeKind.LABEL_REMOVED | ChangeKind.LABEL_RENAMED:
            return f"{name} has no label {change.label!r} any more{likely}"
        case ChangeKind.LABEL_ADDED:
            return f"{name} has a new label {change.label!r}"
        case ChangeKind.DEFAULT_CHANGED:
            return f"the app's own default for {name} is {_default_text(after)} now, and was {_default_text(before)}"
        case ChangeKind.ACCEPT_CHANGED:
            return f"{name} takes {_accepted_media(after)} now, and took {_accepted_media(before)}"
        case ChangeKind.MULTIPLE_GIVEN:
            return f"{name} takes several values now"
        case ChangeKind.MULTIPLE_WITHDRAWN:
            return f"{name} takes one value now, and took several"


_MAX_LISTED_ROWS = 5


def describe_usage(use: Usage) -> str:
    """Where it is used, as a clause for people: places in the pipeline file, and the first rows with their count."""
    parts = list(use.places)
    if use.rows:
        more = f", ... ({len(use.rows)} rows)" if len(use.rows) > _MAX_LISTED_ROWS else ""
        parts.append(f"row{'s' if len(use.rows) > 1 else ''} {', '.join(use.rows[:_MAX_LISTED_ROWS])}{more}")
    return ", ".join(parts)


def _default_text(parameter: Parameter | None) -> str:
    value = None if parameter is None else parameter.default
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _accepted_media(parameter: Parameter | None) -> str:
    return " or ".join(parameter.accept) if parameter is not None and parameter.accept else "any kind"
