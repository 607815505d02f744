"""Each kind of change to an app, for a pipeline that uses what changed and for one that does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from catalog_support import STOCK, Desk, app, image, options, text

from lamina_batch.drift.compare import ChangeKind, compare, likely_names
from lamina_batch.drift.judge import Baseline, Drift, assess_drift, enforce_drift_policy, find_baseline
from lamina_batch.drift.pins import take_pin
from lamina_batch.errors import DriftError, PipelineError
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.apps.app import App

ROWS = """\
sku,front,mood,body,gender
1,https://a.example/1.jpg,https://a.example/m.jpg|https://a.example/n.jpg,Plus Size,F
2,https://a.example/2.jpg,https://a.example/m.jpg,standard,M
3,https://a.example/3.jpg,,plus size,
4,https://a.example/4.jpg,https://a.example/m.jpg,Plus Size,F
"""

#: what every app below has, before and after
FRONT = image("Front", default=STOCK)
BODY = options("Body", "Standard ", "Plus Size", "Muscular")
GENDER = options("Gender", "Female", "Male", "Unisex")
MOOD = image("Mood", multiple=True)
PROMPT = text("Prompt")
PLACE = options("Place", "Studio", "Park", "Beach")

USES = """
rows: {from: rows.csv, key: sku}
inputs:
  Front: {column: front}
  Body: {column: body}
  gender: {column: gender, map: {F: female, M: Male}, default: Unisex}
  Mood: {column: mood, split: "|", blank: app_default}
  Prompt: {value: in soft light}
matrix:
  Place: [Studio, Park]
"""
LEAVES = """
rows: {from: rows.csv, key: sku}
inputs:
  Front: {column: front}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.write("rows.csv", ROWS)
    return desk


def held(desk: Desk, before: App, after: App, body: str = USES) -> Drift:
    pipeline = desk.pipeline(body)
    return assess_drift(
        Baseline(app=before, label="the last run", accept_command="run"), after, pipeline, read_catalog(pipeline)
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """One change. `breaks` says what is told of a pipeline that uses it; None: it is only told."""

    kind: ChangeKind
    before: tuple[dict[str, Any], ...]
    after: tuple[dict[str, Any], ...]
    breaks: str | None = None
    told: str = ""
    #: also breaks a pipeline that does not name it
    anyway: bool = False


DRIFT = {
    "parameter gone": Case(
        kind=ChangeKind.PARAMETER_REMOVED,
        before=(FRONT, PROMPT),
        after=(FRONT,),
        breaks="the input 'Prompt' is gone: used by inputs.Prompt",
    ),
    "parameter gone, matrix": Case(
        kind=ChangeKind.PARAMETER_REMOVED,
        before=(FRONT, PLACE),
        after=(FRONT,),
        breaks="the input 'Place' is gone: used by matrix.Place",
    ),
    "parameter new": Case(
        kind=ChangeKind.PARAMETER_ADDED,
        before=(FRONT,),
        after=(FRONT, text("Mark")),
        told="the input 'Mark' (text) is new",
    ),
    "parameter new and needed": Case(
        kind=ChangeKind.PARAMETER_ADDED,
        before=(FRONT,),
        after=(FRONT, text("Mark", required=True)),
        breaks="the input 'Mark' (text) is new, and must be given: neither inputs nor matrix gives it",
        anyway=True,
    ),
    "parameter new and needed, but with a default": Case(
        kind=ChangeKind.PARAMETER_ADDED,
        before=(FRONT,),
        after=(FRONT, text("Mark", required=True, default="none")),
        told="the input 'Mark' (text) is new",
    ),
    "retyped": Case(
        kind=ChangeKind.RETYPED,
        before=(FRONT, PROMPT),
        after=(FRONT, options("Prompt", "A", "B")),
        breaks="'Prompt' is of the type options now, and was text: used by inputs.Prompt",
    ),
    "made required, and given": Case(
        kind=ChangeKind.MADE_REQUIRED,
        before=(FRONT, PROMPT),
        after=(FRONT, text("Prompt", required=True)),
        told="'Prompt' must be given now",
        anyway=True,
    ),
    "made required, and not given": Case(
        kind=ChangeKind.MADE_REQUIRED,
        before=(FRONT, text("Mark")),
        after=(FRONT, text("Mark", required=True)),
        breaks="'Mark' must be given now: neither inputs nor matrix gives it",
        anyway=True,
    ),
    "no longer required": Case(
        kind=ChangeKind.NO_LONGER_REQUIRED,
        before=(FRONT, text("Prompt", required=True)),
        after=(FRONT, PROMPT),
        told="'Prompt' need not be given any more",
    ),
    "label new": Case(
        kind=ChangeKind.LABEL_ADDED,
        before=(FRONT, BODY),
        after=(FRONT, options("Body", "Standard ", "Plus Size", "Muscular", "Tall")),
        told="'Body' has a new label 'Tall'",
    ),
    "label gone, of rows": Case(
        kind=ChangeKind.LABEL_REMOVED,
        before=(FRONT, BODY),
        after=(FRONT, options("Body", "Standard ", "Muscular")),
        breaks="'Body' has no label 'Plus Size' any more: used by rows 2, 4, 5",
    ),
    "label gone that no row has": Case(
        kind=ChangeKind.LABEL_REMOVED,
        before=(FRONT, BODY),
        after=(FRONT, options("Body", "Standard ", "Plus Size")),
        told="'Body' has no label 'Muscular' any more",
    ),
    "label renamed, of rows": Case(
        kind=ChangeKind.LABEL_RENAMED,
        before=(FRONT, BODY),
        after=(FRONT, options("Body", "Standard ", "Plus-size", "Muscular")),
        breaks="'Body' has no label 'Plus Size' any more; it is probably 'Plus-size' now: used by rows 2, 4, 5",
    ),
    "label of another spacing": Case(  # it would still match, and everything with it would be bought again
        kind=ChangeKind.LABEL_RENAMED,
        before=(FRONT, BODY),
        after=(FRONT, options("Body", "Standard", "Plus Size", "Muscular")),
        breaks="'Body' has no label 'Standard ' any more; it is probably 'Standard' now: used by row 3",
    ),
    "label renamed beyond likeness, in its place": Case(
        kind=ChangeKind.LABEL_RENAMED,
        before=(FRONT, PLACE),
        after=(FRONT, options("Place", "Atelier", "Park", "Beach")),
        breaks="'Place' has no label 'Studio' any more; it is probably 'Atelier' now: used by matrix.Place",
    ),
    "label gone, of map and rows": Case(
        kind=ChangeKind.LABEL_REMOVED,
        before=(FRONT, GENDER),
        after=(FRONT, options("Gender", "Male", "Unisex")),
        breaks="'Gender' has no label 'Female' any more: used by inputs.gender.map.F, rows 2, 5",
    ),
    "label gone, of the default": Case(
        kind=ChangeKind.LABEL_REMOVED,
        before=(FRONT, GENDER),
        after=(FRONT, options("Gender", "Female", "Male")),
        breaks="'Gender' has no label 'Unisex' any more: used by inputs.gender.default, row 4",
    ),
    "default changed": Case(
        kind=ChangeKind.DEFAULT_CHANGED,
        before=(FRONT, image("Mood", multiple=True, default=[STOCK])),
        after=(FRONT, image("Mood", multiple=True, default=["https://b.example/s.jpg"])),
        told=f'the app\'s own default for \'Mood\' is ["https://b.example/s.jpg"] now, and was ["{STOCK}"]: '
        "1 row takes it",
    ),
    "accept widened": Case(
        kind=ChangeKind.ACCEPT_CHANGED,
        before=(FRONT, MOOD),
        after=(FRONT, {**MOOD, "accept": ["image", "video"]}),
        told="'Mood' takes image or video now, and took image",
    ),
    "accept withdrawn": Case(
        kind=ChangeKind.ACCEPT_CHANGED,
        before=(FRONT, MOOD),
        after=(FRONT, {**MOOD, "accept": ["video"]}),
        breaks="'Mood' takes video now, and took image: used by inputs.Mood",
    ),
    "multiple given": Case(
        kind=ChangeKind.MULTIPLE_GIVEN,
        before=(FRONT, PROMPT),
        after=(FRONT, text("Prompt", multiple=True)),
        told="'Prompt' takes several values now",
    ),
    "multiple withdrawn": Case(
        kind=ChangeKind.MULTIPLE_WITHDRAWN,
        before=(FRONT, MOOD),
        after=(FRONT, image("Mood")),
        breaks="'Mood' takes one value now, and took several: used by row 2",
    ),
    "multiple withdrawn where one is sent": Case(
        kind=ChangeKind.MULTIPLE_WITHDRAWN,
        before=(FRONT, text("Prompt", multiple=True)),
        after=(FRONT, PROMPT),
        told="'Prompt' takes one value now, and took several",
    ),
}


def test_the_table_has_every_kind() -> None:
    assert {case.kind for case in DRIFT.values()} == set(ChangeKind)


@pytest.mark.parametrize("case", DRIFT.values(), ids=DRIFT)
def test_a_change_for_a_pipeline_that_uses_it(desk: Desk, case: Case) -> None:
    before, after = app(*case.before), app(*case.after)
    drift = held(desk, before, after)
    assert [change.kind for change, _ in drift.changes] == [case.kind]
    assert drift.lines(broken=True) == ((case.breaks,) if case.breaks else ())
    assert drift.lines(broken=False) == ((case.told,) if not case.breaks else ())
    pipeline = desk.pipeline(USES)
    if case.breaks:
        with pytest.raises(DriftError, match="nothing was submitted") as caught:
            enforce_drift_policy(drift, after, pipeline)
        assert case.breaks in str(caught.value)
        assert caught.value.exit_code == 8
    else:
        assert enforce_drift_policy(drift, after, pipeline) == (f"the app has changed since the last run: {case.told}",)


@pytest.mark.parametrize("case", DRIFT.values(), ids=DRIFT)
def test_a_change_for_a_pipeline_that_does_not_use_it(desk: Desk, case: Case) -> None:
    drift = held(desk, app(*case.before), app(*case.after), LEAVES)
    assert [change.kind for change, _ in drift.changes] == [case.kind]
    assert drift.breaks is case.anyway


def test_a_change_is_only_warned_of_where_the_pipeline_says_so(desk: Desk) -> None:
    before, after = app(FRONT, PROMPT), app(FRONT)
    drift = held(desk, before, after)
    notes = enforce_drift_policy(drift, after, desk.pipeline(USES + "schema: {on_drift: warn}\n"))
    (note,) = notes
    assert note == (
        "the app has changed since the last run, and it breaks this pipeline: the input 'Prompt' is gone: "
        "used by inputs.Prompt"
    )


@pytest.mark.parametrize(
    "after",
    [
        pytest.param(app({**FRONT, "description": "the front", "id": "x"}, BODY), id="descriptions and ids"),
        pytest.param(app(BODY, FRONT), id="order of parameters"),
        pytest.param(app(FRONT, options("Body", "Muscular", "Plus Size", "Standard ")), id="order of labels"),
        pytest.param(app({**FRONT, "required": True}, BODY), id="required with a default, as the runs generation says"),
    ],
)
def test_what_does_not_matter_is_no_change(after: App) -> None:
    assert compare(app(FRONT, BODY), after) == ()


def test_a_new_required_input_that_the_pipeline_gives_already_breaks_nothing(desk: Desk) -> None:
    """The pipeline was mended before the pin was taken again; names match leniently as ever."""
    after = app(FRONT, text("Prompt ", required=True))
    drift = held(desk, app(FRONT), after, LEAVES + "  prompt: {value: in soft light}\n")
    assert not drift.breaks


def test_a_pipeline_that_was_mended_is_not_broken_any_more(desk: Desk) -> None:
    before, after = app(FRONT, BODY), app(FRONT, options("Body", "Standard ", "Curvy", "Muscular"))
    mended = LEAVES + "  Body: {column: body, map: {Plus Size: Curvy, plus size: Curvy}}\n"
    assert held(desk, before, after).breaks
    assert not held(desk, before, after, mended).breaks


def test_rows_that_where_leaves_out_use_nothing(desk: Desk) -> None:
    before, after = app(FRONT, BODY), app(FRONT, options("Body", "Standard ", "Muscular"))
    body = USES.replace("key: sku}", "key: sku, where: \"body ILIKE 'standard'\"}")
    assert not held(desk, before, after, body).breaks


def test_constants_that_send_several_are_seen_without_rows(desk: Desk) -> None:
    body = LEAVES + "  Mood: {value: [https://a.example/m.jpg, https://a.example/n.jpg]}\n"
    drift = held(desk, app(FRONT, MOOD), app(FRONT, image("Mood")), body)
    assert drift.lines(broken=True) == ("'Mood' takes one value now, and took several: used by inputs.Mood.value",)


def test_drift_comes_before_a_fault_of_the_catalog(desk: Desk) -> None:
    """The rows cannot be mapped for want of a column: that is said later, by whoever maps them."""
    body = USES.replace("column: body", "column: nowhere")
    assert held(desk, app(FRONT, PROMPT), app(FRONT), body).breaks


def test_many_rows_are_counted(desk: Desk) -> None:
    desk.write("rows.csv", "sku,front,body\n" + "".join(f"{n},https://a.example/{n}.jpg,Muscular\n" for n in range(9)))
    body = LEAVES + "  Body: {column: body}\n"
    drift = held(desk, app(FRONT, BODY), app(FRONT, options("Body", "Standard ", "Plus Size")), body)
    assert drift.lines(broken=True) == (
        "'Body' has no label 'Muscular' any more: used by rows 2, 3, 4, 5, 6, ... (9 rows)",
    )


# -- what the app is held against


def pinned(desk: Desk, source: str, *parameters: dict[str, Any]) -> str:
    """The text of a pipeline whose pin came from there."""
    pin = take_pin(app(*parameters or (FRONT,)), "an-app", taken_from=source, at=datetime(2026, 3, 31, tzinfo=UTC))
    desk.write("pin.json", pin.text)
    return LEAVES + "schema: {pin: pin.json}\n"


def test_a_pin_comes_before_the_last_run(desk: Desk) -> None:
    pipeline = desk.pipeline(pinned(desk, "https://lamina.example"))
    known = find_baseline(pipeline, "https://other.example", app(FRONT, PROMPT))
    assert isinstance(known, Baseline)
    assert (known.label, known.app.parameters) == ("the pin of 2026-03-31", app(FRONT).parameters)


def test_without_a_pin_the_last_run_counts_if_it_was_of_this_app(desk: Desk) -> None:
    pipeline = desk.pipeline(LEAVES)
    last = app(FRONT)
    assert find_baseline(pipeline, "https://lamina.example", None) is None
    assert find_baseline(pipeline, "https://lamina.example", replace(last, app_id="another")) is None
    known = find_baseline(pipeline, "https://lamina.example", last)
    assert isinstance(known, Baseline)
    assert known.app is last


def test_a_pin_of_the_sandbox_and_the_real_service_have_nothing_to_do_with_each_other(desk: Desk) -> None:
    pipeline = desk.pipeline(pinned(desk, "sandbox"))
    with pytest.raises(PipelineError, match="taken from the sandbox") as caught:
        find_baseline(pipeline, "https://lamina.example", None)
    assert f"lamina-batch apps pin an-app -o {desk.folder / 'pin.json'}" in (caught.value.hint or "")
    assert isinstance(find_baseline(pipeline, "sandbox", None), Baseline)
    real = desk.pipeline(pinned(desk, "https://lamina.example"))
    said = find_baseline(real, "sandbox", app(FRONT, PROMPT))
    assert said == "the pin was taken from https://lamina.example: what the sandbox serves is not held against it"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "there is no pin"),
        ("{}", "this is not a pin"),
        (
            take_pin(app(FRONT), "swift", taken_from="x", at=datetime(2026, 1, 1, tzinfo=UTC)).text,
            "of another app",
        ),
    ],
)
def test_a_pin_that_cannot_be_used_is_an_error_at_its_place(desk: Desk, content: str | None, what: str) -> None:
    if content is not None:
        desk.write("pin.json", content)
    pipeline = desk.pipeline(LEAVES + "schema: {pin: pin.json}\n")
    with pytest.raises(PipelineError, match=what) as caught:
        find_baseline(pipeline, "sandbox", None)
    assert (caught.value.where or "").endswith("pipeline.yaml:6:15")
    assert "apps pin an-app" in (caught.value.hint or "")


def test_each_new_name_is_given_to_one_that_is_gone() -> None:
    assert likely_names(["Red hair", "Red  Hair"], ["red hair", "Reddish hair"]) == {
        "Red hair": "red hair",
        "Red  Hair": "Reddish hair",
    }
    assert likely_names(["Studio"], ["Mountain"]) == {}
