"""How a posterior predictive is shown: as a line, as a table, as a data frame and as a figure."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfp_bnn import figures
from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.names import Names
from tfp_bnn.likelihoods import LIKELIHOODS, Likelihood
from tfp_bnn.likelihoods.scoring import for_each_class

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_ROWS_IN_A_NOTEBOOK = 6
_CLASSES_IN_A_NOTEBOOK = 10
_PANELS = 4
_INTERVALS = 40
_DPI = 80


class ShownPredictive:
    """What is shown of the predictions of one output. Abstract: `PosteriorPredictive` has the numbers.

    Attributes:
        class_names: One name per class or label, for tables and figures; None for their numbers. Models of the zoo set
            it.
        target_units: One unit per target that is a number, for figures, such as `("mmHg",)`; None if they have no name.
            Models of the zoo set it.
    """

    likelihood: Likelihood
    class_names = Names("setosa")
    target_units = Names("mmHg", count=lambda predictive: predictive._number_of_numbers())

    mean: Callable[[], np.ndarray]
    entropy: Callable[[], np.ndarray]
    aleatoric: Callable[[], np.ndarray]
    epistemic: Callable[[], np.ndarray]
    interval: Callable[[float], tuple[np.ndarray, np.ndarray]]
    # The predictive of the first inputs alone: what is shown of many must not take the time of all.
    _first: Callable[[int], Any]
    _checked_targets: Callable[[Any], np.ndarray]

    @property
    def num_samples(self) -> int:
        """S, the number of draws."""
        raise NotImplementedError

    @property
    def num_outputs(self) -> int:
        """The number of raw outputs."""
        raise NotImplementedError

    @property
    def positions(self) -> tuple[int, ...]:
        """The sizes of the axes between the inputs and the outputs."""
        raise NotImplementedError

    @property
    def target_kind(self) -> str:
        """The kind of a target."""
        raise NotImplementedError

    @property
    def samples(self) -> np.ndarray:
        """Probabilities or means under each draw."""
        raise NotImplementedError

    @property
    def has_draws(self) -> bool:
        """Whether the draws are in memory."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __repr__(self) -> str:
        outputs = self._outputs_in_words()
        positions = f" of {' x '.join(map(str, self.positions))} positions" if self.positions else ""
        draws = f"{self.num_samples} draw{'' if self.num_samples == 1 else 's'}"
        name = LIKELIHOODS.name_of(self.likelihood)
        return f"<PosteriorPredictive: {len(self)} inputs{positions}, {outputs}, {draws}, likelihood {name!r}>"

    def _repr_html_(self) -> str:
        """The first predictions as a table, and a small figure of them, for notebooks."""
        title = f"<p>{html.escape(repr(self))}</p>"
        if self.positions or not self.has_draws:
            return title
        columns = self._first(_ROWS_IN_A_NOTEBOOK)._columns(_CLASSES_IN_A_NOTEBOOK, 0.9)
        # Probabilities and nats; numbers have units of their own.
        table = _html_table(columns, ".3f" if self.likelihood.has_probabilities else ".4g")
        more = len(self) - _ROWS_IN_A_NOTEBOOK
        rest = f"<p>... and {more:,} more.</p>" if more > 0 else ""
        png = base64.b64encode(figures.to_png(self.plot(), _DPI)).decode("ascii")
        style = 'style="max-width: 100%" alt="The first predictions"'
        return f'{title}{table}{rest}<img {style} src="data:image/png;base64,{png}">'

    def variance(self) -> np.ndarray:
        """The square of `std`, of the same shape."""
        if self.likelihood.has_probabilities:
            return np.var(self.samples, axis=0, dtype=np.float64).astype(np.float32)
        return self.aleatoric() + self.epistemic()

    def std(self) -> np.ndarray:
        """The standard deviation.

        Returns:
            Numbers: of the predictive distribution of the target, noise included, in units of the target, `(n,
            targets)`. Classes and labels: of each probability over the draws of the weights, `(n, classes)`; how
            uncertain the label itself is, `entropy` says.

        Raises:
            ValueError: For classes and labels, if the draws did not fit into memory.
        """
        return np.sqrt(self.variance())

    def stddev(self) -> np.ndarray:
        """The standard deviation, `std`, by its name in TensorFlow Probability."""
        return self.std()

    def to_dataframe(self, level: float = 0.9) -> pd.DataFrame:
        """The predictions as a pandas data frame, with a row for each input.

        Args:
            level: Probability of the intervals of numbers, in [0, 1]. Default: 0.9.

        Returns:
            Classes: the columns `prediction`, the most probable class; `mean_<class>`, its probability; `entropy`,
            `aleatoric` and `epistemic`, in nats. Labels: the same without `prediction`. Numbers: `mean`, `std`,
            `lower_90`, `upper_90` (the central interval, noise included), in units of the target, and the variances
            `aleatoric` and `epistemic`; for several targets, `mean_0` and so on. Outputs with positions have a row for
            each, and the index has the position after the input.

        Raises:
            ImportError: If pandas is not installed.
            ValueError: For numbers, if the draws did not fit into memory.
        """
        pd = _pandas()
        columns = self._columns(None, level)
        index = None
        if self.positions:
            names = ["input", *(f"position_{axis}" for axis in range(len(self.positions)))]
            index = pd.MultiIndex.from_product([range(size) for size in (len(self), *self.positions)], names=names)
        return pd.DataFrame(columns, index=index)

    def plot(self, y: Any = None, max_inputs: int | None = None, level: float = 0.9) -> Figure:
        """Draws the predictions of the first inputs.

        Args:
            y: Targets, which are drawn too, without those that are missing: classes and labels in the titles. None if
                they are not known.
            max_inputs: Number of inputs to draw. Default: 4 of classes and labels, 40 of numbers.
            level: Probability of the intervals, or of the whiskers over the draws of the weights. Default: 0.9.

        Returns:
            A matplotlib figure, which a notebook shows and `savefig` saves. Classes and labels: a panel of bars for
            each input; see `tfp_bnn.figures.class_predictions`. Numbers: means with their intervals; see
            `tfp_bnn.figures.number_predictions`.

        Raises:
            ValueError: If the outputs have positions, targets do not fit, or the draws did not fit into memory.
        """
        if self.positions:
            raise ValueError(
                f"`plot` draws predictions one by one, but these have positions of shape {self.positions}. Draw an "
                "array of them, such as predictive.entropy()[0], with matplotlib."
            )
        if max_inputs is not None:
            require_integer("max_inputs", max_inputs, 1)
        count = max_inputs or (_PANELS if self.likelihood.has_probabilities else _INTERVALS)
        first = self._first(count)
        targets = None if y is None else self._checked_targets(y)[:count]
        if not self.likelihood.has_probabilities:
            lower, upper = first.interval(level)
            targets = None if targets is None else np.where(self._missing(targets), np.nan, targets)
            return figures.number_predictions(first.mean(), lower, upper, targets, level, self._names_of_targets())
        samples = for_each_class(first.samples)
        names = self._names(samples.shape[-1])
        titles = [f"input {index}" for index in range(samples.shape[1])]
        if targets is not None:
            known = self._targets_in_words(targets, names)
            titles = [f"{title}: {words}" if words else title for title, words in zip(titles, known, strict=True)]
        return figures.class_predictions(samples, titles, names, level=level)

    def _targets_in_words(self, targets: np.ndarray, names: list[str]) -> list[str]:
        """The class of each input, or the labels that it has, as far as they are known."""
        missing = self._missing(targets).reshape(len(targets), -1)
        observed = self.likelihood.target_array(self.likelihood.without_missing(targets), self.num_outputs)
        numbers = np.rint(observed).astype(int).reshape(len(targets), -1)
        if self.target_kind == "class":
            return ["" if gone.any() else names[k] for (k,), gone in zip(numbers, missing, strict=True)]
        return [
            "" if gone.all() else ", ".join(names[k] for k in np.flatnonzero(labels & ~gone)) or "none"
            for labels, gone in zip(numbers == 1, missing, strict=True)
        ]

    def _missing(self, targets: np.ndarray) -> np.ndarray:
        """Which values mark missing targets, in the shape of the targets."""
        return np.zeros(targets.shape, bool) if self.likelihood.missing is None else self.likelihood.is_missing(targets)

    def _outputs_in_words(self) -> str:
        if self.likelihood.has_probabilities:
            words = {"class": "classes", "labels": "labels"}
            number = self.likelihood.num_classes(self.num_outputs) or self.num_outputs
            return f"{number} {words[self.target_kind]}"
        number = self.likelihood.num_targets(self.num_outputs)
        units = f" in {', '.join(self.target_units)}" if self.target_units else ""
        return f"{number} target{'' if number == 1 else 's'}{units}"

    def _number_of_numbers(self) -> int:
        """The number of targets that can have a unit."""
        is_number = not self.likelihood.has_probabilities
        return self.likelihood.num_targets(self.num_outputs) if is_number else 0

    def _names_of_targets(self) -> list[str] | None:
        units = self.target_units
        if not units:
            return None
        names = ["target"] if len(units) == 1 else [f"target {index}" for index in range(len(units))]
        return [f"{name} ({unit})" for name, unit in zip(names, units, strict=True)]

    def _names(self, count: int) -> list[str]:
        given = self.class_names
        if given is None or len(given) != count:
            return [str(index) for index in range(count)]
        if len(set(given)) == count:
            return list(given)
        # Classes of one name would be one column.
        return [f"{name} ({index})" for index, name in enumerate(given)]

    def _columns(self, most_classes: int | None, level: float) -> Mapping[str, np.ndarray]:
        """The columns of the table by name; positions are rows of their own."""
        if not self.likelihood.has_probabilities:
            return self._columns_of_numbers(level)
        mean = self.mean()
        mean = for_each_class(mean) if self.target_kind == "class" else mean
        mean = mean.reshape(-1, mean.shape[-1])
        names = self._names(mean.shape[-1])
        found: dict[str, np.ndarray] = {}
        if self.target_kind == "class":
            best = mean.argmax(axis=-1)
            found["prediction"] = best if self.class_names is None else np.asarray(names, object)[best]
        found |= {f"mean_{name}": mean[:, index] for index, name in enumerate(names[:most_classes])}
        for name in ("entropy", "aleatoric", "epistemic"):
            found[name] = getattr(self, name)().reshape(-1)
        return found

    def _columns_of_numbers(self, level: float) -> Mapping[str, np.ndarray]:
        lower, upper = self.interval(level)
        percent = f"{100 * level:g}"
        arrays = {
            "mean": self.mean(),
            "std": self.std(),
            f"lower_{percent}": lower,
            f"upper_{percent}": upper,
            "aleatoric": self.aleatoric(),
            "epistemic": self.epistemic(),
        }
        found: dict[str, np.ndarray] = {}
        targets = self.mean().shape[-1]
        for index in range(targets):
            suffix = "" if targets == 1 else f"_{index}"
            for name, values in arrays.items():
                if values.shape[-1] == targets:
                    found[f"{name}{suffix}"] = values.reshape(-1, targets)[:, index]
        return found


def joined_frame(frames: Mapping[str, Any]) -> Any:
    """The data frames of several outputs next to each other, with columns such as `class/mean_yes`."""
    return _pandas().concat([frame.add_prefix(f"{name}/") for name, frame in frames.items()], axis=1)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("`to_dataframe` makes a pandas data frame. Install pandas: pip install pandas") from error
    return pandas


def _html_table(columns: Mapping[str, np.ndarray], digits: str) -> str:
    header = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    rows = [
        f"<tr><th>{index}</th>{''.join(f'<td>{_cell(value, digits)}</td>' for value in row)}</tr>"
        for index, row in enumerate(zip(*columns.values(), strict=True))
    ]
    return f"<table><thead><tr><th></th>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: Any, digits: str) -> str:
    return format(value, digits) if isinstance(value, float | np.floating) else html.escape(str(value))
