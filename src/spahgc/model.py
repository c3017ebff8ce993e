"""SpaHGC: fit, predict, save, load. Where AnnData meets the network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._keys import Obs, Obsp, Uns
from spahgc._linear.node_features import (
    LowRankFeatures,
    PlainFeatures,
    arrays_with_prefix,
    check_can_mask,
    fit_node_features,
)
from spahgc._linear.trust import Trust, held_out_trust, trust_of
from spahgc._parameters import GRAPH, LINE, Parameters, find_preset
from spahgc._reading import check_sparse, reading
from spahgc._settings import limited_threads, resolve_device, settings, versions
from spahgc._slides.matrix import in_memory
from spahgc._slides.measured import padded_around, padded_spots
from spahgc._slides.patients import with_groups
from spahgc._slides.split import placed_table, placed_tables
from spahgc._slides.spot_names import positions_on_tissue
from spahgc._slides.tissue import TissueRows
from spahgc._spots.rows import Rows, Spots, as_rows, in_float
from spahgc._training.contributions import Contributions, Trained, parts_of
from spahgc._training.experts import Experts, Proof, fit_experts, place_edges, prove_experts, target_graph
from spahgc._training.graphs import (
    bank_spots,
    check_sizes,
    edge_keys,
    most_similar,
    retrieved_edges,
    spare_rs_graph,
    trains_in_blocks,
)
from spahgc._training.held_out_cases import Cases
from spahgc._training.model_files import FORMAT, LABEL, REMEDY, read_folder, write_folder
from spahgc._training.model_tensors import EXPERTS, NETWORKS, NODE_FEATURES, TRUST, make_networks
from spahgc._training.networks import (
    Prediction,
    loss_columns,
    loss_records,
    predict_networks,
    train_networks,
)
from spahgc._training.placed import GRAPH_BY_PLACE, Laid, PlacedExpert, fit_placed, placed_scores, places_on
from spahgc._validate import did_you_mean, encoder_records, quoted, user_path
from spahgc.pp._bank.coverage import in_all
from spahgc.pp._bank.references import (
    as_bank,
    bank_embedding,
    bank_patients,
    bank_pictures,
    bank_record,
    check_target,
    embedding_blocks,
    is_bank,
    make_rs_graph,
    select_embedding_columns,
    target_spots,
)
from spahgc.pp._bank.scale import microns_of_references, microns_of_target, target_in_microns
from spahgc.pp._edge_types import CS, Nodes, n_neighbors
from spahgc.pp._register.lays import free_name, lays_of_references, lays_of_target
from spahgc.pp._search.neighbors import Neighbors

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spahgc._linear.node_features import NodeFeatures
    from spahgc._linear.place import Places
    from spahgc.nn import HeteroGraph, LossRecord, SpaHGCNetwork

BYTES_PER_GB = 1e9

PRODUCTS_PER_LAYER = 6
"""Products of a state with a square matrix of weights in a layer, a spot."""


class OnTarget(NamedTuple):
    """Where the spots of a target and of its references lie, where references lie on it.

    Parameters
    ----------
    xy, places
        Of the target's spots and of the references, for the kernels of place.
    references
        The spots of the references.
    of_graph
        Places for the edges of the graph; ``None`` where its networks do not know place.
    """

    xy: np.ndarray
    places: Places
    references: Spots
    of_graph: Laid | None


class Retrieved(NamedTuple):
    """What networks look at for a target.

    Parameters
    ----------
    edges
        Target spots x bank spots, CSR, cosine similarity; those of the CS graph, and where place counts those by place as well.
    attention
        The same edges, values = attention; ``None`` without networks.
    place
        Edges by place, values = microns; ``None`` where it does not count.
    """

    edges: csr_matrix
    attention: csr_matrix | None = None
    place: csr_matrix | None = None


class SpaHGC:
    """A trained model: the networks, and the bank of reference spots that it looks things up in.

    Made by :meth:`fit` (or :func:`spahgc.tl.fit`) and :meth:`load`.

    Attributes
    ----------
    bank
        The references, as :func:`spahgc.pp.reference_bank` returns them, with the RS graph of what the nodes carry.
    node_features
        What the nodes of the graph carry, learned from the bank.
    networks
        The trained networks, on the CPU; their predictions are averaged.
    trust
        What the references say of the trust that a prediction deserves; ``None`` where the parameters have no line, or the fit
        left it out.
    experts
        What is averaged, and the weights that the references prove; ``None`` where the parameters name no experts.
    parameters
        All numbers of the fit.
    preset
        Name of the parameters.
    seed
        Seed of initial weights and masks.
    history
        Losses of every epoch of each network, one network after another.
    versions
        Versions of the packages that trained it.
    """

    def __init__(
        self,
        bank: AnnData,
        node_features: NodeFeatures,
        networks: list[SpaHGCNetwork],
        trust: Trust | None,
        parameters: Parameters,
        *,
        preset: str,
        seed: int,
        history: list[LossRecord],
        versions: dict[str, str],
        experts: Experts | None = None,
    ) -> None:
        self.bank = bank
        self.node_features = node_features
        self.networks = networks
        self.trust = trust
        self.parameters = parameters
        self.preset = preset
        self.seed = seed
        self.history = history
        self.versions = versions
        self.experts = experts

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
        refs: AnnData | SpatialData | Iterable[AnnData | SpatialData | str | Path] | str | Path,
        *,
        genes: Sequence[str] | str | None = None,
        embedding: str | None = None,
        layer: str | None = None,
        units: str | None = None,
        preset: str | Parameters = "default",
        seed: int = 0,
        device: str | None = None,
        trust: bool = True,
        group: str | None = None,
        table_key: str | None = None,
    ) -> SpaHGC:
        """Train on measured slides; see :func:`spahgc.tl.fit`."""
        parameters = find_preset(preset)
        where = resolve_device(device)
        refs = grouped_references(placed_tables(refs, table_key, "reference"), group)
        bank = as_bank(
            refs, genes=genes, embedding=embedding, layer=layer, units=units, parameters=parameters, rs_graph=False
        )
        return fit_bank(bank, preset=preset, seed=seed, device=where, trust=trust)

    def cross_graph(self, target: AnnData | SpatialData, *, table_key: str | None = None) -> csr_matrix:
        """CS graph of a target, as :meth:`predict` takes it: target spots x bank spots, CSR, cosine similarity."""
        spots, rows = self._placed_spots(target, table_key)
        features, _ = self.node_features.transform(self._used_columns(spots))
        return rows.in_place(self._nearest(features, resolve_device(None)).graph)

    def predict(
        self,
        target: AnnData | SpatialData,
        *,
        cross: csr_matrix | None = None,
        device: str | None = None,
        table_key: str | None = None,
    ) -> np.ndarray:
        """Predict the panel on a slide from its embedding and its spots' positions.

        Parameters
        ----------
        target
            The slide, AnnData or SpatialData. Neither its counts nor its genes are looked at, and nothing is written.
        cross
            The target's CS graph, if :meth:`cross_graph` was called before; ``None`` searches it.
        device
            Where to compute; ``None`` takes ``spahgc.settings.device`` or the first accelerator.
        table_key
            Key of the table of a SpatialData; ``None`` takes the only one.

        Returns
        -------
        Spots x :attr:`genes`, float32, in :attr:`units`; NaN in spots off the tissue (``obs["in_tissue"]``), which a
        warning counts. Two calls return the same numbers.

        Raises
        ------
        KeyError
            If positions or embedding are missing.
        ValueError
            If the target was embedded by another encoder, or holds NaN in either.
        """
        spots, rows = self._placed_spots(target, table_key, check=cross is None)
        return rows.in_place(predict_spots(self, spots, cross=rows.only(cross), device=device).expression)

    def predict_in_full(
        self, target: AnnData | SpatialData, *, device: str | None = None, table_key: str | None = None
    ) -> Prediction:
        """Prediction, CS graph, attention and support of a slide, for which it is placed and searched once.

        Parameters, errors and numbers as in :meth:`predict`, :meth:`cross_graph`, :meth:`attention` and :meth:`support`.
        """
        spots, rows = self._placed_spots(target, table_key)
        return in_place(predict_spots(self, spots, device=device, support=True), rows)

    def _outputs(
        self, spots: Spots, cross: csr_matrix | None, device: str
    ) -> tuple[np.ndarray, Mapping[str, str | float], Retrieved, dict[str, Any]]:
        """What line and networks predict of a target, how its CS graph was found, what they attend to, and of its place.

        Features live here alone.
        """
        if self.experts is not None:
            return self._blended(self.experts, spots, cross, device)
        features, line = self.node_features.transform(spots)
        neighbors = self._nearest(features, device) if cross is None else Neighbors(cross, {})
        if not self.networks:
            if line is None:
                raise ValueError("the model has neither a line nor networks: nothing predicts. Fit it again.")
            return line, neighbors.record, Retrieved(neighbors.graph), {}
        graph = self.graph(features, spots.xy, neighbors.graph, device, step=spots.step_of())
        outputs, weights = predict_networks(self.networks, graph, spots.xy, self.parameters, device)
        share = self.parameters.graph_share
        outputs = outputs if line is None else share * outputs + (1 - share) * line
        retrieved = Retrieved(neighbors.graph, _with_values(neighbors.graph, weights))
        return outputs, neighbors.record, retrieved, {}

    def _blended(
        self, experts: Experts, spots: Spots, cross: csr_matrix | None, device: str
    ) -> tuple[np.ndarray, Mapping[str, str | float], Retrieved, dict[str, Any]]:
        """The same where experts are averaged."""
        nodes = self.node_features
        if not isinstance(nodes, LowRankFeatures) or nodes.ridge is None:
            raise ValueError("the model averages experts, and has no line. Fit it again.")
        carried, size = nodes.image_axes.transform(spots), nodes.components.size
        by_slide = carried if self.parameters.by_slide else nodes.ridge.image_axes.transform(spots)
        views = experts.views(spots, by_slide)
        neighbors = self._nearest(carried, device) if cross is None else Neighbors(cross, {})
        known: dict[str, np.ndarray] = {}
        if experts.uses(LINE):
            known[LINE] = nodes.ridge.ridge.predict(views.by_slide)
        found, place = self._places(experts, spots)
        by_place = {} if found is None else self._by_place(found, nodes, by_slide, device)
        laid = None if found is None else found.of_graph
        shares = experts.weights_for(placed=bool(by_place), new_patient=is_new_patient(spots, self.bank))
        said, retrieved = self._of_networks(spots, carried, neighbors.graph, laid, shares, device)
        known |= by_place | {name: scores * size for name, scores in said.items()}
        return experts.blend(views, known, shares, device) / size, neighbors.record, retrieved, place

    def _of_networks(
        self,
        spots: Spots,
        carried: Rows,
        cross: csr_matrix,
        laid: Laid | None,
        shares: Mapping[str, float],
        device: str,
    ) -> tuple[dict[str, np.ndarray], Retrieved]:
        """What the networks say without place and, where that counts, with it; and what they attend to, by the weights of both."""
        if not self.networks:
            return {}, Retrieved(cross)

        def run(by_place: Laid | None) -> tuple[np.ndarray, np.ndarray, HeteroGraph]:
            graph = self.graph(carried, spots.xy, cross, device, step=spots.step_of(), laid=by_place)
            return *predict_networks(self.networks, graph, spots.xy, self.parameters, device), graph

        if laid is None or not shares.get(GRAPH_BY_PLACE):
            outputs, weights, _ = run(None)
            return {GRAPH: outputs}, Retrieved(cross, _with_values(cross, weights))
        said, place = {}, place_edges(laid, self.parameters)
        said[GRAPH_BY_PLACE], attention, graph = run(laid)
        edges = retrieved_edges(cross, place)
        if shares.get(GRAPH):
            said[GRAPH], weights, _ = run(None)
            share = shares[GRAPH] / (shares[GRAPH] + shares[GRAPH_BY_PLACE])
            attention *= 1 - share
            attention[np.searchsorted(edge_keys(edges), edge_keys(cross))] += share * weights
        return said, Retrieved(_with_values(edges, graph.similarities), _with_values(edges, attention), place)

    def _by_place(
        self, found: OnTarget, nodes: LowRankFeatures, features: np.ndarray, device: str
    ) -> dict[str, np.ndarray]:
        """What the kernels of place say."""
        known = np.asarray(nodes.features[:]), found.places, nodes.components.scores, found.references
        return placed_scores(features, found.xy, *known, device)

    def _places(self, experts: Experts, spots: Spots) -> tuple[OnTarget | None, dict[str, Any]]:
        """Where a target's spots and the references lie, ``None`` where none lies on it, and what is to be told of it."""
        if not experts.placed or (spots.picture is None and not spots.own_reference and not spots.registration):
            return None, {}
        others = bank_pictures(self.bank)
        others.pop(spots.own_reference or "", None)  # it lies where it is
        name = free_name("target", others)
        lays = lays_of_target(name, spots.picture, others, spots.registration)
        known = bank_spots(self.bank, dense=False)
        named = replace(spots, slide=np.full(len(spots), name))
        found = places_on(named, known, lays)
        if found is None:
            return None, {**lays.record(), "known": False}
        record = {**lays.record(), "known": True, "weights": dict(experts.placed)}
        if not experts.knows_place:
            return OnTarget(*found, known, None), record
        microns = microns_of_target(named, self.bank)
        laid = Laid.of(named, known, replace(lays, microns=microns))
        assumed = bool(microns.assumed)
        return OnTarget(*found, known, laid), record | {"pitch_um": microns.pitch_um, "microns_assumed": assumed}

    def attention(
        self,
        target: AnnData | SpatialData,
        *,
        cross: csr_matrix | None = None,
        device: str | None = None,
        table_key: str | None = None,
    ) -> csr_matrix:
        """Attention that a prediction pays to each reference spot: values on the edges of the CS graph, rows sum to 1.

        Of a target on which references lie, the edges by place are among them where they have a part, and the attention is the mean
        over what the networks say with them and without, by the weights of both. Parameters as in :meth:`predict`. Mean over the
        networks, their layers (CNDA) and pooling (CNAP), and the heads; with ``n_retrieved`` over networks and heads, and the
        weights are those of which the network's prediction is made.
        """
        if not self.networks:
            if self.experts is None:
                raise ValueError("the model has no network (epochs=0), so nothing attends to its references. Fit one.")
            raise ValueError(
                "the model has no network, so nothing attends to its references: the graph is not among its experts, or "
                'earned no weight on references held out. Fit with experts=("graph",) to see one.'
            )
        spots, rows = self._placed_spots(target, table_key, check=cross is None)
        return rows.in_place(predict_spots(self, spots, cross=rows.only(cross), device=device).attention)

    def contributions(
        self,
        target: AnnData | SpatialData,
        spots: Sequence[str | int] | np.ndarray | None = None,
        genes: Sequence[str] | None = None,
        *,
        cross: csr_matrix | None = None,
        place: bool = True,
        device: str | None = None,
        table_key: str | None = None,
    ) -> Contributions:
        """What every reference spot adds to the prediction of some spots and genes, exactly.

        Line, kernels (those of place too) and retrieval are linear in what the references express: each is a sum over reference spots of a weight
        times the spot's own components of the transcriptome. These parts, the gene's mean, and what the other experts say as
        one remainder add up to what :meth:`predict` returns.

        Parameters
        ----------
        target
            The slide, AnnData or SpatialData. Nothing is written.
        spots
            Names of spots, or positions from 0; ``None`` for all.
        genes
            Genes of the panel; ``None`` for all.
        cross
            The target's CS graph, if :meth:`cross_graph` was called before; ``None`` searches it.
        place
            Let references that lie on the target have their part, as :meth:`predict` does.
        device
            Where to compute; ``None`` takes ``spahgc.settings.device`` or the first accelerator.
        table_key
            Key of the table of a SpatialData; ``None`` takes the only one.

        Returns
        -------
        Arrays of spots x reference spots x genes, one an expert, in the units of the prediction, and what is left over.

        Raises
        ------
        KeyError
            If there is no such spot, or a gene is outside the panel.
        ValueError
            If a spot lies off the tissue, if no expert of the model is linear (``preset="paper"``), if the result would take
            more than ``spahgc.settings.max_dense_gb``, or if the references are no longer those of the fit.

        See Also
        --------
        spahgc.tl.attribution : the same of one spot and gene as a table.

        Examples
        --------
        >>> import spahgc as sp
        >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=30)
        >>> for slide in [target, *refs]:
        ...     sp.pp.embed(slide, encoder="efficientnet_lite0")
        >>> model = sp.tl.fit(refs, preset=sp.Parameters.preset("default", experts=("kernel",)))
        >>> parts = model.contributions(target, spots=[0, 1], genes=model.genes[:1])
        >>> parts.total.shape
        (2, 80, 1)
        >>> added = parts.mean + parts.total.sum(axis=1) + parts.remainder
        >>> bool(abs(added - parts.prediction).max() < 1e-4)
        True
        """
        data = placed_table(target, table_key, "the target")
        if cross is not None:
            _check_cross(cross, data.n_obs, self.bank.n_obs, self.parameters.n_sources)
        placed, on_tissue = self._placed_spots(data, check=cross is None)
        if not place:
            placed = replace(placed, picture=None, registration=None, own_reference=None)
        names, rows = positions_on_tissue(data, spots, on_tissue)
        columns = self._positions_in_panel(genes)
        where = resolve_device(device)
        with limited_threads(step_products(len(placed), self.bank, self.parameters)):
            used = self._used_columns(placed)
            trained = self._trained(used, where)
            _check_contributions_fit(len(trained.linear), len(rows), self.bank.n_obs, len(columns))
            if self.networks and cross is None:
                features, _ = self.node_features.transform(used)
                cross = on_tissue.in_place(self._nearest(features, where).graph)
            edges = csr_matrix((len(placed), self.bank.n_obs)) if cross is None else csr_matrix(on_tissue.only(cross))
            parts = parts_of(trained, used, rows, columns, edges, where)
        return Contributions(
            names,
            [self.genes[column] for column in columns],
            [str(name) for name in self.bank.obs_names],
            self.bank.obs[Obs.slide].astype(str).to_numpy(),
            parts.by_expert,
            parts.mean,
            parts.remainder,
            parts.prediction,
            trained.weights,
        )

    def _trained(self, spots: Spots, device: str) -> Trained:
        """All that the prediction of these spots comes from; refuses a model of which nothing adds up."""
        experts, nodes = self.experts, self.node_features
        placed: dict[str, PlacedExpert] = {}
        found = None if experts is None else self._places(experts, spots)[0]
        if found is not None and isinstance(nodes, LowRankFeatures):
            seen, features = nodes.image_axes.transform(spots), np.asarray(nodes.features[:])
            known = features, found.places, nodes.components.scores, found.references
            placed = fit_placed(seen, found.xy, *known, device)
        trained = Trained(
            nodes,
            self.networks,
            experts,
            self.parameters,
            placed,
            None if found is None else found.of_graph,
            is_new_patient(spots, self.bank),
            self._bank_spots,
            self._reference_graph,
        )
        if not trained.linear:
            raise ValueError(
                f"no part of this model (preset={self.preset!r}, experts: {', '.join(trained.weights)}) is linear in what the "
                "references express, so nothing can be said of what a reference spot adds. model.attention(target) says "
                'which ones its network attends to; preset="default" has parts that add up.'
            )
        return trained

    def _positions_in_panel(self, genes: Sequence[str] | None) -> np.ndarray:
        if genes is None:
            return np.arange(self.bank.n_vars)
        names = [genes] if isinstance(genes, str) else list(genes)
        found = self.bank.var_names.get_indexer(names)
        if not names or (found < 0).any():
            absent = [name for name, place in zip(names, found, strict=True) if place < 0]
            raise KeyError(
                f"genes {quoted(absent)} not found in the panel of the model, which holds {quoted(self.genes)}."
                f"{did_you_mean(absent, self.genes)} Pass one or more of model.genes."
            )
        return np.asarray(found)

    def _bank_spots(self) -> Spots:
        return select_embedding_columns(bank_spots(self.bank, dense=False), self.bank, self.parameters)

    def _reference_graph(self) -> csr_matrix:
        return csr_matrix(in_memory(self.bank.obsp[Obsp.reference_connectivities]))

    def graph(
        self,
        features: Rows,
        xy: np.ndarray,
        cross: csr_matrix,
        device: str,
        *,
        step: float | None = None,
        laid: Laid | None = None,
    ) -> HeteroGraph:
        """Graph of a target by `features`, centres `xy` and edges `cross`, with what it needs of the bank, on `device`.

        `step`, for a target that is denser than the references, is how far these lie apart, in its pixels. With `laid` there are
        edges by place.
        """
        references = csr_matrix(in_memory(self.bank.obsp[Obsp.reference_connectivities]))
        known = self.node_features.features, self.node_features.expression
        return target_graph(*known, features, xy, cross, references, self.parameters, device, step=step, laid=laid)

    def _nearest(self, features: Rows, device: str) -> Neighbors:
        where = device if device.startswith("cuda") else "cpu"
        bank = Nodes(self.node_features.features)
        return CS.build(bank, Nodes(features), n_neighbors(CS, bank, self.parameters), where)

    def _target_spots(
        self, target: AnnData | SpatialData, table_key: str | None = None, *, check: bool = True
    ) -> Spots:
        """Positions and embedding of a target's spots on the tissue, as :meth:`_placed_spots` has them."""
        return self._placed_spots(target, table_key, check=check)[0]

    def _placed_spots(
        self, target: AnnData | SpatialData, table_key: str | None = None, *, check: bool = True
    ) -> tuple[Spots, TissueRows]:
        """Positions and embedding of a target's spots on the tissue, checked, and which these are.

        Without ``check`` the target need not fit to the bank.
        """
        target = placed_table(target, table_key, "the target")
        rows = TissueRows.of(target, "the target")
        spots = target_spots(rows.only(target), self.embedding)
        if check:
            record = encoder_records(target).get(self.embedding, {})
            shown = rows.only(target)
            check_target(spots, record, self.bank, padded_spots(shown), padded_around(shown))
        return spots, rows

    def _used_columns(self, spots: Spots) -> Spots:
        """A target's spots with what of their embedding the parameters look at, and with what is around them."""
        spots, _ = target_in_microns(spots, self.bank, self.parameters)
        return select_embedding_columns(spots, self.bank, self.parameters)

    def surroundings(self, spots: Spots) -> dict[str, Any]:
        """What the surroundings of a target's spots are, for the record of a prediction."""
        return target_in_microns(spots, self.bank, self.parameters)[1].record(self.parameters.n_around)

    def support(self, target: AnnData | SpatialData, *, table_key: str | None = None) -> np.ndarray | None:
        """How well the references cover what :meth:`predict` sees of each spot, 0 to 1; ``None`` if nothing says so."""
        if self.trust is None:
            return None
        spots, rows = self._placed_spots(target, table_key, check=False)
        return rows.in_place(self._support(self._used_columns(spots)))

    def _support(self, spots: Spots) -> np.ndarray | None:
        if self.trust is None:
            return None
        return self.trust.support(spots.z, in_float(as_rows(self.bank.obsm[self.embedding])))

    def record(self, *, new_patient: bool = False) -> dict[str, Any]:
        """What is needed to repeat a prediction, in types that ``uns`` can hold.

        Parameters
        ----------
        new_patient
            Of a target that is of no patient of the references, for which the experts have weights of their own.
        """
        return (
            bank_record(self.bank)
            | {
                "preset": self.preset,
                "parameters": self.parameters.to_dict(),
                "epochs_trained": len(self.history),
                "seed": self.seed,
                "versions": self.versions,
            }
            | ({Uns.losses: loss_columns(self.history)} if self.history else {})
            | ({} if self.experts is None else self._record_of_experts(self.experts, new_patient))
        )

    def _record_of_experts(self, experts: Experts, new_patient: bool) -> dict[str, Any]:
        weights = experts.weights_for(placed=False, new_patient=new_patient)
        held_out = set(bank_patients(self.bank).values()) if new_patient else set(self.references)
        return {Uns.experts: dict(weights), Uns.experts_proven: len(held_out) > 1}

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the model: ``network.safetensors``, ``model.json`` and ``bank.h5ad``, all or nothing.

        Parameters
        ----------
        folder
            Folder to be made. It holds the references' embeddings, their expression of the panel, names of slides and patients,
            and of slides that store their image a picture of 20 um a pixel or coarser, by which targets are laid on them.
        overwrite
            Replace a model that lies there already. A process that is killed leaves the old model or the new one; so does
            one that loads it meanwhile find one of the two.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is false, or if it holds something else than a model; of several
            processes that save to one folder without ``overwrite``, all but one get it.
        OSError
            If it cannot be written; ``errno`` is that of the system, such as ``ENOSPC`` on a full disk.
        """
        write_folder(
            user_path(folder, "the folder of a model"),
            self._tensors(),
            self.bank,
            self._description(),
            overwrite=overwrite,
        )

    def _tensors(self) -> dict[str, torch.Tensor]:
        arrays = self.node_features.to_arrays() if isinstance(self.node_features, LowRankFeatures) else {}
        arrays = {f"{NODE_FEATURES}{name}": array for name, array in arrays.items()}
        if self.trust is not None:
            arrays |= {f"{TRUST}{name}": array for name, array in self.trust.to_arrays().items()}
        if self.experts is not None:
            arrays |= {
                f"{EXPERTS}{name}": array
                for name, array in self.experts.to_arrays(np.asarray(self.node_features.features)).items()
            }
        return {name: torch.from_numpy(array) for name, array in arrays.items()} | {
            f"{NETWORKS}{name}": part for name, part in torch.nn.ModuleList(self.networks).state_dict().items()
        }

    def _description(self) -> dict[str, object]:
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
            "history": loss_columns(self.history),
        }

    @classmethod
    def load(cls, folder: str | Path) -> SpaHGC:
        """Read a model that :meth:`save` wrote; its predictions are bit-identical on the same machine.

        Raises
        ------
        FileNotFoundError
            If the folder or one of its files is missing.
        ValueError
            If it was written in a format that this version does not know, if its files do not fit together, or if one of
            them is damaged.
        """
        folder = user_path(folder, "the folder of a model")
        tensors, bank, description = read_folder(folder)
        parameters = Parameters.from_dict(description["parameters"])
        with reading(folder, LABEL, REMEDY):
            if parameters.n_axes:
                node_features: NodeFeatures = LowRankFeatures.from_arrays(arrays_with_prefix(NODE_FEATURES, tensors))
            else:
                node_features = PlainFeatures.fit(select_embedding_columns(bank_spots(bank), bank, parameters))
            of_trust = arrays_with_prefix(TRUST, tensors)
            trust = Trust.from_arrays(of_trust) if of_trust else None
            sizes = node_features.features.shape[1], node_features.expression.shape[1]
            experts = None
            if parameters.experts:
                features = np.asarray(node_features.features[:])
                experts = Experts.from_arrays(arrays_with_prefix(EXPERTS, tensors), features)
            trained = experts is None or experts.has_networks
            knows_place = experts is not None and experts.knows_place
            networks = make_networks(tensors, parameters, *sizes, knows_place=knows_place) if trained else []
        return cls(
            bank,
            node_features,
            networks,
            trust,
            parameters,
            preset=description["preset"],
            seed=description["seed"],
            history=loss_records(description["history"]),
            versions=description["versions"],
            experts=experts,
        )


def is_new_patient(spots: Spots, bank: AnnData) -> bool:
    """Whether a target names patients, and the references others; where either is silent nobody knows."""
    known = set(bank_patients(bank).values())
    return not spots.own_reference and bool(spots.patients and known) and spots.patients.isdisjoint(known)


def grouped_references(refs: Any, group: str | None) -> Any:
    """References with what a column names in the place of their patients; themselves where none is named."""
    if group is None or refs is None:
        return refs
    if not isinstance(refs, AnnData | list) or is_bank(refs):
        raise ValueError(
            f'group="{group}" names a column of the slides, and refs= is a bank, which keeps their patients alone. Pass the slides, '
            'or make the bank of slides that name their groups in obs["patient"].'
        )
    return with_groups(refs, group)


def fit_bank(bank: AnnData, *, preset: str | Parameters, seed: int, device: str, trust: bool = True) -> SpaHGC:
    """Train on a bank of one's own, to which the RS graph of what the nodes carry is added; without ``trust`` none is told."""
    parameters = find_preset(preset)
    if not in_all(bank).all():
        check_can_mask(parameters)
    with limited_threads(step_products(bank.n_obs, bank, parameters)):
        spots = select_embedding_columns(bank_spots(bank, dense=False, parameters=parameters), bank, parameters)
        check_sizes(spots, parameters)
        blocks = embedding_blocks(bank)
        node_features = fit_node_features(spots, blocks, parameters)
        proof = prove_experts_of(bank, spots, blocks, node_features, parameters, seed, device)
        told = trust_of_bank(bank, spots, blocks, node_features, proof, parameters, seed, device) if trust else None
        trained = parameters.epochs and (proof is None or proof.has_networks)
        # The RS graph is that of what the nodes carry; large slides are trained on the same search.
        searched = trained and parameters.layers and trains_in_blocks(spots)
        spare = spare_rs_graph(node_features, parameters) if searched else None
        networks, history = train_networks(
            spots,
            node_features,
            parameters if trained else replace(parameters, experts=(), place=False, epochs=0),
            seed=seed,
            device=device,
            rs_graph=spare,
            lays=None if proof is None else proof.lays_of_graph,
        )
        experts = None if proof is None else fit_experts(proof, spots, node_features, seed, device)
        bank.obsp[Obsp.reference_connectivities] = (
            make_rs_graph(node_features.features, node_features.expression, parameters.n_reference)
            if spare is None
            else most_similar(spare, parameters.n_reference)
        )
        return SpaHGC(
            bank,
            node_features,
            networks,
            told,
            parameters,
            preset=preset if isinstance(preset, str) else "custom",
            seed=int(seed),
            history=history,
            versions=versions(),
            experts=experts,
        )


def prove_experts_of(
    bank: AnnData,
    spots: Spots,
    blocks: tuple[tuple[int, int], ...],
    node_features: NodeFeatures,
    parameters: Parameters,
    seed: int,
    device: str,
) -> Proof | None:
    """Weights of the experts that the parameters name, from references held out in turn; ``None`` where they name none."""
    if not parameters.experts or not isinstance(node_features, LowRankFeatures):
        return None
    placed = parameters.place and parameters.by_slide
    lays = lays_of_references(bank_pictures(bank), bank_patients(bank)) if placed else None
    if lays is not None and parameters.has_place_edges:
        lays = replace(lays, microns=microns_of_references(bank))
    patients = patients_of_spots(bank, spots)
    return prove_experts(
        spots, blocks, node_features, parameters, patients=patients, lays=lays, seed=seed, device=device
    )


def patients_of_spots(bank: AnnData, spots: Spots) -> np.ndarray | None:
    """Patient of every spot of the references, if each slide names one."""
    by_slide = bank_patients(bank)
    return np.array([by_slide[name] for name in spots.slide]) if by_slide else None


def trust_of_bank(
    bank: AnnData,
    spots: Spots,
    blocks: tuple[tuple[int, int], ...],
    node_features: NodeFeatures,
    proof: Proof | None,
    parameters: Parameters,
    seed: int,
    device: str,
) -> Trust | None:
    """What the references, held out in turn, say of the trust that a prediction deserves; ``None`` where nothing is held out."""
    patients = patients_of_spots(bank, spots)
    if proof is not None and isinstance(node_features, LowRankFeatures):
        cases = Cases(proof, spots, node_features, parameters, patients, seed, device)
        return trust_of(spots, blocks, cases, patients)
    return held_out_trust(spots, blocks, parameters, patients) if parameters.line else None


def predict_spots(
    model: SpaHGC,
    spots: Spots,
    *,
    cross: csr_matrix | None = None,
    device: str | None = None,
    support: bool = False,
) -> Prediction:
    """Prediction of spots that were read and checked already, with attention and, if wanted, support.

    Parameters
    ----------
    model
        The model.
    spots
        Those of the target, without expression.
    cross, device
        As in :meth:`SpaHGC.predict`.
    support
        Compute it as well.
    """
    where = resolve_device(device)
    if cross is not None:
        _check_cross(cross, len(spots), model.bank.n_obs, model.parameters.n_sources)
    with limited_threads(step_products(len(spots), model.bank, model.parameters)):
        used = model._used_columns(spots)
        outputs, search, retrieved, place = model._outputs(used, cross, where)
        covered = model._support(used) if support else None
        expression = model.node_features.decode(outputs)
        _check_finite(expression)
        return Prediction(
            expression, retrieved.edges, retrieved.attention, covered, search, place, by_place=retrieved.place
        )


def _with_values(edges: csr_matrix, values: np.ndarray) -> csr_matrix:
    return csr_matrix((values, edges.indices, edges.indptr), shape=edges.shape).copy()


def _check_cross(cross: csr_matrix, n_spots: int, n_bank: int, n_sources: int) -> None:
    check_sparse(cross, "cross=")
    if cross.shape != (n_spots, n_bank):
        raise ValueError(
            f"cross= must be {n_spots} target spots x {n_bank} spots of the bank, found shape "
            f"{cross.shape}. Take what model.cross_graph(target) returns."
        )
    most = int(np.diff(cross.indptr).max(initial=0))
    if most > n_sources:
        raise ValueError(
            f"cross= must join a target spot to at most {n_sources} spots of the bank, found {most}: it is no CS graph of this model, "
            "or holds edges by place as well. Take what model.cross_graph(target) returns."
        )


def _check_contributions_fit(n_experts: int, n_spots: int, n_references: int, n_genes: int) -> None:
    size_gb = n_experts * n_spots * n_references * n_genes * np.dtype(np.float32).itemsize / BYTES_PER_GB
    if size_gb > settings.max_dense_gb:
        raise ValueError(
            f"the contributions of {n_references} reference spots to {n_genes} genes at {n_spots} spots would take "
            f"{size_gb:.1f} GB. Pass fewer spots= or genes=, or raise spahgc.settings.max_dense_gb, now "
            f"{settings.max_dense_gb}."
        )


def _check_finite(expression: np.ndarray) -> None:
    """Refuse a prediction with NaN: whatever it comes from, nobody shall take it for a gene outside the panel."""
    broken = ~np.isfinite(expression).all(axis=1)
    if broken.any():
        raise ValueError(
            f"the prediction is NaN or infinite in {int(broken.sum())} of {len(expression)} spots: the training did not "
            "converge. Lower learning_rate of the parameters, or divide the embeddings of all slides by the same number."
        )


def in_place(prediction: Prediction, rows: TissueRows) -> Prediction:
    """A prediction of the spots on the tissue among all spots of the target."""
    return replace(
        prediction,
        expression=rows.in_place(prediction.expression),
        cross=rows.in_place(prediction.cross),
        attention=rows.in_place(prediction.attention),
        by_place=rows.in_place(prediction.by_place),
        support=rows.in_place(prediction.support),
    )


def step_products(n_spots: int, bank: AnnData, parameters: Parameters) -> float:
    """Multiplications of the largest step on so many spots: the network's linear maps, or the search in the bank."""
    width, layers = parameters.width, parameters.layers
    features = 2 * parameters.n_axes or bank.obsm[bank_embedding(bank)].shape[1]
    of_network = width * (features + PRODUCTS_PER_LAYER * layers * width) if parameters.epochs else 0
    return float(n_spots) * max(of_network, bank.n_obs * features)
