"""Contestants of PyTorch, each with its KL: torchbnn, Bayesian-Torch and BLiTZ. Needs an interpreter that has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from networks import BATCH, NUM_CLASSES, NUM_EXAMPLES, Network

Layer = Callable[..., torch.nn.Module]
Divergence = Callable[[torch.nn.Module], Any]
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}


class OfTorch:
    """A stack of layers of a library, trained by a loop.

    Args:
        network: The network.
        convolution: Function of channels in and out, kernel size and padding.
        dense: Function of features in and out.
        divergence: Function of the network, after a forward pass, that gives the KL in nats.
    """

    def __init__(self, network: Network, convolution: Layer, dense: Layer, divergence: Divergence) -> None:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        shape = network.shape if len(network.shape) == 1 else (network.shape[-1], *network.shape[:-1])
        self.x = torch.tensor(rng.random((max(network.steps * BATCH, network.rows), *shape), dtype=np.float32))
        self.y = torch.tensor(rng.integers(NUM_CLASSES, size=len(self.x)))
        layers: list[torch.nn.Module] = []
        channels, side = shape[0], shape[-1]
        for each in network.convolutions:
            padding = each.kernel_size // 2 if each.padding == "same" else 0
            layers += [
                convolution(channels, each.filters, each.kernel_size, padding=padding),
                ACTIVATIONS[network.activation](),
                torch.nn.MaxPool2d(2),
            ]
            channels, side = each.filters, (side - each.kernel_size + 1 + 2 * padding) // 2
        features = channels * side**2 if network.convolutions else shape[0]
        layers += [torch.nn.Flatten()]
        for units in network.units:
            layers += [dense(features, units), ACTIVATIONS[network.activation]()]
            features = units
        self.model = torch.nn.Sequential(*layers, dense(features, NUM_CLASSES))
        self._divergence = divergence
        self._optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)

    def fit(self, steps: int) -> None:
        """Trains for a number of steps."""
        for step in range(steps):
            rows = slice(step * BATCH, (step + 1) * BATCH)
            self._optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(self.x[rows]), self.y[rows])
            (loss + self._divergence(self.model) / NUM_EXAMPLES).backward()
            self._optimizer.step()

    def predict(self, rows: int, samples: int) -> None:
        """Class probabilities of the first rows, a mean over draws."""
        with torch.no_grad():
            torch.stack([self.model(self.x[:rows]).softmax(-1) for _ in range(samples)]).mean(0)


def torchbnn(network: Network) -> OfTorch:
    import torchbnn as bnn

    prior = {"prior_mu": 0, "prior_sigma": 1.0}
    return OfTorch(
        network,
        lambda channels, filters, size, padding: bnn.BayesConv2d(
            in_channels=channels, out_channels=filters, kernel_size=size, padding=padding, **prior
        ),
        lambda features, units: bnn.BayesLinear(in_features=features, out_features=units, **prior),
        bnn.BKLLoss(reduction="sum"),
    )


def bayesian_torch(network: Network, estimator: str) -> OfTorch:
    import bayesian_torch.layers as theirs

    class WithoutKL(torch.nn.Module):
        """A layer of Bayesian-Torch returns its outputs and its KL; this keeps the KL."""

        def __init__(self, layer: torch.nn.Module) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs, self.kl = self.layer(x)
            return outputs

    convolution, dense = (getattr(theirs, f"{kind}{estimator}") for kind in ("Conv2d", "Linear"))
    return OfTorch(
        network,
        lambda channels, filters, size, padding: WithoutKL(convolution(channels, filters, size, padding=padding)),
        lambda features, units: WithoutKL(dense(features, units)),
        lambda model: sum(each.kl for each in model if isinstance(each, WithoutKL)),
    )


def blitz(network: Network) -> OfTorch:
    from blitz.modules import BayesianConv2d, BayesianLinear
    from blitz.modules.base_bayesian_module import BayesianModule

    def divergence(model: torch.nn.Module) -> Any:
        layers = [each for each in model if isinstance(each, BayesianModule)]
        return sum(each.log_variational_posterior - each.log_prior for each in layers)

    return OfTorch(
        network,
        lambda channels, filters, size, padding: BayesianConv2d(channels, filters, (size, size), padding=padding),
        BayesianLinear,
        divergence,
    )


CONTESTANTS: dict[str, Callable[[Network], OfTorch]] = {
    "torchbnn": torchbnn,
    "bayesian-torch, flipout": lambda network: bayesian_torch(network, "Flipout"),
    "bayesian-torch, reparameterization": lambda network: bayesian_torch(network, "Reparameterization"),
    "blitz": blitz,
}
