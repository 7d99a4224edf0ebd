"""Reading of the files that `predict` takes: tables, arrays or images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoo.core.paths import IMAGES, found_inputs, kind_of
from zoo.core.shown import listed, shown
from zoo.datasets.image_files import decoded_image, image_header
from zoo.datasets.tables import by_names, columns_of_model, named_once, read_csv, read_npy, read_npz, read_parquet


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs for a model. Images are decoded when they are asked for.

    Attributes:
        labels: What each input is called: its row, from 0, or the path of its file.
        x: Inputs of shape `(n, *input_shape)`, float32; None for images.
        files: Images, if there is no `x`.
        input_shape: Shape of one input.
        pixel_max: Maximum of the model's raw pixels.
    """

    labels: Sequence[str | int]
    x: npt.NDArray[np.float32] | None
    files: Sequence[Path]
    input_shape: tuple[int, ...]
    pixel_max: float

    def __len__(self) -> int:
        """The number of inputs."""
        return len(self.labels)

    def batches(self, batch_size: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yields the inputs, some at a time.

        Raises:
            ValueError: If an image cannot be decoded.
        """
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size)
            yield np.stack([self._image(path) for path in self.files[rows]]) if self.x is None else self.x[rows]

    def _image(self, path: Path) -> npt.NDArray[np.float32]:
        return decoded_image(path, self.input_shape).astype(np.float32) * np.float32(self.pixel_max / 255.0)


def open_inputs(
    files: Sequence[str | Path],
    input_shape: tuple[int, ...],
    pixel_max: float,
    feature_names: Sequence[str] | None = None,
) -> Inputs:
    """Opens inputs for a model.

    Args:
        files: One `.csv`, `.parquet`, `.npy` or `.npz` file (with an array `x`), - for CSV from the standard input, or
            any number of images, folders of images and patterns.
        input_shape: Shape of one input of the model.
        pixel_max: Maximum of the model's raw pixels, which start at 0.
        feature_names: Names of the model's columns. A table, or an `.npz` file with an array `feature_names`, that has
            one of them is read by name: its columns may stand in any order, and others are left out.

    Raises:
        ValueError: If a file is missing, unreadable or of another kind, or inputs have a different shape.
    """
    paths = found_inputs(files)
    kind = kind_of(paths[0])
    if kind in IMAGES:
        if len(input_shape) != 3 or input_shape[-1] not in (1, 3):
            raise ValueError(
                f"The model takes inputs of shape {input_shape}, which are not images. Pass a .csv or .npy file."
            )
        for path in paths:
            # A file that is no image is found before the others are predicted.
            image_header(path, input_shape)
        return Inputs([str(path) for path in paths], None, paths, input_shape, pixel_max)
    x = fitting(str(paths[0]), _read(paths[0], kind, feature_names), input_shape, feature_names)
    return Inputs(range(len(x)), x, (), input_shape, pixel_max)


def fitting(
    what: str, x: npt.NDArray[np.float32], input_shape: tuple[int, ...], feature_names: Sequence[str] | None = None
) -> npt.NDArray[np.float32]:
    """Returns inputs of the model's shape, from flat ones or images without an axis for the channel.

    Raises:
        ValueError: If they have another shape, or there are none.
    """
    flat_or_without_channels = ((int(np.prod(input_shape)),), input_shape[:-1] if input_shape[-1] == 1 else None)
    if x.shape[1:] in flat_or_without_channels and x.ndim > 1:
        x = x.reshape(len(x), *input_shape)
    if x.ndim and not len(x):
        raise ValueError(f"{what!r} holds no inputs.")
    if x.shape[1:] != input_shape:
        raise ValueError(
            f"{what!r} holds inputs of shape {x.shape[1:]}, but the model takes {input_shape}, one input for each row"
            f"{f': the columns {shown(list(feature_names))}' if feature_names else ''}."
        )
    return x


def _read(path: Path, kind: str, feature_names: Sequence[str] | None) -> npt.NDArray[np.float32]:
    if kind == ".csv":
        return read_csv(path, feature_names)
    if kind == ".npy":
        return read_npy(path)
    if kind == ".npz":
        arrays = read_npz(path)
        if "x" not in arrays or arrays["x"].dtype.kind not in "biuf":
            raise ValueError(f"{str(path)!r} has the arrays {listed(arrays)}; an array 'x' of numbers was expected.")
        x = arrays["x"].astype(np.float32)
        if "feature_names" in arrays:
            x, _ = by_names(path, x, [*map(str, arrays["feature_names"])], feature_names)
        return x

    def chosen(found: Sequence[str]) -> list[str]:
        names = feature_names or ()
        return columns_of_model(path, found, names) if set(found) & set(names) else named_once(path, found)

    return read_parquet(path, chosen, None)[0]
