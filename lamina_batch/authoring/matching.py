"""Columns of a catalog -> inputs of an app, by name and by what stands in the cells. Only what is plain is matched.

A wrong match is paid for, one that is left open is a line to fill in: so a column is taken only where it is the one
that fits, and what its cells say must fit too.
"""

from __future__ import annotations

import collections
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.apps.input_schema import URL_PATTERN
from lamina_batch.catalog.input_validator import quote_value
from lamina_batch.pipeline.names import match_name, normalise_name
from lamina_batch.pipeline.schema_problems import FILL_IN
from lamina_batch.sources.text import as_text, blank_to_null, can_be_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lamina_batch.apps.app import App, Parameter
    from lamina_batch.sources.table import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMatch:
    """A column that gives an input."""

    column: str
    #: what parts several values in its cells
    split: str | None = None
    #: cells that are no label -> the label that each seems to mean, or FILL_IN
    map: Mapping[str, str] = field(default_factory=dict)
    #: cells that are blank
    blank: int = 0


def match_columns(app: App, catalog: Catalog) -> dict[str, ColumnMatch]:
    """For each parameter the column that plainly is its own; parameters without one are left out."""
    cells = NamedColumns(catalog)
    ranked = {p.name: found for p in app.parameters if (found := _best_column(p, cells.names)) is not None}
    best: dict[str, list[int]] = collections.defaultdict(list)
    for rank, column in ranked.values():
        best[column].append(rank)
    matches: dict[str, ColumnMatch] = {}
    for parameter in app.parameters:
        rank, column = ranked.get(parameter.name, (0, ""))
        # Of two inputs that want one column the better match has it, and of equals neither.
        if column and rank == min(best[column]) and best[column].count(rank) == 1:
            fitting = _match_values(parameter, column, cells)
            if fitting is not None:
                matches[parameter.name] = fitting
    return matches


class NamedColumns:
    """The columns of a catalog that can be named in a pipeline, and their cells as text."""

    def __init__(self, catalog: Catalog) -> None:
        count = collections.Counter(catalog.headers)
        self._kinds = catalog.frame.collect_schema()
        self._frame = catalog.frame
        self.names = [
            header
            for header, column in zip(catalog.headers, catalog.columns, strict=True)
            if header.strip() and count[header] == 1 and header == column and can_be_text(self._kinds[column])
        ]

    def texts(self, column: str) -> pl.Series:
        """Every cell, null where it is blank."""
        return self._frame.select(blank_to_null(as_text(pl.col(column), self._kinds[column]))).collect().to_series()


def guess_key(catalog: Catalog) -> str | None:
    """The column that names a row: called like one, never blank, and never twice the same. None: there is no such."""
    cells = NamedColumns(catalog)
    for column in _key_like_columns(cells.names):
        texts = cells.texts(column)
        if len(texts) and not texts.null_count() and texts.is_unique().all():
            return column
    return None


def explain_missing_key(catalog: Catalog) -> str | None:
    """What keeps the column that is most called like a key from being one; None if none is called so."""
    cells = NamedColumns(catalog)
    column = next(iter(_key_like_columns(cells.names)), None)
    texts = cells.texts(column) if column is not None else pl.Series([], dtype=pl.String)
    rows = catalog.frame.select("lamina_row").collect().to_series()
    if column is None or not len(texts):
        return None
    twice = texts.filter(texts.is_duplicated() & texts.is_not_null())
    if len(twice):
        several = rows.filter(texts == twice[0])
        more = f" and {len(several) - 2} more" if len(several) > 2 else ""
        return f"{column} holds {quote_value(twice[0])} more than once: in the rows {several[0]} and {several[1]}{more}"
    blank = rows.filter(texts.is_null())
    return f"{column} is blank in row {blank[0]}" if len(blank) else None


def _key_like_columns(names: Sequence[str]) -> list[str]:
    """The columns that are called like one that names a row, the most telling first."""
    called = [name for name in names if _key_rank(name) < len(KEYS) + 1]
    return sorted(called, key=_key_rank)


#: what a column that names a row is called, the usual ones first
KEYS = (
    "sku",
    "id",
    "product_id",
    "item_id",
    "variant_id",
    "style_id",
    "ean",
    "gtin",
    "upc",
    "isbn",
    "asin",
    "mpn",
    "handle",
)
_KEY_SUFFIXES = ("sku", "id", "ean", "gtin", "code", "key", "number", "no", "nr", "nummer", "artikelnummer")


def _key_rank(column: str) -> int:
    words = _words(column)
    name = "_".join(words)
    if name in KEYS:
        return KEYS.index(name)
    return len(KEYS) + (not (words and words[-1] in _KEY_SUFFIXES))


# -- by name ----------------------------------------------------------------------------------------------------

#: what a column of addresses is called beside what it shows
_URL_WORDS = {"image", "images", "img", "photo", "picture", "video", "url", "urls", "link", "src", "file"}
#: words that tell little: `Model Gender` is `gender` in a catalog of products, `Your Product Image` is `image`
_FILLER_WORDS = {"the", "your", "model", "product", "input", "text"}


def _best_column(parameter: Parameter, columns: Sequence[str]) -> tuple[int, str] | None:
    """How well the best column fits, from 0, and the column; None if none fits, or several fit as well."""
    for rank, rule in enumerate(_RULES):
        found = [column for column in columns if rule(parameter, column)]
        if found:
            return (rank, found[0]) if len(found) == 1 else None
    return None


def _same(parameter: Parameter, column: str) -> bool:
    return parameter.name == column


def _leniently_same(parameter: Parameter, column: str) -> bool:
    return normalise_name(parameter.name) == normalise_name(column)


def _same_words(parameter: Parameter, column: str) -> bool:
    return _words(parameter.name) == _words(column)


def _is_url_column(parameter: Parameter, column: str) -> bool:
    name, words = _words(parameter.name), _words(column)
    return parameter.type == "url" and words[: len(name)] == name and set(words[len(name) :]) <= _URL_WORDS


def _same_in_essence(parameter: Parameter, column: str) -> bool:
    empty = _FILLER_WORDS | _URL_WORDS if parameter.type == "url" else _FILLER_WORDS
    essence = [word for word in _words(parameter.name) if word not in empty]
    return bool(essence) and essence == [word for word in _words(column) if word not in empty]


_RULES = (_same, _leniently_same, _same_words, _is_url_column, _same_in_essence)


def _words(name: str) -> list[str]:
    """`frontImageURL`, `front_image_url` and `Front Image URL` alike."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word.casefold() for word in re.findall(r"[^\W_]+", parted)]


# -- by what stands in the cells --------------------------------------------------------------------------------

#: With more cells that are no label than this, the column is about something else.
_MAX_MAPPED_VALUES = 12
_SEPARATORS = ("|", ";", ",")


def _match_values(parameter: Parameter, column: str, cells: NamedColumns) -> ColumnMatch | None:
    texts = cells.texts(column)
    blank = texts.null_count()
    values = texts.drop_nulls()
    if parameter.type == "url":
        split = _separator(values) if parameter.multiple else None
        parts = values.str.split(split).explode().str.strip_chars() if split is not None else values
        return ColumnMatch(column=column, split=split, blank=blank) if parts.str.contains(URL_PATTERN).any() else None
    if not parameter.options:
        return ColumnMatch(column=column, blank=blank)
    strange = [value for value in values.unique(maintain_order=True) if match_name(value, parameter.options) is None]
    if len(strange) > _MAX_MAPPED_VALUES:
        return None
    return ColumnMatch(column=column, map=dict(_guess_labels(strange, parameter.options)), blank=blank)


def _guess_labels(values: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each value with the only label that begins with it: F is Female."""
    for value in values:
        begun = [label for label in labels if normalise_name(label).startswith(normalise_name(value))]
        yield value, begun[0] if len(begun) == 1 else FILL_IN


def _separator(values: pl.Series) -> str | None:
    """What parts the addresses in a cell, if each part of every cell is one."""
    for separator in _SEPARATORS:
        parted = values.filter(values.str.contains(separator, literal=True)).str.split(separator).explode()
        if len(parted) and parted.str.strip_chars().str.contains(URL_PATTERN).all():
            return separator
    return None
