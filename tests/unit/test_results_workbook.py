"""The manifest as a workbook, read back with another library than the one that wrote it."""

from __future__ import annotations

import datetime as dt
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import polars as pl
import pytest
from office import saved_again

from lamina_batch.atomic_files import write_whole
from lamina_batch.errors import StateError, UsageError
from lamina_batch.execution.plan import ledger_frame
from lamina_batch.results.manifest import ManifestLines, gather_outcomes, refuse_too_many_rows, write_manifest
from lamina_batch.results.read_manifest import count_bought_rows, read_manifest
from lamina_batch.results.summary import STATUSES
from lamina_batch.results.workbook import COLOURS, ColumnRoles, refuse_too_large_table, write_workbook
from lamina_batch.sheets import xlsx
from lamina_batch.sheets.xlsx import file_link, fit_cell_text, web_link
from lamina_batch.sources.table import Catalog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.results.manifest import Outcomes

HASHES = ("a" * 64, "b" * 64, "c" * 64)
HOSTILE = (
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "'quoted", "00123", "1E5", "TRUE", "#N/A", " spaced ", "two\nlines",
    "{=A1}", "https://shop.example/1", "mailto:a@shop.example", "internal:A1", "external:x.xlsx", "javascript:alert(1)",
    "<r>x</r>", "<r><t>x</t></r>", "<r>&</is></r>", "]]>", "&amp;", '<a href="x">', "日本語 😀", "e\u0301",
)  # fmt: skip
PLAIN = ColumnRoles(theirs={}, status="status", values=("value",), files=("file",))


def catalog() -> Catalog:
    frame = pl.DataFrame(
        {
            "lamina_index": [0, 1, 2],
            "lamina_row": [2, 3, 4],
            "sku": ["0001", "=1+1", "3"],
            "sku_1": ["twice", None, "https://shop.example/3"],
            "price": [10.5, None, 12.0],
            "tags": [["a", "b"], [], None],
        },
        schema_overrides={"lamina_index": pl.UInt32, "lamina_row": pl.UInt32},
    )
    columns = ("sku", "sku_1", "price", "tags")
    return Catalog(frame=frame.lazy(), columns=columns, headers=("sku", "sku", "price", ""), has_source_column=False)


def outcomes(folder: Path) -> Outcomes:
    jobs = pl.DataFrame(
        {
            "lamina_index": [0, 1, 2],
            "row": [2, 3, 4],
            "key": ["0001", "=1+1", "3"],
            "variant": ["", "", ""],
            "inputs": ["{}", "{}", None],
            "content": [*HASHES[:2], None],
            "valid": [True, True, False],
            "code": [None, None, "empty"],
            "message": [None, None, "=no\x07title"],
        },
        schema_overrides={"lamina_index": pl.UInt32, "row": pl.UInt32},
    )
    ledger = ledger_frame(
        [
            (1, "0001", "", 1, HASHES[0], "completed", "app", "c", "e1", 1, 0.0, 1.5, 1.5, 0, None, None, 1),
            (2, "=1+1", "", 1, HASHES[1], "completed", "app", "c", "e2", 2, 0.0, 1.5, 1.5, 1, "partial", "1 of 2", 2),
        ]
    )
    outputs = [
        (1, 0, "n1", "Front", "image", "completed", "https://cdn.example/1.png?sig=a%2Fb&x=1", None),
        (1, 1, "n2", "Text", "text", "completed", "=HYPERLINK(1)", None),
        (2, 0, "n1", "Front", "image", "error", None, "=nope"),
        (2, 1, "n2", "Text", "text", "completed", "javascript:alert(1)", None),
    ]
    downloads = [(1, 0, str(folder / "images" / "a b #1.png"), "d" * 64, None)]
    return gather_outcomes(jobs, ledger, outputs, downloads, app_id="app", share_identical=True)


def opened(file: Path) -> Any:
    book = openpyxl.load_workbook(file)
    assert book.sheetnames == ["results"]
    return book["results"]


def cells(frame: pl.DataFrame, folder: Path, roles: ColumnRoles = PLAIN) -> Any:
    write_workbook(frame, roles, folder / "m.xlsx")
    return opened(folder / "m.xlsx")


def lines(sheet: Any) -> list[dict[str, Any]]:
    header, *rows = sheet.iter_rows()
    return [dict(zip([cell.value for cell in header], row, strict=True)) for row in rows]


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_it_says_what_the_ndjson_says(tmp_path: Path, layout: Any) -> None:
    [file] = write_manifest(catalog(), ManifestLines(catalog(), [outcomes(tmp_path)], layout), [tmp_path / "m.xlsx"])
    frame = ManifestLines(catalog(), [outcomes(tmp_path)], layout).whole()
    header, *rows = opened(file).iter_rows(values_only=True)
    assert list(header[:4]) == ["sku", "sku", "price", None]
    assert list(header[4:]) == frame.columns[4:]
    shown = frame.with_columns(tags=pl.Series(["|".join(tags or ()) for tags in frame["tags"].to_list()]))
    expected = [tuple(None if value == "" else value for value in row) for row in shown.iter_rows()]
    assert rows == [
        tuple(value.replace("\x07", "\ufffd") if isinstance(value, str) else value for value in row) for row in expected
    ]


def test_what_came_out_is_linked_and_nothing_else_is(tmp_path: Path) -> None:
    for layout in ("wide", "long"):
        [file] = write_manifest(
            catalog(), ManifestLines(catalog(), [outcomes(tmp_path)], layout), [tmp_path / f"{layout}.xlsx"]
        )
        links = {cell.value: cell.hyperlink.target for row in opened(file) for cell in row if cell.hyperlink}
        assert links == {
            "https://cdn.example/1.png?sig=a%2Fb&x=1": "https://cdn.example/1.png?sig=a%2Fb&x=1",
            str(tmp_path / "images" / "a b #1.png"): "images/a%20b%20%231.png",
        }


def test_text_stays_text_exactly(tmp_path: Path) -> None:
    frame = pl.DataFrame({"theirs": HOSTILE, "value": HOSTILE, "status": HOSTILE, "lamina_message": HOSTILE})
    sheet = cells(
        frame, tmp_path, ColumnRoles(theirs={"theirs": HOSTILE[0]}, status="status", values=("value",), files=())
    )
    assert sheet["A1"].value == HOSTILE[0]
    for row, text in zip(sheet.iter_rows(min_row=2), HOSTILE, strict=True):
        assert [(cell.value, cell.data_type) for cell in row] == [(text, "s")] * 4
        assert not row[0].hyperlink
        assert bool(row[1].hyperlink) == text.startswith("https://")
    assert not any(b"<f>" in part or b"<f " in part for part in parts(tmp_path / "m.xlsx").values())


@pytest.mark.parametrize("header", ["=1+1", "<r>&</r>", "https://shop.example", "bell\x07"])
def test_a_header_is_text_too(tmp_path: Path, header: str) -> None:
    sheet = cells(pl.DataFrame({"a": [1]}), tmp_path, ColumnRoles(theirs={"a": header}, status="", values=(), files=()))
    assert (sheet["A1"].value, sheet["A1"].data_type) == (header.replace("\x07", "\ufffd"), "s")


def parts(file: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(file) as package:
        return {name: package.read(name) for name in package.namelist()}


def test_what_xml_has_no_sign_for_is_replaced(tmp_path: Path) -> None:
    every = "".join(map(chr, range(0x20))) + "\x7f\x85\u2028\ufffe\uffff"
    sheet = cells(pl.DataFrame({"a": ["before", every, "after"]}), tmp_path)
    kept = "".join("\ufffd" if c < " " and c not in "\t\n\r" else c for c in every[:-2]) + "\ufffd\ufffd"
    assert fit_cell_text(every) == kept
    # Excel's way of writing the one that XML would read as another.
    assert sheet["A3"].value == kept.replace("\r", "_x000D_")
    assert sheet["A4"].value == "after"


def test_a_text_that_looks_like_that_escape_is_not_taken_for_it(tmp_path: Path) -> None:
    write_workbook(manifest_like(lamina_message=["a_x0041_b\r\nc"]), PLAIN, tmp_path / "m.xlsx")
    [kept] = read_manifest(tmp_path / "m.xlsx")
    assert kept.job.message == "a_x0041_b\r\nc"


def manifest_like(**changes: list[Any]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {
        "lamina_key": ["1"], "lamina_variant": [""], "lamina_status": ["completed"], "lamina_code": [None],
        "lamina_execution_id": ["e"], "lamina_app_id": ["app"], "lamina_inputs_sha256": [HASHES[0]],
    }  # fmt: skip
    return pl.DataFrame(columns | changes)


def test_numbers_stay_numbers_as_long_as_a_cell_keeps_every_digit(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "int": [7, -(10**15) + 1, 10**15, -(10**18)],
            "float": [0.1, float("nan"), float("inf"), float("-inf")],
            "decimal": [Decimal("1.50"), Decimal("123456789012.345"), Decimal("12345678901234.567"), None],
            "yes": [True, False, None, True],
        },
        schema_overrides={"decimal": pl.Decimal(38, 20)},
    )
    rows = list(cells(frame, tmp_path).iter_rows(min_row=2, values_only=True))
    columns = list(zip(*rows, strict=True))
    assert columns[0] == (7, -999999999999999, "1000000000000000", "-1000000000000000000")
    assert columns[1] == (0.1, "NaN", "inf", "-inf")
    assert columns[2][:2] == (1.5, 123456789012.345)
    assert columns[2][2] == "12345678901234.56700000000000000000"
    assert columns[3] == (True, False, None, True)


def local(*parts: int) -> dt.datetime:
    return dt.datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001 - a cell knows no zone


def test_dates_stay_dates_where_a_cell_can_tell_which(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "date": [dt.date(2026, 11, 24), dt.date(1900, 2, 28), dt.date(1900, 3, 1)],
            "local": [local(2026, 11, 24, 13, 5, 7), local(1850, 1, 1), None],
            "zoned": [dt.datetime(2026, 11, 24, 13, tzinfo=dt.UTC)] * 3,
            "time": [dt.time(13, 5, 7), None, dt.time(0)],
        }
    )
    first, second, third = lines(cells(frame, tmp_path))
    assert (first["date"].value, first["date"].number_format) == (local(2026, 11, 24), "yyyy-mm-dd")
    assert (second["date"].value, third["date"].value) == ("1900-02-28", local(1900, 3, 1))
    assert (first["local"].value, second["local"].value) == (local(2026, 11, 24, 13, 5, 7), "1850-01-01 00:00:00")
    assert first["zoned"].value == "2026-11-24 13:00:00+00:00"
    assert (first["time"].value, third["time"].value) == (dt.time(13, 5, 7), dt.time(0))


@pytest.mark.parametrize("char", ["x", "é", "😀", "\x07"])
def test_a_text_is_cut_only_where_a_cell_ends_and_says_so(tmp_path: Path, char: str) -> None:
    units = 2 if char == "😀" else 1
    room = 32_766 // units
    assert fit_cell_text("a" + char * room) == "a" + fit_cell_text(char) * room
    cut = fit_cell_text("a" + char * (room + 1))
    assert len(cut.encode("utf-16-le")) // 2 in {32_766, 32_767}
    assert cut.endswith(f" … [cut here: {1 + (room + 1) * units:,} characters, and a cell holds 32,767]")
    sheet = cells(pl.DataFrame({"value": ["https://x.example/" + char * 40_000]}), tmp_path)
    assert "cut here" in sheet["A2"].value
    assert not sheet["A2"].hyperlink


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("https://x.example/a.png", "https://x.example/a.png"),
        ("HTTP://X.EXAMPLE", "HTTP://X.EXAMPLE"),
        ("https://x.example/a%20b[1]{2}", "https://x.example/a%20b%5B1%5D%7B2%7D"),
        ("https://x.example/100%", "https://x.example/100%25"),
        ("https://x.example/é?q=<1>&r=\"'", "https://x.example/é?q=%3C1%3E&r=%22'"),
        ("javascript:alert(1)", None),
        ("JavaScript://x.example/%0aalert(1)", None),
        ("data:text/html,x", None),
        ("file:///etc/passwd", None),
        ("ftp://x.example", None),
        ("mailto:a@x.example", None),
        ("//x.example/a", None),
        ("http:x.example", None),
        ("https://", None),
        ("https://[::1", None),
        ("https://x.example/a b", None),
        ("https://x.example\\@evil.example", None),
        ("https://x.example/\u202egnp.a", None),
        ("https://x.example/1 and more words", None),
        (" https://x.example", None),
    ],
)
def test_only_web_addresses_are_links(text: str, target: str | None) -> None:
    link = web_link(text)
    assert (None if link is None else link._target()) == target


def test_an_address_longer_than_a_link_may_be_is_text(tmp_path: Path) -> None:
    longest = "https://x.example/".ljust(2_079, "a")
    escaped = "https://x.example/".ljust(2_000, "{")
    sheet = cells(pl.DataFrame({"value": [longest, f"{longest}a", escaped]}), tmp_path)
    assert [sheet[f"A{n}"].value for n in (2, 3, 4)] == [longest, f"{longest}a", escaped]
    assert [bool(sheet[f"A{n}"].hyperlink) for n in (2, 3, 4)] == [True, False, False]


def test_beyond_the_links_of_a_sheet_addresses_are_text(tmp_path: Path) -> None:
    count = xlsx.MAX_LINKS + 5
    write_workbook(pl.DataFrame({"value": [f"http://x/{n}" for n in range(count)]}), PLAIN, tmp_path / "m.xlsx")
    sheet = parts(tmp_path / "m.xlsx")["xl/worksheets/sheet1.xml"]
    assert sheet.count(b"<hyperlink ") == xlsx.MAX_LINKS
    assert f"http://x/{count - 1}<".encode() in sheet


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/work/out/a.png", "a.png"),
        ("/work/out/a", "a"),
        ("/work/out/images/A 1/100% #1 ü.png", "images/A%201/100%25%20%231%20%C3%BC.png"),
        ("/work/out/a:b/c.png", "a%3Ab/c.png"),
        ("/work/elsewhere/c.png", "../elsewhere/c.png"),
        ("/work/out/" + "é" * 400, None),
    ],
)
def test_a_file_is_linked_from_where_the_workbook_stands(path: str, target: str | None) -> None:
    link = file_link(path, Path("/work/out"))
    assert (None if link is None else link._target()) == target


def test_each_status_has_a_colour_that_can_be_read(tmp_path: Path) -> None:
    assert set(COLOURS) == set(STATUSES)
    sheet = cells(pl.DataFrame({"status": [*COLOURS, "new"]}), tmp_path)
    for number, (back, front) in enumerate(COLOURS.values(), start=2):
        cell = sheet[f"A{number}"]
        assert (cell.fill.fgColor.rgb, cell.font.color.rgb) == (f"FF{back[1:]}", f"FF{front[1:]}")
        light, dark = luminance(back), luminance(front)
        assert light > 0.7, "it is printed as a light grey"
        assert (light + 0.05) / (dark + 0.05) >= 5.5
    assert sheet[f"A{len(COLOURS) + 2}"].fill.fill_type is None


def luminance(colour: str) -> float:
    """Of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_header_filters_and_widths(tmp_path: Path) -> None:
    [file] = write_manifest(catalog(), ManifestLines(catalog(), [outcomes(tmp_path)], "wide"), [tmp_path / "m.xlsx"])
    sheet = opened(file)
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref == sheet.dimensions
    assert sheet.print_title_rows == "$1:$1"
    widths = [sheet.column_dimensions[cell.column_letter].width for cell in sheet[1]]
    assert all(8 <= width <= 49 for width in widths)
    assert len(set(widths)) > 3
    assert all(cell.font.bold for cell in sheet[1])
    folded = {
        sheet.cell(1, at).value
        for one in sheet.column_dimensions.values()
        if one.hidden and one.outlineLevel == 1
        for at in range(one.min, one.max + 1)
    }
    assert {"lamina_execution_id", "lamina_inputs_sha256"} <= folded
    assert not folded & {"sku", "lamina_key", "lamina_status", "lamina_message", "lamina_Front", "lamina_Front_file"}


def test_a_manifest_without_rows_or_outputs_is_a_workbook_too(tmp_path: Path) -> None:
    sheet = cells(pl.DataFrame({"a": [], "lamina_status": []}), tmp_path)
    assert [cell.value for cell in sheet[1]] == ["a", "lamina_status"]
    assert sheet.max_row == 1


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pl.DataFrame({"a": pl.repeat(1, 1_048_576, dtype=pl.Int8, eager=True)}), "1,048,577 rows"),
        (pl.DataFrame({f"c{n}": [1] for n in range(16_385)}), "16,385 columns"),
    ],
)
def test_more_than_a_sheet_holds_is_refused_with_what_to_do(frame: pl.DataFrame, said: str) -> None:
    with pytest.raises(StateError, match=said) as raised:
        refuse_too_large_table(Path("out/m.xlsx"), rows=frame.height, columns=frame.width)
    assert raised.value.where == "out/m.xlsx"
    assert ".csv or .parquet" in (raised.value.hint or "")
    refuse_too_large_table(Path("out/m.xlsx"), rows=frame.height - 1, columns=frame.width - 1)


def test_more_jobs_than_a_sheet_has_rows_are_told_before_a_run() -> None:
    refuse_too_many_rows([Path("m.csv")], 2_000_000)
    refuse_too_many_rows([Path("m.xlsx")], 1_048_575)
    with pytest.raises(StateError, match="1,048,577 rows"):
        refuse_too_many_rows([Path("m.csv"), Path("m.XLSX")], 1_048_576)


def test_the_other_forms_are_written_where_one_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "MAX_ROWS", 3)
    files = [tmp_path / "m.xlsx", tmp_path / "m.csv"]
    with pytest.raises(StateError, match="4 rows"):
        write_manifest(catalog(), ManifestLines(catalog(), [outcomes(tmp_path)], "wide"), files)
    assert [file.name for file in tmp_path.iterdir()] == ["m.csv"]


def test_it_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "m.xlsx"
    file.write_bytes(b"what was there")
    frame = pl.DataFrame({"value": ["x"]})

    def onto_a_folder(aside: Path) -> None:
        aside.unlink()
        aside.mkdir()
        try:
            write_workbook(frame, PLAIN, aside)
        finally:
            aside.rmdir()

    with pytest.raises(StateError, match="Is a directory"):
        write_whole(file, onto_a_folder)
    assert [(f.name, f.read_bytes()) for f in tmp_path.iterdir()] == [("m.xlsx", b"what was there")]
    write_whole(file, lambda aside: write_workbook(frame, PLAIN, aside))
    assert [f.name for f in tmp_path.iterdir()] == ["m.xlsx"]


# Read back for a lost ledger


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_a_lost_ledger_finds_in_it_what_it_finds_in_the_csv(tmp_path: Path, layout: Any) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a b #1.png").write_bytes(b"x")
    files = [tmp_path / "m.xlsx", tmp_path / "m.csv"]
    write_manifest(catalog(), ManifestLines(catalog(), [outcomes(tmp_path)], layout), files)
    kept = read_manifest(files[0])
    assert [one.job.key for one in kept] == ["0001", "=1+1"]
    assert kept == read_manifest(files[1])
    assert [count_bought_rows(file) for file in files] == [2, 2]


def test_a_workbook_that_is_no_manifest_is_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "m.xlsx"
    file.write_bytes(b"not a workbook")
    with pytest.raises(UsageError, match="cannot be read") as raised:
        read_manifest(file)
    assert raised.value.where == str(file)
    assert count_bought_rows(file) == 0
    other = openpyxl.Workbook()
    other.save(file)
    with pytest.raises(UsageError, match="no sheet 'results'"):
        read_manifest(file)
    write_workbook(pl.DataFrame({"sku": ["1"]}), PLAIN, file)
    with pytest.raises(UsageError, match="no column 'lamina_key'"):
        read_manifest(file)
    write_workbook(pl.DataFrame(), PLAIN, file)
    assert count_bought_rows(file) == 0


# In another program


def test_libreoffice_opens_it_and_keeps_text_and_links(tmp_path: Path) -> None:
    """Out and in again: what it understood is what it writes."""
    write_manifest(catalog(), ManifestLines(catalog(), [outcomes(tmp_path)], "wide"), [tmp_path / "m.xlsx"])
    frame = pl.DataFrame({"theirs": [*HOSTILE, "a_x0041_b", "a\r\nb"]})
    write_workbook(frame, PLAIN, tmp_path / "hostile.xlsx")
    again = saved_again([tmp_path / "m.xlsx", tmp_path / "hostile.xlsx"], tmp_path)
    before, after = opened(tmp_path / "m.xlsx"), opened(again / "m.xlsx")
    assert [[c.value for c in row] for row in after] == [[c.value for c in row] for row in before]
    links = {cell.value: cell.hyperlink.target for row in after for cell in row if cell.hyperlink}
    assert links["https://cdn.example/1.png?sig=a%2Fb&x=1"] == "https://cdn.example/1.png?sig=a%2Fb&x=1"
    # Saved into another folder: it knew which file was meant.
    assert links[str(tmp_path / "images" / "a b #1.png")].endswith("images/a%20b%20%231.png")
    assert len(links) == 2
    assert read_manifest(again / "m.xlsx") == read_manifest(tmp_path / "m.xlsx")
    assert after.auto_filter.ref == before.auto_filter.ref
    colours = [[cell.fill.fgColor.rgb for cell in row] for row in before]
    assert [[cell.fill.fgColor.rgb for cell in row] for row in after] == colours
    texts = [cell.value for [cell] in opened(again / "hostile.xlsx").iter_rows(min_row=2)]
    assert texts[: len(HOSTILE)] == list(HOSTILE)
