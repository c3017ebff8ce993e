"""SpaHGC: fit, predict, save, load. The one place where AnnData meets the network."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

from spahgc._graph_data import GeneScale, Spots, bank_spots, check_sizes, spot_graph, target_spots
from spahgc._keys import SPATIAL, UNS, Obs, Obsp, Uns
from spahgc._model_files import (
    BANK_FILE,
    DESCRIPTION_FILE,
    FORMAT,
    WEIGHTS_FILE,
    checksums,
    is_model_folder,
    read_description,
)
from spahgc._presets import Parameters, find_preset
from spahgc._provenance import versions
from spahgc._settings import resolve_device
from spahgc._slides import shared_spots, split_slides
from spahgc._training import train_network, training_settings
from spahgc._validate import (
    check_anndata,
    check_coordinates,
    check_genes,
    check_same_encoder,
    embedding_matrix,
    encoder_records,
    listing,
)
from spahgc.pp._bank import is_bank, reference_bank, similar_peers
from spahgc.pp._genes import select_genes
from spahgc.pp._neighbors import cosine_neighbors

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from spahgc.nn import LossRecord, SpaHGCNetwork


class SpaHGC:
    """A trained model: the network, and the bank of reference spots that it looks things up in.

    Made by :meth:`fit` (or :func:`spahgc.tl.fit`) and :meth:`load`.

    Attributes
    ----------
    bank
        The references, as :func:`spahgc.pp.reference_bank` returns them.
    network
        The trained network, on the CPU.
    parameters
        All numbers of the fit.
    preset
        Name of the parameters.
    seed
        Seed of initial weights and masks.
    history
        Losses of every epoch.
    versions
        Versions of the packages that trained it.
    """

    def __init__(
        self,
        bank: AnnData,
        network: SpaHGCNetwork,
        parameters: Parameters,
        *,
        preset: str,
        seed: int,
        history: list[LossRecord],
        versions: dict[str, str],
    ) -> None:
        self.bank = bank
        self.network = network
        self.parameters = parameters
        self.preset = preset
        self.seed = seed
        self.history = history
        self.versions = versions

    def __repr__(self) -> str:
        return (
            f"SpaHGC(preset={self.preset!r}, genes={len(self.genes)}, references={self.references}, "
            f"spots={self.bank.n_obs}, embedding={self.embedding!r}, epochs={len(self.history)})"
        )

    @property
    def genes(self) -> list[str]:
        """The panel."""
        return list(self.bank.var_names)

    @property
    def references(self) -> list[str]:
        """Names of the reference slides."""
        return bank_record(self.bank)["references"]

    @property
    def embedding(self) -> str:
        """Key of the embedding in ``obsm`` that targets must carry."""
        return bank_embedding(self.bank)

    @property
    def units(self) -> str:
        """Units of the prediction."""
        return bank_record(self.bank)["units"]

    @classmethod
    def fit(
        cls,
        refs: AnnData | Iterable[AnnData],
        *,
        genes: Sequence[str] | None = None,
        embedding: str | None = None,
        layer: str | None = None,
        preset: str | Parameters = "default",
        seed: int = 0,
        device: str | None = None,
    ) -> SpaHGC:
        """Train on measured slides; see :func:`spahgc.tl.fit`."""
        parameters = find_preset(preset)
        where = resolve_device(device)
        bank = as_bank(refs, genes=genes, embedding=embedding, layer=layer, parameters=parameters)
        spots = bank_spots(bank, parameters)
        check_sizes(spots, parameters)
        network, history = train_network(spots, parameters, seed=seed, device=where)
        if parameters.standardize:  # the RS graph of the embedding as the network sees it
            bank.obsp[Obsp.reference_connectivities] = similar_peers(spots.z, spots.y, parameters.n_reference)
        name = preset if isinstance(preset, str) else "custom"
        return cls(bank, network.cpu(), parameters, preset=name, seed=int(seed), history=history, versions=versions())

    def cross_graph(self, target: AnnData) -> csr_matrix:
        """CS graph of a target: target spots x bank spots, CSR, cosine similarity as the network sees it."""
        check_target(target, self.bank)
        bank = bank_spots(self.bank, self.parameters)
        return cosine_neighbors(self._target_spots(target).z, bank.z, self.parameters.n_cross)

    def predict(self, target: AnnData, *, cross: csr_matrix | None = None, device: str | None = None) -> np.ndarray:
        """Predict the panel on a slide from its embedding and its spots' positions.

        Parameters
        ----------
        target
            The slide. Neither its counts nor its genes are looked at, and nothing is written.
        cross
            The target's CS graph, if :meth:`cross_graph` was called before; ``None`` searches it.
        device
            Where to compute; ``None`` takes ``spahgc.settings.device`` or the first accelerator.

        Returns
        -------
        Spots x :attr:`genes`, float32, in :attr:`units`. Two calls return the same numbers.

        Raises
        ------
        KeyError
            If positions or embedding are missing.
        ValueError
            If the target was embedded by another encoder, or holds NaN in either.
        """
        from spahgc.nn import predict_expression

        where = resolve_device(device)
        cross = self.cross_graph(target) if cross is None else cross
        bank = bank_spots(self.bank, self.parameters)
        peers = self.bank.obsp[Obsp.reference_connectivities]
        scale = GeneScale.of(bank.y)
        graph = spot_graph(self._target_spots(target), bank, cross, peers, scale, self.parameters, where)
        predicted = predict_expression(self.network.to(where), graph, training_settings(self.parameters)).cpu().numpy()
        self.network.cpu()
        return scale.undo(predicted)

    def _target_spots(self, target: AnnData) -> Spots:
        return target_spots(
            embedding_matrix(target, self.embedding, "the target"),
            check_coordinates(target, "the target"),
            self.parameters,
        )

    def record(self) -> dict[str, Any]:
        """What is needed to repeat a prediction, in types that ``uns`` can hold."""
        return bank_record(self.bank) | {
            "preset": self.preset,
            "parameters": self.parameters.to_dict(),
            "epochs_trained": len(self.history),
            "seed": self.seed,
            "versions": self.versions,
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the model: ``network.safetensors``, ``model.json`` and ``bank.h5ad``, all or nothing.

        Parameters
        ----------
        folder
            Folder to be made. It holds the references' embeddings and their expression of the panel, and no pixels.
        overwrite
            Replace a model that lies there already.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is false, or if it holds something else than a model.
        OSError
            If it cannot be written.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        if folder.exists() and not (overwrite and is_model_folder(folder)):
            raise FileExistsError(
                f'"{folder}" exists already. Pass overwrite=True to replace a model and nothing else, or another folder.'
            )
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        except OSError as error:
            raise OSError(f'"{folder}" cannot be written ({error.strerror or error}). Pass another folder.') from error
        try:
            save_file(self.network.state_dict(), part / WEIGHTS_FILE)
            self.bank.write_h5ad(part / BANK_FILE)
            description = self._description() | {"sha256": checksums(part)}
            (part / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            part.chmod(0o755)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _description(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "preset": self.preset,
            "parameters": self.parameters.to_dict(),
            "seed": self.seed,
            "genes": self.genes,
            "units": self.units,
            "references": self.references,
            "embedding": self.embedding,
            "versions": self.versions,
            "history": [record.to_dict() for record in self.history],
        }

    @classmethod
    def load(cls, folder: str | Path) -> SpaHGC:
        """Read a model that :meth:`save` wrote; its predictions are bit-identical on the same machine.

        Raises
        ------
        FileNotFoundError
            If the folder or one of its files is missing.
        ValueError
            If it was written in a format that this version does not know, or if its files do not fit together.
        """
        from safetensors.torch import load_file

        from spahgc.nn import LossRecord, SpaHGCNetwork

        folder = Path(folder)
        missing = [name for name in (DESCRIPTION_FILE, WEIGHTS_FILE, BANK_FILE) if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f'"{folder}" is no saved model: {listing(missing)} not found there.')
        description = read_description(folder)
        if description["sha256"] != checksums(folder):
            raise ValueError(
                f'the files in "{folder}" do not fit together: not all are those that {DESCRIPTION_FILE} was written '
                "with. Copy the whole folder of the model again."
            )
        bank = ad.read_h5ad(folder / BANK_FILE)
        if list(bank.var_names) != description["genes"]:
            raise ValueError(f'the files in "{folder}" do not fit together: their genes differ. Save the model again.')
        parameters = Parameters.from_dict(description["parameters"])
        network = SpaHGCNetwork(
            bank.obsm[description["embedding"]].shape[1],
            bank.n_vars,
            width=parameters.width,
            layers=parameters.layers,
            heads=parameters.heads,
        )
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return cls(
            bank,
            network,
            parameters,
            preset=description["preset"],
            seed=description["seed"],
            history=[LossRecord(**record) for record in description["history"]],
            versions=description["versions"],
        )


def as_bank(
    refs: Any,
    *,
    genes: Sequence[str] | None,
    embedding: str | None,
    layer: str | None,
    parameters: Parameters,
) -> AnnData:
    """References as a bank of one's own, with the RS graph that the parameters ask for."""
    if not is_bank(refs):
        if genes is None:
            refs = list(split_slides(refs).values())
            genes = select_genes(refs, n_abundant=parameters.n_abundant, layer=layer)
        return reference_bank(refs, genes=genes, embedding=embedding, layer=layer, n_neighbors=parameters.n_reference)
    made_with = bank_embedding(refs)
    if embedding is not None and embedding != made_with:
        raise ValueError(
            f'the bank was made with embedding="{made_with}", embedding="{embedding}" was asked for. '
            "Make a bank with that embedding."
        )
    bank = refs.copy() if genes is None else refs[:, check_genes(genes, refs.var_names, "the bank")].copy()
    if genes is not None or bank.uns[UNS][Uns.bank]["n_neighbors"] != parameters.n_reference:
        peers = similar_peers(bank.obsm[made_with], bank.X, parameters.n_reference)
        bank.obsp[Obsp.reference_connectivities] = peers
        bank.uns[UNS][Uns.bank]["n_neighbors"] = parameters.n_reference
    return bank


def bank_embedding(bank: AnnData) -> str:
    """Key of the embedding that a bank was made with."""
    return str(bank.uns[UNS][Uns.bank]["embedding"])


def bank_record(bank: AnnData) -> dict[str, Any]:
    """What a prediction owes to its bank, in types that ``uns`` can hold."""
    key = bank_embedding(bank)
    return {
        "references": [str(name) for name in bank.uns[UNS][Uns.bank]["slides"]],
        "genes": [str(gene) for gene in bank.var_names],
        "units": str(bank.uns[UNS][Uns.bank]["units"]),
        "embedding": key,
        "encoder": encoder_records(bank).get(key, {}),
    }


def check_target(target: AnnData, bank: AnnData) -> None:
    """Refuse a target that cannot be predicted from this bank."""
    check_anndata(target, "the target")
    check_coordinates(target, "the target")
    key = bank_embedding(bank)
    z = embedding_matrix(target, key, "the target")
    check_same_encoder(
        encoder_records(target).get(key, {}), encoder_records(bank).get(key, {}), key, "the target", "the references"
    )
    if z.shape[1] != bank.obsm[key].shape[1]:
        raise ValueError(
            f'obsm["{key}"] has {z.shape[1]} columns in the target and {bank.obsm[key].shape[1]} in the references. '
            "Embed all slides with the same encoder."
        )
    shared = shared_spots(
        check_coordinates(target, "the target"), z, np.asarray(bank.obsm[SPATIAL]), np.asarray(bank.obsm[key])
    )
    if len(shared):
        names = sorted(set(bank.obs[Obs.slide].astype(str).to_numpy()[shared]))
        raise ValueError(
            f"the target is also among the references: {len(shared)} of its spots stand in {listing(names)}. Their own "
            "expression would reach their prediction. Leave that slide out of the references."
        )
    if target.n_obs < 2:
        raise ValueError("the target has a single spot: it has no neighbour in the plane. Predict whole slides.")
