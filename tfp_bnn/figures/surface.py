"""The decision surface of a classifier of points in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.colors
import numpy as np
import numpy.typing as npt
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from tfp_bnn import metrics
from tfp_bnn.figures.style import BLACK, COLOURS, VERMILION, new_figure, plain

_MARKERS = "os^Dv<>"
_MARGIN = 0.4
_TWO_CLASSES = matplotlib.colors.LinearSegmentedColormap.from_list("two classes", [COLOURS[0], "white", VERMILION])

# Not down to black, on which the data would be invisible.
_GREYS = matplotlib.colors.LinearSegmentedColormap.from_list("greys", ["white", "#505050"])


def decision_surface(
    predict: Callable[[npt.NDArray[np.float32]], npt.ArrayLike],
    x: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    axis_names: Sequence[str] = ("x1", "x2"),
    resolution: int = 80,
) -> Figure:
    """Draws the predictions over the plane and the part of their uncertainty that is due to unknown weights.

    The plane extends beyond the data by 40 % of their range, because that is where a good model becomes uncertain.
    Left: for two classes the predictive probability of the second; for more the most probable class, the paler the less
    probable. Right: the mutual information of label and weights, which is the epistemic uncertainty.

    Args:
        predict: Function from points of shape `(m, 2)`, float32, to class probabilities of shape `(samples, m,
            classes)`, one set per draw of the weights.
        x: Data of shape `(n, 2)`.
        labels: Integers of shape `(n,)`.
        class_names: One name per class. Default: their numbers.
        axis_names: Names of the two inputs, with their units if they have any.
        resolution: Number of points along each axis, at least 2. Default: 80.

    Returns:
        A figure with two panels, with the data in both.

    Raises:
        ValueError: If points are not in the plane, arguments are inconsistent, or `predict` does not return
            probabilities.

    Example:
        >>> import numpy as np
        >>> from tfp_bnn.figures import decision_surface
        >>> def predict(points):
        ...     p = 1 / (1 + np.exp(-points[:, 0]))
        ...     return np.stack([1 - p, p], axis=-1)[None]
        >>> decision_surface(predict, [[-1, 0], [1, 1]], [0, 1], resolution=5).axes[0].get_ylabel()
        'x2'
    """
    data = np.asarray(x, np.float64)
    if data.ndim != 2 or data.shape[1] != 2 or len(data) == 0 or not np.isfinite(data).all():
        raise ValueError(f"`x` must hold finite points of shape (n, 2), at least one, but got the shape {data.shape}.")
    if resolution < 2 or len(axis_names) != 2:
        raise ValueError(f"Expected resolution >= 2 and 2 axis_names, but got {resolution!r} and {axis_names!r}.")
    lines = [np.linspace(*_limits(column), resolution) for column in data.T]
    points = np.stack(np.meshgrid(*lines), axis=-1).reshape(-1, 2).astype(np.float32)
    samples = metrics.validation.sampled(predict(points))
    if samples.shape[1] != len(points):
        raise ValueError(f"`predict` gave {samples.shape[1]} rows for {len(points)} points; expected one for each.")
    classes = samples.shape[-1]
    y = metrics.validation.labelled(labels, np.full((len(data), classes), 1.0 / classes))[1]
    given = [f"class {index}" for index in range(classes)] if class_names is None else class_names
    names = [plain(name) for name in given]
    if len(names) != classes:
        raise ValueError(f"`class_names` must hold {classes} names, as many as there are classes, but got {names}.")
    figure = new_figure(10.0, 4.4)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    mean = samples.mean(axis=0, dtype=np.float64).reshape(resolution, resolution, classes)
    information = metrics.mutual_information(samples).reshape(resolution, resolution)
    _draw_probability(figure, left, lines, mean, names)
    highest = max(float(information.max()), 1e-6)
    surface = right.pcolormesh(*lines, information, cmap=_GREYS, vmin=0, vmax=highest, shading="gouraud")
    figure.colorbar(surface, ax=right, label="mutual information (nats)")
    right.set_title("Epistemic uncertainty")
    for panel in (left, right):
        _draw_data(panel, data, y, names)
        panel.set_xlabel(plain(axis_names[0]))
    left.set_ylabel(plain(axis_names[1]))
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=min(classes, 5), frameon=False)
    return figure


def _limits(column: npt.NDArray[np.float64]) -> tuple[float, float]:
    span = float(np.ptp(column)) or 1.0
    return float(column.min()) - _MARGIN * span, float(column.max()) + _MARGIN * span


def _draw_probability(
    figure: Figure, panel: Any, lines: list[npt.NDArray[np.float64]], mean: npt.NDArray[np.float64], names: list[str]
) -> None:
    if len(names) == 2:
        surface = panel.pcolormesh(*lines, mean[..., 1], cmap=_TWO_CLASSES, vmin=0, vmax=1, shading="gouraud")
        panel.set_title(f"Probability of {names[1]}")
        figure.colorbar(surface, ax=panel, label="probability")
        if mean[..., 1].min() < 0.5 < mean[..., 1].max():
            panel.contour(*lines, mean[..., 1], levels=[0.5], colors=BLACK, linewidths=1)
        return
    best = mean.argmax(axis=-1)
    colours = np.array([matplotlib.colors.to_rgb(COLOURS[index % len(COLOURS)]) for index in range(len(names))])
    # Equally probable classes are white.
    strength = (mean.max(axis=-1, keepdims=True) - 1.0 / len(names)) / (1.0 - 1.0 / len(names))
    image = 1.0 - np.clip(strength, 0.0, 1.0) * (1.0 - colours[best])
    extent = (lines[0][0], lines[0][-1], lines[1][0], lines[1][-1])
    panel.imshow(image, origin="lower", extent=extent, aspect="auto", interpolation="bilinear")
    panel.set_title("Predicted class, the paler the less probable")
    scale = matplotlib.colors.LinearSegmentedColormap.from_list("strength", ["white", BLACK])
    norm = matplotlib.colors.Normalize(1.0 / len(names), 1.0)
    figure.colorbar(ScalarMappable(norm, scale), ax=panel, label="probability of the predicted class")


def _draw_data(panel: Any, data: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], names: list[str]) -> None:
    for index, name in enumerate(names):
        of_class = data[labels == index]
        colour = VERMILION if len(names) == 2 and index == 1 else COLOURS[index % len(COLOURS)]
        marker = _MARKERS[index % len(_MARKERS)]
        # A label that starts with an underscore would not be shown.
        panel.plot(
            of_class[:, 0],
            of_class[:, 1],
            marker,
            color=colour,
            markersize=4,
            markeredgecolor=BLACK,
            markeredgewidth=0.5,
            label=name.lstrip("_") or f"class {index}",
        )
