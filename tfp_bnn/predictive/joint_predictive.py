"""The posterior predictive of several outputs that share the draws of the weights."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.draws import Draws
from tfp_bnn.core.noise import number_of
from tfp_bnn.likelihoods import Likelihood
from tfp_bnn.predictive.calibrators import Calibration, check_fits
from tfp_bnn.predictive.drawing import averaged, draw_outputs
from tfp_bnn.predictive.posterior_predictive import PosteriorPredictive
from tfp_bnn.predictive.shown import joined_frame

if TYPE_CHECKING:
    import pandas as pd


class JointPredictive(Mapping[str, PosteriorPredictive]):
    """The predictives of all heads, as a mapping: `predictive["class"].mean()`. All are of the same S draws.

    The heads are independent given the weights only, so their joint density is not the product of theirs:

        p(y | x) = 1/S sum_s prod_h p_h(y_h | x, w_s)

    It has no `mean` or `entropy` of its own. `tfp_bnn.predictive.score` and `standard_errors` take it.

    Args:
        likelihood: Joint likelihood.
        heads: Predictives by head, of the same draws and inputs.

    Example:
        >>> import numpy as np, tfp_bnn
        >>> from tfp_bnn.core.draws import FiniteDraws
        >>> likelihood = tfp_bnn.likelihoods.Joint({"class": "categorical", "value": {"name": "normal", "scale": 1.0}})
        >>> draws = FiniteDraws([lambda x, w=w: {"class": w * x, "value": w * x[:, :1]} for w in (1.0, 3.0)])
        >>> predictive = tfp_bnn.predictive.JointPredictive.from_draws(draws, np.ones((4, 3)), likelihood)
        >>> predictive["class"].mean().shape, predictive["value"].mean()[0, 0], predictive.num_samples
        ((4, 3), np.float32(2.0), 2)
        >>> predictive.log_prob({"class": np.zeros(4), "value": np.zeros(4)}).shape
        (4,)
    """

    def __init__(self, likelihood: Likelihood, heads: Mapping[str, PosteriorPredictive]) -> None:
        self.likelihood = likelihood
        self._heads = dict(heads)

    @classmethod
    def from_draws(
        cls,
        draws: Draws,
        x: Any,
        likelihood: Likelihood,
        num_samples: int = 100,
        *,
        batch_size: int | None = None,
        max_bytes: int = 2**30,
        calibration: Calibration | None = None,
    ) -> JointPredictive:
        """Makes the predictives of all heads in one pass over the inputs; see `PosteriorPredictive.from_draws`.

        Args:
            draws: Draws of a function with one output for each head, in a dict or a list.
            x: As there.
            likelihood: Joint likelihood.
            num_samples: As there.
            batch_size: As there.
            max_bytes: Memory limit for the raw outputs of all draws and heads together.
            calibration: Must be None: there is no calibration of several outputs.

        Raises:
            ValueError: As there; or if the likelihood is not joint.
        """
        if not likelihood.heads:
            raise ValueError(f"The likelihood {likelihood!r} has no heads. Use PosteriorPredictive.from_draws.")
        if calibration is not None:
            check_fits(calibration, likelihood)
        drawn = draw_outputs(draws, x, likelihood, num_samples, batch_size, max_bytes, None)
        heads = likelihood.heads
        return cls(likelihood, {name: PosteriorPredictive.of_drawn(heads[name], part) for name, part in drawn.items()})

    def __getitem__(self, head: str) -> PosteriorPredictive:
        """The predictive of a head. A KeyError for another name lists the heads."""
        if head not in self._heads:
            raise KeyError(f"{head!r} is no head. Expected one of {list(self._heads)}.")
        return self._heads[head]

    def __iter__(self) -> Iterator[str]:
        return iter(self._heads)

    def __len__(self) -> int:
        """The number of heads; `num_examples` is the number of inputs."""
        return len(self._heads)

    def __repr__(self) -> str:
        heads = ", ".join(f"{name!r}: {of_head!r}" for name, of_head in self.items())
        return f"<JointPredictive of {len(self)} outputs: {heads}>"

    def _repr_html_(self) -> str:
        return "".join(f"<h4>{html.escape(name)}</h4>{of_head._repr_html_()}" for name, of_head in self.items())

    def to_dataframe(self, level: float = 0.9) -> pd.DataFrame:
        """The data frames of all heads next to each other, with columns such as `class/prediction`.

        Args:
            level: As in `PosteriorPredictive.to_dataframe`; so are the errors.
        """
        return joined_frame({name: of_head.to_dataframe(level) for name, of_head in self.items()})

    def __getattr__(self, name: str) -> Any:
        """Says where to find what only the predictive of a head has."""
        if not name.startswith("_") and hasattr(PosteriorPredictive, name):
            (head, *_) = self._heads
            raise AttributeError(f"Each head has its own `{name}`: predictive[{head!r}].{name}. Heads: {list(self)}.")
        raise AttributeError(f"'JointPredictive' object has no attribute {name!r}")

    @property
    def num_samples(self) -> int:
        """S, the number of draws."""
        return self._first.num_samples

    @property
    def num_examples(self) -> int:
        """The number of inputs."""
        return len(self._first)

    @property
    def has_draws(self) -> bool:
        """Whether the draws of all heads are in memory; see `max_bytes`."""
        return all(of_head.has_draws for of_head in self.values())

    @property
    def exhaustive(self) -> bool:
        """Whether these are all the draws there are. No Monte Carlo error is estimated then."""
        return self._first.exhaustive

    def log_prob(self, y: Any) -> np.ndarray:
        """Log p(y | x, data) of all targets of each example together, in nats, `(n,)`, float32.

        The log of the mean over the draws of the product of the heads' likelihoods, without the weights of the heads.

        Args:
            y: Targets by head, in a dict or a list. Those of a head may all be missing.

        Raises:
            ValueError: If a head is missing or there are others, if targets have a wrong shape or range, or if the
                draws did not fit into memory.
        """
        return averaged(self._log_likelihood(y))

    def nll(self, y: Any) -> float:
        """The negative mean over examples of `log_prob`, in nats per example."""
        return float(-self.log_prob(y).mean(dtype=np.float64))

    def sample(self, num_draws: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Draws targets of all heads, noise included, by head.

        Draw k of every head uses weight draw k modulo S, so the draws of an example belong together. The noise of the
        heads is independent.

        Args:
            num_draws: Number of targets per input.
            seed: Integer. Equal seeds give equal targets.

        Returns:
            By head, what `PosteriorPredictive.sample` returns.
        """
        seed = require_integer("seed", seed)
        return {name: of_head.sample(num_draws, seed ^ number_of(f"head/{name}")) for name, of_head in self.items()}

    def scores_without_each_draw(self, y: Any = None) -> list[dict[str, float]]:
        """The scores with each draw left out in turn; see `standard_errors`.

        Args:
            y: Targets by head; None for scores of uncertainty only.

        Raises:
            ValueError: If the draws did not fit into memory, or the targets do not fit.
        """
        targets = {} if y is None else self.likelihood.by_head(y, "`y`")
        of_heads = {
            name: of_head.scores_without_each_draw(self._present(name, targets.get(name)))
            for name, of_head in self.items()
        }
        found: list[dict[str, float]] = [{} for _ in range(self.num_samples)]
        if y is not None:
            by_draw = self._log_likelihood(y).astype(np.float64)
            for draw, scores in enumerate(found):
                others = np.delete(by_draw, draw, axis=0)
                scores["nll"] = float(np.log(len(others)) - logsumexp(others, axis=0).mean())
        for name, without in of_heads.items():
            for scores, of_head in zip(found, without, strict=True):
                scores |= {f"{name}/{key}": value for key, value in of_head.items()}
        return found

    def resampled_scores(self, y: Any, draws: np.ndarray) -> dict[str, np.ndarray]:
        """The scores that move in steps, of mixtures over some of the draws; see `PosteriorPredictive`."""
        targets = {name: self._present(name, of_head) for name, of_head in self.likelihood.by_head(y, "`y`").items()}
        return {
            f"{name}/{key}": values
            for name, of_head in self.items()
            if targets[name] is not None
            for key, values in of_head.resampled_scores(targets[name], draws).items()
        }

    @property
    def _first(self) -> PosteriorPredictive:
        return next(iter(self._heads.values()))

    def _log_likelihood(self, y: Any) -> np.ndarray:
        targets = self.likelihood.by_head(y, "`y`")
        return np.sum([of_head.log_likelihood(targets[name]) for name, of_head in self.items()], axis=0)

    def _present(self, name: str, y: Any) -> Any:
        return y if y is not None and self.likelihood.heads[name].has_targets(np.asarray(y)) else None


def predictive_from_draws(draws: Draws, x: Any, likelihood: Likelihood, *args: Any, **kwargs: Any) -> Any:
    """The `PosteriorPredictive` of one output or the `JointPredictive` of several; the arguments of `from_draws`."""
    kind = JointPredictive if likelihood.heads else PosteriorPredictive
    return kind.from_draws(draws, x, likelihood, *args, **kwargs)
