"""Numbers of units of single layers, as a config of an architecture has them."""

from __future__ import annotations

from collections.abc import Mapping

import keras


def check_layer_units(architecture: str, layer_units: Mapping[str, int], network: keras.Model) -> None:
    """Refuses layers that there are not, and those whose number of units the config does not set.

    Args:
        architecture: Name of the architecture, for the message.
        layer_units: Number of units or filters by name of the layer.
        network: What the architecture built, without the last step to the units of the targets.

    Raises:
        ValueError: If there is one. The last layer is another: the number of its outputs is that of the targets.
    """
    sizes = {layer.name: units_of(layer) for layer in network.layers}
    last = network.layers[-1].name
    known = [name for name, size in sizes.items() if size is not None and name != last]
    for name, number in layer_units.items():
        if name not in known:
            raise ValueError(
                f"layer_units of the architecture {architecture!r} names {name!r}, whose number of units it cannot "
                f"set. Expected some of: {', '.join(known) or 'no layer'}."
            )
        if sizes[name] != number:
            raise ValueError(
                f"layer_units of the architecture {architecture!r} gives {name!r} {number} units, but its number of "
                f"units cannot be set: it has {sizes[name]}. Only layers that an architecture makes with config.dense "
                "or config.convolution can have another number."
            )


def units_of(layer: keras.layers.Layer) -> int | None:
    """The number of units or filters of a layer; None if it has none."""
    return getattr(layer, "filters", getattr(layer, "units", None))
