"""Draw the figure at the top of the README: ``python docs/_figures/readme.py --data FOLDER``, some minutes on a CPU.

Section C2 of the open HER2-positive breast cancer cohort (a copy of which FOLDER holds), predicted from two sections of the same
patient and one of another, by the encoder that comes with the installation and the default preset. One gene is the marker of the
cohort, the other that of plasma cells; their PCC is printed.
"""

import argparse
from pathlib import Path

import spahgc as sp

FIGURE = Path(__file__).parents[1] / "_static" / "readme.jpg"
TARGET, REFERENCES = "C2", ["B4", "C3", "C4"]
GENES = ["ERBB2", "IGHA1"]
SEED = 0
DPI, QUALITY = 200, 90


def main(data: Path, path: Path) -> None:
    target, *refs = sp.datasets.her2st(data, sections=[TARGET, *REFERENCES])
    sp.pp.embed([target, *refs], encoder="efficientnet_lite0")
    sp.tl.predict(target, refs, seed=SEED)
    print(sp.tl.evaluate(target).loc[GENES, "pearson"].to_string())
    figure = sp.pl.spatial_genes(target, GENES, spread=True, return_fig=True)
    # A photograph in the background: a tenth of the size of a PNG.
    figure.savefig(path, dpi=DPI, bbox_inches="tight", pil_kwargs={"quality": QUALITY})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with a copy of the cohort")
    parser.add_argument("--output", type=Path, default=FIGURE, help="the file to write")
    arguments = parser.parse_args()
    main(arguments.data, arguments.output)
