"""The sandbox serves the runs generation as docs/lamina-api.md, "The runs API" describes it, alone or beside the other
one.
"""

from __future__ import annotations

import http.client
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image
from process import PATIENCE
from sandbox_support import (
    CARTOONIFY,
    FULL_SET,
    MOOD_BOARD,
    PHOTO,
    ask,
    cancel,
    get,
    journal,
    post,
    read,
    start,
    start_run,
    wait_for_end,
)

from lamina_batch.sandbox import GENERATIONS, SANDBOX_KEY, SandboxOptions, embedded
from lamina_batch.sandbox.apps import load_apps
from lamina_batch.sandbox.executions import ExecutionStore, SandboxExecution
from lamina_batch.sandbox.inputs import inputs_by_name
from lamina_batch.sandbox.requests import WORKSPACE_ID
from lamina_batch.sandbox.runs import run_view

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lamina_batch.sandbox.api_versions import SandboxApiVersion
    from lamina_batch.sandbox.apps import SandboxOutput

KEY = {"x-api-key": SANDBOX_KEY}
RUNS, BOTH = GENERATIONS["runs"], GENERATIONS["both"]
#: as docs/lamina-api.md, "Known apps" lists it: every option of Full Set Catalog Generation is without a default
MODEL = {
    "Model Gender": "Female",
    "Model  Ethnicity": "Asian",
    "Model Body type": "Standard ",
    "Model Hair color": "Black",
    "Model Hair Style": "Straight ",
}


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with embedded(SandboxOptions(limit=10**6, speed=5000, generations=RUNS)) as url:
        yield url


@pytest.fixture(scope="module")
def slow_url() -> Iterator[str]:
    """Nothing begins, or ends by itself, while a test looks."""
    with embedded(SandboxOptions(limit=10**6, speed=0.001, generations=RUNS)) as url:
        yield url


# --- which generation is served


@pytest.mark.parametrize(
    ("served", "executions", "runs"), [("executions", 404, None), ("runs", None, 404), ("both", 404, 404)]
)
def test_a_generation_that_is_not_served_has_no_paths(served: str, executions: int | None, runs: int | None) -> None:
    """404 in JSON: the path is there, and the id is not known. Else it is the page of an Express app."""
    with embedded(SandboxOptions(generations=GENERATIONS[served])) as url:
        for path, known in (("/v1/executions/x", executions), ("/v1/runs/x", runs)):
            answered = get(url, path)
            assert answered.status == 404
            page = f"Cannot GET {path}".encode()
            assert (page not in answered.body) == (known is not None)
        assert (get(url, "/v1/runs?limit=1").status == 200) == (runs is not None)
        posted = {generation: post(url, "unknown", {}, generation=generation) for generation in GENERATIONS["both"]}
        assert (b"Cannot POST" in posted["executions"].body) == (executions is None)
        assert (b"Cannot POST" in posted["runs"].body) == (runs is None)


def test_each_generation_reads_only_what_it_made() -> None:
    with embedded(SandboxOptions(generations=BOTH)) as url:
        execution_id, run_id = start(url), start_run(url)
        assert (read(url, execution_id)["executionId"], read(url, run_id, generation="runs")["runId"]) == (
            execution_id,
            run_id,
        )
        answered = get(url, f"/v1/executions/{run_id}")
        assert (answered.status, answered.json()) == (404, {"error": "Execution not found"})
        for answered in (
            get(url, f"/v1/runs/{execution_id}"),
            get(url, f"/v1/runs/{execution_id}/wait?timeout=1"),
            cancel(url, execution_id),
        ):
            assert (answered.status, answered.json()["error"]) == (404, "Run not found")
        assert [run["runId"] for run in get(url, "/v1/runs").json()["data"]] == [run_id]


@pytest.mark.parametrize("generations", [frozenset(), frozenset({"jobs"})])
def test_generations_that_are_none_are_refused(generations: frozenset[SandboxApiVersion]) -> None:
    with pytest.raises(ValueError, match="executions, runs or both"):
        SandboxOptions(generations=generations)


# --- apps


def test_every_parameter_is_required_and_has_a_key(base_url: str) -> None:
    app = get(base_url, f"/v1/apps/{MOOD_BOARD}").json()["data"]
    assert {name: {p[name] for p in app["parameters"]} for name in ("required", "multiple", "description")} == {
        "required": {True},
        "multiple": {False, True},
        "description": {None},
    }
    # Made as the service's authors make them (docs/lamina-api.md, "Known apps"), who may leave the kind out.
    assert [p["key"] for p in app["parameters"]] == [
        "product_text",
        "your_product_image_url",
        "mood_board_images_urls",
        "aspect_ratio_text",
        "prompt_text",
    ]
    assert app["outputs"] == [
        {"index": 0, "label": "Product Shot", "type": "image"},
        {"index": 1, "label": "Product Shot", "type": "image"},
        {"index": 2, "label": "Detail Shot", "type": "image"},
    ]


def test_a_default_is_what_makes_leaving_out_safe(base_url: str) -> None:
    """An empty text is one (docs/lamina-api.md, "Required and default"); the apps whose lists are published keep
    parameters that have none.
    """
    mood_board = get(base_url, f"/v1/apps/{MOOD_BOARD}").json()["data"]["parameters"]
    assert {p["name"]: p.get("default", "none") for p in mood_board}["Prompt"] == ""
    cartoonify = get(base_url, f"/v1/apps/{CARTOONIFY}").json()["data"]["parameters"]
    assert [p["name"] for p in cartoonify if "default" not in p] == ["Style"]
    assert post(base_url, CARTOONIFY, {"Style": "Ghibli"}, generation="runs").status == 202
    refused = post(base_url, CARTOONIFY, {"Upload": PHOTO}, generation="runs")
    assert refused.status == 400
    assert "missing_no_default" in refused.body.decode()


def test_where_both_are_served_the_older_generation_follows_the_newer_schema() -> None:
    with embedded(SandboxOptions(generations=BOTH)) as url:
        refused = post(url, CARTOONIFY, {"Upload": PHOTO})
        assert (refused.status, refused.json()) == (
            400,
            {"error": "Invalid inputs", "details": ['"Style": missing value. It is required and has no default']},
        )
        assert post(url, CARTOONIFY, {"style_text": "Ghibli"}).json()["details"][-1] == (
            '"style_text": unknown parameter'
        )
        assert post(url, CARTOONIFY, {"Style": "Ghibli"}).status == 202


def test_the_list_of_apps_has_fields_that_the_older_one_lacks(base_url: str) -> None:
    (app,) = get(base_url, "/v1/apps?search=cartoon").json()["data"]
    assert set(app) - {"appId", "name", "description", "isPublic"} == {
        "capabilities",
        "icon",
        "modality",
        "outputFormats",
        "inputSummary",
        "thumbnail",
    }


OWN_APP: dict[str, Any] = {
    "appId": "mine",
    "name": "Mine",
    "parameters": [
        {"name": "Title", "key": "headline", "type": "text", "required": False},
        {"name": "title!", "type": "text", "required": False, "default": ""},
        {"name": "Title?", "id": "p3", "type": "text", "required": False},
        {"name": "短い", "type": "text", "required": False, "default": None},
        {"name": "Clip", "type": "url", "accept": ["video"], "required": True, "default": "https://a.example/c.mp4"},
    ],
    "nodes": [{"id": "n1", "type": "textNode", "label": "Copy", "output": "text"}],
    "seconds": {"median": 1, "sigma": 0},
    "runs": {"defaults": {"短い": "none"}, "details": "nested"},
}


def test_an_app_of_one_s_own_says_what_differs_in_the_runs_generation(tmp_path: Path) -> None:
    file = tmp_path / "apps.json"
    file.write_text(json.dumps([OWN_APP]))
    with embedded(SandboxOptions(apps=file, limit=10**6, speed=1000, generations=RUNS)) as url:
        parameters = get(url, "/v1/apps/mine").json()["data"]["parameters"]
        assert [p["key"] for p in parameters] == [
            "headline",
            "title_text",
            "title_text_2",
            "input_text",
            "clip_video_url",
        ]
        assert [p.get("default") for p in parameters] == [None, "", None, "none", "https://a.example/c.mp4"]
        refused = post(url, "mine", {"Title": "x"}, generation="runs").json()
        assert [e["field"] for e in refused["details"]["details"]["errors"]] == ["title_text_2"]
        # By key, by name, by id.
        run_id = start_run(url, "mine", {"headline": "Linen dress", "Title?": "y"})
        assert start_run(url, "mine", {"Title": "x", "p3": "y"})
        run = wait_for_end(url, run_id, generation="runs")
        assert "Linen dress" in run["outputs"][0]["value"]
    with embedded(SandboxOptions(apps=file)) as url:
        assert get(url, "/v1/apps/mine").json()["data"]["parameters"] == OWN_APP["parameters"]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ({"default": {}}, "it takes defaults and details, not 'default'"),
        ({"defaults": {"Nope": 1}}, "no parameter has the name 'Nope'"),
        ({"details": "flat"}, "details is array or nested, not 'flat'"),
    ],
)
def test_a_bad_runs_section_is_refused(tmp_path: Path, runs: dict[str, Any], expected: str) -> None:
    file = tmp_path / "apps.json"
    file.write_text(json.dumps([{**OWN_APP, "runs": runs}]))
    with pytest.raises(ValueError, match=f"app 1: runs: .*{expected}"):
        load_apps(file)


# --- starting


def test_a_start_is_202_with_a_run_id(slow_url: str) -> None:
    answered = post(slow_url, CARTOONIFY, {"Style": "Ghibli"}, generation="runs", query="?webhook=http%3A%2F%2Fa%2Fx")
    assert answered.status == 202
    data = answered.json()["data"]
    assert {name: data[name] for name in ("workflowId", "status", "webhookUrl")} == {
        "workflowId": CARTOONIFY,
        "status": "queued",
        "webhookUrl": "http://a/x",
    }
    assert data["runId"]
    assert "executionId" not in data
    assert [output["status"] for output in data["outputs"]] == ["pending"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, ["Product Shot", "Product Shot", "Detail Shot"]),
        ([], ["Product Shot", "Product Shot", "Detail Shot"]),
        (["product SHOT"], ["Product Shot", "Product Shot"]),
        (["Detail Shot", "detail shot"], ["Detail Shot"]),
        (["Detail Shot", "Product Shot"], ["Product Shot", "Product Shot", "Detail Shot"]),
    ],
)
def test_outputs_are_selected_by_label_in_any_case(
    base_url: str, wanted: list[str] | None, expected: list[str]
) -> None:
    inputs = {"product_text": "Linen bag", "your_product_image_url": PHOTO}
    answered = post(base_url, MOOD_BOARD, inputs, generation="runs", outputs=wanted)
    assert [output["label"] for output in answered.json()["data"]["outputs"]] == expected
    run = wait_for_end(base_url, answered.json()["data"]["runId"], generation="runs")
    assert [output["label"] for output in run["outputs"]] == expected
    assert run["progress"]["totalOutputs"] == len(expected)
    assert {ask(output["value"], headers={}).status for output in run["outputs"]} == {200}


def test_a_selected_output_can_fail(tmp_path: Path) -> None:
    options = SandboxOptions(limit=10**6, speed=5000, generations=RUNS, faults=("failed_output",), data=tmp_path)
    with embedded(options) as url:
        inputs = {"Product": "Bag", "Your Product": PHOTO}
        run = wait_for_end(url, start_run(url, MOOD_BOARD, inputs, outputs=["Detail Shot"]), generation="runs")
    assert [(output["label"], output["status"]) for output in run["outputs"]] == [("Detail Shot", "error")]
    assert run["progress"] == {"totalOutputs": 1, "completedOutputs": 0, "failedOutputs": 1, "percentComplete": 100}
    # What was selected is kept.
    with embedded(replace(options, faults=())) as url:
        assert read(url, run["runId"], generation="runs")["outputs"] == run["outputs"]


def test_where_one_selected_output_fails_the_others_have_files() -> None:
    options = SandboxOptions(limit=10**6, speed=5000, generations=RUNS, faults=("failed_output",))
    failed = []
    with embedded(options) as url:
        for _ in range(8):
            run_id = start_run(url, FULL_SET, MODEL, outputs=["Side View", "Back View"])
            outputs = wait_for_end(url, run_id, generation="runs")["outputs"]
            (good,) = (output for output in outputs if output["status"] == "completed")
            assert ask(good["value"], headers={}).status == 200
            failed += [output["label"] for output in outputs if output is not good]
    assert set(failed) == {"Side View", "Back View"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["Mood"], 'unknown output "Mood". Must be one of: Product Shot, Detail Shot'),
        (["Detail Shot "], 'unknown output "Detail Shot "'),
        ("Detail Shot", "outputs must be a list of output labels"),
        ([1], "outputs must be a list of output labels"),
    ],
)
def test_an_output_that_the_app_has_not_is_400(base_url: str, wanted: object, message: str) -> None:
    inputs = {"Product": "Bag", "Your Product": PHOTO}
    answered = post(base_url, MOOD_BOARD, inputs, generation="runs", outputs=wanted)
    assert (answered.status, answered.json()["code"]) == (400, "VALIDATION_ERROR")
    assert answered.json()["error"].startswith(message)


def test_the_older_generation_passes_over_a_selection() -> None:
    with embedded(SandboxOptions()) as url:
        answered = post(url, MOOD_BOARD, {"Product": "Bag", "Your Product": PHOTO}, outputs=["Nope"])
        assert len(answered.json()["data"]["outputs"]) == 3


# --- reading


def test_a_run_reads_with_its_progress_and_what_is_known_of_its_outputs(base_url: str) -> None:
    run_id = start_run(base_url, FULL_SET, {**MODEL, "Front": PHOTO})
    run = wait_for_end(base_url, run_id, generation="runs")
    assert set(run) == {
        "runId",
        "workflowId",
        "status",
        "outputs",
        "errorMessage",
        "startedAt",
        "completedAt",
        "createdAt",
        "progress",
        "quality",
        "artifacts",
    }
    assert run["progress"] == {"totalOutputs": 5, "completedOutputs": 5, "failedOutputs": 0, "percentComplete": 100}
    assert [output["mimeType"] for output in run["outputs"]] == ["image/png"] * 4 + ["video/mp4"]
    with Image.open(io.BytesIO(ask(run["outputs"][0]["value"], headers={}).body)) as picture:
        assert run["outputs"][0]["dimensions"] == dict(zip(("width", "height"), picture.size, strict=True))


def test_a_queued_run_knows_nothing_of_its_outputs(slow_url: str) -> None:
    run = read(slow_url, start_run(slow_url), generation="runs")
    assert (run["status"], run["progress"]["percentComplete"]) == ("queued", 0)
    assert [(o["type"], o["mimeType"], o["dimensions"], o["durationSeconds"]) for o in run["outputs"]] == [
        ("pending", None, None, None)
    ]


def test_an_input_is_the_same_by_name_by_key_and_by_id() -> None:
    app = load_apps(None, runs=True)[MOOD_BOARD]
    by_id = {parameter.name: str(parameter.parameter_id) for parameter in app.parameters}
    sent = {by_id["Product"]: "Linen bag", "your_product_image_url": PHOTO, "Prompt": "", "Nope": "1"}
    assert inputs_by_name(app.parameters, sent) == {
        "Product": "Linen bag",
        "Your Product": PHOTO,
        "Prompt": "",
        "Nope": "1",
    }


# --- the list


def listed(url: str, query: str = "") -> list[str]:
    return [run["runId"] for run in get(url, f"/v1/runs{query}").json()["data"]]


def test_the_list_is_newest_first_and_its_items_lack_inputs_and_outputs(tmp_path: Path) -> None:
    with embedded(SandboxOptions(limit=10**6, generations=RUNS, data=tmp_path)) as url:
        made = [start_run(url) for _ in range(30)]
        answered = get(url, "/v1/runs").json()
        assert [run["runId"] for run in answered["data"]] == made[::-1][:25]
        assert answered["pagination"] == {"total": 30, "limit": 25, "offset": 0}
        assert {frozenset(run) for run in answered["data"]} == {
            frozenset({"runId", "workflowId", "status", "errorMessage", "startedAt", "completedAt", "createdAt"})
        }
        assert listed(url, "?limit=10&offset=25") == made[::-1][25:]
        assert listed(url, "?limit=100") == made[::-1]
        assert listed(url, "?offset=30") == []
        # Pages shift when a run comes in between.
        newest = start_run(url)
        assert listed(url, "?limit=2&offset=1") == [made[-1], made[-2]]
    with embedded(SandboxOptions(generations=RUNS, data=tmp_path)) as url:
        assert listed(url, "?limit=100") == [newest, *made[::-1]]


def test_of_those_made_in_one_millisecond_the_last_comes_first() -> None:
    store = ExecutionStore(None)
    for number, created_at in enumerate((1000.0, 1000.0, 2000.0, 1000.0)):
        store.add(
            SandboxExecution(
                execution_id=f"r{number}",
                app_id=FULL_SET,
                inputs={},
                created_at=created_at,
                queued_seconds=1.0,
                seconds=2.0,
                generation="runs",
            )
        )
    assert [run.execution_id for run in store.newest_first("runs")] == ["r2", "r3", "r1", "r0"]
    assert store.newest_first("executions") == []


def test_the_list_can_be_cut_by_status_app_and_age() -> None:
    options = SandboxOptions(limit=10**6, speed=5000, generations=BOTH, faults=("failed:match=b.jpg",))
    with embedded(options) as url:
        start(url)  # of the other generation: never listed
        first = wait_for_end(url, start_run(url), generation="runs")
        second = wait_for_end(
            url, start_run(url, FULL_SET, {**MODEL, "Front": "https://a.example/b.jpg"}), generation="runs"
        )
        assert listed(url) == [second["runId"], first["runId"]]
        assert listed(url, "?status=failed") == [second["runId"]]
        assert listed(url, "?status=completed") == [first["runId"]]
        assert get(url, "/v1/runs?status=cancelled").json() == {
            "data": [],
            "pagination": {"total": 0, "limit": 25, "offset": 0},
        }
        assert listed(url, f"?appId={FULL_SET}") == [second["runId"]]
        assert listed(url, "?appId=unknown") == []
        assert listed(url, f"?since={second['createdAt']}") == [second["runId"]]
        assert listed(url, f"?since={quote(first['createdAt'].replace('Z', '+00:00'))}") == listed(url)
        assert get(url, "/v1/runs?status=failed").json()["data"][0]["errorMessage"] == "Image generation timed out"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=many",
        "offset=-1",
        "offset=x",
        "status=done",
        "since=yesterday",
        "since=",
        "limit=",
    ],
)
def test_a_list_that_is_asked_for_wrongly_is_400(base_url: str, query: str) -> None:
    answered = get(base_url, f"/v1/runs?{query}")
    assert (answered.status, answered.json()["code"]) == (400, "VALIDATION_ERROR")
    assert query.partition("=")[0] in answered.json()["error"]


# --- waiting


def test_a_wait_ends_with_the_run(base_url: str) -> None:
    run_id = start_run(base_url)
    answered = get(base_url, f"/v1/runs/{run_id}/wait")
    assert answered.status == 200
    assert answered.json() == {"data": read(base_url, run_id, generation="runs"), "timeout": False}
    assert answered.json()["data"]["status"] == "completed"


def test_a_wait_that_takes_too_long_is_no_error(slow_url: str) -> None:
    run_id = start_run(slow_url)
    answered = get(slow_url, f"/v1/runs/{run_id}/wait?timeout=1")
    assert (answered.status, answered.json()["timeout"]) == (200, True)
    assert answered.json()["data"]["completedAt"] is None


def test_a_cancellation_ends_a_wait(slow_url: str) -> None:
    run_id = start_run(slow_url)
    waiting = http.client.HTTPConnection(urlsplit(slow_url).netloc, timeout=PATIENCE)
    waiting.request("GET", f"/v1/runs/{run_id}/wait?timeout=120", headers=KEY)
    assert cancel(slow_url, run_id).status == 200
    answer = json.loads(waiting.getresponse().read())
    waiting.close()
    assert (answer["data"]["status"], answer["timeout"]) == ("cancelled", False)


@pytest.mark.parametrize("timeout", ["0", "121", "soon", "1.5", "-1", ""])
def test_a_wait_is_1_to_120_seconds(slow_url: str, timeout: str) -> None:
    answered = get(slow_url, f"/v1/runs/{start_run(slow_url)}/wait?timeout={timeout}")
    assert (answered.status, answered.json()["code"]) == (400, "VALIDATION_ERROR")


def test_a_wait_for_what_is_not_there_is_404(slow_url: str) -> None:
    assert get(slow_url, "/v1/runs/unknown/wait").status == 404


# --- cancelling


def test_a_cancelled_run_has_ended_and_stays_so(slow_url: str) -> None:
    run_id = start_run(slow_url)
    for _ in range(2):
        answered = cancel(slow_url, run_id)
        assert (answered.status, answered.json()) == (200, {"data": {"runId": run_id, "status": "cancelled"}})
    run = read(slow_url, run_id, generation="runs")
    assert (run["status"], run["errorMessage"], [o["status"] for o in run["outputs"]]) == (
        "cancelled",
        None,
        ["cancelled"],
    )
    assert run["completedAt"] >= run["createdAt"]
    assert read(slow_url, run_id, generation="runs") == run
    assert run_id in listed(slow_url, "?status=cancelled")


def test_what_has_ended_is_not_cancelled(base_url: str) -> None:
    run = wait_for_end(base_url, start_run(base_url), generation="runs")
    assert cancel(base_url, run["runId"]).json()["data"]["status"] == "completed"
    assert read(base_url, run["runId"], generation="runs") == run


def test_one_that_never_ends_can_be_cancelled() -> None:
    with embedded(SandboxOptions(generations=RUNS, faults=("never_finish",))) as url:
        run_id = start_run(url)
        assert cancel(url, run_id).status == 200
        assert read(url, run_id, generation="runs")["status"] == "cancelled"


def test_a_cancellation_is_kept_and_is_no_execution(tmp_path: Path) -> None:
    with embedded(SandboxOptions(generations=RUNS, data=tmp_path)) as url:
        run_id, other = start_run(url), start_run(url)
        cancel(url, run_id)
        cancel(url, run_id)
        before = read(url, run_id, generation="runs")
    assert [line["execution_id"] for line in journal(tmp_path, "executions.jsonl")] == [run_id, other]
    assert [line["execution_id"] for line in journal(tmp_path, "cancellations.jsonl")] == [run_id]
    with embedded(SandboxOptions(generations=RUNS, data=tmp_path)) as url:
        assert read(url, run_id, generation="runs") == before
        assert read(url, other, generation="runs")["status"] != "cancelled"


def test_a_cancelled_run_keeps_the_outputs_that_it_had() -> None:
    app = load_apps(None, runs=True)[FULL_SET]
    run = SandboxExecution(
        execution_id="r1",
        app_id=FULL_SET,
        inputs={},
        created_at=1000.0,
        queued_seconds=1.0,
        seconds=11.0,
        generation="runs",
        cancelled_at=1005.2,
    )

    def value_of(_: SandboxExecution, output: SandboxOutput) -> str:
        return output.label

    def output_metadata(_: SandboxExecution, __: SandboxOutput) -> Mapping[str, Any]:
        return {}

    def shown(record: SandboxExecution, now: float) -> tuple[str, list[str]]:
        view = run_view(record, app, now=now, value_of=value_of, output_metadata=output_metadata)
        return view["status"], [output["status"] for output in view["outputs"]]

    assert shown(run, 1005.1) == ("running", ["completed"] * 2 + ["pending"] * 3)
    for later in (1005.2, 1011.0, 9e9):
        assert shown(run, later) == ("cancelled", ["completed"] * 2 + ["cancelled"] * 3)
    queued = run_view(
        replace(run, cancelled_at=1000.5), app, now=2000.0, value_of=value_of, output_metadata=output_metadata
    )
    assert (queued["startedAt"], queued["completedAt"]) == (None, "1970-01-01T00:16:40.500Z")


# --- errors


def error(url: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """The envelope, after a look at the id that the header tells, too."""
    answered = ask(url, path, headers=headers)
    body = answered.json()
    assert body["requestId"] == answered.headers["X-Request-Id"]
    assert {"error", "code", "retryable", "requestId"} <= set(body)
    return answered.status, body


@pytest.mark.parametrize(
    ("path", "headers", "status", "code", "message"),
    [
        ("/v1/runs", {}, 401, "AUTH_MISSING_KEY", "Missing API key"),
        ("/v1/apps", {"x-api-key": "sk_1"}, 401, "AUTH_INVALID_KEY", "Invalid API key"),
        ("/v1/apps", KEY | {"x-workspace-id": "other"}, 403, "FORBIDDEN", "Workspace header does not match"),
        ("/v1/apps/unknown", KEY, 404, "NOT_FOUND", "App not found"),
        ("/v1/runs/unknown", KEY | {"x-workspace-id": WORKSPACE_ID}, 404, "NOT_FOUND", "Run not found"),
        ("/v1/apps?limit=0", KEY, 400, "VALIDATION_ERROR", "limit must be"),
    ],
)
def test_errors_have_a_code(
    base_url: str, path: str, headers: dict[str, str], *, status: int, code: str, message: str
) -> None:
    got, body = error(base_url, path, headers)
    assert (got, body["code"], body["retryable"]) == (status, code, False)
    assert body["error"].startswith(message)


def test_a_bad_webhook_url_has_a_code_of_its_own(base_url: str) -> None:
    refused = post(base_url, CARTOONIFY, {"Style": "Ghibli"}, generation="runs", query="?webhook=ftp%3A%2F%2Fa")
    assert (refused.status, refused.json()["code"]) == (400, "WEBHOOK_INVALID_URL")


def test_a_body_past_a_mebibyte_is_413_in_the_envelope(base_url: str) -> None:
    refused = post(base_url, CARTOONIFY, {"Style": "x" * 1_100_000}, generation="runs")
    assert (refused.status, refused.json()["code"]) == (413, "VALIDATION_ERROR")


def test_every_answer_has_a_request_id_of_its_own(base_url: str) -> None:
    ids = {get(base_url, path).headers["X-Request-Id"] for path in ("/v1/apps", "/v1/runs", "/v1/runs/x", "/v1/no")}
    assert len(ids) == 4
    with embedded(SandboxOptions()) as older:
        assert get(older, "/v1/apps").headers["X-Request-Id"] is None


WRONG = {"Style": "Mars", "upload_image_url": "p/1.jpg", "aspect_ratio_text": 3, "Nope": "1"}
WRONG_FIELDS = [
    ("upload_image_url", "invalid_media", '"Upload": invalid url "p/1.jpg". Must be', [], "p/1.jpg"),
    ("Style", "invalid_option", '"Style": invalid option "Mars". Must be one of: ', ["Ghibli"], "Mars"),
    ("aspect_ratio_text", "invalid_type", '"Aspect Ratio": must be a string', ["1:1"], 3),
    ("Nope", "unknown_parameter", '"Nope": unknown parameter', [], None),
]


def assert_fields(errors: list[dict[str, Any]]) -> None:
    assert [(e["field"], e["error"], e.get("allowed", [])[:1], e.get("got")) for e in errors] == [
        (field, code, allowed, got) for field, code, _, allowed, got in WRONG_FIELDS
    ]
    for told, (_, _, message, _, _) in zip(errors, WRONG_FIELDS, strict=True):
        assert told["message"].startswith(message)


def test_details_come_in_both_forms_that_the_sources_have(base_url: str) -> None:
    """By turns: one app has an array, the next one the nested form that the official tool looks for
    (docs/lamina-api.md, "Errors of runs").
    """
    nested = post(base_url, CARTOONIFY, WRONG, generation="runs").json()
    assert (nested["error"], nested["code"]) == ("Invalid inputs", "VALIDATION_ERROR")
    assert_fields(nested["details"]["details"]["errors"])
    array = post(base_url, MOOD_BOARD, {"Product": 3}, generation="runs").json()["details"]
    assert [(e["field"], e["error"]) for e in array] == [
        ("Product", "invalid_type"),
        ("your_product_image_url", "missing_no_default"),
    ]
    assert [app.details_form for app in load_apps(None).values()][:4] == ["array", "nested"] * 2


def test_several_values_follow_the_parameter(base_url: str) -> None:
    inputs = {"Product": ["Bag"], "Your Product": PHOTO, "mood_board_images_urls": [PHOTO, "b.jpg"]}
    details = post(base_url, MOOD_BOARD, inputs, generation="runs").json()["details"]
    assert [(e["field"], e["error"], e["got"]) for e in details] == [
        ("Product", "invalid_type", ["Bag"]),
        ("mood_board_images_urls", "invalid_media", "b.jpg"),
    ]


@pytest.mark.parametrize("fractional", [False, True])
def test_429_is_json_that_says_when_to_come_again(*, fractional: bool) -> None:
    options = SandboxOptions(limit=1, window=1000, generations=RUNS, fractional_retry_after=fractional)
    with embedded(options) as url:
        get(url, "/v1/apps")
        limited = get(url, "/v1/runs")
    assert (limited.status, limited.headers["Content-Type"]) == (429, "application/json; charset=utf-8")
    body = limited.json()
    assert (body["code"], body["retryable"]) == ("RATE_LIMITED", True)
    assert body["retryAfter"] == float(limited.headers["Retry-After"])
    assert isinstance(body["retryAfter"], float if fractional else int)


def test_where_both_are_served_a_429_has_the_form_of_the_path() -> None:
    with embedded(SandboxOptions(limit=1, window=1000, generations=BOTH)) as url:
        get(url, "/v1/apps")
        assert get(url, "/v1/executions/x").body.startswith(b"Too many requests")
        assert post(url, CARTOONIFY, {}).body.startswith(b"Too many requests")
        for path in ("/v1/runs", "/v1/apps", "/v1/nothing"):
            assert get(url, path).json()["code"] == "RATE_LIMITED"


# --- faults


def answers_with(fault: str, *, generation: SandboxApiVersion = "runs") -> tuple[int, dict[str, Any]]:
    with embedded(SandboxOptions(generations=BOTH, faults=(fault,))) as url:
        answered = post(url, CARTOONIFY, {"Style": "Ghibli"}, generation=generation)
        return answered.status, answered.json()


@pytest.mark.parametrize(
    ("fault", "status", "code", "message", "retryable"),
    [
        ("429", 429, "RATE_LIMITED", "Too many requests from this IP", True),
        ("500", 500, "INTERNAL_ERROR", "Internal server error", True),
        ("500:code=AUTH_FAILED", 500, "AUTH_FAILED", "Internal server error", True),
        ("500_accepted", 500, "INTERNAL_ERROR", "Internal server error", True),
        ("503", 503, "RESOURCE_UNAVAILABLE", "Service unavailable", True),
        ("unauthorized", 401, "AUTH_INVALID_KEY", "Invalid API key", False),
        ("credits_400", 400, "VALIDATION_ERROR", "Insufficient credits", False),
    ],
)
def test_a_fault_has_the_form_of_the_generation(
    fault: str, status: int, code: str, message: str, *, retryable: bool
) -> None:
    got, body = answers_with(fault)
    assert (got, body["code"], body["retryable"]) == (status, code, retryable)
    assert body["error"].startswith(message)
    if fault != "429":
        assert answers_with(fault, generation="executions") == (status, {"error": message})


def test_on_list_is_about_the_list_and_on_read_about_reads_and_waits() -> None:
    faults = ("500:on=list,first=1", "502:on=read,first=2")
    with embedded(SandboxOptions(limit=10**6, speed=5000, generations=RUNS, faults=faults)) as url:
        run_id = start_run(url)
        assert [get(url, "/v1/runs").status for _ in range(2)] == [500, 200]
        assert [get(url, f"/v1/runs/{run_id}{rest}").status for rest in ("", "/wait", "")] == [502, 502, 200]


@pytest.mark.parametrize("generation", ["executions", "runs"])
def test_an_execution_may_be_cancelled_by_somebody_else(generation: SandboxApiVersion) -> None:
    options = SandboxOptions(limit=10**6, speed=5000, generations=BOTH, faults=("cancelled",))
    with embedded(options) as url:
        ended = wait_for_end(url, start(url, generation=generation), generation=generation)
    assert (ended["status"], ended["errorMessage"], ended["completedAt"] is None) == ("cancelled", None, False)
    assert {output["status"] for output in ended["outputs"]} == {"cancelled"}
