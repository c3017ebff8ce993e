"""Embedding of many slides on disk, in this process or on a cluster."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, cast

import numpy as np

from spahgc._files import DIGEST_LENGTH, path_digest
from spahgc._many.jobs import Sources, as_text, cached_in_process, run_many
from spahgc._many.stores import image_files
from spahgc._settings import resolve_device
from spahgc._validate import quoted
from spahgc.pp._embed.context import DEFAULT_CONTEXT, as_context, context_for
from spahgc.pp._embed.embed import embed
from spahgc.pp._embed.inputs import check_numbers
from spahgc.pp._embed.stain import stain_name

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from distributed import Client
    from PIL.Image import Image
    from torch import Tensor, nn

    from spahgc.encoders import Encoder, EncoderRecord

    EncoderSource: TypeAlias = str | Encoder | tuple[nn.Module, Callable[[Image], Tensor]]
    EncoderMaker: TypeAlias = Callable[[], EncoderSource]

RESERVED = ("data", "encoder", "image", "checkpoint", "device", "table_key", "image_key", "coordinate_system", "copy")
"""Arguments of :func:`embed` that belong to a single slide, or that are named here."""
NO_WIDTHS = ", widths_um=()"
"""How a context is written that has no widths in microns."""
ONE_PATCH = {"dense": False, "samples": 1}
"""Arguments for one patch a spot."""
ROUNDING_ARGUMENTS = ("batch_size", "n_workers", "resume")
"""Arguments that change the result by rounding at most, and do not count when results are compared."""


def embed_many(
    sources: Sources,
    folder: str | os.PathLike[str],
    *,
    client: Client | None = None,
    encoder: EncoderSource | EncoderMaker = "uni",
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | None = None,
    retries: int = 2,
    overwrite: bool = False,
    **arguments: Any,
) -> pd.DataFrame:
    """Embed many slides on disk, one task a slide, and write each to ``folder/NAME.zarr``.

    A slide is written whole or not at all. Called again, it takes what is finished and does the rest. A slide that fails
    does not stop the others.

    Parameters
    ----------
    sources
        Paths of slides that ``adata.write_h5ad`` or ``adata.write_zarr`` wrote, whose ``uns["spatial"]`` names or holds
        the image; or a dictionary of such paths by name. Without one a slide is called by its file.
    folder
        Folder of the results, made if it is not there. Workers on other machines must see it, the slides, their images
        and the checkpoint under the same paths.
    client
        A client of the dask cluster whose workers do the slides. ``None`` does one after another in this process. Let
        the workers have one thread of dask each: a worker embeds one slide at a time.
    encoder
        Name of an encoder; or a function without arguments that makes what :func:`embed` takes, which is called once in
        every worker; or, without a client, whatever :func:`embed` takes.
    checkpoint
        File with the encoder's weights, instead of the published ones.
    device
        Torch device; ``None`` takes the setting, or the first accelerator that a worker has.
    retries
        How often a slide that failed is tried again. A slide whose worker died is done again in any case.
    overwrite
        Replace results that were made from other slides or with other arguments, which are refused otherwise.
    arguments
        Further arguments of :func:`embed`: ``context``, ``dense``, ``samples``, ``mpp``, ``patch_um``, ``stain_normalization``, ``key_added``,
        ``batch_size``, ``n_workers``, ``allow_upsampling``, ``resume``.

    Returns
    -------
    A row a slide: ``name``, ``path``, ``status`` (``"written"`` or ``"kept"``) and ``seconds``. Each file holds what
    :func:`embed` writes, and ``uns["spahgc"]["made_with"]["embed"]``: fingerprints of the slide, its image, the encoder
    and the arguments.

    Raises
    ------
    TypeError
        If the slides are no paths, the client is none, or an encoder in memory was to go to a cluster.
    FileNotFoundError
        If a slide is not there.
    FileExistsError
        If a result is there that was made from something else.
    ValueError
        If two slides have one name, or :func:`embed` has no such argument.
    ExceptionGroup
        If slides failed: the error of each, when all others are finished.

    See Also
    --------
    spahgc.tl.predict_many : predict what was embedded.

    Examples
    --------
    >>> from dask.distributed import Client, LocalCluster
    >>> client = Client(LocalCluster(n_workers=4, threads_per_worker=1))  # doctest: +SKIP
    >>> sp.pp.embed_many(paths, "embedded", encoder="uni", context=True, client=client)  # doctest: +SKIP
    """
    parameters = inspect.signature(embed).parameters
    defaults = {name: entry.default for name, entry in parameters.items() if name not in RESERVED}
    unknown = [name for name in arguments if name not in defaults]
    if unknown:
        raise ValueError(f"embed_many has no arguments {quoted(unknown)}. Known are {', '.join(defaults)}.")
    chosen = defaults | arguments
    check_numbers(chosen["batch_size"], chosen["n_workers"], chosen["mpp"], chosen["patch_um"])
    if client is not None and not isinstance(encoder, str) and not _is_maker(encoder):
        raise TypeError(
            f"encoder= is a {type(encoder).__name__} in the memory of this process, and would have to travel with every "
            "slide. Pass its name with checkpoint=, or a function that makes it."
        )
    file = None if checkpoint is None else os.path.abspath(os.path.expanduser(checkpoint))
    if chosen["resume"] is not None:  # workers may stand in another folder
        arguments["resume"] = os.path.abspath(os.path.expanduser(chosen["resume"]))
    record, of_encoder = _describe(encoder, file)
    described = {"encoder": of_encoder, "arguments": _describe_arguments(chosen, record)}
    operation = Embedding(encoder, file, device, arguments, described)
    return run_many(sources, folder, operation, client=client, retries=retries, overwrite=overwrite)


@dataclass(frozen=True)
class Embedding:
    """What is done with every slide; see :func:`embed_many` for the parameters."""

    encoder: EncoderSource | EncoderMaker
    checkpoint: str | None
    device: str | None
    arguments: Mapping[str, Any]
    made_with: dict[str, str]
    name: str = field(default="embed", init=False)

    def linked_files(self, path: Path) -> dict[str, str]:
        """Fingerprint of the image files of a slide."""
        return {"image": " ".join(path_digest(image) for image in image_files(path))}

    def __call__(self, adata: AnnData) -> None:
        """Embed a slide in place."""
        from spahgc.encoders import load_encoder

        device = resolve_device(self.device)

        def load() -> Encoder:
            return load_encoder(_made(self.encoder), checkpoint=self.checkpoint, device=device)

        loaded = cached_in_process(self.name, f"{device} {self.made_with['encoder']}", load)
        embed(adata, encoder=loaded, device=device, **self.arguments)


def _is_maker(encoder: EncoderSource | EncoderMaker) -> TypeGuard[EncoderMaker]:
    """Whether this is a function that makes an encoder."""
    from spahgc.encoders import Encoder

    return callable(encoder) and not isinstance(encoder, type | Encoder) and not hasattr(encoder, "state_dict")


def _made(encoder: EncoderSource | EncoderMaker) -> EncoderSource:
    return encoder() if _is_maker(encoder) else cast("EncoderSource", encoder)


def _describe(encoder: EncoderSource | EncoderMaker, checkpoint: str | None) -> tuple[EncoderRecord | None, str]:
    """The encoder's record, as far as it is known, and all that determines what it says of a patch.

    Its weights are not loaded where it has a name.
    """
    from spahgc.encoders import describe_encoder, load_encoder

    if isinstance(encoder, str):
        record = describe_encoder(encoder)
        if checkpoint is not None and not os.path.isfile(checkpoint):
            raise FileNotFoundError(f'checkpoint="{checkpoint}": there is no such file.')
        weights = "" if checkpoint is None else path_digest(Path(checkpoint))
        known = None if record is None else record.to_uns()
        return record, as_text({"name": encoder, "record": known, "weights": weights})
    loaded = load_encoder(_made(encoder), checkpoint=checkpoint)
    return loaded.record, as_text({"record": loaded.record.to_uns(), "transform": _sample(loaded)})


def _sample(encoder: Encoder) -> str:
    """What the transform makes of a patch of noise, of which the record knows nothing."""
    if encoder.transform is None:
        return ""
    import hashlib

    from PIL import Image

    side = encoder.record.input_px
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    made = np.ascontiguousarray(np.asarray(encoder.transform(Image.fromarray(noise)).cpu()))
    return hashlib.sha256(made.tobytes()).hexdigest()[:DIGEST_LENGTH]


def _describe_arguments(chosen: dict[str, Any], record: EncoderRecord | None) -> str:
    plain = {name: value for name, value in chosen.items() if name not in ROUNDING_ARGUMENTS}
    # As versions wrote it that knew one patch a spot alone, so that what they made is kept.
    plain = {name: value for name, value in plain.items() if name not in ONE_PATCH or value != ONE_PATCH[name]}
    requested = None if plain["context"] is None else as_context(plain["context"])
    if requested is None and record is None:
        requested = DEFAULT_CONTEXT
    context = repr(requested if record is None else context_for(record, requested))
    # As versions wrote it that knew no widths in microns, so that what they made is kept.
    plain["context"] = context.replace(NO_WIDTHS, "")
    plain["stain_normalization"] = stain_name(plain["stain_normalization"])
    return as_text(plain)
