"""docs/safety.md where nothing is asked of a service: the shell, the pipeline file, templates, SQL."""

from __future__ import annotations

import itertools
import os
import tempfile
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import quote

import click
import pytest
from click.testing import CliRunner
from hostile import EVIL, inside
from process import PIPELINE, Cli, environment

from lamina_batch.catalog.sql import WHERE, parse_sql
from lamina_batch.cli.shell import Group, out, out_document, redact_secret, sanitize, say
from lamina_batch.errors import PipelineError
from lamina_batch.pipeline.load import load_pipeline
from lamina_batch.pipeline.problems import API_KEY_PATTERN
from lamina_batch.pipeline.template import parse_template

if TYPE_CHECKING:
    from pathlib import Path

    from hostile import Raw

#: Every character of it is one that a key may hold, and some are written otherwise in a URL or in JSON.
KEY = "lma_KeyOfNobody+/=0123456789"
IN_URL = quote(KEY, safe="")
TODAY = date(2026, 11, 23)
#: A text cannot hold a NUL in an argument or a file name.
EVIL_NAME = EVIL.replace("\0", "").replace("/", "")[:100]


@pytest.fixture
def here(project: Path) -> Cli:
    """The command line in a folder with a pipeline; whoever asks the service finds nobody there."""
    return Cli(
        folder=project,
        env={**environment(LAMINA_API_KEY=KEY), "LAMINA_BASE_URL": "http://127.0.0.1:9", "TMPDIR": str(project)},
    )


def shown(ran: Raw) -> bool:
    return any(form in ran.text for form in (KEY, IN_URL, KEY.partition("+")[0]))


# -- the key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "p.yaml", "--base-url", KEY),
        ("validate", "p.yaml", "--base-url", f"https://someone:{KEY}@example.com/?x"),
        ("validate", f"{KEY}.yaml"),
        ("validate", "p.yaml", KEY),
        ("validate", "p.yaml", f"--{KEY}"),
        ("apps", KEY, "x"),
        (f"--{KEY}",),
        (KEY,),
    ],
    ids=lambda words: " ".join(words).replace(KEY, "KEY"),
)
def test_a_key_in_the_wrong_place_is_not_shown(here: Cli, words: tuple[str, ...]) -> None:
    ran = inside(here, *words)
    assert ran.code == 2, ran.text
    assert KEY not in ran.text
    assert IN_URL not in ran.text


@pytest.mark.parametrize(
    "override",
    [
        f"api.key={KEY}",
        f"{KEY}=x",
        KEY,
        f"name={KEY}",
        f"inputs.Prompt.value={KEY}",
        f"inputs.{KEY}.value=x",
        f"rows.from={KEY}.csv",
        f"rows.where=sku = '{KEY}'",
        f"results.manifest={KEY}.csv",
        "name=${LAMINA_API_KEY}",
        "inputs.Prompt.value=${LAMINA_API_KEY}",
        "rows.from=${LAMINA_API_KEY}.csv",
        "notify={url: 'https://example.com/?k=${LAMINA_API_KEY}'}",
    ],
    ids=lambda override: override.replace(KEY, "KEY"),
)
def test_a_key_in_an_override_is_refused_and_not_shown(here: Cli, override: str) -> None:
    ran = inside(here, "run", "p.yaml", "--set", override)
    assert (ran.code, shown(ran)) == (2, False), ran.text
    assert b"API key" in ran.err


@pytest.mark.parametrize("line", ["name: {}", "{}: x", "notify: {{url: 'https://example.com/?k={}'}}", "name: [{}"])
def test_a_key_in_the_pipeline_file_is_refused_and_not_shown(here: Cli, line: str) -> None:
    (here.folder / "p.yaml").write_text(PIPELINE + line.format(KEY) + "\n")
    ran = inside(here, "run", "p.yaml")
    assert (ran.code, shown(ran)) == (2, False), ran.text


def test_what_is_concealed_is_cut_out_of_all_that_a_command_prints_and_of_a_crash_log(tmp_path: Path) -> None:
    """A key out of the official tool's file is known to the command only."""

    @click.group(cls=Group)
    def group() -> None: ...

    @group.command()
    def leak() -> None:
        redact_secret(KEY)
        say(f"said {KEY} {IN_URL}")
        out(f"out {KEY}")
        out_document(f'{{"x": "{KEY}"}}')
        local = KEY
        raise RuntimeError(f"bug with {local}, {IN_URL} and half a \ud83d character")

    tempfile.tempdir = str(tmp_path)
    try:
        done = CliRunner().invoke(group, ["leak"])
    finally:
        tempfile.tempdir = None
    assert done.exit_code == 1
    assert "said [key] [key]" in done.stderr
    assert done.stdout == 'out [key]\n{"x": "[key]"}\n'
    assert "this is a bug in lamina-batch: RuntimeError: bug with [key], [key]" in done.stderr
    [log] = tmp_path.glob("lamina-batch-crash-*.log")
    text = log.read_text()
    assert "Traceback" in text
    assert "bug with [key], [key] and half a \\ud83d character" in text
    assert not API_KEY_PATTERN.search(text.replace("[key]", ""))


def test_a_key_of_the_environment_is_cut_out_without_being_told(tmp_path: Path) -> None:
    @click.group(cls=Group)
    def group() -> None: ...

    @group.command()
    def leak() -> None:
        raise RuntimeError(KEY)

    tempfile.tempdir = str(tmp_path)
    try:
        done = CliRunner().invoke(group, ["leak"], env={"LAMINA_API_KEY": f" {KEY}\n"})
    finally:
        tempfile.tempdir = None
    [log] = tmp_path.glob("lamina-batch-crash-*.log")
    assert KEY not in done.output + log.read_text()


def test_a_crash_whose_log_cannot_be_kept_is_still_told(tmp_path: Path) -> None:
    @click.group(cls=Group)
    def group() -> None: ...

    @group.command()
    def crash() -> None:
        tempfile.tempdir = str(tmp_path / "nowhere")
        raise RuntimeError("a bug")

    try:
        done = CliRunner().invoke(group, ["crash"])
    finally:
        tempfile.tempdir = None
    assert done.exit_code == 1
    assert "RuntimeError: a bug" in done.stderr
    assert "cannot be kept (No such file or directory)" in done.stderr


# -- the terminal ----------------------------------------------------------------------------------------------------


def test_what_is_printed_neither_drives_the_terminal_nor_begins_a_line() -> None:
    text = sanitize(f"name{EVIL}")
    assert "\\x1b[2J\\x1b]0;owned\\x07" in text, "it is shown, so that one sees what is there"
    assert all(c.isprintable() or c == "\n" for c in text)
    assert [line for line in text.split("\n") if not line.startswith("  ")] == [text.split("\n")[0]]


def test_our_own_further_lines_stay_as_they_are() -> None:
    assert sanitize("error: x\n  hint\n    more\n") == "error: x\n  hint\n    more\n"


@pytest.mark.parametrize(
    "words",
    [
        (f"{EVIL_NAME}.yaml",),
        ("p.yaml", f"{EVIL_NAME}.yaml"),
        ("p.yaml", f"--{EVIL_NAME}"),
        ("p.yaml", "--set", EVIL_NAME),
        ("p.yaml", "--set", f"{EVIL_NAME}=x"),
        ("p.yaml", "--set", f"rows.from={EVIL_NAME}.csv"),
        ("p.yaml", "--set", f"rows.from={EVIL_NAME}"),
        ("p.yaml", "--set", f"app={EVIL_NAME}"),
        ("p.yaml", "--base-url", EVIL_NAME),
    ],
    ids=lambda words: " ".join(words).replace(EVIL_NAME, "EVIL"),
)
def test_words_and_file_names_that_mean_harm_are_shown_harmlessly(here: Cli, words: tuple[str, ...]) -> None:
    """A shell's * brings whatever stands in a folder."""
    ran = inside(here, "status" if words[-1].startswith("app=") else "validate", *words)
    assert ran.code in {0, 2}, ran.text
    assert ran.harm() == []


def test_a_command_that_means_harm_is_shown_harmlessly(here: Cli) -> None:
    for word in (EVIL_NAME, f"--{EVIL_NAME}"):
        assert inside(here, word).harm() == []
        assert inside(here, "apps", word).harm() == []


# -- YAML ------------------------------------------------------------------------------------------------------------


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "too large once its aliases are followed"),
        (f"a: &a '{'x' * 100_000}'\nb: [{', '.join(['*a'] * 1000)}]\n", "too large once its aliases are followed"),
        ("a: " + "[" * 100_000, "levels deep"),
        ("".join(f"{' ' * depth}a:\n" for depth in range(600)), "levels deep"),
        ("- " * 100_000, "levels deep"),
        ("name: !!python/object/apply:os.system ['touch pwned']\n", "has no meaning here"),
        ("!!python/object/new:os.system ['touch pwned']\n", "has no meaning here"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\nname: !object/apply:os.system [x]\n", "has no meaning here"),
        ("name: !!binary aGVsbG8=\n", "has no meaning here"),
        ("base: &base {version: 1}\n<<: *base\n", "merge keys"),
    ],
    ids=["laughs", "long laughs", "flow", "block", "dashes", "python", "python root", "directive", "binary", "merge"],
)
def test_yaml_that_means_harm_is_refused(here: Cli, text: str, said: str) -> None:
    (here.folder / "p.yaml").write_text(text)
    ran = inside(here, "validate", "p.yaml")
    assert ran.code == 2
    assert said in ran.text
    assert not (here.folder / "pwned").exists()


def test_a_pipeline_file_of_a_hundred_megabytes_is_refused(here: Cli) -> None:
    os.truncate(here.folder / "p.yaml", 100_000_000)
    assert b"larger than 1 MiB" in inside(here, "validate", "p.yaml").err


def test_a_pipeline_file_that_does_not_end_is_refused(here: Cli) -> None:
    assert b"larger than 1 MiB" in inside(here, "validate", "/dev/zero").err


# -- templates and SQL are about the row, and nothing else ----------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["title.__class__", "title.__class__.__mro__[1].__subclasses__", "title!r", "title:>1000000000", "title[0]", "0"],
)
def test_all_that_stands_in_the_braces_of_a_template_is_the_name_of_a_column(name: str) -> None:
    assert parse_template(f"a {{{name}}} b") == ("a ", name, " b")


@pytest.mark.parametrize(
    "query",
    [
        "sku in (select * from read_csv('{file}'))",
        "sku in (/* x */ select * from read_csv('{file}'))",
        "sku in (-- x\nselect * from read_csv('{file}'))",
        "sku in (/* /* */ */ SELECT * FROM READ_CSV('{file}'))",
        "\"it's\" = 'x' or sku in (select * from read_csv('{file}'))",
        "`it's` = 'x' or sku in (select * from read_csv('{file}'))",
        "$$'$$ = 'x' or sku in (select * from read_csv('{file}'))",
        "E'a\\'' = 'x' or sku in (select * from read_csv('{file}')) or sku = ''",
        "sku in (/**/from \"read_csv\"('{file}'))",
        "sku = any(/**/select nothing from read_csv /* x */ ('{file}'))",
        "exists(with q as (select * from read_ndjson('{file}')) select * from q)",
        "(/**/ select a from read_parquet('{file}') limit 1) = sku",
        "sku in (( /**/ table read_json('{file}')))",
    ],
)
def test_sql_reads_no_file(here: Cli, query: str) -> None:
    """Such a function reads while the query is parsed, so it must be refused before that, in our own words.

    Nothing stands at the file's place. That it is not found would mean that it was looked for.
    """
    rule = query.format(file=here.folder / "nothing.csv")
    pipeline = load_pipeline(here.folder / "p.yaml", overrides=(f"rows.where={rule}",), environ={}, today=TODAY)
    with pytest.raises(PipelineError, match="is not supported"):
        parse_sql(pipeline, WHERE, rule)
