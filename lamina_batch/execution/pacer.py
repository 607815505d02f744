"""Which requests are worth sending now. Pure: told the time and what the answers say, it returns requests.

The engine sends them, and the forecast counts them, so both follow the same rules (docs/budget.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much may be sent now."""

    #: requests that the budget allows
    requests: int
    #: polls that may be opened
    polls: int
    #: submissions that could use the requests instead; those that wait for a free slot do not count
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PollRequest:
    """Ask about one execution."""

    execution: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRequest:
    """One request for the list: `GET /v1/runs?appId=…&limit={limit}&offset={offset}`, newest first."""

    offset: int
    limit: int
    #: when it left; what was accepted later need not be on it
    sent_at: float


class Pacer(ABC):
    """Decides when to ask about executions. Instants and intervals are in seconds of one clock."""

    def requests(self, now: float, room: Room) -> list[PollRequest | ListRequest]:
        """The requests to send now, best first. Each of them is out until its answer is reported."""
        most = min(room.requests, room.polls)
        polls = self.due(now, most, room=room.requests, waiting=room.waiting) if most > 0 else []
        requests: list[PollRequest | ListRequest] = [PollRequest(execution=name) for name in polls]
        while (left := room.requests - len(requests)) > 0:
            page = self.list_due(now, left, waiting=room.waiting)
            if page is None:
                break
            requests.append(page)
        return requests

    @abstractmethod
    def __len__(self) -> int:
        """How many executions are awaited."""

    @abstractmethod
    def due(self, now: float, limit: int, *, waiting: int = 0, room: int | None = None) -> list[str]:
        """The executions to poll now, best first, at most `limit`; `room` requests may leave (None: `limit`)."""

    @abstractmethod
    def next_due(self, now: float) -> float | None:
        """The next instant at which `requests` may return one; None if only an answer can change that."""

    @abstractmethod
    def start(self, execution: str, now: float, *, age: float = 0.0) -> None:
        """Wait for the end of an execution that was accepted `age` seconds ago."""

    @abstractmethod
    def asked(self, execution: str, now: float) -> None:
        """Report a poll: the execution had not ended."""

    @abstractmethod
    def failed(self, execution: str, now: float) -> None:
        """Report a poll that was not answered, or not with an execution."""

    @abstractmethod
    def ended(self, execution: str, duration: float | None, *, by_callback: bool = False) -> None:
        """Report the end of an execution, or that it is not awaited any more.

        `duration` is by the service's own clock, if known. `by_callback`: a callback told of the end.
        """

    def list_due(self, now: float, room: int, *, waiting: int = 0) -> ListRequest | None:  # noqa: ARG002
        """A page of the list that is worth a request now; None without a list."""
        return None

    def list_answered(  # noqa: B027  # only a pacer with a list sends such requests
        self, request: ListRequest, now: float, ended: Mapping[str, bool]
    ) -> None:
        """Report a page: the awaited executions on it, and whether each has ended."""

    def list_failed(self, request: ListRequest, now: float) -> None:  # noqa: B027
        """Report a page that was not answered, or not with a list."""

    def reserved(self, now: float) -> int:  # noqa: ARG002
        """How many requests submissions must leave for what pages have found or may find."""
        return 0
