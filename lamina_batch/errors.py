"""The exceptions of lamina-batch, and the exit code of each (docs/exit-codes.md, "Exit codes").

    LaminaBatchError                 1
    ├── UsageError                   2
    │   ├── PipelineError            2
    │   ├── CatalogError             2
    │   └── LedgerMismatchError      2
    ├── StateError                   1
    ├── ServiceError                 1
    │   ├── CredentialsError         1
    │   └── UnknownAppError          1
    ├── LostLedgerError              5
    ├── LedgerLockedError            7
    └── DriftError                   8

A bad row is not an exception but a finding (catalog/check_rows.py), and the end of one execution is a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class LaminaBatchError(Exception):
    """An error that ends the command.

    `what` is wrong, `where` is the file, line, row or address, and `hint` is the next thing to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        """`what` and `hint` are sentences without a full stop."""
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(what)

    @property
    def located_message(self) -> str:
        """Where and what, without the hint."""
        return f"{self.where}: {self.what}" if self.where else self.what

    def __str__(self) -> str:
        return f"{self.located_message}\n  {self.hint}" if self.hint else self.located_message


class UsageError(LaminaBatchError):
    """The command or one of its files cannot be used."""

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
    """There are results, but the ledger is empty: a run would buy them again."""

    exit_code = 5


class LedgerLockedError(LaminaBatchError):
    """Another run uses this ledger."""

    exit_code = 7


class DriftError(LaminaBatchError):
    """The app has changed in a way that breaks this pipeline."""

    exit_code = 8


def closest_match(word: str, choices: Iterable[str]) -> str | None:
    """The choice most similar to `word`; None: no choice is similar."""
    import difflib  # only errors need it

    folded = {choice.casefold(): choice for choice in choices}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """`did you mean 'Plus Size'?`; None: no choice is similar."""
    near = closest_match(word, choices)
    return f"did you mean {near!r}?" if near is not None else None
