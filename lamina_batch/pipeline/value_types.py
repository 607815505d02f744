"""The types of values in the pipeline file. See `keys.ValueType`."""

from __future__ import annotations

import codecs
import io
import re
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

from lamina_batch.errors import UsageError
from lamina_batch.pipeline.keys import ValueType
from lamina_batch.pipeline.problems import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable

# Patterns end in $(?!\n), because in Python a $ also matches before a last line end.
_LINE_PATTERN = r"^[^\u0000-\u001f\u007f]+$(?!\n)"
_PATH_PATTERN = rf"^(?!.*://){_LINE_PATTERN[1:]}"


def text(pattern: str, message: str, parse: Callable[[str], Any] = str) -> ValueType:
    """Text that fits a pattern. `message` says what a value must be: `must be ...`."""
    return ValueType({"type": "string", "pattern": pattern, "errorMessage": message}, parse)


def choice(literal: Any) -> ValueType:
    """One of the words of a Literal."""
    return ValueType({"type": "string", "enum": list(get_args(literal))})


def number(types: str | list[str], parse: Callable[[Any], Any], **schema: object) -> ValueType:
    """A number within limits, or a word that stands for one."""
    return ValueType({"type": types, **schema}, parse)


def text_list(meaning: str, item: ValueType, *, one_or_more: bool = False, **schema: object) -> ValueType:
    """A list of at least one item, which becomes a tuple. With `one_or_more`, an item alone is a list of one."""
    kind = ["string", "array"] if one_or_more else "array"
    items = {"description": meaning, **item.schema}
    return ValueType({"type": kind, "minItems": 1, "uniqueItems": True, "items": items, **schema}, as_tuple)


def as_tuple(value: str | list[str]) -> tuple[str, ...]:
    """One text or a list of them."""
    return (value,) if isinstance(value, str) else tuple(value)


def mapping(
    meaning: str, value: ValueType, parse: Callable[[Any], Any] = lambda value: value, **schema: object
) -> ValueType:
    """A mapping whose keys the user chooses."""
    return ValueType(
        {"type": "object", "additionalProperties": {"description": meaning, **value.schema}, **schema}, parse
    )


_DURATION = re.compile(r"([0-9]{1,6})(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: str) -> float:
    """Seconds of a duration as the pipeline file writes it: `150ms`, `3s`, `45m`, `2h`. Raises UsageError."""
    match = _DURATION.fullmatch(value)
    if match is None:
        raise UsageError(f"{value!r} is not a duration", hint="write it as 150ms, 3s, 45m or 2h")
    return int(match[1]) * _SECONDS[match[2]]


def _is_web_address(value: str) -> bool:
    """Whether it is an http or https address with a host, all of which is sent with a request."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        return bool(usable and not (parts.username or parts.password or parts.fragment))
    except ValueError:  # brackets that are not closed, a port that is not a number
        return False


_ADDRESS_MESSAGE = "must be an http or https address without a user or a fragment"


def _parse_address(value: str) -> str:
    if not _is_web_address(value):
        raise InvalidValueError(f"{_ADDRESS_MESSAGE}, is {value!r}", "for example https://hooks.example.com/lamina")
    return value


def _parse_secret_address(value: str) -> str:
    if not _is_web_address(value):
        what = f"{_ADDRESS_MESSAGE} (it may be secret, and is not shown)"
        raise InvalidValueError(what, "copy it again from the tool that gets the summary")
    return value


def _parse_listen(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidValueError(
            f"must be a host and a port from 1 to 65535, is {value!r}", "write it as 127.0.0.1:8788"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _parse_encoding(value: str) -> str:
    try:
        codecs.lookup(value)
        io.TextIOWrapper(io.BytesIO(), encoding=value)  # refuses codecs that make no text, such as hex
    except (LookupError, ValueError) as error:
        hint = "often it is utf-8, cp1252, latin-1 or utf-16"
        raise InvalidValueError(f"{value!r} is not a known text encoding", hint) from error
    return value


_SEPARATORS: dict[str, str | None] = {"auto": None, "tab": "\t", r"\t": "\t"}
_LINE_MESSAGE = "must be one line of text without control characters"

ANY_TEXT = ValueType({"type": "string"})
NON_EMPTY_TEXT = ValueType({"type": "string", "minLength": 1})
BOOLEAN = ValueType({"type": "boolean"})
LINE = text(_LINE_PATTERN, _LINE_MESSAGE)
ENCODING = text(_LINE_PATTERN, _LINE_MESSAGE, _parse_encoding)
LISTEN = text(_LINE_PATTERN, _LINE_MESSAGE, _parse_listen)
ADDRESS = text(_LINE_PATTERN, _LINE_MESSAGE, _parse_address)
SECRET_ADDRESS = ValueType({**ADDRESS.schema, "writeOnly": True}, _parse_secret_address)
PATH = text(_PATH_PATTERN, "must be a path on this machine")
PATHS = text_list(
    "Path of one file.",
    PATH,
    one_or_more=True,
    pattern=_PATH_PATTERN,
    errorMessage="must be a path on this machine, or a list of paths",
)
SEPARATOR = text(
    r"^(auto|tab|\\t|[\t -!#-~])$(?!\n)",
    'must be auto, tab or one ASCII character such as ";"',
    lambda value: _SEPARATORS.get(value, value),
)
DURATION = text(r"^[1-9][0-9]{0,5}(ms|s|m|h)$(?!\n)", "must be a duration such as 150ms, 3s, 45m or 2h", parse_duration)
DURATION_OR_AUTO = text(
    r"^(auto|[0-9]{1,6}(ms|s|m|h))$(?!\n)",
    "must be auto or a duration such as 3s or 1m",
    lambda value: None if value == "auto" else parse_duration(value),
)
