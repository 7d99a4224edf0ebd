"""The models in an artifact: one network, the members of an ensemble, or a network with a posterior beside it.

Arrays of members are called `member_<k>/<name>`. Only this file knows that prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

import tfp_bnn
from tfp_bnn.inference import WAYS, members_of, way_of
from tfp_bnn.inference.stored_posterior import StoredPosterior, require_arrays
from tfp_bnn.inference.ways import STORED_POSTERIORS
from tfp_bnn.models.packed_weights import packed, unpacked
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.weight_record import WeightRecord, count_weights
from zoo.core.shown import shown
from zoo.hub.manifest import MAX_FILE_BYTES

ZooModel = tfp_bnn.VariationalModel | StoredPosterior
"""Type of the models in artifacts."""

WAYS_IN_ARTIFACTS = WAYS
"""The inference methods whose models can be stored."""

MOST_BYTES = 20 * 2**20 - 2**16
"""Largest size of the arrays of a posterior that is more than one network."""

# A posterior with pruned weights has at most the size, once they are unpacked, of one that was never pruned.
_MOST_UNPACKED = MAX_FILE_BYTES
_PREFIX = "member_"


def records_of(model: PredictiveModel) -> list[WeightRecord]:
    """Returns the weights of each member, or of the single model."""
    return [WeightRecord.of(member) for member in members_of(model)]


def count_all_weights(model: PredictiveModel) -> int:
    """Returns the total number of weights of all members."""
    return sum(count_weights(member) for member in members_of(model))


def arrays_of(records: Sequence[WeightRecord], members: int | None) -> dict[str, npt.NDArray[Any]]:
    """Returns all arrays to store, by name; of pruned weights only those that are kept.

    Args:
        records: Weights of each member.
        members: Number of members of an ensemble, whose names are prefixed, or None for a single network.

    Raises:
        ValueError: If pruned weights are too many to be loaded again.
    """
    most = _MOST_UNPACKED // (members or 1)
    if members is None:
        (record,) = records
        return packed(record, most).arrays()
    return {
        f"{_PREFIX}{index}/{name}": array
        for index, record in enumerate(records)
        for name, array in packed(record, most).arrays().items()
    }


def split_records(arrays: Mapping[str, npt.NDArray[Any]], members: int | None) -> list[WeightRecord]:
    """Splits stored arrays by member: the inverse of `arrays_of`.

    Args:
        arrays: Stored arrays, by name.
        members: Number of members of an ensemble, or None for a single model.

    Raises:
        ValueError: For a name that does not belong to a weight, or to one of the members, and for pruned weights that
            are damaged or too many.
    """
    if members is None:
        return [unpacked(WeightRecord.from_arrays(arrays), _MOST_UNPACKED)]
    of_members: dict[str, dict[str, npt.NDArray[Any]]] = {f"{_PREFIX}{index}": {} for index in range(members)}
    for key, array in arrays.items():
        member, _, name = key.partition("/")
        if member not in of_members:
            raise ValueError(
                f"{key!r} is not of one of the {members} members. Expected names such as '{_PREFIX}0/<layer>/<weight>'."
            )
        of_members[member][name] = array
    most = _MOST_UNPACKED // max(1, members)
    return [unpacked(WeightRecord.from_arrays(of_member), most) for of_member in of_members.values()]


def own_arrays(model: PredictiveModel) -> dict[str, npt.NDArray[Any]]:
    """Returns what a posterior knows beside the weights of its networks, by name. Empty if that is all.

    Raises:
        ValueError: If they do not fit into a file of an artifact.
    """
    arrays = model.arrays() if isinstance(model, StoredPosterior) else {}
    require_small(sum(array.nbytes for array in arrays.values()), count_all_weights(model))
    return arrays


def require_small(size: int, num_weights: int) -> None:
    """Refuses arrays of a posterior that are too large for an artifact.

    Args:
        size: Number of bytes.
        num_weights: Number of weights of the network, for the message.

    Raises:
        ValueError: If they are.
    """
    if size > MOST_BYTES:
        raise ValueError(
            f"The posterior of this network of {num_weights:,} weights takes {size / 2**20:.1f} MiB; an artifact holds "
            f"at most {MOST_BYTES / 2**20:.4g} MiB. Use fewer chains, samples or iterates, a lower rank or structure, "
            "or a smaller network."
        )


def inference_config(model: PredictiveModel) -> dict[str, Any]:
    """Returns the entries of `config.json` about inference: `inference`, and the settings of the posterior."""
    return {"inference": way_of(model), **(model.settings() if isinstance(model, StoredPosterior) else {})}


def way_in(config: Mapping[str, Any], what: str) -> str:
    """Returns the inference method according to `config.json`. Older files have no such entry.

    Args:
        config: Contents of the file.
        what: Description of the file for messages.

    Raises:
        ValueError: For an unknown `inference`.
    """
    way = config.get("inference", "variational")
    if way not in WAYS_IN_ARTIFACTS:
        raise ValueError(f"{what}: 'inference' is {shown(way)}; expected one of {', '.join(WAYS_IN_ARTIFACTS)}.")
    return way


def number_of_members(config: Mapping[str, Any], what: str) -> int | None:
    """Returns the number of members according to `config.json`, or None for a single network.

    Args:
        config: Contents of the file.
        what: Description of the file for messages.

    Raises:
        ValueError: For an unknown `inference`, or a number of members that is out of range.
    """
    kind = STORED_POSTERIORS.get(way_in(config, what))
    try:
        return None if kind is None else kind.num_networks(config)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def joined(
    networks: Sequence[tfp_bnn.VariationalModel], config: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
) -> ZooModel:
    """Joins networks and arrays to the posterior that a `config.json` describes.

    Args:
        networks: Networks with their weights.
        config: Contents of the file, with an `inference` that is known.
        arrays: Arrays of the posterior beside the weights.

    Raises:
        ValueError: If they do not fit.
    """
    way = config.get("inference", "variational")
    kind = STORED_POSTERIORS.get(way)
    if kind is not None:
        return kind.from_arrays(networks, way, config, arrays, networks[0].name)
    require_arrays(arrays, {})
    (network,) = networks
    return network


def check_way(model: PredictiveModel, config: Mapping[str, Any], what: str) -> None:
    """Raises a ValueError if a model differs from `inference` in its `config.json`. Older files have no such entry."""
    said, found = config.get("inference", "variational"), way_of(model)
    # Older files call every point estimate so, whatever its prior.
    if said != found and (said, found) != ("map", "maximum_likelihood"):
        raise ValueError(f"{what} says inference {said!r}, but describes a network with inference {found!r}.")
