"""The house's one rule of imports: a module imports only from its own row or the rows above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "netbpf"

# lowest first, as docs/architecture.md lists them; one room may be named by a file or a folder
ROWS = [
    {"errors", "ints", "env"},
    {"abi"},
    {"isa"},
    {"maps"},
    {"packet"},
    {"program"},
    {"btf"},
    {"sources"},
    {"verifier"},
    {"engine"},
    {"host"},
    {"replay"},
    {"explain"},
    {"report"},
    {"scenario", "pytest_plugin"},
    {"cli", "__main__", "__init__"},
]
LEVEL = {room: level for level, rooms in enumerate(ROWS) for room in rooms}
# rooms side by side that must not know each other
STRANGERS = {("verifier", "engine"), ("engine", "verifier"), ("engine", "sources"), ("verifier", "sources")}
# third-party packages and where each may be imported
DOORS = {
    "llvmlite": ("engine/llvm/",),
    "scapy": ("packet/", "scenario/", "replay/", "explain/", "sources/", "cli/"),
    "pyroute2": ("host/linux/",),
    "pytun": ("host/linux/",),
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path) -> list[tuple[str, bool, int]]:
    """(dotted name, whether at module level, line) of every import."""
    tree = ast.parse(path.read_text())
    top = {id(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom) and n.col_offset == 0}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, id(node) in top, node.lineno) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"netbpf.{a.name}" for a in node.names] if node.module == "netbpf" else [node.module]
            found += [(name, id(node) in top, node.lineno) for name in names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    assert room in LEVEL, f"{path.name}: room {room!r} is in no row: change the plan first"
    for name, _, line in imports_of(path):
        parts = name.split(".")
        if parts[0] != "netbpf" or len(parts) < 2 or parts[1] == "__version__":
            continue
        other = parts[1]
        if other not in LEVEL:
            assert room == "cli" or not (PACKAGE / other).exists(), f"{path}:{line}: unknown room {other}"
            continue
        where = f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        assert LEVEL[other] <= LEVEL[room], where
        assert (room, other) not in STRANGERS, where


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_third_party_packages_come_through_their_doors(path: Path) -> None:
    here = str(path.relative_to(PACKAGE))
    for name, at_top, line in imports_of(path):
        package = name.split(".")[0]
        if package not in DOORS:
            continue
        assert here.startswith(DOORS[package]), f"{here}:{line} imports {name}"
        late = not at_top or here.startswith("engine/llvm/")
        assert late, f"{here}:{line} imports {name} at module level: import it where it is used"
