"""No dead links: every file and heading that the documentation points to is there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest
from process import TOP

from docs.markdown import PAGES, anchors, links, name_of

if TYPE_CHECKING:
    from pathlib import Path

ALL = (*PAGES, TOP / "CHANGELOG.md", TOP / "sample_data" / "README.md")


@pytest.mark.parametrize("file", ALL, ids=name_of)
def test_links_lead_somewhere(file: Path) -> None:
    dead = [f"{name_of(file)}:{line}: {target}: {why}" for line, target in links(file) if (why := _dead(file, target))]
    assert dead == []


def _dead(file: Path, target: str) -> str | None:
    """Why a link leads nowhere; None: it does not, or it leads out of the repository."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return None if parts.scheme in {"http", "https"} and parts.hostname else "not an address"
    to = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not to.is_relative_to(TOP) or not to.exists():
        return "no such file"
    if parts.fragment and (to.suffix != ".md" or parts.fragment not in anchors(to)):
        return "no such heading"
    return None


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to every page."""
    index = TOP / "docs" / "README.md"
    listed = {(index.parent / urlsplit(target).path).resolve() for _, target in links(index)}
    assert [name_of(page) for page in PAGES if page not in {*listed, index, TOP / "README.md"}] == []
