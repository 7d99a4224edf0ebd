"""Model cards, made from the files of an artifact and read back: no number in a card is typed by hand.

Imports no TensorFlow: `tfp-bnn show` reads only this.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import yaml

from zoo.hub.manifest import locate, parse_json, read_verified, require


def read_artifact(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The verified `config`, `metrics`, `card` and `golden` arrays of an artifact, without building the model.

    Args:
        name_or_path: a name of the zoo, or else the path of an artifact's folder.

    Raises:
        ValueError: for an unknown name (names the nearest), or when any file is missing, changed or malformed.
    """
    folder, entry = locate(name_or_path)
    files = read_verified(folder, entry)
    return {
        "config": parse_json(require(files, "config.json", folder), str(folder / "config.json")),
        "metrics": parse_json(require(files, "metrics.json", folder), str(folder / "metrics.json")),
        "card": require(files, "README.md", folder).decode("utf-8"),
        "golden": parse_tensors(require(files, "golden.safetensors", folder), str(folder / "golden.safetensors")),
    }


def parse_tensors(data: bytes, what: str) -> dict[str, npt.NDArray[Any]]:
    """Parses safetensors that may come from anywhere.

    Args:
        data: the bytes of a file.
        what: it is, for messages.

    Raises:
        ValueError: when they are not safetensors of NumPy dtypes.
    """
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{what} is not a safetensors file: {error}. Restore it from where it came.") from None


def model_card(
    config: Mapping[str, Any], metrics: Mapping[str, Any], recipe: str, arrays: Mapping[str, npt.NDArray[Any]]
) -> str:
    """The card of an artifact as Markdown.

    Args:
        config: the contents of `config.json`.
        metrics: the contents of `metrics.json`.
        recipe: the text of `recipe.yaml`.
        arrays: the weight distributions.

    Returns:
        Markdown, ending in a newline.
    """
    data = config["data"]
    parts = [
        f"# {config['name']}\n",
        f"A variational posterior over the {config['num_weights']:,} weights of `{config['architecture']}`"
        + (f", trained on `{data['dataset']}` ({data['task']})." if data.get("dataset") else ".")
        + f" N = {config['num_examples']} training examples.\n",
    ]
    calibration = config.get("calibration")
    if metrics:
        parts += ["## Measured\n", _metrics_section(metrics, calibration)]
    if "out_of_distribution" in metrics:
        parts += ["## Out of distribution\n", _out_of_distribution_section(metrics)]
    parts += ["## Posterior\n", _posterior_section(arrays, metrics)]
    parts += [
        "## Distributions\n",
        f"- prior of the kernels: `{config['config']['kernel_prior']}`",
        "- posterior: `mean_field_normal`",
        f"- calibration: {_calibration_text(calibration)}",
    ]
    parts += [f"- likelihood: `{config['config']['likelihood']}`\n"]
    if "fine_tuning" in data:
        parts += ["## Fine-tuning\n", _fine_tuning_section(data["fine_tuning"], data.get("dataset"), arrays)]
    if recipe:
        parts += ["## Recipe\n", f"{_how_to_run(recipe, config)}:\n", f"```yaml\n{recipe}```\n"]
    return "\n".join(parts)


def _how_to_run(recipe: str, config: Mapping[str, Any]) -> str:
    values = yaml.safe_load(recipe)
    start = values.get("start_from")
    if start is not None and start["model"] is None:
        return "It started from a model that had no name"
    if config["data"].get("dataset") is None:
        return '`zoo.train("recipe.yaml", data=...)` runs it on the data that it was trained on, which have no name'
    # One that was changed for this run, or starts from another model, is found in this folder only.
    source = "recipe.yaml" if values["overrides"] or start is not None else config["name"]
    trust = " --trust" if config["data"].get("fine_tuning", {}).get("trust") else ""
    return f"`tfp-bnn train {source}{trust}` runs it"


def posterior_statistics(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """What all Bayesian weights are like: a near-delta posterior, or one that is the prior, is visible at a glance.

    Args:
        arrays: the weight distributions.

    Returns:
        `median_scale`, in the unit of the weights; `median_signal_to_noise`, of |mean| / scale; `active_fraction`, the
        share of weights with |mean| > scale.
    """
    kernels = [name.removesuffix("/loc") for name in arrays if name.endswith("/loc")]
    scales = np.concatenate([arrays[f"{name}/scale"].ravel() for name in kernels])
    means = np.concatenate([arrays[f"{name}/loc"].ravel() for name in kernels])
    return {
        "median_scale": float(np.median(scales)),
        "median_signal_to_noise": float(np.median(np.abs(means) / scales)),
        "active_fraction": float(np.mean(np.abs(means) > scales)),
    }


def _metrics_section(metrics: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> str:
    test, spread = metrics["test"], metrics.get("spread", {})
    columns = {"test": {name: f"{value:.4g}" for name, value in test.items()}}
    if "test_uncalibrated" in metrics:
        columns["test, not calibrated"] = {name: f"{value:.4g}" for name, value in metrics["test_uncalibrated"].items()}
    columns["mean ± standard deviation over training seeds"] = {
        name: f"{over['mean']:.4g} ± {over['std']:.2g}" for name, over in spread.items()
    }
    rows = [[name, *(column.get(name, "-") for column in columns.values())] for name in test]
    seeds = ", ".join(str(seed) for seed in metrics.get("training_seeds", []))
    note = (
        f"\nOn {metrics['num_examples']} test examples, with {metrics['num_samples']} Monte Carlo samples of the "
        f"weights (seed {metrics['seed']}); calibration: {_calibration_text(calibration)}; "
        f"training seeds {seeds}, the stored posterior being that of the first. NLL, entropies and mutual information "
        f"in nats.\n"
    )
    return _table(["metric", *columns], rows) + note


def _out_of_distribution_section(metrics: Mapping[str, Any]) -> str:
    outside = metrics["out_of_distribution"]
    rows = [
        [name, f"{metrics['test'][name]:.4g}", f"{value:.4g}"]
        for name, value in outside.items()
        if name in metrics["test"]
    ]
    what = (
        "inputs of noise, uniform over the range of the training inputs"
        if outside["data"] == "uniform"
        else f"test inputs of `{outside['data']}`"
    )
    return (
        _table(["mean over the inputs", "test", f"`{outside['data']}`"], rows)
        + f"\nOn {outside['num_examples']} {what}, that the model was not trained for. The mutual information of label "
        "and weights (nats), or the epistemic standard deviation (units of the target), is what more data like them "
        "would remove.\n"
    )


def _fine_tuning_section(how: Mapping[str, Any], dataset: str | None, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    lines = []
    source = "a model that had no name" if how["source"] is None else f"`{how['source']}`"
    if how["inflate"] is not None:
        head = "" if how["head_scale"] is None else f", and that of the new head is N(0, {how['head_scale']:g}^2)"
        mix = f". A share of {how['mix']:g} of each prior is N(0, 1) instead" if how["mix"] else ""
        scales = [value.ravel() for name, value in arrays.items() if name.endswith("/prior_scale") and value.ndim]
        lines += [
            f"The prior of the {'network' if how['head'] == 'keep' else 'body'} is the posterior of {source}, its "
            f"standard deviations times {how['inflate']:g}{head}{mix}. Median prior scale: "
            f"{np.median(np.concatenate(scales)):.4g}.\n"
        ]
    else:
        lines += [f"Training began at the posterior of {source}; the prior is another.\n"]
    if how["candidates"]:
        rows = [
            [f"{c['inflate']:g}", "-" if c["head_scale"] is None else f"{c['head_scale']:g}", f"{c['nll']:.4f}"]
            for c in how["candidates"]
        ]
        lines += ["Chosen by cross-validation on the training rows:\n"]
        lines += [_table(["inflate", "head scale", "held-out NLL (nats)"], rows)]
    if dataset is None and how["dataset"] is not None:
        lines += [f"The data were those of a dataset in memory, `{how['dataset']}`.\n"]
    if dataset is not None and how["source"] is not None:
        choice = ", without the choice" if how["candidates"] else ""
        lines += [f"`{fine_tuning_command(how, dataset)}` does it again{choice}.\n"]
    return "\n".join(lines)


def fine_tuning_command(how: Mapping[str, Any], dataset: str) -> str:
    """The command line that fine-tunes a model again.

    Args:
        how: as `zoo.fine_tune` writes it down.
        dataset: its name.
    """
    words = ["tfp-bnn", "finetune", how["source"], "--dataset", dataset]
    if how["inflate"] is None:
        words += ["--prior", json.dumps(how["prior"])]
    else:
        words += ["--inflate", repr(how["inflate"])]
        words += [] if how["head_scale"] is None else ["--head-scale", repr(how["head_scale"])]
        words += ["--mix", repr(how["mix"])] if how["mix"] else []
    words += ["--head", how["head"], *(word for layer in how["freeze"] for word in ("--freeze", layer))]
    words += ["--adapt-inputs"] if how["adapt_inputs"] else []
    words += ["--trust"] if how["trust"] else []
    for name in ("steps", "batch_size", "learning_rate", "seed"):
        words += [f"--{name.replace('_', '-')}", repr(how[name])]
    return shlex.join(words)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, *rows)]
    return "".join([lines[0], "|---" * len(header) + "|\n", *lines[1:]])


def _calibration_text(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return "none"
    return f"{calibration['name']} {calibration[calibration['name']]:.4g}"


def _posterior_section(arrays: Mapping[str, npt.NDArray[Any]], metrics: Mapping[str, Any]) -> str:
    statistics = posterior_statistics(arrays)
    lines = [
        f"- median posterior scale: {statistics['median_scale']:.4g}",
        f"- median |mean| / scale: {statistics['median_signal_to_noise']:.4g}",
        f"- active fraction, the share of weights with |mean| > scale: {statistics['active_fraction']:.4g}",
    ]
    if "kl" in metrics:
        lines.append(f"- KL(posterior || prior): {metrics['kl']['total']:.1f} nats; final beta {metrics['beta']:g}")
        lines += [f"  - {layer}: {value:.1f} nats" for layer, value in metrics["kl"]["by_layer"].items()]
    for name in sorted(arrays):
        shared_prior = name.startswith("prior/") and name.endswith("/scale")
        learned = name.endswith("prior_scale") or shared_prior or name == "likelihood/scale"
        # An informed prior has a scale for every weight.
        if learned and not arrays[name].ndim:
            lines.append(f"- learned `{name}`: {float(arrays[name]):.4g}")
    return "\n".join(lines) + "\n"
