"""Each fault of the sandbox, asked for by name, happens as docs/sandbox.md says."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from process import PATIENCE, wait_for
from sandbox_support import CARTOONIFY, FULL_SET, PHOTO, ask, get, journal, post, read, start, wait_for_end

from lamina_batch.sandbox import SANDBOX_KEY, SandboxOptions, embedded
from lamina_batch.sandbox.faults import FAULT_RULES, FaultPlan, FaultStage, RequestKind, SandboxFault, parse_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"


class Faulty:
    """A sandbox with faults, and its logs."""

    def __init__(self, base_url: str, data: Path) -> None:
        self.base_url = base_url
        self._data = data

    def accepted(self) -> list[dict[str, Any]]:
        return journal(self._data, "executions.jsonl")

    def last_request(self) -> dict[str, Any]:
        return journal(self._data, "requests.jsonl")[-1]


@pytest.fixture
def faulty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Faulty]:
    """The parameter is one fault, or a list of them."""
    faults = request.param if isinstance(request.param, list) else [request.param]
    options = SandboxOptions(data=tmp_path, limit=10**6, speed=5000, faults=tuple(faults))
    with embedded(options) as base_url:
        yield Faulty(base_url, tmp_path)


def with_fault(*specs: str | list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("faulty", specs, indirect=True)


# --- answers that do not reach the service


@with_fault("429:on=start")
def test_429_is_the_limiter_s_answer_and_nothing_is_accepted(faulty: Faulty) -> None:
    answered = post(faulty.base_url, CARTOONIFY, {})
    assert (answered.status, answered.headers["RateLimit-Remaining"]) == (429, "0")
    assert answered.body.startswith(b"Too many requests")
    assert 0 < int(answered.headers["Retry-After"]) <= 60
    assert get(faulty.base_url, "/v1/apps").status == 200
    assert faulty.accepted() == []


@with_fault("500")
def test_500_comes_for_everything_and_nothing_is_accepted(faulty: Faulty) -> None:
    for answered in (post(faulty.base_url, CARTOONIFY, {}), get(faulty.base_url, "/v1/apps")):
        assert (answered.status, answered.json()) == (500, {"error": "Internal server error"})
    assert faulty.accepted() == []
    assert (faulty.last_request()["status"], faulty.last_request()["fault"]) == (500, "500")


@with_fault("502")
def test_502_is_a_page_of_a_proxy(faulty: Faulty) -> None:
    answered = post(faulty.base_url, CARTOONIFY, {})
    assert (answered.status, answered.headers["Content-Type"]) == (502, "text/html")
    assert b"<h1>502 Bad Gateway</h1>" in answered.body
    assert "RateLimit-Limit" not in answered.headers
    assert faulty.accepted() == []


@with_fault("drop_before")
def test_drop_before_resets_the_connection_and_nothing_is_accepted(faulty: Faulty) -> None:
    with pytest.raises(ConnectionResetError) as ended:
        post(faulty.base_url, CARTOONIFY, {})
    assert not isinstance(ended.value, http.client.RemoteDisconnected), "closed, not reset"
    assert faulty.accepted() == []
    assert (faulty.last_request()["status"], faulty.last_request()["fault"]) == (None, "drop_before")


@with_fault("redirect:to=http://127.0.0.1:9/elsewhere")
def test_redirect_names_another_host(faulty: Faulty) -> None:
    answered = post(faulty.base_url, CARTOONIFY, {})
    assert (answered.status, answered.headers["Location"]) == (302, "http://127.0.0.1:9/elsewhere")
    assert faulty.accepted() == []


@with_fault("unauthorized:on=start,after=1")
def test_a_key_that_is_revoked_in_mid_run_is_refused_everywhere_from_then_on(faulty: Faulty) -> None:
    execution_id = start(faulty.base_url)
    assert get(faulty.base_url, f"/v1/executions/{execution_id}").status == 200
    assert post(faulty.base_url, CARTOONIFY, {}).status == 401
    answered = get(faulty.base_url, f"/v1/executions/{execution_id}")
    assert (answered.status, answered.json()) == (401, {"error": "Invalid API key"})
    assert len(faulty.accepted()) == 1


@with_fault("credits_400:after=1")
def test_credits_400_refuses_every_start_from_then_on(faulty: Faulty) -> None:
    execution_id = start(faulty.base_url)
    for _ in range(2):
        answered = post(faulty.base_url, CARTOONIFY, {})
        assert (answered.status, answered.json()) == (400, {"error": "Insufficient credits"})
    assert get(faulty.base_url, f"/v1/executions/{execution_id}").status == 200


# --- accepted, and the answer is lost


@with_fault("500_accepted", "502_accepted")
def test_accepted_and_yet_a_5xx(faulty: Faulty) -> None:
    answered = post(faulty.base_url, CARTOONIFY, {"Upload": PHOTO})
    (accepted,) = faulty.accepted()
    assert answered.status == int(faulty.last_request()["fault"][:3])
    assert accepted["inputs"] == {"Upload": PHOTO}
    assert faulty.last_request()["execution_id"] == accepted["execution_id"]
    assert wait_for_end(faulty.base_url, accepted["execution_id"])["status"] == "completed"


@with_fault("drop_after_accept")
def test_drop_after_accept_closes_without_an_answer(faulty: Faulty) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        post(faulty.base_url, CARTOONIFY, {})
    (accepted,) = faulty.accepted()
    assert faulty.last_request()["status"] is None
    assert faulty.last_request()["execution_id"] == accepted["execution_id"]
    assert wait_for_end(faulty.base_url, accepted["execution_id"])["status"] == "completed"


@with_fault("drop_after_accept")
def test_a_start_that_is_refused_is_answered_even_so(faulty: Faulty) -> None:
    assert post(faulty.base_url, CARTOONIFY, {"Style": "Mars"}).status == 400
    assert faulty.last_request()["fault"] is None


@with_fault("hang_after_accept:seconds=0.05")
def test_hang_after_accept_never_answers(faulty: Faulty) -> None:
    with pytest.raises(http.client.RemoteDisconnected):
        post(faulty.base_url, CARTOONIFY, {})
    assert len(faulty.accepted()) == 1


def test_a_hanging_answer_does_not_keep_the_sandbox_from_stopping(tmp_path: Path) -> None:
    with embedded(SandboxOptions(data=tmp_path, faults=("hang_after_accept:seconds=100000",))) as base_url:
        connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=PATIENCE)
        headers = {"x-api-key": SANDBOX_KEY, "Content-Type": "application/json"}
        connection.request("POST", f"/v1/apps/{CARTOONIFY}/executions", b'{"inputs":{}}', headers)
        wait_for(lambda: bool(journal(tmp_path, "requests.jsonl")))
    with pytest.raises(ConnectionError):
        connection.getresponse()
    connection.close()


# --- answers that do not arrive whole, or in time


@with_fault("slow:seconds=0.01")
def test_slow_answers_in_the_end(faulty: Faulty) -> None:
    assert start(faulty.base_url)
    assert faulty.last_request()["fault"] == "slow"


@with_fault("broken_json")
def test_broken_json_is_cut_but_complete_to_http(faulty: Faulty) -> None:
    answered = post(faulty.base_url, CARTOONIFY, {})
    assert answered.status == 202
    with pytest.raises(json.JSONDecodeError):
        answered.json()
    assert len(faulty.accepted()) == 1


@with_fault("truncated")
def test_truncated_ends_before_its_content_length(faulty: Faulty) -> None:
    with pytest.raises(http.client.IncompleteRead):
        post(faulty.base_url, CARTOONIFY, {})
    assert len(faulty.accepted()) == 1


@with_fault("huge_body:on=app")
def test_huge_body_does_not_end(faulty: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    connection = http.client.HTTPConnection(urlsplit(faulty.base_url).netloc, timeout=PATIENCE)
    connection.request("GET", "/v1/apps", headers={"x-api-key": SANDBOX_KEY})
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Length"]) == (200, None)
    assert len(response.read(5_000_000)) == 5_000_000
    response.close()
    connection.close()
    assert start(faulty.base_url)
    assert caplog.records == []


# --- executions that end badly


@with_fault("never_finish")
def test_never_finish_runs_for_ever(faulty: Faulty) -> None:
    execution_id = start(faulty.base_url)
    assert faulty.accepted()[0]["ending"] == "never"
    wait_for(lambda: read(faulty.base_url, execution_id)["status"] != "queued")
    data = read(faulty.base_url, execution_id)
    assert (data["status"], data["completedAt"]) == ("running", None)


@with_fault("failed:message=the model said no")
def test_failed_fails_with_the_message(faulty: Faulty) -> None:
    data = wait_for_end(faulty.base_url, start(faulty.base_url))
    assert (data["status"], data["errorMessage"]) == ("failed", "the model said no")
    assert faulty.accepted()[0]["message"] == "the model said no"


@with_fault("failed_output")
def test_failed_output_completes_with_one_output_in_error(faulty: Faulty) -> None:
    data = wait_for_end(faulty.base_url, start(faulty.base_url, FULL_SET, {}))
    statuses = [(output["status"], output["type"] == "pending") for output in data["outputs"]]
    assert data["status"] == "completed"
    assert statuses.count(("error", True)) == 1
    assert statuses.count(("completed", False)) == len(statuses) - 1


@with_fault("credits:after=1")
def test_credits_fails_every_execution_from_then_on(faulty: Faulty) -> None:
    ends = [wait_for_end(faulty.base_url, start(faulty.base_url)) for _ in range(3)]
    assert [(data["status"], data["errorMessage"]) for data in ends] == [
        ("completed", None),
        ("failed", "Insufficient credits"),
        ("failed", "Insufficient credits"),
    ]


# --- which requests meet a fault


@with_fault("500:on=media,first=1")
def test_media_meets_faults_only_when_asked_for(faulty: Faulty) -> None:
    url = wait_for_end(faulty.base_url, start(faulty.base_url))["outputs"][0]["value"]
    assert [ask(url, headers={}).status for _ in range(2)] == [500, 200]


@with_fault("500:match=AP-1002")
def test_match_looks_at_the_inputs_of_the_execution(faulty: Faulty) -> None:
    other = start(faulty.base_url, CARTOONIFY, {"Upload": "https://a.example/AP-1001.jpg"})
    assert get(faulty.base_url, f"/v1/executions/{other}").status == 200
    assert post(faulty.base_url, CARTOONIFY, {"Upload": "https://a.example/AP-1002.jpg"}).status == 500


@with_fault(["slow:seconds=0.001,on=start", "failed:first=1"])
def test_a_fault_of_the_answer_and_one_of_the_execution_go_together(faulty: Faulty) -> None:
    assert wait_for_end(faulty.base_url, start(faulty.base_url))["status"] == "failed"
    assert journal(faulty._data, "requests.jsonl")[0]["fault"] == "slow"


def fires(spec: str, kinds: list[RequestKind], *, seed: int = 0, texts: tuple[str, ...] = ()) -> list[int]:
    """The positions, counted from 1, of the requests that meet the fault."""
    plan = FaultPlan(parse_faults([spec]), seed=seed)
    return [n for n, kind in enumerate(kinds, start=1) if any(plan.choose(kind, texts))]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("500", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("500:on=start", [1, 3, 5, 7]),
        ("500:on=read,every=2", [4, 8]),
        ("500:on=start,after=1", [3, 5, 7]),
        ("500:on=start,after=1,first=2", [3, 5]),
        ("500:every=3", [3, 6]),
        ("500:every=3,after=2", [5, 8]),
        ("500:rate=0", []),
        ("500:match=x", []),
        ("unauthorized:on=start,after=2", [5, 6, 7, 8]),
        ("credits:every=2", [3, 5, 7]),
    ],
)
def test_selectors_count_the_requests_that_the_fault_is_about(spec: str, expected: list[int]) -> None:
    assert fires(spec, ["start", "read"] * 4) == expected


def test_rate_is_a_chance_drawn_from_the_seed() -> None:
    starts: list[RequestKind] = ["start"] * 1000
    drawn = fires("500:rate=0.1", starts, seed=1)
    assert 60 < len(drawn) < 140
    assert drawn == fires("500:rate=0.1", starts, seed=1)
    assert drawn != fires("500:rate=0.1", starts, seed=2)


@given(st.lists(st.sampled_from(["start", "read", "list", "app", "media"])))
def test_requests_of_other_kinds_do_not_shift_the_chances(kinds: list[RequestKind]) -> None:
    """Polls come in no fixed order; whether the n-th start meets a fault must not hang on them."""
    plan = FaultPlan(parse_faults(["500:rate=0.5,on=start"]), seed=4)
    alone = FaultPlan(parse_faults(["500:rate=0.5,on=start"]), seed=4)
    mixed = [plan.choose(kind, ()) for kind in kinds]
    expected = [alone.choose("start", ()) for kind in kinds if kind == "start"]
    assert [choice for choice, kind in zip(mixed, kinds, strict=True) if kind == "start"] == expected


def test_the_first_of_several_faults_wins() -> None:
    plan = FaultPlan(parse_faults(["502:first=1", "500"]), seed=0)
    chosen: list[SandboxFault | None] = [plan.choose("read", ())[0] for _ in range(2)]
    assert [fault.name for fault in chosen if fault] == ["502", "500"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("nonsense", "Known: 429, 500, 502, 503, drop_before"),
        ("", "Known: 429"),
        ("500:rate", "'rate' is not understood"),
        ("500:speed=3", "500 takes code=, on=, rate="),
        ("webhook_lost:tries=0", "tries= is a whole number of at least 1"),
        ("webhook_lost:on=read", "on= is one of start, not 'read'"),
        ("slow:seconds=soon", "seconds= is a number"),
        ("500:rate=2", "rate= is a number from 0 to 1"),
        ("500:rate=nan", "rate= is a number"),
        ("500:every=0", "every= is a whole number of at least 1"),
        ("500:first=-1", "first= is a whole number"),
        ("500:on=reads", "on= is one of start, read, list, app, media, any, not 'reads'"),
        ("failed:on=read", "on= is one of start, not 'read'"),
        ("redirect", "to= is missing"),
        ("credits:first=3", "first= means nothing"),
    ],
)
def test_a_fault_that_is_none_is_refused_with_what_is_known(spec: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        SandboxOptions(faults=(spec,))


def test_the_docs_show_an_example_of_each_fault() -> None:
    examples = re.findall(r"^\| `(\w+)` \|.*\| `([^`]+)` \|$", DOCS.read_text(), re.MULTILINE)
    assert [name for name, _ in examples] == list(FAULT_RULES)
    for name, example in examples:
        (fault,) = parse_faults([example])
        assert fault.name == name
        assert fault.stage in FaultStage
