"""The column names of a pipeline -> the columns of the catalog."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, NamedTuple

from lamina_batch.errors import closest_match
from lamina_batch.sources.table import SOURCE_COLUMN, normalise_header, without_required_mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lamina_batch.errors import PipelineError
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog

#: the keys of the pipeline file that lead to a value
KeyPath = tuple[str | int, ...]


class ColumnReference(NamedTuple):
    """A column name in the pipeline file."""

    path: KeyPath
    written: str


class ColumnMatches(NamedTuple):
    """Which column of the catalog each name in the pipeline means."""

    #: name as written -> column of `Catalog.frame`
    found: Mapping[str, str]
    #: a line for each name that matched leniently only
    notes: tuple[str, ...]


def find_columns(catalog: Catalog, pipeline: Pipeline, uses: Iterable[ColumnReference]) -> ColumnMatches:
    """Match names exactly, or else leniently where only one column does: by case, spaces and a mark ` *` at the end.

    Raises PipelineError for all that are lacking at once, and for a name that stands twice in the header.
    """
    finder = _ColumnFinder(catalog)
    found: dict[str, str] = {}
    lacking: dict[str, ColumnReference] = {}
    for use in uses:
        column = finder.find(use.written)
        if column is not None:
            found[use.written] = column
        else:
            lacking.setdefault(use.written, use)
    if lacking:
        raise _missing_columns_error(finder, pipeline, tuple(lacking.values()))
    notes = tuple(
        f"the column {column!r} is taken for {written!r}, which the pipeline names"
        for written, column in found.items()
        if without_required_mark(column) != without_required_mark(written)
    )
    return ColumnMatches(found, notes)


class _ColumnFinder:
    def __init__(self, catalog: Catalog) -> None:
        self.counts = collections.Counter(catalog.headers)
        self.names = [header for header in catalog.headers if header and self.counts[header] == 1]
        if catalog.several:
            self.names.append(SOURCE_COLUMN)
        self._by_form: dict[str, list[str]] = {}
        for name in self.names:
            self._by_form.setdefault(normalise_header(name), []).append(name)

    def find(self, written: str) -> str | None:
        if written in self.names:
            return written
        # A header that stands twice is never half of a match: which of them is meant?
        if written in self.counts:
            return None
        same = self._by_form.get(normalise_header(written), [])
        return same[0] if len(same) == 1 else None

    def alike(self, written: str) -> Sequence[str]:
        return self._by_form.get(normalise_header(written), [])


def _missing_columns_error(finder: _ColumnFinder, pipeline: Pipeline, uses: Sequence[ColumnReference]) -> PipelineError:
    complaints = [_missing_column_message(finder, use) for use in uses]
    if len(uses) == 1:
        shown = ", ".join(repr(name) for name in finder.names[:20])
        more = f", and {len(finder.names) - 20} more" if len(finder.names) > 20 else ""
        return pipeline.error(uses[0].path, complaints[0], f"its columns are {shown}{more}")
    lines = [f"{'.'.join(map(str, use.path))}: {complaint}" for use, complaint in zip(uses, complaints, strict=True)]
    return pipeline.error(uses[0].path, f"the catalog lacks {len(uses)} columns", "\n  ".join(lines))


def _missing_column_message(finder: _ColumnFinder, use: ColumnReference) -> str:
    written = use.written
    if finder.counts[written] > 1:
        return f"the column {written!r} stands {finder.counts[written]} times in the header: rename one of them"
    if alike := finder.alike(written):
        return f"the column {written!r} could be any of {', '.join(map(repr, alike))}: name one of them exactly"
    near = closest_match(written, finder.names)
    if near is not None:
        return f"the catalog has no column {written!r}: did you mean {near!r}?"
    if use.path[-1] in {"where", "sql"}:
        return f"the catalog has no column {written!r} (SQL takes a text in single quotes: '{written}')"
    return f"the catalog has no column {written!r}"
