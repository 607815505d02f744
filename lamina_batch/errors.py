"""The one exception tree. Each class knows its exit code (docs/exit-codes.md, "Exit codes").

    LaminaBatchError                 1   could not run
    ├── UsageError                   2   wrong usage, or a file that cannot be used
    │   ├── PipelineError            2   the pipeline file, with line and column
    │   ├── CatalogError             2   the rows: file, encoding, columns
    │   └── LedgerMismatchError      2   this ledger belongs to another pipeline file or another service
    ├── StateError                   1   the ledger, a manifest or a summary cannot be read or written
    ├── ServiceError                 1   the Lamina service: unreachable, or an answer that ends the run
    │   ├── CredentialsError         1   no key, or one that the service refuses
    │   └── UnknownAppError          1   no such app, or not for this key
    ├── LostLedgerError              5   what was bought before is not in the ledger: a run would buy it again
    ├── LedgerLockedError            7   another run holds this ledger
    └── DriftError                   8   the app has changed in a way that breaks this pipeline

A bad row is not an exception but a finding (catalog/check.py), and the end of one execution is a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class LaminaBatchError(Exception):
    """Something that ends the command.

    `what` says what is wrong, `where` names the file, line, row or address, and `hint` the next thing to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    @property
    def located_message(self) -> str:
        """What is wrong and where, without what to do about it."""
        return f"{self.where}: {self.what}" if self.where else self.what

    def __str__(self) -> str:
        return f"{self.located_message}\n  {self.hint}" if self.hint else self.located_message


class UsageError(LaminaBatchError):
    """Wrong usage: an option, a name or a file that does not fit."""

    exit_code = 2


class PipelineError(UsageError):
    """The pipeline file cannot be used; `where` is `file:line:column`."""


class CatalogError(UsageError):
    """The rows cannot be read as the pipeline says: file, encoding, separator or column."""


class LedgerMismatchError(UsageError):
    """The ledger under this state belongs to another pipeline file or another service."""


class StateError(LaminaBatchError):
    """The ledger, a manifest or a summary cannot be read or written."""


class ServiceError(LaminaBatchError):
    """The Lamina service could not be reached, or answered in a way that ends the run."""


class CredentialsError(ServiceError):
    """There is no API key, or the service refuses it."""


class UnknownAppError(ServiceError):
    """The service has no such app, or does not show it to this key."""


class LostLedgerError(LaminaBatchError):
    """There are results, but the ledger that should know of them is empty: better no run than paying twice."""

    exit_code = 5


class LedgerLockedError(LaminaBatchError):
    """Another run holds the ledger."""

    exit_code = 7


class DriftError(LaminaBatchError):
    """The app's live contract breaks this pipeline, which worked with the one that it was made for."""

    exit_code = 8


def closest_match(word: str, choices: Iterable[str]) -> str | None:
    """The choice most like `word`, or None if none is near: what "did you mean" may name."""
    import difflib  # what goes well does not wait for it

    folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """`did you mean 'Plus Size'?`, or None if nothing is near."""
    near = closest_match(word, choices)
    return f"did you mean {near!r}?" if near is not None else None
