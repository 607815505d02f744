"""Nodes become values: typed as the schema says, with `${NAME}` from the environment, and without secrets."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamina_batch.pipeline.file_schema import subschema, takes_only_text
from lamina_batch.pipeline.problems import (
    API_KEY_PATTERN,
    SECRET_REFUSED_HINT,
    SECRET_REFUSED_MESSAGE,
    InvalidValueError,
    KeyPath,
    Problem,
    as_error,
    dotted_path,
)
from lamina_batch.pipeline.yaml_tree import ListNode, MappingNode, Node, ScalarNode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lamina_batch.pipeline.keys import Schema
    from lamina_batch.pipeline.problems import FilePosition


@dataclass(slots=True, kw_only=True)
class PipelineValues:
    """The values of a pipeline file, and their positions."""

    file: Path
    values: dict[str, Any] = field(default_factory=dict)
    #: of every value; a block has the position of its key
    positions: dict[KeyPath, FilePosition] = field(default_factory=dict)
    key_positions: dict[KeyPath, FilePosition] = field(default_factory=dict)
    #: problems of single values, such as a variable that is not set
    problems: list[Problem] = field(default_factory=list)

    def problem(self, key_path: KeyPath, what: str, hint: str | None = None, *, at_key: bool = False) -> Problem:
        """A problem of the value or the key at `key_path`. A missing value has the position of its section."""
        outwards = (key_path[:end] for end in range(len(key_path), -1, -1))
        position = (
            self.key_positions[key_path]
            if at_key
            else next(self.positions[path] for path in outwards if path in self.positions)
        )
        return Problem(key_path=key_path, position=position, what=f"{dotted_path(key_path)}: {what}", hint=hint)


def typed_values(tree: MappingNode, schema: Schema, file: Path, environ: Mapping[str, str]) -> PipelineValues:
    """The values of the file. An environment variable that is not set becomes a problem of the result.

    Raises PipelineError if a text looks like an API key. The message never shows the text, and no other problem is
    reported with it, because that could show it.
    """
    reader = _Reader(file, environ)
    reader.document.values.update(reader.mapping(tree, (), schema))
    if reader.secrets:
        raise as_error(file, reader.secrets)
    return reader.document


class _Reader:
    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self.document = PipelineValues(file=file)
        self.secrets: list[Problem] = []
        self._environ = environ

    def mapping(self, node: MappingNode, key_path: KeyPath, schema: Schema | None) -> dict[str, Any]:
        self.document.positions[key_path] = node.position
        values: dict[str, Any] = {}
        for key, entry in node.entries.items():
            inner = (*key_path, key)
            self.document.key_positions[inner] = node.keys[key]
            self._check(key, inner, node.keys[key])
            values[key] = self._value(entry, inner, subschema(schema, key))
        return values

    def _value(self, node: Node, key_path: KeyPath, schema: Schema | None) -> object:
        if isinstance(node, MappingNode):
            return self.mapping(node, key_path, schema)
        self.document.positions[key_path] = node.position
        if isinstance(node, ListNode):
            return [
                self._value(item, (*key_path, index), subschema(schema, index)) for index, item in enumerate(node.items)
            ]
        return self._scalar(node, key_path, schema)

    def _scalar(self, node: ScalarNode, key_path: KeyPath, schema: Schema | None) -> object:
        if node.is_empty:
            return None
        if not self._check(node.text, key_path, node.position):
            return node.text
        if any(match[1] == _API_KEY_VARIABLE for match in _VARIABLE_PATTERN.finditer(node.text)):
            self._refuse_secret(key_path, node.position)
            return node.text
        try:
            text = substitute_variables(node.text, self._environ)
        except InvalidValueError as error:
            self.document.problems.append(self.document.problem(key_path, error.what, error.hint))
            return node.text
        if not self._check(text, key_path, node.position):
            return text
        return parse_scalar(text) if node.unquoted and not takes_only_text(schema) else text

    def _check(self, text: str, key_path: KeyPath, position: FilePosition) -> bool:
        if API_KEY_PATTERN.search(text):
            self._refuse_secret(key_path, position)
            return False
        try:
            text.encode()
        except UnicodeEncodeError:
            what = f"{dotted_path(key_path)}: the text holds half of a character (a lone surrogate)"
            hint = "write the character itself instead of an escape"
            self.document.problems.append(Problem(key_path=key_path, position=position, what=what, hint=hint))
            return False
        return True

    def _refuse_secret(self, key_path: KeyPath, position: FilePosition) -> None:
        self.secrets.append(
            Problem(key_path=key_path, position=position, what=SECRET_REFUSED_MESSAGE, hint=SECRET_REFUSED_HINT)
        )


#: refused by its name: a key of an unusual form would otherwise be sent as an input
_API_KEY_VARIABLE = "LAMINA_API_KEY"


_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?")
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


def parse_scalar(text: str) -> str | int | float | bool | None:
    """An unquoted scalar by the YAML 1.2 core schema, decimal numbers only; yes, no, 1:30 and dates are text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


_VARIABLE_PATTERN = re.compile(r"\$(?:\$|\{([^{}]*)(\}?))")
_VARIABLE_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOLLAR_HINT = "write $$ for a dollar sign"


def substitute_variables(text: str, environ: Mapping[str, str]) -> str:
    """`text` with `${NAME}` from the environment and `$$` as `$`; any other `$` stays. Raises InvalidValueError."""

    def replacement(match: re.Match[str]) -> str:
        name, closed = match.groups()
        if name is None:
            return "$"
        if not closed:
            raise InvalidValueError("a ${ is not closed", f"write ${{NAME}}; {_DOLLAR_HINT}")
        if not _VARIABLE_NAME_PATTERN.fullmatch(name):
            raise InvalidValueError(f"{name!r} cannot be an environment variable", f"write ${{NAME}}; {_DOLLAR_HINT}")
        if name not in environ:
            raise InvalidValueError(
                f"the environment variable {name} is not set", f"set it before the run; {_DOLLAR_HINT}"
            )
        return environ[name]

    return _VARIABLE_PATTERN.sub(replacement, text)
