"""Writing the files that people take away: whole or not at all, and never over one that is open elsewhere."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def write_whole(file: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a new file beside `file`, then put it in place at once. Returns where it stands now.

    Where `file` cannot be replaced (a spreadsheet program has it open), it stays under another name beside it.
    Raises StateError if not even that can be written.
    """
    with _beside(file) as aside:
        write(aside)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        try:
            aside.replace(file)
        except PermissionError:
            spare = _spare(file)
            aside.replace(spare)
            return spare
        return file


def write_text(file: Path, text: str) -> Path:
    """Write a text as `write_whole` writes."""

    def write(aside: Path) -> None:
        aside.write_text(text, encoding="utf-8", newline="\n")

    return write_whole(file, write)


def ensure_writable(file: Path) -> None:
    """Raise StateError if `file` could not be written: better said before money is spent than after."""
    with _beside(file):
        if file.is_dir():
            raise IsADirectoryError(21, "it is a folder")


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    aside: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=file.suffix)
        os.fchmod(descriptor, 0o666 & ~_umask())
        os.close(descriptor)
        aside = Path(name)
        yield aside
    except (OSError, pl.exceptions.PolarsError) as error:
        # polars wraps what the disk says in errors of its own.
        why = error.strerror if isinstance(error, OSError) else None
        raise StateError(
            f"cannot be written: {why or error}",
            where=str(file),
            hint="see that the folder may be written and the disk has room",
        ) from error
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _spare(file: Path) -> Path:
    number = 2
    while (spare := file.with_name(f"{file.stem} ({number}){file.suffix}")).exists():
        number += 1
    return spare
