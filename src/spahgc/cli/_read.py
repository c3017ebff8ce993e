"""``spahgc read``: files of an instrument or another tool become a slide."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from spahgc.cli._options import AsJson, Overwrite
from spahgc.cli._output import Printed, result

READERS = {
    "visium": ("visium", "FOLDER"),
    "hd": ("visium_hd", "FOLDER"),
    "st": ("st", "COUNTS SPOTS IMAGE"),
    "hest": ("hest", "FOLDER ID"),
    "xenium": ("xenium", "FOLDER"),
    "slide": ("slide", "IMAGE"),
    "features": ("features", "FILE"),
}
"""Function of :mod:`spahgc.io` and the files that it takes, by the name that the shell has for it."""
NOT_AN_OPTION = ("kind", "files", "output", "patient", "overwrite", "as_json")


def reader_names() -> Iterable[str]:
    """What can be read."""
    import spahgc.io

    return [name for name, (function, _) in READERS.items() if hasattr(spahgc.io, function)]


def complete_kind(incomplete: str) -> list[str]:
    """Kinds that begin so."""
    return [name for name in reader_names() if name.startswith(incomplete)]


def read(
    kind: Annotated[
        str,
        typer.Argument(help="visium, hd, st, hest, xenium, slide or features.", autocompletion=complete_kind),
    ],
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The folder of the run; of st counts, spots and image; of hest folder and sample; of slide the image."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The slide, .h5ad or .zarr.")],
    image: Annotated[
        Path | None, typer.Option(help="With visium, hd, hest, xenium, features: the full-resolution H&E image.")
    ] = None,
    mpp: Annotated[float | None, typer.Option(help="With st, slide, features: microns per pixel of the image.")] = None,
    library_id: Annotated[str | None, typer.Option(help="Name of the slide; that of the files if left out.")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient of the slide, by whom references are held out.")] = None,
    counts: Annotated[str | None, typer.Option(help="With visium: name of the matrix in the folder.")] = None,
    prefix: Annotated[
        str | None, typer.Option(help="With visium: name of the sample with which its files begin.")
    ] = None,
    genome: Annotated[str | None, typer.Option(help="With visium, hd: the genome to keep, of several.")] = None,
    bin_um: Annotated[int | None, typer.Option(help="With hd: size of the bins, microns; 8 if left out.")] = None,
    spot_pitch_um: Annotated[
        float | None, typer.Option(help="With st: distance of neighbouring spots, microns; found if left out.")
    ] = None,
    alignment: Annotated[
        Path | None, typer.Option(help="With xenium: the image's alignment as Xenium Explorer exports it.")
    ] = None,
    spots: Annotated[
        Path | None,
        typer.Option(
            help="With slide: a table of spots, .csv, names first, with columns x and y in pixels. With features: the "
            "sample's .h5ad, which says where its barcodes lie."
        ),
    ] = None,
    spacing_um: Annotated[
        float | None,
        typer.Option(help="With slide: distance of a tile to the nearest others, microns; 100 if left out."),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="With features: the encoder that made them.")] = None,
    patch_um: Annotated[float | None, typer.Option(help="With features: width of a patch, microns.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> Printed:
    """Read measured files, or an image, as a slide.

    Visium and Visium HD from the folder of Space Ranger, legacy Spatial Transcriptomics, a sample of HEST-1k, a
    whole-slide image, and features that TRIDENT, LazySlide or the HEST benchmark have computed.

    Example:
      spahgc read visium V1_Breast_Cancer --image image.tif -o A.h5ad
      spahgc read hd Visium_HD_Colon --bin-um 16 -o B.h5ad
      spahgc read st C2.tsv.gz C2_selection.tsv C2.jpg -o C2.h5ad --patient C
      spahgc read hest hest_data TENX95 -o TENX95.h5ad
      spahgc read features features_uni_v1/case.h5 --mpp 0.25 -o case.h5ad
    """
    given = {name: value for name, value in locals().items() if name not in NOT_AN_OPTION and value is not None}
    import spahgc as sp
    from spahgc._keys import UNS, Obs, Uns
    from spahgc.cli._slide_files import SLIDE_ENDINGS, check_output, write_slide

    if kind not in (names := list(reader_names())):
        raise ValueError(f"{kind} is not known. Choose one of {', '.join(names)}.")
    function, wanted = READERS[kind]
    reader = getattr(sp.io, function)
    if len(files) != len(wanted.split()):
        raise ValueError(f"spahgc read {kind} takes {wanted}, {len(files)} were given: {' '.join(map(str, files))}.")
    known = inspect.signature(reader).parameters
    strange = [f"--{name.replace('_', '-')}" for name in given if name not in known]
    if strange:
        raise ValueError(f"{' and '.join(strange)} has no meaning for {kind}. Leave it out.")
    check_output(output, SLIDE_ENDINGS, overwrite=overwrite)
    if kind == "slide" and spots is not None:
        given["spots"] = _spot_table(spots)
    slide = reader(*_positional(kind, files), **given)
    if patient is not None:
        slide.obs[Obs.patient] = patient
    write_slide(slide, output)
    mpp_found = slide.uns.get(UNS, {}).get(Uns.slide_mpp)
    text = f"{output}: {slide.n_obs} spots, {slide.n_vars} genes"
    values: dict[str, Any] = {"output": output, "spots": slide.n_obs, "genes": slide.n_vars, "mpp": mpp_found}
    return result(
        text, values | {"slide": str(slide.obs[Obs.slide].iloc[0]) if Obs.slide in slide.obs else None}, as_json
    )


def _positional(kind: str, files: list[Path]) -> list[Any]:
    """The sample of HEST is a name and no path."""
    return [files[0], str(files[1])] if kind == "hest" else list(files)


def _spot_table(path: Path) -> Any:
    import pandas as pd

    from spahgc._reading import reading

    with reading(path, "the spots", "Pass a table with the names of the spots first, and the columns x and y."):
        return pd.read_csv(path, index_col=0)
