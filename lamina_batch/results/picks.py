"""The verdicts that somebody saved from the report, read back: what `run --rerun-file` takes. Pure.

A verdict is about a picture: it names the content and the execution that was looked at. A rejected row is made again
as long as that is still what the ledger has for it; so the same file may be given twice, and buys nothing twice.
"""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamina_batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
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
    #: where they were read, for messages
    where: str
    pipeline: str
    app: str
    service: str
    picks: tuple[Pick, ...]

    @property
    def rejected(self) -> tuple[Pick, ...]:
        return tuple(pick for pick in self.picks if pick.verdict == "reject")

    def refuse_other(self, *, pipeline: str, app: str, service: str) -> None:
        """Raise UsageError where they are verdicts on what another pipeline, app or service made."""
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
class Again:
    """What the rejected rows of a file come to now."""

    #: still what was rejected: made again, whatever they came to
    rerun: frozenset[str]
    #: for people: what is not, and why
    notes: tuple[str, ...]


def parse_picks(text: bytes, *, where: str) -> Picks:
    """Read a file of verdicts. Raises UsageError where it is none, says a thing twice, or is of a later version."""
    # importing jsonschema takes longer than many a command
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import best_match  # noqa: PLC0415

    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError("this is no file of verdicts: it is not JSON", where=where, hint=_SAVE) from error
    schema = json.loads((importlib.resources.files("lamina_batch") / "schemas" / "picks.schema.json").read_bytes())
    wrong = best_match(Draft202012Validator(schema).iter_errors(data))
    if wrong is not None:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in wrong.absolute_path)
        what = f"{place.lstrip('.') or 'the file'}: {wrong.message[:200]}"
        raise UsageError(
            f"this is no file of verdicts that this version reads: {what}",
            where=where,
            hint=_SAVE,
        )
    picks = tuple(Pick(**{name: pick[name] for name in Pick.__slots__}) for pick in data["picks"])
    _refuse_repeated(picks, where)
    return Picks(where=where, pipeline=data["pipeline"], app=data["app"], service=data["service"], picks=picks)


_SAVE = "`Save verdicts` in the report writes one"


def _refuse_repeated(picks: Iterable[Pick], where: str) -> None:
    seen: set[tuple[str, str]] = set()
    for pick in picks:
        if (pick.key, pick.variant) in seen:
            raise UsageError(f"{pick.name!r} is judged twice", where=where, hint="keep one of them")
        seen.add((pick.key, pick.variant))


def run_again(picks: Picks, evidence: pl.DataFrame) -> Again:
    """Which of the rejected rows are made again, given the jobs with what the ledger knows (plan.with_evidence).

    A row whose inputs changed since, and one that was sent again since, are left to the rules of a plain run: it
    submits new inputs that it has not bought, and collects what is on its way.
    """
    now = {
        (key, variant): (content, execution_id)
        for key, variant, content, execution_id in evidence.select(
            "key", "variant", "content", "was_execution_id"
        ).iter_rows()
    }
    known = [(pick, now[pick.key, pick.variant]) for pick in picks.rejected if (pick.key, pick.variant) in now]
    changed = sum(content != pick.inputs_sha256 for pick, (content, _) in known)
    same = [(pick, execution) for pick, (content, execution) in known if content == pick.inputs_sha256]
    rerun = frozenset(pick.name for pick, execution in same if execution == pick.execution_id)
    made = len(same) - sum(execution == pick.execution_id for pick, execution in same)
    notes = [f"{picks.where}: of {_rows(len(picks.rejected))} rejected, {len(rerun)} to be made again"]
    if changed:
        notes.append(f"{_rows(changed)} changed since: run only if the new inputs were not bought yet")
    if made:
        notes.append(f"{_rows(made)} sent again since the verdict: not bought once more")
    return Again(rerun=rerun, notes=tuple(notes))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
