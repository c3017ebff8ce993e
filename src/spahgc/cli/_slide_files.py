"""Slides from files and into files, AnnData and SpatialData; outputs are looked at before the long work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from spahgc._files import folder_written_whole, write_h5ad
from spahgc._installation import install_command
from spahgc._keys import PATCH_CONTEXT, Obsm
from spahgc._logging import warn
from spahgc._reading import broken_matrix, read_h5ad, read_zarr, reading, unreadable
from spahgc._slides.tables import is_spatialdata
from spahgc._validate import check_new_name, check_writable_folder, encoder_records

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    Slide: TypeAlias = AnnData | SpatialData

FILE, STORE = ".h5ad", ".zarr"
SLIDE_ENDINGS = (FILE, STORE)
IMAGE_ENDINGS = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".btf", ".czi", ".dcm", ".qptiff",
    ".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jp2",
)  # fmt: skip
"""How names of images end."""
TABLE_ENDINGS = (".tsv", ".tsv.gz")
READ_TABLES = (
    f"is a folder of tables. Run `spahgc read st COUNTS SPOTS IMAGE --output NAME{FILE}` for each section first, and pass "
    "what it writes."
)
"""What errors say of a folder of legacy Spatial Transcriptomics."""
ELEMENTS = ("tables", "images", "labels", "points", "shapes")
"""Folders of a SpatialData on disk."""
REMEDY = "Write it again with sdata.write."
"""What errors of a SpatialData that cannot be read advise."""


def read_slide(path: Path, option: str) -> Slide:
    """The slide in memory; pixels of a SpatialData stay on disk.

    Parameters
    ----------
    path
        A ``.h5ad``, or a ``.zarr`` that AnnData or SpatialData wrote.
    option
        How messages call it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no slide.
    """
    if not path.exists():
        raise FileNotFoundError(f"{option} {path}: there is no such file. Check the path.")
    if path.is_dir():
        return _read_store(path, option)
    if path.suffix.lower() in IMAGE_ENDINGS:
        raise ValueError(
            f"{option} {path} is an image, and a slide with spots is needed. Run `spahgc tile {path} --output "
            f"{path.with_suffix(FILE)}` first, or `spahgc read slide` for spots of your own."
        )
    return read_h5ad(path, option, "Write it with adata.write_h5ad.")


def check_store(path: Path, option: str) -> str:
    """Whose slide a folder is; refuses one that holds none, with what can be done."""
    kind = _kind(path)
    if kind is None and reader_of(path) is not None:
        raise ValueError(
            f"{option} {path} is a folder of measured files. Run `spahgc read {reader_of(path)} {path} --output NAME{FILE}` first."
        )
    if kind is None and _has_tables(path):
        raise ValueError(f"{option} {path} {READ_TABLES}")
    if kind is None:
        raise ValueError(
            f"{option} {path} is a folder, and no slide that adata.write_zarr or sdata.write wrote. Pass a .h5ad or .zarr."
        )
    return kind


def _read_store(path: Path, option: str) -> Slide:
    kind = check_store(path, option)
    if kind == "AnnData":
        return read_zarr(path, option, "Write it again with adata.write_zarr.")
    try:
        import spatialdata
    except ImportError as error:
        raise ImportError(
            f"{path} is a SpatialData, and spatialdata is not installed. Run `{install_command('spatialdata')}`."
        ) from error
    with reading(path, option, REMEDY):
        sdata = spatialdata.read_zarr(path)
    for name, table in sdata.tables.items():
        problem = broken_matrix(table)
        if problem is not None:
            raise unreadable(path, option, f'of the table "{name}", {problem}', REMEDY)
    return sdata


def _kind(path: Path) -> str | None:
    """Whose store a folder is."""
    if (path / "obs").is_dir():
        return "AnnData"
    is_store = (path / "zarr.json").is_file() or (path / ".zgroup").is_file()
    return "SpatialData" if is_store and any((path / name).is_dir() for name in ELEMENTS) else None


def reader_of(path: Path) -> str | None:
    """Which `spahgc read` reads what lies at a path, where that can be seen: hd, visium, xenium, or slide for an image."""
    if path.is_file():
        return "slide" if path.suffix.lower() in IMAGE_ENDINGS else None
    inside = [path, path / "outs"]
    if any((folder / "binned_outputs").is_dir() for folder in inside):
        return "hd"
    if any((folder / "experiment.xenium").is_file() for folder in inside):
        return "xenium"
    return "visium" if any((folder / "spatial").is_dir() and _has_counts(folder) for folder in inside) else None


def _has_tables(folder: Path) -> bool:
    """Whether legacy Spatial Transcriptomics may lie there, of which a folder does not say what belongs together."""
    return any(each.name.lower().endswith(TABLE_ENDINGS) for each in folder.iterdir())


def _has_counts(folder: Path) -> bool:
    return any(folder.glob("*feature_bc_matrix*"))


def expand(paths: Sequence[Path], option: str, *, but: Path | None = None) -> list[Path]:
    """Slides, folders of slides and patterns as the files that they mean, each once.

    Parameters
    ----------
    paths
        What was given.
    option
        How messages call it.
    but
        The target: where a folder or a pattern holds it, it is left out, and that is said. Named itself it stays, for the
        function to judge.

    Raises
    ------
    FileNotFoundError
        If there is nothing at a path, or nothing fits a pattern.
    """
    found: list[Path] = []
    for path in paths:
        members = _members(path, option)
        if members != [path] and but is not None and but.exists():
            kept = [each for each in members if not each.exists() or not each.samefile(but)]
            if len(kept) < len(members):
                warn(
                    f"{option} {path} holds the target {but} itself, which is no reference of it: it is left out.",
                    stacklevel=2,
                )
            members = kept
        found += [each for each in members if each not in found]
    return found


def _members(path: Path, option: str) -> list[Path]:
    if path.is_dir() and _kind(path) is None and reader_of(path) is None:
        members = sorted(
            each for each in path.iterdir() if each.suffix in SLIDE_ENDINGS and not each.name.startswith(".")
        )
        if not members and _has_tables(path):
            raise FileNotFoundError(f"{option} {path} {READ_TABLES}")
        if not members:
            raise FileNotFoundError(
                f"{option} {path} is a folder without a slide: no .h5ad and no .zarr lies in it. Check the path."
            )
        return members
    if path.exists() or not any(sign in str(path) for sign in "*?["):
        return [path]
    members = sorted(map(Path, glob(str(path))))
    if not members:
        raise FileNotFoundError(f"{option} {path}: no file fits this pattern. Check the folder and the ending in it.")
    return members


def read_references(
    paths: Sequence[Path] | None, bank: Path | None, *, target: Path | None = None
) -> list[Slide] | Path | None:
    """What the functions take as references: slides, the path of a bank, or nothing."""
    if bank is None:
        return [read_slide(path, "--reference") for path in expand(paths or [], "--reference", but=target)] or None
    if paths:
        raise ValueError("--bank and --reference were both given. A bank holds its references: pass one of the two.")
    if not bank.exists():
        raise FileNotFoundError(
            f"--bank {bank}: there is no such bank. Make one with sp.pp.reference_bank(refs, path=...)."
        )
    return bank


def check_output(output: Path, endings: Sequence[str], *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, or that would take the place of something.

    Parameters
    ----------
    output
        The file, or the ``.zarr``.
    endings
        What its name may end in.
    overwrite
        Whether it may exist.
    """
    if output.suffix not in endings:
        raise ValueError(f"--output {output} must end in {' or '.join(endings)}.")
    check_writable_folder(output.parent)
    check_new_name(output, f"--output {output}")
    if not output.exists():
        return
    if not overwrite:
        raise FileExistsError(f"--output {output} exists already. Pass --overwrite to replace it, or another name.")
    replaceable = _kind(output) is not None if output.suffix == STORE else output.is_file()
    if not replaceable:
        raise FileExistsError(f"--output {output} holds something else, and is not replaced. Pass another name.")


def check_container(slide: Slide, output: Path) -> None:
    """Refuse to write a SpatialData into a file that holds one table only."""
    if is_spatialdata(slide) and output.suffix != STORE:
        raise ValueError(f"--output {output}: a SpatialData is written as {STORE}. Pass a name that ends in {STORE}.")


def with_panel_alone(slide: Slide, key: str, table_key: str | None) -> Slide:
    """The slide without the genes that a prediction does not hold; totals over all genes stay known."""
    from spahgc._keys import Var
    from spahgc._slides.tables import table_of, with_table

    table = table_of(slide, table_key, "the target")
    return with_table(slide, table[:, table.var[Var.panel(key)].to_numpy(dtype=bool)].copy(), table_key)


def write_slide(slide: Slide, output: Path) -> None:
    """Write a slide, by the ending of the name, whole or not at all."""
    from spahgc._many.stores import write_slide as write_store

    if is_spatialdata(slide):
        # Beside the output, with which it changes places, since the pixels may still lie in what is to be replaced.
        with folder_written_whole(output, overwrite=True) as part:
            part.rmdir()  # it makes its own
            slide.write(part, update_sdata_path=False)
    elif output.suffix == STORE:
        write_store(slide, output)
    else:
        write_h5ad(slide, output)


def embed_missing(
    slides: Sequence[Slide],
    encoder: str | None,
    table_key: str | None,
    *,
    context: bool | None,
    **options: Any,
) -> None:
    """Embed those slides that have no embedding with its record; none of them where no encoder is named.

    Parameters
    ----------
    slides
        All slides of a call.
    encoder
        Name of the encoder; ``None`` embeds none.
    table_key
        As :func:`spahgc.pp.embed` has it.
    context
        What is shown beside the patch; ``None`` for what :func:`spahgc.pp.embed` shows by itself.
    options
        Further arguments of :func:`spahgc.pp.embed`.

    Raises
    ------
    ValueError
        If a context is asked for and no encoder, or if the other slides were embedded with another context.
    """
    if encoder is None:
        if context is not None:
            name = "--context" if context else "--no-context"
            raise ValueError(
                f"{name} says what an embedding shows that is made here. Pass --encoder as well, or leave it out."
            )
        return
    import spahgc as sp
    from spahgc._slides.tables import table_of

    tables = [table_of(slide, table_key, "a slide") for slide in slides]
    has_one = [bool(encoder_records(table).keys() & table.obsm.keys()) for table in tables]
    missing = [slide for slide, known in zip(slides, has_one, strict=True) if not known]
    if missing:
        for table, known in zip(tables, has_one, strict=True):
            if known:
                check_context(table, encoder, context)
        sp.pp.embed(missing, encoder=encoder, table_key=table_key, context=context, **options)


def check_context(table: AnnData, encoder: str, context: bool | None) -> None:
    """Refuse, before slides are embedded, one that shows less or more beside the patch than they will."""
    from spahgc.encoders import describe_encoder
    from spahgc.encoders._layout import Layout, parse_layout, write_layout
    from spahgc.encoders._record import key_name
    from spahgc.pp._embed.context import as_context, context_for

    described = describe_encoder(encoder)
    record = encoder_records(table).get(Obsm.embedding(key_name(encoder)))
    layout = None if record is None else parse_layout(str(record.get("context", PATCH_CONTEXT)))
    if described is None or layout is None:
        return
    sampling = str(record.get("sampling", "")) if record is not None else ""
    if sampling:
        raise ValueError(
            f"some slides are embedded already, by {sampling}, and the others would get one patch a spot, with which they cannot "
            "be compared. Embed the others first, with the same options of spahgc embed."
        )
    planned = context_for(described, None if context is None else as_context(context))
    wanted = Layout(tuple(planned.scales or ()), layout.levels, planned.rotations, tuple(planned.widths_um))
    if replace(layout, levels=()) != replace(wanted, levels=()):
        raise ValueError(
            f'some slides are embedded already, with the context "{write_layout(layout)}", and the others would get '
            f'"{write_layout(wanted)}", with which they cannot be compared. Pass --context or --no-context to embed these as '
            "those, or embed all of them again with spahgc embed."
        )
