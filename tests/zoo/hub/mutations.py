"""Random damage to the files of an artifact, with or without a manifest that vouches for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from zoo.hub.manifest import describe_files

JSON_FILES = ("config.json", "metrics.json")
TENSOR_FILES = ("weights.safetensors", "golden.safetensors")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**9, 10**18, 10**19, -(10**19), 0.5, -0.0, 1e-300, 5e-324, 3e38, 1e308, "", "640",
    "x" * 5000, "\x1b[31mred", "[bold]x[/bold]", "=cmd|' /C calc'!A0", "../../etc/passwd", "normal", "nan", "\u202e",
    [], {}, [[]], [None], ["a"], [0.0] * 1000,
    {"name": "normal"}, {"class_name": "Lambda", "config": {}}, {"": {"": {}}},
)  # fmt: skip
NUMBERS = (0.0, -1.0, 1e-30, 3e38, -3e38, np.inf, -np.inf, np.nan, 1e-45)
DTYPES = (np.float64, np.float16, np.int8, np.int64, np.bool_, np.uint8)


def mutate(folder: Path, rng: np.random.Generator) -> str:
    """Damages an artifact. Returns what was done; it ends in "signed" where the manifest says that all is well."""
    signed = rng.random() < 0.7
    kinds: list[Callable[[Path, np.random.Generator], str]] = [_bytes, _json, _json, _tensors, _tensors, _files]
    what = kinds[rng.integers(len(kinds))](folder, rng)
    if not signed:
        return what
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = describe_files(folder)
    if rng.random() < 0.1:
        what += f"; manifest: {_change(manifest, rng)}"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return f"{what}; signed"


def _bytes(folder: Path, rng: np.random.Generator) -> str:
    """Flips, cuts, repeats or inserts bytes of a file."""
    path = _file(folder, rng)
    data = bytearray(path.read_bytes())
    kind = ("flip", "cut", "repeat", "insert", "header")[rng.integers(5)]
    place = int(rng.integers(max(1, len(data))))
    if kind == "flip":
        for _ in range(int(rng.integers(1, 9))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[place:]
    elif kind == "repeat":
        data[place:place] = data[: min(place, 10_000)] * int(rng.integers(1, 20))
    elif kind == "insert":
        data[place:place] = rng.bytes(int(rng.integers(1, 100)))
    else:
        data[:8] = int(rng.integers(2**62)).to_bytes(8, "little")
    path.write_bytes(bytes(data))
    return f"{path.name}: {kind} at {place}"


def _json(folder: Path, rng: np.random.Generator) -> str:
    """Replaces, removes, adds or moves values anywhere in a JSON file."""
    path = folder / JSON_FILES[rng.integers(len(JSON_FILES))]
    value = json.loads(path.read_text())
    what = ", ".join(_change(value, rng) for _ in range(int(rng.integers(1, 4))))
    path.write_text(json.dumps(value))
    return f"{path.name}: {what}"


def _change(value: Any, rng: np.random.Generator) -> str:
    where = []
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return "nothing"
        key = keys[rng.integers(len(keys))]
        where.append(str(key))
        if isinstance(value[key], dict | list) and rng.random() < 0.8:
            value = value[key]
            continue
        break
    new = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    kind = ("replace", "replace", "remove", "add")[rng.integers(4)]
    if kind == "replace":
        value[key] = new
    elif kind == "remove":
        del value[key]
    elif isinstance(value, dict):
        value[f"new_{rng.integers(100)}"] = new
    else:
        value.append(new)
    return f"{kind} {'.'.join(where)[:100]} {str(new)[:40]!r}"


def _tensors(folder: Path, rng: np.random.Generator) -> str:
    """Changes numbers, dtypes, shapes or names of tensors."""
    path = folder / TENSOR_FILES[rng.integers(len(TENSOR_FILES))]
    tensors = safetensors.numpy.load(path.read_bytes())
    name = list(tensors)[rng.integers(len(tensors))]
    kind = ("number", "number", "all", "dtype", "shape", "rename", "drop", "many")[rng.integers(8)]
    array = tensors[name].copy()
    number = NUMBERS[rng.integers(len(NUMBERS))]
    with np.errstate(all="ignore"):
        if kind == "number" and array.size:
            array.reshape(-1)[int(rng.integers(array.size))] = number
        elif kind == "all":
            array[...] = number
        elif kind == "dtype":
            array = array.astype(DTYPES[rng.integers(len(DTYPES))])
        elif kind == "shape":
            array = np.ascontiguousarray(
                (array.T, array.reshape(-1), array[..., np.newaxis], np.atleast_1d(array)[:0])[rng.integers(4)]
            )
    tensors[name] = array
    if kind in ("rename", "drop"):
        del tensors[name]
    if kind == "rename":
        tensors[f"{name}\u202e"] = array
    if kind == "many":
        tensors |= {f"x{k}": np.zeros(0, np.float32) for k in range(3000)}
    path.write_bytes(safetensors.numpy.save(tensors))
    return f"{path.name}: {kind} {name} {number}"


def _files(folder: Path, rng: np.random.Generator) -> str:
    """Removes, empties, adds or swaps files."""
    path, other = _file(folder, rng), _file(folder, rng)
    kind = ("remove", "empty", "add", "swap")[rng.integers(4)]
    if kind == "remove":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "add":
        (folder / "new.bin").write_bytes(rng.bytes(100))
    else:
        data = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    return f"{path.name}: {kind} {other.name}"


def _file(folder: Path, rng: np.random.Generator) -> Path:
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    return files[rng.integers(len(files))]
