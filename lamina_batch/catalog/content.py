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
import json
from typing import TYPE_CHECKING

import polars as pl
import polars_hash  # noqa: F401  # gives expressions their `chash`

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_TO_ESCAPE = r'["\\\x00-\x1f]'


def text_json(text: pl.Expr) -> pl.Expr:
    """The text as a JSON string; null where it is null."""
    return pl.concat_str(pl.lit('"'), escaped(text), pl.lit('"'))


def escaped(text: pl.Expr) -> pl.Expr:
    """The text with the escapes that JSON demands."""
    return text.map_batches(_escaped, return_dtype=pl.String, is_elementwise=True)


def _escaped(text: pl.Series) -> pl.Series:
    # Few columns hold anything to escape, and to look is much cheaper than to replace.
    if not text.str.contains(_TO_ESCAPE).any():
        return text
    return text.str.replace_many(list(_ESCAPES), list(_ESCAPES.values()))


def list_json(texts: pl.Expr) -> pl.Expr:
    """The list of texts in its wire form: one as a JSON string, several as an array; null where there is none."""
    items = texts.list.eval(text_json(pl.element()))
    array = pl.concat_str(pl.lit("["), items.list.join(","), pl.lit("]"))
    return pl.when(texts.list.len() > 1).then(array).otherwise(pl.when(texts.list.len() == 1).then(items.list.first()))


def inputs_expression(values: Mapping[str, pl.Expr]) -> pl.Expr:
    """The canonical `inputs` object, from each parameter's name and the JSON of its value; nulls are left out."""
    members = [
        pl.concat_str(pl.lit(f"{string_json(name)}:"), values[name])
        for name in sorted(values)  # Python orders text by code point
    ]
    inside = pl.concat_str(members, separator=",", ignore_nulls=True) if members else pl.lit("")
    return pl.concat_str(pl.lit("{"), inside, pl.lit("}"))


def content_hash(service: str, app_id: str, inputs_json: str) -> str:
    """The content of one job, as hexadecimal digits; `service` is the base URL, or the word `sandbox`."""
    return hashlib.sha256((_prefix(service, app_id) + inputs_json + "}").encode()).hexdigest()


def content_hashes(service: str, app_id: str, inputs_json: pl.Series) -> pl.Series:
    """`content_hash` of each; null where it is null."""
    sent = pl.concat_str(pl.lit(_prefix(service, app_id)), pl.lit(inputs_json), pl.lit("}"))
    return pl.select(sha2_256(sent).alias("content")).to_series()


def sha2_256(text: pl.Expr) -> pl.Expr:
    """SHA-256 of its UTF-8, as hexadecimal digits; null where it is null."""
    return text.chash.sha2_256()  # type: ignore[attr-defined, no-any-return]  # polars-hash adds it to expressions


def _prefix(service: str, app_id: str) -> str:
    return f'{{"app":{string_json(app_id)},"base_url":{string_json(service)},"inputs":'


def string_json(text: str) -> str:
    """The text as a JSON string: what `text_json` is for columns."""
    return json.dumps(text, ensure_ascii=False)
