"""Sparse storage of pruned weights: the values of those that are kept, and which these are, one bit for each weight.

dense1/kernel/kept     bits of the mask, of the weights in row-major order, eight to a byte
dense1/kernel/shape    shape of the weight
dense1/kernel/loc      values of the weights that are kept, in that order; so are the scales
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt

from tfp_bnn.models.weight_record import Role, WeightEntry, WeightRecord
from tfp_bnn.posteriors.base import FLOAT32_EPS

_MASK, _BITS, _SHAPE = "mask", "kept", "shape"
_MOST_AXES = 8
# What `VariationalWeight.posterior_parameters` says of a weight that is pruned.
_OF_PRUNED = {"loc": 0.0, "scale": FLOAT32_EPS}

Place = tuple[str, str]


def packed(record: WeightRecord, most_bytes: int) -> WeightRecord:
    """Returns a record without the values of pruned weights, to be stored.

    A weight stays as it is if none of it is pruned. `unpacked` gives the record back, bit for bit.

    Args:
        record: Record of a model.
        most_bytes: Largest size of all arrays together, as `unpacked` will be told.

    Raises:
        ValueError: If `unpacked` would refuse the result, because all take more than `most_bytes`.
    """
    posteriors = record.posteriors()
    masks = {place: of[_MASK] for place, of in posteriors.items() if _MASK in of and _saves(of)}
    if masks:
        _require_size(sum(entry.array.nbytes for entry in record), most_bytes)
    return WeightRecord([new for entry in record for new in _packed(entry, masks)])


def unpacked(record: WeightRecord, most_bytes: int) -> WeightRecord:
    """Returns the record from which a packed one was made. Others come back as they are.

    Args:
        record: Record from an untrusted source.
        most_bytes: Largest size of all arrays together, checked before any is allocated.

    Raises:
        ValueError: If the parts of a weight do not fit each other, or all take more than `most_bytes`.
    """
    posteriors = record.posteriors()
    kept = {place: of for place, of in posteriors.items() if _BITS in of or _SHAPE in of}
    shapes = {place: _shape(place, of) for place, of in kept.items()}
    # Bits and shape together become the mask.
    size = sum(4 * (len(kept[place]) - 1) * math.prod(shape) for place, shape in shapes.items())
    size += sum(entry.array.nbytes for entry in record if not _is_packed(entry, kept))
    if kept:
        _require_size(size, most_bytes)
    masks = {place: _mask(place, of[_BITS], shapes[place]) for place, of in kept.items()}
    return WeightRecord([new for entry in record for new in _unpacked(entry, masks)])


def _require_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise ValueError(f"The pruned weights take {size:,} bytes when they are unpacked; at most {most_bytes:,} can.")


def _saves(parameters: dict[str, npt.NDArray[np.float32]]) -> bool:
    mask = parameters[_MASK]
    known = all(name in _OF_PRUNED and of.shape == mask.shape for name, of in parameters.items() if name != _MASK)
    return known and mask.ndim <= _MOST_AXES and bool((mask == 0).any())


def _packed(entry: WeightEntry, masks: dict[Place, npt.NDArray[np.float32]]) -> Iterator[WeightEntry]:
    mask = masks.get((entry.owner, entry.weight))
    if mask is None or entry.role is not Role.POSTERIOR:
        yield entry
    elif entry.parameter == _MASK:
        yield _with(entry, np.packbits(mask.ravel() > 0), _BITS)
        yield _with(entry, np.array(mask.shape, np.int32), _SHAPE)
    else:
        yield _with(entry, entry.array[mask > 0])


def _unpacked(entry: WeightEntry, masks: dict[Place, npt.NDArray[np.bool_]]) -> Iterator[WeightEntry]:
    mask = masks.get((entry.owner, entry.weight))
    if mask is None or entry.role is not Role.POSTERIOR:
        yield entry
    elif entry.parameter == _BITS:
        yield _with(entry, mask.astype(np.float32), _MASK)
    elif entry.parameter != _SHAPE:
        values, number = entry.array, int(mask.sum())
        if values.shape != (number,) or values.dtype != np.float32 or entry.parameter not in _OF_PRUNED:
            raise ValueError(
                f"{entry.name!r} has shape {values.shape} and dtype {values.dtype}, but {number} weights of "
                f"{entry.owner}/{entry.weight} are kept: that many float32 values of 'loc' or 'scale' were expected."
            )
        whole = np.full(mask.shape, _OF_PRUNED[entry.parameter], np.float32)
        whole[mask] = values
        yield _with(entry, whole)


def _is_packed(entry: WeightEntry, kept: Collection[Place]) -> bool:
    return entry.role is Role.POSTERIOR and (entry.owner, entry.weight) in kept


def _with(entry: WeightEntry, array: npt.NDArray[np.generic], parameter: str | None = None) -> WeightEntry:
    return WeightEntry(entry.role, entry.owner, entry.weight, parameter or entry.parameter, array)


def _shape(place: Place, parameters: dict[str, npt.NDArray[np.generic]]) -> tuple[int, ...]:
    shape, bits = parameters.get(_SHAPE), parameters.get(_BITS)
    fits = (
        isinstance(shape, np.ndarray)
        and isinstance(bits, np.ndarray)
        and shape.dtype == np.int32
        and shape.ndim == 1
        and 0 < len(shape) <= _MOST_AXES
        and min(shape.tolist()) > 0
        and bits.dtype == np.uint8
        and bits.shape == (-(-math.prod(shape.tolist()) // 8),)
    )
    if not fits:
        raise ValueError(
            f"{'/'.join(place)} is stored without its pruned weights, but {_BITS!r} and {_SHAPE!r} do not fit: "
            "expected one bit for each weight (uint8), and a shape of positive int32 numbers."
        )
    return tuple(shape.tolist())  # type: ignore[union-attr]


def _mask(place: Place, bits: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    size = math.prod(shape)
    found = np.unpackbits(bits)
    if found[size:].any():
        raise ValueError(f"{'/'.join(place)}/{_BITS} has bits beyond the last of its {size} weights.")
    return found[:size].reshape(shape).astype(bool)
