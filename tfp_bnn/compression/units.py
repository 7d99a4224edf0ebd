"""Which units and filters are pruned: all weights that lead into them and out of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.compression.channels import Channels, units_in_use
from tfp_bnn.core.arguments import is_number
from tfp_bnn.models.weight_record import bayesian_weights

Place = tuple[str, str]
Worth = Mapping[Place, npt.NDArray[np.float32]]
Kept = Mapping[Place, npt.NDArray[np.bool_]]

KERNEL = "kernel"


@dataclass(frozen=True)
class HowMany:
    """How many of some weights or units are pruned: a share of them, or all that are worth less than a number.

    Attributes:
        fraction: The share, or None.
        below: The number, or None.
    """

    fraction: float | None
    below: float | None

    @classmethod
    def of(cls, fraction: Any, below: Any) -> HowMany:
        """Checks the arguments of `prune`.

        Raises:
            ValueError: If not exactly one is given, or one is out of range.
        """
        if (fraction is None) == (below is None):
            raise ValueError(
                "Give either `fraction`, the share to prune, or `below`, the worth that is needed to stay, but got "
                f"fraction={fraction!r} and below={below!r}."
            )
        if below is None and not (is_number(fraction) and 0 <= fraction < 1):
            raise ValueError(
                f"`fraction` is the share of the weights to prune, at least 0 and below 1, but got {fraction!r}."
            )
        if fraction is None and not (is_number(below) and 0 < below < math.inf):
            raise ValueError(f"`below` is the worth that is needed to stay, a number above 0, but got {below!r}.")
        return cls(fraction, below)

    def __call__(self, values: npt.NDArray[np.floating]) -> int:
        """The number to prune of those with these values; -inf for what is pruned already."""
        if self.below is not None:
            return int(np.count_nonzero(values < self.below))
        return max(round((self.fraction or 0.0) * values.size), int(np.count_nonzero(np.isneginf(values))))

    @property
    def advice(self) -> str:
        """How to prune less."""
        if self.below is None:
            return "Prune less, or scope='layer', which prunes the same share of every layer."
        return "Give a smaller `below`."

    def __str__(self) -> str:
        return f"{self.fraction:g} of them" if self.below is None else f"all that are worth less than {self.below:g}"


class Units:
    """The units and filters of a network that can be pruned.

    Args:
        channels: Channels of the network.
        weights: Layer and name of each Bayesian weight.
        layers: Names of the layers whose units may be pruned; None for all.

    Raises:
        ValueError: If a layer has no units that can be pruned, or no layer has. The message says why.
    """

    def __init__(self, channels: Channels, weights: Collection[Place], layers: Sequence[str] | None) -> None:
        self._ends, self._fixed = channels.ends, channels.fixed
        self._made_by: dict[int, list[str]] = {}
        refused = dict(self._fixed)
        for name, ends in self._ends.items():
            has_kernel = (name, KERNEL) in weights
            if ends.inputs.size:
                for channel in ends.outputs.tolist():
                    self._made_by.setdefault(channel, []).append(name)
                if not has_kernel:
                    reason = f"the weights of {name!r} have no distribution"
                    refused |= dict.fromkeys([*ends.inputs.tolist(), *ends.outputs.tolist()], reason)
        wanted = set(self._ends if layers is None else layers)
        self.candidates = [
            channel for channel, made_by in self._made_by.items() if channel not in refused and wanted & {*made_by}
        ]
        """The channels that can be pruned."""
        for name in [] if layers is None else layers:
            if not any(name in self._made_by[channel] for channel in self.candidates):
                raise ValueError(f"The units of {name!r} cannot be pruned: {self._why_not(name, refused)}.")
        if not self.candidates:
            reasons = "; ".join(f"those of {name!r}: {self._why_not(name, refused)}" for name in self._ends)
            raise ValueError(f"The model has no units or filters that can be pruned: {reasons or 'no dense layers'}.")

    def removed(self, worth: Worth, kept: Kept, how_many: HowMany, by_layer: bool, total: bool = False) -> list[int]:
        """The channels to prune: those of the least mean worth of the weights that lead into them.

        Args:
            worth: What each weight is worth.
            kept: Which weights are kept so far.
            how_many: How many of the candidates to prune. Those without an effect on the outputs count.
            by_layer: Whether to prune the share of every layer.
            total: Whether a channel is worth the sum over the weights instead.

        Raises:
            ValueError: If nothing would be left of a layer.
        """
        used = units_in_use(self._ends, set(self._fixed), lambda name: kernel_kept(kept, name))
        values = {c: of if c in used else -math.inf for c, of in self._worth_of_units(worth, total).items()}
        groups: dict[Any, list[int]] = {}
        for channel in self.candidates:
            groups.setdefault(tuple(self._made_by[channel]) if by_layer else None, []).append(channel)
        removed = []
        for group in groups.values():
            number = how_many(np.array([values[channel] for channel in group]))
            removed += sorted(group, key=lambda channel: values[channel])[:number]
        for name, ends in self._ends.items():
            if not set(ends.outputs.tolist()) - set(removed):
                raise ValueError(
                    f"Pruning units, {how_many}, would leave none of the layer {name!r}. {how_many.advice}"
                )
        return removed

    def masks(self, kept: Kept, removed: Sequence[int]) -> dict[Place, npt.NDArray[np.bool_]]:
        """Which weights are kept without some channels: none that lead into one of them or out of it."""
        masks = {}
        for (layer, name), before in kept.items():
            ends = self._ends.get(layer)
            if ends is not None:
                stays = ~np.isin(ends.outputs, removed)
                if name == KERNEL and ends.inputs.size:
                    stays = stays & ~np.isin(ends.inputs, removed)[:, None]
                masks[layer, name] = before & stays
        return masks

    def _worth_of_units(self, worth: Worth, total: bool) -> dict[int, float]:
        sums: dict[int, float] = dict.fromkeys(self.candidates, 0.0)
        number: dict[int, int] = dict.fromkeys(self.candidates, 0)
        for (layer, _), of_weight in worth.items():
            ends = self._ends.get(layer)
            if ends is not None and ends.inputs.size:
                of_units = of_weight.reshape(-1, of_weight.shape[-1])
                for channel, values in zip(ends.outputs.tolist(), of_units.T, strict=True):
                    if channel in sums:
                        sums[channel] += float(values.sum(dtype=np.float64))
                        number[channel] += values.size
        return {channel: sums[channel] / (1 if total else number[channel]) for channel in self.candidates}

    def _why_not(self, name: str, refused: Mapping[int, str]) -> str:
        ends = self._ends.get(name)
        if ends is None:
            return "it is not a dense layer or a convolution whose channels can be followed to those that read them"
        reasons = {refused[channel] for channel in ends.outputs.tolist() if channel in refused}
        return ", ".join(sorted(reasons)) or "it makes no units"


def kernel_kept(kept: Kept, layer: str) -> npt.NDArray[np.bool_]:
    """Which inputs of a layer lead to which of its units by a weight that is kept, of shape `(inputs, units)`."""
    mask = kept[layer, KERNEL]
    return np.asarray(mask.reshape(-1, *mask.shape[-2:]).any(axis=0))


def kept_weights(layers: Mapping[str, Any]) -> dict[Place, npt.NDArray[np.bool_]]:
    """Which weights of some layers are kept, by layer and name. Of those without a distribution: which are not 0."""
    kept: dict[Place, npt.NDArray[np.bool_]] = {}
    for name, layer in layers.items():
        weights = bayesian_weights(layer)
        kept |= {(name, key): weight.kept for key, weight in weights.items()}
        if KERNEL not in weights and getattr(layer, KERNEL, None) is not None:
            kept[name, KERNEL] = np.asarray(layer.kernel) != 0
    return kept
