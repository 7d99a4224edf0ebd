"""Draws: a posterior over functions, however it was found, as a sequence of functions.

A draw is a seed in variational inference, a set of masks in Monte Carlo dropout, a member in an ensemble, and a state
in a Markov chain. Nothing else is needed for a predictive distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Function = Callable[[Any], Any]
"""A function of inputs of shape `(rows, ...)` that returns raw outputs of shape `(rows, channels)`."""


class Draws(Protocol):
    """Draw k is one function: `draws(k)(x)` are its raw outputs, which do not depend on how `x` is cut into batches.

    Draws whose `weights_shared` is True have equal likelihood weights, and are asked for those of the first alone.
    """

    @property
    def num_draws(self) -> int | None:
        """The number of draws; None if it is unlimited."""

    def __call__(self, index: int) -> Function:
        """The function of one draw.

        Args:
            index: Number k of the draw, from 0, and below `num_draws` if that is not None. In the graph of an exported
                model it is a tensor, if `num_draws` is None.
        """

    def likelihood_weights(self, index: int) -> Mapping[str, np.ndarray]:
        """The learned likelihood parameters of this draw, by role; empty for a likelihood that learns nothing."""


class FiniteDraws:
    """A finite number of draws: the functions in a list, each equally probable.

    Args:
        functions: Functions from inputs of shape `(rows, ...)` to raw outputs of shape `(rows, channels)`.
        likelihood_weights: Learned parameters of the likelihood by role, for each function. Default: none.
        sampled: Whether the functions are a sample of a posterior, as the states of a Markov chain are. A predictive
            of all of them has a Monte Carlo error then. Default: they are the whole posterior, as the members of an
            ensemble are.

    Raises:
        ValueError: If there are no functions, or the number of likelihood weights differs from that of functions.

    Example:
        >>> import numpy as np
        >>> draws = FiniteDraws([lambda x: x, lambda x: 2.0 * x])
        >>> draws.num_draws, draws(1)(np.ones((1, 2)))
        (2, array([[2., 2.]]))
    """

    def __init__(
        self,
        functions: Sequence[Function],
        likelihood_weights: Sequence[Mapping[str, np.ndarray]] | None = None,
        sampled: bool = False,
    ) -> None:
        self._functions = list(functions)
        self.sampled = sampled
        self._likelihood_weights = [{} for _ in functions] if likelihood_weights is None else list(likelihood_weights)
        if not self._functions:
            raise ValueError("There are no functions to draw from. Expected at least one.")
        if len(self._likelihood_weights) != len(self._functions):
            raise ValueError(
                f"Got {len(self._functions)} functions but {len(self._likelihood_weights)} sets of likelihood weights. "
                "Expected one set for each function."
            )

    @property
    def num_draws(self) -> int:
        """The number of functions."""
        return len(self._functions)

    def __call__(self, index: int) -> Function:
        """The function of draw `index`."""
        return self._functions[index]

    def likelihood_weights(self, index: int) -> Mapping[str, np.ndarray]:
        """The learned likelihood parameters of draw `index`, by role."""
        return self._likelihood_weights[index]
