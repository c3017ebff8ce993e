"""The tutorials: text and notebook are one, their outputs can be shown, every figure is taught, and all of them run."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import spahgc as sp

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

FOLDER = Path(__file__).parents[1] / "tutorials"
TEXTS = sorted(FOLDER.glob("[0-9]*.md"))
N_TUTORIALS = 6
MEASURED = {"her2st", "als_spinal_cord"}
"""A tutorial whose code names one of these folders needs measured slides."""


def notebook_of(text: Path):
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def code_of(notebook) -> str:
    """All code, without the magics that only a notebook understands."""
    lines = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code").splitlines()
    return "\n".join(line for line in lines if not line.startswith("%"))


def figures_drawn(code: str) -> set[str]:
    """Names of the functions of ``sp.pl`` that are called."""
    called = (node.func for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    return {
        func.attr
        for func in called
        if isinstance(func, ast.Attribute)
        and isinstance(func.value, ast.Attribute)
        and ast.unparse(func.value) == "sp.pl"
    }


@pytest.fixture(scope="module")
def renew() -> ModuleType:
    """The script that makes the notebooks."""
    spec = importlib.util.spec_from_file_location("renew", FOLDER / "renew.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=TEXTS, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_six_tutorials_and_no_notebook_without_its_text() -> None:
    assert len(TEXTS) == N_TUTORIALS
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == [path.stem for path in TEXTS]


def test_text_and_notebook_have_the_same_cells(text: Path) -> None:
    written, run = jupytext.read(text), notebook_of(text)
    assert [(cell.cell_type, cell.source) for cell in written.cells] == [
        (cell.cell_type, cell.source) for cell in run.cells
    ], f"{text.name} was changed: python tutorials/renew.py {text.name[:2]}"
    tags = [[cell.metadata.get("tags", []) for cell in notebook.cells] for notebook in (written, run)]
    assert tags[0] == tags[1]


def test_text_and_notebook_name_each_other_as_a_pair(text: Path) -> None:
    for notebook in (jupytext.read(text), notebook_of(text)):
        assert notebook.metadata["jupytext"]["formats"] == "ipynb,md:myst"


def test_the_cells_of_a_notebook_were_run_in_order(text: Path) -> None:
    counts = [cell.execution_count for cell in notebook_of(text).cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_outputs_hold_no_error_no_warning_and_no_path_of_a_machine(text: Path, renew: ModuleType) -> None:
    path = text.with_suffix(".ipynb")
    assert renew.faults(notebook_of(text), path.stat().st_size) == []


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        ({"output_type": "error", "ename": "KeyError", "evalue": "", "traceback": []}, "ends with KeyError"),
        ({"output_type": "stream", "name": "stderr", "text": "UserWarning"}, "written to stderr"),
        ({"output_type": "stream", "name": "stdout", "text": "saved in /home/me/x.png"}, "/home/"),
        (
            {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "<object at 0x7f01ab>"}},
            "at 0x7f01ab",
        ),
    ],
    ids=["error", "stderr", "path", "address"],
)
def test_what_must_not_be_kept_is_found(output: dict, fault: str, renew: ModuleType) -> None:
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.from_dict(output)])
    (found,) = renew.faults(nbformat.v4.new_notebook(cells=[cell]), 1)
    assert fault in found


def test_every_figure_function_is_used_in_a_tutorial() -> None:
    drawn = set().union(*(figures_drawn(code_of(notebook_of(text))) for text in TEXTS))
    taught = drawn | {"set_style"}  # no figure, and left to the user
    assert taught >= set(sp.pl.__all__), f"taught nowhere: {sorted(set(sp.pl.__all__) - taught)}"


def test_every_tutorial_shows_a_figure_and_says_where_to_go_next(text: Path) -> None:
    notebook = notebook_of(text)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", {}))
    headings = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert "## Where to go next" in headings[-1]


def test_the_install_line_brings_jupyter_and_all_that_the_notebooks_need() -> None:
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    extras = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert lines[lines.index('pip install ".[tutorials]"') + 1].startswith("jupyter lab tutorials/")
    brought = " ".join(extras["tutorials"])
    needed = {word for line in lines if line.startswith("| [") for word in re.findall(r"`([\w-]+)`", line)}
    assert needed >= {"domains", "enrich", "hd", "spatialdata", "squidpy"}
    assert [word for word in ("jupyterlab", "jupytext", *needed) if word not in brought] == []


def test_links_between_tutorials_lead_somewhere(text: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", text.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (FOLDER / target).is_file()] == []


@pytest.mark.tutorial
def test_a_tutorial_runs(
    text: Path, renew: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    # The kernel chooses its backend for figures by itself, unless the environment names one.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = renew.read_text(text)
    if any(name in code_of(notebook) for name in MEASURED):
        folder = request.getfixturevalue("her2st")
        monkeypatch.setenv("SPAHGC_TEST_DATA", str(folder.parent))
    run = renew.execute(notebook, tmp_path)
    assert all(cell.execution_count for cell in run.cells if cell.cell_type == "code")
