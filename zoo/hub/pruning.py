"""Pruning of models of the zoo, which stay models of the zoo."""

from __future__ import annotations

from typing import Any, Literal

import tfp_bnn
from tfp_bnn import compression
from zoo.architectures.base import BuiltFrom


def prune(
    model: tfp_bnn.VariationalModel,
    fraction: float,
    by: compression.Criterion = "signal_to_noise",
    scope: Literal["global", "layer"] = "global",
) -> Any:
    """Copies a model of the zoo without the given share of its weights; see `tfp_bnn.compression.prune`.

    The result can be saved as an artifact and fine-tuned, and its pruned weights stay pruned. It has no card, because
    nothing was measured with it.

    Args:
        model: Model made by `zoo.create_model`, `zoo.train`, `zoo.fine_tune` or `zoo.load_model`. It is not changed.
        fraction: As there.
        by: As there.
        scope: As there.

    Returns:
        A model of the same architecture whose config says that the posterior is pruned.

    Raises:
        TypeError: As there.
        ValueError: As there, or if the model is not one of the zoo.

    Example:
        >>> import tfp_bnn, zoo
        >>> pruned = zoo.prune(zoo.load_model("mlp_flipout.iris"), 0.5)
        >>> {layer: round(share, 2) for layer, share in tfp_bnn.compression.sparsity(pruned).items()}
        {'dense1': 0.6, 'logits': 0.37}
    """
    built = getattr(model, "architecture", None)
    if not isinstance(built, BuiltFrom):
        raise ValueError(
            "`zoo.prune` takes one model made by zoo.create_model, zoo.train, zoo.fine_tune or zoo.load_model, but got "
            f"{type(model).__name__}. Use tfp_bnn.compression.prune for other models."
        )
    pruned = compression.prune(model, fraction, by, scope)
    posterior = {**built.config.kernel_arguments["kernel_posterior"], "pruned": True}
    pruned.architecture = BuiltFrom(built.name, built.config.model_copy(update={"kernel_posterior": posterior}))
    for name in ("class_names", "target_units"):
        setattr(pruned, name, getattr(model, name, None))
    pruned.inputs_expected = model.inputs_expected
    return pruned
