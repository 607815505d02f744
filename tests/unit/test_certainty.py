"""What the end of a POST proves: the table of DESIGN.md section 6."""

from __future__ import annotations

import pytest

from lamina_batch.client.lamina import Phase, StartEnd
from lamina_batch.execution.certainty import Proof, prove

UNANSWERED = [
    (Phase.NOTHING, Proof.NOT_ACCEPTED, "refused, not found, or not connected in time: nothing had left"),
    (Phase.CONNECTED, Proof.NOT_ACCEPTED, "connected, TLS done, nothing written"),
    (Phase.REQUEST_BEGUN, Proof.UNKNOWN, "the head may have arrived"),
    (Phase.REQUEST_SENT, Proof.UNKNOWN, "all of it may have arrived (API.md 8: ambiguous)"),
    (Phase.ANSWER_BEGUN, Proof.UNKNOWN, "an answer began, but its status was not read"),
]


@pytest.mark.parametrize(("phase", "proof", "why"), UNANSWERED, ids=str)
def test_without_a_status_line_the_phase_decides(phase: Phase, proof: Proof, why: str) -> None:
    assert prove(StartEnd(phase=phase, message=why)) is proof


ANSWERED = [
    # API.md 2.4: 202 is documented; any 2xx with an id is an acceptance
    (202, "e-1", "", Proof.ACCEPTED),
    (200, "e-1", "", Proof.ACCEPTED),
    (202, None, "HTTP 202, its answer broke off", Proof.UNKNOWN),
    (204, None, "", Proof.UNKNOWN),
    # API.md 8: 429 is refused before any work
    (429, None, "Too many requests from this IP, please try again in a minute", Proof.NOT_ACCEPTED),
    # API.md 8: stop the batch
    (401, None, "Invalid API key", Proof.STOP),
    (403, None, "", Proof.STOP),
    (404, None, "App not found", Proof.STOP),
    (301, None, "", Proof.STOP),
    (307, None, "", Proof.STOP),
    # API.md 8 and 12.5: the row is at fault
    (400, None, 'Invalid inputs: "Location": invalid option "Mars"', Proof.REFUSED),
    (413, None, "", Proof.REFUSED),
    (415, None, "", Proof.REFUSED),
    (422, None, "", Proof.REFUSED),
    (418, None, "", Proof.REFUSED),
    # API.md 8: a 5xx may come from a proxy after the service has accepted
    (408, None, "", Proof.UNKNOWN),
    (500, None, "", Proof.UNKNOWN),
    (502, None, "HTTP 502 with a web page instead of JSON", Proof.UNKNOWN),
    (503, None, "", Proof.UNKNOWN),
    (504, None, "", Proof.UNKNOWN),
    # API.md 4 and 12.12: no code for it, only words
    (400, None, "Insufficient credits", Proof.NO_CREDITS),
    (403, None, "insufficient CREDITS for this run", Proof.NO_CREDITS),
    (402, None, "", Proof.NO_CREDITS),
    (500, None, "Insufficient credits", Proof.UNKNOWN),
]


@pytest.mark.parametrize(("status", "execution_id", "message", "proof"), ANSWERED)
def test_a_status_line_decides(status: int, execution_id: str | None, message: str, proof: Proof) -> None:
    end = StartEnd(phase=Phase.ANSWERED, status=status, execution_id=execution_id, message=message)
    assert prove(end) is proof


@pytest.mark.parametrize("status", range(100, 600))
def test_only_a_readable_id_is_an_acceptance(status: int) -> None:
    assert prove(StartEnd(phase=Phase.ANSWERED, status=status)) is not Proof.ACCEPTED
