"""References: predictions by Markov chains of the exact posterior that a model of the zoo approximates.

`python -m zoo.evaluation.references mlp_flipout.iris` makes that of a bundled model, and writes its card again.

Everything that has no posterior stays as the model has it (`with_fixed_parameters`): the biases, the scales of the
priors, the scale of the noise. The weights with a distribution are sampled at temperature 1, whatever beta the model
was trained with. What is stored are the predictions for the test split, averaged over all states of all chains.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from tfp_bnn.inference import Chains, hmc, nuts, with_fixed_parameters
from tfp_bnn.predictive import compared_arrays, score
from zoo.core.files import write_atomically
from zoo.core.validation import validate
from zoo.datasets import Dataset, load_dataset
from zoo.evaluation.card_numbers import agreement_numbers
from zoo.hub.loading import load_model, open_model
from zoo.hub.locating import locate
from zoo.hub.manifest import bundled_models, to_json, write_package_manifest
from zoo.hub.members import ZooModel
from zoo.hub.reading import REFERENCE_NAME, read_artifact
from zoo.hub.renewal import write_card
from zoo.recipes import EvaluationRecipe

MOST_RHAT = 1.05
"""The chains of a published reference agree on every prediction to within this R-hat."""

_VERSIONS = ("tensorflow", "tensorflow-probability", "keras", "numpy")


@dataclass(frozen=True)
class Sampler:
    """How the chains of a reference are run; see `tfp_bnn.inference.hmc` and `nuts`.

    Attributes:
        num_leapfrog_steps: Mean number of leapfrog steps of a state, for `hmc`; None for `nuts`.
        num_samples: Number of states to keep of each chain.
        burn_in: Number of first states that are thrown away.
        num_chains: Number of chains.
        thin: Keeps every `thin`-th state.
        seed: Seed of the chains.
        num_temperatures: Number of temperatures of each chain, for `hmc`.
    """

    num_leapfrog_steps: int | None
    num_samples: int
    burn_in: int
    num_chains: int = 8
    thin: int = 1
    seed: int = 0
    num_temperatures: int = 1

    def run(self, model: Any, data: Dataset, verbose: int = 0) -> Chains:
        """Samples the weights of a model, starting at draws of their prior."""
        settings = asdict(self)
        of_hmc = {name: settings.pop(name) for name in ("num_leapfrog_steps", "num_temperatures")}
        x, y = data.train.x, data.train.y
        if self.num_leapfrog_steps is None:
            return nuts(model, x, y, **settings, verbose=verbose)
        return hmc(model, x, y, **settings, **of_hmc, verbose=verbose)


# Chosen by trial: enough for an R-hat below 1.05 of every prediction.
SAMPLERS = {
    "mlp_flipout.diabetes": Sampler(20, 500, 500),
    "mlp_flipout.digits": Sampler(30, 400, 200, num_chains=4),
    "mlp_flipout.iris": Sampler(20, 500, 500),
    # Separate modes: without temperatures, R-hat was 1.25 after 40,000 states of each chain.
    "mlp_flipout.moons": Sampler(8, 1000, 400, num_temperatures=14),
}


@dataclass(frozen=True, eq=False)
class Reference:
    """Predictions of Markov chains for the test split.

    Attributes:
        arrays: `predictive`, as `tfp_bnn.predictive.compared_arrays`; `rhat` and `ess` of the predictions, in the shape
            of the predictive mean. Float32.
        about: How they were made, and the scores of all draws together; for the card.
    """

    arrays: Mapping[str, npt.NDArray[np.float32]]
    about: Mapping[str, Any]


def make_reference(model: ZooModel, data: Dataset, sampler: Sampler, command: str = "", verbose: int = 0) -> Reference:
    """Samples the exact posterior of a model's weights, given all that the model has learned without a posterior.

    Args:
        model: Trained model, not an ensemble.
        data: Dataset that it was trained on.
        sampler: How to run the chains.
        command: Command that makes it again, for the card.
        verbose: 1 for a progress bar, 0 for none.

    Raises:
        TypeError: If the model is an ensemble.
        ValueError: If the model cannot be sampled; see `tfp_bnn.inference.hmc`.
    """
    fixed = with_fixed_parameters(model)  # type: ignore[arg-type]
    begin = time.process_time()
    with warnings.catch_warnings():
        # Counted below.
        warnings.filterwarnings("ignore", message=".* trajectories diverged")
        chains = sampler.run(fixed, data, verbose)
    seconds = time.process_time() - begin
    convergence = chains.convergence(data.test.x)
    predictive = chains.posterior_predictive(data.test.x, num_samples=sampler.num_chains * sampler.num_samples)
    return Reference(
        {
            "predictive": compared_arrays(predictive),
            "rhat": convergence.rhat["predictions"].astype(np.float32),
            "ess": convergence.ess["predictions"].astype(np.float32),
        },
        {
            "command": command,
            "method": chains.way,
            **{key: value for key, value in asdict(sampler).items() if value is not None},
            "num_weights": sum(array[0, 0].size for array in chains.states.values()),
            "worst_rhat": convergence.worst_rhat(),
            "least_ess": convergence.least_ess(),
            "acceptance_rate": convergence.statistics["acceptance_rate"],
            "divergent": int(chains.statistics["diverging"].sum()),
            "cpu_seconds": round(seconds, 1),
            "priors": {
                f"{layer.name}/{name}": repr(weight.prior_spec)
                for layer in fixed.variational_layers
                for name, weight in layer.variational_weights.items()
            },
            "train_sha256": data.train.digest,
            "test_sha256": data.test.digest,
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in _VERSIONS},
            },
            "test": score(predictive, data.test.y),
        },
    )


def add_reference(name_or_path: str | os.PathLike[str], reference: Reference) -> Path:
    """Adds a reference to an artifact: `reference.safetensors`, its numbers in `metrics.json`, the card, the manifest.

    Args:
        name_or_path: Name of a bundled model, or folder of an artifact that names its dataset.
        reference: The reference.

    Returns:
        The folder of the artifact.

    Raises:
        ValueError: If R-hat is not below 1.05 for every prediction, or the artifact is malformed.
    """
    rhat = reference.about["worst_rhat"]
    if not rhat < MOST_RHAT:
        raise ValueError(
            f"The chains for {str(name_or_path)!r} have not converged: the worst R-hat of a prediction is {rhat:.3f}; "
            f"below {MOST_RHAT} was expected. Run more or longer chains."
        )
    (folder, _), artifact = locate(name_or_path), read_artifact(name_or_path)
    data = load_dataset(artifact["config"]["data"]["dataset"])
    metrics = artifact["metrics"]
    how = validate(EvaluationRecipe, {key: metrics[key] for key in ("num_samples", "seed")}, str(folder))
    model = open_model(name_or_path, trust=True)
    numbers = agreement_numbers(model, data, reference.arrays["predictive"], how.seed)
    metrics["reference"] = {**reference.about, **numbers}
    # Safetensors stores the memory of an array, whatever its strides.
    arrays = {key: np.array(array, order="C") for key, array in reference.arrays.items()}
    write_atomically(folder / REFERENCE_NAME, safetensors.numpy.save(arrays))
    write_atomically(folder / "metrics.json", to_json(metrics))
    write_card(folder, artifact["config"], metrics)
    return folder


if __name__ == "__main__":
    for _name in sys.argv[1:] or SAMPLERS:
        _model, _data = load_model(_name), load_dataset(bundled_models()[_name]["dataset"])
        _command = f"python -m zoo.evaluation.references {_name}"
        _reference = make_reference(_model, _data, SAMPLERS[_name], _command, verbose=1)
        print(to_json(_reference.about))
        print(add_reference(_name, _reference), write_package_manifest())
