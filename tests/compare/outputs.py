"""The outputs of a command as lines that must be equal for two builds.

Values that differ between any two runs (ids, instants, durations, ports) are replaced. So are the words of messages,
unless `words` is set.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import openpyxl
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MEASURED = {
    *("lamina_submitted_at", "lamina_completed_at", "lamina_seconds", "lamina_sha256"),
    *("run_id", "seconds", "least_seconds", "total", "poll", "per_ended", "bytes"),
}
_WORDS = re.compile(r"message|hint|error|lamina_message|lamina_findings|lamina_(.* )?error|lamina_.*_error")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RANDOM = (
    (re.compile(r"http://127\.0\.0\.1:\d+"), "http://sandbox"),
    (re.compile(r"expires=\d+(&|&amp;|\\u0026)sig=[0-9a-f]+"), "signature"),
    (re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}"), "<run id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z"), "<instant>"),
)
_FIELD = re.compile(r'("(?:[^"]|"")*"|[^,\r\n]*)(,|\r?\n|$)')
#: Lines of `plan --explain` and `status`: a count and its state, or a row and its action. The reasons are words.
_COUNT = re.compile(r" +\d+  \w+")
_ROW = re.compile(r"(row \d+  .*?): (\w+)")
#: Numbers in messages that depend on time.
_TIMED = re.compile(r"\d+(\.\d+)?(?= ?(s|ms|min|requests|for each)\b)|(?<=requests, )[\d.]+")


class Reader:
    """Reads the outputs of one catalog. `known_ids` are the ids in its own files: they are not replaced."""

    def __init__(self, *, known_ids: frozenset[str], words: bool) -> None:
        self._known_ids = known_ids
        self._words = words

    def file(self, file: Path) -> str:
        """The text to compare; empty if only the existence of the file is compared."""
        try:
            return self._file(file)
        except Exception as error:  # noqa: BLE001 -- a build may write anything; this is compared too
            return f"cannot be read: {error!r}"

    def _file(self, file: Path) -> str:
        match file.suffix:
            case ".csv":
                return self._scrub(self._csv(file.read_bytes().decode()))
            case ".ndjson":
                return self._scrub(self._ndjson(file.read_text(encoding="utf-8").splitlines()))
            case ".json":
                return self._scrub(self._json(file.read_text(encoding="utf-8")))
            case ".parquet":
                frame = pl.read_parquet(file)
                lines = [f"{name}: {dtype}\n" for name, dtype in frame.schema.items()]
                return self._scrub("".join(lines) + self._rows(frame.iter_rows(named=True)))
            case ".xlsx":
                return self._scrub("".join(self._workbook(file)))
            case ".html" if self._words:
                return self._scrub(file.read_text(encoding="utf-8"))
        return ""

    def sent(self, file: Path) -> str:
        """App and inputs of each execution that the sandbox accepted, sorted."""
        executions = (
            [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
        )
        return "\n".join(sorted(json.dumps([one["app_id"], one["inputs"]], sort_keys=True) for one in executions))

    def stdout(self, text: str) -> str:
        """The summary of `--json`, or counts, rows and paths; with `words` everything."""
        if text.startswith("{"):
            return self._scrub(self._json(text))
        if self._words:
            return self._scrub(_TIMED.sub("<n>", text))
        found = (_COUNT.match(line) or _ROW.match(line) or re.match(r"/\S+$", line) for line in text.splitlines())
        return self._scrub("\n".join(match[0] for match in found if match))

    def stderr(self, text: str) -> str:
        """The names and keys of events, and whether the command crashed; with `words` everything."""
        crashed = "crashed\n" if "Traceback" in text or "this is a bug" in text else ""
        lines = text.splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        # Only slow runs report progress.
        events = [event for event in events if event["event"] != "progress"]
        shown = {f"event {event['event']} {event['level']}: {', '.join(event)}" for event in events}
        if self._words:
            shown |= {str(event.get("message", "")) for event in events}
        message = [line for line in lines if not line.startswith("{")] if self._words else []
        return crashed + self._scrub(_TIMED.sub("<n>", "\n".join([*sorted(shown), *message])))

    def name(self, path: str) -> str:
        return self._scrub(path)

    def _csv(self, text: str) -> str:
        rows: list[list[str]] = [[]]
        for match in _FIELD.finditer(text):
            if match.start() == len(text):
                break
            rows[-1].append(match[1])
            if match[2] != ",":
                rows.append([f"end of line: {match[2]!r}"] if match[2] != "\n" else [])
        header = rows[0]
        named = (dict(zip(header, row, strict=False)) | {"more": row[len(header) :]} for row in rows[1:])
        # Quotation marks are part of the format, so fields are compared with theirs.
        return f"{header}\n" + self._rows(named, blanks=("", '""', []))

    def _ndjson(self, lines: Iterable[str]) -> str:
        return self._rows(json.loads(line, parse_float=str) for line in lines)

    def _json(self, text: str) -> str:
        return json.dumps(self._masked(json.loads(text, parse_float=str)), indent=1, ensure_ascii=False)

    def _rows(self, rows: Iterable[dict[str, Any]], *, blanks: Iterable[Any] = ()) -> str:
        """A line for each cell, so that a difference is short."""
        lines: list[str] = []
        for number, row in enumerate(rows, 1):
            for name, cell in row.items():
                shown = "<blank>" if cell in blanks else cell
                lines.append(f"{number} {name}: {self._cell(name, shown)!r}\n")
        return "".join(lines)

    def _workbook(self, file: Path) -> Iterator[str]:
        for sheet in openpyxl.load_workbook(file).worksheets:
            yield f"sheet {sheet.title} {sheet.sheet_state} {sheet.dimensions}\n"
            header = {cell.column: str(cell.value) for cell in sheet[1]}
            for number, row in enumerate(sheet.iter_rows(), 1):
                for cell in row:
                    name = header[cell.column] if number > 1 else ""
                    message = sheet.title == "lamina_findings" and isinstance(cell.value, str) and not self._words
                    value = "<words>" if message else self._cell(name, cell.value)
                    look = f"{cell.number_format} {cell.fill.fgColor.rgb}"
                    link = f" -> {cell.hyperlink.target}" if cell.hyperlink else ""
                    note = f" note {cell.comment.text if self._words else ''}" if cell.comment else ""
                    yield f"{sheet.title} {cell.coordinate} {name}: {value!r} {look}{link}{note}\n"

    def _masked(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._masked(item, key) for key, item in value.items()}
        if isinstance(value, list):
            return [self._masked(item, name) for item in value]
        return self._cell(name, value)

    def _cell(self, name: str, value: Any) -> Any:
        if value in (None, "", "<blank>"):
            return value
        if name in _MEASURED:
            return "<measured>"
        return "<words>" if not self._words and _WORDS.fullmatch(name) else value

    def _scrub(self, text: str) -> str:
        for pattern, instead in _RANDOM:
            text = pattern.sub(instead, text)
        numbers: dict[str, int] = {}

        def number(match: re.Match[str]) -> str:
            if match[0] in self._known_ids:
                return match[0]
            return f"<id {numbers.setdefault(match[0], len(numbers))}>"

        return _UUID.sub(number, text)


def ids_in(folder: Path) -> frozenset[str]:
    """The ids that stand in the pipelines and pins of a folder."""
    files = [file for ending in ("yaml", "json") for file in folder.rglob(f"*.{ending}")]
    return frozenset(found for file in files for found in _UUID.findall(file.read_text(encoding="utf-8")))
