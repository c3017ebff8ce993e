"""What has been computed of an embedding so far, on disk, so that a run that was killed can go on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spahgc._files import DIGEST_LENGTH, WHOLE_FILE_BYTES, digest, file_digest, write_text, written_whole
from spahgc.pp._embed.context import Context
from spahgc.pp._embed.patches import PatchCutter
from spahgc.pp._embed.slide_image import SlideImage

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
        if not (self.folder / DESCRIPTION_FILE).exists():
            _warn_of_other_inputs(root, slide, made_with)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / DESCRIPTION_FILE, json.dumps(made_with, indent=1))

    def read(self, features: NDArray[np.float32], padded: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Fill in the rows of spots that are finished, and return which these are."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        done = np.zeros(len(features), dtype=bool)
        for path in sorted(self.folder.glob("spots-*.safetensors")):
            try:
                part = load_file(path)
                rows = part["rows"]
                if _checksum(rows, part["features"], part["padded"]).tobytes() != part["checksum"].tobytes():
                    raise ValueError("its checksum is wrong")
                features[rows], padded[rows] = part["features"], part["padded"]
                done[rows] = True
            except (SafetensorError, KeyError, IndexError, ValueError) as error:
                warnings.warn(
                    f'"{path.name}" is damaged ({error}); its spots are computed again.',
                    stacklevel=4,
                )
        return done

    def write(self, rows: NDArray[np.int64], features: NDArray[np.float32], padded: NDArray[np.bool_]) -> None:
        """Keep the results of some spots, whole or not at all."""
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[np.generic]] = {"rows": rows, "features": features, "padded": padded}
        with written_whole(self.folder / f"spots-{rows[0]:09d}.safetensors") as part:
            save_file(arrays | {"checksum": _checksum(*arrays.values())}, part)


def _checksum(*arrays: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A file may be whole and still hold other numbers, where the power failed before all of it was on the disk."""
    return np.frombuffer(digest(*(array.tobytes() for array in arrays)).encode(), dtype=np.uint8)


def fingerprint(
    slide: SlideImage, image: ImageSource, cutter: PatchCutter, encoder: Encoder, context: Context, levels: Levels
) -> Inputs:
    """All that determines the numbers of a slide's embedding, but for their rounding.

    The size of a batch and the device are not among it: they change the last digits at most. A few patches stand for
    how they are cut, stained and normalised; where the image is no file or array, they stand for the image as well.
    """
    rows = np.unique(np.linspace(0, len(slide.xy) - 1, SAMPLE).round().astype(np.int64))
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
    }


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
        except ValueError:
            continue  # not ours, or a description of another format
        same_spots = isinstance(other, dict) and all(other.get(name) == made_with[name] for name in ("key", "centres"))
        if not same_spots:
            continue
        differing = [name for name in made_with if other.get(name) != made_with[name]]
        warnings.warn(
            f'the folder "{path.parent.name}" of resume= holds parts of slide "{slide}" that were made with other inputs '
            f"({', '.join(differing)}). They are not used; delete that folder if they are not wanted any more.",
            stacklevel=5,
        )
