"""Ablation: what every component of the default adds, on measured and on simulated slides.

    python benchmarks/ablation.py --data ../shared/data/her2st --simulated --checkpoint ablation_folds

One row a component: the default with that component taken away or changed and nothing else, each slide predicted from all
others. Slides are those of ``benchmarks/accuracy.py``, which tells what the folder holds. With all rows the page
docs/ablation.md is written anew; with ``--row`` the table is only printed. A run with ``--checkpoint`` goes on from where
an earlier one ended.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from _cohorts import (
    CAVEAT,
    Cohort,
    add_arguments,
    command,
    decimals,
    interval,
    log,
    made_with,
    markdown,
    prepare,
    read_cohorts,
    records,
)
from anndata import AnnData

import spahgc as sp
from spahgc._keys import UNS, Obs, Uns
from spahgc._parameters import GRAPH, KERNEL, KERNEL_OVERALL, LINE, PERCEPTRON, PERCEPTRON_OVERALL, PRESETS
from spahgc._validate import embedding_matrix, encoder_records, find_embedding
from spahgc.encoders._record import PATCH_CONTEXT, plain_embedding
from spahgc.tl._cross_validation.cross_validate import CrossValidation
from spahgc.tl._cross_validation.statistics import POOLED, compare, summarize

PAGE = Path(__file__).parents[1] / "docs" / "ablation.md"
DEFAULT = "default"
PLAIN_KEY = "X_plain_patch"
N_BOOTSTRAP = 2000
KINDS = ("Measured slides", "Simulated slides")
"""Cohorts that are summed up in one table, by its heading."""

SIMULATION = (
    "Simulated slides are cohorts of `sp.datasets.simulated` that differ in seed, numbers and sizes of slides, genes,\n"
    "domains, and effects of patients and stains; all genes count, also those that no image can tell."
)
"""What has to be said of the simulated slides."""


@dataclass(frozen=True)
class Row:
    """The default but for some parameters, or for the embedding that it sees."""

    changes: Mapping[str, Any]
    plain: bool = False

    def method(self, embedding: str) -> dict[str, Any]:
        """Keyword arguments of the prediction, on slides whose embedding with context lies under that key."""
        return {
            "preset": replace(PRESETS["default"], **self.changes),
            "embedding": PLAIN_KEY if self.plain else embedding,
        }

    @property
    def setting(self) -> str:
        """What is changed, as it would be written; of experts those that are left."""
        settings = [f"`{name}={value}`" for name, value in self.changes.items() if name != "experts"]
        # A tuple of names as one piece of code would be wider than a page.
        settings += [f"`{name}`" for name in self.changes.get("experts", ())]
        return ", ".join([*settings, *(["embedding without context"] if self.plain else [])])


def changed(plain: bool = False, **changes: Any) -> Row:
    """A row that differs from the default; one that does not would say nothing."""
    now = PRESETS["default"]
    if not plain and replace(now, **changes) == now:
        raise ValueError(f"{changes} is what the default has already. Change or remove this row of the ablation.")
    return Row(changes, plain)


def without(*experts: str) -> tuple[str, ...]:
    """The experts of the default but for some."""
    return tuple(name for name in PRESETS["default"].experts if name not in experts)


ROWS: dict[str, Row] = {
    DEFAULT: Row({}),
    "without the graph": changed(experts=without(GRAPH)),
    "without the kernels": changed(experts=without(KERNEL, KERNEL_OVERALL)),
    "without the small networks": changed(experts=without(PERCEPTRON, PERCEPTRON_OVERALL)),
    "the line alone": changed(experts=(LINE,)),
    "plain patch alone": changed(plain=True),
}
LABELS = tuple(ROWS)


def main() -> None:
    arguments = parse_arguments()
    found: dict[str, dict[str, CrossValidation]] = {}
    for cohort in read_cohorts(arguments):
        log(f"{cohort.name}: {len(arguments.row)} rows")
        found.setdefault(KINDS[not cohort.measured], {})[cohort.name] = run(cohort, arguments)
    tables = {kind: pooled(of_kind) for kind, of_kind in found.items()}
    sections = [section(kind, table, found[kind]) for kind, table in tables.items()]
    print("\n\n".join([*sections, made_with()]))
    if arguments.json is not None:
        numbers = {kind: records(table.reset_index()) for kind, table in tables.items()}
        every = {name: one for of_kind in found.values() for name, one in of_kind.items()}
        cohorts = {name: {"record": one.record, "scores": records(one.scores)} for name, one in every.items()}
        content = {
            "command": repeat_command(arguments),
            "made_with": made_with(),
            "tables": numbers,
            "cohorts": cohorts,
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if len(arguments.row) < len(LABELS):
        log(f"some rows only: {arguments.page} is left as it is")
        return
    arguments.page.write_text(page(arguments, sections), encoding="utf-8")
    log(f"{arguments.page} is written")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(
        "--row", action="append", choices=LABELS, help="a row beside the default; repeat (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time, each on one thread (default: 1)")
    parser.add_argument(
        "--page", type=Path, default=PAGE, metavar="FILE", help="page that is written (default: the docs')"
    )
    arguments = parser.parse_args()
    arguments.row = [label for label in LABELS if label == DEFAULT or label in (arguments.row or LABELS)]
    prepare(parser, arguments)
    return arguments


def run(cohort: Cohort, arguments: argparse.Namespace) -> CrossValidation:
    """All rows on one cohort."""
    key = find_embedding(cohort.slides[0], None, f'the first slide of "{cohort.name}"')
    for slide in cohort.slides:
        add_plain(slide, key)
    methods = {label: ROWS[label].method(key) for label in arguments.row}
    return sp.tl.cross_validate(
        cohort.slides,
        methods=methods,
        group_by=Obs.slide,
        genes=cohort.panel,
        seed=arguments.seed,
        n_jobs=arguments.jobs,
        checkpoint=None if arguments.checkpoint is None else arguments.checkpoint / cohort.name,
    )


def add_plain(slide: AnnData, key: str) -> None:
    """The embedding of the plain patch as one of its own: the encoder's own columns, and their record."""
    record = encoder_records(slide).get(key, {})
    columns = embedding_matrix(slide, key, "the slide")
    plain = plain_embedding(columns, record)
    if plain.shape == columns.shape:
        raise SystemExit(
            f'obsm["{key}"] has no context (its record says {record.get("context")!r}), without which the default is not '
            "the default. Embed the slides with spahgc.pp.embed(...)."
        )
    slide.obsm[PLAIN_KEY] = plain
    entries = dict(slide.uns[UNS])
    entries[Uns.embeddings] = entries[Uns.embeddings] | {PLAIN_KEY: dict(record) | {"context": PATCH_CONTEXT}}
    slide.uns[UNS] = entries


def pooled(found: Mapping[str, CrossValidation]) -> pd.DataFrame:
    """Mean PCC of every row over the slides of some cohorts, and its difference to the default, with intervals.

    A gene of one cohort is another gene than that of the same name in the next one: both are drawn by themselves.
    """
    there = list(found)
    tables = [found[name].scores for name in there]
    scores = pd.concat(
        [
            table.assign(slide=f"{name} " + table["slide"], gene=f"{name} " + table["gene"])
            for name, table in zip(there, tables, strict=True)
        ],
        ignore_index=True,
    )
    seed = found[there[0]].record["seed"]
    seconds = {
        str(label): sum(found[name].summary["seconds"][label] for name in there)
        for label in found[there[0]].summary.index
    }
    table = summarize(scores, seconds, n_bootstrap=N_BOOTSTRAP, seed=seed).rename_axis("row")
    for label in table.index.drop(DEFAULT):
        pairs = compare(scores, [label, DEFAULT], n_bootstrap=N_BOOTSTRAP, seed=seed)
        over_all = pairs[pairs["slide"] == POOLED].iloc[0]
        columns = ["difference", "difference_low", "difference_high", "p"]
        table.loc[label, columns] = over_all[["difference", "low", "high", "p"]].to_numpy(dtype=float)
    return table


def section(kind: str, table: pd.DataFrame, found: Mapping[str, CrossValidation]) -> str:
    """A table with its heading."""
    compared = table.reindex(columns=["difference", "difference_low", "difference_high"])
    shown = pd.DataFrame(
        {
            "setting": [ROWS[label].setting for label in table.index],
            "mean PCC": table["pearson"].map(decimals),
            "95 % interval": [interval(*ends) for ends in zip(table["low"], table["high"], strict=True)],
            "less the default": [decimals(value) for value in compared["difference"]],
            "its interval": [interval(*ends) for ends in compared.iloc[:, 1:].itertuples(index=False)],
        }
    )
    names = list(found)
    slides = "; ".join(f"{name}: {', '.join(found[name].per_slide.columns)}" for name in names)
    genes = ", ".join(str(found[name].scores["gene"].nunique()) for name in names)
    seed = found[names[0]].record["seed"]
    return f"## {kind}\n\n{slides}; {genes} genes, seed {seed}.\n\n{markdown(shown)}"


def repeat_command(arguments: argparse.Namespace) -> str:
    rows = (
        [word for label in arguments.row[1:] for word in ("--row", label)] if len(arguments.row) < len(LABELS) else []
    )
    return command("ablation.py", arguments, *rows)


def page(arguments: argparse.Namespace, sections: list[str]) -> str:
    notes = [CAVEAT] if arguments.data or arguments.embedded else []
    notes += [SIMULATION] if arguments.simulated else []
    return f"""# Ablation

What the components of `preset="default"` add. Every row is the default with one component taken away or
changed and nothing else. Each slide is predicted from all others of its cohort. PCC is the Pearson correlation of a gene
over the spots of the held-out slide, `log1p` counts
per 10,000; the mean over genes, then over slides. Intervals are a bootstrap over slides and genes, that of a difference
over the pairs in which both rows have a correlation. A difference below zero speaks for the default as it is; where its
interval holds zero, these slides do not tell.

{(chr(10) * 2).join(notes)}

This page is written by

```
{repeat_command(arguments)}
```

with {made_with()}. No number in it was edited.

{chr(10).join(part + chr(10) for part in sections)}"""


if __name__ == "__main__":
    main()
