"""The map in CONTRIBUTING: a room per package, what it owns, and which rooms and libraries it may import."""

import ast
import functools
import re
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(p for folder in ("benchmark", "tasks") for p in (ROOT / folder).rglob("*.py"))
IN_ROOMS = [path for path in FILES if path != ROOT / "benchmark" / "__init__.py"]
LIBRARIES = {"torch", "transformers", "lightning", "mlflow", "datasets", "evaluate", "peft"}


class Room(NamedTuple):
    owns: str
    imports: set[str]
    libraries: set[str]


def map_of_rooms() -> dict[str, Room]:
    """The table below "The map"; a room below may be imported by those above it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = text.partition("## The map")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return {
        room.strip("`"): Room(owns, set(imports.split()), set(libraries.split()))
        for room, owns, imports, libraries in rows[2:]
    }


ROOMS = map_of_rooms()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """`benchmark.run.recipe` lies in run, `benchmark.cli` in cli, everything in tasks in tasks."""
    first, _, rest = module.partition(".")
    return first if first != "benchmark" else rest.partition(".")[0] or "benchmark"


@functools.cache
def imported(path: Path) -> set[str]:
    """Every module that `path` imports when it runs, inside functions too; not for type checkers."""
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    for_types = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            origin = ".".join(filter(None, (*package, node.module)))
            whole = origin == "benchmark"
            found |= {f"benchmark.{a.name}" for a in node.names} if whole else {origin}
    return found


def rooms_imported(path: Path) -> set[str]:
    ours = {name for name in imported(path) if name.partition(".")[0] in ("benchmark", "tasks")}
    return {room_of(name) for name in ours} - {room_of(module_name(path)), "benchmark"}


def test_every_module_imports():
    for path in FILES:
        import_module(module_name(path))


def test_imports_are_those_of_the_map():
    beyond = {}
    for path in IN_ROOMS:
        room = ROOMS[room_of(module_name(path))]
        libraries = {name.partition(".")[0] for name in imported(path)} & LIBRARIES
        beyond[module_name(path)] = (rooms_imported(path) - room.imports) | (
            libraries - room.libraries
        )
    assert {module: found for module, found in beyond.items() if found} == {}


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_the_map_shows_no_arrow_that_is_not_there(name):
    mine = [path for path in IN_ROOMS if room_of(module_name(path)) == name]
    assert {room for path in mine for room in rooms_imported(path)} == ROOMS[name].imports
    libraries = {found.partition(".")[0] for path in mine for found in imported(path)}
    assert libraries & LIBRARIES == ROOMS[name].libraries


def test_arrows_point_down():
    names = list(ROOMS)
    for place, (name, room) in enumerate(ROOMS.items()):
        assert room.imports <= set(names[place + 1 :]), name


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_a_room_says_first_what_the_map_says(name):
    module = import_module("tasks" if name == "tasks" else f"benchmark.{name}")
    assert module.__doc__ is not None
    said = re.sub(r"\s+", " ", module.__doc__.partition("\n\n")[0]).strip()
    assert said == ROOMS[name].owns
