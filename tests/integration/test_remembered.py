"""What a run leaves to the next plan: with it a plan says what it says without it, and looks at fewer rows."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import polars_hash
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from process import APP, PIPELINE, row, write_rows

import lamina_batch
from lamina_batch import batch
from lamina_batch.batch import line, remembered
from lamina_batch.execution.engine import Control
from lamina_batch.execution.job import State, Submission
from lamina_batch.execution.ledger import FILE_NAME
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.results.picks import Picks
from lamina_batch.sandbox import SandboxOptions, embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from lamina_batch.batch import Preview
    from lamina_batch.catalog.check import Checked
    from lamina_batch.execution.engine import Progress
    from lamina_batch.execution.job import Job
    from lamina_batch.execution.plan import Plan

#: everything that a mapping can do: types, `where`, SQL over all rows, a template, a list, blanks of each kind
RICH = """\
version: 1
app: bbb17293-5fe7-4645-8c6e-0745bc28254d
rows: {from: rows.csv, key: sku, types: {price: float}, where: "price IS NULL OR price < 100"}
inputs:
  Front: {column: front}
  Back: {column: front, blank: app_default}
  Model Gender: {column: gender, map: {F: Female}, blank: app_default}
  Style: {sql: "CASE WHEN price > 50 THEN 'Luxury' ELSE 'Everyday' END"}
  Prompt: {template: "{title} in soft light", blank: skip_row}
"""
PIPELINES = {
    "plain": PIPELINE.partition("run:")[0],
    "rich": RICH,
    "matrix": RICH + "matrix: {Location: [Studio, Park]}\n",
}
ROWS = [
    row(1),
    row(2, gender=""),
    row(3, gender="F", price="70"),
    row(4, gender="female"),
    row(5, title=""),
    row(6, price="400"),
    row(7, price="cheap"),
    row(8, front=""),
    row(9, front="no url"),
    *(row(number) for number in range(10, 16)),
    row(16, front=row(15)["front"], title=row(15)["title"]),
]


class Silent:
    def note(self, text: str) -> None: ...

    def planned(self, plan: Plan, checked: Checked) -> None: ...

    def changed(self, job: Job) -> None: ...

    def went_on(self, progress: Progress) -> None: ...


WORLD = batch.World(
    now=time.monotonic,
    wall=time.time,  # noqa: TID251  # the test is the edge
    sleep=asyncio.sleep,  # noqa: TID251
    random=random.Random(0),
    notice=lambda _: None,
)


class Desk:
    """A folder with a pipeline that has run once, and the service."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.access = batch.Access(base_url=url, api_key="lma_test_key_of_nobody", service="test", speed=100.0)

    def pipeline(self, *overrides: str) -> Any:
        return load_pipeline(self.folder / "p.yaml", overrides=overrides, environ={}, today=dt.date(2026, 11, 26))

    def run(self, *overrides: str, **request: Any) -> dict[str, int]:
        pipeline, asked = self.pipeline(*overrides), batch.RunRequest(**request)
        summary = asyncio.run(
            batch.run(pipeline, self.access, asked, world=WORLD, reporter=Silent(), control=Control())
        )
        return dict(summary.counts)

    def plan(self, *overrides: str, **request: Any) -> Preview:
        return asyncio.run(batch.preview(self.pipeline(*overrides), self.access, WORLD, batch.RunRequest(**request)))

    def forget(self) -> None:
        with closing(sqlite3.connect(self.pipeline().state / FILE_NAME)) as ledger:
            ledger.execute("DELETE FROM settled")
            ledger.commit()

    def copied(self, to: Path) -> Desk:
        shutil.copytree(self.folder, to)
        return Desk(to, self.access.base_url)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with embedded(SandboxOptions(limit=100_000, window=1, speed=200.0)) as url:
        yield url


@pytest.fixture(scope="module", params=list(PIPELINES))
def ran(request: pytest.FixtureRequest, url: str, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("ran") / "project"
    folder.mkdir()
    (folder / "p.yaml").write_text(PIPELINES[request.param], encoding="utf-8")
    write_rows(folder, ROWS)
    desk = Desk(folder, url)
    desk.run()
    return desk


@pytest.fixture
def desk(ran: Desk, tmp_path: Path) -> Desk:
    return ran.copied(tmp_path / "project")


def looked_at(preview: Preview) -> set[str]:
    """The keys of the rows that were."""
    jobs = preview.prepared.checked.jobs
    return set(jobs.filter(~pl.col("settled"))["key"])


def told(preview: Preview) -> dict[str, Any]:
    """All that a plan says of the rows and the run."""
    checked = preview.prepared.checked
    shown = ("lamina_index", "row", "key", "variant", "valid", "code", "message", "action", "reason", "was_status")
    return {
        "plan": preview.plan.frame.select(shown).to_dicts(),
        "findings": checked.findings.to_dicts(),
        "skipped": (checked.skipped_rows, checked.skipped_names),
        "app_defaults": checked.app_defaults,
        "notes": preview.prepared.notes,
        "executions": preview.executions,
        "stopped": preview.stopped,
        "forecasts": preview.forecasts,
    }


#: those about which no pipeline has anything to say
PLAIN = {f"{number:05}" for number in (1, *range(10, 17))}


def test_a_plan_looks_at_what_changed_and_at_what_there_is_something_to_say_about(desk: Desk) -> None:
    others = looked_at(desk.plan())
    assert not PLAIN & others
    assert {"00004", "00007", "00008", "00009"} & {line["sku"] for line in ROWS if line["sku"] in others}
    rows = [row(11, title="Another") if line["sku"] == "00011" else line for line in reversed(ROWS)]
    write_rows(desk.folder, [*rows, row(20)])
    changed = desk.plan()
    assert looked_at(changed) == others | {"00011", "00020"}
    assert changed.plan.frame.filter(reason="changed")["key"].unique().to_list() == ["00011"]


def test_a_key_that_stands_twice_now_is_something_to_say_about_both_rows(desk: Desk) -> None:
    write_rows(desk.folder, [*ROWS, row(11, title="Another")])
    findings = desk.plan().prepared.checked.findings
    assert set(findings.filter(code="duplicate_key")["key"]) == {"00011"}
    assert findings.filter(code="duplicate_key").height == 2


@pytest.mark.parametrize(
    ("overrides", "request_"),
    [
        (["inputs.Prompt={template: 'A {title}'}"], {}),
        (["rows.types.title=text"], {}),
        (["run.share_identical=false"], {}),
        ([], {"explain": True}),
        ([], {"rerun": frozenset({"00001"})}),
        ([], {"picks": Picks(where="p.json", pipeline="p", app=APP, service="test", picks=())}),
    ],
    ids=["another mapping", "other types", "not shared", "explained", "rerun", "verdicts"],
)
def test_every_row_is_looked_at_where_more_is_asked_than_whether_its_cells_are_the_same(
    desk: Desk, overrides: list[str], request_: dict[str, Any]
) -> None:
    preview = desk.plan(*overrides, **request_)
    assert looked_at(preview) == set(preview.prepared.checked.jobs["key"])


def test_every_row_is_looked_at_where_a_column_is_read_as_another_type(desk: Desk) -> None:
    desk.run("rows.types.title=text")
    assert not PLAIN & looked_at(desk.plan("rows.types.title=text"))
    assert looked_at(desk.plan("rows.types.title=boolean")) >= PLAIN


@pytest.mark.parametrize("library", [pl, polars_hash], ids=["polars", "polars-hash"])
def test_every_row_is_looked_at_by_another_version(
    desk: Desk, library: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "__version__", "999")
    preview = desk.plan()
    assert looked_at(preview) == set(preview.prepared.checked.jobs["key"])


def test_other_code_is_told_from_this(tmp_path: Path) -> None:
    package = tmp_path / "lamina_batch"
    shutil.copytree(Path(lamina_batch.__file__).parent, package)
    told = "from lamina_batch.batch import remembered; print(remembered.__file__, remembered._code())"
    command = [sys.executable, "-c", told]
    codes = []
    for change in ("", "# changed\n"):
        with (package / "catalog" / "check.py").open("a", encoding="utf-8") as file:
            file.write(change)
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        where, code = ran.stdout.split()
        assert where.startswith(str(tmp_path))
        codes.append(code)
    assert codes[0] == remembered._code() != codes[1]


def test_what_cannot_be_read_any_more_is_as_good_as_lost(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.pipeline().state / FILE_NAME)) as ledger:
        ledger.execute("UPDATE settled SET prints = x'00'")
        ledger.commit()
    preview = desk.plan()
    assert looked_at(preview) == set(preview.prepared.checked.jobs["key"])
    desk.run()
    assert not PLAIN & looked_at(desk.plan())


def test_a_run_that_can_leave_nothing_has_come_to_its_end_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    before = desk.run()
    monkeypatch.setattr(line, "remember", full)
    assert desk.run() == before


def test_every_row_is_looked_at_once_something_has_happened_to_a_job(desk: Desk) -> None:
    with batch.existing_ledger(desk.pipeline()) as ledger:
        [first, *_] = ledger.jobs(State.COMPLETED)
        ledger.begin(
            [Submission(key=first.key, variant=first.variant, content=first.content, inputs=first.inputs)],
            app_id=first.app_id, contract=first.contract, at=1.0, run_id="another",
        )  # fmt: skip
    preview = desk.plan()
    assert looked_at(preview) == set(preview.prepared.checked.jobs["key"])
    assert desk.run()["held"] == 1
    assert first.key in looked_at(desk.plan())


def test_what_did_not_complete_is_looked_at(url: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PIPELINES["plain"], encoding="utf-8")
    write_rows(tmp_path, [row(number) for number in range(1, 9)])
    with embedded(SandboxOptions(limit=100_000, window=1, speed=200.0, faults=("failed:match=Dress 3",))) as failing:
        assert Desk(tmp_path, failing).run()["failed"] == 1
    assert looked_at(Desk(tmp_path, url).plan()) == {"00003"}


CHANGES = st.one_of(
    st.tuples(st.just("gender"), st.sampled_from(["Male", "female", "F", "", "Unisex"])),
    st.tuples(st.just("title"), st.sampled_from(["Dress 1", "Coat", ""])),
    st.tuples(st.just("front"), st.sampled_from(["https://images.example.com/00001.jpg", "", "x"])),
    st.tuples(st.just("price"), st.sampled_from(["10.00", "10", "60", "700", "", "x"])),
    st.tuples(st.just("sku"), st.sampled_from(["00001", "00012", "new", ""])),
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    order=st.permutations(range(len(ROWS))),
    dropped=st.sets(st.integers(0, len(ROWS) - 1), max_size=3),
    changes=st.lists(st.tuples(st.integers(0, len(ROWS) - 1), CHANGES), max_size=4),
    request_=st.sampled_from([{}, {"limit": 2}, {"only": frozenset({"00012"})}, {"retry_failed": True}]),
)
def test_a_plan_says_what_it_says_when_it_looks_at_every_row(
    ran: Desk, order: list[int], dropped: set[int], changes: list[tuple[int, tuple[str, str]]], request_: dict[str, Any]
) -> None:
    rows = [dict(line) for line in ROWS]
    for at, (column, cell) in changes:
        rows[at][column] = cell
    write_rows(ran.folder, [rows[at] for at in order if at not in dropped] + [row(12)] * (order[0] == 0))
    request = request_ if "00012" in {line["sku"] for line in rows} and 11 not in dropped else {}
    with_it = ran.plan(**request)
    kept = shutil.copy(ran.pipeline().state / FILE_NAME, ran.folder / "kept")
    ran.forget()
    without = ran.plan(**request)
    shutil.move(kept, ran.pipeline().state / FILE_NAME)
    assert looked_at(without) == set(without.prepared.checked.jobs["key"])
    assert told(with_it) == told(without)
