"""Which file an entry of `rows.from` names, and which sheet of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WORKBOOK_EXTENSIONS = (".xlsx", ".xlsm")

# No sheet has a slash in its name, so that a folder may well be named `old.xlsx#1`.
_SHEET = re.compile(r"(?P<file>.+?\.xls[xm])#(?P<sheet>[^/]*)", re.IGNORECASE | re.DOTALL)


def split_sheet(source: str, folder: Path) -> tuple[str, str | None]:
    """`catalog.xlsx#Summer 26` as file or pattern and sheet; the sheet is None if none is named.

    A file in `folder` that has the whole name is meant by itself.
    """
    match = _SHEET.fullmatch(source)
    if match is None or (folder / source).exists():
        return source, None
    return match["file"], match["sheet"]
