"""The models in an artifact: one, or the members of an ensemble, with arrays called `member_<k>/<name>`.

Only this file knows that prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

import tfp_bnn
from tfp_bnn.inference import Ensemble, members_of, way_of
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.weight_record import WeightRecord, count_weights
from zoo.recipes.schema import MOST_MEMBERS

ZooModel = tfp_bnn.VariationalModel | Ensemble
"""Type of the models in artifacts."""

WAYS_IN_ARTIFACTS = ("variational", "map", "mc_dropout", "ensemble")
"""The inference methods whose models can be stored."""

_PREFIX = "member_"


def records_of(model: PredictiveModel) -> list[WeightRecord]:
    """Returns the weights of each member, or of the single model."""
    return [WeightRecord.of(member) for member in members_of(model)]


def count_all_weights(model: PredictiveModel) -> int:
    """Returns the total number of weights of all members."""
    return sum(count_weights(member) for member in members_of(model))


def arrays_of(records: Sequence[WeightRecord], is_ensemble: bool) -> dict[str, npt.NDArray[Any]]:
    """Returns all arrays to store, by name.

    Args:
        records: Weights of each member.
        is_ensemble: Whether to prefix names with their member.
    """
    if not is_ensemble:
        (record,) = records
        return record.arrays()
    return {
        f"{_PREFIX}{index}/{name}": array
        for index, record in enumerate(records)
        for name, array in record.arrays().items()
    }


def split_records(arrays: Mapping[str, npt.NDArray[Any]], members: int | None) -> list[WeightRecord]:
    """Splits stored arrays by member: the inverse of `arrays_of`.

    Args:
        arrays: Stored arrays, by name.
        members: Number of members of an ensemble, or None for a single model.

    Raises:
        ValueError: For a name that does not belong to a weight, or to one of the members.
    """
    if members is None:
        return [WeightRecord.from_arrays(arrays)]
    of_members: dict[str, dict[str, npt.NDArray[Any]]] = {f"{_PREFIX}{index}": {} for index in range(members)}
    for key, array in arrays.items():
        member, _, name = key.partition("/")
        if member not in of_members:
            raise ValueError(
                f"{key!r} is not of one of the {members} members. Expected names such as '{_PREFIX}0/<layer>/<weight>'."
            )
        of_members[member][name] = array
    return [WeightRecord.from_arrays(of_member) for of_member in of_members.values()]


def inference_config(model: PredictiveModel) -> dict[str, Any]:
    """Returns the entries of `config.json` about inference: `inference`, and `members` for an ensemble."""
    way = way_of(model)
    return {"inference": way, **({"members": len(members_of(model))} if way == "ensemble" else {})}


def number_of_members(config: Mapping[str, Any], what: str) -> int | None:
    """Returns the number of members according to `config.json`, or None for a single model.

    Args:
        config: Contents of the file.
        what: Description of the file for messages.

    Raises:
        ValueError: For an unknown `inference`, or a number of members that is out of range.
    """
    way, members = config.get("inference", "variational"), config.get("members")
    if way not in WAYS_IN_ARTIFACTS:
        raise ValueError(f"{what}: 'inference' is {way!r}; expected one of {', '.join(WAYS_IN_ARTIFACTS)}.")
    if way != "ensemble":
        return None
    if type(members) is not int or not 1 <= members <= MOST_MEMBERS:
        raise ValueError(
            f"{what}: 'members' of an ensemble must be an integer from 1 to {MOST_MEMBERS}, but is {members!r}."
        )
    return members


def check_way(model: PredictiveModel, config: Mapping[str, Any], what: str) -> None:
    """Raises a ValueError if a model differs from `inference` in its `config.json`. Older files have no such entry."""
    said, found = config.get("inference", "variational"), way_of(model)
    if said != found:
        raise ValueError(f"{what} says inference {said!r}, but describes a network with inference {found!r}.")
