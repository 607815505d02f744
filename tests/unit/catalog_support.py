"""A catalog, an app and a pipeline for tests: real files, read by the real loader."""

from __future__ import annotations

import datetime as dt
import json
import textwrap
from typing import TYPE_CHECKING, Any

from lamina_batch.apps.app import App, parse_app
from lamina_batch.catalog.check_rows import CheckedRows, check_rows
from lamina_batch.catalog.mapping import RowMapping, map_rows
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.sources.read_catalog import read_catalog

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog

STOCK = "https://cdn.example.com/stock.jpg"


def app(*parameters: dict[str, Any]) -> App:
    return parse_app({"appId": "an-app", "name": "Catalog Maker", "parameters": list(parameters)})


def text(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "text", **fields}


def options(name: str, *labels: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "options", "options": list(labels), **fields}


def image(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": "url", "accept": ["image"], **fields}


class Desk:
    """A folder with a catalog and a pipeline in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str | bytes) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    def pipeline(self, body: str) -> Pipeline:
        """`body` is everything but the first two lines, `version` and `app`."""
        file = self.write("pipeline.yaml", "version: 1\napp: an-app\n" + textwrap.dedent(body).lstrip("\n"))
        return load_pipeline(file, environ={}, today=dt.date(2026, 1, 31))

    def read(self, rows: str = "{from: rows.csv, key: sku}") -> Catalog:
        """The catalog that `rows` of a pipeline describe."""
        return read_catalog(self.pipeline(f"rows: {rows}\ninputs:\n  Prompt: {{value: x}}\n"))

    def map(self, app: App, body: str) -> RowMapping:
        pipeline = self.pipeline(body)
        return map_rows(read_catalog(pipeline), pipeline, app)

    def check(self, app: App, body: str, *, all_hashes: bool = True) -> CheckedRows:
        pipeline = self.pipeline(body)
        mapped = map_rows(read_catalog(pipeline), pipeline, app)
        return check_rows(mapped, pipeline, app, service="sandbox", all_hashes=all_hashes)


def with_inputs(checked: CheckedRows) -> pl.DataFrame:
    """The jobs with the canonical inputs of each."""
    return checked.with_inputs(checked.jobs)


def sent(checked: CheckedRows) -> list[dict[str, Any] | None]:
    """The inputs of each job; None for one that is not valid."""
    return [None if inputs is None else json.loads(inputs) for inputs in with_inputs(checked)["inputs"]]
