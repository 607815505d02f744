"""What a pipeline and its rows use of an app's contract, and what of that a change breaks."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.apps.app import App, Parameter
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.drift.compare import ChangeKind
from lamina_batch.errors import UsageError
from lamina_batch.pipeline.names import match_name
from lamina_batch.pipeline.spec import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamina_batch.drift.compare import Change
    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog

_MAX_LISTED_ROWS = 5


@dataclass(slots=True, kw_only=True)
class Usage:
    """Where a pipeline uses one thing of a contract."""

    #: keys of the pipeline file: `inputs.Style.map.Luxe`
    places: list[str] = field(default_factory=list)
    #: rows whose cells have the value, as the spreadsheet numbers them; with several files `12 of a.csv`
    rows: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether the pipeline uses it at all."""
        return bool(self.places or self.rows)

    def describe(self) -> str:
        """The places in the pipeline file, and the first rows with the count of all."""
        parts, rows = list(dict.fromkeys(self.places)), list(dict.fromkeys(self.rows))
        if rows:
            more = f", ... ({len(rows)} rows)" if len(rows) > _MAX_LISTED_ROWS else ""
            parts.append(f"row{'s' if len(rows) > 1 else ''} {', '.join(rows[:_MAX_LISTED_ROWS])}{more}")
        return ", ".join(parts)


@dataclass(slots=True, kw_only=True)
class ContractUsage:
    """What a pipeline, and the rows of its catalog, use of the contract that it was made for."""

    #: parameters as the pipeline spells them, in `inputs` and `matrix`
    written_names: frozenset[str] = frozenset()
    #: by parameter
    parameters: dict[str, Usage] = field(default_factory=dict)
    #: by parameter and label
    labels: dict[tuple[str, str], Usage] = field(default_factory=lambda: defaultdict(Usage))
    #: parameters that get several values at once
    multiple: dict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))
    #: count of the rows that leave out a parameter; a parameter without a rule is not in it, and all rows leave it out
    blank_rows: dict[str, int] = field(default_factory=dict)


def full_usage(app: App) -> ContractUsage:
    """The usage of a pipeline that uses everything: with it, every change that could break a pipeline breaks it."""
    return ContractUsage(
        written_names=frozenset(p.name for p in app.parameters),
        parameters={p.name: Usage(places=["inputs"]) for p in app.parameters},
        labels={(p.name, label): Usage(places=["inputs"]) for p in app.parameters for label in p.options},
        multiple={p.name: Usage(places=["inputs"]) for p in app.parameters if p.multiple},
    )


def broken_usage(change: Change, usage: ContractUsage, after: App) -> Usage | None:
    """The part of the pipeline that a change breaks; None: it breaks nothing. `after` is the contract now."""
    found: Usage | None = None
    match change.kind:
        case ChangeKind.PARAMETER_REMOVED | ChangeKind.RETYPED:
            found = usage.parameters.get(change.parameter)
        case ChangeKind.LABEL_REMOVED | ChangeKind.LABEL_RENAMED:
            found = usage.labels.get((change.parameter, change.label or ""))
        case ChangeKind.MULTIPLE_WITHDRAWN:
            found = usage.multiple.get(change.parameter)
        case ChangeKind.ACCEPT_CHANGED if _accepts_less(change):
            found = usage.parameters.get(change.parameter)
        case ChangeKind.PARAMETER_ADDED | ChangeKind.MADE_REQUIRED if _is_missing(change, usage, after):
            found = Usage(places=["inputs"])
        case _:
            pass
    return found if found is not None and found.any else None


def _accepts_less(change: Change) -> bool:
    """Whether the parameter refuses a kind of file that it took. Which kind the rows have is not known."""
    if change.before is None or change.after is None or not change.after.accept:
        return False
    return bool(set(change.before.accept) - set(change.after.accept))


def _is_missing(change: Change, usage: ContractUsage, after: App) -> bool:
    """Whether the parameter must be given, and the pipeline does not give it."""
    new, names = change.after, [p.name for p in after.parameters]
    return (
        new is not None
        and new.must_supply
        and all(match_name(written, names) != new.name for written in usage.written_names)
    )


def find_usage(pipeline: Pipeline, catalog: Catalog | None, before: App) -> ContractUsage:
    """What the pipeline, and the rows if there is a catalog, use of the contract `before`.

    Rows that cannot be mapped are left out: the check of the rows reports them later.
    """
    contract = {p.name: p for p in before.parameters}
    written = [("inputs", rule.parameter) for rule in pipeline.inputs] + [("matrix", name) for name in pipeline.matrix]
    usage = ContractUsage(written_names=frozenset(name for _, name in written))
    parameters: dict[str, Parameter] = {}
    for section, name in written:
        parameter = contract.get(match_name(name, contract) or "")
        if parameter is not None:
            parameters[name] = parameter
            usage.parameters[parameter.name] = Usage(places=[f"{section}.{name}"])
            usage.blank_rows[parameter.name] = 0
    _add_constants(usage, pipeline, parameters)
    if catalog is not None:
        _add_rows(usage, pipeline, catalog, parameters)
    return usage


def _add_constants(usage: ContractUsage, pipeline: Pipeline, parameters: Mapping[str, Parameter]) -> None:
    """Labels, and several values at once. `parameters` are by the names that the pipeline writes."""
    for written, place, constant in _constants(pipeline):
        parameter = parameters.get(written)
        label = match_name(constant, parameter.options) if parameter is not None else None
        if parameter is not None and label is not None:
            usage.labels[parameter.name, label].places.append(place)
    for rule in pipeline.inputs:
        if rule.parameter in parameters and isinstance(rule.source, Value) and len(rule.source.values) > 1:
            usage.multiple[parameters[rule.parameter].name].places.append(f"inputs.{rule.parameter}.value")


def _constants(pipeline: Pipeline) -> Iterator[tuple[str, str, str]]:
    """Each constant of the file: the parameter as written, the place in the file, and the constant."""
    for rule in pipeline.inputs:
        path = f"inputs.{rule.parameter}"
        if isinstance(rule.source, Value):
            yield from ((rule.parameter, f"{path}.value", value) for value in rule.source.values)
        yield from ((rule.parameter, f"{path}.map.{cell}", target) for cell, target in rule.map.items())
        if rule.default is not None:
            yield rule.parameter, f"{path}.default", rule.default
    for written, values in pipeline.matrix.items():
        yield from ((written, f"matrix.{written}", value) for value in values)


def _add_rows(usage: ContractUsage, pipeline: Pipeline, catalog: Catalog, parameters: Mapping[str, Parameter]) -> None:
    """Labels, several values at once, and blanks of the rows."""
    # A contract that takes everything maps every row, whatever the app takes now or took before.
    any_values = tuple(Parameter(name=name, type="text", multiple=True) for name in sorted(usage.written_names))
    try:
        mapped = map_rows(
            catalog,
            pipeline,
            App(app_id=pipeline.app, name="", description=None, parameters=any_values, served_json="{}"),
        )
        frame = mapped.map_all().frame
    except UsageError:
        return
    row = pl.col("lamina_row").cast(pl.String)
    label_of_row = pl.format("{} of {}", row, "lamina_source") if "lamina_source" in frame.columns else row
    for item in mapped.inputs:
        parameter = parameters.get(item.rule.parameter)
        if parameter is None:
            continue
        rows = frame.select(label_of_row.alias("row"), pl.col(item.value_column).alias("value"))
        usage.blank_rows[parameter.name] = rows["value"].null_count()
        if isinstance(item.rule.source, Value):
            continue
        if item.is_list:
            several = rows.filter(pl.col("value").list.drop_nulls().list.len() > 1)
            usage.multiple[parameter.name].rows += several["row"].to_list()
            rows = rows.explode("value")
        for label, rows_of_label in _rows_by_label(rows.drop_nulls(), parameter) if parameter.options else ():
            usage.labels[parameter.name, label].rows += rows_of_label


def _rows_by_label(rows: pl.DataFrame, parameter: Parameter) -> Iterator[tuple[str, list[str]]]:
    """Each label with its rows, in any spelling."""
    matches = {value: match_name(value, parameter.options) for value in rows["value"].unique()}
    labels = {value: label for value, label in matches.items() if label is not None}
    found = rows.filter(pl.col("value").is_in(list(labels))).with_columns(pl.col("value").replace(labels))
    yield from found.group_by("value", maintain_order=True).agg(pl.col("row").unique(maintain_order=True)).iter_rows()
