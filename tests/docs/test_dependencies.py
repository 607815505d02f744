"""docs/dependencies.md gives a reason for each package that is installed, and for no other."""

from __future__ import annotations

import re
import tomllib

from process import TOP


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[ ;]", one, maxsplit=1)[0] for one in requirements}


def test_each_has_its_line() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (TOP / "docs" / "dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| ([a-z][a-z0-9-]*) \|", text, re.MULTILINE)) - {"package"} == _names(
        project["dependencies"]
    )
    for_work = {name for name in _names(project["optional-dependencies"]["dev"]) if not name.startswith("types-")}
    assert {name for name in for_work if not re.search(rf"\b{re.escape(name)}\b", text)} == set()
