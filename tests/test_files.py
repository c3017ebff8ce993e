"""Files and folders are written whole or not at all, whatever happens, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spahgc import _files
from spahgc._files import digest, file_digest, folder_written_whole, path_digest, remove_leftovers, written_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from spahgc._files import folder_written_whole

with folder_written_whole(Path(sys.argv[1]), overwrite=True) as part:
    (part / "half").write_text("half")
    if sys.argv[2] == "wait":
        print("ready", flush=True)
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A process that ends in the middle of writing a folder, at once or when its input ends."""


@pytest.fixture(params=["exchange", "two renames"])
def swapping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which a new folder takes the place of an old one."""
    if request.param == "two renames":
        monkeypatch.setattr(_files, "_exchange", lambda one, other: False)
    elif sys.platform != "linux":
        pytest.skip("only Linux exchanges folders")
    return str(request.param)


def write(path: Path, text: str, *, overwrite: bool = False) -> None:
    with folder_written_whole(path, overwrite=overwrite) as part:
        (part / "file").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    with folder_written_whole(tmp_path / "deep" / "folder") as part:
        (part / "file").write_text("new")
        assert part.parent.parent == tmp_path / "deep" and part.parent.name.startswith(".folder-")
        assert not (tmp_path / "deep" / "folder").exists()
    assert (tmp_path / "deep" / "folder" / "file").read_text() == "new"
    assert names(tmp_path / "deep") == ["folder"]


def test_an_old_folder_is_replaced_only_when_that_is_said(tmp_path: Path, swapping: str) -> None:
    write(tmp_path / "folder", "old")
    with pytest.raises(FileExistsError, match='folder" exists already'):
        write(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / "file").read_text() == "old"
    write(tmp_path / "folder", "new", overwrite=True)
    assert (tmp_path / "folder" / "file").read_text() == "new"
    assert names(tmp_path) == ["folder"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "folder", "old")
    with pytest.raises(KeyboardInterrupt), folder_written_whole(tmp_path / "folder", overwrite=True) as part:
        (part / "file").write_text("new")
        raise KeyboardInterrupt
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "folder", "old")
    real = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name == _files.NEW:
            raise PermissionError(13, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(_files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match=r'folder" cannot be written \(Permission denied\)'):
        write(tmp_path / "folder", "new", overwrite=True)
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert names(tmp_path) == ["folder"]


def test_the_new_folder_is_there_without_a_moment_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux" or not _files._exchange(*_two_folders(tmp_path)):
        pytest.skip("this file system does not exchange folders")
    write(tmp_path / "folder", "old")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("it was renamed, and not exchanged"))
    write(tmp_path / "folder", "new", overwrite=True)
    assert (tmp_path / "folder" / "file").read_text() == "new"


def _two_folders(folder: Path) -> tuple[Path, Path]:
    for name in ("one", "other"):
        (folder / name).mkdir()
    return folder / "one", folder / "other"


def test_a_file_in_the_way_is_replaced_as_well(tmp_path: Path, swapping: str) -> None:
    (tmp_path / "folder").write_text("a file")
    write(tmp_path / "folder", "new", overwrite=True)
    assert (tmp_path / "folder" / "file").read_text() == "new"
    assert names(tmp_path) == ["folder"]


def killed(path: Path, how: str = "at once") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", KILLED, str(path), how]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_what_a_killed_process_left_is_removed_by_the_next_call(tmp_path: Path) -> None:
    write(tmp_path / "folder", "old")
    with killed(tmp_path / "folder") as process:
        assert process.wait() == -signal.SIGKILL
    assert len(names(tmp_path)) == 2 and (tmp_path / "folder" / "file").read_text() == "old"
    write(tmp_path / "folder", "new", overwrite=True)
    assert names(tmp_path) == ["folder"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with killed(tmp_path / "folder", "wait") as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        remove_leftovers(tmp_path / "folder")
        (part,) = names(tmp_path)
        write(tmp_path / "folder", "new")
        assert names(tmp_path) == [part, "folder"]
        process.communicate("")
    remove_leftovers(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]


def test_without_locks_only_an_old_part_counts_as_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_lock", lambda path: None)
    part = _files._new_part(tmp_path / "folder")
    part.mkdir()
    remove_leftovers(tmp_path / "folder")
    assert part.exists()
    os.utime(part, (0, 0))
    remove_leftovers(tmp_path / "folder")
    assert not part.exists()


def test_a_folder_that_made_room_for_one_that_never_came_gets_its_name_back(tmp_path: Path) -> None:
    write(tmp_path / "folder", "old")
    (tmp_path / "folder").rename(_files._new_part(tmp_path / "folder").with_suffix(_files.REPLACED))
    with pytest.raises(FileExistsError):
        write(tmp_path / "folder", "new")
    assert (tmp_path / "folder" / "file").read_text() == "old"


def test_parts_of_other_folders_are_left_alone(tmp_path: Path) -> None:
    others = [_files._new_part(tmp_path / name) for name in ("folder-2", "folder.zarr", "a" * 250)]
    for part in others:
        part.mkdir()
    write(tmp_path / "folder", "new")
    write(tmp_path / ("a" * 249), "new")
    assert all(part.exists() for part in others)


@pytest.mark.parametrize("name", ["a" * 250, "ä" * 125])
def test_a_name_of_any_legal_length_can_be_written(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "new")
    with written_whole(tmp_path / f"{name[:-1]}b") as part:
        part.write_text("new")
    assert len(names(tmp_path)) == 2


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_the_users_mask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(tmp_path / "folder", "new")
        with written_whole(tmp_path / "file") as part:
            part.write_text("new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_errors_name_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r'file/folder" cannot be written .*Pass another folder'):
        write(tmp_path / "file" / "folder", "new")


# Fingerprints stand in files that earlier versions wrote, so that they never change.


def test_fingerprints_of_bytes_files_and_folders_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "b").write_bytes(b"two")
    (tmp_path / "folder" / "a").write_bytes(b"one")
    assert digest(b"one", b"two") == "a5aceaae72938b67"
    assert digest(b"onetwo") != digest(b"one", b"two")
    assert path_digest(tmp_path / "folder" / "a") == "fe8d7a873dc48961"
    assert path_digest(tmp_path / "folder") == "ca0ac701c252b69f"


def test_of_a_large_file_its_size_and_blocks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "WHOLE_FILE_BYTES", 1000)
    monkeypatch.setattr(_files, "BLOCKS", 4)
    monkeypatch.setattr(_files, "BLOCK_BYTES", 16)
    content = np.random.default_rng(0).bytes(4000)
    path = tmp_path / "file"
    seen = {}
    for name, changed in {
        "same": content,
        "first": b"?" + content[1:],
        "last": content[:-1] + b"?",
        "longer": content + b"?",
        "between blocks": content[:100] + b"?" + content[101:],
    }.items():
        path.write_bytes(changed)
        seen[name] = file_digest(path)
    assert seen["between blocks"] == seen["same"]
    assert len({seen[name] for name in ("same", "first", "last", "longer")}) == 4


def test_a_part_that_a_writer_makes_anew_is_still_held(tmp_path: Path) -> None:
    with folder_written_whole(tmp_path / "folder") as part:
        part.rmdir()  # as zarr does with what it overwrites
        part.mkdir()
        (part / "file").write_text("new")
        remove_leftovers(tmp_path / "folder")
        assert (part / "file").exists()
    assert (tmp_path / "folder" / "file").read_text() == "new"


def test_somebody_elses_part_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(path)

    part = _files._new_part(tmp_path / "folder")
    part.mkdir()
    monkeypatch.setattr(_files, "_lock", refused)
    remove_leftovers(tmp_path / "folder")
    assert part.exists()


def test_a_part_that_has_another_ones_name_by_now_is_left_alone(tmp_path, monkeypatch):
    """A process that waited for the lock of an abandoned part gets it when that is gone and a new one lies there."""
    part = tmp_path / ".bank-00000000-alone.part"
    part.mkdir()
    lock = _files._lock

    def lock_late(path):
        descriptor = lock(path)
        path.rename(tmp_path / "gone")
        (path / "new").mkdir(parents=True)
        return descriptor

    monkeypatch.setattr(_files, "_lock", lock_late)
    assert not _files._remove_if_abandoned(part)
    assert (part / "new").is_dir()
