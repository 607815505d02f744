"""The schemas of what people take away tell exactly the keys that are written, no more and no fewer."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.resources import files
from typing import Any

from lamina_batch.execution.guards import StopReason
from lamina_batch.results.manifest import COLUMNS, LONG_COLUMNS, PREFIX
from lamina_batch.results.summary import STATUSES, DownloadTotals, RequestTotals, Summary, WrittenFiles


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (files("lamina_batch") / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")
    )
    return found


def test_manifest() -> None:
    told = schema("manifest")
    assert set(told["properties"]) == {PREFIX + name for name in ("source", *COLUMNS, *LONG_COLUMNS)}
    assert told["required"] == [PREFIX + name for name in COLUMNS]
    assert set(told["properties"]["lamina_status"]["enum"]) == set(STATUSES)


def test_summary() -> None:
    told = schema("summary")["properties"]
    assert list(told) == [one.name for one in fields(Summary)]
    for key, kind in {"requests": RequestTotals, "files": WrittenFiles, "downloads": DownloadTotals}.items():
        assert list(told[key]["properties"]) == [one.name for one in fields(kind)]
    assert set(told["counts"]["properties"]) == {"rows", "jobs", "submitted", "unchanged", "new_problems", *STATUSES}
    assert set(told["stopped_by"]["enum"]) == {None, *(str(stop) for stop in StopReason)}
