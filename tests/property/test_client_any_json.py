"""Whatever JSON and whatever bytes the service sends: the parsers answer, and what they answer can be used."""

from __future__ import annotations

import gzip
import json
import string
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lamina_batch.apps.app import parse_app
from lamina_batch.client.answers import (
    decode_body,
    parse_delivery,
    parse_execution,
    parse_page,
    read_execution_id,
    read_json,
    unwrap_data,
)
from lamina_batch.client.budget import retry_after_of_body
from lamina_batch.client.generations import API_VERSIONS, RUNS, parse_api_error
from lamina_batch.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "lma_key"
NAMES = st.sampled_from(["data", "details", "errors", "error", "message"]) | st.text(max_size=5)
TEXTS = (
    st.sampled_from(["completed", "failed", "2026-05-08T09:30:00Z", "0001-01-01T00:00:00+23:59", "..", "", KEY, "r1"])
    | st.text(st.characters(codec=None), max_size=20)
    | st.text(string.printable, max_size=20)
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**60), 10**60) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=10,
)


def objects(**fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    """Objects with some of these fields, each of them as it should be or not."""
    return st.fixed_dictionaries({}, optional={name: value | ANYTHING for name, value in fields.items()})


OUTPUT = objects(id=TEXTS, label=TEXTS, type=TEXTS, value=ANYTHING, status=TEXTS, error=TEXTS)
EXECUTION = objects(
    runId=TEXTS,
    executionId=TEXTS,
    workflowId=TEXTS,
    status=TEXTS,
    outputs=st.lists(OUTPUT, max_size=3),
    errorMessage=TEXTS,
    createdAt=TEXTS,
    completedAt=TEXTS,
)
FAULT = objects(
    field=TEXTS, error=TEXTS, message=TEXTS, got=ANYTHING, allowed=st.lists(TEXTS, max_size=3), range=ANYTHING
)
FAULTS = st.lists(TEXTS | FAULT, max_size=3)
ERROR = objects(
    error=TEXTS,
    code=TEXTS,
    requestId=TEXTS,
    retryAfter=st.integers(),
    details=FAULTS | objects(details=objects(errors=FAULTS), errors=FAULTS),
)
PARAMETER = objects(name=TEXTS, type=TEXTS, options=st.lists(TEXTS, max_size=3), default=ANYTHING, accept=ANYTHING)
APP = objects(appId=TEXTS, name=TEXTS, description=TEXTS, parameters=st.lists(PARAMETER, max_size=3))
PAGE = objects(data=st.lists(EXECUTION, max_size=3), pagination=objects(total=st.integers()))
JSON = ANYTHING | ERROR | PAGE | EXECUTION | objects(data=EXECUTION) | objects(data=APP)


#: The machine may be busy.
patient = settings(suppress_health_check=[HealthCheck.too_slow])


def texts(value: object) -> Iterator[str]:
    """Every text in a value of ours."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)
    elif is_dataclass(value):
        for item in fields(value):
            yield from texts(getattr(value, item.name))


def parsed(body: object) -> Iterator[object]:
    data = unwrap_data(body)
    yield parse_delivery(body)
    yield parse_page(body, RUNS)
    for generation in API_VERSIONS.values():
        yield read_execution_id(data, generation)
        yield parse_execution(data, generation)
        yield parse_execution(data, generation, "r1")
    complaint = parse_api_error(body)
    yield complaint
    yield complaint.told("otherwise")
    yield retry_after_of_body(body)
    try:
        app = parse_app(data)
    except ServiceError:
        return
    yield app
    yield app.fingerprint


def cut(text: str) -> str:
    return text.replace(KEY, "[key]")


@patient
@given(JSON)
@example({"data": {"runId": "r1", "status": "completed", "errorMessage": "\ud800", "workflowId": "\udfff"}})
@example({"data": {"runId": "r1", "status": "completed", "outputs": [{"id": {"a": float("nan")}, "value": [10**50]}]}})
def test_any_json_is_read_without_an_error_and_without_the_key(body: object) -> None:
    for value in parsed(read_json(json.dumps(body).encode(), cut)):
        for text in texts(value):
            text.encode()
            assert KEY not in text


@patient
@given(JSON)
@example({"data": {"runId": "r1", "status": "completed", "errorMessage": "\ud800"}})
def test_a_callback_of_any_json_is_read_without_an_error(body: object) -> None:
    """It is parsed elsewhere, so it comes through another door."""
    for text in texts(parse_delivery(body)):
        text.encode()


@patient
@given(st.binary(max_size=200) | JSON.map(lambda body: json.dumps(body).encode()))
def test_any_bytes_are_read_without_an_error(body: bytes) -> None:
    for _ in parsed(read_json(body, cut)):
        pass


@patient
@given(
    st.binary(max_size=200) | st.binary(max_size=2000).map(gzip.compress),
    st.sampled_from(["", "gzip", "deflate", "br"]) | st.text(max_size=5),
    st.integers(1, 100),
)
def test_unpacking_ends_in_so_many_bytes_or_in_a_value_error(body: bytes, encoding: str, most: int) -> None:
    try:
        unpacked = decode_body(body, encoding, most=most)
    except ValueError:
        return
    assert unpacked == body or len(unpacked) <= most
