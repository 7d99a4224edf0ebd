"""Settings of inference methods in recipes. Methods that are not here have none."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from zoo.architectures.base import Spec
from zoo.core.validation import Strict

_Positive = Annotated[float, Field(strict=True, gt=0)]
_Count = Annotated[int, Field(strict=True, ge=1, le=10**7)]
_Chains = Annotated[int, Field(strict=True, ge=1, le=1000)]
_Flag = Annotated[bool, Field(strict=True)]

_UNIT_NORMAL: Spec = {"name": "normal", "scale": 1.0}


class SwagRecipe(Strict):
    """Settings of SWAG, which continues the trained point estimate with SGD; see `tfp_bnn.inference.swag`.

    Attributes:
        epochs: Number of epochs of SGD.
        learning_rate: Constant rate of SGD.
        momentum: Momentum of SGD.
        rank: Number of last deviations from the running mean.
        every: Number of epochs from one collection of the weights to the next.
    """

    epochs: Annotated[int, Field(strict=True, ge=2, le=100_000)] = 20
    learning_rate: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.01
    momentum: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.9
    rank: Annotated[int, Field(strict=True, ge=2, le=1000)] = 20
    every: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1

    @model_validator(mode="after")
    def _two_iterates(self) -> SwagRecipe:
        if self.epochs < 2 * self.every:
            raise ValueError(
                f"epochs: {self.epochs} with every: {self.every} are fewer than 2 iterates. Raise epochs to "
                f"{2 * self.every}"
            )
        return self


class LaplaceRecipe(Strict):
    """Settings of Laplace's method around the trained point estimate; see `tfp_bnn.inference.laplace`.

    Attributes:
        layers: `"last"`, `"all"`, or names of layers.
        structure: Structure of the curvature.
        curvature: `"ggn"`, or `"empirical_fisher"`.
        prior_precision: None for the normal priors of the layers, a number for all trainable weights of `layers`, or
            `"marginal_likelihood"` for the best such number.
        linearized: Whether a draw is the network that is linear in its weights.
    """

    layers: Literal["last", "all"] | tuple[str, ...] = "last"
    structure: Literal["full", "kronecker", "diagonal"] = "full"
    curvature: Literal["ggn", "empirical_fisher"] = "ggn"
    prior_precision: _Positive | Literal["marginal_likelihood"] | None = None
    linearized: _Flag = True


class _OfAllWeights(Strict):
    """Settings of methods with a posterior over everything that is trained.

    Attributes:
        plain_prior: Prior of the weights without a distribution, such as biases.
        likelihood_spread: Prior standard deviation of the learned parameters of the likelihood.
    """

    plain_prior: Spec = _UNIT_NORMAL
    likelihood_spread: _Positive = 1.0


class FullBatchRecipe(_OfAllWeights):
    """Settings of variational inference with all examples in each step; see `tfp_bnn.inference.full_rank`.

    Attributes:
        num_steps: Number of steps.
        num_draws: Number of draws of the weights per step, even.
        learning_rate: Rate of Adam in the first step.
    """

    num_steps: _Count = 2000
    num_draws: Annotated[int, Field(strict=True, ge=2, le=10_000, multiple_of=2)] = 16
    learning_rate: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.02


class ChainsRecipe(_OfAllWeights):
    """Settings that all samplers have; see `tfp_bnn.inference.hmc`. Chains start at draws of the prior.

    Attributes:
        num_samples: Number of states to keep of each chain.
        num_chains: Number of chains.
        step_size: First step size.
    """

    num_samples: _Count = 100
    num_chains: _Chains = 4
    step_size: _Positive = 0.01


class _AdaptedRecipe(ChainsRecipe):
    """Settings of samplers that accept or reject whole trajectories.

    Attributes:
        burn_in: Number of first states of each chain that are thrown away.
        thin: Keeps every `thin`-th state.
        target_acceptance: Acceptance rate to which the step size is adapted.
    """

    burn_in: Annotated[int, Field(strict=True, ge=0, le=10**7)] = 500
    thin: _Count = 1
    target_acceptance: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.75


class HmcRecipe(_AdaptedRecipe):
    """Settings of Hamiltonian Monte Carlo; see `tfp_bnn.inference.hmc`.

    Attributes:
        num_leapfrog_steps: Mean number of leapfrog steps per state.
        num_temperatures: Number of temperatures of replica exchange; 1 for none.
    """

    num_leapfrog_steps: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 20
    num_temperatures: Annotated[int, Field(strict=True, ge=1, le=1000)] = 1


class NutsRecipe(_AdaptedRecipe):
    """Settings of the No-U-Turn sampler; see `tfp_bnn.inference.nuts`.

    Attributes:
        max_tree_depth: Depth of the tree of leapfrog steps.
    """

    max_tree_depth: Annotated[int, Field(strict=True, ge=1, le=15)] = 8


class SgldRecipe(ChainsRecipe):
    """Settings of stochastic gradient Langevin dynamics on batches of `batch_size`; see `tfp_bnn.inference.sgld`.

    Attributes:
        num_steps: Number of steps.
        step_size: First step size, in squared units of the weights.
        final_step_size: Last step size; None for a tenth of the first.
        cycles: Number of cycles, or None for one decreasing rate.
        exploration: Fraction of the steps, or of each cycle, from which no state is kept.
    """

    num_steps: _Count = 10_000
    step_size: _Positive = 1e-3
    final_step_size: _Positive | None = None
    cycles: _Count | None = None
    exploration: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.5


OF_ALL_DATA = ("hmc", "nuts", "sgld", "full_rank", "mean_field")
"""Methods that take the data as they are, without epochs and an optimizer."""

OF_BAYES = ("laplace", *OF_ALL_DATA)
"""Methods whose posterior is that of Bayes' rule, at beta 1."""

SETTINGS_OF_WAYS: dict[str, type[Strict]] = {
    "swag": SwagRecipe,
    "laplace": LaplaceRecipe,
    "full_rank": FullBatchRecipe,
    "mean_field": FullBatchRecipe,
    "hmc": HmcRecipe,
    "nuts": NutsRecipe,
    "sgld": SgldRecipe,
}
"""Settings by the name of their inference method, which is their key in a recipe too."""
