"""What the surroundings of a spot cost: passes through the encoder, columns, memory and time, for each context of ``pp.embed``.

    OMP_NUM_THREADS=1 python benchmarks/context.py FOLDER/C2.jpg FOLDER/C2_selection.tsv --mpp 0.69

The slide is an image and a table of spots with the columns pixel_x, pixel_y and selected. It is embedded with EfficientNet-Lite0 from
pixels that lie in memory. The time is that of the process (CPU seconds, all threads), of which other programs take little away.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from _cohorts import ENCODER, log, markdown
from anndata import AnnData
from PIL import Image

import spahgc as sp
from spahgc._keys import SPATIAL
from spahgc._validate import embedding_matrix

Image.MAX_IMAGE_PIXELS = None
CONTEXTS = {
    "plain patch, `context=False`": (False, 1),
    "plain patch and levels, `Context(scales=(1,), rotations=1)`": (sp.pp.Context(scales=(1,), rotations=1), 1),
    "default": (None, 3),
    "`context=True`": (True, 12),
}
"""What is asked for, and the passes of a spot through the network."""
PER_SPOTS = 1000
KEY = "X"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("spots", type=Path)
    parser.add_argument("--mpp", type=float, required=True, help="microns per pixel of the image")
    parser.add_argument("--rounds", type=int, default=2, help="of which the faster one counts (default: 2)")
    arguments = parser.parse_args()
    pixels = np.asarray(Image.open(arguments.image).convert("RGB"))
    xy = pd.read_csv(arguments.spots, sep="\t").query("selected == 1")[["pixel_x", "pixel_y"]].to_numpy(float)
    encoder = sp.encoders.load_encoder(ENCODER, device="cpu")
    sp.settings.progress = False
    rows = []
    for label, (context, passes) in CONTEXTS.items():
        log(label)
        seconds = []
        for _ in range(arguments.rounds):
            slide = AnnData(np.zeros((len(xy), 1), np.float32), obsm={SPATIAL: xy})
            started = time.process_time()
            sp.pp.embed(
                slide, encoder=encoder, image=pixels, mpp=arguments.mpp, context=context, key_added=KEY, device="cpu"
            )
            seconds.append(time.process_time() - started)
        columns = embedding_matrix(slide, KEY, "the slide")
        rows.append(
            {
                "what": label,
                "passes a spot": str(passes),
                "columns": f"{columns.shape[1]:,}",
                "kB a spot": f"{columns.nbytes / len(columns) / 1000:.0f}",
                f"CPU s for {PER_SPOTS:,} spots": f"{min(seconds) / len(xy) * PER_SPOTS:.0f}",
            }
        )
    print(markdown(pd.DataFrame(rows).set_index("what")))


if __name__ == "__main__":
    main()
