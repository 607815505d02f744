"""What the doctor makes of facts: the ones that no service or folder of a test can be brought to show."""

from __future__ import annotations

from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from lamina_batch.client.budget import Quota
from lamina_batch.client.lamina import EXECUTIONS, RUNS, ServiceProbe
from lamina_batch.doctor.checks import CheckLevel, as_json, exit_code, run_checks
from lamina_batch.doctor.facts import Facts, LocalFacts, ServiceFacts
from lamina_batch.doctor.webhook_roundtrip import RoundTrip
from lamina_batch.errors import ServiceError, UsageError
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.runs.context import Access

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.pipeline.spec import Pipeline

NOW = 1_800_000_000.0
VERSIONS = {"lamina-batch": "0.1.0", "python": "3.11.7", "polars": "1.30.0", "sqlite": "3.40.1"}
GREETING = ServiceProbe(
    status=200, usable=True, quota=Quota(limit=100, remaining=99, window=60.0), date=formatdate(NOW, usegmt=True)
)
SERVICE = ServiceFacts(greeting=GREETING, sent_at=NOW, received_at=NOW + 0.2, generation=EXECUTIONS)
FACTS = Facts(
    versions=VERSIONS,
    pipeline=None,
    access=Access(
        base_url="https://a.example", api_key="lma_x", service="https://a.example", key_source="LAMINA_API_KEY"
    ),
    service=SERVICE,
    place=None,
    notify_problem=None,
)


def pipeline(folder: Path, added: str = "") -> Pipeline:
    file = folder / "p.yaml"
    text = "version: 1\napp: a\nrows: {from: r.csv, key: k}\ninputs: {F: {column: f}}\n"
    file.write_text(text + added)
    import datetime as dt  # noqa: PLC0415

    return load_pipeline(file, environ={}, today=dt.date(2026, 1, 31))


def wrong(facts: Facts) -> dict[str, str]:
    return {
        line.check: f"{line.level}: {line.message}" for line in run_checks(facts) if line.level is not CheckLevel.OK
    }


def greeted(**changes: Any) -> Facts:
    return replace(FACTS, service=replace(SERVICE, greeting=replace(GREETING, **changes)))


def test_all_is_well() -> None:
    assert wrong(FACTS) == {}
    assert exit_code(run_checks(FACTS)) == 0


@pytest.mark.parametrize(
    ("facts", "check", "said"),
    [
        (replace(FACTS, versions=VERSIONS | {"sqlite": "3.36.0"}), "versions", "fail: this Python has SQLite 3.36.0"),
        (greeted(status=403, usable=False, message="No access"), "service", "fail: HTTP 403: No access"),
        (greeted(status=None, usable=False, message="no route"), "service", "fail: no route"),
        (greeted(date=""), "clock", "warn: the service does not tell the time"),
        (greeted(date="yesterday"), "clock", "warn: the service does not tell the time"),
        (greeted(quota=Quota(limit=100)), "limit", "warn: the service says nothing"),
        (
            replace(FACTS, service=replace(SERVICE, generation=ServiceError("cannot be told"))),
            "generation",
            "fail: cannot be told",
        ),
        (replace(FACTS, access=UsageError("not a base URL"), service=None), "base url", "fail: not a base URL"),
    ],
)
def test_what_is_wrong_is_told(facts: Facts, check: str, said: str) -> None:
    assert wrong(facts)[check].startswith(said)


@pytest.mark.parametrize("off", [-1.0, 0.0, 0.9, 29.0])
def test_a_header_of_whole_seconds_and_a_slow_answer_are_no_fault_of_a_clock(off: float) -> None:
    slow = replace(SERVICE, sent_at=NOW + off - 20.0, received_at=NOW + off)
    assert wrong(replace(FACTS, service=slow)) == {}


@pytest.mark.parametrize(
    "loopback", ["http://127.0.0.1:8787", "http://[::1]:1", "http://localhost", "http://x.localhost"]
)
def test_a_key_may_go_in_clear_to_this_computer(loopback: str) -> None:
    access = Access(base_url=loopback, api_key="lma_x", service=loopback)
    assert "base url" not in wrong(replace(FACTS, access=access))


@pytest.mark.parametrize("elsewhere", ["http://10.0.0.5", "http://127.0.0.1.example.com", "http://localhost.example"])
def test_and_to_no_other(elsewhere: str) -> None:
    access = Access(base_url=elsewhere, api_key="lma_x", service=elsewhere)
    assert wrong(replace(FACTS, access=access))["base url"].startswith("fail: ")


def test_a_generation_that_nobody_asked_for(tmp_path: Path) -> None:
    asked = replace(FACTS, pipeline=pipeline(tmp_path, "api: {generation: runs}\n"))
    assert wrong(asked)["generation"].startswith("fail: the service answers as executions")
    assert "generation" not in wrong(replace(asked, service=replace(SERVICE, generation=RUNS)))


def test_what_was_sent_and_not_answered_counts_as_held(tmp_path: Path) -> None:
    place = LocalFacts(rows=None, drift=(), state=(), results=(), counts={"completed": 3, "held": 1, "submitting": 1})
    told = wrong(replace(FACTS, pipeline=pipeline(tmp_path), place=place))
    assert told == {"state": "warn: 2 rows are held: it is not known whether they were bought"}


def test_results_that_others_can_read_on_the_way(tmp_path: Path) -> None:
    hooked = pipeline(tmp_path, "run: {webhook: {public_url: 'http://hooks.example.com'}}\n")
    trip = RoundTrip(url="http://hooks.example.com", status=200, arrived=True, taken=True)
    told = wrong(replace(FACTS, pipeline=hooked, service=replace(SERVICE, trip=trip)))
    assert told == {"webhook": "warn: http://hooks.example.com: results can be read on the way"}


def test_what_json_holds() -> None:
    lines = run_checks(replace(FACTS, versions=VERSIONS | {"sqlite": "3.36.0"}))
    told = as_json(lines)
    assert (told["schema_version"], told["exit_code"]) == (1, 1)
    assert told["checks"] == [
        {"check": line.check, "level": str(line.level), "message": line.message, "hint": line.hint} for line in lines
    ]
