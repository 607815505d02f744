"""The tables of exit codes tell those that the code has."""

from __future__ import annotations

import re

from process import TOP

from lamina_batch import errors
from lamina_batch.execution.guards import StopReason
from lamina_batch.results.summary import PROBLEM_STATUSES, exit_code


def _codes() -> set[str]:
    raised = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.LaminaBatchError)
    }
    summed = {exit_code({}, stop) for stop in (None, *StopReason)} | {
        exit_code({status: 1}, None) for status in PROBLEM_STATUSES
    }
    return {str(code) for code in raised | summed} | {"129", "130", "143"}


def test_every_code_is_told() -> None:
    text = (TOP / "docs/exit-codes.md").read_text(encoding="utf-8")
    table = text[text.index("| exit code |") :].partition("\n\n")[0]
    told = {code for line in table.splitlines()[2:] for code in re.findall(r"\d+", line.split("|")[1])}
    assert told == _codes()
