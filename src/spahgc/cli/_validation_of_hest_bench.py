"""A task of the HEST benchmark, beside the number that it published: ``spahgc cross-validate --hest-bench``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spahgc._keys import POOLED_PEARSON
from spahgc._validate import check_writable_folder
from spahgc.cli._validation_request import HestBenchRequest
from spahgc.cli._validation_scores import FOLDS, check_methods, folds_name, scores_for_json, write_scores

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from spahgc.datasets._hest_bench import HestBenchTask
    from spahgc.encoders import Encoder
    from spahgc.tl import CrossValidation

METHOD = "hest"
"""The benchmark's own regression."""
BATCH_PATCHES = 256
"""Patches that are read at once: 40 MB of 224 px."""
PROTOCOL = (
    "PCC of a gene over the spots of all slides of a test split, mean over genes and splits; expression is log1p of the "
    "counts, as in the benchmark."
)


@dataclass(frozen=True)
class HestBenchOutcome:
    """What came out: the request, the task, the published PCC where there is one, and the scores."""

    request: HestBenchRequest
    task: HestBenchTask
    published: float | None
    validation: CrossValidation

    def table(self) -> pd.DataFrame:
        """The published PCC, then one row a method."""
        import pandas as pd

        summary = self.validation.summary
        rows = pd.DataFrame({"mean PCC": summary[POOLED_PEARSON], "genes": summary["n_genes"]}, index=summary.index)
        rows["seconds"] = summary["seconds"]
        if self.published is not None:
            rows = pd.concat([pd.DataFrame({"mean PCC": self.published}, index=[self._published_name()]), rows])
        return rows.rename_axis("method")

    def _published_name(self) -> str:
        from spahgc.datasets._hest_bench import PUBLISHED_DATE

        return f"{METHOD}, published {PUBLISHED_DATE}"

    def text(self) -> str:
        """For a terminal."""
        from spahgc.datasets._hest_bench import PUBLISHED_SOURCE

        record = self.validation.record
        formats = {name: (lambda value: "" if value != value else f"{value:.0f}") for name in ("genes", "seconds")}
        known = (
            f"The published figure is that of the {PUBLISHED_SOURCE}."
            if self.published is not None
            else f"The benchmark published no figure of encoder {self.request.encoder} for this task that is known here."
        )
        return "\n".join(
            [
                f"HEST benchmark, task {self.task.name}: {len(self.task.files)} slides, {len(record['splits'])} splits, "
                f"{len(self.task.genes)} genes, encoder {self.request.encoder}",
                "",
                self.table().to_string(na_rep="", formatters=formats, float_format="{:.4f}".format, index_names=False),
                "",
                PROTOCOL,
                known,
            ]
        )

    def to_dict(self) -> dict[str, object]:
        """For a program."""
        from spahgc.datasets._hest_bench import PUBLISHED_DATE, PUBLISHED_SOURCE

        return {
            "task": self.task.name,
            "slides": list(self.task.files),
            "splits": self.validation.record["splits"],
            "encoder": self.request.encoder,
            "preset": self.request.preset,
            "seed": self.request.seed,
            "published": {"pcc": self.published, "date": PUBLISHED_DATE, "source": PUBLISHED_SOURCE},
            **scores_for_json(self.validation),
        }


def validate_hest_bench(request: HestBenchRequest, output: Path) -> HestBenchOutcome:
    """Embed the patches of a task, predict its splits, and compare with what was published.

    Parameters
    ----------
    request
        What is to be run.
    output
        Folder for the finished folds and the scores; what a call that was cut off has left there is used again.
    """
    from spahgc._settings import resolve_device
    from spahgc.datasets._hest_bench import published_pcc, read_task
    from spahgc.encoders import load_encoder
    from spahgc.tl import cross_validate
    from spahgc.tl._cross_validation.splits import read_splits

    methods = list(dict.fromkeys([METHOD, *request.methods]))
    check_methods(methods, request.preset)
    task = read_task(request.path, request.task)
    read_splits(task.splits)
    device, folder = resolve_device(request.device), check_writable_folder(output)
    encoder = load_encoder(
        request.encoder, checkpoint=None if request.checkpoint is None else str(request.checkpoint), device=device
    )
    slides, key = [], ""
    for sample in task.files:
        slide, key = _embedded(task, sample, encoder, device)
        slides.append(slide)
    with warnings.catch_warnings():
        # A logarithm of counts has no noise ceiling, and nobody was promised one.
        warnings.filterwarnings("ignore", message=".*do not hold whole numbers, so that their counts cannot be split")
        validation = cross_validate(
            slides,
            splits=task.splits,
            methods=methods,
            genes=task.genes,
            embedding=key,
            units="transformed",
            preset=request.preset,
            seed=request.seed,
            n_jobs=request.n_jobs,
            checkpoint=folder
            / FOLDS
            / folds_name("hest-bench", task.name, request.encoder, request.preset, request.seed),
            device=request.device,
        )
    outcome = HestBenchOutcome(request, task, published_pcc(request.encoder, task.name), validation)
    write_scores(folder, validation, outcome.to_dict())
    return outcome


def _embedded(task: HestBenchTask, sample: str, encoder: Encoder, device: str) -> tuple[AnnData, str]:
    from spahgc.datasets._hest_bench import PATCH_UM, read_patches, read_sample
    from spahgc.pp._embed.given_patches import embed_patches

    slide = read_sample(task, sample)
    batches = read_patches(task, sample, BATCH_PATCHES)
    key = embed_patches(slide, batches, encoder=encoder, patch_um=PATCH_UM, device=device, label=sample)
    return slide, key
