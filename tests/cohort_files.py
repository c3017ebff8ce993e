"""Writes small slides in the layouts of the legacy ST cohorts."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

SIDE, PITCH_PX = 6, 40
"""Spots along each side of the array, and their distance in pixels."""
N_GENES = 30


def st_tables(seed: int) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Counts, spot table and image of a slide whose right half is dark and has other genes."""
    rng = np.random.default_rng(seed)
    x, y = (axis.ravel() + 3 for axis in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    spots = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.1, "new_y": y - 0.1})
    spots["pixel_x"], spots["pixel_y"] = (x - 2.5) * PITCH_PX + 0.25, (y - 2.5) * PITCH_PX
    spots["selected"] = 1
    spots.loc[0, "selected"] = 0
    dark = x >= 3 + SIDE // 2
    mean = np.where(dark[:, None] == (np.arange(N_GENES) % 2 == 0), 12.0, 3.0)
    counts = pd.DataFrame(rng.poisson(mean), index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)], columns=genes())
    side = SIDE * PITCH_PX + PITCH_PX
    image = rng.integers(200, 256, (side, side, 3), dtype=np.uint8)
    image[:, side // 2 :] //= 2
    return counts, spots, image


def genes() -> list[str]:
    return [f"GENE{i:02d}" for i in range(N_GENES)]


def write_st(seed: int, counts: Path, spots: Path, image: Path) -> None:
    """Write a slide; tables and images are packed where the name ends in .gz."""
    of_counts, of_spots, pixels = st_tables(seed)
    for path in (counts, spots, image):
        path.parent.mkdir(parents=True, exist_ok=True)
    of_counts.to_csv(counts, sep="\t")
    of_spots.to_csv(spots, sep="\t", index=False)
    plain = image.with_suffix("") if image.suffix == ".gz" else image
    Image.fromarray(pixels).save(plain, quality=90)
    if plain != image:
        image.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()


def write_her2st(folder: Path, sections: tuple[str, ...]) -> Path:
    """The authors' repository, with labels of the pathologist for the first section."""
    data = folder / "data"
    for seed, name in enumerate(sections):
        write_st(
            seed,
            data / "ST-cnts" / f"{name}.tsv.gz",
            data / "ST-spotfiles" / f"{name}_selection.tsv",
            data / "ST-imgs" / name[0] / name / f"5714_HE_BT_{name}.jpg",
        )
    spots = st_tables(0)[1].iloc[1:]
    labels = pd.DataFrame({"Row.names": "1x1", "x": spots["new_x"], "y": spots["new_y"], "label": "adipose tissue"})
    labels.loc[labels.index[-1], ["x", "y"]] = np.nan  # the published tables have such rows
    (data / "ST-pat" / "lbl").mkdir(parents=True)
    labels.to_csv(data / "ST-pat" / "lbl" / f"{sections[0]}_labeled_coordinates.tsv", sep="\t", index=False)
    return folder


def write_cscc(folder: Path, sections: tuple[str, ...], *, packed_images: bool = False) -> Path:
    """What GEO's archive holds: a number before each name."""
    for number, name in enumerate(sections):
        start = f"GSM{4284316 + number}_"
        write_st(
            number,
            folder / f"{start}{name}_stdata.tsv.gz",
            folder / f"{start}spot_data-selection-{name}.tsv.gz",
            folder / f"{start}{name}.jpg{'.gz' if packed_images else ''}",
        )
    return folder


def write_spinal_cord(folder: Path, sections: tuple[str, ...], *, top: str = "dataset") -> Path:
    """The repository of SpaCell: counts named by measured places, no spot table, an image that two pieces may share."""
    for seed, name in enumerate(sections):
        rng = np.random.default_rng(seed)
        places = np.array([(x, y) for x in range(4, 10) for y in range(5, 11)]) + rng.uniform(-0.2, 0.2, (36, 2))
        names = [f"{x:g}x{y:g}" for x, y in places.round(3)]
        features = ["Nefl", "__ambiguous.Dst.AC123072.1", "Mbp", "Gfap", "__ambiguous[Grcc10+ENSMUSG00000107478]"]
        counts = pd.DataFrame(rng.poisson(5, (36, 5)), index=names, columns=features)
        path = folder / top / "cm" / f"{name}_stdata_aligned_counts_IDs.txt"
        image = folder / top / "image" / f"{'_'.join(name.split('_')[:2])}_HE.jpg"
        for file in (path, image):
            file.parent.mkdir(parents=True, exist_ok=True)
        counts.to_csv(path, sep="\t")
        pixels = rng.integers(180, 256, (680, 640, 3), dtype=np.uint8)
        pixels[80:220, 40:200] //= 2
        Image.fromarray(pixels).save(image, quality=90)
    return folder


def write_olfactory_bulb(folder: Path, sections: tuple[str, ...], *, top: str = "inst/extdata/counts") -> Path:
    """The repository of STUtility: all spots of a checkerboard, those under tissue selected."""
    target = folder / top
    target.mkdir(parents=True, exist_ok=True)
    places = np.array([(x, y) for x in range(1, 21) for y in range(1, 21) if (x + y) % 2 == 0])
    for seed, name in enumerate(sections):
        rng = np.random.default_rng(seed)
        inside = (np.abs(places - 10) <= 5).all(axis=1)
        table = pd.DataFrame(places, columns=["x", "y"])
        table[["new_x", "new_y"]] = (places + rng.uniform(-0.05, 0.05, places.shape)).round(2)
        table[["pixel_x", "pixel_y"]] = (table[["new_x", "new_y"]].to_numpy() * [21.7, 24.1] + 30).round(2)
        table["selected"] = inside.astype(int)
        table.to_csv(target / f"alignment_table_{name}.tsv", sep="\t", index=False)
        values = rng.poisson(np.where(inside, 20, 2)[:, None], (len(places), 6))
        ids = [f"ENSMUSG0000006433{i}.{i + 1}" for i in range(6)]
        counts = pd.DataFrame(values, index=[f"{x}x{y}" for x, y in places], columns=ids)
        counts.to_csv(target / f"{name}.tsv", sep="\t")
        pixels = rng.integers(180, 256, (540, 500, 3), dtype=np.uint8)
        pixels[150:390, 130:360] //= 2
        Image.fromarray(pixels).save(target / f"{name}.jpg", quality=90)
    return folder
