"""Pins: what stands in them, and what is said about one that cannot be used."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from catalog_support import STOCK, app, image, options

from lamina_batch.apps.app import parse_app
from lamina_batch.drift import pins
from lamina_batch.drift.pins import Pin, parse_pin, pin_file, read_pin, save_pin, take_pin
from lamina_batch.errors import UsageError
from lamina_batch.sandbox.apps import load_apps

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 3, 31, 18, 30, tzinfo=UTC)


def taken(*parameters: dict[str, Any], source: str = "https://lamina.example") -> Pin:
    served = parameters or (image("Front", default=STOCK), options("Model  Body", "Standard ", "Größe"))
    return take_pin(app(*served), "an-app", taken_from=source, at=AT)


def test_a_pin_reads_back_as_it_was_taken() -> None:
    pin = taken()
    again = parse_pin(pin.text.encode(), "pin.json")
    assert again == pin
    assert (
        again.app.fingerprint
        == app(image("Front", default=STOCK), options("Model  Body", "Standard ", "Größe")).fingerprint
    )


def test_its_text_is_made_for_reviews() -> None:
    """One order whatever the service's, a line for each fact, and letters as they are."""
    text = taken({"type": "options", "options": ["Größe"], "name": "B"}).text
    assert text == taken({"name": "B", "options": ["Größe"], "type": "options"}).text
    assert text.endswith("}\n")
    assert [line.strip() for line in text.splitlines() if "Größe" in line] == ['"Größe"']
    assert json.loads(text)["taken_at"] == "2026-03-31T18:30:00Z"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda pin: pin | {"pin_version": 2}, "version 2"),
        (lambda pin: {k: v for k, v in pin.items() if k != "app_id"}, "'app_id' is a required property"),
        (lambda pin: pin | {"parameters": [{"type": "text"}]}, "parameters.0: 'name' is a required property"),
        (lambda pin: pin | {"parameters": pin["parameters"][:1]}, "changed after it was taken"),
        (lambda pin: pin | {"app_id": "another"}, "changed after it was taken"),
        (lambda pin: pin | {"taken_at": "yesterday"}, "taken_at: "),
        (lambda _: [], "the whole: "),
    ],
)
def test_a_file_that_is_no_pin_says_why(change: Any, what: str) -> None:
    text = json.dumps(change(json.loads(taken().text))).encode()
    with pytest.raises(UsageError, match=what) as caught:
        parse_pin(text, "pin.json")
    assert caught.value.where == "pin.json"
    assert "apps pin" in (caught.value.hint or "")


@pytest.mark.parametrize("text", [b"", b"<<<<<<< HEAD\n{", b"\xff\xfe"])
def test_a_file_that_is_no_json_says_so(text: bytes) -> None:
    with pytest.raises(UsageError, match="not JSON"):
        parse_pin(text, "pin.json")


@pytest.mark.parametrize("app_id", ["../secrets", "", "a/b", ".hidden", "a" * 201])
def test_an_id_that_names_no_file_is_refused(app_id: str) -> None:
    with pytest.raises(UsageError, match="is not an app id"):
        pin_file(app_id)


def test_taking_it_again_says_what_changed_and_leaves_what_did_not(tmp_path: Path) -> None:
    file = tmp_path / "schemas" / "apps" / "an-app.json"
    assert save_pin(taken(), file) == ("pinned 'Catalog Maker': 2 parameters, taken from https://lamina.example",)
    before = file.read_bytes()
    later = take_pin(taken().app, "an-app", taken_from="https://lamina.example", at=datetime(2027, 1, 1, tzinfo=UTC))
    assert save_pin(later, file) == ("unchanged since 2026-03-31T18:30:00Z",)
    assert file.read_bytes() == before
    said = save_pin(taken(image("Front", default=STOCK), source="sandbox"), file)
    assert said[:2] == (
        "replaced a pin that was taken from https://lamina.example",
        "changed: the input 'Model  Body' is gone",
    )
    assert "stands in for the real app" in said[-1]
    assert read_pin(file).taken_from == "sandbox"


def test_only_pins_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text("version: 1\n")
    with pytest.raises(UsageError, match="is not a pin, and a pin does not replace it"):
        save_pin(taken(), file)
    assert file.read_text() == "version: 1\n"
    file.write_text(taken().text.replace("Front", "Forehead"))
    assert "could not be used" in save_pin(taken(), file)[0]
    assert read_pin(file) == taken()


@pytest.mark.parametrize("file", sorted((ROOT / "schemas" / "apps").glob("*.json")), ids=lambda file: file.stem)
def test_the_pins_that_ship_hold_what_the_sandbox_serves(file: Path) -> None:
    """After a change of the stand-ins: `lamina-batch apps pin ID --sandbox` for each."""
    pin = read_pin(file)
    served = load_apps(None)[file.stem]
    assert pin.taken_from == pins.SANDBOX_SOURCE
    assert pin.app.app_id == file.stem
    assert pin.app.parameters == parse_app({"parameters": list(served.served_parameters)}).parameters
    assert file.read_text(encoding="utf-8") == pin.text
