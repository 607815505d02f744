"""A first pipeline for an app. What is certain is filled in; the rest stops a run until a person fills it in.

The file that comes out is for people, so it is text from the start. Whatever is not decided is FILL_IN in a place where
that is an error, with its line, until it is decided; an input that may stay away is a comment. No row is made with the
app's stock picture because nobody looked.
"""

from __future__ import annotations

import json
import os.path
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lamina_batch.atomic_files import write_text
from lamina_batch.authoring.app_schema import app_schema
from lamina_batch.authoring.matching import KEYS, ColumnMatch, explain_missing_key, guess_key, match_columns
from lamina_batch.drift.pins import SANDBOX_SOURCE, pin_file, read_pin, save_pin
from lamina_batch.errors import CatalogError, UsageError
from lamina_batch.pipeline.schema_problems import FILL_IN
from lamina_batch.pipeline.sheet_reference import WORKBOOK_EXTENSIONS, split_sheet
from lamina_batch.pipeline.spec import Api, Pipeline, Results, Rows, RunSettings
from lamina_batch.pipeline.typed_values import parse_scalar
from lamina_batch.sources.read_catalog import read_catalog
from lamina_batch.sources.table import normalise_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamina_batch.apps.app import App, Parameter
    from lamina_batch.drift.pins import Pin
    from lamina_batch.sources.table import Catalog

#: the marks with which UTF-16 begins
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What is known of a pipeline before its file is written."""

    #: the file to write, absolute
    file: Path
    name: str
    app: App
    taken_from: str
    #: the rows as the pipeline file names them, `catalog.xlsx#Sheet` too
    rows: str
    #: None: utf-8
    encoding: str | None = None
    #: the catalog that `rows` names; None: it is a sheet that is still to be filled
    catalog: Catalog | None = None
    #: the column that names a row; None: it is not plain which
    key: str | None = "sku"
    #: what keeps the column from being it that is called like one
    no_key: str | None = None
    #: by parameter the column of the catalog that plainly is its own
    matches: Mapping[str, ColumnMatch] = field(default_factory=dict)

    @property
    def pin(self) -> Path:
        """As the pipeline file names it."""
        return pin_file(self.app.app_id)

    @property
    def open(self) -> tuple[str, ...]:
        """What is marked FILL_IN, as keys of the pipeline file."""
        if self.catalog is None:
            return ()
        found = self.matches
        inputs = [
            f"inputs.{p.name}"
            for p in self.app.parameters
            if (FILL_IN in found[p.name].map.values() if p.name in found else _must_decide(p))
        ]
        return (*(["rows.key"] if self.key is None else []), *inputs)

    @property
    def schema(self) -> Path:
        """The schema for editors, as the pipeline file names it."""
        return self.pin.with_suffix(".schema.json")


def default_name(app: App, rows: str | None) -> str:
    """The default name of the file: after the rows, or else after the app."""
    text = Path(split_sheet(rows, Path.cwd())[0]).stem if rows is not None else app.name
    return re.sub(r"[^\w.-]+", "-", text.lower()).strip(".-")[:60] or "pipeline"


def draft(pin: Pin, file: Path, *, name: str | None, rows: str | None) -> Draft:
    """Read the rows, if there are any, and decide how they are named. Raises CatalogError if they cannot be read."""
    empty = Draft(file=file, name=name or file.stem, app=pin.app, taken_from=pin.taken_from, rows=f"{file.stem}.xlsx")
    if rows is None:
        return empty
    path, sheet = split_sheet(rows, Path.cwd())
    catalog, encoding = _read_rows(Path(path).absolute(), sheet, pin.app.app_id)
    named = os.path.relpath(Path(path).absolute(), file.parent) + ("" if sheet is None else f"#{sheet}")
    key = guess_key(catalog)
    return replace(
        empty,
        rows=named,
        encoding=encoding,
        catalog=catalog,
        key=key,
        no_key=explain_missing_key(catalog) if key is None else None,
        matches=match_columns(pin.app, catalog),
    )


def refuse_existing_files(draft: Draft, pin: Pin) -> None:
    """Raise UsageError if a file that is there already would be lost, or mean something else from now on."""
    wanted = [draft.file, *([draft.file.parent / draft.rows] if draft.catalog is None else [])]
    for file in wanted:
        if file.exists():
            raise UsageError("there is such a file already", where=str(file), hint="name another one with -o")
    file = draft.file.parent / draft.pin
    if not file.exists():
        return
    before = read_pin(file)
    if before.taken_from != SANDBOX_SOURCE == pin.taken_from:
        raise UsageError(
            f"there is a pin of the real app, taken from {before.taken_from}",
            where=str(file),
            hint="leave out --sandbox, or work in another folder",
        )
    if before.sha256 != pin.sha256 and before.taken_from != SANDBOX_SOURCE:
        raise UsageError(
            f"there is a pin of {before.taken_at}, and the app has changed since",
            where=str(file),
            hint=f"other pipelines may rely on it: take it again first, with `lamina-batch apps pin {pin.app.app_id}`",
        )


def write_files(draft: Draft, pin: Pin) -> tuple[Path, ...]:
    """Write the pin, the schema for editors and the pipeline file, each whole or not at all. Returns where they stand.

    Raises StateError if one cannot be written.
    """
    folder = draft.file.parent
    save_pin(pin, folder / draft.pin)
    texts = {
        folder / draft.schema: json.dumps(app_schema(draft.app), ensure_ascii=False, indent=2) + "\n",
        draft.file: pipeline_text(draft),
    }
    for file, text in texts.items():
        write_text(file, text)
    return (draft.file, folder / draft.pin, folder / draft.schema)


def pipeline_text(draft: Draft) -> str:
    """The pipeline file."""
    lines = [*_head(draft), *_rows(draft), *_inputs(draft), *_schema_run_results(draft)]
    # What the service says stands in comments, and must neither end one nor be what YAML does not allow.
    return "".join("".join(c for c in line if c.isprintable()) + "\n" for line in lines)


def _read_rows(file: Path, sheet: str | None, app_id: str) -> tuple[Catalog, str | None]:
    """The rows, and the encoding that had to be guessed."""

    def read(encoding: str, *key: str) -> Catalog:
        rows = Rows(sources=(str(file),), sheets={} if sheet is None else {0: sheet}, key=key, encoding=encoding)
        run, results = RunSettings(), Results(manifest=())
        pipeline = Pipeline(
            file=file,
            name="",
            app=app_id,
            rows=rows,
            inputs=(),
            matrix={},
            api=Api(),
            run=run,
            results=results,
            state=file.parent,
        )
        return read_catalog(pipeline)

    try:
        catalog = read("utf-8")
    except CatalogError:
        if file.suffix.lower() not in {".csv", ".tsv"} or not file.is_file():
            raise
        with file.open("rb") as opened:
            other = "utf-16" if opened.read(2) in _UTF_16 else "cp1252"
        try:
            return read(other), other
        except CatalogError:
            pass
        raise
    named = sum(bool(header.strip()) for header in catalog.headers)
    if file.suffix.lower() in WORKBOOK_EXTENSIONS and named <= _MAX_TITLE_CELLS:
        # A title stands above the table, and the header is found by the key: so each usual name is tried.
        for key in KEYS:
            tried = read("utf-8", key)
            if key in map(normalise_header, tried.headers):
                return tried, None
    return catalog, None


#: named cells that a line with a title has
_MAX_TITLE_CELLS = 2


# -- the file, part by part -------------------------------------------------------------------------------------


def _head(draft: Draft) -> Iterator[str]:
    file = draft.file.name
    yield f"# yaml-language-server: $schema={draft.schema.as_posix()}"
    yield "#"
    yield f"# {_one_line(draft.app.name)}{_description_suffix(draft.app.description)}"
    yield "#"
    yield f"#     lamina-batch validate {file}        # the file, the app, every row; spends nothing"
    yield f"#     lamina-batch run {file} --sandbox   # a rehearsal: no key, no credits"
    yield f"#     lamina-batch run {file} --limit 3   # three rows for real, to look at"
    yield "#"
    yield f"# {FILL_IN} marks what is left to decide. Nothing is run before all of it is gone."
    yield "version: 1"
    yield f"name: {scalar(draft.name)}"
    yield f"app: {scalar(draft.app.app_id)}     # {_one_line(draft.app.name)}"
    yield ""


def _rows(draft: Draft) -> Iterator[str]:
    key = draft.key
    yield "rows:"
    if draft.catalog is None:
        yield "  # The sheet to fill: one row for each product. Any CSV, XLSX, Parquet or NDJSON file will do as well."
    yield f"  from: {scalar(draft.rows)}"
    if key is None:
        columns = () if draft.catalog is None else draft.catalog.columns
        yield "  # The column that names a row, or a list of columns: unique, never blank. Results are kept by it."
        yield f"  # The columns are {_join_names(columns)}."
        if draft.no_key is not None:
            yield f"  # {_one_line(draft.no_key)}."
    yield f"  key: {scalar(key or FILL_IN)}"
    if draft.encoding is not None:
        yield "  # The file is not UTF-8, and seems to be this. Look whether accents and umlauts come out right."
        yield f"  encoding: {draft.encoding}"
    yield "  # where: \"active = 'yes'\"     # leaves out the other rows: SQL over the columns"
    yield ""


def _inputs(draft: Draft) -> Iterator[str]:
    yield "# Each input of the app, and where its value comes from: column, columns, value, template or sql."
    yield "inputs:"
    found = draft.matches
    for parameter in draft.app.parameters:
        match = found.get(parameter.name)
        yield f"  # {_parameter_facts(parameter)}"
        if draft.catalog is None:
            yield from _sheet_rule(parameter)
        elif match is not None:
            yield from _matched_rule(parameter, match)
        else:
            yield from _unmatched_rule(parameter)
    yield ""


def _sheet_rule(parameter: Parameter) -> Iterator[str]:
    """A column of the sheet, named like the input."""
    rule = {"column": " ".join(parameter.name.split())}
    if parameter.multiple and parameter.type == "url":
        yield "  # Several addresses in one cell are parted by |."
        rule["split"] = "|"
    if parameter.type == "url" and not parameter.must_supply:
        if parameter.default is None:
            rule["blank"] = "app_default"
        else:
            yield from _stock_warning(parameter)
            yield "  # So a blank cell is an error; `blank: skip_row` leaves the row out, `blank: app_default` not."
    yield _rule(parameter, rule)


def _matched_rule(parameter: Parameter, match: ColumnMatch) -> Iterator[str]:
    rule = {"column": match.column}
    if match.split is not None:
        rule["split"] = match.split
    if parameter.type == "url" and match.blank:
        if parameter.must_supply or parameter.default is not None:
            yield f"  # {_blank_count_text(match.blank)}: left out until there is one."
            rule["blank"] = "skip_row"
        else:
            rule["blank"] = "app_default"
    elif match.blank and not parameter.must_supply:
        yield f"  # {_blank_count_text(match.blank)}: {_default_text(parameter)}"
    if match.map:
        guessed = any(target != FILL_IN for target in match.map.values())
        yield f"  # Cells that are no label, and the labels that they mean{' (guessed: look)' if guessed else ''}."
    yield _rule(parameter, rule, match.map)


def _unmatched_rule(parameter: Parameter) -> Iterator[str]:
    """Open: an error where the app needs it or would show a stock picture, a comment where it may stay away."""
    if _must_decide(parameter):
        if not parameter.must_supply:
            yield from _stock_warning(parameter)
            yield "  # If that is meant, delete the line below."
        if parameter.multiple:
            yield "  # Several columns: {columns: [a, b]}."
        yield _rule(parameter, {"column": FILL_IN})
        return
    yield f"  # No column plainly is this: {_default_text(parameter)}"
    example = {"value": parameter.options[0]} if parameter.options else {"column": "name_of_a_column"}
    yield f"  # {_rule(parameter, example).strip()}"


def _must_decide(parameter: Parameter) -> bool:
    """Whether a run without this input would be refused, or made with a picture of another product."""
    return parameter.must_supply or (parameter.type == "url" and parameter.default is not None)


def _blank_count_text(rows: int) -> str:
    return "1 row has none" if rows == 1 else f"{rows} rows have none"


def _stock_warning(parameter: Parameter) -> Iterator[str]:
    kind = parameter.accept[0] if parameter.accept else "file"
    yield f"  # Without one the app would use its own stock {kind}, of another product."


def _default_text(parameter: Parameter) -> str:
    if parameter.default is None or parameter.default == "":
        return "the app does without."
    return f"the app takes {_one_line(json.dumps(parameter.default, ensure_ascii=False))}."


def _rule(parameter: Parameter, rule: Mapping[str, str], mapped: Mapping[str, str] | None = None) -> str:
    parts = [f"{key}: {scalar(value)}" for key, value in rule.items()]
    if mapped:
        targets = ", ".join(f"{scalar(cell, key=True)}: {scalar(target)}" for cell, target in mapped.items())
        parts.insert(1, f"map: {{{targets}}}")
    return f"  {scalar(parameter.name, key=True)}: {{{', '.join(parts)}}}"


def _schema_run_results(draft: Draft) -> Iterator[str]:
    yield "schema:"
    yield "  # The inputs and labels that this file was written for. If one that is used here changes, a run stops"
    yield "  # before it spends."
    if draft.taken_from == SANDBOX_SOURCE:
        yield "  # They are the sandbox's stand-in for the app. Before the first real run take the real ones:"
        yield f"  #     lamina-batch apps pin {draft.app.app_id} -o {draft.pin.as_posix()}"
    yield f"  pin: {draft.pin.as_posix()}"
    yield ""
    yield "run:"
    yield "  canary: 3                     # three first; the rest only if they complete"
    yield ""
    yield "results:"
    yield f"  manifest: {scalar(f'out/{draft.file.stem}.csv')}"
    yield f"  report: {scalar(f'out/{draft.file.stem}.html')}"
    yield '  download: "out/images/{key}/{label}.{ext}"   # the files themselves, because their addresses expire'


def _parameter_facts(parameter: Parameter) -> str:
    """What the app says of an input, in a line."""
    facts = [f"{_one_line(parameter.name)}: {parameter.type}"]
    facts += [f"one of {_join_names(parameter.options)}"] if parameter.options else []
    facts += [" or ".join(map(_one_line, parameter.accept))] if parameter.accept else []
    facts += ["takes several"] if parameter.multiple else []
    facts += ["must be given"] if parameter.must_supply else []
    return ", ".join(facts) + _description_suffix(parameter.description)


_MAX_LISTED = 12
_MAX_DESCRIPTION = 160


def _join_names(names: Iterable[str]) -> str:
    names = list(names)
    more = f", and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(scalar(name) for name in names[:_MAX_LISTED]) + more


def _description_suffix(description: str | None) -> str:
    """What the service says of a thing, as the end of a line."""
    text = _one_line(description or "")
    return f". {text[:_MAX_DESCRIPTION]}{'…' if len(text) > _MAX_DESCRIPTION else ''}" if text else ""


def _one_line(text: str) -> str:
    """Text for a comment: one line, without what does not show."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


_UNQUOTED = re.compile(r"[A-Za-z0-9_.](?:[A-Za-z0-9_./+()&-]|:(?=[A-Za-z0-9])| (?=[A-Za-z0-9_(&+]))*")


def scalar(text: str, *, key: bool = False) -> str:
    """Text as the pipeline file may hold it: without quotes where nothing in it means anything to YAML.

    In a value a `$` is doubled, because the reader takes what follows it for a variable; in a key it stays.
    """
    text = text if key else text.replace("$", "$$")
    # A number or a yes in quotes, for editors: here text is text in any case.
    if _UNQUOTED.fullmatch(text) and isinstance(parse_scalar(text), str):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escaped(c) for c in quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
