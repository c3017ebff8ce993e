"""Draw the figures of the gallery: ``python docs/_figures/gallery.py --data FOLDER``, some ten minutes on two cores.

The page is the source. Its blocks of code are run from top to bottom, and what a block draws becomes the picture above it. The
slides that the page names are read from FOLDER, where ``her2st`` and ``mob_st`` are copies of the two open cohorts.

``--spots 40`` (or 5,000, or 200,000) runs the same code on made-up slides of that size, to look at the figures of a slide that is
small or large: ``python docs/_figures/gallery.py --spots 200000 --output FOLDER``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import anndata
import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib import pyplot as plt
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.sparse import csr_matrix
from scipy.special import softmax

import spahgc as sp
from spahgc._settings import silence

PAGE = Path(__file__).parents[1] / "gallery.md"
OUTPUT = Path(__file__).parents[1] / "_static" / "gallery"
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"^\{figure\} _static/gallery/([\w-]+\.png)$")
DPI, COLOURS = 110, 256
"""Dots per inch of the pictures, and how many colours each keeps, which makes the files of photographs smaller by half."""
REPORT = "report.html"
"""What the report is called on the page; its picture is made by a browser."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
READY, MAP = "html[data-ready=true]", ".leaflet-container"
"""What the report sets once it is drawn, and what its maps are."""
WINDOW = {"width": 1400, "height": 1000}
PATIENCE_MS, SETTLED_MS = 120_000, 1000

N_GENES, N_COLUMNS, N_DOMAINS, N_FIELD = 60, 16, 5, 256
JITTER, STAIN_SD = 0.08, 0.06
FIELD_CELLS, CONTRAST, LOOK_SD = 16, 3.0, 0.3
"""Of made-up slides: how far spots stand from their grid, in pitches, and by what share colours differ;
how wide domains are (of N_FIELD), how sharp, and how much spots of one domain differ in look."""
PITCH_UM, BIN_UM = 100.0, 8.0
IMAGE_SIDE_PX, SPOT_PITCH_PX, LEAST_PITCH_PX = 4500, 125.0, 9.0
REFERENCE_SPOTS, HD_SPOTS, COUNTS = 300, 50_000, 3000
"""Of made-up slides: most spots of a reference, from how many spots a slide has bins as Visium HD, counts of a spot."""
INK = np.array([[170, 90, 150], [230, 170, 200], [245, 235, 240], [120, 70, 150], [215, 140, 185]], float)
"""Colours of the domains."""


class Part(NamedTuple):
    """A block of code of the page, and the picture above it."""

    code: str
    picture: str | None


def parts(text: str) -> list[Part]:
    """Blocks of code of the page in their order; a picture belongs to the block that follows it."""
    found, picture = [], None
    for kind, body in BLOCK.findall(text):
        named = PICTURE.match(kind)
        if named:
            picture = named[1]
        elif kind == "python":
            found.append(Part(body, picture))
            picture = None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder with her2st and mob_st")
    parser.add_argument("--spots", type=int, help="made-up slides of so many spots, in place of the measured ones")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the pictures (default: {OUTPUT})")
    parser.add_argument("--kept", type=Path, metavar="FOLDER", help="keep embedded and predicted slides here")
    parser.add_argument("--only", nargs="+", metavar="PICTURE", help="draw these pictures alone")
    arguments = parser.parse_args()
    if (arguments.data is None) == (arguments.spots is None):
        parser.error("pass --data FOLDER or --spots NUMBER")
    arguments.output.mkdir(parents=True, exist_ok=True)
    first, *rest = parts(PAGE.read_text(encoding="utf-8"))
    if arguments.spots:
        names = {"sp": sp, **made_up_slides(arguments.spots, genes_of(rest))}
    else:
        names = measured_slides(first.code, arguments.data, arguments.kept)
    for part in rest:
        if arguments.only and part.picture is not None and Path(part.picture).stem not in arguments.only:
            continue
        started = time.perf_counter()
        draw(part, names, arguments.output)
        print(f"{part.picture or '-'}: {time.perf_counter() - started:.1f} s", flush=True)


def measured_slides(code: str, data: Path, kept: Path | None) -> dict[str, object]:
    """Run the first block of the page on the cohorts of a folder, or take what it made before."""
    names: dict[str, object] = {"sp": sp}
    slides = ("target", "refs", "bulb")
    if kept is not None and (kept / "model").is_dir():
        names["model"] = sp.SpaHGC.load(kept / "model")
        found = {path.stem: anndata.read_h5ad(path) for path in kept.glob("*.h5ad")}
        names |= {name: found[name] for name in slides if name in found}
        names["refs"] = [found[name] for name in sorted(found) if name.startswith("refs")]
        return names
    for cohort in ("her2st", "mob_st"):
        code = code.replace(f'"{cohort}"', repr(str(data / cohort)))
    with silence():
        exec(compile(code, PAGE.name, "exec"), names)
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("target", "bulb"):
            names[name].write_h5ad(kept / f"{name}.h5ad")
        for i, slide in enumerate(names["refs"]):
            slide.write_h5ad(kept / f"refs{i}.h5ad")
        names["model"].save(kept / "model")
    return names


def draw(part: Part, names: dict[str, object], folder: Path) -> None:
    """Run a block, and write what it drew."""
    plt.close("all")
    scratch = folder / REPORT
    with silence():
        exec(compile(part.code.replace(f'"{REPORT}"', repr(str(scratch))), PAGE.name, "exec"), names)
    if part.picture is None:
        return
    path = folder / part.picture
    if scratch.exists():
        photograph(scratch, path)
        scratch.unlink()
    else:
        plt.gcf().savefig(path, dpi=DPI, facecolor="white")
    with Image.open(path) as picture:
        full = picture.convert("RGB")
        # A palette that goes by areas alone would have none of the colours of a legend.
        palette = full.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
        few = full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(path, optimize=True)


def photograph(page: Path, path: Path) -> None:
    """Let a browser show the report, choose a spot on its second map, and write what is seen."""
    from playwright.sync_api import sync_playwright

    browser = next((found for found in map(shutil.which, BROWSERS) if found), None)
    if browser is None:
        raise SystemExit(f"the picture of the report needs one of {', '.join(BROWSERS)} on the PATH.")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        tab = opened.new_page(viewport=WINDOW)
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector(READY, timeout=PATIENCE_MS)
        tab.locator(MAP).nth(1).click()
        tab.wait_for_timeout(SETTLED_MS)
        tab.screenshot(path=path)
        opened.close()


def genes_of(found: list[Part]) -> list[str]:
    """Names of genes that the page draws, which the made-up slides have as well."""
    return list(dict.fromkeys(re.findall(r'"([A-Z][A-Z0-9]{2,}[\w.]*)"', "\n".join(part.code for part in found))))


def made_up_slides(n_spots: int, genes: list[str]) -> dict[str, object]:
    """What the first block of the page makes, of made-up slides: target, references, model, and a second target."""
    target = made_up_slide("target", n_spots, genes, 0)
    refs = [made_up_slide(f"reference {i}", min(n_spots, REFERENCE_SPOTS), genes, i) for i in (1, 2, 3)]
    preset = sp.Parameters.preset(
        "default", experts=("kernel", "graph"), n_networks=1, n_components=(5,), n_axes=8, width=32, epochs=3
    )
    started = time.perf_counter()
    with silence():
        model = sp.tl.fit(refs, genes="all", preset=preset)
        sp.pp.register(target, refs)
        sp.tl.predict(target, model=model)
        for method in ("ridge", "nearest"):
            sp.tl.predict(target, refs, genes=model.genes, method=method, key_added=method)
        for key in ("spahgc", "ridge", "nearest"):
            sp.tl.evaluate(target, key=key)
        sp.tl.domains(target, n_domains=5)
        sp.pp.spatial_graph(target)
    print(f"made-up slides: {time.perf_counter() - started:.1f} s", flush=True)
    return {"target": target, "refs": refs, "model": model, "bulb": target}


def made_up_slide(name: str, n_spots: int, genes: list[str], seed: int) -> AnnData:
    """A slide whose genes follow domains that its picture shows; slides have domains in common, and some of their own."""
    rng, same = np.random.default_rng(seed), np.random.default_rng(1234)
    common, own = (
        np.stack([gaussian_filter(each.normal(size=(N_FIELD, N_FIELD)), FIELD_CELLS) for _ in range(N_DOMAINS)])
        for each in (same, rng)
    )
    field = common + own
    shares = softmax(CONTRAST * field / field.std(), axis=0)
    loadings, looks = same.normal(0, 0.8, (N_DOMAINS, N_GENES)), same.normal(size=(N_DOMAINS, N_COLUMNS))
    abundance = same.lognormal(0, 1.2, N_GENES)
    columns = int(np.ceil(np.sqrt(n_spots)))
    pitch = max(min(SPOT_PITCH_PX, IMAGE_SIDE_PX / (columns + 2)), LEAST_PITCH_PX)
    squares = n_spots >= HD_SPOTS
    row, column = np.divmod(np.arange(n_spots), columns)
    xy = pitch * np.column_stack([column + 1.5 + (0 if squares else 0.5) * (row % 2), row + 1.5]).astype(float)
    if not squares:  # no two sections have their spots in one constellation
        xy += rng.normal(0, JITTER * pitch, xy.shape)
    side = int(pitch * (columns + 3))
    at = xy[:, ::-1].T / side * (N_FIELD - 1)
    here = np.stack([map_coordinates(share, at, order=1) for share in shares], axis=1)
    rate = abundance * np.exp(here @ loadings)
    rate *= COUNTS * rng.lognormal(0, 0.3, (n_spots, 1)) / rate.sum(axis=1, keepdims=True)
    slide = AnnData(
        csr_matrix(rng.poisson(rate).astype(np.float32)), obs=pd.DataFrame(index=[f"{i}" for i in range(n_spots)])
    )
    slide.var_names = [*genes, *(f"GENE{i:02d}" for i in range(N_GENES - len(genes)))]
    slide.obs["slide"], slide.obs["patient"] = name, f"patient of {name}"
    label = np.array(["tumour", "stroma", "fat", "immune", "duct"])[here.argmax(axis=1)]
    slide.obs["cluster"] = pd.Categorical(label)
    slide.obs["array_row"], slide.obs["array_col"] = row, column
    slide.obsm["spatial"] = xy
    slide.obsm["X_made_up"] = (here @ looks + rng.normal(0, LOOK_SD, (n_spots, N_COLUMNS))).astype(np.float32)
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": pitch * (1.0 if squares else 0.55)}
    metadata = {"bin_um": BIN_UM} if squares else {}
    picture = made_up_picture(shares, side, rng)
    slide.uns["spatial"] = {name: {"images": {"hires": picture}, "scalefactors": factors, "metadata": metadata}}
    slide.uns["spahgc"] = {"slide_mpp": (BIN_UM if squares else PITCH_UM) / pitch}
    sp.pp.use_embedding(slide, "X_made_up", record={"name": "made_up", "input_px": 64, "mpp": "native"})
    return slide


def made_up_picture(shares: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A picture of the domains, uint8, side x side x 3."""
    ink = INK * (1 + STAIN_SD * rng.normal(size=3))
    colours = np.tensordot(shares, ink, axes=(0, 0)) + 4 * rng.normal(size=(N_FIELD, N_FIELD, 1))
    small = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
