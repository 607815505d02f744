"""docs/architecture.md, "The rooms": a room imports only rooms below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lamina_batch

PACKAGE = Path(lamina_batch.__file__).parent
#: From the top down. What stands beside another on one line may not import it either.
ROOMS = (
    "__main__",
    "cli",
    "api",
    "doctor",
    "authoring",
    "runs",
    "monitoring",
    "results",
    "sheets",
    "execution",
    "ledger",
    "drift",
    "preflight",
    "media",
    "catalog",
    "sources",
    "client",
    "apps",
    "pipeline",
    "runtime",
    "atomic_files",
    "errors",
    "_version",
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(module: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import hides which room it enters"
            names = [node.module or ""]
            if node.module == "lamina_batch":
                names = [f"lamina_batch.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("lamina_batch.")}
    return rooms


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_never_run_up(module: Path) -> None:
    room = room_of(module)
    if room in {"__init__", "sandbox"}:
        return
    allowed = set(ROOMS[ROOMS.index(room) :])
    # One module starts the embedded sandbox; the command `sandbox` serves one.
    if room == "cli" or module == PACKAGE / "runs" / "bootstrap.py":
        allowed.add("sandbox")
    assert imported_rooms(module) <= allowed


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) == "sandbox"], ids=lambda m: m.name)
def test_the_sandbox_imports_no_other_room(module: Path) -> None:
    assert imported_rooms(module) <= {"sandbox"}


def test_every_room_is_in_the_list() -> None:
    assert {room_of(m) for m in MODULES} <= {*ROOMS, "__init__", "sandbox"}


def module_name(module: Path) -> str:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_modules(module: Path, names: set[str]) -> set[str]:
    """The modules of the package that this one imports, also those that only a type checker needs."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & names - {module_name(module)}


def test_no_modules_import_each_other_in_a_circle() -> None:
    names = {module_name(module) for module in MODULES}
    imports = {module_name(module): imported_modules(module, names) for module in MODULES}
    remaining = dict(imports)
    while free := [name for name, needed in remaining.items() if not needed & remaining.keys()]:
        for name in free:
            del remaining[name]
    assert remaining == {}, "these import each other"
