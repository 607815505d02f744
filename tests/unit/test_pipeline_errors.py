"""What is wrong with a pipeline file is said with its line, its column and the next step."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from lamina_batch.errors import PipelineError
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.pipeline.problems import MAX_PROBLEMS_SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MINIMAL = """\
version: 1
app: an-app
rows: {from: rows.csv, key: sku}
inputs:
  Front: {column: front}
"""


def refusal(
    folder: Path, content: str | bytes, *overrides: str, environ: Mapping[str, str] | None = None
) -> PipelineError:
    file = folder / "catalog.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PipelineError) as caught:
        load_pipeline(file, overrides=overrides, environ=environ or {}, today=dt.date(2026, 1, 31))
    assert caught.value.exit_code == 2
    return caught.value


def told(error: PipelineError, folder: Path) -> str:
    """The error as the user reads it, without the folder."""
    return str(error).replace(f"{folder / 'catalog.yaml'}", "catalog.yaml")


# The file itself


def test_a_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").touch()
    with pytest.raises(PipelineError) as caught:
        load_pipeline(tmp_path / "catalogue.yaml", environ={}, today=dt.date(2026, 1, 31))
    assert str(caught.value) == (
        f"{tmp_path / 'catalogue.yaml'}: there is no such file\n  did you mean 'catalog.yaml'?"
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such file") as caught:
        load_pipeline(tmp_path / "nowhere" / "catalog.yaml", environ={}, today=dt.date(2026, 1, 31))
    assert caught.value.hint == f"there is no folder {tmp_path / 'nowhere'} either"


def test_a_catalog_is_told_how_a_pipeline_begins(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="this is a catalog") as caught:
        load_pipeline(tmp_path / "products.csv", environ={}, today=dt.date(2026, 1, 31))
    assert caught.value.hint == f"`lamina-batch init --rows {tmp_path / 'products.csv'} --app ID` begins one"


def test_a_folder_is_no_pipeline_file(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="this is a folder"):
        load_pipeline(tmp_path, environ={}, today=dt.date(2026, 1, 31))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "catalog.yaml: the file is empty\n  a pipeline file begins", id="empty"),
        pytest.param(b"# nothing\n", "catalog.yaml: the file is empty", id="only comments"),
        pytest.param(b"- a\n", "catalog.yaml:1:1: a pipeline file is a mapping", id="a list"),
        pytest.param(b"\n hello\n", "catalog.yaml:2:2: a pipeline file is a mapping", id="a text"),
        pytest.param(
            "version: 1\nname: Été\n".encode("latin-1"),
            "catalog.yaml:2:7: byte 0xC9 is not UTF-8\n  save the file as UTF-8",
            id="latin-1",
        ),
        pytest.param("version: 1".encode("utf-16"), "catalog.yaml:1:1: byte 0xFF is not UTF-8", id="utf-16"),
        pytest.param(b"version: 1\nname: a\x00b\n", "catalog.yaml:2:8: the character U+0000 cannot stand", id="nul"),
        pytest.param(
            "name: 'a\u2028b'\n".encode(),
            "catalog.yaml:1:9: the character U+2028 cannot stand in a pipeline file\n  delete it (many editors do not "
            'show it), or write it in double quotes as "\\u2028"',
            id="line separator",
        ),
        pytest.param(b"#" * ((1 << 20) + 1), "catalog.yaml: the file is larger than 1 MiB", id="large"),
        pytest.param(
            b"rows:\n\tkey: sku\n",
            "catalog.yaml:2:1: this is not YAML: found character '\\t' that cannot start any token while scanning "
            "for the next token\n  YAML is indented with spaces: replace the tab",
            id="tab",
        ),
        pytest.param(
            b"rows: {from: {date}.csv}\n",
            "catalog.yaml:1:20: this is not YAML: expected ',' or '}', but got '<scalar>' while parsing a flow "
            "mapping\n  put a text that holds { } [ ] or , in quotes, and close every bracket",
            id="braces",
        ),
        pytest.param(
            b"name: a: b\n",
            "catalog.yaml:1:8: this is not YAML: mapping values are not allowed here\n  put a text that holds `: `",
            id="colon",
        ),
        pytest.param(
            b"rows:\n  from: *.csv\n",
            "catalog.yaml:2:10: this is not YAML: expected alphabetic or numeric character, but found '.' while "
            "scanning an alias\n  put a text that begins with * or & in quotes",
            id="glob",
        ),
        pytest.param(
            b"name: *x\n",
            "catalog.yaml:1:7: this is not YAML: found undefined alias 'x'\n  put a text that begins with *",
            id="alias",
        ),
        pytest.param(
            b'name: "a\n',
            "catalog.yaml:2:1: this is not YAML: found unexpected end of stream while scanning a quoted scalar\n"
            "  a quote is not closed",
            id="open quote",
        ),
        pytest.param(
            b"rows: {key: sku\n",
            "catalog.yaml:2:1: this is not YAML: expected ',' or '}', but got '<stream end>' while parsing a flow "
            "mapping\n  a bracket is not closed",
            id="open bracket",
        ),
        pytest.param(
            b"version: 1\n---\nversion: 1\n",
            "catalog.yaml:2:1: this is not YAML: but found another document expected a single document in the "
            "stream\n  keep one document",
            id="two documents",
        ),
        pytest.param(
            b'name: "\\UFFFFFFFF"\n', "catalog.yaml: an escape in a quoted text names no character", id="escape"
        ),
        pytest.param(
            b"version: 1\nrun:\n  canary: 1\n  canary: 2\n",
            "catalog.yaml:4:3: the key 'canary' stands here a second time; the first is in line 3, column 3\n"
            "  keep one of the two",
            id="duplicate key",
        ),
        pytest.param(
            b"version: !!str 1\napp: !!python/object/apply:os.system [id]\n",
            "catalog.yaml:2:6: the tag 'tag:yaml.org,2002:python/object/apply:os.system' has no meaning here",
            id="tag",
        ),
        pytest.param(b"? [a]\n: b\n", "catalog.yaml:1:3: a key must be text", id="list as key"),
        pytest.param(
            b"a: &a {b: c}\nd:\n  <<: *a\n", "catalog.yaml:3:3: merge keys (<<) are not supported", id="merge key"
        ),
    ],
)
def test_what_cannot_be_read_as_a_pipeline_file(tmp_path: Path, content: bytes, message: str) -> None:
    assert told(refusal(tmp_path, content), tmp_path).startswith(message)


BILLION_LAUGHS = "\n".join(
    ["a0: &a0 [[], []]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30))]
)
LONG_LAUGHS = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(BILLION_LAUGHS, "the file is too large once its aliases are followed", id="many"),
        pytest.param(LONG_LAUGHS, "the file is too large once its aliases are followed", id="long"),
        pytest.param("a: &a [*a]\n", "values stand inside each other more than 32 levels deep", id="itself"),
        pytest.param("a: " + "[" * 40 + "]" * 40, "values stand inside each other", id="deep"),
        pytest.param("a: " + "[" * 100_000, "values stand inside each other", id="very deep"),
    ],
)
def test_a_yaml_bomb_is_refused(tmp_path: Path, content: str, what: str) -> None:
    assert refusal(tmp_path, content).what.startswith(what)


def test_a_plain_alias_is_no_bomb(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(MINIMAL.replace("sku", "&key sku") + "  Sku: {column: *key}\n")
    pipeline = load_pipeline(file, environ={}, today=dt.date(2026, 1, 31))
    assert pipeline.rows.key == ("sku",)
    assert pipeline.inputs[1].parameter == "Sku"


# The schema, in words


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("nam: x", "6:1: nam: is not a known key\n  did you mean 'name'?"),
        ("canary: 3", "6:1: canary: is not a known key\n  `canary` stands below `run`"),
        ("zzz: 3", "6:1: zzz: is not a known key\n  known here: version, name, app, rows,"),
        ("run: {max_inflight: 3}", "6:7: run.max_inflight: is not a known key\n  did you mean 'max_in_flight'?"),
        ("run: {max_in_flight: abc}", "6:22: run.max_in_flight: must be a whole number from 1 to 10000, is 'abc'"),
        ("run: {max_in_flight: 0}", "6:22: run.max_in_flight: must be a whole number from 1 to 10000, is 0"),
        ("run: {max_in_flight: 10001}", "6:22: run.max_in_flight: must be a whole number from 1 to 10000, is 10001"),
        ("run: {max_in_flight: 1.5}", "6:22: run.max_in_flight: must be a whole number from 1 to 10000, is 1.5"),
        (
            "run: {max_in_flight: '5'}",
            "6:22: run.max_in_flight: must be a whole number from 1 to 10000, is '5'\n  write it without quotes",
        ),
        ("run: {max_in_flight: true}", "6:22: run.max_in_flight: must be a whole number from 1 to 10000, is true"),
        ("run: {requests_per_minute: often}", "6:28: run.requests_per_minute: must be auto or a whole number"),
        ("run: {requests_per_minute: 0}", "6:28: run.requests_per_minute: must be auto or a whole number"),
        ("run: {share: 0}", "6:14: run.share: must be a number above 0 and at most 1, is 0"),
        ("run: {share: 1.5}", "6:14: run.share: must be a number above 0 and at most 1, is 1.5"),
        ("run: {share_identical: yes}", "6:24: run.share_identical: must be true or false, is 'yes'"),
        (
            "run: {on_unknown: resubmitt}",
            "6:19: run.on_unknown: must be hold or resubmit, is 'resubmitt'\n  did you mean 'resubmit'?",
        ),
        ("run: {max_executions: 0}", "6:23: run.max_executions: must be a whole number of at least 1, is 0"),
        ("run: {canary: -1}", "6:15: run.canary: must be a whole number of at least 0, is -1"),
        ("run: {max_failures: 120%}", "6:21: run.max_failures: must be a whole number, a share such as 20%, or null"),
        ("run: {max_failures: 0.2}", "6:21: run.max_failures: must be a whole number, a share such as 20%, or null"),
        (
            "run: {credits_per_execution: -1}",
            "6:30: run.credits_per_execution: must be a number of at least 0, or null, is -1",
        ),
        (
            "run: {execution_timeout: 45}",
            "6:26: run.execution_timeout: must be a duration such as 150ms, 3s, 45m or 2h, is '45'",
        ),
        ("run: {request_timeout: 0s}", "6:24: run.request_timeout: must be a duration such as"),
        ('run: {request_timeout: "3s\\n"}', "6:24: run.request_timeout: must be a duration such as"),
        ("run: {poll: {min_interval: 500ms}}", "6:28: run.poll.min_interval: must be at least 1s"),
        (
            "run: {poll: {min_interval: 2m}}",
            "6:13: run.poll.max_interval: must be at least as long as min_interval, 120s, is 60s",
        ),
        ("run: {poll: {max_interval: 200ms}}", "6:28: run.poll.max_interval: must be at least as long as"),
        ("run:", "6:5: run: has no value\n  write its keys below it, indented, or take it out"),
        ("run: fast", "6:6: run: must be a mapping of keys, is 'fast'"),
        ("api: {auth: Bearer}", "6:13: api.auth: must be x-api-key or bearer, is 'Bearer'\n  did you mean 'bearer'?"),
        ("name:", "6:6: name: has no value\n  write a value after the colon, or take the key out"),
        ("name: ''", "6:7: name: must be one line of text without control characters, is ''"),
        ('name: "a\\e[2J"', "6:7: name: must be one line of text without control characters, is 'a\\x1b[2J'"),
        ("state: [a]", "6:8: state: must be a path on this machine, is a list"),
        ('state: "a\\0b"', "6:8: state: must be a path on this machine, is 'a\\x00b'"),
        ("results: {manifest: []}", "6:21: results.manifest: is empty\n  give at least one, or take the key out"),
        ("results: {manifest: [a.csv, a.csv]}", "6:21: results.manifest: lists 'a.csv' twice\n  keep one"),
        ("results: {manifest: [a.csv, ./a.csv]}", "6:29: results.manifest.1: "),
        ("results: {manifest: a.xls}", "6:21: results.manifest: 'a.xls' ends in '.xls', which says nothing"),
        ("results: {manifest: out}", "6:21: results.manifest: 'out' has no extension, which says nothing"),
        ("results: {manifest: rows.csv}", "6:21: results.manifest: would replace the rows it is made from"),
        ("results: {layout: tall}", "6:19: results.layout: must be wide or long, is 'tall'"),
        ("matrix: {Location: Studio}", "6:20: matrix.Location: must be a list, is 'Studio'\n  write [Studio]"),
        ("matrix: {Location: []}", "6:20: matrix.Location: is empty"),
        ("matrix: {Location: [a, a]}", "6:20: matrix.Location: lists 'a' twice"),
        ("matrix: {Location: [a, '']}", "6:24: matrix.Location.1: must be text that is not empty, is ''"),
        ("matrix: {Location: [a, {b: c}]}", "6:24: matrix.Location.1: must be text that is not empty, is a mapping"),
        (
            "matrix: {Front: [a]}",
            "6:10: matrix.Front: is the same parameter as 'Front' in `inputs`\n  keep one of them; case",
        ),
        ("matrix: {' front ': [a]}", "6:10: matrix. front : is the same parameter as 'Front' in `inputs`"),
        ('matrix: {Location: "a\\eb"}', "6:20: matrix.Location: must be a list, is 'a\\x1bb'\n  write ['a\\x1bb']"),
        ('"a\\eb": 1', "6:1: 'a\\x1bb': is not a known key"),
        ('name: "\\uD83D"', "6:7: name: the text holds half of a character"),
    ],
)
def test_a_wrong_value_or_key(tmp_path: Path, added: str, message: str) -> None:
    assert told(refusal(tmp_path, f"{MINIMAL}{added}\n"), tmp_path).startswith(f"catalog.yaml:{message}")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            "front_image_url",
            (
                "6:6: inputs.X: must be a rule such as {column: name}, with exactly one of column, columns, value, "
                "template and sql, is 'front_image_url'\n  write {column: front_image_url}, or {value: front_image_url}"
            ),
        ),
        ("[a, b]", "6:6: inputs.X: must be a rule such as"),
        ("", "6:5: inputs.X: has no value"),
        ("{}", "6:6: inputs.X: does not say where the value comes from\n  give one of column, columns, value,"),
        ("{default: x}", "6:6: inputs.X: does not say where the value comes from"),
        ("{token: x}", "6:7: inputs.X.token: is not a known key"),
        ("{colum: x}", "6:7: inputs.X.colum: is not a known key\n  did you mean 'column'?"),
        (
            "{column: a, template: '{b}'}",
            "6:6: inputs.X: gives `column` and `template`, and takes only one\n  keep one",
        ),
        ("{value: }", '6:13: inputs.X.value: has no value\n  write a value after the colon; "" is an empty text'),
        ("{value: []}", "6:14: inputs.X.value: is empty"),
        ("{value: [a, ]}\n  Y: {value: [a, {b: c}]}", "7:18: inputs.Y.value.1: must be text, is a mapping"),
        ("{column: [a, b]}", "6:15: inputs.X.column: must be text that is not empty, is a list\n  write columns"),
        ("{columns: a}", "6:16: inputs.X.columns: must be a list, is 'a'\n  write column for one column"),
        ("{columns: [a, a]}", "6:16: inputs.X.columns: lists 'a' twice"),
        ("{column: ''}", "6:15: inputs.X.column: must be text that is not empty, is ''"),
        ("{column: a, blank: skip}", "6:25: inputs.X.blank: must be app_default or skip_row, is 'skip'"),
        ("{column: a, map: [b]}", "6:23: inputs.X.map: must be a mapping of keys, is a list"),
        ("{column: a, map: {b: }}", "6:26: inputs.X.map.b: has no value"),
        ("{column: a, map: {}}", "6:23: inputs.X.map: is empty"),
        ("{column: a, split: ''}", "6:25: inputs.X.split: must be text that is not empty"),
        ("{columns: [a], split: ','}", "6:28: inputs.X.split: does not go with columns\n  map goes with column and"),
        ("{value: a, default: b}", "6:26: inputs.X.default: does not go with value"),
        ("{value: a, map: {b: c}}", "6:22: inputs.X.map: does not go with value"),
        ("{value: a, blank: skip_row}", "6:24: inputs.X.blank: does not go with value"),
        ("{value: a, split: b}", "6:24: inputs.X.split: does not go with value"),
        ("{template: '{a}', map: {b: c}}", "6:29: inputs.X.map: does not go with template"),
        ("{template: '{a}', split: b}", "6:31: inputs.X.split: does not go with template"),
        ("{sql: a, map: {b: c}}", "6:20: inputs.X.map: does not go with sql"),
        ("{sql: a, split: b}", "6:22: inputs.X.split: does not go with sql"),
        ("{sql: ''}", "6:12: inputs.X.sql: must be text that is not empty, is ''"),
        ("{template: plain}", "6:17: inputs.X.template: this template names no column\n  for a fixed text write"),
        ("{template: 'a {b'}", "6:17: inputs.X.template: the { at character 3 has no partner\n  write {column}"),
    ],
)
def test_a_wrong_rule(tmp_path: Path, rule: str, message: str) -> None:
    assert f"catalog.yaml:{message}" in told(refusal(tmp_path, f"{MINIMAL}  X: {rule}\n"), tmp_path)


def test_two_inputs_that_differ_only_in_case_or_spaces(tmp_path: Path) -> None:
    error = refusal(tmp_path, f"{MINIMAL}  Model  Gender: {{value: a}}\n  'model gender ': {{value: b}}\n")
    assert told(error, tmp_path).startswith(
        "catalog.yaml:7:3: inputs.model gender : is the same parameter as 'Model  Gender' in `inputs`"
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{from: a.csv}", "3:7: rows.key: is missing\n  for example key: sku"),
        ("{key: sku}", "3:7: rows.from: is missing\n  for example from: catalog.csv"),
        ("{from: a.csv, key: }", "3:25: rows.key: has no value"),
        ("{from: a.csv, key: []}", "3:26: rows.key: is empty"),
        ("{from: a.csv, key: [a, a]}", "3:26: rows.key: lists 'a' twice"),
        (
            "{from: a.xls, key: sku}",
            (
                "3:14: rows.from: 'a.xls' ends in '.xls', which says nothing about its format\n  "
                "known: .csv, .tsv, .parquet, .ndjson, .jsonl"
            ),
        ),
        ("{from: [a.csv, 'b/*'], key: sku}", "3:22: rows.from.1: 'b/*' has no extension"),
        ("{from: 's3://bucket/a.csv', key: sku}", "3:14: rows.from: must be a path on this machine, or a list of"),
        ("{from: {a: b}, key: sku}", "3:14: rows.from: must be a path on this machine, or a list of paths, is a map"),
        ("{from: a.csv, key: sku, where: ''}", "3:38: rows.where: must be text that is not empty, is ''"),
        ("{from: a.csv, key: sku, types: {a: flot}}", "3:42: rows.types.a: must be text, integer, int, float,"),
        ("{from: a.csv, key: sku, encoding: utf-9}", "3:41: rows.encoding: 'utf-9' is not a known text encoding"),
        ("{from: a.csv, key: sku, encoding: hex}", "3:41: rows.encoding: 'hex' is not a known text encoding"),
        ("{from: a.csv, key: sku, encoding: locale}", "3:41: rows.encoding: 'locale' is not a known text encoding"),
        ("{from: a.csv, key: sku, separator: ;;}", "3:42: rows.separator: must be auto, tab or one ASCII character"),
        ("{from: a.csv, key: sku, separator: §}", "3:42: rows.separator: must be auto, tab or one ASCII character"),
        ("{from: a.csv, key: sku, separator: '\"'}", "3:42: rows.separator: must be auto, tab or one ASCII"),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: str, message: str) -> None:
    content = MINIMAL.replace("{from: rows.csv, key: sku}", rows)
    assert told(refusal(tmp_path, content), tmp_path).startswith(f"catalog.yaml:{message}")


@pytest.mark.parametrize(
    ("app", "shown"), [("a/b", "'a/b'"), ("a b", "'a b'"), ("..", "'..'"), ("''", "''"), ("a?b", "'a?b'")]
)
def test_an_app_id_that_would_not_stay_one_part_of_an_address(tmp_path: Path, app: str, shown: str) -> None:
    error = refusal(tmp_path, MINIMAL.replace("an-app", app))
    assert told(error, tmp_path) == (
        f"catalog.yaml:2:6: app: must be an app id such as bbb17293-5fe7-4645-8c6e-0745bc28254d, is {shown}"
    )


@pytest.mark.parametrize("version", ["2", "'1'", "one", "true"])
def test_another_version(tmp_path: Path, version: str) -> None:
    error = refusal(tmp_path, MINIMAL.replace("version: 1", f"version: {version}"))
    assert "catalog.yaml:1:10: version: must be " in told(error, tmp_path)


def test_what_is_missing_at_the_top_is_listed_with_examples(tmp_path: Path) -> None:
    assert told(refusal(tmp_path, "name: x\n"), tmp_path) == (
        "catalog.yaml: 4 problems\n"
        "  catalog.yaml:1:1: version: is missing\n"
        "    for example version: 1\n"
        "  catalog.yaml:1:1: app: is missing\n"
        "    for example app: bbb17293-5fe7-4645-8c6e-0745bc28254d\n"
        "  catalog.yaml:1:1: rows: is missing\n"
        "    for example rows: {from: catalog.csv, key: sku}\n"
        "  catalog.yaml:1:1: inputs: is missing\n"
        "    for example inputs: {Front: {column: front_image_url}}"
    )


def test_all_problems_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        "version: 1\nnam: x\napp: an-app\nrows: {from: a.csv}\ninputs:\n  A: b\nrun: {canary: '${NO}', shar: 1}\n",
        "run.max_executions=none",
    )
    places = [
        line.split(": ")[0].strip()
        for line in told(error, tmp_path).splitlines()
        if line.startswith("  ") and not line.startswith("    ")
    ]
    assert places == [
        "--set",
        "catalog.yaml:2:1",
        "catalog.yaml:4:7",
        "catalog.yaml:6:6",
        "catalog.yaml:7:15",
        "catalog.yaml:7:24",
    ]


def test_a_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    error = refusal(tmp_path, MINIMAL + "".join(f"unknown{n}: 1\n" for n in range(MAX_PROBLEMS_SHOWN + 5)))
    assert error.what.startswith(f"{MAX_PROBLEMS_SHOWN + 5} problems")
    assert error.what.endswith("and 5 more")
    assert error.what.count("is not a known key") == MAX_PROBLEMS_SHOWN


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    error = refusal(tmp_path, MINIMAL + f"run: {{canary: {'x' * 5000}}}\n")
    assert error.what == f"run.canary: must be a whole number of at least 0, is '{'x' * 59}…'"


# Whom a run tells


@pytest.mark.parametrize(
    "url",
    ["hook-secret", "ftp://hook-secret", "http://[hook-secret", "https://a:hook-secret@b", "https://b:hook-secret/"],
)
def test_an_address_to_notify_that_is_none_is_not_repeated(tmp_path: Path, url: str) -> None:
    error = refusal(tmp_path, f"{MINIMAL}notify: {{url: '${{HOOK}}'}}\n", environ={"HOOK": url})
    assert error.where == f"{tmp_path / 'catalog.yaml'}:6:15"
    assert "http or https" in error.what
    assert "hook-secret" not in str(error)


def test_an_address_to_notify_with_a_line_end_is_not_repeated(tmp_path: Path) -> None:
    error = refusal(tmp_path, f"{MINIMAL}notify: {{url: '${{HOOK}}'}}\n", environ={"HOOK": "https://b/hook-secret\n"})
    assert error.what == "notify.url: must be one line of text without control characters"


@pytest.mark.parametrize(
    ("added", "what"),
    [
        ("notify: {on: [failure]}", "notify.url: is missing"),
        ("notify: {url: 'https://b', on: []}", "notify.on: is empty"),
        (
            "notify: {url: 'https://b', on: [failures]}",
            "notify.on.0: must be success, partial or failure, is 'failures'",
        ),
        ("run: {webhook: {public_url: 'http://['}}", "run.webhook.public_url: must be an http or https address"),
    ],
)
def test_what_notify_and_webhooks_lack_is_told(tmp_path: Path, added: str, what: str) -> None:
    assert refusal(tmp_path, f"{MINIMAL}{added}\n").what.startswith(what)


# Keys and secrets

KEY = "lma_0123456789abcdef"


@pytest.mark.parametrize(
    "content",
    [
        f"name: {KEY}\n",
        f"name: before{KEY}after\n",
        f'name: "\\x6cma_{KEY[4:]}"\n',
        f"{KEY}: x\n",
        f"run: {{canary: {KEY}}}\n",
        f"api: {{auth: {KEY}}}\n",
        f"notify: {{url: 'https://example.com/?key={KEY}'}}\n",
        f"  X: {{value: {KEY}}}\n",
        f"  X: {{column: x, map: {{{KEY}: x}}}}\n",
        f"  {KEY}: x\n",
        f"matrix: {{X: [a, {KEY}]}}\n",
        f"name: ${{{KEY}}}\n",
        "name: ${INDIRECT}\n",
        "name: ${LAMINA_API_KEY}\n",
    ],
)
def test_a_key_in_the_file_is_refused_and_never_shown(tmp_path: Path, content: str) -> None:
    environ = {"INDIRECT": KEY, "LAMINA_API_KEY": "another-shape"}
    error = refusal(tmp_path, f"{MINIMAL}{content}wrong: 1\n", environ=environ)
    assert "LAMINA_API_KEY" in str(error.hint)
    assert f"{tmp_path / 'catalog.yaml'}:6:" in str(error)
    assert "0123456789" not in str(error)
    assert "another-shape" not in str(error)


@pytest.mark.parametrize(
    "content",
    [
        f"name: *{KEY}\n",
        f"name: &{KEY} x\nstate: &{KEY} y\n",
        f"{KEY}: x\n{KEY}: y\n",
        f"name: !{KEY} x\n",
        f"name: [{KEY}\n",
        f"name: %{KEY}\n",
    ],
)
def test_a_key_in_a_file_that_cannot_be_read_is_not_shown_either(tmp_path: Path, content: str) -> None:
    assert "0123456789" not in str(refusal(tmp_path, f"{MINIMAL}{content}"))


@pytest.mark.parametrize("override", [f"name={KEY}", f"{KEY}.x=1", f"rows.{KEY}.x=1", f"inputs.X=[{KEY}"])
def test_a_key_on_the_command_line_is_not_shown_either(tmp_path: Path, override: str) -> None:
    assert "0123456789" not in str(refusal(tmp_path, MINIMAL, override))


@pytest.mark.parametrize(
    "added",
    [
        "api: {key: hunter22}",
        "api: {api_key: hunter22}",
        "api-key: hunter22",
        "apikey: hunter22",
        "api: {token: hunter22}",
        "run: {webhook_secret: hunter22}",
        "rows2: x\npassword: hunter22",
    ],
)
def test_a_key_named_like_a_secret_is_refused_and_its_value_never_shown(tmp_path: Path, added: str) -> None:
    error = refusal(tmp_path, f"{MINIMAL}{added}\n")
    assert "do not belong in a pipeline file" in str(error)
    assert "LAMINA_API_KEY" in str(error)
    assert "hunter22" not in str(error)


def test_parameters_and_columns_may_be_named_like_secrets(tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    file.write_text(
        MINIMAL.replace("key: sku}", "key: token, types: {secret: text}}")
        + "  Password: {column: secret, map: {token: key}}\nmatrix: {Token: [secret]}\n"
    )
    load_pipeline(file, environ={}, today=dt.date(2026, 1, 31))


def test_what_nobody_has_filled_in_is_told_once_with_all_its_lines(tmp_path: Path) -> None:
    content = (
        MINIMAL.replace("sku", "FILL_IN") + "  Style: {column: style, map: {a: FILL_IN, FILL_IN: b}}\nname: FILL_IN?\n"
    )
    assert told(refusal(tmp_path, content), tmp_path) == (
        "catalog.yaml:3:29: 2 places are still to be filled in: rows.key (line 3), inputs.Style.map.a (line 6)\n"
        "  replace FILL_IN with a value; the comments above it say which values fit"
    )
    assert "1 place is" in told(refusal(tmp_path, content, "rows.key=sku"), tmp_path)
