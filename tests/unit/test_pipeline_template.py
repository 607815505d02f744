"""Templates: columns in braces, and nothing else."""

from __future__ import annotations

import pytest

from lamina_batch.pipeline.problems import InvalidValueError
from lamina_batch.pipeline.template import parse_template


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{title} in {colour}", ("", "title", " in ", "colour", "")),
        ("a {b}", ("a ", "b", "")),
        ("{a}{b}", ("", "a", "", "b", "")),
        ("{a.b[0]!r:>10}", ("", "a.b[0]!r:>10", "")),
        ("{ a }", ("", " a ", "")),
        ("{{{a}}}", ("{", "a", "}")),
        ("{{x}} {a}", ("{x} ", "a", "")),
        ("{a}\n{a}", ("", "a", "\n", "a", "")),
    ],
)
def test_literals_and_columns_in_turn(text: str, parts: tuple[str, ...]) -> None:
    assert parse_template(text) == parts


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("{title", "the { at character 1 has no partner", "write {column}"),
        ("a } {b}", "the } at character 3 has no partner", "write {column}"),
        ("{a{b}", "the { at character 1 has no partner", "write {column}"),
        ("{}", "the braces {} name no column", "write {column}"),
        ("{ }", "the braces {} name no column", "write {column}"),
        ("plain", "this template names no column", "for a fixed text write {value: ...}"),
        ("{{ title }}", "this template names no column", "{{ and }} are braces: write {column}"),
    ],
)
def test_what_is_no_template_says_why(text: str, what: str, hint: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_template(text)
    assert caught.value.what == what
    assert caught.value.hint.startswith(hint)
