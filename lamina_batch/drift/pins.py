"""Pins: an app's contract in a file beside the pipelines that were made for it, so that changes are found.

A pin is kept in version control and read in reviews: the order is fixed, and each fact has its own line. The parameters
are those that the service served.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_batch.apps.app import App, canonical_json, parse_app
from lamina_batch.atomic_files import write_text
from lamina_batch.drift.compare import compare, describe_change
from lamina_batch.errors import ServiceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from jsonschema.exceptions import ValidationError

PIN_VERSION = 1
#: `taken_from` of a pin of the sandbox
SANDBOX_SOURCE = "sandbox"
#: the default folder of pins, relative to the folder of the project
PIN_FOLDER = Path("schemas/apps")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An app's contract, and where and when it was taken."""

    app: App
    #: base URL of the service that served it, or the word `sandbox`
    taken_from: str
    #: UTC, ISO 8601 with Z
    taken_at: str

    @property
    def sha256(self) -> str:
        """The hash of the app's id and its parameters. It shows equal pins, and pins that were edited by hand."""
        return hashlib.sha256(canonical_json([self.app.app_id, self._parameters]).encode()).hexdigest()

    @property
    def text(self) -> str:
        """The content of the pin's file."""
        content = {
            "pin_version": PIN_VERSION,
            "app_id": self.app.app_id,
            "name": self.app.name,
            **({} if self.app.description is None else {"description": self.app.description}),
            "taken_from": self.taken_from,
            "taken_at": self.taken_at,
            "sha256": self.sha256,
            "parameters": self._parameters,
        }
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"

    @property
    def _parameters(self) -> object:
        return json.loads(self.app.served_json)["parameters"]


def take_pin(app: App, app_id: str, *, taken_from: str, at: datetime) -> Pin:
    """The pin of an app that was asked for as `app_id`. Of the service's answer it has only the contract."""
    kept = {"appId": app_id, "name": app.name, "parameters": json.loads(app.served_json)["parameters"]}
    if app.description is not None:
        kept["description"] = app.description
    return Pin(app=parse_app(kept), taken_from=taken_from, taken_at=f"{at:%Y-%m-%dT%H:%M:%SZ}")


def parse_pin(text: bytes, where: str) -> Pin:
    """Build a Pin from the text of its file, which errors call `where`.

    Raises UsageError for another kind of file, another version of the format, and a pin that was edited by hand.
    """

    def refuse(what: str, hint: str = _WRITE_HINT) -> UsageError:
        return UsageError(what, where=where, hint=hint)

    try:
        content = json.loads(text)
    except ValueError as error:
        raise refuse(f"this pin is not JSON: {error}") from error
    if isinstance(content, dict) and content.get("pin_version", PIN_VERSION) != PIN_VERSION:
        version = content["pin_version"]
        raise refuse(f"this pin is of version {version!r}, and this lamina-batch reads version {PIN_VERSION}")
    fault = _first_schema_error(content)
    if fault is not None:
        path = ".".join(map(str, fault.absolute_path)) or "the whole"
        raise refuse(f"this is not a pin: {path}: {fault.message[:200]}")
    served = {key: content[key] for key in ("name", "description", "parameters") if key in content}
    try:
        app = parse_app({"appId": content["app_id"], **served})
    except ServiceError as error:
        raise refuse(f"this is not a pin: {error.what}") from error
    pin = Pin(app=app, taken_from=content["taken_from"], taken_at=content["taken_at"])
    if pin.sha256 != content["sha256"]:
        raise refuse(
            "this pin was changed after it was taken: its parameters do not have the hash that stands in it",
            f"a pin is taken from the service and not written by hand: {_WRITE_HINT}",
        )
    return pin


_WRITE_HINT = "`lamina-batch apps pin` writes it anew"


def _first_schema_error(content: object) -> ValidationError | None:
    # importing jsonschema takes longer than reading many pins
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import best_match  # noqa: PLC0415

    schema = json.loads((importlib.resources.files("lamina_batch") / "schemas" / "pin.schema.json").read_bytes())
    error: ValidationError | None = best_match(Draft202012Validator(schema).iter_errors(content))
    return error


def read_pin(file: Path) -> Pin:
    """Read a pin. Raises UsageError if the file is missing, cannot be read, or is not a pin (see `parse_pin`)."""
    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise UsageError("there is no pin", where=str(file), hint="`lamina-batch apps pin` takes one") from error
    except OSError as error:
        raise UsageError(f"the pin cannot be read: {error.strerror}", where=str(file)) from error
    return parse_pin(text, str(file))


def pin_file(app_id: str) -> Path:
    """The default file of an app's pin, relative to the folder of the project.

    Raises UsageError for an id that cannot be a file name.
    """
    if not _FILE_NAME.fullmatch(app_id):
        raise UsageError(f"{app_id!r} is not an app id", hint="`lamina-batch apps list` shows the ids")
    return PIN_FOLDER / f"{app_id}.json"


def save_pin(pin: Pin, file: Path) -> tuple[str, ...]:
    """Write the pin and return notes about what changed. A pin with the same content stays as it is.

    Raises UsageError if the file is of another kind, and StateError if it cannot be written.
    """
    before = _read_existing_pin(file)
    if isinstance(before, Pin) and (before.taken_from, before.sha256) == (pin.taken_from, pin.sha256):
        return (f"unchanged since {before.taken_at}",)
    write_text(file, pin.text)
    return (*_replaced_lines(before, pin), *_saved_lines(pin))


def _read_existing_pin(file: Path) -> Pin | UsageError | None:
    """The pin in the file. UsageError: why it cannot be used. None: there is no file."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"this cannot be read: {error.strerror}", where=str(file)) from error
    try:
        return parse_pin(text, str(file))
    except UsageError as error:
        if b'"pin_version"' in text:
            return error
        raise UsageError(
            "this file is not a pin, and a pin does not replace it", where=str(file), hint="choose another name with -o"
        ) from error


def _saved_lines(pin: Pin) -> Iterator[str]:
    yield f"pinned {pin.app.name!r}: {len(pin.app.parameters)} parameters, taken from {pin.taken_from}"
    if pin.taken_from == SANDBOX_SOURCE:
        yield "  the sandbox stands in for the real app: take the pin again with your key before the first real run"


def _replaced_lines(before: Pin | UsageError | None, after: Pin) -> Iterator[str]:
    if before is None:
        return
    if isinstance(before, UsageError):
        yield f"replaced a pin that could not be used: {before.what}"
        return
    if before.app.app_id != after.app.app_id:
        yield f"replaced the pin of another app, {before.app.app_id} ({before.app.name})"
        return
    if before.taken_from != after.taken_from:
        yield f"replaced a pin that was taken from {before.taken_from}"
    changes = compare(before.app, after.app)
    yield from (f"changed: {describe_change(change)}" for change in changes)
    if not changes:
        yield f"nothing of it that matters to a pipeline has changed since {before.taken_at}"
