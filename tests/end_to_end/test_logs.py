"""`--log-format json`: every line on stderr is an event that fits schemas/event.schema.json, whatever happens."""

from __future__ import annotations

import json
import logging
import signal
import tempfile
import warnings
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner
from hostile import EVIL, hostile, raw, says
from jsonschema import Draft202012Validator
from process import PATIENCE, TOP, Cli, Service, row, stopping, wait_for, write_rows
from runtimes import make_runtime

from lamina_batch.cli.shell import Group, send_messages_to
from lamina_batch.monitoring.events import EventLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("lamina_batch") / f"schemas/{name}.schema.json").read_text("utf-8"))
    return found


#: Stricter than what is published: a field that is not described is told here.
EVENT = Draft202012Validator({**schema("event"), "unevaluatedProperties": False})
SUMMARY = Draft202012Validator(schema("summary"))


def events(err: str) -> list[dict[str, Any]]:
    """The events of one run, each checked."""
    found: list[dict[str, Any]] = [json.loads(line) for line in err.splitlines()]
    for event in found:
        EVENT.validate(event)
    assert len({event["run_id"] for event in found}) == 1
    assert [event["ts"] for event in found] == sorted(event["ts"] for event in found)
    assert [event["event"] for event in found].count("ended") == 1
    assert found[-1]["event"] == "ended"
    if found[-1]["summary"] is not None:
        SUMMARY.validate(found[-1]["summary"])
    return found


def of(found: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in found if event["event"] == name]


def test_a_run_in_which_everything_happens(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    faults = ("failed:match=Dress 1 ", "failed_output:match=Dress 2 ", "drop_after_accept:match=Dress 3 ")
    service = serve("--limit", "1000", "--speed", "100", *(word for fault in faults for word in ("--fault", fault)))
    bad = [row(100 + n, front="no address") for n in range(12)]
    write_rows(project, [*(row(n) for n in range(1, 6)), *bad])
    at = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": service.url})
    ran = at("run", "p.yaml", "--log-format", "json", "--json", code=6)
    found = events(ran.err)
    assert {event["pipeline"] for event in found} == {"p"}
    assert [event["event"] for event in found[:2]] == ["started", "planned"]
    assert found[1]["actions"]["submit"] == 5
    assert sum(found[1]["actions"].values()) == found[1]["jobs"] == 17
    assert [event["key"] for event in of(found, "finding")] == [f"{100 + n:05}" for n in range(10)]
    assert found[-1]["summary"] == ran.summary
    ends = {event["key"]: event for event in of(found, "job") if event["state"] != "running"}
    states = {"00001": "failed", "00002": "partial", "00003": "held", "00004": "completed", "00005": "completed"}
    assert {key: event["state"] for key, event in ends.items()} == states
    assert {event["level"] for event in ends.values() if event["state"] == "completed"} == {"info"}
    assert {event["level"] for event in ends.values() if event["state"] != "completed"} == {"warning"}
    accepted = {line["execution_id"] for line in service.accepted}
    assert {event["execution_id"] for event in of(found, "job")} - {None} < accepted
    # What a person would have read is there too.
    notes = "\n".join(event["message"] for event in of(found, "note"))
    assert "2 more findings" in notes
    assert "see `lamina-batch held p.yaml`" in notes


def test_collect_tells_as_run_does_and_quiet_is_quiet(project: Path, at: Cli) -> None:
    assert at("run", "p.yaml", "--no-wait", "--log-format=json", "--quiet").err.count("\n") == 1
    found = events(at("collect", "p.yaml", "--log-format", "json").err)
    assert project.exists()
    assert found[0]["command"] == "collect"
    assert [event["state"] for event in of(found, "job")] == ["completed"] * 3


@pytest.mark.parametrize(
    ("words", "key", "code", "said"),
    [
        ("nope.yaml", "lma_any_key", 2, "did you mean 'p.yaml'"),
        ("p.yaml --only nobody", "lma_any_key", 2, "no row has the key"),
        ("p.yaml", "", 1, "no API key"),
        ("p.yaml", "lma_revoked_1234567890", 1, "refuses the API key"),
    ],
)
@pytest.mark.usefixtures("project")
def test_an_error_is_an_event(at: Cli, words: str, key: str, code: int, said: str) -> None:
    ran = at("run", *words.split(), "--log-format", "json", code=code, env={"LAMINA_API_KEY": key})
    found = events(ran.err)
    (error,) = of(found, "error")
    assert said in error["message"]
    assert (error["exit_code"], found[-1]["exit_code"], found[-1]["ending"]) == (code, code, "failure")
    assert found[-1]["summary"] is None


def test_a_second_run_and_a_stop_are_events(project: Path, cli: Cli, serve: Callable[..., Service]) -> None:
    service = serve("--limit", "1000", "--fault", "never_finish")
    at = Cli(folder=project, env={**cli.env, "LAMINA_BASE_URL": service.url})
    with stopping(at.start("run", "p.yaml", "--log-format", "json")) as first:
        wait_for(lambda: len(service.accepted) == 3)
        locked = events(at("run", "p.yaml", "--log-format", "json", code=7).err)
        assert str(first.pid) in of(locked, "error")[0]["message"]
        skipped = events(at("run", "p.yaml", "--log-format", "json", "--if-locked", "skip").err)
        assert skipped[-1]["ending"] == "success"
        assert "skipped" in of(skipped, "note")[0]["message"]
        first.send_signal(signal.SIGTERM)
        _, err = first.communicate(timeout=PATIENCE)
    stopped = events(err)
    assert first.returncode == stopped[-1]["exit_code"] == 143
    assert "nothing new is submitted" in "".join(event["message"] for event in of(stopped, "note"))
    assert stopped[-1]["summary"]["stopped_by"] == "signal"


def test_neither_the_key_nor_what_drives_a_terminal_is_in_a_line(project: Path, cli: Cli) -> None:
    key = "lma_KeyOfNobody+/=0123456789"
    keyed = Cli(folder=project, env={**cli.env, "LAMINA_API_KEY": key})
    with hostile(start=says(400, {"error": f"{EVIL}{key}"})) as service:
        ran = raw(keyed, service.url, "run", "p.yaml", "--log-format", "json")
    assert ran.code == 3
    assert key.encode() not in ran.err
    assert ran.harm() == []
    assert "[key]" in of(events(ran.err.decode()), "job")[0]["message"]


def test_what_libraries_log_or_warn_of_is_a_note() -> None:
    lines: list[str] = []
    log = EventLog(write=lines.append, runtime=make_runtime(now=lambda: 0.0, wall=lambda: 0.0), run_id="r", quiet=False)
    with log.capturing():
        logging.getLogger("asyncio").error("a task was lost", exc_info=ValueError("why"))
        logging.getLogger("asyncio").info("nothing of note")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old\nways", DeprecationWarning, stacklevel=1)
    logging.getLogger("asyncio").handlers.clear()
    found = [json.loads(line) for line in lines]
    assert [event["level"] for event in found] == ["warning"] * 2
    assert found[0]["message"] == "asyncio: a task was lost (ValueError: why)"
    assert "DeprecationWarning: old" in found[1]["message"]


def test_a_bug_is_an_event_too(tmp_path: Path) -> None:
    lines: list[str] = []

    @click.group(cls=Group)
    def group() -> None: ...

    @group.command()
    def crash() -> None:
        send_messages_to(
            EventLog(
                write=lines.append, runtime=make_runtime(now=lambda: 0.0, wall=lambda: 0.0), run_id="r", quiet=True
            )
        )
        raise RuntimeError("a bug")

    tempfile.tempdir = str(tmp_path)
    try:
        done = CliRunner().invoke(group, ["crash"])
    finally:
        tempfile.tempdir = None
    assert (done.exit_code, done.output) == (1, "")
    (event,) = [json.loads(line) for line in lines]
    assert (event["event"], event["exit_code"]) == ("error", 1)
    assert "a bug in lamina-batch: RuntimeError: a bug\n  the details are in" in event["message"]


@pytest.mark.skipif(not (TOP / "docs").is_dir(), reason="the wheel is tested without its documentation")
def test_the_page_has_every_event_and_every_field() -> None:
    page = (TOP / "docs" / "logs.md").read_text(encoding="utf-8")
    published = schema("event")
    fields = set(published["properties"])
    for event in published["oneOf"]:
        fields |= {event["title"], *event["properties"]}
    assert [field for field in sorted(fields) if f"`{field}`" not in page] == []
    assert {event["title"] for event in published["oneOf"]} == set(published["properties"]["event"]["enum"])
