"""The README keeps its promise: its Python runs from top to bottom, its commands and links exist.

The Python blocks are run in one namespace, in a folder that holds small simulated slides under the names that the README
uses. The presets train a smaller network for fewer epochs, and the default one has no perceptrons, which take longest;
nothing else is changed.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import tifffile

import spahgc as sp
from spahgc import _parameters

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
EXTRAS = re.compile(r"\.\[([\w,]+)\]")

N_SPOTS = 30
MPP = 2.0
"""Microns per pixel that the plain slide says it has; the encoder takes any."""
RUNS = ("run_A", "run_B", "run_C")
GENES = ("ERBB2", "CD74")
"""Genes that the README names; two of the simulated ones are called so."""


def helper(name: str) -> Any:
    """A helper beside this file; pytest's import mode does not put the folder on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


cohort_files, slide_files = helper("cohort_files"), helper("slide_files")


def blocks(language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(README) if kind == language]


def marked(name: str) -> str:
    """What stands between the README's two markers of that name."""
    assert README.count(f"<!-- {name} -->") == README.count(f"<!-- /{name} -->") == 1, f"README.md: markers {name}"
    return README.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]


# --- what the Python blocks find


def write_svs(path: Path, pixels: np.ndarray) -> None:
    """A tiled JPEG pyramid with Aperio's description."""
    height, width = pixels.shape[:2]
    text = f"Aperio Image Library v12\n{width}x{height} |AppMag = 10|MPP = {MPP}"
    options = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=False) as file:
        file.write(pixels, description=text, **options)
        file.write(pixels[::2, ::2], subfiletype=1, **options)


def write_slides(folder: Path) -> dict[str, Any]:
    """Write every file that the README names into the folder; returns the names that it takes for granted."""
    slides = sp.datasets.simulated(4, n_patients=2, n_spots=N_SPOTS, n_genes=40, n_domains=3, seed=1)
    for slide in slides:
        slide.var_names = [*GENES, *slide.var_names[len(GENES) :]]
    for run, slide in zip(RUNS, slides, strict=False):
        slide_files.write_visium(folder / run, slide)
    slide_files.write_visium_hd(folder / "run_HD", slides[0])
    slide_files.write_hest(folder / "hest", slides[0], "NCBI681")
    for seed, name in enumerate(("C2", "D1")):
        cohort_files.write_st(seed, *(folder / f"{name}{end}" for end in (".tsv.gz", "_selection.tsv", ".jpg")))
    write_svs(folder / "case.svs", slide_files.full_image(slides[3]))
    sets = {"HALLMARK_A": slides[0].var_names[:12], "HALLMARK_B": slides[0].var_names[12:30]}
    (folder / "hallmark.gmt").write_text("".join("\t".join([name, "", *genes]) + "\n" for name, genes in sets.items()))
    for number, slide in enumerate((slides[0], slides[3])):  # the other two are references
        slide.write_h5ad(folder / f"slide_{number}.h5ad")
    return {
        "table": pd.DataFrame(slides[3].obsm["spatial"], columns=["x", "y"], index=slides[3].obs_names),
        "spot": 0,
        "paths": [folder / f"slide_{number}.h5ad" for number in range(2)],
        "embedded": [folder / "embedded" / f"slide_{number}.zarr" for number in range(2)],
        "client": None,  # of a dask cluster; None does the same in this process
    }


@dataclass
class Run:
    """What is left when all blocks have run."""

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch, mpl.rc_context({"backend": "agg"}):
        for name, preset in _parameters.PRESETS.items():
            experts = tuple(expert for expert in preset.experts if not expert.startswith("perceptron"))
            quick = replace(preset, experts=experts, width=32, epochs=min(preset.epochs, 3))
            patch.setitem(_parameters.PRESETS, name, quick)
        patch.setattr(sp.settings, "device", "cpu")
        patch.setattr(sp.settings, "progress", False)
        patch.chdir(folder)
        found = Run(folder, write_slides(folder))
        for number, code in enumerate(blocks("python")):
            exec(compile(code, f"README.md, python block {number}", "exec"), found.names)
            found.finished.append(code)
            mpl.pyplot.close("all")
        yield found


def test_every_python_block_runs_in_the_order_of_the_page(run: Run) -> None:
    assert run.finished == blocks("python")
    assert len(run.finished) >= 8


def test_a_visium_run_takes_ten_lines() -> None:
    (code,) = (code for kind, code in BLOCK.findall(marked("visium")) if kind == "python")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10


def test_the_ten_lines_leave_a_prediction_a_figure_and_a_report(run: Run) -> None:
    target = ad.read_h5ad(run.folder / "target.h5ad")
    panel = target.var["spahgc_panel"].to_numpy(dtype=bool)
    assert target.shape == (N_SPOTS, 40) and panel.sum() > 10
    assert np.isfinite(target.layers["spahgc"][:, panel]).all()
    assert {"spahgc_pearson", "spahgc_cv_pcc"} <= set(target.var), "neither scored nor cross-validated"
    assert (run.folder / "genes.png").stat().st_size > 20_000
    assert "<!doctype html" in (run.folder / "report.html").read_text(encoding="utf-8").lower()


def test_a_plain_slide_is_tiled_embedded_and_predicted(run: Run) -> None:
    plain = run.names["plain"]
    assert plain.n_obs > 10
    assert plain.n_vars == plain.layers["spahgc"].shape[1] > 0
    assert np.isfinite(plain.layers["spahgc"]).all()
    assert (plain.obs["tissue_fraction"] >= 0.5).all()


def test_a_cross_validation_compares_methods(run: Run) -> None:
    result = run.names["result"]
    assert isinstance(result, sp.tl.CrossValidation)
    assert {"spahgc", "ridge", "nearest"} <= set(result.summary.index)


def test_what_comes_after_a_prediction_lies_where_the_table_says(run: Run) -> None:
    target = run.names["target"]
    assert {"spahgc", "spahgc_std", "paper", "ridge"} <= set(target.layers)
    assert {"spahgc_support", "spahgc_domain"} <= set(target.obs)
    assert "spahgc_enrichment" in target.obsm
    table = marked("keys-table")
    for key in ("spahgc_std", "spahgc_support", "spahgc_domain", "spahgc_enrichment", "spahgc_attention"):
        assert f'"{key}"' in table
    assert "cs_search" in target.uns["spahgc"]["predictions"]["spahgc"] and "cs_search" in table


def test_many_slides_are_embedded_and_predicted_from_disk(run: Run) -> None:
    for name in ("slide_0", "slide_1"):
        predicted = ad.read_zarr(run.folder / "predicted" / f"{name}.zarr")
        assert np.isfinite(predicted.layers["spahgc"][:, predicted.var["spahgc_panel"].to_numpy(dtype=bool)]).all()


# --- commands, extras and links


def commands() -> list[list[str]]:
    """Every command of the bash blocks, as words."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.strip()]
    return [shlex.split(part) for line in lines for part in line.split("&&")]


def extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


@cache
def options_of_script(name: str) -> set[str]:
    """The options that a script of the checkout names in its help."""
    said = subprocess.run([sys.executable, ROOT / name, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[\w-]+", said))


def why_wrong(words: list[str]) -> str | None:
    """What is wrong with a command; ``None`` where nothing is."""
    program, *rest = words
    if Path(program).name == "spahgc":
        return why_wrong_spahgc(rest)
    if rest[:2] == ["-m", "venv"]:
        return None
    if Path(program).name == "pip" and rest[0] == "install":
        unknown = {extra for found in EXTRAS.findall(rest[1]) for extra in found.split(",")} - extras()
        return f"no extra {unknown}" if unknown else None
    if Path(program).name == "pytest":
        return None if rest == ["-n", "2", "--dist", "loadfile"] else f"pytest is called with {rest}"
    if program == "python" and (ROOT / rest[0]).is_file():
        unknown = {word for word in rest[1:] if word.startswith("--")} - options_of_script(rest[0])
        return f"{rest[0]} has no option {unknown}" if unknown else None
    return "nothing here knows whether this can be run"


def why_wrong_spahgc(words: list[str]) -> str | None:
    import typer

    from spahgc.cli import app

    # Newer releases of typer carry a copy of click with errors of its own.
    (failure,) = (kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    name, *rest = words
    if name not in commands:
        return f"no command {name}, there are {sorted(commands)}"
    try:
        commands[name].make_context(name, rest)
    except failure as error:
        return error.format_message()
    return None


def test_every_command_of_the_readme_can_be_given() -> None:
    wrong = {shlex.join(words): reason for words in commands() if (reason := why_wrong(words))}
    assert not wrong
    assert [".venv/bin/spahgc", "demo", "--output", "demo"] in commands()


@pytest.mark.parametrize(
    "line",
    [
        ".venv/bin/spahgc demo --outptu demo",
        ".venv/bin/spahgc demonstrate",
        '.venv/bin/pip install ".[everything]"',
        "python benchmarks/accuracy.py --dta FOLDER",
        "make",
    ],
)
def test_a_command_that_cannot_be_given_is_noticed(line: str) -> None:
    assert why_wrong(shlex.split(line))


def test_the_demo_takes_two_commands() -> None:
    (code,) = (code for kind, code in BLOCK.findall(marked("demo-command")) if kind == "bash")
    assert len(code.splitlines()) == 2


def test_the_table_of_accuracy_is_that_of_the_page() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line for line in marked("accuracy-table").splitlines() if line.startswith("|")]
    second = next(i for i, row in enumerate(rows[2:], start=2) if set(row) <= set("|-: ")) - 1  # its header
    assert len(rows) > 20 and "\n".join(rows[:second]) in page and "\n".join(rows[second:]) in page


def test_extras_named_in_the_prose_exist() -> None:
    named = {extra for found in EXTRAS.findall(README) for extra in found.split(",")}
    assert "hd" in named and named <= extras()


def test_files_that_the_readme_links_to_exist() -> None:
    links = [link for link in LINK.findall(README) if "://" not in link]
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
