"""Whether an unknown tissue is told from a known one, and how much slides of one tissue and of different ones differ.

    OMP_NUM_THREADS=1 python benchmarks/drift.py --data FOLDER [--simulated]

Every cohort lends its slides as references, one patient held out (one slide, where a cohort has one patient). Support of
the spots held out is compared with that of spots of other cohorts: the area under the curve says how surely a spot of an unknown
tissue has the lower one. Simulated slides: references without a kind of tissue that the target has, whose spots with more than half
of it are compared with those held out, and with the target's own spots that have next to none of it. The second table is what
``pp.compare`` says, all references together: on it rest the limits of ``spahgc.pp._compare.limits``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from _cohorts import CACHE, _embedded, add_arguments, log, markdown, prepare, read_cohorts
from anndata import AnnData
from sklearn.metrics import roc_auc_score

import spahgc as sp
from spahgc._files import digest
from spahgc._keys import SPATIAL, Obs
from spahgc._spots.rows import Spots
from spahgc._spots.support import Support
from spahgc._validate import embedding_matrix, encoder_records
from spahgc.encoders._layout import context_blocks
from spahgc.pp._compare.compare import ALL
from spahgc.pp._compare.slides import _sharpness

UNKNOWN_BELOW = 0.05
"""Support below which a spot is called unknown."""
MOSTLY, HARDLY = 0.5, 0.05
"""Share of a simulated tissue in a spot from which on it counts as that tissue, and up to which it counts as another."""
N_DOMAINS = (2, 3, 4)
"""Kinds of tissue on the simulated references; their targets have one more."""
SIMULATED = {"n_slides": 4, "n_patients": 2, "n_spots": 120, "n_genes": 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    arguments.page = None
    simulated, arguments.simulated = arguments.simulated, False
    support, looks = [], []
    if arguments.data or arguments.embedded:
        prepare(parser, arguments)
        cohorts = {cohort.name: cohort.slides for cohort in read_cohorts(arguments) if cohort.measured}
        support += list(measured(cohorts))
        print(markdown(pd.DataFrame(support).set_index("references")), flush=True)
        looks += list(compared(cohorts))
    if simulated:
        print(markdown(pd.DataFrame(unknown_domains(arguments.cache, arguments.seed)).set_index("references")))
    if looks:
        print()
        print(markdown(pd.DataFrame(looks).set_index("references")))


def measured(cohorts: dict[str, list[AnnData]]) -> Iterator[dict[str, str]]:
    for name, slides in cohorts.items():
        for held_out, refs in splits(slides):
            fitted = of_references(refs)
            known = np.concatenate([fitted(slide) for slide in held_out])
            for other, others in cohorts.items():
                if other != name:
                    unknown = np.concatenate([fitted(slide) for slide in others])
                    label = f"{name} without {', '.join(slide.obs[Obs.slide].iloc[0] for slide in held_out)}"
                    yield row(label, other, known, unknown)


def splits(slides: list[AnnData]) -> Iterator[tuple[list[AnnData], list[AnnData]]]:
    """Slides held out and their references: a patient at a time where there are two or more."""
    named = [str(slide.obs[Obs.patient].iloc[0]) if Obs.patient in slide.obs else "" for slide in slides]
    groups = named if len(set(named)) > 1 else [str(number) for number in range(len(slides))]
    for group in dict.fromkeys(groups):
        refs = [slide for slide, own in zip(slides, groups, strict=True) if own != group]
        yield [slide for slide, own in zip(slides, groups, strict=True) if own == group], refs


def of_references(refs: list[AnnData]):
    """Support of the spots of a slide by these references."""
    z = np.concatenate([embedding(slide) for slide in refs])
    slide = np.repeat(np.arange(len(refs)).astype(str), [len(one) for one in refs])
    xy = np.concatenate([slide.obsm[SPATIAL] for slide in refs])
    (record,) = encoder_records(refs[0]).values()
    blocks = tuple((block.start, block.stop) for block in context_blocks(record, z.shape[1]))
    fitted = Support.fit(replace(Spots.without_expression(z, xy), slide=slide), blocks)
    return lambda one: fitted(embedding(one), z)


def embedding(slide: AnnData) -> np.ndarray:
    (key,) = encoder_records(slide)
    return embedding_matrix(slide, key, "the slide")


def row(references: str, target: str, known: np.ndarray, unknown: np.ndarray) -> dict[str, str]:
    is_known = np.repeat([1, 0], [len(known), len(unknown)])
    return {
        "references": references,
        "unknown": target,
        "AUC": f"{roc_auc_score(is_known, np.concatenate([known, unknown])):.3f}",
        f"known below {UNKNOWN_BELOW}": f"{(known < UNKNOWN_BELOW).mean():.2f}",
        f"unknown below {UNKNOWN_BELOW}": f"{(unknown < UNKNOWN_BELOW).mean():.2f}",
    }


def compared(cohorts: dict[str, list[AnnData]]) -> Iterator[dict[str, str]]:
    """What ``pp.compare`` says of slides held out, and of the first slide of every other cohort."""
    for slide in (slide for slides in cohorts.values() for slide in slides):
        name = str(slide.obs[Obs.slide].iloc[0])
        log(f"{name}: sharpness")
        slide.obs[Obs.focus] = _sharpness(
            slide, np.asarray(slide.obsm[SPATIAL]), name
        )  # read once, not in every comparison
    for name, slides in cohorts.items():
        for held_out, refs in splits(slides):
            others = [others[0] for other, others in cohorts.items() if other != name]
            for target in [*held_out, *others]:
                found = sp.pp.compare(target, refs).loc[ALL]
                yield {
                    "references": name,
                    "target": str(target.obs[Obs.slide].iloc[0]),
                    "same tissue": "yes" if any(target is one for one in held_out) else "no",
                    **{str(column): f"{found[column]:.3g}" for column in found.index[:-2]},
                    "large": found["large"] or "-",
                }


def unknown_domains(cache: Path, seed: int) -> Iterator[dict[str, str]]:
    for n_domains in N_DOMAINS:
        known, more = (simulate(n, cache, seed) for n in (n_domains, n_domains + 1))
        fitted = of_references(known[1:])
        held_out = fitted(known[0])
        for target in more[:2]:
            share, support = target.obsm["truth_domains"][:, n_domains], fitted(target)
            label = f"simulated, {n_domains} tissues"
            unknown = support[share > MOSTLY]
            yield row(
                label, f"another tissue, {target.obs[Obs.slide].iloc[0]}, against a slide held out", held_out, unknown
            )
            yield row(
                label,
                f"the same, against the rest of {target.obs[Obs.slide].iloc[0]}",
                support[share < HARDLY],
                unknown,
            )


def simulate(n_domains: int, cache: Path, seed: int) -> list[AnnData]:
    log(f"simulating {n_domains} tissues")
    slides = sp.datasets.simulated(**SIMULATED, n_domains=n_domains, seed=seed)
    return [
        _embedded(
            f"drift-{seed}-{n_domains}-{number}",
            digest(np.ascontiguousarray(slide.obsm[SPATIAL]).tobytes()).encode(),
            cache or CACHE,
            lambda slide=slide: slide,
        )
        for number, slide in enumerate(slides)
    ]


if __name__ == "__main__":
    main()
