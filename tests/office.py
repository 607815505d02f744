"""LibreOffice, as another program that opens our workbooks and saves them again."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def saved_again(files: list[Path], folder: Path) -> Path:
    """Open each workbook and save it, all in one start; answers the folder with the new ones.

    Skips the test where there is no LibreOffice, unless CI says that there must be.
    """
    if shutil.which("soffice") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("LibreOffice is not here: apt-get install libreoffice-calc")
        pytest.skip("LibreOffice is not here")
    again = folder / "saved-again"
    subprocess.run(
        [
            "soffice", f"-env:UserInstallation={(folder / 'profile').as_uri()}", "--headless",
            "--convert-to", "xlsx:Calc MS Excel 2007 XML", "--outdir", again, *files,
        ],
        check=True, capture_output=True, timeout=100,
    )  # fmt: skip
    return again
