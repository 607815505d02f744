"""The sandbox answers as docs/lamina-api.md describes the service."""

from __future__ import annotations

import ast
import html
import http.client
import json
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from process import PATIENCE
from sandbox_support import CARTOONIFY, FULL_SET, MOOD_BOARD, PHOTO, ask, get, journal, post, start

import lamina_batch.sandbox
from lamina_batch.sandbox import SANDBOX_KEY, Sandbox, SandboxOptions, embedded
from lamina_batch.sandbox.apps import load_apps
from lamina_batch.sandbox.inputs import is_absolute_url
from lamina_batch.sandbox.requests import WORKSPACE_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with embedded(SandboxOptions(limit=100_000)) as url:
        yield url


def shipped(app_id: str) -> dict[str, Any]:
    apps = json.loads(resources.files("lamina_batch.sandbox").joinpath("apps.json").read_bytes())
    found = next(app for app in apps if app["appId"] == app_id)
    assert isinstance(found, dict)
    return found


# --- key and workspace


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": SANDBOX_KEY},
        {"X-API-Key": "lma_anything"},
        {"Authorization": f"Bearer {SANDBOX_KEY}"},
        {"Authorization": f"bearer {SANDBOX_KEY}"},
        {"x-api-key": SANDBOX_KEY, "x-workspace-id": WORKSPACE_ID},
    ],
)
def test_either_header_carries_the_key(base_url: str, headers: dict[str, str]) -> None:
    assert ask(base_url, "/v1/apps", headers=headers).status == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "Missing API key"),
        ({"x-api-key": ""}, "Missing API key"),
        ({"Authorization": "Basic bG1hXw=="}, "Missing API key"),
        ({"x-api-key": "sk_live"}, "Invalid API key"),
        ({"x-api-key": "lma_revoked_1"}, "Invalid API key"),
        ({"Authorization": "Bearer nonsense"}, "Invalid API key"),
    ],
)
def test_without_a_good_key_it_is_401(base_url: str, headers: dict[str, str], message: str) -> None:
    for path in ("/v1/apps", f"/v1/apps/{CARTOONIFY}", "/v1/executions/x", "/v1/webhooks/signing-key"):
        answered = ask(base_url, path, headers=headers)
        assert (answered.status, answered.json()) == (401, {"error": message})


def test_another_workspace_is_403(base_url: str) -> None:
    answered = ask(base_url, "/v1/apps", headers={"x-api-key": SANDBOX_KEY, "x-workspace-id": "other"})
    assert answered.status == 403
    assert answered.json() == {"error": "Workspace header does not match API key workspace scope"}


# --- reading apps


def test_apps_are_listed_with_the_four_fields(base_url: str) -> None:
    answered = get(base_url, "/v1/apps?limit=100")
    assert answered.headers["Content-Type"] == "application/json; charset=utf-8"
    listed = answered.json()["data"]
    assert {frozenset(app) for app in listed} == {frozenset({"appId", "name", "description", "isPublic"})}
    assert [app["appId"] for app in listed] == list(load_apps(None))


def test_the_list_can_be_searched_and_cut(base_url: str) -> None:
    assert [app["name"] for app in get(base_url, "/v1/apps?search=CARTOON").json()["data"]] == ["Cartoonify!"]
    assert get(base_url, "/v1/apps?search=no+such+app").json() == {"data": []}
    assert len(get(base_url, "/v1/apps?limit=2").json()["data"]) == 2


@pytest.mark.parametrize("limit", ["0", "-1", "many", "101", "9" * 5000, "²"])
def test_a_bad_limit_is_400(base_url: str, limit: str) -> None:
    assert get(base_url, f"/v1/apps?limit={quote(limit)}").status == 400


def test_an_app_is_served_exactly_as_written(base_url: str) -> None:
    app = shipped(FULL_SET)
    served = get(base_url, f"/v1/apps/{FULL_SET}").json()
    assert served == {
        "data": {
            "appId": FULL_SET,
            "name": app["name"],
            "description": app["description"],
            "parameters": app["parameters"],
        }
    }


def test_a_workflow_has_nodes_and_edges(base_url: str) -> None:
    served = get(base_url, f"/v1/apps/{MOOD_BOARD}/workflow").json()["data"]
    assert set(served) == {"appId", "name", "nodes", "edges"}
    assert {frozenset(node) for node in served["nodes"]} == {frozenset({"id", "type", "label"})}
    ids = {node["id"] for node in served["nodes"]}
    assert all({edge["source"], edge["target"]} <= ids for edge in served["edges"])


@pytest.mark.parametrize("path", ["/v1/apps/unknown", "/v1/apps/unknown/workflow"])
def test_an_unknown_app_is_404(base_url: str, path: str) -> None:
    assert (get(base_url, path).status, get(base_url, path).json()) == (404, {"error": "App not found"})
    answered = post(base_url, "unknown", {})
    assert (answered.status, answered.json()) == (404, {"error": "App not found"})


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/", "/v1/runs", "/v1/runs/x", "/v1/apps/a/b/c", "/v2/apps", "/media/x", "/favicon.ico", "/v1/<b>"],
)
def test_an_unknown_path_is_the_404_page_of_an_express_app(base_url: str, path: str) -> None:
    answered = get(base_url, path)
    assert (answered.status, answered.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert f"<pre>Cannot GET {html.escape(path)}</pre>" in answered.body.decode()


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST"])
def test_a_wrong_method_is_404(base_url: str, method: str) -> None:
    answered = ask(base_url, "/v1/executions/x", method=method, headers={"x-api-key": SANDBOX_KEY})
    assert answered.status == 404
    assert f"Cannot {method} /v1/executions/x".encode() in answered.body


def test_the_signing_key_has_no_envelope(base_url: str) -> None:
    served = get(base_url, "/v1/webhooks/signing-key").json()
    assert set(served) == {"keys"}
    (key,) = served["keys"]
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    assert len(key["x"]) == 43


# --- starting


def test_a_start_is_202_with_a_placeholder_for_each_output(base_url: str) -> None:
    answered = post(base_url, FULL_SET, {"Front": PHOTO}, query="?webhook=https%3A%2F%2Fhooks.example.com%2Fx%3Fa%3D1")
    assert answered.status == 202
    data = answered.json()["data"]
    assert UUID.fullmatch(data.pop("executionId"))
    app = shipped(FULL_SET)
    assert data == {
        "workflowId": FULL_SET,
        "workflowName": app["name"],
        "status": "queued",
        "webhookUrl": "https://hooks.example.com/x?a=1",
        "outputs": [
            {
                "id": node["id"],
                "label": node["label"],
                "type": "pending",
                "value": None,
                "status": "pending",
                "error": None,
            }
            for node in app["nodes"]
            if node["output"] is not None
        ],
    }


def test_a_queued_execution_reads_as_api_2_5_shows_it(base_url: str) -> None:
    execution_id = start(base_url)
    data = get(base_url, f"/v1/executions/{execution_id}").json()["data"]
    assert set(data) == {
        "executionId",
        "workflowId",
        "status",
        "outputs",
        "errorMessage",
        "startedAt",
        "completedAt",
        "createdAt",
    }
    assert (data["executionId"], data["workflowId"], data["errorMessage"]) == (execution_id, CARTOONIFY, None)
    assert (data["status"], data["startedAt"], data["completedAt"]) == ("queued", None, None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["createdAt"])


def test_an_unknown_execution_is_404(base_url: str) -> None:
    answered = get(base_url, "/v1/executions/unknown")
    assert (answered.status, answered.json()) == (404, {"error": "Execution not found"})


@pytest.mark.parametrize(
    ("app_id", "inputs", "details"),
    [
        (CARTOONIFY, {"Upload": PHOTO, "Style": "Ghibli", "Aspect Ratio": "16:9"}, []),
        (CARTOONIFY, {}, []),
        (
            CARTOONIFY,
            {"Style": "Mars"},
            ['"Style": invalid option "Mars". Must be one of: Ghibli, Simpsons, Disney / Pixar, Cyberpunk'],
        ),
        (CARTOONIFY, {"Style": "ghibli"}, ['"Style": invalid option "ghibli". Must be one of: Ghibli, Simpsons,']),
        (CARTOONIFY, {"Style": 3}, ['"Style": must be a string']),
        (CARTOONIFY, {"Style": None}, ['"Style": must be a string']),
        (CARTOONIFY, {"Style": ["Ghibli"]}, ['"Style": takes one value, not a list']),
        (CARTOONIFY, {"Upload": "p/1.jpg"}, ['"Upload": invalid url "p/1.jpg"']),
        (CARTOONIFY, {"upload": PHOTO}, ['"upload": unknown parameter']),
        (
            CARTOONIFY,
            {"Nope": "1", "Upload": "", "Style": ""},
            ['"Upload": invalid url ""', '"Style": invalid option ""', '"Nope": unknown parameter'],
        ),
        (FULL_SET, {"Model  Ethnicity": "Asian", "Model Body type": "Standard "}, []),
        (FULL_SET, {"Model Ethnicity": "Asian"}, ['"Model Ethnicity": unknown parameter']),
        (FULL_SET, {"Model Body type": "Standard"}, ['"Model Body type": invalid option "Standard". Must be one of:']),
        (
            MOOD_BOARD,
            {},
            [
                '"Product": missing value. It is required and has no default',
                '"Your Product": missing value. It is required and has no default',
            ],
        ),
        (MOOD_BOARD, {"Product": 123, "Your Product": PHOTO}, ['"Product": must be a string']),
        (MOOD_BOARD, {"Product": "Bag", "Your Product": PHOTO, "Mood Board Images": PHOTO}, []),
        (MOOD_BOARD, {"Product": "Bag", "Your Product": PHOTO, "Mood Board Images": [PHOTO, PHOTO]}, []),
        (MOOD_BOARD, {"Product": "Bag", "Your Product": PHOTO, "Mood Board Images": []}, []),
        (
            MOOD_BOARD,
            {"Product": "Bag", "Your Product": PHOTO, "Mood Board Images": [PHOTO, "b.jpg", 7]},
            ['"Mood Board Images": invalid url "b.jpg"', '"Mood Board Images": must be a string'],
        ),
    ],
)
def test_inputs_follow_the_parameters(base_url: str, app_id: str, inputs: dict[str, Any], details: list[str]) -> None:
    answered = post(base_url, app_id, inputs)
    if not details:
        assert answered.status == 202, answered.body
        return
    assert answered.status == 400
    body = answered.json()
    assert body["error"] == "Invalid inputs"
    assert len(body["details"]) == len(details)
    assert all(found.startswith(expected) for found, expected in zip(body["details"], details, strict=True))


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        ("https://a.example/b.jpg?c=d#e", True),
        ("HTTP://a.example", True),
        ("http://127.0.0.1:8080/ä.jpg", True),
        ("http://[::1]/x", True),
        ("//a.example/b", False),
        ("ftp://a.example/b", False),
        ("https://", False),
        ("https:///b", False),
        ("https://a.example/b c.jpg", False),
        (" https://a.example", False),
        ("https://a.example:99999/", False),
        ("https://[::1/x", False),
        ("https://a.example/\n", False),
        ("https://\ufffd/", False),
        ("https://例え.example/", True),
    ],
)
def test_a_url_is_absolute_http(value: str, *, accepted: bool) -> None:
    assert is_absolute_url(value) is accepted


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b'{"inputs": {"Style": NaN}}', "application/json"),
        (b'{"inputs": {"Style": "\xff"}}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b'{"inputs": null}', "application/json"),
        (b'{"inputs": []}', "application/json"),
        (b'{"inputs": {}}', "text/plain"),
    ],
)
def test_a_body_without_inputs_is_400(base_url: str, body: bytes, content_type: str) -> None:
    answered = ask(
        base_url,
        f"/v1/apps/{CARTOONIFY}/executions",
        method="POST",
        body=body,
        headers={"x-api-key": SANDBOX_KEY, "Content-Type": content_type},
    )
    assert answered.status == 400
    assert set(answered.json()) == {"error"}


def test_a_body_past_a_mebibyte_is_413(base_url: str) -> None:
    assert post(base_url, CARTOONIFY, {"Style": "x" * 1_100_000}).status == 413


@pytest.mark.parametrize("webhook", ["ftp%3A%2F%2Fa.example", "nonsense", "", "%2Fpath", "http%3A%2F%2F%ff"])
def test_a_bad_webhook_url_is_400(base_url: str, webhook: str) -> None:
    answered = post(base_url, CARTOONIFY, {}, query=f"?webhook={webhook}")
    assert (answered.status, answered.json()) == (400, {"error": "Invalid webhook URL"})


def test_the_idempotency_key_is_logged_and_changes_nothing(tmp_path: Path) -> None:
    with embedded(SandboxOptions(data=tmp_path)) as url:
        answers = [post(url, CARTOONIFY, {}, headers={"Idempotency-Key": "one"}) for _ in range(2)]
    first, second = [answered.json()["data"]["executionId"] for answered in answers]
    assert first != second
    kept = journal(tmp_path, "executions.jsonl")
    assert [(line["execution_id"], line["idempotency_key"]) for line in kept] == [(first, "one"), (second, "one")]


def test_a_client_that_leaves_in_mid_body_has_started_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with embedded(SandboxOptions(data=tmp_path)) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
        headers = {"x-api-key": SANDBOX_KEY, "Content-Type": "application/json", "Content-Length": "99"}
        connection.request("POST", f"/v1/apps/{CARTOONIFY}/executions", b'{"inputs":{}}', headers)
        connection.close()
        while not journal(tmp_path, "requests.jsonl"):
            pass
    assert journal(tmp_path, "executions.jsonl") == []
    assert [line["status"] for line in journal(tmp_path, "requests.jsonl")] == [None]
    assert caplog.records == []


def test_every_request_is_logged(tmp_path: Path) -> None:
    with embedded(SandboxOptions(data=tmp_path, limit=3)) as url:
        ask(url, "/v1/apps", headers={"User-Agent": "test/1"})
        execution_id = start(url, CARTOONIFY, {"Style": "Ghibli"})
        get(url, f"/v1/executions/{execution_id}")
        get(url, "/v1/apps")
    lines = journal(tmp_path, "requests.jsonl")
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/v1/apps", 401),
        ("POST", f"/v1/apps/{CARTOONIFY}/executions", 202),
        ("GET", f"/v1/executions/{execution_id}", 200),
        ("GET", "/v1/apps", 429),
    ]
    assert lines[0]["user_agent"] == "test/1"
    assert (lines[1]["execution_id"], lines[1]["inputs"]) == (execution_id, {"Style": "Ghibli"})
    assert [line["app_id"] for line in lines] == [None, CARTOONIFY, CARTOONIFY, None]
    assert {(line["ip"], line["fault"], line["leaked_key"]) for line in lines} == {("127.0.0.1", None, False)}


# --- apps of one's own

OWN_APP: dict[str, Any] = {
    "appId": "mine",
    "name": "Mine",
    "description": None,
    "isPublic": False,
    "standIn": True,
    "parameters": [
        {"name": "Title", "type": "text", "required": True},
        {"name": "Tone", "type": "text", "required": True, "default": ""},
        {"name": "Voice", "type": "text", "required": True, "default": None},
    ],
    "nodes": [{"id": "n1", "type": "textNode", "label": "Copy", "output": "text"}],
    "edges": [],
    "seconds": {"median": 1, "sigma": 0},
}


def test_another_file_of_apps_can_be_served(tmp_path: Path) -> None:
    file = tmp_path / "apps.json"
    file.write_text(json.dumps([OWN_APP]))
    with embedded(SandboxOptions(apps=file)) as url:
        assert [app["appId"] for app in get(url, "/v1/apps").json()["data"]] == ["mine"]
        assert "standIn" not in get(url, "/v1/apps/mine").json()["data"]
        # What must be supplied: required, and without a default; an empty text is one, null is none
        # (docs/lamina-api.md, "Required and default").
        assert post(url, "mine", {"Title": "x", "Voice": "y"}).status == 202
        refused = post(url, "mine", {"Tone": "x"}).json()["details"]
        assert [detail.partition(":")[0] for detail in refused] == ['"Title"', '"Voice"']


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "a list of apps is expected"),
        (json.dumps([OWN_APP, OWN_APP]), "app 2: the appId mine stands there twice"),
        (json.dumps([{**OWN_APP, "seconds": {"median": 1}}]), "app 1: sigma is missing"),
        (json.dumps([{**OWN_APP, "nodes": []}]), "app 1: no node has an output"),
        (json.dumps([{**OWN_APP, "nodes": [{**OWN_APP["nodes"][0], "output": "gif"}]}]), "image, video, text or null"),
        (
            json.dumps([{**OWN_APP, "parameters": [{"name": "A", "type": "number", "required": True}]}]),
            "text, options or url",
        ),
    ],
)
def test_a_bad_file_of_apps_is_refused_with_the_reason(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "apps.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(expected)) as refused:
        Sandbox(SandboxOptions(apps=file))
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [{"limit": 0}, {"window": 0.0}, {"speed": -1.0}, {"speed": float("inf")}, {"url_lifetime": float("nan")}],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        SandboxOptions(**options)


# --- the house


def test_the_room_imports_no_other_room() -> None:
    """Shared code would make client and server agree by construction (docs/architecture.md, "The rooms")."""
    folder = Path(lamina_batch.sandbox.__file__).parent
    imported = {
        name
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [node.module or "." * node.level]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    ours = {name for name in imported if name.startswith((".", "lamina_batch"))}
    assert ours
    assert {name for name in ours if not name.startswith("lamina_batch.sandbox")} == set()
