"""Markov chains over the weights of a network: their states as draws, with the interface of every model."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfp_bnn.core.arguments import require_integer
from tfp_bnn.core.batches import checked_inputs
from tfp_bnn.core.compiled import compiled
from tfp_bnn.core.draws import FiniteDraws, Function
from tfp_bnn.inference.convergence import ENOUGH_SAMPLES, PREDICTIONS, Convergence
from tfp_bnn.inference.log_posterior import likelihood_names, outputs_at
from tfp_bnn.inference.stored_posterior import Arrays, StoredPosterior, integer_of
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.models.weight_record import trainable_values
from tfp_bnn.predictive.joint_predictive import predictive_from_draws

_LOG_POSTERIOR = "log_posterior"
# Stands for infinity in what is written as JSON.
_LARGEST_RHAT = 1e6
_STATES, _STATISTICS = "states/", "statistics/"
_MOST_CHAINS, _MOST_SAMPLES, _MOST_STATISTICS = 10_000, 10**7, 20


class Chains(StoredPosterior):
    """States of Markov chains as draws of the posterior, with the same predictions, scores and calibration as a model.

        p(y | x) = 1 / (C S) sum_c sum_s p(y | x, w_cs)

    All states of all chains are equally probable draws. `draws(seed)` takes them in random order, without repetition
    and from one chain after another, so a predictive of few draws is spread over the chains and their length. The
    states of a chain are correlated: `convergence` says how many independent draws they are worth.

    Args:
        network: Built model of points, `tfp_bnn.posteriors.Delta`. Its own weights are used where `states` has none.
        states: For each weight `<layer>/<weight>`, and each learned parameter of the likelihood `likelihood/<role>`,
            the array `(chains, samples, *shape)`, float32.
        statistics: Arrays `(chains, samples)` by name, such as `log_posterior`, in nats. Default: none.
        way: Name of the inference method, such as `"hmc"`.
        name: Name of the model.

    Raises:
        ValueError: If states are missing, have the wrong shape, or are NaN or infinite.
    """

    def __init__(
        self,
        network: VariationalMixin,
        states: Mapping[str, npt.NDArray[np.float32]],
        statistics: Mapping[str, npt.NDArray[Any]] | None = None,
        way: str = "hmc",
        name: str | None = None,
    ) -> None:
        _check_states(network, states)
        self.name = f"{way}_of_{network.name}" if name is None else name
        self._take_over(network)
        self.network = network
        self.way = way
        self._states = dict(states)
        self._statistics = dict(statistics or {})

    @property
    def networks(self) -> tuple[Any, ...]:
        """The network, alone."""
        return (self.network,)

    def settings(self) -> dict[str, Any]:
        """The number of chains, and of samples of each."""
        return {"chains": self.num_chains, "samples": self.num_samples}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """States and statistics, with `states/` and `statistics/` before their names."""
        states = {f"{_STATES}{name}": array for name, array in self._states.items()}
        return {**states, **{f"{_STATISTICS}{name}": np.asarray(array) for name, array in self._statistics.items()}}

    @classmethod
    def from_arrays(
        cls, networks: Sequence[Any], way: str, settings: Mapping[str, Any], arrays: Arrays, name: str
    ) -> Chains:
        """Rebuilds chains; see `StoredPosterior.from_arrays`."""
        (network,) = networks
        leading = (
            integer_of(settings, "chains", 1, _MOST_CHAINS),
            integer_of(settings, "samples", 1, _MOST_SAMPLES),
        )
        states, statistics = (
            {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            for prefix in (_STATES, _STATISTICS)
        )
        if len(states) + len(statistics) < len(arrays) or len(statistics) > _MOST_STATISTICS:
            raise ValueError(
                f"The arrays of chains must be called {_STATES}<weight> or {_STATISTICS}<name>, at most "
                f"{_MOST_STATISTICS} of the latter, but are {sorted(arrays)[:10]}."
            )
        for key, array in {**states, **statistics}.items():
            if array.shape[:2] != leading or (key in statistics and array.shape != leading):
                raise ValueError(f"The array of {key} has shape {array.shape}; expected {leading} at its beginning.")
            if array.dtype != np.float32 if key in states else array.dtype.kind not in "biuf":
                raise ValueError(f"The array of {key} has dtype {array.dtype}; expected float32.")
        return cls(network, states, statistics, way, name)

    @property
    def states(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """The states by weight, `(chains, samples, *shape)`."""
        return MappingProxyType(self._states)

    @property
    def statistics(self) -> Mapping[str, npt.NDArray[Any]]:
        """What the sampler says of each state, `(chains, samples)` by name; see the function that made the chains."""
        return MappingProxyType(self._statistics)

    @property
    def num_chains(self) -> int:
        """C, the number of chains."""
        return int(next(iter(self._states.values())).shape[0])

    @property
    def num_samples(self) -> int:
        """S, the number of states of each chain."""
        return int(next(iter(self._states.values())).shape[1])

    @property
    def num_examples(self) -> int | None:
        """N, the number of training examples."""
        return self.network.num_examples

    def __repr__(self) -> str:
        return f"Chains({self.name!r}, way={self.way!r}, chains={self.num_chains}, samples={self.num_samples})"

    def draws(self, seed: int = 0) -> FiniteDraws:
        """All states, each once, in an order that `seed` determines: draw k is from chain k modulo C.

        Args:
            seed: Integer. Equal seeds give equal draws.

        Raises:
            ValueError: If the seed is not an integer. A tensor, as in the graph of a SavedModel, is none.
        """
        if tf.is_tensor(seed):
            raise ValueError(
                "Markov chains have no SavedModel, whose seed is an input: the order of their states is drawn outside "
                "TensorFlow. Export to a file that holds the draws, with format='onnx' or format='litert'."
            )
        rng = np.random.default_rng(abs(require_integer("seed", seed)))
        orders = [rng.permutation(self.num_samples) for _ in range(self.num_chains)]
        return self._draws_at([(c, int(s)) for at_once in zip(*orders, strict=True) for c, s in enumerate(at_once)])

    def plug_in_draws(self) -> FiniteDraws:
        """For each chain, the network at the mean of its states. Chains can visit several modes, whose mean is none."""
        means = [{name: array[c].mean(axis=0) for name, array in self._states.items()} for c in range(self.num_chains)]
        return self._draws_of(means)

    def kl_by_layer(self) -> dict[str, tf.Tensor]:
        """Empty: states have no density, and so no KL to the prior."""
        return {}

    def diagnostics(self, x: Any) -> dict[str, float]:
        """`rhat` and `ess`: the worst R-hat and the smallest effective sample size of predictions; see `convergence`.

        An infinite R-hat, of chains that stand still and disagree, is given as 1e6, since JSON has no infinity.

        Args:
            x: Inputs as arrays. Every state predicts them.
        """
        if self.num_samples < ENOUGH_SAMPLES:
            return {}
        convergence = self.convergence(x, weights=False)
        numbers = {"rhat": min(convergence.worst_rhat(), _LARGEST_RHAT), "ess": convergence.least_ess()}
        return {name: value for name, value in numbers.items() if np.isfinite(value)}

    def convergence(self, x: Any, weights: bool = True) -> Convergence:
        """R-hat and effective sample size, of the predictions for some inputs and of the weights.

        Weights can be exchanged without changing the function, so chains that agree on every prediction may differ in
        their weights: read the numbers of the predictions first.

        Args:
            x: Inputs as arrays, such as a hundred rows of the test set. Every state predicts them.
            weights: Whether those of the weights are computed as well, which takes the longer the more there are.

        Returns:
            A `Convergence`. `print` it for a table.

        Raises:
            ValueError: If inputs do not fit the model.
        """
        x = checked_inputs(x, self._check_of_inputs(x))
        draws = self._draws_at([(c, s) for c in range(self.num_chains) for s in range(self.num_samples)])
        predictive = predictive_from_draws(draws, x, self.likelihood, draws.num_draws)
        of_heads = {f"{head}/{PREDICTIONS}": predictive[head] for head in self.likelihood.heads}
        predictions = {
            name: of_head.samples.reshape(self.num_chains, self.num_samples, *of_head.samples.shape[1:])
            for name, of_head in (of_heads or {PREDICTIONS: predictive}).items()
        }
        return Convergence.of({**predictions, **(self._states if weights else {})}, self._statistics)

    def to_inference_data(self) -> Any:
        """The states and statistics for ArviZ, its `InferenceData`: in newer versions an `xarray.DataTree`.

        Weights are in the group `posterior`, with the dimensions `chain` and `draw` and a dot in place of the slash in
        their names; statistics are in `sample_stats`, where `log_posterior` is called `lp`.

        Raises:
            ImportError: If arviz-base is not installed.
        """
        try:
            import arviz_base
        except ImportError as error:
            raise ImportError("ArviZ is not installed. Use `pip install 'tfp_bnn[arviz]'`.") from error
        statistics = {"lp" if name == _LOG_POSTERIOR else name: array for name, array in self._statistics.items()}
        states = {name.replace("/", "."): array for name, array in self._states.items()}
        return arviz_base.from_dict({"posterior": states, **({"sample_stats": statistics} if statistics else {})})

    def _draws_at(self, places: list[tuple[int, int]]) -> FiniteDraws:
        # Views of the stacked arrays, not copies.
        return self._draws_of([{name: array[place] for name, array in self._states.items()} for place in places])

    def _draws_of(self, states: list[dict[str, npt.NDArray[np.float32]]]) -> FiniteDraws:
        learned = likelihood_names(self.network, self._states)
        # Those that are not sampled are the same in all states.
        own = {role: np.asarray(variable) for role, variable in self.network.likelihood_weights.items()}

        def function(state: dict[str, npt.NDArray[np.float32]]) -> Function:
            return lambda x: self._forward(x, {name: tf.convert_to_tensor(value) for name, value in state.items()})

        return FiniteDraws(
            [function(state) for state in states],
            [{**own, **{role: np.asarray(state[name]) for role, name in learned.items()}} for state in states],
            sampled=True,
        )

    @functools.cached_property
    def _forward(self) -> Any:
        def forward(x: Any, values: dict[str, tf.Tensor]) -> Any:
            return outputs_at(self.network, values, x)

        return compiled(forward)

    def _check_inputs(self, x: Any) -> None:
        self.network._check_inputs(x)

    def _check_examples(self, x: Any, y: Any) -> None:
        self.network._check_examples(x, y)

    def _check_weights(self) -> None:
        self.network._check_weights()


def _check_states(network: VariationalMixin, states: Mapping[str, npt.NDArray[np.float32]]) -> None:
    variables = trainable_values(network)
    if not states or set(states) - set(variables):
        raise ValueError(f"`states` are of {sorted(states)}; expected weights of the network: {sorted(variables)}.")
    (leading, *others) = {np.shape(array)[:2] for array in states.values()}
    if others or len(leading) < 2 or 0 in leading:
        raise ValueError("The arrays of `states` must all have the same number of chains, and of samples, at least 1.")
    for name, array in states.items():
        expected = (*leading, *variables[name].shape)
        if np.shape(array) != expected:
            raise ValueError(f"The states of {name} have the shape {np.shape(array)}; expected {expected}.")
        bad = int((~np.isfinite(array)).sum())
        if bad:
            raise ValueError(f"{bad} of {np.size(array)} values in the states of {name} are NaN or infinite.")
