"""What the end of a POST proves about money: the table of docs/ledger.md, "What the end of a POST proves", as one pure
function.

The API has no idempotency key (docs/lamina-api.md, "Idempotency"), so an answer that was lost may stand for an
execution that was started and is billed. Only what is certain may be sent again.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from lamina_batch.client.lamina import Phase

if TYPE_CHECKING:
    from lamina_batch.client.lamina import StartResult


#: The service's code for a webhook URL that it does not take: no row is to blame (docs/lamina-api.md,
#: "Errors of runs").
_WEBHOOK_REFUSED_CODE = "WEBHOOK_INVALID_URL"


class SubmissionOutcome(StrEnum):
    """What the end of a POST proves."""

    #: an execution was started, and its id is known
    ACCEPTED = "accepted"
    #: nothing was started: it may be sent again later
    NOT_ACCEPTED = "not_accepted"
    #: nothing was started, and nothing will be until the cause is mended
    STOP = "stop"
    #: nothing was started, because of these inputs
    REFUSED = "refused"
    #: nothing was started: the workspace has too few credits
    NO_CREDITS = "no_credits"
    #: an execution may have been started
    UNKNOWN = "unknown"


def classify_submission(end: StartResult) -> SubmissionOutcome:
    """What `end` proves. A status line is enough for every 4xx; a 2xx needs a readable id."""
    if end.status is None:
        # Nothing of the request had left: refused connection, failed lookup, failed TLS handshake, and a
        # connection that took too long to make are all the same proof.
        return SubmissionOutcome.NOT_ACCEPTED if end.phase < Phase.REQUEST_BEGUN else SubmissionOutcome.UNKNOWN
    status = end.status
    if 200 <= status < 300:
        return SubmissionOutcome.ACCEPTED if end.execution_id is not None else SubmissionOutcome.UNKNOWN
    if status == 429:
        return SubmissionOutcome.NOT_ACCEPTED
    if status == 408 or status >= 500 or status < 200:
        return SubmissionOutcome.UNKNOWN
    if reports_insufficient_credits(end.message) or status == 402:
        return SubmissionOutcome.NO_CREDITS
    if 300 <= status < 400 or status in {401, 403, 404} or end.code == _WEBHOOK_REFUSED_CODE:
        return SubmissionOutcome.STOP
    return SubmissionOutcome.REFUSED


def reports_insufficient_credits(message: str | None) -> bool:
    """Whether a text of the service says that credits ran out; there is no code for it (docs/lamina-api.md,
    "Execution states").
    """
    return message is not None and "insufficient credits" in message.casefold()
