"""Trust: whether what a prediction says of its genes, values and spots is kept on slides that were measured.

    python benchmarks/trust.py --data ../shared/data

Of every cohort each slide is predicted by the others: by section, from all others, and by patient, from those of other
patients, where two are named or more. Slides that name no patient are sections of one. Printed are for every slide

- the share of measured values in their 90 % interval, and of genes whose PCC lies in its 95 % interval;
- Spearman's correlation, over genes, of the PCC that was promised and the one that was reached, and both in the mean;
- how many genes ``trusted_genes(fdr=0.1)`` returns, how many of them stay below 0.2, and how many reach it;
- the area under the curve of the support, of its own spots against those of slides of other cohorts.

Genes are those that the references choose. Nothing that was measured on a slide is seen before it is compared with.

With ``--constants`` every patient of a cohort is predicted from each other one alone, and what a single patient does not
tell of another is printed: the constants of ``spahgc._linear.expected`` were chosen by it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _cohorts import Cohort, add_arguments, command, log, made_with, markdown, prepare, read_cohorts, records
from _measured import PATIENT
from anndata import AnnData
from scipy.stats import rankdata, spearmanr

import spahgc as sp
from spahgc._keys import Obs
from spahgc.tl._case import target_case

INTERVALS, FDR, MIN_PCC = 0.9, 0.1, 0.2
KEY = "spahgc"
BY_SECTION, BY_PATIENT = "section", "patient"
ONE_PATIENT = "one"
"""Of slides that name no patient: the cohorts without names are sections of one animal, or organoids of one line."""


INTRODUCTION = """# Whether trust is kept

Every slide of the cohorts of {doc}`benchmarks` is predicted by others: by section, from all others of its cohort, and by
patient, from those of other patients. What the prediction says of itself is then compared with what was measured
({doc}`concepts/trust` says how it is told).

- **values inside**: share of measured values in their 90 % interval;
- **residual / std**: root mean square of what values are off by, in units of the spread that is stated;
- **PCC inside**: share of genes whose correlation lies in its 95 % interval;
- **Spearman**: over genes, of promised and reached correlation;
- **trusted**: genes that `trusted_genes(fdr=0.1)` returns; **missed**, the share of them that stay below 0.2; **could be**,
  genes that reach it, which only a reader of the measurement knows;
- **support AUC**: of the support, spots of the slide against spots of other cohorts.

The settings were found with these slides in view. What holds on all of them: intervals of values on every slide and of genes on
every slide, and an unknown tissue is told from a known one. What does not:

- with references of **one patient** (breast by patient), hardly a gene of a new one is trusted, although a quarter of them could
  be: by how much a prediction varies over the slide is all that ranks the genes, and the relation of it to what is reached differs
  between cohorts by a factor of three. Those that are trusted keep the rate;
- **kidney organoids** are three organoids, not sections of one, and their references are two: C1 is further from the other two
  than these are from each other, which nothing told;
- the ranks of genes for a new patient agree in .59 in the mean, for a further section in .77."""


@dataclass(frozen=True)
class Fit:
    """Slides that are predicted by one model."""

    cohort: str
    by: str
    targets: list[AnnData]
    model: sp.SpaHGC


def main() -> None:
    arguments = parse_arguments()
    cohorts = [with_patients(cohort) for cohort in read_cohorts(arguments)]
    rows: list[dict[str, Any]] = []
    for cohort in cohorts:
        if arguments.constants:
            rows += list(constants_of(cohort))
            continue
        foreign = [other.slides[0] for other in cohorts if other.measured and other is not cohort and cohort.measured]
        for fit in fits_of(cohort, arguments.by):
            for target in fit.targets:
                rows.append(row_of(fit, target, foreign))
                log(json.dumps(rows[-1]))
    table = pd.DataFrame(rows)
    if arguments.json is not None:
        content = {"command": repeat_command(arguments), "made_with": made_with(), "slides": records(table)}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.page is not None:
        tables = pages(table, constants=arguments.constants)
        made = f"```console\n{repeat_command(arguments)}\n```\n\n{made_with()}"
        arguments.page.write_text("\n\n".join([INTRODUCTION, *tables, made]) + "\n", encoding="utf-8")
    print(*pages(table, constants=arguments.constants), repeat_command(arguments), made_with(), sep="\n\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(
        "--by", choices=(BY_SECTION, BY_PATIENT), action="append", help="what is held out; repeat (default: both)"
    )
    parser.add_argument(
        "--constants", action="store_true", help="what the references of one patient do not tell of another one"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the tables as a page of the docs")
    arguments = parser.parse_args()
    arguments.by = arguments.by or [BY_SECTION, BY_PATIENT]
    prepare(parser, arguments)
    sp.settings.progress = False
    return arguments


def with_patients(cohort: Cohort) -> Cohort:
    """The cohort, with one patient for all slides that name none."""
    for slide in cohort.slides:
        if not patient_of(slide):
            slide.obs[PATIENT] = ONE_PATIENT
    return cohort


def patient_of(slide: AnnData) -> str:
    name = str(slide.obs[PATIENT].iloc[0]) if PATIENT in slide.obs else ""
    return "" if name == "unknown" else name


def fits_of(cohort: Cohort, by: list[str]) -> Iterator[Fit]:
    """A model for each slide from all others of the cohort, and one for each patient from those of other patients."""
    slides = cohort.slides
    patients = sorted({patient_of(slide) for slide in slides})
    if BY_SECTION in by:
        for target in slides:
            others = [slide for slide in slides if slide is not target]
            if any(patient_of(slide) == patient_of(target) for slide in others):
                yield Fit(cohort.name, BY_SECTION, [target], sp.tl.fit(others))
    if BY_PATIENT in by and len(patients) > 1:
        for patient in patients:
            own = [slide for slide in slides if patient_of(slide) == patient]
            others = [slide for slide in slides if patient_of(slide) != patient]
            yield Fit(cohort.name, BY_PATIENT, own, sp.tl.fit(others))


def row_of(fit: Fit, target: AnnData, foreign: list[AnnData]) -> dict[str, Any]:
    """What is promised of a slide, and what is kept."""
    predicted = sp.tl.predict(target, model=fit.model, intervals=INTERVALS, copy=True)
    sp.tl.evaluate(predicted)
    told = predicted.uns["spahgc"]["predictions"][KEY]["trust"]
    genes = predicted.var[predicted.var[f"{KEY}_panel"].to_numpy()].index
    columns = [f"{KEY}_cv_pcc", f"{KEY}_pearson", f"{KEY}_cv_pcc_low", f"{KEY}_cv_pcc_high"]
    promised, reached, low, high = predicted.var.loc[genes, columns].to_numpy(dtype=np.float64).T
    both = np.isfinite(promised) & np.isfinite(reached)
    trusted = sp.tl.trusted_genes(predicted, fdr=FDR, min_pcc=MIN_PCC)
    kept = predicted.var.loc[trusted, f"{KEY}_pearson"].to_numpy(dtype=np.float64) >= MIN_PCC
    values = predicted[:, genes]
    measured = log1p_counts(target, genes)
    low_values, high_values, std = (np.asarray(values.layers[f"{KEY}_{part}"]) for part in ("low", "high", "std"))
    inside = (measured >= low_values) & (measured <= high_values)
    residuals = (measured - np.asarray(values.layers[KEY])) / std
    support = predicted.obs[f"{KEY}_support"].to_numpy()
    return {
        "cohort": fit.cohort,
        "held out by": fit.by,
        "slide": str(target.obs[Obs.slide].iloc[0]),
        "for": told["for"],
        "spots": target.n_obs,
        "genes": int(both.sum()),
        "values inside": float(inside.mean()),
        "residual / std": float(np.sqrt(np.mean(np.square(residuals)))),
        "PCC inside": float(np.mean((reached[both] >= low[both]) & (reached[both] <= high[both]))),
        "Spearman": float(spearmanr(promised[both], reached[both])[0]),
        "promised": float(promised[both].mean()),
        "reached": float(reached[both].mean()),
        "trusted": len(trusted),
        "missed": float(1 - kept.mean()) if trusted else float("nan"),
        "could be": int((reached[both] >= MIN_PCC).sum()),
        "support AUC": auc_of(fit.model, support, foreign),
    }


def log1p_counts(slide: AnnData, genes: pd.Index) -> np.ndarray:
    """Measured values as they are predicted, spots x genes."""
    total = np.asarray(slide.X.sum(axis=1)).ravel()
    counts = slide[:, genes].X
    counts = counts.toarray() if hasattr(counts, "toarray") else np.asarray(counts)
    return np.log1p(counts * (1e4 / np.maximum(total, 1))[:, None])


def auc_of(model: sp.SpaHGC, own: np.ndarray, foreign: list[AnnData]) -> float:
    """Probability that a spot of the slide has more support than one of other cohorts; NaN where there are none."""
    if not foreign:
        return float("nan")
    other = np.concatenate([np.asarray(model.support(slide)) for slide in foreign])
    ranks = rankdata(np.concatenate([own, other]))[: len(own)]
    return float((ranks.sum() - len(own) * (len(own) + 1) / 2) / (len(own) * len(other)))


def constants_of(cohort: Cohort) -> Iterator[dict[str, Any]]:
    """What is reached on each patient from each other one alone, beside what sections of that one let expect."""
    by_patient: dict[str, list[AnnData]] = {}
    for slide in cohort.slides:
        by_patient.setdefault(patient_of(slide), []).append(slide)
    for known, refs in by_patient.items() if len(by_patient) > 1 else ():
        model = sp.tl.fit(refs)
        case = model.trust.cases["section"]
        for target in (slide for name, slides in by_patient.items() if name != known for slide in slides):
            predicted = sp.tl.predict(target, model=model, copy=True)
            assert target_case(target, model.bank, placed=False, measured=False) == "patient"
            genes = [gene for gene in model.genes if gene in predicted.var_names]
            inside = np.isin(model.genes, genes)
            values = np.zeros((predicted.n_obs, len(model.genes)), dtype=np.float32)
            values[:, inside] = np.asarray(predicted[:, genes].layers[KEY])
            measured = log1p_counts(target, pd.Index(genes))
            widths = case.values.widths(INTERVALS, unseen=1.0, factor=1.0)
            grown = case.values.growth(predicted.obs[f"{KEY}_support"].to_numpy())[:, None]
            half = (case.spread(values) * grown * widths)[:, inside]
            sp.tl.evaluate(predicted)
            z = np.arctanh(np.clip(predicted.var.loc[genes, f"{KEY}_pearson"].to_numpy(dtype=np.float64), -0.99, 0.99))
            signal = case.genes.signal(values.std(axis=0))[inside]
            both = np.isfinite(z) & np.isfinite(signal)
            slope = float(z[both].mean() / signal[both].mean())
            left = z[both] - slope * signal[both]
            yield {
                "cohort": cohort.name,
                "references of": known,
                "slide": str(target.obs[Obs.slide].iloc[0]),
                "widths that hold 75 %": float(np.quantile(np.abs(measured - values[:, inside]) / half, 0.75)),
                "widths that hold 90 %": float(np.quantile(np.abs(measured - values[:, inside]) / half, 0.9)),
                "z / signal": slope,
                "sd of z beyond noise": float(np.sqrt(max(left.var() - 1 / (target.n_obs - 3), 0.0))),
            }


def pages(table: pd.DataFrame, *, constants: bool) -> Iterator[str]:
    """Tables as Markdown: of every slide, and what all of them come to."""
    if constants:
        yield shown(table)
        return
    yield shown(table.drop(columns="for"))
    yield shown(summary(table))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over the slides of every cohort and way of holding out, and of all."""
    rows = []
    for (by, cohort), part in [
        *table.groupby(["held out by", "cohort"]),
        *(((by, "all"), part) for by, part in table.groupby("held out by")),
    ]:
        trusted = int(part["trusted"].sum())
        missed = float((part["missed"].fillna(0) * part["trusted"]).sum() / trusted) if trusted else float("nan")
        rows.append(
            {
                "held out by": by,
                "cohort": cohort,
                "slides": len(part),
                "values inside": part["values inside"].mean(),
                "least": part["values inside"].min(),
                "PCC inside, least": part["PCC inside"].min(),
                "Spearman": part["Spearman"].mean(),
                "trusted": trusted,
                "missed": missed,
                "could be": int(part["could be"].sum()),
                "support AUC, least": part["support AUC"].min(),
            }
        )
    return pd.DataFrame(rows)


def shown(table: pd.DataFrame) -> str:
    text = table.copy()
    for name in text.columns:
        if text[name].dtype.kind == "f":
            text[name] = ["-" if np.isnan(value) else f"{value:.2f}" for value in text[name]]
    return markdown(text.set_index(text.columns[0]))


def repeat_command(arguments: argparse.Namespace) -> str:
    more = [] if len(arguments.by) > 1 else ["--by", *arguments.by]
    return command("trust.py", arguments, *more, *(["--constants"] if arguments.constants else []))


if __name__ == "__main__":
    main()
