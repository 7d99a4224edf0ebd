"""The networks of the benchmark, as plain data: every library builds them with its own layers."""

from __future__ import annotations

from dataclasses import dataclass

BATCH = 128
NUM_CLASSES = 10
NUM_EXAMPLES = 60_000
"""N of the KL / N in all losses."""


@dataclass(frozen=True)
class Convolution:
    """A convolution with a bias and an activation, then a max-pooling of 2 by 2."""

    filters: int
    kernel_size: int
    padding: str


@dataclass(frozen=True)
class Network:
    """A network: convolutions, dense layers of hidden units, and a dense layer of ten logits.

    Attributes:
        shape: Shape of one input.
        activation: Activation of the hidden layers.
        convolutions: Convolutions, each followed by a pooling.
        units: Units of the hidden dense layers.
        residual: Whether it is ResNet-20, with the convolutions of He et al. 2016.
        precision: Dtype policy of Keras.
        samples: Draws of the weights in a prediction for `rows` inputs.
        rows: Inputs of that prediction.
        steps: Training steps between two readings of the clock.
        rounds: Rounds of readings.
    """

    shape: tuple[int, ...]
    activation: str
    convolutions: tuple[Convolution, ...] = ()
    units: tuple[int, ...] = ()
    residual: bool = False
    precision: str = "float32"
    samples: int = 50
    rows: int = 1000
    steps: int = 40
    rounds: int = 4


_IMAGES, _COLOURS = (28, 28, 1), (32, 32, 3)
_LENET = (Convolution(6, 5, "same"), Convolution(16, 5, "valid"))
_RESNET = {"residual": True, "samples": 2, "steps": 4, "rounds": 3}
NETWORKS = {
    "mlp": Network((784,), "relu", units=(400, 400), steps=100, rounds=8),
    "lenet5": Network(_IMAGES, "relu", _LENET, (120, 84), rounds=8),
    "seedcnn": Network(_IMAGES, "tanh", (Convolution(32, 5, "valid"),) * 2, (64,), steps=20, rounds=6),
    "resnet20": Network(_COLOURS, "silu", **_RESNET),
    "resnet20_bfloat16": Network(_COLOURS, "silu", precision="mixed_bfloat16", **_RESNET),
}
