"""What a run gets from outside: the service with its key, and what the user asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina_batch.ledger.lock import IfLocked
    from lamina_batch.results.picks import Picks


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which service, and with which key."""

    base_url: str
    api_key: str = field(repr=False)
    #: what the ledger and the content hashes know the service by: the base URL, or the word `sandbox`
    service: str
    #: how many times faster than the real service it works; shortens the intervals that we choose, not the user's
    speed: float = 1.0
    #: for messages: where the key was found
    key_source: str = ""

    @property
    def is_sandbox(self) -> bool:
        """Whether this is the embedded sandbox."""
        return self.service == "sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the user asks of `run` beyond the pipeline file."""

    retry_failed: bool = False
    rerun: frozenset[str] = frozenset()
    #: verdicts from the report: what was rejected is made again
    picks: Picks | None = None
    only: frozenset[str] | None = None
    limit: int | None = None
    #: consent to start more than `max_executions`, or after an earlier run was stopped by its guards
    yes: bool = False
    #: False: submit and leave
    wait: bool = True
    if_locked: IfLocked = "fail"
    adopt_state: bool = False
    #: the ledger is meant to be empty, whatever was bought before
    new_ledger: bool = False
    #: False: `collect`, which never submits
    submit: bool = True
    #: what the ledger knows of each row is wanted, also of those that are settled
    explain: bool = False

    @property
    def starts(self) -> frozenset[str] | None:
        """The only rows that may be started; None: any."""
        rejected = None if self.picks is None else {pick.name for pick in self.picks.rejected}
        if self.only is None and not self.rerun and rejected is None:
            return None
        return frozenset((*(self.only or ()), *self.rerun, *(rejected or ())))
