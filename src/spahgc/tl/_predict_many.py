"""Prediction of many slides on disk, in this process or on a cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from spahgc._files import path_digest
from spahgc._many.jobs import Sources, cached_in_process, run_many
from spahgc._settings import silence
from spahgc._training.model_files import DESCRIPTION_FILE, read_description
from spahgc._validate import user_path
from spahgc.model import SpaHGC
from spahgc.tl._predict import predict

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from distributed import Client


def predict_many(
    targets: Sources,
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    client: Client | None = None,
    key_added: str = "spahgc",
    device: str | None = None,
    retries: int = 2,
    overwrite: bool = False,
) -> pd.DataFrame:
    """Predict many slides on disk with one model, one task a slide, and write each to ``folder/NAME.zarr``.

    A slide is written whole or not at all. Called again, it takes what is finished and does the rest. A slide that fails
    does not stop the others.

    Parameters
    ----------
    targets
        Paths of slides with an embedding, as ``adata.write_h5ad`` or ``adata.write_zarr`` or
        :func:`spahgc.pp.embed_many` wrote them; or a dictionary of such paths by name. Without one a slide is called by
        its file.
    folder
        Folder of the results, made if it is not there. Workers on other machines must see it, the slides and the model
        under the same paths.
    model
        Folder of a saved model (:meth:`spahgc.SpaHGC.save`). Every worker loads it once.
    client
        A client of the dask cluster whose workers do the slides. ``None`` does one after another in this process. Let
        the workers have one thread of dask each: a worker predicts one slide at a time.
    key_added
        Key in ``layers`` and ``uns``, and prefix of columns.
    device
        Where to compute; ``None`` takes the setting, or the first accelerator that a worker has.
    retries
        How often a slide that failed is tried again. A slide whose worker died is done again in any case.
    overwrite
        Replace results that were made from other slides or with another model, which are refused otherwise.

    Returns
    -------
    A row a slide: ``name``, ``path``, ``status`` (``"written"`` or ``"kept"``) and ``seconds``. Each file holds the slide
    with what :func:`spahgc.tl.predict` writes, and ``uns["spahgc"]["made_with"]["predict"]``: fingerprints of the slide
    and the model.

    Raises
    ------
    TypeError
        If the slides are no paths, or the client or the model is none.
    FileNotFoundError
        If a slide or the model is not there.
    FileExistsError
        If a result is there that was made from something else.
    ValueError
        If two slides have one name, or the model was written in a format that this version does not know.
    ExceptionGroup
        If slides failed: the error of each, when all others are finished.

    See Also
    --------
    spahgc.pp.embed_many : embed them first.

    Examples
    --------
    >>> from dask.distributed import Client, LocalCluster
    >>> client = Client(LocalCluster(n_workers=4, threads_per_worker=1))  # doctest: +SKIP
    >>> sp.tl.predict_many(paths, "predicted", model="model", client=client)  # doctest: +SKIP
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(
            f"model= must be the folder of a saved model, found {type(model).__name__}. Save it with model.save(folder) "
            "and pass the folder: every worker reads it from there."
        )
    path = Path(os.path.realpath(user_path(model, "model=")))
    if not (path / DESCRIPTION_FILE).is_file():
        raise FileNotFoundError(f'model="{path}" is no saved model: "{DESCRIPTION_FILE}" not found there.')
    read_description(path)
    if not key_added or "/" in key_added:
        raise ValueError(f'key_added="{key_added}" cannot name a layer: it is empty or contains "/".')
    # The description holds the checksums of all other files.
    made_with = {"model": path_digest(path / DESCRIPTION_FILE), "key_added": key_added}
    operation = Prediction(str(path), key_added, device, made_with)
    return run_many(targets, folder, operation, client=client, retries=retries, overwrite=overwrite)


@dataclass(frozen=True)
class Prediction:
    """What is done with every slide; see :func:`predict_many` for the parameters."""

    model: str
    key_added: str
    device: str | None
    made_with: dict[str, str]
    name: str = field(default="predict", init=False)

    def linked_files(self, path: Path) -> dict[str, str]:
        """Nothing: all that a prediction needs lies in the slide."""
        return {}

    def __call__(self, adata: AnnData) -> None:
        """Predict a slide in place."""
        fingerprint = f"{self.model} {self.made_with['model']}"
        loaded = cached_in_process(self.name, fingerprint, lambda: SpaHGC.load(self.model))
        with silence():  # of thousands of slides nobody reads three lines each
            predict(adata, model=loaded, key_added=self.key_added, device=self.device)
