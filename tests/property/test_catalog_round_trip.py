"""What the csv module writes is what comes back, cell by cell, whatever stands in the cells."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from lamina_batch.pipeline.spec import Api, Pipeline, Results, Rows, RunSettings
from lamina_batch.sources.read_catalog import read_catalog

CELL = st.one_of(
    st.sampled_from(["", " ", '"', '""', '5" heel', "a,b", "a;b", "a\tb", "x\ny", "x\r\ny", "\r", "\n", "No", "00123"]),
    st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('",;\t\n\r|')), max_size=8),
)
#: what polars and Python agree to be blank: Unicode's White_Space
WHITE_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def read(
    content: bytes, *, separator: str | None, encoding: str
) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """The headers, and each row with its number; a blank cell as it stands or as nothing at all."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.csv"
        file.write_bytes(content)
        pipeline = Pipeline(
            file=Path(folder) / "p.yaml",
            name="p",
            app="an-app",
            rows=Rows(sources=(str(file),), key=("sku",), separator=separator, encoding=encoding),
            inputs=(),
            matrix={},
            api=Api(),
            run=RunSettings(),
            results=Results(manifest=()),
            state=Path(folder),
        )
        catalog = read_catalog(pipeline)
    rows = catalog.frame.select("lamina_row", *catalog.columns).collect().rows()
    return catalog.headers, [(number, [cell or "" for cell in row]) for number, *row in rows]


@given(
    rows=st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=8)),
    headers=st.lists(st.text(st.sampled_from('ab "\néЖ'), min_size=1, max_size=4), min_size=4, max_size=4),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
)
def test_cells_come_back_as_they_were_written(
    *,
    rows: list[list[str]],
    headers: list[str],
    separator: str,
    quoting: Literal[0, 1, 2],
    line_end: str,
    encoding: str,
) -> None:
    width = len(rows[0]) if rows else 1
    if line_end == "\n" and any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # the csv module leaves \r bare there, and a bare \r\n is a line end
    headers = [f"{header}{at}" for at, header in enumerate(headers[:width])]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=line_end)
    writer.writerow(headers)
    writer.writerows(rows)
    content = text.getvalue().encode(encoding)

    found_headers, found = read(content, separator=separator, encoding=encoding)

    assert found_headers == tuple(headers)
    assert found == [
        (number, row) for number, row in enumerate(rows, start=2) if any(cell.strip(WHITE_SPACE) for cell in row)
    ]


@given(
    names=st.lists(st.text(st.sampled_from("abcé _-"), min_size=1).filter(str.strip), min_size=1, max_size=5),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    cells=st.lists(CELL, max_size=5),
)
def test_the_separator_is_found_for_any_plain_header(names: list[str], separator: str, cells: list[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    writer.writerow(["x", *cells][: len(names)])
    headers, _ = read(text.getvalue().encode(), separator=None, encoding="utf-8")
    assert headers == tuple(names)
