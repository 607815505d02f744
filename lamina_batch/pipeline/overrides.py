"""`--set rows.from=today.csv`: the command line replaces one value of the tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from lamina_batch.errors import PipelineError, UsageError
from lamina_batch.pipeline.file_schema import schema_types, subschema, takes_only_text
from lamina_batch.pipeline.problems import redact
from lamina_batch.pipeline.yaml_tree import OVERRIDE_POSITION, ListNode, MappingNode, Node, ScalarNode, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina_batch.pipeline.keys import Schema


def apply_override(tree: MappingNode, override: str, schema: Schema) -> None:
    """Set the value at a dotted path to the text after the first `=`. Missing keys of the path are added.

    A key that exists may hold dots: `inputs.Dr. Look.value=x` finds the parameter `Dr. Look`.
    Raises UsageError.
    """
    path, equals, text = override.partition("=")
    if not equals:
        raise UsageError(
            f"{redact(override)!r} has no =",
            where="--set",
            hint="write it as KEY=VALUE, such as --set rows.from=today.csv",
        )
    node: Node = tree
    here: Schema | None = schema
    rest = path
    while True:
        if isinstance(node, MappingNode):
            key, rest = _first_key(path, rest, node.entries)
            here = subschema(here, key)
            node.keys.setdefault(key, OVERRIDE_POSITION)
            if not rest:
                node.entries[key] = _parse_value(text, here, path)
                return
            existing = node.entries.get(key)
            if existing is None or (isinstance(existing, ScalarNode) and existing.is_empty):
                node.entries[key] = MappingNode({}, {}, OVERRIDE_POSITION)
            node = node.entries[key]
        elif isinstance(node, ListNode):
            step, _, remainder = rest.partition(".")
            indexes = [str(index) for index in range(len(node.items))]
            if step not in indexes:
                _refuse(path, f"{step!r} is no item of this list of {len(indexes)}", "items count from 0")
            index, rest = indexes.index(step), remainder
            here = subschema(here, index)
            if not rest:
                node.items[index] = _parse_value(text, here, path)
                return
            node = node.items[index]
        else:
            _refuse(
                path,
                f"there is nothing to name `{rest}` in: the value before it is a single value",
                "replace that value as a whole",
            )


def _first_key(path: str, rest: str, existing: Iterable[str]) -> tuple[str, str]:
    """The first key of `rest`, and the text after its dot; "" after the last key."""
    for key in sorted(existing, key=len, reverse=True):
        if rest == key:
            return key, ""
        if rest.startswith(f"{key}.") and len(rest) > len(key) + 1:
            return key, rest[len(key) + 1 :]
    key, dot, remainder = rest.partition(".")
    if not key or (dot and not remainder):
        _refuse(path, "a key of this path is empty", "write it as KEY=VALUE, such as rows.from=today.csv")
    return key, remainder


def _parse_value(text: str, schema: Schema | None, path: str) -> Node:
    """YAML, or the text as typed where only text fits: a shell user does not expect `#` or `{` to be syntax."""
    name = f"--set {redact(path)}"
    typed = ScalarNode(text, unquoted=True, position=OVERRIDE_POSITION)
    if not (takes_only_text(schema) and "string" in schema_types(schema)):
        return parse_yaml(text, name=name, in_file=False) or typed
    if "array" in schema_types(schema) and text.startswith("["):
        return parse_yaml(text, name=name, in_file=False) or typed
    if text.startswith(("'", '"')):
        try:
            quoted = parse_yaml(text, name=name, in_file=False)
        except PipelineError:  # SQL can begin with a quoted column: "list price" > 10
            return typed
        return quoted if isinstance(quoted, ScalarNode) else typed
    return typed


def _refuse(path: str, what: str, hint: str) -> NoReturn:
    raise UsageError(redact(what), where=f"--set {redact(path)}".rstrip(), hint=hint)
