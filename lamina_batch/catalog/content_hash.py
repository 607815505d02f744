"""The canonical form of what is sent, and its hash: this decides what is paid for twice.

Two jobs are the same content exactly when their hashes are equal, so every job must be written in one way only:

- the inputs as a JSON object, keys sorted by code point, `,` and `:` without spaces, text as it
  stands but for the escapes that JSON demands, precisely those of Python's json.dumps(ensure_ascii=False);
- a blank is left out, never null or "": the service then applies its default;
- labels and names in the service's spelling, so that `plus size` and `Plus Size` in a sheet are the same content;
- one value as a string, several as an array in their order (apps/schema.py);
- then SHA-256 over the UTF-8 of {"app":…,"base_url":…,"inputs":…}. Another app or another service is other content;
  the row's key, its place and the columns that no input uses are not in it.

A change to any of this makes every finished row look new and buys it again. Do not change it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
import polars_hash  # noqa: F401  # gives expressions their `chash`

from lamina_batch.sources.text import utf8_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}
_ESCAPES = {chr(code): f"\\u{code:04x}" for code in range(0x20)} | _SHORT_ESCAPES
_QUOTES = {'"': '\\"', "\\": "\\\\"}
_QUOTED = r'["\\]'


class Member(NamedTuple):
    """One value of the `inputs` object, for each row."""

    #: what its JSON is made of, in order: fixed text, and columns of text
    pieces: tuple[str | pl.Expr, ...]
    #: null where a row leaves it out; None: no row does
    optional: pl.Expr | None = None


def text_member(text: pl.Expr, *, optional: bool, plain: bool = False) -> Member:
    """A text as a JSON string. `plain`: there are no control characters in it."""
    return Member(('"', _escape(text, plain=plain), '"'), text if optional else None)


def verbatim_member(text: pl.Expr, *, optional: bool) -> Member:
    """A text that holds nothing to escape as a JSON string."""
    return Member(('"', text, '"'), text if optional else None)


def list_member(texts: pl.Expr) -> Member:
    """A list of texts in its wire form: one as a JSON string, several as an array, left out if there is none."""
    items = texts.list.eval(pl.concat_str(pl.lit('"'), _escape(pl.element(), plain=False), pl.lit('"')))
    array = pl.concat_str(pl.lit("["), items.list.join(","), pl.lit("]"))
    json_text = (
        pl.when(texts.list.len() > 1).then(array).otherwise(pl.when(texts.list.len() == 1).then(items.list.first()))
    )
    return Member((json_text,), json_text)


def _escape(text: pl.Expr, *, plain: bool) -> pl.Expr:
    """The text with the escapes that JSON demands."""
    return text.map_batches(partial(_escape_series, plain=plain), return_dtype=pl.String, is_elementwise=True)


def _escape_series(text: pl.Series, *, plain: bool) -> pl.Series:
    # Few columns hold any of these signs, and whether one does is found much faster than each of them is replaced.
    if plain and not text.str.contains(_QUOTED).any():
        return text
    least = None if plain else text.to_frame().select(utf8_bytes(pl.first()).explode().min()).item()
    control = least is not None and least < ord(" ")
    escapes = _ESCAPES if control else _QUOTES
    return text.str.replace_many(list(escapes), list(escapes.values()))


def inputs_expression(members: Mapping[str, Member], before: str = "", after: str = "") -> pl.Expr:
    """The canonical `inputs` object of members by their parameters' names, between two fixed texts."""
    names = sorted(members)  # Python orders text by code point
    # Commas are set around the first member that no row leaves out, or without one as the others turn out.
    fixed = next((at for at, name in enumerate(names) if members[name].optional is None), None)
    if fixed is None:
        texts = [_concatenate((f"{string_json(name)}:", *members[name].pieces)) for name in names]
        inside = pl.concat_str(texts, separator=",", ignore_nulls=True) if texts else ""
        return _concatenate((before + "{", inside, "}" + after))
    pieces: list[str | pl.Expr] = [before + "{"]
    for at, name in enumerate(names):
        own = (
            *([","] if at > fixed else []),
            f"{string_json(name)}:",
            *members[name].pieces,
            *([","] if at < fixed else []),
        )
        given = members[name].optional
        if given is None:
            pieces += own
        else:
            pieces.append(pl.when(given.is_not_null()).then(_concatenate(own)).otherwise(pl.lit("")))
    return _concatenate((*pieces, "}" + after))


def _concatenate(pieces: Iterable[str | pl.Expr]) -> pl.Expr:
    """One text of all, copied once; null where one is."""
    parts: list[pl.Expr] = []
    for fixed, group in itertools.groupby(pieces, key=lambda piece: isinstance(piece, str)):
        if fixed:
            parts.append(pl.lit("".join(map(str, group))))
        else:
            parts += [piece for piece in group if isinstance(piece, pl.Expr)]
    return pl.concat_str(parts)


def content_hash(service: str, app_id: str, inputs_json: str) -> str:
    """The content of one job, as hexadecimal digits; `service` is the base URL, or the word `sandbox`."""
    return hashlib.sha256((_hash_prefix(service, app_id) + inputs_json + "}").encode()).hexdigest()


def with_content_hash(rows: pl.DataFrame, service: str, app_id: str, members: Mapping[str, Member]) -> pl.DataFrame:
    """The rows with `content`, the `content_hash` of what the members make, and `inputs_bytes`, how long that is."""
    before, after = _hash_prefix(service, app_id), "}"
    beside = len(before.encode()) + len(after)
    return rows.with_columns(inputs_expression(members, before, after).alias("lamina_sent")).select(
        pl.exclude("lamina_sent"),
        content=pl.col("lamina_sent").chash.sha2_256(),  # type: ignore[attr-defined]  # polars-hash adds it
        inputs_bytes=pl.col("lamina_sent").str.len_bytes() - beside,
    )


def _hash_prefix(service: str, app_id: str) -> str:
    return f'{{"app":{string_json(app_id)},"base_url":{string_json(service)},"inputs":'


def string_json(text: str) -> str:
    """The text as a JSON string: what `text_member` is for columns."""
    return json.dumps(text, ensure_ascii=False)
