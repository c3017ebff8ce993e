"""Where the numbers of a page come from, in words. Only what is named here leaves the slide's record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
from anndata import AnnData

from spahgc import __version__
from spahgc._keys import UNS, Uns
from spahgc.pl._measured_part import measured_note, measured_sentence
from spahgc.pl._report._content import Content
from spahgc.pl._report._pack import STEPS
from spahgc.pp._embed.slide_image import MAX_COARSENESS

Record: TypeAlias = Mapping[str, Any]
"""The record of a prediction, or a part of it."""

PREDICTION = {
    "method": "Method",
    "preset": "Preset",
    "seed": "Seed",
    "epochs_trained": "Epochs trained",
    "device": "Device",
}
ENCODER = {
    "name": "Name",
    "revision": "Revision",
    "dim": "Dimensions",
    "input_px": "Patch, pixels",
    "mpp": "Microns per pixel",
    "context": "Context",
    "stain": "Stain",
    "pooling": "Pooling",
    "interpolation": "Interpolation",
    "precision": "Precision",
    "mean": "Mean of the channels",
    "std": "Deviation of the channels",
}
"""Fields of the records that a page shows, and what it calls them."""
MOSTLY_UNKNOWN = 0.5
"""Share of spots that look like nothing on the references from which a page says so before anything else."""
MAX_NAMED = 40
"""References or genes that are named one by one."""


def origin(record: Record) -> str:
    """One line on where a page comes from."""
    references = _names(record.get("references", []))
    of = f", predicted from {_counted(len(references), 'reference')}" if references else ""
    return f"Made with spahgc {__version__} on {_today()}{of}."


def subtitle(content: Content, record: Record) -> str:
    """What the page shows, in a line."""
    references = _names(record.get("references", []))
    shown = _counted(len(content.genes), "gene")
    parts = [
        _counted(len(content.spots), "spot"),
        shown if len(content.genes) == content.n_predicted else f"{shown} of {content.n_predicted:,} predicted",
    ]
    if references:
        parts.append(
            f"predicted from {', '.join(references) if len(references) <= 6 else f'{len(references)} references'}"
        )
    part = record.get(Uns.measured)
    if part:
        parts.append(measured_note(int(part["n_measured"])))
    return " \u00b7 ".join(parts)


def sections(adata: AnnData, content: Content, record: Record) -> list[dict[str, object]]:
    """What is known of the prediction's origin: titles with rows of names and values."""
    listed: list[dict[str, object]] = [
        {"title": "Prediction", "rows": _prediction(content, record)},
        {"title": "Encoder of the patches", "rows": _encoder(adata, record)},
        {"title": "How it was evaluated", "rows": _evaluation(adata, content, record)},
        {"title": "Genes", "rows": _genes(content), "folded": True},
        {"title": "Parameters", "rows": _rows(record.get("parameters", {})), "folded": True},
        {"title": "Versions", "rows": _rows(record.get("versions", {})), "folded": True},
    ]
    return [{"folded": False} | section for section in listed if section["rows"]]


def warning(content: Content) -> str | None:
    """What has to be known before anything else, where most of a slide looks like nothing on the references."""
    said = content.said
    if not said.n_unknown or said.n_unknown < MOSTLY_UNKNOWN * said.n_spots:
        return None
    shown = "What was predicted there is not shown" if content.unknown.any() else "Do not read what is shown there"
    return (
        f"Most of this slide ({said.n_unknown:,} of {_counted(said.n_spots, 'spot')}) looks like nothing on the references. "
        f"{shown}, and correlations on the references say nothing of it."
    )


def reading_notes(content: Content, record: Record) -> list[str]:
    """How the page is read."""
    part = record.get(Uns.measured)
    notes = [
        f"Expression is in {content.units}. "
        + ("Measured and predicted values" if content.measured is not None else "The values")
        + " of a gene share one colour scale, from their 1st to their 99th percentile, unless \u201cScale\u201d gives each its "
        "own or \u201cContrast\u201d draws its ends in; a sign at its end says that there are values beyond."
    ]
    notes.append(
        "Spots have their true size on the tissue, or more where that would be too small to be seen and their distance "
        "leaves room."
    )
    if content.trust is not None:
        notes.append(
            "\u201cPCC, held out\u201d says which genes can be trusted: Pearson's correlation with a measurement that the "
            "references, each predicted from the others in turn, let expect of this slide, and its 95 % interval. "
            f"It holds for {content.said.for_whom}, and says nothing of others."
        )
    else:
        notes.append("Nothing is known of how well a gene is predicted on slides that were held out.")
    if content.achieved is not None:
        notes.append(
            "\u201cPCC, here\u201d is the correlation with the measurement of this slide. It was computed afterwards: no "
            f"measurement of {'the spots that it compares' if part else 'this slide'} is used for "
            f"{'their' if part else 'its'} prediction."
        )
    if part:
        notes.append(
            "Spots that stay blank under \u201cPredicted\u201d were measured and used as a reference for the others."
        )
    if content.measured is not None and np.isnan(content.measured).any():
        notes.append("Spots that stay blank under \u201cMeasured\u201d have no counts.")
    if content.spread is not None:
        notes.append(f"Spread is the standard deviation of what a predicted value may be off by, in {content.units}.")
    notes += finer_notes(record)
    if content.support is not None:
        notes.append(
            "Support says how well the references cover what a spot looks like: near 0 it looks like nothing on them."
        )
    if content.unknown.any():
        notes.append(
            f"Empty rings are {_counted(int(content.unknown.sum()), 'spot')} that look like nothing on the references. Values were "
            "computed there as well, and nobody knows what they are worth: no map shows them, and a mean over a region should "
            "leave them out."
        )
    if content.domains is not None:
        notes.append("Domains are spots that were grouped by their predicted expression; no pathologist named them.")
    notes.append(
        f"Values are rounded to 1/{STEPS} of the range of their gene, so they are off by at most 1/{2 * STEPS} of it."
    )
    return notes


def finer_notes(record: Record) -> list[str]:
    """What values at points finer than the references' spots can and cannot show; nothing of other predictions."""
    conserve = record.get(Uns.conserve)
    if not conserve:
        return []
    spacing, diameter = (f"{float(conserve[name]):.3g}" for name in ("spacing_um", "diameter_um"))
    return [
        f"Points lie {spacing} um apart, and the references measured spots of {diameter} um. Values show where within such a spot the image "
        "lets expect more or less; their mean over it is what is predicted of the spot. They do not show single cells: nothing finer "
        "than a spot was measured, so nothing proves a difference within one. Correlations that references let expect hold for spots."
    ]


def _finer(conserve: Record) -> str:
    """Sizes, and by how much means over areas are off."""
    said = (
        f"points {float(conserve['spacing_um']):.3g} um apart; means over {int(conserve['n_areas']):,} areas of "
        f"{float(conserve['diameter_um']):.3g} um are what is predicted of them"
    )
    if "max_deviation_in_spreads" not in conserve:
        return said
    return f"{said}, to {float(conserve['max_deviation_in_spreads']):.1g} spreads; spread widened {float(conserve['widened']):.3g} times"


def _prediction(content: Content, record: Record) -> list[list[str]]:
    rows = [["Slide", content.slide], ["Key", content.key], *_named(record, PREDICTION), ["Units", content.units]]
    references = _names(record.get("references", []))
    if references:
        rows.append([f"References ({len(references)})", _listed(references)])
    if record.get(Uns.measured):
        rows.append(["Measured part", measured_sentence(record)])
    conserve = record.get(Uns.conserve)
    if conserve:
        rows.append(["Finer than the references", _finer(conserve)])
    pieces = record.get(Uns.pieces)
    if pieces and int(pieces["n_pieces"]) > 1:
        alone = _counted(int(pieces["n_isolated"]), "spot")
        rows.append(
            ["Pieces of tissue", f"{int(pieces['n_pieces']):,}; {alone} without a neighbour, predicted all the same"]
        )
    rows.append(["Genes", f"{content.n_predicted:,} predicted, {len(content.genes):,} on this page"])
    if not record:
        rows.append(["Record", "none: nothing says how this layer was made"])
    return [*rows, ["Page", f"written on {_today()} by spahgc {__version__}"]]


def _encoder(adata: AnnData, record: Record) -> list[list[str]]:
    rows = _named(record.get("encoder", {}), ENCODER)
    of_slide, key = adata.uns.get(UNS, {}), str(record.get("embedding", ""))
    width = of_slide.get(Uns.patch_um, {}).get(key)
    rows += [] if width is None else [["Patch, microns", f"{float(width):.4g}"]]
    image = of_slide.get(Uns.patch_image, {}).get(key)
    return rows if image is None else [*rows, ["Image", _image(image)]]


def _image(image: Mapping[str, Any]) -> str:
    """From which image of the target its patches were cut, and whether it was fine enough."""
    times = float(image["enlarged"])
    return f"{image['image']}, enlarged {times:.1f} times" if times > MAX_COARSENESS else str(image["image"])


def _evaluation(adata: AnnData, content: Content, record: Record) -> list[list[str]]:
    rows = []
    if content.trust is not None:
        n = len(_names(record.get("references", [])))
        of = f"each of the {n} references" if n else "each reference"
        rows.append(["Held out", f"{of} in turn, predicted from the others; a gene's PCC is their mean"])
        rows.append(["The numbers hold for", str(content.said.for_whom)])
    scores = adata.uns.get(UNS, {}).get(Uns.evaluations, {}).get(content.key)
    if content.achieved is not None and scores:
        spots = "predicted spots" if record.get(Uns.measured) else "spots"
        median, n_spots = float(scores["median_pearson"]), int(scores["n_spots"])
        rows.append(
            ["On this slide", f"median PCC {median:.2f} over {int(scores['n_genes']):,} genes and {n_spots:,} {spots}"]
        )
    return rows or [["Evaluation", "none"]]


def _genes(content: Content) -> list[list[str]]:
    if len(content.genes) == content.n_predicted:
        return []
    return [
        [
            "Left out",
            f"{content.n_predicted - len(content.genes):,} genes that can be trusted less, or were not asked for",
        ]
    ]


def _named(record: Record, fields: Mapping[str, str]) -> list[list[str]]:
    return [[title, _text(record[name])] for name, title in fields.items() if name in record]


def _rows(record: Record) -> list[list[str]]:
    return [[str(name), _text(value)] for name, value in record.items()]


def _text(value: object) -> str:
    """A value of a record, which may come back from a file as an array or a numpy number."""
    if isinstance(value, np.ndarray | list | tuple):
        return ", ".join(_text(item) for item in list(value))
    return f"{float(value):.6g}" if isinstance(value, float | np.floating) else str(value)


def _names(values: Iterable[object]) -> list[str]:
    return [str(value) for value in values]


def _listed(names: list[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _counted(n: int, label: str) -> str:
    return f"{n:,} {label}{'' if n == 1 else 's'}"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
