"""The tree of nodes -> plain values: typed as the schema says, with the environment read and secrets refused."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamina_batch.pipeline.file_schema import Schema, subschema, takes_only_text
from lamina_batch.pipeline.problems import (
    API_KEY_PATTERN,
    SECRET_REFUSED_HINT,
    SECRET_REFUSED_MESSAGE,
    KeyPath,
    Problem,
    as_error,
    dotted_path,
)
from lamina_batch.pipeline.yaml_tree import ListNode, MappingNode, Node, ScalarNode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lamina_batch.pipeline.spec import FilePosition


@dataclass(slots=True, kw_only=True)
class Document:
    """The file as plain values, and where each of them stands."""

    file: Path
    values: dict[str, Any] = field(default_factory=dict)
    #: of every value; of a block, where its key stands
    places: dict[KeyPath, FilePosition] = field(default_factory=dict)
    #: of every key
    keys: dict[KeyPath, FilePosition] = field(default_factory=dict)
    #: found on the way
    problems: list[Problem] = field(default_factory=list)

    def problem(self, steps: KeyPath, what: str, hint: str | None = None, *, at_key: bool = False) -> Problem:
        """A problem of the value or the key at `steps`; of a value not in the file, at what should hold it."""
        place = (
            self.keys[steps]
            if at_key
            else next(self.places[steps[:end]] for end in range(len(steps), -1, -1) if steps[:end] in self.places)
        )
        return Problem(steps=steps, place=place, what=f"{dotted_path(steps)}: {what}", hint=hint)


def typed_values(tree: MappingNode, schema: Schema, file: Path, environ: Mapping[str, str]) -> Document:
    """The values of the file. An environment variable that is not set is a problem of the document.

    Raises PipelineError, which never shows the value, where something looks like an API key: nothing else may
    be said about such a file, because another message could show it.
    """
    reader = _Reader(file, schema, environ)
    reader.document.values.update(reader.mapping(tree, (), schema))
    if reader.secrets:
        raise as_error(file, reader.secrets)
    return reader.document


class _Reader:
    def __init__(self, file: Path, root: Schema, environ: Mapping[str, str]) -> None:
        self.document = Document(file=file)
        self.secrets: list[Problem] = []
        self._root = root
        self._environ = environ

    def mapping(self, node: MappingNode, steps: KeyPath, schema: Schema | None) -> dict[str, Any]:
        self.document.places[steps] = node.place
        values: dict[str, Any] = {}
        for key, entry in node.entries.items():
            inner = (*steps, key)
            self.document.keys[inner] = node.keys[key]
            self._check(key, inner, node.keys[key])
            values[key] = self._value(entry, inner, subschema(self._root, schema, key))
        return values

    def _value(self, node: Node, steps: KeyPath, schema: Schema | None) -> object:
        if isinstance(node, MappingNode):
            return self.mapping(node, steps, schema)
        self.document.places[steps] = node.place
        if isinstance(node, ListNode):
            return [
                self._value(item, (*steps, index), subschema(self._root, schema, index))
                for index, item in enumerate(node.items)
            ]
        return self._scalar(node, steps, schema)

    def _scalar(self, node: ScalarNode, steps: KeyPath, schema: Schema | None) -> object:
        if node.missing:
            return None
        if not self._check(node.text, steps, node.place):
            return node.text
        if any(match[1] == _API_KEY_VARIABLE for match in _VARIABLE_PATTERN.finditer(node.text)):
            self._refuse_secret(steps, node.place)
            return node.text
        try:
            text = substitute_variables(node.text, self._environ)
        except _VariableError as error:
            self.document.problems.append(self.document.problem(steps, error.what, error.hint))
            return node.text
        if not self._check(text, steps, node.place):
            return text
        return parse_scalar(text) if node.plain and not takes_only_text(schema) else text

    def _check(self, text: str, steps: KeyPath, place: FilePosition) -> bool:
        if API_KEY_PATTERN.search(text):
            self._refuse_secret(steps, place)
            return False
        if not _is_encodable(text):
            self.document.problems.append(
                Problem(
                    steps=steps,
                    place=place,
                    what=f"{dotted_path(steps)}: the text holds half of a character (a lone surrogate)",
                    hint="write the character itself instead of an escape",
                )
            )
            return False
        return True

    def _refuse_secret(self, steps: KeyPath, place: FilePosition) -> None:
        self.secrets.append(Problem(steps=steps, place=place, what=SECRET_REFUSED_MESSAGE, hint=SECRET_REFUSED_HINT))


#: refused by name: a key without the usual shape would otherwise be sent as an input
_API_KEY_VARIABLE = "LAMINA_API_KEY"


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][-+]?[0-9]+)?")
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


def parse_scalar(text: str) -> str | int | float | bool | None:
    """A plain scalar by the YAML 1.2 core schema, decimal only: never yes and no, 1:30 or dates."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


class _VariableError(Exception):
    def __init__(self, what: str, hint: str) -> None:
        self.what = what
        self.hint = hint
        super().__init__(what)


_VARIABLE_PATTERN = re.compile(r"\$(?:\$|\{([^{}]*)(\}?))")
_VARIABLE_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOLLAR_HINT = "write $$ for a dollar sign"


def substitute_variables(text: str, environ: Mapping[str, str]) -> str:
    """`${NAME}` from the environment, `$$` as `$`; a `$` before anything else stays."""

    def replacement(match: re.Match[str]) -> str:
        name, closed = match.groups()
        if name is None:
            return "$"
        if not closed:
            raise _VariableError("a ${ is not closed", f"write ${{NAME}}; {_DOLLAR_HINT}")
        if not _VARIABLE_NAME_PATTERN.fullmatch(name):
            raise _VariableError(f"{name!r} cannot be an environment variable", f"write ${{NAME}}; {_DOLLAR_HINT}")
        if name not in environ:
            raise _VariableError(
                f"the environment variable {name} is not set", f"set it before the run; {_DOLLAR_HINT}"
            )
        return environ[name]

    return _VARIABLE_PATTERN.sub(replacement, text)
