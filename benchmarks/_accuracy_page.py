"""What ``accuracy.py`` found, as tables and as a page of the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from _cohorts import CAVEAT, EMBEDDING_SECONDS, Cohort, decimals, interval, made_with, markdown, records
from _measured import PATIENT
from _ranking import CONFIDENCE, MARGIN, rank_methods

from spahgc.tl._baselines import BASELINES
from spahgc.tl._cross_validation.cross_validate import CrossValidation
from spahgc.tl._cross_validation.statistics import POOLED

DEFAULT = "spahgc"
STRUCTURE = ("variance_ratio", "moran_difference", "ssim", "gene_correlation", "pearson_pooled")
"""Scores of structure that are shown beside the correlation."""
PANELS = {
    "fixed": "{n} genes of a fixed panel",
    "selected": "genes chosen on the references of each fold, {n} in all",
    "all": "all {n} genes that the references have seen",
}


@dataclass(frozen=True)
class CohortResult:
    """A cohort, what was found on it, the seconds of every method's slowest fold, and the kind of panel."""

    cohort: Cohort
    found: CrossValidation
    seconds: dict[str, float]
    panel: str

    @property
    def held_out(self) -> str:
        """What was held out at a time."""
        return "patient" if self.found.record["group_by"] == PATIENT else "slide"

    @property
    def heading(self) -> str:
        """Name, slides and genes in one line."""
        genes = PANELS[self.panel].format(n=self.found.scores["gene"].nunique())
        names = ", ".join(self.found.per_slide.columns)
        return f"{self.cohort.label}: slides {names}; {genes}"

    def numbers(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "record": self.found.record,
            "per_slide": records(self.found.per_slide.reset_index()),
            "summary": records(self.found.summary.reset_index()),
            "slowest_fold_seconds": self.seconds,
            "comparisons": records(self.found.comparisons),
            "scores": records(self.found.scores),
        }


def summary(results: list[CohortResult]) -> list[str]:
    """All measured cohorts in one table, and the ranks of the methods over their slides; nothing without a cohort."""
    if not results:
        return []
    return ["## All slides", markdown(overview_table(results)), *ranks(results)]


def overview_table(results: list[CohortResult]) -> pd.DataFrame:
    """Methods x cohorts: mean PCC and, in brackets, the share of the noise ceiling."""
    columns = {}
    for result in results:
        table = result.found.summary
        shares = [decimals(value) for value in table["ceiling_share"]]
        means = [decimals(value) for value in table["pearson"]]
        columns[result.cohort.name] = pd.Series(
            [f"{mean} ({share})" for mean, share in zip(means, shares, strict=True)], index=table.index
        )
    return pd.DataFrame(columns).rename_axis("method")


def ranks(results: list[CohortResult]) -> list[str]:
    """Table and test of the ranks, where there are enough methods and slides."""
    per_slide = pd.concat([result.found.per_slide.add_prefix(f"{result.cohort.name} ") for result in results], axis=1)
    if len(per_slide) < 3 or per_slide.shape[1] < 2:
        return []
    found = rank_methods(per_slide)
    shown = pd.DataFrame(
        {
            "mean rank": found.table["rank"].map("{:.2f}".format),
            "first on": found.table["first"].astype(str),
            f"first or within {MARGIN}": found.table["within"].astype(str),
        }
    ).rename_axis("method")
    without = f" {', '.join(found.left_out)} has no correlation and no rank." if found.left_out else ""
    return [
        markdown(shown),
        f"Ranks over {found.n_slides} slides, 1 is best; Friedman's test p = {found.p:.1e}; ranks that differ by less than "
        f"{found.critical_difference:.2f} are not told apart (Nemenyi, {CONFIDENCE:.0%}).{without} Sections of one patient "
        "are no independent trials, so that both are too small.",
    ]


def section(result: CohortResult) -> str:
    """The tables of a cohort, with their heading."""
    found = result.found
    shuffled = f"; references shuffled ({found.record['null']})" if found.record["null"] else ""
    seconds = sum(slide.uns.get(EMBEDDING_SECONDS, np.nan) for slide in result.cohort.slides)
    embedded = "" if np.isnan(seconds) else f" Embedding took {seconds:.0f} s."
    parts = [
        f"## {result.heading}",
        f"One {result.held_out} held out at a time, seed {found.record['seed']}{shuffled}.{embedded}",
        markdown(accuracy_table(found, result.seconds)),
        markdown(structure_table(found)),
    ]
    compared = against_default(found.comparisons)
    if len(compared):
        shown = pd.DataFrame(
            {
                "difference": compared["difference"].map(decimals),
                "95 % interval": [interval(*ends) for ends in zip(compared["low"], compared["high"], strict=True)],
                "p": ["-" if np.isnan(p) else f"{p:.1e}" for p in compared["p"]],
                "pairs": compared["n"].astype(str),
            }
        ).rename_axis(f"{DEFAULT} less")
        parts += [markdown(shown), *best_baseline(found, compared)]
    return "\n\n".join(parts)


def accuracy_table(found: CrossValidation, seconds: dict[str, float]) -> pd.DataFrame:
    """PCC on every slide and over all of them."""
    table = found.per_slide.map(decimals)
    table["mean"] = found.summary["pearson"].map(decimals)
    ends = zip(found.summary["low"], found.summary["high"], strict=True)
    table["95 % interval"] = [interval(*pair) for pair in ends]
    table["of ceiling"] = found.summary["ceiling_share"].map(decimals)
    table["undefined"] = found.summary["n_undefined"].astype(str)
    table["s a fold"] = [f"{seconds[method]:.1f}" for method in found.summary.index]
    return table


def structure_table(found: CrossValidation) -> pd.DataFrame:
    """Scores of structure, over all slides."""
    return found.summary[list(STRUCTURE)].map(decimals).rename(columns=lambda name: name.replace("_", " "))


def against_default(comparisons: pd.DataFrame) -> pd.DataFrame:
    """The default less every other method over all slides, a row a method; empty where the default did not run."""
    pooled = comparisons[comparisons["slide"] == POOLED]
    first = pooled[pooled["method"] == DEFAULT].rename(columns={"other": "less"})
    second = pooled[pooled["other"] == DEFAULT].rename(columns={"method": "less", "low": "high", "high": "low"})
    turned = second.assign(difference=-second["difference"], low=-second["low"], high=-second["high"])
    columns = ["less", "difference", "low", "high", "p", "n"]
    return pd.concat([turned[columns], first[columns]]).set_index("less")


def best_baseline(found: CrossValidation, compared: pd.DataFrame) -> list[str]:
    """A line on the baseline of the highest mean, if one ran and has a correlation."""
    means = found.summary["pearson"].loc[[name for name in found.summary.index if name in BASELINES]].dropna()
    if means.empty:
        return []
    best = str(means.idxmax())
    return [
        f"Best baseline: {best}, {means[best]:.3f}; {DEFAULT} {found.summary['pearson'][DEFAULT]:.3f}, Wilcoxon's "
        f"signed-rank p = {compared['p'][best]:.1e} over {compared['n'][best]} pairs of slide and gene (genes move "
        "together, so that p is too small; the interval is drawn over slides and genes)."
    ]


def page(command: str, results: list[CohortResult], sections: list[str]) -> str:
    """The page of the docs."""
    measured = any(result.cohort.measured for result in results)
    caveat = f"\n{CAVEAT}\n" if measured else ""
    title = "Benchmarks" if measured else "Benchmarks: simulated cohorts"
    return f"""# {title}

Every method predicts slides that it never saw from others: where two patients are named, all slides of one are held out
together. All are given the same embedding, that of EfficientNet-Lite0 (ImageNet weights) as `pp.embed` makes it by default; of
it `spahgc:paper`, `hest`, `hest_tuned` and `deepspot` see the encoder's own columns alone, as their articles do. PCC is
the Pearson correlation of a gene over the spots of a held-out slide, `log1p` counts per 10,000; the mean over genes, then over
slides. A fixed panel is the cohort's own list, or the 100 genes that vary most among those seen in a tenth of the spots of
every slide (as HEST-Benchmark chooses its genes: it says what is compared, and no method sees it made). The interval is a
bootstrap over slides and genes. "Of ceiling", and the number in brackets, is the share of what the noise of the counts leaves
within reach; "undefined" counts pairs of slide and gene without a correlation, which no mean contains; "s a fold" is the
slowest fold in seconds, embedding excluded. {{doc}}`concepts/evaluation` defines the scores of structure.
{caveat}
This page is written by

```
{command}
```

with {made_with()}. No number in it was edited.

{chr(10).join(part + chr(10) for part in sections)}"""
