"""Predict one simulated slide from three others, score the prediction and draw it."""

import argparse
from pathlib import Path

import spahgc as sp

N_GENES_SHOWN = 3


def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)

    # Four slides of two patients. The expression of some genes follows the image, that of the others does not.
    slides = sp.datasets.simulated(n_slides=4, n_patients=2, seed=0)
    target, *refs = slides

    # The H&E patch around every spot -> obsm["X_efficientnet_lite0"].
    for adata in slides:
        sp.pp.embed(adata, encoder="efficientnet_lite0")

    # Trains on the references and writes target.layers["spahgc"], log1p counts per 10,000.
    sp.tl.predict(target, refs)

    # The target was simulated with counts. The prediction has not seen them; now they serve to score it.
    scores = sp.tl.evaluate(target)
    print(scores.describe())

    in_panel = target.var["spahgc_panel"].astype(bool)
    follows_image = target.var["truth_kind"] == "morphology"
    genes = target.var_names[in_panel & follows_image][:N_GENES_SHOWN].tolist()
    figure = output / "quickstart.png"
    sp.pl.spatial_genes(target, genes, save=figure)
    print(f"{', '.join(genes)}: {figure}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "output", help="folder for the figure")
    main(parser.parse_args().output)
