"""Validate values of one parameter: whether the service accepts them, and what is sent.

The JSON Schema of apps/input_schema.py decides. Its keywords become expressions over a whole column; a property test
compares them with jsonschema.
"""

from __future__ import annotations

import operator
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl

from lamina_batch.apps.input_schema import SEVERAL_URLS_PATTERN, URL_FORBIDDEN_PATTERN, value_schema
from lamina_batch.errors import did_you_mean
from lamina_batch.pipeline.names import match_name, normalise_name
from lamina_batch.sources.text import utf8_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.apps.app import Parameter

#: docs/rows-and-inputs.md explains each code
FindingCode = Literal[
    "blank_key",
    "duplicate_key",
    "invalid_type",
    "blank_image",
    "missing_input",
    "invalid_option",
    "invalid_url",
    "too_many_values",
    "lenient_match",
    # from preflight, which requests the URLs
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

_MAX_LISTED_LABELS = 12
_MAX_QUOTED_LENGTH = 80
#: wrong labels in one series for which a suggestion is searched: it is slow, and many wrong ones mean a wrong column
_MAX_GUESSES = 500
#: the first character after the printable ones of ASCII
_DELETE_CHARACTER = 0x7F
#: the characters that `str.strip` removes
_WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
#: texts that `repr` only puts in single quotes
_REPR_SAFE = r"^[ -&(-\[\]-~]*$"


class Verdict(NamedTuple):
    """What is sent for one value, and the finding about it."""

    #: the value unchanged, or the service's own spelling of it
    sent: str
    #: None if there is no finding
    code: FindingCode | None = None
    severity: Severity = "error"
    message: str = ""
    hint: str = ""

    @property
    def is_error(self) -> bool:
        """Whether the service would refuse the value."""
        return self.code is not None and self.severity == "error"


class InputValidator:
    """Validates single values of one parameter. A list is valid if all of its values are.

    `known_verdicts` holds verdicts on values that the schema accepts, such as those on URLs that were requested.
    `map_keys` are the keys of the rule's `map`, which a cell may hold besides labels.
    """

    def __init__(
        self,
        parameter: Parameter,
        known_verdicts: Mapping[str, Verdict] = MappingProxyType({}),
        *,
        map_keys: Sequence[str] = (),
    ) -> None:
        self.parameter = parameter
        self._map_keys = tuple(map_keys)
        self._known_verdicts = _verdict_frame(known_verdicts)
        self._schema = value_schema(parameter)
        self._normalised_labels = {normalise_name(label) for label in parameter.options}

    def valid_expression(self, value: pl.Expr) -> pl.Expr:
        """Whether the text is valid by the schema."""
        return reduce(operator.and_, [_keyword_expression(key, rule, value) for key, rule in self._schema.items()])

    def validate(self, value: str) -> Verdict:
        """The verdict on one value."""
        verdicts = self.validate_series(pl.Series([value], dtype=pl.String))
        return Verdict(*verdicts.row(0)[1:]) if verdicts.height else Verdict(value)

    def validate_series(self, values: pl.Series) -> pl.DataFrame:
        """One line for each distinct value that has a finding or is sent in another spelling.

        The columns are `value` and the fields of Verdict. The values must not be null.
        """
        verdicts = self._validate(values)
        if self._known_verdicts.is_empty():
            return verdicts
        applicable = self._known_verdicts.join(values.to_frame("value"), on="value", how="semi", maintain_order="left")
        return pl.concat([applicable.join(verdicts, on="value", how="anti", maintain_order="left"), verdicts])

    def _validate(self, values: pl.Series) -> pl.DataFrame:
        """The verdicts by the schema alone."""
        invalid = (
            self._not_plain_urls(values).filter(~self.valid_expression(pl.col("value"))).unique(maintain_order=True)
        )
        if not self.parameter.options:
            return self._refusal_verdicts(invalid)
        verdicts = {value: self._label_verdict(value) for value in invalid.get_column("value")}
        labels = _verdict_frame({value: verdict for value, verdict in verdicts.items() if verdict is not None})
        refused = invalid.join(labels, on="value", how="anti", maintain_order="left")
        return pl.concat([labels, self._refusal_verdicts(refused)])

    def _not_plain_urls(self, values: pl.Series) -> pl.DataFrame:
        """The values without URLs that plainly are some: the first look is much faster than the forbidden pattern."""
        frame = values.to_frame("value")
        if self._schema.get("not") != {"pattern": URL_FORBIDDEN_PATTERN}:
            return frame
        plain = (pl.col("bytes").list.min() > ord(" ")) & (pl.col("bytes").list.max() < _DELETE_CHARACTER)
        return (
            frame.with_columns(utf8_bytes(pl.col("value")).alias("bytes"))
            .filter(~(plain & pl.col("value").str.contains(_PLAIN_URL)))
            .select("value")
        )

    def _label_verdict(self, value: str) -> Verdict | None:
        """The verdict on a value that differs from a label in case and spaces only; None for any other value."""
        label = match_name(value, self.parameter.options) if normalise_name(value) in self._normalised_labels else None
        if label is None:
            return None
        if value.split() == label.split():
            # Spaces cannot be seen, and spreadsheets trim them: a warning would not help.
            return Verdict(label)
        return Verdict(
            label,
            "lenient_match",
            "warning",
            f"{quote_value(value)} is sent as {label!r}, the app's own spelling",
            f"write {label!r}",
        )

    def _refusal_verdicts(self, values: pl.DataFrame) -> pl.DataFrame:
        """The verdicts on values that the schema refuses: values that are not labels, or not URLs."""
        name = repr(self.parameter.name)
        code: FindingCode
        hint: pl.Series | pl.Expr
        if "enum" in self._schema:
            code, problem = "invalid_option", pl.lit(f" is not a label of {name}")
            hint = self._label_hints(values.get_column("value"))
        else:
            several = pl.col("value").str.contains(SEVERAL_URLS_PATTERN)
            not_a_url = pl.lit(f" is not an http(s) URL, as {name} needs")
            code, hint = "invalid_url", self._url_hint()
            problem = pl.when(several).then(pl.lit(" holds several URLs in one cell")).otherwise(not_a_url)
        return values.select(
            "value",
            sent="value",
            code=pl.lit(code),
            severity=pl.lit("error"),
            message=pl.concat_str(quote_values(values.get_column("value")), problem),
            hint=hint,
        )

    def _label_hints(self, values: pl.Series) -> pl.Series:
        labels = self.parameter.options
        if len(labels) <= _MAX_LISTED_LABELS:
            listed = f"the labels are {', '.join(map(repr, labels))}"
        else:
            listed = f"`lamina-batch apps show` lists the {len(labels)} labels"
        if self._map_keys:
            few, more = self._map_keys[:_MAX_LISTED_LABELS], ", …" if len(self._map_keys) > _MAX_LISTED_LABELS else ""
            listed = f"`map` takes {', '.join(map(repr, few))}{more}; {listed}"
        choices = (*self._map_keys, *labels)
        guesses = (did_you_mean(value, choices) for value in values.head(_MAX_GUESSES))
        hints = [f"{guess} {listed}" if guess else listed for guess in guesses]
        return pl.Series(hints, dtype=pl.String).extend_constant(listed, values.len() - len(hints))

    def _split_hint(self) -> str:
        if self.parameter.multiple:
            return "`split` under the input, with the sign between them, makes a list of them"
        return "the input takes one: keep one of them; `split` makes a list for an input that takes several"

    def _url_hint(self) -> pl.Expr:
        value = pl.col("value")
        stripped = value.str.strip_chars(_WHITE_SPACE)
        bare = value.str.contains(r"^[^/]*\.[^/]*/") & ~value.str.contains(r"://|\\")
        return (
            pl.when(value.str.contains(SEVERAL_URLS_PATTERN))
            .then(pl.lit(self._split_hint()))
            .when(self.valid_expression(stripped))
            .then(pl.lit("remove the white space around it"))
            .when(value.str.contains("&amp;", literal=True))
            .then(pl.lit("it was copied from HTML: write & instead of &amp;"))
            .when(value.str.contains(r"[{}<>]"))
            .then(pl.lit("it holds a placeholder or a tag: give the address of one picture"))
            .when(value.str.contains(r"^[^/?#]*//[^/?#@]*:[^/?#@]*@"))
            .then(pl.lit("it holds a user name or a password, and the service would see both: give a public address"))
            .when(value.str.contains(r"[,;|]$"))
            .then(pl.lit("remove the sign at its end"))
            .when(self.valid_expression(stripped.str.replace_all(" ", "%20", literal=True)))
            .then(pl.lit("write each space inside it as %20; several URLs in one cell need `split` in the pipeline"))
            .when(bare)
            .then(pl.lit("put https:// before it"))
            .otherwise(pl.lit("the service fetches it itself: give a full address that begins with https://"))
        )


#: A URL of printable ASCII without signs that need a second look: no port, no user name, no list.
_PLAIN_URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)+(?:/[^,;|&%{}<>@]*)?$"
#: of `InputValidator.validate_series`
_VERDICT_SCHEMA = dict.fromkeys(("value", *Verdict._fields), pl.String)


def quote_values(values: pl.Series) -> pl.Series:
    """`quote_value` of each."""
    safe = values.str.contains(_REPR_SAFE) & (values.str.len_bytes() <= _MAX_QUOTED_LENGTH)
    if safe.all():
        return "'" + values + "'"
    return pl.Series([quote_value(value) for value in values], dtype=pl.String)


def quote_value(value: str) -> str:
    """The value in quotes, with escapes for control characters, shortened to 80 characters."""
    return repr(value if len(value) <= _MAX_QUOTED_LENGTH else value[: _MAX_QUOTED_LENGTH - 1] + "…")


def _verdict_frame(verdicts: Mapping[str, Verdict]) -> pl.DataFrame:
    return pl.DataFrame(
        [(value, *verdict) for value, verdict in verdicts.items()], schema=_VERDICT_SCHEMA, orient="row"
    )


def _keyword_expression(keyword: str, rule: Any, value: pl.Expr) -> pl.Expr:
    """Whether the text satisfies one keyword of a schema."""
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
            raise NotImplementedError(f"the schema keyword {keyword!r} has no expression")
