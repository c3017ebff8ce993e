"""Labels of references on a slide held out: ``tl.transfer`` beside the most frequent label, the nearest spots and a regression.

    OMP_NUM_THREADS=1 python benchmarks/labels.py --data FOLDER/her2st --slide C2 --slide C3 --slide C4
    OMP_NUM_THREADS=1 python benchmarks/labels.py --simulated

Each slide is labelled by the others. Of a measured slide the labels are the clusters of ``SLIDE-cluster-annotation.tsv.gz``, which
its authors found in the expression; of a simulated one, the largest tissue domain of each spot. ``nearest`` is the mean over the 50
reference spots of highest cosine similarity of the embedding, ``logistic`` a logistic regression (scikit-learn, its defaults) on the
standardised embedding; both see all columns of the embedding, and ``logistic, patch`` and ``nearest, patch`` those of the encoder alone.
Balanced accuracy is the mean recall of the labels, the log loss that of the true label.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _cohorts import add_arguments, log, made_with, markdown, prepare, read_cohorts
from anndata import AnnData
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import spahgc as sp
from spahgc._linear.labels import FLOOR, label_scores
from spahgc._validate import embedding_matrix, encoder_records, find_embedding
from spahgc.tl._baselines.nearest import mean_of_nearest

LABEL = "label"
CLUSTERS = "{}-cluster-annotation.tsv.gz"
MAX_ITERATIONS = 500
BASELINES = ("majority", "nearest", "nearest, patch", "logistic", "logistic, patch")
SCORES = {
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "calibration_error": "calibration error",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(page=None)
    arguments = parser.parse_args()
    prepare(parser, arguments)
    sp.settings.progress = False
    rows = []
    for cohort in read_cohorts(arguments):
        slides = [with_labels(slide, arguments.data) for slide in cohort.slides]
        slides = [slide for slide in slides if slide is not None]
        if len(slides) < 3:
            log(f"{cohort.name}: fewer than three slides with labels")
            continue
        for place, target in enumerate(slides):
            refs = [slide for other, slide in enumerate(slides) if other != place]
            name = str(target.obs["slide"].iloc[0])
            rows += [{"cohort": cohort.name, "slide": name, **scores} for scores in fold(target, refs)]
            log(f"{cohort.name}: {name}")
    if not rows:
        raise SystemExit("no slide has labels: pass --slide with those that have some, or --simulated")
    table = pd.DataFrame(rows)
    for cohort, part in table.groupby("cohort", sort=False):
        mean = part.groupby("method", sort=False)[list(SCORES)].mean()
        best = mean.drop(index="transfer")
        print(f"\n{cohort}, {part['slide'].nunique()} slides, means:\n")
        print(markdown(mean.rename(columns=SCORES).map("{:.3f}".format)))
        own = mean.loc["transfer"]
        print(
            f"\nBalanced accuracy {own['balanced_accuracy']:.3f}, best baseline {best['balanced_accuracy'].max():.3f}; "
            f"log loss {own['log_loss']:.3f}, best baseline {best['log_loss'].min():.3f}."
        )
    print(f"\n{made_with()}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def with_labels(slide: AnnData, folder: Path | None) -> AnnData | None:
    """The slide with labels in ``obs``: the domain of a simulated one, the clusters beside a measured one."""
    if "domain" in slide.obs:
        slide.obs[LABEL] = slide.obs["domain"].astype(str)
        return slide
    name = str(slide.obs["slide"].iloc[0])
    found = next(iter(folder.rglob(CLUSTERS.format(name))), None) if folder is not None else None
    if found is None:
        return None
    table = pd.read_csv(found, sep="\t")
    labels = {
        f"{round(x)}x{round(y)}": str(label) for x, y, label in zip(table["x"], table["y"], table["label"], strict=True)
    }
    slide.obs[LABEL] = pd.Series([labels.get(spot) for spot in slide.obs_names], index=slide.obs_names, dtype=object)
    return slide


def fold(target: AnnData, refs: list[AnnData]) -> list[dict[str, object]]:
    """Scores of all methods on one slide; spots without a label count nowhere."""
    key = find_embedding(target, None, "the target")
    known = pd.concat([slide.obs[LABEL] for slide in refs])
    names = sorted(set(known.dropna()))
    truth = target.obs[LABEL].map({name: code for code, name in enumerate(names)})
    scored = truth.notna().to_numpy()
    codes = truth[scored].to_numpy(np.int64)
    bare = target.copy()
    del bare.obs[LABEL]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sp.tl.transfer(bare, refs, keys=LABEL, min_support=0)
    labels = list(bare.uns["spahgc"]["transfers"][f"spahgc_{LABEL}"]["labels"])
    assert labels == names
    said = {"transfer": np.asarray(bare.obsm[f"spahgc_{LABEL}"], dtype=np.float64)}
    said |= {method: baseline(method, target, refs, known, names, key) for method in BASELINES}
    return [{"method": method, **label_scores(values[scored], codes)} for method, values in said.items()]


def baseline(
    method: str, target: AnnData, refs: list[AnnData], known: pd.Series, names: list[str], key: str
) -> np.ndarray:
    """Probabilities of a plain method, spots x labels."""
    given = known.notna().to_numpy()
    codes = known[given].map({name: code for code, name in enumerate(names)}).to_numpy(np.int64)
    one_hot = np.eye(len(names))[codes]
    frequency = one_hot.mean(axis=0)
    if method == "majority":
        return np.tile(frequency, (target.n_obs, 1))
    z = np.vstack([embedding_matrix(slide, key, "a reference") for slide in refs])[given]
    seen = embedding_matrix(target, key, "the target")
    if method.endswith("patch"):
        dim = int(encoder_records(target)[key]["dim"])
        z, seen = z[:, :dim], seen[:, :dim]
    if method.startswith("nearest"):
        # As transfer has it: a label that none of the nearest has is rare, not impossible.
        return (1 - FLOOR) * mean_of_nearest(seen, z, one_hot) + FLOOR * frequency
    scaler = StandardScaler().fit(z)
    model = LogisticRegression(max_iter=MAX_ITERATIONS).fit(scaler.transform(z), codes)
    said = np.zeros((len(seen), len(names)))
    said[:, model.classes_] = model.predict_proba(scaler.transform(seen))
    return said


if __name__ == "__main__":
    main()
