"""YAML text becomes a tree of nodes with positions. Nothing is typed yet: every scalar is the text of the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import yaml

from lamina_batch.errors import PipelineError, did_you_mean
from lamina_batch.pipeline.problems import FilePosition, redact

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1 << 20
#: nodes with keys, after aliases are followed: a few lines of aliases can mean billions of nodes
MAX_NODES = 100_000
#: characters of all scalars, after aliases are followed
MAX_CHARACTERS = 4 * MAX_BYTES
MAX_DEPTH = 32

#: the position of a value from the command line
OVERRIDE_POSITION = FilePosition(0, 0)


@dataclass(slots=True)
class ScalarNode:
    """A single value: text, a number, a boolean or null."""

    text: str
    unquoted: bool
    position: FilePosition

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands after the key; `""` is text."""
        return self.unquoted and not self.text


@dataclass(slots=True)
class ListNode:
    """A list."""

    items: list[Node]
    position: FilePosition


@dataclass(slots=True)
class MappingNode:
    """A mapping, with the value and the position of each key."""

    entries: dict[str, Node]
    keys: dict[str, FilePosition]
    #: a block has the position of its key, where a person looks for it
    position: FilePosition


Node = ScalarNode | ListNode | MappingNode


def read_tree(file: Path) -> MappingNode:
    """The tree of a pipeline file.

    Raises PipelineError, with line and column, for a file that cannot be read, is not YAML, is too large, or has
    several documents, duplicate keys, tags or merge keys.
    """
    tree = parse_yaml(_read_text(file), name=str(file))
    if tree is None:
        raise PipelineError("the file is empty", where=str(file), hint="a pipeline file begins with `version: 1`")
    if not isinstance(tree, MappingNode):
        raise PipelineError(
            "a pipeline file is a mapping of keys, and this is something else",
            where=tree.position.format(file),
            hint="it begins with `version: 1`, and has one key of its own on each line",
        )
    return tree


def parse_yaml(text: str, *, name: str, in_file: bool = True) -> Node | None:
    """The tree of one YAML document; None if it is empty.

    Errors call the text `name`. With `in_file=False` the text is a value of `--set`: positions are OVERRIDE_POSITION.
    """
    forbidden = _FORBIDDEN_CHARACTER.search(text)
    if forbidden is not None:
        code = f"{ord(forbidden[0]):04X}"
        raise PipelineError(
            f"the character U+{code} cannot stand in a pipeline file",
            where=_format_position(name, _end_position(text[: forbidden.start()]), in_file=in_file),
            hint=f'delete it (many editors do not show it), or write it in double quotes as "\\u{code}"',
        )
    # BaseLoader resolves and constructs nothing, so it is narrower than the safe loader. The messages of the C loader
    # differ from those in _SYNTAX_HINTS, and a file this small does not need its speed.
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        _refuse_syntax(error, name, in_file=in_file)
    except RecursionError as error:
        raise PipelineError(_TOO_DEEP_MESSAGE, where=name, hint=_SIMPLER_HINT) from error
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF" is no character
        raise PipelineError(
            "an escape in a quoted text names no character",
            where=name,
            hint="look for \\U in double quotes; in single quotes a backslash is a backslash",
        ) from error
    return None if node is None else _TreeBuilder(name=name, in_file=in_file).build(node)


#: characters that YAML forbids, and three that end a line in YAML 1.1, which PyYAML reads, but are text in YAML 1.2
_FORBIDDEN_CHARACTER = re.compile(r"[^\t\n\r -~\xA0-\u2027\u202A-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")

_TOO_DEEP_MESSAGE = f"values stand inside each other more than {MAX_DEPTH} levels deep"
_SIMPLER_HINT = "a pipeline file needs about five levels and no aliases of aliases"


class _TreeBuilder:
    """Turns PyYAML's graph into a tree. Follows aliases up to the limits."""

    def __init__(self, *, name: str, in_file: bool) -> None:
        self._name = name
        self._in_file = in_file
        self._nodes = 0
        self._text = 0

    def build(self, node: yaml.Node, key: yaml.Node | None = None, depth: int = 0) -> Node:
        self._count(node)
        if depth > MAX_DEPTH:
            self._refuse(node, _TOO_DEEP_MESSAGE, _SIMPLER_HINT)
        if node.tag not in _PLAIN_TAGS:
            self._refuse(
                node, f"the tag {redact(node.tag)!r} has no meaning here", "delete the word that begins with !"
            )
        if isinstance(node, yaml.ScalarNode):
            return ScalarNode(node.value, unquoted=node.style is None, position=self._position(node))
        in_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
        position = self._position(key if key is not None and in_block else node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, position, depth)
        return ListNode([self.build(item, depth=depth + 1) for item in node.value], position)

    def _mapping(self, node: yaml.MappingNode, position: FilePosition, depth: int) -> MappingNode:
        built = MappingNode({}, {}, position)
        for key, value in node.value:
            self._count(key)
            name = self._key(key)
            if name in built.entries:
                first = built.keys[name]
                self._refuse(
                    key,
                    f"the key {redact(name)!r} stands here a second time; the first is in line {first.line}, "
                    f"column {first.column}",
                    "keep one of the two",
                )
            built.keys[name] = self._position(key)
            built.entries[name] = self.build(value, key, depth + 1)
        return built

    def _key(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _PLAIN_TAGS:
            self._refuse(key, "a key must be text", "put a text that begins with { or [ in quotes")
        if key.value == "<<" and key.style is None:
            self._refuse(key, "merge keys (<<) are not supported", "write out the keys that it would bring in")
        text: str = key.value
        return text

    def _count(self, node: yaml.Node) -> None:
        self._nodes += 1
        self._text += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self._nodes > MAX_NODES or self._text > MAX_CHARACTERS:
            self._refuse(node, "the file is too large once its aliases are followed", _SIMPLER_HINT)

    def _position(self, node: yaml.Node) -> FilePosition:
        return _position(node.start_mark) if self._in_file else OVERRIDE_POSITION

    def _refuse(self, node: yaml.Node, what: str, hint: str) -> NoReturn:
        where = _format_position(self._name, _position(node.start_mark), in_file=self._in_file)
        raise PipelineError(what, where=where, hint=hint)


#: the tags that the BaseLoader gives to a node without a tag in the text
_PLAIN_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise PipelineError("there is no such file", where=str(file), hint=_similar_file_hint(file)) from error
    except IsADirectoryError as error:
        raise PipelineError(
            "this is a folder", where=str(file), hint="name the pipeline file (.yaml) inside it"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise PipelineError(f"the file cannot be read: {reason or error}", where=str(file)) from error
    if len(content) > MAX_BYTES:
        raise PipelineError(
            f"the file is larger than {MAX_BYTES >> 20} MiB",
            where=str(file),
            hint="a pipeline file holds no rows: those stand in the files that `rows.from` names",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", errors="replace")
        raise PipelineError(
            f"byte 0x{content[error.start]:02X} is not UTF-8",
            where=_format_position(str(file), _end_position(before)),
            hint="save the file as UTF-8",
        ) from error


def _similar_file_hint(file: Path) -> str:
    try:
        names = [entry.name for entry in file.parent.iterdir() if entry.suffix in {".yaml", ".yml"}]
    except OSError:
        return f"there is no folder {file.parent} either"
    return did_you_mean(file.name, names) or "check the path; `ls *.yaml` lists what is here"


#: part of PyYAML's message -> what to do; the first match counts
_SYNTAX_HINTS = (
    ("'\\t'", "YAML is indented with spaces: replace the tab"),
    ("mapping values are not allowed", "put a text that holds `: ` in quotes, and check the indentation"),
    ("undefined alias", "put a text that begins with * in quotes"),
    ("expected alphabetic or numeric character", "put a text that begins with * or & in quotes"),
    ("that cannot start any token", "put a text that begins with this character in quotes"),
    ("unknown escape", "use single quotes: in double quotes a backslash begins an escape"),
    ("another document", "keep one document: delete the line `---` and what follows it"),
    ("unexpected end of stream", "a quote is not closed"),
    ("but got '<stream end>'", "a bracket is not closed"),
    ("expected ',' or", "put a text that holds { } [ ] or , in quotes, and close every bracket"),
    ("expected <block end>", "keys that belong together begin in the same column; text after a quote ends it"),
    ("expected '<document start>'", "keys that belong together begin in the same column"),
)


def _refuse_syntax(error: yaml.MarkedYAMLError, name: str, *, in_file: bool) -> NoReturn:
    what = redact(" ".join(part for part in (error.problem, error.context) if part))
    mark = error.problem_mark or error.context_mark
    raise PipelineError(
        f"this is not YAML: {what}",
        where=_format_position(name, _position(mark), in_file=in_file) if mark is not None else name,
        hint=next((hint for part, hint in _SYNTAX_HINTS if part in what), "check this line and the one above"),
    ) from error


def _position(mark: yaml.Mark) -> FilePosition:
    return FilePosition(mark.line + 1, mark.column + 1)


def _end_position(text: str) -> FilePosition:
    return FilePosition(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _format_position(name: str, position: FilePosition, *, in_file: bool = True) -> str:
    return f"{name}:{position.line}:{position.column}" if in_file else name
