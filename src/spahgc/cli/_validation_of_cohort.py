"""A cohort from its files to its scores, beside those of the paper: ``spahgc cross-validate --cohort``."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spahgc._files import write_h5ad
from spahgc._keys import UNS, Obs, Obsm, Uns
from spahgc._reading import read_h5ad
from spahgc._validate import check_same_encoder, check_writable_folder, encoder_records, quoted
from spahgc.cli._validation_request import PAPER_ENCODER, PAPER_GROUP, PAPER_PRESET, CohortRequest
from spahgc.cli._validation_scores import (
    FOLDS,
    check_methods,
    folds_name,
    score_lines,
    scores_for_json,
    summary_table,
    write_scores,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from spahgc.datasets._cohort import Cohort
    from spahgc.tl import CrossValidation

REPORTED = "SpaHGC, reported"
PROTOCOL = (
    "The reported figure chose the epoch on the slide held out, and its genes over all slides; "
    "here nothing that learns sees that slide."
)
SLIDES = "slides"
"""Folder of the embedded slides within the output."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CohortOutcome:
    """What came out: the request, the sections that were there, and the scores."""

    request: CohortRequest
    cohort: Cohort
    sections: list[str]
    validation: CrossValidation

    @property
    def differences(self) -> list[str]:
        """In what this run differs from the paper's setting; nothing where the paper has none."""
        request = self.request
        if self.cohort.paper_pcc is None:
            return []
        differences = []
        if len(self.sections) < len(self.cohort.sections):
            differences.append(f"{len(self.sections)} of {len(self.cohort.sections)} sections")
        if request.encoder != PAPER_ENCODER:
            differences.append(f"encoder {request.encoder} instead of {PAPER_ENCODER}")
        if request.context:
            differences.append("patches of several sizes instead of one")
        if request.preset != PAPER_PRESET:
            differences.append(f"preset {request.preset} instead of {PAPER_PRESET}")
        if request.group_by != PAPER_GROUP:
            differences.append(f"one {request.group_by} held out at a time instead of one {PAPER_GROUP}")
        return differences

    def table(self) -> pd.DataFrame:
        """The paper's figure, if it has one, and one row a method: mean PCC over slides and genes, with its 95 % interval."""
        import pandas as pd

        if self.cohort.paper_pcc is None:
            return summary_table(self.validation).rename_axis("method")
        reported = pd.DataFrame({"mean PCC": self.cohort.paper_pcc}, index=[REPORTED])
        return pd.concat([reported, summary_table(self.validation)]).rename_axis("method")

    def text(self) -> str:
        """For a terminal."""
        request = self.request
        lines = [
            f"{self.cohort.name} ({self.cohort.title}), {len(self.sections)} of {len(self.cohort.sections)} sections, "
            f"one {request.group_by} held out at a time",
            f"encoder {request.encoder}, preset {request.preset}",
            "",
            *score_lines(self.table(), self.validation),
            "",
            *([] if self.cohort.paper_pcc is None else [PROTOCOL]),
        ]
        if self.differences:
            lines.append(f"Not the paper's setting: {'; '.join(self.differences)}.")
        if self.cohort.note:
            lines.append(self.cohort.note)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """For a program; NaN becomes null."""
        request = self.request
        return {
            "cohort": self.cohort.to_uns(),
            "sections": self.sections,
            "sections_of_cohort": len(self.cohort.sections),
            "encoder": request.encoder,
            "preset": request.preset,
            "group_by": request.group_by,
            "seed": request.seed,
            "paper_pcc": self.cohort.paper_pcc,
            "differences": self.differences,
            **scores_for_json(self.validation),
        }


def validate_cohort(request: CohortRequest, output: Path) -> CohortOutcome:
    """Embed a cohort and hold out each of its slides, or patients, in turn.

    Parameters
    ----------
    request
        What is to be run.
    output
        Folder for the embedded slides, the finished folds and the scores. What a call that was cut off has left there
        is used again.

    Returns
    -------
    The scores; they are in ``scores.csv``, ``per_slide.csv`` and ``result.json`` as well.
    """
    from spahgc.datasets._cohort import find_cohort
    from spahgc.datasets._load import available
    from spahgc.tl import cross_validate

    cohort = find_cohort(request.cohort)
    sections = cohort.check_sections(request.sections)
    if request.sections is None and request.path is not None:
        sections = available(request.cohort, request.path)
    _check(request, cohort, sections)
    folder = check_writable_folder(output)
    slides = embedded_slides(request, sections, check_writable_folder(folder / SLIDES))
    key = _key(request)
    validation = cross_validate(
        slides,
        group_by=request.group_by,
        methods=list(request.methods),
        embedding=key,
        preset=request.preset,
        seed=request.seed,
        n_jobs=request.n_jobs,
        checkpoint=folder / FOLDS / _folds_name(request, sections, slides[0], key),
        device=request.device,
    )
    outcome = CohortOutcome(request, cohort, sections, validation)
    write_scores(folder, validation, outcome.to_dict())
    return outcome


def _check(request: CohortRequest, cohort: Cohort, sections: list[str]) -> None:
    """Refuse what would fail after the slides have been embedded."""
    from spahgc._settings import resolve_device
    from spahgc.datasets._cohort import UNKNOWN
    from spahgc.encoders import describe_encoder

    groups = {"slide": set(sections), "patient": {cohort.patients[section] for section in sections}}
    if request.group_by not in groups:
        raise ValueError(f'--group-by {request.group_by} is not known. Pass "slide" or "patient".')
    if UNKNOWN in groups[request.group_by]:
        raise ValueError(
            f"the source of cohort {cohort.name} does not say which patients its sections are of, so that no patient "
            "can be left out. Pass --group-by slide."
        )
    if len(groups[request.group_by]) < 2:
        raise ValueError(
            f"the sections {quoted(sections)} are of one {request.group_by}: none is left to learn from. Pass more "
            "sections."
        )
    check_methods(request.methods, request.preset)
    describe_encoder(request.encoder)
    resolve_device(request.device)


def embedded_slides(request: CohortRequest, sections: list[str], folder: Path) -> list[AnnData]:
    """The sections with their embedding: read back where a file in the folder has it, embedded and kept there if not."""
    stored = {section: _read_back(folder / f"{section}.h5ad", section, request) for section in sections}
    missing = [section for section in sections if stored[section] is None]
    if not missing:
        return [slide for slide in stored.values() if slide is not None]
    embed = _embedder(request, sections, folder)
    slides = {section: embed(section) for section in missing}
    key = _key(request)
    record = encoder_records(slides[missing[0]])[key]
    for section, slide in stored.items():
        if slide is not None:
            # Weights may have changed between two calls without a change of the encoder's name.
            slides[section] = slide if _same_encoder(encoder_records(slide)[key], record) else embed(section)
    return [slides[section] for section in sections]


def _embedder(request: CohortRequest, sections: list[str], folder: Path) -> Callable[[str], AnnData]:
    """A function that reads a section, embeds it and keeps it; weights and files are fetched now."""
    import spahgc as sp
    from spahgc._settings import resolve_device
    from spahgc.datasets._load import load

    device = resolve_device(request.device)
    # First the weights, which may not be accessible, then the gigabytes of the cohort.
    encoder = sp.encoders.load_encoder(request.encoder, checkpoint=request.checkpoint, device=device)
    path = sp.datasets.fetch(request.cohort, sections=sections) if request.path is None else request.path

    def embed(section: str) -> AnnData:
        (slide,) = load(request.cohort, path, sections=[section])
        parts = folder / f"{section}.parts"
        sp.pp.embed(
            slide, encoder=encoder, context=request.context, key_added=_key(request), device=device, resume=parts
        )
        write_h5ad(slide, folder / f"{section}.h5ad")
        shutil.rmtree(parts)
        return slide

    return embed


def _read_back(path: Path, section: str, request: CohortRequest) -> AnnData | None:
    """An embedded section of an earlier call, if it is what this call would make."""
    if not path.is_file():
        return None
    try:
        slide = read_h5ad(path, "the embedded slide", "It is embedded again.")
    except (OSError, ValueError) as error:
        logger.warning("%s", error)
        return None
    cohort = slide.uns.get(UNS, {}).get(Uns.cohort, {}).get("name")
    record = encoder_records(slide).get(_key(request))
    if cohort != request.cohort or record is None or set(slide.obs[Obs.slide]) != {section}:
        return None
    return slide if _is_of_encoder(record, request) else None


def _is_of_encoder(record: dict[str, Any], request: CohortRequest) -> bool:
    """Whether a record is of the encoder that is asked for, as far as is known before its weights are read."""
    from spahgc.encoders import describe_encoder
    from spahgc.encoders._checkpoint import file_revision
    from spahgc.encoders._record import PATCH_CONTEXT

    revision = str(record["revision"])
    if request.checkpoint is not None and revision != file_revision(request.checkpoint):
        return False
    if request.checkpoint is None and revision.startswith("local:"):
        return False
    if request.context != (str(record["context"]) != PATCH_CONTEXT):
        return False
    described = describe_encoder(request.encoder)
    if described is None:
        return True
    fields = {"name", "dim", "input_px", "mpp", "mean", "std", "pooling", "precision"}
    wanted = {name: value for name, value in described.to_uns().items() if name in fields}
    return _same_encoder({name: record[name] for name in wanted}, wanted)


def _same_encoder(record: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        check_same_encoder(record, other, "", "", "")
    except ValueError:
        return False
    return True


def _key(request: CohortRequest) -> str:
    """Key of the embedding: an encoder's name may be that of a timm model, with characters that no key may have."""
    from spahgc.encoders._record import key_name

    return Obsm.embedding(key_name(request.encoder))


def _folds_name(request: CohortRequest, sections: list[str], slide: AnnData, key: str) -> str:
    record = encoder_records(slide)[key]
    # Plain texts: lists come back from files as arrays.
    encoder = [str(record[field]) for field in ("name", "revision", "context")]
    return folds_name(request.group_by, sorted(sections), encoder, request.preset, request.seed)
