"""What an execution looks like is a pure function of its record and the time (docs/lamina-api.md, "Execution states"
and "Outputs").
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_support import CARTOONIFY, FULL_SET, post, read, start, wait_for_end

from lamina_batch.sandbox import SandboxOptions, embedded
from lamina_batch.sandbox.apps import DurationShape, SandboxOutput, load_apps
from lamina_batch.sandbox.executions import ExecutionEnding, SandboxExecution, draw_durations, iso_instant, view

APP = load_apps(None)[FULL_SET]
RECORD = SandboxExecution(
    execution_id="e1", app_id=FULL_SET, inputs={}, created_at=1000.0, queued_seconds=1.0, seconds=11.0
)


def value_of(_: SandboxExecution, output: SandboxOutput) -> str:
    return f"value of {output.output_id}"


def shown(record: SandboxExecution, now: float) -> tuple[str, list[str], bool, bool]:
    data = view(record, APP, now=now, value_of=value_of)
    return (
        data["status"],
        [output["status"] for output in data["outputs"]],
        data["startedAt"] is not None,
        data["completedAt"] is not None,
    )


def test_it_is_queued_then_running_then_completed_and_outputs_come_one_after_the_other() -> None:
    assert len(APP.outputs) == 5
    pending, done = ["pending"], ["completed"]
    assert shown(RECORD, 1000.0) == ("queued", pending * 5, False, False)
    assert shown(RECORD, 1000.999) == ("queued", pending * 5, False, False)
    assert shown(RECORD, 1001.0) == ("running", pending * 5, True, False)
    assert shown(RECORD, 1003.1) == ("running", done * 1 + pending * 4, True, False)
    assert shown(RECORD, 1010.9) == ("running", done * 4 + pending * 1, True, False)
    assert shown(RECORD, 1011.0) == ("completed", done * 5, True, True)
    assert shown(RECORD, 9e9) == ("completed", done * 5, True, True)


def test_a_failed_execution_says_so_at_its_top_and_in_each_output() -> None:
    record = replace(RECORD, ending="failed", message="Image generation timed out")
    assert shown(record, 1010.9) == ("running", ["pending"] * 5, True, False)
    data = view(record, APP, now=1011.0, value_of=value_of)
    assert (data["status"], data["errorMessage"]) == ("failed", "Image generation timed out")
    assert data["completedAt"] is not None
    assert {(o["type"], o["value"], o["status"], o["error"]) for o in data["outputs"]} == {
        ("pending", None, "error", "Image generation timed out")
    }


def test_a_failed_output_keeps_the_type_pending_while_the_execution_completes() -> None:
    record = replace(RECORD, failed_output=1, message="no")
    data = view(record, APP, now=1011.0, value_of=value_of)
    assert (data["status"], data["errorMessage"]) == ("completed", None)
    assert [output["status"] for output in data["outputs"]] == ["completed", "error"] + ["completed"] * 3
    assert (data["outputs"][1]["type"], data["outputs"][1]["value"], data["outputs"][1]["error"]) == (
        "pending",
        None,
        "no",
    )


def test_one_that_never_ends_runs_for_ever() -> None:
    assert shown(replace(RECORD, ending="never"), 9e9) == ("running", ["pending"] * 5, True, False)


@given(
    now=st.lists(st.floats(1000, 1020), min_size=2).map(sorted),
    ending=st.sampled_from(["completed", "failed", "cancelled", "never"]),
    cancelled_at=st.none() | st.floats(1000, 1010.9),
)
def test_nothing_ever_goes_back(now: list[float], ending: ExecutionEnding, cancelled_at: float | None) -> None:
    record = replace(RECORD, ending=ending, message="x", cancelled_at=cancelled_at)
    order = {"queued": 0, "running": 1, "completed": 2, "failed": 2, "cancelled": 2}
    ranks = [order[shown(record, at)[0]] for at in now]
    finished = [shown(record, at)[1].count("completed") for at in now]
    assert ranks == sorted(ranks)
    assert finished == sorted(finished)


def test_the_instants_agree_with_the_durations() -> None:
    data = view(RECORD, APP, now=2000.0, value_of=value_of)
    created, started, completed = (
        datetime.fromisoformat(data[name]).timestamp() for name in ("createdAt", "startedAt", "completedAt")
    )
    assert (created, started, completed) == (1000.0, 1001.0, 1011.0)
    assert iso_instant(1774268560.552) == "2026-03-23T12:22:40.552Z"


def test_durations_are_drawn_from_the_seed_and_lie_around_the_median() -> None:
    drawn = [draw_durations(APP, seed=7, number=number, speed=1) for number in range(400)]
    assert drawn == [draw_durations(APP, seed=7, number=number, speed=1) for number in range(400)]
    assert drawn != [draw_durations(APP, seed=8, number=number, speed=1) for number in range(400)]
    totals = sorted(d.total for d in drawn)
    assert totals[200] == pytest.approx(APP.median_seconds, rel=0.15)
    assert all(0 < d.queued < d.total for d in drawn)
    faster = draw_durations(APP, seed=7, number=0, speed=10)
    assert faster.total == pytest.approx(drawn[0].total / 10, abs=0.001)


def test_without_spread_all_take_the_same_time() -> None:
    steady = replace(APP, sigma=0.0, median_seconds=5.0)
    assert {draw_durations(steady, seed=1, number=number, speed=1).total for number in range(50)} == {5.0}


def test_over_the_wire_it_ends_with_values_and_consistent_instants() -> None:
    with embedded(SandboxOptions(limit=10**6, speed=500)) as base_url:
        execution_id = start(base_url, FULL_SET, {})
        data = wait_for_end(base_url, execution_id)
        assert data["status"] == "completed"
        assert [output["type"] for output in data["outputs"]] == [output.kind for output in APP.outputs]
        assert data["createdAt"] <= data["startedAt"] <= data["completedAt"]
        # The URLs are as stable as a finished execution: asked again, the same.
        assert read(base_url, execution_id) == data


def test_two_outputs_may_share_a_label_but_not_an_id() -> None:
    apps = load_apps(None)
    sharing = [app for app in apps.values() if len({o.label for o in app.outputs}) < len(app.outputs)]
    assert sharing, "the sandbox must have an app whose labels repeat"
    with embedded(SandboxOptions()) as base_url:
        inputs = {
            p.name: "https://a.example/b.jpg" if p.type == "url" else p.options[0] if p.options else "x"
            for p in sharing[0].parameters
        }
        outputs = post(base_url, sharing[0].app_id, inputs).json()["data"]["outputs"]
    assert len({output["id"] for output in outputs}) == len(outputs) > len({output["label"] for output in outputs})


def test_a_text_output_holds_the_text() -> None:
    video_ad = next(app for app in load_apps(None).values() if any(output.kind == "text" for output in app.outputs))
    inputs = {
        p.name: "https://a.example/b.jpg" if p.type == "url" else p.options[0] if p.options else "Linen \ud800 dress"
        for p in video_ad.parameters
    }
    with embedded(SandboxOptions(limit=10**6, speed=5000)) as base_url:
        data = wait_for_end(base_url, start(base_url, video_ad.app_id, inputs))
    text = next(output for output in data["outputs"] if output["type"] == "text")
    assert "Linen" in text["value"]
    assert not text["value"].startswith("http")


def test_executions_of_one_seed_take_the_same_time_in_every_sandbox() -> None:
    seconds = []
    for _ in range(2):
        with embedded(SandboxOptions(limit=10**6, speed=1000, seed=3)) as base_url:
            data = wait_for_end(base_url, start(base_url, CARTOONIFY))
            created, completed = (datetime.fromisoformat(data[name]) for name in ("createdAt", "completedAt"))
            seconds.append((completed - created).total_seconds())
    assert seconds[0] == pytest.approx(seconds[1], abs=0.0011)


def test_durations_take_the_shape_that_the_app_has() -> None:
    def drawn(shape: DurationShape) -> list[float]:
        app = replace(APP, shape=shape, median_seconds=10.0)
        return sorted(draw_durations(app, seed=1, number=n, speed=1.0).total for n in range(400))

    uniform, bimodal = drawn("uniform"), drawn("bimodal")
    assert 0 < uniform[0] < 1
    assert 19 < uniform[-1] < 20
    assert uniform[200] == pytest.approx(10.0, rel=0.15)
    assert set(bimodal) == {10.0, 100.0}
    assert bimodal.count(100.0) == pytest.approx(40, abs=20)
