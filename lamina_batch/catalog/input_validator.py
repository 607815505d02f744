"""One value against one parameter: whether the service would take it, what would be sent, and why not.

The JSON Schema of apps/schema.py decides, its keywords read as expressions over a whole column. About a keyword that
has none here, jsonschema is asked, value by value. That both always agree is what a property test holds.
"""

from __future__ import annotations

import operator
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import polars as pl

from lamina_batch.apps.input_schema import URL_FORBIDDEN_PATTERN, value_schema
from lamina_batch.errors import did_you_mean
from lamina_batch.pipeline.names import match_name, normalise_name
from lamina_batch.sources.text import utf8_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina_batch.apps.app import Parameter

#: docs/rows-and-inputs.md explains each
FindingCode = Literal[
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
_KEYWORD_CODES: Mapping[str, FindingCode] = {"enum": "invalid_option", "pattern": "invalid_url", "not": "invalid_url"}
_MAX_LISTED_LABELS = 12
_MAX_QUOTED_LENGTH = 80


class Verdict(NamedTuple):
    """What is sent for one value, and what is wrong with it."""

    #: what is sent: the value unchanged, or the service's own spelling of it
    sent: str
    #: None: nothing to say
    code: FindingCode | None = None
    severity: Severity = "error"
    message: str = ""
    hint: str = ""

    @property
    def refused(self) -> bool:
        """Whether the service would refuse the value."""
        return self.code is not None and self.severity == "error"


class InputValidator:
    """Judges the values of one parameter, each by itself: of several, every one must pass.

    `known` are verdicts on values that the schema lets through, by what was learned elsewhere. `words` are those that a
    `map` of the pipeline translates: a cell may hold them and a label.
    """

    def __init__(
        self, parameter: Parameter, known: Mapping[str, Verdict] = MappingProxyType({}), *, words: Sequence[str] = ()
    ) -> None:
        self.parameter = parameter
        self._map_keys = tuple(words)
        self._known = pl.DataFrame(
            [(value, *verdict) for value, verdict in known.items()], schema=_VERDICT_SCHEMA, orient="row"
        )
        self._schema = value_schema(parameter)
        self._lenient = {normalise_name(label) for label in parameter.options}

    def valid_expression(self, value: pl.Expr) -> pl.Expr:
        """True if the text is valid; False also where only the authority can tell."""
        return reduce(operator.and_, [_keyword_holds(key, rule, value) for key, rule in self._schema.items()])

    def verdict(self, value: str) -> Verdict:
        """The verdict on one value."""
        said = self.verdicts(pl.Series([value], dtype=pl.String))
        return Verdict(*said.row(0)[1:]) if said.height else Verdict(value)

    def verdicts(self, values: pl.Series) -> pl.DataFrame:
        """A line for each distinct value about which there is something to say, or that is sent in another spelling.

        `value` and what Verdict has. There is no null among the values.
        """
        if self._known.is_empty():
            return self._validate(values)
        met = self._known.join(values.to_frame("value"), on="value", how="semi", maintain_order="left")
        judged = self._validate(values)
        return pl.concat([met.join(judged, on="value", how="anti", maintain_order="left"), judged])

    def _validate(self, values: pl.Series) -> pl.DataFrame:
        """What the schema says."""
        doubtful = (
            self._not_plain_urls(values).filter(~self.valid_expression(pl.col("value"))).unique(maintain_order=True)
        )
        if not _is_exact(self._schema):
            # No app that we know needs it, and no command should wait for it.
            import jsonschema  # noqa: PLC0415

            authority = jsonschema.Draft202012Validator(self._schema)
            valid = [authority.is_valid(value) for value in doubtful.get_column("value")]
            doubtful = doubtful.filter(~pl.Series(valid, dtype=pl.Boolean))
        if self.parameter.options:
            meant = [self._meant(value) for value in doubtful.get_column("value")]
            is_meant = pl.Series([verdict is not None for verdict in meant], dtype=pl.Boolean)
            refused = doubtful.filter(~is_meant)
            named = zip(doubtful.get_column("value"), meant, strict=True)
            known = [(value, *verdict) for value, verdict in named if verdict is not None]
            return pl.concat([pl.DataFrame(known, schema=_VERDICT_SCHEMA, orient="row"), self._refused(refused)])
        return self._refused(doubtful)

    def _not_plain_urls(self, values: pl.Series) -> pl.DataFrame:
        """The values without those of which the bytes say already that they are URLs: that is found much faster."""
        frame = values.to_frame("value")
        if self._schema.get("not") != {"pattern": URL_FORBIDDEN_PATTERN}:
            return frame
        plain = (pl.col("bytes").list.min() > ord(" ")) & (pl.col("bytes").list.max() < _DELETE_CHARACTER)
        return (
            frame.with_columns(utf8_bytes(pl.col("value")).alias("bytes"))
            .filter(~(plain & pl.col("value").str.contains(self._schema["pattern"])))
            .select("value")
        )

    def _meant(self, value: str) -> Verdict | None:
        """The verdict on what is a label in all but case and spaces; None if it is none."""
        label = match_name(value, self.parameter.options) if normalise_name(value) in self._lenient else None
        if label is None:
            return None
        if value.split() == label.split():
            # Spreadsheets trim cells and no eye sees the difference: nothing that anybody could mend.
            return Verdict(label)
        return Verdict(
            label,
            "lenient_match",
            "warning",
            f"{quote_value(value)} is sent as {label!r}, the app's own spelling",
            f"write {label!r}",
        )

    def _refused(self, values: pl.DataFrame) -> pl.DataFrame:
        """The verdicts on values that the schema refuses."""
        codes = (_KEYWORD_CODES[keyword] for keyword in self._schema if keyword in _KEYWORD_CODES)
        code: FindingCode = next(codes, "invalid_value")
        wrong, hint = self._words(code, values.get_column("value"))
        return values.select(
            "value",
            sent="value",
            code=pl.lit(code),
            severity=pl.lit("error"),
            message=pl.concat_str(quote_values(values.get_column("value")), pl.lit(wrong)),
            hint=hint,
        )

    def _words(self, code: FindingCode, values: pl.Series) -> tuple[str, pl.Expr | pl.Series]:
        name = self.parameter.name
        match code:
            case "invalid_option":
                return f" is not a label of {name!r}", self._label_hints(values)
            case "invalid_url":
                return f" is not an http(s) URL, as {name!r} needs", self._url_hint()
            case _:
                return f" does not fit {name!r}", pl.lit("see `lamina-batch apps show`")

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
        # A guess takes longer than all the rest. Where so many are wrong, the column is, and no guess helps.
        guesses = (did_you_mean(value, choices) for value in values.head(_MAX_GUESSES))
        hints = [f"{guess} {listed}" if guess else listed for guess in guesses]
        return pl.Series(hints, dtype=pl.String).extend_constant(listed, values.len() - len(hints))

    def _url_hint(self) -> pl.Expr:
        value = pl.col("value")
        stripped = value.str.strip_chars(_WHITE_SPACE)
        bare = value.str.contains(r"^[^/]*\.[^/]*/") & ~value.str.contains(r"://|\\")
        return (
            pl.when(self.valid_expression(stripped))
            .then(pl.lit("remove the white space around it"))
            .when(self.valid_expression(stripped.str.replace_all(" ", "%20", literal=True)))
            .then(pl.lit("write each space inside it as %20; several URLs in one cell need `split` in the pipeline"))
            .when(bare)
            .then(pl.lit("put https:// before it"))
            .otherwise(pl.lit("the service fetches it itself: give a full address that begins with https://"))
        )


#: the first sign after the printable ones of ASCII
_DELETE_CHARACTER = 0x7F
#: what `verdicts` answers
_VERDICT_SCHEMA = dict.fromkeys(("value", *Verdict._fields), pl.String)
#: distinct wrong labels, of those that are judged together, for which the label that may be meant is looked for
_MAX_GUESSES = 500
#: what Python strips from a text
_WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


def quote_values(values: pl.Series) -> pl.Series:
    """`shown` of each."""
    plain = values.str.contains(_REPR_SAFE) & (values.str.len_bytes() <= _MAX_QUOTED_LENGTH)
    if plain.all():
        return "'" + values + "'"
    return pl.Series([quote_value(value) for value in values], dtype=pl.String)


#: what Python shows in single quotes unchanged
_REPR_SAFE = r"^[ -&(-\[\]-~]*$"


def quote_value(value: str) -> str:
    """The value in quotes, without control characters, cut where it is long."""
    return repr(value if len(value) <= _MAX_QUOTED_LENGTH else value[: _MAX_QUOTED_LENGTH - 1] + "…")


def _is_exact(schema: Mapping[str, Any]) -> bool:
    """Whether `_holds` says all that the schema says."""
    return all(_keyword_expression(keyword, rule, pl.lit("")) is not None for keyword, rule in schema.items())


def _keyword_holds(keyword: str, rule: Any, value: pl.Expr) -> pl.Expr:
    """Whether the text satisfies one keyword of a schema; False for a keyword that only the authority knows."""
    found = _keyword_expression(keyword, rule, value)
    return pl.lit(value=False) if found is None else found


def _keyword_expression(keyword: str, rule: Any, value: pl.Expr) -> pl.Expr | None:
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
            return None
