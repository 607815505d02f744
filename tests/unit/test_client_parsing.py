"""What the service says, made into values: errors, bodies, callbacks, pages (docs/lamina-api.md)."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from lamina_batch.client.answers import (
    ListedExecution,
    decode_body,
    parse_delivery,
    parse_execution,
    parse_page,
    read_execution_id,
    read_json,
)
from lamina_batch.client.budget import retry_after_of_body
from lamina_batch.client.generations import API_VERSIONS, EXECUTIONS, RUNS, ApiVersion, parse_api_error

# -- the words of an error -------------------------------------------------------------------------------------

FAULT = {"field": "Location", "error": "invalid_option", "message": 'invalid option "Mars"', "got": "Mars"}

COMPLAINTS = {
    "executions": (
        {"error": "Invalid inputs", "details": ['"Location": invalid option "Mars". Must be one of: Studio, Park']},
        'Invalid inputs: "Location": invalid option "Mars". Must be one of: Studio, Park',
    ),
    "texts and a code": (
        {"error": "No", "code": "VALIDATION_ERROR", "requestId": "q1", "details": ["a", "b"]},
        "No: a; b (VALIDATION_ERROR, request q1)",
    ),
    "objects": ({"error": "No", "details": [FAULT]}, 'No: "Location": invalid option "Mars"'),
    "objects, in full": (
        {
            "error": "No",
            "details": [{"field": "Size", "error": "invalid_type", "got": 7, "range": {"min": 1, "max": 5}}],
        },
        'No: "Size": invalid_type (got 7; range: {"min": 1, "max": 5})',
    ),
    "nested": (
        {"error": "No", "details": {"code": "X", "details": {"errors": [FAULT | {"allowed": ["Studio", "Park"]}]}}},
        'No: "Location": invalid option "Mars" (allowed: Studio, Park)',
    ),
    "nested once": ({"error": "No", "details": {"errors": [FAULT, "b"]}}, 'No: "Location": invalid option "Mars"; b'),
    "allowed is told already": (
        {"details": [{"message": "Must be one of: A, B", "allowed": ["A", "B"]}]},
        "Must be one of: A, B",
    ),
    "allowed is no list": ({"details": [{"error": "no", "allowed": "text"}]}, "no (allowed: text)"),
    "one object": ({"error": "No", "details": FAULT}, 'No: "Location": invalid option "Mars"'),
    "by field": ({"error": "No", "details": {"Location": "bad", "Size": 3}}, 'No: "Location": bad; "Size": 3'),
    "a text": ({"error": "No", "details": "because"}, "No: because"),
    "unknown objects": ({"error": "No", "details": [{"path": ["a"]}, None]}, 'No: {"path": ["a"]}; null'),
    "no details": ({"error": "Gone", "code": "NOT_FOUND", "details": None}, "Gone (NOT_FOUND)"),
    "only a code": ({"code": "INTERNAL_ERROR"}, "otherwise (INTERNAL_ERROR)"),
    "only a request": ({"error": "No", "requestId": "q1"}, "No (request q1)"),
    "a proxy's": ({"error": {"code": "502", "message": "Bad gateway"}}, "Bad gateway (502)"),
    "wrong types": ({"error": 5, "code": 7, "requestId": ["x"], "details": 3}, "otherwise"),
    "codes that burst": ({"error": "No", "code": "A\x1b[2J", "requestId": "x" * 200}, "No"),
    "blank": ({"error": " ", "message": "m"}, "m"),
    "none": ([1], "otherwise"),
}


@pytest.mark.parametrize(("body", "told"), COMPLAINTS.values(), ids=COMPLAINTS)
def test_an_error_is_told_with_what_helps(body: object, told: str) -> None:
    assert parse_api_error(body).told("otherwise") == told


def test_an_error_that_goes_on_and_on_is_cut_and_its_code_is_not() -> None:
    told = parse_api_error({"error": "x" * 9000, "code": "VALIDATION_ERROR", "requestId": "q1"}).told("")
    assert told == "x" * 1000 + " (VALIDATION_ERROR, request q1)"


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"retryAfter": 7}, 7.0),
        ({"retryAfter": 0.5}, 0.5),
        ({"retryAfter": "12"}, 12.0),
        ({"retryAfter": 0}, None),
        ({"retryAfter": -3}, None),
        ({"retryAfter": 1760000000}, None),
        ({"retryAfter": True}, None),
        ({"retryAfter": "soon"}, None),
        ({"retryAfter": float("inf")}, None),
        ({"retryAfter": [7]}, None),
        ({"error": "no"}, None),
        ("7", None),
        (None, None),
    ],
)
def test_the_wait_that_a_body_asks_for(body: object, seconds: float | None) -> None:
    assert retry_after_of_body(body) == seconds


# -- the door --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [3, 1_000_000])
def test_no_more_is_unpacked_than_is_allowed(most: int) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    with pytest.raises(ValueError, match="does not end"):
        decode_body(bomb, "gzip", most=most)


def test_what_fits_exactly_is_unpacked() -> None:
    assert decode_body(gzip.compress(b"abc"), "gzip", most=3) == b"abc"
    assert decode_body(zlib.compress(b"abc"), " Deflate ", most=3) == b"abc"
    assert decode_body(b"abc", "Identity", most=1) == b"abc"


def test_what_broke_off_is_unpacked_as_far_as_it_came() -> None:
    packed = gzip.compress(b"a" * 1000, compresslevel=0)
    assert decode_body(packed[:500], "gzip", most=10_000) == b"a" * (500 - 15)


@pytest.mark.parametrize("levels", [64, 65, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")], ids=["lists", "objects"])
def test_json_nested_beyond_reason_is_none(opening: bytes, closing: bytes, levels: int) -> None:
    read = read_json(opening * levels + b"1" + closing * levels)
    assert (read is None) is (levels > 64)


def test_every_text_that_is_read_can_be_written() -> None:
    body = b'{"a\\ud800":["\\ud83d\\ude00", "x\\udfff", "caf\xc3\xa9"], "n": NaN, "i": [-Infinity]}'
    assert read_json(body) == {"a\ufffd": ["\U0001f600", "x\ufffd", "café"], "n": None, "i": [None]}


def test_every_text_is_cut() -> None:
    assert read_json(b'{"key":["a key", {"b":"key"}], "c": 1}', lambda t: t.replace("key", "-")) == {
        "-": ["a -", {"b": "-"}],
        "c": 1,
    }


# -- both generations ------------------------------------------------------------------------------------------


def test_a_generation_is_found_by_its_name() -> None:
    assert dict(API_VERSIONS) == {"executions": EXECUTIONS, "runs": RUNS}


@pytest.mark.parametrize("generation", API_VERSIONS.values(), ids=API_VERSIONS)
@pytest.mark.parametrize(
    ("status", "ended"),
    [("completed", True), ("failed", True), ("cancelled", True), ("queued", False), ("running", False), ("odd", False)],
)
def test_the_same_statuses_end_an_execution_in_both(generation: ApiVersion, status: str, ended: bool) -> None:
    execution = parse_execution({generation.id_field: "x", "status": status}, generation)
    assert execution is not None
    assert (execution.ended, execution.generation) == (ended, generation.name)


@pytest.mark.parametrize(
    ("data", "generation", "found"),
    [
        ({"runId": "r", "executionId": "e"}, RUNS, "r"),
        ({"runId": "r", "executionId": "e"}, EXECUTIONS, "e"),
        ({"runId": "r"}, EXECUTIONS, "r"),
        ({"runId": None, "executionId": "e"}, RUNS, "e"),
        ({"id": "x", "workflowId": "w"}, RUNS, None),
        (["r"], RUNS, None),
    ],
)
def test_an_id_is_found_in_the_field_of_its_generation_or_else_in_another_s(
    data: object, generation: ApiVersion, found: str | None
) -> None:
    assert read_execution_id(data, generation) == found


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"data": {"executionId": "e", "status": "completed"}}, ("e", "executions")),
        ({"data": {"runId": "r", "status": "completed"}}, ("r", "runs")),
        ({"data": {"runId": "r", "executionId": "e", "status": "failed"}}, ("r", "runs")),
        ({"executionId": "e", "status": "completed"}, ("e", "executions")),
        ({"data": {"status": "completed"}}, None),
        ({"data": {"runId": "r"}}, None),
        ({"data": {"runId": 10**50, "status": "completed"}}, None),
        ({"data": None}, None),
        ([{"runId": "r", "status": "completed"}], None),
        ("r", None),
    ],
)
def test_a_callback_tells_its_generation_by_its_id_field(body: object, told: tuple[str, str] | None) -> None:
    execution = parse_delivery(body)
    assert (None if execution is None else (execution.execution_id, execution.generation)) == told


def test_a_callback_is_read_as_carefully_as_an_answer() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert parse_delivery({"data": {"runId": "r", "status": "failed", "outputs": nested}}) is None
    execution = parse_delivery({"data": {"runId": "r", "status": "failed", "errorMessage": "\ud800"}})
    assert execution is not None
    assert execution.error_message == "\ufffd"


def test_a_page_without_an_envelope_is_a_page() -> None:
    page = parse_page([{"runId": "r", "status": "FAILED", "appId": "a"}], RUNS)
    assert page is not None
    assert page.items == (ListedExecution(execution_id="r", status="failed", ended=True, app_id="a"),)
    assert (page.received, page.total) == (1, None)


@pytest.mark.parametrize("total", [-1, 1.5, True, "12", None, [1]])
def test_a_total_that_is_none_is_not_said(total: object) -> None:
    page = parse_page(json.loads(json.dumps({"data": [], "pagination": {"total": total}})), RUNS)
    assert page is not None
    assert page.total is None
