"""What is in the package: schemas and sandbox, found the same way from a checkout and from a wheel."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest


@pytest.mark.parametrize("name", ["pipeline", "manifest", "summary", "event", "pin"])
def test_the_published_schemas_are_in_the_package(name: str) -> None:
    schema = json.loads(files("lamina_batch").joinpath(f"schemas/{name}.schema.json").read_text(encoding="utf-8"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    "name",
    ["ledger/schema.sql", "sandbox/apps.json", "schemas/apps/bbb17293-5fe7-4645-8c6e-0745bc28254d.json", "py.typed"],
)
def test_what_the_code_reads_is_in_the_package(name: str) -> None:
    assert files("lamina_batch").joinpath(name).is_file()
