"""The engine against the sandbox's faults, on real sockets: what is bought, what is held, what stops the run."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import resource
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from process import PATIENCE, PIPELINE, json_lines, read_manifest, row, wait_for, write_rows

from lamina_batch.errors import CredentialsError, ServiceError, StateError
from lamina_batch.execution.engine import MAX_CONSECUTIVE_UNKNOWN, MAX_OPEN_POSTS, STOP_AFTER_UNKNOWN, Control
from lamina_batch.execution.news_writer import MAX_WRITE_ATTEMPTS
from lamina_batch.ledger.job import State
from lamina_batch.ledger.ledger import Ledger
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.runs.context import Access, RunRequest
from lamina_batch.runs.planning import active_stop
from lamina_batch.runs.run import run as run_pipeline
from lamina_batch.runs.service import last_run_app
from lamina_batch.runs.state import read_existing_state
from lamina_batch.runtime import Runtime
from lamina_batch.sandbox import SandboxOptions, embedded
from lamina_batch.sandbox.api_versions import GENERATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lamina_batch.catalog.check_rows import CheckedRows
    from lamina_batch.execution.engine import Progress
    from lamina_batch.execution.plan import Plan
    from lamina_batch.ledger.job import Job, News
    from lamina_batch.results.summary import Summary


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.states: list[tuple[str, str]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def planned(self, plan: Plan, checked: CheckedRows) -> None: ...

    def changed(self, job: Job) -> None:
        self.states.append((job.key, job.state))

    @property
    def running(self) -> int:
        """How many executions the run has been told of."""
        return sum(state == "running" for _, state in self.states)

    def on_progress(self, progress: Progress) -> None:
        assert 0 <= progress.ended <= progress.total


@dataclass(slots=True, kw_only=True)
class Clock:
    """The real one, of which a test may say that it is later than that."""

    #: seconds
    ahead: float = 0.0
    #: the wall clock alone: what was sent before this run is so much older
    older: float = 0.0

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def wall(self) -> float:
        return time.time() + self.ahead + self.older  # noqa: TID251  # the test is the edge

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251


class Leaping(Clock):
    """Pauses take hardly any time."""

    async def sleep(self, seconds: float) -> None:
        self.ahead += seconds
        await asyncio.sleep(0.001)  # noqa: TID251


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    folder: Path

    def run(
        self,
        url: str,
        *overrides: str,
        key: str = "lma_test_key_of_nobody",
        notes: Notes | None = None,
        request: RunRequest | None = None,
        control: Control | None = None,
        clock: Clock | None = None,
    ) -> Summary:
        """One run in this process; intervals are chosen for a service a hundred times faster.

        How long it waits for an answer is not: on a busy machine nobody is given up on who answers in the end.
        """
        clock = clock or Clock()
        overrides = ("run.request_timeout=10m", *overrides)
        pipeline = load_pipeline(self.folder / "p.yaml", overrides=overrides, environ={}, today=dt.date(2026, 11, 23))
        return asyncio.run(
            run_pipeline(
                pipeline,
                Access(base_url=url, api_key=key, service="test", speed=100.0),
                request or RunRequest(),
                runtime=Runtime(
                    now=clock.now,
                    wall=clock.wall,
                    sleep=clock.sleep,
                    random=random.Random(0),
                    notice=lambda _: None,
                ),
                reporter=notes or Notes(),
                control=control or Control(),
            )
        )

    def statuses(self) -> Counter[str]:
        return Counter(line["lamina_status"] for line in self.manifest())

    def manifest(self) -> list[dict[str, str]]:
        return read_manifest(self.folder / "out" / "p.csv")

    def accepted(self) -> list[dict[str, Any]]:
        return json_lines(self.folder / "service" / "executions.jsonl")

    def requests(self) -> list[dict[str, Any]]:
        return json_lines(self.folder / "service" / "requests.jsonl")

    def bought(self) -> Counter[str]:
        """How often each set of inputs was accepted."""
        return Counter(json.dumps(line["inputs"], sort_keys=True) for line in self.accepted())

    def let_all_end(self) -> None:
        """Between two services: what never ended under the first has ended when the second comes."""
        file = self.folder / "service" / "executions.jsonl"
        file.write_text(file.read_text().replace('"ending":"never"', '"ending":"completed"'))

    def service(
        self, *faults: str, limit: int = 100_000, speed: float = 200.0, generation: str = "executions"
    ) -> SandboxOptions:
        data, served = self.folder / "service", GENERATIONS[generation]
        return SandboxOptions(limit=limit, window=1, speed=speed, data=data, faults=faults, generations=served)


@pytest.fixture
def here(tmp_path: Path) -> Project:
    (tmp_path / "p.yaml").write_text(PIPELINE.partition("run:")[0], encoding="utf-8")
    write_rows(tmp_path, [row(n) for n in range(1, 9)])
    return Project(folder=tmp_path)


#: fault, jobs held, exit code
LOST_ANSWERS = [
    ("drop_after_accept:every=4", 2),
    ("500_accepted:every=4", 2),
    ("502_accepted:every=4", 2),
    ("500:on=start,every=4", 2),
    ("502:on=start,every=4", 2),
    ("drop_before:on=start,every=4", 2),
    ("broken_json:on=start,every=4", 2),
    ("truncated:on=start,every=8", 1),
]


@pytest.mark.parametrize(("fault", "held"), LOST_ANSWERS)
def test_an_answer_that_proves_nothing_holds_the_job_and_never_sends_it_again(
    here: Project, fault: str, held: int
) -> None:
    with embedded(here.service(fault)) as url:
        first = here.run(url)
        assert (first.counts["held"], first.exit_code) == (held, 6)
        assert first.counts["completed"] == 8 - held
        again = here.run(url)
    assert (again.counts["submitted"], again.counts["held"]) == (0, held)
    assert set(here.bought().values()) == {1}


def test_consent_to_pay_twice_sends_held_jobs_again(here: Project) -> None:
    with embedded(here.service("drop_after_accept:first=1")) as url:
        assert here.run(url).counts["held"] == 1
        assert here.run(url, "run.on_unknown=resubmit").counts["completed"] == 8
    assert len(here.accepted()) == 9


def test_a_slow_service_is_given_up_on_after_request_timeout_and_the_job_held(here: Project) -> None:
    with embedded(here.service("hang_after_accept:seconds=3600")) as url:
        summary = here.run(url, "run.request_timeout=300ms", request=RunRequest(limit=1))
        assert (summary.counts["held"], summary.counts["planned"], summary.exit_code) == (1, 7, 6)
    with embedded(here.service()) as url:
        later = here.run(url)
    assert (later.counts["held"], later.counts["completed"]) == (1, 7)


@pytest.mark.parametrize("fault", ["500:on=read,every=2", "502:on=read,every=2", "broken_json:on=read,every=2"])
def test_polls_are_repeated_whatever_they_meet(here: Project, fault: str) -> None:
    with embedded(here.service(fault)) as url:
        assert here.run(url).counts["completed"] == 8


def test_a_429_sends_the_job_again_without_asking(here: Project) -> None:
    with embedded(here.service("429:on=start,every=5")) as url:
        summary = here.run(url)
    assert summary.counts["completed"] == 8
    assert summary.requests.rate_limited >= 1
    assert len(here.accepted()) == 8


def test_a_refused_row_is_rejected_with_the_service_s_words(here: Project) -> None:
    """The check lets it pass and the service does not: another app is served than was checked."""
    with embedded(here.service("failed:match=Dress 3,message=no such dress")) as url:
        summary = here.run(url)
    assert (summary.counts["failed"], summary.exit_code) == (1, 3)
    [bad] = [line for line in here.manifest() if line["lamina_status"] == "failed"]
    assert (bad["sku"], bad["lamina_message"]) == ("00003", "no such dress")


def test_a_failed_row_is_reported_again_and_retried_when_asked(here: Project) -> None:
    with embedded(here.service("failed:match=Dress 3,first=1")) as url:
        here.run(url)
        again = here.run(url)
        assert (again.counts["submitted"], again.counts["failed"], again.counts["new_problems"]) == (0, 1, 0)
        retried = here.run(url, request=RunRequest(retry_failed=True))
    assert (retried.counts["submitted"], retried.counts["completed"]) == (1, 8)


def test_a_failed_output_makes_the_row_partial(here: Project) -> None:
    with embedded(here.service("failed_output:match=Dress 3")) as url:
        summary = here.run(url)
    assert (summary.counts["partial"], summary.exit_code) == (1, 3)
    [line] = [line for line in here.manifest() if line["lamina_status"] == "partial"]
    errors = [name for name in line if name.endswith("_error") and line[name]]
    assert len(errors) == 1
    assert not line[errors[0].removesuffix("_error")]


def test_what_does_not_end_is_timed_out_and_collected_when_it_ends_later(here: Project) -> None:
    with embedded(here.service("never_finish")) as url:
        summary = here.run(url, "run.execution_timeout=200ms")
    assert (summary.counts["timed_out"], summary.exit_code) == (8, 3)
    here.let_all_end()
    with embedded(here.service()) as url:
        later = here.run(url)
    assert (later.counts["submitted"], later.counts["completed"]) == (0, 8)


def test_what_never_ends_does_not_keep_the_others(here: Project) -> None:
    write_rows(here.folder, [*(row(n, title="Coat") for n in range(1, 8)), row(8)])
    # The others have ended as soon as they are accepted: however late they are asked about, it is not too late.
    with embedded(here.service("never_finish:match=Dress 8", "webhook_early:match=Coat")) as url:
        summary = here.run(url, "run.execution_timeout=2s", "run.poll.max_interval=1s")
    assert (summary.counts["completed"], summary.counts["timed_out"]) == (7, 1)
    [line] = [line for line in here.manifest() if line["lamina_status"] == "timed_out"]
    assert "'running'" in line["lamina_message"]


def test_what_the_list_never_shows_as_ended_is_timed_out_and_asked_about_once_later(here: Project) -> None:
    """More than a few of them, so that the list is asked; and none of them keeps the next run."""
    with embedded(here.service("never_finish", generation="runs")) as url:
        summary = here.run(url, "run.execution_timeout=2s", "run.poll.max_interval=1s")
        assert (summary.counts["timed_out"], summary.exit_code) == (8, 3)
        later = here.run(url, "run.execution_timeout=10m")
    assert (later.counts["timed_out"], later.counts["submitted"]) == (8, 0)


def test_a_run_of_nothing_but_unknown_fates_stops(here: Project) -> None:
    """A gateway that accepts everything and answers 502 must not have the whole catalog held, nor be paid on slowly."""
    write_rows(here.folder, [row(n) for n in range(60)])
    with embedded(here.service("502:on=start")) as url:
        summary = here.run(url, clock=Leaping())
    assert (summary.stopped_by, summary.exit_code) == ("unknown", 6)
    # At most this many are on their way when it is seen that all of them are doubtful.
    assert STOP_AFTER_UNKNOWN <= summary.counts["held"] <= STOP_AFTER_UNKNOWN + MAX_OPEN_POSTS
    assert summary.counts["held"] + summary.counts["planned"] == 60


def test_a_few_unknown_fates_are_followed_one_by_one(here: Project) -> None:
    """After eight in a row each submission waits for the one before, with pauses, until the service answers again."""
    write_rows(here.folder, [row(n) for n in range(40)])
    clock, sent_at = Leaping(), []

    class Watching(Notes):
        def changed(self, job: Job) -> None:
            if job.state is State.HELD:
                sent_at.append(clock.now())

    with embedded(here.service(f"502:on=start,first={MAX_CONSECUTIVE_UNKNOWN + 2}")) as url:
        summary = here.run(url, "run.max_in_flight=1", notes=Watching(), clock=clock)
    assert (summary.stopped_by, summary.counts["held"]) == (None, MAX_CONSECUTIVE_UNKNOWN + 2)
    assert summary.counts["completed"] == 30
    assert min(later - earlier for earlier, later in pairwise(sent_at[MAX_CONSECUTIVE_UNKNOWN - 1 :])) > 0.5


@pytest.mark.parametrize("fault", ["credits:after=2", "credits_400:after=2"])
def test_want_of_credits_stops_submitting_and_leaves_the_rest_planned(here: Project, fault: str) -> None:
    with embedded(here.service(fault)) as url:
        summary = here.run(url, "run.max_in_flight=1")
        assert (summary.stopped_by, summary.exit_code) == ("credits", 5)
        assert summary.counts["completed"] == 2
        assert summary.counts["planned"] >= 5


def test_a_revoked_key_stops_the_run_and_loses_nothing(here: Project) -> None:
    notes = Notes()
    with embedded(here.service("unauthorized:on=start,after=4")) as url:
        summary = here.run(url, notes=notes)
    assert (summary.stopped_by, summary.exit_code) == ("refused", 1)
    assert any("401" in note for note in notes.notes)
    assert summary.counts["held"] == 0
    with embedded(here.service()) as url:
        assert here.run(url).counts["completed"] == 8
    assert len(here.accepted()) == 8


def test_a_canary_that_fails_stops_before_the_rest(here: Project) -> None:
    with embedded(here.service("failed:first=1")) as url:
        summary = here.run(url, "run.canary=2")
        assert (summary.stopped_by, summary.exit_code) == ("canary", 5)
        assert len(here.accepted()) == 2
        assert here.run(url, "run.canary=2", request=RunRequest(yes=True)).counts["completed"] == 7
        assert here.run(url, "run.canary=2").stopped_by is None, "it went through"


@pytest.mark.parametrize("guard", ["canary", "max_failures"])
def test_what_a_guard_stopped_the_nights_after_do_not_go_on_with(here: Project, guard: str) -> None:
    """Everything fails, night after night, and nobody looks."""
    limits = {"canary": ("run.canary=3",), "max_failures": ("run.max_failures=2", "run.max_in_flight=1")}[guard]
    notes = Notes()
    with embedded(here.service("failed")) as url:
        first = here.run(url, *limits)
        assert (first.stopped_by, first.exit_code, len(here.accepted())) == (guard, 5, 3)
        for _ in range(2):
            night = here.run(url, *limits, notes=notes)
            assert (night.stopped_by, night.exit_code, night.counts["submitted"]) == (guard, 5, 0)
    assert all(first.run_id in note and "--yes" in note for note in notes.notes)
    assert len(notes.notes) == 2
    assert len(here.accepted()) == 3
    assert here.statuses() == {"failed": 3, "planned": 5}


@pytest.mark.parametrize(
    ("request_", "overrides", "submitted"),
    [
        (RunRequest(yes=True), (), 3),
        (RunRequest(retry_failed=True), (), 3),
        (RunRequest(rerun=frozenset({"00001"})), (), 1),
        (RunRequest(), ("inputs.Prompt={value: another}",), 3),
        (RunRequest(only=frozenset({"00007"})), (), 0),
        (RunRequest(limit=1), (), 0),
    ],
    ids=["yes", "retry-failed", "rerun", "another mapping", "only", "limit"],
)
def test_a_stop_stands_until_somebody_has_looked(
    here: Project, request_: RunRequest, overrides: tuple[str, ...], submitted: int
) -> None:
    """Who has looked buys no more than the same canary again."""
    with embedded(here.service("failed")) as url:
        here.run(url, "run.canary=3")
        again = here.run(url, "run.canary=3", *overrides, request=request_)
        assert again.counts["submitted"] == submitted
        # What failed once more is a stop of its own; what did not even start changes nothing.
        assert here.run(url, "run.canary=3", *overrides).counts["submitted"] == 0


def test_a_stop_is_over_when_a_run_has_gone_through(here: Project) -> None:
    with embedded(here.service("failed:first=3")) as url:
        here.run(url, "run.canary=3")
        looked = here.run(url, "run.canary=3", request=RunRequest(retry_failed=True))
        assert (looked.stopped_by, looked.counts["completed"]) == (None, 8)
        write_rows(here.folder, [row(n) for n in range(1, 10)])
        assert here.run(url, "run.canary=3").counts["submitted"] == 1


def test_a_stop_is_of_the_app_as_it_was(here: Project) -> None:
    with embedded(here.service("failed")) as url:
        here.run(url, "run.canary=3")
    pipeline = load_pipeline(here.folder / "p.yaml", environ={}, today=dt.date(2026, 11, 23))
    with read_existing_state(pipeline) as ledger:
        app = last_run_app(ledger)
        other = replace(app, parameters=app.parameters[:-1])
        stops = [active_stop(pipeline, one, ledger, RunRequest()) for one in (app, other)]
    assert [stop and stop.by for stop in stops] == ["canary", None]


def test_what_runs_is_collected_although_nothing_may_be_started(here: Project) -> None:
    with embedded(here.service("failed:first=3")) as url:
        here.run(url, "run.canary=3")
        left = here.run(url, request=RunRequest(yes=True, wait=False, limit=2))
        assert (left.stopped_by, left.counts["submitted"]) == (None, 2)
        night = here.run(url, "run.canary=3")
    assert (night.stopped_by, night.counts["submitted"], night.counts["completed"]) == ("canary", 0, 2)
    assert here.statuses() == {"failed": 3, "completed": 2, "planned": 3}


def test_never_more_in_flight_than_allowed(here: Project) -> None:
    with embedded(here.service()) as url:
        here.run(url, "run.max_in_flight=2")
    ends = sorted((e["created_at"], e["created_at"] + e["seconds"]) for e in here.accepted())
    for began, _ in ends:
        assert sum(b <= began < e for b, e in ends) <= 2


def test_redirects_are_not_followed_with_the_key(here: Project) -> None:
    with embedded(SandboxOptions(data=here.folder / "thief")) as thief:
        with (
            embedded(here.service(f"redirect:on=app,to={thief}/v1/apps")) as url,
            pytest.raises(ServiceError, match="redirect"),
        ):
            here.run(url)
        assert not (here.folder / "thief" / "requests.jsonl").read_text()


def test_a_redirected_submission_stops_the_run_and_is_not_followed(here: Project) -> None:
    with embedded(SandboxOptions(data=here.folder / "thief")) as thief:
        with embedded(here.service(f"redirect:on=start,to={thief}/v1/apps/x/executions")) as url:
            summary = here.run(url)
        assert (summary.stopped_by, summary.exit_code) == ("refused", 1)
        assert not (here.folder / "thief" / "requests.jsonl").read_text()
    with embedded(here.service()) as url:
        assert here.run(url).counts["completed"] == 8


def test_a_body_that_does_not_end_is_cut_off(here: Project) -> None:
    with embedded(here.service("huge_body:on=start,first=1")) as url:
        assert here.run(url).counts["held"] == 1


def test_a_wrong_key_ends_before_anything_is_sent(here: Project) -> None:
    with embedded(here.service()) as url, pytest.raises(CredentialsError, match="Invalid API key"):
        here.run(url, key="lma_revoked")


def test_a_service_that_goes_away_is_waited_for_and_nothing_is_bought_twice(here: Project) -> None:
    """It stops listening while executions run, and comes back where it was."""
    notes = Notes()
    with ThreadPoolExecutor() as pool:
        with embedded(here.service("never_finish")) as url:
            running = pool.submit(here.run, url, notes=notes)
            wait_for(lambda: notes.running == 8)
        wait_for(lambda: any("no answer" in note for note in notes.notes))
        here.let_all_end()
        with embedded(here.service()) as again:
            assert again == url
            assert running.result().counts["completed"] == 8
    assert len(here.accepted()) == 8


def test_a_run_that_hears_nothing_any_more_ends_and_can_be_continued(here: Project) -> None:
    """Silent for as long as an execution may take; none of them is so old that it would be given up by itself."""
    notes, clock = Notes(), Clock()
    with ThreadPoolExecutor() as pool:
        with embedded(here.service("never_finish")) as url:
            running = pool.submit(here.run, url, "run.execution_timeout=1h", notes=notes, clock=clock)
            wait_for(lambda: notes.running == 8)
        wait_for(lambda: any("no answer" in note for note in notes.notes))
        clock.older = -3601.0
        clock.ahead = 3601.0
        summary = running.result(PATIENCE)
    assert (summary.stopped_by, summary.exit_code, summary.counts["running"]) == ("unreachable", 1, 8)
    here.let_all_end()
    with embedded(here.service()) as url:
        assert here.run(url).counts["completed"] == 8
    assert len(here.accepted()) == 8


def test_each_submission_has_a_name_of_its_own(here: Project) -> None:
    with embedded(here.service()) as url:
        here.run(url)
    names = [line["idempotency_key"] for line in here.requests() if line["method"] == "POST"]
    assert len(set(names)) == 8
    assert all(names)


def test_both_ways_to_show_the_key_work(here: Project) -> None:
    with embedded(here.service()) as url:
        assert here.run(url, "api.auth=bearer").counts["completed"] == 8


def test_the_key_is_in_no_file_that_a_run_leaves(here: Project) -> None:
    with embedded(here.service("failed:match=Dress 3")) as url:
        here.run(url, key="lma_needle_in_haystack")
    for file in here.folder.rglob("*"):
        if file.is_file() and "service" not in file.parts:
            assert b"needle" not in file.read_bytes(), file


def test_a_restart_of_the_service_in_the_middle_is_survived(here: Project) -> None:
    with embedded(here.service(speed=20.0)) as url:
        left = here.run(url, request=RunRequest(wait=False))
    assert left.counts["running"] == 8
    with embedded(here.service(speed=20.0)) as url:
        assert here.run(url).counts["completed"] == 8
    assert len(here.accepted()) == 8


# -- a ledger that cannot be written for a moment --------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class NoRoom:
    """While what is known is being written down, no file may be longer than the write-ahead log is then."""

    log: Path
    #: how often; after that there is room
    times: int
    refused: list[StateError] = field(default_factory=list)

    def record(self, ledger: Ledger, news: Sequence[tuple[int, News]], **rest: Any) -> list[Job]:
        if not news or len(self.refused) == self.times:
            return RECORD(ledger, news, **rest)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.log.stat().st_size, before[1]))
        try:
            changed = RECORD(ledger, news, **rest)
        except StateError as error:
            self.refused.append(error)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        raise AssertionError(f"there was room for {changed}")


RECORD = Ledger.record


@pytest.fixture
def no_room(here: Project, monkeypatch: pytest.MonkeyPatch) -> NoRoom:
    full = NoRoom(log=here.folder / ".lamina-batch/p/ledger.sqlite-wal", times=2)
    monkeypatch.setattr(Ledger, "record", lambda ledger, news, **rest: full.record(ledger, news, **rest))  # noqa: PLW0108  # to be bound
    return full


@pytest.mark.parametrize("rows", [3, 16])
def test_answers_are_kept_while_the_ledger_cannot_be_written(here: Project, no_room: NoRoom, rows: int) -> None:
    """They come while there is no room on the disk, and they are written down when there is."""
    write_rows(here.folder, [row(n) for n in range(rows)])
    with embedded(here.service()) as url:
        summary = here.run(url)
    assert len(no_room.refused) == 2
    assert summary.exit_code == 0
    assert [summary.counts[name] for name in ("completed", "held", "submitted")] == [rows, 0, rows]
    assert set(here.bought().values()) == {1}


def test_a_ledger_that_stays_unwritable_ends_the_run_and_nothing_is_bought_again(
    here: Project, no_room: NoRoom
) -> None:
    no_room.times = 1000
    with embedded(here.service()) as url:
        with pytest.raises(StateError, match="the ledger cannot be written"):
            here.run(url, clock=Leaping())
        no_room.times = len(no_room.refused)
        again = here.run(url)
    assert no_room.times >= MAX_WRITE_ATTEMPTS
    assert (again.exit_code, again.counts["held"], again.counts["submitted"]) == (6, 8, 0)
    assert len(here.accepted()) == 8


# -- polls that say nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500:on=read,first=8", "502:on=read,first=8", "broken_json:on=read,first=8"])
def test_a_poll_that_says_nothing_of_the_execution_does_not_time_it_out(here: Project, fault: str) -> None:
    """The executions are older than `execution_timeout` when they are first asked about, and had ended at once."""
    with embedded(here.service("webhook_early")) as url:
        assert here.run(url, request=RunRequest(wait=False)).counts["running"] == 8
    with embedded(here.service(fault)) as url:
        later = here.run(url, "run.execution_timeout=1h", clock=Clock(older=3601.0))
    assert (later.counts["completed"], later.counts["timed_out"]) == (8, 0)


def test_a_service_that_only_fails_to_say_is_given_up_on_in_the_end(here: Project) -> None:
    with embedded(here.service()) as url:
        here.run(url, request=RunRequest(wait=False))
    with embedded(here.service("500:on=read")) as url:
        later = here.run(url, "run.execution_timeout=1s", "run.poll.max_interval=1s")
    assert later.counts["timed_out"] == 8
    assert "last said: Internal server error" in here.manifest()[0]["lamina_message"]


# -- guards that have nothing left to guard --------------------------------------------------------------------


@pytest.mark.parametrize("guard", ["run.max_failures=0", "run.canary=8", "run.canary=20"])
def test_a_failure_limit_that_is_passed_by_the_last_row_stops_nothing(here: Project, guard: str) -> None:
    """All rows have been sent: the run has come to its end, and says so."""
    with embedded(here.service("failed:match=Dress 8")) as url:
        summary = here.run(url, guard)
    assert (summary.stopped_by, summary.exit_code) == (None, 3)
    assert (summary.counts["completed"], summary.counts["failed"]) == (7, 1)
