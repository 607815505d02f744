"""Each step of the walks in docs/architecture.md names a file and a function that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"`([a-z_/]+\.py)` `([A-Za-z_.]+)`")
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def walk(heading: str) -> list[str]:
    """The numbered steps below a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\d+\. .*(?:\n   .*)*", section, flags=re.MULTILINE)


def names_in(file: Path) -> set[str]:
    """The classes, functions and methods that a module defines."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
            if isinstance(node, ast.ClassDef):
                methods = (part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
                names |= {f"{node.name}.{method.name}" for method in methods}
    return names


@pytest.mark.parametrize("heading", ["From a cell to the body of a POST", "From a 202 to a cell of the manifest"])
def test_each_step_names_what_exists(heading: str) -> None:
    steps = walk(heading)
    assert len(steps) >= 10
    for step in steps:
        found = STEP.findall(step)
        assert found or "Steps" in step, f"this step names no file and function: {step}"
        for file, name in found:
            module = ROOT / "lamina_batch" / file
            assert module.is_file(), f"{file} does not exist: {step}"
            assert name in names_in(module), f"{file} has no {name}: {step}"
