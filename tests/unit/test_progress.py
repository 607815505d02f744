"""What a run shows of itself on stderr."""

from __future__ import annotations

import polars as pl
import pytest

from lamina_batch.cli.progress import Console, finding_lines
from lamina_batch.cli.shell import expand_multi_value_options, out, out_all, sanitize
from lamina_batch.execution.engine import Progress


def progress(ended: int = 1, least_left: float = 0.0) -> Progress:
    return Progress(total=4, ended=ended, running=2, waiting=1, least_left=least_left)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def console(clock: Clock, *, quiet: bool = False) -> tuple[Console, list[str]]:
    said: list[str] = []
    return Console(say=said.append, now=clock, terminal=False, quiet=quiet), said


def test_without_a_terminal_there_is_a_line_every_30_seconds() -> None:
    clock = Clock()
    shown, said = console(clock)
    for second in range(70):
        clock.now = float(second)
        shown.on_progress(progress(least_left=65.0))
    assert said == ["1 of 4 done, 2 running, 1 waiting, at least 65 s more by the rate limit"] * 2


def test_a_silent_service_is_told_of() -> None:
    clock = Clock()
    shown, said = console(clock)
    clock.now = 31.0
    shown.on_progress(Progress(total=4, ended=0, running=4, waiting=0, least_left=0.0, silent=40.0))
    assert said == ["0 of 4 done, 4 running, 0 waiting, no answer from the service for 40 s"]


def test_quiet_is_quiet() -> None:
    clock = Clock()
    shown, said = console(clock, quiet=True)
    shown.note("x")
    clock.now = 100.0
    shown.on_progress(progress())
    assert said == []


def test_control_characters_never_reach_the_terminal() -> None:
    assert sanitize("a\x1b[31mb\x07\nc\x9b\u202e") == "a\\x1b[31mb\\x07\n  c\\x9b\\u202e"


def test_a_finding_is_one_line_that_says_where_what_and_what_to_do() -> None:
    finding = {
        "row": "3",
        "key": "A",
        "column": "c",
        "message": "bad",
        "hint": "do",
        "code": "x",
        "source": "f.csv",
    }
    bare = finding | {"source": "", "key": "", "column": "", "hint": ""}
    lines = ["f.csv row 3 (A): column 'c': bad (do) [x]", "row 3: bad [x]"]
    assert finding_lines(pl.DataFrame([finding, bare])) == lines
    assert finding_lines(pl.DataFrame([bare]).drop("source")) == lines[1:]


def test_many_lines_are_printed_as_each_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    for lines in (["a", "b"], ["a", "b\nc", "d"], ["\x1b[31m", "e"], ["f"]):
        for line in lines:
            out(line)
        one_by_one = capsys.readouterr().out
        out_all(lines)
        assert capsys.readouterr().out == one_by_one


@pytest.mark.parametrize(
    ("args", "spread"),
    [
        (["p.yaml", "--only", "A", "B"], ["p.yaml", "--only", "A", "--only", "B"]),
        (["--only", "A", "B", "p.yaml"], ["--only", "A", "--only", "B", "p.yaml"]),
        (["--only", "A", "p.yaml"], ["--only", "A", "p.yaml"]),
        (["--only", "A", "--yes", "p.yaml"], ["--only", "A", "--yes", "p.yaml"]),
        (["--limit", "3", "p.yaml", "--only", "A"], ["--limit", "3", "p.yaml", "--only", "A"]),
        (["p.yaml", "--only=A", "--limit", "3"], ["p.yaml", "--only=A", "--limit", "3"]),
        (["p.yaml", "--set", "a=b"], ["p.yaml", "--set", "a=b"]),
    ],
)
def test_an_option_may_take_several_words(args: list[str], spread: list[str]) -> None:
    assert expand_multi_value_options(args, {"--only"}, {"--limit", "--set"}) == spread
