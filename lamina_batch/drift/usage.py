"""What a pipeline and its rows use of a contract: parameters, labels, lists. For judging drift (apps/drift.py).

The rows are mapped against a contract that takes everything, so that nothing of the app, old or new, can be in the way.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.apps.app import App, Parameter
from lamina_batch.apps.input_schema import match
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.drift.compare import ContractUsage, Usage
from lamina_batch.errors import UsageError
from lamina_batch.pipeline.spec import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamina_batch.pipeline.spec import Pipeline
    from lamina_batch.sources.table import Catalog


def find_usage(pipeline: Pipeline, catalog: Catalog | None, before: App) -> ContractUsage:
    """What the pipeline, and the rows if there is a catalog, use of the contract `before`.

    Rows that cannot be mapped for another reason than the app are left out: mapping says so itself, afterwards.
    """
    names = {p.name: p for p in before.parameters}
    meant = {written: names.get(match(written, names) or "") for _, written in _parameter_sections(pipeline)}
    known = {written: parameter for written, parameter in meant.items() if parameter is not None}
    found = _UsageCollector()
    _collect_constants(pipeline, known, found)
    _collect_rows(pipeline, catalog, known, found)
    return ContractUsage(
        written=frozenset(meant),
        parameters={
            known[written].name: Usage(places=(f"{section}.{written}",))
            for section, written in _parameter_sections(pipeline)
            if written in known
        },
        labels={key: spots.use() for key, spots in found.labels.items()},
        several={key: spots.use() for key, spots in found.several.items()},
        blank={p.name: found.blank.get(p.name, 0) for p in known.values()},
    )


class _Usages:
    def __init__(self) -> None:
        self.places: list[str] = []
        self.rows: list[str] = []

    def use(self) -> Usage:
        return Usage(places=tuple(dict.fromkeys(self.places)), rows=tuple(dict.fromkeys(self.rows)))


class _UsageCollector:
    """What is used, as it is found; by parameter, or parameter and label."""

    def __init__(self) -> None:
        self.labels: dict[tuple[str, str], _Usages] = defaultdict(_Usages)
        self.several: dict[str, _Usages] = defaultdict(_Usages)
        self.blank: dict[str, int] = {}


def _collect_constants(pipeline: Pipeline, known: Mapping[str, Parameter], found: _UsageCollector) -> None:
    """Constants: labels, and several values at once."""
    for written, place, constant in _constants(pipeline):
        parameter = known.get(written)
        label = match(constant, parameter.options) if parameter is not None else None
        if parameter is not None and label is not None:
            found.labels[parameter.name, label].places.append(place)
    for rule in pipeline.inputs:
        if rule.parameter in known and isinstance(rule.source, Value) and len(rule.source.values) > 1:
            found.several[known[rule.parameter].name].places.append(f"inputs.{rule.parameter}.value")


def _collect_rows(
    pipeline: Pipeline, catalog: Catalog | None, known: Mapping[str, Parameter], found: _UsageCollector
) -> None:
    """What cells come to: labels, several values at once, and nothing."""
    if catalog is None:
        return
    takes_all = tuple(
        Parameter(name=written, type="text", multiple=True) for _, written in _parameter_sections(pipeline)
    )
    anything = App(app_id=pipeline.app, name="", description=None, parameters=takes_all, served="{}")
    try:
        mapped = map_rows(catalog, pipeline, anything)
        frame = mapped.whole().frame
    except UsageError:
        return
    for item in mapped.inputs:
        parameter = known.get(item.rule.parameter)
        if parameter is None:
            continue
        rows = frame.select(_row_label(frame).alias("named"), pl.col(item.slot).alias("value"))
        found.blank[parameter.name] = rows["value"].null_count()
        if isinstance(item.rule.source, Value):
            continue
        if item.several:
            sends = rows.filter(pl.col("value").list.drop_nulls().list.len() > 1)
            found.several[parameter.name].rows += sends["named"].to_list()
            rows = rows.explode("value")
        for label, named in _rows_by_label(rows.drop_nulls(), parameter) if parameter.options else ():
            found.labels[parameter.name, label].rows += named


def _rows_by_label(rows: pl.DataFrame, parameter: Parameter) -> Iterator[tuple[str, list[str]]]:
    """Each label with the rows that come to it, in whatever spelling."""
    meant = {value: match(value, parameter.options) for value in rows["value"].unique()}
    labels = {value: label for value, label in meant.items() if label is not None}
    found = rows.filter(pl.col("value").is_in(list(labels))).with_columns(pl.col("value").replace(labels))
    yield from found.group_by("value", maintain_order=True).agg(pl.col("named").unique(maintain_order=True)).iter_rows()


def _parameter_sections(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    yield from (("inputs", rule.parameter) for rule in pipeline.inputs)
    yield from (("matrix", written) for written in pipeline.matrix)


def _constants(pipeline: Pipeline) -> Iterator[tuple[str, str, str]]:
    """Each constant with the parameter as written and its place in the file."""
    for rule in pipeline.inputs:
        path = f"inputs.{rule.parameter}"
        if isinstance(rule.source, Value):
            yield from ((rule.parameter, f"{path}.value", value) for value in rule.source.values)
        yield from ((rule.parameter, f"{path}.map.{cell}", target) for cell, target in rule.map.items())
        if rule.default is not None:
            yield rule.parameter, f"{path}.default", rule.default
    for written, values in pipeline.matrix.items():
        yield from ((written, f"matrix.{written}", value) for value in values)


def _row_label(rows: pl.DataFrame) -> pl.Expr:
    named = pl.col("lamina_row").cast(pl.String)
    return pl.format("{} of {}", named, "lamina_source") if "lamina_source" in rows.columns else named
