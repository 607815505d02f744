"""The pictures of docs/merchandisers.md, taken of the real thing: `make screenshots`.

The steps are those of the loop's test. Workbooks are drawn by LibreOffice, with row numbers and column letters; pages
by the browser of the tests. The sandbox draws what the app would make; a jacket stands for every picture that is sent.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
from browser_support import chromium, opened
from merchandiser import PIPELINE, fill, judge, mend
from openpyxl.styles import Alignment
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.dimensions import ColumnDimension
from openpyxl.worksheet.properties import PageSetupProperties
from PIL import Image, ImageChops, ImageDraw
from process import Cli, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Browser

#: pixels
_WIDEST = 1400


def main(folder: Path) -> None:
    """Write all pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:
        here = Path(aside)
        for name, picture in _pictures(here):
            file = folder / f"{name}.png"
            # So few colours are enough for sheets and pages, and make the files small.
            _narrow(picture).convert("RGB").quantize(128).save(file, optimize=True)
            print(f"{file}: {file.stat().st_size // 1024} kB")


def _pictures(here: Path) -> Iterator[tuple[str, Image.Image]]:
    cli = Cli(folder=here, env=environment())
    (here / "autumn.yaml").write_text(PIPELINE, encoding="utf-8")
    cli("sheet", "autumn.yaml", "-o", "autumn.xlsx", "--sandbox")
    fill(here / "autumn.xlsx")
    yield "sheet", _sheet(here / "autumn.xlsx", "Products", rows=9, widths=_PRODUCTS)
    yield "explained", _sheet(here / "autumn.xlsx", "How to fill in", rows=17)
    cli("validate", "autumn.yaml", "--sandbox", "--findings", "marked.xlsx", code=3)
    yield "marked", _sheet(here / "marked.xlsx", "Products", rows=9, widths=_PRODUCTS)
    mend(here / "marked.xlsx")
    shutil.move(here / "marked.xlsx", here / "autumn.xlsx")
    cli("run", "autumn.yaml", "--sandbox")
    yield "results", _sheet(here / "autumn-results.sandbox.xlsx", "results", rows=7, widths=_RESULTS, rest=0)
    with chromium() as browser:
        yield from _pages(browser, here / "autumn.sandbox.html")


#: by heading, how wide a column is in the picture
_PRODUCTS = {"Front picture": 42, "Back picture": 14, "Title": 20, "Colour": 12, "lamina_findings": 64}
_RESULTS = {
    "Style number": 14,
    "Title": 22,
    "Colour": 12,
    "lamina_status": 15,
    "lamina_Front View": 32,
    "lamina_Side View": 32,
}


def _pages(browser: Browser, report: Path) -> Iterator[tuple[str, Image.Image]]:
    with opened(browser, report, size=(1280, 860), web=_jacket()) as watched:
        page = watched.page
        page.locator(".outputs img.there").first.wait_for()
        page.wait_for_load_state("networkidle")
        yield "report", _image(page.screenshot())
        judge(page, "04711", "p")
        judge(page, "04713", "r", "too dark: we sell this in daylight")
        card = page.locator(".card").filter(has_text="04713")
        card.scroll_into_view_if_needed()
        box = card.bounding_box()
        if box is None:
            raise AssertionError
        yield "rejected", _image(page.screenshot(clip={**box, "x": 0, "width": 1280}))
        with page.expect_download():
            page.get_by_role("button", name="Save verdicts").click()
        page.locator("#saved-command").wait_for()
        yield "saved", _image(page.screenshot()).crop((300, 200, 980, 660))
    with opened(browser, report, size=(390, 780), web=_jacket()) as watched:
        watched.page.locator(".outputs img.there").first.wait_for()
        watched.page.locator(".card").first.evaluate("card => card.scrollIntoView()")
        watched.page.wait_for_load_state("networkidle")
        yield "phone", _image(watched.page.screenshot())


def _sheet(
    file: Path, name: str, *, rows: int, widths: Mapping[str, float] | None = None, rest: float | None = None
) -> Image.Image:
    """The first rows of a sheet as LibreOffice prints them, on one page.

    `widths` are by heading; `rest` is the width of all other columns, as they are unless given, and 0 leaves them out.
    """
    book = openpyxl.load_workbook(file)
    sheet: Any = book[name]
    for other in book.sheetnames:
        if other != name:
            book[other].sheet_state = "hidden"
    book.active = book.index(sheet)
    if widths is not None:
        _set_widths(sheet, widths, rest)
    sheet.print_area = f"A1:{get_column_letter(sheet.max_column)}{rows}"
    sheet.page_setup.orientation = "landscape"
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    sheet.page_setup.fitToWidth = sheet.page_setup.fitToHeight = 1
    sheet.print_options.gridLines = sheet.print_options.headings = True
    sheet.oddHeader.center.text = sheet.oddFooter.center.text = ""
    copy = file.with_name("copy.xlsx")
    book.save(copy)
    profile = f"-env:UserInstallation={(file.parent / 'profile').as_uri()}"
    convert = ["soffice", profile, "--headless", "--convert-to", "pdf", "--outdir", str(file.parent), str(copy)]
    subprocess.run(convert, check=True, capture_output=True)
    pdf = copy.with_suffix(".pdf")
    subprocess.run(["pdftoppm", "-r", "150", "-png", "-singlefile", pdf, pdf.with_suffix("")], check=True)
    return _trimmed(Image.open(pdf.with_suffix(".png")).convert("RGB"))


def _set_widths(sheet: Any, widths: Mapping[str, float], rest: float | None) -> None:
    # Several columns may have one entry: each gets its own.
    were = {at: one.width for one in sheet.column_dimensions.values() for at in range(one.min, one.max + 1)}
    for cell in sheet[1]:
        width = widths.get(str(cell.value).removesuffix(" *"), rest)
        width = were.get(cell.column, 10) if width is None else width
        letter = cell.column_letter
        sheet.column_dimensions[letter] = ColumnDimension(sheet, index=letter, width=width or 1, hidden=not width)
    for row in sheet.iter_rows(min_row=2):
        # As a person would drag the reasons into sight.
        if len(str(row[-1].value or "")) > 1.3 * widths.get("lamina_findings", 0):
            sheet.row_dimensions[row[0].row].height = 30
            row[-1].alignment = Alignment(wrap_text=True)


def _trimmed(picture: Image.Image) -> Image.Image:
    """Without the white around it."""
    box = ImageChops.difference(picture, Image.new("RGB", picture.size, "white")).getbbox()
    return picture.crop(box) if box else picture


def _narrow(picture: Image.Image) -> Image.Image:
    if picture.width <= _WIDEST:
        return picture
    return picture.resize((_WIDEST, round(picture.height * _WIDEST / picture.width)), Image.Resampling.LANCZOS)


def _image(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def _jacket() -> bytes:
    """What stands for a picture of the catalog."""
    picture = Image.new("RGB", (600, 800), "#eceae6")
    draw = ImageDraw.Draw(picture)
    half = [(390, 170), (520, 300), (470, 380), (410, 330), (420, 650)]
    draw.polygon([*half, *((600 - x, y) for x, y in reversed(half))], fill="#8a8f98")
    draw.polygon([(255, 170), (345, 170), (300, 250)], fill="#eceae6")
    draw.line([(300, 250), (300, 650)], fill="#6c717a", width=5)
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
