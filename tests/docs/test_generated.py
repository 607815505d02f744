"""The generated parts of docs/ are fresh, and nothing that they should tell is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from process import TOP

from docs.generated import PARTS, parts_of, regenerated
from docs.markdown import PAGES, name_of
from lamina_batch.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_generated_parts_are_fresh(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == regenerated(text), f"{name_of(page)} is stale: `make docs` writes it again"


def test_every_generated_part_is_on_a_page() -> None:
    """A new section of the pipeline file needs a place where it is explained."""
    shown = set().union(*(parts_of(page.read_text(encoding="utf-8")) for page in PAGES))
    assert set(PARTS) - shown == set()


def _names(group: click.Group) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from ((name, *inner) for inner in _names(command))
        elif not command.hidden:
            yield (name,)


def test_every_command_has_a_section() -> None:
    text = (TOP / "docs/cli.md").read_text(encoding="utf-8")
    missing = [name for name in _names(main) if f"\n## lamina-batch {' '.join(name)}\n" not in text]
    assert missing == []
