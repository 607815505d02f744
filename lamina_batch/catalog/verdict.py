"""One value against one parameter: whether the service would take it, what would be sent, and why not.

The JSON Schema of apps/schema.py decides. `clears` is the part of it that polars can answer for a whole column:
a value that it lets through is valid, about every other one the authority is asked.
"""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jsonschema
import polars as pl

from lamina_batch.apps.schema import match, value_schema
from lamina_batch.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina_batch.apps.app import Parameter

#: docs/rows-and-inputs.md explains each
Code = Literal[
    "blank_key",
    "duplicate_key",
    "invalid_type",
    "blank_image",
    "missing_input",
    "invalid_option",
    "invalid_url",
    "too_many_values",
    "invalid_value",
    "lenient_match",
    # of media/judgement.py, where the URLs are asked
    "url_not_found",
    "url_refused",
    "url_unanswered",
    "host_not_found",
    "private_url",
    "url_lapses",
    "web_page",
    "wrong_type",
    "broken_file",
    "tiny_image",
    "huge_image",
]
Severity = Literal["error", "warning"]

#: keyword of the schema that refused a value -> what that is called
_CODES: Mapping[str, Code] = {"enum": "invalid_option", "pattern": "invalid_url", "not": "invalid_url"}
_FEW_LABELS = 12
_SHOWN = 80


class Verdict(NamedTuple):
    #: what is sent: the value as it stands, or the service's own spelling of it
    sent: str
    #: None: nothing to say
    code: Code | None = None
    severity: Severity = "error"
    message: str = ""
    hint: str = ""

    @property
    def refused(self) -> bool:
        return self.code is not None and self.severity == "error"


class Judge:
    """Judges the values of one parameter, each by itself: of several, every one must pass."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self._schema = value_schema(parameter)
        self._authority = jsonschema.Draft202012Validator(self._schema)

    def clears(self, value: pl.Expr) -> pl.Expr:
        """True where the text is plainly valid; False where the authority must be asked."""
        return reduce(operator.and_, [_holds(key, rule, value) for key, rule in self._schema.items()])

    def verdict(self, value: str) -> Verdict:
        error = next(iter(self._authority.iter_errors(value)), None)
        if error is None:
            return Verdict(value)
        label = match(value, self.parameter.options)
        if label is not None and self._authority.is_valid(label):
            if value.split() == label.split():
                # Spreadsheets trim cells and no eye sees the difference: nothing that anybody could mend.
                return Verdict(label)
            return Verdict(
                label,
                "lenient_match",
                "warning",
                f"{shown(value)} is sent as {label!r}, the app's own spelling",
                f"write {label!r}",
            )
        code = _CODES.get(str(error.validator), "invalid_value")
        return Verdict(value, code, "error", *self._words(code, value))

    def _words(self, code: Code, value: str) -> tuple[str, str]:
        name = self.parameter.name
        match code:
            case "invalid_option":
                return f"{shown(value)} is not a label of {name!r}", self._label_hint(value)
            case "invalid_url":
                return f"{shown(value)} is not an http(s) URL, as {name!r} needs", self._url_hint(value)
            case _:
                return f"{shown(value)} does not fit {name!r}", "see `lamina-batch apps show`"

    def _label_hint(self, value: str) -> str:
        labels = self.parameter.options
        guess = did_you_mean(value, labels)
        if len(labels) <= _FEW_LABELS:
            listed = f"the labels are {', '.join(map(repr, labels))}"
        else:
            listed = f"`lamina-batch apps show` lists the {len(labels)} labels"
        return f"{guess} {listed}" if guess else listed

    def _url_hint(self, value: str) -> str:
        if self._authority.is_valid(value.strip()):
            return "remove the white space around it"
        if self._authority.is_valid(value.strip().replace(" ", "%20")):
            return "write each space inside it as %20; several URLs in one cell need `split` in the pipeline"
        host, slash, _ = value.partition("/")
        if "://" not in value and slash and "." in host and "\\" not in value:
            return "put https:// before it"
        return "the service fetches it itself: give a full address that begins with https://"


def shown(value: str) -> str:
    """The value in quotes, without control characters, cut where it is long."""
    return repr(value if len(value) <= _SHOWN else value[: _SHOWN - 1] + "…")


def _holds(keyword: str, rule: Any, value: pl.Expr) -> pl.Expr:
    """Whether the text satisfies one keyword of a schema; False for a keyword that only the authority knows."""
    match keyword, rule:
        case "type", "string":
            return pl.lit(value=True)
        case "enum", labels:
            return value.is_in(labels)
        case "pattern", pattern:
            return value.str.contains(pattern)
        case "not", {"pattern": pattern, **rest} if not rest:
            return ~value.str.contains(pattern)
        case _:
            return pl.lit(value=False)
