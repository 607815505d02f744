"""No change of a contract goes unseen, and what is no change is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.apps.app import App, Parameter
from lamina_batch.drift.compare import ChangeKind, compare, describe_change
from lamina_batch.drift.usage import broken_usage, full_usage

NAMES = st.sampled_from(["Front", "front", "Model  Body", "Model Body", "Prompt"])
LABELS = st.lists(st.sampled_from(["Standard ", "Standard", "Plus Size", "Tall", "1:1"]), unique=True, max_size=4)
PARAMETER = st.builds(
    Parameter,
    name=NAMES,
    type=st.sampled_from(["text", "options", "url"]),
    required=st.booleans(),
    options=LABELS.map(tuple),
    default=st.sampled_from([None, "", "Tall", ["a", "b"]]),
    accept=st.lists(st.sampled_from(["image", "video"]), unique=True).map(tuple),
    multiple=st.booleans(),
)


@st.composite
def apps(draw: st.DrawFn) -> App:
    parameters = draw(st.lists(PARAMETER, max_size=4, unique_by=lambda p: p.name))
    return App(
        app_id="an-app", name="A", description=None, parameters=tuple(parameters), served_json='{"parameters": []}'
    )


def contract(app: App) -> dict[str, object]:
    """What of an app decides over inputs, in no order."""
    return {
        p.name: (p.type, p.must_supply, frozenset(p.options), str(p.default), frozenset(p.accept), p.multiple)
        for p in app.parameters
    }


@given(apps(), apps())
def test_every_difference_is_a_change_and_only_that(before: App, after: App) -> None:
    changes = compare(before, after)
    assert (not changes) == (contract(before) == contract(after))
    assert len(set(map(str, changes))) == len(changes)
    for change in changes:
        assert describe_change(change)


@given(apps(), apps())
def test_there_and_back_names_the_same_parameters(before: App, after: App) -> None:
    there = {change.parameter for change in compare(before, after)}
    assert there == {change.parameter for change in compare(after, before)}


@given(apps(), apps())
def test_a_lost_name_is_probably_a_new_one_and_none_is_given_twice(before: App, after: App) -> None:
    for parameter in (None, *before.parameters):
        likely = [
            change.likely_new_name
            for change in compare(before, after)
            if change.likely_new_name is not None
            and (change.kind is ChangeKind.PARAMETER_REMOVED) == (parameter is None)
            and (parameter is None or change.before == parameter)
        ]
        assert len(set(likely)) == len(likely)


@given(apps(), apps())
def test_only_what_takes_something_away_or_asks_for_more_breaks(before: App, after: App) -> None:
    additive = {
        ChangeKind.NO_LONGER_REQUIRED,
        ChangeKind.LABEL_ADDED,
        ChangeKind.DEFAULT_CHANGED,
        ChangeKind.MULTIPLE_GIVEN,
    }
    for change in compare(before, after):
        if change.kind in additive:
            assert broken_usage(change, full_usage(before), after) is None
