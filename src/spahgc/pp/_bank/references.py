"""The references as one object: making a bank of them, what it says of itself, and which targets fit to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix, vstack

from spahgc._keys import SPATIAL, UNITS, UNITS_AS_GIVEN, UNS, Obs, Obsm, Obsp, Uns
from spahgc._logging import warn
from spahgc._slides.matrix import column_sums, in_memory
from spahgc._slides.measured import MeasuredSlide, measured_slides
from spahgc._slides.patients import patients_of
from spahgc._slides.resolution import known_mpp
from spahgc._slides.split import canonical_order, check_single_slide, placed_tables, shared_spots
from spahgc._slides.stored import stored_slides
from spahgc._slides.totals import warn_of_other_genes
from spahgc._slides.units import TRANSFORMED
from spahgc._spots.rows import Joined, Rows, SomeRows, Spots, StoredRows, as_rows, in_float, standardize, stored_rows
from spahgc._validate import (
    check_anndata,
    check_coordinates,
    check_genes,
    check_same_encoder,
    embedding_matrix,
    encoder_records,
    find_embedding,
    quoted,
    user_path,
)
from spahgc.encoders._layout import context_blocks
from spahgc.encoders._record import plain_columns, plain_embedding
from spahgc.pp._bank.content import joined_obs
from spahgc.pp._bank.coverage import arrays_of_genes, in_all, measured_by, table_of_genes
from spahgc.pp._bank.identity import Look, overlap, overlaps
from spahgc.pp._bank.store import Version, appended_bank, new_bank, open_bank
from spahgc.pp._bank.union import UnionScale, divided, warn_of_scale
from spahgc.pp._genes import (
    ALL_GENES,
    UNION_GENES,
    common_genes,
    covered_genes,
    seen_genes,
    selected_genes,
    union_genes,
)
from spahgc.pp._register.picture import Picture
from spahgc.pp._register.record import pairs_of_record
from spahgc.pp._register.slides import measured_picture, stored_picture
from spahgc.pp._search.neighbors import search_neighbors

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spahgc._parameters import Parameters

N_REFERENCE = 7
"""K of the paper."""

N_TRANSCRIPTOME = 2000
"""Genes of the transcriptome: enough for the components that genes share, few enough to hold beside any embedding."""

MAX_RS_SPOTS = 50_000
"""Spots up to which a bank on disk carries an RS graph: a minute on two cores, after every slide that is appended. A fit
makes its own, of what the nodes of its graph carry."""

GENE_SELECTION = "gene_selection"
"""Entry of a bank's record: what ranked the genes of a slide, for slides on which it was not what ranks those of most."""

PICTURES = "pictures"
"""Entry of a bank's record: small pictures of its slides, by their number among ``slides``."""

MPP = "mpp"
"""Entry of a bank's record: microns per pixel of its slides, by their number among ``slides``, where they are known."""

SCALE = "union_scale"
"""Entry of the record of a bank of ``genes="union"``: what the expression of its slides was divided by."""


def reference_bank(
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData | str | Path] | str | Path,
    *,
    genes: Sequence[str] | str | None = None,
    embedding: str | None = None,
    layer: str | None = None,
    units: str | None = None,
    n_neighbors: int = N_REFERENCE,
    n_transcriptome: int = N_TRANSCRIPTOME,
    table_key: str | None = None,
    peers: bool = True,
    path: str | Path | None = None,
    append: bool = False,
) -> AnnData:
    """Collect all reference spots, with embedding, expression of panel and transcriptome, and the RS graph.

    In memory, or with ``path=`` on disk, where slides can be added to them later.

    Parameters
    ----------
    refs
        The references: measured slides with an embedding, AnnData or SpatialData, or paths of such (``.h5ad``, ``.zarr``, a
        folder of them, a pattern). They are not changed. Where the table
        of a SpatialData has no ``obsm["spatial"]``, its spots lie at the centres of the shapes that it annotates.
    genes
        The panel; ``None`` selects it with :func:`spahgc.pp.select_genes`, ``"all"`` takes every gene that is seen in at least
        1 % of all spots. ``"union"`` is for references of different platforms: the genes that :func:`spahgc.pp.select_genes`
        would take of every reference that measured them, of which one is enough; see the notes.
    embedding
        Key of the embedding in ``obsm``; ``None`` takes the only one there is.
    layer
        Layer with the counts; ``None`` takes ``X``. Where genes were taken away, a spot is scaled by its total over all
        genes, which ``obs["spahgc_total_counts"]`` remembers.
    units
        What its values are, as in :func:`spahgc.tl.predict`; ``None`` finds out.
    n_neighbors
        Neighbours of a spot in the RS graph (K = 7 in the paper, section 3.2).
    n_transcriptome
        Genes, at most, that are kept beside the panel for what genes have in common: those that all references share
        and cover best, that is in the largest share of the spots of the reference that covers them worst.
    table_key
        Key of the table of every SpatialData among them; ``None`` takes the only one.
    peers
        Make the RS graph. A fit makes its own, of what the nodes of its graph carry.
    path
        Folder of a bank on disk, such as ``"bank.zarr"``. It keeps the embedding in half precision: each number is
        rounded to 11 binary digits, which changes a cosine similarity by less than 0.001.
    append
        Add the references to the bank at ``path``. They need its genes and an embedding by the same encoder; ``genes``,
        ``embedding``, ``n_neighbors`` and ``n_transcriptome`` are those of the bank. One process may append at a time. A
        process that is ended half-way leaves the bank as it was.

    Returns
    -------
    AnnData of reference spots x panel, slides by name and spots by place, so that the order of ``refs`` and of their
    spots does not matter:

    - ``X``: ``log1p`` counts per 10,000, CSR, float32;
    - ``obs["slide"]``; spots are called ``slide:spot``; and ``obs["patient"]`` where every slide names one;
    - ``obsm[embedding]``: image embedding, spots x dim, float32; ``obsm["spatial"]``: spot centres ``(x, y)``, pixels;
    - ``obsm["spahgc_transcriptome"]``: expression of the best-covered genes, CSR, spots x genes, float32, units of
      ``X``; ``uns["spahgc"]["bank"]["transcriptome"]`` names the genes;
    - ``obsp["spahgc_rs_connectivities"]``: CSR, cosine similarity of ``[embedding ; expression]`` to the
      ``n_neighbors`` most similar spots, within and across slides;
    - ``uns["spahgc"]``: encoder record, names of the slides, parameters, and a picture of every slide that stores its
      image, 20 um a pixel or coarser, by which sections are laid over each other;
    - with ``genes="union"``: ``var["spahgc_n_references"]``, how many references measured a gene, and
      ``varm["spahgc_measured_by"]``, which of them did: genes x references, boolean, in the order of
      ``uns["spahgc"]["bank"]["slides"]``. ``X`` is empty where a reference did not measure a gene; these entries are never
      read, and the RS graph compares spots by genes that all references measured.

    Spots off the tissue (``obs["in_tissue"]``) and spots without a single count are left out, with a warning. With ``path``, it is what :func:`open_bank` returns:
    slides that were appended follow those before them, which for a training is as another seed; and there is an RS graph up
    to 50,000 spots.

    Raises
    ------
    KeyError
        If an embedding or a gene is missing.
    ValueError
        If the references share no gene, come from different encoders, are smaller than ``n_neighbors``, or hold NaN; if a
        slide is in the bank already or stands twice among the references, also if it was embedded again, moved, mirrored,
        turned or compressed; or if its embedding does not fit into half precision.
    FileExistsError
        If there is something at ``path`` and ``append`` is false, or if another process is writing it.
    FileNotFoundError
        If there is no bank to append to.
    RuntimeError
        If another process is appending.
    OSError
        If ``path`` cannot be written; ``errno`` is that of the system.

    Notes
    -----
    ``genes="union"``: a gene counts as measured by a reference that has it among its ``var_names``. The references must share at
    least ten genes, and each must have measured some gene of the panel. What genes have in common is learned from those that all
    references share. A spot of a small panel has a total over few genes, so that each of them has a large share of it: the
    expression of such a reference is divided, before the logarithm, by how many times larger the share of the shared genes
    is there than on the platform where it is smallest. A warning names the number, and
    ``uns["spahgc"]["bank"]["union_scale"]`` keeps it. Where all references measured the same genes nothing differs from
    ``genes=None``. To a bank on disk slides can be appended that lack genes of the panel, as long as they have those of the
    transcriptome.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=60, n_genes=30)
    >>> for slide in refs:
    ...     slide.obsm["X_domains"] = slide.obsm["truth_domains"]  # where sp.pp.embed(slide) would write
    >>> bank = sp.pp.reference_bank(refs, embedding="X_domains")
    >>> bank.shape, bank.obsp["spahgc_rs_connectivities"].shape
    ((120, 30), (120, 120))
    """
    if n_transcriptome < 1:
        raise ValueError(
            f"n_transcriptome must be at least 1, found {n_transcriptome}. The default is {N_TRANSCRIPTOME}."
        )
    if append and path is None:
        raise ValueError("append=True needs path= with the folder of the bank.")
    slides = measured_slides(placed_tables(refs, table_key, "reference"), layer=layer, units=units)
    if path is None:
        return _bank_in_memory(slides, _plan(slides, genes, embedding, n_neighbors, n_transcriptome), rs_graph=peers)
    folder = user_path(path, "path=")
    if append:
        with appended_bank(folder) as version:
            plan = _plan_of_bank(open_bank(folder), slides, genes, embedding, n_neighbors)
            _write(version, slides, plan, peers)
    else:
        with new_bank(folder) as version:
            _write(version, slides, _plan(slides, genes, embedding, n_neighbors, n_transcriptome), peers)
    return open_bank(folder)


def build_bank(
    slides: Mapping[str, MeasuredSlide],
    *,
    genes: Sequence[str] | str | None,
    embedding: str | None,
    n_neighbors: int = N_REFERENCE,
    n_transcriptome: int = N_TRANSCRIPTOME,
    n_abundant: int = 0,
    rs_graph: bool = True,
    apart: bool = False,
) -> AnnData:
    """What :func:`reference_bank` returns in memory, from slides of which each is read once.

    With ``apart`` the caller has made sure that none of them stands there twice; ``n_abundant`` as in
    :func:`spahgc.pp.select_genes`.
    """
    plan = _plan(slides, genes, embedding, n_neighbors, n_transcriptome, n_abundant=n_abundant, apart=apart)
    return _bank_in_memory(slides, plan, rs_graph=rs_graph)


def _bank_in_memory(slides: Mapping[str, MeasuredSlide], plan: _Plan, *, rs_graph: bool) -> AnnData:
    parts = dict(plan.parts(slides))
    units = _common_units({name: part.uns["units"] for name, part in parts.items()})
    bank = _join(list(parts.values()))
    known = plan.measured_by(list(slides))
    bank.var = table_of_genes(plan.panel, known)
    for name, array in arrays_of_genes(known).items():
        bank.varm[name] = array
    found: dict[str, Any] = {}
    if rs_graph:
        graph, found = _rs_graph_of_bank(bank.obsm[plan.key], plan.in_all(bank.X), plan)
        bank.obsp[Obsp.reference_connectivities] = graph
    bank.uns[UNS] = plan.uns(list(slides), units, found)
    return bank


def _pictures(slides: Mapping[str, MeasuredSlide]) -> dict[str, Picture]:
    """Pictures of the slides that bring one."""
    taken = {name: measured_picture(slide) for name, slide in slides.items()}
    return {name: picture for name, picture in taken.items() if picture is not None}


def bank_pictures(bank: AnnData) -> dict[str, Picture]:
    """Pictures of the references, as far as they brought one, by name."""
    made = bank.uns[UNS][Uns.bank]
    names = [str(name) for name in made["slides"]]
    return {names[int(i)]: Picture.from_record(record) for i, record in made.get(PICTURES, {}).items()}


def _resolutions(slides: Mapping[str, MeasuredSlide]) -> dict[str, float]:
    """Microns per pixel of the slides of which they are known."""
    return {name: slide.mpp for name, slide in slides.items() if slide.mpp is not None}


def bank_mpp(bank: AnnData) -> dict[str, float]:
    """Microns per pixel of the references of which they are known, by name."""
    made = bank.uns[UNS][Uns.bank]
    names = [str(name) for name in made["slides"]]
    return {names[int(i)]: float(mpp) for i, mpp in made.get(MPP, {}).items()}


def bank_patients(bank: AnnData) -> dict[str, str]:
    """Patient of every reference, if each of them names one."""
    if Obs.patient not in bank.obs:
        return {}
    slides = bank.obs[[Obs.slide, Obs.patient]].astype(str).drop_duplicates()
    return dict(zip(slides[Obs.slide], slides[Obs.patient], strict=True))


@dataclass(frozen=True)
class _Plan:
    """What all slides of a bank have in common."""

    key: str
    record: dict[str, Any]
    panel: list[str]
    covered: list[str]
    n_neighbors: int
    slides: tuple[str, ...] = ()
    """Slides that are in the bank already, and the units of their expression."""
    units: str | None = None
    n_genes_measured: int | None = None
    """Genes of the reference that was measured in fewest, as far as that is known."""
    gene_selection: Mapping[str, str] = field(default_factory=dict)
    """What ranked the genes of slides on which it was something else than on most."""
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    """Pictures of the slides that bring one, by name; also of those that are in the bank already."""
    mpp: Mapping[str, float] = field(default_factory=dict)
    """Microns per pixel of the slides of which they are known, by name; also of those that are in the bank already."""
    measured: Mapping[str, np.ndarray] | None = None
    """With ``genes="union"``: which genes of the panel each slide measured, by name; also those in the bank already."""
    scale: UnionScale | None = None
    """With ``genes="union"``: what expression is divided by; also that of the slides in the bank already."""

    def measured_by(self, slides: list[str]) -> np.ndarray | None:
        """Which of these slides measured each gene, genes x slides; ``None`` where all genes are of all slides."""
        return None if self.measured is None else np.array([self.measured[name] for name in slides]).T

    def in_all(self, expression: csr_matrix) -> csr_matrix:
        """The columns of the panel's expression that all slides measured."""
        known = None if self.measured is None else np.all(list(self.measured.values()), axis=0)
        return expression if known is None or known.all() else expression[:, np.flatnonzero(known)]

    def parts(self, slides: Mapping[str, MeasuredSlide]) -> Iterator[tuple[str, AnnData]]:
        """The spots of each slide as they stand in the bank."""
        for name, slide in slides.items():
            factor = 1.0 if self.scale is None else self.scale.factors[name]
            part = _slide_part(slide, self.key, self.panel, self.covered, factor)
            _check_size(part, name, self.n_neighbors)
            yield name, part

    def uns(self, slides: list[str], units: str, found: dict[str, Any]) -> dict[str, Any]:
        """Record of a bank of these slides; of the RS graph it says how it was found unless it is exact."""
        record = {
            "slides": slides,
            "embedding": self.key,
            "n_neighbors": self.n_neighbors,
            "units": units,
            "transcriptome": self.covered,
            **({GENE_SELECTION: dict(self.gene_selection)} if self.gene_selection else {}),
        }
        if self.n_genes_measured is not None:
            record[Uns.n_genes_measured] = self.n_genes_measured
        if self.scale is not None:
            record[SCALE] = self.scale.record(slides)
        if self.mpp:
            record[MPP] = {f"{i}": float(self.mpp[name]) for i, name in enumerate(slides) if name in self.mpp}
        if self.pictures:
            seen = {f"{i}": self.pictures.get(name) for i, name in enumerate(slides)}
            record[PICTURES] = {i: picture.to_record() for i, picture in seen.items() if picture is not None}
        return {
            Uns.embeddings: {self.key: self.record} if self.record else {},
            Uns.bank: record | ({Uns.search: found} if "recall" in found else {}),
        }


def _plan(
    slides: Mapping[str, MeasuredSlide],
    genes: Sequence[str] | str | None,
    embedding: str | None,
    n_neighbors: int,
    n_transcriptome: int,
    *,
    n_abundant: int = 0,
    apart: bool = False,
) -> _Plan:
    """What the slides of a new bank have in common."""
    first = next(iter(slides.values()))
    key = find_embedding(first.adata, embedding, first.label)
    record = check_embeddings(slides, key)
    if not apart:
        check_apart(slides, key)
    panel, covered = _panel(slides, genes, n_abundant), covered_genes(slides, n_transcriptome)
    measured, scale = None, None
    if _is_union(genes):
        measured, scale = _measured(slides, panel), UnionScale.fit(slides, covered)
        warn_of_scale(slides, scale)
    else:
        _check_same_genes(slides)
    fewest = min(len(slide.var_names) for slide in slides.values())
    selection = {name: slide.gene_selection for name, slide in slides.items() if slide.gene_selection}
    return _Plan(
        key,
        record,
        panel,
        covered,
        int(n_neighbors),
        n_genes_measured=fewest,
        gene_selection=selection,
        pictures=_pictures(slides),
        mpp=_resolutions(slides),
        measured=measured,
        scale=scale,
    )


def _is_union(genes: object) -> bool:
    return isinstance(genes, str) and genes == UNION_GENES


def _panel(slides: Mapping[str, MeasuredSlide], genes: Sequence[str] | str | None, n_abundant: int) -> list[str]:
    """The genes that were asked for, by names or by a word."""
    if genes is None:
        return selected_genes(slides, n_abundant=n_abundant)
    if _is_union(genes):
        return union_genes(slides, n_abundant=n_abundant)
    if isinstance(genes, str) and genes == ALL_GENES:
        return seen_genes(slides)
    return check_genes(genes, common_genes(slides), "the genes that all references share")


def _measured(slides: Mapping[str, MeasuredSlide], panel: list[str]) -> dict[str, np.ndarray]:
    """Which genes of a panel each slide measured: those that are among its own."""
    return {name: np.asarray(pd.Index(panel).isin(slide.var_names)) for name, slide in slides.items()}


def _check_same_genes(slides: Mapping[str, MeasuredSlide]) -> None:
    """Say so where references were measured in so different genes that their totals cannot be compared."""
    genes = {name: slide.var_names for name, slide in slides.items()}

    def share(name: str, own: pd.Index) -> float:
        of_genes = column_sums(slides[name].counts())
        return float(of_genes[slides[name].var_names.isin(own)].sum() / of_genes.sum())

    if len(set(map(len, genes.values()))) > 1:
        warn_of_other_genes(genes, {name: slide.totals is not None for name, slide in slides.items()}, share)


def _plan_of_bank(
    bank: AnnData,
    slides: Mapping[str, MeasuredSlide],
    genes: Sequence[str] | None,
    embedding: str | None,
    n_neighbors: int,
) -> _Plan:
    """What slides must have in common with a bank to which they are added; refuses those that do not."""
    made = bank.uns[UNS][Uns.bank]
    key, panel, known = made["embedding"], list(bank.var_names), list(made["slides"])
    if embedding not in (None, key):
        raise ValueError(f'the bank was made with embedding="{key}", embedding="{embedding}" cannot be added to it.')
    is_same = _is_union(genes) and measured_by(bank) is not None
    if genes is not None and not is_same and list(genes) != panel:
        raise ValueError(f"genes= differs from the panel of the bank ({quoted(panel)}). Leave it out.")
    if n_neighbors not in (N_REFERENCE, made["n_neighbors"]):
        raise ValueError(
            f"the bank was made with n_neighbors={made['n_neighbors']}, found {n_neighbors}. Leave it out."
        )
    twice = [name for name in slides if name in known]
    if twice:
        raise ValueError(
            f"{quoted(twice)} are in the bank already. Leave them out, or give other slides a name of their own: "
            f'adata.obs["{Obs.slide}"] = "..."'
        )
    record, width = check_embeddings(slides, key), bank.obsm[key].shape[1]
    first = next(iter(slides.values()))
    label = first.label
    check_same_encoder(record, encoder_records(bank).get(key, {}), key, label, "the bank")
    found = first.embedding(key).shape[1]
    if found != width:
        raise ValueError(
            f'obsm["{key}"] has {found} columns in {label} and {width} in the bank. Embed it as the others.'
        )
    check_apart(slides, key, bank_looks(bank))
    shared = common_genes(slides)
    check_genes(
        made["transcriptome"], shared, "the genes of the new references, which must have the bank's transcriptome"
    )
    measured, scale = None, None
    coverage = measured_by(bank)
    if coverage is None:
        check_genes(panel, shared, "the genes of the new references, which must have those of the bank's panel")
        _check_same_genes(slides)
    else:
        measured = {name: coverage[:, i] for i, name in enumerate(known)} | _measured(slides, panel)
        _check_some_measured(slides, measured)
        scale = UnionScale.from_record(made[SCALE], known).with_slides(slides, made["transcriptome"])
        warn_of_scale(slides, scale)
    of_bank = list(made["transcriptome"]), int(made["n_neighbors"]), tuple(known), str(made["units"])
    fewest = min([int(made.get(Uns.n_genes_measured, 0)), *(len(slide.var_names) for slide in slides.values())])
    return _Plan(
        key,
        encoder_records(bank).get(key, {}),
        panel,
        *of_bank,
        n_genes_measured=fewest or None,
        gene_selection=made.get(GENE_SELECTION, {}),
        pictures={**bank_pictures(bank), **_pictures(slides)},
        mpp={**bank_mpp(bank), **_resolutions(slides)},
        measured=measured,
        scale=scale,
    )


def _check_some_measured(slides: Mapping[str, MeasuredSlide], measured: Mapping[str, np.ndarray]) -> None:
    without = [name for name in slides if not measured[name].any()]
    if without:
        raise ValueError(
            f"{quoted(without)} measured no gene of the bank's panel, so they tell nothing of it. Leave them out."
        )


def _write(version: Version, slides: Mapping[str, MeasuredSlide], plan: _Plan, peers: bool) -> None:
    """Write slides to disk, one after another, and what is known of all spots together."""
    units = {"the bank": plan.units} if plan.units else {}
    for name, part in plan.parts(slides):
        version.add(part, plan.key)
        units[name] = part.uns["units"]
    graph: csr_matrix | None = None
    found: dict[str, Any] = {}
    if peers and version.n_spots <= MAX_RS_SPOTS:
        graph, found = _rs_graph_of_bank(version.rows(), plan.in_all(version.expression()), plan)
    names = [*plan.slides, *slides]
    version.finish({UNS: plan.uns(names, _common_units(units), found)}, graph, plan.measured_by(names))


def _rs_graph_of_bank(z: Any, y: Any, plan: _Plan) -> tuple[csr_matrix, dict[str, Any]]:
    """RS graph of a bank, by the embedding of the patch itself, and how it was found."""
    return _search_rs_graph(plain_rows(z, plan.record), y, plan.n_neighbors)


def plain_rows(z: Any, record: dict[str, Any]) -> Any:
    """:func:`plain_embedding` of an array in memory, or of rows on disk, which are not read."""
    return z.first_columns(plain_columns(record)) if isinstance(z, StoredRows) else plain_embedding(z, record)


def embedding_rows(bank: AnnData, key: str) -> Any:
    """The embedding of a bank: the array in memory, float32, or rows on disk that are read in blocks."""
    stored = stored_rows(bank.obsm[key])
    return embedding_matrix(bank, key, "the bank") if stored is None else stored


def make_rs_graph(z: Any, y: Any, n_neighbors: int) -> csr_matrix:
    """RS graph: cosine similarity of ``[z ; y]``, each spot to its most similar others."""
    return _search_rs_graph(z, y, n_neighbors)[0]


def _search_rs_graph(z: Any, y: Any, n_neighbors: int) -> tuple[csr_matrix, dict[str, Any]]:
    features = Joined(z, y)
    return search_neighbors(features, features, n_neighbors, exclude_self=True)


def is_bank(data: Any) -> bool:
    """Whether the object is what :func:`reference_bank` returns."""
    return isinstance(data, AnnData) and Uns.bank in data.uns.get(UNS, {})


def check_bank(bank: Any) -> None:
    """Refuse what is no bank."""
    if not is_bank(bank):
        raise ValueError(
            "the bank must be what spahgc.pp.reference_bank or spahgc.pp.open_bank returns, found "
            f"{type(bank).__name__} without the record of one, so it is no bank of references."
        )


def check_embeddings(slides: Mapping[str, MeasuredSlide], key: str) -> dict[str, Any]:
    """Every slide has the embedding, of the same encoder and width; returns the record."""
    first, *others = slides.values()
    record, width = first.encoder_record(key), first.embedding(key).shape[1]
    for slide in others:
        found = slide.embedding(key).shape[1]
        check_same_encoder(slide.encoder_record(key), record, key, slide.label, first.label)
        if found != width:
            raise ValueError(
                f'obsm["{key}"] has {found} columns in {slide.label} and {width} in {first.label}. '
                "Embed all slides with the same encoder."
            )
    return record


def check_apart(slides: Mapping[str, MeasuredSlide], key: str, known: Mapping[str, Look] | None = None) -> None:
    """Refuse a slide that stands twice among the references, or in a bank to which it is added, under whatever name."""
    looks = {name: slide_look(slide, key) for name, slide in slides.items()}
    with_known = (
        (name, other, overlap(look, known_look))
        for other, known_look in (known or {}).items()
        for name, look in looks.items()
    )
    for name, other, found in (*overlaps(looks), *with_known):
        if found is not None:
            raise ValueError(
                f'references "{name}" and "{other}" are the same slide, or parts of one: {found} look the same or lie in '
                "the same constellation. It would count twice, and give itself away where it is held out. Leave one of "
                "the two out."
            )


def slide_look(slide: MeasuredSlide, key: str) -> Look:
    """What a slide looks like."""
    return _look(slide.embedding(key), slide.encoder_record(key), slide.xy, slide.padded, slide.padded_around)


def _look(
    z: np.ndarray,
    record: Mapping[str, Any],
    xy: np.ndarray,
    padded: np.ndarray | None,
    around: np.ndarray | None,
) -> Look:
    patch = plain_embedding(z, record)
    return Look(z, xy, padded, None if patch.shape == z.shape else patch, around)


def bank_looks(bank: AnnData) -> dict[str, Look]:
    """What the slides of a bank look like, by name; of an embedding on disk nothing is read yet."""
    key, xy = bank_embedding(bank), np.asarray(bank.obsm[SPATIAL])
    z = as_rows(bank.obsm[key])
    own = plain_rows(z, encoder_records(bank).get(key, {}))
    names, number = np.unique(bank.obs[Obs.slide].astype(str).to_numpy(), return_inverse=True)
    order = np.argsort(number, kind="stable")
    rows = np.split(order, np.searchsorted(number[order], np.arange(1, len(names))))
    return {
        str(name): Look(SomeRows(z, chosen), xy[chosen], patch=None if own.shape == z.shape else SomeRows(own, chosen))
        for name, chosen in zip(names, rows, strict=True)
    }


def _slide_part(slide: MeasuredSlide, key: str, panel: list[str], covered: list[str], factor: float = 1.0) -> AnnData:
    """The spots of a slide as they stand in a bank, their expression divided by a number before the logarithm."""
    label, xy, empty = slide.label, slide.xy, ~slide.measured
    expression = divided(slide.expression(), factor)
    if empty.all():
        raise ValueError(f"{label} has no counts in any spot. Check X, or pass layer= with its counts.")
    if empty.any():
        warn(
            f"{label} has {int(empty.sum())} spots without a single count "
            f"({quoted(slide.obs_names[empty])}); they are left out of the references.",
            stacklevel=4,
        )
    z = slide.embedding(key)
    order = canonical_order(xy, z)
    order = order[~empty[order]]
    expression = expression[order]
    patients = patients_of(slide.adata)
    of_patient = {Obs.patient: next(iter(patients))} if len(patients) == 1 else {}
    names = [f"{slide.name}:{spot}" for spot in slide.obs_names[order]]
    return AnnData(
        _columns(expression, slide.var_names.get_indexer(panel)),
        obs=pd.DataFrame({Obs.slide: slide.name, **of_patient}, index=names),
        var=pd.DataFrame(index=panel),
        obsm={
            key: z[order],
            SPATIAL: xy[order],
            Obsm.transcriptome: expression[:, slide.var_names.get_indexer(covered)],
        },
        # Known of all genes: those of the panel may have no negative value.
        uns={"units": UNITS_AS_GIVEN if slide.units_of_counts == TRANSFORMED else UNITS},
    )


def _columns(expression: csr_matrix, columns: np.ndarray) -> csr_matrix:
    """Columns by number; those of -1 are empty."""
    there = np.flatnonzero(columns >= 0)
    if len(there) == len(columns):
        return expression[:, columns]
    part = expression[:, columns[there]].tocoo()
    return csr_matrix((part.data, (part.row, there[part.col])), shape=(expression.shape[0], len(columns)))


def _common_units(units: dict[str, str]) -> str:
    """Units of the expression; refuses references of which only some are transformed already."""
    transformed = [name for name, unit in units.items() if unit == UNITS_AS_GIVEN]
    if transformed and len(transformed) < len(units):
        raise ValueError(
            f"{quoted(transformed)} hold negative values, which are no counts, and the other references do not. "
            "Pass layer= with the counts of all."
        )
    return UNITS_AS_GIVEN if transformed else UNITS


def _check_size(part: AnnData, name: str, n_neighbors: int) -> None:
    if part.n_obs <= n_neighbors:
        raise ValueError(
            f'reference "{name}" has {part.n_obs} spots with counts, too few for {n_neighbors} neighbours of a spot. '
            "Leave it out, or ask for fewer neighbours."
        )


def _join(parts: list[AnnData]) -> AnnData:
    """One object of all, which takes the arrays in ``obsm`` away from them: none is held twice."""
    joined = AnnData(
        csr_matrix(vstack([part.X for part in parts])),
        obs=joined_obs([part.obs for part in parts]),
        var=parts[0].var.copy(),
    )
    for key in list(parts[0].obsm):
        blocks = [part.obsm.pop(key) for part in parts]
        joined.obsm[key] = csr_matrix(vstack(blocks)) if key == Obsm.transcriptome else _stacked(blocks)
    return joined


def _stacked(blocks: list[np.ndarray]) -> np.ndarray:
    """All blocks one below the other; each is let go of once it has been copied."""
    if len(blocks) == 1:
        return blocks.pop()
    out, start = np.empty((sum(map(len, blocks)), *blocks[0].shape[1:]), np.result_type(*blocks)), 0
    while blocks:
        block = blocks.pop(0)
        out[start : start + len(block)] = block
        start += len(block)
    return out


def open_references(refs: Any) -> Any:
    """Slides or the bank that lie at a path; whatever else references are handed over as passes through."""
    refs = stored_slides(refs, "reference")
    return open_bank(refs) if isinstance(refs, str | Path) else refs


def as_bank(
    refs: AnnData | Iterable[AnnData] | Mapping[str, MeasuredSlide] | str | Path,
    *,
    genes: Sequence[str] | str | None,
    embedding: str | None,
    layer: str | None,
    units: str | None = None,
    parameters: Parameters,
    rs_graph: bool = True,
    apart: bool = False,
) -> AnnData:
    """References as a bank of one's own, with the RS graph that the parameters ask for, unless it is not wanted.

    With ``apart`` the caller has made sure that no slide stands among them twice.
    """
    if isinstance(genes, str) and genes not in (ALL_GENES, UNION_GENES):
        raise ValueError(
            f'genes="{genes}" is not known. Pass a list of genes, "{ALL_GENES}", "{UNION_GENES}" for references of different '
            "platforms, or None for a selection."
        )
    refs = open_references(refs)
    if not is_bank(refs):
        is_read = isinstance(refs, Mapping) and all(isinstance(slide, MeasuredSlide) for slide in refs.values())
        slides = refs if is_read else measured_slides(refs, layer=layer, units=units)
        return build_bank(
            slides,
            genes=genes,
            embedding=embedding,
            n_neighbors=parameters.n_reference,
            n_abundant=parameters.n_abundant,
            rs_graph=rs_graph,
            apart=apart,
        )
    made_with = bank_embedding(refs)
    if embedding is not None and embedding != made_with:
        raise ValueError(
            f'the bank was made with embedding="{made_with}", embedding="{embedding}" was asked for. '
            "Make a bank with that embedding."
        )
    if _is_union(genes) and measured_by(refs) is None:
        raise ValueError(
            f'genes="{UNION_GENES}" was asked for, and the bank holds genes that all of its references measured. Make it with '
            f'spahgc.pp.reference_bank(refs, genes="{UNION_GENES}"), or pass the slides themselves.'
        )
    genes = None if isinstance(genes, str) else genes  # a bank has lost the genes outside its panel
    panel = list(refs.var_names) if genes is None else check_genes(genes, refs.var_names, "the bank")
    if stored_rows(refs.obsm[made_with]) is not None:
        return _with_its_embedding_on_disk(refs, panel, parameters.n_reference)
    bank = refs.copy() if genes is None else refs[:, panel].copy()
    if genes is not None or bank.uns[UNS][Uns.bank]["n_neighbors"] != parameters.n_reference:
        if rs_graph:
            patches = plain_embedding(bank.obsm[made_with], encoder_records(bank).get(made_with, {}))
            shared = bank.X if in_all(bank).all() else csr_matrix(bank.X)[:, np.flatnonzero(in_all(bank))]
            bank.obsp[Obsp.reference_connectivities] = make_rs_graph(patches, shared, parameters.n_reference)
        bank.uns[UNS][Uns.bank]["n_neighbors"] = parameters.n_reference
    return bank


def _with_its_embedding_on_disk(bank: AnnData, panel: list[str], n_neighbors: int) -> AnnData:
    """A bank of one's own in memory, of which the embedding stays where it is, without an RS graph."""
    made = bank.uns[UNS]
    return AnnData(
        csr_matrix(in_memory(bank.X))[:, bank.var_names.get_indexer(panel)],
        obs=bank.obs.copy(),
        var=bank.var.loc[panel].copy(),
        obsm={
            bank_embedding(bank): bank.obsm[bank_embedding(bank)],
            SPATIAL: np.array(bank.obsm[SPATIAL]),
            Obsm.transcriptome: csr_matrix(in_memory(bank.obsm[Obsm.transcriptome])),
        },
        varm={name: np.asarray(part)[bank.var_names.get_indexer(panel)] for name, part in bank.varm.items()},
        uns={UNS: {**made, Uns.bank: {**made[Uns.bank], "n_neighbors": int(n_neighbors)}}},
    )


def bank_embedding(bank: AnnData) -> str:
    """Key of the embedding that a bank was made with."""
    return str(bank.uns[UNS][Uns.bank]["embedding"])


def bank_record(bank: AnnData) -> dict[str, Any]:
    """What a prediction owes to its bank, in types that ``uns`` can hold."""
    key, made = bank_embedding(bank), bank.uns[UNS][Uns.bank]
    return {
        "references": [str(name) for name in made["slides"]],
        "genes": [str(gene) for gene in bank.var_names],
        "units": str(made["units"]),
        "embedding": key,
        "encoder": encoder_records(bank).get(key, {}),
        **({GENE_SELECTION: dict(made[GENE_SELECTION])} if GENE_SELECTION in made else {}),
        **{name: int(made[name]) for name in (Uns.n_genes_measured,) if name in made},
    }


def select_embedding_columns(spots: Spots, bank: AnnData, parameters: Parameters) -> Spots:
    """The spots with the columns of the embedding that a model of these parameters looks at, as it looks at them."""
    if parameters.n_axes:
        return spots
    z = plain_rows(spots.z, encoder_records(bank).get(bank_embedding(bank), {}))
    return replace(spots, z=standardize(np.asarray(z[:]), spots.slide) if parameters.standardized else z)


def embedding_blocks(bank: AnnData) -> tuple[tuple[int, int], ...]:
    """Columns of the embedding that belong together: patch sizes and depths of the encoder."""
    key = bank_embedding(bank)
    blocks = context_blocks(encoder_records(bank).get(key, {}), bank.obsm[key].shape[1])
    return tuple((block.start, block.stop) for block in blocks)


def target_spots(target: AnnData, key: str) -> Spots:
    """Positions, embedding and patients of a target, read and checked, and nothing else of it."""
    check_anndata(target, "the target")
    xy = check_coordinates(target, "the target")
    check_single_slide(target, "the target")
    z = in_float(embedding_matrix(target, key, "the target"))
    spots = Spots.without_expression(z, xy, picture=stored_picture(target, xy, "the target"))
    spots = replace(spots, mpp=known_mpp(target), patients=frozenset(patients_of(target)))
    made = target.uns.get(UNS, {}).get(Uns.registration)
    return spots if made is None else replace(spots, registration=pairs_of_record(made))


def check_target(
    spots: Spots,
    record: Mapping[str, Any],
    bank: AnnData,
    padded: np.ndarray | None = None,
    around: np.ndarray | None = None,
    *,
    own: str | None = None,
) -> None:
    """Refuse a target that cannot be predicted from this bank.

    Parameters
    ----------
    spots
        Its spots, from :func:`target_spots`.
    record
        Its encoder record.
    bank
        The references.
    padded
        Which of its patches reach past the image, boolean; ``None`` where nobody knows.
    around
        Spots of which any patch of the context does, boolean; ``None`` where nobody knows.
    own
        Name of the reference that is the measured part of the target, the only one that may be of its slide.
    """
    key = bank_embedding(bank)
    check_same_encoder(dict(record), encoder_records(bank).get(key, {}), key, "the target", "the references")
    z = np.asarray(spots.z)
    if z.shape[1] != bank.obsm[key].shape[1]:
        raise ValueError(
            f'obsm["{key}"] has {z.shape[1]} columns in the target and {bank.obsm[key].shape[1]} in the references. '
            "Embed all slides with the same encoder."
        )
    stored = stored_rows(bank.obsm[key])
    known: Rows = np.asarray(bank.obsm[key]) if stored is None else stored
    if bank.obsm[key].dtype == np.float16:
        z = z.astype(np.float16).astype(np.float32)  # as it would stand there
    slide = bank.obs[Obs.slide].astype(str).to_numpy()
    others = np.flatnonzero(slide != own)
    known = known if len(others) == len(slide) else SomeRows(known, others)
    shared = others[shared_spots(spots.xy, z, np.asarray(bank.obsm[SPATIAL])[others], known)]
    if len(shared):
        names = sorted(set(slide[shared]))
        raise ValueError(
            f"the target is also among the references: {len(shared)} of its spots stand in {quoted(names)}. Their own "
            "expression would reach their prediction. Leave that slide out of the references."
        )
    looks = {name: look for name, look in bank_looks(bank).items() if name != own}
    check_target_apart(target_look(spots, record, padded, around), looks)
    if len(spots) < 2:
        raise ValueError("the target has a single spot: it has no neighbour in the plane. Predict whole slides.")


def target_look(spots: Spots, record: Mapping[str, Any], padded: np.ndarray | None, around: np.ndarray | None) -> Look:
    """What a target looks like; parameters as in :func:`check_target`."""
    return _look(np.asarray(spots.z), record, spots.xy, padded, around)


def check_target_apart(target: Look, others: Mapping[str, Look]) -> None:
    """Refuse a target that looks like a slide, by name, from which it would be predicted."""
    for name, look in others.items():
        found = overlap(target, look)
        if found is not None:
            raise ValueError(
                f'the target is also among the references, slightly changed: {found} look the same in "{name}", or lie '
                "there in the same constellation. Their own expression would reach their prediction. Leave that slide out "
                "of the references."
            )
