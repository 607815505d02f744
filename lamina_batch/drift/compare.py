"""Compares two contracts of one app. Names and labels are equal only byte for byte.

A pipeline that spells a label in another way would still run. But it would send other content, and every row would be
bought again.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from lamina_batch.pipeline.names import normalise_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamina_batch.apps.app import App, Parameter


class ChangeKind(StrEnum):
    """What can change in a contract."""

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
    """One change of one parameter."""

    kind: ChangeKind
    #: None: the parameter is new
    before: Parameter | None
    #: None: the parameter is removed
    after: Parameter | None
    #: the label that is removed or new
    label: str | None = None
    #: the probable new name of a removed parameter or label
    likely_new_name: str | None = None

    @property
    def parameter(self) -> str:
        """The name of the parameter before the change; of a new parameter, its name now."""
        parameter = self.before or self.after
        return parameter.name if parameter is not None else ""


def compare(before: App, after: App) -> tuple[Change, ...]:
    """Every change that matters to the inputs a pipeline may send. Changes of new parameters come last.

    Descriptions, ids and the order of things do not matter. Nor does the generation of the API: one generation calls
    every parameter required, so `must_supply` is compared.
    """
    was = {p.name: p for p in before.parameters}
    now = {p.name: p for p in after.parameters}
    added = [p for p in after.parameters if p.name not in was]
    likely = _likely_parameters([p for p in before.parameters if p.name not in now], added)
    changes: list[Change] = []
    for name, parameter in was.items():
        if name in now:
            changes += _parameter_changes(parameter, now[name])
        else:
            kind, new_name = ChangeKind.PARAMETER_REMOVED, likely.get(name)
            changes.append(Change(kind=kind, before=parameter, after=None, likely_new_name=new_name))
    return (*changes, *(Change(kind=ChangeKind.PARAMETER_ADDED, before=None, after=new) for new in added))


def _parameter_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    change = partial(Change, before=before, after=after)
    if before.type != after.type:
        yield change(kind=ChangeKind.RETYPED)
    if before.must_supply != after.must_supply:
        yield change(kind=ChangeKind.MADE_REQUIRED if after.must_supply else ChangeKind.NO_LONGER_REQUIRED)
    if before.type == after.type:
        yield from _label_changes(before, after)
    # A default that makes the parameter optional is reported as that.
    if before.default != after.default and before.must_supply == after.must_supply:
        yield change(kind=ChangeKind.DEFAULT_CHANGED)
    if before.type == after.type and set(before.accept) != set(after.accept):
        yield change(kind=ChangeKind.ACCEPT_CHANGED)
    if before.multiple != after.multiple:
        yield change(kind=ChangeKind.MULTIPLE_GIVEN if after.multiple else ChangeKind.MULTIPLE_WITHDRAWN)


def _label_changes(before: Parameter, after: Parameter) -> Iterator[Change]:
    change = partial(Change, before=before, after=after)
    removed = [label for label in before.options if label not in after.options]
    added = [label for label in after.options if label not in before.options]
    likely = likely_names(removed, added)
    if not likely and len(removed) == len(added) == 1:
        # A label at the same index probably has a new name.
        [old], [new] = removed, added
        likely = {old: new} if before.options.index(old) == after.options.index(new) else {}
    for label in removed:
        kind = ChangeKind.LABEL_RENAMED if label in likely else ChangeKind.LABEL_REMOVED
        yield change(kind=kind, label=label, likely_new_name=likely.get(label))
    yield from (change(kind=ChangeKind.LABEL_ADDED, label=label) for label in added if label not in likely.values())


def likely_names(removed: Sequence[str], added: Iterable[str]) -> dict[str, str]:
    """Removed name -> its probable new name. Each new name is used once.

    A name that differs only in case and spaces comes first, then the most similar one.
    """
    unused = list(added)
    likely: dict[str, str] = {}
    for cutoff in (1.0, 0.6):
        for old in removed:
            if old in likely:
                continue
            names = {normalise_name(name): name for name in reversed(unused)}
            similar = difflib.get_close_matches(normalise_name(old), names, n=1, cutoff=cutoff)
            if similar:
                likely[old] = names[similar[0]]
                unused.remove(likely[old])
    return likely


def _likely_parameters(removed: Sequence[Parameter], added: Sequence[Parameter]) -> dict[str, str]:
    """As likely_names, among parameters of the same type. One removed and one added are a pair."""
    likely: dict[str, str] = {}
    for kind in dict.fromkeys(p.type for p in removed):
        old = [p.name for p in removed if p.type == kind]
        new = [p.name for p in added if p.type == kind]
        pair = dict(zip(old, new, strict=True)) if len(old) == len(new) == 1 else {}
        likely |= likely_names(old, new) or pair
    return likely


_DESCRIPTIONS = {
    ChangeKind.PARAMETER_REMOVED: "the input {name} is gone{likely}",
    ChangeKind.PARAMETER_ADDED: "the input {name} ({after.type}) is new{needed}",
    ChangeKind.RETYPED: "{name} is of the type {after.type} now, and was {before.type}",
    ChangeKind.MADE_REQUIRED: "{name} must be given now",
    ChangeKind.NO_LONGER_REQUIRED: "{name} need not be given any more",
    ChangeKind.LABEL_REMOVED: "{name} has no label {label} any more{likely}",
    ChangeKind.LABEL_RENAMED: "{name} has no label {label} any more{likely}",
    ChangeKind.LABEL_ADDED: "{name} has a new label {label}",
    ChangeKind.DEFAULT_CHANGED: "the app's own default for {name} is {default_after} now, and was {default_before}",
    ChangeKind.ACCEPT_CHANGED: "{name} takes {accept_after} now, and took {accept_before}",
    ChangeKind.MULTIPLE_GIVEN: "{name} takes several values now",
    ChangeKind.MULTIPLE_WITHDRAWN: "{name} takes one value now, and took several",
}


def describe_change(change: Change) -> str:
    """The change as a sentence for people."""
    before, after = change.before, change.after
    return _DESCRIPTIONS[change.kind].format(
        name=repr(change.parameter),
        label=repr(change.label),
        likely="" if change.likely_new_name is None else f"; it is probably {change.likely_new_name!r} now",
        needed=", and must be given" if after is not None and after.must_supply else "",
        before=before,
        after=after,
        default_before=_default_text(before),
        default_after=_default_text(after),
        accept_before=_accept_text(before),
        accept_after=_accept_text(after),
    )


def _default_text(parameter: Parameter | None) -> str:
    value = None if parameter is None else parameter.default
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _accept_text(parameter: Parameter | None) -> str:
    return " or ".join(parameter.accept) if parameter is not None and parameter.accept else "any kind"
