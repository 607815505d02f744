"""The Python API against the sandbox: the same path as the commands, in a program of somebody else."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from hostile import hostile, says
from process import APP, read_manifest, row, stopping, wait_for, write_rows

import lamina_batch
from lamina_batch.errors import CredentialsError, LedgerLockedError, PipelineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from process import Cli, Service


def loaded(project: Path, service: Service, overrides: dict[str, str] | None = None) -> lamina_batch.LoadedPipeline:
    return lamina_batch.load_pipeline(
        project / "p.yaml", base_url=service.url, api_key="lma_of_a_program", overrides=overrides
    )


def test_plan_run_and_read_as_the_commands_do(
    project: Path, service: Service, at: Cli, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the program bought is not bought again by the command, and the frame is the manifest."""
    write_rows(project, [row(1), row(2), row(3, gender="Femal")])
    pipeline = loaded(project, service)

    plan = lamina_batch.plan(pipeline)
    assert plan.executions == 2
    assert plan.jobs.select("key", "action").rows() == [("00001", "submit"), ("00002", "submit"), ("00003", "invalid")]
    assert plan.findings["code"].to_list() == ["invalid_option"]
    assert not pipeline.state.exists()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    summary = lamina_batch.run(pipeline)
    assert {number: signal.getsignal(number) for number in before} == before
    assert (summary.exit_code, summary.counts["submitted"], summary.counts["invalid"]) == (3, 2, 1)
    assert capfd.readouterr() == ("", "")

    frame = lamina_batch.read_results(pipeline)
    lines = read_manifest(pipeline.manifest[0])
    assert frame.columns == list(lines[0])
    assert frame["lamina_status"].to_list() == ["completed", "completed", "invalid"]
    assert frame["lamina_Front View"][0] == lines[0]["lamina_Front View"]
    assert lamina_batch.read_results(pipeline, layout="long").height > frame.height

    assert at("run", "p.yaml", "--json", code=3).summary["counts"]["unchanged"] == 2
    assert sum(service.bought().values()) == 2


def test_who_shall_be_told_is_told(project: Path, service: Service, capfd: pytest.CaptureFixture[str]) -> None:
    """As after a command; and that nobody takes it changes nothing, and is not printed."""
    with hostile(start=says(200)) as tool:
        pipeline = loaded(project, service, {"notify.url": f"{tool.url}/hook"})
        lamina_batch.run(pipeline)
        with pytest.raises(UsageError, match="'nobody'"):
            lamina_batch.run(pipeline, only=["nobody"])
        told = [json.loads(asked.body) for asked in tool.asked]
    assert [(one["ending"], one["exit_code"]) for one in told] == [("success", 0), ("failure", 2)]
    assert told[0]["counts"]["completed"] == 3
    assert "'nobody'" in told[1]["error"]
    assert lamina_batch.run(pipeline).exit_code == 0
    assert capfd.readouterr() == ("", "")


def test_verdicts_of_the_report(project: Path, service: Service) -> None:
    """What was rejected there, and nothing else, is bought once more."""
    pipeline = loaded(project, service)
    lamina_batch.run(pipeline)
    line = lamina_batch.read_results(pipeline).row(1, named=True)
    verdict = {
        "key": line["lamina_key"],
        "variant": line["lamina_variant"],
        "inputs_sha256": line["lamina_inputs_sha256"],
        "execution_id": line["lamina_execution_id"],
        "verdict": "reject",
        "note": "sleeve is cut off",
    }
    picks = project / "picks.json"
    kind = {"format": "lamina-batch picks", "version": 1}
    about = {"pipeline": pipeline.name, "app": APP, "service": service.url}
    picks.write_text(json.dumps({**kind, **about, "picks": [verdict]}))
    assert lamina_batch.plan(pipeline, rerun_file=picks).executions == 1
    assert lamina_batch.run(pipeline, rerun_file=picks).counts["submitted"] == 1
    assert lamina_batch.run(pipeline, rerun_file=picks).counts["submitted"] == 0
    with pytest.raises(UsageError, match="No such file"):
        lamina_batch.plan(pipeline, rerun_file=project / "other.json")


def test_a_sandbox_of_its_own(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Embedded, as with --sandbox: another ledger, other results; overrides as --set takes them; notes in the log."""
    caplog.set_level(logging.INFO, "lamina_batch")
    pipeline = lamina_batch.load_pipeline(
        project / "p.yaml", sandbox=True, overrides={"rows.where": "sku <> '00002'", "name": "other"}
    )
    assert pipeline.manifest == (project / "out" / "other.sandbox.csv",)
    summary = lamina_batch.run(pipeline, only=["00001"])
    assert (summary.exit_code, summary.counts["completed"], summary.counts["planned"]) == (0, 1, 1)
    assert "1 by `where`" in caplog.text
    again = lamina_batch.plan(pipeline, rerun="00001")
    assert again.jobs.rows_by_key("key", named=True)["00001"][0]["reason"] == "rerun"


def test_no_keys_are_no_rows(project: Path, service: Service) -> None:
    """A list that a program made may be empty: that must not buy the whole catalog."""
    pipeline = loaded(project, service)
    assert lamina_batch.plan(pipeline).executions == 3
    assert lamina_batch.plan(pipeline, only=[]).executions == 0
    assert lamina_batch.plan(pipeline, rerun=()).executions == 0
    assert lamina_batch.run(pipeline, only=[]).counts["submitted"] == 0
    assert lamina_batch.run(pipeline, rerun=[]).counts["submitted"] == 0


async def test_in_a_loop_that_runs(project: Path, service: Service) -> None:
    pipeline = loaded(project, service)
    plan = await lamina_batch.plan_async(pipeline)
    summary = await lamina_batch.run_async(pipeline, limit=2)
    assert (plan.executions, summary.counts["completed"]) == (3, 2)
    with pytest.raises(UsageError, match="await run_async"):
        lamina_batch.run(pipeline)
    with pytest.raises(UsageError, match="await plan_async"):
        lamina_batch.plan(pipeline)


def test_in_a_thread(project: Path, service: Service) -> None:
    """Where no signal handler can be set: workers of an orchestrator are often threads."""
    answers: list[lamina_batch.Summary] = []
    thread = threading.Thread(target=lambda: answers.append(lamina_batch.run(loaded(project, service))))
    thread.start()
    thread.join()
    assert [summary.counts["completed"] for summary in answers] == [3]


async def test_cancelled_what_is_being_submitted_lands(project: Path, serve: Callable[..., Service]) -> None:
    """Nothing is held and nothing is lost; a later run collects what was bought."""
    service = serve("--limit", "100000", "--fault", "never_finish")
    write_rows(project, [row(number) for number in range(1, 31)])
    pipeline = loaded(project, service)
    task = asyncio.create_task(lamina_batch.run_async(pipeline))
    while not service.accepted:  # noqa: ASYNC110  # it is another process
        await asyncio.sleep(0.01)  # noqa: TID251
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    states = lamina_batch.read_results(pipeline)["lamina_status"].value_counts().rows()
    bought = len(service.accepted)
    assert dict(states) == ({"running": bought, "planned": 30 - bought} if bought < 30 else {"running": 30})
    assert [line["lamina_status"] for line in read_manifest(pipeline.manifest[0])].count("running") == bought


async def test_a_timeout_around_it_is_one(project: Path, serve: Callable[..., Service]) -> None:
    service = serve("--limit", "100000", "--fault", "never_finish")
    pipeline = loaded(project, service)

    async def once_all_are_sent(limit: asyncio.Timeout) -> None:
        while len(service.accepted) < 3:  # noqa: ASYNC110  # it is another process
            await asyncio.sleep(0.01)  # noqa: TID251
        limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):  # noqa: PT012  # the group is what the timeout is around
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as tasks:
            tasks.create_task(once_all_are_sent(limit))
            await lamina_batch.run_async(pipeline)
    assert lamina_batch.read_results(pipeline)["lamina_status"].to_list() == ["running"] * 3
    collected = asyncio.create_task(lamina_batch.run_async(pipeline, submit=False))
    await asyncio.sleep(0)  # noqa: TID251
    collected.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collected


def test_errors_are_ours(project: Path, at: Cli, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAMINA_API_KEY", raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(CredentialsError, match="no API key"):
        lamina_batch.run(lamina_batch.load_pipeline(project / "p.yaml", base_url=service.url))
    (project / "bad.yaml").write_text("version: 1\ninputz: {}\n")
    with pytest.raises(PipelineError, match="did you mean 'inputs'"):
        lamina_batch.load_pipeline(project / "bad.yaml")
    with pytest.raises(UsageError, match="has not run yet"):
        lamina_batch.read_results(loaded(project, service))
    assert issubclass(PipelineError, lamina_batch.LaminaBatchError)


def test_a_ledger_in_use_is_refused(project: Path, serve: Callable[..., Service], at: Cli) -> None:
    service = serve("--limit", "100000", "--fault", "never_finish")
    slow = type(at)(folder=at.folder, env={**at.env, "LAMINA_BASE_URL": service.url})
    with stopping(slow.start("run", "p.yaml")):
        wait_for(lambda: bool(service.accepted))
        with pytest.raises(LedgerLockedError):
            lamina_batch.run(loaded(project, service))


def test_the_key_is_never_shown(project: Path, service: Service) -> None:
    pipeline = loaded(project, service)
    assert "lma_of_a_program" not in repr(pipeline)
    assert "lma_of_a_program" not in repr(pipeline.call)
