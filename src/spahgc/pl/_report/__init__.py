"""Predictions as one self-contained page, for those who do not write Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData

from spahgc._files import folder_written_whole, write_text
from spahgc._keys import UNS, Uns
from spahgc._slides.split import placed_table
from spahgc._validate import check_anndata, check_new_name, check_writable_file, encoder_records, quoted, user_path
from spahgc.encoders._record import NATIVE_MPP
from spahgc.pl._figure_slides import as_list
from spahgc.pl._patches import patch_width_px, reference_slides
from spahgc.pl._report._added import added
from spahgc.pl._report._annotations import annotations_of
from spahgc.pl._report._build import Sources, build
from spahgc.pl._report._content import collect
from spahgc.pl._report._picture import full_image, read_pixels, units_per_pixel
from spahgc.pl._report._placing import placing_of
from spahgc.pl._report._retrieved import cut_reference_patches, retrieved
from spahgc.pl._report._sets import read_sets, sets_of
from spahgc.pl._report._tiles import FOLDER, planned_tiles, write_tiles
from spahgc.pl._style import check_positive
from spahgc.pl._tissue import SpatialKeys, Tissue
from spahgc.pl._unknown import check_fade
from spahgc.tl._gene_sets import TARGET, Net
from spahgc.tl._prediction import prediction_record
from spahgc.tl._trust_record import LOW_SUPPORT

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from spahgc.model import SpaHGC
    from spahgc.pp._embed.slide_image import SlideImage, Source

SUFFIXES = (".html", ".htm")
INDEX = "index.html"
"""The page in the folder that holds it with its tiles."""


def report(
    adata: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    path: str | Path,
    *,
    refs: AnnData | SpatialData | Iterable[AnnData | SpatialData] | None = None,
    model: SpaHGC | None = None,
    key: str = "spahgc",
    genes: Sequence[str] | None = None,
    title: str | None = None,
    layer: str | None = None,
    units: str | None = None,
    fade_below: float | None = LOW_SUPPORT,
    image: Source | Sequence[Source | None] | None = None,
    annotations: Any = None,
    net: Net | None = None,
    tiles: bool = False,
    patch_um: float | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
    coordinate_system: str | None = None,
    max_mb: float = 12.0,
) -> Path:
    """Write predictions as one HTML page that needs nothing but a browser.

    The page shows the slide with pan and zoom, measured and predicted expression side by side with a linked cursor,
    spread, support and domains as overlays, a gene search, the gene table sorted by trust with its intervals, the
    reference spots behind a chosen spot, and where all of it comes from. Genes are found by other names of pathology as well
    (HER2 for ERBB2), two of them can be seen side by side or blended, and a region can be drawn, summarised and saved. It
    saves the maps as PNG and tables as CSV, and prints.
    It is a single file that loads nothing from anywhere. What the slide does not have is left out: an image, a
    measurement, spread, trust and support (which ``preset="paper"`` and the baselines do not give), domains, a graph.

    It says in three lines what the prediction says of itself: genes, how many can be trusted and for whom, and how many spots look
    like nothing on the references. Of a slide that was not measured the second map opens on support.

    The page holds names of slides, spots and genes, the prediction and the measurement of the shown genes, pictures, and
    the record of the prediction. It holds no path of a file, no patient, and no other column of ``obs``.

    Parameters
    ----------
    adata
        A slide with a prediction, AnnData or SpatialData, or a list of them, between which the page switches; they must have
        names of their own. Scores of `spahgc.tl.evaluate` and clusters of
        `spahgc.tl.domains` are shown where they were computed.
    path
        File to write, ``.html``, in a folder that exists. One that lies there is replaced, once the new one is whole. With
        `tiles` a folder to write.
    refs
        The references, as `spahgc.tl.predict` was given them, for the patches of the reference spots; their images are
        found as `spahgc.pl.attribution` finds them. Without them the page names the reference spots alone.
    model
        The model that predicted: for the first ten genes of the page it then says which reference spots add most to a
        prediction, and what each reference slide adds, as `spahgc.tl.attribution` does; for the others, and without it, the page
        shows the attention of the graph.
    key
        Key of the prediction.
    genes
        Genes to show; ``None`` takes the panel, of a larger one the 300 genes of highest ``var["<key>_cv_pcc"]``, those of
        `net` before others.
    title
        Title of the page; ``None`` names the slide.
    layer
        Layer with the counts of `adata`; ``None`` takes ``X``. A slide without counts, or with NaN, was not measured.
    units
        What its values are, as in `spahgc.tl.evaluate`; ``None`` finds out.
    fade_below
        Support (``obs["<key>_support"]``) below which a spot is drawn as an empty ring where predictions, their spread or
        domains are shown; ``None`` colours all. The page says how many they are.
    image
        Full-resolution image of `adata`; ``None`` finds it as `spahgc.pp.embed` does, else takes the small picture in
        ``uns["spatial"]``. Of several slides a list with one of these each.
    annotations
        Regions to draw over the maps, in full-resolution pixels: path of GeoJSON (of QuPath), GeoDataFrame, or polygons of
        shapely by name or in a list. Of several slides a list with one of these, or ``None``, each.
    net
        Marker panels: path of a GMT file, a dictionary of lists of genes, or a table, as `spahgc.tl.enrich` takes them. The
        page narrows its gene table to one of them.
    tiles
        Write a folder instead of one file: ``index.html``, and beside it the full-resolution image in tiles, so that nuclei
        are sharp. A folder of an earlier report that lies there is replaced.
    patch_um
        Width of the patches, microns; ``None`` takes that with which the slides were embedded.
    table_key
        Key of the table of every SpatialData; ``None`` takes the only one.
    image_key, coordinate_system
        Key of the image of the slide, and the coordinate system in which it meets the shapes, if it is a SpatialData;
        ``None`` takes the only ones, or the finest of several images that show the same.
    max_mb
        Largest size of the page, 10^6 bytes, tiles not counted. The numbers are kept in full; picture and patches get coarser, and patches
        fewer, until they fit, and the page says so.

    Returns
    -------
    The path of the page that was written, with `tiles` that of ``index.html`` in its folder. Nothing is written into `adata`.

    Raises
    ------
    KeyError
        If there is no prediction under this key, or no such gene.
    FileNotFoundError
        If the folder, or a file of annotations or gene sets, does not exist.
    FileExistsError
        If a folder is to be written where something else lies.
    ValueError
        If slides have one name, annotations lie elsewhere, no gene set has a gene on the page, `tiles` finds no
        full-resolution image, a gene was not predicted, `fade_below` is not between 0 and 1, `model` did not make the prediction or has no part that adds up, none of `refs` is a reference of the prediction, or `max_mb` is too small for the
        numbers and the coarsest picture.
    OSError
        If the file cannot be written.

    See Also
    --------
    spahgc.pl.spatial_genes : the maps as a figure.
    spahgc.pl.attribution : the reference spots of one spot as a figure.

    Notes
    -----
    Each value of a gene is rounded to 1/254 of the range of that gene in its layer, so that it is off by at most 1/508
    of the range. A content security policy in the page allows its own scripts and styles, named by their hashes, and no
    connection.

    Examples
    --------
    >>> import spahgc as sp
    >>> target, *refs = sp.datasets.simulated(n_slides=3, n_spots=40, n_genes=30)
    >>> for slide in [target, *refs]:
    ...     sp.pp.embed(slide, encoder="efficientnet_lite0")
    >>> sp.tl.predict(target, refs, preset=sp.Parameters(width=16, layers=1, heads=2, epochs=1))
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = sp.pl.report(target, f"{folder}/report.html", refs=refs)
    >>> path.name
    'report.html'
    """
    slides = list(adata) if isinstance(adata, list | tuple) else [adata]
    if not slides:
        raise ValueError("adata is an empty list. Pass at least one slide with a prediction.")
    path = _checked_folder(path) if tiles else _checked_path(path)
    check_positive("max_mb", max_mb, "number")
    check_fade(fade_below)
    check_positive("patch_um", patch_um, "number")
    keys = SpatialKeys(table_key, image_key, coordinate_system)
    tables = [placed_table(slide, table_key, "the slide") for slide in slides]
    for table in tables:
        check_anndata(table, "the slide")
    images, regions = _of_each(image, len(slides), "image"), _of_each(annotations, len(slides), "annotations")
    sets = read_sets(net)
    references = None if refs is None else as_list(refs)
    sources, full = [], []
    for number, (data, table) in enumerate(zip(slides, tables, strict=True)):
        content = collect(
            data,
            table,
            key=key,
            genes=genes,
            layer=layer,
            first=[] if sets is None else list(sets[TARGET]),
            units=units,
            fade_below=fade_below,
            keys=keys,
        )
        slide = full_image(data, table, images[number], keys)
        placing = placing_of(data, table, slide, content.tissue)
        # What may be wrong is found before pixels are read and patches are cut.
        drawn = annotations_of(regions[number], content.tissue, placing)
        plan = planned_tiles(slide, content.tissue, number) if tiles else None
        one = Sources(
            adata=table,
            content=content,
            title=f"Predicted gene expression of {content.slide}" if title is None else str(title),
            retrieved=None,
            patches=None,
            pixels=None,
            patch_width=None,
            placing=placing,
            annotations=drawn,
            sets=sets_of(sets, content.genes),
            tiles=plan,
        )
        sources.append(one)
        full.append(slide)
    _check_names([one.content.slide for one in sources])
    whole = [
        _with_pictures(one, slide, references, model, key, patch_um, table_key)
        for one, slide in zip(sources, full, strict=True)
    ]
    text = build(whole, max_mb)
    if not tiles:
        write_text(path, text)
        return path
    with folder_written_whole(path, overwrite=True) as part:
        for one, slide in zip(whole, full, strict=True):
            if one.tiles is not None and slide is not None:
                write_tiles(one.tiles, slide, one.content.tissue, part)
        (part / INDEX).write_text(text, encoding="utf-8", newline="")
    return path / INDEX


def _with_pictures(
    one: Sources,
    slide: SlideImage | None,
    refs: list[Any] | None,
    model: SpaHGC | None,
    key: str,
    patch_um: float | None,
    table_key: str | None,
) -> Sources:
    """A slide with its reference spots, its patches and its picture."""
    record = prediction_record(one.adata, key)
    embedding = str(record.get("embedding", ""))
    spots = retrieved(one.adata, key)
    # Patches are those of a graph; without one the references have nothing to show.
    more = None
    if model is not None:
        spots, more = added(one.adata, one.content.genes, model, key, spots)
    slides = {} if spots is None else reference_slides(refs, list(record["references"]), table_key)
    return replace(
        one,
        retrieved=spots,
        added=more,
        patches=cut_reference_patches(spots, slides, embedding, patch_um) if spots is not None and slides else None,
        pixels=read_pixels(slide, one.content.tissue),
        patch_width=_patch_width(slide, embedding, patch_um, one.content.tissue),
    )


def _of_each(value: Any, n: int, name: str) -> list[Any]:
    """What belongs to each of several slides; of a single one it may be a list itself."""
    if n == 1 and not (name == "image" and isinstance(value, list | tuple) and len(value) == 1):
        return [value]
    if value is None:
        return [None] * n
    if not isinstance(value, list | tuple) or len(value) != n:
        found = f"{len(value)}" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
        raise ValueError(f"{name} must be a list with one entry for each of the {n} slides, found {found}.")
    return list(value)


def _check_names(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"several slides are called {quoted(repeated)}, and a reader could not tell them apart. Give each a name of its "
            'own: adata.obs["slide"] = "...".'
        )


def _check_place(path: Path) -> None:
    """Refuse a path in a folder that is not there, or of a name that cannot be written."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f'path="{path}": the folder "{path.parent}" does not exist. Make it first, or write elsewhere.'
        )
    check_new_name(path, f'path="{path}"')


def _checked_folder(path: str | Path) -> Path:
    """The folder to write, checked before anything is read; an earlier report may lie there, and nothing else."""
    path = user_path(path, "path=")
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f'tiles=True writes a folder, and path="{path}" names a file. Pass "{path.with_suffix("")}".')
    _check_place(path)
    if path.exists():
        inside = {part.name for part in path.iterdir()} if path.is_dir() else {"a file"}
        if inside and inside != {INDEX, FOLDER}:
            raise FileExistsError(
                f'path="{path}" holds something else than an earlier report ({quoted(sorted(inside))}) and is not replaced. '
                "Pass another folder."
            )
    return path


def _checked_path(path: str | Path) -> Path:
    """The file to write, checked before anything is read."""
    path = user_path(path, "path=")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f'path="{path}" is no HTML file. Pass one that ends in ".html".')
    _check_place(path)
    if path.is_dir():
        raise IsADirectoryError(
            f'path="{path}" is a folder. Pass the path of a file, such as "{path / "report.html"}".'
        )
    check_writable_file(path, f'path="{path}"')
    return path


def _patch_width(slide: SlideImage | None, embedding: str, patch_um: float | None, tissue: Tissue) -> float | None:
    """Width of a patch in units of the tissue; ``None`` where nothing says it."""
    if slide is None:
        return None
    record = encoder_records(slide.adata).get(embedding, {})
    is_recorded = embedding in slide.adata.uns.get(UNS, {}).get(Uns.patch_um, {})
    native = str(record.get("mpp")) == NATIVE_MPP and not is_recorded and patch_um is None
    known = native or (
        slide.mpp is not None and (patch_um is not None or is_recorded or {"input_px", "mpp"} <= set(record))
    )
    return patch_width_px(slide, embedding, patch_um) * units_per_pixel(slide, tissue) if known else None
