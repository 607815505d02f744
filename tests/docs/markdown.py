"""Pages of the documentation as values: their code blocks, headings and links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt
from process import TOP

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from markdown_it.token import Token

PAGES = tuple(sorted([TOP / "README.md", *(TOP / "docs").rglob("*.md")]))

#: A fence of this language is no code: a diagram, a formula, what a program prints.
NO_CODE = "text"

#: What an HTML comment right before a block may say, each `<!-- word: value -->` or `<!-- word -->`.
DIRECTIVES = {
    "not run": "why this block is not executed",
    "exits": "exit code that some of its commands have instead of 0",
    "background": "the command goes on until the page ends, as a server does",
    "file": "the block is a file of this name, which later blocks use",
    "schema": "name of the schemas/<name>.schema.json that a json block fits",
    "runs as": "name of the runner, where the language does not tell",
}
_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of code."""

    #: such as docs/ledger.md
    page: str
    #: of its first line of code
    line: int
    language: str
    text: str
    #: the directives before it
    said: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def runner(self) -> str:
        return self.said.get("runs as", self.language)


def name_of(page: Path) -> str:
    return page.relative_to(TOP).as_posix()


def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, those that are no code included, in its order."""
    said: dict[str, str] = {}
    for token in tokens(page):
        if token.type == "html_block":
            said |= _directives(token.content)
        elif token.type == "fence":
            first = token.map[0] + 2 if token.map else 0
            language = token.info.partition(" ")[0]
            yield Block(page=name_of(page), line=first, language=language, text=token.content, said=said)
            said = {}
        elif token.content or token.type.endswith("_open"):
            said = {}


def _directives(html: str) -> dict[str, str]:
    said: dict[str, str] = {}
    for comment in _COMMENT.findall(html):
        word, _, value = comment.partition(":")
        if word.strip() in DIRECTIVES:
            said[word.strip()] = value.strip()
    return said


def indented(page: Path) -> Iterator[int]:
    """The lines at which code begins that is only indented, and so says no language."""
    for token in tokens(page):
        if token.type == "code_block":
            yield token.map[0] + 1 if token.map else 0


def anchors(page: Path) -> set[str]:
    """What may stand behind a # in a link to the page, by the rule that GitHub makes them from headings."""
    found: set[str] = set()
    of_heading = False
    for token in tokens(page):
        if of_heading:
            title = "".join(part.content for part in token.children or () if part.type in {"text", "code_inline"})
            base = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            number = 0
            anchor = base
            while anchor in found:
                number += 1
                anchor = f"{base}-{number}"
            found.add(anchor)
        of_heading = token.type == "heading_open"
    return found


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Line and target of every link and image."""
    for token in tokens(page):
        for part in token.children or ():
            target = part.attrGet("href") or part.attrGet("src")
            if target is not None:
                yield (token.map[0] + 1 if token.map else 0), str(target)
