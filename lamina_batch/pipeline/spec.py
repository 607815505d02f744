"""The pipeline file as typed, frozen values. load.py builds them.

A field made with `file_key` is a key of the file, and the class docstring says its meaning: see keys.py.
The other fields follow from the file or from how it is loaded.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from lamina_batch.errors import PipelineError
from lamina_batch.pipeline.keys import ValueType, file_key, key_schemas, keys_of, section_type
from lamina_batch.pipeline.problems import dotted_path
from lamina_batch.pipeline.template import parse_template
from lamina_batch.pipeline.value_types import (
    ADDRESS,
    ANY_TEXT,
    BOOLEAN,
    DURATION,
    DURATION_OR_AUTO,
    ENCODING,
    LINE,
    LISTEN,
    NON_EMPTY_TEXT,
    PATH,
    PATHS,
    SECRET_ADDRESS,
    SEPARATOR,
    as_tuple,
    choice,
    mapping,
    number,
    text,
    text_list,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.pipeline.problems import FilePosition, KeyPath

ColumnType = Literal["text", "integer", "float", "boolean", "date", "datetime"]
BlankPolicy = Literal["app_default", "skip_row"]
ApiVersionChoice = Literal["auto", "executions", "runs"]
Auth = Literal["x-api-key", "bearer"]
Layout = Literal["wide", "long"]
Completion = Literal["poll", "webhook"]
OnDrift = Literal["fail", "warn"]
OnUnknown = Literal["hold", "resubmit"]
OnInvalidRows = Literal["skip", "fail"]
#: How a command ended: exit code 0, exit code 3, any other.
RunOutcome = Literal["success", "partial", "failure"]

_ColumnTypeWord = Literal["text", "integer", "int", "float", "boolean", "bool", "date", "datetime"]
_TYPE_ALIASES = {"int": "integer", "bool": "boolean"}
_APP_ID = "bbb17293-5fe7-4645-8c6e-0745bc28254d"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The product rows: which files, and how to read them.

    from: The files with the rows: a path, a glob or a list of them, relative to this file: .csv, .tsv, .parquet,
        .ndjson, .jsonl, .xlsx or .xlsm. catalog.xlsx#Sheet names a sheet; without it the first visible one is read.
        {date} is today's date.
    key: The column, or the list of columns, that names a row. Never blank; unique, but equal rows may share one.
    where: SQL predicate over the columns (polars SQL); rows for which it is not true are left out.
    types: Types of columns that sql and where use as something else than text. CSV cells are text unless a type is
        given: 00123 stays 00123.
    encoding: Character encoding of CSV and TSV files, by a name that Python knows.
    separator: The separator of the cells of a CSV line: auto (found from the header line), tab, or one ASCII character.
    """

    #: absolute paths or glob patterns, in the file's order
    sources: tuple[str, ...] = file_key(
        PATHS,
        name="from",
        required=True,
        examples=["catalog.csv", "catalog.xlsx#Summer", ["spring/*.csv", "summer.parquet"]],
    )
    #: index in `sources` -> the sheet named there (`catalog.xlsx#Sheet`)
    sheets: Mapping[int, str] = field(default_factory=dict)
    key: tuple[str, ...] = file_key(
        text_list("Name of a column.", NON_EMPTY_TEXT, one_or_more=True, minLength=1),
        required=True,
        examples=["sku", ["brand", "sku"]],
    )
    where: str | None = file_key(NON_EMPTY_TEXT, examples=["active = 'yes'"])
    types: Mapping[str, ColumnType] = file_key(
        mapping(
            "Type of this column. `int` means integer, `bool` means boolean.",
            choice(_ColumnTypeWord),
            lambda types: {column: _TYPE_ALIASES.get(word, word) for column, word in types.items()},
        ),
        {},
        examples=[{"price": "float"}],
    )
    encoding: str = file_key(ENCODING, "utf-8", examples=["utf-8", "cp1252", "shift_jis"])
    #: None: found from the header line
    separator: str | None = file_key(SEPARATOR, "auto", examples=["auto", ";", "tab"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """The source of a rule that takes the cell of one column.

    column: The cell of this column, unchanged.
    split: Cells hold several values with this text between them, for a parameter that takes several. Goes with column.
    """

    name: str = file_key(NON_EMPTY_TEXT, name="column", required=True, examples=["front_image_url"])
    split: str | None = file_key(NON_EMPTY_TEXT, examples=["|"], goes_with=["column"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The source of a rule that takes the cells of several columns.

    columns: The cells of these columns, as a list: for a parameter that takes several values.
    """

    names: tuple[str, ...] = file_key(
        text_list("Name of a column.", NON_EMPTY_TEXT),
        name="columns",
        required=True,
        examples=[["image_1", "image_2"]],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """The source of a rule that gives every row the same.

    value: The same text for every row, or a list for a parameter that takes several values.
    """

    values: tuple[str, ...] = file_key(
        text_list("One of the values.", ANY_TEXT, one_or_more=True, uniqueItems=False),
        name="value",
        required=True,
        examples=["1:1", ["https://example.com/a.png", "https://example.com/b.png"]],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The source of a rule that puts cells into a text.

    template: Text with columns in braces; {{ and }} are braces. Blank when one of its columns is blank.
    """

    #: literal text and column names in turn, a literal first and last: ("", "title", " in ", "colour", "")
    parts: tuple[str, ...] = file_key(
        ValueType(NON_EMPTY_TEXT.schema, parse_template),
        name="template",
        required=True,
        examples=["{title} in {colour}, soft studio light"],
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it uses, in order."""
        return self.parts[1::2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sql:
    """The source of a rule that computes the value.

    sql: SQL expression over the columns (polars SQL).
    """

    expression: str = file_key(
        NON_EMPTY_TEXT,
        name="sql",
        required=True,
        examples=["CASE WHEN price > 100 THEN 'Luxury' ELSE 'Everyday' END"],
    )


Source = Column | Columns | Value | Template | Sql
#: key of a rule -> its source
SOURCES: Mapping[str, type[Source]] = {next(iter(keys_of(source))): source for source in get_args(Source)}
SOURCES_TEXT = "column, columns, value, template and sql"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRule:
    """Where the value of one app parameter comes from: exactly one source, and options that go with it.

    map: Cell -> value. Cells that are not listed pass unchanged. Goes with column and columns.
    default: Replaces a blank. Goes with every source but value.
    blank: What a blank means: app_default (leave the input out) or skip_row (leave the row out). Without it a blank
        image is an error of the row, and a blank text or option is left out. Goes with every source but value.
    """

    #: as the file spells it; the spelling of the service comes from the app's contract
    parameter: str
    source: Source
    map: Mapping[str, str] = file_key(
        mapping("What this cell becomes.", ANY_TEXT, minProperties=1),
        {},
        examples=[{"F": "Female", "M": "Male"}],
        goes_with=["column", "columns"],
    )
    default: str | None = file_key(ANY_TEXT, examples=["Female"], goes_with=["column", "columns", "template", "sql"])
    blank: BlankPolicy | None = file_key(choice(BlankPolicy), goes_with=["column", "columns", "template", "sql"])


def _rule_type() -> ValueType:
    owners = (*SOURCES.values(), InputRule)
    schemas = {name: schema for owner in owners for name, schema in key_schemas(owner).items()}
    options = {name: key for owner in owners for name, (_, key) in keys_of(owner).items() if key.goes_with}
    refused = {
        source: {
            name: {"not": {}, "errorMessage": f"does not go with {source}"}
            for name, key in options.items()
            if source not in key.goes_with
        }
        for source in SOURCES
    }
    return ValueType(
        {
            "type": "object",
            "errorMessage": f"must be a rule such as {{column: name}}, with exactly one of {SOURCES_TEXT}",
            "additionalProperties": False,
            "properties": {name: schemas[name] for name in (*SOURCES, *options)},
            "oneOf": [{"required": [source]} for source in SOURCES],
            "dependentSchemas": {source: {"properties": names} for source, names in refused.items() if names},
        }
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """How the Lamina API is called.

    generation: Which generation of the API to use: auto (ask the service), executions, or runs.
    auth: The header that carries the API key. The key itself never stands in this file: set LAMINA_API_KEY.
    """

    api_version: ApiVersionChoice = file_key(choice(ApiVersionChoice), "auto", name="generation")
    auth: Auth = file_key(choice(Auth), "x-api-key")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaOptions:
    """What the app's live schema is compared with before anything is spent. Without a pin, with that of the last run.

    pin: The app's schema as it was when this pipeline was made: the file that `lamina-batch apps pin` writes, relative
        to this one.
    on_drift: When the live schema differs in a way that breaks this pipeline: fail (nothing is submitted, exit code 8),
        or warn and go on.
    """

    #: absolute
    pin: Path | None = file_key(PATH, examples=[f"../schemas/apps/{_APP_ID}.json"])
    on_drift: OnDrift = file_key(choice(OnDrift), "fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """How often a running execution is polled.

    min_interval: Shortest time between two polls of one execution, 1s at least. auto: 3s for images, 10s for video.
    max_interval: Longest time between two polls of an execution that has probably ended.
    """

    #: seconds; None: auto
    min_interval: float | None = file_key(DURATION_OR_AUTO, "auto", examples=["auto", "5s"])
    #: seconds
    max_interval: float = file_key(DURATION, "60s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where the service reports that an execution ended.

    public_url: The address under which the service reaches the receiver: a tunnel, or a reverse proxy.
    listen: Host and port on which the receiver listens.
    """

    #: without a token
    public_url: str = file_key(ADDRESS, required=True, examples=["https://hooks.example.com/lamina"])
    listen: tuple[str, int] = file_key(LISTEN, "127.0.0.1:8788", examples=["127.0.0.1:8788"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """Stop submitting past this many failures, or past this share of the ended jobs once 20 have ended."""

    count: int | None = None
    share: float | None = None


def _parse_failure_limit(limit: float | str | None) -> FailureLimit | None:
    if limit is None:
        return None
    if isinstance(limit, str):
        return FailureLimit(share=float(limit.removesuffix("%")) / 100)
    return FailureLimit(count=int(limit))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How fast, how long, and when to stop.

    max_in_flight: Most executions that are started and not ended at any time.
    requests_per_minute: Request budget per minute. auto: as the service's RateLimit headers say, and 100 a minute
        before the first.
    share: Part of the budget to use, above 0 and at most 1, when other programs share this IP address.
    completion: How the end of an execution is noticed: poll, or webhook, which needs run.webhook and keeps sparse
        polling as its safety net.
    execution_timeout: How long to wait for one execution.
    request_timeout: How long one request to the API may take.
    on_unknown: When the answer to a submission was lost: hold the row, or resubmit it (consent to pay twice).
    on_invalid_rows: When some rows would be rejected: skip them and run the valid ones, or fail and run none.
    share_identical: Whether rows with equal inputs share one execution, which is paid for once.
    max_executions: With more than this to start, nothing is started, unless --yes is given.
    canary: Run this many first, and go on only if they complete. If they do not, later runs start nothing until
        somebody has looked: --yes, --retry-failed, --rerun, or another mapping. 0: no canary.
    max_failures: Stop submitting past this many failures, or past this share of the ended executions (counted after
        20); later runs then start nothing until somebody has looked, as after `canary`. null: never.
    credits_per_execution: What one execution costs, for the cost preview only. null: not known.
    """

    max_in_flight: int = file_key(number("integer", int, minimum=1, maximum=10_000), 100)
    #: None: auto
    requests_per_minute: int | None = file_key(
        number(
            ["integer", "string"],
            lambda budget: None if budget == "auto" else int(budget),
            minimum=1,
            maximum=1_000_000,
            pattern=r"^auto$(?!\n)",
            errorMessage="must be auto or a whole number from 1 to 1000000",
        ),
        "auto",
        examples=["auto", 60],
    )
    share: float = file_key(
        number("number", float, exclusiveMinimum=0, maximum=1, errorMessage="must be a number above 0 and at most 1"),
        1.0,
        examples=[0.5],
    )
    completion: Completion = file_key(choice(Completion), "poll")
    poll: Poll = file_key(section_type(Poll), {})
    #: never None where `completion` is webhook
    webhook: Webhook | None = file_key(section_type(Webhook))
    #: seconds
    execution_timeout: float = file_key(DURATION, "45m")
    #: seconds
    request_timeout: float = file_key(DURATION, "30s")
    on_unknown: OnUnknown = file_key(choice(OnUnknown), "hold")
    on_invalid_rows: OnInvalidRows = file_key(choice(OnInvalidRows), "skip")
    share_identical: bool = file_key(BOOLEAN, default=True)
    max_executions: int = file_key(number("integer", int, minimum=1), 500)
    canary: int = file_key(number("integer", int, minimum=0), 0, examples=[3])
    max_failures: FailureLimit | None = file_key(
        number(
            ["integer", "string", "null"],
            _parse_failure_limit,
            minimum=0,
            pattern=r"^([0-9]{1,2}([.][0-9]{1,3})?|100)%$(?!\n)",
            errorMessage="must be a whole number, a share such as 20%, or null",
        ),
        None,
        examples=[10, "20%"],
    )
    credits_per_execution: float | None = file_key(
        number(
            ["number", "null"],
            lambda price: None if price is None else float(price),
            minimum=0,
            errorMessage="must be a number of at least 0, or null",
        ),
        None,
        examples=[4],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What is written, and where.

    manifest: Where the results go: a path or a list of them, relative to this file: .csv, .xlsx, .parquet or .ndjson.
        {date} is today's date. Without it, out/<name>.csv beside this file.
    layout: Shape of the manifest. wide: a line per job, with columns for each output. long: a line per output.
    report: One HTML page with the pictures beside their sources, to look at, judge and pass around; off unless given.
        {date} is today's date.
    download: Where output files are saved, because their URLs expire; off unless given. {key}, {variant}, {label} and
        {ext} name each file; with a matrix {variant} is needed.
    """

    #: absolute, as all paths here
    manifest: tuple[Path, ...] = file_key(
        PATHS, examples=["out/catalog.csv", ["out/catalog.csv", "out/catalog.parquet"]]
    )
    #: for the manifests of other days, where a path has `{date}` and the ledger stays the same
    other_days_globs: tuple[str, ...] = ()
    layout: Layout = file_key(choice(Layout), "wide")
    report: Path | None = file_key(PATH, examples=["out/catalog.html"])
    #: a pattern (media/names.py)
    download: str | None = file_key(PATH, examples=["out/images/{key}/{variant}/{label}.{ext}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """A JSON POST of the summary when `run` or `collect` ends. A --sandbox run sends none, unless
    --set notify.url=... says where to.

    url: Where the summary is sent. Addresses of chat tools hold a token: keep it in the environment. It is never
        printed.
    on: After which outcomes: success (exit code 0), partial (3), failure (any other).
    """

    url: str = file_key(SECRET_ADDRESS, required=True, examples=["${NOTIFY_URL}"], secret=True)
    on: tuple[RunOutcome, ...] = file_key(
        text_list("One outcome.", choice(RunOutcome)),
        ["success", "partial", "failure"],
        examples=[["partial", "failure"]],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLocation:
    """The name and the ledger of a pipeline, for a file of which the rest may be wrong."""

    name: str
    #: the folder of the ledger, absolute
    state: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """Says where product rows come from, which Lamina app turns them into images, video or text, and how columns
    become the app's inputs.

    version: The version of this file format: always 1.
    name: A label for people; the default manifest is named after it. Without it, the file's own name.
    app: Id of the Lamina app that is run for each row. `lamina-batch apps list` shows the ids.
    inputs: App parameter name -> where its value comes from. All values below are text exactly as typed: 1:1, No and
        0123 too.
    matrix: Fan-out: each row runs once for every combination of these values. App parameter name -> list of values,
        text exactly as typed.
    state: Folder of the ledger, relative to this file. Without it, .lamina-batch/<file stem> beside this file. Keep it:
        it is what makes sure that nothing is paid for twice.
    """

    #: absolute
    file: Path
    #: whether it was loaded for the embedded sandbox, which has its own ledger and results
    sandbox: bool = False
    version: Literal[1] = file_key(ValueType({"type": "integer", "const": 1}), 1, required=True, examples=[1])
    name: str = file_key(LINE, examples=["premium-catalog"])
    app: str = file_key(
        text(r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,199}$(?!\n)", f"must be an app id such as {_APP_ID}"),
        required=True,
        examples=[_APP_ID],
    )
    rows: Rows = file_key(section_type(Rows), required=True, examples=[{"from": "catalog.csv", "key": "sku"}])
    #: in the file's order; never empty
    inputs: tuple[InputRule, ...] = file_key(
        mapping("Where the value of this app parameter comes from.", _rule_type(), minProperties=1),
        required=True,
        examples=[{"Front": {"column": "front_image_url"}}],
    )
    matrix: Mapping[str, tuple[str, ...]] = file_key(
        mapping(
            "The values of this app parameter, one variant for each.",
            text_list("One value of this parameter, as the app's options spell it.", NON_EMPTY_TEXT),
            lambda matrix: {parameter: as_tuple(values) for parameter, values in matrix.items()},
        ),
        {},
        examples=[{"Location": ["Studio", "Park"]}],
    )
    api: Api = file_key(section_type(Api), {})
    schema_options: SchemaOptions = file_key(section_type(SchemaOptions), {}, name="schema")
    run: RunSettings = file_key(section_type(RunSettings), {})
    results: Results = file_key(section_type(Results), {})
    notify: Notify | None = file_key(
        section_type(Notify), examples=[{"url": "${NOTIFY_URL}", "on": ["partial", "failure"]}]
    )
    #: the folder of the ledger, absolute
    state: Path = file_key(PATH, examples=[".lamina-batch/premium-catalog"])
    #: where each value stands, for errors that only the app's contract or the rows show
    positions: Mapping[KeyPath, FilePosition] = field(default_factory=dict)

    @property
    def sandbox_option(self) -> str:
        """` --sandbox` as the end of a command, if the pipeline was loaded for the sandbox."""
        return " --sandbox" if self.sandbox else ""

    def command_line(self, subcommand: str) -> str:
        """`lamina-batch SUBCOMMAND FILE`, as typed in the current folder."""
        here = Path.cwd()
        file = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        return f"lamina-batch {subcommand} {shlex.quote(str(file))}{self.sandbox_option}"

    def error(self, key_path: KeyPath, what: str, hint: str | None = None) -> PipelineError:
        """An error about the value at `key_path`; its position is that of the innermost part in the file."""
        for end in range(len(key_path), -1, -1):
            position = self.positions.get(key_path[:end])
            if position is not None:
                return PipelineError(f"{dotted_path(key_path)}: {what}", where=position.format(self.file), hint=hint)
        return PipelineError(what, where=str(self.file), hint=hint)
