"""Resolve names and constants of the pipeline to the app's own spelling, byte for byte.

It depends on the pipeline and the app alone, so an error is about the pipeline file and not about a row.
"""

from __future__ import annotations

import collections
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lamina_batch.catalog.input_validator import InputValidator
from lamina_batch.errors import did_you_mean
from lamina_batch.pipeline.names import match_name
from lamina_batch.pipeline.spec import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lamina_batch.apps.app import App, Parameter
    from lamina_batch.pipeline.problems import KeyPath
    from lamina_batch.pipeline.spec import InputRule, Pipeline


class ResolvedInputs(NamedTuple):
    """The pipeline's inputs and matrix with the app's parameters."""

    #: each parameter with its rule, whose constants are valid and in the app's spelling
    inputs: tuple[tuple[Parameter, InputRule], ...]
    matrix: tuple[tuple[Parameter, tuple[str, ...]], ...]
    #: warnings about the whole pipeline
    notes: tuple[str, ...]


def resolve_inputs(pipeline: Pipeline, app: App) -> ResolvedInputs:
    """Find the parameter of each name, and the app's spelling of each constant.

    Raises PipelineError for a name that the app lacks, a constant that it would refuse, and a required input without a
    rule.
    """
    parameters = {p.name: p for p in app.parameters}
    paths: dict[str, KeyPath] = {}

    def parameter_at(path: KeyPath, written: str) -> Parameter:
        name = match_name(written, parameters)
        if name is None:
            hint = did_you_mean(written, parameters)
            raise pipeline.error(
                path, f"the app {app.name!r} has no input {written!r}", hint or f"it has {_quoted_list(parameters)}"
            )
        paths[name] = path
        return parameters[name]

    inputs = []
    for rule in pipeline.inputs:
        path = ("inputs", rule.parameter)
        parameter = parameter_at(path, rule.parameter)
        inputs.append((parameter, _with_constants(pipeline, path, rule, parameter)))
    matrix = []
    for written, values in pipeline.matrix.items():
        parameter = parameter_at(("matrix", written), written)
        matrix.append((parameter, _matrix_values(pipeline, written, values, parameter)))
    _refuse_duplicate_variant_names(pipeline, matrix)

    missing = [p.name for p in app.parameters if p.must_supply and p.name not in paths]
    if missing:
        raise pipeline.error(
            ("inputs",),
            f"the app {app.name!r} needs {_quoted_list(missing)}, and neither inputs nor matrix gives "
            f"{'it' if len(missing) == 1 else 'them'}",
            f"add a line such as  {missing[0]}: {{column: name_of_a_column}}",
        )
    return ResolvedInputs(tuple(inputs), tuple(matrix), tuple(_notes(app, paths)))


def _with_constants(pipeline: Pipeline, path: KeyPath, rule: InputRule, parameter: Parameter) -> InputRule:
    validator = InputValidator(parameter)
    if isinstance(rule.source, Value):
        values = rule.source.values
        if len(values) > 1 and not parameter.multiple:
            raise pipeline.error(
                (*path, "value"), f"{parameter.name!r} takes one value, not {len(values)}", "keep one of them"
            )
        paths = [(*path, "value", at) for at in range(len(values))] if len(values) > 1 else [(*path, "value")]
        sent = tuple(
            _resolve_constant(pipeline, where, value, validator) for where, value in zip(paths, values, strict=True)
        )
        rule = replace(rule, source=Value(values=sent))
    if rule.default is not None:
        rule = replace(rule, default=_resolve_constant(pipeline, (*path, "default"), rule.default, validator))
    # `map` may make a cell blank.
    targets = {
        cell: _resolve_constant(pipeline, (*path, "map", cell), target, validator) if target.strip() else target
        for cell, target in rule.map.items()
    }
    return replace(rule, map=targets)


def _matrix_values(pipeline: Pipeline, written: str, values: tuple[str, ...], parameter: Parameter) -> tuple[str, ...]:
    validator = InputValidator(parameter)
    sent: list[str] = []
    for at, value in enumerate(values):
        path = ("matrix", written, at)
        label = _resolve_constant(pipeline, path, value, validator)
        if label in sent:
            raise pipeline.error(path, f"{label!r} is listed twice", "keep one of the two")
        sent.append(label)
    return tuple(sent)


def variants(matrix: Sequence[tuple[Parameter, tuple[str, ...]]]) -> list[dict[str, str]]:
    """Every combination of the matrix as parameter -> value; one empty combination without a matrix."""
    names = [parameter.name for parameter, _ in matrix]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(values for _, values in matrix))]


def variant_name(variant: Mapping[str, str]) -> str:
    """The name of a variant: its sorted `Name=value`, joined by `; `."""
    return "; ".join(sorted(f"{name}={value}" for name, value in variant.items()))


def _refuse_duplicate_variant_names(pipeline: Pipeline, matrix: Sequence[tuple[Parameter, tuple[str, ...]]]) -> None:
    """Refuse variants of the same name: the key and the name of its variant identify a job."""
    for name, count in collections.Counter(map(variant_name, variants(matrix))).items():
        if count > 1:
            raise pipeline.error(
                ("matrix",), f"two combinations have the name {name!r}", "write the values without `; ` and `=` in them"
            )


def _resolve_constant(pipeline: Pipeline, path: KeyPath, value: str, validator: InputValidator) -> str:
    if not value.strip():
        raise pipeline.error(path, "this is blank, and a blank is never sent", "leave the line out, or give a value")
    verdict = validator.validate(value)
    if verdict.is_error:
        raise pipeline.error(path, verdict.message, verdict.hint)
    return verdict.sent


def _notes(app: App, paths: dict[str, KeyPath]) -> Iterator[str]:
    for name, path in paths.items():
        if path[-1] != name:
            yield f"{'.'.join(map(str, path))} is taken for the app's input {name!r}"
    for p in app.parameters:
        if p.type == "url" and p.default is not None and p.name not in paths:
            kind = p.accept[0] if p.accept else "file"
            yield f"{p.name!r} is not given by the pipeline: every row is made with the app's own stock {kind}"


def _quoted_list(names: list[str] | dict[str, Parameter]) -> str:
    return ", ".join(map(repr, names)) or "none"
