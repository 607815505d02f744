"""Writes result files: each file is whole or unchanged, and a file that is open elsewhere is not replaced."""

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


def write_whole(file: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file in the same folder, then replace `file` with it. Returns the path written.

    If `file` cannot be replaced (a spreadsheet program has it open), the result gets another name: `x (2).csv`.
    Raises StateError if that cannot be written either.
    """
    with _temporary_file(file) as temporary:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        try:
            return temporary.replace(file)
        except PermissionError:
            return temporary.replace(_unused_name(file))


def write_text(file: Path, text: str) -> Path:
    """As write_whole, with this text."""
    return write_whole(file, lambda temporary: temporary.write_bytes(text.encode()))


def ensure_writable(file: Path) -> None:
    """Raise StateError if `file` cannot be written. A run calls it before it spends money."""
    with _temporary_file(file):
        if file.is_dir():
            raise IsADirectoryError(21, "it is a folder")


@contextmanager
def _temporary_file(file: Path) -> Iterator[Path]:
    temporary: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=file.suffix)
        os.fchmod(descriptor, 0o666 & ~_umask())
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
    except (OSError, pl.exceptions.PolarsError) as error:
        # polars raises its own errors for those of the disk.
        why = error.strerror if isinstance(error, OSError) else None
        raise StateError(
            f"cannot be written: {why or error}",
            where=str(file),
            hint="check that the folder can be written and that the disk has space",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unused_name(file: Path) -> Path:
    number = 2
    while (unused := file.with_name(f"{file.stem} ({number}){file.suffix}")).exists():
        number += 1
    return unused
