"""The commands of the shell that write, on small slides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from robustness import slides
from robustness.operations import Operation, _model_state, predicted
from robustness.samples import slide_files
from spahgc import _parameters


def _call(*arguments: str) -> Callable[[Path], str]:
    """The command line in this process; a word with ``{}`` lies in the folder."""

    def run(folder: Path) -> str:
        from spahgc.cli import main

        main([each.replace("{}", str(folder)) for each in arguments] + ["--quiet"])
        return ""  # never: it ends the process

    return run


def _prepare(folder: Path) -> None:
    """Slides, a model, an image and a prediction, and an old output of every command."""
    paths = slides.write_slides(folder / "slides", 4)
    slides.model(0).save(folder / "trained")
    Image.fromarray(slide_files.full_image(slides.simulated()[0])).save(folder / "image.png")
    predicted().write_h5ad(folder / "slides" / "predicted.h5ad")
    for name in ("out.h5ad", "out.csv", "out.html"):
        (folder / name).write_bytes(paths[0].read_bytes() if name == "out.h5ad" else b"old")


def _prepare_model(folder: Path) -> None:
    _prepare(folder)
    slides.model(1).save(folder / "model")


def _bytes(*names: str) -> Callable[[Path], dict[str, str | None]]:
    def state(folder: Path) -> dict[str, str | None]:
        return {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest() if (folder / name).exists() else None
            for name in names
        }

    return state


def quick_presets() -> None:
    """Networks that train in no time, under the names of the presets."""
    _parameters.PRESETS["default"] = slides.PRESET  # type: ignore[index]


REFERENCES = ("--reference", "{}/slides/P1S2.h5ad", "--reference", "{}/slides/P2S2.h5ad")
COMMANDS = (
    Operation(
        "spahgc tile",
        _call("tile", "{}/image.png", "--mpp", "0.8", "--output", "{}/out.h5ad", "--overwrite"),
        _bytes("out.h5ad"),
        _prepare,
        inputs=("image.png",),
    ),
    Operation(
        "spahgc embed",
        _call(
            "embed", "{}/slides/P1S1.h5ad", "--output", "{}/out.h5ad", "--encoder", "efficientnet_lite0",
            "--allow-upsampling", "--overwrite",
        ),
        _bytes("out.h5ad"),
        _prepare,
        inputs=("slides/P1S1.h5ad",),
    ),
    Operation(
        "spahgc fit",
        _call("fit", *REFERENCES, "--output", "{}/model", "--overwrite"),
        _model_state,
        _prepare_model,
        inputs=("slides/P2S2.h5ad",),
    ),
    Operation(
        "spahgc predict",
        _call("predict", "--target", "{}/slides/P1S1.h5ad", "--model", "{}/trained", "--output", "{}/out.h5ad", "--overwrite"),
        _bytes("out.h5ad"),
        _prepare,
        inputs=("slides/P1S1.h5ad", "trained/bank.h5ad"),
    ),
    Operation(
        "spahgc evaluate",
        _call("evaluate", "{}/slides/predicted.h5ad", "--output", "{}/out.csv", "--overwrite"),
        _bytes("out.csv"),
        _prepare,
        inputs=("slides/predicted.h5ad",),
    ),
    Operation(
        "spahgc report",
        _call("report", "{}/slides/predicted.h5ad", "--output", "{}/out.html", "--overwrite"),
        _bytes("out.html"),
        _prepare,
        inputs=("slides/predicted.h5ad",),
    ),
    Operation(
        "spahgc cross-validate",
        _call(
            "cross-validate", "--slide", "{}/slides/P1S1.h5ad", "--slide", "{}/slides/P2S1.h5ad", "--method", "ridge",
            "--output", "{}/validation",
        ),
        lambda folder: {},
        _prepare,
        inputs=("slides/P2S1.h5ad",),
    ),
)  # fmt: skip
