"""Embedding a whole slide: peak memory, and images a second beside those of the bare encoder on the same batches.

    python benchmarks/embed.py
    python benchmarks/embed.py --side 20000 --spots 512 --rounds 3
    python benchmarks/embed.py --cut-only --rounds 5

The slide is a sparse tiled TIFF (JPEG, BigTIFF) that is written here: only tiles below a spot hold pixels, those of a
simulated slide or of ``--image``. Spots lie on a square grid over the whole slide, so that no two share a tile, which is
the worst case for reading. A round is the embedding of the slide in one call, and its batches through the bare encoder,
which gets patches that are in memory already, on a CPU in the same small pieces (whole batches would be slower). Every
other round begins with the encoder, so that a machine that slows down in the meantime slows down both. Memory is that of
the process up to the end of the first embedding, all imports included. The status is 1 where memory or rate miss
``--most-gb`` and ``--least-share``.

With ``--cut-only`` nothing is encoded: patches a second that 1 and 2 threads cut, in turn, and those of 2 processes of
one thread each, which nothing in Python can hold up: threads that keep up with these are held up by the machine alone.
Patches are as wide as the encoder's input and, resized, twice as wide.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tifffile
import torch
from anndata import AnnData
from imagecodecs import jpeg_encode

import spahgc as sp
from spahgc._settings import resolve_device
from spahgc.encoders import Encoder, load_encoder
from spahgc.encoders._layout import NO_LEVELS
from spahgc.image import cut_patch, open_image
from spahgc.pp._embed.encode import encode_batch
from spahgc.pp._embed.patches import CENTRED, PatchCutter, prefetched_patches

TILE_PX = 256
JPEG_QUALITY = 80
N_DISTINCT = 200
"""Different tiles; more of them would only take longer to write."""
SLIDE_MPP = 0.25
MARGIN_PX = 1000
"""Distance of the outermost spots to the border."""


def spot_grid(side: int, n_spots: int) -> np.ndarray:
    """The first spots of a square grid over the slide, row by row, moved off the raster of tiles."""
    per_row = math.ceil(math.sqrt(n_spots))
    places = np.linspace(MARGIN_PX, side - MARGIN_PX, per_row)
    rows, columns = np.divmod(np.arange(n_spots), per_row)
    jitter = np.random.default_rng(0).uniform(-TILE_PX / 2, TILE_PX / 2, (n_spots, 2))
    return np.column_stack([places[columns], places[rows]]) + jitter


def encoded_tiles(image: Path | None) -> list[bytes]:
    """JPEG tiles from places of an H&E image."""
    if image is None:
        (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=400, n_genes=20)
        (record,) = slide.uns["spatial"].values()
        source = open_image(record["images"]["hires"])
    else:
        source = open_image(image)
    rng = np.random.default_rng(0)
    with source:
        corners = zip(
            rng.integers(0, source.width - TILE_PX, N_DISTINCT),
            rng.integers(0, source.height - TILE_PX, N_DISTINCT),
            strict=True,
        )
        pixels = [source.read(int(left), int(top), TILE_PX, TILE_PX) for left, top in corners]
    return [jpeg_encode(tile, level=JPEG_QUALITY) for tile in pixels]


def write_slide(path: Path, side: int, xy: np.ndarray, patch_px: int, tiles: list[bytes]) -> int:
    """Write the tiles that patches touch, and return how many these are; of all others nothing is written."""
    per_row = math.ceil(side / TILE_PX)
    first, last = ((np.floor((xy + sign * patch_px / 2) / TILE_PX)).astype(int) for sign in (-1, 1))
    needed = {
        row * per_row + column
        for (x0, y0), (x1, y1) in zip(first, last, strict=True)
        for row in range(y0, y1 + 1)
        for column in range(x0, x1 + 1)
    }

    def content() -> Iterator[bytes]:
        for index in range(per_row**2):
            yield tiles[index % len(tiles)] if index in needed else b""

    tifffile.imwrite(
        path,
        content(),
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        compression="jpeg",
        photometric="rgb",
        bigtiff=True,
        metadata=None,
        resolution=(1e4 / SLIDE_MPP,) * 2,
        resolutionunit="CENTIMETER",
    )
    return len(needed)


def bare_seconds(path: Path, xy: np.ndarray, encoder: Encoder, batch_size: int, device: str) -> float:
    """Seconds that the encoder alone takes for the batches of the slide."""
    side, seconds = encoder.record.input_px, 0.0
    with open_image(path) as image:
        for start in range(0, len(xy), batch_size):
            centers = xy[start : start + batch_size]
            patches = np.stack([cut_patch(image, center, width_px=side, out_px=side)[0] for center in centers])
            begun = time.perf_counter()
            encode_batch(encoder, patches, device=device, levels=NO_LEVELS, rotations=1, turn_output=False)
            seconds += time.perf_counter() - begun
    return seconds


def embed_seconds(path: Path, xy: np.ndarray, encoder: Encoder, batch_size: int, device: str) -> float:
    """Seconds that ``pp.embed`` takes for the whole slide, all checks and the opening of the file included."""
    adata = AnnData(np.zeros((len(xy), 0), np.float32), obsm={"spatial": xy})
    begun = time.perf_counter()
    sp.pp.embed(adata, encoder=encoder, image=path, batch_size=batch_size, device=device)
    return time.perf_counter() - begun


def cut(path: Path, xy: np.ndarray, width_px: float, side: int, batch_size: int, n_workers: int) -> None:
    """Cut all patches and throw them away."""
    cutter = PatchCutter(xy, width_px, side, "bicubic")
    batches = [
        (np.arange(len(xy))[start : start + batch_size], 1.0, CENTRED) for start in range(0, len(xy), batch_size)
    ]
    with open_image(path) as image, prefetched_patches(cutter, image, batches, n_workers) as patches:
        for _ in patches:
            pass


def cut_only(path: Path, xy: np.ndarray, side: int, batch_size: int, rounds: int) -> None:
    """Print patches a second of every round, and the medians of their quotients."""
    half = len(xy) // 2
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:

        def in_processes(width_px: float) -> None:
            halves = [xy[:half], xy[half:]]
            list(pool.map(cut, [path] * 2, halves, [width_px] * 2, [side] * 2, [batch_size] * 2, [1] * 2))

        ways: dict[str, Callable[[float], None]] = {
            "1 thread": lambda width_px: cut(path, xy, width_px, side, batch_size, 1),
            "2 threads": lambda width_px: cut(path, xy, width_px, side, batch_size, 2),
            "2 processes": in_processes,
        }
        in_processes(side)  # imports, and the file into memory
        for width_px in (side, 2 * side):
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(rounds):
                for way, run in ways.items():
                    begun = time.perf_counter()
                    run(width_px)
                    rates[way].append(len(xy) / (time.perf_counter() - begun))
                shown = ", ".join(f"{way} {values[-1]:.0f}" for way, values in rates.items())
                print(f"patches of {width_px} px to {side} px, patches/s: {shown}", flush=True)
            base = np.array(rates["1 thread"])
            shares = {way: float(np.median(values / base)) for way, values in rates.items() if way != "1 thread"}
            print(f"times 1 thread, median: {', '.join(f'{way} {share:.2f}' for way, share in shares.items())}")


def peak_gb() -> float:
    """Largest resident memory that the process ever had; Linux counts in kB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=100_000, help="side of the slide, pixels")
    parser.add_argument("--spots", type=int, default=5_000)
    parser.add_argument("--encoder", default="efficientnet_lite0", help="one that takes the slide's own pixels")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--cut-only", action="store_true", help="measure how fast patches are cut by 1 and 2 threads")
    parser.add_argument("--device", help="torch device; left out: the first accelerator")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--image", type=Path, help="H&E image whose pixels the tiles get")
    parser.add_argument("--folder", type=Path, help="where the slide is written; left out: a temporary folder")
    parser.add_argument("--most-gb", type=float, default=1.5)
    parser.add_argument("--least-share", type=float, default=0.85)
    return parser.parse_args()


def main() -> int:
    options = parse()
    device = resolve_device(options.device)
    xy = spot_grid(options.side, options.spots)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "slide.tif"
        encoder = load_encoder(options.encoder, device=device)
        if encoder.record.mpp is not None:
            sys.exit(f"{options.encoder} resizes its patches; take an encoder of the slide's own resolution")
        widest = encoder.record.input_px * (2 if options.cut_only else 1)
        n_tiles = write_slide(path, options.side, xy, widest, encoded_tiles(options.image))
        print(
            f"slide: {options.side:,} x {options.side:,} px, {n_tiles:,} tiles of {TILE_PX} px, "
            f"{path.stat().st_size / 1e6:,.0f} MB; {options.spots:,} spots; {options.encoder} on {device}, "
            f"{torch.get_num_threads()} threads, batches of {options.batch_size}",
            flush=True,
        )
        if options.cut_only:
            cut_only(path, xy, encoder.record.input_px, options.batch_size, options.rounds)
            return 0
        arguments = (path, xy, encoder, options.batch_size, device)
        bare, whole, peak = 0.0, 0.0, 0.0
        for number in range(options.rounds):
            if number % 2:
                encoding, embedding = bare_seconds(*arguments), embed_seconds(*arguments)
            else:
                embedding = embed_seconds(*arguments)
                peak = peak or peak_gb()
                encoding = bare_seconds(*arguments)
            bare, whole = bare + encoding, whole + embedding
            print(
                f"round {number + 1}: embed {options.spots / embedding:.1f} images/s, bare encoder "
                f"{options.spots / encoding:.1f} images/s, share {encoding / embedding:.3f}",
                flush=True,
            )
    share = bare / whole
    print(f"peak memory {peak:.2f} GB (at most {options.most_gb:g})")
    print(f"embed reaches {share:.1%} of the bare encoder (at least {options.least_share:.0%})")
    return int(peak > options.most_gb or share < options.least_share)


if __name__ == "__main__":
    sys.exit(main())
