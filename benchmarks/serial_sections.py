"""Simulated serial sections: a section turned, mirrored, stretched, bent, torn, with a piece lost and another stain."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

GRID_UM = 100.0
"""Distance of the places by which a registration is judged."""
PIXEL_UM = 14.0
"""Width of a pixel of the sections."""
HEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)
"""Optical densities of the dyes in red, green and blue (Ruifrok and Johnston 2001)."""


@dataclass(frozen=True)
class Source:
    """A real or simulated section of which others are made."""

    name: str
    rgb: np.ndarray
    """Its own tissue on glass, uint8, height x width x 3."""
    tissue: np.ndarray
    """Bool, height x width."""
    um: float
    """Microns a pixel."""


@dataclass(frozen=True)
class Section:
    """A serial section."""

    rgb: np.ndarray
    before: np.ndarray
    """Places (x, y) on the source, pixels, every 100 um of the tissue that is left."""
    after: np.ndarray
    """The same places on this section."""


def field(rng: np.random.Generator, shape: tuple[int, int], px: float) -> np.ndarray:
    """A smooth random field of unit variance."""
    step = max(1, int(px / 3))
    small = ndimage.gaussian_filter(
        rng.normal(size=[-(-side // step) + 2 for side in shape]), px / step, mode="reflect"
    )
    large = ndimage.zoom(small, step, order=1) if step > 1 else small
    large = large[: shape[0], : shape[1]]
    return large / large.std()


def rotation(radians: float) -> np.ndarray:
    return np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])


def sample(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(image, xy[:, ::-1].T, order=1, mode="nearest")


def serial_section(source: Source, rng: np.random.Generator, *, mirrored: bool) -> Section:
    """Any angle; up to 10 % longer along one axis; bent by 40 um; torn apart by 60 to 160 um; 5 to 15 % lost."""
    um, (height, width) = source.um, source.tissue.shape
    rows, columns = np.indices(source.tissue.shape).astype(float)
    centre = np.array([columns[source.tissue].mean(), rows[source.tissue].mean()])
    axis, stretch = rotation(rng.uniform(0, np.pi)), rng.uniform(1, 1.1)
    linear = rotation(rng.uniform(0, 2 * np.pi)) @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    linear = linear @ axis @ np.diag([stretch, stretch**-0.3]) @ axis.T
    bend = [field(rng, (height, width), 500 / um) * 40 / um / np.sqrt(2) for _ in range(2)]

    def along(direction: np.ndarray) -> np.ndarray:
        return (columns - centre[0]) * direction[0] + (rows - centre[1]) * direction[1]

    def edge() -> np.ndarray:
        return field(rng, (height, width), 150 / um) * 60 / um

    tear = rotation(rng.uniform(0, 2 * np.pi))[0]
    where = np.quantile(along(tear)[source.tissue], rng.uniform(0.3, 0.7))
    beyond = along(tear) > where + edge()
    apart, tilt, hinge = (
        rng.uniform(60, 160) / um * tear,
        rotation(np.deg2rad(rng.uniform(-2.5, 2.5))),
        centre + tear * where,
    )
    loss = rotation(rng.uniform(0, 2 * np.pi))[0]
    lost = along(loss) > np.quantile(along(loss)[source.tissue], 1 - rng.uniform(0.05, 0.15)) + edge()

    corners = (np.array([[0, 0], [width, 0], [0, height], [width, height]]) - centre) @ linear.T
    low, high = corners.min(0) - 20, corners.max(0) + 20
    out_width, out_height = np.ceil(high - low).astype(int)
    out_rows, out_columns = np.indices((out_height, out_width)).astype(float)
    flat = (np.column_stack([out_columns.ravel(), out_rows.ravel()]) + low) @ np.linalg.inv(linear).T + centre
    density = optical_density(source)
    made, done = np.zeros((len(flat), 3)), np.zeros(len(flat), dtype=bool)
    for side in (False, True):
        goal = (flat - apart - hinge) @ tilt + hinge if side else flat
        place = goal.copy()
        for _ in range(12):
            place = goal - np.column_stack([sample(part, place) for part in bend])
        inside = ((place >= 0) & (place <= [width - 1, height - 1])).all(1) & ~done
        column, row = np.rint(place).astype(int).clip(0, [width - 1, height - 1]).T
        inside &= (beyond[row, column] == side) & ~lost[row, column]
        made[inside] = np.column_stack([sample(density[..., k], place[inside]) for k in range(3)])
        done |= inside
    rgb = photographed(made.reshape(out_height, out_width, 3), um, rng)

    step = GRID_UM / um
    grid = np.stack(np.meshgrid(np.arange(0, width, step), np.arange(0, height, step)), -1).reshape(-1, 2)
    column, row = np.rint(grid).astype(int).clip(0, [width - 1, height - 1]).T
    kept = source.tissue[row, column] & ~lost[row, column]
    grid, other_side = grid[kept], beyond[row, column][kept]
    moved = grid + np.column_stack([sample(part, grid) for part in bend])
    moved = np.where(other_side[:, None], (moved - hinge) @ tilt.T + hinge + apart, moved)
    return Section(rgb, grid, (moved - centre) @ linear.T - low)


def optical_density(source: Source) -> np.ndarray:
    glass = np.median(source.rgb[~source.tissue], axis=0) if (~source.tissue).sum() > 50 else np.full(3, 240.0)
    return -np.log10(np.minimum((source.rgb.astype(float) + 5) / (glass + 5), 1))


def photographed(density: np.ndarray, um: float, rng: np.random.Generator) -> np.ndarray:
    """Other cells, another stain, another lamp, noise, JPEG."""
    shape = density.shape[:2]
    density = ndimage.gaussian_filter(density, (*[rng.uniform(12, 25) / um] * 2, 0))
    cells = np.stack([field(rng, shape, 15 / um) for _ in range(3)], -1) * 0.6 + field(rng, shape, 15 / um)[..., None]
    groups = (
        field(rng, shape, 50 / um)[..., None] * 0.7 + np.stack([field(rng, shape, 60 / um) for _ in range(3)], -1) * 0.3
    )
    tissue = ndimage.gaussian_filter((density.mean(-1) > 0.02).astype(float), 20 / um)[..., None]
    level = 0.3 * density.mean(-1, keepdims=True) + 0.02
    density = (density + level * (0.45 * cells + 0.35 * groups) * tissue).clip(0)
    dyes = np.stack([HEMATOXYLIN, EOSIN], 1)
    amount = density @ np.linalg.pinv(dyes).T
    density = (amount * rng.uniform(0.7, 1.4, 2)) @ dyes.T + density - amount @ dyes.T
    density = (density @ (np.eye(3) + rng.normal(0, 0.04, (3, 3))).T).clip(0)
    glass, light = rng.uniform(225, 250) + rng.uniform(-6, 6, 3), 1 + 0.05 * field(rng, shape, 1500 / um)[..., None]
    rgb = (glass + 5) * 10**-density * light - 5 + rng.normal(0, 2, density.shape)
    buffer = io.BytesIO()
    Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer))
