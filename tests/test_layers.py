"""Imports run downwards only: from the stages to the equations."""

import ast
from pathlib import Path

import networkx
import pytest
from conftest import PROJECT

FLOORS = {
    0: "randomness diffusion torchvision_import",
    1: "foundation params overlays",
    2: "graph schedulers networks data forward_process",
    3: "device evaluation quality processes rungs",
    4: "figures report",
    5: "training sampling play",
    6: "model command_line sample invert interpolate publish study forecast rehearsal presets verify stages notebooks"
    " exercises known_failures",
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}
FILES = [
    file.relative_to(PROJECT)
    for folder in ("src/diffusion_ladder", "stages")
    for file in sorted((PROJECT / folder).rglob("*.py"))
]


def room_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return parts[0] if parts[0] == "stages" else parts[2]


def imported(path: Path) -> list[tuple[str, str]]:
    """The project's modules that a file imports, as (room, module)."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [(name.split(".")[1], name) for name in names if name.startswith("diffusion_ladder.")]
    return found


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_nothing_from_a_higher_floor(path):
    if path.name == "__init__.py" and path.parent.name == "diffusion_ladder":
        return
    floor = FLOOR_OF[room_of(path)]
    above = {name for room, name in imported(path) if room in FLOOR_OF and FLOOR_OF[room] > floor}
    assert above == set()


def test_no_two_files_import_each_other():
    assert len(FILES) > 50
    graph = networkx.DiGraph()
    for path in FILES:
        module = ".".join(path.with_suffix("").parts).removeprefix("src.")
        graph.add_edges_from((module, name) for _, name in imported(path) if name != module)
    assert list(networkx.simple_cycles(graph)) == []
