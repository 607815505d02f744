"""Map and check a catalog in one step."""

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
    """The findings about mapped URLs that were requested."""

    @property
    def verdicts(self) -> Mapping[str, Mapping[str, Verdict]]:
        """The verdicts by parameter and value."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about all URLs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The catalog, mapped and checked against one contract."""

    app: App
    catalog: Catalog
    checked: CheckedRows
    #: warnings about the contract and the URLs
    extra_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """All warnings about the catalog, with the number of rows that are left out."""
        total = self.catalog.frame.select(pl.len()).collect().item()
        used = self.checked.jobs["lamina_index"].n_unique()
        skipped = self.checked.skipped_rows
        keys = self.checked.skipped_keys
        left_out = []
        if skipped:
            more = ", …" if skipped > len(keys) else ""
            left_out.append(f"{skipped} by `blank: skip_row`: {', '.join(keys)}{more}")
        if total - used - skipped:
            left_out.insert(0, f"{total - used - skipped} by `where`")
        counts = [f"of {total} rows, {used} are used: left out {', '.join(left_out)}"] if left_out else []
        return (*self.extra_notes, *self.checked.notes, *counts, *([_NO_ROWS] if not used else []))


_NO_ROWS = "there are no rows to run; if rows are expected, check that the export was not cut short"


def prepare(
    pipeline: Pipeline,
    catalog: Catalog,
    app: App,
    service: str,
    *,
    all_hashes: bool = True,
    contract_notes: tuple[str, ...] = (),
    check_urls: Callable[[RowMapping], UrlFindings] | None = None,
) -> Prepared:
    """Map every row and check it against the contract of `app`; `check_urls` adds findings about the mapped URLs.

    `service` and `all_hashes` are those of `check_rows`. Raises PipelineError if the pipeline does not fit the app or
    the catalog.
    """
    mapped = map_rows(catalog, pipeline, app)
    url_findings = check_urls(mapped) if check_urls is not None else None
    verdicts = url_findings.verdicts if url_findings is not None else {}
    checked = check_rows(mapped, pipeline, app, service=service, all_hashes=all_hashes, url_verdicts=verdicts)
    url_notes = url_findings.notes if url_findings is not None else ()
    return Prepared(app=app, catalog=catalog, checked=checked, extra_notes=(*contract_notes, *url_notes))
