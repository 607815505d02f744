"""Templates: literal text with columns in braces. There are no formats and no code."""

from __future__ import annotations

import re

from lamina_batch.pipeline.problems import InvalidValueError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def parse_template(text: str) -> tuple[str, ...]:
    """Literals and column names in turn, a literal first and last; `{{` and `}}` are braces.

    A name is used unchanged: `{a.b}` is the column `a.b`. Raises InvalidValueError.
    """
    parts = [""]
    end = 0
    for token in _TOKEN.finditer(text):
        parts[-1] += text[end : token.start()]
        end = token.end()
        name: str | None = token[1]
        if name is not None:
            if not name.strip():
                raise InvalidValueError("the braces {} name no column", "write {column}; {{ and }} are braces")
            parts += [name, ""]
        elif token[0] in {"{{", "}}"}:
            parts[-1] += token[0][0]
        else:
            raise InvalidValueError(
                f"the {token[0]} at character {token.start() + 1} has no partner",
                "write {column}; {{ and }} are braces",
            )
    parts[-1] += text[end:]
    if len(parts) == 1:
        hint = "{{ and }} are braces: write {column}" if "{{" in text else "for a fixed text write {value: ...}"
        raise InvalidValueError("this template names no column", hint)
    return tuple(parts)
