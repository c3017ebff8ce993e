"""Draws an H&E-like image of a field of tissue domains.

Two density images (haematoxylin, eosin) are painted and then turned into colours by the Beer-Lambert law.
Grounds (collagen, cytoplasm, vacuoles, ducts) are painted at half resolution, nuclei stamped at full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree
from scipy.special import ndtr

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
Labels = NDArray[np.int8]
Pixels = NDArray[np.uint8]

MPP_UM = 0.8
"""Resolution of the image, um per pixel."""
GROUND_PX = 2
"""Side of one cell of the raster on which grounds are painted, image pixels."""
FIELD_CELL_PX = 8
"""Side of one cell of the raster on which the latent fields live, image pixels."""
GROUND_UM = GROUND_PX * MPP_UM
OUTSIDE = -1
DUCT_WALL = -2
DUCT_LUMEN = -3
"""Labels of the background glass, and of places that a duct has taken, where nothing else is put."""

WHITE_LEVEL = 244.0
"""Mean grey level of the bare glass, of 255."""
MAX_LEVEL = 255.0
GRAIN_LEVELS = 2.0
"""Standard deviation of the camera noise, grey levels."""
HAEMATOXYLIN_RGB = (0.60, 0.74, 0.31)
EOSIN_RGB = (0.15, 0.86, 0.49)
"""Absorption of each stain in red, green and blue (length close to 1)."""
VECTOR_SHARE = 0.5
WHITE_SHARE = 0.12
"""How much of the stain effect (sd of log concentration) goes to the stain vectors and to the brightness."""

PATCHINESS_UM = 16.0
"""Length scale of the islands by which domains interleave where they mix."""
THICKNESS_UM = 200.0
THICKNESS_SD = 0.08
"""Length scale and relative sd of the slow variation of the section's thickness."""
TEXTURE_UM = 2.4
TEXTURE_SD = 0.16
"""Length scale and relative sd of the granularity of cytoplasm and matrix."""
EDGE_UM = 1.6
"""Blur of the border between two grounds."""

FIBRE_UM = 3.2
"""Width of a collagen fibre."""
FIBRE_BEND_UM = (150.0, 170.0)
FIBRE_WAVE_UM = (22.0, 12.0)
"""Length scale and amplitude of the slow bend of the fibres and of their waves."""
FIBRE_CONTRAST = 0.38
CLEFT_SD = 1.25
"""Fibres this many sd below the mean are drawn as white clefts between bundles."""
CLEFT_LEFT = 0.2
"""Share of the eosin left in a cleft."""

VACUOLE_UM = 62.0
"""Distance between the centres of two fat cells."""
VACUOLE_WALL_UM = 3.0
VACUOLE_WALL_EOSIN = 0.62

DUCT_SPACING_UM = 96.0
DUCT_RADIUS_UM = (32.0, 43.0)
DUCT_WALL_UM = 15.0
DUCT_WALL_EOSIN = 0.42
DUCT_WALL_HAEMATOXYLIN = 0.30
DUCT_LUMEN_EOSIN = 0.03
DUCT_WOBBLE = 0.10
"""Relative amplitude by which a duct departs from a circle."""
DUCT_NUCLEUS_DEPTH_UM = 9.0
DUCT_NUCLEUS_SPACING_UM = 6.6

LATTICE_JITTER = 0.32
"""Displacement of a cell from its lattice point, in units of the spacing (uniform half-width)."""
N_KERNELS = 48
"""Nuclei drawn in advance per domain, one for each orientation."""
KERNEL_EDGE_UM = 0.45
CHROMATIN_UM = 0.9
MEMBRANE = 0.35
"""Extra darkness of the rim of a nucleus."""
NUCLEUS_SIZE_SD = 0.14
NUCLEUS_DARKNESS_SD = 0.16
NUCLEUS_EOSIN_LEFT = 0.35
"""Share of the eosin left inside a nucleus."""


@dataclass(frozen=True)
class Domain:
    """What one kind of tissue looks like: optical densities of its ground, and its nuclei."""

    name: str
    eosin: float
    haematoxylin: float
    nucleus_spacing_um: float
    nucleus_radii_um: tuple[float, float]
    nucleus_darkness: float
    chromatin_sd: float
    fibrous: bool = False


DOMAINS = (
    Domain("tumour", 0.60, 0.18, 13.6, (5.6, 4.4), 1.10, 0.32),
    Domain("stroma", 0.62, 0.06, 25.0, (6.6, 1.5), 1.15, 0.15, fibrous=True),
    Domain("fat", 0.02, 0.00, 60.0, (4.0, 1.3), 1.20, 0.10),
    Domain("lymphocytes", 0.17, 0.16, 7.4, (2.9, 2.6), 1.75, 0.25),
    Domain("ducts", 0.44, 0.06, 30.0, (4.4, 2.5), 1.35, 0.20, fibrous=True),
)
"""The known domains; a cohort of n domains has the first n."""
NAMES = tuple(domain.name for domain in DOMAINS)
FAT = NAMES.index("fat")
DUCTS = NAMES.index("ducts")


@dataclass(frozen=True)
class Stain:
    """Absorption (RGB, natural optical density per unit of dye) of both dyes, and the grey levels of bare glass."""

    haematoxylin: Floats
    eosin: Floats
    white: Floats


@dataclass
class Canvas:
    """Densities of both dyes on the ground raster, and the labels from which they were painted."""

    haematoxylin: Floats
    eosin: Floats
    labels: Labels


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of one look: centres (x, y) in ground cells, and the angle of their long axis in radians."""

    domain: Domain
    centres: Points
    angles: Points


@dataclass(frozen=True)
class Seen:
    """The nuclei that an image shows."""

    centres: Points
    """(x, y), image pixels."""
    kinds: NDArray[np.str_]
    """Name of the domain whose nuclei look like each."""
    radii_um: Points
    """Radius of a circle of its area, um."""


def draw_stain(effect: float, rng: np.random.Generator) -> Stain:
    """Draw one patient's stain; `effect` is the sd of the log concentration of either dye."""
    strength = np.exp(effect * rng.standard_normal(2))
    vectors = np.array([HAEMATOXYLIN_RGB, EOSIN_RGB])
    vectors = vectors * np.exp(VECTOR_SHARE * effect * rng.standard_normal(vectors.shape))
    vectors *= (strength / np.linalg.norm(vectors, axis=1))[:, None]
    white = WHITE_LEVEL * np.exp(-WHITE_SHARE * effect * np.abs(rng.standard_normal(3)))
    return Stain(vectors[0].astype(np.float32), vectors[1].astype(np.float32), white.astype(np.float32))


def draw_image(
    proportions: Floats, tissue: NDArray[np.bool_], stain: Stain, rng: np.random.Generator
) -> tuple[Pixels, Seen]:
    """Draw a slide.

    `proportions` is domains x rows x columns of the field raster (`FIELD_CELL_PX` image pixels a cell), `tissue` says
    where there is tissue on the ground raster (`GROUND_PX` image pixels a cell). Beside the image: the nuclei in it.
    """
    labels = _labels(proportions, rng)
    labels[~tissue] = OUTSIDE
    fibres, angle = _fibres(labels.shape, rng)
    canvas = _grounds(labels, fibres, rng)
    nuclei = _ducts(canvas, rng) + _fat(canvas, rng) + _scattered(canvas, angle, proportions.shape[0], rng)
    for dye in (canvas.haematoxylin, canvas.eosin):
        gaussian_filter(dye, EDGE_UM / GROUND_UM / 2, output=dye)
    haematoxylin, eosin = (_finer(dye, GROUND_PX) for dye in (canvas.haematoxylin, canvas.eosin))
    stamped = [_stamp(haematoxylin, eosin, group, rng) for group in nuclei]
    return _colours(haematoxylin, eosin, stain, rng), _seen(nuclei, stamped)


def smooth_noise(shape: tuple[int, ...], scale: float, rng: np.random.Generator) -> Floats:
    """Draw a Gaussian random field of unit variance; `scale` is the sd of its kernel, in cells."""
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), scale, mode="wrap")
    return (field - field.mean()) / field.std()


def _finer(raster: Floats, ratio: int) -> Floats:
    """Bring a raster to one with `ratio` times as many cells along each side."""
    return zoom(raster, ratio, order=1, grid_mode=True, mode="nearest")


def _labels(proportions: Floats, rng: np.random.Generator) -> Labels:
    """Give each ground cell one domain, drawn with the probabilities of the field in small coherent islands."""
    # Gumbel-max: the argmax of log p + Gumbel noise is a draw from p; smooth noise makes the draws coherent.
    ratio = FIELD_CELL_PX // GROUND_PX
    scale = PATCHINESS_UM / (FIELD_CELL_PX * MPP_UM)
    best: Floats | None = None
    labels: Labels | None = None
    for index, share in enumerate(proportions):
        uniform = np.clip(ndtr(smooth_noise(share.shape, scale, rng)), 1e-6, 1 - 1e-6)
        score = np.log(np.maximum(share, 1e-12)) - np.log(-np.log(uniform))
        fine = _finer(score.astype(np.float32), ratio)
        if best is None or labels is None:
            best, labels = fine, np.zeros(fine.shape, np.int8)
            continue
        labels[fine > best] = index
        np.maximum(best, fine, out=best)
    if labels is None:
        raise ValueError("proportions hold no domain; pass at least one")
    return labels


def _fibres(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Draw wavy bundles: their profile (unit sd) and the angle along which they run, on the ground raster."""
    ratio = FIELD_CELL_PX // GROUND_PX
    coarse = (shape[0] // ratio, shape[1] // ratio)
    cell_um = FIELD_CELL_PX * MPP_UM
    rows, cols = np.indices(coarse, dtype=np.float32) * cell_um
    direction = rng.uniform(0, 2 * np.pi)
    # A fibre is an isoline of `across`: a plane, bent slowly and waved quickly by two random fields.
    across = rows * np.sin(direction) + cols * np.cos(direction)
    for scale_um, amplitude_um in (FIBRE_BEND_UM, FIBRE_WAVE_UM):
        across = across + amplitude_um * smooth_noise(coarse, scale_um / cell_um, rng)
    along_y, along_x = np.gradient(across)
    angle = np.arctan2(-along_x, along_y).astype(np.float32)
    step_um = FIBRE_UM / 4
    fine = _finer(across.astype(np.float32), ratio)
    index = ((fine - fine.min()) / step_um).astype(np.int32)
    profile = smooth_noise((int(index.max()) + 1,), FIBRE_UM / 2 / step_um, rng)
    # Bundles end: noise beside the profile keeps one fibre from crossing the whole slide.
    ends = smooth_noise(shape, 2 * FIBRE_UM / GROUND_UM, rng)
    return 0.8 * profile[index] + 0.6 * ends, angle


def _grounds(labels: Labels, fibres: Floats, rng: np.random.Generator) -> Canvas:
    """Paint every domain's ground with texture, fibres and the slow variation of thickness."""
    eosin_of = np.array([domain.eosin for domain in DOMAINS] + [0.0], np.float32)
    haematoxylin_of = np.array([domain.haematoxylin for domain in DOMAINS] + [0.0], np.float32)
    fibrous = np.array([domain.fibrous for domain in DOMAINS] + [False])[labels]
    collagen = np.where(fibres < -CLEFT_SD, CLEFT_LEFT, np.clip(1 + FIBRE_CONTRAST * fibres, 0.3, None))
    texture = 1 + TEXTURE_SD * smooth_noise(labels.shape, TEXTURE_UM / GROUND_UM, rng)
    ratio = FIELD_CELL_PX // GROUND_PX
    slow = smooth_noise((labels.shape[0] // ratio, labels.shape[1] // ratio), THICKNESS_UM / GROUND_UM / ratio, rng)
    common = np.clip(texture * (1 + THICKNESS_SD * _finer(slow, ratio)), 0.2, None)
    # The last entry of each table is the glass, since OUTSIDE indexes from the end.
    eosin = eosin_of[labels] * common * np.where(fibrous, collagen, 1)
    haematoxylin = haematoxylin_of[labels] * common
    return Canvas(haematoxylin.astype(np.float32), eosin.astype(np.float32), labels.copy())


def _lattice(shape: tuple[int, ...], spacing: float, rng: np.random.Generator) -> Points:
    """Lay a jittered hexagonal lattice of points (x, y) over a raster; `spacing` in cells."""
    row_step = spacing * np.sqrt(3) / 2
    rows, cols = np.indices((int(shape[0] / row_step) + 1, int(shape[1] / spacing) + 1))
    points = np.stack([(cols + (rows % 2) / 2) * spacing, rows * row_step], axis=-1).reshape(-1, 2)
    points = points + rng.uniform(-LATTICE_JITTER, LATTICE_JITTER, points.shape) * spacing
    inside = (points >= 0).all(1) & (points[:, 0] <= shape[1] - 1) & (points[:, 1] <= shape[0] - 1)
    return points[inside]


def _at(raster: NDArray[np.generic], points: Points) -> NDArray[np.generic]:
    """Values of a raster at points (x, y) given in its cells."""
    cells = points.astype(np.intp)
    return raster[cells[:, 1], cells[:, 0]]


def _fat(canvas: Canvas, rng: np.random.Generator) -> list[Nuclei]:
    """Paint fat cells, thin walls halfway between neighbouring centres, and place flat nuclei on the walls."""
    rows, cols = np.nonzero(canvas.labels == FAT)
    centres = _lattice(canvas.labels.shape, VACUOLE_UM / GROUND_UM, rng)
    if rows.size == 0 or len(centres) < 2:
        return []
    pixels = np.column_stack([cols, rows]).astype(np.float64)
    # The nearest two centres decide whether a pixel lies on a wall; half the difference is its distance to it.
    distance, nearest = cKDTree(centres).query(pixels, k=2)
    gap_um = (distance[:, 1] - distance[:, 0]) / 2 * GROUND_UM
    wall = np.exp(-((gap_um / (VACUOLE_WALL_UM / 2)) ** 2))
    canvas.eosin[rows, cols] += (VACUOLE_WALL_EOSIN * wall).astype(np.float32)
    on_wall = np.flatnonzero(gap_um < GROUND_UM / 2)
    area_um2 = rows.size * GROUND_UM**2
    count = min(len(on_wall), int(area_um2 / DOMAINS[FAT].nucleus_spacing_um ** 2))
    chosen = rng.choice(on_wall, count, replace=False)
    between = centres[nearest[chosen, 1]] - centres[nearest[chosen, 0]]
    angles = np.arctan2(between[:, 1], between[:, 0]) + np.pi / 2
    return [Nuclei(DOMAINS[FAT], pixels[chosen], angles)]


def _ducts(canvas: Canvas, rng: np.random.Generator) -> list[Nuclei]:
    """Paint ducts, an empty lumen within a wall, and place a ring of nuclei that point at the lumen."""
    labels = canvas.labels
    if not (labels == DUCTS).any():
        return []
    centres = _lattice(labels.shape, DUCT_SPACING_UM / GROUND_UM, rng)
    centres = centres[_at(labels, centres) == DUCTS]
    places, angles = [np.empty((0, 2))], [np.empty(0)]
    for centre in centres:
        mean_um, phase = rng.uniform(*DUCT_RADIUS_UM), rng.uniform(0, 2 * np.pi, 2)
        _duct_wall(canvas, centre, mean_um, phase)
        ring_um = mean_um - DUCT_NUCLEUS_DEPTH_UM
        turn = np.arange(0, 2 * np.pi, DUCT_NUCLEUS_SPACING_UM / ring_um)
        turn = turn + rng.normal(0, LATTICE_JITTER / 4, turn.size)
        radius = (mean_um * _wobble(turn, phase) - DUCT_NUCLEUS_DEPTH_UM + rng.normal(0, 1.0, turn.size)) / GROUND_UM
        places.append(centre + radius[:, None] * np.column_stack([np.cos(turn), np.sin(turn)]))
        angles.append(turn)
    where, angle = np.concatenate(places), np.concatenate(angles)
    inside = (where >= 0).all(1) & (where < np.array(labels.shape[::-1])).all(1)
    where, angle = where[inside], angle[inside]
    # Asked once all ducts are painted: where two overlap, no nucleus may float in the other's lumen.
    on_wall = _at(labels, where) == DUCT_WALL
    return [Nuclei(DOMAINS[DUCTS], where[on_wall], angle[on_wall])]


def _wobble(turn: NDArray[np.floating], phase: Points) -> NDArray[np.floating]:
    """Relative radius of a duct in the direction `turn`."""
    return 1 + DUCT_WOBBLE * (np.cos(2 * turn + phase[0]) + 0.5 * np.cos(3 * turn + phase[1]))


def _duct_wall(canvas: Canvas, centre: Points, mean_um: float, phase: Points) -> None:
    """Paint one duct's wall and lumen, and mark them as the duct's, so that no other cell is put there."""
    reach = int(mean_um * (1 + 2 * DUCT_WOBBLE) / GROUND_UM) + 1
    x, y = (int(value) for value in centre)
    rows = slice(max(y - reach, 0), y + reach + 1)
    cols = slice(max(x - reach, 0), x + reach + 1)
    labels = canvas.labels[rows, cols]
    dy, dx = np.ogrid[rows.start : rows.start + labels.shape[0], cols.start : cols.start + labels.shape[1]]
    dy, dx = dy - centre[1], dx - centre[0]
    depth_um = mean_um * _wobble(np.arctan2(dy, dx), phase) - np.hypot(dx, dy) * GROUND_UM
    tissue = labels != OUTSIDE
    lumen = tissue & (depth_um > DUCT_WALL_UM)
    wall = tissue & (depth_um > 0) & ~lumen
    for dye, in_wall, in_lumen in (
        (canvas.eosin, DUCT_WALL_EOSIN, DUCT_LUMEN_EOSIN),
        (canvas.haematoxylin, DUCT_WALL_HAEMATOXYLIN, 0.0),
    ):
        dye[rows, cols][wall] = in_wall
        dye[rows, cols][lumen] = in_lumen
    labels[wall], labels[lumen] = DUCT_WALL, DUCT_LUMEN


def _scattered(canvas: Canvas, fibre_angle: Floats, n_domains: int, rng: np.random.Generator) -> list[Nuclei]:
    """Place the nuclei that lie free in their domain, along the fibres where there are fibres."""
    ratio = FIELD_CELL_PX // GROUND_PX
    stroma = DOMAINS[NAMES.index("stroma")]
    groups = []
    for index, domain in enumerate(DOMAINS[:n_domains]):
        if index == FAT:
            continue
        centres = _lattice(canvas.labels.shape, domain.nucleus_spacing_um / GROUND_UM, rng)
        centres = centres[_at(canvas.labels, centres) == index]
        if domain.fibrous:
            angles = _at(fibre_angle, centres / ratio).astype(np.float64) + rng.normal(0, 0.2, len(centres))
        else:
            angles = rng.uniform(0, np.pi, len(centres))
        # Between the ducts lies ordinary connective tissue with its own spindle-shaped nuclei.
        groups.append(Nuclei(stroma if domain.fibrous else domain, centres, angles))
    return groups


def _kernels(domain: Domain, rng: np.random.Generator) -> list[Floats]:
    """Draw a domain's nuclei in advance, one for each of `N_KERNELS` angles between 0 and pi (peak about 1)."""
    reach = int(np.ceil(domain.nucleus_radii_um[0] * (1 + 3 * NUCLEUS_SIZE_SD) / MPP_UM)) + 1
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1] * MPP_UM
    kernels = []
    for angle in np.arange(N_KERNELS) * np.pi / N_KERNELS:
        long_um, short_um = np.array(domain.nucleus_radii_um) * np.exp(NUCLEUS_SIZE_SD * rng.standard_normal(2))
        along, beside = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        relative = np.hypot(along / long_um, beside / short_um)
        inside = 1 / (1 + np.exp(np.clip((relative - 1) * short_um / KERNEL_EDGE_UM, -30, 30) * 2))
        rim = MEMBRANE * (np.clip(relative, 0, 1) ** 4 - 0.5)
        chromatin = domain.chromatin_sd * smooth_noise(dx.shape, CHROMATIN_UM / MPP_UM, rng)
        kernels.append((inside * np.clip(1 + rim + chromatin, 0.2, None)).astype(np.float32))
    return kernels


def _seen(nuclei: list[Nuclei], stamped: list[NDArray[np.bool_]]) -> Seen:
    """The nuclei that were stamped."""
    centres = [np.rint(group.centres[fits] * GROUND_PX) for group, fits in zip(nuclei, stamped, strict=True)]
    kinds = [np.full(int(fits.sum()), group.domain.name) for group, fits in zip(nuclei, stamped, strict=True)]
    radii = [
        np.full(int(fits.sum()), np.sqrt(np.prod(group.domain.nucleus_radii_um)))
        for group, fits in zip(nuclei, stamped, strict=True)
    ]
    empty = np.empty((0, 2))
    return Seen(
        np.concatenate([empty, *centres]),
        np.concatenate([np.empty(0, str), *kinds]),
        np.concatenate([np.empty(0), *radii]),
    )


def _stamp(haematoxylin: Floats, eosin: Floats, nuclei: Nuclei, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Stamp nuclei into the full-resolution densities, and say which; those cut by the image's border are left out."""
    kernels = _kernels(nuclei.domain, rng)
    side = kernels[0].shape[0]
    corners = np.rint(nuclei.centres * GROUND_PX).astype(int) - side // 2
    which = np.rint(nuclei.angles / np.pi * N_KERNELS).astype(int) % N_KERNELS
    darkness = nuclei.domain.nucleus_darkness * np.exp(NUCLEUS_DARKNESS_SD * rng.standard_normal(len(which)))
    limit = np.array(haematoxylin.shape[::-1]) - side
    fits = ((corners >= 0) & (corners <= limit)).all(1)
    for (x, y), kind, dark in zip(corners[fits], which[fits], darkness[fits].astype(np.float32), strict=True):
        window = (slice(y, y + side), slice(x, x + side))
        kernel = kernels[kind]
        np.maximum(haematoxylin[window], kernel * dark, out=haematoxylin[window])
        eosin[window] *= 1 - (1 - NUCLEUS_EOSIN_LEFT) * np.minimum(kernel, 1)
    return np.asarray(fits)


def _colours(haematoxylin: Floats, eosin: Floats, stain: Stain, rng: np.random.Generator) -> Pixels:
    """Turn dye densities into grey levels by the Beer-Lambert law, with the camera's noise."""
    image = np.empty((*haematoxylin.shape, 3), np.uint8)
    grain = GRAIN_LEVELS * rng.standard_normal(haematoxylin.shape, dtype=np.float32)
    for channel in range(image.shape[2]):
        density = haematoxylin * stain.haematoxylin[channel] + eosin * stain.eosin[channel]
        level = stain.white[channel] * np.exp(-density) + grain
        image[..., channel] = np.clip(level, 0, MAX_LEVEL)
    return image
