"""Mutations of a file: of its bytes, and of what its format is made of. All of it follows from the generator's seed."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
import pandas as pd
import tifffile

Rng: TypeAlias = np.random.Generator

STRUCTURAL_SHARE = 0.7
"""Of the mutants of a file whose format is known; the others are of its bytes, which rarely get past the first check."""
NUMBERS = (0, 1, -1, 2, 0.5, 255, 65536, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, -(2**31), 1e30, 1e308, 1e-308)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
TEXTS = (
    "",
    "NaN",
    "nan",
    "inf",
    "-1",
    "1e309",
    "0x10",
    "abc",
    "é\u0000x",
    "../../outside",
    "/",
    "a/b",
    ".",
    "x" * 5000,
)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *NOT_FINITE,
    *TEXTS,
    None,
    True,
    False,
    [],
    {},
    [1],
    [[1]],
    [None],
    {"a": {}},
    ["a"],
)
"""What takes the place of a value of JSON."""
CELLS = (*TEXTS, *map(str, NUMBERS), '"', "1,5", "1;2", "1\t2", " ", "\r", "True", "2024-01-01", "9" * 400)
"""What takes the place of a cell of a table."""


def pick(rng: Rng, choices: Any) -> Any:
    """One of them, as it is."""
    choices = list(choices)
    return choices[int(rng.integers(len(choices)))]


def mutate(folder: Path, rng: Rng, *, skip: Callable[[Path], bool] = lambda path: False) -> str:
    """Change one file of a folder, or its place in it, and say what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not skip(path.relative_to(folder)))
    path = pick(rng, files)
    name = path.relative_to(folder).as_posix()
    chance = rng.random()
    if chance < 0.04:
        return f"{name}: {_mutate_place(path, files, rng)}"
    structural = _structural(path)
    if structural is None or chance > STRUCTURAL_SHARE:
        return f"{name}: {_mutate_bytes(path, rng)}"
    return f"{name}: {structural(path, rng)}"


def _structural(path: Path) -> Callable[[Path, Rng], str] | None:
    endings = {
        ".json": _mutate_json, ".h5": _mutate_hdf5, ".h5ad": _mutate_hdf5, ".safetensors": _mutate_safetensors,
        ".csv": _mutate_table, ".tsv": _mutate_table, ".gmt": _mutate_table, ".mtx": _mutate_table,
        ".gz": _mutate_packed, ".parquet": _mutate_parquet, ".png": _mutate_png, ".jpg": _mutate_jpeg,
        ".tif": _mutate_tiff, ".tiff": _mutate_tiff, ".svs": _mutate_tiff,
    }  # fmt: skip
    return endings.get(path.suffix)


# --- places and bytes


def _mutate_place(path: Path, files: list[Path], rng: Rng) -> str:
    what = pick(rng, ["gone", "empty", "a folder", "another file", "a link to itself", "a dead link"])
    path_of_other = pick(rng, files)
    content = path_of_other.read_bytes()
    path.unlink()
    if what == "empty":
        path.touch()
    elif what == "a folder":
        path.mkdir()
    elif what == "another file":
        path.write_bytes(content)
        what = f"the content of {path_of_other.name}"
    elif what == "a link to itself":
        path.symlink_to(path.name)
    elif what == "a dead link":
        path.symlink_to("nowhere")
    return what


def _mutate_bytes(path: Path, rng: Rng) -> str:
    content, what = bytes_mutated(path.read_bytes(), rng)
    path.write_bytes(content)
    return what


def bytes_mutated(content: bytes, rng: Rng) -> tuple[bytes, str]:
    """Flips, cuts, copies and insertions."""
    if not content:
        return b"\0", "a byte in an empty file"
    data = bytearray(content)
    what = pick(rng, ["flip", "flips", "cut off", "cut out", "twice", "insert", "zeros", "number", "swap"])
    # Formats begin with what says what they are; half of the places are near there.
    end = len(data) if rng.random() < 0.5 else min(len(data), 512)
    at = int(rng.integers(end))
    n = int(min(len(data) - at, 2 ** rng.integers(1, 12)))
    if what == "flip":
        data[at] ^= 1 << int(rng.integers(8))
    elif what == "flips":
        for place in rng.integers(0, len(data), int(rng.integers(2, 40))):
            data[place] = int(rng.integers(256))
    elif what == "cut off":
        del data[at:]
    elif what == "cut out":
        del data[at : at + n]
    elif what == "twice":
        data[at:at] = data[at : at + n]
    elif what == "insert":
        data[at:at] = rng.bytes(n)
    elif what == "zeros":
        data[at : at + n] = bytes(n)
    elif what == "number":
        value = pick(rng, [0, 1, 2**8 - 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1])
        data[at : at + 4] = value.to_bytes(4, pick(rng, ["little", "big"]))
    else:
        other = int(rng.integers(len(data)))
        data[at], data[other] = data[other], data[at]
    return bytes(data), f"{what} at {at} of {len(content)}"


# --- JSON


def json_mutated(value: Any, rng: Rng) -> tuple[Any, str]:
    """Another value, a missing one, or one too many, somewhere in it."""
    places = list(_places(value))
    if not places:
        return pick(rng, VALUES), "another value"
    holder, key, name = pick(rng, places)
    what = pick(rng, ["value", "value", "value", "gone", "as text", "in a list", "negative", "twice"])
    old = holder[key]
    if what == "value":
        holder[key] = pick(rng, VALUES)
        return value, f"{name} = {str(holder[key])[:40]!r}"
    if what == "gone":
        del holder[key]
    elif what == "as text":
        holder[key] = json.dumps(old)
    elif what == "in a list":
        holder[key] = [old]
    elif what == "negative":
        holder[key] = -old if isinstance(old, int | float) else [old, old]
    elif isinstance(holder, list):
        holder.insert(key, old)
    else:
        holder[f"{key}2"] = old
    return value, f"{name}: {what}"


def _places(value: Any, name: str = "") -> Any:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys)[:12]:  # of long lists the first few stand for all
        yield value, key, f"{name}.{key}".lstrip(".")
        yield from _places(value[key], f"{name}.{key}")


def _mutate_json(path: Path, rng: Rng) -> str:
    if rng.random() < 0.05:
        path.write_text("[" * 100_000)
        return "100,000 brackets"
    if rng.random() < 0.05:
        path.write_text(json.dumps(pick(rng, VALUES)))
        return "another value instead of all"
    value, what = json_mutated(json.loads(path.read_text()), rng)
    path.write_text(json.dumps(value))
    return what


# --- HDF5


def _mutate_hdf5(path: Path, rng: Rng) -> str:
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        sparse = [name for name in names if name.rpartition("/")[2] in ("data", "indices", "indptr", "shape")]
        name = pick(rng, sparse if sparse and rng.random() < 0.4 else names)
        item = file[name]
        chance = rng.random()
        if chance < 0.1:
            del file[name]
            return f"{name} is gone"
        if chance < 0.25 and len(item.attrs):
            key = pick(rng, item.attrs)
            if rng.random() < 0.3:
                del item.attrs[key]
                return f"attribute {key} of {name} is gone"
            item.attrs[key] = pick(
                rng, [*NUMBERS[:9], *filter(str.isprintable, TEXTS), np.arange(3), np.array([b"a"]), float("nan")]
            )
            return f"attribute {key} of {name} = {str(item.attrs[key])[:40]!r}"
        if chance < 0.3:
            del file[name]
            what = pick(rng, ["a group", "itself", "the root", "another file", "a number"])
            if what == "a group":
                file.create_group(name)
            elif what == "itself":
                file[name] = h5py.SoftLink(f"/{name}")
            elif what == "the root":
                file[name] = file["/"]
            elif what == "another file":
                file[name] = h5py.ExternalLink("elsewhere.h5", "/")
            else:
                file[name] = 1
            return f"{name} is {what}"
        if isinstance(item, h5py.Group):
            file.move(name, f"{name}_2")
            return f"{name} has another name"
        return f"{name}: {_mutate_dataset(item, rng)}"


def _mutate_dataset(item: h5py.Dataset, rng: Rng) -> str:
    parent, name, attributes = item.parent, item.name, dict(item.attrs)
    values = item[()]
    what = pick(rng, ["one value", "one value", "all values", "type", "longer", "shorter", "empty", "axes", "huge"])
    if what == "one value" and item.size and item.dtype.kind in "iuf":
        flat = np.asarray(values).reshape(-1).copy()
        place = int(rng.integers(flat.size))
        number = pick(rng, [*NUMBERS, *NOT_FINITE])
        with np.errstate(all="ignore"):
            flat[place : place + 1] = np.array([number]).astype(flat.dtype)
        item[...] = flat.reshape(item.shape)
        return f"value {place} = {flat[place]}"
    del parent[name]
    array = np.asarray(values)
    if what == "huge":
        shape = tuple(2**40 for _ in array.shape) or (2**40,)
        made = parent.create_dataset(
            name, shape=shape, dtype=item_dtype(array), chunks=tuple(1024 if i == 0 else 1 for i in range(len(shape)))
        )
    else:
        with np.errstate(all="ignore"):
            made = parent.create_dataset(name, data=_changed(array, what, rng))
    for key, value in attributes.items():
        made.attrs[key] = value
    return f"{what}, {made.dtype} of shape {made.shape}"


def item_dtype(array: np.ndarray) -> Any:
    return h5py.string_dtype() if array.dtype == object else array.dtype


def _changed(array: np.ndarray, what: str, rng: Rng) -> Any:
    texts = array.dtype.kind in "OSU"
    if what in ("one value", "all values"):
        value = pick(rng, TEXTS if texts else [*NUMBERS[:8], *NOT_FINITE])
        changed = array.astype(object) if texts else array.astype(np.float64).copy()
        changed[...] = value.replace("\0", "") if texts else value
        return changed.astype(h5py.string_dtype()) if texts else changed.astype(array.dtype)
    if what == "type":
        if texts:
            return np.arange(array.size, dtype=np.float64).reshape(array.shape)
        kind = pick(rng, ["i1", "u8", "f2", "f8", "c16", "text"])
        return array.astype(str).astype(h5py.string_dtype()) if kind == "text" else array.astype(kind)
    stored = array.astype(h5py.string_dtype()) if array.dtype == object else array
    if array.ndim == 0:
        return np.stack([stored, stored])
    if what == "longer":
        return np.concatenate([stored, stored[:1]])
    if what == "shorter":
        return stored[:-1]
    if what == "empty":
        return stored[:0]
    return stored[None] if array.ndim == 1 else stored.T


# --- safetensors


def _mutate_safetensors(path: Path, rng: Rng) -> str:
    from safetensors.numpy import load, save

    content = path.read_bytes()
    chance = rng.random()
    length = int.from_bytes(content[:8], "little")
    if chance < 0.1:
        wrong = pick(rng, [0, 1, length - 1, length + 1, 2**31, 2**63 - 1, 2**64 - 1, len(content)])
        path.write_bytes(wrong.to_bytes(8, "little") + content[8:])
        return f"a header of {wrong} bytes"
    if chance < 0.45:
        header, what = json_mutated(json.loads(content[8 : 8 + length]), rng)
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        return f"header: {what}"
    tensors = load(content)
    name = pick(rng, sorted(tensors))
    tensor = tensors[name]
    what = pick(rng, ["one value", "one value", "all values", "gone", "renamed", "type", "longer", "axis"])
    if what in ("one value", "all values"):
        changed = tensor.copy()
        number = pick(rng, [*NUMBERS, *NOT_FINITE])
        with np.errstate(all="ignore"):
            filled = np.array([number]).astype(changed.dtype)
        flat = changed.reshape(-1)
        place = slice(None) if what == "all values" or not flat.size else int(rng.integers(flat.size))
        flat[place] = filled[0]
        tensors[name] = changed
        what += f" = {number}"
    elif what == "gone":
        del tensors[name]
    elif what == "renamed":
        tensors[f"{name}2"] = tensors.pop(name)
    elif what == "type":
        with np.errstate(all="ignore"):
            tensors[name] = tensor.astype(pick(rng, ["f2", "f4", "f8", "i4", "i8", "u1", "?"]))
    elif what == "longer" and tensor.ndim:
        tensors[name] = np.concatenate([tensor, tensor[:1]])
    else:
        tensors[name] = np.ascontiguousarray(tensor[None])
    path.write_bytes(save(tensors))
    return f"{name}: {what}"


# --- tables


def _mutate_packed(path: Path, rng: Rng) -> str:
    text = gzip.decompress(path.read_bytes())
    chance = rng.random()
    if chance < 0.1:
        path.write_bytes(text)
        return "not packed"
    changed, what = table_mutated(text, rng) if chance < 0.8 else bytes_mutated(text, rng)
    path.write_bytes(gzip.compress(changed, mtime=0))
    return f"unpacked: {what}"


def _mutate_table(path: Path, rng: Rng) -> str:
    changed, what = table_mutated(path.read_bytes(), rng)
    path.write_bytes(changed)
    return what


def table_mutated(content: bytes, rng: Rng) -> tuple[bytes, str]:
    """Other cells, rows, columns, or another encoding."""
    text = content.decode(errors="replace")
    mark = max("\t, ", key=text.split("\n")[-2 if "\n" in text else 0].count)
    rows = [line.split(mark) for line in text.splitlines()] or [[""]]
    what = pick(
        rng,
        [
            "cell",
            "cell",
            "cell",
            "row gone",
            "row twice",
            "column gone",
            "column twice",
            "columns swapped",
            "longer row",
        ]
        + ["no header", "encoding", "separator", "header alone", "blank line"],
    )
    # The header is a row among many, and the one that matters most.
    row = 0 if rng.random() < 0.25 else int(rng.integers(len(rows)))
    column = int(rng.integers(max(len(rows[row]), 1)))
    if what == "cell":
        rows[row][column : column + 1] = [pick(rng, CELLS)]
        what = f"cell {row}, {column} = {rows[row][column][:40]!r}"
    elif what == "row gone":
        del rows[row]
    elif what == "row twice":
        rows.insert(row, rows[row])
    elif what == "column gone":
        rows = [line[:column] + line[column + 1 :] for line in rows]
    elif what == "column twice":
        rows = [line[: column + 1] + line[column:] for line in rows]
    elif what == "columns swapped":
        rows = [line[::-1] for line in rows]
    elif what == "longer row":
        rows[row] = [*rows[row], "1"]
    elif what == "no header":
        rows = rows[1:]
    elif what == "header alone":
        rows = rows[:1]
    elif what == "blank line":
        rows.insert(row, [""])
    elif what == "separator":
        mark = pick(rng, [",", ";", "\t", " ", "|"])
    changed = "\n".join(mark.join(line) for line in rows) + "\n"
    encoding = pick(rng, ["utf-16", "utf-8-sig", "utf-32"]) if what == "encoding" else "utf-8"
    return changed.encode(encoding), what


def _mutate_parquet(path: Path, rng: Rng) -> str:
    table = pd.read_parquet(path)
    column = pick(rng, table.columns)
    what = pick(rng, ["cell", "cell", "gone", "type", "twice", "empty", "index", "list"])
    if what == "cell":
        table[column] = table[column].astype(object)
        texts = table[column].map(type).eq(str).all()
        value = pick(rng, TEXTS if texts else [*NUMBERS, *NOT_FINITE])
        table.loc[table.index[int(rng.integers(len(table)))], column] = value
        table[column] = table[column].astype(str if texts else np.float64)
        column = f"{column}: {value!s:.40}"
    elif what == "gone":
        table = table.drop(columns=column)
    elif what == "type":
        table[column] = table[column].astype(str)
    elif what == "twice":
        table = pd.concat([table, table.iloc[:1]])
    elif what == "empty":
        table = table.iloc[:0]
    elif what == "index":
        table = table.set_index(column)
    else:
        table[column] = [[1]] * len(table)
    table.to_parquet(path)
    return f"{column}: {what}"


# --- images


def _mutate_png(path: Path, rng: Rng) -> str:
    content = bytearray(path.read_bytes())
    place = int(rng.integers(16, 29))  # within the header: width, height, depth, colour, ...
    if place < 24:
        start = 16 if place < 20 else 20
        content[start : start + 4] = pick(rng, [0, 1, 7, 70_000, 2**31 - 1, 2**32 - 1]).to_bytes(4, "big")
    else:
        content[place] = int(rng.integers(256))
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    return f"header byte {place}, its checksum right"


def _mutate_jpeg(path: Path, rng: Rng) -> str:
    content = bytearray(path.read_bytes())
    at = 2
    segments = []
    while at + 4 < len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        segments.append((content[at + 1], at))
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    marker, at = pick(rng, segments)
    frame = next((place for kind, place in segments if kind in (0xC0, 0xC1, 0xC2)), None)
    if frame is not None and rng.random() < 0.5:
        side = frame + pick(rng, [5, 7])  # height, width
        content[side : side + 2] = pick(rng, [0, 1, 9, 65_535]).to_bytes(2, "big")
        what = "size"
    else:
        place = at + 2 + int(rng.integers(max(int.from_bytes(content[at + 2 : at + 4], "big"), 1)))
        content[min(place, len(content) - 1)] = int(rng.integers(256))
        what = f"segment {marker:02x}"
    path.write_bytes(content)
    return what


def _mutate_tiff(path: Path, rng: Rng) -> str:
    """Another number in an entry of one of the directories: tag, type, count or value."""
    with tifffile.TiffFile(path) as tiff:
        order, big = tiff.byteorder, tiff.is_bigtiff
        tags = [tag for page in tiff.pages for tag in page.tags]  # type: ignore[union-attr]
        for page in tiff.pages:
            tags += [tag for sub in page.pages or () for tag in sub.tags]  # type: ignore[union-attr]
        tag = pick(rng, tags)
        name, offset, at, size = tag.name, tag.offset, tag.valueoffset, tag.valuebytecount
    content = bytearray(path.read_bytes())
    what = pick(rng, ["tag", "type", "count", "value", "value", "far value", "gone"])
    number = int(pick(rng, [0, 1, 2, 3, 7, 16, 255, 256, 65_535, 2**20, 2**31 - 1, 2**32 - 1]))

    def put(place: int, width: int, value: int) -> None:
        letter = {2: "H", 4: "I", 8: "Q"}[width]
        content[place : place + width] = struct.pack(f"{order}{letter}", value % 2 ** (8 * width))

    wide = 8 if big else 4
    if what == "tag":
        put(offset, 2, int(pick(rng, [254, 256, 257, 258, 259, 262, 273, 277, 279, 284, 322, 324, 330, 347])))
    elif what == "type":
        put(offset + 2, 2, int(rng.integers(0, 19)))
    elif what == "count":
        put(offset + 4, wide, number)
    elif what == "gone":
        put(offset, 2, 65_000)
    elif what == "value" or size <= wide:
        put(offset + 4 + wide, pick(rng, [2, wide]), number)
    else:
        put(at + 4 * int(rng.integers(max(size // 4, 1))), 4, number)
    path.write_bytes(content)
    return f"{what} of {name}, number {number}"


def copied(sample: Path, folder: Path) -> None:
    """The sample in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sample, folder, symlinks=True)


def packed(content: bytes) -> bytes:
    """Packed with gzip, the same bytes at any time."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as file:
        file.write(content)
    return stream.getvalue()
