"""What code, tests and SQL cite is there: the page, and the heading on it.

There is one form, `docs/<page>.md, "<Heading>"`, with the heading's text as it stands on the page. Several headings of
one page are `docs/<page>.md, "<A>", "<B>" and "<C>"`. A citation may wrap over lines of a comment or docstring. A page
alone (`docs/<page>.md`) cites the page as a whole. Documents that are not in the repository are not cited.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from process import TOP

from docs.markdown import PAGES, name_of, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDERS = ("lamina_batch", "tests", "docs", "schemas", "pipelines", "sample_data", ".ci")
SUFFIXES = {".py", ".sql", ".md", ".js", ".css", ".html", ".sh", ".toml", ".yaml", ".yml", ".json", ""}
TOP_FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", ".pre-commit-config.yaml")

#: The start of the next line of a comment or docstring.
_NEXT_LINE = r"\n[ \t]*(?:#:?|--|//|\*)?[ \t]*"
_GAP = rf"(?:[ \t]|{_NEXT_LINE})+"
_HEADING = r'\\?"([^"\\]+)\\?"'
_CITATION = re.compile(rf"docs/([\w-]+\.md),{_GAP}({_HEADING}(?:(?:,|{_GAP}and){_GAP}{_HEADING})*)")
_PAGE = re.compile(r"\bdocs/([\w-]+\.md)")
#: Documents of the authors, outside the repository: by file name, or by name and the number of a section.
_OUTSIDE = re.compile(r"\b(?:DESIGN|API|STYLE)(?:\.md\b|[ \t]+(?:section[ \t]+)?\d)")


def _headings(page: Path) -> list[str]:
    """The text of each heading of a page, in its order, without marks of code."""
    found: list[str] = []
    is_heading = False
    for token in tokens(page):
        if is_heading:
            parts = (part.content for part in token.children or () if part.type in {"text", "code_inline"})
            found.append("".join(parts))
        is_heading = token.type == "heading_open"
    return found


HEADINGS = {page.name: _headings(page) for page in PAGES if page.parent == TOP / "docs"}


def _files() -> Iterator[Path]:
    """Every text file of the repository, except this one: it holds wrong citations as examples."""
    for name in TOP_FILES:
        if (TOP / name).is_file():
            yield TOP / name
    for folder in FOLDERS:
        for file in sorted((TOP / folder).rglob("*")):
            if file.is_file() and file.suffix in SUFFIXES and file != Path(__file__).resolve():
                yield file


FILES = [file for file in _files() if "__pycache__" not in file.parts]


def _wrong_citations(text: str) -> Iterator[tuple[int, str]]:
    """Line and fault of each citation that names no page, no heading, or a heading that stands twice on its page."""
    for match in _PAGE.finditer(text):
        if match[1] not in HEADINGS:
            yield _line(text, match), f"no page docs/{match[1]}"
    for match in _CITATION.finditer(text):
        for cited in re.findall(_HEADING, match[2]):
            heading = re.sub(_NEXT_LINE, " ", cited)
            count = HEADINGS.get(match[1], [heading]).count(heading)
            if count != 1:
                yield _line(text, match), f"{count or 'no'} headings {heading!r} in docs/{match[1]}"


def _outside_citations(text: str) -> Iterator[tuple[int, str]]:
    """Line and words of each citation of a document that is not in the repository."""
    for match in _OUTSIDE.finditer(text):
        yield _line(text, match), f"{match[0]!r} is not in the repository: cite a page of docs/"


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def test_every_citation_names_a_page_and_a_heading() -> None:
    wrong = [f"{name_of(file)}:{line}: {fault}" for file in FILES for line, fault in _wrong_citations(_read(file))]
    assert wrong == []


def test_nothing_outside_the_repository_is_cited() -> None:
    wrong = [f"{name_of(file)}:{line}: {fault}" for file in FILES for line, fault in _outside_citations(_read(file))]
    assert wrong == []


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('"""What it does (docs/ledger.md, "No such heading")."""', 1),
        ('# see docs/lamina-api.md, "Rate limits"', 1),
        ("first line\n# docs/no-such-page.md explains it", 2),
        ('#: wrapped (docs/lamina-api.md,\n#: "Rate\n#: limits")', 1),
        ('-- docs/ledger.md, "held rows"', 1),
        ('docs/lamina-api.md, "Outputs" and "Nothing"', 1),
        ('# docs/lamina-api.md, "Outputs", "Nothing"\n# and "Limiter"', 1),
        ('message = "see docs/ledger.md, \\"Nothing\\""', 1),
    ],
)
def test_a_wrong_citation_is_found(text: str, line: int) -> None:
    assert [found for found, _ in _wrong_citations(text)] == [line]


@pytest.mark.parametrize(
    "text",
    [
        'docs/lamina-api.md, "Rate limit"',
        '    #: which one it is (docs/lamina-api.md,\n    #: "Rate limit")',
        '-- docs/lamina-api.md, "Rate\n-- limit"',
        'docs/lamina-api.md, "Outputs", "Rate limit"\nand "Limiter"',
        "docs/ledger.md explains it",
        '("docs/ledger.md", "other")',
    ],
)
def test_a_right_citation_is_not(text: str) -> None:
    assert list(_wrong_citations(text)) == []


@pytest.mark.parametrize("text", ["DESIGN.md", "(API.md 2.4)", "STYLE.md, Words", "DESIGN section 6", "see API 11"])
def test_an_outside_citation_is_found(text: str) -> None:
    assert len(list(_outside_citations(text))) == 1


@pytest.mark.parametrize(
    "text", ["docs/lamina-api.md", "the API 's 4 endpoints", "the API has six endpoints", "API v1"]
)
def test_a_mention_of_the_api_is_not(text: str) -> None:
    assert list(_outside_citations(text)) == []
