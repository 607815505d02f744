"""A pipeline file -> a Pipeline: read, override, type, check, build. docs/pipeline-file.md is the contract."""

from __future__ import annotations

import codecs
import glob
import io
import os.path
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lamina_batch.errors import PipelineError, UsageError
from lamina_batch.pipeline.file_schema import pipeline_schema
from lamina_batch.pipeline.names import normalise_name
from lamina_batch.pipeline.overrides import apply_override
from lamina_batch.pipeline.problems import KeyPath, Problem, as_error
from lamina_batch.pipeline.schema_problems import check_document
from lamina_batch.pipeline.sheet_reference import WORKBOOK_EXTENSIONS, split_sheet
from lamina_batch.pipeline.spec import (
    Api,
    Column,
    Columns,
    FailureLimit,
    InputRule,
    Notify,
    Pipeline,
    PipelineLocation,
    Poll,
    Results,
    Rows,
    RunSettings,
    SchemaOptions,
    Source,
    Sql,
    Template,
    Value,
    Webhook,
)
from lamina_batch.pipeline.template import TemplateError, parse_template
from lamina_batch.pipeline.typed_values import typed_values
from lamina_batch.pipeline.yaml_tree import OVERRIDE_POSITION, read_tree

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lamina_batch.pipeline.file_schema import Schema
    from lamina_batch.pipeline.typed_values import Document

SOURCE_EXTENSIONS = (".csv", ".tsv", ".parquet", ".ndjson", ".jsonl", *WORKBOOK_EXTENSIONS)
MANIFEST_EXTENSIONS = (".csv", ".xlsx", ".parquet", ".ndjson")
REPORT_EXTENSIONS = (".html", ".htm")


def load_pipeline(
    file: Path,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str],
    today: dt.date,
    suffix: str | None = None,
) -> Pipeline:
    """Read and check a pipeline file.

    `overrides` are `--set` arguments (`rows.from=today.csv`), `environ` answers `${NAME}` and `today` answers
    `{date}`. A `suffix` keeps a kind of run apart: with `sandbox` the state is `<state>.sandbox` and a manifest
    `out/x.csv` is `out/x.sandbox.csv`.

    Raises PipelineError, naming every problem with its line and column, and UsageError for an override that
    cannot be applied.
    """
    document, schema = _load_document(file, overrides, environ)
    problems = [*document.problems, *check_document(document, schema)]
    if problems:
        raise as_error(document.file, problems)
    builder = _PipelineBuilder(document, today, suffix)
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
    suffix: str | None = None,
) -> PipelineLocation:
    """The name and the ledger of a pipeline, whatever is wrong with the rest of its file. The arguments are as above.

    Raises PipelineError if the file is no YAML, or where `name` or `state` itself cannot be read.
    """
    document, _ = _load_document(file, overrides, environ)
    problems = [problem for problem in document.problems if problem.steps[:1] in {(key,) for key in _LOCATION_KEYS}]
    problems += [
        document.problem((key,), "must be text")
        for key in _LOCATION_KEYS
        if not isinstance(document.values.get(key, ""), str)
    ]
    if problems:
        raise as_error(document.file, problems)
    return _PipelineBuilder(document, today, suffix).location()


#: what may stand where a path has `{date}`
_DATE_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
#: what `locate_pipeline` reads
_LOCATION_KEYS = ("name", "state")


def _load_document(file: Path, overrides: Sequence[str], environ: Mapping[str, str]) -> tuple[Document, Schema]:
    """The values of the file, the overrides among them, and the schema that they have not been checked against."""
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


_DURATION = re.compile(r"([0-9]{1,6})(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Seconds of a duration as the pipeline file writes it: `150ms`, `3s`, `45m`, `2h`. Raises UsageError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a duration", hint="write it as 150ms, 3s, 45m or 2h")
    return int(match[1]) * _SECONDS[match[2]]


class _PipelineBuilder:
    """Builds the Pipeline from values that fit the schema, and finds what a schema cannot say."""

    def __init__(self, document: Document, today: dt.date, suffix: str | None) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._values = document.values
        self._file = document.file
        self._today = today
        self._suffix = suffix

    def location(self) -> PipelineLocation:
        return PipelineLocation(name=self._name(), state=self._state())

    def pipeline(self) -> Pipeline:
        name = self._name()
        self._check_names()
        rows = self._rows()
        return Pipeline(
            file=self._file,
            name=name,
            app=self._values["app"],
            rows=rows,
            inputs=tuple(self._rule(parameter, rule) for parameter, rule in self._values["inputs"].items()),
            matrix={parameter: tuple(values) for parameter, values in self._values.get("matrix", {}).items()},
            api=Api(**self._values.get("api", {})),
            schema=self._schema(),
            run=self._run(),
            results=self._results(name, rows.sources),
            state=self._state(),
            notify=self._notify(),
            places=self._document.places,
        )

    def _name(self) -> str:
        name: str = self._values.get("name", self._file.stem)
        return name

    def _rows(self) -> Rows:
        rows = self._values["rows"]
        options: dict[str, Any] = {}
        if "encoding" in rows:
            options["encoding"] = self._encoding(rows["encoding"])
        sources = [self._source(steps, path) for steps, path in _with_key_paths(("rows", "from"), rows["from"])]
        return Rows(
            sources=tuple(path for path, _ in sources),
            sheets={index: sheet for index, (_, sheet) in enumerate(sources) if sheet is not None},
            key=tuple(column for _, column in _with_key_paths(("rows", "key"), rows["key"])),
            where=rows.get("where"),
            types={column: _TYPE_ALIASES.get(kind, kind) for column, kind in rows.get("types", {}).items()},
            separator=_SEPARATOR_ALIASES.get(text := rows.get("separator", "auto"), text),
            **options,
        )

    def _source(self, steps: KeyPath, path: str) -> tuple[str, str | None]:
        """The absolute path or pattern, and the sheet that is named with it."""
        path, sheet = split_sheet(self._dated(path), self._file.parent)
        self._check_extension(steps, path, SOURCE_EXTENSIONS)
        if sheet is not None and not sheet.strip():
            self._problem(steps, "names no sheet after the #", "write catalog.xlsx#Sheet, or leave the # out")
        folder = str(self._file.parent)
        # only what the user wrote is a pattern, not the folder that the file happens to stand in
        return _absolute_path(
            Path(_GLOB_CHARACTERS.sub(r"[\g<0>]", folder) if _GLOB_CHARACTERS.search(path) else folder), path
        ), sheet

    def _encoding(self, encoding: str) -> str:
        try:
            codecs.lookup(encoding)
            # refuses codecs that make no text, such as hex
            io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        except (LookupError, ValueError):
            self._problem(
                ("rows", "encoding"),
                f"{encoding!r} is not a known text encoding",
                "often it is utf-8, cp1252, latin-1 or utf-16",
            )
        return encoding

    def _check_names(self) -> None:
        """The same parameter twice, also where only case or spaces differ: the service would get one of the two."""
        first: dict[str, KeyPath] = {}
        for section in ("inputs", "matrix"):
            for parameter in self._values.get(section, {}):
                steps: KeyPath = (section, parameter)
                before = first.setdefault(normalise_name(parameter), steps)
                if before != steps:
                    what = f"is the same parameter as {before[1]!r} in `{before[0]}`"
                    hint = "keep one of them; case and repeated spaces make no difference"
                    self.problems.append(self._document.problem(steps, what, hint, at_key=True))

    def _schema(self) -> SchemaOptions:
        schema = self._values.get("schema", {})
        options = {"on_drift": schema["on_drift"]} if "on_drift" in schema else {}
        pin = Path(_absolute_path(self._file.parent, schema["pin"])) if "pin" in schema else None
        return SchemaOptions(pin=pin, **options)

    def _rule(self, parameter: str, rule: dict[str, Any]) -> InputRule:
        return InputRule(
            parameter=parameter,
            source=self._rule_source(parameter, rule),
            map=rule.get("map", {}),
            default=rule.get("default"),
            blank=rule.get("blank"),
        )

    def _rule_source(self, parameter: str, rule: dict[str, Any]) -> Source:
        match rule:
            case {"column": name}:
                return Column(name=name, split=rule.get("split"))
            case {"columns": names}:
                return Columns(names=tuple(names))
            case {"value": value}:
                return Value(values=tuple(text for _, text in _with_key_paths((), value)))
            case {"sql": expression}:
                return Sql(expression=expression)
            case _:
                return Template(parts=self._template(("inputs", parameter, "template"), rule["template"]))

    def _template(self, steps: KeyPath, text: str) -> tuple[str, ...]:
        try:
            return parse_template(text)
        except TemplateError as error:
            self._problem(steps, error.what, error.hint)
            return ("",)

    def _run(self) -> RunSettings:
        run = self._values.get("run", {})
        options = RunSettings(**{key: _RUN_PARSERS[key](value) for key, value in run.items() if key in _RUN_PARSERS})
        shortest = 1.0 if options.poll.min_interval is None else options.poll.min_interval
        if shortest < 1.0:
            self._problem(("run", "poll", "min_interval"), "must be at least 1s", "the service asks not to poll faster")
        elif options.poll.max_interval < shortest:
            what = f"must be at least as long as min_interval, {shortest:g}s, is {options.poll.max_interval:g}s"
            self._problem(("run", "poll", "max_interval"), what, "raise it, or lower min_interval")
        if options.completion == "webhook" and "webhook" not in run:
            hint = "add webhook: {public_url: https://...} below `run`: where the service reaches you"
            self._problem(("run", "completion"), "webhook needs run.webhook.public_url", hint)
        return replace(options, webhook=self._webhook(run["webhook"])) if "webhook" in run else options

    def _webhook(self, webhook: dict[str, str]) -> Webhook:
        url = webhook.get("public_url", "")
        steps: KeyPath = ("run", "webhook")
        if not _is_web_address(url):
            what = f"must be an http or https address without a user or a fragment, is {url!r}"
            steps = (*steps, "public_url") if url else steps
            self._problem(steps, what if url else "needs public_url", "for example https://hooks.example.com/lamina")
        listen = webhook.get("listen", "")
        host, _, port = listen.rpartition(":")
        if not listen:
            return Webhook(public_url=url)
        if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
            what = f"must be a host and a port from 1 to 65535, is {listen!r}"
            self._problem((*steps[:2], "listen"), what, "write it as 127.0.0.1:8788")
            return Webhook(public_url=url)
        return Webhook(public_url=url, listen=(host.removeprefix("[").removesuffix("]"), int(port)))

    def _notify(self) -> Notify | None:
        """Whom a run tells. One with results of its own tells nobody, unless `--set` says whom."""
        values = self._values.get("notify")
        if values is None:
            return None
        steps: KeyPath = ("notify", "url")
        if not _is_web_address(values["url"]):
            what = "must be an http or https address without a user or a fragment (it may be secret, and is not shown)"
            self._problem(steps, what, "copy it again from the tool that shall be told")
        if self._suffix is not None and self._document.places[steps] != OVERRIDE_POSITION:
            return None
        options = {"on": tuple(values["on"])} if "on" in values else {}
        return Notify(url=values["url"], **options)

    def _results(self, name: str, sources: tuple[str, ...]) -> Results:
        results = self._values.get("results", {})
        manifests: list[Path] = []
        patterns: list[str] = []
        for steps, path in _with_key_paths(
            ("results", "manifest"), results.get("manifest", f"out/{_safe_file_name(name)}.csv")
        ):
            self._check_extension(steps, path, MANIFEST_EXTENSIONS)
            manifest = self._result(path)
            if manifest in manifests:
                self._problem(steps, f"{str(manifest)!r} is listed twice", "keep one")
            if str(manifest) in sources:
                self._problem(steps, "would replace the rows it is made from", "give it another name")
            manifests.append(manifest)
            if "{date}" in path:
                patterns.append(glob.escape(str(self._result(path, "{date}"))).replace("{date}", _DATE_GLOB))
        options: dict[str, Any] = {"layout": results["layout"]} if "layout" in results else {}
        if "{date}" not in self._values.get("state", ""):
            options["other_days"] = tuple(patterns)
        if "report" in results:
            self._check_extension(("results", "report"), results["report"], REPORT_EXTENSIONS)
            options["report"] = self._result(results["report"])
        if "download" in results:
            options["download"] = str(self._result(results["download"]))
        return Results(manifest=tuple(manifests), **options)

    def _result(self, path: str, day: str | None = None) -> Path:
        """Where a result goes, today unless a day is given. A run of a kind of its own has its own results."""
        result = Path(
            _absolute_path(self._file.parent, self._dated(path) if day is None else path.replace("{date}", day))
        )
        return result if self._suffix is None else result.with_suffix(f".{self._suffix}{result.suffix}")

    def _state(self) -> Path:
        path = self._dated(self._values.get("state", f".lamina-batch/{self._file.stem}"))
        state = _absolute_path(self._file.parent, path)
        return Path(state if self._suffix is None else f"{state}.{self._suffix}")

    def _check_extension(self, steps: KeyPath, path: str, known: Sequence[str]) -> None:
        extension = Path(path).suffix
        if extension.casefold() not in known:
            what = f"{path!r} ends in {extension!r}" if extension else f"{path!r} has no extension"
            self._problem(steps, f"{what}, which says nothing about its format", f"known: {', '.join(known)}")

    def _dated(self, path: str) -> str:
        return path.replace("{date}", self._today.isoformat())

    def _problem(self, steps: KeyPath, what: str, hint: str | None) -> None:
        self.problems.append(self._document.problem(steps, what, hint))


_TYPE_ALIASES = {"int": "integer", "bool": "boolean"}
_SEPARATOR_ALIASES: Mapping[str, str | None] = {"auto": None, "tab": "\t", r"\t": "\t"}
_GLOB_CHARACTERS = re.compile(r"[*?\[]")


def _duration_or_auto(text: str) -> float | None:
    return None if text == "auto" else parse_duration(text)


def _parse_poll(poll: dict[str, str]) -> Poll:
    return Poll(**{key: _POLL_PARSERS[key](text) for key, text in poll.items()})


def _parse_failure_limit(limit: float | str | None) -> FailureLimit | None:
    if limit is None:
        return None
    if isinstance(limit, str):
        return FailureLimit(share=float(limit.removesuffix("%")) / 100)
    return FailureLimit(count=int(limit))


#: key of `run` -> its field's value
_RUN_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "max_in_flight": int,
    "requests_per_minute": lambda value: None if value == "auto" else int(value),
    "share": float,
    "completion": str,
    "poll": _parse_poll,
    "execution_timeout": parse_duration,
    "request_timeout": parse_duration,
    "on_unknown": str,
    "on_invalid_rows": str,
    "share_identical": bool,
    "max_executions": int,
    "canary": int,
    "max_failures": _parse_failure_limit,
    "credits_per_execution": lambda value: None if value is None else float(value),
}
_POLL_PARSERS: Mapping[str, Callable[[str], Any]] = {"min_interval": _duration_or_auto, "max_interval": parse_duration}


def _with_key_paths(steps: KeyPath, value: str | list[str]) -> Iterator[tuple[KeyPath, str]]:
    """One text or a list of them, each with where it stands."""
    if isinstance(value, str):
        yield steps, value
    else:
        for index, item in enumerate(value):
            yield (*steps, index), item


def _is_web_address(url: str) -> bool:
    """Whether somebody may be called there: http or https, with a host, and nothing that is not sent unchanged."""
    try:
        parts = urlsplit(url)
        return bool(
            parts.scheme in {"http", "https"}
            and parts.hostname
            and parts.port != 0
            and not (parts.username or parts.password or parts.fragment)
        )
    except ValueError:  # brackets that do not close, a port that is none
        return False


def _safe_file_name(name: str) -> str:
    """`name` as a file name on any system: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:100] or "results"


def _absolute_path(folder: Path, path: str) -> str:
    """`path` from `folder`, without `..` where leaving it out changes nothing.

    Behind a symbolic link `..` is the parent of the link's target: there it stays.
    """
    joined = str(folder / path)
    tidy = os.path.normpath(joined)
    return tidy if os.path.realpath(tidy) == os.path.realpath(joined) else joined
