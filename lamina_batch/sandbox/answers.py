"""What the API answers, and in which form: the `data` envelope and the error body."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamina_batch.sandbox.executions import Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    #: JSON
    body: bytes
    #: the execution that was accepted
    accepted: Execution | None = None


def error(status: int, message: str, details: list[str] | None = None) -> Answer:
    """An error body (API.md 8)."""
    return Answer(status=status, body=to_json({"error": message, **({"details": details} if details else {})}))


def data(value: object) -> Answer:
    """A success with its envelope (API.md 2)."""
    return Answer(status=200, body=to_json({"data": value}))


def to_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
