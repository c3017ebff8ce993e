"""The functions that write, on small slides: what lies there before, the call, and what a reader finds afterwards."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
from anndata import AnnData

import spahgc as sp
from robustness import slides
from robustness.samples import fingerprint

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import file_server

State = dict[str, str | None]
"""Fingerprint of what a reader finds, by name; ``None`` where there is nothing."""
DOWNLOAD_BYTES = 600_000
SIZES = {"n_bootstrap": 5, "methods": ("ridge", "nearest")}
"""Of a cross-validation that is over in no time."""


@dataclass(frozen=True)
class Operation:
    """A function that writes into a folder.

    Attributes
    ----------
    name
        As the table of results calls it.
    run
        The call. It returns a fingerprint of its result. Called again it goes on, or does it again.
    state
        What a reader finds in the folder. Raises where something cannot be read.
    prepare
        Makes what lies there before.
    settle
        What is called some time later, and removes what was kept on purpose until then.
    inputs
        Files in the folder that are read and not written.
    kept
        What a call that was stopped leaves for the next one: how these names begin.
    """

    name: str
    run: Callable[[Path], str]
    state: Callable[[Path], State]
    prepare: Callable[[Path], None] = lambda folder: None
    settle: Callable[[Path], None] = lambda folder: None
    inputs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def listing(folder: Path) -> list[str]:
    """Everything below a folder, by name."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# --- embedding


def _embed(folder: Path) -> str:
    two = slides.embedded(2)
    sp.pp.embed(two, encoder=slides.encoder(), batch_size=12, device="cpu", resume=folder / "parts")
    return fingerprint(*(slide.obsm["X_small"] for slide in two))


def _hashes(*patterns: str) -> Callable[[Path], State]:
    """The content of the files of these names, as bytes."""

    def state(folder: Path) -> State:
        files = sorted(path for pattern in patterns for path in folder.glob(pattern))
        return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return state


def _slide_files(folder: Path) -> None:
    slides.write_slides(folder / "slides")


def _inputs(folder: Path) -> list[Path]:
    return sorted((folder / "slides").glob("*.h5ad"))


def _stores(layer: str | None) -> Callable[[Path], State]:
    """What was written of each slide."""

    def state(folder: Path) -> State:
        found: State = {}
        for path in _inputs(folder):
            store = folder / "out" / f"{path.stem}.zarr"
            if not store.exists():
                found[path.stem] = None
                continue
            adata = slides.read_store(store)
            written = adata.obsm["X_small"] if layer is None else adata.layers[layer]
            found[path.stem] = fingerprint(written, adata.obs_names, adata.X)
        return found

    return state


def _together(state: State) -> str:
    return fingerprint(*(f"{name} {value}" for name, value in sorted(state.items())))


def _embed_many(folder: Path) -> str:
    sp.pp.embed_many(_inputs(folder), folder / "out", encoder=slides.encoder(), device="cpu", retries=0)
    return _together(_stores(None)(folder))


# --- prediction


def _prepare_models(folder: Path) -> None:
    _slide_files(folder)
    for seed in (0, 1):
        slides.model(seed).save(folder / f"model{seed}")


def _predict_many(folder: Path, *, seed: int = 0, overwrite: bool = False) -> str:
    sp.tl.predict_many(
        _inputs(folder), folder / "out", model=folder / f"model{seed}", retries=0, overwrite=overwrite, device="cpu"
    )
    return _together(_stores("spahgc")(folder))


def _prepare_predicted(folder: Path) -> None:
    _prepare_models(folder)
    _predict_many(folder)


# --- models


def _model_state(folder: Path) -> State:
    if not (folder / "model").exists():
        return {"model": None}
    return {"model": fingerprint(sp.SpaHGC.load(folder / "model").predict(slides.embedded(1)[0], device="cpu"))}


def _save(seed: int, *, overwrite: bool) -> Callable[[Path], str]:
    def run(folder: Path) -> str:
        again = overwrite or (folder / "model").exists()
        slides.model(seed).save(folder / "model", overwrite=again)
        return _together(_model_state(folder))

    return run


# --- banks


def bank_fingerprint(bank: AnnData) -> str:
    """Of names, expression and embedding of all spots."""
    bank = bank.to_memory()
    return fingerprint(bank.obs_names, bank.var_names, bank.X, bank.obsm[slides.EMBEDDING])


def _bank_state(folder: Path) -> State:
    if not (folder / "bank").exists():
        return {"bank": None}
    return {"bank": bank_fingerprint(sp.pp.open_bank(folder / "bank"))}


def append_to_bank(folder: Path, number: int) -> None:
    """Add a slide unless the bank has it."""
    slide = slides.embedded()[number]
    bank = folder / "bank"
    if bank.exists() and slide.obs["slide"].iloc[0] in set(sp.pp.open_bank(bank).obs["slide"]):
        return
    genes = list(slide.var_names)[:20] if not bank.exists() else None
    sp.pp.reference_bank([slide], embedding=slides.EMBEDDING, genes=genes, path=bank, append=bank.exists())


def _new_bank(folder: Path) -> str:
    append_to_bank(folder, 0)
    return _together(_bank_state(folder))


def _prepare_bank(folder: Path) -> None:
    append_to_bank(folder, 0)
    append_to_bank(folder, 1)


def _append(folder: Path) -> str:
    append_to_bank(folder, 2)
    return _together(_bank_state(folder))


def _prepare_one_bank(folder: Path) -> None:
    append_to_bank(folder, 0)


def _search_index(folder: Path) -> str:
    target = slides.embedded()[3]
    before = sp.settings.search
    sp.settings.search = "approximate"
    try:
        sp.pp.cross_graph(target, sp.pp.open_bank(folder / "bank"))
    finally:
        sp.settings.search = before
    return fingerprint(target.obsm["spahgc_cs"])


# --- validation, report, figure


def _validate(folder: Path) -> str:
    found = sp.tl.cross_validate(
        slides.embedded(3), group_by="slide", embedding=slides.EMBEDDING, checkpoint=folder / "folds", **SIZES
    )
    return fingerprint(found.scores.drop(columns="ceiling").to_csv(index=False))


def _folds_state(folder: Path) -> State:
    state = _hashes("folds/*.csv")(folder)
    for path in sorted((folder / "folds").glob("*.json")):
        record = json.loads(path.read_text())
        record.pop("seconds", None)  # differ from run to run
        state[f"folds/{path.name}"] = fingerprint(json.dumps(record))
    return state


@functools.cache
def predicted(seed: int = 0) -> AnnData:
    """The first slide with its prediction."""
    (target,) = slides.embedded(1)
    sp.tl.predict(target, model=slides.model(seed), device="cpu")
    return target


def _report(title: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> str:
        sp.pl.report(predicted(), folder / "page.html", title=title)
        return fingerprint((folder / "page.html").read_text())

    return run


def _figure(gene: int) -> Callable[[Path], Any]:
    def run(folder: Path) -> str:
        import matplotlib as mpl

        mpl.use("Agg")
        genes = [predicted().var_names[gene]]
        sp.pl.spatial_genes(predicted(), genes, save=folder / "figure.png", show=False)
        return fingerprint((folder / "figure.png").read_bytes().hex())

    return run


# --- for other programs


def _export(write: Callable[..., Path], name: str, **options: Any) -> Callable[[Path], str]:
    """Write the prediction of a model; of two seeds, so that the old differs from the new."""

    def run(folder: Path, seed: int = 0) -> str:
        again = {"overwrite": True} if "overwrite" in options and (folder / name).exists() else {}
        genes = [predicted(seed).var_names[seed]]
        named = {"genes": genes} if "genes" in options else {}
        write(predicted(seed), folder / name, groups="domain" if seed == 0 else "array_row", **named, **again)
        return _together(_exported(name)(folder))

    return run


def _exported(name: str) -> Callable[[Path], State]:
    """The content of a file, or of everything in a folder together."""

    def state(folder: Path) -> State:
        path = folder / name
        if not path.exists():
            return {name: None}
        files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        return {name: fingerprint(*(f"{each.relative_to(folder)} {_content(each)}" for each in files))}

    return state


def _content(path: Path) -> str:
    """Of a file; of an .h5ad what a reader finds, since HDF5 notes times."""
    if path.suffix == ".h5ad":
        adata = anndata.read_h5ad(path)
        return fingerprint(adata.X, adata.obs_names, adata.var_names, *(adata.obsm[key] for key in sorted(adata.obsm)))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _export_operations() -> list[Operation]:
    """Each new writer over what it wrote before."""
    files: list[tuple[str, Callable[..., Path], str, tuple[str, ...]]] = [
        ("write_geojson", sp.io.write_geojson, "case.geojson", ("genes",)),
        ("write_loupe", sp.io.write_loupe, "groups.csv", ()),
        ("write_xenium_explorer", sp.io.write_xenium_explorer, "groups.csv", ()),
        ("write_cellxgene", sp.io.write_cellxgene, "case.h5ad", ("genes",)),
        ("write_tissuumaps", sp.io.write_tissuumaps, "case_tissuumaps", ("genes", "overwrite")),
    ]
    if importlib.util.find_spec("vitessce") is not None:
        files.append(("write_vitessce", sp.io.write_vitessce, "case_vitessce", ("genes", "overwrite")))
    operations = []
    for label, write, name, options in files:
        run = _export(write, name, **dict.fromkeys(options))
        old = functools.partial(run, seed=1)
        operations.append(
            Operation(f"{label} over another", run, _exported(name), lambda folder, old=old: old(folder) and None)
        )
    return operations


# --- downloads


def download_content() -> bytes:
    """What the server has."""
    return np.random.default_rng(0).bytes(DOWNLOAD_BYTES)


def _download(folder: Path) -> str:
    """Download from a server of this very process."""
    from spahgc.datasets._download import Remote, retrieve

    content = download_content()
    with file_server.running_files() as server:
        server.content["host/data.bin"] = content
        # The port differs from run to run, and a part belongs to an address.
        remote = Remote("https://host/data.bin", f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
        path = retrieve(remote, folder / "cache" / "data.bin", page="https://host", mirror=server.url)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


OPERATIONS = (
    Operation("embed, resumed", _embed, _hashes("parts/*/spots-*", "parts/*/*.json")),
    Operation("embed_many", _embed_many, _stores(None), _slide_files, inputs=("slides/P1S1.h5ad",)),
    Operation("predict_many", _predict_many, _stores("spahgc"), _prepare_models, inputs=("slides/P1S1.h5ad",)),
    Operation(
        "predict_many over another model's",
        functools.partial(_predict_many, seed=1, overwrite=True),
        _stores("spahgc"),
        _prepare_predicted,
        inputs=("slides/P1S1.h5ad",),
    ),
    Operation("SpaHGC.save", _save(0, overwrite=False), _model_state),
    Operation(
        "SpaHGC.save over another",
        _save(1, overwrite=True),
        _model_state,
        lambda folder: slides.model(0).save(folder / "model"),
    ),
    Operation("reference_bank", _new_bank, _bank_state),
    Operation(
        "reference_bank, append", _append, _bank_state, _prepare_bank, settle=lambda folder: append_to_bank(folder, 3)
    ),
    Operation("cross_validate, resumed", _validate, _folds_state),
    Operation("report", _report("new"), _hashes("page.html")),
    Operation(
        "report over another", _report("new"), _hashes("page.html"), lambda folder: _report("old")(folder) and None
    ),
    Operation("figure over another", _figure(1), _hashes("figure.png"), lambda folder: _figure(0)(folder) and None),
    *_export_operations(),
    Operation("download", _download, _hashes("cache/data.bin"), kept=("cache/.data.bin.part",)),
    *([Operation("index of a bank", _search_index, _bank_state, _prepare_one_bank)] if has_faiss() else []),
)


def warm() -> None:
    """Make in this process what all children share, so that each begins with it."""
    slides.quiet()
    for seed in (0, 1):
        slides.model(seed)
        predicted(seed)
    slides.encoder()


def fresh(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
