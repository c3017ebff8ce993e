"""What the benchmarks import of the package is there: they run for hours, and long after whoever moved a name has gone."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def imported(path: Path) -> list[tuple[str, str]]:
    """Modules of the package and the names that a script takes from them, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spahgc"
        for alias in node.names
    ]


@pytest.mark.parametrize(
    "path", sorted(BENCHMARKS.rglob("*.py")), ids=lambda path: path.relative_to(BENCHMARKS).as_posix()
)
def test_every_name_that_a_benchmark_imports_exists(path: Path) -> None:
    for module, name in imported(path):
        try:
            missing = not hasattr(import_module(module), name) and import_module(f"{module}.{name}") is None
        except ModuleNotFoundError:
            missing = True
        assert not missing, f"{path.name}: {module} has no {name}"
