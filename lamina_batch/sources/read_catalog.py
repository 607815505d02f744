"""Read all files that `rows.from` names as one table of product rows, in the order of the files.

Cells of CSV and TSV files are text, unchanged; cells of workbooks become text; Parquet and NDJSON keep their types.
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
from lamina_batch.sources.table import OWN_PREFIX, SOURCE_COLUMN, Catalog, SourceFile, Table, first_line
from lamina_batch.sources.text import is_blank
from lamina_batch.sources.workbook import read_workbook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina_batch.pipeline.spec import Pipeline, Rows


def read_catalog(pipeline: Pipeline) -> Catalog:
    """Read every file that `rows.from` names.

    Raises CatalogError, with the file and the line, if a file cannot be read as the pipeline says, or if the files do
    not have the same columns and types.
    """
    paths = _list_files(pipeline.rows)
    folder = os.path.commonpath([path.file.parent for path in paths])
    files, tables = zip(*(_read(path, pipeline, folder) for path in paths), strict=True)
    headers = _common_headers(paths, tables)
    columns = _unique_names(headers)
    if not columns:
        raise CatalogError("the file has no columns", where=str(paths[0]))
    has_source_column = len(pipeline.rows.sources) > 1 or any(map(_is_pattern, pipeline.rows.sources))
    frames = [
        table.frame.with_row_index("lamina_row", table.first_row).select(
            "lamina_row", *([pl.lit(file.source).alias(SOURCE_COLUMN)] if has_source_column else []), *columns
        )
        for file, table in zip(files, tables, strict=True)
    ]
    rows = _concatenate(paths, frames)
    return Catalog(
        frame=_drop_blank_rows(rows, columns, pipeline.rows.key).with_row_index("lamina_index"),
        columns=columns,
        headers=headers,
        has_source_column=has_source_column,
        notes=tuple(note for table in tables for note in table.notes),
        files=files,
    )


# --- which files ---


class _SourcePath(NamedTuple):
    file: Path
    #: the sheet that the pipeline names, if any
    sheet: str | None = None

    @property
    def name(self) -> str:
        """The name of the file, with the sheet."""
        return Path(str(self)).name

    def __str__(self) -> str:
        return str(self.file) if self.sheet is None else f"{self.file}#{self.sheet}"


def _list_files(rows: Rows) -> tuple[_SourcePath, ...]:
    """The files in the order of the list, those of a pattern sorted by name. A repeated file is read once."""
    files: dict[_SourcePath, None] = {}
    for index, source in enumerate(rows.sources):
        sheet = rows.sheets.get(index)
        if not _is_pattern(source):
            files[_SourcePath(_require_file(Path(source)), sheet)] = None
            continue
        paths = sorted(Path(name) for name in glob.glob(source, recursive=True))  # noqa: PTH207 - it may be absolute
        paths = [path for path in paths if path.is_file() and not path.name.startswith(_LOCK_FILE_PREFIX)]
        files |= dict.fromkeys(_SourcePath(path, sheet) for path in paths)
        if not paths:
            raise CatalogError(
                "no file matches this pattern", where=source, hint=_similar_file_hint(_pattern_root(source))
            )
    return tuple(files)


#: the prefix of the lock file that Excel writes beside an open workbook
_LOCK_FILE_PREFIX = "~$"


def _is_pattern(source: str) -> bool:
    """Whether the source is a glob pattern, and not the name of a file."""
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
    """A hint with the catalog files in the same folder."""
    try:
        names = sorted(entry.name for entry in file.parent.iterdir() if entry.suffix.lower() in READERS)
    except OSError:
        return f"there is no folder {file.parent} either; `from` is relative to the pipeline file"
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    contents = f"the folder has {listed}" if names else f"the folder {file.parent} has no catalog file"
    to_fill = "; `lamina-batch sheet` makes one to fill" if file.suffix.lower() == ".xlsx" else ""
    return did_you_mean(file.name, names) or contents + to_fill


# --- reading one file ---


def _read(path: _SourcePath, pipeline: Pipeline, folder: str) -> tuple[SourceFile, Table]:
    """Read one file; the columns of its table have unique names, and our own columns are left out."""
    reader = READERS[path.file.suffix.lower()]
    try:
        table = reader(path, pipeline)
    except OSError as error:
        raise CatalogError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error
    numbers = table.column_numbers or range(1, len(table.headers) + 1)
    kept = [at for at, header in enumerate(table.headers) if not header.startswith(OWN_PREFIX)]
    headers = tuple(table.headers[at] for at in kept)
    names = dict(zip(_unique_names(headers), kept, strict=True))
    source_file = SourceFile(
        path=path.file,
        sheet=table.sheet,
        source=os.path.relpath(str(path), folder),
        header_row=table.first_row - 1,
        column_numbers={name: numbers[at] for name, at in names.items()},
        own_columns={header: numbers[at] for at, header in enumerate(table.headers) if at not in kept},
    )
    columns = table.frame.collect_schema().names()
    frame = table.frame.select(pl.col(columns[at]).alias(name) for name, at in names.items())
    return source_file, table._replace(headers=headers, frame=frame)


def _read_delimited(path: _SourcePath, pipeline: Pipeline) -> Table:
    return read_delimited(path.file, encoding=pipeline.rows.encoding, separator=pipeline.rows.separator)


def _read_workbook(path: _SourcePath, pipeline: Pipeline) -> Table:
    return read_workbook(path.file, sheet=path.sheet, key=pipeline.rows.key)


def _read_parquet(path: _SourcePath, _pipeline: Pipeline) -> Table:
    # The file may change during a run, and every stage must see the same rows: its bytes are kept in memory.
    try:
        frame = pl.scan_parquet(io.BytesIO(path.file.read_bytes()))
        headers = tuple(frame.collect_schema().names())
    except pl.exceptions.PolarsError as error:
        raise CatalogError(
            "this is not a Parquet file, or it is damaged",
            where=str(path),
            hint=f"polars says: {first_line(error)}",
        ) from error
    return Table(headers, frame, first_row=2)


def _read_ndjson(path: _SourcePath, _pipeline: Pipeline) -> Table:
    file = path.file
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


#: reader for each file extension that the pipeline loader accepts
READERS: dict[str, Callable[[_SourcePath, Pipeline], Table]] = {
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
            value = json.loads(line, parse_constant=functools.partial(_refuse_constant, file, number))
        except json.JSONDecodeError as error:
            raise CatalogError(
                f"this line is not JSON: {error.msg} at character {error.colno}",
                where=f"{file}:{number}",
                hint="each line must hold one JSON object, and nothing else",
            ) from error
        if not isinstance(value, dict):
            raise CatalogError(
                "this line is JSON, but not an object",
                where=f"{file}:{number}",
                hint='each line must hold one JSON object: {"sku": "A-1", ...}',
            )


def _refuse_constant(file: Path, line: int, constant: str) -> NoReturn:
    raise CatalogError(f"{constant} is not JSON", where=f"{file}:{line}", hint="write null instead")


# --- fitting the files together ---


def _unique_names(headers: Sequence[str]) -> tuple[str, ...]:
    """The headers as unique names. A header that is empty or repeated is named by its column."""
    counts = collections.Counter(headers)
    names: list[str] = []
    for number, header in enumerate(headers, start=1):
        name = header if header and counts[header] == 1 else f"{header or 'unnamed'} (column {number})"
        while name != header and (name in counts or name in names):
            name += "'"
        names.append(name)
    return tuple(names)


def _common_headers(paths: Sequence[_SourcePath], tables: Sequence[Table]) -> tuple[str, ...]:
    """The headers of the first file. All other files must have the same ones, in any order."""
    headers = tables[0].headers
    expected = _unique_names(headers)
    for path, table in zip(paths, tables, strict=True):
        names = _unique_names(table.headers)
        missing = ", ".join(repr(name) for name in expected if name not in names)
        extra = ", ".join(repr(name) for name in names if name not in expected)
        if missing or extra:
            differences = ([f"lacks {missing}"] if missing else []) + ([f"has {extra} more"] if extra else [])
            raise CatalogError(
                f"the columns differ from those of {paths[0].name}: this file {' and '.join(differences)}",
                where=str(path),
                hint="the files of one catalog must have the same columns; run others from a pipeline of their own",
            )
    return headers


def _concatenate(paths: Sequence[_SourcePath], frames: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    schemas = [frame.collect_schema() for frame in frames]
    for schema, path in zip(schemas, paths, strict=True):
        for name, kind in schema.items():
            expected = schemas[0][name]
            same = kind == expected or pl.Null in (kind, expected) or (kind.is_numeric() and expected.is_numeric())
            if not same:
                raise CatalogError(
                    f"the column {name!r} holds {kind}, and in {paths[0].name} it holds {expected}",
                    where=str(path),
                    hint="the files of one catalog must have the same types",
                )
    return pl.concat(frames, how="vertical_relaxed") if len(frames) > 1 else frames[0]


def _drop_blank_rows(rows: pl.LazyFrame, columns: Sequence[str], key: Sequence[str]) -> pl.LazyFrame:
    """The rows with at least one filled cell."""
    schema = rows.collect_schema()

    def blank(names: Sequence[str]) -> pl.Expr:
        return pl.all_horizontal([is_blank(pl.col(name), schema[name]) for name in names])

    # A row with a key is not blank. If all rows have one, no other column needs to be read.
    named = [name for name in key if name in columns] or columns[:1]
    if not Catalog.collect(rows.select(blank(named).any())).item():
        return rows
    return rows.filter(~blank(columns))
