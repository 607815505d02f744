"""A pipeline and its app -> the columns that a person fills, in a merchandiser's words. Nothing here touches a file."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, assert_never

from lamina_batch.catalog.cells import key_column_references
from lamina_batch.catalog.columns import ColumnReference, find_columns
from lamina_batch.catalog.resolve_inputs import resolve_inputs
from lamina_batch.catalog.rule_expressions import rule_column_references
from lamina_batch.catalog.sql import WHERE, parse_sql
from lamina_batch.pipeline.spec import Column, Columns, Sql, Template, Value
from lamina_batch.sources.table import SOURCE_COLUMN, normalise_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamina_batch.apps.app import App, Parameter
    from lamina_batch.pipeline.spec import ColumnType, InputRule, Pipeline
    from lamina_batch.sources.table import Catalog

Kind = Literal["text", "url", "integer", "float", "date", "datetime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetField:
    """One column to fill."""

    #: where the pipeline file names it first
    use: ColumnReference
    #: its column in the catalog, if there is one already
    column: str | None = None
    #: its cells together name a product
    key: bool = False
    #: a row without it is not made
    required: bool = False
    kind: Kind = "text"
    #: all that may be written; empty: anything
    choices: tuple[str, ...] = ()
    #: what goes in, and what comes of leaving it out: sentences
    purpose: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    #: what one might write
    example: str = ""

    @property
    def name(self) -> str:
        """As the pipeline file writes it."""
        return self.use.name


def fields(pipeline: Pipeline, app: App, catalog: Catalog | None = None) -> tuple[SheetField, ...]:
    """The columns of a sheet: the key, what `inputs` use in their order, and what `where` and `types` name.

    With a `catalog`, each knows its column there. Raises PipelineError if the pipeline does not fit the app, or
    names a column that the catalog lacks.
    """
    parts = [part for part in _rule_fields(pipeline, app) if part.name != SOURCE_COLUMN]
    if catalog is None:
        # What counts as the same name where there is only one column for it.
        names = {part.name: normalise_header(part.name) for part in parts}
    else:
        names = dict(find_columns(catalog, pipeline, [part.use for part in parts]).columns)
    found: dict[str, SheetField] = {}
    for part in parts:
        name = names[part.name]
        found[name] = _merge_fields(found[name], part) if name in found else part
    kinds = {names[written]: kind for written, kind in pipeline.rows.types.items()}
    return tuple(
        replace(_with_example(_with_type(field, kinds.get(name)), pipeline), column=None if catalog is None else name)
        for name, field in found.items()
    )


def _rule_fields(pipeline: Pipeline, app: App) -> Iterator[SheetField]:
    """What each place of the pipeline that names a column makes of it."""
    several = len(pipeline.rows.key) > 1
    names = "Together with the other key columns it names the product" if several else "Names the product"
    for use in key_column_references(pipeline):
        purpose = f"{names}: every product has its own and keeps it, because its pictures are found by it."
        yield SheetField(use=use, key=True, required=True, purpose=(purpose,))
    for parameter, rule in resolve_inputs(pipeline, app).inputs:
        path = ("inputs", rule.parameter)
        if isinstance(rule.source, Sql):
            uses = _sql_uses(pipeline, (*path, "sql"), rule.source.expression)
        else:
            uses = tuple(rule_column_references(path, rule))
        yield from (_make_field(use, parameter, rule, uses) for use in uses)
    if pipeline.rows.where is not None:
        for use in _sql_uses(pipeline, WHERE, pipeline.rows.where):
            yield SheetField(use=use, purpose=(f"Says whether the row is made: only where {pipeline.rows.where}.",))
    # Nothing may use them, but a catalog without them is refused.
    yield from (SheetField(use=ColumnReference(("rows", "types", name), name)) for name in pipeline.rows.types)


def _sql_uses(pipeline: Pipeline, path: tuple[str | int, ...], text: str) -> tuple[ColumnReference, ...]:
    return tuple(ColumnReference(path, root) for root in parse_sql(pipeline, path, text).column_names)


def _make_field(
    use: ColumnReference, parameter: Parameter, rule: InputRule, uses: tuple[ColumnReference, ...]
) -> SheetField:
    """What one rule makes of one of its columns."""
    direct = isinstance(rule.source, Column | Columns)
    alone = isinstance(rule.source, Column) and rule.source.split is None
    may_lack = rule.default is not None or rule.blank == "skip_row"
    needed = parameter.must_supply or (parameter.type == "url" and rule.blank is None)
    required = needed and not may_lack and isinstance(rule.source, Column | Template)
    one_of_few = parameter.type == "options" and (alone or isinstance(rule.source, Columns))
    return SheetField(
        use=use,
        required=required,
        kind="url" if parameter.type == "url" and direct and not rule.map else "text",
        choices=_choices(parameter, rule) if one_of_few else (),
        purpose=tuple(_purpose(parameter, rule, uses)),
        blank=() if required else (_blank_text(parameter, rule, needed=needed and not may_lack),),
    )


def _choices(parameter: Parameter, rule: InputRule) -> tuple[str, ...]:
    """The labels; with a `map`, its words first, which are those that people here use."""
    return tuple(dict.fromkeys([*rule.map, *parameter.options])) if parameter.options else ()


def _purpose(parameter: Parameter, rule: InputRule, uses: tuple[ColumnReference, ...]) -> Iterator[str]:
    name = f"“{parameter.name.strip()}”"
    match rule.source:
        case Column(split=split):
            yield f"{_value_text(parameter, several=split is not None)} for {name}."
            if split is not None:
                yield f"Several are parted by {split}"
                if parameter.options:
                    yield f"Each is one of: {_list_some(parameter.options)}."
        case Columns():
            yield f"{_value_text(parameter)} for {name}, one of {len(uses)} columns for it."
        case Template(parts=parts):
            text = "".join(f"[{part}]" if at % 2 else part for at, part in enumerate(parts))
            yield f"Goes into {name}: {text.rstrip('.')}."
        case Sql():
            yield f"Decides {name}."
        case Value():
            return
        case _:
            assert_never(rule.source)
    if parameter.description and parameter.description.strip():
        yield parameter.description.strip()


def _value_text(parameter: Parameter, *, several: bool = False) -> str:
    if parameter.type == "url":
        thing = {"image": "picture", "": "file"}.get(kind := "".join(parameter.accept[:1]), kind)
        return f"Web addresses of {thing}s" if several else f"Web address (https://…) of the {thing}"
    if parameter.options:
        return "Words from the list" if several else "One from the list"
    return "Words"


def _blank_text(parameter: Parameter, rule: InputRule, *, needed: bool) -> str:
    name = f"“{parameter.name.strip()}”"
    if rule.default is not None:
        return f"“{rule.default}” is taken for {name}."
    if rule.blank == "skip_row":
        return "The row is left out."
    if isinstance(rule.source, Columns):
        return "Fine, as long as one of them is filled." if needed else "Fine."
    if isinstance(rule.source, Sql):
        return "Fine."
    if parameter.type == "url" and parameter.default is not None:
        return f"The app takes a sample of its own for {name}."
    if isinstance(parameter.default, str) and parameter.default.strip():
        return f"The app takes “{parameter.default.strip()}” for {name}."
    return f"{name} is left to the app."


def _list_some(words: Iterable[str]) -> str:
    words = [word.strip() for word in words]
    return ", ".join(words[:_MAX_LISTED]) + (", …" if len(words) > _MAX_LISTED else "")


_MAX_LISTED = 12


def _merge_fields(one: SheetField, other: SheetField) -> SheetField:
    """A column that has two uses: it must suit both."""
    if one.choices and other.choices:
        choices = tuple(choice for choice in one.choices if choice in other.choices)
    else:
        choices = one.choices or other.choices
    return replace(
        one,
        key=one.key or other.key,
        required=one.required or other.required,
        kind=one.kind if one.kind != "text" else other.kind,
        choices=choices,
        purpose=tuple(dict.fromkeys([*one.purpose, *other.purpose])),
        blank=tuple(dict.fromkeys([*one.blank, *other.blank])),
    )


def _with_type(field: SheetField, kind: ColumnType | None) -> SheetField:
    # The key is always text: a number would lose its zeros.
    if kind is None or kind == "text" or field.key or field.choices:
        return field
    said = (_TYPE_TEXTS[kind],)
    if kind == "boolean":
        return replace(field, choices=("yes", "no"), purpose=(*said, *field.purpose))
    return replace(field, kind=kind, purpose=(*said, *field.purpose))


_TYPE_TEXTS: dict[ColumnType, str] = {
    "integer": "A whole number.",
    "float": "A number.",
    "boolean": "yes or no.",
    "date": "A date.",
    "datetime": "A date, with a time of day if you like.",
}
_EXAMPLES: dict[Kind, str] = {
    "integer": "12",
    "float": "19.90",
    "date": "2026-03-31",
    "datetime": "2026-03-31 18:30",
}


def _with_example(field: SheetField, pipeline: Pipeline) -> SheetField:
    name = field.name
    # What `where` asks for, if it asks so plainly.
    asked = re.search(rf"(?<!\w){re.escape(name)}\"?\s*=\s*'([^']+)'", pipeline.rows.where or "")
    if asked:
        example = asked[1]
    elif field.choices:
        example = field.choices[0]
    elif field.key:
        example = "EXAMPLE-1"
    elif field.kind == "url":
        example = f"https://images.example.com/{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'file'}.jpg"
    else:
        example = _EXAMPLES.get(field.kind, f"{name} of the product")
    return replace(field, example=example)
