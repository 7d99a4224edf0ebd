"""Draws: a posterior over functions, however it was found, as a sequence of functions.

A variational draw is a seed, a draw of Monte Carlo dropout a set of masks, an ensemble's a member, that of a Markov
chain a state. What needs a predictive distribution asks for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Function = Callable[[Any], Any]
"""From inputs of shape `(rows, ...)` to raw outputs of shape `(rows, channels)`."""


class Draws(Protocol):
    """Draw k is one function: `draws(k)(x)` are its raw outputs, which do not depend on how `x` is cut into batches."""

    @property
    def num_draws(self) -> int | None:
        """How many draws there are; None when there is no end to them."""

    def __call__(self, index: int) -> Function:
        """The function of one draw.

        Args:
            index: k, from 0, and below `num_draws` where that is a number.
        """

    def likelihood_weights(self, index: int) -> Mapping[str, np.ndarray]:
        """What the likelihood has learned with this draw, by role; empty for a likelihood that learns nothing."""


class FiniteDraws:
    """Draws that are all there: the functions of a list, each equally probable.

    Args:
        functions: each from inputs of shape `(rows, ...)` to raw outputs of shape `(rows, channels)`.
        likelihood_weights: of each function, by role, where the likelihood learns something. Default: nothing.

    Raises:
        ValueError: for no functions, or another number of likelihood weights than of functions.

    Example:
        >>> import numpy as np
        >>> draws = FiniteDraws([lambda x: x, lambda x: 2.0 * x])
        >>> draws.num_draws, draws(1)(np.ones((1, 2)))
        (2, array([[2., 2.]]))
    """

    def __init__(
        self, functions: Sequence[Function], likelihood_weights: Sequence[Mapping[str, np.ndarray]] | None = None
    ) -> None:
        self._functions = list(functions)
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
        """What the likelihood has learned with draw `index`, by role."""
        return self._likelihood_weights[index]
