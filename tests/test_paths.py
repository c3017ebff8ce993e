"""Paths as users write them: of the home folder, of any legal length, through links; judged before the work."""

from __future__ import annotations

import errno
import inspect
import os
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

import spahgc as sp
from spahgc import cli
from spahgc._files import write_h5ad, write_text
from spahgc._validate import check_writable_file, check_writable_folder, user_path
from spahgc.pl._output import _write, save_path

matplotlib.use("agg")
LONG = "a" * 245
SAVED = Path(__file__).parent / "saved" / "0.1.0" / "paper"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test, and a working folder beside it in which nothing may appear."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


def test_a_tilde_is_the_home_folder_wherever_something_is_written(home: Path, refs, target, quick) -> None:
    from matplotlib import pyplot as plt

    sp.SpaHGC.load(SAVED).save("~/model")
    assert sp.SpaHGC.load("~/model").genes and sp.SpaHGC.load(Path("~/model")).genes
    assert sp.pp.reference_bank(refs[:2], path="~/bank.zarr").n_obs == sp.pp.open_bank("~/bank.zarr").n_obs == 140
    assert sp.pp.reference_bank(refs[2], path="~/bank.zarr", append=True).n_obs == 210
    sp.tl.predict(target, "~/bank.zarr", method="ridge")
    figure = plt.figure()
    _write(figure, save_path("~/figure.png", "figure"))
    sp.pl.report(target, "~/report.html")
    check_writable_folder("~/deep/folder")
    write_h5ad(target, "~/target.h5ad")
    names = ["bank.zarr", "deep", "figure.png", "model", "report.html", "target.h5ad"]
    assert sorted(os.listdir(home)) == names
    assert os.listdir(Path.cwd()) == []


def test_a_tilde_is_the_home_folder_wherever_something_is_read(home: Path, capsys) -> None:
    from PIL import Image

    Image.fromarray(np.full((400, 400, 3), 200, np.uint8)).save(home / "slide.png")
    table = pd.DataFrame({"x": [100.0, 200.0], "y": [100.0, 200.0]}, index=["a", "b"])
    table.to_csv(home / "spots.csv")
    with sp.image.open_image("~/slide.png") as image:
        assert image.width == 400
    slide = sp.io.slide("~/slide.png", spots=table, mpp=1.0)
    assert str(home) in str(slide.uns["spatial"])
    (home / "sets.gmt").write_text("pathway\tof genes\tA\tB\n")
    assert len(sp.tl._gene_sets.read_gmt("~/sets.gmt")) == 2
    with pytest.raises(FileNotFoundError, match=f"{home}/spots2.csv"):
        sp.io.st("~/counts.tsv", "~/spots2.csv", "~/slide.png")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "~/gone.h5ad"])
    assert f"{home}/gone.h5ad" in capsys.readouterr().err


def test_a_path_of_nobody_is_left_as_it_is() -> None:
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert user_path(os.fspath(Path("a") / "b")) == Path("a/b")


@pytest.mark.parametrize(("path", "error"), [(3, TypeError), (None, TypeError), ("", ValueError), ("a\0b", ValueError)])
def test_what_is_no_path_is_refused(path: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="save="):
        user_path(path, "save=")


@pytest.mark.parametrize("ending", [".h5ad", ".zarr", ".png", ".html", ".csv"])
def test_names_of_any_legal_length_are_written(tmp_path: Path, ending: str, refs) -> None:
    from matplotlib import pyplot as plt

    from spahgc._many.stores import write_slide

    path = tmp_path / f"{LONG}{ending}"
    if ending == ".h5ad":
        write_h5ad(refs[0], path)
    elif ending == ".zarr":
        write_slide(refs[0], path)
    elif ending == ".png":
        _write(plt.figure(), path)
    else:
        write_text(path, "text")
    assert os.listdir(tmp_path) == [path.name]


def test_banks_and_models_of_long_names_are_written(tmp_path: Path, refs) -> None:
    sp.pp.reference_bank(refs[:2], path=tmp_path / f"{LONG}.zarr")
    sp.pp.reference_bank(refs[2], path=tmp_path / f"{LONG}.zarr", append=True)
    sp.SpaHGC.load(SAVED).save(tmp_path / LONG)
    sp.SpaHGC.load(SAVED).save(tmp_path / LONG, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == [LONG, f"{LONG}.zarr"]


def test_a_name_that_no_file_can_have_is_refused_before_the_work(tmp_path: Path) -> None:
    for check in (
        lambda path: save_path(path, "figure"),
        lambda path: check_writable_file(path, f'save="{path}"'),
    ):
        with pytest.raises(OSError, match="cannot be written .File name too long") as raised:
            check(tmp_path / f"{'a' * 300}.png")
        assert raised.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("below", ["file/out", "file/deep/out"])
def test_what_lies_below_a_file_is_refused_in_our_words(tmp_path: Path, below: str, refs) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / below
    for write in (
        lambda: sp.pp.reference_bank(refs, path=path),
        lambda: sp.SpaHGC.load(SAVED).save(path),
        lambda: check_writable_folder(path),
    ):
        with pytest.raises(OSError, match='"[^"]*out" cannot be written .Not a directory.. Pass another') as raised:
            write()
        assert raised.value.errno == errno.ENOTDIR and not isinstance(raised.value, FileExistsError)


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(tmp_path: Path, refs, monkeypatch) -> None:
    real = Path.mkdir

    def refused(self: Path, *arguments: object, **options: object) -> None:
        if self.parent == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        real(self, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", refused)
    monkeypatch.setattr(sp.pp._bank.references, "_write", lambda *_: pytest.fail("it worked before it was told"))
    with pytest.raises(PermissionError, match='bank.zarr" cannot be written .Permission denied') as raised:
        sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    assert raised.value.errno == errno.EACCES


def test_a_pipe_is_no_file_to_replace(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(FileExistsError, match="is no file but a device or a pipe"):
        save_path(tmp_path / "pipe.png", "figure")


def test_the_shell_replaces_what_a_link_points_to(tmp_path: Path, refs, target, capsys) -> None:
    sp.tl.predict(target, refs, method="ridge")
    for name, slide in {"T": target, **{f"R{i}": ref for i, ref in enumerate(refs)}}.items():
        slide.write_h5ad(tmp_path / f"{name}.h5ad")
    (tmp_path / "real.h5ad").write_text("old")
    (tmp_path / "out.h5ad").symlink_to("real.h5ad")
    references = [part for i in range(len(refs)) for part in ("--reference", str(tmp_path / f"R{i}.h5ad"))]
    call = ["predict", "--target", str(tmp_path / "T.h5ad"), *references, "--method", "ridge"]
    with pytest.raises(SystemExit) as done:
        cli.main([*call, "--output", str(tmp_path / "out.h5ad"), "--overwrite"])
    assert done.value.code in (0, None), capsys.readouterr().err
    assert (tmp_path / "out.h5ad").is_symlink() and (tmp_path / "real.h5ad").stat().st_size > 1000
    (tmp_path / "gone.h5ad").symlink_to("nowhere.h5ad")
    with pytest.raises(SystemExit, match="2"):
        cli.main([*call, "--output", str(tmp_path / "gone.h5ad"), "--overwrite"])
    assert 'is a link to "nowhere.h5ad", which is not there' in capsys.readouterr().err


def test_a_figure_without_an_ending_gets_that_of_the_settings(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "savefig.format", "svg")
    assert save_path(tmp_path / "figure", "figure") == tmp_path / "figure.svg"
    assert save_path(tmp_path / "Figure.PNG", "figure") == tmp_path / "Figure.PNG"


def test_a_figure_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    def half(self: Figure, path: Path, **_: object) -> None:
        Path(path).write_text("half")
        raise KeyboardInterrupt

    (tmp_path / "figure.pdf").write_text("old")
    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(KeyboardInterrupt):
        _write(plt.figure(), tmp_path / "figure.pdf")
    assert (tmp_path / "figure.pdf").read_text() == "old" and os.listdir(tmp_path) == ["figure.pdf"]


def test_what_a_format_puts_beside_a_figure_comes_with_it(tmp_path: Path, monkeypatch) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.figure import Figure

    def with_pixels(self: Figure, path: Path, **_: object) -> None:
        Path(path).write_text("figure-img0.png")
        Path(path).with_name("figure-img0.png").write_text("pixels")

    monkeypatch.setattr(Figure, "savefig", with_pixels)
    _write(plt.figure(), tmp_path / "figure.pgf")
    assert sorted(os.listdir(tmp_path)) == ["figure-img0.png", "figure.pgf"]


def test_nothing_in_the_package_is_written_past_the_one_place() -> None:
    """Writes of the sources stand in what lies in a part already."""
    package = Path(inspect.getfile(sp)).parent
    allowed = {
        "_files.py",
        "_training/model_files.py",
        "_many/stores.py",
        "datasets/_archive.py",
        "datasets/_download.py",
        "io/_exports/geojson.py",
        "io/_exports/tissuumaps.py",
        "io/_exports/vitessce.py",
        "pl/_report/__init__.py",  # a page and its tiles, into the part of a folder
        "pl/_report/_tiles.py",
        "io/_files.py",  # an unpacked copy in a temporary folder
    }
    marks = (
        ".savefig(",
        ".to_csv(path",
        ".to_csv(output",
        "np.save(",
        "json.dump(",
        ".write_text(",
        ".write_bytes(",
        '.open("w',
    )
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if any(mark in line for mark in marks) and ">>>" not in line
    }
    assert found - allowed == {"pl/_output.py"}
