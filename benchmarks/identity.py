"""How far apart a slide that was changed lies from another section: what the limits of ``spahgc.pp._bank.identity`` rest on.

    python benchmarks/identity.py --st FOLDER --mpp 0.69 [--visium FOLDER/B1 ...] [--context default] [--changed SLIDE]

``--st`` is a folder of ``SLIDE.jpg`` and ``SLIDE_selection.tsv`` or ``alignment_table_SLIDE.tsv`` with the columns pixel_x,
pixel_y and selected. All slides are embedded with EfficientNet-Lite0 and compared, two at a time; those named by ``--changed``
also with what became of up to 100 of their spots: embedded in another batch, moved, saved as JPEG, mirrored, turned by 90 degrees,
at half the resolution, brighter. Printed are, for any two, how many of the spots compared lie in one constellation, and of
the ratio of the distances to the most and the second most similar spot the least, the median, and the share below the limit.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from _cohorts import ENCODER, log, markdown
from anndata import AnnData
from PIL import Image

import spahgc as sp
from spahgc._keys import SPATIAL
from spahgc._validate import embedding_matrix
from spahgc.pp._bank.identity import (
    ALL_BUT_THE_SAME,
    CLEARLY_CLOSER,
    N_COMPARED,
    Look,
    _in_place,
    _most_similar,
    compared_spots,
    overlap,
)

Image.MAX_IMAGE_PIXELS = None
TABLES = ("{}_selection.tsv", "alignment_table_{}.tsv")
ODD_BATCH = 7
CONTEXTS: dict[str, bool | None] = {"none": False, "default": None, "full": True}
HIRES_MPP = 4.2
"""Microns per pixel of the hires images of the kidney organoids."""


class Slide(NamedTuple):
    """Pixels, spot centres in them, and microns per pixel."""

    pixels: np.ndarray
    xy: np.ndarray
    mpp: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--st", type=Path, help="folder of images and spot tables")
    parser.add_argument("--mpp", type=float, default=0.69, help="microns per pixel of these images (default: 0.69)")
    parser.add_argument("--visium", type=Path, action="append", default=[], help="folder of Space Ranger; repeat")
    parser.add_argument("--changed", action="append", default=[], help="a slide that is changed as well; repeat")
    parser.add_argument(
        "--context", choices=CONTEXTS, default="none", help="what is embedded beside the patch (default: none)"
    )
    arguments = parser.parse_args()
    sources = {name: (table, image) for name, table, image in st_files(arguments.st)} if arguments.st else {}
    sources |= {path.name: (path, None) for path in arguments.visium}
    looks, rows = {}, []
    for name, (table, image) in sources.items():
        log(f"{name}: embedding")
        slide = read_visium(table) if image is None else read_st(table, image, arguments.mpp)
        looks[name] = Look(embedded(slide, arguments.context), slide.xy)
        for change, changed, batch in changes(slide) if name in arguments.changed else ():
            log(f"{name}: {change}")
            look = Look(embedded(changed, arguments.context, batch), changed.xy)
            rows.append({"slides": name, "change": change} | compared(look, looks[name]))
    rows += [{"slides": f"{a}, {b}", "change": ""} | compared(looks[a], looks[b]) for a, b in combinations(looks, 2)]
    print(markdown(pd.DataFrame(rows).set_index("slides").astype(str)))


def st_files(folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name, spot table and image of every slide; pieces of tissue on one image are called IMAGE_1, IMAGE_2, ..."""
    for pattern in TABLES:
        start, end = pattern.split("{}")
        for table in sorted(folder.glob(pattern.format("*"))):
            name = table.name.removeprefix(start).removesuffix(end)
            images = [folder / f"{each}.jpg" for each in (name, name.rpartition("_")[0])]
            yield name, table, next(image for image in images if image.is_file())


def read_st(table: Path, image: Path, mpp: float) -> Slide:
    spots = pd.read_csv(table, sep="\t").query("selected == 1")
    return Slide(np.asarray(Image.open(image).convert("RGB")), spots[["pixel_x", "pixel_y"]].to_numpy(float), mpp)


def read_visium(folder: Path) -> Slide:
    adata = sp.io.visium(folder)
    (library,) = adata.uns[SPATIAL].values()
    pixels = np.asarray(Image.open(folder / "spatial" / "tissue_hires_image.png").convert("RGB"))
    return Slide(pixels, adata.obsm[SPATIAL] * library["scalefactors"]["tissue_hires_scalef"], HIRES_MPP)


def changes(slide: Slide) -> Iterator[tuple[str, Slide, int]]:
    """What may become of some spots of a slide, and the size of the batches in which it is embedded."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(slide.xy))[:N_COMPARED])
    pixels, xy, mpp = slide.pixels, slide.xy[chosen], slide.mpp
    height, width = pixels.shape[:2]
    yield "other batches", Slide(pixels, xy, mpp), ODD_BATCH
    yield "moved 1 px", Slide(pixels, xy + [1, 0], mpp), 64
    yield "moved 4 px", Slide(pixels, xy + [3, -3], mpp), 64
    for quality in (80, 50):
        yield f"JPEG, quality {quality}", Slide(jpeg(pixels, quality), xy, mpp), 64
    yield "mirrored", Slide(np.ascontiguousarray(pixels[:, ::-1]), xy * [-1, 1] + [width - 1, 0], mpp), 64
    yield "turned", Slide(np.ascontiguousarray(np.rot90(pixels)), xy[:, ::-1] * [1, -1] + [0, width - 1], mpp), 64
    small = np.asarray(Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.BOX))
    yield "half the resolution", Slide(small, xy * [small.shape[1] / width, small.shape[0] / height], 2 * mpp), 64
    yield "5 % brighter", Slide(np.clip(pixels * 1.05, 0, 255).astype(np.uint8), xy, mpp), 64


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def embedded(slide: Slide, context: str, batch_size: int = 64) -> np.ndarray:
    adata = AnnData(np.zeros((len(slide.xy), 1), np.float32), obsm={SPATIAL: slide.xy})
    sp.pp.embed(
        adata,
        encoder=ENCODER,
        image=slide.pixels,
        mpp=slide.mpp,
        batch_size=batch_size,
        allow_upsampling=True,
        key_added="X",
        context=CONTEXTS[context],
    )
    return embedding_matrix(adata, "X", "the slide")


def compared(one: Look, other: Look) -> dict[str, str]:
    """The figures from which it is judged whether two slides are one, and the judgement."""
    small, large = sorted((one, other), key=lambda look: len(look.xy))
    chosen = compared_spots(small)
    found, ratio = _most_similar(small.z, chosen, large.z)
    in_place = _in_place(small.xy, chosen, large.xy, found, ratio < CLEARLY_CLOSER)
    return {
        "compared": str(len(chosen)),
        "in one constellation": str(in_place),
        "ratio, least": f"{ratio.min():.3f}",
        "median": f"{np.median(ratio):.3f}",
        f"below {ALL_BUT_THE_SAME}": f"{(ratio < ALL_BUT_THE_SAME).mean():.2f}",
        "one slide": "yes" if overlap(one, other) else "no",
    }


if __name__ == "__main__":
    main()
