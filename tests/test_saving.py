"""What is saved takes the place of what was there whole or not at all, whoever else saves or loads at the same time."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

import spahgc as sp
from spahgc import _files
from spahgc._files import folder_written_whole, remove_leftovers, write_h5ad, write_text, written_whole
from spahgc._training import model_files

SAVED = Path(__file__).parent / "saved" / "0.1.0" / "paper"
SAVERS = """
import os, sys
import spahgc as sp
from spahgc import _files

saved, folder, seeds, times, how, exchanges = sys.argv[1:]
if exchanges == "False":
    _files._renameat2 = lambda *_: False
model = sp.SpaHGC.load(saved)
starts, start = os.pipe()
children = []
for seed in seeds.split(","):
    child = os.fork()  # loading torch takes longer than all the rest
    if child:
        children.append(child)
        continue
    model.seed = int(seed)
    os.close(start)
    os.read(starts, 1)
    for _ in range(int(times)):
        try:
            model.save(folder, overwrite=how == "overwrite")
            said = "saved"
        except Exception as error:
            said = f"{type(error).__name__} {error}"
        os.write(1, f"{said}\\n".encode())  # a short line is written whole, whoever else writes
    os._exit(0)
print("ready", flush=True)
os.close(start)  # and all of them go on at once
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


@pytest.fixture(scope="module")
def model() -> sp.SpaHGC:
    return sp.SpaHGC.load(SAVED)


def savers(folder: Path, seeds: tuple[int, ...], times: int, how: str, exchanges: bool = True) -> subprocess.Popen[str]:
    """Processes that save one model under seeds of their own to one folder, all at once; the parent of all of them."""
    given = [str(SAVED), str(folder), ",".join(map(str, seeds)), str(times), how, str(exchanges)]
    parent = subprocess.Popen([sys.executable, "-c", SAVERS, *given], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "ready\n"
    return parent


def test_of_processes_that_save_without_overwrite_exactly_one_wins(tmp_path: Path) -> None:
    said = savers(tmp_path / "model", (0, 1, 2), 1, "new").communicate()[0].splitlines()
    assert len(said) == 3 and said.count("saved") == 1
    lost = [line for line in said if line != "saved"]
    assert all(line.startswith("FileExistsError") and "exists already" in line and "Errno" not in line for line in lost)
    assert 0 <= sp.SpaHGC.load(tmp_path / "model").seed < 3
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])
def test_a_model_can_be_loaded_while_others_replace_it(tmp_path: Path, model, exchanges: bool) -> None:
    folder = tmp_path / "model"
    model.save(folder)
    parent = savers(folder, (11, 12), 8, "overwrite", exchanges)
    seeds = set()
    while parent.poll() is None:
        seeds.add(sp.SpaHGC.load(folder).seed)
    assert parent.returncode == 0 and parent.communicate()[0].split() == ["saved"] * 16
    assert seeds <= {model.seed, 11, 12} and sp.SpaHGC.load(folder).seed in (11, 12)
    assert os.listdir(tmp_path) == ["model"]


KILLED = """
import os, signal, sys
import spahgc as sp
from spahgc import _files
model = sp.SpaHGC.load(sys.argv[1])
model.seed = 99
step, real = sys.argv[3], _files._put_in_place
def killed(*arguments, **options):
    if step == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)
_files._put_in_place = killed
if step == "between":
    _files._exchange = lambda *_: False
    rename = _files.Path.rename
    def renamed(self, target):
        rename(self, target)
        if str(target).endswith(_files.REPLACED):
            os.kill(os.getpid(), signal.SIGKILL)
    _files.Path.rename = renamed
    _files._put_in_place = real
model.save(sys.argv[2], overwrite=True)
"""


@pytest.mark.parametrize(("step", "seeds"), [("before", (0,)), ("after", (99,)), ("between", (0,))])
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new(tmp_path: Path, model, step: str, seeds) -> None:
    model.save(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", KILLED, str(SAVED), str(tmp_path / "model"), step], check=False)
    assert done.returncode == -signal.SIGKILL
    assert sp.SpaHGC.load(tmp_path / "model").seed in (seeds if step == "after" else (model.seed,))
    model.save(tmp_path / "model", overwrite=True)
    assert os.listdir(tmp_path) == ["model"]


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(tmp_path: Path, model) -> None:
    model.save(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    before = (tmp_path / "real").stat().st_ino
    model.save(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").stat().st_ino != before
    sp.SpaHGC.load(tmp_path / "link")
    (tmp_path / "figure").write_text("old")
    (tmp_path / "figure link").symlink_to("figure")
    write_text(tmp_path / "figure link", "new")
    assert (tmp_path / "figure link").is_symlink() and (tmp_path / "figure").read_text() == "new"


def test_a_link_into_nothing_is_refused(tmp_path: Path, model) -> None:
    (tmp_path / "link").symlink_to("gone")
    for write in (lambda path: model.save(path), lambda path: write_text(path, "new")):
        with pytest.raises(FileNotFoundError, match='link" is a link to "gone", which is not there'):
            write(tmp_path / "link")


def test_an_old_file_that_cannot_be_removed_is_told_and_the_new_model_is_there(
    tmp_path: Path, model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / "model")
    with monkeypatch.context() as patched:
        patched.setattr(_files.shutil, "rmtree", lambda *_, **__: None)
        other = sp.SpaHGC.load(SAVED)
        other.seed = 5
        with pytest.warns(UserWarning, match="could not be removed: it is what .*model.* was before"):
            other.save(tmp_path / "model", overwrite=True)
    assert sp.SpaHGC.load(tmp_path / "model").seed == 5
    remove_leftovers(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]


def test_what_is_no_model_is_not_replaced_and_nobody_advises_what_was_done(tmp_path: Path, model) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "data.csv").write_text("years")
    with pytest.raises(FileExistsError, match="holds something else than a model") as raised:
        model.save(tmp_path / "work", overwrite=True)
    assert "overwrite=True" not in str(raised.value)


def test_a_race_for_a_name_is_lost_in_our_words(tmp_path: Path) -> None:
    with (
        pytest.raises(FileExistsError, match='folder" exists already: another process has written it'),
        folder_written_whole(tmp_path / "folder") as part,
    ):
        (part / "file").write_text("mine")
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "file").write_text("theirs")
    assert (tmp_path / "folder" / "file").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["folder"]


def test_without_the_calls_of_linux_a_race_is_lost_in_our_words(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_files, "_renameat2", lambda *_: False)
    test_a_race_for_a_name_is_lost_in_our_words(tmp_path)


def test_killed_writers_of_files_leave_nothing_for_long(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom spahgc._files import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as part:\n    part.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False)
    assert len(os.listdir(tmp_path)) == 1
    write_text(tmp_path / "file", "whole")
    assert os.listdir(tmp_path) == ["file"]


# Banks.


def test_the_second_of_two_processes_is_told_before_it_has_worked(refs, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom spahgc._files import folder_written_whole\n"
        "with folder_written_whole(Path(sys.argv[1]), alone=True) as part:\n"
        "    print('ready', flush=True)\n    sys.stdin.read()\n"
    )
    path = tmp_path / "bank.zarr"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(FileExistsError, match='another process is writing .*bank.zarr". Wait until'):
            sp.pp.reference_bank(refs, path=path)
        os.kill(process.pid, signal.SIGKILL)
    assert sp.pp.reference_bank(refs, path=path).n_obs == 210  # what it left is no claim
    with pytest.raises(FileExistsError, match="exists already. Pass append=True"):
        sp.pp.reference_bank(refs, path=path)
    assert os.listdir(tmp_path) == ["bank.zarr"]


def test_a_bank_in_memory_can_be_added_up(refs, tmp_path: Path) -> None:
    stored = sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    for bank in (stored, sp.pp.open_bank(tmp_path / "bank.zarr"), stored[10:90]):
        in_memory = bank.to_memory()
        for matrix in (in_memory.X, in_memory.obsm["spahgc_transcriptome"]):
            assert matrix.indices.dtype == matrix.indptr.dtype
            assert matrix.sum() == pytest.approx(matrix.toarray().sum(), rel=1e-5)


def test_a_bank_whose_pointers_are_longer_than_its_indices_can_be_added_up(refs, tmp_path: Path) -> None:
    """anndata, and earlier versions of this package, write pointers of 64 bits beside indices of 32."""
    import zarr

    sp.pp.reference_bank(refs, path=tmp_path / "bank.zarr")
    version = tmp_path / "bank.zarr" / "v000001"
    for name in ("X", "obsm/spahgc_transcriptome"):
        group = zarr.open_group(version / name, mode="r+")
        pointers = group["indptr"][...].astype(np.int64)
        del group["indptr"]
        group.create_array("indptr", data=pointers)
    bank = sp.pp.open_bank(tmp_path / "bank.zarr").to_memory()
    assert bank.X.sum() == pytest.approx(bank.X.toarray().sum(), rel=1e-5)
    assert bank.obsm["spahgc_transcriptome"].indptr.dtype == np.int32


# A full disk. What writes is patched, as other systems have no small disks to mount.


def _no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Foreign(Exception):
    """An error of a library that has words alone."""


@pytest.mark.parametrize(
    "raised",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        Foreign("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("Can't close file (file write failed: errno = 28, error message = '...', buf = 0x55aa)"),
        OSError(errno.EFBIG, os.strerror(errno.EFBIG)),
    ],
    ids=["system", "safetensors", "h5py", "too large"],
)
@pytest.mark.parametrize("write", ["file", "folder"])
def test_a_full_disk_speaks_of_the_output_and_what_it_needs(tmp_path: Path, raised: Exception, write: str) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    written = written_whole(path, n_bytes=3 * 10**6) if write == "file" else folder_written_whole(path, overwrite=True)
    with (
        pytest.raises(
            OSError, match=rf'"{path}" cannot be written \(.*\)\. It needs (about 3.0 MB|more than).* MB were free'
        ) as error,
        written,
    ):
        raise raised
    assert error.value.errno in (errno.ENOSPC, errno.EFBIG) and error.value.__cause__ is raised
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_errors_of_the_work_itself_pass_through(tmp_path: Path) -> None:
    for error in (FileNotFoundError(2, "gone", "input.h5ad"), ValueError("no genes"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, folder_written_whole(tmp_path / "out"):
            raise error
        assert raised.value is error


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of a megabyte, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount")
    if done.returncode:
        pytest.skip("no disk may be mounted")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "png", "pdf", "svg", "bank", "model"])
def test_on_a_disk_that_is_full_the_old_one_stays(small_disk: Path, kind: str, refs, model) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    from spahgc._many.stores import write_slide
    from spahgc.pl._output import _write

    numbers = np.random.default_rng(0).random((3000, 200)).astype(np.float32)
    path = small_disk / f"out.{kind}"

    def figure() -> None:
        drawn = plt.figure(figsize=(20, 20))
        drawn.add_subplot().imshow(numbers)
        _write(drawn, path)

    def bank() -> None:
        slide = refs[0].copy()
        wide = np.random.default_rng(0).random((slide.n_obs, 20_000)).astype(np.float32)
        slide.obsm["X_sim"] = wide
        sp.pp.reference_bank(slide, path=path)

    def large_model() -> None:
        large = sp.SpaHGC.load(SAVED)
        large.bank.layers["more"] = np.random.default_rng(0).random((large.bank.n_obs, large.bank.n_vars))
        large.bank.uns["numbers"] = numbers
        large.save(path, overwrite=True)

    write = {
        "h5ad": lambda: write_h5ad(AnnData(numbers), path),
        "zarr": lambda: write_slide(AnnData(numbers), path),
        "bank": bank,
        "model": large_model,
    }.get(kind, figure)
    if kind == "model":
        model.save(path)
    elif kind != "bank":
        path.write_text("old")
    with pytest.raises(OSError, match=r'out\.\w+" cannot be written \(No space left on device\)\. It needs') as raised:
        write()
    assert raised.value.errno == errno.ENOSPC
    if kind == "model":
        assert sp.SpaHGC.load(path).seed == model.seed
    elif kind != "bank":
        assert path.read_text() == "old"
    assert os.listdir(small_disk) == ([] if kind == "bank" else [path.name])


def test_a_full_disk_leaves_a_bank_as_it_was(refs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spahgc.pp._bank import store

    path = tmp_path / "bank.zarr"
    sp.pp.reference_bank(refs[0], path=path)
    monkeypatch.setattr(store.Version, "finish", _no_room)
    with pytest.raises(OSError, match='bank.zarr" cannot be written .No space left on device') as raised:
        sp.pp.reference_bank(refs[1], path=path, append=True)
    assert raised.value.errno == errno.ENOSPC
    assert sp.pp.open_bank(path).n_obs == 70


def test_files_of_a_model_are_not_mixed_with_those_of_the_next_one(tmp_path: Path, model, monkeypatch) -> None:
    """The description of one and the weights of another would be a third model."""
    folder, real, calls = tmp_path / "model", model_files.checksums, []
    model.save(folder)

    def replaced(where: Path) -> dict[str, str]:
        if where == folder and not calls:
            calls.append(1)
            found = real(where)
            other = sp.SpaHGC.load(SAVED)
            other.seed = 5
            other.save(folder, overwrite=True)
            return found
        return real(where)

    monkeypatch.setattr(model_files, "checksums", replaced)
    assert sp.SpaHGC.load(folder).seed == 5
    assert calls == [1]


def test_a_model_that_is_away_for_a_moment_is_waited_for(tmp_path: Path, model, monkeypatch) -> None:
    folder = tmp_path / "model"
    model.save(folder)
    part = _files._new_part(folder)
    part.mkdir()
    lock = _files._lock(part)
    folder.rename(part.with_suffix(_files.REPLACED))
    waited: list[float] = []

    def back(seconds: float) -> None:
        waited.append(seconds)
        part.with_suffix(_files.REPLACED).rename(folder)

    monkeypatch.setattr(model_files.time, "sleep", back)
    assert sp.SpaHGC.load(folder).seed == model.seed
    assert waited == [model_files.WAIT_S]
    os.close(lock)
    assert json.loads((folder / "model.json").read_text())["seed"] == model.seed
