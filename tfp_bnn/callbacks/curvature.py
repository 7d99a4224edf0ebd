"""The curvature that `NaturalGradient` has found, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tfp_bnn.callbacks.measuring import prior_scales
from tfp_bnn.models.preparation import natural_gradient_of
from tfp_bnn.models.variational_mixin import VariationalMixin
from tfp_bnn.posteriors import MeanFieldNormal
from tfp_bnn.variational.kl import named_layers


@dataclass(frozen=True, eq=False)
class LayerCurvature:
    """What the precision of each weight of a layer consists of, in nats per squared weight and example.

    Attributes:
        of_data: h, the curvature of the mean NLL, of shape `(weights,)`; 0 where the posterior is wider than the prior.
        of_prior: delta, the curvature of the prior, of shape `(weights,)`.
    """

    of_data: npt.NDArray[np.float64]
    of_prior: npt.NDArray[np.float64]

    @cached_property
    def determined(self) -> float:
        """The effective number of weights that the data determine, the sum of h / (h + delta) (MacKay 1992)."""
        return float(np.sum(self.of_data / (self.of_data + self.of_prior)))

    @cached_property
    def median_ratio(self) -> float:
        """The median of h / delta."""
        return float(np.median(self.of_data / self.of_prior))


def layer_curvatures(model: VariationalMixin) -> dict[str, LayerCurvature]:
    """Returns the curvatures by the names of `model.kl_by_layer()`; none if no natural gradient trains the model.

    Only of posteriors whose scales are trained. A prior without a variance counts by its scale; weights whose prior has
    neither are left out, and so are pruned ones.
    """
    optimizer = natural_gradient_of(model)
    if optimizer is None or optimizer.kl_weight is None:
        return {}
    found = {}
    for name, layer in named_layers(model).items():
        parts = []
        for weight in layer.variational_weights.values():
            posterior = weight.posterior_spec
            if not isinstance(posterior, MeanFieldNormal) or not posterior.trains_scale or not layer.trainable:
                continue
            of_prior = optimizer.kl_weight / optimizer.temperature / prior_scales(weight) ** 2
            if of_prior.size and np.isfinite(of_prior).all():
                precision = optimizer.kl_weight / weight.variance.numpy()[weight.kept].astype(np.float64)
                parts.append((np.maximum(precision - of_prior, 0.0), of_prior))
        if parts:
            found[name] = LayerCurvature(*map(np.concatenate, zip(*parts, strict=True)))
    return found
