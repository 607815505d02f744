"""A pipeline file becomes a Pipeline: read the YAML, apply --set, type the values, check them, build."""

from __future__ import annotations

import glob
import os.path
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina_batch.errors import PipelineError
from lamina_batch.pipeline.file_schema import pipeline_schema
from lamina_batch.pipeline.keys import build
from lamina_batch.pipeline.names import normalise_name
from lamina_batch.pipeline.overrides import apply_override
from lamina_batch.pipeline.problems import InvalidValueError, KeyPath, Problem, as_error
from lamina_batch.pipeline.schema_problems import check_document
from lamina_batch.pipeline.sheet_reference import WORKBOOK_EXTENSIONS, split_sheet
from lamina_batch.pipeline.spec import (
    SOURCES,
    InputRule,
    Notify,
    Pipeline,
    PipelineLocation,
    Results,
    Rows,
    RunSettings,
    SchemaOptions,
)
from lamina_batch.pipeline.typed_values import typed_values
from lamina_batch.pipeline.yaml_tree import OVERRIDE_POSITION, read_tree

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

    from lamina_batch.pipeline.keys import Schema
    from lamina_batch.pipeline.typed_values import PipelineValues

SOURCE_EXTENSIONS = (".csv", ".tsv", ".parquet", ".ndjson", ".jsonl", *WORKBOOK_EXTENSIONS)
MANIFEST_EXTENSIONS = (".csv", ".xlsx", ".parquet", ".ndjson")
REPORT_EXTENSIONS = (".html", ".htm")


def load_pipeline(
    file: Path,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str],
    today: dt.date,
    sandbox: bool = False,
) -> Pipeline:
    """Read and check a pipeline file.

    `overrides` are `--set` arguments (`rows.from=today.csv`), `environ` has the values of `${NAME}`, and `today` is
    `{date}`. For the `sandbox`, the ledger is in `<state>.sandbox`, and a manifest `out/x.csv` is `out/x.sandbox.csv`.

    Raises PipelineError with every problem, its line and its column, and UsageError for an override that cannot be
    applied.
    """
    document, schema = _load_document(file, overrides, environ)
    problems = [*document.problems, *check_document(document, schema)]
    if problems:
        raise as_error(document.file, problems)
    builder = _PipelineBuilder(document, today, sandbox=sandbox)
    pipeline = builder.pipeline()
    if builder.problems:
        raise as_error(document.file, builder.problems)
    return pipeline


def locate_pipeline(
    file: Path,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str],
    today: dt.date,
    sandbox: bool = False,
) -> PipelineLocation:
    """The name and the ledger of a pipeline, even if the rest of its file is wrong. Arguments as for load_pipeline.

    Raises PipelineError if the file is not YAML, or if `name` or `state` cannot be read.
    """
    document, _ = _load_document(file, overrides, environ)
    problems = [problem for problem in document.problems if problem.key_path[:1] in {("name",), ("state",)}]
    problems += [
        document.problem((key,), "must be text")
        for key in ("name", "state")
        if not isinstance(document.values.get(key, ""), str)
    ]
    if problems:
        raise as_error(document.file, problems)
    builder = _PipelineBuilder(document, today, sandbox=sandbox)
    return PipelineLocation(name=builder.name(), state=builder.state())


def _load_document(file: Path, overrides: Sequence[str], environ: Mapping[str, str]) -> tuple[PipelineValues, Schema]:
    """The values of the file with the overrides, not checked yet, and the schema to check them with."""
    if file.suffix.casefold() in SOURCE_EXTENSIONS:
        raise PipelineError(
            "this is a catalog, and a pipeline file (.yaml) is needed",
            where=str(file),
            hint=f"`lamina-batch init --rows {shlex.quote(str(file))} --app ID` begins one",
        )
    file = Path(_absolute_path(Path.cwd(), str(file)))
    schema = pipeline_schema()
    tree = read_tree(file)
    for override in overrides:
        apply_override(tree, override, schema)
    return typed_values(tree, schema, file, environ), schema


class _PipelineBuilder:
    """Builds the Pipeline from values that fit the schema, and finds the problems that a schema cannot express."""

    def __init__(self, document: PipelineValues, today: dt.date, *, sandbox: bool) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._values = document.values
        self._folder = document.file.parent
        self._today = today
        self._sandbox = sandbox

    def pipeline(self) -> Pipeline:
        self._check_names()
        rows = self._rows()
        return build(
            Pipeline,
            self._values,
            (),
            self._report,
            file=self._document.file,
            sandbox=self._sandbox,
            name=self.name(),
            rows=rows,
            inputs=tuple(self._rule(parameter, rule) for parameter, rule in self._values["inputs"].items()),
            schema_options=self._schema_options(),
            run=self._run(),
            results=self._results(rows.sources),
            notify=self._notify(),
            state=self.state(),
            positions=self._document.positions,
        )

    def name(self) -> str:
        name: str = self._values.get("name", self._document.file.stem)
        return name

    def state(self) -> Path:
        path = self._dated(self._values.get("state", f".lamina-batch/{self._document.file.stem}"))
        state = _absolute_path(self._folder, path)
        return Path(f"{state}.sandbox" if self._sandbox else state)

    def _rows(self) -> Rows:
        rows = self._values["rows"]
        sources = [self._source(key_path, path) for key_path, path in _with_key_paths(("rows", "from"), rows["from"])]
        sheets = {index: sheet for index, (_, sheet) in enumerate(sources) if sheet is not None}
        paths = tuple(path for path, _ in sources)
        return build(Rows, rows, ("rows",), self._report, sources=paths, sheets=sheets)

    def _source(self, key_path: KeyPath, path: str) -> tuple[str, str | None]:
        """The absolute path or pattern, and the sheet that is named with it."""
        path, sheet = split_sheet(self._dated(path), self._folder)
        self._check_extension(key_path, path, SOURCE_EXTENSIONS)
        if sheet is not None and not sheet.strip():
            self._problem(key_path, "names no sheet after the #", "write catalog.xlsx#Sheet, or leave the # out")
        # A glob character is a pattern in the file's value, but not in the name of the file's own folder.
        folder = glob.escape(str(self._folder)) if glob.has_magic(path) else self._folder
        return _absolute_path(Path(folder), path), sheet

    def _check_names(self) -> None:
        """Refuse a parameter that is given twice, even in another spelling: the service would get one of the two."""
        first: dict[str, KeyPath] = {}
        for section in ("inputs", "matrix"):
            for parameter in self._values.get(section, {}):
                key_path: KeyPath = (section, parameter)
                before = first.setdefault(normalise_name(parameter), key_path)
                if before != key_path:
                    what = f"is the same parameter as {before[1]!r} in `{before[0]}`"
                    hint = "keep one of them; case and repeated spaces make no difference"
                    self.problems.append(self._document.problem(key_path, what, hint, at_key=True))

    def _schema_options(self) -> SchemaOptions:
        schema = self._values.get("schema", {})
        pin = Path(_absolute_path(self._folder, schema["pin"])) if "pin" in schema else None
        return build(SchemaOptions, schema, ("schema",), self._report, pin=pin)

    def _rule(self, parameter: str, rule: dict[str, Any]) -> InputRule:
        key_path: KeyPath = ("inputs", parameter)
        source = build(next(SOURCES[key] for key in rule if key in SOURCES), rule, key_path, self._report)
        return build(InputRule, rule, key_path, self._report, parameter=parameter, source=source)

    def _run(self) -> RunSettings:
        run = build(RunSettings, self._values.get("run", {}), ("run",), self._report)
        shortest = 1.0 if run.poll.min_interval is None else run.poll.min_interval
        if shortest < 1.0:
            self._problem(("run", "poll", "min_interval"), "must be at least 1s", "the service asks not to poll faster")
        elif run.poll.max_interval < shortest:
            what = f"must be at least as long as min_interval, {shortest:g}s, is {run.poll.max_interval:g}s"
            self._problem(("run", "poll", "max_interval"), what, "raise it, or lower min_interval")
        if run.completion == "webhook" and run.webhook is None:
            hint = "add webhook: {public_url: https://...} below `run`: where the service reaches you"
            self._problem(("run", "completion"), "webhook needs run.webhook.public_url", hint)
        return run

    def _notify(self) -> Notify | None:
        """Where the summary goes. A run in the sandbox sends it only where `--set` says."""
        values = self._values.get("notify")
        if values is None:
            return None
        notify = build(Notify, values, ("notify",), self._report)
        given_by_override = self._document.positions["notify", "url"] == OVERRIDE_POSITION
        return notify if given_by_override or not self._sandbox else None

    def _results(self, sources: tuple[str, ...]) -> Results:
        results = self._values.get("results", {})
        manifests: list[Path] = []
        globs: list[str] = []
        default = f"out/{_safe_file_name(self.name())}.csv"
        for key_path, path in _with_key_paths(("results", "manifest"), results.get("manifest", default)):
            self._check_extension(key_path, path, MANIFEST_EXTENSIONS)
            manifest = self._result(self._dated(path))
            if manifest in manifests:
                self._problem(key_path, f"{str(manifest)!r} is listed twice", "keep one")
            if str(manifest) in sources:
                self._problem(key_path, "would replace the rows it is made from", "give it another name")
            manifests.append(manifest)
            if "{date}" in path and "{date}" not in self._values.get("state", ""):
                globs.append(glob.escape(str(self._result(path))).replace("{date}", _DATE_GLOB))
        report = results.get("report")
        if report is not None:
            self._check_extension(("results", "report"), report, REPORT_EXTENSIONS)
        return build(
            Results,
            results,
            ("results",),
            self._report,
            manifest=tuple(manifests),
            other_days_globs=tuple(globs),
            report=None if report is None else self._result(self._dated(report)),
            download=str(self._result(self._dated(results["download"]))) if "download" in results else None,
        )

    def _result(self, path: str) -> Path:
        """The absolute path of a result. A run in the sandbox has its own results."""
        result = Path(_absolute_path(self._folder, path))
        return result.with_suffix(f".sandbox{result.suffix}") if self._sandbox else result

    def _check_extension(self, key_path: KeyPath, path: str, extensions: Sequence[str]) -> None:
        extension = Path(path).suffix
        if extension.casefold() not in extensions:
            what = f"{path!r} ends in {extension!r}" if extension else f"{path!r} has no extension"
            hint = f"known: {', '.join(extensions)}"
            self._problem(key_path, f"{what}, which says nothing about its format", hint)

    def _dated(self, path: str) -> str:
        return path.replace("{date}", self._today.isoformat())

    def _report(self, key_path: KeyPath, problem: InvalidValueError) -> None:
        self._problem(key_path, problem.what, problem.hint)

    def _problem(self, key_path: KeyPath, what: str, hint: str) -> None:
        self.problems.append(self._document.problem(key_path, what, hint))


#: matches the dates that `{date}` becomes
_DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


def _with_key_paths(key_path: KeyPath, value: str | list[str]) -> Iterator[tuple[KeyPath, str]]:
    """One text or a list of them, each with its key path."""
    if isinstance(value, str):
        yield key_path, value
    else:
        yield from (((*key_path, index), item) for index, item in enumerate(value))


def _safe_file_name(name: str) -> str:
    """`name` as a file name on any system: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:100] or "results"


def _absolute_path(folder: Path, path: str) -> str:
    """`path` from `folder`, without `..` unless a symbolic link gives it another meaning.

    After a symbolic link, `..` is the parent of the link's target.
    """
    joined = str(folder / path)
    tidy = os.path.normpath(joined)
    return tidy if os.path.realpath(tidy) == os.path.realpath(joined) else joined
