"""The file and the sheet that an entry of `rows.from` names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

WORKBOOK_EXTENSIONS = (".xlsx", ".xlsm")

# A sheet name has no slash, so a folder can have the name `old.xlsx#1`.
_SHEET = re.compile(r"(?P<file>.+?\.xls[xm])#(?P<sheet>[^/]*)", re.IGNORECASE | re.DOTALL)


def split_sheet(source: str, folder: Path) -> tuple[str, str | None]:
    """The file or pattern, and the sheet, of `catalog.xlsx#Summer 26`. The sheet is None without a `#`.

    If `folder` has a file with the whole name, that file is meant.
    """
    match = _SHEET.fullmatch(source)
    if match is None or (folder / source).exists():
        return source, None
    return match["file"], match["sheet"]
