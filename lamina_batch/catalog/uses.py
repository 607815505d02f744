"""What a pipeline and its rows use of a contract: parameters, labels, lists. For judging drift (apps/drift.py).

The rows are mapped against a contract that takes everything, so that nothing of the app, old or new, can be in the way.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import polars as pl

from lamina_batch.apps.app import App, Parameter
from lamina_batch.apps.drift import Use, Uses
from lamina_batch.apps.schema import match
from lamina_batch.catalog.mapping import map_rows
from lamina_batch.errors import UsageError
from lamina_batch.pipeline.spec import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina_batch.catalog.mapping import Mapped
    from lamina_batch.catalog.source import Catalog
    from lamina_batch.pipeline.spec import InputRule, Pipeline


def find_uses(pipeline: Pipeline, catalog: Catalog | None, before: App) -> Uses:
    """What the pipeline, and the rows if there is a catalog, use of the contract `before`.

    Rows that cannot be mapped for another reason than the app are left out: mapping says so itself, afterwards.
    """
    names = {p.name: p for p in before.parameters}
    known = {written: names.get(match(written, names) or "") for written in _written(pipeline)}
    labels: dict[tuple[str, str], _Found] = defaultdict(_Found)
    several: dict[str, _Found] = defaultdict(_Found)
    blank: dict[str, int] = {}
    for rule in pipeline.inputs:
        parameter = known[rule.parameter]
        if parameter is None:
            continue
        for place, constant in _constants(rule):
            label = match(constant, parameter.options)
            if label is not None:
                labels[parameter.name, label].places.append(place)
        if isinstance(rule.source, Value) and len(rule.source.values) > 1:
            several[parameter.name].places.append(f"inputs.{rule.parameter}.value")
    for written, values in pipeline.matrix.items():
        parameter = known[written]
        for value in values if parameter is not None else ():
            label = match(value, parameter.options) if parameter is not None else None
            if parameter is not None and label is not None:
                labels[parameter.name, label].places.append(f"matrix.{written}")

    mapped = _mapped(pipeline, catalog)
    frame = mapped.whole().frame if mapped is not None else pl.DataFrame()
    for item in mapped.inputs if mapped is not None else ():
        parameter = known[item.rule.parameter]
        if parameter is None or mapped is None:
            continue
        rows = frame.select(_named(frame).alias("named"), pl.col(item.slot).alias("value"))
        blank[parameter.name] = rows["value"].null_count()
        if isinstance(item.rule.source, Value):
            continue
        if item.several:
            sends = rows.filter(pl.col("value").list.drop_nulls().list.len() > 1)
            several[parameter.name].rows += sends["named"].to_list()
            rows = rows.explode("value")
        if parameter.options:
            for label, named in _by_label(rows.drop_nulls(), parameter):
                labels[parameter.name, label].rows += named
    return Uses(
        written=frozenset(known),
        parameters={
            parameter.name: Use(places=(f"{section}.{written}",))
            for section, written in _places(pipeline)
            if (parameter := known[written]) is not None
        },
        labels={key: found.use() for key, found in labels.items()},
        several={key: found.use() for key, found in several.items()},
        blank={p.name: blank.get(p.name, 0) for p in known.values() if p is not None},
    )


def _by_label(rows: pl.DataFrame, parameter: Parameter) -> Iterator[tuple[str, list[str]]]:
    """Each label with the rows that come to it, in whatever spelling."""
    meant = {value: match(value, parameter.options) for value in rows["value"].unique()}
    labels = {value: label for value, label in meant.items() if label is not None}
    found = rows.filter(pl.col("value").is_in(list(labels))).with_columns(pl.col("value").replace(labels))
    yield from found.group_by("value", maintain_order=True).agg(pl.col("named").unique(maintain_order=True)).iter_rows()


class _Found:
    def __init__(self) -> None:
        self.places: list[str] = []
        self.rows: list[str] = []

    def use(self) -> Use:
        return Use(places=tuple(dict.fromkeys(self.places)), rows=tuple(dict.fromkeys(self.rows)))


def _places(pipeline: Pipeline) -> Iterator[tuple[str, str]]:
    yield from (("inputs", rule.parameter) for rule in pipeline.inputs)
    yield from (("matrix", written) for written in pipeline.matrix)


def _written(pipeline: Pipeline) -> tuple[str, ...]:
    return tuple(written for _, written in _places(pipeline))


def _constants(rule: InputRule) -> Iterator[tuple[str, str]]:
    path = f"inputs.{rule.parameter}"
    if isinstance(rule.source, Value):
        yield from ((f"{path}.value", value) for value in rule.source.values)
    yield from ((f"{path}.map.{cell}", target) for cell, target in rule.map.items())
    if rule.default is not None:
        yield f"{path}.default", rule.default


def _mapped(pipeline: Pipeline, catalog: Catalog | None) -> Mapped | None:
    if catalog is None:
        return None
    takes_all = tuple(Parameter(name=written, type="text", multiple=True) for written in _written(pipeline))
    anything = App(app_id=pipeline.app, name="", description=None, parameters=takes_all, served="{}")
    try:
        return map_rows(catalog, pipeline, anything)
    except UsageError:
        return None


def _named(rows: pl.DataFrame) -> pl.Expr:
    named = pl.col("lamina_row").cast(pl.String)
    return pl.format("{} of {}", named, "lamina_source") if "lamina_source" in rows.columns else named
