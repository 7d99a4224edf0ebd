"""The table of cases: every combination of operation, estimator and posterior that exists, small enough to be cheap."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import pytest

import tfp_bnn
from tfp_bnn.layers import FilterResponseNormalization, VariationalLayer
from tfp_bnn.layers.grouped_flipout import FlipoutConvolution, GroupedFlipout
from tfp_bnn.posteriors import POSTERIORS

# All cases of a test together fail by chance with this probability.
FALSE_FAILURE_RATE = 1e-6

ESTIMATORS = ("LocalReparameterization", "Reparameterization", "Flipout")


@dataclasses.dataclass(frozen=True)
class Operation:
    """Constructor arguments and inputs of a layer.

    Args:
        twin: Keras layer.
        arguments: Arguments of its constructor, except those for priors and posteriors.
        shapes: Shape of each input, without the batch axis.
        numbers_of_ids: Number of possible ids of each input, or None for real numbers.
        is_linear: Whether the outputs are linear in all Bayesian weights together.
    """

    twin: type[keras.layers.Layer]
    arguments: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    numbers_of_ids: tuple[int | None, ...] = (None,)
    is_linear: bool = True


# By the name of the layer without its estimator.
OPERATIONS = {
    "Dense": Operation(keras.layers.Dense, {"units": 3}, ((4,),)),
    "Convolution1D": Operation(keras.layers.Conv1D, {"filters": 3, "kernel_size": 2}, ((4, 2),)),
    "Convolution2D": Operation(keras.layers.Conv2D, {"filters": 3, "kernel_size": 2}, ((3, 3, 2),)),
    "Convolution3D": Operation(keras.layers.Conv3D, {"filters": 3, "kernel_size": 2}, ((3, 2, 2, 2),)),
    "DepthwiseConvolution2D": Operation(
        keras.layers.DepthwiseConv2D, {"kernel_size": 2, "depth_multiplier": 2}, ((3, 3, 2),)
    ),
    "SeparableConvolution2D": Operation(
        keras.layers.SeparableConv2D,
        {"filters": 3, "kernel_size": 2, "depth_multiplier": 2},
        ((3, 3, 2),),
        is_linear=False,
    ),
    "Convolution2DTranspose": Operation(
        keras.layers.Conv2DTranspose, {"filters": 3, "kernel_size": 2, "strides": 2}, ((2, 2, 2),)
    ),
    "Convolution1DTranspose": Operation(
        keras.layers.Conv1DTranspose, {"filters": 3, "kernel_size": 2, "strides": 2}, ((3, 2),)
    ),
    # Axes of inputs and outputs in different orders.
    "EinsumDense": Operation(
        keras.layers.EinsumDense,
        {"equation": "abc,cde->abed", "output_shape": (2, 2, 3), "bias_axes": "ed"},
        ((2, 4),),
    ),
    "MultiHeadAttention": Operation(
        keras.layers.MultiHeadAttention,
        {"num_heads": 2, "key_dim": 2, "value_dim": 3, "use_gate": True},
        ((3, 4),),
        is_linear=False,
    ),
    "Embedding": Operation(keras.layers.Embedding, {"input_dim": 5, "output_dim": 3}, ((2,),), numbers_of_ids=(5,)),
    "LSTM": Operation(keras.layers.LSTM, {"units": 2}, ((2, 2),), is_linear=False),
    "GRU": Operation(keras.layers.GRU, {"units": 2}, ((2, 2),), is_linear=False),
    "LayerNormalization": Operation(keras.layers.LayerNormalization, {}, ((2, 3),)),
    "GroupNormalization": Operation(keras.layers.GroupNormalization, {"groups": 2}, ((3, 4),)),
    "FilterResponseNormalization": Operation(FilterResponseNormalization, {}, ((3, 2),), is_linear=False),
    "HierarchicalDense": Operation(
        keras.layers.Dense, {"units": 3, "num_groups": 2}, ((4,), ()), numbers_of_ids=(None, 2)
    ),
}


def operation_of(cls: type[VariationalLayer]) -> str:
    """The name of a layer without its estimator."""
    return next(cls.__name__.removesuffix(name) for name in ESTIMATORS if cls.__name__.endswith(name))


def exported_layers() -> list[type[VariationalLayer]]:
    """The Bayesian layers that users can name, each once, in the order of their names."""
    exported = {getattr(tfp_bnn.layers, name) for name in tfp_bnn.layers.__all__}
    layers = {cls for cls in exported if issubclass(cls, VariationalLayer)} - {VariationalLayer}
    return sorted(layers, key=lambda cls: cls.__name__)


@dataclasses.dataclass(frozen=True)
class Case:
    """A layer, all of whose weights have posteriors of one family; with a number of groups, of grouped flipout."""

    layer: type[VariationalLayer]
    posterior: str
    groups_of_noise: int | None = None

    @property
    def operation(self) -> Operation:
        """What the layer computes."""
        return OPERATIONS[operation_of(self.layer)]

    @property
    def estimator(self) -> str:
        """The name of the estimator."""
        return self.layer.estimator.name if self.groups_of_noise is None else GroupedFlipout.name

    @property
    def has_normal_outputs(self) -> bool:
        """Whether each output, before the activation, is normal."""
        return self.operation.is_linear and self.posterior in ("mean_field_normal", "low_rank_normal")

    def of_all_weights(self, role: str, spec: Any) -> dict[str, Any]:
        """Constructor arguments that give every weight the same prior or posterior.

        Args:
            role: `"prior"` or `"posterior"`.
            spec: Name, config or object.
        """
        return {name: spec for name in inspect.signature(self.layer).parameters if name.endswith(f"_{role}")}

    def make(self, **kwargs: Any) -> VariationalLayer:
        """The layer, not built; every weight that can be Bayesian is."""
        arguments = {**self.operation.arguments, **self.of_all_weights("posterior", self.posterior)}
        if self.groups_of_noise is not None:
            arguments["groups_of_noise"] = self.groups_of_noise
        return self.layer(**{**arguments, **kwargs})

    def build(self, **kwargs: Any) -> VariationalLayer:
        """The layer with its variables."""
        layer = self.make(**kwargs)
        layer.build(self.input_shape)
        return layer

    @property
    def input_shape(self) -> Any:
        """The shape of the inputs, or a list of shapes, batch axis first."""
        shapes = [(None, *shape) for shape in self.operation.shapes]
        return shapes[0] if len(shapes) == 1 else shapes

    def inputs(self, batch: int = 3, seed: int = 1) -> Any:
        """Random inputs whose first two examples are equal: an array, or a list of arrays."""
        rng = np.random.default_rng(seed)
        arrays = []
        for shape, number_of_ids in zip(self.operation.shapes, self.operation.numbers_of_ids, strict=True):
            if number_of_ids is None:
                array = rng.normal(size=(batch, *shape)).astype(np.float32)
            else:
                array = rng.integers(number_of_ids, size=(batch, *shape)).astype(np.int32)
            array[1:2] = array[:1]
            arrays.append(array)
        return arrays[0] if len(arrays) == 1 else arrays

    def model(self, layer: VariationalLayer) -> tfp_bnn.VariationalModel | tfp_bnn.VariationalSequential:
        """A regression model of the layer, whose outputs are flattened to a vector for each example."""
        inputs = [
            keras.Input(shape, dtype="float32" if number_of_ids is None else "int32")
            for shape, number_of_ids in zip(self.operation.shapes, self.operation.numbers_of_ids, strict=True)
        ]
        flatten = keras.layers.Flatten()
        if len(inputs) == 1:
            return tfp_bnn.VariationalSequential([*inputs, layer, flatten], likelihood="normal", seed=0)
        return tfp_bnn.VariationalModel(inputs, flatten(layer(inputs)), likelihood="normal", seed=0)

    def __str__(self) -> str:
        return f"{self.layer.__name__}-{self.posterior}{'-grouped' if self.groups_of_noise else ''}"


LAYERS = exported_layers()
UNGROUPED = [Case(cls, name) for cls in LAYERS for name in POSTERIORS if cls.estimator.takes(POSTERIORS[name]())]
# Of three examples, the first two are a pair.
GROUPED = [
    dataclasses.replace(case, groups_of_noise=4) for case in UNGROUPED if issubclass(case.layer, FlipoutConvolution)
]
CASES = [*UNGROUPED, *GROUPED]
# One case for each layer, with the posterior that every estimator takes.
LAYER_CASES = [case for case in UNGROUPED if case.posterior == "mean_field_normal"]


def each_with_the_default(priors: Iterable[str], posteriors: Iterable[str]) -> list[Any]:
    """Every pair of a prior and a posterior; those without a default are thorough.

    Priors and posteriors meet in a draw of the weight alone: a fault of one shows with the default of the other.
    """
    return [
        pytest.param(
            prior,
            posterior,
            marks=() if prior == "normal" or posterior == "mean_field_normal" else pytest.mark.thorough,
            id=f"{prior}-{posterior}",
        )
        for prior in priors
        for posterior in posteriors
    ]


def one_at_a_time(cases: Iterable[Case]) -> list[Any]:
    """The same cases, as parameters; those that vary the layer and the posterior together are thorough.

    Every layer draws its weights through one class, whatever the posterior: a fault of a layer shows with the posterior
    that they all take, and a fault of a posterior shows in a dense layer or a convolution.
    """
    return [pytest.param(case, marks=() if _varies_one(case) else pytest.mark.thorough) for case in cases]


def _varies_one(case: Case) -> bool:
    return case.posterior == "mean_field_normal" or operation_of(case.layer) in ("Dense", "Convolution2D")


def by_cost(cases: Iterable[Case]) -> list[Any]:
    """The same cases, as parameters of tests that take long; all but a few are marked as slow or thorough.

    The slow cases are those of `one_at_a_time`. The others, which no code path of their own takes, are thorough, as are
    convolutions of one and three dimensions, which run through the code of two.
    """
    return [pytest.param(case, marks=_marks(case)) for case in cases]


def _marks(case: Case) -> Any:
    operation = operation_of(case.layer)
    has_posterior_of_all = case.posterior == "mean_field_normal"
    if operation == "Dense" or (operation in ("Convolution2D", "Embedding") and has_posterior_of_all):
        return ()
    has_code_of_its_own = has_posterior_of_all and operation not in ("Convolution1D", "Convolution3D")
    return pytest.mark.slow if has_code_of_its_own else pytest.mark.thorough


for_each_case = pytest.mark.parametrize("case", one_at_a_time(CASES), ids=str)
for_each_costly_case = pytest.mark.parametrize("case", by_cost(CASES), ids=str)
for_each_layer = pytest.mark.parametrize("case", LAYER_CASES, ids=str)
