"""Prediction, as a function that writes into the target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from spahgc._keys import Obs, Uns
from spahgc._parameters import KERNEL, METHODS, NETWORK, PRESETS, Parameters, find_preset
from spahgc._settings import hint_written, limited_threads, resolve_device, say, settings, timed, versions
from spahgc._slides.measured import measured_slides, padded_around, padded_spots
from spahgc._slides.measured_part import MeasuredPart, measured_part
from spahgc._slides.patients import patients_of, with_groups
from spahgc._slides.split import placed_table, placed_tables
from spahgc._slides.tables import with_table
from spahgc._slides.tissue import TissueRows
from spahgc._slides.totals import remember_library_sizes
from spahgc._spots.pieces import describe_pieces
from spahgc._spots.rows import N_HEXAGONAL, Spots
from spahgc._spots.unmeasured import patterns
from spahgc._training.graphs import bank_spots
from spahgc._training.networks import Prediction
from spahgc._validate import check_anndata, check_coordinates, did_you_mean, encoder_records, find_embedding, quoted
from spahgc.model import SpaHGC, fit_bank, grouped_references, in_place, is_new_patient, predict_spots
from spahgc.pp._bank.coverage import n_references as n_references_of_genes
from spahgc.pp._bank.references import (
    as_bank,
    bank_embedding,
    bank_pictures,
    bank_record,
    check_target,
    check_target_apart,
    is_bank,
    open_references,
    slide_look,
    target_look,
    target_spots,
)
from spahgc.pp._bank.scale import target_in_microns
from spahgc.pp._compare.choose import check_number, choose_references
from spahgc.pp._register.lays import Lays, free_name, lays_of_target
from spahgc.tl._baselines import BASELINES
from spahgc.tl._baselines.columns import seen_columns
from spahgc.tl._baselines.kernel import predict_kernel
from spahgc.tl._case import target_case
from spahgc.tl._drift import look_of_target
from spahgc.tl._finer import (
    Finer,
    check_conserve,
    conserve_record,
    conserved_baseline,
    conserved_prediction,
    finer_target,
    widen_spread,
)
from spahgc.tl._prediction import write_attention, write_measured, write_prediction, write_trust
from spahgc.tl._trust_record import trust_record

if TYPE_CHECKING:
    from spatialdata import SpatialData

BYTES_PER_GB = 1e9
MIN_LEVEL, MAX_LEVEL = 0.5, 0.99
"""Levels of intervals that references held out can tell."""
LOOK_AROUND = ("ridge_neighbours", "ridge_components", "kernel", "mlp", "deepspot")
"""Baselines that look at the six spots around one."""
PLACED_KERNEL = replace(PRESETS["default"], experts=(KERNEL,))
"""Of ``method="kernel"`` for a target on which a reference lies."""
BASELINE_WIDTH = 128
"""Principal components, or so, onto which a baseline brings the embedding of every spot."""


def predict(
    target: AnnData | SpatialData,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData | str | Path] | str | Path | None = None,
    *,
    model: SpaHGC | None = None,
    method: str = NETWORK,
    genes: Sequence[str] | str | None = None,
    embedding: str | None = None,
    layer: str | None = None,
    units: str | None = None,
    measured: str | None = None,
    place: bool | str = "auto",
    n_references: int | None = None,
    conserve: bool | float = False,
    trust: bool = True,
    intervals: float | None = None,
    group: str | None = None,
    preset: str | Parameters = "default",
    key_added: str = "spahgc",
    seed: int = 0,
    device: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Predict the expression of a slide from its H&E embedding and measured references.

    Parameters
    ----------
    target
        The slide, with embedding and ``obsm["spatial"]``: an AnnData, or a SpatialData with such a table. Its counts are
        not looked at, but for those of the spots that ``measured`` names. An object without genes gets those of the panel.
    refs
        Measured slides with the same embedding, AnnData or SpatialData, or paths of such: ``.h5ad``, ``.zarr``, a folder of
        them, or a pattern (``"refs/*.h5ad"``). Or a bank from :func:`spahgc.pp.reference_bank` or
        :func:`spahgc.pp.open_bank`, or the path of a bank on disk. With ``measured`` slides only, or none.
    model
        A trained model, instead of ``refs``.
    method
        ``"spahgc"``, or a baseline:

        - ``"mean"``: mean of the references, the same at every spot;
        - ``"nearest"``: mean of the 50 reference spots of highest cosine similarity;
        - ``"ridge"``: ridge regression on the embedding;
        - ``"ridge_neighbours"``: the same on features standardised by slide, and their means over six neighbours;
        - ``"ridge_components"``: the same features, onto 20 components of the transcriptome;
        - ``"kernel"``: kernel ridge regression with the arc-cosine kernel (Cho and Saul 2009) on those features, onto 30
          components, each with a penalty and a slope from references held out in turn; exact up to 3,000 reference spots,
          beyond that through 1,500 landmarks among them. Where references lie on the target (``place``) it is the kernel of
          the default, with theirs of place as far as references held out prove them. In a cross-validation it is a baseline,
          and looks at no place;
        - ``"mlp"``: a network of two hidden layers on those features;
        - ``"bleep"``: contrastive retrieval after BLEEP (Xie et al., NeurIPS 2023);
        - ``"deepspot"``: five deep-set networks after DeepSpot (Nonchev et al., medRxiv 2025): the spot, the sum over its
          sub-spots where the embedding has them (see the notes), the maximum over its six nearest spots;
        - ``"hest"``: the regression of the HEST benchmark, 256 principal components and a ridge penalty that is fixed;
        - ``"hest_tuned"``: the same components, with the penalty that predicts references held out in turn best.

        The last three see the encoder's own columns alone, without a context.
    genes
        The panel; ``None`` selects it from the references, ``"all"`` takes every gene that they cover, that is which
        is seen in at least 1 % of their spots. ``"union"`` is for references of different platforms: it takes the genes that
        would be selected of every reference that measured them, of which one is enough (see the notes).
    embedding
        Key of the embedding in ``obsm``; ``None`` takes the only one there is.
    layer
        Layer of the references with their counts; ``None`` takes ``X``.
    units
        What the values of the references are: ``"counts"``, whole or corrected; ``"log1p"`` of counts that were scaled to a total;
        ``"normalized"``, scaled counts without the logarithm; ``"transformed"``, values that are taken as they are, in whose
        units the prediction is then. ``None`` finds out and warns of what it assumes, or refuses
        where nothing tells.
    measured
        Boolean column of the target's ``obs``, True where the slide was measured: a corner, some of the sections on it. These
        spots, at least 20, are a reference at their own place, with counts as in the references (``layer``, ``units``), and the
        others alone are predicted. ``None``: nothing of the target is measured.
    place
        ``"auto"``: references whose section lies on the target, told by the images that the slides store or by
        :func:`spahgc.pp.register`, say what they measured at its place, as far as references held out prove that
        (``preset="default"``). ``False`` leaves it out; ``True`` refuses a target on which no reference lies.
    n_references
        Take only so many of ``refs``, those that look most like the target (:func:`spahgc.pp.choose_references`); ``None`` takes
        all. No count has a part in the choice.
    conserve
        Of a target that is finer than its references, such as a grid of 25 um beside spots of 55 um: bring the values to means
        over areas of the size of a spot that are those predicted of such areas, and widen spread and intervals for the step down
        in scale (``docs/concepts/finer``). ``True`` takes 0.55 of the references' pitch for the diameter of a spot, a number is that
        diameter in microns.
    trust
        Say how far the prediction can be believed, and for whom. ``False`` leaves it out, which saves time where references of
        several patients are to be held out once more.
    intervals
        Level of intervals of the values, between 0.5 and 0.99, such as 0.9; ``None`` for none.
    group
        Column of ``obs`` that names what is held out together, in the place of ``obs["patient"]``: of the references, each of
        which must have it, and of the target, where it has it.
    preset
        ``"paper"``, ``"default"``, or parameters of your own; without effect where a model is given.
    key_added
        Key in ``layers`` and ``uns``, and prefix of columns.
    seed
        Seed of the training, also of ``"mlp"``, ``"bleep"`` and ``"deepspot"``; without effect where a model is given.
    device
        Where to compute; ``None`` takes ``spahgc.settings.device`` or the first accelerator.
    table_key
        Key of the table of every SpatialData among target and references; ``None`` takes the only one.
    copy
        Return a changed copy instead of writing into ``target``; of a SpatialData a new one that shares all but the
        table.

    Returns
    -------
    ``None``, or the copy. Written are

    - ``layers["spahgc"]``: spots x genes, float32, ``log1p`` counts per 10,000; NaN in genes outside the panel;
    - ``var["spahgc_panel"]``: which genes are inside;
    - ``var["spahgc_n_references"]``, with ``genes="union"``: how many references measured a gene, on which its prediction
      rests; 0 outside the panel;
    - ``obsm["spahgc_cs"]``: the CS graph that the network used, target spots x bank spots, CSR, cosine similarity;
    - ``obsm["spahgc_attention"]``: its mean attention along these edges, rows sum to 1; not where the network has no weight;
    - ``layers["spahgc_std"]``: standard deviation of what a value may be off by, same shape and units;
    - ``layers["spahgc_low"]``, ``layers["spahgc_high"]`` with ``intervals``: ends of an interval in which that share of the
      measured values is expected to lie, same shape and units, by split conformal prediction over the groups held out;
    - ``var["spahgc_cv_pcc"]``, ``var["spahgc_cv_pcc_low"]``, ``var["spahgc_cv_pcc_high"]``: the gene's PCC that references
      held out in turn let expect of this slide, and its 95 % interval;
    - ``var["spahgc_cv_pcc_section"]``, ``var["spahgc_cv_pcc_patient"]``: the same PCC if the slide were a further section of a
      known patient, or of a new one; the first is NaN where every patient has one reference. Which of the two
      ``var["spahgc_cv_pcc"]`` is depends on ``obs["patient"]`` of target and references:
      ``uns["spahgc"]["predictions"]["spahgc"]["trust"]["for"]`` says so in words. A patient who is not named is taken for a new
      one, unless a reference lies on the target. Where the references are of one patient or do not name theirs, it is
      "new patient, estimated from other cohorts", and all intervals are as wide as patients of those differed;
    - ``obs["spahgc_support"]``: how well the references cover what the spot looks like, 0 to 1;
    - ``uns["spahgc"]["predictions"]["spahgc"]``: all that is needed to repeat it; ``"experts"`` in it are the weights of what
      was averaged, whose sum is 1; ``"drift"`` is how the target differs in look from its references, of which a warning tells
      where it is large; ``"chosen_references"``, with ``n_references``, says what was chosen and why;
    - ``varm["spahgc_error_correlation"]``, ``varm["spahgc_error_loadings"]``: what errors of spots and genes have in common, for
      the intervals of :func:`spahgc.tl.regions`;
    - with ``measured``: ``obs["spahgc_measured"]``, True for the spots that were a reference: their rows in all of the above
      are NaN or empty. ``uns["spahgc"]["predictions"]["spahgc"]["measured"]`` says how many they are, and the name of that
      reference, which is the target's own or ``"target"``;
    - ``obs["spahgc_total_counts"]`` where ``X`` holds counts: the spots' totals over all genes, by which
      :func:`spahgc.tl.evaluate` scales them also after genes were taken away. They have no part in the prediction;
    - with ``conserve``: ``uns["spahgc"]["predictions"]["spahgc"]["conserve"]``, sizes in microns, and how far means over areas are
      off what was predicted of them, in its units and in spreads; ``obs["spahgc_support"]`` is then the lesser of a point's own and
      that of the areas around it;
    - ``obsm["spatial"]`` where the table of a SpatialData has none: centres of the shapes that it annotates, in pixels
      of the image, or in the coordinates of the shapes where there is no image.

    Of a SpatialData they are written into the table. References are not changed. Spots off the tissue
    (``obs["in_tissue"]``) have no part in it: those of references are left out, those of the target keep their rows, which
    are NaN or empty. A warning counts either.

    Three lines are said, unless ``spahgc.settings.progress`` is false or ``spahgc.settings.verbosity`` below ``"info"``: how
    many genes were predicted, how many of them can be trusted and for whom, and how many spots look like nothing on the
    references. :func:`spahgc.get.summary` is the same as a table.

    Raises
    ------
    KeyError
        If an embedding, positions, genes or the column of measured spots are missing.
    ValueError
        If target and references do not fit together, if the target is among the references, if there are none, if
        the layers together would take more than ``spahgc.settings.max_dense_gb``, if ``conserve`` is given and the target is not
        finer than the references or a resolution is not known, or if ``measured`` names all spots, fewer
        than 20 with counts, or counts that are NaN.

    See Also
    --------
    spahgc.tl.fit : train once, predict many targets.
    spahgc.tl.evaluate : compare with a measurement.
    spahgc.tl.trusted_genes : the genes that were predicted well on references held out.
    spahgc.pp.compare : how target and references differ in look.

    Notes
    -----
    Graph and attention come from the network alone; spread and PCC from what ``preset="default"`` predicts of references that
    are held out in turn. A baseline writes none of them and no support, ``preset="paper"`` only graph and attention.

    Sub-spots are columns of the embedding: the encoder's output for the patch, `dim` of them, then that for each of its
    parts, such as the nine of a grid of three by three. An encoder record with ``"context": "subspots 9"`` says so, see
    :func:`spahgc.pp.use_embedding`. Without them ``"deepspot"`` goes by the spot and its neighbours.

    With ``genes="union"`` a gene counts as measured by the references that have it among their ``var_names``. What genes have in
    common is learned from those that all references measured, at least ten; every other gene is read off that by the references
    that measured it, and a baseline learns it from these alone. Losses and scores leave out what was not measured, and trust
    of a gene comes from references held out that measured it while another one did too: of a gene of one reference PCC, spread
    and intervals are NaN, and it is never among the trusted ones. References of small panels are brought onto the scale of the
    largest: see :func:`spahgc.pp.reference_bank`. ``preset="paper"`` carries a gene that was not measured as one that is hidden.

    With ``measured`` the prediction still sees how all spots of the target look, measured ones as neighbours too. The measured
    spots are standardised by themselves, as a slide of their own, both what they look like and what they express: a corner of
    tumour says how its spots differ from each other, not how tumour differs from the rest of the slide.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30, n_domains=3)
    >>> for slide in [target, *refs]:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]  # where sp.pp.embed(slide) would write
    >>> quick = sp.Parameters(n_axes=3, line=True, epochs=0)  # a line alone; the default trains for minutes
    >>> sp.tl.predict(target, refs, genes="all", embedding="X_domains", preset=quick)
    >>> target.layers["spahgc"].shape, target.layers["spahgc_std"].shape
    ((60, 30), (60, 30))

    A model that is trained once predicts any number of targets:

    >>> model = sp.tl.fit(refs, genes="all", embedding="X_domains", preset=quick)
    >>> sp.tl.predict(target, model=model, key_added="again")
    >>> bool((target.layers["again"] == target.layers["spahgc"]).all())
    True

    Some genes, by a baseline, beside it:

    >>> sp.tl.predict(
    ...     target, refs, genes=["MORPH001", "FLAT001"], embedding="X_domains", method="ridge", key_added="ridge"
    ... )
    >>> int(target.var["ridge_panel"].sum())
    2
    """
    _check_arguments(refs, model, method, key_added, measured, place)
    check_conserve(conserve, measured)
    _check_intervals(intervals, trust, method, None if model is not None else find_preset(preset))
    _check_choice(refs, n_references)
    if model is not None and not (genes is None and embedding is None and layer is None and units is None):
        raise ValueError(
            "genes=, embedding=, layer= and units= belong to the training. A model has its own: leave them out."
        )
    refs = open_references(refs)
    _check_choice(refs, n_references)  # once more, of what lies at a path
    data, target = target, placed_table(target, table_key, "the target", write=not copy)
    refs = grouped_references(placed_tables(refs, table_key, "reference"), group)
    grouped = target if group is None or measured is None else with_groups(target, group)[0]
    if measured is not None and is_bank(refs):
        raise ValueError(
            "measured= adds a slide to the references, and refs= is a bank, whose genes were chosen without it. Pass the slides "
            "of the bank themselves."
        )
    check_anndata(target, "the target")
    parameters = find_preset(preset)
    refs, choice = _chosen(target, refs, n_references, embedding)
    rows, part = TissueRows.of(target, "the target"), None
    if model is not None:
        spots = _spots_of_model(target, rows, model, trust, intervals)
        if place is True:
            _check_place(spots, model.bank, model.parameters, method)
        finer = finer_target(spots, model.bank, conserve, told=trust and model.trust is not None)
    else:
        spots, bank, part = _spots_and_bank(
            grouped, rows, refs, measured, genes, embedding, layer, units, parameters, method, trust, intervals
        )
        if place is True:
            _check_place(spots, bank, parameters, method)
        finer = finer_target(spots, bank, conserve, told=trust and method == NETWORK and parameters.line)
        if method == NETWORK:
            with timed(f'the training on "{resolve_device(device)}", {bank.n_obs} spots x {bank.n_vars} genes,'):
                model = fit_bank(bank, preset=preset, seed=seed, device=resolve_device(device), trust=trust)
            _check_told(model, intervals)
        elif method == KERNEL and place is not False and _lies_on_a_reference(spots, bank):
            trust = False
            model = fit_bank(bank, preset=PLACED_KERNEL, seed=seed, device=resolve_device(device), trust=trust)
    spots = replace(spots, patients=frozenset(patients_of(target, group)))
    drift = look_of_target(spots, bank if model is None else model.bank)
    if place is False:
        spots = replace(spots, picture=None, registration=None, own_reference=None)
    target = target.copy() if copy else target
    asked = _Asked(method, key_added, int(seed), device, trust, intervals, group, rows, part, finer, drift | choice)
    if model is not None:
        _write_of_model(target, model, spots, asked)
    else:
        _write_of_baseline(target, bank, spots, asked)
    if part is not None:
        write_measured(target, part, key_added)
    remember_library_sizes(target)
    say(trust_record(target, key_added).lines())
    hint_written(target, key_added)
    return with_table(data, target, table_key) if copy else None


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a call asked for, and what is known of its target before anything is predicted."""

    method: str
    key_added: str
    seed: int
    device: str | None
    trust: bool
    intervals: float | None
    group: str | None
    rows: TissueRows
    part: MeasuredPart | None
    finer: Finer | None
    about: Mapping[str, Any]
    """Entries of the record: how the target differs in look from its references, and how they were chosen."""


def _write_of_model(target: AnnData, model: SpaHGC, spots: Spots, asked: _Asked) -> None:
    """Predict the spots by a model, and write it and how far it can be believed into the target."""
    device, finer, part = asked.device, asked.finer, asked.part
    prediction, conserved = predict_spots(model, spots, device=device, support=asked.trust), None
    if finer is not None:
        prediction, conserved = conserved_prediction(model, spots, prediction, finer, device, support=asked.trust)
    prediction = in_place(prediction, asked.rows)
    prediction = prediction if part is None else _outside(prediction, part)
    record = model.record(new_patient=is_new_patient(spots, model.bank)) | {
        "method": asked.method,
        "device": resolve_device(device),
        Uns.cs_search: prediction.search,
        **({Uns.place: prediction.place} if prediction.place else {}),
        **asked.about,
        Uns.pieces: describe_pieces(spots.xy),
        Uns.surroundings: model.surroundings(spots),
        **conserve_record(conserved),
    }
    resting = n_references_of_genes(model.bank)
    write_prediction(target, prediction.expression, model.genes, asked.key_added, record, resting)
    write_attention(target, model, prediction, asked.key_added)
    if not asked.trust:
        return
    placed = bool(prediction.place.get("known"))
    case = target_case(target, model.bank, placed=placed, measured=part is not None, group=asked.group)
    write_trust(target, model, asked.key_added, prediction, case, asked.intervals)
    if conserved is not None:
        widen_spread(target, model, asked.key_added, conserved, case)


def _write_of_baseline(target: AnnData, bank: AnnData, spots: Spots, asked: _Asked) -> None:
    """Predict the spots by a baseline, and write it into the target."""
    say_of = partial(predict_baseline, bank=bank, method=asked.method, seed=asked.seed, device=asked.device)
    predicted, conserved = say_of(spots), None
    if asked.finer is not None:
        units = bank_record(bank)["units"]
        predicted, conserved = conserved_baseline(say_of, spots, predicted, asked.finer, units)
    predicted = asked.rows.in_place(predicted)
    predicted = predicted if asked.part is None else asked.part.outside(predicted)
    record = bank_record(bank) | {"method": asked.method, "seed": asked.seed, "versions": versions()}
    record |= {**asked.about, **surroundings_of_baseline(spots, bank, asked.method), **conserve_record(conserved)}
    write_prediction(target, predicted, list(bank.var_names), asked.key_added, record, n_references_of_genes(bank))


def _check_arguments(
    refs: Any, model: Any, method: str, key_added: str, measured: str | None, place: bool | str
) -> None:
    if method not in METHODS:
        raise ValueError(f'method="{method}" is not known. Choose one of {", ".join(METHODS)}.')
    if measured is not None and model is not None:
        raise ValueError(
            "measured= makes a reference of a part of the target, and model= was trained without it. Pass refs= with the "
            "slides instead of the model, so that a new one is trained."
        )
    if refs is None and model is None and measured is None:
        raise ValueError("no reference was given. Pass refs= with measured slides, or model= with a trained model.")
    if refs is not None and model is not None:
        raise ValueError("both refs= and model= were given. A model brings its references: pass one of the two.")
    if model is not None and not isinstance(model, SpaHGC):
        raise TypeError(f"model= must be a SpaHGC, found {type(model).__name__}. Load one with SpaHGC.load(folder).")
    if model is not None and method != NETWORK:
        raise ValueError(f'a model predicts with method="{NETWORK}"; pass refs= to use method="{method}".')
    if place not in (True, False, "auto"):
        raise ValueError(f'place={place!r} is not known. Pass "auto", True or False.')
    if not key_added or "/" in key_added:
        raise ValueError(f'key_added="{key_added}" cannot name a layer: it is empty or contains "/".')


def _check_intervals(intervals: float | None, trust: bool, method: str, parameters: Parameters | None) -> None:
    """Refuse a level that is none, and intervals of a prediction of which nothing is told; no parameters: a model has its own."""
    if intervals is None:
        return
    if isinstance(intervals, bool) or not MIN_LEVEL <= intervals <= MAX_LEVEL:
        raise ValueError(
            f"intervals={intervals} is no level. Pass a number between {MIN_LEVEL} and {MAX_LEVEL}, such as 0.9, or leave it out."
        )
    if not trust or method != NETWORK or (parameters is not None and not parameters.line):
        raise ValueError(
            'intervals= come from references held out in turn. Pass trust=True, method="spahgc" and preset="default" as well, or '
            "leave intervals= out."
        )


def _check_told(model: SpaHGC, intervals: float | None) -> None:
    """Refuse intervals of a model that cannot tell them, before anything is predicted."""
    if intervals is None:
        return
    if model.trust is None:
        raise ValueError(
            'intervals= come from references held out in turn, and the model says nothing of trust: it is of preset="paper", '
            "was fitted with trust=False, or no gene was measured by two of its references. Fit it again, or leave intervals= out."
        )
    if any(case.values is None for case in model.trust.cases.values()):
        raise ValueError(
            "intervals= need references that were held out as they are now, and the model is of an earlier version. Fit it "
            "again, or leave intervals= out."
        )


def _n_layers(told: bool, intervals: float | None) -> int:
    """The prediction, with trust its spread, and both ends of intervals."""
    return 1 + told + 2 * (told and intervals is not None)


def _check_choice(refs: Any, n_references: int | None) -> None:
    """Refuse a choice among what is no list of slides."""
    if n_references is None:
        if isinstance(refs, str) and refs == "choose":
            raise ValueError(
                'refs="choose" names no slides to choose from. Pass them all as refs=, and n_references= with how many to take.'
            )
        return
    check_number(n_references, "n_references=")
    if refs is None or is_bank(refs):
        raise ValueError(
            "n_references= chooses among slides: pass a list of them as refs=, no model and no bank, whose slides stay together."
        )


def _chosen(target: AnnData, refs: Any, n: int | None, embedding: str | None) -> tuple[Any, dict[str, Any]]:
    """The references that look most like the target, and the record of what was chosen and why; all where no number is given."""
    if n is None:
        return refs, {}
    refs, choice = choose_references(target, refs, n=n, embedding=embedding)
    columns = {str(choice.index.name): [*map(str, choice.index)], **choice.to_dict("list")}
    return refs, {Uns.chosen_references: columns}


def _check_place(spots: Spots, bank: AnnData, parameters: Parameters, method: str) -> None:
    """Refuse a target on which no reference lies, before anything is trained."""
    if method != KERNEL and (not parameters.place or method != NETWORK):
        raise ValueError(
            'place=True has no part in this prediction: pass preset="default" and method="spahgc", or method="kernel".'
        )
    lays = _lays(spots, bank)
    if not spots.own_reference and not any(pair.used for pair in lays.pairs.values()):
        reasons = "; ".join(f"{reference}: {pair.why}" for (_, reference), pair in lays.pairs.items())
        detail = reasons or "the slides store no images to tell by"
        raise ValueError(
            f"place=True, but no reference lies on the target ({detail}). Pass a transform that you know to spahgc.pp.register "
            'first, or place="auto".'
        )


def _lays(spots: Spots, bank: AnnData) -> Lays:
    """How the references lie on the target."""
    others = bank_pictures(bank)
    return lays_of_target(free_name("target", others), spots.picture, others, spots.registration)


def _lies_on_a_reference(spots: Spots, bank: AnnData) -> bool:
    return bool(spots.own_reference) or any(pair.used for pair in _lays(spots, bank).pairs.values())


def _outside(prediction: Prediction, part: MeasuredPart) -> Prediction:
    """A prediction of all spots of the target without what it says of the measured ones."""
    return replace(
        prediction,
        expression=part.outside(prediction.expression),
        cross=part.outside(prediction.cross),
        attention=part.outside(prediction.attention),
        by_place=part.outside(prediction.by_place),
        support=part.outside(prediction.support),
    )


def _spots_of_model(target: AnnData, rows: TissueRows, model: SpaHGC, trust: bool, intervals: float | None) -> Spots:
    """The target's spots for a model, once everything that can be wrong was looked at."""
    shown = rows.only(target)
    spots = target_spots(shown, model.embedding)
    _check_told(model, intervals)
    _check_room(target, model.genes, n_layers=_n_layers(trust and model.trust is not None, intervals))
    record = encoder_records(target).get(model.embedding, {})
    check_target(spots, record, model.bank, padded_spots(shown), padded_around(shown))
    return spots


def _spots_and_bank(
    target: AnnData,
    rows: TissueRows,
    refs: Any,
    measured: str | None,
    genes: Sequence[str] | str | None,
    embedding: str | None,
    layer: str | None,
    units: str | None,
    parameters: Parameters,
    method: str,
    trust: bool,
    intervals: float | None,
) -> tuple[Spots, AnnData, MeasuredPart | None]:
    """The target's spots, the references as a bank, and the measured part, once everything that can be wrong was looked at."""
    check_coordinates(target, "the target")
    shown, part = rows.only(target), None
    padded = padded_spots(shown), padded_around(shown)
    if not is_bank(refs):
        slides = {} if refs is None else measured_slides(refs, layer=layer, units=units)
        others = dict(slides)
        if measured is not None:
            hold = all(slide.hold for slide in slides.values())
            part = measured_part(target, measured, rows, others=list(others), layer=layer, units=units, hold=hold)
            slides = dict(sorted({**others, part.slide.name: part.slide}.items()))
        first = next(iter((others or slides).values()))
        key = find_embedding(first.adata, embedding, "the references" if others else "the target")
        for slide in slides.values():
            slide.embedding(key)
        spots = target_spots(shown, key)  # before the work of making a bank
        if part is not None:
            # Said of the target: beside its measured part its whole would be refused as a slide that stands there twice.
            look = target_look(spots, encoder_records(target).get(key, {}), *padded)
            check_target_apart(look, {name: slide_look(slide, key) for name, slide in others.items()})
        refs = slides
    # No RS graph: a baseline has none, and a fit makes that of what its nodes carry.
    bank = as_bank(
        refs, genes=genes, embedding=embedding, layer=layer, units=units, parameters=parameters, rs_graph=False
    )
    if is_bank(refs):
        key = bank_embedding(bank)
        spots = target_spots(shown, key)
    own = None if part is None else part.slide.name
    spots = replace(spots, own_reference=own)
    check_target(spots, encoder_records(target).get(key, {}), bank, *padded, own=own)
    told = trust and method == NETWORK and parameters.line
    _check_room(target, list(bank.var_names), n_layers=_n_layers(told, intervals))
    return spots, bank, part


def _check_room(target: AnnData, genes: list[str], *, n_layers: int) -> None:
    """Refuse layers (the prediction and, with a line, its spread) that would not fit, and a target without the genes."""
    n_vars = target.n_vars or len(genes)
    size_gb = n_layers * target.n_obs * n_vars * np.dtype(np.float32).itemsize / BYTES_PER_GB
    if size_gb > settings.max_dense_gb:
        label = "the prediction and its spread" if n_layers > 1 else "the prediction"
        raise ValueError(
            f"{label} would take {size_gb:.1f} GB: {target.n_obs} spots x {n_vars} genes, dense. Predict into "
            f"the panel alone with target[:, genes].copy() ({len(genes)} genes; model.genes of a fitted model), or "
            f"raise spahgc.settings.max_dense_gb, now {settings.max_dense_gb}.{_keep_totals(target)}"
        )
    if target.n_vars and not set(genes) & set(target.var_names):
        raise ValueError(
            f"the target has none of the {len(genes)} genes of the panel: it has {quoted(target.var_names)}, the "
            f"panel {quoted(genes)}.{did_you_mean(genes, target.var_names)} Use the same kind of gene names, or a target "
            "without genes."
        )


def _keep_totals(target: AnnData) -> str:
    """What to do before genes are taken away from a slide whose totals nobody remembers yet."""
    if not target.n_vars or target.X is None or Obs.total in target.obs:
        return ""
    return (
        f' If the slide was measured, write target.obs["{Obs.total}"] = target.X.sum(axis=1) first: an evaluation scales '
        "every spot by its total over all genes."
    )


def surroundings_of_baseline(spots: Spots, bank: AnnData, method: str) -> dict[str, Any]:
    """What the surroundings of a target's spots are, for the record of a baseline; nothing where it looks at none."""
    if method not in LOOK_AROUND:
        return {}
    return {Uns.surroundings: target_in_microns(spots, bank)[1].record(N_HEXAGONAL)}


def predict_baseline(spots: Spots, bank: AnnData, method: str, seed: int, device: str | None = None) -> np.ndarray:
    """What a baseline makes of a target's spots, spots x genes of the bank, float32.

    Genes that the same references measured are predicted together, from these references alone. The kernel computes on the
    device, all others on the CPU.
    """
    baseline = partial(predict_kernel, device=resolve_device(device)) if method == KERNEL else BASELINES[method]
    known = bank_spots(bank)  # a baseline holds what it learns from in memory
    spots, _ = target_in_microns(spots, bank)
    record = encoder_records(bank).get(bank_embedding(bank), {})
    known, spots = (
        replace(part, z=seen_columns(method, np.asarray(part.z, np.float32), record)) for part in (known, spots)
    )
    groups = patterns(known.y, known.slide)
    with limited_threads(float(np.prod(known.z.shape)) * BASELINE_WIDTH):
        if len(groups) == 1:
            return baseline(known, spots, seed).astype(np.float32)
        predicted = np.empty((len(spots), bank.n_vars), dtype=np.float32)
        for group in groups:
            part = known[group.rows]
            part = replace(part, y=part.y[:, group.genes])
            predicted[:, group.genes] = baseline(part, spots, seed)
        return predicted
