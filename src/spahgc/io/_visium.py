"""Visium slides: the outputs of Space Ranger, all versions."""

from __future__ import annotations

import os

from anndata import AnnData

from spahgc._slides.resolution import refuse_touching_spots
from spahgc.io._space_ranger import BINS_FOLDER, OUTS, finish_slide, pitch_mpp, read_slide, run_folder
from spahgc.io._write_library import MPP, SPOT_DIAMETER

PITCH_UM = 100.0
"""Distance of a spot to its six neighbours on every Visium array."""
PITCH_TOLERANCE = 0.05
"""Relative difference of the two directions of the array; registration to an image stretches it by a few per mille."""


def visium(
    path: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    library_id: str | None = None,
    counts: str | None = None,
    prefix: str | None = None,
    genome: str | None = None,
) -> AnnData:
    """Read a Visium slide from the output of Space Ranger 1, 2, 3 or 4, CytAssist included.

    Parameters
    ----------
    path
        Folder of the run, or its ``outs/``: it holds the counts and ``spatial/``. The files of ``spatial/`` may lie beside
        the counts, begin with the name of a sample, and be packed (``.gz``), as deposits of GEO have them.
    image
        The full-resolution image that Space Ranger was run on. Space Ranger does not keep it; what lies in ``spatial/``
        are reduced images, too coarse for most encoders.
    library_id
        Name of the slide; ``None`` takes the one that the counts carry, or the name of the folder.
    counts
        Name of the matrix in the folder, an HDF5 file or a folder of ``matrix.mtx``, ``features.tsv`` and
        ``barcodes.tsv``. ``None`` takes ``filtered_feature_bc_matrix.h5``, also with a prefix, or the folder
        ``filtered_feature_bc_matrix``.
    prefix
        Name of the sample, with which the names of its files begin, where a folder holds several; ``None`` takes the only
        one.
    genome
        Name of the genome whose genes are kept, where the counts were mapped to several at once (``"GRCh38"``). ``None``
        takes the one of at least 95 % of the counts.

    Returns
    -------
    The spots under tissue, in the order of the counts:

    - `X`: counts of gene expression, CSR, float32, spots x genes; other features (antibodies, guides) are left out;
    - `var`: gene names without the prefix of a genome, made unique; `gene_ids` (Ensembl), and what else the matrix says;
    - `obs`: `in_tissue` (1), `array_row`, `array_col`, `slide`, `spahgc_total_counts` (counts of a spot over the genes that
      are here: those of another genome have no part in it);
    - `obsm["spatial"]`: spot centres (x, y), float64, pixels of the full-resolution image;
    - `uns["spatial"][library_id]`: `images` (`hires`, `lowres`: those of the run, or made of `image`), `scalefactors`
      (those of the run, and `microns_per_pixel`, from the array's pitch of 100 um), and `metadata` (chemistry, software
      version, where `image` is and its size, how many spots were left out; of several genomes which one was kept, how many
      genes and what share of the counts were not).

    Raises
    ------
    FileNotFoundError
        If the folder, ``spatial/`` or one of the files is missing.
    ValueError
        If a file is damaged, barcodes have no position, more than a tenth of the filtered counts are off the tissue (they
        are those of another sample), positions are not finite or their x and y are swapped, `image` is not the image that
        the positions belong to, there are several samples and no `prefix`, or the folder is that of ``spaceranger aggr``,
        or of several genomes none has 95 % of the counts and none is named.

    Warns
    -----
    UserWarning
        If spots of the filtered counts lie off the tissue, more than a tenth of the spots under tissue have no counts, or
        unfiltered counts are no higher under tissue than beside it, genes of another genome are left out, or no
        full-resolution image was named and the hires image is too coarse for every encoder.

    Examples
    --------
    >>> import spahgc as sp
    >>> adata = sp.io.visium("V1_Breast_Cancer_Block_A_Section_1", image="image.tif")  # doctest: +SKIP
    """
    folder = run_folder(path)
    if (folder / BINS_FOLDER).is_dir():
        raise ValueError(f'"{folder}" holds {BINS_FOLDER}/, which is Visium HD. Read it with spahgc.io.visium_hd.')
    name = folder.absolute()
    slide = read_slide(
        folder,
        counts=counts,
        image=image,
        library_id=library_id,
        default_name=name.parent.name if name.name == OUTS else name.name,
        reader="spahgc.io.visium",
        prefix=prefix,
        genome=genome,
    )
    by_pitch = pitch_mpp(slide.positions, PITCH_UM, PITCH_TOLERANCE)
    if by_pitch is not None:
        refuse_touching_spots(slide.scales[SPOT_DIAMETER], PITCH_UM / by_pitch, f'the positions in "{folder}"')
    return finish_slide(slide, slide.scales.get(MPP, by_pitch))
