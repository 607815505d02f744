"""The parts of docs/ that are made from the schemas and the commands, and the schema of the pipeline file.

`make docs` writes them, a test finds stale ones.

A page holds such a part between two comments, `<!-- generated: NAME -->` and `<!-- end of generated -->`. PARTS says
what NAME means. All else on the page is written by hand.
"""

from __future__ import annotations

import inspect
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from process import TOP

from docs.markdown import PAGES, name_of
from lamina_batch.cli import main
from lamina_batch.ledger.job import LEGAL_TRANSITIONS, State
from lamina_batch.pipeline.file_schema import pipeline_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Schema = dict[str, Any]

_PART = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def regenerated(text: str) -> str:
    """The page with its generated parts as they should be. Raises KeyError for a part that PARTS does not know."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text)


def parts_of(text: str) -> set[str]:
    return {part[2] for part in _PART.finditer(text)}


def write() -> None:
    schema = json.dumps(pipeline_schema(), ensure_ascii=False, indent=2)
    (TOP / "schemas" / "pipeline.schema.json").write_text(f"{schema}\n", encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fresh = regenerated(text)
        if fresh != text:
            page.write_text(fresh, encoding="utf-8")
            print(name_of(page))


def table(header: Sequence[str], lines: Iterator[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(_cell(cell) for cell in row)} |\n" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """Text in which what looks like a tag of HTML is none. What stands in backquotes is left alone."""
    return "".join(part if n % 2 else part.replace("<", "&lt;") for n, part in enumerate(re.split(r"(`[^`]*`)", text)))


def _code(value: object) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


# -- schemas -------------------------------------------------------------------------------------------------


def read_schema(name: str) -> Schema:
    schema: Schema = json.loads((TOP / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def _flat(schema: Schema, prefix: str = "", *, deep: bool = True) -> Iterator[tuple[str, Schema, bool]]:
    """Dotted name, subschema and whether it is required, of every key below `schema`; of a section, only its keys."""
    for name, inner in schema["properties"].items():
        if deep and "properties" in inner:
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner, name in schema.get("required", ())


def pipeline_keys(section: str | None) -> str:
    """The keys of the pipeline file below `section`; None: those at its top."""
    schema = pipeline_schema() if section is None else pipeline_schema()["properties"][section]
    lines = _flat(schema, deep=section is not None)
    return table(["key", "meaning", "default"], ((f"`{n}`", _meaning(s), _default(s, r)) for n, s, r in lines))


def rule_keys() -> str:
    lines = _flat(pipeline_schema()["properties"]["inputs"]["additionalProperties"])
    return table(["key", "meaning"], ((f"`{name}`", _meaning(schema)) for name, schema, _ in lines))


def _meaning(schema: Schema) -> str:
    # Words that stand for something else are code, as in the rest of the page.
    text = re.sub(r"\{\{|\}\}|\{[a-z]+\}", lambda found: f"`{found[0]}`", _prose(schema["description"]))
    match schema:
        case {"minimum": low, "maximum": high}:
            text += f" {low} to {high}."
        case {"additionalProperties": {"enum": words}}:
            text += f" One of {', '.join(_code(word) for word in words)}."
        case _:
            pass
    examples = [example for example in schema.get("examples", ()) if example != schema.get("const")]
    if "enum" in schema or not examples:
        return text
    shown = ", ".join(_code(_as_yaml(example)) for example in examples[:3])
    return f"{text} For example {shown}."


def _as_yaml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key}: {_as_yaml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(_as_yaml(inner) for inner in value) + "]"
        case str() if re.search(r"^[\[{*&!|>%@`\"']|: | #", value):
            return json.dumps(value, ensure_ascii=False)
        case str():
            return value
        case _:
            return json.dumps(value)


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "required"
    default = schema.get("default", {})
    return "" if default in ({}, []) else _code(default)


def described(name: str, column: str) -> str:
    """Every key of schemas/`name`.schema.json and what it says of it."""
    lines = _flat(read_schema(name))
    return table([column, "meaning"], ((f"`{key}`", _prose(schema["description"])) for key, schema, _ in lines))


def transitions() -> str:
    """The states of a job, and what each may become."""
    lines = ((f"`{state}`", ", ".join(f"`{to}`" for to in State if to in LEGAL_TRANSITIONS[state])) for state in State)
    return table(["a job that is", "may become"], lines)


# -- commands ------------------------------------------------------------------------------------------------

#: Told once, on top of the page.
_SHARED = {"sandbox", "base_url", "overrides", "help"}


def commands() -> str:
    return "\n".join(_commands(main, "lamina-batch", None)).replace("\n\n\n", "\n\n")


def _commands(group: click.Group, path: str, parent: click.Context | None) -> Iterator[str]:
    context = click.Context(group, info_name=path, parent=parent)
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}", context)
        else:
            yield from _command(command, f"{path} {name}", click.Context(command, info_name=name, parent=context))


def _command(command: click.Command, path: str, context: click.Context) -> Iterator[str]:
    arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    yield f"## {path}"
    yield ""
    yield f"`{' '.join([path, *arguments])}`"
    yield ""
    prose, *examples = re.split(r"\n*\x08\n", inspect.cleandoc(command.help or ""))
    yield _prose(prose)
    yield ""
    options = [p for p in command.params if isinstance(p, click.Option) and p.name not in _SHARED and not p.hidden]
    if options:
        records = (option.get_help_record(context) for option in options)
        yield table(["option", "meaning"], ((f"`{record[0]}`", _prose(record[1])) for record in records if record))
    shared = [p.opts[-1] for p in command.params if p.name in _SHARED]
    if shared:
        yield f"{'Also ' if options else ''}{', '.join(_code(opt) for opt in shared)}."
        yield ""
    for block in examples:
        title, *lines = block.splitlines()
        yield f"{title.strip()}"
        yield ""
        yield from (f"- `{line.strip()}`" for line in lines if line.strip())
        yield ""


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "pipeline": lambda: pipeline_keys(None),
    **{
        f"pipeline {section}": partial(pipeline_keys, section)
        for section, schema in pipeline_schema()["properties"].items()
        if "properties" in schema
    },
    "rule": rule_keys,
    "transitions": transitions,
    "manifest": lambda: described("manifest", "column"),
    "summary": lambda: described("summary", "key"),
}

if __name__ == "__main__":
    write()
