"""What a network shows of areas within a patch: means of its last map, and of its levels, over each area.

One pass through the network serves all spots of a tile then, where they lie denser than patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spahgc.encoders._encoder import Encoder, plane_statistics
from spahgc.encoders._layout import Levels
from spahgc.encoders._levels import NEEDED_METHODS, check_output

if TYPE_CHECKING:
    from torch import Tensor, nn

LAST = [-1]
"""The level whose plane is that of the last map, where no level is asked for."""
BORDER_SHARE = 1 / 16
"""Of the patch by which it is tried whether a transform keeps its borders: how wide its frame is, each side."""
FRAME, INSIDE = 255, 0
"""Pixels of that patch."""
INDEXED_ON = ("cpu", "cuda")
"""Devices that sum chosen rows of a table; on others the maps are brought to the processor."""

LEAVE_OUT = "Leave dense= out, which takes a patch a spot."


@dataclass(frozen=True, eq=False)
class Areas:
    """Areas within tiles, each by places that are spread evenly over it.

    Parameters
    ----------
    tile
        Tile of each area, ascending.
    places
        Areas x places x 2, (x, y) within the tile, 0 to 1.
    counts
        Which of them count, areas x places, at least one of each area.
    """

    tile: NDArray[np.int64]
    places: NDArray[np.float64]
    counts: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tile)

    def of_tiles(self, start: int, stop: int) -> Areas:
        """The areas in some of the tiles, which are counted from 0 then."""
        first, last = np.searchsorted(self.tile, [start, stop])
        return Areas(self.tile[first:last] - start, self.places[first:last], self.counts[first:last])


def weights_on_map(areas: Areas, n_tiles: int, height: int, width: int) -> csr_matrix:
    """Shares of the cells of the tiles' maps in the mean over each area, by bilinear interpolation at its places.

    Returns
    -------
    Areas x (tiles * height * width), rows sum to 1.
    """
    x, y = (areas.places[..., axis] * length - 0.5 for axis, length in enumerate((width, height)))
    n_areas, n_places = areas.counts.shape
    share = areas.counts / areas.counts.sum(axis=1, keepdims=True)
    first = areas.tile[:, None] * (height * width)
    columns, values = [], []
    for at_y, of_y in _neighbours(y, height):
        for at_x, of_x in _neighbours(x, width):
            columns.append(first + at_y * width + at_x)
            values.append(share * of_y * of_x)
    rows = np.broadcast_to(np.arange(n_areas)[:, None], (n_areas, n_places))
    entries = (np.concatenate([value.ravel() for value in values]).astype(np.float32),)
    where = (np.tile(rows.ravel(), len(values)), np.concatenate([column.ravel() for column in columns]))
    weights = csr_matrix((*entries, where), shape=(n_areas, n_tiles * height * width))
    weights.sum_duplicates()
    return weights


def _neighbours(position: NDArray[np.float64], length: int) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The two cells of an axis beside a position, and their shares; past the outermost centre it is the last cell's alone."""
    position = np.clip(position, 0.0, length - 1.0)
    low = np.minimum(np.floor(position).astype(np.int64), max(length - 2, 0))
    of_high = position - low
    return [(low, 1.0 - of_high), (np.minimum(low + 1, length - 1), of_high)]


def find_map(encoder: Encoder, levels: Levels, *, device: str) -> int:
    """Prove on one patch that a network shows its last map, and return how many channels that has.

    Raises
    ------
    ValueError
        If it shows no map, or one of a single cell, reaches another output by way of it, or if the encoder's own transform
        does not keep the whole patch, so that nobody can tell where in the map a spot lies.
    """
    network, name = encoder.module, encoder.record.name
    missing = [method for method in NEEDED_METHODS if not callable(getattr(network, method, None))]
    if missing:
        raise ValueError(
            f'encoder "{name}" shows no map of its features: {type(network).__name__} has no {" and no ".join(missing)}, '
            f"which most networks of timm have. {LEAVE_OUT}"
        )
    _refuse_cropping(encoder, device)
    side = encoder.record.input_px
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)

    def shape(module: nn.Module, batch: Tensor) -> tuple[int, ...]:
        return tuple(_passed(module, batch, levels, name).last.shape[1:])

    channels, height, width = encoder.run(noise, shape, device=device)
    if height * width == 1:
        raise ValueError(
            f'the last map of encoder "{name}" is a single cell, which is the same for all spots of a tile. {LEAVE_OUT}'
        )
    check_output(encoder, noise, levels if levels.indices else _last_level(encoder, device), device)
    return channels


def _last_level(encoder: Encoder, device: str) -> Levels:
    """The level that is asked for where no level is a feature."""
    side = encoder.record.input_px
    blank = np.zeros((1, side, side, 3), dtype=np.uint8)

    def channels(module: Any, batch: Tensor) -> int:
        return int(module.forward_intermediates(batch, indices=list(LAST))[1][-1].shape[1])

    return Levels(tuple(LAST), (encoder.run(blank, channels, device=device),))


def _refuse_cropping(encoder: Encoder, device: str) -> None:
    """Refuse a transform that cuts the borders of a patch away, or makes no square of it."""
    if encoder.transform is None:
        return
    side = encoder.record.input_px
    border = max(1, round(side * BORDER_SHARE))
    framed = np.full((1, side, side, 3), FRAME, dtype=np.uint8)
    framed[:, border:-border, border:-border] = INSIDE
    made = encoder.run(framed, lambda _, batch: batch[0].float().mean(0).cpu().numpy(), device=device)
    corners = made[[0, 0, -1, -1], [0, -1, 0, -1]]
    centre, highest = made[made.shape[0] // 2, made.shape[1] // 2], made.max()
    if made.shape[0] != made.shape[1] or (corners - centre <= (highest - centre) / 2).any():
        raise ValueError(
            f'the transform of encoder "{encoder.record.name}" does not keep the whole of a square patch, so that nobody can '
            f"tell where in a map of it a spot lies. Let it resize without cropping. {LEAVE_OUT}"
        )


class _Pass(NamedTuple):
    """What one pass through a network shows."""

    output: Tensor
    planes: list[Tensor]
    last: Tensor


def _passed(module: Any, batch: Tensor, levels: Levels, name: str) -> _Pass:
    features, planes = module.forward_intermediates(batch, indices=list(levels.indices) or list(LAST))
    output = module.forward_head(features)
    last = _as_map(module, features, tuple(planes[-1].shape[-2:]), name)
    return _Pass(output, planes if levels.indices else [], last)


def _as_map(module: Any, features: Tensor, plane: tuple[int, ...], name: str) -> Tensor:
    """A network's last features as batch x channels x height x width, whichever way it keeps them."""
    if features.ndim == 3:  # tokens: class and registers first, then the patches row by row
        n_prefix = int(getattr(getattr(module, "network", module), "num_prefix_tokens", 0))
        patches = features[:, n_prefix:]
        if patches.shape[1] == plane[0] * plane[1]:
            return patches.transpose(1, 2).unflatten(2, plane)
    elif features.ndim == 4 and tuple(features.shape[2:]) == plane:
        return features
    elif features.ndim == 4 and tuple(features.shape[1:3]) == plane:  # Swin keeps channels last
        return features.permute(0, 3, 1, 2)
    raise ValueError(
        f'the last features of encoder "{name}" have shape {tuple(features.shape[1:])}, which is no map of the '
        f"{plane[0]} x {plane[1]} cells of its last level. {LEAVE_OUT}"
    )


def encode_areas(
    encoder: Encoder, tiles: NDArray[np.uint8], areas: Areas, *, device: str, levels: Levels
) -> NDArray[np.float32]:
    """Embed areas within tiles, all tiles in one batch.

    Parameters
    ----------
    encoder
        The encoder, which :func:`find_map` has looked at.
    tiles
        Tiles x input_px x input_px x 3, uint8, RGB.
    areas
        The areas.
    device
        Torch device.
    levels
        Intermediate levels.

    Returns
    -------
    Areas x (channels of the last map + channels of the levels + dim + 2 * channels of the levels): means over the area, then
    what :meth:`Encoder.encode` makes of its tile.

    Raises
    ------
    ValueError
        If the network returns NaN or infinite numbers.
    """

    def compute(module: nn.Module, batch: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        passed = _passed(module, batch, levels, encoder.record.name)
        means = [_means_over(plane, areas) for plane in (passed.last, *passed.planes)]
        statistics = [block for plane in passed.planes for block in plane_statistics(plane)]
        return torch.cat(means, dim=1), torch.cat([passed.output, *statistics], dim=1).float()

    of_areas, of_tiles = (part.cpu().numpy() for part in encoder.run(tiles, compute, device=device))
    embedded = np.hstack([of_areas, of_tiles[areas.tile]])
    broken = int((~np.isfinite(of_tiles)).any(1).sum())
    if broken or not np.isfinite(of_areas).all():
        raise ValueError(
            f'encoder "{encoder.record.name}" returned NaN or infinite numbers for {broken} of {len(tiles)} tiles. Check '
            "its weights and transform."
        )
    return embedded


def _means_over(plane: Tensor, areas: Areas) -> Tensor:
    """Mean of a map over each area, areas x channels, float32."""
    import torch

    n_tiles, channels, height, width = plane.shape
    cells = plane.float().permute(0, 2, 3, 1).reshape(-1, channels)
    if cells.device.type not in INDEXED_ON:
        cells = cells.cpu()
    weights = weights_on_map(areas, n_tiles, height, width)
    indices, starts, shares = (
        torch.from_numpy(np.ascontiguousarray(part)).to(cells.device)
        for part in (weights.indices.astype(np.int64), weights.indptr[:-1].astype(np.int64), weights.data)
    )
    means = torch.nn.functional.embedding_bag(indices, cells, starts, mode="sum", per_sample_weights=shares)
    return means.to(plane.device)
