"""CSV files are read as Python's csv module in strict mode reads them, or refused: no row differs unnoticed."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import examples

from lamina_batch.errors import CatalogError
from lamina_batch.sources.delimited import read_delimited

#: Text of cells as exports write them: with quotation marks, separators and line ends.
WORDS = st.text(st.sampled_from('ab "éß,;\t|\n'), max_size=6)
CELL = st.one_of(
    st.text(st.sampled_from("abé ß5"), max_size=5),
    WORDS.map(lambda text: '"' + text.replace('"', '""') + '"'),
    WORDS.map(lambda text: f'"{text}"'),
    st.sampled_from(['5" heel', '"Shelf 5" oak"', '"', '""', '"open', 'shut"', '"a" b', "https://x.example/1.jpg"]),
)
RECORD = st.lists(CELL, min_size=1, max_size=4)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, str, str]:
    """A file's bytes, its encoding and its separator."""
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    line_end = draw(st.sampled_from(["\n", "\r\n"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]))
    records = [["k", "v", "w"][: draw(st.integers(2, 3))], *draw(st.lists(RECORD, max_size=5))]
    text = line_end.join(separator.join(record) for record in records)
    text += draw(st.sampled_from([line_end, ""]))
    if draw(st.booleans()):
        text = text[: draw(st.integers(0, len(text)))]
    return text.encode(encoding), encoding, separator


def strictly(text: str, separator: str) -> list[list[str]] | None:
    """The records of strict CSV, without blank ones; None if it refuses the text."""
    try:
        return [
            record for record in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if record
        ]
    except csv.Error:
        return None


@settings(max_examples=examples(400), deadline=None)
@given(files())
def test_no_row_differs_unnoticed_from_strict_csv(file: tuple[bytes, str, str]) -> None:
    content, encoding, separator = file
    expected = strictly(content.decode(encoding), separator)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.csv")
        path.write_bytes(content)
        try:
            table = read_delimited(path, encoding="utf-8" if encoding == "utf-8-sig" else encoding, separator=separator)
        except CatalogError:
            return
        rows = [["" if cell is None else cell for cell in row] for row in table.frame.collect().rows()]
    assert expected is not None, "strict CSV refuses this file"
    header, *records = expected
    width = len(header)
    assert list(table.headers) == header
    padded = [(record + [""] * width)[:width] for record in records]
    blank = [""] * width
    assert [row for row in rows if row != blank] == [row for row in padded if row != blank]
