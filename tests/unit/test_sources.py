"""Files -> rows: what a catalog may look like, and what is said about one that cannot be read."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import polars as pl
import pytest
from catalog_support import Desk

from lamina_batch.errors import CatalogError
from lamina_batch.pipeline.load import SOURCE_EXTENSIONS
from lamina_batch.sources import read_catalog as source

if TYPE_CHECKING:
    from pathlib import Path

    from lamina_batch.sources.table import Catalog


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def cells(catalog: Catalog) -> list[tuple[object, ...]]:
    return catalog.frame.select(catalog.columns).collect().rows()


def numbers(catalog: Catalog) -> list[int]:
    return catalog.frame.collect()["lamina_row"].to_list()


def refused(desk: Desk, rows: str = "{from: rows.csv, key: sku}") -> CatalogError:
    with pytest.raises(CatalogError) as caught:
        desk.read(rows)
    return caught.value


# --- text files


def test_cells_are_text_exactly_as_they_stand(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,title,price\n00123, Röck ,1.50\nNo,"a ""b"", c",1e3\n')
    catalog = desk.read()
    assert catalog.frame.collect_schema()["sku"] == pl.String
    assert cells(catalog) == [("00123", " Röck ", "1.50"), ("No", 'a "b", c', "1e3")]


def test_rows_are_numbered_as_a_spreadsheet_shows_them(desk: Desk) -> None:
    """A cell with a line end is one row; blank rows are dropped and still count."""
    desk.write("rows.csv", 'sku,title\nA,"two\nlines"\n\n  ,\t\nB,x\n,\n"",""\nC,y\n\n')
    catalog = desk.read()
    assert cells(catalog) == [("A", "two\nlines"), ("B", "x"), ("C", "y")]
    assert numbers(catalog) == [2, 5, 8]
    assert catalog.frame.collect()["lamina_index"].to_list() == [0, 1, 2]
    assert catalog.frame.collect().schema["lamina_index"] == catalog.frame.collect().schema["lamina_row"] == pl.UInt32


def test_blank_lines_before_the_header_count_too(desk: Desk) -> None:
    desk.write("rows.csv", "\n\nsku,title\nA,x\n")
    assert numbers(desk.read()) == [4]


def test_a_file_of_one_column_may_have_blank_lines(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n\nB\n")
    assert (cells(desk.read()), numbers(desk.read())) == ([("A",), ("B",)], [2, 4])


def test_a_short_line_is_filled_with_blanks(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title,price\nA\nB,x\n")
    assert cells(desk.read()) == [("A", None, None), ("B", "x", None)]


def test_a_file_that_ends_in_the_middle_of_a_row_is_refused(desk: Desk) -> None:
    """A URL cut in half is still a URL, and would be paid for."""
    desk.write("rows.csv", "sku,front,back\nA,https://x/a.jpg,https://x/b.jpg\nB,https://x/a")
    assert "its last line has 2 of 3 cells" in refused(desk).what


@pytest.mark.parametrize(
    "text", ["sku,t\nA,x", "sku,t\nA,x\nB\n", "sku,t\r\nA,x\r\n", 'sku,t\nA,"x\ny"', "sku,t", "sku\nA"]
)
def test_other_ends_of_a_file_are_none_of_a_broken_export(desk: Desk, text: str) -> None:
    desk.write("rows.csv", text)
    desk.read()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ('sku,title,front\nA,"Dress, red"', "utf-8"),
        ('sku,title,front\r\nA,b,c\r\n"B, C",x', "utf-8"),
        ("sku,title,front\nA,x,https://x/a.jpg\nB,x", "utf-16"),
        ('sku,title,front\nA,"two\nlines",u\nB,x', "utf-8"),
        ("sku;title;front\nA;x;y\nB;x", "cp1252"),
    ],
)
def test_a_cut_is_seen_beside_quotes_and_in_every_encoding(desk: Desk, content: str, encoding: str) -> None:
    (desk.folder / "rows.csv").write_bytes(content.encode(encoding))
    assert "in the middle of a row" in refused(desk, f"{{from: rows.csv, key: sku, encoding: {encoding}}}").what


@pytest.mark.parametrize(
    "line",
    [
        'A,"Shelf 5" oak",https://x/a.jpg',
        'A,"<p class="red">Dress</p>",https://x/a.jpg',
        'A,"Dress" ,https://x/a.jpg',
        'A,"Dress"red,https://x/a.jpg',
        'A,"Shelf 5" oak,https://x/a.jpg"',
        'A,"open,https://x/a.jpg',
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_marks_that_do_not_pair_up_are_refused_with_their_line(desk: Desk, line: str, separator: str) -> None:
    """Read leniently, row A would get the picture of row B."""
    text = "sku,title,front\nZ,Hat,https://x/z.jpg\n" + line + "\nB,Coat,https://x/b.jpg\n"
    desk.write("rows.csv", text.replace(",", separator))
    error = refused(desk)
    assert "quotation marks do not pair up" in error.what
    assert error.where is not None
    assert error.where.endswith(":3")


def test_a_mark_inside_a_cell_without_quotes_is_text(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,title\nA,5" heel\nB,"say ""hi"""\n')
    assert cells(desk.read()) == [("A", '5" heel'), ("B", 'say "hi"')]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp1250"])
def test_utf_8_under_another_encoding_is_refused(desk: Desk, encoding: str) -> None:
    """Else each row with an accent would be bought again as other letters."""
    desk.write("rows.csv", "sku,title\nA,Größe 5\n")
    error = refused(desk, f"{{from: rows.csv, key: sku, encoding: {encoding}}}")
    assert "'Größe'" in error.what
    assert "encoding: utf-8" in (error.hint or "")


@pytest.mark.parametrize(
    ("word", "encoding"), [("綿シャツ", "shift_jis"), ("면셔츠", "euc_kr"), ("рубашка", "cp1251"), ("Größe", "cp1252")]
)
def test_the_hint_names_the_encoding_that_the_bytes_show(desk: Desk, word: str, encoding: str) -> None:
    (desk.folder / "rows.csv").write_bytes(f"sku,title\nA,{word}\n".encode(encoding))
    hint = refused(desk).hint or ""
    assert f"encoding: {encoding}" in hint
    assert word in hint


def test_a_file_of_two_encodings_is_not_advised_to_take_one(desk: Desk) -> None:
    (desk.folder / "rows.csv").write_bytes("sku,title\nA,Größe\n".encode() + "B,Straße\n".encode("cp1252"))
    assert "no single encoding is right" in (refused(desk).hint or "")


def test_the_end_of_a_utf_16_file_is_left_alone(desk: Desk) -> None:
    (desk.folder / "rows.csv").write_bytes("sku,title\nA,x\n".encode("utf-16"))
    assert cells(desk.read("{from: rows.csv, key: sku, encoding: utf-16}")) == [("A", "x")]


def test_a_header_without_rows_is_a_catalog_without_rows(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\n")
    catalog = desk.read()
    assert (catalog.columns, cells(catalog)) == (("sku", "title"), [])
    assert catalog.frame.collect_schema()["sku"] == pl.String


def test_windows_line_ends_are_no_part_of_cells(desk: Desk) -> None:
    desk.write("rows.csv", b'sku,title\r\nA,"x"\r\nB,y\r\n')
    assert cells(desk.read()) == [("A", "x"), ("B", "y")]


def test_the_line_ends_of_old_macs_are_read(desk: Desk) -> None:
    desk.write("rows.csv", b"sku\rA\rB\r")
    assert cells(desk.read()) == [("A",), ("B",)]


@pytest.mark.parametrize(
    ("encoding", "stated"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("cp1252", "cp1252"),
        ("latin-1", "latin-1"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("shift_jis", "shift_jis"),
    ],
)
def test_a_file_is_read_in_its_encoding(desk: Desk, encoding: str, stated: str) -> None:
    word = "日本" if encoding == "shift_jis" else "Größe é"
    desk.write("rows.csv", f'"sku",title\r\nA,{word}\r\n\r\nB,"x\r\ny"\r\n'.encode(encoding))
    catalog = desk.read(f"{{from: rows.csv, key: sku, encoding: {stated}}}")
    assert catalog.headers == ("sku", "title")
    assert cells(catalog) == [("A", word), ("B", "x\r\ny")]
    assert numbers(catalog) == [2, 4]


def test_a_byte_order_mark_of_utf_16_with_its_byte_order_named_is_dropped(desk: Desk) -> None:
    desk.write("rows.csv", b"\xff\xfe" + "sku,title\nA,x\n".encode("utf-16-le"))
    assert desk.read("{from: rows.csv, key: sku, encoding: utf-16-le}").headers == ("sku", "title")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_from_the_header(desk: Desk, separator: str) -> None:
    others = " ".join({",", ";", "\t", "|"} - {separator})
    desk.write("rows.csv", f'sku{separator}"title{others}x"{separator}price\nA{separator}"a,b;c"{separator}1\n')
    assert cells(desk.read()) == [("A", "a,b;c", "1")]


def test_a_tsv_file_is_parted_at_tabs(desk: Desk) -> None:
    desk.write("rows.tsv", "sku, id, code\ttitle\nA, B, C\tx\n")
    assert desk.read("{from: rows.tsv, key: title}").headers == ("sku, id, code", "title")


def test_a_separator_can_be_given(desk: Desk) -> None:
    desk.write("rows.csv", "sku;a,b,c\nA;x\n")
    assert desk.read('{from: rows.csv, key: sku, separator: ";"}').headers == ("sku", "a,b,c")


def test_inch_marks_in_cells_without_quotes_are_read(desk: Desk) -> None:
    """Such a file is none of CSV's, but every spreadsheet reads it, and polars alone does not."""
    desk.write("rows.csv", 'sku,size\nA,5" heel\nB,6"\n')
    assert cells(desk.read()) == [("A", '5" heel'), ("B", '6"')]


def test_lone_inch_marks_never_join_two_rows(desk: Desk) -> None:
    """polars reads two of these rows as one, without a word."""
    content = 'a,b,c\nq,"q\nr",5"\nz z,yy,5"\n'
    for lines in range(40):
        desk.write("rows.csv", content + "x,y,z\n" * lines)
        assert cells(desk.read())[:2] == [("q", "q\nr", '5"'), ("z z", "yy", '5"')]


def test_separators_too_many_at_the_end_of_a_line_do_no_harm(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,x,,\nB,y\n")
    assert cells(desk.read()) == [("A", "x"), ("B", "y")]


def test_columns_of_ours_are_ignored(desk: Desk) -> None:
    desk.write("rows.csv", "lamina_row,sku,lamina_status,title\n9,A,completed,x\n7,,failed,\n")
    catalog = desk.read()
    assert (catalog.columns, cells(catalog), numbers(catalog)) == (("sku", "title"), [("A", "x")], [2])


def test_headers_that_are_empty_or_stand_twice_get_names_of_their_own(desk: Desk) -> None:
    desk.write("rows.csv", "sku,a,,a,,a (column 2)\n1,2,3,4,5,6\n")
    catalog = desk.read()
    assert catalog.headers == ("sku", "a", "", "a", "", "a (column 2)")
    assert len(set(catalog.columns)) == 6
    assert catalog.columns[0] == "sku"
    assert cells(catalog) == [("1", "2", "3", "4", "5", "6")]


# --- text files that cannot be read


def test_a_file_that_is_missing_names_the_nearest(desk: Desk) -> None:
    desk.write("aparel.csv", "sku\n")
    error = refused(desk, "{from: apparel.csv, key: sku}")
    assert error.exit_code == 2
    assert str(error) == f"{desk.folder / 'apparel.csv'}: there is no such file\n  did you mean 'aparel.csv'?"


def test_a_file_that_is_missing_says_what_the_folder_has(desk: Desk) -> None:
    desk.write("shoes.csv", "sku\n")
    assert refused(desk, "{from: 2026.csv, key: sku}").hint == "the folder has shoes.csv"


def test_a_folder_without_a_catalog_is_said(desk: Desk) -> None:
    desk.write("data/readme.txt", "")
    assert (
        refused(desk, "{from: data/rows.csv, key: sku}").hint
        == f"the folder {desk.folder / 'data'} has no catalog file"
    )


def test_a_folder_that_is_missing_is_said(desk: Desk) -> None:
    assert f"no folder {desk.folder / 'data'}" in str(refused(desk, "{from: data/rows.csv, key: sku}"))


def test_a_folder_is_no_file(desk: Desk) -> None:
    (desk.folder / "rows.csv").mkdir()
    error = refused(desk)
    assert (error.what, error.hint) == (
        "this is a folder",
        f"name a file in it, or a pattern: {desk.folder / 'rows.csv' / '*.csv'}",
    )


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\r\n\n"], ids=["nothing", "a mark", "blank lines"])
def test_a_file_without_anything_has_no_header(desk: Desk, content: bytes) -> None:
    desk.write("rows.csv", content)
    assert "the file has no header" in refused(desk).what


def test_a_header_of_blanks_is_no_header(desk: Desk) -> None:
    desk.write("rows.csv", ", ,\nA,B,C\n")
    error = refused(desk)
    assert (error.where, error.what) == (f"{desk.folder}/rows.csv:1", "the first line holds no column names")


def test_a_byte_that_is_not_utf8_is_named_with_its_line_and_what_to_set(desk: Desk) -> None:
    desk.write("rows.csv", b'sku,title\nA,"x\ny"\nB,Caf\xe9 cr\xe8me\n')
    error = refused(desk)
    assert error.where == f"{desk.folder}/rows.csv:4"
    assert error.what == "byte 0xE9 at offset 23 is not utf-8"
    assert error.hint == "set `encoding: cp1252` under `rows`, if 'Café' is right; or save the file as UTF-8"


def test_a_bad_byte_in_the_header_is_found_too(desk: Desk) -> None:
    desk.write("rows.csv", b"sku,Gr\xf6\xdfe\nA,x\n")
    error = refused(desk)
    assert error.where == f"{desk.folder}/rows.csv:1"
    assert "'Größe'" in str(error)


def test_a_bad_byte_far_down_is_found(desk: Desk) -> None:
    desk.write("rows.csv", b"sku,title\n" + b"A,x\n" * 100_000 + b"B,\xe9\n")
    assert refused(desk).where == f"{desk.folder}/rows.csv:100002"


def test_no_encoding_is_suggested_where_none_is_plausible(desk: Desk) -> None:
    desk.write("rows.csv", b"sku,title\nA,\x81\xe9\n")
    hint = refused(desk).hint
    assert hint == "set `encoding` under `rows` to what the file was saved in, or save it as UTF-8"


def test_utf_16_is_recognised_by_its_mark(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,x\n".encode("utf-16"))
    error = refused(desk)
    assert error.what == "the file begins with the mark of utf-16, and rows.encoding says utf-8"
    assert error.hint == "set `encoding: utf-16` under `rows`"


def test_utf_16_without_a_mark_is_recognised_by_its_zero_bytes(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,Größe\n".encode("utf-16-le"))
    assert "utf-16-le" in str(refused(desk))


def test_utf_8_with_its_mark_is_not_read_as_something_else(desk: Desk) -> None:
    desk.write("rows.csv", "sku,title\nA,é\n".encode("utf-8-sig"))
    error = refused(desk, "{from: rows.csv, key: sku, encoding: cp1252}")
    assert error.hint == "set `encoding: utf-8` under `rows`"


def test_a_byte_that_the_stated_encoding_lacks_is_named(desk: Desk) -> None:
    desk.write("rows.csv", b"sku,title\nA,\x81\n")
    error = refused(desk, "{from: rows.csv, key: sku, encoding: cp1252}")
    assert (error.where, error.what) == (f"{desk.folder}/rows.csv:2", "byte 0x81 at offset 12 is not cp1252")


def test_a_line_with_too_many_cells_is_named(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,title\nA,"two\nlines"\n\nB,Shirt, long\n')
    error = refused(desk)
    assert error.where == f"{desk.folder}/rows.csv:5"
    assert error.what == "this line has 3 cells, and the header has 2"
    assert "double quotes" in str(error.hint)


def test_a_quotation_mark_that_is_never_closed_is_named_where_it_opens(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,title\nA,x\nB,"Shirt\nC,y\nD,z\n')
    error = refused(desk)
    assert error.where == f"{desk.folder}/rows.csv:3"
    assert "quotation marks do not pair up" in error.what


def test_text_after_a_closing_quotation_mark_is_named(desk: Desk) -> None:
    desk.write("rows.csv", 'sku,title\nA,"Shirt" long\n')
    assert refused(desk).where == f"{desk.folder}/rows.csv:2"


def test_a_wrong_separator_is_said(desk: Desk) -> None:
    desk.write("rows.csv", "sku;title\nA;x\n")
    error = refused(desk, '{from: rows.csv, key: sku, separator: ","}')
    assert error.what == "the header is one single column when split at commas, and several when split at semicolons"
    assert error.hint == "set `separator: ';'` under `rows`"


def test_a_tsv_file_with_commas_is_said(desk: Desk) -> None:
    desk.write("rows.tsv", "sku,title\nA,x\n")
    assert "when split at tabs" in refused(desk, "{from: rows.tsv, key: sku}").what


def test_a_csv_file_with_tabs_that_is_said_to_have_commas_is_told_so(desk: Desk) -> None:
    desk.write("rows.csv", "sku\ttitle\nA\tx\n")
    assert refused(desk, '{from: rows.csv, key: sku, separator: ","}').hint == "set `separator: tab` under `rows`"


def test_a_file_of_ours_alone_has_no_columns(desk: Desk) -> None:
    desk.write("rows.csv", "lamina_row,lamina_key\n1,A\n")
    assert refused(desk).what == "the file has no columns"


# --- Parquet and NDJSON


def test_every_documented_ending_has_a_reader() -> None:
    assert set(source.READERS) == set(SOURCE_EXTENSIONS)


def test_parquet_keeps_its_types(desk: Desk) -> None:
    frame = pl.DataFrame({"sku": ["A", None, "C"], "price": [1.5, None, 2.0], "tags": [["a"], [], ["b", "c"]]})
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    desk.write("rows.parquet", buffer.getvalue())
    catalog = desk.read("{from: rows.parquet, key: sku}")
    assert catalog.frame.select("sku", "price", "tags").collect().equals(frame[[0, 2]])
    assert numbers(catalog) == [2, 4]


@pytest.mark.parametrize("content", [b"", b"sku,title\nA,x\n", b"PAR1 PAR1 PAR1"])
def test_what_is_no_parquet_is_said(desk: Desk, content: bytes) -> None:
    desk.write("rows.parquet", content)
    assert refused(desk, "{from: rows.parquet, key: sku}").what == "this is not a Parquet file, or it is damaged"


@pytest.mark.parametrize("name", ["rows.ndjson", "rows.jsonl"])
def test_ndjson_keeps_its_types(desk: Desk, name: str) -> None:
    desk.write(name, b'\xef\xbb\xbf{"sku": "A", "price": 2}\r\n\r\n{"sku": "B", "live": true}\n')
    catalog = desk.read(f"{{from: {name}, key: sku}}")
    assert catalog.columns == ("sku", "price", "live")
    assert cells(catalog) == [("A", 2, None), ("B", None, True)]


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ('{"a": 1}\n\n{"a":\n', 3, "this line is not JSON: Expecting value"),
        ('{"a": 1}\nhello\n', 2, "this line is not JSON: Expecting value at character 1"),
        ('{"a": 1} {"a": 2}\n', 1, "this line is not JSON: Extra data at character 10"),
        ('{"a": 1}\n[1, 2]\n', 2, "this line is JSON, but not an object"),
        ('{"a": NaN}\n', 1, "NaN is not JSON"),
    ],
)
def test_a_line_that_is_no_json_object_is_named(desk: Desk, content: str, line: int, what: str) -> None:
    desk.write("rows.ndjson", content)
    error = refused(desk, "{from: rows.ndjson, key: a}")
    assert error.where == f"{desk.folder}/rows.ndjson:{line}"
    assert error.what.startswith(what)


def test_an_ndjson_file_in_another_encoding_is_said(desk: Desk) -> None:
    desk.write("rows.ndjson", b'{"a": "x"}\n{"a": "\xe9"}\n')
    assert refused(desk, "{from: rows.ndjson, key: a}").where == f"{desk.folder}/rows.ndjson:2"


def test_an_empty_ndjson_file_is_said(desk: Desk) -> None:
    desk.write("rows.ndjson", "\n")
    assert refused(desk, "{from: rows.ndjson, key: a}").what == "the file is empty"


# --- several files


def test_the_files_of_a_pattern_are_read_by_name_and_name_each_row(desk: Desk) -> None:
    desk.write("data/b.csv", "title,sku\nx,B\n\ny,C\n")
    desk.write("data/a.csv", "sku,title\nA,z\n")
    catalog = desk.read("{from: data/*.csv, key: sku}")
    assert cells(catalog) == [("A", "z"), ("B", "x"), ("C", "y")]
    assert numbers(catalog) == [2, 2, 4]
    assert catalog.frame.collect()["lamina_source"].to_list() == ["a.csv", "b.csv", "b.csv"]
    assert catalog.frame.collect()["lamina_index"].to_list() == [0, 1, 2]


def test_a_pattern_over_folders_names_the_folder_too(desk: Desk) -> None:
    desk.write("data/x/a.csv", "sku\nA\n")
    desk.write("data/y/deep/a.csv", "sku\nB\n")
    catalog = desk.read("{from: 'data/**/*.csv', key: sku}")
    assert catalog.frame.collect()["lamina_source"].to_list() == ["x/a.csv", "y/deep/a.csv"]


def test_a_list_is_read_in_its_order_and_each_file_once(desk: Desk) -> None:
    desk.write("b.csv", "sku\nB\n")
    desk.write("a.csv", "sku\nA\n")
    catalog = desk.read("{from: [b.csv, '*.csv'], key: sku}")
    assert cells(catalog) == [("B",), ("A",)]


def test_a_single_file_is_not_named_in_its_rows(desk: Desk) -> None:
    desk.write("rows.csv", "sku\nA\n")
    assert desk.read().frame.collect().columns == ["lamina_index", "lamina_row", "sku"]


def test_a_file_whose_name_reads_like_a_pattern_is_that_file(desk: Desk) -> None:
    desk.write("rows[1].csv", "sku\nA\n")
    catalog = desk.read("{from: 'rows[1].csv', key: sku}")
    assert (cells(catalog), catalog.has_source_column) == ([("A",)], False)


def test_each_file_may_have_a_separator_of_its_own(desk: Desk) -> None:
    desk.write("a.csv", "sku,title\nA,x\n")
    desk.write("b.csv", "sku;title\nB;y\n")
    assert cells(desk.read("{from: '*.csv', key: sku}")) == [("A", "x"), ("B", "y")]


def test_a_pattern_without_a_file_is_said_with_what_is_near(desk: Desk) -> None:
    desk.write("data/spring.csv", "sku\n")
    error = refused(desk, "{from: 'data/*.tsv', key: sku}")
    assert (error.where, error.what) == (f"{desk.folder}/data/*.tsv", "no file matches this pattern")
    assert error.hint == "the folder has spring.csv"


def test_files_with_other_columns_are_refused_by_name(desk: Desk) -> None:
    desk.write("a.csv", "sku,title,price\nA,x,1\n")
    desk.write("b.csv", "sku,Title,price\nB,y,1\n")
    error = refused(desk, "{from: '*.csv', key: sku}")
    assert error.where == f"{desk.folder}/b.csv"
    assert error.what == "the columns differ from those of a.csv: this file lacks 'title' and has 'Title' more"


def test_files_with_other_types_are_refused(desk: Desk) -> None:
    desk.write("a.ndjson", '{"sku": "A", "price": 1}\n')
    desk.write("b.ndjson", '{"sku": "B", "price": "1"}\n')
    error = refused(desk, "{from: '*.ndjson', key: sku}")
    assert error.where == f"{desk.folder}/b.ndjson"
    assert error.what == "the column 'price' holds String, and in a.ndjson it holds Int64"


def test_numbers_of_several_widths_and_columns_without_values_fit_together(desk: Desk) -> None:
    desk.write("a.ndjson", '{"sku": "A", "price": 1, "note": null}\n')
    desk.write("b.ndjson", '{"sku": "B", "price": 1.5, "note": "x"}\n')
    assert cells(desk.read("{from: '*.ndjson', key: sku}")) == [("A", 1.0, None), ("B", 1.5, "x")]


def test_our_own_columns_before_columns_without_a_name_are_left_out(desk: Desk) -> None:
    desk.write("rows.csv", "lamina_status,,sku,size,size\ndone,x,A,1,2\n")
    catalog = desk.read()
    assert cells(catalog) == [("x", "A", "1", "2")]
    assert [catalog.files[0].column_numbers[name] for name in catalog.columns] == [2, 3, 4, 5]
    assert catalog.files[0].own_columns == {"lamina_status": 1}
