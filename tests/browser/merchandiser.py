"""The merchandiser's loop, step by step: the test of it and the pictures of the docs share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openpyxl

from lamina_batch.sheets.summary import ERROR, WARNING

if TYPE_CHECKING:
    from pathlib import Path

    from openpyxl.styles.proxy import StyleProxy
    from playwright.sync_api import Page

PIPELINE = """\
version: 1
name: autumn
app: bbb17293-5fe7-4645-8c6e-0745bc28254d

rows:
  from: autumn.xlsx
  key: Style number

inputs:
  Front: {column: Front picture}
  Back: {column: Back picture, blank: app_default}
  Model Gender: {column: Model gender}
  Prompt: {template: "{Title} in {Colour}, soft studio light"}

results:
  manifest: autumn-results.xlsx
  report: autumn.html
  download: "pictures/{key}/{label}.{ext}"
"""

_PICTURE = "https://images.example.com/autumn/{}.jpg"
#: by style number: picture, model, title, colour
PRODUCTS = {
    "04711": (_PICTURE.format("04711"), "Female", "Linen Shirt “Riva”", "Off White"),
    "04712": (_PICTURE.format("04712"), "Female", "Wrap Dress “Alba”", "Terracotta"),
    "04713": (_PICTURE.format("04713"), "Male", "Overshirt “Porto”", "Moss"),
    "04714": (_PICTURE.format("04714"), "Female", "Cardigan “Nora”", "Oat"),
    "04715": (_PICTURE.format("04715"), "Male", "Chinos “Milo”", "Navy"),
    "04716": (_PICTURE.format("04716"), "Female", "Pleated Skirt “Ines”", "Black"),
}
#: what a person gets wrong: a cell forgotten, an address cut short, a word that is not on the list
MISTAKES = {
    ("04712", "Front picture"): None,
    ("04714", "Front picture"): _PICTURE.format("04714").removeprefix("https://"),
    ("04715", "Model gender"): "Men",
}


def fill(file: Path) -> None:
    """Fill the sheet that `sheet` made, with the mistakes."""
    book = openpyxl.load_workbook(file)
    sheet = book["Products"]
    columns = _columns(sheet)
    for row, (style, (picture, model, title, colour)) in enumerate(PRODUCTS.items(), start=2):
        cells = {"Style number": style, "Front picture": picture, "Model gender": model, "Title": title}
        for name, value in {**cells, "Colour": colour}.items():
            sheet.cell(row, columns[name], MISTAKES.get((style, name), value))
    book.save(file)


def mend(file: Path) -> None:
    """Correct, in the workbook that came back marked, what was marked."""
    book = openpyxl.load_workbook(file)
    sheet = book["Products"]
    columns = _columns(sheet)
    rows = {str(cell.value): cell.row for cell in sheet["A"]}
    for style, name in MISTAKES:
        right = PRODUCTS[style][0 if name == "Front picture" else 1]
        sheet.cell(rows[style], columns[name]).value = right
    book.save(file)


def marked(file: Path) -> dict[str, str]:
    """The cells of the table that are coloured as an error or a warning, by their name, with what stands there."""
    sheet = openpyxl.load_workbook(file)["Products"]
    return {
        cell.coordinate: str(cell.value or "")
        for row in sheet.iter_rows()
        for cell in row
        if _colour(cell.fill) in {ERROR, WARNING}
    }


def judge(page: Page, style: str, key: str, note: str = "") -> None:
    """Press `p` or `r` on the card of this product, and write a note."""
    card = page.locator(".card").filter(has_text=style)
    card.evaluate("card => card.focus()")
    page.keyboard.press(key)
    if note:
        page.keyboard.press("n")
        page.keyboard.type(note)
        page.keyboard.press("Escape")


def _columns(sheet: Any) -> dict[str, int]:
    return {str(cell.value).removesuffix(" *"): cell.column for cell in sheet[1]}


def _colour(fill: StyleProxy) -> str | None:
    return str(fill.fgColor.rgb) if fill.fill_type == "solid" else None
