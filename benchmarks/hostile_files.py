"""What hostile files cost: the error, the seconds and the memory of each case, in one table.

Run: `python benchmarks/hostile_files.py`. A good artifact is damaged in each way, with a manifest that vouches for the
damage, and then shown and loaded in this process, which has loaded a good one before. Cases of recipes and of files
for predictions follow. Exit code 1 if an artifact is not refused by an ArtifactError in words, or another file by a
ValueError, or if that takes more than 1 s or 64 MB. The numbers of the cases are those of the tests. Needs Linux, which
tells the peak of memory.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import zoo
from zoo.datasets.input_files import open_inputs
from zoo.hub.manifest import describe_files, saved_models_folder
from zoo.hub.reading import read_artifact

MODEL = "mlp_flipout.iris"
MOST_SECONDS, MOST_MEGABYTES, MOST_CHARACTERS = 1.0, 64.0, 2000
SETS = {"name": "sets", "level": 0.9, "thresholds": 0.5}


def change(name: str, **values: Any) -> Callable[[Path], None]:
    """Sets top-level values of a JSON file; the value None removes a key."""

    def apply(folder: Path) -> None:
        content = {**json.loads((folder / name).read_text()), **values}
        (folder / name).write_text(json.dumps(content))

    return apply


def configure(**values: Any) -> Callable[[Path], None]:
    """Sets values of the config of the architecture."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        content["config"] |= values
        (folder / "config.json").write_text(json.dumps(content))

    return apply


def weigh(name: str, value: float) -> Callable[[Path], None]:
    """Sets the first number of a tensor."""

    def apply(folder: Path) -> None:
        path = folder / "weights.safetensors"
        tensors = safetensors.numpy.load(path.read_bytes())
        tensors[name].reshape(-1)[0] = value
        path.write_bytes(safetensors.numpy.save(tensors))

    return apply


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def link(target: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "log.csv").unlink()
        (folder / "log.csv").symlink_to(target)

    return apply


def pipe(folder: Path) -> None:
    (folder / "log.csv").unlink()
    os.mkfifo(folder / "log.csv")


def sparse(number: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        for k in range(number):
            with (folder / f"f{k}").open("wb") as file:
                file.truncate(64 * 2**20)

    return apply


SIGNED: dict[str, Callable[[Path], None]] = {
    "L7 a header of gigabytes": write("weights.safetensors", struct.pack("<Q", 2**40)),
    "L9 10^9 units": configure(hidden=[10**9]),
    "L9 16 layers of 8,192": configure(hidden=[8192] * 16),
    "L10 JSON of 200,000 levels": write("config.json", b"[" * 200_000),
    "L10 JSON of more than 1 MiB": write("config.json", b" " * (2**20 + 1)),
    "L24 60,000 keys": write("config.json", json.dumps({f"k{k}": 0 for k in range(60_000)}).encode()),
    "L24 300,000 empty tensors": write(
        "weights.safetensors", safetensors.numpy.save({f"x{k}": np.zeros(0, np.float32) for k in range(300_000)})
    ),
    "L25 images of 8,192 x 8,192": configure(input_shape=[8192, 8192, 1]),
    "L26 a scale of 3e38": weigh("dense1/kernel/scale", 3e38),
    "L26 pixel_max of 5e-324": configure(pixel_max=5e-324),
    "L26 variances of 1e-300": configure(input_variance=[1e-300] * 4),
    "L26 num_examples of 10^400": write("config.json", b'{"schema": 1, "num_examples": 1' + b"0" * 400 + b"}"),
    'L26 num_examples "640"': change("config.json", num_examples="640"),
    "L26 schema true": change("config.json", schema=True),
    "L26 an unknown key": change("config.json", surprise=1),
    "L26 sets of 10^9 samples": change("config.json", conformal={**SETS, "num_samples": 10**9}),
    "L26 200,000 thresholds": change("config.json", conformal={**SETS, "thresholds": [""] * 200_000}),
    "L26 60,000 keys of sets": change("config.json", conformal={**SETS, **{f"k{k}": 0 for k in range(60_000)}}),
    "L26 thresholds of 5 classes": change("config.json", conformal={**SETS, "thresholds": [0.5] * 5}),
    "L27 half of a surrogate pair": write("metrics.json", b'{"test": {"\\ud800": 1.0}}'),
    "L27 a card that is not UTF-8": write("README.md", b"\xff\xfe\x00"),
}
# What only the architecture, or the weights, know does not matter to `show`.
LOADED_ONLY = (
    *(title for title in SIGNED if title[:3] in ("L7 ", "L9 ", "L25")),
    "L24 300,000 empty tensors",
    "L26 a scale of 3e38",
    "L26 pixel_max of 5e-324",
    "L26 variances of 1e-300",
    "L26 thresholds of 5 classes",
)
UNSIGNED: dict[str, Callable[[Path], None]] = {
    "L1 weights are empty": write("weights.safetensors", b""),
    "L2 other weights": write("weights.safetensors", b"x" * 1000),
    "L12 no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "L22 a link to /dev/zero": link("/dev/zero"),
    "L22 a link to nothing": link("nothing"),
    "L22 a pipe": pipe,
}
LISTED: dict[str, Callable[[Path], None]] = {"L23 3 sparse files of 64 MiB": sparse(3), "L23 60 of them": sparse(60)}


def vouch(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": describe_files(folder)}))


def list_sparse(folder: Path) -> None:
    """Lists files by their size, as a manifest of a stranger may, without reading them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"bytes": 64 * 2**20, "sha256": "0" * 64}
    manifest["files"] |= {path.name: entry for path in folder.glob("f*") if path.suffix == ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def of_artifacts(work: Path) -> dict[str, Callable[[], Any]]:
    cases: dict[str, Callable[[], Any]] = {}
    for after, damages in ((vouch, SIGNED), (list_sparse, LISTED), (lambda folder: None, UNSIGNED)):
        for index, (title, damage) in enumerate(damages.items()):
            folder = Path(shutil.copytree(saved_models_folder() / MODEL, work / f"{after.__name__}{index}"))
            damage(folder)
            after(folder)
            cases[f"show: {title}"] = functools.partial(read_artifact, folder)
            cases[f"load: {title}"] = functools.partial(zoo.load_artifact, folder, trust=True)
    return {title: case for title, case in cases.items() if title[:4] == "load" or title[6:] not in LOADED_ONLY}


def of_recipes(work: Path) -> dict[str, Callable[[], Any]]:
    texts = {
        "duplicate keys": "epochs: 1\nepochs: 2",
        "1:30": "epochs: 1:30",
        "010": "epochs: 010",
        "100,000 levels": "a: " + "[" * 100_000,
        "60,000 aliases": "a: &x [1]\nb: [" + "*x," * 60_000 + "]",
    }
    for index, text in enumerate(texts.values()):
        (work / f"{index}.yaml").write_text(text)
    return {f"recipe: {title}": functools.partial(zoo.load_recipe, work / f"{k}.yaml") for k, title in enumerate(texts)}


def of_inputs(work: Path) -> dict[str, Callable[[], Any]]:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(13_001) * 13_000, 1))
    (work / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    (work / "shifted.csv").write_text("?,2,3,4\n" + "1,2,3,4\n" * 1000)
    return {
        "T19 a PNG of 13,000 x 13,000": functools.partial(open_inputs, [work / "large.png"], (8, 8, 1), 16.0),
        "T19 a CSV whose first row is bad": functools.partial(open_inputs, [work / "shifted.csv"], (4,), 255.0),
    }


def measured(case: Callable[[], Any]) -> tuple[str, str, float, float]:
    """The type of the error, its message, seconds and megabytes beyond those before."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak_megabytes(), time.perf_counter()
    try:
        case()
        error, message = "none", ""
    except Exception as caught:
        error, message = type(caught).__name__, str(caught)
    return error, message, time.perf_counter() - start, peak_megabytes() - before


def peak_megabytes() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    zoo.load_model(MODEL)
    failed = 0
    print("| case | error | message | seconds | MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for title, case in {**of_artifacts(work), **of_recipes(work), **of_inputs(work)}.items():
            error, message, seconds, megabytes = measured(case)
            good = (
                error == ("ArtifactError" if title.startswith(("show", "load")) else "ValueError")
                and len(message) < MOST_CHARACTERS
                and message.isprintable()
                and seconds < MOST_SECONDS
                and megabytes < MOST_MEGABYTES
            )
            failed += not good
            shown = message.replace(name, "").replace("|", "/")[:90]
            print(f"| {title}{'' if good else ' **(bad)**'} | {error} | {shown} | {seconds:.2f} | {megabytes:.0f} |")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
