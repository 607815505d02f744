"""The generated parts of docs/ are fresh, and nothing that they should tell is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docs.generated import PARTS, parts_of, regenerated
from docs.markdown import PAGES, name_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_generated_parts_are_fresh(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == regenerated(text), f"{name_of(page)} is stale: `make docs` writes it again"


def test_every_generated_part_is_on_a_page() -> None:
    """A new section of the pipeline file needs a place where it is explained."""
    shown = set().union(*(parts_of(page.read_text(encoding="utf-8")) for page in PAGES))
    assert set(PARTS) - shown == set()
