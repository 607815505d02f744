"""The canonical form of the inputs of a job, and its hash. Jobs with the same hash are bought once.

Equal inputs must have equal hashes, so there is one form only:

- The inputs are a JSON object: keys sorted by code point, `,` and `:` without spaces, text with the escapes of
  Python's json.dumps(ensure_ascii=False) and no others.
- A blank is left out, never null or "": the service then applies its default.
- Labels and names have the service's spelling: `plus size` and `Plus Size` in a sheet are the same content.
- One value is a string; several are an array in their order (apps/input_schema.py).
- The hash is SHA-256 over the UTF-8 of {"app":…,"base_url":…,"inputs":…}. So another app or another service is other
  content; the key of the row, its position and the columns that no input uses are not part of it.

Do not change any of this: every finished row would look new, and would be bought again.
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

    #: the JSON of the value, in pieces: fixed text and text expressions
    pieces: tuple[str | pl.Expr, ...]
    #: null in rows that leave it out; None if no row does
    optional: pl.Expr | None = None


def text_member(text: pl.Expr, *, optional: bool, plain: bool = False) -> Member:
    """A text as a JSON string. `plain` means that it has no control characters."""
    return Member(('"', _escape(text, plain=plain), '"'), text if optional else None)


def verbatim_member(text: pl.Expr, *, optional: bool) -> Member:
    """A text without characters to escape as a JSON string."""
    return Member(('"', text, '"'), text if optional else None)


def list_member(texts: pl.Expr) -> Member:
    """A list of texts: one is a JSON string, several are an array, and an empty list is left out."""
    items = texts.list.eval(pl.concat_str(pl.lit('"'), _escape(pl.element(), plain=False), pl.lit('"')))
    array = pl.concat_str(pl.lit("["), items.list.join(","), pl.lit("]"))
    json_text = (
        pl.when(texts.list.len() > 1).then(array).otherwise(pl.when(texts.list.len() == 1).then(items.list.first()))
    )
    return Member((json_text,), json_text)


def _escape(text: pl.Expr, *, plain: bool) -> pl.Expr:
    """The text with the escapes that JSON requires."""
    return text.map_batches(partial(_escape_series, plain=plain), return_dtype=pl.String, is_elementwise=True)


def _escape_series(text: pl.Series, *, plain: bool) -> pl.Series:
    # Few columns have characters to escape, and finding them is much faster than replacing them.
    if plain and not text.str.contains(_QUOTED).any():
        return text
    least = None if plain else text.to_frame().select(utf8_bytes(pl.first()).explode().min()).item()
    control = least is not None and least < ord(" ")
    escapes = _ESCAPES if control else _QUOTES
    return text.str.replace_many(list(escapes), list(escapes.values()))


def inputs_expression(members: Mapping[str, Member], before: str = "", after: str = "") -> pl.Expr:
    """The canonical `inputs` object, between two fixed texts. `members` has the names of parameters as keys."""
    names = sorted(members)  # Python orders text by code point
    # If one member is in every row, the members before it end with a comma and those after it begin with one.
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
    """All pieces as one text; null if one of them is null. Adjacent fixed texts are joined first."""
    parts: list[pl.Expr] = []
    for fixed, group in itertools.groupby(pieces, key=lambda piece: isinstance(piece, str)):
        if fixed:
            parts.append(pl.lit("".join(map(str, group))))
        else:
            parts += [piece for piece in group if isinstance(piece, pl.Expr)]
    return pl.concat_str(parts)


def content_hash(service: str, app_id: str, inputs_json: str) -> str:
    """The content hash of one job, in hexadecimal digits; `service` is the base URL, or `sandbox`."""
    return hashlib.sha256((_hash_prefix(service, app_id) + inputs_json + "}").encode()).hexdigest()


def with_content_hash(rows: pl.DataFrame, service: str, app_id: str, members: Mapping[str, Member]) -> pl.DataFrame:
    """The rows with `content`, their `content_hash`, and `inputs_bytes`, the bytes of their canonical inputs."""
    before, after = _hash_prefix(service, app_id), "}"
    other_bytes = len(before.encode()) + len(after)
    return rows.with_columns(inputs_expression(members, before, after).alias("lamina_sent")).select(
        pl.exclude("lamina_sent"),
        content=pl.col("lamina_sent").chash.sha2_256(),  # type: ignore[attr-defined]  # polars-hash adds it
        inputs_bytes=pl.col("lamina_sent").str.len_bytes() - other_bytes,
    )


def _hash_prefix(service: str, app_id: str) -> str:
    return f'{{"app":{string_json(app_id)},"base_url":{string_json(service)},"inputs":'


def string_json(text: str) -> str:
    """The text as a JSON string, in the form of `text_member`."""
    return json.dumps(text, ensure_ascii=False)
