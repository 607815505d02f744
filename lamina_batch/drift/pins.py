"""Pins: an app's contract as a file beside the pipelines that were made for it, so that a change is noticed.

A pin is kept in version control and read in reviews, so its text is made for that: one order, one form, a line for each
fact. What is served is kept as it was served; what it means is asked of apps/app.py like any other contract.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina_batch.apps.app import App, parse_app
from lamina_batch.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from jsonschema.exceptions import ValidationError

PIN_VERSION = 1
#: what a pin names as its source if it came from the stand-in
SANDBOX_SOURCE = "sandbox"
#: where pins are kept, below the folder of the project
PIN_FOLDER = Path("schemas/apps")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An app's contract as it was at one time."""

    app: App
    #: base URL of the service that served it, or the word `sandbox`
    taken_from: str
    #: UTC, ISO 8601 with Z
    taken_at: str

    @property
    def sha256(self) -> str:
        """Of the app's id and its parameters as served: tells whether two pins hold the same, and an edited one."""
        return _digest(self.app.app_id, _served_data(self.app)["parameters"])


def take_pin(app: App, app_id: str, *, taken_from: str, at: datetime) -> Pin:
    """The pin of an app that was asked for as `app_id`; of what was served only what the contract is made of."""
    served = json.loads(app.served)
    kept = {"appId": app_id, "name": app.name, "parameters": served["parameters"]}
    if app.description is not None:
        kept["description"] = app.description
    return Pin(app=parse_app(kept), taken_from=taken_from, taken_at=f"{at:%Y-%m-%dT%H:%M:%SZ}")


def pin_text(pin: Pin) -> str:
    """The pin as its file holds it."""
    served = _served_data(pin.app)
    told = {
        "pin_version": PIN_VERSION,
        "app_id": pin.app.app_id,
        "name": pin.app.name,
        **({} if pin.app.description is None else {"description": pin.app.description}),
        "taken_from": pin.taken_from,
        "taken_at": pin.taken_at,
        "sha256": pin.sha256,
        "parameters": served["parameters"],
    }
    return json.dumps(told, ensure_ascii=False, indent=2) + "\n"


def parse_pin(text: bytes, where: str) -> Pin:
    """Build a Pin from the text of its file, which errors call `where`.

    Raises UsageError for what is no pin, one of another version of the format, and one that was edited by hand.
    """
    again = "`lamina-batch apps pin` writes it anew"
    try:
        told = json.loads(text)
    except ValueError as error:
        raise UsageError(f"this pin is not JSON: {error}", where=where, hint=again) from error
    if isinstance(told, dict) and told.get("pin_version", PIN_VERSION) != PIN_VERSION:
        raise UsageError(
            f"this pin is of version {told['pin_version']!r}, and this lamina-batch reads version {PIN_VERSION}",
            where=where,
            hint=again,
        )
    fault = _first_schema_error(told)
    if fault is not None:
        raise UsageError(f"this is not a pin: {_error_path(fault)}: {fault.message[:200]}", where=where, hint=again)
    data = {"appId": told["app_id"], **{key: told[key] for key in ("name", "description", "parameters") if key in told}}
    try:
        pin = Pin(app=parse_app(data), taken_from=told["taken_from"], taken_at=told["taken_at"])
    except ServiceError as error:
        raise UsageError(f"this is not a pin: {error.what}", where=where, hint=again) from error
    if pin.sha256 != told["sha256"]:
        raise UsageError(
            "this pin was changed after it was taken: its parameters do not have the hash that stands in it",
            where=where,
            hint=f"a pin is taken from the service and not written by hand: {again}",
        )
    return pin


def read_pin(file: Path) -> Pin:
    """Read a pin. Raises UsageError if the file is missing, unreadable or no pin (see `parse_pin`)."""
    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise UsageError("there is no pin", where=str(file), hint="`lamina-batch apps pin` takes one") from error
    except OSError as error:
        raise UsageError(f"the pin cannot be read: {error.strerror}", where=str(file)) from error
    return parse_pin(text, str(file))


def pin_file(app_id: str) -> Path:
    """Where the pin of an app is kept, seen from the folder of the project.

    Raises UsageError for an id that cannot name a file.
    """
    if not _FILE_NAME.fullmatch(app_id):
        raise UsageError(f"{app_id!r} is not an app id", hint="`lamina-batch apps list` shows the ids")
    return PIN_FOLDER / f"{app_id}.json"


def _served_data(app: App) -> dict[str, Any]:
    served: dict[str, Any] = json.loads(app.served)
    return served


def _digest(app_id: str, parameters: object) -> str:
    text = json.dumps([app_id, parameters], ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _first_schema_error(told: object) -> ValidationError | None:
    # importing jsonschema takes longer than reading many pins
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import best_match  # noqa: PLC0415

    file = importlib.resources.files("lamina_batch") / "schemas" / "pin.schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    fault: ValidationError | None = best_match(Draft202012Validator(schema).iter_errors(told))
    return fault


def _error_path(fault: ValidationError) -> str:
    return ".".join(map(str, fault.absolute_path)) or "the whole"
