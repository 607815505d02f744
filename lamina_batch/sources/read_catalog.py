"""Files -> product rows: everything that `rows.from` names as one table, in the order of the files.

Cells of CSV and TSV files are text exactly as they stand, those of workbooks are made text; Parquet and NDJSON keep
their types.
"""

from __future__ import annotations

import collections
import functools
import glob
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import polars as pl

from lamina_batch.errors import CatalogError, did_you_mean
from lamina_batch.sources.delimited import read_delimited
from lamina_batch.sources.encoding import read_text
from lamina_batch.sources.table import OWN_PREFIX, Catalog, SourceFile, Table, collect, first_line
from lamina_batch.sources.text import is_blank
from lamina_batch.sources.workbook import read_workbook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina_batch.pipeline.spec import Pipeline, Rows


def read_catalog(pipeline: Pipeline) -> Catalog:
    """Read every file that `rows.from` names.

    Raises CatalogError, with file and line, where one cannot be read as the pipeline says or the files do not fit
    together.
    """
    files = _list_files(pipeline.rows)
    tables = [(file, _read(file, pipeline)) for file in files]
    several = len(pipeline.rows.sources) > 1 or any(_is_pattern(source) for source in pipeline.rows.sources)
    headers = _common_headers(tables)
    columns = _unique_names(headers)
    if not columns:
        raise CatalogError("the file has no columns", where=str(files[0]))
    folder = os.path.commonpath([file.path.parent for file in files])
    parts = tuple(_source_file(file, table, folder) for file, table in tables)
    frames = [
        table.frame.with_row_index("lamina_row", table.first_row).select(
            "lamina_row",
            *([pl.lit(part.source).alias("lamina_source")] if several else []),
            *columns,
        )
        for part, (_, table) in zip(parts, tables, strict=True)
    ]
    rows = _concatenate(frames, files)
    return Catalog(
        frame=_drop_blank_rows(rows, columns, pipeline.rows.key).with_row_index("lamina_index"),
        columns=columns,
        headers=headers,
        several=several,
        notes=tuple(note for _, table in tables for note in table.notes),
        parts=parts,
    )


def _source_file(file: _SourcePath, table: Table, folder: str) -> SourceFile:
    places = table.places or range(1, len(table.headers) + 1)
    return SourceFile(
        path=file.path,
        sheet=table.sheet,
        source=os.path.relpath(str(file), folder),
        header_row=table.first_row - 1,
        places=dict(zip(_unique_names(table.headers), places, strict=True)),
        ours=table.ours,
    )


# --- which files ---


class _SourcePath(NamedTuple):
    path: Path
    #: the sheet that the pipeline names; None in files that have none, and for the first
    sheet: str | None = None

    @property
    def name(self) -> str:
        return Path(str(self)).name

    def __str__(self) -> str:
        return str(self.path) if self.sheet is None else f"{self.path}#{self.sheet}"


def _list_files(rows: Rows) -> tuple[_SourcePath, ...]:
    """The files in the order of the list, those of a pattern by name; a file that stands twice is read once."""
    files: dict[_SourcePath, None] = {}
    for index, source in enumerate(rows.sources):
        sheet = rows.sheets.get(index)
        if not _is_pattern(source):
            files[_SourcePath(_require_file(Path(source)), sheet)] = None
            continue
        found = sorted(Path(name) for name in glob.glob(source, recursive=True))  # noqa: PTH207 - it may be absolute
        found = [file for file in found if file.is_file() and not file.name.startswith(_LOCK_FILE_PREFIX)]
        files |= dict.fromkeys(_SourcePath(file, sheet) for file in found)
        if not found:
            raise CatalogError(
                "no file matches this pattern", where=source, hint=_similar_file_hint(_pattern_root(source))
            )
    return tuple(files)


#: begins the file that Excel keeps beside a workbook while it is open
_LOCK_FILE_PREFIX = "~$"


def _is_pattern(source: str) -> bool:
    """Whether it stands for several files; a file of that very name is meant by itself."""
    return glob.has_magic(source) and not Path(source).exists()


def _pattern_root(pattern: str) -> Path:
    path = Path(pattern)
    while glob.has_magic(str(path.parent)):
        path = path.parent
    return path


def _require_file(file: Path) -> Path:
    if file.is_dir():
        raise CatalogError(
            "this is a folder", where=str(file), hint=f"name a file in it, or a pattern: {file / '*.csv'}"
        )
    if not file.exists():
        raise CatalogError("there is no such file", where=str(file), hint=_similar_file_hint(file))
    return file


def _similar_file_hint(file: Path) -> str:
    """What there is in its folder that may be meant."""
    try:
        names = sorted(entry.name for entry in file.parent.iterdir() if entry.suffix.lower() in _READERS)
    except OSError:
        return f"there is no folder {file.parent} either; `from` is relative to the pipeline file"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    there = f"the folder has {shown}" if names else f"the folder {file.parent} has no catalog file"
    to_fill = "; `lamina-batch sheet` makes one to fill" if file.suffix.lower() == ".xlsx" else ""
    return did_you_mean(file.name, names) or there + to_fill


# --- reading one file ---


def _read(file: _SourcePath, pipeline: Pipeline) -> Table:
    reader = _READERS[file.path.suffix.lower()]
    try:
        table = reader(file, pipeline)
    except OSError as error:
        raise CatalogError(f"the file cannot be read: {error.strerror or error}", where=str(file)) from error
    headers, frame = table.headers, table.frame
    names = _unique_names(headers)
    kept = [at for at, header in enumerate(headers) if not header.startswith(OWN_PREFIX)]
    found = frame.collect_schema().names()
    places = table.places or range(1, len(headers) + 1)
    return table._replace(
        headers=tuple(headers[at] for at in kept),
        frame=frame.select(pl.col(found[at]).alias(names[at]) for at in kept),
        places=tuple(places[at] for at in kept),
        ours={header: places[at] for at, header in enumerate(headers) if header.startswith(OWN_PREFIX)},
    )


def _read_delimited(file: _SourcePath, pipeline: Pipeline) -> Table:
    return read_delimited(file.path, encoding=pipeline.rows.encoding, separator=pipeline.rows.separator)


def _read_workbook(file: _SourcePath, pipeline: Pipeline) -> Table:
    return read_workbook(file.path, sheet=file.sheet, key=pipeline.rows.key)


def _read_parquet(source: _SourcePath, _pipeline: Pipeline) -> Table:
    # Held in memory as it is packed: the file may change during a run of hours, and every stage must see the same rows.
    try:
        frame = pl.scan_parquet(io.BytesIO(source.path.read_bytes()))
        headers = tuple(frame.collect_schema().names())
    except pl.exceptions.PolarsError as error:
        raise CatalogError(
            "this is not a Parquet file, or it is damaged",
            where=str(source),
            hint=f"polars says: {first_line(error)}",
        ) from error
    return Table(headers, frame, first_row=2)


def _read_ndjson(source: _SourcePath, _pipeline: Pipeline) -> Table:
    file = source.path
    text = read_text(file, "utf-8")
    if not text.strip():
        raise CatalogError("the file is empty", where=str(file), hint="each line must hold one JSON object")
    try:
        frame = pl.read_ndjson(text.encode(), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        _refuse_json_line(file, text)
        raise CatalogError(
            "the lines of this file do not fit one table",
            where=str(file),
            hint=f"polars says: {first_line(error)}",
        ) from error
    return Table(tuple(frame.columns), frame.lazy(), first_row=2)


#: each ending that load.py lets through
_READERS: dict[str, Callable[[_SourcePath, Pipeline], Table]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".parquet": _read_parquet,
    ".ndjson": _read_ndjson,
    ".jsonl": _read_ndjson,
    ".xlsx": _read_workbook,
    ".xlsm": _read_workbook,
}


def _refuse_json_line(file: Path, text: str) -> None:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line, parse_constant=functools.partial(_refuse_constant, file, number))
        except json.JSONDecodeError as error:
            raise CatalogError(
                f"this line is not JSON: {error.msg} at character {error.colno}",
                where=f"{file}:{number}",
                hint="each line must hold one JSON object, and nothing else",
            ) from error
        if not isinstance(found, dict):
            raise CatalogError(
                "this line is JSON, but not an object",
                where=f"{file}:{number}",
                hint='each line must hold one JSON object: {"sku": "A-1", ...}',
            )


def _refuse_constant(file: Path, line: int, constant: str) -> NoReturn:
    raise CatalogError(f"{constant} is not JSON", where=f"{file}:{line}", hint="write null instead")


# --- fitting the files together ---


def _unique_names(headers: Sequence[str]) -> tuple[str, ...]:
    """A name for each header: itself where that is clear, otherwise one that names its place."""
    counts = collections.Counter(headers)
    names: list[str] = []
    for number, header in enumerate(headers, start=1):
        name = header if header and counts[header] == 1 else f"{header or 'unnamed'} (column {number})"
        while name != header and (name in counts or name in names):
            name += "'"
        names.append(name)
    return tuple(names)


def _common_headers(tables: Sequence[tuple[_SourcePath, Table]]) -> tuple[str, ...]:
    """The headers of the first file, which every other must have too, in whatever order."""
    (first, one), *others = tables
    headers = one.headers
    expected = _unique_names(headers)
    for file, table in others:
        found = _unique_names(table.headers)
        lacking = [name for name in expected if name not in found]
        extra = [name for name in found if name not in expected]
        if lacking or extra:
            words = [f"lacks {_quoted_list(lacking)}"] * bool(lacking) + [f"has {_quoted_list(extra)} more"] * bool(
                extra
            )
            raise CatalogError(
                f"the columns differ from those of {first.name}: this file {' and '.join(words)}",
                where=str(file),
                hint="the files of one catalog must have the same columns; run others from a pipeline of their own",
            )
    return headers


def _concatenate(frames: Sequence[pl.LazyFrame], files: Sequence[_SourcePath]) -> pl.LazyFrame:
    schemas = [frame.collect_schema() for frame in frames]
    for schema, file in zip(schemas, files, strict=True):
        for name, kind in schema.items():
            expected = schemas[0][name]
            known = pl.Null not in (kind, expected)
            if known and kind != expected and not (kind.is_numeric() and expected.is_numeric()):
                raise CatalogError(
                    f"the column {name!r} holds {kind}, and in {files[0].name} it holds {expected}",
                    where=str(file),
                    hint="the files of one catalog must have the same types",
                )
    return pl.concat(frames, how="vertical_relaxed") if len(frames) > 1 else frames[0]


def _drop_blank_rows(rows: pl.LazyFrame, columns: Sequence[str], key: Sequence[str]) -> pl.LazyFrame:
    """The rows in which some cell is filled."""
    schema = rows.collect_schema()

    def blank(names: Sequence[str]) -> pl.Expr:
        return pl.all_horizontal([is_blank(pl.col(name), schema[name]) for name in names])

    # A row without a blank key is not wholly blank, and so the other columns need not be read for it.
    named = [name for name in key if name in columns] or columns[:1]
    if not collect(rows.select(blank(named).any())).item():
        return rows
    return rows.filter(~blank(columns))


def _quoted_list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
