"""Map and check in one step: the catalog as jobs, checked against one contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import polars as pl

from lamina_batch.catalog.check_rows import CheckedRows, check_rows
from lamina_batch.catalog.mapping import map_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina_batch.apps.app import App
    from lamina_batch.catalog.input_validator import Verdict
    from lamina_batch.catalog.mapping import RowMapping
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog


class UrlFindings(Protocol):
    """What was found out about mapped URLs by asking for them."""

    @property
    def verdicts(self) -> Mapping[str, Mapping[str, Verdict]]:
        """By parameter and value."""

    @property
    def notes(self) -> tuple[str, ...]:
        """About all of them, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The catalog, mapped and checked against one contract."""

    app: App
    catalog: Catalog
    checked: CheckedRows
    #: about the contract and the URLs, for people
    extra_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the whole catalog."""
        read = self.catalog.frame.select(pl.len()).collect().item()
        used = self.checked.jobs["lamina_index"].n_unique()
        skipped = self.checked.skipped_rows
        keys = self.checked.skipped_keys
        left_out = [f"{skipped} by `blank: skip_row`: {', '.join(keys)}{', …' if skipped > len(keys) else ''}"]
        left_out = left_out if skipped else []
        if read - used - skipped:
            left_out.insert(0, f"{read - used - skipped} by `where`")
        counts = [f"of {read} rows, {used} are used: left out {', '.join(left_out)}"] if left_out else []
        return (*self.extra_notes, *self.checked.notes, *counts, *(["there are no rows to run"] if not used else []))


def prepare(
    pipeline: Pipeline,
    catalog: Catalog,
    app: App,
    service: str,
    *,
    contents: bool = True,
    contract_notes: tuple[str, ...] = (),
    check_urls: Callable[[RowMapping], UrlFindings] | None = None,
) -> Prepared:
    """Map every row and check it against the contract of `app`, with what `check_urls` finds about the mapped URLs.

    `service` is the base URL or `sandbox`. Without `contents` only the content hashes are made that tell equal rows.
    Raises PipelineError if the pipeline does not fit the app or the catalog.
    """
    mapped = map_rows(catalog, pipeline, app)
    found = check_urls(mapped) if check_urls is not None else None
    verdicts = found.verdicts if found is not None else {}
    checked = check_rows(mapped, pipeline, app, service=service, contents=contents, known=verdicts)
    notes = (*contract_notes, *(found.notes if found is not None else ()))
    return Prepared(app=app, catalog=catalog, checked=checked, extra_notes=notes)
