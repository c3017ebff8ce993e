"""cellxgene: an AnnData whose X is the prediction, ready for the viewer and for CELLxGENE Discover's schema."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from spahgc._files import write_h5ad
from spahgc._keys import SPATIAL, Obs
from spahgc._validate import quoted
from spahgc.io._exports.content import Content, distinct, output_file, predicted_spots, printable, read_content

if TYPE_CHECKING:
    from spatialdata import SpatialData

ENDING = ".h5ad"
EMBEDDING = "X_spatial"
"""Key of ``obsm``: where cellxgene draws a spot; y runs upwards there."""
SCHEMA_EMBEDDING = "X_slide"
"""The same where the schema is followed, which keeps the other name for itself."""
GENE_IDS = "gene_ids"
"""Column of ``var`` with Ensembl identifiers, as the readers write it."""
ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?")
REQUIRED = (
    "assay_ontology_term_id",
    "cell_type_ontology_term_id",
    "development_stage_ontology_term_id",
    "disease_ontology_term_id",
    "donor_id",
    "is_primary_data",
    "self_reported_ethnicity_ontology_term_id",
    "sex_ontology_term_id",
    "suspension_type",
    "tissue_ontology_term_id",
    "tissue_type",
)
"""Columns that the schema of CELLxGENE Discover asks for, as of its version 7."""
ORGANISM, TITLE = "organism_ontology_term_id", "title"
"""Entries of ``uns`` that it asks for."""
SPATIAL_ASSAYS = (
    *("EFO:0022857", "EFO:0022858", "EFO:0022859", "EFO:0022860", "EFO:0920058"),  # Visium
    *("EFO:0009920", "EFO:0030062", "EFO:0920001", "EFO:0920002", "EFO:0920003"),  # beads
)
"""Terms of assays to which it grants places, ``obsm["spatial"]``."""
OF_THE_ARRAY = (Obs.array_row, Obs.array_col, Obs.in_tissue)
"""Columns that it reads as those of Space Ranger, which a prediction is no output of."""
DEFAULTS: Mapping[str, object] = {"is_primary_data": False, "suspension_type": "na"}
"""What is true of every predicted slide: it is no primary data, and its spots were never in suspension."""


def write_cellxgene(
    data: AnnData | SpatialData,
    path: str | os.PathLike[str],
    *,
    key: str = "spahgc",
    genes: str | Sequence[str] | None = None,
    groups: str | None = None,
    metadata: Mapping[str, object] | None = None,
    table_key: str | None = None,
) -> Path:
    """Write a prediction as a file that ``cellxgene launch`` opens, with the columns of CELLxGENE's schema on request.

    Parameters
    ----------
    data
        A slide with a prediction, or a SpatialData with such a table.
    path
        The file, ``.h5ad``; one that is there is replaced.
    key
        Key of the prediction.
    genes
        Genes of its panel to write; ``None`` takes all.
    groups
        Column of ``obs`` to write beside the others; ``None`` takes ``obs[f"{key}_domain"]``, where it is there.
    metadata
        ``title``, ``organism_ontology_term_id`` and the columns that CELLxGENE Discover's schema (7.1) asks for, a value
        each for the whole slide, e.g. ``{"title": "Case 7", "tissue_ontology_term_id": "UBERON:0000310", ...}``; an error
        names what is missing. A column that ``obs`` has counts where it is not named here. ``None`` writes a file for the
        viewer, which needs none of them.
    table_key
        Key of the table of a SpatialData; ``None`` takes the only one.

    Returns
    -------
    The path. Written are, of the spots that were predicted,

    - `X`: predicted ``log1p`` counts per 10,000, CSR, float32;
    - `obs`: the slide, the groups, ``support``, columns of the array, and those of `metadata`; texts are categorical;
    - `obsm["spatial"]`: centres (x, y), pixels of the full-resolution image; `obsm["X_spatial"]`: the same with y upwards,
      where cellxgene draws them;
    - `uns`: `title`, and `spahgc_prediction`, which says that these values were predicted and not measured;
    - with `metadata`: `var` is named by Ensembl identifiers, and has `symbol` and `feature_is_filtered`; the organism stands
      in `uns`; columns of the array are left out; `obsm["X_spatial"]` is called `obsm["X_slide"]`, and `obsm["spatial"]`
      stands beside it for kinds of Visium and bead arrays alone, with `uns["spatial"]["is_single"]`, false.

    Notes
    -----
    Which terms of an ontology are right, and whether they are still in use, ``cellxgene-schema validate`` says: of Visium it
    takes its kinds alone (``EFO:0022857`` and others), not ``EFO:0010961``. Discover also asks for the measured counts in
    `raw`, which a prediction does not have: a file of this function is for the viewer and for exchange, and that one error
    stays.

    Raises
    ------
    KeyError
        If prediction, column or coordinates are not there, a gene is outside the panel, or, with `metadata`, identifiers of
        the genes are not there.
    ValueError
        If the path ends otherwise, the panel is empty, no spot was predicted, the object holds several slides, or something
        that the schema asks for is missing.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import anndata as ad
    >>> import spahgc as sp
    >>> (slide,) = sp.datasets.simulated(1, n_patients=1, n_spots=40, n_genes=20)
    >>> slide.layers["spahgc"] = slide.layers["truth"]
    >>> path = sp.io.write_cellxgene(slide, pathlib.Path(tempfile.mkdtemp()) / "slide.h5ad")
    >>> ad.read_h5ad(path).obsm["X_spatial"].shape
    (40, 2)
    """
    file = output_file(path, ENDING)
    content = predicted_spots(read_content(data, key=key, genes=genes, groups=groups, table_key=table_key))
    written = _table(content)
    if metadata is not None:
        _describe(written, content, metadata)
    for column in written.obs.columns:  # cellxgene knows numbers, booleans and categories
        if written.obs[column].dtype == object or str(written.obs[column].dtype) in ("str", "string"):
            written.obs[column] = written.obs[column].astype(str).astype("category")
    write_h5ad(written, file)
    return file


def _table(content: Content) -> AnnData:
    source = content.table.obs
    obs = pd.DataFrame(index=pd.Index(distinct(content.spots)))
    for column in (Obs.slide, Obs.patient, *OF_THE_ARRAY):
        if column in source:
            obs[column] = source[column].to_numpy()
    if content.groups is not None:
        obs[printable(content.groups.column).replace("/", "_")] = content.groups.categorical
    if content.support is not None:
        obs["support"] = content.support
    table = AnnData(csr_matrix(content.values), obs=obs, var=pd.DataFrame(index=pd.Index(distinct(content.genes))))
    table.obsm[SPATIAL] = content.xy
    table.obsm[EMBEDDING] = (content.xy * (1, -1)).astype(np.float32)
    table.uns[TITLE] = printable(content.name)
    table.uns["spahgc_prediction"] = f"predicted by spahgc, not measured; {content.units}"
    return table


def _describe(table: AnnData, content: Content, metadata: Mapping[str, object]) -> None:
    """Write what the schema asks for; all that is missing is named at once."""
    known: dict[str, Any] = {**DEFAULTS, **metadata}
    asked = (*REQUIRED, ORGANISM)
    columns = [name for name in asked if name in known or name in content.table.obs]
    missing = [name for name in asked if name not in columns]
    unknown = [name for name in metadata if name not in (*asked, TITLE)]
    if missing or unknown:
        said = [f"it lacks {quoted(missing, len(asked))}"] if missing else []
        said += [f"it has {quoted(unknown)}, which the schema does not know"] if unknown else []
        raise ValueError(
            f"metadata= is not what CELLxGENE's schema asks for: {', and '.join(said)}. Give each a term of its ontology, "
            '"unknown" where the schema allows that, or leave metadata= out for the viewer.'
        )
    for name in columns:
        table.obs[name] = known[name] if name in known else content.table.obs[name].to_numpy()
    organisms = table.obs.pop(ORGANISM).astype(str).unique()
    if len(organisms) > 1:
        raise ValueError(
            f'obs["{ORGANISM}"] holds several: {quoted(organisms)}. A slide has one; name it in metadata=.'
        )
    table.uns[ORGANISM] = organisms[0]
    table.uns[TITLE] = str(known.get(TITLE, table.uns[TITLE]))
    source = content.table.var.loc[content.genes]
    names = source[GENE_IDS].astype(str).to_list() if GENE_IDS in source else content.genes
    if not all(ENSEMBL.fullmatch(name) for name in names):
        where = f'var["{GENE_IDS}"]' if GENE_IDS in source else "var_names"
        raise KeyError(
            f"{where} holds no Ensembl identifiers ({quoted(names, 3)}), by which CELLxGENE's schema names genes. Write them "
            f'into var["{GENE_IDS}"], or leave metadata= out.'
        )
    table.var["symbol"] = table.var_names.to_numpy()  # feature_name is a column that Discover writes
    table.var["feature_is_filtered"] = False
    table.var_names = [name.partition(".")[0] for name in names]
    _place_by_schema(table)


def _place_by_schema(table: AnnData) -> None:
    """Places as the schema has them, which says which of its assays have some."""
    table.obs = table.obs.drop(columns=[column for column in OF_THE_ARRAY if column in table.obs])
    table.obsm[SCHEMA_EMBEDDING] = table.obsm.pop(EMBEDDING)
    if table.obs["assay_ontology_term_id"].isin(SPATIAL_ASSAYS).all():
        table.uns[SPATIAL] = {"is_single": False}
    else:
        del table.obsm[SPATIAL]
