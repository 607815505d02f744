"""Append-only JSONL files that survive a kill -9."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class Journal:
    """One append-only file, an object a line.

    A line has reached the operating system when `append` returns: it outlives the process, though not a power cut.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._torn = _ends_incomplete(path)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line. Raises OSError if it did not get out whole."""
        # Escaped ASCII: a text with half a surrogate pair is legal JSON, and no legal UTF-8.
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        self._torn = True
        if self._file.write(line) != len(line):
            raise OSError(f"{self._file.name}: only a part of a line could be written")
        self._torn = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of the file, none where there is no file.

    A torn line is left out: its writer died before it could tell anyone that it was written.
    """
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry


def _ends_incomplete(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"
