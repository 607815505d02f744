"""Which inputs the service accepts (docs/lamina-api.md, "Parameters" and "Inputs and app fields of runs")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from yarl import URL

from lamina_batch.sandbox.responses import InputProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lamina_batch.sandbox.apps import SandboxParameter


def input_problems(
    parameters: Sequence[SandboxParameter], inputs: Mapping[str, Any], *, names_only: bool
) -> tuple[InputProblem, ...]:
    """What is wrong with these inputs, in the order of the parameters; empty if they are accepted.

    `names_only`: an input is known by its parameter's name, and not by its key or id, too. Only the wording for options
    is documented (docs/lamina-api.md, "Start execution"). The rest follows its pattern, and is the sandbox's own.
    """
    sent: dict[str, list[str]] = {parameter.name: [] for parameter in parameters}
    unknown: list[str] = []
    for field in inputs:
        parameter = _find_parameter(parameters, field, names_only=names_only)
        (sent[parameter.name] if parameter is not None else unknown).append(field)
    problems: list[InputProblem] = []
    for parameter in parameters:
        for field in sent[parameter.name]:
            problems += _problems_of(parameter, field, inputs[field])
        if not sent[parameter.name] and _is_required(parameter):
            problems.append(_missing(parameter, parameter.key))
    problems += (
        InputProblem(field=field, name=field, code="unknown_parameter", message="unknown parameter")
        for field in unknown
    )
    return tuple(problems)


def inputs_by_name(parameters: Sequence[SandboxParameter], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs under their parameters' names, whether they were sent by name, key or id."""
    named: dict[str, Any] = {}
    for field, value in inputs.items():
        parameter = _find_parameter(parameters, field, names_only=False)
        named[parameter.name if parameter is not None else field] = value
    return named


def is_absolute_url(value: str) -> bool:
    """Whether this is an absolute http or https URL with a host that could be asked, and without white space."""
    if not re.match(r"https?://[^/?#]", value, re.IGNORECASE) or re.search(r"[\s\x00-\x1f\x7f]", value):
        return False
    try:
        return bool(URL(value).host)
    except ValueError:
        return False


def _find_parameter(parameters: Sequence[SandboxParameter], field: str, *, names_only: bool) -> SandboxParameter | None:
    """The parameter that an input is for: by its name, else by its key, else by its id."""
    by_name = next((parameter for parameter in parameters if parameter.name == field), None)
    if by_name is not None or names_only:
        return by_name
    by_key = (parameter for parameter in parameters if parameter.key == field)
    by_id = (parameter for parameter in parameters if parameter.parameter_id == field)
    return next(by_key, None) or next(by_id, None)


def _is_required(parameter: SandboxParameter) -> bool:
    return parameter.required and parameter.default is None


def _missing(parameter: SandboxParameter, field: str) -> InputProblem:
    return InputProblem(
        field=field,
        name=parameter.name,
        code="missing_no_default",
        message="missing value. It is required and has no default",
    )


def _problems_of(parameter: SandboxParameter, field: str, value: Any) -> Iterator[InputProblem]:
    if not isinstance(value, list):
        yield from _value_problems(parameter, field, value)
    elif not parameter.multiple:
        yield _problem(parameter, field, value, "invalid_type", "takes one value, not a list")
    elif not value and _is_required(parameter):
        yield _missing(parameter, field)
    else:
        for item in value:
            yield from _value_problems(parameter, field, item)


def _value_problems(parameter: SandboxParameter, field: str, value: Any) -> Iterator[InputProblem]:
    if not isinstance(value, str):
        yield _problem(parameter, field, value, "invalid_type", "must be a string")
    elif parameter.type == "options" and value not in parameter.options:
        message = f'invalid option "{value}". Must be one of: {", ".join(parameter.options)}'
        yield _problem(parameter, field, value, "invalid_option", message)
    elif parameter.type == "url" and not is_absolute_url(value):
        message = f'invalid url "{value}". Must be an absolute http or https URL'
        yield _problem(parameter, field, value, "invalid_media", message)


def _problem(parameter: SandboxParameter, field: str, value: Any, code: str, message: str) -> InputProblem:
    return InputProblem(
        field=field, name=parameter.name, code=code, message=message, allowed=parameter.options, got=value
    )
