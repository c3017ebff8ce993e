"""The steps of ``spahgc run``: each is done again only where something that it comes from has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from spahgc._files import digest, path_digest, write_h5ad, write_text
from spahgc._validate import check_writable_folder, encoder_records, quoted
from spahgc.cli._export import FORMATS, GROUPS_ALONE
from spahgc.cli._options import OFFLINE_ENCODER
from spahgc.cli._output import note
from spahgc.cli._slide_files import FILE, IMAGE_ENDINGS, SLIDE_ENDINGS, check_store, expand, read_slide, reader_of

STAMPS = "run.json"
"""What every result in the folder was made from."""
SLIDES, EMBEDDED = "slides", "embedded"
"""Folders of the slides that were read, and of those with an embedding."""
PREDICTED, REPORT = "predicted.h5ad", "report.html"
N_STEPS = 5


@dataclass(frozen=True)
class RunOptions:
    """What the user chose."""

    encoder: str | None
    checkpoint: Path | None
    context: bool | None
    image: Path | None
    mpp: float | None
    spacing_um: float
    method: str
    genes: list[str] | str | None
    preset: str
    n_domains: int | None
    exports: tuple[str, ...]
    seed: int
    device: str | None


class Steps:
    """A folder of results with what they were made from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.done = folder, 0
        path = folder / STAMPS
        self.stamps: dict[str, str] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def say(self, text: str) -> None:
        """Announce a step."""
        self.done += 1
        note(f"[{self.done}/{N_STEPS}] {text}")

    def made(self, name: str, come_from: object, make: Callable[[Path], Any]) -> Path:
        """The result of a name: as it is there, or made anew where it came from something else."""
        path, stamp = self.folder / name, digest(json.dumps(come_from, default=str).encode())
        if path.exists() and self.stamps.get(name) == stamp:
            note(f"      {path} is kept")
            return path
        make(path)
        self.stamps[name] = stamp
        write_text(self.folder / STAMPS, json.dumps(self.stamps, indent=1))
        return path


def run_steps(slide: Path, references: list[Path], output: Path, options: RunOptions) -> dict[str, Path]:
    """Do all steps, and return the files that matter by what they are.

    Raises
    ------
    ValueError
        If there is no reference, or two slides have one name.
    FileExistsError
        If the folder holds something else.
    """
    target, refs = _sources(slide, references)
    folder = _folder(output)
    steps = Steps(folder)
    steps.say(f"read {slide} and {len(refs) - 1} references")
    # The target comes last, so that a reference that is none is refused before the long work.
    order = [name for name in refs if name != target] + [target]
    paths = {name: _as_slide(steps, name, refs[name], options, is_target=name == target) for name in order}
    steps.say(f"embed {len(paths)} slides")
    embedded = _embedded(paths, target, folder, options)
    steps.say(f"predict {target}")
    come_from = {name: path_digest(path) for name, path in embedded.items()}
    chosen = {
        key: value
        for key, value in asdict(options).items()
        if key in ("method", "genes", "preset", "seed", "n_domains")
    }
    predicted = steps.made(PREDICTED, [come_from, chosen], lambda path: _predict(embedded, target, path, options))
    steps.say("write the report")
    stamp = path_digest(predicted)
    files = {"prediction": predicted}
    files["report"] = steps.made(REPORT, [stamp, come_from], lambda path: _report(predicted, embedded, target, path))
    steps.say(f"write for {', '.join(options.exports)}")
    for program in options.exports:
        name = _export_name(program, target)
        files[program] = steps.made(name, [stamp, program], partial(_export, predicted, program))
    return files


def _sources(slide: Path, references: list[Path]) -> tuple[str, dict[str, Path]]:
    """Name of the target, and all slides by name, the target first."""
    if not slide.exists():
        raise FileNotFoundError(f"{slide}: there is no such file. Check the path.")
    found = expand(references, "--reference", but=slide)
    if not found:
        raise ValueError("no reference was given. Pass --reference with measured slides.")
    paths = {_name(slide): slide}
    for path in found:
        if not path.exists():
            raise FileNotFoundError(f"--reference {path}: there is no such file. Check the path.")
        if _name(path) in paths:
            raise ValueError(
                f'two slides are called "{_name(path)}": {paths[_name(path)]} and {path}. Rename one of them.'
            )
        if reader_of(path) == "slide":
            raise ValueError(
                f"--reference {path} is an image, and a reference needs measured genes. Pass measured slides."
            )
        paths[_name(path)] = path
    for path in paths.values():  # before a folder is made for what comes of them
        if path.is_dir() and reader_of(path) is None:
            check_store(path, "slide" if path == slide else "--reference")
    return _name(slide), paths


def _name(path: Path) -> str:
    path = path.absolute()
    path = path.parent if path.name == "outs" else path
    return path.stem if path.is_file() or path.suffix in SLIDE_ENDINGS else path.name


def _folder(output: Path) -> Path:
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / STAMPS).is_file())):
        raise FileExistsError(f"--output {output} holds something else, and is left alone. Pass another folder.")
    folder = check_writable_folder(output)
    if not (folder / STAMPS).is_file():
        write_text(folder / STAMPS, "{}")
    return folder


def _as_slide(steps: Steps, name: str, path: Path, options: RunOptions, *, is_target: bool) -> Path:
    """The path of a slide, made of an image or of measured files where it is none yet."""
    kind = reader_of(path)
    if path.suffix in SLIDE_ENDINGS or kind is None:
        read_slide(path, "slide" if is_target else "--reference")  # refuses what is none before anything long begins
        return path
    come_from = [
        str(path.absolute()),
        kind,
        _state(path),
        [options.mpp, options.spacing_um, str(options.image)] if is_target else [],
    ]
    check_writable_folder(steps.folder / SLIDES)
    return steps.made(
        f"{SLIDES}/{name}{FILE}", come_from, lambda out: write_h5ad(_read(path, kind, name, options, is_target), out)
    )


def _state(path: Path) -> object:
    if path.is_file():
        return path_digest(path)
    return sorted((str(each), each.stat().st_size) for each in path.rglob("*") if each.is_file())


def _read(path: Path, kind: str, name: str, options: RunOptions, is_target: bool) -> Any:
    import spahgc as sp

    if kind == "slide" and path.suffix.lower() in IMAGE_ENDINGS:
        return sp.pp.tile(path, mpp=options.mpp, spacing_um=options.spacing_um, library_id=name)
    function = {"visium": "visium", "hd": "visium_hd", "xenium": "xenium"}[kind]
    if not hasattr(sp.io, function):
        raise ValueError(f"{path} is a folder of {kind}, which cannot be read here. Pass a .h5ad made of it.")
    image = {"image": options.image} if is_target and options.image is not None else {}
    return getattr(sp.io, function)(path, library_id=name, **image)


def _embedded(paths: dict[str, Path], target: str, folder: Path, options: RunOptions) -> dict[str, Path]:
    """All slides with an embedding: those that have one stay where they are."""
    import spahgc as sp

    records = {name: _records(path) for name, path in paths.items()}
    missing = {name: path for name, path in paths.items() if not records[name]}
    known = {str(record["name"]) for found in records.values() for record in found.values()}
    if options.encoder is None and len(known) > 1:
        raise ValueError(
            f"the slides are embedded with several encoders: {quoted(sorted(known))}. Say with --encoder which one."
        )
    encoder = options.encoder or next(iter(known), OFFLINE_ENCODER)
    if not missing:
        return paths
    _check_contexts({name: path for name, path in paths.items() if name not in missing}, encoder, options.context)
    sp.pp.embed_many(
        missing,
        folder / EMBEDDED,
        encoder=encoder,
        checkpoint=options.checkpoint,
        device=options.device,
        context=options.context,
        overwrite=True,
    )
    return {name: folder / EMBEDDED / f"{name}.zarr" if name in missing else path for name, path in paths.items()}


def _records(path: Path) -> dict[str, dict[str, Any]]:
    table = _table(read_slide(path, "slide"))
    return {key: record for key, record in encoder_records(table).items() if key in table.obsm}


def _table(slide: Any) -> Any:
    from spahgc._slides.tables import table_of

    return table_of(slide, None, "the slide")


def _check_contexts(paths: dict[str, Path], encoder: str, context: bool | None) -> None:
    from spahgc.cli._slide_files import check_context

    for path in paths.values():
        check_context(_table(read_slide(path, "slide")), encoder, context)


def _predict(embedded: dict[str, Path], target: str, path: Path, options: RunOptions) -> None:
    import spahgc as sp

    slide = _table(read_slide(embedded[target], "slide"))
    refs = [read_slide(each, "--reference") for name, each in embedded.items() if name != target]
    sp.tl.predict(
        slide,
        refs,
        method=options.method,
        genes=options.genes,
        preset=options.preset,
        seed=options.seed,
        device=options.device,
    )
    if options.n_domains is not None:
        sp.tl.domains(slide, n_domains=options.n_domains, seed=options.seed)
    write_h5ad(slide, path)


def _report(predicted: Path, embedded: dict[str, Path], target: str, path: Path) -> None:
    import spahgc as sp

    refs = [read_slide(each, "--reference") for name, each in embedded.items() if name != target]
    sp.pl.report(read_slide(predicted, "slide"), path, refs=refs)


def _export_name(program: str, target: str) -> str:
    _, endings = FORMATS[program]
    return f"{target}_{program}{endings[0] if endings else ''}"


def _export(predicted: Path, program: str, path: Path) -> None:
    import spahgc as sp

    function, endings = FORMATS[program]
    options: dict[str, Any] = {} if endings else {"overwrite": True}
    slide = read_slide(predicted, "slide")
    if program in GROUPS_ALONE and "spahgc_domain" not in _table(slide).obs:
        raise ValueError(f"--export {program} needs groups. Pass --n-domains with their number.")
    getattr(sp.io, function)(slide, path, **options)
