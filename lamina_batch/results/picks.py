"""Reads the verdicts that were saved from the report: the file that `run --rerun-file` takes. Pure.

A verdict is about a picture: it names the content and the execution that was looked at. A rejected row is made again
as long as that is still what the ledger has for it; so the same file may be given twice, and buys nothing twice.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamina_batch.errors import UsageError
from lamina_batch.pipeline.schema_problems import display_value, expectation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """One verdict of a person."""

    key: str
    variant: str
    inputs_sha256: str
    #: the execution that was looked at; None: there was none
    execution_id: str | None
    verdict: Literal["pick", "reject"]
    note: str

    @property
    def name(self) -> str:
        """How `--rerun` names it: the key, or key/variant."""
        return f"{self.key}/{self.variant}" if self.variant else self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """A file of verdicts."""

    #: where they were read, for messages
    where: str
    pipeline: str
    app: str
    service: str
    picks: tuple[Pick, ...]

    @property
    def rejected(self) -> tuple[Pick, ...]:
        """The verdicts that ask for another execution."""
        return tuple(pick for pick in self.picks if pick.verdict == "reject")

    def refuse_other(self, *, pipeline: str, app: str, service: str) -> None:
        """Raise UsageError if they are verdicts on what another pipeline, app or service made."""
        for what, theirs, ours in (
            ("pipeline", self.pipeline, pipeline),
            ("app", self.app, app),
            ("service", self.service, service),
        ):
            if theirs != ours:
                raise UsageError(
                    f"these are verdicts on results of the {what} {theirs!r}, and this is {ours!r}",
                    where=self.where,
                    hint=_HINTS.get((what, theirs), "save them again from the report of this pipeline"),
                )


_HINTS = {("service", "sandbox"): "add --sandbox, or save them from the report of a run without it"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunSelection:
    """What the rejected rows of a file come to now."""

    #: still what was rejected: made again, whatever they came to
    rerun: frozenset[str]
    #: for people: what is not, and why
    notes: tuple[str, ...]


def parse_picks(text: bytes, *, where: str) -> Picks:
    """Read a file of verdicts.

    Raises UsageError, with all that is wrong, where it is none, says a thing twice, or is of a later version.
    """
    # importing jsonschema takes longer than many a command
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError("this is no file of verdicts: it is not JSON", where=where, hint=_FILE_HINT) from error
    schema = json.loads((importlib.resources.files("lamina_batch") / "schemas" / "picks.schema.json").read_bytes())
    _refuse_file(_describe_errors(Draft202012Validator(schema).iter_errors(data)), where)
    picks = tuple(
        Pick(
            key=pick["key"],
            # Who writes the file by hand may leave out what is nothing.
            variant=pick.get("variant") or "",
            inputs_sha256=pick["inputs_sha256"],
            execution_id=pick["execution_id"],
            verdict=pick["verdict"],
            note=pick.get("note") or "",
        )
        for pick in data["picks"]
    )
    _refuse_file(_duplicate_faults(picks), where)
    return Picks(where=where, pipeline=data["pipeline"], app=data["app"], service=data["service"], picks=picks)


_FILE_HINT = "`Save verdicts` in the report writes such a file, and docs/report.md describes it"
_MAX_FAULTS_SHOWN = 20


def _refuse_file(faults: Sequence[str], where: str) -> None:
    if faults:
        shown_of = list(faults[:_MAX_FAULTS_SHOWN])
        if len(faults) > _MAX_FAULTS_SHOWN:
            shown_of.append(f"and {len(faults) - _MAX_FAULTS_SHOWN} more")
        raise UsageError(
            "\n  ".join(["this is no file of verdicts that this version reads:", *shown_of]),
            where=where,
            hint=_FILE_HINT,
        )


def _describe_errors(errors: Iterator[Any]) -> list[str]:
    """What is wrong with each place of the file, in words."""
    found: dict[tuple[str | int, ...], str] = {}
    for error in errors:
        path = tuple(error.absolute_path)
        if error.validator == "required":
            for key in error.schema["required"]:
                if key not in error.instance:
                    found.setdefault((*path, key), "is missing")
        else:
            found.setdefault(path, f"{expectation(error.schema)}, is {display_value(error.instance)}")
    ordered = sorted(found.items(), key=lambda fault: [(isinstance(step, str), step) for step in fault[0]])
    return [f"{_error_path(path)}: {what}" for path, what in ordered]


def _error_path(path: Sequence[str | int]) -> str:
    """`picks[3].verdict`, counted from 0 as in JSON."""
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return steps.lstrip(".") or "the file"


def _duplicate_faults(picks: Iterable[Pick]) -> list[str]:
    seen: set[tuple[str, str]] = set()
    twice: dict[str, None] = {}
    for pick in picks:
        if (pick.key, pick.variant) in seen:
            twice[pick.name] = None
        seen.add((pick.key, pick.variant))
    return [f"{name!r} is judged twice: keep one of them" for name in twice]


def select_reruns(picks: Picks, evidence: pl.DataFrame, knows: Callable[[Pick], bool]) -> RerunSelection:
    """Which of the rejected rows are made again, given the jobs with what the ledger knows (plan.with_evidence).

    A row whose inputs changed since, and one that was sent again since, are left to the rules of a plain run: it
    submits new inputs that it has not bought, and collects what is on its way. So is a row with a verdict on what the
    ledger never had, which `knows` tells of those that are not what the ledger has now.
    """
    now = {
        (key, variant): (content, execution_id)
        for key, variant, content, execution_id in evidence.select(
            "key", "variant", "content", "was_execution_id"
        ).iter_rows()
    }
    rerun: set[str] = set()
    changed = made = 0
    strange: list[str] = []
    for pick in picks.rejected:
        if (pick.key, pick.variant) not in now:
            continue
        content, execution_id = now[pick.key, pick.variant]
        if (content, execution_id) == (pick.inputs_sha256, pick.execution_id):
            rerun.add(pick.name)
        elif not knows(pick):
            strange.append(pick.name)
        elif content != pick.inputs_sha256:
            changed += 1
        else:
            made += 1
    notes = [f"{picks.where}: of {_count_rows(len(picks.rejected))} rejected, {len(rerun)} to be made again"]
    if changed:
        notes.append(f"{_count_rows(changed)} changed since: run only if the new inputs were not bought yet")
    if made:
        notes.append(f"{_count_rows(made)} sent again since the verdict: not bought once more")
    if strange:
        named = ", ".join(strange[:_MAX_LISTED]) + (", …" if len(strange) > _MAX_LISTED else "")
        verdict = "this verdict is about a picture" if len(strange) == 1 else "these verdicts are about pictures"
        notes.append(
            f"{named}: {verdict} that this ledger does not know, by inputs_sha256 and execution_id: "
            "run only if the inputs were not bought yet"
        )
    return RerunSelection(rerun=frozenset(rerun), notes=tuple(notes))


_MAX_LISTED = 5


def _count_rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
