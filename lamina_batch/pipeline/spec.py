"""The pipeline file as values: what docs/pipeline-file.md describes, checked and typed. load.py builds it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from lamina_batch.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping

ColumnType = Literal["text", "integer", "float", "boolean", "date", "datetime"]
BlankPolicy = Literal["app_default", "skip_row"]
Generation = Literal["auto", "executions", "runs"]
Auth = Literal["x-api-key", "bearer"]
Layout = Literal["wide", "long"]
Completion = Literal["poll", "webhook"]
OnDrift = Literal["fail", "warn"]
#: How a command ended, by its exit code: 0, 3, anything else.
RunOutcome = Literal["success", "partial", "failure"]


class FilePosition(NamedTuple):
    """Where in the file something stands, both counted from 1. Line 0: it came from `--set`."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The section `rows`: where the product rows are."""

    #: absolute paths or glob patterns, in the order given
    sources: tuple[str, ...]
    #: index in `sources` -> the sheet that is named there (`catalog.xlsx#Sheet`)
    sheets: Mapping[int, str] = field(default_factory=dict)
    #: the columns that together name a row; never empty
    key: tuple[str, ...]
    #: polars SQL predicate over the columns
    where: str | None = None
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    encoding: str = "utf-8"
    #: None: found from the header line
    separator: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The value of one column."""

    name: str
    #: cells hold several values, parted by this
    split: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A list of the values of several columns."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A constant."""

    #: one, or several for a parameter that takes a list
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Text with the values of columns in it."""

    #: literal text and column names, alternating, a literal first and last: ("", "title", " in ", "colour", "")
    parts: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names."""
        return self.parts[1::2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sql:
    """A SQL expression over the columns."""

    expression: str


Source = Column | Columns | Value | Template | Sql


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRule:
    """Where the value of one app parameter comes from."""

    #: as written in the file; the service's own spelling is found in the live schema
    parameter: str
    source: Source
    #: values it translates; others pass
    map: Mapping[str, str] = field(default_factory=dict)
    #: replaces a blank
    default: str | None = None
    #: what a blank that stays blank means; None: the rule of the parameter's type
    blank: BlankPolicy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The section `api`."""

    generation: Generation = "auto"
    auth: Auth = "x-api-key"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaOptions:
    """What the app's contract is held against."""

    #: absolute; None: the contract of the last run
    pin: Path | None = None
    on_drift: OnDrift = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """The section `run.poll`."""

    #: seconds; None: chosen from the kind of app
    min_interval: float | None = None
    #: seconds
    max_interval: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """How the service reaches us when an execution ends."""

    #: the address that the service calls, without a token
    public_url: str
    #: host and port on which the receiver listens
    listen: tuple[str, int] = ("127.0.0.1", 8788)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """Stop submitting past this many failures, or past this share of the ended jobs once 20 have ended."""

    count: int | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The section `run`."""

    max_in_flight: int = 100
    #: None: follow the RateLimit headers
    requests_per_minute: int | None = None
    share: float = 1.0
    completion: Completion = "poll"
    poll: Poll = field(default_factory=Poll)
    #: never None if `completion` is webhook
    webhook: Webhook | None = None
    #: seconds
    execution_timeout: float = 2700.0
    #: seconds
    request_timeout: float = 30.0
    on_unknown: Literal["hold", "resubmit"] = "hold"
    on_invalid_rows: Literal["skip", "fail"] = "skip"
    share_identical: bool = True
    max_executions: int = 500
    canary: int = 0
    max_failures: FailureLimit | None = None
    credits_per_execution: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The section `results`."""

    manifest: tuple[Path, ...]
    #: absolute glob patterns for the manifests of other days, where a path has `{date}` and the ledger stays the same
    other_days: tuple[str, ...] = ()
    layout: Layout = "wide"
    #: the HTML page; None: none is written
    report: Path | None = None
    #: absolute pattern for the outputs' files (media/names.py); None: they are not downloaded
    download: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Whom a run tells how it ended."""

    #: it may hold a token, so it is never shown
    url: str = field(repr=False)
    #: which ends are told
    on: tuple[RunOutcome, ...] = ("success", "partial", "failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLocation:
    """What a file that is perhaps no pipeline any more still says: what it is called, and where its ledger is."""

    name: str
    #: the folder of the ledger, absolute
    state: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A pipeline file that was read and checked."""

    #: absolute
    file: Path
    name: str
    app: str
    rows: Rows
    #: in the file's order; never empty
    inputs: tuple[InputRule, ...]
    #: parameter name as written -> values; empty: no fan-out
    matrix: Mapping[str, tuple[str, ...]]
    api: Api
    schema: SchemaOptions = field(default_factory=SchemaOptions)
    run: RunSettings
    results: Results
    #: the folder of the ledger, absolute
    state: Path
    #: None: nobody is told
    notify: Notify | None = None
    #: path of keys -> where it stands, for errors that only the live schema or the catalog can find
    places: Mapping[tuple[str | int, ...], FilePosition] = field(default_factory=dict)

    @property
    def sandbox_option(self) -> str:
        """` --sandbox`, as the end of a command, where it was loaded for the stand-in."""
        return " --sandbox" if self.state.suffix == ".sandbox" else ""

    def command(self, words: str) -> str:
        """`lamina-batch WORDS FILE`, as it is typed in the current folder."""
        here = Path.cwd()
        file = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        return f"lamina-batch {words} {shlex.quote(str(file))}{self.sandbox_option}"

    def error(self, path: tuple[str | int, ...], what: str, hint: str | None = None) -> PipelineError:
        """An error about the value at `path`, or about the nearest enclosing key that has a place."""
        for end in range(len(path), -1, -1):
            place = self.places.get(path[:end])
            if place is not None:
                named = ".".join(str(step) for step in path)
                if place.line == 0:
                    return PipelineError(f"{named}: {what}", where="--set", hint=hint)
                return PipelineError(f"{named}: {what}", where=f"{self.file}:{place.line}:{place.column}", hint=hint)
        return PipelineError(what, where=str(self.file), hint=hint)
