"""A simulated cohort whose truth is known: which genes follow the morphology, and which do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from spahgc._validate import quoted
from spahgc.datasets import _histology as histology
from spahgc.datasets._histology import FIELD_CELL_PX, GROUND_PX, MPP_UM, NAMES, Floats, Pixels, Stain

Doubles = NDArray[np.float64]

SPOT_PITCH_UM = 100.0
SPOT_DIAMETER_UM = 55.0
FIDUCIAL_DIAMETER_UM = 90.0
SPOT_PITCH_PX = SPOT_PITCH_UM / MPP_UM
SPOT_DIAMETER_PX = SPOT_DIAMETER_UM / MPP_UM
MARGIN_PX = 150
"""Least distance of a spot's centre to the image's border, so that a patch of 224 px around it is inside."""
SIDE_MULTIPLE_PX = 16
"""Both sides of the image are multiples of this, so that all coarser rasters tile it exactly."""
LOWRES_FACTOR = 8
"""Image pixels to one pixel of the low-resolution image, along one side."""
OUTLINE_WAVES = 4
OUTLINE_SD = 0.05
OUTLINE_POINTS = 721
"""Number of harmonics of the tissue's outline, the sd of their relative amplitude, points of the polygon."""

FIELD_UM = 130.0
DOMAIN_CONTRAST = 4.0
"""Length scale of the latent fields, and the sd of the softmax logits of the domains."""
PAST_THE_RIM = "nearest"
"""What a field is past the rim of its raster: nuclei stand up to half a cell of it outside."""
DISC_RINGS = 4
"""Concentric rings of points on which a field is averaged over a spot's disc."""

MORPHOLOGY_SHARE = 0.5
HIDDEN_SHARE = 0.2
"""Shares of the genes that follow the domains and the hidden field; the others are flat."""
BASELINE_SD = 0.8
MARKER_LOADING = (1.0, 2.2)
OTHER_LOADING_SD = 0.4
HIDDEN_LOADING = (0.6, 1.2)
"""Log fold changes: of a gene in the domain it marks, elsewhere, and per sd of the hidden field."""
DEPTH_LOG_SD = 0.3
TRUTH_TOTAL = 10_000.0
"""Total of the expected counts of one spot in `layers["truth"]`."""

MIN_SPOTS = 20
MIN_GENES = 10
KINDS = ("morphology", "hidden", "flat")
PREFIXES = {"morphology": "MORPH", "hidden": "HIDDEN", "flat": "FLAT"}
GENES_STREAM, PATIENT_STREAM, SLIDE_STREAM = range(3)
"""Branches of the seed: what all slides share, what a patient's slides share, what a slide has for itself."""


@dataclass(frozen=True)
class Genes:
    """What all slides share: the genes, and what moves their log mean."""

    names: list[str]
    kinds: NDArray[np.str_]
    baseline: Doubles
    loadings: Doubles
    hidden_loadings: Doubles


@dataclass(frozen=True)
class Patient:
    """What the slides of one patient share."""

    name: str
    stain: Stain
    batch: Doubles


class Sampling(TypedDict):
    """How counts are drawn from expected proportions; see :func:`simulated`."""

    depth: float
    dispersion: float
    seed: int


@dataclass(frozen=True)
class Layout:
    """Spots of one slide (grid row and column, pixel centre) and its tissue on the ground raster."""

    row: NDArray[np.intp]
    col: NDArray[np.intp]
    xy: Doubles
    tissue: NDArray[np.bool_]


def simulated(
    n_slides: int = 4,
    *,
    n_patients: int = 2,
    n_spots: int = 300,
    n_genes: int = 200,
    n_domains: int = 5,
    depth: float = 5000.0,
    dispersion: float = 0.1,
    batch_effect: float = 0.3,
    stain_effect: float = 0.2,
    cells: bool = False,
    seed: int = 0,
) -> list[AnnData]:
    """Simulate H&E slides with spatial gene expression whose truth is known.

    Parameters
    ----------
    n_slides
        Number of slides. They go to the patients in turn: P1S1, P2S1, P1S2, ...
    n_patients
        Number of patients, at most `n_slides`.
    n_spots
        Number of spots on the tissue, the same on each slide; at least 20.
        The outline differs by slide and is scaled until it holds exactly this many.
    n_genes
        Number of genes: half follow the domains, a fifth a hidden field, the others nothing; at least 10.
    n_domains
        Number of tissue domains, 2 to 5, in the order tumour, stroma, fat, lymphocytes, ducts.
    depth
        Expected total count of a spot.
    dispersion
        Excess variance of a count in units of its squared mean; 0 gives Poisson counts.
    batch_effect
        Standard deviation over the genes of a patient's shift of the log mean.
    stain_effect
        Standard deviation over the patients of the log concentration of either dye.
        The hue of the dyes and the brightness vary in proportion.
    cells
        Return cells instead of spots: one for each nucleus that the image shows. Image, fields, genes and patients are those
        of the spots of the same arguments.
    seed
        Seed. A slide depends on it and on its own patient and place, not on `n_slides` or `n_patients`.

    Returns
    -------
    One AnnData of spots x genes a slide, with

    - `X`: counts, CSR, float32;
    - `obs`: `array_row`, `array_col` (Visium's grid), `in_tissue`, `slide`, `patient`, `domain` (the largest),
      `truth_hidden` (the hidden field, unit sd), `truth_depth` (the expected total of the spot);
    - `var`: `truth_kind`, one of morphology, hidden, flat;
    - `obsm["spatial"]`: spot centres (x, y), pixels of the full-resolution image;
    - `obsm["truth_domains"]`: share of each domain, mean over the spot's disc;
    - `layers["truth"]`: log1p of the expected counts per 10,000, without depth and noise, with the batch effect;
    - `uns["spatial"][slide]`: as scanpy has it; `hires` is the full-resolution image (0.8 um per pixel);
    - `uns["truth"]`: domain names, `loadings` (genes x domains), `hidden_loadings`, `baseline`, `batch`
      (each by gene), the patient's `stain`, the arguments `dispersion`, `depth` and `seed`, and the fields
      (:func:`simulated_truth` gives the expression at any place).

    With `cells`, cells x genes: `obs` has no array, but `nucleus` (what it looks like), `area_um2` (of the nucleus) and `spot`
    (name of the spot of 55 um in which it lies, empty between the spots); what is said of a spot's disc holds of the
    cell's centre.

    Raises
    ------
    ValueError
        If an argument is out of its range.

    Notes
    -----
    The log mean of gene g in spot i of patient p is ``baseline_g + batch_pg`` plus, for morphology genes,
    ``sum_d loading_gd share_id``, and for hidden genes ``loading_g hidden_i``. A softmax within each kind of gene
    gives proportions; a kind's total is fixed, so that flat genes do not mirror the others.
    Counts are negative binomial (gamma-Poisson) with a log-normal depth (sd 0.3).
    The expected total of a cell is `depth` over the mean number of cells in a spot, so that cells that are added up are as
    deep as spots. Shares are a softmax of Gaussian random fields; the hidden field is one more, made uncorrelated with the
    shares on each slide, since over a finite slide two smooth fields correlate by chance.

    Examples
    --------
    >>> from spahgc.datasets import simulated
    >>> slides = simulated(2, n_spots=40, n_genes=20)
    >>> [slide.shape for slide in slides]
    [(40, 20), (40, 20)]
    """
    _check_sizes(n_slides, n_patients, n_spots, n_genes, n_domains, seed)
    _check_effects(depth, dispersion, batch_effect, stain_effect)
    genes = _draw_genes(n_genes, n_domains, _stream(seed, GENES_STREAM))
    patients = [_draw_patient(index, n_genes, batch_effect, stain_effect, seed) for index in range(n_patients)]
    sampling: Sampling = {"depth": float(depth), "dispersion": float(dispersion), "seed": int(seed)}
    slides = []
    for index in range(n_slides):
        place, patient = divmod(index, n_patients)
        branch = np.random.SeedSequence(seed, spawn_key=(SLIDE_STREAM, patient, place))
        name = f"{patients[patient].name}S{place + 1}"
        drawn = _draw_picture(name, n_spots, genes, patients[patient], branch)
        slides.append((_draw_cells if cells else _draw_spots)(drawn, genes, patients[patient], sampling))
    return slides


def simulated_truth(
    adata: AnnData, *, points: NDArray[np.floating] | None = None, diameter_um: float = 0.0
) -> pd.DataFrame:
    """Compute the expected expression of a simulated slide at any place, at any resolution.

    Parameters
    ----------
    adata
        A slide of :func:`simulated`, of spots or cells.
    points
        Places (x, y), points x 2, pixels of the image; ``None`` takes those of the slide itself.
    diameter_um
        Diameter of the disc over which the fields are averaged, microns; 0 is the point itself.

    Returns
    -------
    Points x genes, log1p of the expected counts per 10,000, as in ``layers["truth"]``.

    Raises
    ------
    KeyError
        If it is no simulated slide, or genes were renamed.
    ValueError
        If points are not (x, y) or not finite, or the diameter is negative.

    Examples
    --------
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> sp.datasets.simulated_truth(slide, points=[[400.0, 300.0]]).shape
    (1, 20)
    """
    truth = adata.uns.get("truth", {})
    if "field" not in truth:
        raise KeyError('uns["truth"] has no fields: pass a slide of spahgc.datasets.simulated.')
    missing = [gene for gene in adata.var_names if gene not in set(map(str, truth["genes"]))]
    if missing:
        raise KeyError(f"genes {quoted(missing)} are none of those that were simulated. Keep their names.")
    xy = np.asarray(adata.obsm["spatial"] if points is None else points, dtype=np.float64)
    if xy.ndim != 2 or xy.shape[1] != 2 or not np.isfinite(xy).all():
        raise ValueError(
            f"points are of shape {xy.shape}; pass finite numbers, points x 2, (x, y) in pixels of the image"
        )
    if not (np.isfinite(diameter_um) and diameter_um >= 0):
        raise ValueError(f"diameter_um={diameter_um!r}; pass microns of at least 0")
    shares = _shares(truth["field"], xy, diameter_um / MPP_UM)
    hidden = _under_spots(truth["hidden_field"], xy, diameter_um / MPP_UM) - shares @ np.asarray(
        truth["hidden_explained"]
    )
    expected = _expected(
        np.asarray(truth["baseline"]),
        np.asarray(truth["batch"]),
        (np.asarray(truth["loadings"]), np.asarray(truth["hidden_loadings"])),
        np.array([str(kind) for kind in truth["kinds"]]),
        (shares, hidden / float(truth["hidden_sd"])),
    )
    whole = pd.DataFrame(np.log1p(TRUTH_TOTAL * expected), columns=[str(gene) for gene in truth["genes"]])
    return whole[list(adata.var_names)]


def _check_sizes(n_slides: int, n_patients: int, n_spots: int, n_genes: int, n_domains: int, seed: int) -> None:
    """Refuse sizes from which no cohort can be made."""
    ranges: list[tuple[str, int, int, float]] = [
        ("n_slides", n_slides, 1, np.inf),
        ("n_patients", n_patients, 1, np.inf),
        ("n_spots", n_spots, MIN_SPOTS, np.inf),
        ("n_genes", n_genes, MIN_GENES, np.inf),
        ("n_domains", n_domains, 2, len(NAMES)),
        ("seed", seed, 0, np.inf),
    ]
    for name, value, least, most in ranges:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} is {value!r}; pass a whole number")
        if not least <= value <= most:
            limit = f"at least {least}" if most == np.inf else f"{least} to {most}"
            raise ValueError(f"{name} is {value}; pass {limit}")
    if n_patients > n_slides:
        raise ValueError(
            f"n_patients is {n_patients} but n_slides is {n_slides}, so a patient would have no slide; "
            f"pass n_patients of at most {n_slides}"
        )


def _check_effects(depth: float, dispersion: float, batch_effect: float, stain_effect: float) -> None:
    """Refuse effects that are negative or not finite."""
    if not (np.isfinite(depth) and depth > 0):
        raise ValueError(f"depth is {depth}; pass a positive number of counts per spot")
    effects = {"dispersion": dispersion, "batch_effect": batch_effect, "stain_effect": stain_effect}
    for name, value in effects.items():
        if not (np.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; pass a number of at least 0")


def _stream(seed: int, *branch: int) -> np.random.Generator:
    """Open the random stream of one branch of the seed."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=branch))


def _draw_genes(n_genes: int, n_domains: int, rng: np.random.Generator) -> Genes:
    """Draw the genes' kinds, baselines and loadings; morphology genes mark the domains in turn."""
    n_morphology, n_hidden = round(MORPHOLOGY_SHARE * n_genes), round(HIDDEN_SHARE * n_genes)
    sizes = (n_morphology, n_hidden, n_genes - n_morphology - n_hidden)
    kinds = np.repeat(np.array(KINDS), sizes)
    names = [f"{PREFIXES[kind]}{i + 1:03d}" for kind, size in zip(KINDS, sizes, strict=True) for i in range(size)]
    baseline = rng.normal(0, BASELINE_SD, n_genes)
    loadings = np.zeros((n_genes, n_domains))
    marked = np.arange(n_morphology)
    loadings[:n_morphology] = rng.normal(0, OTHER_LOADING_SD, (n_morphology, n_domains))
    loadings[marked, marked % n_domains] = rng.uniform(*MARKER_LOADING, n_morphology)
    hidden_loadings = np.zeros(n_genes)
    hidden_loadings[kinds == "hidden"] = rng.uniform(*HIDDEN_LOADING, n_hidden) * rng.choice([-1, 1], n_hidden)
    return Genes(names, kinds, baseline, loadings, hidden_loadings)


def _draw_patient(index: int, n_genes: int, batch_effect: float, stain_effect: float, seed: int) -> Patient:
    """Draw what a patient's slides share."""
    # Separate branches: the image of a patient does not change with the number of genes.
    stain = histology.draw_stain(stain_effect, _stream(seed, PATIENT_STREAM, index, 0))
    batch = batch_effect * _stream(seed, PATIENT_STREAM, index, 1).standard_normal(n_genes)
    return Patient(f"P{index + 1}", stain, batch)


@dataclass(frozen=True, eq=False)
class Picture:
    """A slide before anything was counted on it."""

    name: str
    layout: Layout
    proportions: Floats
    hidden_field: Floats
    hidden: Hidden
    image: Pixels
    nuclei: histology.Seen
    count_rng: np.random.Generator
    cell_rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class Hidden:
    """The hidden field without what the shares explain of it on the spots of a slide."""

    explained: Doubles
    """Its coefficients on the shares."""
    sd: float
    """Standard deviation of the rest over the spots."""

    def rest(self, hidden: Doubles, shares: Doubles) -> Doubles:
        """Its values at places of known shares."""
        return (hidden - shares @ self.explained) / self.sd


def _draw_picture(name: str, n_spots: int, genes: Genes, patient: Patient, branch: np.random.SeedSequence) -> Picture:
    """Draw outline, fields and image of a slide, each from its own stream."""
    outline_rng, field_rng, image_rng, count_rng, cell_rng = (np.random.default_rng(child) for child in branch.spawn(5))
    layout = _draw_layout(n_spots, outline_rng)
    proportions, hidden_field = _draw_fields(layout, genes.loadings.shape[1], field_rng)
    image, nuclei = histology.draw_image(proportions, layout.tissue, patient.stain, image_rng)
    shares = _shares(proportions, layout.xy, SPOT_DIAMETER_PX)
    hidden = _unexplained(_under_spots(hidden_field, layout.xy, SPOT_DIAMETER_PX), shares)
    return Picture(name, layout, proportions, hidden_field, hidden, image, nuclei, count_rng, cell_rng)


def _draw_spots(drawn: Picture, genes: Genes, patient: Patient, sampling: Sampling) -> AnnData:
    """Count the genes of the spots."""
    layout, name = drawn.layout, drawn.name
    shares = _shares(drawn.proportions, layout.xy, SPOT_DIAMETER_PX)
    hidden = drawn.hidden.rest(_under_spots(drawn.hidden_field, layout.xy, SPOT_DIAMETER_PX), shares)
    columns: dict[str, object] = {
        "array_row": layout.row,
        "array_col": layout.col,
        "in_tissue": np.ones(len(layout.xy), dtype=np.int64),
    }
    names = [f"{name}_{row:03d}x{col:03d}" for row, col in zip(layout.row, layout.col, strict=True)]
    return _counted(
        drawn,
        Places(layout.xy, shares, hidden, columns, names, sampling["depth"]),
        genes,
        patient,
        sampling,
        drawn.count_rng,
    )


def _draw_cells(drawn: Picture, genes: Genes, patient: Patient, sampling: Sampling) -> AnnData:
    """Count the genes of the cells whose nuclei the image shows."""
    xy = drawn.nuclei.centres
    shares = _shares(drawn.proportions, xy, 0.0)
    hidden = drawn.hidden.rest(_under_spots(drawn.hidden_field, xy, 0.0), shares)
    apart, nearest = cKDTree(drawn.layout.xy).query(xy)
    in_spot = apart <= SPOT_DIAMETER_PX / 2
    rows, cols = drawn.layout.row[nearest], drawn.layout.col[nearest]
    spots = [
        f"{drawn.name}_{row:03d}x{col:03d}" if inside else ""
        for row, col, inside in zip(rows, cols, in_spot, strict=True)
    ]
    columns: dict[str, object] = {
        "nucleus": pd.Categorical(drawn.nuclei.kinds),
        "area_um2": np.pi * drawn.nuclei.radii_um**2,
        "spot": pd.Categorical(spots),
    }
    depth = sampling["depth"] * len(drawn.layout.xy) / max(int(in_spot.sum()), 1)
    names = [f"{drawn.name}_cell{number:06d}" for number in range(len(xy))]
    adata = _counted(drawn, Places(xy, shares, hidden, columns, names, depth), genes, patient, sampling, drawn.cell_rng)
    factors = adata.uns["spatial"][drawn.name]["scalefactors"]
    factors["spot_diameter_fullres"] = float(2 * np.median(drawn.nuclei.radii_um) / MPP_UM)
    return adata


@dataclass(frozen=True, eq=False)
class Places:
    """Where genes are counted, and what is true there."""

    xy: Doubles
    shares: Doubles
    hidden: Doubles
    columns: dict[str, object]
    names: list[str]
    depth: float
    """Mean total count of one."""


def _counted(
    drawn: Picture, places: Places, genes: Genes, patient: Patient, sampling: Sampling, rng: np.random.Generator
) -> AnnData:
    """Draw the counts, and write them with their truth."""
    n, shares, name = len(places.xy), places.shares, drawn.name
    expected = _expected_proportions(genes, patient, shares, places.hidden)
    depth = places.depth * np.exp(rng.normal(-(DEPTH_LOG_SD**2) / 2, DEPTH_LOG_SD, n))
    counts = _draw_counts(expected * depth[:, None], sampling["dispersion"], rng)

    domains = list(NAMES[: shares.shape[1]])
    obs = pd.DataFrame(
        {
            **places.columns,
            "slide": pd.Categorical([name] * n),
            "patient": pd.Categorical([patient.name] * n),
            "domain": pd.Categorical([domains[index] for index in shares.argmax(1)], categories=domains),
            "truth_hidden": places.hidden,
            "truth_depth": depth,
        },
        index=places.names,
    )
    var = pd.DataFrame({"truth_kind": pd.Categorical(genes.kinds, categories=list(KINDS))}, index=genes.names)
    adata = AnnData(csr_matrix(counts.astype(np.float32)), obs=obs, var=var)
    adata.obsm["spatial"] = places.xy
    adata.obsm["truth_domains"] = shares.astype(np.float32)
    adata.layers["truth"] = np.log1p(TRUTH_TOTAL * expected).astype(np.float32)
    adata.uns["spatial"] = {name: _spatial(drawn.image, sampling["seed"])}
    adata.uns["truth"] = {
        **_truth(domains, genes, patient, sampling),
        "field": drawn.proportions,
        "hidden_field": drawn.hidden_field,
        "hidden_explained": drawn.hidden.explained,
        "hidden_sd": drawn.hidden.sd,
        "genes": np.array(genes.names),
        "kinds": genes.kinds.copy(),
    }
    return adata


def _draw_layout(n_spots: int, rng: np.random.Generator) -> Layout:
    """Lay the hexagonal grid over a smooth blob, scaled so that exactly `n_spots` of its spots are inside."""
    waves = np.arange(2, 2 + OUTLINE_WAVES)
    amplitude, phase = rng.normal(0, OUTLINE_SD, OUTLINE_WAVES), rng.uniform(0, 2 * np.pi, OUTLINE_WAVES)
    turns = np.linspace(-np.pi, np.pi, OUTLINE_POINTS)
    radii = 1 + (amplitude * np.cos(waves * turns[:, None] + phase)).sum(1)

    row_step = SPOT_PITCH_PX * np.sqrt(3) / 2
    # Twice the radius of a disc with this many spots holds any outline of these amplitudes.
    reach = 2 * int(np.ceil(np.sqrt(n_spots))) + 2
    row, col = np.nonzero((np.indices((2 * reach, 4 * reach)).sum(0) % 2) == 0)
    xy = np.column_stack([col * SPOT_PITCH_PX / 2, row * row_step])
    # A random centre keeps the outlines of two slides from cutting the grid alike.
    delta = xy - (xy.mean(0) + rng.uniform(-0.5, 0.5, 2) * SPOT_PITCH_PX)
    level = np.hypot(delta[:, 0], delta[:, 1]) / np.interp(np.arctan2(delta[:, 1], delta[:, 0]), turns, radii)
    # The order of the grid is kept, so spots come row by row.
    kept = np.sort(np.argsort(level, kind="stable")[:n_spots])
    row, col, delta, scale = row[kept], col[kept], delta[kept], level[kept].max()
    row_origin = row.min() - row.min() % 2
    col_origin = col.min() - col.min() % 2

    shift = MARGIN_PX - delta.min(0)
    xy = np.round(delta + shift, 3)
    height, width = (int(np.ceil((xy[:, i].max() + MARGIN_PX) / SIDE_MULTIPLE_PX)) * SIDE_MULTIPLE_PX for i in (1, 0))
    ys, xs = np.indices((height // GROUND_PX, width // GROUND_PX)) * GROUND_PX + (GROUND_PX - 1) / 2
    dx, dy = xs - shift[0], ys - shift[1]
    edge = scale * np.interp(np.arctan2(dy, dx), turns, radii)
    # Half a spot beyond the outermost centre, so that the last spots lie on tissue altogether.
    tissue = np.hypot(dx, dy) <= edge + SPOT_DIAMETER_PX / 2
    return Layout(row - row_origin, col - col_origin, xy, tissue)


def _draw_fields(layout: Layout, n_domains: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw the domain proportions and the hidden field on the field raster."""
    ratio = FIELD_CELL_PX // GROUND_PX
    tissue = layout.tissue[::ratio, ::ratio]
    scale = FIELD_UM / (FIELD_CELL_PX * MPP_UM)

    def field() -> Floats:
        # Standardised on the tissue, so that each domain has its part of each slide.
        values = histology.smooth_noise(tissue.shape, scale, rng)
        return (values - values[tissue].mean()) / values[tissue].std()

    logits = DOMAIN_CONTRAST * np.stack([field() for _ in range(n_domains)])
    weights = np.exp(logits - logits.max(0))
    return weights / weights.sum(0), field()


def _shares(field: Floats, xy: Doubles, diameter_px: float) -> Doubles:
    """Shares of the domains under discs, which sum to 1."""
    shares = np.column_stack([_under_spots(share, xy, diameter_px) for share in field])
    return np.asarray(shares / shares.sum(1, keepdims=True))


def _under_spots(field: Floats, xy: Doubles, diameter_px: float) -> Doubles:
    """Mean of a field over discs around places; without a diameter its value there."""
    # Ring k of 1..n holds 6k - 3 points at radius (k - 1/2)/n: nearly equal areas.
    rings = [
        ((ring - 0.5) / DISC_RINGS, 2 * np.pi * np.arange(6 * ring - 3) / (6 * ring - 3))
        for ring in range(1, DISC_RINGS + 1)
    ]
    disc = np.concatenate([radius * np.column_stack([np.cos(turn), np.sin(turn)]) for radius, turn in rings])
    if diameter_px == 0:
        disc = np.zeros((1, 2))
    points = xy[:, None, :] + disc * diameter_px / 2
    # Cell i of the field covers pixels 8 i to 8 i + 7, so its centre is at pixel 8 i + 3.5.
    cells = (points - (FIELD_CELL_PX - 1) / 2) / FIELD_CELL_PX
    values = map_coordinates(field, [cells[..., 1], cells[..., 0]], order=1, output=np.float64, mode=PAST_THE_RIM)
    return np.asarray(values).mean(1)


def _unexplained(hidden: Doubles, shares: Doubles) -> Hidden:
    """What the shares explain of the hidden field linearly, and the sd of the rest."""
    # The shares sum to one, so they hold the intercept.
    explained = np.asarray(np.linalg.lstsq(shares, hidden, rcond=None)[0], dtype=np.float64)
    return Hidden(explained, float((hidden - shares @ explained).std()))


def _expected_proportions(genes: Genes, patient: Patient, shares: Doubles, hidden: Doubles) -> Doubles:
    """Compute each gene's expected share of a spot's counts; a kind's total is the same everywhere."""
    loadings = (genes.loadings, genes.hidden_loadings)
    return _expected(genes.baseline, patient.batch, loadings, genes.kinds, (shares, hidden))


def _expected(
    baseline: Doubles,
    batch: Doubles,
    loadings: tuple[Doubles, Doubles],
    kinds: NDArray[np.str_],
    fields: tuple[Doubles, Doubles],
) -> Doubles:
    """The same of plain arrays: loadings on, and values of, the domains and the hidden field."""
    (on_domains, on_hidden), (shares, hidden) = loadings, fields
    expected = np.exp(baseline + batch + shares @ on_domains.T + hidden[:, None] * on_hidden)
    weight = np.exp(baseline)
    for kind in KINDS:
        of_kind = kinds == kind
        total = expected[:, of_kind].sum(1, keepdims=True)
        expected[:, of_kind] *= weight[of_kind].sum() / weight.sum() / total
    return expected


def _draw_counts(mean: Doubles, dispersion: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw negative-binomial counts (variance: mean + dispersion x mean squared)."""
    if dispersion > 0:
        mean = mean * rng.gamma(1 / dispersion, dispersion, mean.shape)
    return rng.poisson(mean)


def _spatial(image: Pixels, seed: int) -> dict[str, object]:
    """Make scanpy's record of one slide's images."""
    height, width, channels = image.shape
    blocks = image.reshape(height // LOWRES_FACTOR, LOWRES_FACTOR, width // LOWRES_FACTOR, LOWRES_FACTOR, channels)
    lowres = np.rint(blocks.mean((1, 3), dtype=np.float32)).astype(np.uint8)
    return {
        "images": {"hires": image, "lowres": lowres},
        "scalefactors": {
            "tissue_hires_scalef": 1.0,
            "tissue_lowres_scalef": 1.0 / LOWRES_FACTOR,
            "spot_diameter_fullres": SPOT_DIAMETER_PX,
            "fiducial_diameter_fullres": FIDUCIAL_DIAMETER_UM / MPP_UM,
            "microns_per_pixel": MPP_UM,
        },
        "metadata": {"source": "spahgc.datasets.simulated", "seed": int(seed)},
    }


def _truth(domains: list[str], genes: Genes, patient: Patient, sampling: Sampling) -> dict[str, object]:
    """Record what a slide was made from, in types that survive a write."""
    return {
        "domains": np.array(domains),
        "loadings": genes.loadings.copy(),
        "hidden_loadings": genes.hidden_loadings.copy(),
        "baseline": genes.baseline.copy(),
        "batch": patient.batch.copy(),
        "stain": {part: values.copy() for part, values in vars(patient.stain).items()},
        **sampling,
    }
