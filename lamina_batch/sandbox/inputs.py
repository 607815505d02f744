"""Which inputs the service accepts (API.md 3)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamina_batch.sandbox.apps import Parameter


def input_problems(parameters: tuple[Parameter, ...], inputs: Mapping[str, Any]) -> list[str]:
    """What the `details` of a 400 say, in the order of the parameters; empty where the inputs are accepted.

    Only the wording for options is documented (API.md 2.4). The rest follows its pattern, and is the sandbox's own.
    """
    problems: list[str] = []
    for parameter in parameters:
        if parameter.name in inputs:
            problems += (f'"{parameter.name}": {what}' for what in _faults(parameter, inputs[parameter.name]))
        elif parameter.required and parameter.default is None:
            problems.append(f'"{parameter.name}": missing value. It is required and has no default')
    known = {parameter.name for parameter in parameters}
    problems += (f'"{name}": unknown parameter' for name in inputs if name not in known)
    return problems


def is_absolute_url(value: str) -> bool:
    """Whether this is an absolute http or https URL with a host that could be asked, and without white space."""
    if not re.match(r"https?://[^/?#]", value, re.IGNORECASE) or re.search(r"[\s\x00-\x1f\x7f]", value):
        return False
    try:
        return bool(URL(value).host)
    except ValueError:
        return False


def _faults(parameter: Parameter, value: Any) -> Iterator[str]:
    if not isinstance(value, list):
        yield from _value_faults(parameter, value)
    elif not parameter.multiple:
        yield "takes one value, not a list"
    elif not value and parameter.required and parameter.default is None:
        yield "missing value. It is required and has no default"
    else:
        for item in value:
            yield from _value_faults(parameter, item)


def _value_faults(parameter: Parameter, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield "must be a string"
    elif parameter.type == "options" and value not in parameter.options:
        yield f'invalid option "{value}". Must be one of: {", ".join(parameter.options)}'
    elif parameter.type == "url" and not is_absolute_url(value):
        yield f'invalid url "{value}". Must be an absolute http or https URL'
