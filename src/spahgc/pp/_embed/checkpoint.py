"""What has been computed of an embedding so far, on disk, so that a run that was killed can go on."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spahgc._files import (
    DIGEST_LENGTH,
    WHOLE_FILE_BYTES,
    digest,
    file_digest,
    made_folder,
    remove_leftovers_in,
    write_text,
    written_whole,
)
from spahgc._logging import warn
from spahgc._reading import UnreadableError, reading
from spahgc.pp._embed.columns import Columns
from spahgc.pp._embed.context import Context
from spahgc.pp._embed.patches import PatchCutter
from spahgc.pp._embed.slide_image import SlideImage
from spahgc.pp._embed.spot_areas import SpotAreas

if TYPE_CHECKING:
    from spahgc.encoders import Encoder
    from spahgc.encoders._layout import Levels
    from spahgc.image import ImageSource

DESCRIPTION_FILE = "made_with.json"
FORMAT = 1
"""Version of the files below."""
SAMPLE = 16
"""Spots, evenly spaced, whose patches are compared with those of an earlier run."""
NAME_LENGTH = 40
"""Characters of a slide's name and of a key in the name of its folder."""

Inputs: TypeAlias = dict[str, object]
"""All that determines the numbers of an embedding, in types of JSON."""


class EmbeddingCheckpoint:
    """The folder of one embedding of one slide: a file a batch, and what they were made with.

    The name of the folder holds a fingerprint of that, so that what was made with something else is never taken.

    Parameters
    ----------
    root
        Folder for all slides and encoders.
    slide, key
        Name of the slide, and key of the embedding.
    made_with
        What :func:`fingerprint` says.
    """

    def __init__(self, root: Path, slide: str, key: str, made_with: Inputs) -> None:
        made_with = json.loads(json.dumps({"format": FORMAT, "key": key} | made_with))
        slug = "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:NAME_LENGTH] for name in (slide, key))
        self.folder = root / f"{slug}_{digest(json.dumps(made_with, sort_keys=True).encode())}"
        remove_leftovers_in(self.folder)
        if not (self.folder / DESCRIPTION_FILE).exists():
            _warn_of_other_inputs(root, slide, made_with)
            write_text(made_folder(self.folder) / DESCRIPTION_FILE, json.dumps(made_with, indent=1))

    def read(self, features: Columns, padded: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Fill in the rows of spots that are finished, and return which these are."""
        from safetensors.numpy import load_file

        done = np.zeros(len(padded), dtype=bool)
        for path in sorted(self.folder.glob("spots-*.safetensors")):
            try:
                with reading(path, "a part of an embedding", "Its spots are computed again."):
                    part = load_file(path)
                    problem = _broken_part(part, features.shape, padded.shape)
            except (OSError, UnreadableError) as error:
                problem = str(error.__cause__ or error)
            if problem is not None:
                warn(
                    f'"{path.name}" is damaged ({problem}); its spots are computed again.',
                    stacklevel=4,
                )
                continue
            rows = part["rows"]
            features.put(rows, 0, part["features"])
            padded[rows] = part["padded"]
            done[rows] = True
        return done

    def write(self, rows: NDArray[np.int64], features: NDArray[np.float32], padded: NDArray[np.bool_]) -> None:
        """Keep the results of some spots, whole or not at all."""
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[np.generic]] = {"rows": rows, "features": features, "padded": padded}
        path = self.folder / f"spots-{rows[0]:09d}.safetensors"
        with written_whole(path, n_bytes=sum(array.nbytes for array in arrays.values())) as part:
            save_file(arrays | {"checksum": _checksum(*arrays.values())}, part)


def _broken_part(
    part: Mapping[str, NDArray[np.generic]], all_features: tuple[int, int], all_padded: tuple[int, ...]
) -> str | None:
    """What is wrong with a file of some spots of an embedding, if something is."""
    rows, features, padded = part["rows"], part["features"], part["padded"]
    n_spots = all_features[0]
    if _checksum(rows, features, padded).tobytes() != part["checksum"].tobytes():
        return "its checksum is wrong"
    if rows.dtype != np.int64 or padded.dtype != bool or features.dtype != np.float32:
        return f"it holds {rows.dtype}, {features.dtype} and {padded.dtype}"
    for found, whole in ((features, all_features), (padded, all_padded)):
        if rows.ndim != 1 or found.shape != (len(rows), *whole[1:]):
            return f"it holds {found.shape} numbers of {rows.shape} spots"
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_spots:
        return f"it holds spots from {rows.min()} to {rows.max()}, the slide has {n_spots}"
    return None if np.isfinite(features).all() else "it holds NaN or infinite numbers"


def _checksum(*arrays: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A file may be whole and still hold other numbers, where the power failed before all of it was on the disk."""
    return np.frombuffer(digest(*(array.tobytes() for array in arrays)).encode(), dtype=np.uint8)


def fingerprint(
    slide: SlideImage,
    image: ImageSource,
    cutter: PatchCutter,
    encoder: Encoder,
    context: Context,
    levels: Levels,
    areas: SpotAreas | None = None,
) -> Inputs:
    """All that determines the numbers of a slide's embedding, but for their rounding.

    The size of a batch and the device are not among it: they change the last digits at most. A few patches stand for
    how they are cut, stained and normalised; where the image is no file or array, they stand for the image as well.
    """
    rows = np.unique(np.linspace(0, len(cutter.xy) - 1, SAMPLE).round().astype(np.int64))
    patches = [cutter.cut(image, rows, scale)[0] for scale in cutter.scales]
    return {
        "spots": len(slide.xy),
        "centres": digest(np.ascontiguousarray(slide.xy, dtype="<f8").tobytes()),
        "image": {"height": slide.height, "width": slide.width, "content": _content(slide.source)},
        "patch_width_px": float(cutter.width_px),
        "scales": list(cutter.scales),
        "levels": list(levels.indices),
        "rotations": context.rotations,
        "encoder": encoder.record.to_uns(),
        "patches": digest(*(part.tobytes() for part in patches)),
        "input": _transform_digest(encoder, patches[0]),
        **({} if areas is None else {"areas": _areas_digest(areas)}),
    }


def _areas_digest(areas: SpotAreas) -> str:
    """Fingerprint of the areas of all spots."""
    outlines = areas.outlines
    drawn = [] if outlines is None else [outlines.vertices.astype("<f8"), outlines.starts.astype("<i8")]
    return digest(repr(areas.diameter_px).encode(), *(np.ascontiguousarray(part).tobytes() for part in drawn))


def _content(source: object) -> str:
    """Fingerprint of an image file or array wherever it lies; empty for images of another kind."""
    if isinstance(source, np.ndarray):
        return digest(np.ascontiguousarray(source).data.cast("B"))
    if not isinstance(source, str | os.PathLike):
        return ""
    path = Path(source)
    size = path.stat().st_size
    content = file_digest(path)
    if size <= WHOLE_FILE_BYTES:  # that of a larger file counts its size already
        content = hashlib.sha256(size.to_bytes(8, "little") + content).digest()
    return content.hex()[:DIGEST_LENGTH]


def _transform_digest(encoder: Encoder, patches: NDArray[np.uint8]) -> str:
    """Fingerprint of what the user's own transform makes of patches, of which the record knows nothing."""
    if encoder.transform is None:
        return ""
    from PIL import Image

    return digest(*(np.asarray(encoder.transform(Image.fromarray(patch)).cpu()).tobytes() for patch in patches))


def _warn_of_other_inputs(root: Path, slide: str, made_with: Inputs) -> None:
    """Warn of parts of the same spots that cannot be used, since something else was changed since."""
    for path in sorted(root.glob(f"*/{DESCRIPTION_FILE}")):
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # not ours, or a description of another format
        same_spots = isinstance(other, dict) and all(other.get(name) == made_with[name] for name in ("key", "centres"))
        if not same_spots:
            continue
        differing = [name for name in made_with if other.get(name) != made_with[name]]
        warn(
            f'the folder "{path.parent.name}" of resume= holds parts of slide "{slide}" that were made with other inputs '
            f"({', '.join(differing)}). They are not used; delete that folder if they are not wanted any more.",
            stacklevel=5,
        )
