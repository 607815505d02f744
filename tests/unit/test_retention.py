"""Which runs keep their folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina_batch.results.summary import prune_runs

if TYPE_CHECKING:
    from pathlib import Path


def run_folder(runs: Path, day: int) -> Path:
    folder = runs / f"202601{day:02}T030000Z-0000{day:02}"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    return folder


def test_the_newest_stay(tmp_path: Path) -> None:
    folders = [run_folder(tmp_path, day) for day in (3, 1, 4, 2)]
    prune_runs(tmp_path, keep=2)
    assert [folder.exists() for folder in folders] == [True, False, True, False]
    prune_runs(tmp_path, keep=2)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    old = run_folder(tmp_path, 1)
    (old / "notes.txt").write_text("theirs")
    elsewhere = run_folder(tmp_path / "elsewhere", 9)
    (tmp_path / "20260102T030000Z-000002").symlink_to(elsewhere)
    (tmp_path / "20260103T030000Z-000003").write_text("a file")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "summary.json").write_text("{}")
    newest = run_folder(tmp_path, 5)
    before = sorted(str(file) for file in tmp_path.rglob("*"))
    prune_runs(tmp_path, keep=1)
    assert sorted(str(file) for file in tmp_path.rglob("*")) == before
    assert newest.exists()


def test_there_may_be_nothing_yet(tmp_path: Path) -> None:
    prune_runs(tmp_path / "runs", keep=1)
    assert not (tmp_path / "runs").exists()
