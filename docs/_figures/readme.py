"""Draw the figure at the top of the README: ``python docs/_figures/readme.py``, some minutes on a CPU.

Four simulated slides of two patients, the encoder that comes with the installation, the default preset. The two genes are
those of highest cross-validated PCC, which is known without any measurement on the slide that is drawn.
"""

import argparse
from pathlib import Path

import spahgc as sp

FIGURE = Path(__file__).parents[1] / "_static" / "readme.jpg"
N_SPOTS = 200
N_GENES_SHOWN = 2
SEED = 0
DPI, QUALITY = 200, 90


def main(path: Path) -> None:
    target, *refs = sp.datasets.simulated(n_slides=4, n_patients=2, n_spots=N_SPOTS, seed=SEED)
    sp.pp.embed([target, *refs], encoder="efficientnet_lite0")
    sp.tl.predict(target, refs, seed=SEED)
    genes = sp.tl.trusted_genes(target)[:N_GENES_SHOWN]
    figure = sp.pl.spatial_genes(target, genes, spread=True, return_fig=True)
    # A photograph in the background: a tenth of the size of a PNG.
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pil_kwargs={"quality": QUALITY})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FIGURE, help="the file to write")
    main(parser.parse_args().output)
