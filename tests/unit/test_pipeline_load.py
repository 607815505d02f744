"""What a good pipeline file becomes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamina_batch.errors import PipelineError, UsageError
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.pipeline.problems import FilePosition
from lamina_batch.pipeline.spec import (
    Api,
    Column,
    Columns,
    FailureLimit,
    InputRule,
    Notify,
    Pipeline,
    Poll,
    Results,
    Rows,
    RunSettings,
    Sql,
    Template,
    Value,
)
from lamina_batch.pipeline.value_types import parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

MINIMAL = """\
version: 1
app: an-app
rows: {from: rows.csv, key: sku}
inputs:
  Front: {column: front}
"""


def load(
    folder: Path,
    text: str,
    *overrides: str,
    environ: Mapping[str, str] | None = None,
    name: str = "catalog.yaml",
    sandbox: bool = False,
) -> Pipeline:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return load_pipeline(file, overrides=overrides, environ=environ or {}, today=dt.date(2026, 1, 31), sandbox=sandbox)


FULL = """\
# yaml-language-server: $schema=../schemas/pipeline.schema.json
version: 1
name: premium-catalog                   # a label for people
app: bbb17293-5fe7-4645-8c6e-0745bc28254d

rows:
  from: ../sample_data/apparel.csv
  key: sku
  where: "active = 'yes'"
  types: {price: float}
  encoding: utf-8
  separator: auto

inputs:
  Front: {column: front_image_url}
  Back: {column: back_image_url, blank: skip_row}
  Model Gender: {column: gender, map: {F: Female, M: Male}, default: Female}
  Prompt: {template: "{title} in {colour}, soft studio light"}
  Style: {sql: "CASE WHEN price > 100 THEN 'Luxury' ELSE 'Everyday' END"}
  Aspect Ratio: {value: 1:1}

matrix:
  Location: [Studio, Park]

api:
  generation: auto
  auth: x-api-key

run:
  max_in_flight: 100
  requests_per_minute: auto
  share: 1.0
  completion: poll
  poll: {min_interval: auto, max_interval: 60s}
  execution_timeout: 45m
  request_timeout: 30s
  on_unknown: hold
  on_invalid_rows: skip
  share_identical: true
  max_executions: 500
  canary: 0
  max_failures: null
  credits_per_execution: null

results:
  manifest: [../out/premium-catalog.csv, ../out/premium-catalog.parquet]
  layout: wide

state: ../.lamina-batch/premium-catalog
"""


def test_the_example_of_the_design_loads_whole(tmp_path: Path) -> None:
    pipeline = load(tmp_path, FULL, name="pipelines/premium.yaml")
    assert pipeline == Pipeline(
        file=tmp_path / "pipelines" / "premium.yaml",
        name="premium-catalog",
        app="bbb17293-5fe7-4645-8c6e-0745bc28254d",
        rows=Rows(
            sources=(str(tmp_path / "sample_data" / "apparel.csv"),),
            key=("sku",),
            where="active = 'yes'",
            types={"price": "float"},
            encoding="utf-8",
            separator=None,
        ),
        inputs=(
            InputRule(parameter="Front", source=Column(name="front_image_url")),
            InputRule(parameter="Back", source=Column(name="back_image_url"), blank="skip_row"),
            InputRule(
                parameter="Model Gender",
                source=Column(name="gender"),
                map={"F": "Female", "M": "Male"},
                default="Female",
            ),
            InputRule(
                parameter="Prompt",
                source=Template(parts=("", "title", " in ", "colour", ", soft studio light")),
            ),
            InputRule(
                parameter="Style",
                source=Sql(expression="CASE WHEN price > 100 THEN 'Luxury' ELSE 'Everyday' END"),
            ),
            InputRule(parameter="Aspect Ratio", source=Value(values=("1:1",))),
        ),
        matrix={"Location": ("Studio", "Park")},
        api=Api(),
        run=RunSettings(),
        results=Results(
            manifest=(
                tmp_path / "out" / "premium-catalog.csv",
                tmp_path / "out" / "premium-catalog.parquet",
            )
        ),
        state=tmp_path / ".lamina-batch" / "premium-catalog",
        positions=pipeline.positions,
    )


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    pipeline = load(tmp_path, MINIMAL)
    assert pipeline.name == "catalog"
    assert pipeline.rows == Rows(sources=(str(tmp_path / "rows.csv"),), key=("sku",))
    assert (pipeline.matrix, pipeline.api, pipeline.run) == ({}, Api(), RunSettings())
    assert pipeline.results == Results(manifest=(tmp_path / "out" / "catalog.csv",))
    assert pipeline.state == tmp_path / ".lamina-batch" / "catalog"


@pytest.mark.parametrize(
    ("name", "manifest"),
    [('Été 2026: "new"/old', "Été-2026-new-old.csv"), ("..", "results.csv"), ("a.b", "a.b.csv")],
)
def test_the_default_manifest_is_named_so_that_every_system_can_hold_it(
    tmp_path: Path, name: str, manifest: str
) -> None:
    assert load(tmp_path, MINIMAL, f"name={name}").results.manifest == (tmp_path / "out" / manifest,)


def test_every_other_option_arrives(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        """\
version: 1
app: an-app
rows: {from: [a.tsv, "more/*.ndjson", b.JSONL], key: [brand, sku], types: {n: int, b: bool}, separator: tab}
inputs:
  Board: {columns: [one, two], map: {x: y}, default: z, blank: app_default}
  Details: {column: details, split: "|"}
  Logos: {value: [a, b]}
  Nothing: {value: ""}
api: {generation: executions, auth: bearer}
run:
  max_in_flight: 7
  requests_per_minute: 60
  share: 0.5
  poll: {min_interval: 5s, max_interval: 2m}
  execution_timeout: 2h
  request_timeout: 1500ms
  on_unknown: resubmit
  on_invalid_rows: fail
  share_identical: false
  max_executions: 3
  canary: 2
  max_failures: 12.5%
  credits_per_execution: 4
results: {manifest: /elsewhere/x.ndjson, layout: long}
""",
    )
    assert pipeline.rows == Rows(
        sources=(str(tmp_path / "a.tsv"), str(tmp_path / "more" / "*.ndjson"), str(tmp_path / "b.JSONL")),
        key=("brand", "sku"),
        types={"n": "integer", "b": "boolean"},
        separator="\t",
    )
    assert pipeline.inputs == (
        InputRule(
            parameter="Board",
            source=Columns(names=("one", "two")),
            map={"x": "y"},
            default="z",
            blank="app_default",
        ),
        InputRule(parameter="Details", source=Column(name="details", split="|")),
        InputRule(parameter="Logos", source=Value(values=("a", "b"))),
        InputRule(parameter="Nothing", source=Value(values=("",))),
    )
    assert pipeline.api == Api(api_version="executions", auth="bearer")
    assert pipeline.run == RunSettings(
        max_in_flight=7,
        requests_per_minute=60,
        share=0.5,
        poll=Poll(min_interval=5.0, max_interval=120.0),
        execution_timeout=7200.0,
        request_timeout=1.5,
        on_unknown="resubmit",
        on_invalid_rows="fail",
        share_identical=False,
        max_executions=3,
        canary=2,
        max_failures=FailureLimit(share=0.125),
        credits_per_execution=4.0,
    )
    assert pipeline.results == Results(manifest=(Path("/elsewhere/x.ndjson"),), layout="long")


def test_a_failure_limit_can_be_a_count(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL, "run.max_failures=0").run.max_failures == FailureLimit(count=0)


@pytest.mark.parametrize(
    ("written", "separator"),
    [("auto", None), ("tab", "\t"), (r"\t", "\t"), (r'"\t"', "\t"), (";", ";"), ('","', ","), ("'|'", "|")],
)
def test_separators(tmp_path: Path, written: str, separator: str | None) -> None:
    text = MINIMAL.replace("key: sku}", f"key: sku, separator: {written}}}")
    assert load(tmp_path, text).rows.separator == separator


# Text is text


AS_TYPED = ["1:1", "16:9", "No", "yes", "0123", "1e3", "2026-01-01", "null", "~", "0x1F", "1_000", ".5", "true"]


@pytest.mark.parametrize("typed", AS_TYPED)
def test_text_stays_as_typed_wherever_the_schema_takes_only_text(tmp_path: Path, typed: str) -> None:
    pipeline = load(
        tmp_path,
        f"""\
version: 1
name: {typed}
app: an-app
rows: {{from: rows.csv, key: {typed}, types: {{{typed}: text}}}}
inputs:
  {typed}: {{value: {typed}}}
  Listed: {{value: [{typed}, x]}}
  Mapped: {{column: {typed}, map: {{{typed}: {typed}}}, default: {typed}, split: {typed}}}
  Block:
    columns:
      - {typed}
matrix:
  Location: [{typed}]
""",
    )
    assert pipeline.name == typed
    assert pipeline.rows.key == (typed,)
    assert pipeline.rows.types == {typed: "text"}
    assert pipeline.inputs == (
        InputRule(parameter=typed, source=Value(values=(typed,))),
        InputRule(parameter="Listed", source=Value(values=(typed, "x"))),
        InputRule(parameter="Mapped", source=Column(name=typed, split=typed), map={typed: typed}, default=typed),
        InputRule(parameter="Block", source=Columns(names=(typed,))),
    )
    assert pipeline.matrix == {"Location": (typed,)}


def test_text_of_several_lines_keeps_them(tmp_path: Path) -> None:
    text = MINIMAL + "  Prompt:\n    value: |\n      first: line\n\n      #second\n"
    assert load(tmp_path, text).inputs[1].source == Value(values=("first: line\n\n#second\n",))


def test_a_file_from_windows_loads(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    pipeline = load_pipeline(file, environ={}, today=dt.date(2026, 1, 31))
    assert pipeline.positions[("version",)] == FilePosition(1, 10)
    assert pipeline.inputs == (InputRule(parameter="Front", source=Column(name="front")),)


# Paths


def test_the_date_is_put_into_paths_and_nowhere_else(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        MINIMAL,
        "rows.from={date}/rows-{date}.csv",
        "results.manifest={date}.csv",
        "state=s/{date}",
        "inputs.Front={template: '{date}'}",
        "name={date}",
    )
    assert pipeline.rows.sources == (str(tmp_path / "2026-01-31" / "rows-2026-01-31.csv"),)
    assert pipeline.results.manifest == (tmp_path / "2026-01-31.csv",)
    assert pipeline.state == tmp_path / "s" / "2026-01-31"
    assert pipeline.inputs[0].source == Template(parts=("", "date", ""))
    assert pipeline.name == "{date}"


def test_the_sandbox_has_its_own_state_and_results(tmp_path: Path) -> None:
    pipeline = load(tmp_path, MINIMAL, "results.manifest=[out/x.v1.csv, y.parquet]", sandbox=True)
    assert pipeline.state == tmp_path / ".lamina-batch" / "catalog.sandbox"
    assert pipeline.results.manifest == (tmp_path / "out" / "x.v1.sandbox.csv", tmp_path / "y.sandbox.parquet")
    assert pipeline.name == "catalog"


def test_the_default_manifest_of_the_sandbox_is_its_own(tmp_path: Path) -> None:
    pipeline = load(tmp_path, MINIMAL, sandbox=True)
    assert pipeline.results.manifest == (tmp_path / "out" / "catalog.sandbox.csv",)


def test_a_folder_with_glob_characters_is_not_a_pattern(tmp_path: Path) -> None:
    pipeline = load(tmp_path, MINIMAL, "rows.from=[a.csv, '*.csv']", name="[2026]/catalog.yaml")
    assert pipeline.rows.sources == (str(tmp_path / "[2026]" / "a.csv"), f"{tmp_path}/[[]2026]/*.csv")


def test_the_parent_of_a_linked_folder_is_the_parent_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "real" / "pipelines").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "pipelines")
    pipeline = load(tmp_path, MINIMAL, "rows.from=../rows.csv", name="link/catalog.yaml")
    assert Path(pipeline.rows.sources[0]).resolve() == (tmp_path / "real" / "rows.csv").resolve()
    assert pipeline.file == tmp_path / "link" / "catalog.yaml"


def test_a_relative_file_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path, MINIMAL, name="a/catalog.yaml")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    pipeline = load_pipeline(Path("../a/catalog.yaml"), environ={}, today=dt.date(2026, 1, 31))
    assert pipeline.file == tmp_path / "a" / "catalog.yaml"


# Places


def test_every_value_has_its_place(tmp_path: Path) -> None:
    pipeline = load(
        tmp_path,
        """\
version: 1
app: an-app
rows:
  from: [a.csv,
         b.csv]
  key: sku
inputs:
  Front:
    column: front
  Side: {column: side}
""",
        "run.canary=1",
    )
    assert pipeline.positions == {
        (): FilePosition(1, 1),
        ("version",): FilePosition(1, 10),
        ("app",): FilePosition(2, 6),
        ("rows",): FilePosition(3, 1),
        ("rows", "from"): FilePosition(4, 9),
        ("rows", "from", 0): FilePosition(4, 10),
        ("rows", "from", 1): FilePosition(5, 10),
        ("rows", "key"): FilePosition(6, 8),
        ("inputs",): FilePosition(7, 1),
        ("inputs", "Front"): FilePosition(8, 3),
        ("inputs", "Front", "column"): FilePosition(9, 13),
        ("inputs", "Side"): FilePosition(10, 9),
        ("inputs", "Side", "column"): FilePosition(10, 18),
        ("run",): FilePosition(0, 0),
        ("run", "canary"): FilePosition(0, 0),
    }


def test_later_rooms_can_name_a_place(tmp_path: Path) -> None:
    pipeline = load(tmp_path, MINIMAL)
    error = pipeline.error(("inputs", "Front", "column"), "there is no column 'front'")
    assert str(error) == f"{pipeline.file}:5:19: inputs.Front.column: there is no column 'front'"


# --set


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("rows.where=a # b", "rows.where", "a # b"),
        ('rows.where="list price" > 10', "rows.where", '"list price" > 10'),
        ("rows.where='quoted'", "rows.where", "quoted"),
        ('rows.where="a": b', "rows.where", '"a": b'),
        ("name=0123", "name", "0123"),
        ("name=a=b", "name", "a=b"),
        ("name=null", "name", "null"),
        ("rows.separator=,", "rows.separator", ","),
        ("run.canary=4", "run.canary", 4),
        ("run.share_identical=false", "run.share_identical", False),
        ("run={canary: 5}", "run.canary", 5),
        ("rows.key=[a, b]", "rows.key", ("a", "b")),
    ],
)
def test_set_replaces_or_adds_a_value(tmp_path: Path, override: str, path: str, expected: object) -> None:
    value: object = load(tmp_path, MINIMAL, override)
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected


def test_set_finds_parameters_whose_names_hold_spaces_and_dots(tmp_path: Path) -> None:
    text = MINIMAL + "  Model Gender: {value: Female}\n  Dr. Look: {value: a}\n  Dr: {value: b}\n"
    pipeline = load(tmp_path, text, "inputs.Model Gender.value=Male", "inputs.Dr. Look.value=1:1")
    assert [rule.source for rule in pipeline.inputs[1:]] == [
        Value(values=("Male",)),
        Value(values=("1:1",)),
        Value(values=("b",)),
    ]


def test_set_reaches_into_lists_and_into_keys_without_a_value(tmp_path: Path) -> None:
    text = MINIMAL.replace("key: sku", "key: [a, b]") + "api:\n"
    pipeline = load(tmp_path, text, "rows.key.1=c", "api.auth=bearer")
    assert pipeline.rows.key == ("a", "c")
    assert pipeline.api.auth == "bearer"


def test_the_last_set_wins(tmp_path: Path) -> None:
    assert load(tmp_path, MINIMAL, "run.canary=1", "run.canary=2").run.canary == 2


def test_set_replaces_a_whole_rule(tmp_path: Path) -> None:
    rule = load(tmp_path, MINIMAL, "inputs.Front={value: x}").inputs[0]
    assert rule.source == Value(values=("x",))


def test_set_changes_only_one_of_two_aliases(tmp_path: Path) -> None:
    text = MINIMAL + "  A: &rule {value: x}\n  B: *rule\n"
    pipeline = load(tmp_path, text, "inputs.A.value=y")
    assert [rule.source for rule in pipeline.inputs[1:]] == [Value(values=("y",)), Value(values=("x",))]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rows.from", "--set: 'rows.from' has no =\n  write it as KEY=VALUE, such as --set rows.from=today.csv"),
        ("=x", "--set: a key of this path is empty"),
        ("rows.=x", "--set rows.: a key of this path is empty"),
        ("rows..from=x", "--set rows..from: a key of this path is empty"),
        ("app.x.y=z", "--set app.x.y: there is nothing to name `x.y` in"),
        ("rows.key.0=z", "--set rows.key.0: there is nothing to name `0` in"),
        ("inputs.Many.value.2=z", "--set inputs.Many.value.2: '2' is no item of this list of 2"),
        ("inputs.Many.value.x=z", "--set inputs.Many.value.x: 'x' is no item of this list of 2"),
        ("run.canary={a", "--set run.canary: this is not YAML"),
        ("rows.from=[a", "--set rows.from: this is not YAML"),
        ("run.canary=!!int 3", "--set run.canary: the tag"),
        ("run.canari=1", "--set: run.canari: is not a known key\n  did you mean 'canary'?"),
        ("run.canary=few", "--set: run.canary: must be a whole number of at least 0, is 'few'"),
        ("rows.from=", "--set: rows.from: has no value"),
    ],
)
def test_a_set_that_cannot_be_applied_says_why(tmp_path: Path, override: str, message: str) -> None:
    text = MINIMAL + "  Many: {value: [a, b]}\n"
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text, override)
    assert str(caught.value).startswith(message)


def test_a_second_source_by_set_says_how_to_replace_the_rule(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as caught:
        load(tmp_path, MINIMAL, "inputs.Front.value=X")
    assert caught.value.what == "inputs.Front: gives `column` and `value`, and takes only one"
    assert caught.value.hint == '--set "inputs.Front={value: ...}" replaces the whole rule'


# ${NAME}


def test_the_environment_is_read_into_values_and_not_into_keys(tmp_path: Path) -> None:
    text = MINIMAL + '  ${A}: {value: "${A}-$$-$5-$-${B}", }\n'
    pipeline = load(tmp_path, text, "name=${A}", environ={"A": "x", "B": "${A}"})
    assert pipeline.inputs[1] == InputRule(parameter="${A}", source=Value(values=("x-$-$5-$-${A}",)))
    assert pipeline.name == "x"


def test_an_unquoted_number_from_the_environment_is_a_number(tmp_path: Path) -> None:
    assert (
        load(
            tmp_path, MINIMAL + "run: {canary: 0, max_executions: 9}\n", "run.canary=${N}", environ={"N": "7"}
        ).run.canary
        == 7
    )
    with pytest.raises(PipelineError, match="must be a whole number"):
        load(tmp_path, MINIMAL + 'run: {canary: "${N}"}\n', environ={"N": "7"})


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("${NOWHERE}", "the environment variable NOWHERE is not set"),
        ("${}", "'' cannot be an environment variable"),
        ("${a b}", "'a b' cannot be an environment variable"),
        ("${A", "a ${ is not closed"),
    ],
)
def test_a_reference_that_cannot_be_read_is_an_error_with_its_place(tmp_path: Path, value: str, what: str) -> None:
    with pytest.raises(PipelineError) as caught:
        load(tmp_path, MINIMAL + f"  Prompt: {{value: '{value}'}}\n")
    assert caught.value.what == f"inputs.Prompt.value: {what}"
    assert caught.value.where == f"{tmp_path / 'catalog.yaml'}:6:19"
    assert "$$" in str(caught.value.hint)


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"), [("150ms", 0.15), ("3s", 3.0), ("45m", 2700.0), ("2h", 7200.0), ("0s", 0.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "3", "s", "1.5h", "1h30m", "-3s", "3 s", "3s\n", "٣s", "9999999h"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


# Whom a run tells


def test_whom_a_run_tells_and_of_what(tmp_path: Path) -> None:
    environ = {"HOOK": "https://chat.example.com/T0/B0"}
    text = f"{MINIMAL}notify: {{url: '${{HOOK}}', on: [failure, partial]}}\n"
    notify = load(tmp_path, text, environ=environ).notify
    assert notify == Notify(url=environ["HOOK"], on=("failure", "partial"))
    assert environ["HOOK"] not in repr(notify)
    assert load(tmp_path, text.replace(", on: [failure, partial]", ""), environ=environ).notify == Notify(
        url=environ["HOOK"], on=("success", "partial", "failure")
    )
    assert load(tmp_path, MINIMAL).notify is None


def test_a_run_with_results_of_its_own_tells_nobody_unless_asked(tmp_path: Path) -> None:
    text = f"{MINIMAL}notify: {{url: https://a.example, on: [failure]}}\n"
    assert load(tmp_path, text, sandbox=True).notify is None
    asked = load(tmp_path, text, "notify.url=https://b.example", sandbox=True).notify
    assert asked == Notify(url="https://b.example", on=("failure",))
    asked = load(tmp_path, MINIMAL, "notify={url: https://b.example}", sandbox=True).notify
    assert asked == Notify(url="https://b.example")
