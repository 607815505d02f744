"""Match the column names of a pipeline to the columns of the catalog."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, NamedTuple

from lamina_batch.errors import closest_match
from lamina_batch.sources.table import SOURCE_COLUMN, normalise_header, without_required_mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lamina_batch.errors import PipelineError
    from lamina_batch.pipeline.problems import KeyPath
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog

#: columns that the hint of an error lists
_MAX_LISTED_COLUMNS = 20


class ColumnReference(NamedTuple):
    """A column name in the pipeline file."""

    path: KeyPath
    name: str


class ColumnMatches(NamedTuple):
    """The column of the catalog for each name in the pipeline."""

    #: name in the pipeline -> column of `Catalog.frame`
    columns: Mapping[str, str]
    #: one line for each name that differs from its column
    notes: tuple[str, ...]


def find_columns(catalog: Catalog, pipeline: Pipeline, references: Iterable[ColumnReference]) -> ColumnMatches:
    """Find the column of each name: the same name, or the only one that differs in case, spaces or a final ` *`.

    Raises PipelineError that names all missing columns, and names that are repeated in the header.
    """
    finder = _ColumnFinder(catalog)
    columns: dict[str, str] = {}
    missing: dict[str, ColumnReference] = {}
    for reference in references:
        column = finder.find(reference.name)
        if column is not None:
            columns[reference.name] = column
        else:
            missing.setdefault(reference.name, reference)
    if missing:
        raise _missing_columns_error(finder, pipeline, tuple(missing.values()))
    notes = tuple(
        f"the column {column!r} is taken for {name!r}, which the pipeline names"
        for name, column in columns.items()
        if without_required_mark(column) != without_required_mark(name)
    )
    return ColumnMatches(columns, notes)


class _ColumnFinder:
    def __init__(self, catalog: Catalog) -> None:
        self.counts = collections.Counter(catalog.headers)
        self.names = [header for header in catalog.headers if header and self.counts[header] == 1]
        if catalog.has_source_column:
            self.names.append(SOURCE_COLUMN)
        self._by_form = collections.defaultdict[str, list[str]](list)
        for name in self.names:
            self._by_form[normalise_header(name)].append(name)

    def find(self, name: str) -> str | None:
        if name in self.names:
            return name
        similar = self.similar(name)
        # A repeated header never matches: it is not clear which of the columns is meant.
        return similar[0] if len(similar) == 1 and name not in self.counts else None

    def similar(self, name: str) -> Sequence[str]:
        return self._by_form.get(normalise_header(name), [])


def _missing_columns_error(
    finder: _ColumnFinder, pipeline: Pipeline, references: Sequence[ColumnReference]
) -> PipelineError:
    messages = [_missing_column_message(finder, reference) for reference in references]
    if len(references) == 1:
        listed = ", ".join(repr(name) for name in finder.names[:_MAX_LISTED_COLUMNS])
        rest = len(finder.names) - _MAX_LISTED_COLUMNS
        more = f", and {rest} more" if rest > 0 else ""
        return pipeline.error(references[0].path, messages[0], f"its columns are {listed}{more}")
    lines = [
        f"{'.'.join(map(str, reference.path))}: {message}"
        for reference, message in zip(references, messages, strict=True)
    ]
    return pipeline.error(references[0].path, f"the catalog lacks {len(references)} columns", "\n  ".join(lines))


def _missing_column_message(finder: _ColumnFinder, reference: ColumnReference) -> str:
    name = reference.name
    if finder.counts[name] > 1:
        return f"the column {name!r} is {finder.counts[name]} times in the header: rename one of them"
    if similar := finder.similar(name):
        return f"the column {name!r} could be any of {', '.join(map(repr, similar))}: name one of them exactly"
    suggestion = closest_match(name, finder.names)
    if suggestion is not None:
        return f"the catalog has no column {name!r}: did you mean {suggestion!r}?"
    if reference.path[-1] in {"where", "sql"}:
        return f"the catalog has no column {name!r} (SQL takes a text in single quotes: '{name}')"
    return f"the catalog has no column {name!r}"
