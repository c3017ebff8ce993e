"""What goes wrong at a command line: one line on stderr in the words of the shell, with what to do; exit code 2; nothing written."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import spahgc as sp
from spahgc import cli
from spahgc._settings import show_progress_in_lines
from spahgc.cli._app import commands

PYTHON = re.compile(
    r"(?<![\w/\-])[a-z]\w*=(?=[\s\w\"'.,;)]|$)|(?<!the Python function )\b(?:spahgc|sp)\.(?:pp|tl|io|pl)\.|\[\"|\bNone\b|Traceback"
)
"""What only somebody who writes Python understands."""
READING = re.compile(r"(?:Reading|Predicting) .* \.\.\.|\[1/5\] read .*")
"""What a command says before it loads anything."""
ADVICE = re.compile(r"\b(?:Pass|Run|Check|Choose|Give|Write|Leave|See|Make|Copy|pass|Embed)\b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides and files of every kind that somebody may pass by mistake."""
    folder = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(0)
    slides = sp.datasets.simulated(2, n_patients=2, n_spots=60, n_genes=20, seed=4)
    for slide, name in zip(slides, ("target", "reference"), strict=True):
        slide.write_h5ad(folder / f"{name}_plain.h5ad")
        slide.obsm["X_a"] = rng.normal(size=(slide.n_obs, 8)).astype(np.float32)
        slide.write_h5ad(folder / f"{name}.h5ad")
    target, reference = slides
    del reference.obsm["X_a"]
    reference.obsm["X_b"] = rng.normal(size=(reference.n_obs, 12)).astype(np.float32)
    reference.write_h5ad(folder / "other.h5ad")
    reference.obsm["X_a"] = reference.obsm.pop("X_b")
    reference.write_h5ad(folder / "wider.h5ad")
    target.layers["spahgc"] = target.layers["truth"].astype(np.float32)
    target.write_h5ad(folder / "predicted.h5ad")
    Image.fromarray(np.full((300, 300, 3), 200, np.uint8)).save(folder / "image.png")
    (folder / "text.h5ad").write_text("hello")
    (folder / "cut.h5ad").write_bytes((folder / "reference.h5ad").read_bytes()[:5000])
    (folder / "empty").mkdir()
    (folder / "raw").mkdir()
    (folder / "raw" / "C2.tsv.gz").write_bytes(b"")
    (folder / "file").write_text("")
    (folder / "table.csv").write_text("a,b\n1,2\n")
    (folder / "broken.yaml").write_text("target: a\n reference: [b")
    (folder / "unknown.yaml").write_text("refrence: reference.h5ad\noutput: out\n")
    return folder


@pytest.fixture(autouse=True)
def _in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(folder)
    yield
    show_progress_in_lines(False)


REF = "--reference reference.h5ad --embedding X_a"
CASES = {
    # what is read
    "read": "Missing argument 'kind'. See `spahgc read --help`",
    "read nonsense image.png -o o.h5ad": "nonsense is not known. Choose one of visium",
    "read visium absent -o o.h5ad": "is not a folder (nothing is there)",
    "read visium empty -o o.h5ad": 'has no folder "spatial"',
    "read visium image.png -o o.h5ad": "is not a folder (a file is there)",
    "read st empty -o o.h5ad": "takes COUNTS SPOTS IMAGE, 1 were given: empty",
    "read hest empty -o o.h5ad": "takes FOLDER ID, 1 were given: empty",
    "read xenium empty -o o.h5ad": "has no experiment.xenium",
    "read hd empty -o o.h5ad": 'no bins in "empty"',
    "read features image.png -o o.h5ad": "is no file of features",
    "read slide image.png -o o.h5ad": "Pass --mpp with its microns per pixel",
    "tile absent.svs -o o.h5ad": "does not exist. Check the path",
    "tile empty -o o.h5ad": "is a folder, not an image",
    "tile reference.h5ad -o o.h5ad": "is not an image that can be read",
    "tile image.png -o o.h5ad": "Pass --mpp with its microns per pixel",
    "tile image.png -o o.txt": "must end in .h5ad or .zarr",
    "tile image.png --mpp -1 -o o.h5ad": "--mpp -1.0",
    "tile image.png --mpp 0.5 -o file/o.h5ad": 'the output folder "file" cannot be written',
    "embed absent.h5ad --encoder uni -o o.h5ad": "there is no such file. Check the path",
    "embed image.png --encoder uni -o o.h5ad": "Run `spahgc tile image.png --output image.h5ad` first",
    "embed text.h5ad --encoder uni -o o.h5ad": "cannot be read",
    "embed cut.h5ad --encoder uni -o o.h5ad": "truncated file",
    "embed target_plain.h5ad --encoder efficientnet_lite0 --batch-size 0 -o o.h5ad": "--batch-size is 0; pass a whole number",
    "embed target_plain.h5ad --encoder efficientnet_lite0 --checkpoint absent.bin -o o.h5ad": "--checkpoint absent.bin",
    # from slides to a prediction
    "compare --target absent.h5ad --reference reference.h5ad": "--target absent.h5ad: there is no such file",
    "compare --target target.h5ad --reference 'nothing*.h5ad'": "no file fits this pattern",
    "compare --target target.h5ad": "Pass --reference",
    "compare --target target.h5ad --reference other.h5ad --embedding X_a": "obsm/X_a not found",
    "fit --reference absent.h5ad -o m": "--reference absent.h5ad: there is no such file",
    "fit --reference empty -o m": "is a folder without a slide",
    "fit --reference raw -o m": "Run `spahgc read st COUNTS SPOTS IMAGE",
    "predict --target raw --reference reference.h5ad -o o.h5ad": "Run `spahgc read st COUNTS SPOTS IMAGE",
    "run raw --reference reference.h5ad -o d": "Run `spahgc read st COUNTS SPOTS IMAGE",
    "fit --reference reference_plain.h5ad -o m": "Run `spahgc embed --encoder uni` first",
    f"fit {REF} --gene NOSUCH -o m": '"NOSUCH"',
    f"fit {REF} -o file": "--output file exists already",
    f"predict --target absent.h5ad {REF} -o o.h5ad": "--target absent.h5ad: there is no such file. Check the path",
    f"predict --target empty {REF} -o o.h5ad": "Pass a .h5ad or .zarr",
    f"predict --target image.png {REF} -o o.h5ad": "Run `spahgc tile image.png",
    f"predict --target text.h5ad {REF} -o o.h5ad": "cannot be read",
    f"predict --target target_plain.h5ad {REF} -o o.h5ad": "obsm/X_a not found in the target",
    "predict --target target.h5ad --reference reference_plain.h5ad -o o.h5ad": "no image embedding found",
    "predict --target target.h5ad --reference other.h5ad --embedding X_a -o o.h5ad": "obsm/X_a not found",
    "predict --target target.h5ad --reference wider.h5ad --embedding X_a -o o.h5ad": "12",
    "predict --target target.h5ad --reference 'no*.h5ad' -o o.h5ad": "no file fits this pattern. Check",
    "predict --target target.h5ad --reference image.png -o o.h5ad": "Run `spahgc tile image.png",
    "predict --target target.h5ad -o o.h5ad": "Pass --reference with measured slides, or --model",
    f"predict --target target.h5ad {REF} -o o.csv": "must end in .h5ad or .zarr",
    f"predict --target target.h5ad {REF} -o target.h5ad": "Pass --overwrite to replace it",
    f"predict --target target.h5ad {REF} -o file/o.h5ad": 'the output folder "file" cannot be written',
    f"predict --target target.h5ad {REF} --gene NOSUCH -o o.h5ad": '"NOSUCH"; its genes look like',
    f"predict --target target.h5ad {REF} --method nosuch -o o.h5ad": "--method nosuch is not known. Choose one of",
    f"predict --target target.h5ad {REF} --intervals 7 -o o.h5ad": "such as 0.9, or leave it out",
    f"predict --target target.h5ad {REF} --layer nolayer -o o.h5ad": "Pass --layer with one of them",
    f"predict --target target.h5ad {REF} --units furlongs -o o.h5ad": "--units furlongs is not known",
    f"predict --target target.h5ad {REF} --measured nocol -o o.h5ad": "obs/nocol not found",
    f"predict --target target.h5ad {REF} --bank b -o o.h5ad": "--bank and --reference were both given",
    "predict --target target.h5ad --bank b -o o.h5ad": "--bank b: there is no such bank",
    "predict --target target.h5ad --model empty -o o.h5ad": "Pass the folder that `spahgc fit --output` wrote",
    f"predict --target target.h5ad {REF} --context -o o.h5ad": "Pass --encoder as well",
    f"predict --target target.h5ad {REF} --seed x -o o.h5ad": "See `spahgc predict --help`",
    f"predict --target target.h5ad {REF} --nosuch -o o.h5ad": "No such option: --nosuch. See `spahgc predict --help`",
    "cross-validate": "Pass --cohort NAME, or --slide for each slide",
    "cross-validate --slide 'no*.h5ad'": "no file fits this pattern",
    "cross-validate --slide target.h5ad": "Pass slides of at least two groups",
    "cross-validate --slide target_plain.h5ad reference_plain.h5ad": "Run `spahgc embed",
    "cross-validate --cohort nosuch": 'there is no cohort "nosuch"',
    # what is done with a prediction
    "evaluate absent.h5ad": "there is no such file",
    "evaluate target.h5ad": "Run `spahgc predict` first",
    "evaluate predicted.h5ad --layer nolayer": "Pass --layer with one of them",
    "domains target.h5ad -o o.h5ad": "Run `spahgc predict` first",
    "domains image.png -o o.h5ad": "Run `spahgc tile",
    "domains predicted.h5ad --n-domains 0 -o o.h5ad": "--n-domains is 0; pass a whole number",
    "regions predicted.h5ad --by nocol -o o.csv": "Run `spahgc predict` with --method spahgc and --preset default",
    "regions target.h5ad --by in_tissue -o o.csv": "spahgc predict",
    "trusted-genes target.h5ad": "Run `spahgc predict` first",
    "plot predicted.h5ad --gene NOSUCH -o o.png": '"NOSUCH"',
    "plot target.h5ad --gene MORPH001 -o o.png": 'layer "spahgc" not found',
    "plot predicted.h5ad --gene MORPH001 -o o.doc": "o.doc",
    "plot image.png --gene MORPH001 -o o.png": "Run `spahgc tile",
    "report target.h5ad -o o.html": "Run `spahgc predict` first",
    "report predicted.h5ad -o o.txt": "must end in .html",
    "report predicted.h5ad --gene NOSUCH -o o.html": '"NOSUCH"',
    "export target.h5ad --to qupath -o o.geojson": "Run `spahgc predict` first, or pass --key",
    "export predicted.h5ad --to qupath --gene NOSUCH -o o.geojson": '"NOSUCH"',
    "export predicted.h5ad --to qupath --groups nocol -o o.geojson": "pass --groups with a column that is there",
    "export predicted.h5ad --to loupe -o o.csv": "Run `spahgc domains` first",
    "export predicted.h5ad --to tissuumaps -o file --overwrite": "--output file is no folder",
    "export predicted.h5ad --to tissuumaps --image absent.svs -o o": "Check the path",
    "export predicted.h5ad": "Missing option '--to'. See `spahgc export --help`",
    # the rest
    "fetch nosuch -o d": "nosuch is not known. Choose one of",
    "encoders nosuch": "unexpected extra argument",
    "cohorts nosuch": "unexpected extra argument",
    "doctor --encoder nosuch": 'there is no encoder "nosuch". Choose from',
    "demo -o file/x": "cannot be written",
    "run absent.svs --reference reference.h5ad -o d": "absent.svs: there is no such file. Check the path",
    "run target.h5ad --reference 'no*.h5ad' -o d": "no file fits this pattern",
    "run target.h5ad --reference absent.h5ad -o d": "--reference absent.h5ad: there is no such file. Check the path",
    "run target.h5ad --reference reference.h5ad --export nosuch -o d": "--export nosuch is not known. Choose one of",
    "run target.h5ad --config absent.yaml -o d": "there is no such file. Write options and values",
    "run target.h5ad --config broken.yaml -o d": "cannot be read",
    "run target.h5ad --config unknown.yaml -o d": "names refrence, which spahgc run has no option for",
    "nosuch": "No such command 'nosuch'. See `spahgc --help`",
}


@pytest.mark.parametrize("line", CASES)
def test_bad_input_is_answered_in_a_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], folder: Path, line: str
) -> None:
    before = sorted(os.listdir(folder))
    with pytest.raises(SystemExit) as stopped:
        cli.main(shlex.split(line))
    out, err = capsys.readouterr()
    *notes, said = err.splitlines()
    assert stopped.value.code == 2 and out == ""
    assert all(READING.fullmatch(note) for note in notes)
    assert said.startswith("spahgc: ") and CASES[line] in said
    assert not PYTHON.search(said)
    assert ADVICE.search(said) or "must end in" in said or "takes" in said, said
    assert sorted(os.listdir(folder)) == before


def test_every_command_is_given_bad_input() -> None:
    assert {line.split()[0] for line in CASES} >= set(commands())
