"""Export of the plug-in prediction in the formats that Keras exports to."""

from __future__ import annotations

from typing import Any

import keras

from tfp_bnn.core.noise import NoNoise
from tfp_bnn.export.input_signature import input_specs


class PlugInNetwork(keras.Model):
    """The plug-in mean of a model as a Keras model, for the exporters of Keras: no draws, and no uncertainty.

    Args:
        model: A model with `VariationalMixin`, built.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(name=model.name)
        likelihood, weights = model.likelihood, dict(model.likelihood_weights)
        of_heads = likelihood.weights_by_head(weights)

        def mean(x: Any) -> Any:
            outputs = likelihood.by_head(model.call_with_noise(x, NoNoise()), "The outputs of the model")
            means = {
                name: likelihood.heads.get(name, likelihood).mean(of_head, of_heads[name])
                for name, of_head in outputs.items()
            }
            return means if likelihood.heads else means[""]

        # A function, so that Keras does not track the model, which refuses it.
        self._mean = mean
        self.built = True

    def call(self, x: Any) -> Any:
        """Probabilities or means, `(batch, ...)`; by head for several outputs."""
        return self._mean(x)


def export_plug_in(model: Any, filepath: Any, format: str, input_signature: Any, **kwargs: Any) -> None:
    """Exports the plug-in prediction by `keras.Model.export`.

    Args:
        model: A model with `VariationalMixin`.
        filepath: Path of the file.
        format: A format of `keras.Model.export`.
        input_signature: As in `PredictiveModel.export`.
        **kwargs: Arguments of `keras.Model.export`.

    Raises:
        ValueError: If the model is an ensemble, or the format is unknown or its package missing.
    """
    if hasattr(model, "members"):
        raise ValueError(
            f"The ensemble {model.name!r} cannot be exported with format={format!r}, which is for one network. Use "
            "format='tf_saved_model', or export its members one by one."
        )
    specs = input_specs(model, input_signature)
    PlugInNetwork(model).export(filepath, format=format, input_signature=[specs], **kwargs)
